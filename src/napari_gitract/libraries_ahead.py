"""Large libraries, brought into memory while the window goes on.

Python holds all its threads while it loads a compiled module, which takes seconds where hundreds
of megabytes come from a disk. Reading the file beforehand holds none.
"""

import ctypes
import importlib.util
import os
import sys
from contextlib import suppress
from itertools import chain
from pathlib import Path

__all__ = ["bring_ahead"]

_CHUNK = 1 << 20  # bytes
_READ = {
    # On macOS the second as well; on Linux it is mapped, and Windows maps its own beforehand.
    "torch": ("lib/*torch_python.*", "lib/libtorch_cpu.dylib"),
    "SimpleITK": ("_SimpleITK*",),
}
_TORCH_MAPPED = (
    # In torch's own order: the first makes the libraries it stands for visible to all others,
    # the second stands for those that compute, on the CPU and on a GPU.
    ("libtorch_global_deps.so", "RTLD_GLOBAL"),
    ("libtorch.so", "RTLD_LOCAL"),
)


def bring_ahead(package: str) -> None:
    """Have the largest files of a package at hand, so that its import need not wait for them.

    What cannot be read is left to the import, which knows better what to say.

    Parameters
    ----------
    package
        ``torch`` or ``SimpleITK``. Nothing is done where it is imported already.
    """
    found = None if package in sys.modules else importlib.util.find_spec(package)
    if found is None or found.origin is None:
        return
    folder = Path(found.origin).parent
    if package == "torch" and sys.platform == "linux":
        _map_torch(folder / "lib")
    for path in chain.from_iterable(map(folder.glob, _READ[package])):
        with suppress(OSError), path.open("rb", buffering=0) as file:
            while file.read(_CHUNK):
                pass


def _map_torch(folder: Path) -> None:
    """Map what of torch does not know of Python, by the system's call as Python makes it.

    Through ctypes it holds no thread; an import finds it done.
    """
    call = ctypes.CDLL(None).dlopen
    call.argtypes, call.restype = [ctypes.c_char_p, ctypes.c_int], ctypes.c_void_p
    for name, scope in _TORCH_MAPPED:
        if not call(os.fsencode(folder / name), os.RTLD_NOW | getattr(os, scope)):
            return
