"""BiSeNet: its size, its gates, its heads, and an encoder to start from."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gitract.errors import InputError
from gitract.models import create_model
from gitract.models.bisenet import _ChannelGate, _Fusion, _Refinement
from gitract.models.outputs import Outputs
from gitract.models.weights import start_from
from sentences import assert_one_sentence

SMALL = {"encoder": "tu-test_resnet", "width": 4}


@pytest.mark.parametrize(
    ("classes", "training", "evaluation"),
    [(3, 13_419_529, 13_271_427), (19, 13_425_721, 13_275_539)],
)
def test_it_has_the_parameters_of_the_common_form(
    classes: int, training: int, evaluation: int
) -> None:
    with torch.device("meta"):
        network = create_model("bisenet", in_channels=3, classes=classes)
        network.eval()(torch.zeros(1, 3, 64, 64)).sum().backward()
    parameters = list(network.parameters())
    assert sum(one.numel() for one in parameters) == training
    assert sum(one.numel() for one in parameters if one.grad is not None) == evaluation


def test_two_auxiliary_heads_answer_in_training_only() -> None:
    network = create_model("bisenet", in_channels=3, classes=2, **SMALL)
    images = torch.rand(2, 3, 50, 70)
    answer = network(images)
    assert isinstance(answer, Outputs)
    assert [maps.shape for maps in answer.deep] == [(2, 2, 50, 70)] * 2
    assert isinstance(network.eval()(images), torch.Tensor)


def gated(gate: _ChannelGate, value: float) -> None:
    """Let a gate say the same of every channel."""
    norm = gate[2]
    nn.init.zeros_(norm.weight)
    nn.init.constant_(norm.bias, torch.logit(torch.tensor(value)).clamp(-1e4, 1e4).item())


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_the_gates_weigh_what_the_paper_says(value: float) -> None:
    spatial, context = torch.randn(2, 1, 4, 6, 7)
    refinement, fusion = _Refinement(4, 5).eval(), _Fusion(8, 6).eval()
    gated(refinement.gate, value)
    gated(fusion.gate, value)
    maps = refinement.convolution(context)
    torch.testing.assert_close(refinement(context), value * maps)
    maps = fusion.convolution(torch.cat([spatial, context], dim=1))
    torch.testing.assert_close(fusion(spatial, context), (1 + value) * maps)


def test_a_gate_is_told_the_mean_of_each_channel() -> None:
    gate = _ChannelGate(3).eval()
    maps = torch.randn(2, 3, 4, 5)
    weight = gate[1].weight[:, :, 0, 0]
    expected = torch.sigmoid(maps.mean((2, 3)) @ weight.T / (1 + 1e-5) ** 0.5)
    torch.testing.assert_close(gate(maps)[:, :, 0, 0], expected)


def test_detail_and_context_both_reach_the_answer() -> None:
    network = create_model("bisenet", in_channels=3, classes=2, **SMALL).eval()
    images = torch.rand(1, 3, 64, 64)
    for path in (network.network.spatial, network.network.context):
        before = network(images)
        for one in path.parameters():
            nn.init.zeros_(one)
        assert not torch.allclose(network(images), before)


def test_the_whole_image_reaches_every_pixel() -> None:
    network = create_model("bisenet", in_channels=3, classes=1, **SMALL)
    nn.init.constant_(network.network.context.whole[1][1].bias, 1.0)  # not silenced by its ReLU
    images = torch.rand(1, 3, 256, 32, requires_grad=True)
    network.eval()(images)[0, 0, 0, 0].backward()
    assert images.grad is not None
    assert images.grad[..., -32:, :].abs().max() > 0


@pytest.mark.parametrize("channels", [3, 5])
def test_weights_of_an_encoder_are_a_start(tmp_path: Path, channels: int) -> None:
    import segmentation_models_pytorch as smp

    encoder = smp.encoders.get_encoder("resnet18", weights=None)
    path = tmp_path / "resnet18.safetensors"
    save_file({f"encoder.{name}": one for name, one in encoder.state_dict().items()}, path)
    network = create_model("bisenet", in_channels=channels, classes=3, width=4)
    report = start_from(network, path)
    assert report.taken == sum(one.ndim > 0 for one in encoder.state_dict().values())
    found = network.network.encoder.state_dict()
    first = found.pop("conv1.weight")
    torch.testing.assert_close(first.sum(1), encoder.conv1.weight.sum(1))
    assert all(torch.equal(one, encoder.state_dict()[name]) for name, one in found.items())


def test_options_out_of_range_are_one_sentence() -> None:
    with pytest.raises(InputError, match="'resnet17': did you mean 'resnet18'"):
        create_model("bisenet", in_channels=3, classes=2, encoder="resnet17")
    with pytest.raises(InputError) as error:
        create_model("bisenet", in_channels=3, classes=2, width=0)
    assert_one_sentence(error, "width is 0")
