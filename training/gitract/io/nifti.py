"""NIfTI files: scans of any origin, and segmentations with their geometry and provenance.

The axes of a file stand in any order; in the array they stand as everywhere here. They
are only ever swapped, never reversed, so that a segmentation is written on exactly the
grid of its scan's file. NIfTI's RAS becomes LPS and back at this border. What NIfTI has no
field for stands as JSON in a header extension.
"""

import gzip
import json
import math
import struct
import zlib
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gitract.errors import InputError
from gitract.io._file_names import stem_of
from gitract.io._labels import label_values, segmentation_of, whole_numbers
from gitract.io._notes import is_of_segmentation, notes_of, parsed, restored
from gitract.io.found import FoundScan
from gitract.progress import Progress, Report, silent
from gitract.replacing import replaced_file
from gitract.scan import (
    NiftiAxes,
    Scan,
    Segmentation,
    Spacing,
    corners_apart,
    scaled_affine,
)

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

__all__ = [
    "describe",
    "holds_labels",
    "is_nifti",
    "label_names",
    "read_scan",
    "read_segmentation",
    "write_scan",
    "write_segmentation",
]

_MAX_VOXELS = 4_000_000_000
_MAX_SIDE = 65_535
_MAX_SIDE_OF_NIFTI_1 = 32_767
_MAX_OFFSET = 100_000_000  # of the voxels, after all extensions
_GZIP = b"\x1f\x8b"
_GZIP_LEVEL = 3  # scans hardly shrink further, and 9 takes five times as long
_MOST_SHRUNK = 1032  # what deflate makes of zeros, https://zlib.net/zlib_tech.html
_SIZE_OF_HEADER = {1: 348, 2: 540}
_COMMENT = 6  # the extension code of plain text
_MM_IN_UNIT = {1: 1000.0, 3: 0.001}  # metres, micrometres; all else is mm
_SAME_MM = 0.01
_LPS_OF_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # and back
_NOWHERE = "The file does not say where in the body it lies: position and orientation are unknown."
_TWICE = (
    "The file places its voxels twice, up to {:.2g} mm apart: its sform was used, not its qform."
)

# What reading a damaged header raises, besides nibabel's own error.
_DAMAGE = (
    ValueError,
    LookupError,
    TypeError,
    ArithmeticError,
    EOFError,
    gzip.BadGzipFile,
    struct.error,
    zlib.error,
)


def is_nifti(path: Path) -> bool:
    """Whether the file begins as a NIfTI file does, compressed or not; never raises.

    Pairs of ``.hdr`` and ``.img`` are not read.
    """
    try:
        with _opened(path) as file:
            return _version(file.read(_SIZE_OF_HEADER[2])) is not None
    except InputError:
        return False


def _version(start: bytes) -> tuple[int, str] | None:
    """NIfTI's version and the byte order, out of the first bytes; None for other files."""
    for order in "<>":
        match struct.unpack_from(f"{order}i", start.ljust(4)):
            case (348,) if start[344:348] == b"n+1\0":
                return 1, order
            case (540,) if start[4:8] == b"n+2\0":
                return 2, order
    return None


# --- reading ----------------------------------------------------------------------------


def describe(path: Path) -> FoundScan:
    """What `read_scan` would find, from the header alone.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    FoundScan
        Its shape is (0, 0, 0) where the file would be refused.
    """
    try:
        scan = _read_head(path).scan
    except InputError as error:
        return FoundScan(stem_of(path), path, "NIfTI", (0, 0, 0), problem=str(error))
    return FoundScan(stem_of(path), path, "NIfTI", scan.shape, remarks=scan.remarks)


def read_scan(path: Path, *, spacing: Spacing | None = None, report: Report = silent) -> Scan:
    """Read a NIfTI file of one volume.

    Parameters
    ----------
    path
        NIfTI-1 or NIfTI-2 in one file, compressed or not.
    spacing
        ``(slice, row, column)`` in mm, in place of what the file says.
    report
        Called for each plane of the file.

    Returns
    -------
    Scan
        Its slices are the file's axis that is closest to head-foot, its rows that
        closest to front-back, its columns that closest to left-right. The scale of the
        header is applied: integers stay integers where slope and intercept are whole,
        else they become ``float32``.

    Raises
    ------
    InputError
        The file is damaged, holds several volumes, colours or complex numbers, or its
        geometry is not usable.
    """
    head = _read_head(path, spacing)
    return replace(head.scan, voxels=_read_voxels(path, head, report))


