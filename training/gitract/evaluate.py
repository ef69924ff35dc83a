"""How well a model does on labelled scans, by patient."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from gitract.data import labelled_runs
from gitract.errors import InputError
from gitract.metrics import dice, mean_over_patients, mean_slice_dice
from gitract.predict import Segmenter
from gitract.progress import Progress, Report, silent

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

    A day that lacks slices is scored run by run.

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
    scores: list[OrganScore] = []
    for scan, truth in labelled_runs(data, cases):

        def for_scan(progress: Progress, name: str = scan.name) -> None:
            report(Progress(progress.done, progress.total, f"{name}: {progress.message}"))

        found = segmenter.segment(scan, report=for_scan)
        masks = {organ.id: mask for organ, mask in zip(found.organs, found.masks, strict=True)}
        for organ, mask in zip(truth.organs, truth.masks, strict=True):
            answer = masks.get(organ.id, np.zeros_like(mask))
            scores.append(
                OrganScore(
                    patient=scan.name.split("_")[0],
                    scan=scan.name,
                    slices=len(mask),
                    organ=organ.name,
                    dice=dice(answer, mask),
                    slice_dice=mean_slice_dice(answer, mask),
                    volume_ml=found.volumes_ml.get(organ.name, 0.0),
                    true_volume_ml=truth.volumes_ml[organ.name],
                )
            )
    if not scores:
        raise InputError(f"{data} holds no labelled scans.")
    return scores


def mean_by_organ(scores: Sequence[OrganScore]) -> dict[str, float]:
    """Mean over patients of the mean 3-D Dice over their scans, by organ name."""
    return mean_over_patients((score.patient, score.organ, score.dice) for score in scores)
