"""Models: import, export, delete, the card, two models compared, and a catalogue of others."""

import hashlib
import json
import shutil
import sys
import threading
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QApplication, QInputDialog

from driving import click, wait
from gitract.change import GAINED, LOST
from gitract.errors import InputError
from gitract.model_store import ModelStore
from gitract.organs import ORGANS
from gitract.progress import Progress
from gitract.scan import Segmentation
from napari_gitract.layers import scan_to_layer, segmentation_to_layer
from napari_gitract.settings import settings
from napari_gitract.widgets import _compare
from napari_gitract.widgets._model_card import NO_CARD
from napari_gitract.widgets.models import Models
from napari_gitract.workspace import model_events
from phantoms import abdomen_phantom

CARD = "# Clinic\n\nKnows **our** scanner.\n\n| organ | Dice |\n|---|---|\n| stomach | 0.9 |\n"


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch):
    """Keep the settings in the test's own home, where napari keeps the user's."""
    monkeypatch.setattr("napari_gitract.settings._of_napari", lambda: None)


@pytest.fixture
def store():
    return ModelStore()


@pytest.fixture
def add(store):
    """Adds a version; it is a copy of the model that ships, or without weights."""

    def one(name, *, whole=False, card=CARD, **changes):
        shipped = store.models()[0].path
        config = json.loads((shipped / "config.json").read_text())
        known = {"id": name, "title": f"{name} of ours", "created": "2026-01-02", "parent": None}

        def write(folder):
            folder.mkdir()
            content = {**config, **known, **changes}
            (folder / "config.json").write_text(json.dumps(content))
            weights = shipped / "model.safetensors"
            if whole:
                shutil.copyfile(weights, folder / "model.safetensors")
            else:
                (folder / "model.safetensors").write_bytes(b"w" * 2_500_000)
            if card:
                (folder / "README.md").write_text(card)

        return store.add(name, write)

    return one


@pytest.fixture
def widget(viewer):
    found = Models(viewer)
    viewer.window.add_dock_widget(found, name="Models (napari-gitract)")
    return found


def names(widget):
    table = widget.versions
    return [table.item(row, 0).text() for row in range(table.rowCount())]


def cells(table):
    return [
        [table.item(row, column).text() for column in range(table.columnCount())
         if not table.isColumnHidden(column)]
        for row in range(table.rowCount())
    ]  # fmt: skip


def choose(widget, name):
    widget.versions.selectRow([info.id for info in ModelStore().models()].index(name))


# --- the versions ---------------------------------------------------------------------------


def test_versions_are_listed_with_what_they_take(viewer, add):
    add("clinic", dice={"stomach": 0.5, "small_bowel": 0.7})
    widget = Models(viewer)
    shipped = ModelStore().active()
    first, second = cells(widget.versions)
    assert first == [f"● {shipped.id}", shipped.created[:10], first[2], f"{shipped.size / 1e6:.1f}"]
    assert second == ["clinic", "2026-01-02", "0.600", "2.5"]


def test_a_description_names_the_parent_even_when_that_was_deleted(widget, add, store):
    add("clinic", created="2026-01-01")
    add("child", parent="clinic", created="2026-02-01")
    widget.refresh()
    choose(widget, "child")
    assert widget.details.text() == "child: fine-tuned from clinic."
    store.delete("clinic")
    widget.refresh()
    choose(widget, "child")
    assert widget.details.text() == "child: fine-tuned from clinic, which is not installed."


def test_only_what_may_be_deleted_can_be(widget, add, store):
    add("clinic")
    widget.refresh()
    assert not widget.delete_button.isEnabled()  # it ships
    assert "comes with the program" in widget.delete_button.toolTip()
    choose(widget, "clinic")
    assert widget.delete_button.isEnabled()
    widget.activate()
    choose(widget, "clinic")
    assert not widget.delete_button.isEnabled()
    assert "activate another" in widget.delete_button.toolTip()


def test_what_was_active_before_can_be_restored_where_anything_was(widget, add, store, qtbot):
    add("clinic")
    widget.refresh()
    shipped = store.active().id
    assert not widget.restore_button.isEnabled()
    assert widget.restore_button.toolTip() == f"No other model was active before {shipped}."
    choose(widget, "clinic")
    click(qtbot, widget.activate_button)
    assert widget.restore_button.isEnabled()
    assert shipped in widget.restore_button.toolTip()
    click(qtbot, widget.restore_button)
    assert store.active().id == shipped
    assert f"{shipped} is the active model again" in widget.hint.text()
    assert not widget.restore_button.isEnabled()


