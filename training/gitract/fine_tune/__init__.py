"""Corrected slices in, a candidate model and its before/after card out.

The corrected slices are too few to give some of them away, so the proof comes from
cross-validation: the model is trained on all but one part of the slices and scored on
that part, in turn. Neighbouring slices look alike, so a part is a run of neighbours:
never is a slice held out while the one next to it is trained on, unless there is only
one run; and where several patients were corrected, a part is a patient. An organ that is
on slices of one part alone is not judged: the training that holds that part out has never
seen it, unlike the candidate. The candidate is trained on all of the slices, for as many
steps as the checks were.

Three things keep what the model knew. On slices that nobody reviewed its own contours are
learnt beside the corrections (rehearsal without the old data: Robins 1995, Connection
Science 7:123); where there is a folder of labelled scans, some of its slices take part as
well; and the candidate stays between the old weights and the trained ones, which gives up
little and forgets far less (Wortsman et al. 2022, WiSE-FT, arXiv:2109.01903).
"""

from gitract.fine_tune.candidate import Candidate
from gitract.fine_tune.card import Card, OrganChange, Retention
from gitract.fine_tune.job import fine_tune
from gitract.fine_tune.parts import held_out_parts
from gitract.fine_tune.settings import FineTuneSettings

__all__ = [
    "Candidate",
    "Card",
    "FineTuneSettings",
    "OrganChange",
    "Retention",
    "fine_tune",
    "held_out_parts",
]
