"""Export: contours become a file, or go to a DICOM node; what will be written is told before."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QCheckBox, QComboBox, QFileDialog, QMessageBox, QPushButton

from gitract import INTENDED_USE
from gitract.baseline import slice_digests
from gitract.dicom_node import DicomNode, echo, send
from gitract.errors import InputError
from gitract.export_preview import (
    FORMATS,
    Preview,
    check_round_trip,
    preview,
    with_organs,
)
from gitract.io import (
    ONTO_SERIES_SUFFIXES,
    SEGMENTATION_SUFFIXES,
    check_output,
    suffix_of,
    write_segmentation,
)
from gitract.progress import Progress, Report
from gitract.scan import Segmentation
from napari_gitract.autosaving import Autosaver, Snapshot
from napari_gitract.jobs import Job
from napari_gitract.layers import Origin, joined, origin_for, origin_of, segmentation_of_labels
from napari_gitract.settings import preferred_suffix
from napari_gitract.widgets._choices import LayerChoice, follow
from napari_gitract.widgets._dicom_node import NodeForm
from napari_gitract.widgets._layer_ticks import LayerTicks
from napari_gitract.widgets._organs_to_write import OrgansToWrite
from napari_gitract.widgets._panel import JobBar, Panel
from napari_gitract.widgets._parts import button_row, form, note, say, section

if TYPE_CHECKING:
    from napari.viewer import Viewer

__all__ = ["Export"]

QUIET_MS = 600
NO_LABELS = "Segment a scan first, or open its contours with Load scan: they are exported here."
DEIDENTIFY = (
    "Leave out who the patient is: name, ID, birth date, sex, physicians, study ID, accession "
    "number, all dates. UIDs stay, for the contours refer to the scan by them."
)
HOLDS_NOBODY = "This format has no place for who the patient is; there is nothing to leave out."


class Export(Panel):
    """Write contours as a file, or send them to a DICOM node.

    Parameters
    ----------
    napari_viewer
        The viewer whose Labels layers are exported.
    """

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__(napari_viewer)
        self.preview: Preview | None = None
        self._layer: Labels | None = None  # that the rest is about
        self._format_chosen = False
        self._looking: Job | None = None
        self._looked_at: _Key | None = None
        self._make_parts()
        self._arrange()
        self._quiet = QTimer(self)
        self._quiet.setSingleShot(True)
        self._quiet.setInterval(QUIET_MS)
        self._quiet.timeout.connect(self.look)
        # Not whether to de-identify: nobody should send a name because they once had to.
        for name, control in (
            ("node", self.node_section),
            ("host", self.node.host),
            ("port", self.node.port),
            ("ae_title", self.node.ae_title),
            ("calling_ae_title", self.node.calling),
        ):
            self.remember(name, control)
        self._suggest_format()  # now: to read the settings would be a stop with the first layer
        self.labels.chosen.connect(self._on_layers)
        follow(self, self.workspace.labels_touched, self._on_touched)
        self._on_layers()

    def _make_parts(self) -> None:
        self.labels = LayerChoice(self.viewer, Labels)
        self.format = QComboBox()
        for place, (suffix, title) in enumerate(FORMATS.items()):
            self.format.addItem(title, suffix)
            self.format.setItemData(place, suffix, Qt.ItemDataRole.ToolTipRole)
        self.format.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.format.setToolTip("DICOM needs a scan that was read from a DICOM series.")
        self.format.activated.connect(self._on_format_chosen)
        self.others = LayerTicks()
        self.others.ticked.connect(self._on_choice)
        self.others_section = section("Further layers", self.others)
        self.organs = OrgansToWrite()
        self.organs.ticked.connect(self._on_choice)
        self.deidentify = QCheckBox("De-identify")
        self.deidentify.setChecked(True)
        self.deidentify.clicked.connect(self._on_choice)
        self.about = note()
        self.hint = note()
        self.export_button = QPushButton("Export…")
        self.export_button.setToolTip("Write the file, and read it again to check it.")
        self.export_button.clicked.connect(self._browse)
        self.bar = JobBar(cancel="End now. A file that is written by then stays.")
        self.outcome = note()
        self.node = NodeForm(self.test_node, self.send)
        self.node_section = section("Send to a DICOM node", self.node)

    def _arrange(self) -> None:
        fields = form()
        fields.addRow("Labels", self.labels)
        fields.addRow("Format", self.format)
        self.column.addLayout(fields)
        self.column.addWidget(self.hint)
        self.column.addWidget(self.others_section)
        self.column.addWidget(self.organs)
        self.column.addWidget(self.deidentify)
        self.column.addWidget(self.about)
        self.column.addLayout(button_row(self.export_button))
        self.column.addWidget(self.bar)
        self.column.addWidget(self.outcome)
        self.column.addWidget(self.node_section)
        self.column.addStretch(1)
        self.column.addWidget(note(INTENDED_USE, small=True))

    # --- what is chosen -----------------------------------------------------------------

    @property
    def suffix(self) -> str:
        """Of the format that is chosen."""
        return str(self.format.currentData())

    def choose_format(self, suffix: str) -> None:
        """Choose the format of this suffix, as the user does."""
        self._format_chosen = True
        self.format.setCurrentIndex(self.format.findData(suffix))
        self._on_choice()

    @property
    def _chosen(self) -> list[Labels]:
        """The layers that go into the file, the first one first."""
        layer = self.labels.layer
        return [] if layer is None else [layer, *self.others.chosen]

    def _on_layers(self) -> None:
        """Another layer was chosen, or there are others now."""
        layer = self.labels.layer
        candidates = [one for one in self.labels.layers if one is not layer]
        self.others.show_layers([one for one in candidates if _of_one_scan(one, layer)])
        if layer is not self._layer:
            self._layer = layer
            self.organs.forget()
        self._suggest_format()  # a layer that fills up knows its scan only when it is complete
        self._on_choice()

    def _suggest_format(self) -> None:
        """The format that contours of such a scan are most often wanted in, until one is chosen."""
        if self._format_chosen:
            return
        origin = None if self._layer is None else origin_of(self._layer.metadata)
        index = self.format.findData(preferred_suffix(None if origin is None else origin.stored))
        self.format.setCurrentIndex(max(0, index))

    def _on_format_chosen(self, _index: int) -> None:
        self._format_chosen = True
        self._on_choice()

    def _on_choice(self, *_: Any) -> None:
        """What was told is of another choice from now on."""
        self.preview = None
        self.about.setEnabled(False)
        say(self.outcome, "")
        self.node.say_answer("")
        if self._layer is None:
            say(self.about, "")
            self.organs.forget()
        self.update_state()
        self.look()

    def _on_touched(self, layer: Labels) -> None:
        if any(layer is one for one in self._chosen):
            self._quiet.start()

    # --- what will be written -----------------------------------------------------------

    def look(self) -> None:
        """Find out what would be written now, off the GUI thread."""
        self._quiet.stop()
        if self._looking is not None:
            self._looking.cancel()
        layer = self._layer
        if layer is None:
            self._looking = None
            return
        try:
            parts = self._parts()
        except InputError as error:
            self._refuse(str(error))
            return
        known = self._looked_at if self.preview is not None else None
        left_out = frozenset(self.organs.left_out)
        asked = _Asked(self._file_name(), left_out, self.deidentify.isChecked())
        work = partial(_look, parts, asked, known)
        job = Job(f"Looking at {layer.name}", work, parent=self, quiet=True)
        self._looking = job
        job.succeeded.connect(partial(self._take, job))
        job.ended.connect(job.deleteLater)
        job.start()

    def _parts(self) -> "list[_Part]":
        """The layers to write as they are now, not copied.

        Raises
        ------
        InputError
            One of them is no stack, or does not know where it lies.
        """
        others = self.viewer.layers
        return [_Part(np.asarray(one.data), origin_for(one, others)) for one in self._chosen]

    def _take(self, job: Job, result: "_Looked") -> None:
        if job is not self._looking:
            return
        self._looking = None
        if isinstance(result.found, str):
            self._refuse(result.found)
        elif result.found is not None:
            self._looked_at, self.preview = result.key, result.found
            self.organs.show_organs(result.found.organs)
            say(self.about, _as_table(result.found))
            self.about.setEnabled(True)
            self.update_state()

    def _refuse(self, reason: str) -> None:
        """Tell why nothing can be written."""
        self._looking = self.preview = None
        say(self.about, f"<span>{escape(reason)}</span>")
        self.about.setEnabled(True)
        self.update_state()

    def _file_name(self) -> str:
        name = "contours" if self._layer is None else self._layer.name
        return re.sub(r'[\\/:*?"<>|\s]+', "_", name.replace(" · ", "_")) + self.suffix

    # --- writing ------------------------------------------------------------------------

    def _browse(self) -> None:
        title = FORMATS[self.suffix]
        suggestion = str(Path(self.last_folder("folder")) / self._file_name())
        path, _ = QFileDialog.getSaveFileName(
            self, f"Export as {title}", suggestion, f"{title} (*{self.suffix})"
        )
        if not path:
            return
        target = Path(path)
        if not suffix_of(target, SEGMENTATION_SUFFIXES):
            target = target.with_name(target.name + self.suffix)
            if target.exists() and not self.confirm_replacing(target):
                return  # the dialog asked for another name
        self.keep_folder("folder", target.parent)
        self.export(target)

    def confirm_replacing(self, path: Path) -> bool:
        """Ask whether a file may be replaced."""
        answer = QMessageBox.question(self, "Export", f"{path.name} is there. Replace it?")
        return bool(answer == QMessageBox.StandardButton.Yes)

    def export(self, path: str | Path) -> None:
        """Write what is chosen, read it again, and tell how it came out."""
        target = Path(path)
        layers = self._chosen
        if self.busy or not layers:
            return
        with self.errors_shown(f"Exporting {layers[0].name}"):
            _check_suffix(target, self.suffix)
            export = self._export()
            sources = [part.origin.source for part in export.parts if part.origin.source]
            complete = not export.left_out

            def work(report: Report) -> _Written:
                report(Progress(0, 0, f"Writing {target.name} and reading it again"))
                check_output(target, inputs=sources)
                return export.written_to(target)

            def tell(written: _Written) -> None:
                if complete:
                    kept = Autosaver.of(self.viewer)
                    for layer, snapshot in zip(layers, export.snapshots, strict=True):
                        kept.saved(layer, snapshot)
                say(self.outcome, f"Written to {target.name}. {written.check}")

            say(self.outcome, "")
            # A file that was written when Cancel was pressed is there: it is told of, too.
            self.run(f"Exporting {layers[0].name}", work, self.bar, tell, discard=tell)

    def _export(self) -> "_ToWrite":
        """The layers copied as they are now, with what was chosen.

        Raises
        ------
        InputError
            One of the layers is no stack, or does not know where it lies.
        """
        kept = Autosaver.of(self.viewer)
        snapshots = [kept.snapshot(layer) for layer in self._chosen]
        parts = []
        for part, snapshot in zip(self._parts(), snapshots, strict=True):
            same = snapshot.labels.dtype == part.labels.dtype
            labels = snapshot.labels if same else np.array(part.labels)
            parts.append(part._replace(labels=labels))
        left_out = frozenset(self.organs.left_out)
        return _ToWrite(parts, snapshots, left_out, self.deidentify.isChecked())

    # --- a node -------------------------------------------------------------------------

    def test_node(self) -> None:
        """Ask the node whether it is there."""
        if self.busy:
            return
        with self.errors_shown("Testing a DICOM node"):
            node = self.node.node()

            def work(report: Report) -> None:
                report(Progress(0, 0, f"Asking {node}"))
                echo(node)

            self._ask(node, work, lambda _: self.node.say_answer(f"{node} answers."))

    def send(self) -> None:
        """Send what is chosen to the node, by way of a temporary file."""
        if self.busy or not self._chosen:
            return
        with self.errors_shown("Sending to a DICOM node"):
            node, export, name = self.node.node(), self._export(), self._file_name()
            title = FORMATS[self.suffix]

            def work(report: Report) -> str:
                report(Progress(0, 0, f"Writing {name}"))
                with TemporaryDirectory() as folder:
                    written = export.written_to(Path(folder) / name)
                    (sent,) = send([written.path], node, report=report)
                warning = f" It says: {sent.warning}." if sent.warning else ""
                return f"{node} took the {title}.{warning} Before sending: {written.check}"

            # The node has it, whether or not Cancel was pressed meanwhile.
            self._ask(node, work, self.node.say_answer, discard=self.node.say_answer)

    def _ask(
        self,
        node: DicomNode,
        work: Callable[[Report], Any],
        tell: Callable[[Any], None],
        discard: Callable[[Any], None] | None = None,
    ) -> None:
        self.node.say_answer("")
        self.run(f"Talking to {node}", work, self.bar, tell, discard=discard)

    # --- the rest -----------------------------------------------------------------------

    def closed(self) -> None:
        """End what runs, looking among it."""
        super().closed()
        if self._looking is not None:
            self._looking.cancel()

    def update_state(self) -> None:
        """Say what is missing; offer only what can be used."""
        say(self.hint, NO_LABELS if self._layer is None else "")
        dicom = self.suffix in ONTO_SERIES_SUFFIXES
        count, chosen = self.others.count, len(self.others.chosen)
        self.others_section.setText(f"Further layers ({chosen} of {count})")
        self.others_section.setVisible(bool(count))
        self.deidentify.setEnabled(dicom)
        self.deidentify.setToolTip(DEIDENTIFY if dicom else HOLDS_NOBODY)
        self.deidentify.setVisible(self._layer is not None)
        possible = self.preview is not None and not self.busy
        self.export_button.setEnabled(possible)
        self.node.test_button.setEnabled(not self.busy)
        self.node.send_button.setEnabled(possible and dicom)
        self.node.say_whose(self._whose())

    def _whose(self) -> str:
        """What to know before sending."""
        if self._layer is None:
            return ""
        if self.suffix not in ONTO_SERIES_SUFFIXES:
            return "Only DICOM can be sent: choose RT Structure Set or SEG."
        if self.deidentify.isChecked():
            return (
                "De-identified contours do not join the patient's scan at the node. A planning "
                "system needs the patient: untick De-identify for it."
            )
        return "The contours go with the patient's name and ID, as in the scan."


class _Part(NamedTuple):
    """A layer's labels ``(slice, row, column)`` and what it remembers."""

    labels: np.ndarray
    origin: Origin


