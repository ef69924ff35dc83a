"""Several networks in one: their mean answer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from gitract.errors import InputError
from gitract.model_config import ModelConfig, NetworkConfig
from gitract.models.registry import create_model, network_dimensions, register
from gitract.models.weights import build_network, load_network

__all__ = ["Ensemble", "ensemble", "ensemble_of", "mean_logits"]


def mean_logits(answers: Sequence[torch.Tensor]) -> torch.Tensor:
    """The logit of the mean of several answers' probabilities.

    With logits x, the mean of sigmoid(x) and its complement are summed as logarithms, so
    that no probability near 0 or 1 is rounded away.
    """
    if len(answers) == 1:
        return answers[0]
    logits = torch.stack(list(answers))
    present = torch.logsumexp(functional.logsigmoid(logits), dim=0)
    absent = torch.logsumexp(functional.logsigmoid(-logits), dim=0)
    return present - absent


class Ensemble(nn.Module):
    """The logit of the mean of the members' probabilities.

    Parameters
    ----------
    members
        Networks of the same input and output.
    """

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits as of one network, without auxiliary outputs."""
        answers = (member(images) for member in self.members)
        return mean_logits([a if isinstance(a, torch.Tensor) else a[0] for a in answers])


def _network(options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and options of the members."""
    network = options.get("network")
    if not isinstance(network, Mapping) or not isinstance(network.get("name"), str):
        raise ValueError("option network must hold the name, and may hold the options, of one")
    inner = network.get("options", {})
    if not isinstance(inner, Mapping) or set(network) - {"name", "options"}:
        raise ValueError("option network holds more than a name and options")
    return network["name"], dict(inner)


@register("ensemble", multiple=1, dimensions=lambda options: network_dimensions(*_network(options)))
def ensemble(
    in_channels: int, classes: int, *, members: int, network: Mapping[str, Any]
) -> nn.Module:
    """Build an ensemble of equal networks with random weights.

    Parameters
    ----------
    in_channels, classes
        As in `gitract.models.create_model`.
    members
        How many.
    network
        ``name`` and ``options`` of each, as a recipe has them.

    Raises
    ------
    ValueError
        There are no members, or `network` is not a name and options.
    """
    if members < 1:
        raise ValueError(f"members is {members}, and must be 1 or more")
    name, options = _network({"network": network})
    return Ensemble(
        [
            create_model(name, in_channels=in_channels, classes=classes, **options)
            for _ in range(members)
        ]
    )


def ensemble_of(folders: Sequence[Path]) -> tuple[nn.Module, ModelConfig]:
    """Several models in one network, whose answer is that of their mean probability.

    Parameters
    ----------
    folders
        Model folders of equal network, preparation and organs.

    Returns
    -------
    tuple of torch.nn.Module and ModelConfig
        Ready for inference and for `gitract.models.save_model`; id and title are those of
        the first model.

    Raises
    ------
    InputError
        There are no models, one is damaged, or they differ.
    """
    if not folders:
        raise InputError("An ensemble needs models: give at least one model folder.")
    loaded = [load_network(folder) for folder in folders]
    first = loaded[0][1]
    for folder, (_, config) in zip(folders, loaded, strict=True):
        for part in ("network", "preparation", "organs"):
            if getattr(config, part) != getattr(first, part):
                raise InputError(
                    f"{folder} has another {part} than {folders[0]}: "
                    "an ensemble needs models that differ in their weights alone."
                )
    options = {"members": len(folders), "network": first.network.model_dump()}
    config = first.model_copy(
        update={
            "network": NetworkConfig(name="ensemble", options=options),
            "weights_sha256": "",
            "dice": {},
        }
    )
    network = build_network(config)
    for place, (member, _) in enumerate(loaded):
        network.get_submodule(f"network.members.{place}").load_state_dict(member.state_dict())
    return network.eval(), config
