"""From the headers of DICOM slices to one rectangular grid, or the reason why there is none.

Plane attributes as in DICOM PS3.3, C.7.6.2 (classic images) and C.7.6.16.2 (functional
groups of multi-frame images).
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gitract.errors import InputError
from gitract.io._dicom_files import header_sop_class
from gitract.io.found import ONE_SLICE
from gitract.scan import DicomImage, Spacing

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["Frame", "Grid", "frames_of", "grid_of"]

_SAME_DIRECTION = 1e-4  # between cosines: 0.05 mm at the far side of the largest field of view
_SAME_PIXELS = 1e-4  # relative, between pixel spacings
_UNIT = 0.01  # how far a header may be off a vector of length one, by rounding
_SQUARE = 0.0087  # half a degree, in radians, as in `gitract.scan`
_GAP = 0.01  # of the spacing
_GAP_MM = 0.01
_DRIFT_MM = 0.1  # how far small differences of gaps may add up


class Frame(NamedTuple):
    """One slice as its header tells: place in mm (LPS), and the scale of its values."""

    image: DicomImage
    position: np.ndarray
    row_direction: np.ndarray
    """Along a row, to the next column."""
    column_direction: np.ndarray
    """Along a column, to the next row."""
    spacing: tuple[float, float]
    """Between rows, between columns."""
    slope: float
    intercept: float


class Grid(NamedTuple):
    """Slices in the order of the array, and where that lies."""

    frames: tuple[Frame, ...]
    affine: np.ndarray
    spacing: Spacing


# --- headers ----------------------------------------------------------------------------


def frames_of(header: "Dataset", path: Path) -> list[Frame]:
    """The slices of one file: one, or as many as a multi-frame image has.

    Raises
    ------
    InputError
        It does not say where they lie.
    """
    image = DicomImage(path, header_sop_class(header), str(header.SOPInstanceUID))
    count = _count(header, path)
    if "PerFrameFunctionalGroupsSequence" not in header:
        if count != 1:
            raise InputError(
                f"{path} holds {count} frames without a place in the body for each: "
                "export the original series."
            )
        return [_frame(image, path, [header], [header], [header], [header])]
    per_frame = header.PerFrameFunctionalGroupsSequence
    if len(per_frame) != count:
        raise InputError(
            f"{path} is damaged: it says that it holds {count} frames and describes "
            f"{len(per_frame)}: copy it again from its source."
        )
    shared = header.get("SharedFunctionalGroupsSequence") or []
    return [
        _frame(
            image._replace(frame=number),
            path,
            *(
                _group(name, [own, *shared])
                for name in (
                    "PlanePositionSequence",
                    "PlaneOrientationSequence",
                    "PixelMeasuresSequence",
                    "PixelValueTransformationSequence",
                )
            ),
        )
        for number, own in enumerate(per_frame, start=1)
    ]


def _count(header: "Dataset", path: Path) -> int:
    """The number of frames."""
    try:
        return int(header.get("NumberOfFrames") or 1)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path} is damaged: its number of frames is not a number: "
            "copy it again from its source."
        ) from error


def _group(name: str, places: Sequence["Dataset"]) -> list["Dataset"]:
    """The items of the first functional group of that name."""
    for place in places:
        if place.get(name):
            return list(place[name].value)
    return []


def _frame(
    image: DicomImage,
    path: Path,
    position: list["Dataset"],
    orientation: list["Dataset"],
    measures: list["Dataset"],
    scale: list["Dataset"],
) -> Frame:
    """A slice out of the datasets that hold its attributes."""
    cosines = _numbers(orientation, "ImageOrientationPatient", 6, path)
    directions = cosines[:3], cosines[3:]
    lengths = [float(np.linalg.norm(direction)) for direction in directions]
    if any(abs(length - 1) > _UNIT for length in lengths):
        raise InputError(
            f"{path} gives directions of length {lengths[0]:.3g} and {lengths[1]:.3g} instead "
            "of 1 (ImageOrientationPatient): export the original series."
        )
    row, column = (d / length for d, length in zip(directions, lengths, strict=True))
    if abs(row @ column) > _SQUARE:
        raise InputError(
            f"{path} gives rows and columns that are not at right angles "
            "(ImageOrientationPatient): export the original series."
        )
    between_rows, between_columns = _numbers(measures, "PixelSpacing", 2, path)
    if not (between_rows > 0 and between_columns > 0):
        raise InputError(
            f"{path} gives a pixel spacing of {between_rows:g} x {between_columns:g} mm, where "
            "both must be positive: export the original series."
        )
    slope, intercept = _scale(scale, path)
    return Frame(
        image=image,
        position=_numbers(position, "ImagePositionPatient", 3, path),
        row_direction=row,
        column_direction=column,
        spacing=(float(between_rows), float(between_columns)),
        slope=slope,
        intercept=intercept,
    )


def _numbers(places: list["Dataset"], name: str, count: int, path: Path) -> np.ndarray:
    """The numbers of an attribute, all finite."""
    try:
        values = np.array(_values(places[0], name) if places else [])
    except (TypeError, ValueError):
        values = np.array([math.nan])
    if len(values) != count or not np.isfinite(values).all():
        what = "no" if len(values) == 0 else "no usable"
        raise InputError(
            f"{path} has {what} {name}, so that nothing says where it lies: "
            "export the original series."
        )
    return values


def _values(place: "Dataset", name: str) -> list[float]:
    """The numbers of an attribute; as text of the file, which pydicom takes long to convert."""
    element = place.get_item(name)
    if element is not None and element.is_raw and isinstance(element.value, bytes):
        texts = element.value.decode("ascii").strip(" \0").split("\\")
        return [float(text) for text in texts if text.strip()]
    return [float(value) for value in (place.get(name) or ()) if value is not None]


def _scale(places: list["Dataset"], path: Path) -> tuple[float, float]:
    """Slope and intercept of the values."""
    if not places:
        return 1.0, 0.0
    values = [
        default if places[0].get(name) in (None, "") else places[0].get(name)
        for name, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))
    ]
    try:
        slope, intercept = float(values[0]), float(values[1])
    except (TypeError, ValueError):
        slope, intercept = math.nan, math.nan
    if not (math.isfinite(slope) and math.isfinite(intercept)) or slope == 0:
        raise InputError(
            f"{path} scales its values by {values[0]} and {values[1]} (RescaleSlope, "
            "RescaleIntercept), which is not usable: export the original series."
        )
    return slope, intercept


# --- the grid ---------------------------------------------------------------------------


def grid_of(frames: Sequence[Frame], where: str) -> Grid:
    """The slices in ascending order along their normal, and their affine.

    Parameters
    ----------
    frames
        In any order.
    where
        What they are, to begin an error with: ``Series 5 in FOLDER``.

    Raises
    ------
    InputError
        They are no stack of parallel, equal and equally spaced slices.
    """
    if len(frames) < 2:
        raise InputError(ONE_SLICE.format(where))
    first = frames[0]
    _check_alike(frames, where)
    normal = np.cross(first.row_direction, first.column_direction)
    heights = np.array([frame.position @ normal for frame in frames])
    order = np.argsort(heights, kind="stable")
    ordered = tuple(frames[index] for index in order)
    heights = heights[order]
    _check_single(ordered, heights, where)
    _check_gaps(heights, where)
    step = (ordered[-1].position - ordered[0].position) / (len(ordered) - 1)
    _check_upright(ordered, step, normal, where)
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = first.column_direction * first.spacing[0]
    affine[:3, 2] = first.row_direction * first.spacing[1]
    affine[:3, 3] = ordered[0].position
    return Grid(ordered, affine, (float(np.linalg.norm(step)), *first.spacing))


def _check_alike(frames: Sequence[Frame], where: str) -> None:
    """Refuse slices in several directions or with several pixel spacings."""
    directions = np.array([(*frame.row_direction, *frame.column_direction) for frame in frames])
    if np.abs(directions - directions[0]).max() > _SAME_DIRECTION:
        raise InputError(
            f"{where} holds slices in different directions, as a localizer does: "
            "choose a series of parallel slices."
        )
    spacings = np.array([frame.spacing for frame in frames])
    odd = np.abs(spacings / spacings[0] - 1).max(axis=1) > _SAME_PIXELS
    if odd.any():
        sizes = [f"{rows:g} x {columns:g} mm" for rows, columns in spacings[[0, odd.argmax()]]]
        raise InputError(
            f"{where} holds slices with different pixel spacings ({sizes[0]} and {sizes[1]}): "
            "choose a series of one kind."
        )


def _check_single(ordered: Sequence[Frame], heights: np.ndarray, where: str) -> None:
    """Refuse several images of one plane."""
    starts = np.flatnonzero(np.append(True, np.diff(heights) > _GAP_MM))
    if len(starts) == len(heights):
        return
    counts = np.diff(np.append(starts, len(heights)))
    if (counts == counts[0]).all():
        raise InputError(
            f"{where} holds {counts[0]} images at each of {len(counts)} positions, as several "
            "echoes or time points do: export one of them as a series of its own."
        )
    twice = starts[counts > 1][0]
    names = [_name(ordered[index].image) for index in (twice, twice + 1)]
    raise InputError(
        f"{where} holds several images at one position, such as {names[0]} and {names[1]}: "
        "leave one of them."
    )


def _name(image: DicomImage) -> str:
    """A slice for people."""
    return image.path.name if image.frame is None else f"frame {image.frame}"


def _check_gaps(heights: np.ndarray, where: str) -> None:
    """Refuse slices that are not equally far apart."""
    gaps = np.diff(heights)
    usual = float(np.sort(gaps)[(len(gaps) - 1) // 2])
    odd = np.flatnonzero(np.abs(gaps - usual) > max(_GAP * usual, _GAP_MM))
    if len(odd):
        index, gap = int(odd[0]), float(gaps[odd[0]])
        missing = round(gap / usual) - 1
        if missing < 1 or abs(gap / usual - missing - 1) > 0.05:
            reason = "export a series of equally spaced slices"
        else:
            reason = f"{'a slice is' if missing == 1 else f'{missing} slices are'} missing"
        raise InputError(
            f"{where} has a hole or an overlap, as the gap between slices {index} and "
            f"{index + 1} (0-based, sorted) is {gap:.4g} mm where the others are {usual:.4g} mm: "
            f"{reason}."
        )
    even = np.linspace(heights[0], heights[-1], len(heights))
    drift = np.abs(heights - even)
    if drift.max() > _DRIFT_MM:
        raise InputError(
            f"{where} is not equally spaced, as slice {int(drift.argmax())} (0-based, sorted) "
            f"lies {drift.max():.2g} mm off its place: export a series of equally spaced slices."
        )


def _check_upright(
    ordered: Sequence[Frame], step: np.ndarray, normal: np.ndarray, where: str
) -> None:
    """Refuse a stack that leans, or whose slices are shifted in their planes."""
    along = float(step @ normal)
    tilt = math.atan2(float(np.linalg.norm(step - along * normal)), along)
    if tilt > _SQUARE:
        raise InputError(
            f"{where} was scanned with a tilted gantry, as its slices are stacked "
            f"{math.degrees(tilt):.1f} degrees off their normal: resample it onto a rectangular "
            "grid first."
        )
    positions = np.array([frame.position for frame in ordered])
    even = ordered[0].position + np.arange(len(ordered))[:, None] * step
    shifts = np.linalg.norm(positions - even, axis=1)
    if shifts.max() > _DRIFT_MM:
        raise InputError(
            f"{where} is no straight stack, as slice {int(shifts.argmax())} (0-based, sorted) is "
            f"shifted by {shifts.max():.2g} mm: resample it onto a rectangular grid first."
        )
