"""One registry of networks, filled by a decorator and read by everybody else."""

import difflib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from torch import nn

from gitract.errors import InputError
from gitract.models.normalisation import take_batches_of_one
from gitract.models.padding import PadToMultiple

__all__ = [
    "Facts",
    "create_model",
    "model_names",
    "network_dimensions",
    "network_facts",
    "register",
]

Builder = Callable[..., nn.Module]
OfOptions = int | Callable[[Mapping[str, Any]], int]
"""A number, or what tells it from a network's options."""


@dataclass(frozen=True)
class Facts:
    """What is told of a network before one is built.

    Parameters
    ----------
    title
        Its name in the literature.
    year
        Of the paper.
    paper
        First authors and where it is found, such as ``Huang et al., arXiv:2004.08790``.
    published
        A headline result with its data set, which is none on MR scans of the bowel.
    licence
        Of the code and the weights that it is made of.
    """

    title: str
    year: int
    paper: str
    published: str
    licence: str


OWN_LICENCE = "BSD-3-Clause (this project)"


@dataclass(frozen=True)
class _Entry:
    builder: Builder
    multiple: OfOptions
    dimensions: OfOptions
    facts: Facts | None


_ENTRIES: dict[str, _Entry] = {}


def register(
    name: str, *, multiple: OfOptions, dimensions: OfOptions = 2, facts: Facts | None = None
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
    facts
        For the table of the zoo; None keeps the network out of it.
    """

    def add(builder: Builder) -> Builder:
        _ENTRIES[name] = _Entry(builder, multiple, dimensions, facts)
        return builder

    return add


def model_names() -> list[str]:
    """Names that `create_model` knows, sorted."""
    import gitract.models as zoo

    for module in pkgutil.iter_modules(zoo.__path__):
        import_module(f"{zoo.__name__}.{module.name}")  # networks register themselves
    return sorted(_ENTRIES)


def network_facts(name: str) -> Facts | None:
    """What is told of a network in the table of the zoo; None where it is not in it.

    Raises
    ------
    InputError
        Unknown name.
    """
    return _entry(name).facts


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
        it may return `gitract.models.outputs.Outputs` instead, with auxiliary answers.

    Raises
    ------
    InputError
        Unknown name or option.
    """
    entry = _entry(name)
    _check_options(name, entry.builder, options)
    with _refused_options(name):
        return PadToMultiple(
            take_batches_of_one(entry.builder(in_channels=in_channels, classes=classes, **options)),
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
