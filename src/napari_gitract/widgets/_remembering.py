"""Controls that are at the next start as the user left them.

Only what the user does is kept, where Qt tells it from what a program sets: a tick that a
format takes away is back with the next one.
"""

from collections.abc import Callable
from typing import Any

from qtpy.QtWidgets import QAbstractButton, QComboBox, QLineEdit, QWidget
from superqt import QCollapsible

from napari_gitract.settings import remember, remembered

__all__ = ["remember_control"]


def remember_control(key: str, control: QWidget) -> None:
    """Give a control the value it had at the last start, and keep what is chosen from now on.

    Parameters
    ----------
    key
        What the value is kept under: ``Segment.tidy``.
    control
        A menu that is filled, a box to tick, a line, a folded section, or a spin box or slider
        whose range is set. A value that it cannot have any more is passed over.
    """
    kind, restore, changed = _ways(control)
    value = remembered(key)
    if isinstance(value, kind):
        restore(value)
    changed.connect(lambda new: remember(key, new))


def _ways(control: Any) -> tuple[type | tuple[type, ...], Callable[[Any], None], Any]:
    """What a control's value is, how to set it, and the signal that brings a new one."""
    if isinstance(control, QComboBox):
        return str, _chooser(control), control.textActivated
    if isinstance(control, QAbstractButton):
        return bool, control.setChecked, control.clicked
    if isinstance(control, QLineEdit):
        return str, control.setText, control.textChanged
    if isinstance(control, QCollapsible):
        return bool, _folder(control), control.toggled
    return (int, float), _setter(control), control.valueChanged


def _chooser(menu: QComboBox) -> Callable[[str], None]:
    def choose(text: str) -> None:
        index = menu.findText(text)
        if index >= 0:
            menu.setCurrentIndex(index)

    return choose


def _folder(section: QCollapsible) -> Callable[[bool], None]:
    def fold(expanded: bool) -> None:
        if expanded:
            section.expand(animate=False)
        else:
            section.collapse(animate=False)

    return fold


def _setter(control: Any) -> Callable[[float], None]:
    """For spin boxes and sliders: sets a number that is within the range now."""

    def set_number(value: float) -> None:
        if control.minimum() <= value <= control.maximum():
            control.setValue(type(control.value())(value))

    return set_number
