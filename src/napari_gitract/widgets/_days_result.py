"""How the organs changed over the days: a table, a plot of the volumes, and what to know."""

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_gitract.widgets._days_open import short_names
from napari_gitract.widgets._days_plot import DayCurve, DayPlot
from napari_gitract.widgets._parts import (
    color_icon,
    fill_table,
    fit_height,
    note,
    say,
    section,
    table,
)

if TYPE_CHECKING:
    from gitract.days import DayOrgan, DayTable

__all__ = ["DayResult"]

_HEADERS = {
    "Organ, day": "Each day against the first one.",
    "mL": "Volume.",
    "Change": "Of the volume, against the first day.",
    "mm": "How far the middle of the organ moved within the body, once the days are aligned. "
    "Point at a number to read where it went.",
    "Dice": "Overlap with the first day, once the days are aligned: 1 is the same place and "
    "shape, 0 is none.",
}
_NOTHING = "–"


class DayResult(QWidget):
    """What `gitract.days.compare_days` found; empty until it is shown something."""

    def __init__(self) -> None:
        super().__init__()
        self.found: DayTable | None = None
        self.table = table(list(_HEADERS))
        for place, tip in enumerate(_HEADERS.values()):
            header = self.table.horizontalHeaderItem(place)
            assert header is not None
            header.setToolTip(tip)
        self.plot = DayPlot()
        self.remarks = note()
        self.alignment = note()
        self.alignment_section = section("How the days were aligned", self.alignment)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for part in (self.table, self.plot, self.remarks, self.alignment_section):
            layout.addWidget(part)
        self.clear()

    def clear(self) -> None:
        """Show nothing."""
        self.found = None
        self.setVisible(False)

    def fade(self, faded: bool) -> None:
        """Tell by paleness that the numbers are out of date."""
        self.table.setEnabled(not faded)
        self.plot.fade(faded)

    def show_table(self, found: "DayTable") -> None:
        """Show these numbers: for each organ a line with its name, then a line a day."""
        self.found = found
        names = short_names(list(found.days))
        count = len(found.days)
        rows, icons, tips, curves = [], [], [], []
        for place, organ in enumerate(found.organs):
            of_organ = found.rows[place * count : (place + 1) * count]
            rows.append([organ.title, "", "", "", ""])
            icons.append(color_icon(organ.color))
            tips.append("")
            for name, row in zip(names, of_organ, strict=True):
                rows.append([f"    {name}", *_cells(row)])
                icons.append(color_icon("transparent"))
                tips.append(_where(row))
            volumes = tuple(row.volume_ml for row in of_organ)
            curves.append(DayCurve(organ.title, organ.color, volumes))
        self.table.clearSpans()
        fill_table(self.table, rows, icons)
        for place in range(len(found.organs)):
            self.table.setSpan(place * (count + 1), 0, 1, len(_HEADERS))
        for index, tip in enumerate(tips):
            self._tell(index, tip)
        fit_height(self.table)
        self.plot.show_curves(names, curves)
        say(self.remarks, "\n".join(found.remarks))
        self.alignment.setText("\n".join(one.sentence for one in found.alignments))
        self.fade(False)
        self.setVisible(True)

    def _tell(self, row: int, tip: str) -> None:
        for column in range(self.table.columnCount()):
            item = self.table.item(row, column)
            assert item is not None
            item.setToolTip(tip)
            item.setFlags(item.flags() & ~Qt.ItemFlag.ItemIsSelectable)


def _cells(row: "DayOrgan") -> list[str]:
    return [
        _NOTHING if row.volume_ml is None else f"{row.volume_ml:.1f}",
        _NOTHING if row.change is None else f"{100 * row.change:+.0f} %",
        _NOTHING if row.moved_mm is None else f"{row.moved_mm:.1f}",
        _NOTHING if row.dice is None else f"{row.dice:.2f}",
    ]


def _where(row: "DayOrgan") -> str:
    """Where an organ went, in words."""
    from gitract.days import shift_in_words

    if row.shift_mm is None or row.shift_aligned_mm is None:
        return "" if row.volume_ml is not None else "No contours on this day."
    return (
        f"{row.organ.title} on {row.day}: {shift_in_words(row.shift_aligned_mm)}.\n"
        f"By the coordinates of the scans, not aligned: {shift_in_words(row.shift_mm)}."
    )
