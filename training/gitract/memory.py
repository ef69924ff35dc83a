"""How much memory there is, and how much a network and a scan will take of it.

A network's part is found without running it: its operations are gone through on torch's
``meta`` device, which knows shapes alone, and every tensor is counted from its making until it
is let go.
"""

import copy
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
_UNLIMITED = 1 << 62


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
        free = free_memory(torch.device("cpu"))
        if need > free and need > free + _free_swap():
            raise InputError(
                f"This needs about {gigabytes(need)} of memory and {gigabytes(free)} are free: "
                "close other programs, or cut the scan into parts."
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


def _free_swap() -> int:
    """What can be moved to disk; none where a limit holds, or where the system does not say."""
    try:
        return 0 if _left_in_group() < _UNLIMITED else int(psutil.swap_memory().free)
    except (OSError, RuntimeError):  # Windows without its performance counters
        return 0


def _left_in_group() -> int:
    """What the limits of a container or a cluster's job leave.

    Linux' control groups, second edition: each group of a process and of its parents may have
    a limit. What was read from files counts as used, but is given up when it is wanted.
    """
    left = _UNLIMITED
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
            cached = sum(int(stated.get(f"{kind}_file", 0)) for kind in ("active", "inactive"))
            left = min(left, limit - used + cached)
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

    Raises
    ------
    RuntimeError
        The network looks at numbers, and can only be run with them.
    """
    weights = [*network.parameters(), *network.buffers()]
    # Its own stay untouched: another thread may be using them.
    without: dict[int, Any] = {id(w): nn.Parameter(w.to("meta"), False) for w in weights}
    weightless = copy.deepcopy(network, without)
    with torch.inference_mode(), _Living() as living:
        images = torch.empty(tuple(shape), device="meta")
        weightless(images)
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
