"""Through every format and every pair of them, nothing moves by a hundredth of a millimetre.

An L, different from each of its flips and transposes, on unequal spacing, in a scan that
lies obliquely in the patient. What is compared are the places of its voxels in the
patient, so an axis that was swapped, reversed or shifted anywhere shows.
"""

import itertools
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from gitract.io import read_scan, read_segmentation, write_scan, write_segmentation
from gitract.organs import ORGANS
from gitract.scan import Scan, Segmentation
from phantoms import l_phantom

SCAN_FORMATS = (".nii.gz", ".nii", ".tif", ".png", ".dcm")
# Those that have a place for the grid, and those that lie on a DICOM series.
GRID_FORMATS = (".nii.gz", ".tif", ".png", ".csv")
SERIES_FORMATS = (*GRID_FORMATS, ".seg.dcm", ".rtstruct.dcm")
LOSSLESS = (".csv", ".seg.dcm", ".rtstruct.dcm")
TOLERANCE_MM = 0.01
BRIGHT = 150  # above all noise, and within 8 bits


@st.composite
def oblique_grids(draw: st.DrawFn) -> tuple[tuple[float, float, float], np.ndarray]:
    """Spacing, and an affine of any rotation, handedness and place."""
    spacing = tuple(draw(st.floats(0.6, 6.0).map(lambda mm: round(mm, 3))) for _ in range(3))
    angles = [draw(st.floats(-180, 180)) for _ in range(3)]
    directions = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    if draw(st.booleans()):
        directions[:, 0] *= -1
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing
    affine[:3, 3] = [draw(st.floats(-400, 400)) for _ in range(3)]
    return (spacing[0], spacing[1], spacing[2]), affine


def l_scan(
    spacing: tuple[float, float, float], affine: np.ndarray, dtype: type
) -> tuple[Scan, Segmentation]:
    """The L as bright voxels of a scan, and as the stomach; a loop overlaps it."""
    shape = l_phantom()
    masks = shape.masks.copy()
    masks[1, 2, 3:8, 1:6] = True  # small bowel, over a part of the stomach
    contours = replace(shape, masks=masks, spacing=spacing, affine=affine)
    noise = np.random.default_rng(0).integers(0, 100, shape.shape)
    voxels = (noise + np.where(masks[2], BRIGHT, 0)).astype(dtype)
    return Scan(voxels, spacing, affine, name="l"), contours


def places(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """The voxels of a mask in the patient, mm."""
    return np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]


def assert_same_places(one: np.ndarray, other: np.ndarray) -> None:
    assert len(one) == len(other)
    distance, partner = cKDTree(one).query(other)
    assert distance.max() < TOLERANCE_MM
    assert len(set(partner)) == len(one)


@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(oblique_grids(), st.sampled_from([np.uint8, np.uint16, np.int16, np.float32]))
def test_scans_go_through_every_pair_of_formats(grid, dtype: type) -> None:
    bits = np.uint16 if dtype is not np.uint8 else np.uint8
    scan, contours = l_scan(*grid, dtype)
    truth = places(contours.masks[2], scan.affine)
    for first, second in itertools.product(SCAN_FORMATS, repeat=2):
        whole = {".png", ".dcm"} & {first, second}
        original = replace(scan, voxels=scan.voxels.astype(bits)) if whole else scan
        with tempfile.TemporaryDirectory() as folder:
            one = read_scan(write_scan(original, Path(folder) / f"one{first}"))
            two = read_scan(write_scan(one, Path(folder) / f"two{second}"))
            for again in (one, two):
                assert sorted(again.spacing) == pytest.approx(sorted(scan.spacing), rel=1e-4)
                assert np.sort(again.voxels, axis=None).tolist() == (
                    np.sort(original.voxels, axis=None).tolist()
                )
                assert_same_places(truth, places(again.voxels >= BRIGHT, again.affine))


@settings(max_examples=5, suppress_health_check=[HealthCheck.too_slow])
@given(oblique_grids())
def test_contours_of_a_series_go_through_every_pair_of_formats(grid) -> None:
    scan, contours = l_scan(*grid, np.uint16)
    with tempfile.TemporaryDirectory() as folder:
        series = read_scan(write_scan(scan, Path(folder) / "scan.dcm"))
        truth = contours.on(series)
        for first, second in itertools.product(SERIES_FORMATS, repeat=2):
            one = _through(truth, Path(folder) / f"one{first}", series)
            two = _through(one, Path(folder) / f"two{second}", series)
            flat = not {first, second} <= set(LOSSLESS)
            for organ in ORGANS:
                expected = _mask(truth, organ.id, flat)
                np.testing.assert_array_equal(_mask(two, organ.id, flat), expected)
                assert_same_places(
                    places(_mask(contours, organ.id, flat), contours.affine),
                    places(_mask(two, organ.id, flat), two.affine),
                ) if expected.any() else None


@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(oblique_grids())
def test_contours_keep_their_place_without_their_scan(grid) -> None:
    _, contours = l_scan(*grid, np.uint16)
    with tempfile.TemporaryDirectory() as folder:
        for first, second in itertools.product(GRID_FORMATS, repeat=2):
            path = Path(folder) / f"one{first}"
            one = read_segmentation(write_segmentation(contours, path))
            two = read_segmentation(write_segmentation(one, Path(folder) / f"two{second}"))
            for organ_id in (2, 3):
                assert_same_places(
                    places(_mask(contours, organ_id, True), contours.affine),
                    places(_mask(two, organ_id, True), two.affine),
                )


def _through(contours: Segmentation, path: Path, scan: Scan) -> Segmentation:
    """Written, and read as another program's file: without the notes beside it."""
    write_segmentation(contours, path)
    if path.name.endswith(".dcm"):
        path.with_name(f"{path.name}.json").unlink(missing_ok=True)
    return read_segmentation(path, scan=scan)


def _mask(contours: Segmentation, organ_id: int, flat: bool) -> np.ndarray:
    """One organ; after a format that keeps no overlaps, as that format flattens them."""
    if flat:
        return np.asarray(contours.labels().array == organ_id)
    [place] = [i for i, organ in enumerate(contours.organs) if organ.id == organ_id]
    return np.asarray(contours.masks[place])
