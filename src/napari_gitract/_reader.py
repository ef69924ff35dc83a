"""npe2 readers: folders of slices or DICOM, and files of every format. No Qt, quick to say no."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gitract.progress import Report, silent
from gitract.scan import Scan, Spacing
from napari_gitract.layers import (
    LayerTuple,
    contour_layers,
    scan_to_layer,
    segmentation_to_layer,
)

if TYPE_CHECKING:
    from napari.layers import Image

__all__ = ["file_reader", "folder_reader", "read_contours", "read_layers"]

PathOrPaths = str | Path | Sequence[str | Path]
ReadFunction = Callable[[PathOrPaths], list[LayerTuple]]

FILE_SUFFIXES = (".tif", ".tiff", ".nii", ".nii.gz", ".dcm", ".ima")


def folder_reader(path: PathOrPaths) -> ReadFunction | None:
    """Reader for a folder of slices or DICOM, or None: every dropped folder is offered here."""
    if not isinstance(path, str | Path):
        return None
    from gitract.io import can_read_folder

    return _read if can_read_folder(path) else None


def file_reader(path: PathOrPaths) -> ReadFunction | None:
    """Reader for one file, a scan or contours, or for the DICOM files of a series."""
    paths = [path] if isinstance(path, str | Path) else list(path)
    if not all(str(one).lower().endswith(FILE_SUFFIXES) for one in paths):
        return None
    several_stacks = len(paths) > 1 and not all(_is_dicom_name(one) for one in paths)
    return None if several_stacks else _read


def _is_dicom_name(path: str | Path) -> bool:
    return str(path).lower().endswith((".dcm", ".ima"))


def read_layers(
    path: str | Path | Sequence[str | Path],
    *,
    key: str | None = None,
    spacing: Spacing | None = None,
    report: Report = silent,
) -> list[LayerTuple]:
    """Read a scan with the reference labels beside it, or contours.

    Parameters
    ----------
    path
        A folder or a file; or the DICOM files of a series.
    key
        Which scan of a folder that holds several.
    spacing
        ``(slice, row, column)`` in mm, for a file that does not say.
    report
        Told of each slice read.

    Raises
    ------
    gitract.errors.InputError
        The file or folder cannot be used; the message names it.
    """
    from gitract.io import holds_labels, read_reference, read_scan

    if isinstance(path, str | Path) and holds_labels(path):
        return read_contours(path, spacing=spacing)
    scan = read_scan(path, key=key, spacing=spacing, report=report)
    layers = [scan_to_layer(scan)]
    if isinstance(path, str | Path):
        reference = read_reference(path, key=key, spacing=spacing)
        if reference is not None:
            layers.append(segmentation_to_layer(reference, name=f"{scan.name} · reference"))
    return layers


def read_contours(
    path: str | Path,
    *,
    scan: Scan | None = None,
    spacing: Spacing | None = None,
    choices: Mapping[str, str] | None = None,
    image_layer: "Image | None" = None,
) -> list[LayerTuple]:
    """Read contours as Labels layers: one, or more where structures overlap.

    Parameters
    ----------
    path, scan, spacing, choices
        As in `gitract.io.read_segmentation`.
    image_layer
        The layer that shows the scan: the labels lie on it, moved or rotated as it may be.

    Raises
    ------
    gitract.errors.InputError
        The file cannot be used, or does not fit the scan; the message names it.
    """
    from gitract.io import read_segmentation

    found = read_segmentation(path, scan=scan, spacing=spacing, choices=choices)
    return contour_layers(found, image_layer, name=Path(path).name.split(".")[0])


def _read(path: PathOrPaths) -> list[LayerTuple]:
    if not isinstance(path, str | Path) and len(path) == 1:
        path = path[0]  # napari wraps a single path in a list
    return read_layers(path)
