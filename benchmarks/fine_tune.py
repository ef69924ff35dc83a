"""Fine-tuning on slices that a simulated user corrected, with models that never saw the patient.

    gitract train --data DATA --config unet-light -o RUN --folds 4 --split SPLIT
    python benchmarks/fine_tune.py --data DATA --models RUN --work WORK --record

Each whole labelled stack of a held-out patient is segmented by the model of its fold. Slices
are then replaced by the truth, as many as a user would correct: chosen by the queue, evenly,
or at random. Learning from them is compared with plain fine-tuning (all weights, as many
steps, nothing that guards what was known) and with nnU-Net's way of training from the same
start. What is measured stands in one file a case, so that a run can go on.
"""

import argparse
import copy
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from torch import nn

from _bench import finish, shared_options
from _folds import WHOLE_STACK
from gitract.correction_queue import suggested_slices
from gitract.corrections import Corrections
from gitract.devices import choose_device
from gitract.fine_tune import FineTuneSettings
from gitract.fine_tune.answers import whole_answer
from gitract.fine_tune.lesson import Lesson, lesson_of
from gitract.fine_tune.pages import reviewed_scan
from gitract.fine_tune.training import Drawer, trained
from gitract.labelled import LabelledRun, LabelledScan, find_labelled
from gitract.losses import SegmentationLoss
from gitract.metrics import Overlap, mean_known, mean_organ_dice
from gitract.model_config import ModelConfig
from gitract.predict import Segmenter
from gitract.recipe import Augmentation, read_recipe
from gitract.scan import Segmentation
from gitract.surface import surface_distances
from gitract.train import RECIPE_FILE

COUNTS = (1, 3, 5, 8, 12)
FULL = 8  # corrected slices of the comparison with other ways, and of the targets
SEVERAL_TIMES = (3, 5, 8)  # of these, several draws at random
PICKS = ("queue", "even", "random")
WAYS = ("ours", "plain", "nnU-Net")


class Case(NamedTuple):
    """One simulation."""

    day: str
    count: int
    pick: str
    way: str
    seed: int = 0

    @property
    def file(self) -> str:
        again = f"-{self.seed}" if self.seed else ""
        return f"{self.day}-{self.count}-{self.pick}-{self.way}{again}.json"


class Stack(NamedTuple):
    """A labelled stack, and the model that has never seen its patient."""

    name: str
    patient: str
    run: LabelledRun
    model: Path


def stacks_of(data: Path, run: Path, patients: Sequence[str]) -> list[Stack]:
    """The whole stacks of held-out patients."""
    folds = yaml.safe_load((run / "split.yaml").read_text())["folds"]
    fold_of = {patient: number for number, fold in enumerate(folds, 1) for patient in fold}
    found = []
    for one in _labelled(data, run):
        if one.patient not in fold_of or (patients and one.patient not in patients):
            continue
        longest = max(one.read(), key=lambda run: len(run.scan.voxels))
        if len(longest.scan.voxels) >= WHOLE_STACK:
            model = run / f"fold-{fold_of[one.patient]}" / "model"
            found.append(Stack(one.name, one.patient, longest, model))
    return found


def _labelled(data: Path, run: Path) -> list[LabelledScan]:
    """What the models were trained and held out on, read as then."""
    return find_labelled(data, read_recipe(run / RECIPE_FILE).sources)


def strangers_of(data: Path, run: Path, patient: str) -> list[LabelledRun]:
    """Scans of the other patients whom the model of this patient's fold has not seen either."""
    folds = yaml.safe_load((run / "split.yaml").read_text())["folds"]
    others = next(fold for fold in folds if patient in fold)
    found = [
        one for one in _labelled(data, run) if one.patient in others and one.patient != patient
    ]
    return [run for one in found for run in one.read()]


# --- which slices the user corrects ---------------------------------------------------------


