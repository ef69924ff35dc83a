"""A line of text that any dock can show: it wraps within long words, too."""

import re

from qtpy.QtCore import Qt
from qtpy.QtGui import QClipboard, QContextMenuEvent, QKeyEvent, QKeySequence, QMouseEvent
from qtpy.QtWidgets import QApplication, QLabel, QMenu

__all__ = ["Note"]

_BREAK = "\u200b"  # a space without width, where Qt may begin a new line
_MOST = 20  # letters that the narrowest dock surely has room for
_TAG_OR_LONG_WORD = re.compile(rf"<[^<>]*>|[^\s<>&]{{{_MOST + 1},}}")
_PIECE = re.compile(rf"[^/\\_.,:=-]{{1,{_MOST}}}[/\\_.,:=-]*|[/\\_.,:=-]+")


class Note(QLabel):
    """Text that wraps, and can be selected and copied.

    Qt breaks lines between words only, and a path is one: it would make the dock wider. So long
    words are shown with places to break at, which whoever reads or copies the text never gets.
    """

    def __init__(self, text: str = "") -> None:
        super().__init__()
        self.setWordWrap(True)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.setText(text)

    def setText(self, text: str | None) -> None:  # noqa: N802 - Qt's name
        """Show plain or rich text."""
        super().setText(_TAG_OR_LONG_WORD.sub(_breakable, text or ""))

    def text(self) -> str:
        """The text that was set."""
        return super().text().replace(_BREAK, "")

    def selectedText(self) -> str:  # noqa: N802 - Qt's name
        """What the user has selected of it."""
        return super().selectedText().replace(_BREAK, "")

    def copy(self, mode: QClipboard.Mode = QClipboard.Mode.Clipboard) -> None:
        """Put what is selected on the clipboard."""
        clipboard = QApplication.clipboard()
        if clipboard is not None and self.hasSelectedText():
            clipboard.setText("\n".join(self.selectedText().splitlines()), mode)

    def select_all(self) -> None:
        """Select the whole text."""
        self.setSelection(0, len(super().text()))

    def keyPressEvent(self, event: QKeyEvent | None) -> None:  # noqa: N802 - Qt's name
        if event is not None and event.matches(QKeySequence.StandardKey.Copy):
            self.copy()
        else:
            super().keyPressEvent(event)

    def mousePressEvent(self, event: QMouseEvent | None) -> None:  # noqa: N802 - Qt's name
        """Select anew, rather than drag what is selected elsewhere, which would be Qt's text."""
        if event is not None and event.button() == Qt.MouseButton.LeftButton:
            self.setSelection(0, 0)
        super().mousePressEvent(event)

    def mouseReleaseEvent(self, event: QMouseEvent | None) -> None:  # noqa: N802 - Qt's name
        """Correct what Linux pastes with the middle button, which Qt sets now."""
        super().mouseReleaseEvent(event)
        clipboard = QApplication.clipboard()
        if clipboard is not None and clipboard.supportsSelection():
            self.copy(QClipboard.Mode.Selection)

    def contextMenuEvent(  # noqa: N802 - Qt's name
        self, event: QContextMenuEvent | None
    ) -> None:
        if event is not None:
            self.menu().exec(event.globalPos())

    def menu(self) -> QMenu:
        """What the right mouse button offers."""
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        copy = menu.addAction("Copy", self.copy)
        assert copy is not None
        copy.setEnabled(self.hasSelectedText())
        menu.addAction("Select all", self.select_all)
        return menu


def _breakable(found: re.Match[str]) -> str:
    """A long word with places to break at, the best ones behind its separators."""
    word = found[0]
    return word if word.startswith("<") else _BREAK.join(_PIECE.findall(word))
