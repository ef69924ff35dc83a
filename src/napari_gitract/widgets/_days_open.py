"""The treatment days that are open in a viewer: scans, and the contours that belong to them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Image, Labels, Layer

from gitract.scan import Scan
from napari_gitract.layers import (
    MAP_KEY,
    Origin,
    is_drawn_on,
    origin_by_scale,
    origin_of,
    scan_from_layer,
    segmentation_of_labels,
)

if TYPE_CHECKING:
    from gitract.days import Day

__all__ = ["OpenDay", "StillDay", "open_days", "short_names"]


@dataclass(frozen=True, eq=False)
class OpenDay:
    """A scan that is open, and the Labels layers that may hold its contours.

    Parameters
    ----------
    image
        The scan.
    offered
        Layers on its grid, those that were made on it before those that do not say.
    own
        How many of `offered` were made on it.
    """

    image: Image
    offered: tuple[Labels, ...]
    own: int

    @property
    def name(self) -> str:
        """What the user calls it."""
        return str(self.image.name)

    @property
    def likely(self) -> Labels | None:
        """The contours that are meant unless the user says otherwise: the newest on this scan."""
        return self.offered[0] if self.own else None


def open_days(layers: Iterable[Layer]) -> list[OpenDay]:
    """The scans among layers, by name, so that day 2 comes before day 10."""
    known = [layer for layer in layers if MAP_KEY not in layer.metadata and _is_stack(layer)]
    images = [layer for layer in known if isinstance(layer, Image) and not layer.rgb]
    labels = [layer for layer in reversed(known) if isinstance(layer, Labels)]  # newest first
    days = []
    for image in images:
        fitting = [layer for layer in labels if layer.data.shape == image.data.shape]
        own = [layer for layer in fitting if is_drawn_on(layer, image)]
        # Without a word of where it is from, the user must say which day it is of.
        others = [layer for layer in fitting if origin_of(layer.metadata) is None]
        days.append(OpenDay(image, (*own, *others), len(own)))
    return sorted(days, key=lambda day: _natural(day.name))


def _is_stack(layer: Layer) -> bool:
    return isinstance(layer, Image | Labels) and layer.ndim == 3 and not layer.multiscale


def _natural(name: str) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", name.lower())
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]


def short_names(names: list[str]) -> list[str]:
    """Names without what they all begin with: ``day0`` and ``day22`` of one patient's case."""
    first, last = min(names), max(names)
    common = 0
    while common < len(first) and first[common] == last[common]:
        common += 1
    start = max(first.rfind(mark, 0, common) for mark in "_ ·-/") + 1
    return [name[start:] or name for name in names]


class StillDay:
    """A day as a job works on it: nothing of it is read from the viewer any more.

    Made on the GUI thread, where it takes no copy; `read` is for the worker's.

    Raises
    ------
    InputError
        The image is no scan, or its voxel size is unknown.
    """

    def __init__(self, day: OpenDay, labels: Labels | None) -> None:
        self.image = day.image
        self.labels = labels
        self.scan: Scan = replace(scan_from_layer(day.image), name=day.name)
        self._voxels = day.image.data
        self._drawn = None if labels is None else labels.data
        of_labels = None if labels is None else origin_of(labels.metadata)
        self._origin: Origin = of_labels or origin_of(day.image.metadata) or origin_by_scale(
            day.image
        )  # fmt: skip

    def is_open(self, layers: Iterable[Layer]) -> bool:
        """Whether the viewer still shows what the job worked on."""
        shown = list(layers)
        return (
            self.image in shown
            and self.image.data is self._voxels
            and (self.labels is None or self.labels in shown)
        )

    def read(self) -> "tuple[Day, np.ndarray]":
        """The day with its contours as they are drawn now, and a copy of their labels.

        Raises
        ------
        InputError
            The layer was cropped, or holds a value that is no organ's.
        """
        from gitract.days import Day

        labels = np.array(self._drawn)
        drawn = segmentation_of_labels(labels, self._origin)
        return Day(self.scan, replace(drawn, name=self.scan.name)), labels
