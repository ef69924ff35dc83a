"""ResUNet++: its size and the equations of its parts."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from gitract.errors import InputError
from gitract.models import create_model
from gitract.models.blocks import SqueezeExcite
from gitract.models.resunet_plus_plus import _Attention, _PyramidPooling
from sentences import assert_one_sentence


@pytest.mark.parametrize(
    ("in_channels", "classes", "count"),
    [(3, 1, 4_062_993), (1, 3, 4_062_707), (3, 3, 4_063_027), (5, 3, 4_063_347)],
)
def test_it_has_the_parameters_of_the_authors_network(
    in_channels: int, classes: int, count: int
) -> None:
    with torch.device("meta"):
        network = create_model("resunet_plus_plus", in_channels=in_channels, classes=classes)
    assert sum(one.numel() for one in network.parameters()) == count
    statistics = [
        one
        for name, one in network.named_buffers()
        if name.endswith(("running_mean", "running_var"))
    ]
    assert sum(one.numel() for one in statistics) == 7_392


def test_channels_are_weighted_by_what_their_means_say() -> None:
    excite = SqueezeExcite(16, 8)
    maps = torch.randn(2, 16, 5, 6)
    squeeze, widen = (excite.weights[index].weight[:, :, 0, 0] for index in (1, 3))
    weights = torch.sigmoid(torch.relu(maps.mean((2, 3)) @ squeeze.T) @ widen.T)
    torch.testing.assert_close(excite(maps), maps * weights[:, :, None, None])


@pytest.mark.parametrize("seed", range(20))
def test_no_excitation_begins_silent(seed: int) -> None:
    torch.manual_seed(seed)
    excite = SqueezeExcite(16, 8)
    excite(torch.rand(2, 16, 5, 6)).sum().backward()
    assert all(one.grad is not None and one.grad.abs().max() > 0 for one in excite.parameters())


def test_the_pyramid_sums_its_reaches() -> None:
    pyramid = _PyramidPooling(2, 3).eval()
    maps = torch.randn(1, 2, 40, 41)
    total = torch.zeros(1, 3, 40, 41)
    for rate, reach in zip((1, 6, 12, 18), pyramid.reaches, strict=True):
        convolution, norm = reach
        nn.init.normal_(norm.weight)
        shown = functional.conv2d(
            maps, convolution.weight, convolution.bias, padding=rate, dilation=rate
        )
        total = total + norm(shown)
    torch.testing.assert_close(pyramid(maps), pyramid.mix(total))


@pytest.mark.parametrize("weight", [0.0, 1.0, -2.0])
def test_the_attention_multiplies_by_any_number(weight: float) -> None:
    attention = _Attention(skip=2, coarse=3).eval()
    nn.init.zeros_(attention.weights[2].weight)
    nn.init.constant_(attention.weights[2].bias, weight)
    skip, coarse = torch.randn(1, 2, 8, 10), torch.randn(1, 3, 4, 5)
    torch.testing.assert_close(attention(skip, coarse), weight * coarse)


def test_the_attention_is_the_papers_equation() -> None:
    attention = _Attention(skip=2, coarse=3).eval()
    skip, coarse = torch.randn(1, 2, 8, 10), torch.randn(1, 3, 4, 5)

    def activated(maps: torch.Tensor, layers: nn.Sequential) -> torch.Tensor:
        norm, convolution = layers[0], layers[2]
        return functional.conv2d(
            torch.relu(norm(maps)), convolution.weight, convolution.bias, padding=1
        )

    both = functional.max_pool2d(activated(skip, attention.skip[0]), 2)
    both = both + activated(coarse, attention.coarse)
    torch.testing.assert_close(attention(skip, coarse), coarse * activated(both, attention.weights))


@pytest.mark.parametrize("widths", [[4, 8], [4, 8, 8, 8, 0], []])
def test_options_out_of_range_are_one_sentence(widths: list[int]) -> None:
    with pytest.raises(InputError) as error:
        create_model("resunet_plus_plus", in_channels=3, classes=2, widths=widths)
    assert_one_sentence(error, "widths is")
