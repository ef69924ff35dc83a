"""What an export will write is told before, left out where it names the patient, and checked."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset

from dicom_phantoms import write_classic_series, write_enhanced
from gitract.baseline import slice_digests
from gitract.errors import InputError
from gitract.export_preview import FORMATS, check_round_trip, preview, with_organs
from gitract.io import (
    FLAT_SUFFIXES,
    ONTO_SERIES_SUFFIXES,
    SEGMENTATION_SUFFIXES,
    read_scan,
    read_segmentation,
    write_segmentation,
)
from gitract.organs import IGNORE, KNOWN_ORGANS
from gitract.scan import NiftiAxes, Scan, Segmentation
from phantoms import abdomen_phantom, l_phantom
from sentences import assert_one_sentence

PERSONAL = {
    "PatientName": "Doe^Jane",
    "PatientID": "4711-0815",
    "PatientBirthDate": "19500101",
    "PatientAge": "074Y",
    "PatientComments": "knows the porter",
    "OtherPatientIDs": "RX-99887",
    "AccessionNumber": "ACC-5551212",
    "StudyID": "SID-777",
    "StudyDate": "20240131",
    "StudyTime": "123456",
    "StudyDescription": "Jane's stomach",
    "SeriesDate": "20240201",
    "ReferringPhysicianName": "House^Gregory",
    "PhysiciansOfRecord": "Wilson^James",
    "OperatorsName": "Chase^Robert",
    "InstitutionName": "General Hospital",
    "InstitutionalDepartmentName": "Diagnostics",
    "StationName": "ROOM-221",
    "DeviceSerialNumber": "SERIAL-31337",
    "ClinicalTrialSubjectID": "TRIAL-0042",
    "AdmissionID": "ADM-1001",
}
MODEL = {"model": "small", "created": "2024-01-31T12:34:56+00:00", "edited": [1]}


def series_of(folder: Path, kind: str = "classic", **changes: object) -> Scan:
    """A phantom's series whose headers tell all about a patient."""
    scan, _ = abdomen_phantom(slices=6, rows=40, columns=48)
    told = {**PERSONAL, **changes}
    name = told.pop("PatientName")
    if kind == "enhanced":
        write_enhanced(folder / "mr.dcm", scan, patient_name=str(name), **told)
    else:
        write_classic_series(folder, scan, patient_name=str(name), **told)
    return read_scan(folder)


def contours_on(scan: Scan) -> Segmentation:
    _, truth = abdomen_phantom(slices=6, rows=40, columns=48)
    return replace(
        truth.on(replace(scan, affine=truth.affine)), affine=scan.affine, provenance=MODEL
    )


# --- who the patient is -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["classic", "enhanced"])
@pytest.mark.parametrize("suffix", ONTO_SERIES_SUFFIXES)
def test_a_deidentified_file_holds_nothing_of_the_patient(
    tmp_path: Path, suffix: str, kind: str
) -> None:
    scan = series_of(tmp_path / "series", kind)
    path = tmp_path / f"organs{suffix}"
    write_segmentation(contours_on(scan), path, deidentify=True)
    content = path.read_bytes() + Path(f"{path}.json").read_bytes()
    words = [word for value in PERSONAL.values() for word in value.split("^")]
    for word in [*words, "2024-01-31"]:
        assert word.encode() not in content, word
    dataset = pydicom.dcmread(path)
    assert dataset.PatientIdentityRemoved == "YES"
    assert "UIDs" in " ".join(dataset.DeidentificationMethod)
    assert dataset.PatientID == dataset.PatientName != ""


@pytest.mark.parametrize("suffix", ONTO_SERIES_SUFFIXES)
def test_deidentified_contours_still_refer_to_the_series_and_are_read_on_it(
    tmp_path: Path, suffix: str
) -> None:
    scan = series_of(tmp_path / "series")
    meant = contours_on(scan)
    path = write_segmentation(meant, tmp_path / f"organs{suffix}", deidentify=True)
    source = pydicom.dcmread(next((tmp_path / "series").iterdir()))
    dataset = pydicom.dcmread(path)
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID"):
        assert dataset[keyword].value == source[keyword].value
    for onto in (scan, None):
        again = read_segmentation(path, scan=onto)
        np.testing.assert_array_equal(again.masks, meant.masks)
        assert again.provenance["model"] == "small"


