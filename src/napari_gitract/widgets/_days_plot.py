"""The volumes of organs over the treatment days, a line for each organ."""

from collections.abc import Sequence
from typing import NamedTuple

from qtpy.QtCore import QEvent, QPointF, QSize, Qt
from qtpy.QtGui import QHelpEvent, QPainter, QPaintEvent, QPen
from qtpy.QtWidgets import QSizePolicy, QToolTip, QWidget

from napari_gitract.widgets._painting import FADED, Shades, small

__all__ = ["DayCurve", "DayPlot"]

_HEIGHT = 120
_ABOVE, _BELOW, _BESIDE = 20.0, 18.0, 36.0
_POINT = 3.0


class DayCurve(NamedTuple):
    """One organ: its name, its colour, and its volume on each day, mL; None where it has none."""

    title: str
    color: str
    volumes_ml: tuple[float | None, ...]


class DayPlot(QWidget):
    """Volumes over days, which stand at equal distances."""

    def __init__(self) -> None:
        super().__init__()
        self.days: tuple[str, ...] = ()
        self.curves: tuple[DayCurve, ...] = ()
        self.faded = False
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName("Volume by day")

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        return QSize(200, _HEIGHT)

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        return QSize(60, _HEIGHT)

    def show_curves(self, days: Sequence[str], curves: Sequence[DayCurve]) -> None:
        """Draw these from now on.

        Parameters
        ----------
        days
            Short names, the first day first.
        curves
            Each with a volume for each day.
        """
        self.days, self.curves = tuple(days), tuple(curves)
        self.update()

    def fade(self, faded: bool) -> None:
        """Tell by paleness that the numbers are out of date."""
        self.faded = faded
        self.update()

    def text_of(self, day: int) -> str:
        """What the tooltip says of a day."""
        volumes = [
            f"{curve.title} {curve.volumes_ml[day]:.1f} mL"
            for curve in self.curves
            if curve.volumes_ml[day] is not None
        ]
        return f"{self.days[day]}: {', '.join(volumes) or 'no contours'}"

    def x_of(self, day: int) -> float:
        """Where a day stands, in the widget's coordinates."""
        between = max(len(self.days) - 1, 1)
        return _BESIDE + (self.width() - 2 * _BESIDE) * day / between

    @property
    def _most_ml(self) -> float:
        known = [ml for curve in self.curves for ml in curve.volumes_ml if ml is not None]
        return max(known, default=0.0) or 1.0

    def _place(self, day: int, ml: float) -> QPointF:
        high = self.height() - _ABOVE - _BELOW
        return QPointF(self.x_of(day), self.height() - _BELOW - ml / self._most_ml * high)

    def paintEvent(self, event: QPaintEvent | None) -> None:  # noqa: N802 - Qt's name
        painter, shades = QPainter(self), Shades.of(self)
        painter.fillRect(self.rect(), shades.ground)
        if self.days and self.curves:
            painter.setFont(small(painter.font()))
            painter.setOpacity(FADED if self.faded else 1.0)
            self._paint_axes(painter, shades)
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            for curve in self.curves:
                self._paint_curve(painter, shades, curve)
        painter.end()

    def _paint_axes(self, painter: QPainter, shades: Shades) -> None:
        """A line for nothing and one for the largest volume; days below, as far as they fit."""
        floor = self.height() - _BELOW
        painter.setPen(shades.grid)
        for y in (_ABOVE, floor):
            painter.drawLine(QPointF(0, y), QPointF(self.width(), y))
        painter.setPen(shades.text)
        painter.drawText(QPointF(4.0, _ABOVE - 6.0), f"{self._most_ml:.0f} mL")
        free = 0.0
        for day, name in enumerate(self.days):
            width = painter.fontMetrics().horizontalAdvance(name)
            left = min(max(self.x_of(day) - width / 2, 2.0), self.width() - width - 2.0)
            if left >= free:
                painter.drawText(QPointF(left, self.height() - 5.0), name)
                free = left + width + 6.0

    def _paint_curve(self, painter: QPainter, shades: Shades, curve: DayCurve) -> None:
        color = shades.visible(curve.color)
        painter.setPen(QPen(color, 1.6))
        points = [
            None if ml is None else self._place(day, ml) for day, ml in enumerate(curve.volumes_ml)
        ]
        for start, end in zip(points, points[1:], strict=False):
            if start is not None and end is not None:
                painter.drawLine(start, end)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(color)
        for point in points:
            if point is not None:
                painter.drawEllipse(point, _POINT, _POINT)

    def event(self, event: QEvent | None) -> bool:
        """Say what the day nearest to the mouse holds."""
        if not isinstance(event, QHelpEvent) or event.type() != QEvent.Type.ToolTip:
            return super().event(event)
        if self.days:
            x = event.pos().x()
            day = min(range(len(self.days)), key=lambda one: abs(self.x_of(one) - x))
            QToolTip.showText(event.globalPos(), self.text_of(day), self)
        return True
