"""`gitract models`: installed models and their versions."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from gitract.cli._common import Json, out, print_result, progress_bar
from gitract.progress import Progress

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
