"""Labelled scans of a data folder: found by names and headers, read one at a time.

Layouts: the competition's as downloaded, single slices as PNG pairs, and scans with contours
in any format of `gitract.io`. Importing this package loads neither torch nor a library of any
format.
"""

from gitract.labelled.detect import detect_sources
from gitract.labelled.facts import OrganFacts, RunFacts, facts_of
from gitract.labelled.found import Fault, LabelledRun, LabelledScan, OnFault, unheard
from gitract.labelled.organs import named_organs
from gitract.labelled.search import chosen_cases, find_labelled

__all__ = [
    "Fault",
    "LabelledRun",
    "LabelledScan",
    "OnFault",
    "OrganFacts",
    "RunFacts",
    "chosen_cases",
    "detect_sources",
    "facts_of",
    "find_labelled",
    "named_organs",
    "unheard",
]
