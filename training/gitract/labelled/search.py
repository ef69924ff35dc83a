"""From the sources of a recipe to the labelled scans of a data folder."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gitract.errors import InputError
from gitract.labelled.competition import find_days
from gitract.labelled.detect import detect_sources
from gitract.labelled.found import Fault, LabelledScan, OnFault, unheard
from gitract.labelled.pairs import find_pairs
from gitract.labelled.scans import find_scans_with_contours
from gitract.organs import ORGANS, Organ
from gitract.progress import Report, silent

if TYPE_CHECKING:
    from gitract.recipe import Source

__all__ = ["chosen_cases", "find_labelled"]


def find_labelled(
    folder: Path,
    sources: Sequence["Source"] = (),
    organs: Sequence[Organ] = ORGANS,
    report: Report = silent,
    on_fault: OnFault = unheard,
) -> list[LabelledScan]:
    """The labelled scans of a data folder, by names and headers alone.

    Parameters
    ----------
    folder
        The data folder.
    sources
        Of a recipe; none: what `detect_sources` finds.
    organs
        Those to be learned; contours of others are left out.
    report
        Called for each scan or file that is looked at.
    on_fault
        Called for each scan that cannot be used, and for faulty parts of others.

    Returns
    -------
    list of LabelledScan
        In the order of the sources; names are unique.

    Raises
    ------
    InputError
        The settings of a source are wrong, its folder is missing, or it has no scan that can
        be used.
    """
    chosen = tuple(sources) or detect_sources(folder)
    places = [folder / source.path for source in chosen]
    found: list[LabelledScan] = []
    for source, place in zip(chosen, places, strict=True):
        if not place.is_dir():
            raise InputError(f"The data folder {place} does not exist.")
        faults: list[Fault] = []
        ones = _find(source, place, organs, faults.append, report, places)
        for fault in faults:
            on_fault(fault)
        if not ones:
            why = f": {faults[0].sentence}" if faults else " that is outlined."
            raise InputError(f"{place} holds no scan{' to learn from' if faults else ''}{why}")
        found += ones
    return _named_apart(found)


def _find(
    source: "Source",
    place: Path,
    organs: Sequence[Organ],
    on_fault: OnFault,
    report: Report,
    places: Collection[Path],
) -> list[LabelledScan]:
    match source.kind:
        case "competition":
            return find_days(source, place, organs, on_fault, report)
        case "pairs":
            return find_pairs(source, place, organs, on_fault, report)
        case "scans":
            return find_scans_with_contours(source, place, organs, on_fault, report, places)


def _named_apart(found: list[LabelledScan]) -> list[LabelledScan]:
    """The same scans, with the source in front of names that come twice, then a count behind."""
    twice = Counter(one.name for one in found)
    given: Counter[str] = Counter()
    named = []
    for one in found:
        name = one.name
        if twice[name] > 1:
            name = f"{one.source.path.replace('/', '_')}_{name}"
        given[name] += 1
        named.append(replace(one, name=name if given[name] == 1 else f"{name}_{given[name]}"))
    return named


def chosen_cases(found: Sequence[LabelledScan], cases: Sequence[str] | None) -> list[LabelledScan]:
    """Only some patients or scans.

    Parameters
    ----------
    found
        Of `find_labelled`.
    cases
        Names of patients, as ``case20``, or of scans, as ``case20_day0``; None for all.

    Raises
    ------
    InputError
        A name is nobody's.
    """
    if cases is None:
        return list(found)
    known = {one.name for one in found} | {one.patient for one in found}
    unknown = [case for case in cases if case not in known]
    if unknown:
        names = sorted({one.name for one in found})
        more = f" and {len(names) - 12} more" if len(names) > 12 else ""
        raise InputError(
            f"There are no labels for {unknown[0]!r}: there are {', '.join(names[:12])}{more}."
        )
    return [one for one in found if {one.name, one.patient} & set(cases)]
