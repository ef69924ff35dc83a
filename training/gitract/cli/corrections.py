"""`gitract corrections`: what models have learnt from, and learn from again."""

from typing import Annotated

import typer
from rich.table import Table

from gitract.cli._common import Json, out, print_result
from gitract.errors import InputError

__all__ = ["app"]

app = typer.Typer(
    help="Corrected slices that were kept, without the patient's name, to be learnt from again.",
    no_args_is_help=True,
)


@app.command("list")
def list_corrections(as_json: Json = False) -> None:
    """List the scans whose corrections are kept."""
    from gitract.corrections import CorrectionStore

    entries = CorrectionStore().entries()
    rows = [
        {"key": one.key, "kept": one.kept, "organs": [organ.name for organ in one.organs],
         "slices": list(one.slices), "megabytes": round(one.megabytes, 1)}
        for one in entries
    ]  # fmt: skip

    def show() -> None:
        table = Table("Scan", "Kept", "Reviewed slices", "Organs", "MB")
        for one in entries:
            organs = ", ".join(organ.title.lower() for organ in one.organs)
            table.add_row(one.key, one.kept, str(len(one.slices)), organs, f"{one.megabytes:.1f}")
        out.print(table)

    print_result(as_json, rows, show)


@app.command()
def forget(
    scan: Annotated[str | None, typer.Argument(help="As listed.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
) -> None:
    """Delete kept corrections; models that have learnt from them stay as they are."""
    from gitract.corrections import CorrectionStore

    store = CorrectionStore()
    if (scan is None) is not everything:
        raise InputError("Name one scan as listed, or give --all.")
    keys = [scan] if scan is not None else [one.key for one in store.entries()]
    for key in keys:
        store.forget(key)
    out.print(f"Deleted the corrections of {len(keys)} scan{'' if len(keys) == 1 else 's'}.")
