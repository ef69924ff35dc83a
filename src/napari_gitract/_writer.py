"""npe2 writer: a Labels layer as a TIFF stack that keeps geometry and provenance. No Qt."""

from typing import Any

import numpy as np

from gitract.errors import InputError
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
        The layer holds values that are no organ's, or its voxel size is unknown.
    """
    from napari.layers import Labels

    from gitract.io import write_segmentation

    origin = origin_of(attributes.get("metadata", {}))
    if np.ndim(data) != 3:
        raise InputError(
            f"Layer {attributes.get('name')!r} has {np.ndim(data)} axes: "
            "a segmentation has three, (slice, row, column)."
        )
    if origin is not None:
        segmentation = segmentation_of_labels(np.asarray(data), origin)
    else:
        known = ("name", "scale", "units", "metadata")
        layer = Labels(np.asarray(data), **{k: attributes[k] for k in known if k in attributes})
        segmentation = segmentation_from_layer(layer)
    return [str(write_segmentation(segmentation, path))]
