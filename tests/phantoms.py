"""Scans made by code: enough of an abdomen to see, to segment and to save."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from gitract.organs import ORGANS, organ_named
from gitract.orientation import Turn
from gitract.phantom import abdomen, write_day
from gitract.scan import Scan, Segmentation, Spacing

__all__ = ["abdomen_phantom", "l_phantom", "stored_as", "write_competition_day"]


def abdomen_phantom(
    slices: int = 24,
    rows: int = 96,
    columns: int = 112,
    seed: int = 0,
    spacing: Spacing = (3.0, 1.5, 1.4),
) -> tuple[Scan, Segmentation]:
    """A body with a bright stomach, bowel loops, noise and an uneven coil.

    Returns
    -------
    tuple
        The scan (``uint16``) and the true masks of all organs; stomach and small bowel
        share some voxels.
    """
    return abdomen((slices, rows, columns), spacing=spacing, seed=seed, name="case1_day0")


def write_competition_day(
    folder: Path, scan: Scan, segmentation: Segmentation | None = None, bits: int = 16
) -> Path:
    """Write a scan as the competition stores it, and its labels into ``train.csv``.

    A second day goes into the same table.

    Parameters
    ----------
    folder
        The root, which gets ``train/`` and ``train.csv``.
    scan
        Its name (``case1_day0``) gives the folders, ``case1/case1_day0/scans``.
    segmentation
        The labels; without it the table gets no row.
    bits
        8 or 16; 8 scales the values to 0 to 255.

    Returns
    -------
    pathlib.Path
        The folder of the day.
    """
    voxels = scan.voxels.astype(np.uint16)
    if bits == 8:
        voxels = (voxels / max(1, voxels.max()) * 255).astype(np.uint8)
    return write_day(folder, replace(scan, voxels=voxels), segmentation)


def l_phantom() -> Segmentation:
    """An L that differs from each of its flips and transposes, on unequal spacing.

    The bar runs along rows, the foot along columns, and the L is thicker in its first
    slice: a turned axis or a swapped spacing shows at once.
    """
    mask = np.zeros((5, 9, 12), dtype=np.bool_)
    mask[1:4, 1:8, 2:4] = True  # the bar
    mask[1:4, 6:8, 2:10] = True  # the foot, at the bottom right
    mask[1, 1:8, 4:6] = True
    masks = np.zeros((len(ORGANS), *mask.shape), dtype=np.bool_)
    masks[ORGANS.index(organ_named("stomach"))] = mask
    return Segmentation(masks=masks, spacing=(3.0, 1.5, 0.7), name="l_phantom")


def stored_as(scan: Scan, turn: Turn) -> Scan:
    """The same scan in the same place, its rows and columns stored turned."""
    voxels = np.ascontiguousarray(turn.back(scan.voxels))
    corners = turn.back(np.indices(scan.shape[1:]).astype(float))[:, [0, -1], :][:, :, [0, -1]]
    first, row_end, column_end = corners[:, 0, 0], corners[:, 1, 0], corners[:, 0, 1]
    in_plane = scan.affine[:, 1:3]
    affine = scan.affine.copy()
    affine[:, 3] += in_plane @ first
    affine[:, 1] = in_plane @ (row_end - first) / (voxels.shape[1] - 1)
    affine[:, 2] = in_plane @ (column_end - first) / (voxels.shape[2] - 1)
    return replace(scan, voxels=voxels, affine=affine, spacing=turn.spacing(scan.spacing))
