"""Scan in, segmentation out."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import nn

from gitract._version import __version__
from gitract.baseline import slice_digests
from gitract.devices import choose_device
from gitract.errors import InputError
from gitract.model_config import Preparation
from gitract.model_store import ModelStore
from gitract.models import load_network
from gitract.orientation import turn_upright
from gitract.patches import logits_by_patches
from gitract.preparation import Prepared, network_input, prepare_scan
from gitract.progress import Progress, Report, silent
from gitract.scan import Scan, Segmentation

__all__ = [
    "Segmenter",
    "check_finite",
    "chosen_slices",
    "masks_of_slices",
    "on_device",
    "prepared_logits",
]

_BATCH = {"cpu": 8, "cuda": 32, "mps": 16}
_PATCHES = {"cpu": 1, "cuda": 4, "mps": 1}


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
    if scan.voxels.dtype.kind == "f" and not np.isfinite(scan.voxels).all():
        raise InputError(f"{scan.name} holds voxels that are not finite numbers: repair it.")


def on_device(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network, in the memory layout that suits 2-D convolutions where it has them."""
    flat = all(parameter.dim() < 5 for parameter in network.parameters())
    layout = torch.channels_last if flat else torch.preserve_format
    return network.to(device, memory_format=layout)  # type: ignore[call-overload]


@torch.inference_mode()
def prepared_logits(
    network: nn.Module,
    slices: torch.Tensor,
    indices: Sequence[int],
    preparation: Preparation,
    report: Report = silent,
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Run a network over prepared slices, batch by batch; a 3-D one patch by patch first.

    Parameters
    ----------
    network
        In evaluation mode, on its device.
    slices
        ``(slice, row, column)`` of `gitract.preparation.Prepared`, all of the stack, on the
        CPU, also in half precision.
    indices
        Slices wanted, ascending.
    preparation
        The model's.
    report
        Called after each batch of slices or patches, with those done.

    Yields
    ------
    tuple of list of int and torch.Tensor
        The slices of the batch and their logits ``(slice, organ, row, column)`` on the
        network's device.
    """
    device = next(network.parameters()).device
    if preparation.patch:
        size = _PATCHES.get(device.type, 1)
        volume = logits_by_patches(
            network, slices, preparation.patch, wanted=indices, batch=size, report=report
        )
        for batch in _batches(indices, device):
            yield batch, volume[:, batch].transpose(0, 1)
        return
    done = 0
    for batch in _batches(indices, device):
        images = network_input(slices, batch, preparation)
        logits = network(images.to(device, memory_format=torch.channels_last))
        done += len(batch)
        report(Progress(done, len(indices), f"Segmented {done} of {len(indices)} slices"))
        yield batch, logits


def _batches(indices: Sequence[int], device: torch.device) -> Iterator[list[int]]:
    size = _BATCH.get(device.type, 8)
    for first in range(0, len(indices), size):
        yield list(indices[first : first + size])


@torch.inference_mode()
def masks_of_slices(
    network: nn.Module,
    prepared: Prepared,
    indices: Sequence[int],
    preparation: Preparation,
    report: Report = silent,
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Outline slices of a scan, batch by batch, deciding on the scan's own grid.

    Parameters
    ----------
    network
        In evaluation mode, on its device.
    prepared
        The scan.
    indices
        The scan's slices wanted, ascending.
    preparation
        The model's.
    report
        Called as by `prepared_logits`.

    Yields
    ------
    tuple of list of int and numpy.ndarray
        The slices of the batch and their masks, bool ``(slice, organ, row, column)``:
        where the logit is above 0, which is a probability above one half.
    """
    needed = prepared.needed(indices)
    found = prepared_logits(network, prepared.slices, needed, preparation, report)
    logits: dict[int, torch.Tensor] = {}
    for batch in _batches(indices, next(network.parameters()).device):
        places = prepared.needed(batch)
        logits = {place: maps for place, maps in logits.items() if place >= places[0]}
        while places[-1] not in logits:
            logits.update(zip(*next(found), strict=True))
        maps = torch.stack([logits[place] for place in places])
        yield batch, (prepared.back(maps, batch) > 0).cpu().numpy()


class Segmenter:
    """A model on a device, ready to outline scans.

    Parameters
    ----------
    model
        Id of an installed version or a model folder; None for the active version.
    device
        ``auto``, ``cpu``, ``cuda[:N]`` or ``mps``.
    store
        Where versions are looked up; the user's when not given.

    Attributes
    ----------
    model : ModelInfo
    device : str

    Raises
    ------
    InputError
        No such model or device, or the model is damaged.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        device: str = "auto",
        store: ModelStore | None = None,
    ) -> None:
        chosen = choose_device(device)
        self.model = (store or ModelStore()).find(model)
        network, self.config = load_network(self.model.path)
        self.device = str(chosen)
        self._network = on_device(network, chosen)

    def segment(
        self, scan: Scan, *, slices: Iterable[int] | None = None, report: Report = silent
    ) -> Segmentation:
        """Outline the organs of a scan.

        Parameters
        ----------
        scan
            Its voxels are not changed.
        slices
            0-based slices to outline; the others stay empty. None for all.
        report
            Called after each batch, with the slices done; of a 3-D network with the patches.

        Returns
        -------
        Segmentation
            On the scan's grid. Its provenance names the model, the hash of its weights,
            the software, the time and the slices, and holds the baseline that edits are
            compared with.

        Raises
        ------
        InputError
            A slice is not in the scan, a voxel is not a finite number, or the slices are
            not axial.
        """
        indices = chosen_slices(slices, len(scan.voxels))
        check_finite(scan)
        report(Progress(0, len(indices), "Preparing the scan"))
        turn = turn_upright(scan)
        voxels = turn.upright(scan.voxels)
        preparation = self.config.preparation
        prepared = prepare_scan(voxels, turn.spacing(scan.spacing), preparation)
        masks = np.zeros((len(self.config.organs), *scan.shape), dtype=np.bool_)
        for batch, found in masks_of_slices(self._network, prepared, indices, preparation, report):
            masks[:, batch] = turn.back(found).swapaxes(0, 1)
        return self._segmentation(scan, masks, indices)

    def _segmentation(self, scan: Scan, masks: np.ndarray, indices: list[int]) -> Segmentation:
        found = Segmentation(
            masks=masks,
            spacing=scan.spacing,
            affine=scan.affine,
            organs=self.config.organs,
            name=scan.name,
            slice_numbers=scan.slice_numbers,
            stored=scan.stored,
            provenance={
                "model": self.model.id,
                "weights_sha256": self.config.weights_sha256,
                "software": f"napari-gitract {__version__}",
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "slices": indices,
            },
        )
        # One dictionary, filled in two steps: the baseline is made of the finished labels.
        found.provenance["baseline"] = slice_digests(found.labels().array)  # type: ignore[index]
        return found
