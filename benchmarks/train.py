"""Slices a second of training and of its data pipeline, against the bare network; memory.

In the same process, in alternating rounds: the data pipeline alone, as training uses it; a
whole training; and the bare loop of forward, backward and step on random tensors of the same
shape. Then the first preparation of the data against a second one, from the cache; and the
peak memory of a fresh process that prepares 6, 24 and 96 days and draws batches from them.

    python benchmarks/train.py [--data DATA] [--config RECIPE] [--device auto] [--record]

Without a data folder it takes days of the phantom.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
import yaml
from torch.utils.data import DataLoader

from _bench import finish, shared_options
from gitract.data import Batch, Batches
from gitract.devices import choose_device
from gitract.engine import Machines, SegmentationModule
from gitract.model_config import ModelConfig
from gitract.models.weights import build_network
from gitract.phantom import abdomen, write_day
from gitract.progress import Progress
from gitract.recipe import Recipe, read_recipe, recipe_file
from gitract.runner import on_device
from gitract.train import TrainingData, load_training_data, recipe_organs, train

NATIVE, SMALL = (144, 266, 266), (48, 144, 176)
DAYS = (6, 24, 96)
ABDOMENS = 6
FIRST_STEPS = 5  # before the clock starts: they are slower
PIPELINE_AIM, GPU_AIM, CACHE_AIM = 3.0, 0.9, 0.1
# Pages of memory-mapped files that a process has looked at count as its memory, though the
# system may take them back; what is its own is told apart. The peak that `resource` tells
# would be that of the parent, where it is higher.
PROBE = """
import json, sys
from pathlib import Path
from gitract.data import Batches
from gitract.recipe import read_recipe
from gitract.train import load_training_data
recipe = read_recipe(Path(sys.argv[1]))
stacks = load_training_data(recipe, Path(sys.argv[2]), cache=Path(sys.argv[3])).stacks
batches = Batches(stacks, recipe, batch_size=16, length=60)
for step in range(60):
    batches[step]
with open("/proc/self/status") as status:
    told = dict(line.split(":") for line in status)
print(json.dumps([int(told[what].split()[0]) for what in ("VmHWM", "RssAnon")]))
"""


def write_days(folder: Path, count: int, shape: tuple[int, int, int]) -> None:
    """Days of as many patients: a few abdomens, but no two days with the same voxels."""
    spacing = (3.0, 400 / shape[2], 400 / shape[2])
    made = [abdomen(shape, spacing=spacing, seed=seed) for seed in range(min(count, ABDOMENS))]
    for number in range(count):
        scan, truth = made[number % ABDOMENS]
        name, offset = f"case{number}_day0", scan.voxels.dtype.type(number)
        write_day(
            folder, replace(scan, name=name, voxels=scan.voxels + offset), replace(truth, name=name)
        )


# --- slices a second ----------------------------------------------------------------------


class Setting(NamedTuple):
    """What is trained, on what; the recipe has a batch size and a precision of its own."""

    recipe: Recipe
    data: TrainingData
    machines: Machines
    device: torch.device
    steps: int

    @property
    def samples(self) -> int:
        """Slices, or patches of a 3-D network, in a batch."""
        return int(self.recipe.optimisation.batch_size)


def timed(times: Iterator[float], samples: int) -> float:
    """Samples a second, from the times at which batches were done."""
    kept = list(times)[FIRST_STEPS - 1 :]
    return samples * (len(kept) - 1) / (kept[-1] - kept[0])


def pipeline(setting: Setting) -> float:
    length = FIRST_STEPS + setting.steps
    batches = Batches(
        setting.data.stacks, setting.recipe, batch_size=setting.samples, length=length
    )
    loader = DataLoader(
        batches, batch_size=None, num_workers=setting.machines.workers_for(setting.device),
        pin_memory=setting.device.type == "cuda",
    )  # fmt: skip
    return timed((time.perf_counter() for _ in loader), setting.samples)


def whole(setting: Setting, utilisation: list[float]) -> float:
    """A training without held-out patients: what comes between epochs is left out."""
    steps = FIRST_STEPS + setting.steps
    optimisation = setting.recipe.optimisation.model_copy(
        update={"steps": steps, "steps_per_epoch": steps}
    )
    recipe = setting.recipe.model_copy(update={"optimisation": optimisation})
    times: list[float] = []

    def report(progress: Progress) -> None:
        if "loss" in progress.values:
            times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder, sampled(setting.device, utilisation):
        train(
            recipe, setting.data,
            output=Path(folder) / "run", machines=setting.machines, report=report,
        )  # fmt: skip
    return timed(iter(times), setting.samples)


def bare_loop(setting: Setting) -> Callable[[], float]:
    """The loop of forward, loss, backward and step, on one batch that is on the device."""
    recipe, device = setting.recipe, setting.device
    organs = recipe_organs(recipe)
    config = ModelConfig(
        id=recipe.id, title=recipe.title, network=recipe.network,
        preparation=recipe.preparation, organs=organs,
    )  # fmt: skip
    module = SegmentationModule(on_device(build_network(config), device), recipe, organs).train()
    optimizer = module.configure_optimizers()["optimizer"]
    like = Batches(setting.data.stacks, recipe, batch_size=setting.samples, length=1)[0]
    batch = Batch(
        torch.rand(like.images.shape, device=device),
        (torch.rand(like.masks.shape, device=device) > 0.9).float(),
        torch.ones(like.known.shape, device=device),
        [],
    )
    half = recipe.optimisation.precision == "bf16"

    def step() -> float:
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            loss = module.loss(batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    length = FIRST_STEPS + setting.steps
    return lambda: timed((step() for _ in range(length)), setting.samples)


@contextmanager
def sampled(device: torch.device, utilisation: list[float]) -> Iterator[None]:
    """Ask a GPU ten times a second how busy it is, where NVIDIA's library is there."""
    if device.type != "cuda" or not find_spec("pynvml"):
        yield
        return
    ended = threading.Event()

    def ask() -> None:
        while not ended.wait(0.1):
            utilisation.append(torch.cuda.utilization(device))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def rate_rows(setting: Setting, rounds: int) -> list[list[str]]:
    """Rows of the table: medians of alternating rounds."""
    utilisation: list[float] = []
    runs: dict[str, Callable[[], float]] = {
        "pipeline": lambda: pipeline(setting),
        "whole": lambda: whole(setting, utilisation),
        "bare": bare_loop(setting),
    }
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            found[name].append(run())
    rate = {name: statistics.median(values) for name, values in found.items()}
    what = "patches" if setting.recipe.preparation.patch else "slices"
    bare = f"bare loop, {rate['bare']:.1f}"
    on_gpu = setting.device.type == "cuda"
    rows = [
        [f"data pipeline, {what} a second", f"{rate['pipeline']:.1f}", bare,
         f"{rate['pipeline'] / rate['bare']:.2f}", f"at least {PIPELINE_AIM:g}"],
        [f"whole training, {what} a second", f"{rate['whole']:.1f}", bare,
         f"{rate['whole'] / rate['bare']:.2f}", f"at least {GPU_AIM:g}" if on_gpu else "–"],
    ]  # fmt: skip
    if utilisation:
        busy = statistics.median(utilisation)
        rows.append(["GPU busy while training", f"{busy:.0f} %", "", "", ""])
    return rows


