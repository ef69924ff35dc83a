"""A scan exported, alone or with its contours: told before, written, read again and compared.

`gitract.export_preview` does the same for contours alone. Contours that go with their scan lie
on the scan as it was written: a de-identified DICOM series is a new one, with UIDs of its own,
and contours that still referred to the old one would be of no use to whoever gets both.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gitract.export_preview import (
    ALIASES,
    NIFTI_HEADER,
    SAME_MM,
    RoundTrip,
    check_round_trip,
    file_told,
    grid_to_write,
    grid_told,
    no_identity,
    orientation,
)
from gitract.io import (
    SCAN_SUFFIXES,
    check_output,
    check_scan,
    copy_series,
    read_scan,
    suffix_of,
    write_scan,
    write_segmentation,
)
from gitract.progress import Progress, Report, silent
from gitract.replacing import replaced_folder
from gitract.scan import DicomSeries, Scan, Segmentation, Spacing, corners_apart

__all__ = [
    "CONTOURS_NAME",
    "SCAN_FORMATS",
    "SCAN_NAME",
    "SCAN_SUFFIX_WITH",
    "ScanPreview",
    "ScanRoundTrip",
    "check_scan_round_trip",
    "export_scan",
    "export_together",
    "is_new_series",
    "preview_scan",
]

SCAN_FORMATS = {
    ".dcm": "DICOM series (folder)",
    ".nii.gz": "NIfTI",
    ".nii": "NIfTI, uncompressed",
    ".tif": "TIFF",
    ".png": "PNG slices (folder)",
}
"""Suffix of each format of scans -> what people call it; one suffix a format."""

SCAN_SUFFIX_WITH = {
    ".rtstruct.dcm": ".dcm",
    ".seg.dcm": ".dcm",
    ".nii.gz": ".nii.gz",
    ".nii": ".nii",
    ".tif": ".tif",
    ".csv": ".png",
    ".png": ".png",
}
"""Suffix of each format of contours -> that of the scan that goes with them."""

SCAN_NAME, CONTOURS_NAME = "scan", "contours"
"""What the two are called in the folder of `export_together`, each before its suffix."""

_IMAGE_HEADER = 1300  # bytes


def is_new_series(scan: Scan, suffix: str, *, deidentify: bool) -> bool:
    """Whether a scan is written as a DICOM series that nothing referred to before.

    Parameters
    ----------
    scan
        What to write.
    suffix
        A key of `SCAN_FORMATS`.
    deidentify
        As in `export_scan`.
    """
    return suffix == ".dcm" and (deidentify or not isinstance(scan.stored, DicomSeries))


# --- before -----------------------------------------------------------------------------


@dataclass(frozen=True)
class ScanPreview:
    """What a file or folder of a scan will hold.

    Parameters
    ----------
    file_name, format
        Its name, and what people call the format.
    shape, spacing
        ``(slices, rows, columns)``, mm.
    orientation
        How the slices lie, in words.
    values
        The least and the largest voxel, and their type.
    identity
        What it tells of who the patient is, in a sentence.
    about_bytes
        Its size, roughly; None where it is compressed.
    """

    file_name: str
    format: str
    shape: tuple[int, int, int]
    spacing: Spacing
    orientation: str
    values: str
    identity: str
    about_bytes: int | None

    @property
    def rows(self) -> tuple[tuple[str, str], ...]:
        """All of it for people: what it is about, and the text."""
        return (
            ("File", self._file),
            ("Grid", grid_to_write(self.shape, self.spacing, self.orientation)),
            ("Values", self.values),
            ("Patient", self.identity),
        )

    @property
    def sentence(self) -> str:
        """What to tell of it beside contours, whose grid is the same."""
        return f"{self._file}. Patient: {self.identity}"

    @property
    def _file(self) -> str:
        return file_told(self.file_name, self.about_bytes)


def preview_scan(scan: Scan, path: str | Path, *, deidentify: bool = True) -> ScanPreview:
    """What `export_scan` will write; nothing is written.

    Parameters
    ----------
    scan
        What to write.
    path
        The file or folder; only its name is looked at.
    deidentify
        As in `export_scan`.

    Raises
    ------
    InputError
        The suffix is not known, or its format cannot hold the scan.
    """
    target = Path(path)
    suffix = suffix_of(target, SCAN_SUFFIXES)
    if not suffix:
        check_output(target, SCAN_SUFFIXES)  # which says what can be written
    copied = suffix == ".dcm" and not is_new_series(scan, suffix, deidentify=deidentify)
    if not copied:
        check_scan(scan, target)
    voxels = scan.voxels
    return ScanPreview(
        file_name=target.name,
        format=SCAN_FORMATS[ALIASES.get(suffix, suffix)],
        shape=scan.shape,
        spacing=scan.spacing,
        orientation=orientation(scan.affine),
        values=f"{voxels.min():g} to {voxels.max():g} ({voxels.dtype})",
        identity=_identity(scan, suffix, copied=copied),
        about_bytes=None if copied else _about_bytes(scan, suffix),
    )


def _identity(scan: Scan, suffix: str, *, copied: bool) -> str:
    if copied:
        return "the files of the series are copied as they are, with all that they tell."
    if suffix == ".dcm":
        return (
            "left out; a new series of the voxels and their place alone, with UIDs and a "
            "pseudonym of its own."
        )
    return no_identity(scan.name)


def _about_bytes(scan: Scan, suffix: str) -> int | None:
    """Size of what is written, where it follows from that of the scan."""
    if suffix == ".dcm":
        return 2 * scan.voxels.size + _IMAGE_HEADER * len(scan.voxels)
    return scan.voxels.nbytes + NIFTI_HEADER if suffix == ".nii" else None


# --- writing ----------------------------------------------------------------------------


def export_scan(scan: Scan, path: str | Path, *, deidentify: bool = True) -> Path:
    """Write a scan in the format of the suffix.

    Parameters
    ----------
    scan
        What to write.
    path
        The file or folder.
    deidentify
        Write a DICOM series as `gitract.io.write_scan` does: a new one, of voxels and geometry
        alone. Else the files that the scan was read from are copied; where it was read from
        no DICOM series, nothing is known of the patient anyhow. So it is with other formats.

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
    suffix = suffix_of(path, SCAN_SUFFIXES)
    if suffix == ".dcm" and not is_new_series(scan, suffix, deidentify=deidentify):
        return copy_series(scan, path)
    return write_scan(scan, path)


