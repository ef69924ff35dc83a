"""Places in contours that a person should look at again: holes, islands, gaps, jumps and the like.

Nothing here says that a contour is wrong. The limits were set so that the experts' own contours
of 37 days of 16 patients (UW-Madison GI Tract data) raise fewer than one finding a day: 26 in all,
on 15 of the days. Beside each limit stands how often they pass it. What is normal for an organ and
worth knowing all the same, such as that it goes on beyond the scan, is a note.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import combinations
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from gitract.field_of_view import SIDES, sides_cut
from gitract.organs import IGNORE, KNOWN_ORGANS, Organ
from gitract.progress import Progress, Report, silent
from gitract.scan import Segmentation, Spacing
from gitract.strict import StrictModel
from gitract.surface import occupied_window

__all__ = [
    "Finding",
    "FindingKind",
    "Severity",
    "UsualVolume",
    "UsualVolumes",
    "check_contours",
    "usual_volumes",
]

FindingKind = Literal["missing", "volume", "cut", "hole", "island", "gap", "jump", "overlap"]
Severity = Literal["look", "note"]
"""``look``: probably to be mended; ``note``: good to know, and often as it should be."""

Masks = npt.NDArray[np.bool_]
Place = tuple[int, int, int]

# Experts: most holes are smaller, what rounding to pixels leaves; two in large bowel are larger,
# and one in small bowel. Beside it there are 13 from 95 mm2 on: mesentery between loops.
_HOLE_MM2 = 20.0
_LOOP_MM2 = 90.0
_WITH_LOOPS = ("small_bowel",)
# Experts: one part of large bowel and five of small bowel are smaller, all under 1 % of the organ;
# no stomach is in two parts.
_ISLAND_ML, _ISLAND_SHARE = 1.0, 0.05
_SPECK_ML = 0.1  # smaller ones come in numbers, and are told in one finding
_IN_ONE_PART = ("stomach",)
# Experts: no organ is absent between two slices that show it in one place. A part of it is, for
# up to 48 mm2; loops of small bowel come and go with up to 277 mm2.
_ABSENT_MM2 = 20.0
_GAP_MM2 = 50.0
_GAP_OF_LOOPS_MM2 = 300.0
# Experts: one slice stands out from both neighbours by the first, and eight pairs of neighbours
# differ by the second, all of them of the stomach.
_OUTLIER = (1.5, 300.0)  # ratio and mm2, both to be reached
_JUMP = (3.0, 1000.0)
_MEASURED_AT_MM = 3.0  # the slice spacing of those scans
# Experts: seven pairs of organs.
_OVERLAP_MM2 = 250.0
# Experts, each patient against the 5th and 95th percentile of the others: 4 organs of 111.
_FAR = 2.0
_HOLDS_OTHERS = ("body", "gtv")  # others lie within them rightly, and within unknown structures
_APART = {organ.name for organ in KNOWN_ORGANS}.difference(_HOLDS_OTHERS)
_RUNS_THROUGH = ("body", "spinal_cord", "aorta", "esophagus")  # longer than any scan of a belly

_TOUCHING = np.ones((3, 3, 3), dtype=np.bool_)
_IN_SLICE = np.zeros((3, 3, 3), dtype=np.bool_)
_IN_SLICE[1] = ndimage.generate_binary_structure(2, 1)


class UsualVolume(StrictModel):
    """How large an organ usually is.

    Parameters
    ----------
    low_ml, median_ml, high_ml
        5th, 50th and 95th percentile of the days, in millilitres.
    days, patients
        How many it is of.
    """

    low_ml: float
    median_ml: float
    high_ml: float
    days: int
    patients: int


class UsualVolumes(StrictModel):
    """Usual volumes by organ name, and whose contours they are of."""

    source: str
    organs: dict[str, UsualVolume]


@cache
def usual_volumes() -> UsualVolumes:
    """The volumes that ship, made by ``training/usual_volumes.py``."""
    text = resources.files("gitract").joinpath("usual_volumes.json").read_text(encoding="utf-8")
    return UsualVolumes.model_validate_json(text)


@dataclass(frozen=True)
class Finding:
    """One thing to look at.

    Parameters
    ----------
    kind
        What it is.
    organs
        The organ that it is about; two where they overlap.
    position
        ``(slice, row, column)`` of a voxel to look at, 0-based; None of what is nowhere.
    severity
        ``look`` or ``note``.
    sentence
        For people, with numbers and units.
    """

    kind: FindingKind
    organs: tuple[Organ, ...]
    position: Place | None
    severity: Severity
    sentence: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready: organs by name."""
        return {
            "kind": self.kind,
            "organs": [organ.name for organ in self.organs],
            "position": self.position,
            "severity": self.severity,
            "sentence": self.sentence,
        }


