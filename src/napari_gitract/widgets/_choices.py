"""Menus that follow the viewer's layers and the model store."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from napari.layers import Labels, Layer
from qtpy.QtCore import QObject, Qt, Signal

from gitract.errors import GitractError
from napari_gitract.layers import MAP_KEY, is_drawn_on
from napari_gitract.settings import DEVICE
from napari_gitract.widgets._menu import Menu
from napari_gitract.widgets._remembering import remember_control
from napari_gitract.workspace import model_events

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from gitract.model_store import ModelInfo

__all__ = ["DeviceChoice", "LayerChoice", "ModelChoice", "follow"]


def follow(owner: QObject, signal: Any, slot: Callable[..., Any]) -> None:
    """Connect an event of napari or psygnal to a widget, until Qt destroys the widget.

    Those events outlive widgets, and calling a destroyed one raises an error. So does
    comparing with one, which napari below 0.7 does to disconnect a method: it gets a plain
    function instead.
    """

    def forward(*arguments: Any) -> None:
        slot(*arguments)

    def let_go(*_: Any) -> None:
        signal.disconnect(forward)

    signal.connect(forward)
    owner.destroyed.connect(let_go)


class LayerChoice(Menu):
    """A menu of the viewer's layers of one kind; a layer that was just added is chosen."""

    chosen = Signal()

    def __init__(self, viewer: "Viewer", kind: type[Layer]) -> None:
        super().__init__()
        self._viewer = viewer
        self._kind = kind
        self._layers: list[Layer] = []
        self._followed: WeakSet[Layer] = WeakSet()
        self.currentIndexChanged.connect(self._announce)
        events = viewer.layers.events
        follow(self, events.inserted, self._on_inserted)
        follow(self, events.removed, self._refresh)
        follow(self, events.reordered, self._refresh)
        self._refresh()
        active = viewer.layers.selection.active
        if active in self._layers:
            self.layer = active

    @property
    def layer(self) -> Any:
        """The layer chosen, or None where the viewer has none of the kind."""
        index = self.currentIndex()
        return self._layers[index] if 0 <= index < len(self._layers) else None

    @layer.setter
    def layer(self, layer: Layer) -> None:
        self.setCurrentIndex(self._layers.index(layer))

    @property
    def layers(self) -> list[Layer]:
        """All layers offered."""
        return list(self._layers)

    def choose_image_of(self, labels: Labels) -> None:
        """Of images: choose the one that labels were made from, where it can be told."""
        for image in self._layers:
            if is_drawn_on(labels, image):
                self.layer = image
                return

    def _on_inserted(self, event: Any) -> None:
        self._offer(event.value)

    def _refresh(self, _event: Any = None) -> None:
        self._offer(self.layer)

    def _offer(self, chosen: Layer | None) -> None:
        """Offer the layers that there are; choose this one, or else the one that was chosen."""
        before = self.layer
        self.blockSignals(True)
        self.clear()
        # Newest first, as in napari's layer list.
        self._layers = [
            layer
            for layer in reversed(self._viewer.layers)
            if isinstance(layer, self._kind) and MAP_KEY not in layer.metadata
        ]
        for layer in self._layers:
            self.addItem(layer.name)
            if layer not in self._followed:
                self._followed.add(layer)
                follow(self, layer.events.name, self._refresh)
        for layer in (chosen, before):
            if layer in self._layers:
                self.setCurrentIndex(self._layers.index(layer))
                break
        self.blockSignals(False)
        self._announce()

    def _announce(self, *_: Any) -> None:
        self.setToolTip(self.layer.name if self.layer is not None else "")
        self.chosen.emit()


class ModelChoice(Menu):
    """A menu of the installed models, the active one first; follows the store."""

    def __init__(self) -> None:
        super().__init__()
        self.setToolTip(
            "The model to use; ● is the active one. Fine-tune adds versions, Models manages them."
        )
        self._models: list[ModelInfo] = []
        follow(self, model_events.changed, self.refresh)
        self.refresh()

    @property
    def info(self) -> "ModelInfo | None":
        """The model chosen."""
        index = self.currentIndex()
        return self._models[index] if 0 <= index < len(self._models) else None

    def refresh(self) -> None:
        """Read the store again and choose its active model."""
        from gitract.model_store import ModelStore

        self.clear()
        self._models = []
        try:
            store = ModelStore()
            active = store.active()
            others = [model for model in store.models() if model.id != active.id]
        except GitractError as error:
            self.setPlaceholderText("no model")
            self.setToolTip(str(error))
            return
        self._models = [active, *others]
        for model in self._models:
            self.addItem(f"● {model.id}" if model is active else model.id)
            self.setItemData(self.count() - 1, model.title, Qt.ItemDataRole.ToolTipRole)


class DeviceChoice(Menu):
    """A menu of the devices that this machine probably has, and of the servers it may use.

    What the user chooses in one widget is what all of them open with from then on.
    """

    def __init__(self) -> None:
        from gitract.devices import likely_devices
        from gitract.remote.addresses import server_devices

        super().__init__()
        self.addItems([*likely_devices(), *server_devices()])
        remember_control(DEVICE, self)
        self.setToolTip(
            "Where to compute. auto: the GPU where there is one, else the CPU. Servers are added "
            "by `gitract servers add`."
        )

    @property
    def device(self) -> str:
        """The device chosen."""
        return self.currentText()

    @property
    def libraries(self) -> tuple[str, ...]:
        """What a job on it loads of the large libraries."""
        from gitract.remote.addresses import is_server

        return () if is_server(self.device) else ("torch",)
