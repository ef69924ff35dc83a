"""The organ table: which organs there are, their ids, names and colours.

An id is what stands in a label image. It is never reused or renumbered: new organs
get the next free id.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from gitract.errors import InputError

__all__ = ["ORGANS", "Organ", "organ_named", "organs_from_ids"]


@dataclass(frozen=True)
class Organ:
    """One organ: its value in label images, its name in files, its colour.

    Parameters
    ----------
    id
        Value in a label image, 1 to 255.
    name
        Lower case with underscores, as in the competition: ``large_bowel``.
    color
        ``#rrggbb``.
    """

    id: int
    name: str
    color: str

    @property
    def title(self) -> str:
        """The name as people read it: ``Large bowel``."""
        return self.name.replace("_", " ").capitalize()


ORGANS = (
    Organ(1, "large_bowel", "#e8b13a"),
    Organ(2, "small_bowel", "#3f9ddb"),
    Organ(3, "stomach", "#d9467e"),
)
"""The organs of the UW-Madison GI Tract data, with the ids used everywhere here."""


def organ_named(name: str, organs: Iterable[Organ] = ORGANS) -> Organ:
    """The organ called `name`.

    Raises
    ------
    InputError
        No organ of the table has that name.
    """
    known = tuple(organs)
    for organ in known:
        if organ.name == name:
            return organ
    names = ", ".join(organ.name for organ in known)
    raise InputError(f"Unknown organ {name!r}: this table has {names}.")


def organs_from_ids(ids: Iterable[int], organs: Iterable[Organ] = ORGANS) -> tuple[Organ, ...]:
    """The organs with these `ids`, in the order of the ids given.

    Raises
    ------
    InputError
        An id is not in the table.
    """
    by_id = {organ.id: organ for organ in organs}
    unknown = [i for i in ids if i not in by_id]
    if unknown:
        known = ", ".join(f"{organ.id} {organ.name}" for organ in by_id.values())
        raise InputError(
            f"Label value {unknown[0]} is not in the organ table ({known}): "
            "relabel it or remove it."
        )
    return tuple(by_id[i] for i in ids)