def check_contours(
    segmentation: Segmentation,
    *,
    usual: UsualVolumes | None = None,
    report: Report = silent,
) -> tuple[Finding, ...]:
    """Look through contours.

    Where the provenance says that only some slices were segmented, an organ is called neither
    missing nor unusually large or small.

    Parameters
    ----------
    segmentation
        The organs of its table are looked for; what is to be ignored is not looked at.
    usual
        Usual volumes; `usual_volumes` when not given. Of an organ that is not among them the
        volume is not judged.
    report
        Called for each organ; may raise to cancel.

    Returns
    -------
    tuple of Finding
        By slice, first those that have none.
    """
    usual = usual or usual_volumes()
    seen = _slices_looked_at(segmentation)
    found: list[Finding] = []
    drawn: list[_Drawn] = []
    count = len(segmentation.organs)
    for place, (organ, mask) in enumerate(
        zip(segmentation.organs, segmentation.masks, strict=True)
    ):
        report(Progress(place, count, f"Checking {organ.title}"))
        if organ.id == IGNORE.id:
            continue
        one = _drawn(organ, mask, segmentation.spacing)
        if one is None:
            found += _missing(organ) if seen.all() else ()
            continue
        drawn.append(one)
        found += _cut(one, mask)
        if seen.all():
            found += _unusual(one, mask, usual.organs)
        found += _holes(one, segmentation.masks)
        found += _islands(one)
        found += _gaps(one, seen)
        found += _jumps(one)
    found += _overlaps(drawn)
    report(Progress(count, count, "Contours checked"))
    return tuple(sorted(found, key=_order))


def _order(finding: Finding) -> tuple[int, str, int, str]:
    index = -1 if finding.position is None else finding.position[0]
    return index, finding.severity, finding.organs[0].id, finding.kind


def _slices_looked_at(segmentation: Segmentation) -> npt.NDArray[np.bool_]:
    """For each slice, whether its lack of contours says anything."""
    asked = segmentation.provenance.get("slices")
    seen = np.ones(segmentation.shape[0], dtype=np.bool_)
    if asked is not None:
        seen[:] = False
        seen[np.asarray(asked, dtype=int)] = True
    return seen


# --- one organ --------------------------------------------------------------------------


class _Drawn(NamedTuple):
    """One organ in the box around it: most of a stack is empty.

    `mask` is boolean ``(slice, row, column)``, a view that begins at `corner` of the stack.
    """

    organ: Organ
    mask: Masks
    corner: Place
    spacing: Spacing

    @property
    def pixel_mm2(self) -> float:
        return self.spacing[1] * self.spacing[2]

    @property
    def voxel_ml(self) -> float:
        return float(np.prod(self.spacing)) / 1000.0

    def areas_mm2(self) -> np.ndarray:
        """On each slice of the box."""
        return np.count_nonzero(self.mask, axis=(1, 2)) * self.pixel_mm2

    def middle(self, places: np.ndarray) -> Place:
        """The one of some voxels that lies nearest to their middle, as an index of the stack.

        Parameters
        ----------
        places
            Indices into the box, ``(n, 3)``.
        """
        away = (places - places.mean(axis=0)) * self.spacing
        nearest = places[(away**2).sum(axis=1).argmin()]
        index, row, column = (nearest + self.corner).tolist()
        return index, row, column

    def middle_on(self, index: int, pixels: np.ndarray) -> Place:
        """The same for pixels ``(row, column)`` of slice `index` of the box."""
        rows, columns = np.nonzero(pixels)
        return self.middle(np.column_stack([np.full(len(rows), index), rows, columns]))

    def found(
        self, kind: FindingKind, position: Place, said: str, severity: Severity = "look"
    ) -> Finding:
        return Finding(kind, (self.organ,), position, severity, f"{self.organ.title}: {said}.")


