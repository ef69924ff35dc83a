"""The layout of the UW-Madison GI Tract competition.

A day of a patient is a folder ``caseN/caseN_dayM/scans`` of greyscale PNG slices called
``slice_NUMBER_WIDTH_HEIGHT_SX_SY.png`` (1-based number, pixels, mm); the thickness of a
slice, 3 mm, is in no file. Labels of all days are in one ``train.csv`` with the columns
``id,class,segmentation``: run lengths, row-major, 1-based, one row for each slice and
organ, so organs may overlap.
"""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gitract.errors import InputError
from gitract.io._files import replaced_file, replaced_folder
from gitract.io.png import read_grey_png, write_grey_png
from gitract.organs import ORGANS
from gitract.progress import Progress, Report, silent
from gitract.scan import Scan, Segmentation, Spacing

__all__ = [
    "SLICE_THICKNESS_MM",
    "SliceFile",
    "can_read_folder",
    "decode_rle",
    "encode_rle",
    "list_slices",
    "read_day",
    "read_day_reference",
    "read_rle_table",
    "slice_file_name",
    "slice_id",
    "write_label_slices",
    "write_rle_table",
]

SLICE_THICKNESS_MM = 3.0
"""Known from the paper of the data set; the files do not say it."""

_EXAMPLE = "slice_0001_266_266_1.50_1.50.png"
_NAME = re.compile(
    r"slice_(\d{1,9})_(\d{1,9})_(\d{1,9})_(\d+(?:\.\d+)?)_(\d+(?:\.\d+)?)\.png", re.IGNORECASE
)
_MAX_VOXELS = 4_000_000_000
_READERS = 4


# --- slices of a day --------------------------------------------------------------------


class SliceFile(NamedTuple):
    """One slice, as its file name describes it.

    `number` is the competition's, 1-based; `width` and `height` are in pixels; `spacing`
    is ``(slice, row, column)`` in mm.
    """

    number: int
    path: Path
    width: int
    height: int
    spacing: Spacing


def slice_id(day: str, number: int) -> str:
    """The id of a slice in the label table: ``case20_day0_slice_0001``."""
    return f"{day}_slice_{number:04d}"


def slice_file_name(number: int, shape: tuple[int, int], spacing: Spacing) -> str:
    """The file name of a slice.

    Parameters
    ----------
    number
        1-based.
    shape
        ``(rows, columns)``.
    spacing
        ``(slice, row, column)`` in mm.
    """
    rows, columns = shape
    # Two decimals as in the competition, more where two would change the spacing.
    row_mm, column_mm = (
        np.format_float_positional(mm, trim="k", min_digits=2) for mm in spacing[1:]
    )
    return f"slice_{number:04d}_{columns}_{rows}_{column_mm}_{row_mm}.png"


def list_slices(folder: str | Path) -> list[SliceFile]:
    """The slices of a day, by number, from their file names alone.

    Parameters
    ----------
    folder
        A day (``case20_day0``) or its ``scans`` folder.

    Raises
    ------
    InputError
        There is no slice, a name cannot be read, or a number stands twice.
    """
    return _slices_in(_scans_folder(_absolute(folder)))


def _absolute(path: str | Path) -> Path:
    """The path with ``.`` and ``..`` resolved, so that its last part is a name."""
    return Path(os.path.abspath(path))


def _is_slice_name(name: str) -> bool:
    return name.startswith("slice_") and name.lower().endswith(".png")


def _scans_folder(folder: Path) -> Path:
    """Where the slices of a day are: the folder itself or its ``scans``."""
    scans = folder / "scans"
    return scans if scans.is_dir() else folder


def _day_name(folder: Path) -> str:
    return folder.parent.name if folder.name == "scans" else folder.name


def _slices_in(scans: Path) -> list[SliceFile]:
    try:
        names = [name for name in os.listdir(scans) if _is_slice_name(name)]
    except OSError as error:
        raise InputError(
            f"The folder {scans} cannot be read ({error.strerror}): "
            "check that it is there and permitted."
        ) from error
    if not names:
        raise InputError(
            f"{scans} holds no slices named like {_EXAMPLE}: choose the folder of one day."
        )
    slices = sorted(_parsed(scans / name) for name in names)
    for one, other in zip(slices, slices[1:], strict=False):
        if one.number == other.number:
            raise InputError(
                f"Slice {one.number} stands twice in {scans}, as {one.path.name} and "
                f"{other.path.name}: remove one of them."
            )
    return slices


def _parsed(path: Path) -> SliceFile:
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise InputError(
            f"{path.name} in {path.parent} is not named like {_EXAMPLE} "
            "(number, width, height, spacing): rename or remove it."
        )
    number, width, height = (int(text) for text in match.groups()[:3])
    column_mm, row_mm = (float(text) for text in match.groups()[3:])
    if 0 in (width, height, column_mm, row_mm):
        raise InputError(
            f"{path.name} in {path.parent} names a size or spacing of zero: rename or remove it."
        )
    return SliceFile(number, path, width, height, (SLICE_THICKNESS_MM, row_mm, column_mm))


