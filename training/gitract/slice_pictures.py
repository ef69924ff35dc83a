"""Small pictures of slices that are worth showing: the best, the median and the worst."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gitract.organs import Organ
from gitract.orientation import hangs_reversed
from gitract.scan import Scan
from gitract.surface import occupied_window

__all__ = ["Gallery", "SlicePicture", "slice_picture"]

_KEPT = 24
_MARGIN_MM = 40.0
_LEAST_MM = 180.0


@dataclass(frozen=True, eq=False)
class SlicePicture:
    """A part of a slice around one organ, as it hangs on the screen.

    Parameters
    ----------
    patient, scan, organ
        ``case20``, ``case20_day0``, the organ.
    place
        Where in the scan, for people: ``slice 42``.
    dice
        Of the organ on this slice.
    area
        Voxels in prediction or truth.
    grey
        ``uint8`` ``(row, column)``.
    prediction, truth
        ``bool`` ``(row, column)``.
    pixel_mm
        ``(row, column)``.
    """

    patient: str
    scan: str
    organ: Organ
    place: str
    dice: float
    area: int
    grey: npt.NDArray[np.uint8]
    prediction: npt.NDArray[np.bool_]
    truth: npt.NDArray[np.bool_]
    pixel_mm: tuple[float, float]


def slice_picture(
    scan: Scan,
    index: int,
    prediction: np.ndarray,
    truth: np.ndarray,
    *,
    patient: str,
    organ: Organ,
    place: str,
    dice: float,
) -> SlicePicture:
    """Cut one organ with its surroundings out of a slice.

    Parameters
    ----------
    scan
        The slice is in it.
    index
        0-based.
    prediction, truth
        ``bool`` ``(row, column)``, of the slice; not both empty.
    patient, organ, place, dice
        As in `SlicePicture`.
    """
    _, row_mm, column_mm = scan.spacing
    window = _around(prediction | truth, (row_mm, column_mm))
    flipped = tuple(axis - 1 for axis in hangs_reversed(scan.affine))

    def cut(image: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.flip(image[window], axis=flipped))

    return SlicePicture(
        patient=patient,
        scan=scan.name,
        organ=organ,
        place=place,
        dice=dice,
        area=int(np.count_nonzero(prediction | truth)),
        grey=_grey(cut(scan.voxels[index])),
        prediction=cut(prediction),
        truth=cut(truth),
        pixel_mm=(row_mm, column_mm),
    )


def _around(mask: np.ndarray, pixel_mm: tuple[float, float]) -> tuple[slice, slice]:
    """A square around a mask, large enough to show where it is, as far as the slice goes."""
    box = occupied_window(mask)
    sides = [(part.stop - part.start) * mm for part, mm in zip(box, pixel_mm, strict=True)]
    side = max(_LEAST_MM, max(sides) + 2 * _MARGIN_MM)
    row, column = (
        _part(part, round(side / mm), size)
        for part, size, mm in zip(box, mask.shape, pixel_mm, strict=True)
    )
    return row, column


def _part(middle: slice, length: int, size: int) -> slice:
    """`length` of `size` pixels, around the middle unless that is too near to an end."""
    start = (middle.start + middle.stop - length) // 2
    start = max(0, min(start, size - length))
    return slice(start, min(size, start + length))


def _grey(image: np.ndarray) -> npt.NDArray[np.uint8]:
    """Grey values from the first to the 99th percentile as 0 to 255."""
    low, high = np.percentile(image, (1, 99))
    scaled = (image.astype(np.float64) - low) / max(high - low, 1e-9)
    return np.asarray(np.clip(scaled, 0, 1) * 255).astype(np.uint8)


class Gallery:
    """The pictures that are kept while scans go by: few, however many there are.

    For each organ the best and the worst stay, and between them those that cover the range
    of Dice most evenly.
    """

    def __init__(self) -> None:
        self._by_organ: dict[str, list[SlicePicture]] = defaultdict(list)

    def __iter__(self) -> Iterator[SlicePicture]:
        return (picture for kept in self._by_organ.values() for picture in kept)

    def add(self, picture: SlicePicture) -> None:
        """Keep a picture, and let the most dispensable one go where there are too many."""
        kept = self._by_organ[picture.organ.name]
        kept.append(picture)
        kept.sort(key=lambda one: (one.dice, one.area if one.dice else -one.area))
        if len(kept) > _KEPT:
            inner = range(1, len(kept) - 1)
            del kept[min(inner, key=lambda i: kept[i + 1].dice - kept[i - 1].dice)]

    def chosen(self, organ: str, median: float) -> tuple[SlicePicture, ...]:
        """The best, the one nearest to the median Dice, and the worst; fewer if there are."""
        kept = self._by_organ.get(organ, [])
        if not kept:
            return ()
        middle = min(kept[1:-1] or kept, key=lambda one: abs(one.dice - median))
        return tuple(dict.fromkeys((kept[-1], middle, kept[0])))
