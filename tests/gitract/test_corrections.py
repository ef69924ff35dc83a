"""Kept corrections: whole or not there, and nobody can tell whose they are."""

import dataclasses
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gitract.corrections import Corrections, CorrectionStore
from gitract.errors import InputError
from gitract.organs import IGNORE, KNOWN_ORGANS, ORGANS, Organ
from gitract.scan import DicomImage, DicomSeries, Scan, Segmentation
from sentences import assert_one_sentence

SHAPE = (6, 9, 11)
SPACING = (3.0, 1.5, 1.25)
TARGET = Organ(18, "tumour_bed", "#123456")
TABLE = (*ORGANS, TARGET, IGNORE)
SLICES = (1, 4)

# Says nothing but belongs to somebody: none of it may be found again.
NAME, FOLDER, DATE = "Musterfrau_Erika", "ward7-archive", "1964-08-12"
ORIGIN = (123.456789, -987.654321, 55.5555555)

KEEPER = """
import sys
from pathlib import Path
import numpy as np
from gitract.corrections import Corrections, CorrectionStore
from gitract.scan import Scan, Segmentation

store = CorrectionStore(Path(sys.argv[1]))
voxels = np.random.default_rng(0).integers(0, 900, (6, 60, 70), np.uint16)
scan = Scan(voxels, (3.0, 1.5, 1.25))
print("ready", flush=True)
for number in range(1, 1_000_000):
    masks = np.zeros((3, *voxels.shape), np.bool_)
    slices = (1, 4) if number % 2 else (0, 2, 5)
    masks[number % 2, slices] = True
    store.add(Corrections(scan, Segmentation(masks, scan.spacing), slices))
    print(number, flush=True)
"""


def corrections(
    seed: int = 0, dtype: str = "uint16", slices: tuple[int, ...] = SLICES, **changes: object
) -> Corrections:
    """A scan that tells whose it is wherever a scan can, and contours everywhere."""
    random = np.random.default_rng(seed)
    voxels = random.integers(0, 200, SHAPE).astype(dtype)
    affine = np.diag([*SPACING, 1.0])[[2, 1, 0, 3]]  # slices along the patient's z
    affine[:3, 3] = ORIGIN
    image = DicomImage(Path(FOLDER) / "a.dcm", "1.2.840.99", "1.2.840.98", 7)
    scan = Scan(
        voxels, SPACING, affine, NAME, Path(FOLDER) / DATE / NAME, (1, 2, 3, 4, 5, 6),
        DicomSeries("1.2.840.97", "1.2.840.96", "1.2.840.95", (image,) * len(voxels)),
        (f"Scanned on {DATE}.",),
    )  # fmt: skip
    masks = random.random((len(TABLE), *SHAPE)) > 0.5
    provenance = {
        "unreviewed": {"all": ["stomach"], "4": []}, "rejected": [3], "accepted": [1],
        "scan": NAME, "time": DATE, "baseline": ["0" * 16] * len(voxels),
    }  # fmt: skip
    contours = Segmentation(
        masks, SPACING, affine, TABLE, NAME, scan.slice_numbers, provenance, scan.stored,
        scan.remarks,
    )  # fmt: skip
    return dataclasses.replace(Corrections(scan, contours, slices), **changes)


@pytest.fixture
def kept(tmp_path: Path) -> CorrectionStore:
    return CorrectionStore(tmp_path / "home")


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def only_file(tmp_path: Path) -> Path:
    [path] = (tmp_path / "home" / "corrections").iterdir()
    return path


# --- what was kept comes back ---------------------------------------------------------------


def test_a_new_home_has_no_corrections_and_stays_empty(kept: CorrectionStore, tmp_path) -> None:
    assert kept.entries() == []
    assert kept.load() == []
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", ">u2", "f4", "f8"])
def test_what_was_kept_comes_back(kept: CorrectionStore, dtype: str) -> None:
    given = corrections(dtype=dtype)
    kept.add(given)
    [found] = kept.load()
    np.testing.assert_array_equal(found.scan.voxels, given.scan.voxels)
    assert found.scan.voxels.dtype == given.scan.voxels.dtype
    assert found.scan.spacing == found.segmentation.spacing == SPACING
    assert found.slices == SLICES
    assert found.segmentation.organs == TABLE
    reviewed = list(SLICES)
    np.testing.assert_array_equal(
        found.segmentation.masks[:, reviewed], given.segmentation.masks[:, reviewed]
    )
    assert [found.reviewed(i) for i in SLICES] == [given.reviewed(i) for i in SLICES]
    assert [found.reviewed(i) for i in SLICES] == [{1, 2, 18}, {1, 2, 3, 18}]
    assert found.key == given.key


