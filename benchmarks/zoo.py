"""All networks of the zoo on the same patients with the same budget, in one table and picture.

Each is trained from random weights by one recipe for the same number of slices seen, and
scored on the same held-out patients. A 3-D network gets patches instead, that hold as many
slices altogether. Each runs in a process of its own.

    python benchmarks/zoo.py --data DATA --work RUNS [--slices-seen 3200] [--threads 1] \\
        [--held-out case20,case6] [--only unet,fct] [--record] [--docs]

What is done is kept in the work folder: an interrupted run goes on where it was, from the
beginning of the network that was interrupted. ``--docs`` writes the generated part of
docs/zoo.md and its picture. What `gitract models zoo` shows without ``--measure`` is written by

    python benchmarks/zoo.py --measure [--device cuda] [--only fct]

on a machine that has nothing else to do; with ``--count`` in place of ``--measure`` the times
stay as they are, and only parameters and multiplications are counted anew.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from _bench import finish, shared_options
from _folds import ORGANS, WHOLE_STACK, of_patients
from gitract.corrections import Corrections
from gitract.devices import choose_device
from gitract.evaluate import Evaluation, evaluate_scans
from gitract.fine_tune import FineTuneSettings, fine_tune
from gitract.labelled import LabelledScan
from gitract.model_config import NetworkConfig
from gitract.model_store import ModelStore
from gitract.models.cost import (
    MEASURED_FILE,
    Measured,
    counted,
    milliseconds_told,
    network_cost,
    timed,
    zoo_names,
    zoo_rows,
)
from gitract.models.registry import network_dimensions, network_facts
from gitract.phantom import abdomen
from gitract.predict import Segmenter
from gitract.progress import Progress
from gitract.recipe import Recipe, read_recipe, recipe_file
from gitract.train import Machines, TrainingData, load_training_data, train

ALSO = {"vnet 2-D": NetworkConfig(name="vnet", options={"dimensions": 2})}
STACK = (144, 266, 266)  # a scan of the usual size
FINE_TUNED_SLICES = 8
DOCS = Path(__file__).parent.parent / "docs"
PAGE, PICTURE = DOCS / "zoo.md", DOCS / "pictures" / "zoo.png"
BEGIN, END = "<!-- written by benchmarks/zoo.py: begin -->", "<!-- end -->"
SKELETON = f"""# The networks, compared

`gitract models zoo` lists every network that can be trained; a recipe names one of them under
`network`. Here they stand side by side on the same data.

{BEGIN}
Nothing was measured yet.
{END}

