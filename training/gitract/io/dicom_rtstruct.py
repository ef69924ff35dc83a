"""RT Structure Sets (RTSTRUCT): outlines on the slices of a DICOM series.

Attributes as in DICOM PS3.3, A.19 and C.8.8.5 to C.8.8.8; what an outline means for voxels
is decided in `gitract.io.contours`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gitract._version import __version__
from gitract.baseline import edited_slices
from gitract.errors import InputError
from gitract.io import dicom
from gitract.io._dicom_files import DAMAGE, RT_STRUCTURE_SET, header_sop_class, quiet
from gitract.io._dicom_geometry import frames_of
from gitract.io._files import replaced_file
from gitract.io._notes import beside, is_of_segmentation, notes_of, read_beside, restored
from gitract.io.contours import Points, filled, outlined
from gitract.organ_names import LEFT_OUT, OrganNames
from gitract.organs import ORGANS, Organ
from gitract.scan import DicomImage, DicomSeries, Scan, Segmentation

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["names", "read_segmentation", "write_segmentation"]

_CONTOUR_DATA = 0x30060050
_XOR = "CLOSEDPLANAR_XOR"
_CLOSED = ("CLOSED_PLANAR", _XOR)
_MANUFACTURER = "napari-gitract developers"
_LONGEST_NAME = 64
_FARTHEST_MM = 1e6
_INSTANCE = "sop_instance_uid"


# --- reading ----------------------------------------------------------------------------


class _Contour(NamedTuple):
    """One contour: its points, ``(n, 3)`` LPS in mm, and its geometric type."""

    points: Points
    kind: str


class _Roi(NamedTuple):
    """One region of interest as the file has it; `frame` is its frame of reference."""

    number: int
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
    with _damage(path):
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
    with _damage(path):
        rois = _rois(dataset, path)
    scan = scan or _referenced(dataset, path)
    empty = [roi.name for roi in rois if not roi.contours]
    remarks = [f"{name!r} has no contours and was left out." for name in empty]
    wanted = {**dict.fromkeys(empty, LEFT_OUT), **(choices or {})}
    assigned = OrganNames.load().assign([roi.name for roi in rois], wanted)
    known = _known(dataset, path, scan, assigned, choices or {})
    if "organs" in known:
        titles = {_roi_name(organ): organ for organ in known["organs"]}
        assigned = {name: organ and titles[name] for name, organ in assigned.items()}
    used = [roi for roi in rois if roi.contours and assigned[roi.name] is not None]
    organs = known.get("organs") or _table(assigned[roi.name] for roi in used)
    remarks += _check_frame_of_reference(dataset, path, scan, used)
    masks = np.zeros((len(organs), *scan.shape), dtype=np.bool_)
    for roi in used:
        remarks += _draw(roi, masks[organs.index(assigned[roi.name])], scan, path)
    remarks += _united(assigned[roi.name] for roi in used)
    return Segmentation(
        masks=masks,
        spacing=scan.spacing,
        affine=scan.affine,
        organs=organs,
        name=scan.name,
        slice_numbers=scan.slice_numbers,
        provenance=known.get("provenance", {}),
        stored=scan.stored,
        remarks=tuple(remarks),
    )


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """What pydicom raises for damage inside the block becomes an `InputError`."""
    from pydicom.errors import BytesLengthException

    try:
        with quiet():
            yield
    except (*DAMAGE, BytesLengthException) as error:
        raise InputError(
            f"{path} is damaged or not a complete RT Structure Set: copy it again from its source."
        ) from error


def _dataset(path: Path) -> "Dataset":
    """The file's content, if it is a whole structure set."""
    from pydicom import dcmread

    with _damage(path):
        dataset = dcmread(path, force=True)
        if header_sop_class(dataset) != RT_STRUCTURE_SET:
            raise ValueError("another kind of file")
        tags = list(dataset.keys())  # without the values, which would be converted
        for tag in tags:
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
    given: dict[int, str] = {}
    stored = {
        int(item.ROINumber): str(item.get("ROIName") or "").strip() or f"ROI {item.ROINumber}"
        for item in dataset.StructureSetROISequence
    }
    if len(stored) < len(dataset.StructureSetROISequence):
        raise ValueError("several ROIs of one number")
    for number, name in stored.items():
        unique, count = name, 1
        while unique in given.values() or (count > 1 and unique in stored.values()):
            count += 1
            unique = f"{name} {count}"
        given[number] = unique
    return given