# --- preparation and memory ---------------------------------------------------------------


def preparation_row(recipe: Recipe, folder: Path, cache: Path) -> list[str]:
    """One row: the first run and the one after it, with a cache that was empty."""
    seconds = []
    for _ in range(2):
        begin = time.perf_counter()
        load_training_data(recipe, folder, cache=cache)
        seconds.append(time.perf_counter() - begin)
    first, second = seconds
    return [
        "preparation from the cache", f"{second:.2f} s", f"the first time, {first:.2f} s",
        f"{second / first:.3f}", f"at most {CACHE_AIM:g}",
    ]  # fmt: skip


def memory_rows(recipe: Recipe, folder: Path) -> list[list[str]]:
    """One row for each number of days: peak of all memory, and what is the process's own."""
    file = folder / "recipe.yaml"
    plain = recipe.model_copy(update={"sources": ()})
    file.write_text(yaml.safe_dump(plain.model_dump(mode="json")), encoding="utf-8")
    megabytes = []
    for days in DAYS:
        data, cache = folder / f"{days}-days", folder / f"{days}-cache"
        data.mkdir()
        write_days(data, days, SMALL)
        code = [sys.executable, "-c", PROBE, str(file), str(data), str(cache)]
        done = subprocess.run(code, capture_output=True, check=True, text=True)
        megabytes.append([kilobytes / 1e3 for kilobytes in json.loads(done.stdout)])
    least = megabytes[0]
    return [
        [f"memory for {days} days", f"peak {peak:.0f} MB, own {own:.0f} MB",
         f"{DAYS[0]} days, peak {least[0]:.0f} MB, own {least[1]:.0f} MB",
         f"{peak / least[0]:.2f}, {own / least[1]:.2f}", "own flat"]
        for days, (peak, own) in zip(DAYS[1:], megabytes[1:], strict=True)
    ]  # fmt: skip


def with_precision(recipe: Recipe, device: torch.device, batch: int | None) -> Recipe:
    """The recipe with ``auto`` decided, so that all three take the same."""
    half = device.type == "cuda" and torch.cuda.is_bf16_supported()
    settings = recipe.optimisation
    size = batch or (16 if settings.batch_size == "auto" else settings.batch_size)
    update = {"precision": "bf16" if half else "32", "batch_size": size}
    return recipe.model_copy(update={"optimisation": settings.model_copy(update=update)})


def main() -> None:
    parser = shared_options(__doc__, rounds=3)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--config", default="unet-light")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--batch", type=int, help="in place of the recipe's")
    parser.add_argument("--steps", type=int, default=20, help="batches in a round")
    options = parser.parse_args()
    device = choose_device(options.device)
    recipe = with_precision(read_recipe(recipe_file(options.config)), device, options.batch)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data_folder = options.data
        if data_folder is None:
            data_folder = folder / "days"
            data_folder.mkdir()
            write_days(data_folder, ABDOMENS, NATIVE)
            recipe = recipe.model_copy(update={"sources": ()})
        rows = [preparation_row(recipe, data_folder, folder / "cache")]
        data = load_training_data(recipe, data_folder, cache=folder / "cache")
        machines = Machines(device=str(device), workers=options.workers)
        setting = Setting(recipe, data, machines, device, options.steps)
        rows = rate_rows(setting, options.rounds) + rows + memory_rows(recipe, folder)
    gpu = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    finish(
        "Training",
        ["what", "measured", "against", "ratio", "aim"],
        rows,
        f"Recipe {recipe.id}, batches of {setting.samples}, on {device}{gpu}, torch with "
        f"{torch.get_num_threads()} threads, "
        f"{setting.machines.workers_for(setting.device)} processes for data, precision "
        f"{recipe.optimisation.precision}; medians of {options.rounds} alternating rounds of "
        f"{options.steps} batches. Peak memory counts pages of the cache's files that the system "
        "may take back; own memory does not.",
        options,
    )


if __name__ == "__main__":
    main()
