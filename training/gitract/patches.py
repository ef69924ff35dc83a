"""A 3-D network over a whole stack, patch by patch."""

from collections.abc import Sequence
from itertools import product
from math import ceil

import torch
from torch import nn
from torch.nn import functional

from gitract.progress import Progress, Report, silent

__all__ = ["logits_by_patches", "patch_starts"]

_SIGMA = 1 / 8  # of the patch's side, as in nnU-Net (Isensee et al. 2021)


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


@torch.inference_mode()
def logits_by_patches(
    network: nn.Module,
    slices: torch.Tensor,
    patch: tuple[int, int, int],
    *,
    wanted: Sequence[int] | None = None,
    batch: int = 1,
    report: Report = silent,
) -> torch.Tensor:
    """Logits of a stack: the mean over overlapping patches, weighted by a Gaussian bell.

    Parameters
    ----------
    network
        Takes ``(batch, 1, *patch)``; in evaluation mode, on its device.
    slices
        ``(slice, row, column)``, also in half precision; padded with air at the far ends
        where it is smaller than a patch.
    patch
        Slices, rows and columns.
    wanted
        Slices whose logits are needed; patches that hold none of them are left out. None
        for all.
    batch
        Patches at once.
    report
        Called after each batch, with the patches done.

    Returns
    -------
    torch.Tensor
        float32 ``(organ, slice, row, column)`` on the network's device; 0 in slices that
        are not wanted and that no patch reached.
    """
    device = next(network.parameters()).device
    shape = slices.shape
    pad = [length for side, extent in zip(patch[::-1], shape[::-1], strict=True)
           for length in (0, max(0, side - extent))]  # fmt: skip
    volume = functional.pad(slices, pad)
    windows = _windows(volume.shape, patch, range(shape[0]) if wanted is None else wanted)
    weights = _weights(patch).to(device)
    total = torch.zeros(volume.shape, device=device)
    logits = None
    for first in range(0, len(windows), batch):
        chosen = windows[first : first + batch]
        images = torch.stack([volume[window] for window in chosen])[:, None].float()
        found = network(images.to(device)).float()
        if logits is None:
            logits = torch.zeros((found.shape[1], *volume.shape), device=device)
        for window, maps in zip(chosen, found, strict=True):
            logits[(slice(None), *window)] += maps * weights
            total[window] += weights
        done = first + len(chosen)
        report(Progress(done, len(windows), f"Segmented {done} of {len(windows)} patches"))
    assert logits is not None  # there is a patch for every slice
    logits /= total.clamp_min(torch.finfo(total.dtype).tiny)
    return logits[:, : shape[0], : shape[1], : shape[2]]


def _windows(
    shape: Sequence[int], patch: tuple[int, int, int], wanted: Sequence[int]
) -> list[tuple[slice, ...]]:
    """The patches that hold a wanted slice, in the order of the stack."""
    starts = [patch_starts(extent, side) for extent, side in zip(shape, patch, strict=True)]
    starts[0] = [
        start for start in starts[0] if any(start <= index < start + patch[0] for index in wanted)
    ]
    return [
        tuple(slice(start, start + side) for start, side in zip(place, patch, strict=True))
        for place in product(*starts)
    ]
