"""More organs, or fewer, for a network that has learnt some."""

from collections.abc import Sequence

import torch
from torch import nn

from gitract.errors import InputError
from gitract.model_config import ModelConfig
from gitract.models.weights import build_network
from gitract.organs import Organ

__all__ = ["new_parts", "with_organs"]

_FAINT = 0.1  # of the usual weights: features of a trained network may be large
_TRIAL_SIDE = 64
_TOLERANCE = 1e-4


@torch.no_grad()
def with_organs(
    network: nn.Module, config: ModelConfig, organs: Sequence[Organ]
) -> tuple[nn.Module, ModelConfig]:
    """The same network with other organs: those that stay answer as before.

    Tensors that have parts for each organ are given as many as are needed; the parts of a
    new organ are those of a network that has learnt nothing, which begins near a probability
    of 5 %. They are the same each time.

    Parameters
    ----------
    network, config
        Not changed.
    organs
        All of the model's with some added at the end, or some of them.

    Returns
    -------
    tuple of torch.nn.Module and ModelConfig
        In evaluation mode.

    Raises
    ------
    InputError
        The network cannot be changed so.
    """
    ids = [organ.id for organ in config.organs]
    kept = [ids.index(organ.id) for organ in organs if organ.id in ids]
    changed = config.model_copy(update={"organs": tuple(organs)})
    if len(organs) == len(ids):
        return network, changed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        other = build_network(changed).eval()
    state = other.state_dict()
    for name, old in network.state_dict().items():
        if not _filled(state[name], old, len(organs), len(ids), kept):
            raise _cannot(config)
    for weights, new in new_parts(other, network, len(organs), len(ids)):
        if weights.dim() > 1:
            weights.mul_(torch.where(new, _FAINT, 1.0))
    _check_same(network, other, config, kept)
    return other, changed


def new_parts(
    network: nn.Module, before: nn.Module, organs: int, old_organs: int
) -> list[tuple[nn.Parameter, torch.Tensor]]:
    """The parameters that have parts for new organs, and where these are.

    Parameters
    ----------
    network, before
        With `organs` and with `old_organs`, the first of them.

    Returns
    -------
    list of tuple of torch.nn.Parameter and torch.Tensor
        bool, True at new parts, to be broadcast to the parameter's shape.
    """
    old = dict(before.named_parameters())
    found = []
    for name, own in network.named_parameters():
        axes = _organ_axes(own, old[name])
        if axes:
            new = torch.arange(own.shape[axes[0]], device=own.device) % organs >= old_organs
            found.append((own, new.view(-1, *[1] * (own.dim() - axes[0] - 1))))
    return found


def _organ_axes(own: torch.Tensor, old: torch.Tensor) -> list[int]:
    """Along which axes two tensors have parts for different numbers of organs."""
    return [axis for axis, size in enumerate(own.shape) if size != old.shape[axis]]


def _filled(
    own: torch.Tensor, old: torch.Tensor, organs: int, old_organs: int, kept: Sequence[int]
) -> bool:
    """Copy what stays from an old tensor; False where its parts cannot be told.

    An axis may hold all organs several times over, one level of the network after the other.
    """
    places = []
    for axis in _organ_axes(own, old):
        times = own.shape[axis] // organs
        if (own.shape[axis], old.shape[axis]) != (times * organs, times * old_organs):
            return False
        first = torch.arange(times)[:, None]
        places.append((axis, (first * organs + torch.arange(len(kept))).flatten()))
        old = old.index_select(axis, (first * old_organs + torch.tensor(kept)).flatten())
    _put(own, old, places)
    return True


def _put(own: torch.Tensor, parts: torch.Tensor, places: list[tuple[int, torch.Tensor]]) -> None:
    """Write parts where they belong.

    Where parts of organs lie along two axes, the parts that stay take nothing from new ones.
    """
    if not places:
        own.copy_(parts)
        return
    (axis, indices), *others = places
    if others:
        whole = torch.zeros_like(own.index_select(axis, indices))
        _put(whole, parts, others)
        parts = whole
    own.index_copy_(axis, indices, parts)


def _check_same(
    before: nn.Module, after: nn.Module, config: ModelConfig, kept: Sequence[int]
) -> None:
    """Try both on noise."""
    size = config.preparation.patch or (_TRIAL_SIDE, _TRIAL_SIDE)
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, config.preparation.channels, *size, generator=generator)
    device = next(before.parameters()).device
    old = before.eval()(image.to(device))[:, list(kept)].cpu()
    new = after(image)[:, : len(kept)]
    if not torch.allclose(old, new, atol=_TOLERANCE, rtol=_TOLERANCE):
        raise _cannot(config)


def _cannot(config: ModelConfig) -> InputError:
    return InputError(
        f"The network {config.network.name!r} of {config.id} cannot be given other organs: "
        "start from a model of another architecture."
    )
