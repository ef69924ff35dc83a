"""How one Labels layer is shown: its organs, contours or fill, opacity, what was predicted."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args
from weakref import WeakKeyDictionary, WeakSet

from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtCore import QSignalBlocker, Qt, QTimer, Signal
from qtpy.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QGridLayout,
    QPushButton,
    QSlider,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from gitract.organs import ORGANS, Organ
from napari_gitract.layers import origin_of
from napari_gitract.prediction import Comparison, Mode, Prediction
from napari_gitract.widgets._choices import follow
from napari_gitract.widgets._keys import DISPLAY_KEYS, DisplayKeys, KeyedWidget
from napari_gitract.widgets._parts import button_row, color_icon, form, note, say
from napari_gitract.workspace import Workspace, current_slice

if TYPE_CHECKING:
    from napari.viewer import Viewer

__all__ = ["Display", "hidden_organs", "hide_organs"]

SOON_MS = 40  # a stroke moves on meanwhile; the difference follows it with this delay
THICKEST = 3  # pixels
_STEP = 10  # percent of opacity, for a key
_COLUMNS = 2
_LARGEST_ID = 255
_CLEAR = (0.0, 0.0, 0.0, 0.0)
NO_PREDICTION = "Not a prediction: nothing to compare with."
PREDICTION_LOST = (
    "Edited before it was opened here: a file does not keep what was predicted. Segment again to "
    "compare."
)


class Display(KeyedWidget):
    """Choose which organs of a Labels layer are shown, how, and what over them.

    Parameters
    ----------
    viewer
        The viewer that shows the layer.
    """

    def __init__(self, viewer: "Viewer") -> None:
        super().__init__(DisplayKeys.of(viewer))
        self._viewer = viewer
        self._workspace = Workspace.of(viewer)
        self._layer: Labels | None = None
        self._followed: WeakSet[Labels] = WeakSet()
        self._prediction: Prediction | None = None
        self.comparison = Comparison(viewer)
        self.modes = _ModeButtons()
        self.modes.chosen.connect(self.show_mode)
        self.reason = note(small=True)
        self.organs = OrganBoxes()
        self.organs.ticked.connect(self._hide_unticked)
        self.contours = QCheckBox("Contours")
        self.contours.clicked.connect(self._draw_contours)
        self.thickness = QSpinBox()
        self.thickness.setRange(1, THICKEST)
        self.thickness.setSuffix(" px")
        self.thickness.setToolTip("How thick contours are.")
        self.thickness.valueChanged.connect(self._draw_contours)
        self.opacity = QSlider(Qt.Orientation.Horizontal)
        self.opacity.setRange(0, 100)
        self.opacity.valueChanged.connect(self._set_opacity)
        self.keys_line = note(small=True)
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(SOON_MS)
        self._soon.timeout.connect(self._compare_current)
        self._arrange()
        follow(self, self._workspace.labels_touched, self._on_touched)
        follow(self, self.comparison.ended, self._on_ended)
        self.show_layer(None)

    def _arrange(self) -> None:
        look = form()
        look.addRow(self.contours, self.thickness)
        look.addRow("Opacity", self.opacity)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.modes)
        layout.addWidget(self.reason)
        layout.addWidget(self.organs)
        layout.addLayout(look)
        layout.addWidget(self.keys_line)

    # --- what is shown ------------------------------------------------------------------

    @property
    def layer(self) -> Labels | None:
        """The layer that is shown."""
        return self._layer

    def show_layer(self, layer: Labels | None) -> None:
        """Let the controls stand for this layer from now on."""
        if layer is not self._layer:
            self.comparison.end()
        self._layer = layer
        self.setEnabled(layer is not None)
        if layer is not None and layer not in self._followed:
            self._followed.add(layer)
            for name in ("contour", "opacity", "selected_label", "colormap"):
                follow(self, layer.events[name], self._on_look)
        self._show_look()
        self.refresh()

    def refresh(self) -> None:
        """Look anew whether there is a prediction, and what differs from it."""
        layer = self._layer
        self._prediction = None if layer is None else self._workspace.prediction(layer)
        self.modes.allow(self._prediction is not None)
        if layer is None or self._prediction is not None:
            say(self.reason, "")
        else:
            known = self._workspace.has_baseline(layer)
            say(self.reason, PREDICTION_LOST if known else NO_PREDICTION)
        if self._prediction is None:
            self.comparison.end()
        elif layer is not None and self.comparison.mode != "current":
            self.comparison.catch_up(self._workspace.digests(layer, changed=()))

    def show_mode(self, mode: Mode) -> None:
        """Show the labels alone, or over them what was predicted or what differs from it."""
        if self._layer is None or self._prediction is None or not self.modes.isEnabled():
            return
        self.comparison.show(self._layer, self._prediction, mode)
        self.modes.mark(self.comparison.mode)
        self._hide_unticked()

    def let_go(self) -> None:
        """Show everything again, since nobody could with this widget closed."""
        self._soon.stop()
        self.comparison.end()
        for layer in tuple(self._followed):
            hide_organs(layer, ())

    def _on_touched(self, layer: Labels) -> None:
        if layer is self._layer and not self._soon.isActive():
            self._soon.start()

    def _compare_current(self) -> None:
        if self._layer is not None and self.comparison.mode != "current":
            self.comparison.update(current_slice(self._viewer, self._layer))

    def _on_ended(self) -> None:
        self.modes.mark("current")

    def _on_look(self, event: Any) -> None:
        if event.source is self._layer:
            self._show_look()

    def _show_look(self) -> None:
        layer = self._layer
        if layer is None:
            self.organs.show_organs(())
            return
        self.organs.show_organs(_organs(layer))
        self.organs.show_hidden(hidden_organs(layer), painted=int(layer.selected_label))
        for control, value in (
            (self.thickness, layer.contour or self.thickness.value()),
            (self.opacity, round(100 * layer.opacity)),
        ):
            with QSignalBlocker(control):
                control.setValue(value)
        self.contours.setChecked(layer.contour > 0)

    # --- what the user does -------------------------------------------------------------

    def _hide_unticked(self) -> None:
        for layer in (self._layer, self.comparison.shown):
            if layer is not None and self._is_organs(layer):
                hide_organs(layer, self.organs.unticked)

    def _is_organs(self, layer: Labels) -> bool:
        """Whether the values of a layer are those of organs, and not of a difference."""
        return layer is self._layer or self.comparison.mode == "prediction"

    def _draw_contours(self, _: Any = None) -> None:
        if self._layer is not None:
            self._layer.contour = self.thickness.value() if self.contours.isChecked() else 0

    def _set_opacity(self, percent: int) -> None:
        if self._layer is not None:
            self._layer.opacity = percent / 100

    # --- keys ---------------------------------------------------------------------------

    def toggle_contours(self) -> None:
        """Contours instead of filled organs, and back."""
        self.contours.setChecked(not self.contours.isChecked())
        self._draw_contours()

    def toggle_prediction(self) -> None:
        """What was predicted over the labels, and the labels alone."""
        self.show_mode("current" if self.comparison.mode == "prediction" else "prediction")

    def less_opaque(self) -> None:
        """Let more of the scan shine through."""
        self.opacity.setValue(self.opacity.value() - _STEP)

    def more_opaque(self) -> None:
        """Let less of the scan shine through."""
        self.opacity.setValue(self.opacity.value() + _STEP)

    def next_organ(self) -> None:
        """Paint with the next organ of the table."""
        self._choose_organ(1)

    def previous_organ(self) -> None:
        """Paint with the organ before in the table."""
        self._choose_organ(-1)

    def _choose_organ(self, by: int) -> None:
        layer = self._layer
        if layer is None:
            return
        ids = [organ.id for organ in _organs(layer)]
        here = layer.selected_label
        place = ids.index(here) + by if here in ids else 0
        layer.selected_label = ids[place % len(ids)]

    def show_keys(self, bound: Mapping[str, str]) -> None:
        """Name the keys beside what they do."""
        tips: dict[str, tuple[QWidget, str]] = {
            "toggle_contours": (self.contours, "Draw outlines instead of filled organs."),
            "toggle_prediction": (
                self.modes.buttons["prediction"],
                "Outline what the program had drawn, in lighter colours.",
            ),
            "more_opaque": (self.opacity, "How much the organs cover the scan."),
        }
        for name, (control, tip) in tips.items():
            control.setToolTip(f"{tip} Key: {DISPLAY_KEYS[name]}" if name in bound else tip)
        told = (
            ("contours", ("toggle_contours",)),
            ("prediction", ("toggle_prediction",)),
            ("opacity", ("less_opaque", "more_opaque")),
            ("organ to paint", ("next_organ", "previous_organ")),
        )
        keys = [
            f"{'/'.join(bound[name] for name in names if name in bound)} {what}"
            for what, names in told
            if any(name in bound for name in names)
        ]
        say(self.keys_line, f"Keys: {' · '.join([*keys, '[/] brush size'])}")


def _organs(layer: Labels) -> Sequence[Organ]:
    origin = origin_of(layer.metadata)
    return ORGANS if origin is None else origin.organs


# --- parts ------------------------------------------------------------------------------


class _ModeButtons(QWidget):
    """Current, Prediction or Difference: one of them is pressed."""

    chosen = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.buttons: dict[Mode, QPushButton] = {}
        self._group = QButtonGroup(self)
        for mode in get_args(Mode):
            button = self.buttons[mode] = QPushButton(mode.capitalize())
            button.setCheckable(True)
            button.clicked.connect(self._tell(mode))
            self._group.addButton(button)
        self.buttons["current"].setToolTip("Show the contours as they are now.")
        self.buttons["difference"].setToolTip(
            "Show what was added to the prediction (green) and erased of it (red)."
        )
        self.mark("current")
        row = button_row(*self.buttons.values())
        row.setSpacing(0)
        self.setLayout(row)

    def _tell(self, mode: Mode) -> Callable[..., None]:
        return lambda *_: self.chosen.emit(mode)

    def allow(self, comparing: bool) -> None:
        """Whether there is a prediction to compare with."""
        for mode, button in self.buttons.items():
            button.setEnabled(comparing or mode == "current")

    def mark(self, mode: Mode) -> None:
        """Show which one is on."""
        self.buttons[mode].setChecked(True)


class OrganBoxes(QWidget):
    """A box to tick for each organ that is shown, with its colour; bold: it is painted with."""

    ticked = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.boxes: dict[int, QCheckBox] = {}
        self._organs: tuple[Organ, ...] = ()
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setVerticalSpacing(2)

    @property
    def unticked(self) -> frozenset[int]:
        """Ids of the organs to hide."""
        return frozenset(i for i, box in self.boxes.items() if not box.isChecked())

    def show_organs(self, organs: Sequence[Organ]) -> None:
        """Have one box for each of these organs."""
        if tuple(organs) == self._organs:
            return
        self._organs = tuple(organs)
        for box in self.boxes.values():
            self._grid.removeWidget(box)
            box.hide()  # it is deleted later, and would be drawn over the others until then
            box.deleteLater()
        self.boxes = {organ.id: QCheckBox(organ.title) for organ in organs}
        for place, organ in enumerate(organs):
            box = self.boxes[organ.id]
            box.setIcon(color_icon(organ.color))
            box.setToolTip(f"Show {organ.title.lower()}. Bold: the brush paints it.")
            box.clicked.connect(self._tell)
            self._grid.addWidget(box, *divmod(place, _COLUMNS))

    def show_hidden(self, hidden: Collection[int], *, painted: int) -> None:
        """Tick those that are shown, and mark the one that the brush paints."""
        for identity, box in self.boxes.items():
            box.setChecked(identity not in hidden)
            font = box.font()
            font.setBold(identity == painted)
            box.setFont(font)

    def _tell(self, _checked: bool = False) -> None:
        self.ticked.emit()


# --- hidden organs ----------------------------------------------------------------------


@dataclass
class _Hiding:
    """Colours of a layer whose organs were hidden.

    Parameters
    ----------
    full
        The colours without anything hidden, as whoever set them last did.
    drawn
        Those that the layer was given here.
    """

    full: Any
    drawn: Any = None
    hidden: frozenset[int] = field(default_factory=frozenset)


_hidings: "WeakKeyDictionary[Labels, _Hiding]" = WeakKeyDictionary()


def hidden_organs(layer: Labels) -> frozenset[int]:
    """Ids of the organs that `hide_organs` hid on a layer."""
    hiding = _hidings.get(layer)
    return frozenset() if hiding is None else hiding.hidden


def hide_organs(layer: Labels, ids: Collection[int]) -> None:
    """Show all organs of a layer but these; its voxels stay as they are.

    An organ stays hidden when the layer is given other colours. One that is painted with is
    shown again, since nobody should draw what they do not see.

    Parameters
    ----------
    layer
        Any Labels layer.
    ids
        Values in it, 1 to 255.
    """
    hiding = _hidings.get(layer)
    if hiding is None:
        if not ids:
            return
        hiding = _hidings[layer] = _Hiding(layer.colormap)
        layer.events.colormap.connect(_on_colormap)
        layer.events.paint.connect(_on_paint)
    if frozenset(ids) != hiding.hidden:
        hiding.hidden = frozenset(ids)
        _recolour(layer, hiding)


def _recolour(layer: Labels, hiding: _Hiding) -> None:
    full = hiding.full
    drawn = full if not hiding.hidden else _without(full, hiding.hidden)
    drawn.selection, drawn.use_selection = layer.selected_label, layer.show_selected_label
    hiding.drawn = drawn
    layer.colormap = drawn


def _without(colormap: Any, hidden: Collection[int]) -> DirectLabelColormap:
    """The same colours, with some values transparent."""
    if isinstance(colormap, DirectLabelColormap):
        colors = dict(colormap.color_dict)
    else:  # colours that repeat: each value is told its own
        colors = {value: colormap.map(value) for value in range(_LARGEST_ID + 1)}
        colors[None] = colormap.map(_LARGEST_ID + 1)
    return DirectLabelColormap(
        color_dict={**colors, **dict.fromkeys(hidden, _CLEAR)},
        background_value=colormap.background_value,
    )


def _on_colormap(event: Any) -> None:
    layer = event.source
    hiding = _hidings.get(layer)
    if hiding is not None and layer.colormap is not hiding.drawn:
        hiding.full = layer.colormap
        _recolour(layer, hiding)


def _on_paint(event: Any) -> None:
    layer = event.source
    hidden = hidden_organs(layer)
    if layer.selected_label in hidden:
        hide_organs(layer, hidden - {layer.selected_label})
