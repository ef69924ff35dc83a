"""How a long job says how far it is, and how it is told to end.

A job takes ``report``, calls it with a `Progress` at least once for each slice or
batch, and lets whatever ``report`` raises (`gitract.errors.Cancelled`,
`gitract.errors.Stopped`) unwind it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

__all__ = ["Progress", "Report", "followed", "prefixed", "silent"]


@dataclass(frozen=True)
class Progress:
    """One message of a running job.

    Parameters
    ----------
    done, total
        Steps done and steps in all; their unit (slices, batches) is the job's.
    message
        What is being done, for people: "Segmenting slice 40".
    values
        Numbers worth plotting against `done`, such as ``{"loss": 0.3}``.
    """

    done: int
    total: int
    message: str = ""
    values: Mapping[str, float] = field(default_factory=dict)


Report = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Report to nobody: the default of every long job."""


def prefixed(report: Report, prefix: str) -> Report:
    """A report that says first what it is about, for a job that is a part of another."""

    def with_prefix(progress: Progress) -> None:
        report(replace(progress, message=f"{prefix}: {progress.message}"))

    return with_prefix


def followed(report: Report, end: str) -> Report:
    """A report that says something more behind each message."""

    def with_end(progress: Progress) -> None:
        report(replace(progress, message=f"{progress.message} {end}"))

    return with_end
