"""TIFF stacks: scans of any origin, and segmentations with their geometry and provenance.

A segmentation is written as an ImageJ stack, so that Fiji opens it with its voxel size;
what TIFF has no place for stands as JSON in ImageJ's *Info*.
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
from gitract.io._files import replaced_file
from gitract.organs import ORGANS, Organ
from gitract.progress import Progress, Report, silent
from gitract.scan import Scan, Segmentation, Spacing

if TYPE_CHECKING:
    from tifffile import TiffFile

__all__ = [
    "is_segmentation_tiff",
    "is_tiff",
    "read_segmentation_tiff",
    "read_tiff",
    "write_segmentation_tiff",
]

_MAX_VOXELS = 4_000_000_000
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MARK = "gitract segmentation"

# What tifffile raises for damaged files, by its own checks or by stumbling over them.
_DAMAGE = (
    ValueError,  # tifffile.TiffFileError among them
    LookupError,
    TypeError,
    RuntimeError,
    ArithmeticError,
    AttributeError,
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


class _Stack(NamedTuple):
    """What a TIFF holds: voxels ``(slice, row, column)``, spacing if known, our JSON."""

    voxels: np.ndarray
    spacing: Spacing | None
    notes: Mapping[str, Any] | None


def read_tiff(path: str | Path, *, spacing: Spacing | None = None, report: Report = silent) -> Scan:
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
        Voxels as stored.

    Raises
    ------
    InputError
        The file is damaged, in colour, has more than three axes, or has no spacing and
        none is given.
    """
    file = Path(path)
    report(Progress(0, 1, f"Reading {file.name}"))
    stack = _read_stack(file)
    report(Progress(1, 1, f"Reading {file.name}"))
    return Scan(
        voxels=stack.voxels,
        spacing=_known_spacing(file, spacing, stack.spacing),
        name=file.stem,
        source=file.absolute(),
    )


def read_segmentation_tiff(
    path: str | Path, *, organs: tuple[Organ, ...] = ORGANS, spacing: Spacing | None = None
) -> Segmentation:
    """Read a label stack; one written by `write_segmentation_tiff` comes back complete.

    Parameters
    ----------
    path
        The file.
    organs
        The table for a file that does not carry its own.
    spacing
        ``(slice, row, column)`` in mm, in place of what the file says.

    Raises
    ------
    InputError
        The file is damaged, holds a value that is no organ's id, or has no spacing and
        none is given.
    """
    file = Path(path)
    stack = _read_stack(file)
    if stack.voxels.dtype.kind == "f":
        raise InputError(
            f"{file} holds {stack.voxels.dtype} numbers where labels are whole numbers: "
            "save it with 8 or 16 bits."
        )
    known = _restored(file, stack) if spacing is None else None
    if known is None:
        known = {
            "spacing": _known_spacing(file, spacing, stack.spacing),
            "organs": organs,
            "name": file.stem,
        }
    try:
        return Segmentation.of_labels(stack.voxels, **known)
    except InputError as error:
        raise InputError(f"In {file}: {error}") from error


def is_segmentation_tiff(path: str | Path) -> bool:
    """Whether the file was written by `write_segmentation_tiff`; never raises."""
    file = Path(path)
    if not is_tiff(file):
        return False
    from tifffile import TiffFile

    try:
        with TiffFile(file) as tiff:
            return _notes(tiff) is not None
    except (OSError, *_DAMAGE):
        return False


def _known_spacing(path: Path, given: Spacing | None, found: Spacing | None) -> Spacing:
    spacing = found if given is None else given
    if spacing is None:
        raise InputError(
            f"{path} does not say how large its voxels are: give the spacing in mm, "
            "(slice, row, column)."
        )
    return spacing


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
                f"{path} is compressed in a way that needs the package imagecodecs: "
                "install it or save the file uncompressed."
            ) from error
        raise InputError(
            f"{path} is damaged or not a TIFF file: copy it again from its source."
        ) from error


