"""The proof: how a candidate does on slices that it was not trained on, and what it forgot."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy import stats

from gitract.metrics import mean_known
from gitract.organs import Organ

__all__ = ["Card", "OrganChange", "Retention", "Verdict", "concluded", "forgotten"]

Verdict = Literal["better", "no difference", "worse", "unproven"]

_BETTER, _WORSE = 0.005, -0.005  # mean change of Dice that is called a difference
_FORGOTTEN = -0.01  # mean change of Dice on replay scans that is called worse
_CHANCE = 0.1  # how likely a change this large may be by chance, to be called better
_TESTABLE = 4  # slices; with fewer no gain is unlikely enough


@dataclass(frozen=True)
class OrganChange:
    """One organ over all held-out slices together, before and after.

    Numbers are None where they cannot be told. Of all of them: neither the contours nor the
    model have the organ there, or it is on slices of one part alone. Of surfaces: no slice
    has the organ in the contours and in both answers.

    Parameters
    ----------
    organ
        Which.
    before, after
        Dice.
    slices
        How many of the held-out slices it was contoured on.
    hd95_before, hd95_after
        Mean over slices of the 95th percentile of the distance between contours, mm.
    surface_before, surface_after
        Mean over slices of the surface Dice at `gitract.surface.TOLERANCE_MM`.
    ml, ml_before, ml_after
        Volume on the held-out slices, millilitres: of the contours, and of both answers.
    """

    organ: Organ
    before: float | None
    after: float | None
    slices: int
    hd95_before: float | None = None
    hd95_after: float | None = None
    surface_before: float | None = None
    surface_after: float | None = None
    ml: float = 0.0
    ml_before: float = 0.0
    ml_after: float = 0.0


@dataclass(frozen=True)
class Retention:
    """How much of what the model did before it still does.

    Parameters
    ----------
    where
        ``replay``: labelled scans of the user's folder. ``untouched slices``: those of the
        corrected scans that nobody reviewed. ``phantom``: an abdomen made by code.
    slices
        How many were looked at.
    before, after
        Mean Dice with the contours of the replay scans. Elsewhere there are no contours to
        compare with: `before` is None, and `after` is how far both models agree, as Dice. A
        model that has become better here does not agree with the old one.
    """

    where: str
    slices: int
    before: float | None
    after: float | None


@dataclass(frozen=True)
class Card:
    """The proof: how the candidate does on slices that it was not trained on.

    Parameters
    ----------
    rows
        One for each organ.
    verdict, sentence
        What it comes to, in a word and in a sentence.
    method
        How slices were held out.
    held_out
        The slices that the rows are about; of several scans one after the other.
    trained_on
        The slices that the candidate itself was trained on.
    steps
        Training steps of the candidate.
    p_value
        How likely a gain of this size would be by chance: Wilcoxon's signed-rank test over the
        held-out slices, one-sided, since being worse needs no proof. None where there are too
        few.
    retention
        What was forgotten.
    scans
        How many scans were corrected.
    """

    rows: tuple[OrganChange, ...]
    verdict: Verdict
    sentence: str
    method: str
    held_out: tuple[int, ...]
    trained_on: tuple[int, ...]
    steps: int
    p_value: float | None = None
    retention: tuple[Retention, ...] = ()
    scans: int = 1

    @property
    def mean_before(self) -> float | None:
        """Mean over the organs that are judged."""
        return _means(self.rows)[0]

    @property
    def mean_after(self) -> float | None:
        """Mean over the organs that are judged."""
        return _means(self.rows)[1]

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], organs: Sequence[Organ]) -> "Card":
        """The card that `as_dict` gave, of a model with these organs."""
        by_name = {organ.name: organ for organ in organs}
        told = {key: value for key, value in content.items() if not key.startswith("mean_")}
        rows = [OrganChange(**{**row, "organ": by_name[row["organ"]]}) for row in told["rows"]]
        told["rows"] = tuple(rows)
        told["retention"] = tuple(Retention(**one) for one in told["retention"])
        for key in ("held_out", "trained_on"):
            told[key] = tuple(told[key])
        return cls(**told)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        content = asdict(self)
        content["mean_before"], content["mean_after"] = _means(self.rows)
        for told, row in zip(content["rows"], self.rows, strict=True):
            told["organ"] = row.organ.name
        content["rows"] = list(content["rows"])
        return content

    def worse_because(self, reason: str) -> "Card":
        """The same card, with the verdict that something speaks against the candidate."""
        return replace(self, verdict="worse", sentence=f"Worse: {reason}")


def _means(rows: Sequence[OrganChange]) -> tuple[float | None, float | None]:
    """Mean before and after, over the organs that have both."""
    complete = [row for row in rows if row.before is not None and row.after is not None]
    return mean_known(row.before for row in complete), mean_known(row.after for row in complete)


def concluded(
    rows: Sequence[OrganChange], changes: Sequence[float]
) -> tuple[Verdict, str, float | None]:
    """Verdict, sentence and p-value.

    Worse needs no proof, better does.

    Parameters
    ----------
    rows
        Of the card.
    changes
        Of the Dice of each held-out slice, over all organs together.
    """
    before, after = _means(rows)
    count = len(changes)
    if before is None or after is None:
        return "unproven", _WHY_NOTHING, None
    change, p_value = after - before, _p_value(changes)
    numbers = f"mean Dice {before:.3f} before, {after:.3f} after, on {count} slices not trained on"
    if change < _WORSE:
        return "worse", f"Worse: {numbers}.", p_value
    if change <= _BETTER:
        return "no difference", f"No difference: {numbers}.", p_value
    if p_value is None:
        few = f"{count} slices are too few to be sure: review at least {_TESTABLE}"
        return "unproven", f"Better by the numbers, but not proven: {numbers}; {few}.", None
    if p_value < _CHANCE:
        return "better", f"Better: {numbers} (p = {p_value:.2g}).", p_value
    chance = f"which may be chance (p = {p_value:.2g})"
    return "no difference", f"No clear difference: {numbers}, {chance}.", p_value


_WHY_NOTHING = "No organ is on two of the parts that were held out: review more slices."


def forgotten(retention: Sequence[Retention]) -> str | None:
    """What the replay scans speak against a candidate, in a sentence."""
    for one in retention:
        if one.before is None or one.after is None:
            continue
        if one.after - one.before < _FORGOTTEN:
            return (
                f"it forgets; mean Dice {one.before:.3f} before, {one.after:.3f} after, on "
                f"{one.slices} slices of the replay folder."
            )
    return None


def _p_value(changes: Sequence[float]) -> float | None:
    if len(changes) < _TESTABLE:
        return None
    if not np.any(changes):
        return 1.0
    return float(stats.wilcoxon(changes, zero_method="zsplit", alternative="greater").pvalue)
