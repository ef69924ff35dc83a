"""DICOM segmentations (SEG): masks that refer to a series and say themselves where they lie.

Each frame of such a file has a place in the patient. A file and a scan fit each other
where these places are the scan's; the order and the number of frames mean nothing.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gitract._version import __version__
from gitract.baseline import edited_slices
from gitract.errors import InputError
from gitract.io import dicom
from gitract.io._dicom_files import DAMAGE, quiet
from gitract.io._dicom_geometry import Frame, frames_of, grid_of
from gitract.io._files import replaced_file
from gitract.io._notes import beside, is_of_segmentation, notes_of, read_beside, restored
from gitract.organ_names import OrganNames
from gitract.organs import ORGANS, Code, Organ
from gitract.scan import DicomSeries, Scan, Segmentation

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription
    from pydicom import Dataset

__all__ = ["names", "read_segmentation", "write_segmentation"]

_SEGMENTATION, _LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"
_MAX_VOXELS = 4_000_000_000
_MAX_SLICES = 65535

_ROUNDED_MM = 0.05  # what rounded positions and spacings in headers add up to
_DRIFT_MM = 0.1  # how far off its even grid a slice of a DICOM series may lie
_SAME_MM = 0.01

_STRUCTURE = Code("91723000", "Anatomical Structure")
_LESION = Code("49755003", "Morphologically Abnormal Structure")
_ARTIFICIAL_INTELLIGENCE = Code("123110", "Artificial Intelligence", "DCM")
_TITLE = "napari-gitract contours"
_PURPOSE = "For research only, not for treatment decisions"
_LONGEST = 64  # characters in a text of DICOM's kind LO


# --- reading ----------------------------------------------------------------------------


class _Grid(NamedTuple):
    """``(slices, rows, columns)``, and array index to LPS in mm."""

    shape: tuple[int, int, int]
    affine: np.ndarray


class _File(NamedTuple):
    """A file with checked headers; only pixels are read from `dataset` later.

    `names` has the label of each segment by its number; `segments` the number of each
    frame's segment, None in a label map, where the pixels are the numbers. `references`
    are series with their images; `spacing_mm` and `thickness_mm` are of slices, as stated,
    0 where they are not.
    """

    path: Path
    dataset: "Dataset"
    size: tuple[int, int]
    names: dict[int, str]
    frames: list[Frame]
    segments: list[int] | None
    whole_fraction: int | None
    frame_of_reference_uid: str
    references: list[tuple[str, set[str]]]
    spacing_mm: float
    thickness_mm: float


def _damage() -> tuple[type[Exception], ...]:
    """What pydicom and highdicom raise for headers that are damaged or not as they should be."""
    from pydicom.errors import BytesLengthException

    return (*DAMAGE, BytesLengthException)


def names(path: Path) -> list[str]:
    """The labels of the segments in their order; one that comes again gets a number.

    Raises
    ------
    InputError
        The file is damaged or no DICOM segmentation.
    """
    dataset = _dataset(path, pixels=False)
    try:
        with quiet():
            return list(_names(dataset).values())
    except _damage() as error:
        raise _damaged(path) from error


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
    remarks = list(_remarks(file))
    found = (dicom.find_referenced(path, *reference) for reference in file.references)
    scan = scan or next((one for one in found if one is not None), None)
    if scan is None:
        remarks.append("The scan that these contours belong to was not found near them.")
        grid = _own_grid(file)
    else:
        _check_frame_of_reference(file, scan)
        grid = _Grid(scan.shape, scan.affine)
    assigned = OrganNames.load().assign(file.names.values(), choices)
    known = _noted(path, grid, assigned, choices or {})
    organs: tuple[Organ, ...] = known.get("organs") or _table(assigned.values())
    if known:
        assigned = {name: _titled(name, organs) for name in assigned}
    masks = _masks(file, grid, organs, assigned, scan)
    remarks += _united(assigned)
    fields: dict[str, Any] = {
        "spacing": tuple(np.linalg.norm(grid.affine[:3, :3], axis=0)),
        "affine": grid.affine,
        "name": path.name.split(".")[0],
        **known,
        "organs": organs,
    }
    if scan is not None:
        fields |= {
            "spacing": scan.spacing,
            "affine": scan.affine,
            "name": scan.name,
            "slice_numbers": scan.slice_numbers,
            "stored": scan.stored,
        }
    return Segmentation(masks=masks, remarks=tuple(remarks), **fields)


def _dataset(path: Path, *, pixels: bool) -> "Dataset":
    """The content of a file that is a segmentation."""
    from pydicom import dcmread

    try:
        with quiet():
            dataset = dcmread(path, force=True, stop_before_pixels=not pixels)
            kind = str(dataset.get("SOPClassUID"))
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror or error}): "
            "check that it is there and permitted."
        ) from error
    except _damage() as error:
        raise _damaged(path) from error
    if kind not in (_SEGMENTATION, _LABEL_MAP):
        raise InputError(f"{path} is damaged or no DICOM segmentation: choose a SEG file.")
    return dataset


def _damaged(path: Path) -> InputError:
    return InputError(
        f"{path} is damaged or no complete DICOM segmentation: copy it again from its source."
    )


def _names(dataset: "Dataset") -> dict[int, str]:
    """Number of a segment -> its label, each label once; a label map's background left out.

    Raises one of `_damage` where there is none.
    """
    # Zero is the background of label maps unless they name another value.
    background = {0, dataset.get("PixelPaddingValue", 0)}
    segments = [(int(one.SegmentNumber), one) for one in dataset.SegmentSequence]
    labels = {number: _label(one) for number, one in segments if number not in background}
    if not labels or len({number for number, _ in segments}) < len(segments):
        raise ValueError("no segments, or several of one number")
    given: dict[int, str] = {}
    for number, label in labels.items():
        name, count = label, 1
        while name in given.values() or (count > 1 and name in labels.values()):
            count += 1
            name = f"{label} {count}"
        given[number] = name
    return given


def _label(segment: "Dataset") -> str:
    label = str(segment.get("SegmentLabel") or "").strip()
    return label or str(segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning)


def _checked(path: Path) -> _File:
    """The file with the place and the segment of each frame, before a pixel is decoded."""
    dataset = _dataset(path, pixels=True)
    try:
        with quiet():
            voxels = int(dataset.NumberOfFrames) * int(dataset.Rows) * int(dataset.Columns)
            if voxels > _MAX_VOXELS:
                raise InputError(
                    f"{path} claims to hold {voxels} voxels, too many for one scan: cut it first."
                )
            if len(dataset.PerFrameFunctionalGroupsSequence) != int(dataset.NumberOfFrames):
                raise _damaged(path)
            file = _file(path, dataset)
            known = set(file.segments or ()) <= file.names.keys()
            fractions = file.whole_fraction is None or file.whole_fraction > 0
            if not (voxels > 0 and known and fractions and _is_whole(dataset, voxels)):
                raise _damaged(path)
            return file
    except _damage() as error:
        raise _damaged(path) from error


def _file(path: Path, dataset: "Dataset") -> _File:
    kind = dataset.SegmentationType
    return _File(
        path=path,
        dataset=dataset,
        size=(int(dataset.Rows), int(dataset.Columns)),
        names=_names(dataset),
        frames=frames_of(dataset, path),
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
        spacing_mm=_stated(dataset, "SpacingBetweenSlices"),
        thickness_mm=_stated(dataset, "SliceThickness"),
    )


def _stated(dataset: "Dataset", keyword: str) -> float:
    """A length of the pixel measures in mm, 0 where it is not there."""
    groups = (
        dataset.PerFrameFunctionalGroupsSequence[0],
        *(dataset.get("SharedFunctionalGroupsSequence") or ()),
    )
    measures = next(one for one in groups if one.get("PixelMeasuresSequence"))
    length = abs(float(measures.PixelMeasuresSequence[0].get(keyword) or 0))
    return length if np.isfinite(length) else 0.0


def _segments(dataset: "Dataset") -> list[int]:
    """The number of the segment that each frame is of."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    keyword = "SegmentIdentificationSequence"
    return [
        int((own if keyword in own else shared)[keyword].value[0].ReferencedSegmentNumber)
        for own in dataset.PerFrameFunctionalGroupsSequence
    ]


