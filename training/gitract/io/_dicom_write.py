"""Writing a scan as a DICOM series: a new one that names nobody, or the files that it came from.

A new series is of classic MR images, with attributes as in DICOM PS3.3, A.4 (MR Image IOD),
those that name a person left empty.
"""

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gitract.errors import InputError
from gitract.io._dicom_identity import pseudonym_of
from gitract.replacing import replaced_folder
from gitract.scan import DicomSeries, Scan

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["check_scan", "copy_series", "write_scan"]

_MAX_SIDE = 65535
_SLICE_NAME = re.compile(r"\d{4,}\.dcm")


def write_scan(scan: Scan, path: Path) -> None:
    """Write a scan as a folder of single MR images: a new series, with UIDs of its own.

    The patient is called by a pseudonym, the same as in de-identified contours of that series.

    A DICOM reader sorts slices along their normal: a scan whose slices run against it
    comes back in reverse order, each voxel at the same place in the body.

    Parameters
    ----------
    scan
        Whole numbers that 16 bits hold. MR images have no place for a scale, so that
        others cannot be stored as they are.
    path
        The folder, for files ``0001.dcm`` and on.

    Raises
    ------
    InputError
        The values do not fit, or the folder cannot be written.
    """
    kind = check_scan(scan)
    common = _common(scan, kind)
    from pydicom.uid import generate_uid

    with replaced_folder(path, _is_ours) as new:
        for index, values in enumerate(scan.voxels):
            common.InstanceNumber = index + 1
            common.SOPInstanceUID = common.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            common.ImagePositionPatient = _decimals(scan.affine[:3, 3] + index * scan.affine[:3, 0])
            common.PixelData = values.astype(kind.newbyteorder("<")).tobytes()
            common.save_as(new / f"{index + 1:04d}.dcm", enforce_file_format=True)


def copy_series(series: DicomSeries, path: Path) -> None:
    """Copy the files of a series as they are, with all that they say of the patient.

    Parameters
    ----------
    series
        Its files, each once, become ``0001.dcm`` and on, in the order of the slices.
    path
        The folder.

    Raises
    ------
    InputError
        A file is no longer there, or the folder cannot be written.
    """
    files = dict.fromkeys(image.path for image in series.images)
    gone = next((file for file in files if not file.is_file()), None)
    if gone is not None:
        raise InputError(f"{gone} is gone, of which the scan was read: open the scan again.")
    with replaced_folder(path, _is_ours) as new:
        for number, file in enumerate(files, start=1):
            shutil.copyfile(file, new / f"{number:04d}.dcm")


def _is_ours(name: str) -> bool:
    return _SLICE_NAME.fullmatch(name) is not None


def check_scan(scan: Scan) -> np.dtype:
    """The type to store a scan in: uint16 or int16, whichever holds all values.

    Raises
    ------
    InputError
        None does, or the slices are too large.
    """
    if max(scan.shape[1:]) > _MAX_SIDE:
        raise InputError(
            f"The scan {scan.name!r} has slices of {scan.shape[1]} x {scan.shape[2]} pixels "
            f"where DICOM holds {_MAX_SIDE} a side: write it as .nii.gz."
        )
    voxels = scan.voxels
    low, high = voxels.min(), voxels.max()
    whole = voxels.dtype.kind in "ui" or (
        bool(np.isfinite(voxels).all()) and bool((voxels == np.round(voxels)).all())
    )
    for kind in (np.uint16, np.int16):
        limits = np.iinfo(kind)
        if whole and limits.min <= low and high <= limits.max:
            return np.dtype(kind)
    what = f"values from {low:g} to {high:g}" if whole else "fractions"
    raise InputError(
        f"The scan {scan.name!r} holds {what} where DICOM MR images hold whole numbers of "
        "16 bits: write it as .nii.gz."
    )


def _common(scan: Scan, kind: np.dtype) -> "Dataset":
    """All attributes but those of the single slice."""
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    slice_mm, row_mm, column_mm = scan.spacing
    item = Dataset()
    item.file_meta = FileMetaDataset()
    item.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    item.file_meta.MediaStorageSOPClassUID = item.SOPClassUID = MRImageStorage
    item.StudyInstanceUID, item.SeriesInstanceUID = generate_uid(), generate_uid()
    item.PatientName = item.PatientID = pseudonym_of(item.StudyInstanceUID)
    item.PatientIdentityRemoved = "YES"
    item.DeidentificationMethod = "New series from voxels and geometry alone"
    for name in _EMPTY:
        setattr(item, name, None)
    item.FrameOfReferenceUID = generate_uid()
    item.Modality = "MR"
    item.SeriesNumber = 1
    item.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    item.ScanningSequence, item.SequenceVariant = "RM", "NONE"  # research mode: not known
    item.MRAcquisitionType = "2D"
    item.SliceThickness = item.SpacingBetweenSlices = _decimals([slice_mm])[0]
    item.PixelSpacing = _decimals([row_mm, column_mm])
    rows, columns = scan.affine[:3, 2] / column_mm, scan.affine[:3, 1] / row_mm
    item.ImageOrientationPatient = _decimals(
        [*(rows / np.linalg.norm(rows)), *(columns / np.linalg.norm(columns))]
    )
    item.SamplesPerPixel = 1
    item.PhotometricInterpretation = "MONOCHROME2"
    item.Rows, item.Columns = scan.shape[1:]
    item.BitsAllocated = item.BitsStored = 16
    item.HighBit = 15
    item.PixelRepresentation = int(kind.kind == "i")
    return item


# Must be there, may be empty (type 2).
_EMPTY = (
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
    "PatientPosition",
    "PositionReferenceIndicator",
    "Manufacturer",
    "Laterality",
    "PatientOrientation",
    "ScanOptions",
    "RepetitionTime",
    "EchoTime",
    "EchoTrainLength",
)


def _decimals(values: "np.ndarray | list[float]") -> list[str]:
    """Numbers as DICOM's decimal strings, of 16 characters at most."""
    from pydicom.valuerep import format_number_as_ds

    return [format_number_as_ds(float(value)) for value in values]
