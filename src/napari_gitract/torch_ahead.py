"""Torch's largest libraries, brought into memory while the window goes on.

Python holds all its threads while it maps the libraries of a module, and those of torch take
seconds where they come from a disk. The same call of the system made through ctypes holds none.
"""

import ctypes
import importlib.util
import os
import sys
from contextlib import suppress
from pathlib import Path

__all__ = ["map_torch"]

_CHUNK = 1 << 20  # bytes


def map_torch() -> None:
    """Map what of torch does not need Python, and read the rest once, so that it is at hand.

    Only on Linux: on Windows torch does so itself. What cannot be mapped is left to the import
    of torch, which knows better what to say.
    """
    if "torch" in sys.modules or sys.platform != "linux":
        return
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return
    folder = Path(found.origin).parent / "lib"
    # In torch's own order: the first makes the libraries it stands for visible to all others.
    for name, scope in (
        ("libtorch_global_deps.so", os.RTLD_GLOBAL),
        ("libtorch_cpu.so", os.RTLD_LOCAL),
    ):
        if not _mapped(folder / name, scope):
            return
    with suppress(OSError), (folder / "libtorch_python.so").open("rb", buffering=0) as file:
        while file.read(_CHUNK):
            pass


def _mapped(library: Path, scope: int) -> bool:
    call = ctypes.CDLL(None).dlopen
    call.argtypes, call.restype = [ctypes.c_char_p, ctypes.c_int], ctypes.c_void_p
    return bool(call(os.fsencode(library), os.RTLD_NOW | scope))
