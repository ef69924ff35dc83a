"""A patient's scans of several treatment days: aligned, carried over, compared.

`align` finds how the patient lay on one day against another. With it the contours of one day
are put onto the scan of another (`propagated`), and so are its voxels (`resampled`); and
`compare_days` tells how organs changed.

Folders of PNG slices do not say where in the patient they lie (`without_position`). Between
such days only an alignment tells where an organ moved; their coordinates say nothing of it.
"""

from gitract.days.alignment import Alignment, align, shift_in_words, without_position
from gitract.days.carrying import propagated, resampled
from gitract.days.comparison import Day, DayOrgan, DayTable, compare_days

__all__ = [
    "Alignment",
    "Day",
    "DayOrgan",
    "DayTable",
    "align",
    "compare_days",
    "propagated",
    "resampled",
    "shift_in_words",
    "without_position",
]
