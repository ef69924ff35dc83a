"""U-Net with an interchangeable encoder, from segmentation-models-pytorch.

Ronneberger et al. 2015, arXiv:1505.04597, with the encoders of timm. Departs from the
paper in that the encoder's first features are at half resolution, so there is no skip at
full resolution, and that up-sampling is nearest-neighbour. smp's own EfficientNets
(``efficientnet-b0``, not timm's) hold a last convolution that a U-Net does not use.
"""

from collections.abc import Sequence

import torch
from torch import nn

from gitract.models.outputs import Outputs
from gitract.models.registry import Facts, Family, register
from gitract.models.smp_encoders import built_by_smp, encoder_names, is_encoder

__all__ = ["encoder_unet"]


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
    family=Family("unet_", option="encoder", known=is_encoder, values=encoder_names),
)
def encoder_unet(
    in_channels: int,
    classes: int,
    *,
    encoder: str = "efficientnet-b0",
    decoder_channels: Sequence[int] = (128, 96, 64, 32, 16),
    presence: bool = False,
) -> nn.Module:
    """Build smp's U-Net with random weights; ``unet_resnet34`` is the one with that encoder.

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
    ValueError
        The encoder may not be used or does not fit, or `decoder_channels` are not five.
    """
    if len(decoder_channels) != 5 or min(decoder_channels) < 1:
        raise ValueError(
            f"decoder_channels is {list(decoder_channels)}, and must hold five numbers from 1 on"
        )
    network = built_by_smp(
        "Unet", in_channels, classes, encoder,
        decoder_channels=tuple(decoder_channels),
        aux_params={"classes": classes, "dropout": None} if presence else None,
    )  # fmt: skip
    return _WithPresence(network) if presence else network
