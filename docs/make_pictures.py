"""Go through the whole program as a user does, and photograph it: ``python docs/make_pictures.py``.

One window, one phantom: every step presses the buttons that a user presses, checks what came of
it, and takes the picture of the guide that shows it. A step that fails is named, failed.png shows
the window as it was then, and the exit code is 1. Needs a screen; without one run it under
``xvfb-run -a -s "-screen 0 1366x768x24"``. Models and settings are kept
in a temporary folder, so whoever runs it keeps their own.

    python docs/make_pictures.py [--to FOLDER]
"""

import argparse
import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

PICTURES = Path(__file__).parent / "pictures"
SIZE = (1366, 768)
"""Of a small laptop's screen, in pixels."""
PATIENCE_S = 600.0
DAY, LATER = "case0_day0", "case0_day7"
SHOWN = 26
"""A slice through both bowels."""
PAINTED = (16, 22, 28)
"""Slices that are corrected stroke by stroke."""
CORRECTED = (10, 13, 18, 20, 24, 26, 31, 34, 38, 42)
"""Slices that are corrected at once: strokes would take too long for all."""
KEPT = "our-hospital"
BRUSH, ERASER = 3, 0


def main() -> None:
    """Go through all steps; exit with 1 at the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=PICTURES, help="folder for the pictures")
    pictures = parser.parse_args().to.resolve()
    pictures.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        os.environ["GITRACT_HOME"] = home
        os.environ["NAPARI_CONFIG"] = str(Path(home) / "napari.yaml")
        sys.exit(1 if go(Path(home), pictures) else 0)


def go(folder: Path, pictures: Path) -> str:
    """Go through the steps; the name of the one that failed, or nothing."""
    import napari

    tour = Tour(napari.Viewer(), folder, pictures)
    tour.viewer.window.resize(*SIZE)
    sys.excepthook = tour.note_error  # what a slot of Qt raises comes here
    try:
        for step in STEPS:
            start = time.monotonic()
            try:
                step(tour)
                spin(0.2)
                assert not tour.errors, tour.errors
            except Exception:  # noqa: BLE001 - told, whatever it was
                traceback.print_exc()
                print(f"The tour fails at: {step.__name__}", file=sys.stderr)
                tour.picture("failed")
                return step.__name__
            print(f"{step.__name__}: {time.monotonic() - start:.0f} s", flush=True)
    finally:
        tour.viewer.close()
        spin(0.2)
    return ""


class Tour:
    """The window, and what the steps hand on to each other.

    Parameters
    ----------
    viewer
        An empty one.
    folder
        Where data and models are written.
    pictures
        Where the pictures go.
    """

    def __init__(self, viewer: Any, folder: Path, pictures: Path) -> None:
        from napari.utils.notifications import notification_manager

        from gitract.phantom import abdomen, write_day

        self.viewer = viewer
        self.folder = folder
        self.pictures = pictures
        self.errors: list[str] = []
        self.scan, self.truth = abdomen(name=DAY)
        self.day = write_day(folder / "phantom", self.scan, self.truth)
        notification_manager.notification_ready.connect(self._note_notification)

    def _note_notification(self, notification: Any) -> None:
        if notification.severity.name in ("WARNING", "ERROR"):
            self.errors.append(f"{notification.severity.name}: {notification.message}")

    def note_error(self, _kind: Any, error: BaseException, _trace: Any) -> None:
        """Remember an error that nobody caught."""
        self.errors.append("".join(traceback.format_exception(error)))

    def open(self, name: str) -> Any:
        """Bring a widget to the front."""
        from napari_gitract.opening import open_widget

        widget = open_widget(self.viewer, name)
        spin(0.2)
        return widget

    def press(self, button: Any) -> None:
        """Press a button that can be pressed."""
        assert button.isVisible() and button.isEnabled(), f"{button.text()} cannot be pressed"
        button.click()
        spin(0.1)

    def load(self, path: Path, shown_as: str = "") -> list[Any]:
        """Open a scan or contours with Load scan; the layers that came.

        In pictures the path is shown without the temporary folder.
        """
        load = self.open("Load scan")
        before = list(self.viewer.layers)
        load.path.setText(str(path))
        self.press(load.load_button)
        spin(until=lambda: not load.busy)
        show_path(load, shown_as or path.name)
        return [layer for layer in self.viewer.layers if layer not in before]

    def layer(self, name: str) -> Any:
        """The layer whose name begins so."""
        return next(one for one in self.viewer.layers if one.name.startswith(name))

    def show_slice(self, index: int) -> None:
        """Move the slider."""
        from napari_gitract.workspace import go_to_slice

        go_to_slice(self.viewer, self.viewer.layers[0], index)

    def picture(self, name: str) -> None:
        """Save the whole window, with the mouse over the middle of the canvas."""
        canvas = canvas_of(self)
        mouse(canvas, "MouseMove", (canvas.width() / 2, 0.45 * canvas.height()))
        spin(0.6)  # the time that layouts and the status bar take
        self.viewer.screenshot(str(self.pictures / f"{name}.png"), canvas_only=False)


# --- the steps --------------------------------------------------------------------------------


def open_the_workspace(tour: Tour) -> None:
    """The command opens the tabs, at the first time with How to in front, and the sample opens."""
    from napari_gitract.opening import HOW_TO, WORKSPACE, open_workspace

    open_workspace(tour.viewer)
    spin(0.5)
    assert {type(one).__name__ for one in tour.viewer.window.dock_widgets.values()} >= {
        "LoadScan", "Segment", "Review", "FineTune", "Export", "HowTo",
    }, f"{WORKSPACE} are not all open"  # fmt: skip
    how_to = tour.open(HOW_TO)
    tour.press(how_to.sample_button)
    spin(until=lambda: not how_to.busy)
    image, reference = tour.viewer.layers
    assert image.data.shape == reference.data.shape == tour.scan.shape
    tour.show_slice(SHOWN)
    how_to.keys_section.expand()
    tour.picture("how_to")
    how_to.keys_section.collapse()
    tour.viewer.layers.clear()
    tour.viewer.window.remove_dock_widget(how_to)


def load(tour: Tour) -> None:
    """A day of the competition's layout, with the contours that stand in its table."""
    image, reference = tour.load(tour.day)
    assert image.name == DAY and tuple(image.scale) == tour.scan.spacing
    assert np.array_equal(image.data, tour.scan.voxels)
    assert np.array_equal(reference.data, tour.truth.labels().array)
    tour.show_slice(SHOWN)
    tour.picture("load")


