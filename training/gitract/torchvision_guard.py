"""Make ``import torchvision`` work beside a torch that it was not built for.

smp, timm and lightning import torchvision, and a torchvision built against another
torch fails with ``operator torchvision::nms does not exist``: the commonest broken
install, after something replaced one of the two. None of our networks needs its compiled
operators, so declaring the missing schemas is enough.
"""

import importlib
import sys
from functools import cache

__all__ = ["ensure_torchvision"]

_KEPT: list[object] = []  # the declarations live as long as the library object does


@cache
def ensure_torchvision() -> None:
    """Import torchvision, declaring its missing operators if that is what it lacks.

    To be called before the first import of smp, timm or lightning. A healthy
    torchvision is left alone.

    Raises
    ------
    RuntimeError
        torchvision fails for another reason.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    else:
        return
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _KEPT.append(library)
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    importlib.import_module("torchvision")
