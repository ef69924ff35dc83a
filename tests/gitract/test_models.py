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
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from gitract.errors import InputError
from gitract.model_config import ModelConfig, NetworkConfig, Preparation, read_model_config
from gitract.model_store import ModelStore
from gitract.models import create_model, load_network, model_names, save_model
from gitract.models.ensemble import Ensemble, ensemble_of
from gitract.models.weights import build_network, start_from
from gitract.organs import ORGANS
from gitract.torchvision_guard import ensure_torchvision
from sentences import assert_one_sentence

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
    assert text[-1] in ".?"
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


# --- 3-D, auxiliary outputs, ensembles -----------------------------------------------------

SEGRESNET = {"width": 8, "blocks": [1, 1, 1]}


@pytest.mark.parametrize("size", [(1, 1, 1), (5, 9, 14), (8, 16, 12)])
def test_a_3d_network_takes_patches_of_every_size(size: tuple[int, int, int]) -> None:
    network = create_model("segresnet", in_channels=1, classes=2, **SEGRESNET).eval()
    image = torch.rand(2, 1, *size)
    with torch.inference_mode():
        found = network(image)
        padding = [n for extent in size[::-1] for n in (0, -extent % 4)]
        padded = network(torch.nn.functional.pad(image, padding))
    assert found.shape == (2, 2, *size)
    torch.testing.assert_close(found, padded[..., : size[0], : size[1], : size[2]])


