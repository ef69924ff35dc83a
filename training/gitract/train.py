"""Train a network by a recipe, and write it as a model folder with its numbers and a card."""

import copy
import hashlib
import json
import pickle
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from torch import nn

from gitract.data import split_by_patient
from gitract.data_report import DataReport, describe
from gitract.devices import choose_device
from gitract.engine import (
    Machines,
    SegmentationModule,
    batch_size_for,
    fitted,
    is_first_process,
    last_checkpoint,
    seed_everything,
)
from gitract.errors import InputError
from gitract.evaluate import Evaluation, evaluate_scans
from gitract.home import default_home
from gitract.labelled import Fault, LabelledScan, find_labelled, named_organs
from gitract.model_card import training_card
from gitract.model_config import CARD_FILE, CONFIG_FILE, ModelConfig, read_model_config
from gitract.models import save_model
from gitract.models.weights import build_network, is_from_a_hub, start_from
from gitract.organs import Organ
from gitract.predict import Segmenter
from gitract.prepared import Stack, prepared_stacks
from gitract.progress import Report, silent
from gitract.recipe import IMAGENET, Recipe, read_recipe
from gitract.replacing import replaced_file
from gitract.runner import on_device

__all__ = [
    "EVALUATION_FILE",
    "RECIPE_FILE",
    "Machines",
    "TrainingData",
    "TrainingResult",
    "check_network",
    "check_organs",
    "check_output",
    "check_same",
    "load_training_data",
    "recipe_organs",
    "train",
    "write_begun",
    "write_model",
]

