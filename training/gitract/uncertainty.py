"""How sure a model is: of each voxel, and of each slice."""

import numpy as np
import numpy.typing as npt

from gitract.scan import Spacing

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


def slice_doubts(probabilities: np.ndarray, masks: np.ndarray, spacing: Spacing) -> list[float]:
    """How much of each slice is expected to be wrong: one minus its soft Dice.

    If the probabilities are right, twice the sum of those inside the masks, over the area of
    the masks plus the sum of all, is close to the Dice that the masks will have: the *soft
    Dice confidence* of Borges, Pacheco and Silva 2024 (arXiv:2402.10665), here over all
    organs together. One square centimetre is added above and below, so that a slice on
    which next to nothing is likely and nothing is drawn counts as sure.

    Parameters
    ----------
    probabilities
        ``(organ, slice, row, column)``.
    masks
        bool of the same shape: what was decided.
    spacing
        ``(slice, row, column)`` in mm.

    Returns
    -------
    list of float
        One for each slice, 0 (sure) to 1.
    """
    least = _LEAST_MM2 / (spacing[1] * spacing[2])
    doubts = []
    for index in range(probabilities.shape[1]):
        likely = probabilities[:, index].astype(np.float32)
        inside = float(likely[masks[:, index]].sum())
        area = float(likely.sum()) + int(masks[:, index].sum())
        doubts.append(1.0 - (2.0 * inside + least) / (area + least))
    return doubts
