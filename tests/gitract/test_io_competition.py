"""Days of the competition: slices, reference labels, and what is wrong with them."""

import dataclasses
import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from gitract.errors import Cancelled, InputError
from gitract.io import (
    can_read_folder,
    competition,
    find_scans,
    holds_labels,
    label_names,
    read_reference,
    read_scan,
    read_segmentation,
    write_scan,
    write_segmentation,
)
from gitract.io.competition import FAULTY_DAYS, list_slices, slice_file_name
from gitract.io.png import read_grey_png, write_grey_png
from gitract.io.rle import read_rle_table
from gitract.organs import ORGANS, Organ
from gitract.progress import Progress
from gitract.scan import Scan, Segmentation, axial_affine
from phantoms import abdomen_phantom, l_phantom, write_competition_day
from sentences import assert_one_sentence


@pytest.fixture
def phantom() -> tuple[Scan, Segmentation]:
    return abdomen_phantom(slices=6, rows=20, columns=24)


@pytest.fixture
def day(tmp_path: Path, phantom: tuple[Scan, Segmentation]) -> Path:
    """A labelled day, ``train/case1/case1_day0``."""
    return write_competition_day(tmp_path, *phantom)


def slice_path(day: Path, number: int) -> Path:
    return next(day.glob(f"scans/slice_{number:04d}_*"))


# --- scans --------------------------------------------------------------------------------


def test_a_day_comes_back(day: Path, phantom: tuple[Scan, Segmentation]) -> None:
    written, _ = phantom
    for path in (day, day / "scans", str(day), day.parent):  # the last: a case with one day
        scan = read_scan(path)
        np.testing.assert_array_equal(scan.voxels, written.voxels)
        assert scan.voxels.dtype == np.uint16
        assert scan.spacing == (3.0, 1.5, 1.4)  # rows are SY, the last number of the name
        assert scan.name == "case1_day0"
        assert scan.slice_numbers == (1, 2, 3, 4, 5, 6)


