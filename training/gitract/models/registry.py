"""One registry of networks, filled by a decorator and read by everybody else."""

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from gitract.errors import InputError
from gitract.models.padding import PadToMultiple

__all__ = ["create_model", "model_names", "network_dimensions", "register"]

Builder = Callable[..., nn.Module]
OfOptions = int | Callable[[Mapping[str, Any]], int]
"""A number, or what tells it from a network's options."""


@dataclass(frozen=True)
class _Entry:
    builder: Builder
    multiple: OfOptions
    dimensions: OfOptions


_ENTRIES: dict[str, _Entry] = {}


def register(
    name: str, *, multiple: OfOptions, dimensions: OfOptions = 2
) -> Callable[[Builder], Builder]:
    """Register a builder ``(in_channels, classes, **options) -> nn.Module``.

    Parameters
    ----------
    name
        What `create_model` is asked for.
    multiple
        The network's input sizes must be divisible by this.
    dimensions
        2 for a network of slices, 3 for one of patches of the stack.
    """

    def add(builder: Builder) -> Builder:
        _ENTRIES[name] = _Entry(builder, multiple, dimensions)
        return builder

    return add


def model_names() -> list[str]:
    """Names that `create_model` knows, sorted."""
    from gitract.models import ensemble, segresnet, smp_unet  # noqa: F401 - register themselves

    return sorted(_ENTRIES)


def network_dimensions(name: str, options: Mapping[str, Any]) -> int:
    """2 for a network of slices, 3 for one of patches of the stack.

    Raises
    ------
    InputError
        Unknown name, or options that do not tell.
    """
    entry = _entry(name)
    with _refused_options(name):
        return _resolved(entry.dimensions, options)


def create_model(name: str, *, in_channels: int, classes: int, **options: Any) -> nn.Module:
    """Build a network with random weights.

    Parameters
    ----------
    name
        One of `model_names`.
    in_channels
        Slices that go in at once; 1 for 3-D networks.
    classes
        Organs that come out, as one logit map each.
    **options
        What the network's builder takes.

    Returns
    -------
    torch.nn.Module
        ``(batch, in_channels, rows, columns)`` of any size to logits
        ``(batch, classes, rows, columns)``; a 3-D network ``(batch, in_channels, slices,
        rows, columns)`` to ``(batch, classes, slices, rows, columns)``. In training mode
        the logits may come first in a tuple: of the rest, what has two dimensions is
        presence logits ``(batch, classes)``, anything else a coarser map of logits.

    Raises
    ------
    InputError
        Unknown name or option.
    """
    entry = _entry(name)
    _check_options(name, entry.builder, options)
    with _refused_options(name):
        return PadToMultiple(
            entry.builder(in_channels=in_channels, classes=classes, **options),
            _resolved(entry.multiple, options),
            _resolved(entry.dimensions, options),
        )


def _entry(name: str) -> _Entry:
    names = model_names()
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(names)}."
        raise InputError(f"Unknown network {name!r}: {hint}")
    return _ENTRIES[name]


def _check_options(name: str, builder: Builder, options: Mapping[str, Any]) -> None:
    known = set(inspect.signature(builder).parameters) - {"in_channels", "classes"}
    for option in options:
        if option not in known:
            close = difflib.get_close_matches(option, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(sorted(known))}."
            raise InputError(f"Network {name!r} has no option {option!r}: {hint}")


@contextmanager
def _refused_options(name: str) -> Iterator[None]:
    """Tell what a library raises for options in one sentence."""
    try:
        yield
    except (TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(f"Network {name!r} cannot be built: {reason}.") from error


def _resolved(number: OfOptions, options: Mapping[str, Any]) -> int:
    return number if isinstance(number, int) else number(options)
