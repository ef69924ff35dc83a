"""The live curves of a training: loss, and Dice on slices that are held out.

matplotlib costs half a second to import: the training's own thread does that, and the
canvas is made at the first value.
"""

from collections.abc import Iterable
from math import nan
from typing import Any

from qtpy.QtCore import QElapsedTimer, QEvent
from qtpy.QtWidgets import QVBoxLayout, QWidget

from gitract.progress import Progress
from napari_gitract.widgets._painting import Shades

__all__ = ["Curves", "import_matplotlib"]

REDRAW_MS = 400
_COLORS = {"loss": "#e8b13a", "dice": "#3f9ddb"}


def import_matplotlib() -> None:
    """Import what `Curves` needs, from a thread other than the GUI's."""
    import matplotlib.backends.backend_qtagg  # noqa: F401
    import matplotlib.figure  # noqa: F401


class Curves(QWidget):
    """Two small plots over the steps of a training, with a gap between its parts.

    A part is what the messages name before their colon: each check is a training of its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self._canvas: Any = None
        self._lines: dict[str, Any] = {}
        self._drawn = QElapsedTimer()
        self.values: dict[str, tuple[list[float], list[float]]] = {}
        self.parts: dict[str, int] = {}
        """The parts, and the step that each began at."""
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self.setFixedHeight(150)
        self.setToolTip(
            "Each check is a training of its own, with other slices held out; the last one, on "
            "all slices, has no Dice."
        )
        self.clear()

    def clear(self) -> None:
        """Forget the last training."""
        self.values = {"loss": ([], []), "dice": ([], [])}
        self.parts = {}
        self.setVisible(False)

    def add(self, messages: Iterable[Progress]) -> None:
        """Add the values of these messages; redraw a few times a second at most."""
        fresh = False
        for message in messages:
            for name in self.values.keys() & message.values.keys():
                self._begin_part(message)
                self._add(name, message.done, message.values[name])
                fresh = True
        due = not self._drawn.isValid() or self._drawn.elapsed() >= REDRAW_MS
        if fresh and due:
            self.draw()

    def _begin_part(self, message: Progress) -> None:
        """Leave a gap in all lines where a message is the first of a part."""
        part = message.message.partition(":")[0]
        if part in self.parts:
            return
        if self.parts:
            for name in self.values:
                self._add(name, message.done, nan)
        self.parts[part] = message.done

    def _add(self, name: str, step: int, value: float) -> None:
        steps, values = self.values[name]
        steps.append(step)
        values.append(value)

    def draw(self) -> None:
        """Show every value so far."""
        if not any(values for _, values in self.values.values()):
            return
        if self._canvas is None:
            self._make_canvas()
        self.setVisible(True)
        for name, line in self._lines.items():
            line.set_data(*self.values[name])
            line.axes.relim()
            line.axes.autoscale_view()
            line.axes.set_xticks(list(self.parts.values())[1:], minor=True)
        self._canvas.draw_idle()
        self._drawn.start()

    def _make_canvas(self) -> None:
        from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
        from matplotlib.figure import Figure

        # Fixed margins: a layout that is worked out anew stalls the window at each redraw.
        margins = {"left": 0.19, "right": 0.97, "top": 0.96, "bottom": 0.27, "hspace": 0.3}
        figure = Figure()
        loss_axes, dice_axes = figure.subplots(2, 1, sharex=True, gridspec_kw=margins)
        (loss_line,) = loss_axes.plot([], [], linewidth=1.2)
        (dice_line,) = dice_axes.plot([], [], marker=".", linewidth=1.2)
        self._lines = {"loss": loss_line, "dice": dice_line}
        dice_axes.set_xlabel("step", fontsize=8)
        dice_axes.xaxis.get_major_locator().set_params(integer=True)
        for axes, title in ((loss_axes, "loss"), (dice_axes, "held-out Dice")):
            axes.set_ylabel(title, fontsize=8)
            axes.tick_params(labelsize=7)
            axes.tick_params(which="minor", length=0)
            axes.spines[["top", "right"]].set_visible(False)
        self._canvas = FigureCanvasQTAgg(figure)
        self._color()
        layout = self.layout()
        assert layout is not None
        layout.addWidget(self._canvas)

    def _color(self) -> None:
        """Take the colours of the theme."""
        shades = Shades.of(self)
        ground, text, grid = (one.name() for one in (shades.ground, shades.text, shades.grid))
        self._canvas.figure.set_facecolor(ground)
        for name, line in self._lines.items():
            axes = line.axes
            line.set_color(shades.visible(_COLORS[name]).name())
            axes.set_facecolor(ground)
            axes.tick_params(colors=text)
            axes.grid(which="minor", axis="x", color=grid)
            axes.spines[["left", "bottom"]].set_color(text)
            for label in (axes.xaxis.label, axes.yaxis.label):
                label.set_color(text)

    def changeEvent(self, event: QEvent | None) -> None:  # noqa: N802 - Qt's name
        """Follow the theme."""
        super().changeEvent(event)
        if event is not None and event.type() == QEvent.Type.PaletteChange and self._canvas:
            self._color()
            self._canvas.draw_idle()
