"""What no image format has a field for, as JSON: inside the file, or beside it.

Organ table, exact affine, slice numbers, provenance. Never anything that names a patient.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gitract.errors import InputError
from gitract.organs import Organ
from gitract.scan import NiftiAxes, Scan, Segmentation, Spacing, corners_apart

__all__ = ["beside", "is_of_segmentation", "notes_of", "parsed", "read_beside", "restored"]

# Over the whole grid: a thousandth of a pixel, summed up over a slice, moves an organ.
_SAME_MM = 0.02
_SCAN, _SEGMENTATION = "gitract scan", "gitract segmentation"


def notes_of(item: Scan | Segmentation) -> dict[str, Any]:
    """Everything but the voxels, ready for JSON."""
    axes = item.stored if isinstance(item.stored, NiftiAxes) else None
    notes = {
        "format": _SCAN if isinstance(item, Scan) else _SEGMENTATION,
        "name": item.name,
        "shape": list(item.shape),
        "spacing": list(item.spacing),
        "affine": item.affine.tolist(),
        "slice_numbers": item.slice_numbers and list(item.slice_numbers),
        "nifti_axes": axes and list(axes),
    }
    if isinstance(item, Segmentation):
        notes["organs"] = [{"id": o.id, "name": o.name, "color": o.color} for o in item.organs]
        notes["provenance"] = dict(item.provenance)
    return notes


def parsed(text: str) -> dict[str, Any] | None:
    """Notes out of a text, or None where it holds none of ours."""
    if _SCAN not in text and _SEGMENTATION not in text:
        return None
    try:
        notes = json.loads(text)
    except ValueError:
        return None
    ours = isinstance(notes, dict) and notes.get("format") in (_SCAN, _SEGMENTATION)
    return notes if ours else None


def is_of_segmentation(notes: Mapping[str, Any] | None) -> bool:
    """Whether notes were written with labels, rather than with a scan or not at all."""
    return notes is not None and notes["format"] == _SEGMENTATION


def beside(path: Path) -> Path:
    """Where the notes of a file stand that has no place for them."""
    return path.with_name(path.name + ".json")


def read_beside(path: Path) -> dict[str, Any] | None:
    """The notes beside a file, or None."""
    try:
        return parsed(beside(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None


def restored(
    notes: Mapping[str, Any] | None,
    *,
    where: Path,
    shape: tuple[int, ...],
    spacing: Spacing | None,
    affine: np.ndarray | None = None,
) -> dict[str, Any] | None:
    """The arguments of the scan or segmentation that was written, all but its voxels.

    Parameters
    ----------
    notes
        What `parsed` gave.
    where
        The file, for the error.
    shape, spacing, affine
        What the file itself says of its grid. None: it has no place for it.

    Returns
    -------
    dict or None
        None where there are no notes, or where another program changed the stack since:
        cropped or rescaled, notes and baseline would be those of another grid.

    Raises
    ------
    InputError
        The notes are damaged.
    """
    if notes is None:
        return None
    try:
        noted = np.array(notes["affine"], dtype=float)
        same = (
            tuple(notes["shape"]) == tuple(shape)
            and (spacing is None or _same_extent(notes["spacing"], spacing, shape))
            and (affine is None or corners_apart(noted, affine, shape) < _SAME_MM)
        )
        if not same:
            return None
        slice_mm, row_mm, column_mm = (float(mm) for mm in notes["spacing"])
        numbers, axes = notes["slice_numbers"], notes.get("nifti_axes")
        kept: dict[str, Any] = {
            "spacing": (slice_mm, row_mm, column_mm),
            "affine": noted,
            "name": str(notes["name"]),
            "slice_numbers": None if numbers is None else tuple(int(n) for n in numbers),
            "stored": None if axes is None else NiftiAxes(*axes),
        }
        if is_of_segmentation(notes):
            kept["organs"] = tuple(Organ(**organ) for organ in notes["organs"])
            kept["provenance"] = notes["provenance"]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"The notes of {where} on its organs and geometry are damaged: save it again."
        ) from error
    return kept


def _same_extent(one: Spacing, other: Spacing, shape: tuple[int, ...]) -> bool:
    apart = np.abs(np.subtract(one, other, dtype=float)) * np.array(shape)
    return bool(apart.max() < _SAME_MM)
