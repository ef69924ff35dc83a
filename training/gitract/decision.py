"""From probabilities to contours: thresholds, and rules about islands, holes and parts.

Everything is measured in millimetres and millilitres, so that a rule means the same on
every scan; what was asked for is written into the provenance of the result.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy import ndimage

from gitract.errors import InputError
from gitract.organs import Organ
from gitract.scan import Spacing
from gitract.strict import StrictModel

__all__ = ["TIDY", "Decision", "tidied"]

Masks = npt.NDArray[np.bool_]

_TOUCHING = np.ones((3, 3, 3), bool)  # voxels that share a corner are of one part


class Decision(StrictModel):
    """How a probability becomes a contour.

    Parameters
    ----------
    threshold
        The probability above which an organ is there: one for all organs, or by organ name;
        organs that are not named have one half.
    hysteresis
        A lower probability: what is above it belongs to the organ as well, where it touches
        in 3-D something above the threshold. None: nothing but the threshold counts.
    smallest_ml
        Parts of an organ with a smaller volume are removed.
    largest_hole_mm2
        Holes of an organ on a slice up to this area are filled. Loops of bowel enclose larger
        ones that are real.
    one_part
        Names of organs of which the largest part alone is kept.
    """

    threshold: float | dict[str, float] = 0.5
    hysteresis: float | None = Field(default=None, gt=0, lt=1)
    smallest_ml: float = Field(default=0.0, ge=0)
    largest_hole_mm2: float = Field(default=0.0, ge=0)
    one_part: tuple[str, ...] = ()

    def thresholds(self, organs: Sequence[Organ]) -> list[float]:
        """The threshold of each organ.

        Raises
        ------
        InputError
            A threshold is not between 0 and 1, or below the hysteresis, or it or a rule is of
            an organ that is not there.
        """
        known = [organ.name for organ in organs]
        by_name = self.threshold if isinstance(self.threshold, Mapping) else {}
        for name in (*by_name, *self.one_part):
            if name not in known:
                raise InputError(
                    f"The model does not outline {name!r}: it knows {', '.join(known)}."
                )
        common = 0.5 if isinstance(self.threshold, Mapping) else self.threshold
        found = [by_name.get(name, common) for name in known]
        for value in found:
            if not 0 < value < 1:
                raise InputError(f"The threshold {value:g} is no probability: choose 0.01 to 0.99.")
            if self.hysteresis is not None and value < self.hysteresis:
                raise InputError(
                    f"The lower threshold {self.hysteresis:g} is above the threshold {value:g}: "
                    "choose a smaller one."
                )
        return found

    @property
    def tidies(self) -> bool:
        """Whether `tidied` has anything to do."""
        rules = (self.hysteresis, self.smallest_ml, self.largest_hole_mm2, self.one_part)
        return any(rules)


TIDY = Decision(smallest_ml=0.5, largest_hole_mm2=100.0, one_part=("stomach",))
"""What ``--tidy`` stands for: one stomach, no islands under half a millilitre, no pinholes."""


def tidied(
    masks: Masks,
    likely: Masks | None,
    spacing: Spacing,
    decision: Decision,
    organs: Sequence[Organ],
) -> Masks:
    """Apply the rules of a decision that need the whole stack.

    Parameters
    ----------
    masks
        bool ``(organ, slice, row, column)``, above the threshold; not changed.
    likely
        The same, above the lower threshold; None where there is none.
    spacing
        ``(slice, row, column)`` in mm.
    decision
        Which rules.
    organs
        The organ of each mask.

    Returns
    -------
    numpy.ndarray
        bool, of the shape of `masks`.
    """
    result = np.zeros_like(masks)
    voxel_ml = float(np.prod(spacing)) / 1000.0
    hole = int(decision.largest_hole_mm2 / (spacing[1] * spacing[2]))
    for place, organ in enumerate(organs):
        seen = masks[place] if likely is None else masks[place] | likely[place]
        window = _extent(seen)
        if window is None:
            continue
        certain = masks[place][window]
        mask = certain if likely is None else _with_likely(certain, seen[window])
        least = decision.smallest_ml / voxel_ml
        mask = _parts(mask, least, only_largest=organ.name in decision.one_part)
        result[place][window] = _filled(mask, hole) if hole else mask
    return result


def _extent(mask: Masks) -> tuple[slice, ...] | None:
    """The box around what is set; None where nothing is. Most of a stack is empty."""
    if not mask.any():
        return None
    window: tuple[slice, ...] = ndimage.find_objects(mask.astype(np.uint8))[0]
    return window


def _with_likely(certain: Masks, likely: Masks) -> Masks:
    parts, count = ndimage.label(likely, _TOUCHING)
    kept = np.zeros(count + 1, bool)
    kept[parts[certain]] = True
    kept[0] = False
    return np.asarray(kept[parts])


def _parts(mask: Masks, least: float, *, only_largest: bool) -> Masks:
    """The parts of `least` voxels or more; of these the largest alone where so wanted."""
    if not least and not only_largest:
        return mask
    parts, count = ndimage.label(mask, _TOUCHING)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    kept = (sizes > 0) & (sizes >= least)
    if only_largest:
        kept &= np.arange(count + 1) == sizes.argmax()
    return np.asarray(kept[parts])


def _filled(mask: Masks, largest: int) -> Masks:
    """Fill holes of up to `largest` pixels on each slice."""
    filled = mask.copy()
    for index in np.flatnonzero(mask.any(axis=(1, 2))):
        holes = ndimage.binary_fill_holes(mask[index]) & ~mask[index]
        numbers, count = ndimage.label(holes)
        sizes = np.bincount(numbers.ravel(), minlength=count + 1)
        sizes[0] = largest + 1
        filled[index] |= (sizes <= largest)[numbers]
    return filled
