"""U-Net whose skip connections are gated by what the coarser level saw.

Oktay et al. 2018, arXiv:1804.03999, with one gate for each of the three coarser skips; the
finest has none.

In 3-D the layout is that of the authors' code: convolutions with bias, trilinear
up-sampling, a 1 x 1 convolution of the bottleneck before it gates, and another behind each
gate. There is no 2-D network of theirs; here it is the zoo's plain U-Net, with transposed
convolutions, and the gates alone added. Departs from the paper in that

- the coefficients are interpolated behind the sigmoid, as in the code, not before it;
- deep supervision has no loss of its own: as in the code, one 1 x 1 convolution mixes the
  heads of all levels;
- convolutions are followed by batch normalisation, as in the code.

Gates begin almost open, as the paper has it; in the code they begin half open.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from gitract.models.blocks import (
    DoubleConvolution,
    batch_norm,
    begin_seldom,
    check_one_of,
    convolution,
    halved,
    resized,
    up_convolution,
)
from gitract.models.registry import OWN_LICENCE, Facts, register

__all__ = ["AttentionGate", "attention_unet"]

_WIDTHS = {2: (64, 128, 256, 512, 1024), 3: (16, 32, 64, 128, 256)}
_LEVELS = 5
_OPEN = 3.0


def _dimensions(options: Mapping[str, Any]) -> int:
    return int(options.get("dimensions", 2))


class AttentionGate(nn.Module):
    """Let through of a skip what a coarser signal points at.

    The skip x and the signal g give the coefficients
    sigmoid(psi(ReLU(theta(x) + phi(g)))) at half the skip's resolution; they are
    interpolated, multiply x, and a 1 x 1 convolution with batch normalisation follows.

    Parameters
    ----------
    channels
        Of the skip, and between.
    gating_channels
        Of the signal.
    dimensions
        2 or 3.
    """

    def __init__(self, channels: int, gating_channels: int, dimensions: int) -> None:
        super().__init__()
        self.theta = convolution(channels, channels, 2, stride=2, bias=False, dimensions=dimensions)
        self.phi = convolution(gating_channels, channels, 1, dimensions=dimensions)
        self.psi = convolution(channels, 1, 1, dimensions=dimensions)
        assert self.psi.bias is not None
        nn.init.constant_(self.psi.bias, _OPEN)
        self.result = nn.Sequential(
            convolution(channels, channels, 1, dimensions=dimensions),
            batch_norm(channels, dimensions),
        )

    def forward(self, skip: torch.Tensor, signal: torch.Tensor) -> torch.Tensor:
        """The gated skip.

        Parameters
        ----------
        skip
            ``(batch, channels, rows, columns)``, or with slices before the rows.
        signal
            ``(batch, gating_channels, ...)`` of half the sides.

        Returns
        -------
        torch.Tensor
            In the shape of `skip`.
        """
        found = torch.relu(self.theta(skip) + self.phi(signal))
        gate = torch.sigmoid(self.psi(found))
        gated: torch.Tensor = self.result(resized(gate, skip) * skip)
        return gated


def _unit(channels: int, dimensions: int) -> nn.Sequential:
    """A 1 x 1 convolution with batch normalisation and ReLU."""
    return nn.Sequential(
        convolution(channels, channels, 1, dimensions=dimensions),
        batch_norm(channels, dimensions),
        nn.ReLU(inplace=True),
    )


class _Fused(nn.Module):
    """A head for each level, all brought to full size and mixed by one convolution."""

    def __init__(self, widths: Sequence[int], classes: int, dimensions: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            convolution(width, classes, 1, dimensions=dimensions) for width in widths
        )
        self.mix = convolution(len(widths) * classes, classes, 1, dimensions=dimensions)
        begin_seldom(self.mix)

    def forward(self, levels: list[torch.Tensor]) -> torch.Tensor:
        """Logits from the decoder's maps, fine to coarse."""
        answers = [
            resized(head(maps), levels[0]) for head, maps in zip(self.heads, levels, strict=True)
        ]
        logits: torch.Tensor = self.mix(torch.cat(answers, dim=1))
        return logits


