"""What a hand does in the window's tests."""

from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractButton, QWidget

__all__ = ["click", "wait"]


def wait(qtbot: QtBot, widget: QWidget) -> None:
    """Until a widget's job has ended."""
    qtbot.waitUntil(lambda: not widget.busy)


def click(qtbot: QtBot, button: QAbstractButton) -> None:
    """With the left button of the mouse."""
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