def read_segmentation(
    path: Path,
    *,
    scan: Scan | None = None,
    spacing: Spacing | None = None,
    choices: Mapping[str, str] | None = None,
) -> Segmentation:
    """Read a label image; one written by `write_segmentation` comes back complete.

    Parameters
    ----------
    path
        The file.
    scan
        The scan that the labels belong to.
    spacing
        ``(slice, row, column)`` in mm, in place of what the file says.
    choices
        Value, as text, -> organ, for a file that does not carry its own table.

    Raises
    ------
    InputError
        The file is damaged, holds a value that is no organ's id, or does not fit the scan.
    """
    head = _read_head(path, spacing)
    return segmentation_of(
        whole_numbers(_read_voxels(path, head), path),
        where=path,
        spacing=head.scan.spacing,
        affine=head.scan.affine,
        notes=head.notes,
        stored=head.scan.stored,
        scan=scan,
        choices=choices,
    )


def holds_labels(path: Path) -> bool:
    """Whether the file was written by `write_segmentation`; never raises."""
    try:
        return is_of_segmentation(_read_head(path).notes)
    except InputError:
        return False


def label_names(path: Path) -> list[str]:
    """The values in a label image as text; nothing where it carries its organ table.

    Raises
    ------
    InputError
        The file is damaged or no label image.
    """
    head = _read_head(path)
    if is_of_segmentation(head.notes):
        return []
    labels = whole_numbers(_read_voxels(path, head), path)
    return [str(value) for value in label_values(labels)]


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The content, decompressed; damage that shows inside the block becomes an `InputError`."""
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == _GZIP
            file.seek(0)
            if not zipped:
                yield file
                return
            with gzip.GzipFile(fileobj=file) as content:
                yield content  # type: ignore[misc]  # it has all of IO[bytes] that is used
    except _DAMAGE as error:
        raise InputError(
            f"{path} is damaged or not a NIfTI file: copy it again from its source."
        ) from error
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror or error}): "
            "check that it is there and permitted."
        ) from error


# --- the header -------------------------------------------------------------------------


class _Head(NamedTuple):
    """What is known of a file before its voxels.

    `scan` is complete but for its voxels, which are all one zero. `axes` are as in
    `Scan.stored`, `grid` is the shape in the file's own order, `scale` slope and intercept
    or None. `notes` are ours where they are of this grid.
    """

    scan: Scan
    axes: NiftiAxes
    grid: tuple[int, int, int]
    dtype: np.dtype
    offset: int
    scale: tuple[float, float] | None
    notes: Mapping[str, Any] | None


def _read_head(path: Path, spacing: Spacing | None = None) -> _Head:
    from nibabel.spatialimages import HeaderDataError

    try:
        with _opened(path) as file:
            header, notes = _header(file)
            grid = _grid(path, header)
            dtype = _dtype(path, header)
            offset = int(header["vox_offset"])
            _check_length(path, file, offset + math.prod(grid) * dtype.itemsize)
            slope, intercept = header.get_slope_inter()
            affine, remarks = _ras_of_file(path, header, grid, spacing)
            known = _noted(path, notes, grid, affine)
    except HeaderDataError as error:
        raise InputError(
            f"{path} has a header that contradicts itself: save it again from its source."
        ) from error
    if known is None:
        placed = bool(header["qform_code"] > 0 or header["sform_code"] > 0)
        known, notes = _anatomical(path, affine, placed), None
    if spacing is not None:
        known.update(spacing=spacing, affine=scaled_affine(known["affine"], spacing))
    axes = known["stored"]
    voxels = np.broadcast_to(np.uint8(0), [grid[axis] for axis in axes.order])
    try:
        scan = Scan(voxels, source=path.absolute(), remarks=remarks, **known)
    except InputError as error:
        raise InputError(f"In {path}: {error}") from error
    scale = None if (slope, intercept) in ((None, None), (1.0, 0.0)) else (slope, intercept)
    return _Head(scan, axes, grid, dtype, offset, scale, notes)


def _header(file: IO[bytes]) -> tuple["Nifti1Header", dict[str, Any] | None]:
    """The header, and our JSON if it is among its extensions."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    start = file.read(_SIZE_OF_HEADER[2])
    found = _version(start)
    if found is None:
        raise ValueError("no header")
    version, order = found
    size = _SIZE_OF_HEADER[version]
    kind = Nifti1Header if version == 1 else Nifti2Header
    # Unchecked, since nibabel's own check mends a spacing of 0 to 1 and goes on.
    header = kind(start[:size], endianness=order, check=False)
    offset = int(header["vox_offset"])
    if not size + 4 <= offset < _MAX_OFFSET:
        raise ValueError("no such place for voxels")
    file.seek(size)
    return header, _notes(file.read(offset - size), order)


