"""How far two masks overlap, and means that count each patient once.

An organ that neither mask holds has no overlap to measure: the answer is None and never a
number, so that it is left out of means. One that only one of the two holds scores 0.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable
from typing import NamedTuple

import numpy as np

__all__ = [
    "Overlap",
    "dice",
    "mean_known",
    "mean_organ_dice",
    "mean_over_patients",
    "patient_means",
]


class Overlap(NamedTuple):
    """Voxels of the prediction, of the truth and of both."""

    predicted: int
    true: int
    common: int

    @classmethod
    def of(cls, prediction: np.ndarray, truth: np.ndarray) -> "Overlap":
        """Count two boolean masks of the same shape."""
        return cls(
            int(np.count_nonzero(prediction)),
            int(np.count_nonzero(truth)),
            int(np.count_nonzero(prediction & truth)),
        )

    @classmethod
    def total(cls, parts: Iterable["Overlap"]) -> "Overlap":
        """The sum of several counts."""
        return cls(*(sum(column) for column in zip(cls(0, 0, 0), *parts, strict=True)))

    @property
    def dice(self) -> float | None:
        """Dice coefficient, 2 |A and B| / (|A| + |B|); None where both are empty."""
        total = self.predicted + self.true
        return 2.0 * self.common / total if total else None

    @property
    def iou(self) -> float | None:
        """Intersection over union, |A and B| / |A or B|; None where both are empty."""
        union = self.predicted + self.true - self.common
        return self.common / union if union else None


def dice(prediction: np.ndarray, truth: np.ndarray) -> float | None:
    """Dice coefficient of two masks of any shape; None where both are empty."""
    return Overlap.of(prediction, truth).dice


def mean_organ_dice(overlaps: Iterable[tuple[Hashable, Overlap]]) -> float | None:
    """Mean over organs of the Dice over all of an organ's counts together.

    Parameters
    ----------
    overlaps
        Organ and counts of each slice or scan; None is the answer where there is nothing.
    """
    by_organ: dict[Hashable, list[Overlap]] = defaultdict(list)
    for organ, overlap in overlaps:
        by_organ[organ].append(overlap)
    return mean_known(Overlap.total(parts).dice for parts in by_organ.values())


def mean_known(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are not None; None where there is none."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def patient_means(scores: Iterable[tuple[str, float | None]]) -> dict[str, float]:
    """Mean over each patient's scans, by patient.

    Parameters
    ----------
    scores
        Patient and score of each scan; None scores don't count, and a patient without any
        other is left out.
    """
    by_patient: dict[str, list[float | None]] = defaultdict(list)
    for patient, score in scores:
        by_patient[patient].append(score)
    means = {patient: mean_known(values) for patient, values in by_patient.items()}
    return {patient: mean for patient, mean in means.items() if mean is not None}


def mean_over_patients(scores: Iterable[tuple[str, str, float | None]]) -> dict[str, float]:
    """Mean over patients of the mean over each patient's scans, by organ.

    Parameters
    ----------
    scores
        Patient, organ and score of each scan; None scores don't count.
    """
    by_organ: dict[str, list[tuple[str, float | None]]] = defaultdict(list)
    for patient, organ, score in scores:
        by_organ[organ].append((patient, score))
    means = {organ: mean_known(patient_means(of).values()) for organ, of in by_organ.items()}
    return {organ: mean for organ, mean in means.items() if mean is not None}
