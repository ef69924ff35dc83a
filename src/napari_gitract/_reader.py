"""npe2 readers: competition folders and TIFF stacks. No Qt, and quick to say no."""

from collections.abc import Callable, Sequence
from pathlib import Path

from gitract.progress import Report, silent
from gitract.scan import Spacing
from napari_gitract.layers import LayerTuple, scan_to_layer, segmentation_to_layer

__all__ = ["folder_reader", "read_layers", "tiff_reader"]

PathOrPaths = str | Path | Sequence[str | Path]
ReadFunction = Callable[[PathOrPaths], list[LayerTuple]]


def folder_reader(path: PathOrPaths) -> ReadFunction | None:
    """Reader for a folder of slices, or None: every dropped folder is offered here."""
    if not isinstance(path, str | Path):
        return None
    from gitract.io import can_read_folder

    return _read if can_read_folder(path) else None


def tiff_reader(path: PathOrPaths) -> ReadFunction | None:
    """Reader for one TIFF stack: a scan, or a segmentation that was saved from here."""
    if not isinstance(path, str | Path):
        return None
    return _read if Path(path).suffix.lower() in (".tif", ".tiff") else None


def read_layers(
    path: str | Path, *, spacing: Spacing | None = None, report: Report = silent
) -> list[LayerTuple]:
    """Read a scan with the reference labels beside it, or a segmentation.

    Parameters
    ----------
    path
        A folder of slices or a TIFF.
    spacing
        ``(slice, row, column)`` in mm, for a file that does not say.
    report
        Told of each slice read.

    Raises
    ------
    gitract.errors.InputError
        The file or folder cannot be used; the message names it.
    """
    from gitract.io import is_segmentation_file, read_reference, read_scan, read_segmentation

    path = Path(path)
    if path.is_file() and is_segmentation_file(path):
        return [segmentation_to_layer(read_segmentation(path, spacing=spacing), name=path.stem)]
    scan = read_scan(path, spacing=spacing, report=report)
    layers = [scan_to_layer(scan)]
    if (reference := read_reference(path)) is not None:
        layers.append(segmentation_to_layer(reference, name=f"{scan.name} · reference"))
    return layers


def _read(path: PathOrPaths) -> list[LayerTuple]:
    if not isinstance(path, str | Path):
        path = path[0]  # napari wraps a single path in a list
    return read_layers(path)
