"""V-Net: residual stages of large convolutions, in 3-D or 2-D.

Milletari, Navab and Ahmadi 2016, arXiv:1606.04797, after its figure: 5x5x5 convolutions, 1, 2,
3, 3 and 3 of them on the way down and 3, 3, 2 and 1 on the way up, PReLU, and strided
convolutions between the stages. Departs from the paper in that

- each convolution is followed by batch normalisation, as in all later codes; the paper has none;
- organs may overlap, so there is one logit for each and none for the background, where the
  paper has a softmax over the two;
- the residual of the first stage, which the paper makes by repeating its one channel, is a
  1x1x1 convolution where more slices than one come in;
- it exists in 2-D as well, for stacks of neighbouring slices.

It is larger than MONAI's network of this name (65,178,770 parameters in 3-D from one channel to
two, there 45,597,898), which has 1, 1, 2, 3 and 2 convolutions on the way down and 2, 2, 1 and 1
on the way up; ELU, once more in each stage but the first; biases in its transposed convolutions;
dropout; and a 5x5x5 convolution to the classes before the last 1x1x1 one.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from gitract.models.blocks import (
    batch_norm,
    begin_seldom,
    check_one_of,
    check_positive,
    convolution,
    doubled_widths,
    up_convolution,
)
from gitract.models.registry import OWN_LICENCE, Facts, register

__all__ = ["VNet", "vnet"]

_DIMENSIONS = 3
_DOWN = (1, 2, 3, 3, 3)
_UP = (3, 3, 2, 1)
_KERNEL = 5


def _dimensions(options: Mapping[str, Any]) -> int:
    return int(options.get("dimensions", _DIMENSIONS))


class _Stage(nn.Module):
    """Convolutions, to the last of which the input is added before its PReLU."""

    def __init__(self, inputs: int, outputs: int, convolutions: int, dimensions: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in [inputs, *[outputs] * (convolutions - 1)]:
            layers += [
                convolution(channels, outputs, _KERNEL, bias=False, dimensions=dimensions),
                batch_norm(outputs, dimensions),
                nn.PReLU(outputs),
            ]
        *branch, self.activation = layers
        self.branch = nn.Sequential(*branch)
        # A single channel is added to all.
        self.shortcut = (
            nn.Identity()
            if inputs in (1, outputs)
            else convolution(inputs, outputs, 1, dimensions=dimensions)
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        summed: torch.Tensor = self.activation(self.branch(maps) + self.shortcut(maps))
        return summed


class _Down(nn.Module):
    """Half the resolution with twice the channels, and a stage."""

    def __init__(self, width: int, convolutions: int, dimensions: int) -> None:
        super().__init__()
        self.shrink = nn.Sequential(
            convolution(width, 2 * width, 2, stride=2, bias=False, dimensions=dimensions),
            batch_norm(2 * width, dimensions),
            nn.PReLU(2 * width),
        )
        self.stage = _Stage(2 * width, 2 * width, convolutions, dimensions)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        coarse: torch.Tensor = self.stage(self.shrink(maps))
        return coarse


class _Up(nn.Module):
    """Twice the resolution with as many channels as the skip, the skip beside it, and a stage."""

    def __init__(self, inputs: int, skip: int, convolutions: int, dimensions: int) -> None:
        super().__init__()
        self.enlarge = nn.Sequential(
            up_convolution(inputs, skip, bias=False, dimensions=dimensions),
            batch_norm(skip, dimensions),
            nn.PReLU(skip),
        )
        self.stage = _Stage(2 * skip, 2 * skip, convolutions, dimensions)

    def forward(self, maps: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        fine: torch.Tensor = self.stage(torch.cat([self.enlarge(maps), skip], dim=1))
        return fine


class VNet(nn.Module):
    """The network.

    Parameters
    ----------
    in_channels, classes, dimensions, width
        As in `vnet`.
    """

    def __init__(self, in_channels: int, classes: int, dimensions: int, width: int) -> None:
        super().__init__()
        *skips, bottom = doubled_widths(width, len(_DOWN))
        self.first = _Stage(in_channels, width, _DOWN[0], dimensions)
        self.down = nn.ModuleList(
            _Down(channels, count, dimensions)
            for channels, count in zip(skips, _DOWN[1:], strict=True)
        )
        below = [bottom, *(2 * skip for skip in skips[:0:-1])]
        self.up = nn.ModuleList(
            _Up(inputs, skip, count, dimensions)
            for inputs, skip, count in zip(below, skips[::-1], _UP, strict=True)
        )
        self.head = convolution(2 * width, classes, 1, dimensions=dimensions)
        begin_seldom(self.head)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits ``(batch, organ, ...)`` of images ``(batch, channel, ...)``.

        Sides must be divisible by 16.
        """
        maps = self.first(images)
        skips = []
        for down in self.down:
            skips.append(maps)
            maps = down(maps)
        for up, skip in zip(self.up, skips[::-1], strict=True):
            maps = up(maps, skip)
        logits: torch.Tensor = self.head(maps)
        return logits


@register(
    "vnet",
    multiple=2 ** (len(_DOWN) - 1),
    dimensions=_dimensions,
    facts=Facts(
        title="V-Net",
        year=2016,
        paper="Milletari et al., arXiv:1606.04797",
        published="PROMISE12 prostate MR: Dice .869",
        licence=OWN_LICENCE,
    ),
)
def vnet(
    in_channels: int, classes: int, *, dimensions: int = _DIMENSIONS, width: int = 16
) -> nn.Module:
    """Build a V-Net with random weights.

    Parameters
    ----------
    in_channels, classes
        As in `gitract.models.create_model`.
    dimensions
        2 or 3.
    width
        Channels at full resolution; twice as many at each of the four coarser levels.

    Raises
    ------
    ValueError
        An option is out of its range.
    """
    check_one_of((2, 3), dimensions=dimensions)
    check_positive(width=width)
    return VNet(in_channels, classes, dimensions, width)
