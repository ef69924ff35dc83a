"""`gitract serve` on a machine with a GPU, and `gitract servers` on those that use it."""

import os
import secrets
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from gitract import INTENDED_USE
from gitract.cli._common import Device, Json, err, out, print_result
from gitract.errors import InputError

__all__ = ["serve", "servers"]

_TOKEN = "GITRACT_TOKEN"  # noqa: S105 - its name


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8765,
    device: Device = "auto",
    token_file: Annotated[
        Path | None,
        typer.Option(help=f"File with the token; default: ${_TOKEN}, or a new one is printed."),
    ] = None,
    certificate: Annotated[Path | None, typer.Option(help="For https: PEM file.")] = None,
    key: Annotated[Path | None, typer.Option(help="For https: its private key, PEM.")] = None,
    most_mb: Annotated[int, typer.Option(help="Largest message taken.", min=1)] = 512,
) -> None:
    """Segment and fine-tune for other machines; needs the extra `serve`."""
    if (certificate is None) != (key is None):
        raise InputError("https needs both --certificate and --key.")
    for path in (certificate, key):
        if path is not None and not path.is_file():
            raise InputError(f"{path} does not exist.")
    token, told = _token(token_file)
    try:
        import uvicorn

        from gitract.remote.server import create_app
    except ImportError as error:
        raise InputError(
            "Serving needs the libraries fastapi and uvicorn: pip install 'napari-gitract[serve]'."
        ) from error
    from gitract.devices import choose_device
    from gitract.remote.work import Workshop

    chosen = str(choose_device(device))
    scheme = "https" if certificate else "http"
    err.print(f"Serving on {scheme}://{host}:{port} with {chosen}. {INTENDED_USE}", soft_wrap=True)
    if not certificate and host not in ("127.0.0.1", "localhost", "::1"):
        err.print(
            "Without --certificate everybody on the way can read the scans: put a server with "
            "https before it, or give one.",
            soft_wrap=True,
        )
    if told:
        err.print(f"Token: {token}", soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="gitract-serve-") as folder:
        app = create_app(Workshop(chosen, Path(folder)), token, most_bytes=most_mb << 20)
        uvicorn.run(
            app, host=host, port=port, log_level="warning", access_log=False,
            ssl_certfile=certificate, ssl_keyfile=key,
        )  # fmt: skip


def _token(file: Path | None) -> tuple[str, bool]:
    """The token, and whether nobody knows it yet."""
    if file is not None:
        try:
            token = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"The token file {file} cannot be read.") from error
    elif (token := os.environ.get(_TOKEN, "").strip()) == "":
        return secrets.token_urlsafe(24), True
    if len(token) < 16:
        raise InputError("The token is shorter than 16 characters: choose a longer one.")
    return token, False


servers = typer.Typer(no_args_is_help=True, help="The servers that this machine may use.")


@servers.command("add")
def add(
    name: Annotated[str, typer.Argument(help="What you call it; the device is server:NAME.")],
    url: Annotated[str, typer.Argument(help="https://host:port")],
    token: Annotated[
        str, typer.Option(help="That the server printed.", prompt=True, hide_input=True)
    ],
    certificate: Annotated[
        Path | None, typer.Option(help="Certificate to trust, PEM, if it signed itself.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Add a server, or change it, if it answers."""
    from gitract.remote.addresses import PREFIX, Address, set_address
    from gitract.remote.client import Server

    trusted = None if certificate is None else str(certificate.resolve())
    address = Address(url=url, token=token.strip(), certificate=trusted)
    about = Server(name, address).about()
    set_address(name, address)
    print_result(
        as_json,
        {"device": f"{PREFIX}{name}", **about},
        lambda: out.print(f"{PREFIX}{name} is there: {about['device']}, {about['software']}."),
    )


@servers.command("list")
def list_servers(as_json: Json = False) -> None:
    """Print names and addresses; no tokens."""
    from gitract.remote.addresses import PREFIX, known_addresses

    known = known_addresses()

    def show() -> None:
        table = Table("Device", "Address")
        for name, address in known.items():
            table.add_row(PREFIX + name, address.url)
        out.print(table)

    print_result(as_json, {name: address.url for name, address in known.items()}, show)


@servers.command("remove")
def remove(name: str) -> None:
    """Forget a server and its token."""
    from gitract.remote.addresses import forget_address

    forget_address(name)