def _read_stack(path: Path) -> _Stack:
    with _opened(path) as tiff:
        _check_complete(tiff)
        _check_layout(path, tiff)
        series = tiff.series[0]
        voxels = series.asarray().reshape(
            -1, series.keyframe.imagelength, series.keyframe.imagewidth
        )
        spacing, notes = _spacing(tiff), _notes(tiff)
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        raise InputError(f"{path} holds values that are not numbers (NaN or infinite).")
    native = voxels.astype(voxels.dtype.newbyteorder("="), copy=False)
    return _Stack(native, spacing, notes)


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
    if len(tiff.series) > 1:
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
    if series.size > _MAX_VOXELS:
        raise InputError(
            f"{path} claims to hold {series.size} voxels, too many for one scan: cut it first."
        )


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
    from tifffile import xml2dict

    image = xml2dict(tiff.ome_metadata or "").get("OME", {}).get("Image", {})
    pixels = (image[0] if isinstance(image, list) else image).get("Pixels", {})
    sizes = []
    for axis in "ZYX":
        unit = _mm_in(pixels.get(f"PhysicalSize{axis}Unit", "µm"))  # OME's default
        size = pixels.get(f"PhysicalSize{axis}")
        if unit is None or size is None:
            return None
        sizes.append(float(size) * unit)
    return sizes[0], sizes[1], sizes[2]


def _mm_in(unit: object) -> float | None:
    """Millimetres in one unit; None for pixels and for what is not known."""
    return _MM_IN.get(str(unit).strip().lower())


# --- our segmentations ------------------------------------------------------------------


def write_segmentation_tiff(segmentation: Segmentation, path: Path) -> None:
    """Write a segmentation as a compressed ImageJ label stack.

    Where organs overlap the highest id is written (`Segmentation.labels`); a label table
    keeps overlaps.

    Raises
    ------
    InputError
        The file cannot be written.
    """
    from tifffile import imwrite

    slice_mm, row_mm, column_mm = segmentation.spacing
    # All six of ImageJ's axes, (time, slice, channel, row, column, sample): with fewer
    # tifffile guesses, and takes three slices or columns for colours.
    labels = segmentation.labels().array[None, :, None, :, :, None]
    with replaced_file(path) as temporary:
        imwrite(
            temporary,
            labels,
            imagej=True,
            photometric="minisblack",
            compression="zlib",
            resolution=(1 / column_mm, 1 / row_mm),
            metadata={
                "spacing": slice_mm,
                "unit": "mm",
                "Info": json.dumps(_notes_of(segmentation)),
            },
        )


def _notes_of(segmentation: Segmentation) -> dict[str, Any]:
    return {
        "format": _MARK,
        "name": segmentation.name,
        "shape": segmentation.shape,
        "spacing": segmentation.spacing,
        "affine": segmentation.affine.tolist(),
        "organs": [{"id": o.id, "name": o.name, "color": o.color} for o in segmentation.organs],
        "slice_numbers": segmentation.slice_numbers,
        "provenance": dict(segmentation.provenance),
    }


def _notes(tiff: "TiffFile") -> dict[str, Any] | None:
    """Our JSON in ImageJ's *Info*, or None in a file that is not ours."""
    info = (tiff.imagej_metadata or {}).get("Info", "")
    if _MARK not in info:
        return None
    try:
        notes = json.loads(info)
    except ValueError:
        return None
    return notes if isinstance(notes, dict) and notes.get("format") == _MARK else None


def _restored(path: Path, stack: _Stack) -> dict[str, Any] | None:
    """The arguments of the segmentation that was written.

    None where another program changed the stack after us: cropped or rescaled, its
    affine and its baseline would be those of another grid.
    """
    notes = stack.notes
    if notes is None:
        return None
    try:
        if tuple(notes["shape"]) != stack.voxels.shape or not _agrees(notes, stack.spacing):
            return None
        numbers = notes["slice_numbers"]
        return {
            "spacing": tuple(notes["spacing"]),
            "affine": np.array(notes["affine"]),
            "organs": tuple(Organ(**organ) for organ in notes["organs"]),
            "name": notes["name"],
            "slice_numbers": None if numbers is None else tuple(numbers),
            "provenance": notes["provenance"],
        }
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"The notes of {path} on its organs and geometry are damaged: save it again."
        ) from error


def _agrees(notes: Mapping[str, Any], spacing: Spacing | None) -> bool:
    """Whether the notes' spacing is that of the TIFF, as far as TIFF can tell."""
    return spacing is not None and np.allclose(notes["spacing"], spacing, rtol=1e-3)
