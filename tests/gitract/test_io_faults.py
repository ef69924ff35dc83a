"""Whatever goes wrong, in every format: one sentence, nothing half written, nothing lost."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from gitract.io import (
    SCAN_SUFFIXES,
    SEGMENTATION_SUFFIXES,
    read_scan,
    read_segmentation,
    write_scan,
    write_segmentation,
)
from gitract.phantom import abdomen
from gitract.scan import Scan, Segmentation

Cli = Callable[..., SimpleNamespace]
# A command in a process that may write no file longer than this: a disk that is full.
FULL_DISK = (
    "import resource, signal, sys; from gitract.cli import main; import gitract.io;"
    "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (120, 120)); main()"
)


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scan, _ = abdomen((6, 40, 44), seed=1, name="case1_day0")
    return write_scan(scan, tmp_path_factory.mktemp("series") / "scan.dcm")


@pytest.fixture(scope="module")
def contours(series: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    _, truth = abdomen((6, 40, 44), seed=1, name="case1_day0")
    folder = tmp_path_factory.mktemp("contours")
    return write_segmentation(truth.on(read_scan(series)), folder / "organs.nii.gz")


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder, hidden ones too, with their content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def arguments(suffix: str, kind: str, series: Path, contours: Path, output: Path) -> list[str]:
    if kind == "scan":
        return ["convert", str(series), str(output)]
    return ["convert", str(contours), str(output), "--scan", str(series)]


CASES = [("scan", s) for s in SCAN_SUFFIXES] + [("labels", s) for s in SEGMENTATION_SUFFIXES]


@pytest.mark.parametrize(("kind", "suffix"), CASES)
def test_a_full_disk_leaves_the_old_output_as_it_was(
    kind: str, suffix: str, series: Path, contours: Path, tmp_path: Path, cli: Cli
) -> None:
    output = tmp_path / f"out{suffix}"
    command = arguments(suffix, kind, series, contours, output)
    assert cli(*command).code == 0
    before = tree(tmp_path)
    assert before
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, *command],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stderr.startswith("Error: ")
    assert tree(tmp_path) == before


@pytest.mark.parametrize(("kind", "suffix"), CASES)
def test_a_protected_output_is_not_replaced(
    kind: str, suffix: str, series: Path, contours: Path, tmp_path: Path, cli: Cli
) -> None:
    output = tmp_path / f"out{suffix}"
    command = arguments(suffix, kind, series, contours, output)
    assert cli(*command).code == 0
    before = tree(tmp_path)
    output.chmod(0o555)
    try:
        result = cli(*command)
    finally:
        output.chmod(0o755)
    assert result.code == 2
    assert "read-only" in result.err
    assert tree(tmp_path) == before


@pytest.mark.parametrize(("kind", "suffix"), CASES)
def test_a_second_writing_replaces_the_first_whole(
    kind: str, suffix: str, series: Path, contours: Path, tmp_path: Path, cli: Cli
) -> None:
    output = tmp_path / f"out{suffix}"
    command = arguments(suffix, kind, series, contours, output)
    assert cli(*command).code == 0
    names = set(tree(tmp_path))
    assert cli(*command).code == 0
    assert set(tree(tmp_path)) == names
    if kind == "scan":
        np.testing.assert_array_equal(read_scan(output).voxels, read_scan(series).voxels)
    else:
        scan = read_scan(series)
        again = read_segmentation(output, scan=scan).labels().array
        np.testing.assert_array_equal(again, read_segmentation(contours).on(scan).labels().array)


@pytest.mark.parametrize("suffix", [s for s in SEGMENTATION_SUFFIXES if s.endswith(".dcm")])
def test_contours_without_a_series_are_not_made_dicom(
    suffix: str, tmp_path: Path, cli: Cli
) -> None:
    _, truth = abdomen((6, 40, 44), seed=1)
    source = write_segmentation(truth, tmp_path / "organs.tif")
    result = cli("convert", source, tmp_path / f"out{suffix}")
    assert result.code == 2
    assert "--scan" in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["organs.tif"]


def test_the_input_is_never_the_output(series: Path, tmp_path: Path, cli: Cli) -> None:
    scan = tmp_path / "scan.nii.gz"
    assert cli("convert", series, scan).code == 0
    before = tree(tmp_path)
    for command in (
        ["segment", scan, "-o", scan],
        ["convert", scan, scan],
        ["convert", scan, tmp_path / "." / "scan.nii.gz", "--labels"],
    ):
        result = cli(*command)
        assert result.code == 2
        assert "the input itself" in result.err
    assert tree(tmp_path) == before


def test_a_folder_that_holds_the_input_is_not_replaced(tmp_path: Path, cli: Cli) -> None:
    scan, _ = abdomen((4, 40, 44), seed=1)
    series = write_scan(scan, tmp_path / "scan.dcm")
    slices = write_scan(scan, tmp_path / "scan.png")
    before = tree(tmp_path)
    inside = sorted(series.iterdir())[0]
    assert cli("convert", inside, series).code == 2
    assert cli("convert", tmp_path, series, "--key", "1").code == 2
    assert cli("segment", series, "-o", slices).code == 2  # a scan's slices, not labels
    assert tree(tmp_path) == before


def _one_slice(folder: Path) -> Path:
    voxels = np.zeros((1, 30, 30), np.uint16)
    return write_scan(Scan(voxels, (3.0, 1.0, 1.0)), folder / "one.nii.gz")


def _empty_folder(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def _missing_slice(folder: Path) -> Path:
    scan, _ = abdomen((6, 40, 44), seed=1, name="case1_day0")
    series = write_scan(scan, folder / "scan.dcm")
    sorted(series.glob("*.dcm"))[3].unlink()
    return series


def _truncated(suffix: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        scan, _ = abdomen((6, 40, 44), seed=1, name="case1_day0")
        path = write_scan(scan, folder / f"scan{suffix}")
        file = sorted(path.iterdir())[2] if path.is_dir() else path
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        return path

    return make


def _not_a_number(folder: Path) -> Path:
    scan, _ = abdomen((6, 40, 44), seed=1)
    voxels = scan.voxels.astype(np.float32)
    voxels[2, 3, 4] = np.nan
    return write_scan(Scan(voxels, scan.spacing), folder / "nan.nii.gz")


BAD = {
    "empty folder": _empty_folder,
    "one slice": _one_slice,
    "missing slice": _missing_slice,
    "truncated DICOM": _truncated(".dcm"),
    "truncated PNG": _truncated(".png"),
    "truncated TIFF": _truncated(".tif"),
    "truncated NIfTI": _truncated(".nii.gz"),
    "not a number": _not_a_number,
}


@pytest.mark.parametrize("make", BAD.values(), ids=BAD.keys())
def test_a_bad_scan_is_one_line_and_no_output(
    make: Callable[[Path], Path], tmp_path: Path, cli: Cli
) -> None:
    (tmp_path / "in").mkdir()
    source = make(tmp_path / "in")
    out = tmp_path / "out"
    out.mkdir()
    for command in (
        ["segment", source, "-o", out / "organs.tif"],
        ["convert", source, out / "scan.nii.gz"],
    ):
        result = cli(*command)
        assert result.code == 2, result
        assert len(result.err.strip().splitlines()) == 1
        assert result.err.startswith("Error: ")
    assert tree(out) == {}


@pytest.mark.parametrize("make", BAD.values(), ids=BAD.keys())
def test_info_says_why_a_scan_would_be_refused(
    make: Callable[[Path], Path], tmp_path: Path, cli: Cli
) -> None:
    result = cli("info", make(tmp_path))
    text = " ".join((result.out + result.err).split())
    assert "refused" in text or text.startswith("Error: ")
    assert "Traceback" not in text


def test_labels_of_another_scan_are_refused(
    series: Path, contours: Path, tmp_path: Path, cli: Cli
) -> None:
    scan = read_scan(series)
    affine = scan.affine.copy()
    affine[0, 3] += 1.0  # a millimetre to the left
    moved = write_scan(Scan(scan.voxels, scan.spacing, affine), tmp_path / "moved.nii.gz")
    result = cli("convert", contours, tmp_path / "out.tif", "--scan", moved)
    assert result.code == 2
    assert "another grid" in result.err
    assert not (tmp_path / "out.tif").exists()


def test_nothing_that_names_the_patient_gets_out(tmp_path: Path, cli: Cli) -> None:
    import pydicom

    scan, truth = abdomen((6, 40, 44), seed=1)
    series = write_scan(scan, tmp_path / "scan.dcm")
    secrets = {
        "PatientName": "Secret^Sally", "PatientID": "SECRET471147114711",
        "PatientBirthDate": "19481230",
        "InstitutionName": "Secret Clinic", "SeriesDescription": "secret words",
        "OperatorsName": "Secret^Oliver",
    }  # fmt: skip
    for file in series.glob("*.dcm"):
        dataset = pydicom.dcmread(file)
        dataset.update(pydicom.Dataset())
        for keyword, value in secrets.items():
            setattr(dataset, keyword, value)
        dataset.save_as(file)
    opened = read_scan(series)
    contours: Segmentation = truth.on(opened)
    out = tmp_path / "out"
    out.mkdir()
    for suffix in SEGMENTATION_SUFFIXES:
        write_segmentation(contours, out / f"organs{suffix}")
    for suffix in SCAN_SUFFIXES:
        write_scan(opened, out / f"scan{suffix}")
    said = cli("segment", series, "-o", out / "found.seg.dcm", "--json").out
    words = ("secret", "471147114711", "19481230")
    assert not any(word in said.lower() for word in words)
    for name, content in tree(out).items():
        if name.endswith((".seg.dcm", ".rtstruct.dcm")):
            continue  # the patient and study of their series stand there, and must
        text = content.decode("latin-1").lower()
        assert not any(word in text for word in words), name
    for kind in ("seg", "rtstruct"):
        linked = pydicom.dcmread(out / f"organs.{kind}.dcm")
        assert linked.PatientID == "SECRET471147114711"
        for keyword in ("PatientName", "PatientID", "PatientBirthDate"):
            del linked[keyword]
        assert not any(word in str(linked).lower() for word in words)
