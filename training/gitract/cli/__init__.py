"""`gitract`: everything that the window does, on the command line.

Exit codes: 0 done, 2 bad input (one line on standard error says what), 130 cancelled.
Commands import what they need when they run, so that ``gitract --help`` is quick.
"""

import logging
import sys
from typing import Any, NoReturn

import typer

from gitract import INTENDED_USE
from gitract.cli import corrections, models, scans
from gitract.cli import days as treatment_days
from gitract.cli._common import err, parse_slices
from gitract.cli.check import check
from gitract.cli.evaluate import evaluate
from gitract.cli.finetune import finetune
from gitract.cli.measure import measure
from gitract.cli.send import send
from gitract.cli.serve import serve, servers
from gitract.cli.train import train
from gitract.errors import Cancelled, GitractError

__all__ = ["app", "main", "parse_slices"]

app = typer.Typer(
    help=f"Outline stomach and bowel on abdominal MR scans. {INTENDED_USE}",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for command in (
    scans.segment,
    check,
    measure,
    treatment_days.days,
    treatment_days.propagate,
    finetune,
    evaluate,
    train,
    scans.convert,
    send,
    scans.info,
    scans.organs,
    scans.phantom,
    serve,
):
    app.command()(command)
app.add_typer(models.app, name="models")
app.add_typer(corrections.app, name="corrections")
app.add_typer(servers, name="servers")

# Typer brings its own copy of click or the real one, by its version.
_USAGE_ERROR: Any = typer.BadParameter.__mro__[2]
_CANCELLED = "Cancelled: nothing was kept."


def main() -> None:
    """Entry point: run a command, turn its errors into one line and an exit code."""
    # tifffile tells of damage by itself, besides the error that comes of it.
    logging.getLogger("tifffile").addHandler(logging.NullHandler())
    try:
        result = app(standalone_mode=False)
    except GitractError as error:
        _fail(str(error))
    except _USAGE_ERROR as error:  # unknown option, missing argument
        _fail(error.format_message())
    except (Cancelled, KeyboardInterrupt, typer.Abort) as ended:
        err.print(str(ended) or _CANCELLED, soft_wrap=True)
        sys.exit(130)
    except OSError as error:
        _fail(f"{error.filename or 'A file'}: {error.strerror or error}.")
    if result == 130:  # some versions of Typer turn Ctrl+C into it without a word
        err.print(_CANCELLED)
    sys.exit(result if isinstance(result, int) else 0)


def _fail(sentence: str) -> NoReturn:
    err.print(f"Error: {sentence}", soft_wrap=True)
    sys.exit(2)
