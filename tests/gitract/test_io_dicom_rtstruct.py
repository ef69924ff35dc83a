"""RT Structure Sets: every voxel back, nothing in the wrong place, what others write."""

import dataclasses
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from scipy.ndimage import distance_transform_edt
from scipy.spatial.transform import Rotation

from dicom_phantoms import PATIENT, write_classic_series, write_enhanced
from gitract import INTENDED_USE
from gitract._version import __version__
from gitract.baseline import slice_digests
from gitract.errors import InputError
from gitract.io import (
    holds_labels,
    label_names,
    read_scan,
    read_segmentation,
    write_segmentation,
)
from gitract.organs import KNOWN_ORGANS, ORGANS, Organ, organ_named
from gitract.scan import Scan, Segmentation, Spacing
from phantoms import abdomen_phantom
from sentences import assert_one_sentence

FILE = "contours.rtstruct.dcm"
LARGE, SMALL, STOMACH = range(3)


def pattern() -> np.ndarray:
    """Masks of all organs ``(organ, slice, row, column)`` with every difficulty there is."""
    masks = np.zeros((3, 4, 12, 15), dtype=np.bool_)
    masks[STOMACH, 1:3, 2:10, 3:12] = True
    masks[STOMACH, 1, 4:8, 5:10] = False  # a hole
    masks[STOMACH, 1, 5:7, 6:8] = True  # an island in it
    masks[STOMACH, 2, 4, 5] = masks[STOMACH, 2, 6, 5] = False  # two holes above each other
    masks[STOMACH, 2, 0, 0] = True  # a single pixel in the corner
    masks[SMALL, 0:2, 6:12, 9:15] = True  # at the border, and shared with the stomach
    masks[SMALL, 0, 6, 9] = masks[SMALL, 0, 5, 8] = True  # these touch at a corner
    return masks


def scan_of(shape: tuple[int, ...], **geometry: Any) -> Scan:
    """A scan of noise; spacing ``(3, 1.5, 0.7)`` mm unless given."""
    voxels = np.random.default_rng(1).integers(0, 900, shape).astype(np.uint16)
    return Scan(voxels=voxels, **{"spacing": (3.0, 1.5, 0.7), **geometry})


def drawn(folder: Path, masks: np.ndarray | None = None, **more: Any) -> Segmentation:
    """The pattern, or other masks, on a new series in `folder`."""
    masks = pattern() if masks is None else masks
    scan = scan_of(masks.shape[1:])
    write_classic_series(folder, scan)
    segmentation = Segmentation(masks=masks, spacing=scan.spacing, affine=scan.affine, **more)
    return segmentation.on(read_scan(folder))


def as_drawn(segmentation: Segmentation) -> Segmentation:
    """In the order of the masks that `drawn` was given; a series turns the slices around."""
    return segmentation.on(scan_of(segmentation.shape))


def written(folder: Path, masks: np.ndarray | None = None, **more: Any) -> Path:
    """The file of contours beside their series."""
    return write_segmentation(drawn(folder, masks, **more), folder / FILE)


def changed(path: Path, change: Callable[[Dataset], Any], *, notes: bool = False) -> Path:
    """The file as another program would have written it, without our notes."""
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)
    if not notes:
        Path(f"{path}.json").unlink(missing_ok=True)
    return path


def organ_of(segmentation: Segmentation, name: str) -> np.ndarray:
    """The mask of an organ."""
    return segmentation.masks[[organ.name for organ in segmentation.organs].index(name)]


# --- there and back -----------------------------------------------------------------------


