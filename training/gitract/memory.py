"""How much memory there is, and how much a network and a scan will take of it.

A network's part is found without running it: its operations are gone through on torch's
``meta`` device, which knows shapes alone, and every tensor is counted from its making until it
is let go.
"""

import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gitract.errors import InputError

__all__ = ["MemoryNeed", "activation_bytes", "free_memory", "gigabytes"]

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUP = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class MemoryNeed:
    """What outlining a scan takes at the most, in bytes, beside the scan and the model.

    Parameters
    ----------
    arrays
        In the computer's memory: the prepared scan, masks, probabilities.
    network
        Where the network runs: the least that it makes do with.
    device
        Where that is.
    """

    arrays: int
    network: int
    device: torch.device

    @property
    def total(self) -> int:
        return self.arrays + self.network

    def told(self) -> str:
        """For people: how much is needed and how much there is."""
        free = free_memory(torch.device("cpu"))
        if self.device.type == "cpu":
            return f"about {gigabytes(self.total)} of memory needed, {gigabytes(free)} free"
        on_device = f"{gigabytes(self.network)} of {gigabytes(free_memory(self.device))}"
        return (
            f"about {gigabytes(self.arrays)} of memory needed, {gigabytes(free)} free, and "
            f"{on_device} free on {self.device}"
        )

    def check(self) -> None:
        """Refuse what would have the operating system end the program, and all that is open.

        Raises
        ------
        InputError
            The computer's memory cannot hold the arrays.
        """
        need = self.total if self.device.type == "cpu" else self.arrays
        free = free_memory(torch.device("cpu")) + psutil.swap_memory().free
        if need > free:
            raise InputError(
                f"This needs about {gigabytes(need)} of memory and {gigabytes(free)} are free: "
                "close other programs, choose fewer slices, or take a smaller model."
            )


def gigabytes(count: int) -> str:
    """Bytes for people: ``0.6 GB``, ``21 GB``."""
    value = count / 1e9
    return f"{value:.0f} GB" if value >= 10 else f"{value:.1f} GB"


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had on a device; on an Apple GPU those of the computer."""
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + held
    return min(int(psutil.virtual_memory().available), _left_in_group())


def _left_in_group() -> int:
    """What the limits of a container or a cluster's job leave; no limit is a large number.

    Linux' control groups, second edition: each group of a process and of its parents may have
    a limit. What was read from files counts as used, but is given up when it is wanted.
    """
    left = 1 << 62
    try:
        name = _OWN_GROUP.read_text().split("::", 1)[1].strip()
    except (OSError, IndexError):
        return left
    group = _GROUPS / name.lstrip("/")
    for folder in (group, *group.parents):
        if not folder.is_relative_to(_GROUPS):
            break
        with suppress(OSError, ValueError):
            limit = int((folder / "memory.max").read_text())
            used = int((folder / "memory.current").read_text())
            stated = dict(line.split() for line in (folder / "memory.stat").open())
            left = min(left, limit - used + int(stated.get("inactive_file", 0)))
    return left


def activation_bytes(network: nn.Module, shape: Sequence[int]) -> int:
    """The most that a network holds at once while it looks at images, without its weights.

    Parameters
    ----------
    network
        In evaluation mode.
    shape
        Of the images ``(image, channel, …)``, in float32.

    Returns
    -------
    int
        Bytes of the tensors that are alive together, images and answer among them. What a
        library takes for one operation comes on top.
    """
    named = [*network.named_parameters(), *network.named_buffers()]
    weights = {name: tensor.to("meta") for name, tensor in named}
    with torch.inference_mode(), _Living() as living:
        images = torch.empty(tuple(shape), device="meta")
        torch.func.functional_call(network, weights, (images,))
    return living.most


class _Living(TorchDispatchMode):
    """Counts the bytes of all tensors that are made, as long as they live."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ARG002 - torch's signature
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self._now += size
        self.most = max(self.most, self._now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size
