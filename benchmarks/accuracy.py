"""Dice on patients that were held out, by patient, beside the model that has seen them.

Takes a run of `gitract train --split`, in which each patient was scored by a network trained
without that patient. The second number is the installed model's on the same scan, which
it was trained on: the gap is what memory is worth.

    python benchmarks/accuracy.py --run RUNS/small --data DATA/uwm_stacks [--record]
"""

from pathlib import Path

from _bench import finish, shared_options
from gitract.cross_validation import SPLIT_FILE, read_split
from gitract.evaluate import evaluate
from gitract.evaluation import Evaluation
from gitract.labelled import find_labelled
from gitract.metrics import mean_over_patients
from gitract.predict import Segmenter
from gitract.train import EVALUATION_FILE


def cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def main() -> None:
    parser = shared_options(__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    held_out = Evaluation.read(options.run / EVALUATION_FILE)
    folds = read_split(options.run / SPLIT_FILE).folds
    scans = [one.name for one in find_labelled(options.data)]
    seen = evaluate(Segmenter("gi-tract-small"), options.data, cases=scans)
    by_key = {(s.scan, s.organ): s for s in seen.scores}
    judged = [s for s in held_out.scores if (s.scan, s.organ) in by_key]
    rows = []
    for s in sorted(judged, key=lambda s: s.scan):
        other = by_key[s.scan, s.organ]
        rows.append([
            s.scan, s.organ, cell(s.dice), cell(s.slice_dice), cell(other.dice),
            f"{s.volume_ml:.0f}", f"{s.true_volume_ml:.0f}",
        ])  # fmt: skip
    means = mean_over_patients((s.patient, s.organ, s.dice) for s in judged)
    memory = seen.mean_dice
    rows += [["mean over patients", o, cell(means[o]), "", cell(memory[o]), "", ""] for o in means]
    finish(
        "Accuracy by cross-validation over patients",
        ["scan", "organ", "3-D Dice, held out", "slice Dice, held out",
         "3-D Dice, shipped model (has seen it)", "mL, held out", "true mL"],
        rows,
        f"Held out, a fold at a time: {'; '.join(', '.join(fold) for fold in folds)}. Scored on "
        "the scans' own grid. Slice Dice is the mean over slices that are not empty in both.",
        options,
    )  # fmt: skip


if __name__ == "__main__":
    main()