def test_every_voxel_comes_back(tmp_path: Path) -> None:
    segmentation = drawn(tmp_path, provenance={"model": "small", "edited": [1]})
    path = write_segmentation(segmentation, tmp_path / FILE)
    back = read_segmentation(path)  # finds its series by itself
    np.testing.assert_array_equal(back.masks, segmentation.masks)
    np.testing.assert_array_equal(back.affine, segmentation.affine)
    assert back.organs == ORGANS
    assert back.remarks == ()
    for field in ("name", "spacing", "stored", "provenance"):
        assert getattr(back, field) == getattr(segmentation, field)
    assert holds_labels(path)
    assert label_names(path) == ["Small bowel", "Stomach"]  # the large bowel has no voxel
    with pytest.raises(InputError, match="not a scan"):
        read_scan(path)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    turn=st.tuples(*[st.floats(-3.1, 3.1)] * 3),
    spacing=st.tuples(st.floats(0.5, 6), st.floats(0.3, 3), st.floats(0.3, 3)),
    origin=st.tuples(*[st.floats(-900, 900)] * 3),
    left_handed=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_direction_comes_back(
    tmp_path: Path,
    turn: tuple[float, float, float],
    spacing: Spacing,
    origin: tuple[float, float, float],
    left_handed: bool,
    seed: int,
) -> None:
    folder = tmp_path / f"{len(os.listdir(tmp_path))}"
    directions = Rotation.from_rotvec(turn).as_matrix()
    directions[:, 0] *= -1 if left_handed else 1
    affine = np.eye(4)
    affine[:3] = np.column_stack([directions * spacing, origin])
    masks = np.random.default_rng(seed).random((3, 3, 9, 8)) < 0.6
    scan = scan_of(masks.shape[1:], spacing=spacing, affine=affine)
    write_classic_series(folder, scan)
    series = read_scan(folder)
    segmentation = Segmentation(masks=masks, spacing=spacing, affine=affine).on(series)
    path = write_segmentation(segmentation, folder / FILE)
    np.testing.assert_array_equal(read_segmentation(path, scan=series).masks, segmentation.masks)
    # Where the voxels were in the patient, whatever order the series brought them into.
    np.testing.assert_array_equal(read_segmentation(path).on(scan).masks, masks)


def test_contours_on_an_enhanced_image(tmp_path: Path) -> None:
    masks = pattern()
    scan = scan_of(masks.shape[1:])
    series = read_scan(write_enhanced(tmp_path / "mr.dcm", scan))
    segmentation = Segmentation(masks=masks, spacing=scan.spacing, affine=scan.affine).on(series)
    path = write_segmentation(segmentation, tmp_path / FILE)
    np.testing.assert_array_equal(read_segmentation(path).masks, segmentation.masks)
    images = pydicom.dcmread(tmp_path / "mr.dcm")
    positions = [
        frame.PlanePositionSequence[0].ImagePositionPatient
        for frame in images.PerFrameFunctionalGroupsSequence
    ]
    dataset = pydicom.dcmread(path)
    for roi in dataset.ROIContourSequence:
        for contour in roi.ContourSequence:
            (image,) = contour.ContourImageSequence
            assert image.ReferencedSOPInstanceUID == images.SOPInstanceUID
            height = positions[image.ReferencedFrameNumber - 1][2]
            assert contour.ContourData[2::3] == [height] * contour.NumberOfContourPoints
    (frame,) = dataset.ReferencedFrameOfReferenceSequence
    (whole,) = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0].ContourImageSequence
    assert "ReferencedFrameNumber" not in whole


def test_contours_too_long_for_explicit_lengths(tmp_path: Path) -> None:
    comb = np.zeros((3, 2, 200, 200), dtype=np.bool_)
    comb[STOMACH, :, 0] = comb[STOMACH, :, :, ::4] = comb[STOMACH, :, ::2, 1::4] = True
    path = written(tmp_path, comb)
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == pydicom.uid.ImplicitVRLittleEndian
    np.testing.assert_array_equal(organ_of(read_segmentation(path), "stomach"), comb[STOMACH])


# --- what the file says -------------------------------------------------------------------


def test_contours_run_where_the_masks_end(tmp_path: Path) -> None:
    truth = abdomen_phantom(slices=10, rows=128, columns=128)[1]
    segmentation = drawn(tmp_path, truth.masks)
    dataset = pydicom.dcmread(write_segmentation(segmentation, tmp_path / FILE))
    inverse = np.linalg.inv(segmentation.affine)
    pixel_mm = float(np.prod(segmentation.spacing[1:]))
    judged = 0
    for roi in dataset.ROIContourSequence:
        mask = segmentation.masks[roi.ReferencedROINumber - 1]
        areas = np.zeros(len(mask))
        for contour in roi.ContourSequence:
            points = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
            assert len(points) == contour.NumberOfContourPoints
            place = points @ inverse[:3, :3].T + inverse[:3, 3]
            index = round(place[0, 0])
            np.testing.assert_allclose(place[:, 0], index, atol=1e-4)
            row, column = place[:, 1:].T
            areas[index] += abs(column @ np.roll(row, -1) - row @ np.roll(column, -1)) / 2
            _check_between(place[:, 1:], mask[index])
        for index, plane in enumerate(mask):
            if plane.sum() > 200:
                judged += 1
                area, voxels = areas[index] * pixel_mm, plane.sum() * pixel_mm
                assert area == pytest.approx(voxels, rel=0.01)
    assert judged > 5