class _Asked(NamedTuple):
    """What a preview is asked for."""

    file_name: str
    left_out: frozenset[str]
    deidentify: bool


_Key = tuple[_Asked, list[Any]]
"""What a preview depends on."""


class _Looked(NamedTuple):
    """What was found, or why nothing can be written; None where all is as it was known."""

    found: Preview | str | None
    key: _Key


class _Written(NamedTuple):
    """A file, and how it was when it was read again."""

    path: Path
    check: str


@dataclass(frozen=True, eq=False)
class _ToWrite:
    """Layers as they were at one moment, and what was chosen of them."""

    parts: list[_Part]
    snapshots: list[Snapshot]
    left_out: frozenset[str]
    deidentify: bool

    def written_to(self, path: Path) -> _Written:
        """Write a file, and read it again."""
        whole = _segmentation(self.parts)
        names = {organ.name for organ in whole.organs} - self.left_out
        segmentation = with_organs(whole, names)
        write_segmentation(segmentation, path, deidentify=self.deidentify)
        return _Written(path, check_round_trip(segmentation, path).sentence)


def _look(parts: list[_Part], asked: _Asked, known: _Key | None, report: Report) -> _Looked:
    """What would be written of layers; looked at only where something is not as it was known.

    Moving the slider sends the same event as undoing a stroke.
    """
    report(Progress(0, 0, "Looking at the contours"))
    seen = [
        (slice_digests(p.labels), p.origin.organs, dict(p.origin.provenance)) if _fits(p) else None
        for p in parts
    ]
    key: _Key = (asked, seen)
    if key == known:
        return _Looked(None, key)
    try:
        whole = _segmentation(parts)
        report(Progress(0, 0, "Looking at the contours"))
        names = {organ.name for organ in whole.organs} - asked.left_out
        found = preview(whole, asked.file_name, organs=names, deidentify=asked.deidentify)
        return _Looked(found, key)
    except InputError as error:
        return _Looked(str(error), key)


