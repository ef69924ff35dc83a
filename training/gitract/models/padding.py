"""One wrapper that lets every network take every size, and answer alike."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from gitract.models.outputs import Outputs

__all__ = ["PadToMultiple"]


class PadToMultiple(nn.Module):
    """Pad the input to a multiple, run the network, crop its output back.

    Zero is what preparation gives the air around the patient, so the padding looks
    like more air.

    In training mode a network may return `Outputs`; in evaluation mode it returns logits.

    Parameters
    ----------
    network
        Takes ``(batch, channels, rows, columns)`` or ``(batch, channels, slices, rows,
        columns)``, and keeps these sizes.
    multiple
        What the sizes must be divisible by.
    dimensions
        2 or 3.
    """

    def __init__(self, network: nn.Module, multiple: int, dimensions: int = 2) -> None:
        super().__init__()
        self.network = network
        self.multiple = multiple
        self.dimensions = dimensions

    def forward(self, images: torch.Tensor) -> torch.Tensor | Outputs:
        """Run the network on images of any size."""
        sizes = images.shape[2:]
        missing = [-size % self.multiple for size in sizes]
        # Another size may come to a traced network: it gets the padding, even if of nothing.
        if torch.jit.is_tracing() or torch.compiler.is_compiling() or any(missing):
            images = functional.pad(images, [n for size in missing[::-1] for n in (0, size)])
        answer: torch.Tensor | Outputs = self.network(images)
        if isinstance(answer, torch.Tensor):
            return _cropped(answer, sizes)
        padded = images.shape[2:]
        return answer.mapped(lambda maps: _cropped_like(maps, sizes, padded))


def _cropped(maps: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    for axis, size in enumerate(sizes, start=2):
        if torch.compiler.is_compiling():  # a view's strides would tie an export to its example
            maps = maps.index_select(axis, torch.arange(size, device=maps.device))
        else:
            maps = maps.narrow(axis, 0, size)
    return maps


def _cropped_like(maps: torch.Tensor, sizes: torch.Size, padded: torch.Size) -> torch.Tensor:
    """Crop a coarser map to what shows the unpadded image; presence logits stay."""
    if maps.ndim == 2:
        return maps
    coarse = [
        -(-size * length // whole)  # rounded up
        for size, length, whole in zip(sizes, maps.shape[2:], padded, strict=True)
    ]
    return _cropped(maps, coarse)
