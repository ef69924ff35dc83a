"""Measure in a real viewer: numbers that follow the brush, a plot that follows the slider."""

import csv
import io

import numpy as np
import pytest
from qtpy.QtCore import QEvent, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication

from gitract.measure import HEADER
from gitract.organs import ORGANS
from gitract.scan import Scan, Segmentation
from napari_gitract.layers import scan_to_layer, segmentation_to_layer
from napari_gitract.widgets.measure import Measure
from napari_gitract.workspace import current_slice, go_to_slice

VOXEL_ML = 3.0 * 1.5 * 1.25 / 1000


@pytest.fixture
def image(viewer, scan):
    voxels, attributes, _ = scan_to_layer(scan)
    return viewer.add_image(voxels, **attributes)


@pytest.fixture
def contours(scan) -> Segmentation:
    """A stomach on slices 1 to 3, largest on 2, and a small bowel that the view cuts."""
    labels = np.zeros(scan.shape, np.uint8)
    labels[1:4, 2:8, 2:10] = 3
    labels[2, 8, 2:10] = 3
    labels[4:, 10:14, 10:14] = 2
    return Segmentation.of_labels(labels, spacing=scan.spacing, affine=scan.affine, name=scan.name)


@pytest.fixture
def labels(viewer, image, contours):
    data, attributes, _ = segmentation_to_layer(contours, image, name="contours")
    return viewer.add_labels(data, **attributes)


@pytest.fixture
def empty(viewer):
    return docked(viewer)


@pytest.fixture
def widget(viewer, labels, qtbot):
    """Measure, with the contours measured."""
    found = docked(viewer)
    measured(qtbot, found)
    return found


def docked(viewer) -> Measure:
    widget = Measure(viewer)
    viewer.window.add_dock_widget(widget, name="Measure")
    return widget


def measured(qtbot, widget):
    qtbot.waitUntil(lambda: widget.up_to_date and not widget.busy)


def cells(widget, row):
    return [widget.organs.item(row, column).text() for column in range(5)]


def stomach(widget):
    return cells(widget, 2)


def parts(widget):
    return (widget.organs, widget.plot, widget.export_button, widget.copy_button)


# --- numbers ----------------------------------------------------------------------------


def test_it_shows_each_organ(widget):
    assert cells(widget, 0) == ["Large bowel", "0.0", "–", "–", ""]
    assert cells(widget, 1) == ["Small bowel", f"{32 * VOXEL_ML:.1f}", "6.0", "4–5", "cut"]
    assert stomach(widget) == ["Stomach", f"{152 * VOXEL_ML:.1f}", "9.0", "1–3", ""]
    assert "last slice" in widget.organs.item(1, 4).toolTip()
    assert widget.hint.isHidden()


def test_the_rest_is_told_of_the_organ_that_is_chosen(widget):
    widget.organs.selectRow(2)
    text = widget.details.text()
    one = widget.measures[2]
    assert text.startswith("Stomach")
    assert f"{one.surface_cm2:.1f} cm²" in text
    assert f"intensity {one.mean_intensity:.1f}" in text
    assert f"z {one.centroid_lps_mm[2]:.1f}" in text
    widget.organs.selectRow(1)
    assert "Touches the last slice" in widget.details.text()
    widget.organs.selectRow(0)
    assert "nothing is painted" in widget.details.text()


def test_it_fits_a_small_screen_and_a_narrow_dock(widget):
    assert widget.minimumSizeHint().height() < 700
    assert widget.area.widget().minimumSizeHint().width() <= 320


def test_numbers_follow_the_brush_and_are_grey_until_then(widget, viewer, labels, qtbot):
    go_to_slice(viewer, labels, 2)
    before = stomach(widget)
    labels.selected_label = 3
    labels.brush_size = 1
    labels.paint((2, 15, 20), 3)
    assert not widget.up_to_date
    assert not widget.organs.isEnabled()
    assert widget.plot.faded
    assert "Measuring" in widget.status.text()
    assert stomach(widget) == before
    measured(qtbot, widget)
    assert widget.measures[2].voxels == np.count_nonzero(labels.data == 3) > 152
    assert widget.organs.isEnabled()
    assert not widget.plot.faded


def test_undo_is_measured_too(widget, viewer, labels, qtbot):
    go_to_slice(viewer, labels, 2)
    labels.data_setitem((np.array([5]), np.array([0]), np.array([0])), 3)
    measured(qtbot, widget)
    assert stomach(widget)[3] == "1–5"
    labels.undo()
    assert not widget.up_to_date
    measured(qtbot, widget)
    assert stomach(widget)[3] == "1–3"


def test_a_stroke_while_it_is_measured_is_not_missed(widget, labels, qtbot):
    for index in (0, 4, 5):
        labels.data_setitem((np.array([index]), np.array([0]), np.array([0])), 3)
        widget.measure()
        labels.data_setitem((np.array([index]), np.array([0]), np.array([1])), 3)
        assert not widget.up_to_date
    measured(qtbot, widget)
    assert widget.measures[2].voxels == 152 + 6


