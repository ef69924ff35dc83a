"""A scan that is exported comes back as it was, names nobody, and its contours are upon it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from dicom_phantoms import PATIENT, write_classic_series, write_enhanced
from gitract.baseline import slice_digests
from gitract.errors import Cancelled, InputError
from gitract.export_preview import preview
from gitract.io import (
    ONTO_SERIES_SUFFIXES,
    SCAN_SUFFIXES,
    SEGMENTATION_SUFFIXES,
    read_scan,
    read_segmentation,
    write_scan,
    write_segmentation,
)
from gitract.progress import Progress
from gitract.scan import DicomSeries, Scan, Segmentation
from gitract.scan_export import (
    SCAN_FORMATS,
    SCAN_SUFFIX_WITH,
    check_scan_round_trip,
    export_scan,
    export_together,
    preview_scan,
)
from phantoms import abdomen_phantom
from sentences import assert_one_sentence

WORDS = (*PATIENT.split("^"), "4711-0815", "General Hospital", "19500101", "20240131", "ROOM-221")


def day() -> tuple[Scan, Segmentation]:
    """A scan that is no DICOM, whose slices run to the feet, and its contours."""
    scan, truth = abdomen_phantom(slices=6, rows=40, columns=48)
    return scan, Segmentation.of_labels(
        truth.labels().array, spacing=scan.spacing, affine=scan.affine, name=scan.name
    )


def series(folder: Path, kind: str = "classic") -> tuple[Scan, Segmentation]:
    """A scan of a DICOM series whose headers tell who the patient is, and its contours."""
    scan, contours = day()
    if kind == "enhanced":
        write_enhanced(folder / "mr.dcm", scan, StationName="ROOM-221")
    else:
        write_classic_series(folder, scan, StationName="ROOM-221")
    read = read_scan(folder)
    return read, contours.on(read)


def all_bytes(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


# --- the scan alone -----------------------------------------------------------------------


def test_every_format_of_scans_can_be_exported_and_goes_with_one_of_contours() -> None:
    assert {*SCAN_FORMATS, ".tiff"} == set(SCAN_SUFFIXES)
    assert {*SCAN_SUFFIX_WITH, ".tiff"} == set(SEGMENTATION_SUFFIXES)
    assert set(SCAN_SUFFIX_WITH.values()) == set(SCAN_FORMATS)


@pytest.mark.parametrize("suffix", SCAN_FORMATS)
@pytest.mark.parametrize("of_series", [True, False])
def test_a_scan_comes_back_as_it_was(tmp_path: Path, suffix: str, of_series: bool) -> None:
    scan, _ = series(tmp_path / "series") if of_series else day()
    path = tmp_path / f"out{suffix}"
    told = preview_scan(scan, path)
    assert not path.exists()
    assert told.format == SCAN_FORMATS[suffix]
    assert dict(told.rows)["File"].startswith(f"out{suffix}")
    export_scan(scan, path)
    checked = check_scan_round_trip(scan, path)
    assert checked.identical
    assert checked.changed_voxels == 0
    assert checked.sentence.startswith("Scan read back unchanged: same grid, ")
    if told.about_bytes is not None:
        files = [path] if path.is_file() else [*path.iterdir()]
        assert sum(f.stat().st_size for f in files) == pytest.approx(told.about_bytes, rel=0.2)


@pytest.mark.parametrize("kind", ["classic", "enhanced"])
@pytest.mark.parametrize("suffix", SCAN_FORMATS)
def test_a_scan_names_nobody_unless_that_is_asked_for(
    tmp_path: Path, suffix: str, kind: str
) -> None:
    scan, _ = series(tmp_path / "series", kind)
    path = tmp_path / f"out{suffix}"
    export_scan(scan, path)
    content = all_bytes(path) if path.is_dir() else path.read_bytes()
    assert isinstance(scan.stored, DicomSeries)
    for word in (*WORDS, scan.stored.study_uid, scan.stored.images[0].sop_instance_uid):
        assert word.encode() not in content, word


@pytest.mark.parametrize("kind", ["classic", "enhanced"])
def test_with_the_identity_the_series_is_copied_as_it_is(tmp_path: Path, kind: str) -> None:
    scan, contours = series(tmp_path / "series", kind)
    path = export_scan(scan, tmp_path / "out.dcm", deidentify=False)
    assert "copied as they are" in preview_scan(scan, path, deidentify=False).identity
    assert sorted(file.read_bytes() for file in path.iterdir()) == sorted(
        file.read_bytes() for file in (tmp_path / "series").iterdir()
    )
    assert check_scan_round_trip(scan, path).identical
    written = write_segmentation(contours, tmp_path / "out.rtstruct.dcm")
    again = read_segmentation(written, scan=read_scan(path))
    np.testing.assert_array_equal(again.masks, contours.masks)


def test_a_series_that_is_gone_cannot_be_copied(tmp_path: Path) -> None:
    scan, _ = series(tmp_path / "series")
    next((tmp_path / "series").iterdir()).unlink()
    with pytest.raises(InputError) as error:
        export_scan(scan, tmp_path / "out.dcm", deidentify=False)
    assert_one_sentence(error, "is gone")
    assert not (tmp_path / "out.dcm").exists()


@pytest.mark.parametrize(
    ("suffix", "deidentify", "refused"),
    [
        (".dcm", True, "16 bits"),
        (".png", True, "fractions"),
        (".dcm", False, ""),
        (".nii.gz", True, ""),
        (".csv", True, "no suffix"),
    ],
)
def test_values_that_a_format_cannot_hold_are_told_before(
    tmp_path: Path, suffix: str, deidentify: bool, refused: str
) -> None:
    scan, _ = series(tmp_path / "series")
    scaled = replace(scan, voxels=scan.voxels * np.float32(0.37))
    path = tmp_path / f"out{suffix}"
    if refused:
        with pytest.raises(InputError) as error:
            preview_scan(scaled, path, deidentify=deidentify)
        assert_one_sentence(error, refused)
    else:
        assert "float32" in preview_scan(scaled, path, deidentify=deidentify).values


def test_what_changed_on_the_way_is_found_out(tmp_path: Path) -> None:
    scan, _ = day()
    voxels = scan.voxels.copy()
    voxels[2, 3, 4:7] += 1
    path = write_scan(replace(scan, voxels=voxels), tmp_path / "a.nii.gz")
    checked = check_scan_round_trip(scan, path)
    assert not checked.identical
    assert "differences: same grid, 3 voxels of another value" in checked.sentence
    moved = scan.affine.copy()
    moved[1, 3] += 2.5
    path = write_scan(replace(scan, affine=moved), tmp_path / "b.nii.gz")
    assert "another grid, up to 2.50 mm apart" in check_scan_round_trip(scan, path).sentence
    path = write_scan(replace(scan, voxels=scan.voxels[:4], slice_numbers=None), tmp_path / "c.tif")
    assert "another grid, 4 × 40 × 48 voxels" in check_scan_round_trip(scan, path).sentence


def test_slices_that_a_reader_puts_in_reverse_order_are_the_same_scan(tmp_path: Path) -> None:
    scan, _ = day()
    checked = check_scan_round_trip(scan, export_scan(scan, tmp_path / "a.dcm"))
    assert checked.identical
    assert checked.reversed
    assert "slices in reverse order, same values" in checked.sentence


# --- with its contours --------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SCAN_SUFFIX_WITH)
@pytest.mark.parametrize("kind", ["classic", "enhanced", "no DICOM"])
def test_scan_and_contours_fit_each_other_and_name_nobody(
    tmp_path: Path, suffix: str, kind: str
) -> None:
    scan, contours = day() if kind == "no DICOM" else series(tmp_path / "series", kind)
    carried = {"created": "2024-01-31", "propagated_from": PATIENT, "alignment": [PATIENT]}
    contours = replace(contours, provenance=carried if suffix in ONTO_SERIES_SUFFIXES else {})
    out = tmp_path / "out"
    of_scan, of_contours = export_together(contours, scan, out, suffix)
    assert of_scan.identical
    assert of_contours.identical
    place = out / f"scan{SCAN_SUFFIX_WITH[suffix]}"
    again = read_scan(place)
    read = read_segmentation(out / f"contours{suffix}", scan=again)
    expected = contours.on(replace(again, name=contours.name))
    for organ, mask in zip(expected.organs, expected.masks, strict=True):
        (found,) = (m for o, m in zip(read.organs, read.masks, strict=True) if o == organ)
        np.testing.assert_array_equal(found, mask)
    content = all_bytes(out)
    for word in (*WORDS, "2024-01-31"):
        assert word.encode() not in content, word


@pytest.mark.parametrize("suffix", ONTO_SERIES_SUFFIXES)
def test_both_have_the_same_pseudonym_and_nothing_leads_back(tmp_path: Path, suffix: str) -> None:
    scan, contours = series(tmp_path / "series")
    export_together(contours, scan, tmp_path / "out", suffix)
    image = pydicom.dcmread(next((tmp_path / "out" / "scan.dcm").iterdir()))
    drawn = pydicom.dcmread(tmp_path / "out" / f"contours{suffix}")
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert drawn[keyword].value == image[keyword].value != ""
    assert image.PatientIdentityRemoved == drawn.PatientIdentityRemoved == "YES"
    assert isinstance(scan.stored, DicomSeries)
    known = {scan.stored.study_uid, scan.stored.series_uid, scan.stored.frame_of_reference_uid}
    known |= {one.sop_instance_uid for one in scan.stored.images}
    content = all_bytes(tmp_path / "out")
    assert not any(uid.encode() in content for uid in known)


@pytest.mark.parametrize("suffix", ONTO_SERIES_SUFFIXES)
def test_with_the_identity_both_are_of_the_patient(tmp_path: Path, suffix: str) -> None:
    scan, contours = series(tmp_path / "series")
    checked = export_together(contours, scan, tmp_path / "out", suffix, deidentify=False)
    assert all(one.identical for one in checked)
    for file in (next((tmp_path / "out" / "scan.dcm").iterdir()), f"contours{suffix}"):
        assert pydicom.dcmread(tmp_path / "out" / file).PatientName == PATIENT


def test_what_is_known_of_slices_goes_along(tmp_path: Path) -> None:
    scan, contours = day()
    labels = contours.labels().array
    known = {"model": "small", "baseline": slice_digests(labels), "accepted": [1]}
    masks = contours.masks.copy()
    masks[0, 2, :2, :2] = True
    corrected = replace(contours, masks=masks, provenance=known)
    export_together(corrected, scan, tmp_path / "out", ".rtstruct.dcm")
    drawn = pydicom.dcmread(tmp_path / "out" / "contours.rtstruct.dcm")
    # The series has its slices in reverse order: the third of six is the fourth.
    assert "Slices edited (0-based): 3." in drawn.StructureSetDescription
    read = read_segmentation(tmp_path / "out" / "contours.rtstruct.dcm")
    assert read.provenance["accepted"] == [4]


def test_the_preview_says_that_contours_refer_to_the_new_series(tmp_path: Path) -> None:
    scan, contours = day()
    told = dict(preview(contours, tmp_path / "a.rtstruct.dcm", onto_new_series=True).rows)
    assert told["Refers to"] == "the series that is written with it"
    assert "same new pseudonym" in told["Patient"]
    with pytest.raises(InputError):  # alone they have nothing to refer to
        preview(contours, tmp_path / "a.rtstruct.dcm")
    assert "Refers to" not in dict(preview(contours, "a.nii.gz", onto_new_series=True).rows)
    sentence = preview_scan(scan, tmp_path / "scan.dcm").sentence
    assert "scan.dcm" in sentence
    assert "a new series" in sentence


def failing_at(step: int) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        if progress.done == step:
            raise Cancelled

    return report


@pytest.mark.parametrize("step", range(4))
def test_both_are_written_or_neither(tmp_path: Path, step: int) -> None:
    scan, contours = day()
    with pytest.raises(Cancelled):
        export_together(contours, scan, tmp_path / "out", ".rtstruct.dcm", report=failing_at(step))
    assert list(tmp_path.iterdir()) == []


def test_contours_that_cannot_be_written_leave_no_scan(tmp_path: Path) -> None:
    scan, contours = day()
    empty = replace(contours, masks=np.zeros_like(contours.masks))
    with pytest.raises(InputError) as error:
        export_together(empty, scan, tmp_path / "out", ".seg.dcm")
    assert_one_sentence(error, "Nothing is drawn")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    scan, contours = day()
    (tmp_path / "out").mkdir()
    export_together(contours, scan, tmp_path / "out", ".tif")  # an empty one is as good as none
    before = all_bytes(tmp_path / "out")
    with pytest.raises(InputError) as error:
        export_together(contours, scan, tmp_path / "out", ".tif")
    assert_one_sentence(error, "choose a new folder")
    assert all_bytes(tmp_path / "out") == before
