"""Make the pictures of the user guide, from a phantom: ``python docs/make_pictures.py``.

Needs a screen; without one run it under ``xvfb-run -a -s "-screen 0 1366x768x24"``.
The models are kept in a temporary folder, so whoever runs it keeps their own.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

PICTURES = Path(__file__).parent / "pictures"
LOAD, SEGMENT, FINE_TUNE, MODELS = "Load scan", "Segment", "Fine-tune", "Models"


def main() -> None:
    """Do the main job on a phantom and photograph each step."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GITRACT_HOME"] = folder
        import napari

        from gitract.phantom import abdomen, write_day

        day = write_day(Path(folder) / "phantom", *abdomen())
        viewer = napari.Viewer()
        viewer.window.resize(1366, 768)
        try:
            photograph(viewer, day)
        finally:
            viewer.close()
            spin(0.2)
        photograph_report(Path(folder))


def photograph(viewer, day: Path) -> None:
    """One picture for each widget at work."""
    from gitract.fine_tune import FineTuneSettings

    dock, load = open_widget(viewer, LOAD)
    load.path.setText(str(day))
    load.load()
    spin(until=lambda: not load.busy)
    load.path.setText(day.name)
    image, reference = viewer.layers
    viewer.dims.set_point(0, image.data_to_world((20, 0, 0))[0])  # all three organs
    picture(viewer, "load")
    load_contours(viewer, load, day)
    viewer.window.remove_dock_widget(dock)

    dock, segment = open_widget(viewer, SEGMENT)
    segment.segment()
    spin(until=lambda: not segment.busy)
    reference.visible = False
    picture(viewer, "segment")
    viewer.window.remove_dock_widget(dock)

    dock, tune = open_widget(viewer, FINE_TUNE)
    for index in (14, 18, 24, 28, 32):
        correct(segment.result, reference, index)
    tune.review.go_next()
    correct(segment.result, reference, tune.review.current)
    tune.review.go_next()
    tune.review.accept()
    tune.review.fill_by_shape()
    tune.review.go_next()
    tune.organs_section.expand()
    spin(1.0)  # until the brush has rested
    picture(viewer, "review")
    tune.organs_section.collapse()
    tune.settings = FineTuneSettings(steps=24, evaluate_every=4, parts=2)  # a short one
    tune.start()
    spin(until=lambda: len(tune.curves.values["dice"][0]) > 3 or not tune.busy)
    picture(viewer, "fine_tune")
    spin(until=lambda: not tune.busy)
    tune.show_change()
    picture(viewer, "card")
    tune.keep("phantom")
    viewer.window.remove_dock_widget(dock)

    open_widget(viewer, MODELS)
    picture(viewer, "models")


def load_contours(viewer, load, day: Path) -> None:
    """Photograph how names in an RT Structure Set of another program are asked for."""
    import dataclasses

    from gitract.io import read_reference, read_scan, write_scan, write_segmentation
    from gitract.organs import Organ

    names = ("Colon", "Bowel_Small", "STOMACH_1", "PTV 50.4")
    series = write_scan(read_scan(day), day.parent / "series.dcm")
    truth = read_reference(day).on(read_scan(series))
    target = np.roll(truth.masks[2:], 12, axis=3)
    clinic = dataclasses.replace(
        truth,
        masks=np.concatenate([truth.masks, target]),
        organs=tuple(Organ(i, name, "#d9a03f") for i, name in enumerate(names, start=1)),
    )
    path = write_segmentation(clinic, day.parent / "clinic.rtstruct.dcm")
    path.with_name(f"{path.name}.json").unlink()  # which another program does not write
    load.path.setText(str(path))
    load.load()
    spin(until=lambda: not load.busy)
    load.path.blockSignals(True)
    load.path.setText(path.name)
    picture(viewer, "contours")
    load.path.blockSignals(False)


def correct(labels, reference, index: int) -> None:
    """Make a slice of the labels what the reference says, as a brush would."""
    truth = reference.data[index]
    rows, columns = np.nonzero(labels.data[index] != truth)
    if len(rows):
        labels.data_setitem((np.full(len(rows), index), rows, columns), truth[rows, columns])


def open_widget(viewer, name: str):
    """Dock a widget and let it be drawn."""
    dock, widget = viewer.window.add_plugin_dock_widget("napari-gitract", name)
    spin(0.2)
    return dock, widget


def picture(viewer, name: str) -> None:
    """Save the whole window."""
    spin(0.5)
    viewer.screenshot(str(PICTURES / f"{name}.png"), canvas_only=False)


def spin(seconds: float = 0.1, until: Callable[[], bool] = lambda: True) -> None:
    """Let the window work for some time, and until something is so."""
    from qtpy.QtWidgets import QApplication

    start = time.monotonic()
    while time.monotonic() - start < seconds or not until():
        QApplication.processEvents()
        time.sleep(0.01)


def photograph_report(folder: Path) -> None:
    """The report of a network that was trained for a minute on phantoms; asks Chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        print("report.png is left as it is: there is no Chromium.")
        return
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
    subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         "--window-size=1000,1560", f"--screenshot={PICTURES / 'report.png'}", page.as_uri()],
        check=True, capture_output=True,
    )  # fmt: skip


if __name__ == "__main__":
    main()
