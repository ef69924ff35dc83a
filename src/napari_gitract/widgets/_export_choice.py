"""What to export, and in which format: the upper half of the Export widget."""

import re
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Image, Labels, Layer
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QFormLayout, QLabel, QVBoxLayout, QWidget

from gitract.errors import InputError
from gitract.scan import DicomSeries, Stored
from gitract.scan_export import SCAN_SUFFIX_WITH
from napari_gitract.layers import Origin, is_drawn_on, origin_for, origin_of, scan_from_layer
from napari_gitract.settings import preferred_suffix
from napari_gitract.widgets._choices import LayerChoice
from napari_gitract.widgets._layer_ticks import LayerTicks
from napari_gitract.widgets._organs_to_write import OrgansToWrite
from napari_gitract.widgets._parts import form, note, say, section
from napari_gitract.widgets._to_export import Part, ToExport, What

if TYPE_CHECKING:
    from napari.viewer import Viewer

__all__ = ["ExportChoice"]

NO_LABELS = "Segment a scan first, or open its contours with Load scan: they are exported here."
NO_SCAN = "Open a scan with Load scan first: it is exported here."
WHAT = (
    "Contours that go with their scan lie on the scan as it is written, so that both are of use "
    "elsewhere."
)
DEIDENTIFY = (
    "Leave out who the patient is: name, ID, birth date, sex, physicians, study ID, accession "
    "number, all dates. UIDs stay, for the contours refer to the scan by them."
)
DEIDENTIFY_SCAN = (
    "Write a new series that holds the voxels and their place alone, with a pseudonym and UIDs "
    "of its own; contours refer to it. Unticked, the files of the series are copied as they are."
)
HOLDS_NOBODY = "This format has no place for who the patient is; there is nothing to leave out."
KNOWS_NOBODY = "The scan is of no DICOM series: nothing tells who the patient is."
DEIDENTIFIED_ALONE = (
    "De-identified contours do not join the patient's scan at the node. A planning system needs "
    "the patient: untick De-identify for it."
)
DEIDENTIFIED = "At the node it is of a new patient, whom a pseudonym names."
IDENTIFIED_ALONE = "The contours go with the patient's name and ID, as in the scan."
IDENTIFIED = "The files of the series go as they are, with the patient's name and ID."


