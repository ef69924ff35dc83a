"""nnU-Net's side of nnunet.py: runs in nnU-Net's own environment and imports nothing of gitract.

Its folders come in nnU-Net's environment variables. The answer is written as JSON.
"""

import argparse
import json
import os
import time
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
    ExperimentPlanner,
)
from nnunetv2.experiment_planning.plan_and_preprocess_api import (
    extract_fingerprint_dataset,
    plan_experiment_dataset,
    preprocess_dataset,
)
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_results
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

CONFIGURATION, PLANS, CHECKPOINT = "2d", "nnUNetPlans.json", "checkpoint_final.pth"
PROBE_STEPS, PROBE_SECONDS = 10, 20.0


def plan(options: argparse.Namespace) -> dict[str, object]:
    """Plan by nnU-Net's default planner and preprocess: the 2-D configuration alone.

    A batch size can be given in place of the planned one.
    """
    begin = time.perf_counter()
    processes = os.cpu_count() or 1
    extract_fingerprint_dataset(options.dataset, num_processes=processes, show_progress_bar=False)
    plans, name = plan_experiment_dataset(options.dataset, ExperimentPlanner)
    chosen = plans["configurations"][CONFIGURATION]
    planned = int(chosen["batch_size"])
    if options.batch:
        chosen["batch_size"] = options.batch
        (folder,) = Path(nnUNet_preprocessed).iterdir()
        (folder / PLANS).write_text(json.dumps(plans))
    preprocess_dataset(
        options.dataset, name, (CONFIGURATION,), (processes,), show_progress_bar=False
    )
    return {
        "seconds": time.perf_counter() - begin,
        "patch": [int(side) for side in chosen["patch_size"]],
        "batch": planned,
        "spacing": [float(mm) for mm in chosen["spacing"]],
    }


def _trainer() -> nnUNetTrainer:
    (folder,) = Path(nnUNet_preprocessed).iterdir()
    plans = json.loads((folder / PLANS).read_text())
    trainer = nnUNetTrainer(
        plans=plans | {"continue_training": False},
        configuration=CONFIGURATION,
        fold="all",
        dataset_json=json.loads((folder / "dataset.json").read_text()),
        device=torch.device("cpu"),
    )
    trainer.on_train_start()
    return trainer


def _steps(trainer: nnUNetTrainer, count: int, seconds: float = float("inf")) -> list[float]:
    """Seconds of each of `count` steps of nnU-Net, fewer if they take longer than `seconds`."""
    trainer.network.train()
    taken: list[float] = []
    while len(taken) < count and sum(taken) < seconds:
        begin = time.perf_counter()
        trainer.lr_scheduler.step(len(taken))
        trainer.train_step(next(trainer.dataloader_train))
        taken.append(time.perf_counter() - begin)
    return taken


def train(options: argparse.Namespace) -> dict[str, object]:
    """Train from scratch for as many iterations as fit, without validation.

    Where it took another time than was foreseen it is trained anew. The learning rate falls
    by nnU-Net's polynomial, here at every iteration in place of every 250.
    """
    torch.manual_seed(0)
    np.random.seed(0)
    trainer = _trainer()
    initial = deepcopy(trainer.network.state_dict())
    _steps(trainer, 1)
    step_s = float(np.mean(_steps(trainer, PROBE_STEPS, PROBE_SECONDS)))
    for _ in range(options.tries):
        iterations = max(1, int(options.seconds / step_s))
        trainer.network.load_state_dict(initial)
        trainer.num_epochs = iterations  # the length of the schedule
        trainer.optimizer, trainer.lr_scheduler = trainer.configure_optimizers()
        seconds = sum(_steps(trainer, iterations))
        if abs(seconds / options.seconds - 1) < options.tolerance:
            break
        step_s = seconds / iterations
    trainer.save_checkpoint(str(Path(trainer.output_folder) / CHECKPOINT))
    return {"iterations": iterations, "seconds": seconds}


def predict(options: argparse.Namespace) -> dict[str, object]:
    """Labels of every image, ``(slice, row, column)`` as .npy, and the seconds of each.

    A call starts and ends with arrays in memory; without and with nnU-Net's mirroring.
    """
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    ((model,),) = [list(one.iterdir()) for one in Path(nnUNet_results).iterdir()]
    predictor.initialize_from_trained_model_folder(str(model), ("all",), CHECKPOINT)
    reader = predictor.plans_manager.image_reader_writer_class()
    seconds: dict[str, dict[str, float]] = {"plain": {}, "mirrored": {}}
    for path in sorted(options.images.glob("*_0000.nii.gz")):
        name = path.name.removesuffix("_0000.nii.gz")
        image, properties = reader.read_images([str(path)])
        if not seconds["plain"]:
            predictor.predict_single_npy_array(image[:, :2], properties)  # warm up
        for kind, taken in seconds.items():
            predictor.use_mirroring = kind == "mirrored"
            begin = time.perf_counter()
            labels = predictor.predict_single_npy_array(image, properties)
            taken[name] = time.perf_counter() - begin
            np.save(options.images / f"{name}-{kind}.npy", np.asarray(labels, dtype=np.uint8))
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--result", type=Path, required=True)
    jobs = parser.add_subparsers(required=True)
    job = jobs.add_parser("plan")
    job.add_argument("--dataset", type=int, required=True)
    job.add_argument("--batch", type=int, default=0)
    job.set_defaults(run=plan)
    job = jobs.add_parser("train")
    job.add_argument("--seconds", type=float, required=True)
    job.add_argument("--tries", type=int, required=True)
    job.add_argument("--tolerance", type=float, required=True)
    job.set_defaults(run=train)
    job = jobs.add_parser("predict")
    job.add_argument("--images", type=Path, required=True)
    job.set_defaults(run=predict)
    options = parser.parse_args()
    options.result.write_text(json.dumps(options.run(options)), encoding="utf-8")


if __name__ == "__main__":
    main()
