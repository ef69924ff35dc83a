"""Outline stomach and bowel on abdominal MR scans, and learn from corrections.

The standalone half of napari-gitract: data, networks, training, evaluation and
prediction, without a window. Importing it is cheap: torch is loaded by the first job.

Research software: not for treatment decisions.
"""

from gitract._version import __version__
from gitract.errors import Cancelled, GitractError, InputError, Stopped
from gitract.organs import ORGANS, Organ
from gitract.progress import Progress, Report
from gitract.scan import Scan, Segmentation

INTENDED_USE = "Research software: not for treatment decisions."

__all__ = [
    "INTENDED_USE",
    "ORGANS",
    "Cancelled",
    "GitractError",
    "InputError",
    "Organ",
    "Progress",
    "Report",
    "Scan",
    "Segmentation",
    "Stopped",
    "__version__",
]
