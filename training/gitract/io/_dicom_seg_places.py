"""Which voxels the frames of a DICOM segmentation are, on a scan's grid or on their own."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from gitract.errors import InputError
from gitract.io._dicom_geometry import Frame, frames_of
from gitract.scan import DicomSeries, Scan

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["Grid", "Place", "Stack", "draw", "own_grid", "places_of", "stack_of"]

_MAX_SLICES = 65535
_ROUNDED_MM = 0.05  # what rounded positions and spacings in headers add up to
_DRIFT_MM = 0.1  # how far off its even grid a slice of a DICOM series may lie


class Grid(NamedTuple):
    """``(slices, rows, columns)``, and array index to LPS in mm."""

    shape: tuple[int, int, int]
    affine: np.ndarray


class Stack(NamedTuple):
    """The frames of a file as its headers tell.

    `size` is ``(rows, columns)``; `spacing_mm` and `thickness_mm` are of slices, 0 where
    they are not stated.
    """

    path: Path
    size: tuple[int, int]
    frames: list[Frame]
    spacing_mm: float
    thickness_mm: float


class Place(NamedTuple):
    """Which voxels the pixels of a frame are.

    `axes` of the array run across, along the rows' numbers and along the columns';
    `slice`, `rows` and `columns` are indices on them and may lie outside.
    """

    axes: tuple[int, int, int]
    slice: int
    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]


# --- what the headers tell --------------------------------------------------------------


def stack_of(dataset: "Dataset", path: Path) -> Stack:
    """The frames of a file; raises one of `damage` where they are not whole.

    Raises
    ------
    InputError
        A frame does not say where it lies.
    """
    return Stack(
        path=path,
        size=(int(dataset.Rows), int(dataset.Columns)),
        frames=frames_of(dataset, path),
        spacing_mm=_stated(dataset, "SpacingBetweenSlices"),
        thickness_mm=_stated(dataset, "SliceThickness"),
    )


def _stated(dataset: "Dataset", keyword: str) -> float:
    """A length of the pixel measures in mm, 0 where it is not there."""
    groups = (
        dataset.PerFrameFunctionalGroupsSequence[0],
        *(dataset.get("SharedFunctionalGroupsSequence") or ()),
    )
    measures = next(one for one in groups if one.get("PixelMeasuresSequence"))
    length = abs(float(measures.PixelMeasuresSequence[0].get(keyword) or 0))
    return length if np.isfinite(length) else 0.0


# --- a grid for frames without a scan ---------------------------------------------------


def own_grid(stack: Stack) -> Grid:
    """The grid of the frames, slices ascending along their normal; gaps are empty slices.

    Raises
    ------
    InputError
        They make no evenly spaced stack.
    """
    first = stack.frames[0]
    normal = np.cross(first.row_direction, first.column_direction)
    heights = np.array([frame.position @ normal for frame in stack.frames])
    lowest, highest = (stack.frames[index] for index in (heights.argmin(), heights.argmax()))
    count, step = _slices(stack, heights)
    affine = np.eye(4)
    affine[:3, 1:3] = _steps(first).T
    affine[:3, 3] = lowest.position
    affine[:3, 0] = normal * step
    if count > 1:  # along the stack itself: cosines are rounded more than positions
        affine[:3, 0] = (highest.position - lowest.position) / (count - 1)
    return Grid((count, *stack.size), affine)


def _slices(stack: Stack, heights: np.ndarray) -> tuple[int, float]:
    """Number of slices and their distance in mm: as stated where that fits, else the smallest."""
    levels = np.sort(heights)
    levels = levels[np.diff(levels, prepend=-np.inf) > _ROUNDED_MM]
    if len(levels) == 1:
        step = stack.spacing_mm or stack.thickness_mm
        if not step:
            raise InputError(
                f"{stack.path} has one slice and does not say how thick it is: "
                "give the scan that it was made on."
            )
        return 1, step
    offsets = levels - levels[0]
    for step in (stack.spacing_mm, float(np.diff(levels).min())):
        if step <= _ROUNDED_MM or offsets[-1] > step * _MAX_SLICES:
            continue
        count = max(1, round(offsets[-1] / step))
        fine = offsets[-1] / count
        if np.abs(offsets - np.rint(offsets / fine) * fine).max() <= _ROUNDED_MM:
            return count + 1, float(fine)
    raise _other_grid(stack, None)


def _steps(frame: Frame) -> np.ndarray:
    """From a pixel to the next row and to the next column, ``(2, 3)`` in mm."""
    row_mm, column_mm = frame.spacing
    return np.array([frame.column_direction * row_mm, frame.row_direction * column_mm])


# --- frames on a grid -------------------------------------------------------------------


def places_of(stack: Stack, grid: Grid, scan: Scan | None) -> list[Place]:
    """The voxels of each frame on the grid of a scan, or on its own without one.

    Raises
    ------
    InputError
        The frames lie on another grid.
    """
    drifts = scan is None or isinstance(scan.stored, DicomSeries)
    tolerance = _ROUNDED_MM + (_DRIFT_MM if drifts else 0)
    places: list[Place] = []
    for frame in stack.frames:
        place = _place(frame, stack.size, grid.affine, tolerance)
        if place is None or place.axes != (places[0] if places else place).axes:
            raise _other_grid(stack, scan)
        places.append(place)
    if _leaves_gaps(stack, places, grid):
        raise _other_grid(stack, scan)
    return places


def _other_grid(stack: Stack, scan: Scan | None) -> InputError:
    if scan is None:
        return InputError(
            f"The frames of {stack.path} make no evenly spaced stack of slices: "
            "give the scan that they were made on."
        )
    return InputError(
        f"{stack.path} lies on another grid than the scan {scan.name!r}: "
        "choose the scan that it was made on."
    )


def _place(
    frame: Frame, size: tuple[int, int], affine: np.ndarray, tolerance: float
) -> Place | None:
    """The voxels of a frame; None where a corner is off a voxel by more than `tolerance` mm."""
    corners = np.array(list(np.ndindex(2, 2))) * (np.array(size) - 1)
    there = frame.position + corners @ _steps(frame)
    to_index = np.linalg.inv(affine)
    start = np.rint(to_index[:3, :3] @ frame.position + to_index[:3, 3])
    steps = np.rint(_steps(frame) @ to_index[:3, :3].T)
    here = (start + corners @ steps) @ affine[:3, :3].T + affine[:3, 3]
    row_axis, column_axis = (int(axis) for axis in np.abs(steps).argmax(axis=1))
    if (
        row_axis == column_axis
        or (np.abs(steps).sum(axis=1) != 1).any()
        or not (np.linalg.norm(here - there, axis=1).max() <= tolerance)
    ):
        return None
    across = 3 - row_axis - column_axis
    row_numbers, column_numbers = (
        start[axis] + step[axis] * np.arange(count)
        for axis, step, count in zip((row_axis, column_axis), steps, size, strict=True)
    )
    return Place(
        (across, row_axis, column_axis),
        int(start[across]),
        row_numbers.astype(np.int64),
        column_numbers.astype(np.int64),
    )


def _leaves_gaps(stack: Stack, places: Sequence[Place], grid: Grid) -> bool:
    """Whether thick slices lie on every second one of thin slices."""
    numbers = np.unique([place.slice for place in places])
    if len(numbers) < 2:
        return False
    spacing = np.linalg.norm(grid.affine[:3, places[0].axes[0]])
    gap = np.diff(numbers).min() * spacing
    return bool(gap > 1.5 * spacing and abs(gap - stack.spacing_mm) <= _ROUNDED_MM)


def draw(mask: npt.NDArray[np.bool_], place: Place, drawn: npt.NDArray[np.bool_]) -> bool:
    """Add the pixels of a frame to a mask; False where some of them lie outside of it.

    Parameters
    ----------
    mask
        ``(slice, row, column)``.
    place
        Of the frame.
    drawn
        ``(row, column)`` of the frame.
    """
    turned = mask.transpose(place.axes)
    slices, rows, columns = turned.shape
    inside = 0 <= place.slice < slices
    own_rows = np.flatnonzero((place.rows >= 0) & (place.rows < rows) & inside)
    own_columns = np.flatnonzero((place.columns >= 0) & (place.columns < columns))
    kept = drawn[np.ix_(own_rows, own_columns)]
    if inside:
        turned[place.slice][np.ix_(place.rows[own_rows], place.columns[own_columns])] |= kept
    return np.count_nonzero(kept) == np.count_nonzero(drawn)