def load_contours(tour: Tour) -> None:
    """Names in an RT Structure Set of another program are asked for."""
    path = clinic_structure_set(tour)
    load = tour.open("Load scan")
    assert tour.load(path) == [], "unknown names were not asked for"
    assert load.names.isVisible() and load.names.choices()["STOMACH_1"] == "stomach"
    tour.picture("contours")
    show_path(load, str(path))
    before = len(tour.viewer.layers)
    tour.press(load.load_button)
    spin(until=lambda: not load.busy)
    contours = tour.viewer.layers[before:]  # several, since some of them overlap
    for organ, mask in zip(tour.truth.organs, tour.truth.masks, strict=True):
        drawn = np.any([layer.data == organ.id for layer in contours], axis=0)
        assert dice(drawn, mask) > 0.95, organ.name
    for layer in contours:
        tour.viewer.layers.remove(layer)
    load.path.clear()


def segment(tour: Tour) -> None:
    """The model that ships draws a first outline."""
    widget = tour.open("Segment")
    tour.layer(f"{DAY} · reference").visible = False
    tour.press(widget.segment_button)
    spin(until=lambda: not widget.busy)
    assert widget.result.data.any() and widget.volumes.rowCount() == len(tour.truth.organs)
    assert tour.viewer.layers[-1] is widget.result
    tour.show_slice(SHOWN)
    tour.picture("segment")


