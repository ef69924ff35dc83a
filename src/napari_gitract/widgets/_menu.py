"""The menu of all widgets: a narrow dock may squeeze it."""

from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QStyle, QStyleOptionComboBox

__all__ = ["Menu"]


class Menu(QComboBox):
    """A menu that ends in "…" where it is too narrow, and whose wheel changes nothing by accident.

    Parameters
    ----------
    least
        Characters that there is room for in the narrowest dock.
    """

    def __init__(self, least: int = 8) -> None:
        super().__init__()
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(least)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    def wheelEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        if self.hasFocus():
            super().wheelEvent(event)
        else:
            event.ignore()

    def initStyleOption(  # noqa: N802 - Qt's name
        self, option: QStyleOptionComboBox | None
    ) -> None:
        """Let the text that is painted fit: Qt cuts it in the middle of a letter."""
        super().initStyleOption(option)
        style = self.style()
        assert option is not None and style is not None
        field = style.subControlRect(
            QStyle.ComplexControl.CC_ComboBox,
            option,
            QStyle.SubControl.SC_ComboBoxEditField,
            self,
        )
        option.currentText = self.fontMetrics().elidedText(
            option.currentText, Qt.TextElideMode.ElideRight, field.width()
        )
