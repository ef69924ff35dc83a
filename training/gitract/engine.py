"""How a network is trained: one step, validation, checkpoints, several devices."""

import copy
import logging
import math
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from gitract.data import Batch, Batches
from gitract.devices import is_out_of_memory
from gitract.errors import Cancelled, InputError
from gitract.history import Row, write_history
from gitract.looks import prepared_logits
from gitract.losses import SegmentationLoss
from gitract.metrics import dice, mean_over_patients
from gitract.model_config import Preparation
from gitract.models.outputs import as_outputs
from gitract.organs import Organ
from gitract.prepared import Stack
from gitract.progress import Progress, Report
from gitract.recipe import Recipe
from gitract.replacing import written_beside
from gitract.runner import Runner
from gitract.torchvision_guard import ensure_torchvision

ensure_torchvision()
import lightning  # noqa: E402 - torchvision must be made importable first
from lightning.fabric.utilities import rank_zero_only  # noqa: E402
from lightning.pytorch.callbacks import (  # noqa: E402
    Callback,
    EarlyStopping,
    ModelCheckpoint,
    WeightAveraging,
)
from lightning.pytorch.loggers import TensorBoardLogger  # noqa: E402
from lightning.pytorch.plugins.io import TorchCheckpointIO  # noqa: E402
from lightning.pytorch.strategies import DDPStrategy  # noqa: E402

__all__ = [
    "Machines",
    "SegmentationModule",
    "batch_size_for",
    "fitted",
    "is_first_process",
    "last_checkpoint",
    "largest_batch_size",
    "seed_everything",
    "stack_masks",
]

_MOST_ON_GPU = 64
_ON_CPU = 16


class _Gather(torch.autograd.Function):
    """What all processes hold, one after the other, with gradients.

    Every process computes the same loss from the whole; a process's own gradient is the sum
    over all of them of what they have for its part, of which DDP then takes the mean.
    """

    @staticmethod
    def forward(context: Any, part: torch.Tensor) -> torch.Tensor:
        context.count = len(part)
        everybody = [torch.empty_like(part) for _ in range(distributed.get_world_size())]
        distributed.all_gather(everybody, part.contiguous())
        return torch.cat(everybody)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> torch.Tensor:
        total = gradients[0].contiguous()
        distributed.all_reduce(total)
        first = distributed.get_rank() * context.count
        return total[first : first + context.count]


