"""A Labels layer that fills up while its scan is being segmented."""

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gitract.organs import Organ
from gitract.scan import Segmentation, flattened
from napari_gitract.layers import organ_attributes, segmentation_to_layer, transform_of
from napari_gitract.prediction import Prediction, keep_prediction

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels

__all__ = ["LiveLabels"]


class LiveLabels:
    """Shows slices as they are outlined; nobody can draw on them before the last one is.

    `arrived` is called on the worker's thread, everything else on the GUI's.

    Parameters
    ----------
    viewer
        Where the layer is added, with the first slices.
    image
        The layer that is segmented. Nothing is shown once it has left the viewer.
    name
        Of the layer until its contours are complete.
    """

    def __init__(self, viewer: "ViewerModel", image: "Image", name: str) -> None:
        self._viewer = viewer
        self._image = image
        self._name = name
        self._mailbox: deque[tuple[Sequence[Organ], list[int], np.ndarray]] = deque()
        self._layer: Labels | None = None

    @property
    def closed(self) -> bool:
        """Whether the user removed the scan, or the layer before it was complete."""
        layers = self._viewer.layers
        return self._image not in layers or (self._layer is not None and self._layer not in layers)

    def arrived(self, organs: Sequence[Organ], indices: list[int], masks: np.ndarray) -> None:
        """Slices are outlined: masks ``(slice, organ, row, column)``, as the scan is stored."""
        self._mailbox.append((organs, indices, flattened(masks.swapaxes(0, 1), organs)))

    def show(self, *_: object) -> None:
        """Show what has arrived."""
        if self.closed or not self._mailbox:
            return
        shown = self._layer
        data = np.zeros(self._image.data.shape, np.uint8) if shown is None else shown.data
        while self._mailbox:
            organs, indices, labels = self._mailbox.popleft()
            data[indices] = labels
        if shown is not None:
            shown.refresh()
            return
        from napari.layers import Labels

        attributes = organ_attributes(organs) | transform_of(self._image)
        self._layer = Labels(data, name=self._name, **attributes)
        # Before it is in the viewer: what cannot be edited is not kept against a crash either.
        self._layer.editable = False
        self._viewer.add_layer(self._layer)

    def complete(
        self,
        segmentation: Segmentation,
        labels: np.ndarray,
        name: str,
        prediction: Prediction,
    ) -> "Labels":
        """Put the finished contours into the layer, which is the user's from now on.

        Parameters
        ----------
        segmentation, labels
            The contours, and the same flattened.
        name
            Of the layer.
        prediction
            Of the labels.
        """
        data, attributes, _ = segmentation_to_layer(
            segmentation, self._image, name=name, flat=labels
        )
        layer = self._layer
        if layer is None:
            layer = self._viewer.add_labels(data, **attributes)
            keep_prediction(layer, prediction)
            return layer
        self._layer = None
        layer.metadata = attributes["metadata"]
        layer.name = name
        layer.data = data  # napari lets it be edited from here on
        keep_prediction(layer, prediction)
        layer.editable = True
        return layer

    def drop(self) -> None:
        """Remove a layer that was never completed."""
        if self._layer is not None and self._layer in self._viewer.layers:
            self._viewer.layers.remove(self._layer)
        self._layer = None
