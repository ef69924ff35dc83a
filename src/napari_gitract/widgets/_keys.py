"""Keys for going through slices, bound on a viewer while a widget for them is open.

A key that napari, the user's settings or another plugin has taken is left to them.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self
from weakref import ReferenceType, WeakKeyDictionary, ref

from napari.components import ViewerModel
from napari.layers import Labels
from napari.utils.key_bindings import coerce_keybinding
from qtpy.QtGui import QHideEvent, QShowEvent
from qtpy.QtWidgets import QWidget

__all__ = [
    "DISPLAY_KEYS",
    "KEYS",
    "DisplayKeys",
    "KeyedWidget",
    "ReviewKeys",
    "ViewerKeys",
]

KEYS = {
    "accept": "G",
    "reject": "Shift+G",
    "reset": "U",
    "go_next": "N",
    "go_previous": "Shift+N",
}
"""Method of the widget -> key. None of these is one of napari's own, for any kind of layer."""

DISPLAY_KEYS = {
    "toggle_contours": "K",
    "toggle_prediction": "W",
    "less_opaque": ",",
    "more_opaque": ".",
    "next_organ": "J",
    "previous_organ": "Shift+J",
}
"""The same for how labels are shown and painted."""


class ViewerKeys:
    """Keys of one viewer. They act on the widget for them that was opened last and still is."""

    keys: ClassVar[Mapping[str, str]]
    """Method of the widgets -> key."""
    _all: ClassVar["WeakKeyDictionary[ViewerModel, dict[type, ViewerKeys]]"] = WeakKeyDictionary()

    def __init__(self, viewer: ViewerModel) -> None:
        # The viewer is the key of `_all`: held fast here as well, it would never be freed.
        self._viewer = ref(viewer)
        self._open: list[ReferenceType[QWidget]] = []
        self._bound: dict[str, Callable[[Any], None]] = {}

    @classmethod
    def of(cls, viewer: ViewerModel) -> Self:
        """The keys of `viewer`."""
        known = cls._all.setdefault(viewer, {})
        if cls not in known:
            known[cls] = cls(viewer)
        keys = known[cls]
        assert isinstance(keys, cls)
        return keys

    @property
    def bound(self) -> dict[str, str]:
        """Method -> key, of those that are bound now."""
        return {name: self.keys[name] for name in self._bound}

    def act_on(self, widget: QWidget) -> None:
        """Let the keys act on a widget that was opened; it has a method for each."""
        self._open = [one for one in self._open if one() is not widget]
        self._open.append(ref(widget))
        viewer = self._viewer()
        if viewer is None or self._bound:
            return
        for name, key in self.keys.items():
            if not _is_taken(viewer, key):
                self._bound[name] = self._action(name)
                viewer.bind_key(key, self._bound[name])

    def leave(self, widget: QWidget | None) -> None:
        """A widget was closed: the keys act on the one before it, or are free again."""
        self._open = [one for one in self._open if one() is not None and one() is not widget]
        viewer = self._viewer()
        if self._open or viewer is None:
            return
        for name, action in self._bound.items():
            if viewer.keymap.get(coerce_keybinding(self.keys[name])) is action:
                viewer.bind_key(self.keys[name], None)
        self._bound = {}

    def _action(self, name: str) -> Callable[[Any], None]:
        def act(_viewer: Any) -> None:
            widget = self._open[-1]() if self._open else None
            if widget is not None:
                getattr(widget, name)()

        return act


class ReviewKeys(ViewerKeys):
    """What is said of slices, and going from one to the next."""

    keys = KEYS


class DisplayKeys(ViewerKeys):
    """How labels are shown, and which organ is painted."""

    keys = DISPLAY_KEYS


class KeyedWidget(QWidget):
    """A widget that keys act on while it is open.

    Parameters
    ----------
    keys
        Those of its viewer; the widget has a method for each.
    """

    def __init__(self, keys: ViewerKeys) -> None:
        super().__init__()
        self._keys = keys
        this = ref(self)

        def leave(*_: Any) -> None:
            keys.leave(this())

        self.destroyed.connect(leave)

    def show_keys(self, bound: Mapping[str, str]) -> None:
        """Tell the user which keys there are, by method. For the widgets to override."""

    def showEvent(self, event: QShowEvent | None) -> None:  # noqa: N802 - Qt's name
        """Bind the keys, since the widget is open."""
        super().showEvent(event)
        if event is None or not event.spontaneous():
            self._keys.act_on(self)
            self.show_keys(self._keys.bound)

    def hideEvent(self, event: QHideEvent | None) -> None:  # noqa: N802 - Qt's name
        """Free the keys, since the widget was closed; behind another tab it is not hidden."""
        super().hideEvent(event)
        if event is None or not event.spontaneous():
            self._keys.leave(self)


def _is_taken(viewer: ViewerModel, key: str) -> bool:
    binding = coerce_keybinding(key)
    kinds = (*type(viewer).__mro__, *Labels.__mro__)
    maps = [viewer.keymap, *(getattr(kind, "class_keymap", {}) for kind in kinds)]
    return any(binding in keymap for keymap in maps)
