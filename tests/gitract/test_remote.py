"""A server on this machine: the same contours as without it, and nothing kept of them."""

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as any_arrays

from gitract.corrections import Corrections, CorrectionStore
from gitract.decision import TIDY
from gitract.errors import Cancelled, InputError, Stopped
from gitract.fine_tune import FineTuneSettings
from gitract.io import read_segmentation
from gitract.model_store import ModelStore
from gitract.organs import KNOWN_ORGANS, ORGANS
from gitract.phantom import abdomen, write_day
from gitract.predict import Segmenter
from gitract.progress import Progress
from gitract.remote.addresses import Address, known_addresses, server_devices, set_address
from gitract.remote.client import RemoteSegmenter, Server, fine_tune_on, open_segmenter
from gitract.remote.jobs import Jobs
from gitract.remote.server import create_app
from gitract.remote.wire import packed, unpacked
from gitract.remote.work import Workshop
from gitract.scan import Scan, Segmentation
from sentences import assert_one_sentence

TOKEN = "a token of the tests"
DEVICE = "server:gpu-room"


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop("cpu", tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="module")
def url(workshop: Workshop) -> Iterator[str]:
    """A server on loopback."""
    app = create_app(workshop, TOKEN, most_bytes=4 << 20)
    running = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port = running.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    running.should_exit = True
    thread.join(20)


