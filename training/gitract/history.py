"""The numbers of a training, epoch by epoch: a table and its curves."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gitract.replacing import replaced_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["CURVES_FILE", "METRICS_FILE", "curves_figure", "read_history", "write_history"]

METRICS_FILE = "metrics.csv"
CURVES_FILE = "curves.png"
_INK = "#333333"

Row = dict[str, float]


def write_history(
    rows: Sequence[Row], folder: Path, colours: Mapping[str, str] | None = None
) -> None:
    """Write ``metrics.csv`` and ``curves.png`` into `folder`, each beside and renamed.

    Parameters
    ----------
    rows
        One an epoch, each with ``step``, and ``loss``, ``dice`` ... as far as measured.
    folder
        Made where it is not there.
    colours
        Of the curves, by organ name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for row in rows for name in row))
    with (
        replaced_file(folder / METRICS_FILE) as partial,
        partial.open("w", newline="", encoding="utf-8") as file,
    ):
        table = csv.DictWriter(file, names)
        table.writeheader()
        table.writerows(rows)
    with replaced_file(folder / CURVES_FILE) as partial:
        curves_figure(rows, colours).savefig(partial, format="png", dpi=150)


def read_history(path: Path) -> list[Row]:
    """The rows of a ``metrics.csv``."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {name: float(value) for name, value in row.items() if value}
            for row in csv.DictReader(file)
        ]


def curves_figure(rows: Sequence[Row], colours: Mapping[str, str] | None = None) -> "Figure":
    """Training loss, and Dice of the held-out patients, by step.

    Parameters
    ----------
    rows
        Of a ``metrics.csv``.
    colours
        Colour by organ name.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _curve(left, rows, "loss", _INK)
    left.set(xlabel="step", ylabel="training loss")
    for name in dict.fromkeys(name for row in rows for name in row if name.startswith("dice")):
        organ = name.removeprefix("dice").removeprefix("_")
        colour = (colours or {}).get(organ) if organ else _INK
        _curve(right, rows, name, colour, organ.replace("_", " ") or "mean")
    right.set(xlabel="step", ylabel="Dice, held out", ylim=(0, 1))
    if right.lines:
        right.legend(frameon=False, fontsize="small")
    else:
        right.text(0.5, 0.5, "nobody is held out", ha="center", transform=right.transAxes)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _curve(
    axes: "Axes", rows: Sequence[Row], name: str, colour: str | None, label: str = ""
) -> None:
    points = [(row["step"], row[name]) for row in rows if name in row]
    if points:
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, color=colour, label=label, marker="o", markersize=2.5)
