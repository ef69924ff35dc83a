"""Reading a scan with the files of its contours, onto the organs that are to be learned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gitract.errors import InputError
from gitract.io import holds_labels, label_names, read_scan, read_segmentation
from gitract.labelled.found import LabelledRun
from gitract.labelled.images import is_image_name
from gitract.organ_names import LEFT_OUT, OrganNames
from gitract.organs import Organ
from gitract.progress import Report
from gitract.scan import Scan, Segmentation

__all__ = ["Contoured", "read_contoured"]

Masks = dict[Organ, npt.NDArray[np.bool_]]


@dataclass(frozen=True)
class Contoured:
    """A scan, its contours, and how to understand them.

    Parameters
    ----------
    name
        What the scan shall be called.
    scan
        A file, or the files of a DICOM series.
    contours
        At least one file.
    organs
        Those to be learned; what else is outlined is left out.
    outlined
        Those that were outlined by the settings; None: those that the files name.
    values
        Organ by value of a label image that names nothing, None to leave it out; empty: the
        ids of `organs`, and no other value may occur.
    names
        Organ by the name of a contour, ahead of the table of synonyms; None to leave it out.
    """

    name: str
    scan: Path | tuple[Path, ...]
    contours: tuple[Path, ...]
    organs: tuple[Organ, ...]
    outlined: tuple[Organ, ...] | None
    values: Mapping[int, Organ | None]
    names: Mapping[str, Organ | None]


def read_contoured(item: Contoured, report: Report) -> list[LabelledRun]:
    """Read a scan and its contours.

    Raises
    ------
    InputError
        A file is damaged, they do not fit each other, two files outline the same organ, or
        none of the organs that are to be learned was outlined.
    """
    scan = replace(read_scan(item.scan, report=report), name=item.name)
    masks: Masks = {}
    origin: dict[Organ, Path] = {}
    for path in item.contours:
        for organ, mask in _outlined(item, path, scan).items():
            if organ in masks:
                raise InputError(
                    f"Both {origin[organ]} and {path} outline {organ.name} of one scan: "
                    "keep one of them in the data folder."
                )
            masks[organ], origin[organ] = mask, path
    if item.outlined is not None:
        nothing = np.zeros(scan.shape, dtype=np.bool_)
        masks = {organ: masks.get(organ, nothing) for organ in item.outlined}
    if not masks:
        wanted = ", ".join(organ.name for organ in item.organs)
        raise InputError(f"{_listed(item.contours)} outlines none of the organs {wanted}.")
    organs = sorted(masks, key=lambda organ: organ.id)
    truth = Segmentation(
        np.stack([masks[organ] for organ in organs]),
        scan.spacing,
        scan.affine,
        tuple(organs),
        name=scan.name,
        slice_numbers=scan.slice_numbers,
        stored=scan.stored,
    )
    return [LabelledRun(scan, truth)]


def _listed(paths: Sequence[Path]) -> str:
    return " with ".join(str(path) for path in paths)


def _outlined(item: Contoured, path: Path, scan: Scan) -> Masks:
    """The masks of the organs to be learned that a file says it outlines."""
    if not is_image_name(path.name):
        return _of_names(item, path, scan)
    if holds_labels(path):
        return _of_table(item, path, scan)
    return _of_values(item, path, scan)


def _of_values(item: Contoured, path: Path, scan: Scan) -> Masks:
    """Of a label image that names nothing: every organ that a value stands for."""
    organs = dict(item.values) or {organ.id: organ for organ in item.organs}
    present = [int(value) for value in label_names(path)]
    strange = [value for value in present if value not in organs]
    if strange and not item.values:
        known = ", ".join(f"{organ.id} {organ.name}" for organ in item.organs)
        raise InputError(
            f"{path} holds the value {strange[0]}, which is none of the organs to be learned "
            f"({known}): say what its values are, as label_values of the source."
        )
    wanted = {value: _wanted(item, organs.get(value)) for value in present}
    choices = {str(value): _choice(organ) for value, organ in wanted.items()}
    found = _by_name(read_segmentation(path, scan=scan, choices=choices or None))
    nothing = np.zeros(scan.shape, dtype=np.bool_)
    known_organs = [o for organ in organs.values() if (o := _wanted(item, organ)) is not None]
    return {organ: found.get(organ.name, nothing) for organ in known_organs}


def _of_table(item: Contoured, path: Path, scan: Scan) -> Masks:
    """Of a label image that brings its own table of organs: every organ of the table."""
    masks: Masks = {}
    for name, mask in _by_name(read_segmentation(path, scan=scan)).items():
        organ = _wanted(item, _organ_called(item, name))
        if organ is not None:
            masks[organ] = masks[organ] | mask if organ in masks else mask
    return masks


def _of_names(item: Contoured, path: Path, scan: Scan) -> Masks:
    """Of a SEG or RT Structure Set: every organ with a contour; an empty one may be a template."""
    assigned = {n: _wanted(item, _organ_called(item, n)) for n in label_names(path)}
    wanted = {organ for organ in assigned.values() if organ is not None}
    if not wanted:
        return {}
    choices = {name: _choice(organ) for name, organ in assigned.items()}
    found = _by_name(read_segmentation(path, scan=scan, choices=choices))
    return {organ: found[organ.name] for organ in wanted if found[organ.name].any()}


def _by_name(segmentation: Segmentation) -> dict[str, npt.NDArray[np.bool_]]:
    return {
        organ.name: mask
        for organ, mask in zip(segmentation.organs, segmentation.masks, strict=True)
    }


def _organ_called(item: Contoured, name: str) -> Organ | None:
    return item.names[name] if name in item.names else OrganNames.load().find(name)


def _wanted(item: Contoured, organ: Organ | None) -> Organ | None:
    """The organ to be learned that it is, if any."""
    names = {one.name: one for one in item.organs}
    return names.get(organ.name) if organ is not None else None


def _choice(organ: Organ | None) -> str:
    return LEFT_OUT if organ is None else organ.name