@pytest.fixture
def home(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with the server in it."""
    monkeypatch.setenv("GITRACT_HOME", str(tmp_path / "home"))
    set_address("gpu-room", Address(url=url, token=TOKEN))
    return tmp_path / "home"


@pytest.fixture
def scan(phantom: tuple[Scan, Segmentation]) -> Scan:
    return phantom[0]


# --- the same as without a server -----------------------------------------------------------


def test_a_server_draws_the_same_contours(home: Path, trained: SimpleNamespace, scan: Scan) -> None:
    model = trained.result.model
    here = Segmenter(model, device="cpu", decision=TIDY).segment(scan, slices=range(2, 11))
    reports: list[Progress] = []
    remote = open_segmenter(model, device=DEVICE, decision=TIDY, report=reports.append)
    assert isinstance(remote, RemoteSegmenter)
    found = remote.segment(scan, slices=range(2, 11), report=reports.append)
    assert found.masks.any()
    np.testing.assert_array_equal(found.masks, here.masks)
    np.testing.assert_array_equal(found.affine, scan.affine)
    assert found.name == scan.name
    assert found.slice_numbers == scan.slice_numbers
    for key in ("model", "weights_sha256", "slices", "baseline", "decision"):
        assert found.provenance[key] == here.provenance[key]
    messages = [one.message for one in reports]
    assert "Sending the scan to gpu-room" in messages
    assert any(message.startswith("Segmented 9 of 9 slices") for message in messages)


def test_a_model_is_sent_once(home: Path, workshop: Workshop, trained: SimpleNamespace) -> None:
    config = Segmenter(trained.result.model, device="cpu").config
    open_segmenter(trained.result.model, device=DEVICE)
    assert workshop.knows(config.weights_sha256)
    reports: list[Progress] = []
    open_segmenter(trained.result.model, device=DEVICE, report=reports.append)
    assert reports == []


def test_probabilities_come_along_when_asked_for(
    home: Path, trained: SimpleNamespace, scan: Scan
) -> None:
    here = Segmenter(trained.result.model, device="cpu").segment_with_probabilities(scan)
    there = open_segmenter(trained.result.model, device=DEVICE).segment_with_probabilities(scan)
    np.testing.assert_array_equal(there[1], here[1])
    assert there[0].provenance["doubts"] == here[0].provenance["doubts"]


def corrected(phantom: tuple[Scan, Segmentation]) -> list[Corrections]:
    return [Corrections(*phantom, (4, 5, 9))]


def test_fine_tuning_on_a_server_gives_a_candidate_here(
    home: Path, trained: SimpleNamespace, phantom: tuple[Scan, Segmentation]
) -> None:
    store = ModelStore()
    store.import_model(trained.result.model)
    few = FineTuneSettings(steps=4, evaluate_every=2, parts=2)
    reports: list[Progress] = []
    candidate = fine_tune_on(
        DEVICE, corrected(phantom), model="tiny", settings=few, report=reports.append
    )
    assert candidate.card.held_out == (4, 5, 9)
    assert [row.organ.name for row in candidate.card.rows] == [
        "large_bowel", "small_bowel", "stomach",
    ]  # fmt: skip
    assert any("loss" in one.values for one in reports)
    here = fine_tune_on("cpu", corrected(phantom), model="tiny", settings=few)
    kept = candidate.keep("mine")
    assert kept.id == "mine"
    assert kept.parent == "tiny"
    assert candidate.card.as_dict() == here.card.as_dict()
    for one, other in ((candidate.before, here.before), (candidate.after, here.after)):
        np.testing.assert_array_equal(one[0].masks, other[0].masks)


def test_a_fine_tuning_that_is_stopped_keeps_the_best_so_far(
    home: Path, trained: SimpleNamespace, phantom: tuple[Scan, Segmentation]
) -> None:
    stopped = []

    def report(progress: Progress) -> None:
        if progress.values.get("dice") is not None and progress.done > 3 and not stopped:
            stopped.append(progress)
            raise Stopped

    many = FineTuneSettings(steps=100_000, evaluate_every=2, parts=2)
    candidate = fine_tune_on(
        DEVICE, corrected(phantom), model=trained.result.model, settings=many, report=report
    )
    assert "stopped early" in candidate.card.method


def two_patients(phantom: tuple[Scan, Segmentation]) -> list[Corrections]:
    """Three scans of two patients, of the first with an organ that the model does not know."""
    scan, truth = phantom
    masks = np.concatenate([truth.masks, truth.masks[2:, :, ::-1]])
    four = replace(
        truth, masks=masks, organs=(*ORGANS, KNOWN_ORGANS[3]),
        provenance={"unreviewed": {"5": ["stomach"]}, "rejected": [7], "scan": "Anna"},
    )  # fmt: skip
    found = [Corrections(scan, four, (4, 5, 9))]
    for seed, name in ((8, "Musterfrau_1"), (9, "Musterfrau_2")):
        another, contours = abdomen(scan.shape, seed=seed, name=name)
        another = replace(another, source=Path("archive-of-ward-7") / name, remarks=("Anna's.",))
        found.append(Corrections(another, contours, (3, 6), patient="Anna Musterfrau"))
    return found


def test_several_scans_and_what_was_kept_before_give_the_same_candidate_there(
    home: Path, trained: SimpleNamespace, phantom: tuple[Scan, Segmentation]
) -> None:
    store = ModelStore()
    store.import_model(trained.result.model)
    CorrectionStore(home).add(Corrections(*abdomen(phantom[0].shape, seed=5), (2, 8)))
    few = FineTuneSettings(steps=4, evaluate_every=2, parts=3, new_organ_steps=2)
    given = two_patients(phantom)
    there, here = (
        fine_tune_on(device, given, model="tiny", settings=few) for device in (DEVICE, "cpu")
    )
    assert there.card == here.card
    assert "2-fold" in there.card.method  # a patient is held out as a whole there as well
    assert there.card.scans == 3
    for pairs in (zip(there.before, here.before, strict=True),
                  zip(there.after, here.after, strict=True)):  # fmt: skip
        for one, other in pairs:
            np.testing.assert_array_equal(one.masks, other.masks)
            assert (one.name, one.organs) == (other.name, other.organs)
    kept = there.keep("mine")
    assert kept.organs == (*ORGANS, KNOWN_ORGANS[3])
    assert len(CorrectionStore(home).entries()) == 1 + len(given)
    found = Segmenter("mine", device="cpu").segment(phantom[0])
    np.testing.assert_array_equal(found.masks, there.after[0].masks)


def test_a_replay_folder_is_not_looked_for_on_a_server(
    home: Path, trained: SimpleNamespace, phantom: tuple[Scan, Segmentation], phantom_data: Path
) -> None:
    with pytest.raises(InputError) as error:
        fine_tune_on(DEVICE, corrected(phantom), model=trained.result.model, replay=phantom_data)
    assert_one_sentence(error, "replay folder", DEVICE)


# --- nothing is left behind -----------------------------------------------------------------


def test_cancelling_here_ends_the_job_there(
    home: Path, url: str, trained: SimpleNamespace, phantom: tuple[Scan, Segmentation]
) -> None:
    def report(progress: Progress) -> None:
        if "loss" in progress.values:
            raise Cancelled

    many = FineTuneSettings(steps=100_000, evaluate_every=2, parts=2)
    with pytest.raises(Cancelled):
        fine_tune_on(
            DEVICE, corrected(phantom), model=trained.result.model, settings=many, report=report
        )
    begin = time.monotonic()  # the next one does not wait for a hundred thousand steps
    open_segmenter(trained.result.model, device=DEVICE).segment(phantom[0])
    assert time.monotonic() - begin < 300


def test_the_server_keeps_no_scan_and_no_contours(
    home: Path, workshop: Workshop, trained: SimpleNamespace, scan: Scan
) -> None:
    open_segmenter(trained.result.model, device=DEVICE).segment(scan)
    kept = [path for path in workshop._folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in kept} <= {".json", ".safetensors", ".onnx", ".torch"}


def test_nothing_that_names_a_patient_is_sent(
    home: Path, trained: SimpleNamespace, scan: Scan, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = listened_to(monkeypatch)
    open_segmenter(trained.result.model, device=DEVICE).segment(scan)
    assert scan.name == "case7_day0"
    assert not any(b"case7" in body for body in sent)


def listened_to(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """All that is sent to a server."""
    sent: list[bytes] = []
    call = Server._call

    def listening(self: Server, method: str, path: str, body: bytes | None = None) -> bytes:
        sent.append(path.encode() + (body or b""))
        return call(self, method, path, body)

    monkeypatch.setattr(Server, "_call", listening)
    return sent


def test_nothing_that_names_a_patient_is_sent_to_learn_from(
    home: Path, trained: SimpleNamespace, phantom: tuple[Scan, Segmentation],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    given = two_patients(phantom)
    CorrectionStore(home).add(given.pop())
    sent = listened_to(monkeypatch)
    few = FineTuneSettings(steps=2, evaluate_every=2, parts=2, new_organ_steps=0)
    fine_tune_on(DEVICE, given, model=trained.result.model, settings=few)
    told = [body for body in sent if b"voxels2" in body]  # arrays are compressed, words are not
    assert len(told) == 1
    for name in ("case7", "Musterfrau", "Anna", "archive-of-ward-7"):
        assert not any(name.encode() in body for body in sent), name


def test_a_result_is_given_once(url: str, workshop: Workshop, scan: Scan) -> None:
    server = Server("here", Address(url=url, token=TOKEN))
    shipped = ModelStore(workshop._folder / "store").find()
    content = {
        "kind": "segment", "model": Segmenter(shipped.path, device="cpu").config.weights_sha256,
        "spacing": [3.0, 2.4, 2.4], "affine": scan.affine.tolist(), "slices": [3], "first": None,
        "decision": {}, "views": {}, "probabilities": False,
    }  # fmt: skip
    job = json.loads(server._call("POST", "jobs", packed(content, {"voxels": scan.voxels})))["job"]
    while json.loads(server._call("GET", f"jobs/{job}"))["state"] != "done":
        time.sleep(0.05)
    assert server._call("GET", f"jobs/{job}/result")
    with pytest.raises(InputError, match="any more"):
        server._call("GET", f"jobs/{job}/result")


# --- what is refused ------------------------------------------------------------------------


def test_without_the_token_nobody_gets_in(url: str) -> None:
    for token in ("another token", ""):
        with pytest.raises(InputError) as error:
            Server("here", Address(url=url, token=token)).about()
        assert_one_sentence(error, "token")
    assert Server("here", Address(url=url, token=TOKEN)).about()["device"] == "cpu"


def test_a_scan_that_is_too_large_is_refused(home: Path, trained: SimpleNamespace) -> None:
    noise = np.random.default_rng(0).integers(0, 60_000, (60, 300, 300)).astype(np.uint16)
    with pytest.raises(InputError) as error:
        open_segmenter(trained.result.model, device=DEVICE).segment(Scan(noise, (3.0, 1.5, 1.5)))
    assert "4 MB" in str(error.value) or "does not answer" in str(error.value)


def test_a_bad_scan_gets_the_sentence_that_it_gets_here(
    home: Path, trained: SimpleNamespace, scan: Scan
) -> None:
    with pytest.raises(InputError) as error:
        open_segmenter(trained.result.model, device=DEVICE).segment(scan, slices=[40])
    assert_one_sentence(error, "Slice 40", "0 to 11")


@pytest.mark.parametrize(
    ("device", "part"),
    [("server:elsewhere", "'elsewhere'"), ("server:", "''")],
)
def test_a_server_that_nobody_added_is_named(home: Path, device: str, part: str) -> None:
    with pytest.raises(InputError) as error:
        open_segmenter(device=device)
    assert_one_sentence(error, part, "gpu-room")


def test_a_server_that_is_down_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITRACT_HOME", str(tmp_path))
    set_address("down", Address(url="http://127.0.0.1:9", token=TOKEN))
    with pytest.raises(InputError) as error:
        open_segmenter(device="server:down")
    assert_one_sentence(error, "127.0.0.1:9", "gitract serve")


def test_several_models_are_not_for_a_server(home: Path) -> None:
    with pytest.raises(InputError, match="one model"):
        open_segmenter(["a", "b"], device=DEVICE)


@pytest.mark.parametrize(
    "message",
    [
        b"", b"\x00" * 40, b"\xff" * 8 + b"{}", packed({})[:9],
        packed({"kind": "dance"}), packed({"kind": "segment"}, {"voxels": np.zeros((2, 2, 2))}),
    ],
)  # fmt: skip
def test_messages_that_are_none_are_refused(url: str, message: bytes) -> None:
    with pytest.raises(InputError, match="message|version"):
        Server("here", Address(url=url, token=TOKEN))._call("POST", "jobs", message)


def test_damaged_weights_are_refused(url: str, trained: SimpleNamespace) -> None:
    config = Segmenter(trained.result.model, device="cpu").config.model_dump(mode="json")
    message = packed({"config": config}, {"weights": np.zeros(100, np.uint8)})
    with pytest.raises(InputError, match="damaged"):
        Server("here", Address(url=url, token=TOKEN))._call("POST", "models", message)


# --- the parts ------------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    array=any_arrays(
        st.sampled_from(["?", "u1", "<u2", ">u2", "<i4", "<f2", "<f4", ">f8"]),
        st.tuples(st.integers(0, 3), st.integers(0, 4)),
    ),
    text=st.text(max_size=20),
)
def test_a_message_comes_out_as_it_went_in(array: np.ndarray, text: str) -> None:
    content, found = unpacked(packed({"text": text}, {"one": array, "two": array.T}), most=1000)
    assert content == {"text": text}
    np.testing.assert_array_equal(found["one"], array)
    np.testing.assert_array_equal(found["two"], array.T)
    assert found["one"].dtype == array.dtype.newbyteorder("<")


def test_a_small_message_cannot_fill_the_memory() -> None:
    with pytest.raises(InputError, match="too large"):
        unpacked(packed({}, {"zeros": np.zeros(10_000_000, np.uint8)}), most=1_000_000)


def test_a_job_that_nobody_asks_about_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gitract.remote.jobs._SILENT_FOR_S", 0.1)
    jobs, ended = Jobs(), threading.Event()

    def work(report: Any) -> bytes:
        try:
            while True:
                report(Progress(0, 0))
                time.sleep(0.02)
        finally:
            ended.set()

    jobs.start(work)
    assert ended.wait(10)
    jobs.close()


def test_a_result_that_nobody_fetches_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gitract.remote.jobs._FORGOTTEN_AFTER_S", 0.3)
    jobs = Jobs()
    job = jobs.start(lambda _: b"contours")
    until = time.monotonic() + 10
    while jobs.find(job.id) is not None and time.monotonic() < until:
        time.sleep(0.02)
    assert job.state == "done"
    assert jobs.find(job.id) is None
    jobs.close()


def test_addresses_are_for_the_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITRACT_HOME", str(tmp_path / "home"))
    assert server_devices() == []
    set_address("one", Address(url="https://gpu.example:8765", token=TOKEN))
    assert server_devices() == ["server:one"]
    assert known_addresses()["one"].token == TOKEN
    mode = (tmp_path / "home" / "servers.json").stat().st_mode
    assert os.name == "nt" or stat.S_IMODE(mode) == 0o600


@pytest.mark.parametrize(
    ("name", "url"), [("a b", "https://x"), ("a", "x:1"), ("a", "ftp://x"), ("a", "http://x/y")]
)
def test_addresses_that_are_none_are_refused(tmp_path: Path, name: str, url: str) -> None:
    with pytest.raises(InputError):
        set_address(name, Address(url=url, token=TOKEN), tmp_path)
    assert known_addresses(tmp_path) == {}


# --- on the command line --------------------------------------------------------------------


def certificate_for_this_machine(folder: Path) -> tuple[Path, Path]:
    """A certificate that signs itself, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """`gitract serve` with https in a process of its own: its URL, and the certificate."""
    certificate, key = certificate_for_this_machine(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "gitract.cli", "serve", "--port", port, "--device", "cpu",
               "--host", "localhost", "--certificate", certificate, "--key", key]  # fmt: skip
    server = subprocess.Popen(
        [str(part) for part in command], env=os.environ | {"GITRACT_TOKEN": TOKEN},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stderr is not None
    assert "Serving on https" in server.stderr.readline()
    yield f"https://localhost:{port}", certificate
    server.terminate()
    server.wait(30)


def test_a_scan_goes_to_a_server_and_comes_back_by_commands_alone(
    cli: Any, served: tuple[str, Path], tmp_path: Path,
    phantom: tuple[Scan, Segmentation], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("GITRACT_HOME", str(tmp_path / "home"))
    url, certificate = served
    added = ["servers", "add", "box", url, "--token", TOKEN]
    for _ in range(100):  # until it listens
        result = cli(*added, "--certificate", certificate)
        if result.code == 0:
            break
        time.sleep(0.2)
    assert "server:box is there: cpu" in result.out
    assert "CERTIFICATE_VERIFY_FAILED" in cli(*added).err  # nobody else vouches for it
    assert cli(*added, "--certificate", certificate).code == 0
    assert "server:box" in cli("servers", "list").out
    assert TOKEN not in cli("servers", "list", "--json").out
    day = write_day(tmp_path / "data", *phantom)
    result = cli("segment", day, "-o", tmp_path / "out.tif", "--device", "server:box", "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["device"] == "server:box"
    here = Segmenter(device="cpu").segment(phantom[0])
    np.testing.assert_array_equal(
        read_segmentation(tmp_path / "out.tif").labels().array, here.labels().array
    )
    assert cli("servers", "remove", "box").code == 0
    assert server_devices() == []


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--certificate", "nowhere.pem"], "--key"),
        (["--certificate", "nowhere.pem", "--key", "nowhere.pem"], "nowhere.pem"),
        (["--token-file", "nowhere.txt"], "nowhere.txt"),
        (["--device", "abacus"], "abacus"),
    ],
)
def test_a_server_that_cannot_begin_says_why(cli: Any, options: list[str], part: str) -> None:
    result = cli("serve", *options)
    assert result.code == 2
    assert part in result.err


def test_a_short_token_is_refused(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITRACT_TOKEN", "short")
    result = cli("serve")
    assert result.code == 2
    assert "16 characters" in result.err