def test_a_model_is_deleted_once_the_user_said_yes(widget, add, store, qtbot):
    add("clinic", created="2026-01-01")
    add("child", parent="clinic", created="2026-02-01")
    widget.refresh()
    asked = []
    widget.confirm = lambda question: asked.append(question) or len(asked) == 2
    choose(widget, "clinic")
    click(qtbot, widget.delete_button)
    assert len(store.models()) == 3
    for part in ("clinic", "2.5 MB", "child"):
        assert part in asked[0]
    click(qtbot, widget.delete_button)
    assert [info.id for info in store.models()[1:]] == ["child"]
    assert names(widget)[1:] == ["child"]
    assert "clinic is deleted" in widget.hint.text()


def test_an_exported_model_is_imported_again(widget, add, store, shown, qtbot, tmp_path):
    add("clinic")
    widget.refresh()
    choose(widget, "clinic")
    widget.export(str(tmp_path / "clinic"))
    wait(qtbot, widget)
    assert "clinic.zip" in widget.hint.text()
    store.delete("clinic")
    widget.import_model(str(tmp_path / "clinic.zip"))
    wait(qtbot, widget)
    assert widget.selected.id == "clinic"
    assert "activate it" in widget.hint.text()
    assert store.active().shipped
    widget.export(str(tmp_path / "clinic.zip"))
    wait(qtbot, widget)
    assert len(shown) == 1
    assert "exists already" in shown[0]
    assert widget.hint.text() == ""


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_a_model_whose_name_is_taken_gets_another(widget, add, store, shown, qtbot, tmp_path, kind):
    source = add("clinic").path
    if kind == "archive":
        source = store.export("clinic", tmp_path / "clinic.zip")
    asked = []
    answers = iter(["My clinic", "clinic", "my-clinic"])

    def ask_name(why, proposal):
        asked.append((why, proposal))
        return next(answers)

    widget.ask_name = ask_name
    widget.import_model(str(source))
    wait(qtbot, widget)
    assert [proposal for _, proposal in asked] == ["clinic-v2", "my-clinic", "clinic-v2"]
    for (why, _), part in zip(asked, ("already", "'My clinic'", "already"), strict=True):
        assert part in why
    assert {info.id for info in store.models()[1:]} == {"clinic", "my-clinic"}
    assert store.find("my-clinic").card == CARD
    assert widget.selected.id == "my-clinic"
    assert "my-clinic is installed" in widget.hint.text()
    assert shown == []


@pytest.mark.parametrize("agree", [True, False])
def test_the_name_that_is_proposed_can_be_taken_or_the_import_cancelled(
    widget, add, store, shown, qtbot, agree
):
    source = add("clinic").path
    widget.refresh()
    seen = []

    def answer():
        dialog = QApplication.activeModalWidget()
        if not isinstance(dialog, QInputDialog):
            QTimer.singleShot(20, answer)
            return
        seen.append((dialog.labelText(), dialog.textValue()))
        dialog.done(agree)

    QTimer.singleShot(0, answer)
    widget.import_model(str(source))
    wait(qtbot, widget)
    assert seen == [("There is a model 'clinic' already: choose another name.", "clinic-v2")]
    expected = ["clinic", "clinic-v2"] if agree else ["clinic"]
    assert [info.id for info in store.models()[1:]] == names(widget)[1:] == expected
    assert shown == []


def test_what_is_no_model_is_told_once(widget, store, shown, qtbot, tmp_path):
    (tmp_path / "model.zip").write_bytes(b"no archive")
    widget.import_model(str(tmp_path / "model.zip"))
    wait(qtbot, widget)
    assert len(shown) == 1
    assert "damaged" in shown[0]
    assert len(store.models()) == 1


def test_an_import_that_is_cancelled_as_it_ends_is_undone(
    widget, add, store, qtbot, tmp_path, monkeypatch
):
    add("clinic")
    store.export("clinic", tmp_path / "clinic.zip")
    store.delete("clinic")
    whole = ModelStore.import_model

    def import_model(self, path, report, *, name):
        info = whole(self, path, name=name)
        widget.job.cancel()
        return info

    monkeypatch.setattr(ModelStore, "import_model", import_model)
    widget.import_model(str(tmp_path / "clinic.zip"))
    wait(qtbot, widget)
    assert len(store.models()) == 1
    assert len(names(widget)) == 1


