"""From the names that other people give their contours to organs.

The table of synonyms is a YAML file that ships with the package; a file
``organ-names.yaml`` in the user's own folder adds to it and wins over it.
"""

import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path

from gitract.errors import InputError
from gitract.home import default_home
from gitract.organs import KNOWN_ORGANS, Organ

__all__ = ["LEFT_OUT", "OrganNames", "new_organ"]

LEFT_OUT = "-"
"""What a user writes in place of an organ to leave contours out."""

_MAX_ID = 255
# Apart in lightness as well as in hue, for organs that no table has a colour for.
_COLORS = ("#4fc3c7", "#f25f3a", "#a1c181", "#c98bdb", "#66a182", "#b0b7c3", "#7f7caf", "#e6e6fa")


def new_organ(name: str, taken: Iterable[Organ]) -> Organ:
    """An organ with the next free id.

    Parameters
    ----------
    name
        Any text; it becomes lower case with underscores.
    taken
        The organs there are; their ids are not used again.

    Raises
    ------
    InputError
        The name has no letter or digit, or all ids up to 255 are taken.
    """
    slug = re.sub(r"[\W_]+", "_", name.lower()).strip("_")
    if not slug:
        raise InputError(f"{name!r} is no name for an organ: use letters or digits.")
    identity = max((organ.id for organ in taken), default=0) + 1
    if identity > _MAX_ID:
        raise InputError(
            f"There is no id left for {name!r}: a label image holds {_MAX_ID} organs at most."
        )
    return Organ(identity, slug, _COLORS[identity % len(_COLORS)])


class OrganNames:
    """The table of synonyms.

    Parameters
    ----------
    synonyms
        Organ name -> other names for it. Organs that are not in
        `gitract.organs.KNOWN_ORGANS` get the next free ids, in this order.
    """

    def __init__(self, synonyms: Mapping[str, Iterable[str]]) -> None:
        organs = {organ.name: organ for organ in KNOWN_ORGANS}
        self._by_key: dict[str, Organ] = {}
        self._synonyms: dict[str, tuple[str, ...]] = {}
        for name, names in synonyms.items():
            others = list(names)
            organ = organs.get(name) or new_organ(name, organs.values())
            organs[organ.name] = organ
            self._synonyms[organ.name] = tuple(others)
            self._by_key.update({_key(other): organ for other in (name, *others)})
        self.organs: tuple[Organ, ...] = tuple(organs.values())

    @staticmethod
    def user_file(home: Path | None = None) -> Path:
        """Where the user's own table is looked for."""
        return (home or default_home()) / "organ-names.yaml"

    @classmethod
    def load(cls, home: Path | None = None) -> "OrganNames":
        """The table that ships, with the user's own over it.

        Raises
        ------
        InputError
            The user's file cannot be understood.
        """
        shipped = resources.files("gitract").joinpath("organ_names.yaml").read_text("utf-8")
        table = _parsed(shipped, "the table that ships")
        own = cls.user_file(home)
        if own.is_file():
            try:
                text = own.read_text("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(f"{own} cannot be read: save it as UTF-8 text.") from error
            for name, others in _parsed(text, str(own)).items():
                # Last, so that a name that both tables have is the user's.
                table[name] = [*table.pop(name, []), *others]
        return cls(table)

    def synonyms(self, organ: Organ) -> tuple[str, ...]:
        """The other names of an organ in the table."""
        return self._synonyms.get(organ.name, ())

    def find(self, name: str) -> Organ | None:
        """The organ that a name stands for, or None where the table does not have it."""
        return self._by_key.get(_key(name))

    def assign(
        self, names: Iterable[str], choices: Mapping[str, str] | None = None
    ) -> dict[str, Organ | None]:
        """Give each name its organ.

        Parameters
        ----------
        names
            Names of contours or segments, as their file has them.
        choices
            Name -> organ, or ``-`` to leave it out; goes before the table.

        Returns
        -------
        dict
            Name -> organ, None where it is left out. A name that neither `choices` nor
            the table has becomes a new organ with the next free id.

        Raises
        ------
        InputError
            `choices` has a name that is not among `names`, or there are too many organs.
        """
        names, chosen = list(names), dict(choices or {})
        for name in chosen:
            if name not in names:
                raise InputError(
                    f"There are no contours called {name!r}: there are {', '.join(names)}."
                )
        organs = list(self.organs)
        assigned: dict[str, Organ | None] = {}
        for name in names:
            wanted = chosen.get(name, name)
            if wanted == LEFT_OUT:
                assigned[name] = None
                continue
            organ = self.find(wanted)
            if organ is None:
                new = new_organ(wanted, organs)
                # Two unknown names that differ in case alone are one organ.
                organ = next((known for known in organs if known.name == new.name), new)
                organs += [organ] if organ is new else []
            assigned[name] = organ
        return assigned


def _key(name: str) -> str:
    """What two names must share to be the same: letters, and digits not at the end."""
    letters = re.sub(r"[\W_]+", "", name.lower())
    return letters.rstrip("0123456789") or letters


def _parsed(text: str, where: str) -> dict[str, list[str]]:
    import yaml

    try:
        table = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        raise InputError(f"{where} is not YAML at line {line}: correct it.") from error
    if not isinstance(table, dict):
        raise InputError(f"{where} must hold lines such as 'stomach: [gaster, magen]'.")
    for organ, others in table.items():
        if not isinstance(others, list) or not all(isinstance(o, str | int) for o in others):
            raise InputError(
                f"{organ!r} in {where} must be followed by a list, such as [gaster, magen]."
            )
    return {str(organ): [str(other) for other in others] for organ, others in table.items()}
