"""Writing that cannot leave half a file behind.

Everything is written under a temporary name beside its target and renamed into place,
so that a full disk or a cancelled job leaves the old file as it was.
"""

import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gitract.errors import InputError

__all__ = [
    "check_target",
    "replaced_file",
    "replaced_folder",
    "temporary_beside",
    "written_beside",
]


def temporary_beside(path: Path) -> Path:
    """A hidden name in the same folder, which no other process chooses."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")


def check_target(path: Path) -> None:
    """Refuse a file or folder that is known beforehand not to be writable.

    Raises
    ------
    InputError
        Its folder does not exist, or it is protected.
    """
    try:
        has_folder = path.parent.is_dir()
        # By the mode bits and not os.access, which lets an administrator overwrite a file
        # that somebody protected; a rename would replace it without asking.
        protected = has_folder and path.exists() and not path.stat().st_mode & stat.S_IWRITE
    except OSError as error:
        raise _not_written(path, error) from error
    if not has_folder:
        raise InputError(
            f"{path} cannot be written because the folder {path.parent} does not exist: "
            "create it or choose another one."
        )
    if protected:
        raise InputError(f"{path} is read-only: choose another name or remove the protection.")


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Give a temporary name to write to; rename it to `path` when all went well.

    For files of our own, of which the caller knows best what to say: those that a user named
    are a `replaced_file`.

    Raises
    ------
    OSError
        `path` cannot be written; what stood there before is untouched.
    """
    temporary = temporary_beside(path)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        with suppress(OSError):  # where its folder is not there or not ours to look into
            temporary.unlink()


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """The same for a file that a user named, which is refused where it is protected.

    Raises
    ------
    InputError
        `path` cannot be written; what stood there before is untouched.
    """
    try:
        check_target(path)
        if path.is_dir():
            raise InputError(f"{path} is a folder: choose a file name that is free.")
        with written_beside(path) as temporary:
            yield temporary
    except OSError as error:
        raise _not_written(path, error) from error


@contextmanager
def replaced_folder(path: Path, is_ours: Callable[[str], bool]) -> Iterator[Path]:
    """Give a new temporary folder to fill; rename it to `path` when all went well.

    Parameters
    ----------
    path
        The folder to write or to replace.
    is_ours
        Tells by its name whether an entry of an existing folder may be replaced.

    Raises
    ------
    InputError
        `path` cannot be written, or holds something that is not ours.
    """
    temporary = temporary_beside(path)
    old = temporary.with_suffix(".old")
    try:
        check_target(path)
        _check_replaceable(path, is_ours)
        temporary.mkdir()
        yield temporary
        if path.exists():
            path.replace(old)  # a folder that is not empty cannot be renamed over
        try:
            temporary.replace(path)
        except OSError:
            if old.exists():
                old.replace(path)
            raise
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if os.path.exists(path):  # else `old` is the only copy left
            shutil.rmtree(old, ignore_errors=True)


def _check_replaceable(path: Path, is_ours: Callable[[str], bool]) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise InputError(f"{path} is a file: a folder of slices needs a name that is free.")
    strangers = sorted(entry.name for entry in path.iterdir() if not is_ours(entry.name))
    if strangers:
        raise InputError(
            f"{path} already holds other files, such as {strangers[0]}: choose a new folder."
        )


def _not_written(path: Path, error: OSError) -> InputError:
    reason = error.strerror or str(error)
    return InputError(f"{path} could not be written ({reason}): choose another place.")
