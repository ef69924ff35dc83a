"""Models: the installed models and their versions; which one is active; going back."""

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QPushButton

from gitract.organs import organ_named
from napari_gitract.jobs import errors_shown
from napari_gitract.widgets._choices import follow
from napari_gitract.widgets._panel import Panel
from napari_gitract.widgets._parts import button_row, fill_table, note, table
from napari_gitract.workspace import model_events

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from gitract.model_store import ModelInfo

__all__ = ["Models"]


class Models(Panel):
    """List the installed models, activate one, or go back to the one before.

    Parameters
    ----------
    napari_viewer
        The viewer that the widget is docked in.
    """

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__(napari_viewer)
        self._models: list[ModelInfo] = []
        self._active_id = ""
        self.versions = table(["Model", "Made", "Dice"])
        self.versions.setToolTip("Dice: mean over organs, as measured when the model was made.")
        self.versions.itemSelectionChanged.connect(self.update_state)
        self.versions.setMinimumHeight(120)
        self.details = note()
        self.activate_button = QPushButton("Activate")
        self.activate_button.setToolTip("Use the selected model from now on.")
        self.activate_button.clicked.connect(self.activate)
        self.restore_button = QPushButton("Restore previous")
        self.restore_button.setToolTip("Go back to the model that was active before.")
        self.restore_button.clicked.connect(self.restore)
        self.column.addWidget(self.versions, 1)
        self.column.addWidget(self.details)
        self.column.addLayout(button_row(self.activate_button, self.restore_button))
        follow(self, model_events.changed, self.refresh)
        self.refresh()

    @property
    def selected(self) -> "ModelInfo | None":
        """The model of the selected row."""
        row = self.versions.currentRow()
        return self._models[row] if 0 <= row < len(self._models) else None

    def refresh(self) -> None:
        """Read the store again and select its active model."""
        from gitract.model_store import ModelStore

        with errors_shown():
            store = ModelStore()
            active = store.active()
            self._models = list(store.models())
            self._active_id = active.id
            ids = [model.id for model in self._models]
            rows = [
                [
                    f"● {model.id}" if model.id == active.id else model.id,
                    model.created[:10],
                    _mean_dice(model),
                ]
                for model in self._models
            ]
            fill_table(self.versions, rows)
            self.versions.selectRow(ids.index(active.id))
        self.update_state()

    def activate(self) -> None:
        """Make the selected model the active one."""
        from gitract.model_store import ModelStore

        if (model := self.selected) is None:
            return
        with errors_shown():
            ModelStore().activate(model.id)
            model_events.changed.emit()

    def restore(self) -> None:
        """Make the model active that was active before."""
        from gitract.model_store import ModelStore

        with errors_shown():
            ModelStore().restore()
            model_events.changed.emit()

    def update_state(self) -> None:
        """Describe the selected model."""
        model = self.selected
        self.activate_button.setEnabled(model is not None and model.id != self._active_id)
        self.details.setText("" if model is None else _description(model, self._active_id))


def _mean_dice(model: "ModelInfo") -> str:
    return f"{sum(model.dice.values()) / len(model.dice):.3f}" if model.dice else "–"


def _description(model: "ModelInfo", active_id: str) -> str:
    lines = [f"{model.id}{' (active)' if model.id == active_id else ''}"]
    if model.parent:
        lines.append(f"Fine-tuned from {model.parent}.")
    if model.dice:
        lines.append(
            "Dice: "
            + ", ".join(
                f"{organ_named(name, model.organs).title} {value:.3f}"
                for name, value in model.dice.items()
            )
        )
    return "\n".join(lines)
