"""Export: what is told before, what is written, and what a DICOM node gets."""

import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from napari.layers import Layer
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog

from dicom_phantoms import PATIENT, write_classic_series
from driving import wait
from gitract.export_preview import FORMATS
from gitract.io import read_scan, read_segmentation
from gitract.organs import KNOWN_ORGANS
from gitract.scan import Scan, Segmentation
from gitract.scan_export import SCAN_FORMATS, SCAN_SUFFIX_WITH
from napari_gitract.autosaving import Autosaver
from napari_gitract.layers import contour_layers, scan_to_layer, segmentation_to_layer
from napari_gitract.widgets._to_export import What
from napari_gitract.widgets.export import Export
from orthanc import AE_TITLE, free_port
from phantoms import abdomen_phantom

TUMOUR = KNOWN_ORGANS[-1]


@pytest.fixture
def series(tmp_path: Path) -> Scan:
    """A scan of a DICOM series."""
    scan, _ = abdomen_phantom(slices=6, rows=40, columns=48)
    write_classic_series(tmp_path / "series", scan, description="t2 tra")
    return read_scan(tmp_path / "series")


@pytest.fixture
def contours(series: Scan) -> Segmentation:
    """Contours of it, with a target that overlaps an organ."""
    _, truth = abdomen_phantom(slices=6, rows=40, columns=48)
    masks = np.concatenate([truth.masks, np.roll(truth.masks[2:], 3, axis=3)])
    return replace(
        truth,
        masks=masks,
        organs=(*truth.organs, TUMOUR),
        affine=series.affine,
        name=series.name,
        stored=series.stored,
    )


@pytest.fixture
def layers(viewer, series, contours) -> list[Layer]:
    """The Labels layers of a scan in the viewer: the organs, and the target."""
    image = viewer.add_layer(Layer.create(*scan_to_layer(series)))
    found = contour_layers(contours, image, name=f"{series.name} · small")
    return [viewer.add_layer(Layer.create(*one)) for one in found]


@pytest.fixture
def widget(viewer, layers, qtbot) -> Export:
    """The widget, at the organs of the scan."""
    export = docked(viewer)
    export.choice.labels.layer = layers[0]
    looked(qtbot, export)
    return export


def docked(viewer) -> Export:
    export = Export(viewer)
    viewer.window.add_dock_widget(export, name="Export (napari-gitract)")
    return export


def looked(qtbot, widget) -> None:
    qtbot.waitUntil(lambda: widget.preview is not None)


def click(qtbot, button) -> None:
    assert button.isEnabled()
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def rows(widget) -> dict[str, tuple[str, bool]]:
    """Organ -> its volume as it is shown, and whether it is ticked."""
    table = widget.choice.organs.rows
    return {
        table.item(row, 0).text(): (
            table.item(row, 1).text(),
            table.item(row, 0).checkState() == Qt.CheckState.Checked,
        )
        for row in range(table.rowCount())
    }


def tick(widget, organ: str, state: Qt.CheckState) -> None:
    table = widget.choice.organs.rows
    (row,) = (r for r in range(table.rowCount()) if table.item(r, 0).text() == organ)
    table.item(row, 0).setCheckState(state)


# --- before -------------------------------------------------------------------------------


def test_without_contours_it_says_what_to_do(viewer):
    widget = docked(viewer)
    assert "Segment a scan first" in widget.choice.hint.text()
    assert not widget.export_button.isEnabled()
    assert not widget.node.send_button.isEnabled()
    assert widget.minimumSizeHint().height() < 700
    assert widget.area.widget().minimumSizeHint().width() <= 320


