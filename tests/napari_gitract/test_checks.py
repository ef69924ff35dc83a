"""The list of what to look at again, in a real viewer: it leads to places, and is never stale."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from qtpy.QtCore import Qt

from driving import wait
from gitract import contour_checks
from gitract.organs import Organ, organ_named
from gitract.scan import Scan, Segmentation
from napari_gitract.layers import origin_of, scan_to_layer, segmentation_to_layer
from napari_gitract.widgets import _checks
from napari_gitract.widgets._checks import CHANGED, GREY, NO_LAYER, NOT_YET, ContourChecks
from napari_gitract.workspace import Workspace, camera_of, go_to_slice

SHAPE, SPACING = (30, 60, 70), (3.0, 1.5, 1.25)
HOLE = (14, 22, 31)  # the middle of it
STRAY = (4, 3, 8)


def stack() -> np.ndarray:
    """A bar of stomach with a hole of 5 x 5 pixels, and a stray voxel of small bowel's."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[6:24, 10:50, 20:60] = 3
    labels[14, 20:25, 29:34] = 0
    labels[2:28, 51:59, 2:68] = 2
    labels[STRAY] = 2
    return labels


def add_labels(viewer, labels=None, *, turned=False, **attributes):
    """Contours over their scan; `turned` as where rows and columns run the other way."""
    affine = np.diag([-SPACING[2], -SPACING[1], SPACING[0], 1.0])[:, [2, 1, 0, 3]]
    scan = Scan(np.zeros(SHAPE, np.uint16), SPACING, affine if turned else None)
    data, shown, _ = scan_to_layer(scan)
    viewer.add_image(data, **shown)
    segmentation = Segmentation.of_labels(
        stack() if labels is None else labels, spacing=SPACING, affine=scan.affine
    )
    data, shown, _ = segmentation_to_layer(segmentation)
    return viewer.add_labels(data, **{**shown, **attributes})


@pytest.fixture
def layer(viewer):
    return add_labels(viewer)


@pytest.fixture
def checks(viewer):
    checks = ContourChecks(viewer)
    viewer.window.add_dock_widget(checks, name="Checks")
    return checks


@pytest.fixture
def checked(checks, layer, qtbot):
    """The list for `layer`: missing bowel, a stray voxel, a hole."""
    look_through(checks, layer, qtbot)
    return checks


def look_through(checks, layer, qtbot):
    checks.show_layer(layer)
    qtbot.mouseClick(checks.check_button, Qt.MouseButton.LeftButton)
    wait(qtbot, checks)


def texts(checks):
    rows = checks.rows
    return [[rows.item(row, column).text() for column in (0, 1)] for row in range(rows.rowCount())]


def colours(checks):
    return {
        checks.rows.item(row, column).foreground().color().name()
        for row in range(checks.rows.rowCount())
        for column in (0, 1)
    }


def row_of(checks, kind):
    return [one.kind for one in checks.findings].index(kind)


def click_row(checks, row, qtbot):
    place = checks.rows.visualItemRect(checks.rows.item(row, 1)).center()
    qtbot.mouseClick(checks.rows.viewport(), Qt.MouseButton.LeftButton, pos=place)


def place_shown(viewer, layer):
    """The voxel of a layer in the middle of the canvas, on the slice that is shown."""
    world = np.array(viewer.dims.point)
    displayed = list(viewer.dims.displayed)
    world[displayed] = np.array(camera_of(viewer).center)[-len(displayed) :]
    return tuple(round(float(index)) for index in layer.world_to_data(world))


# --- the list ---------------------------------------------------------------------------------


def test_without_a_layer_it_says_what_to_do(checks):
    assert checks.summary.text() == NO_LAYER
    assert not checks.check_button.isEnabled()
    assert not checks.rows.isVisible()


def test_findings_are_listed_with_slice_and_sentence(checked):
    rows = texts(checked)
    assert [row[0] for row in rows] == ["–", "4", "14"]
    assert "Large bowel" in rows[0][1]
    assert "speck" in rows[1][1]
    assert "hole of 47 mm²" in rows[2][1]
    assert checked.summary.text().startswith("3 to look at.")
    for row, finding in enumerate(checked.findings):
        assert checked.rows.item(row, 1).toolTip() == finding.sentence