def _is_whole(dataset: "Dataset", voxels: int) -> bool:
    """Whether there are as many bytes as the headers promise, as far as that can be told."""
    compressed = dataset.file_meta.TransferSyntaxUID.is_encapsulated
    return compressed or len(dataset.PixelData) * 8 >= voxels * int(dataset.BitsAllocated)


def _check_frame_of_reference(file: _File, scan: Scan) -> None:
    own = file.frame_of_reference_uid
    known = scan.stored.frame_of_reference_uid if isinstance(scan.stored, DicomSeries) else ""
    if own and known and own != known:
        raise InputError(
            f"{file.path} lies in another frame of reference than the scan {scan.name!r}, where "
            "equal coordinates are not the same place: choose the scan that it was made on."
        )


# --- names ------------------------------------------------------------------------------


def _table(organs: Iterable[Organ | None]) -> tuple[Organ, ...]:
    """The organs that are always there and those that were found, by id."""
    table = {organ.id: organ for organ in (*ORGANS, *organs) if organ is not None}
    return tuple(table[key] for key in sorted(table))


def _written_label(organ: Organ) -> str:
    return organ.title[:_LONGEST]


def _titled(label: str, organs: Iterable[Organ]) -> Organ | None:
    """The organ that a segment with this label was written for."""
    return next((organ for organ in organs if _written_label(organ) == label), None)


