"""Model cards, written by the program that made the model."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gitract._version import __version__
from gitract.model_config import ModelConfig, to_the_minute
from gitract.recipe import Recipe
from gitract.surface import TOLERANCE_MM

if TYPE_CHECKING:
    from gitract.calibration import Calibration
    from gitract.data_report import DataReport
    from gitract.evaluation import Evaluation, Mean
    from gitract.fine_tune import Card

__all__ = ["fine_tuning_card", "training_card"]

_MOST_NAMED = 24

_LIMITS = """## Limits

Research software: not for treatment decisions. Expect it to be wrong on scanners, sequences
and anatomy that are not in its data, until it is fine-tuned there, and look at every slice.
"""


def _cell(value: float | None, decimals: int = 3) -> str:
    return "–" if value is None else f"{value:.{decimals}f}"


def training_card(
    config: ModelConfig,
    recipe: Recipe,
    data: "DataReport",
    held_out: Sequence[str],
    evaluation: "Evaluation | None",
    *,
    final: str = "",
    calibration: "Calibration | None" = None,
) -> str:
    """The card of a model that `gitract train` made.

    Parameters
    ----------
    config
        The model's configuration.
    recipe
        What it was trained by.
    data
        What was found to train and test on.
    held_out
        Patients that it was tested on; of all folds where there were several.
    evaluation
        Scores on them; None where nobody was held out.
    final
        ``ensemble`` or ``everyone`` after a cross-validation, as `cross_validate` takes it.
    calibration
        What the cross-validation says of the probabilities.
    """
    settings, prepared = recipe.optimisation, config.preparation
    view = (
        f"patches of {' x '.join(map(str, prepared.patch))} (slice, row, column)"
        if prepared.patch
        else f"slices with {prepared.neighbours} neighbour(s) on each side, {prepared.stride} apart"
    )
    distance = f", {prepared.slice_mm} mm between slices" if prepared.slice_mm else ""
    terms = ", ".join(f"{loss.weight:g} x {loss.kind}" for loss in recipe.losses)
    data_lines = "\n".join(data.lines())
    return f"""# {config.title}

`{config.id}`, made {to_the_minute(config.created)} UTC by {config.software},
{_versions()}. \
Weights: SHA-256 `{config.weights_sha256}`. Licence: {recipe.licence or "not stated"}.

## Data

{recipe.about or "No description was given."}

Trained on: {_listed(config.trained_on)}. The data, those who were held out included:

```
{data_lines}
```

## Training

Network `{config.network.name}` ({_options(config.network.options)}); {view},
at {prepared.pixel_mm} mm{distance}; {settings.steps} steps of {settings.batch_size}, \
minimising {terms}; {settings.optimiser}, learning rate {settings.learning_rate:g}, \
seed {recipe.seed}.
{f"Started from {Path(recipe.start).name}." if recipe.start else "Started from random weights."} \
The weights are those of the last step (their moving average), not of the one that did best on
who was held out. The whole recipe is in `recipe.yaml` of the run.

## Held-out results

{_results(config, held_out, evaluation, final)}
{_probabilities(calibration)}{_LIMITS}"""


def _probabilities(calibration: "Calibration | None") -> str:
    if calibration is None:
        return ""
    return "\n".join(["## Probabilities", "", *calibration.lines(), "", ""])


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in options.items()) or "no options"


def _listed(patients: Sequence[str]) -> str:
    """Names, of many only the first."""
    named = sorted(set(patients))
    more = len(named) - _MOST_NAMED
    return ", ".join(named[:_MOST_NAMED]) + (f" and {more} others" if more > 0 else "")


def _versions() -> str:
    libraries = ("torch", "segmentation-models-pytorch", "timm", "monai", "lightning")
    named = ", ".join(f"{library} {version(library)}" for library in libraries)
    return f"with Python {platform.python_version()}, {named}"


def _results(
    config: ModelConfig, held_out: Sequence[str], evaluation: "Evaluation | None", final: str
) -> str:
    if evaluation is None:
        return "Nobody was held out of this training, so it has no score of its own.\n"
    how = {
        "": "Measured on patients that it was not trained on.",
        "ensemble": "Cross-validated by patient: each was scored by the one network, of those "
        "that this model is the mean of, that was trained without that patient.",
        "everyone": "Cross-validated by patient: the recipe was trained without the patients of "
        "each fold and scored on them, while the network that is kept here has seen all.",
    }[final]
    competition = evaluation.competition()
    score = f"Competition score, reading A: {competition.score:.3f}.\n" if competition else ""
    remarks = "".join(f"{remark}\n" for remark in evaluation.remarks)
    return f"""{how} Held out: {_listed(held_out)}.
