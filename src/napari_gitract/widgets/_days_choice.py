"""Which days are open, which contours are those of each, and which two days are meant."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

from napari.layers import Image, Labels, Layer
from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QTableWidgetItem, QVBoxLayout, QWidget

from napari_gitract.widgets._choices import follow
from napari_gitract.widgets._days_open import OpenDay, open_days
from napari_gitract.widgets._menu import Menu
from napari_gitract.widgets._parts import fit_height, table

if TYPE_CHECKING:
    from napari.viewer import Viewer

__all__ = ["DayContours", "DayMenu"]

NO_CONTOURS = "none"
_ROW_HEIGHT = 26  # a menu takes more room than text
_CONTOURS_WIDTH = 150


class DayContours(QWidget):
    """A table of the days that are open, with a menu for the contours of each.

    Parameters
    ----------
    viewer
        Whose layers the days are.
    """

    changed = Signal()
    """Other days are open, or other contours are chosen."""

    def __init__(self, viewer: "Viewer") -> None:
        super().__init__()
        self._viewer = viewer
        self._picked: WeakKeyDictionary[Image, Labels | None] = WeakKeyDictionary()
        self._followed: WeakSet[Layer] = WeakSet()
        self.days: list[OpenDay] = []
        self.menus: list[Menu] = []
        self._told: list[tuple[Any, ...]] | None = None
        self.table = table(["Day", "Contours"])
        self.table.setToolTip(
            "The scans that are open. Choose the contours of each; a day without any is left out "
            "of the comparison."
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.table)
        events = viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered):
            follow(self, event, self._refresh)
        self._refresh()

    def contours_of(self, day: OpenDay) -> Labels | None:
        """The contours that are chosen for a day."""
        if day.image in self._picked:
            picked = self._picked[day.image]
            if picked is None or picked in day.offered:
                return picked
        return day.likely

    def _refresh(self, _event: Any = None) -> None:
        for layer in self._viewer.layers:
            if isinstance(layer, Image | Labels) and layer not in self._followed:
                self._followed.add(layer)
                follow(self, layer.events.name, self._refresh)
                follow(self, layer.events.data, self._refresh)
                follow(self, layer.events.metadata, self._refresh)
        days = open_days(self._viewer.layers)
        told = [self._told_of(day) for day in days]
        if told != self._told:
            self._told, self.days = told, days
            self._fill_table()
            self.changed.emit()

    def _told_of(self, day: OpenDay) -> tuple[Any, ...]:
        """What the table shows of a day."""
        names = [layer.name for layer in day.offered]
        return day.image, day.name, day.offered, day.own, names, self.contours_of(day)

    def _fill_table(self) -> None:
        self.table.setRowCount(0)  # lets go of the menus
        self.table.setRowCount(len(self.days))
        self.menus = [self._menu(day) for day in self.days]
        for row, (day, menu) in enumerate(zip(self.days, self.menus, strict=True)):
            item = QTableWidgetItem(day.name)
            item.setToolTip(day.name)
            self.table.setItem(row, 0, item)
            self.table.setCellWidget(row, 1, menu)
            self.table.setRowHeight(row, _ROW_HEIGHT)
        self.table.setColumnWidth(1, _CONTOURS_WIDTH)
        fit_height(self.table)

    def _menu(self, day: OpenDay) -> Menu:
        menu = Menu(least=12)
        for layer in day.offered:
            menu.addItem(layer.name)
            menu.setItemData(menu.count() - 1, layer.name, Qt.ItemDataRole.ToolTipRole)
        menu.addItem(NO_CONTOURS)
        chosen = self.contours_of(day)
        menu.setCurrentIndex(len(day.offered) if chosen is None else day.offered.index(chosen))
        menu.setToolTip(menu.currentText())

        def pick(index: int) -> None:
            self._picked[day.image] = day.offered[index] if index < len(day.offered) else None
            menu.setToolTip(menu.currentText())
            self.changed.emit()

        menu.currentIndexChanged.connect(pick)
        return menu


class DayMenu(Menu):
    """A menu of the days; what the user chose stays chosen while its scan is open."""

    chosen = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._days: list[OpenDay] = []
        self._picked: Image | None = None
        self.activated.connect(self._pick)

    @property
    def day(self) -> OpenDay | None:
        """The day chosen, or None where there is none to choose."""
        index = self.currentIndex()
        return self._days[index] if 0 <= index < len(self._days) else None

    def offer(self, days: Sequence[OpenDay], default: int) -> None:
        """Offer these days, the one at a place unless the user has chosen another."""
        images = [day.image for day in days]
        if self._picked not in images:
            self._picked = None
        index = default if self._picked is None else images.index(self._picked)
        with QSignalBlocker(self):
            self.clear()
            self._days = list(days)
            self.addItems([day.name for day in days])
            self.setCurrentIndex(index if days else -1)

    def choose(self, index: int) -> None:
        """Choose the day at a place, as the user does."""
        self.setCurrentIndex(index)
        self._pick(index)

    def _pick(self, index: int) -> None:
        self._picked = self._days[index].image
        self.chosen.emit()
