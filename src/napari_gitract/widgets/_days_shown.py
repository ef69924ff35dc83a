"""Other days shown over or beside a scan, in layers of their own that go away again.

The layers of the days are left as they are, but for being hidden meanwhile. What is shown was
resampled onto the grid of today's scan: so one slider shows the same level of the body on all
days. napari's grid does not: it gives each layer a cell of its own, contours apart from their
scan, and cannot turn a slice out of its plane.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from napari.layers import Image, Labels, Layer, Points

from napari_gitract.layers import (
    MAP_KEY,
    contrast_limits,
    insert_unselected,
    organ_attributes,
    transform_of,
)
from napari_gitract.workspace import camera_of

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from gitract.scan import Segmentation

__all__ = ["LaidDay", "ShownDays"]

_GAP = 0.04  # of the width of a scan, between two days
_NAME_COLOR = "#3f9ddb"  # seen on a dark ground and on a white one
_NAME_SIZE = 11  # points


class LaidDay(NamedTuple):
    """A day on the grid of today's scan.

    Parameters
    ----------
    name
        Of the day.
    voxels
        ``(slice, row, column)`` of today's scan.
    contours, labels
        The same of its contours; None where it has none.
    place
        How many days later than today, negative for earlier ones.
    """

    name: str
    voxels: np.ndarray
    contours: "Segmentation | None" = None
    labels: np.ndarray | None = None
    place: int = -1


class ShownDays:
    """What is shown of other days in a viewer.

    Parameters
    ----------
    viewer
        Where the layers are.
    """

    def __init__(self, viewer: "ViewerModel") -> None:
        self._viewer = viewer
        self.layers: list[Layer] = []
        """Those that were added."""
        self._hidden: list[Layer] = []
        self._camera: tuple[Any, float] | None = None

    def overlay(self, today: Image, other: LaidDay, hidden: Sequence[Layer]) -> None:
        """Show today in green and another day in magenta: what is alike is grey.

        Parameters
        ----------
        today
            The scan to lay the other day upon.
        other
            The other day.
        hidden
            Layers that would be in the way.
        """
        self.end()
        self._hide(hidden)
        colored = (
            (today.data, f"{today.name} · green", "green", "translucent_no_depth"),
            (other.voxels, f"{other.name} · magenta, aligned", "magenta", "additive"),
        )
        for voxels, name, color, blending in colored:
            layer = Image(
                voxels,
                name=name,
                colormap=color,
                blending=blending,
                contrast_limits=contrast_limits(voxels),
                metadata={MAP_KEY: "day"},
                **transform_of(today),
            )
            self._insert(layer, self._viewer.layers.index(today) + 1 + len(self.layers))

    def side_by_side(
        self, today: Image, others: Sequence[LaidDay], hidden: Sequence[Layer]
    ) -> None:
        """Show other days beside today, earlier ones to the left, with their contours.

        Parameters
        ----------
        today, hidden
            As in `overlay`.
        others
            The other days, each at its place.
        """
        self.end()
        self._hide(hidden)
        camera = camera_of(self._viewer)
        self._camera = (camera.center, camera.zoom)
        extent = np.asarray(today.extent.world)
        step = float(extent[1, -1] - extent[0, -1]) * (1 + _GAP)
        for other in others:
            transform = transform_of(today)
            affine = np.array(transform["affine"])
            affine[-2, -1] += other.place * step
            self._add_beside(today, other, {**transform, "affine": affine})
        corners = {0: today.name, **{other.place: other.name for other in others}}
        self._insert(_names(corners, extent, step), len(self._viewer.layers))
        self._viewer.reset_view()

    def _add_beside(self, today: Image, other: LaidDay, transform: dict[str, Any]) -> None:
        shared = {"metadata": {MAP_KEY: "day"}, **transform}
        image = Image(
            other.voxels,
            name=f"{other.name} · aligned",
            contrast_limits=contrast_limits(other.voxels),
            colormap=today.colormap,
            **shared,
        )
        self._insert(image, len(self._viewer.layers))
        if other.contours is None or other.labels is None:
            return
        attributes = {**organ_attributes(other.contours.organs), **shared}
        labels = Labels(other.labels, name=f"{other.name} · contours, aligned", **attributes)
        labels.editable = False  # before it is in the viewer: it is not kept against a crash
        self._insert(labels, len(self._viewer.layers))

    def end(self) -> None:
        """Show the days as they were."""
        added, self.layers = self.layers, []
        for layer in added:
            if layer in self._viewer.layers:
                self._viewer.layers.remove(layer)
        for layer in self._hidden:
            if layer in self._viewer.layers:
                layer.visible = True
        self._hidden = []
        if self._camera is not None:
            camera = camera_of(self._viewer)
            camera.center, camera.zoom = self._camera
            self._camera = None

    def _hide(self, layers: Sequence[Layer]) -> None:
        self._hidden = [layer for layer in layers if layer.visible]
        for layer in self._hidden:
            layer.visible = False

    def _insert(self, layer: Layer, index: int) -> None:
        """Add a layer at a place, and leave selected what is."""
        self.layers.append(layer)
        insert_unselected(self._viewer.layers, index, layer)


def _names(corners: dict[int, str], extent: np.ndarray, step: float) -> Points:
    """The names of days, above their scans, on every slice."""
    top, left = extent[0, -2:]
    places = np.array([[top, left + place * step] for place in corners])
    return Points(
        places,
        name="Names of the days",
        text={
            "string": list(corners.values()),
            "color": _NAME_COLOR,
            "size": _NAME_SIZE,
            "anchor": "lower_left",
        },
        size=1,
        face_color="transparent",
        border_color="transparent",
        metadata={MAP_KEY: "day"},
        units=("mm", "mm"),
        axis_labels=("y", "x"),
    )
