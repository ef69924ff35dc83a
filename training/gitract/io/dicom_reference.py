"""What contours of a DICOM series will say of it: which series it is, and whose."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, cast

from gitract.io import dicom
from gitract.io._dicom_files import quiet
from gitract.io._dicom_identity import pseudonym_of
from gitract.io._dicom_rtstruct_write import COPIED
from gitract.io._dicom_seg_write import NOT_COPIED
from gitract.io._dicom_volume import Volume
from gitract.scan import Scan, Segmentation

if TYPE_CHECKING:
    from pydicom import Dataset, FileDataset

__all__ = ["Reference", "reference_of"]

_PATIENT, _CLINICAL_TRIAL = 0x0010, 0x0012  # groups
# Of the module General Study, what can tell whose study it is.
_STUDY = (
    *("StudyDate", "StudyTime", "AccessionNumber", "IssuerOfAccessionNumberSequence"),
    *("ReferringPhysicianName", "ReferringPhysicianIdentificationSequence"),
    *("ConsultingPhysicianName", "ConsultingPhysicianIdentificationSequence"),
    *("StudyDescription", "ProcedureCodeSequence", "PhysiciansOfRecord"),
    *("PhysiciansOfRecordIdentificationSequence", "NameOfPhysiciansReadingStudy"),
    *("PhysiciansReadingStudyIdentificationSequence", "ReferencedStudySequence", "StudyID"),
    *("RequestingService", "RequestingServiceCodeSequence"),
    "ReasonForPerformedProcedureCodeSequence",
    *("AdmittingDiagnosesDescription", "AdmittingDiagnosesCodeSequence", "AdmissionID"),
    *("IssuerOfAdmissionIDSequence", "ServiceEpisodeID", "ServiceEpisodeDescription"),
    *("IssuerOfServiceEpisodeIDSequence", "ReasonForVisit", "ReasonForVisitCodeSequence"),
    "PatientState",
)


class Reference(NamedTuple):
    """A series, and what a file of contours holds of its patient and study.

    `title`, `number`, `date` (``YYYY-MM-DD``) and `images` are of the series; the title is what
    the scanner's operator typed. `identifying` has the names, not the values, of the attributes
    that are copied unless the file is de-identified; then the patient is called `pseudonym`.
    """

    title: str
    number: int
    date: str
    images: int
    pseudonym: str
    identifying: tuple[str, ...]


def reference_of(item: Scan | Segmentation, suffix: str) -> Reference:
    """What a file of contours of this scan says of it.

    Parameters
    ----------
    item
        Of a DICOM series, whose first file is read.
    suffix
        ``.seg.dcm`` or ``.rtstruct.dcm``.

    Raises
    ------
    InputError
        It is of no DICOM series, or that is no longer there.
    """
    series = dicom.series_of(item)
    (header,) = dicom.headers(replace(series, images=series.images[:1]))
    known = Volume({series.images[0].path: cast("FileDataset", header)})
    with quiet():
        return Reference(
            title=known.title,
            number=known.number,
            date=known.date,
            images=len(series.images),
            pseudonym=pseudonym_of(series.study_uid),
            identifying=tuple(_identifying(header, suffix)),
        )


def _identifying(header: "Dataset", suffix: str) -> Iterator[str]:
    """Names of the attributes that have a value and are copied, as the standard words them."""
    from pydicom.datadict import dictionary_description, keyword_for_tag

    in_structure_sets = {keyword for keyword, kind in COPIED if kind != "UI"}
    for tag in header.keys():  # noqa: SIM118 - iterating would read every value
        keyword = keyword_for_tag(tag)
        personal = tag.group in (_PATIENT, _CLINICAL_TRIAL) or keyword in _STUDY
        if suffix == ".rtstruct.dcm":
            copied = keyword in in_structure_sets
        else:
            copied = bool(keyword) and personal and keyword not in NOT_COPIED
        if copied and header[tag].value:
            yield dictionary_description(tag)
