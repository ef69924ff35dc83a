"""The other two planes through a point beside the viewer's own, and the organs in 3-D.

The planes are drawn here, from the same voxels that the layers show: napari has one canvas for a
viewer, and second ones are made of parts that it keeps to itself. Each pixel looks up the voxel
that it lies in by the layer's whole transform. So layers that hang reversed, or were moved or
turned, stand as they do in the viewer.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

import numpy as np
import numpy.typing as npt
from napari.layers import Image, Labels, Layer
from napari.utils.colormaps import DirectLabelColormap
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

from gitract.errors import InputError
from gitract.orientation import axes_run_to
from gitract.scan import axial_affine
from napari_gitract.layers import origin_by_scale, origin_of
from napari_gitract.widgets._choices import follow
from napari_gitract.workspace import camera_of

if TYPE_CHECKING:
    from napari.viewer import Viewer

__all__ = ["LinkedViews", "Plane", "ThreeD", "directions", "planes_of"]

REDRAW_MS = 40  # a stroke goes on meanwhile
_GROUND = "#101114"
_HERE, _OTHER = "#f2c94c", "#8fb8de"
_TEXT = "#e6e6e6"
_AXES = range(3)
_REVERSED = ("front", "head", "right")  # as films hang: see `gitract.orientation.hangs_reversed`
_PLANE_ACROSS = {
    "left": "Sagittal",
    "right": "Sagittal",
    "front": "Coronal",
    "back": "Coronal",
    "head": "Axial",
    "feet": "Axial",
}
_UPRIGHT = (("head", "feet"), ("front", "back"), ("left", "right"))
_OPPOSITE = {a: b for pair in _UPRIGHT for a, b in (pair, pair[::-1])}
_LETTERS = {"left": "L", "right": "R", "front": "A", "back": "P", "head": "H", "feet": "F"}
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

Matrix = npt.NDArray[np.float64]


# --- geometry ---------------------------------------------------------------------------


class Plane(NamedTuple):
    """A plane through the world of a viewer, at a right angle to one of its last three axes.

    Parameters
    ----------
    name
        ``Coronal``, ``Sagittal`` or ``Axial``.
    across, down, along
        World axes, 0 to 2: the one that the plane is moved along, those down and along its rows.
    start, end
        World coordinates ``(down, along)`` in mm of the corners at its upper left and lower right.
    edges
        Where in the patient the top, bottom, left and right of it are, as letters.
    """

    name: str
    across: int
    down: int
    along: int
    start: tuple[float, float]
    end: tuple[float, float]
    edges: tuple[str, str, str, str]

    @property
    def size(self) -> tuple[float, float]:
        """Height and width in mm."""
        return abs(self.end[0] - self.start[0]), abs(self.end[1] - self.start[1])

    def share_of(self, point: Matrix) -> tuple[float, float]:
        """How far down and along a point of the world lies, 0 to 1."""
        axes = (self.down, self.along)
        down, along = (
            (point[axis] - start) / (end - start)
            for axis, start, end in zip(axes, self.start, self.end, strict=True)
        )
        return float(down), float(along)

    def point_at(self, down: float, along: float, through: Matrix) -> Matrix:
        """The point of the world at such shares, in the plane through another point."""
        point = through.copy()
        for axis, share, start, end in zip(
            (self.down, self.along), (down, along), self.start, self.end, strict=True
        ):
            point[axis] = start + share * (end - start)
        return point


def directions(layer: Layer) -> tuple[str, str, str]:
    """Where in the patient the last three axes of the world run: ``("feet", "back", "left")``.

    Parameters
    ----------
    layer
        A stack whose `Origin` knows how it lies; any other is taken for axial.
    """
    origin = origin_of(layer.metadata)
    if origin is None:
        with suppress(InputError):
            origin = origin_by_scale(layer)
    run = axes_run_to(axial_affine((1.0, 1.0, 1.0)) if origin is None else origin.affine)
    to_world = _from_data(layer)[:, :3]
    towards = ["", "", ""]
    for axis in _AXES:
        world = int(np.abs(to_world[:, axis]).argmax())
        towards[world] = run[axis] if to_world[world, axis] > 0 else _OPPOSITE[run[axis]]
    return towards[0], towards[1], towards[2]


def planes_of(layer: Layer) -> tuple[Plane, Plane, Plane]:
    """The planes at a right angle to each axis of the world, as large as a stack.

    They are turned as films hang: the patient's head or front up, his right or front left.
    """
    towards = directions(layer)
    low, high = _extent(layer)
    planes = []
    for across in _AXES:
        down, along = sorted(
            (axis for axis in _AXES if axis != across),
            key=lambda axis: next(i for i, pair in enumerate(_UPRIGHT) if towards[axis] in pair),
        )
        ends = [
            (high[axis], low[axis]) if towards[axis] in _REVERSED else (low[axis], high[axis])
            for axis in (down, along)
        ]
        ran = [
            _OPPOSITE[towards[axis]] if towards[axis] in _REVERSED else towards[axis]
            for axis in (down, along)
        ]
        edges = [_LETTERS[side] for way in ran for side in (_OPPOSITE[way], way)]
        planes.append(
            Plane(
                _PLANE_ACROSS[towards[across]],
                across,
                down,
                along,
                start=(float(ends[0][0]), float(ends[1][0])),
                end=(float(ends[0][1]), float(ends[1][1])),
                edges=(edges[0], edges[1], edges[2], edges[3]),
            )
        )
    return planes[0], planes[1], planes[2]


def _from_data(layer: Layer) -> Matrix:
    """Matrix ``(3, 4)`` from array indices to the world."""
    origin = np.asarray(layer.data_to_world((0.0, 0.0, 0.0)))
    columns = [np.asarray(layer.data_to_world(np.eye(3)[axis])) - origin for axis in _AXES]
    return np.stack([*columns, origin], axis=1)


def _extent(layer: Layer) -> tuple[Matrix, Matrix]:
    """Lowest and highest world coordinates of a stack, to the outer faces of its voxels."""
    matrix = _from_data(layer)
    ends = [(-0.5, size - 0.5) for size in layer.data.shape]
    corners = np.stack(np.meshgrid(*ends, [1.0], indexing="ij")).reshape(4, -1)
    world = matrix @ corners
    return world.min(axis=1), world.max(axis=1)


def voxels_in(
    data: np.ndarray, to_data: Matrix, plane: Plane, point: Matrix, shape: tuple[int, int]
) -> tuple[np.ndarray, npt.NDArray[np.bool_]]:
    """What lies in a plane, for each pixel of a picture of it.

    Parameters
    ----------
    data
        ``(slice, row, column)``.
    to_data
        Matrix ``(3, 4)`` from the world to array indices.
    plane, point
        A plane, and a point of the world that it goes through.
    shape
        Of the picture: ``(rows, columns)``.

    Returns
    -------
    tuple
        Values of the voxels in which the middle of each pixel lies, and which pixels lie in one.
    """
    start = plane.point_at(0.0, 0.0, point)
    steps = (plane.point_at(1.0, 0.0, point) - start, plane.point_at(0.0, 1.0, point) - start)
    first = to_data[:, :3] @ start + to_data[:, 3]
    down, along = (
        np.outer(to_data[:, :3] @ step, (np.arange(count) + 0.5) / count)
        for step, count in zip(steps, shape, strict=True)
    )
    places, inside = [], np.ones((1, 1), dtype=np.bool_)
    for axis, size in enumerate(data.shape):
        # An index that is the same down or along a picture is looked up once, not for each pixel.
        rows = down[axis][:, None] if np.ptp(down[axis]) > 1e-6 else np.zeros((1, 1))
        columns = along[axis][None, :] if np.ptp(along[axis]) > 1e-6 else np.zeros((1, 1))
        index = np.floor(first[axis] + rows + columns + 0.5).astype(np.intp)
        inside = inside & (index >= 0) & (index < size)
        places.append(index.clip(0, size - 1))
    return np.broadcast_to(data[tuple(places)], shape), np.broadcast_to(inside, shape)


# --- colours ----------------------------------------------------------------------------


class _Painter:
    """Turns what layers show into pictures; remembers their colours and transforms."""

    def __init__(self) -> None:
        self._colors: WeakKeyDictionary[Layer, tuple[Any, npt.NDArray[np.uint32]]] = (
            WeakKeyDictionary()
        )
        self._to_data: WeakKeyDictionary[Layer, Matrix] = WeakKeyDictionary()

    def forget_transform(self, layer: Layer) -> None:
        """The layer was moved."""
        self._to_data.pop(layer, None)

    def picture(
        self, layer: Layer, plane: Plane, point: Matrix, shape: tuple[int, int]
    ) -> npt.NDArray[np.uint32]:
        """Pixels of a layer in a plane, as Qt's premultiplied ARGB."""
        if layer not in self._to_data:
            self._to_data[layer] = _inverse(_from_data(layer))
        values, inside = voxels_in(layer.data, self._to_data[layer], plane, point, shape)
        if isinstance(layer, Image):
            low, high = layer.contrast_limits
            places = ((values - np.float32(low)) * np.float32(255 / (high - low))).clip(0, 255)
        else:
            places = np.where((values > 0) & (values < 256), values, 0)
            if layer.contour:
                places = np.where(_outlines(places), places, 0)
        return np.where(inside, self._table(layer)[places.astype(np.uint8)], np.uint32(0))

    def _table(self, layer: Layer) -> npt.NDArray[np.uint32]:
        """The colour of each of 256 grey values or labels."""
        gamma = layer.gamma if isinstance(layer, Image) else None
        key = (layer.colormap, gamma)
        known = self._colors.get(layer)
        if known is None or known[0][0] is not layer.colormap or known[0][1] != gamma:
            known = self._colors[layer] = (key, _argb(_colors(layer)))
        return known[1]


