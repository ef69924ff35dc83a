"""A folder of labelled scans that keeps a model from forgetting."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from gitract.errors import InputError
from gitract.fine_tune.pages import ReplayPage
from gitract.labelled import find_labelled
from gitract.looks import prepared_logits
from gitract.metrics import Overlap, mean_organ_dice
from gitract.model_config import ModelConfig, Preparation
from gitract.prepared import Stack, prepared_stacks
from gitract.progress import Report
from gitract.runner import Runner

__all__ = ["Replay", "replay_of"]

_EVERY = 3  # patients: the first of so many is measured on, the others take part in training
_MOST_SLICES = 60  # that are looked at to see what was forgotten


@dataclass(frozen=True, eq=False)
class Replay:
    """Labelled scans: some take part in training, what was forgotten is measured on others.

    Parameters
    ----------
    pages
        To be drawn from.
    measured
        Stacks of patients who are not in `pages`.
    organs
        How many the model knew before: only of these something can be forgotten.
    before
        Mean Dice on them of the model as it was; None where there is nothing to measure.
    """

    pages: tuple[ReplayPage, ...]
    measured: tuple[Stack, ...]
    organs: int
    before: float | None

    def dice(self, network: nn.Module, preparation: Preparation) -> float | None:
        """Mean Dice over old organs on the measured slices, on the network's own grid."""
        return _dice(network, self.measured, self.organs, preparation)

    @property
    def slices(self) -> int:
        """How many are measured on."""
        return sum(len(places) for _, places in _looked_at(self.measured))


def replay_of(
    folder: Path | None,
    config: ModelConfig,
    network: nn.Module,
    organs: int,
    home: Path,
    report: Report,
) -> Replay:
    """Prepare a replay folder; nothing for None.

    Parameters
    ----------
    folder
        In any layout that a training takes.
    config
        The model's, with new organs.
    network, organs
        The model as it was, and how many organs it knew.
    home
        Prepared scans are cached below it.
    report
        Called for each scan.

    Raises
    ------
    InputError
        The folder holds no labelled scan, or one that cannot be used.
    """
    if folder is None:
        return Replay((), (), organs, None)
    if not folder.is_dir():
        raise InputError(f"The replay folder {folder} does not exist.")
    found = find_labelled(folder, organs=config.organs, report=report)
    stacks = prepared_stacks(found, config.organs, config.preparation, home / "cache", report)
    patients = sorted({stack.patient for stack in stacks})
    held_out = set(patients[::_EVERY])
    measured = tuple(stack for stack in stacks if stack.patient in held_out)
    others = [stack for stack in stacks if stack.patient not in held_out]
    pages = tuple(ReplayPage(stack, len(config.organs)) for stack in others)
    before = _dice(network, measured, organs, config.preparation)
    return Replay(pages, measured, organs, before)


def _looked_at(stacks: Sequence[Stack]) -> list[tuple[Stack, list[int]]]:
    """Slices with organs, spread evenly over the stacks and over each of them."""
    each = max(1, _MOST_SLICES // max(1, len(stacks)))
    chosen = []
    for stack in stacks:
        places = stack.organ_slices.tolist() or list(range(len(stack.slices)))
        step = max(1, -(-len(places) // each))
        chosen.append((stack, places[::step]))
    return chosen


def _dice(
    network: nn.Module, stacks: Sequence[Stack], organs: int, preparation: Preparation
) -> float | None:
    overlaps: list[tuple[int, Overlap]] = []
    runner = Runner(network.eval(), preparation.patch)
    for stack, places in _looked_at(stacks):
        for batch, logits in prepared_logits(runner, stack.slices, places, preparation):
            found = (logits > 0).cpu().numpy()
            truth = stack.masks[:, batch].numpy()
            overlaps += [
                (organ, Overlap.of(found[:, organ], truth[organ]))
                for organ in range(organs)
                if stack.known[organ]
            ]
    return mean_organ_dice(overlaps)
