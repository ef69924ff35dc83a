"""Random changes of training slices: what differs between scanners, patients and exports.

Everything is drawn from the generators that are passed in, one for each sample, so a sample
is a function of its seed alone, whatever else is in the batch.
"""

import math
from collections.abc import Sequence
from functools import cache

import torch
from torch.nn import functional

from gitract.recipe import Augmentation

__all__ = ["augment"]


Generators = Sequence[torch.Generator]


def _normal(shape: Sequence[int], sigma: float, generators: Generators) -> torch.Tensor:
    """Normal numbers ``(sample, *shape)``, those of each sample from its own generator."""
    drawn = [torch.randn(tuple(shape), generator=generator) for generator in generators]
    return torch.stack(drawn) * sigma


def _uniform(shape: Sequence[int], generators: Generators) -> torch.Tensor:
    return torch.stack([torch.rand(tuple(shape), generator=one) for one in generators])


def _smooth_field(
    shape: tuple[int, int, int], sigma: float, generators: Generators, cells: int
) -> torch.Tensor:
    """Smooth random fields ``(sample, channel, row, column)`` from a coarse grid."""
    channels, rows, columns = shape
    coarse = _normal((channels, cells, cells), sigma, generators)
    return _bicubic(rows, cells) @ coarse @ _bicubic(columns, cells).T


@cache
def _bicubic(size: int, cells: int) -> torch.Tensor:
    """Weights ``(size, cells)`` of bicubic interpolation along one axis."""
    each = torch.eye(cells)[None, None]
    wide = functional.interpolate(each, size=(size, cells), mode="bicubic", align_corners=True)
    return wide[0, 0]


def _sampling_grid(
    size: int, pixel_mm: float, strength: Augmentation, generators: Generators
) -> torch.Tensor:
    """Where each output pixel looks, in the input's -1...1 coordinates."""
    batch = len(generators)
    angle = _normal((), math.radians(strength.rotation_deg), generators)
    zoom = torch.exp2(_normal((2,), strength.scale * 0.35, generators)) * torch.exp2(
        _normal((1,), strength.scale, generators)
    )
    shift = _normal((2,), 2 * strength.shift, generators)
    theta = torch.zeros(batch, 2, 3)
    theta[:, 0, 0] = torch.cos(angle) * zoom[:, 0]
    theta[:, 0, 1] = -torch.sin(angle) * zoom[:, 1]
    theta[:, 1, 0] = torch.sin(angle) * zoom[:, 0]
    theta[:, 1, 1] = torch.cos(angle) * zoom[:, 1]
    theta[:, :, 2] = shift
    grid = functional.affine_grid(theta, [batch, 1, size, size], align_corners=False)
    elastic = 2 * strength.elastic_mm / (pixel_mm * size)
    return grid + _smooth_field((2, size, size), elastic, generators, 8).permute(0, 2, 3, 1)


def _lower_resolution(
    images: torch.Tensor, strength: Augmentation, generators: Generators
) -> torch.Tensor:
    """Some images resampled to a coarser grid and back."""
    size = images.shape[-2:]
    chosen = _uniform((), generators) < strength.blur
    factors = 1.3 + 1.3 * _uniform((), generators)
    blurred = images.clone()
    for index in torch.nonzero(chosen)[:, 0].tolist():
        coarse = functional.interpolate(
            images[index : index + 1],
            scale_factor=1.0 / float(factors[index]),
            mode="bilinear",
            antialias=True,
        )
        blurred[index] = functional.interpolate(coarse, size=size, mode="bilinear")[0]
    return blurred


def _grey_values(
    images: torch.Tensor, strength: Augmentation, generators: Generators
) -> torch.Tensor:
    """Bias field, gamma, contrast, brightness and noise, the same for all neighbours."""
    one = (1, 1, 1)
    bias = _smooth_field(
        (1, images.shape[-2], images.shape[-1]), strength.bias_field, generators, 3
    )
    images = (images * torch.exp2(bias)).clamp(0.0, 1.5)
    images = images.clamp_min(1e-4) ** torch.exp2(_normal(one, strength.gamma, generators))
    images = images * torch.exp2(_normal(one, strength.contrast, generators))
    images = images + _normal(one, strength.brightness, generators)
    sigma = _uniform(one, generators) * strength.noise
    images = images + _normal(images.shape[1:], 1.0, generators) * sigma
    return images.clamp(0.0, 1.0)


def augment(
    images: torch.Tensor,
    masks: torch.Tensor,
    *,
    pixel_mm: float,
    strength: Augmentation,
    generators: Generators,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Change a batch of square crops at random.

    Parameters
    ----------
    images
        ``(batch, neighbour slice, row, column)``, 0 to 1, rows equal to columns.
    masks
        ``(batch, organ, row, column)``, 0 or 1.
    pixel_mm
        Pixel size.
    strength
        How much.
    generators
        Source of the randomness of each sample; may be one and the same.

    Returns
    -------
    tuple of torch.Tensor
        Images and masks, of the same shapes and ranges.
    """
    grid = _sampling_grid(images.shape[-1], pixel_mm, strength, generators)
    images = functional.grid_sample(images, grid, align_corners=False)
    masks = (functional.grid_sample(masks, grid, align_corners=False) > 0.5).to(masks.dtype)
    alone = _uniform((), generators) < strength.repeat_centre
    centre = images.shape[1] // 2
    images[alone] = images[alone, centre : centre + 1].expand_as(images[alone])
    images = _lower_resolution(images, strength, generators)
    return _grey_values(images, strength, generators), masks
