"""Networks over a prepared scan: batches of its slices in, logits on its own grid out.

Everything that outlines a scan goes this way: the segmenter, validation in training, and
fine-tuning.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from gitract.model_config import Preparation
from gitract.patches import count_patches, logits_by_patches
from gitract.preparation import Prepared, network_input
from gitract.runner import PatchTooLarge, Runner
from gitract.uncertainty import slice_doubts

__all__ = ["Look", "Seen", "prepared_logits"]


Step = Callable[[int], None]


def _uncounted(count: int) -> None:
    """For those who do not want to know how far it is."""


def prepared_logits(
    runner: Runner,
    slices: torch.Tensor,
    indices: Sequence[int],
    preparation: Preparation,
    patches_done: Step = _uncounted,
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Run a network over prepared slices, batch by batch; a 3-D one patch by patch.

    Parameters
    ----------
    runner
        The network.
    slices
        ``(slice, row, column)`` of `gitract.preparation.Prepared`, all of the stack, also in
        half precision.
    indices
        Slices wanted, those first that are wanted first.
    preparation
        The model's.
    patches_done
        Of a 3-D network: called after each batch of patches, with their number.

    Yields
    ------
    tuple of list of int and torch.Tensor
        Slices that are ready and their logits ``(slice, organ, row, column)`` on the runner's
        device.
    """
    if preparation.patch:
        yield from _by_patches(runner, slices, indices, patches_done)
        return
    done = 0
    while done < len(indices):
        batch = list(indices[done : done + runner.size])
        done += len(batch)
        yield batch, runner(network_input(slices, batch, preparation))


def _by_patches(
    runner: Runner, slices: torch.Tensor, indices: Sequence[int], patches_done: Step
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """As `logits_by_patches`; begins again with what is missing when patches must be smaller."""
    missing = list(indices)
    while missing:
        assert runner.patch is not None
        ready = logits_by_patches(
            runner, slices.to(runner.device), runner.patch, missing,
            batch=runner.size, done=patches_done,
        )  # fmt: skip
        try:
            for batch, logits in ready:
                missing = [index for index in missing if index not in batch]
                yield batch, logits
        except PatchTooLarge:
            continue


class Seen(NamedTuple):
    """What a network says of some slices of a scan.

    Parameters
    ----------
    logits
        ``(slice, organ, row, column)`` on the scan's own grid.
    largest
        The largest logit of each slice and organ ``(slice, organ)`` as the network gave it,
        before the temperature.
    doubts
        ``(slice,)``, see `gitract.uncertainty.slice_doubts`.
    """

    logits: torch.Tensor
    largest: torch.Tensor
    doubts: torch.Tensor


@dataclass(frozen=True, eq=False)
class Look:
    """One network's view of one scan.

    Parameters
    ----------
    runner
        The network.
    prepared
        The scan as the network sees it.
    preparation
        How it became so.
    mirrored
        Whether the network gets it with left and right exchanged.
    temperature
        What the network's logits are divided by.
    """

    runner: Runner
    prepared: Prepared
    preparation: Preparation
    mirrored: bool = False
    temperature: float = 1.0

    def steps(self, indices: Sequence[int]) -> int:
        """How many steps `logits` counts for some of the scan's slices."""
        if self.runner.patch is None:
            return len(indices)
        shape = self.prepared.slices.shape
        return count_patches(shape, self.runner.patch, self.prepared.needed(sorted(indices)))

    def logits(
        self,
        batches: Sequence[Sequence[int]],
        level: float = 0.0,
        step: Step = _uncounted,
    ) -> Iterator["Seen"]:
        """Logits on the scan's own grid, and how sure they are.

        Parameters
        ----------
        batches
            Slices of the scan, ascending in each batch.
        level
            As in `Prepared.in_plane`.
        step
            Called with the number of slices, of a 3-D network of patches, that are done.

        Yields
        ------
        Seen
            Of each batch, on the runner's device.
        """
        needed = [self.prepared.needed(batch) for batch in batches]
        last_use = {place: number for number, places in enumerate(needed) for place in places}
        order = list(dict.fromkeys(place for places in needed for place in places))
        slices = self.prepared.slices.flip(2) if self.mirrored else self.prepared.slices
        found = prepared_logits(self.runner, slices, order, self.preparation, step)
        logits: dict[int, torch.Tensor] = {}
        for number, (batch, places) in enumerate(zip(batches, needed, strict=True)):
            while any(place not in logits for place in places):
                logits.update(zip(*next(found), strict=True))
            maps = torch.stack([logits[place].to(self.runner.device) for place in places])
            maps = maps / self.temperature
            maps = self.prepared.along_stack(maps.flip(3) if self.mirrored else maps, batch)
            logits = {place: m for place, m in logits.items() if last_use[place] > number}
            largest = maps.amax(dim=(2, 3)) * self.temperature
            doubts = slice_doubts(maps, self.preparation.pixel_mm)
            yield Seen(self.prepared.in_plane(maps, level), largest, doubts)
            if self.runner.patch is None:
                step(len(batch))
