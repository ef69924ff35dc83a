"""Train a network on a recipe, and write it as a model folder."""

import logging
import math
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn
from torch.utils.data import DataLoader, Sampler

from gitract.data import Batches, Stack, load_stacks, split_by_patient
from gitract.devices import choose_device
from gitract.errors import Cancelled, InputError
from gitract.losses import masked_bce_dice
from gitract.metrics import dice, mean_over_patients
from gitract.model_card import training_card
from gitract.model_config import ModelConfig
from gitract.models import save_model
from gitract.models.weights import build_network
from gitract.organs import ORGANS
from gitract.predict import masks_of_slices
from gitract.progress import Progress, Report, silent
from gitract.recipe import Recipe
from gitract.torchvision_guard import ensure_torchvision

ensure_torchvision()
import lightning  # noqa: E402 - torchvision must be made importable first
from lightning.pytorch.callbacks import (  # noqa: E402
    Callback,
    ModelCheckpoint,
    WeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger  # noqa: E402

__all__ = ["PatientScore", "TrainingResult", "train"]


@dataclass(frozen=True)
class PatientScore:
    """3-D Dice of one held-out scan, by organ name; None where truth and answer are empty."""

    name: str
    patient: str
    dice: dict[str, float | None]


@dataclass(frozen=True)
class TrainingResult:
    """Where the model is, and how it did on the held-out patients."""

    model: Path
    scores: tuple[PatientScore, ...]


class _StepSampler(Sampler[int]):
    """Batch numbers of one epoch, counted from the step that the run is at.

    Lightning's epoch number would do, but not after a resume: there it is one too high, or
    comes after the first batch.
    """

    def __init__(self, module: lightning.LightningModule, steps_per_epoch: int) -> None:
        self._module = module
        self._steps = steps_per_epoch

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Any:
        first = self._module.global_step
        return iter(range(first, first + self._steps))


class SegmentationModule(lightning.LightningModule):
    """The network with its loss, optimiser and validation on held-out scans."""

    def __init__(self, network: nn.Module, recipe: Recipe, held_out: list[list[Stack]]) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.recipe = recipe
        self.held_out = held_out

    def training_step(self, batch: tuple[torch.Tensor, ...], index: int) -> torch.Tensor:
        images, masks, known = batch
        logits = self.network(images.contiguous(memory_format=torch.channels_last))
        weight = self.recipe.optimisation.dice_weight
        loss = masked_bce_dice(logits, masks, known, dice_weight=weight)
        if not torch.isfinite(loss):
            raise InputError(
                f"The loss is {loss.item()} at step {self.global_step}: "
                "lower optimisation.learning_rate."
            )
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: int, index: int) -> None:
        runs = self.held_out[int(batch)]
        for organ, score in _scan_dice(self.network, runs, self.recipe).dice.items():
            if score is not None:
                self.log(f"dice_{organ}", score, batch_size=1, on_epoch=True)
                self.log("dice", score, batch_size=1, on_epoch=True)

    def configure_optimizers(self) -> Any:
        settings = self.recipe.optimisation
        optimizer = torch.optim.AdamW(
            self.network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
        )

        def factor(step: int) -> float:
            if step < settings.warm_up:
                return (step + 1) / settings.warm_up
            done = (step - settings.warm_up) / max(1, settings.steps - settings.warm_up)
            return 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class _Reporter(Callback):
    """Pass progress on after each step."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
        values = {"loss": float(outputs["loss"])}
        if "dice" in trainer.callback_metrics:
            values["dice"] = float(trainer.callback_metrics["dice"])
        done, total = trainer.global_step, module.recipe.optimisation.steps
        self._report(Progress(done, total, f"Step {done} of {total}", values))


def _answer(network: nn.Module, stack: Stack, recipe: Recipe) -> np.ndarray:
    """Masks ``(organ, slice, row, column)`` of a prepared stack, at the network's pixel size."""
    size = (stack.slices.shape[1], stack.slices.shape[2])
    indices = list(range(len(stack.slices)))
    found = masks_of_slices(network, stack.slices, indices, recipe.preparation, size)
    return np.concatenate([masks for _, masks in found]).swapaxes(0, 1)


def _scan_dice(network: nn.Module, runs: Sequence[Stack], recipe: Recipe) -> PatientScore:
    """Score all runs of slices of one scan together."""
    organs = len(ORGANS)
    answers = [_answer(network, run, recipe).reshape(organs, -1) for run in runs]
    answer = np.concatenate(answers, axis=1)
    truth = torch.cat([run.masks.flatten(1) for run in runs], dim=1).numpy()
    scores = {
        organ.name: dice(answer[i], truth[i]) for i, organ in enumerate(ORGANS) if runs[0].known[i]
    }
    return PatientScore(runs[0].name, runs[0].patient, scores)


def _by_scan(stacks: Sequence[Stack]) -> list[list[Stack]]:
    """Runs of slices of the same scan together: a scan that lacks slices has several."""
    scans: dict[str, list[Stack]] = {}
    for stack in stacks:
        scans.setdefault(stack.name, []).append(stack)
    return list(scans.values())