def picked(stack: Stack, found: Segmentation, count: int, pick: str, seed: int) -> list[int]:
    """Slices to correct; a user looks only where there is something, or something is drawn."""
    truth = stack.run.truth
    shown = np.flatnonzero((truth.masks.any(axis=0) | found.masks.any(axis=0)).any(axis=(1, 2)))
    if pick == "even":
        ends = np.linspace(shown[0], shown[-1], count + 2)
        return sorted({int(round(place)) for place in ends[1:-1]})
    if pick == "random":
        chosen = np.random.default_rng((seed, count)).choice(shown, count, replace=False)
        return sorted(int(index) for index in chosen)
    labels, right = found.labels().array.copy(), truth.labels().array
    done: list[int] = []
    for _ in range(count):  # the queue sees what was corrected, as it does in the window
        best = suggested_slices(
            labels, done, stack.run.scan.spacing, doubts=found.provenance["doubts"]
        )[0]
        done.append(best.index)
        labels[best.index] = right[best.index]
    return sorted(done)


# --- ways of learning -----------------------------------------------------------------------


def learnt(lesson: Lesson, way: str) -> nn.Module:
    """The network after a training on all corrected slices, without its checks."""
    network = copy.deepcopy(lesson.start)
    drawer = lesson.drawer(lesson.places)
    steps = lesson.settings.steps
    if way == "nnU-Net":
        for _ in _as_nnunet(network, drawer, steps, lesson.device):
            pass
        return network.eval()
    for _ in trained(network, drawer, steps, lesson.device):
        pass
    return lesson.finished(network, drawer, lambda: None)


def settings_of(way: str, steps: int) -> FineTuneSettings:
    settings = FineTuneSettings(steps=steps)
    if way == "plain":
        return settings.model_copy(update={"remembered": 0, "blend": 1.0})
    if way == "nnU-Net":
        return settings.model_copy(update={"remembered": 0, "augmentation": Augmentation()})
    return settings


def _as_nnunet(
    network: nn.Module, drawer: Drawer, steps: int, device: torch.device
) -> Iterator[float]:
    """nnU-Net's training from given weights: SGD at 0.01 falling by a power of 0.9, Nesterov
    momentum 0.99, weight decay 3e-5, gradients clipped at 12, batch statistics learnt on,
    its strong augmentation (here that of this project's training)."""
    optimizer = torch.optim.SGD(
        network.parameters(), 0.01, momentum=0.99, nesterov=True, weight_decay=3e-5
    )
    generator, minimised = torch.Generator().manual_seed(0), SegmentationLoss()
    network.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (1 - step / steps) ** 0.9
        sample = drawer.batch(generator)
        loss = minimised(network(sample.images.to(device)), sample.masks.to(device),
                         sample.taught.to(device))  # fmt: skip
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 12.0)
        optimizer.step()
        yield loss.item()


# --- what is measured -----------------------------------------------------------------------


def masks_of(network: nn.Module, run: LabelledRun, config: ModelConfig) -> np.ndarray:
    """What a network draws, as the scan is stored: bool ``(organ, slice, row, column)``."""
    scan = reviewed_scan(Corrections(run.scan, run.truth, ()), config.organs, config.preparation)
    return whole_answer(network, scan, config).on_scan(scan, len(config.organs))


def dices(found: np.ndarray, run: LabelledRun, config: ModelConfig, slices: Sequence[int]) -> dict:
    """Dice of each outlined organ on some slices together."""
    truth = {organ.id: mask for organ, mask in zip(run.truth.organs, run.truth.masks, strict=True)}
    return {
        organ.name: Overlap.of(mask[slices], truth[organ.id][slices]).dice
        for organ, mask in zip(config.organs, found, strict=True)
        if organ.id in truth and truth[organ.id][slices].any()
    }


