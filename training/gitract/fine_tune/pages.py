"""What fine-tuning draws from: prepared slices, and what is known of each."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from gitract.corrections import Corrections
from gitract.model_config import Preparation
from gitract.organs import IGNORE, Organ
from gitract.orientation import Turn, turn_upright
from gitract.preparation import Prepared, prepare_scan, prepare_slice_masks
from gitract.prepared import Stack

__all__ = ["Known", "Page", "ReplayPage", "ReviewedScan", "ScanPage", "reviewed_scan"]


class Known(NamedTuple):
    """What is known of one prepared slice.

    Parameters
    ----------
    masks
        bool ``(organ, row, column)``: a person's contours, or the model's own.
    void
        bool ``(row, column)``: not to be learnt from.
    taught
        bool ``(organ,)``: the contours are a person's.
    remembered
        bool ``(organ,)``: the contours are those of the model before.
    """

    masks: torch.Tensor
    void: torch.Tensor
    taught: torch.Tensor
    remembered: torch.Tensor


class Page(Protocol):
    """A prepared stack from which slices are drawn."""

    @property
    def slices(self) -> torch.Tensor:
        """``(slice, row, column)``, also in half precision."""

    def known(self, place: int) -> Known:
        """What is known of a prepared slice."""


@dataclass(frozen=True, eq=False)
class ReviewedScan:
    """A scan with corrections, upright, and as the network sees it.

    Parameters
    ----------
    corrections
        As they came.
    turn
        What turns the scan's slices upright.
    masks
        bool ``(organ, slice, row, column)`` on the scan's grid, in the order of the model's
        organs.
    ignored
        bool ``(slice, row, column)``.
    organs
        Which organs were reviewed, bool ``(organ,)``, by reviewed slice.
    prepared
        The scan.
    small_masks, small_ignored
        Of each reviewed slice on the network's grid, ``(organ, row, column)`` and
        ``(row, column)``.
    """

    corrections: Corrections
    turn: Turn
    masks: npt.NDArray[np.bool_]
    ignored: npt.NDArray[np.bool_]
    organs: dict[int, npt.NDArray[np.bool_]]
    prepared: Prepared
    small_masks: dict[int, torch.Tensor] = field(repr=False)
    small_ignored: dict[int, torch.Tensor] = field(repr=False)

    @property
    def slices(self) -> tuple[int, ...]:
        """Those that were reviewed."""
        return self.corrections.slices

    def shown(self, index: int) -> npt.NDArray[np.bool_]:
        """Which organs were reviewed on a slice and are there, bool ``(organ,)``."""
        there = np.asarray(self.masks[:, index].any(axis=(1, 2)))
        return there & self.organs[index]

    @property
    def shows_an_organ(self) -> bool:
        """Whether a reviewed slice shows where an organ is, not only where none is."""
        return any(bool(self.shown(index).any()) for index in self.slices)

    @cached_property
    def untouched(self) -> list[int]:
        """Prepared slices that nobody reviewed or rejected."""
        touched = {*self.corrections.slices, *self.corrections.rejected}
        places = {self.prepared.nearest(index) for index in touched}
        return [place for place in range(len(self.prepared.slices)) if place not in places]


def reviewed_scan(
    corrections: Corrections, organs: Sequence[Organ], preparation: Preparation
) -> ReviewedScan:
    """Prepare a scan and its corrections for a model.

    Parameters
    ----------
    corrections
        Their contours lie on the scan's grid.
    organs
        The model's.
    preparation
        The model's.

    Raises
    ------
    InputError
        The slices are not axial.
    """
    scan, reviewed = corrections.scan, list(corrections.slices)
    turn = turn_upright(scan)
    found = [corrections.mask(organ) for organ in organs]
    nothing = np.zeros(scan.shape, dtype=np.bool_)
    masks = turn.upright(np.stack([nothing if mask is None else mask for mask in found]))
    ignored = corrections.mask(IGNORE)
    ignored = turn.upright(nothing if ignored is None else ignored)
    prepared = prepare_scan(turn.upright(scan.voxels), turn.spacing(scan.spacing), preparation)
    small = prepare_slice_masks(masks[:, reviewed], prepared)
    small_ignored = prepare_slice_masks(ignored[None, reviewed], prepared)[0]
    known = {
        index: np.array([
            mask is not None and organ.id in corrections.reviewed(index)
            for organ, mask in zip(organs, found, strict=True)
        ])
        for index in reviewed
    }  # fmt: skip
    return ReviewedScan(
        corrections, turn, masks, ignored, known, prepared,
        dict(zip(reviewed, small.unbind(1), strict=True)),
        dict(zip(reviewed, small_ignored.unbind(0), strict=True)),
    )  # fmt: skip


class ScanPage:
    """A reviewed scan in one training: some of its slices are taught, the others remembered.

    Parameters
    ----------
    scan
        The scan.
    slices
        The reviewed slices to learn from.
    organs
        bool ``(organ,)``: those worth teaching.
    before
        bool ``(slice, organ, row, column)``: contours of the model before, on all prepared
        slices, to be remembered on those that nobody touched; fewer organs where some are new.
        None where nothing is to be remembered.
    """

    def __init__(
        self,
        scan: ReviewedScan,
        slices: Collection[int],
        organs: npt.NDArray[np.bool_],
        before: torch.Tensor | None,
    ) -> None:
        self.slices = scan.prepared.slices
        self.taught = {scan.prepared.nearest(index): index for index in slices}
        self.untouched = [] if before is None else scan.untouched
        self._scan = scan
        self._organs = organs
        self._before = {place: before[place] for place in self.untouched if before is not None}

    def known(self, place: int) -> Known:
        """What is known of a prepared slice; nothing where it is held out or was rejected."""
        count = len(self._organs)
        if place in self.taught:
            index = self.taught[place]
            taught = torch.from_numpy(self._scan.organs[index] & self._organs)
            masks, void = self._scan.small_masks[index], self._scan.small_ignored[index]
            return Known(masks, void, taught, torch.zeros(count, dtype=torch.bool))
        rows, columns = self.slices.shape[1:]
        masks = torch.zeros(count, rows, columns, dtype=torch.bool)
        remembered = torch.zeros(count, dtype=torch.bool)
        if (before := self._before.get(place)) is not None:
            masks[: len(before)] = before
            remembered[: len(before)] = True
        void = torch.zeros(rows, columns, dtype=torch.bool)
        return Known(masks, void, torch.zeros(count, dtype=torch.bool), remembered)


class ReplayPage:
    """A labelled stack of the replay folder.

    Parameters
    ----------
    stack
        Its organs are the first of the model's.
    organs
        How many the model has.
    """

    def __init__(self, stack: Stack, organs: int) -> None:
        self.slices = stack.slices
        self.weight = stack.weight
        places = stack.organ_slices.tolist()
        self.shows_an_organ = bool(places)
        self.places: list[int] = places or list(range(len(stack.slices)))
        self._stack = stack
        self._count = organs

    def known(self, place: int) -> Known:
        """What is known of a prepared slice."""
        own = self._stack.masks[:, place]
        masks = torch.zeros(self._count, *own.shape[1:], dtype=torch.bool)
        masks[: len(own)] = own
        taught = torch.zeros(self._count, dtype=torch.bool)
        taught[: len(own)] = torch.tensor(self._stack.known)
        nothing = torch.zeros(own.shape[1:], dtype=torch.bool)
        return Known(masks, nothing, taught, torch.zeros(self._count, dtype=torch.bool))
