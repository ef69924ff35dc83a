"""DICOM segmentations: each voxel where it was, and files of other programs."""

import json
import shutil
import subprocess
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from dicom_phantoms import PATIENT, write_classic_series, write_enhanced
from gitract.baseline import slice_digests
from gitract.errors import InputError
from gitract.io import holds_labels, label_names, read_scan, read_segmentation, write_segmentation
from gitract.organs import KNOWN_ORGANS, ORGANS, Organ, organ_named
from gitract.scan import Scan, Segmentation, axial_affine, scaled_affine
from phantoms import abdomen_phantom, l_phantom
from sentences import assert_one_sentence

LIVER = organ_named("liver", KNOWN_ORGANS)
MODEL = {"model": "gitract-unet-3", "weights_sha256": "ab" * 32}
CARRIED = {"propagated_from": "Smith_day0"}


def blank(segmentation: Segmentation) -> Scan:
    """A scan on the grid of a segmentation."""
    voxels = np.random.default_rng(0).integers(0, 999, segmentation.shape).astype(np.uint16)
    return Scan(voxels, segmentation.spacing, segmentation.affine, name="case1_day0")


def on_series(
    folder: Path, segmentation: Segmentation | None = None, **changes: Any
) -> Segmentation:
    """A segmentation (the L by default) on a new DICOM series in `folder`."""
    segmentation = segmentation or l_phantom()
    write_classic_series(folder, blank(segmentation), **changes)
    return segmentation.on(read_scan(folder))


def scan_of(segmentation: Segmentation) -> Scan:
    """The scan of a segmentation, as it is in its DICOM series."""
    return replace(blank(segmentation), stored=segmentation.stored)


def overlapping() -> Segmentation:
    """Three organs, two of which share voxels, on slices that are no whole number of bytes."""
    masks = np.random.default_rng(1).random((3, 4, 7, 9)) > 0.6
    assert (masks.sum(axis=0) > 1).any()
    return Segmentation(masks=masks, spacing=(3.0, 1.5, 0.7), name="overlapping")


def write_other(
    path: Path,
    series: Path,
    masks: np.ndarray,
    affine: np.ndarray,
    labels: Sequence[str] = ("Stomach",),
    *,
    kind: str = "BINARY",
    omit_empty: bool = True,
    syntax: str = ExplicitVRLittleEndian,
    **changes: Any,
) -> Path:
    """A segmentation as another program makes it, on a grid of its own.

    `masks` is ``(segment, slice, row, column)``, or the label image of a label map.
    """
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in series.glob("*.dcm")]
    for name in ("PatientSex", "AccessionNumber", "StudyID", "StudyTime"):
        setattr(headers[0], name, "")
    term = highdicom.sr.CodedConcept("91723000", "SCT", "Anatomical Structure")
    array = masks if masks.ndim == 3 else np.moveaxis(masks, 0, -1)
    volume = highdicom.Volume(
        array if array.dtype.kind == "f" else array.astype(np.uint8),
        affine,
        coordinate_system="PATIENT",
        frame_of_reference_uid=headers[0].FrameOfReferenceUID,
        channels=None if masks.ndim == 3 else {"SegmentNumber": list(range(1, len(masks) + 1))},
    )
    item = highdicom.seg.Segmentation(
        source_images=headers,
        pixel_array=volume,
        segmentation_type=kind,
        segment_descriptions=[
            highdicom.seg.SegmentDescription(number, label, term, term, "MANUAL")
            for number, label in enumerate(labels, start=1)
        ],
        series_instance_uid=highdicom.UID(),
        series_number=9,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="Another",
        manufacturer_model_name="Another",
        software_versions="1",
        device_serial_number="1",
        omit_empty_frames=omit_empty,
        transfer_syntax_uid=syntax,
    )
    for name, value in changes.items():
        setattr(item, name, value)
    item.save_as(path)
    return path


def shifted(affine: np.ndarray, *index: float) -> np.ndarray:
    """An affine whose origin is another index, as a crop has it."""
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ index
    return moved


# --- there and back -----------------------------------------------------------------------


@st.composite
def affines(draw: st.DrawFn, spacing: tuple[float, float, float]) -> np.ndarray:
    """Any direction, any place, both handednesses."""
    quaternion = np.array(draw(st.tuples(*[st.floats(-1, 1)] * 4)))
    if np.linalg.norm(quaternion) < 0.1:
        quaternion = np.array([1.0, 0, 0, 0])
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    directions = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing
    affine[:3, 0] *= draw(st.sampled_from([1, -1]))
    affine[:3, 3] = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    return affine


