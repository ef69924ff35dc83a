"""A strip with one column for each slice: what the user did about it, and where they are."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from qtpy.QtCore import QPointF, QRectF, Qt, Signal
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPolygonF
from qtpy.QtWidgets import QVBoxLayout, QWidget

from gitract.review import SliceState
from napari_gitract.widgets._parts import note
from napari_gitract.widgets._slice_axis import GROUND, HERE, SliceAxis

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
        self.columns.show_current(index)


class Columns(SliceAxis):
    """The strip itself."""

    def __init__(self) -> None:
        super().__init__("Slices", _HEIGHT)
        self.states: list[SliceState] = []

    @property
    def slices(self) -> int:
        return len(self.states)

    def text_of(self, index: int) -> str:
        """What the tooltip says of a slice."""
        return f"Slice {index}: {self.states[index]}"

    def paintEvent(self, event: QPaintEvent | None) -> None:  # noqa: N802 - Qt's name
        painter = QPainter(self)
        painter.fillRect(self.rect(), QColor(GROUND))
        if self.current is not None and self.current < self.slices:
            self._paint_marker(painter, self.current)
        # Where columns are narrower than a pixel, what the user did covers what was not touched.
        for state, look in reversed(_LOOKS.items()):
            for index, other in enumerate(self.states):
                if other == state:
                    painter.fillRect(self._column(index, look.height), QColor(look.color))
        painter.end()

    def _column(self, index: int, share: float) -> QRectF:
        """The place of a column of a share of the full height, at least one pixel wide."""
        step = self.width() / self.slices
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
        painter.setBrush(QColor(HERE))
        tip = _MARKER - 1
        painter.drawPolygon(QPolygonF([QPointF(x - 5, 0), QPointF(x + 5, 0), QPointF(x, tip)]))
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