def _noted(
    path: Path,
    grid: _Grid,
    assigned: Mapping[str, Organ | None],
    choices: Mapping[str, str],
) -> dict[str, Any]:
    """What the notes beside the file know, where they are of these segments on this grid."""
    notes = read_beside(path)
    if not is_of_segmentation(notes):
        return {}
    known = restored(notes, where=path, shape=grid.shape, spacing=None, affine=grid.affine)
    for name, organ in assigned.items():
        noted = _titled(name, known["organs"]) if known else None
        chosen = organ if name in choices else noted
        if noted is None or chosen is None or chosen.name != noted.name:
            return {}
    return known or {}


def _remarks(file: _File) -> Iterator[str]:
    if file.whole_fraction is not None:
        yield "The file holds fractions: voxels of one half and more were taken."


def _united(assigned: Mapping[str, Organ | None]) -> Iterator[str]:
    """A remark for each organ that several segments stand for."""
    given = [organ.title for organ in assigned.values() if organ is not None]
    for title in dict.fromkeys(given):
        if (count := given.count(title)) > 1:
            yield f"{count} segments were united as one organ, {title}."


# --- places -----------------------------------------------------------------------------


class _Place(NamedTuple):
    """Which voxels the pixels of a frame are.

    `axes` of the array run across, along the rows' numbers and along the columns';
    `slice`, `rows` and `columns` are indices on them and may lie outside.
    """

    axes: tuple[int, int, int]
    slice: int
    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]


def _steps(frame: Frame) -> np.ndarray:
    """From a pixel to the next row and to the next column, ``(2, 3)`` in mm."""
    row_mm, column_mm = frame.spacing
    return np.array([frame.column_direction * row_mm, frame.row_direction * column_mm])


def _place(
    frame: Frame, size: tuple[int, int], affine: np.ndarray, tolerance: float
) -> _Place | None:
    """The voxels of a frame; None where a corner is off a voxel by more than `tolerance` mm."""
    corners = np.array(list(np.ndindex(2, 2))) * (np.array(size) - 1)
    there = frame.position + corners @ _steps(frame)
    to_index = np.linalg.inv(affine)
    start = np.rint(to_index[:3, :3] @ frame.position + to_index[:3, 3])
    steps = np.rint(_steps(frame) @ to_index[:3, :3].T)
    here = (start + corners @ steps) @ affine[:3, :3].T + affine[:3, 3]
    row_axis, column_axis = (int(axis) for axis in np.abs(steps).argmax(axis=1))
    if (
        row_axis == column_axis
        or (np.abs(steps).sum(axis=1) != 1).any()
        or not (np.linalg.norm(here - there, axis=1).max() <= tolerance)
    ):
        return None
    across = 3 - row_axis - column_axis
    row_numbers, column_numbers = (
        start[axis] + step[axis] * np.arange(count)
        for axis, step, count in zip((row_axis, column_axis), steps, size, strict=True)
    )
    return _Place(
        (across, row_axis, column_axis),
        int(start[across]),
        row_numbers.astype(np.int64),
        column_numbers.astype(np.int64),
    )


