"""`gitract models`: installed models and their versions."""

from pathlib import Path

import typer
from rich.table import Table

from gitract.cli._common import Json, out, print_result

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
def export(model: str, folder: Path) -> None:
    """Copy a version to a new folder."""
    from gitract.model_store import ModelStore

    out.print(f"Written to {ModelStore().export(model, folder)}.", soft_wrap=True)
