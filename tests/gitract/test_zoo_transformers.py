"""FCT and SSFormer: their sizes, their equations, and what of them is silent."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from gitract.errors import InputError
from gitract.models import create_model
from gitract.models.fct import FullyConvolutionalTransformer, _Attention, _Pyramid, _WideFocus
from gitract.models.outputs import Outputs
from gitract.models.ssformer import SSFormer, _ProgressiveLocalityDecoder
from gitract.models.weights import start_from
from sentences import assert_one_sentence

SMALL_FCT = {"width": 4}
SMALL_SSFORMER = {"encoder": "tu-pvt_v2_b0", "width": 8}


def parameters(network: nn.Module) -> int:
    return sum(tensor.numel() for tensor in network.parameters())


@pytest.mark.parametrize(
    ("name", "in_channels", "classes", "expected"),
    [
        ("fct", 1, 3, 31_729_387),
        ("fct", 3, 3, 31_733_999),
        ("fct", 5, 3, 31_738_611),
        ("fct", 1, 4, 31_729_614),
        ("ssformer_s", 3, 3, 29_963_971),
        ("ssformer_l", 3, 3, 67_157_187),
    ],
)
def test_a_transformer_is_as_large_as_its_definition(
    name: str, in_channels: int, classes: int, expected: int
) -> None:
    with torch.device("meta"):
        network = create_model(name, in_channels=in_channels, classes=classes)
    assert parameters(network) == expected


def explicit_attention(attention: _Attention, maps: torch.Tensor) -> torch.Tensor:
    """Softmax of scaled products, one head and one pixel's row of weights after the other."""
    projected = []
    for part in (attention.queries, attention.keys, attention.values):
        step = part.depthwise.stride[0]
        mixed = functional.conv2d(
            maps, part.depthwise.weight, stride=step, padding=1, groups=maps.shape[1]
        )
        variance, mean = torch.var_mean(mixed, 1, correction=0, keepdim=True)
        scale, shift = part.norm.weight[:, None, None], part.norm.bias[:, None, None]
        normed = (mixed - mean) / (variance + 1e-5).sqrt() * scale + shift
        tokens = normed.flatten(2).transpose(1, 2) @ part.linear.weight.T + part.linear.bias
        projected.append(tokens.chunk(part.heads, dim=-1))
    heads = []
    for query, key, value in zip(*projected, strict=True):
        weights = (query @ key.transpose(1, 2) / math.sqrt(maps.shape[1])).exp()
        heads.append(weights / weights.sum(-1, keepdim=True) @ value)
    merged = torch.cat(heads, -1) @ attention.merge.weight.T + attention.merge.bias
    return merged.transpose(1, 2).reshape(maps.shape)


