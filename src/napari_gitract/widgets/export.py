"""Export: contours, scan or both become files, or go to a DICOM node; it is told before.

What can be chosen is `_export_choice`, how it is previewed and written `_to_export`.
"""

from collections.abc import Callable
from functools import partial
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFileDialog, QMessageBox, QPushButton

from gitract import INTENDED_USE
from gitract.dicom_node import DicomNode, echo, send
from gitract.errors import InputError
from gitract.export_preview import Preview
from gitract.io import suffix_of
from gitract.progress import Progress, Report
from gitract.scan_export import ScanPreview
from napari_gitract.autosaving import Autosaver, Snapshot
from napari_gitract.jobs import Job, loading_libraries
from napari_gitract.widgets._choices import follow
from napari_gitract.widgets._dicom_node import NodeForm
from napari_gitract.widgets._export_choice import ExportChoice
from napari_gitract.widgets._panel import JobBar, Panel
from napari_gitract.widgets._parts import button_row, note, say, section
from napari_gitract.widgets._to_export import Key, Looked, ToExport, What, Written

if TYPE_CHECKING:
    from napari.viewer import Viewer

__all__ = ["Export"]

QUIET_MS = 600


class Export(Panel):
    """Write contours, a scan or both as files, or send them to a DICOM node.

    Parameters
    ----------
    napari_viewer
        The viewer whose layers are exported.
    """

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__(napari_viewer)
        self.preview: Preview | ScanPreview | None = None
        self._looking: Job | None = None
        self._looked_at: Key | None = None
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
        self.choice.changed.connect(self._on_choice)
        follow(self, self.workspace.labels_touched, self._on_touched)
        self._on_choice()

    def _make_parts(self) -> None:
        self.choice = ExportChoice(self.viewer)
        self.about = note()
        self.export_button = QPushButton("Export…")
        self.export_button.setToolTip("Write it, and read it again to check it.")
        self.export_button.clicked.connect(self._browse)
        self.bar = JobBar(cancel="End now. A file that is written by then stays.")
        self.outcome = note()
        self.node = NodeForm(self.test_node, self.send)
        self.node_section = section("Send to a DICOM node", self.node)

    def _arrange(self) -> None:
        self.column.addWidget(self.choice)
        self.column.addWidget(self.about)
        self.column.addLayout(button_row(self.export_button))
        self.column.addWidget(self.bar)
        self.column.addWidget(self.outcome)
        self.column.addWidget(self.node_section)
        self.column.addStretch(1)
        self.column.addWidget(note(INTENDED_USE, small=True))

    def _on_choice(self) -> None:
        """What was told is of another choice from now on."""
        self.preview = None
        self.about.setEnabled(False)
        say(self.outcome, "")
        self.node.say_answer("")
        if self.choice.layer is None:
            say(self.about, "")
            self.choice.organs.forget()
        self.update_state()
        self.look()

    def _on_touched(self, layer: Labels) -> None:
        if any(layer is one for one in self.choice.contours):
            self._quiet.start()

    # --- what will be written -----------------------------------------------------------

    def look(self) -> None:
        """Find out what would be written now, off the GUI thread."""
        self._quiet.stop()
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        layer = self.choice.layer
        if layer is None:
            return
        try:
            chosen = self.choice.to_export()
        except InputError as error:
            self._refuse(str(error))
            return
        known = self._looked_at if self.preview is not None else None
        work = partial(chosen.look, known)
        job = Job(f"Looking at {layer.name}", work, parent=self, quiet=True)
        self._looking = job
        job.succeeded.connect(partial(self._take, job))
        job.ended.connect(job.deleteLater)
        job.start()

    def _take(self, job: Job, looked: Looked) -> None:
        if job is not self._looking:
            return
        self._looking = None
        if isinstance(looked.found, str):
            self._refuse(looked.found)
        elif looked.found is not None:
            self._looked_at, self.preview = looked.key, looked.found
            if isinstance(looked.found, Preview):
                self.choice.organs.show_organs(looked.found.organs)
            say(self.about, _as_table(looked.rows))
            self.about.setEnabled(True)
            self.update_state()

    def _refuse(self, reason: str) -> None:
        """Tell why nothing can be written."""
        self._looking = self.preview = None
        say(self.about, f"<span>{escape(reason)}</span>")
        self.about.setEnabled(True)
        self.update_state()

    # --- writing ------------------------------------------------------------------------

    def _browse(self) -> None:
        with self.errors_shown("Choosing where to export to"):
            chosen = self.choice.to_export()
            folder = Path(self.last_folder("folder"))
            both = chosen.what is What.BOTH
            target = (self._asked_folder if both else self._asked_file)(chosen, folder)
            if target is not None:
                self.keep_folder("folder", target.parent)
                self.export(target)

    def _asked_file(self, chosen: ToExport, folder: Path) -> Path | None:
        """The file to write, as the user names it."""
        path, _ = QFileDialog.getSaveFileName(
            self,
            f"Export as {chosen.title}",
            str(folder / chosen.file_name),
            f"{chosen.title} (*{chosen.suffix})",
        )
        if not path or suffix_of(path, chosen.suffixes):
            return Path(path) if path else None
        target = Path(path + chosen.suffix)
        asked_for_another = target.exists() and not self.confirm_replacing(target)
        return None if asked_for_another else target

    def _asked_folder(self, chosen: ToExport, folder: Path) -> Path | None:
        """The folder to make, as the user names it."""
        free = folder / chosen.file_name
        count = 1
        while free.exists():
            count += 1
            free = folder / f"{chosen.file_name}_{count}"
        path, _ = QFileDialog.getSaveFileName(
            self, "Export contours and scan into a new folder", str(free), "New folder (*)"
        )
        return Path(path) if path else None

    def confirm_replacing(self, path: Path) -> bool:
        """Ask whether a file may be replaced."""
        answer = QMessageBox.question(self, "Export", f"{path.name} is there. Replace it?")
        return bool(answer == QMessageBox.StandardButton.Yes)

    def export(self, path: str | Path) -> None:
        """Write what is chosen, read it again, and tell how it came out."""
        target = Path(path)
        layer = self.choice.layer
        if self.busy or layer is None:
            return
        with self.errors_shown(f"Exporting {layer.name}"):
            chosen, snapshots = self._copied()
            chosen.check_name(target)

            def tell(written: Written) -> None:
                if not chosen.left_out:
                    kept = Autosaver.of(self.viewer)
                    for one, snapshot in snapshots:
                        kept.saved(one, snapshot)
                say(self.outcome, f"Written to {target.name}. {written.check}")

            say(self.outcome, "")

            # A file that was written when Cancel was pressed is there: it is told of, too.
            work = partial(_write, chosen, target)
            self.run(f"Exporting {layer.name}", work, self.bar, tell, discard=tell)

    def _copied(self) -> tuple[ToExport, list[tuple[Labels, Snapshot]]]:
        """What is chosen, as it is now whatever the user draws meanwhile.

        Raises
        ------
        InputError
            One of the layers is no stack, or does not know where it lies.
        """
        kept = Autosaver.of(self.viewer)
        chosen, layers = self.choice.to_export(), self.choice.contours
        snapshots = [kept.snapshot(layer) for layer in layers]
        labels = [
            snapshot.labels if snapshot.labels.dtype == part.labels.dtype else np.array(part.labels)
            for snapshot, part in zip(snapshots, chosen.parts, strict=True)
        ]
        return chosen.of_copies(labels), list(zip(layers, snapshots, strict=True))

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
        """Send what is chosen to the node, by way of a temporary folder."""
        if self.busy or self.choice.layer is None:
            return
        with self.errors_shown("Sending to a DICOM node"):
            node, (chosen, _) = self.node.node(), self._copied()

            def work(report: Report) -> str:
                with TemporaryDirectory() as folder:
                    written = _write(chosen, Path(folder) / chosen.file_name, report)
                    sent = send([written.path], node, report=report)
                odd = dict.fromkeys(one.warning for one in sent if one.warning)
                warning = f" It says: {'; '.join(odd)}." if odd else ""
                return f"{node} took the {chosen.title}.{warning} Before sending: {written.check}"

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
        self.choice.update_state()
        possible = self.preview is not None and not self.busy
        self.export_button.setEnabled(possible)
        self.node.test_button.setEnabled(not self.busy)
        self.node.send_button.setEnabled(possible and self.choice.is_dicom)
        self.node.say_whose(self.choice.whose)


def _write(chosen: ToExport, path: Path, report: Report) -> Written:
    with loading_libraries():  # highdicom reads its tables when it first writes
        return chosen.written_to(path, report)


def _as_table(rows: tuple[tuple[str, str], ...]) -> str:
    """What will be written in two columns, as Qt's rich text."""
    lines = (
        f"<tr><td><b>{escape(heading)}</b>&nbsp;</td><td>{escape(text)}</td></tr>"
        for heading, text in rows
    )
    return f"<table cellspacing='2'>{''.join(lines)}</table>"
