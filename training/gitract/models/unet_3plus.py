"""UNet 3+: each node of the decoder sees all scales of the encoder and of what is below it.

Huang et al. 2020, arXiv:2004.08790. Departs from the paper in that

- the classification-guided gate is one for each organ, multiplies probabilities and is not
  rounded to open or closed, so that gradients reach it and a closed gate gives probability
  0. (In the authors' code it multiplies logits, where a closed gate gives 1/2.)
- the losses are those of the recipe, not the paper's sum of focal, MS-SSIM and IoU.
"""

import torch
from torch import nn
from torch.nn import functional

from gitract.models.blocks import (
    DoubleConvolution,
    batch_norm,
    begin_seldom,
    check_positive,
    convolution,
    doubled_widths,
    halved,
    resized,
)
from gitract.models.outputs import Outputs
from gitract.models.registry import OWN_LICENCE, Facts, register

__all__ = ["gated_logits", "unet_3plus"]

_LEVELS = 5
_DROPOUT = 0.5


def gated_logits(logits: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """The logit of the product of two probabilities, from their logits.

    With logits a and b, the odds against the product are exp(-a) (1 + exp(-b)) + exp(-b).
    Their logarithm needs no probability, which might round to 0 or 1.

    Parameters
    ----------
    logits
        ``(batch, organ, rows, columns)``.
    gate
        ``(batch, organ)``.

    Returns
    -------
    torch.Tensor
        In the shape of `logits`, float32.
    """
    logits, gate = logits.float(), gate.float()[:, :, None, None]
    reduced = logits - functional.softplus(-gate)
    # -logaddexp(-reduced, -gate), which cannot be exported to ONNX
    return torch.minimum(reduced, gate) - functional.softplus(-(reduced - gate).abs())


def _unit(inputs: int, outputs: int) -> nn.Sequential:
    """A 3 x 3 convolution with batch normalisation and ReLU."""
    return nn.Sequential(
        convolution(inputs, outputs, 3), batch_norm(outputs), nn.ReLU(inplace=True)
    )


class _Node(nn.Module):
    """A node of the decoder: one map of each scale, in its own resolution.

    Parameters
    ----------
    level
        0 is full resolution.
    channels
        Of the maps of all levels, fine to coarse.
    width
        What each of them is brought to.
    """

    def __init__(self, level: int, channels: list[int], width: int) -> None:
        super().__init__()
        self.level = level
        self.scales = nn.ModuleList(_unit(inputs, width) for inputs in channels)
        self.fuse = _unit(len(channels) * width, len(channels) * width)

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """From the maps of all levels, fine to coarse."""
        here = maps[self.level]
        brought = [
            unit(self._brought(scale, maps[scale], here)) for scale, unit in enumerate(self.scales)
        ]
        fused: torch.Tensor = self.fuse(torch.cat(brought, dim=1))
        return fused

    def _brought(self, scale: int, maps: torch.Tensor, here: torch.Tensor) -> torch.Tensor:
        if scale < self.level:
            return halved(maps, 2 ** (self.level - scale))
        return resized(maps, here) if scale > self.level else maps


class _Presence(nn.Module):
    """Logits ``(batch, organ)`` of whether each organ is there, from the coarsest maps."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Dropout(_DROPOUT), convolution(channels, classes, 1), nn.AdaptiveMaxPool2d(1)
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        presence: torch.Tensor = self.layers(maps).flatten(1)
        return presence


class _Unet3Plus(nn.Module):
    def __init__(
        self, in_channels: int, classes: int, width: int, *, deep_supervision: bool, gate: bool
    ) -> None:
        super().__init__()
        widths = doubled_widths(width, _LEVELS)
        self.encoder = nn.ModuleList(
            DoubleConvolution(inputs, outputs, bias=True)
            for inputs, outputs in zip([in_channels, *widths], widths, strict=False)
        )
        fused = _LEVELS * width
        below = [*[fused] * (_LEVELS - 2), widths[-1]]  # of levels 1 and coarser, to the finer
        self.decoder = nn.ModuleList(
            _Node(
                level, [*widths[: level + 1], *[fused] * (_LEVELS - 2 - level), widths[-1]], width
            )
            for level in range(_LEVELS - 1)
        )
        self.head = convolution(fused, classes, 3)
        self.deep_heads = nn.ModuleList(
            convolution(channels, classes, 3) for channels in (below if deep_supervision else [])
        )
        begin_seldom(self.head, *self.deep_heads)
        self.presence = _Presence(widths[-1], classes) if gate else None

    def forward(self, images: torch.Tensor) -> torch.Tensor | Outputs:
        maps = [self.encoder[0](images)]
        for block in self.encoder[1:]:
            maps.append(block(halved(maps[-1])))
        presence = None if self.presence is None else self.presence(maps[-1])
        for level in reversed(range(len(self.decoder))):
            maps[level] = self.decoder[level](maps)  # finer nodes see it in the encoder's place
        logits = self._answer(self.head(maps[0]), presence)
        if not self.training:
            return logits
        deep = (
            self._answer(resized(head(coarse), images), presence)
            for head, coarse in zip(self.deep_heads, maps[1:], strict=False)
        )
        return Outputs(logits, deep=tuple(deep), presence=presence)

    @staticmethod
    def _answer(logits: torch.Tensor, presence: torch.Tensor | None) -> torch.Tensor:
        return logits if presence is None else gated_logits(logits, presence)


@register(
    "unet_3plus",
    multiple=2 ** (_LEVELS - 1),
    facts=Facts(
        title="UNet 3+",
        year=2020,
        paper="Huang et al., arXiv:2004.08790",
        published="LiTS liver: Dice .9675 with the hybrid loss and the gate",
        licence=OWN_LICENCE,
    ),
)
def unet_3plus(
    in_channels: int,
    classes: int,
    *,
    width: int = 64,
    deep_supervision: bool = True,
    gate: bool = True,
) -> nn.Module:
    """Build a UNet 3+ with random weights.

    Parameters
    ----------
    in_channels, classes
        As in `gitract.models.create_model`.
    width
        Channels at full resolution, twice as many at each coarser level of the encoder; and
        channels that each scale has in a node of the decoder.
    deep_supervision
        Whether the coarser nodes and the bottleneck answer as well, in training.
    gate
        Whether the network also tells which organs a slice holds, and multiplies each
        organ's probabilities with that.

    Raises
    ------
    ValueError
        `width` is below 1.
    """
    check_positive(width=width)
    return _Unet3Plus(in_channels, classes, width, deep_supervision=deep_supervision, gate=gate)
