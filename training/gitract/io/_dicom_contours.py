"""What SEG and RT Structure Set share: whose contours they are, who drew them, where they lie.

Neither format has a place for the whole organ table and for which slices of a prediction
were edited: notes beside the file keep them, and name the file that they belong to.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gitract.baseline import edited_slices
from gitract.errors import InputError
from gitract.io import dicom
from gitract.io._dicom_files import damage, header_sop_class, quiet, unreadable
from gitract.io._dicom_geometry import frames_of, grid_of
from gitract.io._notes import beside, is_of_segmentation, notes_of, read_beside, restored
from gitract.organ_names import OrganNames
from gitract.organs import ORGANS, Organ
from gitract.replacing import replaced_file
from gitract.scan import DicomSeries, Scan, Segmentation, corners_apart

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = [
    "LONGEST_TEXT",
    "MANUFACTURER",
    "PROGRAM",
    "TITLE",
    "Origin",
    "Owners",
    "check_frames_of_reference",
    "damage_told",
    "drawn_organs",
    "known_beside",
    "label_of",
    "on_scan",
    "origin_of",
    "owners_of",
    "read_dataset",
    "save",
    "source_headers",
    "sources_told",
    "unique_names",
    "united",
]

PROGRAM = "napari-gitract"
MANUFACTURER = "napari-gitract developers"
TITLE = "napari-gitract contours"
LONGEST_TEXT = 64
"""Characters in a text of DICOM's kind LO."""

_INSTANCE = "sop_instance_uid"
_SAME_MM = 0.01


# --- files ------------------------------------------------------------------------------


@contextmanager
def damage_told(path: Path, kind: str) -> Iterator[None]:
    """What pydicom raises for a damaged file inside the block becomes an `InputError`."""
    try:
        with quiet():
            yield
    except OSError as error:
        raise unreadable(path, error) from error
    except damage() as error:
        raise InputError(
            f"{path} is damaged or not a complete {kind}: copy it again from its source."
        ) from error


def read_dataset(
    path: Path, kind: str, sop_classes: Collection[str], *, pixels: bool = True
) -> "Dataset":
    """The content of a file of one of these SOP classes; `kind` is what an error calls it.

    Raises
    ------
    InputError
        It is damaged, or of another class.
    """
    from pydicom import dcmread

    with damage_told(path, kind):
        dataset = dcmread(path, force=True, stop_before_pixels=not pixels)
        if header_sop_class(dataset) not in sop_classes:
            raise ValueError("another kind of file")
    return dataset


def save(dataset: "Dataset", segmentation: Segmentation, path: Path) -> None:
    """Write a file and the notes beside it, both or neither.

    Raises
    ------
    InputError
        One of them cannot be written.
    """
    known = {**notes_of(segmentation), _INSTANCE: str(dataset.SOPInstanceUID)}
    with replaced_file(path) as temporary, replaced_file(beside(path)) as notes:
        dataset.save_as(temporary, enforce_file_format=True)
        notes.write_text(json.dumps(known), encoding="utf-8")


# --- whose contours they are ------------------------------------------------------------


def unique_names(names: Mapping[int, str]) -> dict[int, str]:
    """Number -> name, each name once: one that comes again is followed by a count."""
    given: dict[int, str] = {}
    for number, name in names.items():
        unique, count = name, 1
        while unique in given.values() or (count > 1 and unique in names.values()):
            count += 1
            unique = f"{name} {count}"
        given[number] = unique
    return given


def label_of(organ: Organ) -> str:
    """What an organ is called in a file."""
    return organ.title[:LONGEST_TEXT]


class Owners(NamedTuple):
    """Whose contours those of a file are.

    `by_name` is None for what is left out, `organs` the whole table by id, and `known` what
    the notes tell besides: arguments of `Segmentation`, none where they do not fit.
    """

    by_name: dict[str, Organ | None]
    organs: tuple[Organ, ...]
    known: dict[str, Any]


def known_beside(
    path: Path, dataset: "Dataset", shape: tuple[int, ...], affine: np.ndarray
) -> dict[str, Any]:
    """What the notes beside a file know; nothing where they are of another file or grid.

    Raises
    ------
    InputError
        The notes are damaged.
    """
    notes = read_beside(path)
    if notes is None or not is_of_segmentation(notes):
        return {}
    with quiet():
        if notes.get(_INSTANCE) != dataset.get("SOPInstanceUID"):
            return {}
    return restored(notes, where=path, shape=shape, spacing=None, affine=affine) or {}


def owners_of(names: Iterable[str], choices: Mapping[str, str], known: Mapping[str, Any]) -> Owners:
    """The organs that names stand for.

    Parameters
    ----------
    names
        In a file, each once.
    choices
        As in `gitract.organ_names.OrganNames.assign`.
    known
        Of `known_beside`. It counts where it has an organ of every name, and no choice
        says otherwise.

    Raises
    ------
    InputError
        A choice is of a name that is not there.
    """
    assigned = OrganNames.load().assign(names, choices)
    noted = {label_of(organ): organ for organ in known.get("organs", ())}

    def agree(name: str, organ: Organ | None) -> bool:
        chosen = organ if name in choices else noted.get(name)
        return chosen is not None and name in noted and chosen.name == noted[name].name

    if known and all(agree(name, organ) for name, organ in assigned.items()):
        return Owners({name: noted[name] for name in assigned}, known["organs"], dict(known))
    found = (organ for organ in assigned.values() if organ is not None)
    table = {organ.id: organ for organ in (*ORGANS, *found)}
    return Owners(assigned, tuple(table[key] for key in sorted(table)), {})


