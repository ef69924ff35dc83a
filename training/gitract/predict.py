"""Scan in, segmentation out."""

from collections.abc import Iterable, Iterator
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
from gitract.preparation import network_input, prepare_slices, to_grid
from gitract.progress import Progress, Report, silent
from gitract.scan import Scan, Segmentation

__all__ = ["Segmenter", "check_finite", "chosen_slices", "masks_of_slices"]

_BATCH = {"cpu": 8, "cuda": 32, "mps": 16}


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


@torch.inference_mode()
def masks_of_slices(
    network: nn.Module,
    prepared: torch.Tensor,
    indices: list[int],
    preparation: Preparation,
    shape: tuple[int, int],
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Run a network over slices, batch by batch.

    Parameters
    ----------
    network
        In evaluation mode, on its device.
    prepared
        What `prepare_slices` gave for the whole scan, on the CPU.
    indices
        Slices wanted.
    preparation
        The model's.
    shape
        ``(rows, columns)`` of the scan.

    Yields
    ------
    tuple of list of int and numpy.ndarray
        The slices of the batch and their masks, bool ``(slice, organ, row, column)``,
        decided on the scan's own grid.
    """
    device = next(network.parameters()).device
    size = _BATCH.get(device.type, 8)
    for first in range(0, len(indices), size):
        batch = indices[first : first + size]
        images = network_input(prepared, batch, preparation).to(
            device, memory_format=torch.channels_last
        )
        yield batch, _masks_on_grid(network(images), shape)


def _masks_on_grid(logits: torch.Tensor, shape: tuple[int, int]) -> np.ndarray:
    """Resample logits ``(slice, organ, row, column)`` and decide: above 0 is above one half.

    Interpolation never exceeds its neighbours, so a map that is nowhere above 0 stays
    empty, and most maps are: they are not resampled.
    """
    masks = np.zeros((*logits.shape[:2], *shape), dtype=np.bool_)
    present = logits.amax(dim=(2, 3)) > 0
    if present.any():
        found = to_grid(logits[present][:, None], shape)[:, 0] > 0
        masks[present.cpu().numpy()] = found.cpu().numpy()
    return masks


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
        self._network = network.to(chosen, memory_format=torch.channels_last)  # type: ignore[call-overload]

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
            Called after each batch, with the slices done.

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
        prepared = prepare_slices(voxels, turn.spacing(scan.spacing), self.config.preparation)
        masks = np.zeros((len(self.config.organs), *scan.shape), dtype=np.bool_)
        done = 0
        for batch, found in masks_of_slices(
            self._network, prepared, indices, self.config.preparation, voxels.shape[1:]
        ):
            masks[:, batch] = turn.back(found).swapaxes(0, 1)
            done += len(batch)
            report(Progress(done, len(indices), f"Segmented {done} of {len(indices)} slices"))
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
