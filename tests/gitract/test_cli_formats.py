"""`gitract convert`, `info` and `organs`, and `segment` onto a DICOM series."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from gitract.io import read_scan, read_segmentation, write_scan, write_segmentation
from gitract.organs import Organ
from gitract.phantom import abdomen, write_day
from gitract.scan import Scan, Segmentation

Cli = Callable[..., SimpleNamespace]


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory, phantom: tuple[Scan, Segmentation]) -> Path:
    return write_day(tmp_path_factory.mktemp("day"), *phantom)


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory, phantom: tuple[Scan, Segmentation]) -> Path:
    return write_scan(phantom[0], tmp_path_factory.mktemp("series") / "scan.dcm")


def test_contours_of_the_competition_become_a_structure_set_and_come_back(
    cli: Cli, day: Path, phantom: tuple[Scan, Segmentation], tmp_path: Path
) -> None:
    """From run lengths to the planning system and back to a submission, by commands alone."""
    scan, organs = tmp_path / "scan.dcm", tmp_path / "organs.rtstruct.dcm"
    assert cli("convert", day, scan).code == 0
    assert cli("convert", day, tmp_path / "truth.csv", "--reference").code == 0
    result = cli("convert", tmp_path / "truth.csv", organs, "--scan", scan, "--json")
    assert result.code == 0, result.err
    content = json.loads(result.out)
    assert content["overlap_voxels_lost"] == 0
    assert content["volumes_ml"]["stomach"] == pytest.approx(phantom[1].volumes_ml["stomach"])
    assert cli("convert", organs, tmp_path / "again.csv", "--scan", day).code == 0
    assert (tmp_path / "again.csv").read_text() == (tmp_path / "truth.csv").read_text()


def test_flat_formats_say_how_many_voxels_they_lose(cli: Cli, day: Path, tmp_path: Path) -> None:
    result = cli("convert", day, tmp_path / "truth.nii.gz", "--reference")
    assert "belong to several organs" in result.out
    assert "Stomach" in result.out


def test_segment_writes_onto_the_series(
    cli: Cli, series: Path, trained: SimpleNamespace, tmp_path: Path
) -> None:
    model = trained.result.model
    for suffix in (".rtstruct.dcm", ".seg.dcm"):
        path = tmp_path / f"organs{suffix}"
        result = cli("segment", series, "-o", path, "--model", model, "--json")
        assert result.code == 0, result.err
        found = read_segmentation(path, scan=read_scan(series))
        assert found.provenance["model"] == "tiny"
        assert found.volumes_ml == pytest.approx(json.loads(result.out)["volumes_ml"])


def test_segment_refuses_dicom_contours_of_another_scan_before_it_computes(
    cli: Cli, day: Path, tmp_path: Path
) -> None:
    result = cli("segment", day, "-o", tmp_path / "o.seg.dcm", "--model", "absent")
    assert result.code == 2
    assert "DICOM series" in result.err


def test_info_of_a_scan_says_where_it_lies(cli: Cli, series: Path) -> None:
    content = json.loads(cli("info", series, "--json").out)
    assert content["shape"] == [12, 64, 72]
    assert content["spacing_mm"] == pytest.approx([3.0, 2.4, 2.4])
    assert content["orientation"] == "axial"
    assert content["axes_run_to"] == ["head", "back", "left"]
    assert content["segmenting"] == "12 axial slices would be outlined"
    assert "axial" in cli("info", series).out


def test_info_of_a_sagittal_scan_says_that_it_is_not_segmented(cli: Cli, tmp_path: Path) -> None:
    affine = np.diag([3.0, 1.0, 1.0, 1.0])  # slices run to the left
    affine[:3, :3] = affine[:3, [0, 1, 2]]
    scan = Scan(np.zeros((4, 5, 6), np.uint16), (3.0, 1.0, 1.0), affine)
    content = json.loads(cli("info", write_scan(scan, tmp_path / "s.dcm"), "--json").out)
    assert content["orientation"] == "sagittal"
    assert content["segmenting"].startswith("refused")


def test_info_lists_several_scans_and_a_key_chooses(cli: Cli, tmp_path: Path) -> None:
    for name, slices in (("case1_day0", 4), ("case1_day9", 5)):
        write_day(tmp_path, *abdomen((slices, 40, 48), name=name))
    case = tmp_path / "train" / "case1"
    rows = json.loads(cli("info", case, "--json").out)["scans"]
    assert [(row["key"], row["shape"][0]) for row in rows] == [("case1_day0", 4), ("case1_day9", 5)]
    assert "case1_day9" in cli("info", case).out
    result = cli("convert", case, tmp_path / "out.nii.gz")
    assert result.code == 2
    assert "case1_day0" in result.err
    assert cli("convert", case, tmp_path / "out.nii.gz", "--key", "case1_day9").code == 0
    assert read_scan(tmp_path / "out.nii.gz").shape[0] == 5
    chosen = json.loads(cli("info", case, "--key", "case1_day9", "--json").out)
    assert chosen["name"] == "case1_day9"
    wrong = cli("info", case, "--key", "case1_day7")
    assert wrong.code == 2
    assert "case1_day7" in wrong.err


@pytest.fixture
def foreign(series: Path, phantom: tuple[Scan, Segmentation], tmp_path: Path) -> Path:
    """A structure set as another program writes it: with names of its own."""
    contours = phantom[1].on(read_scan(series))
    organs = (contours.organs[0], Organ(40, "loop_x", "#ff0000"), contours.organs[2])
    path = write_segmentation(replace(contours, organs=organs), tmp_path / "other.rtstruct.dcm")
    path.with_name(path.name + ".json").unlink()
    return path


def test_info_of_contours_says_what_their_names_stand_for(
    cli: Cli, series: Path, foreign: Path
) -> None:
    content = json.loads(cli("info", foreign, "--scan", series, "--json").out)
    assert content["contours"]["Stomach"] == "stomach"
    assert content["contours"]["Loop x"] == "loop_x (new)"
    assert content["volumes_ml"]["loop_x"] > 0
    alone = json.loads(cli("info", foreign, "--json").out)
    assert "scan" in alone["refused"]


def test_names_are_chosen_as_typed(
    cli: Cli, series: Path, foreign: Path, phantom: tuple[Scan, Segmentation], tmp_path: Path
) -> None:
    out = tmp_path / "out.nii.gz"
    command = ("convert", foreign, out, "--scan", series)
    result = cli(*command, "--organ", "Loop x=small_bowel", "--organ", "Stomach=-")
    assert result.code == 0, result.err
    labels = read_segmentation(out)
    assert labels.volumes_ml["small_bowel"] == pytest.approx(phantom[1].volumes_ml["small_bowel"])
    assert labels.volumes_ml["stomach"] == 0
    for wrong, part in (("Loop x", "GTV=tumour"), ("Nobody=stomach", "Nobody")):
        refused = cli(*command, "--organ", wrong)
        assert refused.code == 2
        assert part in refused.err


def test_labels_of_other_programs_are_named_by_value(
    cli: Cli, phantom: tuple[Scan, Segmentation], tmp_path: Path
) -> None:
    values = np.where(phantom[1].labels().array == 3, 7, 0).astype(np.int16)
    spacing = phantom[0].spacing
    source = write_scan(Scan(values, spacing), tmp_path / "amos.nii.gz")
    out = tmp_path / "out.tif"
    refused = cli("convert", source, out, "--labels")
    assert refused.code == 2
    assert "7" in refused.err
    assert cli("convert", source, out, "--labels", "--organ", "7=stomach").code == 0
    found = read_segmentation(out)
    np.testing.assert_array_equal(found.labels().array == 3, values == 7)


def test_organs_are_listed_with_their_names(cli: Cli) -> None:
    content = json.loads(cli("organs", "--json").out)
    by_name = {organ["name"]: organ for organ in content["organs"]}
    assert by_name["stomach"]["id"] == 3
    assert by_name["stomach"]["snomed_ct"] == "69695003"
    assert "oesophagus" in by_name["esophagus"]["also"]
    assert content["file"].endswith("organ-names.yaml")
    assert "69695003" in cli("organs").out


def test_a_scan_is_not_converted_to_contours(cli: Cli, series: Path, tmp_path: Path) -> None:
    result = cli("convert", series, tmp_path / "out.csv")
    assert result.code == 2
    assert "gitract segment" in result.err
    assert cli("convert", series, tmp_path / "out.xyz").code == 2


def test_a_given_spacing_holds_for_the_reference_too(cli: Cli, day: Path, tmp_path: Path) -> None:
    out = tmp_path / "truth.nii.gz"
    assert cli("convert", day, out, "--reference", "--spacing", "2,1,1").code == 0
    assert read_segmentation(out).spacing == pytest.approx((2.0, 1.0, 1.0))


def test_organs_are_left_out_of_files_that_know_theirs(cli: Cli, day: Path, tmp_path: Path) -> None:
    for name in ("truth.csv", "truth.nii.gz"):
        source = tmp_path / name
        assert cli("convert", day, source, "--reference").code == 0
        out = tmp_path / f"out_{name}"
        assert cli("convert", source, out, "--organ", "stomach=-").code == 0
        assert "stomach" not in read_segmentation(out).volumes_ml
        wrong = cli("convert", source, out, "--organ", "nonsense=stomach")
        assert wrong.code == 2
        assert "nonsense" in wrong.err


def test_a_spacing_is_the_scans_where_it_has_none(
    cli: Cli, phantom: tuple[Scan, Segmentation], tmp_path: Path
) -> None:
    import tifffile

    raw, labels = tmp_path / "raw.tif", tmp_path / "labels.tif"
    tifffile.imwrite(raw, phantom[0].voxels, photometric="minisblack")
    tifffile.imwrite(labels, phantom[1].labels().array, photometric="minisblack")
    command = ["convert", labels, tmp_path / "out.nii.gz", "--labels", "--scan", raw]
    assert cli(*command).code == 2
    assert cli(*command, "--spacing", "3,2.4,2.4").code == 0


def test_too_many_slices_are_one_line(cli: Cli, day: Path, tmp_path: Path) -> None:
    result = cli("segment", day, "-o", tmp_path / "o.tif", "--slices", "0:99999999999999")
    assert result.code == 2
    assert "give fewer" in result.err


def test_the_table_of_a_data_set_is_not_replaced(
    cli: Cli, phantom: tuple[Scan, Segmentation], tmp_path: Path
) -> None:
    day = write_day(tmp_path, *phantom)
    before = (tmp_path / "train.csv").read_text()
    assert cli("convert", day, tmp_path / "train.csv", "--reference").code == 2
    assert (tmp_path / "train.csv").read_text() == before
