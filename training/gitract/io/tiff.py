"""TIFF stacks: scans of any origin, and segmentations with their geometry and provenance.

What is written is an ImageJ stack, so that Fiji opens it with its voxel size, or, for
numbers that ImageJ does not have, an OME-TIFF. What TIFF has no place for stands as JSON
in ImageJ's *Info* or in OME's description.
"""

import json
import math
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gitract.errors import InputError
from gitract.io._file_names import stem_of
from gitract.io._labels import label_values, segmentation_of, whole_numbers
from gitract.io._notes import is_of_segmentation, notes_of, parsed, restored
from gitract.io.found import FoundScan
from gitract.progress import Progress, Report, silent
from gitract.replacing import replaced_file
from gitract.scan import Scan, Segmentation, Spacing, scaled_affine

if TYPE_CHECKING:
    from tifffile import TiffFile

__all__ = [
    "describe",
    "holds_labels",
    "is_tiff",
    "label_names",
    "read_scan",
    "read_segmentation",
    "write_scan",
    "write_segmentation",
]

_MAX_VOXELS = 4_000_000_000
_MAX_SIDE = 65_535
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_IMAGEJ_TYPES = ("uint8", "uint16", "float32")
_OME_TYPES = (*_IMAGEJ_TYPES, "int8", "int16", "int32", "uint32", "float64")
# Offsets of a classic TIFF have 32 bits; the rest is left for what is no voxel.
_MAX_CLASSIC_BYTES = 2**32 - 2**25

# What tifffile raises for damaged files, by its own checks or by stumbling over them.
_DAMAGE = (
    ValueError,  # tifffile.TiffFileError among them
    LookupError,
    TypeError,
    RuntimeError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    SyntaxError,  # of the XML in an OME-TIFF
    struct.error,
    zlib.error,
)

_MM_IN = {
    "nm": 1e-6,
    "micron": 1e-3,
    "microns": 1e-3,
    "um": 1e-3,
    "µm": 1e-3,  # micro sign
    "μm": 1e-3,  # Greek mu
    r"\u00b5m": 1e-3,  # as ImageJ writes it
    "mm": 1.0,
    "millimeter": 1.0,
    "cm": 10.0,
    "m": 1000.0,
    "inch": 25.4,
    "in": 25.4,
}


def is_tiff(path: Path) -> bool:
    """Whether the file begins as a TIFF does."""
    try:
        with path.open("rb") as file:
            return file.read(4) in _MAGIC
    except OSError:
        return False


# --- reading ----------------------------------------------------------------------------


class _Head(NamedTuple):
    """What is known of a TIFF before its voxels: shape, spacing if known, our JSON."""

    shape: tuple[int, int, int]
    spacing: Spacing | None
    notes: Mapping[str, Any] | None


def describe(path: Path) -> FoundScan:
    """What `read_scan` would find, without reading a voxel.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    FoundScan
        With the reason where the file would be refused; its shape is then (0, 0, 0)
        unless it is only the spacing that is missing.
    """
    shape, problem = (0, 0, 0), ""
    try:
        with _opened(path) as tiff:
            head = _head(path, tiff)
        shape = head.shape
        _scan(path, head, np.broadcast_to(np.uint8(0), shape), None)
    except InputError as error:
        problem = str(error)
    return FoundScan(stem_of(path), path, "TIFF", shape, problem=problem)


def read_scan(path: Path, *, spacing: Spacing | None = None, report: Report = silent) -> Scan:
    """Read a greyscale TIFF stack, or a single image as a stack of one slice.

    Parameters
    ----------
    path
        The file.
    spacing
        ``(slice, row, column)`` in mm, in place of what the file says.
    report
        Called before and after the voxels are read.

    Returns
    -------
    Scan
        Voxels as stored; with affine and name where `write_scan` wrote the file.

    Raises
    ------
    InputError
        The file is damaged, in colour, has more than three axes, or has no spacing and
        none is given.
    """
    report(Progress(0, 1, f"Reading {path.name}"))
    head, voxels = _read(path)
    report(Progress(1, 1, f"Reading {path.name}"))
    return _scan(path, head, voxels, spacing)