def shaken(module: nn.Module) -> nn.Module:
    """Every weight away from where it starts, so that none hides as 0 or 1."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.3)
    return module


@torch.no_grad()
def test_attention_is_that_of_its_equation() -> None:
    attention = shaken(_Attention(6, heads=2))
    maps = torch.randn(2, 6, 8, 12)
    torch.testing.assert_close(
        attention(maps), explicit_attention(attention, maps), rtol=1e-4, atol=1e-5
    )


@torch.no_grad()
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_attention_stays_finite_in_half_precision_where_scores_are_large(
    kind: torch.dtype,
) -> None:
    attention = _Attention(8, heads=2)
    for part in (attention.queries, attention.keys):
        part.linear.weight.mul_(100)
    maps = torch.randn(1, 8, 16, 16)
    assert not explicit_attention(attention, maps).isfinite().all()  # its exp is too large
    with torch.autocast("cpu", dtype=kind):
        assert attention(maps).isfinite().all()


@torch.no_grad()
def test_wide_focus_sums_three_dilations() -> None:
    focus = shaken(_WideFocus(4, dropout=0.5)).eval()
    maps = torch.randn(2, 4, 9, 8)
    total = torch.zeros_like(maps)
    for dilation, branch in zip((1, 2, 3), focus.branches, strict=True):
        total += functional.gelu(
            functional.conv2d(
                maps, branch[0].weight, branch[0].bias, padding=dilation, dilation=dilation
            )
        )
    merge = focus.merge[0]
    expected = functional.gelu(functional.conv2d(total, merge.weight, merge.bias, padding=1))
    torch.testing.assert_close(focus(maps), expected)


@torch.no_grad()
def test_the_pyramid_brings_the_averaged_image_to_the_maps() -> None:
    pyramid = _Pyramid(3, 5, scale=4)
    maps, images = torch.randn(2, 6, 4, 6), torch.rand(2, 3, 16, 24)
    joined = pyramid(maps, images)
    small = images.reshape(2, 3, 4, 4, 6, 4).mean((3, 5))
    assert torch.equal(joined[:, :6], maps)
    torch.testing.assert_close(joined[:, 6:], pyramid.convolution(small))


def test_only_the_three_levels_amid_see_the_image_again() -> None:
    network = FullyConvolutionalTransformer(3, 3, (4, 8, 12, 16, 20), 1, 0.0, 0.0)
    scales = [getattr(encoder.pyramid, "scale", None) for encoder in network.encoders]
    assert scales == [None, 2, 4, 8, None]


@torch.no_grad()
def test_fct_sees_how_bright_a_single_channel_is() -> None:
    """Normalised over its channels alone, it would not before half resolution."""
    first = create_model("fct", in_channels=1, classes=1, **SMALL_FCT).eval().network.encoders[0]
    images = torch.rand(1, 1, 32, 32)
    assert not torch.allclose(first(images, images), first(images**2, images**2), atol=1e-3)


def test_fct_answers_at_three_sizes_in_training_and_computes_one_head_otherwise() -> None:
    network = create_model("fct", in_channels=1, classes=2, **SMALL_FCT)
    called: list[tuple[int, ...]] = []
    for head in network.network.heads:
        head.register_forward_hook(lambda _, __, maps: called.append(tuple(maps.shape[1:])))
    outputs = network(torch.rand(1, 1, 64, 32))
    assert isinstance(outputs, Outputs)
    sizes = [tuple(maps.shape[1:]) for maps in (outputs.logits, *outputs.deep)]
    assert sizes == [(2, 64, 32), (2, 32, 16), (2, 16, 8)]
    assert sorted(called) == sorted(sizes)
    called.clear()
    assert isinstance(network.eval()(torch.rand(1, 1, 64, 32)), torch.Tensor)
    assert called == [(2, 64, 32)]


@pytest.mark.parametrize(("name", "options"), [("fct", SMALL_FCT), ("ssformer_s", SMALL_SSFORMER)])
@torch.no_grad()
def test_dropout_speaks_in_training_alone(name: str, options: dict[str, object]) -> None:
    network = create_model(name, in_channels=3, classes=2, **options).eval()
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(network(images), network(images))
    for module in network.modules():
        module.training = isinstance(module, nn.Dropout)  # batch statistics aside
    assert not torch.equal(network(images), network(images))


def explicit_decoder(
    decoder: _ProgressiveLocalityDecoder, features: list[torch.Tensor]
) -> torch.Tensor:
    """Emphasise and enlarge each stage; join the coarsest two, then the next, then the finest."""
    stages = []
    for emphasis, maps in zip(decoder.emphases, features, strict=True):
        first, second = (layer for layer in emphasis if isinstance(layer, nn.Conv2d))
        near = functional.conv2d(maps, first.weight, padding=1).relu()
        nearer = functional.conv2d(near, second.weight, padding=1).relu()
        size = features[0].shape[-2:]
        stages.append(functional.interpolate(nearer, size, mode="bilinear", align_corners=False))
    joined = stages[3]
    for fusion, stage in zip(decoder.fusions, (stages[2], stages[1], stages[0]), strict=True):
        linear, norm, _ = fusion.layers
        mixed = functional.conv2d(torch.cat([joined, stage], 1), linear.weight)
        joined = functional.batch_norm(
            mixed, norm.running_mean, norm.running_var, norm.weight, norm.bias
        ).relu()
    return joined


@torch.no_grad()
def test_the_local_decoder_joins_the_stages_from_the_coarsest_on() -> None:
    decoder = shaken(_ProgressiveLocalityDecoder((3, 4, 5, 6), 8)).eval()
    features = [
        torch.randn(2, channels, 2 * 2**level, 3 * 2**level)
        for channels, level in zip((3, 4, 5, 6), (3, 2, 1, 0), strict=True)
    ]
    torch.testing.assert_close(decoder(features), explicit_decoder(decoder, features))


@pytest.mark.parametrize("in_channels", [1, 3, 5])
def test_ssformer_starts_from_an_encoder_of_smp(tmp_path: Path, in_channels: int) -> None:
    from segmentation_models_pytorch import Unet

    theirs = Unet("tu-pvt_v2_b0", encoder_weights=None).encoder
    weights = {f"encoder.{name}": tensor for name, tensor in theirs.state_dict().items()}
    save_file(weights, tmp_path / "start.safetensors")
    network = create_model("ssformer_s", in_channels=in_channels, classes=3, **SMALL_SSFORMER)
    report = start_from(network, tmp_path / "start.safetensors")
    assert report.taken == len(weights)
    if in_channels == 3:
        ours = network.network.encoder.state_dict()
        assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.state_dict().items())


@torch.no_grad()
@pytest.mark.parametrize("name", ["ssformer_s", "ssformer_l"])
def test_ssformer_answers_at_the_size_of_the_image(name: str) -> None:
    """And not at the next multiple of 4, as 236 for 234."""
    network = create_model(name, in_channels=3, classes=3, **SMALL_SSFORMER).eval()
    assert isinstance(network.network, SSFormer)
    assert network(torch.rand(1, 3, 58, 35)).shape == (1, 3, 58, 35)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("fct", {"width": 1}, "width"),
        ("fct", {"heads": 0}, "heads"),
        ("fct", {"dropout": 1.0}, "dropout"),
        ("fct", {"focus_dropout": -0.1}, "focus_dropout"),
        ("ssformer_s", {"encoder": "tu-pvt"}, "encoder"),
        ("ssformer_s", {"encoder": "mit_b2"}, "non-commercial"),
        ("ssformer_s", {**SMALL_SSFORMER, "width": 0}, "width"),
        ("ssformer_l", {**SMALL_SSFORMER, "dropout": 1.5}, "dropout"),
    ],
)
def test_an_option_out_of_range_is_refused_in_one_sentence(
    name: str, options: dict[str, object], said: str
) -> None:
    with pytest.raises(InputError) as error:
        create_model(name, in_channels=3, classes=3, **options)
    assert_one_sentence(error, said)
