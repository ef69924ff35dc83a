"""The voxels of a DICOM volume: which are read, and with which scale."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gitract.errors import InputError
from gitract.io._dicom_files import damage, unreadable
from gitract.io._dicom_geometry import Frame
from gitract.progress import Progress, Report

if TYPE_CHECKING:
    from pydicom import FileDataset

__all__ = ["check_pixels", "read_voxels"]

_MAX_VOXELS = 4_000_000_000
_GREY = ("MONOCHROME1", "MONOCHROME2")
_WHOLE = (np.int16, np.uint16, np.int32, np.uint32)


def check_pixels(headers: "Mapping[Path, FileDataset]", where: str) -> None:
    """Refuse what is not one stack of grey slices of one size, before a voxel is read.

    Raises
    ------
    InputError
        With the reason.
    """
    size = _size(next(iter(headers.values())))
    frames = 0
    known: dict[tuple[object, ...], tuple[tuple[int, int], int]] = {}
    for path, header in headers.items():
        description = _description(header)
        if description not in known:  # hundreds of files, mostly of one description
            own, count = _size(header), int(header.get("NumberOfFrames") or 1)
            _check_image(header, path, own)
            known[description] = own, count
        own, count = known[description]
        if own != size:
            sizes = [" x ".join(str(n) for n in one) for one in (size, own)]
            raise InputError(
                f"{where} holds slices of different sizes ({sizes[0]} and {sizes[1]}): "
                "choose a series of one kind."
            )
        _check_complete(header, path, count * math.prod(own))
        frames += count
    if frames * math.prod(size) > _MAX_VOXELS:
        raise InputError(
            f"{where} claims to hold {frames} x {size[0]} x {size[1]} voxels, "
            "too many for one scan: cut it first."
        )


_DESCRIBING = (
    *(0x00080008, 0x00209161),  # ImageType, ConcatenationUID
    *(0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011),  # samples, frames, size
    *(0x00280100, 0x00280101, 0x00280102, 0x00280103),  # bits
)


def _description(header: "FileDataset") -> tuple[object, ...]:
    """What tells images of one kind from others, as raw bytes, which cost nothing to compare."""
    elements = [header.get_item(tag) for tag in _DESCRIBING]
    raw = (None if element is None else (element.VR, element.value) for element in elements)
    return (header.file_meta.TransferSyntaxUID, "PixelData" in header, *map(str, raw))


def _size(header: "FileDataset") -> tuple[int, int]:
    return int(header.get("Rows") or 0), int(header.get("Columns") or 0)


def _check_image(header: "FileDataset", path: Path, size: tuple[int, int]) -> None:
    """Refuse colours, mosaics and what is compressed in a way that cannot be read."""
    if "MOSAIC" in (header.get("ImageType") or ()):
        raise InputError(
            f"{path} is a mosaic, all slices tiled in one image: "
            "export it as single slices or as an enhanced multi-frame image."
        )
    photometric = header.get("PhotometricInterpretation")
    if int(header.get("SamplesPerPixel") or 1) != 1 or photometric not in _GREY:
        raise InputError(f"{path} is a colour image ({photometric}): choose a greyscale series.")
    if "ConcatenationUID" in header:
        raise InputError(
            f"{path} is one part of an image that was cut into several files: "
            "export it as one file or as single slices."
        )
    if "PixelData" not in header:
        raise InputError(f"{path} holds no pixel data: copy it again from its source.")
    readable = header.get("BitsAllocated") in (8, 16, 32)
    if 0 in size or not readable or header.get("PixelRepresentation") not in (0, 1):
        raise InputError(
            f"{path} holds {size[0]} x {size[1]} pixels of {header.get('BitsAllocated')} bits "
            f"(PixelRepresentation {header.get('PixelRepresentation')}), where signed or unsigned "
            "ones of 8, 16 or 32 bits are read: export the original series."
        )
    _check_decoder(header, path)


def _check_decoder(header: "FileDataset", path: Path) -> None:
    from pydicom.pixels import get_decoder

    syntax = header.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        return
    from gitract.io._dicom_jpeg import register  # imports pydicom

    register()
    try:
        readable = get_decoder(syntax).is_available
    except NotImplementedError:
        readable = False
    if not readable:
        raise InputError(
            f"{path} is compressed as {syntax.name}, which needs packages that are not here: "
            "install pylibjpeg and pylibjpeg-libjpeg, or export the series uncompressed."
        )


def _check_complete(header: "FileDataset", path: Path, voxels: int) -> None:
    """Refuse a file that is shorter than its uncompressed voxels."""
    syntax = header.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated or syntax.is_deflated:
        return
    try:
        length = path.stat().st_size
    except OSError as error:
        raise unreadable(path, error) from error
    if length < voxels * header.BitsAllocated // 8:
        raise _damaged(path)


def _damaged(path: Path) -> InputError:
    return InputError(
        f"{path} is damaged, as its pixel data are not whole: copy it again from its source."
    )


# --- voxels -----------------------------------------------------------------------------


def read_voxels(
    headers: "dict[Path, FileDataset]", frames: Sequence[Frame], name: str, report: Report
) -> np.ndarray:
    """The voxels of all slices, in the order of `frames`, with their scale applied.

    Parameters
    ----------
    headers
        Of the files; each is dropped when its pixels are read.
    frames
        The slices.
    name
        Of the scan, for progress.
    report
        Called before each slice, and at the end.

    Returns
    -------
    numpy.ndarray
        ``(slice, row, column)``: the stored type; where there is a scale the smallest
        integers that hold the values, or float32 for fractions.

    Raises
    ------
    InputError
        A file is damaged or gone.
    """
    first = next(iter(headers.values()))
    stored = np.result_type(*{_stored_type(header) for header in headers.values()})
    voxels = np.empty((len(frames), *_size(first)), stored)
    places: dict[Path, list[tuple[int, int]]] = {}
    for index, frame in enumerate(frames):
        places.setdefault(frame.image.path, []).append((frame.image.frame or 1, index))
    done = 0
    for path, numbered in places.items():
        for index, image in zip(
            (index for _, index in sorted(numbered)),
            _images(path, headers.pop(path), len(numbered)),
            strict=True,
        ):
            report(Progress(done, len(frames), f"Reading {name}"))
            voxels[index] = image
            done += 1
    report(Progress(done, len(frames), f"Reading {name}"))
    return _scaled(voxels, frames)


def _stored_type(header: "FileDataset") -> np.dtype:
    kind = "i" if header.PixelRepresentation else "u"
    return np.dtype(f"{kind}{header.BitsAllocated // 8}")


def _images(path: Path, header: "FileDataset", count: int) -> Iterator[np.ndarray]:
    """The first `count` frames of a file, as stored."""
    size = _size(header)
    place = _plain_place(header)
    try:
        images = _decoded(path, header, count) if place is None else _plain(path, header, place)
        for _ in range(count):
            image = next(images, None)
            if image is None or image.shape != size:
                raise ValueError("a frame is missing or of another size")
            yield image
    except OSError as error:
        raise unreadable(path, error) from error
    except damage() as error:
        raise _damaged(path) from error


def _decoded(path: Path, header: "FileDataset", count: int) -> Iterator[np.ndarray]:
    from pydicom.pixels import iter_pixels

    # By its path a multi-frame image is read frame by frame, and is not in memory twice.
    by_path = count > 1 and header.preamble and not header.file_meta.TransferSyntaxUID.is_deflated
    return iter_pixels(path if by_path else header, raw=True)


def _plain_place(header: "FileDataset") -> int | None:
    """Where uncompressed pixels begin in the file; None where pydicom has to decode them.

    Nearly all scans are stored so, and reading them costs less than asking a decoder.
    """
    from pydicom.dataelem import RawDataElement

    syntax = header.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated or syntax.is_deflated or not syntax.is_little_endian:
        return None
    element = header.get_item("PixelData", keep_deferred=True)
    if not isinstance(element, RawDataElement) or element.value is not None:
        return None
    return element.value_tell


def _plain(path: Path, header: "FileDataset", place: int) -> Iterator[np.ndarray]:
    """Frames as they stand in the file, little endian."""
    size, kind = _size(header), _stored_type(header).newbyteorder("<")
    unused = int(header.BitsAllocated) - int(header.BitsStored)
    with path.open("rb") as file:
        file.seek(place)
        while content := file.read(math.prod(size) * kind.itemsize):
            image = np.frombuffer(content, kind).reshape(size)
            # The bits above those stored belong to no value: up and down again they are gone,
            # and the sign of signed values fills them.
            yield (image << unused) >> unused if unused else image


def _scaled(voxels: np.ndarray, frames: Sequence[Frame]) -> np.ndarray:
    """Values with the slope and intercept of their slices."""
    scales = [(frame.slope, frame.intercept) for frame in frames]
    if all(scale == (1.0, 0.0) for scale in scales):
        return voxels
    kind = _scaled_type(voxels, scales)
    if kind.kind == "f":
        values = np.empty(voxels.shape, kind)
        for value, image, (slope, intercept) in zip(values, voxels, scales, strict=True):
            value[:] = image * slope + intercept
        return values
    # Whole numbers wrap around on the way, and end where they belong, as all results fit.
    same_size = kind.itemsize == voxels.itemsize
    values = voxels.view(kind) if same_size else voxels.astype(kind)
    for value, (slope, intercept) in zip(values, scales, strict=True):
        if slope != 1:
            value *= np.int64(slope).astype(kind)
        if intercept:
            value += np.int64(intercept).astype(kind)
    return values


def _scaled_type(voxels: np.ndarray, scales: Sequence[tuple[float, float]]) -> np.dtype:
    """The smallest integers that hold all scaled values, or float32."""
    if all(number == round(number) for scale in scales for number in scale):
        values = [
            end * slope + intercept
            for image, (slope, intercept) in zip(voxels, scales, strict=True)
            for end in (float(image.min()), float(image.max()))
        ]
        for kind in _WHOLE:
            limits = np.iinfo(kind)
            if limits.min <= min(values) and max(values) <= limits.max:
                return np.dtype(kind)
    return np.dtype(np.float32)
