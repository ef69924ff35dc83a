"""Which slice to correct next: the one where a correction is likely to change most.

For each slice the area that is drawn wrongly is estimated, in mm²: missed and superfluous
area together, which is one minus the Dice times the sum of what is drawn and what is there.
Two things tell of it:

- the model's own doubts (`gitract.uncertainty.slice_doubts`), where it gave any;
- differences from the slices above and below, beyond what is usual for the organ in this
  stack: jumps of its area, an end that is too abrupt, a slice that has lost it.

Much of what is wrong close to a corrected slice is known from it, so the area counts in a
measure that grows with the distance to the nearest, ``mm / (mm + 15)``. A slice that was
suggested counts as corrected for the next suggestion; the neighbours of a bad slice would
come right after it otherwise.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from gitract.errors import InputError
from gitract.organs import IGNORE
from gitract.scan import Spacing

__all__ = ["Suggestion", "suggested_slices"]

# What the ranking is tuned by.

_DIFFERENCE_WEIGHT = 0.3
"""How much of an unusual difference from both neighbours is held to be this slice's error.
Organs do end and jump, in contours by hand too. On four real days that the model had learned
from, the first eight suggestions held as much of its errors with 0.3 as with 0, 0.5 or 1, or
more, but for some hundredths."""

_LONE_WEIGHT = 1.0
"""The same where both neighbours have an organ that is not here, or neither has one that is."""

_USUAL_DIFFERENCE_MOST = 0.5
"""One minus Dice: neighbours that overlap less are never taken for usual."""

_DOUBT_UNKNOWN = 0.1
"""The expected error of a slice if the model gave no doubts: one minus the Dice of a good one."""

_DOUBT_LEAST = 0.01
"""No contour is surer than this, so that slices with contours come before those without."""

_HALF_NEW_MM = 15.0
"""How far from a corrected slice half of what is wrong counts."""

_REASON_SHARE = 0.2
"""From this share of the expected error on, what is unusual about a slice is its reason."""

_LEAST_MM2 = 100.0  # as in slice_doubts: what its doubts are of where nothing is drawn

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Suggestion:
    """A slice to correct.

    Parameters
    ----------
    index
        0-based.
    benefit
        The area in mm² that is expected to be wrong there and not known from other slices.
    reason
        A short phrase for the user: what speaks most for this slice.
    """

    index: int
    benefit: float
    reason: str


def suggested_slices(
    labels: npt.NDArray[np.uint8],
    done: Collection[int],
    spacing: Spacing,
    *,
    doubts: Sequence[float] | None = None,
    skip: Collection[int] = (),
    names: Mapping[int, str] | None = None,
) -> list[Suggestion]:
    """Rank the slices that nobody reviewed yet.

    Parameters
    ----------
    labels
        ``(slice, row, column)``.
    done
        Slices that a person corrected or accepted.
    spacing
        ``(slice, row, column)`` in mm.
    doubts
        One for each slice, 0 (sure) to 1: the model's expected error there, as it stands in
        the provenance of a segmentation. None where the model gave none.
    skip
        Slices that were rejected: they are not suggested, and how they differ from their
        neighbours says nothing.
    names
        What the label values are called within a sentence, such as ``{2: "small bowel"}``.

    Returns
    -------
    list of Suggestion
        Every slice that is neither in `done` nor in `skip`, the best first; of equal ones the
        first of the stack. Those where nothing is drawn, expected or doubtful come last.

    Raises
    ------
    InputError
        The labels are no stack, `done` or `skip` name a slice that it does not have, or there
        are not as many doubts as slices.
    """
    _check(labels, [*done, *skip], doubts)
    stack = _Stack.of(labels, spacing, doubts)
    for index in skip:
        stack.forgive_neighbours(index)
    places = np.arange(len(labels)) * spacing[0]
    from_done = np.full(len(labels), np.inf)
    for index in done:
        np.minimum(from_done, abs(places - places[index]), out=from_done)
    closed = {*done, *skip}
    left = [index for index in range(len(labels)) if index not in closed]
    nearest, suggestions = from_done.copy(), []
    while left:
        new = 1 - _HALF_NEW_MM / (nearest[left] + _HALF_NEW_MM)  # 1 where none is corrected
        benefits = stack.expected_errors()[left] * new
        best = int(np.argmax(benefits))
        index = left.pop(best)
        reason = stack.reason(index, from_done[index], names or {})
        suggestions.append(Suggestion(index, float(benefits[best]), reason))
        np.minimum(nearest, abs(places - places[index]), out=nearest)
        stack.forgive_neighbours(index)
    return suggestions


@dataclass(frozen=True, eq=False)
class _Stack:
    """What is expected to be wrong with each slice, by cause, in mm².

    Parameters
    ----------
    areas
        ``(slice, value)``: what is drawn.
    usual, doubtful
        ``(slice,)``: by the model's doubts, as on any slice of the stack, and beyond.
    differing
        ``(2, slice, value)``: by differences from the slice before and the slice after.
    """

    areas: _Floats
    usual: _Floats
    doubtful: _Floats
    differing: _Floats

    @classmethod
    def of(
        cls, labels: npt.NDArray[np.uint8], spacing: Spacing, doubts: Sequence[float] | None
    ) -> "_Stack":
        areas, common = _overlaps(labels, spacing)
        usual, doubtful = _doubted(areas.sum(axis=1), doubts)
        return cls(areas, usual, doubtful, _blame(areas, _unusual_differences(areas, common)))

    def forgive_neighbours(self, index: int) -> None:
        """Don't hold against its neighbours how they differ from a slice."""
        if index > 0:
            self.differing[1, index - 1] = 0
        self.differing[0, index + 1 : index + 2] = 0

    def expected_errors(self) -> _Floats:
        """``(slice,)``: all causes together."""
        return np.asarray(self.usual + self.doubtful + self.differing.sum(axis=(0, 2)))

    def reason(self, index: int, from_done_mm: float, names: Mapping[int, str]) -> str:
        """The strongest cause, as a phrase."""
        least = _REASON_SHARE * self.expected_errors()[index]
        of_organs = self.differing[:, index].sum(axis=0)
        value = int(np.argmax(of_organs))
        if max(of_organs[value], self.doubtful[index]) <= least:
            return self._nothing_unusual(index, from_done_mm)
        if self.doubtful[index] >= of_organs[value]:
            return "the model is unsure here"
        before, after = self.differing[:, index, value]
        other = index - 1 if before >= after else index + 1
        return self._difference(index, other, value, names.get(value, f"organ {value}"))

    def _difference(self, index: int, other: int, value: int, organ: str) -> str:
        across = 2 * index - other
        here, there = self.areas[[index, other], value] > 0
        beyond = 0 <= across < len(self.areas) and bool(self.areas[across, value] > 0)
        if here and there:
            return f"{organ} differs much from slice {other}"
        if here:
            return f"{organ} ends abruptly" if beyond else f"{organ} is on this slice alone"
        if beyond:
            return f"{organ} is on both neighbouring slices but not here"
        return f"{organ} ends abruptly on slice {other}"

    def _nothing_unusual(self, index: int, from_done_mm: float) -> str:
        drawn = self.areas.sum(axis=1)
        if not drawn[index]:
            return "nothing is drawn here"
        if _HALF_NEW_MM <= from_done_mm < np.inf:
            return "far from slices already corrected"
        much = drawn[index] >= np.median(drawn[drawn > 0])
        return "much is drawn here" if much else "little is drawn here"


