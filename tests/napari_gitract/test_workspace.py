"""Which slices were edited or accepted, without a window."""

import numpy as np
import pytest
from napari.components import ViewerModel

from gitract.baseline import slice_digests
from gitract.scan import Segmentation
from napari_gitract.layers import (
    scan_to_layer,
    segmentation_from_layer,
    segmentation_to_layer,
)
from napari_gitract.workspace import ReviewedSlice, Workspace, current_slice, go_to_slice


@pytest.fixture
def viewer():
    return ViewerModel()


@pytest.fixture
def labels(viewer, scan):
    array = np.zeros(scan.shape, np.uint8)
    array[:, 2:8, 2:10] = 3
    segmentation = Segmentation.of_labels(
        array, spacing=scan.spacing, provenance={"baseline": slice_digests(array)}
    )
    voxels, attributes, _ = scan_to_layer(scan)
    image = viewer.add_image(voxels, **attributes)
    data, attributes, _ = segmentation_to_layer(segmentation, image)
    return viewer.add_labels(data, **attributes)


def test_every_widget_of_a_viewer_gets_the_same_workspace(viewer):
    assert Workspace.of(viewer) is Workspace.of(viewer)
    assert Workspace.of(viewer) is not Workspace.of(ViewerModel())


def test_nothing_is_edited_at_first(viewer, labels):
    assert Workspace.of(viewer).reviewed(labels) == []


def test_edits_are_found_after_every_kind_of_change(viewer, labels):
    workspace = Workspace.of(viewer)
    labels.selected_label = 1
    labels.brush_size = 3
    labels.paint((3, 15, 15), 1)
    assert workspace.edited(labels) == [3]
    labels.fill((4, 0, 0), 2)
    assert workspace.edited(labels) == [3, 4]
    labels.undo()
    assert workspace.edited(labels) == [3]
    labels.undo()
    assert workspace.edited(labels) == []
    labels.redo()
    assert workspace.edited(labels) == [3]
    labels.data_setitem((np.array([5]), np.array([1]), np.array([1])), 2)
    assert workspace.edited(labels) == [3, 5]
    labels.data = np.zeros_like(labels.data)
    assert workspace.edited(labels) == [0, 1, 2, 3, 4, 5]


def test_each_kind_of_change_says_look_again(viewer, labels):
    seen = []
    Workspace.of(viewer).labels_touched.connect(seen.append)
    for change in (
        lambda: labels.paint((3, 15, 15), 1),
        labels.undo,
        labels.redo,
        lambda: labels.fill((4, 0, 0), 2),
    ):
        seen.clear()
        change()
        assert labels in seen


def test_layers_added_later_are_watched_too(viewer, scan):
    seen = []
    Workspace.of(viewer).labels_touched.connect(seen.append)
    layer = viewer.add_labels(np.zeros((3, 8, 8), np.uint8), scale=scan.spacing)
    layer.paint((1, 4, 4), 1)
    assert layer in seen


def test_accepted_slices_join_the_edited_ones(viewer, labels):
    workspace = Workspace.of(viewer)
    workspace.accept(labels, [1, 4])
    labels.paint((4, 15, 15), 1)
    assert workspace.reviewed(labels) == [ReviewedSlice(1, False), ReviewedSlice(4, True)]
    workspace.leave_out(labels, [1])
    assert workspace.reviewed(labels) == [ReviewedSlice(4, True)]


def test_an_edited_slice_can_be_left_out_and_taken_back(viewer, labels):
    workspace = Workspace.of(viewer)
    labels.paint((4, 15, 15), 1)
    workspace.leave_out(labels, [4])
    assert workspace.reviewed(labels) == []
    assert workspace.review(labels).left_out == [4]
    workspace.accept(labels, [4])
    assert workspace.reviewed(labels) == [ReviewedSlice(4, True)]


def test_decisions_travel_with_the_segmentation(viewer, labels):
    workspace = Workspace.of(viewer)
    workspace.accept(labels, [2])
    labels.paint((4, 15, 15), 1)
    segmentation = segmentation_from_layer(labels)
    assert segmentation.provenance["edited"] == [4]
    data, attributes, _ = segmentation_to_layer(segmentation)
    reopened = viewer.add_labels(data, **attributes)
    assert workspace.reviewed(reopened) == [ReviewedSlice(2, False), ReviewedSlice(4, True)]


def test_labels_of_a_person_have_no_baseline_but_take_accepted_slices(viewer):
    layer = viewer.add_labels(np.zeros((4, 8, 8), np.uint8), scale=(3, 2, 2))
    workspace = Workspace.of(viewer)
    assert not workspace.has_baseline(layer)
    workspace.accept(layer, [3])
    assert workspace.reviewed(layer) == [ReviewedSlice(3, False)]


@pytest.mark.parametrize("translate", [0.0, 30.0, -7.5])
def test_the_current_slice_is_the_layers_own(viewer, labels, translate):
    for layer in viewer.layers:
        layer.translate = (translate, 0, 0)
    for index in (0, 3, 5):
        go_to_slice(viewer, labels, index)
        assert current_slice(viewer, labels) == index


def test_a_closed_viewer_is_forgotten(viewer, labels):
    import gc
    import weakref

    lonely = ViewerModel()
    reference = weakref.ref(Workspace.of(lonely))
    del lonely
    gc.collect()
    assert reference() is None
