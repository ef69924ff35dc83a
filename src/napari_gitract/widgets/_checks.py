"""Contours looked through for what to look at again: a list whose rows lead to the place.

Looking takes up to a second, so it is a job. Its list is of the contours as they were: once
they differ it is grey and says so, and it is as new again when an undo brings them back. The
rows still lead to their places, for whoever mends one finding after the other.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QTimer
from qtpy.QtGui import QBrush, QColor
from qtpy.QtWidgets import (
    QHeaderView,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from gitract.baseline import slice_digests
from gitract.errors import InputError
from gitract.organs import Organ
from gitract.progress import Progress, Report
from napari_gitract.jobs import Job, errors_shown
from napari_gitract.layers import Origin, origin_for, segmentation_of_labels
from napari_gitract.widgets._choices import follow
from napari_gitract.widgets._parts import ROW_HEIGHT, color_icon, note, say, table
from napari_gitract.workspace import Workspace, camera_of, current_slice, unproxied

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from gitract.contour_checks import Finding

__all__ = ["ContourChecks"]

MOST_ROWS = 8
QUIET_MS = 200
SLICE, SENTENCE = range(2)
NO_LAYER = "No Labels layer: segment a scan first."
NOT_YET = "Not checked yet."
CHANGED = "Contours changed since: check again."
GREY = QColor("gray")  # legible in light and dark


class _Checked(NamedTuple):
    """What was found, and of which contours: their digests and their table of organs."""

    digests: list[str]
    organs: tuple[Organ, ...]
    findings: "tuple[Finding, ...]"


class ContourChecks(QWidget):
    """What to look at again in the contours of one Labels layer.

    Parameters
    ----------
    viewer
        The viewer that shows the layer.
    """

    def __init__(self, viewer: "Viewer") -> None:
        super().__init__()
        self._viewer = unproxied(viewer)
        self._workspace = Workspace.of(self._viewer)
        self._layer: Labels | None = None
        self._checked: _Checked | None = None
        self._job: Job | None = None
        self._touched = False  # since the job began
        self.out_of_date = False
        self.check_button = QPushButton("Check contours")
        self.check_button.setToolTip(
            "Look for holes, islands, gaps of one slice, jumps of the area, overlaps, organs that "
            "are missing, unusually large or small, or cut by the field of view."
        )
        self.check_button.clicked.connect(lambda *_: self.check())
        self.summary = note()
        self.rows = _rows()
        self.rows.cellClicked.connect(lambda row, _column: self.go_to(row))
        self.rows.cellActivated.connect(lambda row, _column: self.go_to(row))
        self.sentence = note()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for part in (self.check_button, self.summary, self.rows, self.sentence):
            layout.addWidget(part)
        self._quiet = QTimer(self)
        self._quiet.setSingleShot(True)
        self._quiet.setInterval(QUIET_MS)
        self._quiet.timeout.connect(self._compare)
        follow(self, self._workspace.labels_touched, self._on_touched)
        self._show()

    @property
    def busy(self) -> bool:
        """Whether contours are being looked through."""
        return self._job is not None and self._job.running

    @property
    def findings(self) -> tuple["Finding", ...]:
        """What was found, in the order of the rows."""
        return () if self._checked is None else self._checked.findings

    def show_layer(self, layer: Labels | None) -> None:
        """Be about this layer from now on; what was found in another is dropped."""
        if layer is self._layer:
            return
        if self.busy and self._job is not None:
            self._job.cancel()
        self._layer = layer
        self._checked = None
        self._show()

    # --- looking --------------------------------------------------------------------------

    def check(self) -> None:
        """Look through the contours as they are now, off the GUI thread."""
        layer = self._layer
        if layer is None or self.busy:
            return
        self._checked = None
        with errors_shown():
            origin = origin_for(layer, self._viewer.layers)
            labels = np.array(layer.data)  # a copy: painting goes on meanwhile
            work = partial(_looked, labels, origin)
            self._start(Job(f"Checking {layer.name}", work, parent=self, quiet=True), layer)
        self._show()

    def _start(self, job: Job, layer: Labels) -> None:
        if self._job is not None:
            self._job.deleteLater()
        self._job = job
        self._touched = False
        job.progressed.connect(self._show_progress)
        job.succeeded.connect(lambda checked: self._take(checked, layer))
        job.ended.connect(self._settle)
        job.start()

    def _settle(self) -> None:
        """Be ready for the next time where nothing came of this one."""
        if self._checked is None:
            self._show()

    def _take(self, checked: _Checked, layer: Labels) -> None:
        if layer is not self._layer:
            return
        self._checked = checked
        self._show()
        if self._touched:
            self._compare()

    def _on_touched(self, layer: Labels) -> None:
        """Compare the slice that is shown, and all once the brush has come to rest."""
        if layer is not self._layer:
            return
        self._touched = True
        if self._checked is not None:
            self._compare((current_slice(self._viewer, layer),))
            self._quiet.start()

    def _compare(self, changed: Iterable[int] | None = None) -> None:
        """Say whether the contours still are those that were checked."""
        if self._checked is None or self._layer is None:
            return
        out_of_date = not self._is_of_now(self._checked, self._layer, changed)
        if out_of_date != self.out_of_date:
            self._mark(out_of_date=out_of_date)

    def _is_of_now(self, checked: _Checked, layer: Labels, changed: Iterable[int] | None) -> bool:
        try:
            origin = origin_for(layer, self._viewer.layers)
        except InputError:  # its data is no stack of slices any more
            return False
        same_organs = origin.organs == checked.organs
        return same_organs and self._workspace.digests(layer, changed=changed) == checked.digests

    # --- what is shown --------------------------------------------------------------------

    def _show(self) -> None:
        self.check_button.setEnabled(self._layer is not None and not self.busy)
        say(self.sentence, "")
        findings = self.findings
        self.rows.setVisible(bool(findings))
        self.rows.setRowCount(len(findings))
        for row, finding in enumerate(findings):
            for column, item in enumerate(_items(finding)):
                self.rows.setItem(row, column, item)
        _fit(self.rows)
        self._mark(out_of_date=False)

    def _summary(self) -> str:
        if self._layer is None:
            return NO_LAYER
        if self._checked is None:
            return "Checking…" if self.busy else NOT_YET
        return CHANGED if self.out_of_date else _counted(self.findings)

    def _show_progress(self, messages: list[Progress]) -> None:
        if self._checked is None:
            say(self.summary, f"{messages[-1].message}…")

    def _mark(self, *, out_of_date: bool) -> None:
        """Grey the list where it is of contours that are others now."""
        self.out_of_date = out_of_date
        say(self.summary, self._summary())
        brush = QBrush(GREY) if out_of_date else QBrush()
        for row in range(self.rows.rowCount()):
            for column in (SLICE, SENTENCE):
                item = self.rows.item(row, column)
                if item is not None:
                    item.setForeground(brush)

    # --- going there ----------------------------------------------------------------------

    def go_to(self, row: int) -> None:
        """Show the place of a finding, and take its organ for painting."""
        layer = self._layer
        if layer is None or layer not in self._viewer.layers:
            return
        finding = self.findings[row]
        say(self.sentence, finding.sentence)
        self._viewer.layers.selection.active = layer
        layer.selected_label = finding.organs[0].id
        if finding.position is not None:
            _show_place(self._viewer, layer, finding.position)


def _looked(labels: np.ndarray, origin: Origin, report: Report) -> _Checked:
    from gitract.contour_checks import check_contours

    digests = slice_digests(labels)
    segmentation = segmentation_of_labels(labels, origin)
    return _Checked(digests, origin.organs, check_contours(segmentation, report=report))


def _show_place(viewer: "Viewer", layer: Labels, position: Sequence[int]) -> None:
    """Show a voxel of a layer in the middle of the canvas, whichever axes that shows."""
    world = layer.data_to_world(position)
    first = viewer.dims.ndim - layer.ndim
    viewer.dims.set_point(range(first, viewer.dims.ndim), world)
    place = dict(enumerate(world, start=first))
    camera_of(viewer).center = tuple(place.get(axis, 0.0) for axis in viewer.dims.displayed)


def _counted(findings: Sequence["Finding"]) -> str:
    """How much was found: ``2 to look at, 1 note.``"""
    if not findings:
        return "Nothing to look at again was found."
    notes = sum(finding.severity == "note" for finding in findings)
    look = len(findings) - notes
    said = [f"{look} to look at"] if look else []
    if notes:
        said.append(f"{notes} note{'s' if notes > 1 else ''}")
    return f"{', '.join(said)}. Click one to go there."


def _rows() -> QTableWidget:
    rows = table(["Slice", "Finding"])
    header = rows.horizontalHeader()
    assert header is not None
    header.setSectionResizeMode(SLICE, QHeaderView.ResizeMode.ResizeToContents)
    header.setSectionResizeMode(SENTENCE, QHeaderView.ResizeMode.Stretch)
    return rows


def _fit(rows: QTableWidget) -> None:
    """As high as its rows, up to a number; the others are scrolled to."""
    header = rows.horizontalHeader()
    assert header is not None
    shown = min(rows.rowCount(), MOST_ROWS)
    rows.setFixedHeight(header.sizeHint().height() + shown * ROW_HEIGHT + 6)


def _items(finding: "Finding") -> tuple[QTableWidgetItem, QTableWidgetItem]:
    """The cells of a row; what is but a note stands in italics."""
    index = "–" if finding.position is None else str(finding.position[0])
    icon = color_icon(*(organ.color for organ in finding.organs))
    cells = QTableWidgetItem(icon, index), QTableWidgetItem(finding.sentence)
    note_only = finding.severity == "note"
    for cell in cells:
        cell.setToolTip(f"Note: {finding.sentence}" if note_only else finding.sentence)
        font = cell.font()
        font.setItalic(note_only)
        cell.setFont(font)
    return cells
