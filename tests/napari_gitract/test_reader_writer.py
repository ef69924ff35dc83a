"""What napari itself calls: readers, writer, sample data, manifest."""

from unittest.mock import Mock

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer
from npe2 import PluginManager, PluginManifest

import napari_gitract
from gitract.errors import InputError
from napari_gitract._reader import file_reader, folder_reader, read_layers
from napari_gitract._sample_data import abdomen_sample
from napari_gitract._writer import write_labels_tiff
from napari_gitract.layers import segmentation_to_layer
from phantoms import abdomen_phantom, write_competition_day


@pytest.fixture
def phantom():
    return abdomen_phantom(slices=6, rows=40, columns=48)


@pytest.fixture
def day(tmp_path, phantom):
    return write_competition_day(tmp_path, *phantom)


def test_a_folder_of_slices_becomes_scan_and_reference(day, phantom):
    scan, truth = phantom
    read = folder_reader(str(day))
    assert read is not None
    image, labels = (Layer.create(*layer) for layer in read([str(day)]))
    assert isinstance(image, Image)
    np.testing.assert_array_equal(image.data, scan.voxels)
    np.testing.assert_allclose(image.scale, scan.spacing)
    assert isinstance(labels, Labels)
    np.testing.assert_array_equal(labels.data, truth.labels().array)
    assert labels.name.endswith("· reference")


def test_the_folder_reader_says_no_to_other_folders_and_quickly(tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    for number in range(3000):
        (other / f"photo_{number}.jpg").touch()
    opened = Mock(side_effect=open)
    monkeypatch.setattr("builtins.open", opened)
    monkeypatch.setattr("io.open", opened)
    assert folder_reader(str(other)) is None
    assert opened.call_count < 30
    assert folder_reader(str(tmp_path / "absent")) is None
    assert folder_reader([str(other), str(other)]) is None
    assert folder_reader(str(other / "photo_1.jpg")) is None


def test_the_file_reader_leaves_stacks_of_tiffs_to_others(tmp_path):
    assert file_reader([str(tmp_path / "a.tif"), str(tmp_path / "b.tif")]) is None
    assert file_reader(str(tmp_path / "a.png")) is None


def test_a_broken_folder_is_one_sentence_and_no_layer(day):
    next((day / "scans").glob("slice_0003*")).unlink()
    read = folder_reader(day)
    assert read is not None
    with pytest.raises(InputError, match="slice 3"):
        read(str(day))


def test_labels_are_saved_and_reopened(tmp_path, phantom):
    _, truth = phantom
    layer = Layer.create(*segmentation_to_layer(truth))
    path = tmp_path / "labels.tif"
    data, attributes, _ = layer.as_layer_data_tuple()
    assert write_labels_tiff(str(path), data, attributes) == [str(path)]
    [again] = (Layer.create(*layer) for layer in read_layers(path))
    assert isinstance(again, Labels)
    np.testing.assert_array_equal(again.data, layer.data)
    np.testing.assert_allclose(again.scale, layer.scale)


def test_any_labels_layer_in_millimetres_can_be_saved(tmp_path):
    layer = Labels(np.ones((3, 8, 8), int), scale=(3, 2, 2))
    data, attributes, _ = layer.as_layer_data_tuple()
    [path] = write_labels_tiff(str(tmp_path / "labels.tif"), data, attributes)
    [(_, again, _)] = read_layers(path)
    assert again["scale"] == (3, 2, 2)


def test_labels_that_are_no_organs_are_saved_as_napari_would(tmp_path):
    cells = np.arange(3 * 8 * 8, dtype=np.int32).reshape(3, 8, 8)
    data, attributes, _ = Labels(cells).as_layer_data_tuple()
    [path] = write_labels_tiff(str(tmp_path / "cells.tif"), data, attributes)
    np.testing.assert_array_equal(tifffile.imread(path), cells)


def test_a_value_that_is_no_organ_is_refused_in_a_layer_of_ours(tmp_path, phantom):
    layer = Layer.create(*segmentation_to_layer(phantom[1]))
    layer.data[0, 0, 0] = 9
    data, attributes, _ = layer.as_layer_data_tuple()
    with pytest.raises(InputError, match="9"):
        write_labels_tiff(str(tmp_path / "labels.tif"), data, attributes)
    assert list(tmp_path.iterdir()) == []


def test_the_sample_is_a_scan_with_its_organs():
    image, labels = (Layer.create(*layer) for layer in abdomen_sample())
    assert isinstance(image, Image)
    assert isinstance(labels, Labels)
    assert set(np.unique(labels.data)) == {0, 1, 2, 3}


def test_dropping_folders_and_saving_go_through_the_manifest(npe2pm, day, tmp_path):
    manager: PluginManager = npe2pm
    manifest = PluginManifest.from_file(
        napari_gitract.__path__[0] + "/napari.yaml"  # the installed one may be older
    )
    with manager.tmp_plugin(manifest=manifest):
        viewer = ViewerModel()
        image, labels = viewer.open(day, plugin="napari-gitract")
        assert image.name == "case1_day0"
        saved = viewer.layers.selection
        saved.clear()
        saved.add(labels)
        path = tmp_path / "out.tif"
        assert viewer.layers.save(str(path), selected=True, plugin="napari-gitract") == [str(path)]
        [again] = viewer.open(path, plugin="napari-gitract")
        np.testing.assert_array_equal(again.data, labels.data)
