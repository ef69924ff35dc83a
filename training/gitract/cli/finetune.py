"""`gitract finetune`: learn from corrected slices."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from gitract.progress import Progress, Report

if TYPE_CHECKING:
    from gitract.corrections import Corrections
    from gitract.fine_tune import Card

__all__ = ["finetune"]


def finetune(
    scan: Annotated[
        Path,
        typer.Argument(help="The scan that was corrected; or, alone, a folder of several."),
    ],
    labels: Annotated[
        Path | None, typer.Argument(help="Its corrected labels; none for a folder.")
    ] = None,
    slices: Annotated[
        str | None,
        typer.Option(
            help="Reviewed slices, as 40,52,63; default: those that the labels file "
            "knows to be edited or accepted."
        ),
    ] = None,
    model: Model = None,
    name: Annotated[str | None, typer.Option(help="Of the new version.")] = None,
    replay: Annotated[
        Path | None,
        typer.Option(help="A folder of labelled scans that must not be forgotten."),
    ] = None,
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
    if labels is None and (slices or key or spacing):
        raise InputError(
            "--slices, --key and --spacing are about one scan: name its labels as well."
        )
    millimetres = parse_spacing(spacing)
    faults: list[str] = []
    with progress_bar(as_json) as report:
        report(Progress(0, 0, "Loading the model"))
        from gitract.fine_tune import FineTuneSettings
        from gitract.remote.client import fine_tune_on

        if labels is None:
            corrections = _of_folder(scan, model, faults.append, report)
        else:
            corrections = [_of_scan(scan, labels, slices, key, millimetres, report)]
        candidate = fine_tune_on(
            device, corrections, model=model, replay=replay, report=report,
            settings=FineTuneSettings(steps=steps) if steps else None,
        )  # fmt: skip
    adopt = accept == "always" or (accept == "if-better" and candidate.card.verdict == "better")
    version = candidate.keep(name).id if adopt else None
    content = {
        "card": candidate.card.as_dict(),
        "kept": version,
        "left_out": faults,
        "intended_use": INTENDED_USE,
    }

    def show() -> None:
        for sentence in faults:
            out.print(f"Left out: {sentence}", soft_wrap=True)
        _show_card(candidate.card)
        out.print(f"Kept as {version}, now active." if version else "Not adopted.")

    print_result(as_json, content, show)


def _of_scan(
    scan: Path,
    labels: Path,
    slices: str | None,
    key: str | None,
    spacing: tuple[float, float, float] | None,
    report: Report,
) -> "Corrections":
    from gitract.corrections import Corrections
    from gitract.io import read_scan, read_segmentation
    from gitract.review import reviewed_slices

    loaded = read_scan(scan, key=key, spacing=spacing, report=report)
    corrected = read_segmentation(labels, scan=loaded)
    chosen = parse_slices(slices) or reviewed_slices(corrected)
    return Corrections(loaded, corrected, tuple(chosen))


def _of_folder(
    folder: Path, model: str | None, left_out: Callable[[str], None], report: Report
) -> "list[Corrections]":
    from gitract.corrected_folder import corrections_in
    from gitract.model_store import ModelStore

    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder of corrected scans: name its labels as well.")
    organs = ModelStore().find(model).organs
    return corrections_in(folder, organs, report, lambda fault: left_out(fault.sentence))


def _show_card(card: "Card") -> None:
    table = Table("Organ", "Dice", "HD95, mm", "Surface Dice", "Volume, mL", "Slices with it")
    for row in card.rows:
        table.add_row(
            row.organ.title,
            _change(row.before, row.after, 3),
            _change(row.hd95_before, row.hd95_after, 1),
            _change(row.surface_before, row.surface_after, 3),
            f"{row.ml_before:.0f} > {row.ml_after:.0f} of {row.ml:.0f}",
            str(row.slices),
        )
    out.print(table)
    out.print(f"{card.sentence} ({card.method})", soft_wrap=True)
    for one in card.retention:
        if one.before is None:
            text = f"as drawn before: {cell(one.after)}"
        else:
            text = f"mean Dice {cell(one.before)} > {cell(one.after)}"
        out.print(f"{one.where.capitalize()} ({one.slices} slices): {text}", soft_wrap=True)


def _change(before: float | None, after: float | None, digits: int) -> str:
    return " > ".join("–" if v is None else f"{v:.{digits}f}" for v in (before, after))
