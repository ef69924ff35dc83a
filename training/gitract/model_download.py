"""Models of others: a catalogue of them, and downloads that go on where they were cut off.

A catalogue is a file ``catalogue.json`` on a server, or in a folder that was copied to where
no server can be reached (`Catalogue`). What it names are zip archives of model folders. Only
files whose SHA-256 was told beforehand are taken, so that it does not matter by which way they
came. A proxy is taken from the environment (``HTTPS_PROXY``), as are certificates
(``REQUESTS_CA_BUNDLE``).
"""

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import SplitResult, urljoin, urlsplit

from pydantic import Field, ValidationError, model_validator

from gitract.errors import InputError
from gitract.home import default_home
from gitract.model_folder import ModelArchive, transfer_progress
from gitract.progress import Progress, Report, silent
from gitract.strict import StrictModel

if TYPE_CHECKING:
    import requests

    from gitract.model_store import ModelInfo, ModelStore

__all__ = [
    "CATALOGUE_FILE",
    "Catalogue",
    "Offer",
    "default_source",
    "download",
    "download_model",
    "downloaded_bytes",
    "read_catalogue",
]

CATALOGUE_FILE = "catalogue.json"
_FORMAT = 1
_VARIABLE = "GITRACT_MODELS"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CHUNK = 1 << 16  # a cancel is noticed after as much
_TIMEOUT_S = (10.0, 30.0)  # to connect, and for the next bytes
_MOST_CATALOGUE = 1 << 22  # bytes
_FORGOTTEN_AFTER_S = 30 * 24 * 3600.0


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
        if self.url is not None and not _is_address(self.url):
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
        if _is_address(self.place):
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
    if _is_address(named):
        is_file = _split(named).path.endswith(".json")
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
    with _told_errors(url):
        import requests

        with requests.get(url, timeout=_TIMEOUT_S, stream=True) as response:
            response.raise_for_status()
            content = b""
            for chunk in response.iter_content(_CHUNK):
                content += chunk
                if len(content) > _MOST_CATALOGUE:
                    raise InputError(f"{url} is far too large for a catalogue.")
            return content


def download_model(
    place: str,
    *,
    sha256: str | None,
    model: str | None = None,
    store: "ModelStore | None" = None,
    report: Report = silent,
) -> "ModelInfo":
    """Download a model, or go on with it, and install it; it is not active yet.

    Parameters
    ----------
    place
        Address or path of its archive, as of `Catalogue.place_of`.
    sha256
        Of the archive.
    model
        The id that was promised, where one was.
    store
        Where it is installed; the user's when not given.
    report
        Called with each 64 kB. Cancelled, what has arrived is kept for the next time.

    Raises
    ------
    InputError
        As of `download` and `ModelStore.import_model`, or its id is another one.
    """
    from gitract.model_store import ModelStore  # which a catalogue is read without

    store = store or ModelStore()
    if model in {info.id for info in store.models()}:
        raise InputError(f"The model {model} is installed already.")
    folder = _downloads(store.home)
    _forget_old(folder)
    archive = download(place, sha256=sha256, folder=folder, report=report)
    with ModelArchive.opened(archive) as opened:
        found = opened.config.id
    if model not in (None, found):
        raise InputError(
            f"The archive {place} holds the model {found!r}, not {model!r}: tell whoever made the "
            "catalogue."
        )
    info = store.import_model(archive, report)
    if _is_address(place):
        with suppress(OSError):
            archive.unlink()
    return info


def downloaded_bytes(catalogue: Catalogue, offer: Offer, *, home: Path | None = None) -> int:
    """How much of a model has arrived in a download that was cut off or cancelled."""
    folder = _downloads(home or default_home())
    part = _part(folder / _file_name(catalogue.place_of(offer), offer.sha256.lower()))
    return part.stat().st_size if part.is_file() else 0


