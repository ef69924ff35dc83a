"""From a scan to a network's input, and from its output back to the scan.

The same code serves training, prediction, fine-tuning and export; what can vary is in
`gitract.model_config.Preparation`, which travels with each model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from gitract.model_config import Preparation
from gitract.scan import Spacing

__all__ = [
    "Prepared",
    "neighbour_indices",
    "network_input",
    "prepare_masks",
    "prepare_scan",
    "prepare_slice_masks",
    "prepared_size",
]

NOTHING = -20.0
"""The logit of a place where no organ can be: a probability of 2e-9."""

_AT_ONCE = 16  # slices
_BODY_SMOOTHING_MM = 10.0
_BODY_MARGIN_MM = 10.0
_BODY_LEVEL = 0.1  # of the way from air to bright tissue


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scan as a network sees it, and the way back to the scan's own grid.

    Parameters
    ----------
    slices
        float32 ``(slice, row, column)``, values 0 to 1, cropped to `window`.
    grid
        ``(slices, rows, columns)`` after resampling, before the crop.
    window
        What of `grid` the crop kept; of the slices always all.
    shape
        ``(slices, rows, columns)`` of the scan.
    """

    slices: torch.Tensor
    grid: tuple[int, int, int]
    window: tuple[slice, slice, slice]
    shape: tuple[int, int, int]

    def needed(self, indices: Sequence[int]) -> list[int]:
        """The prepared slices, ascending, that lie at the scan's slices `indices`.

        The same numbers, unless the stack was resampled: then a slice of the scan lies
        between two prepared ones.
        """
        if self.grid[0] == self.shape[0]:
            return list(indices)
        below, above, _ = self._between(indices)
        return sorted({*below.tolist(), *above.tolist()})

    def nearest(self, index: int) -> int:
        """The prepared slice whose centre is nearest to that of the scan's slice `index`."""
        if self.grid[0] == self.shape[0]:
            return index
        return min(int((index + 0.5) * self.grid[0] / self.shape[0]), self.grid[0] - 1)

    def back(self, maps: torch.Tensor, indices: Sequence[int] | None = None) -> torch.Tensor:
        """Bring logits to the scan's own grid: `along_stack`, then `in_plane`."""
        return self.in_plane(self.along_stack(maps, indices))

    def along_stack(self, maps: torch.Tensor, indices: Sequence[int] | None = None) -> torch.Tensor:
        """Bring logits to the scan's own slices, by linear interpolation.

        Parameters
        ----------
        maps
            Logits ``(slice, organ, row, column)`` of the prepared slices ``needed(indices)``,
            in that order.
        indices
            The scan's slices that are wanted, ascending. None for all; then `maps` are of
            all prepared slices.

        Returns
        -------
        torch.Tensor
            Logits ``(slice, organ, row, column)`` of the slices wanted.
        """
        if self.grid[0] == self.shape[0]:
            return maps
        below, above, share = self._between(range(self.shape[0]) if indices is None else indices)
        needed = torch.tensor(range(self.grid[0]) if indices is None else self.needed(indices))
        low, high = (torch.searchsorted(needed, part).to(maps.device) for part in (below, above))
        return torch.lerp(maps[low], maps[high], share.to(maps)[:, None, None, None])

    def in_plane(self, maps: torch.Tensor, level: float = 0.0) -> torch.Tensor:
        """Bring logits to the scan's own rows and columns, by linear interpolation.

        What the crop cut off gets the logit `NOTHING`. Interpolation never exceeds its
        neighbours, so a map that is nowhere above a level stays below it, and most maps do:
        they are not resampled but filled with `NOTHING`.

        Parameters
        ----------
        maps
            Logits ``(slice, organ, row, column)``, cropped as `slices`.
        level
            The lowest logit that matters.

        Returns
        -------
        torch.Tensor
            Logits ``(slice, organ, row, column)`` with the scan's rows and columns.
        """
        found = maps.new_full((*maps.shape[:2], *self.shape[1:]), NOTHING)
        present = maps.amax(dim=(2, 3)) > level
        if present.any():
            found[present] = functional.interpolate(
                self._uncropped(maps[present][:, None]),
                size=self.shape[1:],
                mode="bilinear",
                align_corners=False,
            )[:, 0]
        return found

    def _uncropped(self, maps: torch.Tensor) -> torch.Tensor:
        _, rows, columns = self.window
        pad = (columns.start, self.grid[2] - columns.stop, rows.start, self.grid[1] - rows.stop)
        return functional.pad(maps, pad, value=NOTHING) if any(pad) else maps

    def _between(self, indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The prepared slices on both sides of each slice of the scan; the share of the upper."""
        places = (torch.tensor(list(indices)) + 0.5) * (self.grid[0] / self.shape[0]) - 0.5
        places = places.clamp(0, self.grid[0] - 1)
        below = places.floor().long()
        return below, (below + 1).clamp_max(self.grid[0] - 1), places - below


def prepared_size(
    shape: tuple[int, int, int], spacing: Spacing, preparation: Preparation
) -> tuple[int, int, int]:
    """Slices, rows and columns after resampling, before a crop; at least one of each."""
    slices, rows, columns = shape
    slice_mm, row_mm, column_mm = spacing
    if preparation.slice_mm is not None:
        slices = max(1, round(slices * slice_mm / preparation.slice_mm))
    pixel_mm = preparation.pixel_mm
    return (
        slices,
        max(1, round(rows * row_mm / pixel_mm)),
        max(1, round(columns * column_mm / pixel_mm)),
    )


def prepare_scan(voxels: np.ndarray, spacing: Spacing, preparation: Preparation) -> Prepared:
    """Resample a scan, bring its grey values to 0...1 and cut the air off, as `preparation` says.

    With ``scaling="slice"`` each slice is scaled by its own percentiles: what is common to
    raw 16-bit scans and to exports that were stretched slice by slice. The percentiles are
    of the resampled slices, before the crop.

    Parameters
    ----------
    voxels
        ``(slice, row, column)``, upright, any integer or float type.
    spacing
        ``(slice, row, column)`` in mm.
    preparation
        The model's.
    """
    shape = (voxels.shape[0], voxels.shape[1], voxels.shape[2])
    grid = prepared_size(shape, spacing, preparation)
    slices = _resampled(voxels, grid)
    window = (slice(0, grid[0]), slice(0, grid[1]), slice(0, grid[2]))
    if preparation.crop_to_body:
        window = (window[0], *_body(slices, preparation.pixel_mm))
    low, high = _grey_limits(slices, preparation)
    kept = slices[window].contiguous()
    del slices  # stacks are large: the rest is done in place
    # A smaller range is rounding error, which must not be stretched to 0...1.
    least = 1e-4 * torch.maximum(low.abs(), high.abs()).clamp_min(1e-30)
    kept.sub_(low).div_(torch.maximum(high - low, least)).clamp_(0.0, 1.0)
    return Prepared(kept, grid, window, shape)


def prepare_masks(masks: np.ndarray, prepared: Prepared) -> torch.Tensor:
    """Bring masks of a scan to the grid of ``prepared.slices``.

    Parameters
    ----------
    masks
        bool ``(organ, slice, row, column)`` on the scan's grid, upright.
    prepared
        The scan that they belong to.

    Returns
    -------
    torch.Tensor
        bool ``(organ, slice, row, column)``: voxels that are more than half in the mask.
    """
    return _coarse_masks(masks, prepared.grid, prepared.window)


def prepare_slice_masks(masks: np.ndarray, prepared: Prepared) -> torch.Tensor:
    """Bring single slices of masks to the rows and columns of ``prepared.slices``.

    As `prepare_masks`, but each slice for itself: ``(organ, slice, row, column)`` holds any
    number of slices, and as many come back.
    """
    _, rows, columns = prepared.window
    count = masks.shape[1]
    return _coarse_masks(masks, (count, *prepared.grid[1:]), (slice(0, count), rows, columns))


def _coarse_masks(
    masks: np.ndarray, grid: tuple[int, int, int], window: tuple[slice, slice, slice]
) -> torch.Tensor:
    coarse = torch.empty((len(masks), *grid), dtype=torch.bool)
    for organ, mask in enumerate(masks):
        coarse[organ] = _resampled(mask, grid) > 0.5
    return coarse[(slice(None), *window)].contiguous()


def _resampled(voxels: np.ndarray, grid: tuple[int, int, int]) -> torch.Tensor:
    """Resample ``(slice, row, column)``: first in plane, then along the stack."""
    volume = torch.empty((len(voxels), *grid[1:]))
    for first in range(0, len(voxels), _AT_ONCE):  # a float copy of all would be large
        part = np.ascontiguousarray(voxels[first : first + _AT_ONCE], dtype=np.float32)
        volume[first : first + len(part)] = functional.interpolate(
            torch.from_numpy(part)[:, None], size=grid[1:], mode="bilinear",
            antialias=True, align_corners=False,
        )[:, 0]  # fmt: skip
    if grid[0] == len(volume):
        return volume
    flat = volume.flatten(1)  # the stack's axis as rows of one picture, whose columns stay
    size = (grid[0], flat.shape[1])
    stack = functional.interpolate(
        flat[None, None], size=size, mode="bilinear", antialias=True, align_corners=False
    )
    return stack.view(grid)


def _grey_limits(slices: torch.Tensor, preparation: Preparation) -> torch.Tensor:
    """The grey values that become 0 and 1: two percentiles of the scan, or of each slice."""
    ends = (preparation.low_percentile, preparation.high_percentile)
    whole = slices.numpy()[None] if preparation.scaling == "scan" else slices.numpy()
    limits = np.stack([np.percentile(part, ends) for part in whole], axis=1)
    return torch.from_numpy(limits.astype(np.float32))[:, :, None, None]


def _body(slices: torch.Tensor, pixel_mm: float) -> tuple[slice, slice]:
    """Rows and columns around what is clearly not air in any slice, with a margin."""
    reach = max(1, round(_BODY_SMOOTHING_MM / pixel_mm / 2))
    brightest = [
        functional.avg_pool2d(
            part[:, None], 2 * reach + 1, stride=1, padding=reach, count_include_pad=False
        ).amax(dim=(0, 1))
        for part in slices.split(_AT_ONCE)
    ]
    projection = torch.stack(brightest).amax(dim=0).numpy()
    air, bright = np.percentile(projection, (1, 90))
    body = projection > air + _BODY_LEVEL * (bright - air)
    margin = round(_BODY_MARGIN_MM / pixel_mm)
    return _extent(body.any(axis=1), margin), _extent(body.any(axis=0), margin)


def _extent(inside: np.ndarray, margin: int) -> slice:
    """From the first to the last True, widened by `margin`; everything where none is True."""
    places = np.flatnonzero(inside)
    if not len(places):
        return slice(0, len(inside))
    return slice(max(0, int(places[0]) - margin), min(len(inside), int(places[-1]) + 1 + margin))


def neighbour_indices(index: int, count: int, preparation: Preparation) -> list[int]:
    """The slices that go in with slice `index` of `count`, ends repeated."""
    reach = preparation.neighbours
    offsets = range(-reach * preparation.stride, reach * preparation.stride + 1, preparation.stride)
    return [min(max(index + offset, 0), count - 1) for offset in offsets]


def network_input(
    slices: torch.Tensor, indices: Sequence[int], preparation: Preparation
) -> torch.Tensor:
    """Gather slices with their neighbours, for a 2-D network.

    Parameters
    ----------
    slices
        ``(slice, row, column)`` of `Prepared`, also in half precision.
    indices
        The slices wanted.

    Returns
    -------
    torch.Tensor
        float32 ``(len(indices), preparation.channels, row, column)``.
    """
    gathered = [neighbour_indices(index, len(slices), preparation) for index in indices]
    return slices[torch.tensor(gathered)].float()
