"""The base of pictures whose width is a stack's slices: a click or a drag chooses one."""

from qtpy.QtCore import QEvent, QPointF, QSize, Qt, Signal
from qtpy.QtGui import QHelpEvent, QMouseEvent
from qtpy.QtWidgets import QSizePolicy, QToolTip, QWidget

__all__ = ["SliceAxis"]


class SliceAxis(QWidget):
    """Slices from left to right, as wide as the dock.

    Parameters
    ----------
    name
        What it shows, for a screen reader.
    height
        In pixels.
    """

    chosen = Signal(int)

    def __init__(self, name: str, height: int) -> None:
        super().__init__()
        self.current: int | None = None
        self._height = height
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setAccessibleName(name)

    @property
    def slices(self) -> int:
        """How many slices there are."""
        raise NotImplementedError

    def text_of(self, index: int) -> str:
        """What the tooltip says of a slice."""
        raise NotImplementedError

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        return QSize(200, self._height)

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        return QSize(60, self._height)

    def show_current(self, index: int | None) -> None:
        """Mark the slice that the viewer shows."""
        if index != self.current:
            self.current = index
            self.update()

    def slice_at(self, x: float) -> int | None:
        """The slice under a place along the width, the nearest where it is outside."""
        if not self.slices:
            return None
        return min(max(int(x / self.width() * self.slices), 0), self.slices - 1)

    def place_of(self, index: int) -> QPointF:
        """The middle of a slice, in the widget's coordinates."""
        return QPointF((index + 0.5) * self.width() / self.slices, self.height() / 2)

    def mousePressEvent(self, event: QMouseEvent | None) -> None:  # noqa: N802 - Qt's name
        self._choose(event)

    def mouseMoveEvent(self, event: QMouseEvent | None) -> None:  # noqa: N802 - Qt's name
        self._choose(event)

    def _choose(self, event: QMouseEvent | None) -> None:
        if event is None or not event.buttons() & Qt.MouseButton.LeftButton:
            return
        index = self.slice_at(event.pos().x())
        if index is not None and index != self.current:
            self.chosen.emit(index)

    def event(self, event: QEvent | None) -> bool:
        """Say what the slice under the mouse is."""
        if not isinstance(event, QHelpEvent) or event.type() != QEvent.Type.ToolTip:
            return super().event(event)
        index = self.slice_at(event.pos().x())
        if index is not None:
            QToolTip.showText(event.globalPos(), self.text_of(index), self)
        return True