def test_a_day_is_read_from_inside(day: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(day)
    assert read_scan(".").name == "case1_day0"


def test_all_values_of_16_bits_come_back(tmp_path: Path) -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(2, 128, 256)
    day = write_competition_day(tmp_path, Scan(values, (3, 1, 1), name="case2_day0"))
    np.testing.assert_array_equal(read_scan(day).voxels, values)


def test_8_bits_stay_8_bits(tmp_path: Path, phantom: tuple[Scan, Segmentation]) -> None:
    scan = read_scan(write_competition_day(tmp_path, phantom[0], bits=8))
    assert scan.voxels.dtype == np.uint8
    assert scan.voxels.max() == 255


def test_given_spacing_wins(day: Path) -> None:
    assert read_scan(day, spacing=(5.0, 2.0, 2.0)).spacing == (5.0, 2.0, 2.0)


def test_slices_are_sorted_by_number_and_may_begin_late(
    tmp_path: Path, phantom: tuple[Scan, Segmentation]
) -> None:
    late = dataclasses.replace(phantom[0], slice_numbers=tuple(range(998, 1004)))
    day = write_competition_day(tmp_path, late)
    longer = slice_path(day, 999)  # a text sort would put it behind 1000
    longer.rename(longer.with_name(longer.name.replace("0999", "999")))
    scan = read_scan(day)
    assert scan.slice_numbers == late.slice_numbers
    np.testing.assert_array_equal(scan.voxels, late.voxels)


def test_one_slice_is_no_scan(tmp_path: Path) -> None:
    scan, _ = abdomen_phantom(slices=1, rows=20, columns=24)
    with pytest.raises(InputError) as error:
        read_scan(write_competition_day(tmp_path, scan))
    assert_one_sentence(error, "case1_day0", "holds one slice")


def test_other_files_do_not_disturb(day: Path) -> None:
    for name in ("notes.txt", "slice_notes.txt", "._slice_0001_24_20_1.40_1.50.png", "Thumbs.db"):
        (day / "scans" / name).write_text("not a slice")
    assert read_scan(day).shape == (6, 20, 24)


def test_each_slice_is_reported(day: Path) -> None:
    messages: list[Progress] = []
    read_scan(day, report=messages.append)
    assert [(m.done, m.total) for m in messages] == [(n, 6) for n in range(1, 7)]


def test_reading_can_be_cancelled(day: Path) -> None:
    def cancel(progress: Progress) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        read_scan(day, report=cancel)


def test_slices_are_listed_without_reading_them(day: Path) -> None:
    slice_path(day, 2).unlink()
    slice_path(day, 3).write_bytes(b"")
    slices = list_slices(day)
    assert [file.number for file in slices] == [1, 3, 4, 5, 6]
    assert slices[0].path == slice_path(day, 1)
    assert (slices[0].width, slices[0].height) == (24, 20)
    assert slices[0].spacing == (3.0, 1.5, 1.4)
    assert list_slices(day / "scans") == slices


@pytest.mark.parametrize(
    ("spacing", "name"),
    [
        ((3.0, 1.5, 1.5), "slice_0007_24_20_1.50_1.50.png"),
        ((3.0, 1.40625, 2.0), "slice_0007_24_20_2.00_1.40625.png"),
        ((3.0, 1e-5, 12), "slice_0007_24_20_12.00_0.00001.png"),
    ],
)
def test_slice_names(spacing: tuple[float, float, float], name: str) -> None:
    assert slice_file_name(7, (20, 24), spacing) == name


# --- damaged and mixed-up days ------------------------------------------------------------


Damage = Callable[[Path], None]


def remove(*numbers: int) -> Damage:
    def change(day: Path) -> None:
        for number in numbers:
            slice_path(day, number).unlink()

    return change


def remove_all(day: Path) -> None:
    shutil.rmtree(day)
    day.mkdir()


def rename(number: int, name: str) -> Damage:
    def change(day: Path) -> None:
        slice_path(day, number).rename(day / "scans" / name)

    return change


def copy(number: int, name: str) -> Damage:
    def change(day: Path) -> None:
        shutil.copy(slice_path(day, number), day / "scans" / name)

    return change


def resize(number: int) -> Damage:
    """Another size, in the pixels and in the name."""

    def change(day: Path) -> None:
        slice_path(day, number).unlink()
        name = slice_file_name(number, (21, 24), (3.0, 1.5, 1.4))
        write_grey_png(np.zeros((21, 24), np.uint16), day / "scans" / name)

    return change


def repaint(number: int, mode: str, size: tuple[int, int] = (24, 20)) -> Damage:
    return lambda day: Image.new(mode, size).save(slice_path(day, number))


def truncate(number: int, share: float) -> Damage:
    def change(day: Path) -> None:
        path = slice_path(day, number)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return change


def flip_a_bit(day: Path) -> None:
    path = slice_path(day, 3)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (remove_all, ["case1_day0", "holds neither DICOM"]),
        (remove(3), ["lacks slice 3:"]),
        (remove(2, 4, 5), ["lacks slices 2 and 4 to 5:"]),
        (copy(2, "slice_2_24_20_1.40_1.50.png"), ["Slice 2 stands twice", "slice_2_24"]),
        (rename(2, "slice_0002.png"), ["slice_0002.png", "not named like"]),
        (rename(2, "slice_0002_24_20_1.40.png"), ["slice_0002_24_20_1.40.png", "not named like"]),
        (copy(2, "slice_0002_24_20_1.40_1.50 - Copy.PNG"), ["Copy.PNG", "not named like"]),
        (rename(2, "slice_0002_24_0_1.40_1.50.png"), ["slice_0002_24_0", "zero"]),
        (rename(2, "slice_0002_24_20_0.00_1.50.png"), ["slice_0002_24_20_0.00", "zero"]),
        (rename(2, "slice_0002_24_20_1.50_1.40.png"), ["slice_0002", "1.5 x 1.4", "1.4 x 1.5"]),
        (resize(5), ["slice_0005_24_21", "24 x 21 pixels", "24 x 20 pixels"]),
        (repaint(5, "I;16", (20, 24)), ["slice_0005", "has 20 x 24", "says 24 x 20"]),
        (repaint(5, "RGB"), ["slice_0005", "not a greyscale", "RGB"]),
        (repaint(5, "P"), ["slice_0005", "not a greyscale"]),
        (repaint(5, "1"), ["slice_0005", "not a greyscale", "1 bits"]),
        (repaint(5, "L"), ["slice_0005", "8 bits", "16 bits"]),
        (truncate(4, 0.0), ["slice_0004", "damaged or not a PNG"]),
        (truncate(4, 0.5), ["slice_0004", "damaged or not a PNG"]),
        (truncate(4, 0.99), ["slice_0004", "damaged or not a PNG"]),
        (flip_a_bit, ["slice_0003", "damaged or not a PNG"]),
    ],
)
def test_what_is_wrong_with_a_day(day: Path, damage: Damage, parts: list[str]) -> None:
    damage(day)
    with pytest.raises(InputError) as error:
        read_scan(day)
    assert_one_sentence(error, *parts)


