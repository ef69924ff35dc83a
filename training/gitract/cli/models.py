"""`gitract models`: installed models and their versions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from gitract.cli._common import (
    Device,
    Json,
    Key,
    SpacingOption,
    cell,
    out,
    parse_slices,
    parse_spacing,
    print_result,
    progress_bar,
)
from gitract.errors import Cancelled, InputError
from gitract.progress import Progress

if TYPE_CHECKING:
    from gitract.model_comparison import Agreement, Comparison
    from gitract.models.cost import Times, ZooRow

__all__ = ["app"]

app = typer.Typer(help="Installed models and their versions.", no_args_is_help=True)

From = Annotated[
    str | None,
    typer.Option(
        "--from", help="Address or folder of a catalogue of models; default: GITRACT_MODELS."
    ),
]


@app.command("list")
def list_models(as_json: Json = False) -> None:
    """List the installed versions."""
    from gitract.model_config import to_the_minute
    from gitract.model_folder import megabytes
    from gitract.model_store import ModelStore

    store = ModelStore()
    active = store.active().id
    rows = [
        {"id": m.id, "active": m.id == active, "created": m.created, "parent": m.parent,
         "dice": m.dice, "bytes": m.size}
        for m in store.models()
    ]  # fmt: skip

    def show() -> None:
        table = Table("", "Model", "Created", "From", "Held-out Dice", "Size")
        for m in store.models():
            dice = ", ".join(f"{organ} {value:.2f}" for organ, value in m.dice.items())
            mark = "active" if m.id == active else ""
            made = to_the_minute(m.created)
            table.add_row(mark, m.id, made, m.parent or "", dice, megabytes(m.size))
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
def import_model(
    path: Annotated[Path, typer.Argument(help="A model folder, or a .zip archive of one.")],
    name: Annotated[
        str | None,
        typer.Option(help="What to call it here: models of one recipe have the same name."),
    ] = None,
) -> None:
    """Copy a model into the store."""
    from gitract.model_store import ModelStore

    with progress_bar(quiet=False) as report:
        info = ModelStore().import_model(path, report, name=name)
    out.print(f"{info.id} is installed.")


@app.command()
def delete(
    model: str,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a version for good; not the active one."""
    from gitract.model_store import ModelStore

    store = ModelStore()
    question = store.deletion_question(model)
    if not (yes or typer.confirm(question)):
        raise Cancelled(f"{model} was not deleted.")
    below = store.delete(model)
    out.print(f"{model} is deleted.")
    if below:
        named = ", ".join(info.id for info in below)
        out.print(f"What was fine-tuned from it stays: {named}.", soft_wrap=True)


@app.command()
def available(source: From = None, as_json: Json = False) -> None:
    """List the models of a catalogue, which `download` installs."""
    from gitract.model_catalogue import read_catalogue
    from gitract.model_folder import megabytes
    from gitract.model_store import ModelStore

    catalogue = read_catalogue(source)
    installed = {info.id for info in ModelStore().models()}
    rows = [
        {"id": o.id, "title": o.title, "installed": o.id in installed, "bytes": o.bytes,
         "summary": o.summary, "licence": o.licence, "place": catalogue.place_of(o),
         "sha256": o.sha256}
        for o in catalogue.offers
    ]  # fmt: skip

    def show() -> None:
        table = Table("", "Model", "Size", "Licence", "What it is for")
        for o in catalogue.offers:
            mark = "installed" if o.id in installed else ""
            table.add_row(mark, o.id, megabytes(o.bytes), o.licence, o.summary or o.title)
        out.print(table)

    print_result(as_json, rows, show)


@app.command()
def download(
    name: Annotated[
        str, typer.Argument(help="A model of the catalogue; or the address of a .zip archive.")
    ],
    source: From = None,
    sha256: Annotated[
        str | None, typer.Option(help="Of the archive; needed where an address is given.")
    ] = None,
) -> None:
    """Download a model and install it; a download that was cut off goes on."""
    from gitract.model_catalogue import read_catalogue
    from gitract.model_download import download_model

    with progress_bar(quiet=False) as report:
        try:
            report(Progress(0, 0, "Connecting"))
            if sha256 is not None or "://" in name:
                info = download_model(name, sha256=sha256, report=report)
            else:
                catalogue = read_catalogue(source)
                offer = catalogue.find(name)
                place = catalogue.place_of(offer)
                info = download_model(place, sha256=offer.sha256, model=offer.id, report=report)
        except KeyboardInterrupt:
            raise Cancelled("Cancelled: the same command goes on with what has arrived.") from None
    out.print(f"{info.id} is installed; `gitract models activate {info.id}` uses it.")


