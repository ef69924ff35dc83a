"""Ours against nnU-Net v2: the same patients, the same time to train, in the same run.

nnU-Net's 2-D configuration with its default planner, network, augmentation and schedule, and
a recipe of ours: each is trained once for each held-out patient for the same minutes on this
CPU, and scored by gitract's evaluation on the scans' own grid. nnU-Net runs in an environment
of its own:

    python -m venv ENV && ENV/bin/pip install nnunetv2
    python benchmarks/nnunet.py --data DATA --config RECIPE --patients case139,case16 \\
        --minutes 8 --nnunet-python ENV/bin/python --work FOLDER [--record]

What is done is kept in the work folder: an interrupted run goes on where it was.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from _bench import finish, shared_options
from gitract.data import split_by_patient
from gitract.errors import InputError
from gitract.evaluate import Evaluation, JudgedRun, JudgedScan, score_scans
from gitract.io import write_scan, write_segmentation
from gitract.labelled import LabelledRun, LabelledScan
from gitract.organs import Organ
from gitract.predict import Segmenter
from gitract.progress import Progress
from gitract.recipe import Recipe, read_recipe, recipe_file
from gitract.scan import Scan, Segmentation
from gitract.train import Machines, TrainingData, load_training_data, recipe_organs, train

DATASET = 1
NAME = f"Dataset{DATASET:03}_gitract"
PROBE_STEPS, PROBE_FROM = 20, 5  # the first steps of a process are slower
TRIES, TOLERANCE = 3, 0.05  # trained anew where the time is missed by more
WORKER = Path(__file__).with_name("_nnunet_worker.py")
PLAIN, MIRRORED, OURS = "nnU-Net, no mirroring", "nnU-Net as it comes", "ours"
AIM = 0.1  # of nnU-Net's time of inference


@dataclass(frozen=True)
class Outcome:
    """One system on one held-out patient; seconds of inference and preparation are by scan."""

    system: str
    about: str
    iterations: int
    training_s: float
    preparation_s: float
    dice: dict[str, float]
    mean_dice: float
    inference_s: dict[str, float] = field(default_factory=dict)


def kept(file: Path, settings: dict[str, Any], make: Callable[[], list[Outcome]]) -> list[Outcome]:
    """What `make` gives, or gave in an earlier run with the same settings."""
    if file.exists():
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["settings"] == json.loads(json.dumps(settings)):
            print(f"kept from an earlier run: {file}", flush=True)
            return [Outcome(**outcome) for outcome in content["outcomes"]]
    outcomes = make()
    partial = file.with_suffix(".part")
    content = {"settings": settings, "outcomes": [asdict(outcome) for outcome in outcomes]}
    partial.write_text(json.dumps(content, indent=2), encoding="utf-8")
    partial.replace(file)
    return outcomes


# --- what both are judged by --------------------------------------------------------------


class HeldOut(NamedTuple):
    """A scan of the held-out patient, its runs of slices in memory under names of their own."""

    scan: LabelledScan
    runs: list[LabelledRun]


def read_held_out(scans: Sequence[LabelledScan]) -> list[HeldOut]:
    numbers = count()
    return [
        HeldOut(
            one,
            [
                replace(run, scan=replace(run.scan, name=f"scan_{next(numbers):04}", stored=None))
                for run in one.read()
            ],
        )
        for one in scans
    ]


def of_scans(held_out: Sequence[HeldOut], by_run: dict[str, float]) -> dict[str, float]:
    """Seconds of each scan from those of its runs."""
    return {one.scan.name: sum(by_run[run.scan.name] for run in one.runs) for one in held_out}


Segment = Callable[[Scan], Segmentation]


def judged(held_out: Sequence[HeldOut], segment: Segment, system: str) -> Evaluation:
    """Scores on the scans' own grid."""
    return score_scans(
        JudgedScan(
            one.scan.name,
            one.scan.patient,
            tuple(JudgedRun(run.scan, segment(run.scan), run.truth) for run in one.runs),
            system,
        )
        for one in held_out
    )


def mean_over_organs(evaluation: Evaluation) -> float:
    mean = evaluation.mean("dice")
    return float("nan") if mean is None else mean.value


# --- nnU-Net ------------------------------------------------------------------------------


class NnUNet(NamedTuple):
    """An environment with nnU-Net, and the folder of one of its trainings."""

    python: Path
    folder: Path

    def call(self, *arguments: object) -> Any:
        """Run the worker; its answer."""
        result, log = self.folder / "answer.json", self.folder / "log.txt"
        folders = {f"nnUNet_{kind}": str(self.folder / kind)
                   for kind in ("raw", "preprocessed", "results")}  # fmt: skip
        threads = str(torch.get_num_threads())
        # One process for augmentation: on two cores more would take time from the network.
        settings = {"OMP_NUM_THREADS": threads, "nnUNet_n_proc_DA": "1", "nnUNet_compile": "False"}
        command = [self.python, WORKER, "--result", result, *arguments]
        with log.open("a", encoding="utf-8") as out:
            done = subprocess.run(
                [str(part) for part in command],
                stdout=out, stderr=subprocess.STDOUT, env=os.environ | folders | settings,
                check=False,
            )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"nnU-Net failed: the end of {log} says why.")
        return json.loads(result.read_text(encoding="utf-8"))


