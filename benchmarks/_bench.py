"""What the benchmarks share: rounds of timing, a table, and the machine it ran on."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

__all__ = ["every_slice", "finish", "median_seconds", "shared_options", "taken_mb"]

RESULTS = Path(__file__).parent / "RESULTS.md"


def shared_options(about: str | None, *, rounds: int | None = None) -> argparse.ArgumentParser:
    """The options that all have, to which each adds its own.

    Parameters
    ----------
    about
        The script's docstring, shown as it is written.
    rounds
        How often it measures unless told; None where it measures once.
    """
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if rounds is not None:
        parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--record", action="store_true", help="put the tables into RESULTS.md")
    parser.add_argument("--json", type=Path, help="write the tables to this file as well")
    return parser


def median_seconds(candidates: dict[str, Callable[[], object]], *, rounds: int) -> dict[str, float]:
    """Median seconds of each candidate; the rounds alternate, so that all see the same noise."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


@contextmanager
def every_slice() -> Iterator[None]:
    """Segmenters look at every slice, and leave none out between two silent ones."""
    from gitract import predict  # here: what measures the start must not load torch

    with mock.patch.object(predict, "_WORTH_PROBING", sys.maxsize):
        yield


def taken_mb(run: Callable[[], object]) -> float:
    """The most memory that a call takes over what this process held before it; on Linux.

    In millions of bytes.
    """
    before = _held_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
    run()
    return _held_mb("VmHWM") - before


def _held_mb(kind: str) -> float:
    """Memory of this process as Linux counts it: ``VmRSS`` now, ``VmHWM`` at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kibibytes = next(float(line.split()[1]) for line in lines if line.startswith(kind))
    return kibibytes * 1024 / 1e6


def _machine() -> str:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        capture_output=True, text=True, check=False, cwd=RESULTS.parent,
    ).stdout.strip()  # fmt: skip
    load = os.getloadavg()[0]
    return (
        f"{datetime.now(UTC).date()}, commit {commit or 'unknown'}, {os.cpu_count()} cores "
        f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}, "
        f"load {load:.1f}"
    )


def finish(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    notes: str,
    options: argparse.Namespace,
) -> None:
    """Print a table; on request put it into RESULTS.md, in place of its last edition.

    Parameters
    ----------
    options
        Those of `shared_options`. In its file of JSON a table takes the place of one of its title.
    """
    table = "\n".join(
        ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        + ["| " + " | ".join(row) + " |" for row in rows]
    )
    machine = _machine()
    section = f"## {title}\n\n{machine}\n\n{table}\n\n{notes}\n"
    print(section)
    if options.json is not None:
        earlier = json.loads(options.json.read_text("utf-8")) if options.json.exists() else {}
        content = earlier | {title: {"machine": machine, "columns": columns, "rows": rows}}
        options.json.write_text(json.dumps(content, indent=2), encoding="utf-8")
    if options.record:
        old = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else "# Results\n"
        head, *sections = old.split("\n## ")
        kept = [text for text in sections if not text.startswith(f"{title}\n")]
        parts = [head.rstrip(), *(f"## {text.rstrip()}" for text in kept), section.rstrip()]
        RESULTS.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