def review(tour: Tour) -> None:
    """Slices are corrected with the brush, accepted, rejected and filled."""
    widget = tour.open("Review")
    labels, truth = tour.layer(f"{DAY} · gi-tract-small"), tour.truth.labels().array
    widget.labels.layer = labels
    states = widget.workspace.states
    for index in PAINTED:
        widget.review.go_to(index)
        before = dice(labels.data[index] > 0, truth[index] > 0)
        paint_slice(tour, labels, index, truth[index])
        after = dice(labels.data[index] > 0, truth[index] > 0)
        assert after > max(before, 0.85), f"slice {index}: {before:.2f}, painted {after:.2f}"
        assert states(labels)[index] == "edited"
    undone(tour, labels)
    for index in CORRECTED:
        correct(labels, truth, index)
    widget.review.go_to(0)
    for button, state in (
        (widget.review.accept_button, "accepted"),
        (widget.review.reject_button, "rejected"),
        (widget.review.reset_button, "untouched"),
    ):
        tour.press(button)
        assert states(labels)[0] == state
    tour.press(widget.review.fill_button)
    assert "Filled" in widget.review.message.text()
    tour.press(widget.review.next_button)
    assert states(labels)[widget.review.current] == "untouched"
    labels.mode = "pan_zoom"
    tour.picture("review")
    reviewed = [one.index for one in widget.review.slices]
    assert reviewed == sorted((*PAINTED, *CORRECTED)), widget.review.summary.text()


def compare_with_prediction(tour: Tour) -> None:
    """What was predicted, and what was changed of it, lies over the labels while wanted."""
    widget = tour.open("Review")
    widget.review.go_to(SHOWN)
    shown = len(tour.viewer.layers)
    for mode in ("prediction", "difference"):
        widget.display.show_mode(mode)
        spin(0.3)
        assert widget.display.comparison.mode == mode
    widget.display.show_mode("current")
    spin(0.3)
    assert len(tour.viewer.layers) == shown


def check_contours(tour: Tour) -> None:
    """What should be looked at again is listed, and a click goes there."""
    widget = tour.open("Review")
    tour.viewer.theme = "light"
    widget.checks_section.expand()
    tour.press(widget.checks.check_button)
    spin(until=lambda: not widget.checks.busy)
    findings = widget.checks.findings
    assert findings, "contours of a model that never saw a phantom have no fault"
    places = [-99 if one.position is None else one.position[0] for one in findings]
    row = int(np.argmin(np.abs(np.array(places) - SHOWN)))
    widget.checks.rows.selectRow(row)
    widget.checks.go_to(row)
    spin(0.2)
    assert widget.review.current == places[row]
    widget.area.ensureWidgetVisible(widget.checks.sentence)
    tour.picture("review_light")
    widget.checks_section.collapse()
    tour.viewer.theme = "dark"
    tour.viewer.reset_view()


def look_from_other_sides(tour: Tour) -> None:
    """Outlines in the slice, linked planes, and the organs as surfaces."""
    widget = tour.open("Review")
    tour.show_slice(SHOWN)
    widget.area.verticalScrollBar().setValue(0)
    widget.display.thickness.setValue(2)
    tour.press(widget.display.contours)
    tour.picture("workspace")
    tour.press(widget.views_button)
    spin(0.5)
    assert widget.views is not None and widget.views.isVisible()
    tour.viewer.reset_view()
    tour.picture("views")
    widget.close_views()
    tour.press(widget.display.contours)
    tour.press(widget.three_d_button)
    spin(0.5)
    assert tour.viewer.dims.ndisplay == 3
    tour.press(widget.three_d_button)
    assert tour.viewer.dims.ndisplay == 2
    tour.viewer.reset_view()


def fine_tune(tour: Tour) -> None:
    """The model learns from the corrected slices, and the card tells what came of it."""
    from gitract.fine_tune import FineTuneSettings

    widget = tour.open("Fine-tune")
    widget.labels.layer = tour.layer(f"{DAY} · gi-tract-small")
    assert widget.image.layer is tour.layer(DAY)
    widget.settings = FineTuneSettings(steps=24, evaluate_every=4, parts=2)  # a short one
    tour.show_slice(SHOWN)
    tour.press(widget.start_button)
    spin(until=lambda: len(widget.curves.values["dice"][0]) > 3 or not widget.busy)
    tour.picture("fine_tune")
    spin(until=lambda: not widget.busy)
    card = widget.candidate.card
    assert len(card.rows) == len(tour.truth.organs)
    assert all(row.after is not None and 0 <= row.after <= 1 for row in card.rows)
    assert card.verdict == "better", card.sentence
    tour.picture("card")