def test_contours_of_a_dicom_series_are_suggested_as_a_structure_set(widget, contours):
    assert widget.choice.suffix == ".rtstruct.dcm"
    shown = np.zeros(contours.shape, np.uint8)  # as a layer shows them: no voxel is two organs'
    for organ, mask in zip(contours.organs[:3], contours.masks, strict=False):
        shown[mask] = organ.id
    voxel_ml = np.prod(contours.spacing) / 1000
    assert rows(widget) == {
        organ.title: (f"{np.count_nonzero(shown == organ.id) * voxel_ml:.1f} mL", True)
        for organ in contours.organs[:3]
    }
    text = widget.about.text()
    assert "MR t2 tra, series 5" in text
    assert "6 × 40 × 48 voxels of 3 × 1.5 × 1.4 mm" in text
    assert widget.choice.deidentify.isChecked()
    assert widget.preview.identifying == ()


def test_the_preview_follows_what_is_chosen(widget, qtbot):
    widget.choice.deidentify.click()
    assert not widget.export_button.isEnabled()  # until what is told is what is chosen
    looked(qtbot, widget)
    assert "Patient ID" in widget.preview.identifying
    assert PATIENT not in widget.about.text()
    tick(widget, "Stomach", Qt.CheckState.Unchecked)
    looked(qtbot, widget)
    assert "Stomach (not chosen)" in widget.about.text()
    assert rows(widget)["Stomach"][1] is False
    widget.choice.choose_format(".csv")
    looked(qtbot, widget)
    assert not widget.choice.deidentify.isEnabled()
    assert "no place for who" in widget.choice.deidentify.toolTip()
    assert widget.preview.format == FORMATS[".csv"]


def test_the_preview_follows_the_brush_and_not_the_slider(widget, layers, qtbot):
    before = widget.preview
    with qtbot.waitSignal(widget._quiet.timeout):
        layers[0].events.set_data()  # as a move of the slider sends it
    qtbot.waitUntil(lambda: widget._looking is None)
    assert widget.preview is before
    layers[0].data_setitem(np.nonzero(layers[0].data == 3), 0)
    qtbot.waitUntil(lambda: widget.preview is not before)
    assert rows(widget)["Stomach"] == ("–", False)
    assert "Stomach (nothing is drawn)" in widget.about.text()


def test_a_scan_that_is_no_dicom_says_so_in_place_of_the_preview(viewer, scan, qtbot, shown):
    labels = np.zeros(scan.shape, np.uint8)
    labels[1:4, 2:8, 2:10] = 3
    part = Segmentation.of_labels(labels, spacing=scan.spacing, name=scan.name)
    viewer.add_layer(Layer.create(*segmentation_to_layer(part)))
    widget = docked(viewer)
    looked(qtbot, widget)
    assert widget.choice.suffix == ".tif"
    widget.choice.choose_format(".seg.dcm")
    qtbot.waitUntil(lambda: "no DICOM series" in widget.about.text())
    assert Qt.mightBeRichText(widget.about.text())  # else its quotes are shown as code
    assert not widget.export_button.isEnabled()
    assert shown == []
    widget.choice.choose_format(".nii.gz")
    looked(qtbot, widget)
    assert widget.export_button.isEnabled()


def test_a_layer_that_leaves_takes_its_preview_along(widget, viewer, qtbot):
    viewer.layers.clear()
    assert widget.preview is None
    assert not widget.export_button.isEnabled()
    assert not widget.about.isVisibleTo(widget)
    assert rows(widget) == {}


@pytest.mark.parametrize("chosen", [None, ".csv"])
def test_the_format_follows_a_layer_that_fills_up_and_then_knows_its_series(
    viewer, contours, qtbot, chosen
):
    widget = docked(viewer)
    empty = np.zeros(contours.shape, np.uint8)
    layer = viewer.add_labels(empty, name="filling up", scale=contours.spacing)
    assert widget.choice.suffix == ".tif"  # no series is known yet
    if chosen:
        widget.choice.choose_format(chosen)
    data, attributes, _ = segmentation_to_layer(contours, name="small")  # as `LiveLabels` does
    layer.metadata = attributes["metadata"]
    layer.name = attributes["name"]
    layer.data = data
    assert widget.choice.suffix == (chosen or ".rtstruct.dcm")
    qtbot.waitUntil(
        lambda: widget.preview is not None and any(o.slices for o in widget.preview.organs),
    )
    assert widget.preview.format == FORMATS[chosen or ".rtstruct.dcm"]
    assert rows(widget)["Stomach"][1] is True


