"""NIfTI: every voxel in its place, whatever the order of a file's axes, there and back."""

import dataclasses
import gzip
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gitract.io.nifti
from gitract.errors import Cancelled, InputError
from gitract.io import (
    find_scans,
    holds_labels,
    label_names,
    read_scan,
    read_segmentation,
    write_scan,
    write_segmentation,
)
from gitract.organs import ORGANS, Organ
from gitract.progress import Progress
from gitract.scan import NiftiAxes, Scan, Segmentation, axial_affine
from phantoms import abdomen_phantom, l_phantom
from sentences import assert_one_sentence

SPACING = (3.0, 1.5, 0.7)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
ORDERS = list(
    itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3))
)
# As long along each axis as no other, each voxel with a value of its own.
VALUES = np.random.default_rng(0).permutation(4 * 5 * 6).reshape(4, 5, 6).astype(np.int16)
ROTATIONS = st.tuples(*[st.floats(-0.6, 0.6)] * 3)
OFFSETS = st.tuples(*[st.floats(-400, 400)] * 3)
PLAIN = np.diag([0.7, 1.5, 3.0, 1.0])


def rotation(angles: tuple[float, float, float]) -> np.ndarray:
    """Turns about the three axes, one after the other."""
    turned = np.eye(3)
    for axis, angle in enumerate(angles):
        one, other = (i for i in range(3) if i != axis)
        turn = np.eye(3)
        turn[one, one] = turn[other, other] = np.cos(angle)
        turn[one, other], turn[other, one] = -np.sin(angle), np.sin(angle)
        turned = turned @ turn
    return turned


def placed(
    order: tuple[tuple[int, ...], tuple[int, ...]],
    angles: tuple[float, float, float] = (0.0, 0.0, 0.0),
    offset: tuple[float, float, float] = (-12.5, 30.0, 101.0),
) -> np.ndarray:
    """File index to RAS: which way each axis of the file runs, then turned and moved."""
    axes, signs = order
    affine = np.eye(4)
    for axis, (world, sign, mm) in enumerate(zip(axes, signs, (0.7, 1.5, 3.0), strict=True)):
        affine[:3, axis] = rotation(angles)[:, world] * sign * mm
    affine[:3, 3] = offset
    return affine


def write_nifti(
    path: Path,
    values: np.ndarray = VALUES,
    affine: np.ndarray | None = PLAIN,
    kind: type = nib.Nifti1Image,
    **fields: Any,
) -> Path:
    """A file made by nibabel alone, with fields of its header changed afterwards."""
    image = kind(values, affine, dtype=values.dtype)
    image.to_filename(path)
    if fields:
        content = bytearray(
            gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        )
        size = image.header.sizeof_hdr
        header = type(image.header)(bytes(content[:size]), check=False)
        for name, value in fields.items():
            header[name] = value
        content[:size] = header.binaryblock
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def points(values: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Where each value lies, in the order of the values."""
    indices = np.indices(values.shape).reshape(3, -1)
    place = affine[:3, :3] @ indices + affine[:3, 3:]
    return place.T[np.argsort(values.ravel(), kind="stable")]


def seen_by_itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Values in the file's order, and their index to LPS, as SimpleITK reads them."""
    image = sitk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, 3] = image.TransformIndexToPhysicalPoint((0, 0, 0))
    for axis in range(3):
        index = [int(axis == i) for i in range(3)]
        affine[:3, axis] = np.array(image.TransformIndexToPhysicalPoint(index)) - affine[:3, 3]
    return sitk.GetArrayFromImage(image).T, affine


def labels_on(scan: Scan) -> Segmentation:
    """A label image with no symmetry on the grid of a scan."""
    labels = np.zeros(scan.shape, np.uint8)
    labels[:2, 1:3, :3] = 3
    labels[0, 1:, 2] = 1
    return Segmentation.of_labels(labels, spacing=scan.spacing, affine=scan.affine).on(scan)


