"""The before/after card of a candidate model, with Keep and Discard."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QComboBox,
    QLineEdit,
    QMessageBox,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_gitract.widgets._parts import (
    button_row,
    color_icon,
    fill_table,
    fit_height,
    note,
    table,
)

if TYPE_CHECKING:
    from gitract.fine_tune import Candidate, Card, OrganChange, Retention

__all__ = ["ChangeCard"]

COLORS = {
    "better": "#4caf50",
    "worse": "#e57373",
    "no difference": "#bdbdbd",
    "unproven": "#ffb74d",
}
HIGHLIGHT = "QPushButton { background-color: #2f6fab; color: white; font-weight: bold; }"

_Values = tuple[float | None, float | None]
_METRICS: dict[str, tuple[int, str, Callable[["OrganChange"], _Values]]] = {
    "Dice": (
        3,
        "Overlap with your contours: 1 is the same.",
        lambda row: (row.before, row.after),
    ),
    "HD95, mm": (
        1,
        "How far contours lie apart in plane, all but the worst 5 %: 0 is the same.",
        lambda row: (row.hd95_before, row.hd95_after),
    ),
    "Surface Dice at 2 mm": (
        3,
        "The share of the contours within 2 mm of yours: 1 is all.",
        lambda row: (row.surface_before, row.surface_after),
    ),
    "Volume error, mL": (
        1,
        "Volume on these slices minus that of your contours.",
        lambda row: (row.ml_before - row.ml, row.ml_after - row.ml),
    ),
}
"""Decimals, what it says, and the values before and after."""


class ChangeCard(QWidget):
    """Say, organ by organ, what a candidate changes, and ask whether to keep it."""

    kept = Signal(str)
    """The name that the user gave, or nothing."""
    discarded = Signal()
    change_wanted = Signal()
    """The user wants to see on the scan what would change."""

    def __init__(self) -> None:
        super().__init__()
        self._card: Card | None = None
        self.sentence = note()
        self.measure = QComboBox()
        self.measure.addItems(list(_METRICS))
        self.measure.currentTextChanged.connect(self._fill)
        self.rows = table(["Organ", "Before", "After", "Change"])
        self.method = note(small=True)
        self.retention = note(small=True)
        self.change_button = QPushButton("Show what changes")
        self.change_button.setToolTip(
            "Add a layer: what the new model draws and the old one does not, and the reverse."
        )
        self.change_button.clicked.connect(self.change_wanted)
        self.name = QLineEdit()
        self.name.setPlaceholderText("name of the new version (optional)")
        self.keep_button = QPushButton("Keep")
        self.keep_button.setToolTip("Add it as a new version and use it from now on.")
        self.keep_button.clicked.connect(self._keep)
        self.discard_button = QPushButton("Discard")
        self.discard_button.setToolTip("Forget it; the model in use stays as it is.")
        self.discard_button.clicked.connect(self.discarded)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (
            self.sentence,
            self.measure,
            self.rows,
            self.method,
            self.retention,
            self.change_button,
            self.name,
        ):
            layout.addWidget(widget)
        layout.addLayout(button_row(self.keep_button, self.discard_button))
        self.setVisible(False)

    def show_candidate(self, candidate: "Candidate") -> None:
        """Fill the card and highlight what the verdict suggests."""
        card = candidate.card
        self._card = card
        self.sentence.setText(card.sentence)
        self.sentence.setStyleSheet(
            f"font-weight: bold; color: {COLORS.get(card.verdict, 'gray')};"
        )
        self._fill()
        self.method.setText(
            f"On slices {_numbers(card.held_out)}, each left out of the training that "
            f"is measured on it. {card.method}"
            if card.held_out
            else card.method
        )
        self.retention.setText(" ".join(_kept(one) for one in card.retention))
        better = card.verdict == "better"
        default, other = self.keep_button, self.discard_button
        if card.verdict in ("worse", "no difference"):
            default, other = other, default
        default.setStyleSheet(HIGHLIGHT if better or default is self.discard_button else "")
        other.setStyleSheet("")
        self.setVisible(True)
        default.setFocus()

    def _fill(self) -> None:
        """Show the chosen number of each organ."""
        if self._card is None:
            return
        decimals, meaning, values = _METRICS[self.measure.currentText()]
        self.rows.setToolTip(f"{meaning} On slices that the model was not trained on.")
        rows = self._card.rows
        fill_table(
            self.rows,
            [[row.organ.title, *_cells(values(row), decimals)] for row in rows],
            [color_icon(row.organ.color) for row in rows],
        )
        fit_height(self.rows)

    def _keep(self) -> None:
        if self._card is not None and self._card.verdict == "worse" and not self.confirm():
            return
        self.kept.emit(self.name.text().strip())

    def confirm(self) -> bool:
        """Ask whether a worse model is really wanted."""
        answer = QMessageBox.question(
            self,
            "Keep a worse model?",
            f"{self.sentence.text()}\n\nUse it from now on all the same?",
            QMessageBox.StandardButton.Yes | QMessageBox.StandardButton.No,
            QMessageBox.StandardButton.No,
        )
        return answer == QMessageBox.StandardButton.Yes


def _cells(values: _Values, decimals: int) -> list[str]:
    before, after = values
    difference = None if before is None or after is None else after - before
    return [
        *("–" if value is None else f"{value:.{decimals}f}" for value in values),
        "–" if difference is None else f"{difference:+.{decimals}f}",
    ]


def _kept(one: "Retention") -> str:
    """What was kept of what the model did before, in a sentence."""
    if one.after is None:
        return ""
    if one.before is None:
        return f"{one.where.capitalize()}: {one.after:.0%} drawn as before."
    return f"Replay scans: mean Dice {one.before:.3f} before, {one.after:.3f} after."


def _numbers(slices: tuple[int, ...]) -> str:
    return ", ".join(map(str, slices))
