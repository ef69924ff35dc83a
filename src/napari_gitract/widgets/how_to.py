"""How to: the main job in steps that open what they need, the keys, and the guide."""

import re
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, metadata
from typing import TYPE_CHECKING

from napari.layers import Layer
from qtpy.QtCore import Qt, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import (
    QDialog,
    QGridLayout,
    QLabel,
    QPushButton,
    QTextBrowser,
    QVBoxLayout,
    QWidget,
)

from gitract import INTENDED_USE
from gitract.progress import Progress, Report
from napari_gitract.layers import LayerTuple
from napari_gitract.opening import LOAD, REVIEW, SEGMENT, open_widget
from napari_gitract.settings import PLUGIN
from napari_gitract.widgets._keys import DISPLAY_KEYS, KEYS
from napari_gitract.widgets._panel import JobBar, Panel
from napari_gitract.widgets._parts import button_row, note, section

if TYPE_CHECKING:
    from napari.viewer import Viewer

__all__ = ["HowTo", "guide_address"]

_STEPS = (
    ("Open a scan: drop its folder on the viewer, or choose it.", LOAD),
    ("Let the model outline the organs. Their volumes are listed.", SEGMENT),
    ("Go through the slices. Correct with napari's brush, accept what is right.", REVIEW),
    ("Teach the model your corrections. It is kept only if you say so.", "Fine-tune"),
    ("Save the contours, or send them to your planning system.", "Export"),
)
_ALSO = ("Measure", "Treatment days", "Models")
_DOES = {
    "accept": "This slice is right as it stands",
    "reject": "Leave this slice out",
    "reset": "Forget what was said of this slice",
    "go_next": "Next slice worth correcting",
    "go_previous": "Back to the slice before",
    "toggle_contours": "Contours, or filled",
    "toggle_prediction": "The prediction, or what it is now",
    "less_opaque": "Organs fainter",
    "more_opaque": "Organs stronger",
    "next_organ": "Paint with the next organ",
    "previous_organ": "Paint with the organ before",
}


class HowTo(Panel):
    """The main job in numbered steps; each opens the widget that it needs.

    Parameters
    ----------
    napari_viewer
        Where the widgets are opened.
    """

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__(napari_viewer)
        self.sample_button = QPushButton("Open the sample scan")
        self.sample_button.setToolTip(
            "An abdomen made by code, with its true contours: all can be tried on it."
        )
        self.sample_button.clicked.connect(self.open_sample)
        self.bar = JobBar(cancel="End now; nothing is added.")
        self.buttons = {name: self._opener(name) for _, name in _STEPS}
        self.buttons |= {name: self._opener(name) for name in _ALSO}
        self.guide_button = QPushButton("Read the guide")
        self.guide_button.setToolTip(guide_address() or "The guide that was installed with this.")
        self.guide_button.clicked.connect(self.open_guide)
        self.guide: QDialog | None = None
        self._arrange()

    def _arrange(self) -> None:
        self.column.addWidget(note("No scan at hand? Begin with the sample."))
        self.column.addWidget(self.sample_button)
        self.column.addWidget(self.bar)
        self.column.addLayout(self._steps())
        self.column.addWidget(note("And beside these:"))
        self.column.addLayout(button_row(*(self.buttons[name] for name in _ALSO)))
        self.keys_section = section("Keys", _keys())
        self.remember("keys", self.keys_section)
        self.column.addWidget(self.keys_section)
        self.column.addWidget(self.guide_button)
        self.column.addStretch(1)
        self.column.addWidget(note(INTENDED_USE, small=True))

    def _steps(self) -> QGridLayout:
        grid = QGridLayout()
        grid.setColumnStretch(1, 1)
        for row, (text, name) in enumerate(_STEPS):
            number = QLabel(f"{row + 1}.")
            grid.addWidget(number, row, 0, Qt.AlignmentFlag.AlignTop)
            grid.addWidget(note(text), row, 1)
            grid.addWidget(self.buttons[name], row, 2, Qt.AlignmentFlag.AlignTop)
        return grid

    def _opener(self, name: str) -> QPushButton:
        button = QPushButton(name)
        button.setToolTip(f"Open {name}, or bring it to the front.")
        button.clicked.connect(self._open(name))
        return button

    def _open(self, name: str) -> Callable[[bool], None]:
        def open_it(_checked: bool) -> None:
            with self.errors_shown(f"Opening {name}"):
                open_widget(self.viewer, name)

        return open_it

    def open_sample(self, _checked: bool = False) -> None:
        """Make the sample scan off the GUI thread, and add it with its contours."""
        if self.busy:
            return

        def work(report: Report) -> list[LayerTuple]:
            from napari_gitract._sample_data import abdomen_sample

            report(Progress(0, 0, "Making the sample scan"))
            return abdomen_sample()

        def add(layers: list[LayerTuple]) -> None:
            for layer in layers:
                self.viewer.add_layer(Layer.create(*layer))

        self.run("Making the sample scan", work, self.bar, add)

    def open_guide(self, _checked: bool = False) -> None:
        """Open the guide in the browser; where it has no address, what was installed of it."""
        address = guide_address()
        if address:
            QDesktopServices.openUrl(QUrl(address))
            return
        if self.guide is None:
            self.guide = _Guide(self)
        self.guide.show()
        self.guide.raise_()

    def update_state(self) -> None:
        """One sample at a time."""
        self.sample_button.setEnabled(not self.busy)


def guide_address() -> str:
    """Where the guide is on the web, as the installed package says; empty where it does not."""
    try:
        lines = metadata(PLUGIN).get_all("Project-URL") or []
    except PackageNotFoundError:
        return ""
    named = dict(line.split(", ", 1) for line in lines)
    return named.get("Documentation", "")


class _Guide(QDialog):
    """The description that every installed package carries: our README."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle("Guide")
        self.text = QTextBrowser()
        self.text.setOpenExternalLinks(True)
        self.text.setMarkdown(_description())
        QVBoxLayout(self).addWidget(self.text)
        self.resize(720, 600)


def _description() -> str:
    try:
        text = str(metadata(PLUGIN).json.get("description", ""))
    except PackageNotFoundError:
        text = ""
    pictures = re.compile(r"!\[[^]]*\]\([^)]*\)")  # which are not installed
    return pictures.sub("", text) or "The guide is in the folder docs of the source code."


def _keys() -> QWidget:
    """The keys that the widgets bind, as a table."""
    content = QWidget()
    grid = QGridLayout(content)
    grid.setContentsMargins(0, 0, 0, 0)
    grid.setColumnStretch(1, 1)
    keys = {**KEYS, **DISPLAY_KEYS}
    for row, (name, key) in enumerate(keys.items()):
        grid.addWidget(QLabel(key), row, 0, Qt.AlignmentFlag.AlignTop)
        grid.addWidget(note(_DOES[name]), row, 1)
    where = note(
        "The first five work while Review or Fine-tune is open, the others with Review; none "
        "where napari or you have given the key to something else. Napari's own keys are in its "
        "Preferences, Shortcuts.",
        small=True,
    )
    grid.addWidget(where, len(keys), 0, 1, 2)
    return content