def export_together(
    segmentation: Segmentation,
    scan: Scan,
    folder: str | Path,
    suffix: str,
    *,
    deidentify: bool = True,
    report: Report = silent,
) -> tuple["ScanRoundTrip", RoundTrip]:
    """Write a scan and its contours into a new folder, both or neither, and read them again.

    Parameters
    ----------
    segmentation
        The contours, on the grid of the scan.
    scan
        Their scan.
    folder
        Where there is none yet, or an empty one. It will hold ``scan`` and ``contours``.
    suffix
        Of the contours; the scan is written in the format that goes with them
        (`SCAN_SUFFIX_WITH`).
    deidentify
        As in `export_scan` and `gitract.io.write_segmentation`. Contours of a new series refer
        to that, and call the patient by the pseudonym that it has.
    report
        Called before each step.

    Returns
    -------
    tuple
        How the scan was when it was read again, and how the contours were, upon that.

    Raises
    ------
    InputError
        The folder holds something, or one of the two cannot be written or read again.
    """
    place, contours = f"{SCAN_NAME}{SCAN_SUFFIX_WITH[suffix]}", f"{CONTOURS_NAME}{suffix}"
    new_series = is_new_series(scan, SCAN_SUFFIX_WITH[suffix], deidentify=deidentify)
    with replaced_folder(Path(folder), is_ours=lambda _: False) as new:
        report(Progress(0, 3, f"Writing {place}"))
        export_scan(scan, new / place, deidentify=deidentify)
        report(Progress(1, 3, f"Reading {place} again"))
        again = read_scan(new / place)
        report(Progress(2, 3, f"Writing {contours} and reading it again"))
        placed = segmentation.on(again) if new_series else segmentation
        write_segmentation(placed, new / contours, deidentify=deidentify or new_series)
        checked = _compared(scan, again), check_round_trip(placed, new / contours, scan=again)
        report(Progress(3, 3, f"Putting both into {Path(folder).name}"))
    return checked


# --- afterwards -------------------------------------------------------------------------


@dataclass(frozen=True)
class ScanRoundTrip:
    """A scan that was written, read again and compared with what it was made of.

    Parameters
    ----------
    shape, spacing
        Of what was read, ``(slice, row, column)``.
    same_grid
        Whether every voxel lies where it lay, within 0.01 mm.
    reversed
        Whether the slices come in reverse order, as a DICOM reader sorts them.
    apart_mm
        The largest distance between where a corner of the grid was and is; None where the
        grids are not of one size.
    changed_voxels
        How many have another value; None where they lie elsewhere.
    """

    shape: tuple[int, int, int]
    spacing: Spacing
    same_grid: bool
    reversed: bool
    apart_mm: float | None
    changed_voxels: int | None

    @property
    def identical(self) -> bool:
        """Whether every voxel came back, where it was."""
        return self.same_grid and not self.changed_voxels

    @property
    def sentence(self) -> str:
        """What to tell of it, in one line."""
        found = [grid_told(self.same_grid, self.apart_mm, self.shape)]
        if self.reversed:
            found.append("slices in reverse order")
        if self.changed_voxels is not None:
            changed = self.changed_voxels
            found.append(f"{changed} voxels of another value" if changed else "same values")
        how = "unchanged" if self.identical else "with differences"
        return f"Scan read back {how}: {', '.join(found)}."


def check_scan_round_trip(scan: Scan, path: str | Path) -> ScanRoundTrip:
    """Read a scan that was just written, and compare.

    Parameters
    ----------
    scan
        What was given to `export_scan`.
    path
        What was written.

    Raises
    ------
    InputError
        It cannot be read.
    """
    return _compared(scan, read_scan(path))


def _compared(meant: Scan, read: Scan) -> ScanRoundTrip:
    ways = (meant, _reversed(meant)) if read.shape == meant.shape else ()
    apart = [corners_apart(read.affine, way.affine, read.shape) for way in ways]
    same = bool(apart) and min(apart) < SAME_MM
    way = apart.index(min(apart)) if same else 0
    return ScanRoundTrip(
        shape=read.shape,
        spacing=read.spacing,
        same_grid=same,
        reversed=way == 1,
        apart_mm=apart[way] if apart else None,
        changed_voxels=int(np.count_nonzero(read.voxels != ways[way].voxels)) if same else None,
    )


def _reversed(scan: Scan) -> Scan:
    """The same scan with its slices in reverse order."""
    affine = scan.affine.copy()
    affine[:3, 3] += affine[:3, 0] * (len(scan.voxels) - 1)
    affine[:3, 0] *= -1
    return replace(scan, voxels=scan.voxels[::-1], affine=affine)