class ExportChoice(QWidget):
    """What to export; `changed` is emitted when it is something else.

    Parameters
    ----------
    viewer
        Whose layers are offered.
    """

    changed = Signal()

    def __init__(self, viewer: "Viewer") -> None:
        super().__init__()
        self._viewer = viewer
        self._about: Layer | None = None  # the layer that the rest was chosen for
        self._format_chosen = False
        self._make_parts()
        self._arrange()
        self.labels.chosen.connect(self._on_labels)
        self.images.chosen.connect(self._on_images)
        self._on_what()

    def _make_parts(self) -> None:
        self.what_menu = QComboBox()
        self.what_menu.addItems([*What])
        self.what_menu.setToolTip(WHAT)
        self.what_menu.activated.connect(self._on_what)
        self.labels = LayerChoice(self._viewer, Labels)
        self.images = LayerChoice(self._viewer, Image)
        self.format = QComboBox()
        self.format.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.format.activated.connect(self._on_format_chosen)
        self.hint = note()
        self.others = LayerTicks()
        self.others.ticked.connect(self.changed)
        self.others_section = section("Further layers", self.others)
        self.organs = OrgansToWrite()
        self.organs.ticked.connect(self.changed)
        self.deidentify = QCheckBox("De-identify")
        self.deidentify.setChecked(True)
        self.deidentify.clicked.connect(self.changed)

    def _arrange(self) -> None:
        fields = form()
        fields.addRow("What", self.what_menu)
        fields.addRow("Labels", self.labels)
        fields.addRow("Scan", self.images)
        fields.addRow("Format", self.format)
        self._fields = fields
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(fields)
        layout.addWidget(self.hint)
        layout.addWidget(self.others_section)
        layout.addWidget(self.organs)
        layout.addWidget(self.deidentify)

    # --- what is chosen -----------------------------------------------------------------

    @property
    def what(self) -> What:
        """What is exported."""
        return What(self.what_menu.currentText())

    @property
    def suffix(self) -> str:
        """Of the format that is chosen; where both are exported, that of the contours."""
        return str(self.format.currentData())

    @property
    def is_dicom(self) -> bool:
        """Whether what is written is DICOM."""
        return self.what.is_dicom(self.suffix)

    @property
    def layer(self) -> Layer | None:
        """The layer that is exported; of several, the one that was chosen first."""
        chosen = self.images if self.what is What.SCAN else self.labels
        found: Layer | None = chosen.layer
        return found

    @property
    def contours(self) -> list[Labels]:
        """The layers whose contours are written, the one that was chosen first."""
        if self.what is What.SCAN or self.labels.layer is None:
            return []
        return [self.labels.layer, *self.others.chosen]

    @property
    def whose(self) -> str:
        """Whose it will be at a DICOM node, or why nothing can be sent there."""
        if self.layer is None:
            return ""
        alone = self.what is What.CONTOURS
        if not self.is_dicom:
            formats = "DICOM series" if self.what is What.SCAN else "RT Structure Set or SEG"
            return f"Only DICOM can be sent: choose {formats}."
        if self.deidentify.isChecked() or not self._tells_patient:
            return DEIDENTIFIED_ALONE if alone else DEIDENTIFIED
        return IDENTIFIED_ALONE if alone else IDENTIFIED

    @property
    def _tells_patient(self) -> bool:
        """Whether the files of the scan can tell who the patient is."""
        return isinstance(self._stored, DicomSeries)

    @property
    def _stored(self) -> Stored | None:
        """How the scan of the layer is stored, as far as that is known."""
        layer = self.layer
        if isinstance(layer, Labels):
            with suppress(InputError):
                return origin_for(layer, self._viewer.layers).stored
        origin = None if layer is None else origin_of(layer.metadata)
        return None if origin is None else origin.stored

    def choose_what(self, what: What) -> None:
        """Choose what to export, as the user does."""
        self.what_menu.setCurrentText(what)
        self._on_what()

    def choose_format(self, suffix: str) -> None:
        """Choose the format of this suffix, as the user does."""
        self.format.setCurrentIndex(self.format.findData(suffix))
        self._on_format_chosen()

    def to_export(self) -> ToExport:
        """The layers as they are now, not copied, with what was chosen.

        Raises
        ------
        InputError
            One of them is no stack, does not know where it lies, or its scan is not there.
        """
        layers = self._viewer.layers
        image = None if self.what is What.CONTOURS else self._image()
        return ToExport(
            what=self.what,
            suffix=self.suffix,
            file_name=self._file_name(),
            parts=tuple(
                Part(np.asarray(one.data), origin_for(one, layers)) for one in self.contours
            ),
            scan=None if image is None else scan_from_layer(image),
            left_out=frozenset(self.organs.left_out),
            deidentify=self.deidentify.isChecked(),
        )

    def _image(self) -> Image:
        """The scan to write: the one that is chosen, or that of the contours.

        Raises
        ------
        InputError
            That is not among the layers.
        """
        if self.what is What.SCAN:
            chosen: Image = self.images.layer
            return chosen
        labels = self.labels.layer
        known = origin_for(labels, self._viewer.layers)
        for image in self.images.layers:
            if is_drawn_on(labels, image) or _lies_as(image, known):
                return image
        raise InputError(
            f"The scan of {labels.name!r} is not open: open it, or export the contours alone."
        )

    def _file_name(self) -> str:
        name = "contours" if self.layer is None else self.layer.name
        stem = re.sub(r'[\\/:*?"<>|\s]+', "_", name.replace(" · ", "_"))
        return stem if self.what is What.BOTH else f"{stem}{self.suffix}"

    # --- what the user does -------------------------------------------------------------

    def _on_what(self, *_: object) -> None:
        """Something else is exported: other formats, other layers."""
        what = self.what
        known = [self.format.itemData(place) for place in range(self.format.count())]
        if known != [*what.formats]:
            self._format_chosen = False
            self.format.clear()
            for place, (suffix, title) in enumerate(what.formats.items()):
                self.format.addItem(title, suffix)
                self.format.setItemData(place, suffix, Qt.ItemDataRole.ToolTipRole)
        _show_row(self._fields, self.labels, what is not What.SCAN)
        _show_row(self._fields, self.images, what is What.SCAN)
        self._on_layers()

    def _on_labels(self) -> None:
        if self.what is not What.SCAN:
            self._on_layers()

    def _on_images(self) -> None:
        if self.what is not What.CONTOURS:
            self._on_layers()

    def _on_layers(self) -> None:
        """Another layer was chosen, or there are others now."""
        layer, labels = self.layer, self.labels.layer
        candidates = [one for one in self.labels.layers if one is not labels]
        self.others.show_layers([one for one in candidates if _of_one_scan(one, labels)])
        if layer is not self._about:
            self._about = layer
            self.organs.forget()
        self._suggest_format()  # a layer that fills up knows its scan only when it is complete
        self.changed.emit()

    def _suggest_format(self) -> None:
        """The format that such a scan is most often wanted in, until one is chosen."""
        if self._format_chosen:
            return
        suffix = preferred_suffix(self._stored)
        if self.what is What.SCAN:
            suffix = SCAN_SUFFIX_WITH[suffix]
        self.format.setCurrentIndex(max(0, self.format.findData(suffix)))

    def _on_format_chosen(self, *_: object) -> None:
        self._format_chosen = True
        self.changed.emit()

    def update_state(self) -> None:
        """Say what is missing; offer only what can be used."""
        scan_alone = self.what is What.SCAN
        say(self.hint, "" if self.layer is not None else NO_SCAN if scan_alone else NO_LABELS)
        count, chosen = self.others.count, len(self.others.chosen)
        self.others_section.setText(f"Further layers ({chosen} of {count})")
        self.others_section.setVisible(bool(count) and not scan_alone)
        self.deidentify.setVisible(self.layer is not None)
        self.deidentify.setEnabled(self.is_dicom and self._tells_patient)
        if not self.is_dicom:
            self.deidentify.setToolTip(HOLDS_NOBODY)
        elif not self._tells_patient:
            self.deidentify.setToolTip(KNOWS_NOBODY)
        else:
            alone = self.what is What.CONTOURS
            self.deidentify.setToolTip(DEIDENTIFY if alone else DEIDENTIFY_SCAN)


def _show_row(fields: QFormLayout, field: QWidget, shown: bool) -> None:
    """Show a row of a form, or hide it; Qt 5 has no way of its own."""
    label = fields.labelForField(field)
    assert isinstance(label, QLabel)
    label.setVisible(shown)
    field.setVisible(shown)


def _lies_as(image: Image, known: Origin) -> bool:
    """Whether an image is the scan that labels of the user's own were painted on."""
    origin = origin_of(image.metadata)
    if origin is None or origin.name != known.name:
        return False
    return bool(np.allclose(origin.affine, known.affine, atol=0.01))


def _of_one_scan(layer: Labels, other: Labels | None) -> bool:
    """Whether two layers lie on one scan, as far as they know."""
    if other is None:
        return False
    one, two = origin_of(layer.metadata), origin_of(other.metadata)
    if one is None or two is None:
        return False
    same = (one.name, one.shape, one.stored) == (two.name, two.shape, two.stored)
    return same and np.array_equal(one.affine, two.affine)
