"""Reading scans and contours, writing them: one module a format.

The functions here choose the format by content or, for writing, by suffix. Importing
this package loads no library of any format.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, Protocol

from gitract.errors import InputError
from gitract.io import competition, dicom, dicom_rtstruct, dicom_seg, nifti, rle, tiff
from gitract.io.found import ONE_SLICE, FoundScan, select
from gitract.progress import Report, silent
from gitract.replacing import check_target
from gitract.scan import Scan, Segmentation, Spacing

__all__ = [
    "FLAT_SUFFIXES",
    "ONTO_SERIES_SUFFIXES",
    "SCAN_SUFFIXES",
    "SEGMENTATION_SUFFIXES",
    "FoundScan",
    "can_read_folder",
    "check_output",
    "check_scan",
    "copy_series",
    "find_scans",
    "holds_labels",
    "label_names",
    "read_reference",
    "read_scan",
    "read_segmentation",
    "select",
    "suffix_of",
    "write_scan",
    "write_segmentation",
]

Format = Literal["slices", "tiff", "nifti", "dicom", "seg", "rtstruct", "table"]


class _OntoSeries(Protocol):
    """A writer of contours that refer to the DICOM series of a patient."""

    def __call__(self, segmentation: Segmentation, path: Path, *, deidentify: bool) -> None: ...


_LABEL_WRITERS: dict[str, Callable[[Segmentation, Path], None]] = {
    ".tif": tiff.write_segmentation,
    ".tiff": tiff.write_segmentation,
    ".nii.gz": nifti.write_segmentation,
    ".nii": nifti.write_segmentation,
    ".csv": rle.write_segmentation,
    ".png": competition.write_segmentation,
}
_ONTO_SERIES: dict[str, _OntoSeries] = {
    ".seg.dcm": dicom_seg.write_segmentation,
    ".rtstruct.dcm": dicom_rtstruct.write_segmentation,
}
_SCAN_WRITERS: dict[str, Callable[[Scan, Path], None]] = {
    ".tif": tiff.write_scan,
    ".tiff": tiff.write_scan,
    ".nii.gz": nifti.write_scan,
    ".nii": nifti.write_scan,
    ".png": competition.write_scan,
    ".dcm": dicom.write_scan,
}
_SCAN_CHECKS: dict[str, Callable[[Scan], object]] = {
    ".png": competition.check_scan,
    ".dcm": dicom.check_scan,
}
SEGMENTATION_SUFFIXES = (*_LABEL_WRITERS, *_ONTO_SERIES)
SCAN_SUFFIXES = tuple(_SCAN_WRITERS)
FLAT_SUFFIXES = (".tif", ".tiff", ".nii.gz", ".nii", ".png")
"""Formats of contours in which a voxel belongs to one organ at most."""

ONTO_SERIES_SUFFIXES = tuple(_ONTO_SERIES)
"""Formats of contours that refer to a DICOM series, and hold who its patient is."""

_READABLE = (
    f"folders of slices ({competition.EXAMPLE_NAME}), DICOM series, NIfTI (.nii, .nii.gz) "
    "and TIFF stacks (.tif)"
)


# --- what is there ----------------------------------------------------------------------


def find_scans(path: str | Path) -> list[FoundScan]:
    """The scans of a file or a folder, from names and headers alone.

    Parameters
    ----------
    path
        A day, a case or a whole data set of the competition; a folder of DICOM files; a
        DICOM file, which stands for its series; a NIfTI file; a TIFF.

    Returns
    -------
    list of FoundScan
        In the order of the days or of the series' numbers. A scan that would be refused
        is among them, with the reason.

    Raises
    ------
    InputError
        The path is missing or of a kind that is not read.
    """
    target = _existing(path)
    match _format_of(target):
        case "slices":
            found = competition.find_days(target)
        case "dicom":
            found = dicom.find_series(target)
        case "nifti":
            found = [nifti.describe(target)]
        case "tiff":
            found = [tiff.describe(target)]
        case other:
            raise _no_scan(target, other)
    return [
        replace(one, problem=one.problem or ONE_SLICE.format(one.path))
        if one.shape[0] == 1
        else one
        for one in found
    ]


def holds_labels(path: str | Path) -> bool:
    """Whether a file is known to hold contours; reads no voxels, never raises."""
    try:
        target = _existing(path)
        match _format_of(target):
            case "seg" | "rtstruct" | "table":
                return True
            case "tiff":
                return tiff.holds_labels(target)
            case "nifti":
                return nifti.holds_labels(target)
            case "slices":
                return competition.holds_labels(target)
            case _:
                return False
    except InputError:
        return False


def label_names(path: str | Path) -> list[str]:
    """What the contours of a file are called there, where its organs are to be found out.

    Parameters
    ----------
    path
        A file of contours.

    Returns
    -------
    list of str
        The names of an RTSTRUCT's ROIs or a SEG's segments; the values, as text, of a
        label image that no organ table comes with; else nothing.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    target = _existing(path)
    match _format_of(target):
        case "seg":
            return dicom_seg.names(target)
        case "rtstruct":
            return dicom_rtstruct.names(target)
        case "slices":
            return competition.label_names(target)
        case "nifti":
            return nifti.label_names(target)
        case "tiff":
            return tiff.label_names(target)
        case _:
            return []


