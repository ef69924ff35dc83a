"""Losses: what each term is, and that what nobody outlined is left out."""

import math

import pytest
import torch

from gitract.losses import SegmentationLoss
from gitract.models.outputs import Outputs
from gitract.recipe import Loss

bce_and_dice = SegmentationLoss()
KINDS = ("bce", "dice", "tversky", "focal", "lovasz")


def random_case(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn((4, 3, 8, 9), generator=generator)
    masks = (torch.rand((4, 3, 8, 9), generator=generator) > 0.6).float()
    known = torch.tensor([[1, 1, 1], [0, 0, 1], [1, 1, 1], [0, 0, 1]], dtype=torch.float32)
    return logits, masks, known


def test_the_loss_of_a_case_by_hand() -> None:
    logits = torch.tensor([[[[0.0, 0.0]]]])  # probability one half twice
    masks = torch.tensor([[[[1.0, 0.0]]]])
    known = torch.ones(1, 1)
    overlap, total = 0.5, 1.0 + 1.0
    expected = math.log(2) + 1 - (2 * overlap + 1) / (total + 1)
    assert bce_and_dice(logits, masks, known).item() == pytest.approx(expected)
    doubled = SegmentationLoss((Loss(kind="bce"), Loss(kind="dice", weight=2.0)))
    assert doubled(logits, masks, known).item() == pytest.approx(2 * expected - math.log(2))


def test_what_is_unknown_changes_neither_loss_nor_gradient() -> None:
    logits, masks, known = random_case()
    unknown = known[:, :, None, None] == 0
    logits.requires_grad_()
    loss = bce_and_dice(logits, masks, known)
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert (logits.grad[unknown.expand_as(logits)] == 0).all()
    assert (logits.grad[~unknown.expand_as(logits)] != 0).all()
    other = torch.where(unknown, 1 - masks, masks)
    far = torch.where(unknown, logits.detach() + 30, logits.detach())
    assert bce_and_dice(far, other, known).item() == pytest.approx(loss.item(), rel=1e-6)


def test_an_organ_that_is_known_nowhere_counts_as_if_it_were_not_there() -> None:
    logits, masks, known = random_case()
    known[:, 0] = 0
    without = bce_and_dice(logits[:, 1:], masks[:, 1:], known[:, 1:])
    assert bce_and_dice(logits, masks, known).item() == pytest.approx(without.item(), rel=1e-6)


def test_a_perfect_answer_costs_almost_nothing() -> None:
    _, masks, known = random_case()
    assert bce_and_dice((masks - 0.5) * 60, masks, known).item() < 1e-3


def test_empty_slices_cost_nothing_when_nothing_is_found_and_something_otherwise() -> None:
    empty, known = torch.zeros(2, 3, 8, 8), torch.ones(2, 3)
    assert bce_and_dice(empty - 30, empty, known).item() < 1e-3
    assert bce_and_dice(empty + 3, empty, known).item() > 1


def test_nothing_known_is_no_loss_and_no_gradient() -> None:
    logits, masks, known = random_case()
    logits.requires_grad_()
    loss = bce_and_dice(logits, masks, torch.zeros_like(known))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_an_empty_batch_is_no_loss() -> None:
    nothing = torch.zeros(0, 3, 8, 8)
    assert bce_and_dice(nothing, nothing, torch.zeros(0, 3)).item() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_every_term_leaves_out_what_is_unknown_and_falls_towards_the_truth(kind: str) -> None:
    loss = SegmentationLoss((Loss.model_validate({"kind": kind}),))
    logits, masks, known = random_case()
    unknown = (known == 0)[:, :, None, None].expand_as(logits)
    other = torch.where(unknown, 1 - masks, masks)
    assert loss(logits, masks, known).item() == pytest.approx(loss(logits, other, known).item())
    towards = (masks - 0.5) * 6
    values = [loss(scale * towards, masks, known).item() for scale in (-1.0, 0.0, 1.0, 5.0)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 1e-2


@pytest.mark.parametrize("shape", [(4, 1, 9, 8), (2, 1, 5, 9, 8)])
def test_the_terms_are_those_of_monai(shape: tuple[int, ...]) -> None:
    from monai.losses import DiceLoss, FocalLoss, TverskyLoss

    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(shape, generator=generator)
    masks = (torch.rand(shape, generator=generator) > 0.7).float()
    known = torch.ones(shape[:2])
    smooth = {"sigmoid": True, "batch": True, "smooth_nr": 1.0, "smooth_dr": 1.0}
    half = smooth | {"smooth_nr": 0.5, "smooth_dr": 0.5}
    theirs = {
        "dice": DiceLoss(**smooth),
        "tversky": TverskyLoss(**half, alpha=0.3, beta=0.7),
        "focal": FocalLoss(gamma=2.0),
    }
    for kind, judge in theirs.items():
        ours = SegmentationLoss((Loss.model_validate({"kind": kind}),))(logits, masks, known)
        assert ours.item() == pytest.approx(judge(logits, masks).item(), rel=1e-5), kind


def test_auxiliary_outputs_are_learned_too() -> None:
    logits, masks, known = random_case()
    coarse = torch.nn.functional.avg_pool2d(logits, 2).requires_grad_()
    presence = torch.zeros(4, 3, requires_grad=True)
    loss = SegmentationLoss(deep_supervision=0.5, presence=0.2)
    main = loss(logits, masks, known).item()
    whole = loss(Outputs(logits, (coarse,), presence), masks, known)
    whole.backward()
    assert coarse.grad is not None
    assert presence.grad is not None
    assert (presence.grad[known > 0] != 0).all()
    assert (presence.grad[known == 0] == 0).all()
    assert (coarse.grad[known == 0] == 0).all()
    smaller = masks[..., ::2, ::2]
    expected = main + 0.5 * loss(coarse, smaller[..., :4, :4], known).item() + 0.2 * math.log(2)
    assert whole.item() == pytest.approx(expected, rel=1e-5)


def test_a_drawn_slice_is_compared_with_the_centre_one() -> None:
    logits, masks, known = random_case()
    images = torch.rand(len(logits), 3, *logits.shape[2:]) * 1.5
    drawn = torch.randn(len(logits), 1, *logits.shape[2:])
    loss = SegmentationLoss(reconstruction=0.7)
    whole = loss(Outputs(logits, reconstruction=drawn), masks, known, images)
    grey = images[:, 1:2].clamp(0, 1)
    bce = torch.nn.functional.binary_cross_entropy_with_logits(drawn, grey)
    expected = loss(logits, masks, known).item() + 0.7 * bce.item()
    assert whole.item() == pytest.approx(expected, rel=1e-5)


def test_coarser_maps_weigh_half_as_much() -> None:
    _, masks, known = random_case()
    nothing = torch.zeros(4, 3, 8, 9)
    maps = [torch.full((4, 3, size, size), 0.7) for size in (4, 2)]
    loss = SegmentationLoss((Loss(kind="bce"),), deep_supervision=0.8)
    main = loss(nothing, masks, known).item()
    parts = [
        loss(one, torch.nn.functional.interpolate(masks, size=one.shape[2:]), known).item()
        for one in maps
    ]
    whole = loss(Outputs(nothing, tuple(maps)), masks, known).item()
    assert whole == pytest.approx(main + 0.8 * parts[0] + 0.4 * parts[1], rel=1e-5)


def test_half_precision_has_room_for_large_slices() -> None:
    logits = torch.full((2, 3, 128, 128), -3.0, dtype=torch.float16)
    loss = bce_and_dice(logits, torch.zeros(2, 3, 128, 128), torch.ones(2, 3))
    assert torch.isfinite(loss)
