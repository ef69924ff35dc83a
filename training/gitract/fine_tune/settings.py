"""How a model is fine-tuned."""

from pydantic import Field

from gitract.recipe import Augmentation
from gitract.strict import StrictModel

__all__ = ["FineTuneSettings"]


class FineTuneSettings(StrictModel):
    """How a model is fine-tuned; the defaults need no decision.

    Parameters
    ----------
    steps, evaluate_every
        Training steps, and steps between two looks at the held-out slices.
    parts
        Most parts for cross-validation.
    batch_size
        Reviewed slices in a step.
    remembered, replayed
        Slices in a step that nobody reviewed, with the model's own contours; slices of the
        replay folder, where there is one. A 3-D network takes as many patches.
    blend
        Where the candidate stands between the old weights (0) and the trained ones (1).
    learning_rate
        Of the AdamW optimiser.
    augmentation
        Milder than in training: it is the same scanner and the same patient.
    new_organ_steps, new_organ_rate
        Steps in which the outputs for new organs learn alone, before all else and at the end,
        and their learning rate.
    seed
        Of everything random.
    """

    steps: int = Field(default=80, ge=1)
    evaluate_every: int = Field(default=20, ge=1)
    parts: int = Field(default=3, ge=2)
    batch_size: int = Field(default=4, ge=1)
    remembered: int = Field(default=2, ge=0)
    replayed: int = Field(default=2, ge=0)
    blend: float = Field(default=0.4, gt=0, le=1)
    learning_rate: float = Field(default=3e-4, gt=0)
    augmentation: Augmentation = Augmentation(
        rotation_deg=5, scale=0.1, shift=0.03, elastic_mm=2, gamma=0.2, contrast=0.15,
        brightness=0.03, bias_field=0.25, noise=0.03, blur=0.1, repeat_centre=0.0,
    )  # fmt: skip
    new_organ_steps: int = Field(default=20, ge=0)
    new_organ_rate: float = Field(default=1e-2, gt=0)
    seed: int = 0
