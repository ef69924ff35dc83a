"""Segment: an Image layer becomes a Labels layer of organs, with their volumes."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from napari.layers import Image, Labels
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSpinBox,
    QWidget,
)

from gitract import INTENDED_USE
from gitract.errors import GitractError, InputError
from gitract.organs import Organ
from gitract.progress import Progress, Report
from gitract.scan import Segmentation
from napari_gitract.autosaving import Autosaver
from napari_gitract.jobs import loading_libraries, tell_error
from napari_gitract.layers import (
    origin_of,
    painted_volumes,
    scan_from_layer,
    segmentation_from_layer,
    uncertainty_to_layer,
)
from napari_gitract.live import LiveLabels
from napari_gitract.prediction import Prediction
from napari_gitract.settings import CONTOUR_FORMATS, preferred_suffix
from napari_gitract.widgets._choices import DeviceChoice, LayerChoice, ModelChoice, follow
from napari_gitract.widgets._panel import JobBar, Panel
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
from napari_gitract.workspace import current_slice

if TYPE_CHECKING:
    from napari.viewer import Viewer

__all__ = ["Segment"]

WHOLE, CURRENT, RANGE = "Whole stack", "Current slice", "Slice range"
QUIET_MS = 600
_NAMED = 5  # slices
CLOSED = "The scan or its contours were closed meanwhile: nothing was added."
NO_IMAGE = "Load a scan first: drop its folder on the viewer, or use Load scan."
SAVED = "Saved to "


class Segment(Panel):
    """Outline the organs on an Image layer.

    Parameters
    ----------
    napari_viewer
        The viewer whose layers are segmented.
    """

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__(napari_viewer)
        self.result: Labels | None = None
        self._told_of: Image | None = None  # the image that the hint is about
        self._live: LiveLabels | None = None
        self.image = LayerChoice(self.viewer, Image)
        self.image.chosen.connect(self._on_image_chosen)
        self.model = ModelChoice()
        self.device = DeviceChoice()
        self.slices = QComboBox()
        self.slices.addItems([WHOLE, CURRENT, RANGE])
        self.slices.setToolTip("Slices are counted from 0, as on the viewer's slider.")
        self.slices.currentTextChanged.connect(self.update_state)
        self.range_row, self.first, self.last = _range_row()
        self.tidy = QCheckBox("Tidy up")
        self.tidy.setToolTip("Keep one stomach, drop islands under 0.5 mL, fill pinholes.")
        self.several_views = QCheckBox("Look three times")
        self.several_views.setToolTip(
            "Test-time augmentation: average what is seen at three sizes. Thrice as slow."
        )
        self.show_uncertainty = QCheckBox("Show uncertainty")
        self.show_uncertainty.setToolTip(
            "Add an Image layer that is bright where the model is unsure, and name the slices."
        )
        self.segment_button = QPushButton("Segment")
        self.segment_button.setToolTip("Outline the organs; the result is a new Labels layer.")
        self.segment_button.clicked.connect(self.segment)
        self.bar = JobBar(cancel="End now; no layer is added.")
        self.hint = note()
        self.volumes_of = note()
        self.volumes = table(["Organ", "Volume"])
        self.volumes.setToolTip("Click an organ to paint with it.")
        self.volumes.cellClicked.connect(self._paint_with)
        self.save_button = QPushButton("Save contours…")
        self.save_button.setToolTip(
            "Keeps geometry and provenance, so that corrections are known after reopening."
        )
        self.save_button.clicked.connect(self._browse_save)
        self._quiet = QTimer(self)
        self._quiet.setSingleShot(True)
        self._quiet.setInterval(QUIET_MS)
        self._quiet.timeout.connect(self._measure)
        follow(self, self.workspace.labels_touched, self._on_touched)
        follow(self, self.viewer.layers.events.removed, self._on_removed)
        self._arrange()
        for name in ("tidy", "several_views", "show_uncertainty"):
            self.remember(name, getattr(self, name))
        self._show_volumes((), {})
        self.update_state()

    def _arrange(self) -> None:
        fields = form()
        fields.addRow("Image", self.image)
        fields.addRow("Model", self.model)
        fields.addRow("Device", self.device)
        fields.addRow("Slices", self.slices)
        self.column.addLayout(fields)
        self.column.addWidget(self.range_row)
        self.column.addLayout(button_row(self.tidy, self.several_views))
        self.column.addLayout(button_row(self.show_uncertainty))
        self.column.addWidget(self.segment_button)
        self.column.addWidget(self.bar)
        self.column.addWidget(self.hint)
        self.column.addWidget(self.volumes_of)
        self.column.addWidget(self.volumes)
        self.column.addLayout(button_row(self.save_button))
        self.column.addStretch(1)
        self.column.addWidget(note(INTENDED_USE, small=True))

    def segment(self) -> None:
        """Segment the chosen slices off the GUI thread and add the result as a layer."""
        image = self.image.layer
        if self.busy or image is None:
            return
        try:
            scan = scan_from_layer(image)
            slices = self._chosen_slices(image)
        except GitractError as error:
            tell_error(error)
            return
        model = self.model.info
        model_id = None if model is None else model.id
        device, libraries = self.device.device, self.device.libraries
        tidy, several_views = self.tidy.isChecked(), self.several_views.isChecked()
        unsure = self.show_uncertainty.isChecked()
        first = current_slice(self.viewer, image)
        live = LiveLabels(self.viewer, image, name=f"{image.name} · segmenting")

        def work(report: Report) -> _Result:
            report(Progress(0, 0, "Loading the model"))
            with loading_libraries(*libraries):
                from gitract.decision import TIDY
                from gitract.remote.client import open_segmenter
                from gitract.uncertainty import entropy
                from gitract.views import SEVERAL_VIEWS

                segmenter = open_segmenter(
                    model_id,
                    device=device,
                    decision=TIDY if tidy else None,
                    views=SEVERAL_VIEWS if several_views else None,
                    report=report,
                )
            arrived = partial(live.arrived, segmenter.model.organs)
            uncertainty = None
            if unsure:
                segmentation, likely = segmenter.segment_with_probabilities(
                    scan, slices=slices, first=first, arrived=arrived, report=report
                )
                uncertainty = entropy(likely)
            else:
                segmentation = segmenter.segment(
                    scan, slices=slices, first=first, arrived=arrived, report=report
                )
            # Whole-stack passes, a tenth of a second each on a slow machine: done here, not
            # on the GUI thread.
            labels, volumes_ml = segmentation.labels().array, segmentation.volumes_ml
            return _Result(segmentation, labels, Prediction(labels), volumes_ml, uncertainty)

        def add(result: _Result) -> None:
            self._add(result, live, image, slices)

        self._live = live
        say(self.hint, "")
        self._told_of = image
        job = self.run(f"Segmenting {image.name}", work, self.bar, add)
        job.progressed.connect(live.show)
        job.ended.connect(live.drop)

    def _chosen_slices(self, image: Image) -> range | None:
        if self.slices.currentText() == WHOLE:
            return None
        if self.slices.currentText() == CURRENT:
            index = current_slice(self.viewer, image)
            return range(index, index + 1)
        if self.first.value() > self.last.value():
            raise InputError(
                f"The slice range {self.first.value()} to {self.last.value()} is empty: "
                "give the lower number first."
            )
        return range(self.first.value(), self.last.value() + 1)

    def _add(self, result: "_Result", live: LiveLabels, image: Image, slices: range | None) -> None:
        if live.closed:
            say(self.hint, CLOSED)
            return
        segmentation = result.segmentation
        model = segmentation.provenance.get("model", "segmentation")
        self.result = live.complete(
            segmentation, result.labels, f"{image.name} · {model}", result.prediction
        )
        follow(self, self.result.events.name, self._name_result)
        if result.uncertainty is not None:
            data, attributes, _ = uncertainty_to_layer(result.uncertainty, image)
            self.viewer.add_image(data, **attributes)
            self.viewer.layers.selection.active = self.result
        self._show_volumes(segmentation.organs, result.volumes_ml)
        say(self.hint, _what_next(segmentation, slices))

    def _show_volumes(self, organs: Sequence[Organ], volumes_ml: Mapping[str, float]) -> None:
        for widget in (self.volumes_of, self.volumes, self.save_button):
            widget.setVisible(bool(organs))
        self._name_result()
        fill_table(
            self.volumes,
            [[organ.title, f"{volumes_ml[organ.name]:.1f} mL"] for organ in organs],
            [color_icon(organ.color) for organ in organs],
        )
        fit_height(self.volumes)

    def _name_result(self, *_: Any) -> None:
        """Say which layer the volumes are of: another scan may be chosen above meanwhile."""
        self.volumes_of.setText("" if self.result is None else f"Volumes of {self.result.name}")

    def _on_image_chosen(self) -> None:
        """Another scan: what was said of the one before does not hold for it."""
        if self.image.layer is not self._told_of and not self.busy:
            self._told_of = self.image.layer
            say(self.hint, "")
        self.update_state()

    def _on_touched(self, layer: Labels) -> None:
        if layer is not self.result:
            return
        self._quiet.start()
        if self.hint.text().startswith(SAVED):
            say(self.hint, "")  # not as it is now

    def _on_removed(self, _event: Any) -> None:
        """Let go of a result that is no longer in the viewer: it must not be saved unseen."""
        if self.result is not None and self.result not in self.viewer.layers:
            self.result = None
            self._show_volumes((), {})
            self.update_state()
        if self.busy and self.job is not None and self._live is not None and self._live.closed:
            self.job.cancel()
            say(self.hint, CLOSED)

    def _measure(self) -> None:
        """Volumes of the result as it is painted now."""
        if self.result is None:
            return
        origin = origin_of(self.result.metadata)
        if origin is not None:
            self._show_volumes(origin.organs, painted_volumes(self.result.data, origin))

    def _paint_with(self, row: int, _column: int) -> None:
        if self.result is not None:
            index = self.result.features["index"]
            self.result.selected_label = int(index[row + 1])  # row 0 there is the background
            self.viewer.layers.selection.active = self.result

    def _browse_save(self) -> None:
        if self.result is None:
            return
        origin = origin_of(self.result.metadata)
        suffix = preferred_suffix(None if origin is None else origin.stored)
        name = f"{self.result.name.replace(' · ', '_')}{suffix}"
        suggestion = str(Path(self.last_folder("save")) / name)
        path, _ = QFileDialog.getSaveFileName(self, "Save contours", suggestion, _formats())
        if path:
            self.keep_folder("save", Path(path).parent)
            self.save(path)

    def save(self, path: str) -> None:
        """Write the result, as it is painted now, in the format of the suffix."""
        layer = self.result
        if layer is None or self.busy:
            return
        with self.errors_shown(f"Saving {layer.name}"):
            segmentation = segmentation_from_layer(layer)
            kept = Autosaver.of(self.viewer)
            saving = kept.snapshot(layer)
            origin = origin_of(layer.metadata)
            source = None if origin is None else origin.source

            def work(report: Report) -> Path:
                from gitract.io import check_output, write_segmentation

                report(Progress(0, 0, f"Writing {Path(path).name}"))
                check_output(path, inputs=[] if source is None else [source])
                with loading_libraries():  # highdicom reads its tables when it first writes
                    return write_segmentation(segmentation, path)

            def saved(written: Path) -> None:
                kept.saved(layer, saving)
                say(self.hint, f"{SAVED}{written.name}.")

            self.run(f"Saving {layer.name}", work, self.bar, saved)

    def update_state(self, *_: Any) -> None:
        """Say what is missing; offer only what can be used."""
        image = self.image.layer
        self.segment_button.setEnabled(image is not None and not self.busy)
        self.range_row.setVisible(self.slices.currentText() == RANGE)
        if image is None:
            say(self.hint, NO_IMAGE)
            return
        if self.hint.text() == NO_IMAGE:
            say(self.hint, "")
        if image.ndim == 3 and self.last.maximum() != image.data.shape[0] - 1:
            end = image.data.shape[0] - 1
            self.first.setMaximum(end)
            self.last.setMaximum(end)
            self.last.setValue(end)


class _Result(NamedTuple):
    """What a job hands to the window."""

    segmentation: Segmentation
    labels: np.ndarray
    prediction: Prediction
    volumes_ml: Mapping[str, float]
    uncertainty: np.ndarray | None


def _formats() -> str:
    """What contours can be saved as, as Qt's file dialog takes it."""
    from gitract.io import SEGMENTATION_SUFFIXES

    every = " ".join(f"*{suffix}" for suffix in SEGMENTATION_SUFFIXES)
    each = (f"{name[0].upper()}{name[1:]} (*{end})" for name, end in CONTOUR_FORMATS.items())
    return ";;".join([f"Contours ({every})", *each])


def _what_next(segmentation: Segmentation, slices: range | None) -> str:
    if slices is not None and len(slices) == 1:
        return f"Only slice {slices[0]} was segmented, and measured."
    if slices is not None:
        return f"Only slices {slices[0]} to {slices[-1]} were segmented, and measured."
    advice = "Correct the contours with napari's brush, then use Fine-tune."
    doubts = segmentation.provenance.get("doubts")
    if not doubts:
        return advice
    worst = sorted(np.argsort(doubts)[-_NAMED:].tolist())
    return f"Least sure are slices {', '.join(map(str, worst))}. {advice}"


def _range_row() -> tuple[QWidget, QSpinBox, QSpinBox]:
    """ "From" and "to" spin boxes, both ends included."""
    row = QWidget()
    layout = QHBoxLayout(row)
    layout.setContentsMargins(0, 0, 0, 0)
    boxes = []
    for text in ("from", "to"):
        box = QSpinBox()
        box.setToolTip("Both ends are segmented.")
        layout.addWidget(QLabel(text))
        layout.addWidget(box, 1)
        boxes.append(box)
    return row, boxes[0], boxes[1]