def test_the_swatch_shows_the_organ(checked):
    for row, name in enumerate(("large_bowel", "small_bowel", "stomach")):
        image = checked.rows.item(row, 0).icon().pixmap(14, 14).toImage()
        assert image.pixelColor(7, 7).name() == organ_named(name).color


def test_a_note_stands_in_italics(viewer, checks, qtbot):
    labels = stack()
    labels[0:10, 51:59, 2:68] = 2
    look_through(checks, add_labels(viewer, labels), qtbot)
    row = row_of(checks, "cut")
    assert checks.rows.item(row, 1).font().italic()
    assert "1 note" in checks.summary.text()
    assert not checks.rows.item(row_of(checks, "hole"), 1).font().italic()


def test_nothing_found_is_said(viewer, checks, qtbot):
    labels = np.zeros(SHAPE, np.uint8)
    labels[3:27, 3:57, 3:25] = 1
    labels[3:27, 3:57, 26:46] = 2
    labels[3:27, 3:57, 47:67] = 3
    look_through(checks, add_labels(viewer, labels), qtbot)
    assert checks.summary.text() == "Nothing to look at again was found."
    assert not checks.rows.isVisible()


def test_many_findings_scroll_in_a_short_list(viewer, checks, qtbot):
    labels = stack()
    for index in range(7, 23):
        labels[index, 12:17, 22 + index : 27 + index] = 0
        labels[index, 30:36, 22:28] = 0 if index % 2 else 3
    look_through(checks, add_labels(viewer, labels), qtbot)
    assert len(checks.findings) > 8
    assert checks.rows.height() < 260
    assert checks.rows.minimumSizeHint().width() <= 280


# --- a click goes there -------------------------------------------------------------------------


@pytest.mark.parametrize("turned", [False, True])
def test_a_click_shows_the_place_and_takes_the_organ(viewer, checks, qtbot, turned):
    layer = add_labels(viewer, turned=turned)
    look_through(checks, layer, qtbot)
    viewer.layers.selection.active = viewer.layers[0]
    click_row(checks, row_of(checks, "hole"), qtbot)
    assert place_shown(viewer, layer) == HOLE
    assert layer.selected_label == 3
    assert viewer.layers.selection.active is layer
    assert checks.sentence.text() == checks.findings[row_of(checks, "hole")].sentence
    click_row(checks, row_of(checks, "island"), qtbot)
    assert place_shown(viewer, layer) == STRAY
    assert layer.selected_label == 2


def test_a_click_leads_to_the_place_of_a_layer_that_was_moved(viewer, checks, qtbot):
    layer = add_labels(viewer, translate=(30.0, -12.0, 45.0))
    look_through(checks, layer, qtbot)
    click_row(checks, row_of(checks, "hole"), qtbot)
    assert place_shown(viewer, layer) == HOLE


def test_a_click_leads_to_the_place_in_other_planes_and_beside_more_axes(viewer, checks, qtbot):
    viewer.add_image(np.zeros((2, 3, 4, 5)))
    layer = add_labels(viewer)
    viewer.dims.order = (0, 2, 1, 3)
    look_through(checks, layer, qtbot)
    click_row(checks, row_of(checks, "hole"), qtbot)
    assert place_shown(viewer, layer) == HOLE


def test_what_is_nowhere_leaves_the_view_and_takes_the_organ(viewer, checked, layer, qtbot):
    go_to_slice(viewer, layer, 11)
    before = place_shown(viewer, layer)
    click_row(checked, row_of(checked, "missing"), qtbot)
    assert place_shown(viewer, layer) == before
    assert layer.selected_label == 1


# --- never stale ----------------------------------------------------------------------------------


