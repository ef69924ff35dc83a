"""Small networks and scans that the tests of training, prediction and the store share."""

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import nn

from gitract.model_config import ModelConfig, NetworkConfig, Preparation
from gitract.model_store import ModelStore
from gitract.models import save_model
from gitract.models.registry import register
from gitract.models.weights import build_network
from gitract.phantom import abdomen, write_day
from gitract.progress import Progress
from gitract.recipe import Augmentation, CompetitionSource, Optimisation, Recipe, Sampling
from gitract.scan import Scan, Segmentation
from gitract.train import Machines, TrainingResult, load_training_data, train

SHAPE = (12, 64, 72)
NETWORK = NetworkConfig(name="test_net", options={"width": 16})
PREPARATION = Preparation(pixel_mm=6.0)


class _Position(nn.Module):
    """Adds each pixel's row and column as two channels."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        rows, columns = images.shape[-2:]
        row = torch.linspace(-1, 1, rows, device=images.device).view(1, 1, -1, 1)
        column = torch.linspace(-1, 1, columns, device=images.device).view(1, 1, 1, -1)
        shape = (len(images), 1, rows, columns)
        return torch.cat([images, row.expand(shape), column.expand(shape)], dim=1)


@register("test_net", multiple=2)
def _test_net(in_channels: int, classes: int, *, width: int) -> nn.Module:
    """A network that learns the phantom within a second, in steps of milliseconds."""
    return nn.Sequential(
        _Position(),
        nn.Conv2d(in_channels + 2, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(2 * width, 2 * width, 3, padding=2, dilation=2),
        nn.ReLU(),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Conv2d(2 * width, classes, 3, padding=1),
    )


_threads = torch.get_num_threads()


def pytest_runtest_setup() -> None:
    """One thread: quicker for small networks, also where other work keeps the cores busy."""
    torch.set_num_threads(1)


def pytest_runtest_teardown() -> None:
    torch.set_num_threads(_threads)


@dataclass
class Cli:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


@dataclass
class Run:
    """A finished training, what it was given and what it reported."""

    result: TrainingResult
    recipe: Recipe
    data: Path
    output: Path
    reports: list[Progress] = field(default_factory=list)

    @property
    def losses(self) -> list[float]:
        return [r.values["loss"] for r in self.reports if "loss" in r.values]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Cli]:
    """Run ``gitract`` in this process."""
    from gitract.cli import main

    def run(*arguments: object) -> Cli:
        monkeypatch.setattr("sys.argv", ["gitract", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        assert isinstance(code, int)
        return Cli(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def tiny_config() -> ModelConfig:
    """A small network and the preparation for it."""
    return ModelConfig(id="random", title="Random", network=NETWORK, preparation=PREPARATION)


@pytest.fixture(scope="session")
def phantom() -> tuple[Scan, Segmentation]:
    """A small abdomen of a patient that `trained` has not seen."""
    return abdomen(SHAPE, seed=7, name="case7_day0")


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """A training of a few seconds."""
    off = dict.fromkeys(Augmentation.model_fields, 0.0)
    return Recipe(
        id="tiny",
        title="Tiny",
        network=NETWORK,
        preparation=PREPARATION,
        sources=(CompetitionSource(kind="competition", path="."),),
        optimisation=Optimisation(
            steps=100, steps_per_epoch=25, batch_size=6, crop=32, learning_rate=1e-2, warm_up=5,
            ema_decay=0.9,
        ),
        sampling=Sampling(organ_fraction=1.0),
        augmentation=Augmentation(**{**off, "shift": 0.02, "rotation_deg": 3.0, "gamma": 0.1}),
    )  # fmt: skip


@pytest.fixture(scope="session")
def phantom_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three invented patients in the competition's layout; the third has two days."""
    folder = tmp_path_factory.mktemp("phantoms")
    for seed, name in enumerate(["case1_day0", "case2_day0", "case3_day0", "case3_day5"]):
        write_day(folder, *abdomen(SHAPE, seed=seed, name=name))
    return folder


@pytest.fixture(scope="session")
def trained(phantom_data: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A model trained a little, with case3 held out."""
    output = tmp_path_factory.mktemp("trained") / "run"
    reports: list[Progress] = []
    data = load_training_data(recipe, phantom_data, cache=output.parent / "cache")
    result = train(
        recipe, data, output=output, hold_out=["case3"], machines=Machines("cpu"),
        report=reports.append,
    )  # fmt: skip
    return Run(result, recipe, phantom_data, output, reports)


@pytest.fixture(scope="session")
def random_model(tiny_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with random weights."""
    folder = tmp_path_factory.mktemp("model") / "random"
    save_model(build_network(tiny_config), tiny_config, "# Random\n\nKnows nothing.\n", folder)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    """An empty store, with the model that ships."""
    return ModelStore(tmp_path / "home")


@pytest.fixture
def small_disk() -> Iterator[Callable[[int | None], None]]:
    """Let no file of this process grow larger than so many bytes; None for any size."""
    resource = pytest.importorskip("resource", reason="only Unix limits the size of files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def limit(size: int | None) -> None:
        soft = before[0] if size is None else size
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, before[1]))

    yield limit
    limit(None)
    signal.signal(signal.SIGXFSZ, handler)
