"""What a folder or a file holds, before any of it is read whole."""

from dataclasses import dataclass
from pathlib import Path

from gitract.errors import InputError

__all__ = ["ONE_SLICE", "FoundScan", "select"]

ONE_SLICE = (
    "{} holds one slice: a scan needs at least two, or nothing says where in the body it is."
)
"""With which a stack of one slice is refused, in every format alike."""


@dataclass(frozen=True)
class FoundScan:
    """One scan among those of a path.

    Parameters
    ----------
    key
        What tells it from the others, and what a user gives to choose it: the day's name,
        or the number of a DICOM series.
    path
        Where it is.
    title
        For people: ``MR t2_haste_tra``; empty where the key says it all.
    shape
        ``(slices, rows, columns)`` as far as the headers tell.
    date
        ``YYYY-MM-DD``, empty where it is not known.
    problem
        The sentence with which reading it would be refused, as far as the headers tell;
        empty where it would not.
    remarks
        What else a user should know.
    """

    key: str
    path: Path
    title: str
    shape: tuple[int, int, int]
    date: str = ""
    problem: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Key and title."""
        return f"{self.key}: {self.title}" if self.title else self.key

    @property
    def line(self) -> str:
        """One line that tells it from the others."""
        size = " x ".join(str(n) for n in self.shape)
        return ", ".join(part for part in (self.label, size, self.date) if part)


def select(found: list[FoundScan], path: Path, key: str | None) -> FoundScan:
    """The scan that `key` names, or the only one there is.

    Raises
    ------
    InputError
        None is there, several are and none is named, or the name fits none.
    """
    if not found:
        raise InputError(f"{path} holds no scan: choose the folder or the file of one.")
    if key is None and len(found) == 1:
        return found[0]
    lines = "; ".join(one.line for one in found[:8])
    more = f"; and {len(found) - 8} more" if len(found) > 8 else ""
    if key is None:
        raise InputError(
            f"{path} holds {len(found)} scans, choose one by its key, or in the list "
            f"of Load scan ({lines}{more})."
        )
    for one in found:
        if one.key == key:
            return one
    raise InputError(f"{path} holds no scan called {key!r}: there are {lines}{more}.")
