"""Weights and configuration of a model, to a folder and back."""

import hashlib
import json
import pickle
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from gitract.errors import InputError
from gitract.model_config import (
    CARD_FILE,
    CONFIG_FILE,
    IMAGENET,
    WEIGHTS_FILE,
    ModelConfig,
    read_model_config,
)
from gitract.models.registry import create_model, network_dimensions
from gitract.models.smp_encoders import IMAGENET_BUILDER

__all__ = [
    "StartReport",
    "build_network",
    "is_from_a_hub",
    "load_network",
    "packed_weights",
    "save_model",
    "start_from",
]

_WRAPPER = "network."  # what `PadToMultiple` and others put before the names
_ENCODER = "encoder."
_DAMAGED = (  # what the readers raise
    SafetensorError, pickle.UnpicklingError, EOFError, RuntimeError, ValueError, LookupError,
    TypeError, AttributeError, AssertionError, struct.error,
)  # fmt: skip
_PICKLED = (".pth", ".pt", ".bin")  # read without running what is in them


def build_network(config: ModelConfig) -> nn.Module:
    """The network that a model's configuration describes, with random weights.

    Raises
    ------
    InputError
        The network is unknown, its options are wrong, or it does not fit the preparation.
    """
    patch = config.preparation.patch
    dimensions = network_dimensions(config.network.name, config.network.options)
    if dimensions == 3 and patch is None:
        raise InputError(
            f"Network {config.network.name!r} is 3-D: give preparation.patch, such as [32, 96, 96]."
        )
    if dimensions == 2 and patch is not None:
        raise InputError(
            f"Network {config.network.name!r} is 2-D: remove preparation.patch, "
            "which is for 3-D networks."
        )
    return create_model(
        config.network.name,
        in_channels=config.preparation.channels,
        classes=len(config.organs),
        **config.network.options,
    )


def load_network(folder: Path) -> tuple[nn.Module, ModelConfig]:
    """The network of a model folder, ready for inference, and its configuration.

    Raises
    ------
    InputError
        Configuration or weights are missing, damaged or of another network.
    """
    config = read_model_config(folder)
    network = build_network(config)
    path = folder / WEIGHTS_FILE
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"The weights {path} cannot be read: {error.strerror}.") from error
    weights = _read_weights(path)
    if config.weights_sha256 and digest != config.weights_sha256:
        raise InputError(
            f"The weights {path} are not those of {CONFIG_FILE}: their SHA-256 is "
            f"{digest[:12]}, not {config.weights_sha256[:12]}; import the model again."
        )
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"The weights {path} are not those of the network in it.") from error
    return network.eval(), config


@dataclass(frozen=True)
class StartReport:
    """How much of a network another one's weights could fill.

    Parameters
    ----------
    taken, of
        Tensors that were taken, and that the network has.
    """

    taken: int
    of: int


@torch.no_grad()
def start_from(network: nn.Module, start: Path | str) -> StartReport:
    """Fill a network with the weights of another one, or of its encoder, as far as they fit.

    A tensor fits that has the same name, but for the prefixes ``network.`` of what is around
    the network, and the same shape. Of a first convolution with another number of input
    channels the mean over them is taken for each, scaled to give the same sum.

    Parameters
    ----------
    network
        Changed in place.
    start
        A model folder; or a file (safetensors, or a state of torch: ``.pth``) or a folder of
        a hub with ``model.safetensors``, of a network or of an encoder alone, its tensors
        named as in smp or timm, with or without ``encoder.`` before them; or ``imagenet``:
        the encoder's weights as trained on ImageNet, from the hub of smp or timm.

    Raises
    ------
    InputError
        The weights cannot be read or fetched, or none of them fits.
    """
    state = network.state_dict()
    if start == IMAGENET:  # a path of that name is one
        by_name = _imagenet_weights(network)
    else:
        path = Path(start)
        weights = _read_weights(path / WEIGHTS_FILE if path.is_dir() else path)
        by_name = {_bare(name): tensor for name, tensor in weights.items()}
        if not by_name.keys() & {_bare(name) for name in state}:
            by_name = _below_the_encoder(by_name, state)
    first = _first_convolution(network)
    taken = 0
    for name, own in state.items():
        found = by_name.get(_bare(name))
        if found is None:
            continue
        if name == first and _differ_in_channels(own, found):
            scale = found.shape[1] / own.shape[1]
            found = (found.mean(dim=1, keepdim=True) * scale).expand_as(own)
        if found.shape == own.shape:
            own.copy_(found)
            taken += own.ndim > 0  # counters alone would be no start
    if not taken:
        raise InputError(
            f"{start} holds no weights that fit the network: start from a model of the same "
            "architecture."
        )
    return StartReport(taken, sum(tensor.ndim > 0 for tensor in state.values()))


