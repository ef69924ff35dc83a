"""What the program drew on a Labels layer, and how a person's contours differ from it. No Qt.

Of a prediction only digests travel with the layer (`gitract.baseline`). To show it again its
voxels are kept as long as the layer lives, as runs of equal labels: some hundred kB for a stack
of tens of MB, made and read in some milliseconds.
"""

from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from psygnal import Signal

from gitract.change import GAINED, LOST
from gitract.organs import IGNORE, ORGANS
from napari_gitract.layers import (
    MAP_KEY,
    change_to_layer,
    organ_attributes,
    origin_of,
    transform_of,
)
from napari_gitract.passing import PassingLayers

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels

__all__ = [
    "Comparison",
    "Mode",
    "Prediction",
    "difference",
    "keep_prediction",
    "prediction_of",
]

Mode = Literal["current", "prediction", "difference"]
"""What is shown: the labels alone, or over them what was predicted or what differs from it."""

Plane = npt.NDArray[np.uint8]

_TRANSFORM = ("scale", "translate", "rotate", "shear", "affine")
_TOWARDS_WHITE = 0.5  # outlines of the prediction are told from those of the labels by it
_kept: "WeakKeyDictionary[Labels, Prediction]" = WeakKeyDictionary()


class Prediction:
    """Labels as they were predicted.

    Parameters
    ----------
    labels
        ``(slice, row, column)``, values 0 to 255.
    """

    def __init__(self, labels: np.ndarray) -> None:
        slices, rows, columns = labels.shape
        self.shape = (slices, rows, columns)
        self._runs = [_runs(np.asarray(plane, dtype=np.uint8)) for plane in labels]

    def plane(self, index: int) -> Plane:
        """The labels ``(row, column)`` of one slice."""
        values, lengths = self._runs[index]
        return np.repeat(values, lengths).reshape(self.shape[1:])

    def labels(self) -> npt.NDArray[np.uint8]:
        """The labels ``(slice, row, column)`` of all slices."""
        return np.stack([self.plane(index) for index in range(self.shape[0])])


def _runs(plane: Plane) -> tuple[Plane, npt.NDArray[np.uint32]]:
    """Values of runs of equal labels, and how long each is."""
    flat = plane.ravel()
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    lengths = np.diff(starts, append=flat.size).astype(np.uint32)
    return flat[starts], lengths


def keep_prediction(layer: "Labels", prediction: Prediction | None = None) -> Prediction:
    """Remember the voxels that a layer has now as what the program drew on it.

    Parameters
    ----------
    layer
        As it was drawn.
    prediction
        Of its voxels, where that was made already, off the GUI thread.
    """
    kept = _kept[layer] = prediction or Prediction(np.asarray(layer.data))
    return kept


def prediction_of(layer: "Labels") -> Prediction | None:
    """What was kept for a layer; None where that is nothing, or is of another stack."""
    prediction = _kept.get(layer)
    if prediction is None or prediction.shape != tuple(layer.data.shape):
        return None
    return prediction


def difference(before: np.ndarray, after: np.ndarray) -> npt.NDArray[np.uint8]:
    """What `gitract.change.change_between` tells of segmentations, for labels of any shape.

    Regions to ignore are no organ.

    Parameters
    ----------
    before, after
        Label values of one shape.

    Returns
    -------
    numpy.ndarray
        `GAINED` where `after` has an organ that `before` has not, `LOST` where it has none any
        more, else 0.
    """
    was = np.where(before == IGNORE.id, 0, before)
    now = np.where(after == IGNORE.id, 0, after)
    return np.where(now == was, 0, np.where(now == 0, LOST, GAINED)).astype(np.uint8)


