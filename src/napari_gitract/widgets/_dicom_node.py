"""Where to send DICOM files: the fields of a DICOM node, and what it answered."""

from collections.abc import Callable

from qtpy.QtWidgets import QLineEdit, QPushButton, QSpinBox, QVBoxLayout, QWidget

from gitract.dicom_node import CALLING_AE_TITLE, DicomNode
from napari_gitract.widgets._parts import button_row, form, note, say

__all__ = ["NodeForm"]

_DICOM_PORT = 104


class NodeForm(QWidget):
    """The address of a node, and buttons to test it and to send to it.

    Parameters
    ----------
    test, send
        Called when a button is pressed.
    """

    def __init__(self, test: Callable[[], None], send: Callable[[], None]) -> None:
        super().__init__()
        self.host = QLineEdit()
        self.host.setPlaceholderText("name or address")
        self.host.setToolTip("Computer that the archive or the planning system runs on.")
        self.port = QSpinBox()
        self.port.setRange(1, 65535)
        self.port.setValue(_DICOM_PORT)
        self.port.setToolTip("Port that it listens on: often 104, 4242 or 11112.")
        self.ae_title = QLineEdit()
        self.ae_title.setPlaceholderText("such as ARCHIVE")
        self.ae_title.setToolTip("AE title of the node; capitals matter.")
        self.calling = QLineEdit(CALLING_AE_TITLE)
        self.calling.setToolTip(
            "AE title that the node knows us by. Many nodes must be told it before they answer."
        )
        self.test_button = QPushButton("Test")
        self.test_button.setToolTip("Ask whether the node is there and talks to us (C-ECHO).")
        self.test_button.clicked.connect(lambda: test())
        self.send_button = QPushButton("Send")
        self.send_button.setToolTip("Send what is described above to the node (C-STORE).")
        self.send_button.clicked.connect(lambda: send())
        self.whose = note()
        self.answer = note()
        fields = form()
        fields.addRow("Host", self.host)
        fields.addRow("Port", self.port)
        fields.addRow("AE title", self.ae_title)
        fields.addRow("Our AE title", self.calling)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(fields)
        layout.addWidget(self.whose)
        layout.addLayout(button_row(self.test_button, self.send_button))
        layout.addWidget(self.answer)
        for line in (self.host, self.ae_title, self.calling):
            line.textChanged.connect(self._forget)
        self.port.valueChanged.connect(self._forget)
        self._forget()

    def node(self) -> DicomNode:
        """The node that is typed in.

        Raises
        ------
        InputError
            A field is empty or cannot be.
        """
        return DicomNode(
            self.host.text().strip(),
            self.port.value(),
            self.ae_title.text().strip(),
            self.calling.text().strip(),
        )

    def say_whose(self, text: str) -> None:
        """Tell whose it will be at the node, or why nothing can be sent."""
        say(self.whose, text)

    def say_answer(self, text: str) -> None:
        """Show what the node answered."""
        say(self.answer, text)

    def _forget(self) -> None:
        """Another node: what the one before answered does not count."""
        say(self.answer, "")
