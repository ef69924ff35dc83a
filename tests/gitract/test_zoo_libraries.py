"""Networks that libraries build: what is changed in them, their encoders, and where those start."""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from gitract.errors import InputError
from gitract.model_config import ModelConfig, NetworkConfig
from gitract.model_store import ModelStore
from gitract.models import create_model, load_network, model_names, save_model
from gitract.models.registry import network_dimensions, network_facts
from gitract.models.smp_encoders import _AdaptivePooling, exportable
from gitract.models.swin_unetr import _hidden, _windows
from gitract.models.weights import build_network, is_from_a_hub, start_from
from gitract.recipe import IMAGENET, read_recipe
from gitract.torchvision_guard import ensure_torchvision
from gitract.train import _started
from sentences import assert_one_sentence

ensure_torchvision()
import segmentation_models_pytorch as smp  # noqa: E402
import timm  # noqa: E402

TINY = {"encoder": "tu-test_resnet"}
NARROW = {**TINY, "decoder_channels": [16, 8, 8, 8, 8]}


def built(name: str, channels: int = 3, **options: Any) -> nn.Module:
    return create_model(name, in_channels=channels, classes=2, **options)


@torch.no_grad()
def scattered(network: nn.Module) -> nn.Module:
    """Every tensor another one, so that none that is forgotten goes unseen."""
    generator = torch.Generator().manual_seed(7)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.1 + 0.01)
    return network


# --- what they are ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("deeplabv3", 39_634_243), ("deeplabv3_plus", 26_678_099), ("segformer", 25_376_451)],
)
def test_a_network_has_the_published_number_of_parameters(name: str, parameters: int) -> None:
    with torch.device("meta"):
        network = create_model(name, in_channels=3, classes=3)
    assert sum(one.numel() for one in network.parameters()) == parameters


@torch.inference_mode()
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("deeplabv3", {"encoder": "tu-test_convnext", "decoder_channels": 8}),
        ("fpn", {"encoder": "tu-pvt_v2_b0", "pyramid_channels": 8, "decoder_channels": 32}),
        ("linknet", {"encoder": "tu-pvt_v2_b0"}),
        ("manet", {"encoder": "tu-test_convnext", "decoder_channels": [16, 8, 8, 8, 8]}),
        ("pan", {"encoder": "tu-pvt_v2_b0", "output_stride": 32}),
        ("segformer", {"encoder": "tu-test_convnext", "decoder_channels": 8}),
        ("unet_tu-pvt_v2_b0", {"decoder_channels": [16, 8, 8, 8, 8]}),
        ("upernet", {"encoder": "tu-swin_tiny_patch4_window7_224", "decoder_channels": 8}),
    ],
)
def test_transformers_encode_images_of_any_size(name: str, options: dict[str, Any]) -> None:
    assert built(name, **options).eval()(torch.rand(1, 3, 33, 70)).shape == (1, 2, 33, 70)


@pytest.mark.parametrize(
    ("name", "options", "part"),
    [
        ("segformer", {"encoder": "mit_b2"}, "tu-pvt_v2_b2"),
        ("unet_mit_b0", {}, "tu-pvt_v2_b2"),
        ("dpt", {"encoder": "mit_b0"}, "tu-pvt_v2_b2"),
        ("deeplabv3", {"encoder": "tu-pvt_v2_b0"}, "encoder tu-pvt_v2_b0 does not fit"),
        ("pan", {"encoder": "tu-pvt_v2_b0"}, "encoder tu-pvt_v2_b0 does not fit"),
        ("dpt", {"encoder": "tu-test_convnext"}, "encoder tu-test_convnext does not fit"),
        ("dpt", {"encoder": "resnet18"}, "encoder resnet18 does not fit"),
        ("fpn", {"encoder": 18}, "must be a name"),
        ("fpn", {"decoder_channels": 33}, "multiple of 32"),
        ("fpn", {"pyramid_channels": 0}, "pyramid_channels is 0"),
        ("manet", {"decoder_channels": [16, 8]}, "does not fit"),
        ("dpt", {"stage_channels": [16, 8, 0, 8]}, "stage_channels"),
        ("pan", {"output_stride": 8}, "must be 16 or 32"),
        ("deeplabv3", {"output_stride": 32}, "must be 8 or 16"),
        ("swin_unetr", {"dimensions": 4}, "dimensions is 4"),
        ("swin_unetr", {"width": 8}, "multiple of 12"),
        ("swin_unetr", {"depths": [2, 2]}, "four numbers"),
        ("swin_unetr", {"window": 1}, "window is 1"),
    ],
)
def test_what_cannot_be_built_is_told_in_one_sentence(
    name: str, options: dict[str, Any], part: str
) -> None:
    with pytest.raises(InputError) as error:
        built(name, **options)
    assert_one_sentence(error, part)