def hd95(found: np.ndarray, run: LabelledRun, config: ModelConfig) -> float | None:
    truth = {organ.id: mask for organ, mask in zip(run.truth.organs, run.truth.masks, strict=True)}
    return mean_known(
        surface_distances(mask, truth[organ.id], run.scan.spacing).hd95
        for organ, mask in zip(config.organs, found, strict=True)
        if organ.id in truth
    )


def pooled_dice(network: nn.Module, runs: Sequence[LabelledRun], config: ModelConfig) -> float:
    """Mean over organs of the Dice over all of some scans together."""
    overlaps: list[tuple[str, Overlap]] = []
    for run in runs:
        found = masks_of(network, run, config)
        outlined = {o.id: mask for o, mask in zip(run.truth.organs, run.truth.masks, strict=True)}
        for organ, mask in zip(config.organs, found, strict=True):
            if organ.id in outlined:
                overlaps.append((organ.name, Overlap.of(mask, outlined[organ.id])))
    return mean_organ_dice(overlaps) or 0.0


def measured(
    network: nn.Module,
    stack: Stack,
    config: ModelConfig,
    corrected: Sequence[int],
    elsewhere: Mapping[str, Sequence[LabelledRun]],
) -> dict[str, Any]:
    """Of one network: on the rest of the stack, on the whole as the user has it, elsewhere."""
    run = stack.run
    found = masks_of(network, run, config)
    rest = [index for index in range(len(run.scan.voxels)) if index not in corrected]
    result: dict[str, Any] = {"rest": dices(found, run, config, rest)}
    truth = {organ.id: mask for organ, mask in zip(run.truth.organs, run.truth.masks, strict=True)}
    for organ, mask in zip(config.organs, found, strict=True):
        if organ.id in truth:
            mask[list(corrected)] = truth[organ.id][list(corrected)]
    every = list(range(len(run.scan.voxels)))
    result["whole"] = dices(found, run, config, every)
    result["hd95"] = hd95(found, run, config)
    for where, runs in elsewhere.items():
        result[where] = pooled_dice(network, runs, config) if runs else None
    return result


class Bench:
    """All simulations of one call, each kept in a file."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.stacks = stacks_of(options.data, options.models, options.patients or ())
        self.device = choose_device(options.device)
        self.results = options.work / "results"
        self.results.mkdir(parents=True, exist_ok=True)

    def cases(self) -> list[Case]:
        full = [Case(s.name, FULL, "queue", way) for s in self.stacks for way in WAYS]
        more = [
            Case(s.name, count, pick, "ours")
            for count in COUNTS for pick in PICKS for s in self.stacks
        ]  # fmt: skip
        by_chance = [
            Case(s.name, count, "random", "ours", seed)
            for seed in range(1, self.options.seeds) for count in SEVERAL_TIMES for s in self.stacks
        ]  # fmt: skip
        return list(dict.fromkeys([*full, *more, *by_chance]))

    @cache  # noqa: B019 - one bench lives as long as the program
    def segmented(self, name: str) -> Segmentation:
        stack = next(stack for stack in self.stacks if stack.name == name)
        return Segmenter(stack.model, device=self.options.device, once=True).segment(stack.run.scan)

    @cache  # noqa: B019
    def elsewhere(self, name: str) -> dict[str, list[LabelledRun]]:
        """Other days of the patient, patients whom the model does not know, some whom it does."""
        stack = next(stack for stack in self.stacks if stack.name == name)
        known = {other.patient: other for other in self.stacks if other.patient != stack.patient}
        return {
            "other day": [
                other.run for other in self.stacks
                if other.patient == stack.patient and other.name != name
            ],
            "strangers": strangers_of(self.options.data, self.options.models, stack.patient),
            "learnt from": [other.run for other in known.values()],
        }  # fmt: skip

    def result(self, case: Case) -> dict[str, Any]:
        file = self.results / case.file
        if not file.exists():
            stack = next(stack for stack in self.stacks if stack.name == case.day)
            content = self._simulated(case, stack)
            partial = file.with_suffix(".part")
            partial.write_text(json.dumps(content, indent=1))
            partial.replace(file)
            gain = _mean(content["after"]["rest"]) - _mean(content["before"]["rest"])
            print(f"{case.file}: rest {gain:+.3f}, {content['training_s']:.0f} s", flush=True)
        return json.loads(file.read_text())

    def _simulated(self, case: Case, stack: Stack) -> dict[str, Any]:
        found = self.segmented(stack.name)
        slices = picked(stack, found, case.count, case.pick, case.seed)
        elsewhere = self.elsewhere(stack.name) if case.count == FULL else {}
        lesson = lesson_of(
            [Corrections(stack.run.scan, stack.run.truth, tuple(slices))],
            model=stack.model, home=self.options.work / "home", device=self.device,
            settings=settings_of(case.way, self.options.steps), earlier=(),
        )  # fmt: skip
        begin, own = time.perf_counter(), time.process_time()
        network = learnt(lesson, case.way)
        seconds, cpu = time.perf_counter() - begin, time.process_time() - own
        return {
            **case._asdict(),
            "slices": slices,
            "before": self._before(stack, lesson, slices, elsewhere),
            "after": measured(network, stack, lesson.config, slices, elsewhere),
            "training_s": seconds,
            "training_cpu_s": cpu,
        }

    def _before(
        self, stack: Stack, lesson: Lesson, slices: Sequence[int], elsewhere: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Of the model as it was; what lies elsewhere is measured once."""
        result = measured(lesson.before, stack, lesson.config, slices, {})
        file = self.results / f"{stack.name}-before.json"
        if elsewhere and not file.exists():
            far = measured(lesson.before, stack, lesson.config, slices, elsewhere)
            file.write_text(json.dumps({where: far[where] for where in elsewhere}))
        return result | (json.loads(file.read_text()) if elsewhere else {})


