"""What the widgets share about one viewer: layers, what the user did about slices, models.

Evented, and without Qt. What happened to a slice is told by comparing digests
(`gitract.review`). Which event napari sent does not matter: undo sends none of its own, and
a brush stroke's payload differs between napari's versions. So an event only says "look
again", and looking compares: the slice that is shown at once, since that costs 0.1 ms, and
the whole stack, which takes 30 ms, when the user pauses.

What the user decided (right as it stands, leave this one out, these organs were not looked
at) is kept in the layer's `Origin`, and so survives saving and reopening.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet, ref

import numpy as np
from psygnal import Signal

from gitract.baseline import slice_digest, slice_digests
from gitract.errors import InputError
from gitract.review import SliceState, states_of_digests, unreviewed_organs
from napari_gitract.layers import (
    METADATA_KEY,
    Origin,
    origin_for,
    origin_of,
)
from napari_gitract.prediction import Prediction, keep_prediction, prediction_of

if TYPE_CHECKING:
    from napari.components import Camera, ViewerModel
    from napari.layers import Labels, Layer

__all__ = [
    "ModelEvents",
    "ReviewedSlice",
    "Workspace",
    "camera_of",
    "current_slice",
    "go_to_slice",
    "model_events",
    "unproxied",
]


def unproxied(viewer: Any) -> Any:
    """The viewer itself, where napari handed a plugin a proxy of it.

    What a proxy returns are proxies again: a layer that was added through one is not the
    object that events name as their source, so ``is`` and weak references fail.
    """
    return getattr(viewer, "__wrapped__", viewer)


def camera_of(viewer: "ViewerModel") -> "Camera":
    """The camera of a viewer: its scene's since napari 0.9, its own before."""
    return getattr(viewer, "scene", viewer).camera


class ModelEvents:
    """Says that the model store changed, to every widget of every viewer."""

    changed = Signal()


model_events = ModelEvents()


@dataclass(frozen=True)
class ReviewedSlice:
    """A slice that a person has judged: corrected, or right as it stood."""

    index: int
    edited: bool


