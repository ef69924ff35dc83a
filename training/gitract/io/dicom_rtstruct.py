"""RT Structure Sets (RTSTRUCT): outlines on the slices of a DICOM series.

Attributes as in DICOM PS3.3, A.19 and C.8.8.5 to C.8.8.8; what an outline means for voxels
is decided in `gitract.io.contours`.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from gitract.errors import InputError
from gitract.io import dicom
from gitract.io._dicom_contours import (
    check_frames_of_reference,
    damage_told,
    known_beside,
    on_scan,
    owners_of,
    read_dataset,
    unique_names,
    united,
)
from gitract.io._dicom_files import RT_STRUCTURE_SET
from gitract.io._dicom_rtstruct_write import write_segmentation
from gitract.io.contours import Points, filled
from gitract.organ_names import LEFT_OUT
from gitract.scan import Scan, Segmentation

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["names", "read_segmentation", "write_segmentation"]

_KIND = "RT Structure Set"
_CONTOUR_DATA = 0x30060050
_XOR = "CLOSEDPLANAR_XOR"
_CLOSED = ("CLOSED_PLANAR", _XOR)
_FARTHEST_MM = 1e6


class _Contour(NamedTuple):
    """One contour: its points, ``(n, 3)`` LPS in mm, and its geometric type."""

    points: Points
    kind: str


class _Roi(NamedTuple):
    """One region of interest as the file has it; `frame` is its frame of reference."""

    name: str
    frame: str
    contours: list[_Contour]


def names(path: Path) -> list[str]:
    """The names of the ROIs in their order; a name that comes again gets a number.

    Raises
    ------
    InputError
        The file is damaged or no RT Structure Set.
    """
    dataset = _dataset(path)
    with damage_told(path, _KIND):
        return list(_roi_names(dataset).values())


def read_segmentation(
    path: Path, *, scan: Scan | None = None, choices: Mapping[str, str] | None = None
) -> Segmentation:
    """Read an RT Structure Set; one written by `write_segmentation` comes back complete.

    Closed contours are filled; those of one ROI on one slice by the even-odd rule, so that
    a contour within another one is a hole. Points and open contours are left out.

    Parameters
    ----------
    path
        The file.
    scan
        The scan that they were drawn on. Without it the series that they refer to is looked
        for near the file.
    choices
        Name of a ROI -> organ, as in `gitract.organ_names.OrganNames.assign`.

    Returns
    -------
    Segmentation
        On the scan's grid. ROIs of one organ are united.

    Raises
    ------
    InputError
        The file is damaged, its scan is not there, or it is not the one that the contours
        were drawn on: another frame of reference, or contours between its slices.
    """
    dataset = _dataset(path)
    with damage_told(path, _KIND):
        rois, series = _rois(dataset, path), _series_by_frame(dataset)
    scan = scan or _referenced(dataset, series, path)
    empty = [roi.name for roi in rois if not roi.contours]
    remarks = [f"{name!r} has no contours and was left out." for name in empty]
    known = known_beside(path, dataset, scan.shape, scan.affine)
    owners = owners_of(
        [roi.name for roi in rois], {**(choices or {}), **dict.fromkeys(empty, LEFT_OUT)}, known
    )
    used = [(roi, organ) for roi in rois if (organ := owners.by_name[roi.name]) is not None]
    frames = {roi.frame: series.get(roi.frame, {}).keys() for roi, _ in used}
    remarks += check_frames_of_reference(path, frames, scan)
    masks = np.zeros((len(owners.organs), *scan.shape), dtype=np.bool_)
    for roi, organ in used:
        remarks += _draw(roi, masks[owners.organs.index(organ)], scan, path)
    remarks += united(owners.by_name.values(), "ROIs")
    return Segmentation(
        masks=masks,
        organs=owners.organs,
        provenance=owners.known.get("provenance", {}),
        remarks=tuple(remarks),
        **on_scan(scan),
    )


# --- the file ---------------------------------------------------------------------------


def _dataset(path: Path) -> "Dataset":
    """The file's content, if it is a whole structure set."""
    dataset = read_dataset(path, _KIND, (RT_STRUCTURE_SET,))
    with damage_told(path, _KIND):
        for tag in list(dataset.keys()):  # without the values, which would be converted
            _check_whole(dataset, tag)
        if "ROIContourSequence" not in dataset or "StructureSetROISequence" not in dataset:
            raise ValueError("cut off, or empty")
    return dataset


