"""Names of organs in recipes and sources."""

import difflib
from collections.abc import Iterable

from gitract.errors import InputError
from gitract.organ_names import LEFT_OUT, OrganNames
from gitract.organs import Organ

__all__ = ["chosen_organ", "named_organ", "named_organs", "table_of"]


def named_organs(names: Iterable[str], where: str) -> tuple[Organ, ...]:
    """The organs that settings name.

    Parameters
    ----------
    names
        As in the table of organs, or one of their synonyms there.
    where
        Whose settings they are, for the error: ``The recipe``.

    Raises
    ------
    InputError
        A name is not in the table: says the nearest that is; or an organ is named twice.
    """
    table = OrganNames.load()
    organs = tuple(named_organ(name, table, where) for name in names)
    for organ in organs:
        if organs.count(organ) > 1:
            raise InputError(f"{where} names the organ {organ.name!r} twice: name it once.")
    return organs


def chosen_organ(name: str, table: OrganNames, where: str) -> Organ | None:
    """The organ that a setting names; None where it says to leave it out.

    Raises
    ------
    InputError
        The name is not in the table.
    """
    return None if name == LEFT_OUT else named_organ(name, table, where)


def table_of(names: OrganNames) -> dict[str, list[str]]:
    """A table of synonyms as JSON: what is read from named contours depends on it."""
    return {organ.name: list(names.synonyms(organ)) for organ in names.organs}


def named_organ(name: str, table: OrganNames, where: str) -> Organ:
    """The organ that a name stands for in a table.

    Raises
    ------
    InputError
        The name is not in the table.
    """
    organ = table.find(name)
    if organ is not None:
        return organ
    known = [organ.name for organ in table.organs]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}" if close else f"the table has {', '.join(known)}"
    raise InputError(
        f"{where} names the unknown organ {name!r}: {hint}, or add it to {OrganNames.user_file()}."
    )