class SegmentationModule(lightning.LightningModule):
    """The network with its loss, optimiser and validation on held-out scans.

    Parameters
    ----------
    network
        Trained in place.
    recipe
        Losses and optimisation.
    organs
        What the network outlines.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, organs: Sequence[Organ]) -> None:
        super().__init__()
        self.network = network
        self.recipe = recipe
        self.organs = organs
        settings = recipe.optimisation
        self._loss = SegmentationLoss(
            recipe.losses,
            deep_supervision=settings.deep_supervision,
            presence=settings.presence,
            reconstruction=settings.reconstruction,
        )
        self._scores: dict[str, tuple[str, dict[str, float | None]]] = {}
        self._last_checkpoint = 0

    def loss(self, batch: Batch) -> torch.Tensor:
        """Of a batch, over all processes: each computes the whole from everybody's outputs.

        Terms such as Dice are no mean over samples, so a mean of the processes' losses
        would be another loss than that of one process with the same batch.
        """
        output = as_outputs(self.network(_channels_last(batch.images)))
        return self._loss(
            output.mapped(lambda part: self._gathered(part.float())),
            self._gathered(batch.masks),
            self._gathered(batch.known),
            batch.images if output.reconstruction is None else self._gathered(batch.images),
        )

    def _gathered(self, part: torch.Tensor) -> torch.Tensor:
        trainer = self._trainer  # None where only the size of a batch is tried
        if trainer is None or trainer.world_size == 1:
            return part
        gathered: torch.Tensor = _Gather.apply(part)
        return gathered

    def on_train_batch_start(self, batch: Batch, index: int) -> None:
        """Dropout, too, depends on the seed and the step alone, so a run can resume."""
        drawn = np.random.SeedSequence((self.recipe.seed, self.global_step, self.global_rank))
        torch.manual_seed(int(drawn.generate_state(1)[0]))

    def training_step(self, batch: Batch, index: int) -> torch.Tensor:
        loss = self.loss(batch)
        if not torch.isfinite(loss):
            where = f"slices of {', '.join(sorted(set(batch.names))[:4])}"
            raise self._diverged(f"loss is {loss.item()} on {where}")
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=1)
        return loss

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Stop before a step that would spoil the weights; half precision skips such steps."""
        if self.trainer.precision == "16-mixed":
            return
        gradients = [one.grad for one in self.network.parameters() if one.grad is not None]
        if not torch.isfinite(torch.stack(torch._foreach_norm(gradients)).sum()):
            raise self._diverged("gradient is not finite")

    def _diverged(self, what: str) -> InputError:
        kept = (
            f"; the weights of step {self._last_checkpoint} are in checkpoints/last.ckpt"
            if self._last_checkpoint
            else ""
        )
        return InputError(
            f"The {what} at step {self.global_step}: lower optimisation.learning_rate{kept}."
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._last_checkpoint = self.global_step

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Begin with a whole epoch: Lightning would end the one of the checkpoint once more."""
        self._last_checkpoint = int(checkpoint["global_step"])
        loop = checkpoint["loops"]["fit_loop"]
        batches, epochs = loop["epoch_loop.batch_progress"], loop["epoch_progress"]
        batches["current"] = dict.fromkeys(batches["current"], 0)
        batches["is_last_batch"] = False
        for part in ("total", "current"):
            epochs[part]["processed"] = epochs[part]["completed"] = epochs[part]["ready"]

    def validation_step(self, batch: list[Stack], index: int) -> None:
        name, patient, scores = _scan_dice(self.network, batch, self.recipe, self.organs)
        self._scores[name] = patient, scores

    def on_validation_epoch_end(self) -> None:
        scores = self._scores
        if self.trainer.world_size > 1:
            everybody: list[dict[str, Any]] = [{}] * self.trainer.world_size
            torch.distributed.all_gather_object(everybody, scores)
            scores = {name: score for part in everybody for name, score in part.items()}
        self._scores = {}
        means = mean_over_patients(
            (patient, organ, value)
            for patient, by_organ in scores.values()
            for organ, value in by_organ.items()
        )
        for organ, value in means.items():
            self.log(f"dice_{organ}", value, batch_size=1)
        # An early stop and the best checkpoint need a number even where nothing was found.
        self.log("dice", float(np.mean(list(means.values()) or [0.0])), batch_size=1)

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Batches go to the device; held-out scans stay, their slices go as they are needed."""
        if isinstance(batch, list):
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def configure_optimizers(self) -> Any:
        settings = self.recipe.optimisation
        parameters = self.network.parameters()
        rate, decay = settings.learning_rate, settings.weight_decay
        optimizer: torch.optim.Optimizer = (
            torch.optim.AdamW(parameters, rate, weight_decay=decay)
            if settings.optimiser == "adamw"
            else torch.optim.SGD(parameters, rate, momentum=0.99, nesterov=True, weight_decay=decay)
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _factor(self, step: int) -> float:
        """Of the learning rate at a step."""
        settings = self.recipe.optimisation
        if step < settings.warm_up:
            return (step + 1) / settings.warm_up
        done = (step - settings.warm_up) / max(1, settings.steps - settings.warm_up)
        left = 1.0 - min(1.0, done)
        match settings.schedule:
            case "cosine":
                return 0.5 * (1.0 - math.cos(math.pi * left))
            case "poly":
                return float(left**0.9)
            case "constant":
                return 1.0


def _channels_last(images: torch.Tensor) -> torch.Tensor:
    """The memory layout in which 2-D convolutions are fastest."""
    return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images


# --- validation -------------------------------------------------------------------------


def stack_logits(network: nn.Module, stack: Stack, preparation: Preparation) -> np.ndarray:
    """A network's logits ``(organ, slice, row, column)`` of a prepared stack, on its own grid."""
    runner = Runner(network, preparation.patch)
    found = prepared_logits(runner, stack.slices, range(len(stack.slices)), preparation)
    return np.concatenate([logits.cpu().numpy() for _, logits in found]).swapaxes(0, 1)


def stack_masks(network: nn.Module, stack: Stack, recipe: Recipe) -> np.ndarray:
    """As `stack_logits`, decided at a probability of one half."""
    return stack_logits(network, stack, recipe.preparation) > 0


def _scan_dice(
    network: nn.Module, runs: Sequence[Stack], recipe: Recipe, organs: Sequence[Organ]
) -> tuple[str, str, dict[str, float | None]]:
    """Name, patient and Dice by organ of a scan, all its runs of slices scored together."""
    answers = [stack_masks(network, run, recipe).reshape(len(organs), -1) for run in runs]
    answer = np.concatenate(answers, axis=1)
    truth = torch.cat([run.masks.flatten(1) for run in runs], dim=1).numpy()
    scores = {
        organ.name: dice(answer[i], truth[i]) for i, organ in enumerate(organs) if runs[0].known[i]
    }
    return runs[0].name, runs[0].patient, scores


class _HeldOut(Dataset[list[Stack]]):
    """Held-out scans, each with its runs of slices, shared out among the processes.

    Every process gets equally many, so that none waits for another: the last ones may come
    twice.
    """

    def __init__(self, stacks: Sequence[Stack], share: tuple[int, int] = (0, 1)) -> None:
        by_scan: dict[str, list[Stack]] = {}
        for stack in stacks:
            by_scan.setdefault(stack.name, []).append(stack)
        scans = list(by_scan.values())
        process, processes = share
        rounds = math.ceil(len(scans) / processes)
        self._scans = [scans[i % len(scans)] for i in range(process, rounds * processes, processes)]

    def __len__(self) -> int:
        return len(self._scans)

    def __getitem__(self, index: int) -> list[Stack]:
        return self._scans[index]


# --- what happens beside the steps ------------------------------------------------------


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

    def __iter__(self) -> Iterator[int]:
        first = self._module.global_step
        return iter(range(first, first + self._steps))


class _Reporter(Callback):
    """Pass progress on after each step."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
        if trainer.global_rank:
            return
        values = {"loss": float(outputs["loss"])}
        if "dice" in trainer.callback_metrics:
            values["dice"] = float(trainer.callback_metrics["dice"])
        done, total = trainer.global_step, module.recipe.optimisation.steps
        self._report(Progress(done, total, f"Step {done} of {total}", values))


class _History(Callback):
    """The numbers of every epoch, in the checkpoint and so whole after a resume, and as files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows: list[Row] = []

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        measured = {name: float(value) for name, value in trainer.callback_metrics.items()}
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        names = sorted(measured, key=lambda name: (not name.startswith("loss"), name))
        self._rows.append(
            {"step": trainer.global_step, **{n: measured[n] for n in names}, "learning_rate": rate}
        )
        if not trainer.global_rank:
            colours = {organ.name: organ.color for organ in module.organs}
            write_history(self._rows, self._folder, colours)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self._rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._rows = list(state_dict["rows"])


class _AtomicCheckpoints(TorchCheckpointIO):
    """Write beside and rename: a run that is killed while saving keeps what it had."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, *_: Any, **__: Any) -> None:
        final = Path(path)
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            for left in final.parent.glob(f".{final.name}.*.part"):  # by a run that was killed
                left.unlink()
            with written_beside(final) as partial, partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "write" not in str(error):
                raise  # torch hides a full disk in such an error, but not only that
            raise InputError(
                f"The checkpoint {final} cannot be written: make room and go on with --resume; "
                "the last one that was written is whole."
            ) from error


def _moving_average(decay: float) -> WeightAveraging:
    """Exponential average of weights and batch statistics, short at first.

    With a constant decay the random initial weights would weigh for hundreds of steps.
    """

    def average(means: Any, values: Any, count: Any) -> None:
        step = float(count)
        share = 1.0 - min(decay, (1.0 + step) / (10.0 + step))
        if means[0].is_floating_point():
            torch._foreach_lerp_(means, values, share)
        else:  # counters of batch normalisation
            torch._foreach_copy_(means, values)

    return WeightAveraging(use_buffers=True, multi_avg_fn=average)


def last_checkpoint(folder: Path) -> Path:
    """Where the last state of the run in a folder is kept, to go on from."""
    return folder / "checkpoints" / "last.ckpt"


def _checkpoints(path: Path, validate: bool) -> list[Callback]:
    """After every epoch the last state, and beside it the one with the best Dice."""
    shared: dict[str, Any] = {
        "dirpath": path.parent, "save_on_train_epoch_end": True, "enable_version_counter": False,
    }  # fmt: skip
    last = ModelCheckpoint(filename=path.stem, every_n_epochs=1, **shared)
    best = ModelCheckpoint(filename="best", monitor="dice", mode="max", **shared)
    return [last, best] if validate else [last]


# --- the run ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Machines:
    """What a training runs on.

    Parameters
    ----------
    device
        ``auto``, ``cpu``, ``cuda[:N]`` or ``mps``.
    devices, nodes
        GPUs (or processes, on a CPU) of each machine, and machines.
    workers
        Processes of each device that prepare batches; None: none on a CPU, else up to 8.
    """

    device: str = "auto"
    devices: int = 1
    nodes: int = 1
    workers: int | None = None

    def workers_for(self, device: torch.device) -> int:
        """Processes that prepare batches for each device.

        Raises
        ------
        InputError
            They were asked for on a system whose processes cannot share mapped files.
        """
        can_fork = sys.platform == "linux"
        if self.workers and not can_fork:
            raise InputError("--workers works on Linux alone: leave it out.")
        if self.workers is not None:
            return self.workers
        wanted = can_fork and device.type != "cpu"
        return min(8, max(1, (os.cpu_count() or 1) - 1)) if wanted else 0

    @property
    def processes(self) -> int:
        """Of all machines together."""
        return self.devices * self.nodes


def is_first_process() -> bool:
    """Whether this process writes files and speaks, of those that share a training."""
    # Lightning's own launcher starts the later machines with this alone.
    node = int(os.environ.get("NODE_RANK", os.environ.get("GROUP_RANK", "0")))
    rank: int = getattr(rank_zero_only, "rank", 0)
    return rank == 0 and node == 0


def seed_everything(seed: int) -> None:
    """Fix what initial weights and dropout are drawn from."""
    lightning.seed_everything(seed, verbose=False)


def _precision(recipe: Recipe, device: torch.device) -> Any:
    chosen = recipe.optimisation.precision
    if chosen == "auto":
        # is_bf16_supported() also holds for older ones, which emulate it slowly.
        has_bf16 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
        chosen = "bf16" if has_bf16 else "32"
    return {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[chosen]


def _trainer(
    recipe: Recipe,
    folder: Path,
    device: torch.device,
    machines: Machines,
    callbacks: list[Callback],
) -> lightning.Trainer:
    settings = recipe.optimisation
    several = machines.processes > 1
    one_gpu = device.type == "cuda" and not several
    tensorboard = find_spec("tensorboard") or find_spec("tensorboardX")
    return lightning.Trainer(
        accelerator={"cuda": "gpu"}.get(device.type, device.type),
        devices=[device.index or 0] if one_gpu else machines.devices,
        num_nodes=machines.nodes,
        # Unused parameters: encoders bring layers that no decoder asks for. A day: the other
        # processes wait while the first one scores a fold.
        strategy=(
            DDPStrategy(find_unused_parameters=True, timeout=timedelta(days=1))
            if several
            else "auto"
        ),
        sync_batchnorm=several and device.type == "cuda",
        precision=_precision(recipe, device),
        deterministic="warn" if settings.deterministic else None,
        max_steps=settings.steps,
        max_epochs=-1,
        logger=TensorBoardLogger(folder, name="", version="tensorboard") if tensorboard else False,
        callbacks=callbacks,
        plugins=[_AtomicCheckpoints()],
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=settings.steps_per_epoch,
        gradient_clip_val=settings.gradient_clip or None,
        use_distributed_sampler=False,
    )


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep hints that are not for our users out of their terminal."""
    with warnings.catch_warnings():
        for name in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.WARNING)
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*find_unused_parameters.*")
        yield


def fitted(
    module: SegmentationModule,
    training: Sequence[Stack],
    held_out: Sequence[Stack],
    *,
    folder: Path,
    machines: Machines,
    device: torch.device,
    resume_from: Path | None,
    report: Report,
) -> lightning.Trainer:
    """Train the network of `module` in place, to the moving average of its weights.

    Parameters
    ----------
    module
        With a recipe whose batch size is a number.
    training, held_out
        What is learnt from, and what the Dice of each epoch is measured on.
    folder
        Gets ``log/`` and ``checkpoints/``.
    machines, device
        What to run on.
    resume_from
        A checkpoint to go on from.
    report
        Called for each batch, with the values ``loss`` and ``dice``.

    Raises
    ------
    InputError
        The loss is not finite, memory or disk is full, or the batch cannot be shared out.
    """
    recipe, settings = module.recipe, module.recipe.optimisation
    batch_size = int(settings.batch_size)
    if batch_size % machines.processes:
        raise InputError(
            f"optimisation.batch_size {batch_size} cannot be shared equally by "
            f"{machines.processes} processes: choose a multiple."
        )
    average = _moving_average(settings.ema_decay) if settings.ema_decay else None
    callbacks: list[Callback] = [_Reporter(report), _History(folder / "log")]
    callbacks += _checkpoints(last_checkpoint(folder), bool(held_out))
    if average is not None:
        callbacks.insert(0, average)
    if settings.patience and held_out:
        callbacks.append(
            EarlyStopping(
                "dice", mode="max", patience=settings.patience, check_on_train_epoch_end=True
            )
        )
    with _quiet_lightning():
        trainer = _trainer(recipe, folder, device, machines, callbacks)
    share = (trainer.global_rank, machines.processes)
    batches = Batches(training, recipe, batch_size=batch_size, length=settings.steps, share=share)
    workers = machines.workers_for(device)
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=_StepSampler(module, settings.steps_per_epoch),
        num_workers=workers,
        persistent_workers=workers > 0,
        # Mapped arrays go along as they are; another start would copy or lose them.
        multiprocessing_context="fork" if workers else None,
        pin_memory=device.type == "cuda",
    )
    validation = DataLoader(_HeldOut(held_out, share), batch_size=None) if held_out else None
    try:
        with _quiet_lightning(), out_of_memory_explained(recipe):
            trainer.fit(module, loader, validation, ckpt_path=resume_from, weights_only=True)
    except SystemExit as interrupted:  # Lightning's answer to Ctrl+C
        _end_other_processes(trainer)
        raise Cancelled("Training was interrupted; --resume goes on.") from interrupted
    except BaseException:
        _end_other_processes(trainer)
        raise
    if average is not None:
        average.on_train_end(trainer, module)  # skipped where a run is resumed at its end
    module.network.eval()
    return trainer


