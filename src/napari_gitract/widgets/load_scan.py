"""Load scan: a scan becomes an Image layer in millimetres, contours a Labels layer on it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pint
from napari.layers import Image, Labels, Layer
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
)

from gitract.errors import InputError
from gitract.io import FoundScan
from gitract.organs import ORGANS, Organ
from gitract.progress import Progress, Report
from gitract.scan import Spacing
from napari_gitract._reader import read_contours, read_layers
from napari_gitract.jobs import tell_error
from napari_gitract.layers import LayerTuple, origin_of, scan_from_layer
from napari_gitract.widgets._choices import LayerChoice, follow
from napari_gitract.widgets._contents import NameTable, ScanTable
from napari_gitract.widgets._panel import JobBar, Panel
from napari_gitract.widgets._parts import button_row, form, note, say

if TYPE_CHECKING:
    from napari.viewer import Viewer

__all__ = ["LoadScan"]

FILES = (
    "Scans and contours (*.dcm *.nii *.nii.gz *.tif *.tiff *.csv);;"
    "DICOM, also without a suffix (*);;All files (*)"
)
HOW = "Or drop the folder or the file on the viewer."


@dataclass(frozen=True)
class _Contents:
    """What a path holds: scans, or contours and what they are called there."""

    path: Path
    scans: tuple[FoundScan, ...] = ()
    organs: Mapping[str, Organ | None] = field(default_factory=dict)
    unknown: frozenset[str] = frozenset()

    @property
    def open_question(self) -> bool:
        """Whether the user must choose before anything can be read."""
        return len(self.scans) > 1 or bool(self.unknown)


class LoadScan(Panel):
    """Read a scan, and the reference labels beside it, or contours onto a scan.

    Parameters
    ----------
    napari_viewer
        The viewer to add the layers to.
    """

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__(napari_viewer)
        self._contents: _Contents | None = None
        self._added: list[Layer] = []  # that the status describes
        self.path = QLineEdit()
        self.path.setPlaceholderText("folder, or file")
        self.path.setToolTip(
            "A scan: a folder of PNG slices such as case20_day0, a DICOM folder, NIfTI, TIFF.\n"
            "Contours: RT Structure Set, DICOM SEG, label stacks, a table of run lengths."
        )
        self.path.returnPressed.connect(self.load)
        self.path.textChanged.connect(self._forget)
        folder_button = QPushButton("Folder…")
        folder_button.setToolTip("A folder of slices or of DICOM files.")
        folder_button.clicked.connect(self._browse_folder)
        file_button = QPushButton("File…")
        file_button.setToolTip("NIfTI, TIFF, contours, or one file of a DICOM series.")
        file_button.clicked.connect(self._browse_file)
        self.as_labels = QCheckBox("Read as contours")
        self.as_labels.setToolTip(
            "For label stacks of other programs, in which nothing tells labels from a scan.\n"
            "RT Structure Sets, SEGs and what was saved here are known without it."
        )
        self.as_labels.toggled.connect(self._forget)
        self.onto = QCheckBox()
        self.onto.setChecked(True)
        self.onto.setToolTip(
            "Contours lie on the scan chosen here; else on the series in their own folder, "
            "or where their file says."
        )
        self.image = LayerChoice(self.viewer, Image)
        self.image.chosen.connect(self.update_state)
        self.spacing_boxes = [_spacing_box(axis) for axis in ("slice", "row", "column")]
        self.scans = ScanTable()
        self.names = NameTable()
        self.load_button = QPushButton("Load")
        self.load_button.setToolTip("Add what is found as layers; asks where there is a choice.")
        self.load_button.clicked.connect(self.load)
        self.bar = JobBar(cancel="Stop reading; nothing is added.")
        self.status = note(HOW)
        follow(self, self.viewer.layers.events.removed, self._on_removed)
        self._arrange(folder_button, file_button)
        self._forget()

    def _arrange(self, folder_button: QPushButton, file_button: QPushButton) -> None:
        self.column.addWidget(self.path)
        self.column.addLayout(button_row(folder_button, file_button))
        fields = form()
        spacing_row = QHBoxLayout()
        for box in self.spacing_boxes:
            spacing_row.addWidget(box)
        spacing = QVBoxLayout()
        spacing.addLayout(spacing_row)
        spacing.addWidget(note("slice, row, column in mm; – takes what the file says", small=True))
        fields.addRow("Spacing", spacing)
        fields.addRow("Contours", self.as_labels)
        onto_row = QHBoxLayout()
        onto_row.addWidget(self.onto)
        onto_row.addWidget(self.image, 1)
        fields.addRow("Onto scan", onto_row)
        self.column.addLayout(fields)
        self.column.addWidget(self.scans)
        self.column.addWidget(self.names)
        self.column.addWidget(self.load_button)
        self.column.addWidget(self.bar)
        self.column.addWidget(self.status)
        self.column.addStretch(1)

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

    # --- looking, then reading ----------------------------------------------------------

    def load(self) -> None:
        """Look what the path holds, ask where there is a choice, and add the layers."""
        if self.busy or not self.path.text().strip():
            return
        try:
            read = self._reading()
        except InputError as error:
            tell_error(error)
            return
        path = self._typed()
        as_labels, asked = self.as_labels.isChecked(), self._contents

        def work(report: Report) -> _Contents | list[LayerTuple]:
            report(Progress(0, 0, f"Reading {path.name}"))
            # It reads its definitions at its first use: napari would, with the first layer.
            pint.get_application_registry().Unit("mm")
            contents = asked or _look(path, as_labels)
            question = asked is None and contents.open_question
            return contents if question else read(contents, report)

        self._describe([])
        self.run(f"Loading {path.name}", work, self.bar, self._take_result)

    def _typed(self) -> Path:
        return Path(self.path.text().strip()).expanduser()

    def _reading(self) -> Callable[[_Contents, Report], list[LayerTuple]]:
        """How to read what was found, by what the widget shows now.

        Raises
        ------
        InputError
            Something that was typed or chosen cannot be used.
        """
        spacing = self.spacing
        image = self.image.layer if self.onto.isChecked() else None
        asked = self._contents
        chosen = self.scans.chosen() if asked is not None and asked.scans else None
        choices = self.names.choices() if asked is not None and not asked.scans else None

        def read(contents: _Contents, report: Report) -> list[LayerTuple]:
            if not contents.scans:
                scan = None if image is None else scan_from_layer(image)
                return read_contours(
                    contents.path,
                    scan=scan,
                    spacing=spacing,
                    choices=choices,
                    image_layer=image,
                )
            layers: list[LayerTuple] = []
            for one in chosen or contents.scans:
                layers += read_layers(contents.path, key=one.key, spacing=spacing, report=report)
            return layers

        return read

    def _take_result(self, result: _Contents | list[LayerTuple]) -> None:
        if isinstance(result, _Contents):
            self._ask(result)
        else:
            self._add(result)

    def _ask(self, contents: _Contents) -> None:
        if contents.path != self._typed():
            return  # another path was typed meanwhile
        self._contents = contents
        if contents.scans:
            self.scans.show_scans(contents.scans)
            say(self.status, f"{len(contents.scans)} scans: choose one or several, then load.")
        else:
            self.names.show_names(contents.organs, contents.unknown)
            say(self.status, "Names with ? are in no table of organs: check them, then load.")
        self.update_state()

    def _add(self, layers: list[LayerTuple]) -> None:
        self._describe([self.viewer.add_layer(Layer.create(*layer)) for layer in layers])

    def _describe(self, layers: list[Layer]) -> None:
        """Say what was loaded; where nothing was, how to."""
        self._added = layers
        say(self.status, "\n".join(map(_description, layers)) if layers else HOW)

    def _on_removed(self, _event: Any) -> None:
        """Describe nothing that is no longer in the viewer."""
        left = [layer for layer in self._added if layer in self.viewer.layers]
        if len(left) < len(self._added):
            self._describe(left)

    def _forget(self) -> None:
        """Another path: what was found in the one before does not count."""
        if self._contents is not None:
            self._describe([])
        self._contents = None
        self.scans.hide()
        self.names.hide()
        self.update_state()

    # --- the rest -----------------------------------------------------------------------

    def _browse_folder(self) -> None:
        self._take(QFileDialog.getExistingDirectory(self, "Folder of a scan", self._start()))

    def _browse_file(self) -> None:
        self._take(QFileDialog.getOpenFileName(self, "Scan", self._start(), FILES)[0])

    def _start(self) -> str:
        """Where a dialog begins: at what is typed, else where the last scan lay."""
        return self.path.text() or self.last_folder("open")

    def _take(self, path: str) -> None:
        if path:
            self.keep_folder("open", Path(path).parent)
            self.path.setText(path)

    def update_state(self) -> None:
        """Loading needs a path, and one load at a time."""
        self.load_button.setEnabled(bool(self.path.text().strip()) and not self.busy)
        self.onto.setEnabled(self.image.layer is not None)
        self.image.setEnabled(self.image.layer is not None)


def _look(path: Path, as_labels: bool) -> _Contents:
    from gitract.io import find_scans, holds_labels, label_names
    from gitract.organ_names import OrganNames

    if not as_labels and not holds_labels(path):
        return _Contents(path, scans=tuple(find_scans(path)))
    names, table = label_names(path), OrganNames.load()
    # The values of a label image are our organs only where there are no others: 3 is the
    # stomach here, and a kidney elsewhere.
    own_ids: dict[str, Organ | None] = {str(organ.id): organ for organ in ORGANS}
    if not set(names) <= set(own_ids):
        own_ids = {}
    organs = {
        name: own_ids.get(name) if name.isdigit() else table.assign([name])[name] for name in names
    }
    unknown = frozenset(name for name in names if name.isdigit() or table.find(name) is None)
    return _Contents(path, organs=organs, unknown=unknown)


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
    if origin is None:
        return layer.name
    if isinstance(layer, Labels):
        return "\n".join([layer.name, *origin.remarks])
    size = " × ".join(str(n) for n in layer.data.shape)
    spacing = " × ".join(f"{mm:g}" for mm in origin.spacing)
    return "\n".join([f"{layer.name}: {size} voxels of {spacing} mm", *origin.remarks])
