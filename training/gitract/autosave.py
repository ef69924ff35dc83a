"""Edits that were not saved yet, kept on disk so that a crash cannot take them.

The edits of one label image are one folder, ``HOME/unsaved/<key>/``:

- ``about.json``: what the image is of, who keeps it, and since when (`About`);
- ``labels.npz``: the whole image when the first edit was kept;
- ``slice-0040.npz``: a slice that changed since, as it was last.

A folder appears whole, under a hidden name first, and each file is written beside and
renamed. So whenever a process is killed, each slice is on disk as it was before or as it
was after. The files are compressed, which also gives them a checksum: 40 to 100 kB for the
three organs on 144 slices, and about 1 kB for each slice that was edited.

Folders of processes that live are theirs. The others are found by `unsaved_edits`, and one
of them is taken over by renaming it, which only one process can. Nothing of Qt here.
"""

import io
import json
import os
import shutil
import socket
import time
import uuid
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import psutil
from pydantic import AwareDatetime, Field, ValidationError

from gitract.errors import InputError
from gitract.home import default_home
from gitract.organs import Organ
from gitract.scan import Spacing, Stored
from gitract.strict import StrictModel

__all__ = ["About", "Found", "Keeper", "Kept", "Unsaved", "UnsavedEdits", "unsaved_edits"]

FORMAT = 1
_ABOUT, _LABELS = "about.json", "labels.npz"
_PART, _DELETED = ".part", ".deleted"
_SAME_START_S = 60.0
_REMOVED_AFTER_S = 24 * 3600.0

Labels = npt.NDArray[np.uint8]


class Keeper(StrictModel):
    """The process that keeps edits.

    `started`, in seconds since 1970, tells it from a later one that has its number.
    """

    process: int = Field(gt=0, lt=2**31)
    started: float
    host: str

    @property
    def lives(self) -> bool:
        """Whether it is known to run still; of another host nothing is known."""
        if self.host != socket.gethostname():
            return False
        try:
            started = psutil.Process(self.process).create_time()
        except psutil.NoSuchProcess:
            return False
        except psutil.Error:
            return True  # somebody has that number; who, we may not ask
        # The system's clock may have been set meanwhile.
        return abs(started - self.started) < _SAME_START_S


class About(StrictModel):
    """What edits are of: all that a label image needs to be shown and saved again.

    Parameters
    ----------
    name, shape, spacing, affine, source, slice_numbers, stored, remarks
        As in `gitract.scan.Scan`.
    organs, provenance
        As in `gitract.scan.Segmentation`.
    title
        What the label image was called in the window.
    """

    name: str
    title: str
    shape: tuple[int, int, int]
    spacing: Spacing
    affine: tuple[tuple[float, ...], ...]
    organs: tuple[Organ, ...]
    provenance: dict[str, Any]
    source: Path | None = None
    slice_numbers: tuple[int, ...] | None = None
    stored: Stored | None = None
    remarks: tuple[str, ...] = ()


class Kept(StrictModel):
    """Content of ``about.json``: what is kept, by whom, since when and as of when."""

    format: int = FORMAT
    about: About
    keeper: Keeper
    begun: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    saved: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))


