"""What Export writes: layers as they are at one moment, and what was chosen of them. No Qt."""

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gitract.baseline import slice_digests
from gitract.errors import InputError
from gitract.export_preview import FORMATS, Preview, check_round_trip, preview, with_organs
from gitract.io import (
    ONTO_SERIES_SUFFIXES,
    SCAN_SUFFIXES,
    SEGMENTATION_SUFFIXES,
    check_output,
    suffix_of,
    write_segmentation,
)
from gitract.progress import Progress, Report
from gitract.scan import Scan, Segmentation
from gitract.scan_export import (
    CONTOURS_NAME,
    SCAN_FORMATS,
    SCAN_NAME,
    SCAN_SUFFIX_WITH,
    ScanPreview,
    check_scan_round_trip,
    export_scan,
    export_together,
    is_new_series,
    preview_scan,
)
from napari_gitract.layers import Origin, joined, segmentation_of_labels

__all__ = ["Key", "Looked", "Part", "ToExport", "What", "Written"]

Key = list[Any]
"""What is in layers, to tell by whether a look at them is still good."""


class What(StrEnum):
    """What is exported."""

    CONTOURS = "Contours"
    BOTH = "Contours and scan"
    SCAN = "Scan"

    @property
    def formats(self) -> dict[str, str]:
        """Suffix of each format -> what people call it; of both together, the contours'."""
        return SCAN_FORMATS if self is What.SCAN else FORMATS

    def is_dicom(self, suffix: str) -> bool:
        """Whether a format of these is DICOM."""
        return suffix == ".dcm" if self is What.SCAN else suffix in ONTO_SERIES_SUFFIXES


class Part(NamedTuple):
    """A layer's labels ``(slice, row, column)`` and what it remembers."""

    labels: np.ndarray
    origin: Origin

    @property
    def key(self) -> tuple[Any, ...] | None:
        """What the contours are; None where the labels can have no digests."""
        if self.labels.dtype.kind not in "ui":
            return None
        return slice_digests(self.labels), self.origin.organs, dict(self.origin.provenance)


class Looked(NamedTuple):
    """What was found, or why nothing can be written; None where all is as it was known.

    `rows` say it for people: what it is about, and the text.
    """

    found: Preview | ScanPreview | str | None
    rows: tuple[tuple[str, str], ...]
    key: Key


class Written(NamedTuple):
    """A file or folder, and how it was when it was read again."""

    path: Path
    check: str


@dataclass(frozen=True, eq=False)
class ToExport:
    """Layers, and what was chosen of them.

    Parameters
    ----------
    what
        Of the layers.
    suffix
        Of the format; where both are written, of the contours.
    file_name
        To suggest; where both are written, of their folder.
    parts
        The contours; none where the scan goes alone.
    scan
        None where the contours go alone.
    left_out
        Names of organs.
    deidentify
        Whether to leave out who the patient is.
    """

    what: What
    suffix: str
    file_name: str
    parts: tuple[Part, ...]
    scan: Scan | None
    left_out: frozenset[str]
    deidentify: bool

    @property
    def title(self) -> str:
        """What people call it."""
        kind = self.what.formats[self.suffix]
        return f"{kind} and its scan" if self.what is What.BOTH else kind

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Those by which a file name tells its format; none of a folder for both."""
        if self.what is What.BOTH:
            return ()
        return SCAN_SUFFIXES if self.what is What.SCAN else SEGMENTATION_SUFFIXES

    def check_name(self, path: Path) -> None:
        """Refuse a file name of another format than the one that is chosen.

        Raises
        ------
        InputError
            It is such a name.
        """
        if self.suffixes and suffix_of(path, self.suffixes) != self.suffix:
            raise InputError(
                f"{path.name} does not end in {self.suffix}, and {self.title} is chosen: change "
                "the name or the format."
            )

    # --- before -------------------------------------------------------------------------

    def look(self, known: Key | None, report: Report) -> Looked:
        """What would be written; looked at only where the layers are not as they were known.

        Moving the slider sends the same event as undoing a stroke.
        """
        report(Progress(0, 0, "Looking at what to export"))
        key = [part.key for part in self.parts]
        if key == known:
            return Looked(None, (), key)
        try:
            return Looked(*self._previewed(report), key)
        except InputError as error:
            return Looked(str(error), (), key)

    def _previewed(
        self, report: Report
    ) -> tuple[Preview | ScanPreview, tuple[tuple[str, str], ...]]:
        if self.what is What.SCAN:
            assert self.scan is not None
            alone = preview_scan(self.scan, self.file_name, deidentify=self.deidentify)
            return alone, alone.rows
        whole = self._segmentation()
        report(Progress(0, 0, "Looking at what to export"))
        names = {organ.name for organ in whole.organs} - self.left_out
        if self.scan is None:
            found = preview(whole, self.file_name, organs=names, deidentify=self.deidentify)
            return found, found.rows
        suffix = SCAN_SUFFIX_WITH[self.suffix]
        found = preview(
            whole,
            f"{CONTOURS_NAME}{self.suffix}",
            organs=names,
            deidentify=self.deidentify,
            onto_new_series=is_new_series(self.scan, suffix, deidentify=self.deidentify),
        )
        of_scan = preview_scan(self.scan, f"{SCAN_NAME}{suffix}", deidentify=self.deidentify)
        folder = f"a new one, {self.file_name}"
        return found, (("Folder", folder), *found.rows, ("Scan", of_scan.sentence))

    # --- writing ------------------------------------------------------------------------

    def written_to(self, path: Path, report: Report) -> Written:
        """Write it, and read it again.

        Raises
        ------
        InputError
            It cannot be written or read, or would replace what it is made of.
        """
        if self.suffixes:  # a folder for both is new
            check_output(path, self.suffixes, inputs=self._sources)
        report(Progress(0, 0, f"Writing {path.name} and reading it again"))
        if self.what is What.SCAN:
            assert self.scan is not None
            export_scan(self.scan, path, deidentify=self.deidentify)
            return Written(path, check_scan_round_trip(self.scan, path).sentence)
        whole = self._segmentation()
        names = {organ.name for organ in whole.organs} - self.left_out
        contours = with_organs(whole, names)
        if self.scan is None:
            write_segmentation(contours, path, deidentify=self.deidentify)
            return Written(path, check_round_trip(contours, path).sentence)
        of_scan, of_contours = export_together(
            contours, self.scan, path, self.suffix, deidentify=self.deidentify, report=report
        )
        told = of_contours.told("Contours read back upon it")
        return Written(path, f"{of_scan.sentence} {told}")

    def of_copies(self, labels: list[np.ndarray]) -> "ToExport":
        """The same with copies of the labels, that the user may draw on the layers meanwhile."""
        pairs = zip(self.parts, labels, strict=True)
        return replace(self, parts=tuple(part._replace(labels=copy) for part, copy in pairs))

    @property
    def _sources(self) -> list[Path]:
        """The files that the layers were read from."""
        known = [part.origin.source for part in self.parts]
        if self.scan is not None:
            known.append(self.scan.source)
        return [source for source in known if source is not None]

    def _segmentation(self) -> Segmentation:
        """The contours of all layers together."""
        found = [segmentation_of_labels(part.labels, part.origin) for part in self.parts]
        return found[0] if len(found) == 1 else joined(found)
