"""Scan and Segmentation to layers and back."""

from dataclasses import replace

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer

from gitract.baseline import slice_digests
from gitract.errors import InputError
from gitract.organs import IGNORE, ORGANS, Organ
from gitract.scan import Segmentation
from napari_gitract.layers import (
    METADATA_KEY,
    contour_layers,
    contrast_limits,
    joined,
    origin_of,
    painted_volumes,
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


def test_what_to_ignore_is_shown_and_named_in_every_layer(segmentation):
    layer = Layer.create(*segmentation_to_layer(segmentation))
    layer.data[2, 4, 4] = IGNORE.id
    viewer = ViewerModel()
    viewer.add_layer(layer)
    go_to_slice(viewer, layer, 2)
    status = layer.get_status(position=(2 * 3.0, 4 * 1.5, 4 * 1.25), world=True)
    assert "Ignore" in str(status)
    red, green, blue, _ = layer.get_color(IGNORE.id)
    assert red == green == blue


def test_what_to_ignore_is_no_organ_of_the_layer(segmentation):
    layer = Layer.create(*segmentation_to_layer(segmentation))
    assert segmentation_from_layer(layer).organs == ORGANS
    layer.data[2, 4, 4] = IGNORE.id
    painted = segmentation_from_layer(layer)
    assert painted.organs == (*ORGANS, IGNORE)
    assert np.argwhere(painted.masks[-1]).tolist() == [[2, 4, 4]]
    again = Layer.create(*segmentation_to_layer(painted))
    origin = origin_of(again.metadata)
    assert origin.organs == ORGANS
    assert "ignore" not in painted_volumes(again.data, origin)
    np.testing.assert_array_equal(again.data, layer.data)


def test_an_organ_that_has_the_value_already_stays_one(segmentation):
    labels = segmentation.labels().array
    labels[0, 0, 0] = 255
    fat = Organ(255, "fat", "#ffffff")
    table = (*ORGANS, fat)
    drawn = Segmentation.of_labels(labels, spacing=segmentation.spacing, organs=table)
    layer = Layer.create(*segmentation_to_layer(drawn))
    assert segmentation_from_layer(layer).organs == table
    assert "Fat" in str(layer.get_status(position=(0, 0, 0), world=True))


def test_what_was_painted_into_a_prediction_is_reopened_with_it(segmentation):
    duodenum = Organ(4, "duodenum", "#7ac36a")
    baseline = slice_digests(segmentation.labels().array)
    predicted = replace(segmentation, provenance={"model": "m", "baseline": baseline})
    layer = Layer.create(*segmentation_to_layer(predicted))
    origin = replace(origin_of(layer.metadata), organs=(duodenum, *ORGANS))
    layer.metadata = {METADATA_KEY: origin}
    layer.data[4, 2:5, 2:5] = duodenum.id
    layer.data[5, 2:5, 2:5] = IGNORE.id
    painted = segmentation_from_layer(layer)
    [reopened] = (Layer.create(*one) for one in contour_layers(painted, name="again"))
    np.testing.assert_array_equal(reopened.data, layer.data)
    assert origin_of(reopened.metadata).organs == (duodenum, *ORGANS)
    assert segmentation_from_layer(reopened).provenance["edited"] == [4, 5]


def test_a_renamed_or_recoloured_organ_stays_in_the_layer_of_the_prediction(segmentation):
    baseline = slice_digests(segmentation.labels().array)
    predicted = replace(
        segmentation,
        organs=(*ORGANS[:2], Organ(3, "gaster", "#ffffff")),
        provenance={"baseline": baseline},
    )
    [layer] = contour_layers(predicted, name="again")
    np.testing.assert_array_equal(layer[0], predicted.labels().array)


def test_a_structure_of_two_layers_never_erases_an_organ(segmentation):
    gtv = Organ(17, "gtv", "#ff3b30")
    labels = segmentation.labels().array
    provenance = {"baseline": slice_digests(labels)}
    labels[5, 2:5, 2:5] = gtv.id
    table = (*ORGANS, gtv)
    drawn = Segmentation.of_labels(
        labels, spacing=segmentation.spacing, organs=table, provenance=provenance
    )
    painted = segmentation_from_layer(Layer.create(*segmentation_to_layer(drawn)))
    masks = np.zeros((1, *painted.shape), np.bool_)
    masks[0, 2, 2:4, 2:4] = True  # over the stomach
    elsewhere = replace(painted, masks=masks, organs=(gtv,), provenance={})
    first, second = contour_layers(joined([painted, elsewhere]), name="again")
    np.testing.assert_array_equal(first[0] == 3, painted.masks[2])
    np.testing.assert_array_equal(second[0] == 17, painted.masks[3] | masks[0])
