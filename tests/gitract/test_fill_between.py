"""Labels between corrected slices: by shape, and by the model's contours."""

from collections.abc import Callable, Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gitract.errors import InputError
from gitract.fill_between import REACH, filled_by_model, filled_by_shape
from gitract.metrics import dice
from gitract.organs import IGNORE
from gitract.phantom import abdomen
from sentences import assert_one_sentence

SPACING = (3.0, 1.5, 1.5)
SHAPE = (64, 64)
STOMACH, TUMOUR = 3, 17

Fill = Callable[[np.ndarray, Iterable[int]], dict[int, np.ndarray]]


def by_shape(labels: np.ndarray, kept: Iterable[int], **options: int) -> dict[int, np.ndarray]:
    return filled_by_shape(labels, kept, SPACING, **options)


def by_model_of_the_labels(
    labels: np.ndarray, kept: Iterable[int], **options: int
) -> dict[int, np.ndarray]:
    return filled_by_model(labels, labels, kept, SPACING, **options)


both_ways = pytest.mark.parametrize("fill", [by_shape, by_model_of_the_labels])


def disc(
    radius_mm: float,
    row: float = 32,
    column: float = 32,
    spacing: tuple[float, ...] = SPACING,
    value: int = STOMACH,
) -> np.ndarray:
    """A slice with a disc around a voxel."""
    rows, columns = np.ogrid[: SHAPE[0], : SHAPE[1]]
    distance = np.hypot((rows - row) * spacing[1], (columns - column) * spacing[2])
    return np.where(distance <= radius_mm, value, 0).astype(np.uint8)


def assert_disc(
    plane: np.ndarray, radius_mm: float, spacing: tuple[float, ...] = SPACING, column: float = 32
) -> None:
    """A disc of this radius, to within one voxel."""
    voxel = max(spacing[1:])
    inside = disc(radius_mm - voxel, column=column, spacing=spacing) > 0
    outside = disc(radius_mm + voxel, column=column, spacing=spacing) == 0
    assert np.all(plane[inside] == STOMACH)
    assert not np.any(plane[outside])


def empty(slices: int) -> np.ndarray:
    return np.zeros((slices, *SHAPE), np.uint8)


def stack(*planes: np.ndarray, gap: int = 4) -> np.ndarray:
    """Slices that are so many slices apart, with nothing in between."""
    labels = empty((len(planes) - 1) * gap + 1)
    labels[::gap] = planes
    return labels


def areas(filled: dict[int, np.ndarray], value: int = STOMACH) -> list[int]:
    return [int(np.count_nonzero(plane == value)) for plane in filled.values()]


# Which slices are filled


@st.composite
def stacks_with_kept(draw: st.DrawFn) -> tuple[np.ndarray, list[int]]:
    count = draw(st.integers(1, 12))
    labels = np.random.default_rng(draw(st.integers(0, 99))).integers(
        0, 4, (count, 6, 7), dtype=np.uint8
    )
    return labels, draw(st.lists(st.integers(0, count - 1), max_size=count))


@both_ways
@given(case=stacks_with_kept(), reach=st.integers(0, 12))
def test_just_the_slices_between_two_kept_ones_in_reach_are_filled(
    fill: Fill, case: tuple[np.ndarray, list[int]], reach: int
) -> None:
    labels, kept = case
    before = labels.copy()
    filled = fill(labels, kept, reach=reach)  # type: ignore[call-arg]
    np.testing.assert_array_equal(labels, before)
    for index in range(len(labels)):
        below = [k for k in kept if k < index]
        above = [k for k in kept if k > index]
        between = bool(below and above) and index not in kept
        assert (index in filled) == (between and min(above) - max(below) <= reach)
    for plane in filled.values():
        assert plane.shape == labels.shape[1:]
        assert plane.dtype == np.uint8


@both_ways
def test_the_usual_reach(fill: Fill) -> None:
    labels = stack(disc(12), disc(12), gap=REACH + 1)
    assert fill(labels, [0, REACH + 1]) == {}
    assert list(fill(labels, [0, REACH])) == list(range(1, REACH))


@both_ways
@pytest.mark.parametrize("kept", [[], [2], [2, 2], [2, 3]])
def test_with_nothing_in_between_nothing_is_filled(fill: Fill, kept: list[int]) -> None:
    assert fill(stack(disc(12), disc(12)), kept) == {}


