"""The longest gap between ticks of a 5 ms timer on the GUI thread while jobs run.

A gap is time in which the window does not answer. The real widgets run the real jobs on a
DICOM series: it is loaded, segmented, checked, measured, compared with a second day (the
same scan, moved), exported, segmented by two models, and the model is fine-tuned on slices
that were changed as with the brush. The same timer in an idle window, and while napari
itself adds and removes a layer, is there for comparison. Needs a screen:
``xvfb-run -a python benchmarks/responsiveness.py``.

    python benchmarks/responsiveness.py [--scan FOLDER] [--record]
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from _bench import finish, shared_options

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import Viewer

    from gitract.scan import Scan

TICK_MS = 5
SHAPE, SPACING = (144, 266, 266), (3.0, 1.5, 1.5)
MOVED = (4, 7)  # rows and columns, between the days
LOADED = """
import gitract.fine_tune, gitract.io, gitract.model_comparison, gitract.remote.client
import highdicom, matplotlib.pyplot, napari, pandas, SimpleITK
"""
OPEN = ("Load scan", "Segment", "Review", "Fine-tune", "Measure", "Treatment days", "Export")


class Ticks:
    """Gaps between the ticks of a timer, and what the GUI thread computed in them; in seconds."""

    def __init__(self) -> None:
        from qtpy.QtCore import Qt, QTimer

        self.gaps: list[tuple[float, float]] = []
        self._last = time.perf_counter(), time.thread_time()
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(TICK_MS)
        self._timer.timeout.connect(self._tick)
        self._timer.start()

    def _tick(self) -> None:
        now = time.perf_counter(), time.thread_time()
        self.gaps.append((now[0] - self._last[0], now[1] - self._last[1]))
        self._last = now

    def row(self, name: str, seconds: float) -> list[str]:
        """Longest gap, most that was computed in one, 99th percentile of gaps, and duration."""
        self._timer.stop()
        self._tick()  # a gap may have lasted until now
        gaps, computed = 1000 * np.array(self.gaps).T
        figures = gaps.max(), computed.max(), np.percentile(gaps, 99)
        return [name, *(f"{ms:.0f}" for ms in figures), f"{seconds:.1f}"]


def watch(name: str, running: Callable[[], bool], *, start: Callable[[], Any]) -> list[str]:
    """Start something, run the event loop while it runs, and time the gaps.

    What follows within a second, such as drawing what came of it, counts as well.
    """
    from qtpy.QtWidgets import QApplication

    ticks, began = Ticks(), time.perf_counter()
    start()
    ended = time.perf_counter()
    while running() or time.perf_counter() < ended + 1:
        QApplication.processEvents()
        time.sleep(0.0005)
        if running():
            ended = time.perf_counter()
    return ticks.row(name, ended - began)


def rest(seconds: float) -> None:
    """Run the event loop for some time."""
    from qtpy.QtWidgets import QApplication

    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        QApplication.processEvents()
        time.sleep(0.0005)


class Tour:
    """Each job of the widgets in one window; each method gives a row, or several.

    Parameters
    ----------
    viewer
        With nothing open.
    days
        Two days of one patient, as DICOM series.
    folder
        For what is exported.
    """

    def __init__(self, viewer: "Viewer", days: list[Path], folder: Path) -> None:
        from napari_gitract.opening import open_widget

        self.viewer, self.days, self.folder = viewer, days, folder
        self.widgets = {name: open_widget(viewer, name) for name in OPEN}
        rest(2)

    def rows(self) -> Iterator[list[str]]:
        """All rows, in the order in which a user would come to them."""
        yield watch("idle", lambda: False, start=lambda: rest(2))
        yield from self.load()
        yield from self.segment()
        yield from self.napari_itself()
        yield from self.look()
        yield from self.compare_days()
        yield from self.export()
        yield from self.compare_models()
        yield self.fine_tune()

    def load(self) -> Iterator[list[str]]:
        load: Any = self._front("Load scan")
        for place, day in zip(("", " of a second day"), self.days, strict=True):
            load.path.setText(str(day))
            yield watch(f"loading a DICOM series{place}", lambda: load.busy, start=load.load)

    def napari_itself(self) -> Iterator[list[str]]:
        """Napari adds and removes a layer; our widgets take no notice of one that is a map."""
        from napari_gitract.layers import MAP_KEY, transform_of

        image = self.viewer.layers[0]
        labels, about = np.zeros(image.data.shape, np.uint8), {MAP_KEY: "of nothing"}
        add = partial(self.viewer.add_labels, labels, metadata=about, **transform_of(image))
        for what, start in (("adds", add), ("removes", self.viewer.layers.pop)):
            yield watch(f"napari itself {what} a Labels layer", lambda: False, start=start)

    def segment(self) -> Iterator[list[str]]:
        """Both days."""
        segment: Any = self._front("Segment")
        first, second = self.viewer.layers[:2]
        for name, image in (
            ("segmenting (loading torch and the model included)", second),
            ("segmenting again", first),
        ):
            segment.image.layer = image
            yield watch(name, lambda: segment.busy, start=segment.segment)

    @property
    def labels(self) -> "Labels":
        """The contours of the first day."""
        segment: Any = self.widgets["Segment"]
        return segment.result

    def look(self) -> Iterator[list[str]]:
        """What Review and Measure find out."""
        review: Any = self._front("Review")
        checks = review.checks
        yield watch("checking contours", lambda: checks.busy, start=checks.check)
        yield watch(
            "showing the difference", lambda: False,
            start=partial(review.display.show_mode, "difference"),
        )  # fmt: skip
        yield watch(
            "showing it no more", lambda: False, start=partial(review.display.show_mode, "current")
        )
        measure: Any = self._front("Measure")
        yield watch("measuring", lambda: measure.busy, start=measure.measure)

    def compare_days(self) -> Iterator[list[str]]:
        days: Any = self._front("Treatment days")
        for name, start in (
            ("comparing two days (loading SimpleITK included)", days.compare),
            ("laying a day over another", days.overlay.click),
            ("taking the overlay away", days.overlay.click),
            ("laying days side by side", days.beside.click),
            ("taking them away", days.beside.click),
            ("starting from the earlier contours", days.start_from_earlier),
        ):
            yield watch(name, lambda: days.busy, start=start)
        self.viewer.layers.pop()  # what was started

    def export(self) -> Iterator[list[str]]:
        """A file written and read back; what will be written is looked at before."""
        export: Any = self._front("Export")
        export.choice.labels.layer = self.labels
        for suffix in (".nii.gz", ".seg.dcm", ".rtstruct.dcm"):
            yield watch(
                f"previewing {suffix}",
                lambda: export.preview is None,
                start=partial(export.choice.choose_format, suffix),
            )
            target = self.folder / f"contours{suffix}"
            yield watch(
                f"exporting {suffix} and reading it back",
                lambda: export.busy,
                start=partial(export.export, target),
            )

    def compare_models(self) -> Iterator[list[str]]:
        add_second_model()
        models: Any = self._front("Models")
        models.compare_section.expand(animate=False)
        models.compare.image.layer = self.viewer.layers[0]
        rest(1)
        yield watch("comparing two models", lambda: models.busy, start=models.compare.compare)
        self.viewer.layers.pop()  # of where they differ

    def fine_tune(self) -> list[str]:
        from gitract.fine_tune import FineTuneSettings

        labels = self.labels
        slices, rows, columns = (size // 2 for size in labels.data.shape)
        square = np.mgrid[rows - 15 : rows + 15, columns - 15 : columns + 15]
        down, across = (axis.ravel() for axis in square)
        for index in (slices - 8, slices, slices + 8):
            labels.data_setitem((np.full_like(down, index), down, across), 3)
        tune: Any = self._front("Fine-tune")
        tune.labels.layer = labels
        tune.settings = FineTuneSettings(steps=24, evaluate_every=8, parts=2)
        rest(1)
        return watch("fine-tuning on 3 slices", lambda: tune.busy, start=tune.start)

    def _front(self, name: str) -> Any:
        """The widget of this name, brought to the front."""
        from napari_gitract.opening import open_widget

        widget = open_widget(self.viewer, name)
        rest(1)
        return widget


def add_second_model() -> None:
    """Install a copy of the model that ships, so that there are two to compare."""
    from gitract.model_store import ModelStore
    from napari_gitract.workspace import model_events

    store = ModelStore()
    shipped = store.active().path

    def write(folder: Path) -> None:
        shutil.copytree(shipped, folder)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        text = json.dumps({**config, "id": "copy"})
        (folder / "config.json").write_text(text, encoding="utf-8")

    store.add("copy", write)
    model_events.changed.emit()


def compile_before(folder: Path) -> None:
    """Compile what will be loaded, as an installation does: it holds every thread of Python."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(folder)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run([sys.executable, "-c", LOADED], env=environment, check=True)
    sys.pycache_prefix = str(folder)