def _places(file: _File, grid: _Grid, scan: Scan | None) -> list[_Place]:
    """The voxels of each frame.

    Raises
    ------
    InputError
        The frames lie on another grid.
    """
    drifts = scan is None or isinstance(scan.stored, DicomSeries)
    tolerance = _ROUNDED_MM + (_DRIFT_MM if drifts else 0)
    places: list[_Place] = []
    for frame in file.frames:
        place = _place(frame, file.size, grid.affine, tolerance)
        if place is None or place.axes != (places[0] if places else place).axes:
            raise _other_grid(file, scan)
        places.append(place)
    _check_thickness(file, places, grid, scan)
    return places


def _other_grid(file: _File, scan: Scan | None) -> InputError:
    if scan is None:
        return InputError(
            f"The frames of {file.path} make no evenly spaced stack of slices: "
            "give the scan that they were made on."
        )
    return InputError(
        f"{file.path} lies on another grid than the scan {scan.name!r}: "
        "choose the scan that it was made on."
    )


def _check_thickness(file: _File, places: Sequence[_Place], grid: _Grid, scan: Scan | None) -> None:
    """Refuse thick slices on every second one of thin slices; they would leave gaps."""
    numbers = np.unique([place.slice for place in places])
    if len(numbers) < 2:
        return
    spacing = np.linalg.norm(grid.affine[:3, places[0].axes[0]])
    gap = np.diff(numbers).min() * spacing
    if gap > 1.5 * spacing and abs(gap - file.spacing_mm) <= _ROUNDED_MM:
        raise _other_grid(file, scan)


def _own_grid(file: _File) -> _Grid:
    """The grid of the frames, slices ascending along their normal; gaps are empty slices."""
    first = file.frames[0]
    normal = np.cross(first.row_direction, first.column_direction)
    heights = np.array([frame.position @ normal for frame in file.frames])
    lowest, highest = (file.frames[index] for index in (heights.argmin(), heights.argmax()))
    count, step = _slices(file, heights)
    affine = np.eye(4)
    affine[:3, 1:3] = _steps(first).T
    affine[:3, 3] = lowest.position
    affine[:3, 0] = normal * step
    if count > 1:  # along the stack itself: cosines are rounded more than positions
        affine[:3, 0] = (highest.position - lowest.position) / (count - 1)
    return _Grid((count, *file.size), affine)


def _slices(file: _File, heights: np.ndarray) -> tuple[int, float]:
    """Number of slices and their distance in mm: as stated where that fits, else the smallest."""
    levels = np.sort(heights)
    levels = levels[np.diff(levels, prepend=-np.inf) > _ROUNDED_MM]
    if len(levels) == 1:
        step = file.spacing_mm or file.thickness_mm
        if not step:
            raise InputError(
                f"{file.path} has one slice and does not say how thick it is: "
                "give the scan that it was made on."
            )
        return 1, step
    offsets = levels - levels[0]
    for step in (file.spacing_mm, float(np.diff(levels).min())):
        if step <= _ROUNDED_MM or offsets[-1] > step * _MAX_SLICES:
            continue
        count = max(1, round(offsets[-1] / step))
        fine = offsets[-1] / count
        if np.abs(offsets - np.rint(offsets / fine) * fine).max() <= _ROUNDED_MM:
            return count + 1, float(fine)
    raise _other_grid(file, None)