# --- tables ---------------------------------------------------------------------------------


def _mean(by_organ: Mapping[str, float | None]) -> float:
    return mean_known(by_organ.values()) or 0.0


def _gain(result: Mapping[str, Any], what: str) -> float | None:
    before, after = result["before"].get(what), result["after"].get(what)
    if isinstance(before, dict):
        return _mean(after) - _mean(before)
    return None if before is None or after is None else after - before


def _signed(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:+.{digits}f}"


def ways_table(results: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    rows = []
    for way in WAYS:
        ours = [one for one in results if one["way"] == way and one["count"] == FULL
                and one["pick"] == "queue"]  # fmt: skip
        for one in ours:
            rows.append([
                way, one["day"], f"{_mean(one['before']['rest']):.3f}",
                *(_signed(_gain(one, what)) for what in
                  ("rest", "other day", "strangers", "learnt from")),
                _signed(_gain(one, "hd95"), 1), f"{one['training_cpu_s']:.0f}",
            ])  # fmt: skip
        means = [
            mean_known(_gain(one, what) for one in ours)
            for what in ("rest", "other day", "strangers", "learnt from", "hd95")
        ]
        rows.append([
            f"**{way}**", "**mean**", f"{mean_known(_mean(o['before']['rest']) for o in ours):.3f}",
            *(f"**{_signed(value)}**" for value in means[:4]), _signed(means[4], 1),
            f"{mean_known(o['training_cpu_s'] for o in ours):.0f}",
        ])  # fmt: skip
    return rows


def picks_table(results: Sequence[Mapping[str, Any]], what: str) -> list[list[str]]:
    rows = []
    for pick in PICKS:
        cells = []
        for count in COUNTS:
            ones = [one for one in results if one["way"] == "ours" and one["pick"] == pick
                    and one["count"] == count]  # fmt: skip
            cells.append(mean_known(_mean(one["after"][what]) for one in ones))
        rows.append([pick, *(f"{value:.3f}" if value is not None else "–" for value in cells)])
    return rows


def slices_for(results: Sequence[Mapping[str, Any]], pick: str, goal: float) -> float | None:
    """How many corrected slices reach a mean Dice of the whole stack, between those tried."""
    means = [
        mean_known(
            _mean(one["after"]["whole"]) for one in results
            if one["way"] == "ours" and one["pick"] == pick and one["count"] == count
        )
        for count in COUNTS
    ]  # fmt: skip
    if means[0] is not None and means[0] >= goal:
        return COUNTS[0]
    for low, high, begin, end in zip(COUNTS, COUNTS[1:], means, means[1:], strict=False):
        if begin is not None and end is not None and begin < goal <= end:
            return low + (high - low) * (goal - begin) / (end - begin)
    return None


def main() -> None:
    parser = shared_options(__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True, help="a run of gitract train --folds")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--patients", type=lambda text: text.split(","), default=None)
    parser.add_argument("--steps", type=int, default=FineTuneSettings().steps)
    parser.add_argument("--seeds", type=int, default=3, help="draws of what is chosen at random")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--share", default="1/1", help="which of how many processes this is")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    bench = Bench(options)
    which, of = (int(part) for part in options.share.split("/"))
    results = [bench.result(case) for case in bench.cases()[which - 1 :: of]]
    if of == 1:
        report(results, options)


def report(results: Sequence[Mapping[str, Any]], options: argparse.Namespace) -> None:
    threads = options.threads or os.cpu_count()
    days = sorted({one["day"] for one in results})
    finish(
        f"Fine-tuning on {FULL} corrected slices",
        ["Way", "Stack", "Dice of the rest before", "rest", "other day", "patients unknown to it",
         "patients it learnt from", "HD95 of the stack, mm", "CPU s"],
        ways_table(results),
        f"Mean Dice over organs; changes behind it. Held out by patient: {', '.join(days)}, each "
        "segmented and fine-tuned with the model of its fold, which has not seen the patient. "
        f"The queue chose {FULL} slices, which were replaced by the truth; *rest* are the "
        f"others. {options.steps} steps each; CPU seconds are those of the one training on all "
        f"corrected slices, on {threads} of the cores; the checks of the card take as long again "
        "for each of three parts. *Patients it learnt from* were in the model's training, so "
        "their Dice was high before; *unknown* ones were not.",
        options,
    )  # fmt: skip
    columns = ["Chosen by", *(f"{count} slices" for count in COUNTS)]
    goals = _goals(results)
    finish(
        "Which slices to correct",
        columns, picks_table(results, "whole"),
        "Mean Dice of the whole stack after fine-tuning, corrected slices as corrected, over "
        f"{', '.join(days)}. At random: mean over {options.seeds} draws of "
        f"{', '.join(map(str, SEVERAL_TIMES))} slices, one of others. {goals}",
        options,
    )  # fmt: skip
    finish(
        "Which slices to correct: what the model learns from them",
        columns, picks_table(results, "rest"),
        "Mean Dice of the slices that were not corrected, which are others for each choice.",
        options,
    )  # fmt: skip


def _goals(results: Sequence[Mapping[str, Any]]) -> str:
    """How many slices the queue needs for what the others reach."""
    sentences: list[str] = []

    def tell(slices: float | None) -> str:
        return "more than tried" if slices is None else f"{slices:.1f}"

    for pick in ("even", "random"):
        for count in SEVERAL_TIMES:
            ones = [one for one in results if one["way"] == "ours" and one["pick"] == pick
                    and one["count"] == count]  # fmt: skip
            goal = mean_known(_mean(one["after"]["whole"]) for one in ones)
            if goal is not None:
                needed = tell(slices_for(results, "queue", goal))
                chosen = "even ones" if pick == "even" else "chosen at random"
                sentences.append(f"The {goal:.3f} of {count} {chosen} take {needed} by the queue.")
    return " ".join(sentences)


if __name__ == "__main__":
    main()