class UnsavedEdits:
    """The folder in which this process keeps the edits of one label image.

    Use `begin`, or `Found.take_over`.
    """

    def __init__(self, folder: Path, kept: Kept) -> None:
        self.folder = folder
        self._kept = kept

    @classmethod
    def begin(cls, about: About, labels: Labels, home: Path | None = None) -> "UnsavedEdits":
        """Keep a label image whole, from now on.

        Parameters
        ----------
        about
            What it is.
        labels
            ``(slice, row, column)``, as it is now.
        home
            Where the user's models and settings are; `default_home` when not given.

        Raises
        ------
        InputError
            The labels do not fit `about`, or there is no room or no right to write.
        """
        if labels.shape != about.shape or labels.dtype != np.uint8:
            raise _misfit(about, f"{labels.dtype} labels of shape {labels.shape}")
        folder = _place(home) / uuid.uuid4().hex
        kept = Kept(about=about, keeper=_this_process())
        partial = folder.with_name(f".{folder.name}{_PART}")
        try:
            partial.mkdir(parents=True)
            _write(partial / _LABELS, _packed(labels))
            _write(partial / _ABOUT, _text(kept))
            partial.rename(folder)
        except OSError as error:
            raise _not_kept(about, folder.parent, error) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return cls(folder, kept)

    @property
    def exists(self) -> bool:
        """Whether the folder is there still: another process may have taken it over."""
        return os.path.exists(self.folder / _ABOUT)

    def save(self, slices: Mapping[int, Labels], about: About | None = None) -> None:
        """Keep the present state of some slices.

        Parameters
        ----------
        slices
            By index, 0-based: ``(row, column)`` labels.
        about
            What the label image is now, where that may have changed.

        Raises
        ------
        InputError
            A slice does not fit, or cannot be written; those that were not written are kept
            as they were before.
        """
        about = about or self._kept.about
        if about.shape != self._kept.about.shape:
            raise _misfit(self._kept.about, f"labels of shape {about.shape}")
        for index, plane in slices.items():
            fits = plane.shape == about.shape[1:] and 0 <= index < about.shape[0]
            if not fits or plane.dtype != np.uint8:
                raise _misfit(about, f"slice {index} of {plane.dtype}, {plane.shape}")
        kept = self._kept.model_copy(update={"about": about, "saved": datetime.now(UTC)})
        try:
            # First what the values mean, then the values: a new organ is never without a name.
            _write(self.folder / _ABOUT, _text(kept))
            for index, plane in slices.items():
                _write(self.folder / _slice_name(index), _packed(plane))
        except OSError as error:
            raise _not_kept(about, self.folder, error) from error
        self._kept = kept

    def forget(self) -> None:
        """Delete the folder, since the label image was saved; it vanishes at once.

        Raises
        ------
        InputError
            It cannot be deleted.
        """
        gone = _deleted_name(self.folder)
        try:
            self.folder.rename(gone)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _not_deleted(self.folder, error) from error
        shutil.rmtree(gone, ignore_errors=True)


class Restored(NamedTuple):
    """A label image ``(slice, row, column)``, and slices whose last edits could not be read."""

    labels: Labels
    damaged: tuple[int, ...]


@dataclass(frozen=True)
class Found:
    """Edits that a process left which is gone."""

    folder: Path
    kept: Kept

    @property
    def about(self) -> About:
        """What they are of."""
        return self.kept.about

    def read(self) -> Restored:
        """The whole label image as it was last kept.

        Where the file of a slice is damaged, the slice is as it was when the first edit was
        kept.

        Raises
        ------
        InputError
            The edits are gone, or nothing can be read.
        """
        try:
            labels = _unpacked(self.folder / _LABELS, self.about.shape)
        except _DAMAGE as error:
            if not os.path.exists(self.folder):
                raise self._gone() from error
            raise InputError(
                f"The unsaved edits of {self.about.name} in {self.folder} are damaged: "
                f"{_LABELS} cannot be read."
            ) from error
        damaged = []
        for index in range(len(labels)):
            try:
                labels[index] = _unpacked(self.folder / _slice_name(index), labels.shape[1:])
            except FileNotFoundError:
                pass  # not edited since
            except _DAMAGE:
                damaged.append(index)
        return Restored(labels, tuple(damaged))

    def take_over(self) -> UnsavedEdits:
        """Make the edits this process's own: they are found by no other any more.

        Raises
        ------
        InputError
            They are gone, since another process was first; or the folder is protected.
        """
        folder = self.folder.with_name(uuid.uuid4().hex)
        kept = self.kept.model_copy(update={"keeper": _this_process()})
        try:
            self.folder.rename(folder)
            _write(folder / _ABOUT, _text(kept))
        except FileNotFoundError as error:
            raise self._gone() from error
        except OSError as error:
            raise _not_kept(self.about, self.folder, error) from error
        return UnsavedEdits(folder, kept)

    def delete(self) -> None:
        """Offer the edits no more; `undelete` brings them back for a day at least.

        Raises
        ------
        InputError
            They are gone, or the folder is protected.
        """
        try:
            self.folder.rename(_deleted_name(self.folder))
            os.utime(_deleted_name(self.folder))  # the day counts from now
        except FileNotFoundError as error:
            raise self._gone() from error
        except OSError as error:
            raise _not_deleted(self.folder, error) from error

    def undelete(self) -> None:
        """Bring back what `delete` took away.

        Raises
        ------
        InputError
            It was removed for good meanwhile.
        """
        try:
            _deleted_name(self.folder).rename(self.folder)
        except OSError as error:
            raise self._gone() from error

    def _gone(self) -> InputError:
        return InputError(
            f"The unsaved edits of {self.about.name} are gone: another window restored or "
            "deleted them."
        )


