"""A crash that two copies of LLVM make together, kept from happening.

On Linux the CUDA build of torch brings triton, and Mesa draws windows in software by LLVM. Each
has a copy of its own, and loading triton's after Mesa's ends the program without a word. Nothing
here compiles networks, which is all that triton is for: torch does without it where it is missing.
"""

import sys
from pathlib import Path

__all__ = ["keep_triton_out"]

_MAPS = Path("/proc/self/maps")  # what this process has loaded, on Linux


def keep_triton_out(maps: Path = _MAPS) -> None:
    """Let this process do without triton, where Mesa's LLVM is there before it.

    Parameters
    ----------
    maps
        The list of what is loaded; on other systems there is none, and nothing to do.
    """
    if "triton" in sys.modules:
        return  # it came first, which does no harm
    try:
        loaded = maps.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    if "libLLVM" in loaded:
        sys.modules["triton"] = None  # type: ignore[assignment]