def _stack_of(scans: Path) -> list[SliceFile]:
    """The slices of a day, checked that they make one stack without holes."""
    slices = _slices_in(scans)
    _check_alike(scans, slices, [f"{s.width} x {s.height} pixels" for s in slices])
    _check_alike(
        scans, slices, [f"a spacing of {s.spacing[2]:g} x {s.spacing[1]:g} mm" for s in slices]
    )
    missing = _missing_numbers([s.number for s in slices])
    if missing:
        raise InputError(
            f"{scans} lacks {missing}: add the missing files, since a stack with holes "
            "puts organs in the wrong place."
        )
    if len(slices) * slices[0].width * slices[0].height > _MAX_VOXELS:
        raise InputError(
            f"{scans} names {len(slices)} slices of {slices[0].width} x {slices[0].height} "
            "pixels, too many for one scan: check the file names."
        )
    return slices


def _check_alike(scans: Path, slices: Sequence[SliceFile], values: Sequence[str]) -> None:
    """Refuse a stack where a slice differs from the others, and name that slice."""
    usual = Counter(values).most_common(1)[0][0]
    for file, value in zip(slices, values, strict=True):
        if value != usual:
            raise InputError(
                f"{file.path.name} in {scans} has {value} where the other slices have "
                f"{usual}: a scan needs slices that are all alike."
            )


def _missing_numbers(numbers: Sequence[int]) -> str:
    """What lacks between the first and the last number: ``slices 86 to 89, 91``."""
    gaps = [
        (one + 1, other - 1)
        for one, other in zip(numbers, numbers[1:], strict=False)
        if other > one + 1
    ]
    if not gaps:
        return ""
    parts = [f"{first}" if first == last else f"{first} to {last}" for first, last in gaps]
    if len(parts) > 4:
        parts = [*parts[:3], f"{len(parts) - 3} more gaps"]
    text = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + f" and {parts[-1]}"
    return f"{'slice' if text.isdigit() else 'slices'} {text}"


# --- scans ------------------------------------------------------------------------------


def read_day(
    folder: str | Path, *, spacing: Spacing | None = None, report: Report = silent
) -> Scan:
    """Read the scan of one day.

    Parameters
    ----------
    folder
        A day (``case20_day0``), its ``scans`` folder, or a case with one day.
    spacing
        ``(slice, row, column)`` in mm, in place of what the file names say.
    report
        Called once for each slice.

    Returns
    -------
    Scan
        ``uint8`` or ``uint16`` voxels as stored, slices by number.

    Raises
    ------
    InputError
        Slices are absent, missing in between, not alike, or damaged; or the case has
        several days.
    """
    day = _day_folder(_absolute(folder))
    slices = _stack_of(_scans_folder(day))
    name = _day_name(day)
    pixels: list[np.ndarray] = []
    pool = ThreadPoolExecutor(_READERS)
    try:
        for array in pool.map(_pixels, slices):
            pixels.append(array)
            report(Progress(len(pixels), len(slices), f"Reading {name}"))
    finally:
        pool.shutdown(cancel_futures=True)
    _check_alike(slices[0].path.parent, slices, [f"{8 * a.itemsize} bits a pixel" for a in pixels])
    return Scan(
        voxels=np.stack(pixels),
        spacing=slices[0].spacing if spacing is None else spacing,
        name=name,
        source=day,
        slice_numbers=tuple(s.number for s in slices),
    )


def _pixels(file: SliceFile) -> np.ndarray:
    return read_grey_png(file.path, shape=(file.height, file.width))


def _day_folder(folder: Path) -> Path:
    """The day that a folder stands for: itself, or the only day of a case."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: choose the folder of one day.")
    if _holds_slices(folder) or _holds_slices(folder / "scans"):
        return folder
    days = sorted(child for child in _children(folder) if _holds_slices(child / "scans"))
    if len(days) > 1:
        names = ", ".join(day.name for day in days[:8])
        more = f" and {len(days) - 8} more" if len(days) > 8 else ""
        raise InputError(f"{folder} holds several days ({names}{more}): choose one of them.")
    return days[0] if days else folder


# --- is this folder ours ----------------------------------------------------------------

# A viewer asks about every folder that is dropped on it, so the answer looks at a bounded
# number of entries: about a millisecond, however many files there are.
_ENTRIES_LOOKED_AT = 1000
_CHILDREN_LOOKED_AT = 50


def can_read_folder(path: str | Path) -> bool:
    """Whether a folder looks like a day, its ``scans``, or a case; never raises.

    Only the first names in the folder are looked at and no pixel is read.
    """
    folder = Path(path)
    return (
        _holds_slices(folder)
        or _holds_slices(folder / "scans")
        or any(_holds_slices(child / "scans") for child in _children(folder))
    )


def _first_entries(folder: Path) -> list[os.DirEntry[str]]:
    """The first entries of a folder; none where it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return list(islice(entries, _ENTRIES_LOOKED_AT))
    except (OSError, ValueError):  # ValueError: a path with a null character
        return []


