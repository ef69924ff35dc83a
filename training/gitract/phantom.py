"""An abdomen made by code: something to try everything on, with no patient's data.

Seen as the scans are: slices from head to feet, rows from front to back, columns from
the patient's right to left. Fat is bright, muscle and liver are darker, air is black, as
in the balanced gradient-echo images of an MR-Linac.
"""

from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.interpolate import CubicSpline

from gitract.io.competition import slice_file_name
from gitract.io.png import write_grey_png
from gitract.io.rle import encode_rle, slice_id
from gitract.organs import ORGANS
from gitract.scan import Scan, Segmentation, Spacing

__all__ = ["abdomen", "write_day"]

_Shape = tuple[int, int, int]
_Blob = tuple[tuple[float, float, float], tuple[float, float, float]]

# Centres and radii as fractions of (slices, rows, columns).
_BODY: _Blob = ((0.5, 0.52, 0.5), (20.0, 0.36, 0.45))
_INSIDE: _Blob = ((0.5, 0.50, 0.5), (20.0, 0.31, 0.40))
_TISSUES: list[tuple[float, list[_Blob]]] = [
    (360.0, [((0.20, 0.44, 0.30), (0.38, 0.24, 0.19))]),  # liver
    (430.0, [((0.25, 0.56, 0.80), (0.22, 0.12, 0.07))]),  # spleen
    (330.0, [((0.45, 0.64, 0.30), (0.20, 0.08, 0.06)), ((0.42, 0.64, 0.70), (0.20, 0.08, 0.06))]),
    (300.0, [((0.5, 0.68, 0.5), (20.0, 0.08, 0.07))]),  # spine
    (250.0, [((0.5, 0.77, 0.42), (20.0, 0.06, 0.09)), ((0.5, 0.77, 0.58), (20.0, 0.06, 0.09))]),
]
_STOMACH: list[_Blob] = [
    ((0.18, 0.44, 0.72), (0.10, 0.075, 0.05)),
    ((0.25, 0.42, 0.70), (0.13, 0.135, 0.095)),
    ((0.33, 0.38, 0.62), (0.115, 0.085, 0.085)),
    ((0.35, 0.39, 0.53), (0.075, 0.06, 0.075)),
    ((0.38, 0.37, 0.60), (0.10, 0.055, 0.055)),
]
# What the bowel goes through, in the same fractions; between them it bends smoothly: the colon from
# the caecum to the rectum, the small bowel from the stomach to the caecum. Above and below every
# organ some of the stack is left, so that it is whole unless there are only a few slices.
_COLON = [
    (0.79, 0.49, 0.20), (0.70, 0.50, 0.17), (0.57, 0.48, 0.18), (0.46, 0.39, 0.22),
    (0.50, 0.30, 0.34), (0.55, 0.27, 0.48), (0.53, 0.28, 0.63), (0.45, 0.34, 0.76),
    (0.37, 0.45, 0.84), (0.48, 0.53, 0.86), (0.62, 0.55, 0.85), (0.71, 0.55, 0.82),
    (0.75, 0.52, 0.73), (0.78, 0.53, 0.63), (0.81, 0.57, 0.54), (0.86, 0.58, 0.50),
]  # fmt: skip
_SMALL_BOWEL = [
    (0.40, 0.43, 0.45), (0.47, 0.48, 0.41), (0.51, 0.52, 0.46), (0.53, 0.50, 0.58),
    (0.54, 0.46, 0.70), (0.59, 0.43, 0.75), (0.67, 0.40, 0.74), (0.75, 0.39, 0.72),
    (0.82, 0.40, 0.67), (0.76, 0.39, 0.60), (0.70, 0.36, 0.54), (0.71, 0.35, 0.47),
    (0.77, 0.37, 0.45), (0.78, 0.43, 0.49), (0.75, 0.46, 0.50), (0.69, 0.47, 0.49),
    (0.64, 0.45, 0.43), (0.63, 0.41, 0.36), (0.69, 0.39, 0.33), (0.75, 0.42, 0.35),
    (0.76, 0.48, 0.38), (0.73, 0.51, 0.35), (0.75, 0.51, 0.30),
]  # fmt: skip
_COLON_RADIUS, _COLON_FOLDS = (0.08, 0.062, 0.047), 30
_LOOP_RADIUS, _LOOP_FOLDS = (0.085, 0.053, 0.043), 0
_CONTENT = {"large_bowel": 170.0, "small_bowel": 520.0, "stomach": 480.0}
_AIR, _FAT, _ABDOMINAL_FAT = 10.0, 900.0, 700.0


def _ellipsoids(shape: _Shape, blobs: list[_Blob], wobble: np.ndarray) -> np.ndarray:
    """Union of ellipsoids with a slightly irregular surface."""
    inside = np.zeros(shape, dtype=np.bool_)
    for centre, radius in blobs:
        # Only the box that holds it: a bowel is made of hundreds.
        box = tuple(
            slice(max(0, int(size * (at - 1.5 * reach))), int(size * (at + 1.5 * reach)) + 2)
            for size, at, reach in zip(shape, centre, radius, strict=True)
        )
        z, y, x = (
            ((np.arange(size)[part] + 0.5) / size - at) / reach
            for size, part, at, reach in zip(shape, box, centre, radius, strict=True)
        )
        squares = z[:, None, None] ** 2 + y[:, None] ** 2 + x**2
        inside[box] |= squares * (1 + wobble[box]) < 1
    return inside


