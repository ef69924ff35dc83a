"""What benchmarks share that train a recipe on folds of a split."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gitract.engine import last_checkpoint
from gitract.evaluation import Evaluation
from gitract.recipe import Recipe
from gitract.train import EVALUATION_FILE, Machines, TrainingData, train

__all__ = ["ORGANS", "WHOLE_STACK", "chosen_folds", "of_patients", "scored", "stack_dice"]

ORGANS = ("stomach", "large_bowel", "small_bowel")
WHOLE_STACK = 20  # slices; some scans are a few slices of a stack


def chosen_folds(option: str | None, count: int) -> list[int]:
    """Numbers of folds, from 1, of an option such as ``1,3``; None: all."""
    return [int(number) for number in option.split(",")] if option else [*range(1, count + 1)]


def of_patients(data: TrainingData, patients: Collection[str]) -> TrainingData:
    """The part of the data that shows them."""
    return replace(
        data,
        scans=tuple(scan for scan in data.scans if scan.patient in patients),
        stacks=tuple(stack for stack in data.stacks if stack.patient in patients),
    )


def scored(
    recipe: Recipe, data: Callable[[], TrainingData], held_out: Sequence[str], output: Path
) -> Evaluation:
    """Scores on the patients held out of a training, which is done or gone on with if need be."""
    if not (output / "model").exists():
        resume = last_checkpoint(output).exists()
        machines = Machines("cpu")
        train(
            recipe, data(), output=output, hold_out=held_out, machines=machines, resume=resume
        )  # fmt: skip
    return Evaluation.read(output / EVALUATION_FILE)


def stack_dice(evaluation: Evaluation) -> dict[str, float]:
    """Mean Dice by organ over patients with whole stacks; a few slices of one are too few."""
    stacks = [
        score
        for score in evaluation.scores
        if score.slices >= WHOLE_STACK and score.dice is not None
    ]
    by_organ: dict[str, dict[str, list[float]]] = {}
    for score in stacks:
        patients = by_organ.setdefault(score.organ, {})
        patients.setdefault(score.patient, []).append(score.dice or 0.0)
    return {
        organ: float(np.mean([np.mean(values) for values in patients.values()]))
        for organ, patients in by_organ.items()
    }
