"""What all trainings of a fine-tuning share: scans, what they show, and the network."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from gitract.corrections import Corrections, CorrectionStore
from gitract.errors import InputError
from gitract.fine_tune.answers import WholeAnswer, answers_at, whole_answer
from gitract.fine_tune.pages import ReplayPage, ReviewedScan, ScanPage, reviewed_scan
from gitract.fine_tune.parts import Place
from gitract.fine_tune.replay import Replay, replay_of
from gitract.fine_tune.scores import Answers
from gitract.fine_tune.settings import FineTuneSettings
from gitract.fine_tune.training import Drawer, blended, trained
from gitract.model_config import ModelConfig
from gitract.models import load_network
from gitract.models.growing import new_parts, with_organs
from gitract.organs import IGNORE, Organ
from gitract.predict import check_finite, chosen_slices
from gitract.progress import Progress, Report, silent
from gitract.runner import on_device

__all__ = ["Lesson", "lesson_of"]


@dataclass(frozen=True, eq=False)
class Lesson:
    """What all trainings of one job share.

    `before` is the network as it was, `start` the same with outputs for new organs; `answers`
    are what it draws on `scans`.
    """

    scans: list[ReviewedScan]
    earlier: list[ReviewedScan]
    replay: Replay
    before: nn.Module
    start: nn.Module
    answers: list[WholeAnswer]
    config: ModelConfig
    settings: FineTuneSettings
    device: torch.device

    @property
    def places(self) -> list[Place]:
        """All reviewed slices."""
        return [(number, i) for number, scan in enumerate(self.scans) for i in scan.slices]

    def drawer(self, places: Sequence[Place]) -> Drawer:
        """What a training on some of the reviewed slices draws from.

        Reviewed slices teach the organs that are contoured on one of them, or drawn there by
        the network. Of any other organ they would only teach that it is never there.
        """
        organs = self._worth_teaching(places)
        pages = [
            ScanPage(scan, [i for n, i in places if n == number], organs, answer.small)
            for number, (scan, answer) in enumerate(zip(self.scans, self.answers, strict=True))
        ]
        pages += [ScanPage(scan, scan.slices, organs, None) for scan in self.earlier]
        return Drawer(
            pages, len(self.scans), self.replay.pages, self.config.preparation, self.settings
        )  # fmt: skip

    def _worth_teaching(self, places: Sequence[Place]) -> npt.NDArray[np.bool_]:
        taught = np.zeros(len(self.config.organs), dtype=np.bool_)
        for number, index in places:
            taught |= self.scans[number].shown(index)
            taught |= self.old_answers[number, index].any(axis=(1, 2))
        for scan in self.earlier:
            for index in scan.slices:
                taught |= scan.shown(index)
        return taught

    @cached_property
    def old_answers(self) -> Answers:
        """What the network drew on all reviewed slices; nothing of new organs."""
        found = {}
        for number, index in self.places:
            scan = self.scans[number]
            masks = np.zeros((len(self.config.organs), *scan.masks.shape[2:]), dtype=np.bool_)
            own = self.answers[number].on_slice(scan, index)
            masks[: len(own)] = own
            found[number, index] = masks
        return found

    def new_answers(self, network: nn.Module, places: Sequence[Place]) -> Answers:
        """What another network draws there."""
        return {
            (number, index): masks
            for number, scan in enumerate(self.scans)
            for index, masks in answers_at(
                network, scan, [i for n, i in places if n == number], self.config
            )
        }

    def begun(self, drawer: Drawer, tell: Callable[[], None]) -> nn.Module:
        """A network to be trained: as it was, its outputs for new organs taught already.

        Outputs that mean nothing yet would first of all spoil what they are trained with
        (linear probing then fine-tuning: Kumar et al. 2022, arXiv:2202.10054).

        Parameters
        ----------
        drawer
            Of the training.
        tell
            Called after each step of the outputs.
        """
        network = copy.deepcopy(self.start)
        self._teach_new_parts(network, drawer, tell)
        return network

    def finished(self, network: nn.Module, drawer: Drawer, tell: Callable[[], None]) -> nn.Module:
        """What a trained network becomes: nearer to what it was, with its new organs.

        Outputs for new organs are not drawn back to where they have learnt nothing, but learn
        once more what the features of the network between mean.

        Parameters
        ----------
        network
            Not changed.
        drawer, tell
            As of `begun`.
        """
        between = blended(self.start, network, self.settings.blend)
        pairs = zip(self._new_parts(between), self._new_parts(network), strict=True)
        with torch.no_grad():
            for (parameter, new), (learnt, _) in pairs:
                parameter.copy_(torch.where(new, learnt, parameter))
        self._teach_new_parts(between, drawer, tell)
        return between

    def _teach_new_parts(
        self, network: nn.Module, drawer: Drawer, tell: Callable[[], None]
    ) -> None:
        parts = self._new_parts(network)
        if not parts:
            return
        parameters = [parameter for parameter, _ in parts]
        before = [parameter.detach().clone() for parameter in parameters]
        steps, rate = self.settings.new_organ_steps, self.settings.new_organ_rate
        for _ in trained(network, drawer, steps, self.device, only=parameters, rate=rate):
            tell()
        with torch.no_grad():
            for (parameter, new), was in zip(parts, before, strict=True):
                parameter.copy_(torch.where(new, parameter, was))

    def _new_parts(self, network: nn.Module) -> list[tuple[nn.Parameter, torch.Tensor]]:
        organs, old = len(self.config.organs), len(self.answers[0].organs)
        return new_parts(network, self.before, organs, old) if organs > old else []


def lesson_of(
    corrections: Sequence[Corrections],
    *,
    model: Path,
    home: Path,
    device: torch.device,
    settings: FineTuneSettings,
    earlier: Sequence[Corrections] | None = None,
    replay: Path | None = None,
    report: Report = silent,
) -> Lesson:
    """Prepare a fine-tuning; parameters and errors as of `gitract.fine_tune.fine_tune`.

    Parameters
    ----------
    model
        Folder of the version to start from.
    home
        Of the store.
    """
    network, config = load_network(model)
    old_organs = len(config.organs)
    if not corrections:
        raise InputError("There is no scan to learn from: give at least one.")
    placed = [_checked(one) for one in corrections]
    organs = (*config.organs, *_new_organs(placed, config))
    start, config = with_organs(network, config, organs)
    before = on_device(network, device)
    report(Progress(0, 0, "Preparing the scan"))
    if earlier is None:
        earlier = CorrectionStore(home).load(without=[one.key for one in placed])
    scans = [reviewed_scan(one, organs, config.preparation) for one in placed]
    past = [reviewed_scan(one, organs, config.preparation) for one in earlier]
    replayed = replay_of(replay, config, before, old_organs, home, report)
    _check_shown(scans, [*scans, *past, *replayed.pages])
    answers = []
    for scan in scans:
        report(Progress(0, 0, f"Looking at {scan.corrections.scan.name} as it is drawn now"))
        answers.append(whole_answer(before, scan, config))
    return Lesson(
        scans=scans,
        earlier=past,
        replay=replayed,
        before=before,
        start=on_device(start, device),
        answers=answers,
        config=config,
        settings=settings,
        device=device,
    )


def _check_shown(scans: list[ReviewedScan], pages: list[ReviewedScan | ReplayPage]) -> None:
    """Something that takes part shows an organ: else it would learn to draw nothing at all."""
    if not any(page.shows_an_organ for page in pages):
        slices = sum(len(scan.slices) for scan in scans)
        raise InputError(
            f"None of the reviewed slices ({slices}) has a contour of a reviewed organ: review one "
            "that shows an organ."
        )


def _checked(corrections: Corrections) -> Corrections:
    """Contours on the scan and not where it is to be ignored, slices in it, finite voxels."""
    scan = corrections.scan
    check_finite(scan)
    slices = chosen_slices(corrections.slices, len(scan.voxels))
    contours = corrections.segmentation.on(scan)
    placed = replace(corrections, segmentation=contours, slices=tuple(slices))
    ignored = placed.mask(IGNORE)
    if ignored is None:
        return placed
    is_organ = np.array([organ.id != IGNORE.id for organ in contours.organs])
    masks = contours.masks & ~(ignored & is_organ[:, None, None, None])
    return replace(placed, segmentation=replace(contours, masks=masks))


def _new_organs(corrections: Sequence[Corrections], config: ModelConfig) -> list[Organ]:
    """Organs that are contoured on a reviewed slice, and that the model does not know."""
    known = {organ.id: organ for organ in config.organs}
    names = {organ.name for organ in config.organs}
    for one in corrections:
        for organ in _contoured(one):
            other = known.get(organ.id)
            if other is None and organ.name in names:
                raise InputError(
                    f"Two label values, {organ.id} and another, are called {organ.name}: give "
                    "one of them another name."
                )
            if other is not None and one.mask(other) is None:
                raise InputError(
                    f"Label value {organ.id} is {organ.name} here and {other.name} elsewhere: "
                    "give one of them another value."
                )
            known.setdefault(organ.id, organ)
            names.add(organ.name)
    return [known[number] for number in sorted(known.keys() - {o.id for o in config.organs})]


def _contoured(corrections: Corrections) -> list[Organ]:
    """Organs with a contour on a slice where they were reviewed."""
    found = []
    for organ in corrections.organs:
        mask = corrections.mask(organ)
        slices = [i for i in corrections.slices if organ.id in corrections.reviewed(i)]
        if mask is not None and mask[slices].any():
            found.append(organ)
    return found
