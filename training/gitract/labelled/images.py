"""Which image files are scans and which are their labels, by folders and file names."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from gitract.io._file_names import stem_of
from gitract.labelled.found import Fault, OnFault

__all__ = ["LAYOUTS", "ImagePair", "image_pairs", "is_image_name", "layout_root", "own_folders"]

LAYOUTS = (
    "images/ and labels/ (or masks/, segmentations/) with files of the same names, nnU-Net's "
    "imagesTr/ and labelsTr/, or NAME_seg.nii.gz (_label, _mask, _segmentation, _gt) beside "
    "NAME.nii.gz"
)
"""What `image_pairs` knows, for errors."""

_SUFFIXES = (".nii", ".nii.gz", ".tif", ".tiff")
_IMAGES_OF = {
    "labels": "images",
    "masks": "images",
    "segmentations": "images",
    "labelstr": "imagestr",
    "labelsts": "imagests",
}
_LABELS = re.compile(r"(.+)[-_](?:seg|labels?|masks?|segmentation|gt)", re.IGNORECASE)
_CHANNEL = re.compile(r"(.+)_\d{4}")  # as nnU-Net numbers the images of one scan
_FIRST = "_0000"

_Place = tuple[tuple[str, ...], str]
"""The folders down to a file and its stem, in lower case."""


class ImagePair(NamedTuple):
    """A scan, its files of labels, and its stem without nnU-Net's number of the channel."""

    scan: Path
    labels: tuple[Path, ...]
    stem: str


def is_image_name(name: str) -> bool:
    """Whether a file can be a NIfTI or a TIFF, by its name."""
    return name.lower().endswith(_SUFFIXES)


def own_folders(path: Path, root: Path) -> list[str]:
    """The folders from `root` down to a file, without those of a layout, which name nobody."""
    layout = {*_IMAGES_OF, *_IMAGES_OF.values()}
    return [part for part in path.relative_to(root).parts[:-1] if part.lower() not in layout]


def layout_root(scan: Path, root: Path) -> Path | None:
    """The folder that holds the ``images/`` that a scan is in; None where it is in none."""
    for parent in scan.parents:
        if parent == root:
            break
        if parent.name.lower() in _IMAGES_OF.values():
            return parent.parent
    return None


def image_pairs(files: Iterable[Path], root: Path, on_fault: OnFault) -> list[ImagePair]:
    """The scans among image files that have labels; nothing is opened.

    Parameters
    ----------
    files
        Image files below `root`.
    on_fault
        Told of labels without a scan, of scans without labels in a folder of labelled ones,
        and of files of one name.
    """
    there: dict[_Place, Path] = {}
    for path in files:
        other = there.setdefault(_place(path, root), path)
        if other != path:
            sentence = f"{path} has the same name as {other.name} and is not used: rename it."
            on_fault(Fault(stem_of(path), sentence))
    labels: dict[Path, list[Path]] = defaultdict(list)
    numbered: set[Path] = set()
    unused = set(there.values())
    for place, path in there.items():
        wanted = list(_scans_of(place))
        scan = next((one for one in wanted if one in there), None)
        if scan is not None:
            labels[there[scan]].append(path)
            numbered |= {there[scan]} if scan[1].endswith(_FIRST) and scan[1] != place[1] else set()
        elif wanted:
            on_fault(Fault(stem_of(path), f"{path} looks like labels whose scan is not there."))
        if wanted:
            unused.discard(path)
    pairs = [
        ImagePair(
            scan,
            tuple(sorted(found)),
            stem_of(scan)[: -len(_FIRST)] if scan in numbered else stem_of(scan),
        )
        for scan, found in sorted(labels.items())
    ]
    for path in _without_labels(sorted(unused), pairs):
        on_fault(Fault(stem_of(path), f"{path} has no labels and is not used."))
    return pairs


def _without_labels(unused: list[Path], pairs: list[ImagePair]) -> Iterator[Path]:
    """What lies among scans with labels and is neither one of them nor another channel of one."""
    folders = {p.scan.parent for p in pairs if p.scan.parent.name.lower() in _IMAGES_OF.values()}
    known = {(pair.scan.parent, pair.stem) for pair in pairs}
    used = {pair.scan for pair in pairs}
    for path in unused:
        channel = _CHANNEL.fullmatch(stem_of(path))
        of_used = channel is not None and (path.parent, channel[1]) in known
        if path.parent in folders and path not in used and not of_used:
            yield path


def _place(path: Path, root: Path) -> _Place:
    folders = path.relative_to(root).parts[:-1]
    return tuple(folder.lower() for folder in folders), stem_of(path).lower()


def _scans_of(place: _Place) -> Iterator[_Place]:
    """Where the scan of a file may be, if the file holds labels by its place or name."""
    folders, stem = place
    match = _LABELS.fullmatch(stem)
    stems = [match[1]] if match else []
    for index in reversed(range(len(folders))):
        if folders[index] in _IMAGES_OF:
            folders = (*folders[:index], _IMAGES_OF[folders[index]], *folders[index + 1 :])
            stems = [stem, *stems]
            break
    for one in stems:
        yield folders, one
        yield folders, one + _FIRST
