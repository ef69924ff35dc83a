"""Which slices are suggested for correction, in which order, and why."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitract.correction_queue import Suggestion, suggested_slices
from gitract.errors import InputError
from gitract.organs import IGNORE
from gitract.phantom import abdomen
from sentences import assert_one_sentence

SPACING = (3.0, 1.5, 1.5)
NAMES = {1: "large bowel", 2: "small bowel", 3: "stomach"}


@pytest.fixture
def alike() -> np.ndarray:
    """20 equal slices with a stomach and a larger small bowel."""
    labels = np.zeros((20, 40, 40), np.uint8)
    labels[:, 4:20, 4:20] = 3
    labels[:, 20:38, 10:38] = 2
    return labels


def order(suggestions: Sequence[Suggestion]) -> list[int]:
    return [suggestion.index for suggestion in suggestions]


def first(labels: np.ndarray, done: Sequence[int] = (), **options: object) -> Suggestion:
    return suggested_slices(labels, done, SPACING, names=NAMES, **options)[0]  # type: ignore[arg-type]


# What the list holds


@given(data=st.data(), count=st.integers(0, 12), seed=st.integers(0, 99))
def test_all_slices_but_those_done_and_skipped_come_once_and_in_order(
    data: st.DataObject, count: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    labels = random.choice([0, 1, 2, IGNORE.id], (count, 4, 5)).astype(np.uint8)
    labels[random.random(count) < 0.3] = 0
    indices = st.sets(st.integers(0, count - 1)) if count else st.just(set())
    done, skip = data.draw(indices), data.draw(indices)
    doubts = data.draw(st.none() | st.lists(st.floats(0, 1), min_size=count, max_size=count))
    found = suggested_slices(labels, done, SPACING, doubts=doubts, skip=skip)
    assert sorted(order(found)) == sorted(set(range(count)) - done - skip)
    benefits = [suggestion.benefit for suggestion in found]
    assert benefits == sorted(benefits, reverse=True)
    assert all(np.isfinite(benefit) and benefit >= 0 for benefit in benefits)
    assert all(suggestion.reason for suggestion in found)
    assert found == suggested_slices(labels, done, SPACING, doubts=doubts, skip=skip)


def test_labels_are_not_changed(alike: np.ndarray) -> None:
    before = alike.copy()
    suggested_slices(alike, [3], SPACING, doubts=[0.1] * 20, skip=[5])
    np.testing.assert_array_equal(alike, before)


def test_of_one_slice_that_one_is_suggested(alike: np.ndarray) -> None:
    assert order(suggested_slices(alike[:1], [], SPACING)) == [0]
    assert suggested_slices(alike[:1], [0], SPACING) == []


def test_empty_slices_come_in_order_and_say_so() -> None:
    found = suggested_slices(np.zeros((4, 5, 6), np.uint8), [], SPACING, doubts=[0.0] * 4)
    assert found == [Suggestion(index, 0.0, "nothing is drawn here") for index in range(4)]


@pytest.mark.parametrize("doubts", [None, [0.0] * 20])
def test_slices_without_anything_come_last(alike: np.ndarray, doubts: list[float] | None) -> None:
    alike[:8] = 0
    alike[8:, :37] = 0  # one row is left
    found = order(suggested_slices(alike, [8, 19], SPACING, doubts=doubts))
    assert found[-7:] == list(range(7))  # slice 7 has a neighbour with something


def test_an_empty_slice_that_the_model_doubts_is_no_last_one() -> None:
    doubts = [0.0, 0.0, 0.4, 0.0]
    found = suggested_slices(np.zeros((4, 5, 6), np.uint8), [], SPACING, doubts=doubts)
    assert order(found) == [2, 0, 1, 3]
    assert found[0].reason == "the model is unsure here"


# Far from what is done


def test_suggestions_spread_over_the_stack(alike: np.ndarray) -> None:
    found = suggested_slices(alike, [0], SPACING)
    assert order(found)[0] == 19
    assert order(found)[1] in (9, 10)
    picks = sorted([0, *order(found)[:4]])
    assert min(np.diff(picks)) >= 4
    assert found[0].reason == "far from slices already corrected"


def test_without_slices_done_the_first_of_equal_ones_leads(alike: np.ndarray) -> None:
    found = suggested_slices(alike, [], SPACING)
    assert order(found)[:2] == [0, 19]
    assert found[0].reason == "much is drawn here"


def test_distance_counts_in_millimetres(alike: np.ndarray) -> None:
    thin, thick = (suggested_slices(alike, [0], (mm, 1.5, 1.5))[0].benefit for mm in (0.1, 10.0))
    assert thick > 5 * thin


def test_slices_close_to_one_done_are_not_called_far(alike: np.ndarray) -> None:
    for suggestion in suggested_slices(alike, [10], SPACING):
        far = abs(suggestion.index - 10) >= 5  # 15 mm
        assert (suggestion.reason == "far from slices already corrected") == far


def test_larger_contours_come_first(alike: np.ndarray) -> None:
    labels = np.zeros_like(alike)
    for index in range(20):
        labels[index, 4 : 10 + index, 4:30] = 3  # grows evenly
    found = suggested_slices(labels, [], SPACING, names=NAMES)
    assert order(found)[0] == 19
    reasons = {suggestion.index: suggestion.reason for suggestion in found}
    assert reasons[19] == "much is drawn here"
    assert reasons[1] == "little is drawn here"


# Unlike its neighbours


def test_an_organ_that_one_slice_lost_leads(alike: np.ndarray) -> None:
    alike[7][alike[7] == 3] = 0
    found = first(alike, [1])
    assert found.index == 7
    assert found.reason == "stomach is on both neighbouring slices but not here"


def test_a_gap_in_an_abdomen_leads() -> None:
    labels = abdomen((40, 96, 112), spacing=(3.0, 2.4, 2.4))[1].labels().array
    labels[28][labels[28] == 2] = 0
    found = first(labels, [20])
    assert (found.index, found.reason) == (
        28,
        "small bowel is on both neighbouring slices but not here",
    )


def test_a_shifted_organ_leads(alike: np.ndarray) -> None:
    alike[7] = np.roll(alike[7], 10, axis=1)
    found = first(alike)
    assert found.index == 7
    assert found.reason.startswith("small bowel differs much from slice ")
    assert found.reason.endswith((" 6", " 8"))


def test_an_organ_of_one_slice_alone_leads(alike: np.ndarray) -> None:
    alike[7, :10, 25:39] = 1
    found = first(alike)
    assert (found.index, found.reason) == (7, "large bowel is on this slice alone")


def test_an_abrupt_end_leads(alike: np.ndarray) -> None:
    alike[8:][alike[8:] == 3] = 0
    found = first(alike)
    assert (found.index, found.reason) == (7, "stomach ends abruptly")


def reason_of(index: int, labels: np.ndarray, **slices: Sequence[int]) -> str:
    done, skip = slices.get("done", ()), slices.get("skip", ())
    found = suggested_slices(labels, done, SPACING, skip=skip, names=NAMES)
    return next(suggestion.reason for suggestion in found if suggestion.index == index)


def test_next_to_a_slice_done_the_other_side_of_an_abrupt_end_says_so(alike: np.ndarray) -> None:
    alike[8:][alike[8:] == 3] = 0
    assert reason_of(8, alike, done=range(8)) == "stomach ends abruptly on slice 7"


def test_rejected_slices_say_nothing_of_their_neighbours(alike: np.ndarray) -> None:
    alike[8:][alike[8:] == 3] = 0
    assert "stomach" not in reason_of(8, alike, skip=range(8))


def test_a_jump_in_area_leads(alike: np.ndarray) -> None:
    labels = np.zeros_like(alike)
    labels[:10, 5:35, 5:35] = 2
    labels[10:, 5:35, 5:20] = 2
    assert first(labels).index == 9
    assert first(labels).reason == "small bowel differs much from slice 10"


def test_the_neighbours_of_a_bad_slice_are_not_blamed_for_it(alike: np.ndarray) -> None:
    alike[7][alike[7] == 3] = 0
    after = suggested_slices(alike, [], SPACING, names=NAMES)
    assert not {6, 8} & set(order(after)[1:4])
    assert not any("stomach" in suggestion.reason for suggestion in after[1:])


def test_what_is_usual_in_the_stack_is_no_reason(alike: np.ndarray) -> None:
    labels = np.stack([np.roll(plane, 8 * index, axis=1) for index, plane in enumerate(alike)])
    reasons = {suggestion.reason for suggestion in suggested_slices(labels, [], SPACING)}
    assert not any("differs" in reason for reason in reasons)


def test_neighbours_without_overlap_are_never_usual(alike: np.ndarray) -> None:
    alike[alike == 2] = 0
    alike[::2] = np.roll(alike[::2], 20, axis=2)
    assert first(alike).reason.startswith("stomach differs much from slice ")


def test_organs_without_a_name_go_by_their_number(alike: np.ndarray) -> None:
    alike[7][alike[7] == 3] = 0
    assert suggested_slices(alike, [], SPACING)[0].reason.startswith("organ 3 is on both")


def test_regions_to_ignore_are_no_organ(alike: np.ndarray) -> None:
    expected = suggested_slices(alike, [], SPACING)
    alike[7, :4] = IGNORE.id
    assert suggested_slices(alike, [], SPACING) == expected


# Doubted by the model


def test_doubts_decide_among_equal_slices(alike: np.ndarray) -> None:
    doubts = [0.1] * 20
    doubts[13] = 0.5
    found = first(alike, [0], doubts=doubts)
    assert (found.index, found.reason) == (13, "the model is unsure here")


def test_the_more_is_drawn_the_more_a_doubt_counts(alike: np.ndarray) -> None:
    doubts = [0.0] * 20
    doubts[4] = doubts[15] = 0.4
    alike[:10, 22:] = 0  # a stomach and next to no bowel
    alike[9:11] = 0
    assert order(suggested_slices(alike, [], SPACING, doubts=doubts))[:2] == [15, 4]


def test_doubts_that_are_the_same_everywhere_are_no_reason(alike: np.ndarray) -> None:
    found = suggested_slices(alike, [0], SPACING, doubts=[0.3] * 20)
    assert order(found) == order(suggested_slices(alike, [0], SPACING))
    assert found[0].reason == "far from slices already corrected"


# Bad input


def test_doubts_of_another_scan_are_refused(alike: np.ndarray) -> None:
    with pytest.raises(InputError) as error:
        suggested_slices(alike, [], SPACING, doubts=[0.1] * 19)
    assert_one_sentence(error, "19 doubts", "20 slices")


@pytest.mark.parametrize("where", ["done", "skip"])
@pytest.mark.parametrize("wrong", [-1, 20])
def test_a_slice_that_is_not_there_is_refused(alike: np.ndarray, where: str, wrong: int) -> None:
    slices = {"done": [1], "skip": [2]} | {where: [wrong]}
    with pytest.raises(InputError) as error:
        suggested_slices(alike, slices["done"], SPACING, skip=slices["skip"])
    assert_one_sentence(error, f"slice {wrong}", "0 to 19")


def test_a_single_plane_is_refused(alike: np.ndarray) -> None:
    with pytest.raises(InputError) as error:
        suggested_slices(alike[0], [], SPACING)
    assert_one_sentence(error, "2 axes")
