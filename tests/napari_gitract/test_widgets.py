"""The widgets in a real viewer, with instant models in place of torch."""

import threading
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import QThreadPool
from qtpy.QtWidgets import QFileDialog

from driving import click, wait
from gitract.decision import TIDY
from gitract.errors import InputError
from gitract.home import default_home
from gitract.io import SEGMENTATION_SUFFIXES
from gitract.remote.addresses import Address, set_address
from gitract.views import SEVERAL_VIEWS
from napari_gitract.autosaving import Autosaver
from napari_gitract.layers import scan_to_layer
from napari_gitract.widgets._card import HIGHLIGHT
from napari_gitract.widgets._panel import time_left
from napari_gitract.workspace import go_to_slice

SEGMENT, FINE_TUNE, MODELS, LOAD = "Segment", "Fine-tune", "Models", "Load scan"


@pytest.fixture
def image(viewer, scan):
    voxels, attributes, _ = scan_to_layer(scan)
    return viewer.add_image(voxels, **attributes)


def open_widget(viewer, name):
    return viewer.window.add_plugin_dock_widget("napari-gitract", name)[1]


@pytest.fixture
def segmented(viewer, image, backend, qtbot):
    """A viewer with a prediction, and the Segment widget that made it."""
    widget = open_widget(viewer, SEGMENT)
    widget.segment()
    wait(qtbot, widget)
    return widget


def volumes(widget):
    table = widget.volumes
    return {table.item(row, 0).text(): table.item(row, 1).text() for row in range(table.rowCount())}


def test_every_widget_fits_a_small_screen_and_a_narrow_dock(viewer, backend):
    for name in (LOAD, SEGMENT, FINE_TUNE, MODELS):
        widget = open_widget(viewer, name)
        assert widget.minimumSizeHint().height() < 700
        # What is in the scroll area must fit, too: it does not scroll sideways.
        assert widget.area.widget().minimumSizeHint().width() <= 320


def test_a_result_that_left_the_viewer_is_not_saved(segmented, viewer, tmp_path):
    viewer.layers.remove(segmented.result)
    assert segmented.result is None
    assert not segmented.save_button.isVisibleTo(segmented)
    segmented.save(str(tmp_path / "out.tif"))
    assert list(tmp_path.iterdir()) == []


def test_the_dialog_offers_every_format_that_contours_have(segmented, qtbot, tmp_path, monkeypatch):
    offered = []

    def answer(*given):
        offered.append(given[3])
        return str(tmp_path / "organs.nii"), ""

    monkeypatch.setattr(QFileDialog, "getSaveFileName", answer)
    click(qtbot, segmented.save_button)
    wait(qtbot, segmented)
    assert (tmp_path / "organs.nii").is_file()
    for suffix in SEGMENTATION_SUFFIXES:
        assert f"*{suffix}" in offered[0]


def test_a_scan_that_was_closed_meanwhile_gets_no_layer(viewer, image, backend, qtbot):
    widget = open_widget(viewer, SEGMENT)
    widget.segment()
    viewer.layers.clear()
    wait(qtbot, widget)
    assert len(viewer.layers) == 0


def test_segment_says_what_is_missing(viewer, backend):
    widget = open_widget(viewer, SEGMENT)
    assert "Load scan" in widget.hint.text()
    assert not widget.segment_button.isEnabled()


def test_segment_adds_named_coloured_organs_where_the_image_is(viewer, image, backend, qtbot):
    image.translate = (30, -40, 50)
    image.rotate = (0, 0, 20)
    widget = open_widget(viewer, SEGMENT)
    click(qtbot, widget.segment_button)
    assert not widget.segment_button.isEnabled()
    wait(qtbot, widget)
    result = viewer.layers[-1]
    assert result is widget.result
    assert result.name == "case1_day2 · gi-tract-small"
    np.testing.assert_allclose(result.data_to_world((1, 2, 3)), image.data_to_world((1, 2, 3)))
    assert list(result.features["name"])[3] == "Stomach"
    # 6 slices of 6 x 8 voxels of 3 x 1.5 x 1.25 mm
    assert volumes(widget) == {
        "Large bowel": "0.0 mL",
        "Small bowel": "0.0 mL",
        "Stomach": f"{6 * 48 * 5.625 / 1000:.1f} mL",
    }
    assert widget.segment_button.isEnabled()


