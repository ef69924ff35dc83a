"""Review in a real viewer: what is shown of a segmentation, and that nothing of it is changed."""

import numpy as np
import pytest
from napari import layers as kinds
from napari.components import ViewerModel
from napari.utils.key_bindings import coerce_keybinding
from napari.utils.shortcuts import default_shortcuts
from qtpy.QtCore import Qt

from gitract.baseline import slice_digests
from gitract.change import GAINED, LOST, change_between
from gitract.organs import IGNORE
from gitract.scan import Segmentation
from napari_gitract.layers import MAP_KEY, scan_to_layer, segmentation_to_layer
from napari_gitract.live import LiveLabels
from napari_gitract.organ_table import recolour_organ
from napari_gitract.prediction import Prediction, difference, keep_prediction, prediction_of
from napari_gitract.widgets._display import PREDICTION_LOST, hide_organs
from napari_gitract.widgets._keys import DISPLAY_KEYS, KEYS
from napari_gitract.widgets.review import NO_LABELS, Review
from napari_gitract.workspace import Workspace, camera_of, current_slice, go_to_slice

LARGE, SMALL, STOMACH = 1, 2, 3


def stack() -> np.ndarray:
    """Six slices with a square of stomach, and one of large bowel on some."""
    labels = np.zeros((6, 20, 24), np.uint8)
    labels[:, 4:10, 4:10] = STOMACH
    labels[2:4, 12:16, 12:20] = LARGE
    return labels


def add_prediction(viewer, scan, name="day 0", drawn=None):
    """A prediction as a layer, as a file brings it, with what was `drawn` on it before."""
    segmentation = Segmentation.of_labels(
        stack() if drawn is None else drawn,
        spacing=scan.spacing,
        name=scan.name,
        provenance={"baseline": slice_digests(stack())},
    )
    data, attributes, _ = segmentation_to_layer(segmentation, name=name)
    return viewer.add_labels(data, **attributes)


@pytest.fixture
def image(viewer, scan):
    voxels, attributes, _ = scan_to_layer(scan)
    return viewer.add_image(voxels, **attributes)


@pytest.fixture
def labels(viewer, image, scan):
    return add_prediction(viewer, scan)


@pytest.fixture
def review(viewer, labels):
    return open_review(viewer)


def open_review(viewer):
    review = Review(viewer)
    viewer.window.add_dock_widget(review, name="Review (napari-gitract)")
    return review


def helpers(viewer):
    """The layers that show something over the labels."""
    return [layer for layer in viewer.layers if MAP_KEY in layer.metadata]


def colors(layer):
    return {value: tuple(color) for value, color in layer.colormap.color_dict.items()}


# --- which layer ------------------------------------------------------------------------


def test_without_labels_one_line_says_what_to_do(viewer):
    review = open_review(viewer)
    assert review.hint.text() == NO_LABELS
    for part in (review.review, review.display, review.checks_section, review.three_d_button):
        assert not part.isVisibleTo(review)


def test_labels_that_are_added_are_shown_and_those_that_go_leave_the_line(
    viewer, image, scan, qtbot
):
    review = open_review(viewer)
    labels = add_prediction(viewer, scan)
    qtbot.waitUntil(lambda: review.review.layer is labels)
    assert review.display.isVisibleTo(review)
    viewer.layers.remove(labels)
    qtbot.waitUntil(lambda: review.hint.text() == NO_LABELS)
    assert not review.display.isVisibleTo(review)


def test_it_shows_what_goes_on_in_slices_and_nothing_that_only_training_needs(review, qtbot):
    assert not review.review.ticks.isVisibleTo(review)
    assert not review.review.ignore_button.isVisibleTo(review)
    assert review.review.fill_button.menu() is None
    qtbot.mouseClick(review.review.accept_button, Qt.MouseButton.LeftButton)
    assert review.review.summary.text() == "Reviewed: 2."


# --- organs -----------------------------------------------------------------------------


