"""The score of the UW-Madison GI Tract competition (Kaggle, 2022).

score = 0.4 * D + 0.6 * (1 - H)

D is the mean Dice over all pairs of a slice and an organ. H is the mean normalised 3-D
Hausdorff distance over scans: between the *sets of all voxels* of prediction and truth, not
between surfaces, so that a hole that is filled counts too. It knows no millimetres.

The code that the competition ran was never published. What is known leaves choices, and each
is made here:

- A pair of a slice and an organ that is empty in both is skipped, as the host said in the
  competition's discussion (324934); ``empty_pairs="zero"`` counts it as 0, as the page of the
  metric says. A pair that is empty in one of the two scores 0 and counts.
- Reading A, that of the participants' code: one distance for each organ of a scan, in voxels,
  with a slice as far from the next as a pixel is, divided by the diagonal of the volume,
  ``sqrt(slices² + rows² + columns²)``.
- Reading B, that of the benchmark mle-bench: one distance for each scan, of all organs
  together as one mask; coordinates are divided by the shape of the volume, and the distance
  by the diagonal of the unit cube, ``sqrt(3)``. A prediction of more than ten times as many
  voxels as the truth has is at distance 1.
- In both, a distance is 0 where the masks are identical, 1 where exactly one is empty, and
  is skipped where both are.
- An organ that nobody outlined on a scan takes part in neither mean.
- A scan that lacks slices is measured as the slices that it has, one on another: the
  competition's tables tell no gaps. Slices of another size are a volume of their own, and the
  scan's distance is that of the farthest.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from gitract.bootstrap import Interval, bootstrap_interval
from gitract.metrics import dice
from gitract.surface import occupied_window

__all__ = [
    "CompetitionScore",
    "EmptyPairs",
    "MaskPair",
    "Reading",
    "ScanParts",
    "competition_parts",
    "competition_score",
    "hausdorff_a",
    "hausdorff_b",
]

Reading = Literal["A", "B"]
EmptyPairs = Literal["skip", "zero"]

DICE_WEIGHT = 0.4
_LARGEST_RATIO = 10


class MaskPair(NamedTuple):
    """Prediction and truth of one organ on one run of slices: bool (slice, row, column)."""

    prediction: np.ndarray
    truth: np.ndarray


@dataclass(frozen=True)
class ScanParts:
    """What one scan adds to the score.

    Parameters
    ----------
    patient
        Whose scan it is.
    dice
        Sum of the Dice of all pairs of a slice and an organ that are not empty in both.
    pairs, empty_pairs
        How many such pairs, and how many that are empty in both.
    hausdorff_a
        Normalised distance of each organ that is not empty in both, by reading A.
    hausdorff_b
        That of all organs together by reading B; None where all are empty in both.
    """

    patient: str
    dice: float
    pairs: int
    empty_pairs: int
    hausdorff_a: tuple[float, ...]
    hausdorff_b: float | None

    def sums(self, reading: Reading, empty_pairs: EmptyPairs) -> tuple[float, ...]:
        """Sum and number of the Dice, then of the distances, that count."""
        distances = self.hausdorff_a
        if reading == "B":
            distances = () if self.hausdorff_b is None else (self.hausdorff_b,)
        pairs = self.pairs + (self.empty_pairs if empty_pairs == "zero" else 0)
        return self.dice, pairs, sum(distances), len(distances)


@dataclass(frozen=True)
class CompetitionScore:
    """The score and its parts.

    Parameters
    ----------
    score
        0.4 * dice + 0.6 * (1 - hausdorff).
    dice, hausdorff
        The two means; the second is a distance, 0 the best.
    interval
        95 % over patients; None with fewer than three.
    reading, empty_pairs
        Which reading of the rules.
    pairs, distances
        How many numbers each of the means is of.
    """

    score: float
    dice: float
    hausdorff: float
    interval: Interval | None
    reading: Reading
    empty_pairs: EmptyPairs
    pairs: int
    distances: int

    def as_dict(self) -> dict[str, object]:
        """JSON-ready."""
        return asdict(self) | {"interval": self.interval and list(self.interval)}


def competition_score(
    parts: Iterable[ScanParts], *, reading: Reading = "A", empty_pairs: EmptyPairs = "skip"
) -> CompetitionScore | None:
    """The score of all scans together.

    Parameters
    ----------
    parts
        Of each scan.
    reading
        ``A`` or ``B``: which Hausdorff distance, as the module explains.
    empty_pairs
        ``skip`` leaves out pairs of a slice and an organ that are empty in both; ``zero``
        counts them as a Dice of 0.

    Returns
    -------
    CompetitionScore or None
        None where nothing counts: every organ is empty in prediction and truth.
    """
    by_patient: dict[str, npt.NDArray[np.float64]] = {}
    for part in parts:
        sums = np.array(part.sums(reading, empty_pairs))
        by_patient[part.patient] = by_patient.get(part.patient, np.zeros(4)) + sums
    rows = np.stack([np.zeros(4), *by_patient.values()])[1:]
    dice_sum, pairs, distance_sum, distances = rows.sum(axis=0)
    if not pairs or not distances:
        return None
    counted = rows[rows[:, 1] > 0]
    return CompetitionScore(
        score=float(_score(rows.sum(axis=0))),
        dice=float(dice_sum / pairs),
        hausdorff=float(distance_sum / distances),
        interval=bootstrap_interval(len(counted), lambda drawn: _score(counted[drawn].sum(axis=1))),
        reading=reading,
        empty_pairs=empty_pairs,
        pairs=int(pairs),
        distances=int(distances),
    )


def _score(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The score of sums and numbers ``(..., 4)``; NaN where nothing counts."""
    dice_sum, pairs, distance_sum, distances = np.moveaxis(sums, -1, 0)
    with np.errstate(invalid="ignore"):
        return np.asarray(
            DICE_WEIGHT * dice_sum / pairs + (1 - DICE_WEIGHT) * (1 - distance_sum / distances)
        )


