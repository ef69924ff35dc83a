"""An evaluation as one HTML file, to read in a browser or to print.

Everything is in the file: pictures, style, no scripts.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from gitract.competition_score import Reading
from gitract.errors import InputError
from gitract.evaluation import Evaluation
from gitract.history import Row, read_history
from gitract.progress import Progress, Report, silent
from gitract.replacing import replaced_file
from gitract.report.page import PageFacts, page

__all__ = ["read_curves", "write_report"]


def write_report(
    evaluation: Evaluation,
    path: Path,
    *,
    data: str,
    reading: Reading = "A",
    curves: Path | None = None,
    report: Report = silent,
) -> None:
    """Write an evaluation as an HTML file.

    Parameters
    ----------
    evaluation
        What was found.
    path
        The file; replaced when all went well.
    data
        What the scans are called, for the header.
    reading
        Of the competition's score.
    curves
        The ``log/metrics.csv`` of the training, for its curves.
    report
        Called for each part of the page.

    Raises
    ------
    InputError
        The file cannot be written, or the table of the training cannot be read.
    """
    facts = PageFacts(
        data=data,
        date=datetime.now(UTC).date().isoformat(),
        reading=reading,
        history=read_curves(curves) if curves else (),
    )
    with replaced_file(path) as partial:
        parts = []
        for part in page(evaluation, facts):
            parts.append(part)
            report(Progress(len(parts), 0, "Writing the report"))
        partial.write_text("\n".join(parts), encoding="utf-8")


def read_curves(path: Path) -> Sequence[Row]:
    """The rows of a training's log.

    Parameters
    ----------
    path
        ``log/metrics.csv`` of a run.

    Raises
    ------
    InputError
        It cannot be read, or is no such table.
    """
    try:
        rows = read_history(path)
    except OSError as error:
        raise InputError(f"The log {path} cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is not the log of a training, log/metrics.csv.") from error
    if not rows or any("step" not in row for row in rows):
        raise InputError(f"{path} is not the log of a training, log/metrics.csv.")
    return rows
