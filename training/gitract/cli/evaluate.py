"""`gitract evaluate`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich import box
from rich.table import Table

from gitract import INTENDED_USE
from gitract.cli._asking import (
    Holes,
    Hysteresis,
    Islands,
    Mirror,
    Models,
    OnePart,
    Thresholds,
    Tidy,
    Tta,
    asked_decision,
    asked_views,
)
from gitract.cli._common import Device, Json, cell, out, print_result, progress_bar
from gitract.errors import InputError
from gitract.progress import Progress

if TYPE_CHECKING:
    from gitract.evaluation import Evaluation, Mean, Metric

__all__ = ["evaluate"]


def evaluate(
    data: Annotated[Path, typer.Option(help="Folder of labelled scans.")],
    model: Models = None,
    cases: Annotated[
        str | None, typer.Option(help="Patients or scans, as case20,case16_day0; default: all.")
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(help="Recipe whose sources tell what is in the folder; default: found out."),
    ] = None,
    device: Device = "auto",
    tta: Tta = False,
    mirror: Mirror = False,
    tidy: Tidy = False,
    threshold: Thresholds = None,
    hysteresis: Hysteresis = None,
    smallest_ml: Islands = None,
    largest_hole_mm2: Holes = None,
    one_part: OnePart = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Also write a report, HTML.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option(help="Also write everything as JSON.")] = None,
    curves: Annotated[
        Path | None, typer.Option(help="log/metrics.csv of the training, for the report.")
    ] = None,
    reading: Annotated[
        str, typer.Option(help="Of the competition's rules: A (each organ) or B (all as one).")
    ] = "A",
    as_json: Json = False,
) -> None:
    """Score a model on labelled scans, by patient and organ."""
    chosen_reading = _reading(reading)
    decision = asked_decision(tidy, threshold, hysteresis, smallest_ml, largest_hole_mm2, one_part)
    for path in (output, json_file):
        _check_file(path)
    with progress_bar(as_json) as report:
        report(Progress(0, 0, "Loading the model"))
        from gitract.evaluate import evaluate as score
        from gitract.predict import Segmenter
        from gitract.recipe import read_recipe, recipe_file
        from gitract.replacing import replaced_file
        from gitract.report import read_curves, write_report

        if curves is not None:
            read_curves(curves)  # before the work
        segmenter = Segmenter(
            model, device=device, decision=decision, views=asked_views(tta, mirror)
        )
        chosen = [case.strip() for case in cases.split(",")] if cases else None
        sources = read_recipe(recipe_file(config)).sources if config else ()
        evaluation = score(segmenter, data, cases=chosen, sources=sources, report=report)
        content = evaluation.as_dict(chosen_reading) | {"intended_use": INTENDED_USE}
        if json_file is not None:
            with replaced_file(json_file) as partial:
                partial.write_text(json.dumps(content, indent=2), encoding="utf-8")
        if output is not None:
            write_report(
                evaluation, output, data=data.resolve().name, reading=chosen_reading,
                curves=curves, report=report,
            )  # fmt: skip

    def show() -> None:
        _show(evaluation, chosen_reading)
        if output is not None:
            out.print(f"Report written to {output}.", soft_wrap=True)

    print_result(as_json, content, show)


def _reading(text: str) -> Literal["A", "B"]:
    if text == "A":
        return "A"
    if text == "B":
        return "B"
    raise InputError(f"--reading {text!r} is neither A nor B.")


def _check_file(path: Path | None) -> None:
    """Refuse before the work what could not be written after it."""
    from gitract.replacing import check_target

    if path is not None:
        check_target(path)
        if path.is_dir():
            raise InputError(f"{path} is a folder: choose a file name that is free.")


# --- terminal ---------------------------------------------------------------------------


_SCANS_NOTE = (
    "slice: mean of the slices' Dice; HD95 in mm; 2 mm: surface Dice; mL: volume found, and true;\n"
    "miss, inv: slices with the organ in truth alone, and in the prediction alone."
)
_SUMMARY_NOTE = "Mean over patients, in brackets its 95 % interval where there are at least three."


def _show(evaluation: "Evaluation", reading: Literal["A", "B"]) -> None:
    out.print(_scans(evaluation))
    out.print(_SCANS_NOTE, soft_wrap=True)
    out.print(_summary(evaluation))
    out.print(_SUMMARY_NOTE, soft_wrap=True)
    score = evaluation.competition(reading)
    if score is not None:
        interval = score.interval and f" ({score.interval.low:.3f} to {score.interval.high:.3f})"
        out.print(
            f"Score of the competition, reading {reading}: {score.score:.3f}{interval or ''}, "
            f"of Dice {score.dice:.3f} and Hausdorff distance {score.hausdorff:.3f}.",
            soft_wrap=True,
        )
    for remark in (*evaluation.remarks, INTENDED_USE):
        out.print(remark, soft_wrap=True)


def _scans(evaluation: "Evaluation") -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("Scan", no_wrap=True)
    table.add_column("Organ", no_wrap=True, min_width=11)
    for title in ("Dice", "slice", "HD95", "2 mm", "mL", "true", "miss", "inv"):
        table.add_column(title, justify="right")
    before = ""
    for s in evaluation.scores:
        table.add_row(
            "" if s.scan == before else s.scan, s.organ, cell(s.dice), cell(s.slice_dice),
            "–" if s.hd95_mm is None else f"{s.hd95_mm:.1f}", cell(s.surface_dice_2mm),
            f"{s.volume_ml:.0f}", f"{s.true_volume_ml:.0f}",
            str(s.missed_slices), str(s.invented_slices),
        )  # fmt: skip
        before = s.scan
    return table


def _summary(evaluation: "Evaluation") -> Table:
    from gitract.evaluation import ALL_ORGANS, METRICS

    summary = evaluation.summary()
    table = Table("Mean", box=box.SIMPLE_HEAD, padding=0)
    for key in summary:
        title = "all organs" if key == ALL_ORGANS else key
        table.add_column(title, justify="right")
    for metric in METRICS:
        cells = (_mean(means[metric.name], metric) for means in summary.values())
        table.add_row(metric.title, *cells)
    return table


def _mean(mean: "Mean | None", metric: "Metric") -> str:
    if mean is None:
        return "–"
    text = f"{mean.value:.{metric.decimals}f}"
    if mean.interval is not None:
        low, high = (f"{end:.{metric.decimals}f}" for end in mean.interval)
        text += f" ({low}–{high})"
    return text
