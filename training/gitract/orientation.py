"""How the slices of a scan lie in the patient, and how a network must see them.

Networks learn from slices as they hang on a light box: the patient's front is up, his
right is left. A file may store them otherwise, which its affine tells.
"""

from dataclasses import dataclass

import numpy as np

from gitract.errors import InputError
from gitract.scan import Scan

__all__ = ["Turn", "axes_run_to", "hangs_reversed", "plane_name", "turn_upright"]

# In the patient's coordinates (LPS): where an axis of decreasing and of growing ones runs.
_TOWARDS = (("right", "left"), ("front", "back"), ("feet", "head"))
_PLANES = ("sagittal", "coronal", "axial")


def axes_run_to(affine: np.ndarray) -> tuple[str, str, str]:
    """Where the axes (slice, row, column) run, or nearly run: ``("head", "back", "left")``."""
    towards = []
    for direction in affine[:3, :3].T:
        axis = int(np.abs(direction).argmax())
        towards.append(_TOWARDS[axis][int(direction[axis] > 0)])
    return towards[0], towards[1], towards[2]


def plane_name(affine: np.ndarray) -> str:
    """``axial``, ``coronal`` or ``sagittal``: how the slices lie, or nearly lie."""
    normal = np.cross(affine[:3, 1], affine[:3, 2])
    return _PLANES[int(np.abs(normal).argmax())]


def hangs_reversed(affine: np.ndarray) -> list[int]:
    """Which of the axes 1 (row) and 2 (column) run against how films are hung.

    Rows should run to the patient's back or feet, columns to his left or back.
    """
    towards = axes_run_to(affine)
    return [axis for axis in (1, 2) if towards[axis] in ("front", "head", "right")]


@dataclass(frozen=True)
class Turn:
    """What brings the rows and columns of slices upright; the order of slices stays.

    Parameters
    ----------
    swap
        Rows become columns first.
    flip_rows, flip_columns
        Then these are reversed.
    """

    swap: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    def upright(self, array: np.ndarray) -> np.ndarray:
        """A view of ``(..., row, column)`` as the network must see it."""
        turned = array.swapaxes(-1, -2) if self.swap else array
        return turned[..., :: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]

    def back(self, array: np.ndarray) -> np.ndarray:
        """The inverse of `upright`."""
        turned = array[..., :: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]
        return turned.swapaxes(-1, -2) if self.swap else turned

    def spacing(self, spacing: tuple[float, float, float]) -> tuple[float, float, float]:
        """Spacing ``(slice, row, column)`` of the upright slices."""
        slice_mm, row_mm, column_mm = spacing
        return (slice_mm, column_mm, row_mm) if self.swap else spacing


def turn_upright(scan: Scan) -> Turn:
    """What turns the slices of a scan so that rows run to the back and columns to the left.

    Raises
    ------
    InputError
        The slices are not axial.
    """
    plane = plane_name(scan.affine)
    if plane != "axial":
        raise InputError(
            f"The slices of {scan.name!r} are {plane}, and the models know axial ones: "
            "open an axial series."
        )
    rows, columns = scan.affine[:2, 1], scan.affine[:2, 2]
    swap = bool(abs(rows[1]) < abs(rows[0]))
    to_back, to_left = (columns[1], rows[0]) if swap else (rows[1], columns[0])
    return Turn(swap, bool(to_back < 0), bool(to_left < 0))
