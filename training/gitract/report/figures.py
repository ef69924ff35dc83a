"""The pictures of a report, as bytes of PNG or SVG files.

Figures are made without pyplot: nothing is shown, and nothing stays behind.
"""

import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke

from gitract.evaluation import Evaluation, SliceScore
from gitract.history import Row, curves_figure
from gitract.organs import Organ
from gitract.slice_pictures import SlicePicture

__all__ = [
    "PREDICTION_COLOR",
    "curves_svg",
    "picture_png",
    "stack_figures",
    "stacks_svg",
    "volumes_svg",
]

PREDICTION_COLOR = "#ffffff"

_WIDTH = 9.6  # inches: the width of the page at 100 dots
_INK = "#2b3640"
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": "#9aa5b1",
    "axes.labelcolor": _INK,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "font.family": "sans-serif",
    "font.size": 9,
    "grid.color": "#e4e8ec",
    "svg.hashsalt": "gitract",
    "text.color": _INK,
    "xtick.color": _INK,
    "xtick.labelsize": 8,
    "ytick.color": _INK,
    "ytick.labelsize": 8,
}
_PER_FIGURE = 12
_COLUMNS = 3
_FEWEST_SLICES = 4


@contextmanager
def _figure(width: float, height: float, **options: Any) -> Iterator[Figure]:
    with matplotlib.rc_context(_STYLE):
        yield Figure(figsize=(width, height), **options)


def _bytes(figure: Figure, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    figure.savefig(buffer, format=kind, metadata=metadata, **options)
    return buffer.getvalue()


def picture_png(picture: SlicePicture) -> bytes:
    """A slice with the contours of truth (the organ's colour) and prediction (white)."""
    rows, columns = picture.grey.shape
    row_mm, column_mm = picture.pixel_mm
    height_mm, width_mm = rows * row_mm, columns * column_mm
    width = 3.2
    with _figure(width, width * height_mm / width_mm) as figure:
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_axis_off()
        axes.imshow(
            picture.grey, cmap="gray", vmin=0, vmax=255, interpolation="bilinear",
            extent=(0, width_mm, height_mm, 0), aspect="auto",
        )  # fmt: skip
        _contour(axes, picture.truth, picture.pixel_mm, picture.organ.color, 2.0)
        _contour(axes, picture.prediction, picture.pixel_mm, PREDICTION_COLOR, 1.2)
        axes.set(xlim=(0, width_mm), ylim=(height_mm, 0))
        return _bytes(figure, "png", dpi=150)


def _contour(
    axes: Axes, mask: np.ndarray, pixel_mm: tuple[float, float], color: str, line: float
) -> None:
    if not mask.any():
        return
    padded = np.pad(mask, 1).astype(float)  # so that a contour at the edge closes
    row, column = ((np.arange(n) - 0.5) * mm for n, mm in zip(padded.shape, pixel_mm, strict=True))
    found = axes.contour(column, row, padded, levels=[0.5], colors=[color], linewidths=line)
    found.set_path_effects([Stroke(linewidth=line + 1.2, foreground="#000000a0"), Normal()])


def volumes_svg(evaluation: Evaluation) -> bytes:
    """Predicted against true volumes, an axes for each organ, with the line of identity."""
    count = len(evaluation.organs)
    with _figure(_WIDTH, 0.4 + _WIDTH / max(3, count), layout="constrained") as figure:
        for axes, organ in zip(
            figure.subplots(1, max(3, count), squeeze=False)[0], evaluation.organs, strict=False
        ):
            _volumes(axes, evaluation, organ)
        for axes in figure.axes[count:]:
            axes.set_axis_off()
        return _bytes(figure, "svg")


def _volumes(axes: Axes, evaluation: Evaluation, organ: Organ) -> None:
    own = [score for score in evaluation.scores if score.organ == organ.name]
    true, found = [s.true_volume_ml for s in own], [s.volume_ml for s in own]
    end = 1.08 * max(*true, *found, 1.0)
    axes.plot([0, end], [0, end], color="#9aa5b1", linewidth=1, linestyle=(0, (4, 3)))
    axes.scatter(true, found, s=28, color=organ.color, edgecolor="white", linewidth=0.6, zorder=3)
    axes.set(
        xlim=(0, end), ylim=(0, end), aspect="equal", title=organ.title,
        xlabel="true volume, mL", ylabel="predicted, mL",
    )  # fmt: skip
    axes.grid(visible=True)
    axes.set_axisbelow(True)


def stack_figures(evaluation: Evaluation) -> list[list[str]]:
    """The scans that are worth a curve along their slices, by figure."""
    slices: dict[str, set[int]] = {}
    for score in evaluation.slices:
        slices.setdefault(score.scan, set()).add(score.slice)
    scans = [scan for scan, found in slices.items() if len(found) >= _FEWEST_SLICES]
    return [scans[first : first + _PER_FIGURE] for first in range(0, len(scans), _PER_FIGURE)]


def stacks_svg(evaluation: Evaluation, scans: Sequence[str]) -> bytes:
    """Dice of each organ along the slices of some scans."""
    columns = min(_COLUMNS, len(scans))
    rows = -(-len(scans) // columns)
    curves: dict[tuple[str, str], list[SliceScore]] = defaultdict(list)
    for score in evaluation.slices:
        curves[score.scan, score.organ].append(score)
    with _figure(_WIDTH, 0.5 + 1.75 * rows, layout="constrained") as figure:
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for axes, scan in zip(grid.flat, scans, strict=False):
            for organ in evaluation.organs:
                _along(axes, curves[scan, organ.name], organ)
            axes.set(title=scan, ylim=(-0.04, 1.04))
            axes.grid(visible=True)
        for axes in grid.flat[len(scans) :]:
            axes.set_axis_off()
        for axes in grid[:, 0]:
            axes.set_ylabel("Dice")
        for axes in grid[-1]:
            axes.set_xlabel("slice")
        handles = {
            label: handle
            for axes in figure.axes
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            handles.values(), handles.keys(), loc="outside upper left", ncols=6, frameon=False
        )
        return _bytes(figure, "svg")


def _along(axes: Axes, scores: Sequence[SliceScore], organ: Organ) -> None:
    """One organ's Dice; a gap where it is nowhere, or where slices are missing."""
    if not scores:
        return
    places = np.array([score.slice for score in scores])
    dice = np.full(places.max() + 1, np.nan)
    dice[places] = [np.nan if score.dice is None else score.dice for score in scores]
    axes.plot(dice, color=organ.color, linewidth=1.4, marker=".", markersize=2.5,
              label=organ.title)  # fmt: skip


def curves_svg(history: Sequence[Row], organs: Sequence[Organ]) -> bytes:
    """Loss, and Dice of the held-out patients, along the steps of a training."""
    return _bytes(curves_figure(history, {organ.name: organ.color for organ in organs}), "svg")