def _inverse(matrix: Matrix) -> Matrix:
    return np.linalg.inv(np.vstack([matrix, [0.0, 0.0, 0.0, 1.0]]))[:3]


def _outlines(labels: np.ndarray) -> npt.NDArray[np.bool_]:
    """Pixels that have a neighbour with another label."""
    outline = np.zeros(labels.shape, dtype=np.bool_)
    for axis in (0, 1):
        ahead = [slice(None)] * 2
        behind = [slice(None)] * 2
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        differs = labels[tuple(ahead)] != labels[tuple(behind)]
        outline[tuple(ahead)] |= differs
        outline[tuple(behind)] |= differs
    return outline


def _colors(layer: Layer) -> Matrix:
    """RGBA ``(256, 4)`` of grey values from the lower to the upper limit, or of labels."""
    if isinstance(layer, Image):
        return np.asarray(layer.colormap.map(np.linspace(0.0, 1.0, 256) ** layer.gamma))
    if isinstance(layer.colormap, DirectLabelColormap):
        known = layer.colormap.color_dict
        colors = np.stack([np.asarray(known.get(value, known[None])) for value in range(256)])
    else:
        colors = np.asarray(layer.colormap.map(np.arange(256)))
    colors[0] = 0.0
    return colors


def _argb(colors: Matrix) -> npt.NDArray[np.uint32]:
    """RGBA, 0 to 1, as Qt's premultiplied ARGB."""
    alpha = colors[:, 3:]
    parts = np.rint(np.hstack([alpha, colors[:, :3] * alpha]) * 255).astype(np.uint32)
    return (parts @ np.array([1 << 24, 1 << 16, 1 << 8, 1], dtype=np.uint32)).astype(np.uint32)


