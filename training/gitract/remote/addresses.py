"""The servers that this user knows, with their tokens, in a file that nobody else may read."""

import json
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import ValidationError

from gitract.errors import InputError
from gitract.home import default_home
from gitract.replacing import replaced_file
from gitract.strict import StrictModel

__all__ = [
    "PREFIX",
    "Address",
    "forget_address",
    "is_server",
    "known_addresses",
    "server_devices",
    "set_address",
]

PREFIX = "server:"
"""What the name of a device begins with that is a server: ``server:gpu-room``."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Address(StrictModel):
    """Where a server is.

    Parameters
    ----------
    url
        ``https://host:port``; with plain http everybody on the way can read the scans.
    token
        That ``gitract serve`` printed or was given.
    certificate
        File of a certificate to trust, such as one that the server signed itself.
    """

    url: str
    token: str
    certificate: str | None = None


def _file(home: Path | None) -> Path:
    return (home or default_home()) / "servers.json"


def known_addresses(home: Path | None = None) -> dict[str, Address]:
    """Every server by its name; none where the file is missing or damaged."""
    try:
        content = json.loads(_file(home).read_text(encoding="utf-8"))
        return {name: Address.model_validate(one) for name, one in content.items()}
    except (OSError, ValueError, AttributeError, ValidationError):
        return {}


def server_devices(home: Path | None = None) -> list[str]:
    """The servers as devices to choose from."""
    return [PREFIX + name for name in known_addresses(home)]


def is_server(device: str) -> bool:
    """Whether a device is a server, not one of this machine."""
    return device.startswith(PREFIX)


def set_address(name: str, address: Address, home: Path | None = None) -> None:
    """Add a server, or change one.

    Raises
    ------
    InputError
        The name or the URL cannot be used, or the file cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} cannot name a server: use letters, digits, dots and dashes.")
    parts = urlsplit(address.url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
        raise InputError(f"{address.url!r} is no server: give it as https://host:port.")
    _write({**known_addresses(home), name: address}, home)


def forget_address(name: str, home: Path | None = None) -> None:
    """Remove a server from the list.

    Raises
    ------
    InputError
        There is none of this name, or the file cannot be written.
    """
    known = known_addresses(home)
    if known.pop(name, None) is None:
        raise InputError(f"There is no server {name!r}: known are {', '.join(known) or 'none'}.")
    _write(known, home)


def _write(known: dict[str, Address], home: Path | None) -> None:
    path = _file(home)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_file(path) as partial:
        partial.touch(mode=0o600)
        os.chmod(partial, 0o600)
        content = {name: address.model_dump() for name, address in known.items()}
        partial.write_text(json.dumps(content, indent=2), encoding="utf-8")
