"""DICOM segmentations (SEG): masks that refer to a series and say themselves where they lie.

Each frame of such a file has a place in the patient. A file and a scan fit each other
where these places are the scan's; the order and the number of frames mean nothing.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gitract.errors import InputError
from gitract.io import dicom
from gitract.io._dicom_contours import (
    Owners,
    check_frames_of_reference,
    damage_told,
    known_beside,
    on_scan,
    owners_of,
    read_dataset,
    unique_names,
    united,
)
from gitract.io._dicom_files import SEGMENTATIONS, damage
from gitract.io._dicom_seg_places import Grid, Stack, draw, own_grid, places_of, stack_of
from gitract.io._dicom_seg_write import write_segmentation
from gitract.io._file_names import stem_of
from gitract.scan import Scan, Segmentation

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["names", "read_segmentation", "write_segmentation"]

_KIND = "DICOM segmentation"
_MAX_VOXELS = 4_000_000_000


class _File(NamedTuple):
    """A file with checked headers; only pixels are read from `dataset` later.

    `names` has the label of each segment by its number; `segments` the number of each
    frame's segment, None in a label map, where the pixels are the numbers. `references`
    are series with their images.
    """

    dataset: "Dataset"
    stack: Stack
    names: dict[int, str]
    segments: list[int] | None
    whole_fraction: int | None
    frame_of_reference_uid: str
    references: list[tuple[str, set[str]]]

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.stack.path


def names(path: Path) -> list[str]:
    """The labels of the segments in their order; one that comes again gets a number.

    Raises
    ------
    InputError
        The file is damaged or no DICOM segmentation.
    """
    dataset = read_dataset(path, _KIND, SEGMENTATIONS, pixels=False)
    with damage_told(path, _KIND):
        return list(_names(dataset).values())


def read_segmentation(
    path: Path, *, scan: Scan | None = None, choices: Mapping[str, str] | None = None
) -> Segmentation:
    """Read a DICOM segmentation; one written by `write_segmentation` comes back complete.

    It may hold masks (``BINARY``), fractions (``FRACTIONAL``, of which one half and more
    count) or a label map (``LABELMAP``). Slices without a frame are empty.

    Parameters
    ----------
    path
        The file.
    scan
        The scan that the contours belong to. Without it the series that the file refers
        to is looked for near it; where that is not, they keep the grid of the file.
    choices
        Label of a segment -> organ, as in `gitract.organ_names.OrganNames.assign`.

    Returns
    -------
    Segmentation
        On the scan's grid; segments of one organ are united.

    Raises
    ------
    InputError
        The file is damaged, or lies on another grid or in another frame of reference than
        the scan.
    """
    file = _checked(path)
    found = (dicom.find_referenced(path, *reference) for reference in file.references)
    scan = scan or next((one for one in found if one is not None), None)
    remarks = []
    if file.whole_fraction is not None:
        remarks.append("The file holds fractions: voxels of one half and more were taken.")
    if scan is None:
        remarks.append("The scan that these contours belong to was not found near them.")
        grid = own_grid(file.stack)
    else:
        remarks += check_frames_of_reference(path, {file.frame_of_reference_uid: ()}, scan)
        grid = Grid(scan.shape, scan.affine)
    known = known_beside(path, file.dataset, grid.shape, grid.affine)
    owners = owners_of(file.names.values(), choices or {}, known)
    masks = _masks(file, grid, owners, scan)
    remarks += united(owners.by_name.values(), "segments")
    fields = {**_geometry(path, grid, scan, owners.known), "organs": owners.organs}
    return Segmentation(masks=masks, remarks=tuple(remarks), **fields)


def _geometry(
    path: Path, grid: Grid, scan: Scan | None, known: Mapping[str, Any]
) -> dict[str, Any]:
    """Arguments for the place, the name and the provenance: the scan's, else as noted."""
    if scan is None:
        return {
            "spacing": tuple(np.linalg.norm(grid.affine[:3, :3], axis=0)),
            "affine": grid.affine,
            "name": stem_of(path),
            **known,
        }
    return {**known, **on_scan(scan)}


# --- headers ----------------------------------------------------------------------------


def _names(dataset: "Dataset") -> dict[int, str]:
    """Number of a segment -> its label, each label once; a label map's background left out.

    Raises one of `damage` where there is none.
    """
    # Zero is the background of label maps unless they name another value.
    background = {0, dataset.get("PixelPaddingValue", 0)}
    segments = [(int(one.SegmentNumber), one) for one in dataset.SegmentSequence]
    labels = {number: _label(one) for number, one in segments if number not in background}
    if not labels or len({number for number, _ in segments}) < len(segments):
        raise ValueError("no segments, or several of one number")
    return unique_names(labels)


def _label(segment: "Dataset") -> str:
    label = str(segment.get("SegmentLabel") or "").strip()
    return label or str(segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning)


