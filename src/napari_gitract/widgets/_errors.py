"""What is known of an error that nobody foresaw, to be read and copied where it happened."""

import os
import platform
import sys
import traceback
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import qtpy
from qtpy.QtCore import Qt
from qtpy.QtGui import QFontDatabase, QGuiApplication
from qtpy.QtWidgets import (
    QDialog,
    QFrame,
    QPlainTextEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_gitract.jobs import in_one_line
from napari_gitract.settings import DEVICE, PLUGIN, remembered
from napari_gitract.widgets._parts import button_row, note

__all__ = ["ErrorDetails", "ErrorStrip", "details_of"]

PRIVACY = (
    "This text holds versions, the device and where in the code it happened. Names of files and "
    "layers may stand in it, and with them a patient's name: look it through before you pass it on."
)
_LIBRARIES = ("napari", "npe2", "numpy", "torch", "onnxruntime", "lightning", "monai")
_STYLE = "QFrame#errors { border: 1px solid #d05050; border-radius: 4px; margin: 6px 6px 0px; }"


def details_of(error: Exception, where: str, doing: str = "") -> str:
    """Versions, device and traceback; the user's home folder stands there as ``~``.

    Parameters
    ----------
    error
        What was raised.
    where
        Name of the widget.
    doing
        Title of the job.
    """
    lines = [
        f"{where}{f', {doing}' if doing else ''}: {in_one_line(error)}",
        "",
        f"{PLUGIN} {_version(PLUGIN)}",
        *(f"{name} {_version(name)}" for name in _LIBRARIES if name in sys.modules),
        f"{qtpy.API_NAME} with Qt {qtpy.QT_VERSION}",
        f"Python {platform.python_version()} on {platform.platform()}",
        f"Device: {remembered(DEVICE) or 'auto'}{_gpu()}",
        "",
        "".join(traceback.format_exception(error)).rstrip(),
    ]
    home = Path.home()
    text = "\n".join(lines)
    return text if home == home.parent else text.replace(f"{home}{os.sep}", f"~{os.sep}")


class ErrorStrip(QFrame):
    """Says at the top of a widget that something went wrong, and hands out the details.

    Hidden until then. Only the last error is kept.
    """

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setObjectName("errors")
        self.setStyleSheet(_STYLE)
        self.details = ""
        self.dialog: ErrorDetails | None = None
        self.text = note()
        self.details_button = QPushButton("Details…")
        self.details_button.setToolTip("Versions, device, and where in the code it happened.")
        self.details_button.clicked.connect(self.open_details)
        self.copy_button = QPushButton("Copy")
        self.copy_button.setToolTip("Copy the details, to pass them on.")
        self.copy_button.clicked.connect(self.copy)
        self.hide_button = QPushButton("Hide")
        self.hide_button.clicked.connect(self.clear)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(14, 12, 14, 6)
        layout.addWidget(self.text)
        layout.addLayout(button_row(self.details_button, self.copy_button, self.hide_button))
        self.hide()

    def show_error(self, error: Exception, where: str, doing: str = "") -> None:
        """Show an error, in place of the one before.

        Parameters
        ----------
        error, where, doing
            As in `details_of`.
        """
        self.clear()
        self.details = details_of(error, where, doing)
        self.text.setText(f"{doing or where} failed: {in_one_line(error)}")
        self.show()

    def open_details(self, _checked: bool = False) -> None:
        """Show the details in a window of their own: a traceback needs the width."""
        if self.dialog is None:
            self.dialog = ErrorDetails(self.details, self)
        self.dialog.show()
        self.dialog.raise_()

    def copy(self, _checked: bool = False) -> None:
        """Put the details on the clipboard."""
        _copy(self.details)

    def clear(self, _checked: bool = False) -> None:
        """Forget the error."""
        self.details = ""
        if self.dialog is not None:
            self.dialog.close()
            self.dialog.deleteLater()
            self.dialog = None
        self.hide()


class ErrorDetails(QDialog):
    """The details of an error, to be read and copied; other work can go on meanwhile."""

    def __init__(self, details: str, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle("Details of the error")
        self.text = QPlainTextEdit(details)
        self.text.setReadOnly(True)
        self.text.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.text.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        self.copy_button = QPushButton("Copy")
        self.copy_button.clicked.connect(lambda: _copy(details))
        close_button = QPushButton("Close")
        close_button.clicked.connect(self.close)
        privacy = note(PRIVACY)
        privacy.setTextFormat(Qt.TextFormat.PlainText)
        layout = QVBoxLayout(self)
        layout.addWidget(privacy)
        layout.addWidget(self.text, 1)
        layout.addLayout(button_row(self.copy_button, close_button))
        self.resize(720, 480)


def _copy(text: str) -> None:
    clipboard = QGuiApplication.clipboard()
    if clipboard is not None:
        clipboard.setText(text)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed as a package)"


def _gpu() -> str:
    """What torch computes on, where it is loaded: to load it for this would take seconds."""
    torch = sys.modules.get("torch")
    if torch is None:
        return ", torch not loaded"
    return f", GPU {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"