def united(organs: Iterable[Organ | None], what: str) -> list[str]:
    """A remark for each organ that several contours stand for; `what` is the format's word."""
    titles = [organ.title for organ in organs if organ is not None]
    return [
        f"{count} {what} were united as one organ, {title}."
        for title in dict.fromkeys(titles)
        if (count := titles.count(title)) > 1
    ]


def drawn_organs(
    segmentation: Segmentation, kind: str
) -> list[tuple[Organ, npt.NDArray[np.bool_]]]:
    """The organs with a voxel, and their masks ``(slice, row, column)``.

    Raises
    ------
    InputError
        There is none.
    """
    drawn = [
        (organ, mask)
        for organ, mask in zip(segmentation.organs, segmentation.masks, strict=True)
        if mask.any()
    ]
    if not drawn:
        raise InputError(
            f"Nothing is drawn in {segmentation.name!r}, and {kind} cannot be empty: "
            "outline an organ first."
        )
    return drawn


# --- who drew them ----------------------------------------------------------------------


class Origin(NamedTuple):
    """Who drew contours: DICOM's word for it, the program's part, the slices edited since.

    The standard (PS3.3, C.8.8.5 and C.8.20.4) calls contours AUTOMATIC that were calculated,
    SEMIAUTOMATIC those that were calculated with a user's help, MANUAL those that a user
    entered. `calculated_by` says by what, and is empty for the last.
    """

    algorithm: str
    calculated_by: str
    edited: list[int]


def origin_of(segmentation: Segmentation) -> Origin:
    """A person, a model or a registration, or a person over one of them.

    The day that contours were carried over from is not named: it may be called by its patient.
    """
    provenance = segmentation.provenance
    model, baseline = provenance.get("model"), provenance.get("baseline")
    if model:
        calculated_by = f"model {model}"
    elif provenance.get("propagated_from"):
        calculated_by = "registration with another day"
    else:
        return Origin("MANUAL", "", [])
    if baseline is not None and len(baseline) == segmentation.shape[0]:
        edited = edited_slices(segmentation.labels().array, baseline)
    else:
        edited = list(provenance.get("edited") or ())
    return Origin("SEMIAUTOMATIC" if edited else "AUTOMATIC", calculated_by, edited)


# --- where they lie ---------------------------------------------------------------------


def check_frames_of_reference(
    path: Path, frames: Mapping[str, Collection[str]], scan: Scan
) -> list[str]:
    """Refuse contours whose coordinates are those of another patient or session.

    Parameters
    ----------
    path
        Their file.
    frames
        Frame of reference of some contours -> the series that they refer to in it.
    scan
        The scan that they shall lie on.

    Returns
    -------
    list of str
        A remark where they were accepted for the series alone.

    Raises
    ------
    InputError
        A frame of reference is another one than the scan's.
    """
    stored = scan.stored
    if not isinstance(stored, DicomSeries):
        return []
    others = frames.keys() - {stored.frame_of_reference_uid, ""}
    if any(stored.series_uid not in frames[other] for other in others):
        raise InputError(
            f"{path} lies in another frame of reference than the scan {scan.name!r}, where "
            "equal coordinates are not the same place: choose the scan that it was made on."
        )
    return [_OTHER_FRAME] if others else []


_OTHER_FRAME = (
    "The file names another frame of reference than the scan; it was read because it refers "
    "to the scan's own images."
)


def on_scan(scan: Scan) -> dict[str, Any]:
    """The arguments of a `Segmentation` that are its scan's."""
    return {
        "spacing": scan.spacing,
        "affine": scan.affine,
        "name": scan.name,
        "slice_numbers": scan.slice_numbers,
        "stored": scan.stored,
    }


@contextmanager
def sources_told(segmentation: Segmentation) -> Iterator[None]:
    """Odd headers of a series that contours are written for become an `InputError`."""
    try:
        with quiet():
            yield
    except damage() as error:
        raise InputError(
            f"The DICOM headers of {segmentation.name!r} are not what contours can refer to "
            f"({type(error).__name__}): write a NIfTI file (.nii.gz)."
        ) from error


def source_headers(
    segmentation: Segmentation, series: DicomSeries, *, ends: bool = False
) -> "list[Dataset]":
    """The headers of the files of a series, once the contours lie where its images do.

    Parameters
    ----------
    segmentation
        The contours.
    series
        What they refer to.
    ends
        Only those of the first and the last slice, between which the others lie evenly.

    Raises
    ------
    InputError
        A file is gone, or the contours lie elsewhere.
    """
    images = (series.images[0], series.images[-1]) if ends else series.images
    headers = dicom.headers(replace(series, images=images))
    paths = dict.fromkeys(image.path for image in images)
    placed = {
        frame.image: frame
        for path, header in zip(paths, headers, strict=True)
        for frame in frames_of(header, path)
    }
    grid = grid_of([placed[image] for image in images], segmentation.name)
    shape = (len(series.images), int(headers[0].Rows), int(headers[0].Columns))
    expected = segmentation.affine.copy()
    expected[:3, 0] *= (len(series.images) - 1) / (len(images) - 1)
    if (
        shape != segmentation.shape
        or [frame.image for frame in grid.frames] != list(images)
        or corners_apart(grid.affine, expected, (len(images), *shape[1:])) > _SAME_MM
    ):
        raise InputError(
            f"The contours {segmentation.name!r} do not lie where the files of their series do, "
            "as happens where another spacing was given: read them again on the scan of that "
            "series, without it."
        )
    return headers
