"""Keys for going through slices, bound on a viewer while a widget for it is open.

A key that napari, the user's settings or another plugin has taken is left to them.
"""

from collections.abc import Callable
from typing import Any, Protocol
from weakref import ReferenceType, WeakKeyDictionary, ref

from napari.components import ViewerModel
from napari.layers import Labels
from napari.utils.key_bindings import coerce_keybinding

__all__ = ["KEYS", "ReviewKeys", "Reviewer"]

KEYS = {
    "accept": "G",
    "reject": "Shift+G",
    "reset": "U",
    "go_next": "N",
    "go_previous": "Shift+N",
}
"""Method of the widget -> key. None of these is one of napari's own, for any kind of layer."""


class Reviewer(Protocol):
    """What the keys act on."""

    def accept(self) -> None: ...
    def reject(self) -> None: ...
    def reset(self) -> None: ...
    def go_next(self) -> None: ...
    def go_previous(self) -> None: ...


class ReviewKeys:
    """The keys of one viewer. They act on the widget that was opened last and still is."""

    _all: "WeakKeyDictionary[ViewerModel, ReviewKeys]" = WeakKeyDictionary()

    def __init__(self, viewer: ViewerModel) -> None:
        # The viewer is the key of `_all`: held fast here as well, it would never be freed.
        self._viewer = ref(viewer)
        self._open: list[ReferenceType[Reviewer]] = []
        self._bound: dict[str, Callable[[Any], None]] = {}

    @classmethod
    def of(cls, viewer: ViewerModel) -> "ReviewKeys":
        """The keys of `viewer`."""
        if viewer not in cls._all:
            cls._all[viewer] = cls(viewer)
        return cls._all[viewer]

    @property
    def bound(self) -> dict[str, str]:
        """Method -> key, of those that are bound now."""
        return {name: KEYS[name] for name in self._bound}

    def act_on(self, widget: Reviewer) -> None:
        """Let the keys act on a widget that was opened."""
        self._open = [one for one in self._open if one() is not widget]
        self._open.append(ref(widget))
        viewer = self._viewer()
        if viewer is None or self._bound:
            return
        for name, key in KEYS.items():
            if not _is_taken(viewer, key):
                self._bound[name] = self._action(name)
                viewer.bind_key(key, self._bound[name])

    def leave(self, widget: Reviewer | None) -> None:
        """A widget was closed: the keys act on the one before it, or are free again."""
        self._open = [one for one in self._open if one() is not None and one() is not widget]
        viewer = self._viewer()
        if self._open or viewer is None:
            return
        for name, action in self._bound.items():
            if viewer.keymap.get(coerce_keybinding(KEYS[name])) is action:
                viewer.bind_key(KEYS[name], None)
        self._bound = {}

    def _action(self, name: str) -> Callable[[Any], None]:
        def act(_viewer: Any) -> None:
            widget = self._open[-1]() if self._open else None
            if widget is not None:
                getattr(widget, name)()

        return act


def _is_taken(viewer: ViewerModel, key: str) -> bool:
    binding = coerce_keybinding(key)
    kinds = (*type(viewer).__mro__, *Labels.__mro__)
    maps = [viewer.keymap, *(getattr(kind, "class_keymap", {}) for kind in kinds)]
    return any(binding in keymap for keymap in maps)
