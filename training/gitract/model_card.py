"""Model cards, written by the program that made the model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gitract._version import __version__
from gitract.model_config import ModelConfig
from gitract.organs import ORGANS
from gitract.recipe import Recipe

if TYPE_CHECKING:
    from gitract.data import Stack
    from gitract.fine_tune import Card
    from gitract.train import PatientScore

__all__ = ["dice_table", "fine_tuning_card", "training_card"]

_LIMITS = """## Limits

Research software: not for treatment decisions. Trained on few patients of one 0.35 T
MR-Linac data set; expect it to be wrong on other scanners, sequences and anatomy until it
is fine-tuned there, and look at every slice.
"""


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def dice_table(scores: Sequence["PatientScore"]) -> str:
    """Markdown table: 3-D Dice of each held-out stack by organ."""
    lines = [
        "| stack | " + " | ".join(organ.title for organ in ORGANS) + " |",
        "|---|" + "---|" * len(ORGANS),
    ]
    for score in scores:
        cells = " | ".join(_cell(score.dice.get(organ.name)) for organ in ORGANS)
        lines.append(f"| {score.name} | {cells} |")
    return "\n".join(lines)


def training_card(
    config: ModelConfig,
    recipe: Recipe,
    stacks: Sequence["Stack"],
    scores: Sequence["PatientScore"],
    how: str = "patients that it was not trained on",
) -> str:
    """The card of a model that `gitract train` made.

    Parameters
    ----------
    config
        The model's configuration.
    recipe
        What it was trained by.
    stacks
        What it was trained on.
    scores
        Held-out scans; empty where nobody was held out.
    how
        What the scores were measured on.
    """
    slices = sum(len(stack.slices) for stack in stacks)
    outlined = [
        sum(int(stack.masks[i].any(dim=(1, 2)).sum()) for stack in stacks)
        for i in range(len(ORGANS))
    ]
    organs = ", ".join(
        f"{organ.title.lower()} on {count}" for organ, count in zip(ORGANS, outlined, strict=True)
    )
    tested = (
        f"3-D Dice on {how}:\n\n{dice_table(scores)}\n"
        if scores
        else "Nobody was held out of this training, so it has no score of its own.\n"
    )
    return f"""# {config.title}

`{config.id}`, made {config.created} by {config.software}. Weights: SHA-256
`{config.weights_sha256 or "in config.json"}`.

## Data

{recipe.about or "No description was given."}

{slices} labelled slices ({organs}) from: {_patients(stacks)}.

## Training

Network `{config.network.name}` {config.network.options}, slices at {config.preparation.pixel_mm} mm
with {config.preparation.neighbours} neighbour(s) on each side, {config.preparation.stride} apart;
{recipe.optimisation.steps} steps of {recipe.optimisation.batch_size} slices from random weights,
seed {recipe.seed}.

## Held-out results

{tested}
{_LIMITS}"""


def _patients(stacks: Sequence["Stack"]) -> str:
    """Patients by name; groups of single slices, which have none, as a count."""
    patients = sorted({stack.patient for stack in stacks})
    named = [patient for patient in patients if patient.startswith("case")]
    others = len(patients) - len(named)
    return ", ".join(named) + (f", and {others} groups of single slices" if others else "")


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
        f"| {row.organ.title} | {_cell(row.before)} | {_cell(row.after)} | {row.slices} |"
        for row in card.rows
    )
    return f"""# {config.title}

`{config.id}`, fine-tuned from `{config.parent}` on {config.created} by
napari-gitract {__version__}, on {len(card.trained_on)} reviewed slices of one scan in
{card.steps} steps.

## Before and after

{card.sentence} ({card.method})

| organ | Dice before | Dice after | slices with it |
|---|---|---|---|
{rows}

{_LIMITS}"""