def _notes(extensions: bytes, order: str) -> dict[str, Any] | None:
    """Our JSON among the extensions, or None."""
    place = 4
    while extensions[:1] != b"\0" and place + 8 <= len(extensions):
        size, code = struct.unpack_from(f"{order}2i", extensions, place)
        if size < 8:
            break  # padding
        if code == _COMMENT:
            content = extensions[place + 8 : place + size].rstrip(b"\0")
            notes = parsed(content.decode("utf-8", errors="replace"))
            if notes is not None:
                return notes
        place += size
    return None


def _grid(path: Path, header: "Nifti1Header") -> tuple[int, int, int]:
    """Voxels along each axis of the file."""
    axes = int(header["dim"][0])
    shape = [int(n) for n in header["dim"][1 : axes + 1]]
    if not 1 <= axes <= 7 or min(shape) < 1:
        raise ValueError("impossible dimensions")
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    size = " x ".join(str(n) for n in shape)
    if len(shape) < 3:
        raise InputError(
            f"{path} has {len(shape)} axes ({size}) where a scan has three: "
            "save all its slices in one file."
        )
    if len(shape) > 3:
        raise InputError(
            f"{path} has {len(shape)} axes ({size}), which are {math.prod(shape[3:])} volumes: "
            "choose one volume and save it as a 3-D file."
        )
    if math.prod(shape) > _MAX_VOXELS or max(shape) > _MAX_SIDE:
        raise InputError(
            f"{path} claims to hold {size} voxels, too many for one scan: cut it first."
        )
    return shape[0], shape[1], shape[2]


def _dtype(path: Path, header: "Nifti1Header") -> np.dtype:
    dtype = header.get_data_dtype()
    if dtype.kind not in "uif":
        name = header.get_value_label("datatype")
        raise InputError(f"{path} holds {name} values: save it as whole numbers or floats.")
    return dtype


def _check_length(path: Path, file: IO[bytes], needed: int) -> None:
    """Refuse a file that is too short for its voxels, before room is made for them."""
    most = path.stat().st_size * (_MOST_SHRUNK if isinstance(file, gzip.GzipFile) else 1)
    if needed > most:
        raise EOFError


# --- where the voxels lie ---------------------------------------------------------------


