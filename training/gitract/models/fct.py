"""The fully convolutional transformer: attention over every map of a U-Net, from 1/2 to 1/32.

Tragakis et al. 2022, arXiv:2206.00566, in the form of 31.7 million parameters.

Departs from the authors' code, which runs at one image size only, in these points:

- layers are normalised over the channels of each pixel, so that any size can be taken;
- the image itself is normalised over the whole slice, with as many parameters: over its
  channels alone a single one would always come out as zero, and neighbouring slices would
  lose how bright they are;
- the heads answer with logits of each organ instead of probabilities, the two coarser ones in
  training alone;
- weights start as Glorot and Bengio's, biases at zero, from where it learns sooner than from
  torch's start.

The attention never holds its weights as a whole, of which each head has 16 384 x 4 096 at 1/2
of 256 x 256 pixels. One such image of three slices took 93 MiB beyond the network's own 121 MiB
on the CPU in evaluation (1.2 GiB with torch's explicit attention, 0.5 GiB in training with the
gradients): growth of the process's greatest resident size, float32, one thread.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from gitract.models.blocks import begin_seldom
from gitract.models.outputs import Outputs
from gitract.models.registry import OWN_LICENCE, Facts, register

__all__ = ["FullyConvolutionalTransformer", "fct"]

_LEVELS = 5
_HEADS = 3
_DILATIONS = (1, 2, 3)


class _Settings(NamedTuple):
    """What every level has in common."""

    heads: int
    dropout: float
    focus_dropout: float


class _ChannelNorm(nn.LayerNorm):
    """Layer normalisation of each pixel over its channels."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return super().forward(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _convolution(inputs: int, outputs: int, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation)


def _two_convolutions(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        _convolution(inputs, outputs), nn.ReLU(), _convolution(outputs, outputs), nn.ReLU()
    )


class _Projection(nn.Module):
    """Maps to queries, keys or values ``(batch, head, position, width)``.

    Parameters
    ----------
    width
        Channels of the maps, and of every head.
    heads
        How many.
    stride
        Of the positions, in pixels.
    """

    def __init__(self, width: int, heads: int, stride: int) -> None:
        super().__init__()
        self.heads = heads
        self.depthwise = nn.Conv2d(
            width, width, 3, stride=stride, padding=1, groups=width, bias=False
        )
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, heads * width)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        tokens = self.norm(self.depthwise(maps).flatten(2).transpose(1, 2))
        return self.linear(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)


class _Attention(nn.Module):
    """Each pixel asks every second one, with heads as wide as the maps.

    What shifts all keys alike changes nothing, since softmax takes it out: the biases of their
    norm and of their projection get no gradient, and are there for the paper's count alone.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.queries = _Projection(width, heads, stride=1)
        self.keys = _Projection(width, heads, stride=2)
        self.values = _Projection(width, heads, stride=2)
        self.merge = nn.Linear(heads * width, width)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        attended = functional.scaled_dot_product_attention(
            self.queries(maps), self.keys(maps), self.values(maps)
        )
        tokens: torch.Tensor = self.merge(attended.transpose(1, 2).flatten(2))
        return tokens.transpose(1, 2).reshape(maps.shape)


class _WideFocus(nn.Module):
    """What is near, less near and far of each pixel, summed: instead of an MLP."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(_convolution(width, width, dilation), nn.GELU(), nn.Dropout(dropout))
            for dilation in _DILATIONS
        )
        self.merge = nn.Sequential(_convolution(width, width), nn.GELU())

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        near, middle, far = (branch(maps) for branch in self.branches)
        merged: torch.Tensor = self.merge(near + middle + far)
        return merged


class _Transformer(nn.Module):
    """Attention, then Wide-Focus, both beside a shortcut."""

    def __init__(self, width: int, settings: _Settings) -> None:
        super().__init__()
        self.attention = _Attention(width, settings.heads)
        self.mix = nn.Sequential(_convolution(width, width), nn.ReLU())
        self.norm = _ChannelNorm(width)
        self.focus = _WideFocus(width, settings.focus_dropout)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        maps = maps + self.mix(self.attention(maps))
        focused: torch.Tensor = self.focus(self.norm(maps))
        return maps + focused


