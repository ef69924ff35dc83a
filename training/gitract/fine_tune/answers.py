"""What a network draws on a corrected scan."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from gitract.fine_tune.pages import ReviewedScan
from gitract.looks import Look, prepared_logits
from gitract.model_config import ModelConfig
from gitract.organs import Organ
from gitract.predict import masks_of_slices
from gitract.runner import Runner

__all__ = ["WholeAnswer", "answers_at", "whole_answer"]

_AT_ONCE = 8  # slices


@dataclass(frozen=True, eq=False)
class WholeAnswer:
    """What a network draws on a whole scan.

    Parameters
    ----------
    logits
        float16 ``(slice, organ, row, column)`` on the network's own grid.
    organs
        Those that the network knows.
    """

    logits: torch.Tensor
    organs: tuple[Organ, ...]

    @cached_property
    def small(self) -> torch.Tensor:
        """bool ``(slice, organ, row, column)`` on the network's own grid."""
        return self.logits > 0

    def on_slice(self, scan: ReviewedScan, index: int) -> npt.NDArray[np.bool_]:
        """bool ``(organ, row, column)`` on the scan's grid, upright."""
        return self._upright(scan, [index])[0]

    def on_scan(self, scan: ReviewedScan, organs: int) -> npt.NDArray[np.bool_]:
        """bool ``(organ, slice, row, column)`` as the scan is stored; `organs` of them."""
        count = len(scan.masks[0])
        masks = np.zeros((organs, *scan.masks.shape[1:]), dtype=np.bool_)
        for first in range(0, count, _AT_ONCE):
            batch = list(range(first, min(first + _AT_ONCE, count)))
            masks[: len(self.organs), batch] = self._upright(scan, batch).swapaxes(0, 1)
        return scan.turn.back(masks)

    def _upright(self, scan: ReviewedScan, batch: Sequence[int]) -> npt.NDArray[np.bool_]:
        needed = self.logits[scan.prepared.needed(batch)].float()
        maps = scan.prepared.in_plane(scan.prepared.along_stack(needed, batch))
        return np.asarray((maps > 0).numpy())


def whole_answer(network: nn.Module, scan: ReviewedScan, config: ModelConfig) -> WholeAnswer:
    """Run a network over a whole scan.

    Parameters
    ----------
    network
        On its device; it may know fewer organs than `config` lists, the first of them.
    scan, config
        As prepared for it.
    """
    slices = scan.prepared.slices
    found: dict[int, torch.Tensor] = {}
    runner = Runner(network.eval(), config.preparation.patch)
    for batch, logits in prepared_logits(runner, slices, range(len(slices)), config.preparation):
        found.update(zip(batch, logits.half().cpu(), strict=True))
    logits = torch.stack([found[place] for place in range(len(slices))])
    return WholeAnswer(logits, config.organs[: logits.shape[1]])


def answers_at(
    network: nn.Module, scan: ReviewedScan, indices: Sequence[int], config: ModelConfig
) -> Iterator[tuple[int, npt.NDArray[np.bool_]]]:
    """What a network draws on some slices: bool ``(organ, row, column)`` each, upright."""
    if not indices:
        return
    look = Look(Runner(network.eval(), config.preparation.patch), scan.prepared, config.preparation)
    for batch, masks in masks_of_slices(look, indices):
        yield from zip(batch, masks, strict=True)
