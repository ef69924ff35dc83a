"""What an earlier job left on the screen is tied to its layer, or goes."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from driving import wait
from gitract.phantom import abdomen, write_day
from napari_gitract.layers import scan_to_layer
from napari_gitract.opening import open_widget
from napari_gitract.workspace import model_events
from phantoms import abdomen_phantom, write_competition_day


def add(viewer, scan, name):
    voxels, attributes, _ = scan_to_layer(scan)
    return viewer.add_image(voxels, **{**attributes, "name": name})


@pytest.fixture
def segment(viewer, scan, backend, qtbot):
    """The widget after it has segmented one slice of the first of two scans."""
    add(viewer, scan, "monday")
    widget = open_widget(viewer, "Segment")
    widget.slices.setCurrentText("Current slice")
    widget.segment()
    wait(qtbot, widget)
    return widget


@pytest.fixture
def tune(viewer, segment, backend, qtbot):
    """Fine-tune with a candidate that was trained on it."""
    widget = open_widget(viewer, "Fine-tune")
    labels = segment.result
    labels.data_setitem((np.array([2]), np.array([15]), np.array([15])), np.array([1]))
    widget.review.refresh()
    widget.start()
    wait(qtbot, widget)
    assert widget.candidate is not None
    return widget


def test_volumes_say_what_they_are_of(segment, viewer, scan):
    assert segment.volumes_of.text() == "Volumes of monday · gi-tract-small"
    segment.result.name = "mine"
    add(viewer, scan, "tuesday")
    assert segment.volumes_of.text() == "Volumes of mine"


def test_what_was_said_of_a_scan_goes_with_another_one(segment, viewer, scan):
    assert "Only slice" in segment.hint.text()
    add(viewer, scan, "tuesday")
    assert segment.hint.text() == ""


def test_what_was_said_goes_when_a_job_begins(segment, backend, qtbot):
    backend.gate = threading.Event()
    segment.segment()
    try:
        assert segment.hint.text() == ""
    finally:
        backend.gate.set()
    wait(qtbot, segment)


def test_saved_is_not_said_of_what_was_painted_since(segment, qtbot, tmp_path):
    segment.save(str(tmp_path / "out.tif"))
    wait(qtbot, segment)
    assert segment.hint.text() == "Saved to out.tif."
    segment.result.data_setitem((np.array([2]), np.array([15]), np.array([15])), np.array([1]))
    assert segment.hint.text() == ""


def test_a_card_says_what_it_is_of_and_shows_its_own_scan(tune, viewer, scan, monkeypatch):
    assert tune.about.text() == "From gi-tract-small by monday · gi-tract-small"
    monday = viewer.layers["monday"]
    tune.candidate.before = tune.candidate.after = [np.zeros(scan.shape, np.uint8)]
    monkeypatch.setattr("gitract.change.change_between", lambda before, after: before)
    other = add(viewer, scan, "tuesday")
    tune.image.layer = other
    tune.show_change()
    assert viewer.layers[-1].name == f"{monday.name} · what changes"
    assert tune.about.text().endswith("monday · gi-tract-small")


def test_a_failed_training_leaves_no_curves(tune, backend, shown, qtbot):
    backend.error = ZeroDivisionError("a bug")
    tune.start()
    wait(qtbot, tune)
    assert not tune.curves.isVisibleTo(tune)
    assert not tune.card.isVisibleTo(tune)
    assert tune.about.text() == ""


def test_going_back_is_offered_while_the_kept_model_is_the_active_one(tune, backend):
    tune.keep()
    assert tune.restore_button.isVisibleTo(tune)
    backend.activate("gi-tract-small")  # in Models, say
    model_events.changed.emit()
    assert not tune.restore_button.isVisibleTo(tune)
    assert tune.hint.text() == ""


def test_what_was_loaded_is_described_while_it_is_there(viewer, backend, qtbot, tmp_path):
    load = open_widget(viewer, "Load scan")
    load.path.setText(str(write_day(tmp_path, *abdomen(shape=(6, 32, 32)))))
    empty = load.status.text()
    load.load()
    wait(qtbot, load)
    assert viewer.layers[0].name in load.status.text()
    viewer.layers.clear()
    assert load.status.text() == empty


def test_a_question_about_another_path_goes(viewer, backend, qtbot, tmp_path):
    load = open_widget(viewer, "Load scan")
    empty = load.status.text()
    for day in (0, 22):
        scan, truth = abdomen_phantom(slices=4, rows=40, columns=48, seed=day)
        write_competition_day(tmp_path, replace(scan, name=f"case1_day{day}"), truth)
    load.path.setText(str(tmp_path / "train" / "case1"))
    load.load()
    wait(qtbot, load)
    assert "choose" in load.status.text()
    load.path.setText("elsewhere")
    assert load.status.text() == empty