def _check_between(points: np.ndarray, mask: np.ndarray) -> None:
    """No point is further than half a pixel from the centre of one inside and one outside."""
    padded = np.pad(mask, 1)
    for row, column in points + 1:
        near = [
            padded[i, j]
            for i in {int(np.floor(row + 1e-3)), int(np.ceil(row - 1e-3))}
            for j in {int(np.floor(column + 1e-3)), int(np.ceil(column - 1e-3))}
        ]
        assert sorted(near) == [False, True]


def test_the_file_refers_to_patient_study_and_images(tmp_path: Path) -> None:
    segmentation = drawn(tmp_path)
    dataset = pydicom.dcmread(write_segmentation(segmentation, tmp_path / FILE))
    source = pydicom.dcmread(next(tmp_path.glob("IM*.dcm")))
    for name in ("PatientName", "PatientID", "PatientBirthDate", "StudyDate", "StudyInstanceUID"):
        assert dataset[name].value == source[name].value
    assert dataset.PatientSex == ""  # not known, yet required to be there
    assert dataset.SeriesInstanceUID != source.SeriesInstanceUID
    assert dataset.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert dataset.Manufacturer == "napari-gitract developers"
    assert dataset.SoftwareVersions == __version__
    assert dataset.ApprovalStatus == "UNAPPROVED"
    assert dataset.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
    (frame,) = dataset.ReferencedFrameOfReferenceSequence
    (study,) = frame.RTReferencedStudySequence
    (series,) = study.RTReferencedSeriesSequence
    assert study.ReferencedSOPInstanceUID == source.StudyInstanceUID
    assert series.SeriesInstanceUID == source.SeriesInstanceUID
    images = {
        image.SOPInstanceUID: image for image in map(pydicom.dcmread, tmp_path.glob("IM*.dcm"))
    }
    assert {item.ReferencedSOPInstanceUID for item in series.ContourImageSequence} == set(images)
    for roi in dataset.ROIContourSequence:
        for contour in roi.ContourSequence:
            assert contour.ContourGeometricType == "CLOSED_PLANAR"
            image = images[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
            assert contour.ContourData[2] == pytest.approx(image.ImagePositionPatient[2])


def test_regions_are_organs_with_codes_and_colours(tmp_path: Path) -> None:
    organs = (organ_named("stomach"), organ_named("gtv", KNOWN_ORGANS), KNOWN_ORGANS[15])
    masks = pattern()
    masks[LARGE] = masks[SMALL]
    dataset = pydicom.dcmread(written(tmp_path, masks, organs=organs))
    rois, contours, observations = (
        dataset[name].value
        for name in ("StructureSetROISequence", "ROIContourSequence", "RTROIObservationsSequence")
    )
    assert [(roi.ROINumber, roi.ROIName) for roi in rois] == [
        (3, "Stomach"),
        (17, "GTV"),
        (16, "Body"),
    ]
    assert list(contours[0].ROIDisplayColor) == [0xD9, 0x46, 0x7E]
    kinds = [item.RTROIInterpretedType for item in observations]
    assert kinds == ["ORGAN", "GTV", "EXTERNAL"]
    code = observations[0].RTROIIdentificationCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("69695003", "SCT")


CARRIED = {"propagated_from": "Smith_day0", "baseline": True}


@pytest.mark.parametrize(
    ("provenance", "edit", "algorithm", "said"),
    [
        ({}, False, "MANUAL", INTENDED_USE),
        ({"model": "m" * 70}, False, "AUTOMATIC", "Calculated by model mmm"),
        ({"model": "small", "edited": [0, 2]}, False, "SEMIAUTOMATIC", "0, 2."),
        ({"model": "small", "baseline": True}, False, "AUTOMATIC", "by model small."),
        ({"model": "small", "baseline": True}, True, "SEMIAUTOMATIC", "(0-based): 3."),
        (CARRIED, False, "AUTOMATIC", "by registration with another day."),
        (CARRIED, True, "SEMIAUTOMATIC", "(0-based): 3."),
    ],
)
def test_the_file_says_how_the_contours_came_about(
    tmp_path: Path, provenance: dict[str, Any], edit: bool, algorithm: str, said: str
) -> None:
    segmentation = drawn(tmp_path)
    if "baseline" in provenance:
        provenance = {**provenance, "baseline": slice_digests(segmentation.labels().array)}
    masks = segmentation.masks.copy()
    masks[LARGE, 3, 0, 0] = edit
    segmentation = dataclasses.replace(segmentation, masks=masks, provenance=provenance)
    dataset = pydicom.dcmread(write_segmentation(segmentation, tmp_path / FILE))
    for roi in dataset.StructureSetROISequence:
        assert roi.ROIGenerationAlgorithm == algorithm
        assert len(roi.ROIGenerationDescription) <= 64
    assert said in dataset.StructureSetDescription
    assert "Smith" not in str(dataset)  # whose earlier day it was


def test_the_standard_is_kept(tmp_path: Path, program: Callable[[str, str], str]) -> None:
    judge = program("dciodvfy", "dicom3tools")
    series = read_scan(write_enhanced(tmp_path / "enhanced" / "mr.dcm", scan_of((4, 12, 15))))
    segmentation = drawn(tmp_path / "classic", provenance={"model": "small", "edited": [1]})
    paths = [
        write_segmentation(segmentation, tmp_path / f"classic_{FILE}"),
        write_segmentation(segmentation.on(series), tmp_path / f"enhanced_{FILE}"),
    ]
    for path in paths:
        said = subprocess.run([judge, str(path)], capture_output=True, text=True).stderr
        assert "RTStructureSet" in said
        assert [line for line in said.splitlines() if line.startswith("Error")] == []


def test_the_patient_is_named_in_the_patient_module_alone(tmp_path: Path) -> None:
    path = written(tmp_path)
    source = pydicom.dcmread(next(tmp_path.glob("IM*.dcm")))
    identifying = [PATIENT, "Jane", source.PatientID, source.PatientBirthDate, "General Hospital"]
    notes = Path(f"{path}.json").read_text()
    back = read_segmentation(path)
    for text in identifying:
        assert text not in notes
        assert text not in f"{back.name} {back.remarks} {back.provenance}"
    dataset = pydicom.dcmread(path)
    del dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate
    for text in identifying:
        assert text not in str(dataset)


def test_headers_that_break_the_rules_are_copied_as_they_are(tmp_path: Path) -> None:
    masks = pattern()
    scan = scan_of(masks.shape[1:])
    with pydicom.config.disable_value_validation():
        paths = write_classic_series(tmp_path, scan)
        for path in paths:
            changed(path, lambda d: d.update({"StudyDate": "2024.01.31", "PatientID": "7" * 80}))
    segmentation = Segmentation(masks=masks, spacing=scan.spacing, affine=scan.affine)
    path = write_segmentation(segmentation.on(read_scan(tmp_path)), tmp_path / FILE)
    with pydicom.config.disable_value_validation():
        dataset = pydicom.dcmread(path)
        assert dataset.StudyDate == "2024.01.31"
        assert dataset.PatientID == "7" * 80


@pytest.mark.parametrize(
    ("name", "charset"), [("Müller^Jörg", "ISO_IR 100"), ("Иванов^Иван", "ISO_IR 144")]
)
def test_names_in_other_scripts_are_copied(tmp_path: Path, name: str, charset: str) -> None:
    masks = pattern()
    scan = scan_of(masks.shape[1:])
    write_classic_series(tmp_path, scan, patient_name=name, SpecificCharacterSet=charset)
    segmentation = Segmentation(masks=masks, spacing=scan.spacing, affine=scan.affine)
    path = write_segmentation(segmentation.on(read_scan(tmp_path)), tmp_path / FILE)
    assert pydicom.dcmread(path).PatientName == name


# --- organs and notes ---------------------------------------------------------------------


def test_names_find_their_organs(tmp_path: Path) -> None:
    masks = np.concatenate([pattern(), pattern()[[STOMACH]]])
    organs = (*ORGANS, Organ(18, "ptv_boost", "#112233"))
    masks[LARGE] = masks[SMALL]
    path = written(tmp_path, masks, organs=organs)
    others = ["Colon", "Bowel_Small", "STOMACH_1", "Target X"]

    def rename(dataset: Dataset) -> None:
        for roi, name in zip(dataset.StructureSetROISequence, others, strict=True):
            roi.ROIName = name

    changed(path, rename)
    assert label_names(path) == others
    back = as_drawn(read_segmentation(path))
    assert [organ.name for organ in back.organs] == [
        "large_bowel",
        "small_bowel",
        "stomach",
        "target_x",
    ]
    np.testing.assert_array_equal(organ_of(back, "stomach"), pattern()[STOMACH])
    np.testing.assert_array_equal(organ_of(back, "target_x"), pattern()[STOMACH])
    chosen = read_segmentation(path, choices={"Target X": "duodenum", "Colon": "-"})
    assert [organ.name for organ in chosen.organs][3:] == ["duodenum"]
    assert not organ_of(chosen, "large_bowel").any()


def test_regions_of_one_organ_are_united_with_a_remark(tmp_path: Path) -> None:
    def rename(dataset: Dataset) -> None:
        for roi in dataset.StructureSetROISequence:
            roi.ROIName = "Stomach"

    path = changed(written(tmp_path), rename)
    assert label_names(path) == ["Stomach", "Stomach 2"]
    back = as_drawn(read_segmentation(path))
    both = pattern()[STOMACH] | pattern()[SMALL]
    np.testing.assert_array_equal(organ_of(back, "stomach"), both)
    assert back.remarks == ("2 ROIs were united as one organ, Stomach.",)


def test_organs_and_provenance_come_back_by_the_notes(tmp_path: Path) -> None:
    organs = (*ORGANS[:2], Organ(3, "stomach", "#123456"), Organ(40, "stomach_2", "#654321"))
    masks = np.concatenate([pattern(), ~pattern()[[STOMACH]]])
    segmentation = drawn(
        tmp_path, masks, organs=organs, provenance={"model": "m", "baseline": ["a"] * 4}
    )
    path = write_segmentation(segmentation, tmp_path / FILE)
    back = read_segmentation(path)
    assert back.organs == organs  # the large bowel without a voxel, too
    assert back.provenance == segmentation.provenance
    np.testing.assert_array_equal(back.masks, segmentation.masks)
    named = read_segmentation(path, choices={"Stomach": "stomach"})
    assert named.provenance == segmentation.provenance
    other = read_segmentation(path, choices={"Stomach": "duodenum"})
    assert other.provenance == {}
    np.testing.assert_array_equal(organ_of(as_drawn(other), "duodenum"), masks[STOMACH])


def test_notes_of_another_file_do_not_count(tmp_path: Path) -> None:
    path = written(tmp_path, provenance={"model": "m"})
    new = pydicom.uid.generate_uid()
    changed(path, lambda dataset: setattr(dataset, "SOPInstanceUID", new), notes=True)
    assert Path(f"{path}.json").exists()
    assert read_segmentation(path).provenance == {}


# --- contours of other programs -----------------------------------------------------------


def only_contour(points: Any, kind: str | None = "CLOSED_PLANAR") -> Callable[[Dataset], None]:
    """Change a file to one with a single contour of the first ROI."""

    def change(dataset: Dataset) -> None:
        contours = dataset.ROIContourSequence[0].ContourSequence
        contour = contours[0]
        contour.ContourData = list(points)
        contour.NumberOfContourPoints = len(points) // 3
        if kind is None:
            del contour.ContourGeometricType
        else:
            contour.ContourGeometricType = kind
        dataset.ROIContourSequence[0].ContourSequence = [contour]

    return change


def square(height: float = -3.0, low: float = 1.4, high: float = 6.4) -> list[float]:
    """A square in mm on the second slice from above, rows every 1.5 mm, columns every 0.7."""
    corners = [(low, low), (high, low), (high, high), (low, high)]
    return [round(mm, 3) for x, y in corners for mm in (x, y, height)]


@pytest.mark.parametrize("kind", ["CLOSED_PLANAR", "CLOSEDPLANAR_XOR", None])
def test_closed_contours_are_filled(tmp_path: Path, kind: str | None) -> None:
    path = changed(written(tmp_path), only_contour(square(), kind))
    mask = organ_of(as_drawn(read_segmentation(path)), "small_bowel")
    expected = np.zeros((4, 12, 15), dtype=np.bool_)
    expected[1, 1:5, 2:10] = True  # 1.5 to 6 mm; 1.4 (on the edge, in) to 6.3 mm
    np.testing.assert_array_equal(mask, expected)


def test_nested_contours_make_holes_and_islands(tmp_path: Path) -> None:
    def nest(dataset: Dataset) -> None:
        only_contour(square(0, 0.1, 9.9))(dataset)
        (outer,) = contours = dataset.ROIContourSequence[0].ContourSequence
        for low, high in ((2.1, 8.1), (4.1, 6.3)):
            inner = Dataset()
            inner.ContourGeometricType = "CLOSED_PLANAR"
            inner.ContourData = square(0, low, high)
            inner.NumberOfContourPoints = 4
            contours.append(inner)

    path = changed(written(tmp_path), nest)
    mask = organ_of(as_drawn(read_segmentation(path)), "small_bowel")
    row, column = np.meshgrid(np.arange(12) * 1.5, np.arange(15) * 0.7, indexing="ij")

    def within(low: float, high: float) -> np.ndarray:
        return (low < row) & (row < high) & (low - 1e-6 < column) & (column < high - 1e-6)

    np.testing.assert_array_equal(mask[0], within(0.1, 9.9) & ~within(2.1, 8.1) | within(4.1, 6.3))


def twice(dataset: Dataset) -> None:
    """Every contour there is once more."""
    for roi in dataset.ROIContourSequence:
        roi.ContourSequence = [*roi.ContourSequence, *roi.ContourSequence]


def test_contours_that_are_there_twice_do_not_undo_each_other(tmp_path: Path) -> None:
    back = read_segmentation(changed(written(tmp_path), twice))
    np.testing.assert_array_equal(as_drawn(back).masks[1:], pattern()[1:])
    assert len(back.remarks) == 2
    assert "of 'Stomach' are there twice and were taken once." in back.remarks[1]


def test_where_the_file_asks_for_it_copies_undo_each_other(tmp_path: Path) -> None:
    def both(dataset: Dataset) -> None:
        twice(dataset)
        for contour in dataset.ROIContourSequence[0].ContourSequence:
            contour.ContourGeometricType = "CLOSEDPLANAR_XOR"

    back = read_segmentation(changed(written(tmp_path), both))
    assert not organ_of(back, "small_bowel").any()
    assert organ_of(back, "stomach").any()


@pytest.mark.parametrize(
    ("points", "kind"),
    [
        (square()[:3], "POINT"),
        (square(), "OPEN_PLANAR"),
        (square(), "OPEN_NONPLANAR"),
        (square()[:6], "CLOSED_PLANAR"),
        ([], "CLOSED_PLANAR"),
    ],
)
def test_points_and_open_contours_are_left_out(tmp_path: Path, points: Any, kind: str) -> None:
    path = changed(written(tmp_path), only_contour(points, kind))
    back = read_segmentation(path)
    assert not organ_of(back, "small_bowel").any()
    assert back.remarks == (
        "1 of 1 contours of 'Small bowel' were left out because they are points or not closed.",
    )


def test_regions_without_contours_are_left_out(tmp_path: Path) -> None:
    def empty(dataset: Dataset) -> None:
        dataset.StructureSetROISequence[0].ROIName = "CTV boost"
        del dataset.ROIContourSequence[0].ContourSequence

    path = changed(written(tmp_path), empty)
    back = read_segmentation(path)
    assert back.organs == ORGANS
    assert back.remarks == ("'CTV boost' has no contours and was left out.",)
    np.testing.assert_array_equal(organ_of(back, "stomach").sum(), pattern()[STOMACH].sum())


def test_what_leaves_the_image_is_cut_with_a_remark(tmp_path: Path) -> None:
    path = changed(written(tmp_path), only_contour(square(-3, -50, 6.4)))
    back = read_segmentation(path)
    mask = organ_of(as_drawn(back), "small_bowel")
    assert mask[1, :5, :10].all()
    assert mask.sum() == 50
    assert back.remarks == ("Contours of 'Small bowel' reach beyond the image and were cut there.",)


@pytest.mark.parametrize(
    ("height", "distance"), [(-4.2, "1.2 mm"), (-3.8, "0.8 mm"), (-20, "11.0 mm"), (5, "5.0 mm")]
)
def test_contours_between_slices_are_refused(tmp_path: Path, height: float, distance: str) -> None:
    path = changed(written(tmp_path), only_contour(square(height)))
    with pytest.raises(InputError) as error:
        read_segmentation(path)
    assert_one_sentence(error, "Small bowel", f"{height:.1f}) mm", f"lies {distance} from")
    # Left out, they do no harm.
    assert read_segmentation(path, choices={"Small bowel": "-"}).masks.any()


def test_contours_nearly_on_a_slice_are_on_it(tmp_path: Path) -> None:
    path = changed(written(tmp_path), only_contour(square(-3.7)))
    assert organ_of(as_drawn(read_segmentation(path)), "small_bowel")[1].any()


def test_tilted_contours_are_refused(tmp_path: Path) -> None:
    points = square()
    points[2] += 1
    with pytest.raises(InputError, match="from the nearest slice"):
        read_segmentation(changed(written(tmp_path), only_contour(points)))


# --- which scan ---------------------------------------------------------------------------


def test_without_its_scan_it_says_so(tmp_path: Path) -> None:
    path = written(tmp_path / "series")
    (tmp_path / "alone" / "here").mkdir(parents=True)
    moved = Path(shutil.copy(path, tmp_path / "alone" / "here"))
    with pytest.raises(InputError) as error:
        read_segmentation(moved)
    assert_one_sentence(error, FILE, "give that scan")
    back = read_segmentation(moved, scan=read_scan(tmp_path / "series"))
    assert organ_of(back, "stomach").sum() == pattern()[STOMACH].sum()


def test_another_frame_of_reference_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a")
    write_classic_series(tmp_path / "b", scan_of((4, 12, 15)))
    with pytest.raises(InputError) as error:
        read_segmentation(path, scan=read_scan(tmp_path / "b"))
    assert_one_sentence(error, FILE, "another frame of reference")


def test_a_series_that_is_named_counts_more_than_the_frame_of_reference(tmp_path: Path) -> None:
    def reframe(dataset: Dataset) -> None:
        other = pydicom.uid.generate_uid()
        dataset.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID = other
        for roi in dataset.StructureSetROISequence:
            roi.ReferencedFrameOfReferenceUID = other

    back = read_segmentation(changed(written(tmp_path), reframe))
    assert len(back.remarks) == 1
    assert "another frame of reference" in back.remarks[0]
    np.testing.assert_array_equal(organ_of(back, "stomach").sum(), pattern()[STOMACH].sum())


def test_on_a_scan_without_a_frame_of_reference_the_geometry_decides(tmp_path: Path) -> None:
    path = written(tmp_path)
    scan = scan_of((4, 12, 15))
    assert scan.stored is None
    np.testing.assert_array_equal(read_segmentation(path, scan=scan).masks, pattern())
    shifted = scan.affine + np.array([[0, 0, 0, 0], [0] * 4, [0, 0, 0, 1.0], [0] * 4])
    with pytest.raises(InputError, match="nearest slice"):
        read_segmentation(path, scan=scan_of((4, 12, 15), affine=shifted))


def test_references_in_the_contours_alone_are_enough(tmp_path: Path) -> None:
    def strip(dataset: Dataset) -> None:
        del dataset.ReferencedFrameOfReferenceSequence

    back = read_segmentation(changed(written(tmp_path), strip))
    assert organ_of(back, "stomach").sum() == pattern()[STOMACH].sum()


# --- what is refused ----------------------------------------------------------------------


def test_nothing_drawn_is_refused(tmp_path: Path) -> None:
    segmentation = drawn(tmp_path, np.zeros((3, 4, 12, 15), dtype=np.bool_))
    with pytest.raises(InputError) as error:
        write_segmentation(segmentation, tmp_path / FILE)
    assert_one_sentence(error, "empty")
    assert not (tmp_path / FILE).exists()


def test_a_segmentation_of_no_series_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no DICOM series"):
        write_segmentation(abdomen_phantom(slices=3)[1], tmp_path / FILE)
    assert os.listdir(tmp_path) == []


def test_a_scan_read_with_another_spacing_is_refused(tmp_path: Path) -> None:
    masks = pattern()
    write_classic_series(tmp_path / "s", scan_of(masks.shape[1:]))
    scan = read_scan(tmp_path / "s", spacing=(3.0, 1.5, 0.8))
    segmentation = Segmentation(masks=masks, spacing=scan.spacing, affine=scan.affine).on(scan)
    with pytest.raises(InputError) as error:
        write_segmentation(segmentation, tmp_path / FILE)
    assert_one_sentence(error, "another spacing")
    assert os.listdir(tmp_path) == ["s"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"1\\2\\3\\4", "4 coordinates"),
        (b"1\\2\\3\\4\\5\\six ", "no number of millimetres"),
        (b"1\\2\\3\\4\\5\\nan ", "no number of millimetres"),
        (b"1\\2\\3\\4\\5\\1e400 ", "no number of millimetres"),
        (b"1\\2\\3\\4\\5\\-1e9 ", "no number of millimetres"),
        (b"1\\2\\3\\\\5\\6 ", "no number of millimetres"),
        (b"1\\2\\3\\4\\5\\6 ", "2 points where it says that they are"),
    ],
)
def test_damaged_contours_are_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    def damage(dataset: Dataset) -> None:
        contour = dataset.ROIContourSequence[0].ContourSequence[0]
        contour.add(pydicom.DataElement("ContourData", "DS", data.decode(), already_converted=True))

    path = changed(written(tmp_path), damage)
    with pytest.raises(InputError) as error:
        read_segmentation(path)
    assert_one_sentence(error, FILE, "Small bowel", reason)


