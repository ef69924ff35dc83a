"""Load scan and File > Save with DICOM, NIfTI and contours: it asks where there is a choice."""

import dataclasses

import numpy as np
import pytest
import SimpleITK
from napari.layers import Image, Labels

from gitract.baseline import slice_digests
from gitract.errors import InputError
from gitract.io import read_scan, read_segmentation, write_scan, write_segmentation
from gitract.organs import Organ
from gitract.scan import DicomSeries, NiftiAxes, Scan
from napari_gitract.layers import (
    contour_layers,
    origin_of,
    scan_from_layer,
    scan_to_layer,
    segmentation_to_layer,
)
from phantoms import abdomen_phantom, write_competition_day

LOAD, SEGMENT = "Load scan", "Segment"


@pytest.fixture
def phantom():
    return abdomen_phantom(slices=6, rows=40, columns=48)


@pytest.fixture
def series(tmp_path, phantom):
    """The phantom as a DICOM series."""
    return write_scan(phantom[0], tmp_path / "series.dcm")


@pytest.fixture
def load(viewer, qtbot):
    """Open a path with the widget; gives the layers that came."""
    widget = viewer.window.add_plugin_dock_widget("napari-gitract", LOAD)[1]

    def run(path=None):
        before = list(viewer.layers)
        if path is not None:
            widget.path.setText(str(path))
        widget.load()
        qtbot.waitUntil(lambda: not widget.busy)
        return [layer for layer in viewer.layers if layer not in before]

    run.widget = widget
    return run


def test_a_dicom_folder_becomes_a_scan_that_contours_can_refer_to(load, series, phantom):
    [image] = load(series)
    assert isinstance(image, Image)
    np.testing.assert_array_equal(np.sort(image.data, axis=0), np.sort(phantom[0].voxels, axis=0))
    np.testing.assert_allclose(image.scale, phantom[0].spacing)
    assert isinstance(origin_of(image.metadata).stored, DicomSeries)
    assert "6 × 40 × 48" in load.widget.status.text()


def test_of_several_days_the_user_chooses(load, tmp_path):
    for day in (0, 22):
        scan, truth = abdomen_phantom(slices=4, rows=40, columns=48, seed=day)
        write_competition_day(tmp_path, dataclasses.replace(scan, name=f"case1_day{day}"), truth)
    assert load(tmp_path / "train" / "case1") == []
    table = load.widget.scans.rows
    assert load.widget.scans.isVisibleTo(load.widget)
    assert [table.item(row, 0).text().split(":")[0] for row in range(table.rowCount())] == [
        "case1_day0",
        "case1_day22",
    ]
    table.selectRow(1)
    image, reference = load()
    assert image.name == "case1_day22"
    assert isinstance(reference, Labels)
    table.selectAll()
    assert len(load()) == 4
    load.widget.path.setText("elsewhere")
    assert not load.widget.scans.isVisibleTo(load.widget)


def test_a_structure_set_lies_on_the_scan_that_is_open(load, series, phantom, tmp_path):
    [image] = load(series)
    scan = read_scan(series)
    truth = phantom[1].on(scan)
    organs = write_segmentation(truth, tmp_path / "organs.rtstruct.dcm")
    image.translate = (10, 20, 30)
    [labels] = load(organs)
    assert isinstance(labels, Labels)
    np.testing.assert_array_equal(labels.data, truth.labels().array)
    np.testing.assert_allclose(labels.extent.world, image.extent.world)


def test_unknown_names_are_asked_for(load, series, phantom, tmp_path):
    scan = read_scan(series)
    truth = phantom[1].on(scan)
    renamed = dataclasses.replace(
        truth, organs=(truth.organs[0], Organ(30, "loop_7b", "#ff0000"), truth.organs[2])
    )
    path = write_segmentation(renamed, tmp_path / "organs.rtstruct.dcm")
    path.with_name(path.name + ".json").unlink()  # as it comes from another program
    load(series)
    assert load(path) == []
    names = load.widget.names
    assert names.isVisibleTo(load.widget)
    texts = {names.rows.item(row, 0).text(): row for row in range(names.rows.rowCount())}
    [doubtful] = [text for text in texts if text.endswith("?")]
    assert doubtful.startswith("Loop")
    names.rows.cellWidget(texts[doubtful], 1).setCurrentText("small_bowel")
    [labels] = load()
    np.testing.assert_array_equal(labels.data == 2, truth.labels().array == 2)


def test_labels_of_other_programs_are_named_value_by_value(load, phantom, tmp_path):
    scan, truth = phantom
    labels = np.where(truth.labels().array == 3, 7, 0).astype(np.uint8)
    picture = SimpleITK.GetImageFromArray(labels)
    picture.SetSpacing(scan.spacing[::-1])
    path = tmp_path / "other.nii.gz"
    SimpleITK.WriteImage(picture, str(path))
    load.widget.as_labels.setChecked(True)
    load.widget.onto.setChecked(False)
    assert load(path) == []
    names = load.widget.names
    assert names.rows.item(0, 0).text() == "7 ?"
    assert names.rows.cellWidget(0, 1).currentText() == "leave out"
    names.rows.cellWidget(0, 1).setCurrentText("stomach")
    [layer] = load()
    assert set(np.unique(layer.data)) == {0, 3}


