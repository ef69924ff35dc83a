"""Voxels and contours of one day put onto the grid of another."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from gitract.baseline import slice_digests
from gitract.days.alignment import Alignment
from gitract.organs import IGNORE
from gitract.progress import Progress, Report, silent
from gitract.scan import Scan, Segmentation, flattened
from gitract.surface import occupied_window

__all__ = ["carried_mask", "indices_in", "propagated", "resampled"]

_SLICES_AT_ONCE = 8  # between two looks at whether the user cancelled

_INSIDE = 0.5
"""A voxel is in an organ if its neighbours in the other grid are by this share. Between two real
days of 5 mm pixels volumes stayed within 2 %; with signed distances they shrank by up to 3 %."""
_BESIDE = 1e-4
"""Of a voxel. Samples half-way between two voxels, as on a grid of half the spacing, would else
all be inside, or none; so they are on one side of an organ and are not on the other."""

_Mask = npt.NDArray[np.bool_]


def indices_in(
    moving: Scan | Segmentation, fixed: Scan | Segmentation, alignment: Alignment | None
) -> np.ndarray:
    """4x4, indices ``(slice, row, column, 1)`` of the fixed grid to those of the moving one.

    Without an alignment both grids lie as their coordinates say.
    """
    to_fixed = np.eye(4) if alignment is None else alignment.matrix
    onto = np.linalg.inv(to_fixed @ moving.affine) @ fixed.affine
    # Rounding would put voxels of equal grids a hair beyond the edge.
    return np.asarray(np.round(onto, 9))


def resampled(
    moving: Scan, alignment: Alignment, fixed: Scan, *, report: Report = silent
) -> np.ndarray:
    """The voxels of one day where the other day's are, interpolated linearly.

    Parameters
    ----------
    moving
        The scan to show on the grid of `fixed`.
    alignment
        Of `moving` to `fixed`.
    fixed
        Gives the grid.
    report
        Called every few slices.

    Returns
    -------
    numpy.ndarray
        ``(slice, row, column)`` of `fixed`, in the type of `moving`; its least value where it
        has no voxels.
    """
    matrix = indices_in(moving, fixed, alignment)
    laid = np.empty(fixed.shape, moving.voxels.dtype)
    least = moving.voxels.min()
    for first in range(0, len(laid), _SLICES_AT_ONCE):
        report(Progress(first, len(laid), f"Laying {moving.name} upon {fixed.name}"))
        part = laid[first : first + _SLICES_AT_ONCE]
        offset = matrix[:3, 3] + matrix[:3, 0] * first
        ndimage.affine_transform(
            moving.voxels, matrix[:3, :3], offset, part.shape, part, order=1, cval=least
        )
    return laid


def propagated(
    contours: Segmentation, alignment: Alignment, fixed: Scan, *, report: Report = silent
) -> Segmentation:
    """The contours of one day on the scan of another, as a start for contouring that.

    Each organ is carried over on its own, so that overlaps are kept. Regions to ignore stay
    behind.

    Parameters
    ----------
    contours
        Of the moving day.
    alignment
        Of that day to `fixed`.
    fixed
        The scan to contour.
    report
        Called for each organ.

    Returns
    -------
    Segmentation
        On the grid of `fixed`. Its provenance names the day that it came from
        (``propagated_from``), the ``alignment``, and the ``baseline`` that edits are told by; of
        slices nothing is said, since nobody has seen them on this scan. A remark names the
        organs of which nothing lies within `fixed`.
    """
    matrix = indices_in(contours, fixed, alignment)
    pairs = [
        (organ, mask)
        for organ, mask in zip(contours.organs, contours.masks, strict=True)
        if organ != IGNORE
    ]
    organs = tuple(organ for organ, _ in pairs)
    masks = np.zeros((len(pairs), *fixed.shape), np.bool_)
    remarks = []
    for place, (organ, mask) in enumerate(pairs):
        report(Progress(place, len(pairs), f"Carrying over {organ.title}"))
        window, inside = carried_mask(mask, matrix, fixed.shape)
        masks[place][window] = inside
        if mask.any() and not inside.any():
            remarks.append(f"{organ.title} of {alignment.moving} lies outside {fixed.name}.")
    report(Progress(len(pairs), len(pairs), "Noting what was carried over"))
    return Segmentation(
        masks,
        fixed.spacing,
        fixed.affine,
        organs,
        fixed.name,
        fixed.slice_numbers,
        provenance={
            "propagated_from": alignment.moving,
            "alignment": alignment.as_json(),
            "baseline": slice_digests(flattened(masks, organs)),
        },
        stored=fixed.stored,
        remarks=tuple(remarks),
    )


def carried_mask(
    mask: _Mask, matrix: np.ndarray, shape: tuple[int, int, int]
) -> tuple[tuple[slice, ...], _Mask]:
    """A mask on another grid: the part of that grid that may hold it, and the mask there.

    It is interpolated linearly; beyond its own grid there is nothing of it.

    Parameters
    ----------
    mask
        ``(slice, row, column)``.
    matrix
        4x4, indices of the other grid to those of the mask.
    shape
        Of the other grid.
    """
    if not mask.any():
        return (slice(0, 0),) * 3, np.zeros((0, 0, 0), np.bool_)
    window = occupied_window(mask)
    held = np.pad(mask[window], 1).astype(np.float32)
    start = np.array([side.start for side in window]) - 1
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(held.shape) - 1) + start
    back = np.linalg.inv(matrix)
    reached = corners @ back[:3, :3].T + back[:3, 3]
    low = np.clip(np.floor(reached.min(axis=0)).astype(int), 0, shape)
    high = np.clip(np.ceil(reached.max(axis=0)).astype(int) + 1, low, shape)
    box = tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
    size = tuple((high - low).tolist())
    if 0 in size:
        return box, np.zeros(size, np.bool_)
    offset = matrix[:3, :3] @ low + matrix[:3, 3] - start
    beside = offset + _BESIDE
    laid = ndimage.affine_transform(held, matrix[:3, :3], beside, size, order=1)
    return box, laid >= _INSIDE
