"""More organs, or fewer: what a network knew of the others it knows still.

`test_zoo.py` tries it on every network.
"""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from gitract.errors import InputError
from gitract.model_config import ModelConfig, NetworkConfig, Preparation
from gitract.models import load_network
from gitract.models.ensemble import ensemble_of
from gitract.models.growing import new_parts, with_organs
from gitract.models.registry import register
from gitract.models.weights import build_network
from gitract.organs import KNOWN_ORGANS, ORGANS, Organ
from sentences import assert_one_sentence

DUODENUM, ESOPHAGUS = KNOWN_ORGANS[3:5]
TARGET = Organ(18, "tumour_bed", "#123456")


@register("test_most_likely", multiple=1)
def _most_likely(in_channels: int, classes: int) -> nn.Module:
    """The organs of a voxel exclude each other: one more takes from the others."""
    return nn.Sequential(nn.Conv2d(in_channels, classes, 1), nn.Softmax(dim=1))


@register("test_squared", multiple=1)
def _squared(in_channels: int, classes: int) -> nn.Module:
    """As many features as pairs of organs."""
    return nn.Sequential(
        nn.Conv2d(in_channels, classes**2, 1), nn.ReLU(), nn.Conv2d(classes**2, classes, 1)
    )


@register("test_fused", multiple=1)
def _fused(in_channels: int, classes: int) -> nn.Module:
    """Two heads, and a layer that takes the answers of both for each organ."""

    class Fused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = nn.ModuleList(nn.Conv2d(in_channels, classes, 1) for _ in range(2))
            self.mix = nn.Conv2d(2 * classes, classes, 1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.mix(torch.cat([head(images) for head in self.heads], dim=1))

    return Fused()


def made(name: str, organs: tuple[Organ, ...] = ORGANS) -> tuple[nn.Module, ModelConfig]:
    torch.manual_seed(0)
    config = ModelConfig(
        id="mine", title="Mine", network=NetworkConfig(name=name), preparation=Preparation(),
        organs=organs,
    )  # fmt: skip
    return build_network(config).eval(), config


@pytest.fixture(scope="session")
def learnt(trained: SimpleNamespace) -> tuple[nn.Module, ModelConfig]:
    return load_network(trained.result.model)


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(2, 3, 40, 48, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def test_a_network_that_has_learnt_answers_as_before(
    learnt: tuple[nn.Module, ModelConfig], image: torch.Tensor
) -> None:
    network, config = learnt
    before = copy.deepcopy(network.state_dict())
    larger, grown = with_organs(network, config, (*ORGANS, DUODENUM, TARGET))
    assert [organ.id for organ in grown.organs] == [1, 2, 3, 4, 18]
    assert config.organs == ORGANS
    torch.testing.assert_close(larger(image)[:, :3], network(image), atol=1e-5, rtol=1e-5)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])
    back, shrunk = with_organs(larger, grown, ORGANS)
    assert shrunk == config
    assert back.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in back.state_dict().items())


@torch.inference_mode()
@pytest.mark.parametrize("kept", [(0,), (1,), (2,), (0, 2), (1, 2)])
def test_those_that_are_left_answer_as_before(
    learnt: tuple[nn.Module, ModelConfig], image: torch.Tensor, kept: tuple[int, ...]
) -> None:
    network, config = learnt
    organs = tuple(ORGANS[place] for place in kept)
    smaller, changed = with_organs(network, config, organs)
    assert changed.organs == organs
    torch.testing.assert_close(smaller(image), network(image)[:, kept], atol=1e-5, rtol=1e-5)


def test_other_names_and_colours_change_no_weights(
    learnt: tuple[nn.Module, ModelConfig],
) -> None:
    renamed = (*ORGANS[:2], Organ(3, "stomach_gtv", "#ffffff"))
    network, changed = with_organs(*learnt, renamed)
    assert network is learnt[0]
    assert changed.organs == renamed


@torch.inference_mode()
def test_what_is_new_is_the_same_each_time_and_disturbs_nobody_elses_numbers(
    learnt: tuple[nn.Module, ModelConfig],
) -> None:
    torch.manual_seed(5)
    first, _ = with_organs(*learnt, (*ORGANS, DUODENUM))
    after = torch.rand(3)
    torch.manual_seed(6)
    second, _ = with_organs(*learnt, (*ORGANS, DUODENUM))
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), after)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


@torch.inference_mode()
def test_heads_that_are_mixed_take_nothing_from_a_new_organ(image: torch.Tensor) -> None:
    network, config = made("test_fused")
    larger, _ = with_organs(network, config, (*ORGANS, DUODENUM, ESOPHAGUS))
    old = network(image)
    torch.testing.assert_close(larger(image)[:, :3], old, atol=1e-5, rtol=1e-5)
    for head in larger.get_submodule("network").heads:
        head.bias[3:] += 100.0  # whatever the new outputs say
    answer = larger(image)
    torch.testing.assert_close(answer[:, :3], old, atol=1e-5, rtol=1e-5)
    assert (answer[:, 3:] - answer[:, :1]).abs().min() > 1.0


@torch.inference_mode()
def test_an_ensemble_is_given_organs_in_each_member(
    trained: SimpleNamespace, image: torch.Tensor
) -> None:
    network, config = ensemble_of([trained.result.model] * 2)
    larger, _ = with_organs(network, config, (*ORGANS, DUODENUM))
    torch.testing.assert_close(larger(image)[:, :3], network(image), atol=1e-4, rtol=1e-4)
    member, _ = load_network(trained.result.model)
    alone, _ = with_organs(member, load_network(trained.result.model)[1], (*ORGANS, DUODENUM))
    assert len(new_parts(larger, network, 4, 3)) == 2 * len(new_parts(alone, member, 4, 3))


def test_new_parts_are_where_the_networks_differ(learnt: tuple[nn.Module, ModelConfig]) -> None:
    network, config = learnt
    larger, _ = with_organs(network, config, (*ORGANS, DUODENUM))
    old = dict(network.named_parameters())
    names = {id(parameter): name for name, parameter in larger.named_parameters()}
    parts = new_parts(larger, network, 4, 3)
    assert parts
    for parameter, new in parts:
        whole = new.expand_as(parameter)
        assert torch.equal(parameter[~whole], old[names[id(parameter)]].flatten())
        assert whole.sum() * 4 == whole.numel()
    listed = {id(parameter) for parameter, _ in parts}
    for name, parameter in larger.named_parameters():
        assert id(parameter) in listed or torch.equal(parameter, old[name])


@pytest.mark.parametrize("name", ["test_most_likely", "test_squared"])
@pytest.mark.parametrize("organs", [(*ORGANS, DUODENUM), ORGANS[:2]], ids=["more", "fewer"])
def test_a_network_that_cannot_be_changed_is_one_sentence(
    name: str, organs: tuple[Organ, ...]
) -> None:
    with pytest.raises(InputError) as error:
        with_organs(*made(name), organs)
    assert_one_sentence(error, name, "mine", "another architecture")
