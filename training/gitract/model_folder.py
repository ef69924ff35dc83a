"""A model folder as files: its size, a copy of it, a zip archive of it and back."""

import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import cast

from gitract.errors import InputError
from gitract.model_config import (
    CARD_FILE,
    CONFIG_FILE,
    WEIGHTS_FILE,
    ModelConfig,
    read_model_config,
)
from gitract.progress import Progress, Report, silent

__all__ = [
    "ModelArchive",
    "copy_model",
    "folder_bytes",
    "megabytes",
    "pack_model",
    "transfer_progress",
]

_FILES = (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE)
_CHUNK = 1 << 20
_MOST_TEXT = 1 << 24  # bytes of a configuration or a card; what is larger is none
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


def folder_bytes(folder: Path) -> int:
    """What the files of a model take on the disk, in bytes; 0 where there are none."""
    paths = [folder / name for name in _FILES]
    return sum(path.stat().st_size for path in paths if path.is_file())


def megabytes(count: int) -> str:
    """A number of bytes for people: ``14.7 MB``."""
    return f"{count / 1e6:.1f} MB"


def transfer_progress(done: int, total: int, what: str) -> Progress:
    """How far a file is, in kilobytes, which also fit a bar when a model has gigabytes.

    Parameters
    ----------
    done, total
        Bytes; `total` is 0 where nobody knows it.
    what
        "Downloading clinic.zip".
    """
    of = f" of {megabytes(total)}" if total else ""
    return Progress(done // 1000, -(-total // 1000), f"{what}: {megabytes(done)}{of}")


def copy_model(source: Path, target: Path) -> None:
    """Copy to a new folder what belongs to a model, and nothing that lies beside it."""
    target.mkdir(parents=True)
    for name in _FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def pack_model(folder: Path, archive: Path) -> None:
    """Write a model folder as a zip archive.

    The same model always gives the same bytes, and so the same SHA-256. Weights are stored as
    they are: they hardly shrink.
    """
    with zipfile.ZipFile(archive, "w") as packed:
        for name in _FILES:
            if (folder / name).is_file():
                entry = zipfile.ZipInfo(f"{folder.name}/{name}")  # dated 1980, as all of them
                entry.external_attr = 0o644 << 16
                with (
                    (folder / name).open("rb") as file,
                    packed.open(entry, "w", force_zip64=True) as target,
                ):
                    shutil.copyfileobj(file, target, _CHUNK)


class ModelArchive:
    """A zip archive of one model folder, to be read.

    Use `ModelArchive.opened`. Only the files of a model are taken out of it, under their own
    names, so that no archive writes anywhere else.

    Parameters
    ----------
    path
        The archive.
    zipped
        The same, open.

    Raises
    ------
    InputError
        It holds no model, more than one, or a name that points outside of it.
    """

    def __init__(self, path: Path, zipped: zipfile.ZipFile) -> None:
        self.path = path
        self._zipped = zipped
        names = [entry.filename for entry in zipped.infolist()]
        for name in names:
            _check_inside(path, name)
        configs = [name for name in names if PurePosixPath(name).name == CONFIG_FILE]
        if not configs:
            raise InputError(f"{path} is no archive of a model: it holds no {CONFIG_FILE}.")
        if len(configs) > 1:
            raise InputError(
                f"{path} holds {len(configs)} files {CONFIG_FILE}: unpack it and import one folder."
            )
        self._root = configs[0].removesuffix(CONFIG_FILE)
        self._present = [name for name in _FILES if self._root + name in names]
        if WEIGHTS_FILE not in self._present:
            raise InputError(f"{path} is no archive of a model: it has no {WEIGHTS_FILE}.")
        for name in (CONFIG_FILE, CARD_FILE):
            if name in self._present and self._bytes_of(name) > _MOST_TEXT:
                raise InputError(f"{path} cannot be used: its {name} is far too large for a text.")

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator["ModelArchive"]:
        """Open an archive; whatever is damaged in it becomes an `InputError`."""
        try:
            with zipfile.ZipFile(path) as zipped:
                yield cls(path, zipped)
        except _UNREADABLE as error:
            raise InputError(
                f"{path} cannot be unpacked, since it is damaged or no plain zip archive: get it "
                "again."
            ) from error
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error

    @property
    def config(self) -> ModelConfig:
        """What the model says of itself.

        Raises
        ------
        InputError
            As of `read_model_config`.
        """
        # Such a path reads as one on the disk does, and tells its name in errors.
        return read_model_config(cast(Path, zipfile.Path(self._zipped, self._root)))

    def unpack(self, target: Path, report: Report = silent) -> None:
        """Write the model to a new folder.

        Parameters
        ----------
        target
            Does not exist.
        report
            Called for each megabyte.
        """
        target.mkdir(parents=True)
        total = sum(self._bytes_of(name) for name in self._present)
        done = 0
        for name in self._present:
            with self._zipped.open(self._root + name) as file, (target / name).open("wb") as copy:
                while chunk := file.read(_CHUNK):
                    copy.write(chunk)
                    done += len(chunk)
                    report(transfer_progress(done, total, f"Unpacking {self.path.name}"))

    def _bytes_of(self, name: str) -> int:
        return self._zipped.getinfo(self._root + name).file_size


def _check_inside(path: Path, name: str) -> None:
    """Refuse an archive with a name that is none below its own folder."""
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or ":" in name:
        raise InputError(
            f"{path} is refused: it holds {name!r}, which points outside of the archive."
        )