@pytest.mark.parametrize("name", ["linknet", "encoder_unet", "dpt"])
def test_an_unknown_encoder_is_told_the_nearest(name: str) -> None:
    with pytest.raises(InputError, match="Unknown encoder 'tu-rsenet18': did you mean 'tu-resnet"):
        built(name, encoder="tu-rsenet18")
    with pytest.raises(InputError, match="Unknown encoder 'zzz': take a name") as error:
        built(name, encoder="zzz")
    assert_one_sentence(error)


# --- a network for each encoder -----------------------------------------------------------------


def test_a_name_may_tell_the_encoder_of_a_unet() -> None:
    options = {"decoder_channels": [16, 8, 8, 8, 8], "presence": True}
    named = built("unet_tu-test_resnet", **options)
    given_ = built("encoder_unet", **TINY, **options)
    assert [(name, one.shape) for name, one in named.state_dict().items()] == [
        (name, one.shape) for name, one in given_.state_dict().items()
    ]
    assert network_dimensions("unet_resnet34", {}) == 2
    facts = network_facts("unet_resnet34")
    assert facts is not None
    assert "resnet34" in facts.title
    assert facts.paper == network_facts("encoder_unet").paper  # type: ignore[union-attr]
    assert "unet_resnet34" not in model_names()


def test_a_registered_name_comes_before_an_encoder() -> None:
    facts = network_facts("unet_plus_plus")
    assert facts is not None
    assert facts.title == "UNet++"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("unet_resnte34", "unet_resnet34"),
        ("unet_tu-pvt_v2_b9", "unet_tu-pvt_v2_b"),
        ("unet_plus_plsu", "unet_plus_plus"),
    ],
)
def test_an_unknown_name_of_a_unet_is_told_the_nearest(name: str, nearest: str) -> None:
    for ask in (lambda: built(name), lambda: network_facts(name)):
        with pytest.raises(InputError, match=f"Unknown network '{name}': did you mean '{nearest}"):
            ask()


def test_an_encoder_cannot_be_told_twice() -> None:
    with pytest.raises(InputError, match="'unet_resnet18' has no option 'encoder'") as error:
        built("unet_resnet18", encoder="resnet34")
    assert_one_sentence(error, "decoder_channels")


def test_a_recipe_and_a_model_folder_may_name_the_encoder_so(
    tmp_path: Path, tiny_config: ModelConfig
) -> None:
    network = {
        "name": "unet_tu-test_resnet",
        "options": {"decoder_channels": NARROW["decoder_channels"]},
    }
    content = {"id": "mine", "title": "Mine", "network": network}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    recipe = read_recipe(tmp_path / "recipe.yaml")
    config = tiny_config.model_copy(update={"network": recipe.network})
    save_model(scattered(build_network(config)), config, "# Mine\n", tmp_path / "model")
    back, read = load_network(tmp_path / "model")
    assert read.network.name == "unet_tu-test_resnet"
    assert len(back.state_dict()) == len(built("encoder_unet", **NARROW).state_dict())


# --- layers that were replaced --------------------------------------------------------------------


@settings(max_examples=40)
@given(rows=st.integers(1, 20), columns=st.integers(1, 20), bins=st.integers(2, 6))
def test_pooling_to_a_few_bins_is_torchs(rows: int, columns: int, bins: int) -> None:
    maps = torch.rand(2, 3, rows, columns, generator=torch.Generator().manual_seed(rows))
    ours, theirs = _AdaptivePooling(bins)(maps), nn.AdaptiveAvgPool2d(bins)(maps)
    torch.testing.assert_close(ours, theirs)


