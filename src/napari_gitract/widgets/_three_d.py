"""The organs of a layer as surfaces, and back to the slices as they were."""

from typing import TYPE_CHECKING, NamedTuple

from napari.layers import Labels, Layer

from napari_gitract.widgets._planes import OPPOSITE, directions
from napari_gitract.workspace import camera_of

if TYPE_CHECKING:
    from napari.viewer import Viewer

__all__ = ["ThreeD"]


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
        if run in (way, OPPOSITE[way]):
            vector[axis] = 1.0 if run == way else -1.0
            return vector[0], vector[1], vector[2]
    return None