def show_change(tour: Tour) -> None:
    """A layer of what the candidate draws otherwise."""
    widget = tour.open("Fine-tune")
    tour.press(widget.card.change_button)
    change = tour.viewer.layers[-1]
    assert set(np.unique(change.data)) > {0}, "the candidate draws all as before"
    tour.layer(f"{DAY} · gi-tract-small").visible = False
    tour.picture("change")
    tour.viewer.layers.remove(change)


def keep(tour: Tour) -> None:
    """The candidate becomes the active model, and draws better than the one before."""
    from gitract.model_store import ModelStore

    widget = tour.open("Fine-tune")
    widget.card.name.setText(KEPT)
    tour.press(widget.card.keep_button)
    assert ModelStore().active().title == KEPT or ModelStore().active().id.startswith(KEPT)
    truth, first = tour.truth.labels().array, tour.layer(f"{DAY} · gi-tract-small")
    found = segment_again(tour)
    better, before = dice(found.data > 0, truth > 0), predicted_dice(tour, first, truth)
    assert better > before, f"Dice {better:.3f}, before fine-tuning {before:.3f}"


def models(tour: Tour) -> None:
    """Both models are listed, and outline the open scan one against the other."""
    widget = tour.open("Models")
    assert widget.versions.rowCount() == 2
    widget.card_section.expand()
    tour.picture("models")
    widget.card_section.collapse()
    compare = widget.compare
    widget.compare_section.expand()
    spin(0.2)
    compare.image.layer = tour.layer(DAY)
    compare.with_reference.setChecked(True)
    compare.reference.layer = tour.layer(f"{DAY} · reference")
    tour.press(compare.compare_button)
    spin(until=lambda: not widget.busy)
    assert [one.currentText() for one in (compare.first, compare.second)][1].endswith(KEPT)
    assert compare.volumes.rowCount() == compare.dice.rowCount() == len(tour.truth.organs)
    widget.area.ensureWidgetVisible(compare.remark)
    for layer in tour.viewer.layers[1:-1]:
        layer.visible = False
    tour.show_slice(SHOWN)
    tour.picture("compare")
    tour.viewer.layers.remove(tour.viewer.layers[-1])
    tour.viewer.window.remove_dock_widget(widget)


def measure(tour: Tour) -> None:
    """Numbers of the true contours, which a file takes."""
    widget = tour.open("Measure")
    reference = tour.layer(f"{DAY} · reference")
    reference.visible = True
    tour.viewer.layers.selection.active = reference
    widget.labels.layer = reference
    spin(until=lambda: widget.up_to_date)
    labels = tour.truth.labels()
    voxel_ml = np.prod(tour.truth.spacing) / 1000.0
    for one in widget.measures:
        ml = (labels.array == one.organ.id).sum() * voxel_ml
        assert abs(one.volume_ml - ml) < 0.01, f"{one.organ.name}: {one.volume_ml} mL, not {ml}"
    assert widget.image.layer is tour.layer(DAY)
    widget.organs.selectRow(0)
    tour.show_slice(SHOWN)
    tour.picture("measure")
    table = tour.folder / "measures.csv"
    widget.export(str(table))
    lines = table.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + len(tour.truth.organs)
    tour.viewer.window.remove_dock_widget(widget)


