"""U-Net with an interchangeable encoder, from segmentation-models-pytorch.

Ronneberger et al. 2015, arXiv:1505.04597, with the encoders of timm. Departs from the
paper in that the encoder's first features are at half resolution, so there is no skip at
full resolution, and that up-sampling is nearest-neighbour.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from gitract.errors import InputError
from gitract.models.outputs import Outputs
from gitract.models.registry import Facts, register
from gitract.torchvision_guard import ensure_torchvision

__all__ = ["encoder_unet"]


class _SameConvolution(nn.Conv2d):
    """TensorFlow's padding for sides that the stride divides, as those that get here.

    timm's own computes it anew for every size, which cannot be exported with free sizes.
    """

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Pad by what is known beforehand, and convolve."""
        rows, columns = (
            max(0, (side - 1) * dilation + 1 - stride)
            for side, dilation, stride in zip(
                self.kernel_size, self.dilation, self.stride, strict=True
            )
        )
        pad = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
        return functional.conv2d(
            functional.pad(images, pad), self.weight, self.bias, self.stride, 0,
            self.dilation, self.groups,
        )  # fmt: skip


class _WithPresence(nn.Module):
    """smp's classification head answers in training alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor | Outputs:
        logits, presence = self.network(images)
        return Outputs(logits, presence=presence) if self.training else logits


@register(
    "encoder_unet",
    multiple=32,
    facts=Facts(
        title="U-Net with an encoder",
        year=2015,
        paper="Ronneberger et al., arXiv:1505.04597",
        published="",
        licence="MIT (segmentation-models-pytorch); encoders as timm says, mostly Apache-2.0",
    ),
)
def encoder_unet(
    in_channels: int,
    classes: int,
    *,
    encoder: str = "efficientnet-b0",
    decoder_channels: Sequence[int] = (128, 96, 64, 32, 16),
    presence: bool = False,
) -> nn.Module:
    """Build smp's U-Net with random weights.

    Parameters
    ----------
    in_channels, classes
        As in `gitract.models.create_model`.
    encoder
        Any encoder name of smp, ``tu-...`` for timm's.
    decoder_channels
        Width of the decoder's five stages, coarse to fine.
    presence
        Whether it also tells, in training, which organs a slice holds, from the mean of
        the coarsest features.

    Raises
    ------
    InputError
        smp does not know the encoder.
    """
    ensure_torchvision()
    import segmentation_models_pytorch as smp
    import timm

    try:
        network = smp.Unet(
            encoder_name=encoder,
            encoder_weights=None,
            in_channels=in_channels,
            classes=classes,
            decoder_channels=tuple(decoder_channels),
            aux_params={"classes": classes, "dropout": None} if presence else None,
        )
    except (KeyError, RuntimeError) as error:
        raise InputError(
            f"Unknown encoder {encoder!r}: take a name from segmentation-models-pytorch."
        ) from error
    for module in network.modules():
        if isinstance(module, timm.layers.Conv2dSame):
            module.__class__ = _SameConvolution  # type: ignore[assignment]  # same names
        if isinstance(module, nn.BatchNorm2d):
            # Some encoders average their statistics over hundreds of steps: made for long
            # trainings, and far from the truth in short ones.
            module.momentum = 0.1
    return _WithPresence(network) if presence else network
