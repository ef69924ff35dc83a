"""Prepared scans: what the cache holds, when it is made anew, and what it costs."""

import dataclasses
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gitract.errors import Cancelled, InputError
from gitract.io import write_scan, write_segmentation
from gitract.labelled import Fault, LabelledRun, LabelledScan, find_labelled
from gitract.model_config import Preparation
from gitract.organs import KNOWN_ORGANS, ORGANS, Organ, organ_named
from gitract.orientation import Turn, turn_upright
from gitract.phantom import abdomen, write_day
from gitract.preparation import prepare_masks, prepare_scan
from gitract.prepared import Stack, prepared_stacks
from gitract.progress import Progress, Report, silent
from gitract.recipe import CompetitionSource, PairsSource, ScansSource
from gitract.scan import Scan, Segmentation
from phantoms import stored_as
from sentences import assert_one_sentence

COARSE = Preparation(pixel_mm=6.0)
SMALL = (6, 32, 36)


def write_days(folder: Path, *names: str) -> Path:
    for seed, name in enumerate(names):
        write_day(folder, *abdomen(SMALL, seed=seed, name=name))
    return folder


def prepared(
    data: Path, cache: Path, preparation: Preparation = COARSE, **options: Any
) -> list[Stack]:
    return prepared_stacks(find_labelled(data), ORGANS, preparation, cache, **options)


def assert_same(one: list[Stack], other: list[Stack]) -> None:
    assert [stack.name for stack in one] == [stack.name for stack in other]
    for first, second in zip(one, other, strict=True):
        assert torch.equal(first.slices, second.slices)
        assert torch.equal(first.masks, second.masks)
        np.testing.assert_array_equal(first.organ_slices, second.organ_slices)
        for field in ("patient", "known", "weight", "pool", "facts"):
            assert getattr(first, field) == getattr(second, field)


def entries(cache: Path) -> list[Path]:
    return sorted(path.parent for path in cache.glob("*/*/facts.json"))


def unreadable(report: Report) -> list[LabelledRun]:
    raise AssertionError("it was read")


def never_read(found: list[LabelledScan]) -> list[LabelledScan]:
    """The same scans, which must come from the cache."""
    return [dataclasses.replace(one, reader=unreadable) for one in found]


# --- what is prepared -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "preparation", [COARSE, Preparation(pixel_mm=5, slice_mm=4, crop_to_body=True, scaling="scan")]
)
def test_a_stack_is_what_preparation_makes_of_the_scan(
    tmp_path: Path, preparation: Preparation
) -> None:
    write_days(tmp_path / "data", "case1_day0", "case2_day0")
    stacks = prepared(tmp_path / "data", tmp_path / "cache", preparation)
    assert [stack.name for stack in stacks] == ["case1_day0", "case2_day0"]
    for seed, stack in enumerate(stacks):
        scan, truth = abdomen(SMALL, seed=seed)
        expected = prepare_scan(scan.voxels, scan.spacing, preparation)
        assert stack.slices.dtype == torch.float16
        assert torch.equal(stack.slices, expected.slices.half())
        assert torch.equal(stack.masks, prepare_masks(truth.masks, expected))
        assert stack.masks.dtype == torch.bool
        with_organ = stack.masks.any(dim=0).any(dim=2).any(dim=1)
        assert stack.organ_slices.tolist() == with_organ.nonzero()[:, 0].tolist()
        assert stack.known == (True, True, True)
        assert (stack.patient, stack.weight) == (f"case{seed + 1}", 1.0)
    assert stacks[0].pool != stacks[1].pool


def test_facts_are_those_of_the_scan_as_it_is_stored(tmp_path: Path) -> None:
    scan, truth = abdomen(SMALL, name="case1_day0")
    truth.masks[1, 3] |= truth.masks[0, 3]  # an overlap
    truth.masks[0, 2, 0, 5] = True  # at the border
    write_day(tmp_path, scan, truth)
    (stack,) = prepared(tmp_path, tmp_path / "cache")
    facts = stack.facts
    assert (facts.shape, facts.spacing) == (scan.shape, scan.spacing)
    assert (facts.low, facts.high) == (scan.voxels.min(), scan.voxels.max())
    assert [organ.name for organ in facts.organs] == ["large_bowel", "small_bowel", "stomach"]
    for organ, mask in zip(facts.organs, truth.masks, strict=True):
        assert organ.slices == mask.any(axis=(1, 2)).sum()
        assert organ.ml == pytest.approx(truth.volumes_ml[organ.name])
    ends = truth.masks[:, [0, -1]].any(axis=(1, 2, 3))
    assert [organ.cut for organ in facts.organs] == [True, bool(ends[1]), bool(ends[2])]
    assert facts.outlined_slices == truth.masks.any(axis=(0, 2, 3)).sum()
    assert facts.organ_voxels == truth.masks.any(axis=0).sum()
    assert facts.overlap_voxels == (truth.masks.sum(axis=0) > 1).sum() > 0


