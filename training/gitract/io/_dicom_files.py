"""Which files are DICOM, what is kept of their headers, and where images are."""

import os
import struct
import threading
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gitract.errors import InputError

if TYPE_CHECKING:
    from pydicom import Dataset, FileDataset
    from pydicom.tag import BaseTag

__all__ = [
    "RT_STRUCTURE_SET",
    "SEGMENTATIONS",
    "can_read_folder",
    "damage",
    "files_in",
    "header_sop_class",
    "is_of_images",
    "listing_of",
    "looks_like_dicom",
    "quiet",
    "read_header",
    "sop_class_of",
    "unreadable",
]

# What pydicom and its decoders raise by stumbling over damage; `damage` has their checks, too.
_STUMBLES = (
    ValueError,
    LookupError,
    TypeError,
    RuntimeError,  # NotImplementedError and StopIteration in a generator among them
    ArithmeticError,
    AttributeError,
    EOFError,
    struct.error,
    OSError,
)

SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
RT_STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
_NO_IMAGES = ("1.2.840.10008.5.1.4.1.1.481.1",)  # RT Image: portal images, no slices
_DEFLATED = "1.2.840.10008.1.2.1.99"
_SUFFIXES = ("", ".dcm", ".dicom", ".ima")
_DEFER = 4096
_FILTERS = threading.RLock()
_DEPTH = 4

# What is kept of a header; pixels are read later, from where pydicom found them.
_KEPT = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "Modality",
    "SeriesNumber",
    "SeriesDescription",
    "StudyDate",
    "SeriesDate",
    "ImageType",
    "ConcatenationUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "RescaleSlope",
    "RescaleIntercept",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "PixelData",
)


@cache
def damage() -> tuple[type[Exception], ...]:
    """What pydicom and its decoders raise for damaged files, by their checks or by stumbling."""
    from pydicom.errors import BytesLengthException, InvalidDicomError

    return (*_STUMBLES, BytesLengthException, InvalidDicomError)


def unreadable(path: Path, error: OSError) -> InputError:
    """What to say of a file that the system does not let us read."""
    return InputError(
        f"{path} cannot be read ({error.strerror or 'it is gone'}): "
        "check that it is there and permitted."
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Without pydicom's warnings: they quote values of headers, names of patients among them.

    One thread at a time, since Python keeps one list of filters for all of them.
    """
    with _FILTERS, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pydicom")
        yield


# --- single files -----------------------------------------------------------------------


def looks_like_dicom(path: Path) -> bool:
    """Whether the first bytes can be DICOM, with or without a preamble; never raises."""
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except OSError:
        return False
    # Without a preamble the file begins with the group of its first element.
    return start[128:] == b"DICM" or start[:2] in (b"\x02\0", b"\x08\0")


def sop_class_of(path: Path) -> str:
    """The SOP class of a DICOM file, empty for what is none; never raises."""
    if not looks_like_dicom(path):
        return ""
    from pydicom.filereader import read_partial

    try:
        with quiet(), path.open("rb") as file:
            header = read_partial(
                file,
                stop_when=lambda tag, vr, length: tag > 0x00080016,
                force=True,
                specific_tags=[0x00080016],
            )
            return header_sop_class(header)
    except damage():
        return ""


def header_sop_class(header: "Dataset") -> str:
    """The SOP class, empty where there is none; some anonymizers leave it in the meta alone."""
    known = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID")
    return str(known or "")


@cache
def _kept_tags() -> "list[BaseTag | int]":
    from pydicom.tag import Tag

    return [Tag(name) for name in _KEPT]


def read_header(path: Path) -> "FileDataset":
    """What is needed of a header; pixel data are read when they are asked for.

    Raises one of `damage` where the file is no whole DICOM file.
    """
    from pydicom import dcmread
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    header = dcmread(path, force=True, defer_size=_DEFER, specific_tags=_kept_tags())
    if header.file_meta.get("TransferSyntaxUID") == _DEFLATED:  # cannot be read in parts
        header = dcmread(path, force=True, specific_tags=_kept_tags())
    if "TransferSyntaxUID" not in header.file_meta:
        implicit, little = header.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return header


@cache
def is_of_images(sop_class: str) -> bool:
    """Whether a SOP class can be a scan's, by its UID alone."""
    if not sop_class or sop_class in _NO_IMAGES:
        return False
    from pydicom.config import IGNORE
    from pydicom.uid import UID

    return "Image Storage" in UID(sop_class, validation_mode=IGNORE).name


# --- folders ----------------------------------------------------------------------------


def files_in(folder: Path, depth: int = _DEPTH) -> list[Path]:
    """The files of a folder and of its subfolders, `depth` levels of them, sorted."""
    found: list[Path] = []
    level = [folder]
    for _ in range(depth + 1):
        below: list[Path] = []
        for place in level:
            try:
                entries = sorted(os.scandir(place), key=lambda entry: entry.name)
            except OSError:
                continue
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    below.append(Path(entry.path))
                else:
                    found.append(Path(entry.path))
        level = below
    return found


_MOST_ENTRIES = 4000
_MOST_FOLDERS = 50
_MOST_OPENED = 32


class Listing(NamedTuple):
    """Of a folder: files that can be DICOM by their names, folders, and all entries' number."""

    files: list[Path]
    folders: list[Path]
    entries: int


def listing_of(folder: Path, at_most: int = _MOST_ENTRIES) -> Listing:
    """What can be DICOM among the first entries of a folder; nothing where it cannot be read."""
    files, folders, count = [], [], 0
    # ValueError: a path with a null character
    with suppress(OSError, ValueError), os.scandir(folder) as entries:
        for entry in islice(entries, at_most):
            count += 1
            suffix = os.path.splitext(entry.name)[1].lower()
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                folders.append(Path(entry.path))
            elif suffix in _SUFFIXES or suffix[1:].isdigit():
                files.append(Path(entry.path))
    return Listing(files, folders, count)


def can_read_folder(path: str | Path) -> bool:
    """Whether a folder or one of its subfolders holds DICOM images; quick, never raises.

    It looks at a few thousand entries in all, and into a few files of each folder, only
    those whose suffix can be DICOM's.
    """
    waiting, left = deque([(Path(path), 0)]), _MOST_ENTRIES
    for _ in range(_MOST_FOLDERS):
        if not waiting:
            break
        folder, depth = waiting.popleft()
        found = listing_of(folder, left)
        left -= found.entries
        if any(is_of_images(sop_class_of(file)) for file in found.files[:_MOST_OPENED]):
            return True
        if depth < _DEPTH:
            waiting.extend((below, depth + 1) for below in found.folders)
    return False
