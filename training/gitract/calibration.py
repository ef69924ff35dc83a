"""Whether a probability of 70 % is right in 70 % of the cases, and what makes it so.

Logits are divided by one number, the temperature, which is fitted on patients that the network
was not trained on (Guo et al. 2017, arXiv:1706.04599). No contour moves by that.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

__all__ = ["Calibration", "LogitCounts", "calibrated"]

_STEP = 0.02
_EDGE = 16.0  # logits beyond it count as it
_LEAST = math.log(0.01 / 0.99)
_CENTRES = np.linspace(-_EDGE, _EDGE, round(2 * _EDGE / _STEP) + 1)
_BINS = 15
_COLDEST, _HOTTEST = 0.2, 8.0


@dataclass(frozen=True, eq=False)
class LogitCounts:
    """How often each logit occurred where an organ was, and where it was not.

    Parameters
    ----------
    counts
        float64 ``(2, bins)``: absent and present, by logit in steps of 0.02.
    """

    counts: npt.NDArray[np.float64]

    @classmethod
    def nothing(cls) -> "LogitCounts":
        """Of no voxel."""
        return cls(np.zeros((2, len(_CENTRES))))

    def __add__(self, other: "LogitCounts") -> "LogitCounts":
        return LogitCounts(self.counts + other.counts)

    @classmethod
    def of(cls, logits: np.ndarray, truth: np.ndarray) -> "LogitCounts":
        """Count the voxels of two arrays of one shape, the second bool."""
        places = np.rint((np.clip(logits, -_EDGE, _EDGE) + _EDGE) / _STEP).astype(int)
        size = len(_CENTRES)
        each = [np.bincount(places[truth == there], minlength=size) for there in (False, True)]
        return cls(np.stack(each).astype(np.float64))

    def temperature(self) -> float:
        """The temperature that makes the truth most likely; 1 where nothing was counted."""
        if not self.counts.any():
            return 1.0
        found = minimize_scalar(
            self._surprise, bounds=(math.log(_COLDEST), math.log(_HOTTEST)), method="bounded"
        )
        return float(math.exp(found.x))

    def _surprise(self, log_temperature: float) -> float:
        """Cross-entropy, in nats."""
        logits = _CENTRES / math.exp(log_temperature)
        absent, present = self.counts
        return float(absent @ np.logaddexp(0, logits) + present @ np.logaddexp(0, -logits))

    def expected_error(self, temperature: float = 1.0) -> float | None:
        """Expected calibration error: the mean distance of probability and frequency.

        Over 15 bins of probability of equal width, weighted by the voxels in each. Only voxels
        to which the network as trained gives 1 % or more: the rest of a scan, where everything
        is certain, would make every model look calibrated. None where there are none.
        """
        counts = self.counts * (_CENTRES >= _LEAST)
        total = counts.sum()
        if not total:
            return None
        probability = 1.0 / (1.0 + np.exp(-_CENTRES / temperature))
        bins = np.minimum((probability * _BINS).astype(int), _BINS - 1)
        there = np.bincount(bins, counts[1], _BINS)
        expected = np.bincount(bins, counts.sum(axis=0) * probability, _BINS)
        return float(np.abs(there - expected).sum() / total)


@dataclass(frozen=True)
class Calibration:
    """What a cross-validation says of a model's probabilities.

    Parameters
    ----------
    temperature
        Fitted on all held-out patients together: what the model gets.
    before, after
        Expected calibration error of each fold, by the names of its patients: as it is, and
        with a temperature that was fitted on the other folds.
    """

    temperature: float
    before: Mapping[str, float]
    after: Mapping[str, float]

    def lines(self) -> list[str]:
        """For a model card."""
        rows = [f"| {who} | {self.before[who]:.3f} | {self.after[who]:.3f} |"
                for who in self.before]  # fmt: skip
        return [
            f"Logits are divided by {self.temperature:.2f}. Expected calibration error on the",
            "patients of each fold, over voxels with a probability of 1 % or more; the",
            "temperature is that of the other folds:",
            "",
            "| held out | as trained | calibrated |",
            "|---|---|---|",
            *rows,
        ]


def calibrated(folds: Sequence[tuple[str, LogitCounts]]) -> Calibration | None:
    """Fit a temperature on held-out patients, and judge it across the folds.

    Parameters
    ----------
    folds
        The names of a fold's patients, and what its network answered on them.

    Returns
    -------
    Calibration or None
        None where fewer than two folds have voxels to count.
    """
    known = [(who, counts) for who, counts in folds if counts.expected_error() is not None]
    if len(known) < 2:
        return None
    before, after = {}, {}
    for who, counts in known:
        others = _sum(other for name, other in known if name != who)
        before[who] = counts.expected_error() or 0.0
        after[who] = counts.expected_error(others.temperature()) or 0.0
    return Calibration(_sum(counts for _, counts in known).temperature(), before, after)


def _sum(parts: Iterable[LogitCounts]) -> LogitCounts:
    total = LogitCounts.nothing()
    for part in parts:
        total = total + part
    return total
