"""Installed models: versions, which one is active, and what a crash leaves."""

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gitract.errors import Cancelled, InputError
from gitract.home import default_home
from gitract.model_store import ModelStore
from sentences import assert_one_sentence


def writer(random_model: Path, model: str, **changes: object) -> Callable[[Path], None]:
    """Writes a model folder, as a job that made a model does."""

    def write(folder: Path) -> None:
        shutil.copytree(random_model, folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "id": model, **changes}))

    return write


@pytest.fixture
def add(store: ModelStore, random_model: Path) -> Callable[..., None]:
    def one(model: str, **changes: object) -> None:
        store.add(model, writer(random_model, model, **changes))

    return one


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_new_store_has_the_model_that_ships_and_writes_nothing(store: ModelStore) -> None:
    assert [info.shipped for info in store.models()] == [True]
    assert store.active() == store.find() == store.models()[0]
    assert not store.home.exists()


def test_the_home_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GITRACT_HOME", str(tmp_path))
    assert ModelStore().home == default_home() == tmp_path
    monkeypatch.delenv("GITRACT_HOME")
    assert "napari-gitract" in str(default_home())


def test_an_added_version_is_listed_but_not_active(
    store: ModelStore, add: Callable[..., None]
) -> None:
    add("mine", title="My hospital", dice={"stomach": 0.5})
    shipped, mine = store.models()
    assert (mine.id, mine.title, mine.dice) == ("mine", "My hospital", {"stomach": 0.5})
    assert not mine.shipped
    assert mine.card.startswith("# Random")
    assert store.active() == shipped
    assert store.find("mine") == mine


def test_versions_are_listed_from_old_to_new(store: ModelStore, add: Callable[..., None]) -> None:
    for name, created in (("b", "2026-03-01"), ("a", "2026-05-01"), ("c", "2026-01-01")):
        add(name, created=created)
    assert [info.id for info in store.models()[1:]] == ["c", "b", "a"]


def test_activate_and_restore_walk_back_to_the_first(
    store: ModelStore, add: Callable[..., None]
) -> None:
    shipped = store.active().id
    assert store.previous() is None
    for name in ("one", "two"):
        add(name)
        assert store.activate(name).id == name
        assert ModelStore(store.home).active().id == name  # it is on disk
    for name in ("one", shipped):
        assert store.previous() == store.find(name)
        assert store.restore().id == name
    assert store.previous() is None
    with pytest.raises(InputError, match="nothing to restore"):
        store.restore()
    assert store.active().id == shipped


def test_restore_goes_to_what_was_active_not_to_what_was_added(
    store: ModelStore, add: Callable[..., None]
) -> None:
    for name in ("one", "two", "three"):
        add(name)
    store.activate("one")
    store.activate("three")
    store.activate("one")
    assert store.restore().id == "three"


def test_activating_the_active_version_changes_nothing(
    store: ModelStore, add: Callable[..., None]
) -> None:
    shipped = store.active().id
    add("one")
    store.activate("one")
    store.activate("one")
    assert store.restore().id == shipped


def test_a_version_that_is_not_there_names_those_that_are(
    store: ModelStore, add: Callable[..., None]
) -> None:
    add("mine")
    for act in (store.find, store.activate):
        with pytest.raises(InputError, match="'yours'.*mine"):
            act("yours")


def test_a_removed_active_version_leaves_the_one_before(
    store: ModelStore, add: Callable[..., None]
) -> None:
    for name in ("one", "two"):
        add(name)
        store.activate(name)
    shutil.rmtree(store.find("two").path)
    assert store.active().id == "one"


def test_a_damaged_version_does_not_take_the_others_with_it(
    store: ModelStore, add: Callable[..., None]
) -> None:
    add("good")
    add("bad")
    store.activate("bad")
    (store.home / "models" / "bad" / "config.json").write_text("{")
    assert [info.id for info in store.models()[1:]] == ["good"]
    assert store.active().shipped
    with pytest.raises(InputError, match=r"bad.*config\.json"):
        store.find("bad")
    assert store.free_id("bad") == "bad-v2"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b'{"history": 3}', b'{"other": []}', b"\xff\xfe", b"null"]
)
def test_a_damaged_pointer_leaves_the_model_that_ships(
    store: ModelStore, add: Callable[..., None], content: bytes
) -> None:
    add("mine")
    store.activate("mine")
    (store.home / "active.json").write_bytes(content)
    assert store.active().shipped
    assert store.activate("mine").id == "mine"  # and it can be mended
    assert store.active().id == "mine"