def test_contours_of_slices_that_nobody_reviewed_are_not_kept(kept: CorrectionStore) -> None:
    kept.add(corrections())
    [found] = kept.load()
    others = [index for index in range(SHAPE[0]) if index not in SLICES]
    assert not found.segmentation.masks[:, others].any()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.permutations([0, 1, 2]),
    signs=st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3),
    spacing=st.tuples(*[st.floats(0.2, 12.0)] * 3),
    tilt=st.floats(-0.5, 0.5),
)
def test_the_directions_of_the_axes_come_back(
    tmp_path: Path, order: list[int], signs: tuple, spacing: tuple, tilt: float
) -> None:
    turned = np.eye(3)[order] * signs
    turned = turned @ np.array(
        [[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]]
    )
    affine = np.eye(4)
    affine[:3, :3] = turned * spacing
    affine[:3, 3] = ORIGIN
    scan = Scan(np.zeros((3, 4, 5), np.uint8), spacing, affine)
    contours = Segmentation(np.zeros((3, 3, 4, 5), np.bool_), spacing, affine)
    kept = CorrectionStore(tmp_path)
    kept.add(Corrections(scan, contours, (1,)))
    [found] = kept.load()
    for one in (found.scan, found.segmentation):
        assert one.spacing == spacing
        np.testing.assert_array_equal(one.affine[:3, :3], affine[:3, :3])
        assert not one.affine[:3, 3].any()


def test_the_contours_still_lie_on_the_scan(kept: CorrectionStore) -> None:
    kept.add(corrections())
    [found] = kept.load()
    placed = found.segmentation.on(found.scan)
    np.testing.assert_array_equal(placed.masks, found.segmentation.masks)


def test_a_list_tells_what_is_kept(kept: CorrectionStore) -> None:
    kept.add(corrections())
    [entry] = kept.entries()
    assert entry.key == corrections().key
    assert entry.organs == TABLE
    assert entry.slices == SLICES
    assert time.strptime(entry.kept, "%Y-%m-%d")
    assert 0 < entry.megabytes < 0.1


# --- whose they are -------------------------------------------------------------------------


def test_nothing_that_is_kept_tells_whose_it_is(kept: CorrectionStore, tmp_path: Path) -> None:
    kept.add(corrections())
    path = only_file(tmp_path)
    with zipfile.ZipFile(path) as members:
        content = b"".join(members.read(name) for name in members.namelist())
    content += path.read_bytes() + str(path.relative_to(tmp_path)).encode()
    told = [NAME, *NAME.split("_"), FOLDER, "a.dcm", DATE, DATE.replace("-", ""), "1.2.840"]
    for text in (*told, *map(str, ORIGIN)):
        assert text.lower().encode() not in content.lower(), text
    for kind in ("<f8", "<f4", ">f8"):
        for number in ORIGIN:
            assert np.array(number, kind).tobytes() not in content
    assert b"stomach" in content  # it was looked for where it would be


def test_what_comes_back_tells_nobody_either(kept: CorrectionStore) -> None:
    given = corrections()
    kept.add(given)
    [found] = kept.load()
    for one in (found.scan, found.segmentation):
        assert one.name == given.key
        assert one.stored is None
        assert one.slice_numbers is None
        assert one.remarks == ()
    assert found.scan.source is None
    assert set(found.segmentation.provenance) == {"unreviewed"}


def test_the_key_tells_voxels_apart_and_nothing_else(kept: CorrectionStore) -> None:
    one = corrections()
    renamed = dataclasses.replace(one.scan, name="other", affine=None)
    assert corrections(scan=renamed).key == one.key
    assert corrections(slices=(0,)).key == one.key
    changed = one.scan.voxels.copy()
    changed[5, 8, 10] += 1
    keys = [
        one.key,
        corrections(scan=dataclasses.replace(one.scan, voxels=changed)).key,
        corrections(scan=dataclasses.replace(one.scan, voxels=one.scan.voxels[::-1])).key,
        corrections(dtype="int16").key,
    ]
    assert len(set(keys)) == len(keys)