def _moving_average(decay: float) -> WeightAveraging:
    """Exponential average of weights and batch statistics, short at first.

    With a constant decay the random initial weights would weigh for hundreds of steps.
    """

    def average(mean: torch.Tensor, new: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        step = float(count)
        share = 1.0 - min(decay, (1.0 + step) / (10.0 + step))
        return mean + (new - mean) * share

    return WeightAveraging(use_buffers=True, avg_fn=average)


def _trainer(
    recipe: Recipe, output: Path, device: torch.device, validate: bool, callbacks: list[Callback]
) -> lightning.Trainer:
    settings = recipe.optimisation
    every_epoch = ModelCheckpoint(
        dirpath=output / "checkpoints", filename="epoch", save_last=True, every_n_epochs=1
    )
    return lightning.Trainer(
        accelerator={"cuda": "gpu"}.get(device.type, device.type),
        devices=[device.index or 0] if device.type == "cuda" else 1,
        max_steps=settings.steps,
        max_epochs=-1,
        logger=CSVLogger(output, name="", version="log"),
        callbacks=[*callbacks, every_epoch],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=1.0 if validate else 0,
        log_every_n_steps=settings.steps_per_epoch,
        gradient_clip_val=1.0,
        use_distributed_sampler=False,
    )


def _quieten_lightning() -> None:
    """Keep hints that are not for our users out of their terminal."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")


def train(
    recipe: Recipe,
    *,
    data: Path,
    output: Path,
    hold_out: Sequence[str] = (),
    device: str = "auto",
    resume: bool = False,
    report: Report = silent,
) -> TrainingResult:
    """Train a network and write it to ``output/model``.

    Beside it are ``recipe.yaml``, ``log/metrics.csv`` (loss, and Dice of the held-out
    patients, for each epoch) and ``checkpoints/last.ckpt`` for `resume`.

    Parameters
    ----------
    recipe
        What to train, and how.
    data
        Folder that the recipe's sources are below.
    output
        Folder of the run; must not hold a model yet, unless `resume`.
    hold_out
        Patients that are only validated on.
    device
        ``auto``, ``cpu``, ``cuda[:N]`` or ``mps``.
    resume
        Go on from the last checkpoint in `output`.
    report
        Called for each batch, with the values ``loss`` and ``dice``.

    Raises
    ------
    InputError
        Data, held-out patients or `output` cannot be used, or the loss is not finite.
    """
    checkpoint = output / "checkpoints" / "last.ckpt"
    if resume and not checkpoint.is_file():
        raise InputError(f"Nothing to resume: {checkpoint} does not exist.")
    if (output / "model").exists() or (checkpoint.exists() and not resume):
        raise InputError(f"{output} already holds a run: choose another folder, or resume it.")
    torch_device = choose_device(device)
    stacks = load_stacks(recipe, data, report)
    training, rest = split_by_patient(stacks, hold_out)
    held_out = _by_scan(rest)
    output.mkdir(parents=True, exist_ok=True)
    (output / "recipe.yaml").write_text(
        yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False), encoding="utf-8"
    )

    _quieten_lightning()
    lightning.seed_everything(recipe.seed, verbose=False)
    config = ModelConfig(
        id=recipe.id, title=recipe.title, network=recipe.network, preparation=recipe.preparation
    )
    module = SegmentationModule(build_network(config), recipe, held_out)
    settings = recipe.optimisation
    epochs = math.ceil(settings.steps / settings.steps_per_epoch)
    batches = Batches(training, recipe, epochs * settings.steps_per_epoch)
    average = _moving_average(settings.ema_decay)
    callbacks = [average, _Reporter(report)]
    trainer = _trainer(recipe, output, torch_device, bool(held_out), callbacks)
    try:
        trainer.fit(
            module,
            DataLoader(
                batches, batch_size=None, sampler=_StepSampler(module, settings.steps_per_epoch)
            ),
            DataLoader(range(len(held_out)), batch_size=None),  # type: ignore[arg-type]
            ckpt_path=checkpoint if resume else None,
        )
    except SystemExit as interrupted:  # Lightning's answer to Ctrl+C
        raise Cancelled("Training was interrupted; --resume goes on.") from interrupted
    average.on_train_end(trainer, module)  # skipped where a run is resumed at its end
    module.network.eval()
    scores = [_scan_dice(module.network, runs, recipe) for runs in held_out]
    config = config.model_copy(
        update={
            "dice": mean_over_patients(
                (score.patient, organ, value)
                for score in scores
                for organ, value in score.dice.items()
            )
        }
    )
    card = training_card(config, recipe, training, scores)
    partial = output / "model.partial"
    shutil.rmtree(partial, ignore_errors=True)  # left by a run that was killed while saving
    save_model(module.network, config, card, partial)
    partial.rename(output / "model")
    return TrainingResult(output / "model", tuple(scores))
