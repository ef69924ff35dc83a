"""Fine-tuning as a whole: checks, the candidate, and what speaks for and against it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from gitract.corrections import Corrections
from gitract.devices import choose_device
from gitract.fine_tune.answers import WholeAnswer, whole_answer
from gitract.fine_tune.candidate import Candidate, drawn
from gitract.fine_tune.card import Card, forgotten
from gitract.fine_tune.lesson import Lesson, lesson_of
from gitract.fine_tune.proof import Proof
from gitract.fine_tune.retention import fault_of, retention_of
from gitract.fine_tune.settings import FineTuneSettings
from gitract.model_config import ModelConfig
from gitract.model_store import ModelStore
from gitract.progress import Progress, Report, followed, silent

__all__ = ["fine_tune"]


def fine_tune(
    corrections: Sequence[Corrections],
    *,
    model: str | Path | None = None,
    device: str = "auto",
    settings: FineTuneSettings | None = None,
    store: ModelStore | None = None,
    earlier: Sequence[Corrections] | None = None,
    replay: Path | None = None,
    report: Report = silent,
) -> Candidate:
    """Train a model on reviewed slices, and compare it with what it was.

    Parameters
    ----------
    corrections
        Scans with their contours and the slices that a person reviewed; of one patient or
        several. An organ that is contoured there and that the model does not know yet is
        added to it.
    model
        Version to start from; None for the active one.
    device
        ``auto``, ``cpu``, ``cuda[:N]`` or ``mps``.
    settings
        How; the defaults when not given.
    store
        Where versions are; the user's when not given.
    earlier
        Corrections that the model has learnt from before, which take part again. None for
        those of the store.
    replay
        A folder of labelled scans, some of which take part in training, and on the others of
        which it is measured what was forgotten.
    report
        Called for each step, with the values ``loss`` and, now and then, ``dice``: the
        mean over organs on the held-out slices. It may raise `Stopped` to keep the best
        so far, or `Cancelled` to keep nothing.

    Returns
    -------
    Candidate
        Not saved and not active until `Candidate.keep`.

    Raises
    ------
    InputError
        Scan, labels, slices, model, device or the replay folder do not fit; or nothing
        that would take part shows an organ.
    Cancelled
        Stopped before anything was learnt.
    """
    settings = settings or FineTuneSettings()
    store = store or ModelStore()
    torch_device = choose_device(device)
    parent = store.find(model)
    report = followed(report, "on the CPU" if torch_device.type == "cpu" else f"on {torch_device}")
    lesson = lesson_of(
        corrections, model=parent.path, home=store.home, device=torch_device, settings=settings,
        earlier=earlier, replay=replay, report=report,
    )  # fmt: skip
    config, organs = lesson.config, len(lesson.config.organs)
    found, card = Proof(lesson, report).run()
    report(Progress(1, 1, "Looking for what was forgotten"))
    now = [whole_answer(found, scan, config) for scan in lesson.scans]
    card = _judged(card, lesson, found, now)
    child = ModelConfig(
        **config.model_dump(exclude={"id", "parent", "created", "software", "weights_sha256",
                                     "dice"}),
        id=parent.id,
        parent=parent.id,
    )  # fmt: skip
    placed = [scan.corrections for scan in lesson.scans]
    pairs = [
        drawn(one, (old.on_scan(scan, organs), new.on_scan(scan, organs)), config)
        for one, scan, old, new in zip(placed, lesson.scans, lesson.answers, now, strict=True)
    ]
    before, after = zip(*pairs, strict=True)
    return Candidate(card, parent, placed, before, after, found.cpu(), child, store)


def _judged(card: Card, lesson: Lesson, found: nn.Module, now: Sequence[WholeAnswer]) -> Card:
    """The card with what was forgotten, and with what speaks against the candidate."""
    retention = retention_of(
        lesson.before, found, lesson.config, lesson.replay, lesson.scans, lesson.answers, now
    )
    card = replace(card, retention=tuple(retention), scans=len(lesson.scans))
    reason = fault_of(found, lesson.config, lesson.scans, lesson.answers, now)
    reason = reason or forgotten(retention)
    return card.worse_because(reason) if reason else card