def _drawn(organ: Organ, mask: Masks, spacing: Spacing) -> _Drawn | None:
    """The organ in its box; None where nothing of it is drawn."""
    if not mask.any():
        return None
    window = occupied_window(mask)
    index, row, column = (axis.start for axis in window)
    return _Drawn(organ, mask[window], (index, row, column), spacing)


def _missing(organ: Organ) -> Iterator[Finding]:
    sentence = f"{organ.title}: not drawn on any slice."
    yield Finding("missing", (organ,), None, "look", sentence)


def _cut(one: _Drawn, mask: Masks) -> Iterator[Finding]:
    """Sides of the scan that the organ touches: it may go on there."""
    sides = [
        side
        for side in sides_cut(mask)
        if not (one.organ.name in _RUNS_THROUGH and side in SIDES[0])
    ]
    if sides:
        volume = np.count_nonzero(one.mask) * one.voxel_ml
        said = (
            f"cut by the field of view ({', '.join(sides)}), "
            f"the {volume:.0f} mL are what lies inside"
        )
        yield one.found("cut", _on_side(one, sides[0]), said, "note")


def _on_side(one: _Drawn, side: str) -> Place:
    """A voxel of the organ on a side of the stack."""
    axis = next(axis for axis, sides in enumerate(SIDES) if side in sides)
    index = 0 if SIDES[axis].index(side) == 0 else one.mask.shape[axis] - 1
    places = np.argwhere(one.mask.take([index], axis=axis))
    places[:, axis] = index
    return one.middle(places)


def _unusual(one: _Drawn, mask: Masks, usual: Mapping[str, UsualVolume]) -> Iterator[Finding]:
    """A volume far outside the usual; of an organ that is cut nobody knows how small it is."""
    known = usual.get(one.organ.name)
    volume = np.count_nonzero(one.mask) * one.voxel_ml
    if known is None or known.low_ml / _FAR <= volume <= known.high_ml * _FAR:
        return
    small = volume < known.low_ml
    if small and sides_cut(mask):
        return
    largest = int(one.areas_mm2().argmax())
    said = (
        f"{volume:.0f} mL, unusually {'little' if small else 'much'}; "
        f"9 in 10 scans have {known.low_ml:.0f} to {known.high_ml:.0f} mL"
    )
    yield one.found("volume", one.middle_on(largest, one.mask[largest]), said)


def _holes(one: _Drawn, masks: Masks) -> Iterator[Finding]:
    """Background that the organ encloses on slices, as far as no other organ fills it."""
    numbers, count = ndimage.label(~one.mask, _IN_SLICE)
    closed = np.ones(count + 1, dtype=np.bool_)
    closed[0] = False
    for edge in (numbers[:, 0], numbers[:, -1], numbers[:, :, 0], numbers[:, :, -1]):
        closed[edge] = False
    enclosed = closed[numbers]
    if not enclosed.any():
        return
    within = np.nonzero(enclosed)
    place = tuple(axis + start for axis, start in zip(within, one.corner, strict=True))
    enclosed[within] = ~np.any([mask[place] for mask in masks], axis=0)
    for hole, box in _parts(enclosed):
        areas = np.count_nonzero(hole, axis=(1, 2)) * one.pixel_mm2
        largest, area = int(areas.argmax()), float(areas.max())
        if area < _HOLE_MM2:
            continue
        places = np.argwhere(hole[[largest]]) + [axis.start for axis in box]
        where = one.middle(places + [largest, 0, 0])
        loops = one.organ.name in _WITH_LOOPS and area >= _LOOP_MM2
        said = f"hole of {area:.0f} mm² on slice {where[0]}{_spread(one, box)}"
        if loops:
            yield one.found("hole", where, f"{said}, as loops may enclose it", "note")
        else:
            yield one.found("hole", where, said)