def days(tour: Tour) -> None:
    """A second day, on which the patient lies elsewhere, compared with the first."""
    shift = later_day(tour)
    tour.viewer.layers.clear()
    for day in (tour.day, tour.day.with_name(LATER)):
        tour.load(day)
    widget = tour.open("Treatment days")
    assert [day.name for day in widget.days] == [DAY, LATER]
    tour.press(widget.compare_button)
    spin(until=lambda: not widget.busy)
    table = widget.result.found
    assert len(table.rows) == 2 * len(tour.truth.organs)
    (alignment,) = table.alignments
    assert np.allclose(alignment.shift_mm, shift, atol=2.5), f"{alignment.shift_mm}, not {shift}"
    assert all(row.dice > 0.7 for row in table.rows if row.day == LATER and row.dice is not None)
    tour.press(widget.overlay)
    spin(until=lambda: len(widget.shown.layers) == 2)
    assert widget.overlay.isChecked()
    tour.show_slice(SHOWN)
    tour.picture("days")
    tour.press(widget.overlay)
    tour.press(widget.start_button)
    spin(until=lambda: not widget.busy)
    carried, today = tour.layer(f"{LATER} · from {DAY}"), tour.layer(f"{LATER} · reference")
    overlap = dice(carried.data > 0, today.data > 0)
    assert overlap > 0.7, f"contours that were carried over: Dice {overlap:.2f}"
    tour.viewer.window.remove_dock_widget(widget)


def export(tour: Tour) -> None:
    """Contours on a DICOM series become a structure set, which reads back the same."""
    from gitract.io import read_reference, read_scan, read_segmentation, write_scan

    series = write_scan(read_scan(tour.day), tour.folder / "for_export.dcm")
    tour.viewer.layers.clear()
    (image,) = tour.load(series)
    found = segment_again(tour)
    widget = tour.open("Export")
    spin(until=lambda: widget.preview is not None)
    assert widget.choice.suffix == ".rtstruct.dcm" and widget.choice.labels.layer is found
    path = tour.folder / "contours.rtstruct.dcm"
    widget.export(path)
    spin(until=lambda: not widget.busy)
    assert "same" in widget.outcome.text(), widget.outcome.text()
    tour.show_slice(SHOWN)
    tour.picture("export")
    scan = read_scan(series)
    written = read_segmentation(path, scan=scan)
    assert np.array_equal(written.labels().array, found.data), "the file holds other contours"
    truth = read_reference(tour.day).on(scan)
    assert dice(written.masks.any(0), truth.masks.any(0)) > 0.5
    widget.choice.choose_format(".nii.gz")
    spin(until=lambda: widget.preview is not None)
    widget.export(tour.folder / "contours.nii.gz")
    spin(until=lambda: not widget.busy)
    assert np.array_equal(
        read_segmentation(tour.folder / "contours.nii.gz").on(scan).labels().array, found.data
    )
    assert image in tour.viewer.layers