# --- the views --------------------------------------------------------------------------


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
        self._painter = _Painter()
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
        if layer is not None and layer.ndim != len(_AXES):
            layer = None
        before, self._layer = self._layer, layer
        if layer is None:
            self._planes = ()
        else:
            self._planes = planes_of(layer)
            if before is None:
                low, high = _extent(layer)
                self._point = (low + high) / 2
        self._redraw()

    @property
    def point(self) -> Matrix:
        """The point in the world that all planes go through, mm."""
        point = self._point.copy()
        dims = self._viewer.dims
        for axis in self._viewers_axes():
            point[axis] = dims.point[axis + dims.ndim - len(_AXES)]
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
            dims.set_point(axis + dims.ndim - len(_AXES), self._point[axis])
        self._redraw()

    def step(self, plane: Plane, voxels: int) -> None:
        """Move a plane by some voxels along its axis."""
        if self._layer is not None:
            point = self.point
            size = np.abs(_from_data(self._layer)[plane.across, :3]).max()
            point[plane.across] += voxels * size
            self.go_to(point)

    def layers(self) -> Iterator[Layer]:
        """The stacks to draw, the lowest first."""
        for layer in self._viewer.layers:
            drawn = isinstance(layer, Image | Labels) and not getattr(layer, "rgb", False)
            shown = layer.visible or layer in self.kept_visible
            if drawn and shown and layer.ndim == len(_AXES) and not layer.multiscale:
                yield layer

    def picture(self, layer: Layer, plane: Plane, shape: tuple[int, int]) -> npt.NDArray[np.uint32]:
        """Pixels of a layer in a plane through the point."""
        return self._painter.picture(layer, plane, self.point, shape)

    def other(self, pane: "_Pane") -> "_Pane":
        """The pane beside one."""
        return self.panes[pane is self.panes[0]]

    def _viewers_axes(self) -> list[int]:
        """The axes of the last three that the viewer's slider moves along."""
        dims = self._viewer.dims
        first = dims.ndim - len(_AXES)
        return [axis - first for axis in dims.not_displayed if axis >= first]

    def _redraw(self, _event: Any = None) -> None:
        self._point = self.point  # which 3-D, where no slider moves, leaves as it is
        moved = self._viewers_axes()
        across = [axis for axis in _AXES if axis not in moved][-len(self.panes) :]
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
            self._painter.forget_transform(event.source)
            if event.source is self._layer:
                self.show_layer(self._layer)
        if not self._soon.isActive():
            self._soon.start()

    def _on_press(self, _viewer: Any, event: Any) -> None:
        """Follow a click in the viewer's canvas, whatever else it does there."""
        if self._layer is not None and self._viewer.dims.ndisplay == 2:
            self._point = np.asarray(event.position[-len(_AXES) :], dtype=np.float64)
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
        font = painter.font()
        font.setPixelSize(11)
        painter.setFont(font)
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


