"""Dice on patients that were held out, by patient, beside the model that has seen them.

Takes the folds of `training/cross_validate.py`: one model for each patient, trained
without that patient. The second number is the installed model's on the same scan, which
it was trained on: the gap is what memory is worth.

    python benchmarks/accuracy.py --folds RUNS/cv --data DATA/uwm_stacks [--record]
"""

import argparse
from pathlib import Path

from _bench import finish
from gitract.evaluate import evaluate
from gitract.evaluation import Evaluation
from gitract.predict import Segmenter


def cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folds", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    patients = sorted(path.parent.name for path in options.folds.glob("*/model"))
    held_out = Evaluation.merged(
        evaluate(Segmenter(options.folds / patient / "model"), options.data, cases=[patient])
        for patient in patients
    )
    seen = evaluate(Segmenter("gi-tract-small"), options.data, cases=patients)
    by_key = {(s.scan, s.organ): s for s in seen.scores}
    rows = []
    for s in sorted(held_out.scores, key=lambda s: s.scan):
        other = by_key[s.scan, s.organ]
        rows.append([
            s.scan, s.organ, cell(s.dice), cell(s.slice_dice), cell(other.dice),
            f"{s.volume_ml:.0f}", f"{s.true_volume_ml:.0f}",
        ])  # fmt: skip
    means, memory = held_out.mean_dice, seen.mean_dice
    rows += [["mean over patients", o, cell(means[o]), "", cell(memory[o]), "", ""] for o in means]
    finish(
        "Accuracy by cross-validation over patients",
        ["scan", "organ", "3-D Dice, held out", "slice Dice, held out",
         "3-D Dice, shipped model (has seen it)", "mL, held out", "true mL"],
        rows,
        f"Held out one at a time: {', '.join(patients)}. Scored on the scans' own grid. Slice "
        "Dice is the mean over slices that are not empty in both.",
        record=options.record,
        json_file=options.json,
    )  # fmt: skip


if __name__ == "__main__":
    main()
