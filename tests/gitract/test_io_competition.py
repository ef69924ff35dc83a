"""Days of the competition: slices, label tables, and what is wrong with them."""

import dataclasses
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp
from PIL import Image

from gitract.errors import Cancelled, InputError
from gitract.io import (
    can_read_folder,
    read_reference,
    read_scan,
    read_segmentation,
    write_segmentation,
)
from gitract.io.competition import (
    decode_rle,
    encode_rle,
    list_slices,
    read_rle_table,
    slice_file_name,
    slice_id,
)
from gitract.io.png import read_grey_png, write_grey_png
from gitract.organs import Organ
from gitract.progress import Progress
from gitract.scan import Scan, Segmentation
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
    values = np.arange(65536, dtype=np.uint16).reshape(1, 256, 256)
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


def test_one_slice_is_a_scan(tmp_path: Path) -> None:
    scan, _ = abdomen_phantom(slices=1, rows=20, columns=24)
    assert read_scan(write_competition_day(tmp_path, scan)).shape == (1, 20, 24)


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
        (remove_all, ["case1_day0", "holds no slices"]),
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
    assert_one_sentence(error, "case1_day0, case1_day7", "choose one")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing", "does not exist"),
        ("missing.tif", "does not exist"),
        ("scan.nii.gz", "folders of slices"),
        ("scan.dcm", "folders of slices"),
        ("train.csv", "folders of slices"),
    ],
)
def test_what_is_not_read(tmp_path: Path, name: str, reason: str) -> None:
    if reason != "does not exist":
        (tmp_path / name).write_text("something else")
    with pytest.raises(InputError) as error:
        read_scan(tmp_path / name)
    assert_one_sentence(error, name, reason)


def test_one_slice_file_is_not_a_scan(day: Path) -> None:
    with pytest.raises(InputError) as error:
        read_scan(slice_path(day, 1))
    assert_one_sentence(error, "slice_0001", "give the folder")


# --- which folders are ours ---------------------------------------------------------------


def test_folders_that_can_be_read(day: Path, tmp_path: Path) -> None:
    assert can_read_folder(day)
    assert can_read_folder(day / "scans")
    assert can_read_folder(str(day.parent))
    assert not can_read_folder(tmp_path)
    assert not can_read_folder(slice_path(day, 1))
    assert not can_read_folder(tmp_path / "missing")
    assert not can_read_folder("no\0path")
    (tmp_path / "empty").mkdir()
    assert not can_read_folder(tmp_path / "empty")


def test_a_huge_folder_is_answered_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5000):
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
    assert not can_read_folder(tmp_path)
    assert seen <= 2000


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


# --- label tables -------------------------------------------------------------------------


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
            "case1_day0_slice_0002,stomach,470 99",
            ["case1_day0_slice_0002", "train.csv", "run past"],
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


def test_a_large_table_is_read_quickly(tmp_path: Path) -> None:
    rows = (f"case{n // 3}_day0_slice_0001,stomach,{'123 45 ' * 20}\n" for n in range(115_000))
    (tmp_path / "train.csv").write_text("id,class,segmentation\n" + "".join(rows))
    start = time.perf_counter()
    assert len(read_rle_table(tmp_path / "train.csv")) == 38_334
    assert time.perf_counter() - start < 5  # 0.3 s when measured; slack for a busy machine


# --- folders of label slices --------------------------------------------------------------


def test_label_slices_come_back(tmp_path: Path) -> None:
    written = dataclasses.replace(l_phantom(), slice_numbers=(7, 8, 9, 10, 11))
    path = write_segmentation(written, f"{tmp_path / 'out.png'}/")
    assert sorted(file.name for file in path.iterdir())[0] == "slice_0007_12_9_0.70_1.50.png"
    back = read_segmentation(path)
    np.testing.assert_array_equal(back.labels().array, written.labels().array)
    assert (back.spacing, back.slice_numbers) == (written.spacing, written.slice_numbers)


def test_label_slices_of_other_organs_are_refused(tmp_path: Path) -> None:
    written = dataclasses.replace(
        l_phantom(), organs=tuple(Organ(n, f"o{n}", "#000000") for n in (1, 2, 9))
    )
    path = write_segmentation(written, tmp_path / "out.png")
    with pytest.raises(InputError) as error:
        read_segmentation(path)
    assert_one_sentence(error, "out.png", "Label value 9")
    assert read_segmentation(path, organs=written.organs).organs == written.organs


def test_a_folder_of_label_slices_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = write_segmentation(abdomen_phantom(slices=9)[1], tmp_path / "out.png")
    write_segmentation(l_phantom(), path)
    assert len(list(path.iterdir())) == 5
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


def test_a_failed_table_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_segmentation(l_phantom(), tmp_path / "out.csv")
    before = path.read_bytes()

    def fail(mask: np.ndarray) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gitract.io.competition.encode_rle", fail)
    with pytest.raises(InputError, match="No space left"):
        write_segmentation(abdomen_phantom(slices=3)[1], path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["out.csv"]


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
    wide = read_scan(train / "case85" / "case85_day0")
    assert wide.shape == (1, 310, 360)
    assert read_grey_png(list_slices(train / "case35" / "case35_day0")[0].path).max() > 10_000
    with pytest.raises(InputError, match="266 x 266 pixels where the other slices have 234 x 234"):
        read_scan(shared_data / "uwm_16bit" / "loose")


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
