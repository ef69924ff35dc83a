"""The base of the widgets: a column that scrolls, and one job at a time with its progress.

Above the column stands what was left unsaved and what went wrong, and with the first widget
edits begin to be kept.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from qtpy.QtCore import QElapsedTimer, QEvent, Qt
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QProgressBar, QPushButton, QScrollArea, QVBoxLayout, QWidget

from gitract.errors import GitractError
from gitract.progress import Progress, Report
from napari_gitract.autosaving import Autosaver
from napari_gitract.jobs import Job, tell_error
from napari_gitract.settings import remember, remembered
from napari_gitract.widgets._docking import dock_of, short_title, tab_with_siblings
from napari_gitract.widgets._errors import ErrorStrip
from napari_gitract.widgets._parts import button_row, note
from napari_gitract.widgets._recovery import Recovery, leftovers
from napari_gitract.widgets._remembering import remember_control
from napari_gitract.workspace import Workspace, unproxied

if TYPE_CHECKING:
    from napari.viewer import Viewer

__all__ = ["JobBar", "Panel", "time_left"]

T = TypeVar("T")

_KNOWN_S, _KNOWN_SHARE = 3.0, 0.05  # before that the time left is anybody's guess


class JobBar(QWidget):
    """Progress of the job that runs, its message, and the buttons that end it."""

    def __init__(self, *, stop: str | None = None, cancel: str) -> None:
        super().__init__()
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.text = note()
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.setToolTip(cancel)
        self.stop_button = QPushButton("Stop")
        self.stop_button.setToolTip(stop or "")
        self.stop_button.setVisible(stop is not None)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.bar)
        layout.addWidget(self.text)
        buttons = [self.stop_button] if stop is not None else []
        layout.addLayout(button_row(*buttons, self.cancel_button))
        self._clock = QElapsedTimer()
        self.setVisible(False)

    def watch(self, job: Job) -> None:
        """Show this job until it ends."""
        self._clock.start()
        self.bar.setRange(0, 0)
        self.text.setText(f"{job.title}…")
        self.cancel_button.setEnabled(True)
        self.stop_button.setEnabled(True)
        self.setVisible(True)
        job.progressed.connect(self._show)
        job.ended.connect(self.hide)
        self.cancel_button.clicked.connect(job.cancel)
        self.stop_button.clicked.connect(job.stop)
        self.cancel_button.clicked.connect(self._ending)
        self.stop_button.clicked.connect(self._stopping)

    def _show(self, messages: list[Progress]) -> None:
        last = messages[-1]
        self.bar.setRange(0, last.total)
        self.bar.setValue(last.done)
        if self.cancel_button.isEnabled():
            left = time_left(last.done, last.total, self._clock.elapsed() / 1000.0)
            self.text.setText(f"{last.message} · {left}" if left else last.message)

    def _ending(self) -> None:
        self.cancel_button.setEnabled(False)
        self.stop_button.setEnabled(False)
        self.text.setText("Cancelling…")

    def _stopping(self) -> None:
        self.stop_button.setEnabled(False)


def time_left(done: int, total: int, seconds: float) -> str:
    """How long a job will go on, told as people do; nothing while nobody can know.

    Parameters
    ----------
    done, total
        Steps.
    seconds
        Since the job began.
    """
    if seconds < _KNOWN_S or done < _KNOWN_SHARE * total or not done:
        return ""
    left = seconds * (total - done) / done
    if left < 90:
        return f"about {max(1, round(left / 5)) * 5} s left"
    return f"about {round(left / 60)} min left"


class Panel(QWidget):
    """Base of the widgets: a column that scrolls, and at most one job at a time.

    Parameters
    ----------
    napari_viewer
        The viewer that the widget is docked in.
    """

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__()
        self.viewer: Viewer = unproxied(napari_viewer)
        self.workspace = Workspace.of(self.viewer)
        Autosaver.of(self.viewer)
        self.recovery = Recovery(self.viewer, self)
        leftovers.look()
        self.errors = ErrorStrip(self)
        self.job: Job | None = None
        self._docked = False
        inner = QWidget()
        self.column = QVBoxLayout(inner)
        self.column.setContentsMargins(6, 6, 6, 6)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QScrollArea.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(inner)
        self.area = scroll
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(self.errors)
        outer.addWidget(self.recovery)
        outer.addWidget(scroll)
        self.setMinimumWidth(300)

    @property
    def busy(self) -> bool:
        """Whether a job runs."""
        return self.job is not None and self.job.running

    def run(
        self,
        title: str,
        work: Callable[[Report], T],
        bar: JobBar,
        on_success: Callable[[T], None],
        *,
        discard: Callable[[T], None] | None = None,
    ) -> Job:
        """Start a job that `bar` shows; `on_success` gets its result on the GUI thread."""
        if self.job is not None:
            self.job.deleteLater()
        self.errors.clear()
        job = Job(title, work, discard=discard, parent=self)
        self.job = job
        bar.watch(job)

        def succeed(result: T) -> None:
            with self.errors_shown(title):
                on_success(result)

        job.succeeded.connect(succeed)
        job.ended.connect(self.update_state)
        job.start()
        self.update_state()
        return job

    def update_state(self) -> None:
        """Enable what can be used now. For the widgets to override."""

    @property
    def title(self) -> str:
        """What the user knows the widget as."""
        dock = dock_of(self)
        return type(self).__name__ if dock is None else short_title(dock)

    def tell_error(self, error: Exception, doing: str = "") -> None:
        """Show an error once: ours as its sentence, any other with its details above.

        Parameters
        ----------
        error
            What was raised.
        doing
            What was being done: the title of the job.
        """
        if not isinstance(error, GitractError):
            self.errors.show_error(error, self.title, doing)
        tell_error(error, self.title)

    @contextmanager
    def errors_shown(self, doing: str = "") -> Iterator[None]:
        """Show what is raised within, and go on."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - told, with its traceback
            self.tell_error(error, doing)

    def remember(self, name: str, control: QWidget) -> None:
        """Set a control as the user left it at the last start, and keep what is chosen.

        Not for what depends on the layer or the file, such as a range of slices.

        Parameters
        ----------
        name
            Of the control, among those of this widget.
        control
            Filled, and as it is without anything remembered: a menu, a box to tick, a line, a
            folded section, a spin box or a slider.
        """
        remember_control(f"{type(self).__name__}.{name}", control)

    def last_folder(self, name: str) -> str:
        """The folder that the last file of a dialog came from; empty where it is gone."""
        folder = remembered(f"{type(self).__name__}.{name}")
        return folder if isinstance(folder, str) and Path(folder).is_dir() else ""

    def keep_folder(self, name: str, folder: str | Path) -> None:
        """Let a dialog begin in this folder at the next time.

        Parameters
        ----------
        name
            Of the dialog, among those of this widget.
        folder
            Where what was chosen lies.
        """
        remember(f"{type(self).__name__}.{name}", str(folder))

    def closed(self) -> None:
        """End what runs, since the user closed the widget."""
        if self.busy and self.job is not None:
            self.job.cancel()

    def showEvent(self, event: QShowEvent | None) -> None:  # noqa: N802 - Qt's name
        """Join the tabs of the other widgets when docked."""
        super().showEvent(event)
        if not self._docked:
            self._docked = True
            tab_with_siblings(self, Panel)

    def event(self, event: QEvent | None) -> bool:
        """Notice that the user closed the dock: napari then takes the panel out of it."""
        handled = super().event(event)
        if event is not None and event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.closed()
        return handled
