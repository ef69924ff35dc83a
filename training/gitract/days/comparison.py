"""How the organs of a patient changed from day to day: volume, place, overlap."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gitract.days.alignment import Alignment, Shift, without_position
from gitract.days.carrying import carried_mask, indices_in
from gitract.errors import InputError
from gitract.field_of_view import sides_cut
from gitract.metrics import Overlap
from gitract.organs import IGNORE, Organ
from gitract.progress import Progress, Report, silent
from gitract.scan import Scan, Segmentation
from gitract.surface import occupied_window

__all__ = ["Day", "DayOrgan", "DayTable", "compare_days"]

_Mask = npt.NDArray[np.bool_]


class Day(NamedTuple):
    """One treatment day: its scan, and the contours on it."""

    scan: Scan
    contours: Segmentation


@dataclass(frozen=True)
class DayOrgan:
    """One organ on one day, against the first day.

    What cannot be told is None: all but the volume on the first day, and everything of an organ
    that one of the two days has no contours of.

    Parameters
    ----------
    organ, day
        The organ, and the name of the day's scan.
    volume_ml
        None where the day has no contours of the organ.
    change
        Of the volume, as a share of that on the first day: 0.25 is a quarter more.
    shift_mm
        Of the centroid by the coordinates of the scans: to the left, to the back, to the head.
    shift_aligned_mm
        The same once the days are aligned: how it moved within the body.
    dice
        Overlap with the first day, once aligned, where both scans have voxels.
    """

    organ: Organ
    day: str
    volume_ml: float | None
    change: float | None = None
    shift_mm: Shift | None = None
    shift_aligned_mm: Shift | None = None
    dice: float | None = None

    @property
    def moved_mm(self) -> float | None:
        """How far the centroid went, once aligned where that is known."""
        shift = self.shift_mm if self.shift_aligned_mm is None else self.shift_aligned_mm
        return None if shift is None else math.hypot(*shift)


@dataclass(frozen=True)
class DayTable:
    """What `compare_days` found.

    Parameters
    ----------
    days
        Names of the scans, in the order given.
    organs
        Those that any day has, by name in the order in which they appear.
    rows
        One for each organ and day, organ by organ.
    alignments
        Of each later day to the first one; empty where the days were compared as they lie.
    remarks
        What a reader of the numbers must know, a sentence each.
    """

    days: tuple[str, ...]
    organs: tuple[Organ, ...]
    rows: tuple[DayOrgan, ...]
    alignments: tuple[Alignment, ...]
    remarks: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The same as a dictionary of plain values."""
        return {
            "days": list(self.days),
            "alignments": [one.as_json() for one in self.alignments],
            "organs": [
                {
                    "organ": row.organ.name,
                    "day": row.day,
                    "volume_ml": row.volume_ml,
                    "change": row.change,
                    "shift_mm": row.shift_mm,
                    "shift_aligned_mm": row.shift_aligned_mm,
                    "moved_mm": row.moved_mm,
                    "dice": row.dice,
                }
                for row in self.rows
            ],
            "remarks": list(self.remarks),
        }


def compare_days(
    days: Sequence[Day | tuple[Scan, Segmentation]],
    alignments: Sequence[Alignment] | None = None,
    *,
    report: Report = silent,
) -> DayTable:
    """Compare the organs of later days with those of the first.

    Parameters
    ----------
    days
        At least two; the first is what the others are compared with. Organs are the same where
        their names are. Regions to ignore do not count.
    alignments
        Of each later day to the first, by `align`. Without them the days are compared as their
        coordinates lie, which tells nothing of scans that have no position.
    report
        Called for each organ of each day.

    Raises
    ------
    InputError
        There is a single day, contours are not those of their scan, or the alignments do not
        fit the days.
    """
    known = [Day(scan, contours.on(scan)) for scan, contours in days]
    _check(known, alignments)
    organs = _organs_of(known)
    steps = len(organs) * len(known)
    rows = []
    for place, organ in enumerate(organs):
        for index, day in enumerate(known):
            at = place * len(known) + index
            report(Progress(at, steps, f"Comparing {organ.title} on {day.scan.name}"))
            alignment = alignments[index - 1] if alignments and index else None
            rows.append(_compared(organ, known[0], day if index else None, alignment))
    report(Progress(steps, steps, "Comparing"))
    return DayTable(
        tuple(day.scan.name for day in known),
        organs,
        tuple(rows),
        tuple(alignments or ()),
        tuple(_remarks(known, organs, alignments)),
    )


