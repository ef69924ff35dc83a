"""Random changes of training slices: what differs between scanners, patients and exports.

Everything is drawn from the generator that is passed in, so a batch is a function of its
seed alone.
"""

import math

import torch
from pydantic import Field
from torch.nn import functional

from gitract.strict import StrictModel

__all__ = ["Augmentation", "augment"]


class Augmentation(StrictModel):
    """Strengths; 0 switches a change off.

    Parameters
    ----------
    rotation_deg, scale, shift
        Standard deviation of the angle, of the log2 of the zoom, and of the shift as a
        fraction of the crop.
    elastic_mm
        Standard deviation of the smooth deformation, in mm.
    gamma, contrast, brightness
        Standard deviations of log2 gamma, log2 contrast, and an offset.
    bias_field
        Standard deviation of the log2 of a smooth gain, as a surface coil makes.
    noise
        Largest standard deviation of added noise.
    blur
        Probability of a lowered resolution, by a factor of 1.3 to 2.6.
    repeat_centre
        Probability that the neighbours are replaced by the slice itself, as for a
        single slice.
    """

    rotation_deg: float = Field(default=8.0, ge=0)
    scale: float = Field(default=0.2, ge=0)
    shift: float = Field(default=0.06, ge=0)
    elastic_mm: float = Field(default=3.0, ge=0)
    gamma: float = Field(default=0.4, ge=0)
    contrast: float = Field(default=0.25, ge=0)
    brightness: float = Field(default=0.06, ge=0)
    bias_field: float = Field(default=0.5, ge=0)
    noise: float = Field(default=0.05, ge=0)
    blur: float = Field(default=0.3, ge=0, le=1)
    repeat_centre: float = Field(default=0.1, ge=0, le=1)


def _normal(shape: tuple[int, ...], sigma: float, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(shape, generator=generator) * sigma


def _smooth_field(
    shape: tuple[int, int, int, int], sigma: float, generator: torch.Generator, cells: int
) -> torch.Tensor:
    """A smooth random field ``(batch, channel, row, column)`` from a coarse grid."""
    batch, channels, rows, columns = shape
    coarse = _normal((batch, channels, cells, cells), sigma, generator)
    return functional.interpolate(coarse, size=(rows, columns), mode="bicubic", align_corners=True)


def _sampling_grid(
    batch: int, size: int, pixel_mm: float, strength: Augmentation, generator: torch.Generator
) -> torch.Tensor:
    """Where each output pixel looks, in the input's -1...1 coordinates."""
    angle = _normal((batch,), math.radians(strength.rotation_deg), generator)
    zoom = torch.exp2(_normal((batch, 2), strength.scale * 0.35, generator)) * torch.exp2(
        _normal((batch, 1), strength.scale, generator)
    )
    shift = _normal((batch, 2), 2 * strength.shift, generator)
    theta = torch.zeros(batch, 2, 3)
    theta[:, 0, 0] = torch.cos(angle) * zoom[:, 0]
    theta[:, 0, 1] = -torch.sin(angle) * zoom[:, 1]
    theta[:, 1, 0] = torch.sin(angle) * zoom[:, 0]
    theta[:, 1, 1] = torch.cos(angle) * zoom[:, 1]
    theta[:, :, 2] = shift
    grid = functional.affine_grid(theta, [batch, 1, size, size], align_corners=False)
    elastic = 2 * strength.elastic_mm / (pixel_mm * size)
    return grid + _smooth_field((batch, 2, size, size), elastic, generator, 8).permute(0, 2, 3, 1)


def _lower_resolution(
    images: torch.Tensor, strength: Augmentation, generator: torch.Generator
) -> torch.Tensor:
    """Some images resampled to a coarser grid and back."""
    size = images.shape[-2:]
    chosen = torch.rand(len(images), generator=generator) < strength.blur
    factors = 1.3 + 1.3 * torch.rand(len(images), generator=generator)
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
    images: torch.Tensor, strength: Augmentation, generator: torch.Generator
) -> torch.Tensor:
    """Bias field, gamma, contrast, brightness and noise, the same for all neighbours."""
    batch = len(images)
    one = (batch, 1, 1, 1)
    bias = _smooth_field((batch, 1, *images.shape[-2:]), strength.bias_field, generator, 3)
    images = (images * torch.exp2(bias)).clamp(0.0, 1.5)
    images = images.clamp_min(1e-4) ** torch.exp2(_normal(one, strength.gamma, generator))
    images = images * torch.exp2(_normal(one, strength.contrast, generator))
    images = images + _normal(one, strength.brightness, generator)
    sigma = torch.rand(one, generator=generator) * strength.noise
    images = images + torch.randn(images.shape, generator=generator) * sigma
    return images.clamp(0.0, 1.0)


def augment(
    images: torch.Tensor,
    masks: torch.Tensor,
    *,
    pixel_mm: float,
    strength: Augmentation,
    generator: torch.Generator,
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
    generator
        Source of all randomness.

    Returns
    -------
    tuple of torch.Tensor
        Images and masks, of the same shapes and ranges.
    """
    grid = _sampling_grid(len(images), images.shape[-1], pixel_mm, strength, generator)
    images = functional.grid_sample(images, grid, align_corners=False)
    masks = (functional.grid_sample(masks, grid, align_corners=False) > 0.5).to(masks.dtype)
    alone = torch.rand(len(images), generator=generator) < strength.repeat_centre
    centre = images.shape[1] // 2
    images[alone] = images[alone, centre : centre + 1].expand_as(images[alone])
    images = _lower_resolution(images, strength, generator)
    return _grey_values(images, strength, generator), masks