@settings(max_examples=20)
@given(affine=affines((3.0, 1.5, 0.7)), order=st.sampled_from(["sorted", "reversed", "shuffled"]))
def test_contours_on_any_oblique_series_come_back_where_they_were(
    tmp_path_factory: pytest.TempPathFactory, affine: np.ndarray, order: str
) -> None:
    folder = tmp_path_factory.mktemp("oblique")
    truth = replace(l_phantom(), affine=affine)
    segmentation = on_series(folder / "series", truth, order=order)
    path = write_segmentation(segmentation, folder / "organs.seg.dcm")
    again = read_segmentation(path)
    np.testing.assert_array_equal(again.masks, segmentation.masks)
    assert again.stored == segmentation.stored
    # And on the voxels in the order in which they were before they became DICOM.
    np.testing.assert_array_equal(read_segmentation(path, scan=blank(truth)).masks, truth.masks)


def test_overlaps_organs_and_provenance_come_back(tmp_path: Path) -> None:
    strange = (Organ(1, "large_bowel", "#123456"), Organ(40, "stomach_2", "#00ff00"), ORGANS[2])
    truth = replace(overlapping(), organs=strange, provenance={**MODEL, "slices": [0, 1]})
    segmentation = on_series(tmp_path / "series", truth)
    again = read_segmentation(write_segmentation(segmentation, tmp_path / "a.seg.dcm"))
    np.testing.assert_array_equal(again.masks, segmentation.masks)
    assert again.organs == strange
    assert again.provenance == segmentation.provenance
    assert again.stored == segmentation.stored
    assert again.remarks == ()


def test_an_organ_without_voxels_gets_no_segment_and_is_known_again(tmp_path: Path) -> None:
    path = write_segmentation(on_series(tmp_path / "series"), tmp_path / "a.seg.dcm")
    assert holds_labels(path)
    assert label_names(path) == ["Stomach"]
    assert read_segmentation(path).organs == ORGANS


@pytest.mark.parametrize("shared", [True, False])
def test_a_multi_frame_source_is_referred_to_by_the_frames_that_lie_there(
    tmp_path: Path, shared: bool
) -> None:
    truth = overlapping()
    file = write_enhanced(tmp_path / "mr.dcm", blank(truth), shared=shared)
    segmentation = truth.on(read_scan(file))
    path = write_segmentation(segmentation, tmp_path / "a.seg.dcm")
    again = read_segmentation(path)
    np.testing.assert_array_equal(again.masks, segmentation.masks)
    assert again.stored == segmentation.stored
    source = pydicom.dcmread(file)
    for frame in pydicom.dcmread(path).PerFrameFunctionalGroupsSequence:
        reference = frame.DerivationImageSequence[0].SourceImageSequence[0]
        assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
        there = source.PerFrameFunctionalGroupsSequence[reference.ReferencedFrameNumber - 1]
        assert position(frame) == position(there)


def position(frame: pydicom.Dataset) -> list[float]:
    return list(frame.PlanePositionSequence[0].ImagePositionPatient)


def test_each_frame_lies_exactly_on_the_image_that_it_refers_to(tmp_path: Path) -> None:
    segmentation = on_series(tmp_path / "series", overlapping())
    written = pydicom.dcmread(write_segmentation(segmentation, tmp_path / "a.seg.dcm"))
    images = {
        image.SOPInstanceUID: image
        for image in (pydicom.dcmread(file) for file in (tmp_path / "series").iterdir())
    }
    shared = written.SharedFunctionalGroupsSequence[0]
    assert len(written.PerFrameFunctionalGroupsSequence) == 3 * 4
    for frame in written.PerFrameFunctionalGroupsSequence:
        reference = frame.DerivationImageSequence[0].SourceImageSequence[0]
        image = images[reference.ReferencedSOPInstanceUID]
        orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
        measures = shared.PixelMeasuresSequence[0]
        assert position(frame) == image.ImagePositionPatient
        assert orientation == image.ImageOrientationPatient
        assert measures.PixelSpacing == image.PixelSpacing
        assert measures.SpacingBetweenSlices == 3.0
    assert written.StudyInstanceUID == image.StudyInstanceUID
    assert written.FrameOfReferenceUID == image.FrameOfReferenceUID


