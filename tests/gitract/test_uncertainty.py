"""How sure a model is, against formulas written out."""

import numpy as np
import pytest
import torch
from scipy.stats import entropy as scipy_entropy

from gitract.predict import Segmenter
from gitract.scan import Scan, Segmentation
from gitract.uncertainty import entropy, slice_doubts

PIXEL_MM = 2.0  # 25 pixels a square centimetre


def test_entropy_is_that_of_the_least_sure_organ() -> None:
    probabilities = np.random.default_rng(0).random((3, 4, 5, 6))
    each = scipy_entropy([probabilities, 1 - probabilities], base=2)
    np.testing.assert_allclose(entropy(probabilities), each.max(axis=0), atol=1e-5)


def test_entropy_is_a_number_where_the_model_is_certain() -> None:
    certain = np.array([0.0, 1.0, 0.5], np.float16).reshape(1, 1, 1, 3)
    np.testing.assert_allclose(entropy(certain).ravel(), [0, 0, 1], atol=1e-4)


def doubts(likely: np.ndarray) -> list[float]:
    """Of probabilities ``(slice, row, column)`` of one organ."""
    logits = torch.from_numpy(likely).clamp(1e-12, 1 - 1e-12).logit()
    found: list[float] = slice_doubts(logits[:, None], PIXEL_MM).tolist()
    return found


def test_a_doubt_is_one_minus_the_dice_that_is_expected() -> None:
    likely = np.zeros((3, 100, 100))
    likely[:2, 20:60, 20:60] = 1.0
    likely[1, 20:60, 20:40] = 0.5001  # half of what is drawn is there with probability 1/2
    likely[1, 60:80, 20:60] = 0.4999  # and as much may be missing
    sure, unsure, empty = doubts(likely)
    assert sure == pytest.approx(0, abs=1e-6)
    assert unsure == pytest.approx(1 - 2 * 1200 / (1600 + 1600), abs=0.01)
    assert empty == pytest.approx(0, abs=1e-6)


def test_next_to_nothing_on_an_empty_slice_is_no_reason_to_doubt_and_much_is() -> None:
    likely = np.zeros((2, 100, 100))
    likely[0, :2, :2] = 0.3
    likely[1, :40, :40] = 0.4
    little, much = doubts(likely)
    assert little < 0.05
    assert much > 0.9


def test_a_doubt_foretells_the_dice_where_probabilities_are_right() -> None:
    random = np.random.default_rng(1)
    likely = random.beta(0.4, 0.4, (30, 40, 40)) * np.linspace(1, 0.6, 30)[:, None, None]
    masks = likely > 0.5
    truth = random.random(likely.shape) < likely
    dice = 2 * (masks & truth).sum(axis=(1, 2)) / (masks.sum((1, 2)) + truth.sum((1, 2)))
    np.testing.assert_allclose(1 - np.array(doubts(likely)), dice, atol=0.05)


def test_the_contours_are_the_same_whether_or_not_it_says_how_sure_it_is(
    trained: object, phantom: tuple[Scan, Segmentation]
) -> None:
    segmenter = Segmenter(trained.result.model, device="cpu")  # type: ignore[attr-defined]
    plain = segmenter.segment(phantom[0])
    found, likely = segmenter.segment_with_probabilities(phantom[0])
    np.testing.assert_array_equal(found.masks, plain.masks)
    assert ((likely > 0.5) != found.masks).mean() < 1e-3  # float16 rounds at one half
    assert plain.provenance["doubts"] == found.provenance["doubts"]
    assert len(plain.provenance["doubts"]) == len(phantom[0].voxels)
    assert max(plain.provenance["doubts"]) > 0