def test_volumes_follow_the_brush(segmented, viewer, qtbot):
    before = volumes(segmented)["Large bowel"]
    segmented.result.data_setitem(np.nonzero(segmented.result.data == 0), 1)
    qtbot.waitUntil(lambda: volumes(segmented)["Large bowel"] != before)


def test_a_range_and_a_single_slice(viewer, image, backend, qtbot):
    widget = open_widget(viewer, SEGMENT)
    widget.slices.setCurrentText("Slice range")
    widget.first.setValue(1)
    widget.last.setValue(3)
    widget.segment()
    wait(qtbot, widget)
    assert np.flatnonzero(viewer.layers[-1].data.any(axis=(1, 2))).tolist() == [1, 2, 3]
    assert "slices 1 to 3" in widget.hint.text()
    image.translate = (60, 0, 0)
    widget.slices.setCurrentText("Current slice")
    go_to_slice(viewer, image, 4)
    widget.segment()
    wait(qtbot, widget)
    assert np.flatnonzero(viewer.layers[-1].data.any(axis=(1, 2))).tolist() == [4]


def test_an_empty_range_is_refused(viewer, image, backend, shown):
    widget = open_widget(viewer, SEGMENT)
    widget.slices.setCurrentText("Slice range")
    widget.first.setValue(4)
    widget.last.setValue(2)
    widget.segment()
    assert len(shown) == 1
    assert not widget.busy


def test_cancel_leaves_no_layer(viewer, image, backend, qtbot):
    backend.gate = threading.Event()
    widget = open_widget(viewer, SEGMENT)
    widget.segment()
    click(qtbot, widget.bar.cancel_button)
    backend.gate.set()
    wait(qtbot, widget)
    assert list(viewer.layers) == [image]
    assert widget.segment_button.isEnabled()


@pytest.fixture
def half_done(viewer, image, backend, qtbot):
    """A Segment widget whose job has outlined two slices and waits."""
    backend.gate, backend.gate_from = threading.Event(), 2
    widget = open_widget(viewer, SEGMENT)
    widget.segment()
    qtbot.waitUntil(lambda: len(viewer.layers) == 2)
    yield widget
    backend.gate.set()
    wait(qtbot, widget)


def test_slices_appear_while_others_are_still_segmented(half_done, viewer, backend, qtbot):
    layer = viewer.layers[-1]
    qtbot.waitUntil(lambda: layer.data[:2].any(axis=(1, 2)).all())
    assert not layer.data[2:].any()
    assert layer.name == "case1_day2 · segmenting"
    assert list(layer.features["name"])[3] == "Stomach"
    assert not layer.editable
    backend.gate.set()
    wait(qtbot, half_done)
    assert half_done.result is layer
    assert layer.data.any(axis=(1, 2)).all()
    assert layer.name == "case1_day2 · gi-tract-small"
    assert layer.editable
    assert half_done.workspace.edited(layer) == []
    layer.data_setitem((np.array([3]), np.array([0]), np.array([0])), 1)
    assert half_done.workspace.edited(layer) == [3]


def test_cancel_takes_away_the_slices_that_were_done(half_done, viewer, image, backend, qtbot):
    click(qtbot, half_done.bar.cancel_button)
    backend.gate.set()
    wait(qtbot, half_done)
    assert list(viewer.layers) == [image]


@pytest.mark.parametrize("done", range(6))
def test_cancel_at_any_slice_leaves_nothing(viewer, image, backend, qtbot, done):
    backend.gate, backend.gate_from = threading.Event(), done
    widget = open_widget(viewer, SEGMENT)
    widget.segment()
    qtbot.waitUntil(lambda: backend.steps == done + 1)
    click(qtbot, widget.bar.cancel_button)
    backend.gate.set()
    wait(qtbot, widget)
    assert list(viewer.layers) == [image]
    assert widget.result is None
    qtbot.waitUntil(lambda: not QThreadPool.globalInstance().activeThreadCount())


def test_removing_the_unfinished_contours_cancels(half_done, viewer, image, backend, qtbot):
    with qtbot.waitSignal(half_done.job.cancelled):
        viewer.layers.remove(viewer.layers[-1])
        backend.gate.set()
    assert list(viewer.layers) == [image]


def test_nothing_is_added_to_another_scan_when_the_first_is_closed(
    half_done, viewer, image, backend, qtbot
):
    other = viewer.add_image(np.zeros((6, 20, 24)), name="other")
    with qtbot.waitSignal(half_done.job.cancelled):
        viewer.layers.remove(image)
        backend.gate.set()
    qtbot.waitUntil(lambda: list(viewer.layers) == [other])