def check_nnunet(python: Path) -> None:
    """Refuse a Python without nnU-Net.

    Raises
    ------
    InputError
        Says how to make an environment that has it.
    """
    how = (
        "make an environment with `python -m venv ENV && ENV/bin/pip install nnunetv2` and give "
        "--nnunet-python ENV/bin/python."
    )
    try:
        subprocess.run([python, "-c", "import nnunetv2"], check=True, capture_output=True)
    except OSError as error:
        raise InputError(f"{python} cannot be run ({error.strerror}): {how}") from error
    except subprocess.CalledProcessError as error:
        raise InputError(f"{python} has no nnU-Net: {how}") from error


def nnunet(
    environment: NnUNet,
    training: Sequence[LabelledScan],
    held_out: Sequence[HeldOut],
    organs: Sequence[Organ],
    seconds: float,
    batch: int,
) -> list[Outcome]:
    """Plan, train and predict; without and with mirroring."""
    shutil.rmtree(environment.folder, ignore_errors=True)
    written = write_raw(environment.folder / "raw" / NAME, training, organs)
    plan = environment.call("plan", "--dataset", DATASET, "--batch", batch)
    trained = environment.call(
        "train", "--seconds", seconds, "--tries", TRIES, "--tolerance", TOLERANCE
    )
    images = environment.folder / "held_out"
    images.mkdir()
    for one in held_out:
        for run in one.runs:
            write_scan(run.scan, images / f"{run.scan.name}_0000.nii.gz")
    taken = environment.call("predict", "--images", images)
    about = (
        f"{written} volumes, patch {plan['patch'][0]} x {plan['patch'][1]} at "
        f"{plan['spacing'][0]:.2f} x {plan['spacing'][1]:.2f} mm, batch "
        f"{f'{batch} in place of ' if batch else ''}{plan['batch']}"
    )

    def outcome(system: str, kind: str) -> Outcome:
        def segment(scan: Scan) -> Segmentation:
            labels = np.load(images / f"{scan.name}-{kind}.npy")
            masks = np.stack([labels == number for number in range(1, len(organs) + 1)])
            return Segmentation(masks, scan.spacing, scan.affine, tuple(organs), scan.name)

        evaluation = judged(held_out, segment, system)
        return Outcome(
            system, about, trained["iterations"], trained["seconds"], plan["seconds"],
            evaluation.mean_dice, mean_over_organs(evaluation), of_scans(held_out, taken[kind]),
        )  # fmt: skip

    outcomes = [outcome(MIRRORED, "mirrored"), outcome(PLAIN, "plain")]
    shutil.rmtree(environment.folder)
    return outcomes


def write_raw(folder: Path, training: Sequence[LabelledScan], organs: Sequence[Organ]) -> int:
    """Write nnU-Net's raw layout; the number of volumes."""
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    number = 0
    for number, run in enumerate(volumes(training, organs), start=1):
        name = f"scan_{number:04}"
        write_scan(replace(run.scan, stored=None), folder / "imagesTr" / f"{name}_0000.nii.gz")
        write_segmentation(replace(run.truth, stored=None), folder / "labelsTr" / f"{name}.nii.gz")
    description = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0}
        | {organ.name: id_ for id_, organ in enumerate(organs, start=1)},
        "numTraining": number,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description, indent=2), encoding="utf-8")
    return number


def volumes(training: Sequence[LabelledScan], organs: Sequence[Organ]) -> Iterator[LabelledRun]:
    """What nnU-Net can learn from: stacks, and volumes of single slices put together.

    Left out is what has not all organs outlined. As volumes of their own, single slices would
    outvote the stacks: nnU-Net plans for the median volume, and draws volumes alike.
    """
    singles: dict[tuple[object, ...], list[LabelledRun]] = defaultdict(list)
    for one in training:
        for run in one.read():
            if not {organ.name for organ in organs} <= {organ.name for organ in run.truth.organs}:
                continue
            run = numbered(run, organs)
            if len(run.scan.voxels) > 1:
                yield run
            else:
                key = one.source.path, run.scan.shape, run.scan.spacing
                singles[key].append(run)
    for runs in singles.values():
        yield put_together(runs)


