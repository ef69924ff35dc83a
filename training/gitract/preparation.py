"""From a scan's slices to a network's input, and from its output back to the scan.

The same code serves training, prediction and fine-tuning; what can vary is in
`gitract.model_config.Preparation`, which travels with each model.
"""

import numpy as np
import torch
from torch.nn import functional

from gitract.model_config import Preparation
from gitract.scan import Spacing

__all__ = ["neighbour_indices", "network_input", "prepare_slices", "prepared_size", "to_grid"]


def prepared_size(shape: tuple[int, int], spacing: Spacing, pixel_mm: float) -> tuple[int, int]:
    """Rows and columns of a slice after resampling to square pixels of `pixel_mm`."""
    _, row_mm, column_mm = spacing
    rows, columns = shape
    return max(1, round(rows * row_mm / pixel_mm)), max(1, round(columns * column_mm / pixel_mm))


def prepare_slices(voxels: np.ndarray, spacing: Spacing, preparation: Preparation) -> torch.Tensor:
    """Resample slices in plane and bring each slice's grey values to 0...1.

    Each slice is scaled by its own percentiles: what is common to raw 16-bit scans and
    to exports that were stretched slice by slice.

    Parameters
    ----------
    voxels
        ``(slice, row, column)``, any integer or float type.
    spacing
        ``(slice, row, column)`` in mm.
    preparation
        The model's.

    Returns
    -------
    torch.Tensor
        float32 ``(slice, row, column)`` of `prepared_size`.
    """
    size = prepared_size(voxels.shape[1:], spacing, preparation.pixel_mm)
    slices = torch.from_numpy(np.ascontiguousarray(voxels, dtype=np.float32))
    slices = functional.interpolate(
        slices[:, None], size=size, mode="bilinear", antialias=True, align_corners=False
    )[:, 0]
    limits = np.percentile(
        slices.numpy(), (preparation.low_percentile, preparation.high_percentile), axis=(1, 2)
    )
    low, high = torch.from_numpy(limits.astype(np.float32))[:, :, None, None]
    # A smaller range is rounding error, which must not be stretched to 0...1.
    least = 1e-4 * torch.maximum(low.abs(), high.abs()).clamp_min(1e-30)
    return ((slices - low) / torch.maximum(high - low, least)).clamp(0.0, 1.0)


def neighbour_indices(index: int, count: int, preparation: Preparation) -> list[int]:
    """The slices that go in with slice `index` of `count`, ends repeated."""
    reach = preparation.neighbours
    offsets = range(-reach * preparation.stride, reach * preparation.stride + 1, preparation.stride)
    return [min(max(index + offset, 0), count - 1) for offset in offsets]


def network_input(
    slices: torch.Tensor, indices: list[int], preparation: Preparation
) -> torch.Tensor:
    """Gather slices with their neighbours.

    Parameters
    ----------
    slices
        What `prepare_slices` gave.
    indices
        The slices wanted.

    Returns
    -------
    torch.Tensor
        ``(len(indices), preparation.channels, row, column)``.
    """
    gathered = [neighbour_indices(index, len(slices), preparation) for index in indices]
    return slices[torch.tensor(gathered)]


def to_grid(maps: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """Resample logits or probabilities ``(batch, organ, row, column)`` to a scan's slices."""
    return functional.interpolate(maps, size=shape, mode="bilinear", align_corners=False)