def test_many_gaps_are_shortened(tmp_path: Path) -> None:
    scan, _ = abdomen_phantom(slices=8, rows=20, columns=24)
    gappy = dataclasses.replace(scan, slice_numbers=tuple(range(1, 17, 2)))
    with pytest.raises(InputError, match=r"lacks slices 2, 4, 6 and 4 more gaps:"):
        read_scan(write_competition_day(tmp_path, gappy))


def test_absurd_sizes_are_refused_before_they_are_read(day: Path) -> None:
    for path in (day / "scans").iterdir():
        path.rename(path.with_name(path.name.replace("24_20", "90000_90000")))
    with pytest.raises(InputError) as error:
        read_scan(day)
    assert_one_sentence(error, "90000 x 90000", "too many")


def test_a_case_of_several_days_asks_for_one(
    tmp_path: Path, day: Path, phantom: tuple[Scan, Segmentation]
) -> None:
    write_competition_day(tmp_path, dataclasses.replace(phantom[0], name="case1_day7"))
    with pytest.raises(InputError) as error:
        read_scan(day.parent)
    assert_one_sentence(error, "case1_day0", "case1_day7", "choose one")
    assert read_scan(day.parent, key="case1_day7").name == "case1_day7"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing", "does not exist"),
        ("missing.tif", "does not exist"),
        ("scan.xyz", "folders of slices"),
        ("train.csv", "a table of run lengths, not a scan"),
    ],
)
def test_what_is_not_read(tmp_path: Path, name: str, reason: str) -> None:
    if reason != "does not exist":
        (tmp_path / name).write_text("something else")
    with pytest.raises(InputError) as error:
        read_scan(tmp_path / name)
    assert_one_sentence(error, name, reason)


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_levels_that_would_be_stretched_are_refused(day: Path, bits: int) -> None:
    """Libraries return 15 of 4 bits as 255, which is another value."""
    path = slice_path(day, 3)
    content = bytearray(path.read_bytes())
    content[24] = bits
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_scan(day)
    assert_one_sentence(error, "slice_0003", "not a greyscale image of 8 or 16 bits")


def test_an_image_of_a_billion_pixels_is_not_decoded(tmp_path: Path) -> None:
    write_grey_png(np.zeros((2, 2), np.uint8), tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    for width, height in ((70_000, 2), (40_000, 40_000)):
        content[16:24] = struct.pack(">II", width, height)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(InputError) as error:
            read_grey_png(tmp_path / "a.png")
        assert_one_sentence(error, "a.png", "than a slice can have")


def test_one_slice_file_is_not_a_scan(day: Path) -> None:
    with pytest.raises(InputError) as error:
        read_scan(slice_path(day, 1))
    assert_one_sentence(error, "slice_0001", "give the folder")


# --- what a folder holds ------------------------------------------------------------------


def test_days_are_found_from_names_alone(
    tmp_path: Path, phantom: tuple[Scan, Segmentation]
) -> None:
    for name in ("case10_day0", "case2_day14", "case2_day3", "case7_day0"):
        day = write_competition_day(tmp_path, dataclasses.replace(phantom[0], name=name))
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"")
    slice_path(tmp_path / "train/case2/case2_day3", 4).unlink()
    (tmp_path / "train" / "case2" / "notes").mkdir()
    for root in (tmp_path, tmp_path / "train"):
        found = find_scans(root)
        assert [scan.key for scan in found] == [
            "case2_day3", "case2_day14", "case7_day0", "case10_day0",
        ]  # fmt: skip
        assert [scan.shape for scan in found] == [(5, 20, 24), *[(6, 20, 24)] * 3]
        assert [bool(scan.problem) for scan in found] == [True, False, False, False]
        with pytest.raises(InputError, match="lacks slice 4") as error:
            read_scan(root, key="case2_day3")
        assert found[0].problem == str(error.value)
        assert found[1].label == "case2_day14"
    assert [scan.key for scan in find_scans(tmp_path / "train" / "case2")] == [
        "case2_day3", "case2_day14",
    ]  # fmt: skip
    for path in (day, day / "scans"):
        assert [(scan.key, scan.path) for scan in find_scans(path)] == [("case7_day0", path)]