def remove(name: str) -> Callable[[Dataset], None]:
    return lambda dataset: delattr(dataset, name)


def orphan(dataset: Dataset) -> None:
    dataset.ROIContourSequence[0].ReferencedROINumber = 99


def same_numbers(dataset: Dataset) -> None:
    for roi in dataset.StructureSetROISequence:
        roi.ROINumber = 3


@pytest.mark.parametrize(
    "damage",
    [remove("ROIContourSequence"), remove("StructureSetROISequence"), orphan, same_numbers],
)
def test_what_lacks_a_part_is_damaged(tmp_path: Path, damage: Callable[[Dataset], None]) -> None:
    path = changed(written(tmp_path), damage)
    with pytest.raises(InputError) as error:
        read_segmentation(path)
    assert_one_sentence(error, FILE, "damaged or not a complete")


def undefined_lengths(dataset: Dataset) -> None:
    """Sequences that end with a mark instead of having a length."""
    for name in ("StructureSetROISequence", "ROIContourSequence", "RTROIObservationsSequence"):
        dataset[name].is_undefined_length = True
        for item in dataset[name].value:
            item.is_undefined_length_sequence_item = True


@pytest.mark.parametrize("change", [lambda dataset: None, undefined_lengths])
def test_a_truncated_file_is_whole_or_refused(
    tmp_path: Path, change: Callable[[Dataset], None]
) -> None:
    path = changed(written(tmp_path), change)
    scan = read_scan(tmp_path)
    whole, content = read_segmentation(path, scan=scan).masks, path.read_bytes()
    refused = 0
    for length in {*range(0, len(content), 97), *range(len(content) - 40, len(content))}:
        path.write_bytes(content[:length])
        try:
            masks = read_segmentation(path, scan=scan).masks
        except InputError as error:
            refused += 1
            assert FILE in str(error)
        else:
            np.testing.assert_array_equal(masks, whole)
    assert refused > 0.8 * len(content) / 97


