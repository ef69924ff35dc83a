"""Scan in, segmentation out."""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from gitract._version import __version__
from gitract.baseline import slice_digests
from gitract.decision import Decision, tidied
from gitract.devices import choose_device
from gitract.errors import InputError
from gitract.looks import Look, Seen
from gitract.memory import MemoryNeed, free_memory, gigabytes
from gitract.model_config import ModelConfig, Preparation, read_model_config
from gitract.model_store import ModelInfo, ModelStore
from gitract.models import load_network
from gitract.models.ensemble import mean_logits
from gitract.onnx_network import stored_onnx
from gitract.organs import ORGANS
from gitract.orientation import Turn, turn_upright
from gitract.preparation import Prepared, prepare_scan, prepared_size
from gitract.progress import Progress, Report, followed, silent
from gitract.runner import Runner, on_device
from gitract.scan import Scan, Segmentation, Spacing
from gitract.views import Views

__all__ = ["Segmenter", "check_finite", "chosen_slices", "masks_of_slices"]

Arrived = Callable[[list[int], npt.NDArray[np.bool_]], None]

_FLOAT = 4  # bytes
_TIDYING = 8  # bytes of a voxel: the parts of an organ are numbered
_LIBRARIES = 60 << 20  # what they keep to themselves; benchmarks/memory.py measures it
_BATCH = 8  # slices that are brought to the scan's own grid at once
_PROBE = 4
"""Every so many slices are looked at first; those between two silent ones are left out."""
_SILENT = math.log(0.02 / 0.98)  # nowhere does the network give an organ more than 2 %
_WORTH_PROBING = 32  # slices; of fewer nothing is won


def chosen_slices(slices: Iterable[int] | None, count: int) -> list[int]:
    """Slice indices in ascending order, each once; all of them for None.

    Raises
    ------
    InputError
        One of them is not in the scan, or there are none.
    """
    chosen = list(range(count)) if slices is None else sorted(set(slices))
    if not chosen:
        raise InputError("No slice was chosen: choose at least one.")
    for index in (chosen[0], chosen[-1]):
        if not 0 <= index < count:
            raise InputError(f"Slice {index} is not in this scan: it has slices 0 to {count - 1}.")
    return chosen


def check_finite(scan: Scan) -> None:
    """Refuse a scan with voxels that a network cannot take.

    Raises
    ------
    InputError
        A voxel is not a finite number.
    """
    if scan.voxels.dtype.kind == "f" and not all(np.isfinite(one).all() for one in scan.voxels):
        raise InputError(f"{scan.name} holds voxels that are not finite numbers: repair it.")


def masks_of_slices(
    look: Look, indices: Sequence[int]
) -> Iterator[tuple[list[int], npt.NDArray[np.bool_]]]:
    """Outline slices of a scan, batch by batch, deciding on the scan's own grid.

    Parameters
    ----------
    look
        A network's view of the scan.
    indices
        The scan's slices wanted, ascending.

    Yields
    ------
    tuple of list of int and numpy.ndarray
        The slices of the batch and their masks, bool ``(slice, organ, row, column)``:
        where the logit is above 0, which is a probability above one half.
    """
    batches = _batches(indices)
    for batch, seen in zip(batches, look.logits(batches), strict=True):
        yield batch, (seen.logits > 0).cpu().numpy()


def _batches(indices: Sequence[int]) -> list[list[int]]:
    return [sorted(indices[i : i + _BATCH]) for i in range(0, len(indices), _BATCH)]


@dataclass(frozen=True, eq=False)
class _Member:
    """A model, ready to look at scans."""

    info: ModelInfo
    config: ModelConfig
    runner: Runner

    def stack_bytes(self, grids: Sequence[tuple[int, int, int]]) -> int:
        """What a 3-D network's answers for whole stacks take, on its device."""
        if self.config.preparation.patch is None:
            return 0
        return _FLOAT * (len(self.config.organs) + 3) * sum(math.prod(grid) for grid in grids)

    def fit(self, grids: Sequence[tuple[int, int, int]], arrays: int, stacks: int) -> int:
        """Let batch and patch fit beside arrays and stacks; the bytes of its own tensors."""
        grid = max(grids, key=math.prod)
        device = self.runner.device
        free = free_memory(device) - stacks - (arrays if device.type != "cuda" else 0)
        return self.runner.fit((self.config.preparation.channels, *grid[1:]), free)


