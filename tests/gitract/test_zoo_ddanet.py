"""DDANet: its size, its gates, and the slice that it draws in training."""

import pytest
import torch
from torch import nn

from gitract.errors import InputError
from gitract.models import create_model
from gitract.models.ddanet import DDANet, _Residual
from sentences import assert_one_sentence

WIDTHS = (16, 16, 16, 16)  # fewer might all be silenced by a ReLU
STAGES = range(len(WIDTHS))


@pytest.fixture
def network() -> DDANet:
    torch.manual_seed(0)
    network = DDANet(3, 2, WIDTHS).eval()
    nn.init.normal_(network.head.bias)
    return network


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 32, 48)


def gated(network: DDANet, stage: int, logit: float) -> None:
    """Let a gate say the same everywhere."""
    convolution = network.gates[stage][0]
    nn.init.zeros_(convolution.weight)
    nn.init.constant_(convolution.bias, logit)


def outlined(network: DDANet, images: torch.Tensor, stage: int) -> torch.Tensor:
    """What the outlining decoder hands on after a stage."""
    seen: list[torch.Tensor] = []
    following = [*network.outlining[1:], network.head][stage]
    hook = following.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    network(images)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize(
    ("in_channels", "classes", "count"),
    [(3, 1, 6_835_638), (1, 3, 6_835_032), (3, 3, 6_835_672), (5, 3, 6_836_312)],
)
def test_it_has_the_parameters_of_the_authors_network(
    in_channels: int, classes: int, count: int
) -> None:
    with torch.device("meta"):
        network = create_model("ddanet", in_channels=in_channels, classes=classes)
    assert sum(one.numel() for one in network.parameters()) == count


@torch.inference_mode()
@pytest.mark.parametrize("stage", STAGES)
def test_a_closed_gate_silences_its_stage(
    network: DDANet, images: torch.Tensor, stage: int
) -> None:
    assert outlined(network, images, stage).abs().max() > 0
    gated(network, stage, -1e4)
    assert outlined(network, images, stage).abs().max() == 0


@torch.inference_mode()
@pytest.mark.parametrize("stage", STAGES)
def test_a_half_open_gate_lets_half_through(
    network: DDANet, images: torch.Tensor, stage: int
) -> None:
    gated(network, stage, 1e4)
    whole = outlined(network, images, stage)
    assert whole.abs().max() > 0
    gated(network, stage, 0.0)
    torch.testing.assert_close(outlined(network, images, stage), whole / 2)


@torch.inference_mode()
def test_with_the_last_gate_closed_the_image_says_nothing(
    network: DDANet, images: torch.Tensor
) -> None:
    gated(network, -1, -1e4)
    assert torch.equal(network(images), network.head.bias.view(1, 2, 1, 1).expand(2, 2, 32, 48))


@torch.inference_mode()
def test_what_is_drawn_guides_the_outlines_and_not_the_reverse(
    network: DDANet, images: torch.Tensor
) -> None:
    network.train()
    first = network(images)
    nn.init.normal_(network.outlining[0].enlarge.weight)
    second = network(images)
    assert torch.equal(first.reconstruction, second.reconstruction)
    assert not torch.allclose(first.logits, second.logits)
    nn.init.normal_(network.drawing[0].enlarge.weight)
    third = network(images)
    assert not torch.allclose(second.reconstruction, third.reconstruction)
    assert not torch.allclose(second.logits, third.logits)


def test_a_slice_is_drawn_in_training_only(network: DDANet, images: torch.Tensor) -> None:
    calls: list[object] = []
    network.drawing_head.register_forward_hook(lambda *_: calls.append(None))
    assert isinstance(network(images), torch.Tensor)
    assert not calls
    assert network.train()(images).reconstruction.shape == (2, 1, 32, 48)
    assert calls


def test_only_the_shortcut_of_a_block_is_weighted() -> None:
    block = _Residual(3, 4)
    maps = torch.randn(2, 3, 5, 6)
    nn.init.zeros_(block.shortcut[2].weights[3].weight)  # weighs each channel by a half
    expected = torch.relu(block.branch(maps) + block.shortcut[:2](maps) / 2)
    torch.testing.assert_close(block(maps), expected)


@pytest.mark.parametrize("widths", [[], [8, 1]])
def test_options_out_of_range_are_one_sentence(widths: list[int]) -> None:
    with pytest.raises(InputError) as error:
        create_model("ddanet", in_channels=3, classes=2, widths=widths)
    assert_one_sentence(error, "widths is")
