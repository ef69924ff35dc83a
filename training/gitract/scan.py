"""A scan and its segmentation: voxels, geometry and names.

Arrays are ``(slice, row, column)``, 0-based. Spacing is ``(slice, row, column)`` in mm.
The affine takes an array index ``(slice, row, column, 1)`` to patient coordinates in mm,
DICOM's LPS (x to the patient's left, y to the back, z to the head).
No file format and no torch here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gitract.errors import InputError
from gitract.organs import ORGANS, Organ, organs_from_ids

__all__ = ["FlatLabels", "Scan", "Segmentation", "Spacing", "axial_affine"]

Spacing = tuple[float, float, float]


def axial_affine(spacing: Spacing) -> np.ndarray:
    """Affine of an axial stack whose position is unknown.

    Slices go from head to feet, rows from front to back, columns from the patient's
    right to left: the order of the competition's files.

    Parameters
    ----------
    spacing
        ``(slice, row, column)`` in mm.

    Returns
    -------
    numpy.ndarray
        4x4, array index to LPS in mm, with the first voxel at the origin.
    """
    slice_mm, row_mm, column_mm = spacing
    return np.array(
        [
            [0.0, 0.0, column_mm, 0.0],
            [0.0, row_mm, 0.0, 0.0],
            [-slice_mm, 0.0, 0.0, 0.0],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )


def _checked_geometry(
    shape: tuple[int, ...], spacing: Spacing, affine: np.ndarray | None
) -> tuple[Spacing, np.ndarray]:
    """Spacing and affine as floats, or an error that says what is wrong with them."""
    if len(shape) != 3 or 0 in shape:
        raise InputError(
            f"A scan needs three axes (slice, row, column) of at least one voxel each, not {shape}."
        )
    values = tuple(float(mm) for mm in spacing)
    if len(values) != 3 or not all(np.isfinite(mm) and mm > 0 for mm in values):
        raise InputError(
            f"Spacing {spacing} is not usable: give three positive numbers in mm, "
            "(slice, row, column)."
        )
    checked = (values[0], values[1], values[2])
    matrix = axial_affine(checked) if affine is None else np.array(affine, dtype=float)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise InputError("The affine must be a 4x4 matrix of finite numbers.")
    if not np.allclose(np.linalg.norm(matrix[:3, :3], axis=0), checked, rtol=1e-3):
        raise InputError(f"The affine and the spacing {checked} mm contradict each other.")
    return checked, matrix


@dataclass(frozen=True, eq=False)
class Scan:
    """A stack of slices with its geometry.

    Parameters
    ----------
    voxels
        ``(slice, row, column)``, any integer or float type, as stored.
    spacing
        ``(slice, row, column)`` in mm.
    affine
        4x4, array index to LPS in mm; `axial_affine` of the spacing when not given.
    name
        For people and as a base of file names: ``case20_day0``.
    source
        The file or folder that it was read from.
    slice_numbers
        The competition's 1-based number of each slice, where the scan has them.

    Raises
    ------
    InputError
        The array is not three-dimensional, complex or not numeric; or the geometry
        is not usable.
    """

    voxels: np.ndarray
    spacing: Spacing
    affine: np.ndarray = None  # type: ignore[assignment]  # filled in __post_init__
    name: str = "scan"
    source: Path | None = None
    slice_numbers: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.voxels.dtype.kind not in "uif":
            raise InputError(
                f"A scan holds integers or floats, not {self.voxels.dtype}: convert it first."
            )
        spacing, affine = _checked_geometry(self.voxels.shape, self.spacing, self.affine)
        object.__setattr__(self, "spacing", spacing)
        object.__setattr__(self, "affine", affine)
        if self.slice_numbers is not None and len(self.slice_numbers) != len(self.voxels):
            raise InputError(
                f"{len(self.slice_numbers)} slice numbers for {len(self.voxels)} slices."
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(slices, rows, columns)``."""
        slices, rows, columns = self.voxels.shape
        return slices, rows, columns


