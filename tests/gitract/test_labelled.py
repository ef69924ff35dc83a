"""Labelled scans in a data folder: what is found, what is refused, and what is read."""

import dataclasses
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_phantoms import PATIENT, write_classic_series
from gitract.errors import InputError
from gitract.io import write_scan, write_segmentation
from gitract.io.png import write_grey_png
from gitract.labelled import (
    Fault,
    LabelledScan,
    chosen_cases,
    detect_sources,
    find_labelled,
    named_organs,
)
from gitract.labelled.patients import tells_a_patient
from gitract.organs import KNOWN_ORGANS, ORGANS, organ_named
from gitract.orientation import Turn
from gitract.phantom import abdomen, write_day
from gitract.progress import Progress
from gitract.recipe import CompetitionSource, PairsSource, ScansSource, Source
from gitract.scan import Scan, Segmentation
from phantoms import stored_as
from sentences import assert_one_sentence

COMPETITION = CompetitionSource(kind="competition")
SMALL = (6, 32, 36)


def day(name: str = "case1_day0", seed: int = 0) -> tuple[Scan, Segmentation]:
    return abdomen(SMALL, seed=seed, name=name)


def scans(**changes: object) -> ScansSource:
    return ScansSource.model_validate({"kind": "scans", **changes})


def write_nifti(folder: Path, name: str, labels: str | None, seed: int = 0) -> Segmentation:
    """A scan called `name`, and its label image without a table of organs."""
    scan, truth = day(seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    write_scan(scan, folder / f"{name}.nii.gz")
    if labels is not None:
        write_values(truth, folder / labels)
    return truth


def write_values(truth: Segmentation, path: Path, values: dict[str, int] | None = None) -> None:
    """A label image as other programs write it: values, and nothing that names them."""
    flat = truth.labels().array
    image = np.zeros_like(flat)
    for organ in truth.organs:
        image[flat == organ.id] = (values or {}).get(organ.name, organ.id)
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = Scan(image, truth.spacing, truth.affine, name="labels")
    write_scan(plain, path)


def write_dicom(
    folder: Path, contours: str, name: str = "case1_day0", seed: int = 0, **series: str
) -> Segmentation:
    """A DICOM series with its contours, as a clinic exports them."""
    scan, truth = day(name, seed)
    write_classic_series(folder / "MR", scan, **series)  # type: ignore[arg-type]
    from gitract.io import read_scan

    read = read_scan(folder / "MR")
    on_series = truth.on(dataclasses.replace(read, name=name))
    write_segmentation(on_series, folder / contours)
    (folder / f"{contours}.json").unlink()  # our own notes
    return on_series


def found_with_faults(
    folder: Path, *sources: Source, **options: object
) -> tuple[list[LabelledScan], list[Fault]]:
    faults: list[Fault] = []
    found = find_labelled(folder, sources, on_fault=faults.append, **options)  # type: ignore[arg-type]
    return found, faults


def names(found: list[LabelledScan]) -> list[str]:
    return [one.name for one in found]


def only_truth(found: list[LabelledScan]) -> Segmentation:
    (one,) = found
    (run,) = one.read()
    return run.truth


# --- the competition's layout ---------------------------------------------------------------


def test_a_day_is_found_by_names_and_read_with_its_contours(phantom_data: Path) -> None:
    found = find_labelled(phantom_data, [COMPETITION])
    assert names(found) == ["case1_day0", "case2_day0", "case3_day0", "case3_day5"]
    assert [one.patient for one in found] == ["case1", "case2", "case3", "case3"]
    assert found[2].pool == found[3].pool != found[0].pool
    scan, truth = abdomen((12, 64, 72), seed=2, name="case3_day0")
    (run,) = found[2].read()
    np.testing.assert_array_equal(run.scan.voxels, scan.voxels)
    np.testing.assert_array_equal(run.truth.masks, truth.masks)
    assert run.truth.organs == ORGANS
    assert (run.scan.name, run.scan.spacing) == ("case3_day0", scan.spacing)
    assert phantom_data / "train.csv" in found[0].files
    assert len(found[0].files) == 13


def test_a_recipe_without_sources_takes_what_is_there(phantom_data: Path, tmp_path: Path) -> None:
    assert names(find_labelled(phantom_data)) == names(find_labelled(phantom_data, [COMPETITION]))
    write_day(tmp_path / "deep" / "down", *day("case7_day1"))
    write_day(tmp_path / "up", *day("case8_day1"))
    write_nifti(tmp_path / "nnunet" / "imagesTr", "a1_0000", None)
    write_values(day()[1], tmp_path / "nnunet" / "labelsTr" / "a1.nii.gz")
    write_nifti(tmp_path / "clinic", "b2", "b2_seg.nii.gz")
    assert detect_sources(tmp_path) == (
        CompetitionSource(kind="competition", path="deep/down"),
        CompetitionSource(kind="competition", path="up"),
        scans(path="."),
        scans(path="nnunet"),
    )
    assert sorted(names(find_labelled(tmp_path))) == [
        "a1", "case7_day1", "case8_day1", "clinic_b2",
    ]  # fmt: skip


def test_folders_with_the_layout_may_lie_below_the_source(tmp_path: Path) -> None:
    write_day(tmp_path / "a", *day("case7_day1"))
    write_day(tmp_path / "b" / "c", *day("case8_day1"))
    assert names(find_labelled(tmp_path, [COMPETITION])) == ["case7_day1", "case8_day1"]


def test_days_of_one_name_get_the_name_of_their_source(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_day(tmp_path / folder, *day())
    sources = [CompetitionSource(kind="competition", path=path) for path in ("a", "b")]
    found = find_labelled(tmp_path, sources)
    assert names(found) == ["a_case1_day0", "b_case1_day0"]
    assert {one.patient for one in found} == {"case1"}


def test_a_day_that_nobody_outlined_is_not_used(tmp_path: Path) -> None:
    scan, truth = day()
    write_day(tmp_path, scan, truth)
    write_day(tmp_path, dataclasses.replace(scan, name="case1_day1"))  # not in the table
    empty = dataclasses.replace(truth, masks=np.zeros_like(truth.masks))
    write_day(tmp_path, dataclasses.replace(scan, name="case1_day2"), empty)
    found, faults = found_with_faults(tmp_path, COMPETITION)
    assert names(found) == ["case1_day0"]
    assert [fault.scan for fault in faults] == ["case1_day1", "case1_day2"]
    assert all("no contours" in fault.sentence for fault in faults)


def test_slices_of_another_size_begin_a_new_run(tmp_path: Path) -> None:
    small, big = (abdomen((2, side, 40), name="case1_day0") for side in (32, 36))
    folder = write_day(tmp_path, *small)
    late = tuple(dataclasses.replace(part, slice_numbers=(3, 4)) for part in big)
    other = write_day(tmp_path / "other", *late)  # type: ignore[arg-type]
    for path in (other / "scans").iterdir():
        path.rename(folder / "scans" / path.name)
    rows = (tmp_path / "other" / "train.csv").read_text().splitlines()[1:]
    with (tmp_path / "train.csv").open("a") as table:
        table.writelines(f"{row}\n" for row in rows)
    (one,) = find_labelled(tmp_path, [COMPETITION])
    assert [run.scan.shape for run in one.read()] == [(2, 32, 40), (2, 36, 40)]


@settings(max_examples=15)
@given(
    files=st.sets(st.integers(1, 12), min_size=1, max_size=6),
    unlisted=st.sets(st.integers(1, 12), max_size=3),
)
def test_runs_are_the_longest_stretches_of_labelled_slices_that_are_there(
    tmp_path_factory: pytest.TempPathFactory, files: set[int], unlisted: set[int]
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    numbers = tuple(sorted(files))
    rng = np.random.default_rng(0)
    voxels = rng.integers(0, 999, (len(numbers), 5, 4)).astype(np.uint16)
    masks = rng.random((3, len(numbers), 5, 4)) > 0.5
    scan = Scan(voxels, (3, 2, 2), name="case1_day0", slice_numbers=numbers)
    write_day(folder, scan, Segmentation(masks, (3, 2, 2), slice_numbers=numbers))
    table = folder / "train.csv"
    rows = table.read_text().splitlines()
    lost = tuple(f"slice_{number:04d}" for number in unlisted)
    table.write_text("\n".join(row for row in rows if not any(one in row for one in lost)) + "\n")
    kept = [number for number in numbers if number not in unlisted]
    if not kept:
        with pytest.raises(InputError):
            find_labelled(folder, [COMPETITION])
        return
    (one,) = find_labelled(folder, [COMPETITION])
    runs = [run.scan.slice_numbers or () for run in one.read()]
    assert [number for run in runs for number in run] == kept
    for run in runs:
        assert list(run) == list(range(run[0], run[-1] + 1))
    for before, after in zip(runs, runs[1:], strict=False):
        assert after[0] > before[-1] + 1
    indices = [numbers.index(number) for number in kept]
    read = one.read()
    np.testing.assert_array_equal(np.concatenate([r.scan.voxels for r in read]), voxels[indices])
    np.testing.assert_array_equal(
        np.concatenate([r.truth.masks for r in read], axis=1), masks[:, indices]
    )


def test_labels_of_slices_that_are_not_there_are_told_and_the_rest_is_used(tmp_path: Path) -> None:
    folder = write_day(tmp_path, *day())
    for path in sorted((folder / "scans").iterdir())[2:4]:
        path.unlink()
    (one,), (fault,) = found_with_faults(tmp_path, COMPETITION)
    assert (fault.scan, fault.left_out) == ("case1_day0", False)
    assert "0003, 0004" in fault.sentence
    assert [run.scan.slice_numbers for run in one.read()] == [(1, 2), (5, 6)]


def test_a_table_whose_slices_are_all_missing_is_one_sentence(tmp_path: Path) -> None:
    folder = write_day(tmp_path, *day())
    for path in (folder / "scans").iterdir():
        path.rename(path.with_name(path.name.replace("slice_0", "slice_9")))
    with pytest.raises(InputError) as error:
        find_labelled(tmp_path, [COMPETITION])
    assert_one_sentence(error, "case1_day0", "train.csv")


def test_a_day_whose_folder_is_missing_is_a_fault(tmp_path: Path) -> None:
    write_day(tmp_path, *day())
    shutil.rmtree(write_day(tmp_path, *day("case2_day0")))
    found, (fault,) = found_with_faults(tmp_path, COMPETITION)
    assert names(found) == ["case1_day0"]
    assert (fault.scan, fault.left_out) == ("case2_day0", True)


def test_days_with_known_faulty_contours_are_left_out(tmp_path: Path) -> None:
    write_day(tmp_path, *day())
    write_day(tmp_path, *day("case7_day0"))
    found, (fault,) = found_with_faults(tmp_path, COMPETITION)
    assert names(found) == ["case1_day0"]
    assert (fault.scan, fault.left_out) == ("case7_day0", True)
    assert "known issues" in fault.sentence


def test_an_unknown_class_in_the_table_is_named_with_the_nearest(tmp_path: Path) -> None:
    write_day(tmp_path, *day())
    table = tmp_path / "train.csv"
    table.write_text(table.read_text().replace(",stomach,", ",stomch,"))
    (one,) = find_labelled(tmp_path, [COMPETITION])
    with pytest.raises(InputError) as error:
        one.read()
    assert_one_sentence(error, "'stomch'", "'stomach'", "case1_day0", "train.csv")


def test_a_class_by_a_synonym_is_its_organ(tmp_path: Path) -> None:
    truth = day()[1]
    write_day(tmp_path, *day())
    table = tmp_path / "train.csv"
    table.write_text(table.read_text().replace(",large_bowel,", ",colon,"))
    read = only_truth(find_labelled(tmp_path, [COMPETITION]))
    np.testing.assert_array_equal(read.masks, truth.masks)


def test_a_damaged_slice_is_told_when_the_day_is_read(tmp_path: Path) -> None:
    folder = write_day(tmp_path, *day())
    path = next((folder / "scans").iterdir())
    path.write_bytes(path.read_bytes()[:60])
    (one,) = find_labelled(tmp_path, [COMPETITION])
    with pytest.raises(InputError) as error:
        one.read()
    assert_one_sentence(error, path.name)


def test_reading_reports_each_slice(tmp_path: Path) -> None:
    write_day(tmp_path, *day())
    reports: list[Progress] = []
    find_labelled(tmp_path, [COMPETITION])[0].read(reports.append)
    assert [(r.done, r.total) for r in reports] == [(n, 6) for n in range(6)]


@pytest.mark.parametrize(
    ("cases", "days"),
    [
        (None, ["case1_day0", "case2_day0", "case3_day0", "case3_day5"]),
        (["case3"], ["case3_day0", "case3_day5"]),
        (["case3_day5", "case1"], ["case1_day0", "case3_day5"]),
    ],
)
def test_cases_choose_patients_or_scans(
    phantom_data: Path, cases: list[str] | None, days: list[str]
) -> None:
    assert names(chosen_cases(find_labelled(phantom_data), cases)) == days


def test_a_case_that_is_not_there_is_named(phantom_data: Path) -> None:
    with pytest.raises(InputError, match=r"'case30'.*case1_day0") as error:
        chosen_cases(find_labelled(phantom_data), ["case3", "case30"])
    assert_one_sentence(error)


def test_only_the_organs_of_the_recipe_come(phantom_data: Path) -> None:
    organs = [organ_named("stomach"), organ_named("duodenum", KNOWN_ORGANS)]
    (run,) = find_labelled(phantom_data, organs=organs)[0].read()
    assert [organ.name for organ in run.truth.organs] == ["stomach"]


# --- single slices --------------------------------------------------------------------------


def write_pairs(folder: Path, labels_shape: tuple[int, int] = (40, 50)) -> Path:
    """Two patients' single slices, 80 mm wide, in which only the stomach is outlined."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    image = np.random.default_rng(0).integers(0, 255, (40, 50), dtype=np.uint8)
    labels = np.zeros(labels_shape, np.uint8)
    labels[10:30, 5:25] = 9
    labels[0:5, 30:40] = 4
    for name in ("case1_a.png", "case1_b.png", "case2_a.png"):
        write_grey_png(image, folder / "images" / name)
        write_grey_png(labels, folder / "labels" / name)
    return folder


def pairs(**changes: object) -> PairsSource:
    fields = {
        "kind": "pairs", "path": "pairs", "field_of_view_mm": 80, "organs": ["stomach"],
        "label_values": {9: "stomach", 4: "large_bowel"},
    }  # fmt: skip
    return PairsSource.model_validate({**fields, **changes})


@pytest.mark.parametrize("size", [{}, {"field_of_view_mm": None, "pixel_mm": 1.6}])
def test_pairs_say_which_organs_they_know(tmp_path: Path, size: dict[str, float | None]) -> None:
    write_pairs(tmp_path / "pairs")
    found = find_labelled(tmp_path, [pairs(**size)])
    assert [one.patient for one in found] == ["case1", "case1", "case2"]
    assert {one.pool for one in found} == {"pairs"}
    (run,) = found[0].read()
    assert run.scan.spacing == (3.0, 1.6, 1.6)
    assert [organ.name for organ in run.truth.organs] == ["stomach"]
    assert run.truth.masks[0, 0, 10:30, 5:25].all()
    assert run.truth.masks.sum() == 400


def test_pairs_are_grouped_by_a_table(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "pairs")
    (folder / "groups.csv").write_text("file,group\ncase1_a.png,1\ncase1_b.png,2\ncase2_a.png,2\n")
    found = find_labelled(tmp_path, [pairs(patients="groups.csv", same_patient={"2": "case6"})])
    assert [one.patient for one in found] == ["pairs-1", "case6", "case6"]


@pytest.mark.parametrize(
    ("table", "part"),
    [
        (None, "groups.csv"),
        ("name,set\na,1\n", "columns file and group"),
        ("file,group\ncase1_a.png,1\n", "case1_b.png"),
    ],
)
def test_a_wrong_table_of_groups_is_one_sentence(
    tmp_path: Path, table: str | None, part: str
) -> None:
    folder = write_pairs(tmp_path / "pairs")
    if table is not None:
        (folder / "groups.csv").write_text(table)
    with pytest.raises(InputError) as error:
        find_labelled(tmp_path, [pairs(patients="groups.csv")])
    assert_one_sentence(error, part)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"pixel_mm": 1.5}, "field_of_view_mm or pixel_mm"),
        ({"field_of_view_mm": None}, "field_of_view_mm or pixel_mm"),
        ({"organs": ["stomch"]}, "'stomch': did you mean 'stomach'"),
        ({"label_values": {9: "stomch"}}, "'stomch': did you mean 'stomach'"),
        ({"organs": ["liver"]}, "none of the organs"),
        ({"labels": "absent"}, "absent"),
        ({"images": "absent"}, "no PNG"),
        ({"path": "absent"}, "absent does not exist"),
    ],
)
def test_wrong_pairs_are_one_sentence(
    tmp_path: Path, changes: dict[str, object], part: str
) -> None:
    write_pairs(tmp_path / "pairs")
    with pytest.raises(InputError) as error:
        find_labelled(tmp_path, [pairs(**changes)])
    assert_one_sentence(error, part)


def test_a_label_image_of_another_size_is_refused(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs", labels_shape=(80, 100))
    with pytest.raises(InputError) as error:
        find_labelled(tmp_path, [pairs()])[0].read()
    assert_one_sentence(error, "case1_a.png", "100 x 80", "50 x 40")


def test_a_slice_without_a_label_image_is_a_fault(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "pairs")
    (folder / "labels" / "case1_b.png").unlink()
    found, (fault,) = found_with_faults(tmp_path, pairs())
    assert names(found) == ["case1_a", "case2_a"]
    assert (fault.scan, fault.left_out) == ("case1_b", True)


def test_pairs_cannot_be_guessed_and_the_error_says_so(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs")
    with pytest.raises(InputError) as error:
        detect_sources(tmp_path)
    assert_one_sentence(error, "pairs", "pixel size")


# --- scans and label images -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("scan", "labels", "name"),
    [
        ("imagesTr/BRATS_001_0000.nii.gz", "labelsTr/BRATS_001.nii.gz", "BRATS_001"),
        ("images/a1.nii.gz", "labels/a1.nii.gz", "a1"),
        ("images/a1.nii.gz", "labels/a1_seg.nii.gz", "a1"),
        ("images/a1.tif", "masks/a1.nii.gz", "a1"),
        ("images/p1/a.nii.gz", "segmentations/p1/a.tif", "p1_a"),
        ("p1/Scan.nii.gz", "p1/scan_seg.nii.gz", "p1_Scan"),
        ("a1.nii.gz", "a1_label.nii.gz", "a1"),
        ("a1.nii.gz", "a1_labels.nii", "a1"),
        ("a1.tif", "a1_mask.tif", "a1"),
        ("a1.nii", "a1-segmentation.nii.gz", "a1"),
        ("a1.nii.gz", "a1_gt.nii.gz", "a1"),
    ],
)
def test_scans_and_labels_find_each_other(
    tmp_path: Path, scan: str, labels: str, name: str
) -> None:
    voxels, truth = day()
    (tmp_path / scan).parent.mkdir(parents=True, exist_ok=True)
    write_scan(voxels, tmp_path / scan)
    write_values(truth, tmp_path / labels)
    (one,), faults = found_with_faults(tmp_path, scans())
    assert faults == []
    assert one.name == name
    assert one.files == (tmp_path / scan, tmp_path / labels)
    (run,) = one.read()
    np.testing.assert_array_equal(run.scan.voxels, voxels.voxels)
    np.testing.assert_array_equal(run.truth.labels().array, truth.labels().array)
    assert run.scan.name == run.truth.name == name
    assert detect_sources(tmp_path) == (scans(path="."),)


def test_patients_are_folders_or_the_beginning_of_file_names(tmp_path: Path) -> None:
    for place, stem in [
        ("smith/day1", "mr"), ("smith/day2", "mr"), ("jones", "mr"), (".", "case20_day0"),
        (".", "case20_day3"), (".", "BRATS_001"), (".", "BRATS_002"), (".", "nodigit"),
    ]:  # fmt: skip
        write_nifti(tmp_path / place, stem, f"{stem}_seg.nii.gz")
    found = find_labelled(tmp_path, [scans()])
    assert {one.name: one.patient for one in found} == {
        "smith_day1_mr": "smith", "smith_day2_mr": "smith", "jones_mr": "jones",
        "case20_day0": "case20", "case20_day3": "case20",
        "BRATS_001": "BRATS_001", "BRATS_002": "BRATS_002", "nodigit": "nodigit",
    }  # fmt: skip


def test_a_table_says_who_is_who(tmp_path: Path) -> None:
    for stem in ("a1", "a2", "b"):
        write_nifti(tmp_path, stem, f"{stem}_seg.nii.gz")
    table = tmp_path / "who.csv"
    table.write_text("file,group\na1.nii.gz,x\na2.nii.gz,y\nb.nii.gz,x\n")
    found = find_labelled(tmp_path, [scans(patients="who.csv")])
    assert [one.patient for one in found] == ["x", "y", "x"]
    table.write_text("file,group\na1.nii.gz,x\na2.nii.gz,y\n")
    with pytest.raises(InputError) as error:
        find_labelled(tmp_path, [scans(patients="who.csv")])
    assert_one_sentence(error, "who.csv", "b.nii.gz")


def test_label_values_name_organs_and_the_others_are_unknown(tmp_path: Path) -> None:
    write_nifti(tmp_path, "a", None)
    truth = day()[1]
    write_values(truth, tmp_path / "a_seg.nii.gz", {"stomach": 7, "small_bowel": 13})
    source = scans(label_values={7: "stomach", 13: "duodenum", 40: "liver"})
    read = only_truth(find_labelled(tmp_path, [source]))
    assert [organ.name for organ in read.organs] == ["stomach"]
    np.testing.assert_array_equal(read.masks[0], truth.labels().array == 3)
    more = [*ORGANS, organ_named("duodenum", KNOWN_ORGANS), organ_named("liver", KNOWN_ORGANS)]
    read = only_truth(find_labelled(tmp_path, [source], more))
    assert [organ.name for organ in read.organs] == ["stomach", "duodenum", "liver"]
    assert not read.masks[2].any()


def test_values_that_nothing_names_are_not_guessed(tmp_path: Path) -> None:
    write_nifti(tmp_path, "a", None)
    write_values(day()[1], tmp_path / "a_seg.nii.gz", {"stomach": 7})
    (one,) = find_labelled(tmp_path, [scans()])
    with pytest.raises(InputError) as error:
        one.read()
    assert_one_sentence(error, "a_seg.nii.gz", "value 7", "label_values")


def test_a_label_image_without_any_value_says_that_the_organs_are_absent(tmp_path: Path) -> None:
    write_nifti(tmp_path, "a", None)
    truth = day()[1]
    empty = dataclasses.replace(truth, masks=np.zeros_like(truth.masks))
    write_values(empty, tmp_path / "a_seg.nii.gz")
    read = only_truth(find_labelled(tmp_path, [scans()]))
    assert read.organs == ORGANS
    assert not read.masks.any()


def test_a_label_image_with_its_own_table_needs_no_values(tmp_path: Path) -> None:
    write_nifti(tmp_path, "a", None)
    truth = day()[1]
    organs = (organ_named("spleen", KNOWN_ORGANS), organ_named("stomach"))
    named = dataclasses.replace(truth, masks=truth.masks[[0, 2]], organs=organs)
    write_segmentation(named, tmp_path / "a_seg.nii.gz")
    read = only_truth(find_labelled(tmp_path, [scans()]))
    assert [organ.name for organ in read.organs] == ["stomach"]
    np.testing.assert_array_equal(read.masks[0], named.labels().array == 3)


def test_a_source_can_say_what_was_outlined(tmp_path: Path) -> None:
    write_nifti(tmp_path, "a", "a_seg.nii.gz")
    read = only_truth(find_labelled(tmp_path, [scans(organs=["stomach", "small_bowel"])]))
    assert [organ.name for organ in read.organs] == ["small_bowel", "stomach"]


def test_nnu_nets_description_names_the_values(tmp_path: Path) -> None:
    write_nifti(tmp_path / "imagesTr", "a_0000", None)
    write_values(day()[1], tmp_path / "labelsTr" / "a.nii.gz", {"stomach": 5})
    plan = {"labels": {"background": 0, "colon": 1, "small_bowel": 2, "stomach": 5, "thing": 6}}
    for labels in (plan["labels"], {str(v): name for name, v in plan["labels"].items()}):
        (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
        (source,) = detect_sources(tmp_path)
        assert source == scans(label_values={1: "large_bowel", 2: "small_bowel", 5: "stomach"})
    assert only_truth(find_labelled(tmp_path)).organs == ORGANS


def test_labels_on_another_grid_are_one_sentence(tmp_path: Path) -> None:
    write_nifti(tmp_path, "a", None)
    write_values(abdomen((5, 32, 36))[1], tmp_path / "a_seg.nii.gz")
    with pytest.raises(InputError) as error:
        find_labelled(tmp_path, [scans()])[0].read()
    assert_one_sentence(error, "a_seg.nii.gz", "another grid")


def test_two_files_that_outline_one_organ_contradict_each_other(tmp_path: Path) -> None:
    write_nifti(tmp_path, "a", "a_seg.nii.gz")
    write_values(day()[1], tmp_path / "a_mask.nii.gz")
    with pytest.raises(InputError) as error:
        find_labelled(tmp_path, [scans()])[0].read()
    assert_one_sentence(error, "a_seg.nii.gz", "a_mask.nii.gz")


def test_files_without_their_counterpart_are_faults(tmp_path: Path) -> None:
    write_nifti(tmp_path / "images", "a", None)
    write_nifti(tmp_path / "images", "unlabelled", None)
    write_values(day()[1], tmp_path / "labels" / "a.nii.gz")
    write_values(day()[1], tmp_path / "labels" / "alone.nii.gz")
    found, faults = found_with_faults(tmp_path, scans())
    assert names(found) == ["a"]
    assert {(fault.scan, fault.left_out) for fault in faults} == {
        ("unlabelled", True), ("alone", True),
    }  # fmt: skip


def test_of_two_files_of_one_name_one_is_a_fault(tmp_path: Path) -> None:
    write_nifti(tmp_path, "a", "a_seg.nii.gz")
    write_scan(day()[0], tmp_path / "a.tif")
    (one,), (fault,) = found_with_faults(tmp_path, scans())
    assert one.files[0].name == "a.nii.gz"
    assert "a.tif" in fault.sentence


def test_further_channels_of_a_scan_are_no_fault(tmp_path: Path) -> None:
    for channel in ("0000", "0001"):
        write_nifti(tmp_path / "imagesTr", f"a_{channel}", None)
    write_nifti(tmp_path / "imagesTs", "b_0000", None)
    write_values(day()[1], tmp_path / "labelsTr" / "a.nii.gz")
    found, faults = found_with_faults(tmp_path, scans())
    assert (names(found), faults) == (["a"], [])


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"organs": ["stomch"]}, "'stomch': did you mean 'stomach'"),
        ({"organs": ["liver"]}, "none of the organs"),
        ({"label_values": {1: "smal_bowel"}}, "'smal_bowel': did you mean 'small_bowel'"),
        ({"contours": {"GTV": "stomac"}}, "'stomac': did you mean 'stomach'"),
        ({"path": "absent"}, "absent does not exist"),
        ({"patients": "absent.csv"}, "absent.csv"),
    ],
)
def test_wrong_scans_are_one_sentence(
    tmp_path: Path, changes: dict[str, object], part: str
) -> None:
    write_nifti(tmp_path, "a", "a_seg.nii.gz")
    with pytest.raises(InputError) as error:
        find_labelled(tmp_path, [scans(**changes)])
    assert_one_sentence(error, part)


def test_a_missing_folder_of_labels_is_one_sentence(tmp_path: Path) -> None:
    write_nifti(tmp_path / "images", "a", None)
    for look in (lambda: find_labelled(tmp_path, [scans()]), lambda: find_labelled(tmp_path)):
        with pytest.raises(InputError) as error:
            look()
        assert_one_sentence(error, str(tmp_path), "labels/")


@pytest.mark.parametrize("kind", ["missing", "empty"])
def test_a_folder_without_data_is_one_sentence(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / kind
    if kind == "empty":
        folder.mkdir()
    sources: list[tuple[Source, ...]] = [(), (COMPETITION,), (scans(),)]
    for some in sources:
        with pytest.raises(InputError) as error:
            find_labelled(folder, some)
        assert_one_sentence(error, str(folder))


def test_organs_go_by_the_table_of_names() -> None:
    assert [o.name for o in named_organs(["Stomach", "colon"], "x")] == ["stomach", "large_bowel"]
    with pytest.raises(InputError) as error:
        named_organs(["stomach", "duodenm"], "The recipe")
    assert_one_sentence(error, "The recipe", "'duodenm'", "'duodenum'")
    with pytest.raises(InputError) as error:
        named_organs(["stomach", "gaster"], "The recipe")
    assert_one_sentence(error, "twice")


# --- DICOM ----------------------------------------------------------------------------------


@pytest.mark.parametrize("contours", ["rs/contours.rtstruct.dcm", "contours.seg.dcm"])
def test_a_series_finds_its_contours(tmp_path: Path, contours: str) -> None:
    for patient, seed in (("one", 0), ("two", 3)):
        (tmp_path / patient / contours).parent.mkdir(parents=True)
        truth = write_dicom(tmp_path / patient, contours, seed=seed, PatientID=patient)
    # a second series of the patient, without contours
    write_classic_series(tmp_path / "two" / "other", day()[0], number=9, PatientID="two")
    found, faults = found_with_faults(tmp_path, scans())
    assert faults == []
    assert len({one.patient for one in found}) == len(found) == 2
    (second,) = (one for one in found if tmp_path / "two" in one.files[0].parents)
    (run,) = second.read()
    np.testing.assert_array_equal(run.truth.masks, truth.masks)
    assert run.truth.organs == ORGANS
    assert detect_sources(tmp_path) == (scans(path="."),)


def test_nothing_names_a_person(tmp_path: Path) -> None:
    folder = tmp_path / "Doe_Jane"
    write_dicom(folder, "c.rtstruct.dcm")
    write_dicom(tmp_path / "Roe_Rik", "c.rtstruct.dcm", PatientID="")
    for one in find_labelled(tmp_path, [scans()]):
        (run,) = one.read()
        told = " ".join([one.name, one.patient, one.pool, run.scan.name, run.truth.name])
        assert one.patient.startswith("patient-")
        for secret in (PATIENT, "Doe", "Jane", "Roe", "4711"):
            assert secret not in told


def test_series_of_one_patient_id_are_one_patient(tmp_path: Path) -> None:
    for visit in ("v1", "v2"):
        write_dicom(tmp_path / visit, "c.rtstruct.dcm", PatientID="X")
    found = find_labelled(tmp_path, [scans()])
    assert len({one.name for one in found}) == 2
    assert len({one.patient for one in found}) == 1


def test_contours_of_others_are_chosen_by_name(tmp_path: Path) -> None:
    scan, truth = day()
    write_classic_series(tmp_path / "MR", scan)
    from gitract.io import read_scan

    organs = (
        organ_named("spleen", KNOWN_ORGANS), organ_named("liver", KNOWN_ORGANS),
        organ_named("stomach"),
    )  # fmt: skip
    series = dataclasses.replace(read_scan(tmp_path / "MR"), name=truth.name)
    on_series = dataclasses.replace(truth.on(series), organs=organs)
    write_segmentation(on_series, tmp_path / "c.rtstruct.dcm")
    (tmp_path / "c.rtstruct.dcm.json").unlink()
    read = only_truth(find_labelled(tmp_path, [scans(contours={"Spleen": "small_bowel"})]))
    assert [organ.name for organ in read.organs] == ["small_bowel", "stomach"]
    np.testing.assert_array_equal(read.masks[0], on_series.masks[0])
    read = only_truth(find_labelled(tmp_path, [scans(contours={"Stomach": "-"})], organs))
    assert [organ.name for organ in read.organs] == ["liver", "spleen"]
    with pytest.raises(InputError) as error:
        find_labelled(tmp_path, [scans()], [organ_named("large_bowel")])[0].read()
    assert_one_sentence(error, "c.rtstruct.dcm", "large_bowel")


def test_contours_without_their_series_are_a_fault(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a", "c.rtstruct.dcm")
    write_dicom(tmp_path / "b", "d.rtstruct.dcm", name="case2_day0")
    shutil.rmtree(tmp_path / "b" / "MR")
    found, (fault,) = found_with_faults(tmp_path, scans())
    assert len(found) == 1
    assert (fault.scan, fault.left_out) == ("d.rtstruct.dcm", True)


def test_contours_in_several_files_come_together(tmp_path: Path) -> None:
    truth = write_dicom(tmp_path, "all.rtstruct.dcm")
    (tmp_path / "all.rtstruct.dcm").unlink()
    for index, organ in enumerate(ORGANS[:2]):
        part = dataclasses.replace(truth, masks=truth.masks[[index]], organs=(organ,))
        path = tmp_path / f"{organ.name}.seg.dcm"
        write_segmentation(part, path)
        path.with_name(path.name + ".json").unlink()
    read = only_truth(find_labelled(tmp_path, [scans()]))
    assert [organ.name for organ in read.organs] == ["large_bowel", "small_bowel"]
    np.testing.assert_array_equal(read.masks, truth.masks[:2])


def test_a_scan_keeps_the_orientation_of_its_file(tmp_path: Path) -> None:
    scan = stored_as(day()[0], Turn(swap=True, flip_rows=True))
    write_scan(scan, tmp_path / "a.nii.gz")
    write_values(
        Segmentation(np.zeros((3, *scan.shape), np.bool_), scan.spacing, scan.affine),
        tmp_path / "a_seg.nii.gz",
    )
    (run,) = find_labelled(tmp_path, [scans()])[0].read()
    assert run.scan.shape == run.truth.shape
    np.testing.assert_allclose(run.scan.affine, run.truth.affine)


# --- imports --------------------------------------------------------------------------------


def test_finding_and_reporting_need_no_torch() -> None:
    code = (
        "import sys, gitract.labelled, gitract.data_report;"
        "sys.exit('torch' in sys.modules or 'pydicom' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- real scans -----------------------------------------------------------------------------


@pytest.mark.data
def test_real_labelled_slices_by_patient(shared_data: Path) -> None:
    counts: Counter[str] = Counter()
    sources = [
        CompetitionSource(kind="competition", path=path) for path in ("uwm_stacks", "uwm_16bit")
    ]
    found, faults = found_with_faults(shared_data, *sources)
    for one in found:
        for run in one.read():
            counts[one.patient] += len(run.scan.voxels)
            assert run.scan.shape == run.truth.shape
    assert counts == {"case139": 107, "case16": 144, "case20": 288, "case6": 144, "case101": 8}
    assert {fault.scan.split("_")[0] for fault in faults} == {"case125", "case35", "case85"}


def test_scans_of_the_competition_without_their_table_are_told_so(tmp_path: Path) -> None:
    write_day(tmp_path, abdomen((3, 32, 40), name="case1_day0")[0])
    (tmp_path / "train.csv").unlink(missing_ok=True)
    with pytest.raises(InputError, match=r"without contours: its train.csv must lie beside"):
        find_labelled(tmp_path)


@pytest.mark.parametrize("text", ["ANONYMOUS", "anonymized", "Unknown", "000", "", "  "])
def test_what_anonymisers_write_is_no_patient(text: str) -> None:
    assert not tells_a_patient(text)
    assert tells_a_patient("4711")


@pytest.mark.data
def test_real_single_slices(shared_data: Path) -> None:
    stomach_only = PairsSource(
        kind="pairs", path="stomach_only", labels="masks", pixel_mm=3.7, organs=("stomach",),
        label_values={255: "stomach"}, patients="groups.csv", same_patient={"9": "case6"},
    )  # fmt: skip
    found = find_labelled(shared_data, [stomach_only])
    assert len(found) == 910
    assert "case6" in {one.patient for one in found}
    (run,) = found[100].read()
    assert 1 < run.truth.volumes_ml["stomach"] < 60


@pytest.mark.data
def test_a_real_label_image_of_another_project(shared_data: Path) -> None:
    source = scans(path="other/amos_mri_0540", label_values={7: "stomach"})
    (one,) = find_labelled(shared_data, [source])
    assert (one.name, one.patient) == ("amos_0540", "amos_0540")
    read = only_truth([one])
    assert [organ.name for organ in read.organs] == ["stomach"]
    assert 50 < read.volumes_ml["stomach"] < 1000


@pytest.mark.data
def test_a_real_scan_with_a_models_labels_in_two_folders(shared_data: Path, tmp_path: Path) -> None:
    for folder, name in (("images", "example_mr_sm"), ("labels", "example_seg_mr")):
        (tmp_path / folder).mkdir()
        source = shared_data / "other" / "totalseg_tests" / f"{name}.nii.gz"
        (tmp_path / folder / "t1.nii.gz").symlink_to(source)
    values = {6: "stomach", 13: "small_bowel", 14: "duodenum", 15: "colon"}
    read = only_truth(find_labelled(tmp_path, [scans(label_values=values)]))
    assert read.organs == ORGANS
    assert read.masks.any()


@pytest.mark.data
def test_a_real_structure_set(shared_data: Path) -> None:
    source = scans(path="dicom/rtstruct_ct4")
    (one,) = find_labelled(shared_data, [source], named_organs(["body", "spinal_cord"], "x"))
    assert one.patient.startswith("patient-")
    assert len(one.files) == 5
    read = only_truth([one])
    assert {organ.name for organ in read.organs} == {"body", "spinal_cord"}
    assert all(volume > 0 for volume in read.volumes_ml.values())


@pytest.mark.data
@pytest.mark.parametrize("path", ["dicom/rtutils_mock", "dicom/dcmqi_ct3_seg"])
def test_real_contours_without_the_recipes_organs_say_so(shared_data: Path, path: str) -> None:
    found = find_labelled(shared_data, [scans(path=path)])
    assert found
    read: Callable[[], object] = found[0].read
    with pytest.raises(InputError) as error:
        read()
    assert_one_sentence(error, "none of the organs")
