"""What there is to learn from, for people to read before a training starts."""

import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from gitract.labelled import Fault, RunFacts
from gitract.organs import Organ

if TYPE_CHECKING:
    from gitract.prepared import Stack

__all__ = ["DataReport", "OrganReport", "describe"]

_WIDTH = 80
_ROWS = 6
_NAMED = 12
_FEW_SLICES = 10
_LEGEND = (
    "Unknown: scans on which nobody outlined it. Cut: scans at whose border it may go on. "
    "Volumes: mean (range) of the scans without missing slices."
)


@dataclass(frozen=True)
class OrganReport:
    """One organ over all scans.

    Parameters
    ----------
    organ
        ``stomach``.
    patients, scans, slices
        Where it was outlined and is; a single slice counts as a scan.
    unknown_scans
        Scans on which nobody outlined it, so that it is unknown there, not absent.
    ml_mean, ml_least, ml_most
        Its volume in millilitres, over the stacks without a hole that have it; None where
        there is none.
    cut_scans
        Stacks in which it reaches the border of a slice, or the first or last slice.
    """

    organ: str
    patients: int
    scans: int
    slices: int
    unknown_scans: int
    ml_mean: float | None
    ml_least: float | None
    ml_most: float | None
    cut_scans: int


@dataclass(frozen=True)
class DataReport:
    """Labelled data as they are stored, before preparation.

    Parameters
    ----------
    patients, patient_names, scans, slices
        How many, and who; the runs of a scan with holes are one scan.
    single_slices
        How many of the scans are one slice.
    outlined_slices
        How many slices hold an organ.
    organs
        In the recipe's order.
    sizes
        Scans by ``rows x columns``, the most frequent first.
    spacings
        Scans by ``slice x row x column`` in mm, the most frequent first.
    values
        Scans by ``least to largest`` value of any of them: those of up to 8 bits, the others.
    overlap
        Share of the organs' voxels that belong to several.
    few_slices
        Slices of each patient who has fewer than 10.
    not_outlined
        Organs that nobody outlined on any scan.
    faults
        Scan, sentence, and whether it is left out.
    """

    patients: int
    patient_names: tuple[str, ...]
    scans: int
    slices: int
    single_slices: int
    outlined_slices: int
    organs: tuple[OrganReport, ...]
    sizes: dict[str, int]
    spacings: dict[str, int]
    values: dict[str, int]
    overlap: float
    few_slices: dict[str, int]
    not_outlined: tuple[str, ...]
    faults: tuple[Fault, ...]

    def as_dict(self) -> dict[str, object]:
        """JSON-ready."""
        return {**asdict(self), "faults": [fault._asdict() for fault in self.faults]}

    def lines(self) -> list[str]:
        """For a terminal of 80 columns; long lists are cut, `as_dict` has them whole."""
        return [
            *self._summary(),
            "",
            *self._organ_table(),
            "",
            *_counted("Size in pixels", self.sizes),
            *_counted("Voxel in mm", self.spacings),
            *_counted("Values", self.values),
            *self._remarks(),
            *self._fault_lines(),
        ]

    def _summary(self) -> list[str]:
        single = f", {self.single_slices} of them single slices" if self.single_slices else ""
        return _wrapped(
            f"{_many(self.patients, 'patient')}, {_many(self.scans, 'scan')}{single}, "
            f"{_many(self.slices, 'slice')}, {self.outlined_slices} with an organ."
        ) + _wrapped(f"Patients: {_first(list(self.patient_names), _NAMED)}.")

    def _organ_table(self) -> list[str]:
        head = ("Organ", "Patients", "Scans", "Slices", "Unknown", "Volume, mL", "Cut")
        rows = [
            (
                organ.organ,
                str(organ.patients),
                str(organ.scans),
                str(organ.slices),
                str(organ.unknown_scans),
                _volume(organ),
                str(organ.cut_scans),
            )
            for organ in self.organs
        ]
        return [*_table([head, *rows]), *_wrapped(_LEGEND)]

    def _remarks(self) -> list[str]:
        told = []
        if self.overlap:
            told.append(f"{self.overlap:.2%} of the organs' voxels belong to several organs.")
        if self.few_slices:
            patients = [f"{name} ({count})" for name, count in self.few_slices.items()]
            told.append(
                f"Fewer than {_FEW_SLICES} slices: {_many(len(patients), 'patient')}, "
                f"{_first(patients, _ROWS)}."
            )
        if self.not_outlined:
            told.append(f"Nobody outlined {', '.join(self.not_outlined)}: it cannot be learned.")
        return [line for sentence in told for line in _wrapped(sentence)]

    def _fault_lines(self) -> list[str]:
        if not self.faults:
            return ["No faults."]
        out = sum(fault.left_out for fault in self.faults)
        lines = ["", f"Faults: {len(self.faults)}; scans that are left out: {out}."]
        for fault in self.faults[:_ROWS]:
            lines += _wrapped(f"{fault.scan}: {fault.sentence}", "  ")
        if len(self.faults) > _ROWS:
            lines.append(f"  and {len(self.faults) - _ROWS} more")
        return lines


