"""DICOM series of phantoms, as scanners and other programs write them."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

from gitract.scan import Scan

__all__ = ["PATIENT", "write_classic_series", "write_enhanced"]

PATIENT = "Doe^Jane"
"""The name of every patient here, to look for where it must not be."""

_PATIENT_ID = "4711-0815"


def write_classic_series(
    folder: Path,
    scan: Scan,
    *,
    order: str = "shuffled",
    modality: str = "MR",
    slope: float = 1,
    intercept: float = 0,
    number: int | None = 5,
    description: str = "t2 of Jane Doe",
    drop: Collection[int] = (),
    transfer_syntax: str = ExplicitVRLittleEndian,
    patient_name: str = PATIENT,
    series_uid: str | None = None,
    study_uid: str | None = None,
    frame_of_reference_uid: str | None = None,
    prefix: str = "IM",
    **changes: Any,
) -> list[Path]:
    """Write each slice of a scan as a file.

    Parameters
    ----------
    folder
        Is made where it is not there.
    scan
        Integers of 8 or 16 bits; they are the stored values, before slope and intercept.
    order
        Of file names and instance numbers: ``sorted``, ``reversed`` or ``shuffled``.
    drop
        Slices of the array to leave out.
    transfer_syntax
        Other than the default: compressed by pydicom.
    prefix
        Of the file names.
    changes
        Other attributes for all files; None leaves one out.

    Returns
    -------
    list of pathlib.Path
        The file of each slice that was written, in the order of the array.
    """
    folder.mkdir(parents=True, exist_ok=True)
    indices = [index for index in range(len(scan.voxels)) if index not in drop]
    ranks = np.arange(len(indices))
    if order == "reversed":
        ranks = ranks[::-1]
    elif order == "shuffled":
        ranks = np.random.default_rng(len(indices)).permutation(ranks)
    series = {
        "Modality": modality,
        "SeriesNumber": number,
        "SeriesDescription": description,
        "PatientName": patient_name,
        "SeriesInstanceUID": series_uid or generate_uid(),
        "StudyInstanceUID": study_uid or generate_uid(),
        "FrameOfReferenceUID": frame_of_reference_uid or generate_uid(),
        **({} if (slope, intercept) == (1, 0) else _scale(slope, intercept)),
        **changes,
    }
    sop_class = CTImageStorage if modality == "CT" else MRImageStorage
    paths = []
    for index, rank in zip(indices, ranks, strict=True):
        item = _image(scan, sop_class)
        item.InstanceNumber = int(rank) + 1
        _set(item, _plane(scan, index))
        item.SliceThickness = f"{scan.spacing[0]:.6g}"
        item.PixelData = scan.voxels[index].tobytes()
        _set(item, series)
        if transfer_syntax != ExplicitVRLittleEndian:
            _encode(item, UID(transfer_syntax))
        paths.append(folder / f"{prefix}{rank:04d}.dcm")
        item.save_as(paths[-1], enforce_file_format=True)
    return paths


def _set(item: Dataset, attributes: Mapping[str, Any]) -> None:
    """Give attributes values; None leaves one out."""
    for name, value in attributes.items():
        if value is not None:
            setattr(item, name, value)
        elif name in item:
            delattr(item, name)


def _encode(item: Dataset, syntax: UID) -> None:
    if syntax.is_encapsulated:
        item.compress(syntax, generate_instance_uid=False)
    else:
        item.file_meta.TransferSyntaxUID = syntax


def write_enhanced(
    path: Path,
    scan: Scan,
    *,
    order: str = "shuffled",
    slope: float = 1,
    intercept: float = 0,
    number: int = 7,
    shared: bool = True,
    times: int = 1,
    patient_name: str = PATIENT,
    **changes: Any,
) -> Path:
    """Write a scan as one enhanced multi-frame MR image.

    Parameters
    ----------
    path
        The file.
    scan
        Integers of 8 or 16 bits.
    order
        Of the frames, as in `write_classic_series`.
    shared
        Whether orientation, pixel spacing and scale stand once for all frames.
    times
        How often every position is there.
    changes
        Other attributes of the file; None leaves one out.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    ranks = np.tile(np.arange(len(scan.voxels)), times)
    if order == "reversed":
        ranks = ranks[::-1]
    elif order == "shuffled":
        ranks = np.random.default_rng(len(ranks)).permutation(ranks)
    item = _image(scan, EnhancedMRImageStorage)
    item.Modality = "MR"
    item.SeriesNumber = number
    item.PatientName = patient_name
    item.InstanceNumber = 1
    for name in ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
        setattr(item, name, generate_uid())
    item.NumberOfFrames = len(ranks)
    item.PixelData = np.ascontiguousarray(scan.voxels[ranks]).tobytes()
    general = Dataset()
    frames = []
    for index in ranks:
        frame, plane = Dataset(), _plane(scan, int(index))
        target = general if shared else frame
        frame.PlanePositionSequence = [_only(plane, "ImagePositionPatient")]
        target.PlaneOrientationSequence = [_only(plane, "ImageOrientationPatient")]
        target.PixelMeasuresSequence = [_only(plane, "PixelSpacing")]
        scale = Dataset()
        _set(scale, _scale(slope, intercept))
        target.PixelValueTransformationSequence = [scale]
        frames.append(frame)
    item.SharedFunctionalGroupsSequence = [general]
    item.PerFrameFunctionalGroupsSequence = frames
    _set(item, changes)
    item.save_as(path, enforce_file_format=True)
    return path


def _only(plane: dict[str, Any], name: str) -> Dataset:
    item = Dataset()
    setattr(item, name, plane[name])
    return item


def _image(scan: Scan, sop_class: str) -> Dataset:
    """An image without a place and without pixels."""
    kind = scan.voxels.dtype
    item = Dataset()
    item.file_meta = FileMetaDataset()
    item.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    item.SOPClassUID = sop_class
    item.SOPInstanceUID = generate_uid()
    item.PatientID = _PATIENT_ID
    item.PatientBirthDate = "19500101"
    item.InstitutionName = "General Hospital"
    item.StudyDate = "20240131"
    item.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    item.SamplesPerPixel = 1
    item.PhotometricInterpretation = "MONOCHROME2"
    item.Rows, item.Columns = scan.shape[1:]
    item.BitsAllocated = item.BitsStored = 8 * kind.itemsize
    item.HighBit = item.BitsStored - 1
    item.PixelRepresentation = int(kind.kind == "i")
    return item


def _plane(scan: Scan, index: int) -> dict[str, Any]:
    """Where a slice lies."""
    _, row_mm, column_mm = scan.spacing
    position = scan.affine @ (index, 0, 0, 1)
    along_row, along_column = scan.affine[:3, 2] / column_mm, scan.affine[:3, 1] / row_mm
    return {
        "ImagePositionPatient": [f"{mm:.9g}" for mm in position[:3]],
        "ImageOrientationPatient": [f"{part:.9g}" for part in (*along_row, *along_column)],
        "PixelSpacing": [f"{mm:.9g}" for mm in (row_mm, column_mm)],
    }


def _scale(slope: float, intercept: float) -> dict[str, str]:
    return {
        "RescaleSlope": f"{slope:.9g}",
        "RescaleIntercept": f"{intercept:.9g}",
        "RescaleType": "US",
    }
