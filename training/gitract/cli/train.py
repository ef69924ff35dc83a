"""`gitract train`: from a folder of scans to a model with numbers and a card."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from gitract.cli._common import Device, Json, cell, out, print_result, progress_bar
from gitract.errors import InputError
from gitract.progress import Progress

if TYPE_CHECKING:
    from gitract.train import TrainingResult

__all__ = ["train"]


def train(
    data: Annotated[
        Path,
        typer.Option(
            help="The competition's folder, or any folder of scans with contours; the "
            "recipe's sources are below it."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder of the run.")
    ] = None,
    config: Annotated[
        str,
        typer.Option(
            help="Recipe: a YAML file, or unet-light, unet-strong, segresnet-3d, gi-tract-small."
        ),
    ] = "unet-light",
    name: Annotated[
        str | None, typer.Option(help="Id of the model; default: the recipe's.")
    ] = None,
    hold_out: Annotated[
        str | None, typer.Option(help="Patients to test on only, as case20,case6.")
    ] = None,
    folds: Annotated[
        int | None, typer.Option(help="Cross-validate by patient, in so many folds.", min=2)
    ] = None,
    split: Annotated[
        Path | None, typer.Option(help="Cross-validate on these folds: a split.yaml.")
    ] = None,
    final: Annotated[
        str,
        typer.Option(
            help="After the folds, the model is their ensemble, or trained once more on everyone."
        ),
    ] = "ensemble",
    start: Annotated[
        Path | None, typer.Option(help="Weights to start from: a model folder or .safetensors.")
    ] = None,
    device: Device = "auto",
    devices: Annotated[
        int, typer.Option(help="GPUs of this machine, or processes on a CPU.", min=1)
    ] = 1,
    num_nodes: Annotated[int, typer.Option(help="Machines.", min=1)] = 1,
    workers: Annotated[
        int | None, typer.Option(help="Processes that prepare batches for each GPU.", min=0)
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for prepared scans; default: the user's.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only report what the data is; train nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a network and write a model folder with its numbers and a card.

    Before the training comes a report of the data. Held-out patients are only tested on.
    """
    if final not in ("ensemble", "everyone"):
        raise InputError(f"--final {final!r} is not one of ensemble, everyone.")
    if folds is not None and split is not None:
        raise InputError("Give either --folds or --split: a split says how many folds there are.")
    if hold_out and (folds or split):
        raise InputError("Give either --hold-out or folds: each fold holds its own patients out.")
    if output is None and not check:
        raise InputError("Say where the run goes: --output FOLDER.")
    with progress_bar(as_json) as report:
        report(Progress(0, 0, "Loading"))
        from gitract.cross_validation import SPLIT_FILE, cross_validate, make_split, read_split
        from gitract.devices import choose_device
        from gitract.engine import is_first_process, last_checkpoint
        from gitract.recipe import read_recipe, recipe_file
        from gitract.train import Machines, check_network, check_output, load_training_data
        from gitract.train import train as train_once

        recipe = read_recipe(recipe_file(config))
        choose_device(device)  # what can be said at once is said before the data is read
        if output is not None:
            begun = output / SPLIT_FILE if folds or split else last_checkpoint(output)
            if is_first_process():
                check_output(output, begun, resume=resume)
        if name is not None:
            recipe = recipe.renamed(name)
        check_network(recipe)
        if start is not None:
            recipe = recipe.model_copy(update={"start": str(start.resolve())})
        loaded = load_training_data(recipe, data, cache=cache, report=report)
        if is_first_process() and not as_json:
            for line in loaded.report.lines():
                out.print(line)
        if check or output is None:
            print_result(as_json, loaded.report.as_dict(), lambda: None)
            return
        shared: dict[str, Any] = {
            "output": output,
            "machines": Machines(device, devices, num_nodes, workers),
            "resume": resume,
            "report": report,
        }
        chosen = read_split(split) if split else make_split(loaded.stacks, folds) if folds else None
        if chosen is not None:
            result = cross_validate(recipe, loaded, chosen, final=final, **shared)  # type: ignore[arg-type]
        else:
            patients = hold_out.split(",") if hold_out else ()
            result = train_once(recipe, loaded, hold_out=patients, **shared)
    if is_first_process():
        content = {
            "model": str(result.model),
            "data": loaded.report.as_dict(),
            "held_out": result.evaluation.as_dict() if result.evaluation else None,
        }
        print_result(as_json, content, lambda: _show(result))


def _show(result: "TrainingResult") -> None:
    if result.evaluation is not None:
        table = Table("Held out", "Organ", "3-D Dice", "HD95, mm", "mL", "true mL")
        for row in result.evaluation.scores:
            table.add_row(
                row.scan, row.organ, cell(row.dice), cell(row.hd95_mm),
                f"{row.volume_ml:.0f}", f"{row.true_volume_ml:.0f}",
            )  # fmt: skip
        out.print(table)
        means = ", ".join(f"{o} {value:.3f}" for o, value in result.evaluation.mean_dice.items())
        out.print(f"Mean Dice over patients: {means}.")
    out.print(f"Model written to {result.model}.", soft_wrap=True)
