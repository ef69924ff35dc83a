"""Train a recipe once for each held-out patient, and score it there, on the scans' own grid.

    python training/cross_validate.py --config RECIPE --data DIR --patients case16,case20 -o RUNS

A fold that was trained already is only scored again, so an interrupted run goes on. With
``--card MODEL`` the scores go into the card and the configuration of a model that was
trained by the same recipe on everybody.
"""

import argparse
import json
from pathlib import Path

from gitract.data import load_stacks
from gitract.evaluate import OrganScore, evaluate, mean_by_organ
from gitract.model_card import training_card
from gitract.model_config import CARD_FILE, CONFIG_FILE, read_model_config
from gitract.predict import Segmenter
from gitract.progress import Progress
from gitract.recipe import CompetitionSource, Recipe, read_recipe
from gitract.train import PatientScore, train


def _print_progress(progress: Progress) -> None:
    if progress.done % 100 == 0 and progress.total:
        numbers = ", ".join(f"{name} {value:.3f}" for name, value in progress.values.items())
        print(f"  {progress.message} {numbers}", flush=True)


def run_fold(recipe: Recipe, data: Path, patient: str, output: Path) -> list[OrganScore]:
    """Train without `patient` unless it is done, and score the model on that patient."""
    if not (output / "model").exists():
        resume = (output / "checkpoints" / "last.ckpt").exists()
        train(
            recipe, data=data, output=output, hold_out=[patient], resume=resume,
            report=_print_progress,
        )  # fmt: skip
    segmenter = Segmenter(output / "model")
    scores: list[OrganScore] = []
    for source in recipe.sources:
        folder = data / source.path
        if isinstance(source, CompetitionSource) and (folder / "train" / patient).is_dir():
            scores += evaluate(segmenter, folder, cases=[patient])
    return scores


def write_card(
    recipe: Recipe, steps: int, data: Path, scores: list[OrganScore], folder: Path
) -> None:
    """Put cross-validated scores into a model's card and configuration."""
    by_scan: dict[str, PatientScore] = {}
    for score in scores:
        row = by_scan.setdefault(score.scan, PatientScore(score.scan, score.patient, {}))
        row.dice[score.organ] = score.dice
    means = mean_by_organ(scores)
    config = read_model_config(folder).model_copy(update={"dice": means, "title": recipe.title})
    mean = ", ".join(f"{organ.replace('_', ' ')} {value:.3f}" for organ, value in means.items())
    how = (
        f"the scans' own grid, by cross-validation: for each patient the recipe was trained "
        f"for {steps} steps without any slice of that patient, while the model that is kept here "
        f"has seen all. Mean over patients: {mean}. By scan"
    )
    card = training_card(config, recipe, load_stacks(recipe, data), list(by_scan.values()), how)
    (folder / CONFIG_FILE).write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (folder / CARD_FILE).write_text(card, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--patients", required=True, help="as case16,case20")
    parser.add_argument("--steps", type=int, help="of each fold, where time is short")
    parser.add_argument("--card", type=Path, help="model folder whose card gets the scores")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    recipe = read_recipe(options.config)
    steps = options.steps or recipe.optimisation.steps
    fold_optimisation = recipe.optimisation.model_copy(update={"steps": steps})
    fold_recipe = recipe.model_copy(update={"optimisation": fold_optimisation})
    scores: list[OrganScore] = []
    for patient in options.patients.split(","):
        print(f"Without {patient}", flush=True)
        scores += run_fold(fold_recipe, options.data, patient, options.output / patient)
    print("| scan | slices | organ | 3-D Dice | slice Dice |\n|---|---|---|---|---|")
    for s in scores:
        cells = ["–" if value is None else f"{value:.3f}" for value in (s.dice, s.slice_dice)]
        print(f"| {s.scan} | {s.slices} | {s.organ} | {cells[0]} | {cells[1]} |")
    means = mean_by_organ(scores)
    print("Mean over patients:", ", ".join(f"{name} {value:.3f}" for name, value in means.items()))
    content = {"recipe": recipe.id, "mean_dice": means, "scores": [s.as_dict() for s in scores]}
    if options.card is not None:
        write_card(recipe, steps, options.data, scores, options.card)
    (options.output / "scores.json").write_text(json.dumps(content, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