def test_organs_come_in_the_recipes_order_and_unknown_ones_are_told(tmp_path: Path) -> None:
    write_days(tmp_path, "case1_day0")
    organs = [organ_named(n, KNOWN_ORGANS) for n in ("stomach", "duodenum", "large_bowel")]
    found = find_labelled(tmp_path, organs=organs)
    (stack,) = prepared_stacks(found, organs, COARSE, tmp_path / "cache")
    (usual,) = prepared(tmp_path, tmp_path / "cache")
    assert stack.known == (True, False, True)
    assert torch.equal(stack.masks[[0, 2]], usual.masks[[2, 0]])
    assert not stack.masks[1].any()


def test_the_runs_of_a_day_are_stacks_of_its_name(tmp_path: Path) -> None:
    scan, truth = abdomen(SMALL, name="case1_day0")
    numbers = (1, 2, 5, 6, 7, 9)
    write_day(
        tmp_path,
        dataclasses.replace(scan, slice_numbers=numbers),
        dataclasses.replace(truth, slice_numbers=numbers),
    )
    stacks = prepared(tmp_path, tmp_path / "cache")
    assert [(stack.name, len(stack.slices)) for stack in stacks] == [
        ("case1_day0", 2), ("case1_day0", 3), ("case1_day0", 1),
    ]  # fmt: skip
    whole = prepare_scan(scan.voxels, scan.spacing, COARSE).slices.half()
    assert torch.equal(torch.cat([stack.slices for stack in stacks]), whole)


def test_weights_are_those_of_the_source(tmp_path: Path) -> None:
    write_days(tmp_path / "a", "case1_day0")
    write_days(tmp_path / "b", "case2_day0")
    sources = [
        CompetitionSource(kind="competition", path=path, weight=weight)
        for path, weight in (("a", 2.0), ("b", 0.5))
    ]
    stacks = prepared_stacks(find_labelled(tmp_path, sources), ORGANS, COARSE, tmp_path / "cache")
    assert [stack.weight for stack in stacks] == [2.0, 0.5]


def scan_pair(folder: Path, scan: Scan, truth: Segmentation, name: str = "a1") -> None:
    folder.mkdir(exist_ok=True)
    write_scan(scan, folder / f"{name}.nii.gz")
    write_segmentation(truth, folder / f"{name}_seg.nii.gz")


@pytest.mark.parametrize(
    "turn", [Turn(swap=True, flip_columns=True), Turn(flip_rows=True), Turn(True, True, True)]
)
def test_scans_and_masks_are_turned_upright(tmp_path: Path, turn: Turn) -> None:
    scan, truth = abdomen(SMALL)
    flat = truth.labels().array
    truth = dataclasses.replace(truth, masks=np.stack([flat == organ.id for organ in ORGANS]))
    stored = stored_as(scan, turn)
    masks = np.ascontiguousarray(turn.back(truth.masks))
    turned = Segmentation(masks, stored.spacing, stored.affine)
    scan_pair(tmp_path / "upright", scan, truth)
    scan_pair(tmp_path / "turned", stored, turned)
    (upright,) = prepared(tmp_path / "upright", tmp_path / "cache")
    (other,) = prepared(tmp_path / "turned", tmp_path / "cache")
    assert turn_upright(stored) == turn
    torch.testing.assert_close(upright.slices, other.slices, atol=2e-3, rtol=0)
    assert torch.equal(upright.masks, other.masks)


def coronal(scan: Scan) -> Scan:
    affine = scan.affine.copy()
    affine[:3, :2] = affine[:3, 1::-1] / scan.spacing[1::-1] * scan.spacing[:2]
    return dataclasses.replace(scan, affine=affine)