def _tube(
    through: list[tuple[float, float, float]], radius: tuple[float, float, float], folds: int
) -> list[_Blob]:
    """A bowel along a smooth line through some points, with so many folds along it."""
    points = np.array(through)
    steps = np.linspace(0, 1, 20 * len(points))
    line = CubicSpline(np.linspace(0, 1, len(points)), points)(steps)
    width = 1 + 0.13 * np.cos(2 * np.pi * folds * steps) * bool(folds)
    return [
        ((z, y, x), (radius[0] * wide, radius[1] * wide, radius[2] * wide))
        for (z, y, x), wide in zip(line.tolist(), width.tolist(), strict=True)
    ]


def _organ_blobs() -> dict[str, list[_Blob]]:
    return {
        "large_bowel": _tube(_COLON, _COLON_RADIUS, _COLON_FOLDS),
        "small_bowel": _tube(_SMALL_BOWEL, _LOOP_RADIUS, _LOOP_FOLDS),
        "stomach": _STOMACH,
    }


def _smooth_noise(shape: _Shape, sigma: tuple[float, ...], seed: int) -> np.ndarray:
    """Smooth random values with standard deviation 1."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), sigma)
    return np.asarray(noise / noise.std())


def abdomen(
    shape: _Shape = (48, 144, 176),
    *,
    spacing: Spacing = (3.0, 2.4, 2.4),
    seed: int = 0,
    name: str = "case0_day0",
) -> tuple[Scan, Segmentation]:
    """A scan of an invented patient, and its true contours.

    Parameters
    ----------
    shape
        ``(slices, rows, columns)``.
    spacing
        ``(slice, row, column)`` in mm.
    seed
        Of the organs' surfaces, the bias field and the noise.
    name
        Of the scan: ``caseN_dayM``, so that it can be written in the competition's layout.

    Returns
    -------
    tuple of Scan and Segmentation
        ``uint16`` voxels; one mask for each organ, which overlap a little. From 24 slices
        on, every organ begins and ends within the stack.
    """
    wobble = 0.15 * _smooth_noise(shape, (2, shape[1] / 24, shape[2] / 24), seed)
    values = np.full(shape, _AIR)
    values[_ellipsoids(shape, [_BODY], wobble * 0.3)] = _FAT
    values[_ellipsoids(shape, [_INSIDE], wobble * 0.3)] = _ABDOMINAL_FAT
    for brightness, blobs in _TISSUES:
        values[_ellipsoids(shape, blobs, wobble)] = brightness
    made_of = _organ_blobs()
    masks = np.stack([_ellipsoids(shape, made_of[organ.name], wobble) for organ in ORGANS])
    for organ, mask in zip(ORGANS, masks, strict=True):
        content = _CONTENT[organ.name]
        wall = mask & ~ndimage.binary_erosion(mask)
        values[mask] = content * (1 + 0.12 * _smooth_noise(shape, (1, 2, 2), seed + organ.id)[mask])
        values[wall] = 240.0
    values = ndimage.gaussian_filter(values, (0.3, 0.6, 0.6))
    values *= np.exp2(0.3 * _smooth_noise(shape, (20, shape[1] / 3, shape[2] / 3), seed + 10))
    rng = np.random.default_rng(seed)
    values = np.hypot(values + rng.normal(0, 14, shape), rng.normal(0, 14, shape))
    numbers = tuple(range(1, shape[0] + 1))
    return (
        Scan(values.astype(np.uint16), spacing, name=name, slice_numbers=numbers),
        Segmentation(masks, spacing, name=name, slice_numbers=numbers),
    )


def write_day(folder: Path, scan: Scan, segmentation: Segmentation | None = None) -> Path:
    """Write a scan in the competition's layout, and its contours into ``train.csv``.

    Parameters
    ----------
    folder
        Gets ``train/caseN/caseN_dayM/scans``; a second day goes beside the first.
    scan
        8 or 16 bit unsigned, called ``caseN_dayM``.
    segmentation
        Its rows are added to the table; without it there are none.

    Returns
    -------
    pathlib.Path
        The folder of the day.
    """
    day = folder / "train" / scan.name.split("_")[0] / scan.name
    (day / "scans").mkdir(parents=True)
    numbers = scan.slice_numbers or tuple(range(1, len(scan.voxels) + 1))
    for number, pixels in zip(numbers, scan.voxels, strict=True):
        file_name = slice_file_name(number, scan.shape[1:], scan.spacing)
        write_grey_png(pixels, day / "scans" / file_name)
    if segmentation is not None:
        table = folder / "train.csv"
        lines = [] if table.exists() else ["id,class,segmentation"]
        lines += [
            f"{slice_id(scan.name, number)},{organ.name},{encode_rle(mask[index])}"
            for index, number in enumerate(numbers)
            for organ, mask in zip(segmentation.organs, segmentation.masks, strict=True)
        ]
        with table.open("a", encoding="utf-8") as out:
            out.writelines(f"{line}\n" for line in lines)
    return day
