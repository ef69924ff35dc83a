"""Load scan: a folder of slices or a TIFF becomes an Image layer in millimetres."""

from pathlib import Path
from typing import TYPE_CHECKING

from napari.layers import Image, Labels, Layer
from qtpy.QtWidgets import QDoubleSpinBox, QFileDialog, QHBoxLayout, QLineEdit, QPushButton

from gitract.errors import InputError
from gitract.progress import Progress, Report
from gitract.scan import Spacing
from napari_gitract._reader import read_layers
from napari_gitract.jobs import tell_error
from napari_gitract.layers import LayerTuple, origin_of
from napari_gitract.widgets._panel import JobBar, Panel
from napari_gitract.widgets._parts import button_row, form, note, say

if TYPE_CHECKING:
    from napari.viewer import Viewer

__all__ = ["LoadScan"]

FILES = "TIFF stacks (*.tif *.tiff);;All files (*)"


class LoadScan(Panel):
    """Read a scan, and the reference labels beside it, into the viewer.

    Parameters
    ----------
    napari_viewer
        The viewer to add the layers to.
    """

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__(napari_viewer)
        self.path = QLineEdit()
        self.path.setPlaceholderText("folder of slices, or TIFF")
        self.path.setToolTip("A folder such as case20_day0 with its PNG slices, or a TIFF stack.")
        self.path.returnPressed.connect(self.load)
        self.path.textChanged.connect(self.update_state)
        folder_button = QPushButton("Folder…")
        folder_button.clicked.connect(self._browse_folder)
        file_button = QPushButton("File…")
        file_button.clicked.connect(self._browse_file)
        self.spacing_boxes = [_spacing_box(axis) for axis in ("slice", "row", "column")]
        self.load_button = QPushButton("Load")
        self.load_button.clicked.connect(self.load)
        self.bar = JobBar(cancel="Stop reading; nothing is added.")
        self.status = note("Or drop the folder on the viewer.")

        self.column.addWidget(self.path)
        self.column.addLayout(button_row(folder_button, file_button))
        fields = form()
        spacing_row = QHBoxLayout()
        for box in self.spacing_boxes:
            spacing_row.addWidget(box)
        fields.addRow("Spacing", spacing_row)
        self.column.addLayout(fields)
        self.column.addWidget(
            note("slice, row, column in mm; – takes what the file says.", small=True)
        )
        self.column.addWidget(self.load_button)
        self.column.addWidget(self.bar)
        self.column.addWidget(self.status)
        self.column.addStretch(1)
        self.update_state()

    @property
    def spacing(self) -> Spacing | None:
        """The spacing typed in, or None where nothing was.

        Raises
        ------
        InputError
            Only some of the three numbers are there.
        """
        slice_mm, row_mm, column_mm = (box.value() for box in self.spacing_boxes)
        given = [mm > 0 for mm in (slice_mm, row_mm, column_mm)]
        if not any(given):
            return None
        if not all(given):
            raise InputError("Give the spacing of all three axes (slice, row, column), or of none.")
        return slice_mm, row_mm, column_mm

    def load(self) -> None:
        """Read what the path names, off the GUI thread, and add its layers."""
        path = Path(self.path.text().strip()).expanduser()
        if self.busy or not self.path.text().strip():
            return
        try:
            spacing = self.spacing
        except InputError as error:
            tell_error(error)
            return

        def work(report: Report) -> list[LayerTuple]:
            report(Progress(0, 0, f"Reading {path.name}"))
            return read_layers(path, spacing=spacing, report=report)

        say(self.status, "")
        self.run(f"Loading {path.name}", work, self.bar, self._add)

    def _add(self, layers: list[LayerTuple]) -> None:
        added = [self.viewer.add_layer(Layer.create(*layer)) for layer in layers]
        say(self.status, "\n".join(_description(layer) for layer in added))

    def _browse_folder(self) -> None:
        self._take(QFileDialog.getExistingDirectory(self, "Folder of slices", self.path.text()))

    def _browse_file(self) -> None:
        self._take(QFileDialog.getOpenFileName(self, "Scan", self.path.text(), FILES)[0])

    def _take(self, path: str) -> None:
        if path:
            self.path.setText(path)

    def update_state(self) -> None:
        """Loading needs a path, and one load at a time."""
        self.load_button.setEnabled(bool(self.path.text().strip()) and not self.busy)


def _spacing_box(axis: str) -> QDoubleSpinBox:
    box = QDoubleSpinBox()
    box.setButtonSymbols(QDoubleSpinBox.ButtonSymbols.NoButtons)
    # napari's style gives every spin box room for its buttons, which these have not.
    box.setStyleSheet("QDoubleSpinBox { min-width: 40px; }")
    box.setRange(0.0, 100.0)
    box.setDecimals(2)
    box.setSingleStep(0.1)
    box.setSpecialValueText("–")
    box.setToolTip(f"Distance between two {axis}s in mm; – takes it from the file.")
    return box


def _description(layer: Image | Labels) -> str:
    origin = origin_of(layer.metadata)
    if origin is None or isinstance(layer, Labels):
        return layer.name
    size = " × ".join(str(n) for n in layer.data.shape)
    spacing = " × ".join(f"{mm:g}" for mm in origin.spacing)
    return f"{layer.name}: {size} voxels of {spacing} mm"
