"""Downloads of models, which go on where they were cut off.

Only files whose SHA-256 was told beforehand are taken, as by a catalogue
(`gitract.model_catalogue`).
"""

import hashlib
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gitract.errors import InputError
from gitract.home import default_home
from gitract.model_catalogue import Catalogue, Offer
from gitract.model_folder import ModelSource, transfer_progress
from gitract.progress import Progress, Report, silent
from gitract.web import CHUNK, TIMEOUT_S, is_address, plain_name, told_errors

if TYPE_CHECKING:
    import requests

    from gitract.model_store import ModelInfo, ModelStore

__all__ = ["download", "download_model", "downloaded_bytes"]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_FORGOTTEN_AFTER_S = 30 * 24 * 3600.0


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
    with ModelSource.opened(archive) as source:
        found = source.config.id
    if model not in (None, found):
        raise InputError(
            f"The archive {place} holds the model {found!r}, not {model!r}: tell whoever made the "
            "catalogue."
        )
    info = store.import_model(archive, report)
    if is_address(place):
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
    if not is_address(url):
        return _checked_file(Path(url).expanduser(), known, report)
    import pooch

    folder = folder or _downloads(default_home())
    name = _file_name(url, known)
    fetch = _Resuming(_part(folder / name), report)
    with told_errors(url), _quiet(pooch.get_logger()):
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
        return session.get(url, headers=headers, timeout=TIMEOUT_S, stream=True)

    def _receive(self, response: "requests.Response", arrived: int, url: str) -> None:
        """Write what comes behind what has arrived."""
        length = response.headers.get("Content-Length", "")
        total = arrived + int(length) if length.isdigit() else 0
        what = f"Downloading {plain_name(url)}"
        self._report(transfer_progress(arrived, total, what))
        with self._part.open("r+b" if self._part.exists() else "w+b") as file:
            file.seek(arrived)
            for chunk in response.iter_content(CHUNK):
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


def _downloads(home: Path) -> Path:
    return home / "downloads"


def _forget_old(folder: Path) -> None:
    """Remove what nobody went on with for a month."""
    with suppress(OSError):
        for path in folder.glob("*"):
            if time.time() - path.stat().st_mtime > _FORGOTTEN_AFTER_S:
                path.unlink()


def _file_name(url: str, sha256: str) -> str:
    return f"{sha256[:16]}-{plain_name(url)}"


def _part(path: Path) -> Path:
    """Where a file is until it is complete."""
    return path.with_name(f"{path.name}.part")
