"""What the commands share: options, output, the progress bar."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar

from gitract.errors import InputError
from gitract.progress import Progress, Report
from gitract.scan import Spacing

__all__ = [
    "AnyDevice",
    "Device",
    "Json",
    "Key",
    "Model",
    "SpacingOption",
    "cell",
    "err",
    "out",
    "parse_organs",
    "parse_slices",
    "parse_spacing",
    "print_result",
    "progress_bar",
]

_MOST_SLICES = 100_000
# Paths may hold brackets, which are no markup.
out = Console(highlight=False, markup=False)
err = Console(stderr=True, highlight=False, markup=False)

Model = Annotated[
    str | None, typer.Option("--model", "-m", help="Model id or folder; default: the active one.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
AnyDevice = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, cuda:N, mps, or server:NAME.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
SpacingOption = Annotated[
    str | None,
    typer.Option(help="Slice, row and column spacing in mm, as 3,1.5,1.5, where a file has none."),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key", "-k", help="Which scan of a folder that holds several; `gitract info` lists them."
    ),
]


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Report]:
    """A progress bar on standard error, and the report that moves it."""
    text = TextColumn("{task.description}", markup=False)
    columns = (text, BarColumn(), TimeElapsedColumn())
    with ProgressBar(
        *columns, console=err, transient=True, disable=quiet or not err.is_terminal
    ) as bar:
        task = bar.add_task("Starting", total=None)

        def report(progress: Progress) -> None:
            bar.update(
                task,
                completed=progress.done,
                total=progress.total or None,
                description=progress.message + _numbers(progress),
            )

        yield report


def _numbers(progress: Progress) -> str:
    return "".join(f"  {name} {value:.3f}" for name, value in progress.values.items())


def print_result(as_json: bool, content: Any, show: Callable[[], None]) -> None:
    if as_json:
        print(json.dumps(content, indent=2, default=str))
    else:
        show()


def parse_slices(text: str | None) -> list[int] | None:
    """Slices as typed: ``40:60`` (60 is not in it), ``40,52,63``, or both mixed.

    Raises
    ------
    InputError
        It is neither.
    """
    if text is None:
        return None
    slices: list[int] = []
    for part in text.split(","):
        first, colon, last = part.strip().partition(":")
        try:
            wanted = range(int(first), int(last)) if colon else range(int(first), int(first) + 1)
        except ValueError:
            raise InputError(f"Slices {text!r} are not like 40:60 or 40,52,63.") from None
        if wanted.stop - wanted.start > _MOST_SLICES:
            raise InputError(f"Slices {text!r} are more than a scan can have: give fewer.")
        slices += wanted
    if not slices:
        raise InputError(f"Slices {text!r} hold no slice: the second number is not included.")
    return slices


def parse_spacing(text: str | None) -> Spacing | None:
    if text is None:
        return None
    try:
        slice_mm, row_mm, column_mm = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"Spacing {text!r} is not three numbers in mm, as 3,1.5,1.5.") from None
    return slice_mm, row_mm, column_mm


def parse_organs(pairs: list[str] | None) -> dict[str, str]:
    """Choices as typed: ``GTV=tumour`` or ``BODY=-``.

    Raises
    ------
    InputError
        One of them is neither.
    """
    choices = {}
    for pair in pairs or ():
        name, equals, organ = pair.rpartition("=")
        if not equals or not name.strip() or not organ.strip():
            raise InputError(f"--organ {pair!r} is not like GTV=tumour, or GTV=- to leave it out.")
        choices[name.strip()] = organ.strip()
    return choices


def cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
