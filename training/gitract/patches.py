"""A 3-D network over a whole stack, patch by patch."""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from math import ceil

import torch
from torch.nn import functional

__all__ = ["count_patches", "logits_by_patches", "patch_starts"]

_SIGMA = 1 / 8  # of the patch's side, as in nnU-Net (Isensee et al. 2021)

Patch = tuple[int, int, int]


def patch_starts(extent: int, side: int) -> list[int]:
    """Where patches begin that cover an axis evenly and overlap by half or more."""
    if extent <= side:
        return [0]
    steps = ceil((extent - side) / (side / 2))
    return [round(step * (extent - side) / steps) for step in range(steps + 1)]


def _weights(patch: Sequence[int]) -> torch.Tensor:
    """A Gaussian bell over a patch: its middle counts most, since it saw the most around it."""
    weights = torch.ones(())
    for side in patch:
        places = (torch.arange(side) - (side - 1) / 2) / (side * _SIGMA)
        weights = weights[..., None] * torch.exp(-0.5 * places**2)
    return weights


def count_patches(shape: Sequence[int], patch: Patch, wanted: Sequence[int]) -> int:
    """How many patches `logits_by_patches` takes."""
    _, rows, columns = (patch_starts(e, s) for e, s in zip(shape, patch, strict=True))
    return len(_layers(shape[0], patch[0], wanted)) * len(rows) * len(columns)


@torch.inference_mode()
def logits_by_patches(
    run: Callable[[torch.Tensor], torch.Tensor],
    slices: torch.Tensor,
    patch: Patch,
    wanted: Sequence[int],
    *,
    batch: int = 1,
    done: Callable[[int], None] = lambda patches: None,
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Logits of a stack: the mean over overlapping patches, weighted by a Gaussian bell.

    The patches lie in layers. A slice is ready when the last layer that reaches it is.

    Parameters
    ----------
    run
        The network: takes ``(batch, 1, *patch)`` on the device of `slices`.
    slices
        ``(slice, row, column)``, also in half precision; padded with air at the far ends
        where it is smaller than a patch.
    patch
        Slices, rows and columns.
    wanted
        Slices whose logits are needed, those first that are wanted first; layers that hold
        none of them are left out.
    batch
        Patches at once.
    done
        Called after each batch, with the number of its patches.

    Yields
    ------
    tuple of list of int and torch.Tensor
        Wanted slices that are ready, ascending, and their logits ``(slice, organ, row,
        column)``.
    """
    shape = slices.shape
    pad = [length for side, extent in zip(patch[::-1], shape[::-1], strict=True)
           for length in (0, max(0, side - extent))]  # fmt: skip
    volume = functional.pad(slices, pad)
    weights = _weights(patch).to(slices.device)
    total = torch.zeros(volume.shape, device=slices.device)
    logits = total.new_zeros(0)
    layers = _layers(shape[0], patch[0], wanted)
    missing = set(wanted)
    for number, first in enumerate(layers, start=1):
        windows = _windows(volume.shape, patch, first)
        for place in range(0, len(windows), batch):
            chosen = windows[place : place + batch]
            found = run(torch.stack([volume[window] for window in chosen])[:, None].float())
            if not len(logits):
                logits = total.new_zeros((found.shape[1], *volume.shape))
            for window, maps in zip(chosen, found.to(logits.device), strict=True):
                logits[(slice(None), *window)] += maps * weights
                total[window] += weights
            done(len(chosen))
        later = {index for start in layers[number:] for index in range(start, start + patch[0])}
        if ready := sorted(missing - later):
            missing.difference_update(ready)
            mean = logits[:, ready] / total[ready].clamp_min(torch.finfo(total.dtype).tiny)
            yield ready, mean[:, :, : shape[1], : shape[2]].transpose(0, 1)


def _layers(extent: int, side: int, wanted: Sequence[int]) -> list[int]:
    """Where the layers begin that hold a wanted slice; those first that hold the first ones."""
    starts = patch_starts(extent, side)
    order = {index: rank for rank, index in enumerate(wanted)}
    held = {start: [order[i] for i in range(start, start + side) if i in order] for start in starts}
    return sorted((start for start in starts if held[start]), key=lambda start: min(held[start]))


def _windows(shape: Sequence[int], patch: Patch, first: int) -> list[tuple[slice, ...]]:
    """The patches of a layer."""
    rows, columns = (patch_starts(e, s) for e, s in zip(shape[1:], patch[1:], strict=True))
    return [
        tuple(slice(start, start + side) for start, side in zip(place, patch, strict=True))
        for place in product([first], rows, columns)
    ]