def _check(days: Sequence[Day], alignments: Sequence[Alignment] | None) -> None:
    if len(days) < 2:
        raise InputError(f"Comparing takes at least two days, not {len(days)}: add another day.")
    if alignments is not None and len(alignments) != len(days) - 1:
        raise InputError(
            f"{len(alignments)} alignments for {len(days) - 1} later days: give one for each."
        )


def _organs_of(days: Sequence[Day]) -> tuple[Organ, ...]:
    by_name: dict[str, Organ] = {}
    for day in days:
        for organ in day.contours.organs:
            if organ != IGNORE:
                by_name.setdefault(organ.name, organ)
    return tuple(by_name.values())


def _mask_of(day: Day, organ: Organ) -> _Mask | None:
    """The contours of an organ, or None where nothing is drawn."""
    for other, mask in zip(day.contours.organs, day.contours.masks, strict=True):
        if other.name == organ.name and mask.any():
            return np.asarray(mask)
    return None


def _compared(organ: Organ, first: Day, day: Day | None, alignment: Alignment | None) -> DayOrgan:
    """One organ on a later day against the first; on the first day itself if `day` is None."""
    here = first if day is None else day
    mask = _mask_of(here, organ)
    if mask is None:
        return DayOrgan(organ, here.scan.name, None)
    volume = float(np.count_nonzero(mask)) * float(np.prod(here.scan.spacing)) / 1000.0
    reference = None if day is None else _mask_of(first, organ)
    if reference is None:
        return DayOrgan(organ, here.scan.name, volume)
    before = float(np.count_nonzero(reference)) * float(np.prod(first.scan.spacing)) / 1000.0
    start, now = _centroid(reference, first.scan.affine), _centroid(mask, here.scan.affine)
    return DayOrgan(
        organ,
        here.scan.name,
        volume,
        volume / before - 1.0,
        _apart(start, now),
        None if alignment is None else _apart(start, alignment.matrix @ now),
        _overlap(reference, mask, first.scan, here.scan, alignment).dice,
    )


def _centroid(mask: _Mask, affine: np.ndarray) -> np.ndarray:
    """``(x, y, z, 1)`` of a mask that is not empty, LPS in mm."""
    places = [
        np.average(np.arange(size), weights=np.count_nonzero(mask, axis=others))
        for size, others in zip(mask.shape, ((1, 2), (0, 2), (0, 1)), strict=True)
    ]
    return np.asarray(affine @ [*places, 1.0])


def _apart(start: np.ndarray, end: np.ndarray) -> Shift:
    left, back, head = (end - start)[:3].tolist()
    return left, back, head


def _overlap(
    reference: _Mask, mask: _Mask, first: Scan, later: Scan, alignment: Alignment | None
) -> Overlap:
    """What two days have in common on the first day's grid, where the later one has voxels."""
    matrix = indices_in(later, first, alignment)
    box, carried = carried_mask(mask, matrix, first.shape)
    laid = np.zeros(first.shape, np.bool_)
    laid[box] = carried
    window = occupied_window(laid | reference)
    seen = _seen(matrix, window, later.shape)
    return Overlap.of(laid[window] & seen, reference[window] & seen)


def _seen(
    matrix: np.ndarray, window: tuple[slice, ...], others: tuple[int, int, int]
) -> npt.NDArray[np.bool_]:
    """Which voxels in a part of a grid lie within another grid."""
    grid = np.ogrid[window]
    inside = np.ones([side.stop - side.start for side in window], np.bool_)
    for row, size in zip(matrix[:3], others, strict=True):
        place = row[0] * grid[0] + row[1] * grid[1] + row[2] * grid[2] + row[3]
        inside &= (place > -0.5) & (place < size - 0.5)
    return inside


def _remarks(
    days: Sequence[Day], organs: Sequence[Organ], alignments: Sequence[Alignment] | None
) -> list[str]:
    remarks = []
    unplaced = [day.scan.name for day in days if without_position(day.scan)]
    if unplaced:
        tell = "shifts and overlaps mean little without an alignment"
        if alignments is not None:
            tell = "only what is told after the alignment means something"
        remarks.append(
            f"{' and '.join(unplaced)} {'does' if len(unplaced) == 1 else 'do'} not say where in "
            f"the patient {'it lies' if len(unplaced) == 1 else 'they lie'}: {tell}."
        )
    for organ in organs:
        without = [day.scan.name for day in days if _mask_of(day, organ) is None]
        if without:
            remarks.append(f"{organ.title} has no contours on {' and '.join(without)}.")
        for day in days:
            mask = _mask_of(day, organ)
            sides = () if mask is None else sides_cut(mask)
            if sides:
                remarks.append(
                    f"{organ.title} goes on beyond the {' and '.join(sides)} of "
                    f"{day.scan.name}: its numbers are of what is seen."
                )
    return remarks
