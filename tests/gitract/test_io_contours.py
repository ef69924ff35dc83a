"""Outlines of masks and back: every voxel, holes, islands, borders."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gitract.io.contours import filled, outlined
from phantoms import abdomen_phantom

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14))


def picture(text: str) -> np.ndarray:
    """A mask of lines, ``#`` inside."""
    return np.array([[mark == "#" for mark in line] for line in text.split()])


def area(points: np.ndarray) -> float:
    row, column = points.T
    return abs(float(column @ np.roll(row, -1) - row @ np.roll(column, -1))) / 2


PICTURES = {
    "one pixel": ("#", 1),
    "touching at a corner": ("#. .#", 2),
    "full image": ("### ### ###", 1),
    "a hole": ("..... .###. .#.#. .###. .....", 1),
    "an island in a hole": ("##### #...# #.#.# #...# #####", 2),
    "a hole in an island in a hole": (
        "####### #.....# #.###.# #.#.#.# #.###.# #.....# #######",
        2,
    ),
    "holes above each other": ("### #.# ### #.# ### #.# ###", 1),
    "two holes whose channels meet a third": ("##### #...# ##### #.#.# #####", 1),
    "holes that touch at a corner": ("#### #.## ##.# ####", 1),
    "a hole that opens at a corner": ("###. #.## ####", 1),
    "a U above a hole": ("#.### #.#.# #...# ##### ##.## #####", 1),
}


@pytest.mark.parametrize("name", PICTURES)
def test_any_shape_comes_back_as_it_was(name: str) -> None:
    text, count = PICTURES[name]
    mask = picture(text)
    polygons = outlined(mask)
    np.testing.assert_array_equal(filled(polygons, mask.shape), mask)
    assert len(polygons) == count


@settings(max_examples=300)
@given(MASKS)
def test_every_mask_comes_back_exactly(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(filled(outlined(mask), mask.shape), mask)


@settings(max_examples=60)
@given(MASKS, st.integers(0, 2**32 - 1))
def test_rounded_and_shifted_outlines_are_the_same_mask(mask: np.ndarray, seed: int) -> None:
    noise = np.random.default_rng(seed)
    shift = noise.uniform(-0.2, 0.2, 2)
    # A point that is passed twice stays one point, as in a file.
    moved = [np.round(polygon + shift, 2) for polygon in outlined(mask)]
    np.testing.assert_array_equal(filled(moved, mask.shape), mask)


@settings(max_examples=60)
@given(MASKS)
def test_an_outline_lies_between_pixels_inside_and_outside(mask: np.ndarray) -> None:
    padded = np.pad(mask, 1)
    for row, column in np.concatenate([*outlined(mask), np.empty((0, 2))]):
        assert (row % 1, column % 1) in ((0, 0.5), (0.5, 0))
        one = padded[int(np.floor(row)) + 1, int(np.floor(column)) + 1]
        other = padded[int(np.ceil(row)) + 1, int(np.ceil(column)) + 1]
        assert one != other


@settings(max_examples=60)
@given(MASKS)
def test_no_point_goes_straight_on(mask: np.ndarray) -> None:
    for polygon in outlined(mask):
        ahead = np.roll(polygon, -1, axis=0) - polygon
        behind = np.roll(ahead, 1, axis=0)
        straight = ahead[:, 0] * behind[:, 1] == ahead[:, 1] * behind[:, 0]
        # At the top of a hole its outline meets the channel at an angle, too.
        assert not straight.any()


def test_a_hole_is_joined_within_the_mask() -> None:
    mask = picture("##### #...# ##### #.#.# #####")
    (polygon,) = outlined(mask)
    steps = np.roll(polygon, -1, axis=0) - polygon
    channels = [
        (row, column, length)
        for (row, column), (length, aside) in zip(polygon, steps, strict=True)
        if aside == 0 and column % 1 == 0
    ]
    assert len(channels) == 6  # two for each hole, one there and one back
    for row, column, length in channels:
        low, high = sorted((row, row + length))
        assert mask[int(np.ceil(low)) : int(high) + 1, int(column)].all()


def test_the_area_is_that_of_the_pixels_less_half_a_pixel() -> None:
    _, truth = abdomen_phantom(slices=16, rows=128, columns=128)
    seen = 0
    for mask in truth.masks.reshape(-1, 128, 128):
        polygons = outlined(mask)
        if len(polygons) == 1 and mask.sum() > 200:
            seen += 1
            assert area(polygons[0]) == mask.sum() - 0.5
    assert seen > 3


def test_polygons_of_other_programs() -> None:
    square = np.array([[1.0, 1.0], [1.0, 5.0], [5.0, 5.0], [5.0, 1.0]])
    mask = filled([square], (8, 8))
    # Centres on the outline: the first row and column are in, the last ones are not.
    np.testing.assert_array_equal(np.argwhere(mask)[[0, -1]], [[1, 1], [4, 4]])
    assert mask.sum() == 16
    beside = filled([square + (0, 4)], (8, 8))
    assert not (mask & beside).any()
    nested = filled([square, square / 2 + 1.5], (8, 8))
    assert nested.sum() == 16 - 4
    np.testing.assert_array_equal(filled([square[::-1]], (8, 8)), mask)
    np.testing.assert_array_equal(filled([np.round(square + 1e-9, 9)], (8, 8)), mask)
    np.testing.assert_array_equal(filled([square - 1e-9], (8, 8)), mask)


def test_polygons_are_cut_at_the_border() -> None:
    square = np.array([[-3.0, -4.0], [-3.0, 2.5], [3.5, 2.5], [3.5, -4.0]])
    np.testing.assert_array_equal(np.argwhere(filled([square], (6, 5)))[-1], [3, 2])
    assert filled([square], (6, 5)).sum() == 12
    assert not filled([square + 100], (6, 5)).any()
    assert not filled([square - 100], (6, 5)).any()
    assert filled([square * 100], (6, 5)).all()


def test_nothing_has_no_outline() -> None:
    assert outlined(np.zeros((4, 5), dtype=np.bool_)) == []
    assert not filled([], (4, 5)).any()
    assert not filled([np.empty((0, 2))], (4, 5)).any()


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(3, 9))
def test_filling_agrees_with_a_rule_for_single_points(seed: int, points: int) -> None:
    from skimage.measure import grid_points_in_poly

    polygon = np.random.default_rng(seed).uniform(-2, 11, (points, 2))  # it may cross itself
    np.testing.assert_array_equal(filled([polygon], (9, 9)), grid_points_in_poly((9, 9), polygon))