# --- every voxel in its place ---------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
def test_every_voxel_of_every_axis_order_keeps_its_place_and_its_labels_fit_the_file(
    tmp_path: Path, order: Any
) -> None:
    affine = placed(order, (0.2, -0.1, 0.3))
    path = write_nifti(tmp_path / "a.nii", affine=affine)
    scan = read_scan(path)
    np.testing.assert_allclose(
        points(scan.voxels, scan.affine), points(VALUES, LPS @ affine), atol=1e-4
    )
    closest = np.abs(scan.affine[:3, :3]).argmax(axis=0)
    assert closest.tolist() == [2, 1, 0]  # head-foot, front-back, left-right
    assert scan.shape == tuple(VALUES.shape[axis] for axis in scan.stored.order)

    labels = labels_on(scan)
    written = nib.load(write_segmentation(labels, tmp_path / "labels.nii.gz"))
    np.testing.assert_allclose(written.affine, nib.load(path).affine, atol=1e-4)
    assert written.shape == VALUES.shape
    again = read_segmentation(tmp_path / "labels.nii.gz", scan=scan)
    np.testing.assert_array_equal(again.masks, labels.masks)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.sampled_from(ORDERS), angles=ROTATIONS, offset=OFFSETS, zipped=st.booleans())
def test_simpleitk_finds_each_voxel_where_we_do(
    tmp_path: Path, order: Any, angles: Any, offset: Any, zipped: bool
) -> None:
    path = write_nifti(tmp_path / "a.nii.gz", affine=placed(order, angles, offset))
    scan = read_scan(path)
    expected = points(scan.voxels, scan.affine)
    source, source_affine = seen_by_itk(path)
    np.testing.assert_allclose(points(source, source_affine), expected, atol=2e-3)

    # ITK mixes up two files whose names differ in .gz alone.
    copy = write_scan(scan, tmp_path / ("zipped.nii.gz" if zipped else "plain.nii"))
    values, affine = seen_by_itk(copy)
    assert values.shape == source.shape
    np.testing.assert_array_equal(values, source)
    np.testing.assert_allclose(points(values, affine), expected, atol=2e-3)

    labels = labels_on(scan)
    values, affine = seen_by_itk(write_segmentation(labels, tmp_path / "labels.nii.gz"))
    np.testing.assert_allclose(affine, source_affine, atol=2e-3)
    np.testing.assert_array_equal(values.transpose(scan.stored.order), labels.labels().array)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(angles=st.tuples(*[st.floats(-3.2, 3.2)] * 3), offset=OFFSETS, flip=st.booleans())
def test_a_phantom_of_any_orientation_comes_back_as_it_went(
    tmp_path: Path, angles: Any, offset: Any, flip: bool
) -> None:
    affine = axial_affine(SPACING)
    affine[:3, :3] = rotation(angles) @ affine[:3, :3] @ np.diag([-1 if flip else 1, 1, 1])
    affine[:3, 3] = offset
    written = dataclasses.replace(l_phantom(), affine=affine)
    path = write_segmentation(written, tmp_path / "l.nii.gz")
    again = read_segmentation(path)
    np.testing.assert_array_equal(again.masks, written.masks)
    np.testing.assert_array_equal(again.affine, written.affine)
    header = nib.load(path).header
    ras = (LPS @ affine)[:, [2, 1, 0, 3]]
    np.testing.assert_allclose(header.get_sform(), ras, atol=1e-4)
    assert header["sform_code"] == 1
    if header["qform_code"]:
        np.testing.assert_allclose(header.get_qform(), ras, atol=0.01)
    values, seen = seen_by_itk(path)
    np.testing.assert_allclose(seen, LPS @ ras, atol=0.01)
    np.testing.assert_array_equal(values.T == 3, written.masks[2])


