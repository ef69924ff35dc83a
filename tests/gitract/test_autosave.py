"""Edits that were not saved: never half of one on disk, found after a crash, and only then."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gitract import autosave
from gitract.autosave import About, Found, UnsavedEdits, unsaved_edits
from gitract.errors import InputError
from gitract.organs import ORGANS, Organ
from gitract.scan import DicomImage, DicomSeries, NiftiAxes

SHAPE = (5, 24, 30)
ABOUT = About(
    name="case20_day0",
    title="case20_day0 · gi-tract-small",
    shape=SHAPE,
    spacing=(3.0, 1.5, 1.25),
    affine=tuple(map(tuple, np.diag([-3.0, 1.5, 1.25, 1.0]).tolist())),
    organs=(*ORGANS, Organ(18, "tumour_bed", "#123456")),
    provenance={"baseline": ["0" * 16] * 5, "accepted": [2], "filled": {"3": {"ab": True}}},
)

# Keeps edits until it is killed: each round gives every slice the number of the round.
EDITOR = """
import sys
from pathlib import Path
import numpy as np
from gitract.autosave import About, UnsavedEdits

about = About.model_validate_json(sys.argv[2])
edits = UnsavedEdits.begin(about, np.zeros(about.shape, np.uint8), Path(sys.argv[1]))
print(0, flush=True)
for number in range(1, int(sys.argv[3])):
    plane = np.full(about.shape[1:], number % 256, np.uint8)
    edits.save({index: plane for index in range(about.shape[0])})
    print(number, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def editor(home: Path) -> Iterator[Callable[[int], subprocess.Popen[str]]]:
    """Start a process that keeps edits for so many rounds, and then lives on."""
    started = []

    def start(rounds: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", EDITOR, home, ABOUT.model_dump_json(), str(rounds)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "0\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def random_labels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4, SHAPE, dtype=np.uint8)


def abandoned(edits: UnsavedEdits) -> UnsavedEdits:
    """As if the process had ended since, and another now had its number."""
    change_about(edits.folder, lambda content: content["keeper"].update(started=1.0))
    return edits


def change_about(folder: Path, change: Callable[[dict], object]) -> None:
    path = folder / "about.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def only(home: Path) -> Found:
    [found], left_out = unsaved_edits(home)
    assert left_out == []
    return found


# --- what is kept is found ---------------------------------------------------------------


def test_a_new_home_has_no_unsaved_edits(home: Path) -> None:
    assert unsaved_edits(home) == ([], [])
    assert not home.exists()


def test_what_was_kept_comes_back_whole(home: Path) -> None:
    labels = random_labels()
    edits = UnsavedEdits.begin(ABOUT, labels, home)
    changed = 3 - labels[2]
    edits.save({2: changed})
    edits.save({4: changed, 2: changed[::-1, ::-1]})
    found = only_after_end_of(edits, home)
    labels[2], labels[4] = changed[::-1, ::-1], changed
    restored = found.read()
    np.testing.assert_array_equal(restored.labels, labels)
    assert restored.labels.dtype == np.uint8
    assert restored.damaged == ()


def only_after_end_of(edits: UnsavedEdits, home: Path) -> Found:
    abandoned(edits)
    return only(home)


@pytest.mark.parametrize(
    "stored",
    [
        None,
        NiftiAxes(0, 2, 1, placed=False),
        DicomSeries("1.2", "1.3", "1.4", (DicomImage(Path("a.dcm"), "1.5", "1.6", 7),) * 5),
    ],
    ids=["nothing", "NIfTI", "DICOM"],
)
def test_what_they_are_of_comes_back(home: Path, stored: NiftiAxes | DicomSeries | None) -> None:
    about = ABOUT.model_copy(
        update={
            "stored": stored,
            "source": Path("scans/case20_day0"),
            "slice_numbers": (1, 2, 3, 4, 5),
            "remarks": ("One slice is dark.",),
        }
    )
    found = only_after_end_of(UnsavedEdits.begin(about, random_labels(), home), home)
    assert found.about == about
    assert type(found.about.stored) is type(stored)


def test_saving_may_change_what_they_are(home: Path) -> None:
    edits = UnsavedEdits.begin(ABOUT, random_labels(), home)
    organs = (*ABOUT.organs, Organ(19, "liver_metastasis", "#abcdef"))
    edits.save({}, ABOUT.model_copy(update={"organs": organs}))
    edits.save({1: random_labels()[0]})
    found = only_after_end_of(edits, home)
    assert found.about.organs == organs
    assert found.about.provenance == ABOUT.provenance


def test_those_saved_last_come_first(home: Path) -> None:
    first, second = (UnsavedEdits.begin(ABOUT, random_labels(i), home) for i in range(2))
    first.save({0: random_labels()[1]})
    for edits in (first, second):
        abandoned(edits)
    found, _ = unsaved_edits(home)
    assert [one.folder for one in found] == [first.folder, second.folder]


@pytest.mark.parametrize(
    "slices",
    [{5: np.zeros((24, 30), np.uint8)}, {-1: np.zeros((24, 30), np.uint8)},
     {0: np.zeros((30, 24), np.uint8)}, {0: np.zeros((24, 30), np.int32)}],
    ids=["beyond the end", "before the start", "of another shape", "of another type"],
)  # fmt: skip
def test_a_slice_that_does_not_fit_is_refused(home: Path, slices: dict) -> None:
    edits = UnsavedEdits.begin(ABOUT, random_labels(), home)
    with pytest.raises(InputError, match="do not fit"):
        edits.save(slices)
    with pytest.raises(InputError, match="do not fit"):
        edits.save({}, ABOUT.model_copy(update={"shape": (5, 30, 24)}))
    with pytest.raises(InputError, match="do not fit"):
        UnsavedEdits.begin(ABOUT, random_labels().astype(np.int32), home)
    np.testing.assert_array_equal(only_after_end_of(edits, home).read().labels, random_labels())


# --- whose they are ----------------------------------------------------------------------


def test_edits_of_a_living_process_are_left_to_it(home: Path, editor) -> None:
    own = UnsavedEdits.begin(ABOUT, random_labels(), home)
    other = editor(2)
    assert unsaved_edits(home) == ([], [])
    other.kill()
    other.wait()
    assert only(home).folder != own.folder


def test_edits_of_another_computer_are_offered(home: Path) -> None:
    edits = UnsavedEdits.begin(ABOUT, random_labels(), home)
    change_about(edits.folder, lambda content: content["keeper"].update(host="elsewhere"))
    assert only(home).kept.keeper.host == "elsewhere"


def test_only_one_process_takes_edits_over(home: Path) -> None:
    edits = abandoned(UnsavedEdits.begin(ABOUT, random_labels(), home))
    first, second = only(home), only(home)
    taken = first.take_over()
    assert unsaved_edits(home) == ([], [])
    for late in (second.take_over, second.read, second.delete):
        with pytest.raises(InputError, match="another window"):
            late()
    assert not edits.exists
    with pytest.raises(InputError):
        edits.save({0: random_labels()[1]})
    taken.save({0: random_labels()[1]})
    labels = random_labels()
    labels[0] = labels[1]
    np.testing.assert_array_equal(only_after_end_of(taken, home).read().labels, labels)


def test_what_was_saved_is_forgotten_at_once(home: Path) -> None:
    edits = UnsavedEdits.begin(ABOUT, random_labels(), home)
    edits.forget()
    assert not edits.exists
    assert list((home / "unsaved").iterdir()) == []
    edits.forget()  # already gone


def test_deleting_can_be_undone_for_a_day(home: Path) -> None:
    abandoned(UnsavedEdits.begin(ABOUT, random_labels(), home))
    found = only(home)
    found.delete()
    assert unsaved_edits(home) == ([], [])
    found.undelete()
    np.testing.assert_array_equal(only(home).read().labels, random_labels())
    found.delete()
    [deleted] = (home / "unsaved").iterdir()
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(deleted, (two_days_ago, two_days_ago))
    unsaved_edits(home)
    assert list((home / "unsaved").iterdir()) == []
    with pytest.raises(InputError, match="gone"):
        found.undelete()


def test_old_edits_are_not_removed(home: Path) -> None:
    edits = abandoned(UnsavedEdits.begin(ABOUT, random_labels(), home))
    os.utime(edits.folder, (1.0, 1.0))
    only(home)
    assert edits.exists


# --- crashes -----------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [0.0, 0.013, 0.031, 0.07, 0.15])
def test_a_kill_leaves_each_slice_as_before_or_as_after(home: Path, editor, delay: float) -> None:
    process = editor(1_000_000)
    time.sleep(delay)
    process.kill()
    done, _ = process.communicate()
    last = int((done.split() or ["0"])[-1])
    restored = only(home).read()
    assert restored.damaged == ()
    for plane in restored.labels:
        assert np.unique(plane).tolist() in ([last % 256], [(last + 1) % 256])


class Killed(BaseException):
    """What no code of ours catches."""


class DyingDisk:
    """Lets so many operations pass; the one after them never happens."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, passed: int, error: BaseException) -> None:
        self.left = passed
        self.error = error
        for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "rename")):
            monkeypatch.setattr(owner, name, self.counted(getattr(owner, name)))

    def counted(self, operation: Callable) -> Callable:
        def do(*arguments: object) -> object:
            if self.left == 0:
                raise self.error
            self.left -= 1
            return operation(*arguments)

        return do


def test_every_step_of_saving_may_be_the_last(home: Path) -> None:
    before, after = random_labels(1), random_labels(2)
    for steps in range(100):
        edits = UnsavedEdits.begin(ABOUT, before, home)
        edits.save(dict(enumerate(before)))
        with pytest.MonkeyPatch.context() as monkeypatch:
            disk = DyingDisk(monkeypatch, steps, Killed())
            with suppress(Killed):
                edits.save(dict(enumerate(after)))
        found = only_after_end_of(edits, home)
        labels, damaged = found.read()
        assert damaged == ()
        new = [np.array_equal(plane, other) for plane, other in zip(labels, after, strict=True)]
        old = [np.array_equal(plane, other) for plane, other in zip(labels, before, strict=True)]
        assert all(np.logical_xor(new, old))
        found.delete()
        if disk.left:
            assert all(new)
            return
    pytest.fail("saving never came to its end")


def test_every_step_of_beginning_may_be_the_last(home: Path) -> None:
    for steps in range(20):
        with pytest.MonkeyPatch.context() as monkeypatch:
            disk = DyingDisk(monkeypatch, steps, Killed())
            with suppress(Killed):
                edits = UnsavedEdits.begin(ABOUT, random_labels(), home)
        if disk.left:
            np.testing.assert_array_equal(
                only_after_end_of(edits, home).read().labels, random_labels()
            )
            return
        assert unsaved_edits(home) == ([], [])
    pytest.fail("beginning never came to its end")


# --- disks that cannot be written --------------------------------------------------------


def test_a_full_disk_is_one_sentence_and_keeps_what_was_there(home: Path) -> None:
    before, after = random_labels(1), random_labels(2)
    full = OSError(28, "No space left on device")
    edits = UnsavedEdits.begin(ABOUT, before, home)
    for steps in range(6):
        with pytest.MonkeyPatch.context() as monkeypatch:
            DyingDisk(monkeypatch, steps, full)
            with pytest.raises(InputError, match=r"case20_day0 .*No space left on device"):
                edits.save(dict(enumerate(after)))
    assert edits.exists
    edits.save(dict(enumerate(after)))  # there is room again
    np.testing.assert_array_equal(only_after_end_of(edits, home).read().labels, after)


def test_a_full_disk_at_the_beginning_leaves_nothing(home: Path) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        DyingDisk(monkeypatch, 1, OSError(28, "No space left on device"))
        with pytest.raises(InputError, match="No space left on device"):
            UnsavedEdits.begin(ABOUT, random_labels(), home)
    assert list((home / "unsaved").iterdir()) == []


def test_a_home_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(InputError, match="cannot be written"):
        UnsavedEdits.begin(ABOUT, random_labels(), file)
    (tmp_path / "unsaved").touch()
    found, [sentence] = unsaved_edits(tmp_path)
    assert found == []
    assert "cannot be looked into" in sentence


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="rights do not bind an administrator"
)
def test_a_protected_folder_is_one_sentence(home: Path) -> None:
    edits = UnsavedEdits.begin(ABOUT, random_labels(), home)
    edits.folder.chmod(0o555)
    try:
        with pytest.raises(InputError, match="cannot be written"):
            edits.save({0: random_labels()[1]})
    finally:
        edits.folder.chmod(0o755)


# --- damage ------------------------------------------------------------------------------

DAMAGE = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "flipped": lambda content: bytes([*content[:70], content[70] ^ 255, *content[71:]]),
    "something else": lambda content: b"hello",
    "of another shape": lambda content: autosave._packed(np.zeros((3, 3), np.uint8)),
    "of another type": lambda content: autosave._packed(np.zeros(SHAPE[1:], np.int64)),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_slice_is_as_it_was_first_and_named(home: Path, damage: Callable) -> None:
    before, after = random_labels(1), random_labels(2)
    edits = UnsavedEdits.begin(ABOUT, before, home)
    edits.save(dict(enumerate(after)))
    path = edits.folder / "slice-0003.npz"
    path.write_bytes(damage(path.read_bytes()))
    after[3] = before[3]
    labels, damaged = only_after_end_of(edits, home).read()
    assert damaged == (3,)
    np.testing.assert_array_equal(labels, after)


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_without_the_whole_image_nothing_is_made_up(home: Path, damage: Callable) -> None:
    edits = UnsavedEdits.begin(ABOUT, random_labels(), home)
    path = edits.folder / "labels.npz"
    path.write_bytes(damage(path.read_bytes()))
    found = only_after_end_of(edits, home)
    with pytest.raises(InputError, match="damaged"):
        found.read()
    assert edits.exists


def test_edits_of_a_newer_version_are_left_alone(home: Path) -> None:
    edits = UnsavedEdits.begin(ABOUT, random_labels(), home)

    def renew(content: dict) -> None:
        content.update(format=2, keeper="of another kind", new_key=True)

    change_about(edits.folder, renew)
    found, [sentence] = unsaved_edits(home)
    assert found == []
    assert "newer version" in sentence
    assert str(edits.folder) in sentence
    assert edits.exists


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_stands_in_about_looking_never_fails(home: Path, data: st.DataObject) -> None:
    intact = abandoned(UnsavedEdits.begin(ABOUT, random_labels(1), home))
    edits = abandoned(UnsavedEdits.begin(ABOUT, random_labels(2), home))
    path = edits.folder / "about.json"
    content = path.read_bytes()
    json_text = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=5,
    )

    def with_value(place: tuple[str, ...], value: object) -> bytes:
        changed = json.loads(content)
        inner = changed
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
        return json.dumps(changed).encode()

    places = [("format",), ("about",), ("keeper",), ("saved",), ("keeper", "process"),
              ("keeper", "started"), ("keeper", "host"), ("about", "shape"),
              ("about", "organs")]  # fmt: skip
    changed = data.draw(
        st.binary(max_size=40)
        | st.integers(0, len(content)).map(lambda end: content[:end])
        | st.builds(with_value, st.sampled_from(places), json_text)
    )
    path.write_bytes(changed)
    try:
        found, left_out = unsaved_edits(home)
        assert intact.folder in [one.folder for one in found]
        assert (edits.folder in [one.folder for one in found]) != bool(left_out)
        assert path.read_bytes() == changed
    finally:
        intact.forget()
        edits.forget()


def test_a_folder_without_about_is_left_out_with_a_reason(home: Path) -> None:
    (home / "unsaved" / "stray").mkdir(parents=True)
    (home / "unsaved" / "notes.txt").touch()
    found, [sentence] = unsaved_edits(home)
    assert found == []
    assert "stray" in sentence