def disk_full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    "place",
    ["pydicom.dataset.Dataset.save_as", "pathlib.Path.write_text", "pathlib.Path.replace"],
)
def test_a_full_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    path = written(tmp_path)
    segmentation = dataclasses.replace(read_segmentation(path), provenance={"model": "new"})
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    monkeypatch.setattr(place, disk_full)
    with pytest.raises(InputError) as error:
        write_segmentation(segmentation, path)
    monkeypatch.undo()
    assert_one_sentence(error, FILE, "No space left")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_notes_name_the_file_they_belong_to(tmp_path: Path) -> None:
    path = written(tmp_path)
    notes = json.loads(Path(f"{path}.json").read_text())
    assert notes["sop_instance_uid"] == pydicom.dcmread(path).SOPInstanceUID


# --- files of others ----------------------------------------------------------------------


@pytest.mark.data
def test_a_planning_systems_contours_fill_their_area(shared_data: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    folder = shared_data / "dicom" / "rtstruct_ct4"
    path = folder / "RS_Body_SpinalCord.dcm"
    assert label_names(path) == ["BODY", "SpinalCord"]
    back = read_segmentation(path)
    assert [organ.name for organ in back.organs][3:] == ["spinal_cord", "body"]
    assert back.remarks == ()
    # 1 mm pixels, 1 mm slices: area and voxels are the same number.
    dataset = pydicom.dcmread(path)
    for roi, name in zip(dataset.ROIContourSequence, ("body", "spinal_cord"), strict=True):
        areas = 0.0
        for contour in roi.ContourSequence:
            x, y, _ = np.array(contour.ContourData, dtype=float).reshape(-1, 3).T
            areas += abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
        assert organ_of(back, name).sum() == pytest.approx(areas, rel=0.005)
    # The masks that came with it: 1 the cord, 2 the rest of the body. Made by a program that
    # rounds points to pixels and counts those on the line, they are larger by up to a pixel.
    labels = np.asarray(nibabel.load(folder / "Mask.nii.gz").dataobj).transpose(2, 1, 0)
    for name, reference in (("body", labels > 0), ("spinal_cord", labels == 1)):
        ours = organ_of(back, name)
        differ = ours != reference
        edge = np.stack([distance_transform_edt(m) + distance_transform_edt(~m) for m in ours])
        assert edge[differ].max() <= np.sqrt(2)
        assert 2 * (ours & reference).sum() / (ours.sum() + reference.sum()) > 0.93
        assert (ours & ~reference).sum() < 0.003 * ours.sum()


@pytest.mark.data
def test_a_research_programs_contours_are_read(shared_data: Path) -> None:
    back = read_segmentation(shared_data / "dicom" / "rtutils_mock" / "rt.dcm")
    # It invents a frame of reference, but names the series.
    assert ["another frame of reference" in remark for remark in back.remarks] == [True]
    mask = organ_of(back, "roi_1")
    # A square of 576 square mm with an octagon of 224.5 in it.
    area = mask[0].sum() * np.prod(back.spacing[1:])
    assert area == pytest.approx(576 - 224.5, rel=0.03)
    assert not mask[1].any()
