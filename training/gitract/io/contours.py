"""Masks to outlines and back, within one slice; pure geometry.

A point is ``(row, column)`` in pixels: whole numbers are the centres of pixels, so the image
reaches from -0.5 to its size less 0.5. A polygon is closed; its first point is not repeated.

**What an outline means.** It runs half way between the centres of a pixel inside and of its
neighbour outside, and cuts each corner by an eighth of a pixel: the area of an outline is
that of its pixels less half a pixel, whatever its size. No pixel's centre is nearer to it
than 0.35 pixels. So coordinates may be rounded, and any rule for filling by the centres
gives the mask back voxel by voxel, on this side and elsewhere.

**Filling** goes by the centres of pixels and the even-odd rule over all polygons of a slice:
a polygon within another one is a hole, a third one in it an island. Where an outline runs
exactly through centres (other programs' do), those on its lower side belong to it and those
on its upper side do not, in both axes: polygons that share an edge share no pixel.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

__all__ = ["filled", "outlined"]

Points = npt.NDArray[np.float64]

# What inverting an affine leaves of whole numbers is snapped to them.
_SNAP = 1e-6


def outlined(mask: npt.NDArray[np.bool_]) -> list[Points]:
    """The outlines of a mask, each hole joined to the outline around it.

    Pixels that touch at a corner alone are apart. A hole is joined by a channel of no width
    (the *keyhole* of DICOM PS3.3 C.8.8.6.3), which runs from the hole's first row towards
    lower rows: one polygon, which programs that know nothing of holes fill right, too.
    Points between which the outline goes on straight are left out.

    Parameters
    ----------
    mask
        ``(row, column)``.

    Returns
    -------
    list of numpy.ndarray
        For each polygon its points, ``(n, 2)``.
    """
    from skimage.measure import find_contours

    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return []
    # One pixel of background all around, so that every outline closes.
    inside = np.pad(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], 1)
    corner = np.array([rows[0] - 1, columns[0] - 1], dtype=float)
    rings = [ring[:-1] for ring in find_contours(inside, 0.5, fully_connected="low")]
    return [ring + corner for ring in _joined(rings, inside)]


def filled(polygons: Iterable[Points], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The pixels within polygons, by the even-odd rule.

    Parameters
    ----------
    polygons
        For each its points, ``(n, 2)``; they may leave the image, or cross.
    shape
        ``(rows, columns)`` of the image.

    Returns
    -------
    numpy.ndarray
        Mask ``(row, column)``.
    """
    rows, columns = shape
    starts = [polygon for polygon in polygons if len(polygon)]
    if not starts:
        return np.zeros(shape, dtype=np.bool_)
    here = np.concatenate(starts)
    there = np.concatenate([np.roll(polygon, -1, axis=0) for polygon in starts])
    # From the lower to the upper row: a channel, gone both ways, then cancels to the last bit.
    down = (here[:, 0] > there[:, 0])[:, None]
    low, high = np.where(down, there, here), np.where(down, here, there)
    first, end = (
        np.clip(np.ceil(side[:, 0] - _SNAP), 0, rows).astype(np.intp) for side in (low, high)
    )
    counts = end - first
    edge = np.repeat(np.arange(len(low)), counts)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts - first, counts)
    rise, run = (high - low).T
    slope = np.divide(run, rise, out=np.zeros_like(run), where=counts > 0)
    crossing = low[edge, 1] + (row - low[edge, 0]) * slope[edge]
    column = np.clip(np.ceil(crossing - _SNAP), 0, columns).astype(np.intp)
    # Every pixel from a crossing on changes sides; one more column takes those beyond the image.
    width = columns + 1
    crossings = np.bincount(row * width + column, minlength=rows * width).reshape(rows, width)
    odd = (crossings & 1).astype(np.bool_)
    return np.logical_xor.accumulate(odd, axis=1)[:, :columns]


def _joined(rings: list[Points], inside: npt.NDArray[np.bool_]) -> list[Points]:
    """One polygon for each outer ring, with the holes in it."""
    is_hole = [_doubled_area(ring) < 0 for ring in rings]
    channels: list[dict[int, Points]] = [{} for _ in rings]
    if any(is_hole):
        ring_at, place_at = _places(rings, inside.shape)
        # From below: what ends at a hole has been joined to it before the hole itself is.
        for index in sorted(np.flatnonzero(is_hole), key=lambda i: -rings[i][:, 0].min()):
            ring = rings[index]
            start = int(ring[:, 0].argmin())
            row, column = int(ring[start, 0]), int(ring[start, 1])
            end = np.flatnonzero(~inside[: row + 1, column])[-1]
            hole = _spliced(ring, channels[index], start)
            channels[ring_at[end, column]][place_at[end, column]] = np.concatenate([hole, hole[:1]])
    return [
        _spliced(ring, channels[index]) for index, ring in enumerate(rings) if not is_hole[index]
    ]


def _doubled_area(ring: Points) -> float:
    """Twice the area (shoelace): positive for outer rings, negative for holes."""
    row, column = ring.T
    return float(column @ np.roll(row, -1) - row @ np.roll(column, -1))


def _places(
    rings: list[Points], shape: tuple[int, ...]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """For a pixel outside with one inside below: the ring between them, the point's index."""
    ring_at, place_at = np.full((2, *shape), -1, dtype=np.intp)
    for index, ring in enumerate(rings):
        places = np.flatnonzero(ring[:, 0] % 1)
        where = tuple(np.floor(ring[places]).astype(np.intp).T)
        ring_at[where], place_at[where] = index, places
    return ring_at, place_at


def _spliced(ring: Points, channels: dict[int, Points], start: int | None = None) -> Points:
    """The corners of a ring from `start` on, with what begins and ends at its points.

    At each of the points in `channels` the path leaves for the ring there and comes back.
    """
    kept = _is_corner(ring)
    first = start or 0
    if not channels and start is None:
        return ring[kept]
    kept[[first, *channels] if start is not None else list(channels)] = True
    turned, kept = np.roll(ring, -first, axis=0), np.roll(kept, -first)
    path, begin = [], 0
    for place, inner in sorted(((p - first) % len(ring), i) for p, i in channels.items()):
        path += [turned[begin : place + 1][kept[begin : place + 1]], inner]
        begin = place
    return np.concatenate([*path, turned[begin:][kept[begin:]]])


def _is_corner(ring: Points) -> npt.NDArray[np.bool_]:
    """Whether the outline turns at each of its points; exact, for they are whole halves."""
    ahead = np.roll(ring, -1, axis=0) - ring
    behind = np.roll(ahead, 1, axis=0)
    return ahead[:, 0] * behind[:, 1] != ahead[:, 1] * behind[:, 0]
