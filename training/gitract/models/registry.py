"""One registry of networks, filled by a decorator and read by everybody else."""

import difflib
from collections.abc import Callable
from typing import Any

from torch import nn

from gitract.errors import InputError
from gitract.models.padding import PadToMultiple

__all__ = ["create_model", "model_names", "register"]

Builder = Callable[..., nn.Module]
_BUILDERS: dict[str, tuple[Builder, int]] = {}


def register(name: str, *, multiple: int) -> Callable[[Builder], Builder]:
    """Register a builder ``(in_channels, classes, **options) -> nn.Module``.

    Parameters
    ----------
    name
        What `create_model` is asked for.
    multiple
        The network's input sides must be divisible by this.
    """

    def add(builder: Builder) -> Builder:
        _BUILDERS[name] = (builder, multiple)
        return builder

    return add


def model_names() -> list[str]:
    """Names that `create_model` knows, sorted."""
    from gitract.models import smp_unet  # noqa: F401 - registers itself

    return sorted(_BUILDERS)


def create_model(name: str, *, in_channels: int, classes: int, **options: Any) -> nn.Module:
    """Build a network with random weights.

    Parameters
    ----------
    name
        One of `model_names`.
    in_channels
        Slices that go in at once.
    classes
        Organs that come out, as one logit map each.
    **options
        What the network's builder takes.

    Returns
    -------
    torch.nn.Module
        ``(batch, in_channels, rows, columns)`` of any size to logits
        ``(batch, classes, rows, columns)``.

    Raises
    ------
    InputError
        Unknown name or option.
    """
    names = model_names()
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(names)}."
        raise InputError(f"Unknown network {name!r}: {hint}")
    builder, multiple = _BUILDERS[name]
    try:
        network = builder(in_channels=in_channels, classes=classes, **options)
    except (TypeError, ValueError, AttributeError) as error:  # what libraries raise for options
        reason = str(error).rstrip(".")
        raise InputError(f"Network {name!r} cannot be built: {reason}.") from error
    return PadToMultiple(network, multiple)
