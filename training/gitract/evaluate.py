"""How well a model, or ready masks, do on labelled scans."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gitract.competition_score import MaskPair, competition_parts
from gitract.errors import InputError
from gitract.evaluation import Evaluation, OrganScore, SliceScore
from gitract.labelled import Fault, LabelledScan, chosen_cases, find_labelled
from gitract.metrics import Overlap, mean_known
from gitract.organs import ORGANS, Organ
from gitract.progress import Progress, Report, prefixed, silent
from gitract.recipe import Source
from gitract.scan import Scan, Segmentation
from gitract.slice_pictures import Gallery, SlicePicture, slice_picture
from gitract.surface import SurfaceDistances, surface_distances

if TYPE_CHECKING:
    from gitract.predict import Segmenter

__all__ = [
    "Evaluation",
    "JudgedRun",
    "JudgedScan",
    "evaluate",
    "evaluate_scans",
    "score_scan",
    "score_scans",
]

_PICTURES = 5


class JudgedRun(NamedTuple):
    """Consecutive slices of a scan, what was predicted on them and what is true."""

    scan: Scan
    prediction: Segmentation
    truth: Segmentation


@dataclass(frozen=True, eq=False)
class JudgedScan:
    """A scan to score: all its runs of slices, which a scan that lacks slices has several of.

    Parameters
    ----------
    name, patient
        ``case20_day0``, ``case20``.
    runs
        Prediction and truth lie on the grid of the run's scan. An organ that either does not
        have among its organs is not judged there.
    model
        Id of the model that made the prediction.
    """

    name: str
    patient: str
    runs: tuple[JudgedRun, ...]
    model: str = ""


def evaluate(
    segmenter: "Segmenter",
    data: Path,
    *,
    cases: Sequence[str] | None = None,
    sources: Sequence[Source] = (),
    report: Report = silent,
) -> Evaluation:
    """Score a model on the labelled scans of a folder, one after another.

    Parameters
    ----------
    segmenter
        The model.
    data
        Holds labelled scans.
    cases
        Only these patients or scans; None for all.
    sources
        What is in the folder; none: what is found there.
    report
        Called for each batch of each scan, and for each organ that is scored.

    Raises
    ------
    InputError
        The folder holds no labelled scan, a case is not there, no scan can be used, or none
        has contours of an organ that the model knows.
    """
    ours = segmenter.config.organs
    # The usual ones besides, so that it is said where the model does not know one.
    organs = tuple({organ.name: organ for organ in (*ORGANS, *ours)}.values())
    faults: list[Fault] = []
    found = find_labelled(data, sources, organs, report, faults.append)
    evaluation = evaluate_scans(segmenter, chosen_cases(found, cases), report=report)
    said = (fault.sentence for fault in faults if cases is None or fault.scan in cases)
    return replace(evaluation, faults=(*said, *evaluation.faults))


def evaluate_scans(
    segmenter: "Segmenter", scans: Sequence[LabelledScan], *, report: Report = silent
) -> Evaluation:
    """Score a model on these scans, one after another.

    One that cannot be read or segmented is left out, and the evaluation's faults say so.

    Parameters
    ----------
    segmenter
        The model.
    scans
        Labelled scans that were found already.
    report
        As for `evaluate`.

    Raises
    ------
    InputError
        No scan can be used, or none has contours of an organ that the model knows.
    """
    faults: list[str] = []

    def judged() -> Iterator[JudgedScan]:
        for number, scan in enumerate(scans, start=1):
            for_scan = prefixed(report, f"{scan.name} ({number} of {len(scans)})")
            try:
                runs = tuple(
                    JudgedRun(run.scan, segmenter.segment(run.scan, report=for_scan), run.truth)
                    for run in scan.read(for_scan)
                )
            except InputError as error:
                faults.append(str(error))
                continue
            yield JudgedScan(scan.name, scan.patient, runs, segmenter.model.id)

    try:
        evaluation = score_scans(judged(), report)
    except InputError as error:
        raise InputError(faults[0] if faults else str(error)) from error
    return replace(evaluation, faults=tuple(faults))


def score_scans(scans: Iterable[JudgedScan], report: Report = silent) -> Evaluation:
    """Score predictions that are there already, scan by scan.

    Only one scan at a time is held, however many the iterable gives.

    Parameters
    ----------
    scans
        Each scan once; the models may differ.
    report
        Called for each organ of each scan.

    Raises
    ------
    InputError
        A prediction lies on another grid than its scan, a scan comes twice, or no organ can
        be judged.
    """
    return Evaluation.merged(score_scan(scan, report) for scan in scans)


def score_scan(judged: JudgedScan, report: Report = silent) -> Evaluation:
    """Score one scan; empty where no organ can be judged.

    Raises
    ------
    InputError
        A prediction or a truth lies on another grid than its scan.
    """
    outlined = {organ.name: organ for run in judged.runs for organ in run.truth.organs}
    runs = [_pairs(run) for run in judged.runs]
    known = {name for run in runs for name in run}
    organs = tuple(organ for name, organ in outlined.items() if name in known)
    scores: list[OrganScore] = []
    slices: list[SliceScore] = []
    gallery = Gallery()
    for done, organ in enumerate(organs):
        message = f"{judged.name}: scoring {organ.title.lower()}"
        report(Progress(done, len(organs), message))
        rows = _slice_rows(judged, runs, organ)
        slices += [row.score for row in rows]
        scores.append(_organ_score(judged, runs, organ, rows))
        for picture in _pictures(judged, organ, rows):
            gallery.add(picture)
    return Evaluation(
        organs=organs,
        scores=tuple(scores),
        slices=tuple(slices),
        competition_parts=(competition_parts(judged.patient, runs),) if organs else (),
        gallery=gallery,
        unknown={name: 1 for name in outlined if name not in known},
    )


def _pairs(run: JudgedRun) -> dict[str, MaskPair]:
    """The masks of each organ that was outlined and that the model knows, by name."""
    for segmentation in (run.prediction, run.truth):
        if segmentation.shape != run.scan.shape:
            raise InputError(
                f"The masks {segmentation.name!r} of {segmentation.shape} voxels do not lie on "
                f"{run.scan.name!r} of {run.scan.shape}: score them on the scan's own grid."
            )
    predicted = {
        organ.name: mask
        for organ, mask in zip(run.prediction.organs, run.prediction.masks, strict=True)
    }
    return {
        organ.name: MaskPair(predicted[organ.name], mask)
        for organ, mask in zip(run.truth.organs, run.truth.masks, strict=True)
        if organ.name in predicted
    }


class _SliceRow(NamedTuple):
    """The score of an organ on one slice, and which slice of which run that is."""

    score: SliceScore
    overlap: Overlap
    run: int
    position: int
    masks: MaskPair


def _slice_rows(
    judged: JudgedScan, runs: Sequence[Mapping[str, MaskPair]], organ: Organ
) -> list[_SliceRow]:
    rows: list[_SliceRow] = []
    before = 0
    for number, (run, pairs) in enumerate(zip(judged.runs, runs, strict=True)):
        if organ.name in pairs:
            for index, masks in enumerate(map(MaskPair, *pairs[organ.name])):
                overlap = Overlap.of(*masks)
                score = _slice_score(judged, run.scan, organ, before, index, overlap)
                rows.append(_SliceRow(score, overlap, number, index, masks))
        before += len(run.scan.voxels)
    return rows


def _slice_score(
    judged: JudgedScan, scan: Scan, organ: Organ, before: int, index: int, overlap: Overlap
) -> SliceScore:
    pixel_mm2 = scan.spacing[1] * scan.spacing[2]
    return SliceScore(
        patient=judged.patient,
        scan=judged.name,
        organ=organ.name,
        slice=before + index,
        number=scan.slice_numbers[index] if scan.slice_numbers else None,
        dice=overlap.dice,
        iou=overlap.iou,
        area_mm2=overlap.predicted * pixel_mm2,
        true_area_mm2=overlap.true * pixel_mm2,
    )


def _organ_score(
    judged: JudgedScan,
    runs: Sequence[Mapping[str, MaskPair]],
    organ: Organ,
    rows: Sequence[_SliceRow],
) -> OrganScore:
    """Score one organ on all runs of slices of a scan together."""
    total = Overlap.total(row.overlap for row in rows)
    surfaces = SurfaceDistances.pooled(
        surface_distances(*pairs[organ.name], run.scan.spacing)
        for run, pairs in zip(judged.runs, runs, strict=True)
        if organ.name in pairs
    )
    volume_ml, true_volume_ml = (
        sum(
            float(np.prod(judged.runs[row.run].scan.spacing)) / 1000 * row.overlap[which]
            for row in rows
        )
        for which in (0, 1)
    )
    return OrganScore(
        model=judged.model,
        patient=judged.patient,
        scan=judged.name,
        organ=organ.name,
        slices=len(rows),
        organ_slices=sum(row.overlap.true > 0 for row in rows),
        dice=total.dice,
        iou=total.iou,
        slice_dice=mean_known(row.overlap.dice for row in rows),
        hd95_mm=surfaces.hd95,
        surface_dice_1mm=surfaces.dice(1.0),
        surface_dice_2mm=surfaces.dice(2.0),
        surface_dice_3mm=surfaces.dice(3.0),
        volume_ml=volume_ml,
        true_volume_ml=true_volume_ml,
        missed_slices=sum(row.score.missed for row in rows),
        invented_slices=sum(row.score.invented for row in rows),
        missed=total.true > 0 and total.predicted == 0,
        invented=total.predicted > 0 and total.true == 0,
    )


def _pictures(
    judged: JudgedScan, organ: Organ, rows: Sequence[_SliceRow]
) -> Iterator[SlicePicture]:
    """Slices from the worst to the best of a scan, evenly spread over their ranks."""
    scored = sorted(
        ((row.overlap.dice, n) for n, row in enumerate(rows) if row.overlap.dice is not None)
    )
    ranks = np.linspace(0, len(scored) - 1, min(_PICTURES, len(scored))).round().astype(int)
    for dice, n in (scored[rank] for rank in ranks):
        row = rows[n]
        yield slice_picture(
            judged.runs[row.run].scan,
            row.position,
            *row.masks,
            patient=judged.patient,
            organ=organ,
            place=_place(row.score),
            dice=dice,
        )


def _place(score: SliceScore) -> str:
    file = "" if score.number in (None, score.slice + 1) else f", file {score.number}"
    return f"slice {score.slice}{file}"
