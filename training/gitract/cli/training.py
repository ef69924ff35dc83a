"""`gitract finetune`, `evaluate` and `train`."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from gitract import INTENDED_USE
from gitract.cli._common import (
    Device,
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

__all__ = ["evaluate", "finetune", "train"]


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
    device: Device = "auto",
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
        from gitract.fine_tune import FineTuneSettings, fine_tune
        from gitract.io import read_scan, read_segmentation
        from gitract.review import reviewed_slices

        loaded = read_scan(scan, key=key, spacing=millimetres, report=report)
        corrected = read_segmentation(labels, scan=loaded)
        chosen = parse_slices(slices) or reviewed_slices(corrected)
        settings = FineTuneSettings(steps=steps) if steps else None
        candidate = fine_tune(
            loaded, corrected, chosen, model=model, device=device, settings=settings, report=report
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


def evaluate(
    data: Annotated[Path, typer.Option(help="Folder in the competition's layout.")],
    model: Model = None,
    cases: Annotated[str | None, typer.Option(help="As case20,case16_day0; default: all.")] = None,
    device: Device = "auto",
    output: Annotated[Path | None, typer.Option("--json-file", help="Also write JSON.")] = None,
    as_json: Json = False,
) -> None:
    """Score a model on labelled scans, by patient and organ."""
    with progress_bar(as_json) as report:
        report(Progress(0, 0, "Loading the model"))
        from gitract.evaluate import evaluate as score
        from gitract.evaluate import mean_by_organ
        from gitract.predict import Segmenter

        segmenter = Segmenter(model, device=device)
        chosen = cases.split(",") if cases else None
        scores = score(segmenter, data, cases=chosen, report=report)
    content = {
        "model": segmenter.model.id,
        "mean_dice": mean_by_organ(scores),
        "scores": [row.as_dict() for row in scores],
    }
    if output is not None:
        output.write_text(json.dumps(content, indent=2), encoding="utf-8")

    def show() -> None:
        table = Table("Scan", "Slices", "Organ", "3-D Dice", "Slice Dice", "mL", "true mL")
        for s in scores:
            table.add_row(
                s.scan, str(s.slices), s.organ, cell(s.dice), cell(s.slice_dice),
                f"{s.volume_ml:.0f}", f"{s.true_volume_ml:.0f}",
            )  # fmt: skip
        out.print(table)
        means = ", ".join(f"{organ} {value:.3f}" for organ, value in content["mean_dice"].items())  # type: ignore[attr-defined]
        out.print(f"Mean over patients: {means}.")

    print_result(as_json, content, show)


def train(
    config: Annotated[Path, typer.Option(help="Recipe, YAML.")],
    data: Annotated[Path, typer.Option(help="Folder that the recipe's sources are below.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the run.")],
    hold_out: Annotated[
        str | None, typer.Option(help="Patients to validate on only, as case20,case6.")
    ] = None,
    device: Device = "auto",
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint.")] = False,
    as_json: Json = False,
) -> None:
    """Train a network from a recipe and write a model folder."""
    with progress_bar(as_json) as report:
        report(Progress(0, 0, "Loading"))
        from gitract.recipe import read_recipe
        from gitract.train import train as run

        result = run(
            read_recipe(config),
            data=data,
            output=output,
            hold_out=hold_out.split(",") if hold_out else (),
            device=device,
            resume=resume,
            report=report,
        )
    scores = [{"scan": s.name, "patient": s.patient, "dice": s.dice} for s in result.scores]
    content = {"model": str(result.model), "held_out": scores}

    def show() -> None:
        for score in result.scores:
            cells = ", ".join(f"{organ} {cell(value)}" for organ, value in score.dice.items())
            out.print(f"{score.name}: {cells}")
        out.print(f"Model written to {result.model}.", soft_wrap=True)

    print_result(as_json, content, show)
