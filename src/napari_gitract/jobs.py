"""The one way to run a long job: off the GUI thread, with progress, cancel and errors.

A job is a function that takes ``report``. It runs on a worker thread, where ``report``
puts each `Progress` into a mailbox and raises `Cancelled` or `Stopped` once the user asked
for it. The GUI empties the mailbox with a timer: however often a job reports, the window
is redrawn at the timer's pace. Nothing of Qt is touched from the worker's thread.
"""

import gc
import io
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable
from weakref import WeakSet

from napari.qt.threading import WorkerBase, create_worker
from napari.utils import progress as activity_bar
from napari.utils.notifications import notification_manager, show_error
from qtpy.QtCore import QObject, QTimer, Signal

from gitract.errors import Cancelled, GitractError, Stopped
from gitract.progress import Progress, Report
from napari_gitract.libraries_ahead import bring_ahead
from napari_gitract.mesa import keep_triton_out

__all__ = [
    "TURN_MS",
    "Job",
    "TellsErrors",
    "errors_shown",
    "in_one_line",
    "loading_libraries",
    "tell_error",
]

REDRAW_MS = 60
TURN_MS = 10
"""Between two things that each hold up the window: what the user does comes in between."""
QUICK_S = 0.0005
USUAL_S = sys.getswitchinterval()
_LINE = 160  # characters; a notification that is longer hides the scan

_log = logging.getLogger(__name__)

T = TypeVar("T")


def tell_error(error: Exception, where: str = "") -> None:
    """Show an error once: ours as its sentence, any other as a crash.

    Parameters
    ----------
    error
        What was raised.
    where
        Name of the widget that shows the details of a crash; without one napari does.
    """
    if isinstance(error, GitractError):
        show_error(str(error))
    elif where:
        _log.error("Something went wrong in %s", where, exc_info=error)
        show_error(
            f"Something went wrong in {where}: {in_one_line(error)} Details: at the top of {where}."
        )
    else:
        notification_manager.receive_error(type(error), error, error.__traceback__)


def in_one_line(error: Exception) -> str:
    """What an error says of itself, as a sentence that is not too long."""
    said = " ".join(str(error).split())
    text = f"{type(error).__name__}: {said}" if said else type(error).__name__
    text = text if len(text) <= _LINE else f"{text[: _LINE - 1]}…"
    return text if text.endswith((".", "…", "!", "?")) else f"{text}."


@runtime_checkable
class TellsErrors(Protocol):
    """A widget that shows the errors of the jobs in it."""

    def tell_error(self, error: Exception, doing: str = "") -> None: ...


@contextmanager
def errors_shown() -> Iterator[None]:
    """Show the sentence of a `GitractError`; any other exception passes through."""
    try:
        yield
    except GitractError as error:
        tell_error(error)


@contextmanager
def loading_libraries(*packages: str) -> Iterator[None]:
    """Load torch and its companions without holding up the window more than need be.

    They make half a million objects that stay. To look through these for garbage takes a
    third of a second in which every thread stands still, and Python would do so several times
    while they are made. So nothing is looked through meanwhile, and afterwards they count as
    old: those are looked through only when many others have become so.

    Parameters
    ----------
    packages
        What will be imported of ``torch`` and ``SimpleITK``.
    """
    keep_triton_out()
    for package in packages:
        bring_ahead(package)
    collecting, loaded = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        import pandas  # noqa: F401 - else napari does, on the GUI thread, with the first labels

        yield
    finally:
        if len(sys.modules) > loaded:
            gc.freeze()
            gc.unfreeze()  # into the oldest generation, from which garbage still goes
        if collecting:
            gc.enable()


class _Task(Generic[T]):
    """The worker's half of a job. Its flags and its mailbox are all that threads share."""

    def __init__(
        self, title: str, work: Callable[[Report], T], discard: Callable[[T], None] | None
    ) -> None:
        self.title = title
        self.mailbox: deque[Progress] = deque()
        self.result: T | None = None
        self.error: Exception | None = None
        self._work = work
        self._discard = discard
        self._cancel = threading.Event()
        self._stop = threading.Event()

    def __repr__(self) -> str:
        return self.title  # napari lists running tasks by this when it is closed

    @property
    def cancelled(self) -> bool:
        return self._cancel.is_set()

    def cancel(self, *_: Any) -> None:
        self._cancel.set()

    def stop(self) -> None:
        self._stop.set()

    def run(self) -> None:
        try:
            self.result = self._work(self.report)
        except (Cancelled, Stopped):
            # Stopped comes up to here where there was no best so far yet.
            self._cancel.set()
        except Exception as error:  # noqa: BLE001 - handed to the GUI thread, which shows it
            self.error = error

    def report(self, progress: Progress) -> None:
        self.mailbox.append(progress)
        if self.cancelled:
            raise Cancelled
        if self._stop.is_set():
            self._stop.clear()  # what follows a stop, such as evaluation, runs to its end
            raise Stopped

    def drop_result(self) -> None:
        """Undo what a job made that was cancelled just as it ended."""
        if self.result is not None and self._discard is not None:
            self._discard(self.result)
        self.result = None