class Unsaved(NamedTuple):
    """What was found, the last saved first; and a sentence on each folder of no use."""

    found: list[Found]
    left_out: list[str]


def unsaved_edits(home: Path | None = None) -> Unsaved:
    """Edits that were never saved, of processes that are gone. Never raises.

    Those of processes that live on this computer are left to them. Of processes on another
    computer with the same home nothing is known: theirs are among these, and should one of
    them live still it keeps its edits anew when these are taken over.

    What was deleted more than a day ago is removed for good here.
    """
    found: list[Found] = []
    left_out: list[str] = []
    for folder in _folders(_place(home), left_out):
        if folder.name.endswith((_PART, _DELETED)):
            _remove_if_old(folder)
            continue
        try:
            kept = _read_kept(folder)
        except InputError as error:
            left_out.append(str(error))
            continue
        if kept is not None and not kept.keeper.lives:
            found.append(Found(folder, kept))
    found.sort(key=lambda one: one.kept.saved, reverse=True)
    return Unsaved(found, left_out)


def _place(home: Path | None) -> Path:
    return (home or default_home()) / "unsaved"


def _folders(place: Path, left_out: list[str]) -> list[Path]:
    """What is in the place, or a sentence in `left_out`; files are not ours."""
    try:
        return sorted(entry for entry in place.iterdir() if entry.is_dir())
    except FileNotFoundError:
        return []
    except OSError as error:
        left_out.append(f"{place} cannot be looked into ({error.strerror}).")
        return []


def _remove_if_old(folder: Path) -> None:
    """Remove what was deleted, or never became whole, a day ago."""
    with suppress(OSError):
        if time.time() - folder.stat().st_mtime > _REMOVED_AFTER_S:
            shutil.rmtree(folder, ignore_errors=True)


def _read_kept(folder: Path) -> Kept | None:
    """What a folder says of itself; None where it vanished meanwhile.

    Raises
    ------
    InputError
        It is damaged, or of a newer version.
    """
    try:
        content = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        if isinstance(content, dict) and _newer(content.get("format")):
            raise InputError(
                f"The unsaved edits in {folder} were made by a newer version: "
                "update napari-gitract to restore them."
            )
        return Kept.model_validate(content)
    except FileNotFoundError:
        if not folder.exists():
            return None
        reason = f"it has no {_ABOUT}"
    except ValidationError as error:
        reason = f"{_ABOUT}: {error.errors()[0]['msg'].lower()}"
    except (OSError, ValueError) as error:
        reason = str(error)
    raise InputError(
        f"The unsaved edits in {folder} are damaged ({reason}): delete that folder if you can do "
        "without them."
    )


def _newer(found: object) -> bool:
    return isinstance(found, int) and found > FORMAT


@cache
def _own_start(process: int) -> float:
    return psutil.Process(process).create_time()


def _this_process() -> Keeper:
    number = os.getpid()
    return Keeper(process=number, started=_own_start(number), host=socket.gethostname())


def _deleted_name(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}{_DELETED}")


def _slice_name(index: int) -> str:
    return f"slice-{index:04d}.npz"


def _text(kept: Kept) -> bytes:
    return json.dumps(kept.model_dump(mode="json")).encode()


def _packed(labels: Labels) -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, labels=labels)
    return content.getvalue()


_DAMAGE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)


def _unpacked(path: Path, shape: tuple[int, ...]) -> Labels:
    """The labels of a file; raises one of `_DAMAGE`, FileNotFoundError where there is none."""
    with np.load(path, allow_pickle=False) as content:
        labels = content["labels"]
    if labels.shape != shape or labels.dtype != np.uint8:
        raise ValueError(f"{path.name} holds {labels.dtype} of shape {labels.shape}")
    return labels


def _write(path: Path, content: bytes) -> None:
    """Write beside, on the disk itself for the sake of a power cut, and rename."""
    beside = path.with_name(f".{path.name}{_PART}")
    with open(beside, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def _misfit(about: About, what: str) -> InputError:
    return InputError(
        f"The edits of {about.name} cannot be kept: {what} do not fit its uint8 labels of "
        f"shape {about.shape}."
    )


def _not_kept(about: About, place: Path, error: OSError) -> InputError:
    return InputError(
        f"The edits of {about.name} are not kept against a crash, since {place} cannot be written "
        f"({error.strerror or error}): make room there, or save the labels now and then."
    )


def _not_deleted(folder: Path, error: OSError) -> InputError:
    return InputError(f"{folder} cannot be deleted ({error.strerror or error}): delete it by hand.")