def test_a_hidden_organ_is_transparent_and_comes_back_exactly(labels, review):
    before, voxels = labels.colormap, labels.data.copy()
    box = review.display.organs.boxes[STOMACH]
    box.click()
    assert colors(labels)[STOMACH][3] == 0
    others = {value: color for value, color in colors(labels).items() if value != STOMACH}
    assert others == {k: tuple(c) for k, c in before.color_dict.items() if k != STOMACH}
    box.click()
    assert labels.colormap is before
    np.testing.assert_array_equal(labels.data, voxels)


def test_a_hidden_organ_stays_hidden_when_the_table_changes(labels, review):
    review.display.organs.boxes[STOMACH].click()
    recolour_organ(labels, STOMACH, "#102030")
    assert colors(labels)[STOMACH][3] == 0
    assert not review.display.organs.boxes[STOMACH].isChecked()
    review.display.organs.boxes[STOMACH].click()
    assert colors(labels)[STOMACH] == pytest.approx((16 / 255, 32 / 255, 48 / 255, 1))


def test_what_is_painted_is_shown(labels, review):
    review.display.organs.boxes[STOMACH].click()
    labels.selected_label = STOMACH
    labels.paint((2, 15, 5), STOMACH)
    assert colors(labels)[STOMACH][3] == 1
    assert review.display.organs.boxes[STOMACH].isChecked()


def test_the_brushs_organ_is_bold(labels, review):
    labels.selected_label = SMALL
    bold = [i for i, box in review.display.organs.boxes.items() if box.font().bold()]
    assert bold == [SMALL]


def test_closing_the_widget_shows_hidden_organs_again(viewer, labels, review):
    before = labels.colormap
    review.display.organs.boxes[STOMACH].click()
    viewer.window.remove_dock_widget(review)
    assert labels.colormap is before


def test_organs_of_layers_with_repeating_colours_are_hidden_and_come_back(viewer):
    layer = viewer.add_labels(stack())
    before = layer.colormap
    seen = layer.get_color(LARGE)
    hide_organs(layer, {STOMACH})
    assert layer.get_color(STOMACH)[3] == 0
    np.testing.assert_allclose(layer.get_color(LARGE), seen, atol=1e-6)
    hide_organs(layer, ())
    assert layer.colormap is before


# --- contours, opacity ------------------------------------------------------------------


def test_contours_and_opacity_go_to_the_layer_and_come_from_it(labels, review):
    display = review.display
    display.contours.click()
    display.thickness.setValue(3)
    assert labels.contour == 3
    display.contours.click()
    assert labels.contour == 0
    labels.contour = 2
    assert display.contours.isChecked()
    assert display.thickness.value() == 2
    labels.opacity = 0.25
    assert display.opacity.value() == 25
    display.opacity.setValue(80)
    assert labels.opacity == pytest.approx(0.8)


def test_the_controls_stand_for_the_layer_that_is_chosen(viewer, labels, review, scan, qtbot):
    other = add_prediction(viewer, scan, "day 3")
    other.opacity = 0.9
    qtbot.waitUntil(lambda: review.display.layer is other)
    assert review.display.opacity.value() == 90
    review.display.opacity.setValue(10)
    assert (labels.opacity, other.opacity) == pytest.approx((0.5, 0.1))


# --- prediction and difference ----------------------------------------------------------


def shown(review):
    return review.display.comparison.shown


def press_mode(review, mode):
    review.display.modes.buttons[mode].click()


def test_the_prediction_is_shown_as_it_was_predicted(viewer, labels, review, qtbot):
    labels.paint((2, 15, 5), SMALL)
    qtbot.wait(300)
    press_mode(review, "prediction")
    np.testing.assert_array_equal(shown(review).data, stack())
    assert shown(review).contour == 1
    assert not shown(review).editable
    assert shown(review).name == "day 0 · prediction"


def test_what_was_segmented_here_is_known_although_it_was_edited_at_once(viewer, image, scan):
    segmentation = Segmentation.of_labels(
        stack(), spacing=scan.spacing, provenance={"baseline": slice_digests(stack())}
    )
    live = LiveLabels(viewer, image, name="segmenting")
    labels = live.complete(segmentation, stack(), "day 0", Prediction(stack()))
    labels.paint((2, 15, 5), SMALL)
    review = open_review(viewer)
    press_mode(review, "prediction")
    np.testing.assert_array_equal(shown(review).data, stack())