@app.command()
def compare(
    scan: Path,
    first: Annotated[str, typer.Argument(help="Model id or folder.")],
    second: Annotated[str, typer.Argument(help="Model id or folder.")],
    labels: Annotated[
        Path | None, typer.Option(help="Contours that are held for right: a reference.")
    ] = None,
    device: Device = "auto",
    slices: Annotated[
        str | None, typer.Option(help="0-based, as 40:60 or 40,52,63; default: all.")
    ] = None,
    key: Key = None,
    spacing: SpacingOption = None,
    as_json: Json = False,
) -> None:
    """Segment a scan with two models, and tell how far they agree."""
    chosen, millimetres = parse_slices(slices), parse_spacing(spacing)
    with progress_bar(as_json) as report:
        report(Progress(0, 0, "Loading the models"))
        from gitract.io import read_scan, read_segmentation
        from gitract.model_comparison import compare as compare_models

        loaded = read_scan(scan, key=key, spacing=millimetres, report=report)
        reference = None if labels is None else read_segmentation(labels, scan=loaded)
        found = compare_models(
            loaded, first, second, reference, device=device, slices=chosen, report=report
        )
    content = {"scan": loaded.name, **found.as_dict()}
    print_result(as_json, content, lambda: _show_comparison(found, reference is not None))


def _show_comparison(found: "Comparison", with_reference: bool) -> None:
    names = [model.info.id for model in found.models]
    table = Table("Organ", *(f"{name}, mL" for name in names), "Dice between", "HD95, mm")
    for row in found.rows:
        volumes = [_told(volume, 1) for volume in row.volumes_ml]
        table.add_row(row.organ.title, *volumes, *_told_agreement(row.between))
    out.print(table)
    if with_reference:
        table = Table("Against the reference", "Volume, mL")
        for name in names:
            table.add_column(f"{name}, Dice")
            table.add_column("HD95, mm")
        for row in found.rows:
            near = [text for one in row.against_reference for text in _told_agreement(one)]
            table.add_row(row.organ.title, _told(row.reference_ml, 1), *near)
        out.print(table)
    for model in found.models:
        out.print(f"{model.info.id} took {model.seconds:.1f} s for {len(found.slices)} slices.")


def _told_agreement(agreement: "Agreement | None") -> tuple[str, str]:
    if agreement is None:
        return "–", "–"
    return cell(agreement.dice), _told(agreement.hd95_mm, 1)


def _told(value: float | None, decimals: int) -> str:
    return "–" if value is None else f"{value:.{decimals}f}"


@app.command()
def export(
    model: str,
    path: Annotated[
        Path, typer.Argument(help="A new folder, or a new .zip, .pt, .pt2 or .onnx file.")
    ],
    form: Annotated[
        str | None,
        typer.Option(
            "--format", help="folder, torchscript, torch-export or onnx; default: by the suffix."
        ),
    ] = None,
) -> None:
    """Write a version for another program, checked to answer as it does here."""
    if form is None and path.suffix.lower() == ".zip":
        _export_archive(model, path)
        return
    with progress_bar(quiet=False) as report:
        report(Progress(0, 0, "Loading the model"))
        from gitract.export import export_model

        written = export_model(model, path, format=form, report=report)
    out.print(f"Written to {written}.", soft_wrap=True)


def _export_archive(model: str, path: Path) -> None:
    """Write an archive, and print what a catalogue says of it."""
    import hashlib

    from gitract.model_store import ModelStore

    written = ModelStore().export(model, path)
    with written.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    out.print(f"Written to {written}.", soft_wrap=True)
    out.print(f"{written.stat().st_size} bytes, SHA-256 {digest}", soft_wrap=True)


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

    # A name is what a recipe needs: no screen is too narrow for the whole of it.
    costs, sources = Table(box=box.SIMPLE_HEAD), Table(box=box.SIMPLE_HEAD)
    for table in (costs, sources):
        table.add_column("Network", no_wrap=True)
    for heading in ("Year", "Axes", "Parameters", "GMAC", "CPU, ms", "GPU, ms"):
        costs.add_column(heading, justify="right", no_wrap=True)
    for heading in ("Title", "Paper", "Licence of what is used"):
        sources.add_column(heading, overflow="fold")
    for row in rows:
        costs.add_row(
            row.name, str(row.facts.year),
            ", ".join(f"{number}-D" for number in row.dimensions),
            f"{row.cost.parameters / 1e6:.2f} M", f"{row.cost.gmacs:.1f}",
            milliseconds_told(row.cpu_ms), milliseconds_told(row.gpu_ms),
        )  # fmt: skip
        sources.add_row(row.name, row.facts.title, row.facts.paper, row.facts.licence)
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
