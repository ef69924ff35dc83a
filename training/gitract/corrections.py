"""Slices that a person corrected: what is learnt from, now and again later.

Corrections of a model that was kept stay in the store, so that the next patient's don't
make it forget them. They are kept without anything that tells whose they are: no name, no
path, no date of the scan, no place of the scanner; a number made of the voxels tells two
scans apart.

An entry is one file, ``HOME/corrections/<key>.npz``, which is written beside and renamed: a
crash at any moment leaves the old entry or the new one. Compressed, a scan of 144 slices
takes about 20 MB.
"""

import hashlib
import json
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from gitract.errors import InputError
from gitract.home import default_home
from gitract.labelled.patients import patient_in_name
from gitract.organs import IGNORE, KNOWN_ORGANS, Organ
from gitract.replacing import written_beside
from gitract.review import unreviewed_organs
from gitract.scan import Scan, Segmentation
from gitract.strict import StrictModel

__all__ = ["CorrectionStore", "Corrections", "StoredCorrections"]

_FORMAT = 1
_FIXED_IDS = {organ.id for organ in (*KNOWN_ORGANS, IGNORE)}
_SUFFIX, _PART = ".npz", ".part"


@dataclass(frozen=True, eq=False)
class Corrections:
    """A scan, its contours, and the slices on which a person found them right.

    Parameters
    ----------
    scan
        The whole of it: networks see the neighbours of a slice.
    segmentation
        On the grid of the scan. Its provenance may name organs that were not reviewed
        (`gitract.review.unreviewed_organs`); voxels of `gitract.organs.IGNORE` are not learnt
        from.
    slices
        0-based, ascending.
    patient
        Whose scan it is, where that is known better than its name tells; never kept.
    """

    scan: Scan
    segmentation: Segmentation
    slices: tuple[int, ...]
    patient: str = ""

    @property
    def whose(self) -> str:
        """What is the same for all scans of a patient: ``case20`` of ``case20_day0``."""
        return self.patient or patient_in_name(self.scan.name)

    @property
    def organs(self) -> tuple[Organ, ...]:
        """Those of the contours, without the regions to be ignored."""
        return tuple(organ for organ in self.segmentation.organs if organ.id != IGNORE.id)

    def mask(self, organ: Organ) -> npt.NDArray[np.bool_] | None:
        """The contours of an organ; None where the table does not have it.

        An organ may be called otherwise here, unless its id is one that users give away: two
        scans may have given it to different targets.
        """
        for own, mask in zip(self.segmentation.organs, self.segmentation.masks, strict=True):
            if own.id == organ.id and (own.name == organ.name or own.id in _FIXED_IDS):
                return mask
        return None

    def reviewed(self, index: int) -> set[int]:
        """The ids of the organs that were reviewed on a slice."""
        left_out = unreviewed_organs(self.segmentation.provenance, index)
        return {organ.id for organ in self.organs if organ.name not in left_out}

    @property
    def rejected(self) -> set[int]:
        """Slices that are not to be learnt from in any way."""
        last = len(self.scan.voxels) - 1
        return {
            index for index in self.segmentation.provenance.get("rejected", ()) if index <= last
        }

    @cached_property
    def key(self) -> str:
        """What tells this scan from others, and says nothing about the patient."""
        voxels = self.scan.voxels
        found = hashlib.sha256(f"{voxels.dtype.str} {voxels.shape}".encode())
        for plane in voxels:
            found.update(np.ascontiguousarray(plane).tobytes())
        return found.hexdigest()[:16]


class _About(StrictModel):
    """What an entry says beside its arrays."""

    format: int = _FORMAT
    kept: str
    spacing: tuple[float, float, float]
    directions: tuple[tuple[float, float, float], ...]
    organs: tuple[Organ, ...]
    slices: tuple[int, ...]
    unreviewed: dict[str, list[str]] = {}


@dataclass(frozen=True)
class StoredCorrections:
    """An entry of the store.

    Parameters
    ----------
    key
        As of `Corrections`.
    kept
        The day on which it was kept, ISO 8601.
    organs, slices
        Outlined there, and reviewed.
    megabytes
        On disk.
    """

    key: str
    kept: str
    organs: tuple[Organ, ...]
    slices: tuple[int, ...]
    megabytes: float