def _check_whole(dataset: "Dataset", tag: int) -> None:
    """Refuse an element that ends before its length, which pydicom passes over."""
    element = dataset.get_item(tag)
    length = getattr(element, "length", 0xFFFFFFFF)
    if length != 0xFFFFFFFF and len(element.value or b"") < length:
        raise EOFError(f"{tag} is cut off")


def _roi_names(dataset: "Dataset") -> dict[int, str]:
    """Number of a ROI -> its name, each name once."""
    stored = {
        int(item.ROINumber): str(item.get("ROIName") or "").strip() or f"ROI {item.ROINumber}"
        for item in dataset.StructureSetROISequence
    }
    if len(stored) < len(dataset.StructureSetROISequence):
        raise ValueError("several ROIs of one number")
    return unique_names(stored)


def _rois(dataset: "Dataset", path: Path) -> list[_Roi]:
    """The regions with their contours, in the order of their names."""
    frames = {
        int(item.ROINumber): str(item.get("ReferencedFrameOfReferenceUID") or "")
        for item in dataset.StructureSetROISequence
    }
    rois = {number: _Roi(name, frames[number], []) for number, name in _roi_names(dataset).items()}
    for item in dataset.ROIContourSequence:
        roi = rois[int(item.ReferencedROINumber)]
        roi.contours.extend(
            _contour(contour, roi.name, path) for contour in item.get("ContourSequence") or ()
        )
    return list(rois.values())


def _contour(contour: "Dataset", name: str, path: Path) -> _Contour:
    """A contour with its numbers, which pydicom alone would convert one by one."""
    _check_whole(contour, _CONTOUR_DATA)
    element = contour.get_item(_CONTOUR_DATA)
    text = b"" if element is None else bytes(element.value or b"").strip(b" \0")
    try:
        values = np.array([float(number) for number in text.split(b"\\")] if text else [])
        usable = bool((np.abs(values) < _FARTHEST_MM).all())  # false for NaN
    except ValueError:
        usable = False
    if not usable:
        raise _contour_error(path, name, "holds a coordinate that is no number of millimetres")
    if len(values) % 3:
        raise _contour_error(
            path, name, f"holds {len(values)} coordinates, which is no multiple of three"
        )
    told = contour.get("NumberOfContourPoints")
    if told is not None and int(told) != len(values) // 3:
        raise _contour_error(
            path, name, f"holds {len(values) // 3} points where it says that they are {told}"
        )
    kind = str(contour.get("ContourGeometricType") or _CLOSED[0])
    return _Contour(values.reshape(-1, 3), kind)


def _contour_error(path: Path, name: str, what: str) -> InputError:
    return InputError(
        f"{path} is damaged, as a contour of {name!r} {what}: copy it again from its source."
    )


# --- the scan ---------------------------------------------------------------------------


def _series_by_frame(dataset: "Dataset") -> dict[str, dict[str, set[str]]]:
    """Frame of reference -> series that contours in it refer to -> its images."""
    found: dict[str, dict[str, set[str]]] = {}
    for frame in dataset.get("ReferencedFrameOfReferenceSequence") or ():
        series = found.setdefault(str(frame.get("FrameOfReferenceUID") or ""), {})
        for study in frame.get("RTReferencedStudySequence") or ():
            for item in study.get("RTReferencedSeriesSequence") or ():
                images = series.setdefault(str(item.get("SeriesInstanceUID") or ""), set())
                images |= _instances(item)
    return found