def download(
    url: str, *, sha256: str | None, folder: Path | None = None, report: Report = silent
) -> Path:
    """Download a file whose SHA-256 is known, or go on with a download of it.

    Parameters
    ----------
    url
        An address, or the path of a file, which is then only checked.
    sha256
        64 hexadecimal digits.
    folder
        Where it goes; in the user's data folder when not given.
    report
        Called with each 64 kB. Cancelled, what has arrived is kept for the next time.

    Returns
    -------
    pathlib.Path
        The file. It is there already where it was downloaded before.

    Raises
    ------
    InputError
        No SHA-256 is given, the server cannot be reached or does not have the file, the
        connection was cut, the folder cannot be written, or the file has another SHA-256; such a
        file is removed.
    """
    known = _checked_sha256(url, sha256)
    if not _is_address(url):
        return _checked_file(Path(url).expanduser(), known, report)
    import pooch

    folder = folder or _downloads(default_home())
    name = _file_name(url, known)
    fetch = _Resuming(_part(folder / name), report)
    with _told_errors(url), _quiet(pooch.get_logger()):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            path = pooch.retrieve(
                url, known_hash=f"sha256:{known}", fname=name, path=folder, downloader=fetch
            )
        except ValueError as error:
            if not fetch.complete:
                raise
            raise InputError(
                f"The file {url} is not the one that was promised, since its SHA-256 is not "
                f"{known[:12]}…: it was removed, so try again, or ask who offers it."
            ) from error
    return Path(path)


class _Resuming:
    """Downloads for pooch, which go on from what arrived of a file the last time.

    What has arrived is in `part`, whose name tells the SHA-256 of the whole. So two processes
    that download the same file write the same bytes to the same places, and do no harm.
    """

    def __init__(self, part: Path, report: Report) -> None:
        self._part = part
        self._report = report
        self.complete = False

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        """Download `url`; `output_file` is where pooch wants it."""
        import requests

        arrived = self._part.stat().st_size if self._part.is_file() else 0
        with requests.Session() as session:
            response = self._ask(session, url, arrived)
            if arrived and response.status_code == requests.codes.ok:
                arrived = 0  # the server sends the whole file whatever it is asked
            elif arrived and not (_goes_on(response, arrived) or _has_all(response, arrived)):
                response.close()
                arrived = 0
                response = self._ask(session, url, arrived)
            with response:
                if not (arrived and _has_all(response, arrived)):
                    response.raise_for_status()
                    self._receive(response, arrived, url)
        os.replace(self._part, output_file)
        self.complete = True

    def _ask(self, session: "requests.Session", url: str, arrived: int) -> "requests.Response":
        headers = {"Accept-Encoding": "identity"}  # else the bytes that come are not the file's
        if arrived:
            headers["Range"] = f"bytes={arrived}-"
        return session.get(url, headers=headers, timeout=_TIMEOUT_S, stream=True)

    def _receive(self, response: "requests.Response", arrived: int, url: str) -> None:
        """Write what comes behind what has arrived."""
        length = response.headers.get("Content-Length", "")
        total = arrived + int(length) if length.isdigit() else 0
        what = f"Downloading {_plain_name(url)}"
        self._report(transfer_progress(arrived, total, what))
        with self._part.open("r+b" if self._part.exists() else "w+b") as file:
            file.seek(arrived)
            for chunk in response.iter_content(_CHUNK):
                file.write(chunk)
                arrived += len(chunk)
                self._report(transfer_progress(arrived, total, what))
            file.truncate()
        if arrived < total:
            raise ConnectionResetError


def _goes_on(response: "requests.Response", arrived: int) -> bool:
    """Whether a server sends just what is missing."""
    begin = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return response.status_code == 206 and begin == str(arrived)


def _has_all(response: "requests.Response", arrived: int) -> bool:
    """Whether a server says that nothing is missing."""
    told = response.headers.get("Content-Range", "")
    return response.status_code == 416 and told == f"bytes */{arrived}"


