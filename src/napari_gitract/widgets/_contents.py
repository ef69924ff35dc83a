"""What the user is asked before a path is read: which scans, and whose contours."""

from collections.abc import Mapping, Sequence

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractItemView, QComboBox, QVBoxLayout, QWidget

from gitract.errors import InputError
from gitract.io import FoundScan
from gitract.organ_names import LEFT_OUT
from gitract.organs import KNOWN_ORGANS, Organ
from napari_gitract.widgets._parts import ROW_HEIGHT, fill_table, note, table

__all__ = ["NameTable", "ScanTable"]

MOST_ROWS = 8
LEAVE_OUT = "leave out"


class _Question(QWidget):
    """A table with a line above it; as high as its rows, up to a limit."""

    def __init__(self, headers: list[str], text: str) -> None:
        super().__init__()
        self.rows = table(headers)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(note(text, small=True))
        layout.addWidget(self.rows)

    def _fit(self) -> None:
        shown = min(self.rows.rowCount(), MOST_ROWS)
        self.rows.setFixedHeight((shown + 1) * ROW_HEIGHT + 12)
        self.setVisible(True)


class ScanTable(_Question):
    """The scans of a path, of which one or several are chosen."""

    def __init__(self) -> None:
        super().__init__(["Scan", "Size", "Date"], "Ctrl or Shift: several; grey: unreadable.")
        self.rows.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self._scans: tuple[FoundScan, ...] = ()

    def show_scans(self, scans: Sequence[FoundScan]) -> None:
        """Offer these; the first that can be read is chosen."""
        self._scans = tuple(scans)
        fill_table(
            self.rows,
            [[one.label, " × ".join(str(n) for n in one.shape), one.date] for one in scans],
        )
        self.rows.setColumnHidden(2, not any(one.date for one in scans))
        readable = [index for index, one in enumerate(scans) if not one.problem]
        for index, one in enumerate(scans):
            for column in range(3):
                item = self.rows.item(index, column)
                assert item is not None
                item.setToolTip("\n".join(filter(None, [one.line, one.problem, *one.remarks])))
                if one.problem:
                    item.setForeground(Qt.GlobalColor.gray)
        self.rows.clearSelection()
        if readable:
            self.rows.selectRow(readable[0])
        self._fit()

    def chosen(self) -> tuple[FoundScan, ...]:
        """The scans that are selected.

        Raises
        ------
        InputError
            None is, or one cannot be read.
        """
        indices = sorted({index.row() for index in self.rows.selectedIndexes()})
        if not indices:
            raise InputError("No scan is chosen: select at least one in the list.")
        scans = tuple(self._scans[index] for index in indices)
        for one in scans:
            if one.problem:
                raise InputError(one.problem)
        return scans


class NameTable(_Question):
    """The names of contours in a file, and the organ that each stands for."""

    def __init__(self) -> None:
        super().__init__(
            ["In the file", "Organ"], "Choose an organ, type a new one, or leave contours out."
        )
        self._boxes: dict[str, QComboBox] = {}

    def show_names(self, organs: Mapping[str, Organ | None], unknown: frozenset[str]) -> None:
        """Offer the organs that were guessed; those in doubt are marked."""
        fill_table(self.rows, [[f"{name} ?" if name in unknown else name, ""] for name in organs])
        self._boxes = {}
        for index, (name, organ) in enumerate(organs.items()):
            box = QComboBox()
            box.setEditable(True)
            box.addItem(LEAVE_OUT)
            box.addItems([known.name for known in KNOWN_ORGANS])
            box.setCurrentText(LEAVE_OUT if organ is None else organ.name)
            self.rows.setCellWidget(index, 1, box)
            self._boxes[name] = box
        self.rows.setColumnWidth(1, 150)
        self._fit()

    def choices(self) -> dict[str, str]:
        """Name in the file -> organ, as `gitract.io.read_segmentation` takes it."""
        texts = {name: box.currentText().strip() for name, box in self._boxes.items()}
        return {name: LEFT_OUT if text in ("", LEAVE_OUT) else text for name, text in texts.items()}
