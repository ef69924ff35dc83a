"""The live curves of a training: loss, and Dice on slices that are held out.

matplotlib costs half a second to import: the training's own thread does that, and the
canvas is made at the first value.
"""

from collections.abc import Iterable
from typing import Any

from qtpy.QtCore import QElapsedTimer
from qtpy.QtWidgets import QVBoxLayout, QWidget

from gitract.progress import Progress

__all__ = ["Curves", "import_matplotlib"]

REDRAW_MS = 400
LOSS_COLOR, DICE_COLOR = "#e8b13a", "#3f9ddb"


def import_matplotlib() -> None:
    """Import what `Curves` needs, from a thread other than the GUI's."""
    import matplotlib.backends.backend_qtagg  # noqa: F401
    import matplotlib.figure  # noqa: F401


class Curves(QWidget):
    """Two small plots over the steps of a training.

    Parameters
    ----------
    background, text
        Colours of the viewer's theme.
    """

    def __init__(self, background: str, text: str) -> None:
        super().__init__()
        self._colors = background, text
        self._canvas: Any = None
        self._lines: dict[str, Any] = {}
        self._drawn = QElapsedTimer()
        self.values: dict[str, tuple[list[float], list[float]]] = {}
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self.setFixedHeight(150)
        self.clear()

    def clear(self) -> None:
        """Forget the last training."""
        self.values = {"loss": ([], []), "dice": ([], [])}
        self.setVisible(False)

    def add(self, messages: Iterable[Progress]) -> None:
        """Add the values of these messages; redraw a few times a second at most."""
        fresh = False
        for message in messages:
            for name in self.values.keys() & message.values.keys():
                steps, values = self.values[name]
                steps.append(message.done)
                values.append(message.values[name])
                fresh = True
        due = not self._drawn.isValid() or self._drawn.elapsed() >= REDRAW_MS
        if fresh and due:
            self.draw()

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
        self._canvas.draw_idle()
        self._drawn.start()

    def _make_canvas(self) -> None:
        from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
        from matplotlib.figure import Figure

        background, text = self._colors
        # Fixed margins: a layout that is worked out anew stalls the window at each redraw.
        margins = {"left": 0.19, "right": 0.97, "top": 0.96, "bottom": 0.27, "hspace": 0.3}
        figure = Figure(facecolor=background)
        loss_axes, dice_axes = figure.subplots(2, 1, sharex=True, gridspec_kw=margins)
        (loss_line,) = loss_axes.plot([], [], color=LOSS_COLOR, linewidth=1.2)
        (dice_line,) = dice_axes.plot([], [], color=DICE_COLOR, marker=".", linewidth=1.2)
        self._lines = {"loss": loss_line, "dice": dice_line}
        dice_axes.set_xlabel("step", fontsize=8, color=text)
        dice_axes.xaxis.get_major_locator().set_params(integer=True)
        for axes, title in ((loss_axes, "loss"), (dice_axes, "held-out Dice")):
            axes.set_ylabel(title, fontsize=8, color=text)
            axes.set_facecolor(background)
            axes.tick_params(labelsize=7, colors=text)
            axes.spines[["top", "right"]].set_visible(False)
            axes.spines[["left", "bottom"]].set_color(text)
        self._canvas = FigureCanvasQTAgg(figure)
        layout = self.layout()
        assert layout is not None
        layout.addWidget(self._canvas)