def test_what_is_ticked_is_asked_for(viewer, image, backend, qtbot):
    widget = open_widget(viewer, SEGMENT)
    widget.segment()
    wait(qtbot, widget)
    widget.tidy.setChecked(True)
    widget.several_views.setChecked(True)
    widget.segment()
    wait(qtbot, widget)
    assert backend.asked == [(None, None), (TIDY, SEVERAL_VIEWS)]


def test_uncertainty_is_a_layer_over_the_scan_that_is_no_scan(viewer, image, backend, qtbot):
    image.translate = (30, -40, 50)
    widget = open_widget(viewer, SEGMENT)
    widget.show_uncertainty.setChecked(True)
    widget.segment()
    wait(qtbot, widget)
    shown = viewer.layers["case1_day2 · uncertainty"]
    np.testing.assert_allclose(shown.data_to_world((1, 2, 3)), image.data_to_world((1, 2, 3)))
    np.testing.assert_allclose(shown.data, widget.result.data > 0, atol=1e-4)  # one bit at 1/2
    assert widget.image.layers == [image]
    assert viewer.layers.selection.active is widget.result
    assert "slices 0, 1, 2, 3, 4" in widget.hint.text()


def test_servers_are_in_the_menu_of_devices(viewer, image, backend, monkeypatch, tmp_path):
    monkeypatch.setenv("GITRACT_HOME", str(tmp_path))
    set_address("gpu-room", Address(url="https://gpu.example:8765", token="x" * 20))
    widget = open_widget(viewer, SEGMENT)
    assert widget.device.findText("server:gpu-room") >= 0
    assert widget.device.libraries == ("torch",)
    widget.device.setCurrentText("server:gpu-room")
    assert widget.device.device == "server:gpu-room"
    assert widget.device.libraries == ()  # the server has its own


def test_closing_the_dock_cancels(viewer, image, backend, qtbot):
    backend.gate = threading.Event()
    dock, widget = viewer.window.add_plugin_dock_widget("napari-gitract", SEGMENT)
    widget.segment()
    job = widget.job
    with qtbot.waitSignal(job.cancelled):
        viewer.window.remove_dock_widget(dock)
        backend.gate.set()
    assert list(viewer.layers) == [image]


def test_closing_the_viewer_cancels(make_napari_viewer, scan, backend, qtbot):
    viewer = make_napari_viewer()
    voxels, attributes, _ = scan_to_layer(scan)
    viewer.add_image(voxels, **attributes)
    backend.gate = threading.Event()
    widget = open_widget(viewer, SEGMENT)
    widget.segment()
    task = widget.job._task
    viewer.close()
    qtbot.waitUntil(lambda: task.cancelled)
    backend.gate.set()


def test_an_error_is_shown_once_and_adds_nothing(viewer, image, backend, shown, qtbot):
    backend.error = InputError("The scan is empty.")
    widget = open_widget(viewer, SEGMENT)
    widget.segment()
    wait(qtbot, widget)
    assert shown == ["The scan is empty."]
    assert list(viewer.layers) == [image]


def test_a_layer_without_voxel_size_is_refused_with_the_remedy(viewer, backend, shown):
    viewer.add_image(np.ones((3, 8, 8)))
    open_widget(viewer, SEGMENT).segment()
    assert len(shown) == 1
    assert "Load scan" in shown[0]


def test_layer_menus_follow_the_viewer(viewer, image, backend):
    widget = open_widget(viewer, SEGMENT)
    second = viewer.add_image(np.ones((3, 8, 8)), name="second", scale=(3, 1, 1))
    assert widget.image.layer is second
    second.name = "renamed"
    assert widget.image.currentText() == "renamed"
    viewer.layers.remove(second)
    assert widget.image.layer is image
    viewer.layers.clear()
    assert widget.image.layer is None
    assert not widget.segment_button.isEnabled()


def test_clicking_an_organ_paints_with_it(segmented):
    segmented.volumes.cellClicked.emit(1, 0)
    assert segmented.result.selected_label == 2


def listed(widget):
    return [
        f"{reviewed.index} {'edited' if reviewed.edited else 'accepted'}"
        for reviewed in widget.review.slices
    ]