def _rois(dataset: "Dataset", path: Path) -> list[_Roi]:
    """The regions with their contours, in the order of their names."""
    frames = {
        int(item.ROINumber): str(item.get("ReferencedFrameOfReferenceUID") or "")
        for item in dataset.StructureSetROISequence
    }
    rois = {
        number: _Roi(number, name, frames[number], [])
        for number, name in _roi_names(dataset).items()
    }
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


def _referenced(dataset: "Dataset", path: Path) -> Scan:
    """The scan that the contours were drawn on."""
    with _damage(path):
        wanted = [
            (uid or None, images)
            for series in _series_by_frame(dataset).values()
            for uid, images in series.items()
        ]
        contours = (c for r in dataset.ROIContourSequence for c in r.get("ContourSequence") or ())
        wanted = wanted or [(None, set().union(*map(_instances, contours)))]
    for uid, images in wanted:
        scan = dicom.find_referenced(path, uid, images)
        if scan is not None:
            return scan
    raise InputError(
        f"{path} holds outlines alone, and the scan that they were drawn on is not near it: "
        "give that scan, too."
    )


def _check_frame_of_reference(
    dataset: "Dataset", path: Path, scan: Scan, rois: Sequence[_Roi]
) -> list[str]:
    """Refuse contours whose coordinates are those of another patient or session."""
    if not isinstance(scan.stored, DicomSeries) or not scan.stored.frame_of_reference_uid:
        return []
    others = {roi.frame for roi in rois} - {scan.stored.frame_of_reference_uid, ""}
    with _damage(path):
        series = _series_by_frame(dataset)
    for frame in others:
        if scan.stored.series_uid not in series.get(frame, ()):
            raise InputError(
                f"{path} lies in another frame of reference than the scan {scan.name!r}, so that "
                "equal coordinates are not equal places: choose the scan that it was drawn on."
            )
    if others:
        return [_OTHER_FRAME]
    return []


_OTHER_FRAME = (
    "The file names another frame of reference than the scan; it was read because it refers "
    "to the scan's own images."
)


# --- organs -----------------------------------------------------------------------------


def _roi_name(organ: Organ) -> str:
    return organ.title[:_LONGEST_NAME]


def _table(organs: Iterable[Organ | None]) -> tuple[Organ, ...]:
    """The organs that are always there, and those found, by their ids."""
    table = {organ.id: organ for organ in (*ORGANS, *organs) if organ is not None}
    return tuple(table[key] for key in sorted(table))


def _known(
    dataset: "Dataset",
    path: Path,
    scan: Scan,
    assigned: Mapping[str, Organ | None],
    choices: Mapping[str, str],
) -> dict[str, Any]:
    """What the notes beside the file say, where they are of this very file on this grid."""
    notes = read_beside(path)
    if notes is None or not is_of_segmentation(notes):
        return {}
    if notes.get(_INSTANCE) != dataset.get("SOPInstanceUID"):
        return {}
    known = restored(notes, where=path, shape=scan.shape, spacing=scan.spacing, affine=scan.affine)
    if known is None:
        return {}
    titles = {_roi_name(organ): organ.name for organ in known["organs"]}
    for name, organ in assigned.items():
        if name not in titles:
            return {}
        if name in choices and (organ is None or organ.name != titles[name]):
            return {}
    return known


def _united(organs: Iterable[Organ | None]) -> Iterator[str]:
    """A remark for each organ that several ROIs were given to."""
    titles = [organ.title for organ in organs if organ is not None]
    for title in dict.fromkeys(titles):
        if (count := titles.count(title)) > 1:
            yield f"{count} ROIs were united as one organ, {title}."


# --- from contours to voxels ------------------------------------------------------------


def _draw(roi: _Roi, mask: np.ndarray, scan: Scan, path: Path) -> list[str]:
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


# --- writing ----------------------------------------------------------------------------


def write_segmentation(segmentation: Segmentation, path: Path) -> None:
    """Write the outlines of a segmentation of a DICOM series, and notes as JSON beside it.

    Organs without a voxel are left out.

    Raises
    ------
    InputError
        The segmentation belongs to no DICOM series, lies elsewhere than that, or is empty;
        or the file cannot be written.
    """
    series = dicom.series_of(segmentation)
    drawn = [
        (organ, mask)
        for organ, mask in zip(segmentation.organs, segmentation.masks, strict=True)
        if mask.any()
    ]
    if not drawn:
        raise InputError(
            f"The segmentation {segmentation.name!r} is empty, and an RT Structure Set cannot be: "
            "outline an organ first."
        )
    header = _source_header(segmentation, series)
    with quiet():
        origin = _origin(segmentation)
        dataset = _structure_set(header, series)
        dataset.StructureSetDescription = origin.description
        _add_rois(dataset, series, segmentation.affine, drawn, origin)
        with replaced_file(path) as temporary, replaced_file(beside(path)) as notes:
            _save(dataset, temporary)
            known = {**notes_of(segmentation), _INSTANCE: str(dataset.SOPInstanceUID)}
            notes.write_text(json.dumps(known), encoding="utf-8")