## Which one to take
"""


def networks() -> dict[str, NetworkConfig]:
    """Everything that is compared, by the name that it has in the table."""
    return {name: NetworkConfig(name=name) for name in zoo_names()} | ALSO


# --- one network --------------------------------------------------------------------------


class Budget(NamedTuple):
    """What every network gets, and what it runs on."""

    config: str
    held_out: tuple[str, ...]
    slices_seen: int
    batch: int
    crop: int
    patch_slices: int
    fine_tune_steps: int
    threads: int
    device: str


@dataclass(frozen=True)
class Outcome:
    """One network: what it costs and how it did; times in seconds."""

    name: str
    axes: int
    steps: int
    parameters: int
    gmacs: float
    dice: dict[str, float]
    hd95_mm: dict[str, float]
    training_s: float
    stack_s: float
    fine_tune_s: float | None  # None where it was not timed
    memory_mb: float

    @property
    def mean_dice(self) -> float:
        return float(np.mean(list(self.dice.values())))

    @property
    def mean_hd95_mm(self) -> float:
        """Over the organs of which anything was found."""
        return float(np.mean(list(self.hd95_mm.values()))) if self.hd95_mm else float("nan")


def derived(network: NetworkConfig, budget: Budget) -> Recipe:
    """The recipe with another network, without its start, for the budget."""
    recipe = read_recipe(recipe_file(budget.config))
    flat = network_dimensions(network.name, network.options) == 2
    steps = -(-budget.slices_seen // (budget.batch if flat else budget.patch_slices))
    optimisation = {
        "steps": steps,
        "steps_per_epoch": steps,
        "batch_size": budget.batch if flat else 1,
        "crop": budget.crop,
        "warm_up": min(recipe.optimisation.warm_up, steps // 10),
    }
    patch = None if flat else (budget.patch_slices, budget.crop, budget.crop)
    return Recipe.model_validate({
        **recipe.model_dump(),
        "network": network.model_dump(),
        "start": None,
        "preparation": {**recipe.preparation.model_dump(), "patch": patch},
        "optimisation": {**recipe.optimisation.model_dump(), **optimisation},
    })  # fmt: skip


def held_out_stacks(data: TrainingData, patients: Iterable[str]) -> list[LabelledScan]:
    """Whole stacks of some patients."""
    wanted = set(patients)
    stacks = {stack.name for stack in data.stacks if len(stack.slices) >= WHOLE_STACK}
    return [scan for scan in data.scans if scan.patient in wanted and scan.name in stacks]


def judged(name: str, budget: Budget, data_folder: Path, work: Path) -> Outcome:
    """Train one network, score it, and time it at work."""
    network = networks()[name]
    recipe = derived(network, budget)
    data = load_training_data(recipe, data_folder, cache=work / "cache")
    output = work / name.replace(" ", "-")
    machines = Machines(budget.device)
    now = clock(budget)
    moments: list[float] = []

    def report(progress: Progress) -> None:
        if "loss" in progress.values:
            moments.append(now())

    finished = output / "moments.json"
    if not finished.exists():
        shutil.rmtree(output, ignore_errors=True)  # of a run that was interrupted
        others = {stack.patient for stack in data.stacks} - {*budget.held_out}
        train(recipe, of_patients(data, others), output=output, machines=machines, report=report)
        finished.write_text(json.dumps(moments), encoding="utf-8")
    moments = json.loads(finished.read_text(encoding="utf-8"))
    segmenter = Segmenter(output / "model", device=budget.device)
    tested = held_out_stacks(data, budget.held_out)
    evaluation = evaluate_scans(segmenter, tested)
    cost = network_cost(network.name, options=network.options)
    steps = recipe.optimisation.steps
    return Outcome(
        name=name,
        axes=3 if recipe.preparation.patch else 2,
        steps=steps,
        parameters=cost.parameters,
        gmacs=cost.gmacs,
        dice=means(evaluation, "dice"),
        hd95_mm=means(evaluation, "hd95_mm"),
        training_s=float(np.median(np.diff(moments))) * steps,
        stack_s=seconds_a_stack(segmenter, now),
        fine_tune_s=seconds_to_fine_tune(output / "model", tested[0], budget, work),
        memory_mb=peak_memory_mb(budget.device),
    )


def means(evaluation: Evaluation, metric: str) -> dict[str, float]:
    """Of a metric by organ, over patients; without organs that have none."""
    found = {organ: evaluation.mean(metric, organ) for organ in ORGANS}
    return {organ: mean.value for organ, mean in found.items() if mean is not None}


def clock(budget: Budget) -> Callable[[], float]:
    """What times are read from: on one thread of a CPU it stands still while others have it."""
    alone = budget.threads == 1 and choose_device(budget.device).type == "cpu"
    return time.process_time if alone else time.perf_counter


def seconds_a_stack(segmenter: Segmenter, now: Callable[[], float]) -> float:
    scan, _ = abdomen(STACK, spacing=(3.0, 1.5, 1.5))
    segmenter.segment(scan, slices=range(8))  # the first call is slower
    begin = now()
    segmenter.segment(scan)
    return now() - begin


def seconds_to_fine_tune(model: Path, scan: LabelledScan, budget: Budget, work: Path) -> float:
    """The whole of it, from a few steps of each of its trainings."""
    run = max(scan.read(), key=lambda run: len(run.scan.voxels))
    shown = np.flatnonzero(run.truth.masks.any(axis=(0, 2, 3)))
    places = np.linspace(0, len(shown) - 1, FINE_TUNED_SLICES).round().astype(int)
    default = FineTuneSettings()
    settings = default.model_copy(update={"steps": budget.fine_tune_steps})
    now = clock(budget)
    moments = [now()]
    steps_s = 0.0

    def report(progress: Progress) -> None:
        nonlocal steps_s
        moments.append(now())
        if "loss" in progress.values:
            steps_s += moments[-1] - moments[-2]

    fine_tune(
        [Corrections(run.scan, run.truth, tuple(int(index) for index in shown[places]))],
        model=model, device=budget.device, settings=settings, store=ModelStore(work / "store"),
        report=report,
    )  # fmt: skip
    whole = now() - moments[0]
    return whole + steps_s * (default.steps / settings.steps - 1)


def peak_memory_mb(device: str) -> float:
    """Of this process, or of its GPU."""
    if choose_device(device).type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


# --- all of them --------------------------------------------------------------------------


def kept(name: str, budget: Budget, options: argparse.Namespace) -> Outcome | None:
    """The outcome of one network, from an earlier run or a process of its own."""
    file = options.work / f"{name.replace(' ', '-')}.json"
    settings = json.loads(json.dumps(budget._asdict()))
    if file.exists():
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["settings"] != settings:
            raise SystemExit(f"{file} was made with other settings: choose another --work.")
        return Outcome(**content["outcome"])
    # What a process tells of its peak begins with what the one had that started it: this one
    # is small against any training.
    code = [sys.executable, __file__, "--one", name, "--data", options.data, "--work", options.work]
    environment = os.environ | {"OMP_NUM_THREADS": str(budget.threads)}
    begun = [*code, "--budget", json.dumps(settings)]
    done = subprocess.run([str(part) for part in begun], check=False, env=environment)
    if done.returncode:
        print(f"{name} failed", flush=True)
        return None
    outcome = json.loads((options.work / "outcome.part").read_text(encoding="utf-8"))
    content = {"settings": settings, "outcome": outcome}
    partial = file.with_suffix(".part")
    partial.write_text(json.dumps(content, indent=2), encoding="utf-8")
    partial.replace(file)
    return Outcome(**outcome)


def row(one: Outcome) -> list[str]:
    return [
        one.name, f"{one.axes}-D", f"{one.parameters / 1e6:.2f}", f"{one.gmacs:.1f}",
        *(f"{one.dice[organ]:.3f}" if organ in one.dice else "–" for organ in ORGANS),
        f"{one.mean_dice:.3f}",
        "–" if np.isnan(one.mean_hd95_mm) else f"{one.mean_hd95_mm:.1f}",
        f"{one.stack_s:.1f}", "–" if one.fine_tune_s is None else f"{one.fine_tune_s:.0f}",
        f"{one.training_s:.0f}", f"{one.memory_mb:.0f}",
    ]  # fmt: skip


COLUMNS = (
    "network", "axes", "parameters, M", "GMAC", "stomach", "large bowel", "small bowel",
    "mean Dice", "HD95, mm", "stack, s", "fine-tuning, s", "training, s", "memory, MB",
)  # fmt: skip


def budget_told(budget: Budget, recipe: Recipe) -> str:
    """What a reader must know of the numbers."""
    slices = "×".join(str(side) for side in STACK)
    return (
        f"Every network from random weights, by recipe {recipe.id} with another network: "
        f"{budget.slices_seen} slices seen, in batches of {budget.batch} crops of "
        f"{budget.crop}×{budget.crop} pixels of {recipe.preparation.pixel_mm:g} mm; 3-D networks "
        f"in patches of {budget.patch_slices} slices, one a step, so fewer steps. Seed "
        f"{recipe.seed}, on {budget.device} with {budget.threads} "
        f"{'thread, in its own seconds' if budget.threads == 1 else 'threads'}. A small budget "
        "favours networks that learn quickly. "
        f"Held out: {', '.join(budget.held_out)}, their whole stacks. 3-D Dice and HD95 on the "
        "scans' own grid, means over patients; HD95 where an organ was found at all. A stack is "
        f"a phantom of {slices} voxels, the whole call. Fine-tuning is that of "
        f"{FINE_TUNED_SLICES} slices with its checks, timed over {budget.fine_tune_steps} of its "
        f"{FineTuneSettings().steps} steps (–: not timed). Memory is the "
        "peak of the process that did all of it. GMAC is for one slice of 256×256, 3-D: one "
        "patch of 32×96×96."
    )


# --- docs ---------------------------------------------------------------------------------


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(cells) + " |" for cells in rows)])


def generated(outcomes: Sequence[Outcome], told: str) -> str:
    """The part of the page that is made of numbers."""
    measured = Measured.read()
    listed = [
        [f"`{one.name}`", one.facts.title, str(one.facts.year), one.facts.paper,
         ", ".join(f"{axes}-D" for axes in one.dimensions), f"{one.cost.parameters / 1e6:.2f}",
         f"{one.cost.gmacs:.1f}", milliseconds_told(one.cpu_ms), milliseconds_told(one.gpu_ms),
         one.facts.licence]
        for one in zoo_rows(measured)
    ]  # fmt: skip
    headlines = [
        [one.name, f"{one.mean_dice:.3f}", facts.published or "–"]
        for one in outcomes
        if (facts := network_facts(networks()[one.name].name))
    ]
    clocks = "; ".join(f"{kind.upper()}: {one.machine}, {one.date}" for kind, one in
                       measured.times.items())  # fmt: skip
    return "\n\n".join([
        "## What there is",
        markdown(
            ["name", "network", "year", "paper", "axes", "parameters, M", "GMAC", "CPU, ms",
             "GPU, ms", "licence of what is used"],
            listed,
        ),
        (
            "GMAC (thousand million multiply-accumulates) and times are for one slice of 256×256 "
            "with its neighbours, of a 3-D network for one patch of 32×96×96, with three organs "
            f"and default options. {clocks}{'.' if clocks else ''}"
        ).rstrip(),
        "## The same patients, the same budget",
        told,
        markdown(COLUMNS, [row(one) for one in outcomes]),
        f"![Mean Dice against the seconds that a stack takes]({PICTURE.relative_to(DOCS)})",
        "## What their authors report",
        (
            "These numbers are of other organs, other images and far longer trainings: they can "
            "be compared neither with ours nor with each other."
        ),
        markdown(["network", "mean Dice here", "published"], headlines),
    ])  # fmt: skip


def write_docs(outcomes: Sequence[Outcome], told: str) -> None:
    """The generated part of the page, the rest as it was; and the picture."""
    old = PAGE.read_text(encoding="utf-8") if PAGE.exists() else SKELETON
    head, _, rest = old.partition(BEGIN)
    _, _, tail = rest.partition(END)
    page = f"{head}{BEGIN}\n{generated(outcomes, told)}\n{END}{tail}"
    PAGE.write_text(page, encoding="utf-8")
    draw(outcomes)


def draw(outcomes: Sequence[Outcome]) -> None:
    """Dice against time, each point with its name."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot
    from matplotlib.ticker import LogLocator, NullFormatter

    figure, axes = pyplot.subplots(figsize=(9, 6), dpi=120, layout="constrained")
    for number, colour in ((2, "#1f6f8b"), (3, "#c8553d")):
        shown = [one for one in outcomes if one.axes == number]
        if shown:
            axes.scatter(
                [one.stack_s for one in shown], [one.mean_dice for one in shown],
                color=colour, label=f"{number}-D", zorder=3,
            )  # fmt: skip
    axes.set_xscale("log")
    axes.margins(0.08)
    axes.set_xlabel("seconds for a stack")
    axes.set_ylabel("mean Dice of held-out patients")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    axes.legend(loc="center right")
    figure.canvas.draw()
    place_labels(axes, [(one.name, one.stack_s, one.mean_dice) for one in outcomes])
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE)
    pyplot.close(figure)