@pytest.mark.parametrize(("dimensions", "size"), [(2, (20, 36)), (3, (7, 20, 36))])
def test_deep_supervision_answers_coarser_in_training_only(
    dimensions: int, size: tuple[int, ...]
) -> None:
    options = {**SEGRESNET, "dimensions": dimensions, "deep_supervision": 1}
    network = create_model("segresnet", in_channels=1, classes=2, **options)
    image = torch.rand(2, 1, *size)
    answer = network(image)
    assert answer.logits.shape == (2, 2, *size)
    (coarse,) = answer.deep
    assert coarse.shape == (2, 2, *(-(-side // 2) for side in size))
    network.eval()
    assert network(image).shape == (2, 2, *size)


def test_presence_is_told_in_training_only() -> None:
    network = create_model("encoder_unet", in_channels=3, classes=2, presence=True, **OPTIONS)
    image = torch.rand(2, 3, 40, 50)
    answer = network(image)
    assert answer.logits.shape == (2, 2, 40, 50)
    assert answer.presence.shape == (2, 2)
    assert network.eval()(image).shape == (2, 2, 40, 50)


@pytest.mark.parametrize(
    ("name", "options", "part"),
    [
        ("segresnet", {"dimensions": 4}, "dimensions is 4"),
        ("segresnet", {"width": 12}, "multiple of 8"),
        ("segresnet", {"blocks": [2]}, "blocks"),
        ("segresnet", {"blocks": 2}, "cannot be built"),
        ("segresnet", {"deep_supervision": 9}, "deep_supervision"),
        ("ensemble", {"members": 0, "network": {"name": "segresnet"}}, "members is 0"),
        ("ensemble", {"members": 2}, "network"),
        ("ensemble", {"members": 2, "network": "segresnet"}, "hold the name"),
        ("ensemble", {"members": 2, "network": {"name": "segresnet", "width": 8}}, "more than"),
        ("ensemble", {"members": 2, "network": {"name": "segresnet", "options": {"width": 7}}},
         "width is 7"),
    ],
)  # fmt: skip
def test_options_out_of_range_are_one_sentence(
    name: str, options: dict[str, object], part: str
) -> None:
    with pytest.raises(InputError) as error:
        create_model(name, in_channels=1, classes=2, **options)
    assert_one_sentence(error, part)


@pytest.mark.parametrize(
    ("network", "preparation", "part"),
    [
        ({"name": "segresnet", "options": SEGRESNET}, {}, "preparation.patch"),
        ({"name": "segresnet", "options": {**SEGRESNET, "dimensions": 2}},
         {"patch": (8, 16, 16)}, "preparation.patch"),
        ({"name": "encoder_unet", "options": OPTIONS}, {"patch": (8, 16, 16)}, "2-D"),
        ({"name": "ensemble", "options": {"members": 1, "network": {"name": "segresnet"}}}, {},
         "3-D"),
        ({"name": "ensemble", "options": {}}, {}, "cannot be built"),
    ],
)  # fmt: skip
def test_a_network_that_does_not_fit_the_preparation_is_refused(
    tiny_config: ModelConfig, network: dict[str, object], preparation: dict[str, object], part: str
) -> None:
    changes = {
        "network": NetworkConfig.model_validate(network),
        "preparation": Preparation.model_validate(preparation),
    }
    with pytest.raises(InputError) as error:
        build_network(tiny_config.model_copy(update=changes))
    assert_one_sentence(error, part)


class _Constant(torch.nn.Module):
    """The same logit everywhere."""

    def __init__(self, logit: float) -> None:
        super().__init__()
        self.logit = logit

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.full_like(images, self.logit)


@settings(max_examples=30)
@given(logits=st.lists(st.floats(-80, 80, width=32), min_size=1, max_size=5))
def test_an_ensemble_answers_the_logit_of_the_mean_probability(logits: list[float]) -> None:
    found = Ensemble([_Constant(logit) for logit in logits])(torch.zeros(1, 1, 2, 2))
    exact = torch.tensor(logits, dtype=torch.float64)
    chance, other = torch.sigmoid(exact).mean(), torch.sigmoid(-exact).mean()
    expected = float(chance.log() - other.log())
    assert found[0, 0, 0, 0].item() == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.fixture(params=["2-D", "3-D"])
def members(
    request: pytest.FixtureRequest, tmp_path: Path, tiny_config: ModelConfig
) -> tuple[list[Path], torch.Tensor]:
    """Two models that differ in their weights alone, and an image for them."""
    config = tiny_config
    image = torch.rand(2, tiny_config.preparation.channels, 21, 30)
    if request.param == "3-D":
        changes = {
            "network": NetworkConfig(name="segresnet", options=SEGRESNET),
            "preparation": Preparation(patch=(8, 16, 16)),
        }
        config = tiny_config.model_copy(update=changes)
        image = torch.rand(2, 1, 9, 21, 30)
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        save_model(build_network(config), config, "# One\n", folder)
    return folders, image


@torch.inference_mode()
def test_an_ensemble_of_models_is_one_model(
    members: tuple[list[Path], torch.Tensor], tmp_path: Path
) -> None:
    folders, image = members
    network, config = ensemble_of(folders)
    save_model(network, config, "# Both\n", tmp_path / "both")
    both, written = load_network(tmp_path / "both")
    chances = [torch.sigmoid(load_network(folder)[0](image)) for folder in folders]
    assert not torch.allclose(*chances)
    torch.testing.assert_close(torch.sigmoid(both(image)), sum(chances) / 2)
    assert torch.equal(both.train()(image), network.train()(image))
    first = read_model_config(folders[0])
    assert (written.id, written.organs, written.preparation) == (
        first.id, first.organs, first.preparation,
    )  # fmt: skip
    assert written.weights_sha256 != first.weights_sha256


@pytest.mark.parametrize(
    ("part", "change"),
    [("preparation", {"pixel_mm": 4.0}), ("organs", ORGANS[2:])],
)
def test_an_ensemble_of_unlike_models_is_refused(
    random_model: Path, folder: Path, tiny_config: ModelConfig, part: str, change: object
) -> None:
    changed = ModelConfig.model_validate({**tiny_config.model_dump(), part: change})
    other = folder.parent / "other"
    save_model(build_network(changed), changed, "# Other\n", other)
    with pytest.raises(InputError) as error:
        ensemble_of([folder, other])
    assert_one_sentence(error, part, str(other))
    with pytest.raises(InputError, match="at least one"):
        ensemble_of([])


# --- weights to start from ------------------------------------------------------------------


def random_network(**options: object) -> torch.nn.Module:
    return create_model("encoder_unet", in_channels=3, classes=2, **{**OPTIONS, **options})


def same(network: torch.nn.Module, other: torch.nn.Module, names: str = "") -> bool:
    state, others = network.state_dict(), other.state_dict()
    chosen = [name for name in state if name.startswith(names) and name in others]
    return all(torch.equal(state[name], others[name]) for name in chosen)


@pytest.mark.parametrize("prefix", ["with", "without"])
def test_weights_are_taken_with_and_without_the_paddings_prefix(
    tmp_path: Path, prefix: str
) -> None:
    network, other = random_network(), random_network()
    saved = other if prefix == "with" else other.get_submodule("network")
    save_file(saved.state_dict(), tmp_path / "start.safetensors")
    report = start_from(network, tmp_path / "start.safetensors")
    assert report.taken == report.of
    assert same(network, other)


def test_what_fits_is_taken_and_the_rest_left(tmp_path: Path) -> None:
    other = random_network(decoder_channels=[16, 8, 16, 8, 8])
    save_file(other.state_dict(), tmp_path / "start.safetensors")
    network = random_network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    report = start_from(network, tmp_path / "start.safetensors")
    assert 0 < report.taken < report.of
    assert same(network, other, "network.encoder.")
    for name, tensor in network.state_dict().items():
        fits = tensor.shape == other.state_dict()[name].shape
        assert torch.equal(tensor, (other.state_dict() if fits else before)[name])


def test_an_encoder_alone_starts_the_encoder(tmp_path: Path) -> None:
    other = random_network()
    encoder = {
        name.removeprefix("network."): tensor
        for name, tensor in other.state_dict().items()
        if ".encoder." in name
    }
    save_file(encoder, tmp_path / "encoder.safetensors")
    network = random_network()
    start_from(network, tmp_path / "encoder.safetensors")
    assert same(network, other, "network.encoder.")
    assert not same(network, other)


@torch.inference_mode()
@pytest.mark.parametrize("channels", [1, 5])
def test_a_first_convolution_is_spread_over_other_channels(tmp_path: Path, channels: int) -> None:
    other = random_network().eval()
    save_file(other.state_dict(), tmp_path / "start.safetensors")
    network = create_model("encoder_unet", in_channels=channels, classes=2, **OPTIONS).eval()
    assert start_from(network, tmp_path / "start.safetensors").taken == len(
        [tensor for tensor in network.state_dict().values() if tensor.ndim]
    )
    slice_ = torch.rand(1, 1, 32, 32)  # the same in all channels: then the sum is all that counts
    torch.testing.assert_close(
        network(slice_.expand(1, channels, -1, -1)), other(slice_.expand(1, 3, -1, -1)),
        rtol=1e-4, atol=1e-4,
    )  # fmt: skip


def test_a_start_from_a_model_folder(random_model: Path, tiny_config: ModelConfig) -> None:
    network = build_network(tiny_config)
    start_from(network, random_model)
    assert same(network, load_network(random_model)[0])


def test_a_start_that_gives_nothing_is_refused(tmp_path: Path, random_model: Path) -> None:
    network = random_network()
    for path in (random_model, tmp_path / "absent.safetensors", tmp_path):
        with pytest.raises(InputError) as error:
            start_from(network, path)
        assert_one_sentence(error, str(path))
    counters = {"network.encoder.features.0.1.num_batches_tracked": torch.tensor(3)}
    save_file(counters, tmp_path / "counters.safetensors")
    with pytest.raises(InputError, match="no weights that fit"):
        start_from(network, tmp_path / "counters.safetensors")


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


def test_a_misspelt_option_of_a_network_is_told_the_nearest() -> None:
    with pytest.raises(InputError, match="no option 'encodr': did you mean 'encoder'"):
        create_model("encoder_unet", in_channels=3, classes=3, encodr="resnet18")


def test_an_encoder_of_tensorflow_is_padded_as_there() -> None:
    ensure_torchvision()
    import timm
    from segmentation_models_pytorch import Unet

    theirs = Unet("tu-tf_efficientnet_lite0", encoder_weights=None, in_channels=3, classes=3,
                  decoder_channels=(32, 16, 16, 8, 8)).eval()  # fmt: skip
    assert any(isinstance(part, timm.layers.Conv2dSame) for part in theirs.modules())
    ours = create_model(
        "encoder_unet", in_channels=3, classes=3, encoder="tu-tf_efficientnet_lite0",
        decoder_channels=(32, 16, 16, 8, 8),
    ).eval()  # fmt: skip
    ours.network.load_state_dict(theirs.state_dict())  # type: ignore[union-attr]
    images = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs(images), atol=1e-5, rtol=0)
