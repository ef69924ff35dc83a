"""How much of each organ lies in each slice, drawn over the slices; a click goes to one."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF

from napari_gitract.widgets._painting import FADED, Shades, small
from napari_gitract.widgets._slice_axis import SliceAxis

__all__ = ["Curve", "VolumePlot"]

_HEIGHT = 140
_ABOVE, _BELOW = 20, 15  # room for the numbers of the slice that is shown, and for slice numbers
_TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_TICK_EVERY = 50  # pixels, at least


class Curve(NamedTuple):
    """One organ: its name, its colour, and its volume in each slice, mL ``(slice,)``."""

    title: str
    color: str
    volumes_ml: np.ndarray


class VolumePlot(SliceAxis):
    """Volumes by slice, and a line at the slice that the viewer shows.

    Click or drag to choose a slice. It is painted by hand: a plotting library takes a tenth of
    a second for what must follow the slider.
    """

    def __init__(self) -> None:
        super().__init__("Volume by slice", _HEIGHT)
        self.curves: tuple[Curve, ...] = ()
        self.emphasised: int | None = None
        self.faded = False

    # --- what is shown ------------------------------------------------------------------

    def show_curves(self, curves: Sequence[Curve]) -> None:
        """Draw these from now on; all have the same slices."""
        self.curves = tuple(curves)
        self.update()

    def emphasise(self, curve: int | None) -> None:
        """Draw one curve more heavily than the others."""
        if curve != self.emphasised:
            self.emphasised = curve
            self.update()

    def fade(self, faded: bool) -> None:
        """Tell by paleness that the numbers are out of date."""
        if faded != self.faded:
            self.faded = faded
            self.update()

    @property
    def slices(self) -> int:
        return len(self.curves[0].volumes_ml) if self.curves else 0

    def text_of(self, index: int) -> str:
        there = [
            f"{curve.title} {curve.volumes_ml[index]:.2f} mL"
            for curve in self.curves
            if curve.volumes_ml[index] > 0
        ]
        return f"Slice {index}: {', '.join(there) or 'no organ'}"

    # --- painting -----------------------------------------------------------------------

    def paintEvent(self, event: QPaintEvent | None) -> None:  # noqa: N802 - Qt's name
        painter, shades = QPainter(self), Shades.of(self)
        painter.fillRect(self.rect(), shades.ground)
        if self.slices:
            painter.setFont(small(painter.font()))
            painter.setOpacity(FADED if self.faded else 1.0)
            self._paint_axes(painter, shades)
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            self._paint_curves(painter, shades)
            if self.current is not None and self.current < self.slices:
                self._paint_numbers(painter, shades, self.current)
                painter.setOpacity(1.0)
                self._paint_here(painter, shades, self.current)
        painter.end()

    @property
    def _most_ml(self) -> float:
        return max(float(curve.volumes_ml.max()) for curve in self.curves) or 1.0

    @property
    def _floor(self) -> float:
        return self.height() - _BELOW

    def _paint_axes(self, painter: QPainter, shades: Shades) -> None:
        """A line for nothing and one for the largest volume; numbers of slices below."""
        painter.setPen(shades.grid)
        for y in (_ABOVE, self._floor):
            painter.drawLine(QPointF(0, y), QPointF(self.width(), y))
        painter.setPen(shades.text)
        wide = max(self.width() / _TICK_EVERY, 1.0)
        step = next((step for step in _TICKS if self.slices / step <= wide), _TICKS[-1])
        for index in range(0, self.slices, step):
            x = self.place_of(index).x()
            text = str(index)
            half = painter.fontMetrics().horizontalAdvance(text) / 2
            left = min(max(x - half, 2.0), self.width() - 2 * half - 2.0)
            painter.drawText(QPointF(left, self.height() - 3.0), text)
        most = f"{self._most_ml:.1f} mL"
        width = painter.fontMetrics().horizontalAdvance(most)
        painter.drawText(QPointF(self.width() - width - 4.0, _ABOVE + 12.0), most)

    def _paint_here(self, painter: QPainter, shades: Shades, index: int) -> None:
        x = self.place_of(index).x()
        painter.setPen(shades.ink)
        painter.drawLine(QPointF(x, _ABOVE - 2.0), QPointF(x, self._floor))

    def _paint_curves(self, painter: QPainter, shades: Shades) -> None:
        """Those that are not emphasised first, so that they cover nothing of the one that is."""
        order = sorted(range(len(self.curves)), key=lambda place: place == self.emphasised)
        for place in order:
            curve = self.curves[place]
            if not curve.volumes_ml.any():
                continue
            points = self._points(curve.volumes_ml)
            heavy = place == self.emphasised
            color = shades.visible(curve.color)
            fill = QColor(color)
            fill.setAlphaF(0.35 if heavy else 0.15)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(fill)
            ends = [
                QPointF(points[-1].x(), self._floor),
                QPointF(points[0].x(), self._floor),
            ]
            painter.drawPolygon(QPolygonF([*points, *ends]))
            painter.setPen(QPen(color, 2.4 if heavy else 1.4))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawPolyline(QPolygonF(points))

    def _points(self, volumes_ml: np.ndarray) -> list[QPointF]:
        """The curve from the first to the last slice with some of it, down to nothing beside."""
        used = np.flatnonzero(volumes_ml)
        first, last = max(int(used[0]) - 1, 0), min(int(used[-1]) + 1, self.slices - 1)
        high = (self._floor - _ABOVE) / self._most_ml
        return [
            QPointF(self.place_of(index).x(), self._floor - float(volumes_ml[index]) * high)
            for index in range(first, last + 1)
        ]

    def _paint_numbers(self, painter: QPainter, shades: Shades, index: int) -> None:
        """The slice that is shown, and what each organ has in it, in the organs' colours."""
        shown = [(f"Slice {index}", shades.text)]
        shown += [
            (f"{curve.volumes_ml[index]:.2f}", shades.visible(curve.color, contrast=4.5))
            for curve in self.curves
            if curve.volumes_ml[index] > 0
        ]
        if len(shown) > 1:
            shown.append(("mL", shades.text))
        left = 4.0
        for text, color in shown:
            width = painter.fontMetrics().horizontalAdvance(text)
            if left + width > self.width():
                return  # the tooltip has them all
            painter.setPen(color)
            place = QRectF(left, 0, width + 2.0, _ABOVE - 2.0)
            painter.drawText(place, Qt.AlignmentFlag.AlignVCenter, text)
            left += width + 8.0
