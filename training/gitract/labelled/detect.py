"""What is in a data folder, for recipes that name no sources."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from gitract.errors import InputError
from gitract.io import dicom
from gitract.labelled.competition import competition_roots
from gitract.labelled.dicom import is_dicom_name
from gitract.labelled.folders import files_below
from gitract.labelled.found import unheard
from gitract.labelled.images import LAYOUTS, image_pairs, is_image_name, layout_root
from gitract.organ_names import OrganNames

if TYPE_CHECKING:
    from gitract.recipe import Source

__all__ = ["detect_sources"]

_PLAN = "dataset.json"


def detect_sources(folder: Path) -> tuple["Source", ...]:
    """What a recipe that names no sources is trained on.

    Each folder in the competition's layout, each folder with ``images/`` and ``labels/``, and
    the data folder itself where other scans with contours are below it. Where nnU-Net's
    ``dataset.json`` lies beside ``labelsTr/`` its names go into ``label_values``.

    Parameters
    ----------
    folder
        The data folder.

    Raises
    ------
    InputError
        There is no such folder, or nothing known in it.
    """
    from gitract.recipe import CompetitionSource, ScansSource

    if not folder.is_dir():
        raise InputError(f"The data folder {folder} does not exist.")
    roots = competition_roots(folder)
    sources: list[Source] = [
        CompetitionSource(kind="competition", path=_below(root, folder)) for root in roots
    ]
    if folder in roots:
        return tuple(sources)
    files = list(files_below(folder, roots))
    pairs = image_pairs([path for path in files if is_image_name(path.name)], folder, unheard)
    for root in sorted({layout_root(pair.scan, folder) or folder for pair in pairs}):
        values = _named_values(root / _PLAN)
        path = _below(root, folder)
        sources.append(ScansSource(kind="scans", path=path, label_values=values))
    if not any(source.path == "." for source in sources) and _holds_contours(files):
        sources.append(ScansSource(kind="scans", path="."))
    if not sources:
        raise _nothing_known(folder, files)
    return tuple(sources)


def _below(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _holds_contours(files: list[Path]) -> bool:
    return any(
        dicom.kind_of(path) in ("seg", "rtstruct") for path in files if is_dicom_name(path.name)
    )


def _named_values(plan: Path) -> dict[int, str]:
    """The organs by value that nnU-Net's description of a data set names, of those known here."""
    try:
        labels = json.loads(plan.read_text(encoding="utf-8"))["labels"]
    except (OSError, ValueError, LookupError, TypeError):
        return {}
    table = OrganNames.load()
    named = {}
    for key, value in labels.items() if isinstance(labels, dict) else ():
        # Version 2 has name -> value, version 1 value -> name.
        name, number = (key, value) if isinstance(value, int) else (value, key)
        organ = table.find(str(name))
        if organ is not None and str(number).isdecimal():
            named[int(number)] = organ.name
    return named


def _nothing_known(folder: Path, files: list[Path]) -> InputError:
    slices = next((path for path in files if path.suffix.lower() == ".png"), None)
    if slices is not None and slices.name.startswith("slice_"):
        return InputError(
            f"{folder} holds scans of the competition without contours: its train.csv must lie "
            "beside train/."
        )
    if slices is not None:
        return InputError(
            f"{folder} holds PNG images ({slices.relative_to(folder)}), whose pixel size no file "
            "tells: name them as a source of kind pairs in a recipe."
        )
    return InputError(
        f"{folder} holds no labelled scans: give a folder with the competition's train.csv and "
        f"train/, with {LAYOUTS}, or with DICOM series and their RT Structure Set or SEG."
    )
