"""How far the surfaces of two masks lie apart, in mm.

A surface is made of the voxels of a mask that have a neighbour outside it, across a face;
beyond the scan is outside. Distances run between the centres of such voxels. This is the
definition of MONAI without sub-voxels, and counts voxels where DeepMind's surface-distance
weighs by area.

Nikolov et al., "Clinically applicable segmentation of head and neck anatomy for
radiotherapy", J Med Internet Res 2021, 23(7):e26151, introduced the surface Dice.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

__all__ = ["TOLERANCE_MM", "SurfaceDistances", "occupied_window", "surface_distances"]

TOLERANCE_MM = 2.0
"""Of the surface Dice of fine-tuned models."""

_QUANTILE = 0.95


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """From each surface voxel of one mask to the nearest surface voxel of the other, mm.

    Parameters
    ----------
    to_truth
        For each surface voxel of the prediction; infinite where the truth has none.
    to_prediction
        For each surface voxel of the truth; infinite where the prediction has none.
    """

    to_truth: npt.NDArray[np.float64]
    to_prediction: npt.NDArray[np.float64]

    @classmethod
    def pooled(cls, parts: Iterable["SurfaceDistances"]) -> "SurfaceDistances":
        """The distances of several runs of slices of one scan together."""
        found = list(parts)
        nothing = np.empty(0)
        return cls(
            np.concatenate([nothing, *(part.to_truth for part in found)]),
            np.concatenate([nothing, *(part.to_prediction for part in found)]),
        )

    @property
    def hd95(self) -> float | None:
        """Hausdorff distance at the 95th percentile, mm.

        The larger of the two directed 95th percentiles (linear between ranks), each over all
        surface voxels of one mask. None where either mask is empty: a distance to nothing is
        neither 0 nor any other number. Where a scan comes in several runs, it is also None
        when more than 5 % of a surface lie in runs in which the other mask is empty.
        """
        directed = [_percentile(self.to_truth), _percentile(self.to_prediction)]
        known = [value for value in directed if value is not None]
        return max(known) if len(known) == 2 else None

    def dice(self, tolerance_mm: float) -> float | None:
        """Surface Dice: the share of both surfaces that lies within a tolerance of the other.

        A distance of exactly the tolerance is within it. 0 where one mask is empty, None
        where both are.
        """
        total = len(self.to_truth) + len(self.to_prediction)
        if total == 0:
            return None
        near = sum(
            int(np.count_nonzero(distances <= tolerance_mm))
            for distances in (self.to_truth, self.to_prediction)
        )
        return near / total


def _percentile(distances: npt.NDArray[np.float64]) -> float | None:
    """As NumPy's, but with infinite distances above the rank, of which it makes NaN."""
    if not len(distances):
        return None
    rank = _QUANTILE * (len(distances) - 1)
    below, above = math.floor(rank), math.ceil(rank)
    ordered = np.partition(distances, (below, above))
    if math.isinf(ordered[above]):
        return None
    return float(ordered[below] + (rank - below) * (ordered[above] - ordered[below]))


def occupied_window(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box that holds every voxel of a mask that is not empty."""
    window = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        used = np.flatnonzero(mask.any(axis=others))
        window.append(slice(int(used[0]), int(used[-1]) + 1))
    return tuple(window)


def surface_distances(
    prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float]
) -> SurfaceDistances:
    """Measure the surfaces of two masks, each against the other.

    Parameters
    ----------
    prediction, truth
        ``bool`` ``(slice, row, column)``; or ``(row, column)``, whose surfaces are lines.
    spacing
        Of each axis, in mm.
    """
    either = prediction | truth
    if not either.any():
        return SurfaceDistances.pooled(())
    window = occupied_window(either)  # no surface lies outside it
    ours, theirs = _surface(prediction[window]), _surface(truth[window])
    return SurfaceDistances(_distances(ours, theirs, spacing), _distances(theirs, ours, spacing))


def _surface(mask: np.ndarray) -> np.ndarray:
    return mask & ~ndimage.binary_erosion(mask)


def _distances(
    start: np.ndarray, target: np.ndarray, spacing: Sequence[float]
) -> npt.NDArray[np.float64]:
    """From each voxel of `start` to the nearest of `target`, mm."""
    if not target.any():
        return np.full(int(np.count_nonzero(start)), np.inf)
    if not start.any():
        return np.empty(0)
    return np.asarray(ndimage.distance_transform_edt(~target, sampling=spacing)[start])