def test_without_it_the_planning_system_gets_the_patient(tmp_path: Path) -> None:
    scan = series_of(tmp_path / "series")
    for suffix in ONTO_SERIES_SUFFIXES:
        dataset = pydicom.dcmread(
            write_segmentation(contours_on(scan), tmp_path / f"organs{suffix}")
        )
        for keyword in ("PatientName", "PatientID", "PatientBirthDate", "StudyDate"):
            assert dataset[keyword].value == PERSONAL[keyword]
        assert "PatientIdentityRemoved" not in dataset


def test_files_of_one_study_name_the_same_stranger(tmp_path: Path) -> None:
    def stranger(scan: Scan, suffix: str) -> str:
        path = write_segmentation(contours_on(scan), tmp_path / f"o{suffix}", deidentify=True)
        return str(pydicom.dcmread(path).PatientID)

    one, other = series_of(tmp_path / "one"), series_of(tmp_path / "other")
    names = {stranger(one, suffix) for suffix in ONTO_SERIES_SUFFIXES}
    assert len(names) == 1
    assert stranger(other, ".seg.dcm") not in names


@pytest.mark.parametrize("suffix", ONTO_SERIES_SUFFIXES)
def test_a_deidentified_file_is_valid_dicom(
    program: Callable[[str, str], str], tmp_path: Path, suffix: str
) -> None:
    judge = program("dciodvfy", "dicom3tools")
    scan = series_of(tmp_path / "series")
    path = write_segmentation(contours_on(scan), tmp_path / f"o{suffix}", deidentify=True)
    done = subprocess.run([judge, str(path)], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    assert {"Segmentation", "RTStructureSet"} & set(lines)
    assert [line for line in lines if line.startswith("Error")] == []


def test_the_command_deidentifies_when_told_to(cli: Callable[..., object], tmp_path: Path) -> None:
    scan = series_of(tmp_path / "series")
    contours = write_segmentation(contours_on(scan), tmp_path / "truth.csv")
    for options, removed in (([], False), (["--deidentify"], True)):
        path = tmp_path / "o.rtstruct.dcm"
        cli("convert", contours, path, "--scan", tmp_path / "series", *options)
        assert ("PatientIdentityRemoved" in pydicom.dcmread(path)) == removed


# --- what is told before ------------------------------------------------------------------


def personal_in(dataset: Dataset) -> set[str]:
    """Names of the attributes that hold one of the personal values, or part of one."""
    values = {part for value in PERSONAL.values() for part in (value, value.split("^")[0])}
    return {one.name for one in dataset if one.VR != "SQ" and str(one.value) in values}


@pytest.mark.parametrize("suffix", ONTO_SERIES_SUFFIXES)
def test_the_preview_names_what_identifies_the_patient_and_tells_no_value(
    tmp_path: Path, suffix: str
) -> None:
    scan = series_of(tmp_path / "series")
    contours = contours_on(scan)
    told = preview(contours, tmp_path / f"organs{suffix}")
    dataset = pydicom.dcmread(write_segmentation(contours, tmp_path / f"organs{suffix}"))
    # The scanner's number is written, but does not say who the patient is.
    assert personal_in(dataset) - {"Device Serial Number"} == set(told.identifying)
    text = str(told.rows) + str(told.identifying)
    for keyword, value in PERSONAL.items():
        if keyword != "SeriesDate":  # the series is told by its date
            assert value not in text
    hidden = preview(contours, tmp_path / f"organs{suffix}", deidentify=True)
    assert hidden.identifying == ()
    path = write_segmentation(contours, tmp_path / f"hidden{suffix}", deidentify=True)
    assert str(pydicom.dcmread(path).PatientID) in hidden.identity


def test_the_preview_tells_grid_organs_and_series(tmp_path: Path) -> None:
    scan = series_of(tmp_path / "series", description="t2 tra")
    contours = contours_on(scan)
    masks = contours.masks.copy()
    masks[0] = False
    ignored = np.zeros_like(masks[:1])
    ignored[0, 2, :3, :3] = True
    contours = replace(
        contours, masks=np.concatenate([masks, ignored]), organs=(*contours.organs, IGNORE)
    )
    told = preview(contours, "out.rtstruct.dcm", organs=["large_bowel", "stomach", "ignore"])
    assert told.file_name == "out.rtstruct.dcm"
    assert told.format == "DICOM RT Structure Set"
    assert (told.shape, told.spacing) == (contours.shape, contours.spacing)
    assert told.orientation.startswith("axial: slices run to head")
    left_out = {one.organ.name: one.left_out for one in told.organs}
    assert left_out["large_bowel"] == "nothing is drawn"
    assert left_out["small_bowel"] == "not chosen"
    assert "no organ" in left_out["ignore"]
    (stomach,) = told.written
    assert stomach.volume_ml == pytest.approx(contours.volumes_ml["stomach"])
    assert stomach.slices == np.count_nonzero(masks[2].any(axis=(1, 2)))
    assert told.series == "MR t2 tra, series 5, 2024-02-01, 6 images"
    assert told.notes == "beside it, in out.rtstruct.dcm.json"
    headings = [heading for heading, _ in told.rows]
    assert headings == ["File", "Grid", "Left out", "Refers to", "Patient", "Notes"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_preview_is_what_is_written(tmp_path: Path, suffix: str) -> None:
    scan = series_of(tmp_path / "series")
    contours = contours_on(scan)
    path = tmp_path / f"out{suffix}"
    told = preview(contours, path)
    assert not path.exists()
    write_segmentation(contours, path)
    again = read_segmentation(path, scan=scan)
    drawn = {o.name for o, m in zip(again.organs, again.masks, strict=True) if m.any()}
    assert {one.organ.name for one in told.written} == drawn
    lost = contours.labels().overlap_voxels if suffix in FLAT_SUFFIXES else 0
    assert told.lost_voxels == lost
    beside = Path(f"{path}.json").exists()
    assert told.notes.startswith("beside") == beside
    if told.about_bytes is not None:
        size = path.stat().st_size
        assert size / 2 < told.about_bytes < 2 * size


def test_every_format_has_a_preview() -> None:
    assert {*FORMATS, ".tiff"} == set(SEGMENTATION_SUFFIXES)
    assert preview(l_phantom(), "a.tiff").format == FORMATS[".tif"]


@pytest.mark.parametrize(
    ("path", "organs", "part"),
    [
        ("out.docx", None, "no suffix that can be written"),
        ("out.rtstruct.dcm", None, "no DICOM series"),
        ("out.tif", [], "choose an organ"),
    ],
)
def test_what_cannot_be_exported_is_refused(path: str, organs: list[str] | None, part: str) -> None:
    with pytest.raises(InputError) as error:
        preview(l_phantom(), path, organs=organs)
    assert_one_sentence(error, part)


def test_empty_contours_fit_no_dicom_and_any_label_image(tmp_path: Path) -> None:
    contours = contours_on(series_of(tmp_path / "series"))
    empty = replace(contours, masks=np.zeros_like(contours.masks))
    with pytest.raises(InputError) as error:
        preview(empty, "out.seg.dcm")
    assert_one_sentence(error, "Nothing is drawn")
    assert preview(empty, "out.tif").written == ()


# --- some organs alone --------------------------------------------------------------------


def test_some_organs_keep_who_drew_them_and_drop_what_was_of_all(tmp_path: Path) -> None:
    contours = contours_on(series_of(tmp_path / "series"))
    labels = contours.labels().array
    baseline = slice_digests(labels)
    baseline[2] = "0" * 16  # that slice was edited
    provenance = {"model": "small", "baseline": baseline}
    contours = replace(contours, provenance=provenance)
    part = with_organs(contours, ["stomach"])
    assert [organ.name for organ in part.organs] == ["stomach"]
    assert part.provenance == {"model": "small", "edited": [2]}
    again = read_segmentation(write_segmentation(part, tmp_path / "part.tif"))
    assert again.provenance["edited"] == [2]
    assert with_organs(contours, [organ.name for organ in contours.organs]) is contours
    with pytest.raises(InputError):
        with_organs(contours, ["liver"])


def test_to_leave_out_an_empty_organ_forgets_nothing() -> None:
    phantom = replace(l_phantom(), provenance={"baseline": ["x"] * 5})  # a stomach alone
    assert with_organs(phantom, ["stomach"]).provenance == phantom.provenance


# --- what is told afterwards ----------------------------------------------------------------


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_was_written_is_found_unchanged(tmp_path: Path, suffix: str) -> None:
    contours = contours_on(series_of(tmp_path / "series"))
    flat = Segmentation.of_labels(
        contours.labels().array,
        spacing=contours.spacing,
        affine=contours.affine,
        name=contours.name,
        stored=contours.stored,
    )
    (tmp_path / "elsewhere").mkdir()  # far from the series
    path = write_segmentation(flat, tmp_path / "elsewhere" / f"out{suffix}", deidentify=True)
    checked = check_round_trip(flat, path)
    assert checked.identical
    assert checked.apart_mm == pytest.approx(0.0, abs=1e-3)
    assert [one.organ.name for one in checked.organs] == ["large_bowel", "small_bowel", "stomach"]
    assert {(one.dice, one.hd95_mm, one.volume_difference_ml) for one in checked.organs} == {
        (1.0, 0.0, 0.0)
    }
    assert checked.sentence.startswith("Read back unchanged: same grid; Large bowel Dice 1.000;")


def test_voxels_that_a_format_cannot_keep_are_found_out(tmp_path: Path) -> None:
    contours = contours_on(series_of(tmp_path / "series"))
    organs = contours.masks.sum(axis=0, dtype=int)  # of each voxel, of which one is kept
    lost = int((organs - 1).clip(0).sum())
    assert lost
    path = write_segmentation(contours, tmp_path / "out.nii.gz")
    checked = check_round_trip(contours, path)
    assert checked.same_grid
    assert not checked.identical
    voxel_ml = np.prod(contours.spacing) / 1000.0
    assert sum(one.volume_difference_ml for one in checked.organs) == pytest.approx(
        -lost * voxel_ml
    )
    worst = min(checked.organs, key=lambda one: one.dice)
    assert worst.dice < 1
    assert worst.hd95_mm is not None
    assert "with differences: same grid" in checked.sentence
    assert f"{worst.organ.title} Dice 0.9" in checked.sentence


def test_a_moved_grid_and_an_organ_that_is_gone_are_found_out(tmp_path: Path) -> None:
    meant = l_phantom()
    moved = meant.affine.copy()
    moved[0, 3] += 2.5
    path = write_segmentation(replace(meant, affine=moved), tmp_path / "moved.nii.gz")
    checked = check_round_trip(meant, path)
    assert checked.apart_mm == pytest.approx(2.5, abs=1e-3)
    assert "another grid, up to 2.50 mm apart" in checked.sentence
    gone = write_segmentation(
        replace(meant, masks=np.zeros_like(meant.masks)), tmp_path / "gone.tif"
    )
    (stomach,) = check_round_trip(meant, gone).organs
    assert (stomach.dice, stomach.hd95_mm) == (0.0, None)
    assert stomach.volume_difference_ml == pytest.approx(-meant.volumes_ml["stomach"])
    cut = replace(meant, masks=meant.masks[:, :4], provenance={})
    checked = check_round_trip(meant, write_segmentation(cut, tmp_path / "cut.tif"))
    assert not checked.same_grid
    assert "another grid, 4 × 9 × 12 voxels" in checked.sentence


def test_contours_of_another_series_are_not_taken_for_the_same(tmp_path: Path) -> None:
    one, other = series_of(tmp_path / "one"), series_of(tmp_path / "other")
    path = write_segmentation(contours_on(one), tmp_path / "out.rtstruct.dcm")
    with pytest.raises(InputError) as error:
        check_round_trip(contours_on(other), path)
    assert_one_sentence(error, "frame of reference")


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    labels=st.integers(0, 2**32 - 1).map(
        lambda seed: np.random.default_rng(seed).integers(0, 4, (3, 7, 6)).astype(np.uint8)
    ),
    spacing=st.tuples(*[st.floats(0.5, 8.0)] * 3),
    angle=st.floats(-0.6, 0.6),
    suffix=st.sampled_from([".nii.gz", ".nii", ".tif", ".csv"]),
)
def test_any_label_image_in_any_place_comes_back(
    tmp_path: Path,
    labels: np.ndarray,
    spacing: tuple[float, float, float],
    angle: float,
    suffix: str,
) -> None:
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn[:, ::-1] * spacing
    affine[:3, 3] = (-120.5, 33.25, 812.125)
    meant = Segmentation.of_labels(
        labels, spacing=spacing, affine=affine, stored=NiftiAxes(), organs=KNOWN_ORGANS
    )
    path = write_segmentation(meant, tmp_path / f"out{suffix}")
    assert check_round_trip(meant, path).identical


def test_the_notes_of_a_file_name_no_time_once_deidentified(tmp_path: Path) -> None:
    contours = contours_on(series_of(tmp_path / "series"))
    for deidentify in (False, True):
        path = write_segmentation(contours, tmp_path / "o.seg.dcm", deidentify=deidentify)
        noted = json.loads(Path(f"{path}.json").read_text())["provenance"]
        assert ("created" in noted) != deidentify
        assert noted["edited"] == [1]
