"""The base of the widgets: a column that scrolls, and one job at a time with its progress.

Above the column stands what was left unsaved, and with the first widget edits begin to be
kept.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from qtpy.QtCore import QElapsedTimer, QEvent, Qt
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QProgressBar, QPushButton, QScrollArea, QVBoxLayout, QWidget

from gitract.progress import Progress, Report
from napari_gitract.autosaving import Autosaver
from napari_gitract.jobs import Job
from napari_gitract.widgets._docking import tab_with_siblings
from napari_gitract.widgets._parts import button_row, note
from napari_gitract.widgets._recovery import Recovery, leftovers
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
        job = Job(title, work, discard=discard, parent=self)
        self.job = job
        bar.watch(job)
        job.succeeded.connect(on_success)
        job.ended.connect(self.update_state)
        job.start()
        self.update_state()
        return job

    def update_state(self) -> None:
        """Enable what can be used now. For the widgets to override."""

    def closed(self) -> None:
        """End what runs, since the user closed the widget."""
        if self.busy and self.job is not None:
            self.job.cancel()

    def showEvent(self, event: QShowEvent | None) -> None:  # noqa: N802 - Qt's name
        """Join the tabs of the other widgets when docked."""
        super().showEvent(event)
        if not self._docked:
            self._docked = True
            tab_with_siblings(self)

    def event(self, event: QEvent | None) -> bool:
        """Notice that the user closed the dock: napari then takes the panel out of it."""
        handled = super().event(event)
        if event is not None and event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.closed()
        return handled
