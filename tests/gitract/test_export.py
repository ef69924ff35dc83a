"""Models for other programs: the same answer on every size, or no file."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gitract.errors import Cancelled, InputError
from gitract.export import _WRITERS, export_model
from gitract.model_config import ModelConfig, NetworkConfig, Preparation
from gitract.model_store import ModelStore
from gitract.models import load_network, save_model
from gitract.models.registry import register
from gitract.models.weights import build_network
from gitract.progress import Progress
from sentences import assert_one_sentence


@register("test_conv", multiple=4)
def _conv(in_channels: int, classes: int) -> nn.Module:
    """A network that can be written, within a second."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(8, classes, 2, stride=2),
    )


VOLUMES = {"name": "segresnet", "options": {"width": 8, "blocks": [1, 1, 1], "deep_supervision": 1}}
NETWORKS = {
    "2-D": ({"name": "test_conv"}, {"neighbours": 2}),
    "3-D": (VOLUMES, {"patch": (8, 16, 16)}),
    "ensemble": (
        {"name": "ensemble", "options": {"members": 2, "network": {"name": "test_conv"}}}, {},
    ),
}  # fmt: skip
FORMATS = {".pt": "torchscript", ".pt2": "torch-export", ".onnx": "onnx"}
SUFFIXES = list(FORMATS)
Answer = Callable[[torch.Tensor], torch.Tensor]


def make_model(folder: Path, config: ModelConfig, kind: str) -> Path:
    network, preparation = NETWORKS[kind]
    changed = config.model_copy(
        update={
            "network": NetworkConfig.model_validate(network),
            "preparation": Preparation.model_validate(preparation),
        }
    )
    save_model(build_network(changed), changed, "# Random\n", folder)
    return folder


@pytest.fixture(scope="module")
def conv_model(tiny_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("export") / "model", tiny_config, "2-D")


@pytest.fixture(scope="module", params=list(NETWORKS))
def model(
    request: pytest.FixtureRequest,
    tiny_config: ModelConfig,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    return make_model(tmp_path_factory.mktemp("export") / "model", tiny_config, request.param)


def read_back(path: Path) -> tuple[Answer, str]:
    """A written model as another program would use it, and the configuration in it."""
    extra: dict[str, Any] = {"config.json": ""}
    if path.suffix == ".pt":
        program = torch.jit.load(path, _extra_files=extra)
        return program, extra["config.json"].decode()
    if path.suffix == ".pt2":
        return torch.export.load(path, extra_files=extra).module(), extra["config.json"]
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    onnx.checker.check_model(onnx.load(path))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map

    def answer(images: torch.Tensor) -> torch.Tensor:
        (found,) = session.run(None, {"image": images.numpy()})
        return torch.from_numpy(found)

    return answer, metadata["config.json"]


@torch.inference_mode()
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_written_model_answers_the_same_on_every_size(
    model: Path, tmp_path: Path, suffix: str
) -> None:
    network, config = load_network(model)
    path = export_model(model, tmp_path / f"model{suffix}")
    assert os.listdir(tmp_path) == [path.name]
    answer, stored = read_back(path)
    assert ModelConfig.model_validate_json(stored) == config
    dimensions = 3 if config.preparation.patch else 2
    for batch, size in ((1, (41, 33, 70)), (4, (9, 64, 36))):
        images = torch.rand(batch, config.preparation.channels, *size[-dimensions:])
        torch.testing.assert_close(answer(images), network(images), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_model_that_ships_can_be_written(tmp_path: Path, suffix: str) -> None:
    network, config = load_network(ModelStore().find("gi-tract-small").path)
    answer, _ = read_back(export_model("gi-tract-small", tmp_path / f"model{suffix}"))
    images = torch.rand(2, config.preparation.channels, 89, 90)
    with torch.inference_mode():
        torch.testing.assert_close(answer(images), network(images), rtol=1e-5, atol=1e-4)


def test_the_format_goes_before_the_suffix(conv_model: Path, tmp_path: Path) -> None:
    path = export_model(conv_model, tmp_path / "model.bin", format="torchscript")
    torch.jit.load(path)
    copied = export_model(conv_model, tmp_path / "version-1.2")
    assert {file.name for file in copied.iterdir()} == set(os.listdir(conv_model))


@pytest.mark.parametrize("suffix", ["", *SUFFIXES])
def test_nothing_is_written_over(conv_model: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_text("mine")
    with pytest.raises(InputError) as error:
        export_model(conv_model, path)
    assert_one_sentence(error, str(path), "exists already")
    assert path.read_text() == "mine"


def test_an_unknown_format_is_met_with_the_known_ones(conv_model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        export_model(conv_model, tmp_path / "model", format="tensorflow")
    assert_one_sentence(error, "'tensorflow'", "onnx", "torchscript")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_model_that_answers_otherwise_is_not_kept(
    conv_model: Path, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, _ = load_network(conv_model)
    next(other.parameters()).data += 1e-3
    write = _WRITERS[FORMATS[suffix]]
    monkeypatch.setitem(_WRITERS, FORMATS[suffix], lambda _, *rest: write(other, *rest))
    with pytest.raises(InputError) as error:
        export_model(conv_model, tmp_path / f"model{suffix}")
    assert_one_sentence(error, f"model{suffix}", "does not answer as the model does")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_network_that_knows_one_size_alone_is_not_kept(
    random_model: Path, tmp_path: Path, suffix: str
) -> None:
    with pytest.raises(InputError) as error:  # it counts its rows while it is traced
        export_model(random_model, tmp_path / f"model{suffix}")
    assert_one_sentence(error, f"model{suffix}")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_a_cancelled_export_leaves_nothing(conv_model: Path, tmp_path: Path, step: int) -> None:
    def report(progress: Progress) -> None:
        assert progress.message
        if progress.done == step:
            raise Cancelled

    with pytest.raises(Cancelled):
        export_model(conv_model, tmp_path / "model.pt", report=report)
    assert os.listdir(tmp_path) == []


def test_a_damaged_model_is_not_written(conv_model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent"):
        export_model("absent", tmp_path / "model.pt")
    with pytest.raises(InputError, match="does not exist"):
        export_model(conv_model, tmp_path / "absent" / "model.pt")


def test_the_command_writes_and_refuses(cli: Any, conv_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    assert str(path) in cli("models", "export", conv_model, path).out
    torch.jit.load(path)
    refused = cli("models", "export", conv_model, path)
    assert refused.code == 2
    assert "exists already" in refused.err
    refused = cli("models", "export", conv_model, tmp_path / "x", "--format", "tensorflow")
    assert refused.code == 2
    assert "tensorflow" in refused.err
