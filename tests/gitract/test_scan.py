"""Scan and Segmentation: what they accept, and what they derive."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gitract.baseline import edited_slices, slice_digests
from gitract.errors import InputError
from gitract.organs import ORGANS, organ_named, organs_from_ids
from gitract.scan import NiftiAxes, Scan, Segmentation, axial_affine, scaled_affine
from phantoms import abdomen_phantom, l_phantom
from sentences import assert_one_sentence

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


def sheared(degrees: float) -> np.ndarray:
    """An axial affine whose columns lean towards its rows."""
    affine = axial_affine(SPACING)
    angle = np.radians(degrees)
    affine[:3, 2] = 0.7 * np.array([np.cos(angle), np.sin(angle), 0])
    return affine


@pytest.mark.parametrize("degrees", [1, 20, 60, 90, -20])
def test_scan_refuses_skewed_and_singular_affines(degrees: float) -> None:
    for grid in (np.zeros((2, 3, 4)), np.zeros((3, 2, 3, 4), np.bool_)):
        with pytest.raises(InputError) as error:
            if grid.ndim == 3:
                Scan(grid, SPACING, affine=sheared(degrees))
            else:
                Segmentation(grid, SPACING, affine=sheared(degrees))
        assert_one_sentence(error, "not at right angles", "resample")


def test_scan_accepts_what_rounding_leaves_of_a_right_angle() -> None:
    Scan(np.zeros((2, 3, 4)), SPACING, affine=sheared(0.3))


@pytest.mark.parametrize(
    "affine",
    [np.zeros((4, 4)), np.full((4, 4), np.nan), np.eye(3), np.diag([np.inf, 1, 1, 1])],
)
def test_scan_refuses_what_is_no_affine(affine: np.ndarray) -> None:
    with pytest.raises(InputError) as error:
        Scan(np.zeros((2, 3, 4)), SPACING, affine=affine)
    assert_one_sentence(error, "affine")


def test_a_scaled_affine_keeps_directions_and_origin() -> None:
    affine = turned(0.4)
    scaled = scaled_affine(affine, (6.0, 3.0, 1.4))
    np.testing.assert_allclose(scaled[:3, :3], affine[:3, :3] * 2)
    np.testing.assert_array_equal(scaled[:, 3], affine[:, 3])


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


# --- labels onto their scan -----------------------------------------------------------------

TURNS = list(
    itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3))
)


def turned(angle: float) -> np.ndarray:
    """An oblique affine away from the origin."""
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = turn @ axial_affine(SPACING)
    affine[:3, 3] = (-210.5, 33.25, 480.0)
    return affine


def reordered(phantom: Segmentation, axes: tuple[int, ...], signs: tuple[int, ...]) -> Segmentation:
    """The same voxels in the same place, stored in another order."""
    size = np.array(phantom.shape)[list(axes)]
    to_old = np.zeros((4, 4))
    to_old[3, 3] = 1
    for new, (old, sign) in enumerate(zip(axes, signs, strict=True)):
        to_old[old, new] = sign
        to_old[old, 3] = 0 if sign > 0 else size[new] - 1
    masks = phantom.masks.transpose(0, *(axis + 1 for axis in axes))
    masks = masks[(slice(None), *(slice(None, None, sign) for sign in signs))]
    spacing = tuple(phantom.spacing[axis] for axis in axes)
    return dataclasses.replace(
        phantom,
        masks=masks,
        affine=phantom.affine @ to_old,
        spacing=spacing,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(("axes", "signs"), TURNS)
def test_labels_stored_in_another_order_are_put_in_that_of_the_scan(
    axes: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    phantom = dataclasses.replace(l_phantom(), affine=turned(0.3))
    scan = Scan(
        phantom.masks[2].astype(np.uint8),
        SPACING,
        phantom.affine,
        "case1",
        slice_numbers=(1, 2, 3, 4, 5),
        stored=NiftiAxes(0, 1, 2),
    )
    stored = dataclasses.replace(reordered(phantom, axes, signs), provenance={"model": "small"})
    placed = stored.on(scan)
    np.testing.assert_array_equal(placed.masks[2], scan.voxels)
    np.testing.assert_array_equal(placed.affine, scan.affine)
    assert (placed.spacing, placed.name, placed.slice_numbers, placed.stored) == (
        scan.spacing,
        "case1",
        scan.slice_numbers,
        scan.stored,
    )
    assert (placed.provenance, placed.organs) == ({"model": "small"}, ORGANS)


@pytest.mark.parametrize(
    ("shift", "fits"), [(0.001, True), (0.009, True), (0.02, False), (3, False)]
)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_labels_must_lie_within_a_hundredth_of_a_millimetre(
    shift: float, fits: bool, axis: int
) -> None:
    phantom = dataclasses.replace(l_phantom(), affine=turned(0.3))
    scan = Scan(phantom.masks[2].astype(np.uint8), SPACING, turned(0.3), "case1")
    moved = phantom.affine.copy()
    moved[axis, 3] += shift
    labels = dataclasses.replace(phantom, affine=moved)
    if fits:
        np.testing.assert_array_equal(labels.on(scan).affine, scan.affine)
        return
    with pytest.raises(InputError) as error:
        labels.on(scan)
    assert_one_sentence(error, "'l_phantom'", "'case1'", "another grid")


def test_labels_turned_by_little_are_refused_where_their_corners_part() -> None:
    phantom = dataclasses.replace(l_phantom(), affine=turned(0.3))
    scan = Scan(phantom.masks[2].astype(np.uint8), SPACING, turned(0.302))
    with pytest.raises(InputError, match="another grid"):
        phantom.on(scan)
    assert phantom.on(dataclasses.replace(scan, affine=turned(0.3001))).shape == scan.shape


@pytest.mark.parametrize("change", ["crop", "transpose", "resample"])
def test_labels_of_another_size_are_refused(change: str) -> None:
    phantom = l_phantom()
    voxels, spacing = phantom.masks[2].astype(np.uint8), SPACING
    match change:
        case "crop":
            voxels = voxels[:, :-1]
        case "transpose":
            voxels = voxels.transpose(0, 2, 1)
        case "resample":
            spacing = (3.0, 1.5, 0.705)
    with pytest.raises(InputError, match="another grid"):
        phantom.on(Scan(voxels, spacing))


@settings(max_examples=30)
@given(
    turn=st.sampled_from(TURNS),
    angle=st.floats(-3.2, 3.2),
    offset=st.tuples(*[st.floats(-500, 500)] * 3),
)
def test_there_and_back_is_the_same(
    turn: tuple[tuple[int, ...], tuple[int, ...]], angle: float, offset: tuple[float, float, float]
) -> None:
    affine = turned(angle)
    affine[:3, 3] = offset
    phantom = dataclasses.replace(l_phantom(), affine=affine)
    other = reordered(phantom, *turn)
    there = phantom.on(Scan(np.zeros(other.shape), other.spacing, other.affine))
    np.testing.assert_array_equal(there.masks, other.masks)
    back = there.on(Scan(np.zeros(phantom.shape), phantom.spacing, phantom.affine))
    np.testing.assert_array_equal(back.masks, phantom.masks)


# --- what is known of slices goes with them ---------------------------------------------


def predicted(affine: np.ndarray, shape: tuple[int, int, int]) -> Segmentation:
    """Labels with a baseline, of which slice 1 was edited and slice 2 accepted since."""
    labels = np.random.default_rng(0).integers(0, 4, shape).astype(np.uint8)
    baseline = slice_digests(labels)
    labels[1, 0, 0] = (labels[1, 0, 0] + 1) % 4
    provenance = {"model": "m", "baseline": baseline, "slices": [0, 1, 2], "accepted": [2]}
    return Segmentation.of_labels(
        labels, spacing=(3.0, 2.0, 1.0), affine=affine, provenance=provenance
    )


@pytest.mark.parametrize("flips", [(), (0,), (1,), (2,), (0, 1), (0, 1, 2)])
def test_what_was_edited_goes_with_the_slices_onto_a_scan(flips: tuple[int, ...]) -> None:
    shape = (5, 6, 7)
    affine = np.diag([3.0, 2.0, 1.0, 1.0])
    segmentation = predicted(affine, shape)
    turned = affine.copy()
    for axis in flips:
        turned[:3, 3] += turned[:3, axis] * (shape[axis] - 1)
        turned[:3, axis] *= -1
    moved = segmentation.on(Scan(np.zeros(shape, np.uint8), (3.0, 2.0, 1.0), turned))
    place = (lambda index: 4 - index) if 0 in flips else (lambda index: index)
    labels = moved.labels().array
    assert edited_slices(labels, moved.provenance["baseline"]) == [place(1)]
    assert moved.provenance["accepted"] == [place(2)]
    assert moved.provenance["slices"] == sorted(map(place, (0, 1, 2)))
    assert moved.provenance["model"] == "m"
    back = moved.on(Scan(np.zeros(shape, np.uint8), (3.0, 2.0, 1.0), affine))
    np.testing.assert_array_equal(back.masks, segmentation.masks)
    assert edited_slices(back.labels().array, back.provenance["baseline"]) == [1]


def test_nothing_is_known_of_slices_that_lie_across() -> None:
    affine = np.diag([3.0, 2.0, 1.0, 1.0])
    across = affine[:, [1, 0, 2, 3]]
    moved = predicted(affine, (5, 6, 7)).on(
        Scan(np.zeros((6, 5, 7), np.uint8), (2.0, 3.0, 1.0), across)
    )
    assert dict(moved.provenance) == {"model": "m"}


def test_labels_of_one_day_are_not_put_on_another() -> None:
    labels = dataclasses.replace(
        predicted(np.diag([3.0, 2.0, 1.0, 1.0]), (5, 6, 7)), name="case20_day0"
    )
    scan = Scan(np.zeros((5, 6, 7)), labels.spacing, labels.affine, name="case125_day0")
    with pytest.raises(InputError) as error:
        labels.on(scan)
    assert_one_sentence(error, "case20_day0", "case125_day0")


def test_labels_made_on_a_scan_of_another_name_say_so() -> None:
    labels = dataclasses.replace(
        predicted(np.diag([3.0, 2.0, 1.0, 1.0]), (5, 6, 7)), name="MR_series_4"
    )
    scan = Scan(np.zeros((5, 6, 7)), labels.spacing, labels.affine, name="MR_series_9")
    [remark] = labels.on(scan).remarks
    assert "MR_series_4" in remark
    assert labels.on(dataclasses.replace(scan, name="MR_series_4")).remarks == ()