def _as_table(found: Preview) -> str:
    """What will be written in two columns, as Qt's rich text."""
    rows = (
        f"<tr><td><b>{escape(heading)}</b>&nbsp;</td><td>{escape(_breakable(text))}</td></tr>"
        for heading, text in found.rows
    )
    return f"<table cellspacing='2'>{''.join(rows)}</table>"


def _breakable(text: str) -> str:
    """The same, where a name that is longer than a narrow dock can go on in the next line."""
    return re.sub(r"\S{30,}", lambda name: re.sub(r"([_.\-])", "\\1\u200b", name[0]), text)


def _fits(part: _Part) -> bool:
    """Whether labels can have digests."""
    return part.labels.dtype.kind in "ui"


def _segmentation(parts: list[_Part]) -> Segmentation:
    """The contours of several layers of one scan together."""
    found = [segmentation_of_labels(part.labels, part.origin) for part in parts]
    return found[0] if len(found) == 1 else joined(found)


def _of_one_scan(layer: Labels, other: Labels | None) -> bool:
    """Whether two layers lie on one scan, as far as they know."""
    if other is None:
        return False
    one, two = origin_of(layer.metadata), origin_of(other.metadata)
    if one is None or two is None:
        return False
    same = (one.name, one.shape, one.stored) == (two.name, two.shape, two.stored)
    return same and np.array_equal(one.affine, two.affine)


def _check_suffix(path: Path, suffix: str) -> None:
    """Refuse a file name of another format than the one that was previewed.

    Raises
    ------
    InputError
        It is.
    """
    if suffix_of(path, SEGMENTATION_SUFFIXES) != suffix:
        raise InputError(
            f"{path.name} does not end in {suffix}, and {FORMATS[suffix]} is chosen: change the "
            "name or the format."
        )