def _spread(one: _Drawn, box: tuple[slice, ...]) -> str:
    """Which slices a finding spreads over, in brackets; nothing where it is a single one."""
    first, last = one.corner[0] + box[0].start, one.corner[0] + box[0].stop - 1
    return f" (slices {first} to {last})" if last > first else ""


def _parts(mask: Masks) -> Iterator[tuple[Masks, tuple[slice, ...]]]:
    """Each connected part in its box, and the box."""
    numbers, _ = ndimage.label(mask, _TOUCHING)
    for number, box in enumerate(ndimage.find_objects(numbers), start=1):
        yield numbers[box] == number, box


def _islands(one: _Drawn) -> Iterator[Finding]:
    """Parts that are small against the organ; of one that has a single part, all others.

    A slice that was left out does not part an organ: it is told as a gap.
    """
    bridged = one.mask.copy()
    bridged[1:-1] |= one.mask[:-2] & one.mask[2:]
    parts = [(part & one.mask[box], box) for part, box in _parts(bridged)]
    volumes = [np.count_nonzero(part) * one.voxel_ml for part, _ in parts]
    whole, largest = sum(volumes), int(np.argmax(volumes))
    specks = []
    for place, ((part, box), volume) in enumerate(zip(parts, volumes, strict=True)):
        small = volume < _ISLAND_ML and volume < _ISLAND_SHARE * whole
        if place == largest or not (small or one.organ.name in _IN_ONE_PART):
            continue
        where = one.middle(np.argwhere(part) + [axis.start for axis in box])
        if volume < _SPECK_ML:
            specks.append(where)
            continue
        said = (
            f"island of {volume:.1f} mL ({100 * volume / whole:.2g} % of it) "
            f"on slice {where[0]}{_spread(one, box)}"
        )
        yield one.found("island", where, said)
    if specks:
        yield one.found("island", min(specks), _specks_told([where[0] for where in specks]))


def _specks_told(slices: list[int]) -> str:
    count, first, last = len(slices), min(slices), max(slices)
    said = f"{count} specks" if count > 1 else "speck"
    place = f"on slice {first}" if first == last else f"between slices {first} and {last}"
    return f"{said} under {_SPECK_ML:g} mL {place}"


def _gaps(one: _Drawn, seen: npt.NDArray[np.bool_]) -> Iterator[Finding]:
    """What both neighbours of a slice show in one place and the slice does not."""
    least = _GAP_OF_LOOPS_MM2 if one.organ.name in _WITH_LOOPS else _GAP_MM2
    for index in range(1, len(one.mask) - 1):
        shown = one.mask[index]
        number = one.corner[0] + index
        beside = f"slices {number - 1} and {number + 1}"
        absent = not shown.any()
        if absent and not seen[number]:
            continue
        both = one.mask[index - 1] & one.mask[index + 1]
        if absent and np.count_nonzero(both) * one.pixel_mm2 >= _ABSENT_MM2:
            said = f"absent on slice {number}, though {beside} show it in one place"
            yield one.found("gap", one.middle_on(index, both), said)
        elif not absent and np.count_nonzero(both & ~shown) * one.pixel_mm2 >= least:
            yield from _partial_gaps(one, index, both, least, beside)