def read_segmentation(
    path: Path,
    *,
    scan: Scan | None = None,
    spacing: Spacing | None = None,
    choices: Mapping[str, str] | None = None,
) -> Segmentation:
    """Read a label stack; one written by `write_segmentation` comes back complete.

    Parameters
    ----------
    path
        The file.
    scan
        The scan that the labels belong to; it gives its place to a file that has none.
    spacing
        ``(slice, row, column)`` in mm, in place of what the file says.
    choices
        Value, as text, -> organ, for a file that does not carry its own table.

    Raises
    ------
    InputError
        The file is damaged, holds a value that is no organ's id, does not fit the scan,
        or has no spacing and neither `spacing` nor `scan` is given.
    """
    head, voxels = _read(path)
    return segmentation_of(
        whole_numbers(voxels, path),
        where=path,
        spacing=head.spacing if spacing is None else spacing,
        notes=head.notes,
        scan=scan,
        choices=choices,
    )


def holds_labels(path: Path) -> bool:
    """Whether the file was written by `write_segmentation`; never raises."""
    try:
        with _opened(path) as tiff:
            return is_of_segmentation(_notes(tiff))
    except InputError:
        return False


def label_names(path: Path) -> list[str]:
    """The values in a label stack as text; nothing where it carries its organ table.

    Raises
    ------
    InputError
        The file is damaged or no label image.
    """
    head, voxels = _read(path)
    labels = whole_numbers(voxels, path)
    own = is_of_segmentation(head.notes) and _restored(path, head) is not None
    return [] if own else [str(value) for value in label_values(labels)]


def _restored(path: Path, head: _Head) -> dict[str, Any] | None:
    """The arguments of what was written, or None where the notes are not of this grid."""
    return restored(head.notes, where=path, shape=head.shape, spacing=head.spacing)


def _scan(path: Path, head: _Head, voxels: np.ndarray, spacing: Spacing | None) -> Scan:
    known = _restored(path, head)
    if known is None:
        if spacing is None and head.spacing is None:
            raise InputError(
                f"{path} does not say how large its voxels are: give the spacing in mm, "
                "(slice, row, column)."
            )
        known = {"spacing": spacing or head.spacing, "name": stem_of(path)}
    elif spacing is not None:
        known.update(spacing=spacing, affine=scaled_affine(known["affine"], spacing))
    known.pop("organs", None)  # of labels that are looked at as a scan
    known.pop("provenance", None)
    try:
        return Scan(voxels=voxels, source=path.absolute(), **known)
    except InputError as error:
        raise InputError(f"In {path}: {error}") from error


@contextmanager
def _opened(path: Path) -> "Iterator[TiffFile]":
    """The open file; damage that shows inside the block becomes an `InputError`."""
    from tifffile import TiffFile

    try:
        with TiffFile(path) as tiff:
            yield tiff
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror or error}): "
            "check that it is there and permitted."
        ) from error
    except _DAMAGE as error:
        if "imagecodecs" in str(error):
            raise InputError(
                f"{path} is compressed in a way that cannot be read: save it uncompressed."
            ) from error
        raise InputError(
            f"{path} is damaged or not a TIFF file: copy it again from its source."
        ) from error


def _read(path: Path) -> tuple[_Head, np.ndarray]:
    """Head and voxels ``(slice, row, column)``."""
    with _opened(path) as tiff:
        head = _head(path, tiff)
        if len(tiff.series) > 1:
            voxels = np.stack([page.asarray() for page in tiff.pages])
        else:
            voxels = tiff.series[0].asarray()
        voxels = voxels.reshape(head.shape)
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        raise InputError(f"{path} holds values that are not numbers (NaN or infinite).")
    return head, voxels.astype(voxels.dtype.newbyteorder("="), copy=False)


def _head(path: Path, tiff: "TiffFile") -> _Head:
    _check_complete(tiff)
    _check_layout(path, tiff)
    page = tiff.series[0].keyframe
    rows, columns = page.imagelength, page.imagewidth
    slices = sum(series.size for series in tiff.series) // (rows * columns)
    spacing = _spacing(tiff)
    # A program that took the spacing away can have changed anything else.
    notes = None if spacing is None else _notes(tiff)
    return _Head((slices, rows, columns), spacing, notes)


