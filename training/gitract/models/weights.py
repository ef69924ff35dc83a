"""Weights and configuration of a model, to a folder and back."""

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from gitract.errors import InputError
from gitract.model_config import (
    CARD_FILE,
    CONFIG_FILE,
    WEIGHTS_FILE,
    ModelConfig,
    read_model_config,
)
from gitract.models.registry import create_model

__all__ = ["build_network", "load_network", "save_model"]


def build_network(config: ModelConfig) -> nn.Module:
    """The network that `config` describes, with random weights."""
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
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"The weights {path} cannot be read: {error}.") from error
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
    weights = {
        name: tensor.detach().to("cpu").contiguous()
        for name, tensor in network.state_dict().items()
        if isinstance(tensor, torch.Tensor)
    }
    save_file(weights, folder / WEIGHTS_FILE)
    digest = hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
    written = config.model_copy(update={"weights_sha256": digest})
    (folder / CONFIG_FILE).write_text(written.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (folder / CARD_FILE).write_text(card, encoding="utf-8")
    return written
