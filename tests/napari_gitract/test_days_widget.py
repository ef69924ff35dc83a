"""Treatment days in a real viewer: compared, shown together, and one started from another."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from napari.layers import Image, Labels
from qtpy.QtCore import QTimer

from driving import wait
from gitract import days
from gitract.errors import Cancelled
from gitract.organs import ORGANS
from gitract.phantom import abdomen
from gitract.scan import Scan, Segmentation
from napari_gitract.layers import origin_of, scan_to_layer, segmentation_to_layer
from napari_gitract.widgets._days_open import open_days, short_names
from napari_gitract.widgets.days import CHANGED, GONE, NO_CONTOURS, NO_DAYS, Days
from napari_gitract.workspace import Workspace

SPACING = (3.0, 5.0, 5.0)
FIRST, TODAY = "case1_day0", "case1_day2"


@pytest.fixture(scope="module")
def patient():
    """Two days: on the second the table stands 6 mm lower."""
    scan, truth = abdomen((26, 48, 56), spacing=SPACING)
    days = {}
    for name, part in ((FIRST, slice(0, 24)), (TODAY, slice(2, 26))):
        days[name] = (
            Scan(scan.voxels[part], SPACING, name=name),
            Segmentation(truth.masks[:, part], SPACING, name=name),
        )
    return days


def open_day(viewer, patient, name, contours=True):
    """Open a scan and its contours; the layers."""
    scan, truth = patient[name]
    data, attributes, _ = scan_to_layer(scan)
    image = viewer.add_image(data.copy(), **attributes)
    if not contours:
        return image, None
    data, attributes, _ = segmentation_to_layer(truth, image, name=f"{name} · contours")
    return image, viewer.add_labels(data, **attributes)


def docked(viewer):
    widget = Days(viewer)
    viewer.window.add_dock_widget(widget, name="Treatment days")
    return widget


@pytest.fixture
def widget(viewer, patient):
    """The widget with both days open, and contours on the first one."""
    open_day(viewer, patient, FIRST)
    open_day(viewer, patient, TODAY, contours=False)
    return docked(viewer)


@pytest.fixture
def both(viewer, patient):
    """The widget with both days and their contours."""
    for name in (FIRST, TODAY):
        open_day(viewer, patient, name)
    return docked(viewer)


def state(layer):
    """All that an overlay might have changed of a layer."""
    return (
        layer.data.tobytes(),
        np.asarray(layer.data_to_world((1, 2, 3))).tolist(),
        layer.affine.affine_matrix.tolist(),
        layer.visible,
        layer.blending,
        layer.opacity,
        layer.metadata,
        str(getattr(layer, "colormap", "")) if isinstance(layer, Image) else "",
    )


def paint(labels, index):
    """One voxel of a slice, as the brush does."""
    labels.data_setitem(tuple(np.array([place]) for place in (index, 3, 3)), 1)


def text(widget, row, column):
    return widget.result.table.item(row, column).text()


# --- which days -------------------------------------------------------------------------


def test_it_says_what_is_missing(viewer, patient):
    widget = docked(viewer)
    assert widget.hint.text() == NO_DAYS
    open_day(viewer, patient, FIRST, contours=False)
    assert widget.hint.text() == NO_DAYS
    image, _ = open_day(viewer, patient, TODAY, contours=False)
    assert widget.hint.text() == NO_CONTOURS
    assert widget.overlay.isEnabled()
    assert not widget.start_button.isEnabled()
    assert not widget.compare_button.isEnabled()
    viewer.layers.remove(image)
    assert widget.hint.text() == NO_DAYS


def test_scans_find_their_contours_and_days_their_order(viewer, patient):
    late = {"case1_day10": [replace(one, name="case1_day10") for one in patient[TODAY]]}
    open_day(viewer, late, "case1_day10")
    image, labels = open_day(viewer, patient, TODAY)
    open_day(viewer, patient, FIRST, contours=False)
    found = open_days(viewer.layers)
    assert [day.name for day in found] == [FIRST, TODAY, "case1_day10"]
    assert found[0].likely is None
    assert found[1].likely is labels
    # All three have one size; the contours of another day are never offered.
    assert found[1].offered == (labels,)
    drawn = viewer.add_labels(np.zeros(image.data.shape, np.uint8), name="by hand")
    assert open_days(viewer.layers)[1].offered == (labels, drawn)
    assert short_names([FIRST, TODAY, "case1_day10"]) == ["day0", "day2", "day10"]
    assert short_names(["monday", "tuesday"]) == ["monday", "tuesday"]


def test_the_last_day_is_today_unless_the_user_says_otherwise(viewer, both, patient):
    assert (both.today.day.name, both.earlier.day.name) == (TODAY, FIRST)
    both.today.choose(0)
    assert (both.today.day.name, both.earlier.day.name) == (FIRST, TODAY)
    viewer.layers[1].name = "renamed"  # rows are made anew
    assert both.today.day.name == FIRST


# --- comparing --------------------------------------------------------------------------


def test_organs_are_compared_day_by_day(both, qtbot, patient):
    both.compare()
    wait(qtbot, both)
    volumes = patient[TODAY][1].volumes_ml
    assert text(both, 0, 0) == "Large bowel"
    assert text(both, 2, 0).strip() == "day2"
    shown = float(text(both, 2, 1))
    assert shown == pytest.approx(volumes["large_bowel"], rel=0.02)  # stomach covers some of it
    for row in both.result.found.rows:
        if row.day == TODAY:
            assert row.moved_mm < 4
            assert row.dice > 0.9
    assert "do not say where in the patient" in both.result.remarks.text()
    assert "superior" in both.result.table.item(2, 3).toolTip()
    assert both.result.plot.text_of(1).startswith("day2: Large bowel")
    assert both.result.alignment.text().startswith(f"{TODAY} was laid upon {FIRST}")


def test_numbers_of_contours_that_changed_are_not_shown_as_new(both, viewer, qtbot):
    both.compare()
    wait(qtbot, both)
    assert both.result.table.isEnabled()
    labels = viewer.layers[f"{TODAY} · contours"]
    viewer.dims.set_point(0, 9.0)
    paint(labels, 5)
    qtbot.waitUntil(lambda: both.hint.text() == CHANGED)
    assert not both.result.table.isEnabled()
    labels.undo()
    qtbot.waitUntil(lambda: both.hint.text() != CHANGED)
    assert both.result.table.isEnabled()
    both.contours.menus[1].setCurrentText("none")
    assert both.hint.text() == CHANGED
    assert not both.compare_button.isEnabled()
    viewer.layers.remove(labels)
    assert not both.result.isVisibleTo(both)


def test_an_organ_that_one_day_lacks_is_told(viewer, patient, qtbot):
    _, labels = open_day(viewer, patient, FIRST)
    labels.data[labels.data == 3] = 0
    open_day(viewer, patient, TODAY)
    widget = docked(viewer)
    widget.compare()
    wait(qtbot, widget)
    assert f"Stomach has no contours on {FIRST}." in widget.result.remarks.text()
    assert [text(widget, 7, column) for column in range(1, 5)] == ["–"] * 4


# --- shown together ---------------------------------------------------------------------


def wait_for(qtbot, widget, added):
    """Until a day is shown with another: its layers come one after another."""
    qtbot.waitUntil(lambda: len(widget.shown.layers) == added)


@pytest.mark.parametrize(("tick", "added"), [("overlay", 2), ("beside", 3)])
def test_what_is_shown_together_leaves_the_layers_as_they_were(both, viewer, qtbot, tick, added):
    layers = list(viewer.layers)
    viewer.layers.selection.active = layers[1]
    before = [state(layer) for layer in layers]
    box = getattr(both, tick)
    box.setChecked(True)
    wait_for(qtbot, both, added)
    assert box.isChecked()
    assert len(viewer.layers) == len(layers) + added
    assert viewer.layers.selection.active is layers[1]
    assert both.days == [both.earlier.day, both.today.day]  # what was added is no day
    box.setChecked(False)
    assert list(viewer.layers) == layers
    assert [state(layer) for layer in layers] == before


def test_the_overlay_lays_the_earlier_day_where_today_is(widget, viewer, qtbot):
    today = viewer.layers[TODAY]
    today.translate = (30, -40, 50)
    widget.overlay.setChecked(True)
    wait_for(qtbot, widget, 2)
    green, magenta = widget.shown.layers
    for layer in (green, magenta):
        np.testing.assert_allclose(layer.data_to_world((1, 2, 3)), today.data_to_world((1, 2, 3)))
    assert (green.colormap.name, magenta.colormap.name) == ("green", "magenta")
    assert magenta.blending == "additive"
    middle = (slice(4, 20), slice(8, -8), slice(8, -8))

    def alike(earlier):
        pair = earlier[middle].ravel(), today.data[middle].ravel()
        return np.corrcoef(*(voxels.astype(float) for voxels in pair))[0, 1]

    assert alike(magenta.data) > 0.95 > alike(viewer.layers[FIRST].data)
    assert not viewer.layers[FIRST].visible


def test_days_side_by_side_share_the_slider(both, viewer, qtbot):
    both.beside.setChecked(True)
    wait_for(qtbot, both, 3)
    today, drawn = viewer.layers[TODAY], viewer.layers[f"{TODAY} · contours"]
    image, labels, names = both.shown.layers
    level, row, column = np.subtract(
        image.data_to_world((5, 6, 7)), today.data_to_world((5, 6, 7))
    ).tolist()
    assert (level, row) == (0, 0)
    assert column < -today.extent.world[1, 2] + today.extent.world[0, 2]  # to the left, beyond it
    assert isinstance(labels, Labels)
    assert not labels.editable
    both_drawn = (labels.data[3:-3] == 2, drawn.data[3:-3] == 2)
    common = np.count_nonzero(both_drawn[0] & both_drawn[1])
    assert 2 * common / sum(np.count_nonzero(one) for one in both_drawn) > 0.9
    assert list(names.text.values) == [TODAY, FIRST]


def test_one_way_of_showing_ends_the_other(widget, viewer, qtbot):
    widget.overlay.setChecked(True)
    wait_for(qtbot, widget, 2)
    widget.beside.setChecked(True)
    assert len(widget.shown.layers) == 0
    wait_for(qtbot, widget, 3)
    assert not widget.overlay.isChecked()
    assert f"{FIRST} · magenta, aligned" not in viewer.layers
    assert f"{FIRST} · aligned" in viewer.layers


def test_closing_a_scan_ends_what_is_shown_of_it(widget, viewer, qtbot):
    widget.overlay.setChecked(True)
    wait_for(qtbot, widget, 2)
    viewer.layers.remove(viewer.layers[FIRST])
    assert not widget.overlay.isChecked()
    assert [layer.name for layer in viewer.layers] == [f"{FIRST} · contours", TODAY]


def test_another_pair_ends_what_is_shown_of_the_last(widget, viewer, qtbot):
    widget.overlay.setChecked(True)
    wait_for(qtbot, widget, 2)
    widget.today.choose(0)
    assert not widget.overlay.isChecked()
    assert len(widget.shown.layers) == 0


def test_unticked_while_its_layers_come_nothing_is_shown(widget, viewer, qtbot):
    before = list(viewer.layers)

    def untick(_event):
        QTimer.singleShot(0, partial(widget.overlay.setChecked, False))

    viewer.layers.events.inserted.connect(untick)
    widget.overlay.setChecked(True)
    qtbot.waitUntil(lambda: not widget.overlay.isChecked())
    qtbot.wait(50)
    assert list(viewer.layers) == before


# --- starting from an earlier day -------------------------------------------------------


def test_a_start_from_yesterday_is_a_layer_whose_edits_are_tracked(widget, viewer, qtbot, patient):
    before = state(viewer.layers[f"{FIRST} · contours"])
    widget.start_from_earlier()
    wait(qtbot, widget)
    layer = viewer.layers[f"{TODAY} · from {FIRST}"]
    today = viewer.layers[TODAY]
    np.testing.assert_allclose(layer.data_to_world((1, 2, 3)), today.data_to_world((1, 2, 3)))
    truth = patient[TODAY][1].labels().array
    inside = slice(2, -3)  # the last slices are beyond the first day
    for organ in ORGANS:
        ours, true = layer.data[inside] == organ.id, truth[inside] == organ.id
        assert 2 * np.count_nonzero(ours & true) / (ours.sum() + true.sum()) > 0.9
    workspace = Workspace.of(viewer)
    assert workspace.edited(layer) == []
    paint(layer, 7)
    assert workspace.edited(layer) == [7]
    origin = origin_of(layer.metadata)
    assert origin.name == TODAY
    assert origin.provenance["propagated_from"] == FIRST
    assert state(viewer.layers[f"{FIRST} · contours"]) == before
    assert widget.contours.contours_of(widget.today.day) is layer


def test_it_says_how_much_of_the_earlier_day_was_reviewed(viewer, patient, qtbot, widget):
    widget.start_from_earlier()
    wait(qtbot, widget)
    assert "edited or accepted" not in widget.hint.text()
    started = viewer.layers[f"{TODAY} · from {FIRST}"]
    Workspace.of(viewer).accept(started, [3, 4])
    paint(started, 9)
    widget.today.choose(0)  # and back again
    widget.start_from_earlier()
    wait(qtbot, widget)
    assert "3 of its 24 slices had been edited or accepted." in widget.hint.text()


# --- jobs that no longer fit ------------------------------------------------------------


def test_cancel_leaves_nothing(widget, viewer, qtbot, monkeypatch):
    def cancelled(*_, **__):
        raise Cancelled

    monkeypatch.setattr(days, "align", cancelled)
    layers = list(viewer.layers)
    widget.overlay.setChecked(True)
    wait(qtbot, widget)
    assert not widget.overlay.isChecked()
    widget.start_from_earlier()
    wait(qtbot, widget)
    assert list(viewer.layers) == layers
    assert all(layer.visible for layer in layers)
    assert widget.start_button.isEnabled()


def test_days_that_were_closed_meanwhile_get_no_layer(widget, viewer, qtbot):
    widget.start_from_earlier()
    viewer.layers.remove(viewer.layers[TODAY])
    wait(qtbot, widget)
    assert [layer.name for layer in viewer.layers] == [FIRST, f"{FIRST} · contours"]
    assert widget.hint.text() == NO_DAYS


def test_a_scan_that_was_replaced_meanwhile_gets_no_layer(widget, viewer, qtbot):
    widget.start_from_earlier()
    viewer.layers[TODAY].data = viewer.layers[TODAY].data[:, ::-1].copy()
    wait(qtbot, widget)
    assert len(viewer.layers) == 3
    assert widget.hint.text() == GONE


def test_an_alignment_is_looked_for_once(widget, viewer, qtbot, monkeypatch):
    calls = []
    align = days.align

    def counted(moving, fixed, **options):
        calls.append((moving.name, fixed.name))
        return align(moving, fixed, **options)

    monkeypatch.setattr(days, "align", counted)
    widget.start_from_earlier()
    wait(qtbot, widget)
    widget.overlay.setChecked(True)
    wait_for(qtbot, widget, 2)
    assert calls == [(FIRST, TODAY)]


def test_scans_that_cannot_be_aligned_are_told_in_a_sentence(viewer, patient, qtbot, shown):
    open_day(viewer, patient, FIRST)
    data, attributes, _ = scan_to_layer(Scan(np.zeros((2, 9, 9)), SPACING, name="case1_day1"))
    viewer.add_image(data, **attributes)
    widget = docked(viewer)
    widget.overlay.setChecked(True)
    wait(qtbot, widget)
    assert len(shown) == 1
    assert "case1_day1 has 2 x 9 x 9 voxels" in shown[0]
    assert not widget.overlay.isChecked()


def test_it_fits_a_small_screen_and_a_narrow_dock(both, qtbot):
    both.compare()
    wait(qtbot, both)
    assert both.minimumSizeHint().height() < 700
    assert both.area.widget().minimumSizeHint().width() <= 320
