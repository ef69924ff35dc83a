"""Corrected slices in, a candidate model and its before/after card out.

The corrected slices are too few to give some of them away, so the proof comes from
cross-validation: the model is trained on all but one part of the slices and scored on
that part, in turn. Neighbouring slices look alike, so a part is a run of neighbours:
never is a slice held out while the one next to it is trained on, unless there is only
one run. An organ that is on slices of one part alone is not judged: the training that
holds that part out has never seen it, unlike the candidate. The number of training steps
that did best on average is then used to train the candidate on all of the slices.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import load
from torch import nn

from gitract.augment import augment
from gitract.devices import choose_device
from gitract.errors import Cancelled, InputError, Stopped
from gitract.looks import Look, prepared_logits
from gitract.losses import SegmentationLoss
from gitract.model_card import fine_tuning_card
from gitract.model_config import ModelConfig
from gitract.model_store import ModelInfo, ModelStore
from gitract.models import load_network, save_model
from gitract.models.weights import build_network, packed_weights
from gitract.organs import Organ
from gitract.orientation import turn_upright
from gitract.predict import check_finite, chosen_slices, masks_of_slices
from gitract.preparation import Prepared, network_input, prepare_scan, prepare_slice_masks
from gitract.progress import Progress, Report, silent
from gitract.recipe import Augmentation
from gitract.runner import Runner, on_device
from gitract.scan import Scan, Segmentation
from gitract.strict import StrictModel

__all__ = [
    "Candidate",
    "Card",
    "FineTuneSettings",
    "OrganChange",
    "fine_tune",
    "held_out_parts",
]

Verdict = Literal["better", "no difference", "worse", "unproven"]
_NEIGHBOURS = 2  # slices that are this close look alike
_BETTER, _WORSE = 0.005, -0.005  # mean change of Dice that is called a difference


class FineTuneSettings(StrictModel):
    """How a model is fine-tuned; the defaults need no decision.

    Parameters
    ----------
    steps, evaluate_every
        Most training steps, and steps between two looks at the held-out slices.
    parts
        Most parts for cross-validation.
    batch_size, learning_rate
        Of the AdamW optimiser.
    augmentation
        Milder than in training: it is the same scanner and the same patient.
    seed
        Of everything random.
    """

    steps: int = Field(default=80, ge=1)
    evaluate_every: int = Field(default=10, ge=1)
    parts: int = Field(default=3, ge=2)
    batch_size: int = Field(default=4, ge=1)
    learning_rate: float = Field(default=3e-4, gt=0)
    augmentation: Augmentation = Augmentation(
        rotation_deg=5, scale=0.1, shift=0.03, elastic_mm=2, gamma=0.2, contrast=0.15,
        brightness=0.03, bias_field=0.25, noise=0.03, blur=0.1, repeat_centre=0.0,
    )  # fmt: skip
    seed: int = 0


@dataclass(frozen=True)
class OrganChange:
    """Dice of one organ over all held-out slices together, before and after.

    None where it cannot be judged: neither the contours nor the model have the organ
    there, or it is on slices of one part alone. `slices` counts the held-out slices on
    which the organ was contoured.
    """

    organ: Organ
    before: float | None
    after: float | None
    slices: int


@dataclass(frozen=True)
class Card:
    """The proof: how the candidate does on slices that it was not trained on.

    Parameters
    ----------
    rows
        One for each organ.
    verdict, sentence
        What it comes to, in a word and in a sentence.
    method
        How slices were held out.
    held_out
        The slices that the rows are about.
    trained_on
        The slices that the candidate itself was trained on.
    steps
        Training steps of the candidate.
    """

    rows: tuple[OrganChange, ...]
    verdict: Verdict
    sentence: str
    method: str
    held_out: tuple[int, ...]
    trained_on: tuple[int, ...]
    steps: int

    @property
    def mean_before(self) -> float | None:
        """Mean over the organs that are judged."""
        return _means(self.rows)[0]

    @property
    def mean_after(self) -> float | None:
        """Mean over the organs that are judged."""
        return _means(self.rows)[1]

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], organs: Sequence[Organ]) -> "Card":
        """The card that `as_dict` gave, of a model with these organs."""
        by_name = {organ.name: organ for organ in organs}
        rows = tuple(
            OrganChange(by_name[row["organ"]], row["before"], row["after"], row["slices"])
            for row in content["rows"]
        )
        return cls(
            rows, content["verdict"], content["sentence"], content["method"],
            tuple(content["held_out"]), tuple(content["trained_on"]), content["steps"],
        )  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        content = asdict(self)
        content["mean_before"], content["mean_after"] = _means(self.rows)
        content["rows"] = [
            {"organ": row.organ.name, "before": row.before, "after": row.after,
             "slices": row.slices}
            for row in self.rows
        ]  # fmt: skip
        return content


@dataclass
class Candidate:
    """A fine-tuned model that nobody adopted yet; it lives in memory alone.

    Parameters
    ----------
    card
        How it compares with the model that it came from.
    parent
        That model.
    """

    card: Card
    parent: ModelInfo
    _network: nn.Module | None
    _config: ModelConfig
    _store: ModelStore

    def keep(self, name: str | None = None) -> ModelInfo:
        """Save the candidate as a new version and make it the active one.

        Parameters
        ----------
        name
            For the new version; the parent's name with the next number when not given.

        Raises
        ------
        InputError
            The store cannot be written, or the candidate was discarded.
        """
        if self._network is None:
            raise InputError("This candidate was discarded: fine-tune again.")
        network = self._network
        config = self._config.model_copy(
            update={
                "id": self._store.free_id(name or self.parent.id),
                "title": name or self.parent.title,
                "dice": {r.organ.name: r.after for r in self.card.rows if r.after is not None},
            }
        )
        text = fine_tuning_card(config, self.card)
        info = self._store.add(config.id, lambda folder: save_model(network, config, text, folder))
        return self._store.activate(info.id)

    def discard(self) -> None:
        """Forget the weights."""
        self._network = None

    def exported(self) -> tuple[ModelConfig, bytes]:
        """Its configuration and its weights, safetensors, for another machine."""
        assert self._network is not None
        return self._config, packed_weights(self._network)

    @classmethod
    def received(
        cls,
        card: Mapping[str, Any],
        parent: ModelInfo,
        config: ModelConfig,
        weights: bytes,
        store: ModelStore,
    ) -> "Candidate":
        """What another machine fine-tuned, to be kept or discarded here.

        Parameters
        ----------
        card
            `Card.as_dict` of it.
        parent
            The version that it came from, here.
        config, weights
            As of `exported`.
        store
            Where it is kept.
        """
        network = build_network(config)
        network.load_state_dict(load(weights))
        config = config.model_copy(update={"id": parent.id, "parent": parent.id})
        return cls(Card.from_dict(card, config.organs), parent, network.eval(), config, store)


def _means(rows: Sequence[OrganChange]) -> tuple[float | None, float | None]:
    """Mean before and after, over the organs that have both."""
    complete = [row for row in rows if row.before is not None and row.after is not None]
    return _mean([row.before for row in complete]), _mean([row.after for row in complete])


def _mean(values: Sequence[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return float(np.mean(numbers)) if numbers else None


def held_out_parts(slices: Sequence[int], most: int = 3) -> list[list[int]]:
    """Divide slices into parts for cross-validation, neighbours together.

    Parameters
    ----------
    slices
        0-based, ascending.
    most
        Most parts.

    Returns
    -------
    list of list of int
        At least two parts where there are two slices; empty for a single slice.
    """
    if len(slices) < 2:
        return []
    runs: list[list[int]] = []
    for index in slices:
        if runs and index - runs[-1][-1] <= _NEIGHBOURS:
            runs[-1].append(index)
        else:
            runs.append([index])
    if len(runs) == 1:
        parts = np.array_split(np.array(slices), min(most, len(slices)))
        return [[int(index) for index in part] for part in parts]
    # the longest run goes to the smallest part, so that parts come out alike
    parts_of_runs: list[list[int]] = [[] for _ in range(min(most, len(runs)))]
    for run in sorted(runs, key=len, reverse=True):
        min(parts_of_runs, key=len).extend(run)
    return [sorted(part) for part in parts_of_runs]


@dataclass(frozen=True)
class _Counts:
    """Voxels that both have, and voxels of both, by organ: enough for a pooled Dice."""

    overlap: np.ndarray
    total: np.ndarray

    def __add__(self, other: "_Counts") -> "_Counts":
        return _Counts(self.overlap + other.overlap, self.total + other.total)

    def dice(self) -> list[float | None]:
        return [
            2.0 * float(o) / float(t) if t else None
            for o, t in zip(self.overlap, self.total, strict=True)
        ]

    def mean(self) -> float:
        return _mean(self.dice()) or 0.0


@dataclass(frozen=True, eq=False)
class _Material:
    """What to train on: masks ``(organ, row, column)`` by prepared slice; which organs count."""

    masks: dict[int, torch.Tensor]
    taught: np.ndarray


@dataclass(frozen=True, eq=False)
class _Lesson:
    """What all trainings of one job share."""

    masks: np.ndarray  # (organ, slice, row, column), on the scan's grid, slices upright
    prepared: Prepared
    prepared_masks: dict[int, torch.Tensor]  # (organ, row, column) of each reviewed slice
    config: ModelConfig
    settings: FineTuneSettings
    device: torch.device

    def score(self, network: nn.Module, slices: list[int], judged: np.ndarray) -> _Counts:
        """Compare a network's answer with the contours of some slices, for organs `judged`."""
        overlap = np.zeros(len(self.masks))
        total = np.zeros(len(self.masks))
        for batch, found in self._answers(network, slices):
            truth = self.masks[:, batch].swapaxes(0, 1)
            overlap += (found & truth).sum(axis=(0, 2, 3))
            total += found.sum(axis=(0, 2, 3)) + truth.sum(axis=(0, 2, 3))
        return _Counts(overlap * judged, total * judged)

    def _materials(self, network: nn.Module, slices: list[int]) -> list["_Material"]:
        """What to train on: the reviewed slices, and a memory of what they don't show.

        The reviewed slices teach the organs that are contoured on one of them or drawn
        there by the network. Of any other organ they would only teach that it is never
        there. The network's own answer on slices that nobody reviewed reminds it of those.
        """
        taught = np.asarray(self.masks[:, slices].any(axis=(1, 2, 3)))
        for _, found in self._answers(network, slices):
            taught |= found.any(axis=(0, 2, 3))
        nearest = {index: self.prepared.nearest(index) for index in self.prepared_masks}
        reviewed = _Material({nearest[i]: self.prepared_masks[i] for i in slices}, taught)
        if taught.all():
            return [reviewed]
        others = [i for i in range(len(self.prepared.slices)) if i not in nearest.values()]
        remembered = {
            index: mask
            for batch, logits in prepared_logits(
                Runner(network), self.prepared.slices, others, self.config.preparation
            )
            for index, mask in zip(batch, (logits > 0).cpu(), strict=True)
            if mask[~taught].any()
        }
        return [reviewed, _Material(remembered, ~taught)] if remembered else [reviewed]

    def _answers(
        self, network: nn.Module, slices: list[int]
    ) -> Iterator[tuple[list[int], np.ndarray]]:
        """The network's masks of some slices, on the scan's grid, batch by batch."""
        network.eval()
        return masks_of_slices(
            Look(Runner(network), self.prepared, self.config.preparation), slices
        )

    def _draw(
        self, material: "_Material", generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """A batch: images, masks, and which organs count."""
        indices = list(material.masks)
        size = (self.settings.batch_size,)
        places = torch.randint(len(indices), size, generator=generator)
        batch = [indices[int(place)] for place in places]
        images = network_input(self.prepared.slices, batch, self.config.preparation)
        masks = torch.stack([material.masks[index] for index in batch]).float()
        taught = torch.from_numpy(material.taught).float().expand(len(batch), -1)
        return _square(images), _square(masks), taught

    def train(self, network: nn.Module, slices: list[int], steps: int) -> Iterator[float]:
        """Train in place, one step for each number taken: the loss.

        Batch normalisation keeps its statistics: a few slices of one patient are no
        better estimate of them, and a batch may hold a single slice.
        """
        settings, pixel_mm = self.settings, self.config.preparation.pixel_mm
        generator = torch.Generator().manual_seed(settings.seed)
        optimizer = torch.optim.AdamW(network.parameters(), settings.learning_rate)
        minimised = SegmentationLoss()
        materials = self._materials(network, slices)
        for _ in range(steps):
            network.eval()  # dropout and batch statistics off; gradients flow all the same
            drawn = [self._draw(material, generator) for material in materials]
            images, masks, taught = (torch.cat(parts) for parts in zip(*drawn, strict=True))
            images, masks = augment(
                images, masks, pixel_mm=pixel_mm, strength=settings.augmentation,
                generators=[generator] * len(images),
            )  # fmt: skip
            logits = network(images.to(self.device, memory_format=torch.channels_last))
            loss = minimised(logits, masks.to(self.device), taught.to(self.device))
            if not torch.isfinite(loss):
                raise InputError(f"The training diverged (loss {loss.item()}): nothing was kept.")
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            yield loss.item()


def _square(maps: torch.Tensor) -> torch.Tensor:
    """Pad ``(..., row, column)`` with air to a square, as augmentation turns it."""
    rows, columns = maps.shape[-2:]
    return nn.functional.pad(maps, (0, max(0, rows - columns), 0, max(0, columns - rows)))


@dataclass
class _Best:
    """The best that one part's training has shown: what Stop keeps."""

    network: dict[str, torch.Tensor]
    before: _Counts
    after: _Counts
    part: list[int]
    steps: int

    @property
    def gain(self) -> float:
        return self.after.mean() - self.before.mean()


class _Job:
    """One fine-tuning: cross-validation, then training on everything."""

    def __init__(
        self, lesson: _Lesson, network: nn.Module, slices: list[int], report: Report
    ) -> None:
        self.lesson = lesson
        self.original = network
        self.slices = slices
        self.parts = held_out_parts(slices, lesson.settings.parts)
        self.report = report
        on_parts = [lesson.masks[:, part].any(axis=(1, 2, 3)) for part in self.parts]
        self.judged = np.sum(on_parts, axis=0) >= 2
        self.best: _Best | None = None
        self._done = 0
        self._total = (len(self.parts) + 1) * lesson.settings.steps

    def run(self) -> tuple[nn.Module, Card]:
        """The candidate's network and its card."""
        try:
            curves = [self._train_part(part, number) for number, part in enumerate(self.parts)]
        except Stopped:
            return self._stopped()
        return self._train_on_all(curves)

    def _train_part(self, part: list[int], number: int) -> list[_Counts]:
        """Train without `part`; its score before, and after every few steps."""
        lesson, settings = self.lesson, self.lesson.settings
        network = copy.deepcopy(self.original)
        rest = [index for index in self.slices if index not in part]
        curve = [lesson.score(network, part, self.judged)]
        label = f"Check {number + 1} of {len(self.parts)}"
        self._say(f"{label}: slices {_listed(part)} held out", {"dice": curve[0].mean()}, 0)
        for step, loss in enumerate(lesson.train(network, rest, settings.steps), start=1):
            values = {"loss": loss}
            if step % settings.evaluate_every == 0 or step == settings.steps:
                curve.append(lesson.score(network, part, self.judged))
                values["dice"] = curve[-1].mean()
                self._remember(network, curve, part, step)
            self._say(f"{label}: step {step} of {settings.steps}", values)
        return curve

    def _remember(
        self, network: nn.Module, curve: list[_Counts], part: list[int], step: int
    ) -> None:
        found = _Best({}, curve[0], curve[-1], part, step)
        if self.best is None or found.gain > self.best.gain:
            found.network = copy.deepcopy(network.state_dict())
            self.best = found

    def _train_on_all(self, curves: list[list[_Counts]]) -> tuple[nn.Module, Card]:
        settings = self.lesson.settings
        # Where nothing can be checked, a quarter of the steps: enough to learn something.
        steps = max(1, settings.steps // 4)
        if self.judged.any():
            steps = min(_best_look(curves) * settings.evaluate_every, settings.steps)
        self._total = self._done + steps
        network = copy.deepcopy(self.original)
        trained = 0
        try:
            for loss in self.lesson.train(network, self.slices, steps):
                trained += 1
                message = f"Training on all {len(self.slices)} slices: step {trained} of {steps}"
                self._say(message, {"loss": loss})
        except Stopped:
            pass  # the weights of this moment are the best so far of this training
        # A training that was stopped is no better than what the checks saw by then.
        looks = trained // settings.evaluate_every if trained < steps else settings.steps
        before, after = _held_out_scores(curves, looks)
        how = f"{len(self.parts)}-fold cross-validation over the reviewed slices"
        return network, self._card(before, after, self.slices, self.slices, trained, how)

    def _stopped(self) -> tuple[nn.Module, Card]:
        """The best network of the checks so far, with the score on its own held-out part."""
        if self.best is None:
            raise Cancelled("Stopped before anything was learnt.")
        network = copy.deepcopy(self.original)
        network.load_state_dict(self.best.network)
        part = self.best.part
        rest = [index for index in self.slices if index not in part]
        how = "stopped early; held out of the training that was kept"
        return network, self._card(
            self.best.before, self.best.after, part, rest, self.best.steps, how
        )

    def _card(
        self,
        before: _Counts | None,
        after: _Counts | None,
        held_out: list[int],
        trained_on: list[int],
        steps: int,
        method: str,
    ) -> Card:
        none = [None] * len(self.lesson.config.organs)
        befores = before.dice() if before else none
        afters = after.dice() if after else none
        rows = tuple(
            OrganChange(organ, b, a, int(mask[held_out].any(axis=(1, 2)).sum()))
            for organ, mask, b, a in zip(
                self.lesson.config.organs, self.lesson.masks, befores, afters, strict=True
            )
        )
        if not self.parts:
            held_out, method = [], "no slice held out"
        verdict, sentence = _verdict(rows, len(held_out))
        return Card(rows, verdict, sentence, method, tuple(held_out), tuple(trained_on), steps)

    def _say(self, message: str, values: dict[str, float], steps: int = 1) -> None:
        self._done += steps
        self.report(Progress(self._done, self._total, message, values))


def _pooled(counts: Sequence[_Counts]) -> _Counts:
    return sum(counts[1:], counts[0])


def _best_look(curves: Sequence[list[_Counts]]) -> int:
    """The look at the held-out slices, from 1 on, at which all parts together did best."""
    looks = list(zip(*curves, strict=True))[1:]
    return 1 + int(np.argmax([_pooled(counts).mean() for counts in looks]))


def _held_out_scores(
    curves: list[list[_Counts]], most_looks: int
) -> tuple[_Counts | None, _Counts | None]:
    """Scores of all parts before and after; None where no part was held out.

    Each part is scored at the look that did best on the *other* parts: chosen on itself
    it would flatter the card.
    """
    if not curves:
        return None, None
    after = []
    for number, curve in enumerate(curves):
        others = [other for i, other in enumerate(curves) if i != number]
        after.append(curve[min(_best_look(others), most_looks, len(curve) - 1)])
    return _pooled([curve[0] for curve in curves]), _pooled(after)


def _verdict(rows: Sequence[OrganChange], slices: int) -> tuple[Verdict, str]:
    before, after = _means(rows)
    if slices == 0:
        return "unproven", "One reviewed slice leaves none to check on: review at least two."
    if before is None or after is None:
        return "unproven", "No organ is on two of the parts that were held out: review more slices."
    change = after - before
    numbers = f"mean Dice {before:.3f} before, {after:.3f} after, on {slices} slices not trained on"
    if change > _BETTER:
        return "better", f"Better: {numbers}."
    if change < _WORSE:
        return "worse", f"Worse: {numbers}."
    return "no difference", f"No difference: {numbers}."


def _listed(slices: Sequence[int]) -> str:
    return ", ".join(str(index) for index in slices)


def _check_organs(segmentation: Segmentation, config: ModelConfig) -> None:
    ids = [organ.id for organ in config.organs]
    extra = [
        organ
        for organ, mask in zip(segmentation.organs, segmentation.masks, strict=True)
        if organ.id not in ids and mask.any()
    ]
    if extra:
        raise InputError(
            f"The labels hold {extra[0].name}, which {config.id} does not outline: remove it."
        )


def fine_tune(
    scan: Scan,
    segmentation: Segmentation,
    slices: Iterable[int],
    *,
    model: str | Path | None = None,
    device: str = "auto",
    settings: FineTuneSettings | None = None,
    store: ModelStore | None = None,
    report: Report = silent,
) -> Candidate:
    """Train a model on the reviewed slices of a scan, and compare it with what it was.

    Parameters
    ----------
    scan
        The scan.
    segmentation
        Its contours; only those of `slices` are used, and are taken as right there.
    slices
        0-based slices that a person corrected or found right.
    model
        Version to start from; None for the active one.
    device
        ``auto``, ``cpu``, ``cuda[:N]`` or ``mps``.
    settings
        How; the defaults when not given.
    store
        Where versions are; the user's when not given.
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
        Scan, labels, slices, model or device do not fit.
    Cancelled
        Stopped before anything was learnt.
    """
    settings = settings or FineTuneSettings()
    store = store or ModelStore()
    torch_device = choose_device(device)
    parent = store.find(model)
    network, config = load_network(parent.path)
    if config.preparation.patch:
        raise InputError(
            f"{parent.id} is a 3-D model, which cannot be fine-tuned on single slices: "
            "choose a 2-D model."
        )
    segmentation = segmentation.on(scan)
    _check_organs(segmentation, config)
    check_finite(scan)
    turn = turn_upright(scan)
    reviewed = chosen_slices(slices, len(scan.voxels))
    report(Progress(0, 0, "Preparing the scan"))
    network = on_device(network, torch_device)
    masks = np.zeros((len(config.organs), *scan.shape), dtype=np.bool_)
    place = {organ.id: index for index, organ in enumerate(config.organs)}
    for organ, mask in zip(segmentation.organs, segmentation.masks, strict=True):
        if organ.id in place:
            masks[place[organ.id]] = mask
    masks = turn.upright(masks)
    prepared = prepare_scan(
        turn.upright(scan.voxels), turn.spacing(scan.spacing), config.preparation
    )
    reviewed_masks = prepare_slice_masks(masks[:, reviewed], prepared)
    lesson = _Lesson(
        masks=masks,
        prepared=prepared,
        prepared_masks=dict(zip(reviewed, reviewed_masks.unbind(1), strict=True)),
        config=config,
        settings=settings,
        device=torch_device,
    )
    trained, card = _Job(lesson, network, reviewed, report).run()
    child = ModelConfig(
        **config.model_dump(exclude={"id", "parent", "created", "software", "weights_sha256",
                                     "dice"}),
        id=parent.id,
        parent=parent.id,
    )  # fmt: skip
    return Candidate(card, parent, trained.cpu(), child, store)