# --- the card -------------------------------------------------------------------------------


def test_the_card_of_the_selected_model_is_shown_as_text(widget, add, store):
    add("clinic", dice={"stomach": 0.5})
    add("bare", card="", created="2026-03-01")
    widget.refresh()
    choose(widget, "clinic")
    assert widget.card.text.toPlainText() == ""  # folded: nobody has asked
    widget.card_section.expand(animate=False)
    text = widget.card.text.toPlainText()
    assert "Knows our scanner." in text
    assert "|" not in text  # a table, not its source
    assert cells(widget.card.numbers)[2] == ["Stomach", "0.500"]
    assert widget.card.summary.text() == "clinic of ours"
    choose(widget, "bare")
    assert widget.card.text.toPlainText() == NO_CARD


def test_the_card_can_be_read_in_a_window(widget, add, qtbot):
    add("clinic")
    widget.refresh()
    choose(widget, "clinic")
    widget.card_section.expand(animate=False)
    window = widget.card.open_window()
    assert window.windowTitle() == "clinic"
    assert window.isVisible()
    window.close()


# --- two compared ---------------------------------------------------------------------------


@pytest.fixture
def image(viewer, scan):
    voxels, attributes, _ = scan_to_layer(scan)
    return viewer.add_image(voxels, **attributes)


@pytest.fixture
def reference(viewer, scan, image):
    labels = np.zeros(scan.shape, np.uint8)
    labels[:, 2:8, 2:10] = 3
    truth = Segmentation.of_labels(labels, spacing=scan.spacing, affine=scan.affine, name=scan.name)
    data, attributes, _ = segmentation_to_layer(truth, image, name="reference")
    return viewer.add_labels(data, **attributes)


@pytest.fixture
def compared(monkeypatch):
    """Stands in for the comparison: instant, and without torch. Tells what it was asked."""
    asked = SimpleNamespace(calls=[], during=lambda: None)

    def compare(scan, first, second, reference, *, report):
        asked.calls.append((scan.name, first, second, reference))
        report(Progress(0, 2, "Segmenting"))
        asked.during()
        report(Progress(1, 2, "Segmenting"))
        near = None if reference is None else SimpleNamespace(dice=0.9, hd95_mm=2.0)
        rows = [
            SimpleNamespace(
                organ=organ,
                volumes_ml=(10.0, None),
                between=SimpleNamespace(dice=0.75, hd95_mm=None),
                reference_ml=None if reference is None else 12.0,
                against_reference=(near, None),
            )
            for organ in ORGANS
        ]
        change = np.zeros(scan.shape, np.uint8)
        change[0, 0, 0], change[1, 1, 1] = GAINED, LOST
        models = [
            SimpleNamespace(info=SimpleNamespace(id=name), seconds=1.5) for name in (first, second)
        ]
        return SimpleNamespace(models=models, rows=rows, change=change)

    module = ModuleType("gitract.model_comparison")
    module.compare = compare
    monkeypatch.setitem(sys.modules, "gitract.model_comparison", module)
    monkeypatch.setattr(sys.modules["gitract"], "model_comparison", module, raising=False)
    return asked


def test_what_is_missing_for_a_comparison_is_told(viewer, widget, add, scan):
    compare = widget.compare
    assert compare.hint.text() == _compare.NO_IMAGE
    voxels, attributes, _ = scan_to_layer(scan)
    viewer.add_image(voxels, **attributes)
    assert compare.hint.text() == _compare.ONE_MODEL
    assert not compare.compare_button.isEnabled()
    add("clinic")
    model_events.changed.emit()
    assert compare.hint.text() == ""
    assert compare.first.info.id == "clinic"
    assert compare.compare_button.isEnabled()
    compare.first.setCurrentIndex(0)
    assert compare.hint.text() == _compare.SAME
    assert not compare.compare_button.isEnabled()


def test_a_comparison_is_a_table_and_a_layer(viewer, add, image, compared, qtbot):
    shipped, clinic = ModelStore().active().id, add("clinic").id
    widget = Models(viewer)
    click(qtbot, widget.compare.compare_button)
    wait(qtbot, widget)
    assert compared.calls == [("case1_day2", clinic, shipped, None)]
    assert cells(widget.compare.volumes) == [[organ.title, "10.0", "–"] for organ in ORGANS]
    assert cells(widget.compare.dice) == [[organ.title, "0.750"] for organ in ORGANS]
    assert cells(widget.compare.hd95) == [[organ.title, "–"] for organ in ORGANS]
    layer = viewer.layers[-1]
    assert clinic in layer.name
    assert not layer.editable
    assert set(np.unique(layer.data)) == {0, GAINED, LOST}
    assert list(layer.features["name"])[1:] == [f"only {shipped}", f"only {clinic}"]
    np.testing.assert_allclose(layer.scale, image.scale)
    assert widget.compare.image.layer is image  # what differs is no scan
    assert layer not in widget.compare.reference.layers