def place_labels(axes: Any, points: Sequence[tuple[str, float, float]]) -> None:
    """Put names beside their points, each at the nearest place where nothing is yet."""
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    dots = [axes.transData.transform((x, y)) for _, x, y in points]
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in dots]
    taken.append(axes.get_legend().get_window_extent())
    frame = axes.get_window_extent()
    pixels = axes.figure.dpi / 72
    for (name, x, y), dot in zip(points, dots, strict=True):
        label = axes.annotate(
            name, (x, y), textcoords="offset points", fontsize=8, va="center", ha="center",
            arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkB": 3},
        )  # fmt: skip
        label.set_in_layout(False)  # the frame stays where it is
        size = Text.get_window_extent(label).size  # without the line
        for offset in offsets(size[0] / pixels):
            middle = dot + np.array(offset) * pixels
            box = Bbox([middle - size / 2, middle + size / 2])
            inside = np.all(box.p0 > frame.p0) and np.all(box.p1 < frame.p1)
            if inside and not box.count_overlaps(taken):
                break
        label.set_position(offset)
        taken.append(box)


def offsets(width: float) -> Iterable[tuple[float, float]]:
    """Places around a point, nearest first, in points."""
    for ring in range(12):
        for angle in np.arange(0, 360, 30):
            direction = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
            yield tuple(direction * (6 + width / 2 + 6 * ring, 9 + 7 * ring))