class _Finest(nn.Module):
    """A head on the finest level alone."""

    def __init__(self, widths: Sequence[int], classes: int, dimensions: int) -> None:
        super().__init__()
        self.head = convolution(widths[0], classes, 1, dimensions=dimensions)
        begin_seldom(self.head)

    def forward(self, levels: list[torch.Tensor]) -> torch.Tensor:
        """Logits from the decoder's maps, fine to coarse."""
        logits: torch.Tensor = self.head(levels[0])
        return logits


class _AttentionUnet(nn.Module):
    """Widths are the channels of the five levels, fine to coarse."""

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        widths: Sequence[int],
        dimensions: int,
        deep_supervision: bool,
    ) -> None:
        super().__init__()
        authors = dimensions == 3

        def double(inputs: int, outputs: int) -> nn.Module:
            return DoubleConvolution(inputs, outputs, bias=authors, dimensions=dimensions)

        def unit(channels: int) -> nn.Module:
            return _unit(channels, dimensions) if authors else nn.Identity()

        pairs = list(zip(widths, widths[1:], strict=False))
        self.encoder = nn.ModuleList(
            double(inputs, outputs)
            for inputs, outputs in zip([in_channels, *widths], widths, strict=False)
        )
        self.signal = unit(widths[-1])
        self.gates = nn.ModuleList(
            AttentionGate(fine, coarse, dimensions) for fine, coarse in pairs[1:]
        )
        self.gated = nn.ModuleList(unit(width) for width in widths[1:-1])
        self.up = nn.ModuleList(
            nn.Upsample(scale_factor=2, mode="trilinear")
            if authors
            else up_convolution(coarse, fine)
            for fine, coarse in pairs
        )
        self.decoder = nn.ModuleList(
            double(fine + (coarse if authors else fine), fine) for fine, coarse in pairs
        )
        head = _Fused if deep_supervision else _Finest
        self.head = head(widths[:-1], classes, dimensions)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        skips = [self.encoder[0](images)]
        for block in self.encoder[1:]:
            skips.append(block(halved(skips[-1])))
        maps = skips.pop()
        signal = self.signal(maps)
        decoded: list[torch.Tensor] = []
        for level in reversed(range(len(skips))):
            skip = skips[level]
            if level > 0:
                skip = self.gated[level - 1](self.gates[level - 1](skip, signal))
            maps = self.decoder[level](torch.cat([skip, self.up[level](maps)], dim=1))
            signal = maps
            decoded.insert(0, maps)
        logits: torch.Tensor = self.head(decoded)
        return logits


@register(
    "attention_unet",
    multiple=2 ** (_LEVELS - 1),
    dimensions=_dimensions,
    facts=Facts(
        title="Attention U-Net",
        year=2018,
        paper="Oktay et al., arXiv:1804.03999",
        published="CT-150 pancreas (120 for training, 30 for the test): Dice .840 (U-Net .814)",
        licence=OWN_LICENCE,
    ),
)
def attention_unet(
    in_channels: int,
    classes: int,
    *,
    dimensions: int = 2,
    widths: Sequence[int] | None = None,
    deep_supervision: bool = True,
) -> nn.Module:
    """Build an Attention U-Net with random weights.

    Parameters
    ----------
    in_channels, classes
        As in `gitract.models.create_model`.
    dimensions
        2 or 3.
    widths
        Channels of the five levels, fine to coarse. None: 64 to 1024 in 2-D, 16 to 256 in 3-D.
    deep_supervision
        Whether the heads of all levels make the answer, or that of the finest alone.

    Raises
    ------
    ValueError
        An option is out of its range.
    """
    check_one_of((2, 3), dimensions=dimensions)
    widths = _WIDTHS[dimensions] if widths is None else widths
    if len(widths) != _LEVELS or min(widths) < 1:
        raise ValueError(f"widths is {list(widths)}, and must hold {_LEVELS} numbers from 1 on")
    return _AttentionUnet(
        in_channels,
        classes,
        widths=widths,
        dimensions=dimensions,
        deep_supervision=deep_supervision,
    )
