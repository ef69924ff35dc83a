"""The planes through the world of a viewer, how they lie in the patient, and what voxels they cut.

Each pixel looks up the voxel that it lies in by the layer's whole transform. So layers that hang
reversed, or were moved or turned, stand as they do in the viewer.
"""

from contextlib import suppress
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from napari.layers import Layer

from gitract.errors import InputError
from gitract.orientation import axes_run_to
from gitract.scan import axial_affine
from napari_gitract.layers import origin_by_scale, origin_of

__all__ = [
    "AXES",
    "OPPOSITE",
    "Matrix",
    "Plane",
    "directions",
    "extent_of",
    "planes_of",
    "to_world_matrix",
    "voxels_in",
]

Matrix = npt.NDArray[np.float64]

AXES = range(3)
"""The last three of the world."""
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
OPPOSITE = {a: b for pair in _UPRIGHT for a, b in (pair, pair[::-1])}
"""Where in the patient the other end of a direction lies."""
_LETTERS = {"left": "L", "right": "R", "front": "A", "back": "P", "head": "H", "feet": "F"}


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
    to_world = to_world_matrix(layer)[:, :3]
    towards = ["", "", ""]
    for axis in AXES:
        world = int(np.abs(to_world[:, axis]).argmax())
        towards[world] = run[axis] if to_world[world, axis] > 0 else OPPOSITE[run[axis]]
    return towards[0], towards[1], towards[2]


def planes_of(layer: Layer) -> tuple[Plane, Plane, Plane]:
    """The planes at a right angle to each axis of the world, as large as a stack.

    They are turned as films hang: the patient's head or front up, his right or front left.
    """
    towards = directions(layer)
    low, high = extent_of(layer)
    planes = []
    for across in AXES:
        down, along = sorted(
            (axis for axis in AXES if axis != across),
            key=lambda axis: next(i for i, pair in enumerate(_UPRIGHT) if towards[axis] in pair),
        )
        ends = [
            (high[axis], low[axis]) if towards[axis] in _REVERSED else (low[axis], high[axis])
            for axis in (down, along)
        ]
        ran = [
            OPPOSITE[towards[axis]] if towards[axis] in _REVERSED else towards[axis]
            for axis in (down, along)
        ]
        edges = [_LETTERS[side] for way in ran for side in (OPPOSITE[way], way)]
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


def to_world_matrix(layer: Layer) -> Matrix:
    """Matrix ``(3, 4)`` from array indices to the world."""
    origin = np.asarray(layer.data_to_world((0.0, 0.0, 0.0)))
    columns = [np.asarray(layer.data_to_world(np.eye(3)[axis])) - origin for axis in AXES]
    return np.stack([*columns, origin], axis=1)


def extent_of(layer: Layer) -> tuple[Matrix, Matrix]:
    """Lowest and highest world coordinates of a stack, to the outer faces of its voxels."""
    matrix = to_world_matrix(layer)
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