def test_drawn_voxels_lie_where_another_library_sees_them_in_the_series(tmp_path: Path) -> None:
    turned = axial_affine((3.0, 1.5, 0.7))
    turned[:3, :3] = turned[:3, :3][[1, 2, 0]]  # sagittal
    turned[:3, 3] = (-40.5, 12.25, 99.0)
    segmentation = on_series(tmp_path / "series", replace(l_phantom(), affine=turned))
    path = write_segmentation(segmentation, tmp_path / "a.seg.dcm")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "series")))
    image = reader.Execute()
    expected = {
        tuple(np.round(image.TransformIndexToPhysicalPoint((int(c), int(r), int(s))), 2) + 0.0)
        for s, r, c in np.argwhere(in_order_of(image, segmentation))
    }
    written = highdicom.seg.segread(path)
    volume = written.get_volume(combine_segments=True)
    seen = {
        tuple(np.round(point[:3], 2) + 0.0)
        for point in (volume.affine @ (*index, 1) for index in np.argwhere(volume.array))
    }
    assert seen == expected


def in_order_of(image: sitk.Image, segmentation: Segmentation) -> np.ndarray:
    """The stomach as SimpleITK orders the slices, by the position of its first one."""
    first = np.array(image.GetOrigin())
    begins = np.linalg.norm(first - segmentation.affine[:3, 3]) < 0.01
    mask = segmentation.masks[2]
    return mask if begins else mask[::-1]


def test_slices_a_little_off_their_places_are_kept_there(tmp_path: Path) -> None:
    truth = l_phantom()
    files = write_classic_series(tmp_path / "series", blank(truth))
    image = pydicom.dcmread(files[2])
    image.ImagePositionPatient = [mm + 0.02 for mm in image.ImagePositionPatient]
    image.save_as(files[2])
    segmentation = truth.on(read_scan(tmp_path / "series"))
    path = write_segmentation(segmentation, tmp_path / "a.seg.dcm")
    np.testing.assert_array_equal(read_segmentation(path).masks, segmentation.masks)
    frames = pydicom.dcmread(path).PerFrameFunctionalGroupsSequence
    assert image.ImagePositionPatient in [position(frame) for frame in frames]


# --- files of other programs --------------------------------------------------------------


@pytest.mark.parametrize("omit_empty", [True, False])
@pytest.mark.parametrize("flip", [False, True])
def test_a_crop_in_another_order_is_put_in_its_place(
    tmp_path: Path, omit_empty: bool, flip: bool
) -> None:
    segmentation = on_series(tmp_path / "series")
    crop = segmentation.masks[2:, 1:5, 0:8, 2:11]
    affine = shifted(segmentation.affine, 1, 0, 2)
    if flip:  # rows from the bottom, columns from the right
        crop = crop[:, :, ::-1, ::-1]
        affine = shifted(affine, 0, 7, 8)
        affine[:3, 1:3] *= -1
    path = write_other(tmp_path / "a.dcm", tmp_path / "series", crop, affine, omit_empty=omit_empty)
    for again in (read_segmentation(path), read_segmentation(path, scan=blank(segmentation))):
        np.testing.assert_array_equal(again.masks, segmentation.masks)


def test_frames_across_the_slices_of_the_scan_are_put_in_their_place(tmp_path: Path) -> None:
    segmentation = on_series(tmp_path / "series")
    affine = segmentation.affine[:, [2, 0, 1, 3]]  # a slice of the file is a column of the scan
    masks = segmentation.masks[2:].transpose(0, 3, 1, 2)
    path = write_other(tmp_path / "a.dcm", tmp_path / "series", masks, affine)
    np.testing.assert_array_equal(read_segmentation(path).masks, segmentation.masks)


def test_frames_may_come_in_any_order(tmp_path: Path) -> None:
    segmentation = on_series(tmp_path / "series", overlapping())
    path = write_segmentation(segmentation, tmp_path / "a.seg.dcm")
    item = pydicom.dcmread(path)
    order = np.random.default_rng(0).permutation(item.NumberOfFrames)
    item.PerFrameFunctionalGroupsSequence = [
        item.PerFrameFunctionalGroupsSequence[index] for index in order
    ]
    bits = np.packbits(item.pixel_array[order].ravel(), bitorder="little").tobytes()
    item.PixelData = bits + b"\0" * (len(bits) % 2)
    item.save_as(path)
    np.testing.assert_array_equal(read_segmentation(path).masks, segmentation.masks)