def two_days(scan: "Scan", folder: Path) -> list[Path]:
    """A scan, and the same moved, as DICOM series of one patient."""
    from gitract.io import write_scan

    case = scan.name.split("_")[0]
    moved = np.roll(scan.voxels, MOVED, axis=(1, 2))
    days = (
        replace(scan, name=f"{case}_day0"),
        replace(scan, voxels=moved, name=f"{case}_day1"),
    )
    return [write_scan(day, folder / f"{day.name}.dcm") for day in days]


def run(scan_folder: Path | None, folder: Path) -> list[list[str]]:
    """Rows for each job."""
    import napari

    from gitract.io import read_scan
    from gitract.phantom import abdomen

    scan = abdomen(SHAPE, spacing=SPACING)[0] if scan_folder is None else read_scan(scan_folder)
    days = two_days(scan, folder)
    viewer = napari.Viewer(show=True)
    rows = []
    for row in Tour(viewer, days, folder).rows():
        print(*row, sep=" | ", flush=True)  # it takes minutes
        rows.append(row)
    viewer.close()
    return rows


def main() -> None:
    parser = shared_options(__doc__)
    parser.add_argument("--scan", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["GITRACT_HOME"] = home  # the user's own models stay out of this
        compile_before(Path(home) / "compiled")
        rows = run(options.scan, Path(home))
    finish(
        "Responsiveness",
        ["while", "longest gap (ms)", "of CPU (ms)", "99th percentile (ms)", "lasted (s)"],
        rows,
        f"Gaps between ticks of a {TICK_MS} ms timer on the GUI thread, on "
        f"{options.scan.name if options.scan else f'a phantom of {SHAPE[0]} slices'}, up to a "
        "second after the job's end. Of CPU: the most that the GUI thread itself computed in one; "
        "the rest is waiting, for Python's lock or for a busy machine. "
        "The aim is 50 ms beyond what napari itself takes to add or to remove a layer: then it "
        "looks through all that is loaded for garbage.",
        options,
    )


if __name__ == "__main__":
    main()
