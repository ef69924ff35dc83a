"""Networks by name, model folders, and the guard around torchvision."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from gitract.errors import InputError
from gitract.model_config import ModelConfig, NetworkConfig, read_model_config
from gitract.model_store import ModelStore
from gitract.models import create_model, load_network, model_names, save_model
from gitract.models.weights import build_network

OPTIONS = {"encoder": "mobilenet_v2", "decoder_channels": [16, 8, 8, 8, 8]}


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    return create_model("encoder_unet", in_channels=3, classes=2, **OPTIONS).eval()


@pytest.fixture
def folder(tmp_path: Path, random_model: Path) -> Path:
    """A model folder to spoil."""
    return Path(shutil.copytree(random_model, tmp_path / "model"))


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("size", [(1, 1), (31, 33), (64, 32), (45, 97)])
def test_every_slice_size_comes_back(network: torch.nn.Module, size: tuple[int, int]) -> None:
    with torch.inference_mode():
        assert network(torch.rand(2, 3, *size)).shape == (2, 2, *size)


def test_padding_is_air_below_and_to_the_right(network: torch.nn.Module) -> None:
    image = torch.rand(1, 3, 40, 50)
    padded = torch.nn.functional.pad(image, (0, 14, 0, 24))
    with torch.inference_mode():
        torch.testing.assert_close(network(image), network(padded)[..., :40, :50])


def test_new_networks_are_random_and_differ(network: torch.nn.Module) -> None:
    other = create_model("encoder_unet", in_channels=3, classes=2, **OPTIONS).eval()
    image = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        assert not torch.allclose(network(image), other(image))


def test_a_wrong_name_is_met_with_the_nearest_one() -> None:
    assert "encoder_unet" in model_names()
    with pytest.raises(InputError, match="'encoder_unit': did you mean 'encoder_unet'"):
        create_model("encoder_unit", in_channels=3, classes=3)
    with pytest.raises(InputError, match="known are .*encoder_unet"):
        create_model("xyz", in_channels=3, classes=3)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"enkoder": "resnet18"}, "enkoder"),
        ({"encoder": "resnet17"}, "resnet17"),
        ({"encoder": "tu-nothing"}, "tu-nothing"),
        ({"encoder": 3}, "cannot be built"),
        ({"decoder_channels": [16, 8]}, "decoder_channels"),
        ({"decoder_channels": 16}, "cannot be built"),
    ],
)
def test_wrong_options_are_one_sentence(options: dict[str, object], part: str) -> None:
    with pytest.raises(InputError) as error:
        create_model("encoder_unet", in_channels=3, classes=3, **options)
    text = str(error.value)
    assert part in text
    assert "\n" not in text
    assert text.endswith(".")
    assert not text.endswith("..")


def test_a_saved_network_answers_the_same(tmp_path: Path, tiny_config: ModelConfig) -> None:
    network_config = NetworkConfig(name="encoder_unet", options=OPTIONS)
    described = tiny_config.model_copy(update={"network": network_config})
    network = build_network(described)
    network(torch.rand(4, 3, 32, 32))  # moves the statistics, which must be saved as well
    network.eval()
    written = save_model(network, described, "# Card\n", tmp_path / "model")
    back, config = load_network(tmp_path / "model")
    assert config == written
    assert not back.training
    image = torch.rand(2, 3, 40, 44)
    with torch.inference_mode():
        assert torch.equal(network(image), back(image))
    assert {path.name for path in (tmp_path / "model").iterdir()} == {
        "README.md", "config.json", "model.safetensors",
    }  # fmt: skip


def test_damaged_weights_are_named(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"model\.safetensors"):
        load_network(folder)
    weights.unlink()
    with pytest.raises(InputError, match=r"model\.safetensors.* cannot be read"):
        load_network(folder)


def test_one_changed_byte_of_the_weights_is_found(folder: Path) -> None:
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(InputError, match="SHA-256"):
        load_network(folder)


def test_weights_of_another_network_are_refused(folder: Path) -> None:
    other = NetworkConfig(name="encoder_unet", options={**OPTIONS, "encoder": "resnet18"})
    change_config(folder, network=other.model_dump())
    with pytest.raises(InputError, match="not those of the network"):
        load_network(folder)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"surprise": 1}, "surprise"),
        ({"preparation": {"pixel_mm": -1}}, r"preparation\.pixel_mm"),
        ({"network": {"name": "encoder_unit"}}, "did you mean"),
        ({"format": 99, "new_in_99": True}, "newer version"),
    ],
)
def test_a_wrong_configuration_says_where(
    folder: Path, changes: dict[str, object], part: str
) -> None:
    change_config(folder, **changes)
    with pytest.raises(InputError, match=part):
        load_network(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe\x00"])
def test_a_damaged_configuration_is_one_sentence(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(InputError, match=r"config\.json"):
        read_model_config(folder)


def test_no_configuration_is_no_model_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a model folder"):
        read_model_config(tmp_path)


def test_the_model_that_ships_is_whole_and_small() -> None:
    shipped = ModelStore().models()[0]
    assert shipped.shipped
    size = sum(path.stat().st_size for path in shipped.path.iterdir())
    assert size < 25e6
    network, config = load_network(shipped.path)
    assert config.weights_sha256
    assert [organ.name for organ in config.organs] == ["large_bowel", "small_bowel", "stomach"]
    assert "not for treatment decisions" in shipped.card
    with torch.inference_mode():
        image = torch.rand(1, config.preparation.channels, 40, 40)
        assert torch.isfinite(network(image)).all()


# --- torchvision ----------------------------------------------------------------------------


def run_python(code: str, *path: Path) -> str:
    places = [str(place) for place in path] + sys.path
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, env=environment, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


GUARDED = """
    from gitract.torchvision_guard import _KEPT, ensure_torchvision
    ensure_torchvision()
    ensure_torchvision()
    import torchvision
    print(len(_KEPT), getattr(torchvision, "LOADED", ""))
"""


def test_whatever_torchvision_is_installed_imports_after_the_guard() -> None:
    code = GUARDED + "    import segmentation_models_pytorch\n    print('smp')"
    assert run_python(code).endswith("smp")


def test_a_torchvision_of_another_torch_gets_its_operators_declared(tmp_path: Path) -> None:
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "part.py").write_text("")
    # registers a kernel for the operator, as torchvision does while it is imported
    (package / "__init__.py").write_text(
        "import torch\nimport torchvision.part\n"
        "torch.library.register_fake('torchvision::nms')(lambda *a: a[0])\nLOADED = 'whole'\n"
    )
    assert run_python(GUARDED, tmp_path) == "1 whole"


def test_a_healthy_torchvision_is_left_alone_and_torch_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "torchvision.py").write_text("LOADED = 'healthy'\n")
    code = GUARDED + "    import sys\n    print('torch' in sys.modules)"
    assert run_python(code, tmp_path) == "0 healthy\nFalse"


def test_another_failure_of_torchvision_is_not_hidden(tmp_path: Path) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('libpng is missing')\n")
    code = """
        from gitract.torchvision_guard import ensure_torchvision
        try:
            ensure_torchvision()
        except RuntimeError as error:
            print(error)
    """
    assert run_python(code, tmp_path) == "libpng is missing"
