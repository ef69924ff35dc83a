"""However a file stores its slices, a network sees them upright, and its answer goes back."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from gitract.errors import InputError
from gitract.orientation import Turn, axes_run_to, plane_name, turn_upright
from gitract.scan import Scan, axial_affine
from phantoms import abdomen_phantom, stored_as
from sentences import assert_one_sentence

TURNS = [Turn(*flags) for flags in itertools.product([False, True], repeat=3)]


@pytest.mark.parametrize("turn", TURNS)
def test_slices_are_turned_upright_and_back(turn):
    scan, _ = abdomen_phantom(slices=4, rows=36, columns=44)
    stored = stored_as(scan, turn)
    found = turn_upright(stored)
    np.testing.assert_array_equal(found.upright(stored.voxels), scan.voxels)
    np.testing.assert_array_equal(found.back(found.upright(stored.voxels)), stored.voxels)
    assert found.spacing(stored.spacing) == pytest.approx(scan.spacing)


def test_an_oblique_scan_is_turned_by_its_nearest_axes():
    angle = np.radians(20)
    tilt = np.eye(4)
    tilt[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    scan, _ = abdomen_phantom(slices=4, rows=36, columns=44)
    assert turn_upright(replace(scan, affine=tilt @ scan.affine)) == Turn()


@pytest.mark.parametrize(("axes", "plane"), [([1, 0, 2], "coronal"), ([2, 1, 0], "sagittal")])
def test_slices_that_are_not_axial_are_refused(axes, plane):
    affine = axial_affine((2.0, 2.0, 2.0))
    affine[:, :3] = affine[:, axes]
    scan = Scan(np.zeros((4, 5, 6), np.int16), spacing=(2.0, 2.0, 2.0), affine=affine)
    assert plane_name(affine) == plane
    with pytest.raises(InputError) as error:
        turn_upright(scan)
    assert_one_sentence(error, plane, "axial")


def test_directions_are_told_in_words():
    assert axes_run_to(axial_affine((3.0, 1.5, 1.5))) == ("feet", "back", "left")
