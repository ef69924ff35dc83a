"""Whatever ends a fine-tuning, the store is as it was before it or as it is after it."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from gitract.corrections import Corrections, CorrectionStore
from gitract.errors import InputError
from gitract.fine_tune import Candidate, FineTuneSettings, fine_tune
from gitract.model_config import ModelConfig, NetworkConfig, Preparation
from gitract.model_store import ModelStore
from gitract.models import load_network, save_model
from gitract.models.weights import build_network
from gitract.phantom import abdomen
from gitract.predict import Segmenter
from gitract.scan import Scan, Segmentation
from sentences import assert_one_sentence

SLICES = (3, 6, 9)
SHAPE = (12, 40, 44)
QUICK = FineTuneSettings(steps=2, evaluate_every=2, parts=2, batch_size=2)

# Begins anew whenever it is told to, in a process of its own that can be killed.
WORKER = """
import os, signal, sys
from pathlib import Path
from gitract.corrections import Corrections
from gitract.fine_tune import FineTuneSettings, fine_tune
from gitract.model_store import ModelStore
from gitract.phantom import abdomen

home, model = map(Path, sys.argv[1:])
store = ModelStore(home)
settings = FineTuneSettings(steps=2, evaluate_every=2, parts=2, batch_size=2)
given = Corrections(*abdomen((12, 40, 44), seed=7, name="case7_day0"), (3, 6, 9))

def tuned():
    return fine_tune([given], model=model, device="cpu", settings=settings, store=store)

tuned()  # what is loaded once is loaded now
for line in sys.stdin:
    rounds = int(line)
    worker = os.fork()
    if not worker:
        signal.alarm(100)  # whatever happens, nobody waits for it for ever
        for _ in range(rounds):
            tuned().keep("v")
        os._exit(0)
    print(worker, flush=True)
    print(os.waitpid(worker, 0)[1], flush=True)
"""


@pytest.fixture(scope="session")
def given(phantom: tuple[Scan, Segmentation]) -> Corrections:
    return Corrections(*phantom, SLICES)


@pytest.fixture
def candidate(trained: SimpleNamespace, given: Corrections, store: ModelStore) -> Candidate:
    """One that was fine-tuned from a version that was accepted before."""
    if not store.home.exists():
        store.import_model(trained.result.model)
        store.activate("tiny")
    return fine_tune([given], device="cpu", settings=QUICK, store=store)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def versions(store: ModelStore) -> list[str]:
    return [info.id for info in store.models()]


def assert_sound(store: ModelStore, scan: Scan, without: Collection[str] = ()) -> None:
    """Every version that is listed is whole, but for some not looked at; the active one works."""
    active = store.active()
    assert active.id in versions(store)
    for info in store.models()[1:]:
        if info.id not in without:
            load_network(info.path)  # compares the weights with their hash
    if not active.shipped:  # which is slow
        found = Segmenter(active.id, device="cpu", store=store).segment(scan, slices=[5])
        assert found.shape == scan.shape
    for one in CorrectionStore(store.home).load():
        assert one.slices == SLICES


# --- every step -----------------------------------------------------------------------------


class Killed(BaseException):
    """What no code of ours catches."""


class DyingDisk:
    """Lets so many operations pass; the one after them never happens."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, passed: int, error: BaseException) -> None:
        self.left = passed
        self.error = error
        for name in ("open", "mkdir", "rename", "replace", "write_text", "write_bytes"):
            monkeypatch.setattr(Path, name, self.counted(getattr(Path, name)))

    def counted(self, operation: Callable) -> Callable:
        def do(path: Path, *arguments: object, **more: object) -> object:
            reads = operation.__name__ == "open" and (*arguments, "r")[0] in ("r", "rb")
            if not reads and self.left == 0:
                raise self.error
            self.left -= not reads
            return operation(path, *arguments, **more)

        return do


def test_every_step_of_keeping_may_be_the_last(
    candidate: Candidate, store: ModelStore, phantom: tuple[Scan, Segmentation]
) -> None:
    before = versions(store)
    seen = set()
    for steps in range(60):
        with pytest.MonkeyPatch.context() as monkeypatch:
            disk = DyingDisk(monkeypatch, steps, Killed())
            with suppress(Killed):
                candidate.keep("mine")
        assert_sound(store, phantom[0])
        added = set(versions(store)) - set(before)
        corrections = len(CorrectionStore(store.home).entries())
        seen.add((corrections, len(added), store.active().id == "tiny"))
        if disk.left > 0:
            break
        for name in added:  # killed after it was added and before it was active
            store.activate(name)
            assert_sound(store, phantom[0])
            return_to(store, "tiny")
            remove(store, name)
    else:
        pytest.fail("keeping never came to its end")
    # nothing, the corrections alone, a version that is not active yet, all
    assert seen == {(0, 0, True), (1, 0, True), (1, 1, True), (1, 1, False)}


