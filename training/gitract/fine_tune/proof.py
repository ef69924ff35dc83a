"""Cross-validation over the reviewed slices, and the training that it speaks for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import nn

from gitract.errors import Cancelled, Stopped
from gitract.fine_tune.card import Card, concluded
from gitract.fine_tune.lesson import Lesson
from gitract.fine_tune.parts import Place, parts_of
from gitract.fine_tune.scores import Answers, changes_by_slice, mean_dice, organ_changes
from gitract.fine_tune.training import Drawer, trained
from gitract.progress import Progress, Report

__all__ = ["Proof"]


@dataclass
class _Best:
    """The best network that was seen so far, and how it did on its own held-out part."""

    network: nn.Module
    answers: Answers
    part: list[Place]
    steps: int
    gain: float


class Proof:
    """Trainings with slices held out, then the one on all: a network and its card.

    Parameters
    ----------
    lesson
        What is to be learnt.
    report
        Called for each step.
    """

    def __init__(self, lesson: Lesson, report: Report) -> None:
        self.lesson = lesson
        self.settings = lesson.settings
        self.report = report
        self.places = lesson.places
        patients = [scan.corrections.whose for scan in lesson.scans]
        slices = [scan.slices for scan in lesson.scans]
        self.parts = parts_of(patients, slices, self.settings.parts)
        self.judged = self._organs_on_parts() >= 2
        self.before = lesson.old_answers
        self.best: _Best | None = None
        self._done = 0
        self._total = (len(self.parts) + 1) * self.settings.steps

    def _organs_on_parts(self) -> npt.NDArray[np.int_]:
        """On how many parts each organ is contoured."""
        counts = np.zeros(len(self.lesson.config.organs), dtype=np.int_)
        for part in self.parts:
            shown = np.zeros(len(counts), dtype=np.bool_)
            for number, index in part:
                shown |= self.lesson.scans[number].shown(index)
            counts += shown
        return counts

    def run(self) -> tuple[nn.Module, Card]:
        """The candidate's network and its card."""
        try:
            curves = [self._train_part(part, number) for number, part in enumerate(self.parts)]
            drawer = self.lesson.drawer(self.places)
            network = self.lesson.begun(drawer, self._teller(f"All {len(self.places)} slices"))
        except Stopped:
            return self._stopped()
        return self._train_on_all(network, drawer, curves)

    def _train_part(self, part: list[Place], number: int) -> list[Answers]:
        """Train without `part`: what is drawn on it before, and after every few steps."""
        lesson, settings = self.lesson, self.settings
        rest = [place for place in self.places if place not in part]
        curve: list[Answers] = [{place: self.before[place] for place in part}]
        label = f"Check {number + 1} of {len(self.parts)}"
        held_out = f"{label}: slices {_listed([index for _, index in part])} held out"
        self._say(held_out, {"dice": self._dice(curve[0])}, 0)
        drawer = lesson.drawer(rest)
        network = lesson.begun(drawer, self._teller(label))
        losses = trained(network, drawer, settings.steps, lesson.device)
        for step, loss in enumerate(losses, start=1):
            values = {"loss": loss}
            if step % settings.evaluate_every == 0 or step == settings.steps:
                between = lesson.finished(network, drawer, self._teller(label))
                curve.append(lesson.new_answers(between, part))
                values["dice"] = self._dice(curve[-1])
                self._remember(between, curve, part, step)
            self._say(f"{label}: step {step} of {settings.steps}", values)
        return curve

    def _dice(self, answers: Answers) -> float:
        return mean_dice(self.lesson.scans, answers, self.judged)

    def _remember(
        self, network: nn.Module, curve: list[Answers], part: list[Place], step: int
    ) -> None:
        gain = self._dice(curve[-1]) - self._dice(curve[0])
        if self.best is None or gain > self.best.gain:
            self.best = _Best(network, curve[-1], part, step, gain)

    def _train_on_all(
        self, network: nn.Module, drawer: Drawer, curves: list[list[Answers]]
    ) -> tuple[nn.Module, Card]:
        settings = self.settings
        done = 0
        try:
            for loss in trained(network, drawer, settings.steps, self.lesson.device):
                done += 1
                message = (
                    f"Training on all {len(self.places)} slices: step {done} of {settings.steps}"
                )
                self._say(message, {"loss": loss})
        except Stopped:
            pass  # the weights of this moment are the best so far of this training
        # A training that was stopped is no better than what the checks saw by then.
        looks = done // settings.evaluate_every if done < settings.steps else settings.steps
        after = _joined([curve[min(looks, len(curve) - 1)] for curve in curves])
        if len(self.lesson.scans) > 1:
            how = f"{len(self.parts)}-fold cross-validation over the corrected scans"
        else:
            how = f"{len(self.parts)}-fold cross-validation over the reviewed slices"
        found = self.lesson.finished(network, drawer, lambda: None)  # too late to stop
        return found, self._card(after, self.places, done, how)

    def _stopped(self) -> tuple[nn.Module, Card]:
        """The best network of the checks so far, with the score on its own held-out part."""
        if self.best is None:
            raise Cancelled("Stopped before anything was learnt.")
        rest = [place for place in self.places if place not in self.best.part]
        how = "stopped early; held out of the training that was kept"
        return self.best.network, self._card(self.best.answers, rest, self.best.steps, how)

    def _card(self, after: Answers, trained_on: Sequence[Place], steps: int, method: str) -> Card:
        lesson = self.lesson
        before = {place: self.before[place] for place in after}
        rows = organ_changes(lesson.config.organs, lesson.scans, before, after, self.judged)
        changes = changes_by_slice(lesson.scans, before, after, self.judged)
        verdict, sentence, p_value = concluded(rows, changes)
        if not after:
            verdict, sentence = "unproven", _ONE_SLICE
            method = "no slice held out"
        return Card(
            rows, verdict, sentence, method,
            tuple(index for _, index in sorted(after)),
            tuple(index for _, index in sorted(trained_on)), steps, p_value,
        )  # fmt: skip

    def _teller(self, label: str) -> Callable[[], None]:
        """What says that the outputs for new organs learn."""
        return lambda: self._say(f"{label}: the new organs alone", {}, 0)

    def _say(self, message: str, values: dict[str, float], steps: int = 1) -> None:
        self._done += steps
        self.report(Progress(self._done, self._total, message, values))


_ONE_SLICE = "One reviewed slice leaves none to check on: review at least two."


def _joined(answers: Sequence[Answers]) -> Answers:
    return {place: masks for part in answers for place, masks in part.items()}


def _listed(slices: Sequence[int]) -> str:
    return ", ".join(str(index) for index in slices)