class _Worker(WorkerBase):
    def __init__(self, task: _Task[Any]) -> None:
        super().__init__()
        self._task = task

    def work(self) -> None:
        self._task.run()

    def quit(self) -> None:
        self._task.cancel()  # napari calls this when it closes
        super().quit()


class Job(QObject):
    """One long job, as the GUI sees it.

    Exactly one of `succeeded`, `failed` and `cancelled` is emitted, then `ended`; all on
    the GUI thread.

    Parameters
    ----------
    title
        What is being done, for napari's activity list: "Segmenting case20_day0".
    work
        The function to run on the worker thread. What it raises is shown to the user: by the
        widget around `parent` that `TellsErrors`, else by `tell_error`.
    discard
        Undoes a result that is not wanted any more, because the user cancelled just
        before it came.
    parent
        The widget that the job belongs to: when Qt destroys it the job is cancelled.
    quiet
        Keep it out of napari's activity list, for what ends soon and begins often: an entry
        there takes a twentieth of a second to appear.
    """

    progressed = Signal(list)
    """The `Progress` messages since the last time, in order."""
    succeeded = Signal(object)
    failed = Signal(str)
    cancelled = Signal()
    ended = Signal()

    _all: "ClassVar[WeakSet[Job]]" = WeakSet()

    def __init__(
        self,
        title: str,
        work: Callable[[Report], T],
        *,
        discard: Callable[[T], None] | None = None,
        parent: QObject | None = None,
        quiet: bool = False,
    ) -> None:
        super().__init__(parent)
        self.title = title
        self.running = False
        self._quiet = quiet
        self._task = _Task(title, work, discard)
        self._activity: Any = None
        self._last: Progress | None = None
        self._timer = QTimer(self)
        self._timer.setInterval(REDRAW_MS)
        self._timer.timeout.connect(self._deliver)
        self.destroyed.connect(self._task.cancel)
        self._all.add(self)

    def start(self) -> None:
        """Start the job on a thread of napari's pool."""
        self._set_running(True)
        if not self._quiet:
            self._activity = activity_bar(total=0, desc=self.title, file=io.StringIO(), leave=False)
        worker = create_worker(
            self._task, _worker_class=_Worker, _start_thread=False, _ignore_errors=True
        )
        worker.finished.connect(self._settle)
        self._timer.start()
        worker.start()

    def cancel(self) -> None:
        """Ask the job to end and to leave nothing; its result is dropped in any case."""
        self._task.cancel()

    def stop(self) -> None:
        """Ask a training job to end and to keep its best result so far."""
        self._task.stop()

    def _set_running(self, running: bool) -> None:
        """Let the window have Python's lock at once while any job computes.

        Each call of OpenGL gives the lock away, and a thread that computes keeps it for
        `USUAL_S`: a single picture would take a tenth of a second.
        """
        self.running = running
        sys.setswitchinterval(QUICK_S if any(job.running for job in self._all) else USUAL_S)

    def _deliver(self) -> None:
        messages = []
        with suppress(IndexError):
            while True:
                messages.append(self._task.mailbox.popleft())
        if not messages:
            return
        self.progressed.emit(messages)
        self._last = messages[-1]
        # In a turn of its own: with it napari draws what has changed by then.
        QTimer.singleShot(TURN_MS, self._show_activity)

    def _show_activity(self) -> None:
        """Napari's bar handles waiting events when it moves: the job may end within."""
        last = self._last
        if self._activity is None or last is None or not self.running:
            return
        if last.total and self._activity.total != last.total:
            self._activity.total = last.total
        if self.running:
            self._activity.update(last.done - self._activity.n)

    def _settle(self) -> None:
        self._timer.stop()
        self._deliver()
        if self._activity is not None:
            self._activity.close()
        self._set_running(False)
        task = self._task
        if task.error is not None:
            self.failed.emit(str(task.error))
            self._tell(task.error)
        elif task.cancelled:
            task.drop_result()
            self.cancelled.emit()
        else:
            self.succeeded.emit(task.result)
        self.ended.emit()

    def _tell(self, error: Exception) -> None:
        around = self.parent()
        while around is not None and not isinstance(around, TellsErrors):
            around = around.parent()
        if around is None:
            tell_error(error)
        else:
            around.tell_error(error, self.title)
