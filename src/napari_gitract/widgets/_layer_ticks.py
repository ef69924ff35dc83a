"""Further Labels layers of one scan that go into one file with the chosen one."""

from collections.abc import Sequence

from napari.layers import Labels
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QVBoxLayout, QWidget

__all__ = ["LayerTicks"]


class LayerTicks(QWidget):
    """A box to tick for each layer; `ticked` is emitted when the user ticks one."""

    ticked = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._boxes: list[tuple[Labels, QCheckBox]] = []
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(2)

    @property
    def chosen(self) -> list[Labels]:
        """The layers that are ticked."""
        return [layer for layer, box in self._boxes if box.isChecked()]

    @property
    def count(self) -> int:
        """How many layers there are."""
        return len(self._boxes)

    def show_layers(self, layers: Sequence[Labels]) -> None:
        """Offer these; those that were ticked stay so."""
        before = self.chosen
        for _, box in self._boxes:
            self._layout.removeWidget(box)
            box.hide()  # it is deleted later, and would be drawn over the others until then
            box.deleteLater()
        self._boxes = []
        for layer in layers:
            box = QCheckBox(layer.name)
            box.setToolTip(f"Write {layer.name} into the same file.")
            box.setChecked(layer in before)
            box.clicked.connect(lambda _checked: self.ticked.emit())
            self._layout.addWidget(box)
            self._boxes.append((layer, box))