def test_of_a_file_with_edits_the_prediction_is_not_made_up(viewer, image, scan):
    drawn = stack()
    drawn[1, 15, 5] = SMALL
    labels = add_prediction(viewer, scan, drawn=drawn)
    review = open_review(viewer)
    assert not review.display.modes.buttons["prediction"].isEnabled()
    assert not review.display.modes.buttons["difference"].isEnabled()
    assert review.display.reason.text() == PREDICTION_LOST
    review.display.toggle_prediction()
    assert helpers(viewer) == []
    assert Workspace.of(viewer).prediction(labels) is None


def test_filled_slices_are_not_taken_for_the_prediction(viewer, labels):
    filled = stack()[1]
    filled[15, 5] = SMALL
    workspace = Workspace.of(viewer)
    workspace.fill(labels, {1: filled})
    assert workspace.edited(labels) == []
    assert workspace.prediction(labels) is None


def test_the_difference_follows_strokes_undo_and_redo(viewer, labels, review, qtbot):
    go_to_slice(viewer, labels, 2)
    press_mode(review, "difference")
    assert not shown(review).data.any()
    labels.brush_size = 1
    labels.paint((2, 15, 5), SMALL)
    labels.paint((2, 5, 5), 0)
    labels.paint((2, 13, 14), STOMACH)  # another organ than was predicted
    wanted = np.zeros_like(stack())
    wanted[2, 15, 5] = wanted[2, 13, 14] = GAINED
    wanted[2, 5, 5] = LOST
    qtbot.waitUntil(lambda: np.array_equal(shown(review).data, wanted))
    go_to_slice(viewer, labels, 5)
    for _ in range(3):
        labels.undo()
    qtbot.waitUntil(lambda: not shown(review).data.any())
    labels.redo()
    qtbot.waitUntil(lambda: shown(review).data[2, 15, 5] == GAINED)


def test_the_difference_shows_edits_made_before_it_was_wanted(labels, review, qtbot):
    keep_prediction(labels)
    labels.data_setitem((np.array([4]), np.array([1]), np.array([1])), SMALL)
    press_mode(review, "difference")
    assert shown(review).data[4, 1, 1] == GAINED
    assert np.count_nonzero(shown(review).data) == 1


def test_what_is_shown_over_labels_leaves_the_selection_and_the_menus_alone(viewer, labels, review):
    labels.mode = "paint"
    for mode in ("prediction", "difference", "current"):
        press_mode(review, mode)
        assert viewer.layers.selection.active is labels
        assert set(viewer.layers.selection) == {labels}
        assert labels.mode == "paint"
        assert review.labels.layers == [labels]
        assert len(helpers(viewer)) == (mode != "current")
        assert [m for m, b in review.display.modes.buttons.items() if b.isChecked()] == [mode]


def test_hidden_organs_are_hidden_in_the_prediction_too(labels, review):
    review.display.organs.boxes[STOMACH].click()
    press_mode(review, "prediction")
    assert colors(shown(review))[STOMACH][3] == 0
    assert colors(shown(review))[LARGE][3] == 1


def test_labels_that_are_moved_take_along_what_is_shown_over_them(labels, review):
    press_mode(review, "difference")
    labels.translate = (6, 3, 1)
    labels.scale = (2, 1, 1)
    np.testing.assert_array_equal(shown(review).translate, (6, 3, 1))
    np.testing.assert_array_equal(shown(review).scale, (2, 1, 1))


@pytest.mark.parametrize("mode", ["prediction", "difference"])
@pytest.mark.parametrize("how", ["remove", "clear", "selected"])
def test_what_is_shown_over_labels_goes_with_them(viewer, labels, review, qtbot, mode, how):
    press_mode(review, mode)
    if how == "remove":
        viewer.layers.remove(labels)
    elif how == "clear":
        viewer.layers.clear()
    else:
        viewer.layers.select_all()
        viewer.layers.remove_selected()
    qtbot.waitUntil(lambda: helpers(viewer) == [])
    assert review.display.comparison.mode == "current"


