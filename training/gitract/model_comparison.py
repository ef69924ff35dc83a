"""Two models on one scan: what each draws, how far they agree, and who is nearer a reference."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gitract.change import change_between
from gitract.errors import InputError
from gitract.metrics import dice
from gitract.model_store import ModelInfo, ModelStore
from gitract.organs import IGNORE, Organ
from gitract.predict import Segmenter, chosen_slices
from gitract.progress import Progress, Report, silent
from gitract.scan import Scan, Segmentation
from gitract.surface import SurfaceDistances, surface_distances

__all__ = ["Agreement", "Comparison", "ComparedModel", "OrganComparison", "compare"]

_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Agreement:
    """How far two masks of an organ agree.

    Parameters
    ----------
    dice
        None where both are empty.
    hd95_mm
        As `SurfaceDistances.hd95`; None where either is empty.
    """

    dice: float | None
    hd95_mm: float | None


@dataclass(frozen=True)
class OrganComparison:
    """One organ as two models draw it.

    Parameters
    ----------
    organ
        As in the model that has it; organs are the same where their names are.
    volumes_ml
        By the first and the second model; None of one that does not know the organ.
    between
        How far the two agree; None where one does not know the organ.
    against_reference
        How far the first and the second agree with the reference; None where that or the model
        does not know the organ.
    reference_ml
        Volume in the reference.
    """

    organ: Organ
    volumes_ml: tuple[float | None, float | None]
    between: Agreement | None
    against_reference: tuple[Agreement | None, Agreement | None]
    reference_ml: float | None


@dataclass(frozen=True)
class ComparedModel:
    """A model, what it drew, and how long that took.

    Parameters
    ----------
    info
        The version.
    segmentation
        On the scan's grid.
    seconds
        To segment, once it was loaded.
    """

    info: ModelInfo
    segmentation: Segmentation
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """Two models on one scan.

    Parameters
    ----------
    models
        The first and the second.
    slices
        Those that were segmented and measured.
    rows
        The organs that either model knows.
    """

    models: tuple[ComparedModel, ComparedModel]
    slices: tuple[int, ...]
    rows: tuple[OrganComparison, ...]

    @property
    def change(self) -> npt.NDArray[np.uint8]:
        """`change_between` the first and the second, of the organs that both know.

        Returns
        -------
        numpy.ndarray
            uint8 ``(slice, row, column)``.
        """
        both = [row.organ.name for row in self.rows if row.between is not None]
        first, second = (_restricted(model.segmentation, both) for model in self.models)
        return change_between(first, second)

    def as_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        return {
            "models": [
                {"id": model.info.id, "seconds": round(model.seconds, 3)} for model in self.models
            ],
            "slices": list(self.slices),
            "organs": [_row_as_dict(row) for row in self.rows],
        }


def compare(
    scan: Scan,
    first: str | Path,
    second: str | Path,
    reference: Segmentation | None = None,
    *,
    device: str = "auto",
    slices: Iterable[int] | None = None,
    store: ModelStore | None = None,
    report: Report = silent,
) -> Comparison:
    """Segment a scan with two models and measure how they differ.

    Parameters
    ----------
    scan
        What both segment.
    first, second
        Ids of installed versions, or model folders.
    reference
        Contours that are held for right. Voxels that it says to ignore are not measured.
    device
        As of `Segmenter`.
    slices
        0-based slices to segment and to measure; None for all.
    store
        Where versions are looked up; the user's when not given.
    report
        Called as `Segmenter.segment` does, for both models together.

    Raises
    ------
    InputError
        As of `Segmenter` and `Segmenter.segment`, both models are the same, or the reference
        lies on another grid than the scan.
    """
    store = store or ModelStore()
    found = [store.find(model) for model in (first, second)]
    if found[0] == found[1]:
        raise InputError(f"Both models are {found[0].id}: choose two different ones.")
    placed = None if reference is None else reference.on(scan)
    indices = chosen_slices(slices, len(scan.voxels))
    one, other = (
        _segmented(scan, info, device, indices, store, _part_of(report, number, info.id))
        for number, info in enumerate(found)
    )
    report(Progress(0, 0, "Measuring"))
    grid = _Grid(scan, indices, placed)
    rows = []
    for organ in _organs_of(one.segmentation, other.segmentation):
        rows.append(grid.compared(organ, one.segmentation, other.segmentation))
        report(Progress(len(rows), 0, f"Measured {organ.title.lower()}"))
    return Comparison((one, other), tuple(indices), tuple(rows))


def _segmented(
    scan: Scan,
    info: ModelInfo,
    device: str,
    indices: Sequence[int],
    store: ModelStore,
    report: Report,
) -> ComparedModel:
    report(Progress(0, 0, "Loading the model"))
    segmenter = Segmenter(info.path, device=device, store=store)
    begin = time.perf_counter()
    segmentation = segmenter.segment(scan, slices=indices, report=report)
    return ComparedModel(info, segmentation, time.perf_counter() - begin)


def _part_of(report: Report, number: int, model: str) -> Report:
    """A report of one of two jobs that count as one."""

    def in_part(progress: Progress) -> None:
        done = number * progress.total + progress.done
        message = f"{model}: {progress.message}"
        report(replace(progress, done=done, total=2 * progress.total, message=message))

    return in_part


class _Grid:
    """Where two models are measured: the slices that both saw, without what is to be ignored."""

    def __init__(self, scan: Scan, indices: Sequence[int], reference: Segmentation | None) -> None:
        self._spacing = scan.spacing
        self._reference = reference
        ignored = None if reference is None else _mask(reference, IGNORE.name)
        self._runs = [
            (run, None if ignored is None else ~ignored[run]) for run in _runs(sorted(indices))
        ]

    def compared(self, organ: Organ, first: Segmentation, second: Segmentation) -> OrganComparison:
        masks = [_mask(segmentation, organ.name) for segmentation in (first, second)]
        truth = None if self._reference is None else _mask(self._reference, organ.name)
        ml = [self._volume_ml(mask) for mask in (*masks, truth)]
        near = [self._agreement(mask, truth) for mask in masks]
        return OrganComparison(
            organ, (ml[0], ml[1]), self._agreement(*masks), (near[0], near[1]), ml[2]
        )

    def _agreement(self, one: _Mask | None, other: _Mask | None) -> Agreement | None:
        if one is None or other is None:
            return None
        pairs = list(zip(self._seen(one), self._seen(other), strict=True))
        surfaces = SurfaceDistances.pooled(
            surface_distances(*pair, self._spacing) for pair in pairs
        )
        ours, theirs = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
        return Agreement(dice(ours, theirs), surfaces.hd95)

    def _volume_ml(self, mask: _Mask | None) -> float | None:
        if mask is None:
            return None
        voxel_ml = float(np.prod(self._spacing)) / 1000.0
        return voxel_ml * sum(int(np.count_nonzero(part)) for part in self._seen(mask))

    def _seen(self, mask: _Mask) -> list[_Mask]:
        """The mask in each run of slices."""
        return [mask[run] if seen is None else mask[run] & seen for run, seen in self._runs]


def _runs(indices: Sequence[int]) -> list[slice]:
    """Ascending slices as runs of neighbours, between which no surface is measured."""
    runs: list[slice] = []
    for index in indices:
        if runs and runs[-1].stop == index:
            runs[-1] = slice(runs[-1].start, index + 1)
        else:
            runs.append(slice(index, index + 1))
    return runs


def _mask(segmentation: Segmentation, name: str) -> _Mask | None:
    """The mask of an organ; None where it is not among the organs."""
    for organ, mask in zip(segmentation.organs, segmentation.masks, strict=True):
        if organ.name == name:
            return np.asarray(mask)
    return None


def _restricted(segmentation: Segmentation, names: Sequence[str]) -> Segmentation:
    """The organs with these names alone, in that order."""
    organs = {organ.name: organ for organ in segmentation.organs}
    masks = [mask for name in names if (mask := _mask(segmentation, name)) is not None]
    empty = np.zeros((0, *segmentation.shape), np.bool_)
    return replace(
        segmentation,
        masks=np.stack(masks) if masks else empty,
        organs=tuple(organs[name] for name in names),
    )


def _organs_of(*segmentations: Segmentation) -> list[Organ]:
    """The organs of all, each name once."""
    found: dict[str, Organ] = {}
    for segmentation in segmentations:
        for organ in segmentation.organs:
            found.setdefault(organ.name, organ)
    return list(found.values())


def _row_as_dict(row: OrganComparison) -> dict[str, Any]:
    near = [_agreement_as_dict(one) for one in row.against_reference]
    return {
        "organ": row.organ.name,
        "volumes_ml": list(row.volumes_ml),
        "between": _agreement_as_dict(row.between),
        "reference_ml": row.reference_ml,
        "against_reference": near,
    }


def _agreement_as_dict(one: Agreement | None) -> dict[str, float | None] | None:
    return None if one is None else {"dice": one.dice, "hd95_mm": one.hd95_mm}
