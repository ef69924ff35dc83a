"""V-Net: its size, its stages, and how it differs from MONAI's."""

import pytest
import torch
from torch import nn

from gitract.errors import InputError
from gitract.models import create_model
from gitract.models.vnet import _Stage
from sentences import assert_one_sentence


def parameters(network: nn.Module) -> int:
    return sum(one.numel() for one in network.parameters())


def on_paper(in_channels: int, classes: int, dimensions: int) -> int:
    """The figure of the paper as a sum, with batch normalisation for each convolution."""

    def convolutions(inputs: int, outputs: int, kernel: int, count: int) -> int:
        normalisation, activation = 2 * outputs, outputs
        first = inputs * outputs * kernel**dimensions + normalisation + activation
        return first if count == 1 else first + convolutions(outputs, outputs, kernel, count - 1)

    total = convolutions(in_channels, 16, 5, 1) + (32 * classes + classes)
    if in_channels > 1:
        total += 16 * in_channels + 16  # the projection that is added
    for width, count in ((32, 2), (64, 3), (128, 3), (256, 3)):  # down
        total += convolutions(width // 2, width, 2, 1) + convolutions(width, width, 5, count)
    for inputs, width, count in ((256, 256, 3), (256, 128, 3), (128, 64, 2), (64, 32, 1)):  # up
        total += convolutions(inputs, width // 2, 2, 1) + convolutions(width, width, 5, count)
    return total


@pytest.mark.parametrize(
    ("in_channels", "classes", "dimensions", "count"),
    [
        (1, 2, 3, 65_178_770),
        (1, 3, 3, 65_178_803),
        (3, 3, 3, 65_182_867),
        (1, 3, 2, 13_278_835),
        (3, 3, 2, 13_279_699),
        (5, 3, 2, 13_280_531),
    ],
)
def test_it_has_the_parameters_of_the_papers_figure(
    in_channels: int, classes: int, dimensions: int, count: int
) -> None:
    with torch.device("meta"):
        network = create_model(
            "vnet", in_channels=in_channels, classes=classes, dimensions=dimensions
        )
    assert parameters(network) == count == on_paper(in_channels, classes, dimensions)


def test_what_it_has_more_than_monais_is_what_the_docstring_says() -> None:
    monai = pytest.importorskip("monai.networks.nets")
    with torch.device("meta"):
        theirs = parameters(monai.VNet(spatial_dims=3, in_channels=1, out_channels=2))
        ours = create_model("vnet", in_channels=1, classes=2)
    assert theirs == 45_597_898
    more_convolutions = sum(125 * w**2 + 2 * w for w in (32, 64, 256, 256, 128, 64))
    slopes = sum(parameters(m) for m in ours.modules() if isinstance(m, nn.PReLU))  # theirs: ELU
    biases = sum(m.out_channels for m in ours.modules() if isinstance(m, nn.ConvTranspose3d))
    our_head, their_head = 32 * 2 + 2, (125 * 32 * 2 + 2 * 2) + (2 * 2 + 2)
    differ = more_convolutions + slopes + our_head - biases - their_head
    assert parameters(ours) - theirs == differ


def test_each_stage_has_the_convolutions_of_the_figure() -> None:
    network = create_model("vnet", in_channels=1, classes=1, dimensions=2, width=1)
    counts = [
        sum(isinstance(m, nn.Conv2d) and m.kernel_size == (5, 5) for m in stage.modules())
        for stage in network.modules()
        if isinstance(stage, _Stage)
    ]
    assert counts == [1, 2, 3, 3, 3, 3, 3, 2, 1]


@pytest.mark.parametrize("convolutions", [1, 2, 3])
def test_a_stage_adds_its_input_before_the_last_activation(convolutions: int) -> None:
    stage = _Stage(3, 3, convolutions, dimensions=3).eval()
    images = torch.randn(2, 3, 6, 7, 8)
    maps = images
    layers = list(stage.branch)
    for index in range(convolutions):
        convolution, norm = layers[3 * index : 3 * index + 2]
        maps = norm(nn.functional.conv3d(maps, convolution.weight, padding=2))
        maps = maps + images if index == convolutions - 1 else maps
        maps = torch.where(maps > 0, maps, 0.25 * maps)  # PReLU as it begins
    torch.testing.assert_close(stage(images), maps)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_single_slice_is_repeated_and_several_are_projected(dimensions: int) -> None:
    image = torch.rand(1, 1, *[4] * dimensions)
    single = _Stage(1, 8, 1, dimensions)
    several = _Stage(3, 8, 1, dimensions)
    for stage in (single, several):
        nn.init.zeros_(stage.branch[0].weight)
    torch.testing.assert_close(single(image), image.expand(1, 8, *image.shape[2:]))
    assert several.shortcut.weight.shape == (8, 3, *[1] * dimensions)


@pytest.mark.parametrize(
    ("options", "part"), [({"dimensions": 4}, "dimensions is 4"), ({"width": 0}, "width is 0")]
)
def test_options_out_of_range_are_one_sentence(options: dict[str, int], part: str) -> None:
    with pytest.raises(InputError) as error:
        create_model("vnet", in_channels=1, classes=2, **options)
    assert_one_sentence(error, part)
