"""Where the widgets of this plugin stand: in tabs, since one below another they would not fit."""

from collections.abc import Callable
from weakref import ref

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QDockWidget, QMainWindow, QWidget

__all__ = ["dock_of", "put_below_canvas", "short_title", "tab_with_siblings", "widen"]

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
            _widen_soon(widget, width)
            return


def _widen_soon(widget: QWidget, width: int) -> None:
    """Give a dock the width of its tabs again: napari, when it is done, leaves it the least."""
    timer = QTimer(widget)  # which goes with the widget, should that be closed before
    timer.setSingleShot(True)
    timer.timeout.connect(lambda: widen(widget, width))
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


def short_title(dock: QDockWidget) -> str:
    """The name of a dock without the name of the plugin, which napari adds in brackets."""
    return dock.objectName().partition(" (")[0]


def dock_of(widget: QWidget) -> QDockWidget | None:
    """The dock that a widget stands in; None where it stands in none."""
    parent = widget.parent()
    while parent is not None and not isinstance(parent, QDockWidget):
        parent = parent.parent()
    return parent
