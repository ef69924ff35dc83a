"""The abdomen made by code: whole organs, as a scan of the abdomen shows them."""

import numpy as np
import pytest

from gitract.contour_checks import check_contours, usual_volumes
from gitract.field_of_view import sides_cut
from gitract.phantom import abdomen


def test_the_sample_raises_no_finding() -> None:
    assert check_contours(abdomen()[1]) == ()


def test_organs_of_the_sample_are_as_large_as_organs_are() -> None:
    usual = usual_volumes().organs
    for name, volume in abdomen()[1].volumes_ml.items():
        assert usual[name].low_ml < volume < usual[name].high_ml


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", [(24, 96, 112), (48, 144, 176), (80, 100, 100)])
def test_every_organ_lies_whole_within_a_stack_of_usual_size(
    shape: tuple[int, int, int], seed: int
) -> None:
    for mask in abdomen(shape, seed=seed)[1].masks:
        assert sides_cut(mask) == ()


def test_slices_without_any_organ_lie_above_and_below() -> None:
    shown = np.flatnonzero(abdomen()[1].masks.any(axis=(0, 2, 3)))
    assert shown[0] >= 2
    assert shown[-1] < 48 - 2


@pytest.mark.parametrize("slices", range(2, 9))
def test_a_stack_of_a_few_thick_slices_shows_every_organ(slices: int) -> None:
    assert abdomen((slices, 32, 40))[1].masks.any(axis=(1, 2, 3)).all()


def test_the_same_seed_makes_the_same_patient() -> None:
    (one, truth), (again, same), (other, _) = (abdomen((6, 32, 40), seed=s) for s in (3, 3, 4))
    np.testing.assert_array_equal(one.voxels, again.voxels)
    np.testing.assert_array_equal(truth.masks, same.masks)
    assert not np.array_equal(one.voxels, other.voxels)