def test_half_of_a_fraction_and_more_counts(tmp_path: Path) -> None:
    segmentation = on_series(tmp_path / "series", overlapping())
    fractions = np.where(segmentation.masks, 0.6, 0.4).astype(np.float32)
    names = [organ.title for organ in ORGANS]
    path = write_other(
        tmp_path / "a.dcm",
        tmp_path / "series",
        fractions,
        segmentation.affine,
        names,
        kind="FRACTIONAL",
    )
    again = read_segmentation(path)
    np.testing.assert_array_equal(again.masks, segmentation.masks)
    assert any("fractions" in remark for remark in again.remarks)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_a_label_map_is_read_by_its_values(tmp_path: Path, syntax: str) -> None:
    segmentation = on_series(tmp_path / "series", overlapping())
    flat = Segmentation.of_labels(segmentation.labels().array, spacing=segmentation.spacing)
    path = write_other(
        tmp_path / "a.dcm",
        tmp_path / "series",
        flat.labels().array,
        segmentation.affine,
        ["Colon", "Small bowel", "gaster"],
        kind="LABELMAP",
        syntax=syntax,
    )
    assert label_names(path) == ["Colon", "Small bowel", "gaster"]
    np.testing.assert_array_equal(read_segmentation(path).masks, flat.masks)


def test_without_its_scan_a_file_keeps_its_own_grid(tmp_path: Path) -> None:
    segmentation = on_series(tmp_path / "series")
    (tmp_path / "alone").mkdir()
    path = write_segmentation(segmentation, tmp_path / "alone" / "a.seg.dcm")
    shutil.rmtree(tmp_path / "series")
    again = read_segmentation(path)
    np.testing.assert_array_equal(again.masks, segmentation.masks)
    np.testing.assert_allclose(again.affine, segmentation.affine, atol=1e-3)
    assert again.stored is None
    assert any("not found" in remark for remark in again.remarks)


@pytest.mark.parametrize("drawn", [[1, 3], [0, 1, 4], [2]])
def test_slices_that_a_lonely_file_leaves_out_are_empty(tmp_path: Path, drawn: list[int]) -> None:
    segmentation = on_series(tmp_path / "series")
    mask = np.zeros_like(segmentation.masks[:1])
    mask[0, drawn, 2:5, 3] = True
    (tmp_path / "alone").mkdir()
    path = write_other(tmp_path / "alone" / "a.dcm", tmp_path / "series", mask, segmentation.affine)
    shutil.rmtree(tmp_path / "series")
    again = read_segmentation(path)
    assert again.spacing == pytest.approx(segmentation.spacing)
    np.testing.assert_array_equal(again.masks[2], mask[0, drawn[0] : drawn[-1] + 1])


# --- what does not belong together --------------------------------------------------------


def other_grids() -> dict[str, np.ndarray]:
    """Affines that are not the L's."""
    own = l_phantom().affine
    turned = own.copy()
    cosine, sine = np.cos(0.03), np.sin(0.03)
    turned[:3, :3] = [[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]] @ own[:3, :3]
    return {
        "half a slice": shifted(own, 0.5, 0, 0),
        "a third of a pixel": shifted(own, 0, 0, 0.34),
        "a quarter of a millimetre": shifted(own, 0, 0.25 / 1.5, 0),
        "larger pixels": scaled_affine(own, (3.0, 1.5, 0.8)),
        "thicker slices": scaled_affine(own, (6.0, 1.5, 0.7)),
        "thinner slices": scaled_affine(own, (1.5, 1.5, 0.7)),
        "turned": turned,
    }


@pytest.mark.parametrize("case", other_grids())
def test_another_grid_than_the_scans_is_refused(tmp_path: Path, case: str) -> None:
    truth = l_phantom()
    on_series(tmp_path / "series", truth)
    masks = truth.masks[2:, 1:3]
    path = write_other(tmp_path / "a.dcm", tmp_path / "series", masks, other_grids()[case])
    for scan in (None, read_scan(tmp_path / "series"), blank(truth)):
        with pytest.raises(InputError) as error:
            read_segmentation(path, scan=scan)
        assert_one_sentence(error, "lies on another grid than the scan", str(path))


def test_contours_outside_of_the_scan_are_refused(tmp_path: Path) -> None:
    segmentation = on_series(tmp_path / "series")
    scan = blank(segmentation)
    path = write_segmentation(segmentation, tmp_path / "a.seg.dcm")
    for kept in (np.s_[2:], np.s_[:, :7], np.s_[:, :, 3:]):
        part = Scan(
            scan.voxels[kept],
            scan.spacing,
            shifted(
                scan.affine,
                *[(index.start or 0) for index in np.atleast_1d(kept)]
                + [0] * (3 - np.atleast_1d(kept).size),
            ),
        )
        with pytest.raises(InputError) as error:
            read_segmentation(path, scan=part)
        assert_one_sentence(error, "outside of the scan")