def report(tour: Tour) -> None:
    """The report of a network that was trained for a minute on phantoms; asks Chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        print("report.png is left as it is: there is no Chromium.")
        return
    page = write_phantom_report(tour.folder)
    subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         "--window-size=1000,1560", f"--screenshot={tour.pictures / 'report.png'}", page.as_uri()],
        check=True, capture_output=True,
    )  # fmt: skip


STEPS: tuple[Callable[[Tour], None], ...] = (
    open_the_workspace,
    load,
    load_contours,
    segment,
    review,
    compare_with_prediction,
    check_contours,
    look_from_other_sides,
    fine_tune,
    show_change,
    keep,
    models,
    measure,
    days,
    export,
    report,
)


# --- the brush --------------------------------------------------------------------------------


def paint_slice(tour: Tour, labels: Any, index: int, wanted: np.ndarray) -> None:
    """Paint a slice with the mouse until it is about what is wanted.

    Strokes go along the rows, two apart, since the brush is three wide; they keep one voxel from
    the edge of what they paint. The eraser comes first.
    """
    tour.viewer.layers.selection.active = labels
    labels.mode = "paint"
    labels.brush_size = BRUSH
    for value in (ERASER, *(organ.id for organ in tour.truth.organs)):
        labels.selected_label = value
        inside = ndimage.binary_erosion(wanted == value)
        todo = inside & (labels.data[index] != value)
        for row in np.flatnonzero(todo.any(1))[::2]:
            for start, end in runs(todo[row]):
                stroke(tour, labels, (index, row, start), (index, row, end))
    spin(0.4)  # until the brush has rested


def stroke(tour: Tour, labels: Any, start: tuple[int, ...], end: tuple[int, ...]) -> None:
    """Press the mouse button on a voxel, and let it go on another."""
    canvas = canvas_of(tour)
    first, last = (
        on_canvas(tour.viewer, canvas, labels.data_to_world(voxel)) for voxel in (start, end)
    )
    mouse(canvas, "MouseMove", first)
    mouse(canvas, "MouseButtonPress", first, held=True)
    mouse(canvas, "MouseMove", last, held=True)
    mouse(canvas, "MouseButtonRelease", last)


def mouse(canvas: Any, kind: str, place: tuple[float, float], *, held: bool = False) -> None:
    """What Qt sends when the mouse does something; `held` is whether its button is down then."""
    from qtpy.QtCore import QEvent, QPointF, Qt
    from qtpy.QtGui import QMouseEvent
    from qtpy.QtWidgets import QApplication

    left, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
    point = QPointF(*place)
    event = QMouseEvent(
        QEvent.Type[kind],
        point,
        canvas.mapToGlobal(point),
        left if "Button" in kind else none,
        left if held else none,
        Qt.KeyboardModifier.NoModifier,
    )
    QApplication.sendEvent(canvas, event)
    QApplication.processEvents()


def on_canvas(viewer: Any, canvas: Any, world: Any) -> tuple[float, float]:
    """Where on the canvas a place is shown: from the left and from the top, in pixels."""
    camera = getattr(viewer, "scene", viewer).camera  # the scene's since napari 0.9
    down, across = np.array([world[axis] for axis in viewer.dims.displayed])
    middle_down, middle_across = camera.center[-2:]
    return (
        (across - middle_across) * camera.zoom + canvas.width() / 2,
        (down - middle_down) * camera.zoom + canvas.height() / 2,
    )


def canvas_of(tour: Tour) -> Any:
    """The Qt widget that the slices are drawn on."""
    from qtpy.QtWidgets import QApplication, QMainWindow, QWidget

    windows = [one for one in QApplication.topLevelWidgets() if isinstance(one, QMainWindow)]
    parts = [part for window in windows for part in window.findChildren(QWidget)]
    return next(part for part in parts if type(part).__name__.startswith("CanvasBackend"))


def runs(row: np.ndarray) -> Iterator[tuple[int, int]]:
    """First and last index of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
    for first, end in zip(edges[::2], edges[1::2], strict=True):
        yield int(first), int(end) - 1


def undone(tour: Tour, labels: Any) -> None:
    """A stroke that is undone leaves its slice unedited."""
    from napari_gitract.workspace import Workspace

    states = Workspace.of(tour.viewer).states
    index = states(labels).index("untouched")
    tour.show_slice(index)
    labels.selected_label = tour.truth.organs[0].id
    stroke(tour, labels, (index, 5, 5), (index, 5, 12))
    spin(0.4)
    assert states(labels)[index] == "edited"
    labels.undo()
    assert states(labels)[index] == "untouched"


def correct(labels: Any, truth: np.ndarray, index: int) -> None:
    """Make a slice what it should be at once."""
    rows, columns = np.nonzero(labels.data[index] != truth[index])
    if len(rows):
        where = (np.full(len(rows), index), rows, columns)
        labels.data_setitem(where, truth[index, rows, columns])


# --- what the steps need ------------------------------------------------------------------------


def segment_again(tour: Tour) -> Any:
    """Segment the newest image by the active model; the new layer."""
    widget = tour.open("Segment")
    tour.press(widget.segment_button)
    spin(until=lambda: not widget.busy)
    assert widget.result.data.any()
    return widget.result


def predicted_dice(tour: Tour, labels: Any, truth: np.ndarray) -> float:
    """How well the program itself drew a layer, before anything was corrected."""
    from napari_gitract.workspace import Workspace

    prediction = Workspace.of(tour.viewer).prediction(labels)
    return dice(prediction.labels() > 0, truth > 0)