REVIEWED: tuple[SliceState, ...] = ("edited", "accepted")


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
        self._digests: WeakKeyDictionary[Labels, list[str]] = WeakKeyDictionary()
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
        return "baseline" in self._provenance(layer)

    def prediction(self, layer: "Labels") -> Prediction | None:
        """What the program drew on this layer; None where nobody can tell any more.

        A file keeps only digests of it. So of a layer that was opened it is known only where
        every slice was still as predicted when somebody first asked.
        """
        known = prediction_of(layer)
        baseline = self._provenance(layer).get("baseline")
        if known is not None or baseline is None or not _is_stack(layer):
            return known
        # The digests of the last look say in no time that one slice was edited.
        if baseline == self._digests_of(layer, ()) == self._digests_of(layer, None):
            known = keep_prediction(layer)
        return known

    def digests(self, layer: "Labels", *, changed: Iterable[int] | None = None) -> list[str]:
        """The digest of each slice of a stack of labels; `changed` as for `states`."""
        return list(self._digests_of(layer, changed))

    def states(self, layer: "Labels", *, changed: Iterable[int] | None = None) -> list[SliceState]:
        """What the user did about each slice of a layer.

        Parameters
        ----------
        layer
            A Labels layer; of one that is no stack of slices, nothing is told.
        changed
            The slices that may have changed since the last look; all of them when not given.
        """
        return self._states(layer, changed, self._provenance(layer))

    def reviewed(self, layer: "Labels") -> list[ReviewedSlice]:
        """The slices to train on, ascending: edited, or accepted as they stood."""
        return [
            ReviewedSlice(index, state == "edited")
            for index, state in enumerate(self.states(layer))
            if state in REVIEWED
        ]

    def edited(self, layer: "Labels", *, changed: Iterable[int] | None = None) -> list[int]:
        """The slices that a person made differ from the prediction; none without a baseline."""
        provenance = {**self._provenance(layer), "rejected": ()}
        states = self._states(layer, changed, provenance)
        return [index for index, state in enumerate(states) if state == "edited"]

    def kept(self, layer: "Labels") -> list[int]:
        """The slices whose contours are a person's: what filling starts from.

        On a layer without a baseline these are also all slices that something was drawn on.
        """
        states = self._states_since_empty(layer)
        return [index for index, state in enumerate(states) if state in REVIEWED]

    def accept(self, layer: "Labels", slices: Iterable[int]) -> None:
        """Say that slices are right as they stand, and are to be trained on.

        It goes for what stands there now. So of an edited slice nothing is noted, other than
        that it is not rejected: should the edit be undone, nobody has accepted what is there.
        """
        chosen = set(slices)
        noted = self._without(layer, chosen)
        filled = self._filled_now(layer, chosen)
        predicted = chosen - filled - {*self.edited(layer, changed=chosen)}
        noted["accepted"] = sorted({*noted["accepted"], *predicted})
        self._note(layer, noted | self._fillings(layer, filled, seen=True))

    def reject(self, layer: "Labels", slices: Iterable[int]) -> None:
        """Say that slices are not to be trained on, whatever stands on them."""
        chosen = set(slices)
        noted = self._without(layer, chosen)
        noted["rejected"] = sorted({*noted["rejected"], *chosen})
        self._note(layer, noted)

    def reset(self, layer: "Labels", slices: Iterable[int]) -> None:
        """Forget what was said of slices: they are untouched or edited, by difference."""
        chosen = set(slices)
        unseen = self._fillings(layer, self._filled_now(layer, chosen), seen=False)
        self._note(layer, self._without(layer, chosen) | unseen)

    def fill(self, layer: "Labels", filled: Mapping[int, np.ndarray]) -> list[int]:
        """Put contours on slices that nobody reviewed, as one step for undo.

        Nobody has seen them, so that they stay untouched.

        Parameters
        ----------
        layer
            A stack of labels.
        filled
            Labels ``(row, column)`` of some slices, as of `gitract.fill_between`.

        Returns
        -------
        list of int
            The slices that were changed, ascending: none that the user edited, accepted or
            rejected, also where that was after the contours were computed.
        """
        stack = _stack(layer)
        states = self._states_since_empty(layer)
        free = {
            index: labels.astype(stack.dtype)
            for index, labels in sorted(filled.items())
            if states[index] == "untouched"
        }
        changes = {index: new for index, new in free.items() if (new != stack[index]).any()}
        if not changes:
            return []
        noted = dict(self._provenance(layer).get("filled", {}))
        for index, new in changes.items():
            noted[str(index)] = {**noted.get(str(index), {}), slice_digest(new): False}
        self._note(layer, {"filled": noted})
        where = [np.nonzero(new != stack[index]) for index, new in changes.items()]
        places = [np.full(len(rows), i) for i, (rows, _) in zip(changes, where, strict=True)]
        values = [new[place] for new, place in zip(changes.values(), where, strict=True)]
        rows, columns = (np.concatenate(axis) for axis in zip(*where, strict=True))
        layer.data_setitem((np.concatenate(places), rows, columns), np.concatenate(values))
        return list(changes)

    def unreviewed(self, layer: "Labels", index: int) -> frozenset[str]:
        """The organs that the user did not look at on a slice, by name."""
        return unreviewed_organs(self._provenance(layer), index)

    def has_own_unreviewed(self, layer: "Labels", index: int) -> bool:
        """Whether something was said of the organs of this slice alone."""
        return str(index) in self._provenance(layer).get("unreviewed", {})

    def set_unreviewed(
        self, layer: "Labels", names: Iterable[str] | None, index: int | None = None
    ) -> None:
        """Say which organs were not looked at.

        Parameters
        ----------
        layer
            A stack of labels.
        names
            Names of organs. None takes back what was said, so that a slice is again like all.
        index
            The slice; when not given, all slices of which nothing else was said.
        """
        key = "all" if index is None else str(index)
        said = dict(self._provenance(layer).get("unreviewed", {}))
        said.pop(key, None)
        if names is not None:
            said[key] = sorted(names)
        self._note(layer, {"unreviewed": said})

    def _states(
        self, layer: "Labels", changed: Iterable[int] | None, provenance: Mapping[str, Any]
    ) -> list[SliceState]:
        if not _is_stack(layer):
            return []
        if provenance.keys().isdisjoint(("baseline", "filled")):
            return states_of_digests([""] * len(layer.data), provenance)  # nothing to compare
        return states_of_digests(self._digests_of(layer, changed), provenance)

    def _digests_of(self, layer: "Labels", changed: Iterable[int] | None) -> list[str]:
        known = self._digests.get(layer)
        if known is None or changed is None or len(known) != len(layer.data):
            known = self._digests[layer] = slice_digests(np.asarray(layer.data))
            return known
        for index in changed:
            known[index] = slice_digest(np.asarray(layer.data[index]))
        return known

    def _states_since_empty(self, layer: "Labels") -> list[SliceState]:
        """The states, where a layer without a prediction counts as one that was empty."""
        provenance = self._provenance(layer)
        if "baseline" not in provenance:
            stack = _stack(layer)
            provenance["baseline"] = [slice_digest(np.zeros(stack.shape[1:]))] * len(stack)
        return self._states(layer, None, provenance)

    def _filled_now(self, layer: "Labels", slices: Iterable[int]) -> set[int]:
        """Those of `slices` that are as filling left them."""
        noted = self._provenance(layer).get("filled", {})
        return {
            index
            for index in slices
            if slice_digest(np.asarray(layer.data[index])) in noted.get(str(index), {})
        }

    def _fillings(
        self, layer: "Labels", slices: Iterable[int], *, seen: bool
    ) -> dict[str, dict[str, dict[str, bool]]]:
        """What to note of fillings, where those that now are on `slices` get another mark."""
        noted = dict(self._provenance(layer).get("filled", {}))
        for index in slices:
            digest = slice_digest(np.asarray(layer.data[index]))
            noted[str(index)] = {**noted[str(index)], digest: seen}
        return {"filled": noted} if noted else {}

    def _without(self, layer: "Labels", slices: set[int]) -> dict[str, Any]:
        """What was said of the other slices."""
        provenance = self._provenance(layer)
        return {
            key: sorted({*provenance.get(key, ())} - slices) for key in ("accepted", "rejected")
        }

    def _note(self, layer: "Labels", noted: Mapping[str, Any]) -> None:
        """Keep what was said in the layer, whose event tells every viewer that shows it."""
        _stack(layer)
        viewer = self._viewer()
        origin = origin_for(layer, () if viewer is None else viewer.layers)
        provenance = {**origin.provenance, **noted}
        layer.metadata = {**layer.metadata, METADATA_KEY: replace(origin, provenance=provenance)}

    def _provenance(self, layer: "Labels") -> dict[str, Any]:
        """What is known of the layer; a baseline only where it is that of this stack."""
        origin: Origin | None = origin_of(layer.metadata)
        known = {} if origin is None else dict(origin.provenance)
        baseline = known.pop("baseline", None)
        if baseline is not None and len(baseline) == len(layer.data):
            known["baseline"] = baseline
        return known

    def _on_inserted(self, event: Any) -> None:
        self._watch(event.value)

    def _watch(self, layer: "Layer") -> None:
        from napari.layers import Labels

        if not isinstance(layer, Labels) or layer in self._watched:
            return
        self._watched.add(layer)
        look_again = self._looker(layer)
        for name in ("paint", "set_data", "data", "metadata"):
            layer.events[name].connect(look_again)

    def _looker(self, layer: "Labels") -> Callable[[Any], None]:
        def look_again(event: Any) -> None:
            self.labels_touched.emit(event.source)

        return look_again


def _is_stack(layer: "Labels") -> bool:
    return layer.ndim == 3 and not layer.multiscale


def _stack(layer: "Labels") -> np.ndarray:
    """The voxels of a layer.

    Raises
    ------
    InputError
        It is no stack of slices.
    """
    if not _is_stack(layer):
        raise InputError(
            f"Layer {layer.name!r} is not one stack of labels (slice, row, column) "
            "at full resolution."
        )
    return np.asarray(layer.data)


def current_slice(viewer: "ViewerModel", layer: "Layer") -> int:
    """The slice of `layer` that the viewer shows, 0-based, wherever the layer was moved."""
    index = int(round(float(layer.world_to_data(viewer.dims.point)[0])))
    return min(max(index, 0), len(layer.data) - 1)


def go_to_slice(viewer: "ViewerModel", layer: "Layer", index: int) -> None:
    """Show slice `index` of `layer`."""
    middle = [size / 2 for size in layer.data.shape[1:]]
    world = layer.data_to_world((index, *middle))
    viewer.dims.set_point(viewer.dims.ndim - layer.ndim, world[0])
