"""What an evaluation found: a row for each organ of each scan and of each slice, and means.

Evaluations of several models, each on scans that it has not seen, are merged into one.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from gitract.bootstrap import FEWEST_PATIENTS, Interval, mean_interval
from gitract.competition_score import (
    CompetitionScore,
    EmptyPairs,
    Reading,
    ScanParts,
    competition_score,
)
from gitract.errors import InputError
from gitract.metrics import patient_means
from gitract.organs import Organ
from gitract.slice_pictures import Gallery

__all__ = ["ALL_ORGANS", "METRICS", "Evaluation", "Mean", "Metric", "OrganScore", "SliceScore"]

ALL_ORGANS = "all_organs"
"""The key of the mean over organs in a summary."""


class Metric(NamedTuple):
    """A number of an `OrganScore` that is worth a mean: its name, title and decimals."""

    name: str
    title: str
    decimals: int


METRICS = (
    Metric("dice", "Dice", 3),
    Metric("iou", "IoU", 3),
    Metric("slice_dice", "Slice Dice", 3),
    Metric("hd95_mm", "HD95, mm", 1),
    Metric("surface_dice_1mm", "Surface Dice 1 mm", 3),
    Metric("surface_dice_2mm", "Surface Dice 2 mm", 3),
    Metric("surface_dice_3mm", "Surface Dice 3 mm", 3),
    Metric("absolute_volume_error_ml", "Volume off, mL", 1),
    Metric("absolute_volume_error_percent", "Volume off, %", 0),
)


@dataclass(frozen=True)
class OrganScore:
    """One organ of one labelled scan, on the scan's own grid.

    What cannot be measured is None and does not enter means: everything but volumes and
    slices where neither prediction nor truth holds the organ; HD95 also where only one does
    (Dice, IoU and surface Dice are 0 there, and the organ counts as missed or invented).

    Parameters
    ----------
    model
        Id of the model that made the prediction.
    patient, scan, organ
        ``case20``, ``case20_day0``, ``stomach``.
    slices, organ_slices
        Of the scan; those of them that hold the organ in truth.
    dice, iou
        Over all voxels of the scan.
    slice_dice
        Mean Dice over slices that are not empty in both.
    hd95_mm, surface_dice_1mm, surface_dice_2mm, surface_dice_3mm
        As `gitract.surface` explains; runs of slices are measured one by one and pooled.
    volume_ml, true_volume_ml
        Of prediction and truth.
    missed_slices, invented_slices
        Slices with the organ in truth alone, and in the prediction alone.
    missed, invented
        The same for the whole scan.
    """

    model: str
    patient: str
    scan: str
    organ: str
    slices: int
    organ_slices: int
    dice: float | None
    iou: float | None
    slice_dice: float | None
    hd95_mm: float | None
    surface_dice_1mm: float | None
    surface_dice_2mm: float | None
    surface_dice_3mm: float | None
    volume_ml: float
    true_volume_ml: float
    missed_slices: int
    invented_slices: int
    missed: bool
    invented: bool

    @property
    def volume_error_ml(self) -> float:
        """Predicted less true volume, mL."""
        return self.volume_ml - self.true_volume_ml

    @property
    def volume_error_percent(self) -> float | None:
        """The same in percent of the true volume; None where that is 0."""
        return 100 * self.volume_error_ml / self.true_volume_ml if self.true_volume_ml else None

    @property
    def absolute_volume_error_ml(self) -> float | None:
        """Without sign; None where neither prediction nor truth holds the organ."""
        return abs(self.volume_error_ml) if self.volume_ml or self.true_volume_ml else None

    @property
    def absolute_volume_error_percent(self) -> float | None:
        """Without sign; None where the true volume is 0."""
        return None if self.volume_error_percent is None else abs(self.volume_error_percent)

    def as_dict(self) -> dict[str, object]:
        """JSON-ready."""
        return asdict(self) | {
            "volume_error_ml": self.volume_error_ml,
            "volume_error_percent": self.volume_error_percent,
        }


@dataclass(frozen=True, slots=True)
class SliceScore:
    """One organ of one slice.

    Parameters
    ----------
    patient, scan, organ
        As in `OrganScore`.
    slice
        0-based, among the slices of the scan that are labelled.
    number
        The competition's 1-based number, where the scan has them.
    dice, iou
        None where neither prediction nor truth holds the organ.
    area_mm2, true_area_mm2
        Of prediction and truth.
    """

    patient: str
    scan: str
    organ: str
    slice: int
    number: int | None
    dice: float | None
    iou: float | None
    area_mm2: float
    true_area_mm2: float

    @property
    def missed(self) -> bool:
        """The truth holds the organ, the prediction does not."""
        return bool(self.true_area_mm2) and not self.area_mm2

    @property
    def invented(self) -> bool:
        """The prediction holds the organ, the truth does not."""
        return bool(self.area_mm2) and not self.true_area_mm2

    def as_dict(self) -> dict[str, object]:
        """JSON-ready."""
        return asdict(self) | {"missed": self.missed, "invented": self.invented}


@dataclass(frozen=True)
class Mean:
    """Mean over patients of the mean over each patient's scans.

    `interval` is None with fewer than three patients; `patients` and `scans` are those that
    have a value.
    """

    value: float
    interval: Interval | None
    patients: int
    scans: int

    def as_dict(self) -> dict[str, object]:
        """JSON-ready."""
        return asdict(self) | {"interval": self.interval and list(self.interval)}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of one or several models on labelled scans.

    Parameters
    ----------
    organs
        Those judged.
    scores, slices
        A row for each organ of each scan, and of each slice.
    competition_parts
        What each scan adds to the competition's score.
    gallery
        Pictures of slices.
    unknown
        Organs that were outlined and that the model does not know, with the number of scans.
    faults
        Why scans were left out or used in part, a sentence each.
    """

    organs: tuple[Organ, ...]
    scores: tuple[OrganScore, ...]
    slices: tuple[SliceScore, ...]
    competition_parts: tuple[ScanParts, ...]
    gallery: Gallery = field(default_factory=Gallery)
    unknown: Mapping[str, int] = field(default_factory=dict)
    faults: tuple[str, ...] = ()

    @classmethod
    def merged(cls, parts: Iterable["Evaluation"]) -> "Evaluation":
        """Put evaluations together, such as those of the folds of a cross-validation.

        Raises
        ------
        InputError
            They hold nothing, or a scan twice.
        """
        scores: list[OrganScore] = []
        slices: list[SliceScore] = []
        competition: list[ScanParts] = []
        organs: dict[str, Organ] = {}
        gallery = Gallery()
        unknown: Counter[str] = Counter()
        faults: list[str] = []
        for part in parts:
            scores += part.scores
            slices += part.slices
            competition += part.competition_parts
            organs |= {organ.name: organ for organ in part.organs}
            unknown.update(part.unknown)
            faults += part.faults
            for picture in part.gallery:  # at once, so that few are held
                gallery.add(picture)
        _check_scored_once(scores)
        return cls(
            organs=tuple(sorted(organs.values(), key=lambda organ: organ.id)),
            scores=tuple(scores),
            slices=tuple(slices),
            competition_parts=tuple(competition),
            gallery=gallery,
            unknown=unknown,
            faults=tuple(faults),
        )

    @classmethod
    def read(cls, path: Path) -> "Evaluation":
        """Read what `as_dict` gave, written as JSON; without pictures.

        Raises
        ------
        InputError
            The file cannot be read, or is no evaluation.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            parts = [
                ScanParts(**part | {"hausdorff_a": tuple(part["hausdorff_a"])})
                for part in content["competition_parts"]
            ]
            return cls(
                organs=tuple(Organ(**organ) for organ in content["organs"]),
                scores=tuple(_row(OrganScore, row) for row in content["scores"]),
                slices=tuple(_row(SliceScore, row) for row in content["slices"]),
                competition_parts=tuple(parts),
                unknown=content["unknown"],
                faults=tuple(content["faults"]),
            )
        except OSError as error:
            raise InputError(f"The scores {path} cannot be read: {error.strerror}.") from error
        except (ValueError, LookupError, TypeError) as error:
            raise InputError(
                f"{path} is not a file of scores that `gitract evaluate --json-file` writes."
            ) from error

    @property
    def models(self) -> tuple[str, ...]:
        """Ids of the models, each once."""
        return tuple(dict.fromkeys(score.model for score in self.scores))

    @property
    def patients(self) -> tuple[str, ...]:
        """Names of the patients, each once."""
        return tuple(dict.fromkeys(score.patient for score in self.scores))

    @property
    def scans(self) -> tuple[str, ...]:
        """Names of the scans, each once."""
        return tuple(dict.fromkeys(score.scan for score in self.scores))

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader should know of these numbers, a sentence each."""
        remarks = list(self.faults)
        remarks += [
            f"The model does not know {name}: its contours on "
            f"{scans} {'scan' if scans == 1 else 'scans'} were left out."
            for name, scans in self.unknown.items()
        ]
        if len(self.patients) < FEWEST_PATIENTS:
            remarks.append(
                f"Fewer than {FEWEST_PATIENTS} patients: no confidence interval can be given."
            )
        return tuple(remarks)

    def mean(self, metric: str, organ: str | None = None) -> Mean | None:
        """Mean of a metric over patients, with its interval.

        Parameters
        ----------
        metric
            Name of a number of `OrganScore`.
        organ
            Name of the organ; None for the mean over organs of their means.

        Returns
        -------
        Mean or None
            None where no scan has a value.
        """
        names = [one.name for one in self.organs] if organ is None else [organ]
        values = np.full((len(self.patients), len(names)), np.nan)
        for column, name in enumerate(names):
            for patient, value in self.by_patient(metric, name).items():
                values[self.patients.index(patient), column] = value
        known = ~np.isnan(values)
        if not known.any():
            return None
        means = [
            float(values[known[:, i], i].mean()) for i in range(len(names)) if known[:, i].any()
        ]
        scans = {
            score.scan
            for score in self.scores
            if score.organ in names and getattr(score, metric) is not None
        }
        return Mean(
            float(np.mean(means)), mean_interval(values), int(known.any(axis=1).sum()), len(scans)
        )

    def by_patient(self, metric: str, organ: str) -> dict[str, float]:
        """Mean of a metric over each patient's scans, by patient; without those that have none."""
        return patient_means(
            (score.patient, getattr(score, metric)) for score in self.scores if score.organ == organ
        )

    @property
    def mean_dice(self) -> dict[str, float]:
        """Mean over patients of the 3-D Dice, by organ name."""
        means = {organ.name: self.mean("dice", organ.name) for organ in self.organs}
        return {name: mean.value for name, mean in means.items() if mean is not None}

    def summary(self) -> dict[str, dict[str, Mean | None]]:
        """Mean of each of `METRICS` by organ name, and over organs under `ALL_ORGANS`."""
        keys = {organ.name: organ.name for organ in self.organs} | {ALL_ORGANS: None}
        return {
            key: {metric.name: self.mean(metric.name, organ) for metric in METRICS}
            for key, organ in keys.items()
        }

    def counts(self) -> dict[str, dict[str, int]]:
        """By organ name: scans and slices that hold it, and how many were missed or invented."""
        return {organ.name: _counts(self.scores, organ.name) for organ in self.organs}

    def competition(
        self, reading: Reading = "A", empty_pairs: EmptyPairs = "skip"
    ) -> CompetitionScore | None:
        """The competition's score, as `gitract.competition_score` explains it."""
        return competition_score(self.competition_parts, reading=reading, empty_pairs=empty_pairs)

    def median_slice_dice(self, organ: str) -> float | None:
        """Median Dice of an organ over slices that are not empty in both."""
        values = [s.dice for s in self.slices if s.organ == organ and s.dice is not None]
        return float(np.median(values)) if values else None

    def as_dict(self, reading: Reading = "A") -> dict[str, object]:
        """JSON-ready: everything but the pictures; `read` takes it back."""
        competition = self.competition(reading)
        return {
            "models": list(self.models),
            "organs": [asdict(organ) for organ in self.organs],
            "patients": {
                patient: {
                    organ.name: {
                        metric.name: self.by_patient(metric.name, organ.name).get(patient)
                        for metric in METRICS
                    }
                    for organ in self.organs
                }
                for patient in self.patients
            },
            "summary": {
                organ: {name: mean and mean.as_dict() for name, mean in means.items()}
                for organ, means in self.summary().items()
            },
            "counts": self.counts(),
            "competition": competition and competition.as_dict(),
            "competition_parts": [asdict(part) for part in self.competition_parts],
            "remarks": list(self.remarks),
            "unknown": dict(self.unknown),
            "faults": list(self.faults),
            "scores": [score.as_dict() for score in self.scores],
            "slices": [score.as_dict() for score in self.slices],
        }


_Row = TypeVar("_Row", OrganScore, SliceScore)


def _row(kind: type[_Row], content: Mapping[str, Any]) -> _Row:
    """A row from its dictionary, which holds derived numbers besides."""
    return kind(**{one.name: content[one.name] for one in fields(kind)})


def _check_scored_once(scores: Sequence[OrganScore]) -> None:
    if not scores:
        raise InputError(
            "There is nothing to judge: no scan has contours of an organ that the model knows."
        )
    times = Counter((score.scan, score.organ) for score in scores)
    (scan, _), most = times.most_common(1)[0]
    if most > 1:
        raise InputError(f"{scan} is scored {most} times: score each scan once.")


def _counts(scores: Sequence[OrganScore], organ: str) -> dict[str, int]:
    own = [score for score in scores if score.organ == organ]
    return {
        "scans": sum(score.organ_slices > 0 for score in own),
        "missed": sum(score.missed for score in own),
        "invented": sum(score.invented for score in own),
        "slices": sum(score.organ_slices for score in own),
        "missed_slices": sum(score.missed_slices for score in own),
        "invented_slices": sum(score.invented_slices for score in own),
    }
