"""The organs of a Labels layer: their colours, names and volumes, and what to paint with."""

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QSignalBlocker, Qt, QTimer, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QColorDialog,
    QComboBox,
    QHBoxLayout,
    QHeaderView,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from gitract.errors import GitractError
from gitract.organs import KNOWN_ORGANS, ORGANS, Organ
from napari_gitract.jobs import errors_shown
from napari_gitract.layers import origin_for, origin_of, painted_volumes
from napari_gitract.organ_table import (
    add_organ,
    adopt,
    bring_back,
    move_organ,
    recolour_organ,
    remove_organ,
    rename_organ,
    restore_organ,
)
from napari_gitract.widgets._choices import follow
from napari_gitract.widgets._parts import ROW_HEIGHT, color_icon, note, say, table
from napari_gitract.workspace import Workspace

if TYPE_CHECKING:
    from napari.viewer import Viewer

__all__ = ["OrganTable"]

MOST_ROWS = 8
QUIET_MS = 600
SWATCH, NAME, VOLUME = range(3)
NOTHING = "–"
NO_LAYER = "No Labels layer: segment a scan first."


class OrganTable(QWidget):
    """The organs of one Labels layer, to choose one for painting and to change the list.

    Parameters
    ----------
    viewer
        The viewer that shows the layer.
    """

    changed = Signal()
    """The list, a name or a colour is another one now."""

    def __init__(self, viewer: "Viewer") -> None:
        super().__init__()
        self._viewer = viewer
        self._layer: Labels | None = None
        self._followed: WeakSet[Labels] = WeakSet()
        self.organs: tuple[Organ, ...] = ()
        self.rows = _rows()
        self.rows.currentCellChanged.connect(self._on_current)
        self.rows.cellClicked.connect(self._on_clicked)
        self.rows.itemChanged.connect(self._on_typed)
        self.new_name = _name_field()
        _line(self.new_name).returnPressed.connect(self.add)
        self.add_button = QPushButton("Add")
        self.add_button.setToolTip("Put it on the list, and paint with it.")
        self.add_button.clicked.connect(self.add)
        self.remove_button = QPushButton("Remove")
        self.remove_button.setToolTip("Take the chosen organ off the list, and erase it.")
        self.remove_button.clicked.connect(self.remove)
        self.undo_button = QPushButton("Undo remove")
        self.undo_button.clicked.connect(self.restore)
        self.up_button = _arrow(Qt.ArrowType.UpArrow, "Move the chosen organ up.")
        self.up_button.clicked.connect(self.move_up)
        self.down_button = _arrow(Qt.ArrowType.DownArrow, "Move the chosen organ down.")
        self.down_button.clicked.connect(self.move_down)
        self.hint = note()
        self._arrange()
        self._quiet = QTimer(self)
        self._quiet.setSingleShot(True)
        self._quiet.setInterval(QUIET_MS)
        self._quiet.timeout.connect(self.refresh)
        follow(self, Workspace.of(viewer).labels_touched, self._on_touched)
        self.show_layer(None)

    def _arrange(self) -> None:
        adding, changing = QHBoxLayout(), QHBoxLayout()
        adding.addWidget(self.new_name, 1)
        adding.addWidget(self.add_button)
        changing.addWidget(self.remove_button)
        changing.addWidget(self.undo_button)
        changing.addStretch(1)
        changing.addWidget(self.up_button)
        changing.addWidget(self.down_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.rows)
        layout.addLayout(changing)
        layout.addLayout(adding)
        layout.addWidget(self.hint)

    # --- what is shown ------------------------------------------------------------------

    @property
    def layer(self) -> Labels | None:
        """The layer whose organs are listed."""
        return self._layer

    @property
    def chosen(self) -> Organ | None:
        """The organ whose row is selected, which is the one that is painted with."""
        row = self.rows.currentRow()
        return self.organs[row] if 0 <= row < len(self.organs) else None

    def show_layer(self, layer: Labels | None) -> None:
        """List the organs of this layer from now on."""
        self._layer = layer
        if layer is not None and layer not in self._followed:
            self._followed.add(layer)
            follow(self, layer.events.selected_label, self._on_label)
            follow(self, layer.events.editable, self._on_label)
            follow(self, layer.events.colormap, self._on_colormap)
        say(self.hint, NO_LAYER if layer is None else "")
        self.refresh()

    def refresh(self) -> None:
        """Show the organs and their volumes as they are now."""
        self._quiet.stop()
        before = self.organs
        if self._layer is not None:
            _look_for_removed(self._layer)
        self.organs = _organs(self._layer)
        with QSignalBlocker(self.rows):
            self._fill(self._volumes())
        if self.organs != before:
            say(self.hint, NO_LAYER if self._layer is None else "")
            self._offer()
        self._choose_row()
        if self.organs != before:
            self.changed.emit()

    def _volumes(self) -> dict[str, float]:
        """Volume of each organ, mL; of none where nothing says how large a voxel is."""
        if self._layer is None:
            return {}
        try:
            origin = origin_for(self._layer, self._viewer.layers)
        except GitractError:
            return {}
        return painted_volumes(np.asarray(self._layer.data), origin)

    def _fill(self, volumes_ml: dict[str, float]) -> None:
        # Items are kept, since one of them may be in an editor.
        self.rows.setRowCount(len(self.organs))
        for row, organ in enumerate(self.organs):
            volume = volumes_ml.get(organ.name, 0.0)
            texts = ("", organ.title, f"{volume:.1f} mL" if volume else NOTHING)
            for column, text in enumerate(texts):
                _item(self.rows, row, column).setText(text)
            _item(self.rows, row, SWATCH).setIcon(color_icon(organ.color))
        shown = sum(self.rows.rowHeight(row) for row in range(min(len(self.organs), MOST_ROWS)))
        self.rows.setFixedHeight(shown + 2 * self.rows.frameWidth())
        self.rows.setVisible(bool(self.organs))

    def _offer(self) -> None:
        """Suggest the known organs that are not on the list yet."""
        listed = {organ.name for organ in self.organs}
        typed = self.new_name.currentText()
        self.new_name.clear()
        self.new_name.addItems([one.title for one in KNOWN_ORGANS if one.name not in listed])
        self.new_name.setCurrentIndex(-1)
        self.new_name.setEditText(typed)

    def _choose_row(self) -> None:
        """Select the row of the label that is painted with, if it is an organ's."""
        layer = self._layer
        ids = [organ.id for organ in self.organs]
        row = -1
        if layer is not None and layer.selected_label in ids:
            row = ids.index(layer.selected_label)
        if row != self.rows.currentRow():
            with QSignalBlocker(self.rows):
                self.rows.setCurrentCell(row, NAME)
        editable = layer is not None and bool(layer.editable)
        origin = None if layer is None else origin_of(layer.metadata)
        removed = () if origin is None else origin.removed
        self.rows.setEnabled(editable)
        for widget in (self.new_name, self.add_button):
            widget.setEnabled(editable)
        self.remove_button.setEnabled(editable and row >= 0 and len(ids) > 1)
        self.up_button.setEnabled(editable and row > 0)
        self.down_button.setEnabled(editable and 0 <= row < len(ids) - 1)
        self.undo_button.setVisible(bool(removed))
        self.undo_button.setEnabled(editable)
        if removed:
            title = removed[-1].organ.title
            self.undo_button.setToolTip(f"Bring {title} back as it was, like Ctrl+Z.")

    def _on_touched(self, layer: Labels) -> None:
        if layer is self._layer:
            self._quiet.start()

    def _on_label(self, event: Any) -> None:
        if event.source is self._layer:
            self._choose_row()

    def _on_colormap(self, event: Any) -> None:
        # Changing the organs of a layer ends with its colours.
        if event.source is self._layer and _organs(self._layer) != self.organs:
            self.refresh()

    # --- what the user does -------------------------------------------------------------

    def _on_current(self, row: int, *_: int) -> None:
        if self._layer is not None and 0 <= row < len(self.organs):
            self._layer.selected_label = self.organs[row].id

    def _on_clicked(self, row: int, column: int) -> None:
        if self._layer is None:
            return
        self._on_current(row)
        self._viewer.layers.selection.active = self._layer
        if column == SWATCH:
            self.recolour()

    def _on_typed(self, item: QTableWidgetItem) -> None:
        organ = self.organs[item.row()]
        if item.column() == NAME and item.text() != organ.title:
            self._change(lambda layer: rename_organ(layer, organ.id, item.text()))

    def add(self, _checked: bool = False) -> None:
        """Put the organ in the name field on the list."""
        name = self.new_name.currentText().strip()
        if not name:
            return

        def change(layer: Labels) -> str:
            organ = add_organ(layer, name)
            self._viewer.layers.selection.active = layer
            return f"{organ.title}: paint it on a few slices."

        if self._change(change):
            _line(self.new_name).clear()

    def remove(self, _checked: bool = False) -> None:
        """Take the chosen organ off the list, and erase it."""
        organ = self.chosen
        if organ is None:
            return

        def change(layer: Labels) -> str:
            remove_organ(layer, organ.id)
            return f"{organ.title} was removed."

        self._change(change)

    def restore(self, _checked: bool = False) -> None:
        """Bring the organ that was removed last back, as it was painted."""
        self._change(lambda layer: f"{restore_organ(layer).title} is back.")

    def recolour(self) -> None:
        """Ask for another colour of the chosen organ."""
        organ = self.chosen
        if organ is None:
            return
        color = QColorDialog.getColor(QColor(organ.color), self, f"Colour of {organ.title}")
        if color.isValid():
            self._change(lambda layer: recolour_organ(layer, organ.id, color.name()))

    def move_up(self, _checked: bool = False) -> None:
        """Move the chosen organ one place up."""
        self._move(-1)

    def move_down(self, _checked: bool = False) -> None:
        """Move the chosen organ one place down."""
        self._move(1)

    def _move(self, by: int) -> None:
        organ = self.chosen
        if organ is not None:
            place = self.organs.index(organ) + by
            self._change(lambda layer: move_organ(layer, organ.id, place))

    def _change(self, change: Callable[[Labels], object]) -> bool:
        """Do it to the layer, and say what it says; whether it could be done."""
        layer, done, told = self._layer, False, None
        if layer is None:
            return False
        with errors_shown():
            adopt(layer, self._viewer.layers)
            told = change(layer)
            done = True
        self.refresh()
        say(self.hint, told if isinstance(told, str) else "")
        return done


