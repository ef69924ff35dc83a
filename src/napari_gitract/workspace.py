"""What the widgets share about one viewer: layers, slices worth training on, models.

Evented, and without Qt. A slice is *edited* when its digest differs from the accepted
prediction's (`gitract.baseline`). Which event napari sent does not matter: undo sends
none of its own, and a brush stroke's payload differs between napari's versions. So an
event only says "look again", and looking compares digests.

What the user decided about slices (right as it stands, leave this one out) is kept in the
layer's `Origin`, and so survives saving and reopening.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet, ref

import numpy as np
from psygnal import Signal

from napari_gitract.layers import (
    METADATA_KEY,
    Origin,
    origin_by_scale,
    origin_of,
    origin_of_image_like,
)

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels, Layer

__all__ = [
    "ModelEvents",
    "Review",
    "ReviewedSlice",
    "Workspace",
    "current_slice",
    "go_to_slice",
    "model_events",
    "unproxied",
]

ACCEPTED = "accepted"
LEFT_OUT = "left_out"


def unproxied(viewer: Any) -> Any:
    """The viewer itself, where napari handed a plugin a proxy of it.

    What a proxy returns are proxies again: a layer that was added through one is not the
    object that events name as their source, so ``is`` and weak references fail.
    """
    return getattr(viewer, "__wrapped__", viewer)


class ModelEvents:
    """Says that the model store changed, to every widget of every viewer."""

    changed = Signal()


model_events = ModelEvents()


@dataclass(frozen=True)
class ReviewedSlice:
    """A slice that a person has judged: corrected, or right as it stood."""

    index: int
    edited: bool


@dataclass(frozen=True)
class Review:
    """What is to be trained on, and which edited slices the user took off that list."""

    slices: list[ReviewedSlice]
    left_out: list[int]


class Workspace:
    """The shared state of one viewer's widgets.

    Use `Workspace.of`, which gives every widget of a viewer the same one.
    """

    labels_touched = Signal(object)
    """A Labels layer may have changed; emitted often, so wait for quiet before looking."""

    _all: "WeakKeyDictionary[ViewerModel, Workspace]" = WeakKeyDictionary()

    def __init__(self, viewer: "ViewerModel") -> None:
        # The viewer is the key of `_all`: held fast here as well, it would never be freed.
        self._viewer = ref(viewer)
        self._watched: WeakSet[Layer] = WeakSet()
        for layer in viewer.layers:
            self._watch(layer)
        viewer.layers.events.inserted.connect(self._on_inserted)

    @classmethod
    def of(cls, viewer: "ViewerModel") -> "Workspace":
        """The workspace of `viewer`, made at the first call."""
        viewer = unproxied(viewer)
        if viewer not in cls._all:
            cls._all[viewer] = cls(viewer)
        return cls._all[viewer]

    def has_baseline(self, layer: "Labels") -> bool:
        """Whether it is known what the program drew on this layer."""
        return self._baseline(layer) is not None

    def review(self, layer: "Labels") -> Review:
        """Compare the layer with its prediction, once, and add what the user decided."""
        edited = set(self.edited(layer))
        left_out = self._slices(layer, LEFT_OUT)
        wanted = (edited | self._slices(layer, ACCEPTED)) - left_out
        slices = [
            ReviewedSlice(index, index in edited)
            for index in sorted(wanted)
            if index < len(layer.data)
        ]
        return Review(slices, sorted(left_out & edited))

    def reviewed(self, layer: "Labels") -> list[ReviewedSlice]:
        """The slices to train on, ascending: edited, or accepted as they stood."""
        return self.review(layer).slices

    def edited(self, layer: "Labels") -> list[int]:
        """The slices that differ from the prediction now; none without a baseline."""
        from gitract.baseline import edited_slices

        baseline = self._baseline(layer)
        return [] if baseline is None else edited_slices(np.asarray(layer.data), baseline)

    def accept(self, layer: "Labels", slices: Iterable[int]) -> None:
        """Add slices: right as they stand, or edited and wanted after all."""
        chosen = set(slices)
        self._decide(
            layer,
            accepted=self._slices(layer, ACCEPTED) | chosen,
            left_out=self._slices(layer, LEFT_OUT) - chosen,
        )

    def leave_out(self, layer: "Labels", slices: Iterable[int]) -> None:
        """Take slices off the list; an edited one is remembered as left out."""
        chosen = set(slices)
        self._decide(
            layer,
            accepted=self._slices(layer, ACCEPTED) - chosen,
            left_out=self._slices(layer, LEFT_OUT) | (chosen & set(self.edited(layer))),
        )

    def _decide(self, layer: "Labels", *, accepted: set[int], left_out: set[int]) -> None:
        origin = origin_of(layer.metadata)
        if origin is None:
            viewer = self._viewer()
            others = () if viewer is None else viewer.layers
            below = origin_of_image_like(others, layer.data.shape, layer.scale)
            origin = below or origin_by_scale(layer)
        decided = {ACCEPTED: sorted(accepted), LEFT_OUT: sorted(left_out)}
        provenance = {**origin.provenance, **decided}
        layer.metadata = {**layer.metadata, METADATA_KEY: replace(origin, provenance=provenance)}
        self.labels_touched.emit(layer)

    def _slices(self, layer: "Labels", key: str) -> set[int]:
        origin = origin_of(layer.metadata)
        return set() if origin is None else set(origin.provenance.get(key, ()))

    def _baseline(self, layer: "Labels") -> list[str] | None:
        origin: Origin | None = origin_of(layer.metadata)
        baseline = None if origin is None else origin.provenance.get("baseline")
        return baseline if baseline is not None and len(baseline) == len(layer.data) else None

    def _on_inserted(self, event: Any) -> None:
        self._watch(event.value)

    def _watch(self, layer: "Layer") -> None:
        from napari.layers import Labels

        if not isinstance(layer, Labels) or layer in self._watched:
            return
        self._watched.add(layer)
        look_again = self._looker(layer)
        for name in ("paint", "set_data", "data"):
            layer.events[name].connect(look_again)

    def _looker(self, layer: "Labels") -> Callable[[Any], None]:
        def look_again(event: Any) -> None:
            self.labels_touched.emit(event.source)

        return look_again


def current_slice(viewer: "ViewerModel", layer: "Layer") -> int:
    """The slice of `layer` that the viewer shows, 0-based, wherever the layer was moved."""
    index = int(round(float(layer.world_to_data(viewer.dims.point)[0])))
    return min(max(index, 0), len(layer.data) - 1)


def go_to_slice(viewer: "ViewerModel", layer: "Layer", index: int) -> None:
    """Show slice `index` of `layer`."""
    middle = [size / 2 for size in layer.data.shape[1:]]
    world = layer.data_to_world((index, *middle))
    viewer.dims.set_point(viewer.dims.ndim - layer.ndim, world[0])
