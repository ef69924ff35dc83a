"""Going through slices in a real viewer: strip, buttons, keys, ticks, filling."""

from dataclasses import dataclass

import numpy as np
import pytest
from napari import layers as kinds
from napari.components import ViewerModel
from napari.utils.key_bindings import coerce_keybinding
from napari.utils.shortcuts import default_shortcuts
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QLabel

from driving import click
from gitract.baseline import slice_digests
from gitract.organs import IGNORE
from gitract.scan import Segmentation
from napari_gitract.layers import origin_of, scan_to_layer, segmentation_to_layer
from napari_gitract.widgets._keys import KEYS
from napari_gitract.widgets._review import SliceReview
from napari_gitract.workspace import ReviewedSlice, current_slice, go_to_slice

COUNT = 12


def stack() -> np.ndarray:
    """Twelve slices with a square of stomach."""
    labels = np.zeros((COUNT, 20, 24), np.uint8)
    labels[:, 4:10, 4:10] = 3
    return labels


def add_day(viewer, scan, name="day 0", **provenance):
    """A prediction as a layer of the viewer."""
    labels = stack()
    segmentation = Segmentation.of_labels(
        labels,
        spacing=scan.spacing,
        name=scan.name,
        provenance={"baseline": slice_digests(labels), **provenance},
    )
    data, attributes, _ = segmentation_to_layer(segmentation, name=name)
    return viewer.add_labels(data, **attributes)


@pytest.fixture
def labels(viewer, scan):
    voxels, attributes, _ = scan_to_layer(scan)
    viewer.add_image(np.repeat(voxels, 2, axis=0), **attributes)
    return add_day(viewer, scan)


@pytest.fixture
def review(viewer, labels):
    return open_review(viewer, labels)


def open_review(viewer, labels):
    review = SliceReview(viewer)
    viewer.window.add_dock_widget(review, name=f"Review {id(review)}")
    review.show_layer(labels)
    return review


def states(review):
    return review.strip.columns.states


def only(**where):
    """All slices untouched, but for those named."""
    told = ["untouched"] * COUNT
    for state, slices in where.items():
        for index in slices:
            told[index] = state
    return told


def at(review, index):
    return review.strip.columns.place_of(index).toPoint()


# --- the strip follows the user ---------------------------------------------------------


def polygon(labels, index):
    labels.paint_polygon([[index, 12, 12], [index, 12, 18], [index, 18, 15]], 1)


@pytest.mark.parametrize(
    "draw",
    [
        lambda labels: labels.paint((3, 15, 15), 1),
        lambda labels: labels.fill((3, 0, 0), 2),
        lambda labels: polygon(labels, 3),
        lambda labels: labels.data_setitem((np.array([3]), np.array([1]), np.array([1])), 2),
    ],
    ids=["paint", "fill", "polygon", "data_setitem"],
)
@pytest.mark.parametrize("shown", [3, 8])
def test_every_way_to_draw_is_seen_and_so_are_undo_and_redo(
    viewer, labels, review, qtbot, draw, shown
):
    go_to_slice(viewer, labels, 3)
    draw(labels)
    assert states(review) == only(edited=[3])  # at once, since it is the slice that is shown
    go_to_slice(viewer, labels, shown)
    for change, told in ((labels.undo, only()), (labels.redo, only(edited=[3]))):
        change()
        qtbot.waitUntil(lambda told=told: states(review) == told)


def test_a_stack_that_is_replaced_is_seen(labels, review, qtbot):
    labels.data = np.zeros_like(labels.data)
    qtbot.waitUntil(lambda: states(review) == ["edited"] * COUNT)


