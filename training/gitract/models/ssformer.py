"""SSFormer: a pyramid transformer that encodes, and a decoder that stresses what is local.

Wang et al. 2022, arXiv:2203.03635. Departs from the paper in that the encoder is PVTv2
(Wang et al. 2021, arXiv:2106.13797) of timm, whose licence is free, where the authors take
the Mix Transformer, which is for non-commercial use only: b2 and b4 as there, with as many
stages of equal widths. Also, the logits have the size of the image whatever it is.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from gitract.models.blocks import begin_seldom
from gitract.models.registry import Facts, register
from gitract.models.smp_encoders import smp_encoder

__all__ = ["SSFormer", "ssformer_l", "ssformer_s"]

_STAGES = 4
_LICENCE = (
    "Apache-2.0 (encoder: timm), MIT (segmentation-models-pytorch), "
    "BSD-3-Clause (decoder: this project)"
)


class _LocalEmphasis(nn.Sequential):
    """Two convolutions, which attend to what is near where the encoder's attention disperses."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, width, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.ReLU(),
        )


class _Fusion(nn.Module):
    """Two maps of one size to one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2 * width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )

    def forward(self, coarse: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
        fused: torch.Tensor = self.layers(torch.cat([coarse, fine], dim=1))
        return fused


class _ProgressiveLocalityDecoder(nn.Module):
    """Each stage is emphasised and enlarged, then they are joined one by one from the coarsest.

    Parameters
    ----------
    channels
        Of the encoder's stages, fine to coarse.
    width
        Of everything in the decoder.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.emphases = nn.ModuleList(_LocalEmphasis(inputs, width) for inputs in channels)
        self.fusions = nn.ModuleList(_Fusion(width) for _ in channels[1:])

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Maps of the stages, fine to coarse, to one of the finest's size."""
        size = features[0].shape[-2:]
        fine, *coarser = (
            emphasis(maps) for emphasis, maps in zip(self.emphases, features, strict=True)
        )
        enlarged = [functional.interpolate(maps, size=size, mode="bilinear") for maps in coarser]
        joined, *finer = [fine, *enlarged][::-1]
        for fusion, maps in zip(self.fusions, finer, strict=True):
            joined = fusion(joined, maps)
        return joined


class SSFormer(nn.Module):
    """Encoder, progressive locality decoder, one linear layer for the logits.

    Parameters
    ----------
    encoder
        Gives a list of maps, of which the last four are taken, from 1/4 to 1/32 of the image.
    channels
        Of these four.
    classes
        Organs out.
    width
        Of the decoder.
    dropout
        Before the last layer.
    """

    def __init__(
        self, encoder: nn.Module, channels: Sequence[int], classes: int, width: int, dropout: float
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = _ProgressiveLocalityDecoder(channels, width)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Conv2d(width, classes, 1))
        begin_seldom(self.head)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """``(batch, channel, row, column)``, sides divisible by 32, to logits of each organ."""
        features = self.encoder(images)[-_STAGES:]
        logits = self.head(self.decoder(features))
        return functional.interpolate(logits, size=images.shape[-2:], mode="bilinear")


def _ssformer(in_channels: int, classes: int, encoder: str, width: int, dropout: float) -> SSFormer:
    if width < 1:
        raise ValueError(f"width is {width}, and must be 1 or more")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is {dropout}, and must be from 0 to below 1")
    encodes: Any = smp_encoder(encoder, in_channels)
    return SSFormer(encodes, encodes.out_channels[-_STAGES:], classes, width, dropout)


@register(
    "ssformer_s",
    multiple=32,
    facts=Facts(
        title="SSFormer-S",
        year=2022,
        paper="Wang et al., arXiv:2203.03635",
        published="",
        licence=_LICENCE,
    ),
)
def ssformer_s(
    in_channels: int,
    classes: int,
    *,
    encoder: str = "tu-pvt_v2_b2",
    width: int = 256,
    dropout: float = 0.1,
) -> nn.Module:
    """Build the small SSFormer with random weights.

    Parameters
    ----------
    in_channels, classes
        As in `gitract.models.create_model`.
    encoder
        A name of smp, whose last four stages are at 1/4 to 1/32, such as ``tu-pvt_v2_b0``.
    width
        Channels of the decoder.
    dropout
        Before the last layer.

    Raises
    ------
    InputError
        smp does not know the encoder.
    ValueError
        An option is out of its range, or the encoder may not be used or does not fit.
    """
    return _ssformer(in_channels, classes, encoder, width, dropout)


@register(
    "ssformer_l",
    multiple=32,
    facts=Facts(
        title="SSFormer-L",
        year=2022,
        paper="Wang et al., arXiv:2203.03635",
        published="Kvasir-SEG (polyps): mean Dice .9357, mean IoU .8905",
        licence=_LICENCE,
    ),
)
def ssformer_l(
    in_channels: int,
    classes: int,
    *,
    encoder: str = "tu-pvt_v2_b4",
    width: int = 256,
    dropout: float = 0.1,
) -> nn.Module:
    """Build the large SSFormer with random weights; options as in `ssformer_s`."""
    return _ssformer(in_channels, classes, encoder, width, dropout)