On the scans' own grid; mean over patients, in brackets the 95 % bootstrap interval over
patients.

{_summary_table(config, evaluation)}

3-D Dice by scan:

{_dice_table(config, evaluation)}

{score}{remarks}"""


_IN_CARD = ("dice", "hd95_mm", "surface_dice_2mm", "absolute_volume_error_ml")


def _summary_table(config: ModelConfig, evaluation: "Evaluation") -> str:
    from gitract.evaluation import METRICS

    metrics = [metric for metric in METRICS if metric.name in _IN_CARD]
    titles = [*(metric.title for metric in metrics), "Slices missed", "Slices invented"]
    lines = ["| organ | " + " | ".join(titles) + " |", "|---|" + "---|" * len(titles)]
    counts = evaluation.counts()
    for organ in config.organs:
        means = ((m.decimals, evaluation.mean(m.name, organ.name)) for m in metrics)
        cells = " | ".join(_mean_cell(mean, decimals) for decimals, mean in means)
        told = counts.get(organ.name, {})
        missed = f"{told.get('missed_slices', 0)} of {told.get('slices', 0)}"
        invented = told.get("invented_slices", 0)
        lines.append(f"| {organ.title} | {cells} | {missed} | {invented} |")
    return "\n".join(lines)


def _mean_cell(mean: "Mean | None", decimals: int) -> str:
    if mean is None:
        return "–"
    if mean.interval is None:
        return f"{mean.value:.{decimals}f}"
    low, high = mean.interval
    return f"{mean.value:.{decimals}f} ({low:.{decimals}f} to {high:.{decimals}f})"


def _dice_table(config: ModelConfig, evaluation: "Evaluation") -> str:
    dice = {(score.scan, score.organ): score.dice for score in evaluation.scores}
    lines = [
        "| scan | " + " | ".join(organ.title for organ in config.organs) + " |",
        "|---|" + "---|" * len(config.organs),
    ]
    for scan in evaluation.scans:
        cells = " | ".join(_cell(dice.get((scan, organ.name))) for organ in config.organs)
        lines.append(f"| {scan} | {cells} |")
    return "\n".join(lines)


def fine_tuning_card(config: ModelConfig, card: "Card") -> str:
    """The card of a model that was fine-tuned on a person's corrections.

    Parameters
    ----------
    config
        The new model's configuration.
    card
        Its comparison with its parent.
    """
    rows = "\n".join(
        f"| {row.organ.title} | {_cell(row.before)} | {_cell(row.after)} "
        f"| {_cell(row.hd95_before, 1)} | {_cell(row.hd95_after, 1)} "
        f"| {_cell(row.surface_before)} | {_cell(row.surface_after)} "
        f"| {row.ml:.0f} | {row.ml_before:.0f} | {row.ml_after:.0f} | {row.slices} |"
        for row in card.rows
    )
    kept = "\n".join(
        f"| {one.where} | {one.slices} | {_cell(one.before)} | {_cell(one.after)} |"
        for one in card.retention
    )
    scans = "one scan" if card.scans == 1 else f"{card.scans} scans"
    return f"""# {config.title}

`{config.id}`, fine-tuned from `{config.parent}` on {to_the_minute(config.created)} UTC by
napari-gitract {__version__}, on {len(card.trained_on)} reviewed slices of {scans} in
{card.steps} steps.

## Before and after

{card.sentence} ({card.method})

On the held-out slices together; distances and surface Dice (at {TOLERANCE_MM:g} mm) as means
over slices that have the organ in the contours and in both answers; volumes in mL:

| organ | Dice before | after | HD95, mm, before | after | surface Dice before | after \
| volume | before | after | slices with it |
|---|---|---|---|---|---|---|---|---|---|---|
{rows}

## What was kept

Of replay scans the mean Dice, before and after; elsewhere how far both models agree, as Dice:

| where | slices | before | after |
|---|---|---|---|
{kept}

{_LIMITS}"""
