"""What is found in a data folder: labelled scans, and what is wrong with the others."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gitract.progress import Report, silent
from gitract.scan import Scan, Segmentation

if TYPE_CHECKING:
    from gitract.recipe import Source

__all__ = ["Fault", "LabelledRun", "LabelledScan", "OnFault", "unheard"]


class Fault(NamedTuple):
    """Something wrong with a labelled scan.

    Parameters
    ----------
    scan
        Its name, or that of its file where it has none.
    sentence
        What is wrong, and what to do.
    left_out
        Whether the scan is not used for it; else it is used without the faulty part.
    """

    scan: str
    sentence: str
    left_out: bool = True


OnFault = Callable[[Fault], None]
"""Called with each fault as it is met; the job goes on with the next scan."""


def unheard(fault: Fault) -> None:
    """Tell nobody: the default of what takes `OnFault`."""


@dataclass(frozen=True, eq=False)
class LabelledRun:
    """Consecutive slices of one scan, with what was outlined on them.

    Parameters
    ----------
    scan
        Turned as its files have it.
    truth
        On the scan's grid. Its organs are those that were outlined, possibly nowhere on
        these slices; all others are unknown, not absent.
    """

    scan: Scan
    truth: Segmentation


@dataclass(frozen=True, eq=False)
class LabelledScan:
    """A scan with contours, known by names and headers alone.

    Parameters
    ----------
    name
        ``case20_day0``; unique in what was found. Never a person's: where a patient comes
        from DICOM both names are made of hashes.
    patient
        ``case20``. Patients of one name are taken for one, also of several sources.
    files
        Everything that it is read from.
    source
        Of the recipe.
    settings
        JSON-ready: with the names and the content of the files they decide what is read.
    reader
        Reads it; called by `read`.
    """

    name: str
    patient: str
    files: tuple[Path, ...]
    source: "Source"
    settings: Mapping[str, object]
    reader: Callable[[Report], list[LabelledRun]] = field(repr=False)

    def read(self, report: Report = silent) -> list[LabelledRun]:
        """Read voxels and contours.

        Parameters
        ----------
        report
            Called as files are read.

        Returns
        -------
        list of LabelledRun
            One where no slice is missing.

        Raises
        ------
        InputError
            A file is damaged, or scan and contours contradict each other.
        """
        return self.reader(report)

    @property
    def pool(self) -> str:
        """What shares the weight of the source: the patient, or all of a source of pairs."""
        if self.source.kind == "pairs":
            return self.source.path
        return f"{self.source.path}/{self.patient}"
