"""The before/after card of a candidate model, with Keep and Discard."""

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QLineEdit, QMessageBox, QPushButton, QVBoxLayout, QWidget

from napari_gitract.widgets._parts import (
    button_row,
    color_icon,
    fill_table,
    fit_height,
    note,
    table,
)

if TYPE_CHECKING:
    from gitract.fine_tune import Candidate, OrganChange

__all__ = ["ChangeCard"]

COLORS = {
    "better": "#4caf50",
    "worse": "#e57373",
    "no difference": "#bdbdbd",
    "unproven": "#ffb74d",
}
HIGHLIGHT = "QPushButton { background-color: #2f6fab; color: white; font-weight: bold; }"


class ChangeCard(QWidget):
    """Say, organ by organ, what a candidate changes, and ask whether to keep it."""

    kept = Signal(str)
    """The name that the user gave, or nothing."""
    discarded = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._verdict = "unproven"
        self.sentence = note()
        self.rows = table(["Organ", "Before", "After", "Change"])
        self.rows.setToolTip("Dice on slices that the model was not trained on.")
        self.method = note(small=True)
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
        for widget in (self.sentence, self.rows, self.method, self.name):
            layout.addWidget(widget)
        layout.addLayout(button_row(self.keep_button, self.discard_button))
        self.setVisible(False)

    def show_candidate(self, candidate: "Candidate") -> None:
        """Fill the card and highlight what the verdict suggests."""
        card = candidate.card
        self._verdict = card.verdict
        self.sentence.setText(card.sentence)
        self.sentence.setStyleSheet(
            f"font-weight: bold; color: {COLORS.get(card.verdict, 'gray')};"
        )
        fill_table(
            self.rows,
            [_row(change) for change in card.rows],
            [color_icon(change.organ.color) for change in card.rows],
        )
        fit_height(self.rows)
        self.method.setText(
            f"Dice on slices {_numbers(card.held_out)}, each left out of the training that "
            f"is measured on it. {card.method}"
            if card.held_out
            else card.method
        )
        better = card.verdict == "better"
        default, other = self.keep_button, self.discard_button
        if card.verdict in ("worse", "no difference"):
            default, other = other, default
        default.setStyleSheet(HIGHLIGHT if better or default is self.discard_button else "")
        other.setStyleSheet("")
        self.setVisible(True)
        default.setFocus()

    def _keep(self) -> None:
        if self._verdict == "worse" and not self.confirm():
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


def _row(change: "OrganChange") -> list[str]:
    before, after = change.before, change.after
    difference = "–" if before is None or after is None else f"{after - before:+.3f}"
    return [change.organ.title, _dice(before), _dice(after), difference]


def _dice(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _numbers(slices: tuple[int, ...]) -> str:
    return ", ".join(map(str, slices))