def test_edited_slices_list_themselves_through_undo_and_redo(segmented, viewer, qtbot):
    widget = open_widget(viewer, FINE_TUNE)
    labels = segmented.result
    assert widget.labels.layer is labels
    assert not widget.start_button.isEnabled()
    labels.paint((3, 15, 15), 1)
    qtbot.waitUntil(lambda: listed(widget) == ["3 edited"])
    labels.fill((4, 0, 0), 2)
    qtbot.waitUntil(lambda: listed(widget) == ["3 edited", "4 edited"])
    labels.undo()
    labels.undo()
    qtbot.waitUntil(lambda: listed(widget) == [])
    labels.redo()
    qtbot.waitUntil(lambda: listed(widget) == ["3 edited"])
    assert widget.start_button.isEnabled()


def test_a_slice_can_be_accepted_and_rejected_where_one_fine_tunes(segmented, viewer, qtbot):
    widget = open_widget(viewer, FINE_TUNE)
    go_to_slice(viewer, segmented.result, 5)
    click(qtbot, widget.review.accept_button)
    assert listed(widget) == ["5 accepted"]
    assert widget.start_button.isEnabled()
    click(qtbot, widget.review.reject_button)
    assert listed(widget) == []
    assert not widget.start_button.isEnabled()


def test_saved_and_reopened_labels_know_their_slices(segmented, viewer, qtbot, tmp_path):
    widget = open_widget(viewer, FINE_TUNE)
    labels = segmented.result
    labels.paint((3, 15, 15), 1)
    widget.workspace.accept(labels, [1])
    path = tmp_path / "corrected.tif"
    segmented.save(str(path))
    wait(qtbot, segmented)
    viewer.layers.remove(labels)
    [reopened] = viewer.open(path, plugin="napari-gitract")
    assert widget.labels.layer is reopened
    assert listed(widget) == ["1 accepted", "3 edited"]
    assert widget.image.layer.name == "case1_day2"
    np.testing.assert_array_equal(reopened.data, labels.data)


@pytest.fixture
def corrected(segmented, viewer):
    """A Fine-tune widget with three slices to train on."""
    widget = open_widget(viewer, FINE_TUNE)
    segmented.result.paint((3, 15, 15), 1)
    widget.workspace.accept(segmented.result, [1, 5])
    widget.review.refresh()
    return widget


def test_fine_tune_shows_curve_and_card_and_keeps(corrected, segmented, viewer, backend, qtbot):
    click(qtbot, corrected.start_button)
    wait(qtbot, corrected)
    assert backend.trained_on == [1, 3, 5]
    assert len(corrected.curves.values["loss"][0]) == 20
    assert corrected.card.isVisibleTo(corrected)
    assert corrected.card.rows.item(0, 3).text() == "+0.100"
    assert corrected.card.keep_button.styleSheet() == HIGHLIGHT
    corrected.card.name.setText("my hospital")
    click(qtbot, corrected.card.keep_button)
    assert backend.active().title == "my hospital"
    assert not corrected.card.isVisibleTo(corrected)
    assert segmented.model.currentText() == f"● {backend.active().id}"
    segmented.segment()
    wait(qtbot, segmented)
    assert viewer.layers[-1].name == "case1_day2 · v2"


def test_a_kept_model_can_be_gone_back_from_at_once(corrected, segmented, backend, qtbot):
    corrected.start()
    wait(qtbot, corrected)
    assert not corrected.restore_button.isVisibleTo(corrected)
    click(qtbot, corrected.card.keep_button)
    assert corrected.restore_button.isVisibleTo(corrected)
    click(qtbot, corrected.restore_button)
    assert backend.active().id == "gi-tract-small"
    assert segmented.model.currentText() == "● gi-tract-small"
    assert not corrected.restore_button.isVisibleTo(corrected)


def test_a_replay_folder_goes_to_the_training(corrected, backend, qtbot):
    corrected.start()
    wait(qtbot, corrected)
    assert backend.replay is None
    corrected.replay.setText(" /data/clinic ")
    corrected.start()
    wait(qtbot, corrected)
    assert backend.replay == Path("/data/clinic")


@pytest.mark.parametrize(
    ("done", "total", "seconds", "told"),
    [
        (0, 100, 60.0, ""),
        (50, 100, 2.0, ""),  # too early to tell
        (4, 100, 60.0, ""),
        (50, 100, 42.0, "about 40 s left"),
        (25, 100, 100.0, "about 5 min left"),
        (99, 100, 100.0, "about 5 s left"),
    ],
)
def test_the_time_left_is_told_once_it_can_be_known(done, total, seconds, told):
    assert time_left(done, total, seconds) == told