def can_read_folder(path: str | Path) -> bool:
    """Whether a folder looks like slices of the competition or DICOM; quick, never raises."""
    return competition.can_read_folder(path) or dicom.can_read_folder(path)


# --- reading ----------------------------------------------------------------------------


def read_scan(
    path: str | Path | Sequence[str | Path],
    *,
    key: str | None = None,
    spacing: Spacing | None = None,
    report: Report = silent,
) -> Scan:
    """Read a scan.

    Parameters
    ----------
    path
        As in `find_scans`; or several DICOM files, of which one series is read.
    key
        Which of the scans that `find_scans` finds there; not needed where it is one.
    spacing
        ``(slice, row, column)`` in mm, in place of what the files say.
    report
        Called for each slice of a folder.

    Returns
    -------
    Scan
        Voxels as stored (in DICOM and NIfTI with their scale applied), with geometry,
        name and source.

    Raises
    ------
    InputError
        The path is missing, of a kind that is not read, incomplete or damaged; or holds
        several scans and `key` names none of them.
    """
    if not isinstance(path, str | Path):
        files = [_existing(file) for file in path]
        return _whole(dicom.read_scan(files, key=key, spacing=spacing, report=report))
    target = _existing(path)
    match _format_of(target):
        case "slices":
            day = select(competition.find_days(target), target, key).path
            scan = competition.read_day(day, spacing=spacing, report=report)
        case "dicom":
            scan = dicom.read_scan(target, key=key, spacing=spacing, report=report)
        case "nifti":
            scan = nifti.read_scan(target, spacing=spacing, report=report)
        case "tiff":
            scan = tiff.read_scan(target, spacing=spacing, report=report)
        case other:
            raise _no_scan(target, other)
    return _whole(scan)


def _whole(scan: Scan) -> Scan:
    """Refuse what is no stack, in every format alike."""
    if len(scan.voxels) < 2:
        raise InputError(ONE_SLICE.format(scan.source or scan.name))
    return scan


def read_reference(
    path: str | Path, *, key: str | None = None, spacing: Spacing | None = None
) -> Segmentation | None:
    """The reference contours of a scan, from the competition's ``train.csv`` near it.

    Parameters
    ----------
    path, key, spacing
        What `read_scan` was given.

    Returns
    -------
    Segmentation or None
        None for other formats, where there is no table, and where the table has no
        contour for the day.

    Raises
    ------
    InputError
        The path is missing, or the table contradicts the scan.
    """
    target = _existing(path)
    if _format_of(target) != "slices":
        return None
    day = select(competition.find_days(target), target, key).path
    return competition.read_day_reference(day, spacing=spacing)


