"""Train a recipe once for each group of patients, without them, and score it on them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, ValidationError

from gitract.calibration import LogitCounts, calibrated
from gitract.data import split_by_patient
from gitract.engine import is_first_process, last_checkpoint, stack_logits
from gitract.errors import InputError
from gitract.evaluate import Evaluation
from gitract.model_card import training_card
from gitract.model_config import ModelConfig, read_model_config
from gitract.models.ensemble import ensemble_of
from gitract.models.weights import load_network
from gitract.prepared import Stack
from gitract.progress import Progress, Report, prefixed, silent
from gitract.recipe import Recipe, read_recipe
from gitract.replacing import replaced_file
from gitract.strict import StrictModel
from gitract.train import (
    EVALUATION_FILE,
    RECIPE_FILE,
    Machines,
    TrainingData,
    TrainingResult,
    check_organs,
    check_output,
    check_same,
    recipe_organs,
    train,
    write_begun,
    write_model,
)

__all__ = [
    "SPLIT_FILE",
    "Final",
    "Split",
    "cross_validate",
    "make_split",
    "read_split",
    "write_split",
]

Final = Literal["ensemble", "everyone"]
SPLIT_FILE = "split.yaml"


class Split(StrictModel):
    """Who is held out of which fold; a patient in no fold is always trained on."""

    folds: tuple[Annotated[tuple[str, ...], Field(min_length=1)], ...] = Field(min_length=2)


def make_split(stacks: Sequence[Stack], folds: int) -> Split:
    """Share patients out so that the folds have about equally many slices with organs.

    Raises
    ------
    InputError
        There are fewer patients than folds.
    """
    slices: dict[str, int] = {}
    for stack in stacks:
        slices[stack.patient] = slices.get(stack.patient, 0) + len(stack.organ_slices)
    if not 2 <= folds <= len(slices):
        raise InputError(
            f"{folds} folds cannot be made of {len(slices)} patients: choose 2 to {len(slices)}."
        )
    groups: list[list[str]] = [[] for _ in range(folds)]
    filled = [0] * folds
    for patient in sorted(slices, key=lambda name: (-slices[name], name)):
        emptiest = filled.index(min(filled))
        groups[emptiest].append(patient)
        filled[emptiest] += slices[patient]
    return Split(folds=tuple(tuple(sorted(group)) for group in groups))


def read_split(path: Path) -> Split:
    """Read a split file.

    Raises
    ------
    InputError
        It cannot be read or is no split, or a patient is in two folds.
    """
    try:
        split = Split.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"The split {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValidationError) as error:
        raise InputError(
            f"The split {path} is not a list `folds` of at least two lists of patients."
        ) from error
    patients = [patient for fold in split.folds for patient in fold]
    twice = sorted({patient for patient in patients if patients.count(patient) > 1})
    if twice:
        raise InputError(f"The split {path} has {twice[0]} in two folds: leave it in one.")
    return split


def write_split(split: Split, path: Path) -> None:
    """Write a split file, readable and to be given to another run."""
    with replaced_file(path) as file:
        content = yaml.safe_dump(split.model_dump(mode="json"), sort_keys=False)
        file.write_text(content, encoding="utf-8")


@dataclass(frozen=True)
class _Folds:
    """What all trainings of a cross-validation share."""

    recipe: Recipe
    data: TrainingData
    output: Path
    machines: Machines
    resume: bool
    report: Report

    def trained(self, name: str, title: str, hold_out: Sequence[str]) -> TrainingResult:
        """A training below the output folder, unless it is done; one begun is gone on with."""
        folder = self.output / name
        if (folder / "model").exists():
            scores = folder / EVALUATION_FILE
            return TrainingResult(
                folder / "model", Evaluation.read(scores) if scores.exists() else None
            )
        begun = last_checkpoint(folder).exists()
        return train(
            self.recipe, self.data, output=folder, hold_out=hold_out, machines=self.machines,
            resume=self.resume and begun, report=prefixed(self.report, title),
        )  # fmt: skip


def cross_validate(
    recipe: Recipe,
    data: TrainingData,
    split: Split,
    *,
    output: Path,
    final: Final = "ensemble",
    machines: Machines = Machines(),  # noqa: B008 - it never changes
    resume: bool = False,
    report: Report = silent,
) -> TrainingResult:
    """Train a fold for each group of patients, score it on them, and write ``output/model``.

    Every fold is a run of its own in ``output/fold-1`` ...; the split is in
    ``output/split.yaml``, the scores of all patients together in
    ``output/evaluation.json``.

    Parameters
    ----------
    recipe, data, machines, report
        As for `gitract.train.train`.
    split
        Who is held out of which fold.
    output
        Must not hold a run yet, unless `resume`.
    final
        What the model is: the ``ensemble`` of all folds, by mean probability, or one more
        network that is trained on ``everyone``; its card then has the scores of the folds.
    resume
        Keep the folds that are done, go on with the one that was begun.

    Raises
    ------
    InputError
        As for `gitract.train.train`; or a fold leaves an organ without a slice to learn from,
        or `output` holds another run.
    """
    _check_folds(recipe, data, split)
    if is_first_process():
        _begin(recipe, data, split, output, resume=resume)
    folds = _Folds(recipe, data, output, machines, resume, report)
    count = len(split.folds)
    results = [
        folds.trained(f"fold-{number}", f"Fold {number} of {count}", held_out)
        for number, held_out in enumerate(split.folds, start=1)
    ]
    everyone = folds.trained("everyone", "On everyone", ()) if final == "everyone" else None
    if not is_first_process():
        return TrainingResult(output / "model", None)
    evaluation = Evaluation.merged([r.evaluation for r in results if r.evaluation is not None])
    if everyone is not None:
        network, config = load_network(everyone.model)
    else:
        network, config = ensemble_of([result.model for result in results])
        seen = {patient for r in results for patient in read_model_config(r.model).trained_on}
        config = config.model_copy(update={"trained_on": tuple(sorted(seen))})

    calibration = None
    if everyone is not None:  # an ensemble is less sure than its members, by who knows how much
        report(Progress(0, 0, "Calibrating on those held out"))
        models = zip(results, split.folds, strict=True)
        calibration = calibrated([_answers(one.model, data, held_out) for one, held_out in models])
    if calibration is not None:
        config = config.model_copy(update={"temperature": round(calibration.temperature, 3)})

    def card(written: ModelConfig, scores: Evaluation | None) -> str:
        held_out = [patient for fold in split.folds for patient in fold]
        trained_by = read_recipe(results[0].model.parent / RECIPE_FILE)  # with its batch size
        return training_card(
            written, trained_by, data.report, held_out, scores,
            final=final, calibration=calibration,
        )  # fmt: skip

    return write_model(
        network, config, card, (), output=output, machines=machines, evaluation=evaluation
    )


def _answers(model: Path, data: TrainingData, held_out: Sequence[str]) -> tuple[str, LogitCounts]:
    """Who is held out of a fold, and what its network answered on them, organ by organ."""
    network, config = load_network(model)
    _, stacks = split_by_patient(data.stacks, held_out)
    total = LogitCounts.nothing()
    for stack in stacks:
        logits = stack_logits(network, stack, config.preparation)
        for maps, truth, known in zip(logits, stack.masks.numpy(), stack.known, strict=True):
            if known:
                total = total + LogitCounts.of(maps, truth)
    return ", ".join(held_out), total


def _check_folds(recipe: Recipe, data: TrainingData, split: Split) -> None:
    """Refuse before hours of training what would fail in a later fold."""
    organs = recipe_organs(recipe)
    for number, held_out in enumerate(split.folds, start=1):
        training, _ = split_by_patient(data.stacks, held_out)
        check_organs(training, organs, f"the patients to train on in fold {number}")


def _begin(recipe: Recipe, data: TrainingData, split: Split, output: Path, *, resume: bool) -> None:
    path = output / SPLIT_FILE
    check_output(output, path, resume=resume)
    if not resume:
        write_begun(recipe, {}, data.report, output)
        write_split(split, path)
    elif read_split(path) != split:
        raise InputError(f"The run in {output} has another split: give it as --split {path}.")
    else:
        check_same(recipe, {}, output)
