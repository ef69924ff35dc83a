"""Which device a job runs on."""

import platform
import shutil
from typing import TYPE_CHECKING

from gitract.errors import InputError

if TYPE_CHECKING:
    import torch

__all__ = ["choose_device", "is_out_of_memory", "likely_devices"]


def likely_devices() -> list[str]:
    """Devices worth offering in a menu, found without loading torch."""
    devices = ["auto", "cpu"]
    if shutil.which("nvidia-smi"):
        devices.append("cuda")
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        devices.append("mps")
    return devices


def choose_device(name: str = "auto") -> "torch.device":
    """The torch device called `name`; the fastest there is for ``auto``.

    Parameters
    ----------
    name
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises
    ------
    InputError
        torch does not know the name, or the device is not on this machine.
    """
    import torch

    has_mps = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"Unknown device {name!r}: choose auto, cpu, cuda, cuda:N or mps.")
    gpus = torch.cuda.device_count() if device.type == "cuda" else 0
    if device.type == "cuda" and (device.index or 0) >= gpus:
        found = f"only {gpus} CUDA GPU(s)" if gpus else "no CUDA GPU that torch can use"
        raise InputError(f"Device {name!r}: this machine has {found}; choose auto or cpu.")
    if device.type == "mps" and not has_mps:
        raise InputError("Device 'mps': this machine has no Apple GPU; choose auto or cpu.")
    return device


_OUT_OF_MEMORY = (
    "not enough memory", "can't allocate memory", "out of memory", "ALLOC_FAILED",
    "Failed to allocate memory", "bad allocation",
)  # fmt: skip


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or ONNX Runtime ended because memory was not enough.

    A GPU raises a class of its own; a CPU says it in words alone.
    """
    words = str(error)
    return isinstance(error, MemoryError) or any(phrase in words for phrase in _OUT_OF_MEMORY)
