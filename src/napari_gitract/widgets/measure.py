"""Measure: the organs of a Labels layer in numbers, as they are painted now."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from napari.layers import Image, Labels
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QFileDialog, QPushButton

from gitract import INTENDED_USE
from gitract.baseline import slice_digest, slice_digests
from gitract.errors import InputError
from gitract.progress import Report
from gitract.scan import Scan, Segmentation
from napari_gitract.jobs import Job
from napari_gitract.layers import (
    Origin,
    origin_for,
    origin_of,
    scan_from_layer,
    segmentation_of_labels,
)
from napari_gitract.widgets._choices import LayerChoice, follow
from napari_gitract.widgets._panel import Panel
from napari_gitract.widgets._parts import (
    button_row,
    color_icon,
    fill_table,
    fit_height,
    form,
    note,
    say,
    table,
)
from napari_gitract.widgets._volume_plot import Curve, VolumePlot
from napari_gitract.workspace import current_slice, go_to_slice

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from gitract.measure import OrganMeasures

__all__ = ["Measure"]

QUIET_MS = 600
NO_LABELS = "Segment a scan first, or open its contours with Load scan: they are measured here."
MEASURING = "Measuring…"
_HEADERS = {
    "Organ": "Click an organ for more numbers and to paint with it; double-click to go to its "
    "largest slice.",
    "mL": "Volume.",
    "mm": "Length along the slices, from the first slice to the last.",
    "Slices": "First and last slice, counted from 0, as on the viewer's slider.",
    "View": "cut: the organ touches the edge of the scan and may go on there; its volume and "
    "length are the least that it can have.",
}


class Measure(Panel):
    """Volume, length, place and intensity of each organ, and its volume by slice.

    Parameters
    ----------
    napari_viewer
        The viewer whose layers are measured.
    """

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__(napari_viewer)
        self.measures: tuple[OrganMeasures, ...] = ()
        self.up_to_date = False
        self._digests: list[str] = []  # of the slices, as they were measured
        self._measured: tuple[Labels | None, Image | None] = (None, None)
        self._picked: Image | None = None  # by the user, whatever the labels were drawn on
        self._shown: int | None = None  # the slice that the layer showed when it last told
        self._again = False
        self.labels = LayerChoice(self.viewer, Labels)
        self.image = LayerChoice(self.viewer, Image)
        self._make_parts()
        self._arrange()
        self._quiet = QTimer(self)
        self._quiet.setSingleShot(True)
        self._quiet.setInterval(QUIET_MS)
        self._quiet.timeout.connect(self.measure)
        self.labels.chosen.connect(self._on_labels_chosen)
        self.image.chosen.connect(self._on_image_chosen)
        self.image.activated.connect(self._on_image_picked)
        follow(self, self.workspace.labels_touched, self._on_touched)
        follow(self, self.viewer.dims.events.point, self._on_slider)
        self._show((), [])
        self._on_labels_chosen()

    def _make_parts(self) -> None:
        self.hint = note()
        self.organs = table(list(_HEADERS))
        for place, tip in enumerate(_HEADERS.values()):
            header = self.organs.horizontalHeaderItem(place)
            assert header is not None
            header.setToolTip(tip)
        self.organs.setToolTip(_HEADERS["Organ"])
        # Else the theme leaves the selected row as it is when all others go grey.
        self.organs.setStyleSheet("QTableWidget::item:selected:disabled { color: gray; }")
        self.organs.itemSelectionChanged.connect(self._show_details)
        self.organs.cellClicked.connect(self._paint_with)
        self.organs.cellDoubleClicked.connect(self._go_to_largest)
        self.details = note()
        self.details.setToolTip(
            "Centroid: DICOM's patient coordinates, x to the left, y to the back, z to the head. "
            "Intensity: mean and standard deviation of the image's values."
        )
        self.plot = VolumePlot()
        self.plot.chosen.connect(self._go_to)
        self.export_button = QPushButton("Export CSV…")
        self.export_button.setToolTip("Save all numbers, a row an organ.")
        self.export_button.clicked.connect(self._browse_export)
        self.copy_button = QPushButton("Copy")
        self.copy_button.setToolTip("Copy all numbers, to paste them into a spreadsheet.")
        self.copy_button.clicked.connect(self.copy)
        self.status = note(small=True)

    def _arrange(self) -> None:
        fields = form()
        fields.addRow("Labels", self.labels)
        fields.addRow("Image", self.image)
        self.column.addLayout(fields)
        self.column.addWidget(self.hint)
        self.column.addWidget(self.organs)
        self.column.addWidget(self.details)
        self.column.addWidget(self.plot)
        self.column.addLayout(button_row(self.export_button, self.copy_button))
        self.column.addWidget(self.status)
        self.column.addStretch(1)
        self.column.addWidget(note(INTENDED_USE, small=True))

    # --- which layers -------------------------------------------------------------------

    def _on_labels_chosen(self) -> None:
        labels = self.labels.layer
        if labels is not self._measured[0]:
            self._picked = None
        self._on_image_chosen()

    def _on_image_chosen(self) -> None:
        """Only the user may choose another image than the labels were drawn on.

        A menu follows what is added to the viewer, and two days often have grids alike: their
        intensities would be told as those of the other.
        """
        labels = self.labels.layer
        if labels is not None and self.image.layer is not self._picked:
            self.image.choose_image_of(labels)
        before, now = self._measured, (labels, self.image.layer)
        if now[0] is before[0] and now[1] is before[1]:
            return
        self._measured = now
        if now[0] is not before[0]:
            self._show((), [])
        self._look_again()
        self.measure()

    def _on_image_picked(self, index: int) -> None:
        self._picked = self.image.layers[index]
        self.image.layer = self._picked

    # --- measuring ----------------------------------------------------------------------

    def _on_touched(self, layer: Labels) -> None:
        """Measure once the brush has come to rest, but not for a move of the slider alone."""
        if layer is not self.labels.layer or layer.ndim != 3:
            return
        before, shown = self._shown, current_slice(self.viewer, layer)
        self._shown = shown
        slid = shown != before and self.up_to_date and len(self._digests) == len(layer.data)
        if slid and self._digests[shown] == slice_digest(np.asarray(layer.data[shown])):
            return
        self._look_again()
        self._quiet.start()

    def _look_again(self) -> None:
        """What is shown is out of date from now on."""
        self.up_to_date = False
        if self.busy and self.job is not None:
            self.job.cancel()
        self.update_state()

    def measure(self) -> None:
        """Measure the layer as it is painted now, off the GUI thread."""
        self._quiet.stop()
        layer = self.labels.layer
        if layer is None:
            return
        if self.busy:  # it is cancelled, and ends soon
            self._again = True
            return
        try:
            origin = origin_for(layer, self.viewer.layers)
        except InputError as error:
            self._refuse(str(error))
            return
        scan, reason = self._scan()
        # A stroke while this is copied would call for a new measurement anyhow.
        work = partial(_measured, layer.data, origin, scan, reason)
        if self.job is not None:
            self.job.deleteLater()
        self.job = Job(f"Measuring {layer.name}", work, parent=self, quiet=True)
        self.job.succeeded.connect(partial(self._take, layer))
        self.job.failed.connect(self._on_failed)
        self.job.ended.connect(self._on_ended)
        self.job.start()
        self.update_state()

    def _scan(self) -> tuple[Scan | None, str]:
        """The scan to take intensities from, or none and why."""
        if self.image.layer is None:
            return None, ""
        try:
            return scan_from_layer(self.image.layer), ""
        except InputError as error:
            return None, str(error)

    def _take(self, layer: Labels, result: "_Result | str") -> None:
        if layer is not self.labels.layer:
            return
        if isinstance(result, str):
            self._refuse(result)
            return
        self.up_to_date = True
        self._shown = current_slice(self.viewer, layer)
        self._show(result.measures, result.digests)
        say(self.hint, result.no_intensity)
        self.update_state()

    def _refuse(self, reason: str) -> None:
        self._show((), [])
        say(self.hint, reason)

    def _on_failed(self, _message: str) -> None:
        self._refuse("This layer could not be measured.")

    def _on_ended(self) -> None:
        if self._again:
            self._again = False
            self.measure()

    def closed(self) -> None:
        """Measure no more."""
        self._quiet.stop()
        super().closed()

    # --- what is shown ------------------------------------------------------------------

    def _show(self, measures: "Sequence[OrganMeasures]", digests: list[str]) -> None:
        row = self.organs.currentRow()
        self.measures, self._digests = tuple(measures), digests
        self.organs.blockSignals(True)
        fill_table(
            self.organs,
            [_cells(one) for one in measures],
            [color_icon(one.organ.color) for one in measures],
        )
        for place, one in enumerate(measures):
            item = self.organs.item(place, 4)
            assert item is not None
            item.setToolTip(_cut(one))
        if row < len(measures):
            self.organs.selectRow(max(row, 0))
        self.organs.blockSignals(False)
        fit_height(self.organs)
        self.plot.show_curves(
            [Curve(one.organ.title, one.organ.color, one.volume_by_slice_ml) for one in measures]
        )
        self._show_details()
        self._show_slice()
        self.update_state()

    def _show_details(self) -> None:
        row = self.organs.currentRow()
        chosen = self.measures[row] if 0 <= row < len(self.measures) else None
        self.details.setText("" if chosen is None else _details(chosen))
        self.plot.emphasise(None if chosen is None else row)

    def update_state(self) -> None:
        """Grey numbers that are out of date; neither copy nor save them."""
        for part in (
            self.organs,
            self.details,
            self.plot,
            self.export_button,
            self.copy_button,
            self.status,
        ):
            part.setVisible(bool(self.measures))
        for part in (self.organs, self.details, self.export_button, self.copy_button):
            part.setEnabled(self.up_to_date)
        self.plot.fade(not self.up_to_date)
        self.status.setText("As painted now." if self.up_to_date else MEASURING)
        if self.labels.layer is None:
            say(self.hint, NO_LABELS)
        elif not self.measures and (self.busy or self.hint.text() == NO_LABELS):
            say(self.hint, MEASURING)

    # --- what the user does -------------------------------------------------------------

    def _on_slider(self, _event: Any = None) -> None:
        layer = self.labels.layer
        if layer is not None and not layer.visible:  # it tells nothing of the slider, then
            self._shown = current_slice(self.viewer, layer)
        self._show_slice()

    def _show_slice(self) -> None:
        layer = self.labels.layer
        known = layer is not None and bool(self.measures)
        self.plot.show_current(current_slice(self.viewer, layer) if known else None)

    def _go_to(self, index: int) -> None:
        if self.labels.layer is not None:
            go_to_slice(self.viewer, self.labels.layer, index)

    def _go_to_largest(self, row: int, _column: int) -> None:
        largest = self.measures[row].largest_slice
        if largest is not None:
            self._go_to(largest)

    def _paint_with(self, row: int, _column: int) -> None:
        layer = self.labels.layer
        if layer is not None:
            layer.selected_label = self.measures[row].organ.id
            self.viewer.layers.selection.active = layer

    def copy(self) -> None:
        """Put the whole table on the clipboard, as spreadsheets take it."""
        from gitract.measure import csv_text

        clipboard = QApplication.clipboard()
        if not self.up_to_date or clipboard is None:
            return
        clipboard.setText(csv_text(self.measures, delimiter="\t"))
        self.status.setText("Copied: paste it into a spreadsheet.")

    def _browse_export(self) -> None:
        if self.labels.layer is None:
            return
        name = f"{self.labels.layer.name.replace(' · ', '_')}_measures.csv"
        suggestion = str(Path(self.last_folder("export")) / name)
        path, _ = QFileDialog.getSaveFileName(self, "Export CSV", suggestion, "CSV (*.csv)")
        if path:
            self.keep_folder("export", Path(path).parent)
            self.export(path)

    def export(self, path: str) -> None:
        """Write the whole table as CSV."""
        from gitract.io import check_output
        from gitract.measure import csv_text
        from gitract.replacing import replaced_file

        layer = self.labels.layer
        if layer is None or not self.up_to_date:
            return
        origin = origin_of(layer.metadata)
        source = None if origin is None else origin.source
        with self.errors_shown(f"Exporting measures of {layer.name}"):
            check_output(path, (".csv",), inputs=[] if source is None else [source])
            with replaced_file(Path(path)) as unfinished:
                unfinished.write_text(csv_text(self.measures), encoding="utf-8", newline="")
            self.status.setText(f"Saved to {Path(path).name}.")


class _Result(NamedTuple):
    """What a job hands to the window; `no_intensity` says why there is none, if so."""

    measures: "tuple[OrganMeasures, ...]"
    digests: list[str]
    no_intensity: str


def _measured(
    data: Any, origin: Origin, scan: Scan | None, reason: str, report: Report
) -> _Result | str:
    """Measure labels; or say why they cannot be.

    Not by an error: it would be shown anew each time that the brush rests.
    """
    from gitract.measure import measure

    labels = np.array(data)
    try:
        segmentation = segmentation_of_labels(labels, origin)
    except InputError as error:
        return str(error)
    reason = reason or _misfit(segmentation, scan)
    measures = measure(segmentation, None if reason else scan, report=report)
    no_intensity = f"No intensities. {reason}" if reason else ""
    return _Result(measures, slice_digests(labels), no_intensity)


def _misfit(segmentation: Segmentation, scan: Scan | None) -> str:
    """Why the scan is not that of the contours; nothing where it is, or there is none."""
    from gitract.measure import check_same_grid

    try:
        if scan is not None:
            check_same_grid(segmentation, scan)
    except InputError as error:
        return str(error)
    return ""


def _cells(one: "OrganMeasures") -> list[str]:
    if not one.voxels:
        return [one.organ.title, "0.0", "–", "–", ""]
    slices = f"{one.first_slice}–{one.last_slice}"
    cut = "cut" if one.cut_by else ""
    return [one.organ.title, f"{one.volume_ml:.1f}", f"{one.length_mm:.1f}", slices, cut]


def _cut(one: "OrganMeasures") -> str:
    if not one.cut_by:
        return ""
    return f"Touches the {' and '.join(one.cut_by)}: may go on there, and be larger than measured."


def _details(one: "OrganMeasures") -> str:
    if one.centroid is None or one.centroid_lps_mm is None:
        return f"{one.organ.title}: nothing is painted."
    x, y, z = one.centroid_lps_mm
    surface = f"{one.organ.title}: surface {one.surface_cm2:.1f} cm²"
    if one.mean_intensity is not None:
        surface += f", intensity {one.mean_intensity:.1f} (SD {one.sd_intensity:.1f})"
    centroid = (
        f"Centroid: x {x:.1f}, y {y:.1f}, z {z:.1f} mm; slice {one.centroid[0]:.1f}, "
        f"row {one.centroid[1]:.1f}, column {one.centroid[2]:.1f}"
    )
    return "\n".join(line for line in (surface, centroid, _cut(one)) if line)
