"""Networks in ONNX Runtime: written once, trusted only where they answer as torch does."""

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from gitract import onnx_network
from gitract.export import export_model
from gitract.io import read_scan
from gitract.metrics import dice
from gitract.model_config import ModelConfig, NetworkConfig
from gitract.models import load_network, save_model
from gitract.models.registry import register
from gitract.models.weights import build_network
from gitract.onnx_network import OnnxNetwork, stored_onnx
from gitract.predict import Segmenter
from gitract.scan import Scan, Segmentation


@register("test_blur", multiple=4)
def _blur(in_channels: int, classes: int) -> nn.Module:
    """Calls every organ what is bright with its surroundings; in ONNX as in torch."""
    network = nn.Conv2d(in_channels, classes, 3, padding=1)
    nn.init.constant_(network.weight, 20 / (9 * in_channels))
    nn.init.constant_(network.bias, -10.0)
    return network


@pytest.fixture(scope="module")
def model(tiny_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx") / "model"
    config = tiny_config.model_copy(update={"network": NetworkConfig(name="test_blur")})
    save_model(build_network(config), config, "# Blur\n", folder)
    return folder


@pytest.fixture
def loaded(model: Path) -> tuple[nn.Module, ModelConfig]:
    return load_network(model)


def test_it_answers_as_torch_does_for_any_size(
    loaded: tuple[nn.Module, ModelConfig], tmp_path: Path
) -> None:
    network, config = loaded
    found = stored_onnx(network, config, tmp_path)
    assert found is not None
    for shape in [(1, 3, 40, 52), (5, 3, 33, 47)]:
        images = torch.rand(shape)
        with torch.inference_mode():
            torch.testing.assert_close(found(images), network(images), rtol=1e-4, atol=1e-4)


def test_it_is_written_once(
    loaded: tuple[nn.Module, ModelConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored_onnx(*loaded, tmp_path)
    (file,) = (tmp_path / "onnx").iterdir()
    monkeypatch.setattr(onnx_network, "write_onnx", lambda *_: pytest.fail("written again"))
    assert stored_onnx(*loaded, tmp_path) is not None
    assert list((tmp_path / "onnx").iterdir()) == [file]


def test_of_many_versions_the_last_used_are_kept(
    loaded: tuple[nn.Module, ModelConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_network, "_MOST_KEPT", 2)
    network, config = loaded
    versions = [config.model_copy(update={"weights_sha256": digit * 64}) for digit in "123"]
    times = iter(range(1_000, 2_000))
    for version in (versions[0], versions[1], versions[0], versions[2]):
        stored_onnx(network, version, tmp_path)
        newest = max((tmp_path / "onnx").iterdir(), key=lambda file: file.stat().st_mtime)
        os.utime(newest, (next(times),) * 2)
    assert len(list((tmp_path / "onnx").iterdir())) == 2
    monkeypatch.setattr(onnx_network, "write_onnx", lambda *_: pytest.fail("was removed"))
    assert stored_onnx(network, versions[0], tmp_path) is not None
    assert stored_onnx(network, versions[2], tmp_path) is not None


def test_a_damaged_file_is_written_again(
    loaded: tuple[nn.Module, ModelConfig], tmp_path: Path
) -> None:
    stored_onnx(*loaded, tmp_path)
    (file,) = (tmp_path / "onnx").iterdir()
    file.write_bytes(file.read_bytes()[:1000])
    found = stored_onnx(*loaded, tmp_path)
    assert found is not None
    assert found(torch.rand(1, 3, 32, 32)).shape == (1, 3, 32, 32)


def test_a_file_that_answers_otherwise_is_not_kept(
    loaded: tuple[nn.Module, ModelConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OnnxNetwork, "__call__", lambda self, images: images[:, :3] * 0)
    assert stored_onnx(*loaded, tmp_path) is None
    (note,) = (tmp_path / "onnx").iterdir()
    assert "does not answer as the model does" in note.read_text()
    monkeypatch.setattr(onnx_network, "write_onnx", lambda *_: pytest.fail("tried again"))
    assert stored_onnx(*loaded, tmp_path) is None


def test_without_a_place_to_write_torch_does_the_work(
    loaded: tuple[nn.Module, ModelConfig], tmp_path: Path
) -> None:
    (tmp_path / "onnx").write_text("a file where the folder should be")
    assert stored_onnx(*loaded, tmp_path) is None


def test_torch_and_onnx_draw_the_same_contours(
    model: Path, phantom: tuple[Scan, Segmentation], monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = Segmenter(model, device="cpu")
    assert segmenter._members[0].runner._on_cpu is not None
    by_onnx = segmenter.segment(phantom[0])
    monkeypatch.setattr("gitract.predict.stored_onnx", lambda *_: None)
    by_torch = Segmenter(model, device="cpu").segment(phantom[0])
    assert by_torch.masks.any()
    assert (by_onnx.masks != by_torch.masks).mean() < 1e-4


@pytest.mark.data
def test_the_shipped_model_written_for_others_draws_the_same_on_a_real_scan(
    shared_data: Path, tmp_path: Path
) -> None:
    written = export_model("gi-tract-small", tmp_path / "model.onnx", format="onnx")
    scan = read_scan(shared_data / "uwm_stacks" / "train" / "case20" / "case20_day0")
    segmenter = Segmenter("gi-tract-small", device="cpu", once=True)
    by_torch = segmenter.segment(scan)
    segmenter._members[0].runner._on_cpu = OnnxNetwork(written)
    by_onnx = segmenter.segment(scan)
    for one, other in zip(by_torch.masks, by_onnx.masks, strict=True):
        score = dice(one, other)
        assert score is not None
        assert score >= 0.999
