"""npe2 writers: Labels layers as contours, Image layers as scans, in every format. No Qt.

napari takes the first writer for a suffix, which may be one of these for every layer
there is. So what is no segmentation of organs, and no scan, is saved as napari itself
would save it, where napari knows the format.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from psygnal import Signal

from gitract.errors import InputError
from gitract.io import (
    SCAN_SUFFIXES,
    SEGMENTATION_SUFFIXES,
    check_output,
    suffix_of,
    write_scan,
    write_segmentation,
)
from gitract.scan import NiftiAxes, Segmentation
from napari_gitract.layers import (
    MAP_KEY,
    LayerTuple,
    Origin,
    joined,
    origin_of,
    origin_of_image_like,
    scan_from_layer,
    segmentation_from_layer,
    segmentation_of_labels,
)

__all__ = [
    "WriterEvents",
    "write_image_nifti",
    "write_image_tiff",
    "write_labels_nifti",
    "write_labels_rle",
    "write_labels_rtstruct",
    "write_labels_seg",
    "write_labels_tiff",
    "writer_events",
]

Writer = Callable[[str, np.ndarray, dict[str, Any]], list[str]]
ManyWriter = Callable[[str, list[LayerTuple]], list[str]]
_NAPARIS = (".tif", ".tiff")
_PLACED = (".nii", ".nii.gz", ".csv", ".seg.dcm", ".rtstruct.dcm")


class WriterEvents:
    """Says which labels were saved, to whoever keeps those that were not."""

    saved = Signal(object)
    """The array of a Labels layer, after it was written; a writer is not told which layer."""


writer_events = WriterEvents()


def _labels_writer(suffix: str) -> Writer:
    """The writer of one Labels layer in a flat format; it adds the suffix that a name lacks."""

    def write(path: str, data: np.ndarray, attributes: dict[str, Any]) -> list[str]:
        target = _named(path, suffix, SEGMENTATION_SUFFIXES)
        try:
            segmentation = _segmentation(target, data, attributes)
        except InputError:
            if origin_of(attributes.get("metadata", {})) or target.suffix not in _NAPARIS:
                raise
            from napari_builtins.io import napari_write_labels

            written = napari_write_labels(str(target), data, attributes)
            if written is None:
                return []
            writer_events.saved.emit(data)
            return [written]
        write_segmentation(segmentation, target)
        writer_events.saved.emit(data)
        return [str(target)]

    return write


def _contours_writer(suffix: str) -> ManyWriter:
    """The writer of all Labels layers of a scan in a format that keeps overlaps."""

    def write(path: str, layers: list[LayerTuple]) -> list[str]:
        target = _named(path, suffix, SEGMENTATION_SUFFIXES)
        # Not what is shown over contours, such as where they changed.
        contours = [one for one in layers if MAP_KEY not in one[1].get("metadata", {})]
        if not contours:
            raise InputError("None of these layers holds contours: choose the one that does.")
        parts = [_segmentation(target, data, attributes) for data, attributes, _ in contours]
        write_segmentation(joined(parts), target)
        for data, _, _ in contours:
            writer_events.saved.emit(data)
        return [str(target)]

    return write


def _segmentation(target: Path, data: np.ndarray, attributes: dict[str, Any]) -> Segmentation:
    own = origin_of(attributes.get("metadata", {}))
    origin = own or _origin_of_scan_below(data, attributes)
    if origin is not None:
        check_output(target, inputs=[] if origin.source is None else [origin.source])
        return segmentation_of_labels(np.asarray(data), origin)
    if suffix_of(target, _PLACED):
        raise InputError(
            f"The layer {attributes.get('name', 'Labels')!r} does not know where in the patient "
            "it lies: open the scan that it was painted on, alone of its size, and save again."
        )
    return segmentation_from_layer(_layer("Labels", data, attributes))


def _origin_of_scan_below(data: np.ndarray, attributes: dict[str, Any]) -> Origin | None:
    """The origin of the scan that a layer of the user's own was painted on, if it is open."""
    from napari import current_viewer

    viewer = current_viewer()
    if viewer is None or "scale" not in attributes:
        return None
    return origin_of_image_like(viewer.layers, np.shape(data), attributes["scale"])


def _image_writer(suffix: str) -> Writer:
    """The writer of Image layers for one format; it adds the suffix that a name lacks."""

    def write(path: str, data: np.ndarray, attributes: dict[str, Any]) -> list[str]:
        target = _named(path, suffix, SCAN_SUFFIXES)
        origin = origin_of(attributes.get("metadata", {}))
        if origin is None and target.suffix in _NAPARIS:
            from napari_builtins.io import napari_write_image

            written = napari_write_image(str(target), data, attributes)
            return [] if written is None else [written]
        scan = scan_from_layer(_layer("Image", data, attributes))
        if origin is None:
            scan = replace(scan, stored=NiftiAxes(placed=False))
        elif origin.source is not None:
            check_output(target, SCAN_SUFFIXES, inputs=[origin.source])
        return [str(write_scan(scan, target))]

    return write


def _named(path: str, suffix: str, suffixes: tuple[str, ...]) -> Path:
    return Path(path if suffix_of(path, suffixes) else path + suffix)


def _layer(kind: str, data: np.ndarray, attributes: dict[str, Any]) -> Any:
    from napari import layers

    known = ("name", "scale", "units", "metadata", "rgb")
    kept = {key: attributes[key] for key in known if key in attributes}
    return getattr(layers, kind)(data, **kept)


write_labels_tiff = _labels_writer(".tif")
write_labels_nifti = _labels_writer(".nii.gz")
write_labels_seg = _contours_writer(".seg.dcm")
write_labels_rtstruct = _contours_writer(".rtstruct.dcm")
write_labels_rle = _contours_writer(".csv")
write_image_tiff = _image_writer(".tif")
write_image_nifti = _image_writer(".nii.gz")