def _save(dataset: "Dataset", path: Path) -> None:
    """Explicit VR, unless a contour is too long for it: it ends at 64 kB for one value."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    longest = max(
        len(contour[_CONTOUR_DATA].value)
        for roi in dataset.ROIContourSequence
        for contour in roi.ContourSequence
    )
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = (
        ExplicitVRLittleEndian if longest < 0xFFFF else ImplicitVRLittleEndian
    )
    dataset.save_as(path, enforce_file_format=True)


def _source_header(segmentation: Segmentation, series: DicomSeries) -> "Dataset":
    """The header of the first image, once the first and last are where the contours are."""
    ends = [series.images[0], series.images[-1]]
    headers = dicom.headers(replace(series, images=tuple(ends)))
    frames = {f.image: f for h, i in zip(headers, ends, strict=False) for f in frames_of(h, i.path)}
    corners = np.array([[0, 0], [0, 1], [1, 0]]) * (np.array(segmentation.shape[1:]) - 1)
    for index, image in zip((0, segmentation.shape[0] - 1), ends, strict=True):
        frame = frames[image]
        steps = np.array([frame.column_direction, frame.row_direction])
        there = frame.position + corners * frame.spacing @ steps
        if np.abs(_in_patient(corners, index, segmentation.affine) - there).max() > _SAME_MM:
            raise InputError(
                f"The labels {segmentation.name!r} do not lie where the images of their series "
                "do, as happens where another spacing was given: read the scan without it."
            )
    return headers[0]


# What the images of one series may differ by among themselves.
_SAME_MM = 0.1


def _in_patient(points: Points, index: int, affine: np.ndarray) -> Points:
    """Points ``(row, column)`` of a slice in LPS, mm."""
    return points @ affine[:3, 1:3].T + affine[:3, 3] + index * affine[:3, 0]


_COPIED = (
    ("PatientName", "PN"),
    ("PatientID", "LO"),
    ("PatientBirthDate", "DA"),
    ("PatientSex", "CS"),
    ("StudyInstanceUID", "UI"),
    ("StudyDate", "DA"),
    ("StudyTime", "TM"),
    ("StudyID", "SH"),
    ("AccessionNumber", "SH"),
    ("ReferringPhysicianName", "PN"),
)


def _structure_set(header: "Dataset", series: DicomSeries) -> "Dataset":
    """All but the regions: patient and study of the source, our series, what it refers to."""
    from pydicom import DataElement, Dataset
    from pydicom.config import IGNORE
    from pydicom.uid import generate_uid

    now = datetime.now()
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = RT_STRUCTURE_SET
    dataset.SOPInstanceUID = generate_uid()
    for keyword, vr in _COPIED:
        # As it stands, even where it breaks the rules: it is what links the two.
        value = str(header.get(keyword) or "")
        dataset.add(DataElement(keyword, vr, value, validation_mode=IGNORE))
    for kind in ("InstanceCreation", "Series", "StructureSet"):
        setattr(dataset, f"{kind}Date", now.strftime("%Y%m%d"))
        setattr(dataset, f"{kind}Time", now.strftime("%H%M%S"))
    dataset.Modality = "RTSTRUCT"
    dataset.SeriesInstanceUID = generate_uid()
    dataset.SeriesNumber = 1
    dataset.SeriesDescription = "gitract contours"
    dataset.OperatorsName = ""
    dataset.Manufacturer = _MANUFACTURER
    dataset.ManufacturerModelName = "napari-gitract"
    dataset.SoftwareVersions = __version__
    dataset.FrameOfReferenceUID = series.frame_of_reference_uid or generate_uid()
    dataset.PositionReferenceIndicator = ""
    dataset.StructureSetLabel = "gitract"
    dataset.ApprovalStatus = "UNAPPROVED"
    dataset.ReferencedFrameOfReferenceSequence = [_reference(dataset, series)]
    return dataset


def _reference(dataset: "Dataset", series: DicomSeries) -> "Dataset":
    """What the structure set refers to: frame of reference, study, series, all its images."""
    from pydicom import Dataset

    images = Dataset()
    images.SeriesInstanceUID = series.series_uid
    images.ContourImageSequence = [
        _image(image) for image in dict.fromkeys(i._replace(frame=None) for i in series.images)
    ]
    study = Dataset()
    study.ReferencedSOPClassUID = "1.2.840.10008.3.1.2.3.1"  # Detached Study Management
    study.ReferencedSOPInstanceUID = dataset.StudyInstanceUID
    study.RTReferencedSeriesSequence = [images]
    frame = Dataset()
    frame.FrameOfReferenceUID = dataset.FrameOfReferenceUID
    frame.RTReferencedStudySequence = [study]
    return frame


def _image(image: DicomImage) -> "Dataset":
    from pydicom import Dataset

    item = Dataset()
    item.ReferencedSOPClassUID = image.sop_class_uid
    item.ReferencedSOPInstanceUID = image.sop_instance_uid
    if image.frame is not None:
        item.ReferencedFrameNumber = image.frame
    return item


class _Origin(NamedTuple):
    """How contours came about: code and line of a ROI, description of the structure set."""

    algorithm: str
    line: str
    description: str


def _origin(segmentation: Segmentation) -> _Origin:
    model = segmentation.provenance.get("model")
    baseline = segmentation.provenance.get("baseline")
    edited = list(segmentation.provenance.get("edited") or ())
    if baseline and not edited:
        edited = edited_slices(segmentation.labels().array, baseline)
    description = "Research only, not for treatment."
    if not model:
        return _Origin("MANUAL", "No model is known to have taken part", description)
    description += f" Model: {model}."
    if not edited:
        return _Origin("AUTOMATIC", f"Model {model}"[:64], description)
    description += f" Slices edited (0-based): {', '.join(map(str, edited))}."
    line = f"{len(edited)} slices edited after model {model}"
    return _Origin("SEMIAUTOMATIC", line[:64], description[:1024])


def _add_rois(
    dataset: "Dataset",
    series: DicomSeries,
    affine: np.ndarray,
    drawn: list[tuple[Organ, np.ndarray]],
    origin: _Origin,
) -> None:
    from pydicom import Dataset

    rois, contours, observations = [], [], []
    for organ, mask in drawn:
        roi = Dataset()
        roi.ROINumber = organ.id
        roi.ReferencedFrameOfReferenceUID = dataset.FrameOfReferenceUID
        roi.ROIName = _roi_name(organ)
        roi.ROIGenerationAlgorithm = origin.algorithm
        roi.ROIGenerationDescription = origin.line
        rois.append(roi)
        outlines = Dataset()
        outlines.ROIDisplayColor = list(bytes.fromhex(organ.color[1:]))
        outlines.ContourSequence = _contours(mask, affine, series)
        outlines.ReferencedROINumber = organ.id
        contours.append(outlines)
        observations.append(_observation(organ))
    dataset.StructureSetROISequence = rois
    dataset.ROIContourSequence = contours
    dataset.RTROIObservationsSequence = observations


def _contours(mask: np.ndarray, affine: np.ndarray, series: DicomSeries) -> "list[Dataset]":
    from pydicom import DataElement, Dataset

    items = []
    for index in np.flatnonzero(mask.any(axis=(1, 2))).tolist():
        for polygon in outlined(mask[index]):
            text = _decimals(_in_patient(polygon, index, affine))
            item = Dataset()
            item.ContourImageSequence = [_image(series.images[index])]
            item.ContourGeometricType = _CLOSED[0]
            item.NumberOfContourPoints = len(polygon)
            # As one text, which pydicom would else check and convert number by number.
            item.add(DataElement(_CONTOUR_DATA, "DS", text, already_converted=True))
            items.append(item)
    return items


def _decimals(points: Points) -> str:
    """Coordinates to a tenth of a micrometre, in at most 16 characters each."""
    rounded = np.round(points, 4) + 0.0  # no minus before a zero
    return "\\".join(map(repr, rounded.ravel().tolist()))


def _observation(organ: Organ) -> "Dataset":
    from pydicom import Dataset

    code = Dataset()
    code.CodeValue = organ.code.value
    code.CodingSchemeDesignator = organ.code.scheme
    code.CodeMeaning = organ.code.meaning
    item = Dataset()
    item.ObservationNumber = organ.id
    item.ReferencedROINumber = organ.id
    item.RTROIIdentificationCodeSequence = [code]
    item.RTROIInterpretedType = {"gtv": "GTV", "body": "EXTERNAL"}.get(organ.name, "ORGAN")
    item.ROIInterpreter = ""
    return item
