"""One network on one device, that makes do with the memory there is."""

from collections.abc import Sequence

import torch
from torch import nn

from gitract.devices import is_out_of_memory
from gitract.errors import InputError
from gitract.memory import activation_bytes
from gitract.onnx_network import Answer

__all__ = ["PatchTooLarge", "Runner", "on_device"]

_SLICES = {"cpu": 8, "cuda": 32, "mps": 16}
_PATCHES = {"cpu": 1, "cuda": 4, "mps": 1}
_SMALLEST_SIDE = 32  # of a patch; a network sees too little of the body in less
_WORKSPACE = 1.5
"""What libraries take on top of a network's own tensors; benchmarks/memory.py measures it."""
_SHARE = 0.8  # of the free memory: something else may want some meanwhile

Patch = tuple[int, int, int]


def on_device(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network, in the memory layout that suits 2-D convolutions where it has them."""
    flat = all(parameter.dim() < 5 for parameter in network.parameters())
    layout = torch.channels_last if flat else torch.preserve_format
    return network.to(device, memory_format=layout)  # type: ignore[call-overload]


class PatchTooLarge(Exception):  # noqa: N818 - not an error: `Runner.patch` says what fits
    """Not one patch fits into memory; the runner now has a smaller one to begin again with."""


class Runner:
    """Runs a network in batches; lowers what it asks of memory where that is not enough.

    First the batch is halved, then the patch of a 3-D network, then the CPU takes over.

    Parameters
    ----------
    network
        In evaluation mode, on its device. Moved to the CPU when its device is too small.
    patch
        Of a 3-D network: slices, rows and columns that go in at once.
    on_cpu
        The network in a faster form, used while the device is the CPU.

    Attributes
    ----------
    device : torch.device
    size : int
        Images that go in at once.
    patch : tuple of int or None
    """

    def __init__(
        self, network: nn.Module, patch: Patch | None = None, *, on_cpu: Answer | None = None
    ) -> None:
        self.device = next(network.parameters()).device
        self.patch = patch
        self.size = self._usual_size
        self._network = network
        self._on_cpu = on_cpu
        self._own_patch = patch
        self._lowered: tuple[int, Patch | None] | None = None  # what is left after a failure
        self._too_small: torch.device | None = None
        self._estimates: dict[tuple[int, ...], int] = {}

    @property
    def remarks(self) -> list[str]:
        """What had to be lowered, in a sentence for the user."""
        if self._too_small is not None:
            return [f"The memory of {self._too_small} was too small: the CPU took over."]
        if self.patch is not None and self.patch != self._own_patch:
            sides = " x ".join(str(side) for side in self.patch)
            return [f"Memory was short: patches of {sides} voxels were used."]
        return []

    @property
    def _usual_size(self) -> int:
        return (_PATCHES if self.patch else _SLICES).get(self.device.type, 1)

    def fit(self, image: Sequence[int], free: int) -> int:
        """Choose a batch, and if need be a smaller patch, that fits into memory.

        Where not even the smallest fits they are left at that: estimates are careful, and
        what is really too much is met when it happens.

        Parameters
        ----------
        image
            Shape of what the network gets at once: ``(channel, row, column)``. Of a 3-D
            network, which gets patches, only the channels count.
        free
            Bytes.

        Returns
        -------
        int
            Bytes that a batch takes, estimated.
        """
        self.size, self.patch = self._lowered or (self._usual_size, self._own_patch)
        need = self.size * self._image_bytes(image)
        # What is short for other reasons is not won by patches that see less of the body.
        while need > free * _SHARE and (self.size > 1 or free > 0) and self._ask_less():
            need = self.size * self._image_bytes(image)
        return need

    def _image_bytes(self, image: Sequence[int]) -> int:
        shape = (1, image[0], *(self.patch or image[1:]))
        if shape not in self._estimates:
            try:
                found = activation_bytes(self._network, shape)
            except (NotImplementedError, RuntimeError):
                found = 0  # nobody knows: what is too much is met when it happens
            self._estimates[shape] = int(found * _WORKSPACE)
        return self._estimates[shape]

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of images ``(image, channel, …)``: float32 ``(image, organ, …)``, on `device`.

        Raises
        ------
        PatchTooLarge
            A 3-D network must begin again with smaller patches.
        InputError
            Not even one image fits into the memory of the CPU.
        """
        answers: list[torch.Tensor] = []
        done = 0
        while done < len(images):
            part = images[done : done + self.size]
            answer = self._answer_or_none(part)
            if answer is None:  # only here, where nothing holds the failed one's memory any more
                self.lower()
            else:
                answers.append(answer)
                done += len(part)
        return torch.cat([answer.to(self.device) for answer in answers])

    def _answer_or_none(self, images: torch.Tensor) -> torch.Tensor | None:
        try:
            return self._answer(images)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        return None

    def _answer(self, images: torch.Tensor) -> torch.Tensor:
        if self._on_cpu is not None and self.device.type == "cpu":
            return self._on_cpu(images.cpu())
        layout = torch.channels_last if images.ndim == 4 else torch.preserve_format
        images = images.to(self.device, memory_format=layout)
        with torch.autocast(self.device.type, torch.float16, enabled=self.device.type == "cuda"):
            logits: torch.Tensor = self._network(images)
        return logits.float()

    def lower(self) -> None:
        """Ask less of memory from now on.

        Raises
        ------
        PatchTooLarge
            The patch became smaller.
        InputError
            There is nothing left to lower.
        """
        patch = self.patch
        if self._ask_less():
            self._lowered = self.size, self.patch
            if self.patch != patch:
                raise PatchTooLarge
            return
        if self.device.type == "cpu":
            raise InputError(
                "There is not enough memory to segment a single slice: close other programs, or "
                "take a smaller model."
            )
        self._too_small = self.device
        self._lowered = None  # what failed there may fit here
        self._network = on_device(self._network, torch.device("cpu"))
        self.device = torch.device("cpu")

    def _ask_less(self) -> bool:
        """Halve the batch, or else the patch; False where both are as small as they can be."""
        if self.size > 1:
            self.size //= 2
            return True
        if self.patch is None or (smaller := _halved(self.patch)) == self.patch:
            return False
        self.patch = smaller
        return True


def _halved(patch: Sequence[int]) -> Patch:
    """A patch whose longest sides are halved, down to the smallest useful one."""
    longest = max(patch)
    sides = [
        max(side // 16 * 8, _SMALLEST_SIDE) if side == longest > _SMALLEST_SIDE else side
        for side in patch
    ]
    return sides[0], sides[1], sides[2]