def _check_complete(tiff: "TiffFile") -> None:
    """Follow the chain of pages to its end, since tifffile stops quietly where it breaks."""
    layout, file = tiff.tiff, tiff.filehandle
    file.seek(layout.offsetsize)  # 4, in BigTIFF 8: both the place and the width of the first
    seen: set[int] = set()
    while offset := _number(file.read(layout.offsetsize), layout.offsetformat):
        if offset in seen or offset >= file.size:
            raise ValueError(f"the chain of pages breaks at {offset}")
        seen.add(offset)
        file.seek(offset)
        tags = _number(file.read(layout.tagnosize), layout.tagnoformat)
        file.seek(offset + layout.tagnosize + tags * layout.tagsize)
    declared = (tiff.imagej_metadata or {}).get("images", 1)
    page = tiff.pages.first
    if tiff.series[0].size < declared * page.imagelength * page.imagewidth:
        raise ValueError(f"fewer than {declared} images")


def _number(content: bytes, layout: str) -> int:
    return int(struct.unpack(layout, content)[0])


def _check_layout(path: Path, tiff: "TiffFile") -> None:
    """Refuse what is not one stack of greyscale slices, before a voxel is read."""
    if len(tiff.series) > 1 and not _is_page_by_page(tiff):
        raise InputError(
            f"{path} holds {len(tiff.series)} separate images of different kinds: "
            "save one stack of equal slices."
        )
    series = tiff.series[0]
    if series.keyframe.samplesperpixel > 1 or "S" in series.axes:
        raise InputError(f"{path} is a colour image (RGB): save it as greyscale.")
    if len(series.shape) > 3:
        raise InputError(
            f"{path} has {len(series.shape)} axes ({series.axes}): "
            "save one stack with the axes (slice, row, column)."
        )
    if series.dtype.kind not in "uif":
        raise InputError(f"{path} holds {series.dtype} values: save it as whole numbers or floats.")
    size = sum(one.size for one in tiff.series)
    side = max(series.keyframe.imagelength, series.keyframe.imagewidth)
    if size > _MAX_VOXELS or side > _MAX_SIDE:
        raise InputError(
            f"{path} claims to hold {size} voxels in slices of up to {side} a side, "
            "too many for one scan: cut it first."
        )


def _is_page_by_page(tiff: "TiffFile") -> bool:
    """Whether the series are slices of one stack that was written slice by slice."""
    pages = [(page.shape, page.dtype) for page in tiff.pages]
    single = all(len(series.shape) == 2 or series.kind == "generic" for series in tiff.series)
    return single and len(set(pages)) == 1


# --- voxel size -------------------------------------------------------------------------


def _spacing(tiff: "TiffFile") -> Spacing | None:
    """The spacing that the metadata give, or None where a part of it is absent."""
    if tiff.is_imagej:
        found = _imagej_spacing(tiff)
    elif tiff.is_ome:
        found = _ome_spacing(tiff)
    else:
        found = None  # plain TIFF has no place for the distance of slices
    if found is None or not all(math.isfinite(mm) and mm > 0 for mm in found):
        return None
    return found


def _imagej_spacing(tiff: "TiffFile") -> Spacing | None:
    meta = tiff.imagej_metadata or {}
    tags = tiff.pages.first.tags
    unit = _mm_in(meta.get("unit"))
    depth_unit = _mm_in(meta.get("zunit", meta.get("unit")))
    if unit is None or depth_unit is None or "spacing" not in meta:
        return None
    if "XResolution" not in tags or "YResolution" not in tags:
        return None
    columns, rows = (_ratio(tags[key].value) for key in ("XResolution", "YResolution"))
    if not columns or not rows:
        return None
    # ImageJ writes a negative distance where a stack runs the other way.
    return abs(float(meta["spacing"])) * depth_unit, unit / rows, unit / columns


def _ratio(value: tuple[int, int]) -> float:
    return value[0] / value[1] if value[1] else 0.0


def _ome_spacing(tiff: "TiffFile") -> Spacing | None:
    pixels = _ome_image(tiff).get("Pixels", {})
    sizes = []
    for axis in "ZYX":
        unit = _mm_in(pixels.get(f"PhysicalSize{axis}Unit", "µm"))  # OME's default
        size = pixels.get(f"PhysicalSize{axis}")
        if unit is None or size is None:
            return None
        sizes.append(float(size) * unit)
    return sizes[0], sizes[1], sizes[2]


