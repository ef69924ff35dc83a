"""DICOM series: every voxel at its place in the body, or one sentence that says why not."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from dicom_phantoms import PATIENT, write_classic_series, write_enhanced
from gitract.errors import Cancelled, InputError
from gitract.io import can_read_folder, dicom, find_scans, read_scan, write_scan
from gitract.progress import Progress
from gitract.scan import DicomSeries, Scan, Segmentation, Spacing
from phantoms import abdomen_phantom, l_phantom
from sentences import assert_one_sentence

SPACING = (3.0, 1.5, 0.7)


def oblique(angles: tuple[float, float, float], spacing: Spacing, origin: Any) -> np.ndarray:
    """A right-handed affine, turned about all three axes (radians)."""
    turned = np.eye(3)
    for axis, angle in enumerate(angles):
        sine, cosine = np.sin(angle), np.cos(angle)
        one, other = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[[one, one, other, other], [one, other, one, other]] = cosine, -sine, sine, cosine
        turned = turned @ turn
    affine = np.eye(4)
    # The slices' normal is rows' direction x columns' direction: (slice, row, column) is (z, y, x).
    affine[:3, :3] = turned[:, [2, 1, 0]] * spacing
    affine[:3, 3] = origin
    return affine


def phantom(
    shape: tuple[int, int, int] = (6, 9, 12),
    dtype: Any = np.uint16,
    affine: np.ndarray | None = None,
    spacing: Spacing = SPACING,
    seed: int = 0,
) -> Scan:
    """Noise, so that each voxel is told from its neighbours, in an oblique position."""
    limits = np.iinfo(dtype)
    voxels = np.random.default_rng(seed).integers(limits.min, limits.max, shape, dtype, True)
    if affine is None:
        affine = oblique((0.2, -0.3, 0.1), spacing, (-91.5, 40.25, -310.125))
    return Scan(voxels, spacing, affine)


def corners(scan: Scan) -> np.ndarray:
    """Where the eight corners of a scan lie, mm."""
    indices = np.array(list(np.ndindex(2, 2, 2))) * (np.array(scan.shape) - 1)
    return indices @ scan.affine[:3, :3].T + scan.affine[:3, 3]


def assert_same_body(scan: Scan, other: Scan) -> None:
    """The same values at the same places within 0.01 mm, in the same order."""
    np.testing.assert_array_equal(scan.voxels, other.voxels)
    np.testing.assert_allclose(corners(scan), corners(other), atol=0.01)
    assert scan.spacing == pytest.approx(other.spacing, rel=1e-4)


def change(path: Path, **values: Any) -> None:
    """Attributes of a file on disk."""
    item = pydicom.dcmread(path)
    for name, value in values.items():
        setattr(item, name, value)
    item.save_as(path)


def refused(path: Any, *parts: str, **options: Any) -> None:
    """Reading fails with one sentence, which a list of scans says beforehand."""
    with pytest.raises(InputError) as error:
        read_scan(path, **options)
    assert_one_sentence(error, *parts)


def refused_beforehand(path: Path, *parts: str) -> None:
    """As `refused`, and headers are enough to tell."""
    refused(path, *parts)
    (found,) = find_scans(path)
    for part in parts:
        assert part in found.problem


# --- where voxels lie -------------------------------------------------------------------


@settings(max_examples=25)
@given(
    angles=st.tuples(*[st.floats(-3.1, 3.1)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 12.0)] * 3),
    origin=st.tuples(*[st.floats(-800, 800)] * 3),
    shape=st.tuples(st.integers(2, 9), st.integers(1, 12), st.integers(1, 12)),
    dtype=st.sampled_from([np.uint8, np.uint16, np.int16]),
    order=st.sampled_from(["sorted", "reversed", "shuffled"]),
    enhanced=st.booleans(),
    shared=st.booleans(),
)
def test_every_voxel_comes_back_at_its_place(
    tmp_path_factory: pytest.TempPathFactory,
    angles: tuple[float, float, float],
    spacing: Spacing,
    origin: Any,
    shape: tuple[int, int, int],
    dtype: Any,
    order: str,
    enhanced: bool,
    shared: bool,
) -> None:
    scan = phantom(shape, dtype, oblique(angles, spacing, origin), spacing)
    folder = tmp_path_factory.mktemp("series")
    if enhanced:
        path = write_enhanced(folder / "a.dcm", scan, order=order, shared=shared)
    else:
        write_classic_series(path := folder, scan, order=order)
    found = read_scan(path)
    assert_same_body(found, scan)
    assert found.voxels.dtype == dtype
    assert found.voxels.dtype.isnative


@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_gdcm_reads_the_same_body(tmp_path: Path, modality: str) -> None:
    paths = write_classic_series(
        tmp_path, phantom(dtype=np.int16), modality=modality, slope=2, intercept=-1024
    )
    assert_as_gdcm(tmp_path, read_scan(tmp_path))
    assert len(paths) == 6


def assert_as_gdcm(folder: Path, scan: Scan) -> None:
    """Origin, directions, spacing and values as SimpleITK reads them."""
    reader = SimpleITK.ImageSeriesReader()
    (series,) = reader.GetGDCMSeriesIDs(str(folder))
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder), series))
    image = reader.Execute()
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), scan.voxels)
    directions = np.array(image.GetDirection()).reshape(3, 3)  # columns: x, y, z of the image
    affine = np.eye(4)
    affine[:3, :3] = (directions * image.GetSpacing())[:, ::-1]
    affine[:3, 3] = image.GetOrigin()
    np.testing.assert_allclose(
        corners(scan), corners(replace(scan, affine=affine)), atol=0.01, rtol=0
    )


def test_slices_against_the_normal_come_back_sorted_at_the_same_places(tmp_path: Path) -> None:
    scan, _ = abdomen_phantom(slices=5, rows=12, columns=14)  # from head to feet
    write_classic_series(tmp_path, scan)
    found = read_scan(tmp_path)
    np.testing.assert_array_equal(found.voxels, scan.voxels[::-1])
    np.testing.assert_allclose(found.affine @ (4, 3, 2, 1), scan.affine @ (0, 3, 2, 1), atol=1e-6)


def test_a_given_spacing_replaces_that_of_the_files(tmp_path: Path) -> None:
    write_classic_series(tmp_path, phantom())
    scan = read_scan(tmp_path, spacing=(5.0, 2.0, 2.0))
    assert scan.spacing == (5.0, 2.0, 2.0)
    np.testing.assert_allclose(scan.affine[:3, 3], phantom().affine[:3, 3], atol=1e-4)


# --- values -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "slope", "intercept", "expected"),
    [
        (np.uint16, 1, 0, np.uint16),
        (np.uint8, 1, -1024, np.int16),
        (np.uint8, 2, 0, np.int16),
        (np.int16, 1, -1024, np.int32),
        (np.int16, 1, 32768, np.uint16),
        (np.uint16, 1, -32768, np.int16),
        (np.uint16, 3, 5, np.int32),
        (np.uint16, 0.5, 0, np.float32),
        (np.int16, 1, 0.25, np.float32),
    ],
)
@pytest.mark.parametrize("enhanced", [False, True])
def test_slope_and_intercept_are_applied_in_the_smallest_type(
    tmp_path: Path, dtype: Any, slope: float, intercept: float, expected: Any, enhanced: bool
) -> None:
    scan = phantom(dtype=dtype)
    scan.voxels[0, 0, :2] = np.iinfo(dtype).min, np.iinfo(dtype).max
    if enhanced:
        write_enhanced(tmp_path / "a.dcm", scan, slope=slope, intercept=intercept)
    else:
        write_classic_series(tmp_path, scan, slope=slope, intercept=intercept)
    found = read_scan(tmp_path)
    assert found.voxels.dtype == expected
    np.testing.assert_allclose(
        found.voxels, scan.voxels * float(slope) + intercept, rtol=1e-6, atol=0
    )


@pytest.mark.parametrize(("slope", "expected"), [("3", np.int32), ("0.1", np.float32)])
def test_each_slice_has_its_own_scale(tmp_path: Path, slope: str, expected: Any) -> None:
    scan = phantom()
    paths = write_classic_series(tmp_path, scan)
    change(paths[2], RescaleSlope=slope, RescaleIntercept="-7")
    wanted = scan.voxels.astype(float)
    wanted[2] = wanted[2] * float(slope) - 7
    found = read_scan(tmp_path)
    assert found.voxels.dtype == expected
    np.testing.assert_allclose(found.voxels, wanted, rtol=1e-6)


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless, JPEGLSLossless],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_transfer_syntaxes_are_read_without_loss(tmp_path: Path, syntax: str, dtype: Any) -> None:
    scan = smooth(dtype)
    write_classic_series(tmp_path, scan, transfer_syntax=syntax)
    assert_same_body(read_scan(tmp_path), scan)


def smooth(dtype: Any = np.uint16) -> Scan:
    """Values that compress, unlike noise, and no two rows alike."""
    values = np.arange(4 * 40 * 36).reshape(4, 40, 36) // 30 % 251
    return replace(phantom((4, 40, 36)), voxels=values.astype(dtype))


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_expb.dcm",
        "MR_small_implicit.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_padded.dcm",
    ],
)
def test_files_of_other_encoders_hold_the_same_image(tmp_path: Path, name: str) -> None:
    expected = pydicom.dcmread(_bundled("MR_small.dcm")).pixel_array
    for index in range(2):
        item = pydicom.dcmread(_bundled(name))
        item.ImagePositionPatient[2] += 5.0 * index
        item.SOPInstanceUID = item.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        item.save_as(tmp_path / f"{index}")
    scan = read_scan(tmp_path)
    np.testing.assert_array_equal(scan.voxels, [expected, expected])
    assert scan.spacing == pytest.approx((5, 0.3125, 0.3125))


def _bundled(name: str) -> str:
    return str(get_testdata_file(name, download=False))


@pytest.mark.parametrize("enhanced", [False, True])
def test_files_without_preamble_and_meta_are_read(tmp_path: Path, enhanced: bool) -> None:
    scan = phantom()
    if enhanced:
        paths = [write_enhanced(tmp_path / "a.dcm", scan)]
    else:
        paths = write_classic_series(tmp_path, scan)
    for path in paths:
        item = pydicom.dcmread(path)
        item.preamble = None
        del item.file_meta
        pydicom.dcmwrite(path, item, implicit_vr=True, little_endian=True)
        assert path.read_bytes()[128:132] != b"DICM"
        assert dicom.kind_of(path) == "dicom"
    assert_same_body(read_scan(tmp_path), scan)


def test_deflated_multi_frame_images_are_read(tmp_path: Path) -> None:
    path = write_enhanced(tmp_path / "a.dcm", phantom())
    item = pydicom.dcmread(path)
    item.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    item.save_as(path)
    assert_same_body(read_scan(path), phantom())


# --- what is found ----------------------------------------------------------------------


def test_series_are_listed_by_number_with_what_tells_them_apart(tmp_path: Path) -> None:
    write_classic_series(tmp_path / "x" / "y", phantom(), number=12, description="t1 fs")
    write_classic_series(tmp_path, phantom((3, 4, 5)), number=4, description="haste")
    write_classic_series(tmp_path, phantom(), number=4, prefix="B", modality="CT")
    write_enhanced(tmp_path / "mf" / "e.dcm", phantom(), number=4)
    (tmp_path / "readme.txt").write_text("no image")
    found = find_scans(tmp_path)
    assert [one.key for one in found] == ["4", "4-2", "4-3", "12"]
    assert found[-1].title == "MR t1 fs"
    assert {one.date for one in found} == {"2024-01-31"}
    assert (3, 4, 5) in [one.shape for one in found]
    assert not any(one.problem or one.remarks for one in found)
    for one in found:
        assert read_scan(tmp_path, key=one.key).shape == one.shape
    refused(tmp_path, "4 scans", "12: MR t1 fs")
    refused(tmp_path, "'5'", key="5")


def test_one_file_stands_for_its_series(tmp_path: Path) -> None:
    first = write_classic_series(tmp_path, phantom(), number=1)
    write_classic_series(tmp_path, phantom(seed=1), number=2, prefix="other")
    enhanced = write_enhanced(tmp_path / "e.dcm", phantom(seed=2), number=3)
    assert_same_body(read_scan(first[3]), phantom())
    assert_same_body(read_scan(enhanced), phantom(seed=2))
    assert len(find_scans(first[0])) == 1


def test_several_files_are_read_as_their_series(tmp_path: Path) -> None:
    paths = write_classic_series(tmp_path, phantom())
    scan = read_scan(paths[1:4])
    np.testing.assert_array_equal(scan.voxels, phantom().voxels[1:4])
    with pytest.raises(InputError):
        read_scan([paths[0], paths[1], paths[3]])


def test_other_dicom_files_are_no_scans(tmp_path: Path) -> None:
    names = ["rtstruct.dcm", "rtplan.dcm", "rtdose.dcm", "liver_1frame.dcm", "test-SR.dcm"]
    for name in names:
        shutil.copy(_bundled(name), tmp_path)
    kinds = [dicom.kind_of(tmp_path / name) for name in names]
    assert kinds == ["rtstruct", "dicom", "dicom", "seg", "dicom"]
    assert not can_read_folder(tmp_path)
    refused(tmp_path / "rtplan.dcm", "rtplan.dcm", "without images")
    write_classic_series(tmp_path, phantom())
    assert can_read_folder(tmp_path)
    assert_same_body(read_scan(tmp_path), phantom())


def test_folders_of_other_files_are_not_taken(tmp_path: Path) -> None:
    for index in range(20):
        (tmp_path / f"{index}.jpg").write_bytes(b"\xff\xd8" * 100)
        (tmp_path / f"{index}").write_bytes(b"\x08\0" * 100)
    (tmp_path / "a.dcm").write_bytes(b"")
    assert not can_read_folder(tmp_path)
    assert not can_read_folder(tmp_path / "not there")
    assert not can_read_folder(tmp_path / "a.dcm")
    write_classic_series(tmp_path / "patient" / "study" / "series", phantom())
    assert can_read_folder(tmp_path)
    assert_same_body(read_scan(tmp_path), phantom())


def test_of_many_files_in_many_folders_a_bounded_number_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        (tmp_path / f"{number}").mkdir()
        for name in range(1200):
            (tmp_path / f"{number}" / f"{name}.txt").touch()
    looked_at = []
    scandir = os.scandir

    @contextmanager
    def counting(folder: Path) -> Iterator[Iterator[os.DirEntry[str]]]:
        with scandir(folder) as entries:
            yield (looked_at.append(entry.name) or entry for entry in entries)

    monkeypatch.setattr(os, "scandir", counting)
    assert not dicom.can_read_folder(tmp_path)
    assert 1200 < len(looked_at) <= 4000


@settings(max_examples=30)
@given(content=st.binary(max_size=300), preamble=st.booleans())
def test_garbage_is_no_dicom_file(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, preamble: bool
) -> None:
    path = tmp_path_factory.mktemp("garbage") / "a.dcm"
    path.write_bytes((bytes(128) + b"DICM" if preamble else b"\x08\0") + content)
    assert dicom.kind_of(path) in (None, "dicom", "seg", "rtstruct")
    with pytest.raises(InputError):
        read_scan(path)


@pytest.mark.filterwarnings("error")  # a warning would quote the header
@settings(max_examples=40)
@given(
    changes=st.lists(
        st.tuples(st.integers(128, 1400), st.integers(0, 255)), min_size=1, max_size=6
    ),
    enhanced=st.booleans(),
)
def test_damaged_headers_are_read_or_refused_with_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], enhanced: bool
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    if enhanced:
        path = write_enhanced(folder / "a.dcm", phantom())
    else:
        path = write_classic_series(folder, phantom())[1]
    content = bytearray(path.read_bytes())
    for place, value in changes:
        content[place % len(content)] = value
    path.write_bytes(content)
    for read in (read_scan, find_scans):
        try:
            read(folder)
        except InputError as error:
            assert str(error).endswith(".")
    assert dicom.find_referenced(folder / "rs.dcm", "1.2", {"1.3"}) is None


def test_an_attribute_of_an_unknown_kind_in_one_file_is_refused(tmp_path: Path) -> None:
    path = write_classic_series(tmp_path, phantom())[1]
    rows = b"\x28\x00\x10\x00US"  # tag and kind
    content = path.read_bytes()
    assert content.count(rows) == 1
    path.write_bytes(content.replace(rows, rows[:-1] + b"\0"))
    with pytest.raises(InputError) as error:
        read_scan(tmp_path)
    assert_one_sentence(error, "damaged")


def test_nothing_that_names_the_patient_is_kept(tmp_path: Path) -> None:
    write_classic_series(tmp_path / "a", phantom())
    write_enhanced(tmp_path / "b.dcm", phantom(), SeriesDescription="t2 of Jane Doe")
    for path, name in ((tmp_path / "a", "MR_series_5"), (tmp_path / "b.dcm", "MR_series_7")):
        scan = read_scan(path)
        assert scan.name == name
        assert scan.source == path
        known = repr((scan.name, scan.remarks, scan.stored, scan.slice_numbers))
        for part in ("Jane", "Doe", "4711-0815", "19500101", "Hospital", PATIENT):
            assert part not in known


def test_the_series_is_kept_in_the_order_of_the_slices(tmp_path: Path) -> None:
    paths = write_classic_series(tmp_path / "a", phantom())
    series = dicom.series_of(read_scan(tmp_path / "a"))
    assert [image.path for image in series.images] == paths
    headers = dicom.headers(series)
    assert [item.SOPInstanceUID for item in headers] == [i.sop_instance_uid for i in series.images]
    assert all(item.PatientName == PATIENT and "PixelData" not in item for item in headers)
    assert {item.SeriesInstanceUID for item in headers} == {series.series_uid}
    assert {item.StudyInstanceUID for item in headers} == {series.study_uid}
    assert {item.FrameOfReferenceUID for item in headers} == {series.frame_of_reference_uid}


def test_a_multi_frame_image_is_kept_with_its_frames(tmp_path: Path) -> None:
    path = write_enhanced(tmp_path / "a.dcm", phantom(), order="reversed")
    series = dicom.series_of(read_scan(path))
    assert [image.frame for image in series.images] == [6, 5, 4, 3, 2, 1]
    (header,) = dicom.headers(series)
    assert header.NumberOfFrames == 6


def test_headers_must_be_those_of_the_scan(tmp_path: Path) -> None:
    paths = write_classic_series(tmp_path, phantom())
    series = dicom.series_of(read_scan(tmp_path))
    change(paths[1], SOPInstanceUID=generate_uid())
    with pytest.raises(InputError) as error:
        dicom.headers(series)
    assert_one_sentence(error, str(paths[1]))
    paths[1].unlink()
    with pytest.raises(InputError):
        dicom.headers(series)


def test_labels_of_no_series_cannot_refer_to_one() -> None:
    for item in (l_phantom(), phantom()):
        with pytest.raises(InputError) as error:
            dicom.series_of(item)
        assert_one_sentence(error, item.name, ".dcm")


def test_a_series_whose_uids_were_emptied_is_read_with_a_remark(tmp_path: Path) -> None:
    for path in write_classic_series(tmp_path, phantom()):
        change(path, SeriesInstanceUID="", SOPInstanceUID="", SOPClassUID="")
    scan = read_scan(tmp_path)
    assert_same_body(scan, phantom())
    assert scan.stored is None
    assert "UID" in scan.remarks[0]


def test_progress_is_reported_and_can_end_the_reading(tmp_path: Path) -> None:
    write_classic_series(tmp_path, phantom())
    seen: list[Progress] = []
    read_scan(tmp_path, report=seen.append)
    assert [one.done for one in seen if one.message == "Reading MR_series_5"] == list(range(7))

    def cancel(progress: Progress) -> None:
        if progress.message.startswith("Reading") and progress.done == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        read_scan(tmp_path, report=cancel)


# --- the scan that contours refer to ----------------------------------------------------


@pytest.mark.parametrize("place", [".", "sub", "..", "../beside"])
def test_the_scan_of_contours_is_found_near_them(tmp_path: Path, place: str) -> None:
    contours = tmp_path / "patient" / "contours" / "rs.dcm"
    contours.parent.mkdir(parents=True)
    write_classic_series(contours.parent, phantom(seed=1), number=3, prefix="other")
    write_classic_series(contours.parent / place, phantom(), number=4)
    scan = read_scan(contours.parent / place, key="4")
    series = dicom.series_of(scan)
    found = dicom.find_referenced(contours, series.series_uid, set())
    assert found is not None
    assert found.stored == series or place.startswith("..")
    assert_same_body(found, phantom())
    assert dicom.find_referenced(contours, generate_uid(), {generate_uid()}) is None


def test_the_scan_of_contours_is_found_by_its_images(tmp_path: Path) -> None:
    write_classic_series(tmp_path, phantom(seed=1), prefix="other")
    write_classic_series(tmp_path, phantom(), number=4)
    series = dicom.series_of(read_scan(tmp_path, key="4"))
    instances = {image.sop_instance_uid for image in series.images[:2]}
    for uid in (None, generate_uid()):
        found = dicom.find_referenced(tmp_path / "rs.dcm", uid, instances)
        assert found is not None
        assert found.stored == series


def test_one_of_several_multi_frame_images_of_a_series_is_found(tmp_path: Path) -> None:
    uid = generate_uid()
    for seed in range(3):
        write_enhanced(tmp_path / f"{seed}.dcm", phantom(seed=seed), SeriesInstanceUID=uid)
    (image, *_) = dicom.series_of(read_scan(tmp_path / "1.dcm")).images
    found = dicom.find_referenced(tmp_path / "seg.dcm", uid, {image.sop_instance_uid})
    assert found is not None
    assert_same_body(found, phantom(seed=1))
    assert dicom.find_referenced(tmp_path / "seg.dcm", uid, set()) is None


# --- what is refused --------------------------------------------------------------------


def test_a_missing_slice_is_refused(tmp_path: Path) -> None:
    write_classic_series(tmp_path, phantom(), drop=[3])
    refused_beforehand(tmp_path, "slices 2 and 3", "6 mm", "3 mm", "a slice is missing")


def test_uneven_gaps_are_refused(tmp_path: Path) -> None:
    paths = write_classic_series(tmp_path, phantom())
    shift(paths[3], 0.05)
    refused_beforehand(tmp_path, "slices 2 and 3", "3.05 mm")


def shift(path: Path, along: float, across: float = 0.0) -> None:
    """Move a slice along its normal and along its rows, mm."""
    item = pydicom.dcmread(path)
    rows, columns = np.array(item.ImageOrientationPatient, dtype=float).reshape(2, 3)
    moved = np.cross(rows, columns) * along + rows * across
    position = np.array(item.ImagePositionPatient, dtype=float) + moved
    change(path, ImagePositionPatient=[f"{mm:.9g}" for mm in position])


def test_small_differences_must_not_add_up(tmp_path: Path) -> None:
    paths = write_classic_series(tmp_path, phantom((40, 4, 5)))
    for index, path in enumerate(paths):
        shift(path, 0.02 * min(index, 20))
    refused_beforehand(tmp_path, "slice 20", "equally spaced")


def test_rounded_positions_are_read(tmp_path: Path) -> None:
    scan = phantom(spacing=(10 / 3, 0.7, 0.7))
    for path in write_classic_series(tmp_path, scan):
        position = pydicom.dcmread(path).ImagePositionPatient
        change(path, ImagePositionPatient=[f"{mm:.3f}" for mm in position])
    assert_same_body(read_scan(tmp_path), scan)


def test_a_tilted_gantry_is_refused_with_its_angle(tmp_path: Path) -> None:
    for index, path in enumerate(write_classic_series(tmp_path, phantom())):
        shift(path, 0, 3 * np.tan(np.radians(12.5)) * index)
    refused_beforehand(tmp_path, "tilted gantry", "12.5 degrees")


def test_a_slice_beside_the_stack_is_refused(tmp_path: Path) -> None:
    shift(write_classic_series(tmp_path, phantom())[2], 0, 2.0)
    refused_beforehand(tmp_path, "slice 2", "shifted by 2 mm")


def test_two_images_of_one_plane_are_refused(tmp_path: Path) -> None:
    paths = write_classic_series(tmp_path, phantom())
    other = pydicom.dcmread(paths[2])
    other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    other.save_as(tmp_path / "copy.dcm")
    refused_beforehand(tmp_path, "copy.dcm", paths[2].name, "one position")


def test_several_images_at_each_position_are_refused(tmp_path: Path) -> None:
    uid = generate_uid()
    for prefix in ("echo1", "echo2", "echo3"):
        write_classic_series(
            tmp_path / "a", phantom(), prefix=prefix, series_uid=uid, frame_of_reference_uid="1.2.3"
        )
    refused_beforehand(tmp_path / "a", "3 images at each of 6 positions", "time points")
    write_enhanced(tmp_path / "b.dcm", phantom(), times=2)
    refused_beforehand(tmp_path / "b.dcm", "2 images at each of 6 positions")


def test_a_localizer_is_refused(tmp_path: Path) -> None:
    paths = write_classic_series(tmp_path, phantom())
    change(paths[0], ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    refused_beforehand(tmp_path, "different directions")


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"ImagePositionPatient": None}, ["no ImagePositionPatient"]),
        ({"ImageOrientationPatient": None}, ["no ImageOrientationPatient"]),
        ({"PixelSpacing": None}, ["no PixelSpacing"]),
        ({"PixelSpacing": [0, 1]}, ["pixel spacing of 0 x 1 mm"]),
        ({"PixelSpacing": [1, -1]}, ["pixel spacing of 1 x -1 mm"]),
        ({"ImageOrientationPatient": [0, 0, 0, 0, 1, 0]}, ["length 0 and 1"]),
        ({"ImageOrientationPatient": [1, 0, 0, 0.6, 0.8, 0]}, ["right angles"]),
        ({"ImagePositionPatient": [1, 2]}, ["no usable ImagePositionPatient"]),
        ({"RescaleSlope": "0", "RescaleIntercept": "1"}, ["RescaleSlope"]),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}, ["mosaic"]),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, ["colour image (RGB)"]),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, ["colour image (PALETTE COLOR)"]),
        ({"BitsAllocated": 64}, ["64 bits"]),
        ({"PixelData": None}, ["no pixel data"]),
        ({"Rows": 60000}, ["damaged"]),
        ({"NumberOfFrames": 2}, ["2 frames"]),
        ({"ConcatenationUID": "1.2.3"}, ["one part"]),
    ],
)
def test_headers_that_do_not_make_a_scan_are_refused(
    tmp_path: Path, values: dict[str, Any], parts: list[str]
) -> None:
    write_classic_series(tmp_path, phantom(), **values)
    if values == {"NumberOfFrames": 2}:  # or it would break off, too
        write_classic_series(tmp_path, phantom(), NumberOfFrames=2, Rows=4)
    refused_beforehand(tmp_path, *parts)


def test_different_sizes_and_pixel_spacings_are_refused(tmp_path: Path) -> None:
    uid, place = generate_uid(), generate_uid()
    for name, other in (("size", phantom((6, 9, 13))), ("spacing", phantom(spacing=(3, 1, 0.7)))):
        for prefix, scan, drop in (("a", phantom(), (4, 5)), ("b", other, (0, 1, 2, 3))):
            write_classic_series(
                tmp_path / name,
                scan,
                prefix=prefix,
                drop=drop,
                series_uid=uid,
                frame_of_reference_uid=place,
            )
    refused_beforehand(tmp_path / "size", "different sizes", "9 x 12", "9 x 13")
    refused_beforehand(tmp_path / "spacing", "different pixel spacings", "1.5 x 0.7", "1 x 0.7")


def test_several_frames_of_reference_are_refused(tmp_path: Path) -> None:
    paths = write_classic_series(tmp_path, phantom())
    change(paths[0], FrameOfReferenceUID=generate_uid())
    refused_beforehand(tmp_path, "frames of reference")


def test_one_slice_is_refused(tmp_path: Path) -> None:
    write_classic_series(tmp_path, phantom(), drop=[1, 2, 3, 4, 5])
    refused_beforehand(tmp_path, "one slice")


def test_absurd_sizes_are_refused_before_any_voxel_is_read(tmp_path: Path) -> None:
    path = write_enhanced(tmp_path / "a.dcm", phantom(), Rows=65535, Columns=65535)
    item = pydicom.dcmread(path)
    item.file_meta.TransferSyntaxUID = RLELossless  # says nothing of its length
    item["PixelData"].is_undefined_length = True
    item.PixelData = pydicom.encaps.encapsulate([b"\0\0"] * 6)
    item.save_as(path)
    refused_beforehand(path, "6 x 65535 x 65535 voxels")


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
@pytest.mark.parametrize("enhanced", [False, True])
def test_truncated_files_are_refused(tmp_path: Path, kept: float, enhanced: bool) -> None:
    scan = phantom((6, 40, 40))
    if enhanced:
        path = where = write_enhanced(tmp_path / "a.dcm", scan)
    else:
        path, where = write_classic_series(tmp_path, scan)[2], tmp_path
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    refused(where, path.name)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_truncated_compressed_files_are_refused(tmp_path: Path, syntax: str) -> None:
    paths = write_classic_series(tmp_path, smooth(), transfer_syntax=syntax)
    content = paths[1].read_bytes()
    paths[1].write_bytes(content[:-150])
    refused(tmp_path, paths[1].name)


def test_a_file_that_breaks_off_in_its_header_is_named(tmp_path: Path) -> None:
    paths = write_classic_series(tmp_path, phantom())
    paths[-1].write_bytes(paths[-1].read_bytes()[:600])
    (found,) = find_scans(tmp_path)
    scan = read_scan(tmp_path)
    assert len(scan.voxels) == 5
    for remarks in (found.remarks, scan.remarks):
        assert paths[-1].name in remarks[0]
    paths[2].write_bytes(paths[2].read_bytes()[:600])
    refused_beforehand(tmp_path, paths[2].name, "slices 1 and 2")
    for path in paths:
        path.write_bytes(path.read_bytes()[:600])
    refused(tmp_path, "damaged")


def test_a_compression_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_classic_series(tmp_path, phantom(), transfer_syntax=RLELossless)
    for path in paths:
        item = pydicom.dcmread(path)
        item.file_meta.TransferSyntaxUID = JPEGLosslessSV1
        item.save_as(path)
    from pydicom.pixels.decoders import JPEGLosslessSV1Decoder

    monkeypatch.setattr(JPEGLosslessSV1Decoder, "_available", {})
    refused_beforehand(tmp_path, "JPEG Lossless", "install pylibjpeg")


def test_files_that_vanish_are_named(tmp_path: Path) -> None:
    paths = write_classic_series(tmp_path, phantom((6, 80, 80)))

    def remove(progress: Progress) -> None:
        if progress.message.startswith("Reading") and paths[4].exists():
            paths[4].unlink()

    refused(tmp_path, str(paths[4]), report=remove)


# --- writing ----------------------------------------------------------------------------


@settings(max_examples=15)
@given(
    angles=st.tuples(*[st.floats(-3.1, 3.1)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 12.0)] * 3),
    shape=st.tuples(st.integers(2, 6), st.integers(1, 9), st.integers(1, 9)),
    dtype=st.sampled_from([np.uint8, np.uint16, np.int16]),
    left_handed=st.booleans(),
)
def test_a_written_series_comes_back_at_its_place(
    tmp_path_factory: pytest.TempPathFactory,
    angles: tuple[float, float, float],
    spacing: Spacing,
    shape: tuple[int, int, int],
    dtype: Any,
    left_handed: bool,
) -> None:
    affine = oblique(angles, spacing, (-100, 20, 33.3))
    affine[:3, 0] *= -1 if left_handed else 1
    scan = phantom(shape, dtype, affine, spacing)
    path = write_scan(scan, tmp_path_factory.mktemp("out") / "a.dcm")
    found = read_scan(path)
    if left_handed:
        scan = replace(
            scan,
            voxels=scan.voxels[::-1],
            affine=affine @ np.array([[-1, 0, 0, shape[0] - 1], *np.eye(4)[1:]]),
        )
    assert_same_body(found, scan)
    assert isinstance(found.stored, DicomSeries)


def test_contours_find_their_place_on_a_written_left_handed_scan(tmp_path: Path) -> None:
    scan, segmentation = abdomen_phantom(slices=6, rows=20, columns=24)
    found = read_scan(write_scan(scan, tmp_path / "a.dcm"))
    moved = segmentation.on(found)
    assert isinstance(moved, Segmentation)
    np.testing.assert_array_equal(moved.masks, segmentation.masks[:, ::-1])


def test_a_written_series_is_valid_and_anonymous(
    tmp_path: Path, program: Callable[[str, str], str]
) -> None:
    judge = program("dciodvfy", "dicom3tools")
    write_classic_series(tmp_path / "in", phantom())
    for name, scan in (("a.dcm", abdomen_phantom()[0]), ("b.dcm", read_scan(tmp_path / "in"))):
        path = write_scan(scan, tmp_path / name)
        files = sorted(path.iterdir())
        assert [file.name for file in files] == [f"{i + 1:04d}.dcm" for i in range(len(files))]
        for file in (files[0], files[-1]):
            done = subprocess.run([judge, str(file)], capture_output=True, text=True, check=False)
            assert "Error" not in done.stdout + done.stderr
            text = str([item.value for item in pydicom.dcmread(file) if item.VR not in "UI OW"])
            assert "ANON-" in text  # a pseudonym
            for part in ("Jane", "4711", "1950", "Hospital", "2024", scan.name):
                assert part not in text
    assert_as_gdcm(tmp_path / "b.dcm", read_scan(tmp_path / "b.dcm"))


def test_written_series_are_told_apart(tmp_path: Path) -> None:
    uids = [
        dicom.series_of(read_scan(write_scan(phantom(), tmp_path / name))).series_uid
        for name in ("a.dcm", "b.dcm")
    ]
    assert uids[0] != uids[1]


def test_whole_numbers_of_any_type_are_written_exactly(tmp_path: Path) -> None:
    values = np.arange(-60, 60).reshape(2, 6, 10)
    for index, (shift_by, dtype, kind) in enumerate(
        [(0, np.float32, np.int16), (60, np.int64, np.uint16), (60_000, np.float64, np.uint16)]
    ):
        scan = Scan((values + shift_by).astype(dtype), SPACING, phantom().affine)
        found = read_scan(write_scan(scan, tmp_path / f"{index}.dcm"))
        assert found.voxels.dtype == kind
        np.testing.assert_array_equal(found.voxels, values + shift_by)


@pytest.mark.parametrize(
    ("value", "part"), [(0.5, "fractions"), (np.nan, "fractions"), (70_000, "0 to 70000")]
)
def test_values_that_do_not_fit_are_refused(tmp_path: Path, value: float, part: str) -> None:
    voxels = np.zeros((2, 3, 4), dtype=np.float32)
    voxels[1, 1, 1] = value
    with pytest.raises(InputError) as error:
        write_scan(Scan(voxels, SPACING), tmp_path / "a.dcm")
    assert_one_sentence(error, part, ".nii.gz")
    assert not list(tmp_path.iterdir())


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    write_scan(phantom((9, 4, 4)), tmp_path / "a.dcm")
    write_scan(phantom(), tmp_path / "a.dcm")
    assert_same_body(read_scan(tmp_path / "a.dcm"), phantom())
    (tmp_path / "a.dcm" / "notes.txt").write_text("mine")
    with pytest.raises(InputError) as error:
        write_scan(phantom(), tmp_path / "a.dcm")
    assert_one_sentence(error, "notes.txt")


# --- real series ------------------------------------------------------------------------


@pytest.mark.data
def test_a_ct_whose_files_are_out_of_order(shared_data: Path) -> None:
    folder = shared_data / "dicom" / "rtstruct_ct4"
    scan = read_scan(folder)
    assert_as_gdcm(folder, scan)
    image = SimpleITK.ReadImage(str(folder / "Image.nii.gz"))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), scan.voxels)
    assert scan.spacing == pytest.approx(image.GetSpacing()[::-1])
    assert scan.affine[:3, 3] == pytest.approx(image.GetOrigin())


@pytest.mark.data
@pytest.mark.parametrize(
    "place",
    ["dcmqi_ct3_seg/ct-3slice", "rtutils_mock", "dcmqi_ct3_seg/23x38x3/image"],
)
def test_classic_series_are_read_as_gdcm_does(shared_data: Path, place: str) -> None:
    folder = shared_data / "dicom" / place
    assert_as_gdcm(folder, read_scan(folder))


@pytest.mark.data
def test_a_compressed_ct_without_uids_is_read_as_by_others(shared_data: Path) -> None:
    scan = read_scan(shared_data / "other" / "totalseg_tests" / "example_ct_dicom")
    assert scan.shape == (20, 512, 512)
    assert scan.voxels.min() >= -1024
    assert scan.stored is None


@pytest.mark.data
@pytest.mark.parametrize("size", ["23x38x3", "24x38x3"])
def test_a_legacy_converted_image_is_its_classic_series(shared_data: Path, size: str) -> None:
    folder = shared_data / "dicom" / "dcmqi_ct3_seg" / size
    assert_same_body(read_scan(folder / "multiframe" / "mf.dcm"), read_scan(folder / "image"))


@pytest.mark.data
@pytest.mark.parametrize("index", range(4))
def test_enhanced_mr_lies_where_another_converter_puts_it(shared_data: Path, index: int) -> None:
    folder = shared_data / "dicom" / "enhanced_mr"
    scan = read_scan(folder / f"6_{index + 1}.dcm")
    image = SimpleITK.ReadImage(str(folder / "Siemens_REST1_w_SMS_PF7-8_6.nii"))
    volumes = SimpleITK.GetArrayFromImage(image)
    volume = image[:, :, :, index]
    for corner in np.ndindex(2, 2, 2):
        place = np.array(corner) * (np.array(scan.shape) - 1)
        point = (scan.affine @ (*place, 1))[:3]
        there = volume.TransformPhysicalPointToContinuousIndex(point.tolist())
        np.testing.assert_allclose(there, np.round(there), atol=0.01)
        column, row, slice_ = (round(number) for number in there)
        assert scan.voxels[tuple(place)] == volumes[index, slice_, row, column]


@pytest.mark.data
def test_frames_without_a_place_are_refused(shared_data: Path) -> None:
    refused_beforehand(shared_data / "dicom" / "enhanced_mr" / "emri_small.dcm", "10 frames")


def test_a_series_that_lies_in_a_folder_twice_is_one(tmp_path: Path) -> None:
    scan, _ = abdomen_phantom(slices=4, rows=20, columns=22)
    series = write_scan(scan, tmp_path / "scan.dcm")
    shutil.copytree(series, tmp_path / "backup")
    again = read_scan(tmp_path)
    np.testing.assert_array_equal(again.voxels, read_scan(series).voxels)
    assert again.remarks == ("Copies of other files were left out, 4 in all.",)
