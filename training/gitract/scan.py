"""A scan and its segmentation: voxels, geometry and names.

Arrays are ``(slice, row, column)``, 0-based. Spacing is ``(slice, row, column)`` in mm.
The affine takes an array index ``(slice, row, column, 1)`` to patient coordinates in mm,
DICOM's LPS (x to the patient's left, y to the back, z to the head).
No file format and no torch here.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gitract.baseline import turned_provenance
from gitract.errors import InputError
from gitract.organs import IGNORE, ORGANS, Organ, organs_from_ids

__all__ = [
    "DicomImage",
    "DicomSeries",
    "FlatLabels",
    "NiftiAxes",
    "Scan",
    "Segmentation",
    "Spacing",
    "Stored",
    "axial_affine",
    "corners_apart",
    "flattened",
    "scaled_affine",
    "united",
]

Spacing = tuple[float, float, float]


class DicomImage(NamedTuple):
    """Where one slice is in a DICOM series.

    `frame` is 1-based in a multi-frame image, None in a classic one.
    """

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    frame: int | None = None


@dataclass(frozen=True)
class DicomSeries:
    """The DICOM series that a scan was read from: what contours must refer to.

    It holds nothing that names the patient; an export reads that from the files again.

    Parameters
    ----------
    series_uid, study_uid, frame_of_reference_uid
        Of the series.
    images
        One for each slice of the array, in its order.
    """

    series_uid: str
    study_uid: str
    frame_of_reference_uid: str
    images: tuple[DicomImage, ...]


class NiftiAxes(NamedTuple):
    """Which axis of a NIfTI file each axis of the array is: ``(2, 1, 0)`` in most files.

    `placed` is false where the file does not say where in the patient its voxels are:
    labels must leave it open then, too, since every program guesses another place.
    """

    slice: int = 2
    row: int = 1
    column: int = 0
    placed: bool = True

    @property
    def order(self) -> tuple[int, int, int]:
        """The axes alone."""
        return self.slice, self.row, self.column


Stored = DicomSeries | NiftiAxes
"""How the file of a scan stores it, where an export onto that scan must know it."""


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


def scaled_affine(affine: np.ndarray, spacing: Spacing) -> np.ndarray:
    """The same directions and origin with another spacing, ``(slice, row, column)`` in mm.

    Raises
    ------
    InputError
        The spacing is not three positive numbers.
    """
    _check_spacing(spacing)
    scaled = np.array(affine, dtype=float)
    scaled[:3, :3] *= np.array(spacing) / np.linalg.norm(scaled[:3, :3], axis=0)
    return scaled


def _check_spacing(spacing: Spacing) -> Spacing:
    values = tuple(float(mm) for mm in spacing)
    if len(values) != 3 or not all(np.isfinite(mm) and mm > 0 for mm in values):
        raise InputError(
            f"Spacing {spacing} is not usable: give three positive numbers in mm, "
            "(slice, row, column)."
        )
    return values[0], values[1], values[2]


def _checked_geometry(
    shape: tuple[int, ...], spacing: Spacing, affine: np.ndarray | None
) -> tuple[Spacing, np.ndarray]:
    """Spacing and affine as floats, or an error that says what is wrong with them."""
    if len(shape) != 3 or 0 in shape:
        raise InputError(
            f"A scan needs three axes (slice, row, column) of at least one voxel each, not {shape}."
        )
    checked = _check_spacing(spacing)
    matrix = axial_affine(checked) if affine is None else np.array(affine, dtype=float)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise InputError("The affine must be a 4x4 matrix of finite numbers.")
    if not np.allclose(np.linalg.norm(matrix[:3, :3], axis=0), checked, rtol=1e-3):
        raise InputError(f"The affine and the spacing {checked} mm contradict each other.")
    directions = matrix[:3, :3] / checked
    skew = np.abs(directions.T @ directions - np.eye(3)).max()
    if skew > _MAX_SKEW:
        raise InputError(
            f"The axes of the scan are not at right angles (off by {np.degrees(skew):.2g} degrees, "
            "as with a tilted gantry or a shear): resample it onto a rectangular grid first."
        )
    return checked, matrix


# Half a degree: what rounding in headers explains, and far below what would move an organ.
_MAX_SKEW = 0.0087


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
    stored
        How the file stores it, where an export onto this scan must know it.
    remarks
        What a user should know of the data, a sentence each.

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
    stored: Stored | None = None
    remarks: tuple[str, ...] = ()

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


def flattened(masks: npt.NDArray[np.bool_], organs: Sequence[Organ]) -> npt.NDArray[np.uint8]:
    """Masks ``(organ, …)`` as one label image ``(…)``, by the rule of `Segmentation.labels`."""
    array = np.zeros(masks.shape[1:], dtype=np.uint8)
    for organ, mask in sorted(
        zip(organs, masks, strict=True), key=lambda pair: (pair[0].name != "body", pair[0].id)
    ):
        array[mask] = organ.id
    return array


@dataclass(frozen=True, eq=False)
class Segmentation:
    """One mask for each organ on the grid of a scan; organs may overlap.

    Parameters
    ----------
    masks
        ``bool`` ``(organ, slice, row, column)``, in the order of `organs`.
    organs
        The organ of each mask.
    spacing, affine, name, slice_numbers, stored, remarks
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
    stored: Stored | None = None
    remarks: tuple[str, ...] = ()

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
        stored: Stored | None = None,
    ) -> "Segmentation":
        """Split a label image into one mask for each organ.

        Parameters
        ----------
        labels
            Integers ``(slice, row, column)``: 0 for background, else an organ's id.
        spacing, affine, organs, name, slice_numbers, provenance, stored
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
            stored=stored,
        )

    def on(self, scan: Scan) -> "Segmentation":
        """The same contours on the grid of `scan`, with what exports onto it refer to.

        Voxels that only stand in another order (axes swapped or reversed, as another
        format stores them) are put in the scan's, and so is what is known of slices;
        nothing is ever resampled.

        Raises
        ------
        InputError
            They lie on another grid than the scan, or are of another day.
        """
        if self.name != scan.name and _is_day(self.name) and _is_day(scan.name):
            raise InputError(
                f"The labels are of {self.name} and the scan is {scan.name}: choose the scan "
                "that they were made on."
            )
        turn = _turn_onto(self, scan)
        if turn is None:
            raise InputError(
                f"The labels {self.name!r} lie on another grid than the scan {scan.name!r} "
                f"({_grid_text(self)} against {_grid_text(scan)}): choose the scan that they "
                "were made on."
            )
        turned = replace(
            self,
            masks=turn.applied(self.masks),
            spacing=scan.spacing,
            affine=scan.affine,
            name=scan.name,
            slice_numbers=scan.slice_numbers,
            stored=scan.stored,
            remarks=(*self.remarks, *self._made_elsewhere(scan)),
        )
        if turn == _AS_IT_IS or not self.provenance:
            return turned
        before, after = self.labels().array, turned.labels().array
        order = turn.slices(len(before))
        return replace(turned, provenance=turned_provenance(self.provenance, before, after, order))

    def _made_elsewhere(self, scan: Scan) -> tuple[str, ...]:
        """A remark where the notes of a prediction name another scan than this one."""
        if not self.provenance or self.name == scan.name:
            return ()
        remark = (
            f"The labels were made on {self.name!r} and now lie on {scan.name!r}, "
            "whose voxels are in the same place."
        )
        return (remark,)

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(slices, rows, columns)``."""
        _, slices, rows, columns = self.masks.shape
        return slices, rows, columns

    def labels(self) -> FlatLabels:
        """Flatten the masks to one label image.

        Where organs overlap the one with the highest id wins: stomach over small
        bowel over large bowel, from the organ that is easiest to tell to the hardest.
        The outline of the body, which holds them all, yields to every other.
        """
        overlap = int(np.count_nonzero(self.masks.sum(axis=0, dtype=np.uint8) > 1))
        return FlatLabels(flattened(self.masks, self.organs), overlap)

    @cached_property
    def volumes_ml(self) -> dict[str, float]:
        """Volume of each organ in millilitres, by organ name; not of what is to be ignored."""
        voxel_ml = float(np.prod(self.spacing)) / 1000.0
        return {
            organ.name: float(np.count_nonzero(mask)) * voxel_ml
            for organ, mask in zip(self.organs, self.masks, strict=True)
            if organ.id != IGNORE.id
        }


