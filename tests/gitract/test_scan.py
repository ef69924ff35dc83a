"""Scan and Segmentation: what they accept, and what they derive."""

import numpy as np
import pytest

from gitract.errors import InputError
from gitract.organs import ORGANS, organ_named, organs_from_ids
from gitract.scan import Scan, Segmentation, axial_affine
from phantoms import abdomen_phantom, l_phantom

SPACING = (3.0, 1.5, 0.7)


def test_axial_affine_goes_from_head_to_feet() -> None:
    position = axial_affine(SPACING) @ [2, 3, 4, 1]
    np.testing.assert_allclose(position, [4 * 0.7, 3 * 1.5, -2 * 3.0, 1])


def test_scan_derives_its_affine_from_the_spacing() -> None:
    scan = Scan(np.zeros((2, 3, 4), np.uint16), SPACING)
    np.testing.assert_array_equal(scan.affine, axial_affine(SPACING))
    assert scan.shape == (2, 3, 4)


@pytest.mark.parametrize("shape", [(3, 4), (0, 3, 4), (1, 2, 3, 4)])
def test_scan_refuses_other_axes(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="three axes"):
        Scan(np.zeros(shape), SPACING)


@pytest.mark.parametrize("spacing", [(0, 1, 1), (1, -1, 1), (1, float("nan"), 1), (1, 1)])
def test_scan_refuses_unusable_spacing(spacing: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="not usable"):
        Scan(np.zeros((2, 3, 4)), spacing)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [np.complex64, np.bool_, "U1"])
def test_scan_refuses_what_is_no_intensity(dtype: object) -> None:
    with pytest.raises(InputError, match="integers or floats"):
        Scan(np.zeros((2, 3, 4), dtype), SPACING)  # type: ignore[call-overload]


def test_scan_refuses_an_affine_of_another_spacing() -> None:
    with pytest.raises(InputError, match="contradict"):
        Scan(np.zeros((2, 3, 4)), SPACING, affine=axial_affine((3.0, 0.7, 1.5)))


def test_scan_refuses_too_few_slice_numbers() -> None:
    with pytest.raises(InputError, match="1 slice numbers for 2 slices"):
        Scan(np.zeros((2, 3, 4)), SPACING, slice_numbers=(1,))


def test_labels_come_back_from_masks() -> None:
    labels = np.random.default_rng(0).integers(0, 4, (3, 5, 6)).astype(np.int32)
    flat = Segmentation.of_labels(labels, spacing=SPACING).labels()
    np.testing.assert_array_equal(flat.array, labels)
    assert flat.array.dtype == np.uint8
    assert flat.overlap_voxels == 0


def test_where_organs_overlap_the_highest_id_wins_and_is_counted() -> None:
    _, truth = abdomen_phantom()
    flat = truth.labels()
    both = truth.masks[1] & truth.masks[2]
    assert flat.overlap_voxels == np.count_nonzero(truth.masks.sum(axis=0) > 1) > 0
    assert both.any()
    assert (flat.array[both] == organ_named("stomach").id).all()


def test_labels_of_no_organ_are_refused() -> None:
    with pytest.raises(InputError, match="Label value 7"):
        Segmentation.of_labels(np.full((1, 2, 2), 7), spacing=SPACING)


def test_masks_must_fit_the_organs() -> None:
    with pytest.raises(InputError, match="2 masks for 3 organs"):
        Segmentation(np.zeros((2, 1, 4, 4), np.bool_), SPACING)


def test_volume_is_voxels_times_spacing() -> None:
    phantom = l_phantom()
    voxels = np.count_nonzero(phantom.masks[2])
    assert phantom.volumes_ml["stomach"] == pytest.approx(voxels * 3.0 * 1.5 * 0.7 / 1000)
    assert phantom.volumes_ml["large_bowel"] == 0


def test_organ_table_has_the_ids_of_the_data() -> None:
    assert [(organ.id, organ.name) for organ in ORGANS] == [
        (1, "large_bowel"),
        (2, "small_bowel"),
        (3, "stomach"),
    ]
    assert organs_from_ids([3, 1]) == (ORGANS[2], ORGANS[0])
    with pytest.raises(InputError, match="'liver'"):
        organ_named("liver")