class Comparison:
    """Shows over a Labels layer what was predicted, or what differs from it.

    It does so in a layer of its own, which is no contours to choose from or to draw on.

    Parameters
    ----------
    viewer
        Where the layers are.
    """

    ended = Signal()
    """Nothing but the labels is shown any more."""

    def __init__(self, viewer: "ViewerModel") -> None:
        self._viewer = viewer
        self._labels: Labels | None = None
        self._prediction: Prediction | None = None
        self._digests: list[str] = []
        self._layers = PassingLayers(viewer)
        self.mode: Mode = "current"
        self.shown: Labels | None = None
        """The layer over the labels."""
        viewer.layers.events.removed.connect(self._on_removed)

    def show(self, labels: "Labels", prediction: Prediction, mode: Mode) -> None:
        """Show the prediction or the difference over these labels, or the labels alone."""
        self.end()
        if mode == "current":
            return
        self._labels, self._prediction, self.mode = labels, prediction, mode
        make = _prediction_layer if mode == "prediction" else _difference_layer
        self.shown = make(labels, prediction)
        # Before it is in the viewer: what cannot be edited is not kept against a crash either.
        self.shown.editable = False
        self._digests = [""] * len(labels.data)
        self._layers.insert(self._viewer.layers.index(labels) + 1, self.shown)
        for name in _TRANSFORM:
            labels.events[name].connect(self._follow)

    def end(self) -> None:
        """Show the labels alone."""
        labels = self._labels
        if self.shown is None or labels is None:
            return
        for name in _TRANSFORM:
            labels.events[name].disconnect(self._follow)
        self.shown = self._labels = self._prediction = None
        self.mode = "current"
        self._layers.clear()
        self.ended.emit()

    def update(self, index: int) -> None:
        """Compare a slice that is being painted."""
        if self.mode == "difference" and self._compare(index):
            self._refresh()

    def catch_up(self, digests: list[str]) -> None:
        """Compare the slices that changed since, whichever they are.

        Parameters
        ----------
        digests
            Of each slice of the labels as they are now.
        """
        if self.mode != "difference" or len(digests) != len(self._digests):
            return  # another stack, of which nothing was predicted
        pairs = enumerate(zip(digests, self._digests, strict=True))
        changed = [index for index, (new, old) in pairs if new != old]
        self._digests = digests
        if [index for index in changed if self._compare(index)]:
            self._refresh()

    def _compare(self, index: int) -> bool:
        """Whether the difference of a slice is another one than is shown; it is shown now."""
        labels, prediction = self._labels, self._prediction
        if labels is None or self.shown is None or prediction is None:
            return False
        if prediction_of(labels) is not prediction:  # the layer holds another stack now
            return False
        now = difference(prediction.plane(index), labels.data[index])
        if np.array_equal(now, self.shown.data[index]):
            return False
        self.shown.data[index] = now
        return True

    def _refresh(self) -> None:
        if self.shown is not None:
            self.shown.refresh(thumbnail=False, highlight=False, extent=False)

    def _follow(self, _event: Any = None) -> None:
        """Stay on the labels when they are moved."""
        if self._labels is not None and self.shown is not None:
            for name, value in transform_of(self._labels).items():
                if name in _TRANSFORM:
                    setattr(self.shown, name, value)

    def _on_removed(self, event: Any) -> None:
        if event.value is self.shown:
            self.end()


def _prediction_layer(labels: "Labels", prediction: Prediction) -> "Labels":
    """Thin outlines of what was predicted, in lighter colours."""
    from napari.layers import Labels
    from napari.utils.colormaps import DirectLabelColormap

    origin = origin_of(labels.metadata)
    attributes = organ_attributes(ORGANS if origin is None else origin.organs)
    light = {
        value: np.append(_lighter(color[:3]), color[3])
        for value, color in attributes["colormap"].color_dict.items()
    }
    layer = Labels(
        prediction.labels(),
        name=f"{labels.name} · prediction",
        colormap=DirectLabelColormap(color_dict=light),
        features=attributes["features"],
        metadata={MAP_KEY: "prediction"},
        **transform_of(labels),
    )
    layer.opacity = 1.0
    layer.contour = 1
    return layer


def _lighter(color: np.ndarray) -> np.ndarray:
    return color + (1.0 - color) * _TOWARDS_WHITE


def _difference_layer(labels: "Labels", prediction: Prediction) -> "Labels":
    """What a person drew beyond the prediction, and what they erased of it."""
    from napari.layers import Labels

    change = np.zeros(prediction.shape, dtype=np.uint8)
    for index, plane in enumerate(np.asarray(labels.data)):
        before = prediction.plane(index)
        if not np.array_equal(before, plane):  # pages that nobody writes to take no memory
            change[index] = difference(before, plane)
    _, attributes, _ = change_to_layer(change, labels)
    attributes["name"] = f"{labels.name} · difference"
    attributes["features"]["name"] = ["as predicted", "added", "erased"]
    return Labels(change, **attributes)
