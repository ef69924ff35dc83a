"""Days in the competition's layout with their rows of ``train.csv``."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gitract.errors import InputError
from gitract.io.competition import FAULTY_DAYS, SliceFile, list_slices
from gitract.io.png import read_grey_png
from gitract.io.rle import Table, decode_masks, is_rle_table, read_rle_table, slice_id
from gitract.labelled.folders import folders_below
from gitract.labelled.found import Fault, LabelledRun, LabelledScan, OnFault
from gitract.labelled.organs import named_organ, table_of
from gitract.organ_names import OrganNames
from gitract.organs import ORGANS, Organ
from gitract.progress import Progress, Report
from gitract.scan import Scan, Segmentation

if TYPE_CHECKING:
    from gitract.recipe import CompetitionSource

__all__ = ["competition_roots", "find_days"]

_TABLE = "train.csv"
_LEVELS = 3


def competition_roots(folder: Path) -> list[Path]:
    """The folders with a ``train.csv`` of run lengths: `folder` itself, or some below it."""
    if is_rle_table(folder / _TABLE):
        return [folder]
    roots: list[Path] = []
    for place, names in folders_below(folder, depth=_LEVELS):
        inside = any(root in place.parents for root in roots)
        if not inside and _TABLE in names and is_rle_table(place / _TABLE):
            roots.append(place)
    return roots


def find_days(
    source: "CompetitionSource",
    folder: Path,
    organs: Sequence[Organ],
    on_fault: OnFault,
    report: Report,
) -> list[LabelledScan]:
    """The outlined days of a folder; one that nobody outlined is none of them.

    Raises
    ------
    InputError
        There is no table, or it cannot be read.
    """
    roots = competition_roots(folder)
    if not roots:
        raise InputError(
            f"{folder} holds no {_TABLE} with the columns id, class and segmentation: give the "
            "folder of the competition's data that holds it beside train/."
        )
    names = table_of(OrganNames.load())
    found: list[LabelledScan] = []
    for root in roots:
        table = read_rle_table(root / _TABLE)
        days = {path.name: path for path in sorted((root / "train").glob("case*/case*_day*"))}
        outlined = _outlined(table)
        for name in sorted(days.keys() - outlined.keys()):
            on_fault(Fault(name, "It has no contours, so nothing can be learned from it."))
        for name, rows in sorted(outlined.items()):
            report(Progress(len(found), 0, f"Looking at {name}"))
            try:
                day = _day(root, name, days.get(name), rows, on_fault)
            except InputError as error:
                on_fault(Fault(name, str(error)))
                continue
            found.append(
                LabelledScan(
                    name=name,
                    patient=name.split("_")[0],
                    files=(*(file.path for file in day.slices), day.table),
                    source=source,
                    settings={
                        "kind": source.kind,
                        "day": name,
                        "organs": [organ.name for organ in organs],
                        "names": names,
                    },
                    reader=partial(_read, day, tuple(organs)),
                )
            )
    return found


@dataclass(frozen=True)
class _Day:
    """The slices of a day that the table has, and their rows there."""

    name: str
    folder: Path
    table: Path
    slices: tuple[SliceFile, ...]
    rows: Table


def _outlined(table: Table) -> dict[str, dict[str, Mapping[str, str]]]:
    """Day -> slice id -> rows, of the days that have a contour: empty rows alone mean nothing."""
    days: dict[str, dict[str, Mapping[str, str]]] = defaultdict(dict)
    for name, row in table.items():
        days[name.split("_slice_")[0]][name] = row
    return {day: rows for day, rows in days.items() if any(rows.values())}


def _day(root: Path, name: str, folder: Path | None, rows: Table, on_fault: OnFault) -> _Day:
    """A day that can be used; refuses those whose contours are known to be faulty."""
    table = root / _TABLE
    if folder is None:
        raise InputError(
            f"{table} outlines {name}, which is not in {root / 'train'}: add its folder."
        )
    if name in FAULTY_DAYS:
        raise InputError(
            f"{name} is among the days whose contours have known issues, by the authors of the "
            "data set: it is neither trained nor evaluated on."
        )
    slices = tuple(f for f in list_slices(folder) if slice_id(name, f.number) in rows)
    there = {slice_id(name, file.number) for file in slices}
    lost = [one for one in rows if one not in there]
    if not slices:
        raise InputError(
            f"None of the slices that {table} has of {name} is in {folder}: "
            "check that both are of one data set."
        )
    if lost:
        numbers = ", ".join(one.rpartition("_slice_")[2] for one in lost[:5])
        more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
        sentence = (
            f"{table} has labels for slices of {name} that are not in {folder} "
            f"({numbers}{more}): they were passed over."
        )
        on_fault(Fault(name, sentence, left_out=False))
    return _Day(name, folder, table, slices, {one: rows[one] for one in there})


# --- reading ----------------------------------------------------------------------------


def _read(day: _Day, organs: tuple[Organ, ...], report: Report) -> list[LabelledRun]:
    places, outlined = _classes(day, organs)
    if not outlined:
        wanted = ", ".join(organ.name for organ in organs)
        raise InputError(f"{day.table} outlines none of the organs {wanted} on {day.name}.")
    runs, done = [], 0
    for files in _runs(day.slices):
        voxels = []
        for file in files:
            report(Progress(done, len(day.slices), f"Reading {day.name}"))
            voxels.append(read_grey_png(file.path, shape=(file.height, file.width)))
            done += 1
        runs.append(_run(day, files, voxels, places, outlined))
    return runs


def _classes(day: _Day, organs: tuple[Organ, ...]) -> tuple[dict[str, int], list[Organ]]:
    """Index of the mask of each class of the table, and the organ of each mask.

    The competition's organs were outlined on every day; others only where they stand.
    """
    names = OrganNames.load()
    by_class = {organ.name: organ for organ in ORGANS}
    for row in day.rows.values():
        for kind in row:
            if kind not in by_class:
                where = f"{day.table}, in the rows of {day.name},"
                by_class[kind] = named_organ(kind, names, where)
    wanted = {organ.name for organ in organs}
    outlined = sorted(
        {organ for organ in by_class.values() if organ.name in wanted}, key=lambda o: o.id
    )
    return {
        kind: outlined.index(organ) for kind, organ in by_class.items() if organ in outlined
    }, outlined


def _runs(files: Sequence[SliceFile]) -> Iterator[list[SliceFile]]:
    """Split a day into runs of consecutive slices of one size: a day may have holes."""
    run: list[SliceFile] = []
    for file in files:
        if run and (file.number != run[-1].number + 1 or file[2:] != run[-1][2:]):
            yield run
            run = []
        run.append(file)
    if run:
        yield run


def _run(
    day: _Day,
    files: Sequence[SliceFile],
    voxels: list[np.ndarray],
    places: Mapping[str, int],
    outlined: list[Organ],
) -> LabelledRun:
    first = files[0]
    for file, pixels in zip(files, voxels, strict=True):
        if pixels.dtype != voxels[0].dtype:
            raise InputError(
                f"{file.path} has {8 * pixels.itemsize} bits a pixel where {first.path.name} has "
                f"{8 * voxels[0].itemsize}: export the day again."
            )
    ids = [slice_id(day.name, file.number) for file in files]
    rows = {
        one: {kind: rle for kind, rle in day.rows[one].items() if kind in places} for one in ids
    }
    masks = decode_masks(rows, ids, (first.height, first.width), places, day.table)
    numbers = tuple(file.number for file in files)
    return LabelledRun(
        Scan(
            np.stack(voxels), first.spacing, name=day.name, source=day.folder,
            slice_numbers=numbers,
        ),
        Segmentation(
            masks, first.spacing, organs=tuple(outlined), name=day.name, slice_numbers=numbers
        ),
    )  # fmt: skip
