"""Run lengths: masks as text, and tables of them such as the competition's ``train.csv``.

A table has the columns ``id,class,segmentation``: run lengths, row-major, 1-based, one
row for each slice and organ, so organs may overlap. It has no place for the size of the
image or for geometry: tables that are written here have notes beside them.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gitract.errors import InputError
from gitract.io._ignore import without_ignored
from gitract.io._labels import renamed
from gitract.io._notes import beside, is_of_segmentation, notes_of, read_beside, restored
from gitract.organ_names import OrganNames
from gitract.organs import ORGANS
from gitract.replacing import replaced_file
from gitract.scan import Scan, Segmentation

__all__ = [
    "Table",
    "decode_masks",
    "decode_rle",
    "encode_rle",
    "is_rle_table",
    "read_rle_table",
    "read_segmentation",
    "slice_id",
    "slice_numbers",
    "write_segmentation",
]

Table = Mapping[str, Mapping[str, str]]
"""Slice id -> class -> run lengths."""

_MAX_VOXELS = 4_000_000_000


# --- ids of slices ----------------------------------------------------------------------


def slice_id(day: str, number: int) -> str:
    """The id of a slice in a table: ``case20_day0_slice_0001``."""
    return f"{day}_slice_{number:04d}"


def slice_numbers(item: Scan | Segmentation) -> Sequence[int]:
    """The competition's numbers of the slices, 1 to n where there are none."""
    return item.slice_numbers or range(1, item.shape[0] + 1)


def _day(name: str) -> str:
    """The name of a scan as far as a table can hold it."""
    return re.sub(r'[,"\r\n]', "_", name).strip()


_ID = re.compile(r"(.*)_slice_([0-9]{1,9})", re.DOTALL)


def _ids_by_day(csv: Path, table: Table) -> dict[str, dict[int, str]]:
    """Day -> slice number -> id."""
    days: dict[str, dict[int, str]] = {}
    for name in table:
        match = _ID.fullmatch(name)
        if match is None:
            raise InputError(
                f"{csv} has the id {name!r}, which is not like {slice_id('case20_day0', 1)}: "
                "correct that row."
            )
        numbers = days.setdefault(match[1], {})
        if numbers.setdefault(int(match[2]), name) != name:
            raise InputError(
                f"{csv} has slice {int(match[2])} of {match[1]!r} under two ids: keep one of them."
            )
    return days


# --- run lengths ------------------------------------------------------------------------


def encode_rle(mask: npt.NDArray[np.bool_]) -> str:
    """The run lengths of a mask: ``start length start length ...``.

    Parameters
    ----------
    mask
        ``bool`` ``(row, column)``.

    Returns
    -------
    str
        Row-major, starts are 1-based; empty for an empty mask.
    """
    edges = np.flatnonzero(np.diff(mask.ravel(), prepend=False, append=False))
    runs = edges.reshape(-1, 2)
    pairs = np.column_stack([runs[:, 0] + 1, runs[:, 1] - runs[:, 0]])
    return " ".join(map(str, pairs.ravel().tolist()))