def _organs(layer: Labels | None) -> tuple[Organ, ...]:
    """The table of a layer; that of one that is not of our making is the usual one."""
    if layer is None:
        return ()
    origin = origin_of(layer.metadata)
    return ORGANS if origin is None else origin.organs


def _look_for_removed(layer: Labels) -> None:
    """Have removed organs back that undo and redo brought back, whichever way they took."""
    origin = origin_of(layer.metadata)
    removed: Collection[int] = () if origin is None else {one.organ.id for one in origin.removed}
    if removed:
        labels = np.asarray(layer.data)
        bring_back(layer, {identity for identity in removed if np.any(labels == identity)})


# --- parts ------------------------------------------------------------------------------


def _rows() -> QTableWidget:
    rows = table(["", "Organ", "Volume"])
    header = rows.horizontalHeader()
    assert header is not None  # each table has one
    header.setVisible(False)
    header.setMinimumSectionSize(ROW_HEIGHT)
    header.setSectionResizeMode(SWATCH, QHeaderView.ResizeMode.Fixed)
    header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
    rows.setColumnWidth(SWATCH, ROW_HEIGHT + 4)
    rows.setEditTriggers(QAbstractItemView.EditTrigger.DoubleClicked)
    rows.setToolTip("Click: paint with it. Double click: rename. Click its colour: change it.")
    return rows


def _item(rows: QTableWidget, row: int, column: int) -> QTableWidgetItem:
    """The item of a cell, made where there is none; only names can be typed over."""
    item = rows.item(row, column)
    if item is None:
        item = QTableWidgetItem()
        flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        item.setFlags(flags | Qt.ItemFlag.ItemIsEditable if column == NAME else flags)
        if column == VOLUME:
            item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        rows.setItem(row, column, item)
    return item


def _name_field() -> QComboBox:
    field = QComboBox()
    field.setEditable(True)
    field.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
    field.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    field.setMinimumContentsLength(8)
    field.setToolTip("Choose an organ, or type a name such as tumour or PTV 50.")
    _line(field).setPlaceholderText("New organ or target")
    return field


def _line(field: QComboBox) -> Any:
    return field.lineEdit()


def _arrow(kind: Qt.ArrowType, tip: str) -> QToolButton:
    button = QToolButton()
    button.setArrowType(kind)
    button.setToolTip(tip)
    return button