def write_coronal(folder: Path, name: str) -> None:
    """A PNG folder's labels could not say it; NIfTI's reader would turn it, TIFF's does not."""
    scan, truth = abdomen(SMALL)
    lying = coronal(scan)
    folder.mkdir(exist_ok=True)
    write_scan(lying, folder / f"{name}.tif")
    write_segmentation(dataclasses.replace(truth, affine=lying.affine), folder / f"{name}_seg.tif")


def test_a_scan_that_is_not_axial_is_a_fault_of_its_own(tmp_path: Path) -> None:
    data = tmp_path / "data"
    scan_pair(data, *abdomen(SMALL))
    write_coronal(data, "b2")
    faults: list[Fault] = []
    stacks = prepared(data, tmp_path / "cache", on_fault=faults.append)
    assert [stack.name for stack in stacks] == ["a1"]
    assert [(fault.scan, fault.left_out) for fault in faults] == [("b2", True)]
    assert "coronal" in faults[0].sentence


def test_a_day_with_a_damaged_slice_is_left_out_and_told(tmp_path: Path) -> None:
    data = write_days(tmp_path / "data", "case1_day0", "case2_day0")
    damaged = sorted(data.glob("train/case1/*/scans/*.png"))[3]
    damaged.write_bytes(damaged.read_bytes()[:-30])
    faults: list[Fault] = []
    stacks = prepared(data, tmp_path / "cache", on_fault=faults.append)
    assert [stack.name for stack in stacks] == ["case2_day0"]
    assert [fault.scan for fault in faults] == ["case1_day0"]
    assert damaged.name in faults[0].sentence


def test_without_a_scan_that_can_be_used_there_is_one_sentence(tmp_path: Path) -> None:
    write_coronal(tmp_path / "data", "b2")
    with pytest.raises(InputError) as error:
        prepared(tmp_path / "data", tmp_path / "cache")
    assert_one_sentence(error, "coronal")
    with pytest.raises(InputError) as error:
        prepared_stacks([], ORGANS, COARSE, tmp_path / "cache")
    assert_one_sentence(error)


def test_each_scan_is_reported(tmp_path: Path) -> None:
    data = write_days(tmp_path / "data", "case1_day0", "case2_day0")
    reports: list[Progress] = []
    prepared(data, tmp_path / "cache", report=reports.append)
    assert {report.total for report in reports} == {2}
    assert [report.done for report in reports] == sorted(report.done for report in reports)
    assert reports[-1].done == 2
    assert len(reports) > 12  # each slice, too, so that it can be cancelled


# --- the cache ------------------------------------------------------------------------------


def test_a_second_run_reads_no_scan_and_gets_the_same(tmp_path: Path) -> None:
    data = write_days(tmp_path / "data", "case1_day0", "case2_day0")
    found = find_labelled(data)
    first = prepared_stacks(found, ORGANS, COARSE, tmp_path / "cache")
    second = prepared_stacks(never_read(found), ORGANS, COARSE, tmp_path / "cache")
    assert_same(first, second)
    assert len(entries(tmp_path / "cache")) == 2


def test_what_is_written_to_a_stack_stays_in_the_process(tmp_path: Path) -> None:
    data = write_days(tmp_path / "data", "case1_day0")
    (first,) = prepared(data, tmp_path / "cache")
    before = first.slices.clone()
    first.slices.zero_()
    first.masks.fill_(True)
    (second,) = prepared(data, tmp_path / "cache")
    assert torch.equal(second.slices, before)
    assert not second.masks.all()


