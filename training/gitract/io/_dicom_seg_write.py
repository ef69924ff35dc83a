"""Writing a DICOM segmentation onto its series, as highdicom builds it."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gitract import INTENDED_USE
from gitract._version import __version__
from gitract.errors import InputError
from gitract.io import dicom
from gitract.io._dicom_contours import (
    MANUFACTURER,
    PROGRAM,
    TITLE,
    drawn_organs,
    label_of,
    origin_of,
    save,
    source_headers,
    sources_told,
)
from gitract.io._dicom_identity import deidentify as remove_identity
from gitract.io._dicom_identity import impersonal, keep_geometry
from gitract.io._ignore import without_ignored
from gitract.organs import Code, Organ
from gitract.scan import DicomSeries, Segmentation

if TYPE_CHECKING:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentDescription
    from highdicom.sr import CodedConcept
    from pydicom import Dataset

__all__ = ["NOT_COPIED", "write_segmentation"]

_STRUCTURE = Code("91723000", "Anatomical Structure")
_LESION = Code("49755003", "Morphologically Abnormal Structure")
_ARTIFICIAL_INTELLIGENCE = Code("123110", "Artificial Intelligence", "DCM")
_REGISTRATION = Code("125024", "Image Content-based Alignment", "DCM")

NOT_COPIED = (
    *("InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "StationName"),
    *("PatientComments", "OtherPatientIDs", "OtherPatientIDsSequence", "OtherPatientNames"),
)
"""What highdicom would copy though nothing is linked by it."""
# What highdicom copies without looking whether it is there; the standard lets it be empty.
_COPIED = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
)


def write_segmentation(segmentation: Segmentation, path: Path, *, deidentify: bool = False) -> None:
    """Write a segmentation of a DICOM series as binary masks, with our notes beside.

    Each organ with a voxel becomes a segment, with a frame for every slice; regions to ignore
    are left out. Patient and study are those of the series, as the standard asks; the notes
    (``PATH.json``) hold the organ table and the provenance and nothing of the patient.
    `deidentify` leaves out who the patient is, as `_dicom_identity` tells.

    Raises
    ------
    InputError
        It is not on the grid of a DICOM series, nothing is drawn, the series is no longer
        there, or the file cannot be written.
    """
    segmentation = without_ignored(segmentation)
    series = dicom.series_of(segmentation)
    drawn = drawn_organs(segmentation, "a DICOM segmentation")
    with sources_told(segmentation):
        sources = _sources(segmentation, series, only_geometry=deidentify)
        masks = np.stack([mask for _, mask in drawn], axis=-1)
        descriptions = _descriptions(segmentation, [organ for organ, _ in drawn])
        dataset = _built(sources, masks, descriptions)
        for groups in dataset.PerFrameFunctionalGroupsSequence:
            _renumber(groups, series)
        if deidentify:
            remove_identity(dataset)
            segmentation = impersonal(segmentation)
        save(dataset, segmentation, path)


# --- the series that is referred to -----------------------------------------------------


def _sources(
    segmentation: Segmentation, series: DicomSeries, *, only_geometry: bool
) -> "list[Dataset]":
    """The headers as highdicom wants them: one for each slice, or a multi-frame one."""
    headers = source_headers(segmentation, series)
    for header in headers:
        if only_geometry:
            keep_geometry(header)
        for keyword in NOT_COPIED:
            header.pop(keyword, None)
    first = headers[0]
    if series.images[0].frame is None:
        for header in headers:
            # Checked to be the same but for rounding; highdicom compares each digit.
            header.ImageOrientationPatient = first.ImageOrientationPatient
        _state_spacing(first, segmentation)
    elif len(headers) > 1:
        raise InputError(
            f"The slices of {segmentation.name!r} lie in {len(headers)} multi-frame files, where "
            "a DICOM segmentation can refer to one: write a NIfTI file (.nii.gz)."
        )
    else:
        _reduce(first, segmentation, series)
    for keyword in _COPIED:
        if keyword not in first:
            setattr(first, keyword, None)
    return headers


def _state_spacing(measures: "Dataset", segmentation: Segmentation) -> None:
    """Give pixel measures the true distance of slices; scanners often state another one."""
    from pydicom.valuerep import DSfloat

    distance = DSfloat(segmentation.spacing[0], auto_format=True)
    measures.SpacingBetweenSlices = distance
    if not measures.get("SliceThickness"):
        measures.SliceThickness = distance


def _reduce(header: "Dataset", segmentation: Segmentation, series: DicomSeries) -> None:
    """Leave a multi-frame header the frames of the series, in its order, and their place."""
    from pydicom import Dataset

    old = header.PerFrameFunctionalGroupsSequence
    shared = Dataset()
    for keyword in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
        places = (old[0], *header.get("SharedFunctionalGroupsSequence", ()))
        shared[keyword] = next(place[keyword] for place in places if place.get(keyword))
    _state_spacing(shared.PixelMeasuresSequence[0], segmentation)
    frames = []
    for image in series.images:
        frame = Dataset()
        frame.PlanePositionSequence = old[(image.frame or 1) - 1].PlanePositionSequence
        frames.append(frame)
    header.SharedFunctionalGroupsSequence = [shared]
    header.PerFrameFunctionalGroupsSequence = frames
    header.NumberOfFrames = len(frames)


def _renumber(groups: "Dataset", series: DicomSeries) -> None:
    """Give a frame's reference to a multi-frame source the number that is in the file."""
    for derivation in groups.DerivationImageSequence:
        for source in derivation.SourceImageSequence:
            if "ReferencedFrameNumber" in source:
                number = series.images[int(source.ReferencedFrameNumber) - 1].frame
                source.ReferencedFrameNumber = number


