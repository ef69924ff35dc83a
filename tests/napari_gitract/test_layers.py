"""Scan and Segmentation to layers and back."""

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer

from gitract.errors import InputError
from gitract.scan import Segmentation
from napari_gitract.layers import (
    contrast_limits,
    scan_from_layer,
    scan_to_layer,
    segmentation_from_layer,
    segmentation_to_layer,
)
from napari_gitract.workspace import go_to_slice


@pytest.fixture
def segmentation(scan):
    labels = np.zeros(scan.shape, np.uint8)
    labels[2, 2:8, 2:10] = 3
    return Segmentation.of_labels(labels, spacing=scan.spacing, name=scan.name)


def test_scan_becomes_a_layer_in_millimetres(scan):
    layer = Layer.create(*scan_to_layer(scan))
    assert isinstance(layer, Image)
    np.testing.assert_allclose(layer.scale, scan.spacing)
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
    assert layer.axis_labels == ("z", "y", "x")
    assert layer.name == "case1_day2"


def test_scan_survives_the_layer_whatever_the_user_does_to_it(scan):
    layer = Layer.create(*scan_to_layer(scan))
    layer.scale = (9, 9, 9)
    layer.translate = (5, 6, 7)
    back = scan_from_layer(layer)
    assert back.spacing == scan.spacing
    np.testing.assert_array_equal(back.affine, scan.affine)
    assert back.voxels is scan.voxels


def test_a_few_bright_voxels_do_not_spoil_the_contrast():
    voxels = np.random.default_rng(0).integers(0, 1000, (20, 64, 64)).astype(np.uint16)
    voxels[3, 4, 5] = 60_000
    low, high = contrast_limits(voxels)
    assert low < high < 1001


@pytest.mark.parametrize("voxels", [np.zeros((3, 4, 5)), np.full((3, 4, 5), np.nan)])
def test_contrast_limits_are_never_equal(voxels):
    low, high = contrast_limits(voxels)
    assert low < high


def test_a_mostly_empty_scan_still_has_contrast(scan):
    voxels = np.zeros((20, 64, 64), np.uint16)
    voxels[0, 0, :5] = 700
    assert contrast_limits(voxels)[1] > contrast_limits(voxels)[0]


def test_other_readers_layers_need_millimetres_or_a_scale():
    voxels = np.ones((3, 4, 5), np.uint8)
    assert scan_from_layer(Image(voxels, scale=(3, 2, 2))).spacing == (3, 2, 2)
    in_mm = Image(voxels, units=("mm",) * 3)
    assert scan_from_layer(in_mm).spacing == (1, 1, 1)
    in_um = Image(voxels, scale=(3000, 1500, 1500), units=("um",) * 3)
    np.testing.assert_allclose(scan_from_layer(in_um).spacing, (3, 1.5, 1.5))
    with pytest.raises(InputError, match="Load scan"):
        scan_from_layer(Image(voxels))


@pytest.mark.parametrize(
    "layer",
    [
        Image(np.ones((4, 5, 6, 3), np.uint8), rgb=True, scale=(3, 1, 1)),
        Image(np.ones((5, 6), np.uint8)),
        Image(np.ones((2, 3, 5, 6), np.uint8)),
        Image([np.ones((4, 8, 8)), np.ones((4, 4, 4))], multiscale=True),
    ],
    ids=["rgb", "2d", "4d", "multiscale"],
)
def test_what_is_no_scan_is_refused_by_name(layer):
    layer.name = "odd one"
    with pytest.raises(InputError, match="odd one"):
        scan_from_layer(layer)


def test_organs_have_names_and_colours(segmentation):
    layer = Layer.create(*segmentation_to_layer(segmentation))
    assert isinstance(layer, Labels)
    viewer = ViewerModel()
    viewer.add_layer(layer)
    go_to_slice(viewer, layer, 2)
    status = layer.get_status(position=(2 * 3.0, 3 * 1.5, 3 * 1.25), world=True)
    assert "Stomach" in str(status)
    red, _, _, _ = layer.get_color(3)
    assert red > 0.8


def test_labels_take_over_the_transform_that_the_image_has_now(scan, segmentation):
    image = Layer.create(*scan_to_layer(scan))
    image.translate = (10, -20, 30)
    image.rotate = (5, 10, 25)
    image.shear = (0.1, 0.0, 0.2)
    image.scale = (6, 1.5, 1.5)
    image.affine = np.array([[1, 0, 0, 4], [0, 0, 1, 5], [0, -1, 0, 6], [0, 0, 0, 1.0]])
    labels = Layer.create(*segmentation_to_layer(segmentation, image))
    for corner in ((0, 0, 0), (5, 0, 0), (5, 19, 23), (1, 2, 3)):
        np.testing.assert_allclose(labels.data_to_world(corner), image.data_to_world(corner))
    assert labels.units == image.units
    assert segmentation_from_layer(labels).spacing == scan.spacing


def test_unknown_label_values_are_refused(segmentation):
    layer = Layer.create(*segmentation_to_layer(segmentation))
    layer.data[0, 0, 0] = 7
    with pytest.raises(InputError, match="7"):
        segmentation_from_layer(layer)