@pytest.mark.parametrize("change", [{"neighbours": 3}, {"stride": 1}, {"patch": (8, 32, 32)}])
def test_how_slices_go_in_together_changes_nothing_in_the_cache(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    found = find_labelled(write_days(tmp_path / "data", "case1_day0"))
    prepared_stacks(found, ORGANS, COARSE, tmp_path / "cache")
    other = COARSE.model_copy(update=change)
    prepared_stacks(never_read(found), ORGANS, other, tmp_path / "cache")


def change_pixel(data: Path) -> None:
    path = min(data.glob("train/*/*/scans/*.png"))
    from gitract.io.png import read_grey_png, write_grey_png

    pixels = read_grey_png(path).copy()
    pixels[3, 3] += 100
    write_grey_png(pixels, path)


def change_label(data: Path) -> None:
    table = data / "train.csv"
    rows = table.read_text().splitlines()
    outlined = next(i for i, row in enumerate(rows) if i and row.split(",")[2])
    rows[outlined] = rows[outlined].rsplit(",", 1)[0] + ",1 3"
    table.write_text("\n".join(rows) + "\n")


def change_name(data: Path) -> None:
    """The same files, whose other name stands for other rows of the table."""
    day = data / "train" / "case1" / "case1_day0"
    day.rename(day.with_name("case1_day1"))
    table = data / "train.csv"
    table.write_text(table.read_text().replace("case1_day0", "case1_day1"))


@pytest.mark.parametrize("change", [change_pixel, change_label, change_name])
def test_other_content_is_prepared_anew(tmp_path: Path, change: Callable[[Path], None]) -> None:
    data = write_days(tmp_path / "data", "case1_day0")
    prepared(data, tmp_path / "cache")
    change(data)
    (cached,) = prepared(data, tmp_path / "cache")
    assert len(entries(tmp_path / "cache")) == 2
    (fresh,) = prepared(data, tmp_path / "elsewhere")
    assert_same([cached], [fresh])


@pytest.mark.parametrize(
    "change",
    [
        {"pixel_mm": 5.0}, {"slice_mm": 4.0}, {"scaling": "scan"}, {"low_percentile": 3.0},
        {"high_percentile": 98.0}, {"crop_to_body": True},
    ],
)  # fmt: skip
def test_another_preparation_is_another_entry(tmp_path: Path, change: dict[str, Any]) -> None:
    data = write_days(tmp_path / "data", "case1_day0")
    prepared(data, tmp_path / "cache")
    other = COARSE.model_copy(update=change)
    (cached,) = prepared(data, tmp_path / "cache", other)
    (fresh,) = prepared(data, tmp_path / "elsewhere", other)
    assert_same([cached], [fresh])
    assert len(entries(tmp_path / "cache")) == 2


@pytest.mark.parametrize(
    "organs", [ORGANS[::-1], ORGANS[:2], (*ORGANS, organ_named("liver", KNOWN_ORGANS))]
)
def test_other_organs_are_another_entry(tmp_path: Path, organs: tuple[Organ, ...]) -> None:
    data = write_days(tmp_path / "data", "case1_day0")
    prepared(data, tmp_path / "cache")
    found = find_labelled(data, organs=organs)
    (stack,) = prepared_stacks(found, organs, COARSE, tmp_path / "cache")
    assert len(stack.masks) == len(organs)
    assert len(entries(tmp_path / "cache")) == 2


@pytest.mark.parametrize(
    "change", [{"pixel_mm": 4.0}, {"label_values": {4: "stomach"}}, {"organs": ["large_bowel"]}]
)
def test_other_settings_of_a_source_are_another_entry(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    from gitract.io.png import write_grey_png

    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        pixels = np.random.default_rng(0).choice(np.array([0, 4, 9], np.uint8), (40, 50))
        write_grey_png(pixels, tmp_path / folder / "case1.png")
    fields = {
        "kind": "pairs", "path": ".", "pixel_mm": 3.0, "organs": ["stomach"],
        "label_values": {9: "stomach", 4: "large_bowel"},
    }  # fmt: skip
    for settings in (fields, {**fields, **change}):
        found = find_labelled(tmp_path, [PairsSource.model_validate(settings)])
        (cached,) = prepared_stacks(found, ORGANS, COARSE, tmp_path / "cache")
    assert len(entries(tmp_path / "cache")) == 2
    (fresh,) = prepared_stacks(found, ORGANS, COARSE, tmp_path / "elsewhere")
    assert_same([cached], [fresh])


def test_a_file_that_is_only_newer_is_not_prepared_anew(tmp_path: Path) -> None:
    data = write_days(tmp_path / "data", "case1_day0")
    found = find_labelled(data)
    prepared_stacks(found, ORGANS, COARSE, tmp_path / "cache")
    os.utime(data / "train.csv", (1, 1))
    prepared_stacks(never_read(found), ORGANS, COARSE, tmp_path / "cache")


def test_a_file_that_did_not_change_is_not_hashed_again(tmp_path: Path) -> None:
    data = write_days(tmp_path / "data", "case1_day0")
    prepared(data, tmp_path / "cache")
    index = tmp_path / "cache" / "hashes.json"
    known = json.loads(index.read_text())
    assert len(known) == 7
    wrong = {path: [size, changed, "0" * 64] for path, (size, changed, _) in known.items()}
    index.write_text(json.dumps(wrong))
    prepared(data, tmp_path / "cache")
    assert len(entries(tmp_path / "cache")) == 2  # the second by what the index says


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"a": 3}', '{"a": [1, 2]}'])
def test_a_damaged_index_is_made_anew(tmp_path: Path, content: str) -> None:
    data = write_days(tmp_path / "data", "case1_day0")
    found = find_labelled(data)
    prepared_stacks(found, ORGANS, COARSE, tmp_path / "cache")
    (tmp_path / "cache" / "hashes.json").write_text(content)
    prepared_stacks(never_read(found), ORGANS, COARSE, tmp_path / "cache")
    assert len(json.loads((tmp_path / "cache" / "hashes.json").read_text())) == 7


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def garble(path: Path) -> None:
    path.write_bytes(b"\x93" + b"garbage" * 40)


@pytest.mark.parametrize("damage", [truncate, empty, lengthen, garble, Path.unlink])
@pytest.mark.parametrize("name", ["facts.json", "0-slices.npy", "0-masks.npy"])
def test_a_damaged_entry_is_made_anew(
    tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    data = write_days(tmp_path / "data", "case1_day0")
    (fresh,) = prepared(data, tmp_path / "elsewhere")
    prepared(data, tmp_path / "cache")
    (entry,) = entries(tmp_path / "cache")
    damage(entry / name)
    assert_same(prepared(data, tmp_path / "cache"), [fresh])
    (entry,) = entries(tmp_path / "cache")
    left = sorted(path.name for path in entry.parent.iterdir())
    assert left == [entry.name]


def test_an_array_of_another_shape_is_made_anew(tmp_path: Path) -> None:
    data = write_days(tmp_path / "data", "case1_day0")
    (fresh,) = prepared(data, tmp_path / "cache")
    (entry,) = entries(tmp_path / "cache")
    shape = tuple(fresh.slices.shape)
    np.save(entry / "0-slices.npy", np.zeros(shape[::-1], np.float16))
    (again,) = prepared(data, tmp_path / "cache")
    assert again.slices.shape == shape
    assert again.slices.any()


def test_a_cancelled_preparation_leaves_only_whole_entries(tmp_path: Path) -> None:
    data = write_days(tmp_path / "data", "case1_day0", "case2_day0")

    def cancel(progress: Progress) -> None:
        if "case2" in progress.message and "Reading" in progress.message:
            raise Cancelled

    with pytest.raises(Cancelled):
        prepared(data, tmp_path / "cache", report=cancel)
    (entry,) = entries(tmp_path / "cache")
    assert list((tmp_path / "cache").rglob("*.part")) == []
    assert {path.name for path in entry.iterdir()} == {
        "facts.json", "0-slices.npy", "0-masks.npy",
    }  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on file sizes")
def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    import resource

    data, cache = write_days(tmp_path / "data", "case1_day0"), tmp_path / "cache"
    found = find_labelled(data)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, limits[1]))
    try:
        with pytest.raises(InputError) as error:
            prepared_stacks(found, ORGANS, COARSE, cache)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_one_sentence(error, str(cache), "--cache")
    assert [
        path for path in cache.rglob("*") if path.name != "hashes.json" and path.is_file()
    ] == []
    assert prepared(data, cache)


