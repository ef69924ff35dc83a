"""Going through the slices of a prediction: what was done about each, and which is next."""

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QMenu, QPushButton, QVBoxLayout

from gitract.organs import IGNORE, ORGANS
from gitract.review import SliceState
from napari_gitract.jobs import errors_shown
from napari_gitract.layers import origin_by_scale, origin_of
from napari_gitract.widgets._choices import follow
from napari_gitract.widgets._keys import KEYS, KeyedWidget, ReviewKeys
from napari_gitract.widgets._organ_ticks import OrganTicks
from napari_gitract.widgets._parts import button_row, note, say
from napari_gitract.widgets._strip import SliceStrip
from napari_gitract.widgets._tour import Tour
from napari_gitract.workspace import (
    REVIEWED,
    ReviewedSlice,
    Workspace,
    current_slice,
    go_to_slice,
    unproxied,
)

if TYPE_CHECKING:
    from napari.viewer import Viewer

__all__ = ["SliceReview"]

QUIET_MS = 200


class SliceReview(KeyedWidget):
    """What the user did about the slices of one Labels layer, and how to go on.

    Parameters
    ----------
    viewer
        The viewer that shows the layer.
    for_training
        Whether a model is to learn from the slices here: then the user can say which organs and
        regions it shall not learn from, and have slices filled by the model.
    """

    changed = Signal()
    """The slices to train on may be others now."""
    fill_by_model_requested = Signal()
    """The user wants the slices between corrected ones filled from the model's contours:
    who can compute them gives them to `apply_filling`."""

    def __init__(self, viewer: "Viewer", *, for_training: bool = True) -> None:
        super().__init__(ReviewKeys.of(unproxied(viewer)))
        self._viewer = unproxied(viewer)
        self._workspace = Workspace.of(self._viewer)
        self._for_training = for_training
        self._layer: Labels | None = None
        self._states: list[SliceState] = []
        self._tour = Tour()
        self.slices: list[ReviewedSlice] = []
        self._make_parts()
        self._arrange()
        self._quiet = QTimer(self)
        self._quiet.setSingleShot(True)
        self._quiet.setInterval(QUIET_MS)
        self._quiet.timeout.connect(self.refresh)
        follow(self, self._workspace.labels_touched, self._on_touched)
        follow(self, self._viewer.dims.events.point, self._on_slider)
        self.show_layer(None)

    def _make_parts(self) -> None:
        self.strip = SliceStrip()
        self.strip.chosen.connect(self.go_to)
        self.summary = note()
        self.accept_button = _button("Accept", self.accept)
        self.reject_button = _button("Reject", self.reject)
        self.reset_button = _button("Reset", self.reset)
        self.previous_button = _button("Previous", self.go_previous)
        self.next_button = _button("Next", self.go_next)
        self.fill_button = QPushButton("Fill between")
        self.fill_button.setToolTip(
            "Draw the slices between those that you corrected or accepted. They are trained on "
            "only once you accept them."
        )
        if self._for_training:
            menu = QMenu(self.fill_button)
            menu.addAction("By shape", self.fill_by_shape)
            menu.addAction("By the model", self.fill_by_model_requested.emit)
            self.fill_button.setMenu(menu)
        else:
            self.fill_button.clicked.connect(lambda *_: self.fill_by_shape())
        self.message = note()
        self.keys_line = note(small=True)
        self.ticks = OrganTicks()
        self.ticks.ticked.connect(self._set_unreviewed)
        self.ticks.own_ticked.connect(self._set_own)
        self.ignore_button = _button("Paint ignore", self.paint_ignore)
        self.ignore_button.setToolTip("Mark regions that the model shall not learn from.")

    def _arrange(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.strip)
        layout.addWidget(self.summary)
        layout.addLayout(button_row(self.accept_button, self.reject_button, self.reset_button))
        layout.addLayout(button_row(self.previous_button, self.next_button))
        layout.addWidget(self.message)
        if not self._for_training:
            self.ticks.hide()
            self.ignore_button.hide()
        layout.addLayout(button_row(self.fill_button, self.ignore_button))
        layout.addWidget(self.ticks)
        layout.addWidget(self.keys_line)

    # --- what is shown ------------------------------------------------------------------

    @property
    def layer(self) -> Labels | None:
        """The layer whose slices are shown."""
        return self._layer

    @property
    def current(self) -> int | None:
        """The slice of the layer that the viewer shows; None where the layer has no slices."""
        if self._layer is None or not self._states:
            return None
        return current_slice(self._viewer, self._layer)

    def show_layer(self, layer: Labels | None) -> None:
        """Show the slices of this layer from now on."""
        self._layer = layer
        self._tour = Tour()
        say(self.message, "")
        self.refresh()

    def refresh(self) -> None:
        """Compare every slice with the prediction now."""
        self._quiet.stop()
        self._show(None)
        self.changed.emit()

    def _on_touched(self, layer: Labels) -> None:
        """Look at the slice that is shown, and at all once the brush has come to rest."""
        if layer is not self._layer:
            return
        before = self.slices
        self._show(() if self.current is None else (self.current,))
        if self.slices != before:
            self.changed.emit()
        self._quiet.start()

    def _on_slider(self, _event: Any = None) -> None:
        self.strip.show_current(self.current)
        self._show_ticks()

    def _show(self, changed: Iterable[int] | None) -> None:
        layer = self._layer
        self._states = [] if layer is None else self._workspace.states(layer, changed=changed)
        self.slices = [
            ReviewedSlice(index, state == "edited")
            for index, state in enumerate(self._states)
            if state in REVIEWED
        ]
        self.strip.show_states(self._states)
        self.strip.show_current(self.current)
        self.summary.setText(self._summary())
        self._show_ticks()
        for part in (
            self.accept_button,
            self.reject_button,
            self.reset_button,
            self.previous_button,
            self.next_button,
            self.fill_button,
            self.ignore_button,
            self.ticks,
        ):
            part.setEnabled(bool(self._states))

    def _summary(self) -> str:
        if self._layer is None:
            return "No Labels layer: segment a scan first."
        if not self._states:
            return "This layer is no stack of slices."
        reviewed = _ranges([one.index for one in self.slices])
        if not self._for_training:
            return f"Reviewed: {reviewed or 'none yet'}."
        if reviewed:
            return f"To train on: {reviewed}."
        if not self._workspace.has_baseline(self._layer):
            return "Not a prediction: accept the slices to train on."
        return "To train on: none yet. Correct slices, or accept those that are right."

    def _show_ticks(self) -> None:
        layer, index = self._layer, self.current
        if layer is None or index is None:
            self.ticks.show_organs(())
            return
        origin = origin_of(layer.metadata)
        self.ticks.show_organs(ORGANS if origin is None else origin.organs)
        self.ticks.show_unreviewed(
            self._workspace.unreviewed(layer, index),
            own=self._workspace.has_own_unreviewed(layer, index),
        )

    # --- what the user says of the slice shown --------------------------------------------

    def accept(self) -> None:
        """The slice that is shown is right as it stands."""
        self._say_of_current(self._workspace.accept)

    def reject(self) -> None:
        """The slice that is shown is not to be trained on."""
        self._say_of_current(self._workspace.reject)

    def reset(self) -> None:
        """Forget what was said of the slice that is shown."""
        self._say_of_current(self._workspace.reset)

    def _say_of_current(self, say_of: Callable[[Labels, list[int]], None]) -> None:
        index = self.current
        if self._layer is not None and index is not None:
            with errors_shown():
                say_of(self._layer, [index])

    def _set_unreviewed(self, names: frozenset[str]) -> None:
        index = self.current if self.ticks.own.isChecked() else None
        if self._layer is not None:
            with errors_shown():
                self._workspace.set_unreviewed(self._layer, names, index)

    def _set_own(self, own: bool) -> None:
        if self._layer is not None:
            names = self.ticks.unreviewed if own else None
            with errors_shown():
                self._workspace.set_unreviewed(self._layer, names, self.current)

    def paint_ignore(self) -> None:
        """Take the brush for regions that are not to be learnt from."""
        if self._layer is not None:
            self._viewer.layers.selection.active = self._layer
            self._layer.selected_label = IGNORE.id
            self._layer.mode = "paint"

    # --- from slice to slice ----------------------------------------------------------------

    def go_to(self, index: int) -> None:
        """Show this slice."""
        if self._layer is not None:
            go_to_slice(self._viewer, self._layer, index)

    def go_next(self) -> None:
        """Go to the slice that is most worth correcting and was not suggested before."""
        here = self.current
        if self._layer is None or here is None:
            return
        with errors_shown():
            self.refresh()
            suggestion = self._tour.next(self._layer, self._states, here)
            if suggestion is None:
                say(self.message, "Every slice was reviewed.")
                return
            self.go_to(suggestion.index)
            reason = f"slice {suggestion.index}: {suggestion.reason}"
            say(self.message, f"Next to correct: {reason}")

    def go_previous(self) -> None:
        """Go back to where the user was before the last suggestion."""
        index = self._tour.previous()
        if index is not None:
            self.go_to(index)
            say(self.message, "")

    # --- slices between ---------------------------------------------------------------------

    def fill_by_shape(self) -> None:
        """Fill the slices between corrected ones from the shapes on these."""
        from gitract.fill_between import filled_by_shape

        if self._layer is None or not self._states:
            return
        with errors_shown():
            kept = self._workspace.kept(self._layer)
            labels = np.asarray(self._layer.data).astype(np.uint8)
            origin = origin_of(self._layer.metadata) or origin_by_scale(self._layer)
            self.apply_filling(filled_by_shape(labels, kept, origin.spacing))

    def apply_filling(self, filled: Mapping[int, np.ndarray]) -> None:
        """Put labels ``(row, column)`` on slices that nobody reviewed, as one step for undo."""
        if self._layer is None:
            return
        with errors_shown():
            kept = self._workspace.kept(self._layer)
            changed = self._workspace.fill(self._layer, filled)
            self.refresh()
            say(self.message, _filling_told(changed, kept))

    # --- keys -------------------------------------------------------------------------------

    def show_keys(self, bound: Mapping[str, str]) -> None:
        """Name the keys beside what they do."""
        tips = {
            "accept": (self.accept_button, "This slice is right as it stands: train on it."),
            "reject": (self.reject_button, "Do not train on this slice."),
            "reset": (self.reset_button, "Forget what was said of this slice."),
            "go_next": (self.next_button, "Go to the slice that is most worth correcting."),
            "go_previous": (self.previous_button, "Go back to the slice before the suggestion."),
        }
        for name, (button, tip) in tips.items():
            button.setToolTip(f"{tip} Key: {KEYS[name]}" if name in bound else tip)
        keys = [
            f"{bound[name]} {button.text().lower()}"
            for name, (button, _) in tips.items()
            if name in bound
        ]
        say(self.keys_line, f"Keys: {' · '.join(keys)}" if keys else "")


def _button(text: str, slot: Callable[[], None]) -> QPushButton:
    button = QPushButton(text)
    button.clicked.connect(lambda *_: slot())
    return button


def _ranges(indices: list[int]) -> str:
    """Ascending numbers as people write them: ``3, 5–9``."""
    known = set(indices)
    starts = [index for index in indices if index - 1 not in known]
    ends = [index for index in indices if index + 1 not in known]
    return ", ".join(
        str(start) if start == end else f"{start}–{end}"
        for start, end in zip(starts, ends, strict=True)
    )


def _filling_told(filled: list[int], kept: list[int]) -> str:
    """What was filled, in a sentence; `kept` are the slices that it was filled from."""
    if not filled:
        return "Nothing to fill: correct or accept slices on both sides, not too far apart."
    between = [
        pair for pair in pairwise(kept) if any(pair[0] < index < pair[1] for index in filled)
    ]
    ends = sorted({index for pair in between for index in pair})
    *first, last = map(str, ends)
    count = f"{len(filled)} slice{'s' if len(filled) > 1 else ''}"
    return f"Filled {count} between {', '.join(first)} and {last}. Look, and accept what is right."