def _masks(
    file: _File,
    grid: _Grid,
    organs: tuple[Organ, ...],
    assigned: Mapping[str, Organ | None],
    scan: Scan | None,
) -> npt.NDArray[np.bool_]:
    """The masks ``(organ, slice, row, column)``, in the order of `organs`."""
    places = _places(file, grid, scan)
    voxels = len(organs) * int(np.prod(grid.shape, dtype=float))
    if voxels > _MAX_VOXELS:
        raise InputError(
            f"{file.path} needs {voxels} voxels, too many for one scan: leave segments out."
        )
    masks = np.zeros((len(organs), *grid.shape), dtype=np.bool_)
    for index, place in enumerate(places):
        for number, drawn in _drawn(file, index):
            organ = assigned[file.names[number]]
            if organ is not None and not _draw(masks[organs.index(organ)], place, drawn):
                raise InputError(
                    f"{file.path} has contours outside of the scan"
                    + (f" {scan.name!r}" if scan else "")
                    + ": choose the scan that it was made on."
                )
    return masks


def _draw(mask: npt.NDArray[np.bool_], place: _Place, drawn: npt.NDArray[np.bool_]) -> bool:
    """Add the pixels of a frame; False where some of them lie outside."""
    turned = mask.transpose(place.axes)
    slices, rows, columns = turned.shape
    inside = 0 <= place.slice < slices
    own_rows = np.flatnonzero((place.rows >= 0) & (place.rows < rows) & inside)
    own_columns = np.flatnonzero((place.columns >= 0) & (place.columns < columns))
    kept = drawn[np.ix_(own_rows, own_columns)]
    if inside:
        turned[place.slice][np.ix_(place.rows[own_rows], place.columns[own_columns])] |= kept
    return np.count_nonzero(kept) == np.count_nonzero(drawn)


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

    dataset, (rows, columns) = file.dataset, file.size
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        if dataset.BitsAllocated == 1 and syntax.is_little_endian and not syntax.is_encapsulated:
            # pydicom loses bits of a single frame that neither begins nor ends with a byte.
            begin, end = index * rows * columns, (index + 1) * rows * columns
            packed = np.frombuffer(dataset.PixelData, np.uint8)[begin // 8 : -(-end // 8)]
            bits = np.unpackbits(packed, bitorder="little")[begin % 8 :][: rows * columns]
            return bits.reshape(rows, columns)
        return pixel_array(dataset, index=index, raw=True).reshape(rows, columns)
    except _damage() as error:
        raise InputError(
            f"The pixels of {file.path} are damaged, or compressed in a way that cannot be read "
            f"({syntax.name}): export it uncompressed."
        ) from error


# --- writing ----------------------------------------------------------------------------


def write_segmentation(segmentation: Segmentation, path: Path) -> None:
    """Write a segmentation of a DICOM series as binary masks, with our notes beside.

    Each organ with a voxel becomes a segment, with a frame for every slice. Patient and
    study are those of the series, as the standard asks; the notes (``PATH.json``) hold
    the organ table and the provenance and nothing of the patient.

    Raises
    ------
    InputError
        It is not on the grid of a DICOM series, nothing is drawn, the series is no longer
        there, or the file cannot be written.
    """
    series = dicom.series_of(segmentation)
    if not segmentation.masks.any():
        raise InputError(
            f"Nothing is drawn in {segmentation.name!r}: "
            "a DICOM segmentation needs at least one organ."
        )
    content = _encoded(segmentation, series)
    with replaced_file(path) as temporary, replaced_file(beside(path)) as notes:
        temporary.write_bytes(content)
        notes.write_text(json.dumps(notes_of(segmentation)), encoding="utf-8")


def _encoded(segmentation: Segmentation, series: DicomSeries) -> bytes:
    """The content of the file."""
    headers = dicom.headers(series)
    try:
        with quiet():
            _check_place(segmentation, series, headers)
            sources = _sources(segmentation, series, headers)
            dataset = _built(segmentation, sources)
            for groups in dataset.PerFrameFunctionalGroupsSequence:
                _renumber(groups, series)
            buffer = BytesIO()
            dataset.save_as(buffer)
    except _damage() as error:
        raise InputError(
            f"The DICOM headers of {segmentation.name!r} are not what a segmentation can refer "
            f"to ({type(error).__name__}): write a NIfTI file (.nii.gz)."
        ) from error
    return buffer.getvalue()


def _check_place(
    segmentation: Segmentation, series: DicomSeries, headers: "Sequence[Dataset]"
) -> None:
    """Refuse contours that do not lie where the files of their series do."""
    by_path = dict(zip(dict.fromkeys(image.path for image in series.images), headers, strict=True))
    every = {
        (frame.image.path, frame.image.frame): frame
        for path, header in by_path.items()
        for frame in frames_of(header, path)
    }
    frames = [every[image.path, image.frame] for image in series.images]
    size = int(headers[0].Rows), int(headers[0].Columns)
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(segmentation.shape) - 1)
    corners = np.column_stack([corners, np.ones(8)])
    same = (len(frames), *size) == segmentation.shape
    if same:
        grid = grid_of(frames, segmentation.name)
        ascending = [frame.image for frame in grid.frames] == [frame.image for frame in frames]
        apart = corners @ (grid.affine - segmentation.affine).T
        same = ascending and bool(np.linalg.norm(apart, axis=1).max() <= _SAME_MM)
    if not same:
        raise InputError(
            f"The contours {segmentation.name!r} do not lie where the files of their series do: "
            "read them again on the scan of that series, with the spacing that it states."
        )


