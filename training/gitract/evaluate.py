"""How well a model does on labelled scans, by patient."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from gitract.data import labelled_runs
from gitract.errors import InputError
from gitract.metrics import dice, mean_over_patients, mean_slice_dice
from gitract.organs import Organ
from gitract.predict import Segmenter
from gitract.progress import Progress, Report, silent
from gitract.scan import Segmentation

__all__ = ["OrganScore", "evaluate", "mean_by_organ"]


@dataclass(frozen=True)
class OrganScore:
    """One organ of one labelled scan.

    Parameters
    ----------
    patient, scan, slices, organ
        ``case20``, ``case20_day0``, number of slices, ``stomach``.
    dice
        3-D Dice; None where neither has the organ.
    slice_dice
        Mean 2-D Dice over slices that are not empty in both.
    volume_ml, true_volume_ml
        Of the answer and of the truth.
    """

    patient: str
    scan: str
    slices: int
    organ: str
    dice: float | None
    slice_dice: float | None
    volume_ml: float
    true_volume_ml: float

    def as_dict(self) -> dict[str, object]:
        """JSON-ready."""
        return asdict(self)


def evaluate(
    segmenter: Segmenter,
    data: Path,
    *,
    cases: Sequence[str] | None = None,
    report: Report = silent,
) -> list[OrganScore]:
    """Score a model on the labelled scans of a folder in the competition's layout.

    A day that lacks slices is segmented run by run, and scored as one.

    Parameters
    ----------
    segmenter
        The model.
    data
        Holds ``train.csv`` and ``train/caseN/caseN_dayM/scans``.
    cases
        Only these patients or days.
    report
        Called for each batch of each scan.

    Raises
    ------
    InputError
        The folder holds no labelled scan, or a case is not there.
    """
    pairs: dict[str, list[tuple[Segmentation, Segmentation]]] = {}
    for scan, truth in labelled_runs(data, cases):

        def for_scan(progress: Progress, name: str = scan.name) -> None:
            report(Progress(progress.done, progress.total, f"{name}: {progress.message}"))

        found = segmenter.segment(scan, report=for_scan)
        pairs.setdefault(scan.name, []).append((found, truth))
    if not pairs:
        raise InputError(f"{data} holds no labelled scans.")
    return [
        _score(name, organ, runs) for name, runs in pairs.items() for organ in runs[0][1].organs
    ]


def _score(name: str, organ: Organ, runs: list[tuple[Segmentation, Segmentation]]) -> OrganScore:
    """Score one organ on all runs of slices of a scan together."""
    answer = np.concatenate([_mask(found, organ) for found, _ in runs])
    truth = np.concatenate([_mask(true, organ) for _, true in runs])
    return OrganScore(
        patient=name.split("_")[0],
        scan=name,
        slices=len(truth),
        organ=organ.name,
        dice=dice(answer, truth),
        slice_dice=mean_slice_dice(answer, truth),
        volume_ml=sum(found.volumes_ml.get(organ.name, 0.0) for found, _ in runs),
        true_volume_ml=sum(true.volumes_ml[organ.name] for _, true in runs),
    )


def _mask(segmentation: Segmentation, organ: Organ) -> np.ndarray:
    """The organ's mask; empty where the segmentation does not know the organ."""
    for known, mask in zip(segmentation.organs, segmentation.masks, strict=True):
        if known.id == organ.id:
            return mask
    return np.zeros(segmentation.shape, dtype=np.bool_)


def mean_by_organ(scores: Sequence[OrganScore]) -> dict[str, float]:
    """Mean over patients of the mean 3-D Dice over their scans, by organ name."""
    return mean_over_patients((score.patient, score.organ, score.dice) for score in scores)