class Segmenter:
    """A model on a device, ready to outline scans; or several, whose answers are averaged.

    Parameters
    ----------
    model
        Id of an installed version or a model folder; None for the active version. Several
        of them segment by the mean of their probabilities; they may differ in everything
        but the organs.
    device
        ``auto``, ``cpu``, ``cuda[:N]`` or ``mps``.
    store
        Where versions are looked up; the user's when not given.
    decision
        How probabilities become contours.
    views
        How the scan is looked at: test-time augmentation.
    once
        The model is used here and never again, so it is neither kept warm nor translated for
        ONNX Runtime.

    Attributes
    ----------
    model : ModelInfo
        The first.
    config : ModelConfig
        Of the first.
    device : str

    Raises
    ------
    InputError
        No such model or device, a model is damaged, the models outline different organs, or
        the decision does not fit them.
    """

    def __init__(
        self,
        model: str | Path | Sequence[str | Path] | None = None,
        *,
        device: str = "auto",
        store: ModelStore | None = None,
        decision: Decision | None = None,
        views: Views | None = None,
        once: bool = False,
    ) -> None:
        chosen = choose_device(device)
        store = store or ModelStore()
        names = [model] if model is None or isinstance(model, (str, Path)) else list(model)
        load = _loaded if once else _kept
        self._members = [load(store.find(name), chosen, None if once else store.home)
                         for name in names]  # fmt: skip
        self.model, self.config = self._members[0].info, self._members[0].config
        self.device = str(chosen)
        self.decision = decision or Decision()
        self.views = views or Views()
        for member in self._members:
            if member.config.organs != self.config.organs:
                raise InputError(
                    f"{member.info.id} outlines other organs than {self.model.id}: take models "
                    "of the same organs."
                )
        self._thresholds = self.decision.thresholds(self.config.organs)

    def segment(
        self,
        scan: Scan,
        *,
        slices: Iterable[int] | None = None,
        first: int | None = None,
        arrived: Arrived | None = None,
        report: Report = silent,
    ) -> Segmentation:
        """Outline the organs of a scan.

        Parameters
        ----------
        scan
            Its voxels are not changed.
        slices
            0-based slices to outline; the others stay empty. None for all.
        first
            The slice whose neighbourhood is done first.
        arrived
            Called with slices as soon as they are outlined, and their masks ``(slice, organ,
            row, column)`` as on the scan; rules about the whole stack are applied after all
            of them.
        report
            Called after each batch, with the slices done; of a 3-D network with the patches.

        Returns
        -------
        Segmentation
            On the scan's grid. Its provenance names the model, the hash of its weights,
            the software, the time and the slices, and holds the baseline that edits are
            compared with, and ``doubts``, one for each slice of the scan, as of
            `gitract.uncertainty.slice_doubts`.

        Raises
        ------
        InputError
            A slice is not in the scan, a voxel is not a finite number, the slices are not
            axial, or memory is not enough.
        """
        return self._segment(scan, slices, first, arrived, report, None)

    def segment_with_probabilities(
        self,
        scan: Scan,
        *,
        slices: Iterable[int] | None = None,
        first: int | None = None,
        arrived: Arrived | None = None,
        report: Report = silent,
    ) -> tuple[Segmentation, npt.NDArray[np.float16]]:
        """Outline the organs of a scan, as `segment`, and say how sure that is.

        Returns
        -------
        tuple of Segmentation and numpy.ndarray
            The array is float16 ``(organ, slice, row, column)``: probabilities on the scan's
            grid, 0 in slices that were not looked at.
        """
        shape = (len(self.config.organs), *scan.shape)
        probabilities: npt.NDArray[np.float16] = np.zeros(shape, np.float16)
        found = self._segment(scan, slices, first, arrived, report, probabilities)
        return found, probabilities

    def _segment(
        self,
        scan: Scan,
        slices: Iterable[int] | None,
        first: int | None,
        arrived: Arrived | None,
        report: Report,
        probabilities: npt.NDArray[np.float16] | None,
    ) -> Segmentation:
        indices = chosen_slices(slices, len(scan.voxels))
        check_finite(scan)
        need = self.memory_needed(scan, probabilities=probabilities is not None)
        need.check()
        report(Progress(0, len(indices), f"Preparing the scan: {need.told()}"))
        turn = turn_upright(scan)
        voxels, spacing = turn.upright(scan.voxels), turn.spacing(scan.spacing)
        looks = self._looks(voxels, spacing)
        shape = (len(self.config.organs), *scan.shape)
        contours = _Contours(shape, self.decision, self._thresholds, probabilities)
        with_memory = followed(report, f"(about {gigabytes(need.total)} of memory)")
        doubts = [0.0] * len(scan.voxels)
        for batch, seen in _in_good_order(looks, indices, first, contours.least, with_memory):
            found = contours.add(batch, seen.logits, turn)
            for index, doubt in zip(batch, seen.doubts.tolist(), strict=True):
                doubts[index] = round(doubt, 4)
            if arrived is not None:
                arrived(batch, found)
        masks = contours.masks
        if self.decision.tidies:
            masks = tidied(masks, contours.likely, scan.spacing, self.decision, self.config.organs)
        return self._segmentation(scan, masks, {"slices": indices, "doubts": doubts})

    def memory_needed(self, scan: Scan, *, probabilities: bool = False) -> MemoryNeed:
        """What outlining a scan will take, and batches and patches that fit what is free.

        Parameters
        ----------
        scan
            Nothing of it is computed yet.
        probabilities
            Whether they are wanted too.

        Raises
        ------
        InputError
            The slices are not axial.
        """
        turn = turn_upright(scan)
        shape, spacing = turn.upright(scan.voxels).shape, turn.spacing(scan.spacing)
        grids: list[tuple[_Member, list[tuple[int, int, int]]]] = []
        prepared: dict[Preparation, int] = {}
        for member in self._members:
            hows = [view.prepared_as(member.config.preparation) for view in self.views.all]
            sizes = [prepared_size(shape, spacing, how) for how in hows]
            prepared |= {
                how: _FLOAT * math.prod(grid) for how, grid in zip(hows, sizes, strict=True)
            }
            grids.append((member, sizes))
        # While a stack is resampled it stands there with all its slices; then scaled, cropped.
        beside = [_FLOAT * max(shape[0], grid[0]) * grid[1] * grid[2]
                  for _, sizes in grids for grid in sizes]  # fmt: skip
        organs = len(self.config.organs)
        # Masks, the labels made of them, what is likely; probabilities in half precision.
        of_voxel = 2 * organs + (organs if self.decision.hysteresis else 0)
        of_voxel += 2 * organs if probabilities else 0
        of_voxel += _TIDYING if self.decision.tidies else 0
        batch = 3 * _FLOAT * _BATCH * organs * math.prod(shape[1:])
        # Scaled grey values stand beside unscaled ones for a while.
        held = sum(prepared.values()) * (2 if self.views.mirror else 1) + max(beside)
        arrays = of_voxel * math.prod(shape) + batch + held + _LIBRARIES
        # Answers of 3-D networks are summed up for the whole stack, of all looks at once.
        stacks = sum(member.stack_bytes(sizes) for member, sizes in grids)
        network = stacks + max(member.fit(sizes, arrays, stacks) for member, sizes in grids)
        return MemoryNeed(arrays, network, self._members[0].runner.device)

    def _looks(self, voxels: np.ndarray, spacing: Spacing) -> list[Look]:
        """Each model's, in each of the views; what is prepared alike is prepared once."""
        looks = []
        prepared: dict[Preparation, Prepared] = {}
        for member in self._members:
            for view in self.views.all:
                how = view.prepared_as(member.config.preparation)
                if how not in prepared:
                    prepared[how] = prepare_scan(voxels, spacing, how)
                temperature = member.config.temperature
                looks.append(Look(member.runner, prepared[how], how, view.mirrored, temperature))
        return looks

    def _segmentation(
        self, scan: Scan, masks: np.ndarray, beside: dict[str, object]
    ) -> Segmentation:
        provenance: dict[str, object] = {
            "model": self.model.id,
            "weights_sha256": self.config.weights_sha256,
            "software": f"napari-gitract {__version__}",
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            **beside,
        }
        if not {organ.id for organ in self.config.organs} <= {organ.id for organ in ORGANS}:
            provenance["together"] = [organ.id for organ in self.config.organs]
        if len(self._members) > 1:
            provenance["models"] = [
                {"model": member.info.id, "weights_sha256": member.config.weights_sha256}
                for member in self._members
            ]
        if self.decision != Decision():
            provenance["decision"] = self.decision.model_dump(mode="json", exclude_defaults=True)
        if self.views != Views():
            provenance["views"] = self.views.model_dump(mode="json", exclude_defaults=True)
        found = Segmentation(
            masks=masks,
            spacing=scan.spacing,
            affine=scan.affine,
            organs=self.config.organs,
            name=scan.name,
            slice_numbers=scan.slice_numbers,
            stored=scan.stored,
            provenance=provenance,
            remarks=tuple(dict.fromkeys(r for m in self._members for r in m.runner.remarks)),
        )
        # One dictionary, filled in two steps: the baseline is made of the finished labels.
        provenance["baseline"] = slice_digests(found.labels().array)
        return found


