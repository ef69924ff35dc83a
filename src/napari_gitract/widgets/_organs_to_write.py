"""The organs of an export, each with its size and a box to leave it out."""

from collections.abc import Sequence

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QTableWidgetItem, QVBoxLayout, QWidget

from gitract.export_preview import OrganToWrite
from napari_gitract.widgets._parts import ROW_HEIGHT, color_icon, fill_table, table

__all__ = ["OrgansToWrite"]

MOST_ROWS = 8
NOTHING = "–"


class OrgansToWrite(QWidget):
    """A row for each organ; `ticked` is emitted when the user takes one in or out."""

    ticked = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.left_out: set[str] = set()
        self._organs: tuple[OrganToWrite, ...] = ()
        self.rows = table(["Organ", "Volume", "Slices"])
        self.rows.setToolTip("Untick an organ to leave it out of the file.")
        self.rows.itemChanged.connect(self._on_changed)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.rows)
        self.forget()

    def forget(self) -> None:
        """Other contours: show nothing, and all of their organs are to be written."""
        self.left_out = set()
        self.show_organs(())

    def show_organs(self, organs: Sequence[OrganToWrite]) -> None:
        """List these; those that cannot be written are grey, with the reason as a tooltip."""
        self._organs = tuple(organs)
        with QSignalBlocker(self.rows):
            fill_table(
                self.rows,
                [[o.organ.title, f"{o.volume_ml:.1f} mL", str(o.slices)] for o in organs],
                [color_icon(one.organ.color) for one in organs],
            )
            for row, one in enumerate(organs):
                self._tick(row, one)
        shown = min(len(organs), MOST_ROWS)
        self.rows.setFixedHeight((shown + 1) * ROW_HEIGHT + 10)
        self.setVisible(bool(organs))

    def _tick(self, row: int, one: OrganToWrite) -> None:
        chosen = one.organ.name not in self.left_out
        impossible = chosen and bool(one.left_out)
        for column in range(self.rows.columnCount()):
            item = self._item(row, column)
            item.setToolTip(f"Left out: {one.left_out}." if one.left_out else "")
            if one.left_out:
                item.setForeground(Qt.GlobalColor.gray)
            if column and not one.slices:
                item.setText(NOTHING)
        box = self._item(row, 0)
        box.setCheckState(
            Qt.CheckState.Checked if chosen and not impossible else Qt.CheckState.Unchecked
        )
        enabled = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        box.setFlags(enabled if impossible else enabled | Qt.ItemFlag.ItemIsUserCheckable)

    def _item(self, row: int, column: int) -> QTableWidgetItem:
        item = self.rows.item(row, column)
        assert item is not None
        return item

    def _on_changed(self, item: QTableWidgetItem) -> None:
        if item.column():
            return
        name = self._organs[item.row()].organ.name
        if item.checkState() == Qt.CheckState.Checked:
            self.left_out.discard(name)
        else:
            self.left_out.add(name)
        self.ticked.emit()