# --- the command --------------------------------------------------------------------------


def record_costs(names: Sequence[str], device: torch.device | None) -> None:
    """Costs that come with the program, and times on a device; other networks' stay."""
    before = Measured.read()
    known = set(zoo_names())
    costs = {**before.costs, **counted(names, told)}
    times = dict(before.times)
    if device is not None:
        kind = "cpu" if device.type == "cpu" else "gpu"
        now = timed(names, device, told)
        others = times[kind].milliseconds if kind in times else {}
        milliseconds = of(known, {**others, **now.milliseconds})
        times[kind] = replace(now, milliseconds=milliseconds)
    Measured(of(known, costs), times).write(MEASURED_FILE)


def of(names: set[str], numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Without networks that there are no more."""
    return {name: number for name, number in numbers.items() if name in names}


def told(progress: Progress) -> None:
    print(f"{progress.done + 1} of {progress.total}: {progress.message}", flush=True)


def main() -> None:
    parser = shared_options(__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--config", default="gi-tract-small")
    parser.add_argument("--only", help="networks, as unet,fct; default: all")
    parser.add_argument("--held-out", default="case20,case6")
    parser.add_argument("--slices-seen", type=int, default=3200)
    parser.add_argument("--batch", type=int, default=4, help="crops in a step")
    parser.add_argument("--crop", type=int, default=96, help="pixels")
    parser.add_argument("--patch-slices", type=int, default=16, help="of a 3-D network")
    parser.add_argument("--fine-tune-steps", type=int, default=10, help="that are timed")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--docs", action="store_true")
    parser.add_argument("--measure", action="store_true", help="for models zoo; trains nothing")
    parser.add_argument("--count", action="store_true", help="the same without times")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--budget", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    chosen = options.only.split(",") if options.only else list(networks())
    if unknown := [name for name in chosen if name not in networks()]:
        parser.error(f"{unknown[0]!r} is none of {', '.join(networks())}")
    if options.measure or options.count:
        names = [name for name in chosen if name not in ALSO]
        record_costs(names, choose_device(options.device) if options.measure else None)
        return
    if not options.data or not options.work:
        parser.error("--data and --work are needed")
    options.work.mkdir(parents=True, exist_ok=True)
    if options.one:
        budget = Budget(**options.budget | {"held_out": tuple(options.budget["held_out"])})
        outcome = judged(options.one, budget, options.data, options.work)
        (options.work / "outcome.part").write_text(json.dumps(asdict(outcome)), encoding="utf-8")
        return
    compare(chosen, options)


def compare(chosen: Sequence[str], options: argparse.Namespace) -> None:
    budget = Budget(
        options.config, tuple(options.held_out.split(",")), options.slices_seen, options.batch,
        options.crop, options.patch_slices, options.fine_tune_steps, options.threads,
        options.device,
    )  # fmt: skip
    outcomes: list[Outcome] = []
    for name in chosen:
        outcome = kept(name, budget, options)
        if outcome is not None:
            outcomes.append(outcome)
            print(" | ".join(row(outcome)), flush=True)
    failed = [name for name in chosen if name not in {one.name for one in outcomes}]
    if not outcomes:
        raise SystemExit("Every network failed.")
    outcomes.sort(key=lambda one: -one.mean_dice)
    recipe = read_recipe(recipe_file(budget.config))
    notes = budget_told(budget, recipe)
    if failed:
        notes += f" Failed: {', '.join(failed)}."
    finish(
        "The zoo, all networks with the same budget",
        COLUMNS, [row(one) for one in outcomes], notes,
        options,
    )  # fmt: skip
    if options.docs:
        write_docs(outcomes, notes)
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
