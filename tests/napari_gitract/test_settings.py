"""Settings, and what was chosen in the widgets, are there at the next start."""

import json
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

import napari.settings
import pytest
import yaml
from npe2 import PluginManifest
from qtpy.QtWidgets import QCheckBox, QComboBox, QLineEdit, QSlider, QSpinBox, QWidget

from gitract.home import default_home
from gitract.scan import NiftiAxes
from napari_gitract.settings import (
    AS_THE_SCAN,
    CONTOUR_FORMATS,
    DEVICE,
    PLUGIN,
    Settings,
    change_settings,
    preferred_suffix,
    remember,
    remembered,
    settings,
)
from napari_gitract.widgets._parts import section
from napari_gitract.widgets._remembering import remember_control
from napari_gitract.widgets.fine_tune import FineTune
from napari_gitract.widgets.segment import Segment

IN_PREFERENCES = hasattr(napari.settings, "get_plugin_settings")


@pytest.fixture
def of_napari(request):
    """Napari that knows the plugin's settings, kept in a folder of the test."""
    if not IN_PREFERENCES:
        pytest.skip("napari below 0.9 has no settings of plugins")
    request.getfixturevalue("plugin_settings")
    request.getfixturevalue("npe2pm").register(PluginManifest.from_distribution(PLUGIN))
    return napari.settings.get_plugin_settings(PLUGIN)


@pytest.fixture
def of_home(request):
    """Napari that knows nothing of them; the file that is used then."""
    if IN_PREFERENCES:
        request.getfixturevalue("plugin_settings")  # without any plugin
    return default_home() / "settings.json"


def manifest():
    return yaml.safe_load((files("napari_gitract") / "napari.yaml").read_text("utf-8"))


def test_preferences_offer_what_there_is_with_the_same_defaults():
    properties = manifest()["contributions"]["configurations"]["general"]["properties"]
    assert {name: one["default"] for name, one in properties.items()} == asdict(Settings())
    assert properties["contours_format"]["enum"] == [AS_THE_SCAN, *CONTOUR_FORMATS]


def test_settings_are_those_of_the_preferences(of_napari, tmp_path):
    assert settings() == Settings()
    of_napari.general.contours_format = "TIFF"
    change_settings(catalogue="/models")
    assert settings() == Settings(contours_format="TIFF", catalogue="/models")
    stored = yaml.safe_load((tmp_path / f"{PLUGIN}.yaml").read_text("utf-8"))
    assert stored == {"general": {"contours_format": "TIFF", "catalogue": "/models"}}
    assert not (default_home() / "settings.json").exists()


@pytest.mark.parametrize("content", ["general: [", "general:\n  contours_format: floppy\n"])
def test_damaged_preferences_are_no_error(of_napari, tmp_path, content):
    (tmp_path / f"{PLUGIN}.yaml").write_text(content)
    napari.settings._clear_plugin_settings_cache()
    assert settings() == Settings()


def test_older_naparis_have_a_file_of_ours(of_home):
    assert settings() == Settings()
    change_settings(catalogue="/models")
    change_settings(contours_format="NIfTI")
    assert settings() == Settings(contours_format="NIfTI", catalogue="/models")
    assert json.loads(of_home.read_text("utf-8"))["catalogue"] == "/models"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[1]", b'{"catalogue": 7, "contours_format": "floppy", "x": "y"}'],
)
def test_a_damaged_file_gives_the_defaults(of_home, content):
    of_home.write_bytes(content)
    assert settings() == Settings()
    change_settings(catalogue="/models")
    assert settings().catalogue == "/models"


def test_what_no_json_object_is_is_put_aside(of_home):
    of_home.write_text("my notes")
    settings()
    assert of_home.with_name("settings.json.damaged").read_text() == "my notes"


@pytest.mark.parametrize(
    ("chosen", "suffix"), [(AS_THE_SCAN, ".nii.gz"), ("DICOM SEG", ".seg.dcm")]
)
def test_the_suffix_is_the_scans_unless_another_was_set(of_home, chosen, suffix):
    change_settings(contours_format=chosen)
    assert preferred_suffix(NiftiAxes((0, 1, 2))) == suffix


def test_values_are_remembered_one_by_one():
    remember("A.x", "ä")
    remember("B.x", True)
    remember("A.x", 3)
    assert (remembered("A.x"), remembered("B.x"), remembered("C.x")) == (3, True, None)