def is_from_a_hub(folder: Path) -> bool:
    """Whether a folder was made by another program than this, as one of a hub."""
    try:
        content = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and not {"network", "preparation"} & content.keys()


def _bare(name: str) -> str:
    while name.startswith(_WRAPPER):
        name = name.removeprefix(_WRAPPER)
    return name


def _imagenet_weights(network: nn.Module) -> dict[str, torch.Tensor]:
    """Of every encoder in a network, under the names that they have there."""
    weights = {}
    for place, module in network.named_modules():
        if build := getattr(module, IMAGENET_BUILDER, None):
            for name, tensor in build().state_dict().items():
                weights[_bare(f"{place}.{name}")] = tensor
    if not weights:
        raise InputError(
            f"The network has no encoder that was trained on ImageNet: remove start: {IMAGENET}, "
            "or take a network with one, such as unet_resnet34."
        )
    return weights


def _below_the_encoder(
    weights: Mapping[str, torch.Tensor], state: Iterable[str]
) -> dict[str, torch.Tensor]:
    """The file of an encoder alone, under the names that its tensors have in a network.

    timm's are one level lower there, and have some of their points changed to underscores.
    """
    known = {_pointed(_bare(name)): _bare(name) for name in state}
    for prefix in (_ENCODER, f"{_ENCODER}model."):
        renamed = {
            known[_pointed(prefix + name)]: tensor
            for name, tensor in weights.items()
            if _pointed(prefix + name) in known
        }
        if renamed:
            return renamed
    return {}


def _pointed(name: str) -> str:
    return name.replace("_", ".")


def _first_convolution(network: nn.Module) -> str | None:
    """The name of the weights that meet the image; None for an unusual network."""
    for name, module in network.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            return f"{name}.weight"
    return None


def _differ_in_channels(own: torch.Tensor, found: torch.Tensor) -> bool:
    same_otherwise = own.ndim == found.ndim and own[:, 0].shape == found[:, 0].shape
    return same_otherwise and own.shape[1] != found.shape[1]


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        if path.suffix.lower() in _PICKLED:
            return _state(torch.load(path, map_location="cpu", weights_only=True))
        weights: dict[str, torch.Tensor] = load_file(path)
    except OSError as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(f"The weights {path} cannot be read: {reason}.") from error
    except _DAMAGED as error:
        raise InputError(
            f"The weights {path} cannot be read: the file is damaged, or holds something else."
        ) from error
    return weights


def _state(content: object) -> dict[str, torch.Tensor]:
    """The tensors by name in what torch has saved, which may be one part of it."""
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise ValueError("no state of a network")
    return {name: tensor for name, tensor in content.items() if isinstance(tensor, torch.Tensor)}


def packed_weights(network: nn.Module) -> bytes:
    """The state of a network as safetensors."""
    return save(
        {
            name: tensor.detach().to("cpu").contiguous()
            for name, tensor in network.state_dict().items()
            if isinstance(tensor, torch.Tensor)
        }
    )


def save_model(network: nn.Module, config: ModelConfig, card: str, folder: Path) -> ModelConfig:
    """Write a model folder; `folder` must be new and its caller's to rename into place.

    Parameters
    ----------
    network
        Its state is written as float32.
    config
        Written with the hash of the weights filled in.
    card
        The model card, Markdown.
    folder
        Created here.

    Returns
    -------
    ModelConfig
        The configuration as written.
    """
    folder.mkdir(parents=True)
    content = packed_weights(network)  # not save_file, which hides the file from everybody else
    (folder / WEIGHTS_FILE).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    written = config.model_copy(update={"weights_sha256": digest})
    (folder / CONFIG_FILE).write_text(written.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (folder / CARD_FILE).write_text(card, encoding="utf-8")
    return written