def test_no_organ_chosen_is_nothing_to_export(widget, qtbot):
    for organ in rows(widget):
        looked(qtbot, widget)
        tick(widget, organ, Qt.CheckState.Unchecked)
    qtbot.waitUntil(lambda: "choose an organ" in widget.about.text())
    assert not widget.export_button.isEnabled()


# --- writing ------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_is_written_and_read_back(widget, layers, qtbot, tmp_path, suffix):
    widget.choice.choose_format(suffix)
    looked(qtbot, widget)
    path = tmp_path / f"out{suffix}"
    widget.export(path)
    wait(qtbot, widget)
    assert f"Written to out{suffix}. Read back unchanged: same grid;" in widget.outcome.text()
    assert "Stomach Dice 1.000" in widget.outcome.text()
    again = read_segmentation(path, scan=read_scan(tmp_path / "series"))
    np.testing.assert_array_equal(again.labels().array, layers[0].data)


def test_a_file_is_deidentified_unless_that_is_unticked(widget, qtbot, tmp_path):
    path = tmp_path / "out.rtstruct.dcm"
    widget.export(path)
    wait(qtbot, widget)
    assert PATIENT not in str(pydicom.dcmread(path).PatientName)
    widget.choice.deidentify.click()
    assert widget.outcome.text() == ""  # that was of another choice
    looked(qtbot, widget)
    widget.export(path)
    wait(qtbot, widget)
    assert pydicom.dcmread(path).PatientName == PATIENT


def test_deidentifying_is_on_again_at_the_next_start(widget, viewer, qtbot):
    widget.choice.deidentify.click()
    widget.node.host.setText("pacs.hospital.org")
    again = docked(viewer)
    assert again.choice.deidentify.isChecked()
    assert again.node.host.text() == "pacs.hospital.org"


def test_organs_and_further_layers_are_chosen(widget, contours, qtbot, tmp_path):
    assert widget.choice.others_section.text() == "Further layers (0 of 1)"
    (box,) = (box for _, box in widget.choice.others._boxes)
    box.click()
    assert widget.choice.others_section.text() == "Further layers (1 of 1)"
    looked(qtbot, widget)
    assert set(rows(widget)) == {organ.title for organ in contours.organs}
    tick(widget, "Large bowel", Qt.CheckState.Unchecked)
    looked(qtbot, widget)
    path = tmp_path / "out.rtstruct.dcm"
    widget.export(path)
    wait(qtbot, widget)
    again = read_segmentation(path, scan=read_scan(tmp_path / "series"))
    drawn = {o.name: m for o, m in zip(again.organs, again.masks, strict=True) if m.any()}
    assert set(drawn) == {"small_bowel", "stomach", "gtv"}
    np.testing.assert_array_equal(drawn["gtv"], contours.masks[3])


def test_layers_of_another_scan_are_not_offered(widget, viewer, contours):
    other = replace(contours, name="MR_series_6")
    viewer.add_layer(Layer.create(*segmentation_to_layer(other, name="other")))
    assert all("MR_series_5" in layer.name for layer, _ in widget.choice.others._boxes)


@pytest.mark.parametrize("whole", [True, False])
def test_only_a_whole_layer_counts_as_saved(widget, layers, qtbot, tmp_path, monkeypatch, whole):
    saved = []
    monkeypatch.setattr(Autosaver, "saved", lambda _self, layer, written: saved.append(layer))
    if not whole:
        tick(widget, "Stomach", Qt.CheckState.Unchecked)
        looked(qtbot, widget)
    widget.export(tmp_path / "out.rtstruct.dcm")
    wait(qtbot, widget)
    assert saved == ([layers[0]] if whole else [])