# --- adding ---------------------------------------------------------------------------------


def test_an_id_is_given_once(
    store: ModelStore, random_model: Path, add: Callable[..., None]
) -> None:
    add("mine")
    before = files(store.home)
    for name in ("mine", store.active().id):
        with pytest.raises(InputError, match="already"):
            store.add(name, writer(random_model, name))
    assert files(store.home) == before


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b", "-x", "ä"])
def test_an_id_is_a_plain_name(store: ModelStore, random_model: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot name a model"):
        store.add(name, writer(random_model, name))
    assert not store.home.exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), Cancelled(), ValueError])
def test_a_write_that_fails_midway_leaves_the_store_as_it_was(
    store: ModelStore, add: Callable[..., None], error: type[Exception] | Exception
) -> None:
    add("one")
    store.activate("one")
    before = files(store.home)

    def write(folder: Path) -> None:
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"half")
        raise error

    with pytest.raises((InputError, Cancelled, ValueError)) as raised:
        store.add("two", write)
    if isinstance(error, OSError):
        assert isinstance(raised.value, InputError)
        assert "No space left" in str(raised.value)
    assert files(store.home) == before
    assert os.listdir(store.home / "models") == ["one"]


def test_what_a_crash_left_is_not_a_version(
    store: ModelStore, random_model: Path, add: Callable[..., None]
) -> None:
    add("one")
    shutil.copytree(random_model, store.home / "models" / ".two.1234.part")
    assert [info.id for info in store.models()[1:]] == ["one"]