def return_to(store: ModelStore, name: str) -> None:
    store.activate(name)
    assert store.active().id == name


def remove(store: ModelStore, name: str) -> None:
    folder = store.find(name).path
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


def test_a_full_disk_is_one_sentence_and_there_is_another_try(
    candidate: Candidate, store: ModelStore, phantom: tuple[Scan, Segmentation]
) -> None:
    before, files = versions(store), contents(store.home)
    for steps in range(60):
        with pytest.MonkeyPatch.context() as monkeypatch:
            disk = DyingDisk(monkeypatch, steps, OSError(28, "No space left on device"))
            try:
                kept = candidate.keep("mine")
                break
            except InputError as error:
                assert str(error).count(".") - str(error).count(".json") <= 1
                assert "No space left on device" in str(error)
        assert disk.left == 0
        assert store.active().id == "tiny"
        left = {name: data for name, data in contents(store.home).items() if "corr" not in name}
        if set(versions(store)) == set(before):
            assert left == files  # no part of a version is left
        else:  # added, and the note of the active one did not fit any more
            [name] = set(versions(store)) - set(before)
            remove(store, name)
    assert steps > 5
    assert store.active() == kept
    assert_sound(store, phantom[0])


def test_weights_that_do_not_fit_on_the_disk_leave_the_store_as_it_was(
    candidate: Candidate, given: Corrections, store: ModelStore,
    small_disk: Callable[[int | None], None],
) -> None:  # fmt: skip
    CorrectionStore(store.home).add(given)  # these fit
    before = contents(store.home)
    weights = len(before[str(Path("models") / "tiny" / "model.safetensors")])
    corrections = max(len(data) for name, data in before.items() if name.endswith(".npz"))
    if corrections < weights:
        small_disk(weights - 1)
        with pytest.raises(InputError) as error:
            candidate.keep("mine")
        assert_one_sentence(error, "could not be saved", "GITRACT_HOME")
    small_disk(min(weights, corrections) // 2)
    with pytest.raises(InputError) as error:
        candidate.keep("mine")
    assert_one_sentence(error, "could not be", "GITRACT_HOME")
    small_disk(None)
    assert contents(store.home) == before
    assert candidate.keep("mine").id == "mine"


def test_a_store_that_cannot_be_written_is_one_sentence(
    trained: SimpleNamespace, given: Corrections, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    store = ModelStore(tmp_path / "file")
    candidate = fine_tune(
        [given], model=trained.result.model, device="cpu", settings=QUICK, store=store
    )  # fmt: skip
    with pytest.raises(InputError) as error:
        candidate.keep("mine")
    assert_one_sentence(error, "GITRACT_HOME")
    assert store.active().shipped


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="rights do not bind an administrator"
)
def test_a_protected_store_is_one_sentence_and_can_be_used(
    candidate: Candidate, store: ModelStore, phantom: tuple[Scan, Segmentation]
) -> None:
    folders = [store.home, *(path for path in store.home.rglob("*") if path.is_dir())]
    before = contents(store.home)
    for folder in folders:
        folder.chmod(0o555)
    try:
        with pytest.raises(InputError) as error:
            candidate.keep("mine")
        assert_one_sentence(error, "Permission denied")
        assert_sound(store, phantom[0])
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert contents(store.home) == before


# --- two at once ----------------------------------------------------------------------------


def test_a_version_that_another_process_adds_meanwhile_takes_nothing_from_this_one(
    candidate: Candidate, given: Corrections, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = fine_tune([given], model="tiny", device="cpu", settings=QUICK, store=store)
    waiting = [other]

    def slow(*arguments: object) -> object:
        if waiting:
            waiting.pop().keep("mine")
        return save_model(*arguments)

    monkeypatch.setattr("gitract.fine_tune.candidate.save_model", slow)
    assert candidate.keep("mine").id == "mine-v2"
    assert sorted(versions(store)[-2:]) == ["mine", "mine-v2"]  # perhaps of the same second
    assert store.active().id == "mine-v2"
    assert store.restore().id == "mine"
    assert [path.name for path in (store.home / "models").iterdir() if path.name[0] == "."] == []


class Worker:
    """A process that starts fine-tunings which are kept, each in a process to be killed."""

    def __init__(self, folder: Path) -> None:
        # Of a process with several threads a fork has one alone, and waits for the others.
        one_thread = dict.fromkeys(["OMP_NUM_THREADS", "MKL_NUM_THREADS"], "1")
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, folder / "home", folder / "start"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **one_thread, "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip

    def begin(self, rounds: int) -> int:
        """Keep so many candidates, one after the other; the number of the process."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{rounds}\n")
        self._process.stdin.flush()
        return self._line()

    def ended(self) -> int:
        """How it ended: 0, or the signal that killed it."""
        return self._line()

    def _line(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the workers' store is, and a model to start from beside it."""
    folder = tmp_path_factory.mktemp("workers")
    torch.manual_seed(0)
    config = ModelConfig(
        id="start", title="Start", preparation=Preparation(pixel_mm=8.0),
        network=NetworkConfig(name="unet", options={"width": 8, "depth": 2}),
    )  # fmt: skip
    save_model(build_network(config), config, "# Start\n", folder / "start")
    return folder / "home"


@pytest.fixture(scope="module")
def workers(home: Path) -> Iterator[list[Worker]]:
    if sys.platform != "linux":
        pytest.skip("elsewhere a process that has loaded torch is not forked safely")
    found = [Worker(home.parent) for _ in range(2)]
    yield found
    for worker in found:
        worker.close()


def test_processes_that_keep_at_once_have_both_kept(home: Path, workers: list[Worker]) -> None:
    store = ModelStore(home)
    for _ in range(2):
        before = set(versions(store))
        for worker in workers:
            worker.begin(2)
        assert [worker.ended() for worker in workers] == [0, 0]
        added = set(versions(store)) - before
        assert len(added) == 4
        assert store.active().id in added
        assert len(CorrectionStore(home).entries()) == 1
    assert_sound(store, abdomen(SHAPE, seed=7)[0])


def test_a_kill_at_any_moment_leaves_a_store_that_works(home: Path, workers: list[Worker]) -> None:
    store, scan, worker = ModelStore(home), abdomen(SHAPE, seed=7)[0], workers[0]
    worker.begin(0)
    assert worker.ended() == 0  # it has started
    begin = time.monotonic()
    worker.begin(1)
    assert worker.ended() == 0
    usual = time.monotonic() - begin
    moments, first = random.Random(0), versions(store)
    kills = 0
    while kills < 12 or len(versions(store)) == len(first):
        kills += 1
        assert kills < 60, "none was kept"
        before, active = set(versions(store)), store.active().id
        killed = worker.begin(1000)
        time.sleep(moments.uniform(0.2, 1.8) * usual * max(1, kills / 12))
        os.kill(killed, signal.SIGKILL)
        assert worker.ended() == signal.SIGKILL
        added = set(versions(store)) - before
        assert before <= set(versions(store))
        assert store.active().id in {active, *added}
        assert_sound(store, scan, without=before)
        assert len(CorrectionStore(home).load()) == 1
    worker.begin(1)
    assert worker.ended() == 0  # and it can be kept on


# --- a newer version ------------------------------------------------------------------------


def test_a_pointer_of_a_newer_version_is_left_as_it_is(
    candidate: Candidate, store: ModelStore, phantom: tuple[Scan, Segmentation]
) -> None:
    pointer = store.home / "active.json"
    newer = json.dumps({"format": 2, "chosen": {"stomach": "tiny"}})
    pointer.write_text(newer)
    assert store.active().shipped
    assert versions(store)[-1] == "tiny"
    for act in (lambda: candidate.keep("mine"), lambda: store.activate("tiny")):
        with pytest.raises(InputError) as error:
            act()
        assert_one_sentence(error, "active.json", "newer version", "update napari-gitract")
        assert pointer.read_text() == newer
    assert_sound(store, phantom[0])
    found = Segmenter("tiny", device="cpu", store=store).segment(phantom[0], slices=[5])
    assert found.provenance["model"] == "tiny"


def test_a_model_of_a_newer_version_is_left_as_it_is(
    candidate: Candidate, store: ModelStore, phantom: tuple[Scan, Segmentation]
) -> None:
    kept = candidate.keep("mine")
    path = kept.path / "config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "format": 2, "new_key": True}))
    before = contents(kept.path)
    assert versions(store)[-1] == "tiny"
    assert store.active().id == "tiny"  # what was active before it
    for act in (lambda: store.find("mine"), lambda: Segmenter("mine", device="cpu", store=store)):
        with pytest.raises(InputError) as error:
            act()
        assert_one_sentence(error, "newer version", "update napari-gitract")
    assert candidate.keep("mine").id == "mine-v2"
    assert contents(kept.path) == before
    assert_sound(store, phantom[0])
