"""Regions to ignore: kept by label images, no organ to any other format."""

import json
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gitract.baseline import slice_digests
from gitract.errors import InputError
from gitract.io import label_names, read_scan, read_segmentation, write_scan, write_segmentation
from gitract.organs import IGNORE, KNOWN_ORGANS, ORGANS
from gitract.review import reviewed_slices
from gitract.scan import Scan, Segmentation

LABEL_IMAGES = (".tif", ".nii.gz", ".png")
OF_ORGANS = (".csv", ".seg.dcm", ".rtstruct.dcm")
SHAPE = (4, 12, 10)


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> Scan:
    """A DICOM series, so that contours can be written onto it."""
    voxels = np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.uint16)
    folder = tmp_path_factory.mktemp("scan") / "series.dcm"
    return read_scan(write_scan(Scan(voxels, (3.0, 1.5, 1.25), name="case1_day0"), folder))


@pytest.fixture
def corrected(scan) -> Segmentation:
    """A stomach that was predicted on all slices; the user ignores a part of it on slice 2."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, 2:9, 2:7] = 3
    baseline = slice_digests(labels)
    labels[2, 2:5, 2:7] = IGNORE.id
    labels[1, 9, 3] = 3
    return Segmentation.of_labels(
        labels,
        spacing=scan.spacing,
        affine=scan.affine,
        organs=(*ORGANS, IGNORE),
        name=scan.name,
        provenance={"baseline": baseline},
        stored=scan.stored,
    )


@pytest.mark.parametrize("suffix", LABEL_IMAGES)
def test_label_images_keep_what_is_to_be_ignored(corrected, suffix, tmp_path):
    path = write_segmentation(corrected, tmp_path / f"out{suffix}")
    assert label_names(path) == []
    again = read_segmentation(path)
    assert again.organs == (*ORGANS, IGNORE)
    np.testing.assert_array_equal(again.labels().array, corrected.labels().array)
    assert reviewed_slices(again) == [1, 2]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(
    seed=st.integers(0, 2**16),
    organs=st.lists(st.sampled_from(KNOWN_ORGANS), min_size=1, unique=True),
    suffix=st.sampled_from(LABEL_IMAGES),
)
def test_any_table_and_its_order_come_back_with_it(seed, organs, suffix, tmp_path):
    table = (*organs, IGNORE)
    values = np.array([0, *(organ.id for organ in table)], np.uint8)
    labels = np.random.default_rng(seed).choice(values, SHAPE)
    made = Segmentation.of_labels(labels, spacing=(3.0, 1.5, 1.25), organs=table)
    again = read_segmentation(write_segmentation(made, tmp_path / f"out{suffix}"))
    assert again.organs == table
    np.testing.assert_array_equal(again.labels().array, labels)


@pytest.mark.parametrize("suffix", OF_ORGANS)
def test_formats_of_organs_leave_it_out(corrected, scan, suffix, tmp_path):
    path = write_segmentation(corrected, tmp_path / f"out{suffix}")
    again = read_segmentation(path, scan=scan)
    assert IGNORE not in again.organs
    stomach = again.masks[[organ.name for organ in again.organs].index("stomach")]
    np.testing.assert_array_equal(stomach, corrected.masks[2])
    assert corrected.organs[-1] == IGNORE  # the one that was written is as it was


@pytest.mark.parametrize("suffix", OF_ORGANS)
def test_a_slice_that_lost_it_is_not_learnt_from(corrected, scan, suffix, tmp_path):
    path = write_segmentation(corrected, tmp_path / f"out{suffix}")
    again = read_segmentation(path, scan=scan)
    assert again.provenance["rejected"] == [2]
    assert reviewed_slices(again) == [1]


def test_no_file_of_organs_mentions_it(corrected, tmp_path):
    table = write_segmentation(corrected, tmp_path / "out.csv")
    contours = write_segmentation(corrected, tmp_path / "out.rtstruct.dcm")
    masks = write_segmentation(corrected, tmp_path / "out.seg.dcm")
    assert "ignore" not in table.read_text()
    regions = pydicom.dcmread(contours).StructureSetROISequence
    assert [region.ROIName for region in regions] == ["Stomach"]
    assert [one.SegmentLabel for one in pydicom.dcmread(masks).SegmentSequence] == ["Stomach"]
    for path in (table, contours, masks):
        notes = json.loads(path.with_name(f"{path.name}.json").read_text())
        assert [organ["id"] for organ in notes["organs"]] == [1, 2, 3]


def test_nothing_but_regions_to_ignore_is_nothing_drawn(corrected, tmp_path):
    masks = corrected.masks.copy()
    masks[:3] = False
    with pytest.raises(InputError, match="Nothing is drawn"):
        write_segmentation(replace(corrected, masks=masks), tmp_path / "out.rtstruct.dcm")


@pytest.mark.parametrize("suffix", OF_ORGANS)
def test_without_such_regions_no_slice_is_rejected(corrected, scan, suffix, tmp_path):
    masks = corrected.masks.copy()
    masks[3] = False
    path = write_segmentation(replace(corrected, masks=masks), tmp_path / f"out{suffix}")
    assert "rejected" not in read_segmentation(path, scan=scan).provenance