@both_ways
@pytest.mark.parametrize("wrong", [-1, 5])
def test_a_slice_that_is_not_there_is_refused(fill: Fill, wrong: int) -> None:
    with pytest.raises(InputError) as error:
        fill(stack(disc(12), disc(12)), [0, wrong])
    assert_one_sentence(error, str(wrong), "0 to 4")


@both_ways
def test_a_single_slice_is_refused(fill: Fill) -> None:
    with pytest.raises(InputError) as error:
        fill(disc(12), [0, 4])
    assert_one_sentence(error, "2 axes")


def test_a_prediction_of_another_scan_is_refused() -> None:
    labels = stack(disc(12), disc(12))
    with pytest.raises(InputError) as error:
        filled_by_model(labels, labels[:4], [0, 4], SPACING)
    assert_one_sentence(error, "(5, 64, 64)", "(4, 64, 64)")


# By shape


@given(seed=st.integers(0, 99), gap=st.integers(2, 5))
def test_between_two_equal_slices_lies_the_same_slice(seed: int, gap: int) -> None:
    plane = np.random.default_rng(seed).integers(0, 4, SHAPE, dtype=np.uint8)
    for found in by_shape(stack(plane, plane, gap=gap), [0, gap]).values():
        np.testing.assert_array_equal(found, plane)


@settings(max_examples=20)
@given(
    radius=st.floats(16, 25),
    share=st.floats(0.55, 1),
    rows_thicker=st.floats(0.7, 1.5),
    backwards=st.booleans(),
)
def test_radii_of_circles_are_interpolated_within_a_voxel(
    radius: float, share: float, rows_thicker: float, backwards: bool
) -> None:
    spacing = (3.0, rows_thicker * 1.2, 1.2)
    ends = [radius, radius * share]
    first, last = ends[::-1] if backwards else ends
    labels = stack(disc(first, spacing=spacing), disc(last, spacing=spacing))
    for index, found in filled_by_shape(labels, [0, 4], spacing).items():
        assert_disc(found, first + (last - first) * index / 4, spacing)


def test_distances_are_those_of_the_patient_and_not_of_the_grid() -> None:
    # The same two shapes, once on square voxels and once on rows three times as thick.
    square = stack(disc(20, row=26, column=26), disc(24, row=34, column=34))
    thick = square[:, 1::3]
    expected = filled_by_shape(square, [0, 4], (3.0, 1.0, 1.0))[2][1::3]
    right = filled_by_shape(thick, [0, 4], (3.0, 3.0, 1.0))[2]
    agreement = dice(right == STOMACH, expected == STOMACH)
    assert agreement is not None
    assert agreement > 0.97


def test_a_shape_that_moves_is_half_way_in_the_middle() -> None:
    labels = stack(disc(24, row=30, column=29), disc(24, row=34, column=35))
    found = by_shape(labels, [0, 4])
    centres = [np.argwhere(plane == STOMACH).mean(axis=0) for plane in found.values()]
    np.testing.assert_allclose(centres, [(31, 30.5), (32, 32), (33, 33.5)], atol=0.5)
    agreement = dice(found[2] > 0, disc(24) > 0)
    assert agreement is not None
    assert agreement > 0.95


@pytest.mark.parametrize("backwards", [False, True])
def test_an_organ_of_one_slice_alone_tapers_off(backwards: bool) -> None:
    planes = [disc(20), empty(1)[0]]
    labels = stack(*(planes[::-1] if backwards else planes), gap=12)
    found = areas(by_shape(labels, [0, 12]))
    if backwards:
        found = found[::-1]
    full = int(np.count_nonzero(planes[0]))
    assert full > found[0] > 0.8 * full
    assert all(after < before for before, after in zip(found, found[1:], strict=False) if before)
    assert found[6] > 0  # beyond the middle
    assert found[8:] == [0, 0, 0]  # but not as far as the slice without it


def test_a_small_part_tapers_off_beside_a_large_one_that_stays() -> None:
    large, small = disc(24, column=20), disc(12, column=50)
    found = by_shape(stack(large | small, large, gap=6), [0, 6])
    for plane in found.values():
        np.testing.assert_array_equal(plane[:, :38], large[:, :38])
    shares = [np.count_nonzero(plane[:, 38:]) / np.count_nonzero(small) for plane in found.values()]
    assert 1 > shares[0] > shares[1] > 0
    assert shares[-1] == 0


