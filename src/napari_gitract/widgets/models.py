"""Models: installed versions and their cards, the active one, others to compare and to get."""

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFileDialog, QInputDialog, QMenu, QMessageBox, QPushButton

from gitract.errors import InputError
from gitract.model_folder import ModelSource, folder_bytes
from gitract.progress import Progress, Report
from napari_gitract.widgets._catalogue import ModelCatalogue, uninstall
from napari_gitract.widgets._choices import follow
from napari_gitract.widgets._compare import CompareModels
from napari_gitract.widgets._model_card import ModelCard
from napari_gitract.widgets._panel import JobBar, Panel
from napari_gitract.widgets._parts import (
    ROW_HEIGHT,
    button_row,
    fill_table,
    fit_height,
    note,
    say,
    section,
    table,
)
from napari_gitract.workspace import model_events

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from gitract.model_store import ModelInfo

__all__ = ["Models"]

_ROWS = 6  # of the table that are seen without scrolling


class Models(Panel):
    """List the installed models, choose which one is used, and get others.

    Parameters
    ----------
    napari_viewer
        The viewer that the widget is docked in.
    """

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__(napari_viewer)
        self._models: list[ModelInfo] = []
        self._active_id = ""
        self._previous_id = ""
        self._make_parts()
        self._arrange()
        for name in ("card_section", "compare_section", "get_section"):
            self.remember(name, getattr(self, name))
        follow(self, model_events.changed, self.refresh)
        self.refresh()

    def _make_parts(self) -> None:
        self.versions = table(["Model", "Made", "Dice", "MB"])
        self.versions.setToolTip(
            "● is the active model. Dice: mean over organs, as measured when it was made. MB: what "
            "it takes on the disk."
        )
        self.versions.itemSelectionChanged.connect(self.update_state)
        self.details = note()
        self.activate_button = _button("Activate", "Use the selected model from now on.")
        self.activate_button.clicked.connect(self.activate)
        self.restore_button = _button("Restore previous", "")
        self.restore_button.clicked.connect(self.restore)
        self.import_button = _button("Import…", "Install a model that somebody gave you.")
        menu = QMenu(self.import_button)
        menu.addAction("Zip archive…", self._browse_archive)
        menu.addAction("Model folder…", self._browse_folder)
        self.import_button.setMenu(menu)
        self.export_button = _button(
            "Export…", "Write the selected model as a zip archive, to be imported elsewhere."
        )
        self.export_button.clicked.connect(self._browse_export)
        self.delete_button = _button("Delete…", "")
        self.delete_button.clicked.connect(self.delete)
        self.bar = JobBar(cancel="End now; nothing is kept.")
        self.hint = note()
        self.card = ModelCard()
        self.card_section = section("Model card", self.card)
        self.card_section.toggled.connect(self._fill_card)
        self.compare = CompareModels(self)
        self.compare_section = section("Compare two on the open scan", self.compare)
        self.get = ModelCatalogue(self)
        self.get_section = section("Get more models", self.get)
        self.get_section.toggled.connect(self.get.show_source)

    def _arrange(self) -> None:
        self.column.addWidget(self.versions)
        self.column.addWidget(self.details)
        self.column.addLayout(button_row(self.activate_button, self.restore_button))
        self.column.addLayout(
            button_row(self.import_button, self.export_button, self.delete_button)
        )
        for widget in (
            self.bar,
            self.hint,
            self.card_section,
            self.compare_section,
            self.get_section,
        ):
            self.column.addWidget(widget)
        self.column.addStretch(1)
        say(self.hint, "")

    @property
    def selected(self) -> "ModelInfo | None":
        """The model of the selected row."""
        row = self.versions.currentRow()
        return self._models[row] if 0 <= row < len(self._models) else None

    def refresh(self) -> None:
        """Read the store again and select its active model."""
        from gitract.model_store import ModelStore

        with self.errors_shown("Reading the models"):
            store = ModelStore()
            active = store.active()
            self._models = list(store.models())
            self._active_id = active.id
            previous = store.previous()
            self._previous_id = "" if previous is None else previous.id
            rows = [
                [
                    f"● {model.id}" if model.id == active.id else model.id,
                    model.created[:10],
                    _mean_dice(model),
                    f"{folder_bytes(model.path) / 1e6:.1f}",
                ]
                for model in self._models
            ]
            fill_table(self.versions, rows)
            fit_height(self.versions)
            highest = (_ROWS + 1) * ROW_HEIGHT + 6
            self.versions.setFixedHeight(min(self.versions.maximumHeight(), highest))
            for row, model in enumerate(self._models):
                item = self.versions.item(row, 0)
                assert item is not None
                item.setToolTip(model.title)
            self._select(active.id)
        self.update_state()

    def _select(self, model: str) -> None:
        self.versions.selectRow([info.id for info in self._models].index(model))

    def activate(self) -> None:
        """Make the selected model the active one."""
        from gitract.model_store import ModelStore

        if (model := self.selected) is None:
            return
        with self.errors_shown(f"Activating {model.id}"):
            ModelStore().activate(model.id)
            model_events.changed.emit()
            say(self.hint, f"{model.id} is the active model now.")

    def restore(self) -> None:
        """Make the model active that was active before."""
        from gitract.model_store import ModelStore

        with self.errors_shown("Restoring the previous model"):
            info = ModelStore().restore()
            model_events.changed.emit()
            say(self.hint, f"{info.id} is the active model again.")

    def import_model(self, path: str) -> None:
        """Install a model folder or a zip archive of one, off the GUI thread.

        Where its name is taken, the user is asked for another one.
        """
        if self.busy:
            return
        title = f"Importing {Path(path).name}"
        say(self.hint, "")
        with self.errors_shown(title):
            name = self._free_name(Path(path))
            if name is not None:
                self._import(Path(path), name, title)

    def _free_name(self, path: Path) -> str | None:
        """What a model will be called here; None where nothing shall be imported."""
        from gitract.model_store import ModelStore

        store = ModelStore()
        with ModelSource.opened(path) as source:
            name: str | None = source.config.id
        while name is not None:
            try:
                store.check_id(name)
                return name
            except InputError as why:
                name = self.ask_name(str(why), store.free_id(name))
        return None

    def _import(self, path: Path, name: str, title: str) -> None:
        def work(report: Report) -> "ModelInfo":
            from gitract.model_store import ModelStore

            report(Progress(0, 0, title))
            return ModelStore().import_model(path, report, name=name)

        def installed(info: "ModelInfo") -> None:
            model_events.changed.emit()
            self._select(info.id)
            say(self.hint, f"{info.id} is installed: activate it to use it.")

        self.run(title, work, self.bar, installed, discard=uninstall)

    def export(self, path: str) -> None:
        """Write the selected model as a zip archive, off the GUI thread."""
        model = self.selected
        if self.busy or model is None:
            return
        target = Path(path) if path.lower().endswith(".zip") else Path(f"{path}.zip")

        def work(report: Report) -> Path:
            from gitract.model_store import ModelStore

            report(Progress(0, 0, f"Writing {target.name}"))
            return ModelStore().export(model.id, target)

        def written(archive: Path) -> None:
            say(self.hint, f"{model.id} was written to {archive.name}.")

        say(self.hint, "")
        self.run(f"Exporting {model.id}", work, self.bar, written, discard=Path.unlink)

    def delete(self) -> None:
        """Delete the selected model, once the user has said yes."""
        from gitract.model_store import ModelStore

        if self.busy or (model := self.selected) is None:
            return
        with self.errors_shown(f"Deleting {model.id}"):
            store = ModelStore()
            if not self.confirm(store.deletion_question(model.id)):
                return
            store.delete(model.id)
            model_events.changed.emit()
            say(self.hint, f"{model.id} is deleted.")

    def confirm(self, question: str) -> bool:
        """Ask whether a model shall really be deleted."""
        answer = QMessageBox.question(
            self,
            "Delete a model?",
            question,
            QMessageBox.StandardButton.Yes | QMessageBox.StandardButton.No,
            QMessageBox.StandardButton.No,
        )
        return answer == QMessageBox.StandardButton.Yes

    def ask_name(self, why: str, proposal: str) -> str | None:
        """Ask what to call a model that cannot have its own name here; None: it is not imported.

        Parameters
        ----------
        why
            A sentence.
        proposal
            A name that is free.
        """
        name, agreed = QInputDialog.getText(self, "Name the model", why, text=proposal)
        return name.strip() if agreed else None

    def _browse_archive(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self, "Archive of a model", self.last_folder("import"), "Zip archive (*.zip)"
        )
        if path:
            self.keep_folder("import", Path(path).parent)
            self.import_model(path)

    def _browse_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(
            self, "Model folder, with its config.json", self.last_folder("import")
        )
        if folder:
            self.keep_folder("import", Path(folder).parent)
            self.import_model(folder)

    def _browse_export(self) -> None:
        if (model := self.selected) is None:
            return
        suggestion = str(Path(self.last_folder("export")) / f"{model.id}.zip")
        path, _ = QFileDialog.getSaveFileName(
            self,
            "Export a model",
            suggestion,
            "Zip archive (*.zip)",
            options=QFileDialog.Option.DontConfirmOverwrite,  # nothing is ever replaced
        )
        if path:
            self.keep_folder("export", Path(path).parent)
            self.export(path)

    def update_state(self) -> None:
        """Describe the selected model; offer only what can be done with it."""
        model = self.selected
        active = model is not None and model.id == self._active_id
        self.activate_button.setEnabled(model is not None and not active)
        self.restore_button.setEnabled(bool(self._previous_id))
        self.restore_button.setToolTip(
            f"Go back to {self._previous_id}, which was active before."
            if self._previous_id
            else f"No other model was active before {self._active_id}."
        )
        self.import_button.setEnabled(not self.busy)
        self.export_button.setEnabled(model is not None and not self.busy)
        kept = _why_kept(model, active)
        self.delete_button.setEnabled(model is not None and not kept and not self.busy)
        self.delete_button.setToolTip(kept or "Delete the selected model for good.")
        self.details.setText("" if model is None else self._description(model))
        self._fill_card(self.card_section.isExpanded())
        self.compare.update_state()
        self.get.update_state()

    def _fill_card(self, wanted: bool) -> None:
        """Read the card of the selected model, once somebody wants to see it."""
        if wanted and (model := self.selected) is not None:
            with self.errors_shown(f"Reading the card of {model.id}"):
                self.card.show_model(model)

    def _description(self, model: "ModelInfo") -> str:
        told = f"{model.id}{' (active)' if model.id == self._active_id else ''}"
        if not model.parent:
            return f"{told}: {'comes with the program' if model.shipped else 'was imported'}."
        there = model.parent in {info.id for info in self._models}
        gone = "" if there else ", which is not installed"
        return f"{told}: fine-tuned from {model.parent}{gone}."


def _button(text: str, tip: str) -> QPushButton:
    button = QPushButton(text)
    button.setToolTip(tip)
    return button


def _why_kept(model: "ModelInfo | None", active: bool) -> str:
    """Why a model cannot be deleted; nothing where it can."""
    if model is None:
        return ""
    if model.shipped:
        return "This model comes with the program: it cannot be deleted."
    return "This is the active model: activate another one, then delete it." if active else ""


def _mean_dice(model: "ModelInfo") -> str:
    return f"{sum(model.dice.values()) / len(model.dice):.3f}" if model.dice else "–"
