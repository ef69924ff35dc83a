"""Scans with contours in any format of `gitract.io`, as files beside each other or DICOM."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gitract.errors import InputError
from gitract.labelled.contours import Contoured, read_contoured
from gitract.labelled.dicom import LabelledSeries, is_dicom_name, labelled_series
from gitract.labelled.folders import files_below
from gitract.labelled.found import LabelledScan, OnFault
from gitract.labelled.images import LAYOUTS, ImagePair, image_pairs, is_image_name, own_folders
from gitract.labelled.organs import chosen_organ, named_organs, table_of
from gitract.labelled.patients import anonymous, patient_in_name, read_groups, tells_a_patient
from gitract.organ_names import OrganNames
from gitract.organs import Organ
from gitract.progress import Report

if TYPE_CHECKING:
    from gitract.recipe import ScansSource

__all__ = ["find_scans_with_contours"]


def find_scans_with_contours(
    source: "ScansSource",
    folder: Path,
    organs: Sequence[Organ],
    on_fault: OnFault,
    report: Report,
    without: Collection[Path] = (),
) -> list[LabelledScan]:
    """The scans of a folder that have contours.

    Parameters
    ----------
    without
        Folders of other sources, which are not looked into.

    Raises
    ------
    InputError
        The settings name an unknown organ, there are no such scans, or one is missing in the
        table of patients.
    """
    reading = _reading(source, organs)
    images, others = [], []
    for path in files_below(folder, without):
        if is_image_name(path.name):
            images.append(path)
        elif is_dicom_name(path.name):
            others.append(path)
    groups = None if source.patients == "auto" else read_groups(folder / source.patients)
    where = _Where(source, folder, groups)
    found = [_of_pair(pair, where, reading) for pair in image_pairs(images, folder, on_fault)] + [
        _of_series(series, where, reading) for series in labelled_series(others, on_fault, report)
    ]
    if not found:
        raise InputError(
            f"{folder} holds no scans with contours: they are looked for as {LAYOUTS}, and as "
            "DICOM series with an RT Structure Set or SEG."
        )
    return found


@dataclass(frozen=True)
class _Reading:
    """How contours are understood, see `Contoured`; and the same as JSON."""

    organs: tuple[Organ, ...]
    outlined: tuple[Organ, ...] | None
    values: dict[int, Organ | None]
    names: dict[str, Organ | None]
    settings: dict[str, object]


def _reading(source: "ScansSource", organs: Sequence[Organ]) -> _Reading:
    where = f"The source {source.path!r}"
    table = OrganNames.load()
    outlined = None
    if source.organs is not None:
        named = {organ.name for organ in named_organs(source.organs, where)}
        outlined = tuple(organ for organ in organs if organ.name in named)
        if not outlined:
            wanted = ", ".join(organ.name for organ in organs)
            raise InputError(f"{where} outlines none of the organs {wanted}.")
    settings: dict[str, object] = {
        "kind": source.kind,
        "organs": [[organ.id, organ.name] for organ in organs],
        "outlined": outlined and [organ.name for organ in outlined],
        "values": {str(value): name for value, name in source.label_values.items()},
        "contours": source.contours,
        "names": table_of(table),
    }
    return _Reading(
        tuple(organs),
        outlined,
        {value: chosen_organ(name, table, where) for value, name in source.label_values.items()},
        {one: chosen_organ(name, table, where) for one, name in source.contours.items()},
        settings,
    )


@dataclass(frozen=True)
class _Where:
    """A source, its folder, and the table of patients if there is one."""

    source: "ScansSource"
    folder: Path
    groups: dict[str, str] | None

    def in_table(self, path: Path) -> str | None:
        """The group of a file or folder, by its path below the source or its name."""
        if self.groups is None:
            return None
        for key in (path.relative_to(self.folder).as_posix(), path.name):
            if key in self.groups:
                return self.groups[key]
        raise InputError(
            f"{self.folder / self.source.patients} does not say which group "
            f"{path.relative_to(self.folder)} belongs to."
        )


def _of_pair(pair: ImagePair, where: _Where, reading: _Reading) -> LabelledScan:
    folders = own_folders(pair.scan, where.folder)
    patient = where.in_table(pair.scan) or (folders[0] if folders else patient_in_name(pair.stem))
    name = "_".join([*folders, pair.stem])
    return _labelled(name, patient, pair.scan, pair.labels, where, reading)


def _of_series(series: LabelledSeries, where: _Where, reading: _Reading) -> LabelledScan:
    folders = own_folders(series.images[0], where.folder)
    known = tells_a_patient(series.patient)
    owner = series.patient if known else folders[0] if folders else series.uid
    patient = where.in_table(series.images[0].parent) or anonymous(owner)
    name = f"{patient}_{hashlib.sha256(series.uid.encode()).hexdigest()[:6]}"
    return _labelled(name, patient, series.images, series.contours, where, reading)


def _labelled(
    name: str,
    patient: str,
    scan: Path | tuple[Path, ...],
    contours: tuple[Path, ...],
    where: _Where,
    reading: _Reading,
) -> LabelledScan:
    item = Contoured(
        name, scan, contours, reading.organs, reading.outlined, reading.values, reading.names
    )
    scans = (scan,) if isinstance(scan, Path) else scan
    return LabelledScan(
        name=name,
        patient=patient,
        files=(*scans, *contours),
        source=where.source,
        settings={**reading.settings, "contours_of": [path.name for path in contours]},
        reader=partial(read_contoured, item),
    )
