"""What an export will write, told before it is written; and whether it came out as it was.

`preview` looks at contours and a format and writes nothing. `check_round_trip` reads a file
that was written with the readers that everybody uses, and compares it with what was meant.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gitract.baseline import edited_slices
from gitract.errors import InputError
from gitract.io import (
    FLAT_SUFFIXES,
    ONTO_SERIES_SUFFIXES,
    SEGMENTATION_SUFFIXES,
    check_output,
    read_segmentation,
    suffix_of,
)
from gitract.io.dicom_reference import Reference, reference_of
from gitract.metrics import dice
from gitract.organs import IGNORE, Organ
from gitract.orientation import axes_run_to, plane_name
from gitract.scan import Scan, Segmentation, Spacing, corners_apart

__all__ = [
    "ALIASES",
    "FORMATS",
    "NIFTI_HEADER",
    "SAME_MM",
    "OrganBack",
    "OrganToWrite",
    "Preview",
    "RoundTrip",
    "check_round_trip",
    "file_told",
    "grid_to_write",
    "grid_told",
    "no_identity",
    "orientation",
    "preview",
    "with_organs",
]

FORMATS = {
    ".rtstruct.dcm": "DICOM RT Structure Set",
    ".seg.dcm": "DICOM SEG",
    ".nii.gz": "NIfTI",
    ".nii": "NIfTI, uncompressed",
    ".tif": "TIFF",
    ".csv": "Run lengths (CSV)",
    ".png": "PNG slices (folder)",
}
"""Suffix of each format of contours -> what people call it; one suffix a format."""

ALIASES = {".tiff": ".tif"}
"""Suffix -> the one that its format is known by."""

NIFTI_HEADER = 352
"""In bytes."""

SAME_MM = 0.01
"""How far voxels that lie where they lay may be apart."""

_NOTHING_DRAWN, _NOT_CHOSEN = "nothing is drawn", "not chosen"
_NO_ORGAN = "a region to ignore is no organ"
_BESIDE = (".csv", *ONTO_SERIES_SUFFIXES)
_SEG_FRAME = 650  # bytes of headers for each frame
_POINT = 24  # bytes: three numbers of seven characters and what parts them
_CORNERS = 0.6  # share of an outline's points where it turns, on organs
# What is known of a label image as a whole, and of no part of it.
_OF_THE_WHOLE = ("baseline", "filled", "together")
_NEW_SERIES = "the series that is written with it"
_NEW_IDENTITY = "left out; both have the same new pseudonym. Names of organs stay."


# --- before -----------------------------------------------------------------------------


class OrganToWrite(NamedTuple):
    """An organ of the contours; `left_out` says why it is not written, and is else empty."""

    organ: Organ
    volume_ml: float
    slices: int
    left_out: str = ""


@dataclass(frozen=True)
class Preview:
    """What a file will hold.

    Parameters
    ----------
    file_name, format
        Its name, and what people call the format.
    shape, spacing
        ``(slices, rows, columns)``, mm.
    orientation
        How the slices lie, in words.
    organs
        All organs of the contours, those that are left out among them.
    lost_voxels
        Voxels of several organs, of which the format keeps one.
    notes
        Where the organ table and what is known of slices go.
    series
        What the contours refer to, as its operator called it; empty where to nothing.
    identity
        What the file tells of who the patient is, in a sentence.
    identifying
        Names, not values, of the attributes by which it does.
    about_bytes
        Size of the file, roughly; None where it is compressed.
    """

    file_name: str
    format: str
    shape: tuple[int, int, int]
    spacing: Spacing
    orientation: str
    organs: tuple[OrganToWrite, ...]
    lost_voxels: int
    notes: str
    series: str
    identity: str
    identifying: tuple[str, ...]
    about_bytes: int | None

    @property
    def written(self) -> tuple[OrganToWrite, ...]:
        """The organs that will be in the file."""
        return tuple(one for one in self.organs if not one.left_out)

    @property
    def rows(self) -> tuple[tuple[str, str], ...]:
        """All but the organs that are written, for people: what it is about, and the text."""
        left_out = [f"{one.organ.title} ({one.left_out})" for one in self.organs if one.left_out]
        lost = (
            f"{self.lost_voxels} voxels belong to several organs, of which this format keeps one; "
            "DICOM and run lengths keep all."
        )
        told = (
            ("File", file_told(self.file_name, self.about_bytes)),
            ("Grid", grid_to_write(self.shape, self.spacing, self.orientation)),
            ("Left out", ", ".join(left_out)),
            ("Lost", lost if self.lost_voxels else ""),
            ("Refers to", self.series),
            ("Patient", self.identity),
            ("Notes", self.notes),
        )
        return tuple((heading, text) for heading, text in told if text)


def preview(
    segmentation: Segmentation,
    path: str | Path,
    *,
    organs: Collection[str] | None = None,
    deidentify: bool = False,
    onto_new_series: bool = False,
) -> Preview:
    """What `write_segmentation` will write; nothing is written, and of voxels nothing changed.

    Parameters
    ----------
    segmentation
        The contours.
    path
        The file or folder; only its name is looked at.
    organs
        Names of those to write; all when not given.
    deidentify
        As in `gitract.io.write_segmentation`.
    onto_new_series
        A DICOM file will refer to a series that is written with it (`gitract.scan_export`).

    Raises
    ------
    InputError
        The suffix is not known, no organ is chosen, the format cannot be empty and the
        contours are, or it needs a DICOM series that is not there.
    """
    target = Path(path)
    suffix = _format_of(target)
    onto_series = suffix in ONTO_SERIES_SUFFIXES
    new_series = onto_series and onto_new_series
    reference = reference_of(segmentation, suffix) if onto_series and not new_series else None
    table = tuple(_to_write(segmentation, suffix, organs))
    chosen = [not one.left_out for one in table]
    if all(one.left_out == _NOT_CHOSEN for one in table):
        raise _nothing_left(segmentation)
    if onto_series and not any(chosen):
        raise InputError(
            f"Nothing is drawn in {segmentation.name!r}, and a {FORMATS[suffix]} cannot be empty: "
            "outline an organ first."
        )
    name, masks = segmentation.name, segmentation.masks
    masks = masks if all(chosen) else masks[chosen]
    return Preview(
        file_name=target.name,
        format=FORMATS[suffix],
        shape=segmentation.shape,
        spacing=segmentation.spacing,
        orientation=orientation(segmentation.affine),
        organs=table,
        lost_voxels=_shared_voxels(masks) if suffix in FLAT_SUFFIXES else 0,
        notes=_notes(target, suffix),
        series=_NEW_SERIES if new_series else _series(reference),
        identity=_NEW_IDENTITY if new_series else _identity(name, reference, deidentify),
        identifying=() if reference is None or deidentify else reference.identifying,
        about_bytes=_about_bytes(masks, suffix),
    )


def with_organs(segmentation: Segmentation, names: Collection[str]) -> Segmentation:
    """The contours of some organs.

    Where another one had voxels, what is known of the label image as a whole does not hold any
    more: which slices were edited stays, the digests that it was found out by go.

    Raises
    ------
    InputError
        None of the organs is there.
    """
    kept = [index for index, organ in enumerate(segmentation.organs) if organ.name in names]
    if not kept:
        raise _nothing_left(segmentation)
    if len(kept) == len(segmentation.organs):
        return segmentation
    part = replace(
        segmentation,
        masks=segmentation.masks[kept],
        organs=tuple(segmentation.organs[index] for index in kept),
    )
    left_out = np.delete(segmentation.masks, kept, axis=0)
    return replace(part, provenance=_of_part(segmentation)) if left_out.any() else part


def _nothing_left(segmentation: Segmentation) -> InputError:
    return InputError(f"Nothing of {segmentation.name!r} is left to write: choose an organ.")


def _of_part(whole: Segmentation) -> dict[str, object]:
    """What is known of the contours, once some of them are gone."""
    known = {k: v for k, v in whole.provenance.items() if k not in _OF_THE_WHOLE}
    baseline = whole.provenance.get("baseline")
    if baseline is not None and len(baseline) == whole.shape[0]:
        known["edited"] = edited_slices(whole.labels().array, baseline)
    return known


def _format_of(path: Path) -> str:
    suffix = suffix_of(path, SEGMENTATION_SUFFIXES)
    if not suffix:
        check_output(path)  # which says what can be written
    return ALIASES.get(suffix, suffix)


def _to_write(
    segmentation: Segmentation, suffix: str, names: Collection[str] | None
) -> list[OrganToWrite]:
    """Each organ with its size, and why it is left out."""
    voxel_ml = float(np.prod(segmentation.spacing)) / 1000.0
    table = []
    for organ, mask in zip(segmentation.organs, segmentation.masks, strict=True):
        slices = int(np.count_nonzero(mask.any(axis=(1, 2))))
        reason = ""
        if names is not None and organ.name not in names:
            reason = _NOT_CHOSEN
        elif organ == IGNORE and suffix not in FLAT_SUFFIXES:
            reason = _NO_ORGAN
        elif not slices:
            reason = _NOTHING_DRAWN
        volume = float(np.count_nonzero(mask)) * voxel_ml if slices else 0.0
        table.append(OrganToWrite(organ, volume, slices, reason))
    return table


def _series(reference: Reference | None) -> str:
    if reference is None:
        return ""
    date = f", {reference.date}" if reference.date else ""
    return f"{reference.title}, series {reference.number}{date}, {reference.images} images"


def _identity(name: str, reference: Reference | None, deidentify: bool) -> str:
    if reference is None:
        return no_identity(name)
    if deidentify:
        return (
            f"left out; the file says {reference.pseudonym}. UIDs of the series and names of "
            "organs stay."
        )
    if not reference.identifying:
        return "the series does not say who it is."
    return f"{', '.join(reference.identifying)}, as in the series."


def no_identity(name: str) -> str:
    """What to tell of a format that holds nothing of the patient but what the scan is called."""
    return f"the format has no place for who it is; the scan is called {name}."


def orientation(affine: npt.NDArray[np.float64]) -> str:
    """How the slices of an affine lie and in what order, in words."""
    slices, rows, columns = axes_run_to(affine)
    return f"{plane_name(affine)}: slices run to {slices}, rows to {rows}, columns to {columns}"


def _notes(path: Path, suffix: str) -> str:
    if suffix in _BESIDE:
        return f"beside it, in {path.name}.json"
    return "among the slices, in gitract.json" if suffix == ".png" else "inside the file"


def _shared_voxels(masks: npt.NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(masks.sum(axis=0, dtype=np.uint8) > 1))


def _about_bytes(masks: npt.NDArray[np.bool_], suffix: str) -> int | None:
    """Size of the file, where it follows from that of the masks ``(organ, slice, …)``."""
    organs, slices, rows, columns = masks.shape
    if suffix == ".nii":
        return NIFTI_HEADER + slices * rows * columns
    if suffix == ".seg.dcm":
        return organs * slices * (rows * columns // 8 + _SEG_FRAME)
    if suffix == ".rtstruct.dcm":
        # An outline has a point between each pair of neighbours of which one is inside.
        points = sum(np.count_nonzero(np.diff(masks, axis=axis)) for axis in (2, 3))
        return int(points * _CORNERS * _POINT)
    return None


def file_told(name: str, about_bytes: int | None) -> str:
    """The name of a file, and roughly how large it will be where that is known."""
    return name if about_bytes is None else f"{name}, about {_file_size(about_bytes)}"


def grid_to_write(shape: tuple[int, int, int], spacing: Spacing, lies: str) -> str:
    """The grid of what will be written: voxels, mm and `orientation`."""
    size, mm = " × ".join(map(str, shape)), " × ".join(f"{one:.4g}" for one in spacing)
    return f"{size} voxels of {mm} mm, {lies}"


def _file_size(count: int) -> str:
    """A number of bytes as people say it."""
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{max(1, round(count / 1e3))} kB"


# --- afterwards -------------------------------------------------------------------------


class OrganBack(NamedTuple):
    """An organ as it was read back, against what it was.

    `dice` and `volume_difference_ml` (read less written) are of voxels; `hd95_mm` is 0 where
    the two are the same, and None where the organ did not come back.
    """

    organ: Organ
    dice: float
    volume_difference_ml: float
    hd95_mm: float | None


@dataclass(frozen=True)
class RoundTrip:
    """A file that was written, read again and compared with what it was made of.

    Parameters
    ----------
    shape, spacing
        Of what was read, ``(slice, row, column)``.
    same_grid
        Whether every voxel lies where it lay, within 0.01 mm, in the same order.
    apart_mm
        The largest distance between where a corner of the grid was and is; None where the
        grids are not of one size.
    organs
        Those that were written.
    """

    shape: tuple[int, int, int]
    spacing: Spacing
    same_grid: bool
    apart_mm: float | None
    organs: tuple[OrganBack, ...]

    @property
    def identical(self) -> bool:
        """Whether all came back to the last voxel."""
        return self.same_grid and all(one.dice == 1.0 for one in self.organs)

    @property
    def sentence(self) -> str:
        """What to tell of it, in one line."""
        return self.told("Read back")

    def told(self, lead: str) -> str:
        """The same with other words before, such as what was read back."""
        grid = grid_told(self.same_grid, self.apart_mm, self.shape)
        how = "unchanged" if self.identical else "with differences"
        return f"{lead} {how}: {'; '.join([grid, *map(_said, self.organs)])}."


def grid_told(same: bool, apart_mm: float | None, shape: tuple[int, int, int]) -> str:
    """How a grid that was read back lies to the one that was written, in a few words.

    Parameters
    ----------
    same, apart_mm, shape
        As in `RoundTrip`.
    """
    if same:
        return "same grid"
    if apart_mm is None:
        return f"another grid, {' × '.join(map(str, shape))} voxels"
    return f"another grid, up to {apart_mm:.2f} mm apart"


def _said(one: OrganBack) -> str:
    text = f"{one.organ.title} Dice {_floored(one.dice)}"
    if one.dice == 1.0:
        return text
    distance = "" if one.hd95_mm is None else f"HD95 {one.hd95_mm:.1f} mm, "
    return f"{text} ({distance}{one.volume_difference_ml:+.2f} mL)"


def _floored(value: float) -> str:
    """To three digits, of which 1.000 is kept for what is exactly one."""
    return f"{np.floor(value * 1000) / 1000:.3f}"


def check_round_trip(
    segmentation: Segmentation, path: str | Path, *, scan: Scan | None = None
) -> RoundTrip:
    """Read a file of contours that was just written, and compare.

    A structure set is drawn onto the grid of its series, for it has none of its own; the
    frames of a SEG are placed there by what the file says of their position. Both readers
    refuse what lies elsewhere or refers to another frame of reference. The other formats tell
    their own grid.

    Parameters
    ----------
    segmentation
        What was given to `gitract.io.write_segmentation`. Organs that no voxel has are not
        compared, nor are regions to ignore.
    path
        What was written.
    scan
        What to read them onto, such as the scan as it was written with them; else where they
        are, without voxels, or nothing where the file itself says where it lies.

    Raises
    ------
    InputError
        The file cannot be read, or not onto `scan`.
    """
    target = Path(path)
    if scan is None and suffix_of(target, SEGMENTATION_SUFFIXES) in ONTO_SERIES_SUFFIXES:
        scan = _place_of(segmentation)
    read = read_segmentation(target, scan=scan)
    same_size = read.shape == segmentation.shape
    apart = corners_apart(read.affine, segmentation.affine, read.shape) if same_size else None
    return RoundTrip(
        shape=read.shape,
        spacing=read.spacing,
        same_grid=apart is not None and apart < SAME_MM,
        apart_mm=apart,
        organs=_compared(segmentation, read if same_size else None),
    )


def _place_of(segmentation: Segmentation) -> Scan:
    """The scan of the contours, without its voxels, which no comparison needs."""
    nothing = np.broadcast_to(np.uint8(0), segmentation.shape)
    return Scan(
        nothing,
        segmentation.spacing,
        segmentation.affine,
        segmentation.name,
        slice_numbers=segmentation.slice_numbers,
        stored=segmentation.stored,
    )


def _compared(meant: Segmentation, read: Segmentation | None) -> tuple[OrganBack, ...]:
    """Each organ that was drawn, against what of it was read; against nothing of another size."""
    from gitract.surface import surface_distances  # brings scipy, which a preview does not need

    voxel_ml = float(np.prod(meant.spacing)) / 1000.0
    found = {}
    if read is not None:
        found = {o.name: mask for o, mask in zip(read.organs, read.masks, strict=True)}
    compared = []
    for organ, mask in zip(meant.organs, meant.masks, strict=True):
        if organ == IGNORE or not mask.any():
            continue
        again = found.get(organ.name, np.zeros_like(mask))
        changed = int(np.count_nonzero(again)) - int(np.count_nonzero(mask))
        same = np.array_equal(again, mask)
        compared.append(
            OrganBack(
                organ,
                1.0 if same else dice(again, mask) or 0.0,
                changed * voxel_ml,
                0.0 if same else surface_distances(again, mask, meant.spacing).hd95,
            )
        )
    return tuple(compared)
