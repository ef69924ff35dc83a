"""What adopting a candidate would change on a scan."""

import numpy as np
import numpy.typing as npt

from gitract.scan import Segmentation

__all__ = ["GAINED", "LOST", "change_between"]

GAINED, LOST = 1, 2


def change_between(before: Segmentation, after: Segmentation) -> npt.NDArray[np.uint8]:
    """What an adoption would change: `GAINED` where only `after` draws an organ, else `LOST`.

    A voxel that goes from one organ to another counts as gained.

    Returns
    -------
    numpy.ndarray
        uint8 ``(slice, row, column)``: 0 where both agree.
    """
    change: npt.NDArray[np.uint8] = np.zeros(before.shape, dtype=np.uint8)
    for old, new in zip(before.masks, after.masks, strict=True):
        change[old & ~new & (change == 0)] = LOST
        change[new & ~old] = GAINED
    return change
