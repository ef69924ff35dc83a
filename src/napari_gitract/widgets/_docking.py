"""Where the widgets of this plugin stand: in tabs, since one below another they would not fit."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING
from weakref import ref

import numpy as np
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QDockWidget, QMainWindow, QWidget

from napari_gitract.workspace import camera_of

if TYPE_CHECKING:
    from napari.viewer import Viewer

__all__ = [
    "dock_of",
    "keep_fitted",
    "put_below_canvas",
    "short_title",
    "tab_with_siblings",
    "widen",
]

_BESIDE = {
    Qt.Corner.BottomLeftCorner: Qt.DockWidgetArea.LeftDockWidgetArea,
    Qt.Corner.BottomRightCorner: Qt.DockWidgetArea.RightDockWidgetArea,
}


def tab_with_siblings(widget: QWidget, kind: type[QWidget]) -> None:
    """Put the dock of `widget` into a tab beside another one that holds a `kind`, and in front.

    The tab says what the widget is called, without the plugin's name: five of these would leave
    no room to read any.
    """
    dock = dock_of(widget)
    window = None if dock is None else dock.parent()
    if dock is None or not isinstance(window, QMainWindow):
        return
    dock.setWindowTitle(short_title(dock))
    if window.tabifiedDockWidgets(dock):
        return
    for other in window.findChildren(QDockWidget):
        ours = other is not dock and isinstance(other.widget(), kind)
        together = window.dockWidgetArea(other) == window.dockWidgetArea(dock)
        if ours and together and not other.isHidden() and not other.isFloating():
            width = other.width()
            window.tabifyDockWidget(other, dock)
            dock.raise_()
            # napari, when it is done, leaves a dock the least width.
            _soon(widget, partial(widen, widget, width))
            return


def _soon(widget: QWidget, what: Callable[[], None]) -> None:
    """Do something once Qt has arranged the window, unless the widget is closed before."""
    timer = QTimer(widget)  # which goes with the widget
    timer.setSingleShot(True)
    timer.timeout.connect(what)
    timer.timeout.connect(timer.deleteLater)
    timer.start()


def widen(widget: QWidget, width: int) -> None:
    """Give the dock of `widget` at least so many pixels, where it is docked."""
    dock = dock_of(widget)
    window = None if dock is None else dock.parent()
    if dock is not None and isinstance(window, QMainWindow) and dock.width() < width:
        window.resizeDocks([dock], [width], Qt.Orientation.Horizontal)


def put_below_canvas(widget: QWidget, share: float) -> Callable[[], None]:
    """Let a dock at the bottom be as wide as the canvas; the docks beside keep their height.

    Parameters
    ----------
    widget
        What is docked.
    share
        Of the window's height that it gets.

    Returns
    -------
    Callable
        Gives the corners of the window back to whom they belonged.
    """
    dock = dock_of(widget)
    window = None if dock is None else dock.parent()
    if dock is None or not isinstance(window, QMainWindow):
        return lambda: None
    before = {corner: window.corner(corner) for corner in _BESIDE}
    for corner, area in _BESIDE.items():
        window.setCorner(corner, area)
    window.resizeDocks([dock], [round(share * window.height())], Qt.Orientation.Vertical)

    still_there = ref(window)  # a signal that holds this function must not keep the window

    def give_back() -> None:
        window = still_there()
        if window is not None:
            for corner, area in before.items():
                window.setCorner(corner, area)

    return give_back


def keep_fitted(viewer: "Viewer", widget: QWidget) -> None:
    """Fit slices to the canvas again once it has its new size, where they fill it now.

    Where the user zoomed in, that stays.

    Parameters
    ----------
    viewer
        A dock at its canvas is about to come or go.
    widget
        In the viewer's window.
    """
    if viewer.dims.ndisplay == 2 and _is_fitted(viewer):
        _soon(widget.window() or widget, viewer.reset_view)


def _is_fitted(viewer: "Viewer") -> bool:
    camera = camera_of(viewer)
    zoom, center = camera.zoom, camera.center
    viewer.reset_view()
    fitted = np.allclose((camera.zoom, *camera.center), (zoom, *center))
    camera.zoom, camera.center = zoom, center
    return fitted


def short_title(dock: QDockWidget) -> str:
    """The name of a dock without the name of the plugin, which napari adds in brackets."""
    return dock.objectName().partition(" (")[0]


def dock_of(widget: QWidget) -> QDockWidget | None:
    """The dock that a widget stands in; None where it stands in none."""
    parent = widget.parent()
    while parent is not None and not isinstance(parent, QDockWidget):
        parent = parent.parent()
    return parent
