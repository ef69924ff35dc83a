"""Which reviewed slices are held out together."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

__all__ = ["Place", "held_out_parts", "parts_of"]

T = TypeVar("T")

_NEIGHBOURS = 2  # slices that are this close look alike

Place = tuple[int, int]
"""A scan of the job, by number, and a slice of it."""


def parts_of(
    patients: Sequence[str], slices: Sequence[Sequence[int]], most: int
) -> list[list[Place]]:
    """Divide the reviewed slices of a job for cross-validation.

    Parameters
    ----------
    patients
        Whose each scan is.
    slices
        Reviewed in each of them, ascending.
    most
        Most parts.

    Returns
    -------
    list of list of tuple
        By patient where there are several, else by `held_out_parts`, where the scans of one
        patient are held out at the same height.
    """
    by_patient: dict[str, list[Place]] = {}
    for number, (patient, reviewed) in enumerate(zip(patients, slices, strict=True)):
        places = by_patient.setdefault(patient, [])
        places.extend((number, index) for index in reviewed)
    if len(by_patient) > 1:
        return _shared_out(list(by_patient.values()), most)
    union = sorted({index for reviewed in slices for index in reviewed})
    parts = [
        [(number, i) for number, reviewed in enumerate(slices) for i in reviewed if i in part]
        for part in held_out_parts(union, most)
    ]
    return parts


def held_out_parts(slices: Sequence[int], most: int = 3) -> list[list[int]]:
    """Divide slices into parts for cross-validation, neighbours together.

    Parameters
    ----------
    slices
        0-based, ascending.
    most
        Most parts.

    Returns
    -------
    list of list of int
        At least two parts where there are two slices; empty for a single slice.
    """
    if len(slices) < 2:
        return []
    runs: list[list[int]] = []
    for index in slices:
        if runs and index - runs[-1][-1] <= _NEIGHBOURS:
            runs[-1].append(index)
        else:
            runs.append([index])
    if len(runs) == 1:
        parts = np.array_split(np.array(slices), min(most, len(slices)))
        return [[int(index) for index in part] for part in parts]
    return [sorted(part) for part in _shared_out(runs, most)]


def _shared_out(groups: Sequence[Sequence[T]], most: int) -> list[list[T]]:
    """The longest group goes to the smallest part, so that parts come out alike."""
    parts: list[list[T]] = [[] for _ in range(min(most, len(groups)))]
    for group in sorted(groups, key=len, reverse=True):
        min(parts, key=len).extend(group)
    return parts
