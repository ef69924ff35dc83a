"""The other two planes through a point beside the viewer's own.

They are drawn here, from the same voxels that the layers show: napari has one canvas for a viewer,
and second ones are made of parts that it keeps to itself.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np
import numpy.typing as npt
from napari.layers import Image, Labels, Layer
from qtpy.QtCore import QEvent, QPointF, QRectF, QSize, Qt, QTimer, Signal
from qtpy.QtGui import (
    QColor,
    QImage,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QResizeEvent,
    QWheelEvent,
)
from qtpy.QtWidgets import QBoxLayout, QSizePolicy, QWidget

from napari_gitract.widgets._choices import follow
from napari_gitract.widgets._painting import small
from napari_gitract.widgets._plane_pictures import PlanePictures
from napari_gitract.widgets._planes import (
    AXES,
    Matrix,
    Plane,
    extent_of,
    planes_of,
    to_world_matrix,
)

if TYPE_CHECKING:
    from napari.viewer import Viewer

__all__ = ["LinkedViews"]

REDRAW_MS = 40  # a stroke goes on meanwhile
_GROUND = "#101114"  # in every theme: slices stand on a dark ground
_HERE, _OTHER = "#f2c94c", "#8fb8de"
_TEXT = "#e6e6e6"
_MOVES = ("data", "scale", "translate", "rotate", "shear", "affine")
_FOLLOWED = (
    "visible",
    "opacity",
    "blending",
    "colormap",
    "contrast_limits",
    "gamma",
    "contour",
    "set_data",
    *_MOVES,
)


class LinkedViews(QWidget):
    """The two planes that the viewer does not show, through a point that all three share.

    Click or drag in one to move the others there; a click in the viewer's canvas does so, too.
    The wheel goes to the next voxel.

    Parameters
    ----------
    viewer
        Whose visible stacks are drawn.
    """

    closed = Signal()
    """The user closed the dock."""

    def __init__(self, viewer: "Viewer") -> None:
        super().__init__()
        self._viewer = viewer
        self._layer: Layer | None = None
        self._planes: tuple[Plane, ...] = ()
        self._point: Matrix = np.zeros(3)
        self._pictures = PlanePictures()
        self._followed: WeakSet[Layer] = WeakSet()
        self.kept_visible: set[Layer] = set()
        """Layers to draw although the viewer hides them."""
        self.panes = (_Pane(self), _Pane(self))
        self._column = QBoxLayout(QBoxLayout.Direction.TopToBottom, self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(2)
        for pane in self.panes:
            self._column.addWidget(pane)
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(REDRAW_MS)
        self._soon.timeout.connect(self._redraw)
        for name in ("point", "order", "ndisplay"):
            follow(self, viewer.dims.events[name], self._redraw)
        for name in ("inserted", "removed", "reordered"):
            follow(self, viewer.layers.events[name], self._on_layers)
        self._on_layers()
        callbacks, on_press = viewer.mouse_drag_callbacks, self._on_press
        callbacks.append(on_press)
        self.destroyed.connect(lambda *_: callbacks.remove(on_press))

    # --- what is shown ------------------------------------------------------------------

    def show_layer(self, layer: Layer | None) -> None:
        """Show the planes through this stack; those through nothing where it is no stack."""
        if layer is not None and layer.ndim != len(AXES):
            layer = None
        before, self._layer = self._layer, layer
        if layer is None:
            self._planes = ()
        else:
            self._planes = planes_of(layer)
            if before is None:
                low, high = extent_of(layer)
                self._point = (low + high) / 2
        self._redraw()

    @property
    def point(self) -> Matrix:
        """The point in the world that all planes go through, mm."""
        point = self._point.copy()
        dims = self._viewer.dims
        for axis in self._viewers_axes():
            point[axis] = dims.point[axis + dims.ndim - len(AXES)]
        return point

    def go_to(self, point: Matrix) -> None:
        """Have all planes go through the voxel at a point of the world."""
        if self._layer is None:
            return
        index = np.rint(self._layer.world_to_data(tuple(point)))
        index = index.clip(0, np.asarray(self._layer.data.shape) - 1)
        self._point = np.asarray(self._layer.data_to_world(index), dtype=np.float64)
        dims = self._viewer.dims
        for axis in self._viewers_axes():
            dims.set_point(axis + dims.ndim - len(AXES), self._point[axis])
        self._redraw()

    def step(self, plane: Plane, voxels: int) -> None:
        """Move a plane by some voxels along its axis."""
        if self._layer is not None:
            point = self.point
            size = np.abs(to_world_matrix(self._layer)[plane.across, :3]).max()
            point[plane.across] += voxels * size
            self.go_to(point)

    def layers(self) -> Iterator[Layer]:
        """The stacks to draw, the lowest first."""
        for layer in self._viewer.layers:
            drawn = isinstance(layer, Image | Labels) and not getattr(layer, "rgb", False)
            shown = layer.visible or layer in self.kept_visible
            if drawn and shown and layer.ndim == len(AXES) and not layer.multiscale:
                yield layer

    def picture(self, layer: Layer, plane: Plane, shape: tuple[int, int]) -> npt.NDArray[np.uint32]:
        """Pixels of a layer in a plane through the point."""
        return self._pictures.picture(layer, plane, self.point, shape)

    def other(self, pane: "_Pane") -> "_Pane":
        """The pane beside one."""
        return self.panes[pane is self.panes[0]]

    def _viewers_axes(self) -> list[int]:
        """The axes of the last three that the viewer's slider moves along."""
        dims = self._viewer.dims
        first = dims.ndim - len(AXES)
        return [axis - first for axis in dims.not_displayed if axis >= first]

    def _redraw(self, _event: Any = None) -> None:
        self._point = self.point  # which 3-D, where no slider moves, leaves as it is
        moved = self._viewers_axes()
        across = [axis for axis in AXES if axis not in moved][-len(self.panes) :]
        for pane, axis in zip(self.panes, across, strict=False):
            pane.show_plane(self._planes[axis] if self._planes else None)

    def _on_layers(self, _event: Any = None) -> None:
        for layer in self._viewer.layers:
            if layer not in self._followed:
                self._followed.add(layer)
                for name in _FOLLOWED:
                    if name in layer.events:
                        follow(self, layer.events[name], self._on_layer)
        self._soon.start()

    def _on_layer(self, event: Any) -> None:
        if event.type in _MOVES:
            self._pictures.forget_transform(event.source)
            if event.source is self._layer:
                self.show_layer(self._layer)
        if not self._soon.isActive():
            self._soon.start()

    def _on_press(self, _viewer: Any, event: Any) -> None:
        """Follow a click in the viewer's canvas, whatever else it does there."""
        if self._layer is not None and self._viewer.dims.ndisplay == 2:
            self._point = np.asarray(event.position[-len(AXES) :], dtype=np.float64)
            self._soon.start()

    def resizeEvent(self, event: QResizeEvent | None) -> None:  # noqa: N802 - Qt's name
        """Stand side by side where there is more room so."""
        super().resizeEvent(event)
        directions = QBoxLayout.Direction
        wide = self.width() > self.height()
        self._column.setDirection(directions.LeftToRight if wide else directions.TopToBottom)

    def event(self, event: QEvent | None) -> bool:
        """Notice that the user closed the dock."""
        handled = super().event(event)
        if event is not None and event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.closed.emit()
        return handled


