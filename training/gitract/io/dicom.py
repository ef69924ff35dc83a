"""DICOM series: classic slices and enhanced multi-frame images of MR and CT.

Slices are put in order by their place in the body, never by file names or instance
numbers; a series that is no evenly spaced stack of parallel slices is refused.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gitract.errors import InputError
from gitract.io._dicom_files import (
    RT_STRUCTURE_SET,
    SEGMENTATIONS,
    can_read_folder,
    damage,
    files_in,
    listing_of,
    quiet,
    sop_class_of,
)
from gitract.io._dicom_geometry import Grid, frames_of, grid_of
from gitract.io._dicom_pixels import check_pixels, read_voxels
from gitract.io._dicom_volume import Volume, text_of, volumes_in
from gitract.io._dicom_write import check_scan, copy_series, write_scan
from gitract.io.found import FoundScan, select
from gitract.progress import Report, silent
from gitract.scan import DicomSeries, Scan, Segmentation, Spacing, scaled_affine

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = [
    "can_read_folder",
    "check_scan",
    "copy_series",
    "find_referenced",
    "find_series",
    "headers",
    "kind_of",
    "read_scan",
    "series_of",
    "write_scan",
]


# --- what is there ----------------------------------------------------------------------


def kind_of(path: Path) -> Literal["dicom", "seg", "rtstruct"] | None:
    """What a DICOM file holds, by its SOP class; None for other files; never raises."""
    sop_class = sop_class_of(path)
    if not sop_class:
        return None
    if sop_class in SEGMENTATIONS:
        return "seg"
    return "rtstruct" if sop_class == RT_STRUCTURE_SET else "dicom"


def find_series(path: Path) -> list[FoundScan]:
    """The volumes of a folder, of its subfolders, or of the series of one file.

    Parameters
    ----------
    path
        A folder, searched four levels deep; or one file, which stands for its whole
        series in its folder, and for itself where it is a multi-frame image.

    Returns
    -------
    list of FoundScan
        By series number. A volume that would be refused is among them, with the reason.

    Raises
    ------
    InputError
        `path` is a file that holds no image, or all images are damaged.
    """
    with quiet():
        volumes = _volumes(path, silent)
        found = _described(volumes, path)
        return [
            replace(one, problem=_problem(volume))
            for one, volume in zip(found, volumes, strict=True)
        ]


def _volumes(path: Path | Sequence[Path], report: Report) -> list[Volume]:
    """The volumes that a path stands for."""
    is_file = isinstance(path, Path) and not path.is_dir()
    if isinstance(path, Path):
        files: Sequence[Path] = [path] if is_file else files_in(path)
    else:
        files = path
    volumes, damaged = volumes_in(files, report)
    if damaged and not volumes:
        raise InputError(f"{damaged[0]} is damaged: copy it again from its source.")
    if not is_file:
        return volumes
    if not volumes:
        raise InputError(
            f"{path} is a DICOM file without images: choose the folder or a file of a scan."
        )
    (own,) = volumes
    if own.is_multi_frame:
        return volumes
    near, _ = volumes_in(files_in(files[0].absolute().parent, depth=0), report)
    return [v for v in near if v.series_uid == own.series_uid and not v.is_multi_frame]


def _described(volumes: list[Volume], path: Path) -> list[FoundScan]:
    """What to choose from; whether each can be read is not looked at."""
    seen: Counter[int] = Counter()
    found = []
    for volume in volumes:
        seen[volume.number] += 1
        again = seen[volume.number]
        found.append(
            FoundScan(
                key=f"{volume.number}" if again == 1 else f"{volume.number}-{again}",
                path=path,
                title=volume.title,
                shape=volume.shape,
                date=volume.date,
                remarks=volume.remarks,
            )
        )
    return found


def _problem(volume: Volume) -> str:
    try:
        _checked(volume)
    except InputError as error:
        return str(error)
    return ""


def _checked(volume: Volume) -> Grid:
    """The grid of a volume that can be read, as far as its headers tell."""
    try:
        check_pixels(volume.headers, volume.where)
        if len({text_of(one, "FrameOfReferenceUID") for one in volume.headers.values()}) > 1:
            raise InputError(
                f"{volume.where} lies in several frames of reference, so that nothing says how "
                "its slices lie to each other: export the original series."
            )
        frames = [
            frame for path, header in volume.headers.items() for frame in frames_of(header, path)
        ]
        return grid_of(frames, volume.where)
    except InputError as error:
        if not volume.damaged:
            raise
        raise InputError(
            f"{volume.damaged[0]} is damaged: copy it again from its source, as without it {error}"
        ) from error
    except damage() as error:
        raise InputError(
            f"{volume.where} is damaged, as its headers make no sense: "
            "copy it again from its source."
        ) from error


# --- reading ----------------------------------------------------------------------------


def read_scan(
    path: Path | Sequence[Path],
    *,
    key: str | None = None,
    spacing: Spacing | None = None,
    report: Report = silent,
) -> Scan:
    """Read one volume.

    Parameters
    ----------
    path
        As in `find_series`; or several files, of which one volume is read.
    key
        Which of the volumes that `find_series` finds; not needed where it is one.
    spacing
        ``(slice, row, column)`` in mm, in place of what the files say.
    report
        Called for each file while the series are sorted out, then for each slice.

    Returns
    -------
    Scan
        ``(slice, row, column)``, slices ascending along the normal of the slices (the
        cross product of the directions of rows and columns). Values with slope and
        intercept applied.

    Raises
    ------
    InputError
        There is no volume, `key` chooses none, or it is no evenly spaced stack of
        parallel grey slices of one size, or damaged.
    """
    place = path if isinstance(path, Path) else _common_folder(path)
    with quiet():
        volumes = _volumes(path, report)
        found = _described(volumes, place)
        volume = volumes[found.index(select(found, place, key))]
        return _read(volume, spacing, report)


def _common_folder(files: Sequence[Path]) -> Path:
    folders = [str(file.absolute().parent) for file in files]
    return Path(os.path.commonpath(folders))


_NO_SERIES = (
    "The files lack UIDs, perhaps since they were made anonymous: contours cannot be exported "
    "onto this series as DICOM."
)


def _read(volume: Volume, spacing: Spacing | None, report: Report) -> Scan:
    grid = _checked(volume)
    series = _series(volume, grid)
    remarks = volume.remarks if series else (*volume.remarks, _NO_SERIES)
    source, name = volume.source, volume.name
    return Scan(
        voxels=read_voxels(volume.headers, grid.frames, name, report),
        spacing=spacing or grid.spacing,
        affine=grid.affine if spacing is None else scaled_affine(grid.affine, spacing),
        name=name,
        source=source,
        stored=series,
        remarks=remarks,
    )


def _series(volume: Volume, grid: Grid) -> DicomSeries | None:
    """What contours refer to, or None where something of it is empty."""
    series, study, place = (
        text_of(volume.first, name)
        for name in ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
    )
    images = tuple(frame.image for frame in grid.frames)
    whole = series and study and place and all(image.sop_instance_uid for image in images)
    return DicomSeries(series, study, place, images) if whole else None


# --- what contours refer to -------------------------------------------------------------


def series_of(item: Scan | Segmentation) -> DicomSeries:
    """The DICOM series that a scan was read from, or that contours belong to.

    Raises
    ------
    InputError
        There is none.
    """
    if isinstance(item.stored, DicomSeries):
        return item.stored
    if isinstance(item, Scan):
        raise InputError(
            f"The scan {item.name!r} has no DICOM series with UIDs that contours could refer to: "
            "write it as one (.dcm) and read that first."
        )
    raise InputError(
        f"The labels {item.name!r} belong to no DICOM series: read them with their "
        "scan (--scan, or the scan layer), or write the scan as a DICOM series (.dcm) first."
    )


def headers(series: DicomSeries) -> "list[Dataset]":
    """The whole header, without pixels, of each image file, in the order of the slices.

    Raises
    ------
    InputError
        A file is gone, or is another image by now.
    """
    from pydicom import dcmread

    found: list[Dataset] = []
    for path, instance in {image.path: image.sop_instance_uid for image in series.images}.items():
        try:
            with quiet():
                header = dcmread(path, force=True, stop_before_pixels=True)
                same = header.get("SOPInstanceUID") == instance
        except damage():
            same = False
        if not same:
            raise InputError(
                f"{path} is no longer the image that the scan was read from: read the scan again."
            )
        found.append(header)
    return found


def find_referenced(path: Path, series_uid: str | None, instance_uids: set[str]) -> Scan | None:
    """The scan that contours refer to, where it lies near them.

    Parameters
    ----------
    path
        The file of the contours. Searched are its folder, the folders in it, the folder
        above, and folders beside it that begin with that series.
    series_uid
        Of the scan.
    instance_uids
        Of its images, for contours whose series is not named or is not there.

    Returns
    -------
    Scan or None
        None where it is not there.

    Raises
    ------
    InputError
        It is there and cannot be read.
    """
    folder = path.absolute().parent
    with quiet():
        for files in (
            lambda: files_in(folder, depth=1),
            lambda: files_in(folder.parent, depth=0),
            lambda: _beside(folder, series_uid),
        ):
            volume = _referenced(volumes_in(files())[0], series_uid, instance_uids)
            if volume is not None:
                return _read(volume, None, silent)
    return None


def _referenced(
    volumes: list[Volume], series_uid: str | None, instance_uids: set[str]
) -> Volume | None:
    """The volume of that series, or else with most of those images."""
    wanted = [volume for volume in volumes if series_uid and volume.series_uid == series_uid]
    # Several multi-frame files may be of one series.
    best = max(wanted or volumes, key=lambda one: one.count_of(instance_uids), default=None)
    known = best is not None and (len(wanted) == 1 or best.count_of(instance_uids))
    return best if known else None


def _beside(folder: Path, series_uid: str | None) -> list[Path]:
    """The files of the folders beside one that hold a series, as exports of a study lie."""
    found: list[Path] = []
    for other in listing_of(folder.parent).folders:
        if other != folder:
            first, _ = volumes_in(listing_of(other).files[:1])
            if any(volume.series_uid == series_uid for volume in first):
                found += files_in(other, depth=0)
    return found
