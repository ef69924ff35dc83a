"""Run lengths: masks as text, and tables of them with their notes."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gitract.errors import InputError
from gitract.io import holds_labels, read_segmentation, write_segmentation
from gitract.io.rle import decode_rle, encode_rle, read_rle_table, slice_id
from gitract.organs import ORGANS, Organ
from gitract.scan import Scan, Segmentation, axial_affine
from phantoms import abdomen_phantom, l_phantom
from sentences import assert_one_sentence


@pytest.fixture
def phantom() -> tuple[Scan, Segmentation]:
    return abdomen_phantom(slices=6, rows=20, columns=24)


def assert_same(one: Segmentation, other: Segmentation) -> None:
    np.testing.assert_array_equal(one.masks, other.masks)
    np.testing.assert_array_equal(one.affine, other.affine)
    for name in ("spacing", "organs", "name", "slice_numbers", "provenance"):
        assert getattr(one, name) == getattr(other, name), name


# --- run lengths --------------------------------------------------------------------------

masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))


@given(masks)
def test_run_lengths_come_back(mask: np.ndarray) -> None:
    rle = encode_rle(mask)
    np.testing.assert_array_equal(decode_rle(rle, mask.shape), mask)
    numbers = [int(text) for text in rle.split()]
    assert sum(numbers[1::2]) == np.count_nonzero(mask)


def test_run_lengths_are_row_major_and_count_from_one() -> None:
    mask = np.array([[0, 1, 1], [1, 0, 0]], np.bool_)
    assert encode_rle(mask) == "2 3"
    assert encode_rle(~mask) == "1 1 5 2"
    assert encode_rle(np.zeros((2, 3), np.bool_)) == ""


def test_runs_may_touch_and_stand_in_any_order() -> None:
    np.testing.assert_array_equal(decode_rle("4 2 1 1 2 1", (2, 3)), [[1, 1, 0], [1, 1, 0]])


@pytest.mark.parametrize(
    ("rle", "reason"),
    [
        ("1 2 3", "3 numbers, which are not pairs"),
        ("5 3", "run past the image of 3 x 2"),
        ("7 1", "run past the image"),
        ("9223372036854775807 9223372036854775807", "run past the image"),
        ("99999999999999999999 1", "not a whole number"),
        ("1 2 2 1", "overlap"),
        ("2 1 2 1", "overlap"),
        ("0 2", "below 1"),
        ("1 0", "below 1"),
        ("-1 2", "below 1"),
        ("1 x", "not a whole number"),
        ("1.5 2", "not a whole number"),
    ],
)
def test_wrong_run_lengths_name_the_slice(rle: str, reason: str) -> None:
    with pytest.raises(InputError) as error:
        decode_rle(rle, (2, 3), name="stomach in case1_day0_slice_0003")
    assert_one_sentence(error, "stomach in case1_day0_slice_0003", reason)


# --- tables -------------------------------------------------------------------------------


def test_tables_of_other_programs(tmp_path: Path) -> None:
    csv = tmp_path / "labels.csv"
    csv.write_text(
        '\ufeff"class","id","width","segmentation"\r\n'
        '"stomach","a_slice_0001",266,"1 2 5 1"\r\n'
        '"large_bowel","a_slice_0001",266,\r\n\r\n'
        '"stomach","a_slice_0002",266,""\r\n',
        encoding="utf-8",
    )
    assert read_rle_table(csv) == {"a_slice_0001": {"stomach": "1 2 5 1"}, "a_slice_0002": {}}


@pytest.mark.parametrize("content", [b"", b"id,class\n", b"\xff\xfe\x00"])
def test_what_is_no_table(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(InputError) as error:
        read_rle_table(tmp_path / "labels.csv")
    assert_one_sentence(error, "labels.csv")


def test_a_missing_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"labels\.csv cannot be read"):
        read_rle_table(tmp_path / "labels.csv")


def test_a_written_table_is_the_competitions(
    tmp_path: Path, phantom: tuple[Scan, Segmentation]
) -> None:
    _, truth = phantom
    path = write_segmentation(truth, tmp_path / "out.csv")
    lines = path.read_text().splitlines()
    assert lines[0] == "id,class,segmentation"
    assert len(lines) == 1 + 6 * 3
    assert lines[1] == "case1_day0_slice_0001,large_bowel,"
    table = read_rle_table(path)
    for index, organ in enumerate(truth.organs):
        for number in range(1, 7):
            rle = table[slice_id("case1_day0", number)].get(organ.name, "")
            np.testing.assert_array_equal(
                decode_rle(rle, truth.shape[1:]), truth.masks[index, number - 1]
            )


def test_ids_without_numbers_and_with_awkward_names(tmp_path: Path) -> None:
    path = write_segmentation(
        dataclasses.replace(l_phantom(), name='my "scan", edited'), tmp_path / "out.csv"
    )
    assert list(read_rle_table(path)) == [f"my _scan__ edited_slice_{n:04d}" for n in range(1, 6)]


# --- segmentations ------------------------------------------------------------------------


ORGAN_TABLE = (*ORGANS[:2], Organ(9, "pancreas", "#f29f67"))


@settings(max_examples=20)
@given(
    masks=hnp.arrays(np.bool_, st.tuples(st.just(3), *[st.integers(1, 6)] * 3)),
    spacing=st.tuples(*[st.floats(0.3, 9, allow_subnormal=False)] * 3),
    first=st.none() | st.integers(1, 900),
)
def test_a_written_segmentation_comes_back_complete(
    tmp_path_factory: pytest.TempPathFactory,
    masks: np.ndarray,
    spacing: tuple[float, float, float],
    first: int | None,
) -> None:
    affine = axial_affine(spacing)
    affine[:3, 3] = 12.25, -80.1, 7e-3
    written = Segmentation(
        masks=masks,
        spacing=spacing,
        affine=affine,
        organs=ORGAN_TABLE,
        name='my "scan", edited',
        slice_numbers=first and tuple(range(first, first + masks.shape[1])),
        provenance={"model": "m", "baseline": ["a"] * masks.shape[1]},
    )
    path = tmp_path_factory.mktemp("table") / "out.csv"
    assert_same(read_segmentation(write_segmentation(written, path)), written)
    assert holds_labels(path)


def test_it_lands_on_the_scan_however_that_is_stored(
    tmp_path: Path, phantom: tuple[Scan, Segmentation]
) -> None:
    scan, truth = phantom
    path = write_segmentation(truth, tmp_path / "out.csv")
    affine = scan.affine.copy()
    affine[:3, 0] *= -1
    affine[:3, 3] += scan.affine[:3, 0] * (len(scan.voxels) - 1)
    turned = dataclasses.replace(scan, voxels=scan.voxels[::-1], affine=affine, name="turned")
    back = read_segmentation(path, scan=turned)
    np.testing.assert_array_equal(back.masks, truth.masks[:, ::-1])
    assert back.name == "turned"


def test_it_is_refused_on_another_grid(tmp_path: Path, phantom: tuple[Scan, Segmentation]) -> None:
    path = write_segmentation(phantom[1], tmp_path / "out.csv")
    moved = phantom[0].affine + np.eye(4)[[3, 3, 3, 3]] * [[1], [0], [0], [0]]
    with pytest.raises(InputError) as error:
        read_segmentation(path, scan=dataclasses.replace(phantom[0], affine=moved))
    assert_one_sentence(error, "another grid")


def test_without_notes_it_needs_a_scan(tmp_path: Path, phantom: tuple[Scan, Segmentation]) -> None:
    scan, truth = phantom
    path = write_segmentation(truth, tmp_path / "out.csv")
    (tmp_path / "out.csv.json").unlink()
    with pytest.raises(InputError) as error:
        read_segmentation(path)
    assert_one_sentence(error, "out.csv", "give the scan")
    back = read_segmentation(path, scan=scan)
    assert_same(back, truth)
    assert back.remarks == ()


def rows(segmentation: Segmentation, empty: bool = True) -> str:
    """The rows of a table, as another program would write them."""
    numbers = segmentation.slice_numbers or ()
    return "".join(
        f"{slice_id(segmentation.name, number)},{organ.name},{encode_rle(mask[index])}\n"
        for index, number in enumerate(numbers)
        for organ, mask in zip(segmentation.organs, segmentation.masks, strict=True)
        if empty or mask[index].any()
    )


def table(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text("id,class,segmentation\n" + text)
    return path


def test_a_scan_finds_its_day_in_a_table_of_many(
    tmp_path: Path, phantom: tuple[Scan, Segmentation]
) -> None:
    scan, truth = phantom
    other = dataclasses.replace(truth, name="case2_day0", masks=truth.masks[:, ::-1])
    # Slices without a contour may be absent.
    path = table(tmp_path, rows(other) + rows(truth, empty=False))
    assert_same(read_segmentation(path, scan=scan), truth)
    with pytest.raises(InputError) as error:
        read_segmentation(path, scan=dataclasses.replace(scan, name="case3_day0"))
    assert_one_sentence(error, "labels.csv", "'case3_day0'", "case2_day0, case1_day0")


def test_a_table_of_one_day_goes_onto_a_scan_of_another_name_with_a_remark(
    tmp_path: Path, phantom: tuple[Scan, Segmentation]
) -> None:
    scan, truth = phantom
    late = dataclasses.replace(truth, slice_numbers=tuple(range(27, 33)))
    path = table(tmp_path, rows(late))
    for numbers in (None, late.slice_numbers):
        named = dataclasses.replace(scan, name="series", slice_numbers=numbers)
        back = read_segmentation(path, scan=named)
        np.testing.assert_array_equal(back.masks, truth.masks)
        assert (back.name, back.slice_numbers) == ("series", numbers)
        assert "'case1_day0'" in back.remarks[0]


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"slice_numbers": tuple(range(2, 8))}, ["contours on slice 1", "'case1_day0'"]),
        ({"slice_numbers": None, "crop": 5}, ["6 slices", "has 5, without numbers"]),
    ],
)
def test_contours_that_the_scan_has_no_slice_for_are_refused(
    tmp_path: Path, phantom: tuple[Scan, Segmentation], change: dict[str, Any], parts: list[str]
) -> None:
    scan, truth = phantom
    truth.masks[2, 0, 3:5, 4] = True
    voxels = scan.voxels[: change.pop("crop", 6)]
    with pytest.raises(InputError) as error:
        read_segmentation(
            table(tmp_path, rows(truth)), scan=dataclasses.replace(scan, voxels=voxels, **change)
        )
    assert_one_sentence(error, "labels.csv", *parts)


def test_other_classes_become_organs(tmp_path: Path, phantom: tuple[Scan, Segmentation]) -> None:
    lines = ["case1_day0_slice_0002,STOMACH,1 3", "case1_day0_slice_0002,stomach,3 2"]
    lines += ["case1_day0_slice_0004,Duodenum,25 1", "case1_day0_slice_0005,Odd thing,1 2"]
    path = table(tmp_path, "".join(f"{line}\n" for line in lines))
    back = read_segmentation(path, scan=phantom[0])
    names = [organ.name for organ in back.organs]
    assert names[:4] == ["large_bowel", "small_bowel", "stomach", "duodenum"]
    assert names[4:] == ["odd_thing"]
    found = {name: np.argwhere(back.masks[names.index(name)]).tolist() for name in names}
    assert found["stomach"] == [[1, 0, column] for column in range(4)]  # both of its names
    assert found["duodenum"] == [[3, 1, 0]]
    assert found["odd_thing"] == [[4, 0, 0], [4, 0, 1]]


@pytest.mark.parametrize(
    ("lines", "parts"),
    [
        (
            ["case1_day0_slice_0002,stomach,470 99"],
            ["stomach in case1_day0_slice_0002", "run past"],
        ),
        (["case1_day0_slice_0002,stomach,1 2 2 2"], ["case1_day0_slice_0002", "overlap"]),
        (["case1_day0_slice_0002,stomach,1 2 3"], ["case1_day0_slice_0002", "not pairs"]),
        (["case1_day0_slice_0002,stomach,one"], ["case1_day0_slice_0002", "not a whole number"]),
        (["case1_day0_0002,stomach,1 2"], ["'case1_day0_0002'", "not like"]),
        (
            ["case1_day0_slice_2,stomach,1 2", "case1_day0_slice_0002,stomach,1 2"],
            ["under two ids"],
        ),
        (["case1_day0_slice_2,stomach,1 2", "case1_day0_slice_2,stomach,5 2"], ["a second time"]),
        (["case1_day0_slice_0002,??,1 2"], ["'??'"]),
        ([], ["'case1_day0'", "no rows"]),
    ],
)
def test_what_is_wrong_with_contours(
    tmp_path: Path, phantom: tuple[Scan, Segmentation], lines: list[str], parts: list[str]
) -> None:
    path = table(tmp_path, "".join(f"{line}\n" for line in lines))
    with pytest.raises(InputError) as error:
        read_segmentation(path, scan=phantom[0])
    assert_one_sentence(error, *parts)


def add_a_slice(path: Path, notes: dict[str, Any]) -> None:
    with path.open("a") as out:
        out.write("case1_day0_slice_0007,stomach,1 2\n")


def add_a_class(path: Path, notes: dict[str, Any]) -> None:
    path.write_text(path.read_text() + "case1_day0_slice_0006,liver,1 2\n")


def rename(path: Path, notes: dict[str, Any]) -> None:
    notes["name"] = "case2_day0"


def be_of_a_scan(path: Path, notes: dict[str, Any]) -> None:
    notes["format"] = "gitract scan"


@pytest.mark.parametrize("change", [add_a_slice, add_a_class, rename, be_of_a_scan])
def test_notes_of_another_table_are_not_believed(
    tmp_path: Path,
    phantom: tuple[Scan, Segmentation],
    change: Callable[[Path, dict[str, Any]], None],
) -> None:
    path = write_segmentation(phantom[1], tmp_path / "out.csv")
    notes = json.loads((tmp_path / "out.csv.json").read_text())
    change(path, notes)
    (tmp_path / "out.csv.json").write_text(json.dumps(notes))
    with pytest.raises(InputError) as error:
        read_segmentation(path)
    assert_one_sentence(error, "give the scan")


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("shape", [6, 20], "damaged"),
        ("shape", "odd", "damaged"),
        ("shape", [6, 60000, 60000], "claims 6 slices"),
        ("shape", [6, 0, 24], "claims 6 slices"),
        ("spacing", [3.0, 1.5], "damaged"),
        ("spacing", [3.0, 1.5, 0.0], "not usable"),
        ("affine", [[1, 2], [3]], "damaged"),
        ("slice_numbers", "abcdef", "damaged"),
        ("organs", [{"id": 1}], "damaged"),
    ],
)
def test_damaged_notes_are_refused(
    tmp_path: Path, phantom: tuple[Scan, Segmentation], key: str, value: object, part: str
) -> None:
    path = write_segmentation(phantom[1], tmp_path / "out.csv")
    notes = json.loads((tmp_path / "out.csv.json").read_text())
    (tmp_path / "out.csv.json").write_text(json.dumps(notes | {key: value}))
    with pytest.raises(InputError) as error:
        read_segmentation(path)
    assert_one_sentence(error, "out.csv", part)


def test_a_failed_table_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_segmentation(l_phantom(), tmp_path / "out.csv")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def fail(mask: np.ndarray) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gitract.io.rle.encode_rle", fail)
    with pytest.raises(InputError, match="No space left"):
        write_segmentation(abdomen_phantom(slices=3)[1], path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_table_whose_notes_cannot_be_written_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "out.csv.json").mkdir()
    with pytest.raises(InputError) as error:
        write_segmentation(l_phantom(), tmp_path / "out.csv")
    assert_one_sentence(error, "out.csv.json", "is a folder")
    assert os.listdir(tmp_path) == ["out.csv.json"]


# --- real contours ------------------------------------------------------------------------


@pytest.mark.data
def test_real_run_lengths_come_back(shared_data: Path) -> None:
    path = shared_data / "labels_only" / "native_rle_37days.csv"
    table = read_rle_table(path)
    assert len(table) == 4432
    sizes = {}
    for line in path.read_text().splitlines()[1:]:
        name, _, _, width, height, _ = line.split(",")
        sizes[name] = (int(height), int(width))
    contours = 0
    for name, row in table.items():
        for rle in row.values():
            contours += 1
            assert encode_rle(decode_rle(rle, sizes[name], name=name)) == rle
    assert contours > 3000