def _ome_image(tiff: "TiffFile") -> dict[str, Any]:
    """The first image of OME's XML."""
    from tifffile import xml2dict

    image = xml2dict(tiff.ome_metadata or "").get("OME", {}).get("Image", {})
    return image[0] if isinstance(image, list) else image


def _mm_in(unit: object) -> float | None:
    """Millimetres in one unit; None for pixels and for what is not known."""
    return _MM_IN.get(str(unit).strip().lower())


def _notes(tiff: "TiffFile") -> dict[str, Any] | None:
    """Our JSON, or None in a file that is not ours."""
    if tiff.is_imagej:
        return parsed(str((tiff.imagej_metadata or {}).get("Info", "")))
    if tiff.is_ome:
        return parsed(str(_ome_image(tiff).get("Description", "")))
    return None


# --- writing ----------------------------------------------------------------------------


def write_segmentation(segmentation: Segmentation, path: Path) -> None:
    """Write a segmentation as a compressed ImageJ label stack.

    Where organs overlap the highest id is written (`Segmentation.labels`); a label table
    keeps overlaps.

    Raises
    ------
    InputError
        The file cannot be written.
    """
    _write(segmentation, segmentation.labels().array, path)


def write_scan(scan: Scan, path: Path) -> None:
    """Write a scan as a compressed ImageJ stack, or as OME-TIFF where ImageJ cannot hold it.

    ImageJ has ``uint8``, ``uint16`` and ``float32``, up to 4 GB. OME-TIFF has the other
    integers up to 32 bits and ``float64``, as BigTIFF beyond 4 GB.

    Raises
    ------
    InputError
        The scan holds integers of more than 32 bits, or the file cannot be written.
    """
    _write(scan, _storable(scan.voxels), path)


def _storable(voxels: np.ndarray) -> np.ndarray:
    """The voxels in a type that TIFF has, none of them changed."""
    if voxels.dtype.name in _OME_TYPES:
        return voxels
    if voxels.dtype.kind == "f":
        return voxels.astype(np.float32 if voxels.dtype == np.float16 else np.float64)
    low, high = int(voxels.min()), int(voxels.max())
    for kind in (np.int32, np.uint32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return voxels.astype(kind)
    raise InputError(
        f"The scan holds values from {low} to {high}, more than the 32 bits that TIFF has: "
        "write it as NIfTI (.nii.gz)."
    )


def _write(item: Scan | Segmentation, voxels: np.ndarray, path: Path) -> None:
    is_big = voxels.nbytes > _MAX_CLASSIC_BYTES
    with replaced_file(path) as temporary:
        if voxels.dtype.name in _IMAGEJ_TYPES and not is_big:
            _write_imagej(item, voxels, temporary)
        else:
            _write_ome(item, voxels, temporary, is_big)


def _write_imagej(item: Scan | Segmentation, voxels: np.ndarray, path: Path) -> None:
    from tifffile import imwrite

    slice_mm, row_mm, column_mm = item.spacing
    imwrite(
        path,
        # All six of ImageJ's axes, (time, slice, channel, row, column, sample): with fewer
        # tifffile guesses, and takes three slices or columns for colours.
        voxels[None, :, None, :, :, None],
        imagej=True,
        photometric="minisblack",
        compression="zlib",
        resolution=(1 / column_mm, 1 / row_mm),
        metadata={"spacing": slice_mm, "unit": "mm", "Info": json.dumps(notes_of(item))},
    )


def _write_ome(item: Scan | Segmentation, voxels: np.ndarray, path: Path, is_big: bool) -> None:
    from tifffile import imwrite

    metadata: dict[str, Any] = {"axes": "ZYX", "Description": json.dumps(notes_of(item))}
    for axis, mm in zip("ZYX", item.spacing, strict=True):
        metadata[f"PhysicalSize{axis}"] = mm
        metadata[f"PhysicalSize{axis}Unit"] = "mm"
    imwrite(
        path,
        voxels,
        ome=True,
        bigtiff=is_big,
        photometric="minisblack",
        compression="zlib",
        metadata=metadata,
    )