@torch.inference_mode()
@pytest.mark.parametrize(
    ("architecture", "options", "sizes"),
    [
        ("UPerNet", {"encoder_name": "tu-test_convnext", "decoder_channels": 8}, (64, 224)),
        ("DeepLabV3Plus", {"encoder_name": "tu-test_convnext", "decoder_channels": 8}, (64, 96)),
        ("FPN", {"encoder_name": "tu-tf_efficientnet_lite0"}, (32, 96)),
    ],
)
def test_what_can_be_exported_answers_as_what_cannot(
    architecture: str, options: dict[str, Any], sizes: tuple[int, int]
) -> None:
    network = getattr(smp, architecture)(encoder_weights=None, classes=2, **options).eval()
    kinds = {type(module) for module in network.modules()}
    images = torch.rand(1, 3, *sizes)
    before = network(images)
    assert {type(module) for module in exportable(network).modules()} != kinds
    torch.testing.assert_close(network(images), before, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_pyramid_attention_is_smps_where_maps_can_be_halved_three_times() -> None:
    ours = scattered(built("pan", **TINY)).eval()
    theirs = smp.PAN("tu-test_resnet", encoder_weights=None, classes=2).eval()
    state = ours.get_submodule("network").state_dict()
    left = theirs.load_state_dict(state, strict=False)
    assert not left.unexpected_keys
    for name, one in theirs.named_parameters():
        if name in left.missing_keys:  # biases in front of a normalisation
            one.zero_()
    images = torch.rand(1, 3, 128, 256)
    torch.testing.assert_close(ours(images), theirs(images))


@torch.inference_mode()
@pytest.mark.parametrize("encoder", ["test_vit", "test_vit2", "test_vit3"])
def test_a_vision_transformer_of_its_own_size_is_timms(encoder: str) -> None:
    """They have a class token, or several others, with or without positions of their own."""
    options = {"stage_channels": [8, 8, 8, 8], "decoder_channels": 8}
    ours = scattered(built("dpt", encoder=f"tu-{encoder}", **options)).eval()
    model = ours.get_submodule("network.encoder.model")
    theirs = timm.create_model(encoder, num_classes=0).eval()
    theirs.load_state_dict(model.state_dict(), strict=False)
    images = torch.rand(1, 3, 160, 160)
    own = model.forward_intermediates(images, intermediates_only=True)  # type: ignore[operator]
    expected = theirs.forward_intermediates(images, intermediates_only=True)
    for found, wanted in zip(own, expected, strict=True):
        torch.testing.assert_close(found, wanted)


@torch.inference_mode()
def test_positions_are_enlarged_with_the_image() -> None:
    network = built("dpt", encoder="tu-test_vit", stage_channels=[8] * 4, decoder_channels=8)
    model: Any = network.get_submodule("network.encoder.model")
    rows, columns = model.patch_embed.grid_size
    ramp = torch.arange(rows, dtype=torch.float)[:, None].expand(rows, columns)
    model.pos_embed[:, 1:] = ramp.reshape(1, -1, 1)
    tokens = model._pos_embed(torch.zeros(1, 2 * rows, columns, model.embed_dim))[:, 1:, 0]
    found = tokens.reshape(2 * rows, columns)
    expected = (torch.arange(2 * rows) / 2 - 0.25).clamp(0, rows - 1)
    torch.testing.assert_close(found, expected[:, None].expand(-1, columns))


@pytest.mark.parametrize("dimensions", [2, 3])
@torch.inference_mode()
def test_swin_unetr_is_monais_where_windows_fill_the_maps(
    dimensions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from monai.networks.nets import swin_unetr

    def rearranged(maps: torch.Tensor, pattern: str) -> torch.Tensor:
        old, new = (side.split() for side in pattern.split("->"))
        return maps.permute([old.index(axis) for axis in new])

    monkeypatch.setattr(swin_unetr, "rearrange", rearranged)  # of einops, which may be missing
    sizes = (64, 96) if dimensions == 2 else (32, 32, 64)
    options = {"dimensions": dimensions, "width": 12, "window": 2, "depths": [2, 1, 1, 1]}
    ours = built("swin_unetr", channels=1, **options).eval()
    theirs = swin_unetr.SwinUNETR(
        in_channels=1, out_channels=2, feature_size=12, spatial_dims=dimensions, window_size=2,
        depths=(2, 1, 1, 1), downsample="mergingv2",
    ).eval()  # fmt: skip
    theirs.load_state_dict(ours.get_submodule("network").state_dict())
    images = torch.rand(1, 1, *sizes)
    torch.testing.assert_close(ours(images), theirs(images))


@settings(max_examples=25)
@given(sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)), shifted=st.booleans())
def test_a_token_sees_those_of_its_window_that_are_near_in_the_image(
    sizes: tuple[int, int], shifted: bool
) -> None:
    side, step = 4, 2 if shifted else 0
    padded = [-(-size // side) * side for size in sizes]
    hidden = _hidden(sizes, padded, (side, side), (step, step), torch.device("cpu"))
    rolled = torch.tensor(list(product(range(padded[0]), range(padded[1]))))
    grid = rolled.reshape(1, *padded, 2)
    for window, seen in zip(_windows(grid, (side, side)), hidden, strict=True):
        lengths = torch.tensor(padded)
        wraps = window + step >= lengths  # came in at the other end of the map
        real = (window + step) % lengths < torch.tensor(sizes)
        same = torch.stack([(flag[:, None] == flag[None]).all(-1) for flag in (wraps, real)])
        assert torch.equal(seen == 0, same.all(0))


def test_swin_unetr_trains_on_one_image_of_a_single_coarse_pixel() -> None:
    network = built("swin_unetr", dimensions=2, width=12, window=2, depths=[1, 1, 1, 1])
    answer = network(torch.rand(1, 3, 20, 32))
    answer.square().mean().backward()
    assert answer.isfinite().all()
    assert all(one.grad.isfinite().all() for one in network.parameters() if one.grad is not None)


# --- weights to start from -----------------------------------------------------------------------


def encoder_of(network: nn.Module) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix("network.").removeprefix("network.").removeprefix("encoder."): tensor
        for name, tensor in network.state_dict().items()
        if "encoder." in name
    }


def assert_same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() <= wanted.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, wanted[name]), name


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[nn.Module], None]:
    """Let smp's hub and timm's give the weights of a network."""

    def offer(network: nn.Module) -> None:
        save_file(network.state_dict(), tmp_path / "hub.safetensors")
        monkeypatch.setattr(
            "segmentation_models_pytorch.encoders.hf_hub_download",
            lambda *_, **__: str(tmp_path / "hub.safetensors"),
        )
        monkeypatch.setattr(
            "timm.models._builder.load_state_dict_from_hf",
            lambda *_, **__: load_file(tmp_path / "hub.safetensors"),
        )

    return offer


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError("cannot find the requested files\nin the local cache. Try again.")

    monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", missing)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", missing)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("encoder_unet", {"encoder": "resnet18", "presence": True}),
        ("unet_resnet18", {}),
    ],
)
def test_smps_encoders_start_from_imagenet(
    hub: Callable[[nn.Module], None], name: str, options: dict[str, Any]
) -> None:
    trained = scattered(smp.encoders.get_encoder("resnet18", weights=None))
    hub(trained)
    network = built(name, **options)
    decoder = {key: one.clone() for key, one in network.state_dict().items() if "decoder" in key}
    report = start_from(network, "imagenet")
    assert_same(encoder_of(network), trained.state_dict())
    assert_same(decoder, network.state_dict())
    assert 0 < report.taken < report.of


