"""Models that others offer: listed from a server or a folder, downloaded, and gone on with."""

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QLineEdit, QPushButton, QVBoxLayout, QWidget

from gitract.model_folder import megabytes
from gitract.progress import Progress, Report
from napari_gitract.settings import change_settings, settings
from napari_gitract.widgets._panel import JobBar, Panel
from napari_gitract.widgets._parts import fill_table, fit_height, note, say, table
from napari_gitract.workspace import model_events

if TYPE_CHECKING:
    from gitract.model_catalogue import Catalogue, Offer
    from gitract.model_store import ModelInfo

__all__ = ["ModelCatalogue", "uninstall"]

NO_SOURCE = "Name the address or the folder of a catalogue of models, then list it."
NOTHING_OFFERED = "This catalogue offers no model."


class ModelCatalogue(QWidget):
    """List the models of a catalogue, and download one.

    Parameters
    ----------
    panel
        The widget that this is a part of: it runs the jobs.
    """

    def __init__(self, panel: Panel) -> None:
        super().__init__()
        self._panel = panel
        self.catalogue: Catalogue | None = None
        self._source = QLineEdit()
        self._source_known = False
        self._source.setPlaceholderText("https://… or a folder")
        self._source.setToolTip(
            "Where a catalogue.json is. Behind a firewall: a folder that it was copied to, with "
            "the archives beside it. A proxy is taken from HTTPS_PROXY."
        )
        self._source.textEdited.connect(self.clear)
        self._source.returnPressed.connect(self.list_models)
        self.browse_button = QPushButton("Browse…")
        self.browse_button.clicked.connect(self._browse)
        self.list_button = QPushButton("List models")
        self.list_button.clicked.connect(self.list_models)
        self.offers = table(["Model", "Size", "Licence"])
        self.offers.itemSelectionChanged.connect(self.update_state)
        self.details = note()
        self.download_button = QPushButton("Download")
        self.download_button.setToolTip("Download the selected model and install it.")
        self.download_button.clicked.connect(self.download)
        self.bar = JobBar(cancel="End now; what has arrived is kept for the next time.")
        self.hint = note()
        self._arrange()
        self._show(None)
        say(self.hint, NO_SOURCE)

    def _arrange(self) -> None:
        row = QHBoxLayout()
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._source, 1)
        row.addWidget(self.browse_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row)
        for widget in (
            self.list_button,
            self.offers,
            self.details,
            self.download_button,
            self.bar,
            self.hint,
        ):
            layout.addWidget(widget)

    @property
    def source(self) -> QLineEdit:
        """Where the catalogue is."""
        self.show_source()
        return self._source

    def show_source(self) -> None:
        """Show the catalogue that was listed last, or that this installation is told to use.

        Not before somebody looks: for the settings napari goes through all plugins' manifests.
        """
        from gitract.model_catalogue import default_source

        if not self._source_known:
            self._source_known = True
            self._source.setText(settings().catalogue or default_source())
            self.clear()

    @property
    def selected(self) -> "Offer | None":
        """The model of the selected row."""
        row = self.offers.currentRow()
        if self.catalogue is None or not 0 <= row < len(self.catalogue.offers):
            return None
        return self.catalogue.offers[row]

    def clear(self) -> None:
        """Show no models: those listed were another catalogue's."""
        self._show(None)
        say(self.hint, "" if self.source.text().strip() else NO_SOURCE)

    def list_models(self) -> None:
        """Read the catalogue off the GUI thread."""
        source = self.source.text().strip()
        if self._panel.busy or not source:
            return

        def work(report: Report) -> "Catalogue":
            from gitract.model_catalogue import read_catalogue

            report(Progress(0, 0, "Reading the catalogue"))
            return read_catalogue(source)

        def show(catalogue: "Catalogue") -> None:
            if self.source.text().strip() != source:
                return
            change_settings(catalogue=source)
            self._show(catalogue)

        self._panel.run("Reading a catalogue of models", work, self.bar, show)

    def _show(self, catalogue: "Catalogue | None") -> None:
        self.catalogue = catalogue
        offers = () if catalogue is None else catalogue.offers
        fill_table(
            self.offers, [[offer.id, megabytes(offer.bytes), offer.licence] for offer in offers]
        )
        fit_height(self.offers)
        for widget in (self.offers, self.details, self.download_button):
            widget.setVisible(bool(offers))
        say(self.hint, "" if offers else NOTHING_OFFERED)
        if offers:
            self.offers.selectRow(0)
        self.update_state()

    def download(self) -> None:
        """Download the selected model off the GUI thread, and install it."""
        catalogue, offer = self.catalogue, self.selected
        if self._panel.busy or catalogue is None or offer is None:
            return

        def work(report: Report) -> "ModelInfo":
            from gitract.model_download import download_model

            place = catalogue.place_of(offer)
            report(Progress(0, 0, "Connecting"))
            return download_model(place, sha256=offer.sha256, model=offer.id, report=report)

        say(self.hint, "")
        job = self._panel.run(
            f"Downloading {offer.id}", work, self.bar, self._say_installed, discard=uninstall
        )
        job.cancelled.connect(self._say_cancelled)

    def _say_installed(self, info: "ModelInfo") -> None:
        model_events.changed.emit()
        say(self.hint, f"{info.id} is installed: activate it above to use it.")

    def _say_cancelled(self) -> None:
        say(self.hint, "Cancelled. Download again goes on with what has arrived.")

    def _browse(self) -> None:
        folder = QFileDialog.getExistingDirectory(
            self, "Folder of a catalogue of models", self.source.text()
        )
        if folder:
            self.source.setText(folder)
            self.list_models()

    def update_state(self) -> None:
        """Describe the selected model; offer only what can be done."""
        from gitract.model_store import ModelStore

        busy, offer = self._panel.busy, self.selected
        self.list_button.setEnabled(not busy)
        self._source.setEnabled(not busy)
        self.browse_button.setEnabled(not busy)
        if self.catalogue is None or offer is None:
            return
        installed = offer.id in {info.id for info in ModelStore().models()}
        self.download_button.setEnabled(not busy and not installed)
        self.details.setText(_description(self.catalogue, offer, installed))


def uninstall(info: "ModelInfo") -> None:
    """Undo an import or a download that was cancelled just as it ended."""
    from gitract.model_store import ModelStore

    ModelStore().delete(info.id)


def _description(catalogue: "Catalogue", offer: "Offer", installed: bool) -> str:
    from gitract.model_download import downloaded_bytes

    lines = [offer.title, offer.summary]
    if installed:
        lines.append("It is installed.")
    elif arrived := downloaded_bytes(catalogue, offer):
        lines.append(f"{megabytes(arrived)} have arrived: Download goes on with the rest.")
    return "\n".join(line for line in lines if line)
