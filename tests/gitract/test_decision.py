"""How probabilities become contours: thresholds, islands, holes and parts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from gitract.decision import TIDY, Decision, tidied
from gitract.errors import InputError
from gitract.organs import ORGANS
from sentences import assert_one_sentence

SPACING = (3.0, 2.0, 2.0)  # 12 mm³ a voxel
STOMACH = 2  # its place among the organs


def drawn(**boxes: tuple[slice, slice, slice]) -> np.ndarray:
    """Masks of three organs of which the stomach has some boxes."""
    masks = np.zeros((3, 12, 40, 40), bool)
    for box in boxes.values():
        masks[(STOMACH, *box)] = True
    return masks


LARGE = (slice(2, 8), slice(5, 20), slice(5, 20))  # 16.2 mL
SMALL = (slice(4, 6), slice(28, 34), slice(28, 34))  # 0.86 mL
SPECK = (slice(9, 10), slice(2, 4), slice(2, 4))  # 0.05 mL


def test_without_rules_nothing_changes() -> None:
    masks = drawn(large=LARGE, speck=SPECK)
    np.testing.assert_array_equal(tidied(masks, None, SPACING, Decision(), ORGANS), masks)
    assert not Decision(threshold=0.3).tidies


def test_islands_under_a_volume_are_removed() -> None:
    masks = drawn(large=LARGE, small=SMALL, speck=SPECK)
    rule = Decision(smallest_ml=0.5)
    found = tidied(masks, None, SPACING, rule, ORGANS)
    np.testing.assert_array_equal(found, drawn(large=LARGE, small=SMALL))
    finer = (3.0, 1.0, 1.0)  # the same voxels are a quarter as large
    np.testing.assert_array_equal(tidied(masks, None, finer, rule, ORGANS), drawn(large=LARGE))


def test_of_one_organ_the_largest_part_alone_is_kept() -> None:
    masks = drawn(large=LARGE, small=SMALL)
    masks[0] = masks[STOMACH]
    found = tidied(masks, None, SPACING, Decision(one_part=("stomach",)), ORGANS)
    np.testing.assert_array_equal(found[STOMACH], drawn(large=LARGE)[STOMACH])
    np.testing.assert_array_equal(found[0], masks[0])


def test_pinholes_are_filled_and_the_middle_of_a_loop_is_not() -> None:
    masks = drawn(large=LARGE)
    masks[STOMACH, 4, 10:12, 10:12] = False  # 16 mm²
    masks[STOMACH, 5, 8:17, 8:17] = False  # 324 mm²
    found = tidied(masks, None, SPACING, Decision(largest_hole_mm2=100), ORGANS)
    assert found[STOMACH, 4, 10:12, 10:12].all()
    assert not found[STOMACH, 5, 8:17, 8:17].any()


def test_hysteresis_adds_what_touches_and_nothing_else() -> None:
    certain, likely = drawn(large=LARGE), drawn(small=SMALL, speck=SPECK)
    likely[STOMACH, 8, 10:14, 10:14] = True  # the next slice
    found = tidied(certain, likely, SPACING, Decision(hysteresis=0.3), ORGANS)
    expected = certain.copy()
    expected[STOMACH, 8, 10:14, 10:14] = True
    np.testing.assert_array_equal(found, expected)


def test_the_rules_of_tidy_leave_one_stomach() -> None:
    found = tidied(drawn(large=LARGE, small=SMALL, speck=SPECK), None, SPACING, TIDY, ORGANS)
    np.testing.assert_array_equal(found, drawn(large=LARGE))


def test_the_masks_given_are_left_alone() -> None:
    masks = drawn(large=LARGE, speck=SPECK)
    before = masks.copy()
    tidied(masks, drawn(small=SMALL), SPACING, TIDY, ORGANS)
    np.testing.assert_array_equal(masks, before)


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), share=st.floats(0.02, 0.5), least=st.floats(0, 0.2))
def test_on_random_masks_every_part_kept_is_a_whole_part_and_large_enough(
    seed: int, share: float, least: float
) -> None:
    masks = np.random.default_rng(seed).random((3, 5, 12, 12)) < share
    found = tidied(masks, None, SPACING, Decision(smallest_ml=least), ORGANS)
    for before, after in zip(masks, found, strict=True):
        parts, count = ndimage.label(before, np.ones((3, 3, 3)))
        for part in range(1, count + 1):
            kept = after[parts == part]
            large = kept.size * 0.012 >= least
            assert kept.all() if large else not kept.any()
        assert not after[~before].any()


@pytest.mark.parametrize(
    ("decision", "part"),
    [
        (Decision(threshold=0.0), "0 is no probability"),
        (Decision(threshold={"stomach": 1.2}), "1.2 is no probability"),
        (Decision(threshold={"liver": 0.4}), "'liver'"),
        (Decision(one_part=("liver",)), "'liver'"),
        (Decision(threshold=0.3, hysteresis=0.4), "0.4"),
    ],
)
def test_what_cannot_be_is_refused(decision: Decision, part: str) -> None:
    with pytest.raises(InputError) as error:
        decision.thresholds(ORGANS)
    assert_one_sentence(error, part)


def test_organs_without_a_threshold_of_their_own_have_one_half() -> None:
    assert Decision(threshold={"stomach": 0.4}).thresholds(ORGANS) == [0.5, 0.5, 0.4]
