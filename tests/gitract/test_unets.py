"""The U-Nets written here: their sizes, equations and gates, against short references."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from gitract.errors import InputError
from gitract.models import create_model
from gitract.models.attention_unet import AttentionGate
from gitract.models.outputs import Outputs
from gitract.models.unet_3plus import gated_logits
from sentences import assert_one_sentence

PLAIN = {"deep_supervision": False}
UNGATED = {"gate": False}


def build(name: str, in_channels: int = 3, classes: int = 3, **options: Any) -> nn.Module:
    """A network without the padding around it, with statistics as after some training."""
    torch.manual_seed(0)
    wrapped = create_model(name, in_channels=in_channels, classes=classes, **options)
    network = wrapped.get_submodule("network")
    for part in network.modules():
        if isinstance(part, (nn.BatchNorm2d, nn.BatchNorm3d)):
            nn.init.uniform_(part.running_mean, -0.2, 0.2)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
    return network


def parameters(name: str, in_channels: int, classes: int, **options: Any) -> int:
    with torch.device("meta"):
        network = create_model(name, in_channels=in_channels, classes=classes, **options)
    return sum(one.numel() for one in network.parameters())


@pytest.mark.parametrize(
    ("name", "options", "channels", "expected"),
    [
        ("unet", {}, (1, 3), 31_036_611),
        ("unet", {}, (3, 3), 31_037_763),
        ("unet", {}, (5, 3), 31_038_915),
        ("attention_unet", PLAIN, (3, 3), 33_450_694),
        ("attention_unet", {"dimensions": 3}, (1, 4), 6_214_151),
        ("unet_plus_plus", PLAIN, (1, 1), 9_041_601),
        ("unet_plus_plus", {}, (1, 1), 9_041_700),
        ("unet_plus_plus", PLAIN, (3, 3), 9_042_243),
        ("unet_plus_plus", {}, (3, 3), 9_042_540),
        ("unet_3plus", PLAIN | UNGATED, (1, 3), 26_976_387),
        ("unet_3plus", PLAIN | UNGATED, (3, 3), 26_977_539),
        ("unet_3plus", UNGATED, (3, 3), 27_031_119),
    ],
)
def test_a_network_has_the_size_of_the_one_in_its_paper(
    name: str, options: dict[str, Any], channels: tuple[int, int], expected: int
) -> None:
    assert parameters(name, *channels, **options) == expected


def test_the_gate_of_unet_3plus_has_1024_weights_and_a_bias_for_each_organ() -> None:
    for organs in (1, 3, 5):
        ungated = parameters("unet_3plus", 3, organs, gate=False)
        assert parameters("unet_3plus", 3, organs) - ungated == 1025 * organs


def test_fused_supervision_adds_a_head_for_each_level_and_what_mixes_them() -> None:
    added = 3 * (512 + 256 + 128) + 3 * 3 + 4 * 3 * 3 + 3
    assert parameters("attention_unet", 3, 3) == 33_450_694 + added


@pytest.mark.parametrize(
    ("name", "options", "part"),
    [
        ("unet", {"width": 0}, "width is 0"),
        ("unet", {"depth": 0}, "depth is 0"),
        ("attention_unet", {"dimensions": 4}, "2 or 3"),
        ("attention_unet", {"widths": [4, 8, 16]}, "5 numbers"),
        ("attention_unet", {"widths": [4, 8, 0, 8, 8]}, "5 numbers"),
        ("unet_plus_plus", {"width": 0}, "width is 0"),
        ("unet_plus_plus", {"depth": 0}, "depth is 0"),
        ("unet_plus_plus", {"width": 4, "prune": 5}, "0 to 4"),
        ("unet_plus_plus", {"width": 4, "prune": -1}, "0 to 4"),
        ("unet_plus_plus", {"width": 4, "prune": 2, **PLAIN}, "deep_supervision"),
        ("unet_plus_plus", {"encoder": "mobilenet_v2", "prune": 2}, "no other option"),
        ("unet_3plus", {"width": -1}, "width is -1"),
    ],
)
def test_wrong_options_are_told_in_a_sentence(
    name: str, options: dict[str, Any], part: str
) -> None:
    with pytest.raises(InputError) as error:
        create_model(name, in_channels=3, classes=3, **options)
    assert_one_sentence(error, part)


@pytest.mark.parametrize(
    ("name", "options", "multiple", "dimensions"),
    [
        ("unet", {"width": 2}, 16, 2),
        ("unet", {"width": 2, "depth": 2}, 4, 2),
        ("attention_unet", {"widths": [2] * 5}, 16, 2),
        ("attention_unet", {"widths": [2] * 5, "dimensions": 3}, 16, 3),
        ("unet_plus_plus", {"width": 2, "depth": 3}, 8, 2),
        ("unet_plus_plus", {"encoder": "tu-test_resnet"}, 32, 2),
        ("unet_3plus", {"width": 2}, 16, 2),
    ],
)
@torch.inference_mode()
def test_a_network_takes_sizes_of_its_multiple(
    name: str, options: dict[str, Any], multiple: int, dimensions: int
) -> None:
    wrapped: Any = create_model(name, in_channels=1, classes=2, **options).eval()
    assert (wrapped.multiple, wrapped.dimensions) == (multiple, dimensions)
    sizes = (multiple, 2 * multiple, multiple)[:dimensions]
    assert wrapped.network(torch.rand(1, 1, *sizes)).shape == (1, 2, *sizes)


# --- U-Net --------------------------------------------------------------------------------------


@torch.inference_mode()
def test_unet_joins_each_level_with_the_one_below() -> None:
    network: Any = build("unet", width=2, depth=3).eval()
    images = torch.rand(2, 3, 24, 16)
    a = network.encoder[0](images)
    b = network.encoder[1](functional.max_pool2d(a, 2))
    c = network.encoder[2](functional.max_pool2d(b, 2))
    d = network.encoder[3](functional.max_pool2d(c, 2))
    c = network.decoder[2](torch.cat([c, network.up[2](d)], 1))
    b = network.decoder[1](torch.cat([b, network.up[1](c)], 1))
    a = network.decoder[0](torch.cat([a, network.up[0](b)], 1))
    torch.testing.assert_close(network(images), network.head(a))


# --- Attention U-Net ----------------------------------------------------------------------------


@torch.inference_mode()
@pytest.mark.parametrize("dimensions", [2, 3])
def test_an_attention_gate_is_the_equation_of_the_paper(dimensions: int) -> None:
    network = build("attention_unet", dimensions=dimensions, widths=[2, 3, 5, 7, 9]).eval()
    gate = next(part for part in network.modules() if isinstance(part, AttentionGate))
    sizes = (8, 6, 4)[:dimensions]
    x = torch.randn(2, 3, *sizes)
    g = torch.randn(2, 5, *(size // 2 for size in sizes))
    convolve = functional.conv2d if dimensions == 2 else functional.conv3d
    w, mode = dict(gate.named_parameters()), "bilinear" if dimensions == 2 else "trilinear"
    joined = convolve(x, w["theta.weight"], stride=2) + convolve(g, w["phi.weight"], w["phi.bias"])
    q = convolve(joined.relu(), w["psi.weight"], w["psi.bias"])
    alpha = functional.interpolate(q.sigmoid(), scale_factor=2, mode=mode)
    expected = gate.result[1](convolve(alpha * x, w["result.0.weight"], w["result.0.bias"]))
    torch.testing.assert_close(gate(x, g), expected)
    assert 0.8 < alpha.mean() < 1, "it begins almost open"


@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_three_coarser_skips_are_gated_by_the_level_below_and_the_finest_is_not(
    dimensions: int,
) -> None:
    network = build("attention_unet", dimensions=dimensions, widths=[2, 3, 5, 7, 9])
    met: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for part in network.modules():
        if isinstance(part, AttentionGate):
            part.register_forward_pre_hook(
                lambda _, given: met.append((given[0].shape[1:3], given[1].shape[1:3]))
            )
    network(torch.rand(1, 3, *(32, 16, 16)[:dimensions]))
    assert met == [((7, 4), (9, 2)), ((5, 8), (7, 4)), ((3, 16), (5, 8))]


def test_attention_unet_answers_from_all_levels_only_with_deep_supervision() -> None:
    for deep in (False, True):
        network: Any = build("attention_unet", widths=[2, 3, 5, 7, 9], deep_supervision=deep)
        heads = [part for part in network.head.modules() if isinstance(part, nn.Conv2d)]
        assert [part.in_channels for part in heads] == ([2, 3, 5, 7, 12] if deep else [2])


# --- UNet++ -------------------------------------------------------------------------------------


def dense_nodes(network: Any, images: torch.Tensor) -> Callable[[int, int], torch.Tensor]:
    """Node (i, j) of the paper."""

    def node(i: int, j: int) -> torch.Tensor:
        if j == 0:
            given = functional.max_pool2d(node(i - 1, 0), 2) if i else images
        else:
            up = network.up[f"{i}_{j}"](node(i + 1, j - 1))
            given = torch.cat([*(node(i, k) for k in range(j)), up], dim=1)
        result: torch.Tensor = network.nodes[f"{i}_{j}"](given)
        return result

    return node


def test_unet_plus_plus_is_the_recursion_of_the_paper_and_the_mean_of_its_heads() -> None:
    network: Any = build("unet_plus_plus", width=2)
    images = torch.rand(1, 3, 32, 16)
    node = dense_nodes(network, images)
    heads = [network.heads[f"0_{j}"](node(0, j)) for j in (4, 3, 2, 1)]
    answer = network(images)
    assert isinstance(answer, Outputs)
    torch.testing.assert_close(list(answer.deep), heads)
    torch.testing.assert_close(answer.logits, sum(heads) / 4)
    torch.testing.assert_close(network.eval()(images), answer.logits)


def test_without_deep_supervision_the_last_node_answers() -> None:
    network: Any = build("unet_plus_plus", width=2, deep_supervision=False)
    images = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(
        network(images), network.heads["0_4"](dense_nodes(network, images)(0, 4))
    )


@torch.inference_mode()
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_pruned_at_a_depth_it_is_the_network_of_that_depth(depth: int) -> None:
    whole: Any = build("unet_plus_plus", width=4)
    pruned: Any = build("unet_plus_plus", width=4, prune=depth).eval()
    pruned.load_state_dict(whole.state_dict())
    small: Any = build("unet_plus_plus", width=4, depth=depth, deep_supervision=False).eval()
    small.load_state_dict({name: whole.state_dict()[name] for name in small.state_dict()})
    images = torch.rand(2, 3, 32, 48)
    expected = whole(images).deep[4 - depth]
    for name, one in pruned.named_parameters():
        if name not in small.state_dict():
            one.fill_(torch.nan)  # would show if it were computed with
    assert torch.equal(small(images), expected)
    assert torch.equal(pruned(images), expected)


def test_nothing_deeper_is_computed_when_it_is_pruned() -> None:
    network: Any = build("unet_plus_plus", width=2, prune=2)
    ran: set[str] = set()
    for group in (network.nodes, network.heads):
        for name, part in group.items():
            part.register_forward_hook(lambda *_, name=name: ran.add(name))
    images = torch.rand(1, 3, 16, 16)
    network.eval()(images)
    assert ran == {"0_0", "1_0", "2_0", "0_1", "1_1", "0_2"}
    network.train()(images)
    assert ran == set(network.nodes), "it is trained whole"


@torch.inference_mode()
def test_activations_of_unet_plus_plus_begin_neither_small_nor_large() -> None:
    network: Any = build("unet_plus_plus", width=16)
    sizes: list[float] = []
    for part in network.nodes.values():
        part.register_forward_hook(lambda *args: sizes.append(args[2].square().mean().item()))
    images = torch.rand(2, 3, 64, 64)
    network(images)
    mean_square = images.square().mean().item()
    assert all(0.1 < size / mean_square < 4 for size in sizes)


# --- UNet 3+ ------------------------------------------------------------------------------------


@torch.inference_mode()
def test_every_node_of_unet_3plus_sees_all_scales() -> None:
    network: Any = build("unet_3plus", width=2, **PLAIN, **UNGATED).eval()
    images = torch.rand(2, 3, 32, 48)
    maps = [network.encoder[0](images)]
    for block in network.encoder[1:]:
        maps.append(block(functional.max_pool2d(maps[-1], 2)))
    for level in (3, 2, 1, 0):
        side = maps[level].shape[2:]
        seen = [functional.max_pool2d(maps[k], 2 ** (level - k)) for k in range(level)]
        seen += [maps[level]]
        seen += [
            functional.interpolate(maps[k], side, mode="bilinear") for k in range(level + 1, 5)
        ]
        node = network.decoder[level]
        parts = [unit(one) for unit, one in zip(node.scales, seen, strict=True)]
        assert [part.shape[1] for part in parts] == [2] * 5
        maps[level] = node.fuse(torch.cat(parts, dim=1))
    torch.testing.assert_close(network(images), network.head(maps[0]))


def product_of_probabilities(logits: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    both = logits.double().sigmoid() * gate.double()[..., None, None].sigmoid()
    return (both / (1 - both)).log()


def test_gated_logits_are_those_of_the_product_and_so_are_their_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (6 * torch.randn(2, 3, 8, 8, generator=generator)).requires_grad_()
    gate = torch.tensor([[-6.0, -1.0, 0.0], [0.5, 4.0, 9.0]], requires_grad=True)
    found = gated_logits(logits, gate)
    expected = product_of_probabilities(logits, gate)
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)
    weights = torch.randn(found.shape, generator=generator)
    ours = torch.autograd.grad((found * weights).sum(), (logits, gate))
    theirs = torch.autograd.grad((expected * weights).sum(), (logits, gate))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_gated_logits_and_gradients_are_finite_at_the_extremes() -> None:
    extremes = torch.tensor([-6e4, -100.0, -20.0, 0.0, 20.0, 100.0, 6e4])
    for kind in (torch.float32, torch.float16, torch.bfloat16):
        logits = extremes.to(kind).expand(7, 1, 1, 7).clone().requires_grad_()
        gate = extremes.to(kind)[:, None].clone().requires_grad_()
        found = gated_logits(logits, gate)
        assert found.dtype == torch.float32
        assert found.isfinite().all()
        found.sum().backward()  # type: ignore[no-untyped-call]
        for one in (logits, gate):
            assert one.grad is not None
            assert one.grad.isfinite().all()
        slopes = torch.autograd.grad(gated_logits(logits, gate).sum(), (logits, gate))
        assert all((slope >= 0).all() for slope in slopes)


def set_gates(network: Any, *logits: float) -> None:
    """Make the presence of each organ a constant."""
    last = network.presence.layers[1]
    nn.init.zeros_(last.weight)
    last.bias.data = torch.tensor(logits)


@torch.inference_mode()
def test_a_closed_gate_gives_probability_0_and_an_open_one_changes_nothing() -> None:
    gated: Any = build("unet_3plus", width=4).eval()
    free = build("unet_3plus", width=4, gate=False).eval()
    free.load_state_dict(
        {name: one for name, one in gated.state_dict().items() if "presence" not in name}
    )
    set_gates(gated, 60.0, -60.0, 60.0)
    images = torch.rand(2, 3, 32, 32)
    found, expected = gated(images), free(images)
    assert found[:, 1].sigmoid().max() < 1e-20
    assert torch.equal(found[:, ::2], expected[:, ::2])
    assert expected.sigmoid().amin() > 1e-3, "it was the gate that gave 0"


def test_the_gate_is_told_in_training_and_closes_every_answer() -> None:
    network: Any = build("unet_3plus", width=4)
    set_gates(network, 60.0, -60.0, -60.0)
    answer = network(torch.rand(2, 3, 32, 48))
    assert answer.presence.tolist() == [[60.0, -60.0, -60.0]] * 2
    assert len(answer.deep) == 4
    for maps in (answer.logits, *answer.deep):
        assert maps.shape == (2, 3, 32, 48)
        assert (maps[:, 1:].sigmoid() < 1e-20).all()
        assert (maps[:, 0].sigmoid() > 1e-3).all()


def test_the_masks_alone_teach_the_gate() -> None:
    network: Any = build("unet_3plus", width=4)
    network(torch.rand(2, 3, 32, 32)).logits.sum().backward()
    slope = network.presence.layers[1].weight.grad
    assert slope.isfinite().all()
    assert (slope.abs().amax(dim=(1, 2, 3)) > 0).all()


@torch.inference_mode()
def test_supervision_of_unet_3plus_costs_nothing_in_evaluation() -> None:
    network: Any = build("unet_3plus", width=2).eval()
    for head in network.deep_heads:
        head.register_forward_hook(lambda *_: pytest.fail("it was computed"))
    assert isinstance(network(torch.rand(1, 3, 16, 16)), torch.Tensor)


def test_a_plain_unet_3plus_has_nothing_but_logits_to_tell() -> None:
    answer: Any = build("unet_3plus", width=2, **PLAIN, **UNGATED)(torch.rand(1, 3, 32, 32))
    assert (answer.deep, answer.presence) == ((), None)
