"""The engine: killed runs lose little, several processes learn what one does."""

import csv
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from gitract.engine import SegmentationModule, largest_batch_size
from gitract.errors import InputError
from gitract.organs import ORGANS
from gitract.progress import Progress
from gitract.recipe import Recipe, read_recipe
from gitract.train import Machines, load_training_data, train


def _train(
    recipe: Recipe, data: Path, output: Path, resume: bool, steps: Path | None = None
) -> None:
    """In a process of its own: train, noting each step."""

    def note(progress: Progress) -> None:
        if steps is not None and "loss" in progress.values:
            with steps.open("a") as file:
                file.write(f"{progress.done}\n")

    loaded = load_training_data(recipe, data, cache=output.parent / "cache")
    train(
        recipe, loaded, output=output, hold_out=["case3"], machines=Machines("cpu"),
        resume=resume, report=note,
    )  # fmt: skip


def _rows(folder: Path) -> list[dict[str, str]]:
    path = folder / "log" / "metrics.csv"
    return list(csv.DictReader(path.open())) if path.exists() else []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills processes as POSIX does")
def test_a_run_that_is_killed_again_and_again_ends_as_if_it_had_not_been(
    recipe: Recipe, phantom_data: Path, tmp_path: Path
) -> None:
    optimisation = recipe.optimisation.model_copy(update={"steps": 90, "steps_per_epoch": 10})
    recipe = recipe.model_copy(update={"optimisation": optimisation})
    _train(recipe, phantom_data, tmp_path / "whole", False)
    moments = random.Random(4)
    killed, steps = tmp_path / "killed", tmp_path / "steps.txt"
    fork = multiprocessing.get_context("fork")
    kills = 0
    while not (killed / "model").exists():
        begun = (killed / "checkpoints" / "last.ckpt").exists()
        finished = int(_rows(killed)[-1]["step"]) if begun else 0
        steps.write_text("")
        process = fork.Process(target=_train, args=(recipe, phantom_data, killed, begun, steps))
        process.start()
        patience = moments.uniform(0.0, 0.4)  # from its first step on
        while process.is_alive() and not steps.read_text():
            time.sleep(0.01)
        process.join(patience if kills < 4 else None)
        if process.is_alive() and process.pid:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += 1
        first = int((steps.read_text().split() or [finished + 1])[0])
        assert first > finished - 10  # at most one epoch is done again
        assert kills < 40
    assert kills
    for name in ("log/metrics.csv", "evaluation.json"):
        assert (killed / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
def test_two_processes_learn_what_one_does_with_the_same_batch(
    phantom_data: Path, tmp_path: Path
) -> None:
    recipe = {
        "id": "shared", "title": "Shared",
        "network": {"name": "segresnet", "options": {"dimensions": 2, "width": 8,
                                                     "blocks": [1, 1]}},
        "preparation": {"pixel_mm": 6.0},
        "losses": [{"kind": "bce"}, {"kind": "dice"}, {"kind": "lovasz", "weight": 0.5}],
        "optimisation": {"steps": 12, "steps_per_epoch": 4, "batch_size": 4, "crop": 32},
    }  # fmt: skip
    config = tmp_path / "recipe.yaml"
    config.write_text(yaml.safe_dump(recipe))
    read = read_recipe(config)
    data = load_training_data(read, phantom_data, cache=tmp_path / "cache")
    train(
        read, data, output=tmp_path / "one", hold_out=["case2", "case3"], machines=Machines("cpu")
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GITRACT_HOME": str(tmp_path / "home")}
    subprocess.run(
        [sys.executable, "-m", "gitract.cli", "train", "--config", config, "--data", phantom_data,
         "--hold-out", "case2,case3", "--device", "cpu", "--devices", "2", "-o", tmp_path / "two"],
        check=True, env=environment, timeout=300, capture_output=True,
    )  # fmt: skip
    one, two = _rows(tmp_path / "one"), _rows(tmp_path / "two")
    assert len(one) == len(two) == 3
    for alone, shared in zip(one, two, strict=True):
        assert alone.keys() == shared.keys()
        for name, value in alone.items():
            assert float(shared[name]) == pytest.approx(float(value), rel=2e-3, abs=1e-4), name


def test_a_batch_that_cannot_be_shared_equally_is_said(
    recipe: Recipe, phantom_data: Path, tmp_path: Path
) -> None:
    data = load_training_data(recipe, phantom_data, cache=tmp_path / "cache")
    with pytest.raises(InputError, match="batch_size 6 cannot be shared equally by 4"):
        train(recipe, data, output=tmp_path / "run", machines=Machines("cpu", devices=4))


class _Hungry(nn.Module):
    """Has memory for so many samples."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        maps: torch.Tensor = self.conv(images)
        return maps


@pytest.mark.parametrize(("most", "found"), [(1, 1), (5, 4), (32, 32), (1000, 64)])
def test_the_largest_batch_that_fits_is_found(
    recipe: Recipe, phantom_data: Path, tmp_path: Path, most: int, found: int
) -> None:
    stacks = load_training_data(recipe, phantom_data, cache=tmp_path / "cache").stacks
    module = SegmentationModule(_Hungry(most), recipe, ORGANS)
    before = module.network.conv.weight.clone()  # type: ignore[operator, union-attr]
    assert largest_batch_size(module, stacks, torch.device("cpu")) == found
    assert torch.equal(module.network.conv.weight, before)  # type: ignore[arg-type, union-attr]


def test_memory_for_not_even_one_sample_is_said(
    recipe: Recipe, phantom_data: Path, tmp_path: Path
) -> None:
    stacks = load_training_data(recipe, phantom_data, cache=tmp_path / "cache").stacks
    module = SegmentationModule(_Hungry(0), recipe, ORGANS)
    with pytest.raises(InputError, match="Out of memory"):
        largest_batch_size(module, stacks, torch.device("cpu"))


def test_several_processes_need_a_number_for_the_batch(
    recipe: Recipe, phantom_data: Path, tmp_path: Path
) -> None:
    optimisation = recipe.optimisation.model_copy(update={"batch_size": "auto"})
    recipe = recipe.model_copy(update={"optimisation": optimisation})
    data = load_training_data(recipe, phantom_data, cache=tmp_path / "cache")
    with pytest.raises(InputError, match="give a number for several"):
        train(recipe, data, output=tmp_path / "run", machines=Machines("cpu", devices=2))


@pytest.mark.skipif(sys.platform != "linux", reason="workers are for Linux")
def test_workers_prepare_what_the_training_itself_would(
    recipe: Recipe, phantom_data: Path, tmp_path: Path
) -> None:
    optimisation = recipe.optimisation.model_copy(update={"steps": 6, "steps_per_epoch": 3})
    recipe = recipe.model_copy(update={"optimisation": optimisation})
    data = load_training_data(recipe, phantom_data, cache=tmp_path / "cache")
    for workers in (0, 2):
        output = tmp_path / str(workers)
        train(recipe, data, output=output, machines=Machines("cpu", workers=workers))
    assert _rows(tmp_path / "0") == _rows(tmp_path / "2")