def test_the_legend_counts_and_the_strip_says_what_a_slice_is(viewer, labels, review):
    review._workspace.accept(labels, [1, 2])
    review._workspace.reject(labels, [5])
    labels.paint((0, 15, 15), 1)
    review.refresh()
    text = review.strip.legend.text().replace("&nbsp;", " ")
    for count in ("1 edited", "2 accepted", "1 rejected", "8 untouched"):
        assert count in text
    assert review.strip.columns.text_of(5) == "Slice 5: rejected"
    assert "0–2" in review.summary.text()


def test_click_and_drag_on_the_strip_go_to_slices(viewer, labels, review, qtbot):
    labels.translate = (30, 0, 0)
    columns = review.strip.columns
    qtbot.mouseClick(columns, Qt.MouseButton.LeftButton, pos=at(review, 7))
    assert current_slice(viewer, labels) == 7
    qtbot.mousePress(columns, Qt.MouseButton.LeftButton, pos=at(review, 2))
    qtbot.mouseMove(columns, at(review, 4))
    assert current_slice(viewer, labels) in (2, 4)  # a platform may hold back moves
    qtbot.mouseRelease(columns, Qt.MouseButton.LeftButton, pos=at(review, 4))
    assert columns.slice_at(-50) == 0
    assert columns.slice_at(columns.width() + 50) == COUNT - 1


def test_the_marker_follows_the_slider(viewer, labels, review):
    for index in (0, 5, COUNT - 1):
        go_to_slice(viewer, labels, index)
        assert review.strip.columns.current == index


def drawn_at(review, index):
    """The colour at the foot of a column."""
    columns = review.strip.columns
    picture = columns.grab().toImage()  # which lays it out, too
    scale = picture.width() / columns.width()
    foot = QPoint(at(review, index).x(), columns.height() - 2)
    return picture.pixelColor(foot * scale).name()


def test_each_state_has_its_colour(labels, review):
    labels.paint((0, 15, 15), 1)
    review._workspace.accept(labels, [3])
    review._workspace.reject(labels, [6])
    review.refresh()
    assert len({drawn_at(review, index) for index in (0, 3, 6, 9)}) == 4