@pytest.mark.parametrize("placement", ["sform", "qform", "both"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_versions_byte_orders_and_placements(
    tmp_path: Path, placement: str, kind: type, endian: str, name: str
) -> None:
    affine = placed(ORDERS[13], (0.1, 0.2, 0.3))
    header = kind.header_class(endianness=endian)  # type: ignore[attr-defined]
    header.set_data_dtype(np.int16)
    image = kind(VALUES, None, header)
    image.set_sform(affine, 0 if placement == "qform" else 1)
    image.set_qform(affine, 0 if placement == "sform" else 1)
    nib.save(image, tmp_path / name)
    scan = read_scan(tmp_path / name)
    np.testing.assert_allclose(
        points(scan.voxels, scan.affine), points(VALUES, LPS @ affine), atol=1e-3
    )
    assert scan.voxels.dtype == np.int16
    assert scan.voxels.dtype.isnative
    assert (scan.name, scan.source, scan.remarks) == ("a", tmp_path / name, ())
    (found,) = find_scans(tmp_path / name)
    assert (found.key, found.shape, found.problem) == ("a", scan.shape, "")


def test_a_file_is_known_by_its_content_and_not_by_its_name(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii.gz").rename(tmp_path / "a.nii")
    np.testing.assert_array_equal(np.sort(read_scan(path).voxels.ravel()), np.arange(120))


def test_each_plane_is_reported_and_a_cancel_unwinds(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii.gz")
    seen: list[Progress] = []
    read_scan(path, report=seen.append)
    assert [progress.done for progress in seen] == list(range(7))
    assert seen[0].message == "Reading a.nii.gz"

    def cancel(progress: Progress) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        read_scan(path, report=cancel)


@pytest.mark.parametrize(("code", "mm"), [(0, 1), (1, 1000), (2, 1), (3, 0.001), (2 + 8, 1)])
@pytest.mark.parametrize("placement", ["sform_code", "qform_code"])
def test_units_of_length(tmp_path: Path, code: int, mm: float, placement: str) -> None:
    affine = placed(ORDERS[0])
    affine[:3] /= mm
    image = nib.Nifti1Image(VALUES, affine)
    image.set_qform(affine, 1)
    image.header["xyzt_units"] = code
    image.header["qform_code" if placement == "sform_code" else "sform_code"] = 0
    image.to_filename(tmp_path / "a.nii")
    scan = read_scan(tmp_path / "a.nii")
    assert scan.spacing == pytest.approx(SPACING)
    np.testing.assert_allclose(scan.affine[:3, 3], [12.5, -30, 101], rtol=1e-5)


def test_a_given_spacing_wins_and_keeps_the_directions(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii", affine=placed(ORDERS[13], (0.1, 0.2, 0.3)))
    own, scan = read_scan(path), read_scan(path, spacing=(5, 2, 1))
    assert scan.spacing == (5, 2, 1)
    np.testing.assert_allclose(
        scan.affine[:3, :3] / (5, 2, 1), own.affine[:3, :3] / own.spacing, atol=1e-6
    )
    np.testing.assert_array_equal(scan.affine[:3, 3], own.affine[:3, 3])


def test_a_given_spacing_mends_a_header_without_one(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii", pixdim=[1, 0, -1, 1, 1, 1, 1, 1], sform_code=0)
    assert read_scan(path, spacing=SPACING).spacing == SPACING


def test_a_file_without_a_placement_says_so(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii", sform_code=0, qform_code=0)
    scan = read_scan(path)
    assert scan.spacing == pytest.approx(SPACING)
    (remark,) = scan.remarks
    assert "position and orientation are unknown" in remark
    assert find_scans(path)[0].remarks == scan.remarks


def test_labels_of_a_scan_without_a_place_claim_none(tmp_path):
    path = write_nifti(tmp_path / "a.nii", sform_code=0, qform_code=0)
    scan = read_scan(path)
    masks = np.zeros((len(ORGANS), *scan.shape), dtype=np.bool_)
    masks[0, 0] = True
    contours = Segmentation(masks, scan.spacing, scan.affine, stored=scan.stored)
    written = nib.load(write_segmentation(contours, tmp_path / "labels.nii"))
    assert written.header["sform_code"] == written.header["qform_code"] == 0
    np.testing.assert_allclose(written.affine, nib.load(path).affine, atol=1e-6)
    np.testing.assert_array_equal(
        read_segmentation(tmp_path / "labels.nii", scan=scan).masks, masks
    )


def test_two_placements_that_disagree_are_told(tmp_path: Path) -> None:
    affine, other = placed(ORDERS[0]), placed(ORDERS[0])
    other[2, 3] += 2.5
    image = nib.Nifti1Image(VALUES, affine)
    image.set_sform(affine, 1)
    image.set_qform(other, 1)
    image.to_filename(tmp_path / "a.nii")
    scan = read_scan(tmp_path / "a.nii")
    np.testing.assert_allclose(scan.affine[:3, 3], [12.5, -30, 101], atol=1e-4)
    (remark,) = scan.remarks
    assert "2.5 mm" in remark
    assert "sform was used" in remark


def test_a_quaternion_a_little_too_long_is_read(tmp_path: Path) -> None:
    path = write_nifti(
        tmp_path / "a.nii", sform_code=0, qform_code=1, quatern_b=0.0, quatern_c=1.00001
    )
    # Half a turn about the y axis.
    np.testing.assert_allclose(read_scan(path).affine[0, 2], 0.7, rtol=1e-4)


# --- types and scales -----------------------------------------------------------------------

TYPES = [
    *(np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.uint64, np.int64),
    *(np.float32, np.float64),
]


@pytest.mark.parametrize("dtype", TYPES)
def test_types_come_back(tmp_path: Path, dtype: type) -> None:
    values = VALUES.astype(dtype)
    scan = read_scan(write_nifti(tmp_path / "a.nii.gz", values))
    assert scan.voxels.dtype == dtype
    again = read_scan(write_scan(scan, tmp_path / "b.nii.gz"))
    assert again.voxels.dtype == dtype
    np.testing.assert_array_equal(again.voxels, scan.voxels)
    np.testing.assert_array_equal(again.affine, scan.affine)
    np.testing.assert_array_equal(np.asanyarray(nib.load(tmp_path / "b.nii.gz").dataobj), values)


@pytest.mark.parametrize(
    ("stored", "read"), [(np.float16, np.float32), (np.longdouble, np.float64), (">i2", np.int16)]
)
def test_types_that_nifti_has_not_lose_nothing(tmp_path: Path, stored: Any, read: type) -> None:
    voxels = VALUES.transpose(2, 1, 0).astype(stored)
    scan = read_scan(write_scan(Scan(voxels, SPACING), tmp_path / "a.nii"))
    assert scan.voxels.dtype == read
    np.testing.assert_array_equal(scan.voxels, voxels)


def test_a_scan_too_wide_for_nifti_1_is_written_as_nifti_2(tmp_path: Path) -> None:
    voxels = np.arange(2 * 40_000, dtype=np.uint32).reshape(2, 1, 40_000)
    path = write_scan(Scan(voxels, SPACING), tmp_path / "a.nii")
    assert isinstance(nib.load(path), nib.Nifti2Image)
    np.testing.assert_array_equal(read_scan(path).voxels, voxels)


@pytest.mark.parametrize(
    ("dtype", "slope", "intercept", "expected"),
    [
        (np.uint8, 2, 0, np.uint8),
        (np.uint8, 16, 0, np.int16),
        (np.uint16, 1, -1024, np.int16),
        (np.int16, -1, 3, np.int16),
        (np.int16, 300, 0, np.uint16),
        (np.int16, 1000, -5, np.int32),
        (np.int16, 3e7, 0, np.uint32),
        (np.int16, 1e30, 0, np.float32),
        (np.int16, 0.5, 0, np.float32),
        (np.int16, 1, 0.25, np.float32),
        (np.float32, 2, 1, np.float32),
        (np.float64, 2, 1, np.float32),
        (np.int16, 0, 7, np.int16),
        (np.int16, np.nan, np.nan, np.int16),
    ],
)
def test_the_scale_is_applied(
    tmp_path: Path, dtype: type, slope: float, intercept: float, expected: type
) -> None:
    values = VALUES.astype(dtype)
    path = write_nifti(tmp_path / "a.nii", values, scl_slope=slope, scl_inter=intercept)
    voxels = read_scan(path).voxels
    assert voxels.dtype == expected
    factor, offset = (1, 0) if not slope or np.isnan(slope) else (slope, intercept)
    np.testing.assert_allclose(
        np.sort(voxels.ravel()), np.sort((values * float(factor) + offset).ravel()), rtol=1e-6
    )


# --- segmentations --------------------------------------------------------------------------


def assert_same(one: Segmentation, other: Segmentation) -> None:
    np.testing.assert_array_equal(one.labels().array, other.labels().array)
    np.testing.assert_array_equal(one.affine, other.affine)
    for field in ("spacing", "organs", "name", "slice_numbers", "provenance", "stored"):
        assert getattr(one, field) == getattr(other, field)


@pytest.mark.parametrize("name", ["out.nii", "out.nii.gz", "OUT.NII.GZ"])
def test_everything_comes_back(tmp_path: Path, name: str) -> None:
    written = dataclasses.replace(
        l_phantom(),
        name="Müller, day 3 μ",
        slice_numbers=(7, 8, 9, 10, 11),
        organs=(*ORGANS[:2], Organ(9, "duodenum", "#123456")),
        provenance={"model": "small", "baseline": ["aé", None, 3.5], "edited": [1, 2]},
        stored=NiftiAxes(0, 2, 1),
    )
    path = write_segmentation(written, tmp_path / name)
    assert_same(read_segmentation(path), written)
    assert holds_labels(path)
    assert label_names(path) == []
    assert nib.load(path).get_data_dtype() == np.uint8
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_the_same_labels_give_the_same_file(tmp_path: Path) -> None:
    one, other = (write_segmentation(l_phantom(), tmp_path / f"{i}.nii.gz") for i in (1, 2))
    assert one.read_bytes() == other.read_bytes()


def test_the_highest_organ_wins_where_they_overlap(tmp_path: Path) -> None:
    truth = abdomen_phantom()[1]
    again = read_segmentation(write_segmentation(truth, tmp_path / "a.nii.gz"))
    assert truth.labels().overlap_voxels
    np.testing.assert_array_equal(again.labels().array, truth.labels().array)


def test_a_scan_keeps_its_name_and_its_exact_affine_but_is_no_labels(tmp_path: Path) -> None:
    scan = dataclasses.replace(
        abdomen_phantom(slices=12, rows=48, columns=56)[0], slice_numbers=tuple(range(1, 13))
    )
    path = write_scan(scan, tmp_path / "a.nii.gz")
    again = read_scan(path)
    np.testing.assert_array_equal(again.voxels, scan.voxels)
    np.testing.assert_array_equal(again.affine, scan.affine)
    assert (again.name, again.slice_numbers) == (scan.name, scan.slice_numbers)
    assert not holds_labels(path)


def test_labels_cropped_elsewhere_lose_our_notes(tmp_path: Path) -> None:
    written = dataclasses.replace(l_phantom(), provenance={"baseline": [1, 2, 3, 4, 5]})
    image = nib.load(write_segmentation(written, tmp_path / "a.nii.gz"))
    nib.save(image.slicer[:, :, 1:4], tmp_path / "b.nii.gz")
    cropped = read_segmentation(tmp_path / "b.nii.gz")
    assert cropped.provenance == {}
    assert not holds_labels(tmp_path / "b.nii.gz")
    np.testing.assert_allclose(cropped.affine[:3, 3], [0, 0, -3.0], atol=1e-4)
    np.testing.assert_array_equal(cropped.masks, written.masks[:, 1:4])


@pytest.mark.parametrize("dtype", [*TYPES[:8], np.float32, np.float64])
def test_labels_of_other_programs(tmp_path: Path, dtype: type) -> None:
    path = write_nifti(tmp_path / "a.nii.gz", (VALUES % 4).astype(dtype))
    np.testing.assert_array_equal(
        read_segmentation(path).labels().array, (VALUES % 4).transpose(2, 1, 0)
    )
    assert not holds_labels(path)
    assert label_names(path) == ["1", "2", "3"]


def test_values_get_the_organs_that_are_chosen(tmp_path: Path) -> None:
    path = write_nifti(
        tmp_path / "a.nii.gz", np.array([0, 6, 13, 14] * 30, np.uint8).reshape(4, 5, 6)
    )
    segmentation = read_segmentation(path, choices={"6": "stomach", "13": "small bowel", "14": "-"})
    voxels = {
        organ.name: int(mask.sum())
        for organ, mask in zip(segmentation.organs, segmentation.masks, strict=True)
    }
    assert voxels == {"large_bowel": 0, "small_bowel": 30, "stomach": 30}
    with pytest.raises(InputError) as error:
        read_segmentation(path, choices={"6": "stomach"})
    assert_one_sentence(error, "a.nii.gz", "13")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (VALUES, "the value"),
        (VALUES * 3, "from 0 to 357"),
        ((VALUES % 2 / 2).astype(np.float32), "fractions"),
    ],
)
def test_what_is_no_label_image(tmp_path: Path, values: np.ndarray, reason: str) -> None:
    path = write_nifti(tmp_path / "a.nii", values)
    with pytest.raises(InputError) as error:
        read_segmentation(path)
    assert_one_sentence(error, "a.nii", reason)


def test_labels_of_another_scan_are_refused(tmp_path: Path) -> None:
    affine = placed(ORDERS[0])
    scan = read_scan(write_nifti(tmp_path / "a.nii", affine=affine))
    affine[0, 3] += 1
    path = write_nifti(tmp_path / "b.nii", VALUES % 4, affine)
    with pytest.raises(InputError) as error:
        read_segmentation(path, scan=scan)
    assert_one_sentence(error, "another grid")


# --- what is refused ------------------------------------------------------------------------


def with_shape(*shape: int) -> dict[str, Any]:
    return {"dim": [len(shape), *shape, *[1] * (7 - len(shape))]}


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        (with_shape(4, 5, 1, 6), ("4 axes", "6 volumes", "choose one volume")),
        (with_shape(2, 2, 5, 1, 6), ("5 axes", "6 volumes")),
        (with_shape(20, 6), ("2 axes", "20 x 6")),
        (with_shape(4, 5, 0), ("damaged",)),
        (with_shape(4, 5, -6), ("damaged",)),
        ({"dim": [9] * 8}, ("damaged",)),
        ({"dim": [0] * 8}, ("damaged",)),
        ({"datatype": 1234}, ("damaged",)),
        ({"datatype": 32}, ("complex64",)),
        ({"datatype": 128}, ("RGB",)),
        ({"datatype": 2304}, ("RGBA",)),
        ({"datatype": 1}, ("binary",)),
        ({"vox_offset": 0}, ("damaged",)),
        ({"vox_offset": np.nan}, ("damaged",)),
        ({"vox_offset": np.inf}, ("damaged",)),
        ({"vox_offset": 1e12}, ("damaged",)),
        ({"scl_slope": 2, "scl_inter": np.inf}, ("contradicts itself",)),
        ({"pixdim": [1, 0, 1, 1, 1, 1, 1, 1]}, ("0 x 1 x 1", "give the spacing")),
        ({"pixdim": [1, 1, -2, 1, 1, 1, 1, 1]}, ("1 x -2 x 1", "give the spacing")),
        ({"pixdim": [1, 1, 1, np.nan, 1, 1, 1, 1]}, ("nan", "give the spacing")),
        ({"pixdim": [1, 1, 1, np.inf, 1, 1, 1, 1]}, ("inf", "give the spacing")),
        ({"srow_x": [0, 0, 0, 0]}, ("singular",)),
        ({"srow_x": [0, 1.5, 0, 0]}, ("singular",)),
        ({"srow_y": [0, np.nan, 0, 0]}, ("not finite",)),
        ({"srow_y": [0, 1.5, 0, np.inf]}, ("not finite",)),
        ({"srow_x": [0.7, 0, 0.5, 0]}, ("not at right angles",)),
        ({"sform_code": 0, "qform_code": 1, "quatern_b": 3}, ("damaged",)),
    ],
)
def test_what_is_no_scan(tmp_path: Path, fields: dict[str, Any], parts: tuple[str, ...]) -> None:
    path = write_nifti(tmp_path / "a.nii", **fields)
    with pytest.raises(InputError) as error:
        read_scan(path)
    assert_one_sentence(error, "a.nii", *parts)
    (found,) = find_scans(path)
    assert found.problem == str(error.value)
    assert not holds_labels(path)


def test_a_trailing_axis_of_one_volume_is_no_axis(tmp_path: Path) -> None:
    assert read_scan(write_nifti(tmp_path / "a.nii", **with_shape(4, 5, 6, 1, 1))).shape == (
        6,
        5,
        4,
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers(tmp_path: Path, value: float) -> None:
    values = VALUES.astype(np.float32)
    values[1, 2, 3] = value
    with pytest.raises(InputError) as error:
        read_scan(write_nifti(tmp_path / "a.nii", values))
    assert_one_sentence(error, "a.nii", "not numbers")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.7, 0.99])
def test_truncated_files_are_damaged(tmp_path: Path, name: str, share: float) -> None:
    path = write_nifti(tmp_path / name, np.random.default_rng(0).integers(0, 9, (8, 8, 8)))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    for read in (read_scan, read_segmentation):
        with pytest.raises(InputError) as error:
            read(path)
        assert_one_sentence(error, name, "damaged")


def test_a_damaged_gzip_is_found_by_its_checksum(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii.gz")
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        read_scan(path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 720), byte=st.integers(0, 255), kind=st.integers(1, 2))
def test_one_wrong_byte_in_a_header_is_read_or_refused_but_never_a_crash(
    tmp_path: Path, place: int, byte: int, kind: int
) -> None:
    path = tmp_path / "a.nii"
    image = (nib.Nifti1Image, nib.Nifti2Image)[kind - 1](VALUES % 3, PLAIN)
    image.header.extensions.append(nib.nifti1.Nifti1Extension(6, b"a comment " * 10))
    image.to_filename(path)
    content = bytearray(path.read_bytes())
    content[place % len(content)] = byte
    path.write_bytes(content)
    for read in (read_scan, read_segmentation, label_names, find_scans):
        try:
            read(path)  # type: ignore[operator]
        except InputError as error:
            assert str(error).endswith(".")
    holds_labels(path)


@pytest.mark.parametrize("shape", [(100_000, 100_000, 10), (70_000, 2, 2), (2**40, 2**40, 2**40)])
def test_absurd_sizes_are_refused_before_they_are_allocated(
    tmp_path: Path, shape: tuple[int, int, int]
) -> None:
    path = write_nifti(tmp_path / "a.nii", kind=nib.Nifti2Image, **with_shape(*shape))
    with pytest.raises(InputError) as error:
        read_scan(path)
    assert_one_sentence(error, "a.nii", " x ".join(str(n) for n in shape), "too many")


def test_a_header_that_claims_more_than_its_gzip_can_hold_is_damaged(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii.gz", **with_shape(30_000, 30_000, 4))
    with pytest.raises(InputError, match="damaged"):
        read_scan(path)


@pytest.mark.parametrize("content", [b"", b"n+1", b"\x1f\x8b", gzip.compress(b"text"), b"x" * 600])
def test_what_is_no_nifti(tmp_path: Path, content: bytes) -> None:
    for name in ("a.nii", "a.nii.gz"):
        (tmp_path / name).write_bytes(content)
        assert not gitract.io.nifti.is_nifti(tmp_path / name)
        assert not holds_labels(tmp_path / name)
        with pytest.raises(InputError) as error:
            read_scan(tmp_path / name)
        assert_one_sentence(error, name, "damaged")
    assert not gitract.io.nifti.is_nifti(tmp_path)
    assert not gitract.io.nifti.is_nifti(tmp_path / "missing.nii")


def test_extensions_of_other_programs_are_passed_over(tmp_path: Path) -> None:
    image = nib.Nifti1Image((VALUES % 4).astype(np.uint8), PLAIN)
    ours = nib.load(write_segmentation(labels_on(Scan(VALUES, SPACING)), tmp_path / "o.nii"))
    for code, content in ((4, b"\xff<xml>"), (6, b"a comment"), (2, b"no DICOM"), (44, b"{")):
        image.header.extensions.append(nib.nifti1.Nifti1Extension(code, content))
    image.to_filename(tmp_path / "a.nii")
    assert read_segmentation(tmp_path / "a.nii").organs == ORGANS
    ours.header.extensions.insert(0, nib.nifti1.Nifti1Extension(4, b"<xml>"))
    ours.to_filename(tmp_path / "b.nii")
    assert holds_labels(tmp_path / "b.nii")


def test_padding_after_the_extensions_is_passed_over(tmp_path: Path) -> None:
    path = write_segmentation(l_phantom(), tmp_path / "a.nii")
    content = path.read_bytes()
    header = nib.Nifti1Header(content[:348])
    start = int(header["vox_offset"])
    header["vox_offset"] = start + 64
    path.write_bytes(header.binaryblock + content[348:start] + bytes(64) + content[start:])
    np.testing.assert_array_equal(read_segmentation(path).masks, l_phantom().masks)


@pytest.mark.parametrize(
    "notes",
    [
        {},
        {"nifti_axes": [0, 1, 5]},
        {"nifti_axes": [0, 1]},
        {"nifti_axes": "210"},
        {"shape": [5, 9, 12], "affine": "none", "spacing": [3, 1.5, 0.7]},
    ],
)
def test_damaged_notes_are_refused(tmp_path: Path, notes: dict[str, Any]) -> None:
    image = nib.Nifti1Image((VALUES % 4).astype(np.uint8), PLAIN)
    text = json.dumps({"format": "gitract segmentation", **notes}).encode()
    image.header.extensions.append(nib.nifti1.Nifti1Extension(6, text))
    image.to_filename(tmp_path / "a.nii")
    with pytest.raises(InputError) as error:
        read_segmentation(tmp_path / "a.nii")
    assert_one_sentence(error, "a.nii", "damaged")
    assert not holds_labels(tmp_path / "a.nii")


# --- failed writes --------------------------------------------------------------------------

_ON_A_FULL_DISK = """
import resource, sys
import numpy as np
from pathlib import Path
from gitract.errors import InputError
from gitract.io import write_scan
from gitract.scan import Scan

noise = np.random.default_rng(0).integers(0, 2**16, (20, 64, 64)).astype(np.uint16)
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
try:
    write_scan(Scan(noise, (3, 1, 1)), Path(sys.argv[1]))
except InputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of a file")
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.tif"])
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, name: str) -> None:
    path = write_segmentation(l_phantom(), tmp_path / name)
    before = path.read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", _ON_A_FULL_DISK, str(path)], capture_output=True, text=True
    )
    assert "could not be written" in done.stdout, done.stderr
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [name]


def test_an_interrupted_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    path = write_segmentation(l_phantom(), tmp_path / "a.nii.gz")
    before = path.read_bytes()
    monkeypatch.setattr("nibabel.nifti1.Nifti1Header.write_to", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_scan(abdomen_phantom(slices=3, rows=48, columns=56)[0], path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.nii.gz"]


# --- real files -----------------------------------------------------------------------------

REAL = [
    "other/amos_mri_0540/amos_0540.nii.gz",
    "other/totalseg_tests/example_mr_sm.nii.gz",
    "other/totalseg_tests/example_ct_sm.nii.gz",
    "dicom/rtstruct_ct4/Image.nii.gz",
]


@pytest.mark.data
@pytest.mark.parametrize("file", REAL)
def test_real_scans_lie_where_simpleitk_sees_them(
    shared_data: Path, tmp_path: Path, file: str
) -> None:
    scan = read_scan(shared_data / file)
    assert scan.remarks == ()
    for path in (shared_data / file, write_scan(scan, tmp_path / "copy.nii.gz")):
        values, affine = seen_by_itk(path)
        np.testing.assert_array_equal(values.transpose(scan.stored.order), scan.voxels)
        np.testing.assert_allclose(affine[:, [*scan.stored.order, 3]], scan.affine, atol=2e-3)
    labels = Segmentation.of_labels(
        (scan.voxels > scan.voxels.mean()).astype(np.uint8),
        spacing=scan.spacing,
        affine=scan.affine,
    ).on(scan)
    written = nib.load(write_segmentation(labels, tmp_path / "labels.nii.gz"))
    source = nib.load(shared_data / file)
    assert written.shape == source.shape
    np.testing.assert_allclose(written.affine, source.affine, atol=1e-4)


@pytest.mark.data
@pytest.mark.parametrize(
    ("scan", "labels", "choices"),
    [
        (
            "other/amos_mri_0540/amos_0540.nii.gz",
            "other/amos_mri_0540/amos_0540_label.nii.gz",
            {"7": "stomach", "13": "duodenum"},
        ),
        (
            "other/totalseg_tests/example_mr_sm.nii.gz",
            "other/totalseg_tests/example_seg_mr.nii.gz",
            {"6": "stomach", "13": "small_bowel", "14": "duodenum", "15": "colon"},
        ),
        ("dicom/rtstruct_ct4/Image.nii.gz", "dicom/rtstruct_ct4/Mask.nii.gz", {"1": "gtv"}),
    ],
)
def test_real_labels_lie_on_their_scan(
    shared_data: Path, tmp_path: Path, scan: str, labels: str, choices: dict[str, str]
) -> None:
    image = read_scan(shared_data / scan)
    values = label_names(shared_data / labels)
    everything = dict.fromkeys(values, "-") | {
        value: organ for value, organ in choices.items() if value in values
    }
    segmentation = read_segmentation(shared_data / labels, scan=image, choices=everything)
    stored = np.asanyarray(nib.load(shared_data / labels).dataobj).transpose(image.stored.order)
    named = {
        organ.name: mask
        for organ, mask in zip(segmentation.organs, segmentation.masks, strict=True)
    }
    names = {"colon": "large_bowel"}
    assert everything != dict.fromkeys(values, "-")
    for value in set(values) & set(choices):
        organ = names.get(choices[value], choices[value])
        np.testing.assert_array_equal(named[organ], stored == int(value))
    again = read_segmentation(write_segmentation(segmentation, tmp_path / "a.nii.gz"), scan=image)
    np.testing.assert_array_equal(again.masks, segmentation.masks)


@pytest.mark.data
def test_a_real_series_of_volumes_is_refused(shared_data: Path) -> None:
    path = shared_data / "dicom/enhanced_mr/Siemens_REST1_w_SMS_PF7-8_6.nii"
    with pytest.raises(InputError) as error:
        read_scan(path)
    assert_one_sentence(error, "4 volumes")


def test_notes_do_not_stand_against_another_affine(tmp_path: Path) -> None:
    """0.6 % more a pixel is under any tolerance there, and millimetres at the far side."""
    scan, truth = abdomen_phantom(slices=4, rows=200, columns=200)
    path = write_segmentation(truth, tmp_path / "a.nii")
    image = nib.load(path)
    affine = image.affine @ np.diag([1.006, 1.006, 1, 1])
    image.set_sform(affine)
    image.set_qform(affine)
    changed = nib.Nifti1Image(np.asanyarray(image.dataobj), None, image.header)
    nib.save(changed, tmp_path / "b.nii")
    again = read_segmentation(tmp_path / "b.nii")
    assert again.spacing[1:] == pytest.approx([1.006 * mm for mm in scan.spacing[1:]], rel=1e-4)
    assert not again.provenance