def test_what_cannot_be_written_is_told_once_and_leaves_nothing(widget, qtbot, tmp_path, shown):
    widget.export(tmp_path / "missing" / "out.rtstruct.dcm")
    wait(qtbot, widget)
    assert len(shown) == 1
    assert "does not exist" in shown[0]
    assert widget.outcome.text() == ""
    widget.export(tmp_path / "out.nii.gz")  # not what the preview is about
    assert len(shown) == 2
    assert "does not end in .rtstruct.dcm" in shown[1]
    assert not widget.busy
    widget.export(tmp_path / "series" / "IM0000.dcm.rtstruct.dcm")
    wait(qtbot, widget)
    assert len(shown) == 2


def test_a_name_without_a_suffix_gets_one_and_replaces_nothing_unasked(
    widget, qtbot, tmp_path, monkeypatch
):
    typed = tmp_path / "out"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(typed), ""))
    asked: list[Path] = []
    monkeypatch.setattr(widget, "confirm_replacing", lambda path: bool(asked.append(path)))
    click(qtbot, widget.export_button)
    wait(qtbot, widget)
    path = tmp_path / "out.rtstruct.dcm"
    before = path.read_bytes()
    click(qtbot, widget.export_button)
    wait(qtbot, widget)
    assert asked == [path]
    assert path.read_bytes() == before
    assert widget.last_folder("folder") == str(tmp_path)


# --- a DICOM node ---------------------------------------------------------------------------


def address(widget, port: int, ae_title: str = AE_TITLE) -> None:
    widget.node.host.setText("127.0.0.1")
    widget.node.port.setValue(port)
    widget.node.ae_title.setText(ae_title)


def test_contours_are_sent_as_they_were_previewed(widget, archive, qtbot, tmp_path):
    address(widget, archive.dicom_port)
    widget.node_section.expand()
    click(qtbot, widget.node.test_button)
    wait(qtbot, widget)
    assert widget.node.answer.text() == f"{AE_TITLE}@127.0.0.1:{archive.dicom_port} answers."
    assert "untick De-identify" in widget.node.whose.text()
    widget.choice.deidentify.click()
    assert "name and ID" in widget.node.whose.text()
    looked(qtbot, widget)
    click(qtbot, widget.node.send_button)
    wait(qtbot, widget)
    answer = widget.node.answer.text()
    assert "took the DICOM RT Structure Set." in answer
    assert "Stomach Dice 1.000" in answer
    series = pydicom.dcmread(next((tmp_path / "series").iterdir()))
    (identity,) = archive.found_at("Series", StudyInstanceUID=series.StudyInstanceUID)
    assert b'"RTSTRUCT"' in archive.get(f"/series/{identity}")
    widget.node.ae_title.setText("OTHER")
    assert widget.node.answer.text() == ""  # that was another node


def test_what_no_node_takes_is_not_sent(widget, qtbot):
    widget.choice.choose_format(".nii.gz")
    looked(qtbot, widget)
    assert not widget.node.send_button.isEnabled()
    assert "Only DICOM can be sent" in widget.node.whose.text()


def test_a_node_that_is_not_there_and_one_that_cannot_be_are_told_once(widget, qtbot, shown):
    address(widget, free_port())
    click(qtbot, widget.node.send_button)
    wait(qtbot, widget)
    assert len(shown) == 1
    assert "Nothing listens" in shown[0]
    widget.node.ae_title.setText("")
    click(qtbot, widget.node.test_button)
    assert len(shown) == 2
    assert "AE title" in shown[1]
    assert not widget.busy


def test_nothing_is_sent_unless_the_button_is_pressed(widget, qtbot, tmp_path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0.5)
        address(widget, listener.getsockname()[1])
        widget.export(tmp_path / "out.rtstruct.dcm")
        wait(qtbot, widget)
        with pytest.raises(TimeoutError):
            listener.accept()


# --- the scan -------------------------------------------------------------------------------


def test_without_a_scan_it_says_what_to_do(viewer):
    widget = docked(viewer)
    widget.choice.choose_what(What.SCAN)
    assert "Open a scan" in widget.choice.hint.text()
    assert not widget.export_button.isEnabled()


