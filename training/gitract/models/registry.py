"""One registry of networks, filled by a decorator and read by everybody else."""

import difflib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from typing import Any

from torch import nn

from gitract.errors import InputError
from gitract.models.normalisation import take_batches_of_one
from gitract.models.padding import PadToMultiple

__all__ = [
    "Facts",
    "Family",
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
class Family:
    """Further names of a network: a prefix, then the value of one option.

    A name that is registered by itself comes first.

    Parameters
    ----------
    prefix
        Such as ``unet_``, so that ``unet_resnet34`` has the encoder ``resnet34``.
    option
        Which cannot be given a second time.
    known
        Whether there is such a value.
    values
        Known ones, to tell the nearest of an unknown one.
    """

    prefix: str
    option: str
    known: Callable[[str], bool]
    values: Callable[[], Iterable[str]]


@dataclass(frozen=True)
class _Entry:
    builder: Builder
    multiple: OfOptions
    dimensions: OfOptions
    facts: Facts | None
    family: Family | None
    given: Mapping[str, Any] = field(default_factory=dict)

    def member(self, option: str, value: str) -> "_Entry":
        """The same network with one option given by its name."""
        facts = self.facts and replace(self.facts, title=f"{self.facts.title} ({value})")
        return replace(self, facts=facts, family=None, given={option: value})


_ENTRIES: dict[str, _Entry] = {}


def register(
    name: str,
    *,
    multiple: OfOptions,
    dimensions: OfOptions = 2,
    facts: Facts | None = None,
    family: Family | None = None,
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
    family
        Further names, each for another value of one option.
    """

    def add(builder: Builder) -> Builder:
        _ENTRIES[name] = _Entry(builder, multiple, dimensions, facts, family)
        return builder

    return add


def model_names() -> list[str]:
    """Names that `create_model` knows, sorted, without those of a `Family`."""
    _import_networks()
    return sorted(_ENTRIES)


@cache
def _import_networks() -> None:
    """Networks register themselves when their modules are imported."""
    import gitract.models as zoo

    for module in pkgutil.iter_modules(zoo.__path__):
        import_module(f"{zoo.__name__}.{module.name}")


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
        return _resolved(entry.dimensions, {**entry.given, **options})


def create_model(name: str, *, in_channels: int, classes: int, **options: Any) -> nn.Module:
    """Build a network with random weights.

    Parameters
    ----------
    name
        One of `model_names`, or of a family such as ``unet_resnet34``.
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
    _check_options(name, entry, options)
    options = {**entry.given, **options}
    with _refused_options(name):
        return PadToMultiple(
            take_batches_of_one(entry.builder(in_channels=in_channels, classes=classes, **options)),
            _resolved(entry.multiple, options),
            _resolved(entry.dimensions, options),
        )


def _entry(name: str) -> _Entry:
    names = model_names()
    if name in names:
        return _ENTRIES[name]
    near = names.copy()
    for entry in _ENTRIES.values():
        if (family := entry.family) and name.startswith(family.prefix):
            if family.known(value := name.removeprefix(family.prefix)):
                return entry.member(family.option, value)
            near += [family.prefix + value for value in family.values()]
    close = difflib.get_close_matches(name, near, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(names)}."
    raise InputError(f"Unknown network {name!r}: {hint}")


def _check_options(name: str, entry: _Entry, options: Mapping[str, Any]) -> None:
    known = set(inspect.signature(entry.builder).parameters) - {"in_channels", "classes"}
    known -= set(entry.given)
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
