"""A model folder as files: its size, a zip archive of it, and a copy of either."""

import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
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
    "ModelSource",
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
    return sum(_sizes(folder).values())


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


class ModelSource:
    """A model to be copied: a folder, or a zip archive of one.

    Use `ModelSource.opened`. Only the files of a model are taken, under their own names, so that
    nothing that lies beside them comes along and no archive writes anywhere else.

    Parameters
    ----------
    path
        The folder or the archive.
    root
        Where its files lie: `path`, or a place in the archive.
    sizes
        Their bytes, by name.
    """

    def __init__(self, path: Path, root: Path, sizes: Mapping[str, int]) -> None:
        self.path = path
        self._root = root
        self._sizes = sizes

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator["ModelSource"]:
        """Open a folder or an archive; whatever is damaged in an archive becomes an `InputError`.

        Raises
        ------
        InputError
            It holds no model; of an archive also: more than one, or a name that points outside
            of it.
        """
        if not path.is_file():
            yield cls(path, path, _sizes_in_folder(path))
            return
        try:
            with zipfile.ZipFile(path) as zipped:
                root = _root_in_archive(path, zipped)
                # Such a path reads as one on the disk does, and tells its name in errors.
                place = cast(Path, zipfile.Path(zipped, root))
                yield cls(path, place, _sizes_in_archive(path, zipped, root))
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
        return read_model_config(self._root)

    def copy(self, target: Path, report: Report = silent) -> None:
        """Write the model to a new folder.

        Parameters
        ----------
        target
            Does not exist.
        report
            Called for each megabyte.
        """
        target.mkdir(parents=True)
        total = sum(self._sizes.values())
        done = 0
        for name in self._sizes:
            with (self._root / name).open("rb") as file, (target / name).open("wb") as copy:
                while chunk := file.read(_CHUNK):
                    copy.write(chunk)
                    done += len(chunk)
                    report(transfer_progress(done, total, f"Copying {self.path.name}"))


def _sizes(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_size for name in _FILES if (folder / name).is_file()}


def _sizes_in_folder(path: Path) -> dict[str, int]:
    sizes = _sizes(path)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if name not in sizes:
            raise InputError(f"{path} is not a model folder: it has no {name}.")
    return sizes


def _root_in_archive(path: Path, zipped: zipfile.ZipFile) -> str:
    """The folder of an archive that the model lies in, with the slash behind it."""
    names = zipped.namelist()
    for name in names:
        _check_inside(path, name)
    configs = [name for name in names if PurePosixPath(name).name == CONFIG_FILE]
    if not configs:
        raise InputError(f"{path} is no archive of a model: it holds no {CONFIG_FILE}.")
    if len(configs) > 1:
        raise InputError(
            f"{path} holds {len(configs)} files {CONFIG_FILE}: unpack it and import one folder."
        )
    return configs[0].removesuffix(CONFIG_FILE)


def _sizes_in_archive(path: Path, zipped: zipfile.ZipFile, root: str) -> dict[str, int]:
    present = set(zipped.namelist())
    sizes = {
        name: zipped.getinfo(root + name).file_size for name in _FILES if root + name in present
    }
    if WEIGHTS_FILE not in sizes:
        raise InputError(f"{path} is no archive of a model: it has no {WEIGHTS_FILE}.")
    for name in (CONFIG_FILE, CARD_FILE):
        if sizes.get(name, 0) > _MOST_TEXT:
            raise InputError(f"{path} cannot be used: its {name} is far too large for a text.")
    return sizes


def _check_inside(path: Path, name: str) -> None:
    """Refuse an archive with a name that is none below its own folder."""
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or ":" in name:
        raise InputError(
            f"{path} is refused: it holds {name!r}, which points outside of the archive."
        )
