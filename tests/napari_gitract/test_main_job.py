"""The whole job with the real backend: load, segment, correct, fine-tune, keep, go back."""

import numpy as np
import pytest

from driving import click
from napari_gitract.workspace import go_to_slice
from phantoms import abdomen_phantom, write_competition_day


def open_widget(viewer, name):
    return viewer.window.add_plugin_dock_widget("napari-gitract", name)[1]


def wait(qtbot, widget):
    qtbot.waitUntil(lambda: not widget.busy, timeout=300_000)


def loaded(viewer, qtbot, folder):
    """The widget that loaded a small phantom into the viewer."""
    day = write_competition_day(folder, *abdomen_phantom(slices=8, rows=64, columns=64))
    load = open_widget(viewer, "Load scan")
    load.path.setText(str(day))
    click(qtbot, load.load_button)
    wait(qtbot, load)
    return load


@pytest.mark.slow
def test_the_whole_job(make_napari_viewer, qtbot, tmp_path):
    from gitract.fine_tune import FineTuneSettings
    from gitract.model_store import ModelStore

    viewer = make_napari_viewer()
    load = loaded(viewer, qtbot, tmp_path)
    image, reference = viewer.layers
    assert "8 × 64 × 64" in load.status.text()

    segment = open_widget(viewer, "Segment")
    click(qtbot, segment.segment_button)
    wait(qtbot, segment)
    prediction = segment.result
    assert prediction in viewer.layers
    first_model = ModelStore().active().id
    assert prediction.name.endswith(first_model)

    tune = open_widget(viewer, "Fine-tune")
    assert tune.labels.layer is prediction
    assert tune.image.layer is image
    for index in (1, 4, 6):
        truth = reference.data[index]
        wrong = np.nonzero(prediction.data[index] != truth)
        where = (np.full(len(wrong[0]), index), *wrong)
        prediction.data_setitem(where, truth[wrong])
    go_to_slice(viewer, prediction, 7)
    click(qtbot, tune.review.accept_button)
    tune.review.refresh()
    assert {reviewed.index for reviewed in tune.review.slices} == {1, 4, 6, 7}
    tune.settings = FineTuneSettings(steps=2, evaluate_every=1, parts=2, batch_size=2)
    click(qtbot, tune.start_button)
    wait(qtbot, tune)
    assert tune.candidate is not None
    assert len(tune.curves.values["loss"][0]) >= 2
    assert len(tune.candidate.card.rows) == 3
    for text in ("HD95, mm", "Surface Dice at 2 mm", "Volume error, mL", "Dice"):
        tune.card.measure.setCurrentText(text)
        assert tune.card.rows.rowCount() == 3
    assert "drawn as before" in tune.card.retention.text()

    click(qtbot, tune.card.change_button)
    change = viewer.layers[-1]
    before, after = tune.candidate.before[0].masks, tune.candidate.after[0].masks
    np.testing.assert_array_equal(change.data > 0, (before != after).any(axis=0))
    assert not change.editable
    assert tune.labels.layer is prediction  # what changes is nothing to learn from

    tune.card.confirm = lambda: True
    tune.card.name.setText("my hospital")
    click(qtbot, tune.card.keep_button)
    assert ModelStore().active().title == "my hospital"

    click(qtbot, segment.segment_button)
    wait(qtbot, segment)
    assert segment.result is not prediction
    assert segment.result.name.endswith(ModelStore().active().id)

    models = open_widget(viewer, "Models")
    click(qtbot, models.restore_button)
    assert ModelStore().active().id == first_model
    assert segment.model.info.id == first_model


@pytest.mark.slow
def test_slices_between_corrected_ones_are_filled_from_what_the_model_draws(
    make_napari_viewer, qtbot, tmp_path
):
    from gitract.fill_between import filled_by_model
    from gitract.predict import Segmenter
    from napari_gitract.layers import scan_from_layer

    viewer = make_napari_viewer()
    loaded(viewer, qtbot, tmp_path)
    image, reference = viewer.layers
    found = Segmenter(device="cpu").segment(scan_from_layer(image))
    tune = open_widget(viewer, "Fine-tune")
    tune.labels.layer = reference
    for index in (1, 6):
        tune.workspace.accept(reference, [index])
    reference.data[2:6] = 0
    drawn = reference.data.copy()
    tune.review.fill_by_model_requested.emit()
    wait(qtbot, tune)
    expected = filled_by_model(drawn, found.labels().array, [1, 6], found.spacing)
    assert expected
    for index, labels in expected.items():
        np.testing.assert_array_equal(reference.data[index], labels)
    assert "Filled 4 slices" in tune.review.message.text()
    reference.undo()
    np.testing.assert_array_equal(reference.data, drawn)
