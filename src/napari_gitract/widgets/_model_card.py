"""What is known of one model: its numbers by organ, and the card that the program wrote."""

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDialog, QPushButton, QTextBrowser, QVBoxLayout, QWidget

from napari_gitract.widgets._parts import (
    button_row,
    color_icon,
    fill_table,
    fit_height,
    note,
    say,
    table,
)

if TYPE_CHECKING:
    from gitract.model_store import ModelInfo

__all__ = ["ModelCard"]

NO_CARD = "This model has no card."


class ModelCard(QWidget):
    """The numbers of a model, and its card to be read."""

    def __init__(self) -> None:
        super().__init__()
        self._title = ""
        self.summary = note()
        self.numbers = table(["Organ", "Held-out Dice"])
        self.numbers.setToolTip("Measured when the model was made, as the card below explains.")
        self.text = _browser()
        self.text.setMinimumHeight(260)
        self.larger_button = QPushButton("Read in a window")
        self.larger_button.setToolTip("Open the card in a window of its own, with room for tables.")
        self.larger_button.clicked.connect(self.open_window)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.summary)
        layout.addWidget(self.numbers)
        layout.addWidget(self.text)
        layout.addLayout(button_row(self.larger_button))

    def show_model(self, model: "ModelInfo") -> None:
        """Fill the card with what is known of this model."""
        self._title = model.id
        say(self.summary, "" if model.title == model.id else model.title)
        fill_table(
            self.numbers,
            [
                [organ.title, f"{model.dice[organ.name]:.3f}" if organ.name in model.dice else "–"]
                for organ in model.organs
            ],
            [color_icon(organ.color) for organ in model.organs],
        )
        fit_height(self.numbers)
        self.text.setMarkdown(model.card or NO_CARD)

    def open_window(self) -> QDialog:
        """Show the card in a window of its own."""
        window = QDialog(self)
        window.setWindowTitle(self._title)
        window.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        text = _browser()
        text.setMarkdown(self.text.toMarkdown())
        layout = QVBoxLayout(window)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(text)
        window.resize(860, 620)
        window.show()
        return window


def _browser() -> QTextBrowser:
    browser = QTextBrowser()
    browser.setOpenExternalLinks(True)
    return browser