class _Contours:
    """Masks ``(organ, slice, row, column)`` that fill up batch by batch; probabilities too.

    `likely` is above the lower threshold of a hysteresis; `least` the lowest logit that
    matters.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        decision: Decision,
        thresholds: Sequence[float],
        probabilities: npt.NDArray[np.float16] | None,
    ) -> None:
        self.masks: npt.NDArray[np.bool_] = np.zeros(shape, dtype=np.bool_)
        self._levels = torch.tensor(thresholds).logit()[:, None, None]
        self.least = float(self._levels.min())
        self.likely: npt.NDArray[np.bool_] | None = None
        if decision.hysteresis is not None:
            self.least = math.log(decision.hysteresis / (1.0 - decision.hysteresis))
            self.likely = np.zeros(shape, dtype=np.bool_)
        self._lower = self.least
        self._probabilities = probabilities
        if probabilities is not None:
            self.least = -math.inf

    def add(self, batch: list[int], logits: torch.Tensor, turn: Turn) -> npt.NDArray[np.bool_]:
        """Decide on slices; their masks ``(slice, organ, row, column)`` as the scan is stored."""
        found = turn.back((logits > self._levels.to(logits)).cpu().numpy())
        self.masks[:, batch] = found.swapaxes(0, 1)
        if self.likely is not None:
            likely = turn.back((logits > self._lower).cpu().numpy())
            self.likely[:, batch] = likely.swapaxes(0, 1)
        if self._probabilities is not None:
            sure = turn.back(logits.sigmoid().half().cpu().numpy())
            self._probabilities[:, batch] = sure.swapaxes(0, 1)
        return found


_warm: OrderedDict[tuple[Path, str, str], _Member] = OrderedDict()
_KEPT_WARM = 2


def _kept(info: ModelInfo, device: torch.device, home: Path | None) -> _Member:
    """A model on a device; the last ones stay there, so that the next scan need not wait."""
    config = read_model_config(info.path)
    key = (info.path.resolve(), config.model_dump_json(), str(device))
    _warm[key] = _warm.pop(key) if key in _warm else _loaded(info, device, home)
    while len(_warm) > _KEPT_WARM:
        _warm.popitem(last=False)
    return _warm[key]


def _loaded(info: ModelInfo, device: torch.device, home: Path | None) -> _Member:
    """A model on a device; in ONNX Runtime on a CPU, if there is a place to keep that in."""
    network, config = load_network(info.path)
    on_cpu = stored_onnx(network, config, home) if home and device.type == "cpu" else None
    runner = Runner(on_device(network, device), config.preparation.patch, on_cpu=on_cpu)
    return _Member(info, config, runner)


def _in_good_order(
    looks: Sequence[Look],
    indices: Sequence[int],
    first: int | None,
    level: float,
    report: Report,
) -> Iterator[tuple[list[int], Seen]]:
    """What the looks see on average, of all slices that may show an organ.

    A few slices spread over the stack come first. Those between two of them on which no
    organ is likely anywhere are left out: the stack is longer than the organs.
    """
    flat = all(look.runner.patch is None for look in looks)
    views, unit = (len(looks), "slices") if flat else (1, "patches")
    total = sum(look.steps(indices) for look in looks)
    steps = 0

    def step(count: int) -> None:
        nonlocal steps
        steps = min(steps + count, total)
        done, of = steps // views, total // views
        report(Progress(done, of, f"Segmented {done} of {of} {unit}"))

    whole = list(indices) == list(range(indices[0], indices[-1] + 1))
    probing = flat and whole and len(indices) >= _WORTH_PROBING
    probes = sorted({*indices[::_PROBE], indices[-1]}) if probing else list(indices)
    silent_ones: set[int] = set()
    limit = min(_SILENT, level) if level > -math.inf else _SILENT
    for batch, seen in _together(looks, _near_first(probes, first), level, step):
        peaks = seen.largest.amax(dim=1).tolist()
        silent_ones |= {i for i, peak in zip(batch, peaks, strict=True) if peak < limit}
        yield batch, seen
    if not probing:
        return
    rest: list[int] = []
    for low, high in pairwise(probes):
        if not {low, high} <= silent_ones:
            rest += range(low + 1, high)
    step((len(indices) - len(probes) - len(rest)) * len(looks))
    yield from _together(looks, _near_first(rest, first), level, step)


def _near_first(indices: Sequence[int], first: int | None) -> list[int]:
    return list(indices) if first is None else sorted(indices, key=lambda i: abs(i - first))


def _together(
    looks: Sequence[Look], indices: Sequence[int], level: float, step: Callable[[int], None]
) -> Iterator[tuple[list[int], Seen]]:
    """Slices, and what the looks see there: mean logits, largest ones, mean doubts."""
    batches = _batches(indices)
    # A mean may be above a level that one of its parts is below.
    kept = level if len(looks) == 1 else -math.inf
    for batch, *answers in zip(
        batches, *(look.logits(batches, kept, step) for look in looks), strict=True
    ):
        device = answers[0].logits.device
        logits = mean_logits([seen.logits.to(device) for seen in answers])
        largest = torch.stack([seen.largest.cpu() for seen in answers]).amax(dim=0)
        doubts = torch.stack([seen.doubts.cpu() for seen in answers]).mean(dim=0)
        yield batch, Seen(logits, largest, doubts)
