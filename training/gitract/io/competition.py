"""The layout of the UW-Madison GI Tract competition.

A day of a patient is a folder ``caseN/caseN_dayM/scans`` of greyscale PNG slices called
``slice_NUMBER_WIDTH_HEIGHT_SX_SY.png`` (1-based number, pixels, mm); the thickness of a
slice, 3 mm, is in no file. Labels of all days are in one ``train.csv`` of run lengths
(`gitract.io.rle`). Folders that are written here hold ``gitract.json`` besides, with what
file names have no place for.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gitract.errors import InputError
from gitract.io._labels import label_values, segmentation_of, whole_numbers
from gitract.io._notes import is_of_segmentation, notes_of, parsed, restored
from gitract.io.found import ONE_SLICE, FoundScan
from gitract.io.png import read_grey_png, write_grey_png
from gitract.io.rle import decode_masks, is_rle_table, read_rle_table, slice_id
from gitract.organs import ORGANS
from gitract.progress import Progress, Report, silent
from gitract.replacing import replaced_folder
from gitract.scan import Scan, Segmentation, Spacing, scaled_affine

__all__ = [
    "EXAMPLE_NAME",
    "FAULTY_DAYS",
    "SLICE_THICKNESS_MM",
    "SliceFile",
    "can_read_folder",
    "find_days",
    "holds_labels",
    "label_names",
    "list_slices",
    "read_day",
    "read_day_reference",
    "read_segmentation",
    "slice_file_name",
    "write_scan",
    "write_segmentation",
]

SLICE_THICKNESS_MM = 3.0
"""Known from the paper of the data set; the files do not say it."""

FAULTY_DAYS = frozenset(
    {
        "case7_day0",
        "case9_day27",
        "case13_day0",
        "case34_day20",
        "case43_day18",
        "case43_day26",
        "case61_day14",
        "case81_day30",
        "case83_day11",
        "case124_day19",
        "case138_day0",
        "case144_day15",
    }
)
"""Days whose contours have known issues, by the authors of the data set: the function
``get_blacklist_case_ids`` of github.com/happyharrycn/UW-Madison-GI-Tract-Segmentation-Data-Tools,
and the host's posts in the competition's discussion on Kaggle."""

EXAMPLE_NAME = "slice_0001_266_266_1.50_1.50.png"
_NOTES_NAME = "gitract.json"
_NAME = re.compile(
    r"slice_(\d{1,9})_(\d{1,9})_(\d{1,9})_(\d+(?:\.\d+)?)_(\d+(?:\.\d+)?)\.png", re.IGNORECASE
)
_MAX_VOXELS = 4_000_000_000
_MAX_SIDE = 65535
# Decoding releases the interpreter; a few at least, since a share on a network answers slowly.
_READERS = max(4, os.cpu_count() or 1)


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
    day = folder.parent if folder.name == "scans" else folder
    return day.name.removesuffix(".png")


def _slices_in(scans: Path) -> list[SliceFile]:
    slices = sorted(_parsed(scans / name) for name in _slice_names(scans))
    for one, other in zip(slices, slices[1:], strict=False):
        if one.number == other.number:
            raise InputError(
                f"Slice {one.number} stands twice in {scans}, as {one.path.name} and "
                f"{other.path.name}: remove one of them."
            )
    return slices


def _slice_names(scans: Path) -> list[str]:
    """The names of slices in a folder, one at least."""
    try:
        names = [name for name in os.listdir(scans) if _is_slice_name(name)]
    except OSError as error:
        raise InputError(
            f"The folder {scans} cannot be read ({error.strerror}): "
            "check that it is there and permitted."
        ) from error
    if not names:
        raise InputError(
            f"{scans} holds no slices named like {EXAMPLE_NAME}: choose the folder of one day."
        )
    return names


def _parsed(path: Path) -> SliceFile:
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise InputError(
            f"{path.name} in {path.parent} is not named like {EXAMPLE_NAME} "
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
    """The slices of a folder, checked that they make one stack without holes."""
    slices = _slices_in(scans)
    _check_stack(scans, slices)
    return slices


def _check_stack(scans: Path, slices: Sequence[SliceFile]) -> None:
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
    width, height = slices[0].width, slices[0].height
    if max(width, height) > _MAX_SIDE or len(slices) * width * height > _MAX_VOXELS:
        raise InputError(
            f"{scans} names {len(slices)} slices of {width} x {height} pixels, "
            "too many for one scan: check the file names."
        )


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


# --- pixels and notes of a folder -------------------------------------------------------


def _read_voxels(
    slices: Sequence[SliceFile], name: str = "", report: Report = silent
) -> np.ndarray:
    """The pixels of a stack, ``uint8`` or ``uint16`` ``(slice, row, column)``."""
    shape = (slices[0].height, slices[0].width)
    first = read_grey_png(slices[0].path, shape=shape)
    voxels = np.empty((len(slices), *shape), first.dtype)

    def fill(index: int) -> str:
        pixels = read_grey_png(slices[index].path, shape=shape)
        if pixels.dtype == voxels.dtype:
            voxels[index] = pixels
        return f"{8 * pixels.itemsize} bits a pixel"

    depths: list[str] = []
    pool = ThreadPoolExecutor(_READERS)
    try:
        for depth in pool.map(fill, range(len(slices))):
            depths.append(depth)
            report(Progress(len(depths), len(slices), f"Reading {name}"))
    finally:
        pool.shutdown(cancel_futures=True)
    _check_alike(slices[0].path.parent, slices, depths)
    return voxels


def _write_slices(voxels: np.ndarray, item: Scan | Segmentation, path: Path) -> None:
    """Write pixels of 8 or 16 bits and the notes of their scan or segmentation."""
    numbers = _file_numbers(item.slice_numbers, len(voxels))
    _check_replaces_its_kind(item, path)
    with replaced_folder(path, lambda name: _is_slice_name(name) or name == _NOTES_NAME) as new:
        for pixels, number in zip(voxels, numbers, strict=True):
            write_grey_png(pixels, new / slice_file_name(number, item.shape[1:], item.spacing))
        (new / _NOTES_NAME).write_text(json.dumps(notes_of(item)), encoding="utf-8")


def _check_replaces_its_kind(item: Scan | Segmentation, path: Path) -> None:
    """Refuse to put labels in the place of a scan's slices, or a scan in that of labels."""
    notes = _notes(path)
    same_kind = notes is not None and is_of_segmentation(notes) == isinstance(item, Segmentation)
    if not same_kind and _holds_slices(path, None):
        raise InputError(
            f"{path} holds other slices, which would be replaced: choose another name."
        )


