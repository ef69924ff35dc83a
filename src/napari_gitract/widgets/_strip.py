"""A strip with one column for each slice: what the user did about it, and where they are."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from qtpy.QtCore import QEvent, QPointF, QRectF, Qt, Signal
from qtpy.QtGui import QPainter, QPaintEvent, QPolygonF
from qtpy.QtWidgets import QVBoxLayout, QWidget

from gitract.review import SliceState
from napari_gitract.widgets._painting import Shades
from napari_gitract.widgets._parts import note
from napari_gitract.widgets._slice_axis import SliceAxis

__all__ = ["Columns", "SliceStrip"]


class _Look(NamedTuple):
    """How a state is drawn: the height tells it where colours cannot."""

    color: str
    height: float


# After Okabe and Ito, "Color Universal Design" (2008): told apart whatever a person's colour
# vision.
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
        self._fill_legend()

    def show_current(self, index: int | None) -> None:
        """Mark the slice that the viewer shows."""
        self.columns.show_current(index)

    def _fill_legend(self) -> None:
        counts, shades = Counter(self.columns.states), Shades.of(self)
        entries = [
            f'<span style="color:{shades.visible(look.color).name()}">■</span>'
            f"&nbsp;{counts[state]}&nbsp;{state}&nbsp;"
            for state, look in _LOOKS.items()
        ]
        self.legend.setText(" ".join(entries) if counts else "")

    def changeEvent(self, event: QEvent | None) -> None:  # noqa: N802 - Qt's name
        """Have the legend follow the theme."""
        super().changeEvent(event)
        if event is not None and event.type() == QEvent.Type.PaletteChange:
            self._fill_legend()


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
        painter, shades = QPainter(self), Shades.of(self)
        painter.fillRect(self.rect(), shades.ground)
        if self.current is not None and self.current < self.slices:
            self._paint_marker(painter, shades, self.current)
        # Where columns are narrower than a pixel, what the user did covers what was not touched.
        for state, look in reversed(_LOOKS.items()):
            color = shades.visible(look.color)
            for index, other in enumerate(self.states):
                if other == state:
                    painter.fillRect(self._column(index, look.height), color)
        painter.end()

    def _column(self, index: int, share: float) -> QRectF:
        """The place of a column of a share of the full height, at least one pixel wide."""
        step = self.width() / self.slices
        left, right = round(index * step), round((index + 1) * step)
        width = max(right - left - (step >= _GAP_FROM), 1)
        height = round((self.height() - _MARKER - 1) * share)
        return QRectF(left, self.height() - height, width, height)

    def _paint_marker(self, painter: QPainter, shades: Shades, index: int) -> None:
        """A triangle above the column, and a fainter ground behind it."""
        x = self.place_of(index).x()
        ground = self._column(index, 1.0).adjusted(-1, 0, 1, 0)
        painter.fillRect(ground, shades.behind)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(shades.ink)
        tip = _MARKER - 1
        painter.drawPolygon(QPolygonF([QPointF(x - 5, 0), QPointF(x + 5, 0), QPointF(x, tip)]))
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