def test_removing_what_is_shown_over_labels_is_going_back_to_them(viewer, labels, review, qtbot):
    press_mode(review, "difference")
    viewer.layers.remove(shown(review))
    assert review.display.modes.buttons["current"].isChecked()
    labels.paint((2, 15, 5), SMALL)
    qtbot.wait(300)
    assert helpers(viewer) == []


def test_another_stack_in_the_layer_ends_the_comparison(viewer, labels, review, qtbot):
    press_mode(review, "difference")
    labels.data = np.zeros((3, 8, 8), np.uint8)
    qtbot.waitUntil(lambda: helpers(viewer) == [])
    assert not review.display.modes.buttons["difference"].isEnabled()


def test_closing_the_widget_takes_away_what_it_showed(viewer, labels, review):
    press_mode(review, "prediction")
    viewer.window.remove_dock_widget(review)
    assert helpers(viewer) == []


def test_a_prediction_is_kept_exactly_and_for_its_stack_alone(labels):
    kept = Prediction(stack())
    np.testing.assert_array_equal(kept.labels(), stack())
    np.testing.assert_array_equal(kept.plane(3), stack()[3])
    keep_prediction(labels)
    labels.data = labels.data[:4]
    assert prediction_of(labels) is None  # of another stack


def test_the_difference_is_that_of_segmentations():
    values = np.array([0, 1, 2, 3], np.uint8)
    before, after = (grid.astype(np.uint8)[None] for grid in np.meshgrid(values, values))
    was, now = (Segmentation.of_labels(one, spacing=(1.0, 1.0, 1.0)) for one in (before, after))
    np.testing.assert_array_equal(difference(before, after), change_between(was, now))
    ignored = np.full_like(before, IGNORE.id)
    np.testing.assert_array_equal(difference(before, ignored), np.where(before, LOST, 0))
    assert not difference(np.zeros_like(before), ignored).any()


# --- keys -------------------------------------------------------------------------------


@pytest.fixture
def window(make_napari_viewer, scan, qtbot):
    """A viewer that is shown, with a prediction, and the review of it."""
    viewer = make_napari_viewer(show=True)
    labels = add_prediction(viewer, scan)
    review = open_review(viewer)
    qtbot.waitUntil(review.display.isVisible)
    return viewer, labels, review


PRESSED = {
    "toggle_contours": (Qt.Key.Key_K, Qt.KeyboardModifier.NoModifier),
    "toggle_prediction": (Qt.Key.Key_W, Qt.KeyboardModifier.NoModifier),
    "less_opaque": (Qt.Key.Key_Comma, Qt.KeyboardModifier.NoModifier),
    "more_opaque": (Qt.Key.Key_Period, Qt.KeyboardModifier.NoModifier),
    "next_organ": (Qt.Key.Key_J, Qt.KeyboardModifier.NoModifier),
    "previous_organ": (Qt.Key.Key_J, Qt.KeyboardModifier.ShiftModifier),
}


def press(qtbot, viewer, action):
    key, modifier = PRESSED[action]
    qtbot.keyClick(viewer.window._qt_viewer.canvas.native, key, modifier)


def test_keys_change_what_is_shown(window, qtbot):
    viewer, labels, review = window
    for contour in (1, 0):
        press(qtbot, viewer, "toggle_contours")
        assert labels.contour == contour
    press(qtbot, viewer, "toggle_prediction")
    assert len(helpers(viewer)) == 1
    press(qtbot, viewer, "toggle_prediction")
    assert helpers(viewer) == []
    labels.opacity = 0.5
    press(qtbot, viewer, "less_opaque")
    assert labels.opacity == pytest.approx(0.4)
    press(qtbot, viewer, "more_opaque")
    assert labels.opacity == pytest.approx(0.5)
    labels.selected_label = STOMACH
    press(qtbot, viewer, "next_organ")
    assert labels.selected_label == LARGE
    press(qtbot, viewer, "previous_organ")
    assert labels.selected_label == STOMACH


