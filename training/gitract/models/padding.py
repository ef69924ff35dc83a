"""One wrapper that lets every network take every slice size."""

import torch
from torch import nn
from torch.nn import functional

__all__ = ["PadToMultiple"]


class PadToMultiple(nn.Module):
    """Pad the input to a multiple, run the network, crop its output back.

    Zero is what preparation gives the air around the patient, so the padding looks
    like more air.

    Parameters
    ----------
    network
        Takes ``(batch, channels, rows, columns)``, keeps rows and columns.
    multiple
        What its input sides must be divisible by.
    """

    def __init__(self, network: nn.Module, multiple: int) -> None:
        super().__init__()
        self.network = network
        self.multiple = multiple

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Run the network on images of any size."""
        rows, columns = images.shape[-2:]
        below, right = -rows % self.multiple, -columns % self.multiple
        if below or right:
            images = functional.pad(images, (0, right, 0, below))
        logits: torch.Tensor = self.network(images)
        return logits[..., :rows, :columns]
