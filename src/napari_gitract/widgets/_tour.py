"""From one slice that is worth correcting to the next, and back."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Labels

from gitract.organs import IGNORE
from gitract.review import SliceState
from napari_gitract.layers import origin_by_scale, origin_of
from napari_gitract.workspace import REVIEWED

if TYPE_CHECKING:
    from gitract.correction_queue import Suggestion

__all__ = ["Tour"]


class Tour:
    """Suggests each slice that nobody judged once, then begins anew."""

    def __init__(self) -> None:
        self._suggested: set[int] = set()
        self._left: list[int] = []

    def next(self, layer: Labels, states: Sequence[SliceState], here: int) -> "Suggestion | None":
        """The slice most worth correcting that was not suggested yet; None where all are judged.

        Parameters
        ----------
        layer
            The labels.
        states
            What was done about each of their slices.
        here
            The slice that is left, which `previous` goes back to.

        Raises
        ------
        gitract.errors.InputError
            The voxel size of the layer is unknown.
        """
        suggestions = _suggestions(layer, states)
        fresh = [one for one in suggestions if one.index not in self._suggested]
        if not fresh:
            self._suggested.clear()
            fresh = suggestions
        if not fresh:
            return None
        best = next((one for one in fresh if one.index != here), fresh[0])
        self._suggested.add(best.index)
        self._left.append(here)
        return best

    def previous(self) -> int | None:
        """The slice that was left for the last suggestion; None at the start."""
        return self._left.pop() if self._left else None


def _suggestions(layer: Labels, states: Sequence[SliceState]) -> "list[Suggestion]":
    """All slices that nobody judged, the one most worth correcting first."""
    from gitract.correction_queue import suggested_slices

    origin = origin_of(layer.metadata) or origin_by_scale(layer)
    labels = np.asarray(layer.data)
    doubts = origin.provenance.get("doubts")
    known = doubts is not None and len(doubts) == len(labels)
    return suggested_slices(
        np.where(labels == IGNORE.id, 0, labels).astype(np.uint8),
        [index for index, state in enumerate(states) if state in REVIEWED],
        origin.spacing,
        doubts=doubts if known else None,
        skip=[index for index, state in enumerate(states) if state == "rejected"],
        names={organ.id: organ.title.lower() for organ in origin.organs},
    )
