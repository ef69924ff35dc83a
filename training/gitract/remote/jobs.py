"""The jobs of a server: one at a time on its device, cancelled on demand, soon forgotten."""

import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from gitract.errors import Cancelled, GitractError, InputError, Stopped
from gitract.progress import Progress, Report

__all__ = ["Job", "Jobs"]

Work = Callable[[Report], bytes]

_FORGOTTEN_AFTER_S = 600.0
_SILENT_FOR_S = 60.0


@dataclass(eq=False)
class Job:
    """One job, as its client sees it.

    Parameters
    ----------
    id
        Nobody can guess it.
    state
        ``waiting``, ``running``, ``done``, ``failed`` or ``cancelled``.
    progress
        The last message.
    error
        Of a failed one: the sentence for the user.
    """

    id: str
    state: str = "waiting"
    progress: Progress = field(default_factory=lambda: Progress(0, 0, "Waiting for the server"))
    history: list[Progress] = field(default_factory=list)
    error: str = ""
    result: bytes | None = None
    asked_for: float = field(default_factory=time.monotonic)
    _cancel: threading.Event = field(default_factory=threading.Event)
    _stop: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        """End it and leave nothing."""
        self._cancel.set()

    def stop(self) -> None:
        """End a training and keep the best so far."""
        self._stop.set()

    def report(self, progress: Progress) -> None:
        """Called by the work; ends it where that was asked for, or nobody asks any more."""
        self.progress = progress
        self.history.append(progress)
        if self._cancel.is_set() or time.monotonic() - self.asked_for > _SILENT_FOR_S:
            raise Cancelled
        if self._stop.is_set():
            self._stop.clear()
            raise Stopped


class Jobs:
    """All jobs of a server. Results are in memory alone, and go with the job."""

    def __init__(self, most: int = 16) -> None:
        self._jobs: dict[str, Job] = {}
        self._most = most
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="gitract-job")

    def start(self, work: Work) -> Job:
        """Put a job into the queue.

        Raises
        ------
        InputError
            Too many are waiting.
        """
        job = Job(secrets.token_urlsafe(16))
        with self._lock:
            if len(self._jobs) >= self._most:
                raise InputError(f"The server has {self._most} jobs already: try again later.")
            self._jobs[job.id] = job
        self._worker.submit(self._run, job, work)
        return job

    def find(self, name: str) -> Job | None:
        """The job with this id, which its client has just asked for."""
        job = self._jobs.get(name)
        if job is not None:
            job.asked_for = time.monotonic()
        return job

    def forget(self, job: Job) -> None:
        """Cancel a job and drop all that is known of it."""
        job.cancel()
        with self._lock:
            self._jobs.pop(job.id, None)

    def close(self) -> None:
        """End what runs and drop everything."""
        for job in list(self._jobs.values()):
            self.forget(job)
        self._worker.shutdown(wait=True, cancel_futures=True)

    def _run(self, job: Job, work: Work) -> None:
        job.state = "running"
        try:
            job.report(job.progress)  # ends here if it was cancelled while it waited
            job.result = work(job.report)
            job.state = "done"
        except (Cancelled, Stopped):
            job.state = "cancelled"
        except GitractError as error:
            job.error, job.state = str(error), "failed"
        except Exception as error:  # noqa: BLE001 - the client is told, the server goes on
            job.error = f"The server failed: {type(error).__name__}: {error}"
            job.state = "failed"
        forgetting = threading.Timer(_FORGOTTEN_AFTER_S, self.forget, [job])
        forgetting.daemon = True
        forgetting.start()
