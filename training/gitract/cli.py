"""`gitract`: everything that the window does, on the command line.

Exit codes: 0 done, 2 bad input (one line on standard error says what), 130 cancelled.
Commands import what they need when they run, so that ``gitract --help`` is quick.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar
from rich.table import Table

from gitract import INTENDED_USE
from gitract.errors import Cancelled, GitractError, InputError
from gitract.progress import Progress, Report

__all__ = ["app", "main"]

app = typer.Typer(
    help=f"Outline stomach and bowel on abdominal MR scans. {INTENDED_USE}",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
models_app = typer.Typer(help="Installed models and their versions.", no_args_is_help=True)
app.add_typer(models_app, name="models")

# Paths may hold brackets, which are no markup.
_out = Console(highlight=False, markup=False)
_err = Console(stderr=True, highlight=False, markup=False)

Model = Annotated[
    str | None, typer.Option("--model", "-m", help="Model id or folder; default: the active one.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
SpacingOption = Annotated[
    str | None,
    typer.Option(help="Slice, row and column spacing in mm, as 3,1.5,1.5, where a file has none."),
]
# Typer brings its own copy of click or the real one, by its version.
_USAGE_ERROR: Any = typer.BadParameter.__mro__[2]
_CANCELLED = "Cancelled: nothing was kept."


def main() -> None:
    """Entry point: run a command, turn its errors into one line and an exit code."""
    try:
        result = app(standalone_mode=False)
    except GitractError as error:
        _fail(str(error))
    except _USAGE_ERROR as error:  # unknown option, missing argument
        _fail(error.format_message())
    except (Cancelled, KeyboardInterrupt, typer.Abort) as ended:
        _err.print(str(ended) or _CANCELLED, soft_wrap=True)
        sys.exit(130)
    except OSError as error:
        _fail(f"{error.filename or 'A file'}: {error.strerror or error}.")
    if result == 130:  # some versions of Typer turn Ctrl+C into it without a word
        _err.print(_CANCELLED)
    sys.exit(result if isinstance(result, int) else 0)


def _fail(sentence: str) -> NoReturn:
    _err.print(f"Error: {sentence}", soft_wrap=True)
    sys.exit(2)


@contextmanager
def _progress(quiet: bool) -> Iterator[Report]:
    """A progress bar on standard error, and the report that moves it."""
    text = TextColumn("{task.description}", markup=False)
    columns = (text, BarColumn(), TimeElapsedColumn())
    with ProgressBar(*columns, console=_err, transient=True, disable=quiet) as bar:
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


def _print(as_json: bool, content: Any, show: Callable[[], None]) -> None:
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
            slices += range(int(first), int(last)) if colon else [int(first)]
        except ValueError:
            raise InputError(f"Slices {text!r} are not like 40:60 or 40,52,63.") from None
    if not slices:
        raise InputError(f"Slices {text!r} hold no slice: the second number is not included.")
    return slices


def _parse_spacing(text: str | None) -> tuple[float, float, float] | None:
    if text is None:
        return None
    try:
        slice_mm, row_mm, column_mm = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"Spacing {text!r} is not three numbers in mm, as 3,1.5,1.5.") from None
    return slice_mm, row_mm, column_mm


@app.command()
def segment(
    scan: Annotated[Path, typer.Argument(help="Folder of slices, or TIFF stack.")],
    output: Annotated[Path, typer.Option("-o", "--output", help=".tif, .csv or a .png/ folder.")],
    model: Model = None,
    device: Device = "auto",
    slices: Annotated[
        str | None, typer.Option(help="0-based, as 40:60 or 40,52,63; default: all.")
    ] = None,
    spacing: SpacingOption = None,
    as_json: Json = False,
) -> None:
    """Outline the organs of a scan."""
    chosen, millimetres = parse_slices(slices), _parse_spacing(spacing)
    with _progress(as_json) as report:
        report(Progress(0, 0, "Loading the model"))
        from gitract.io import check_output, read_scan, write_segmentation

        check_output(output)
        from gitract.predict import Segmenter

        loaded = read_scan(scan, spacing=millimetres, report=report)
        segmenter = Segmenter(model, device=device)
        found = segmenter.segment(loaded, slices=chosen, report=report)
        written = write_segmentation(found, output)
    content = {
        "output": str(written),
        "model": segmenter.model.id,
        "device": segmenter.device,
        "shape": found.shape,
        "spacing_mm": found.spacing,
        "volumes_ml": found.volumes_ml,
        "overlap_voxels": found.labels().overlap_voxels,
        "intended_use": INTENDED_USE,
    }

    def show() -> None:
        table = Table("Organ", "Volume (mL)")
        for organ in found.organs:
            table.add_row(organ.title, f"{found.volumes_ml[organ.name]:.1f}")
        _out.print(table)
        _out.print(f"Written to {written} with {segmenter.model.id}.", soft_wrap=True)
        _out.print(INTENDED_USE)

    _print(as_json, content, show)


@app.command()
def finetune(
    scan: Annotated[Path, typer.Argument(help="The scan that was corrected.")],
    labels: Annotated[Path, typer.Argument(help="Its corrected labels, a TIFF.")],
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
    spacing: SpacingOption = None,
    as_json: Json = False,
) -> None:
    """Learn from corrected slices; adopt the new version only as --accept says."""
    if accept not in ("never", "if-better", "always"):
        raise InputError(f"--accept {accept!r} is not one of never, if-better, always.")
    millimetres = _parse_spacing(spacing)
    with _progress(as_json) as report:
        report(Progress(0, 0, "Loading the model"))
        from gitract.fine_tune import FineTuneSettings, fine_tune
        from gitract.io import read_scan, read_segmentation
        from gitract.review import reviewed_slices

        loaded = read_scan(scan, spacing=millimetres, report=report)
        corrected = read_segmentation(labels, spacing=millimetres)
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
            table.add_row(row.organ.title, _cell(row.before), _cell(row.after), str(row.slices))
        _out.print(table)
        _out.print(f"{candidate.card.sentence} ({candidate.card.method})", soft_wrap=True)
        _out.print(f"Kept as {version}, now active." if version else "Not adopted.")

    _print(as_json, content, show)


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


@app.command()
def evaluate(
    data: Annotated[Path, typer.Option(help="Folder in the competition's layout.")],
    model: Model = None,
    cases: Annotated[str | None, typer.Option(help="As case20,case16_day0; default: all.")] = None,
    device: Device = "auto",
    output: Annotated[Path | None, typer.Option("--json-file", help="Also write JSON.")] = None,
    as_json: Json = False,
) -> None:
    """Score a model on labelled scans, by patient and organ."""
    with _progress(as_json) as report:
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
                s.scan, str(s.slices), s.organ, _cell(s.dice), _cell(s.slice_dice),
                f"{s.volume_ml:.0f}", f"{s.true_volume_ml:.0f}",
            )  # fmt: skip
        _out.print(table)
        means = ", ".join(f"{organ} {value:.3f}" for organ, value in content["mean_dice"].items())  # type: ignore[attr-defined]
        _out.print(f"Mean over patients: {means}.")

    _print(as_json, content, show)


@app.command()
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
    with _progress(as_json) as report:
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
            cells = ", ".join(f"{organ} {_cell(value)}" for organ, value in score.dice.items())
            _out.print(f"{score.name}: {cells}")
        _out.print(f"Model written to {result.model}.", soft_wrap=True)

    _print(as_json, content, show)


@app.command()
def info(
    scan: Annotated[Path, typer.Argument(help="Folder of slices, or TIFF stack.")],
    spacing: SpacingOption = None,
    as_json: Json = False,
) -> None:
    """Say what was understood of a scan."""
    from gitract.io import read_reference, read_scan

    loaded = read_scan(scan, spacing=_parse_spacing(spacing))
    reference = read_reference(scan)
    content = {
        "name": loaded.name,
        "shape": loaded.shape,
        "spacing_mm": loaded.spacing,
        "type": str(loaded.voxels.dtype),
        "range": [loaded.voxels.min().item(), loaded.voxels.max().item()],
        "reference_volumes_ml": {name: round(ml, 1) for name, ml in reference.volumes_ml.items()}
        if reference
        else None,
    }

    def show() -> None:
        table = Table(show_header=False)
        for key, value in content.items():
            table.add_row(key.replace("_", " "), str(value))
        _out.print(table)

    _print(as_json, content, show)


@app.command()
def phantom(
    folder: Annotated[Path, typer.Argument(help="Gets train/ and train.csv.")],
    slices: Annotated[int, typer.Option(min=1)] = 48,
    rows: Annotated[int, typer.Option(min=32)] = 144,
    columns: Annotated[int, typer.Option(min=32)] = 176,
    seed: int = 0,
) -> None:
    """Write a scan made by code, with its contours, to try everything on."""
    from gitract.phantom import abdomen, write_day

    scan, truth = abdomen((slices, rows, columns), seed=seed)
    if (folder / "train" / "case0" / scan.name).exists():
        raise InputError(f"{folder} holds {scan.name} already: choose another folder.")
    _out.print(str(write_day(folder, scan, truth)), soft_wrap=True)


@models_app.command("list")
def list_models(as_json: Json = False) -> None:
    """List the installed versions."""
    from gitract.model_store import ModelStore

    store = ModelStore()
    active = store.active().id
    rows = [
        {"id": m.id, "active": m.id == active, "created": m.created, "parent": m.parent,
         "dice": m.dice}
        for m in store.models()
    ]  # fmt: skip

    def show() -> None:
        table = Table("", "Model", "Created", "From", "Held-out Dice")
        for m in store.models():
            dice = ", ".join(f"{organ} {value:.2f}" for organ, value in m.dice.items())
            mark = "active" if m.id == active else ""
            table.add_row(mark, m.id, m.created[:16], m.parent or "", dice)
        _out.print(table)

    _print(as_json, rows, show)


@models_app.command()
def show(model: str, as_json: Json = False) -> None:
    """Print a model's card."""
    from gitract.model_store import ModelStore

    found = ModelStore().find(model)
    content = {"id": found.id, "path": str(found.path), "dice": found.dice, "card": found.card}
    _print(as_json, content, lambda: _out.print(found.card))


@models_app.command()
def activate(model: str) -> None:
    """Use this version when none is named."""
    from gitract.model_store import ModelStore

    _out.print(f"{ModelStore().activate(model).id} is active.")


@models_app.command()
def restore() -> None:
    """Go back to the version that was active before."""
    from gitract.model_store import ModelStore

    _out.print(f"{ModelStore().restore().id} is active.")


@models_app.command("import")
def import_model(folder: Path) -> None:
    """Copy a model folder into the store."""
    from gitract.model_store import ModelStore

    _out.print(f"{ModelStore().import_folder(folder).id} is installed.")


@models_app.command()
def export(model: str, folder: Path) -> None:
    """Copy a version to a new folder."""
    from gitract.model_store import ModelStore

    _out.print(f"Written to {ModelStore().export(model, folder)}.", soft_wrap=True)


if __name__ == "__main__":
    main()
