"""A training recipe: what `gitract train --config FILE` reads."""

import difflib
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from gitract.errors import InputError
from gitract.model_config import IMAGENET, NetworkConfig, Preparation
from gitract.organs import ORGANS
from gitract.strict import StrictModel

__all__ = [
    "BCE_AND_DICE",
    "IMAGENET",
    "Augmentation",
    "CompetitionSource",
    "Loss",
    "Optimisation",
    "PairsSource",
    "Recipe",
    "Sampling",
    "ScansSource",
    "Source",
    "read_recipe",
    "recipe_file",
]


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


class ScansSource(StrictModel):
    """Scans with their contours, in any format that `gitract.io` reads.

    NIfTI and TIFF pairs, as ``images/`` and ``labels/`` or beside each other; DICOM series
    with an RT Structure Set or SEG.

    Parameters
    ----------
    path
        Below the data folder.
    organs
        The organs that were outlined on every scan; None: those that each file of contours
        names, or that ``label_values`` lists.
    label_values
        Organ name by value, for label images that name nothing.
    contours
        Organ name by the name of a contour, ``-`` to leave it out, where the usual names do
        not tell.
    patients
        ``auto``: the patient of a DICOM series, else the folder below `path`, else the file
        name up to the first underscore after a digit. Or a CSV with the columns ``file`` and
        ``group``, whose groups are taken as the patients' names.
    weight
        How often a patient of this source is drawn, against the others' patients.
    """

    kind: Literal["scans"]
    path: str = "."
    organs: tuple[str, ...] | None = None
    label_values: dict[int, str] = Field(default_factory=dict)
    contours: dict[str, str] = Field(default_factory=dict)
    patients: str = "auto"
    weight: float = Field(default=1.0, gt=0)


Source = Annotated[CompetitionSource | PairsSource | ScansSource, Field(discriminator="kind")]


class Loss(StrictModel):
    """One term of the loss; the terms are added.

    Parameters
    ----------
    kind
        Binary cross-entropy, Dice, Tversky (false positives weigh ``alpha``, false negatives
        ``beta``), focal (``gamma``) or Lovász hinge.
    weight
        Of the term.
    """

    kind: Literal["bce", "dice", "tversky", "focal", "lovasz"]
    weight: float = Field(default=1.0, gt=0)
    alpha: float = Field(default=0.3, ge=0)
    beta: float = Field(default=0.7, ge=0)
    gamma: float = Field(default=2.0, ge=0)


BCE_AND_DICE = (Loss(kind="bce"), Loss(kind="dice"))
"""What a recipe minimises when it does not say, and fine-tuning always."""


class Augmentation(StrictModel):
    """Strengths; 0 switches a change off.

    Parameters
    ----------
    rotation_deg, scale, shift
        Standard deviation of the angle, of the log2 of the zoom, and of the shift as a
        fraction of the crop.
    elastic_mm
        Standard deviation of the smooth deformation, in mm.
    gamma, contrast, brightness
        Standard deviations of log2 gamma, log2 contrast, and an offset.
    bias_field
        Standard deviation of the log2 of a smooth gain, as a surface coil makes.
    noise
        Largest standard deviation of added noise.
    blur
        Probability of a lowered resolution, by a factor of 1.3 to 2.6.
    repeat_centre
        Probability that the neighbours are replaced by the slice itself, as for a
        single slice.
    """

    rotation_deg: float = Field(default=8.0, ge=0)
    scale: float = Field(default=0.2, ge=0)
    shift: float = Field(default=0.06, ge=0)
    elastic_mm: float = Field(default=3.0, ge=0)
    gamma: float = Field(default=0.4, ge=0)
    contrast: float = Field(default=0.25, ge=0)
    brightness: float = Field(default=0.06, ge=0)
    bias_field: float = Field(default=0.5, ge=0)
    noise: float = Field(default=0.05, ge=0)
    blur: float = Field(default=0.3, ge=0, le=1)
    repeat_centre: float = Field(default=0.1, ge=0, le=1)


class Sampling(StrictModel):
    """Which slices go into a batch.

    Parameters
    ----------
    organ_fraction
        Share of the slices that hold an organ; the others are drawn from all.
    patients
        ``equal``: every patient as often as the next; ``slices``: by their slices.
    """

    organ_fraction: float = Field(default=0.7, ge=0, le=1)
    patients: Literal["equal", "slices"] = "equal"


