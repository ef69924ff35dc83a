"""Whether an organ goes on beyond what the scan shows."""

import numpy as np

__all__ = ["SIDES", "sides_cut"]

SIDES = (
    ("first slice", "last slice"),
    ("first row", "last row"),
    ("first column", "last column"),
)
"""For each axis of an array ``(slice, row, column)``: its lower and its upper side."""


def sides_cut(mask: np.ndarray) -> tuple[str, ...]:
    """The sides of the field of view that an organ touches, and so may go on beyond.

    Parameters
    ----------
    mask
        One organ, boolean ``(slice, row, column)``.

    Returns
    -------
    tuple of str
        Of `SIDES`, in their order; none where the organ lies inside.
    """
    return tuple(
        side
        for axis, sides in enumerate(SIDES)
        for side, index in zip(sides, (0, -1), strict=True)
        if mask.take(index, axis=axis).any()
    )