def _ras_of_file(
    path: Path, header: "Nifti1Header", grid: tuple[int, int, int], spacing: Spacing | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """File index to RAS in mm, and what a user should know of it."""
    sizes = header["pixdim"][1:4]
    usable = np.isfinite(sizes) & (sizes > 0)
    if spacing is None and not usable.all():
        raise InputError(
            f"{path} has voxels of {' x '.join(f'{size:g}' for size in sizes)}, which is not "
            "usable: give the spacing in mm, (slice, row, column)."
        )
    header["pixdim"][1:4] = np.where(usable, sizes, 1)
    affine, remarks = _placement(header, grid)
    unit = _MM_IN_UNIT.get(int(header["xyzt_units"]) % 8, 1.0)
    affine[:3] *= unit
    if not _spans_space(affine[:3, :3]) or not np.isfinite(affine).all():
        raise InputError(
            f"{path} has a matrix that does not place its voxels in space (it is singular or "
            "not finite): save it again from its source."
        )
    return affine, remarks


def _spans_space(directions: np.ndarray) -> bool:
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(directions, axis=0)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        return False
    return bool(np.linalg.matrix_rank(directions / lengths, tol=1e-3) == 3)


def _placement(
    header: "Nifti1Header", grid: tuple[int, int, int]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The header's matrix in its own unit: the sform before the qform, as in nibabel."""
    header["pixdim"][0] = -1 if header["pixdim"][0] < 0 else 1  # 0 stands for 1
    has_qform, has_sform = header["qform_code"] > 0, header["sform_code"] > 0
    if not has_qform and not has_sform:
        return header.get_base_affine(), (_NOWHERE,)
    if not has_sform:
        return _qform(header), ()
    affine = header.get_sform()
    apart = corners_apart(affine, _qform(header), grid) if has_qform else 0.0
    return affine, (_TWICE.format(apart),) if apart > _SAME_MM else ()


def _qform(header: "Nifti1Header") -> np.ndarray:
    """The qform, also where rounding made its quaternion a little longer than 1."""
    quaternion = [float(header[f"quatern_{axis}"]) for axis in "bcd"]
    length = math.hypot(*quaternion)
    if 1 < length < 1.001:
        for axis, part in zip("bcd", quaternion, strict=True):
            header[f"quatern_{axis}"] = part / length
    return header.get_qform()


def _noted(
    path: Path, notes: Mapping[str, Any] | None, grid: tuple[int, int, int], affine: np.ndarray
) -> dict[str, Any] | None:
    """The arguments of a scan as it was written, or None where that is not known."""
    if notes is None:
        return None
    axes = NiftiAxes(*(notes.get("nifti_axes") or ()))
    known = restored(
        notes,
        where=path,
        shape=tuple(grid[axis] for axis in axes.order),
        spacing=None,
        affine=_of_array(affine, axes),
    )
    if known is None:
        return None
    kept = {key: known[key] for key in ("spacing", "affine", "name", "slice_numbers")}
    return {**kept, "stored": axes}


def _anatomical(path: Path, affine: np.ndarray, placed: bool) -> dict[str, Any]:
    """The arguments of a scan whose axes are those of the file, put in our order."""
    from nibabel.orientations import io_orientation

    # Of each axis of the file: 0 left-right, 1 front-back, 2 head-foot.
    across = io_orientation(affine)[:, 0].astype(int).tolist()
    axes = NiftiAxes(across.index(2), across.index(1), across.index(0), placed)
    lps = _of_array(affine, axes)
    spacing = tuple(np.linalg.norm(lps[:3, :3], axis=0).tolist())
    return {"spacing": spacing, "affine": lps, "name": stem_of(path), "stored": axes}


def _of_array(affine: np.ndarray, axes: NiftiAxes) -> np.ndarray:
    """Array index to LPS, of a file's index to RAS."""
    return (_LPS_OF_RAS @ affine)[:, [*axes.order, 3]]


# --- the voxels -------------------------------------------------------------------------


def _read_voxels(path: Path, head: _Head, report: Report = silent) -> np.ndarray:
    """Voxels ``(slice, row, column)`` with their scale applied."""
    message = f"Reading {path.name}"
    stored = np.empty(head.grid[::-1], head.dtype)  # the file's first axis runs fastest
    with closing(_planes(path, head)) as planes:
        for done, plane in enumerate(planes):
            report(Progress(done, len(stored), message))
            stored[done] = plane
    report(Progress(len(stored), len(stored), message))
    values = _scaled(stored, head.scale)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InputError(f"{path} holds values that are not numbers (NaN or infinite).")
    return np.ascontiguousarray(values.T.transpose(head.axes.order))


def _planes(path: Path, head: _Head) -> Generator[np.ndarray, None, None]:
    """The file's planes one by one, with their axes reversed."""
    columns, rows, planes = head.grid
    with _opened(path) as file:
        file.seek(head.offset)
        for _ in range(planes):
            content = file.read(rows * columns * head.dtype.itemsize)
            yield np.frombuffer(content, head.dtype).reshape(rows, columns)
        while file.read(1 << 20):  # to the end, where gzip keeps its checksum
            pass


def _scaled(stored: np.ndarray, scale: tuple[float, float] | None) -> np.ndarray:
    """Values times slope plus intercept, in the machine's byte order."""
    if scale is None:
        has_room = stored.dtype.itemsize <= 8  # else a float that not every machine has
        return stored.astype(stored.dtype.newbyteorder("=") if has_room else float, copy=False)
    slope, intercept = scale
    scaled = np.empty(stored.shape, _scaled_type(stored, slope, intercept))
    with np.errstate(over="ignore", invalid="ignore"):  # what is too large is refused later
        for plane, raw in zip(scaled, stored, strict=True):
            plane[...] = raw * np.float64(slope) + intercept
    return scaled


def _scaled_type(stored: np.ndarray, slope: float, intercept: float) -> np.dtype:
    """The first of the stored type, larger integers and ``float32`` that holds the values."""
    own = stored.dtype.newbyteorder("=")
    if own.kind in "ui" and slope.is_integer() and intercept.is_integer():
        ends = [int(end) * int(slope) + int(intercept) for end in (stored.min(), stored.max())]
        for kind in (own, *map(np.dtype, (np.int16, np.uint16, np.int32, np.uint32))):
            if np.iinfo(kind).min <= min(ends) and max(ends) <= np.iinfo(kind).max:
                return kind
    return np.dtype(np.float32)


# --- writing ----------------------------------------------------------------------------


def write_segmentation(segmentation: Segmentation, path: Path) -> None:
    """Write a segmentation as a label image, on the grid of its scan's file if it has one.

    Where organs overlap the highest id is written (`Segmentation.labels`).

    Raises
    ------
    InputError
        The file cannot be written.
    """
    _write(segmentation, segmentation.labels().array, path)


def write_scan(scan: Scan, path: Path) -> None:
    """Write a scan, its values unchanged.

    Raises
    ------
    InputError
        The file cannot be written.
    """
    kept = {2: np.float32, 16: np.float64}  # the floats that NIfTI, or not every machine, has
    is_float = scan.voxels.dtype.kind == "f"
    kind = kept.get(scan.voxels.dtype.itemsize) if is_float else None
    _write(scan, scan.voxels if kind is None else scan.voxels.astype(kind), path)


def _write(item: Scan | Segmentation, voxels: np.ndarray, path: Path) -> None:
    axes = item.stored if isinstance(item.stored, NiftiAxes) else NiftiAxes()
    order = np.argsort(axes.order)  # of the file's axes, which each is in the array
    stored = voxels.transpose(order)
    affine = (_LPS_OF_RAS @ item.affine)[:, [*order, 3]]
    header = _header_for(item, stored, affine, placed=axes.placed)
    with replaced_file(path) as temporary, _created(temporary, path) as file:
        header.write_to(file)
        for plane in stored.T:
            file.write(np.ascontiguousarray(plane, header.get_data_dtype()).data)


@contextmanager
def _created(temporary: Path, path: Path) -> Iterator[IO[bytes]]:
    """The new file to write to, compressed where the suffix of `path` says so."""
    with temporary.open("wb") as file:
        if path.suffix.lower() != ".gz":
            yield file
            return
        # No name and no time, so that the same content gives the same file.
        with gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) as content:
            yield content  # type: ignore[misc]  # it has all of IO[bytes] that is used


def _header_for(
    item: Scan | Segmentation, stored: np.ndarray, affine: np.ndarray, *, placed: bool
) -> "Nifti1Header":
    """The header of voxels in the file's order, with their place in RAS."""
    from nibabel.nifti1 import Nifti1Extension, Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    header = Nifti1Header() if max(stored.shape) <= _MAX_SIDE_OF_NIFTI_1 else Nifti2Header()
    header.set_data_shape(stored.shape)
    header.set_data_dtype(stored.dtype)
    header.set_xyzt_units("mm")
    code = "scanner" if placed else "unknown"
    header.set_sform(affine, code=code)
    header.set_qform(affine, code=code)
    # A qform has no room for skewed axes, and near half turns too few digits.
    if not corners_apart(_qform(header), affine, stored.shape) < _SAME_MM:
        header.set_qform(None, code="unknown")
    notes = json.dumps(notes_of(item)).encode()
    header.extensions.append(Nifti1Extension(_COMMENT, notes))
    return header