def test_fine_tune_discards(corrected, backend, qtbot):
    corrected.start()
    wait(qtbot, corrected)
    click(qtbot, corrected.card.discard_button)
    assert backend.discarded == 1
    assert backend.active().id == "gi-tract-small"
    assert not corrected.card.isVisibleTo(corrected)


def test_a_worse_model_is_kept_only_after_a_question(corrected, backend, qtbot, monkeypatch):
    backend.verdict = "worse"
    corrected.start()
    wait(qtbot, corrected)
    assert corrected.card.discard_button.styleSheet() == HIGHLIGHT
    monkeypatch.setattr(corrected.card, "confirm", lambda: False)
    click(qtbot, corrected.card.keep_button)
    assert backend.active().id == "gi-tract-small"
    monkeypatch.setattr(corrected.card, "confirm", lambda: True)
    click(qtbot, corrected.card.keep_button)
    assert backend.active().id == "v2"


def test_stop_keeps_the_best_so_far(corrected, backend, qtbot):
    backend.gate = threading.Event()
    backend.at_work.clear()
    corrected.start()
    qtbot.waitUntil(backend.at_work.is_set)
    click(qtbot, corrected.bar.stop_button)
    backend.gate.set()
    wait(qtbot, corrected)
    assert corrected.candidate is not None


def test_cancelled_training_keeps_nothing(corrected, backend, qtbot):
    backend.gate = threading.Event()
    corrected.start()
    click(qtbot, corrected.bar.cancel_button)
    backend.gate.set()
    wait(qtbot, corrected)
    assert corrected.candidate is None
    assert not corrected.card.isVisibleTo(corrected)
    assert len(backend.models) == 1


def test_contours_that_were_saved_are_not_offered_back(segmented, viewer, qtbot, tmp_path):
    autosaver = Autosaver.of(viewer)
    segmented.result.paint((3, 15, 15), 1)
    autosaver.flush()
    unsaved = default_home() / "unsaved"
    assert [one for one in unsaved.iterdir() if not one.name.startswith(".")]
    segmented.save(str(tmp_path / "organs.nii.gz"))
    wait(qtbot, segmented)
    autosaver.flush()
    assert not [one for one in unsaved.iterdir() if not one.name.startswith(".")]
    segmented.result.paint((4, 15, 15), 1)
    autosaver.flush()
    assert [one for one in unsaved.iterdir() if not one.name.startswith(".")]


def test_closing_napari_in_the_middle_of_a_training_asks_and_leaves_no_version(
    corrected, viewer, backend, qtbot
):
    backend.gate = threading.Event()
    backend.at_work.clear()
    corrected.start()
    qtbot.waitUntil(backend.at_work.is_set)
    tasks = viewer.window._task_status_manager  # what napari asks about before it closes
    assert any("Fine-tuning on" in line for line in tasks.get_status())
    backend.gate.set()
    tasks.cancel_all()
    wait(qtbot, corrected)
    assert corrected.candidate is None
    assert len(backend.models) == 1


def test_labels_of_another_scan_are_refused(corrected, viewer, shown):
    other = viewer.add_image(np.ones((3, 8, 8)), scale=(3, 1, 1))
    corrected.image.layer = other
    corrected.start()
    assert len(shown) == 1
    assert "choose the image" in shown[0]


def test_models_lists_activates_and_restores(viewer, image, backend, qtbot):
    backend.add_version()
    segment = open_widget(viewer, SEGMENT)
    models = open_widget(viewer, MODELS)
    assert models.versions.item(0, 0).text() == "● gi-tract-small"
    assert models.versions.item(0, 2).text() == "0.900"
    models.versions.selectRow(1)
    click(qtbot, models.activate_button)
    assert backend.active().id == "v2"
    assert segment.model.info.id == "v2"
    click(qtbot, models.restore_button)
    assert backend.active().id == "gi-tract-small"
    assert segment.model.info.id == "gi-tract-small"


def test_before_the_first_model_there_is_none_to_restore(viewer, backend):
    models = open_widget(viewer, MODELS)
    assert not models.restore_button.isEnabled()
    assert "No other model was active" in models.restore_button.toolTip()


def test_widgets_open_in_tabs_so_that_each_has_room(viewer, image, backend, qtbot):
    viewer.window._qt_window.show()
    docks = [
        viewer.window.add_plugin_dock_widget("napari-gitract", name)[0]
        for name in (SEGMENT, MODELS)
    ]
    window = docks[0].parent()
    qtbot.waitUntil(lambda: docks[0] in window.tabifiedDockWidgets(docks[1]))
