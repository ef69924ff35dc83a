"""The longest gap between ticks of a 5 ms timer on the GUI thread while jobs run.

A gap is time in which the window does not answer. The real widgets run the real jobs: a
stack is segmented, slices are changed as with the brush, and the model is fine-tuned.
The same timer in an idle window is measured first, for comparison. Needs a screen:
``xvfb-run -a python benchmarks/responsiveness.py``.

    python benchmarks/responsiveness.py [--scan FOLDER] [--record]
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from _bench import finish

TICK_MS = 5


class Ticks:
    """Gaps between the ticks of a timer, in milliseconds."""

    def __init__(self) -> None:
        from qtpy.QtCore import Qt, QTimer

        self.gaps: list[float] = []
        self._last = time.perf_counter()
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(TICK_MS)
        self._timer.timeout.connect(self._tick)
        self._timer.start()

    def _tick(self) -> None:
        now = time.perf_counter()
        self.gaps.append(1000 * (now - self._last))
        self._last = now

    def row(self, name: str, seconds: float) -> list[str]:
        """Longest gap, 99th percentile and duration."""
        self._timer.stop()
        ordered = sorted(self.gaps)
        high = ordered[int(0.99 * (len(ordered) - 1))]
        return [name, f"{ordered[-1]:.0f}", f"{high:.0f}", f"{seconds:.1f}"]


def watch(name: str, running: Callable[[], bool]) -> list[str]:
    """Run the event loop while `running`, and time the gaps."""
    from qtpy.QtWidgets import QApplication

    ticks, start = Ticks(), time.perf_counter()
    while running():
        QApplication.processEvents()
        time.sleep(0.0005)
    return ticks.row(name, time.perf_counter() - start)


def until(seconds: float) -> Callable[[], bool]:
    """True until so many seconds have passed from now on."""
    end = time.perf_counter() + seconds
    return lambda: time.perf_counter() < end


def run(scan_folder: Path | None) -> list[list[str]]:
    """Rows for idle, segmenting and fine-tuning."""
    import napari
    from qtpy.QtCore import QTimer

    from gitract.phantom import abdomen, write_day
    from napari_gitract.widgets.fine_tune import FineTune
    from napari_gitract.widgets.segment import Segment

    if scan_folder is None:
        scan, _ = abdomen((144, 266, 266), spacing=(3.0, 1.5, 1.5))
        scan_folder = write_day(Path(os.environ["GITRACT_HOME"]) / "phantom", scan)
    viewer = napari.Viewer(show=True)
    viewer.open(str(scan_folder), plugin="napari-gitract")
    segment, fine_tune = Segment(viewer), FineTune(viewer)
    viewer.window.add_dock_widget(segment, name="Segment")
    viewer.window.add_dock_widget(fine_tune, name="Fine-tune", tabify=True)
    rows = [watch("idle", until(3))]
    segment.segment()
    rows.append(watch("segmenting (loading torch and the model included)", lambda: segment.busy))
    segment.segment()
    rows.append(watch("segmenting again", lambda: segment.busy))
    labels = viewer.layers[-1]
    QTimer.singleShot(200, partial(viewer.add_labels, np.zeros_like(labels.data)))
    rows.append(watch("napari itself adds a Labels layer", until(1)))
    viewer.layers.pop()
    viewer.layers.selection.active = labels
    middle = len(labels.data) // 2
    down, across = (axis.ravel() for axis in np.mgrid[100:130, 100:130])
    for index in (middle - 12, middle, middle + 12):
        labels.data_setitem((np.full_like(down, index), down, across), 3)
    fine_tune.review.refresh()
    fine_tune.start()
    rows.append(watch("fine-tuning on 3 slices", lambda: fine_tune.busy))
    viewer.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scan", type=Path)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["GITRACT_HOME"] = home  # the user's own models stay out of this
        rows = run(options.scan)
    finish(
        "Responsiveness",
        ["while", "longest gap (ms)", "99th percentile (ms)", "lasted (s)"],
        rows,
        f"Gaps between ticks of a {TICK_MS} ms timer on the GUI thread, on "
        f"{options.scan.name if options.scan else 'a phantom'} of 144 slices. "
        "The aim is 50 ms beyond what napari itself takes for a new layer. The first job loads "
        "torch, whose largest library holds every thread of Python while the system maps it.",
        record=options.record,
        json_file=options.json,
    )


if __name__ == "__main__":
    main()
