"""Layers that a widget shows for a while, and takes away again. No Qt.

With each layer that goes napari has Python look through all that it holds for garbage. Once
torch is loaded that is half a second in which the window stands still. What was there before
these layers came is set aside while they are shown: only what came since is looked through.
"""

import gc
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from napari.components import LayerList, ViewerModel
    from napari.layers import Layer

__all__ = ["PassingLayers"]

_shown: "WeakSet[PassingLayers]" = WeakSet()


class PassingLayers:
    """Layers of ours in a viewer.

    Parameters
    ----------
    viewer
        Where they are shown.
    """

    def __init__(self, viewer: "ViewerModel") -> None:
        self._viewer = viewer
        self._layers: list[Layer] = []

    def __contains__(self, layer: object) -> bool:
        return any(layer is one for one in self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def __getitem__(self, place: int) -> "Layer":
        return self._layers[place]

    def insert(self, index: int, layer: "Layer") -> None:
        """Add a layer at a place, and leave selected what is."""
        if not _shown:
            gc.freeze()
        _shown.add(self)
        self._layers.append(layer)
        _insert_unselected(self._viewer.layers, index, layer)

    def clear(self) -> None:
        """Take all of them away, but for those that the user took away."""
        layers, self._layers = self._layers, []
        for layer in layers:
            if layer in self._viewer.layers:
                self._viewer.layers.remove(layer)
        _shown.discard(self)
        if not _shown:
            gc.unfreeze()


def _insert_unselected(layers: "LayerList", index: int, layer: "Layer") -> None:
    """Add a layer at a place, and leave selected what is.

    The selection changes back in one step: each step makes napari show other controls.
    """
    before = set(layers.selection)
    layers.insert(index, layer)
    layers.selection.symmetric_difference_update(before ^ set(layers.selection))