class FlatLabels(NamedTuple):
    """One label image made of overlapping masks.

    `array` is ``uint8`` ``(slice, row, column)``; `overlap_voxels` counts the voxels
    that more than one organ claimed.
    """

    array: npt.NDArray[np.uint8]
    overlap_voxels: int


@dataclass(frozen=True, eq=False)
class Segmentation:
    """One mask for each organ on the grid of a scan; organs may overlap.

    Parameters
    ----------
    masks
        ``bool`` ``(organ, slice, row, column)``, in the order of `organs`.
    organs
        The organ of each mask.
    spacing, affine, name, slice_numbers
        As in `Scan`.
    provenance
        What is known of its making, JSON-ready: model id and weight hash, version,
        time, slices segmented. Empty for a person's contours.

    Raises
    ------
    InputError
        The masks do not fit the organs, or the geometry is not usable.
    """

    masks: npt.NDArray[np.bool_]
    spacing: Spacing
    affine: np.ndarray = None  # type: ignore[assignment]  # filled in __post_init__
    organs: tuple[Organ, ...] = ORGANS
    name: str = "segmentation"
    slice_numbers: tuple[int, ...] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.masks.dtype != np.bool_ or self.masks.ndim != 4:
            raise InputError(
                "Masks are boolean with axes (organ, slice, row, column), "
                f"not {self.masks.dtype} of shape {self.masks.shape}."
            )
        if len(self.masks) != len(self.organs):
            raise InputError(f"{len(self.masks)} masks for {len(self.organs)} organs.")
        spacing, affine = _checked_geometry(self.masks.shape[1:], self.spacing, self.affine)
        object.__setattr__(self, "spacing", spacing)
        object.__setattr__(self, "affine", affine)

    @classmethod
    def of_labels(
        cls,
        labels: np.ndarray,
        *,
        spacing: Spacing,
        affine: np.ndarray | None = None,
        organs: tuple[Organ, ...] = ORGANS,
        name: str = "segmentation",
        slice_numbers: tuple[int, ...] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> "Segmentation":
        """Split a label image into one mask for each organ.

        Parameters
        ----------
        labels
            Integers ``(slice, row, column)``: 0 for background, else an organ's id.
        spacing, affine, organs, name, slice_numbers, provenance
            As in the class.

        Raises
        ------
        InputError
            A value is not an organ's id, or the array is not a label image.
        """
        if labels.dtype.kind not in "ui" or labels.ndim != 3:
            raise InputError(
                "A label image holds integers with axes (slice, row, column), "
                f"not {labels.dtype} of shape {labels.shape}."
            )
        present = [int(value) for value in np.unique(labels) if value != 0]
        organs_from_ids(present, organs)
        masks = np.stack([labels == organ.id for organ in organs])
        return cls(
            masks=masks,
            spacing=spacing,
            affine=affine,  # type: ignore[arg-type]
            organs=organs,
            name=name,
            slice_numbers=slice_numbers,
            provenance=provenance or {},
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(slices, rows, columns)``."""
        _, slices, rows, columns = self.masks.shape
        return slices, rows, columns

    def labels(self) -> FlatLabels:
        """Flatten the masks to one label image.

        Where organs overlap the one with the highest id wins: stomach over small
        bowel over large bowel, from the organ that is easiest to tell to the hardest.
        """
        array = np.zeros(self.shape, dtype=np.uint8)
        for organ, mask in sorted(
            zip(self.organs, self.masks, strict=True), key=lambda pair: pair[0].id
        ):
            array[mask] = organ.id
        overlap = int(np.count_nonzero(self.masks.sum(axis=0, dtype=np.uint8) > 1))
        return FlatLabels(array, overlap)

    @cached_property
    def volumes_ml(self) -> dict[str, float]:
        """Volume of each organ in millilitres, by organ name."""
        voxel_ml = float(np.prod(self.spacing)) / 1000.0
        return {
            organ.name: float(np.count_nonzero(mask)) * voxel_ml
            for organ, mask in zip(self.organs, self.masks, strict=True)
        }