class Optimisation(StrictModel):
    """How long and how fast.

    Parameters
    ----------
    steps, steps_per_epoch
        Batches in all, and between two validations and checkpoints: a multiple.
    batch_size
        Slices (3-D: patches) in a batch over all devices; ``auto``: the largest power of two,
        up to 64, that fits into memory.
    crop
        Side of the square crop in prepared pixels; 3-D networks take ``preparation.patch``.
    optimiser, learning_rate, weight_decay
        AdamW, or SGD with Nesterov momentum 0.99.
    schedule, warm_up
        From the learning rate to zero by a half cosine or by a polynomial of power 0.9, or
        not at all, after a linear warm-up of that many steps.
    ema_decay
        Of the moving average of the weights that is validated and kept; 0 for none.
    precision
        ``auto`` is bf16 on a GPU that has it, else float32.
    gradient_clip
        Largest norm of the gradient; 0 for none.
    patience
        Stop after that many validations without a better Dice; 0 for never.
    deep_supervision
        Weight of the first of the network's auxiliary maps, half for each further one.
    presence
        Weight of the cross-entropy of the network's answer whether a slice holds an organ.
    reconstruction
        Weight of the cross-entropy of the grey values that the network draws of the slice.
    deterministic
        Take only operations that give the same result every time, where a GPU has them;
        slower. On a CPU a training always repeats itself.
    """

    steps: int = Field(default=4000, ge=1)
    steps_per_epoch: int = Field(default=200, ge=1)
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = 16
    crop: int = Field(default=160, ge=32, multiple_of=32)
    optimiser: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)
    schedule: Literal["cosine", "poly", "constant"] = "cosine"
    warm_up: int = Field(default=100, ge=0)
    ema_decay: float = Field(default=0.995, ge=0, lt=1)
    precision: Literal["auto", "32", "bf16", "16"] = "auto"
    gradient_clip: float = Field(default=1.0, ge=0)
    patience: int = Field(default=0, ge=0)
    deep_supervision: float = Field(default=0.5, ge=0)
    presence: float = Field(default=0.1, ge=0)
    reconstruction: float = Field(default=1.0, ge=0)
    deterministic: bool = False

    @model_validator(mode="after")
    def _whole_epochs(self) -> Self:
        """The last steps must be validated, too."""
        if self.steps % self.steps_per_epoch:
            raise ValueError(
                f"{self.steps} steps are no multiple of steps_per_epoch {self.steps_per_epoch}"
            )
        return self


class Recipe(StrictModel):
    """Everything that decides a training run, but the data folder and who is held out.

    Parameters
    ----------
    id, title, about
        Of the model; `about` tells of the data, for the model card.
    seed
        Of all that is drawn at random.
    organs
        Names of what the network outlines.
    network, preparation
        As they go into the model's configuration.
    start
        Weights to start from: a model folder, or a file of a network or of an encoder; in a
        recipe's file, below its folder. Tensors that the network has under the same name and in
        the same shape are taken. Or ``imagenet``: the encoder's weights of ImageNet, which are
        fetched from the hub of its library, once. (A file of that name is ``./imagenet``.)
    sources
        What to train on; none: what is found in the data folder.
    sampling, losses, optimisation, augmentation
        How to train.
    licence
        Of the weights, for the model card.
    """

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    title: str
    about: str = ""
    seed: int = Field(default=0, ge=0, lt=2**32)
    organs: tuple[str, ...] = Field(default=tuple(o.name for o in ORGANS), min_length=1)
    network: NetworkConfig
    preparation: Preparation = Preparation()
    start: str | None = None
    sources: tuple[Source, ...] = ()
    sampling: Sampling = Sampling()
    losses: tuple[Loss, ...] = Field(default=BCE_AND_DICE, min_length=1)
    optimisation: Optimisation = Optimisation()
    augmentation: Augmentation = Augmentation()
    licence: str = ""

    @model_validator(mode="after")
    def _square_patches(self) -> Self:
        """Augmentation turns slices, which must fit again afterwards."""
        if (patch := self.preparation.patch) and patch[1] != patch[2]:
            raise ValueError(f"rows and columns of preparation.patch differ: {patch[1:]}")
        return self

    def renamed(self, name: str) -> "Recipe":
        """The same recipe for a model of another id.

        Raises
        ------
        InputError
            The name cannot be an id.
        """
        try:
            return Recipe.model_validate({**self.model_dump(), "id": name, "title": name})
        except ValidationError:
            raise InputError(
                f"The name {name!r} cannot be a model's id: take letters, digits, '.', '_' and '-'."
            ) from None


def _known_keys(model: type[BaseModel]) -> set[str]:
    """Every key that may stand anywhere in a recipe."""
    keys = set(model.model_fields)
    for part in (Preparation, NetworkConfig, CompetitionSource, PairsSource, ScansSource, Loss,
                 Sampling, Optimisation, Augmentation):  # fmt: skip
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
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        if first["type"] == "extra_forbidden":
            close = difflib.get_close_matches(str(first["loc"][-1]), _known_keys(Recipe), n=1)
            hint = f": did you mean {close[0]!r}?" if close else "."
            raise InputError(f"The recipe {path} has an unknown key {where}{hint}") from None
        reason = first["msg"].lower().removeprefix("value error, ")
        raise InputError(f"The recipe {path}: {where}: {reason}.") from None
    if recipe.start in (None, IMAGENET):
        return recipe
    return recipe.model_copy(update={"start": str((path.parent / recipe.start).resolve())})


def recipe_file(name: str | Path) -> Path:
    """The file of a recipe: a path, or the name of one that comes with the program.

    Raises
    ------
    InputError
        There is neither such a file nor such a recipe.
    """
    path = Path(name)
    if path.is_file() or path.suffix:
        return path
    shipped = {found.stem: found for found in _shipped()}
    if str(name) in shipped:
        return shipped[str(name)]
    close = difflib.get_close_matches(str(name), shipped, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(shipped))}."
    raise InputError(f"There is no recipe {name}: {hint}")


def _shipped() -> list[Path]:
    """Recipes beside the package in a checkout, inside it once it is installed."""
    here = Path(__file__).parent
    return sorted((here / "configs").glob("*.yaml")) or sorted(
        (here.parent / "configs").glob("*.yaml")
    )
