"""npe2 writer: a Labels layer as a TIFF stack that keeps geometry and provenance. No Qt.

napari takes the first writer for a suffix, which may be this one for every Labels layer
there is. So what is no segmentation of organs is saved as napari itself would.
"""

from typing import Any

import numpy as np

from gitract.errors import InputError
from gitract.scan import Segmentation
from napari_gitract.layers import origin_of, segmentation_from_layer, segmentation_of_labels

__all__ = ["write_labels"]


def write_labels(path: str, data: np.ndarray, attributes: dict[str, Any]) -> list[str]:
    """Write one Labels layer.

    Parameters
    ----------
    path
        The TIFF to write.
    data, attributes
        The layer, as napari hands it over.

    Returns
    -------
    list of str
        The file written.

    Raises
    ------
    InputError
        A layer that was made here holds values that are no organ's.
    """
    origin = origin_of(attributes.get("metadata", {}))
    if origin is not None:
        return _write(segmentation_of_labels(np.asarray(data), origin), path)
    try:
        segmentation = _segmentation_of_other_layer(data, attributes)
    except InputError:
        from napari_builtins.io import napari_write_labels

        written = napari_write_labels(path, data, attributes)
        return [] if written is None else [written]
    return _write(segmentation, path)


def _segmentation_of_other_layer(data: np.ndarray, attributes: dict[str, Any]) -> Segmentation:
    from napari.layers import Labels

    known = ("name", "scale", "units")
    layer = Labels(data, **{key: attributes[key] for key in known if key in attributes})
    return segmentation_from_layer(layer)


def _write(segmentation: Segmentation, path: str) -> list[str]:
    from gitract.io import write_segmentation

    return [str(write_segmentation(segmentation, path))]
