"""Scans made by code: enough of an abdomen to see, to segment and to save."""

from pathlib import Path

import numpy as np
from scipy import ndimage

from gitract.io.competition import encode_rle, slice_file_name, slice_id
from gitract.io.png import write_grey_png
from gitract.organs import ORGANS, organ_named
from gitract.scan import Scan, Segmentation, Spacing

__all__ = ["abdomen_phantom", "l_phantom", "write_competition_day"]

# Centre and radius of each blob as fractions of (slices, rows, columns); the patient's
# left is on the right. The stomach reaches into the first bowel loop below it.
_BLOBS = {
    "stomach": [((0.30, 0.42, 0.64), (0.24, 0.14, 0.13))],
    "small_bowel": [
        ((0.55, 0.46, 0.58), (0.20, 0.09, 0.09)),
        ((0.66, 0.58, 0.45), (0.20, 0.08, 0.11)),
        ((0.75, 0.45, 0.42), (0.18, 0.08, 0.07)),
    ],
    "large_bowel": [
        ((0.62, 0.52, 0.24), (0.30, 0.10, 0.06)),
        ((0.62, 0.52, 0.77), (0.30, 0.10, 0.06)),
        ((0.45, 0.33, 0.45), (0.10, 0.06, 0.20)),
    ],
}
_BRIGHTNESS = {"stomach": 900.0, "small_bowel": 650.0, "large_bowel": 260.0}
_BODY, _AIR = 420.0, 12.0


def _ellipsoid(
    shape: tuple[int, int, int], centre: tuple[float, ...], radius: tuple[float, ...]
) -> np.ndarray:
    """Mask of an ellipsoid given in fractions of the volume."""
    axes = [
        ((np.arange(size) + 0.5) / size - middle) / reach
        for size, middle, reach in zip(shape, centre, radius, strict=True)
    ]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    return np.asarray(z**2 + y**2 + x**2 < 1)


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
    shape = (slices, rows, columns)
    rng = np.random.default_rng(seed)
    body = _ellipsoid(shape, (0.5, 0.5, 0.5), (10.0, 0.40, 0.46))
    values = np.where(body, _BODY, _AIR)
    masks = np.stack(
        [
            np.any([_ellipsoid(shape, *blob) for blob in _BLOBS[organ.name]], axis=0)
            for organ in ORGANS
        ]
    )
    for organ, mask in zip(ORGANS, masks, strict=True):
        values[mask] = _BRIGHTNESS[organ.name]
    values = ndimage.gaussian_filter(values, (0.3, 0.8, 0.8))
    values *= 1 + 0.5 * ndimage.gaussian_filter(rng.standard_normal(shape), (0.5, 1.5, 1.5))
    values *= np.linspace(1.3, 0.7, rows)[:, None]  # a coil in front of the patient
    values += np.abs(rng.normal(0, 12, shape))
    name = "case1_day0"
    scan = Scan(
        voxels=np.clip(values, 0, None).astype(np.uint16),
        spacing=spacing,
        name=name,
        slice_numbers=tuple(range(1, slices + 1)),
    )
    return scan, Segmentation(
        masks=masks, spacing=spacing, name=name, slice_numbers=scan.slice_numbers
    )


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
    day = folder / "train" / scan.name.split("_")[0] / scan.name
    (day / "scans").mkdir(parents=True)
    voxels = scan.voxels.astype(np.uint16)
    if bits == 8:
        voxels = (voxels / max(1, voxels.max()) * 255).astype(np.uint8)
    numbers = scan.slice_numbers or tuple(range(1, len(voxels) + 1))
    for number, pixels in zip(numbers, voxels, strict=True):
        name = slice_file_name(number, scan.shape[1:], scan.spacing)
        write_grey_png(pixels, day / "scans" / name)
    if segmentation is not None:
        _append_labels(folder / "train.csv", scan.name, numbers, segmentation)
    return day


def _append_labels(
    csv: Path, day: str, numbers: tuple[int, ...], segmentation: Segmentation
) -> None:
    lines = [] if csv.exists() else ["id,class,segmentation"]
    for index, number in enumerate(numbers):
        for organ, mask in zip(segmentation.organs, segmentation.masks, strict=True):
            lines.append(f"{slice_id(day, number)},{organ.name},{encode_rle(mask[index])}")
    with csv.open("a", encoding="utf-8") as out:
        out.writelines(f"{line}\n" for line in lines)


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
