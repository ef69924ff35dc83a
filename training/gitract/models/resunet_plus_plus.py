"""ResUNet++: a residual U-Net with squeeze-and-excitation, pyramid pooling and attention.

Jha et al. 2019, arXiv:1911.07067. As in the authors' own form of it

- the attention has no sigmoid: maps are multiplied by what a convolution answers, so that it
  may also strengthen them and turn their sign;
- the branches of the atrous spatial pyramid pooling are summed, not concatenated;
- convolutions have biases, also before batch normalisation.

Departs from it in that organs may overlap, so there is one logit for each and a sigmoid only
afterwards; and in that squeeze-and-excitation begins with pairs of opposite units.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from gitract.models.blocks import SqueezeExcite, begin_seldom
from gitract.models.registry import OWN_LICENCE, Facts, register

__all__ = ["ResUNetPlusPlus", "resunet_plus_plus"]

_LEVELS = 5
_RATES = (1, 6, 12, 18)
_SQUEEZE = 8


class _Activated(nn.Sequential):
    """Batch normalisation, ReLU, and a 3x3 convolution at last."""

    def __init__(self, into: int, width: int, stride: int = 1) -> None:
        super().__init__(
            nn.BatchNorm2d(into),
            nn.ReLU(inplace=True),
            nn.Conv2d(into, width, 3, stride, padding=1),
        )


class _Residual(nn.Module):
    """A branch of convolutions and a shortcut, summed."""

    def __init__(self, branch: nn.Module, into: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = nn.Sequential(nn.Conv2d(into, width, 1, stride), nn.BatchNorm2d(width))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        summed: torch.Tensor = self.branch(maps) + self.shortcut(maps)
        return summed


def _stem(into: int, width: int) -> nn.Sequential:
    """The first block, whose branch meets the image without being normalised."""
    branch = nn.Sequential(nn.Conv2d(into, width, 3, padding=1), _Activated(width, width))
    return nn.Sequential(_Residual(branch, into, width), SqueezeExcite(width, _SQUEEZE))


def _block(into: int, width: int, stride: int = 1) -> nn.Sequential:
    branch = nn.Sequential(_Activated(into, width, stride), _Activated(width, width))
    return nn.Sequential(_Residual(branch, into, width, stride), SqueezeExcite(width, _SQUEEZE))


class _PyramidPooling(nn.Module):
    """Atrous convolutions of several reaches, summed."""

    def __init__(self, into: int, width: int) -> None:
        super().__init__()
        self.reaches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(into, width, 3, padding=rate, dilation=rate), nn.BatchNorm2d(width)
            )
            for rate in _RATES
        )
        self.mix = nn.Conv2d(width, width, 1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        summed = torch.stack([reach(maps) for reach in self.reaches]).sum(dim=0)
        mixed: torch.Tensor = self.mix(summed)
        return mixed


class _Attention(nn.Module):
    """Coarse maps, multiplied by what they and the skip of the next finer level say."""

    def __init__(self, skip: int, coarse: int) -> None:
        super().__init__()
        self.skip = nn.Sequential(_Activated(skip, coarse), nn.MaxPool2d(2))
        self.coarse = _Activated(coarse, coarse)
        self.weights = _Activated(coarse, coarse)

    def forward(self, skip: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        weighted: torch.Tensor = coarse * self.weights(self.skip(skip) + self.coarse(coarse))
        return weighted


class _Up(nn.Module):
    """Attention, twice the resolution, skip, residual block."""

    def __init__(self, skip: int, coarse: int, width: int) -> None:
        super().__init__()
        self.attention = _Attention(skip, coarse)
        self.block = _block(skip + coarse, width)

    def forward(self, skip: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        fine = functional.interpolate(self.attention(skip, coarse), scale_factor=2)
        maps: torch.Tensor = self.block(torch.cat([fine, skip], dim=1))
        return maps


class ResUNetPlusPlus(nn.Module):
    """The network.

    Parameters
    ----------
    in_channels, classes, widths
        As in `resunet_plus_plus`.
    """

    def __init__(self, in_channels: int, classes: int, widths: Sequence[int]) -> None:
        super().__init__()
        *encoder, bridge = widths
        self.stem = _stem(in_channels, encoder[0])
        self.down = nn.ModuleList(
            _block(into, width, stride=2) for into, width in zip(encoder, encoder[1:], strict=False)
        )
        self.bridge = _PyramidPooling(encoder[-1], bridge)
        self.up = nn.ModuleList(
            _Up(skip, coarse, width)
            for skip, coarse, width in zip(
                encoder[-2::-1], widths[:1:-1], widths[-2:0:-1], strict=True
            )
        )
        self.last = _PyramidPooling(widths[1], widths[0])
        self.head = nn.Conv2d(widths[0], classes, 1)
        begin_seldom(self.head)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits ``(batch, organ, row, column)`` of images ``(batch, channel, row, column)``.

        Sides must be divisible by 8.
        """
        maps = self.stem(images)
        skips = []
        for down in self.down:
            skips.append(maps)
            maps = down(maps)
        maps = self.bridge(maps)
        for up, skip in zip(self.up, skips[::-1], strict=True):
            maps = up(skip, maps)
        logits: torch.Tensor = self.head(self.last(maps))
        return logits


@register(
    "resunet_plus_plus",
    multiple=2 ** (_LEVELS - 2),
    facts=Facts(
        title="ResUNet++",
        year=2019,
        paper="Jha et al., arXiv:1911.07067",
        published="Kvasir-SEG polyps: Dice .8133",
        licence=OWN_LICENCE,
    ),
)
def resunet_plus_plus(
    in_channels: int, classes: int, *, widths: Sequence[int] = (16, 32, 64, 128, 256)
) -> nn.Module:
    """Build a ResUNet++ with random weights.

    Parameters
    ----------
    in_channels, classes
        As in `gitract.models.create_model`.
    widths
        Channels of the four levels, fine to coarse, and of the bridge.

    Raises
    ------
    ValueError
        An option is out of its range.
    """
    if len(widths) != _LEVELS or min(widths) < 1:
        raise ValueError(f"widths is {list(widths)}, and must hold five numbers from 1 on")
    return ResUNetPlusPlus(in_channels, classes, widths)