def _overlaps(labels: npt.NDArray[np.uint8], spacing: Spacing) -> tuple[_Floats, _Floats]:
    """Areas ``(slice, value)``, and those that each slice has in common with the next, mm²."""
    areas, common = np.zeros((2, len(labels), 256))
    for index, plane in enumerate(labels):
        areas[index] = np.bincount(plane.ravel(), minlength=256)
    for index, (plane, following) in enumerate(pairwise(labels)):
        common[index] = np.bincount(plane[plane == following], minlength=256)
    for counts in (areas, common):
        counts[:, [0, IGNORE.id]] = 0
        counts *= spacing[1] * spacing[2]
    return areas, common[:-1]


def _doubted(drawn: _Floats, doubts: Sequence[float] | None) -> tuple[_Floats, _Floats]:
    """What is wrong by the doubts: as usual in the stack, and beyond."""
    if doubts is None:
        return 2 * _DOUBT_UNKNOWN * drawn, np.zeros_like(drawn)
    found = np.asarray(doubts, np.float64)
    usual = float(np.median(found[drawn > 0])) if drawn.any() else 0.0
    least = np.where(drawn > 0, np.maximum(found, _DOUBT_LEAST), found)
    # What is drawn stands for what is there as well, which nobody knows.
    both = 2 * drawn + _LEAST_MM2
    return both * np.minimum(least, max(usual, _DOUBT_LEAST)), both * np.maximum(found - usual, 0)


def _unusual_differences(areas: _Floats, common: _Floats) -> _Floats:
    """``(pair, value)``: drawn on one of two adjacent slices alone, beyond what is usual."""
    both = areas[:-1] + areas[1:]
    differing = both - 2 * common
    usual = np.zeros(areas.shape[1])
    for value in np.flatnonzero(areas.any(axis=0)):
        on_both = (areas[:-1, value] > 0) & (areas[1:, value] > 0)
        if on_both.any():
            median = np.median(differing[on_both, value] / both[on_both, value])
            usual[value] = min(float(median), _USUAL_DIFFERENCE_MOST)
    return np.maximum(differing - usual * both, 0)


def _blame(areas: _Floats, differences: _Floats) -> _Floats:
    """``(2, slice, value)``: how much each slice is to blame for both of its differences.

    A slice that alone has an organ, or alone lacks it, is to blame more than its neighbours.
    """
    blame = np.zeros((2, *areas.shape))
    blame[0, 1:] = blame[1, :-1] = differences * _DIFFERENCE_WEIGHT / 2
    changes = np.diff(areas > 0, axis=0)  # of pairs: only one has it
    lone = np.zeros(areas.shape, bool)
    lone[1:-1] = changes[:-1] & changes[1:]
    for side, of_pairs in ((blame[0, 1:-1], differences[:-1]), (blame[1, 1:-1], differences[1:])):
        side[lone[1:-1]] = of_pairs[lone[1:-1]] * _LONE_WEIGHT / 2
    return blame


def _check(labels: np.ndarray, indices: Sequence[int], doubts: Sequence[float] | None) -> None:
    if labels.ndim != 3:
        raise InputError(f"These labels have {labels.ndim} axes: choose those of a whole scan.")
    for index in indices:
        if not 0 <= index < len(labels):
            raise InputError(
                f"There is no slice {index}: this scan has slices 0 to {len(labels) - 1}."
            )
    if doubts is not None and len(doubts) != len(labels):
        raise InputError(
            f"There are {len(doubts)} doubts for {len(labels)} slices: segment this scan again."
        )