def decode_rle(rle: str, shape: tuple[int, int], *, name: str = "mask") -> npt.NDArray[np.bool_]:
    """The mask that run lengths describe.

    Parameters
    ----------
    rle
        As `encode_rle` gives them; empty for an empty mask.
    shape
        ``(rows, columns)`` of the mask.
    name
        What the error calls it: the slice's id and the organ.

    Returns
    -------
    numpy.ndarray
        ``bool`` ``(row, column)``.

    Raises
    ------
    InputError
        The numbers are not pairs, overlap, or run past the image.
    """
    try:
        numbers = np.array(rle.split(), dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise _bad_rle(name, "hold something that is not a whole number") from error
    if numbers.size % 2:
        raise _bad_rle(name, f"hold {numbers.size} numbers, which are not pairs")
    size = shape[0] * shape[1]
    starts, lengths = numbers[0::2] - 1, numbers[1::2]
    if (starts < 0).any() or (lengths < 1).any():
        raise _bad_rle(name, "hold a start or a length below 1")
    # Starts and lengths apart first, for their sum may not fit 64 bits.
    if (starts >= size).any() or (lengths > size).any() or (starts + lengths > size).any():
        raise _bad_rle(name, f"run past the image of {shape[1]} x {shape[0]} pixels")
    order = np.argsort(starts)
    starts, ends = starts[order], (starts + lengths)[order]
    if (starts[1:] < ends[:-1]).any():
        raise _bad_rle(name, "overlap each other")
    steps = np.zeros(size + 1, dtype=np.int8)
    steps[starts] += 1
    steps[ends] -= 1  # apart, since a run may start where the one before it ends
    return steps[:-1].cumsum(dtype=np.int8).astype(np.bool_).reshape(shape)


def _bad_rle(name: str, what: str) -> InputError:
    return InputError(f"The run lengths of {name} {what}: correct that row of the table.")


def decode_masks(
    table: Table,
    ids: Sequence[str],
    shape: tuple[int, int],
    places: Mapping[str, int],
    where: Path,
) -> npt.NDArray[np.bool_]:
    """The masks of a stack out of a table.

    Parameters
    ----------
    table
        What `read_rle_table` gave.
    ids
        Of each slice; one that is not in the table has no contour.
    shape
        ``(rows, columns)`` of each slice.
    places
        Class -> index of its mask.
    where
        The table's file, for the error.

    Returns
    -------
    numpy.ndarray
        ``bool`` ``(organ, slice, row, column)``.

    Raises
    ------
    InputError
        A class is not in `places`, or run lengths are wrong (see `decode_rle`).
    """
    organs = max(places.values(), default=-1) + 1
    masks = np.zeros((organs, len(ids), *shape), dtype=np.bool_)
    for index, name in enumerate(ids):
        for kind, rle in table.get(name, {}).items():
            if kind not in places:
                raise InputError(
                    f"{where} has the unknown class {kind!r} for {name}: "
                    f"the classes are {', '.join(places)}."
                )
            masks[places[kind], index] |= decode_rle(
                rle, shape, name=f"{kind} in {name} of {where}"
            )
    return masks


# --- tables -----------------------------------------------------------------------------

_COLUMNS = ("id", "class", "segmentation")


def is_rle_table(csv: Path) -> bool:
    """Whether the file is there and has the columns: any project may have a train.csv."""
    try:
        with csv.open(encoding="utf-8-sig") as lines:
            return set(_COLUMNS) <= set(_split(lines.readline()))
    except (OSError, UnicodeDecodeError):
        return False


def read_rle_table(csv: str | Path) -> dict[str, dict[str, str]]:
    """Read a label table such as ``train.csv``.

    Parameters
    ----------
    csv
        The file; columns besides ``id``, ``class`` and ``segmentation`` are ignored.

    Returns
    -------
    dict
        Slice id -> organ name -> run lengths (see `decode_rle`). A slice that the table
        lists without a contour has an empty dict, an organ without a contour no entry.

    Raises
    ------
    InputError
        The file cannot be read or is not a label table.
    """
    path = Path(csv)
    table: dict[str, dict[str, str]] = {}
    try:
        # Not the csv module: a field can be longer than its limit, which is global.
        with path.open(encoding="utf-8-sig") as lines:
            places = _column_places(path, lines.readline())
            for number, line in enumerate(lines, start=2):
                if line.strip():
                    slice_name, organ, rle = _cells(path, number, line, places)
                    row = table.setdefault(slice_name, {})
                    if rle and row.setdefault(organ, rle) != rle:
                        raise InputError(
                            f"Line {number} of {path} has {organ!r} of {slice_name} a second time: "
                            "remove one of the two lines."
                        )
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError(
            f"The label table {path} cannot be read ({reason}): check that it is a CSV file."
        ) from error
    return table


def _split(line: str) -> list[str]:
    return [cell.strip().strip('"') for cell in line.split(",")]


def _column_places(path: Path, header: str) -> tuple[int, int, int]:
    names = _split(header)
    absent = [name for name in _COLUMNS if name not in names]
    if absent:
        raise InputError(
            f"{path} has no column {absent[0]!r}: a label table has the columns "
            f"{', '.join(_COLUMNS)}."
        )
    first, second, third = (names.index(name) for name in _COLUMNS)
    return first, second, third


def _cells(path: Path, number: int, line: str, places: tuple[int, int, int]) -> list[str]:
    cells = _split(line)
    if len(cells) <= max(places):
        raise InputError(
            f"Line {number} of {path} has {len(cells)} columns where the first line has more: "
            "correct that line."
        )
    return [cells[place] for place in places]


# --- segmentations ----------------------------------------------------------------------


def write_segmentation(segmentation: Segmentation, path: Path) -> None:
    """Write a segmentation as a table, one row for each slice and organ.

    Ids are made of the segmentation's name and its slice numbers, 1 to n where it has
    none. Overlapping organs stay as they are; regions to ignore are left out. What a table
    has no place for stands in ``NAME.csv.json`` beside it.

    Raises
    ------
    InputError
        A file cannot be written.
    """
    segmentation = without_ignored(segmentation)
    with replaced_file(path) as table, replaced_file(beside(path)) as notes:
        with table.open("w", encoding="utf-8") as out:
            out.write(",".join(_COLUMNS) + "\n")
            for index, number in enumerate(slice_numbers(segmentation)):
                name = slice_id(_day(segmentation.name), number)
                for organ, mask in zip(segmentation.organs, segmentation.masks, strict=True):
                    out.write(f"{name},{organ.name},{encode_rle(mask[index])}\n")
        notes.write_text(json.dumps(notes_of(segmentation)), encoding="utf-8")


def read_segmentation(
    path: str | Path,
    *,
    scan: Scan | None = None,
    choices: Mapping[str, str] | None = None,
) -> Segmentation:
    """Read the contours of one scan from a table; one written here comes back complete.

    Parameters
    ----------
    path
        The file.
    scan
        The scan that they belong to. Where no notes stand beside the table, rows are
        found by the scan's name and slice numbers; in a table of a single scan by their
        numbers alone, and a remark says so.
    choices
        Organ's name -> organ, or ``-`` to leave it out.

    Returns
    -------
    Segmentation
        Organs overlap as in the table. Classes that are no organs here get one by
        `gitract.organ_names`.

    Raises
    ------
    InputError
        The table is damaged, does not fit the scan, or nothing says how large a slice is.
    """
    csv = Path(path)
    table = read_rle_table(csv)
    segmentation = _noted(csv, table)
    if segmentation is None:
        if scan is None:
            raise InputError(
                f"{csv} does not say how large a slice is: "
                "give the scan that its contours belong to."
            )
        segmentation = _onto(scan, csv, table)
    elif scan is not None:
        segmentation = segmentation.on(scan)
    return renamed(segmentation, choices) if choices else segmentation


def _noted(csv: Path, table: Table) -> Segmentation | None:
    """The segmentation that was written, by the notes beside the table.

    None where there are none, or where they are not of this table: it has other slices
    or classes.
    """
    notes = read_beside(csv)
    if notes is None or not is_of_segmentation(notes):
        return None
    shape = _noted_shape(csv, notes)
    known = restored(notes, where=csv, shape=shape, spacing=None)
    if known is None:
        return None
    numbers = known["slice_numbers"] or range(1, shape[0] + 1)
    ids = [slice_id(_day(known["name"]), number) for number in numbers]
    places = {organ.name: index for index, organ in enumerate(known["organs"])}
    if len(ids) != shape[0] or set(ids) != set(table) or not places.keys() >= set(_classes(table)):
        return None
    masks = decode_masks(table, ids, shape[1:], places, csv)
    try:
        return Segmentation(masks=masks, **known)
    except InputError as error:
        raise InputError(f"In {beside(csv)}: {error}") from error


def _noted_shape(csv: Path, notes: Mapping[str, Any]) -> tuple[int, int, int]:
    try:
        slices, rows, columns = (int(size) for size in notes["shape"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{beside(csv)} is damaged: give the scan and remove it.") from error
    if min(slices, rows, columns) < 1 or slices * rows * columns > _MAX_VOXELS:
        raise InputError(
            f"{beside(csv)} claims {slices} slices of {columns} x {rows} pixels, which no scan "
            "has: give the scan and remove it."
        )
    return slices, rows, columns


def _classes(rows: Table) -> list[str]:
    """The classes that have a contour, in the order of the table."""
    return list(dict.fromkeys(kind for row in rows.values() for kind in row))


def _onto(scan: Scan, csv: Path, table: Table) -> Segmentation:
    """The contours that a table without notes has for a scan."""
    day, ids = _ids_on(scan, csv, table)
    own = {organ.name: organ for organ in ORGANS}
    unknown = [kind for kind in _classes({i: table[i] for i in ids if i}) if kind not in own]
    if unknown:
        found = OrganNames.load().assign(unknown)
        own.update({kind: organ for kind, organ in found.items() if organ is not None})
    organs = sorted(set(own.values()), key=lambda organ: organ.id)
    places = {kind: organs.index(organ) for kind, organ in own.items()}
    by_name = day == _day(scan.name) and scan.slice_numbers is not None
    remark = (
        f"The table's contours are of {day!r} and were put onto the slices of {scan.name!r} in the "
        "order of their numbers: check that they fit."
    )
    return Segmentation(
        masks=decode_masks(table, ids, scan.shape[1:], places, csv),
        spacing=scan.spacing,
        affine=scan.affine,
        organs=tuple(organs),
        name=scan.name,
        slice_numbers=scan.slice_numbers,
        stored=scan.stored,
        remarks=() if by_name else (remark,),
    )


def _ids_on(scan: Scan, csv: Path, table: Table) -> tuple[str, list[str]]:
    """The day of a table that a scan is, and the id of each slice, empty where it has none."""
    days = _ids_by_day(csv, table)
    day = _day(scan.name) if _day(scan.name) in days or len(days) != 1 else next(iter(days))
    if day not in days:
        there = ", ".join(list(days)[:8]) + (f" and {len(days) - 8} more" if len(days) > 8 else "")
        raise InputError(f"{csv} has no contours of {scan.name!r}: it has {there or 'no rows'}.")
    ids = days[day]
    if scan.slice_numbers is None:
        # Without numbers only a table with all slices tells which is which.
        if len(ids) != len(scan.voxels):
            raise InputError(
                f"{csv} has {len(ids)} slices of {day!r} where the scan {scan.name!r} has "
                f"{len(scan.voxels)}, without numbers: choose the scan that they were made on."
            )
        return day, [ids[number] for number in sorted(ids)]
    for number, name in ids.items():
        if table[name] and number not in scan.slice_numbers:
            raise InputError(
                f"{csv} has contours on slice {number} of {day!r}, which the scan {scan.name!r} "
                "does not have: choose the scan that they were made on."
            )
    return day, [ids.get(number, "") for number in scan.slice_numbers]