def test_empty_frames_outside_of_the_scan_do_no_harm(tmp_path: Path) -> None:
    segmentation = on_series(tmp_path / "series")
    scan = blank(segmentation)
    path = write_segmentation(segmentation, tmp_path / "a.seg.dcm")
    part = Scan(scan.voxels[1:4, 1:], scan.spacing, shifted(scan.affine, 1, 1, 0))
    again = read_segmentation(path, scan=part)
    np.testing.assert_array_equal(again.masks, segmentation.masks[:, 1:4, 1:])


def test_another_frame_of_reference_is_refused(tmp_path: Path) -> None:
    path = write_segmentation(on_series(tmp_path / "series"), tmp_path / "a.seg.dcm")
    other = scan_of(on_series(tmp_path / "other"))
    with pytest.raises(InputError) as error:
        read_segmentation(path, scan=other)
    assert_one_sentence(error, "another frame of reference")


def test_contours_whose_grid_is_not_that_of_their_files_are_not_written(tmp_path: Path) -> None:
    segmentation = on_series(tmp_path / "series")
    for affine in (
        shifted(segmentation.affine, 0, 0.02, 0),
        scaled_affine(segmentation.affine, (3.01, 1.5, 0.7)),
    ):
        spacing = tuple(np.linalg.norm(affine[:3, :3], axis=0))
        with pytest.raises(InputError) as error:
            write_segmentation(
                replace(segmentation, affine=affine, spacing=spacing), tmp_path / "a.seg.dcm"
            )
        assert_one_sentence(error, "do not lie where the files of their series do")
    assert not list(tmp_path.glob("*a.seg*"))


# --- names --------------------------------------------------------------------------------


def test_labels_become_organs_and_equal_labels_are_told_apart(tmp_path: Path) -> None:
    segmentation = on_series(tmp_path / "series", overlapping())
    labels = ["Liver", "Liver", "Liver 3", "Appendix vermiformis"]
    masks = np.concatenate([segmentation.masks, ~segmentation.masks[:1]])
    path = write_other(tmp_path / "a.dcm", tmp_path / "series", masks, segmentation.affine, labels)
    assert label_names(path) == ["Liver", "Liver 2", "Liver 3", "Appendix vermiformis"]
    again = read_segmentation(path)
    assert [organ.name for organ in again.organs] == [
        *(organ.name for organ in ORGANS),
        "liver",
        "appendix_vermiformis",
    ]
    assert [organ.id for organ in again.organs] == sorted(organ.id for organ in again.organs)
    np.testing.assert_array_equal(again.masks[3], masks[:3].any(axis=0))
    np.testing.assert_array_equal(again.masks[4], masks[3])
    assert any("3 segments were united as one organ, Liver" in text for text in again.remarks)


def test_choices_rename_and_leave_out(tmp_path: Path) -> None:
    segmentation = on_series(tmp_path / "series", overlapping())
    path = write_segmentation(segmentation, tmp_path / "a.seg.dcm")
    again = read_segmentation(
        path, choices={"Stomach": "liver", "Large bowel": "-", "Small bowel": "small_bowel"}
    )
    assert again.organs == (*ORGANS, LIVER)
    np.testing.assert_array_equal(again.masks[3], segmentation.masks[2])
    np.testing.assert_array_equal(again.masks[1], segmentation.masks[1])
    assert not again.masks[[0, 2]].any()


def test_choices_that_say_what_the_notes_say_keep_the_notes(tmp_path: Path) -> None:
    segmentation = on_series(tmp_path / "series", replace(l_phantom(), provenance=MODEL))
    path = write_segmentation(segmentation, tmp_path / "a.seg.dcm")
    assert read_segmentation(path, choices={"Stomach": "stomach"}).provenance == MODEL
    assert read_segmentation(path, choices={"Stomach": "rectum"}).provenance == {}


def test_notes_of_another_file_do_not_count(tmp_path: Path) -> None:
    segmentation = on_series(tmp_path / "series", replace(l_phantom(), provenance=MODEL))
    path = write_segmentation(segmentation, tmp_path / "a.seg.dcm")
    item = pydicom.dcmread(path)
    item.SOPInstanceUID = item.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    item.save_as(path)
    again = read_segmentation(path)
    assert again.provenance == {}
    np.testing.assert_array_equal(again.masks, segmentation.masks)


def test_a_choice_for_a_segment_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = write_segmentation(on_series(tmp_path / "series"), tmp_path / "a.seg.dcm")
    with pytest.raises(InputError) as error:
        read_segmentation(path, choices={"Colon": "-"})
    assert_one_sentence(error, "'Colon'")


# --- what the file says of itself ---------------------------------------------------------


def segments_of(path: Path) -> list[pydicom.Dataset]:
    return list(pydicom.dcmread(path).SegmentSequence)


