"""What networks cost: counted, measured, kept, and shown by `gitract models zoo`."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from gitract.errors import InputError
from gitract.models import cost
from gitract.models.cost import (
    Cost,
    Measured,
    Times,
    counted,
    input_shape,
    network_cost,
    timed,
    zoo_names,
    zoo_rows,
)
from gitract.models.registry import create_model, network_facts
from gitract.progress import Progress

Cli = Callable[..., SimpleNamespace]


def test_a_plain_unet_has_the_cost_that_is_told_of_it() -> None:
    found = network_cost("unet")
    assert found.parameters == 31_037_763
    assert found.gmacs == pytest.approx(48.2, abs=0.05)
    assert network_cost("unet", in_channels=1).parameters == 31_036_611


def test_a_convolutions_cost_is_its_product_of_sides() -> None:
    options = {"width": 2, "depth": 1}
    sides = 256 * 256
    # two double convolutions at full size, one at half, a deconvolution, a head
    fine = (3 * 2 + 2 * 2 + 4 * 2 + 2 * 2) * 9 * sides
    coarse = (2 * 4 + 4 * 4) * 9 * sides / 4
    up_and_head = 4 * 2 * 4 * sides / 4 + 2 * 3 * sides
    expected = (fine + coarse + up_and_head) / 1e9
    assert network_cost("unet", options=options).gmacs == pytest.approx(expected, abs=1e-3)


def test_three_dimensional_networks_are_told_for_a_patch() -> None:
    assert input_shape("segresnet") == (1, 1, 32, 96, 96)
    assert input_shape("segresnet", {"dimensions": 2}) == input_shape("unet") == (1, 3, 256, 256)
    small = {"width": 8, "blocks": [1, 1]}
    network = create_model("segresnet", in_channels=1, classes=3, **small)
    found = network_cost("segresnet", options=small)
    assert found.parameters == sum(one.numel() for one in network.parameters())
    assert found.gmacs > 0


def test_counting_refuses_what_building_refuses() -> None:
    with pytest.raises(InputError, match="no option 'widht'"):
        network_cost("unet", options={"widht": 4})


def test_what_a_library_computes_on_the_way_does_not_hinder_counting() -> None:
    network = create_model("ssformer_s", in_channels=3, classes=3, encoder="tu-pvt_v2_b0")
    found = network_cost("ssformer_s", options={"encoder": "tu-pvt_v2_b0"})
    assert found.parameters == sum(one.numel() for one in network.parameters())


def test_timing_reports_each_network_and_tells_the_machine() -> None:
    reports: list[Progress] = []
    found = timed(["encoder_unet"], torch.device("cpu"), reports.append)
    assert list(found.milliseconds) == ["encoder_unet"]
    assert found.milliseconds["encoder_unet"] > 0
    assert "cores" in found.machine
    assert [(one.done, one.total) for one in reports] == [(0, 1)]
    assert "encoder_unet" in reports[0].message


def test_what_was_measured_is_kept_and_read_again(tmp_path: Path) -> None:
    measured = Measured(
        {"unet": Cost(7, 1.5)}, {"cpu": Times("a machine", "2026-01-01", {"unet": 12.0})}
    )
    measured.write(tmp_path / "measured.json")
    assert Measured.read(tmp_path / "measured.json") == measured
    assert Measured.read(tmp_path / "absent.json") == Measured()


def test_costs_that_come_with_the_program_are_those_of_the_networks() -> None:
    shipped = Measured.read().costs
    assert set(shipped) == set(zoo_names()), "run `python benchmarks/zoo.py --count`"
    assert shipped == counted(shipped), "run `python benchmarks/zoo.py --count`"


# --- the command ----------------------------------------------------------------------------


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Measured:
    """Invented numbers in place of those that come with the program."""
    costs = {name: Cost(1_500_000, 24.5) for name in zoo_names()}
    times = {"cpu": Times("an invented machine", "2026-01-02", {"unet": 1234.4, "fct": 7.77})}
    Measured(costs, times).write(tmp_path / "measured.json")
    monkeypatch.setattr(cost, "MEASURED_FILE", tmp_path / "measured.json")
    return Measured(costs, times)


@pytest.fixture
def one_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A zoo that is soon counted and timed."""
    monkeypatch.setattr(cost, "zoo_names", lambda: ["encoder_unet"])


def row_of(printed: str, name: str) -> str:
    return next(line for line in printed.splitlines() if line.split()[:1] == [name])


def test_the_table_shows_every_network_on_a_line_of_its_own(
    cli: Cli, kept: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gitract.cli.models.out", Console(width=100, highlight=False))
    printed = cli("models", "zoo").out
    assert max(len(line.rstrip()) for line in printed.splitlines()) <= 100
    assert "…" not in printed, "something was cut off"
    for name in zoo_names():
        facts = network_facts(name)
        assert facts is not None
        assert str(facts.year) in row_of(printed, name)
        assert facts.paper.split(",")[0].split()[0] in printed
    assert row_of(printed, "unet").split()[-5:] == ["1.50", "M", "24.5", "1234", "–"]
    assert row_of(printed, "fct").split()[-2:] == ["7.8", "–"]
    assert row_of(printed, "segresnet").split()[-2:] == ["–", "–"]
    assert "3-D, 2-D" in row_of(printed, "segresnet")
    assert "CPU: an invented machine, 2026-01-02." in printed
    assert "a slice of 256 x 256 or a patch of 32 x 96 x 96" in " ".join(printed.split())


def test_json_tells_everything(cli: Cli, kept: Measured) -> None:
    told = json.loads(cli("models", "zoo", "--json").out)
    assert told["times"] == {"cpu": {"machine": "an invented machine", "date": "2026-01-02"}}
    rows = {row["name"]: row for row in told["networks"]}
    assert list(rows) == zoo_names()
    unet = rows["unet"]
    assert unet["cpu_ms"] == 1234.4
    assert unet["gpu_ms"] is None
    assert (unet["parameters"], unet["gmacs"]) == (1_500_000, 24.5)
    assert unet["input"] == [1, 3, 256, 256]
    assert unet["dimensions"] == [2]
    assert rows["segresnet"]["dimensions"] == [3, 2]
    facts = network_facts("unet")
    assert facts is not None
    for what in ("title", "year", "paper", "published", "licence"):
        assert unet[what] == getattr(facts, what)


def test_what_was_not_kept_is_counted(one_network: None) -> None:
    reports: list[Progress] = []
    (row,) = zoo_rows(Measured(), reports.append)
    assert row.cost == network_cost("encoder_unet")
    assert [one.message for one in reports] == ["Counting encoder_unet"]


def test_measure_times_here_and_now(cli: Cli, kept: Measured, one_network: None) -> None:
    told = json.loads(cli("models", "zoo", "--measure", "--device", "cpu", "--json").out)
    assert told["networks"][0]["cpu_ms"] > 0
    assert told["networks"][0]["gpu_ms"] is None
    assert "cores" in told["times"]["cpu"]["machine"]


def test_measure_refuses_a_device_that_is_not_there(cli: Cli, kept: Measured) -> None:
    refused = cli("models", "zoo", "--measure", "--device", "abacus")
    assert refused.code == 2
    assert "Unknown device 'abacus'" in refused.err
    assert refused.out == ""
