"""Walking through a data folder."""

import os
from collections.abc import Collection, Iterator
from pathlib import Path

__all__ = ["files_below", "folders_below"]


def folders_below(
    folder: Path, *, depth: int | None = None, without: Collection[Path] = ()
) -> Iterator[tuple[Path, list[str]]]:
    """A folder and those below it, each with the names of its files, both sorted.

    Hidden ones are passed over, and so are the folders in `without`, but for `folder` itself.
    """
    base = len(folder.parts)
    for place, folders, files in os.walk(folder):
        here = Path(place)
        deeper = depth is None or len(here.parts) - base < depth
        folders[:] = sorted(
            name
            for name in folders
            if deeper and not name.startswith(".") and here / name not in without
        )
        yield here, sorted(name for name in files if not name.startswith("."))


def files_below(folder: Path, without: Collection[Path] = ()) -> Iterator[Path]:
    """The files of a folder and of those below it."""
    for place, names in folders_below(folder, without=without):
        for name in names:
            yield place / name