def test_moving_the_slider_alone_measures_nothing_anew(widget, viewer, labels):
    for index in (0, 3, 5, 2):
        go_to_slice(viewer, labels, index)
        assert widget.up_to_date


def test_a_slice_that_was_painted_unseen_is_measured_when_the_slider_comes(
    widget, viewer, labels, qtbot
):
    go_to_slice(viewer, labels, 0)
    labels.data[4, 0, 0] = 3  # no event tells of it
    go_to_slice(viewer, labels, 4)
    assert not widget.up_to_date
    measured(qtbot, widget)
    assert stomach(widget)[3] == "1–4"


@pytest.mark.parametrize("visible", [True, False])
def test_a_change_of_slices_that_are_not_shown_is_measured(widget, viewer, labels, qtbot, visible):
    labels.visible = visible
    measured(qtbot, widget)
    go_to_slice(viewer, labels, 1)
    labels.data_setitem((np.array([5]), np.array([0]), np.array([0])), 3)
    assert not widget.up_to_date
    measured(qtbot, widget)
    assert stomach(widget)[3] == "1–5"


def test_nothing_out_of_date_is_copied_or_saved(widget, labels, tmp_path):
    QApplication.clipboard().setText("before")
    labels.data_setitem((np.array([0]), np.array([0]), np.array([0])), 3)
    assert not widget.copy_button.isEnabled()
    assert not widget.export_button.isEnabled()
    widget.copy()
    widget.export(str(tmp_path / "out.csv"))
    assert QApplication.clipboard().text() == "before"
    assert list(tmp_path.iterdir()) == []


# --- the plot and the slider ------------------------------------------------------------


def test_the_plot_shows_each_organ_in_its_colour(widget):
    titles = [(curve.title, curve.color) for curve in widget.plot.curves]
    assert titles == [(organ.title, organ.color) for organ in ORGANS]
    expected = np.array([0, 48, 56, 48, 0, 0]) * VOXEL_ML
    np.testing.assert_allclose(widget.plot.curves[2].volumes_ml, expected)
    assert widget.plot.text_of(2) == f"Slice 2: Stomach {56 * VOXEL_ML:.2f} mL"
    assert widget.plot.text_of(0) == "Slice 0: no organ"


def test_the_line_follows_the_slider(widget, viewer, labels):
    for index in (0, 4, 2):
        go_to_slice(viewer, labels, index)
        assert widget.plot.current == index


def test_a_click_in_the_plot_moves_the_slider(widget, viewer, labels, qtbot):
    go_to_slice(viewer, labels, 0)
    for index in (4, 1, 5):
        place = widget.plot.place_of(index).toPoint()
        qtbot.mouseClick(widget.plot, Qt.MouseButton.LeftButton, pos=place)
        assert current_slice(viewer, labels) == index
        assert widget.plot.current == index


def test_dragging_in_the_plot_moves_the_slider(widget, viewer, labels, qtbot):
    plot = widget.plot
    qtbot.mousePress(plot, Qt.MouseButton.LeftButton, pos=plot.place_of(1).toPoint())
    beyond = QPointF(plot.width() + 50, 10)
    for place, index in ((plot.place_of(3), 3), (beyond, 5)):
        move = QMouseEvent(
            QEvent.Type.MouseMove,
            place,
            plot.mapToGlobal(place),
            Qt.MouseButton.NoButton,
            Qt.MouseButton.LeftButton,
            Qt.KeyboardModifier.NoModifier,
        )
        QApplication.sendEvent(plot, move)
        assert current_slice(viewer, labels) == index


def test_the_plot_can_be_drawn_in_every_state(widget, viewer, labels):
    for emphasised in (None, 0, 2):
        widget.plot.emphasise(emphasised)
        for faded in (False, True):
            widget.plot.fade(faded)
            assert not widget.plot.grab().isNull()


def test_a_click_on_an_organ_paints_with_it_and_a_double_click_goes_there(
    widget, viewer, labels, image
):
    go_to_slice(viewer, labels, 0)
    viewer.layers.selection.active = image
    widget.organs.cellClicked.emit(2, 0)
    assert labels.selected_label == 3
    assert viewer.layers.selection.active is labels
    assert current_slice(viewer, labels) == 0
    widget.organs.cellDoubleClicked.emit(2, 0)
    assert current_slice(viewer, labels) == 2
    widget.organs.cellDoubleClicked.emit(0, 0)  # there is none of it
    assert current_slice(viewer, labels) == 2


# --- copy and export --------------------------------------------------------------------