def clinic_structure_set(tour: Tour) -> Path:
    """An RT Structure Set as another program might have written it."""
    import pydicom

    from gitract.io import read_reference, read_scan, write_scan, write_segmentation
    from gitract.organs import Organ

    names = ("Colon", "Bowel_Small", "STOMACH_1", "PTV 50.4")
    series = write_scan(read_scan(tour.day), tour.folder / "series.dcm")
    truth = read_reference(tour.day).on(read_scan(series))
    target = np.roll(truth.masks[2:], 12, axis=3)
    clinic = dataclasses.replace(
        truth,
        masks=np.concatenate([truth.masks, target]),
        organs=tuple(Organ(i, name, "#d9a03f") for i, name in enumerate(names, start=1)),
    )
    path = write_segmentation(clinic, tour.folder / "clinic.rtstruct.dcm")
    path.with_name(f"{path.name}.json").unlink()  # which another program does not write
    written = pydicom.dcmread(path)
    for region, name in zip(written.StructureSetROISequence, names, strict=True):
        region.ROIName = name  # we write "Bowel small"
    written.save_as(path)
    return path


def later_day(tour: Tour) -> tuple[float, float, float]:
    """Write a second day beside the first; by how much its patient lies elsewhere.

    The organs' surfaces, the bias field and the noise are others, too. The shift is what lays it
    back upon the first day: to the left, to the back, to the head, in mm.
    """
    from gitract.phantom import abdomen, write_day

    rows, columns = -5, 4
    scan, truth = abdomen(seed=4, name=LATER)
    moved = dataclasses.replace(scan, voxels=np.roll(scan.voxels, (rows, columns), (1, 2)))
    masks = np.roll(truth.masks, (rows, columns), (2, 3))
    write_day(tour.folder / "phantom", moved, dataclasses.replace(truth, masks=masks))
    _, row_mm, column_mm = scan.spacing
    return -columns * column_mm, -rows * row_mm, 0.0


def write_phantom_report(folder: Path) -> Path:
    """Train a network on phantoms, score it on others, and write the report of that."""
    from gitract.evaluate import evaluate
    from gitract.phantom import abdomen, write_day
    from gitract.predict import Segmenter
    from gitract.recipe import Recipe, read_recipe, recipe_file
    from gitract.report import write_report
    from gitract.train import Machines, load_training_data, train

    data = folder / "phantoms"
    for seed in range(6):
        write_day(data, *abdomen((32, 112, 128), seed=seed, name=f"case{seed}_day0"))
    content = read_recipe(recipe_file("unet-light")).model_dump(mode="json")
    content["preparation"] |= {"pixel_mm": 3.0}
    content["optimisation"] |= {
        "steps": 120, "steps_per_epoch": 20, "batch_size": 8, "crop": 96, "warm_up": 10,
        "learning_rate": 2e-3, "ema_decay": 0.9,
    }  # fmt: skip
    recipe = Recipe.model_validate(content)
    loaded = load_training_data(recipe, data, cache=folder / "cache")
    held_out = ["case0", "case1", "case2"]
    run = folder / "run"
    result = train(recipe, loaded, output=run, hold_out=held_out, machines=Machines("cpu"))
    evaluation = evaluate(Segmenter(result.model, device="cpu"), data, cases=held_out)
    page = folder / "report.html"
    write_report(evaluation, page, data="phantoms", curves=run / "log" / "metrics.csv")
    return page


def show_path(load: Any, text: str) -> None:
    """Show a path in Load scan, which does not take it for another one."""
    load.path.blockSignals(True)
    load.path.setText(text)
    load.path.blockSignals(False)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Overlap of two masks."""
    return float(2 * (one & other).sum() / max(1, one.sum() + other.sum()))


def spin(seconds: float = 0.1, until: Callable[[], bool] = lambda: True) -> None:
    """Let the window work for some time, and until something is so.

    Raises
    ------
    TimeoutError
        It never was.
    """
    from qtpy.QtCore import QEvent
    from qtpy.QtWidgets import QApplication

    start = time.monotonic()
    while time.monotonic() - start < seconds or not until():
        if time.monotonic() - start > PATIENCE_S:
            raise TimeoutError(f"Waited for {PATIENCE_S:g} s.")
        QApplication.processEvents()
        # What napari deletes later goes only with a running event loop, or so.
        QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
        time.sleep(0.01)


if __name__ == "__main__":
    main()