def _grid_text(item: Scan | Segmentation) -> str:
    size = " x ".join(str(n) for n in item.shape)
    spacing = " x ".join(f"{mm:g}" for mm in item.spacing)
    corner = ", ".join(f"{mm:.1f}" for mm in item.affine[:3, 3])
    return f"{size} voxels of {spacing} mm from ({corner})"


_SAME_MM = 0.01
_DAY = re.compile(r"case\d+_day\d+")


def _is_day(name: str) -> bool:
    """Whether a name is one of the competition's, which tells patient and day.

    Its scans all begin at the origin, so that their places do not tell them apart.
    """
    return _DAY.fullmatch(name) is not None


class _AxisTurn(NamedTuple):
    """Which axis of the labels each axis of the scan is, and whether it runs the other way."""

    axes: tuple[int, int, int]
    reversed: tuple[bool, bool, bool]

    def applied(self, masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Masks ``(organ, slice, row, column)`` in the order of the scan."""
        turned = masks.transpose(0, *(axis + 1 for axis in self.axes))
        return turned[(slice(None), *(slice(None, None, -1 if r else 1) for r in self.reversed))]

    def slices(self, count: int) -> list[int] | None:
        """Which slice of the labels each slice of the scan is; None if they lie across."""
        if self.axes[0] != 0:
            return None
        return list(range(count))[:: -1 if self.reversed[0] else 1]


_AS_IT_IS = _AxisTurn((0, 1, 2), (False, False, False))


def _turn_onto(labels: Segmentation, scan: Scan) -> _AxisTurn | None:
    """What puts the voxels of labels in the order of a scan's; None where they are others.

    The same are voxels whose corners agree within 0.01 mm.
    """
    to_scan = np.linalg.inv(scan.affine) @ labels.affine
    axes = np.abs(to_scan[:3, :3]).argmax(axis=1)
    if sorted(axes) != [0, 1, 2]:
        return None
    backwards = to_scan[range(3), axes] < 0
    if tuple(labels.shape[axis] for axis in axes) != scan.shape:
        return None
    ends = np.array(scan.shape) - 1
    corners = np.array(list(np.ndindex(2, 2, 2))) * ends
    own = np.where(backwards, ends - corners, corners)[:, np.argsort(axes)]
    apart = _points(labels.affine, own) - _points(scan.affine, corners)
    if np.abs(apart).max() > _SAME_MM:
        return None
    (i, j, k), (back_i, back_j, back_k) = axes.tolist(), backwards.tolist()
    return _AxisTurn((i, j, k), (back_i, back_j, back_k))


def united(
    parts: Iterable[tuple[Organ, npt.NDArray[np.bool_]]],
) -> tuple[tuple[Organ, ...], npt.NDArray[np.bool_]]:
    """Organs by id, and a mask of each: the union where an organ has several parts.

    Parameters
    ----------
    parts
        Organ and mask ``(slice, row, column)``; at least one.

    Returns
    -------
    tuple
        The `organs` and ``masks`` of a `Segmentation`.
    """
    masks: dict[Organ, npt.NDArray[np.bool_]] = {}
    for organ, mask in parts:
        masks[organ] = masks[organ] | mask if organ in masks else mask
    organs = tuple(sorted(masks, key=lambda organ: organ.id))
    return organs, np.stack([masks[organ] for organ in organs])


def corners_apart(one: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    """The largest distance, mm, between where two affines put a corner of a grid."""
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(shape) - 1)
    return float(np.linalg.norm(_points(one, corners) - _points(other, corners), axis=1).max())


def _points(affine: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Indices ``(n, 3)`` in patient coordinates, mm."""
    return indices @ affine[:3, :3].T + affine[:3, 3]
