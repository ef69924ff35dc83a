"""A training recipe: what `gitract train --config FILE` reads."""

import difflib
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError

from gitract.augment import Augmentation
from gitract.errors import InputError
from gitract.model_config import NetworkConfig, Preparation
from gitract.strict import StrictModel

__all__ = ["CompetitionSource", "Optimisation", "PairsSource", "Recipe", "Source", "read_recipe"]


class CompetitionSource(StrictModel):
    """A folder in the competition's layout: ``train/caseN/caseN_dayM/scans``, ``train.csv``.

    Parameters
    ----------
    path
        Below the data folder.
    weight
        How often a patient of this source is drawn, against the others' patients.
    """

    kind: Literal["competition"]
    path: str = "."
    weight: float = Field(default=1.0, gt=0)


class PairsSource(StrictModel):
    """Single slices as PNG: a folder of images and one of label images of the same names.

    Parameters
    ----------
    path, images, labels
        The folder, and the two folders in it.
    field_of_view_mm, pixel_mm
        Exactly one of the two: width of the image, or size of a pixel.
    organs
        The organs that were outlined; the others are unknown, not absent.
    label_values
        Organ name by pixel value of the label images.
    patients
        ``name``: the file name up to the first underscore. Else a CSV with the columns
        ``file`` and ``group``; each group counts as a patient.
    same_patient
        Group to patient, where a group is known to be a patient of another source.
    weight
        How often this source as a whole is drawn, against one patient of the others.
    """

    kind: Literal["pairs"]
    path: str
    images: str = "images"
    labels: str = "labels"
    field_of_view_mm: float | None = Field(default=None, gt=0)
    pixel_mm: float | None = Field(default=None, gt=0)
    organs: tuple[str, ...]
    label_values: dict[int, str]
    patients: str = "name"
    same_patient: dict[str, str] = Field(default_factory=dict)
    weight: float = Field(default=1.0, gt=0)


Source = Annotated[CompetitionSource | PairsSource, Field(discriminator="kind")]


class Optimisation(StrictModel):
    """How long and how fast.

    Parameters
    ----------
    steps, steps_per_epoch
        Batches in all, and between two validations and checkpoints.
    batch_size, crop
        Slices in a batch; side of the square crop in prepared pixels.
    organ_fraction
        Share of the slices of a batch that hold an organ.
    learning_rate, weight_decay, warm_up
        AdamW with a linear warm-up of that many steps, then cosine to zero.
    ema_decay
        Of the moving average of the weights that is validated and kept.
    dice_weight
        Of the Dice term against the cross-entropy.
    """

    steps: int = Field(default=4000, ge=1)
    steps_per_epoch: int = Field(default=200, ge=1)
    batch_size: int = Field(default=16, ge=2)
    crop: int = Field(default=160, ge=32, multiple_of=32)
    organ_fraction: float = Field(default=0.7, ge=0, le=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)
    warm_up: int = Field(default=100, ge=0)
    ema_decay: float = Field(default=0.995, ge=0, lt=1)
    dice_weight: float = Field(default=1.0, ge=0)


class Recipe(StrictModel):
    """Everything that decides a training run, but the data folder and who is held out."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    title: str
    about: str = Field(default="", description="of the data, for the model card")
    seed: int = 0
    network: NetworkConfig
    preparation: Preparation = Preparation()
    sources: tuple[Source, ...] = Field(min_length=1)
    optimisation: Optimisation = Optimisation()
    augmentation: Augmentation = Augmentation()


def _known_keys(model: type[BaseModel]) -> set[str]:
    """Every key that may stand anywhere in a recipe."""
    keys = set(model.model_fields)
    for part in (Preparation, NetworkConfig, CompetitionSource, PairsSource, Optimisation,
                 Augmentation):  # fmt: skip
        keys |= set(part.model_fields)
    return keys


def read_recipe(path: Path) -> Recipe:
    """Read a recipe from YAML.

    Raises
    ------
    InputError
        The file cannot be read, is not YAML, or does not fit: says which key, and the
        nearest known name of an unknown one.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"The recipe {path} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(f"The recipe {path} is not YAML: {reason}.") from None
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        if first["type"] == "extra_forbidden":
            close = difflib.get_close_matches(str(first["loc"][-1]), _known_keys(Recipe), n=1)
            hint = f": did you mean {close[0]!r}?" if close else "."
            raise InputError(f"The recipe {path} has an unknown key {where}{hint}") from None
        raise InputError(f"The recipe {path}: {where}: {first['msg'].lower()}.") from None