@pytest.mark.parametrize("suffix", SCAN_FORMATS)
def test_a_scan_is_written_in_every_format_and_read_back(widget, series, qtbot, tmp_path, suffix):
    widget.choice.choose_what(What.SCAN)
    assert widget.choice.suffix == ".dcm"  # as it was read
    assert not widget.choice.organs.isVisibleTo(widget)
    widget.choice.choose_format(suffix)
    looked(qtbot, widget)
    assert "6 × 40 × 48 voxels of 3 × 1.5 × 1.4 mm" in widget.about.text()
    path = tmp_path / f"out{suffix}"
    widget.export(path)
    wait(qtbot, widget)
    assert widget.outcome.text().startswith(f"Written to out{suffix}. Scan read back unchanged")
    again = read_scan(path)
    np.testing.assert_array_equal(again.voxels, series.voxels)
    np.testing.assert_allclose(again.affine, series.affine, atol=1e-4)


@pytest.mark.parametrize("suffix", FORMATS)
def test_contours_go_with_their_scan(widget, layers, series, qtbot, tmp_path, suffix):
    widget.choice.choose_format(suffix)
    widget.choice.choose_what(What.BOTH)
    assert widget.choice.suffix == suffix
    looked(qtbot, widget)
    assert f"scan{SCAN_SUFFIX_WITH[suffix]}" in widget.about.text()
    out = tmp_path / "out"
    widget.export(out)
    wait(qtbot, widget)
    assert widget.outcome.text().startswith("Written to out. Scan read back unchanged")
    assert "Contours read back upon it unchanged: same grid;" in widget.outcome.text()
    again = read_scan(out / f"scan{SCAN_SUFFIX_WITH[suffix]}")
    np.testing.assert_array_equal(again.voxels, series.voxels)
    read = read_segmentation(out / f"contours{suffix}", scan=again)
    np.testing.assert_array_equal(read.labels().array, layers[0].data)
    assert PATIENT.encode() not in b"".join(f.read_bytes() for f in out.rglob("*") if f.is_file())


def test_scan_and_contours_keep_the_patient_where_that_is_chosen(widget, qtbot, tmp_path):
    widget.choice.choose_what(What.BOTH)
    looked(qtbot, widget)
    assert "a new series" in widget.about.text()
    assert "written with it" in widget.about.text()
    widget.choice.deidentify.click()
    looked(qtbot, widget)
    assert "copied as they are" in widget.about.text()
    widget.export(tmp_path / "out")
    wait(qtbot, widget)
    files = [*(tmp_path / "out" / "scan.dcm").iterdir(), tmp_path / "out/contours.rtstruct.dcm"]
    assert {str(pydicom.dcmread(file).PatientName) for file in files} == {PATIENT}


def test_contours_of_a_scan_that_is_no_dicom_go_with_it_as_dicom(viewer, scan, qtbot, tmp_path):
    image = viewer.add_layer(Layer.create(*scan_to_layer(scan)))
    labels = np.zeros(scan.shape, np.uint8)
    labels[1:4, 2:8, 2:10] = 3
    part = Segmentation.of_labels(labels, spacing=scan.spacing, name=scan.name)
    viewer.add_layer(Layer.create(*segmentation_to_layer(part, image)))
    widget = docked(viewer)
    widget.choice.choose_what(What.BOTH)
    widget.choice.choose_format(".seg.dcm")
    assert not widget.choice.deidentify.isEnabled()
    assert "no DICOM series" in widget.choice.deidentify.toolTip()
    looked(qtbot, widget)
    widget.export(tmp_path / "out")
    wait(qtbot, widget)
    assert "slices in reverse order, same values" in widget.outcome.text()
    read = read_segmentation(
        tmp_path / "out" / "contours.seg.dcm", scan=read_scan(tmp_path / "out" / "scan.dcm")
    )
    np.testing.assert_array_equal(read.labels().array, labels[::-1])


