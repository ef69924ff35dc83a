"""Single slices as PNG, each with a label image of the same name."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gitract.errors import InputError
from gitract.io.competition import SLICE_THICKNESS_MM
from gitract.io.png import read_grey_png
from gitract.labelled.found import Fault, LabelledRun, LabelledScan, OnFault
from gitract.labelled.organs import chosen_organ, named_organs
from gitract.labelled.patients import read_groups
from gitract.organ_names import OrganNames
from gitract.organs import Organ
from gitract.progress import Progress, Report
from gitract.scan import Scan, Segmentation

if TYPE_CHECKING:
    from gitract.recipe import PairsSource

__all__ = ["find_pairs"]


def find_pairs(
    source: "PairsSource",
    folder: Path,
    organs: Sequence[Organ],
    on_fault: OnFault,
    report: Report,
) -> list[LabelledScan]:
    """The slices of a folder that have a label image.

    Raises
    ------
    InputError
        The folders hold no such slices, the settings contradict each other, or a slice is
        missing in the table of patients.
    """
    where = f"The source {source.path!r}"
    if (source.field_of_view_mm is None) == (source.pixel_mm is None):
        raise InputError(f"{where} must give either field_of_view_mm or pixel_mm.")
    wanted = {organ.name for organ in organs}
    known = [organ for organ in named_organs(source.organs, where) if organ.name in wanted]
    if not known:
        raise InputError(f"{where} outlines none of the organs {', '.join(sorted(wanted))}.")
    names = OrganNames.load()
    values = {v: chosen_organ(name, names, where) for v, name in source.label_values.items()}
    files = sorted((folder / source.images).glob("*.png"))
    if not files:
        raise InputError(f"{folder / source.images} holds no PNG images.")
    if not (folder / source.labels).is_dir():
        raise InputError(
            f"{folder} has no folder {source.labels!r} with the label images: "
            "add it, or name another one as labels of the source."
        )
    patients = _patients(source, folder, files)
    found: list[LabelledScan] = []
    for path in files:
        report(Progress(len(found), len(files), f"Looking at {path.name}"))
        labels = folder / source.labels / path.name
        if not labels.is_file():
            on_fault(Fault(path.stem, f"{path} has no label image: {labels} is not there."))
            continue
        pair = _Pair(path, labels, source.pixel_mm, source.field_of_view_mm, tuple(known), values)
        found.append(
            LabelledScan(
                name=path.stem,
                patient=patients[path.name],
                files=(path, labels),
                source=source,
                settings={
                    "kind": source.kind,
                    "pixel_mm": source.pixel_mm,
                    "field_of_view_mm": source.field_of_view_mm,
                    "organs": [organ.name for organ in known],
                    "values": {str(v): organ and organ.name for v, organ in values.items()},
                },
                reader=partial(_read, pair),
            )
        )
    return found


def _patients(source: "PairsSource", folder: Path, files: Sequence[Path]) -> dict[str, str]:
    """Patient of each image, by file name."""
    if source.patients == "name":
        return {path.name: path.name.split("_")[0] for path in files}
    groups = read_groups(folder / source.patients)
    missing = [file.name for file in files if file.name not in groups]
    if missing:
        raise InputError(
            f"{folder / source.patients} does not say which group {missing[0]} belongs to."
        )
    return {
        name: source.same_patient.get(group, f"{source.path}-{group}")
        for name, group in groups.items()
    }


@dataclass(frozen=True)
class _Pair:
    """A slice, its label image, and what they mean; one of the two sizes is given."""

    image: Path
    labels: Path
    pixel_mm: float | None
    field_of_view_mm: float | None
    organs: tuple[Organ, ...]
    values: dict[int, Organ | None]


def _read(pair: _Pair, report: Report) -> list[LabelledRun]:
    report(Progress(0, 1, f"Reading {pair.image.name}"))
    image, labels = read_grey_png(pair.image), read_grey_png(pair.labels)
    if image.shape != labels.shape:
        raise InputError(
            f"The label image {pair.labels} has {labels.shape[1]} x {labels.shape[0]} pixels where "
            f"its slice has {image.shape[1]} x {image.shape[0]}: they must be of one size."
        )
    pixel = pair.pixel_mm or (pair.field_of_view_mm or 0.0) / image.shape[1]
    spacing = (SLICE_THICKNESS_MM, pixel, pixel)
    masks = [
        np.isin(labels, [value for value, known in pair.values.items() if known == organ])
        for organ in pair.organs
    ]
    name = pair.image.stem
    return [
        LabelledRun(
            Scan(image[None], spacing, name=name, source=pair.image),
            Segmentation(np.stack(masks)[:, None], spacing, organs=pair.organs, name=name),
        )
    ]