def _checked(path: Path) -> _File:
    """The file with the place and the segment of each frame, before a pixel is decoded."""
    dataset = read_dataset(path, _KIND, SEGMENTATIONS)
    with damage_told(path, _KIND):
        frames = int(dataset.NumberOfFrames)
        voxels = frames * int(dataset.Rows) * int(dataset.Columns)
        if voxels > _MAX_VOXELS:
            raise InputError(
                f"{path} claims to hold {voxels} voxels, too many for one scan: cut it first."
            )
        if voxels < 1 or len(dataset.PerFrameFunctionalGroupsSequence) != frames:
            raise ValueError("no frames, or not as many as it says")
        file = _file(path, dataset)
        if not set(file.segments or ()) <= file.names.keys():
            raise ValueError("frames of segments that are not there")
        if file.whole_fraction is not None and file.whole_fraction <= 0:
            raise ValueError("fractions of nothing")
        _check_whole(dataset, voxels)
    return file


def _file(path: Path, dataset: "Dataset") -> _File:
    kind = dataset.SegmentationType
    return _File(
        dataset=dataset,
        stack=stack_of(dataset, path),
        names=_names(dataset),
        segments=None if kind == "LABELMAP" else _segments(dataset),
        whole_fraction=int(dataset.MaximumFractionalValue) if kind == "FRACTIONAL" else None,
        frame_of_reference_uid=str(dataset.get("FrameOfReferenceUID") or ""),
        references=[
            (
                str(series.SeriesInstanceUID),
                {str(one.ReferencedSOPInstanceUID) for one in series.ReferencedInstanceSequence},
            )
            for series in dataset.get("ReferencedSeriesSequence") or ()
        ],
    )


def _segments(dataset: "Dataset") -> list[int]:
    """The number of the segment that each frame is of."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    keyword = "SegmentIdentificationSequence"
    return [
        int((own if keyword in own else shared)[keyword].value[0].ReferencedSegmentNumber)
        for own in dataset.PerFrameFunctionalGroupsSequence
    ]


def _check_whole(dataset: "Dataset", voxels: int) -> None:
    """Refuse fewer bytes than the headers promise, as far as that can be told."""
    compressed = dataset.file_meta.TransferSyntaxUID.is_encapsulated
    if not compressed and len(dataset.PixelData) * 8 < voxels * int(dataset.BitsAllocated):
        raise ValueError("pixels are cut off")


# --- pixels -----------------------------------------------------------------------------


def _masks(file: _File, grid: Grid, owners: Owners, scan: Scan | None) -> npt.NDArray[np.bool_]:
    """The masks ``(organ, slice, row, column)``, in the order of the table."""
    places = places_of(file.stack, grid, scan)
    voxels = len(owners.organs) * int(np.prod(grid.shape, dtype=float))
    if voxels > _MAX_VOXELS:
        raise InputError(
            f"{file.path} needs {voxels} voxels, too many for one scan: leave segments out."
        )
    masks = np.zeros((len(owners.organs), *grid.shape), dtype=np.bool_)
    for index, place in enumerate(places):
        for number, drawn in _drawn(file, index):
            organ = owners.by_name[file.names[number]]
            if organ is not None and not draw(masks[owners.organs.index(organ)], place, drawn):
                raise InputError(
                    f"{file.path} has contours outside of the scan"
                    + (f" {scan.name!r}" if scan else "")
                    + ": choose the scan that it was made on."
                )
    return masks


def _drawn(file: _File, index: int) -> Iterator[tuple[int, npt.NDArray[np.bool_]]]:
    """Number and pixels of each segment that a frame has pixels of."""
    pixels = _pixels(file, index)
    if file.segments is None:
        for number in file.names.keys() & set(np.unique(pixels).tolist()):
            yield number, pixels == number
        return
    if file.whole_fraction is None:
        yield file.segments[index], pixels != 0
    else:
        yield file.segments[index], pixels.astype(np.int64) * 2 >= file.whole_fraction


def _pixels(file: _File, index: int) -> np.ndarray:
    """The stored values of one frame, ``(row, column)``."""
    from pydicom.pixels import pixel_array

    dataset, (rows, columns) = file.dataset, file.stack.size
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        if dataset.BitsAllocated == 1 and syntax.is_little_endian and not syntax.is_encapsulated:
            # pydicom loses bits of a single frame that neither begins nor ends with a byte.
            begin, end = index * rows * columns, (index + 1) * rows * columns
            packed = np.frombuffer(dataset.PixelData, np.uint8)[begin // 8 : -(-end // 8)]
            bits = np.unpackbits(packed, bitorder="little")[begin % 8 :][: rows * columns]
            return bits.reshape(rows, columns)
        return pixel_array(dataset, index=index, raw=True).reshape(rows, columns)
    except damage() as error:
        raise InputError(
            f"The pixels of {file.path} are damaged, or compressed in a way that cannot be read "
            f"({syntax.name}): export it uncompressed."
        ) from error
