"""The plain U-Net.

Ronneberger, Fischer and Brox 2015, arXiv:1505.04597. Departs from the paper in that

- convolutions are padded, so that the answer has the size of the image;
- each is followed by batch normalisation, in place of its bias;
- there is no dropout at the end of the contracting path.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from gitract.models.blocks import (
    DoubleConvolution,
    begin_seldom,
    check_positive,
    convolution,
    doubled_widths,
    halved,
    up_convolution,
)
from gitract.models.registry import OWN_LICENCE, Facts, register

__all__ = ["unet"]

_DEPTH = 4


def _multiple(options: Mapping[str, Any]) -> int:
    return int(2 ** options.get("depth", _DEPTH))


class _Unet(nn.Module):
    """Widths are the channels of each level, fine to coarse."""

    def __init__(self, in_channels: int, classes: int, widths: list[int]) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(
            DoubleConvolution(inputs, outputs)
            for inputs, outputs in zip([in_channels, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(
            up_convolution(coarse, fine) for fine, coarse in zip(widths, widths[1:], strict=False)
        )
        self.decoder = nn.ModuleList(DoubleConvolution(2 * fine, fine) for fine in widths[:-1])
        self.head = convolution(widths[0], classes, 1)
        begin_seldom(self.head)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.encoder[0](images)
        skips = []
        for block in self.encoder[1:]:
            skips.append(maps)
            maps = block(halved(maps))
        for skip, up, block in reversed(list(zip(skips, self.up, self.decoder, strict=True))):
            maps = block(torch.cat([skip, up(maps)], dim=1))
        logits: torch.Tensor = self.head(maps)
        return logits


@register(
    "unet",
    multiple=_multiple,
    facts=Facts(
        title="U-Net",
        year=2015,
        paper="Ronneberger et al., arXiv:1505.04597",
        published="ISBI cell tracking 2015: IoU .920 PhC-U373, .776 DIC-HeLa",
        licence=OWN_LICENCE,
    ),
)
def unet(in_channels: int, classes: int, *, width: int = 64, depth: int = _DEPTH) -> nn.Module:
    """Build a plain U-Net with random weights.

    Parameters
    ----------
    in_channels, classes
        As in `gitract.models.create_model`.
    width
        Channels at full resolution; twice as many at each coarser level.
    depth
        How often the sides are halved.

    Raises
    ------
    ValueError
        An option is below 1.
    """
    check_positive(width=width, depth=depth)
    return _Unet(in_channels, classes, doubled_widths(width, depth + 1))