def test_both_are_measured_against_a_reference(viewer, add, reference, compared, qtbot):
    add("clinic")
    widget = Models(viewer)
    compare = widget.compare
    compare.with_reference.setChecked(True)
    compare.compare()
    wait(qtbot, widget)
    ((_, _, _, truth),) = compared.calls
    np.testing.assert_array_equal(truth.labels().array, reference.data)
    assert cells(compare.volumes)[0] == ["Large bowel", "10.0", "–", "12.0"]
    assert cells(compare.dice)[0] == ["Large bowel", "0.750", "0.900", "–"]
    assert cells(compare.hd95)[0] == ["Large bowel", "–", "2.0", "–"]


def test_numbers_of_a_reference_that_was_changed_say_so(viewer, add, reference, compared, qtbot):
    add("clinic")
    widget = Models(viewer)
    compare = widget.compare
    compare.with_reference.setChecked(True)
    compare.compare()
    wait(qtbot, widget)
    viewer.dims.set_point(0, 3.0)  # which is no change
    qtbot.wait(2 * _compare.QUIET_MS)
    assert compare.hint.text() == ""
    reference.data_setitem((np.array([2]), np.array([3]), np.array([3])), np.array([1]))
    qtbot.waitUntil(lambda: compare.hint.text() == _compare.CHANGED)
    reference.undo()
    qtbot.waitUntil(lambda: compare.hint.text() == "")


def test_a_reference_that_was_changed_meanwhile_is_told_at_once(
    viewer, add, reference, compared, qtbot
):
    add("clinic")
    widget = Models(viewer)
    widget.compare.with_reference.setChecked(True)
    gate = threading.Event()
    compared.during = lambda: gate.wait(20)
    widget.compare.compare()
    reference.data_setitem((np.array([2]), np.array([3]), np.array([3])), np.array([1]))
    gate.set()
    wait(qtbot, widget)
    assert widget.compare.hint.text() == _compare.CHANGED
    assert compared.calls[0][3].labels().array[2, 3, 3] == 3  # as it was when one asked


def test_numbers_go_with_their_scan(viewer, add, image, compared, qtbot):
    add("clinic")
    widget = Models(viewer)
    widget.compare.compare()
    wait(qtbot, widget)
    viewer.layers.remove(image)
    assert cells(widget.compare.dice) == []
    assert widget.compare.about.text() == ""
    assert widget.compare.hint.text() == _compare.NO_IMAGE


def test_a_scan_that_was_closed_meanwhile_gets_no_layer(viewer, add, image, compared, qtbot):
    add("clinic")
    widget = Models(viewer)
    gate = threading.Event()
    compared.during = lambda: gate.wait(20)
    widget.compare.compare()
    viewer.layers.clear()
    gate.set()
    wait(qtbot, widget)
    assert len(viewer.layers) == 0
    assert cells(widget.compare.dice) == []


def test_a_cancelled_comparison_adds_nothing(viewer, add, image, compared, qtbot):
    add("clinic")
    widget = Models(viewer)
    gate = threading.Event()
    compared.during = lambda: gate.wait(20)
    widget.compare.compare()
    click(qtbot, widget.compare.bar.cancel_button)
    gate.set()
    wait(qtbot, widget)
    assert list(viewer.layers) == [image]
    assert cells(widget.compare.dice) == []


def test_a_comparison_that_fails_is_told_once(viewer, add, image, compared, shown, qtbot):
    add("clinic")
    widget = Models(viewer)

    def fail():
        raise InputError("It went wrong.")

    compared.during = fail
    widget.compare.compare()
    wait(qtbot, widget)
    assert shown == ["It went wrong."]
    assert list(viewer.layers) == [image]


