"""What each network of the zoo costs: parameters, multiplications, time.

Counting takes the libraries that the networks come from, which are slow to load, and timing
takes minutes; so the numbers of the default options are kept in `MEASURED_FILE`.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gitract.errors import InputError
from gitract.models.registry import (
    Facts,
    create_model,
    model_names,
    network_dimensions,
    network_facts,
)
from gitract.progress import Progress, Report, silent

__all__ = [
    "MEASURED_FILE",
    "Cost",
    "Measured",
    "Times",
    "ZooRow",
    "counted",
    "input_shape",
    "milliseconds_told",
    "network_cost",
    "timed",
    "zoo_names",
    "zoo_rows",
]

MEASURED_FILE = Path(__file__).with_name("measured.json")
_CLASSES = 3
_SLICE = (1, 3, 256, 256)  # a slice and a neighbour on each side
_PATCH = (1, 1, 32, 96, 96)  # of a 3-D network: as many voxels as 4.5 slices
_ROUNDS = 3


@dataclass(frozen=True)
class Cost:
    """What one slice takes, or one patch of a 3-D network.

    Parameters
    ----------
    parameters
        Those that are trained.
    gmacs
        Multiply-accumulates of convolutions and matrix products, in thousand millions.
    """

    parameters: int
    gmacs: float


@dataclass(frozen=True)
class Times:
    """How long one slice takes, or one patch of a 3-D network.

    Parameters
    ----------
    machine, date
        Where and when it was measured.
    milliseconds
        By the network's name.
    """

    machine: str
    date: str
    milliseconds: Mapping[str, float]


@dataclass(frozen=True)
class Measured:
    """What is known of networks with their default options.

    Parameters
    ----------
    costs
        By the network's name.
    times
        By kind of device, ``cpu`` or ``gpu``.
    """

    costs: Mapping[str, Cost] = field(default_factory=dict)
    times: Mapping[str, Times] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path | None = None) -> "Measured":
        """What `write` wrote, by default to `MEASURED_FILE`; nothing where there is no file."""
        path = path or MEASURED_FILE
        if not path.exists():
            return cls()
        content = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            {name: Cost(**cost) for name, cost in content["costs"].items()},
            {kind: Times(**times) for kind, times in content["times"].items()},
        )

    def write(self, path: Path) -> None:
        """Write to a file, in the order of names."""
        path.write_text(json.dumps(asdict(self), indent=2, sort_keys=True) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class ZooRow:
    """One network of the zoo, with its default options and three organs.

    Parameters
    ----------
    name, facts
        As registered.
    dimensions
        2, 3 or both, the default first.
    shape
        Of the input that the numbers are for.
    cost
        Parameters and multiplications.
    cpu_ms, gpu_ms
        Milliseconds; None where nobody measured them.
    """

    name: str
    facts: Facts
    dimensions: tuple[int, ...]
    shape: tuple[int, ...]
    cost: Cost
    cpu_ms: float | None
    gpu_ms: float | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "name": self.name,
            **asdict(self.facts),
            "dimensions": list(self.dimensions),
            "input": list(self.shape),
            **asdict(self.cost),
            "cpu_ms": self.cpu_ms,
            "gpu_ms": self.gpu_ms,
        }


def zoo_names() -> list[str]:
    """Networks of which the registry tells facts, sorted."""
    return [name for name in model_names() if network_facts(name) is not None]


def input_shape(name: str, options: Mapping[str, Any] | None = None) -> tuple[int, ...]:
    """The input that costs are told for: ``(1, 3, 256, 256)``, 3-D ``(1, 1, 32, 96, 96)``."""
    return _SLICE if network_dimensions(name, options or {}) == 2 else _PATCH


def network_cost(
    name: str,
    *,
    options: Mapping[str, Any] | None = None,
    in_channels: int | None = None,
    classes: int = _CLASSES,
) -> Cost:
    """Count a network's parameters and multiplications, without computing anything.

    Parameters
    ----------
    name, options
        As in `gitract.models.create_model`.
    in_channels
        None for those of `input_shape`.
    classes
        Organs that come out.

    Raises
    ------
    InputError
        Unknown name or option.
    """
    # Here alone: it brings triton, whose LLVM ends the program where a window is drawn by Mesa's.
    from torch.utils.flop_counter import FlopCounterMode

    shape = input_shape(name, options)
    channels = in_channels or shape[1]
    network = _without_memory(name, channels, classes, options or {}).eval()
    images = torch.empty((1, channels, *shape[2:]), device="meta")
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(images)
    parameters = sum(one.numel() for one in network.parameters() if one.requires_grad)
    return Cost(parameters, round(counter.get_total_flops() / 2e9, 3))


def _without_memory(
    name: str, in_channels: int, classes: int, options: Mapping[str, Any]
) -> nn.Module:
    """A network whose weights have shapes alone."""
    try:
        with torch.device("meta"):
            return create_model(name, in_channels=in_channels, classes=classes, **options)
    except (InputError, RuntimeError):  # a library computes numbers on the way
        return create_model(name, in_channels=in_channels, classes=classes, **options).to("meta")


def counted(names: Iterable[str], report: Report = silent) -> dict[str, Cost]:
    """Costs of networks with their default options, by name; `report` is called for each."""
    chosen = list(names)
    costs = {}
    for number, name in enumerate(chosen):
        report(Progress(number, len(chosen), f"Counting {name}"))
        costs[name] = network_cost(name)
    return costs


@torch.inference_mode()
def timed(names: Iterable[str], device: torch.device, report: Report = silent) -> Times:
    """Time networks with their default options here and now: the median of a few rounds.

    Parameters
    ----------
    names
        Which networks.
    device
        What to run on.
    report
        Called for each network.
    """
    chosen = list(names)
    found = {}
    for number, name in enumerate(chosen):
        report(Progress(number, len(chosen), f"Timing {name}"))
        shape = input_shape(name)
        network = create_model(name, in_channels=shape[1], classes=_CLASSES).eval().to(device)
        images = torch.rand(shape, device=device)
        _seconds(network, images)  # the first round is slower
        seconds = [_seconds(network, images) for _ in range(_ROUNDS)]
        found[name] = round(1000 * statistics.median(seconds), 1)
    return Times(_machine(device), str(datetime.now(UTC).date()), found)


def _seconds(network: nn.Module, images: torch.Tensor) -> float:
    begin = time.perf_counter()
    network(images).sum().item()  # waits for the device
    return time.perf_counter() - begin


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    used = "1 thread" if threads == 1 else f"{threads} threads"
    return f"{os.cpu_count()} cores {platform.machine()}, {used}"


def milliseconds_told(value: float | None) -> str:
    """A time as tables show it; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def zoo_rows(measured: Measured, report: Report = silent) -> list[ZooRow]:
    """Everything that is told of the zoo; costs that are not in `measured` are counted."""
    names = zoo_names()
    costs = {
        **measured.costs,
        **counted((name for name in names if name not in measured.costs), report),
    }
    return [_row(name, costs[name], measured.times) for name in names]


def _row(name: str, cost: Cost, times: Mapping[str, Times]) -> ZooRow:
    facts = network_facts(name)
    assert facts is not None  # else it is not in the zoo
    default = network_dimensions(name, {})
    others = {network_dimensions(name, {"dimensions": number}) for number in (2, 3)} - {default}
    cpu, gpu = (
        times[kind].milliseconds.get(name) if kind in times else None for kind in ("cpu", "gpu")
    )
    return ZooRow(name, facts, (default, *others), input_shape(name), cost, cpu, gpu)