@pytest.mark.parametrize("count", [1, 5, 2000])
def test_stacks_of_any_length_can_be_drawn_and_clicked(viewer, review, qtbot, count):
    layer = viewer.add_labels(np.zeros((count, 4, 4), np.uint8), scale=(3, 1, 1))
    review.show_layer(layer)
    review.strip.columns.grab()
    qtbot.mouseClick(review.strip.columns, Qt.MouseButton.LeftButton, pos=at(review, count // 2))
    step = count / review.strip.columns.width()
    assert abs(current_slice(viewer, layer) - count // 2) <= max(step, 0)


def test_without_labels_there_is_nothing_to_press(viewer):
    review = SliceReview(viewer)
    assert states(review) == []
    assert not review.accept_button.isEnabled()
    assert "segment a scan" in review.summary.text()
    for action in KEYS:
        getattr(review, action)()
    review.strip.columns.grab()


def test_each_layer_has_its_own_states(viewer, labels, review, scan):
    other = add_day(viewer, scan, "day 3")
    labels.paint((3, 15, 15), 1)
    review.show_layer(other)
    assert states(review) == only()
    go_to_slice(viewer, other, 6)
    review.accept()
    assert states(review) == only(accepted=[6])
    review.show_layer(labels)
    assert states(review) == only(edited=[3])


def test_a_layer_in_two_viewers_has_one_state(viewer, labels, review, make_napari_viewer, qtbot):
    second = make_napari_viewer()
    second.add_layer(labels)
    there = open_review(second, labels)
    go_to_slice(second, labels, 4)
    there.accept()
    qtbot.waitUntil(lambda: states(review) == only(accepted=[4]))
    labels.paint((2, 15, 15), 1)
    for one in (review, there):
        qtbot.waitUntil(lambda one=one: states(one) == only(accepted=[4], edited=[2]))


# --- what is said of a slice ------------------------------------------------------------


def test_buttons_judge_the_slice_that_is_shown(viewer, labels, review, qtbot):
    go_to_slice(viewer, labels, 5)
    click(qtbot, review.accept_button)
    assert states(review) == only(accepted=[5])
    assert review.slices == [ReviewedSlice(5, False)]
    click(qtbot, review.reject_button)
    assert states(review) == only(rejected=[5])
    assert review.slices == []
    click(qtbot, review.reset_button)
    assert states(review) == only()


def test_who_listens_is_told_when_the_slices_to_train_on_change(viewer, labels, review, qtbot):
    with qtbot.waitSignal(review.changed):
        review.accept()
    with qtbot.waitSignal(review.changed):
        labels.paint((3, 15, 15), 1)


def test_a_layer_without_voxel_size_is_refused_with_the_remedy(viewer, shown):
    layer = viewer.add_labels(np.zeros((3, 8, 8), np.uint8))
    open_review(viewer, layer).accept()
    assert len(shown) == 1
    assert "Load scan" in shown[0]


# --- keys -------------------------------------------------------------------------------


@pytest.fixture
def show_review(qtbot):
    """Open a review in a viewer that is shown."""

    def show(viewer, labels):
        review = open_review(viewer, labels)
        qtbot.waitUntil(review.isVisible)
        return review

    return show


@pytest.fixture
def window(make_napari_viewer, scan, show_review):
    """A viewer that is shown, with a prediction, and the review of it."""
    viewer = make_napari_viewer(show=True)
    labels = add_day(viewer, scan)
    return viewer, labels, show_review(viewer, labels)


PRESSED = {
    "accept": (Qt.Key.Key_G, Qt.KeyboardModifier.NoModifier),
    "reject": (Qt.Key.Key_G, Qt.KeyboardModifier.ShiftModifier),
    "reset": (Qt.Key.Key_U, Qt.KeyboardModifier.NoModifier),
    "go_next": (Qt.Key.Key_N, Qt.KeyboardModifier.NoModifier),
    "go_previous": (Qt.Key.Key_N, Qt.KeyboardModifier.ShiftModifier),
}


def press(qtbot, widget, action):
    key, modifier = PRESSED[action]
    qtbot.keyClick(widget, key, modifier)


def canvas(viewer):
    return viewer.window._qt_viewer.canvas.native


@pytest.mark.parametrize("active", ["Labels", "nothing"])
def test_keys_judge_slices_while_one_draws(window, qtbot, active):
    viewer, labels, review = window
    viewer.layers.selection.active = labels if active == "Labels" else None
    go_to_slice(viewer, labels, 5)
    for action, told in (("accept", "accepted"), ("reject", "rejected"), ("reset", "untouched")):
        press(qtbot, canvas(viewer), action)
        assert states(review)[5] == told


def test_keys_work_after_a_button_was_clicked(window, qtbot):
    viewer, labels, review = window
    go_to_slice(viewer, labels, 5)
    click(qtbot, review.reject_button)
    press(qtbot, review.reject_button, "accept")
    assert states(review) == only(accepted=[5])


def test_keys_go_to_suggestions_and_back(window, qtbot, suggestions):
    viewer, labels, _ = window
    go_to_slice(viewer, labels, 1)
    press(qtbot, canvas(viewer), "go_next")
    assert current_slice(viewer, labels) == 6
    press(qtbot, canvas(viewer), "go_previous")
    assert current_slice(viewer, labels) == 1


def test_keys_are_free_again_when_the_widget_is_closed(window, qtbot):
    viewer, labels, review = window
    before = set(ViewerModel().keymap)
    assert set(viewer.keymap) - before == {coerce_keybinding(key) for key in KEYS.values()}
    viewer.window.remove_dock_widget(review)
    assert set(viewer.keymap) == before
    press(qtbot, canvas(viewer), "accept")
    assert review._workspace.states(labels) == only()


def test_behind_another_tab_the_keys_still_work_but_not_when_it_is_hidden(window, qtbot):
    viewer, labels, review = window
    dock = review.parent()
    other = viewer.window.add_dock_widget(QLabel("other"), name="other")
    main = viewer.window._qt_window
    main.tabifyDockWidget(dock, other)
    qtbot.waitUntil(lambda: other in main.tabifiedDockWidgets(dock))
    with qtbot.waitSignal(dock.visibilityChanged):
        other.raise_()
    go_to_slice(viewer, labels, 5)
    press(qtbot, canvas(viewer), "accept")
    assert states(review)[5] == "accepted"
    dock.hide()
    press(qtbot, canvas(viewer), "reject")
    assert states(review)[5] == "accepted"
    dock.show()
    qtbot.waitUntil(review.isVisible)
    press(qtbot, canvas(viewer), "reject")
    assert states(review)[5] == "rejected"


def test_the_keys_go_to_the_widget_opened_last_until_it_is_closed(window, scan, show_review, qtbot):
    viewer, labels, review = window
    other_day = add_day(viewer, scan, "day 3")
    second = show_review(viewer, other_day)
    go_to_slice(viewer, labels, 5)
    press(qtbot, canvas(viewer), "accept")
    assert (states(review), states(second)) == (only(), only(accepted=[5]))
    viewer.window.remove_dock_widget(second)
    press(qtbot, canvas(viewer), "accept")
    assert states(review) == only(accepted=[5])


def test_each_viewer_has_its_own_keys(window, make_napari_viewer, scan, show_review, qtbot):
    viewer, labels, review = window
    second = make_napari_viewer(show=True)
    there = show_review(second, add_day(second, scan))
    go_to_slice(viewer, labels, 5)
    press(qtbot, canvas(viewer), "accept")
    assert (states(review), states(there)) == (only(accepted=[5]), only())
    viewer.window.remove_dock_widget(review)
    press(qtbot, canvas(second), "reject")
    assert "rejected" in states(there)


def test_a_key_that_somebody_took_is_left_to_them(make_napari_viewer, scan, show_review, qtbot):
    viewer = make_napari_viewer(show=True)
    pressed = []
    viewer.bind_key(KEYS["accept"], pressed.append)
    review = show_review(viewer, add_day(viewer, scan))
    press(qtbot, canvas(viewer), "accept")
    assert pressed == [viewer]
    assert states(review) == only()
    assert "Key:" not in review.accept_button.toolTip()
    assert "accept" not in review.keys_line.text()
    viewer.window.remove_dock_widget(review)
    press(qtbot, canvas(viewer), "accept")
    assert len(pressed) == 2


def test_no_key_is_one_of_naparis(window):
    from napari._app_model import get_app_model
    from napari.settings import get_settings

    taken = {binding for bound in default_shortcuts.values() for binding in bound}
    for bound in get_settings().shortcuts.shortcuts.values():
        taken |= {coerce_keybinding(binding) for binding in bound}
    every = [getattr(kinds, name) for name in dir(kinds) if isinstance(getattr(kinds, name), type)]
    for kind in (ViewerModel, type(window[0]), *every):
        for base in kind.__mro__:
            taken |= set(getattr(base, "class_keymap", {}))
    taken |= {entry.keybinding for entry in get_app_model().keybindings}
    named = {str(binding) for binding in taken}
    assert named.isdisjoint(str(coerce_keybinding(key)) for key in KEYS.values())
    assert str(coerce_keybinding("Ctrl+Z")) in named


def test_keys_stand_beside_what_they_do(window):
    _, _, review = window
    assert review.accept_button.toolTip().endswith("Key: G")
    assert "Shift+N previous" in review.keys_line.text()


# --- what is next -----------------------------------------------------------------------


@dataclass(frozen=True)
class Suggestion:
    index: int
    benefit: float
    reason: str


@pytest.fixture
def suggestions(monkeypatch):
    """Slices 6, 2 and 9, as long as nothing was done about them; what was asked with."""
    asked = []

    def suggested_slices(labels, done, spacing, **more):
        asked.append({"done": list(done), "spacing": spacing, **more})
        return [
            Suggestion(index, 1.0, "the model is unsure here")
            for index in (6, 2, 9)
            if index not in done and index not in more["skip"]
        ]

    monkeypatch.setattr("gitract.correction_queue.suggested_slices", suggested_slices)
    return asked


def test_next_goes_to_one_suggestion_after_the_other_and_says_why(
    viewer, labels, review, qtbot, suggestions
):
    go_to_slice(viewer, labels, 1)
    for index in (6, 2, 9, 6):
        click(qtbot, review.next_button)
        assert current_slice(viewer, labels) == index
        assert f"slice {index}: the model is unsure here" in review.message.text()
    for index in (9, 2, 6, 1, 1):
        click(qtbot, review.previous_button)
        assert current_slice(viewer, labels) == index


def test_what_was_judged_is_not_suggested(viewer, labels, review, qtbot, suggestions):
    labels.paint((6, 15, 15), 1)
    review._workspace.reject(labels, [2])
    click(qtbot, review.next_button)
    assert current_slice(viewer, labels) == 9
    assert suggestions[-1]["done"] == [6]
    assert suggestions[-1]["skip"] == [2]
    assert suggestions[-1]["names"][3] == "stomach"
    review._workspace.accept(labels, [9])
    click(qtbot, review.next_button)
    assert review.message.text() == "Every slice was reviewed."


@pytest.mark.parametrize(("count", "known"), [(COUNT, True), (COUNT - 1, False)])
def test_doubts_are_asked_only_where_they_are_of_this_stack(
    viewer, scan, qtbot, suggestions, count, known
):
    doubts = np.linspace(0, 1, count).tolist()
    review = open_review(viewer, add_day(viewer, scan, doubts=doubts))
    click(qtbot, review.next_button)
    assert suggestions[-1]["doubts"] == (doubts if known else None)


def test_drawing_does_not_compute_suggestions(labels, review, suggestions, qtbot):
    labels.paint((3, 15, 15), 1)
    qtbot.wait(300)
    assert suggestions == []


def test_a_slice_that_the_model_missed_is_next(viewer, scan, qtbot):
    labels = add_day(viewer, scan)
    data = stack()
    data[7] = 0
    labels.data = data
    origin = origin_of(labels.metadata)
    origin.provenance["baseline"][:] = slice_digests(data)
    review = open_review(viewer, labels)
    go_to_slice(viewer, labels, 0)
    click(qtbot, review.next_button)
    assert current_slice(viewer, labels) in (6, 7, 8)
    assert "stomach" in review.message.text()


# --- filling between --------------------------------------------------------------------


@pytest.fixture
def between(viewer, labels, review):
    """Slices 2, 6 and 9 are corrected, the organ moved; 4 is rejected."""
    for index, shift in ((2, 0), (6, 8), (9, 8)):
        square = np.zeros((20, 24), np.uint8)
        square[5:11, 4 + shift : 10 + shift] = 3
        places = np.nonzero(square != labels.data[index])
        labels.data_setitem((np.full(len(places[0]), index), *places), square[places])
    review._workspace.reject(labels, [4])
    review.refresh()
    return labels.data.copy()


def choose(review, text):
    [action] = [one for one in review.fill_button.menu().actions() if one.text() == text]
    action.trigger()


def test_filling_by_shape_is_one_step_and_not_over_the_users_slices(labels, review, between):
    before = states(review)
    choose(review, "By shape")
    changed = (labels.data != between).any(axis=(1, 2)).nonzero()[0].tolist()
    assert changed == [3, 5, 7, 8]
    assert "Filled 4 slices between 2, 6 and 9" in review.message.text()
    assert states(review) == before
    filled = labels.data.copy()
    labels.undo()
    np.testing.assert_array_equal(labels.data, between)
    labels.redo()
    np.testing.assert_array_equal(labels.data, filled)
    review.refresh()
    assert states(review) == before


def test_filled_slices_are_trained_on_once_they_are_accepted(viewer, labels, review, between):
    choose(review, "By shape")
    assert [reviewed.index for reviewed in review.slices] == [2, 6, 9]
    go_to_slice(viewer, labels, 3)
    review.accept()
    assert [reviewed.index for reviewed in review.slices] == [2, 3, 6, 9]


def test_nothing_to_fill_is_said(labels, review):
    choose(review, "By shape")
    assert "Nothing to fill" in review.message.text()
    assert states(review) == only()


def test_filling_by_the_model_is_asked_for_and_applied(labels, review, between, qtbot):
    with qtbot.waitSignal(review.fill_by_model_requested):
        choose(review, "By the model")
    labels.paint((7, 15, 15), 1)  # while the model was at work
    mine = labels.data.copy()
    review.apply_filling({index: np.ones((20, 24), np.uint8) for index in range(3, 9)})
    changed = (labels.data != mine).any(axis=(1, 2)).nonzero()[0].tolist()
    assert changed == [3, 5, 8]
    assert states(review)[7] == "edited"


# --- organs that were looked at, regions to ignore -----------------------------------------


def test_every_organ_of_the_layer_has_a_tick(labels, review):
    assert [box.text() for box in review.ticks.boxes.values()] == [
        "Large bowel",
        "Small bowel",
        "Stomach",
    ]
    assert all(box.isChecked() for box in review.ticks.boxes.values())


def test_ticks_go_for_all_slices_or_for_the_one_shown(viewer, labels, review, qtbot):
    go_to_slice(viewer, labels, 4)
    review.ticks.boxes["small_bowel"].click()
    assert review._workspace.unreviewed(labels, 9) == {"small_bowel"}
    review.ticks.own.click()
    review.ticks.boxes["small_bowel"].click()
    review.ticks.boxes["stomach"].click()
    assert review._workspace.unreviewed(labels, 4) == {"stomach"}
    assert review._workspace.unreviewed(labels, 9) == {"small_bowel"}
    go_to_slice(viewer, labels, 9)
    assert not review.ticks.own.isChecked()
    assert review.ticks.unreviewed == {"small_bowel"}
    go_to_slice(viewer, labels, 4)
    assert review.ticks.own.isChecked()
    assert review.ticks.unreviewed == {"stomach"}
    review.ticks.own.click()
    assert review.ticks.unreviewed == {"small_bowel"}


def test_ticks_and_states_survive_saving_and_opening(viewer, labels, review, tmp_path):
    labels.paint((3, 15, 15), 1)
    go_to_slice(viewer, labels, 5)
    review.accept()
    review.ticks.boxes["stomach"].click()
    path = tmp_path / "corrected.tif"
    labels.save(str(path), plugin="napari-gitract")
    [reopened] = viewer.open(path, plugin="napari-gitract")
    again = open_review(viewer, reopened)
    assert states(again) == only(edited=[3], accepted=[5])
    assert again.ticks.unreviewed == {"stomach"}


def test_ignore_is_painted_on_the_layer(viewer, labels, review, qtbot):
    viewer.layers.selection.active = viewer.layers[0]
    click(qtbot, review.ignore_button)
    assert viewer.layers.selection.active is labels
    assert (labels.mode, labels.selected_label) == ("paint", IGNORE.id)
    go_to_slice(viewer, labels, 3)
    labels.paint((3, 15, 15), labels.selected_label)
    assert (labels.data[3] == IGNORE.id).any()
    assert states(review)[3] == "edited"
    assert IGNORE.name not in review.ticks.boxes


def test_it_fits_a_narrow_dock(review):
    assert review.minimumSizeHint().width() <= 270
