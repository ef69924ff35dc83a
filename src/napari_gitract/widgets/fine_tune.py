"""Fine-tune: corrected slices in, a candidate model and its before/after card out."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Image, Labels
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFileDialog, QLineEdit, QPushButton, QWidget

from gitract import INTENDED_USE
from gitract.errors import GitractError, InputError
from gitract.progress import Progress, Report
from gitract.scan import Scan
from napari_gitract.jobs import loading_libraries, tell_error
from napari_gitract.layers import (
    Origin,
    change_to_layer,
    labels_and_origin,
    scan_from_layer,
    segmentation_of_labels,
)
from napari_gitract.widgets._card import ChangeCard
from napari_gitract.widgets._choices import DeviceChoice, LayerChoice, ModelChoice, follow
from napari_gitract.widgets._curves import Curves, import_matplotlib
from napari_gitract.widgets._organs import OrganTable
from napari_gitract.widgets._panel import JobBar, Panel
from napari_gitract.widgets._parts import form, note, say, section
from napari_gitract.widgets._review import SliceReview
from napari_gitract.workspace import model_events

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from gitract.fine_tune import Candidate, FineTuneSettings

__all__ = ["FineTune"]

NO_LAYERS = "Load a scan and segment it first: what you correct of it is learnt from here."


class FineTune(Panel):
    """Train on the slices that a person corrected, and show whether it helped.

    Parameters
    ----------
    napari_viewer
        The viewer with the scan and its corrected labels.
    """

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__(napari_viewer)
        self.candidate: Candidate | None = None
        self._trained_on: Image | None = None  # the scan of the candidate
        self._kept = ""  # id of the model that can be gone back from
        self._wanted: QWidget | None = None  # what to scroll to
        self.settings: FineTuneSettings | None = None
        self.image = LayerChoice(self.viewer, Image)
        self.labels = LayerChoice(self.viewer, Labels)
        self.model = ModelChoice()
        self.device = DeviceChoice()
        self.replay = QLineEdit()
        self.replay.setPlaceholderText("folder of labelled scans (optional)")
        self.replay.setToolTip(
            "Scans that the model must not forget: some take part in training, on the others it "
            "is measured."
        )
        self.replay_button = QPushButton("Browse…")
        self.replay_button.setToolTip("Choose the folder of these scans.")
        self.replay_button.clicked.connect(self._browse_replay)
        self.organs = OrganTable(self.viewer)
        self.review = SliceReview(self.viewer)
        self.review.fill_by_model_requested.connect(self.fill_by_model)
        self.start_button = QPushButton("Fine-tune")
        self.start_button.setToolTip("Train a copy of the model on the slices listed.")
        self.start_button.clicked.connect(self.start)
        self.bar = JobBar(
            stop="End now and keep the best so far.", cancel="End now and keep nothing."
        )
        self.about = note()  # what the curves and the card are of
        self.about.hide()
        self.curves = Curves()
        self.hint = note()
        self.card = ChangeCard()
        self.card.kept.connect(self.keep)
        self.card.discarded.connect(self.discard)
        self.card.change_wanted.connect(self.show_change)
        self.restore_button = QPushButton("Restore the model before")
        self.restore_button.setToolTip("Go back to the model that was active before.")
        self.restore_button.clicked.connect(self.restore)
        self.restore_button.hide()
        follow(self, model_events.changed, self._on_models_changed)
        self.image.chosen.connect(self.update_state)
        self.labels.chosen.connect(self._on_labels_chosen)
        self.review.changed.connect(self.update_state)
        self._arrange()
        self.remember("replay", self.replay)
        self.remember("organs", self.organs_section)
        self.remember("more", self.more_section)
        self._on_labels_chosen()

    def _arrange(self) -> None:
        fields = form()
        fields.addRow("Labels", self.labels)
        fields.addRow("Image", self.image)
        fields.addRow("Model", self.model)
        self.column.addLayout(fields)
        more = form()
        more.addRow("Device", self.device)
        more.addRow("Replay", self.replay)
        more.addRow("", self.replay_button)
        options = QWidget()
        options.setLayout(more)
        self.organs_section = section("Organs", self.organs)
        self.more_section = section("More options", options)
        for widget in (
            self.organs_section,
            self.review,
            self.more_section,
            self.start_button,
            self.bar,
            self.about,
            self.curves,
            self.hint,
            self.restore_button,
            self.card,
        ):
            self.column.addWidget(widget)
        self.column.addStretch(1)
        self.column.addWidget(note(INTENDED_USE, small=True))

    def _on_labels_chosen(self) -> None:
        labels = self.labels.layer
        if labels is not None:
            self.image.choose_image_of(labels)
        if labels is not self.review.layer or labels is None:
            self.review.show_layer(labels)
            self.organs.show_layer(labels)
        self.update_state()

    def start(self) -> None:
        """Train on the listed slices off the GUI thread."""
        if self.busy or self.image.layer is None or self.labels.layer is None:
            return
        try:
            scan, (labels, origin), slices = self._input()
        except GitractError as error:
            tell_error(error)
            return
        self.discard()
        model = self.model.info
        model_id = None if model is None else model.id
        device = self.device.device
        settings = self.settings
        replay = Path(self.replay.text().strip()) if self.replay.text().strip() else None

        def work(report: Report) -> "Candidate":
            report(Progress(0, 0, "Loading the model"))
            with loading_libraries("torch"):
                import_matplotlib()
                import gitract.fine_tune  # noqa: F401 - `fine_tune_on` would, later
                from gitract.corrections import Corrections
                from gitract.remote.client import fine_tune_on

            segmentation = segmentation_of_labels(labels, origin)
            return fine_tune_on(
                device,
                [Corrections(scan, segmentation, tuple(slices))],
                model=model_id,
                settings=settings,
                replay=replay,
                report=report,
            )

        self._kept = ""
        self.restore_button.hide()
        self.curves.clear()
        say(self.hint, "")
        say(self.about, f"From {model_id} by {self.labels.layer.name}")
        self._trained_on = self.image.layer
        job = self.run(
            f"Fine-tuning on {self.labels.layer.name}",
            work,
            self.bar,
            self._show_card,
            discard=_discard,
        )
        job.progressed.connect(self.curves.add)
        self.curves.show()
        self._look_at(self.curves)
        job.cancelled.connect(self._say_cancelled)
        job.failed.connect(self._forget_training)

    def _input(self) -> tuple[Scan, tuple[np.ndarray, Origin], list[int]]:
        """Scan, labels and slices as they are now, for the user may draw on meanwhile.

        Raises
        ------
        InputError
            They cannot be used, or do not fit each other.
        """
        scan = scan_from_layer(self.image.layer)
        labels, origin = labels_and_origin(self.labels.layer, scan)
        if scan.shape != labels.shape:
            raise InputError(
                f"Layer {self.labels.layer.name!r} has {labels.shape} voxels but image "
                f"{self.image.layer.name!r} has {scan.shape}: choose the image it belongs to."
            )
        self.review.refresh()
        slices = [reviewed.index for reviewed in self.review.slices]
        if not slices:
            raise InputError("No slice to train on: correct some, or add slices that are right.")
        return scan, (np.array(labels), origin), slices

    def fill_by_model(self) -> None:
        """Fill the slices between corrected ones from what the chosen model draws there."""
        labels = self.labels.layer
        if self.busy or self.image.layer is None or labels is None:
            return
        try:
            scan = scan_from_layer(self.image.layer)
            kept = self.workspace.kept(labels)
            if len(kept) < 2:
                raise InputError("Correct or accept two slices first: those between are filled.")
        except GitractError as error:
            tell_error(error)
            return
        drawn = np.array(labels.data, dtype=np.uint8)  # a copy: the user may draw on meanwhile
        model, device, libraries = self.model.info, self.device.device, self.device.libraries
        model_id = None if model is None else model.id

        def work(report: Report) -> dict[int, np.ndarray]:
            report(Progress(0, 0, "Loading the model"))
            with loading_libraries(*libraries):
                from gitract.fill_between import filled_by_model
                from gitract.remote.client import open_segmenter

                segmenter = open_segmenter(model_id, device=device, report=report)
            between = range(kept[0], kept[-1] + 1)
            found = segmenter.segment(scan, slices=between, report=report)
            return filled_by_model(drawn, found.labels().array, kept, scan.spacing)

        def fill(filled: dict[int, np.ndarray]) -> None:
            if self.review.layer is labels:
                self.review.apply_filling(filled)

        self.run(f"Filling slices of {labels.name}", work, self.bar, fill)

    def _browse_replay(self) -> None:
        folder = QFileDialog.getExistingDirectory(
            self, "Folder of labelled scans", self.replay.text()
        )
        if folder:
            self.replay.setText(folder)

    def show_change(self) -> None:
        """Add a layer of what the candidate would draw otherwise on this scan."""
        if self.candidate is None or self._trained_on is None:
            return
        from gitract.change import change_between

        with self.errors_shown("Showing what changes"):
            before, after = self.candidate.before[0], self.candidate.after[0]
            data, attributes, _ = change_to_layer(change_between(before, after), self._trained_on)
            self.viewer.add_labels(data, **attributes).editable = False

    def restore(self) -> None:
        """Go back to the model that was active before."""
        from gitract.model_store import ModelStore

        with self.errors_shown("Restoring the model before"):
            info = ModelStore().restore()
            model_events.changed.emit()  # which takes the button away
            say(self.hint, f"{info.id} is the active model again.")

    def _on_models_changed(self) -> None:
        """Offer to go back only from the model that was kept here, while it is the active one."""
        from gitract.model_store import ModelStore

        if not self._kept:
            return
        with self.errors_shown("Reading the models"):
            if ModelStore().active().id != self._kept:
                self._kept = ""
                self.restore_button.hide()
                say(self.hint, "")

    def _say_cancelled(self) -> None:
        # A training that is stopped before it learnt anything ends like this, too.
        self._forget_training()
        say(self.hint, "Ended before there was anything to keep.")

    def _forget_training(self) -> None:
        """Take away the curves of a training that came to nothing."""
        self._trained_on = None
        self.curves.clear()
        say(self.about, "")

    def _show_card(self, candidate: "Candidate") -> None:
        self.curves.draw()
        self.candidate = candidate
        self.card.show_candidate(candidate)
        self._look_at(self.card.discard_button)

    def _look_at(self, part: QWidget) -> None:
        """Scroll to a part of the widget, once the layout has given it its place."""
        self._wanted = part
        QTimer.singleShot(50, self._scroll)

    def _scroll(self) -> None:
        if self._wanted is not None:
            self.area.ensureWidgetVisible(self._wanted)

    def keep(self, name: str = "") -> None:
        """Make the candidate a new version in the store, and the active model."""
        if self.candidate is None:
            return
        with self.errors_shown("Keeping the model"):
            info = self.candidate.keep(name or None)
            self.candidate = None
            self.card.hide()
            model_events.changed.emit()
            self._kept = info.id
            say(self.hint, f"{info.id} is the active model now. Segment again to see it.")
            self.restore_button.show()
        self.update_state()

    def discard(self) -> None:
        """Forget the candidate, if there is one."""
        if self.candidate is None:
            return
        self.candidate.discard()
        self.candidate = None
        self.card.hide()
        say(self.hint, "Discarded: the model in use stays as it was.")
        self.update_state()

    def closed(self) -> None:
        """Leave no candidate behind that nobody can keep any more."""
        super().closed()
        self.discard()

    def update_state(self) -> None:
        """A training needs an image, labels and at least one slice."""
        ready = self.image.layer is not None and self.labels.layer is not None
        if not ready:
            say(self.hint, NO_LAYERS)
        elif self.hint.text() == NO_LAYERS:
            say(self.hint, "")
        for part in (self.organs_section, self.review, self.more_section, self.start_button):
            part.setVisible(ready)
        self.start_button.setEnabled(ready and bool(self.review.slices) and not self.busy)


def _discard(candidate: "Candidate") -> None:
    candidate.discard()
