"""Treatment days: a patient's scans of several days, aligned, shown together and compared."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Image, Labels, Layer
from qtpy.QtCore import QSignalBlocker, QTimer
from qtpy.QtWidgets import QCheckBox, QPushButton

from gitract import INTENDED_USE
from gitract.baseline import slice_digest, slice_digests
from gitract.progress import Report
from napari_gitract.layers import segmentation_to_layer
from napari_gitract.prediction import keep_prediction
from napari_gitract.widgets._choices import follow
from napari_gitract.widgets._days_choice import DayContours, DayMenu
from napari_gitract.widgets._days_jobs import (
    Alignments,
    Carried,
    Compared,
    carried,
    compared,
    laid,
)
from napari_gitract.widgets._days_open import OpenDay, StillDay
from napari_gitract.widgets._days_result import DayResult
from napari_gitract.widgets._days_shown import LaidDay, ShownDays
from napari_gitract.widgets._panel import JobBar, Panel
from napari_gitract.widgets._parts import button_row, form, note, say
from napari_gitract.workspace import current_slice

if TYPE_CHECKING:
    from napari.viewer import Viewer

__all__ = ["Days"]

T = TypeVar("T")

QUIET_MS = 600
NO_DAYS = "Open the scans of two days of one patient: drop their folders on the viewer."
NO_CONTOURS = "Segment the earlier day, or open its contours, to compare it or to start from it."
CHANGED = "The contours are others than were compared: compare again."
GONE = "The days were changed or closed meanwhile: nothing is shown of them."


class Days(Panel):
    """Compare a patient's treatment days, show them together, start from an earlier one.

    Parameters
    ----------
    napari_viewer
        The viewer that shows the scans.
    """

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__(napari_viewer)
        self.shown = ShownDays(self.viewer)
        self._shown_of: list[Layer] = []  # the layers that are shown together
        self._alignments = Alignments()
        self._compared: list[tuple[Labels, list[str]]] = []
        # The slice that was shown when a layer was last touched.
        self._touched_at: WeakKeyDictionary[Labels, int] = WeakKeyDictionary()
        self.contours = DayContours(self.viewer)
        self._make_parts()
        self._arrange()
        self._quiet = QTimer(self)
        self._quiet.setSingleShot(True)
        self._quiet.setInterval(QUIET_MS)
        self._quiet.timeout.connect(self._look_again)
        self._soon = QTimer(self)  # several layers may come or go at once
        self._soon.setSingleShot(True)
        self._soon.timeout.connect(self._look_again)
        self.contours.changed.connect(self._on_days_changed)
        follow(self, self.workspace.labels_touched, self._on_touched)
        follow(self, self.viewer.layers.events.removed, self._on_removed)
        self._on_days_changed()

    def _make_parts(self) -> None:
        self.today = DayMenu()
        self.today.setToolTip("The scan that the other days are laid upon.")
        self.earlier = DayMenu()
        self.earlier.setToolTip("The day to lay over it, or to take the contours of.")
        for menu in (self.today, self.earlier):
            menu.chosen.connect(self._on_pair_chosen)
        self.overlay = QCheckBox("Overlay")
        self.overlay.setToolTip(
            "Lay the earlier day over today's: today green, the earlier day magenta, what is "
            "alike grey. Layers of its own that go away with the tick."
        )
        self.overlay.toggled.connect(self._on_overlay)
        self.beside = QCheckBox("Side by side")
        self.beside.setToolTip(
            "Show all days beside today's scan, aligned, at the same level of the body. Layers of "
            "their own that go away with the tick."
        )
        self.beside.toggled.connect(self._on_beside)
        self.start_button = QPushButton("Start from the earlier contours")
        self.start_button.setToolTip(
            "Lay the contours of the earlier day on today's scan as a new layer, to be corrected. "
            "What you edit there is told from what was carried over."
        )
        self.start_button.clicked.connect(self.start_from_earlier)
        self.compare_button = QPushButton("Compare the days")
        self.compare_button.setToolTip(
            "Volume, place and overlap of each organ on each day, against the first day."
        )
        self.compare_button.clicked.connect(self.compare)
        self.bar = JobBar(cancel="End now; nothing is shown.")
        self.hint = note()
        self.result = DayResult()

    def _arrange(self) -> None:
        fields = form()
        fields.addRow("Today", self.today)
        fields.addRow("Earlier day", self.earlier)
        self.column.addWidget(self.hint)
        self.column.addWidget(self.contours)
        self.column.addLayout(fields)
        self.column.addLayout(button_row(self.overlay, self.beside))
        self.column.addWidget(self.start_button)
        self.column.addWidget(self.compare_button)
        self.column.addWidget(self.bar)
        self.column.addWidget(self.result)
        self.column.addStretch(1)
        self.column.addWidget(note(INTENDED_USE, small=True))

    # --- which days ---------------------------------------------------------------------

    @property
    def days(self) -> list[OpenDay]:
        """The days that are open, the first day first."""
        return self.contours.days

    @property
    def with_contours(self) -> list[tuple[OpenDay, Labels]]:
        """The days that can be compared, and their contours."""
        pairs = [(day, self.contours.contours_of(day)) for day in self.days]
        return [(day, labels) for day, labels in pairs if labels is not None]

    def _on_days_changed(self) -> None:
        self.today.offer(self.days, len(self.days) - 1)
        self._offer_earlier()
        if any(labels not in self.viewer.layers for labels, _ in self._compared):
            self._compared = []
            self.result.clear()
        if self._compared and self._chosen_otherwise():
            self._tell_stale(True)
        else:
            self._soon.start()
        today = self.today.day
        if self._shown_of and (today is None or today.image is not self._shown_of[0]):
            self._show_as_they_are()
        self.update_state()

    def _on_pair_chosen(self) -> None:
        self._offer_earlier()
        self._show_as_they_are()
        self.update_state()

    def _offer_earlier(self) -> None:
        """Any day but today; the one before it unless the user chose another."""
        today = self.today.day
        others = [day for day in self.days if day is not today]
        before = self.days.index(today) - 1 if today is not None else 0
        self.earlier.offer(others, max(before, 0))

    def _still(self, day: OpenDay) -> StillDay:
        return StillDay(day, self.contours.contours_of(day))

    # --- comparing ----------------------------------------------------------------------

    def compare(self) -> None:
        """Compare the days that have contours, off the GUI thread."""
        if self.busy or len(self.with_contours) < 2:
            return
        with self.errors_shown():
            days = [StillDay(day, labels) for day, labels in self.with_contours]
            layers = [labels for _, labels in self.with_contours]
            work = partial(compared, days, self._alignments)
            self._run("Comparing the days", work, days, partial(self._show_result, layers))

    def _show_result(self, layers: list[Labels], found: Compared) -> None:
        self._compared = list(zip(layers, found.digests, strict=True))
        self.result.show_table(found.table)
        say(self.hint, "")
        self._look_again()  # whether they were painted on meanwhile

    def _on_touched(self, layer: Labels) -> None:
        """Look again once the brush has come to rest, but not for a move of the slider alone."""
        digests = next((known for one, known in self._compared if one is layer), None)
        if digests is None or layer.ndim != 3:
            return
        shown = current_slice(self.viewer, layer)
        moved, self._touched_at[layer] = shown != self._touched_at.get(layer), shown
        known = digests[shown] if moved and len(digests) == len(layer.data) else None
        if known != slice_digest(np.asarray(layer.data[shown])):
            self._quiet.start()

    def _look_again(self) -> None:
        """Whether the contours of the days still are those that were compared."""
        if not self._compared:
            return
        painted = (
            slice_digests(np.asarray(labels.data)) != digests for labels, digests in self._compared
        )
        self._tell_stale(self._chosen_otherwise() or any(painted))

    def _chosen_otherwise(self) -> bool:
        """Whether not all of the contours that were compared are those of a day any more."""
        chosen = [labels for _, labels in self.with_contours]
        return any(labels not in chosen for labels, _ in self._compared)

    def _tell_stale(self, stale: bool) -> None:
        self.result.fade(stale)
        if stale:
            say(self.hint, CHANGED)
        elif self.hint.text() == CHANGED:
            say(self.hint, "")

    # --- shown together -----------------------------------------------------------------

    def _on_overlay(self, on: bool) -> None:
        self._untick(self.beside)
        self._stop_showing()
        today, earlier = self.today.day, self.earlier.day
        if not on or today is None or earlier is None:
            return
        self._lay([earlier], self._show_overlay)

    def _on_beside(self, on: bool) -> None:
        self._untick(self.overlay)
        self._stop_showing()
        today = self.today.day
        if not on or today is None:
            return
        self._lay([day for day in self.days if day is not today], self._show_beside)

    def _lay(
        self,
        others: list[OpenDay],
        show: Callable[[Image, list[LaidDay], list[Layer]], None],
    ) -> None:
        """Lay other days upon today's, and show them."""
        today = self.today.day
        assert today is not None
        at = self.days.index(today)
        with self.errors_shown():
            fixed = StillDay(today, None)
            still = self._still if show == self._show_beside else partial(StillDay, labels=None)
            moving = [(still(day), self.days.index(day) - at) for day in others]
            days = [fixed, *(day for day, _ in moving)]

            def show_them(found: list[LaidDay]) -> None:
                in_the_way = self._layers_of([day for day in self.days if day is not today])
                show(today.image, found, in_the_way)
                self._shown_of = [day.image for day in days]

            work = partial(laid, moving, fixed, self._alignments)
            self._run(f"Laying the days upon {today.name}", work, days, show_them)
        if self.busy and self.job is not None:
            self.job.ended.connect(self._untick_unshown)
        else:
            self._untick_unshown()

    def _layers_of(self, days: list[OpenDay]) -> list[Layer]:
        """Scans and contours of some days: not aligned, they would be in the way."""
        images = [day.image for day in days]
        contours = [layer for day in days for layer in day.offered[: day.own]]
        return [*images, *contours]

    def _show_overlay(self, today: Image, found: list[LaidDay], hidden: list[Layer]) -> None:
        of_today, other = found
        self.shown.overlay(today, of_today, other, hidden)

    def _show_beside(self, today: Image, found: list[LaidDay], hidden: list[Layer]) -> None:
        self.shown.side_by_side(today, found[1:], hidden)

    def _show_as_they_are(self) -> None:
        self._untick(self.overlay)
        self._untick(self.beside)
        self._stop_showing()

    def _stop_showing(self) -> None:
        self.shown.end()
        self._shown_of = []

    def _untick_unshown(self) -> None:
        """After an error or a cancel nothing is shown, whatever was ticked."""
        if not self.shown.layers:
            self._untick(self.overlay)
            self._untick(self.beside)

    def _untick(self, box: QCheckBox) -> None:
        with QSignalBlocker(box):
            box.setChecked(False)

    def _on_removed(self, event: Any) -> None:
        """Show no day over or beside a scan that was closed."""
        if event.value in self.shown.layers or event.value in self._shown_of:
            self._show_as_they_are()

    # --- starting from an earlier day ---------------------------------------------------

    def start_from_earlier(self) -> None:
        """Lay the contours of the earlier day on today's scan, as a new layer."""
        today, earlier = self.today.day, self.earlier.day
        if self.busy or today is None or earlier is None:
            return
        labels = self.contours.contours_of(earlier)
        if labels is None:
            return
        with self.errors_shown():
            fixed, moving = StillDay(today, None), StillDay(earlier, labels)
            work = partial(carried, moving, fixed, self._alignments)
            add = partial(self._add_contours, today, earlier, self._seen_on(labels))
            self._run(f"Starting from {earlier.name}", work, [fixed, moving], add)

    def _seen_on(self, labels: Labels) -> str:
        """How many slices of the earlier day a person has seen, where that was noted."""
        if not self.workspace.has_baseline(labels):
            return ""
        seen = len(self.workspace.reviewed(labels))
        return f" {seen} of its {len(labels.data)} slices had been edited or accepted."

    def _add_contours(self, today: OpenDay, earlier: OpenDay, seen: str, found: Carried) -> None:
        data, attributes, _ = segmentation_to_layer(
            found.contours,
            today.image,
            name=f"{today.name} · from {earlier.name}",
            flat=found.labels,
        )
        layer = self.viewer.add_labels(data, **attributes)
        keep_prediction(layer, found.prediction)
        lost = "".join(f" {remark}" for remark in found.contours.remarks)
        say(
            self.hint,
            f"The contours of {earlier.name} lie on {today.name} now: correct them with the "
            f"brush.{seen}{lost}",
        )

    # --- jobs ---------------------------------------------------------------------------

    def _run(
        self,
        title: str,
        work: Callable[[Report], T],
        days: list[StillDay],
        show: Callable[[T], None],
    ) -> None:
        """Run a job whose result is shown only if all its days are open as they were."""

        def show_if_open(result: T) -> None:
            if all(day.is_open(self.viewer.layers) for day in days):
                show(result)
            else:
                say(self.hint, GONE)

        say(self.hint, "")
        self.run(title, work, self.bar, show_if_open)

    def update_state(self) -> None:
        """Say what is missing; offer only what can be used."""
        two, idle = len(self.days) > 1, not self.busy
        earlier = self.earlier.day
        drawn = earlier is not None and self.contours.contours_of(earlier) is not None
        for part in (self.today, self.earlier, self.contours):
            part.setEnabled(two and idle)
        self.contours.setVisible(bool(self.days))
        for box in (self.overlay, self.beside):
            box.setEnabled(two and idle)
        self.start_button.setEnabled(drawn and idle)
        self.compare_button.setEnabled(idle and len(self.with_contours) > 1)
        missing = NO_DAYS if not two else NO_CONTOURS if not self.with_contours else ""
        if missing or self.hint.text() in (NO_DAYS, NO_CONTOURS):
            say(self.hint, missing)

    def closed(self) -> None:
        """Show the days as they were."""
        self._quiet.stop()
        self._soon.stop()
        self._show_as_they_are()
        super().closed()
