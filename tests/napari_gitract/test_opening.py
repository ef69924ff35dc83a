"""The workspace: what the main job needs, in tabs, each once."""

from importlib.resources import files

import pytest
import yaml

from napari_gitract.layers import scan_to_layer
from napari_gitract.opening import WORKSPACE, open_widget, open_workspace
from napari_gitract.settings import remember
from napari_gitract.widgets._docking import dock_of, short_title
from napari_gitract.widgets._panel import Panel


@pytest.fixture
def seen():
    """Not the very first time, so that How to does not come along."""
    remember("HowTo.shown", True)


def opened(viewer):
    panels = [one for one in viewer.window.dock_widgets.values() if isinstance(one, Panel)]
    return [one.title for one in panels]


def in_front(viewer):
    """The one dock of ours that is seen; the others are behind their tabs."""
    docks = [dock_of(one) for one in viewer.window.dock_widgets.values() if isinstance(one, Panel)]
    seen = [dock for dock in docks if not dock.visibleRegion().isEmpty()]
    return [short_title(dock) for dock in seen]


def contributions():
    text = (files("napari_gitract") / "napari.yaml").read_text("utf-8")
    return yaml.safe_load(text)["contributions"]


def test_the_workspace_is_one_set_of_tabs(viewer, backend, seen, qtbot):
    viewer.window._qt_window.show()
    open_workspace(viewer)
    assert opened(viewer) == [*WORKSPACE]
    qtbot.waitUntil(lambda: in_front(viewer) == ["Load scan"])
    docks = [dock_of(one) for one in viewer.window.dock_widgets.values() if isinstance(one, Panel)]
    assert len(docks[0].parent().tabifiedDockWidgets(docks[0])) == len(WORKSPACE) - 1


def test_asked_again_it_opens_nothing_twice_and_goes_on_from_what_is_open(
    viewer, backend, seen, qtbot, scan
):
    viewer.window._qt_window.show()
    open_workspace(viewer)
    voxels, attributes, _ = scan_to_layer(scan)
    viewer.add_image(voxels, **attributes)
    open_workspace(viewer)
    assert opened(viewer) == [*WORKSPACE]
    qtbot.waitUntil(lambda: in_front(viewer) == ["Segment"])
    viewer.add_labels(voxels * 0, scale=scan.spacing)
    open_workspace(viewer)
    qtbot.waitUntil(lambda: in_front(viewer) == ["Review"])


def test_a_widget_that_was_opened_otherwise_is_found(viewer, backend, seen):
    _, segment = viewer.window.add_plugin_dock_widget("napari-gitract", "Segment")
    assert open_widget(viewer, "Segment") is segment
    open_workspace(viewer)
    assert sorted(opened(viewer)) == sorted(WORKSPACE)


def test_a_widget_that_was_closed_opens_anew_and_a_hidden_one_comes_back(viewer, backend):
    first = open_widget(viewer, "Segment")
    dock_of(first).hide()
    assert open_widget(viewer, "Segment") is first
    assert not dock_of(first).isHidden()
    viewer.window.remove_dock_widget(dock_of(first))
    assert open_widget(viewer, "Segment") is not first
    assert opened(viewer) == ["Segment"]


@pytest.mark.parametrize("name", [one["display_name"] for one in contributions()["widgets"]])
def test_each_widget_opens_twice_as_one(viewer, backend, name):
    assert open_widget(viewer, name) is open_widget(viewer, name)
    assert opened(viewer) == [name]


def test_the_very_first_time_the_way_through_is_shown(make_napari_viewer, backend):
    first, second = make_napari_viewer(), make_napari_viewer()
    open_workspace(first)
    open_workspace(second)
    assert opened(first) == [*WORKSPACE, "How to"]
    assert opened(second) == [*WORKSPACE]


def test_every_widget_is_in_a_menu_that_napari_has():
    from napari._app_model.constants import MenuId

    menus = contributions()["menus"]
    assert {*menus} <= {str(menu) for menu in MenuId.contributables()}
    listed = {item["command"] for items in menus.values() for item in items}
    assert {one["command"] for one in contributions()["widgets"]} < listed
    assert "napari-gitract.workspace" in listed


def test_the_palette_offers_what_can_be_done_from_it():
    parts = contributions()
    want_a_path = {one["command"] for one in [*parts["readers"], *parts["writers"]]}
    disabled = {one["id"] for one in parts["commands"] if one.get("enablement") == "False"}
    assert disabled == want_a_path
