"""Scan to network input and back: size, millimetres, grey values, alignment."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from gitract.data import prepare_masks
from gitract.model_config import Preparation
from gitract.preparation import (
    neighbour_indices,
    network_input,
    prepare_slices,
    prepared_size,
    to_grid,
)


def disc(shape: tuple[int, int], spacing: tuple[float, float], radius_mm: float) -> np.ndarray:
    """A disc that is round in millimetres, a third of the way into the slice."""
    rows, columns = ((np.arange(size) + 0.5) * mm for size, mm in zip(shape, spacing, strict=True))
    middle = rows[-1] * 0.4, columns[-1] * 0.55
    return (rows[:, None] - middle[0]) ** 2 + (columns - middle[1]) ** 2 < radius_mm**2


def test_prepared_pixels_have_the_size_that_was_asked_for() -> None:
    assert prepared_size((100, 200), (3.0, 2.0, 0.5), 2.5) == (80, 40)
    voxels = np.zeros((2, 100, 200), np.uint16)
    prepared = prepare_slices(voxels, (3.0, 2.0, 0.5), Preparation(pixel_mm=2.5))
    assert prepared.shape == (2, 80, 40)
    assert prepared.dtype == torch.float32


def test_a_scan_smaller_than_a_pixel_keeps_one() -> None:
    assert prepared_size((1, 3), (3.0, 0.5, 0.5), 5.0) == (1, 1)


def test_a_disc_stays_round_and_keeps_its_millimetres() -> None:
    spacing = (3.0, 2.4, 0.9)
    picture = 1000.0 * disc((120, 300), spacing[1:], 40)
    prepared = prepare_slices(picture[None], spacing, Preparation(pixel_mm=2.0))[0].numpy() > 0.5
    rows, columns = (np.ptp(axis) + 1 for axis in np.nonzero(prepared))
    assert rows * 2.0 == pytest.approx(80, abs=4)
    assert columns * 2.0 == pytest.approx(80, abs=4)
    assert prepared.sum() * 4.0 == pytest.approx(np.pi * 40**2, rel=0.03)


def test_each_slice_is_scaled_by_itself() -> None:
    one = np.random.default_rng(0).random((40, 40))
    prepared = prepare_slices(np.stack([one, 7000 * one + 300]), (3, 2, 2), Preparation())
    np.testing.assert_allclose(prepared[0], prepared[1], atol=2e-3)
    assert prepared.min() == 0.0
    assert prepared.max() == 1.0


def test_percentiles_clip_a_bright_spot() -> None:
    picture = np.linspace(0, 100, 1600).reshape(1, 40, 40)
    spotted = picture.copy()
    spotted[0, 20, 20] = 60000
    ends = Preparation(pixel_mm=2.0, high_percentile=99)
    plain, bright = (prepare_slices(p, (3, 2, 2), ends) for p in (picture, spotted))
    assert (plain - bright).abs().median() < 0.02


@pytest.mark.parametrize("value", [0, 7, 1000, 65535])
@pytest.mark.parametrize("dtype", [np.uint16, np.float64])
def test_a_constant_slice_stays_constant(value: int, dtype: type) -> None:
    prepared = prepare_slices(np.full((1, 144, 176), value, dtype), (3.0, 1.7, 1.3), Preparation())
    assert torch.isfinite(prepared).all()
    assert prepared.max() - prepared.min() < 0.05  # not rounding errors stretched to 0...1


@pytest.mark.parametrize("factor", [1e-9, 1e-3, 1e6])
def test_the_unit_of_the_grey_values_does_not_matter(factor: float) -> None:
    picture = np.random.default_rng(0).random((1, 40, 40))
    plain = prepare_slices(picture, (3, 2, 2), Preparation())
    scaled = prepare_slices(picture * factor, (3, 2, 2), Preparation())
    np.testing.assert_allclose(plain, scaled, atol=1e-3)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, ">u2", np.float64, np.uint32])
def test_every_number_type_gives_the_same_and_is_left_alone(dtype: str) -> None:
    voxels = np.random.default_rng(0).integers(0, 100, (2, 30, 40))
    stored = voxels.astype(dtype)
    stored.flags.writeable = False
    prepared = prepare_slices(stored, (3, 2, 2), Preparation())
    np.testing.assert_allclose(prepared, prepare_slices(voxels, (3, 2, 2), Preparation()))
    np.testing.assert_array_equal(stored, voxels)


def test_neighbours_beyond_the_ends_repeat_the_last_slice() -> None:
    preparation = Preparation(neighbours=2, stride=2)
    assert preparation.channels == 5
    assert neighbour_indices(0, 9, preparation) == [0, 0, 0, 2, 4]
    assert neighbour_indices(7, 9, preparation) == [3, 5, 7, 8, 8]
    assert neighbour_indices(0, 1, preparation) == [0, 0, 0, 0, 0]
    assert neighbour_indices(3, 9, Preparation(neighbours=0)) == [3]


def test_the_network_sees_each_slice_between_its_neighbours() -> None:
    slices = torch.arange(9.0)[:, None, None].expand(9, 2, 3)
    images = network_input(slices, [0, 4], Preparation(neighbours=1, stride=2))
    assert images.shape == (2, 3, 2, 3)
    assert images[:, :, 0, 0].tolist() == [[0, 0, 2], [2, 4, 6]]


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(60, 130), st.integers(60, 130)),
    spacing=st.tuples(st.floats(0.8, 3.0), st.floats(0.8, 3.0)),
    pixel_mm=st.floats(1.0, 4.0),
)
def test_a_mask_put_back_on_the_grid_lies_where_it_was(
    shape: tuple[int, int], spacing: tuple[float, float], pixel_mm: float
) -> None:
    mask = disc(shape, spacing, 18.0)
    size = prepared_size(shape, (3.0, *spacing), pixel_mm)
    back = to_grid(prepare_masks(mask[None, None], size).float(), shape)[0, 0].numpy() > 0.5
    assert back.shape == shape
    moved = np.subtract(ndimage.center_of_mass(back), ndimage.center_of_mass(mask))
    # half a pixel of the coarser of the two grids
    assert (np.abs(moved) * spacing < 0.5 * np.maximum(spacing, pixel_mm)).all()
    assert back.sum() == pytest.approx(mask.sum(), rel=0.2)


@pytest.mark.parametrize("shape", [(64, 96), (20, 30)])
def test_pixels_come_back_to_their_millimetres(shape: tuple[int, int]) -> None:
    rows, columns = 32, 48  # of 3 mm
    row_mm = ((torch.arange(rows) + 0.5) * 3.0)[:, None].expand(rows, columns)
    back = to_grid(row_mm[None, None], shape)[0, 0]
    pixel_mm = rows * 3.0 / shape[0]
    expected = (torch.arange(shape[0]) + 0.5) * pixel_mm
    inside = (expected > 3.0) & (expected < rows * 3.0 - 3.0)  # beyond, the border is repeated
    torch.testing.assert_close(back[inside, 7], expected[inside])