def test_what_does_not_fit_is_one_sentence_and_no_layer(load, series, phantom, tmp_path, shown):
    other, truth = abdomen_phantom(slices=5, rows=40, columns=48)
    elsewhere = read_scan(write_scan(other, tmp_path / "other.dcm"))
    path = write_segmentation(truth.on(elsewhere), tmp_path / "organs.seg.dcm")
    load(series)
    assert load(path) == []
    assert len(shown) == 1


@pytest.mark.parametrize("flips", [(1,), (2,), (1, 2)])
def test_a_scan_stored_upside_down_hangs_upright(viewer, flips, phantom):
    scan, truth = phantom
    affine, voxels, masks = scan.affine.copy(), scan.voxels, truth.masks
    for axis in flips:
        affine[:3, 3] += affine[:3, axis] * (scan.shape[axis] - 1)
        affine[:3, axis] *= -1
        voxels, masks = np.flip(voxels, axis), np.flip(masks, axis + 1)
    stored = Scan(np.ascontiguousarray(voxels), scan.spacing, affine, stored=NiftiAxes())
    contours = dataclasses.replace(truth, masks=np.ascontiguousarray(masks), affine=affine)
    image = viewer.add_image(stored.voxels, **scan_to_layer(stored)[1])
    labels = viewer.add_labels(contours.labels().array, **segmentation_to_layer(contours)[1])
    upright = viewer.add_image(scan.voxels, **scan_to_layer(scan)[1])
    index = np.array([2, 7, 31])
    shown_at = upright.data_to_world(index)
    for layer in (image, labels):
        assert layer.data.shape == scan.shape
        np.testing.assert_allclose(layer.extent.world, upright.extent.world, atol=1e-9)
    there = tuple(np.round(image.world_to_data(shown_at)).astype(int))
    assert image.data[there] == scan.voxels[tuple(index)]
    np.testing.assert_array_equal(image.data, stored.voxels)  # as stored: nothing was flipped


@pytest.mark.parametrize("suffix", [".rtstruct.dcm", ".seg.dcm", ".nii.gz", ".csv", ".tif"])
def test_file_save_writes_every_format(viewer, load, series, phantom, tmp_path, suffix):
    [image] = load(series)
    truth = phantom[1].on(read_scan(series))
    labels = viewer.add_labels(
        truth.labels().array, **segmentation_to_layer(truth, image_layer=image)[1]
    )
    viewer.layers.selection = {labels}
    path = tmp_path / f"out{suffix}"
    saved = viewer.layers.save(str(path), selected=True, plugin="napari-gitract")
    assert saved == [str(path)]
    again = read_segmentation(path, scan=read_scan(series))
    np.testing.assert_array_equal(again.labels().array, labels.data)


def test_a_scan_is_saved_with_its_place(viewer, load, series, tmp_path):
    [image] = load(series)
    viewer.layers.selection = {image}
    path = tmp_path / "scan.nii.gz"
    assert viewer.layers.save(str(path), selected=True, plugin="napari-gitract") == [str(path)]
    again, scan = read_scan(path), read_scan(series)
    np.testing.assert_array_equal(again.voxels, scan.voxels)
    np.testing.assert_allclose(again.affine, scan.affine, atol=1e-4)


def test_contours_of_a_scan_that_is_no_series_are_not_made_dicom(viewer, phantom, tmp_path, shown):
    labels = viewer.add_labels(phantom[1].labels().array, **segmentation_to_layer(phantom[1])[1])
    viewer.layers.selection = {labels}
    with pytest.raises(Exception, match="DICOM series"):
        viewer.layers.save(
            str(tmp_path / "out.rtstruct.dcm"), selected=True, plugin="napari-gitract"
        )
    assert list(tmp_path.iterdir()) == []


def test_structures_that_overlap_come_as_layers_of_their_own(load, series, phantom, tmp_path):
    scan = read_scan(series)
    truth = phantom[1].on(scan)
    target = np.zeros(scan.shape, dtype=np.bool_)
    target[2:4, 10:30, 10:40] = True  # over all organs, as a target volume lies
    far = np.zeros_like(target)
    far[0, :2, :2] = True
    both = dataclasses.replace(
        truth,
        masks=np.concatenate([truth.masks, [target, far]]),
        organs=(*truth.organs, Organ(18, "ptv", "#ff0000"), Organ(19, "marker", "#00ff00")),
    )
    load(series)
    assert load(write_segmentation(both, tmp_path / "organs.rtstruct.dcm")) == []
    first, second = load()  # the two new names are right as they stand
    np.testing.assert_array_equal(first.data == 19, far)
    np.testing.assert_array_equal(np.where(first.data == 19, 0, first.data), truth.labels().array)
    np.testing.assert_array_equal(second.data == 18, target)
    assert second.name.endswith("PTV")


