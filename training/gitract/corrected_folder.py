"""Corrections of several patients from one folder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gitract.corrections import Corrections
from gitract.errors import InputError
from gitract.io import read_segmentation
from gitract.labelled import Fault, LabelledRun, LabelledScan, OnFault, find_labelled, unheard
from gitract.labelled.images import is_image_name
from gitract.organs import Organ
from gitract.progress import Progress, Report, silent
from gitract.review import reviewed_slices
from gitract.scan import Segmentation

__all__ = ["corrections_in"]


def corrections_in(
    folder: Path,
    organs: Sequence[Organ],
    report: Report = silent,
    on_fault: OnFault = unheard,
) -> list[Corrections]:
    """The corrected scans of a folder, in any layout that a training takes.

    Labels that remember which of their slices a person reviewed (TIFF, NIfTI and PNG saved
    by this software) give those. Of all others every slice with a contour counts.

    Parameters
    ----------
    folder
        Of scans and labels.
    organs
        The model's.
    report
        Called for each scan.
    on_fault
        Called for each scan that cannot be used; it is left out.

    Raises
    ------
    InputError
        The folder is missing, or holds nothing to learn from.
    """
    if not folder.is_dir():
        raise InputError(f"The folder {folder} does not exist.")
    found: list[Corrections] = []
    faults: list[Fault] = []
    scans = find_labelled(folder, organs=organs, report=report, on_fault=on_fault)
    for done, one in enumerate(scans):
        report(Progress(done, len(scans), f"Reading {one.name}"))
        try:
            found += _of_scan(one)
        except InputError as error:
            faults.append(Fault(one.name, str(error)))
            on_fault(faults[-1])
    if not found:
        why = faults[0].sentence if faults else f"{folder} holds no slice with a contour."
        raise InputError(f"There is nothing to learn from: {why}")
    return found


def _of_scan(one: LabelledScan) -> list[Corrections]:
    found = []
    for run in one.read():
        contours = _remembered(one, run) or run.truth
        slices = _slices(contours)
        if slices:
            found.append(Corrections(run.scan, contours, tuple(slices), one.patient))
    return found


def _remembered(one: LabelledScan, run: LabelledRun) -> Segmentation | None:
    """The labels as they were saved, if they know which prediction was corrected."""
    path = one.files[-1]
    if len(one.files) != 2 or not is_image_name(path.name):
        return None
    contours = read_segmentation(path, scan=run.scan)
    return contours if contours.provenance.get("baseline") else None


def _slices(contours: Segmentation) -> list[int]:
    if contours.provenance.get("baseline"):
        return reviewed_slices(contours)
    return [int(index) for index in np.flatnonzero(contours.masks.any(axis=(0, 2, 3)))]
