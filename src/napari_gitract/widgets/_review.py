"""The list of slices to train on: edited ones found by themselves, others added by hand."""

from typing import TYPE_CHECKING, Any

from napari.layers import Labels
from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import QListWidget, QListWidgetItem, QPushButton, QVBoxLayout, QWidget

from gitract.errors import GitractError
from napari_gitract.jobs import tell_error
from napari_gitract.widgets._choices import follow
from napari_gitract.widgets._parts import button_row, note
from napari_gitract.workspace import Review, ReviewedSlice, Workspace, current_slice, go_to_slice

if TYPE_CHECKING:
    from napari.viewer import Viewer

__all__ = ["SliceReview"]

QUIET_MS = 200


class SliceReview(QWidget):
    """Slices of one Labels layer that a person has judged.

    Parameters
    ----------
    viewer
        The viewer that shows the layer.
    """

    changed = Signal()

    def __init__(self, viewer: "Viewer") -> None:
        super().__init__()
        self._viewer = viewer
        self._workspace = Workspace.of(viewer)
        self._layer: Labels | None = None
        self.slices: list[ReviewedSlice] = []
        self.list = QListWidget()
        self.list.setFixedHeight(84)
        self.list.setToolTip("Click a slice to go to it.")
        self.list.itemClicked.connect(self._go_to)
        self.add_button = QPushButton("Add current slice")
        self.add_button.setToolTip("The slice that the viewer shows is right as it stands.")
        self.add_button.clicked.connect(self.add_current)
        self.remove_button = QPushButton("Remove")
        self.remove_button.setToolTip("Do not train on the selected slice.")
        self.remove_button.clicked.connect(self.remove_selected)
        self.summary = note()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.summary)
        layout.addWidget(self.list)
        layout.addLayout(button_row(self.add_button, self.remove_button))
        self._quiet = QTimer(self)
        self._quiet.setSingleShot(True)
        self._quiet.setInterval(QUIET_MS)
        self._quiet.timeout.connect(self.refresh)
        follow(self, self._workspace.labels_touched, self._on_touched)

    @property
    def layer(self) -> Labels | None:
        """The layer whose slices are listed."""
        return self._layer

    def show_layer(self, layer: Labels | None) -> None:
        """List the slices of this layer from now on."""
        self._layer = layer
        self.refresh()

    def _on_touched(self, layer: Labels) -> None:
        # While the brush moves events come faster than a stack can be compared.
        if layer is self._layer:
            self._quiet.start()

    def refresh(self) -> None:
        """Compare with the prediction now."""
        self._quiet.stop()
        layer = self._layer
        before = self.slices
        review = Review([], []) if layer is None else self._workspace.review(layer)
        self.slices = review.slices
        self.summary.setText(self._summary(review.left_out))
        for button in (self.add_button, self.remove_button):
            button.setEnabled(layer is not None)
        if self.slices != before or self.list.count() != len(self.slices):
            self._fill()
        self.changed.emit()

    def _fill(self) -> None:
        selected = self._selected()
        self.list.clear()
        for reviewed in self.slices:
            kind = "edited" if reviewed.edited else "right as it stood"
            item = QListWidgetItem(f"Slice {reviewed.index} · {kind}")
            item.setData(Qt.ItemDataRole.UserRole, reviewed.index)
            self.list.addItem(item)
            item.setSelected(reviewed.index == selected)

    def _summary(self, left_out: list[int]) -> str:
        if self._layer is None:
            return "No Labels layer: segment a scan first."
        edited = sum(reviewed.edited for reviewed in self.slices)
        text = f"{edited} edited, {len(self.slices) - edited} right as they stood."
        if left_out:
            text += f" Left out: {', '.join(map(str, left_out))}."
        if not self._workspace.has_baseline(self._layer):
            return f"{text} Not a prediction: add the slices by hand."
        return text

    def _selected(self) -> int | None:
        items = self.list.selectedItems()
        return None if not items else int(items[0].data(Qt.ItemDataRole.UserRole))

    def add_current(self, _checked: bool = False) -> None:
        """Accept the slice that the viewer shows."""
        if self._layer is None:
            return
        try:
            self._workspace.accept(self._layer, [current_slice(self._viewer, self._layer)])
        except GitractError as error:
            tell_error(error)
        self.refresh()

    def remove_selected(self, _checked: bool = False) -> None:
        """Take the selected slice off the list."""
        selected = self._selected()
        if self._layer is not None and selected is not None:
            self._workspace.leave_out(self._layer, [selected])
            self.refresh()

    def _go_to(self, item: Any) -> None:
        if self._layer is not None:
            go_to_slice(self._viewer, self._layer, int(item.data(Qt.ItemDataRole.UserRole)))