def test_what_cannot_be_kept_is_no_error(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GITRACT_HOME", str(tmp_path / "file"))  # no folder can be made there
    remember("A.x", 1)
    assert remembered("A.x") is None


@pytest.mark.parametrize("operation", ["write_text", "replace"])
def test_a_disk_that_is_full_midway_leaves_what_was_remembered(monkeypatch, operation):
    def fail(path, *_, **__):
        path.touch()
        raise OSError(28, "No space left on device")

    remember("A.x", 1)
    before = sorted(default_home().iterdir())
    with monkeypatch.context() as full:
        full.setattr(Path, operation, fail)
        remember("A.x", 2)
    assert remembered("A.x") == 1
    assert sorted(default_home().iterdir()) == before


def tick():
    return QCheckBox()


def menu():
    made = QComboBox()
    made.addItems(["one", "two"])
    return made


def spin_box():
    made = QSpinBox()
    made.setRange(0, 9)
    return made


def slider():
    made = QSlider()
    made.setRange(0, 9)
    return made


CONTROLS = {
    "tick": (tick, lambda one: one.click(), lambda one: one.isChecked(), True, "x"),
    "menu": (menu, lambda one: one.textActivated.emit("two"), QComboBox.currentText, "two", "six"),
    "line": (QLineEdit, lambda one: one.setText("/data"), QLineEdit.text, "/data", 4),
    "box": (spin_box, lambda one: one.setValue(4), QSpinBox.value, 4, 99),
    "slider": (slider, lambda one: one.setValue(4), QSlider.value, 4, 99),
    "section": (
        lambda: section("More", QWidget()),
        lambda one: one.toggleButton().click(),
        lambda one: one.isExpanded(),
        True,
        "x",
    ),
}


@pytest.mark.parametrize("kind", CONTROLS)
def test_a_control_is_as_it_was_left(qtbot, kind):
    make, use, read, expected, _ = CONTROLS[kind]
    for first in (True, False):
        control = make()
        qtbot.addWidget(control)
        unused = read(control)
        remember_control("Widget.control", control)
        assert read(control) == (unused if first else expected)
        if first:
            use(control)


@pytest.mark.parametrize("kind", CONTROLS)
def test_a_value_that_is_no_longer_there_is_passed_over(qtbot, kind):
    make, _, read, _, gone = CONTROLS[kind]
    remember("Widget.control", gone)
    control = make()
    qtbot.addWidget(control)
    unused = read(control)
    remember_control("Widget.control", control)
    assert read(control) == unused


def test_what_a_program_sets_is_no_choice(qtbot):
    box = QCheckBox()
    qtbot.addWidget(box)
    remember_control("Widget.box", box)
    box.setChecked(True)
    assert remembered("Widget.box") is None


def dock(viewer, kind):
    widget = kind(viewer)
    viewer.window.add_dock_widget(widget, name=f"{kind.__name__} (napari-gitract)")
    return widget


def test_the_next_viewer_opens_with_what_was_chosen(make_napari_viewer, backend, tmp_path):
    first = make_napari_viewer()
    segment, tune = dock(first, Segment), dock(first, FineTune)
    segment.tidy.click()
    segment.device.setCurrentText("cpu")
    segment.device.textActivated.emit("cpu")
    tune.replay.setText(str(tmp_path))
    tune.more_section.toggleButton().click()
    first.close()
    second = make_napari_viewer()
    segment, tune = dock(second, Segment), dock(second, FineTune)
    assert segment.tidy.isChecked() and not segment.several_views.isChecked()
    assert segment.device.device == tune.device.device == "cpu"
    assert tune.replay.text() == str(tmp_path)
    assert tune.more_section.isExpanded() and not tune.organs_section.isExpanded()


def test_a_device_that_is_gone_counts_as_auto(viewer, backend):
    remember(DEVICE, "server:gpu-room")
    assert dock(viewer, Segment).device.device == "auto"
    assert remembered(DEVICE) == "server:gpu-room"  # it may be back tomorrow


def test_a_dialog_begins_where_the_last_file_was(viewer, backend, tmp_path):
    segment = dock(viewer, Segment)
    assert segment.last_folder("save") == ""
    folder = tmp_path / "patients"
    folder.mkdir()
    segment.keep_folder("save", folder)
    assert Path(segment.last_folder("save")) == folder
    folder.rmdir()
    assert segment.last_folder("save") == ""
