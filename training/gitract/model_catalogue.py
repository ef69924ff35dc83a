"""A catalogue of models: what somebody offers to be downloaded.

It is a file ``catalogue.json`` on a server, or in a folder that was copied to where no server
can be reached. What it names are zip archives of model folders, each with its SHA-256, so that it
does not matter by which way they come.
"""

import json
import os
from pathlib import Path, PurePosixPath
from typing import Annotated
from urllib.parse import urljoin

from pydantic import Field, ValidationError, model_validator

from gitract.errors import InputError
from gitract.strict import StrictModel
from gitract.web import CHUNK, TIMEOUT_S, is_address, split_address, told_errors

__all__ = ["CATALOGUE_FILE", "Catalogue", "Offer", "default_source", "read_catalogue"]

CATALOGUE_FILE = "catalogue.json"
_FORMAT = 1
_VARIABLE = "GITRACT_MODELS"
_MOST_CATALOGUE = 1 << 22  # bytes


class Offer(StrictModel):
    """A model in a catalogue.

    Parameters
    ----------
    id
        The id that it has in a store.
    title
        For people.
    url
        Where its archive is; or else:
    file
        The path of its archive beside the catalogue, with slashes.
    sha256
        Of the archive, 64 hexadecimal digits.
    bytes
        Size of the archive.
    summary
        What it is for, in a sentence or two.
    licence
        Under which it may be used.
    """

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    title: str
    url: str | None = None
    file: str | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")]
    bytes: Annotated[int, Field(gt=0)]
    summary: str = ""
    licence: str = ""

    @model_validator(mode="after")
    def _check_place(self) -> "Offer":
        if (self.url is None) == (self.file is None):
            raise ValueError("give either url or file")
        if self.url is not None and not is_address(self.url):
            raise ValueError("url must begin with https:// or http://")
        if self.file is not None:
            path = PurePosixPath(self.file)
            if path.is_absolute() or ".." in path.parts or "\\" in self.file or ":" in self.file:
                raise ValueError("file must lie beside the catalogue")
        return self


class _CatalogueFile(StrictModel):
    """What stands in ``catalogue.json``."""

    format: int = _FORMAT
    models: tuple[Offer, ...]


class Catalogue:
    """The models that someone offers.

    Parameters
    ----------
    place
        Address or path of ``catalogue.json``.
    offers
        The models.
    """

    def __init__(self, place: str, offers: tuple[Offer, ...]) -> None:
        self.place = place
        self.offers = offers

    def find(self, model: str) -> Offer:
        """The model with this id.

        Raises
        ------
        InputError
            The catalogue has none.
        """
        for offer in self.offers:
            if offer.id == model:
                return offer
        known = ", ".join(offer.id for offer in self.offers) or "none"
        raise InputError(f"There is no model {model!r} in {self.place}: it offers {known}.")

    def place_of(self, offer: Offer) -> str:
        """Address or path of the archive of a model."""
        if offer.url is not None:
            return offer.url
        if is_address(self.place):
            return urljoin(self.place, offer.file)
        return str(Path(self.place).parent / str(offer.file))


def default_source() -> str:
    """The catalogue of ``GITRACT_MODELS``; nothing where that is not set."""
    return os.environ.get(_VARIABLE, "").strip()


def read_catalogue(source: str | Path | None = None) -> Catalogue:
    """Read a catalogue.

    Parameters
    ----------
    source
        Address or folder of a catalogue, or of the file itself; `default_source` when not given.

    Raises
    ------
    InputError
        None is known, or it cannot be reached, read or understood.
    """
    named = str(source or default_source()).strip()
    if not named:
        raise InputError(
            "No catalogue of models is known: name its address or folder, or set "
            f"{_VARIABLE} to it."
        )
    if is_address(named):
        is_file = split_address(named).path.endswith(".json")
        place = named if is_file else f"{named.rstrip('/')}/{CATALOGUE_FILE}"
        content = _fetched(place)
    else:
        path = Path(named).expanduser()
        path = path / CATALOGUE_FILE if path.is_dir() else path
        place = str(path)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(
                f"The catalogue {path} cannot be read ({error.strerror or error}): name a folder "
                f"with a {CATALOGUE_FILE}, or an address that begins with https://."
            ) from error
    return Catalogue(place, _parsed(content, place).models)


def _parsed(content: bytes, place: str) -> _CatalogueFile:
    if _format(content) > _FORMAT:  # before its new keys are called unknown
        raise InputError(
            f"The catalogue {place} was made for a newer version: update napari-gitract."
        )
    try:
        return _CatalogueFile.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        what = first["msg"].removeprefix("Value error, ").lower()
        raise InputError(f"The catalogue {place} cannot be used: {where}: {what}.") from None


def _format(content: bytes) -> int:
    """The format that a catalogue claims; 0 where it claims none."""
    try:
        found = json.loads(content)["format"]
    except (ValueError, LookupError, TypeError):
        return 0
    return found if isinstance(found, int) else 0


def _fetched(url: str) -> bytes:
    """A small file from a server."""
    with told_errors(url):
        import requests

        with requests.get(url, timeout=TIMEOUT_S, stream=True) as response:
            response.raise_for_status()
            content = b""
            for chunk in response.iter_content(CHUNK):
                content += chunk
                if len(content) > _MOST_CATALOGUE:
                    raise InputError(f"{url} is far too large for a catalogue.")
            return content
