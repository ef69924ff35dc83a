"""Installed models: versions, which one is active, and what a crash leaves."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gitract.errors import Cancelled, InputError
from gitract.home import default_home
from gitract.model_store import ModelStore


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
    for name in ("one", "two"):
        add(name)
        assert store.activate(name).id == name
        assert ModelStore(store.home).active().id == name  # it is on disk
    assert store.restore().id == "one"
    assert store.restore().id == shipped
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
    imported = other.import_folder(exported)
    assert imported.id == "mine"
    assert other.active().shipped
    assert files(imported.path) == files(exported)
    with pytest.raises(InputError, match="already"):
        other.import_folder(exported)


def test_export_replaces_nothing(
    store: ModelStore, add: Callable[..., None], tmp_path: Path
) -> None:
    add("mine")
    with pytest.raises(InputError, match="exists already"):
        store.export("mine", tmp_path)
    with pytest.raises(InputError, match="'yours'"):
        store.export("yours", tmp_path / "copy")


def test_only_what_belongs_to_a_model_is_copied(
    store: ModelStore, random_model: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(random_model, tmp_path / "model"))
    (folder / "patients.csv").write_text("private")
    imported = store.import_folder(folder)
    assert sorted(os.listdir(imported.path)) == ["README.md", "config.json", "model.safetensors"]


def test_a_folder_without_weights_is_not_imported(
    store: ModelStore, random_model: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(random_model, tmp_path / "model"))
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"no model\.safetensors"):
        store.import_folder(folder)
    with pytest.raises(InputError, match="not a model folder"):
        store.import_folder(tmp_path / "absent")
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