@contextmanager
def _told_errors(url: str) -> Iterator[None]:
    """What can go wrong between here and a server, as one sentence."""
    import requests

    server = _split(url).hostname or url
    try:
        yield
    except requests.HTTPError as error:
        told = str(error).partition(" for url")[0]
        raise InputError(f"{server} answers to {url}: {told}; check the address.") from error
    except requests.exceptions.SSLError as error:
        raise InputError(
            f"The certificate of {server} is not trusted: if your network brings its own, set "
            "REQUESTS_CA_BUNDLE to its file."
        ) from error
    except requests.exceptions.ProxyError as error:
        raise InputError(
            f"The proxy does not let us reach {server}: check HTTPS_PROXY, or name a folder that "
            "the catalogue was copied to."
        ) from error
    except (requests.ConnectionError, requests.Timeout) as error:
        if _was_cut(error):
            raise _cut(url) from error
        raise InputError(
            f"{server} cannot be reached: check the network and HTTPS_PROXY, or name a folder that "
            "the catalogue was copied to."
        ) from error
    except (requests.exceptions.ChunkedEncodingError, ConnectionResetError) as error:
        raise _cut(url) from error
    except (requests.RequestException, ValueError) as error:
        raise InputError(f"The address {url} cannot be used: check it.") from error
    except OSError as error:
        reason = error.strerror or "no permission"
        raise InputError(
            f"{_plain_name(url)} cannot be saved ({reason}): make room or set GITRACT_HOME to "
            "another folder."
        ) from error


def _was_cut(error: Exception) -> bool:
    """Whether a connection broke off, or fell silent, after it had been made."""
    return "Read timed out" in str(error) or "Connection broken" in str(error)


def _cut(url: str) -> InputError:
    return InputError(
        f"The connection to {_split(url).hostname} was cut: try again, and the download goes on "
        "where it was."
    )


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """No lines on standard error, where a progress bar may be."""
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _checked_sha256(what: str, sha256: str | None) -> str:
    known = (sha256 or "").strip().lower()
    if not known:
        raise InputError(
            f"The SHA-256 of {what} is needed, to know that it is the right file: ask who offers "
            "it, or print that of a file that you trust by `sha256sum FILE` (on Windows "
            "`certutil -hashfile FILE SHA256`)."
        )
    if not _SHA256.fullmatch(known):
        raise InputError(f"{sha256!r} is no SHA-256: that has 64 hexadecimal digits.")
    return known


def _checked_file(path: Path, known: str, report: Report) -> Path:
    """A file that need not be downloaded."""
    digest = hashlib.sha256()
    try:
        total = path.stat().st_size
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
                report(transfer_progress(file.tell(), total, f"Checking {path.name}"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    if digest.hexdigest() != known:
        raise InputError(
            f"The file {path} is not the one that was promised, since its SHA-256 is not "
            f"{known[:12]}…: copy it again, or ask who offers it."
        )
    report(Progress(1, 1, f"Checked {path.name}"))
    return path


def _split(url: str) -> SplitResult:
    """The pieces of an address; raises `InputError` where it is none."""
    try:
        return urlsplit(url)
    except ValueError as error:
        raise InputError(f"The address {url} cannot be used: check it.") from error


def _is_address(text: str) -> bool:
    return text.lower().startswith(("https://", "http://"))


def _downloads(home: Path) -> Path:
    return home / "downloads"


def _forget_old(folder: Path) -> None:
    """Remove what nobody went on with for a month."""
    with suppress(OSError):
        for path in folder.glob("*"):
            if time.time() - path.stat().st_mtime > _FORGOTTEN_AFTER_S:
                path.unlink()


def _plain_name(url: str) -> str:
    """The last part of an address, of letters that every file system takes."""
    last = PurePosixPath(_split(url).path).name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).lstrip("-.")[-80:] or "model.zip"


def _file_name(url: str, sha256: str) -> str:
    return f"{sha256[:16]}-{_plain_name(url)}"


def _part(path: Path) -> Path:
    """Where a file is until it is complete."""
    return path.with_name(f"{path.name}.part")