def test_copy_puts_the_table_on_the_clipboard(widget, qtbot):
    qtbot.mouseClick(widget.copy_button, Qt.MouseButton.LeftButton)
    lines = QApplication.clipboard().text().splitlines()
    assert lines[0].split("\t") == list(HEADER)
    row = dict(zip(HEADER, lines[3].split("\t"), strict=True))
    assert (row["scan"], row["organ"], row["voxels"]) == ("case1_day2", "stomach", "152")
    assert "Copied" in widget.status.text()


def test_export_writes_the_same_table(widget, tmp_path):
    path = tmp_path / "out.csv"
    widget.export(str(path))
    assert "out.csv" in widget.status.text()
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    widget.copy()
    copied = QApplication.clipboard().text()
    assert rows == list(csv.DictReader(io.StringIO(copied), delimiter="\t"))


def test_export_says_once_what_is_wrong_with_the_file(widget, tmp_path, shown):
    widget.export(str(tmp_path / "out.xlsx"))
    assert len(shown) == 1
    assert ".csv" in shown[0]
    assert list(tmp_path.iterdir()) == []


# --- layers -----------------------------------------------------------------------------


def test_without_labels_one_line_says_what_to_do(empty):
    assert "Segment a scan" in empty.hint.text()
    assert all(part.isHidden() for part in parts(empty))


def test_contours_that_are_added_are_measured(empty, viewer, labels, image, qtbot):
    measured(qtbot, empty)
    assert empty.labels.layer is labels
    assert empty.image.layer is image
    assert stomach(empty)[3] == "1–3"


def test_a_layer_that_is_removed_takes_its_numbers_along(widget, viewer, labels, qtbot):
    labels.data_setitem((np.array([0]), np.array([0]), np.array([0])), 3)
    widget.measure()
    viewer.layers.remove(labels)  # while it is measured
    qtbot.waitUntil(lambda: not widget.busy)
    assert widget.measures == ()
    assert all(part.isHidden() for part in parts(widget))
    assert "Segment a scan" in widget.hint.text()


def test_another_layer_shows_its_own_numbers_only(widget, viewer, labels, image, contours, qtbot):
    other = Segmentation(
        np.roll(contours.masks, 1, axis=1), contours.spacing, contours.affine, name=contours.name
    )
    data, attributes, _ = segmentation_to_layer(other, image, name="other")
    viewer.add_labels(data, **attributes)
    assert widget.measures == ()
    measured(qtbot, widget)
    assert stomach(widget)[3] == "2–4"
    widget.labels.layer = labels
    assert widget.measures == ()
    measured(qtbot, widget)
    assert stomach(widget)[3] == "1–3"


def test_the_intensity_is_of_the_image_that_the_labels_were_drawn_on(
    widget, viewer, scan, image, qtbot
):
    before = widget.measures[2].mean_intensity
    day = Scan(scan.voxels + 100, scan.spacing, name="case1_day7")  # the grid is the same
    voxels, attributes, _ = scan_to_layer(day)
    other = viewer.add_image(voxels, **attributes)
    measured(qtbot, widget)
    assert widget.image.layer is image
    assert widget.measures[2].mean_intensity == before
    widget.image.activated.emit(widget.image.layers.index(other))  # the user wants it so
    measured(qtbot, widget)
    assert widget.image.layer is other
    assert widget.measures[2].mean_intensity == pytest.approx(before + 100)


def test_an_image_that_does_not_fit_gives_no_intensity_and_says_so(
    widget, viewer, scan, image, qtbot
):
    viewer.layers.remove(image)
    small = Scan(scan.voxels[:, :10], scan.spacing, name="small")
    voxels, attributes, _ = scan_to_layer(small)
    viewer.add_image(voxels, **attributes)
    measured(qtbot, widget)
    assert "small" in widget.hint.text()
    assert "intensit" in widget.hint.text()
    assert widget.measures[2].mean_intensity is None
    assert stomach(widget)[3] == "1–3"


def test_a_value_that_is_no_organ_is_told_in_the_widget(widget, labels, qtbot, shown):
    labels.data_setitem((np.array([0]), np.array([0]), np.array([0])), 77)
    qtbot.waitUntil(lambda: "77" in widget.hint.text())
    assert widget.measures == ()
    assert shown == []
    labels.data_setitem((np.array([0]), np.array([0]), np.array([0])), 0)
    measured(qtbot, widget)
    assert stomach(widget)[3] == "1–3"
    assert widget.hint.isHidden()


def test_a_layer_without_a_known_voxel_size_is_told_in_the_widget(empty, viewer, qtbot, shown):
    viewer.add_labels(np.ones((4, 5, 6), np.uint8), name="from elsewhere")
    qtbot.waitUntil(lambda: "voxel size" in empty.hint.text())
    assert shown == []


def test_a_closed_widget_measures_no_more(widget, viewer, labels, qtbot):
    labels.data_setitem((np.array([0]), np.array([0]), np.array([0])), 3)
    viewer.window.remove_dock_widget(widget)
    qtbot.wait(900)  # longer than the brush must rest
    assert not widget.busy
    assert not widget.up_to_date
