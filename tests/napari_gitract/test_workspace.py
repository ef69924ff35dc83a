"""What the user did about slices, without a window."""

import json

import numpy as np
import pytest
from napari.components import ViewerModel

from gitract.baseline import slice_digests
from gitract.errors import InputError
from gitract.review import reviewed_slices
from gitract.scan import Segmentation
from napari_gitract._reader import read_contours
from napari_gitract._writer import write_labels_nifti, write_labels_tiff
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
    workspace.reset(labels, [1])
    assert workspace.reviewed(labels) == [ReviewedSlice(4, True)]


def test_any_slice_can_be_rejected_and_taken_back(viewer, labels):
    workspace = Workspace.of(viewer)
    labels.paint((4, 15, 15), 1)
    workspace.reject(labels, [2, 4])
    assert workspace.reviewed(labels) == []
    assert workspace.states(labels)[2:5] == ["rejected", "untouched", "rejected"]
    assert workspace.edited(labels) == [4]
    workspace.accept(labels, [2, 4])
    assert workspace.reviewed(labels) == [ReviewedSlice(2, False), ReviewedSlice(4, True)]


def test_reset_goes_back_to_what_the_difference_tells(viewer, labels):
    workspace = Workspace.of(viewer)
    labels.paint((4, 15, 15), 1)
    workspace.reject(labels, [4])
    workspace.accept(labels, [1])
    workspace.reset(labels, [1, 4])
    assert workspace.states(labels) == [*["untouched"] * 4, "edited", "untouched"]


def test_who_accepts_an_edit_and_undoes_it_has_accepted_nothing(viewer, labels):
    workspace = Workspace.of(viewer)
    labels.paint((4, 15, 15), 1)
    workspace.accept(labels, [4])
    assert workspace.states(labels)[4] == "edited"
    labels.undo()
    assert workspace.states(labels)[4] == "untouched"
    labels.redo()
    assert workspace.states(labels)[4] == "edited"


def test_who_accepts_a_prediction_has_accepted_it_again_after_undo(viewer, labels):
    workspace = Workspace.of(viewer)
    workspace.accept(labels, [4])
    labels.paint((4, 15, 15), 1)
    assert workspace.states(labels)[4] == "edited"
    labels.undo()
    assert workspace.states(labels)[4] == "accepted"


def test_only_the_slices_named_are_looked_at_again(viewer, labels):
    workspace = Workspace.of(viewer)
    workspace.states(labels)
    labels.data[2, 0, 0] = labels.data[4, 0, 0] = 1
    assert workspace.states(labels, changed=[4])[2:5] == ["untouched", "untouched", "edited"]
    assert workspace.states(labels)[2:5] == ["edited", "untouched", "edited"]


def test_other_data_in_the_layer_are_looked_at_as_a_whole(viewer, labels):
    workspace = Workspace.of(viewer)
    workspace.fill(labels, filling(labels, [2]))
    workspace.states(labels)
    labels.data = np.zeros((4, 20, 24), np.uint8)
    assert workspace.states(labels, changed=[0]) == ["untouched"] * 4


def test_layers_that_are_no_stack_of_slices_have_no_states(viewer):
    workspace = Workspace.of(viewer)
    for shape in ((8, 8), (2, 3, 8, 8)):
        layer = viewer.add_labels(np.zeros(shape, np.uint8))
        assert workspace.states(layer) == []
        with pytest.raises(InputError, match="not one stack"):
            workspace.accept(layer, [0])


def test_days_of_a_patient_are_apart(viewer, labels, scan):
    workspace = Workspace.of(viewer)
    other_day = np.zeros(scan.shape, np.uint8)
    segmentation = Segmentation.of_labels(
        other_day, spacing=scan.spacing, provenance={"baseline": slice_digests(other_day)}
    )
    data, attributes, _ = segmentation_to_layer(segmentation, name="day 3")
    other = viewer.add_labels(data, **attributes)
    labels.paint((3, 15, 15), 1)
    workspace.accept(other, [3])
    workspace.reject(labels, [5])
    workspace.set_unreviewed(other, ["stomach"])
    assert workspace.states(labels) == [*["untouched"] * 3, "edited", "untouched", "rejected"]
    assert workspace.states(other) == [*["untouched"] * 3, "accepted", *["untouched"] * 2]
    assert workspace.unreviewed(labels, 0) == frozenset()


def test_every_viewer_that_shows_a_layer_is_told_of_decisions(viewer, labels):
    second = ViewerModel()
    second.add_layer(labels)
    seen = []
    Workspace.of(second).labels_touched.connect(seen.append)
    Workspace.of(viewer).accept(labels, [2])
    assert labels in seen
    assert Workspace.of(second).states(labels)[2] == "accepted"


def test_organs_that_were_not_looked_at_are_those_of_the_slice_else_of_all(viewer, labels):
    workspace = Workspace.of(viewer)
    workspace.set_unreviewed(labels, ["small_bowel"])
    workspace.set_unreviewed(labels, [], 4)
    assert workspace.unreviewed(labels, 3) == {"small_bowel"}
    assert workspace.unreviewed(labels, 4) == frozenset()
    assert workspace.has_own_unreviewed(labels, 4)
    workspace.set_unreviewed(labels, None, 4)
    assert workspace.unreviewed(labels, 4) == {"small_bowel"}
    assert not workspace.has_own_unreviewed(labels, 4)
    provenance = segmentation_from_layer(labels).provenance
    assert json.loads(json.dumps(provenance["unreviewed"])) == {"all": ["small_bowel"]}