def _partial_gaps(
    one: _Drawn, index: int, both: np.ndarray, least: float, beside: str
) -> Iterator[Finding]:
    """Connected pixels of both neighbours of which the slice shows not a single one."""
    numbers, count = ndimage.label(both, _TOUCHING[0])
    gone = np.bincount(numbers.ravel(), minlength=count + 1) * one.pixel_mm2 >= least
    gone[0] = False
    gone[numbers[one.mask[index]]] = False
    for number in np.flatnonzero(gone):
        pixels = numbers == number
        area = np.count_nonzero(pixels) * one.pixel_mm2
        said = (
            f"gap on slice {one.corner[0] + index}, nothing of the {area:.0f} mm² "
            f"that {beside} share in one place"
        )
        yield one.found("gap", one.middle_on(index, pixels), said)


def _jumps(one: _Drawn) -> Iterator[Finding]:
    """Slices whose area stands out from both neighbours, and neighbours of very unlike areas."""
    areas = one.areas_mm2()
    first = one.corner[0]
    told: set[int] = set()  # the slices that stand out
    for index in range(1, len(areas) - 1):
        before, here, after = areas[index - 1 : index + 2]
        nearer = max(before, after) if here > max(before, after) else min(before, after)
        between = min(before, after) <= here <= max(before, after)
        if before and after and not between and _unlike(here, nearer, _OUTLIER, one):
            told.add(index)
            said = (
                f"{here:.0f} mm² on slice {first + index}, but {before:.0f} and "
                f"{after:.0f} mm² on the slices beside it"
            )
            yield one.found("jump", _where_unlike(one, index), said)
    for index in range(1, len(areas)):
        before, here = areas[index - 1 : index + 1]
        if told.isdisjoint((index - 1, index)) and _unlike(here, before, _JUMP, one):
            said = (
                f"jump from {before:.0f} to {here:.0f} mm² between slices "
                f"{first + index - 1} and {first + index}"
            )
            yield one.found("jump", _where_unlike(one, index), said)


def _unlike(one_mm2: float, other_mm2: float, limits: tuple[float, float], one: _Drawn) -> bool:
    """Whether areas of neighbours differ by both limits; thicker slices may differ by more."""
    ratio, least = limits
    steps = max(1.0, one.spacing[0] / _MEASURED_AT_MM)
    low, high = sorted((one_mm2, other_mm2))
    return low > 0 and high / low >= ratio**steps and high - low >= least * steps


def _where_unlike(one: _Drawn, index: int) -> Place:
    """The middle of what differs between a slice of the box and the one before."""
    return one.middle_on(index, one.mask[index] ^ one.mask[index - 1])


# --- two organs -------------------------------------------------------------------------


def _overlaps(drawn: Sequence[_Drawn]) -> Iterator[Finding]:
    """Pairs that share much of a slice; those that others may lie within are left out."""
    apart = [one for one in drawn if one.organ.name in _APART]
    for one, other in combinations(apart, 2):
        starts = np.maximum(one.corner, other.corner)
        ends = np.minimum(
            np.add(one.corner, one.mask.shape), np.add(other.corner, other.mask.shape)
        )
        if (starts >= ends).any():
            continue
        shared = _within(one, starts, ends) & _within(other, starts, ends)
        areas = np.count_nonzero(shared, axis=(1, 2)) * one.pixel_mm2
        index = int(areas.argmax())
        if areas[index] < _OVERLAP_MM2:
            continue
        corner = (int(starts[0]), int(starts[1]), int(starts[2]))
        where = one._replace(mask=shared, corner=corner).middle_on(index, shared[index])
        volume = np.count_nonzero(shared) * one.voxel_ml
        sentence = (
            f"{one.organ.title} and {other.organ.title.lower()}: overlap of {volume:.1f} mL, "
            f"most on slice {where[0]} with {areas[index]:.0f} mm²."
        )
        yield Finding("overlap", (one.organ, other.organ), where, "look", sentence)


def _within(one: _Drawn, starts: np.ndarray, ends: np.ndarray) -> Masks:
    """The part of an organ's box that lies between two corners of the stack."""
    box = zip(starts - one.corner, ends - one.corner, strict=True)
    return one.mask[tuple(slice(start, end) for start, end in box)]
