"""`gitract models`: installed models and their versions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from gitract.cli._common import Device, Json, out, print_result, progress_bar
from gitract.errors import InputError
from gitract.progress import Progress

if TYPE_CHECKING:
    from gitract.models.cost import Times, ZooRow

__all__ = ["app"]

app = typer.Typer(help="Installed models and their versions.", no_args_is_help=True)


@app.command("list")
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
        out.print(table)

    print_result(as_json, rows, show)


@app.command()
def show(model: str, as_json: Json = False) -> None:
    """Print a model's card."""
    from gitract.model_store import ModelStore

    found = ModelStore().find(model)
    content = {"id": found.id, "path": str(found.path), "dice": found.dice, "card": found.card}
    print_result(as_json, content, lambda: out.print(found.card))


@app.command()
def activate(model: str) -> None:
    """Use this version when none is named."""
    from gitract.model_store import ModelStore

    out.print(f"{ModelStore().activate(model).id} is active.")


@app.command()
def restore() -> None:
    """Go back to the version that was active before."""
    from gitract.model_store import ModelStore

    out.print(f"{ModelStore().restore().id} is active.")


@app.command("import")
def import_model(folder: Path) -> None:
    """Copy a model folder into the store."""
    from gitract.model_store import ModelStore

    out.print(f"{ModelStore().import_folder(folder).id} is installed.")


@app.command()
def export(
    model: str,
    path: Annotated[Path, typer.Argument(help="A new folder, or a new .pt, .pt2 or .onnx file.")],
    form: Annotated[
        str | None,
        typer.Option(
            "--format", help="folder, torchscript, torch-export or onnx; default: by the suffix."
        ),
    ] = None,
) -> None:
    """Write a version for another program, checked to answer as it does here."""
    with progress_bar(quiet=False) as report:
        report(Progress(0, 0, "Loading the model"))
        from gitract.export import export_model

        written = export_model(model, path, format=form, report=report)
    out.print(f"Written to {written}.", soft_wrap=True)


@app.command()
def organs(
    model: str,
    rename: Annotated[
        list[str] | None, typer.Option(help="As stomach=stomach_gtv; may be given several times.")
    ] = None,
    color: Annotated[
        list[str] | None, typer.Option(help="As stomach=#d9467e; may be given several times.")
    ] = None,
    remove: Annotated[
        list[str] | None, typer.Option(help="An organ; may be given several times.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the new version.")] = None,
    as_json: Json = False,
) -> None:
    """List a model's organs; or make a version with others, whose ids stay as they are."""
    from gitract.model_store import ModelStore

    found = ModelStore().find(model)
    if rename or color or remove:
        with progress_bar(quiet=as_json) as report:
            report(Progress(0, 0, "Loading the model"))
            from gitract.model_organs import change_organs

            found = change_organs(
                model, names=_pairs(rename), colors=_pairs(color), without=remove or (), name=name
            )
    rows = [{"id": o.id, "name": o.name, "color": o.color} for o in found.organs]

    def show() -> None:
        table = Table("Id", "Organ", "Colour")
        for organ in found.organs:
            table.add_row(str(organ.id), organ.name, f"[{organ.color}]{organ.color}[/]")
        out.print(table)
        if rename or color or remove:
            out.print(f"{found.id} is active.")

    print_result(as_json, {"model": found.id, "organs": rows}, show)


def _pairs(options: "Sequence[str] | None") -> dict[str, str]:
    """``["a=b"]`` as ``{"a": "b"}``."""
    pairs = {}
    for option in options or ():
        organ, sign, value = option.partition("=")
        if not (organ and sign and value):
            raise InputError(f"{option!r} does not say which organ: give it as organ=value.")
        pairs[organ] = value
    return pairs


@app.command()
def zoo(
    measure: Annotated[
        bool, typer.Option("--measure", help="Time every network here and now: minutes on a CPU.")
    ] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """List the networks that can be trained, and what each of them costs."""
    with progress_bar(quiet=as_json) as report:
        report(Progress(0, 0, "Loading the networks"))
        from gitract.devices import choose_device
        from gitract.models.cost import Measured, timed, zoo_names, zoo_rows

        measured = Measured.read()
        if measure:
            chosen = choose_device(device)
            kind = "cpu" if chosen.type == "cpu" else "gpu"
            times = {kind: timed(zoo_names(), chosen, report)}
            measured = Measured(measured.costs, times)
        rows = zoo_rows(measured, report)
    content = {
        "networks": [row.as_dict() for row in rows],
        "times": {
            kind: {"machine": one.machine, "date": one.date} for kind, one in measured.times.items()
        },
    }
    print_result(as_json, content, lambda: _show_zoo(rows, measured.times))


def _show_zoo(rows: "Sequence[ZooRow]", times: "Mapping[str, Times]") -> None:
    from gitract.models.cost import milliseconds_told

    costs = Table("Network", "Title", box=box.SIMPLE_HEAD)
    for heading in ("Year", "Axes", "Parameters", "GMAC", "CPU, ms", "GPU, ms"):
        costs.add_column(heading, justify="right", no_wrap=True)
    sources = Table("Network", "Paper", "Licence of what is used", box=box.SIMPLE_HEAD)
    for row in rows:
        costs.add_row(
            row.name, row.facts.title, str(row.facts.year),
            ", ".join(f"{number}-D" for number in row.dimensions),
            f"{row.cost.parameters / 1e6:.2f} M", f"{row.cost.gmacs:.1f}",
            milliseconds_told(row.cpu_ms), milliseconds_told(row.gpu_ms),
        )  # fmt: skip
        sources.add_row(row.name, row.facts.paper, row.facts.licence)
    out.print(costs)
    inputs = {row.dimensions[0]: " x ".join(str(n) for n in row.shape[2:]) for row in rows}
    of = [f"a {'patch' if axes == 3 else 'slice'} of {inputs[axes]}" for axes in sorted(inputs)]
    out.print(
        f"GMAC (thousand million multiply-accumulates) and times are for {' or '.join(of)}, three "
        "organs and default options."
    )
    for kind, one in times.items():
        out.print(f"{kind.upper()}: {one.machine}, {one.date}.")
    out.print(sources)