def _holds_slices(folder: Path) -> bool:
    return any(_is_slice_name(entry.name) for entry in _first_entries(folder))


def _children(folder: Path) -> list[Path]:
    """The first folders in a folder."""
    entries = _first_entries(folder)
    return [Path(e.path) for e in entries if _is_folder(e)][:_CHILDREN_LOOKED_AT]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


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


# --- label tables -----------------------------------------------------------------------

_COLUMNS = ("id", "class", "segmentation")


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
                    if rle:
                        row[organ] = rle
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


def write_rle_table(segmentation: Segmentation, path: Path) -> None:
    """Write a segmentation as a label table, one row for each slice and organ.

    Ids are made of the segmentation's name, without the characters that a table cannot
    hold, and its slice numbers, 1 to n where it has none. Overlapping organs stay as they are.

    Raises
    ------
    InputError
        The file cannot be written.
    """
    name = re.sub(r'[,"\r\n]', "_", segmentation.name)
    with replaced_file(path) as temporary, temporary.open("w", encoding="utf-8") as out:
        out.write(",".join(_COLUMNS) + "\n")
        for index, number in enumerate(_numbers(segmentation)):
            for organ, mask in zip(segmentation.organs, segmentation.masks, strict=True):
                rle = encode_rle(mask[index])
                out.write(f"{slice_id(name, number)},{organ.name},{rle}\n")


def _numbers(segmentation: Segmentation) -> Sequence[int]:
    return segmentation.slice_numbers or range(1, segmentation.shape[0] + 1)


# --- reference labels of a day ----------------------------------------------------------

_TABLE_NAME = "train.csv"
_LEVELS_SEARCHED = 4


def read_day_reference(folder: str | Path) -> Segmentation | None:
    """The contours that the competition's ``train.csv`` has for a day.

    Parameters
    ----------
    folder
        As in `read_day`. The table is looked for in the day's folder and in the four
        folders above it.

    Returns
    -------
    Segmentation or None
        On the grid of the day's scan; None where there is no table, the day is not in
        it, or has no contour at all.

    Raises
    ------
    InputError
        The day or the table cannot be read, or contradict each other.
    """
    day = _day_folder(_absolute(folder))
    name = _day_name(day)
    tables = [parent / _TABLE_NAME for parent in (day, *day.parents[:_LEVELS_SEARCHED])]
    for csv in filter(_is_rle_table, tables):
        table = read_rle_table(csv)
        slices = _stack_of(_scans_folder(day))
        rows = [table.get(slice_id(name, file.number), {}) for file in slices]
        if any(rows):
            return _reference(csv, name, slices, rows)
    return None


def _is_rle_table(csv: Path) -> bool:
    """Whether the file is there and has the columns: any project may have a train.csv."""
    try:
        with csv.open(encoding="utf-8-sig") as lines:
            return set(_COLUMNS) <= set(_split(lines.readline()))
    except (OSError, UnicodeDecodeError):
        return False


def _reference(
    csv: Path, name: str, slices: Sequence[SliceFile], rows: Sequence[Mapping[str, str]]
) -> Segmentation:
    shape = (slices[0].height, slices[0].width)
    place = {organ.name: index for index, organ in enumerate(ORGANS)}
    masks = np.zeros((len(ORGANS), len(slices), *shape), dtype=np.bool_)
    for index, (file, row) in enumerate(zip(slices, rows, strict=True)):
        for organ, rle in row.items():
            if organ not in place:
                raise InputError(
                    f"{csv} has the unknown class {organ!r} for {slice_id(name, file.number)}: "
                    f"the classes are {', '.join(place)}."
                )
            label = f"{organ} in {slice_id(name, file.number)} of {csv}"
            masks[place[organ], index] = decode_rle(rle, shape, name=label)
    return Segmentation(
        masks=masks,
        spacing=slices[0].spacing,
        name=name,
        slice_numbers=tuple(file.number for file in slices),
    )


# --- folders of label slices ------------------------------------------------------------


def write_label_slices(segmentation: Segmentation, path: Path) -> None:
    """Write a segmentation as a folder of PNG label slices, named like the scan's.

    Values are organ ids; where organs overlap the highest id is written. The files hold
    neither the slice thickness nor the position of the scan.

    Raises
    ------
    InputError
        The folder cannot be written, or holds other files.
    """
    labels = segmentation.labels().array
    with replaced_folder(path, _is_slice_name) as temporary:
        for pixels, number in zip(labels, _numbers(segmentation), strict=True):
            name = slice_file_name(number, segmentation.shape[1:], segmentation.spacing)
            write_grey_png(pixels, temporary / name)
