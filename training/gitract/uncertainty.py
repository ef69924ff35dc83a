"""How sure a model is: of each voxel, and of each slice."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

__all__ = ["entropy", "slice_doubts"]

_LEAST_MM2 = 100.0


def entropy(probabilities: np.ndarray) -> npt.NDArray[np.float32]:
    """Binary entropy of the organ that is least sure, voxel by voxel.

    Parameters
    ----------
    probabilities
        ``(organ, slice, row, column)``, any float type.

    Returns
    -------
    numpy.ndarray
        ``(slice, row, column)`` in bits: 0 where every organ is surely there or surely not,
        1 where one is as likely there as not.
    """
    # It falls to both sides of one half, so the probability nearest to it is the least sure.
    found = np.empty(probabilities.shape[1:], np.float32)
    for index in range(probabilities.shape[1]):  # slice by slice: a copy of all would be large
        nearest = np.abs(probabilities[:, index].astype(np.float32) - 0.5).min(axis=0)
        p = np.clip(0.5 - nearest, 1e-7, 0.5)
        found[index] = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    return found


def slice_doubts(logits: "torch.Tensor", pixel_mm: float) -> "torch.Tensor":
    """How much of each slice is expected to be wrong: one minus its soft Dice.

    If the probabilities are right, twice the sum of those inside the contours, over the area
    of the contours plus the sum of all, is close to the Dice that the contours will have: the
    *soft Dice confidence* of Borges, Pacheco and Silva 2024 (arXiv:2402.10665), here over all
    organs together. One square centimetre is added above and below, so that a slice on
    which next to nothing is likely and nothing is drawn counts as sure.

    Parameters
    ----------
    logits
        ``(slice, organ, row, column)``; contours are where they are above 0.
    pixel_mm
        Side of a pixel.

    Returns
    -------
    torch.Tensor
        ``(slice,)``: 0 (sure) to 1.
    """
    least = _LEAST_MM2 / pixel_mm**2
    likely, drawn = logits.sigmoid(), logits > 0
    inside = (likely * drawn).sum(dim=(1, 2, 3))
    area = likely.sum(dim=(1, 2, 3)) + drawn.sum(dim=(1, 2, 3))
    return 1.0 - (2.0 * inside + least) / (area + least)