def _instances(item: "Dataset") -> set[str]:
    """The images that a part of the file refers to."""
    return {
        str(image.get("ReferencedSOPInstanceUID"))
        for image in item.get("ContourImageSequence") or ()
    }


def _drawn_on(dataset: "Dataset") -> set[str]:
    """The images that the contours themselves refer to."""
    return {
        instance
        for roi in dataset.ROIContourSequence
        for contour in roi.get("ContourSequence") or ()
        for instance in _instances(contour)
    }


def _referenced(
    dataset: "Dataset", series: Mapping[str, Mapping[str, set[str]]], path: Path
) -> Scan:
    """The scan that the contours were drawn on."""
    wanted: list[tuple[str | None, set[str]]] = [
        (uid or None, images) for one in series.values() for uid, images in one.items()
    ]
    if not wanted:
        with damage_told(path, _KIND):
            wanted = [(None, _drawn_on(dataset))]
    for uid, images in wanted:
        scan = dicom.find_referenced(path, uid, images)
        if scan is not None:
            return scan
    raise InputError(
        f"{path} holds outlines alone, and the scan that they were drawn on is not near it: "
        "give that scan, too."
    )


# --- from contours to voxels ------------------------------------------------------------


def _draw(roi: _Roi, mask: npt.NDArray[np.bool_], scan: Scan, path: Path) -> list[str]:
    """Add the closed contours of a ROI to a mask ``(slice, row, column)``; remarks on them."""
    closed = [c for c in roi.contours if c.kind in _CLOSED and len(c.points) > 2]
    remarks = []
    if left_out := len(roi.contours) - len(closed):
        remarks.append(
            f"{left_out} of {len(roi.contours)} contours of {roi.name!r} were left out because "
            "they are points or not closed."
        )
    outlines = _once(closed)
    if twice := len(closed) - len(outlines):
        remarks.append(f"{twice} contours of {roi.name!r} are there twice and were taken once.")
    if not outlines:
        return remarks
    polygons: dict[int, list[Points]] = {}
    beyond = False
    for index, polygon in _on_slices(outlines, roi.name, scan, path):
        polygons.setdefault(index, []).append(polygon)
        low, high = polygon.min(axis=0), polygon.max(axis=0)
        beyond |= bool((low < -0.51).any() or (high > np.array(scan.shape[1:]) - 0.49).any())
    for index, drawn in polygons.items():
        mask[index] |= filled(drawn, scan.shape[1:])
    if beyond:
        remarks.append(f"Contours of {roi.name!r} reach beyond the image and were cut there.")
    return remarks


def _once(contours: Sequence[_Contour]) -> list[Points]:
    """The points of contours, without copies, which by the even-odd rule would undo each other.

    Where the file itself asks for that rule, it is followed.
    """
    return list(
        {
            (number if contour.kind == _XOR else None, contour.points.tobytes()): contour.points
            for number, contour in enumerate(contours)
        }.values()
    )


def _on_slices(
    contours: list[Points], name: str, scan: Scan, path: Path
) -> Iterator[tuple[int, Points]]:
    """Slice and polygon ``(row, column)`` of each contour; refuse what is between slices."""
    inverse = np.linalg.inv(scan.affine)
    places = np.concatenate(contours) @ inverse[:3, :3].T + inverse[:3, 3]
    ends = np.cumsum([len(points) for points in contours])
    slice_mm = scan.spacing[0]
    for points, place in zip(contours, np.split(places, ends[:-1]), strict=True):
        index = int(np.clip(np.rint(place[:, 0].mean()), 0, scan.shape[0] - 1))
        off = float(np.abs(place[:, 0] - index).max()) * slice_mm
        if off > max(0.25 * slice_mm, 0.1):
            where = ", ".join(f"{mm:.1f}" for mm in points.mean(axis=0))
            raise InputError(
                f"A contour of {name!r} in {path}, around ({where}) mm, lies {off:.1f} mm from "
                f"the nearest slice of the scan {scan.name!r}: choose the scan that it was drawn "
                "on, or leave these contours out."
            )
        yield index, place[:, 1:]