@pytest.mark.parametrize(
    ("name", "encoder", "options"),
    [
        ("fpn", "test_resnet", {"pyramid_channels": 8, "decoder_channels": 32}),
        ("pan", "test_resnet", {}),
        ("upernet", "test_convnext", {"decoder_channels": 8}),
        ("dpt", "test_vit", {"stage_channels": [8] * 4, "decoder_channels": 8}),
    ],
)
def test_timms_encoders_start_from_imagenet(
    hub: Callable[[nn.Module], None], name: str, encoder: str, options: dict[str, Any]
) -> None:
    hub(scattered(timm.create_model(encoder)))
    network = built(name, encoder=f"tu-{encoder}", **options)
    start_from(network, "imagenet")
    trained = scattered(timm.create_model(encoder)).state_dict()
    wanted = {f"model.{name}".replace("_", "."): one for name, one in trained.items()}
    assert_same({key.replace("_", "."): one for key, one in encoder_of(network).items()}, wanted)


@pytest.mark.parametrize("channels", [1, 5])
def test_other_channels_share_the_weights_of_imagenet(
    hub: Callable[[nn.Module], None], channels: int
) -> None:
    trained = scattered(timm.create_model("test_resnet"))
    hub(trained)
    network = built("linknet", channels=channels, **TINY)
    start_from(network, "imagenet")
    found = encoder_of(network)
    wanted = {f"model.{name}": one for name, one in trained.state_dict().items()}
    name = next(name for name, one in found.items() if one.ndim == 4)
    first = found.pop(name)
    assert first.shape[1] == channels
    torch.testing.assert_close(first.sum(1), wanted[name].sum(1))
    assert torch.equal(first, first[:, :1].expand_as(first))
    assert_same(found, wanted)


@pytest.mark.parametrize("encoder", ["resnet18", "tu-test_resnet"])
def test_weights_that_cannot_be_fetched_are_told_with_what_to_do(
    no_hub: None, encoder: str
) -> None:
    network = built("linknet", encoder=encoder)
    before = {name: one.clone() for name, one in network.state_dict().items()}
    with pytest.raises(InputError) as error:
        start_from(network, "imagenet")
    assert_one_sentence(error, repr(encoder), "connect to the internet once", "file", "start")
    assert_same(before, network.state_dict())


