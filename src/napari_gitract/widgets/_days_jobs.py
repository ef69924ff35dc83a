"""What the widget of the treatment days computes off the GUI thread.

What that needs is imported by the first job: it takes longer than to open the widget.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Image

from gitract.baseline import slice_digests
from gitract.progress import Progress, Report, prefixed
from gitract.scan import Segmentation
from napari_gitract.jobs import loading_libraries
from napari_gitract.layers import contrast_limits
from napari_gitract.prediction import Prediction
from napari_gitract.widgets._days_open import StillDay
from napari_gitract.widgets._days_shown import LaidDay

if TYPE_CHECKING:
    from gitract.days import Alignment, DayTable

__all__ = ["Alignments", "Carried", "Compared", "carried", "compared", "laid"]


class Alignments:
    """The alignments of the scans of a viewer: each is looked for once."""

    def __init__(self) -> None:
        self._found: WeakKeyDictionary[Image, WeakKeyDictionary[Image, _Found]] = (
            WeakKeyDictionary()
        )

    def of(self, moving: StillDay, fixed: StillDay, report: Report) -> "Alignment":
        """The alignment of a day to another, found now or before."""
        to_fixed = self._found.setdefault(moving.image, WeakKeyDictionary())
        known = to_fixed.get(fixed.image)
        pair = moving.scan.voxels, fixed.scan.voxels
        if known is None or known.moving is not pair[0] or known.fixed is not pair[1]:
            report(Progress(0, 0, "Loading the alignment"))
            with loading_libraries("SimpleITK"):
                import SimpleITK  # noqa: F401

                from gitract.days import align

            alignment = align(moving.scan, fixed.scan, report=report)
            known = to_fixed[fixed.image] = _Found(*pair, alignment)
        # The user may have given the layers other names since.
        return replace(known.alignment, moving=moving.scan.name, fixed=fixed.scan.name)


class _Found(NamedTuple):
    moving: np.ndarray
    fixed: np.ndarray
    alignment: "Alignment"


class Compared(NamedTuple):
    """What was found, and the digests of each day's contours as they were then."""

    table: "DayTable"
    digests: tuple[list[str], ...]


def compared(days: Sequence[StillDay], alignments: Alignments, report: Report) -> Compared:
    """Compare days with the first of them."""
    from gitract.days import compare_days

    first = days[0]
    found = [alignments.of(day, first, report) for day in days[1:]]
    read = [day.read() for day in days]
    table = compare_days([day for day, _ in read], found, report=report)
    return Compared(table, tuple(slice_digests(labels) for _, labels in read))


class Carried(NamedTuple):
    """Contours on another day, the same flattened, and what to compare edits of these with."""

    contours: Segmentation
    labels: np.ndarray
    prediction: Prediction


def carried(earlier: StillDay, today: StillDay, alignments: Alignments, report: Report) -> Carried:
    """Put the contours of an earlier day onto today's scan."""
    from gitract.days import propagated

    alignment = alignments.of(earlier, today, report)
    day, _ = earlier.read()
    contours = propagated(day.contours, alignment, today.scan, report=report)
    labels = contours.labels().array
    return Carried(contours, labels, Prediction(labels))


def laid(
    others: Sequence[tuple[StillDay, int]],
    today: StillDay,
    alignments: Alignments,
    report: Report,
) -> list[LaidDay]:
    """Today, and other days on the grid of its scan, with their contours where they have any.

    Parameters
    ----------
    others
        Each with how many days later than today it is.
    today, alignments, report
        The scan that they are laid upon; what is known of how; progress.
    """
    from gitract.days import propagated, resampled

    voxels = today.scan.voxels
    days = [LaidDay(today.scan.name, voxels, contrast_limits(voxels))]
    for other, place in others:
        told = prefixed(report, other.scan.name) if len(others) > 1 else report
        alignment = alignments.of(other, today, told)
        voxels = resampled(other.scan, alignment, today.scan, report=told)
        day = LaidDay(other.scan.name, voxels, contrast_limits(voxels), place=place)
        if other.labels is not None:
            drawn, _ = other.read()
            contours = propagated(drawn.contours, alignment, today.scan, report=told)
            day = day._replace(contours=contours, labels=contours.labels().array)
        days.append(day)
    return days