def test_each_segment_says_which_organ_it_is_and_in_which_colour(tmp_path: Path) -> None:
    gtv = organ_named("gtv", KNOWN_ORGANS)
    truth = replace(overlapping(), organs=(ORGANS[2], LIVER, gtv))
    path = write_segmentation(on_series(tmp_path / "series", truth), tmp_path / "a.seg.dcm")
    stomach, liver, tumour = segments_of(path)
    assert [s.SegmentLabel for s in (stomach, liver, tumour)] == ["Stomach", "Liver", "GTV"]
    assert stomach.SegmentedPropertyTypeCodeSequence[0].CodeValue == "69695003"
    assert liver.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "91723000"
    assert tumour.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    color = highdicom.color.CIELabColor.from_dicom_value(stomach.RecommendedDisplayCIELabValue)
    expected = [int(ORGANS[2].color[i : i + 2], 16) for i in (1, 3, 5)]
    np.testing.assert_allclose(color.to_rgb(), expected, atol=3)


@pytest.mark.parametrize(
    ("provenance", "edited", "kind"),
    [
        ({}, False, "MANUAL"),
        (MODEL, False, "AUTOMATIC"),
        (MODEL, True, "SEMIAUTOMATIC"),
        (CARRIED, False, "AUTOMATIC"),
        (CARRIED, True, "SEMIAUTOMATIC"),
    ],
)
def test_a_segment_says_who_drew_it(
    tmp_path: Path, provenance: dict[str, Any], edited: bool, kind: str
) -> None:
    segmentation = on_series(tmp_path / "series")
    if provenance:
        digests = slice_digests(segmentation.labels().array)
        provenance = {**provenance, "baseline": digests}
    masks = segmentation.masks.copy()
    masks[2, 0, 0, 0] = edited or masks[2, 0, 0, 0]
    path = write_segmentation(
        replace(segmentation, masks=masks, provenance=provenance), tmp_path / "a.seg.dcm"
    )
    (stomach,) = segments_of(path)
    assert stomach.SegmentAlgorithmType == kind
    if kind == "MANUAL":
        assert "SegmentationAlgorithmIdentificationSequence" not in stomach
    else:
        algorithm = stomach.SegmentationAlgorithmIdentificationSequence[0]
        assert algorithm.AlgorithmName == "napari-gitract"
        (family,) = algorithm.AlgorithmFamilyCodeSequence
        if "model" in provenance:
            assert "gitract-unet-3" in algorithm.AlgorithmParameters
            assert family.CodeMeaning == "Artificial Intelligence"
        else:
            assert family.CodeMeaning == "Image Content-based Alignment"
            assert "Smith" not in str(pydicom.dcmread(path))  # whose earlier day it was


def test_the_patient_is_named_by_the_study_and_by_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = PATIENT.replace("^", " ")  # which libraries find odd and like to say so
    segmentation = on_series(
        tmp_path / "series",
        replace(l_phantom(), provenance=MODEL),
        patient_name=name,
        SpecificCharacterSet="ISO_IR 100",
        PatientID="4711-0815",
    )
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        path = write_segmentation(segmentation, tmp_path / "a.seg.dcm")
    said = " ".join(str(one.message) for one in warned) + caplog.text
    item = pydicom.dcmread(path)
    assert (item.PatientName, item.PatientID) == (name, "4711-0815")
    item.PatientName = ""
    surname = PATIENT.split("^")[0]
    notes = path.with_name("a.seg.dcm.json").read_text()
    for text in (str(item), said, notes):
        assert surname not in text
    for uid in (item.SeriesInstanceUID, item.StudyInstanceUID, item.FrameOfReferenceUID):
        assert uid not in notes
    assert "4711-0815" not in notes and "Hospital" not in notes
    assert json.loads(notes)["provenance"] == MODEL


def test_names_in_other_scripts_are_kept(tmp_path: Path) -> None:
    name = "Müller^Jörg"
    segmentation = on_series(
        tmp_path / "series", patient_name=name, SpecificCharacterSet="ISO_IR 100"
    )
    path = write_segmentation(segmentation, tmp_path / "a.seg.dcm")
    assert pydicom.dcmread(path).PatientName == name


