"""Scan to network input and back: size, millimetres, grey values, alignment."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from gitract.io import read_reference, read_scan
from gitract.model_config import Preparation
from gitract.preparation import (
    NOTHING,
    Prepared,
    neighbour_indices,
    network_input,
    prepare_masks,
    prepare_scan,
    prepare_slice_masks,
    prepared_size,
)
from gitract.scan import Spacing


def prepare_slices(voxels: np.ndarray, spacing: Spacing, preparation: Preparation) -> torch.Tensor:
    """The prepared slices alone."""
    return prepare_scan(voxels, spacing, preparation).slices


def masks_back(masks: np.ndarray, prepared: Prepared) -> np.ndarray:
    """Masks ``(organ, slice, row, column)`` to the prepared grid, as logits, and back."""
    logits = 2.0 * prepare_masks(masks, prepared).float() - 1.0
    return (prepared.back(logits.swapaxes(0, 1)) > 0).swapaxes(0, 1).numpy()


def disc(shape: tuple[int, int], spacing: tuple[float, float], radius_mm: float) -> np.ndarray:
    """A disc that is round in millimetres, a third of the way into the slice."""
    rows, columns = ((np.arange(size) + 0.5) * mm for size, mm in zip(shape, spacing, strict=True))
    middle = rows[-1] * 0.4, columns[-1] * 0.55
    return (rows[:, None] - middle[0]) ** 2 + (columns - middle[1]) ** 2 < radius_mm**2


def test_prepared_pixels_have_the_size_that_was_asked_for() -> None:
    assert prepared_size((2, 100, 200), (3.0, 2.0, 0.5), Preparation(pixel_mm=2.5)) == (2, 80, 40)
    voxels = np.zeros((2, 100, 200), np.uint16)
    prepared = prepare_slices(voxels, (3.0, 2.0, 0.5), Preparation(pixel_mm=2.5))
    assert prepared.shape == (2, 80, 40)
    assert prepared.dtype == torch.float32


def test_a_scan_smaller_than_a_pixel_keeps_one() -> None:
    tiny = Preparation(pixel_mm=5.0, slice_mm=30.0)
    assert prepared_size((2, 1, 3), (3.0, 0.5, 0.5), tiny) == (1, 1, 1)


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


@settings(max_examples=25)
@given(
    shape=st.tuples(st.integers(60, 130), st.integers(60, 130)),
    spacing=st.tuples(st.floats(0.8, 3.0), st.floats(0.8, 3.0)),
    pixel_mm=st.floats(1.0, 4.0),
)
def test_a_mask_put_back_on_the_grid_lies_where_it_was(
    shape: tuple[int, int], spacing: tuple[float, float], pixel_mm: float
) -> None:
    mask = disc(shape, spacing, 18.0)
    scan = np.zeros((1, *shape), np.float32)
    prepared = prepare_scan(scan, (3.0, *spacing), Preparation(pixel_mm=pixel_mm))
    back = masks_back(mask[None, None], prepared)[0, 0]
    assert back.shape == shape
    moved = np.subtract(ndimage.center_of_mass(back), ndimage.center_of_mass(mask))
    # half a pixel of the coarser of the two grids
    assert (np.abs(moved) * spacing < 0.5 * np.maximum(spacing, pixel_mm)).all()
    assert back.sum() == pytest.approx(mask.sum(), rel=0.2)


@pytest.mark.parametrize("shape", [(64, 96), (20, 30)])
def test_pixels_come_back_to_their_millimetres(shape: tuple[int, int]) -> None:
    pixel_mm = 96.0 / shape[0]
    scan = np.zeros((1, *shape), np.float32)
    prepared = prepare_scan(scan, (3.0, pixel_mm, pixel_mm), Preparation(pixel_mm=3.0))
    assert prepared.grid == (1, 32, 48)
    row_mm = ((torch.arange(32) + 0.5) * 3.0)[:, None].expand(32, 48)
    back = prepared.back(row_mm[None, None])[0, 0]
    expected = (torch.arange(shape[0]) + 0.5) * pixel_mm
    inside = (expected > 3.0) & (expected < 93.0)  # beyond, the border is repeated
    torch.testing.assert_close(back[inside, 7], expected[inside])


# --- along the stack ------------------------------------------------------------------------


def test_the_stack_is_resampled_to_the_distance_that_was_asked_for() -> None:
    ramp = np.broadcast_to(np.arange(24.0)[:, None, None], (24, 20, 20))
    fine = prepare_scan(ramp, (5.0, 2.0, 2.0), Preparation(pixel_mm=2.0, slice_mm=2.5))
    assert fine.slices.shape == fine.grid == (48, 20, 20)
    coarse = Preparation(pixel_mm=2.0, slice_mm=10.0, scaling="scan", low_percentile=0,
                         high_percentile=100)  # fmt: skip
    halved = prepare_scan(ramp, (5.0, 2.0, 2.0), coarse).slices[:, 3, 3]
    assert len(halved) == 12
    steps = halved.diff()[1:-1]  # at the ends the average has fewer slices
    torch.testing.assert_close(steps, steps[:1].expand_as(steps))


@settings(max_examples=25)
@given(
    slices=st.integers(1, 30), spacing=st.floats(1.0, 8.0), slice_mm=st.floats(1.0, 8.0),
    data=st.data(),
)  # fmt: skip
def test_slices_of_the_scan_come_back_from_the_prepared_ones_at_their_place(
    slices: int, spacing: float, slice_mm: float, data: st.DataObject
) -> None:
    scan = np.zeros((slices, 4, 4), np.float32)
    prepared = prepare_scan(scan, (spacing, 2.0, 2.0), Preparation(pixel_mm=2.0, slice_mm=slice_mm))
    count = prepared.grid[0]
    wanted = sorted(data.draw(st.sets(st.integers(0, slices - 1), min_size=1)))
    needed = prepared.needed(wanted)
    # each prepared slice holds its own place, counted in slices of the scan, from 1
    place = 1.0 + (torch.tensor(needed) + 0.5) * slices / count - 0.5
    back = prepared.back(place[:, None, None, None].expand(-1, 1, 4, 4), wanted)
    assert back.shape == (len(wanted), 1, 4, 4)
    first, last = 1.0 + 0.5 * slices / count - 0.5, 1.0 + (count - 0.5) * slices / count - 0.5
    expected = (torch.tensor(wanted) + 1.0).clamp(first, last)
    torch.testing.assert_close(back[:, 0, 0, 0], expected)
    for index in wanted:
        own = (prepared.nearest(index) + 0.5) * slices / count - 0.5
        assert abs(own - index) <= 0.5 * slices / count + 1e-6


def test_masks_survive_a_finer_stack_and_come_back() -> None:
    mask = np.zeros((2, 12, 30, 30), bool)
    mask[0, 3:8, 5:20, 8:25] = True
    scan = np.zeros((12, 30, 30), np.float32)
    prepared = prepare_scan(scan, (6.0, 2.0, 2.0), Preparation(pixel_mm=2.0, slice_mm=2.0))
    assert prepare_masks(mask, prepared).shape == (2, 36, 30, 30)
    np.testing.assert_array_equal(masks_back(mask, prepared), mask)


def test_single_slices_of_masks_need_not_the_stack() -> None:
    mask = np.zeros((1, 12, 30, 30), bool)
    mask[0, 6, 5:20, 8:25] = True
    scan = np.zeros((12, 30, 30), np.float32)
    thin = Preparation(pixel_mm=2.0, slice_mm=12.0)
    prepared = prepare_scan(scan, (3.0, 1.0, 1.0), thin)
    assert not prepare_masks(mask, prepared).any()  # one slice in four
    single = prepare_slice_masks(mask[:, [6, 7]], prepared)
    assert single.shape == (1, 2, 15, 15)
    assert single[0, 0].sum() == pytest.approx(mask.sum() / 4, rel=0.15)
    assert not single[0, 1].any()
    alike = prepare_scan(scan, (3.0, 1.0, 1.0), Preparation(pixel_mm=2.0))
    assert torch.equal(prepare_slice_masks(mask, alike), prepare_masks(mask, alike))


# --- grey values of the whole scan ----------------------------------------------------------


def test_scaled_by_the_scan_a_slice_keeps_its_brightness_against_the_others() -> None:
    noise = np.random.default_rng(0).random((6, 30, 30))
    voxels = 900 * noise * np.arange(1, 7)[:, None, None] / 6 + 40
    ends = {"low_percentile": 0.0, "high_percentile": 100.0}
    whole = prepare_slices(voxels, (3, 2.5, 2.5), Preparation(scaling="scan", **ends))
    assert whole.min() == 0
    assert whole.max() == 1
    expected = (voxels - voxels.min()) / np.ptp(voxels)
    np.testing.assert_allclose(whole, expected, atol=1e-5)
    each = prepare_slices(voxels, (3, 2.5, 2.5), Preparation(**ends))
    assert (each.amax(dim=(1, 2)) == 1).all()


def test_one_bright_spot_does_not_darken_the_scan() -> None:
    voxels = np.random.default_rng(0).random((6, 30, 30))
    spotted = voxels.copy()
    spotted[3, 10:12, 10:12] = 1e6
    preparation = Preparation(pixel_mm=2.0, scaling="scan")
    plain, bright = (prepare_slices(v, (3, 2, 2), preparation) for v in (voxels, spotted))
    assert (plain - bright).abs().median() < 0.01


# --- the body ------------------------------------------------------------------------------


def body(top: int, left: int, rows: int = 50, columns: int = 60) -> np.ndarray:
    """A noisy body of `rows` x `columns` in air, in a scan of 12 x 120 x 140 pixels of 2.5 mm."""
    random = np.random.default_rng(0)
    voxels = np.abs(random.normal(0, 12, (12, 120, 140)))
    inside = (slice(2, 10), slice(top, top + rows), slice(left, left + columns))
    voxels[inside] = random.normal(600, 150, voxels[inside].shape).clip(150)
    return voxels


CROPPED = Preparation(pixel_mm=2.5, crop_to_body=True)


@pytest.mark.parametrize(("top", "left"), [(30, 40), (0, 5), (68, 80)])
def test_the_crop_keeps_the_body_and_a_margin_and_no_more(top: int, left: int) -> None:
    _, rows, columns = prepare_scan(body(top, left), (3.0, 2.5, 2.5), CROPPED).window
    for window, start, stop, size in ((rows, top, top + 50, 120), (columns, left, left + 60, 140)):
        assert max(0, start - 8) <= window.start <= max(0, start - 4)
        assert min(size, stop + 4) <= window.stop <= min(size, stop + 8)


def test_the_crop_changes_no_grey_value() -> None:
    voxels = body(30, 40)
    cropped = prepare_scan(voxels, (3.0, 2.5, 2.5), CROPPED)
    whole = prepare_scan(voxels, (3.0, 2.5, 2.5), Preparation(pixel_mm=2.5))
    assert cropped.grid == whole.grid
    assert cropped.slices.shape[0] == 12
    assert torch.equal(cropped.slices, whole.slices[cropped.window])


@pytest.mark.parametrize("kind", ["body to the edges", "constant", "one pixel"])
def test_where_there_is_no_air_everything_stays(kind: str) -> None:
    if kind == "one pixel":
        voxels = np.ones((3, 1, 1))
    else:
        voxels = np.full((3, 60, 70), 300.0)
        if kind == "body to the edges":
            voxels += np.random.default_rng(0).normal(0, 80, voxels.shape)
    prepared = prepare_scan(voxels, (3.0, 2.5, 2.5), CROPPED)
    assert prepared.slices.shape == prepared.grid == voxels.shape


def test_masks_and_logits_of_a_cropped_scan_come_back_to_their_place() -> None:
    voxels = body(30, 40)
    prepared = prepare_scan(voxels, (3.0, 2.0, 2.0), CROPPED)
    assert prepared.slices.shape[1:] < prepared.grid[1:]
    mask = np.zeros((2, *voxels.shape), bool)
    mask[1, 4:8, 40:60, 50:90] = True
    assert prepare_masks(mask, prepared).shape == (2, *prepared.slices.shape)
    back = masks_back(mask, prepared)
    assert not back[0].any()
    assert (back != mask).sum() < 0.1 * mask.sum()
    everywhere = torch.full((12, 1, *prepared.slices.shape[1:]), 5.0)
    found = prepared.back(everywhere)[:, 0]
    assert found.shape == voxels.shape
    assert (found[:, 0, 0] == NOTHING).all()
    assert (found[:, 55, 70] == 5.0).all()


def test_only_maps_that_show_something_are_resampled() -> None:
    prepared = prepare_scan(np.zeros((2, 30, 30)), (3.0, 2.0, 2.0), Preparation(pixel_mm=3.0))
    maps = torch.full((2, 3, 20, 20), -1.0)
    maps[1, 2, 10, 10] = 4.0
    found = prepared.back(maps)
    assert (found[0] == NOTHING).all()
    assert found[1, 2].max() > 0
    assert found[1, 2].min() == -1.0


@pytest.mark.data
def test_the_crop_cuts_no_organ_of_real_scans(shared_data: Path) -> None:
    for day in ("case16/case16_day0", "case6/case6_day20", "case20/case20_day0"):
        folder = shared_data / "uwm_stacks" / "train" / day
        scan, truth = read_scan(folder), read_reference(folder)
        assert truth is not None
        preparation = Preparation(pixel_mm=3.0, crop_to_body=True)
        prepared = prepare_scan(scan.voxels, scan.spacing, preparation)
        whole = prepare_scan(scan.voxels, scan.spacing, Preparation(pixel_mm=3.0))
        organs = prepare_masks(truth.masks, whole)
        assert prepare_masks(truth.masks, prepared).sum() == organs.sum()


def test_half_precision_slices_go_in_as_float32() -> None:
    slices = torch.rand(5, 6, 7).half()
    images = network_input(slices, [2], Preparation())
    assert images.dtype == torch.float32
    assert torch.equal(images[0, 1], slices[2].float())
