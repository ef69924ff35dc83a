"""How well a segmentation agrees with the truth."""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

__all__ = ["dice", "mean_over_patients", "mean_slice_dice"]


def dice(prediction: np.ndarray, truth: np.ndarray) -> float | None:
    """Dice coefficient of two masks of any shape; None where both are empty."""
    total = int(np.count_nonzero(prediction)) + int(np.count_nonzero(truth))
    if total == 0:
        return None
    return 2.0 * int(np.count_nonzero(prediction & truth)) / total


def mean_slice_dice(prediction: np.ndarray, truth: np.ndarray) -> float | None:
    """Mean over slices of their Dice; slices on which both are empty don't count.

    Parameters
    ----------
    prediction, truth
        ``bool`` ``(slice, row, column)``.

    Returns
    -------
    float or None
        None where every slice of both is empty.
    """
    scores = [dice(p, t) for p, t in zip(prediction, truth, strict=True)]
    counted = [score for score in scores if score is not None]
    return float(np.mean(counted)) if counted else None


def mean_over_patients(scores: Iterable[tuple[str, str, float | None]]) -> dict[str, float]:
    """Mean over patients of the mean over each patient's scans, by organ.

    Parameters
    ----------
    scores
        Patient, organ and score of each scan; None scores don't count.
    """
    by_organ: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for patient, organ, score in scores:
        if score is not None:
            by_organ[organ][patient].append(score)
    return {
        organ: float(np.mean([np.mean(values) for values in patients.values()]))
        for organ, patients in by_organ.items()
    }
