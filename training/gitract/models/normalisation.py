"""Batch normalisation that takes batches of one."""

import torch
from torch import nn
from torch.nn import functional

from gitract.models.blocks import recast

__all__ = ["take_batches_of_one"]


class _Normalised(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation that falls back on its running statistics for a single value.

    A single value for each channel, as of one image that was averaged to a point, has no
    variance, and torch refuses it in training; fine-tuning on one slice meets it in every
    network with image pooling.
    """

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Normalise; by the running statistics where the batch has none of its own."""
        if self.training and values.numel() == values.shape[1]:
            return functional.batch_norm(
                values, self.running_mean, self.running_var, self.weight, self.bias, False,
                0.0, self.eps,
            )  # fmt: skip
        return super().forward(values)


class _BatchNorm1d(_Normalised, nn.BatchNorm1d):
    pass


class _BatchNorm2d(_Normalised, nn.BatchNorm2d):
    pass


class _BatchNorm3d(_Normalised, nn.BatchNorm3d):
    pass


_CLASSES: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: _BatchNorm1d,
    nn.BatchNorm2d: _BatchNorm2d,
    nn.BatchNorm3d: _BatchNorm3d,
}


def take_batches_of_one(network: nn.Module) -> nn.Module:
    """Let every plain batch normalisation of a network take a batch of one; changed in place."""
    recast(network, _CLASSES)
    return network
