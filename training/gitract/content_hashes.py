"""SHA-256 of files, remembered as long as path, size and time of change are the same."""

import hashlib
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from gitract.errors import InputError
from gitract.replacing import written_beside

__all__ = ["ContentHashes"]

_Known = dict[str, tuple[int, int, str]]
_CHUNK = 1 << 20


class ContentHashes:
    """A JSON file of what is known; saved on leaving the ``with`` block.

    Parameters
    ----------
    path
        It need not be there. One that is damaged is made anew; what other processes added
        meanwhile is kept.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = _read(path)
        self._new: _Known = {}

    def of(self, path: Path) -> str:
        """The hash of a file's content.

        Raises
        ------
        OSError
            It cannot be read.
        """
        place = str(path.absolute())
        state = os.stat(path)
        size, changed, known = self._known.get(place, (-1, -1, ""))
        if (size, changed) == (state.st_size, state.st_mtime_ns):
            return known
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        self._known[place] = self._new[place] = (
            state.st_size, state.st_mtime_ns, digest.hexdigest(),
        )  # fmt: skip
        return digest.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._new:
            return
        try:
            with written_beside(self._path) as partial:
                partial.write_text(json.dumps({**_read(self._path), **self._new}), encoding="utf-8")
        except OSError as failure:
            if error is None:
                raise InputError(
                    f"The cache folder {self._path.parent} cannot be written "
                    f"({failure.strerror}): make room there, or choose another folder with "
                    "--cache."
                ) from failure
        self._new = {}


def _read(path: Path) -> _Known:
    """What a file knows; nothing where it is damaged."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(place): (int(size), int(changed), str(digest))
            for place, (size, changed, digest) in stored.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