def test_a_pointer_that_cannot_be_written_leaves_the_old_one(
    store: ModelStore, add: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    add("one")
    add("two")
    store.activate("one")

    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(InputError, match="Permission denied"):
        store.activate("two")
    monkeypatch.undo()
    assert store.active().id == "one"
    assert sorted(os.listdir(store.home)) == ["active.json", "models"]


def test_a_home_that_cannot_be_written_is_one_sentence(tmp_path: Path, random_model: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = ModelStore(tmp_path / "file" / "home")
    assert store.active().shipped  # reading goes on
    with pytest.raises(InputError, match="GITRACT_HOME"):
        store.add("mine", writer(random_model, "mine"))


def test_a_home_that_is_a_file_is_one_sentence(
    tmp_path: Path, random_model: Path, add: Callable[..., None], store: ModelStore
) -> None:
    add("mine")
    home = store.home
    blocked = ModelStore(tmp_path / "blocked")
    blocked.home.write_text("in the way")
    blocked._models = home / "models"
    with pytest.raises(InputError, match="could not be noted"):
        blocked.activate("mine")


# --- import, export, names ------------------------------------------------------------------


def test_an_exported_model_can_be_imported_elsewhere(
    store: ModelStore, add: Callable[..., None], tmp_path: Path
) -> None:
    add("mine")
    exported = store.export("mine", tmp_path / "deep" / "copy")
    assert files(exported) == files(store.find("mine").path)
    assert os.listdir(exported.parent) == ["copy"]
    other = ModelStore(tmp_path / "other")
    imported = other.import_model(exported)
    assert imported.id == "mine"
    assert other.active().shipped
    assert files(imported.path) == files(exported)
    with pytest.raises(InputError, match="already"):
        other.import_model(exported)


def test_export_replaces_nothing(
    store: ModelStore, add: Callable[..., None], tmp_path: Path
) -> None:
    add("mine")
    with pytest.raises(InputError, match="exists already"):
        store.export("mine", tmp_path)
    with pytest.raises(InputError, match="'yours'"):
        store.export("yours", tmp_path / "copy")
    (tmp_path / "mine.zip").write_bytes(b"somebody's")
    with pytest.raises(InputError, match="exists already"):
        store.export("mine", tmp_path / "mine.zip")
    assert (tmp_path / "mine.zip").read_bytes() == b"somebody's"


def test_only_what_belongs_to_a_model_is_copied(
    store: ModelStore, random_model: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(random_model, tmp_path / "model"))
    (folder / "patients.csv").write_text("private")
    imported = store.import_model(folder)
    assert sorted(os.listdir(imported.path)) == ["README.md", "config.json", "model.safetensors"]


def test_a_folder_without_weights_is_not_imported(
    store: ModelStore, random_model: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(random_model, tmp_path / "model"))
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"no model\.safetensors"):
        store.import_model(folder)
    with pytest.raises(InputError, match="not a model folder"):
        store.import_model(tmp_path / "absent")
    assert not store.home.exists()


def test_a_model_folder_can_be_used_where_it_lies(store: ModelStore, random_model: Path) -> None:
    assert store.find(random_model).id == "random"
    assert store.find(str(random_model)).path == random_model


def test_free_ids_are_tidy_and_count_on(store: ModelStore, add: Callable[..., None]) -> None:
    assert store.free_id("My Hospital, 2026!") == "my-hospital-2026"
    assert store.free_id("ß/../") == "model"
    add("mine")
    assert store.free_id("Mine") == "mine-v2"
    add("mine-v2")
    assert store.free_id("mine") == store.free_id("mine-v2") == "mine-v3"
    assert store.free_id(store.active().id).endswith("-v2")


def test_no_version_gets_the_id_of_a_parent_that_was_deleted(
    store: ModelStore, add: Callable[..., None]
) -> None:
    add("mine")
    add("child", parent="mine")
    store.delete("mine")
    assert store.free_id("mine") == "mine-v2"


def test_the_size_is_that_of_the_files(
    store: ModelStore, add: Callable[..., None], random_model: Path
) -> None:
    add("mine")
    (store.find("mine").path / "notes.txt").write_text("not of the model")
    weights = (random_model / "model.safetensors").stat().st_size
    assert weights < store.find("mine").size < weights + 5000
    assert store.models()[0].size > 1_000_000


# --- archives -------------------------------------------------------------------------------


def test_an_archive_is_the_model(
    store: ModelStore, add: Callable[..., None], tmp_path: Path
) -> None:
    add("mine")
    archive = store.export("mine", tmp_path / "deep" / "mine.zip")
    assert os.listdir(archive.parent) == ["mine.zip"]
    again = store.export("mine", tmp_path / "again.ZIP")
    assert again.read_bytes() == archive.read_bytes()  # one SHA-256 for one model
    other = ModelStore(tmp_path / "other")
    reports: list[int] = []
    imported = other.import_model(archive, lambda progress: reports.append(progress.done))
    assert files(imported.path) == files(store.find("mine").path)
    assert other.active().shipped
    assert reports
    with pytest.raises(InputError, match="already"):
        other.import_model(archive)
    for source, name in ((archive, "second"), (imported.path, "third")):
        renamed = other.import_model(source, name=name)
        assert (renamed.id, other.find(name).title) == (name, imported.title)
        assert files(renamed.path)["model.safetensors"] == files(imported.path)["model.safetensors"]
    with pytest.raises(InputError, match="cannot name a model"):
        other.import_model(archive, name="../fourth")


def test_a_folder_is_imported_by_the_same_call(
    store: ModelStore, random_model: Path, tmp_path: Path
) -> None:
    assert store.import_model(random_model).id == "random"
    with pytest.raises(InputError, match="not a model folder"):
        store.import_model(tmp_path / "absent")


def zipped(path: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("root", ["", "some folder/", "a/b/"])
def test_a_model_may_lie_anywhere_in_its_archive(
    store: ModelStore, random_model: Path, tmp_path: Path, root: str
) -> None:
    entries = {root + name: content for name, content in files(random_model).items()}
    more = {"__MACOSX/._config.json": b"", f"{root}patients.csv": b"private"}
    imported = store.import_model(zipped(tmp_path / "model.zip", entries | more))
    assert files(imported.path) == files(random_model)


@pytest.mark.parametrize(
    "name", ["../evil.txt", "a/../../evil.txt", "/evil.txt", "..\\evil.txt", "C:\\evil.txt"]
)
def test_an_archive_that_points_outside_is_refused(
    store: ModelStore, random_model: Path, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "deep" / "deeper"
    folder.mkdir(parents=True)
    archive = zipped(folder / "model.zip", {**files(random_model), name: b"evil"})
    with pytest.raises(InputError) as error:
        store.import_model(archive)
    assert_one_sentence(error, "model.zip", "evil.txt", "outside")
    assert not list(tmp_path.rglob("evil.txt"))
    assert len(store.models()) == 1


def test_an_archive_without_one_whole_model_is_refused(
    store: ModelStore, random_model: Path, tmp_path: Path
) -> None:
    content = files(random_model)
    broken = {
        "no config.json": {k: v for k, v in content.items() if k != "config.json"},
        "no model.safetensors": {k: v for k, v in content.items() if k != "model.safetensors"},
        "holds 2": {f"{n}/{k}": v for n in "ab" for k, v in content.items()},
        "far too large": {**content, "README.md": b" " * (17 << 20)},
        "cannot be used": {**content, "config.json": b"{}"},
    }
    for part, entries in broken.items():
        path = zipped(tmp_path / f"{part}.zip", entries)
        with pytest.raises(InputError) as error:
            store.import_model(path)
        assert_one_sentence(error, str(path), part)
    assert not store.home.exists()


def test_a_damaged_archive_is_refused(
    store: ModelStore, random_model: Path, tmp_path: Path
) -> None:
    whole = zipped(tmp_path / "whole.zip", files(random_model)).read_bytes()
    weights = files(random_model)["model.safetensors"][-64:]
    middle = whole.index(weights)
    for number, content in enumerate(
        [b"", b"no zip", whole[:-30], whole[:middle] + b"?" + whole[middle + 1 :]]
    ):
        path = tmp_path / f"{number}.zip"
        path.write_bytes(content)
        with pytest.raises(InputError) as error:
            store.import_model(path)
        assert_one_sentence(error, str(path), "damaged")
        assert len(store.models()) == 1
        assert not list(store.home.rglob("*.part"))


def test_a_cancelled_import_leaves_nothing(
    store: ModelStore, random_model: Path, tmp_path: Path
) -> None:
    archive = zipped(tmp_path / "model.zip", files(random_model))

    def cancel(_: object) -> None:
        raise Cancelled

    for source in (archive, random_model):
        with pytest.raises(Cancelled):
            store.import_model(source, cancel)
        assert os.listdir(store.home / "models") == []


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_a_disk_that_is_full_during_an_import_is_told_as_such(
    store: ModelStore, random_model: Path, tmp_path: Path, kind: str,
    small_disk: Callable[[int | None], None],
) -> None:  # fmt: skip
    archive = zipped(tmp_path / "model.zip", files(random_model))
    small_disk(1000)
    with pytest.raises(InputError) as error:
        store.import_model(archive if kind == "archive" else random_model)
    small_disk(None)
    assert_one_sentence(error, "could not be saved", "make room")
    assert os.listdir(store.home / "models") == []


def test_an_id_is_checked_before_there_is_a_model_for_it(
    store: ModelStore, add: Callable[..., None]
) -> None:
    add("mine")
    store.check_id("yours")
    for name, part in (("mine", "already"), (store.active().id, "already"), ("a b", "cannot name")):
        with pytest.raises(InputError, match=part) as error:
            store.check_id(name)
        assert_one_sentence(error, repr(name))
        store.check_id(store.free_id(name))


# --- deleting -------------------------------------------------------------------------------


def test_a_deleted_version_is_gone_and_those_made_of_it_stay(
    store: ModelStore, add: Callable[..., None]
) -> None:
    add("mine", created="2026-01-01")
    add("child", parent="mine", created="2026-01-02")
    add("grandchild", parent="child", created="2026-01-03")
    add("other", parent=store.active().id, created="2026-01-04")
    assert [info.id for info in store.descendants("mine")] == ["child", "grandchild"]
    question = store.deletion_question("mine")
    assert "child, grandchild" in question
    assert "MB" in question
    assert [info.id for info in store.delete("mine")] == ["child", "grandchild"]
    assert [info.id for info in store.models()[1:]] == ["child", "grandchild", "other"]
    assert store.find("child").parent == "mine"
    assert sorted(os.listdir(store.home / "models")) == ["child", "grandchild", "other"]
    assert "stays" not in store.deletion_question("other")
    assert store.delete("other") == []


def test_versions_that_name_each_other_as_parents_have_descendants(
    store: ModelStore, add: Callable[..., None]
) -> None:
    add("one", parent="two")
    add("two", parent="one")
    add("own", parent="own")
    assert [info.id for info in store.descendants("one")] == ["two"]
    assert store.descendants("own") == []


def test_what_is_in_use_is_not_deleted(store: ModelStore, add: Callable[..., None]) -> None:
    add("mine")
    store.activate("mine")
    before = files(store.home)
    shipped = store.models()[0].id
    for name, part in (
        ("mine", "activate another"),
        (shipped, "comes with the program"),
        ("absent", "'absent'"),
        ("../models/mine", "no model"),
        ("", "no model"),
    ):
        for act in (store.deletion_question, store.delete):
            with pytest.raises(InputError, match=part) as error:
                act(name)
            assert_one_sentence(error)
    assert files(store.home) == before


def test_a_damaged_version_can_be_deleted(store: ModelStore, add: Callable[..., None]) -> None:
    add("bad")
    (store.home / "models" / "bad" / "config.json").write_text("{")
    store.delete("bad")
    assert os.listdir(store.home / "models") == []


def test_a_new_version_with_the_name_of_a_deleted_one_was_never_active(
    store: ModelStore, add: Callable[..., None]
) -> None:
    for name in ("first", "second"):
        add(name)
        store.activate(name)
    store.delete("first")
    add("first")
    assert store.restore().shipped


def test_nothing_is_deleted_where_a_newer_version_chose_what_is_active(
    store: ModelStore, add: Callable[..., None]
) -> None:
    add("mine")
    (store.home / "active.json").write_text(json.dumps({"format": 2, "chosen": "mine"}))
    with pytest.raises(InputError, match="newer version"):
        store.delete("mine")
    assert store.find("mine").id == "mine"


def test_a_version_that_cannot_be_renamed_stays_whole(
    store: ModelStore, add: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    add("mine")
    before = files(store.home)

    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(InputError) as error:
        store.delete("mine")
    assert_one_sentence(error, "mine", "Permission denied")
    assert files(store.home) == before


def test_what_cannot_be_removed_now_is_removed_later(
    store: ModelStore, add: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        add(name)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # as on a busy Windows
    store.delete("one")
    assert [info.id for info in store.models()[1:]] == ["two"]
    monkeypatch.undo()
    store.delete("two")
    assert os.listdir(store.home / "models") == []


def test_only_what_nobody_writes_any_more_is_swept(
    store: ModelStore, add: Callable[..., None]
) -> None:
    add("one")
    models = store.home / "models"
    long_ago = time.time() - 2 * 24 * 3600
    for name, old in ((".old.1234.part", True), (".new.1234.part", False), (".at.1.part", True)):
        (models / name).mkdir()
        (models / name / "model.safetensors").write_bytes(b"half")
        if old:
            os.utime(models / name / "model.safetensors", (long_ago, long_ago))
            os.utime(models / name, (long_ago, long_ago))
    os.utime(models / ".at.1.part" / "model.safetensors")  # somebody writes on
    for name in (".active.1.part", ".active.2.part"):
        (store.home / name).write_text("{")
    os.utime(store.home / ".active.1.part", (long_ago, long_ago))
    add("two")
    assert sorted(os.listdir(models)) == [".at.1.part", ".new.1234.part", "one", "two"]
    assert sorted(os.listdir(store.home)) == [".active.2.part", "models"]


# Deletes one version of a store, and is killed at the operation whose number it is given.
KILLED = """
import os, sys
from pathlib import Path
from gitract.model_store import ModelStore

home = Path(sys.argv[1])
store = ModelStore(home)
for line in sys.stdin:
    left = int(line)
    worker = os.fork()
    if not worker:
        def count(event, arguments):
            global left
            if event in ("os.rename", "os.remove", "os.rmdir", "shutil.rmtree"):
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), 9)
        sys.addaudithook(count)
        store.delete("mine")
        os._exit(0)
    print(os.waitpid(worker, 0)[1], flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs to fork")
def test_a_kill_at_any_moment_of_a_deletion_leaves_all_or_nothing(
    store: ModelStore, add: Callable[..., None]
) -> None:
    add("kept")
    store.activate("kept")
    outcomes = []
    command = [sys.executable, "-c", KILLED, str(store.home)]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True, bufsize=1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        status = "9"
        while status != "0":
            if len(store.models()) == 2:
                add("mine")
            before = files(store.home / "models" / "mine")
            print(len(outcomes), file=process.stdin, flush=True)
            status = process.stdout.readline().strip()
            assert status in ("0", "9")
            there = "mine" in {info.id for info in store.models()}
            if there:
                assert files(store.find("mine").path) == before
            assert store.active().id == "kept"
            outcomes.append(there)
        process.stdin.close()
    assert outcomes[0] is True  # killed before anything was done
    assert outcomes[1:] == [False] * (len(outcomes) - 1)
    assert len(outcomes) > 4
    add("mine")
    assert sorted(os.listdir(store.home / "models")) == ["kept", "mine"]