@pytest.mark.slow
def test_two_real_models_are_compared(viewer, add, qtbot):
    scan, _ = abdomen_phantom(slices=6, rows=64, columns=64)
    voxels, attributes, _ = scan_to_layer(scan)
    viewer.add_image(voxels, **attributes)
    add("copy", whole=True)
    widget = Models(viewer)
    widget.compare.compare()
    qtbot.waitUntil(lambda: not widget.busy, timeout=300_000)
    assert {row[1] for row in cells(widget.compare.dice)} <= {"1.000", "–"}
    assert not viewer.layers[-1].data.any()
    for row in cells(widget.compare.volumes):
        assert row[1] == row[2]


# --- a catalogue ----------------------------------------------------------------------------


@pytest.fixture
def shelf(add, store, tmp_path):
    """A folder with a catalogue of one model, which is not installed."""
    folder = tmp_path / "shelf"
    add("clinic")
    archive = store.export("clinic", folder / "clinic.zip")
    store.delete("clinic")
    offer = {
        "id": "clinic", "title": "Our clinic", "file": "clinic.zip",
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
        "bytes": archive.stat().st_size, "summary": "T2 at 1.5 T.", "licence": "CC0-1.0",
    }  # fmt: skip
    (folder / "catalogue.json").write_text(json.dumps({"models": [offer]}))
    return folder


def listed(widget, source, qtbot):
    widget.get.source.setText(str(source))
    click(qtbot, widget.get.list_button)
    wait(qtbot, widget)


def test_without_a_catalogue_one_line_says_what_to_do(widget):
    assert "catalogue" in widget.get.hint.text()
    assert not widget.get.offers.isVisibleTo(widget.get)
    assert not widget.get.download_button.isVisibleTo(widget.get)


def test_a_model_of_a_catalogue_is_installed(viewer, widget, shelf, store, qtbot):
    listed(widget, shelf, qtbot)
    size = f"{(shelf / 'clinic.zip').stat().st_size / 1e6:.1f} MB"
    assert cells(widget.get.offers) == [["clinic", size, "CC0-1.0"]]
    assert "T2 at 1.5 T." in widget.get.details.text()
    assert settings().catalogue == str(shelf)
    click(qtbot, widget.get.download_button)
    wait(qtbot, widget)
    assert names(widget)[1:] == ["clinic"]
    assert store.active().shipped
    assert "clinic is installed" in widget.get.hint.text()
    assert "It is installed." in widget.get.details.text()
    assert not widget.get.download_button.isEnabled()
    assert Models(viewer).get.source.text() == str(shelf)  # at the next start


def test_the_catalogue_of_the_environment_is_offered(viewer, shelf, monkeypatch):
    monkeypatch.setenv("GITRACT_MODELS", str(shelf))
    assert Models(viewer).get.source.text() == str(shelf)


def test_another_address_takes_the_list_away(widget, shelf, qtbot):
    listed(widget, shelf, qtbot)
    qtbot.keyClick(widget.get.source, Qt.Key.Key_X)
    assert cells(widget.get.offers) == []
    assert widget.get.selected is None


def test_a_catalogue_that_cannot_be_read_is_told_once(widget, tmp_path, shown, qtbot):
    listed(widget, tmp_path, qtbot)
    assert len(shown) == 1
    assert "catalogue.json" in shown[0]
    assert settings().catalogue == ""


def test_a_file_that_was_changed_is_not_installed(widget, shelf, store, shown, qtbot):
    (shelf / "clinic.zip").write_bytes(b"something else")
    listed(widget, shelf, qtbot)
    click(qtbot, widget.get.download_button)
    wait(qtbot, widget)
    assert len(shown) == 1
    assert "SHA-256" in shown[0]
    assert len(store.models()) == 1


def test_a_cancelled_download_goes_on_the_next_time(widget, shelf, store, qtbot, monkeypatch):
    arrived = []

    def download_model(place, *, sha256, model, report):
        arrived.append(place)
        widget.job.cancel()
        report(Progress(1, 2, "Downloading clinic.zip"))
        raise AssertionError("the report ends the job")

    monkeypatch.setattr("gitract.model_download.download_model", download_model)
    monkeypatch.setattr("gitract.model_download.downloaded_bytes", lambda *_: 1_200_000)
    listed(widget, shelf, qtbot)
    click(qtbot, widget.get.download_button)
    wait(qtbot, widget)
    assert arrived == [str(shelf / "clinic.zip")]
    assert "goes on" in widget.get.hint.text()
    assert "1.2 MB have arrived" in widget.get.details.text()
    assert widget.get.download_button.isEnabled()
    assert len(store.models()) == 1
