"""DDANet: one decoder outlines, a second one draws the image and tells the first where to look.

Tomar et al. 2020, arXiv:2012.15245. Departs from the paper in that

- what is drawn is the grey centre slice of the stack that comes in, and only in training;
- organs may overlap: one logit for each, and a sigmoid only afterwards;
- squeeze-and-excitation begins with pairs of opposite units.

It stands behind batch normalisation, as in the authors' own form, so in training on a batch of one
it is told the same of every image. Where 16 channels are squeezed to a single unit, this one may
fall silent, and then weighs each channel by a half.
"""

from collections.abc import Sequence

import torch
from torch import nn

from gitract.models.blocks import SqueezeExcite, begin_seldom, halved
from gitract.models.outputs import Outputs
from gitract.models.registry import OWN_LICENCE, Facts, register

__all__ = ["DDANet", "ddanet"]

_SQUEEZE = 16
_WIDTHS = (32, 64, 128, 256)


class _Residual(nn.Module):
    """Two 3x3 convolutions beside a 1x1 one, whose channels are weighted."""

    def __init__(self, into: int, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(into, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
        )
        self.shortcut = nn.Sequential(
            nn.Conv2d(into, width, 1), nn.BatchNorm2d(width), SqueezeExcite(width, _SQUEEZE)
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.branch(maps) + self.shortcut(maps))


def _blocks(into: int, width: int) -> nn.Sequential:
    return nn.Sequential(_Residual(into, width), _Residual(width, width))


class _Up(nn.Module):
    """Twice the resolution, skip, residual blocks."""

    def __init__(self, into: int, skip: int, width: int) -> None:
        super().__init__()
        self.enlarge = nn.ConvTranspose2d(into, width, 4, stride=2, padding=1)
        self.blocks = _blocks(width + skip, width)

    def forward(self, maps: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        fine: torch.Tensor = self.blocks(torch.cat([self.enlarge(maps), skip], dim=1))
        return fine


class DDANet(nn.Module):
    """The network.

    Parameters
    ----------
    in_channels, classes, widths
        As in `ddanet`.
    """

    def __init__(self, in_channels: int, classes: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            _blocks(into, width)
            for into, width in zip([in_channels, *widths[:-1]], widths, strict=True)
        )
        decoder = [width // 2 for width in widths[::-1]]
        stages = list(zip([widths[-1], *decoder[:-1]], widths[::-1], decoder, strict=True))
        self.outlining = nn.ModuleList(_Up(*stage) for stage in stages)
        self.drawing = nn.ModuleList(_Up(*stage) for stage in stages)
        self.gates = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, 1, 1), nn.Sigmoid()) for width in decoder
        )
        self.head = nn.Conv2d(decoder[-1], classes, 1)
        begin_seldom(self.head)
        self.drawing_head = nn.Conv2d(decoder[-1], 1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor | Outputs:
        """Logits ``(batch, organ, row, column)`` of images ``(batch, channel, row, column)``.

        Sides must be divisible by 16. In training mode logits of the drawn slice are beside
        them.
        """
        maps, skips = images, []
        for blocks in self.down:
            skips.append(blocks(maps))
            maps = halved(skips[-1])
        outlined = drawn = maps
        for outline, draw, gate, skip in zip(
            self.outlining, self.drawing, self.gates, skips[::-1], strict=True
        ):
            drawn = draw(drawn, skip)
            outlined = outline(outlined, skip) * gate(drawn)
        logits: torch.Tensor = self.head(outlined)
        if not self.training:
            return logits
        return Outputs(logits, reconstruction=self.drawing_head(drawn))


@register(
    "ddanet",
    multiple=lambda options: 2 ** len(options.get("widths", _WIDTHS)),
    facts=Facts(
        title="DDANet",
        year=2020,
        paper="Tomar et al., arXiv:2012.15245",
        published="Kvasir-SEG polyps: Dice .8576 in validation, .7874 in the organisers' test",
        licence=OWN_LICENCE,
    ),
)
def ddanet(in_channels: int, classes: int, *, widths: Sequence[int] = _WIDTHS) -> nn.Module:
    """Build a DDANet with random weights.

    Parameters
    ----------
    in_channels, classes
        As in `gitract.models.create_model`.
    widths
        Channels of the encoder's levels, fine to coarse; half as many in the decoders.

    Raises
    ------
    ValueError
        An option is out of its range.
    """
    if not widths or min(widths) < 2:
        raise ValueError(f"widths is {list(widths)}, and must hold numbers from 2 on")
    return DDANet(in_channels, classes, widths)
