"""Edits in a viewer: kept while they are made, until they are saved; offered after a crash."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer

from gitract.autosave import Found, UnsavedEdits, unsaved_edits
from gitract.baseline import slice_digests
from gitract.home import default_home
from gitract.io import read_segmentation
from gitract.organs import IGNORE, ORGANS, Organ
from gitract.scan import Scan, Segmentation
from napari_gitract import autosaving
from napari_gitract.autosaving import Autosaver
from napari_gitract.layers import (
    METADATA_KEY,
    origin_of,
    scan_to_layer,
    segmentation_from_layer,
    segmentation_to_layer,
)
from napari_gitract.live import LiveLabels
from napari_gitract.prediction import Prediction
from napari_gitract.widgets import _recovery
from napari_gitract.widgets._recovery import Recovery, leftovers
from napari_gitract.workspace import Workspace, go_to_slice

SOON, NEVER = 20, 600_000  # ms
TUMOUR = Organ(18, "tumour_bed", "#123456")


@pytest.fixture
def viewer(qapp) -> ViewerModel:
    """Without a window, where none is looked at."""
    return ViewerModel()


@pytest.fixture
def window(make_napari_viewer):
    """A viewer with a window."""
    return make_napari_viewer()


@pytest.fixture
def image(viewer, scan) -> Image:
    return add_scan(viewer, scan)


@pytest.fixture
def labels(viewer, image, scan) -> Labels:
    """A prediction, as the user gets it while a widget is open."""
    Autosaver.of(viewer)
    return add_prediction(viewer, image, scan)


@pytest.fixture
def autosaver(viewer) -> Autosaver:
    return Autosaver.of(viewer)


@pytest.fixture
def unhurried(monkeypatch) -> None:
    """Nothing is looked at by itself."""
    monkeypatch.setattr(autosaving, "QUIET_MS", NEVER)
    monkeypatch.setattr(autosaving, "LONGEST_MS", NEVER)


def add_scan(viewer, scan: Scan) -> Image:
    voxels, attributes, _ = scan_to_layer(scan)
    return viewer.add_image(voxels, **attributes)


def predicted(scan: Scan) -> Segmentation:
    array = np.zeros(scan.shape, np.uint8)
    array[:, 2:8, 2:10] = 3
    return Segmentation.of_labels(
        array,
        spacing=scan.spacing,
        affine=scan.affine,
        organs=(*ORGANS, TUMOUR),
        name=scan.name,
        provenance={"model": "gi-tract-small", "baseline": slice_digests(array)},
    )


def add_prediction(viewer, image: Image, scan: Scan) -> Labels:
    name = f"{scan.name} · gi-tract-small"
    return viewer.add_layer(Layer.create(*segmentation_to_layer(predicted(scan), image, name=name)))


def draw(layer: Labels, index: int, label: int = 1) -> None:
    layer.brush_size = 3
    layer.paint((index, 14, 14), label)


def folders() -> list[Path]:
    """What is kept, without what is being written or was deleted."""
    place = default_home() / "unsaved"
    entries = place.iterdir() if place.exists() else ()
    return sorted(entry for entry in entries if not entry.name.startswith("."))


def left_behind() -> list[Found]:
    """What would be found if this process were gone."""
    for folder in folders():
        path = folder / "about.json"
        content = json.loads(path.read_text())
        content["keeper"]["started"] = 1.0
        path.write_text(json.dumps(content))
    found, left_out = unsaved_edits()
    assert left_out == []
    return found


def kept() -> np.ndarray:
    """The one label image that is on disk."""
    [found] = left_behind()
    restored = found.read()
    assert restored.damaged == ()
    return restored.labels


# --- what is kept, and when --------------------------------------------------------------


def test_nothing_is_kept_before_an_edit(viewer, labels, autosaver, qtbot):
    for index in range(len(labels.data)):
        go_to_slice(viewer, labels, index)
    labels.opacity = 0.3
    labels.name = "renamed"
    labels.refresh()
    autosaver.flush()
    assert folders() == []


def test_what_was_in_the_viewer_before_the_first_widget_counts_as_safe(viewer, image, scan):
    layer = add_prediction(viewer, image, scan)
    draw(layer, 3)
    Autosaver.of(viewer).flush()
    assert folders() == []
    draw(layer, 4)
    Autosaver.of(viewer).flush()
    np.testing.assert_array_equal(kept(), layer.data)


@pytest.mark.parametrize(
    "edit",
    [
        lambda layer: draw(layer, 3),
        lambda layer: layer.fill((4, 0, 0), 2),
        lambda layer: layer.data_setitem((np.array([5]), np.array([1]), np.array([1])), 18),
        lambda layer: setattr(layer, "data", np.flip(layer.data, 1).copy()),
        lambda layer: layer.paint_polygon([[2, 10, 10], [2, 10, 16], [2, 16, 16]], 2),
    ],
    ids=["brush", "fill", "voxels", "new array", "polygon"],
)
def test_each_kind_of_edit_is_kept(labels, autosaver, edit: Callable[[Labels], None]):
    before = labels.data.copy()
    edit(labels)
    assert not np.array_equal(labels.data, before)
    autosaver.flush()
    np.testing.assert_array_equal(kept(), labels.data)


def test_undo_and_redo_are_kept(labels, autosaver):
    for index in (3, 4, 5):
        draw(labels, index)
    autosaver.flush()
    for change in (labels.undo, labels.undo, labels.redo):
        change()
        autosaver.flush()
        np.testing.assert_array_equal(kept(), labels.data)


def test_where_all_was_undone_nothing_is_kept_until_it_is_done_again(labels, autosaver):
    draw(labels, 3)
    autosaver.flush()
    labels.undo()
    autosaver.flush()
    assert folders() == []
    labels.redo()
    autosaver.flush()
    np.testing.assert_array_equal(kept(), labels.data)


def test_after_the_first_edit_only_changed_slices_are_written(labels, autosaver):
    draw(labels, 3)
    autosaver.flush()
    [folder] = folders()
    whole = (folder / "labels.npz").stat()
    draw(labels, 4)
    draw(labels, 5)
    autosaver.flush()
    assert sorted(path.name for path in folder.glob("slice-*")) == [
        "slice-0004.npz",
        "slice-0005.npz",
    ]
    assert (folder / "labels.npz").stat() == whole


def test_what_is_known_of_the_layer_is_kept(labels, image, autosaver, scan):
    Workspace.of(viewer_of(autosaver)).accept(labels, [2])
    draw(labels, 3)
    autosaver.flush()
    [found] = left_behind()
    assert found.about.name == scan.name
    assert found.about.title == labels.name
    assert found.about.organs == (*ORGANS, TUMOUR)
    assert found.about.provenance["accepted"] == [2]
    assert found.about.provenance["baseline"] == predicted(scan).provenance["baseline"]
    np.testing.assert_array_equal(found.about.affine, scan.affine)


def viewer_of(autosaver: Autosaver):
    return autosaver._viewer()


def test_decisions_alone_are_kept(viewer, labels, autosaver):
    workspace = Workspace.of(viewer)
    workspace.accept(labels, [2])
    autosaver.flush()
    workspace.accept(labels, [4])
    autosaver.flush()
    [found] = left_behind()
    assert found.about.provenance["accepted"] == [2, 4]
    np.testing.assert_array_equal(found.read().labels, labels.data)


def test_a_new_organ_is_kept_before_anything_is_drawn_of_it(labels, autosaver):
    origin = origin_of(labels.metadata)
    organs = (*origin.organs, Organ(19, "liver_metastasis", "#abcdef"))
    labels.metadata = {**labels.metadata, METADATA_KEY: replace(origin, organs=organs)}
    autosaver.flush()
    [found] = left_behind()
    assert found.about.organs == organs


def test_a_pause_is_enough(monkeypatch, viewer, image, scan, qtbot):
    monkeypatch.setattr(autosaving, "QUIET_MS", SOON)
    monkeypatch.setattr(autosaving, "LONGEST_MS", NEVER)
    Autosaver.of(viewer)
    layer = add_prediction(viewer, image, scan)
    draw(layer, 3)
    qtbot.waitUntil(lambda: len(folders()) == 1)
    np.testing.assert_array_equal(kept(), layer.data)


def test_who_draws_without_a_pause_is_kept_too(monkeypatch, viewer, image, scan, qtbot):
    monkeypatch.setattr(autosaving, "QUIET_MS", NEVER)
    monkeypatch.setattr(autosaving, "LONGEST_MS", SOON)
    Autosaver.of(viewer)
    layer = add_prediction(viewer, image, scan)

    def drawn_and_kept() -> bool:
        draw(layer, 3, 1 + layer.data[3, 14, 14] % 3)
        return len(folders()) == 1

    qtbot.waitUntil(drawn_and_kept)


def test_a_layer_that_the_program_fills_is_kept_from_when_it_is_the_users(
    viewer, image, scan, autosaver
):
    segmentation = predicted(scan)
    live = LiveLabels(viewer, image, "segmenting")
    live.arrived(segmentation.organs, [0, 1], segmentation.masks[:, :2].swapaxes(0, 1))
    live.show()
    autosaver.flush()
    live.arrived(segmentation.organs, [2, 3], segmentation.masks[:, 2:4].swapaxes(0, 1))
    live.show()
    autosaver.flush()
    labels = segmentation.labels().array
    layer = live.complete(segmentation, labels, "complete", Prediction(labels))
    autosaver.flush()
    assert folders() == []
    draw(layer, 3)
    autosaver.flush()
    np.testing.assert_array_equal(kept(), layer.data)


@pytest.mark.usefixtures("unhurried")
def test_a_layer_that_is_removed_stays_kept_with_its_last_edit(viewer, labels, autosaver):
    draw(labels, 3)
    autosaver.flush()
    draw(labels, 4)
    drawn = labels.data.copy()
    viewer.layers.remove(labels)
    autosaver.flush()  # the writing thread may take a moment
    np.testing.assert_array_equal(kept(), drawn)


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("looking", [False, True])
def test_closing_the_viewer_keeps_the_last_edit(window, scan, qtbot, looking):
    autosaver = Autosaver.of(window)
    labels = add_prediction(window, add_scan(window, scan), scan)
    draw(labels, 4)
    drawn = labels.data.copy()
    if looking:
        autosaver.look()  # in pieces: none was done yet
    window.close()
    qtbot.waitUntil(lambda: len(folders()) == 1)
    np.testing.assert_array_equal(kept(), drawn)


def test_each_layer_has_a_folder_of_its_own(viewer, image, scan, labels, autosaver):
    second = add_prediction(viewer, image, scan)
    draw(labels, 3)
    draw(second, 4)
    autosaver.flush()
    images = [found.read().labels for found in left_behind()]
    assert len(images) == 2
    for layer in (labels, second):
        assert any(np.array_equal(one, layer.data) for one in images)


def test_a_layer_painted_over_a_scan_is_kept_as_lying_there(viewer, image, scan, autosaver):
    layer = viewer.add_labels(np.zeros(scan.shape, np.int32), scale=scan.spacing)
    draw(layer, 3, 2)
    autosaver.flush()
    np.testing.assert_array_equal(kept(), layer.data)
    [found] = left_behind()
    np.testing.assert_array_equal(found.about.affine, scan.affine)
    assert found.about.name == scan.name


def test_what_could_not_be_saved_as_contours_is_not_kept(viewer, shown, autosaver):
    cells = viewer.add_labels(np.arange(6 * 20 * 24).reshape(6, 20, 24), scale=(3, 2, 2))
    pixels = viewer.add_labels(np.zeros((6, 20, 24), np.uint8))
    flat = viewer.add_labels(np.zeros((20, 24), np.uint8))
    draw(cells, 3)
    draw(pixels, 3)
    flat.paint((4, 4), 1)
    autosaver.flush()
    assert folders() == []
    assert shown == []


# --- until it is saved -------------------------------------------------------------------


def test_saving_forgets_and_later_edits_begin_anew(labels, autosaver, tmp_path):
    draw(labels, 3)
    autosaver.flush()
    [before] = folders()
    [path] = labels.save(str(tmp_path / "out.tif"), plugin="napari-gitract")
    autosaver.flush()
    assert folders() == []
    draw(labels, 4)
    autosaver.flush()
    np.testing.assert_array_equal(kept(), labels.data)
    assert before not in folders()


def test_saving_several_layers_as_one_file_forgets_them_all(
    viewer, image, scan, labels, autosaver, tmp_path
):
    second = add_prediction(viewer, image, scan)
    draw(labels, 3)
    draw(second, 4)
    viewer.layers.selection = {labels, second}
    viewer.layers.save(str(tmp_path / "out.csv"), selected=True, plugin="napari-gitract")
    autosaver.flush()
    assert folders() == []


def test_a_save_that_fails_forgets_nothing(labels, autosaver, tmp_path):
    draw(labels, 3)
    autosaver.flush()
    with pytest.raises(Exception, match="does not exist"):
        labels.save(str(tmp_path / "nowhere" / "out.tif"), plugin="napari-gitract")
    autosaver.flush()
    np.testing.assert_array_equal(kept(), labels.data)


def test_edits_made_while_a_long_save_ran_are_kept_anew(labels, autosaver):
    draw(labels, 3)
    autosaver.flush()
    written = autosaver.snapshot(labels)
    draw(labels, 4)
    autosaver.saved(labels, written)
    autosaver.flush()
    np.testing.assert_array_equal(kept(), labels.data)
    autosaver.saved(labels, autosaver.snapshot(labels))
    autosaver.flush()
    assert folders() == []


# --- when it cannot be kept --------------------------------------------------------------


def settled(autosaver: Autosaver, qtbot) -> None:
    autosaver.flush()
    qtbot.waitUntil(lambda: not autosaver._writes)


def test_a_full_disk_is_told_once_and_drawing_goes_on(labels, autosaver, shown, qtbot):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    draw(labels, 1)
    settled(autosaver, qtbot)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(os, "fsync", full)
        for index in (2, 3, 4):
            draw(labels, index)
            settled(autosaver, qtbot)
    assert len(shown) == 1
    assert "No space left on device" in shown[0]
    draw(labels, 5)
    settled(autosaver, qtbot)
    np.testing.assert_array_equal(kept(), labels.data)
    assert len(shown) == 1


def test_a_home_that_cannot_be_written_is_told_once(
    labels, autosaver, shown, qtbot, tmp_path, monkeypatch
):
    file = tmp_path / "file"
    file.touch()
    home = default_home()
    monkeypatch.setenv("GITRACT_HOME", str(file))
    for index in (2, 3):
        draw(labels, index)
        settled(autosaver, qtbot)
    assert len(shown) == 1
    monkeypatch.setenv("GITRACT_HOME", str(home))
    draw(labels, 4)
    settled(autosaver, qtbot)
    np.testing.assert_array_equal(kept(), labels.data)


def test_edits_that_another_process_took_over_are_kept_anew(labels, autosaver, shown, qtbot):
    draw(labels, 3)
    settled(autosaver, qtbot)
    [found] = left_behind()
    found.take_over().forget()
    draw(labels, 4)
    settled(autosaver, qtbot)
    settled(autosaver, qtbot)
    np.testing.assert_array_equal(kept(), labels.data)
    assert shown == []


# --- given back --------------------------------------------------------------------------


@pytest.fixture
def crashed(viewer, labels, autosaver) -> np.ndarray:
    """Edits on slices 1 and 4 that a process left; the label image as it was drawn."""
    draw(labels, 1, IGNORE.id)
    Workspace.of(viewer).accept(labels, [2])
    autosaver.flush()
    draw(labels, 4, TUMOUR.id)
    autosaver.flush()
    drawn = labels.data.copy()
    left_behind()
    viewer.layers.clear()
    return drawn


def open_widget(viewer, name: str = "Models"):
    return viewer.window.add_plugin_dock_widget("napari-gitract", name)[1]


def restore(recovery: Recovery, qtbot) -> Labels:
    viewer = recovery._viewer
    before = len(viewer.layers)
    recovery.restore_button.click()
    qtbot.waitUntil(lambda: recovery.isEnabled())
    assert len(viewer.layers) == before + 1
    return viewer.layers[-1]


def test_a_restored_layer_is_what_was_drawn(crashed, window, scan, qtbot):
    image = add_scan(window, scan)
    image.translate = (30, -40, 50)
    recovery = open_widget(window).recovery
    assert not recovery.isHidden()
    layer = restore(recovery, qtbot)
    np.testing.assert_array_equal(layer.data, crashed)
    assert layer.name == "case1_day2 · gi-tract-small (restored)"
    assert "Tumour bed" in list(layer.features["name"])
    assert origin_of(layer.metadata).organs == (*ORGANS, TUMOUR)
    np.testing.assert_allclose(layer.data_to_world((1, 2, 3)), image.data_to_world((1, 2, 3)))
    reviewed = [(one.index, one.edited) for one in Workspace.of(window).reviewed(layer)]
    assert reviewed == [(1, True), (2, False), (4, True)]
    assert layer.editable
    assert recovery.isHidden()


def test_without_the_scan_it_lies_where_the_scan_would(crashed, window, scan, qtbot):
    layer = restore(open_widget(window).recovery, qtbot)
    np.testing.assert_array_equal(layer.data, crashed)
    np.testing.assert_allclose(layer.scale, scan.spacing)
    np.testing.assert_array_equal(origin_of(layer.metadata).affine, scan.affine)


def test_another_day_of_the_same_size_is_not_its_scan(crashed, window, scan, qtbot):
    image = add_scan(window, Scan(scan.voxels, scan.spacing, scan.affine, "case1_day0"))
    image.translate = (30, 0, 0)
    layer = restore(open_widget(window).recovery, qtbot)
    np.testing.assert_allclose(layer.translate, 0)


def test_a_restored_layer_is_kept_in_its_folder_and_offered_once(crashed, window, qtbot):
    layer = restore(open_widget(window).recovery, qtbot)
    assert unsaved_edits() == ([], [])
    assert len(folders()) == 1
    draw(layer, 5)
    Autosaver.of(window).flush()
    np.testing.assert_array_equal(kept(), layer.data)


def test_a_restored_layer_is_forgotten_when_saved(crashed, window, qtbot, tmp_path):
    layer = restore(open_widget(window).recovery, qtbot)
    [path] = layer.save(str(tmp_path / "out.tif"), plugin="napari-gitract")
    Autosaver.of(window).flush()
    assert folders() == []
    np.testing.assert_array_equal(read_segmentation(path).labels().array, crashed)


def test_restored_twice_it_is_called_restored_once(crashed, make_napari_viewer, qtbot):
    for _ in range(2):
        window = make_napari_viewer()
        layer = restore(open_widget(window).recovery, qtbot)
        draw(layer, 5)
        Autosaver.of(window).flush()
        left_behind()
    assert layer.name == "case1_day2 · gi-tract-small (restored)"


def test_a_slice_that_is_damaged_is_named_and_written_again(crashed, window, qtbot, monkeypatch):
    [folder] = folders()
    (folder / "slice-0004.npz").write_bytes(b"")
    told: list[str] = []
    monkeypatch.setattr(_recovery, "show_warning", told.append)
    layer = restore(open_widget(window).recovery, qtbot)
    assert len(told) == 1
    assert "case1_day2" in told[0]
    assert told[0].endswith(": 4.")
    Autosaver.of(window).flush()
    np.testing.assert_array_equal(kept(), layer.data)


def test_a_value_without_an_organ_gets_a_name_so_that_it_can_be_saved(
    viewer, autosaver, window, scan, qtbot
):
    drawn_on = viewer.add_labels(np.zeros(scan.shape, np.uint8), scale=scan.spacing)
    draw(drawn_on, 3, 77)
    autosaver.flush()
    left_behind()
    layer = restore(open_widget(window).recovery, qtbot)
    segmentation = segmentation_from_layer(layer)
    assert Organ(77, "label_77", "#808080") in segmentation.organs
    np.testing.assert_array_equal(segmentation.labels().array, drawn_on.data)


# --- the offer ---------------------------------------------------------------------------


def leave(scan: Scan, *names: str) -> None:
    """Edits of scans with these names, the last one saved last."""
    for name in names:
        segmentation = predicted(scan)
        layer = Layer.create(*segmentation_to_layer(segmentation))
        origin = origin_of(layer.metadata)
        about = autosaving.About(
            name=name,
            title=name,
            shape=origin.shape,
            spacing=origin.spacing,
            affine=tuple(map(tuple, origin.affine.tolist())),
            organs=origin.organs,
            provenance={},
        )
        UnsavedEdits.begin(about, layer.data)
    left_behind()


def names_offered() -> list[str]:
    return [found.about.name for found in leftovers.offered]


def test_nothing_is_offered_where_nothing_was_left(window):
    assert open_widget(window).recovery.isHidden()


@pytest.mark.parametrize("name", ["Load scan", "Segment", "Fine-tune", "Models"])
def test_each_widget_offers_at_its_top(window, backend, scan, name):
    leave(scan, "case20_day0")
    widget = open_widget(window, name)
    assert not widget.recovery.isHidden()
    assert "case20_day0" in widget.recovery.text.text()
    above, column = (widget.layout().indexOf(one) for one in (widget.recovery, widget.area))
    assert above < column
    assert widget.recovery.minimumSizeHint().width() <= 300


def test_several_are_offered_one_by_one_and_later_leaves_them(window, scan):
    leave(scan, "case1_day0", "case2_day0")
    recovery = open_widget(window).recovery
    assert "case2_day0" in recovery.text.text()
    assert "1 of 2" in recovery.text.text()
    recovery.later_button.click()
    assert "case1_day0" in recovery.text.text()
    assert "of 2" not in recovery.text.text()
    recovery.later_button.click()
    assert recovery.isHidden()
    assert open_widget(window, "Load scan").recovery.isHidden()
    assert len(unsaved_edits().found) == 2


def test_deleting_can_be_undone(window, scan):
    leave(scan, "case1_day0", "case2_day0")
    recovery = open_widget(window).recovery
    recovery.delete_button.click()
    assert "case2_day0 were deleted" in recovery.text.text()
    assert recovery.restore_button.isHidden()
    recovery.undo_button.click()
    assert names_offered() == ["case2_day0", "case1_day0"]
    assert "1 of 2" in recovery.text.text()
    recovery.delete_button.click()
    recovery.later_button.click()  # OK
    assert names_offered() == ["case1_day0"]
    recovery.delete_button.click()
    recovery.later_button.click()
    assert recovery.isHidden()
    assert unsaved_edits() == ([], [])


def test_all_widgets_of_all_viewers_show_the_same(make_napari_viewer, scan, qtbot):
    leave(scan, "case1_day0", "case2_day0")
    first, second = (open_widget(make_napari_viewer()).recovery for _ in range(2))
    restore(first, qtbot)
    for recovery in (first, second):
        assert "case1_day0" in recovery.text.text()
    restore(second, qtbot)
    assert first.isHidden()
    assert second.isHidden()


def test_what_another_process_restored_first_is_told(window, scan, shown, qtbot):
    leave(scan, "case1_day0")
    recovery = open_widget(window).recovery
    leftovers.offered[0].take_over()
    recovery.restore_button.click()
    qtbot.waitUntil(lambda: recovery.isEnabled())
    assert len(window.layers) == 0
    [sentence] = shown
    assert "another window" in sentence
    assert recovery.isHidden()


def test_edits_that_cannot_be_read_are_told_and_left(window, scan):
    leave(scan, "case1_day0")
    [folder] = folders()
    (folder / "about.json").write_text("{")
    recovery = open_widget(window).recovery
    assert "damaged" in recovery.text.text()
    assert recovery.restore_button.isHidden()
    assert recovery.delete_button.isHidden()
    recovery.later_button.click()
    assert recovery.isHidden()
    assert folders() == [folder]


# --- a real crash ------------------------------------------------------------------------

# A window without a screen, in which somebody draws on and on: each slice has one number.
DRAWING = """
import sys
import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication
from napari.components import ViewerModel
from napari_gitract import autosaving

application = QApplication([])
autosaving.QUIET_MS = autosaving.LONGEST_MS = 30
viewer = ViewerModel()
autosaving.Autosaver.of(viewer)
layer = viewer.add_labels(np.zeros((6, 200, 200), np.uint8), scale=(3, 2, 2))
everywhere = np.indices((200, 200)).reshape(2, -1)
number = 0

def draw():
    global number
    number += 1
    indices = (np.full(40000, number % 6), *everywhere)
    layer.data_setitem(indices, 1 + number % 200)
    if number == 60:
        print("drawing", flush=True)

timer = QTimer()
timer.timeout.connect(draw)
timer.start(5)
application.exec()
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_after_a_kill_all_but_the_last_moments_is_there(tmp_path):
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    process = subprocess.Popen(
        [sys.executable, "-c", DRAWING], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "drawing\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    [found], left_out = unsaved_edits()
    assert left_out == []
    labels, damaged = found.read()
    assert damaged == ()
    assert labels.any()
    for plane in labels:
        assert len(np.unique(plane)) == 1