def competition_parts(patient: str, runs: Sequence[Mapping[str, MaskPair]]) -> ScanParts:
    """Measure one scan.

    Parameters
    ----------
    patient
        Whose scan it is.
    runs
        For each run of consecutive slices, the masks of each organ that was outlined on it,
        by name.
    """
    scores = [
        dice(prediction, truth)
        for run in runs
        for masks in run.values()
        for prediction, truth in zip(*masks, strict=True)
    ]
    counted = [score for score in scores if score is not None]
    organs = {name: None for run in runs for name in run}
    distances = [_farthest([run[name] for run in runs if name in run], "A") for name in organs]
    return ScanParts(
        patient=patient,
        dice=float(sum(counted)),
        pairs=len(counted),
        empty_pairs=len(scores) - len(counted),
        hausdorff_a=tuple(distance for distance in distances if distance is not None),
        hausdorff_b=_farthest([_united(run.values()) for run in runs if run], "B"),
    )


def _united(organs: Iterable[MaskPair]) -> MaskPair:
    predictions, truths = zip(*organs, strict=True)
    return MaskPair(np.logical_or.reduce(predictions), np.logical_or.reduce(truths))


def _volumes(runs: Iterable[MaskPair]) -> Iterator[MaskPair]:
    """Runs of slices of one size, one on another."""
    by_size: dict[tuple[int, ...], list[MaskPair]] = defaultdict(list)
    for run in runs:
        by_size[run.truth.shape[1:]].append(run)
    for same in by_size.values():
        predictions, truths = zip(*same, strict=True)
        yield MaskPair(np.concatenate(predictions), np.concatenate(truths))


def _farthest(runs: Iterable[MaskPair], reading: Reading) -> float | None:
    measure = hausdorff_a if reading == "A" else hausdorff_b
    found = [measure(*volume) for volume in _volumes(runs)]
    return max((distance for distance in found if distance is not None), default=None)


def hausdorff_a(prediction: np.ndarray, truth: np.ndarray) -> float | None:
    """Symmetric Hausdorff distance in voxels, divided by the diagonal of the volume.

    Parameters
    ----------
    prediction, truth
        ``bool`` ``(slice, row, column)``, of one organ.

    Returns
    -------
    float or None
        0 (identical) to 1 (exactly one is empty); None where both are empty.
    """
    if prediction.any() != truth.any():
        return 1.0
    if not truth.any():
        return None
    diagonal = float(np.linalg.norm(truth.shape))
    return _hausdorff(prediction, truth, (1.0, 1.0, 1.0)) / diagonal


def hausdorff_b(prediction: np.ndarray, truth: np.ndarray) -> float | None:
    """Symmetric Hausdorff distance in the unit cube, divided by its diagonal.

    Parameters
    ----------
    prediction, truth
        ``bool`` ``(slice, row, column)``, of all organs together.

    Returns
    -------
    float or None
        0 (identical) to 1 (exactly one is empty, or the prediction has more than ten times
        as many voxels as the truth); None where both are empty.
    """
    if prediction.any() != truth.any():
        return 1.0
    if not truth.any():
        return None
    if np.count_nonzero(prediction) > _LARGEST_RATIO * np.count_nonzero(truth):
        return 1.0
    slices, rows, columns = truth.shape
    cube = (1.0 / slices, 1.0 / rows, 1.0 / columns)
    return _hausdorff(prediction, truth, cube) / float(np.sqrt(3.0))


def _hausdorff(prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, ...]) -> float:
    """Symmetric Hausdorff distance of two sets of voxels, neither of them empty."""
    window = occupied_window(prediction | truth)
    ours, theirs = prediction[window], truth[window]
    return max(_directed(ours, theirs, spacing), _directed(theirs, ours, spacing))


def _directed(start: np.ndarray, target: np.ndarray, spacing: tuple[float, ...]) -> float:
    """From the voxel of `start` that is farthest from `target` to the nearest one there."""
    outside = start & ~target
    if not outside.any():
        return 0.0
    return float(ndimage.distance_transform_edt(~target, sampling=spacing)[outside].max())
