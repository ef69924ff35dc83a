"""Which DICOM files make one volume, and what their headers tell of it."""

import filecmp
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gitract.io._dicom_files import (
    damage,
    header_sop_class,
    is_of_images,
    looks_like_dicom,
    read_header,
)
from gitract.progress import Progress, Report, silent

if TYPE_CHECKING:
    from pydicom import FileDataset

__all__ = ["Volume", "text_of", "volumes_in"]

# As numbers, since each name costs a search in pydicom's dictionary, file by file.
_NEEDED = (0x00080018, 0x00280010, 0x00280011)  # SOPInstanceUID, Rows, Columns
_PER_FRAME = 0x52009230  # PerFrameFunctionalGroupsSequence


@dataclass
class Volume:
    """The files of one classic series, or one multi-frame file.

    Parameters
    ----------
    headers
        What is kept of each file's header, by path.
    damaged
        Files in the same folders that cannot be read, and may belong to it.
    copies
        How many files were left out because another is the same, byte for byte.
    """

    headers: "dict[Path, FileDataset]"
    damaged: tuple[Path, ...] = ()
    copies: int = 0

    @property
    def first(self) -> "FileDataset":
        """The header of the first file, for what all have in common."""
        return next(iter(self.headers.values()))

    @property
    def is_multi_frame(self) -> bool:
        """Whether it is one file, with a place for each of its frames."""
        return _PER_FRAME in self.first

    @property
    def series_uid(self) -> str:
        """Of its series."""
        return text_of(self.first, "SeriesInstanceUID")

    @property
    def number(self) -> int:
        """Of its series, 0 where it has none."""
        return _whole_number(text_of(self.first, "SeriesNumber"), 0)

    @property
    def modality(self) -> str:
        """``MR``, ``CT``; letters and digits alone."""
        return re.sub("[^0-9A-Za-z]", "", text_of(self.first, "Modality")) or "DICOM"

    @property
    def name(self) -> str:
        """The name of the scan. Descriptions of series can hold those of patients."""
        return f"{self.modality}_series_{self.number}"

    @property
    def title(self) -> str:
        """For the user's eyes alone."""
        description = " ".join(text_of(self.first, "SeriesDescription").split())
        return f"{self.modality} {description}".strip()

    @property
    def date(self) -> str:
        """``YYYY-MM-DD`` or nothing."""
        for name in ("SeriesDate", "StudyDate"):
            if match := re.fullmatch(r"(\d{4})(\d\d)(\d\d)", text_of(self.first, name)):
                return "-".join(match.groups())
        return ""

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(slices, rows, columns)`` as far as the headers tell."""
        counts = (text_of(header, "NumberOfFrames") for header in self.headers.values())
        rows, columns = (text_of(self.first, name) for name in ("Rows", "Columns"))
        return (
            sum(_whole_number(count, 1) for count in counts),
            _whole_number(rows, 0),
            _whole_number(columns, 0),
        )

    @property
    def source(self) -> Path:
        """The multi-frame file, or the folder of all files."""
        paths = [path.absolute() for path in self.headers]
        if self.is_multi_frame:
            return paths[0]
        return Path(os.path.commonpath([path.parent for path in paths]))

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a user should know of it."""
        told = []
        if self.damaged:
            example, count = self.damaged[0].name, len(self.damaged)
            told.append(
                f"DICOM files that cannot be read were left out, {count} in all ({example})."
            )
        if self.copies:
            told.append(f"Copies of other files were left out, {self.copies} in all.")
        return tuple(told)

    @property
    def where(self) -> str:
        """To begin an error with."""
        return str(self.source) if self.is_multi_frame else f"Series {self.number} in {self.source}"

    def count_of(self, instance_uids: set[str]) -> int:
        """How many of the images are among those."""
        return sum(text_of(one, "SOPInstanceUID") in instance_uids for one in self.headers.values())


def text_of(header: "FileDataset", name: str) -> str:
    """An attribute as text, empty where it is absent or not as it should be."""
    try:
        value = header.get(name)
    except damage():
        return ""
    return "" if value is None else str(value)


def _whole_number(text: str, default: int) -> int:
    """A number out of a header, `default` where there is none."""
    try:
        return int(text)
    except ValueError:
        return default


def volumes_in(files: Sequence[Path], report: Report = silent) -> tuple[list[Volume], list[Path]]:
    """The volumes that image files make, by series number, and the files that are damaged.

    Files of other kinds are passed over.
    """
    series: dict[str, dict[Path, FileDataset]] = {}
    multi_frame: list[Volume] = []
    damaged: list[Path] = []
    for done, path in enumerate(files):
        report(Progress(done, len(files), f"Looking at {path.name}"))
        try:
            header = _image_header(path)
        except damage():
            damaged.append(path)
            continue
        if header is None:
            continue
        if _PER_FRAME in header:
            multi_frame.append(Volume({path: header}))
        else:
            # Some anonymizers empty the UIDs.
            own = text_of(header, "SeriesInstanceUID") or str(path.parent)
            series.setdefault(own, {})[path] = header
    volumes = [_without_copies(headers) for headers in series.values()] + multi_frame
    for volume in volumes:
        if not volume.is_multi_frame:
            folders = {path.parent for path in volume.headers}
            volume.damaged = tuple(path for path in damaged if path.parent in folders)
    return sorted(volumes, key=lambda volume: volume.number), damaged


def _without_copies(headers: "dict[Path, FileDataset]") -> Volume:
    """A classic series, each image once: exports are often found twice below a folder."""
    kept: dict[Path, FileDataset] = {}
    known: dict[str, Path] = {}
    for path, header in headers.items():
        instance = text_of(header, "SOPInstanceUID")
        if instance in known and filecmp.cmp(path, known[instance], shallow=False):
            continue
        kept[path] = header
        if instance:
            known.setdefault(instance, path)
    return Volume(kept, copies=len(headers) - len(kept))


def _image_header(path: Path) -> "FileDataset | None":
    """The header of an image, None for other files; raises one of `damage`."""
    if not looks_like_dicom(path):
        return None
    header = read_header(path)
    sop_class = header_sop_class(header)
    if sop_class and not is_of_images(sop_class):
        return None
    if not sop_class or not all(tag in header for tag in _NEEDED):
        raise ValueError("it breaks off before its image")
    return header