def test_a_list_of_changed_contours_is_grey_and_says_so_until_they_are_as_before(
    viewer, checked, layer, qtbot
):
    found = checked.summary.text()
    go_to_slice(viewer, layer, 8)
    layer.paint((8, 30, 30), 1)
    assert checked.summary.text() == CHANGED
    assert colours(checked) == {GREY.name()}
    click_row(checked, row_of(checked, "hole"), qtbot)
    assert place_shown(viewer, layer) == HOLE
    layer.undo()
    qtbot.waitUntil(lambda: checked.summary.text() == found)
    assert GREY.name() not in colours(checked)


def test_a_change_on_another_slice_is_noticed_too(viewer, checked, layer, qtbot):
    go_to_slice(viewer, layer, 8)
    layer.data_setitem((np.array([20]), np.array([30]), np.array([30])), 1)
    qtbot.waitUntil(lambda: checked.out_of_date)


def test_moving_the_slider_or_judging_a_slice_changes_nothing(viewer, checked, layer, qtbot):
    go_to_slice(viewer, layer, 9)
    Workspace.of(viewer).accept(layer, [9])
    qtbot.wait(_checks.QUIET_MS + 100)
    assert not checked.out_of_date


def test_other_organs_in_the_table_make_it_out_of_date(checked, layer, qtbot):
    origin = origin_of(layer.metadata)
    organs = (*origin.organs, Organ(30, "ctv", "#ffffff"))
    layer.metadata = {**layer.metadata, "gitract": replace(origin, organs=organs)}
    assert checked.out_of_date


def test_data_that_is_no_stack_any_more_makes_it_out_of_date(checked, layer):
    layer.data = np.zeros((5, *SHAPE[1:]), np.uint8)
    assert checked.out_of_date


def test_checking_again_is_of_the_contours_as_they_are(checked, layer, qtbot):
    layer.fill(HOLE, 3)
    assert checked.out_of_date
    look_through(checked, layer, qtbot)
    assert not checked.out_of_date
    assert {one.kind for one in checked.findings} == {"missing", "island"}
    assert GREY.name() not in colours(checked)


@pytest.fixture
def gate(monkeypatch):
    """Holds the looking until it is opened."""
    gate, entered = threading.Event(), threading.Event()
    check = contour_checks.check_contours

    def held(*arguments, **named):
        entered.set()
        assert gate.wait(20)
        return check(*arguments, **named)

    monkeypatch.setattr(contour_checks, "check_contours", held)
    gate.entered = entered  # type: ignore[attr-defined]
    yield gate
    gate.set()


def test_contours_that_change_while_they_are_checked_give_a_list_that_is_out_of_date(
    viewer, checks, layer, gate, qtbot
):
    checks.show_layer(layer)
    checks.check()
    assert not checks.check_button.isEnabled()
    assert gate.entered.wait(20)
    layer.paint((8, 30, 30), 1)
    gate.set()
    wait(qtbot, checks)
    assert checks.findings
    assert checks.summary.text() == CHANGED
    assert checks.check_button.isEnabled()


def test_what_was_found_in_another_layer_is_never_shown(viewer, checks, layer, gate, qtbot):
    checks.show_layer(layer)
    checks.check()
    assert gate.entered.wait(20)
    checks.show_layer(add_labels(viewer))
    gate.set()
    wait(qtbot, checks)
    qtbot.waitUntil(checks.check_button.isEnabled)
    assert checks.findings == ()
    assert checks.summary.text() == NOT_YET


def test_the_list_goes_with_its_layer(checked):
    checked.show_layer(None)
    assert checked.rows.rowCount() == 0
    assert checked.summary.text() == NO_LAYER


def test_contours_without_a_voxel_size_are_refused_with_one_sentence(viewer, checks, qtbot, shown):
    look_through(checks, viewer.add_labels(stack(), name="foreign"), qtbot)
    assert "voxel size" in shown[0]
    assert checks.findings == ()
    assert checks.check_button.isEnabled()


def test_a_value_that_is_no_organ_is_refused_and_leaves_no_list(checked, layer, qtbot, shown):
    layer.data_setitem((np.array([20]), np.array([30]), np.array([30])), 77)
    look_through(checked, layer, qtbot)
    assert "77" in shown[0]
    assert checked.rows.rowCount() == 0
    assert checked.summary.text() == NOT_YET
