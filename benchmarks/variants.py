"""Variants of a recipe against each other: the same folds, the same steps, in one table.

Each variant of a YAML file changes some settings of the recipe; each is trained on every fold
of a split and scored on the patients held out of it. A variant's text may hold ``{fold}``,
for a start or a source that must not have seen the fold's patients.

    python benchmarks/variants.py --data DATA --config gi-tract-small \\
        --variants training/experiments.yaml --split training/gi-tract-small.split.yaml \\
        --steps 400 --work RUNS [--only baseline,five_slices] [--folds 1,2] [--record]

What is done is kept in the work folder: an interrupted run goes on where it was.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from _bench import finish, shared_options
from _folds import ORGANS, chosen_folds, scored, stack_dice
from gitract.cross_validation import read_split
from gitract.evaluation import Evaluation
from gitract.recipe import Recipe, read_recipe, recipe_file
from gitract.train import load_training_data


def changed(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with some of them replaced, at any depth; under ``sources`` those are added."""
    result = dict(settings)
    for key, value in changes.items():
        if key == "sources":
            result[key] = [*result[key], *value]
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = changed(result[key], value)
        else:
            result[key] = value
    return result


def filled(value: Any, fold: int) -> Any:
    """The fold's number in place of ``{fold}``."""
    if isinstance(value, str):
        return value.replace("{fold}", str(fold))
    if isinstance(value, Mapping):
        return {key: filled(one, fold) for key, one in value.items()}
    return [filled(one, fold) for one in value] if isinstance(value, list) else value


def main() -> None:
    parser = shared_options(__doc__)
    parser.add_argument("--config", default="gi-tract-small")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--variants", type=Path, required=True)
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("--only", help="variants, as baseline,five_slices; default: all")
    parser.add_argument("--folds", help="as 1,3; default: all")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()

    recipe = read_recipe(recipe_file(options.config))
    variants = yaml.safe_load(options.variants.read_text(encoding="utf-8"))
    folds = read_split(options.split).folds
    chosen = chosen_folds(options.folds, len(folds))
    cache = options.work / "cache"
    rows = []
    for name in options.only.split(",") if options.only else variants:
        found = []
        for fold in chosen:
            steps = {"steps": options.steps, "steps_per_epoch": options.steps}
            settings = changed(recipe.model_dump(mode="json"), {"optimisation": steps})
            settings = changed(settings, filled(variants[name] or {}, fold))
            varied = Recipe.model_validate(settings)
            output = options.work / name / f"fold-{fold}"
            data = partial(load_training_data, varied, options.data, cache=cache)
            found.append(scored(varied, data, folds[fold - 1], output))
            print(name, folds[fold - 1][0], stack_dice(found[-1]), flush=True)
        means = stack_dice(Evaluation.merged(found))
        patients = [np.mean(list(stack_dice(one).values())) for one in found]
        cells = [f"{means[organ]:.3f}" for organ in ORGANS]
        average = f"{np.mean(list(means.values())):.3f}"
        rows.append([name, *cells, average, *(f"{mean:.3f}" for mean in patients)])
        print(rows[-1], flush=True)
    tested = [folds[fold - 1][0] for fold in chosen]
    finish(
        f"Variants of {recipe.id}",
        ["variant", "stomach", "large bowel", "small bowel", "mean", *tested],
        rows,
        f"{options.steps} steps each, unless the variant says otherwise; a fold at a time held "
        "out. 3-D Dice on the scans' own grid, mean over the held-out patients with whole "
        f"stacks ({', '.join(tested)}), by whom the last columns are.",
        options,
    )  # fmt: skip


if __name__ == "__main__":
    main()