def test_days_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for patient in ("a", "b"):
        scan, _ = abdomen_phantom(slices=2, rows=20, columns=24, seed=ord(patient))
        day = write_competition_day(tmp_path / patient, dataclasses.replace(scan, name="day1"))
        shutil.move(day, tmp_path / "days" / patient / "day1")
        assert read_scan(tmp_path / "days", key=None if patient == "a" else "b/day1").name == "day1"
    found = find_scans(tmp_path / "days")
    assert [scan.key for scan in found] == ["a/day1", "b/day1"]
    one, other = (read_scan(tmp_path / "days", key=scan.key).voxels for scan in found)
    assert (one != other).any()


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (rename(2, "slice_0002.png"), "not named like"),
        (rename(2, "slice_0002_24_20_1.50_1.40.png"), "1.5 x 1.4"),
        (resize(5), "24 x 21 pixels"),
        (remove(2, 3, 4, 5, 6), "holds one slice"),
    ],
)
def test_a_day_that_would_be_refused_says_why(day: Path, damage: Damage, part: str) -> None:
    damage(day)
    [found] = find_scans(day)
    with pytest.raises(InputError) as error:
        read_scan(day)
    assert_one_sentence(error, part)
    assert found.problem == str(error.value)


def test_a_folder_without_days(tmp_path: Path) -> None:
    (tmp_path / "case1" / "scans").mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "case1"):
        with pytest.raises(InputError) as error:
            find_scans(folder)
        assert_one_sentence(error, folder.name, "holds neither DICOM")


def test_days_with_faulty_contours_say_so(
    tmp_path: Path, phantom: tuple[Scan, Segmentation], day: Path
) -> None:
    assert len(FAULTY_DAYS) == 12
    scan, truth = phantom
    name = "case144_day15"
    faulty = write_competition_day(
        tmp_path, dataclasses.replace(scan, name=name), dataclasses.replace(truth, name=name)
    )
    reference = read_reference(faulty)
    assert reference is not None
    for item in (read_scan(faulty), reference, find_scans(faulty)[0]):
        [remark] = item.remarks
        assert name in remark
        assert "known issues" in remark
    assert read_scan(day).remarks == find_scans(day)[0].remarks == ()


# --- which folders are ours ---------------------------------------------------------------


def test_folders_that_can_be_read(day: Path, tmp_path: Path) -> None:
    assert can_read_folder(day)
    assert can_read_folder(day / "scans")
    assert can_read_folder(str(day.parent))
    assert can_read_folder(day.parents[1])
    assert can_read_folder(tmp_path)
    assert not can_read_folder(slice_path(day, 1))
    assert not can_read_folder(tmp_path / "missing")
    assert not can_read_folder("no\0path")
    (tmp_path / "empty" / "scans").mkdir(parents=True)
    assert not can_read_folder(tmp_path / "empty")


def test_a_huge_folder_is_answered_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2500):
        (tmp_path / f"{number}.txt").touch()
    seen = 0
    scandir = os.scandir

    class Counting:
        """os.scandir, counting the entries handed out."""

        def __init__(self, path: Path) -> None:
            self.entries = scandir(path)

        def __enter__(self) -> "Counting":
            return self

        def __exit__(self, *_: object) -> None:
            self.entries.close()

        def __iter__(self) -> "Counting":
            return self

        def __next__(self) -> os.DirEntry[str]:
            nonlocal seen
            seen += 1
            return next(self.entries)

    monkeypatch.setattr(os, "scandir", Counting)
    assert not competition.can_read_folder(tmp_path)
    assert seen <= 2000


# --- reference labels ---------------------------------------------------------------------


def test_reference_labels_come_back(day: Path, phantom: tuple[Scan, Segmentation]) -> None:
    for path in (day, day / "scans", day.parent):
        truth = read_reference(path)
        assert truth is not None
        np.testing.assert_array_equal(truth.masks, phantom[1].masks)  # overlaps too
        assert truth.spacing == read_scan(path).spacing
        assert truth.name == "case1_day0"
        assert truth.slice_numbers == (1, 2, 3, 4, 5, 6)


