"""Leaving out of a DICOM file who the patient is.

What goes follows the Basic Application Level Confidentiality Profile of DICOM PS3.15, table
E.1-1, for what our structure sets and segmentations hold: name, ID, birth date, sex, study
ID, accession number, physicians and every date are emptied or replaced, the scanner is left
out. Two things stay that the profile would change, and the file says so:

- UIDs of study, series, images and frame of reference (the profile's option to retain them):
  contours without them would refer to nothing. Whoever holds the scan can tell whose they are.
- Names of organs, which are the contours' meaning. Those that a user typed are not looked
  through.
"""

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from gitract.scan import Segmentation

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["deidentify", "impersonal", "keep_geometry", "pseudonym_of"]

_METHOD = ("Patient, study and dates removed after DICOM PS3.15", "UIDs and names of organs kept")
_TIMES_AND_PERSONS = ("DA", "TM", "DT", "PN")
_EMPTIED = ("PatientSex", "StudyID", "AccessionNumber")  # must be there, may be empty
# Must have a value: one that nobody takes for a true one.
_DUMMIES = {"ContentDate": "19000101", "ContentTime": "000000"}

# What a segmentation needs of its source's header: images, their pixels, their place.
_GEOMETRY = {
    *("SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "Modality", "SeriesNumber"),
    *("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"),
    *("SpacingBetweenSlices", "NumberOfFrames", "Rows", "Columns", "SamplesPerPixel"),
    *("PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "SharedFunctionalGroupsSequence"),
    *("PerFrameFunctionalGroupsSequence", "LossyImageCompression"),
    *("LossyImageCompressionRatio", "LossyImageCompressionMethod"),
}


def pseudonym_of(study_uid: str) -> str:
    """What a patient is called in a de-identified file: the same in all files of one study.

    It is a digest of the study's UID, which the file holds anyway. One of the patient's ID
    could be undone by trying all IDs.
    """
    return f"ANON-{hashlib.sha256(study_uid.encode()).hexdigest()[:12].upper()}"


def deidentify(dataset: "Dataset") -> None:
    """Empty or replace in a finished file what tells whose it is, and say so in it."""
    dataset.pop("ContributingEquipmentSequence", None)  # the scanner and where it stands
    for element in dataset:
        if element.VR in _TIMES_AND_PERSONS:
            element.value = _DUMMIES.get(element.keyword)
    for keyword in _EMPTIED:
        setattr(dataset, keyword, None)
    dataset.PatientName = dataset.PatientID = pseudonym_of(str(dataset.StudyInstanceUID))
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = list(_METHOD)
    dataset.LongitudinalTemporalInformationModified = "REMOVED"


def keep_geometry(header: "Dataset") -> None:
    """Take all out of a source's header that is not its pixels' kind and place."""
    from pydicom.datadict import keyword_for_tag

    for tag in list(header.keys()):
        if keyword_for_tag(tag) not in _GEOMETRY:
            del header[tag]


def impersonal(segmentation: Segmentation) -> Segmentation:
    """Without the time at which it was made, for the notes of a de-identified file.

    Nor do they say which day it was carried over from: that may be called by its patient.
    """
    known = segmentation.provenance
    kept = {key: value for key, value in known.items() if key not in ("created", "alignment")}
    if "propagated_from" in kept:
        kept["propagated_from"] = "another day"
    return replace(segmentation, provenance=kept)
