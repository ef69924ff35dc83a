"""What a dab of the brush costs on 144×384×384 labels, with more and more widgets open.

A stroke is a row of dabs at the pace of a screen, on one slice after the other. At its end napari
tells everybody who follows the layer; what they put off, and the drawing, is done by the event
loop until the next dab is due. Needs a screen: ``xvfb-run -a python benchmarks/painting.py``.

    python benchmarks/painting.py [--strokes 12] [--record]
"""

import os
import tempfile
import time
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from _bench import finish, shared_options

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import Viewer

SHAPE, SPACING = (144, 384, 384), (3.0, 1.0, 1.0)
DABS, FRAME_S, REST_S = 40, 1 / 60, 1.0
BRUSH = 20  # voxels across


class Dab(NamedTuple):
    """Milliseconds of the GUI thread: in `Labels.paint`, and after it until the next dab."""

    paint: float
    after: float
    computed: float  # of what is after; the rest is waiting


def turns_for(seconds: float) -> np.ndarray:
    """Run the event loop for so long: milliseconds ``(turn, 2)``, by the clock and of CPU."""
    from qtpy.QtWidgets import QApplication

    clocks = time.perf_counter, time.thread_time
    end, turns = time.perf_counter() + seconds, []
    while not turns or time.perf_counter() < end:
        start = [clock() for clock in clocks]
        QApplication.processEvents()
        turns.append([1000 * (clock() - began) for clock, began in zip(clocks, start, strict=True)])
        time.sleep(0.0005)
    return np.array(turns)


def stroke(layer: "Labels", index: int) -> tuple[list[Dab], tuple[float, float]]:
    """Draw a line of dabs across the middle of a slice: each, and its end as of `turns_for`."""
    _, rows, columns = layer.data.shape
    places = np.linspace((0.4 * rows, 0.3 * columns), (0.6 * rows, 0.7 * columns), DABS)
    dabs = []
    with layer.block_history():  # as the mouse does: one step for undo
        for row, column in places:
            start = time.perf_counter()
            layer.paint((index, row, column), layer.selected_label)
            painted = time.perf_counter()
            turns = turns_for(FRAME_S - (painted - start))
            dabs.append(Dab(1000 * (painted - start), *turns.sum(axis=0)))
        ending = time.perf_counter(), time.thread_time()
    ended = time.perf_counter(), time.thread_time()
    return dabs, (1000 * (ended[0] - ending[0]), 1000 * (ended[1] - ending[1]))


def row_of(viewer: "Viewer", layer: "Labels", name: str, strokes: int) -> list[str]:
    """Strokes on slices around the middle; the labels are as before when they are done."""
    from napari_gitract.workspace import go_to_slice

    turns_for(3)  # what a widget does once it is opened
    first = len(layer.data) // 2 - strokes // 2
    dabs: list[Dab] = []
    ends, rests = [], []
    for index in range(first, first + strokes):
        go_to_slice(viewer, layer, index)
        turns_for(0.3)
        drawn, end = stroke(layer, index)
        dabs += drawn
        ends.append(end)
        rests.append(turns_for(REST_S).max(axis=0))
    for _ in range(strokes):
        layer.undo()
    of_dabs = np.percentile(np.array(dabs), (50, 95), axis=0)
    columns = [*of_dabs.T.ravel(), *np.median(ends, axis=0)]
    at_rest = np.max(rests, axis=0)
    return [name, *(f"{ms:.1f}" for ms in columns), *(f"{ms:.0f}" for ms in at_rest)]


def run(strokes: int) -> list[list[str]]:
    """A row with nothing of ours open, and one for each widget that is opened then."""
    import napari
    from napari.layers import Layer

    from gitract.baseline import slice_digests
    from gitract.phantom import abdomen
    from napari_gitract.layers import scan_to_layer, segmentation_to_layer
    from napari_gitract.opening import open_widget

    scan, contours = abdomen(SHAPE, spacing=SPACING)
    baseline = slice_digests(contours.labels().array)
    predicted = replace(contours, provenance={"baseline": baseline})
    viewer = napari.Viewer(show=True)
    image = viewer.add_layer(Layer.create(*scan_to_layer(scan)))
    layer = viewer.add_layer(Layer.create(*segmentation_to_layer(predicted, image)))
    layer.brush_size, layer.selected_label, layer.mode = BRUSH, 1, "paint"
    rows = [row_of(viewer, layer, "nothing of ours", strokes)]
    review = open_widget(viewer, "Review")
    rows.append(row_of(viewer, layer, "and Review", strokes))
    review.display.show_mode("difference")
    assert review.display.comparison.mode == "difference"
    rows.append(row_of(viewer, layer, "and its difference", strokes))
    review.show_views()
    rows.append(row_of(viewer, layer, "and its three views", strokes))
    open_widget(viewer, "Measure")
    rows.append(row_of(viewer, layer, "and Measure", strokes))
    open_widget(viewer, "Fine-tune")
    rows.append(row_of(viewer, layer, "and Fine-tune", strokes))
    viewer.close()
    return rows


def main() -> None:
    parser = shared_options(__doc__)
    parser.add_argument("--strokes", type=int, default=12)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["GITRACT_HOME"] = home  # the user's own edits and models stay out of this
        rows = run(options.strokes)
    slices, height, width = SHAPE
    finish(
        "Painting",
        ["open", "paint, median (ms)", "95 %", "event loop, median (ms)", "95 %",
         "of CPU, median (ms)", "95 %", "end of a stroke, median (ms)", "of CPU (ms)",
         "longest turn at rest (ms)", "of CPU (ms)"],
        rows,
        f"A dab of {BRUSH} voxels on labels of {slices}×{height}×{width}, {options.strokes} "
        f"strokes of {DABS} dabs: time in `Labels.paint`, of all that the event loop does "
        "until the next dab, drawing included, and of a stroke's end, when napari tells of it. "
        "At rest: what is looked at once a stroke is done. "
        "The aim is under 10 ms for a dab and for a stroke's end beyond what napari itself takes.",
        options,
    )  # fmt: skip


if __name__ == "__main__":
    main()
