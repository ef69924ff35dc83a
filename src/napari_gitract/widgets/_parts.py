"""Small pieces of Qt that the widgets share: text, forms, buttons, tables."""

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QIcon, QPainter, QPixmap
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QFormLayout,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QSizePolicy,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)
from superqt import QCollapsible

from napari_gitract.widgets._note import Note

__all__ = [
    "button_row",
    "color_icon",
    "fill_table",
    "fit_height",
    "form",
    "note",
    "say",
    "section",
    "table",
]

ROW_HEIGHT = 22
SWATCH = 14  # pixels


def note(text: str = "", *, small: bool = False) -> Note:
    """A line of text that wraps, so that a narrow dock can show it."""
    label = Note(text)
    if small:
        label.setStyleSheet("font-size: 10px; color: gray;")
    return label


def say(label: QLabel, text: str) -> None:
    """Show a line of text, or no line where there is none."""
    label.setText(text)
    label.setVisible(bool(text))


def form() -> QFormLayout:
    """A form whose fields take the width that the dock has."""
    layout = QFormLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    return layout


def button_row(*buttons: QAbstractButton) -> QHBoxLayout:
    """Buttons side by side, sharing the width."""
    row = QHBoxLayout()
    row.setContentsMargins(0, 0, 0, 0)
    for button in buttons:
        button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        row.addWidget(button)
    return row


def section(title: str, content: QWidget) -> QCollapsible:
    """Something that is seldom needed, folded away."""
    folded = QCollapsible(title, expandedIcon="▼", collapsedIcon="▶")
    folded.setDuration(0)
    folded.addWidget(content)
    layout = folded.layout()
    assert layout is not None
    layout.setContentsMargins(0, 0, 0, 0)
    return folded


def color_icon(*colors: str) -> QIcon:
    """A plain swatch; of several colours, side by side."""
    pixmap = QPixmap(SWATCH, SWATCH)
    pixmap.fill(QColor(colors[-1]))
    width = SWATCH // len(colors)
    painter = QPainter(pixmap)
    for place, color in enumerate(colors):
        painter.fillRect(place * width, 0, width, SWATCH, QColor(color))
    painter.end()
    icon = QIcon(pixmap)
    icon.addPixmap(pixmap, QIcon.Mode.Selected)  # which Qt would tint in a selected row
    return icon


def table(headers: list[str]) -> QTableWidget:
    """A read-only table whose first column takes the room that the others leave."""
    widget = QTableWidget(0, len(headers))
    widget.setHorizontalHeaderLabels(headers)
    _header(widget.verticalHeader()).setVisible(False)
    widget.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    widget.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    widget.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
    widget.setShowGrid(False)
    widget.setWordWrap(False)
    _header(widget.verticalHeader()).setDefaultSectionSize(ROW_HEIGHT)
    header = _header(widget.horizontalHeader())
    header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
    header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
    return widget


def fill_table(
    widget: QTableWidget, rows: list[list[str]], icons: list[QIcon] | None = None
) -> None:
    """Show `rows` in a `table`; numbers stand to the right."""
    widget.setRowCount(len(rows))
    for i, row in enumerate(rows):
        for j, text in enumerate(row):
            item = QTableWidgetItem(text)
            if j:
                item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            elif icons is not None:
                item.setIcon(icons[i])
            widget.setItem(i, j, item)


def fit_height(widget: QTableWidget) -> None:
    """Make a short table exactly as high as its rows."""
    rows = sum(widget.rowHeight(i) for i in range(widget.rowCount()))
    widget.setFixedHeight(_header(widget.horizontalHeader()).sizeHint().height() + rows + 6)


def _header(header: QHeaderView | None) -> QHeaderView:
    """A table's header, which Qt's own types call optional and which is always there."""
    assert header is not None
    return header
