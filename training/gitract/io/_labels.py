"""What the readers of label images share: whose organs the values are, and where they lie."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gitract.errors import InputError
from gitract.io._file_names import stem_of
from gitract.io._notes import is_of_segmentation, restored
from gitract.organ_names import OrganNames
from gitract.organs import ORGANS, Organ
from gitract.scan import Scan, Segmentation, Spacing, Stored, united

__all__ = ["label_values", "renamed", "segmentation_of", "whole_numbers"]


def whole_numbers(values: np.ndarray, where: Path) -> np.ndarray:
    """Label values as ``uint8``; other programs store them as floats, too.

    Raises
    ------
    InputError
        A value is not a whole number from 0 to 255.
    """
    if values.dtype == np.uint8:
        return values
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 255):  # false for NaN
        raise InputError(
            f"{where} holds values from {low} to {high} where labels go from 0 to 255."
        )
    labels = values.astype(np.uint8)
    if values.dtype.kind == "f" and (labels != values).any():
        raise InputError(
            f"{where} holds fractions where labels are whole numbers: choose a label image."
        )
    return labels


def label_values(labels: np.ndarray) -> list[int]:
    """The values in a ``uint8`` label image but for the background, ascending."""
    return [
        int(value) for value in np.flatnonzero(np.bincount(labels.ravel(), minlength=256)) if value
    ]


def segmentation_of(
    labels: np.ndarray,
    *,
    where: Path,
    spacing: Spacing | None,
    affine: np.ndarray | None = None,
    notes: Mapping[str, Any] | None = None,
    stored: Stored | None = None,
    slice_numbers: Sequence[int] | None = None,
    scan: Scan | None = None,
    choices: Mapping[str, str] | None = None,
) -> Segmentation:
    """A segmentation out of the label image of a file.

    Parameters
    ----------
    labels
        ``uint8`` ``(slice, row, column)``.
    where
        The file.
    spacing, affine
        What the file says, or the user; None where nobody does.
    notes
        Ours out of the file, or None.
    stored, slice_numbers
        As in `Segmentation`.
    scan
        The scan that the labels belong to. It gives the place to a file that has none.
    choices
        Value, as text, -> organ, for a file without notes; ``-`` leaves it out. All
        values must then be named. Without it values are the ids of `ORGANS`.

    Raises
    ------
    InputError
        A value is no organ's, nothing says how large a voxel is, or the labels do not
        fit the scan.
    """
    known = (
        restored(notes, where=where, shape=labels.shape, spacing=spacing, affine=affine)
        if is_of_segmentation(notes)
        else None
    )
    noted = known is not None
    if known is None:
        known = {
            **_place(labels.shape, where, spacing, affine, scan),
            "name": stem_of(where),
            "slice_numbers": None if slice_numbers is None else tuple(slice_numbers),
            "stored": stored,
        }
        labels, known["organs"] = _named(labels, where, choices)
    try:
        segmentation = Segmentation.of_labels(labels, **known)
        if choices and noted:
            segmentation = renamed(segmentation, choices)
        return segmentation if scan is None else segmentation.on(scan)
    except InputError as error:
        raise InputError(f"In {where}: {error}") from error


def renamed(segmentation: Segmentation, choices: Mapping[str, str]) -> Segmentation:
    """Contours whose organs are known by name, with other organs for some of them.

    Parameters
    ----------
    segmentation
        What was read.
    choices
        Organ's name -> organ, or ``-`` to leave it out.

    Raises
    ------
    InputError
        `choices` has a name that no organ has.
    """
    names = [organ.name for organ in segmentation.organs]
    assigned = OrganNames.load().assign(list(choices), choices)
    strange = [name for name in choices if name not in names]
    if strange:
        raise InputError(
            f"There are no contours called {strange[0]!r}: there are {', '.join(names)}."
        )
    parts = [
        (wanted, mask)
        for organ, mask in zip(segmentation.organs, segmentation.masks, strict=True)
        if (wanted := assigned.get(organ.name, organ)) is not None
    ]
    if not parts:
        raise InputError(f"Nothing of {segmentation.name!r} is left: leave fewer organs out.")
    organs, masks = united(parts)
    return replace(segmentation, masks=masks, organs=organs)


def _place(
    shape: tuple[int, ...],
    where: Path,
    spacing: Spacing | None,
    affine: np.ndarray | None,
    scan: Scan | None,
) -> dict[str, Any]:
    """Spacing and affine: the file's own, else the scan's, else those of an axial stack."""
    if affine is None and scan is not None:
        fits = shape == scan.shape and (
            spacing is None or np.allclose(spacing, scan.spacing, rtol=0.01)
        )
        if not fits:
            size = " x ".join(str(n) for n in shape)
            other = " x ".join(str(n) for n in scan.shape)
            raise InputError(
                f"{where} has {size} voxels"
                + ("" if spacing is None else f" of {_millimetres(spacing)}")
                + f" where the scan {scan.name!r} has {other} of {_millimetres(scan.spacing)}: "
                "choose the scan that they were made on."
            )
        return {"spacing": scan.spacing, "affine": scan.affine}
    if spacing is None:
        raise InputError(
            f"{where} does not say how large its voxels are: give the spacing in mm, "
            "(slice, row, column)."
        )
    return {"spacing": spacing, "affine": affine}


def _millimetres(spacing: Spacing) -> str:
    return " x ".join(f"{mm:g}" for mm in spacing) + " mm"


def _named(
    labels: np.ndarray, where: Path, choices: Mapping[str, str] | None
) -> tuple[np.ndarray, tuple[Organ, ...]]:
    """The label image with organ ids for its values, and the organs of its table."""
    values = label_values(labels)
    if choices is None:
        strange = [value for value in values if value not in {organ.id for organ in ORGANS}]
        if strange:
            known = ", ".join(f"{organ.id} {organ.name}" for organ in ORGANS)
            raise InputError(
                f"{where} holds the value {strange[0]}, which is no organ here ({known}): name "
                f"each value, as in {strange[0]}=stomach, or leave it out with {strange[0]}=-."
            )
        return labels, ORGANS
    for value in values:
        if str(value) not in choices:
            raise InputError(
                f"{where} holds the value {value}, which was given no organ: "
                f"name it, as in {value}=stomach, or leave it out with {value}=-."
            )
    assigned = OrganNames.load().assign([str(value) for value in values], choices)
    lookup = np.zeros(256, dtype=np.uint8)
    organs = {organ.id: organ for organ in ORGANS}
    for name, organ in assigned.items():
        if organ is not None:
            lookup[int(name)] = organ.id
            organs[organ.id] = organ
    return lookup[labels], tuple(organs[key] for key in sorted(organs))