def test_of_parts_that_do_not_overlap_one_ends_and_the_other_begins() -> None:
    left, right = disc(12, column=14), disc(12, column=50)
    found = by_shape(stack(left, right, gap=8), [0, 8])
    assert found[1][32, 14] == STOMACH
    assert not found[1][32, 50]
    assert found[4][32, 14] == found[4][32, 50] == STOMACH
    assert not found[7][32, 14]
    assert found[7][32, 50] == STOMACH
    assert not any(plane[32, 32] for plane in found.values())


def test_organs_that_touch_move_together_without_gap_or_overlap() -> None:
    first, last = np.full((2, *SHAPE), 1, np.uint8)
    first[:, 20:], last[:, 36:] = 2, 2
    found = by_shape(stack(first, last), [0, 4])
    for index, border in ((1, 24), (2, 28), (3, 32)):
        np.testing.assert_array_equal(found[index][:, :border], 1)
        np.testing.assert_array_equal(found[index][:, border:], 2)


@pytest.mark.parametrize("values", [(2, 3), (3, 2)])
def test_where_one_organ_follows_another_the_deeper_one_is_drawn(values: tuple[int, int]) -> None:
    found = by_shape(stack(*(disc(24, value=value) for value in values), gap=5), [0, 5])
    assert [plane[32, 32] for plane in found.values()] == [values[0]] * 2 + [values[1]] * 2


def test_what_fills_the_slice_stays_or_is_gone_as_other_shapes() -> None:
    full = np.full(SHAPE, STOMACH, np.uint8)
    assert areas(by_shape(stack(full, full), [0, 4])) == [full.size] * 3
    assert areas(by_shape(stack(full, empty(1)[0]), [0, 4])) == [full.size, full.size, 0]


def test_labels_between_kept_slices_do_not_count() -> None:
    labels = stack(disc(12), disc(20))
    expected = by_shape(labels, [0, 4])
    labels[1:4] = 1
    for index, plane in by_shape(labels, [0, 4]).items():
        np.testing.assert_array_equal(plane, expected[index])


@settings(max_examples=30)
@given(seed=st.integers(0, 99))
def test_nothing_is_drawn_where_neither_kept_slice_has_anything(seed: int) -> None:
    random = np.random.default_rng(seed)
    first, last = (random.random((2, *SHAPE)) < 0.02) * random.integers(1, 4, (2, *SHAPE))
    for plane in by_shape(stack(first, last), [0, 4]).values():
        values = np.stack([first, last, 0 * plane])
        assert np.all((values == plane).any(axis=0))


def test_real_slices_between_every_fourth_are_found_again() -> None:
    labels = abdomen((45, 96, 112), spacing=(3.0, 2.4, 2.4))[1].labels().array
    kept = range(0, 45, 4)
    found = filled_by_shape(labels, kept, (3.0, 2.4, 2.4))
    nearest = {index: labels[round(index / 4) * 4] for index in found}
    for value in (1, 2, 3):
        truth = np.stack([labels[index] == value for index in found])
        ours, copied = (
            dice(np.stack([planes[index] == value for index in found]), truth)
            for planes in (found, nearest)
        )
        assert ours is not None
        assert copied is not None
        assert ours > 0.85
        assert ours > copied + 0.01


# By the model


def three_organs(slices: int = 9) -> np.ndarray:
    return abdomen((slices, *SHAPE), spacing=SPACING, seed=3)[1].labels().array


@settings(max_examples=20)
@given(kept=st.sets(st.integers(0, 8), min_size=2))
def test_where_nothing_was_corrected_the_prediction_stands(kept: set[int]) -> None:
    prediction = three_organs()
    for index, plane in filled_by_model(prediction, prediction, kept, SPACING).items():
        np.testing.assert_array_equal(plane, prediction[index])


def test_far_from_a_correction_the_prediction_stands() -> None:
    prediction = three_organs()
    labels = prediction.copy()
    changed = (slice(20, 26), slice(30, 40))
    labels[(0, *changed)] = labels[(8, *changed)] = STOMACH
    around = np.zeros(SHAPE, bool)
    around[20 - 7 : 26 + 7, 30 - 7 : 40 + 7] = True  # 7 voxels of 1.5 mm are 10 mm
    found = filled_by_model(labels, prediction, [0, 8], SPACING)
    assert any(np.any(plane != prediction[index]) for index, plane in found.items())
    for index, plane in found.items():
        np.testing.assert_array_equal(plane[~around], prediction[index][~around])


