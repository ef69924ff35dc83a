"""DICOM series and the contours that refer to them, by headers alone."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gitract.io._dicom_files import (
    RT_STRUCTURE_SET,
    SEGMENTATIONS,
    damage,
    header_sop_class,
    is_of_images,
    looks_like_dicom,
    quiet,
)
from gitract.labelled.found import Fault, OnFault
from gitract.progress import Progress, Report

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["LabelledSeries", "is_dicom_name", "labelled_series"]

_SUFFIXES = ("", ".dcm", ".dicom", ".ima")
_TAGS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "PatientID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "ReferencedFrameOfReferenceSequence",
    "ReferencedSeriesSequence",
)


class LabelledSeries(NamedTuple):
    """A series with contours.

    `uid` is the series', `patient` the PatientID, empty where there is none.
    """

    uid: str
    patient: str
    images: tuple[Path, ...]
    contours: tuple[Path, ...]


class _Contours(NamedTuple):
    """A file of contours: the series, the images and the frames of reference it refers to."""

    path: Path
    series: set[str]
    images: set[str]
    frames: set[str]


class _Series(NamedTuple):
    """The image files of one series, by SOP instance UID."""

    uid: str
    patient: str
    frame: str
    images: dict[str, Path]


def is_dicom_name(name: str) -> bool:
    """Whether a file can be DICOM by its name."""
    suffix = Path(name).suffix.lower()
    return suffix in _SUFFIXES or suffix[1:].isdigit()


def labelled_series(
    files: Iterable[Path], on_fault: OnFault, report: Report
) -> list[LabelledSeries]:
    """The series among files that contours refer to.

    Parameters
    ----------
    files
        Of any kind.
    on_fault
        Told of contours whose series is not there.
    report
        Called for each file.
    """
    series: dict[str, _Series] = {}
    contours: list[_Contours] = []
    with quiet():
        for done, path in enumerate(files):
            report(Progress(done, 0, f"Looking at {path.name}"))
            header = _header(path)
            if header is None:
                continue
            sop_class = header_sop_class(header)
            if sop_class in SEGMENTATIONS or sop_class == RT_STRUCTURE_SET:
                contours.append(_contours(path, header))
            elif is_of_images(sop_class):
                uid = _text(header, "SeriesInstanceUID") or str(path.parent)
                new = _Series(uid, _text(header, "PatientID"), _frame(header), {})
                images = series.setdefault(uid, new).images
                images.setdefault(_text(header, "SOPInstanceUID") or str(path), path)
    return _matched(series, contours, on_fault)


def _matched(
    series: dict[str, _Series], contours: list[_Contours], on_fault: OnFault
) -> list[LabelledSeries]:
    found: dict[str, list[Path]] = defaultdict(list)
    for one in contours:
        owner = _owner(series, one)
        if owner is None:
            sentence = f"{one.path} has contours of a DICOM series that is not in the data folder."
            on_fault(Fault(one.path.name, sentence))
        else:
            found[owner.uid].append(one.path)
    return [
        LabelledSeries(
            uid,
            series[uid].patient,
            tuple(sorted(series[uid].images.values())),
            tuple(sorted(paths)),
        )
        for uid, paths in found.items()
    ]


def _owner(series: dict[str, _Series], contours: _Contours) -> _Series | None:
    """The series that is named, else with the images, else alone in the frame of reference."""
    named = [series[uid] for uid in sorted(contours.series) if uid in series]
    if named:
        return named[0]
    with_images = max(
        series.values(), key=lambda one: len(one.images.keys() & contours.images), default=None
    )
    if with_images is not None and with_images.images.keys() & contours.images:
        return with_images
    near = [one for one in series.values() if one.frame and one.frame in contours.frames]
    return near[0] if len(near) == 1 else None


# --- headers ----------------------------------------------------------------------------


def _header(path: Path) -> "Dataset | None":
    """What is needed of a DICOM header; None for other files and damaged ones."""
    if not looks_like_dicom(path):
        return None
    from pydicom import dcmread

    try:
        return dcmread(path, force=True, stop_before_pixels=True, specific_tags=list(_TAGS))
    except damage():
        return None


def _text(header: "Dataset", name: str) -> str:
    try:
        return str(header.get(name) or "")
    except damage():
        return ""


def _frame(header: "Dataset") -> str:
    return _text(header, "FrameOfReferenceUID")


def _contours(path: Path, header: "Dataset") -> _Contours:
    """What contours refer to, as far as it can be read: RTSTRUCT and SEG say it differently."""
    found = _Contours(path, set(), set(), {_frame(header)} - {""})
    try:
        for frame in header.get("ReferencedFrameOfReferenceSequence") or ():
            found.frames.add(_frame(frame))
            for study in frame.get("RTReferencedStudySequence") or ():
                _refer(found, study.get("RTReferencedSeriesSequence") or (), "ContourImageSequence")
        _refer(found, header.get("ReferencedSeriesSequence") or (), "ReferencedInstanceSequence")
    except damage():
        pass
    return found


def _refer(found: _Contours, series: "Iterable[Dataset]", images: str) -> None:
    for one in series:
        found.series.add(_text(one, "SeriesInstanceUID"))
        found.images.update(
            _text(image, "ReferencedSOPInstanceUID") for image in one.get(images) or ()
        )
