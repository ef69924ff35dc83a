"""Real scans and real contours through every format, and nothing of them lost."""

import csv
from pathlib import Path

import numpy as np
import pytest

from gitract.io import (
    SEGMENTATION_SUFFIXES,
    read_reference,
    read_scan,
    read_segmentation,
    write_scan,
    write_segmentation,
)
from gitract.io.contours import filled, outlined
from gitract.io.rle import decode_rle, encode_rle
from gitract.scan import Segmentation

pytestmark = pytest.mark.data
OVERLAPPING = (".csv", ".seg.dcm", ".rtstruct.dcm")
DAYS = ("case16/case16_day0", "case20/case20_day22")


@pytest.fixture(scope="module", params=DAYS)
def opened(
    request: pytest.FixtureRequest, shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Segmentation]:
    """A labelled day as a DICOM series, and its contours on that."""
    day = shared_data / "uwm_stacks" / "train" / request.param
    scan = read_scan(day)
    series = write_scan(scan, tmp_path_factory.mktemp("series") / "scan.dcm")
    again = read_scan(series)
    np.testing.assert_array_equal(again.voxels[::-1], scan.voxels)  # sorted from foot to head
    reference = read_reference(day)
    assert reference is not None
    return series, reference.on(again)


@pytest.mark.parametrize("suffix", SEGMENTATION_SUFFIXES)
def test_real_contours_come_back_voxel_for_voxel(
    opened: tuple[Path, Segmentation], suffix: str, tmp_path: Path
) -> None:
    series, contours = opened
    scan = read_scan(series)
    path = write_segmentation(contours, tmp_path / f"organs{suffix}")
    again = read_segmentation(path, scan=scan)
    if suffix in OVERLAPPING:
        assert again.organs == contours.organs
        np.testing.assert_array_equal(again.masks, contours.masks)
    else:
        np.testing.assert_array_equal(again.labels().array, contours.labels().array)


def test_a_raw_16_bit_day_is_the_same_as_a_dicom_series(shared_data: Path, tmp_path: Path) -> None:
    [day] = (shared_data / "uwm_16bit_stack").glob("**/case900_day0")
    scan = read_scan(day)
    again = read_scan(write_scan(scan, tmp_path / "scan.dcm"))
    assert again.voxels.dtype == np.uint16
    np.testing.assert_array_equal(again.voxels[::-1], scan.voxels)
    assert again.spacing == pytest.approx(scan.spacing)


def test_the_runs_of_real_masks_and_their_outlines_come_back(shared_data: Path) -> None:
    """Contours of 16 patients on their native grids: holes, islands, the edge of the view."""
    tested = 0
    with (shared_data / "labels_only" / "native_rle_37days.csv").open() as table:
        for number, row in enumerate(csv.DictReader(table)):
            if number % 11 or not row["segmentation"]:
                continue
            shape = int(float(row["height"])), int(float(row["width"]))
            mask = decode_rle(row["segmentation"], shape)
            assert encode_rle(mask) == row["segmentation"]
            np.testing.assert_array_equal(filled(outlined(mask), shape), mask)
            tested += 1
    assert tested > 100