def _end_other_processes(trainer: lightning.Trainer) -> None:
    """Else they wait for this one, for as long as they may."""
    kill = getattr(trainer.strategy.launcher, "kill", None)
    if kill is not None:
        kill(signal.SIGTERM)


@contextmanager
def out_of_memory_explained(recipe: Recipe) -> Iterator[None]:
    """Say which settings to lower.

    Raises
    ------
    InputError
        Memory was not enough.
    """
    try:
        yield
    except RuntimeError as error:  # of a GPU a subclass, of a CPU by its message
        if not is_out_of_memory(error):
            raise
        settings = recipe.optimisation
        cut = (
            f"preparation.patch (now {recipe.preparation.patch})"
            if recipe.preparation.patch
            else f"optimisation.crop (now {settings.crop})"
        )
        raise InputError(
            f"Out of memory: lower optimisation.batch_size (now {settings.batch_size}) or {cut}, "
            "or take a smaller network."
        ) from error


def batch_size_for(
    module: SegmentationModule, training: Sequence[Stack], machines: Machines, device: torch.device
) -> int:
    """What ``batch_size: auto`` means: all that fits on a GPU, 16 samples on a CPU.

    Raises
    ------
    InputError
        Several processes share the batch, or not even one sample fits.
    """
    if machines.processes > 1:
        raise InputError(
            "optimisation.batch_size auto is found out on one device: give a number for several."
        )
    if device.type == "cpu":  # where the system kills who takes too much
        return _ON_CPU
    module.to(device)
    return largest_batch_size(module, training, device)


def largest_batch_size(
    module: SegmentationModule, training: Sequence[Stack], device: torch.device
) -> int:
    """The largest batch, by powers of two up to 64, with which a step fits into memory.

    Raises
    ------
    InputError
        Not even one sample fits.
    """
    # As in training: a second copy of the weights, and the optimiser's state.
    average = copy.deepcopy(module.network)
    optimizer = torch.optim.AdamW(module.network.parameters(), lr=0.0)
    size = 1
    with out_of_memory_explained(module.recipe):
        _try_step(module, optimizer, training, device, size)
    while size < _MOST_ON_GPU:
        try:
            _try_step(module, optimizer, training, device, 2 * size)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            break
        size *= 2
    del average
    return size


def _try_step(
    module: SegmentationModule,
    optimizer: torch.optim.Optimizer,
    training: Sequence[Stack],
    device: torch.device,
    size: int,
) -> None:
    batch = Batches(training, module.recipe, batch_size=size, length=1)[0]
    moved = batch._replace(
        images=batch.images.to(device), masks=batch.masks.to(device), known=batch.known.to(device)
    )
    precision = _precision(module.recipe, device)
    kinds = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    with torch.autocast(device.type, kinds.get(precision), enabled=precision in kinds):
        loss = module.loss(moved)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