def filling(labels, slices, value=2):
    """Other contours for these slices."""
    other = np.array(labels.data)
    other[:, 12:15, 3:9] = value
    return {index: other[index] for index in slices}


def test_filled_slices_are_untouched_through_undo_and_redo(viewer, labels):
    workspace = Workspace.of(viewer)
    before = labels.data.copy()
    assert workspace.fill(labels, filling(labels, [2, 3])) == [2, 3]
    filled = labels.data.copy()
    assert (filled != before).any(axis=(1, 2)).tolist() == [False, False, True, True, False, False]
    for change, then in ((None, filled), (labels.undo, before), (labels.redo, filled)):
        if change:
            change()
        np.testing.assert_array_equal(labels.data, then)
        assert workspace.states(labels) == ["untouched"] * 6
        assert workspace.reviewed(labels) == []


def test_a_filled_slice_counts_once_it_is_drawn_on_or_accepted(viewer, labels):
    workspace = Workspace.of(viewer)
    workspace.fill(labels, filling(labels, [2, 3, 4]))
    workspace.accept(labels, [2])
    labels.paint((3, 15, 15), 1)
    assert workspace.states(labels)[2:5] == ["accepted", "edited", "untouched"]
    labels.undo()
    assert workspace.states(labels)[2:5] == ["accepted", "untouched", "untouched"]
    labels.undo()  # the filling
    assert workspace.states(labels) == ["untouched"] * 6
    labels.redo()
    assert workspace.states(labels)[2:5] == ["accepted", "untouched", "untouched"]
    workspace.reset(labels, [2])
    assert workspace.states(labels) == ["untouched"] * 6


def test_each_of_several_fillings_is_known_when_undo_brings_it_back(viewer, labels):
    workspace = Workspace.of(viewer)
    workspace.fill(labels, filling(labels, [2], 1))
    workspace.fill(labels, filling(labels, [2], 2))
    workspace.accept(labels, [2])
    labels.undo()
    assert labels.data[2, 13, 5] == 1
    assert workspace.states(labels)[2] == "untouched"
    labels.redo()
    assert workspace.states(labels)[2] == "accepted"


def test_filling_leaves_slices_alone_that_the_user_judged(viewer, labels):
    workspace = Workspace.of(viewer)
    labels.paint((1, 15, 15), 1)
    workspace.accept(labels, [2])
    workspace.reject(labels, [3])
    before = labels.data.copy()
    assert workspace.fill(labels, filling(labels, range(6))) == [0, 4, 5]
    np.testing.assert_array_equal(labels.data[1:4], before[1:4])


def test_filling_leaves_alone_what_a_person_drew_without_a_prediction(viewer):
    layer = viewer.add_labels(np.zeros((5, 20, 24), np.uint8), scale=(3, 2, 2))
    workspace = Workspace.of(viewer)
    layer.data[0, 2:9, 2:9] = layer.data[4, 2:9, 2:9] = 1
    assert workspace.kept(layer) == [0, 4]
    drawn = layer.data.copy()
    assert workspace.fill(layer, filling(layer, range(5))) == [1, 2, 3]
    np.testing.assert_array_equal(layer.data[[0, 4]], drawn[[0, 4]])
    assert workspace.kept(layer) == [0, 4]


def test_filling_with_what_is_there_changes_nothing(viewer, labels):
    workspace = Workspace.of(viewer)
    assert workspace.fill(labels, {2: labels.data[2].copy()}) == []
    labels.undo()
    assert workspace.states(labels) == ["untouched"] * 6


@pytest.mark.parametrize("suffix", [".tif", ".nii.gz"])
def test_what_the_user_did_survives_saving(viewer, labels, tmp_path, suffix):
    workspace = Workspace.of(viewer)
    labels.paint((0, 15, 15), 1)
    workspace.accept(labels, [1])
    workspace.reject(labels, [2])
    workspace.fill(labels, filling(labels, [3, 4]))
    workspace.accept(labels, [4])
    workspace.set_unreviewed(labels, ["stomach"])
    workspace.set_unreviewed(labels, [], 0)
    states = ["edited", "accepted", "rejected", "untouched", "accepted", "untouched"]
    assert workspace.states(labels) == states
    path = tmp_path / f"corrected{suffix}"
    write = {".tif": write_labels_tiff, ".nii.gz": write_labels_nifti}[suffix]
    write(str(path), *labels.as_layer_data_tuple()[:2])
    [(data, attributes, _)] = read_contours(path)
    reopened = viewer.add_labels(data, **attributes)
    assert workspace.states(reopened) == states
    assert workspace.unreviewed(reopened, 5) == {"stomach"}
    assert workspace.unreviewed(reopened, 0) == frozenset()
    assert [reviewed.index for reviewed in workspace.reviewed(reopened)] == reviewed_slices(
        segmentation_from_layer(reopened)
    )


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