# --- 3-D --------------------------------------------------------------------------------


class ThreeD:
    """The organs of one layer as surfaces, and back to the slices as they were.

    Parameters
    ----------
    viewer
        Whose canvas shows them.
    """

    def __init__(self, viewer: "Viewer") -> None:
        self._viewer = viewer
        self._before: _Before | None = None

    @property
    def shown(self) -> bool:
        """Whether the organs are shown in 3-D now."""
        return self._before is not None

    @property
    def hidden(self) -> set[Layer]:
        """The layers that were visible before."""
        return set() if self._before is None else set(self._before.hidden)

    def show(self, labels: Labels) -> None:
        """Show the organs alone, from the patient's front."""
        if self.shown:
            return
        camera, dims = camera_of(self._viewer), self._viewer.dims
        self._before = _Before(
            labels=labels,
            rendering=labels.rendering,
            gradient=labels.iso_gradient_mode,
            opacity=labels.opacity,
            contour=labels.contour,
            visible=labels.visible,
            hidden=[one for one in self._viewer.layers if one.visible and one is not labels],
            center=tuple(camera.center),
            zoom=camera.zoom,
            angles=tuple(camera.angles),
            order=tuple(dims.order),
            point=tuple(dims.point),
        )
        for layer in self._before.hidden:
            layer.visible = False
        labels.rendering, labels.iso_gradient_mode = "iso_categorical", "smooth"
        labels.opacity, labels.contour = 1.0, 0  # napari draws no contours in 3-D, and warns
        labels.visible = True
        dims.ndisplay = 3
        self._look_from_front(labels)

    def leave(self) -> None:
        """Show the slices again as they were before."""
        before = self._before
        if before is None:
            return
        self._viewer.dims.ndisplay = 2
        self.give_back()
        dims, camera = self._viewer.dims, camera_of(self._viewer)
        if len(before.order) == dims.ndim:
            dims.order, dims.point = before.order, before.point
        camera.angles, camera.center, camera.zoom = before.angles, before.center, before.zoom

    def give_back(self) -> None:
        """Show the layers as they were before; the camera has been moved by somebody else."""
        before, self._before = self._before, None
        if before is None:
            return
        for layer in before.hidden:
            layer.visible = True
        before.labels.rendering, before.labels.iso_gradient_mode = before.rendering, before.gradient
        before.labels.opacity, before.labels.contour = before.opacity, before.contour
        before.labels.visible = before.visible

    def _look_from_front(self, labels: Labels) -> None:
        towards = directions(labels)
        view, up = (_unit(towards, way) for way in ("back", "head"))
        if view is not None and up is not None:
            camera_of(self._viewer).set_view_direction(view, up)


class _Before(NamedTuple):
    """What a viewer showed before it showed organs in 3-D."""

    labels: Labels
    rendering: str
    gradient: str
    opacity: float
    contour: int
    visible: bool
    hidden: list[Layer]
    center: tuple[float, ...]
    zoom: float
    angles: tuple[float, ...]
    order: tuple[int, ...]
    point: tuple[float, ...]


def _unit(towards: tuple[str, str, str], way: str) -> tuple[float, float, float] | None:
    """The direction in the world that runs that way in the patient."""
    vector = [0.0, 0.0, 0.0]
    for axis, run in enumerate(towards):
        if run in (way, _OPPOSITE[way]):
            vector[axis] = 1.0 if run == way else -1.0
            return vector[0], vector[1], vector[2]
    return None