RECIPE_FILE = "recipe.yaml"
RUN_FILE = "run.json"
DATA_FILE = "data.json"
EVALUATION_FILE = "evaluation.json"


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What a recipe finds in a data folder, prepared.

    Parameters
    ----------
    scans
        Found, not read.
    stacks
        The same, prepared for the network and memory-mapped.
    report
        What they are.
    """

    scans: tuple[LabelledScan, ...]
    stacks: tuple[Stack, ...]
    report: DataReport


@dataclass(frozen=True)
class TrainingResult:
    """Where the model is, and how it did on patients that it was not trained on."""

    model: Path
    evaluation: Evaluation | None


def default_cache() -> Path:
    """Where prepared scans are kept for the next run."""
    return default_home() / "cache"


def load_training_data(
    recipe: Recipe, folder: Path, *, cache: Path | None = None, report: Report = silent
) -> TrainingData:
    """Find and prepare everything that a recipe trains on.

    Parameters
    ----------
    recipe
        Its sources, organs and preparation are used.
    folder
        That the sources' paths are below.
    cache
        Folder for prepared scans, so that the next run starts at once; the user's when not
        given.
    report
        Called for each scan.

    Raises
    ------
    InputError
        A source is missing or damaged, or nobody outlined an organ of the recipe.
    """
    organs = recipe_organs(recipe)
    faults: list[Fault] = []
    scans = find_labelled(folder, recipe.sources, organs, report, faults.append)
    stacks = prepared_stacks(
        scans, organs, recipe.preparation, cache or default_cache(), report, faults.append
    )
    check_organs(stacks, organs, folder)
    return TrainingData(tuple(scans), tuple(stacks), describe(stacks, organs, faults))


def train(
    recipe: Recipe,
    data: TrainingData,
    *,
    output: Path,
    hold_out: Sequence[str] = (),
    machines: Machines = Machines(),  # noqa: B008 - it never changes
    resume: bool = False,
    report: Report = silent,
) -> TrainingResult:
    """Train a network and write it to ``output/model``.

    Beside it are ``recipe.yaml``, ``data.json`` (what it was trained on), ``log/metrics.csv``
    and ``log/curves.png`` (loss, and Dice of the held-out patients, for each epoch),
    ``checkpoints/last.ckpt`` for `resume`, ``checkpoints/best.ckpt``, and
    ``evaluation.json``, the scores of the model on the held-out scans' own grid.

    Parameters
    ----------
    recipe
        What to train, and how.
    data
        What `load_training_data` gave for the recipe.
    output
        Folder of the run; must not hold a model yet, nor a run that was begun, unless
        `resume`.
    hold_out
        Patients that are only tested on.
    machines
        What to train on.
    resume
        Go on from the last checkpoint in `output`.
    report
        Called for each batch, with the values ``loss`` and ``dice``.

    Raises
    ------
    InputError
        Held-out patients or `output` cannot be used, the loss is not finite, or memory or
        disk is full.
    """
    organs = recipe_organs(recipe)
    training, held_out = split_by_patient(data.stacks, hold_out)
    check_organs(training, organs, "the patients to train on")
    device = _device_of(machines)
    about = {"hold_out": sorted(hold_out), "data": _digest(data.stacks)}
    if is_first_process():
        _check_begun(recipe, about, output, resume=resume)
    checkpoint = last_checkpoint(output) if resume else None
    seed_everything(recipe.seed)
    seen = tuple(sorted({stack.patient for stack in training}))
    config = _config(recipe).model_copy(update={"trained_on": seen})
    network = on_device(build_network(config), torch.device("cpu"))
    if recipe.start is not None:
        config = _started(network, config, recipe.start, hold_out)
    recipe = _with_batch_size(recipe, network, training, machines, output if resume else None)
    module = SegmentationModule(network, recipe, organs)
    if is_first_process():
        write_begun(recipe, about, data.report, output)
    trainer = fitted(
        module, training, held_out, folder=output, machines=machines, device=device,
        resume_from=checkpoint, report=report,
    )  # fmt: skip
    if trainer.global_rank:  # one process writes the model
        return TrainingResult(output / "model", None)
    network.to(device)

    def card(written: ModelConfig, evaluation: Evaluation | None) -> str:
        return training_card(written, recipe, data.report, hold_out, evaluation)

    usable = {stack.name for stack in held_out}
    tested = [scan for scan in data.scans if scan.name in usable]
    return write_model(
        network, config, card, tested, output=output, machines=machines, report=report
    )


def write_model(
    network: nn.Module,
    config: ModelConfig,
    card: Callable[[ModelConfig, Evaluation | None], str],
    tested: Sequence[LabelledScan],
    *,
    output: Path,
    machines: Machines,
    report: Report = silent,
    evaluation: Evaluation | None = None,
) -> TrainingResult:
    """Write ``output/model`` and ``output/evaluation.json``, the model renamed into place last.

    Parameters
    ----------
    network, config
        What to write.
    card
        Makes the model card.
    tested
        Scans to score the model on.
    evaluation
        Scores that are known already, in place of `tested`.
    """
    partial = output / "model.partial"
    shutil.rmtree(partial, ignore_errors=True)  # left by a run that was killed while saving
    config = save_model(network, config, "", partial)
    if tested:
        segmenter = Segmenter(partial, device=machines.device, once=True)
        evaluation = evaluate_scans(segmenter, tested, report=report)
    if evaluation is not None:
        config = config.model_copy(update={"dice": evaluation.mean_dice})
        with replaced_file(output / EVALUATION_FILE) as file:
            file.write_text(json.dumps(evaluation.as_dict(), indent=2), encoding="utf-8")
    content = config.model_dump_json(indent=2) + "\n"
    (partial / CONFIG_FILE).write_text(content, encoding="utf-8")
    (partial / CARD_FILE).write_text(card(config, evaluation), encoding="utf-8")
    partial.rename(output / "model")
    return TrainingResult(output / "model", evaluation)


# --- what a run begins with ---------------------------------------------------------------


def recipe_organs(recipe: Recipe) -> tuple[Organ, ...]:
    """The organs of a recipe.

    Raises
    ------
    InputError
        A name is not in the organ table, or twice.
    """
    return named_organs(recipe.organs, "The recipe")


def check_network(recipe: Recipe) -> None:
    """Build a recipe's network and let it go.

    Raises
    ------
    InputError
        There is no such network or organ, or an option does not fit.
    """
    build_network(_config(recipe))


def _config(recipe: Recipe) -> ModelConfig:
    """Of the model that a recipe makes."""
    return ModelConfig(
        id=recipe.id, title=recipe.title, network=recipe.network,
        preparation=recipe.preparation, organs=recipe_organs(recipe),
    )  # fmt: skip


def check_organs(stacks: Sequence[Stack], organs: Sequence[Organ], where: object) -> None:
    """Refuse to train an organ that nobody outlined: it would learn that it is never there."""
    outlined = {one.name for stack in stacks for one in stack.facts.organs if one.slices}
    for organ in organs:
        if organ.name not in outlined:
            raise InputError(
                f"{organ.title} is outlined on no slice of {where}: add scans that show it, or "
                f"leave {organ.name} out of `organs` in the recipe."
            )


def _started(
    network: nn.Module, config: ModelConfig, start: str, hold_out: Sequence[str]
) -> ModelConfig:
    """Take the weights to start from; whom they were trained on was seen here as well."""
    start_from(network, start)
    if start == IMAGENET or not (folder := Path(start)).is_dir() or is_from_a_hub(folder):
        return config
    before = read_model_config(folder).trained_on
    seen = sorted({*before} & {*hold_out})
    if seen:
        raise InputError(
            f"The start {start} was trained on {seen[0]}, who is held out here: start from other "
            "weights, or hold out other patients."
        )
    return config.model_copy(update={"trained_on": tuple(sorted({*config.trained_on, *before}))})


def _device_of(machines: Machines) -> torch.device:
    """The device that is chosen; with several of them, the kind."""
    device = choose_device(machines.device)
    if device.type == "cuda" and machines.devices > torch.cuda.device_count():
        raise InputError(
            f"{machines.devices} devices were asked for, and this machine has "
            f"{torch.cuda.device_count()} GPU(s)."
        )
    return device


def _digest(stacks: Sequence[Stack]) -> str:
    """What tells one set of scans from another."""
    named = [f"{stack.name} {stack.patient} {tuple(stack.masks.shape)}" for stack in stacks]
    return hashlib.sha256("\n".join(named).encode()).hexdigest()[:16]


def check_output(output: Path, begun: Path, *, resume: bool) -> None:
    """Check that a run may begin in a folder, or go on there.

    Parameters
    ----------
    output
        The folder.
    begun
        The file in it that tells that a run was begun.
    resume
        Whether it is to go on.

    Raises
    ------
    InputError
        There is a run and nothing was said of resuming it, or the other way round.
    """
    if (output / "model").exists():
        raise InputError(
            f"{output} already holds a run, which is finished: choose another folder for a new one."
        )
    if begun.exists() and not resume:
        raise InputError(f"{output} already holds a run: choose another folder, or resume it.")
    if resume and not begun.is_file():
        raise InputError(f"Nothing to resume: {begun} does not exist.")


def _check_begun(
    recipe: Recipe, about: Mapping[str, object], output: Path, *, resume: bool
) -> None:
    """Check that a run may write to `output`: a new one to a new folder, or the same one again.

    Raises
    ------
    InputError
        The folder holds a run and nothing was said of resuming it, or the other way round;
        or the run was begun with other settings, held-out patients or scans.
    """
    checkpoint = last_checkpoint(output)
    check_output(output, checkpoint, resume=resume)
    if resume:
        check_same(recipe, about, output)
        try:
            torch.load(checkpoint, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise InputError(
                f"The checkpoint {checkpoint} is damaged: begin another run, from the weights of "
                "an earlier one if there is one."
            ) from error


def check_same(recipe: Recipe, about: Mapping[str, object], output: Path) -> None:
    """Refuse to go on with a run that was begun with something else.

    Raises
    ------
    InputError
        Says what differs, or that the run does not say what it was begun with.
    """
    try:
        before = yaml.safe_load((output / RECIPE_FILE).read_text(encoding="utf-8"))
        others = json.loads((output / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(
            f"The run in {output} cannot be resumed, since it does not say what it was begun "
            f"with: {RECIPE_FILE} or {RUN_FILE} cannot be read."
        ) from error
    now = recipe.model_dump(mode="json")
    if now["optimisation"]["batch_size"] == "auto":  # a number was found for it
        now["optimisation"]["batch_size"] = before["optimisation"]["batch_size"]
    changed = [key for key in now if now[key] != before.get(key)]
    changed += [key for key in about if about[key] != others.get(key)]
    if changed:
        raise InputError(
            f"The run in {output} was begun with other settings ({', '.join(changed)}): resume it "
            "with the same ones, or begin another run."
        )


def write_begun(
    recipe: Recipe, about: Mapping[str, object], described: DataReport, output: Path
) -> None:
    """Write what a run is made of, for people and for `check_same`."""
    output.mkdir(parents=True, exist_ok=True)
    with replaced_file(output / RECIPE_FILE) as file:
        content = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
        file.write_text(content, encoding="utf-8")
    for name, about_it in ((RUN_FILE, about), (DATA_FILE, described.as_dict())):
        with replaced_file(output / name) as file:
            file.write_text(json.dumps(about_it, indent=2), encoding="utf-8")


def _with_batch_size(
    recipe: Recipe,
    network: nn.Module,
    training: Sequence[Stack],
    machines: Machines,
    resumed: Path | None,
) -> Recipe:
    """The recipe with a number as its batch size; of a resumed run, the one it had."""
    if recipe.optimisation.batch_size != "auto":
        return recipe
    if resumed is not None:
        return read_recipe(resumed / RECIPE_FILE)
    trial = SegmentationModule(copy.deepcopy(network), recipe, recipe_organs(recipe))
    size = batch_size_for(trial, training, machines, choose_device(machines.device))
    optimisation = recipe.optimisation.model_copy(update={"batch_size": size})
    return recipe.model_copy(update={"optimisation": optimisation})
