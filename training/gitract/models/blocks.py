"""What several networks are built of, in 2-D or 3-D."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional

__all__ = [
    "AnyConvolution",
    "DoubleConvolution",
    "SqueezeExcite",
    "batch_norm",
    "begin_seldom",
    "check_one_of",
    "check_positive",
    "convolution",
    "doubled_widths",
    "halved",
    "recast",
    "resized",
    "up_convolution",
]

AnyConvolution = nn.Conv2d | nn.Conv3d

_CONVOLUTIONS: dict[int, type[AnyConvolution]] = {2: nn.Conv2d, 3: nn.Conv3d}
_UP_CONVOLUTIONS: dict[int, type[nn.ConvTranspose2d] | type[nn.ConvTranspose3d]] = {
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}
_SELDOM = -3.0  # logit of a probability of 5 %
_BATCH_NORMS: dict[int, type[nn.BatchNorm2d] | type[nn.BatchNorm3d]] = {
    2: nn.BatchNorm2d,
    3: nn.BatchNorm3d,
}


def check_positive(**options: int | Sequence[int]) -> None:
    """Refuse options that count something, or hold such numbers, and are below 1.

    Raises
    ------
    ValueError
        One of them is.
    """
    for name, option in options.items():
        if (option if isinstance(option, int) else min(option)) < 1:
            raise ValueError(f"{name} is {option}, and must be 1 or more")


def check_one_of(choices: Sequence[int], **options: int) -> None:
    """Refuse options that are none of the numbers that are possible.

    Raises
    ------
    ValueError
        One of them is.
    """
    for name, option in options.items():
        if option not in choices:
            listed = " or ".join(str(choice) for choice in choices)
            raise ValueError(f"{name} is {option}, and must be {listed}")


def doubled_widths(width: int, levels: int) -> list[int]:
    """Channels of each level, fine to coarse: `width`, and twice as many at each next one."""
    return [width * 2**level for level in range(levels)]


def convolution(
    inputs: int, outputs: int, size: int, *, stride: int = 1, bias: bool = True, dimensions: int = 2
) -> AnyConvolution:
    """A convolution; with an odd `size` and without stride it keeps the sides."""
    pad = size // 2 if stride == 1 else 0
    build = _CONVOLUTIONS[dimensions]
    return build(inputs, outputs, size, stride=stride, padding=pad, bias=bias)


def up_convolution(
    inputs: int, outputs: int, *, bias: bool = True, dimensions: int = 2
) -> nn.ConvTranspose2d | nn.ConvTranspose3d:
    """A transposed convolution that doubles the sides; no two input pixels share an output one."""
    return _UP_CONVOLUTIONS[dimensions](inputs, outputs, 2, stride=2, bias=bias)


def batch_norm(channels: int, dimensions: int = 2) -> nn.Module:
    """Batch normalisation."""
    return _BATCH_NORMS[dimensions](channels)


def recast(network: nn.Module, classes: Mapping[type[nn.Module], type[nn.Module]]) -> None:
    """Let modules of exactly these classes be of others with the same weights; in place."""
    for module in network.modules():
        if type(module) in classes:
            module.__class__ = classes[type(module)]


def begin_seldom(*heads: nn.Module) -> None:
    """Let heads begin with a probability of 5 % everywhere; changed in place.

    Organs cover a few percent of a scan. A network that begins with one half learns to be
    silent first, and what silences it most quickly takes hundreds of steps to undo.
    Lin et al. 2017, arXiv:1708.02002, section 4.1.

    Parameters
    ----------
    heads
        Of logits; the bias of their last convolution is set.
    """
    for head in heads:
        *_, last = (part for part in head.modules() if isinstance(part, nn.Conv2d | nn.Conv3d))
        assert last.bias is not None
        nn.init.constant_(last.bias, _SELDOM)


class DoubleConvolution(nn.Sequential):
    """Twice a 3 x 3 (x 3) convolution and a ReLU, with batch normalisation between them.

    Parameters
    ----------
    inputs, outputs
        Channels.
    bias
        Whether the convolutions have one.
    normalised
        Whether there is batch normalisation.
    dimensions
        2 or 3.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        bias: bool = False,
        normalised: bool = True,
        dimensions: int = 2,
    ) -> None:
        layers: list[nn.Module] = []
        for channels in (inputs, outputs):
            layers.append(convolution(channels, outputs, 3, bias=bias, dimensions=dimensions))
            if normalised:
                layers.append(batch_norm(outputs, dimensions))
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class SqueezeExcite(nn.Module):
    """Channels weighted by what the means of all of them say.

    Hu et al. 2018, arXiv:1709.01507, without biases. Of the squeezed units each has its
    opposite, so that one of the two passes the ReLU: where there are as few as two, both began
    silent in one of eight networks, and learned nothing.

    Parameters
    ----------
    width
        Channels.
    reduction
        How many of them share a unit between.
    """

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        squeezed = max(1, width // reduction)
        squeeze = convolution(width, squeezed, 1, bias=False)
        half = squeezed // 2
        squeeze.weight.data[half : 2 * half] = -squeeze.weight.data[:half]
        self.weights = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            squeeze,
            nn.ReLU(inplace=True),
            convolution(squeezed, width, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps ``(batch, width, rows, columns)``, each channel scaled."""
        weighted: torch.Tensor = maps * self.weights(maps)
        return weighted


def halved(maps: torch.Tensor, factor: int = 2) -> torch.Tensor:
    """Sides divided by `factor`: the maximum of each block."""
    pool = functional.max_pool2d if maps.ndim == 4 else functional.max_pool3d
    return pool(maps, factor)


def resized(maps: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Maps in the size of others, by (tri)linear interpolation.

    Parameters
    ----------
    maps, like
        ``(batch, channels, rows, columns)`` or ``(batch, channels, slices, rows, columns)``.
    """
    mode = "bilinear" if maps.ndim == 4 else "trilinear"
    return functional.interpolate(maps, size=like.shape[2:], mode=mode, align_corners=False)
