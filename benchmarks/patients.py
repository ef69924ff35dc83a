"""Dice on held-out patients against the number of patients to learn from.

Each fold of a split is trained several times for the same number of steps, on nested random
choices of the patients who have all organs outlined; what knows fewer organs is left out, so
that only the number of patients differs.

    python benchmarks/patients.py --data DATA --split training/gi-tract-small.split.yaml \\
        --counts 2,5,all --steps 400 --work RUNS [--folds 3,4] [--record]

A training that is done is not repeated.
"""

import random
from functools import partial
from pathlib import Path

import numpy as np

from _bench import finish, shared_options
from _folds import ORGANS, chosen_folds, of_patients, scored, stack_dice
from gitract.cross_validation import read_split
from gitract.evaluation import Evaluation
from gitract.recipe import read_recipe, recipe_file
from gitract.train import load_training_data


def main() -> None:
    parser = shared_options(__doc__)
    parser.add_argument("--config", default="gi-tract-small")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("--folds", help="as 1,3; default: all")
    parser.add_argument("--counts", default="2,5,all")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()

    recipe = read_recipe(recipe_file(options.config))
    optimisation = recipe.optimisation.model_copy(
        update={"steps": options.steps, "steps_per_epoch": options.steps}
    )
    recipe = recipe.model_copy(update={"optimisation": optimisation})
    data = load_training_data(recipe, options.data, cache=options.work / "cache")
    complete = sorted({stack.patient for stack in data.stacks if all(stack.known)})
    folds = read_split(options.split).folds
    chosen = chosen_folds(options.folds, len(folds))

    rows = []
    for count in options.counts.split(","):
        found: list[Evaluation] = []
        numbers: list[int] = []
        for number in chosen:
            held_out = folds[number - 1]
            others = [patient for patient in complete if patient not in held_out]
            random.Random(number).shuffle(others)
            learners = others if count == "all" else others[: int(count)]
            numbers.append(len(learners))
            output = options.work / f"fold-{number}-of-{count}"
            part = partial(of_patients, data, {*learners, *held_out})
            found.append(scored(recipe, part, held_out, output))
        means = stack_dice(Evaluation.merged(found))
        cells = [f"{means[organ]:.3f}" for organ in ORGANS]
        average = f"{np.mean(list(means.values())):.3f}"
        rows.append([f"{np.mean(numbers):g}", *cells, average])
        print(rows[-1], flush=True)
    held = "; ".join(", ".join(folds[number - 1]) for number in chosen)
    finish(
        "Dice against the number of patients to learn from",
        ["patients", "stomach", "large bowel", "small bowel", "mean"],
        rows,
        f"Recipe {recipe.id}, {options.steps} steps each, patients with all three organs alone. "
        f"Held out, a fold at a time: {held}. 3-D Dice on the scans' own grid, mean over the "
        "held-out patients with whole stacks.",
        options,
    )  # fmt: skip


if __name__ == "__main__":
    main()