def _sources(
    segmentation: Segmentation, series: DicomSeries, headers: "list[Dataset]"
) -> "list[Dataset]":
    """The headers as highdicom wants them: one for each slice, or a multi-frame one."""
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


def _built(segmentation: Segmentation, sources: "list[Dataset]") -> "Dataset":
    """The whole file."""
    from highdicom.seg import Segmentation as DicomSegmentation
    from highdicom.seg import SegmentationTypeValues
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    drawn = [index for index, mask in enumerate(segmentation.masks) if mask.any()]
    first = sources[0]
    # highdicom quotes names that it finds odd in warnings.
    patient, first.PatientName = first.PatientName, None
    dataset = DicomSegmentation(
        source_images=sources,
        pixel_array=np.moveaxis(segmentation.masks[drawn], 0, -1).astype(np.uint8),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=_descriptions(segmentation, drawn),
        series_instance_uid=generate_uid(),
        series_number=1000 + int(first.get("SeriesNumber") or 0) % 1000,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="napari-gitract developers",
        manufacturer_model_name="napari-gitract",
        software_versions=__version__,
        device_serial_number="0",
        content_label="CONTOURS",
        content_description=_PURPOSE,
        series_description=_TITLE,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        omit_empty_frames=False,
        specific_character_set="ISO_IR 192",
    )
    dataset.PatientName = patient
    dataset.ContentCreatorName = None
    return dataset


def _descriptions(segmentation: Segmentation, drawn: Sequence[int]) -> "list[SegmentDescription]":
    """What the file says of each segment."""
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
    from highdicom.sr import CodedConcept

    def coded(code: Code) -> CodedConcept:
        return CodedConcept(code.value, code.scheme, code.meaning)

    kind = _algorithm_type(segmentation)
    algorithm = None
    if kind != "MANUAL":
        algorithm = AlgorithmIdentificationSequence(
            name="napari-gitract",
            version=__version__,
            family=coded(_ARTIFICIAL_INTELLIGENCE),
            parameters={
                key: str(segmentation.provenance[key])
                for key in ("model", "weights_sha256")
                if key in segmentation.provenance
            },
        )
    return [
        SegmentDescription(
            segment_number=number,
            segment_label=_written_label(organ),
            segmented_property_category=coded(_LESION if organ.name == "gtv" else _STRUCTURE),
            segmented_property_type=coded(organ.code),
            algorithm_type=SegmentAlgorithmTypeValues(kind),
            algorithm_identification=algorithm,
            display_color=CIELabColor.from_string(organ.color),
        )
        for number, organ in enumerate((segmentation.organs[index] for index in drawn), start=1)
    ]


def _algorithm_type(segmentation: Segmentation) -> str:
    """Who drew: a person, a model, or a person over a model."""
    provenance = segmentation.provenance
    if not provenance.get("model"):
        return "MANUAL"
    baseline = provenance.get("baseline")
    if baseline is not None and len(baseline) == segmentation.shape[0]:
        edited = edited_slices(segmentation.labels().array, baseline)
    else:
        edited = provenance.get("edited", [])
    return "SEMIAUTOMATIC" if edited else "AUTOMATIC"
