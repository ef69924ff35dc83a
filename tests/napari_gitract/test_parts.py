"""Notes and menus in a narrow dock: nothing widens it, and nothing is lost by that."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QClipboard, QMouseEvent
from qtpy.QtWidgets import QApplication, QStyleOptionComboBox

from napari_gitract.widgets._menu import Menu
from napari_gitract.widgets._parts import note

DOCK = 300  # pixels
PATH = "/home/someone/a_folder_whose_name_is_long/another.one/contours_of_day_3.rtstruct.dcm"
LONG = {
    "path": f"Written to {PATH}",
    "windows": r"Written to C:\Users\Someone\Documents\Treatment-planning\contours.rtstruct.dcm",
    "hash": f"Weights {'0123456789abcdef' * 4}",
    "uid": "1.2.826.0.1.3680043.8.498.45787841905188114249328049275372",
    "rich": f"<table><tr><td><b>File</b>&nbsp;</td><td>{PATH}</td></tr></table>",
}


@pytest.fixture
def clipboard():
    clipboard = QApplication.clipboard()
    clipboard.clear()
    yield clipboard
    clipboard.clear()


def shown_note(qtbot, text):
    label = note(text)
    qtbot.addWidget(label)
    label.resize(DOCK, 200)
    label.show()
    return label


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_a_note_fits_a_narrow_dock_whatever_its_words(qtbot, text):
    label = shown_note(qtbot, text)
    assert label.minimumSizeHint().width() < DOCK
    # More than one line is needed, and there is room for it.
    assert label.heightForWidth(DOCK) > 1.5 * label.fontMetrics().height()
    assert label.text() == text


@given(st.text(st.characters(exclude_characters="\u200b\0", exclude_categories=["Cs"])))
def test_a_note_says_what_it_was_told(qapp, text):
    assert note(text).text() == text


@given(st.text("ab <>&/_=\"'", min_size=40))
def test_markup_stays_as_it_is(qapp, text):
    """Names of classes, colours and addresses within tags may be long, too."""
    label = note()
    label.setText(f'<span style="color:#123456;font-weight:bold">{text}</span>')
    assert label.text().startswith('<span style="color:#123456;font-weight:bold">')
    assert "color:#123456;font-weight:bold" in super(type(label), label).text()


@pytest.mark.parametrize("way", ["key", "menu"])
def test_a_path_is_copied_as_it_is(qtbot, clipboard, way):
    label = shown_note(qtbot, PATH)
    label.select_all()
    assert label.selectedText() == PATH
    if way == "key":
        qtbot.keyClick(label, Qt.Key.Key_C, Qt.KeyboardModifier.ControlModifier)
    else:
        label.menu().actions()[0].trigger()
    assert clipboard.text() == PATH


def drag(qtbot, label, start, end):
    left = Qt.MouseButton.LeftButton
    qtbot.mousePress(label, left, pos=start)
    move = QMouseEvent(
        QEvent.Type.MouseMove, QPointF(end), left, left, Qt.KeyboardModifier.NoModifier
    )
    QApplication.sendEvent(label, move)
    qtbot.mouseRelease(label, left, pos=end)


def test_what_the_mouse_selects_is_pasted_as_it_is(qtbot, clipboard):
    if not clipboard.supportsSelection():
        pytest.skip("the middle button pastes on X11 and Wayland alone")
    label = shown_note(qtbot, PATH)
    drag(qtbot, label, QPoint(1, 1), QPoint(DOCK - 1, 199))
    assert label.selectedText() == PATH
    assert clipboard.text(QClipboard.Mode.Selection) == PATH
    qtbot.mousePress(label, Qt.MouseButton.LeftButton, pos=QPoint(60, 100))
    assert not label.hasSelectedText()  # else Qt would carry its own text elsewhere


def test_lines_are_copied_as_lines(qtbot, clipboard):
    label = shown_note(qtbot, f"Written to\n{PATH}")
    label.select_all()
    label.copy()
    assert clipboard.text() == f"Written to\n{PATH}"


def test_nothing_selected_leaves_the_clipboard(qtbot, clipboard):
    clipboard.setText("mine")
    label = shown_note(qtbot, PATH)
    qtbot.keyClick(label, Qt.Key.Key_C, Qt.KeyboardModifier.ControlModifier)
    assert clipboard.text() == "mine"
    assert not label.menu().actions()[0].isEnabled()


def painted(menu):
    """What a menu shows of its current item."""
    option = QStyleOptionComboBox()
    menu.initStyleOption(option)
    return option.currentText


def test_a_menu_ends_in_dots_where_it_is_too_narrow(qtbot):
    menu = Menu()
    qtbot.addWidget(menu)
    name = "case0_day0 · reference of a clinician who writes long names"
    menu.addItems([name, "none"])
    menu.resize(150, 24)
    assert painted(menu).endswith("…")
    assert name.startswith(painted(menu).removesuffix("…").rstrip())
    assert menu.fontMetrics().horizontalAdvance(painted(menu)) < 150
    menu.resize(900, 24)
    assert painted(menu) == name
    menu.resize(150, 24)
    menu.setCurrentIndex(1)
    assert painted(menu) == "none"
    assert menu.itemText(0) == name