def read_segmentation(
    path: str | Path,
    *,
    scan: Scan | None = None,
    spacing: Spacing | None = None,
    choices: Mapping[str, str] | None = None,
) -> Segmentation:
    """Read contours.

    Parameters
    ----------
    path
        A label stack (TIFF, NIfTI, a folder of PNG slices), a table of run lengths, a
        DICOM SEG or an RT Structure Set.
    scan
        The scan that they belong to. The result then lies on its grid and can be exported
        onto it. An RT Structure Set and a table of run lengths have no grid of their own:
        without a scan the former looks for its series beside it, the latter for the notes
        that were written with it.
    spacing
        ``(slice, row, column)`` in mm, in place of what the files say.
    choices
        What a name in the file (see `label_names`) stands for: an organ's name, new or
        known, or ``-`` to leave it out. Names that are not here go by the table of
        synonyms (`gitract.organ_names`); those that it does not have become new organs.

    Raises
    ------
    InputError
        The path is missing or damaged, a value is no organ's, the labels do not fit the
        scan, or nothing says where they lie.
    """
    target = _existing(path)
    match _format_of(target):
        case "slices":
            return competition.read_segmentation(
                target, scan=scan, spacing=spacing, choices=choices
            )
        case "tiff":
            return tiff.read_segmentation(target, scan=scan, spacing=spacing, choices=choices)
        case "nifti":
            return nifti.read_segmentation(target, scan=scan, spacing=spacing, choices=choices)
        case "table":
            return rle.read_segmentation(target, scan=scan, choices=choices)
        case "seg":
            return dicom_seg.read_segmentation(target, scan=scan, choices=choices)
        case "rtstruct":
            return dicom_rtstruct.read_segmentation(target, scan=scan, choices=choices)
        case "dicom":
            raise InputError(f"{target} holds images, not contours: choose a SEG or an RTSTRUCT.")


# --- writing ----------------------------------------------------------------------------


def write_segmentation(
    segmentation: Segmentation, path: str | Path, *, deidentify: bool = False
) -> Path:
    """Write a segmentation in the format of the suffix.

    ``.tif``, ``.nii``, ``.nii.gz``: a label stack with geometry, organs and provenance.
    ``.csv``: the competition's run lengths; overlaps stay as they are.
    ``.png``: a folder of PNG label slices.
    ``.seg.dcm``, ``.rtstruct.dcm``: DICOM, for a segmentation of a DICOM series
    (`Segmentation.on`).

    Parameters
    ----------
    segmentation
        What to write.
    path
        The file or folder; it is replaced when everything is written.
    deidentify
        Leave out of a DICOM file who the patient is: name, ID, birth date, sex, physicians,
        study ID, accession number and all dates. UIDs stay, for the contours refer to the
        series by them. The other formats hold nothing of the patient in any case.

    Returns
    -------
    pathlib.Path
        `path`.

    Raises
    ------
    InputError
        The suffix is not known, the format does not fit, or the place cannot be written;
        what stood there before is untouched.
    """
    target = Path(path)
    check_output(target)
    suffix = suffix_of(target, SEGMENTATION_SUFFIXES)
    if suffix in _ONTO_SERIES:
        _ONTO_SERIES[suffix](segmentation, target, deidentify=deidentify)
    else:
        _LABEL_WRITERS[suffix](segmentation, target)
    return target


def write_scan(scan: Scan, path: str | Path) -> Path:
    """Write a scan in the format of the suffix.

    ``.tif``, ``.nii``, ``.nii.gz``: a stack with its geometry. ``.png``: a folder of
    slices as in the competition, integers only. ``.dcm``: a folder with a new MR series
    that names nobody; `copy_series` gives the files that a scan was read from.

    Parameters
    ----------
    scan
        What to write.
    path
        The file or folder; it is replaced when everything is written.

    Returns
    -------
    pathlib.Path
        `path`.

    Raises
    ------
    InputError
        The suffix is not known, the format cannot hold the scan, or the place cannot be
        written; what stood there before is untouched.
    """
    target = Path(path)
    check_output(target, SCAN_SUFFIXES)
    _SCAN_WRITERS[suffix_of(target, SCAN_SUFFIXES)](scan, target)
    return target


