"""How to: the steps of the main job, the keys and the guide."""

import pytest
from napari.layers import Image, Labels
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QLabel

from napari_gitract.opening import open_widget
from napari_gitract.widgets import how_to
from napari_gitract.widgets._keys import DISPLAY_KEYS, KEYS
from napari_gitract.widgets._panel import Panel


@pytest.fixture
def widget(viewer, backend):
    return open_widget(viewer, "How to")


def test_each_step_opens_what_it_needs(widget, viewer, shown):
    for button in widget.buttons.values():
        button.click()
    assert shown == []
    panels = [one for one in viewer.window.dock_widgets.values() if isinstance(one, Panel)]
    assert {one.title for one in panels} == {"How to", *widget.buttons}


def test_the_sample_is_a_scan_with_contours(widget, viewer, qtbot):
    widget.sample_button.click()
    assert not widget.sample_button.isEnabled()
    qtbot.waitUntil(lambda: not widget.busy)
    scan, contours = viewer.layers
    assert isinstance(scan, Image) and isinstance(contours, Labels)
    assert scan.data.shape == contours.data.shape


def test_every_key_is_listed(widget):
    texts = [label.text() for label in widget.keys_section.findChildren(QLabel)]
    assert {*KEYS.values(), *DISPLAY_KEYS.values()} <= {*texts}


def test_a_guide_with_an_address_opens_in_the_browser(widget, monkeypatch):
    opened = []
    monkeypatch.setattr(QDesktopServices, "openUrl", lambda url: opened.append(url.toString()))
    monkeypatch.setattr(how_to, "guide_address", lambda: "https://guide.invalid/")
    widget.guide_button.click()
    assert opened == ["https://guide.invalid/"]
    assert widget.guide is None


def test_without_an_address_what_was_installed_is_shown(widget, monkeypatch):
    monkeypatch.setattr(how_to, "guide_address", lambda: "")
    monkeypatch.setattr(how_to, "_description", lambda: "# Guide\n\nFirst load a scan.")
    widget.guide_button.click()
    assert "First load a scan." in widget.guide.text.toPlainText()