def test_a_border_moved_on_both_slices_is_moved_on_those_between() -> None:
    # The model's organ moves from slice to slice, and is 4.5 mm too small on all of them.
    columns = [28 + index for index in range(9)]
    prediction = np.stack([disc(15, column=column) for column in columns])
    labels = prediction.copy()
    labels[[0, 8]] = [disc(19.5, column=28), disc(19.5, column=36)]
    for index, plane in filled_by_model(labels, prediction, [0, 8], SPACING).items():
        assert_disc(plane, 19.5, column=columns[index])


def test_contours_may_move_beyond_all_that_was_drawn() -> None:
    # Between the kept slices the model's organ is larger than on them.
    prediction = np.stack([disc(radius) for radius in (15, 21, 15)])
    labels = np.stack([disc(radius) for radius in (21, 21, 21)])
    found = filled_by_model(labels, prediction, [0, 2], SPACING)[1]
    assert_disc(found, 27)


def test_a_correction_fades_out_towards_a_slice_where_the_model_was_right() -> None:
    prediction = np.stack([disc(15)] * 9)
    labels = prediction.copy()
    labels[0] = disc(24)
    for index, plane in filled_by_model(labels, prediction, [0, 8], SPACING).items():
        assert_disc(plane, 24 - 9 * index / 8)


def test_what_the_model_drew_wrongly_goes_where_it_was_erased() -> None:
    prediction = np.stack([disc(15) | disc(8, column=56, value=2)] * 5)
    labels = np.stack([disc(15)] * 5)
    for plane in filled_by_model(labels, prediction, [0, 4], SPACING).values():
        np.testing.assert_array_equal(plane, disc(15))


def test_an_organ_that_the_model_missed_is_interpolated_by_its_shape() -> None:
    prediction = np.stack([disc(9, column=10)] * 9)
    tumour = stack(disc(21, column=42, value=TUMOUR), empty(1)[0], gap=8)
    found = filled_by_model(np.maximum(prediction, tumour), prediction, [0, 8], SPACING)
    alone = by_shape(tumour, [0, 8])
    for index, plane in found.items():
        np.testing.assert_array_equal(plane == TUMOUR, alone[index] == TUMOUR)
        np.testing.assert_array_equal(plane == STOMACH, prediction[index] == STOMACH)


def test_a_target_painted_into_an_organ_stays_inside_it() -> None:
    prediction = np.stack([disc(24)] * 5)
    labels = prediction.copy()
    target = disc(9) > 0
    labels[0][target] = labels[4][target] = TUMOUR
    for plane in filled_by_model(labels, prediction, [0, 4], SPACING).values():
        np.testing.assert_array_equal(plane, labels[0])


def test_the_model_beats_shapes_where_it_knows_what_lies_between() -> None:
    true = abdomen((33, 96, 112), spacing=(3.0, 2.4, 2.4))[1].labels().array
    prediction = np.roll(true, 2, axis=2)  # everywhere 5 mm beside
    kept = range(0, 33, 8)
    labels = prediction.copy()
    labels[::8] = true[::8]
    shape = filled_by_shape(labels, kept, (3.0, 2.4, 2.4))
    model = filled_by_model(labels, prediction, kept, (3.0, 2.4, 2.4))
    for value in (1, 2, 3):
        truth = np.stack([true[index] == value for index in shape])
        by_each = [
            dice(np.stack([planes[index] == value for index in shape]), truth)
            for planes in (prediction, shape, model)
        ]
        scores = [score for score in by_each if score is not None]
        assert len(scores) == 3
        assert scores[2] > max(scores[:2]) + 0.02


# Regions to ignore


@both_ways
def test_regions_to_ignore_are_neither_interpolated_nor_left(fill: Fill) -> None:
    labels = np.stack([disc(24)] * 5)
    labels[:, :20, :20] = IGNORE.id
    for plane in fill(labels, [0, 4]).values():
        assert np.any(plane == STOMACH)
        assert not np.any(plane == IGNORE.id)


def test_in_regions_to_ignore_the_model_counts_as_right() -> None:
    prediction = np.stack([disc(24)] * 5)
    labels = prediction.copy()
    labels[[0, 4], 25:40, 25:40] = IGNORE.id
    for plane in filled_by_model(labels, prediction, [0, 4], SPACING).values():
        np.testing.assert_array_equal(plane, disc(24))
