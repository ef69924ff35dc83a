"""Reading scans and labels, writing segmentations: one module a format.

The functions here choose the format by content or, for writing, by suffix. Importing
this package loads neither Pillow nor tifffile.
"""

import os
from collections.abc import Callable
from pathlib import Path

from gitract.errors import InputError
from gitract.io._files import check_target
from gitract.io.competition import (
    can_read_folder,
    read_day,
    read_day_reference,
    write_label_slices,
    write_rle_table,
)
from gitract.io.tiff import (
    is_segmentation_tiff,
    is_tiff,
    read_segmentation_tiff,
    read_tiff,
    write_segmentation_tiff,
)
from gitract.organs import ORGANS, Organ
from gitract.progress import Report, silent
from gitract.scan import Scan, Segmentation, Spacing

__all__ = [
    "can_read_folder",
    "check_output",
    "is_segmentation_file",
    "read_reference",
    "read_scan",
    "read_segmentation",
    "write_segmentation",
]

_READABLE = "folders of slices (slice_0001_266_266_1.50_1.50.png) and TIFF stacks (.tif, .tiff)"
_TIFF_SUFFIXES = (".tif", ".tiff")
_WRITERS: dict[str, Callable[[Segmentation, Path], None]] = {
    ".tif": write_segmentation_tiff,
    ".tiff": write_segmentation_tiff,
    ".csv": write_rle_table,
    ".png": write_label_slices,
}


def read_scan(path: str | Path, *, spacing: Spacing | None = None, report: Report = silent) -> Scan:
    """Read a scan from a folder of slices or a TIFF stack.

    Parameters
    ----------
    path
        A day of the competition, its ``scans`` folder, a case with one day, or a TIFF.
    spacing
        ``(slice, row, column)`` in mm, in place of what the files say.
    report
        Called for each slice of a folder.

    Returns
    -------
    Scan
        Voxels as stored, with geometry, name and source.

    Raises
    ------
    InputError
        The path is missing, of a kind that is not read, incomplete or damaged.
    """
    target = _existing(path)
    if target.is_dir():
        return read_day(target, spacing=spacing, report=report)
    _check_is_tiff(target)
    return read_tiff(target, spacing=spacing, report=report)


def read_reference(path: str | Path) -> Segmentation | None:
    """The reference contours of a scan, from the competition's ``train.csv`` near it.

    Parameters
    ----------
    path
        What `read_scan` was given.

    Returns
    -------
    Segmentation or None
        None for a TIFF, where there is no table, and where the table has no contour for
        the day.

    Raises
    ------
    InputError
        The path is missing, or the table contradicts the scan.
    """
    target = _existing(path)
    return read_day_reference(target) if target.is_dir() else None


def read_segmentation(
    path: str | Path, *, organs: tuple[Organ, ...] = ORGANS, spacing: Spacing | None = None
) -> Segmentation:
    """Read labels from a TIFF stack or a folder of PNG label slices.

    Parameters
    ----------
    path
        What `write_segmentation` wrote (``.tif``, ``.png/``), or any label stack.
    organs
        The organ table for a file that does not carry its own.
    spacing
        ``(slice, row, column)`` in mm, in place of what the files say.

    Raises
    ------
    InputError
        The path is missing or damaged, holds a value that is no organ's id, or has no
        spacing and none is given.
    """
    target = _existing(path)
    if not target.is_dir():
        _check_is_tiff(target)
        return read_segmentation_tiff(target, organs=organs, spacing=spacing)
    scan = read_day(target, spacing=spacing)
    try:
        return Segmentation.of_labels(
            scan.voxels,
            spacing=scan.spacing,
            organs=organs,
            name=target.stem,
            slice_numbers=scan.slice_numbers,
        )
    except InputError as error:
        raise InputError(f"In {target}: {error}") from error


def write_segmentation(segmentation: Segmentation, path: str | Path) -> Path:
    """Write a segmentation in the format of the suffix.

    ``.tif``, ``.tiff``: a label stack with geometry, organs and provenance.
    ``.csv``: the competition's run lengths; overlaps stay as they are.
    ``.png``: a folder of PNG label slices.

    Parameters
    ----------
    segmentation
        What to write.
    path
        The file or folder; it is replaced when everything is written.

    Returns
    -------
    pathlib.Path
        `path`.

    Raises
    ------
    InputError
        The suffix is not known or the place cannot be written; what stood there before
        is untouched.
    """
    target = Path(path)
    check_output(target)
    _WRITERS[target.suffix.lower()](segmentation, target)
    return target


def check_output(path: str | Path) -> None:
    """Refuse an output that cannot be written, before a long job makes what goes into it.

    Raises
    ------
    InputError
        The suffix is not known, the folder does not exist, or the file is protected.
    """
    target = Path(path)
    if target.suffix.lower() not in _WRITERS:
        raise InputError(
            f"{target.name!r} has no suffix that can be written: choose .tif (label stack), "
            ".csv (run lengths) or .png (folder of label slices)."
        )
    check_target(target)


def is_segmentation_file(path: str | Path) -> bool:
    """Whether a file is a TIFF that `write_segmentation` wrote; reads no voxels, never raises."""
    return is_segmentation_tiff(path)


def _existing(path: str | Path) -> Path:
    target = Path(path)
    if not os.path.exists(target):  # unlike Path.exists also where a parent is forbidden
        raise InputError(f"{target} does not exist: check the path.")
    return target


def _check_is_tiff(path: Path) -> None:
    """Refuse a file that is not a TIFF, with the reason that its name suggests."""
    if is_tiff(path):
        return
    suffix = path.suffix.lower()
    if suffix == ".png":
        raise InputError(f"{path} is one slice: give the folder that holds all slices of the day.")
    if suffix in _TIFF_SUFFIXES:
        raise InputError(f"{path} is damaged or not a TIFF file: copy it again from its source.")
    raise InputError(f"{path} cannot be read: gitract reads {_READABLE} today.")