# --- several --------------------------------------------------------------------------------


def test_the_same_scan_is_replaced_and_another_is_added(
    kept: CorrectionStore, tmp_path: Path
) -> None:
    kept.add(corrections(seed=0))
    kept.add(corrections(seed=1))
    again = corrections(seed=0, slices=(0, 2, 5))
    kept.add(again)
    assert {entry.key: entry.slices for entry in kept.entries()} == {
        again.key: (0, 2, 5), corrections(seed=1).key: SLICES,
    }  # fmt: skip
    [other] = kept.load(without=[again.key])
    assert other.key == corrections(seed=1).key
    assert len(list((tmp_path / "home" / "corrections").iterdir())) == 2


def test_what_is_forgotten_is_gone(kept: CorrectionStore, tmp_path: Path) -> None:
    for seed in range(2):
        kept.add(corrections(seed=seed))
    key = corrections(seed=0).key
    folder = tmp_path / "home" / "corrections"
    (folder / f".{key}.12345678.part").write_bytes(b"left by a crash")
    kept.forget(key)
    assert [entry.key for entry in kept.entries()] == [corrections(seed=1).key]
    assert [path.name for path in folder.iterdir()] == [f"{corrections(seed=1).key}.npz"]
    for wrong in (key, "../models", ""):
        with pytest.raises(InputError) as error:
            kept.forget(wrong)
        assert_one_sentence(error, repr(wrong))


# --- what may be known of an organ ----------------------------------------------------------


def test_a_known_organ_is_found_under_another_name_and_a_given_id_is_not() -> None:
    mine = corrections()
    assert mine.mask(Organ(3, "stomach_gtv", "#ffffff")) is not None
    assert mine.mask(Organ(18, "another_target", "#ffffff")) is None
    assert mine.mask(TARGET) is not None
    assert mine.mask(KNOWN_ORGANS[3]) is None
    assert IGNORE not in mine.organs


def test_a_rejected_slice_beyond_the_scan_is_none() -> None:
    given = corrections()
    contours = dataclasses.replace(given.segmentation, provenance={"rejected": [0, 5, 6, 40]})
    assert corrections(segmentation=contours).rejected == {0, 5}


# --- damage ---------------------------------------------------------------------------------

DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "without its end": lambda content: content[:-30],
    "text": lambda content: b"hello",
    "an array": lambda content: b"\x93NUMPY\x01\x00" + content,
    "a picture": lambda content: b"\x89PNG\r\n\x1a\n" + content,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_entry_is_left_out_and_stays(
    kept: CorrectionStore, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    kept.add(corrections(seed=0))
    path = only_file(tmp_path)
    kept.add(corrections(seed=1))
    path.write_bytes(damage(path.read_bytes()))
    assert [entry.key for entry in kept.entries()] == [corrections(seed=1).key]
    assert [one.key for one in kept.load()] == [corrections(seed=1).key]
    assert path.exists()


def test_no_changed_byte_makes_loading_fail(kept: CorrectionStore, tmp_path: Path) -> None:
    kept.add(corrections(dtype="uint8"))
    path = only_file(tmp_path)
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        kept.entries()
        for found in kept.load():  # what is read in spite of it is what was kept
            np.testing.assert_array_equal(found.scan.voxels, corrections(dtype="uint8").scan.voxels)


def rewritten(path: Path, **changes: object) -> None:
    """Change what an entry says of itself, or its arrays."""
    with np.load(path) as arrays:
        content = dict(arrays)
    about = json.loads(content["about"].tobytes())
    for name, value in changes.items():
        if isinstance(value, np.ndarray):
            content[name] = value
        else:
            about[name] = value
    content["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    np.savez_compressed(path, **content)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2, "a_new_key": 3},
        {"slices": [0, 99]},
        {"slices": [0, 1, 2]},
        {"spacing": [0.0, 1.0, 1.0]},
        {"organs": []},
        {"voxels": np.zeros((6, 9), np.uint8)},
        {"masks": np.zeros((5, 3, 9, 11), np.bool_)},
        {"a_new_key": 3},
    ],
    ids=str,
)
def test_an_entry_that_contradicts_itself_or_is_newer_is_left_out_and_stays(
    kept: CorrectionStore, tmp_path: Path, changes: dict
) -> None:
    kept.add(corrections(seed=0))
    path = only_file(tmp_path)
    rewritten(path, **changes)
    content = path.read_bytes()
    kept.add(corrections(seed=1))
    assert [one.key for one in kept.load()] == [corrections(seed=1).key]
    assert path.read_bytes() == content