def test_layers_saved_together_are_one_structure_set_again(viewer, load, series, phantom, tmp_path):
    scan = read_scan(series)
    truth = phantom[1].on(scan)
    target = np.zeros(scan.shape, dtype=np.bool_)
    target[2:4, 10:30, 10:40] = True
    both = dataclasses.replace(
        truth,
        masks=np.concatenate([truth.masks, [target]]),
        organs=(*truth.organs, Organ(18, "ptv", "#ff0000")),
    )
    load(series)
    load(write_segmentation(both, tmp_path / "organs.rtstruct.dcm"))
    viewer.layers.selection = set(load())
    assert len(viewer.layers.selection) == 2
    path = tmp_path / "again.rtstruct.dcm"
    assert viewer.layers.save(str(path), selected=True, plugin="napari-gitract") == [str(path)]
    again = read_segmentation(path, scan=scan)
    np.testing.assert_array_equal(again.masks[-1], target)
    np.testing.assert_array_equal(again.labels().array == 18, target)
    [stomach] = [m for o, m in zip(again.organs, again.masks, strict=True) if o.name == "stomach"]
    np.testing.assert_array_equal(stomach, truth.masks[2])


@pytest.mark.parametrize("suffix", [".rtstruct.dcm", ".nii.gz", ".csv", ".tif"])
def test_a_cropped_layer_is_not_written_elsewhere(viewer, load, series, phantom, tmp_path, suffix):
    [image] = load(series)
    truth = phantom[1].on(read_scan(series))
    labels = viewer.add_labels(
        truth.labels().array, **segmentation_to_layer(truth, image_layer=image)[1]
    )
    labels.data = labels.data[:, 10:, 10:]
    viewer.layers.selection = {labels}
    path = tmp_path / f"out{suffix}"
    with pytest.raises(InputError, match="cropped"):
        viewer.layers.save(str(path), selected=True, plugin="napari-gitract")
    assert not path.exists()
    image.data = image.data[:, 10:, 10:]
    with pytest.raises(InputError, match="cropped"):
        scan_from_layer(image)


def test_values_of_other_programs_are_not_taken_for_our_organs(load, phantom, tmp_path):
    labels = np.zeros(phantom[0].shape, np.uint8)
    labels[1:3, 5:9, 5:9], labels[3, 5:9, 5:9] = 3, 9
    picture = SimpleITK.GetImageFromArray(labels)
    path = tmp_path / "other.nii.gz"
    SimpleITK.WriteImage(picture, str(path))
    load.widget.as_labels.setChecked(True)
    load.widget.onto.setChecked(False)
    assert load(path) == []
    rows = load.widget.names.rows
    assert [rows.cellWidget(row, 1).currentText() for row in range(2)] == ["leave out"] * 2


def test_only_the_layer_that_a_model_drew_knows_what_was_edited(phantom):
    labels = phantom[1].labels().array
    drawn = dataclasses.replace(
        phantom[1],
        masks=np.concatenate([phantom[1].masks, phantom[1].masks[:1]]),
        organs=(*phantom[1].organs, Organ(18, "gtv_1", "#ff0000")),
        provenance={"model": "m", "baseline": slice_digests(labels)},
    )
    first, second = (origin_of(layer[1]["metadata"]) for layer in contour_layers(drawn, name="n"))
    assert first.provenance["model"] == "m"
    assert [organ.id for organ in first.organs] == [1, 2, 3]
    assert not second.provenance


def test_layers_of_different_scans_are_not_saved_as_one(viewer, phantom, tmp_path):
    layers = set()
    for name in ("case1_day0", "case2_day5"):
        contours = dataclasses.replace(phantom[1], name=name)
        layers.add(viewer.add_labels(contours.labels().array, **segmentation_to_layer(contours)[1]))
    viewer.layers.selection = layers
    with pytest.raises(InputError, match="not of one scan"):
        viewer.layers.save(str(tmp_path / "out.csv"), selected=True, plugin="napari-gitract")


def test_labels_that_know_no_place_are_not_given_one(viewer, tmp_path):
    labels = viewer.add_labels(np.ones((3, 8, 9), np.uint8), scale=(3, 1.5, 1.5), units=("mm",) * 3)
    viewer.layers.selection = {labels}
    with pytest.raises(InputError, match="does not know where"):
        viewer.layers.save(str(tmp_path / "out.nii.gz"), selected=True, plugin="napari-gitract")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".rtstruct.dcm", ".nii.gz", ".csv", ".tif"])
def test_labels_that_the_user_made_over_a_scan_lie_where_it_lies(
    viewer, load, series, tmp_path, suffix
):
    load(series)
    labels = viewer.add_labels(
        np.zeros((6, 40, 48), np.uint8), scale=viewer.layers[0].scale, units=("mm",) * 3
    )
    labels.data[1, 4:9, 5:11] = 3
    viewer.layers.selection = {labels}
    path = tmp_path / f"own{suffix}"
    assert viewer.layers.save(str(path), selected=True, plugin="napari-gitract") == [str(path)]
    scan = read_scan(series)
    again = read_segmentation(path, scan=scan)
    np.testing.assert_array_equal(again.labels().array, labels.data)
    np.testing.assert_allclose(again.affine, scan.affine)