@pytest.mark.parametrize("source", ["classic", "enhanced"])
def test_the_file_is_valid_dicom(
    tmp_path: Path, source: str, program: Callable[[str, str], str]
) -> None:
    judge = program("dciodvfy", "dicom3tools")
    truth = replace(overlapping(), provenance=MODEL)
    if source == "classic":
        segmentation = on_series(tmp_path / "series", truth)
    else:
        segmentation = truth.on(read_scan(write_enhanced(tmp_path / "mr.dcm", blank(truth))))
    path = write_segmentation(segmentation, tmp_path / "a.seg.dcm")
    done = subprocess.run([judge, str(path)], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    assert "Segmentation" in lines
    assert [line for line in lines if line.startswith("Error")] == []


# --- what cannot be written ---------------------------------------------------------------


def test_nothing_drawn_and_no_series_are_refused(tmp_path: Path) -> None:
    segmentation = on_series(tmp_path / "series")
    empty = replace(segmentation, masks=np.zeros_like(segmentation.masks))
    for refused, part in ((empty, "Nothing is drawn"), (l_phantom(), "no DICOM series")):
        with pytest.raises(InputError) as error:
            write_segmentation(refused, tmp_path / "a.seg.dcm")
        assert_one_sentence(error, part)
    assert not list(tmp_path.glob("*a.seg*"))


def test_a_series_that_is_gone_is_refused(tmp_path: Path) -> None:
    segmentation = on_series(tmp_path / "series")
    shutil.rmtree(tmp_path / "series")
    with pytest.raises(InputError) as error:
        write_segmentation(segmentation, tmp_path / "a.seg.dcm")
    assert_one_sentence(error)


def test_headers_that_cannot_be_copied_are_refused(tmp_path: Path) -> None:
    segmentation = on_series(tmp_path / "series", PatientSex="X")
    with pytest.raises(InputError) as error:
        write_segmentation(segmentation, tmp_path / "a.seg.dcm")
    assert_one_sentence(error, "headers")


def test_a_protected_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.seg.dcm"
    path.write_bytes(b"old")
    path.chmod(0o444)
    with pytest.raises(InputError) as error:
        write_segmentation(on_series(tmp_path / "series"), path)
    assert_one_sentence(error, "read-only")
    assert path.read_bytes() == b"old"


def test_a_failure_in_the_middle_leaves_the_old_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmentation = on_series(tmp_path / "series")
    path = write_segmentation(segmentation, tmp_path / "a.seg.dcm")
    before = {file.name: file.read_bytes() for file in tmp_path.glob("*a.seg*")}
    assert sorted(before) == ["a.seg.dcm", "a.seg.dcm.json"]

    def full(*args: object, **keywords: object) -> int:
        raise OSError(28, "No space left on device")

    for broken in ("pathlib.Path.write_text", "pydicom.Dataset.save_as"):
        with monkeypatch.context() as patch, pytest.raises(InputError) as error:
            patch.setattr(broken, full)
            write_segmentation(replace(segmentation, provenance=MODEL), path)
        assert_one_sentence(error, "No space left")
        assert {file.name: file.read_bytes() for file in tmp_path.glob("*a.seg*")} == before


# --- damage -------------------------------------------------------------------------------


places = st.floats(0, 1, exclude_max=True)


@settings(max_examples=30)
@given(
    kept=st.none() | places,
    changes=st.lists(st.tuples(places, st.integers(0, 255)), max_size=20),
)
def test_damage_is_told_in_one_sentence(
    tmp_path_factory: pytest.TempPathFactory,
    kept: float | None,
    changes: list[tuple[float, int]],
) -> None:
    folder = tmp_path_factory.mktemp("damage")
    path = write_segmentation(on_series(folder / "series", overlapping()), folder / "a.seg.dcm")
    content = bytearray(path.read_bytes())
    for place, value in changes:
        content[int(place * len(content))] = value
    if kept is not None:
        content = content[: int(kept * len(content))]
    path.write_bytes(bytes(content))
    for read in (label_names, read_segmentation):
        try:
            read(path)
        except InputError as error:
            assert str(error).endswith(".") and "\n" not in str(error)


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, part: float) -> None:
    path = write_segmentation(on_series(tmp_path / "series"), tmp_path / "a.seg.dcm")
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(InputError) as error:
        read_segmentation(path)
    assert_one_sentence(error, str(path), "damaged")


def test_absurd_sizes_are_refused_before_they_are_allocated(tmp_path: Path) -> None:
    segmentation = on_series(tmp_path / "series")
    for changes in ({"Rows": 65535, "Columns": 65535}, {"NumberOfFrames": 2**31 - 1}):
        path = write_other(
            tmp_path / "a.dcm",
            tmp_path / "series",
            segmentation.masks[2:],
            segmentation.affine,
            **changes,
        )
        with pytest.raises(InputError) as error:
            read_segmentation(path)
        assert_one_sentence(error, str(path))