def test_days_without_contours_have_no_reference(
    tmp_path: Path, day: Path, phantom: tuple[Scan, Segmentation]
) -> None:
    scan, truth = phantom
    absent = dataclasses.replace(scan, name="case2_day0")
    assert read_reference(write_competition_day(tmp_path, absent)) is None
    empty = dataclasses.replace(truth, masks=np.zeros_like(truth.masks))
    blank = dataclasses.replace(scan, name="case3_day0")
    assert read_reference(write_competition_day(tmp_path, blank, empty)) is None
    (tmp_path / "train.csv").unlink()
    assert read_reference(day) is None


def test_a_table_of_something_else_is_no_reference(tmp_path: Path, day: Path) -> None:
    (day.parent / "train.csv").write_text("x,y\n1,2\n")
    assert read_reference(day) is not None  # the right one lies further up
    (tmp_path / "train.csv").write_bytes(b"\xff\xfe\x00\x81")
    assert read_reference(day) is None


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        (
            "case1_day0_slice_0001,large_bowel,470 99",
            ["case1_day0_slice_0001", "train.csv", "run past"],
        ),
        ("case1_day0_slice_0002,liver,1 2", ["case1_day0_slice_0002", "'liver'"]),
        ("case1_day0_slice_0002,stomach", ["Line 20", "train.csv", "2 columns"]),
    ],
)
def test_what_is_wrong_with_a_table(tmp_path: Path, day: Path, row: str, parts: list[str]) -> None:
    with (tmp_path / "train.csv").open("a") as table:
        table.write(f"{row}\n")
    with pytest.raises(InputError) as error:
        read_reference(day)
    assert_one_sentence(error, *parts)


# --- folders of label slices --------------------------------------------------------------


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@settings(max_examples=20)
@given(
    labels=hnp.arrays(np.uint8, st.tuples(*[st.integers(1, 6)] * 3), elements=st.integers(0, 4)),
    spacing=st.tuples(*[st.floats(0.3, 9, allow_subnormal=False)] * 3),
    first=st.none() | st.integers(1, 990),
)
def test_label_slices_come_back_complete(
    tmp_path_factory: pytest.TempPathFactory,
    labels: np.ndarray,
    spacing: tuple[float, float, float],
    first: int | None,
) -> None:
    written = Segmentation.of_labels(
        labels,
        spacing=spacing,
        affine=moved(axial_affine(spacing)),
        organs=(*ORGANS, Organ(4, "duodenum", "#7ac36a")),
        name="anything",
        slice_numbers=None if first is None else tuple(range(first, first + len(labels))),
        provenance={"model": "m", "baseline": ["a"] * len(labels)},
    )
    path = write_segmentation(written, tmp_path_factory.mktemp("labels") / "out.png")
    assert holds_labels(path)
    back = read_segmentation(path)
    np.testing.assert_array_equal(back.masks, written.masks)
    np.testing.assert_array_equal(back.affine, written.affine)
    for field in ("spacing", "organs", "name", "slice_numbers", "provenance"):
        assert getattr(back, field) == getattr(written, field), field