class CorrectionStore:
    """The corrections that the models of one user have learnt from.

    Parameters
    ----------
    home
        Where they are kept; `default_home` when not given. Created when needed.
    """

    def __init__(self, home: Path | None = None) -> None:
        self._folder = (home or default_home()) / "corrections"

    def add(self, corrections: Corrections) -> None:
        """Keep corrections; those of the same scan from before are replaced.

        Raises
        ------
        InputError
            The store cannot be written; what was there stays.
        """
        target = self._path(corrections.key)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with written_beside(target) as partial, partial.open("wb") as file:
                np.savez_compressed(file, **_arrays(corrections))
        except OSError as error:
            raise InputError(
                f"The corrections could not be kept in {self._folder}: "
                f"{error.strerror or error}; make room or set GITRACT_HOME to another folder."
            ) from error

    def entries(self) -> list[StoredCorrections]:
        """What is kept, from old to new; damaged entries are left out."""
        found = []
        for path in self._paths():
            with suppress(_Unreadable), _opened(path) as arrays:
                about = _about(arrays)
                size = path.stat().st_size / 1e6
                found.append(
                    StoredCorrections(path.stem, about.kept, about.organs, about.slices, size)
                )
        return sorted(found, key=lambda one: (one.kept, one.key))

    def load(self, without: Sequence[str] = ()) -> list[Corrections]:
        """All that is kept but of some scans; damaged entries are left out.

        Parameters
        ----------
        without
            Keys of scans whose corrections are at hand anew.
        """
        found = []
        for path in self._paths():
            if path.stem not in without:
                with suppress(_Unreadable), _opened(path) as arrays:
                    found.append(_corrections(arrays, path.stem))
        return found

    def forget(self, key: str) -> None:
        """Delete the corrections of one scan, and what a crash left of them.

        Raises
        ------
        InputError
            There are none, or they cannot be deleted.
        """
        if key not in {path.stem for path in self._paths()}:
            raise InputError(f"There are no corrections {key!r}: list them first.")
        try:
            for left in self._folder.glob(f".{key}.*{_PART}"):
                left.unlink()
            self._path(key).unlink()
        except OSError as error:
            raise InputError(f"{self._path(key)} cannot be deleted: {error.strerror}.") from error

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}{_SUFFIX}"

    def _paths(self) -> list[Path]:
        try:
            return sorted(
                path for path in self._folder.iterdir()
                if path.suffix == _SUFFIX and not path.name.startswith(".")
            )  # fmt: skip
        except OSError:  # none yet, or not ours to look into
            return []


class _Unreadable(Exception):  # noqa: N818 - never leaves this module
    """An entry is damaged, or of a newer version."""


_DAMAGE = (  # what the readers of zip files, arrays and JSON raise
    OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, NotImplementedError,
    RuntimeError, MemoryError, SyntaxError, BadZipFile, zlib.error, struct.error, InputError,
)  # fmt: skip


@contextmanager
def _opened(path: Path) -> Iterator[Mapping[str, np.ndarray]]:
    """The arrays of an entry; whatever is wrong with it is `_Unreadable`."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            yield arrays
    except _DAMAGE as error:
        raise _Unreadable from error


def _arrays(corrections: Corrections) -> dict[str, Any]:
    scan, segmentation = corrections.scan, corrections.segmentation
    given = segmentation.provenance.get("unreviewed", {})
    about = _About(
        kept=datetime.now(UTC).date().isoformat(),
        spacing=scan.spacing,
        directions=tuple(tuple(row) for row in scan.affine[:3, :3].tolist()),
        organs=segmentation.organs,
        slices=corrections.slices,
        unreviewed={str(key): sorted(names) for key, names in given.items()},
    )
    return {
        "about": np.frombuffer(about.model_dump_json().encode(), np.uint8),
        "voxels": scan.voxels,
        "masks": segmentation.masks[:, list(corrections.slices)],
    }


def _about(arrays: Mapping[str, np.ndarray]) -> _About:
    content = json.loads(arrays["about"].tobytes())
    if content["format"] > _FORMAT:
        raise _Unreadable
    return _About.model_validate(content)


def _corrections(arrays: Mapping[str, np.ndarray], key: str) -> Corrections:
    about, voxels = _about(arrays), arrays["voxels"]
    affine = np.eye(4)
    affine[:3, :3] = about.directions
    masks = np.zeros((len(about.organs), *voxels.shape), dtype=np.bool_)
    masks[:, list(about.slices)] = arrays["masks"]
    contours = Segmentation(
        masks, about.spacing, affine, about.organs, key,
        provenance={"unreviewed": about.unreviewed},
    )  # fmt: skip
    return Corrections(Scan(voxels, about.spacing, affine, name=key), contours, about.slices)
