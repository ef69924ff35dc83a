"""Other days shown over or beside a scan, in layers of their own that go away again.

The layers of the days are left as they are, but for being hidden meanwhile. What is shown was
resampled onto the grid of today's scan: so one slider shows the same level of the body on all
days. napari's grid does not: it gives each layer a cell of its own, contours apart from their
scan, and cannot turn a slice out of its plane.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from napari.layers import Image, Labels, Layer, Points
from qtpy.QtCore import QTimer

from napari_gitract.jobs import TURN_MS
from napari_gitract.layers import MAP_KEY, organ_attributes, transform_of
from napari_gitract.passing import PassingLayers
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
    limits
        Grey values that are shown black and white.
    contours, labels
        The same of its contours; None where it has none.
    place
        How many days later than today, negative for earlier ones.
    """

    name: str
    voxels: np.ndarray
    limits: Sequence[float]
    contours: "Segmentation | None" = None
    labels: np.ndarray | None = None
    place: int = 0


class ShownDays:
    """What is shown of other days in a viewer.

    Parameters
    ----------
    viewer
        Where the layers are.
    """

    def __init__(self, viewer: "ViewerModel") -> None:
        self._viewer = viewer
        self.layers = PassingLayers(viewer)
        """Those that were added."""
        self._steps: deque[Callable[[], None]] = deque()
        self._hidden: list[Layer] = []
        self._camera: tuple[Any, float] | None = None

    def overlay(
        self, image: Image, today: LaidDay, other: LaidDay, hidden: Sequence[Layer]
    ) -> None:
        """Show today in green and another day in magenta: what is alike is grey.

        Parameters
        ----------
        image
            The scan of today, to lay the other day upon.
        today, other
            The two days.
        hidden
            Layers that would be in the way.
        """
        self.end()
        self._hide(hidden)
        green = partial(
            self._add_colored, image, today, f"{image.name} · green", "green",
            "translucent_no_depth",
        )  # fmt: skip
        magenta = partial(
            self._add_colored, image, other, f"{other.name} · magenta, aligned", "magenta",
            "additive",
        )  # fmt: skip
        self._in_turns([green, magenta])

    def _add_colored(
        self, image: Image, day: LaidDay, name: str, color: str, blending: str
    ) -> None:
        layer = Image(
            day.voxels,
            name=name,
            colormap=color,
            blending=blending,
            contrast_limits=day.limits,
            metadata={MAP_KEY: "day"},
            **transform_of(image),
        )
        self.layers.insert(self._viewer.layers.index(image) + 1 + len(self.layers), layer)

    def side_by_side(
        self, image: Image, others: Sequence[LaidDay], hidden: Sequence[Layer]
    ) -> None:
        """Show other days beside today, earlier ones to the left, with their contours.

        Parameters
        ----------
        image, hidden
            As in `overlay`.
        others
            The other days, each at its place.
        """
        self.end()
        self._hide(hidden)
        camera = camera_of(self._viewer)
        self._camera = (camera.center, camera.zoom)
        extent = np.asarray(image.extent.world)
        step = float(extent[1, -1] - extent[0, -1]) * (1 + _GAP)
        steps: list[Callable[[], None]] = []
        for other in others:
            transform = transform_of(image)
            affine = np.array(transform["affine"])
            affine[-2, -1] += other.place * step
            moved = {"metadata": {MAP_KEY: "day"}, **transform, "affine": affine}
            steps += [
                partial(self._add_scan, image, other, moved),
                partial(self._add_contours, other, moved),
            ]
        corners = {0: image.name, **{other.place: other.name for other in others}}
        steps += [lambda: self._append(_names(corners, extent, step)), self._viewer.reset_view]
        self._in_turns(steps)

    def _add_scan(self, image: Image, other: LaidDay, moved: dict[str, Any]) -> None:
        name, limits = f"{other.name} · aligned", other.limits
        self._append(
            Image(other.voxels, name=name, contrast_limits=limits, colormap=image.colormap, **moved)
        )

    def _add_contours(self, other: LaidDay, moved: dict[str, Any]) -> None:
        if other.contours is None or other.labels is None:
            return
        attributes = {**organ_attributes(other.contours.organs), **moved}
        labels = Labels(other.labels, name=f"{other.name} · contours, aligned", **attributes)
        labels.editable = False  # before it is in the viewer: it is not kept against a crash
        self._append(labels)

    def end(self) -> None:
        """Show the days as they were."""
        self._steps.clear()
        self.layers.clear()
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

    def _append(self, layer: Layer) -> None:
        self.layers.insert(len(self._viewer.layers), layer)

    def _in_turns(self, steps: Iterable[Callable[[], None]]) -> None:
        """Do one thing after another: napari takes a tenth of a second to add a layer."""
        self._steps.extend(steps)
        self._take_step()

    def _take_step(self) -> None:
        if self._steps:
            self._steps.popleft()()
            QTimer.singleShot(TURN_MS, self._take_step)


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