def test_other_dicom_files_are_no_segmentations(tmp_path: Path) -> None:
    on_series(tmp_path / "series")
    image = next((tmp_path / "series").iterdir())
    assert not holds_labels(image)
    with pytest.raises(InputError) as error:
        read_segmentation(image)
    assert_one_sentence(error, "holds images")


# --- real files ---------------------------------------------------------------------------


def reference(path: Path, value: int) -> tuple[np.ndarray, np.ndarray]:
    """Where an image of labels has a value, and its affine ``(slice, row, column)`` to LPS."""
    image = sitk.ReadImage(str(path))
    affine = np.eye(4)
    directions = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, :3] = directions[:, ::-1]
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image) == value, affine


def assert_same(segmentation: Segmentation, organ: str, path: Path, value: int) -> None:
    """An organ is what a reference of another program has."""
    mask, affine = reference(path, value)
    truth = Segmentation(
        masks=mask[None],
        spacing=tuple(np.linalg.norm(affine[:3, :3], axis=0)),
        affine=affine,
        organs=(LIVER,),
    )
    names = [known.name for known in segmentation.organs]
    expected = truth.on(scan_of(segmentation)).masks[0]
    assert expected.any()
    np.testing.assert_array_equal(segmentation.masks[names.index(organ)], expected)


@pytest.mark.data
@pytest.mark.parametrize("with_scan", [True, False])
def test_a_real_file_agrees_with_its_reference(shared_data: Path, with_scan: bool) -> None:
    folder = shared_data / "dicom" / "dcmqi_ct3_seg"
    scan = read_scan(folder / "ct-3slice") if with_scan else None
    liver = read_segmentation(folder / "liver.dcm", scan=scan)
    assert liver.stored == read_scan(folder / "ct-3slice").stored
    assert_same(liver, "liver", folder / "liver_seg.nrrd", 1)


@pytest.mark.data
def test_a_real_file_with_overlaps_agrees_with_its_references(shared_data: Path) -> None:
    folder = shared_data / "dicom" / "dcmqi_ct3_seg"
    found = read_segmentation(folder / "partial_overlaps.dcm", scan=read_scan(folder / "ct-3slice"))
    assert (found.masks.sum(axis=0) > 1).any()
    for file, organ, value in (
        (1, "green", 1),
        (1, "light_blue", 4),
        (1, "dark_blue", 5),
        (2, "orange", 2),
        (3, "purple", 3),
    ):
        assert_same(found, organ, folder / f"partial_overlaps-{file}.nrrd", value)


@pytest.mark.data
@pytest.mark.parametrize("size", ["23x38x3", "24x38x3"])
@pytest.mark.parametrize("source", ["image", "multiframe/mf.dcm"])
def test_real_frames_that_are_no_whole_number_of_bytes(
    shared_data: Path, size: str, source: str
) -> None:
    folder = shared_data / "dicom" / "dcmqi_ct3_seg" / size
    scan = read_scan(folder / source)
    found = read_segmentation(folder / "seg" / "label.seg", scan=scan)
    assert found.stored == scan.stored
    value = int(sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "nrrd/label.nrrd"))).max())
    assert_same(found, "liver", folder / "nrrd" / "label.nrrd", value)


@pytest.mark.data
@pytest.mark.parametrize(
    "source", ["dcmqi_ct3_seg/ct-3slice", "rtstruct_ct4", "enhanced_mr/6_1.dcm", "rtutils_mock"]
)
def test_contours_on_real_series_come_back(shared_data: Path, tmp_path: Path, source: str) -> None:
    scan = read_scan(shared_data / "dicom" / source)
    segmentation = Segmentation(
        masks=np.random.default_rng(0).random((3, *scan.shape)) > 0.7,
        spacing=scan.spacing,
        affine=scan.affine,
        stored=scan.stored,
    )
    path = write_segmentation(segmentation, tmp_path / "a.seg.dcm")
    again = read_segmentation(path, scan=scan)
    np.testing.assert_array_equal(again.masks, segmentation.masks)
    alone = read_segmentation(path)
    np.testing.assert_array_equal(alone.masks, segmentation.masks)
    np.testing.assert_allclose(alone.affine, scan.affine, atol=0.01)


def test_the_phantom_of_an_abdomen_comes_back(tmp_path: Path) -> None:
    scan, truth = abdomen_phantom(slices=8, rows=40, columns=44)
    write_classic_series(tmp_path / "series", scan)
    segmentation = truth.on(read_scan(tmp_path / "series"))
    path = write_segmentation(segmentation, tmp_path / "a.seg.dcm")
    again = read_segmentation(path, scan=scan)
    np.testing.assert_array_equal(again.masks, truth.masks)
    assert again.volumes_ml == pytest.approx(truth.volumes_ml)
