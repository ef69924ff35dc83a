"""Labelled scans prepared for a network, kept in a cache of memory-mapped arrays.

An entry of the cache is a folder named by a hash of everything that decides what is in it:
the files' content, the source's settings, the organs, the preparation and the version of this
software. So nothing in it is ever out of date, several trainings can share one cache, and an
entry can be deleted at any time. Preparation takes one scan at a time, and a training maps
what it needs, so memory does not grow with the data.
"""

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.lib import format as npy
from pydantic import ValidationError

from gitract._version import __version__
from gitract.content_hashes import ContentHashes
from gitract.errors import InputError
from gitract.labelled import Fault, LabelledRun, LabelledScan, OnFault, RunFacts, facts_of, unheard
from gitract.model_config import Preparation
from gitract.organs import Organ
from gitract.orientation import turn_upright
from gitract.preparation import prepare_masks, prepare_scan
from gitract.progress import Progress, Report, silent
from gitract.strict import StrictModel

__all__ = ["Stack", "prepared_stacks"]

_FORMAT = 1
_FACTS = "facts.json"
# Which slices go in together changes nothing in them.
_OF_BATCHES = {"neighbours", "stride", "patch"}


@dataclass(frozen=True, eq=False)
class Stack:
    """One labelled run prepared for the network.

    Parameters
    ----------
    name, patient
        Of the scan: ``case20_day0``, ``case20``. The runs of a scan with missing slices share
        its name.
    slices
        float16 ``(slice, row, column)``, memory-mapped: reading loads a page, and what is
        written stays in this process.
    masks
        bool ``(organ, slice, row, column)`` on the same grid, memory-mapped; organs in the
        recipe's order.
    known
        Which of the recipe's organs were outlined.
    weight
        How often the pool is drawn.
    pool
        Stacks with the same pool share its weight.
    organ_slices
        Indices of the slices that hold an organ, ascending.
    facts
        What the run was before preparation.
    """

    name: str
    patient: str
    slices: torch.Tensor
    masks: torch.Tensor
    known: tuple[bool, ...]
    weight: float
    pool: str
    organ_slices: np.ndarray
    facts: RunFacts


def prepared_stacks(
    found: Sequence[LabelledScan],
    organs: Sequence[Organ],
    preparation: Preparation,
    cache: Path,
    report: Report = silent,
    on_fault: OnFault = unheard,
) -> list[Stack]:
    """Prepare labelled scans, or take them from the cache.

    What is returned always comes from the cache, so that a second training gets what the
    first one got.

    Parameters
    ----------
    found
        Of `gitract.labelled.find_labelled`.
    organs
        The recipe's, in its order.
    preparation
        Slices as scanned, or resampled to ``slice_mm``.
    cache
        A folder; made where it is not there.
    report
        Called for each scan.
    on_fault
        Called for each scan that cannot be read or is not axial; it is left out.

    Raises
    ------
    InputError
        No scan can be used, or the cache cannot be written: then nothing half written is left.
    """
    store = _Cache(cache)
    faults: list[Fault] = []

    def attempt(done: int, one: LabelledScan) -> list[Stack]:
        def within(progress: Progress) -> None:
            report(Progress(done, len(found), progress.message))

        try:
            return store.stacks(one, organs, preparation, within)
        except _Unusable as error:
            faults.append(Fault(one.name, str(error)))
            on_fault(faults[-1])
            return []

    with store.hashes:
        usable = []
        for done, one in enumerate(found):
            report(Progress(done, len(found), f"Preparing {one.name}"))
            # Stacks kept between the large arrays of a preparation would fragment the heap.
            if attempt(done, one):
                usable.append(one)
        stacks = [stack for one in usable for stack in attempt(len(found), one)]
    if not stacks:
        why = faults[0].sentence if faults else "none was found."
        raise InputError(f"There is no scan to learn from: {why}")
    report(Progress(len(found), len(found), f"Prepared {len(usable)} scans"))
    return stacks


class _Unusable(Exception):  # noqa: N818 - a fault of one scan, told as such
    """A scan cannot be used."""


class _RunEntry(StrictModel):
    """What an entry says of one run besides its arrays."""

    shape: tuple[int, int, int]
    known: tuple[bool, ...]
    organ_slices: tuple[int, ...]
    facts: RunFacts


class _Entry(StrictModel):
    runs: tuple[_RunEntry, ...]