@pytest.mark.parametrize(
    ("name", "options", "part"),
    [
        ("unet_dpn92", {}, "no ImageNet weights of the encoder 'dpn92'"),
        ("segresnet", {"dimensions": 2, "width": 8, "blocks": [1, 1]}, "no encoder"),
    ],
)
def test_a_network_without_weights_of_imagenet_says_so(
    name: str, options: dict[str, Any], part: str
) -> None:
    with pytest.raises(InputError) as error:
        start_from(built(name, **options), "imagenet")
    assert_one_sentence(error, part)


def test_a_trained_model_is_read_without_the_hub(
    hub: Callable[[nn.Module], None],
    tmp_path: Path,
    tiny_config: ModelConfig,
    request: pytest.FixtureRequest,
) -> None:
    hub(scattered(timm.create_model("test_resnet")))
    network_config = NetworkConfig(name="encoder_unet", options=NARROW)
    config = tiny_config.model_copy(update={"network": network_config})
    network = build_network(config)
    assert _started(network, config, IMAGENET, ["case1"]) == config
    save_model(network, config, "# Mine\n", tmp_path / "model")
    request.getfixturevalue("no_hub")
    assert_same(network.state_dict(), load_network(tmp_path / "model")[0].state_dict())


def test_a_recipe_starts_from_imagenet_and_not_from_a_file_of_that_name(tmp_path: Path) -> None:
    content = {"id": "mine", "title": "Mine", "network": {"name": "linknet"}, "start": "imagenet"}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    recipe = read_recipe(path)
    assert recipe.start == IMAGENET
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    assert read_recipe(path) == recipe
    path.write_text(yaml.safe_dump({**content, "start": "./imagenet"}))
    assert read_recipe(path).start == str((tmp_path / "imagenet").resolve())
    with pytest.raises(InputError, match="The weights imagenet cannot be read"):
        start_from(built("linknet", **TINY), Path("imagenet"))


@pytest.mark.parametrize(
    ("form", "encoder"),
    [
        ("hub", "test_resnet"),
        ("safetensors", "test_convnext"),
        ("pth", "test_resnet"),
        ("checkpoint", "test_resnet"),
    ],
)
def test_an_encoders_own_file_starts_it(
    tmp_path: Path, tiny_config: ModelConfig, form: str, encoder: str
) -> None:
    trained = scattered(timm.create_model(encoder)).state_dict()
    start = tmp_path / {"hub": "hub", "safetensors": "a.safetensors"}.get(form, "a.pth")
    if form == "hub":
        start.mkdir()
        (start / "config.json").write_text(json.dumps({"architecture": encoder}))
        save_file(trained, start / "model.safetensors")
    elif form == "safetensors":
        save_file(trained, start)
    else:
        torch.save({"epoch": 3, "state_dict": trained} if form == "checkpoint" else trained, start)
    network = built("segformer", encoder=f"tu-{encoder}", decoder_channels=8)
    assert _started(network, tiny_config, str(start), []) == tiny_config
    wanted = {f"model.{name}".replace("_", "."): one for name, one in trained.items()}
    assert_same({key.replace("_", "."): one for key, one in encoder_of(network).items()}, wanted)


def test_a_model_of_this_program_is_not_taken_for_one_of_a_hub(random_model: Path) -> None:
    assert not is_from_a_hub(random_model)


@pytest.mark.parametrize("content", [b"", b"abc", b"\x80\x02}q\x00.", b"(I1\n.", b"PK\x03\x04"])
def test_a_damaged_file_to_start_from_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "start.pth"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        start_from(built("linknet", **TINY), path)
    assert_one_sentence(error, "start.pth")


def test_a_file_that_would_run_something_is_refused(tmp_path: Path) -> None:
    torch.save({"conv1.weight": Path("x")}, tmp_path / "start.pth")
    with pytest.raises(InputError) as error:
        start_from(built("linknet", **TINY), tmp_path / "start.pth")
    assert_one_sentence(error, "cannot be read")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("encoder_unet", {"presence": True}),
        ("deeplabv3_plus", {"decoder_channels": 8}),
        ("segformer", {"decoder_channels": 8}),
        ("ssformer_s", {"width": 8}),
        ("upernet", {"decoder_channels": 8}),
    ],
)
def test_the_encoder_of_the_shipped_model_starts_other_networks(
    tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    shipped, config = load_network(ModelStore().find("gi-tract-small").path)
    wanted = encoder_of(shipped)
    save_file({f"encoder.{name}": one for name, one in wanted.items()}, tmp_path / "e.safetensors")
    network = built(name, encoder=config.network.options["encoder"], **options)
    start_from(network, tmp_path / "e.safetensors")
    assert_same(encoder_of(network), wanted)