def test_a_cache_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    data = write_days(tmp_path / "data", "case1_day0")
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(InputError) as error:
        prepared(data, tmp_path / "cache")
    assert_one_sentence(error, str(tmp_path / "cache"), "--cache")


def python(code: str, *arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


AT_ONCE = """
    import sys
    from pathlib import Path
    from gitract.labelled import find_labelled
    from gitract.model_config import Preparation
    from gitract.organs import ORGANS
    from gitract.prepared import prepared_stacks
    data, cache = map(Path, sys.argv[1:])
    found = find_labelled(data)
    print("ready", flush=True)
    for stack in prepared_stacks(found, ORGANS, Preparation(pixel_mm=6.0), cache):
        print(stack.name, float(stack.slices.float().sum()), int(stack.masks.sum()))
"""


def test_two_processes_at_once_do_not_harm_each_other(tmp_path: Path) -> None:
    names = [f"case{n}_day0" for n in range(6)]
    data, cache = write_days(tmp_path / "data", *names), tmp_path / "cache"
    found = find_labelled(data)
    prepared_stacks(found[:3], ORGANS, COARSE, cache)
    for entry in entries(cache):  # three that are damaged, three that are not there
        truncate(entry / "0-masks.npy")
    other = python(AT_ONCE, data, cache)
    assert other.stdout is not None
    assert other.stdout.readline() == "ready\n"
    stacks = prepared_stacks(found, ORGANS, COARSE, cache)
    told, _ = other.communicate()
    assert other.returncode == 0
    assert told.splitlines() == [
        f"{stack.name} {float(stack.slices.float().sum())} {int(stack.masks.sum())}"
        for stack in stacks
    ]
    assert [stack.name for stack in stacks] == names
    assert len(entries(cache)) == 6
    assert list(cache.rglob(".*")) == []
    prepared_stacks(never_read(found), ORGANS, COARSE, cache)


# --- what it costs --------------------------------------------------------------------------

MEMORY = """
    import dataclasses, os, resource, sys
    from pathlib import Path
    import numpy as np
    import torch
    from gitract.labelled import find_labelled
    from gitract.model_config import Preparation
    from gitract.organs import ORGANS
    from gitract.prepared import prepared_stacks
    torch.set_num_threads(1)
    found = find_labelled(Path(sys.argv[1]))
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    prepare = lambda some: prepared_stacks(some, ORGANS, Preparation(pixel_mm=1.5), Path(sys.argv[2]))
    prepare(found[:4])
    before = peak()
    stacks = prepare(found)
    again = prepare(found)
    size = sum(s.slices.numel() * 2 + s.masks.numel() for s in stacks)
    opened = len(os.listdir("/proc/self/fd"))
    print(len(stacks), size, peak() - before, opened)
"""  # noqa: E501


@pytest.mark.skipif(sys.platform != "linux", reason="counts by /proc and in kilobytes")
def test_memory_and_open_files_do_not_grow_with_the_data(tmp_path: Path) -> None:
    scan, truth = abdomen((10, 120, 130))
    for number in range(40):
        name = f"case{number}_day1"
        voxels = scan.voxels + np.uint16(number)
        write_day(
            tmp_path / "data",
            dataclasses.replace(scan, voxels=voxels, name=name),
            dataclasses.replace(truth, name=name),
        )
    told, _ = python(MEMORY, tmp_path / "data", tmp_path / "cache").communicate()
    stacks, size, growth, opened = map(int, told.split())
    assert stacks == 40
    assert size > 60e6
    assert growth < size / 6
    assert opened < 20


# --- real scans -----------------------------------------------------------------------------


@pytest.mark.data
def test_real_masks_keep_their_volume_when_prepared(shared_data: Path, tmp_path: Path) -> None:
    preparation = Preparation(pixel_mm=2.5)
    sources = [
        CompetitionSource(kind="competition", path="uwm_16bit"),
        ScansSource(kind="scans", path="other/amos_mri_0540", label_values={7: "stomach"}),
    ]
    stacks = prepared_stacks(
        find_labelled(shared_data, sources), ORGANS, preparation, tmp_path, silent
    )
    assert [stack.name for stack in stacks].count("case101_day20") == 3
    for stack in stacks:
        voxel_ml = preparation.pixel_mm**2 * stack.facts.spacing[0] / 1000
        volumes = {organ.name: organ.ml for organ in stack.facts.organs}
        for organ, mask, known in zip(ORGANS, stack.masks, stack.known, strict=True):
            assert known == (organ.name in volumes)
            volume = volumes.get(organ.name, 0.0)
            assert float(mask.sum()) * voxel_ml == pytest.approx(volume, rel=0.1, abs=0.3)


@pytest.mark.data
def test_real_stacks_get_the_same_from_the_cache(shared_data: Path, tmp_path: Path) -> None:
    source = CompetitionSource(kind="competition", path="uwm_stacks")
    found = find_labelled(shared_data, [source])
    first = prepared_stacks(found, ORGANS, Preparation(pixel_mm=4.0), tmp_path)
    assert {stack.name for stack in first} >= {"case16_day0", "case20_day0", "case20_day22"}
    again = prepared_stacks(never_read(found), ORGANS, Preparation(pixel_mm=4.0), tmp_path)
    assert_same(first, again)