# --- the file ---------------------------------------------------------------------------


def _built(
    sources: "list[Dataset]",
    masks: npt.NDArray[np.bool_],
    descriptions: "list[SegmentDescription]",
) -> "Dataset":
    """The whole file, of masks ``(slice, row, column, segment)``."""
    from highdicom.seg import Segmentation as DicomSegmentation
    from highdicom.seg import SegmentationTypeValues
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    first = sources[0]
    # highdicom quotes names that it finds odd in warnings.
    patient, first.PatientName = first.PatientName, None
    dataset = DicomSegmentation(
        source_images=sources,
        pixel_array=masks.astype(np.uint8),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=descriptions,
        series_instance_uid=generate_uid(),
        series_number=1000 + int(first.get("SeriesNumber") or 0) % 1000,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=PROGRAM,
        software_versions=__version__,
        device_serial_number="0",
        content_label="CONTOURS",
        content_description=INTENDED_USE,
        series_description=TITLE,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        omit_empty_frames=False,
        specific_character_set="ISO_IR 192",
    )
    dataset.PatientName = patient
    dataset.ContentCreatorName = None
    return dataset


def _descriptions(segmentation: Segmentation, organs: list[Organ]) -> "list[SegmentDescription]":
    """What the file says of each segment."""
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription

    kind = origin_of(segmentation).algorithm
    algorithm = None if kind == "MANUAL" else _algorithm(segmentation)
    return [
        SegmentDescription(
            segment_number=number,
            segment_label=label_of(organ),
            segmented_property_category=_coded(_LESION if organ.name == "gtv" else _STRUCTURE),
            segmented_property_type=_coded(organ.code),
            algorithm_type=SegmentAlgorithmTypeValues(kind),
            algorithm_identification=algorithm,
            display_color=CIELabColor.from_string(organ.color),
        )
        for number, organ in enumerate(organs, start=1)
    ]


def _algorithm(segmentation: Segmentation) -> "AlgorithmIdentificationSequence":
    from highdicom import AlgorithmIdentificationSequence

    known = segmentation.provenance
    return AlgorithmIdentificationSequence(
        name=PROGRAM,
        version=__version__,
        family=_coded(_ARTIFICIAL_INTELLIGENCE if known.get("model") else _REGISTRATION),
        parameters={key: str(known[key]) for key in ("model", "weights_sha256") if key in known}
        or None,
    )


def _coded(code: Code) -> "CodedConcept":
    from highdicom.sr import CodedConcept

    return CodedConcept(code.value, code.scheme, code.meaning)
