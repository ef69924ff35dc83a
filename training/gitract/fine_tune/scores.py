"""How answers compare with a person's contours, slice by slice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gitract.fine_tune.card import OrganChange
from gitract.fine_tune.pages import ReviewedScan
from gitract.fine_tune.parts import Place
from gitract.metrics import Overlap, mean_known
from gitract.organs import Organ
from gitract.surface import TOLERANCE_MM, surface_distances

__all__ = ["Answers", "changes_by_slice", "mean_dice", "organ_changes"]

Answers = Mapping[Place, npt.NDArray[np.bool_]]
"""Masks ``(organ, row, column)`` on the scan's grid, by place."""


@dataclass(frozen=True, eq=False)
class _Truth:
    """The contours of one slice, and the organs that are judged there."""

    masks: npt.NDArray[np.bool_]
    counts: npt.NDArray[np.bool_]  # (row, column): not to be ignored
    organs: npt.NDArray[np.bool_]


def _truth(scans: Sequence[ReviewedScan], place: Place, judged: npt.NDArray[np.bool_]) -> _Truth:
    scan, index = scans[place[0]], place[1]
    return _Truth(scan.masks[:, index], ~scan.ignored[index], scan.organs[index] & judged)


def _overlap(truth: _Truth, answer: npt.NDArray[np.bool_], organ: int) -> Overlap:
    if not truth.organs[organ]:
        return Overlap(0, 0, 0)
    counts = truth.counts
    return Overlap.of(answer[organ] & counts, truth.masks[organ] & counts)


def _dices(
    scans: Sequence[ReviewedScan], answers: Answers, judged: npt.NDArray[np.bool_]
) -> list[float | None]:
    """Dice of each organ over all slices together."""
    truths = {place: _truth(scans, place, judged) for place in answers}
    return [
        Overlap.total(
            _overlap(truths[place], answer, organ) for place, answer in answers.items()
        ).dice
        for organ in range(len(judged))
    ]


def mean_dice(
    scans: Sequence[ReviewedScan], answers: Answers, judged: npt.NDArray[np.bool_]
) -> float:
    """Mean over organs of the Dice over all slices together; 0 where there is nothing."""
    return mean_known(_dices(scans, answers, judged)) or 0.0


def changes_by_slice(
    scans: Sequence[ReviewedScan], before: Answers, after: Answers, judged: npt.NDArray[np.bool_]
) -> list[float]:
    """Change of the Dice of each slice, over all organs together.

    A slice on which there is nothing in the contours and in an answer counts as 1; one with
    nothing in either answer as well is left out.
    """
    changes = []
    for place, old in before.items():
        truth, organs = _truth(scans, place, judged), range(len(judged))
        dices = [
            Overlap.total(_overlap(truth, answer, organ) for organ in organs).dice
            for answer in (old, after[place])
        ]
        if dices != [None, None]:
            was, now = (1.0 if dice is None else dice for dice in dices)
            changes.append(now - was)
    return changes


def organ_changes(
    organs: Sequence[Organ],
    scans: Sequence[ReviewedScan],
    before: Answers,
    after: Answers,
    judged: npt.NDArray[np.bool_],
) -> tuple[OrganChange, ...]:
    """The rows of a card."""
    dices = _dices(scans, before, judged), _dices(scans, after, judged)
    return tuple(
        _organ_change(organ, number, scans, before, after, judged, dices[0][number],
                      dices[1][number])
        for number, organ in enumerate(organs)
    )  # fmt: skip


def _organ_change(
    organ: Organ,
    number: int,
    scans: Sequence[ReviewedScan],
    before: Answers,
    after: Answers,
    judged: npt.NDArray[np.bool_],
    dice_before: float | None,
    dice_after: float | None,
) -> OrganChange:
    slices, ml = 0, np.zeros(3)
    distances: list[list[float | None]] = [[], []]
    surfaces: list[list[float | None]] = [[], []]
    everywhere = np.ones_like(judged)
    for place, old in before.items():
        truth, scan = _truth(scans, place, everywhere), scans[place[0]].corrections.scan
        if not truth.organs[number]:
            continue
        masks = [m & truth.counts for m in (truth.masks[number], old[number], after[place][number])]
        slices += bool(masks[0].any())
        ml += np.array([mask.sum() for mask in masks]) * np.prod(scan.spacing) / 1000.0
        if judged[number] and all(mask.any() for mask in masks):
            for which, mask in enumerate(masks[1:]):
                found = surface_distances(mask, masks[0], _in_plane(scans[place[0]]))
                distances[which].append(found.hd95)
                surfaces[which].append(found.dice(TOLERANCE_MM))
    return OrganChange(
        organ, dice_before, dice_after, slices,
        mean_known(distances[0]), mean_known(distances[1]),
        mean_known(surfaces[0]), mean_known(surfaces[1]),
        float(ml[0]), float(ml[1]), float(ml[2]),
    )  # fmt: skip


def _in_plane(scan: ReviewedScan) -> tuple[float, float]:
    """Spacing of rows and columns of the upright slices, mm."""
    spacing = scan.turn.spacing(scan.corrections.scan.spacing)
    return spacing[1], spacing[2]