def numbered(run: LabelledRun, organs: Sequence[Organ]) -> LabelledRun:
    """The recipe's organs alone, with the consecutive ids that nnU-Net needs, in one mask each.

    A voxel of several organs goes to one, as `Segmentation.labels` decides.
    """
    flat = run.truth.labels().array
    return replace(
        run,
        truth=replace(
            run.truth,
            masks=np.stack([flat == organ.id for organ in organs]),
            organs=tuple(replace(one, id=n) for n, one in enumerate(organs, start=1)),
        ),
    )


def put_together(runs: Sequence[LabelledRun]) -> LabelledRun:
    """Single slices as one volume, each normalised as nnU-Net normalises a volume."""
    slices = [run.scan.voxels.astype(np.float32) for run in runs]
    normal = [(pixels - pixels.mean()) / max(float(pixels.std()), 1e-8) for pixels in slices]
    scan, truth = runs[0].scan, runs[0].truth
    masks = np.concatenate([run.truth.masks for run in runs], axis=1)
    return LabelledRun(
        Scan(np.concatenate(normal), scan.spacing, name=scan.name),
        Segmentation(masks, scan.spacing, organs=truth.organs, name=scan.name),
    )


# --- ours ---------------------------------------------------------------------------------


class Clock:
    """When each step of a training was done."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, progress: Progress) -> None:
        if "loss" in progress.values:
            self.times.append(time.perf_counter())


def of_length(recipe: Recipe, steps: int) -> Recipe:
    """The recipe with its schedule over so many steps, at most a tenth of them to warm up."""
    settings = recipe.optimisation
    return recipe.model_copy(
        update={
            "optimisation": settings.model_copy(
                update={
                    "steps": steps,
                    "steps_per_epoch": steps,
                    "warm_up": min(settings.warm_up, steps // 10),
                }
            )
        }
    )


class Trained(NamedTuple):
    """A model folder, and how long it was trained."""

    model: Path
    steps: int
    seconds: float


def train_ours(recipe: Recipe, data: TrainingData, seconds: float, folder: Path) -> Trained:
    """Train for as many steps as fit, without validation."""

    def times_of(steps: int) -> list[float]:
        shutil.rmtree(folder, ignore_errors=True)
        clock = Clock()
        train(
            of_length(recipe, steps), data,
            output=folder, machines=Machines(device="cpu"), report=clock,
        )  # fmt: skip
        return clock.times

    times = times_of(PROBE_STEPS)[PROBE_FROM:]
    for _ in range(TRIES):
        step_s = (times[-1] - times[0]) / (len(times) - 1)
        steps = max(2, int(seconds / step_s))
        times = times_of(steps)
        taken = (times[-1] - times[0]) * steps / (steps - 1)  # the first has no beginning
        if abs(taken / seconds - 1) < TOLERANCE:
            break
    return Trained(folder / "model", steps, taken)


def ours(
    recipe: Recipe,
    data: TrainingData,
    held_out: Sequence[HeldOut],
    seconds: float,
    folder: Path,
    preparation_s: float,
) -> list[Outcome]:
    """Train and predict."""
    training, _ = split_by_patient(data.stacks, [held_out[0].scan.patient])
    # Without the patient, in place of `hold_out`: nothing is validated, as of nnU-Net.
    without = replace(data, stacks=tuple(training), scans=())
    trained = train_ours(recipe, without, seconds, folder)
    segmenter = Segmenter(trained.model, device="cpu")
    segmenter.segment(held_out[0].runs[0].scan, slices=[0])  # warm up
    taken: dict[str, float] = {}

    def segment(scan: Scan) -> Segmentation:
        begin = time.perf_counter()
        found = segmenter.segment(scan)
        taken[scan.name] = time.perf_counter() - begin
        return found

    evaluation = judged(held_out, segment, OURS)
    begun = f"from {Path(recipe.start).name}" if recipe.start else "from scratch"
    outcome = Outcome(
        OURS, f"recipe {recipe.id}, {begun}",
        trained.steps, trained.seconds, preparation_s, evaluation.mean_dice,
        mean_over_organs(evaluation), of_scans(held_out, taken),
    )  # fmt: skip
    shutil.rmtree(folder)
    return [outcome]


# --- the table ----------------------------------------------------------------------------


def cells(patient: str, outcomes: Sequence[Outcome], organs: Sequence[Organ]) -> list[str]:
    """A row: an outcome of a patient, or the mean over several patients."""

    def mean(values: Sequence[float | None]) -> str:
        known = [value for value in values if value is not None]
        return f"{statistics.mean(known):.3f}" if known else "–"

    return [
        patient,
        outcomes[0].system,
        f"{statistics.mean(one.iterations for one in outcomes):.0f}",
        f"{statistics.mean(one.training_s for one in outcomes):.0f}",
        *(mean([one.dice.get(organ.name) for one in outcomes]) for organ in organs),
        mean([one.mean_dice for one in outcomes]),
        f"{median_inference(outcomes):.2f}",
    ]


def median_inference(outcomes: Sequence[Outcome]) -> float:
    """Of whole stacks: each patient's largest scan, the others may be single slices."""
    return statistics.median(max(one.inference_s.values()) for one in outcomes)


