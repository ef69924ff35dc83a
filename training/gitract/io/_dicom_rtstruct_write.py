"""Writing an RT Structure Set onto its series.

Attributes as in DICOM PS3.3, A.19 and C.8.8.5 to C.8.8.8.
"""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gitract import INTENDED_USE
from gitract._version import __version__
from gitract.io import dicom
from gitract.io._dicom_contours import (
    LONGEST_TEXT,
    MANUFACTURER,
    PROGRAM,
    TITLE,
    Origin,
    drawn_organs,
    label_of,
    origin_of,
    save,
    source_headers,
    sources_told,
)
from gitract.io._dicom_files import RT_STRUCTURE_SET
from gitract.io._dicom_identity import deidentify as remove_identity
from gitract.io._dicom_identity import impersonal
from gitract.io._ignore import without_ignored
from gitract.io.contours import Points, outlined
from gitract.organs import Organ
from gitract.scan import DicomImage, DicomSeries, Segmentation

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["COPIED", "write_segmentation"]

_LONGEST_DESCRIPTION = 1024
_INTERPRETED_TYPES = {"gtv": "GTV", "body": "EXTERNAL"}

COPIED = (
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
"""Of patient and study, with their kinds: what links the contours to the series."""


def write_segmentation(segmentation: Segmentation, path: Path, *, deidentify: bool = False) -> None:
    """Write the outlines of a segmentation of a DICOM series, and notes as JSON beside it.

    Organs without a voxel are left out, and so are regions to ignore. Patient and study are
    those of the series; `deidentify` leaves out who the patient is, as `_dicom_identity` tells.

    Raises
    ------
    InputError
        The segmentation belongs to no DICOM series, lies elsewhere than that, or is empty;
        or the file cannot be written.
    """
    segmentation = without_ignored(segmentation)
    series = dicom.series_of(segmentation)
    drawn = drawn_organs(segmentation, "an RT Structure Set")
    origin = origin_of(segmentation)
    with sources_told(segmentation):
        header = source_headers(segmentation, series, ends=True)[0]
        dataset = _structure_set(header, series)
        dataset.StructureSetDescription = _description(origin)
        dataset.StructureSetROISequence = [
            _region(organ, dataset.FrameOfReferenceUID, origin) for organ, _ in drawn
        ]
        dataset.ROIContourSequence = [
            _outlines(organ, mask, segmentation.affine, series) for organ, mask in drawn
        ]
        dataset.RTROIObservationsSequence = [_observation(organ) for organ, _ in drawn]
        _choose_syntax(dataset)
        if deidentify:
            remove_identity(dataset)
            segmentation = impersonal(segmentation)
        save(dataset, segmentation, path)


def _choose_syntax(dataset: "Dataset") -> None:
    """Explicit VR, unless a contour is too long for it: it ends at 64 kB for one value."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    longest = max(
        len(contour["ContourData"].value)
        for roi in dataset.ROIContourSequence
        for contour in roi.ContourSequence
    )
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = (
        ExplicitVRLittleEndian if longest < 0xFFFF else ImplicitVRLittleEndian
    )


# --- patient, study, series -------------------------------------------------------------


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
    for keyword, vr in COPIED:
        # As it stands, even where it breaks the rules: it is what links the two.
        value = str(header.get(keyword) or "")
        dataset.add(DataElement(keyword, vr, value, validation_mode=IGNORE))
    for kind in ("InstanceCreation", "Series", "StructureSet"):
        setattr(dataset, f"{kind}Date", now.strftime("%Y%m%d"))
        setattr(dataset, f"{kind}Time", now.strftime("%H%M%S"))
    dataset.Modality = "RTSTRUCT"
    dataset.SeriesInstanceUID = generate_uid()
    dataset.SeriesNumber = 1
    dataset.SeriesDescription = TITLE
    dataset.OperatorsName = ""
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = PROGRAM
    dataset.SoftwareVersions = __version__
    dataset.FrameOfReferenceUID = series.frame_of_reference_uid
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


# --- regions ----------------------------------------------------------------------------


def _description(origin: Origin) -> str:
    """How the contours came about."""
    text = INTENDED_USE
    if origin.calculated_by:
        text += f" Calculated by {origin.calculated_by}."
    if origin.edited:
        text += f" Slices edited (0-based): {', '.join(map(str, origin.edited))}."
    return text[:_LONGEST_DESCRIPTION]


def _region(organ: Organ, frame_of_reference_uid: str, origin: Origin) -> "Dataset":
    """A region's name and who drew it."""
    from pydicom import Dataset

    drawn_by = {
        "MANUAL": "No model is known to have taken part",
        "AUTOMATIC": f"By {origin.calculated_by}",
        "SEMIAUTOMATIC": f"{len(origin.edited)} slices edited after {origin.calculated_by}",
    }
    item = Dataset()
    item.ROINumber = organ.id
    item.ReferencedFrameOfReferenceUID = frame_of_reference_uid
    item.ROIName = label_of(organ)
    item.ROIGenerationAlgorithm = origin.algorithm
    item.ROIGenerationDescription = drawn_by[origin.algorithm][:LONGEST_TEXT]
    return item


def _outlines(
    organ: Organ, mask: npt.NDArray[np.bool_], affine: np.ndarray, series: DicomSeries
) -> "Dataset":
    """A region's contours, those of a mask ``(slice, row, column)``."""
    from pydicom import Dataset

    item = Dataset()
    item.ROIDisplayColor = list(bytes.fromhex(organ.color[1:]))
    item.ContourSequence = [
        _contour(_in_patient(polygon, index, affine), series.images[index])
        for index in np.flatnonzero(mask.any(axis=(1, 2))).tolist()
        for polygon in outlined(mask[index])
    ]
    item.ReferencedROINumber = organ.id
    return item


def _in_patient(points: Points, index: int, affine: np.ndarray) -> Points:
    """Points ``(row, column)`` of a slice in LPS, mm."""
    return points @ affine[:3, 1:3].T + affine[:3, 3] + index * affine[:3, 0]


def _contour(points: Points, image: DicomImage) -> "Dataset":
    """One contour, its points ``(n, 3)`` in LPS, mm."""
    from pydicom import DataElement, Dataset

    item = Dataset()
    item.ContourImageSequence = [_image(image)]
    item.ContourGeometricType = "CLOSED_PLANAR"
    item.NumberOfContourPoints = len(points)
    # As one text, which pydicom would else check and convert number by number.
    item.add(DataElement("ContourData", "DS", _decimals(points), already_converted=True))
    return item


def _decimals(points: Points) -> str:
    """Coordinates to a tenth of a micrometre, in at most 16 characters each."""
    rounded = np.round(points, 4) + 0.0  # no minus before a zero
    return "\\".join(map(repr, rounded.ravel().tolist()))


def _observation(organ: Organ) -> "Dataset":
    """What a region is, as a coded term."""
    from pydicom import Dataset

    code = Dataset()
    code.CodeValue = organ.code.value
    code.CodingSchemeDesignator = organ.code.scheme
    code.CodeMeaning = organ.code.meaning
    item = Dataset()
    item.ObservationNumber = organ.id
    item.ReferencedROINumber = organ.id
    item.RTROIIdentificationCodeSequence = [code]
    item.RTROIInterpretedType = _INTERPRETED_TYPES.get(organ.name, "ORGAN")
    item.ROIInterpreter = ""
    return item
