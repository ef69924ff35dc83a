"""Add, rename, recolour, reorder and remove the organs of a Labels layer. No Qt.

The table is `Origin.organs` in the layer's metadata. An id is what stands in the label image,
and no operation here changes one: what was painted, and what is on disk, keeps its meaning.
Each operation gives the layer a new `Origin`, and the names and colours that go with it.

Removing an organ empties its voxels in one step of napari's own history. Its table entry stays
with the layer, so that the organ is back once its voxels are: by `restore_organ`, or by Ctrl+Z,
of which a layer tells no more than that its data may have changed.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np

from gitract.errors import InputError
from gitract.organ_names import OrganNames, new_organ
from gitract.organs import IGNORE, Organ
from napari_gitract.layers import (
    METADATA_KEY,
    Origin,
    Removed,
    organ_attributes,
    origin_for,
    origin_of,
    with_returned,
)

if TYPE_CHECKING:
    from napari.layers import Labels, Layer

__all__ = [
    "add_organ",
    "adopt",
    "bring_back",
    "move_organ",
    "recolour_organ",
    "remove_organ",
    "rename_organ",
    "restore_organ",
]

_COLOR = re.compile(r"#[0-9a-f]{6}")
_watched: "WeakSet[Labels]" = WeakSet()


# --- the operations ---------------------------------------------------------------------


def adopt(layer: "Labels", others: "Iterable[Layer]" = ()) -> Origin:
    """The `Origin` of a layer; one that is not of our making is given its own here.

    Parameters
    ----------
    layer
        Any Labels layer.
    others
        The layers of the viewer, among which may be the scan that it was painted on. The
        operations look at the layer alone, so where there is a viewer this goes before them.

    Raises
    ------
    InputError
        The layer is no stack, or nothing says how large its voxels are.
    """
    origin = origin_of(layer.metadata)
    if origin is None:
        origin = origin_for(layer, others)
        _show(layer, origin)
    return origin


def add_organ(layer: "Labels", name: str, color: str | None = None) -> Organ:
    """Add an organ at the end of the table, and choose it for painting.

    Parameters
    ----------
    layer
        Any Labels layer.
    name
        Any text. A name or synonym of the table in `gitract.organ_names` stands for that
        organ, with its id and colour; but a number at the end tells ``gtv_2`` from ``gtv``.
        An organ that was removed comes back with its old id and nothing painted. Any other
        gets the lowest id that neither that table nor the layer uses.
    color
        ``#rrggbb``; chosen by the id when not given.

    Raises
    ------
    InputError
        The layer has such an organ, name or colour is none, or no id is left.
    """
    origin = adopt(layer)
    organ = _organ_called(name, layer, origin)
    _check_new(organ.name, layer, origin)
    if color is not None:
        organ = replace(organ, color=_checked_color(color))
    removed = tuple(gone for gone in origin.removed if gone.organ.id != organ.id)
    _show(layer, replace(origin, organs=(*origin.organs, organ), removed=removed))
    layer.selected_label = organ.id
    return organ


def rename_organ(layer: "Labels", identity: int, name: str) -> Organ:
    """Call an organ by another name; the id stays, even where a table knows the name.

    Raises
    ------
    InputError
        There is no such organ, another one has the name, or it is none.
    """
    origin = adopt(layer)
    organ = _organ(identity, layer, origin)
    renamed = replace(organ, name=_slug(name))
    if renamed.name == organ.name:
        return organ
    _check_new(renamed.name, layer, origin)
    provenance = dict(origin.provenance)
    if "unreviewed" in provenance:  # what `gitract.review` keeps there goes by names
        provenance["unreviewed"] = {
            slices: [renamed.name if one == organ.name else one for one in names]
            for slices, names in provenance["unreviewed"].items()
        }
    _show(layer, replace(origin, organs=_with(origin, renamed), provenance=provenance))
    return renamed


def recolour_organ(layer: "Labels", identity: int, color: str) -> Organ:
    """Show an organ in another colour, ``#rrggbb``.

    Raises
    ------
    InputError
        There is no such organ, or the colour is none.
    """
    origin = adopt(layer)
    organ = replace(_organ(identity, layer, origin), color=_checked_color(color))
    _show(layer, replace(origin, organs=_with(origin, organ)))
    return organ


def move_organ(layer: "Labels", identity: int, place: int) -> None:
    """Put an organ elsewhere in the table: 0 is its top, and what is beyond its end the end.

    Raises
    ------
    InputError
        There is no such organ.
    """
    origin = adopt(layer)
    organ = _organ(identity, layer, origin)
    organs = [one for one in origin.organs if one != organ]
    organs.insert(max(place, 0), organ)
    _show(layer, replace(origin, organs=tuple(organs)))


def remove_organ(layer: "Labels", identity: int) -> Organ:
    """Take an organ out of the table and empty its voxels, in one step that can be undone.

    Where it was chosen for painting, its neighbour in the table is now.

    Raises
    ------
    InputError
        There is no such organ, or it is the only one.
    """
    origin = adopt(layer)
    organ = _organ(identity, layer, origin)
    if len(origin.organs) == 1:
        raise InputError(
            f"{organ.title} is the only organ of {layer.name!r}: add another one first."
        )
    place = origin.organs.index(organ)
    voxels = np.nonzero(np.asarray(layer.data) == identity)
    one = None
    if len(voxels[0]):
        layer.data_setitem(voxels, 0)
        one = tuple(int(indices[0]) for indices in voxels)
        _watch(layer)
    organs = tuple(kept for kept in origin.organs if kept != organ)
    removed = (*origin.removed, Removed(organ, place, one))
    _show(layer, replace(origin, organs=organs, removed=removed))
    if layer.selected_label == identity:
        layer.selected_label = organs[min(place, len(organs) - 1)].id
    return organ


def restore_organ(layer: "Labels") -> Organ:
    """Undo the last removal: the organ is in the table again, and so are its voxels.

    Raises
    ------
    InputError
        No organ was removed, or the layer was painted on since: that is to be undone first.
    """
    origin = origin_of(layer.metadata)
    if origin is None or not origin.removed:
        raise InputError(f"No organ of {layer.name!r} was removed.")
    gone = origin.removed[-1]
    if gone.voxel is not None and not _is_back(gone, layer):
        layer.undo()
        if not _is_back(gone, layer):
            layer.redo()
            raise InputError(
                f"{layer.name!r} was painted on since {gone.organ.title} was removed: undo that "
                "first (Ctrl+Z)."
            )
    bring_back(layer, {gone.organ.id})
    return _organ(gone.organ.id, layer, adopt(layer))


def bring_back(layer: "Labels", values: Collection[int]) -> None:
    """Put removed organs with these ids into the table again, since their voxels are back."""
    origin = origin_of(layer.metadata)
    if origin is not None and any(gone.organ.id in values for gone in origin.removed):
        _show(layer, with_returned(origin, values))


# --- the layer --------------------------------------------------------------------------


def _show(layer: "Labels", origin: Origin) -> None:
    """Give a layer its new table, and the names and colours that go with it."""
    # The removed ones too: what an undo brings back is shown as what it is at once.
    attributes = organ_attributes((*origin.organs, *(gone.organ for gone in origin.removed)))
    layer.metadata = {**layer.metadata, METADATA_KEY: origin}
    layer.features = attributes["features"]
    # Last, as it makes the layer say that it changed.
    layer.colormap = attributes["colormap"]


def _watch(layer: "Labels") -> None:
    """See from now on when an undo brings voxels of a removed organ back."""
    if layer not in _watched:
        _watched.add(layer)
        layer.events.set_data.connect(_on_data)


def _on_data(event: Any) -> None:
    # napari undoes a step as a whole, so one voxel tells; to look at all of them whenever
    # the slider moves would take too long.
    layer = event.source
    origin = origin_of(layer.metadata)
    removed = () if origin is None else origin.removed
    bring_back(layer, {gone.organ.id for gone in removed if _is_back(gone, layer)})


def _is_back(gone: Removed, layer: "Labels") -> bool:
    shape = layer.data.shape
    if gone.voxel is None or any(i >= n for i, n in zip(gone.voxel, shape, strict=True)):
        return False
    return bool(layer.data[gone.voxel] == gone.organ.id)


# --- the table --------------------------------------------------------------------------


def _organ(identity: int, layer: "Labels", origin: Origin) -> Organ:
    for organ in origin.organs:
        if organ.id == identity:
            return organ
    raise InputError(f"Layer {layer.name!r} has no organ with the id {identity}.")


def _with(origin: Origin, changed: Organ) -> tuple[Organ, ...]:
    return tuple(changed if organ.id == changed.id else organ for organ in origin.organs)


def _organ_called(name: str, layer: "Labels", origin: Origin) -> Organ:
    """The organ to add for a name: a removed one, one that tables know, or a new one."""
    names = OrganNames.load()
    slug = _slug(name)
    known = next((organ for organ in names.organs if organ.name == slug), None)
    if known is None and not slug[-1].isdigit():
        known = names.find(slug)
    slug = slug if known is None else known.name
    for gone in origin.removed:
        if gone.organ.name == slug:
            return gone.organ
    taken = {organ.id for organ in origin.organs} | {gone.organ.id for gone in origin.removed}
    if known is not None and known.id not in taken:
        return known
    free = _free_id(slug, layer, taken | {organ.id for organ in names.organs})
    # In the colour that any new organ with that id has.
    new = new_organ(slug, [Organ(free - 1, "", "")])
    return new if known is None else replace(known, id=free)


def _free_id(name: str, layer: "Labels", taken: Collection[int]) -> int:
    """The lowest id that no organ has, and no voxel either: it may be somebody's."""
    labels = np.asarray(layer.data)
    for identity in range(1, IGNORE.id):
        if identity not in taken and not np.any(labels == identity):
            return identity
    raise InputError(f"There is no id left for {name!r}: remove an organ of {layer.name!r} first.")


def _slug(name: str) -> str:
    """The name as tables have it: lower case, with underscores."""
    return new_organ(name, ()).name


def _check_new(name: str, layer: "Labels", origin: Origin) -> None:
    if name == IGNORE.name:
        raise InputError(
            f"{name!r} is kept for regions that are not to be learnt from: choose another name."
        )
    if any(organ.name == name for organ in origin.organs):
        raise InputError(
            f"Layer {layer.name!r} has an organ {name!r} already: choose another name."
        )


def _checked_color(color: str) -> str:
    if not _COLOR.fullmatch(color.lower()):
        raise InputError(f"{color!r} is no colour: write it like '#3f9ddb'.")
    return color.lower()
