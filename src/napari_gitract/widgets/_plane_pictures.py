"""What layers show in a plane, as pictures that Qt draws."""

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from napari.layers import Image, Layer
from napari.utils.colormaps import DirectLabelColormap

from napari_gitract.widgets._planes import Matrix, Plane, to_world_matrix, voxels_in

__all__ = ["PlanePictures"]


class PlanePictures:
    """Turns what layers show into pictures; remembers their colours and transforms."""

    def __init__(self) -> None:
        self._colors: WeakKeyDictionary[Layer, tuple[Any, npt.NDArray[np.uint32]]] = (
            WeakKeyDictionary()
        )
        self._to_data: WeakKeyDictionary[Layer, Matrix] = WeakKeyDictionary()

    def forget_transform(self, layer: Layer) -> None:
        """The layer was moved."""
        self._to_data.pop(layer, None)

    def picture(
        self, layer: Layer, plane: Plane, point: Matrix, shape: tuple[int, int]
    ) -> npt.NDArray[np.uint32]:
        """Pixels of a layer in a plane, as Qt's premultiplied ARGB."""
        if layer not in self._to_data:
            self._to_data[layer] = _inverse(to_world_matrix(layer))
        values, inside = voxels_in(layer.data, self._to_data[layer], plane, point, shape)
        if isinstance(layer, Image):
            low, high = layer.contrast_limits
            places = ((values - np.float32(low)) * np.float32(255 / (high - low))).clip(0, 255)
        else:
            places = np.where((values > 0) & (values < 256), values, 0)
            if layer.contour:
                places = np.where(_outlines(places), places, 0)
        return np.where(inside, self._table(layer)[places.astype(np.uint8)], np.uint32(0))

    def _table(self, layer: Layer) -> npt.NDArray[np.uint32]:
        """The colour of each of 256 grey values or labels."""
        gamma = layer.gamma if isinstance(layer, Image) else None
        key = (layer.colormap, gamma)
        known = self._colors.get(layer)
        if known is None or known[0][0] is not layer.colormap or known[0][1] != gamma:
            known = self._colors[layer] = (key, _argb(_colors(layer)))
        return known[1]


def _inverse(matrix: Matrix) -> Matrix:
    return np.linalg.inv(np.vstack([matrix, [0.0, 0.0, 0.0, 1.0]]))[:3]


def _outlines(labels: np.ndarray) -> npt.NDArray[np.bool_]:
    """Pixels that have a neighbour with another label."""
    outline = np.zeros(labels.shape, dtype=np.bool_)
    for axis in (0, 1):
        ahead = [slice(None)] * 2
        behind = [slice(None)] * 2
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        differs = labels[tuple(ahead)] != labels[tuple(behind)]
        outline[tuple(ahead)] |= differs
        outline[tuple(behind)] |= differs
    return outline


def _colors(layer: Layer) -> Matrix:
    """RGBA ``(256, 4)`` of grey values from the lower to the upper limit, or of labels."""
    if isinstance(layer, Image):
        return np.asarray(layer.colormap.map(np.linspace(0.0, 1.0, 256) ** layer.gamma))
    if isinstance(layer.colormap, DirectLabelColormap):
        known = layer.colormap.color_dict
        colors = np.stack([np.asarray(known.get(value, known[None])) for value in range(256)])
    else:
        colors = np.asarray(layer.colormap.map(np.arange(256)))
    colors[0] = 0.0
    return colors


def _argb(colors: Matrix) -> npt.NDArray[np.uint32]:
    """RGBA, 0 to 1, as Qt's premultiplied ARGB."""
    alpha = colors[:, 3:]
    parts = np.rint(np.hstack([alpha, colors[:, :3] * alpha]) * 255).astype(np.uint32)
    return (parts @ np.array([1 << 24, 1 << 16, 1 << 8, 1], dtype=np.uint32)).astype(np.uint32)
