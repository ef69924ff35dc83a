"""`gitract finetune`: learn from corrected slices."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from gitract import INTENDED_USE
from gitract.cli._common import (
    AnyDevice,
    Json,
    Key,
    Model,
    SpacingOption,
    cell,
    out,
    parse_slices,
    parse_spacing,
    print_result,
    progress_bar,
)
from gitract.errors import InputError
from gitract.progress import Progress

__all__ = ["finetune"]


def finetune(
    scan: Annotated[Path, typer.Argument(help="The scan that was corrected.")],
    labels: Annotated[Path, typer.Argument(help="Its corrected labels.")],
    slices: Annotated[
        str | None,
        typer.Option(
            help="Reviewed slices, as 40,52,63; default: those that the labels file "
            "knows to be edited or accepted."
        ),
    ] = None,
    model: Model = None,
    name: Annotated[str | None, typer.Option(help="Of the new version.")] = None,
    accept: Annotated[str, typer.Option(help="never, if-better or always.")] = "if-better",
    steps: Annotated[int | None, typer.Option(help="Most training steps.", min=1)] = None,
    device: AnyDevice = "auto",
    key: Key = None,
    spacing: SpacingOption = None,
    as_json: Json = False,
) -> None:
    """Learn from corrected slices; adopt the new version only as --accept says."""
    if accept not in ("never", "if-better", "always"):
        raise InputError(f"--accept {accept!r} is not one of never, if-better, always.")
    millimetres = parse_spacing(spacing)
    with progress_bar(as_json) as report:
        report(Progress(0, 0, "Loading the model"))
        from gitract.fine_tune import FineTuneSettings
        from gitract.io import read_scan, read_segmentation
        from gitract.remote.client import fine_tune_on
        from gitract.review import reviewed_slices

        loaded = read_scan(scan, key=key, spacing=millimetres, report=report)
        corrected = read_segmentation(labels, scan=loaded)
        chosen = parse_slices(slices) or reviewed_slices(corrected)
        settings = FineTuneSettings(steps=steps) if steps else None
        candidate = fine_tune_on(
            device, loaded, corrected, chosen, model=model, settings=settings, report=report
        )
    adopt = accept == "always" or (accept == "if-better" and candidate.card.verdict == "better")
    version = candidate.keep(name).id if adopt else None
    content = {"card": candidate.card.as_dict(), "kept": version, "intended_use": INTENDED_USE}

    def show() -> None:
        table = Table("Organ", "Dice before", "Dice after", "Slices with it")
        for row in candidate.card.rows:
            table.add_row(row.organ.title, cell(row.before), cell(row.after), str(row.slices))
        out.print(table)
        out.print(f"{candidate.card.sentence} ({candidate.card.method})", soft_wrap=True)
        out.print(f"Kept as {version}, now active." if version else "Not adopted.")

    print_result(as_json, content, show)
