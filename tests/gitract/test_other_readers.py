"""Other people's programs find our contours where we put them."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_dilation
from scipy.spatial.transform import Rotation

from gitract.io import read_scan, write_scan, write_segmentation
from gitract.scan import Segmentation
from outside import missing
from phantoms import abdomen_phantom

SCRIPT = Path(__file__).resolve().parents[1] / "judges" / "read_rtstruct.py"
NEIGHBOURS = np.ones((1, 3, 3), dtype=np.bool_)


@pytest.fixture(scope="module", params=["axial", "oblique"])
def read(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Segmentation, dict[str, dict[str, np.ndarray]]]:
    """Our contours, and what each reader made of the file; square, as rt-utils needs it."""
    judge = Path(os.environ.get("GITRACT_JUDGES", "absent"))
    if not judge.is_file():
        missing("no environment with other readers: make it with tox run -e judges")
    folder = tmp_path_factory.mktemp("judged")
    scan, truth = abdomen_phantom(slices=16, rows=96, columns=96, spacing=(3.0, 1.4, 1.4))
    masks = truth.masks.copy()
    masks[0, 5, 20:60, 20:60] = True  # a hole, and an island in it
    masks[0, 5, 30:50, 30:50] = False
    masks[0, 5, 38:42, 38:42] = True
    if request.param == "oblique":
        turn = np.eye(4)
        turn[:3, :3] = Rotation.from_euler("xyz", [17, 11, 6], degrees=True).as_matrix()
        scan = replace(scan, affine=turn @ scan.affine)
    write_scan(scan, folder / "scan.dcm")
    series = read_scan(folder / "scan.dcm")
    contours = replace(truth, masks=masks, affine=scan.affine).on(series)
    write_segmentation(contours, folder / "organs.rtstruct.dcm")
    done = subprocess.run(
        [judge, SCRIPT, folder], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = {
        reader: dict(np.load(folder / f"{reader}.npz"))
        for reader in ("dcmrtstruct2nii", "rt_utils")
    }
    return contours, found


def mask_of(masks: dict[str, np.ndarray], title: str) -> np.ndarray:
    [name] = [name for name in masks if name.replace("-", " ").replace("_", " ") == title]
    return masks[name]


def test_dcmrtstruct2nii_reads_every_voxel(read) -> None:
    contours, found = read
    for organ, mask in zip(contours.organs, contours.masks, strict=True):
        np.testing.assert_array_equal(mask_of(found["dcmrtstruct2nii"], organ.title), mask)


def test_rt_utils_loses_nothing_and_adds_only_the_pixels_on_the_outline(read) -> None:
    contours, found = read
    for organ, mask in zip(contours.organs, contours.masks, strict=True):
        theirs = mask_of(found["rt_utils"], organ.title)
        assert not (mask & ~theirs).any()
        assert not (theirs & ~binary_dilation(mask, NEIGHBOURS)).any()