# --- disks that cannot be written -----------------------------------------------------------


@pytest.mark.parametrize("operation", ["open", "replace"])
def test_a_full_disk_is_one_sentence_and_leaves_the_old_entry(
    kept: CorrectionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    kept.add(corrections())
    before = files(tmp_path)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, operation, fail)
    with pytest.raises(InputError) as error:
        kept.add(corrections(slices=(0,)))
    assert_one_sentence(error, "No space left on device", "GITRACT_HOME")
    monkeypatch.undo()
    assert files(tmp_path) == before


def test_a_disk_that_is_full_midway_leaves_the_old_entry(
    kept: CorrectionStore, tmp_path: Path, small_disk: Callable[[int | None], None]
) -> None:
    kept.add(corrections())
    before = files(tmp_path)
    size = len(next(iter(before.values())))
    for share in (0.1, 0.5, 0.99):
        small_disk(int(share * size))
        with pytest.raises(InputError) as error:
            kept.add(corrections(slices=(0, 2)))
        assert_one_sentence(error, "could not be kept")
        small_disk(None)
        assert files(tmp_path) == before
    kept.add(corrections(slices=(0, 2)))  # there is room again
    assert kept.entries()[0].slices == (0, 2)


def test_a_home_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    kept = CorrectionStore(tmp_path / "file")
    assert kept.entries() == kept.load() == []
    with pytest.raises(InputError) as error:
        kept.add(corrections())
    assert_one_sentence(error, "GITRACT_HOME")


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="rights do not bind an administrator"
)
def test_a_protected_folder_is_one_sentence_and_can_be_read(
    kept: CorrectionStore, tmp_path: Path
) -> None:
    kept.add(corrections())
    folder = tmp_path / "home" / "corrections"
    folder.chmod(0o555)
    try:
        for act in (lambda: kept.add(corrections(seed=1)), lambda: kept.forget(corrections().key)):
            with pytest.raises(InputError, match="Permission denied"):
                act()
        assert len(kept.load()) == 1
    finally:
        folder.chmod(0o755)


# --- crashes --------------------------------------------------------------------------------


class Killed(BaseException):
    """What no code of ours catches."""


@pytest.mark.parametrize("operation", ["open", "replace"])
@pytest.mark.parametrize("done", [False, True], ids=["before it", "after it"])
def test_every_step_may_be_the_last(
    kept: CorrectionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str,
    done: bool,
) -> None:  # fmt: skip
    kept.add(corrections())
    own = getattr(Path, operation)

    def dies(*arguments: object) -> None:
        if done:
            own(*arguments)
        raise Killed

    monkeypatch.setattr(Path, operation, dies)
    with pytest.raises(Killed):
        kept.add(corrections(slices=(0, 2)))
    monkeypatch.undo()
    [found] = kept.load()
    assert found.slices in (SLICES, (0, 2))
    masks = corrections().segmentation.masks[:, list(found.slices)]
    np.testing.assert_array_equal(found.segmentation.masks[:, list(found.slices)], masks)


@pytest.mark.parametrize("delay", [0.0, 0.003, 0.011, 0.019, 0.037, 0.061])
def test_a_kill_leaves_the_old_entry_or_the_new_one(tmp_path: Path, delay: float) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KEEPER, tmp_path], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert process.stdout.readline() == "1\n"
    time.sleep(delay)
    process.kill()
    last = int((process.communicate()[0].split() or ["1"])[-1])
    kept = CorrectionStore(tmp_path)
    [found] = kept.load()
    number = next(n for n in (last, last + 1) if found.slices == ((1, 4) if n % 2 else (0, 2, 5)))
    expected = np.zeros_like(found.segmentation.masks)
    expected[number % 2, list(found.slices)] = True
    np.testing.assert_array_equal(found.segmentation.masks, expected)
    kept.forget(found.key)
    assert list((tmp_path / "corrections").iterdir()) == []