def moved(affine: np.ndarray) -> np.ndarray:
    """Somewhere else, and turned about the table's axis."""
    angle = np.array([[0.6, -0.8, 0, 0], [0.8, 0.6, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    result = np.asarray(angle @ affine)
    result[:3, 3] = 12.25, -80.1, 7e-3
    return result


def test_label_slices_are_named_like_the_scans(tmp_path: Path) -> None:
    written = dataclasses.replace(l_phantom(), slice_numbers=(7, 8, 9, 10, 11))
    path = write_segmentation(written, f"{tmp_path / 'out.png'}/")
    assert names(path)[0] == "gitract.json"
    assert names(path)[1] == "slice_0007_12_9_0.70_1.50.png"


def test_slices_that_are_not_in_the_order_of_their_numbers_keep_their_own(tmp_path: Path) -> None:
    written = dataclasses.replace(
        l_phantom(), slice_numbers=(5, 4, 3, 2, 1), affine=moved(l_phantom().affine)
    )
    back = read_segmentation(write_segmentation(written, tmp_path / "out.png"))
    np.testing.assert_array_equal(back.masks, written.masks)
    np.testing.assert_array_equal(back.affine, written.affine)
    assert back.slice_numbers == written.slice_numbers


def test_the_highest_organ_wins_in_label_slices(tmp_path: Path) -> None:
    _, written = abdomen_phantom(slices=12)
    assert written.labels().overlap_voxels
    back = read_segmentation(write_segmentation(written, tmp_path / "out.png"))
    np.testing.assert_array_equal(back.labels().array, written.labels().array)
    np.testing.assert_array_equal(back.masks[2], written.masks[2])


def test_label_slices_of_others_take_their_place_from_the_scan(
    tmp_path: Path, phantom: tuple[Scan, Segmentation]
) -> None:
    scan, truth = phantom
    scan = dataclasses.replace(scan, affine=moved(scan.affine))
    path = write_segmentation(truth, tmp_path / "out.png")
    (path / "gitract.json").unlink()
    assert not holds_labels(path)
    back = read_segmentation(path, scan=scan)
    np.testing.assert_array_equal(back.labels().array, truth.labels().array)
    np.testing.assert_array_equal(back.affine, scan.affine)
    assert (back.name, back.slice_numbers) == (scan.name, scan.slice_numbers)
    alone = read_segmentation(path)
    np.testing.assert_array_equal(alone.affine, axial_affine((3.0, 1.5, 1.4)))
    assert (alone.name, alone.slice_numbers) == ("out", scan.slice_numbers)
    assert read_segmentation(path, spacing=(5, 1, 1)).spacing == (5, 1, 1)


@pytest.mark.parametrize("noted", [True, False])
@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"slice_numbers": tuple(range(2, 8))}, "slices 1 to 6"),
        ({"spacing": (3.0, 1.5, 1.5), "affine": axial_affine((3.0, 1.5, 1.5))}, "1.5"),
    ],
)
def test_label_slices_of_another_scan_are_refused(
    tmp_path: Path,
    phantom: tuple[Scan, Segmentation],
    change: dict[str, Any],
    part: str,
    noted: bool,
) -> None:
    scan, truth = phantom
    path = write_segmentation(truth, tmp_path / "out.png")
    if not noted:
        (path / "gitract.json").unlink()
    with pytest.raises(InputError) as error:
        read_segmentation(path, scan=dataclasses.replace(scan, **change))
    assert_one_sentence(error, "choose the scan", part)


def test_values_of_label_slices_are_chosen_organs(tmp_path: Path) -> None:
    path = write_segmentation(l_phantom(), tmp_path / "out.png")
    (path / "gitract.json").unlink()
    back = read_segmentation(path, choices={"3": "pancreas"})
    assert {name for name, volume in back.volumes_ml.items() if volume} == {"pancreas"}


def test_values_are_asked_for_where_label_slices_have_no_organ_table(tmp_path: Path) -> None:
    labels = np.zeros((3, 4, 5), np.uint8)
    labels[1, 2, 3], labels[2, 0, 0] = 1, 3
    written = Segmentation.of_labels(labels, spacing=(3, 1.5, 1.5))
    path = write_segmentation(written, tmp_path / "out.png")
    assert label_names(path) == []
    renumber(path)  # our notes are then of other slices
    assert label_names(path) == ["1", "3"]
    (path / "gitract.json").unlink()
    assert label_names(path) == ["1", "3"]
    (path / names(path)[-1]).write_bytes(b"")
    with pytest.raises(InputError):
        label_names(path)


def test_label_slices_of_unknown_organs_are_refused(tmp_path: Path) -> None:
    written = dataclasses.replace(
        l_phantom(), organs=tuple(Organ(n, f"o{n}", "#000000") for n in (1, 2, 9))
    )
    path = write_segmentation(written, tmp_path / "out.png")
    assert read_segmentation(path).organs == written.organs
    (path / "gitract.json").unlink()
    with pytest.raises(InputError) as error:
        read_segmentation(path)
    assert_one_sentence(error, "out.png", "the value 9")


def drop_the_last(folder: Path) -> None:
    (folder / names(folder)[-1]).unlink()


def renumber(folder: Path) -> None:
    for path in folder.glob("*.png"):
        path.rename(path.with_name(path.name.replace("slice_0", "slice_1")))


def respace(folder: Path) -> None:
    for path in folder.glob("*.png"):
        path.rename(path.with_name(path.name.replace("0.70", "0.80")))