class _Cache:
    """A folder of prepared scans.

    Attributes
    ----------
    hashes : ContentHashes
        To be entered while `stacks` is called.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._not_written(error) from error
        self.hashes = ContentHashes(self._folder / "hashes.json")

    def stacks(
        self,
        one: LabelledScan,
        organs: Sequence[Organ],
        preparation: Preparation,
        report: Report,
    ) -> list[Stack]:
        """The runs of a scan; prepared now where the entry is not there or damaged."""
        place = self._place(one, organs, preparation)
        # Another process may take a damaged entry away between our writing and our reading.
        for _ in range(3):
            stacks = _loaded(place, one, len(organs))
            if stacks is not None:
                return stacks
            self._make(place, one, organs, preparation, report)
        raise InputError(f"The cache folder {self._folder} changes while it is read: {_CHOOSE}")

    def _place(self, one: LabelledScan, organs: Sequence[Organ], preparation: Preparation) -> Path:
        try:
            files = [[path.name, self.hashes.of(path)] for path in one.files]
        except OSError as error:
            raise _Unusable(
                f"{error.filename} cannot be read ({error.strerror}): "
                "check that it is there and permitted."
            ) from error
        settings = preparation.model_dump(mode="json", exclude=_OF_BATCHES)
        content = [
            _FORMAT, __version__, settings, [organ.name for organ in organs], one.settings, files,
        ]  # fmt: skip
        key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return self._folder / key[:2] / key

    def _make(
        self,
        place: Path,
        one: LabelledScan,
        organs: Sequence[Organ],
        preparation: Preparation,
        report: Report,
    ) -> None:
        partial = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            runs = one.read(report)
        except InputError as error:
            raise _Unusable(str(error)) from error
        try:
            partial.mkdir(parents=True)
            entries = [
                _written(partial, index, run, organs, preparation) for index, run in enumerate(runs)
            ]
            text = _Entry(runs=tuple(entries)).model_dump_json()
            (partial / _FACTS).write_text(text, encoding="utf-8")
            _put(partial, place, lambda: _loaded(place, one, len(organs)) is not None)
        except OSError as error:
            raise self._not_written(error) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _not_written(self, error: OSError) -> InputError:
        reason = error.strerror or str(error)
        return InputError(
            f"The cache folder {self._folder} cannot be written ({reason}): {_CHOOSE}"
        )


_CHOOSE = "make room there, or choose another folder with --cache."


def _put(partial: Path, place: Path, is_whole: Callable[[], bool]) -> None:
    """Rename a finished entry into place, where a damaged one or another process's may be."""
    try:
        partial.rename(place)
        return
    except OSError:  # a folder that is not empty is not renamed over
        if not place.is_dir():
            raise
    if is_whole():  # another process was quicker: with the same key it has the same content
        return
    damaged = partial.with_suffix(".old")
    try:
        with suppress(FileNotFoundError):
            place.rename(damaged)
        partial.rename(place)
    finally:
        shutil.rmtree(damaged, ignore_errors=True)


# --- one run ----------------------------------------------------------------------------


def _written(
    folder: Path, index: int, run: LabelledRun, organs: Sequence[Organ], preparation: Preparation
) -> _RunEntry:
    """Prepare a run and write its arrays."""
    try:
        turn = turn_upright(run.scan)
    except InputError as error:
        raise _Unusable(str(error)) from error
    prepared = prepare_scan(
        turn.upright(run.scan.voxels), turn.spacing(run.scan.spacing), preparation
    )
    outlined = {
        organ.name: mask for organ, mask in zip(run.truth.organs, run.truth.masks, strict=True)
    }
    nothing = np.zeros(run.scan.shape, dtype=np.bool_)
    truth = np.stack([outlined.get(organ.name, nothing) for organ in organs])
    masks = prepare_masks(np.ascontiguousarray(turn.upright(truth)), prepared)
    _write(folder / _slices_file(index), prepared.slices.half().numpy())
    _write(folder / _masks_file(index), masks.numpy())
    slices, rows, columns = prepared.slices.shape
    return _RunEntry(
        shape=(slices, rows, columns),
        known=tuple(organ.name in outlined for organ in organs),
        organ_slices=tuple(np.flatnonzero(masks.numpy().any(axis=(0, 2, 3))).tolist()),
        facts=facts_of(run),
    )


def _slices_file(index: int) -> str:
    return f"{index}-slices.npy"


def _masks_file(index: int) -> str:
    return f"{index}-masks.npy"


def _write(path: Path, array: np.ndarray) -> None:
    """Write a ``.npy``; unlike `numpy.save` it says why where the disk is full."""
    array = np.ascontiguousarray(array)
    with path.open("wb") as file:
        npy.write_array_header_1_0(file, npy.header_data_from_array_1_0(array))
        file.write(array.data)


def _loaded(place: Path, one: LabelledScan, organs: int) -> list[Stack] | None:
    """The stacks of an entry; None where it is not there or damaged."""
    try:
        entry = _Entry.model_validate_json((place / _FACTS).read_text(encoding="utf-8"))
        return [
            Stack(
                name=one.name,
                patient=one.patient,
                slices=_mapped(place / _slices_file(index), run.shape, np.float16),
                masks=_mapped(place / _masks_file(index), (organs, *run.shape), np.bool_),
                known=run.known,
                weight=one.source.weight,
                pool=one.pool,
                organ_slices=np.array(run.organ_slices, dtype=np.int64),
                facts=run.facts,
            )
            for index, run in enumerate(entry.runs)
        ]
    except (OSError, RuntimeError, UnicodeDecodeError, ValidationError, _Damaged):
        return None  # RuntimeError: PyTorch's, where the file goes away before it is mapped


class _Damaged(Exception):  # noqa: N818 - never leaves this module
    """An array is not what its entry says."""


def _mapped(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> torch.Tensor:
    """Map a ``.npy``, so that what is written to it stays here; no file stays open."""
    with path.open("rb") as file:
        begin = _checked_begin(file, shape, np.dtype(dtype))
        size = file.seek(0, 2)
    if size != begin + int(np.prod(shape)) * np.dtype(dtype).itemsize:
        raise _Damaged
    content = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
    kind = torch.float16 if dtype is np.float16 else torch.bool
    return content[begin:].view(kind).view(shape)


def _checked_begin(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Where the values begin, if the header tells the array that is expected."""
    try:
        npy.read_magic(file)
        told = npy.read_array_header_1_0(file)
    except ValueError as error:
        raise _Damaged from error
    if told != (shape, False, dtype):
        raise _Damaged
    return file.tell()