def describe(
    stacks: Sequence["Stack"], organs: Sequence[Organ], faults: Iterable[Fault] = ()
) -> DataReport:
    """Look at what was prepared, by its facts alone.

    Parameters
    ----------
    stacks
        Of `gitract.prepared.prepared_stacks`.
    organs
        The recipe's.
    faults
        What `gitract.labelled.find_labelled` and the preparation told.
    """
    by_scan: dict[str, list[Stack]] = defaultdict(list)
    by_patient: Counter[str] = Counter()
    for stack in stacks:
        by_scan[stack.name].append(stack)
        by_patient[stack.patient] += stack.facts.shape[0]
    facts = [stack.facts for stack in stacks]
    first = [runs[0].facts for runs in by_scan.values()]
    organ_voxels = sum(one.organ_voxels for one in facts)
    reports = tuple(_organ_report(organ.name, by_scan) for organ in organs)
    return DataReport(
        patients=len(by_patient),
        patient_names=tuple(sorted(by_patient)),
        scans=len(by_scan),
        slices=sum(by_patient.values()),
        single_slices=sum(
            len(runs) == 1 and runs[0].facts.shape[0] == 1 for runs in by_scan.values()
        ),
        outlined_slices=sum(one.outlined_slices for one in facts),
        organs=reports,
        sizes=_most_frequent(" x ".join(map(str, one.shape[1:])) for one in first),
        spacings=_most_frequent(" x ".join(f"{mm:.3g}" for mm in one.spacing) for one in first),
        values=_value_ranges(first),
        overlap=sum(one.overlap_voxels for one in facts) / organ_voxels if organ_voxels else 0.0,
        few_slices={name: n for name, n in sorted(by_patient.items()) if n < _FEW_SLICES},
        not_outlined=tuple(one.organ for one in reports if one.unknown_scans == len(by_scan)),
        faults=tuple(faults),
    )


def _organ_report(organ: str, by_scan: dict[str, list["Stack"]]) -> OrganReport:
    patients, scans, slices, unknown, cut = set(), 0, 0, 0, 0
    volumes: list[float] = []
    for runs in by_scan.values():
        own = [one for run in runs for one in run.facts.organs if one.name == organ]
        unknown += not own
        there = [one for one in own if one.slices]
        if not there:
            continue
        patients.add(runs[0].patient)
        scans += 1
        slices += sum(one.slices for one in there)
        if len(runs) == 1 and runs[0].facts.shape[0] > 1:
            volumes.append(there[0].ml)
            cut += there[0].cut
    return OrganReport(
        organ=organ,
        patients=len(patients),
        scans=scans,
        slices=slices,
        unknown_scans=unknown,
        ml_mean=sum(volumes) / len(volumes) if volumes else None,
        ml_least=min(volumes, default=None),
        ml_most=max(volumes, default=None),
        cut_scans=cut,
    )


def _most_frequent(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _value_ranges(facts: Sequence[RunFacts]) -> dict[str, int]:
    groups: dict[bool, list[RunFacts]] = {True: [], False: []}
    for one in facts:
        groups[one.low >= 0 and one.high <= 255].append(one)
    ranges = {}
    for group in filter(None, groups.values()):
        low, high = min(one.low for one in group), max(one.high for one in group)
        ranges[f"{_number(low)} to {_number(high)}"] = len(group)
    return ranges


# --- lines ------------------------------------------------------------------------------


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _number(value: float) -> str:
    return f"{value:.0f}" if value.is_integer() or abs(value) >= 100 else f"{value:.3g}"


def _volume(organ: OrganReport) -> str:
    if organ.ml_mean is None:
        return "-"
    return f"{organ.ml_mean:.0f} ({organ.ml_least:.0f} to {organ.ml_most:.0f})"


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """Columns as wide as they must be, the first to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _counted(title: str, counts: dict[str, int]) -> list[str]:
    """The most frequent values with the number of scans, on few lines."""
    values = [f"{value} ({count})" for value, count in counts.items()]
    return _wrapped(f"{title} (scans): {_first(values, _ROWS)}")


def _first(values: list[str], count: int) -> str:
    more = f" and {len(values) - count} more" if len(values) > count else ""
    return ", ".join(values[:count]) + more


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=indent, subsequent_indent=f"{indent}  ",
        break_on_hyphens=False,
    )  # fmt: skip
