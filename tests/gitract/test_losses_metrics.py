"""The loss that leaves out what nobody outlined, and the scores."""

import math

import numpy as np
import pytest
import torch

from gitract.losses import masked_bce_dice
from gitract.metrics import dice, mean_over_patients, mean_slice_dice


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
    assert masked_bce_dice(logits, masks, known).item() == pytest.approx(expected)
    doubled = masked_bce_dice(logits, masks, known, dice_weight=2.0).item()
    assert doubled == pytest.approx(2 * expected - math.log(2))


def test_what_is_unknown_changes_neither_loss_nor_gradient() -> None:
    logits, masks, known = random_case()
    unknown = known[:, :, None, None] == 0
    logits.requires_grad_()
    loss = masked_bce_dice(logits, masks, known)
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert (logits.grad[unknown.expand_as(logits)] == 0).all()
    assert (logits.grad[~unknown.expand_as(logits)] != 0).all()
    other = torch.where(unknown, 1 - masks, masks)
    far = torch.where(unknown, logits.detach() + 30, logits.detach())
    assert masked_bce_dice(far, other, known).item() == pytest.approx(loss.item(), rel=1e-6)


def test_an_organ_that_is_known_nowhere_counts_as_if_it_were_not_there() -> None:
    logits, masks, known = random_case()
    known[:, 0] = 0
    without = masked_bce_dice(logits[:, 1:], masks[:, 1:], known[:, 1:])
    assert masked_bce_dice(logits, masks, known).item() == pytest.approx(without.item(), rel=1e-6)


def test_a_perfect_answer_costs_almost_nothing() -> None:
    _, masks, known = random_case()
    assert masked_bce_dice((masks - 0.5) * 60, masks, known).item() < 1e-3


def test_empty_slices_cost_nothing_when_nothing_is_found_and_something_otherwise() -> None:
    empty, known = torch.zeros(2, 3, 8, 8), torch.ones(2, 3)
    assert masked_bce_dice(empty - 30, empty, known).item() < 1e-3
    assert masked_bce_dice(empty + 3, empty, known).item() > 1


def test_nothing_known_is_no_loss_and_no_gradient() -> None:
    logits, masks, known = random_case()
    logits.requires_grad_()
    loss = masked_bce_dice(logits, masks, torch.zeros_like(known))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_an_empty_batch_is_no_loss() -> None:
    nothing = torch.zeros(0, 3, 8, 8)
    assert masked_bce_dice(nothing, nothing, torch.zeros(0, 3)).item() == 0


def test_dice_of_small_cases() -> None:
    a, b = np.array([[1, 1, 0, 0]], bool), np.array([[0, 1, 1, 0]], bool)
    nothing = np.zeros_like(a)
    assert dice(a, b) == 0.5
    assert dice(a, a) == 1.0
    assert dice(a, nothing) == 0.0
    assert dice(nothing, a) == 0.0
    assert dice(nothing, nothing) is None


def test_slices_that_are_empty_in_both_do_not_count() -> None:
    a = np.zeros((4, 2, 2), bool)
    b = a.copy()
    a[0, 0], b[0, 0] = True, True  # 1
    a[1, 0] = True  # found, but not there: 0
    b[2, 0] = True  # missed: 0
    assert mean_slice_dice(a, b) == pytest.approx(1 / 3)
    assert mean_slice_dice(a[3:], b[3:]) is None


def test_a_patient_with_many_scans_counts_once() -> None:
    scores = [
        ("case1", "stomach", 0.9),
        ("case2", "stomach", 0.3),
        ("case2", "stomach", 0.5),
        ("case2", "stomach", None),
        ("case3", "stomach", None),
        ("case3", "large_bowel", 0.1),
    ]
    assert mean_over_patients(scores) == pytest.approx({"stomach": 0.65, "large_bowel": 0.1})
    assert mean_over_patients([]) == {}