def notes(outcomes: dict[str, list[Outcome]], minutes: float, left_out: int) -> str:
    """What a reader of the table must know, and whether the aims are reached."""
    mine, theirs = outcomes[OURS], outcomes[MIRRORED]
    ratio = median_inference(mine) / median_inference(theirs)
    plain = median_inference(mine) / median_inference(outcomes[PLAIN])
    better = statistics.mean(o.mean_dice for o in mine) - statistics.mean(
        o.mean_dice for o in theirs
    )
    plans = "; ".join(sorted({one.about for one in theirs}))
    return (
        f"Patients held out one at a time, {minutes:g} minutes of training each on this CPU with "
        f"{torch.get_num_threads()} threads; iterations by timing some first, both schedules over "
        f"that number, anew where the time is missed by over {TOLERANCE:.0%} (at most {TRIES} "
        "times), nothing validated meanwhile. Dice is 3-D, on the scans' own grid; seconds "
        "of inference from array to array, a patient's largest scan. Mean Dice less nnU-Net's "
        f"{better:+.3f}; inference takes {ratio:.2f} of nnU-Net's time as it comes, {plain:.2f} "
        f"without its mirroring: the aims are a better Dice in at most {AIM:g}. Ours: "
        f"{mine[0].about}. nnU-Net: 2-D configuration from scratch, {plans}. {left_out} scans "
        "without all organs outlined, on which ours also learns, cannot be told to its softmax. "
        "Single slices of one source and size are put together as a volume, each normalised by "
        "itself. Preparation, not counted: ours "
        f"{mine[0].preparation_s:.0f} s once, nnU-Net's "
        f"{statistics.median(o.preparation_s for o in theirs):.0f} s for each patient."
    )


def of_patient(
    patient: str,
    options: argparse.Namespace,
    recipe: Recipe,
    data: TrainingData,
    preparation_s: float,
) -> list[Outcome]:
    """Both systems without a patient."""
    folder = options.work / patient
    folder.mkdir(exist_ok=True)
    organs, seconds = recipe_organs(recipe), 60 * options.minutes
    training = [one for one in data.scans if one.patient != patient]
    held_out = read_held_out([one for one in data.scans if one.patient == patient])
    settings = {
        "minutes": options.minutes,
        "scans": sorted(one.name for one in data.scans),
        "organs": recipe.organs,
    }
    environment = NnUNet(options.nnunet_python, folder / "nnunet")
    return [
        *kept(
            folder / "nnunet.json",
            settings | {"batch": options.nnunet_batch},
            lambda: nnunet(environment, training, held_out, organs, seconds, options.nnunet_batch),
        ),
        *kept(
            folder / "ours.json",
            settings | {"recipe": recipe.model_dump(mode="json")},
            lambda: ours(recipe, data, held_out, seconds, folder / "ours", preparation_s),
        ),
    ]


def compare(options: argparse.Namespace) -> None:
    """All trainings, and the table."""
    check_nnunet(options.nnunet_python)
    recipe = read_recipe(recipe_file(options.config))
    options.work.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    data = load_training_data(recipe, options.data, cache=options.work / "cache")
    preparation_s = time.perf_counter() - begin
    patients = options.patients.split(",")
    split_by_patient(data.stacks, patients)  # refuses unknown ones before anything is trained
    outcomes: dict[str, list[Outcome]] = defaultdict(list)
    rows: list[list[str]] = []
    organs = recipe_organs(recipe)
    for patient in patients:
        for one in of_patient(patient, options, recipe, data, preparation_s):
            outcomes[one.system].append(one)
            rows.append(cells(patient, [one], organs))
            print(" | ".join(rows[-1]), flush=True)
    rows += [cells("mean", of_system, organs) for of_system in outcomes.values()]
    partly = len({stack.name for stack in data.stacks if not all(stack.known)})
    finish(
        "Against nnU-Net v2",
        ["held out", "system", "iterations", "training (s)", *(f"Dice, {o.name}" for o in organs),
         "mean Dice", "inference (s)"],
        rows,
        notes(outcomes, options.minutes, partly),
        options,
    )  # fmt: skip


def main() -> None:
    parser = shared_options(__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--config", required=True)
    parser.add_argument("--patients", required=True)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--nnunet-python", type=Path, required=True)
    parser.add_argument(
        "--nnunet-batch",
        type=int,
        default=0,
        help="in place of the planned batch, which is for a GPU: more and smaller steps",
    )
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    try:
        compare(options)
    except InputError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
