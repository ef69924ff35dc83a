"""A strip with one column for each slice: what the user did about it, and where they are."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from qtpy.QtCore import QEvent, QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QHelpEvent, QMouseEvent, QPainter, QPaintEvent, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QToolTip, QVBoxLayout, QWidget

from gitract.review import SliceState
from napari_gitract.widgets._parts import note

__all__ = ["Columns", "SliceStrip"]


class _Look(NamedTuple):
    """How a state is drawn: the height tells it where colours cannot."""

    color: str
    height: float


# After Okabe and Ito, "Color Universal Design" (2008): told apart whatever a person's colour
# vision. On the strip's own dark ground they are the same in every theme.
_LOOKS: dict[SliceState, _Look] = {
    "edited": _Look("#56b4e9", 1.0),
    "accepted": _Look("#009e73", 0.75),
    "rejected": _Look("#d55e00", 0.5),
    "untouched": _Look("#6b7280", 0.2),
}
_GROUND = "#15171c"
_HERE = "#ffffff"
_HEIGHT = 40
_MARKER = 7  # the room above the columns, for the triangle
_GAP_FROM = 4.0  # columns that are this wide get a gap between them


class SliceStrip(QWidget):
    """What was done about each slice of a stack, with a legend that counts.

    Click or drag to choose a slice.
    """

    chosen = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.columns = Columns()
        self.columns.chosen.connect(self.chosen)
        self.legend = note()
        self.legend.setStyleSheet("font-size: 11px;")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self.columns)
        layout.addWidget(self.legend)

    def show_states(self, states: Sequence[SliceState]) -> None:
        """Draw these states, one for each slice; nothing where there are none."""
        self.columns.states = list(states)
        self.columns.update()
        counts = Counter(states)
        entries = [
            f'<span style="color:{look.color}">■</span>&nbsp;{counts[state]}&nbsp;{state}&nbsp;'
            for state, look in _LOOKS.items()
        ]
        self.legend.setText(" ".join(entries) if states else "")

    def show_current(self, index: int | None) -> None:
        """Mark the slice that the viewer shows."""
        if index != self.columns.current:
            self.columns.current = index
            self.columns.update()


class Columns(QWidget):
    """The strip itself."""

    chosen = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.states: list[SliceState] = []
        self.current: int | None = None
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setAccessibleName("Slices")

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        return QSize(200, _HEIGHT)

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        return QSize(60, _HEIGHT)

    def slice_at(self, x: float) -> int | None:
        """The slice under a place along the strip, the nearest where it is outside."""
        if not self.states:
            return None
        index = int(x / self.width() * len(self.states))
        return min(max(index, 0), len(self.states) - 1)

    def place_of(self, index: int) -> QPointF:
        """The middle of a column, in the widget's coordinates."""
        return QPointF((index + 0.5) * self.width() / len(self.states), self.height() / 2)

    def text_of(self, index: int) -> str:
        """What the tooltip says of a slice."""
        return f"Slice {index}: {self.states[index]}"

    def paintEvent(self, event: QPaintEvent | None) -> None:  # noqa: N802 - Qt's name
        painter = QPainter(self)
        painter.fillRect(self.rect(), QColor(_GROUND))
        if self.current is not None and self.current < len(self.states):
            self._paint_marker(painter, self.current)
        # Where columns are narrower than a pixel, what the user did covers what was not touched.
        for state, look in reversed(_LOOKS.items()):
            for index, other in enumerate(self.states):
                if other == state:
                    painter.fillRect(self._column(index, look.height), QColor(look.color))
        painter.end()

    def _column(self, index: int, share: float) -> QRectF:
        """The place of a column of a share of the full height, at least one pixel wide."""
        step = self.width() / len(self.states)
        left, right = round(index * step), round((index + 1) * step)
        width = max(right - left - (step >= _GAP_FROM), 1)
        height = round((self.height() - _MARKER - 1) * share)
        return QRectF(left, self.height() - height, width, height)

    def _paint_marker(self, painter: QPainter, index: int) -> None:
        """A triangle above the column, and a light ground behind it."""
        x = self.place_of(index).x()
        ground = self._column(index, 1.0).adjusted(-1, 0, 1, 0)
        painter.fillRect(ground, QColor("#4b5160"))
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(_HERE))
        tip = _MARKER - 1
        painter.drawPolygon(QPolygonF([QPointF(x - 5, 0), QPointF(x + 5, 0), QPointF(x, tip)]))
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)

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