@pytest.mark.parametrize("change", [drop_the_last, renumber, respace])
def test_notes_of_slices_that_were_changed_are_not_believed(tmp_path: Path, change: Damage) -> None:
    written = dataclasses.replace(l_phantom(), affine=moved(l_phantom().affine))
    path = write_segmentation(written, tmp_path / "out.png")
    change(path)
    back = read_segmentation(path)
    np.testing.assert_array_equal(back.affine, axial_affine(back.spacing))
    assert back.name == "out"


@pytest.mark.parametrize(
    "change",
    [{"spacing": [1.0]}, {"affine": "odd"}, {"slice_numbers": "odd"}, {"organs": [{"id": 1}]}],
)
def test_damaged_notes_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    path = write_segmentation(l_phantom(), tmp_path / "out.png")
    notes = json.loads((path / "gitract.json").read_text())
    (path / "gitract.json").write_text(json.dumps(notes | change))
    with pytest.raises(InputError) as error:
        read_segmentation(path)
    assert_one_sentence(error, "out.png", "damaged")


def test_a_folder_of_label_slices_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = write_segmentation(abdomen_phantom(slices=9)[1], tmp_path / "out.png")
    write_segmentation(l_phantom(), path)
    assert len(names(path)) == 5 + 1
    assert os.listdir(tmp_path) == ["out.png"]