class _Pane(QWidget):
    """One plane, with lines where the others cut it."""

    def __init__(self, views: LinkedViews) -> None:
        super().__init__()
        self._views = views
        self.plane: Plane | None = None
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setCursor(Qt.CursorShape.CrossCursor)
        self.setToolTip("Click or drag: the other views go there. Wheel: the next voxel.")

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        return QSize(240, 260)

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        return QSize(200, 110)

    def show_plane(self, plane: Plane | None) -> None:
        """Draw this plane from now on."""
        self.plane = plane
        self.setAccessibleName("" if plane is None else plane.name)
        self.update()

    def place(self) -> QRectF:
        """Where the plane is drawn: as large as fits, a millimetre as long down as along."""
        if self.plane is None:
            return QRectF()
        height, width = self.plane.size
        scale = min(self.height() / height, self.width() / width)
        drawn = QSize(max(1, round(width * scale)), max(1, round(height * scale)))
        left, top = (self.width() - drawn.width()) // 2, (self.height() - drawn.height()) // 2
        return QRectF(left, top, drawn.width(), drawn.height())

    def paintEvent(self, event: QPaintEvent | None) -> None:  # noqa: N802 - Qt's name
        painter = QPainter(self)
        painter.fillRect(self.rect(), QColor(_GROUND))
        plane = self.plane
        if plane is not None:
            place = self.place()
            self._paint_layers(painter, plane, place)
            self._paint_lines(painter, plane, place)
            self._paint_names(painter, plane, place)
        painter.end()

    def _paint_layers(self, painter: QPainter, plane: Plane, place: QRectF) -> None:
        ratio = self.devicePixelRatioF()
        shape = (round(place.height() * ratio), round(place.width() * ratio))
        for layer in self._views.layers():
            pixels = self._views.picture(layer, plane, shape).tobytes()
            image = QImage(
                pixels, shape[1], shape[0], 4 * shape[1], QImage.Format.Format_ARGB32_Premultiplied
            )
            modes = QPainter.CompositionMode
            adds = layer.blending == "additive"
            mode = modes.CompositionMode_Plus if adds else modes.CompositionMode_SourceOver
            painter.setCompositionMode(mode)
            painter.setOpacity(layer.opacity)
            painter.drawImage(place, image)
        painter.setCompositionMode(QPainter.CompositionMode.CompositionMode_SourceOver)
        painter.setOpacity(1.0)

    def _paint_lines(self, painter: QPainter, plane: Plane, place: QRectF) -> None:
        """Yellow: the plane that the viewer shows. Blue: the other one here."""
        here = self._at(plane.share_of(self._views.point), place)
        other = self._views.other(self).plane
        for axis in (plane.down, plane.along):
            color = _OTHER if other is not None and axis == other.across else _HERE
            painter.setPen(QPen(QColor(color), 1.0))
            if axis == plane.down:
                painter.drawLine(QPointF(place.left(), here.y()), QPointF(place.right(), here.y()))
            else:
                painter.drawLine(QPointF(here.x(), place.top()), QPointF(here.x(), place.bottom()))

    def _paint_names(self, painter: QPainter, plane: Plane, place: QRectF) -> None:
        painter.setPen(QColor(_TEXT))
        painter.setFont(small(painter.font()))
        rect = place.adjusted(4, 2, -4, -2)
        flags = Qt.AlignmentFlag
        top, bottom, left, right = plane.edges
        for text, where in (
            (top, flags.AlignTop | flags.AlignHCenter),
            (bottom, flags.AlignBottom | flags.AlignHCenter),
            (left, flags.AlignVCenter | flags.AlignLeft),
            (right, flags.AlignVCenter | flags.AlignRight),
        ):
            painter.drawText(rect, where, text)
        painter.drawText(QRectF(4, 2, self.width(), self.height()), flags.AlignTop, plane.name)

    @staticmethod
    def _at(share: tuple[float, float], place: QRectF) -> QPointF:
        down, along = share
        return QPointF(place.left() + along * place.width(), place.top() + down * place.height())

    def place_of(self, point: Matrix) -> QPointF:
        """Where a point of the world is drawn, in the widget's coordinates."""
        return (
            QPointF() if self.plane is None else self._at(self.plane.share_of(point), self.place())
        )

    def mousePressEvent(self, event: QMouseEvent | None) -> None:  # noqa: N802 - Qt's name
        self._go(event)

    def mouseMoveEvent(self, event: QMouseEvent | None) -> None:  # noqa: N802 - Qt's name
        self._go(event)

    def wheelEvent(self, event: QWheelEvent | None) -> None:  # noqa: N802 - Qt's name
        if event is not None and self.plane is not None and event.angleDelta().y():
            self._views.step(self.plane, 1 if event.angleDelta().y() > 0 else -1)

    def _go(self, event: QMouseEvent | None) -> None:
        if event is None or self.plane is None or not event.buttons() & Qt.MouseButton.LeftButton:
            return
        place = self.place()
        down = (event.pos().y() + 0.5 - place.top()) / place.height()
        along = (event.pos().x() + 0.5 - place.left()) / place.width()
        views = self._views
        views.go_to(self.plane.point_at(down, along, views.point))
