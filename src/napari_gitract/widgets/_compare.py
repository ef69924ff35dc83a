"""Two models on the open scan: what each of them draws, in numbers and as a layer."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from napari.layers import Image, Labels
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QCheckBox, QPushButton, QVBoxLayout, QWidget

from gitract.baseline import slice_digests
from gitract.change import GAINED, LOST
from gitract.errors import GitractError
from gitract.progress import Progress, Report
from napari_gitract.jobs import loading_libraries
from napari_gitract.layers import change_to_layer, scan_from_layer, segmentation_from_layer
from napari_gitract.widgets._choices import LayerChoice, ModelChoice, follow
from napari_gitract.widgets._panel import JobBar, Panel
from napari_gitract.widgets._parts import (
    color_icon,
    fill_table,
    fit_height,
    form,
    note,
    say,
    table,
)
from napari_gitract.workspace import model_events

if TYPE_CHECKING:
    from gitract.model_comparison import Agreement, Comparison

__all__ = ["CompareModels"]

QUIET_MS = 600
NO_IMAGE = "Load a scan first: drop its folder on the viewer, or use Load scan."
ONE_MODEL = "There is one model only: fine-tune it, or import or download another."
SAME = "Choose two different models."
CLOSED = "The scan was closed meanwhile: nothing was added."
CHANGED = "The reference was changed since: compare again."
DIFFERENCES = "In the layer of differences green is what only B draws, and red what only A draws."


class CompareModels(QWidget):
    """Let two models segment the open scan, and show how far they agree.

    Parameters
    ----------
    panel
        The widget that this is a part of: it runs the job.
    """

    def __init__(self, panel: Panel) -> None:
        super().__init__()
        self._panel = panel
        self._viewer = panel.viewer
        self._shown_of: Image | None = None
        self._reference: Labels | None = None
        self._digests: list[str] = []
        self._make_parts()
        self._arrange()
        self._quiet = QTimer(self)
        self._quiet.setSingleShot(True)
        self._quiet.setInterval(QUIET_MS)
        self._quiet.timeout.connect(self._look_at_reference)
        follow(self, model_events.changed, self._choose_two)
        follow(self, self._viewer.layers.events.removed, self._on_removed)
        follow(self, panel.workspace.labels_touched, self._on_touched)
        self.clear()
        self._choose_two()

    def _make_parts(self) -> None:
        self.image = LayerChoice(self._viewer, Image)
        self.first, self.second = ModelChoice(), ModelChoice()
        self.with_reference = QCheckBox("Reference")
        self.with_reference.setToolTip(
            "Measure both against contours that you hold for right, on a Labels layer."
        )
        self.reference = LayerChoice(self._viewer, Labels)
        self.compare_button = QPushButton("Compare")
        self.compare_button.setToolTip(
            "Let both segment the whole scan; adds a layer of where they differ."
        )
        self.bar = JobBar(cancel="End now; nothing is added.")
        self.hint = note()
        self.about = note()
        self.volumes = table(["Volume, mL", "A", "B", "Reference"])
        self.dice = table(["Dice", "A, B", "A, ref.", "B, ref."])
        self.dice.setToolTip("Overlap of A with B, and of each with the reference: 1 is the same.")
        self.hd95 = table(["HD95, mm", "A, B", "A, ref.", "B, ref."])
        self.hd95.setToolTip(
            "How far surfaces lie apart, all but the farthest 5 %, of A and B, and of each and the "
            "reference: 0 is the same."
        )
        self.remark = note()
        self.compare_button.clicked.connect(self.compare)
        self.with_reference.toggled.connect(self.update_state)
        for choice in (self.image, self.reference):
            choice.chosen.connect(self.update_state)
        for model in (self.first, self.second):
            model.currentIndexChanged.connect(self.update_state)

    def _arrange(self) -> None:
        fields = form()
        fields.addRow("Image", self.image)
        fields.addRow("Model A", self.first)
        fields.addRow("Model B", self.second)
        fields.addRow(self.with_reference, self.reference)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(fields)
        for widget in (
            self.compare_button,
            self.bar,
            self.hint,
            self.about,
            self.volumes,
            self.dice,
            self.hd95,
            self.remark,
        ):
            layout.addWidget(widget)

    def compare(self) -> None:
        """Segment with both models off the GUI thread, and show how they differ."""
        image, first, second = self.image.layer, self.first.info, self.second.info
        if self._panel.busy or image is None or first is None or second is None:
            return
        layer = self.reference.layer if self.with_reference.isChecked() else None
        try:
            scan = scan_from_layer(image)
            reference = None if layer is None else segmentation_from_layer(layer, scan)
        except GitractError as error:
            self._panel.tell_error(error)
            return
        self.clear()
        self._shown_of, self._reference = image, layer
        self._digests = [] if layer is None else slice_digests(np.asarray(layer.data))

        def work(report: Report) -> _Result:
            report(Progress(0, 0, "Loading the models"))
            with loading_libraries("torch"):
                from gitract.model_comparison import compare

            found = compare(scan, first.id, second.id, reference, report=report)
            return _Result(found, found.change)

        def show(result: _Result) -> None:
            self._show(result, image, measured=reference is not None)

        self._panel.run(f"Comparing models on {image.name}", work, self.bar, show)

    def _show(self, result: "_Result", image: Image, *, measured: bool) -> None:
        if image not in self._viewer.layers:
            say(self.hint, CLOSED)
            return
        found = result.comparison
        a, b = found.models
        say(
            self.about,
            f"{image.name}: A is {a.info.id}, {a.seconds:.1f} s; B is {b.info.id}, "
            f"{b.seconds:.1f} s.",
        )
        self._fill(found, measured)
        data, attributes, _ = change_to_layer(result.change, image)
        attributes["name"] = f"{image.name} · {a.info.id} or {b.info.id}"
        attributes["features"] = {
            "index": [0, GAINED, LOST],
            "name": ["both or neither", f"only {b.info.id}", f"only {a.info.id}"],
        }
        self._viewer.add_labels(data, **attributes).editable = False
        say(self.remark, DIFFERENCES)
        self._look_at_reference()

    def _fill(self, found: "Comparison", measured: bool) -> None:
        icons = [color_icon(row.organ.color) for row in found.rows]
        pairs = [(row.between, *row.against_reference) for row in found.rows]
        values = {
            self.volumes: [[*map(_volume, (*r.volumes_ml, r.reference_ml))] for r in found.rows],
            self.dice: [[*map(_dice, row)] for row in pairs],
            self.hd95: [[*map(_hd95, row)] for row in pairs],
        }
        for widget, cells in values.items():
            rows = [[row.organ.title, *of] for row, of in zip(found.rows, cells, strict=True)]
            fill_table(widget, rows, icons)
            fit_height(widget)
            widget.show()
        for widget, columns in ((self.volumes, (3,)), (self.dice, (2, 3)), (self.hd95, (2, 3))):
            for column in columns:
                widget.setColumnHidden(column, not measured)

    def clear(self) -> None:
        """Show no numbers."""
        self._shown_of = None
        self._forget_reference()
        for label in (self.hint, self.about, self.remark):
            say(label, "")
        for widget in (self.volumes, self.dice, self.hd95):
            widget.setRowCount(0)
            widget.hide()

    def _forget_reference(self) -> None:
        self._reference = None
        self._digests = []

    def _on_removed(self, _event: Any) -> None:
        """Numbers of a scan that is no longer in the viewer go with it."""
        if self._reference not in self._viewer.layers:
            self._forget_reference()
        if self._shown_of is None or self._shown_of in self._viewer.layers:
            return
        running = self._panel.busy and self.bar.isVisibleTo(self)
        self.clear()
        self.update_state()
        if running and self._panel.job is not None:
            self._panel.job.cancel()
            say(self.hint, CLOSED)

    def _on_touched(self, layer: Labels) -> None:
        if layer is self._reference:
            self._quiet.start()

    def _look_at_reference(self) -> None:
        """Say so when the numbers are no longer those of the reference as it is."""
        if self._reference is None or not self.dice.rowCount():
            return
        now = slice_digests(np.asarray(self._reference.data))
        say(self.hint, CHANGED if now != self._digests else "")

    def _choose_two(self) -> None:
        """Offer another model against the active one, so that what this one gains is green."""
        if self.first.count() > 1:
            self.first.setCurrentIndex(1)
        self.update_state()

    def update_state(self, *_: Any) -> None:
        """Say what is missing; offer only what can be used."""
        missing = self._missing()
        self.reference.setEnabled(self.with_reference.isChecked())
        self.compare_button.setEnabled(not missing and not self._panel.busy)
        if missing or self.hint.text() in (NO_IMAGE, ONE_MODEL, SAME):
            say(self.hint, missing)

    def _missing(self) -> str:
        first, second = self.first.info, self.second.info
        if self.image.layer is None:
            return NO_IMAGE
        if self.second.count() < 2:
            return ONE_MODEL
        return SAME if first is None or second is None or first.id == second.id else ""


class _Result(NamedTuple):
    """What a job hands to the window."""

    comparison: "Comparison"
    change: np.ndarray


def _told(value: float | None, decimals: int) -> str:
    return "–" if value is None else f"{value:.{decimals}f}"


def _volume(ml: float | None) -> str:
    return _told(ml, 1)


def _dice(agreement: "Agreement | None") -> str:
    return _told(None if agreement is None else agreement.dice, 3)


def _hd95(agreement: "Agreement | None") -> str:
    return _told(None if agreement is None else agreement.hd95_mm, 1)