@pytest.mark.parametrize("call", [1, 4])
def test_a_failed_write_leaves_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """The disk is full at the first slice, and at a later one."""
    path = write_segmentation(l_phantom(), tmp_path / "out.png")
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    calls = 0

    def fail(pixels: np.ndarray, target: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise OSError(28, "No space left on device")
        write_grey_png(pixels, target)

    monkeypatch.setattr("gitract.io.competition.write_grey_png", fail)
    with pytest.raises(InputError, match="No space left"):
        write_segmentation(abdomen_phantom(slices=9)[1], path)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    assert os.listdir(tmp_path) == ["out.png"]


def test_a_folder_that_cannot_be_renamed_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_segmentation(l_phantom(), tmp_path / "out.png")
    before = sorted(file.name for file in path.iterdir())
    replace = Path.replace

    def fail(source: Path, target: Path) -> Path:
        if source.suffix == ".part":
            raise PermissionError(13, "Permission denied")
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(InputError, match="Permission denied"):
        write_segmentation(abdomen_phantom(slices=9)[1], path)
    assert sorted(file.name for file in path.iterdir()) == before
    assert os.listdir(tmp_path) == ["out.png"]


# --- scans as folders ---------------------------------------------------------------------


@settings(max_examples=20)
@given(
    voxels=st.sampled_from(["u1", "u2", "i2", "i4", "u8"]).flatmap(
        lambda kind: hnp.arrays(
            kind,
            st.tuples(st.integers(2, 5), *[st.integers(1, 6)] * 2),
            elements=st.integers(0, 200),
        )
    ),
    spacing=st.tuples(*[st.floats(0.3, 9, allow_subnormal=False)] * 3),
    first=st.none() | st.integers(1, 990),
)
def test_a_scan_comes_back_from_a_folder(
    tmp_path_factory: pytest.TempPathFactory,
    voxels: np.ndarray,
    spacing: tuple[float, float, float],
    first: int | None,
) -> None:
    written = Scan(
        voxels,
        spacing,
        affine=moved(axial_affine(spacing)),
        name="anything",
        slice_numbers=None if first is None else tuple(range(first, first + len(voxels))),
    )
    path = write_scan(written, tmp_path_factory.mktemp("scans") / "out.png")
    assert not holds_labels(path)
    back = read_scan(path)
    np.testing.assert_array_equal(back.voxels, voxels)
    assert back.voxels.dtype == (np.uint8 if voxels.dtype == np.uint8 else np.uint16)
    np.testing.assert_array_equal(back.affine, written.affine)
    for field in ("spacing", "name", "slice_numbers"):
        assert getattr(back, field) == getattr(written, field), field
    [found] = find_scans(path)
    assert (found.key, found.shape, found.problem) == ("out", voxels.shape, "")


def test_given_spacing_keeps_the_directions_of_a_written_scan(
    tmp_path: Path, phantom: tuple[Scan, Segmentation]
) -> None:
    written = dataclasses.replace(phantom[0], affine=moved(phantom[0].affine))
    back = read_scan(write_scan(written, tmp_path / "out.png"), spacing=(6.0, 1.5, 2.8))
    np.testing.assert_allclose(back.affine, written.affine @ np.diag([2.0, 1.0, 2.0, 1.0]))
    with pytest.raises(InputError, match="not usable"):
        read_scan(tmp_path / "out.png", spacing=(6.0, 0.0, 2.8))


@pytest.mark.parametrize(
    ("voxels", "part"),
    [
        (np.full((2, 3, 4), -1, np.int16), "-1 to -1"),
        (np.full((2, 3, 4), 65536, np.int32), "65536 to 65536"),
        (np.ones((2, 3, 4), np.float32), "fractions (float32)"),
    ],
)
def test_values_that_png_cannot_hold_are_refused(
    tmp_path: Path, voxels: np.ndarray, part: str
) -> None:
    with pytest.raises(InputError) as error:
        write_scan(Scan(voxels, (3, 1, 1)), tmp_path / "out.png")
    assert_one_sentence(error, part, ".nii.gz or .tif")
    assert os.listdir(tmp_path) == []


def test_a_reference_lies_on_the_grid_of_a_written_scan(
    tmp_path: Path, phantom: tuple[Scan, Segmentation]
) -> None:
    scan, truth = phantom
    scan = dataclasses.replace(scan, affine=moved(scan.affine))
    path = write_scan(scan, tmp_path / f"{scan.name}.png")
    write_segmentation(truth, tmp_path / "train.csv")
    reference = read_reference(path)
    assert reference is not None
    np.testing.assert_array_equal(reference.masks, truth.masks)
    np.testing.assert_array_equal(reference.affine, scan.affine)


# --- real scans ---------------------------------------------------------------------------


@pytest.mark.data
@pytest.mark.parametrize(
    ("day", "shape", "labelled"),
    [
        ("case16_day0", (144, 224, 224), True),
        ("case6_day20", (144, 224, 224), True),
        ("case20_day0", (144, 81, 82), True),
        ("case20_day22", (144, 81, 82), True),
        ("case125_day0", (144, 81, 82), False),
    ],
)
def test_real_stacks(
    shared_data: Path, tmp_path: Path, day: str, shape: tuple[int, int, int], labelled: bool
) -> None:
    folder = shared_data / "uwm_stacks" / "train" / day.split("_")[0] / day
    scan = read_scan(folder)
    assert (scan.name, scan.shape, scan.voxels.dtype) == (day, shape, np.uint8)
    truth = read_reference(folder)
    assert (truth is not None) == labelled
    if truth is not None:
        assert truth.shape == shape
        assert all(volume > 50 for volume in truth.volumes_ml.values())
        original = read_rle_table(shared_data / "uwm_stacks" / "train.csv")
        written = read_rle_table(write_segmentation(truth, tmp_path / "out.csv"))
        assert written == {name: original[name] for name in written}


@pytest.mark.data
def test_a_real_stack_with_a_hole(shared_data: Path) -> None:
    with pytest.raises(InputError, match="lacks slice 60:"):
        read_scan(shared_data / "uwm_stacks" / "train" / "case139" / "case139_day0")


@pytest.mark.data
def test_a_real_day_of_16_bits(shared_data: Path) -> None:
    scan = read_scan(shared_data / "uwm_16bit_stack" / "train" / "case900" / "case900_day0")
    assert (scan.shape, scan.voxels.dtype) == ((144, 266, 266), np.uint16)
    assert scan.spacing == (3.0, 1.5, 1.5)
    assert scan.voxels.max() > 255
    assert read_reference(scan.source or "") is None


@pytest.mark.data
def test_real_pieces_of_16_bits(shared_data: Path) -> None:
    train = shared_data / "uwm_16bit" / "train"
    with pytest.raises(InputError, match="lacks slices 86 to 89 and 91 to 108:"):
        read_scan(train / "case101" / "case101_day20")
    [wide] = find_scans(train / "case85")
    assert wide.shape == (1, 310, 360)
    assert "holds one slice" in wide.problem
    assert read_grey_png(list_slices(train / "case35" / "case35_day0")[0].path).max() > 10_000
    with pytest.raises(InputError, match="266 x 266 pixels where the other slices have 234 x 234"):
        read_scan(shared_data / "uwm_16bit" / "loose")
