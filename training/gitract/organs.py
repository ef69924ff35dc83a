"""The organ table: which organs there are, their ids, names and colours.

An id is what stands in a label image. It is never reused or renumbered: new organs
get the next free id.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from gitract.errors import InputError

__all__ = ["IGNORE", "KNOWN_ORGANS", "ORGANS", "Code", "Organ", "organ_named", "organs_from_ids"]


class Code(NamedTuple):
    """A coded term as DICOM stores it: SNOMED CT (``SCT``) unless `scheme` says otherwise."""

    value: str
    meaning: str
    scheme: str = "SCT"


_TARGETS = {"gtv", "ctv", "itv", "ptv"}  # known by their initials


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
        """The name as people read it: ``Large bowel``, ``GTV 2``."""
        words = self.name.capitalize().split("_")
        return " ".join(word.upper() if word.lower() in _TARGETS else word for word in words)

    @property
    def code(self) -> Code:
        """The coded term of the anatomy; *Anatomical structure* for what has none here."""
        return _CODES.get(self.name, _ANY_STRUCTURE)


ORGANS = (
    Organ(1, "large_bowel", "#e8b13a"),
    Organ(2, "small_bowel", "#3f9ddb"),
    Organ(3, "stomach", "#d9467e"),
)
"""The organs of the UW-Madison GI Tract data, with the ids used everywhere here."""

KNOWN_ORGANS = (
    *ORGANS,
    Organ(4, "duodenum", "#7ac36a"),
    Organ(5, "esophagus", "#c2885b"),
    Organ(6, "rectum", "#b57edc"),
    Organ(7, "liver", "#a65a49"),
    Organ(8, "gallbladder", "#5fb58f"),
    Organ(9, "pancreas", "#f29f67"),
    Organ(10, "spleen", "#8c6bb1"),
    Organ(11, "kidney_right", "#c9a0c9"),
    Organ(12, "kidney_left", "#9a86c7"),
    Organ(13, "bladder", "#f2e06b"),
    Organ(14, "aorta", "#e0554f"),
    Organ(15, "spinal_cord", "#c6d83f"),
    Organ(16, "body", "#3fb8a5"),
    Organ(17, "gtv", "#ff3b30"),
)
"""Organs that contours of other people often hold, with fixed ids: the models' own first."""

IGNORE = Organ(255, "ignore", "#7f7f7f")
"""Regions that are not to be learnt from; not an organ, and never exported as one."""

# Terms and values from SNOMED CT as DICOM's PS3.16 lists them.
_CODES = {
    "large_bowel": Code("14742008", "Large intestine"),
    "small_bowel": Code("30315005", "Small intestine"),
    "stomach": Code("69695003", "Stomach"),
    "duodenum": Code("38848004", "Duodenum"),
    "esophagus": Code("32849002", "Esophagus"),
    "rectum": Code("34402009", "Rectum"),
    "liver": Code("10200004", "Liver"),
    "gallbladder": Code("28231008", "Gallbladder"),
    "pancreas": Code("15776009", "Pancreas"),
    "spleen": Code("78961009", "Spleen"),
    "kidney_right": Code("9846003", "Right kidney"),
    "kidney_left": Code("18639004", "Left kidney"),
    "bladder": Code("89837001", "Bladder"),
    "aorta": Code("15825003", "Aorta"),
    "spinal_cord": Code("2748008", "Spinal cord"),
    "body": Code("38266002", "Entire body"),
    "gtv": Code("228791009", "Gross Tumor Volume"),
}
_ANY_STRUCTURE = Code("91723000", "Anatomical structure")


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