def test_slices_are_judged_by_keys_here_too(window, qtbot):
    viewer, labels, review = window
    go_to_slice(viewer, labels, 4)
    qtbot.keyClick(viewer.window._qt_viewer.canvas.native, Qt.Key.Key_G)
    assert Workspace.of(viewer).states(labels)[4] == "accepted"


def test_keys_are_listed_and_free_again_when_the_widget_is_closed(window, qtbot):
    viewer, labels, review = window
    for key in ("K contours", "W prediction", ",/. opacity", "J/Shift+J organ"):
        assert key in review.display.keys_line.text()
    before = set(ViewerModel().keymap)
    ours = {coerce_keybinding(key) for key in (*KEYS.values(), *DISPLAY_KEYS.values())}
    assert set(viewer.keymap) - before == ours
    viewer.window.remove_dock_widget(review)
    assert set(viewer.keymap) == before
    press(qtbot, viewer, "toggle_contours")
    assert labels.contour == 0


def test_no_key_is_one_of_naparis_or_used_twice(window):
    from napari._app_model import get_app_model

    taken = {binding for bound in default_shortcuts.values() for binding in bound}
    every = [getattr(kinds, name) for name in dir(kinds) if isinstance(getattr(kinds, name), type)]
    for kind in (ViewerModel, type(window[0]), *every):
        for base in kind.__mro__:
            taken |= set(getattr(base, "class_keymap", {}))
    taken |= {entry.keybinding for entry in get_app_model().keybindings}
    named = {str(binding) for binding in taken}
    ours = [str(coerce_keybinding(key)) for key in (*KEYS.values(), *DISPLAY_KEYS.values())]
    assert named.isdisjoint(ours)
    assert len(set(ours)) == len(ours)
    assert str(coerce_keybinding("[")) in named  # the brush size is napari's


# --- 3-D --------------------------------------------------------------------------------


def state(viewer):
    """What the user sees, as far as 3-D may have changed it."""
    layers = [
        (one.name, one.visible, one.opacity, getattr(one, "contour", 0), one.rendering)
        for one in viewer.layers
    ]
    camera, dims = camera_of(viewer), viewer.dims
    return (
        layers,
        dims.ndisplay,
        tuple(dims.point),
        tuple(dims.order),
        tuple(np.round(camera.center, 6)),
        round(camera.zoom, 6),
        tuple(np.round(camera.angles, 6)),
    )


def test_3d_shows_the_organs_alone_and_a_second_press_brings_everything_back(
    viewer, image, labels, review, qtbot
):
    labels.contour = 2
    viewer.add_labels(np.zeros((6, 20, 24), np.uint8), name="hidden", visible=False)
    review.labels.layer = labels
    qtbot.waitUntil(lambda: review.display.layer is labels)
    go_to_slice(viewer, labels, 3)
    camera_of(viewer).zoom = 3.5
    camera_of(viewer).center = (0, 11, 9)
    before = state(viewer)
    review.three_d_button.click()
    assert viewer.dims.ndisplay == 3
    assert labels.rendering == "iso_categorical"
    assert [layer.name for layer in viewer.layers if layer.visible] == [labels.name]
    review.three_d_button.click()
    assert state(viewer) == before
    assert current_slice(viewer, labels) == 3


def test_3d_is_seen_from_the_front_with_the_head_up(viewer, labels, review):
    review.three_d_button.click()
    camera = camera_of(viewer)
    np.testing.assert_allclose(camera.view_direction, (0, 1, 0), atol=1e-6)  # to the back
    np.testing.assert_allclose(camera.up_direction, (-1, 0, 0), atol=1e-6)  # slices run to the feet
    review.three_d_off()


def test_naparis_own_button_ends_3d_as_well(viewer, image, labels, review):
    review.three_d_button.click()
    viewer.dims.ndisplay = 2
    assert not review.three_d_button.isChecked()
    assert image.visible
    assert labels.opacity == 0.5


def test_labels_that_go_in_3d_take_it_along(viewer, image, labels, review, qtbot):
    review.three_d_button.click()
    viewer.layers.remove(labels)
    qtbot.waitUntil(lambda: viewer.dims.ndisplay == 2)
    assert image.visible
