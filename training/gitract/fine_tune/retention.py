"""What a candidate forgot, and whether it can be used at all."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import nn

from gitract.corrections import Corrections
from gitract.fine_tune.answers import WholeAnswer, whole_answer
from gitract.fine_tune.card import Retention
from gitract.fine_tune.pages import ReviewedScan, reviewed_scan
from gitract.fine_tune.replay import Replay
from gitract.metrics import Overlap, mean_organ_dice
from gitract.model_config import ModelConfig
from gitract.phantom import abdomen

__all__ = ["fault_of", "retention_of"]


def retention_of(
    before: nn.Module,
    after: nn.Module,
    config: ModelConfig,
    replay: Replay,
    scans: Sequence[ReviewedScan],
    old: Sequence[WholeAnswer],
    new: Sequence[WholeAnswer],
) -> list[Retention]:
    """How much of what the model did before it still does.

    Parameters
    ----------
    before, after
        The networks; `after` may know more organs.
    config
        Of `after`.
    replay
        Labelled scans, or none.
    scans, old, new
        The corrected scans, and what both draw on them.
    """
    found = []
    if replay.measured:
        now = replay.dice(after, config.preparation)
        found.append(Retention("replay", replay.slices, replay.before, now))
    pairs = [
        (one.small[scan.untouched], other.small[scan.untouched])
        for scan, one, other in zip(scans, old, new, strict=True)
    ]
    count = sum(len(before) for before, _ in pairs)
    found.append(Retention("untouched slices", count, None, _agreement(pairs)))
    scan = reviewed_scan(_phantom(), config.organs, config.preparation)
    answers = [whole_answer(network, scan, config).small for network in (before, after)]
    agreement = _agreement([(answers[0], answers[1])])
    return [*found, Retention("phantom", len(answers[0]), None, agreement)]


@cache
def _phantom() -> Corrections:
    return Corrections(*abdomen(), ())


def _agreement(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> float | None:
    """Mean over the old organs of the Dice between both answers."""
    return mean_organ_dice(
        (organ, Overlap.of(new[:, organ].numpy(), old[:, organ].numpy()))
        for old, new in pairs
        for organ in range(old.shape[1])
    )


def fault_of(
    network: nn.Module,
    config: ModelConfig,
    scans: Sequence[ReviewedScan],
    old: Sequence[WholeAnswer],
    new: Sequence[WholeAnswer],
) -> str | None:
    """What makes a candidate unusable, in a sentence; None where nothing does."""
    if not all(bool(torch.isfinite(tensor).all()) for tensor in network.parameters()):
        return "its weights are not finite numbers."
    if not all(bool(torch.isfinite(answer.logits).all()) for answer in new):
        return "it does not answer with finite numbers."
    for number, organ in enumerate(config.organs):
        if _expected(number, scans, old) and not any(
            bool(answer.small[:, number].any()) for answer in new
        ):
            return f"it draws no {organ.title.lower()} any more where there is some."
    return None


def _expected(organ: int, scans: Sequence[ReviewedScan], old: Sequence[WholeAnswer]) -> bool:
    """Whether a person contoured an organ, or it was drawn on slices that nobody reviewed."""
    contoured = any(scan.shown(index)[organ] for scan in scans for index in scan.slices)
    drawn = any(
        organ < len(answer.organs) and bool(answer.small[scan.untouched, organ].any())
        for scan, answer in zip(scans, old, strict=True)
    )
    return contoured or drawn
