"""An error that nobody foresaw: told once, with details to pass on, where it happened."""

from importlib.metadata import version
from pathlib import Path

import pytest
from qtpy.QtCore import QObject
from qtpy.QtGui import QGuiApplication

from gitract.errors import InputError
from gitract.progress import Progress
from napari_gitract.jobs import Job, in_one_line
from napari_gitract.opening import open_widget
from napari_gitract.settings import PLUGIN
from napari_gitract.widgets._errors import details_of


@pytest.fixture
def segment(viewer, backend):
    return open_widget(viewer, "Segment")


def crash(report):
    report(Progress(0, 0))
    raise ZeroDivisionError("division by zero")


def run(qtbot, segment, work, on_success=print):
    segment.run("Segmenting case1_day2", work, segment.bar, on_success)
    qtbot.waitUntil(lambda: not segment.busy)


def test_a_crash_of_a_job_is_told_once_with_details(segment, shown, qtbot):
    run(qtbot, segment, crash)
    [sentence] = shown
    assert sentence.startswith("Something went wrong in Segment: ZeroDivisionError: division")
    assert segment.errors.isVisibleTo(segment)
    assert "Segmenting case1_day2 failed" in segment.errors.text.text()
    details = segment.errors.details
    for known in (
        "raise ZeroDivisionError",
        "napari",
        "Python",
        "Device: auto",
        f"napari-gitract {version(PLUGIN)}",
    ):
        assert known in details


def test_the_details_can_be_read_copied_and_put_away(segment, shown, qtbot):
    run(qtbot, segment, crash)
    details = segment.errors.details
    segment.errors.details_button.click()
    assert segment.errors.dialog.text.toPlainText() == details
    segment.errors.copy_button.click()
    assert QGuiApplication.clipboard().text() == details
    segment.errors.hide_button.click()
    assert not segment.errors.isVisibleTo(segment)
    assert segment.errors.dialog is None


def test_the_next_job_puts_the_error_away(segment, shown, qtbot):
    run(qtbot, segment, crash)
    run(qtbot, segment, lambda report: 1)
    assert not segment.errors.isVisibleTo(segment)
    assert len(shown) == 1


def test_a_crash_while_a_result_is_shown_is_told_like_one_of_the_job(segment, shown, qtbot):
    def show(_result):
        raise KeyError("index")

    run(qtbot, segment, lambda report: 1, show)
    assert len(shown) == 1
    assert "KeyError" in segment.errors.details


def test_bad_input_is_its_sentence_and_nothing_else(segment, shown, qtbot):
    def work(report):
        raise InputError("The folder is empty.")

    run(qtbot, segment, work)
    assert shown == ["The folder is empty."]
    assert not segment.errors.isVisibleTo(segment)


def test_a_job_of_a_part_of_a_widget_is_told_by_the_widget(segment, shown, qtbot):
    job = Job("Reading edits", crash, parent=QObject(segment.recovery))
    with qtbot.waitSignal(job.ended):
        job.start()
    assert len(shown) == 1
    assert "Reading edits failed" in segment.errors.text.text()


def test_the_users_folder_is_not_named(monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "anna")
    error = OSError(f"cannot read {tmp_path / 'anna' / 'scan.nii'}")
    details = details_of(error, "Load scan")
    assert "anna" not in details
    assert "cannot read ~" in details


def test_a_home_at_the_root_leaves_paths_readable(monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/"))
    assert "/data/scan.nii" in details_of(OSError("/data/scan.nii"), "Load scan")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("no\n  good"), "ValueError: no good."),
        (ValueError("Done."), "ValueError: Done."),
        (MemoryError(), "MemoryError."),
    ],
)
def test_an_error_is_one_line(error, line):
    assert in_one_line(error) == line


def test_a_long_error_is_cut():
    line = in_one_line(ValueError("x" * 1000))
    assert len(line) < 200 and line.endswith("…")