class _Pyramid(nn.Module):
    """The image once more, beside the maps of a coarser level."""

    def __init__(self, in_channels: int, width: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.convolution = nn.Sequential(_convolution(in_channels, width), nn.ReLU())

    def forward(self, maps: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        small = functional.avg_pool2d(images, self.scale)
        return torch.cat([maps, self.convolution(small)], dim=1)


class _Encoder(nn.Module):
    """One level down, to half the size.

    Parameters
    ----------
    norm
        Of what comes in.
    pyramid
        None where the image does not join.
    inputs, width
        Channels before the convolutions, and from there on.
    settings
        As of all levels.
    """

    def __init__(
        self,
        norm: nn.Module,
        pyramid: _Pyramid | None,
        inputs: int,
        width: int,
        settings: _Settings,
    ) -> None:
        super().__init__()
        self.norm = norm
        self.pyramid = pyramid
        self.convolutions = _two_convolutions(inputs, width)
        self.dropout = nn.Dropout(settings.dropout)
        self.transformer = _Transformer(width, settings)

    def forward(self, maps: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        maps = self.norm(maps)
        if self.pyramid is not None:
            maps = self.pyramid(maps, images)
        maps = functional.max_pool2d(self.dropout(self.convolutions(maps)), 2)
        smaller: torch.Tensor = self.transformer(maps)
        return smaller


def _encoders(in_channels: int, widths: Sequence[int], settings: _Settings) -> nn.ModuleList:
    first, *amid, coarsest = pairwise((in_channels, *widths))
    image_norm = nn.GroupNorm(1, in_channels)
    return nn.ModuleList(
        [
            _Encoder(image_norm, None, *first, settings),
            *(
                _Encoder(
                    _ChannelNorm(inputs),
                    _Pyramid(in_channels, inputs, scale=2**level),
                    2 * inputs,
                    width,
                    settings,
                )
                for level, (inputs, width) in enumerate(amid, start=1)
            ),
            _Encoder(_ChannelNorm(coarsest[0]), None, *coarsest, settings),
        ]
    )


class _Decoder(nn.Module):
    """One level up, to twice the size, with the encoder's maps of that size."""

    def __init__(self, inputs: int, width: int, settings: _Settings) -> None:
        super().__init__()
        self.norm = _ChannelNorm(inputs)
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2),
            nn.ZeroPad2d((0, 1, 0, 1)),  # a kernel of 2 then keeps the size
            nn.Conv2d(inputs, width, 2),
            nn.ReLU(),
        )
        self.convolutions = _two_convolutions(2 * width, width)
        self.dropout = nn.Dropout(settings.dropout)
        self.transformer = _Transformer(width, settings)

    def forward(self, maps: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        maps = torch.cat([skip, self.up(self.norm(maps))], dim=1)
        larger: torch.Tensor = self.transformer(self.dropout(self.convolutions(maps)))
        return larger


def _head(width: int, classes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Upsample(scale_factor=2),
        _ChannelNorm(width),
        _two_convolutions(width, width),
        nn.Conv2d(width, classes, 1),
    )


def _start(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class FullyConvolutionalTransformer(nn.Module):
    """Five levels down, four up, and a head on each of the three finest.

    Parameters
    ----------
    in_channels, classes
        Slices in, organs out.
    widths
        Channels of the levels, fine to coarse.
    heads
        Of every attention.
    dropout, focus_dropout
        After the convolutions of each level, and within Wide-Focus.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        widths: Sequence[int],
        heads: int,
        dropout: float,
        focus_dropout: float,
    ) -> None:
        super().__init__()
        settings = _Settings(heads, dropout, focus_dropout)
        self.encoders = _encoders(in_channels, widths, settings)
        upwards = widths[::-1]
        self.decoders = nn.ModuleList(
            _Decoder(inputs, width, settings) for inputs, width in pairwise(upwards)
        )
        self.heads = nn.ModuleList(_head(width, classes) for width in upwards[-_HEADS:])
        self.apply(_start)
        begin_seldom(*self.heads)

    def forward(self, images: torch.Tensor) -> torch.Tensor | Outputs:
        """``(batch, channel, row, column)``, sides divisible by 32, to logits of each organ.

        In training mode also the logits at 1/2 and 1/4.
        """
        maps = images
        encoded = []
        for encoder in self.encoders:
            maps = encoder(maps, images)
            encoded.append(maps)
        decoded = []
        for decoder, skip in zip(self.decoders, encoded[-2::-1], strict=True):
            maps = decoder(maps, skip)
            decoded.append(maps)
        if not self.training:
            logits: torch.Tensor = self.heads[-1](maps)
            return logits
        quarter, half, full = (
            head(maps) for head, maps in zip(self.heads, decoded[-_HEADS:], strict=True)
        )
        return Outputs(full, deep=(half, quarter))


@register(
    "fct",
    multiple=2**_LEVELS,
    facts=Facts(
        title="FCT",
        year=2022,
        paper="Tragakis et al., arXiv:2206.00566",
        published="ACDC (heart), the authors' split: mean Dice .9302 at 384 x 384",
        licence=OWN_LICENCE,
    ),
)
def fct(
    in_channels: int,
    classes: int,
    *,
    width: int = 32,
    heads: int = 2,
    dropout: float = 0.3,
    focus_dropout: float = 0.1,
) -> nn.Module:
    """Build the fully convolutional transformer with random weights.

    Parameters
    ----------
    in_channels, classes
        As in `gitract.models.create_model`.
    width
        Channels at half resolution; twice as many at each coarser level.
    heads
        Of every attention, each as wide as the maps it sees.
    dropout
        After the two convolutions of each level.
    focus_dropout
        In the branches of Wide-Focus.

    Raises
    ------
    ValueError
        An option is out of its range.
    """
    if width < 2:  # a single channel would always be normalised to zero
        raise ValueError(f"width is {width}, and must be 2 or more")
    if heads < 1:
        raise ValueError(f"heads is {heads}, and must be 1 or more")
    for name, share in (("dropout", dropout), ("focus_dropout", focus_dropout)):
        if not 0 <= share < 1:
            raise ValueError(f"{name} is {share}, and must be from 0 to below 1")
    widths = [width * 2**level for level in range(_LEVELS)]
    return FullyConvolutionalTransformer(
        in_channels, classes, widths, heads, dropout, focus_dropout
    )
