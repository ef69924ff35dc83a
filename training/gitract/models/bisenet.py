"""BiSeNet: a shallow path for detail beside a deep one for context.

Yu et al. 2018, arXiv:1808.00897, version 1 with ResNet18 as its context path. Departs from the
paper's text, as the common codes do, in that

- the attention refinement modules begin with a 3x3 convolution to a common width;
- the context path's maps go through a 3x3 convolution after each up-sampling, and the spatial
  path ends with a 1x1 convolution;
- the attention of the feature fusion module is one 1x1 convolution with batch normalisation,
  where the paper draws two with a ReLU between them;
- organs may overlap: one logit for each, and none for the background.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from gitract.models.blocks import begin_seldom, check_positive, resized
from gitract.models.outputs import Outputs
from gitract.models.registry import OWN_LICENCE, Facts, register
from gitract.models.smp_encoders import smp_encoder

__all__ = ["BiSeNet", "bisenet"]


class _Convolution(nn.Sequential):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, into: int, width: int, kernel: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(into, width, kernel, stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )


class _ChannelGate(nn.Sequential):
    """A number between 0 and 1 for each channel, from the means of all."""

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(width, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.Sigmoid(),
        )


class _Refinement(nn.Module):
    """Attention refinement: maps of the context path, weighted by channel."""

    def __init__(self, into: int, width: int) -> None:
        super().__init__()
        self.convolution = _Convolution(into, width, 3)
        self.gate = _ChannelGate(width)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        maps = self.convolution(maps)
        weighted: torch.Tensor = maps * self.gate(maps)
        return weighted


class _Fusion(nn.Module):
    """Feature fusion: both paths as one, its channels weighted beside themselves."""

    def __init__(self, into: int, width: int) -> None:
        super().__init__()
        self.convolution = _Convolution(into, width, 1)
        self.gate = _ChannelGate(width)

    def forward(self, spatial: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        maps = self.convolution(torch.cat([spatial, context], dim=1))
        fused: torch.Tensor = maps + maps * self.gate(maps)
        return fused


class _Context(nn.Module):
    """Maps of an encoder at 1/16 and 1/32, refined, to 1/8 and 1/16."""

    def __init__(self, into_16: int, into_32: int, width: int) -> None:
        super().__init__()
        self.refine_16 = _Refinement(into_16, width)
        self.refine_32 = _Refinement(into_32, width)
        self.whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), _Convolution(into_32, width, 1))
        self.smooth_16 = _Convolution(width, width, 3)
        self.smooth_32 = _Convolution(width, width, 3)

    def forward(
        self, at_16: torch.Tensor, at_32: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        coarse = self.refine_32(at_32) + self.whole(at_32)
        coarse = self.smooth_32(functional.interpolate(coarse, scale_factor=2))
        fine = self.refine_16(at_16) + coarse
        return self.smooth_16(functional.interpolate(fine, scale_factor=2)), coarse


class _Head(nn.Sequential):
    """Maps to logits."""

    def __init__(self, into: int, width: int, classes: int) -> None:
        super().__init__(_Convolution(into, width, 3), nn.Conv2d(width, classes, 1))


class BiSeNet(nn.Module):
    """The network.

    Parameters
    ----------
    encoder
        Of smp: images to maps of several resolutions, those at 1/16 and 1/32 last.
    in_channels, classes, width
        As in `bisenet`.
    """

    def __init__(self, encoder: nn.Module, in_channels: int, classes: int, width: int) -> None:
        super().__init__()
        channels: Sequence[int] = encoder.out_channels  # type: ignore[assignment]  # smp's
        self.encoder = encoder  # first and by this name, for weights to start from
        self.context = _Context(channels[-2], channels[-1], 2 * width)
        self.spatial = nn.Sequential(
            _Convolution(in_channels, width, 7, stride=2),
            _Convolution(width, width, 3, stride=2),
            _Convolution(width, width, 3, stride=2),
            _Convolution(width, 2 * width, 1),
        )
        self.fusion = _Fusion(4 * width, 4 * width)
        self.head = _Head(4 * width, 4 * width, classes)
        self.auxiliary = nn.ModuleList(_Head(2 * width, width, classes) for _ in range(2))
        begin_seldom(self.head, *self.auxiliary)

    def forward(self, images: torch.Tensor) -> torch.Tensor | Outputs:
        """Logits ``(batch, organ, row, column)`` of images ``(batch, channel, row, column)``.

        Sides must be divisible by 32. In training mode logits of the two maps of the context
        path are beside them, in the same size.
        """
        at_16, at_32 = self.encoder(images)[-2:]
        context = self.context(at_16, at_32)
        logits = resized(self.head(self.fusion(self.spatial(images), context[0])), images)
        if not self.training:
            return logits
        deep = [
            resized(head(maps), images) for head, maps in zip(self.auxiliary, context, strict=True)
        ]
        return Outputs(logits, deep=tuple(deep))


@register(
    "bisenet",
    multiple=32,
    facts=Facts(
        title="BiSeNet",
        year=2018,
        paper="Yu et al., arXiv:1808.00897",
        published="Cityscapes test: mean IoU 74.7 % (ResNet18)",
        licence=f"{OWN_LICENCE}; ResNet18: MIT (segmentation-models-pytorch)",
    ),
)
def bisenet(
    in_channels: int, classes: int, *, encoder: str = "resnet18", width: int = 64
) -> nn.Module:
    """Build a BiSeNet with random weights.

    Parameters
    ----------
    in_channels, classes
        As in `gitract.models.create_model`.
    encoder
        Of the context path: a name of smp, ``tu-...`` for timm's.
    width
        Channels of the spatial path; twice as many in the context path, four times where they
        meet.

    Raises
    ------
    InputError
        There is no such encoder.
    ValueError
        Another option is out of its range, or the encoder may not be used.
    """
    check_positive(width=width)
    return BiSeNet(smp_encoder(encoder, in_channels), in_channels, classes, width)