def _file_numbers(numbers: Sequence[int] | None, count: int) -> list[int]:
    """The numbers in file names: a scan's own where they keep the order of its slices."""
    own = list(numbers or ())
    in_order = own and own[0] >= 0 and own == list(range(own[0], own[0] + count))
    return own if in_order else list(range(1, count + 1))


def _notes(scans: Path) -> dict[str, Any] | None:
    """Our notes in a folder, or None."""
    try:
        return parsed((scans / _NOTES_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # ValueError: not UTF-8, or a path with a null character
        return None


def _restored(scans: Path, slices: Sequence[SliceFile]) -> dict[str, Any] | None:
    """What the notes in a folder say of its geometry and organs.

    None where there are none, or where the slices are no longer those that were written.
    """
    shape = (len(slices), slices[0].height, slices[0].width)
    known = restored(_notes(scans), where=scans, shape=shape, spacing=None)
    if known is None:
        return None
    numbers = _file_numbers(known["slice_numbers"], len(slices))
    in_plane = np.allclose(known["spacing"][1:], slices[0].spacing[1:], rtol=1e-3)
    return known if in_plane and numbers == [file.number for file in slices] else None


def _geometry(scans: Path, slices: Sequence[SliceFile]) -> dict[str, Any]:
    """Where a stack lies and what it is called: arguments that scans and masks share."""
    known = _restored(scans, slices)
    if known is None:
        return {
            "spacing": slices[0].spacing,
            "name": _day_name(scans),
            "slice_numbers": tuple(file.number for file in slices),
        }
    return {key: value for key, value in known.items() if key not in ("organs", "provenance")}


# --- scans ------------------------------------------------------------------------------


def find_days(path: str | Path) -> list[FoundScan]:
    """The days in a folder, from file names alone.

    Parameters
    ----------
    path
        A day (``case20_day0``), its ``scans`` folder, a case, or a whole data set: the
        folder of the cases or the one that holds it as ``train``.

    Returns
    -------
    list of FoundScan
        In the order of their numbers, ``case2`` before ``case10``. A day that lacks
        slices is among them, with the reason why it would be refused.

    Raises
    ------
    InputError
        The folder cannot be read or holds no day.
    """
    folder = _absolute(path)
    days = sorted(set(_days_in(folder)), key=lambda day: _natural(str(day)))
    if not days:
        _slice_names(_scans_folder(folder))  # says what is wrong
        days = [folder]
    names = Counter(_day_name(day) for day in days)
    return [
        # Where two patients' days are called alike their folders tell them apart.
        _found(day, _day_name(day) if names[_day_name(day)] == 1 else _below(day, folder))
        for day in days
    ]


def _found(day: Path, key: str) -> FoundScan:
    scans = _scans_folder(day)
    shape, problem = (0, 0, 0), ""
    try:
        slices = _slices_in(scans)
        (height, width), _ = Counter((s.height, s.width) for s in slices).most_common(1)[0]
        shape = (len(slices), height, width)
        _check_scan(day, slices)
    except InputError as error:
        problem = str(error)
    return FoundScan(key, day, "", shape, problem=problem, remarks=_remarks(_day_name(day)))


def _below(day: Path, folder: Path) -> str:
    return day.relative_to(folder).as_posix()


def _natural(text: str) -> list[str | int]:
    """A key that sorts numbers in names by their value."""
    return [int(part) if index % 2 else part for index, part in enumerate(_DIGITS.split(text))]


_DIGITS = re.compile(r"([0-9]+)")


def _check_scan(day: Path, slices: Sequence[SliceFile]) -> None:
    """Refuse what is no scan though its names can be read."""
    _check_stack(_scans_folder(day), slices)
    if len(slices) == 1:
        raise InputError(ONE_SLICE.format(day))


def _remarks(day: str) -> tuple[str, ...]:
    if day not in FAULTY_DAYS:
        return ()
    remark = (
        f"The authors of the data set list {day} among the days whose contours have known issues: "
        "look at them before you rely on them."
    )
    return (remark,)


def read_day(
    folder: str | Path, *, spacing: Spacing | None = None, report: Report = silent
) -> Scan:
    """Read the scan of one day, or a folder that `write_scan` wrote.

    Parameters
    ----------
    folder
        A day (``case20_day0``) or its ``scans`` folder.
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
        Slices are absent, missing in between, not alike, or damaged; or there is but one.
    """
    day = _absolute(folder)
    scans = _scans_folder(day)
    slices = _slices_in(scans)
    _check_scan(day, slices)
    known = _geometry(scans, slices)
    scan = Scan(
        voxels=_read_voxels(slices, known["name"], report),
        source=day,
        remarks=_remarks(_day_name(day)),
        **known,
    )
    if spacing is None:
        return scan
    spaced = replace(scan, spacing=spacing, affine=None)  # type: ignore[arg-type]  # filled in
    return replace(spaced, affine=scaled_affine(scan.affine, spaced.spacing))


def write_scan(scan: Scan, path: Path) -> None:
    """Write a scan as a folder of PNG slices named as in the competition.

    ``uint8`` stays 8 bit; other whole numbers become 16 bit, with their values unchanged.
    ``gitract.json`` beside the slices keeps what their names have no place for.

    Raises
    ------
    InputError
        The values are no whole numbers from 0 to 65535, the folder cannot be written, or
        it holds other files.
    """
    check_scan(scan)
    voxels = scan.voxels
    pixels = voxels if voxels.dtype == np.uint8 else voxels.astype(np.uint16, copy=False)
    _write_slices(pixels, scan, path)


def check_scan(scan: Scan) -> None:
    """Refuse a scan that PNG slices cannot hold.

    Raises
    ------
    InputError
        Its values are no whole numbers from 0 to 65535.
    """
    voxels = scan.voxels
    if voxels.dtype.kind == "f":
        raise InputError(
            f"{scan.name} holds fractions ({voxels.dtype}) where PNG slices hold whole numbers: "
            "save it as .nii.gz or .tif."
        )
    low, high = int(voxels.min()), int(voxels.max())
    if low < 0 or high > np.iinfo(np.uint16).max:
        raise InputError(
            f"{scan.name} holds values from {low} to {high} where PNG slices hold 0 to 65535: "
            "save it as .nii.gz or .tif."
        )


# --- which folders hold days ------------------------------------------------------------

# A viewer asks about every folder that is dropped on it, so that answer looks at a bounded
# number of entries: about a millisecond, however many files there are.
_ENTRIES_LOOKED_AT = 1000
_FOLDERS_LOOKED_AT = 100


def can_read_folder(path: str | Path) -> bool:
    """Whether a folder looks like a day, its ``scans``, a case or a data set; never raises.

    Only the first names in the folder and in those below are looked at, and no pixel is read.
    """
    folder = Path(path)
    return any(_days_in(folder, entries=_ENTRIES_LOOKED_AT, folders=_FOLDERS_LOOKED_AT))


def _days_in(
    folder: Path, *, entries: int | None = None, folders: int | None = None
) -> Iterator[Path]:
    """The folder itself where it is a day, else the days below it, some of them twice.

    Where they are given at most `entries` of each folder and `folders` below it are looked at.
    """
    if _holds_slices(folder, entries) or _holds_slices(folder / "scans", entries):
        yield folder
        return
    for below in islice(_folders_below(folder, entries), folders):
        if _holds_slices(below / "scans", entries):
            yield below


def _folders_below(folder: Path, entries: int | None) -> Iterator[Path]:
    """Where days are in a case and in a data set, which is looked at first."""
    for root in (folder / "train", folder):
        for child in _children(root, entries):
            yield child
            yield from _children(child, entries)


def _children(folder: Path, entries: int | None) -> list[Path]:
    """The folders in a folder."""
    return [Path(entry.path) for entry in _entries(folder, entries) if _is_folder(entry)]


def _holds_slices(folder: Path, entries: int | None) -> bool:
    return any(_is_slice_name(entry.name) for entry in _entries(folder, entries))


def _entries(folder: Path, at_most: int | None) -> list[os.DirEntry[str]]:
    """The first entries of a folder, or all; none where it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return list(islice(entries, at_most))
    except (OSError, ValueError):  # ValueError: a path with a null character
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


# --- reference labels of a day ----------------------------------------------------------

_TABLE_NAME = "train.csv"
_LEVELS_SEARCHED = 4


def read_day_reference(
    folder: str | Path, *, spacing: Spacing | None = None
) -> Segmentation | None:
    """The contours that the competition's ``train.csv`` has for a day.

    Parameters
    ----------
    folder
        As in `read_day`. The table is looked for in the day's folder and in the four
        folders above it.
    spacing
        As in `read_day`.

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
    day = _absolute(folder)
    name, scans = _day_name(day), _scans_folder(day)
    tables = [parent / _TABLE_NAME for parent in (day, *day.parents[:_LEVELS_SEARCHED])]
    for csv in filter(is_rle_table, tables):
        table = read_rle_table(csv)
        slices = _stack_of(scans)
        ids = [slice_id(name, file.number) for file in slices]
        if any(table.get(one) for one in ids):
            places = {organ.name: index for index, organ in enumerate(ORGANS)}
            shape = (slices[0].height, slices[0].width)
            found = Segmentation(
                masks=decode_masks(table, ids, shape, places, csv),
                remarks=_remarks(name),
                **_geometry(scans, slices),
            )
            if spacing is None:
                return found
            return replace(found, spacing=spacing, affine=scaled_affine(found.affine, spacing))
    return None


# --- folders of label slices ------------------------------------------------------------


def holds_labels(path: str | Path) -> bool:
    """Whether a folder was written by `write_segmentation`; never raises."""
    return is_of_segmentation(_notes(_scans_folder(Path(path))))


def read_segmentation(
    path: str | Path,
    *,
    scan: Scan | None = None,
    spacing: Spacing | None = None,
    choices: Mapping[str, str] | None = None,
) -> Segmentation:
    """Read a folder of label slices; one written by `write_segmentation` comes back complete.

    Parameters
    ----------
    path
        The folder.
    scan
        The scan that the labels belong to; its slice numbers must be those of the files.
    spacing
        ``(slice, row, column)`` in mm, in place of what the file names say.
    choices
        As in `gitract.io.read_segmentation`; a name is a value, as text.

    Raises
    ------
    InputError
        Slices are missing, damaged or not alike, a value is no organ's, or the labels do
        not fit the scan.
    """
    folder = _absolute(path)
    scans = _scans_folder(folder)
    slices = _stack_of(scans)
    _check_numbers(folder, slices, scan)
    known = _restored(scans, slices)
    if spacing is None and known is None:
        # The thickness is in no file name, so that a scan's own is as good as the usual one.
        slice_mm = SLICE_THICKNESS_MM if scan is None else scan.spacing[0]
        spacing = (slice_mm, *slices[0].spacing[1:])
    return segmentation_of(
        whole_numbers(_read_voxels(slices), folder),
        where=folder,
        spacing=spacing,
        notes=None if known is None else _notes(scans),
        slice_numbers=[file.number for file in slices],
        scan=scan,
        choices=choices,
    )


def label_names(path: Path) -> list[str]:
    """The values in label slices as text; nothing where our notes have their organ table.

    Raises
    ------
    InputError
        Slices are missing, damaged or not alike, or are no label images.
    """
    folder = _absolute(path)
    scans = _scans_folder(folder)
    slices = _stack_of(scans)
    known = _restored(scans, slices)
    if known is not None and "organs" in known:
        return []
    return [str(value) for value in label_values(whole_numbers(_read_voxels(slices), folder))]


def _check_numbers(folder: Path, slices: Sequence[SliceFile], scan: Scan | None) -> None:
    """Refuse labels of other slices: the competition's geometry alone would not tell."""
    if scan is None or scan.slice_numbers is None:
        return
    numbers = [file.number for file in slices]
    expected = _file_numbers(scan.slice_numbers, len(scan.voxels))
    if numbers != expected:
        raise InputError(
            f"{folder} holds slices {numbers[0]} to {numbers[-1]} where the scan {scan.name!r} "
            f"has {expected[0]} to {expected[-1]}: choose the scan that they were made on."
        )


def write_segmentation(segmentation: Segmentation, path: Path) -> None:
    """Write a segmentation as a folder of PNG label slices, named like the scan's.

    Values are organ ids; where organs overlap the highest id is written. ``gitract.json``
    beside the slices keeps organs, provenance and what file names have no place for.

    Raises
    ------
    InputError
        The folder cannot be written, or holds other files.
    """
    _write_slices(segmentation.labels().array, segmentation, path)