def check_scan(scan: Scan, path: str | Path) -> None:
    """Refuse a scan that the format of a suffix cannot hold, before it is written.

    Raises
    ------
    InputError
        It cannot.
    """
    check = _SCAN_CHECKS.get(suffix_of(path, SCAN_SUFFIXES))
    if check is not None:
        check(scan)


def copy_series(scan: Scan, path: str | Path) -> Path:
    """Copy the DICOM files of a scan as they are, with all that they say of the patient.

    Parameters
    ----------
    scan
        Of a DICOM series. What was changed of it since it was read is not in the copy.
    path
        The folder; it is replaced when everything is copied.

    Returns
    -------
    pathlib.Path
        `path`.

    Raises
    ------
    InputError
        The scan is of no DICOM series, or that is no longer there; or the place cannot be
        written.
    """
    target = Path(path)
    check_output(target, SCAN_SUFFIXES)
    dicom.copy_series(dicom.series_of(scan), target)
    return target


def check_output(
    path: str | Path,
    suffixes: Sequence[str] = SEGMENTATION_SUFFIXES,
    *,
    scan: Scan | None = None,
    inputs: Sequence[Path] = (),
) -> None:
    """Refuse an output that cannot be written, before a long job makes what goes into it.

    Parameters
    ----------
    path
        The file or folder to write.
    suffixes
        Those that are possible.
    scan
        The scan whose contours are to go there, where it is known already.
    inputs
        What is read to make the output, and must not be replaced by it.

    Raises
    ------
    InputError
        The suffix is not among `suffixes`, the folder does not exist, the file is
        protected or one of `inputs`, or the format needs a DICOM series and the scan is
        none.
    """
    target = Path(path)
    if suffix_of(target, suffixes) not in suffixes:
        raise InputError(
            f"{target.name!r} has no suffix that can be written: choose {', '.join(suffixes)}."
        )
    for known in inputs if os.path.exists(target) else ():
        place, read = target.resolve(), Path(known).resolve()
        if place == read or place in read.parents or (place.is_dir() and read in place.parents):
            raise InputError(f"{target} is the input itself or holds it: choose another name.")
    check_target(target)
    if scan is not None and suffix_of(target, suffixes) in _ONTO_SERIES:
        dicom.series_of(scan)


def suffix_of(path: str | Path, suffixes: Sequence[str]) -> str:
    """The longest of `suffixes` that a name ends with, in lower case; empty for none."""
    name = Path(path).name.lower()
    return max((suffix for suffix in suffixes if name.endswith(suffix)), key=len, default="")


# --- which format -----------------------------------------------------------------------


def _existing(path: str | Path) -> Path:
    target = Path(path)
    if not os.path.exists(target):  # unlike Path.exists also where a parent is forbidden
        raise InputError(f"{target} does not exist: check the path.")
    return target


def _format_of(path: Path) -> Format:
    """What a file or folder is, by its content.

    Raises
    ------
    InputError
        It is nothing that is read.
    """
    if path.is_dir():
        if competition.can_read_folder(path):
            return "slices"
        if dicom.can_read_folder(path):
            return "dicom"
        raise InputError(
            f"{path} holds neither DICOM images nor slices named like "
            f"{competition.EXAMPLE_NAME}: choose the folder or the file of a scan."
        )
    if tiff.is_tiff(path):
        return "tiff"
    if nifti.is_nifti(path):
        return "nifti"
    kind = dicom.kind_of(path)
    if kind is not None:
        return kind
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return "table"
    if suffix == ".png":
        raise InputError(f"{path} is one slice: give the folder that holds all slices of the day.")
    if suffix in (".tif", ".tiff", ".nii", ".gz", ".dcm"):
        raise InputError(
            f"{path} is damaged or not a {suffix} file: copy it again from its source."
        )
    raise InputError(f"{path} cannot be read: gitract reads {_READABLE}.")


def _no_scan(path: Path, kind: str) -> InputError:
    what = {
        "seg": "a DICOM segmentation",
        "rtstruct": "an RT Structure Set",
        "table": "a table of run lengths",
    }[kind]
    return InputError(f"{path} is {what}, not a scan: give the scan that it belongs to.")