def test_contours_painted_over_a_scan_go_with_it(viewer, series, qtbot, tmp_path):
    viewer.add_layer(Layer.create(*scan_to_layer(series)))
    labels = np.zeros(series.shape, np.uint8)
    labels[1:4, 2:8, 2:10] = 3
    viewer.add_labels(labels, name="mine", scale=series.spacing)
    widget = docked(viewer)
    assert widget.choice.suffix == ".rtstruct.dcm"
    widget.choice.choose_what(What.BOTH)
    looked(qtbot, widget)
    widget.export(tmp_path / "out")
    wait(qtbot, widget)
    assert "Stomach Dice 1.000" in widget.outcome.text()


def test_contours_whose_scan_is_not_open_cannot_go_with_it(widget, viewer, qtbot, shown):
    widget.choice.choose_what(What.BOTH)
    looked(qtbot, widget)
    viewer.layers.remove("MR_series_5")
    assert "is not open" in widget.about.text()
    assert not widget.export_button.isEnabled()
    widget.choice.choose_what(What.CONTOURS)
    looked(qtbot, widget)
    assert shown == []


def test_values_that_no_dicom_image_holds_are_told_before(widget, viewer, qtbot, shown):
    image = viewer.layers["MR_series_5"]
    image.data = image.data * np.float32(0.37)
    widget.choice.choose_what(What.BOTH)
    qtbot.waitUntil(lambda: "16 bits" in widget.about.text())
    assert not widget.export_button.isEnabled()
    widget.choice.choose_format(".nii.gz")
    looked(qtbot, widget)
    assert shown == []


def test_a_folder_that_is_in_use_is_told_once_and_left_alone(widget, qtbot, tmp_path, shown):
    widget.choice.choose_what(What.BOTH)
    looked(qtbot, widget)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter.txt").write_text("mine")
    widget.export(tmp_path / "out")
    wait(qtbot, widget)
    assert len(shown) == 1
    assert "choose a new folder" in shown[0]
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["letter.txt"]
    assert widget.outcome.text() == ""


def test_a_scan_does_not_replace_the_files_it_was_read_from(viewer, qtbot, tmp_path, shown):
    scan, _ = abdomen_phantom(slices=6, rows=40, columns=48)
    files = write_classic_series(tmp_path / "day.dcm", scan)
    before = [file.read_bytes() for file in files]
    viewer.add_layer(Layer.create(*scan_to_layer(read_scan(tmp_path / "day.dcm"))))
    widget = docked(viewer)
    widget.choice.choose_what(What.SCAN)
    looked(qtbot, widget)
    widget.export(tmp_path / "day.dcm")
    wait(qtbot, widget)
    assert len(shown) == 1
    assert "choose another name" in shown[0]
    assert [file.read_bytes() for file in files] == before


def test_a_new_folder_is_suggested_that_is_free(widget, qtbot, tmp_path, monkeypatch):
    suggested: list[Path] = []

    def answer(_parent, _title, suggestion, _filter):
        suggested.append(tmp_path / suggestion)
        return str(suggested[-1]), ""

    monkeypatch.setattr(QFileDialog, "getSaveFileName", answer)
    monkeypatch.setattr(widget, "last_folder", lambda _name: str(tmp_path))
    widget.choice.choose_what(What.BOTH)
    for _ in range(2):
        looked(qtbot, widget)
        click(qtbot, widget.export_button)
        wait(qtbot, widget)
    assert [path.name for path in suggested] == ["MR_series_5_small", "MR_series_5_small_2"]
    for path in suggested:
        assert {"scan.dcm", "contours.rtstruct.dcm"} < {one.name for one in path.iterdir()}


def test_both_are_sent_and_belong_to_each_other(widget, archive, qtbot):
    address(widget, archive.dicom_port)
    widget.choice.choose_what(What.BOTH)
    looked(qtbot, widget)
    assert "a pseudonym names" in widget.node.whose.text()
    click(qtbot, widget.node.send_button)
    wait(qtbot, widget)
    answer = widget.node.answer.text()
    assert "took the DICOM RT Structure Set and its scan." in answer
    assert "Scan read back unchanged" in answer
    patients = archive.found_at("Patient", PatientID="ANON-*")
    assert len(patients) == 1
    assert len(archive.found_at("Series", PatientID="ANON-*")) == 2
