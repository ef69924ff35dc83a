"""Keep the widgets of this plugin in tabs: below each other they would not fit a laptop."""

from qtpy.QtWidgets import QDockWidget, QMainWindow, QWidget

__all__ = ["tab_with_siblings"]

TITLE_END = "(napari-gitract)"


def tab_with_siblings(widget: QWidget) -> None:
    """Put the dock of `widget` into a tab beside another one of this plugin, and in front."""
    dock = _dock_of(widget)
    window = None if dock is None else dock.parent()
    if dock is None or not isinstance(window, QMainWindow):
        return
    for other in window.findChildren(QDockWidget):
        ours = other is not dock and other.objectName().endswith(TITLE_END)
        together = window.dockWidgetArea(other) == window.dockWidgetArea(dock)
        if ours and together and other.isVisible() and not other.isFloating():
            window.tabifyDockWidget(other, dock)
            dock.raise_()
            return


def _dock_of(widget: QWidget) -> QDockWidget | None:
    parent = widget.parent()
    while parent is not None and not isinstance(parent, QDockWidget):
        parent = parent.parent()
    return parent
