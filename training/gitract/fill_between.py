"""Labels for the slices between corrected ones.

A person corrects every few slices; what lies between follows from the two corrected slices
around it, either from their shapes alone or from the model's contours, moved as the
corrections moved them. Nothing is guessed beyond the first or the last of them.

Both work on signed distances in the plane of a slice: how far, in mm, a voxel lies inside
(positive) or outside a contour. Raya and Udupa, "Shape-based interpolation of
multidimensional objects", IEEE Trans Med Imaging 1990, 9(1):32-42, interpolate these distances
linearly between slices, and draw the contour where they are zero.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import ceil
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from gitract.errors import InputError
from gitract.organs import IGNORE
from gitract.scan import Spacing
from gitract.surface import occupied_window

__all__ = ["REACH", "filled_by_model", "filled_by_shape"]

REACH = 12
"""How many slices two corrected ones may be apart: 36 mm on the scans of an MR-Linac.
Further apart, other anatomy lies between them."""

_FAR_MM = 10.0
"""Where the distances that carry a correction are cut off, to both sides of a contour.
A correction so changes nothing that is further away; and what was added on one slice alone
and is this deep fades out half-way to the other."""

_AS_FAR_AS_DEEP = 0.5
"""How far outside a part lies of which the other slice has nothing, as a share of the part's
own depth: it is gone after two thirds of the way, 1 / (1 + 0.5). On the contours of five real
days, every fourth slice given, the Dice of small bowel was 0.84 so, 0.83 with 1 (gone half-way)
and 0.81 with the distance as it is."""

_CORNERS_TOUCH = np.ones((3, 3), bool)

Labels = npt.NDArray[np.uint8]
_Mask = npt.NDArray[np.bool_]
_Distances = npt.NDArray[np.float64]


def filled_by_shape(
    labels: Labels, kept: Iterable[int], spacing: Spacing, *, reach: int = REACH
) -> dict[int, Labels]:
    """Interpolate the shapes of corrected slices.

    The signed distances of each value are interpolated linearly between the two kept slices
    around a slice; a voxel gets the value that it lies inside of, the deepest of several.

    Inside each part, the contours of the other slice count as no further away than half of
    the part's depth. So a part of which the other slice has nothing shrinks evenly, and is
    gone after two thirds of the way to it. Of parts that do not overlap, one shrinks while
    the other grows, and in the middle both are there; that it might be one loop which moved
    is not guessed.

    Parameters
    ----------
    labels
        ``(slice, row, column)``, not changed. What the slices to fill hold does not count.
    kept
        Slices that a person corrected or accepted, in any order.
    spacing
        ``(slice, row, column)`` in mm.
    reach
        Between kept slices that are more slices apart, nothing is filled.

    Returns
    -------
    dict of int to numpy.ndarray
        ``(row, column)`` of each slice between two kept ones, ascending; no kept slice.
        Regions to ignore count as nothing, and none is left in the result.

    Raises
    ------
    InputError
        The labels are no stack, or have no such slice.
    """
    filled: dict[int, Labels] = {}
    for first, last in _gaps(labels, kept, reach):
        before, after = (_nothing_ignored(labels[index]) for index in (first, last))
        courses = [
            _between_shapes(value, before == value, after == value, spacing)
            for value in _values(before, after)
        ]
        filled |= _drawn(courses, first, last, labels.shape[1:])
    return filled


def filled_by_model(
    labels: Labels,
    prediction: Labels,
    kept: Iterable[int],
    spacing: Spacing,
    *,
    reach: int = REACH,
) -> dict[int, Labels]:
    """Take the model's contours, moved as they were moved on corrected slices.

    By how much a correction changed the signed distances of a value is interpolated linearly
    between the two kept slices around a slice, and added to the distances of the prediction
    there. Where neither was changed, the model's contours stand; a correction fades out
    towards a slice on which the model was right. Distances end at 10 mm, so that a correction
    has no effect further away; of a value that is absent from a slice, all of it lies 10 mm
    outside.

    Where the model drew nothing of a value from one kept slice to the other, as of an organ
    that it does not know, its shapes are interpolated as by `filled_by_shape`.

    Parameters
    ----------
    labels
        ``(slice, row, column)`` with the corrections, not changed. What the slices to fill
        hold does not count.
    prediction
        What the model itself drew, of the same shape.
    kept
        Slices that a person corrected or accepted, in any order.
    spacing
        ``(slice, row, column)`` in mm.
    reach
        Between kept slices that are more slices apart, nothing is filled.

    Returns
    -------
    dict of int to numpy.ndarray
        ``(row, column)`` of each slice between two kept ones, ascending; no kept slice.
        In regions to ignore the model counts as right, and none is left in the result.

    Raises
    ------
    InputError
        The labels are no stack or have no such slice, or the prediction is of another shape.
    """
    if labels.shape != prediction.shape:
        raise InputError(
            f"The labels have the shape {labels.shape} but the prediction has "
            f"{prediction.shape}: segment this scan again."
        )
    filled: dict[int, Labels] = {}
    for first, last in _gaps(labels, kept, reach):
        predicted = _nothing_ignored(prediction[first : last + 1])
        before, after = (
            np.where(labels[index] == IGNORE.id, predicted[index - first], labels[index])
            for index in (first, last)
        )
        courses = [
            _moved_contours(value, predicted == value, before == value, after == value, spacing)
            for value in _values(predicted, before, after)
        ]
        filled |= _drawn(courses, first, last, labels.shape[1:])
    return filled


class _Course(NamedTuple):
    """One value's signed distances from one kept slice to the next, in a window of the plane.

    On a slice they are those of the contours it starts from, if there are any, and a mean of
    `before` and `after`.
    """

    value: int
    window: tuple[slice, ...]
    contours: Sequence[_Distances] | None
    before: _Distances
    after: _Distances

    def at(self, step: int, share: float) -> _Distances:
        """The distances some steps behind the first kept slice, at a share of the way."""
        mean = (1 - share) * self.before + share * self.after
        return mean if self.contours is None else self.contours[step] + mean


def _between_shapes(value: int, before: _Mask, after: _Mask, spacing: Spacing) -> _Course:
    window = _around(before | after, 1)  # with voxels outside, for the distances inside
    masks = before[window], after[window]
    distances = [_signed_distances(mask, spacing) for mask in masks]
    least = [_least_distances(mask, inside) for mask, inside in zip(masks, distances, strict=True)]
    ends = (np.maximum(distances[0], least[1]), np.maximum(distances[1], least[0]))
    return _Course(value, window, None, *ends)


def _moved_contours(
    value: int, predicted: _Mask, before: _Mask, after: _Mask, spacing: Spacing
) -> _Course:
    if not predicted.any():
        return _between_shapes(value, before, after, spacing)
    # Where contours were moved outward on both slices, those between move beyond all of them,
    # but by no more than half of the distance at which a correction ends.
    margin = ceil(_FAR_MM / 2 / min(spacing[1:]))
    window = _around(predicted.any(axis=0) | before | after, margin)

    def distances(mask: _Mask) -> _Distances:
        return np.clip(_signed_distances(mask[window], spacing), -_FAR_MM, _FAR_MM)

    contours = [distances(mask) for mask in predicted]
    corrections = (distances(before) - contours[0], distances(after) - contours[-1])
    return _Course(value, window, contours, *corrections)


def _around(mask: _Mask, margin: int) -> tuple[slice, ...]:
    """The box around a mask, so many voxels wider to all sides as far as the slice reaches."""
    return tuple(
        slice(max(0, side.start - margin), side.stop + margin) for side in occupied_window(mask)
    )


def _signed_distances(mask: _Mask, spacing: Spacing) -> _Distances:
    """How far inside a mask, in mm; negative outside.

    Contours run half-way between voxels inside and outside; the edge of a slice, which cuts
    an organ, is none. Without any contour all is infinitely far outside, or as far inside as
    the mask is large.
    """
    if not mask.any():
        return np.full(mask.shape, -np.inf)
    if mask.all():
        return np.full(mask.shape, np.hypot(*(np.multiply(mask.shape, spacing[1:]))))
    inside = ndimage.distance_transform_edt(mask, sampling=spacing[1:])
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing[1:])
    half = min(spacing[1:]) / 2
    return np.where(mask, inside - half, half - outside)


def _least_distances(mask: _Mask, distances: _Distances) -> _Distances:
    """How far outside each part of a mask may lie at most, negative; no limit around them."""
    parts, count = ndimage.label(mask, _CORNERS_TOUCH)
    depths = ndimage.maximum(distances, parts, np.arange(count + 1))
    depths[0] = np.inf
    return -_AS_FAR_AS_DEEP * depths[parts]


def _drawn(
    courses: Sequence[_Course], first: int, last: int, shape: tuple[int, ...]
) -> dict[int, Labels]:
    """Each slice between two kept ones: the value that a voxel lies deepest inside of."""
    filled: dict[int, Labels] = {}
    for step in range(1, last - first):
        plane, depth = np.zeros(shape, np.uint8), np.zeros(shape)
        for course in courses:  # ascending: where two are as deep, the highest value wins
            found, deepest = course.at(step, step / (last - first)), depth[course.window]
            here = (found > 0) & (found >= deepest)
            plane[course.window][here] = course.value
            deepest[here] = found[here]
        filled[first + step] = plane
    return filled


def _gaps(labels: Labels, kept: Iterable[int], reach: int) -> list[tuple[int, int]]:
    """Successive kept slices with something to fill in between."""
    if labels.ndim != 3:
        raise InputError(f"These labels have {labels.ndim} axes: choose those of a whole scan.")
    indices = sorted(set(kept))
    for index in indices:
        if not 0 <= index < len(labels):
            raise InputError(
                f"There is no slice {index} to fill from: choose from 0 to {len(labels) - 1}."
            )
    return [(first, last) for first, last in pairwise(indices) if 1 < last - first <= reach]


def _nothing_ignored(labels: Labels) -> Labels:
    return np.where(labels == IGNORE.id, 0, labels).astype(np.uint8)


def _values(*labels: Labels) -> list[int]:
    """The label values that occur, ascending, without the background."""
    present = np.zeros(256, bool)
    for image in labels:
        present[image] = True
    return [int(value) for value in np.flatnonzero(present) if value]
