"""What a model folder's ``config.json`` says: network, organs, preparation, history."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from gitract._version import __version__
from gitract.errors import InputError
from gitract.organs import ORGANS, Organ
from gitract.strict import StrictModel

__all__ = [
    "CARD_FILE",
    "CONFIG_FILE",
    "IMAGENET",
    "WEIGHTS_FILE",
    "ModelConfig",
    "NetworkConfig",
    "Preparation",
    "read_model_config",
    "to_the_minute",
]

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"
IMAGENET = "imagenet"
"""A start that is no path: the weights of the network's encoder, trained on ImageNet."""

PatchSide = Annotated[int, Field(ge=8, multiple_of=8)]


class Preparation(StrictModel):
    """How a scan becomes network input, in training, inference and export alike.

    Parameters
    ----------
    pixel_mm
        Slices are resampled to square pixels of this size.
    slice_mm
        The stack is resampled to this distance of slices; None: slices as scanned.
    neighbours, stride
        For 2-D networks: each slice goes in with this many neighbours on both sides,
        `stride` slices apart; beyond the ends the last slice is repeated.
    patch
        For 3-D networks: slices, rows and columns that go in at once; None for 2-D networks.
    scaling
        What the percentiles are taken of: each ``slice``, or the whole ``scan``.
    low_percentile, high_percentile
        The grey values that become 0 and 1; beyond them it is clipped.
    crop_to_body
        Whether the air around the patient is cut off.
    """

    pixel_mm: float = Field(default=2.5, gt=0)
    slice_mm: float | None = Field(default=None, gt=0)
    neighbours: int = Field(default=1, ge=0, le=8)
    stride: int = Field(default=2, ge=1, le=8)
    patch: tuple[PatchSide, PatchSide, PatchSide] | None = None
    scaling: Literal["slice", "scan"] = "slice"
    low_percentile: float = Field(default=1.0, ge=0, lt=50)
    high_percentile: float = Field(default=99.0, gt=50, le=100)
    crop_to_body: bool = False

    @property
    def channels(self) -> int:
        """How many slices go in at once, as channels."""
        return 1 if self.patch else 2 * self.neighbours + 1


class NetworkConfig(StrictModel):
    """Name and options of a network, as `gitract.models.create_model` takes them."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


class ModelConfig(StrictModel):
    """Everything but the weights that is needed to use a model and to know it."""

    format: int = 1
    id: str
    title: str
    network: NetworkConfig
    preparation: Preparation
    organs: tuple[Organ, ...] = ORGANS
    parent: str | None = None
    trained_on: tuple[str, ...] = ()
    created: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    software: str = f"napari-gitract {__version__}"
    weights_sha256: str = ""
    temperature: float = Field(
        default=1.0, gt=0, description="what logits are divided by to become probabilities"
    )
    dice: dict[str, float] = Field(
        default_factory=dict, description="held-out Dice by organ name, as the model card explains"
    )


def to_the_minute(created: str) -> str:
    """When a model was made, for people: ``2026-11-22 14:05`` of ``2026-11-22T14:05:09+00:00``."""
    return created[:16].replace("T", " ")


def read_model_config(folder: Path) -> ModelConfig:
    """Read the configuration of a model folder.

    Raises
    ------
    InputError
        The folder is not a model folder, or its configuration is not one that this
        version understands.
    """
    try:
        text = (folder / CONFIG_FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise InputError(
            f"{folder} is not a model folder: it has no readable {CONFIG_FILE}."
        ) from None
    newest = ModelConfig.model_fields["format"].default
    if (found := _format(text)) > newest:  # before its new keys are called unknown
        raise InputError(
            f"The model in {folder} has format {found}, made by a newer version: "
            "update napari-gitract."
        )
    try:
        return ModelConfig.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(
            f"{folder / CONFIG_FILE} cannot be used: {where}: {first['msg'].lower()}."
        ) from None


def _format(text: str) -> int:
    """The format that a configuration claims; 0 where it claims none."""
    try:
        found = json.loads(text)["format"]
    except (ValueError, LookupError, TypeError):
        return 0
    return found if isinstance(found, int) else 0
