"""Confidence intervals by drawing patients.

Slices and scans of one patient resemble each other, so that drawing them one by one would
make intervals too narrow: patients are drawn with replacement, each with all their scans.
The ends are percentiles of what the draws give (Efron and Tibshirani, *An Introduction to
the Bootstrap*, 1993, chapter 13).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["FEWEST_PATIENTS", "Interval", "bootstrap_interval", "mean_interval"]

FEWEST_PATIENTS = 3
"""Below that no interval is given: draws from two patients say nothing of a third."""

_DRAWS = 2000
_LEVEL = 0.95


class Interval(NamedTuple):
    """The ends of a 95 % confidence interval."""

    low: float
    high: float


def bootstrap_interval(
    patients: int,
    statistic: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float64]],
    *,
    seed: int = 0,
) -> Interval | None:
    """Percentile interval of a statistic over 2000 draws of patients.

    Parameters
    ----------
    patients
        How many there are.
    statistic
        Gets the patients drawn, ``(draw, patient)``, each a number below `patients`; gives
        the statistic of each draw, NaN where a draw has none.
    seed
        Of the draws: the same seed gives the same interval.

    Returns
    -------
    Interval or None
        None with fewer than three patients.
    """
    if patients < FEWEST_PATIENTS:
        return None
    drawn = np.random.default_rng(seed).integers(0, patients, (_DRAWS, patients))
    values = statistic(drawn)
    tail = 50.0 * (1.0 - _LEVEL)
    low, high = np.percentile(values[~np.isnan(values)], [tail, 100.0 - tail])
    return Interval(float(low), float(high))


def mean_interval(values: npt.NDArray[np.float64], *, seed: int = 0) -> Interval | None:
    """Interval of the mean over organs of the mean over patients.

    Parameters
    ----------
    values
        ``(patient, organ)``; NaN where a patient has no value. Patients without any are not
        counted.
    seed
        Of the draws.

    Returns
    -------
    Interval or None
        None with fewer than three patients.
    """
    known = values[~np.isnan(values).all(axis=1)]

    def mean(drawn: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        return _mean_of_known(_mean_of_known(known[drawn], axis=1), axis=1)

    return bootstrap_interval(len(known), mean, seed=seed)


def _mean_of_known(values: npt.NDArray[np.float64], axis: int) -> npt.NDArray[np.float64]:
    """Mean without NaN along an axis; NaN where nothing is known."""
    count = np.count_nonzero(~np.isnan(values), axis=axis)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nansum(values, axis=axis) / count)
