"""Models from a catalogue: downloads that go on, and files that are not what was promised."""

import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gitract.errors import Cancelled, InputError
from gitract.model_catalogue import read_catalogue
from gitract.model_download import download, download_model, downloaded_bytes
from gitract.model_store import ModelStore
from gitract.progress import Progress
from sentences import assert_one_sentence

CONTENT = os.urandom(1 << 20)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Website:
    """A server of files, which can be told to behave badly."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    wrong_range: bool = False
    cut_after: int | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)
    answered: list[int] = field(default_factory=list)  # bytes, told before the first is on its way

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range", "")
        self.asked.append((handler.path, asked))
        content = self.files.get(handler.path.rpartition("/")[2])
        if content is None:
            handler.send_error(404)
            return
        begin = int(asked[len("bytes=") :].rstrip("-")) if asked and self.ranges else 0
        if begin >= len(content) > 0:
            self.answered.append(0)
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(content)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        if asked and self.wrong_range:
            begin = 0
        end = len(content) if self.cut_after is None else begin + self.cut_after
        part = content[begin:end]
        self.answered.append(len(part))
        handler.send_response(206 if asked and self.ranges else 200)
        if asked and self.ranges:
            told = f"bytes {begin}-{len(content) - 1}/{len(content)}"
            handler.send_header("Content-Range", told)
        handler.send_header("Content-Length", str(len(content) - begin))
        handler.end_headers()
        handler.wfile.write(part)


@pytest.fixture
def website() -> Iterator[Website]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802 - the library's name
            found.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Website(f"http://127.0.0.1:{server.server_port}")
    found.files["file.zip"] = CONTENT
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "GITRACT_MODELS"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


class CancelAfter:
    """A report that ends the job once so many kilobytes have come."""

    def __init__(self, kilobytes: int) -> None:
        self._kilobytes = kilobytes

    def __call__(self, progress: Progress) -> None:
        if progress.done >= self._kilobytes:
            raise Cancelled


# --- one file -------------------------------------------------------------------------------


def test_a_file_is_downloaded_once(website: Website, tmp_path: Path) -> None:
    reports: list[Progress] = []
    address = f"{website.url}/file.zip"
    path = download(address, sha256=SHA256.upper(), folder=tmp_path / "a", report=reports.append)
    assert path.read_bytes() == CONTENT
    assert os.listdir(tmp_path / "a") == [path.name]
    assert path.name.endswith("file.zip")
    assert [one.done for one in reports] == sorted(one.done for one in reports)
    assert reports[-1].done == len(CONTENT) // 1000
    assert reports[-1].total == -(-len(CONTENT) // 1000)
    assert "file.zip" in reports[-1].message
    assert download(address, sha256=SHA256, folder=tmp_path / "a") == path
    assert len(website.asked) == 1


def test_a_file_needs_its_sha256(website: Website, tmp_path: Path) -> None:
    for missing in (None, "", " "):
        with pytest.raises(InputError) as error:
            download(f"{website.url}/file.zip", sha256=missing, folder=tmp_path)
        assert_one_sentence(error, "SHA-256", "sha256sum FILE", "file.zip")
    for wrong in ("abc", "g" * 64, SHA256 + "0", f"md5:{SHA256}"):
        with pytest.raises(InputError, match="64 hexadecimal digits"):
            download(f"{website.url}/file.zip", sha256=wrong, folder=tmp_path)
    assert website.asked == []


def test_a_file_with_another_sha256_is_removed(website: Website, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        download(f"{website.url}/file.zip", sha256="0" * 64, folder=tmp_path)
    assert_one_sentence(error, "file.zip", "000000000000…")
    assert os.listdir(tmp_path) == []


def test_a_cancelled_download_goes_on(website: Website, tmp_path: Path) -> None:
    address = f"{website.url}/file.zip"
    with pytest.raises(Cancelled):
        download(address, sha256=SHA256, folder=tmp_path, report=CancelAfter(400))
    (part,) = tmp_path.iterdir()
    arrived = part.stat().st_size
    assert 400_000 <= arrived < len(CONTENT)
    first: list[Progress] = []
    path = download(address, sha256=SHA256, folder=tmp_path, report=first.append)
    assert path.read_bytes() == CONTENT
    assert website.answered == [len(CONTENT), len(CONTENT) - arrived]
    assert website.asked[-1][1] == f"bytes={arrived}-"
    assert first[0].done == arrived // 1000  # and the bar begins there
    assert os.listdir(tmp_path) == [path.name]


def test_a_download_that_was_cut_off_goes_on(website: Website, tmp_path: Path) -> None:
    address = f"{website.url}/file.zip"
    website.cut_after = 300_000
    for _ in range(3):
        with pytest.raises(InputError) as error:
            download(address, sha256=SHA256, folder=tmp_path)
        assert_one_sentence(error, "127.0.0.1", "was cut", "try again")
    website.cut_after = None
    assert download(address, sha256=SHA256, folder=tmp_path).read_bytes() == CONTENT
    overhead = sum(website.answered) - len(CONTENT)
    assert overhead < 3 * (1 << 16)  # of a chunk that was cut, nothing is kept


def test_a_server_that_sends_whole_files_alone_does(website: Website, tmp_path: Path) -> None:
    address = f"{website.url}/file.zip"
    with pytest.raises(Cancelled):
        download(address, sha256=SHA256, folder=tmp_path, report=CancelAfter(700))
    website.ranges = False
    with pytest.raises(Cancelled):  # again, before it is as far as it was
        download(address, sha256=SHA256, folder=tmp_path, report=CancelAfter(300))
    assert download(address, sha256=SHA256, folder=tmp_path).read_bytes() == CONTENT


def test_a_server_that_sends_another_part_is_asked_for_all(
    website: Website, tmp_path: Path
) -> None:
    address = f"{website.url}/file.zip"
    with pytest.raises(Cancelled):
        download(address, sha256=SHA256, folder=tmp_path, report=CancelAfter(200))
    website.wrong_range = True
    assert download(address, sha256=SHA256, folder=tmp_path).read_bytes() == CONTENT
    assert website.asked[-1][1] == ""


def test_a_download_that_was_cancelled_at_its_end_is_complete(
    website: Website, tmp_path: Path
) -> None:
    address = f"{website.url}/file.zip"
    with pytest.raises(Cancelled):
        download(address, sha256=SHA256, folder=tmp_path, report=CancelAfter(len(CONTENT) // 1000))
    assert download(address, sha256=SHA256, folder=tmp_path).read_bytes() == CONTENT
    assert website.answered == [len(CONTENT), 0]


@pytest.mark.parametrize("length", [100, 2 << 20])
def test_a_part_of_something_else_is_noticed_and_the_next_attempt_is_whole(
    website: Website, tmp_path: Path, length: int
) -> None:
    address = f"{website.url}/file.zip"
    with pytest.raises(Cancelled):
        download(address, sha256=SHA256, folder=tmp_path, report=CancelAfter(100))
    (part,) = tmp_path.iterdir()
    part.write_bytes(b"?" * length)
    if length < len(CONTENT):
        with pytest.raises(InputError, match="not the one that was promised"):
            download(address, sha256=SHA256, folder=tmp_path)
        assert os.listdir(tmp_path) == []
    assert download(address, sha256=SHA256, folder=tmp_path).read_bytes() == CONTENT


def test_two_downloads_of_a_file_at_once_do_no_harm(website: Website, tmp_path: Path) -> None:
    address = f"{website.url}/file.zip"
    other: list[Path] = []

    def meanwhile(progress: Progress) -> None:
        if not other and progress.done > 300:
            other.append(download(address, sha256=SHA256, folder=tmp_path))

    with pytest.raises(InputError):  # its part became the other's file
        download(address, sha256=SHA256, folder=tmp_path, report=meanwhile)
    assert other[0].read_bytes() == CONTENT
    assert download(address, sha256=SHA256, folder=tmp_path) == other[0]


def test_what_a_server_does_wrong_is_told_in_a_sentence(website: Website, tmp_path: Path) -> None:
    for address, parts in (
        (f"{website.url}/absent.zip", ("404", "absent.zip", "check the address")),
        ("http://127.0.0.1:9/file.zip", ("127.0.0.1", "cannot be reached", "HTTPS_PROXY")),
        ("http://", ("address", "check it")),
        ("http://[::1/file.zip", ("address", "check it")),
    ):
        with pytest.raises(InputError) as error:
            download(address, sha256=SHA256, folder=tmp_path)
        assert_one_sentence(error, *parts)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_told(website: Website, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError) as error:
        download(f"{website.url}/file.zip", sha256=SHA256, folder=tmp_path / "file" / "folder")
    assert_one_sentence(error, "file.zip", "cannot be saved", "GITRACT_HOME")


def test_a_full_disk_keeps_what_has_arrived(
    website: Website, tmp_path: Path, small_disk: Callable[[int | None], None]
) -> None:
    address = f"{website.url}/file.zip"
    small_disk(600_000)
    with pytest.raises(InputError) as error:
        download(address, sha256=SHA256, folder=tmp_path)
    assert_one_sentence(error, "file.zip", "cannot be saved", "make room")
    small_disk(None)
    assert download(address, sha256=SHA256, folder=tmp_path).read_bytes() == CONTENT
    assert website.answered[-1] < len(CONTENT)


def test_the_proxy_of_the_environment_is_asked(
    website: Website, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", website.url)
    address = "http://models.example/file.zip"
    assert download(address, sha256=SHA256, folder=tmp_path).read_bytes() == CONTENT
    assert website.asked == [(address, "")]  # a proxy is sent the whole address


def test_a_file_on_disk_is_only_checked(tmp_path: Path) -> None:
    path = tmp_path / "file.zip"
    path.write_bytes(CONTENT)
    assert download(str(path), sha256=SHA256, folder=tmp_path / "unused") == path
    for place, sha256, part in ((path, "1" * 64, "111111111111…"), (tmp_path, SHA256, "read")):
        with pytest.raises(InputError) as error:
            download(str(place), sha256=sha256)
        assert_one_sentence(error, str(place), part)
    assert os.listdir(tmp_path) == ["file.zip"]


# --- catalogues -----------------------------------------------------------------------------


@pytest.fixture
def shelf(store: ModelStore, random_model: Path, tmp_path: Path) -> Path:
    """A folder with a catalogue of one model."""
    folder = tmp_path / "shelf"
    other = ModelStore(tmp_path / "elsewhere")
    other.import_model(random_model)
    archive = other.export("random", folder / "archives" / "random.zip")
    offer = {
        "id": "random", "title": "Random", "file": "archives/random.zip",
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
        "bytes": archive.stat().st_size, "summary": "Knows nothing.", "licence": "CC0-1.0",
    }  # fmt: skip
    (folder / "catalogue.json").write_text(json.dumps({"models": [offer]}))
    return folder


def install(source: object, store: ModelStore, report: Callable[[Progress], None] = print) -> str:
    catalogue = read_catalogue(str(source))
    offer = catalogue.find("random")
    place = catalogue.place_of(offer)
    return download_model(
        place, sha256=offer.sha256, model=offer.id, store=store, report=report
    ).id  # fmt: skip


def serve(website: Website, shelf: Path) -> None:
    for path in shelf.rglob("*.*"):
        website.files[path.name] = path.read_bytes()


def test_a_model_comes_from_a_folder(shelf: Path, store: ModelStore) -> None:
    for source in (shelf, shelf / "catalogue.json"):
        catalogue = read_catalogue(source)
        (offer,) = catalogue.offers
        assert (offer.summary, offer.licence) == ("Knows nothing.", "CC0-1.0")
        assert catalogue.place_of(offer) == str(shelf / "archives" / "random.zip")
    assert install(shelf, store) == "random"
    assert store.find("random").card.startswith("# Random")
    assert store.active().shipped
    assert (shelf / "archives" / "random.zip").is_file()  # the folder stays as it was
    with pytest.raises(InputError, match="installed already"):
        install(shelf, store)


@pytest.mark.parametrize("end", ["", "/", "/catalogue.json"])
def test_a_model_comes_from_a_server(
    shelf: Path, store: ModelStore, website: Website, end: str
) -> None:
    serve(website, shelf)
    assert install(f"{website.url}/models{end}", store) == "random"
    assert [path for path, _ in website.asked] == [
        "/models/catalogue.json", "/models/archives/random.zip",
    ]  # fmt: skip
    assert os.listdir(store.home / "downloads") == []  # it would only take room


def test_a_cancelled_model_is_known_to_be_there_in_part(
    shelf: Path, store: ModelStore, website: Website
) -> None:
    website.files["random.zip"] = CONTENT
    content = json.loads((shelf / "catalogue.json").read_text())
    content["models"][0] |= {"sha256": SHA256.upper(), "bytes": len(CONTENT)}
    website.files["catalogue.json"] = json.dumps(content).encode()
    catalogue = read_catalogue(website.url)
    (offer,) = catalogue.offers
    assert downloaded_bytes(catalogue, offer, home=store.home) == 0
    with pytest.raises(Cancelled):
        install(website.url, store, CancelAfter(500))
    assert 500_000 <= downloaded_bytes(catalogue, offer, home=store.home) < len(CONTENT)
    assert len(store.models()) == 1


def test_an_archive_of_another_model_is_not_installed(
    shelf: Path, store: ModelStore, website: Website
) -> None:
    content = json.loads((shelf / "catalogue.json").read_text())
    content["models"][0]["id"] = "better"
    (shelf / "catalogue.json").write_text(json.dumps(content))
    offer = read_catalogue(shelf).find("better")
    with pytest.raises(InputError) as error:
        download_model(
            str(shelf / "archives" / "random.zip"),
            sha256=offer.sha256, model="better", store=store,
        )  # fmt: skip
    assert_one_sentence(error, "'random'", "'better'")
    assert len(store.models()) == 1


def test_downloads_that_nobody_went_on_with_are_forgotten(shelf: Path, store: ModelStore) -> None:
    downloads = store.home / "downloads"
    downloads.mkdir(parents=True)
    for name in ("old.zip.part", "new.zip.part"):
        (downloads / name).write_bytes(b"half")
    long_ago = time.time() - 40 * 24 * 3600
    os.utime(downloads / "old.zip.part", (long_ago, long_ago))
    install(shelf, store)
    assert os.listdir(downloads) == ["new.zip.part"]


def test_without_a_catalogue_the_sentence_says_what_is_needed(
    shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for nothing in (None, "", "  "):
        with pytest.raises(InputError) as error:
            read_catalogue(nothing)
        assert_one_sentence(error, "GITRACT_MODELS", "folder")
    monkeypatch.setenv("GITRACT_MODELS", str(shelf))
    assert [offer.id for offer in read_catalogue().offers] == ["random"]


GOOD = {"id": "a", "title": "A", "file": "a.zip", "sha256": "0" * 64, "bytes": 1}


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("no json", "the file"),
        ("[]", "the file"),
        (json.dumps({"format": 2, "models": [], "new": 1}), "newer version"),
        (json.dumps({"models": [{**GOOD, "sha256": ""}]}), "models.0.sha256"),
        (json.dumps({"models": [{**GOOD, "other": 1}]}), "models.0.other"),
        (json.dumps({"models": [{**GOOD, "id": "../a"}]}), "models.0.id"),
        (json.dumps({"models": [{**GOOD, "file": "../a.zip"}]}), "beside the catalogue"),
        (json.dumps({"models": [{**GOOD, "file": "/a.zip"}]}), "beside the catalogue"),
        (json.dumps({"models": [{**GOOD, "file": "C:\\a.zip"}]}), "beside the catalogue"),
        (json.dumps({"models": [{**GOOD, "url": "https://a/a.zip"}]}), "either url or file"),
        (json.dumps({"models": [{**GOOD, "file": None}]}), "either url or file"),
        (json.dumps({"models": [{**GOOD, "file": None, "url": "file:///a"}]}), "https://"),
    ],
)
def test_a_catalogue_that_cannot_be_used_says_where(
    tmp_path: Path, content: str, part: str
) -> None:
    (tmp_path / "catalogue.json").write_text(content)
    with pytest.raises(InputError) as error:
        read_catalogue(tmp_path)
    assert_one_sentence(error, str(tmp_path), part)


def test_a_catalogue_that_is_not_there_is_told(website: Website, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        read_catalogue(tmp_path)
    assert_one_sentence(error, str(tmp_path), "catalogue.json")
    with pytest.raises(InputError) as error:
        read_catalogue(website.url)
    assert_one_sentence(error, "404")
    website.files["catalogue.json"] = b" " * (5 << 20)
    with pytest.raises(InputError, match="far too large"):
        read_catalogue(website.url)


# --- the command line -----------------------------------------------------------------------


def test_the_command_line_lists_downloads_and_deletes(
    cli: Callable[..., object], shelf: Path, website: Website
) -> None:
    serve(website, shelf)
    rows = json.loads(cli("models", "available", "--from", shelf, "--json").out)
    assert [(row["id"], row["installed"]) for row in rows] == [("random", False)]
    result = cli("models", "download", "random", "--from", website.url)
    assert result.code == 0, result.err
    assert "random is installed" in result.out
    assert "installed" in cli("models", "available", "--from", shelf).out
    listed = json.loads(cli("models", "list", "--json").out)
    assert [row["bytes"] > 0 for row in listed] == [True, True]
    assert "MB" in cli("models", "list").out

    refused = cli("models", "download", f"{website.url}/random.zip")
    assert refused.code == 2
    assert "sha256sum" in refused.err
    assert cli("models", "delete", "random", "--yes").out.strip() == "random is deleted."
    sha256 = rows[0]["sha256"]
    result = cli("models", "download", f"{website.url}/random.zip", "--sha256", sha256)
    assert "random is installed" in result.out
    assert cli("models", "download", "random", "--from", shelf).code == 2
    assert cli("models", "available").code == 2


def test_the_command_line_asks_before_it_deletes(
    cli: Callable[..., object], random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ModelStore().import_model(random_model)
    asked: list[str] = []

    def answer(question: str) -> bool:
        asked.append(question)
        return len(asked) == 2

    monkeypatch.setattr("typer.confirm", answer)
    result = cli("models", "delete", "random")
    assert result.code == 130
    assert "not deleted" in result.err
    assert len(ModelStore().models()) == 2
    assert cli("models", "delete", "random").code == 0
    assert len(ModelStore().models()) == 1
    assert "random" in asked[0]
    refused = cli("models", "delete", "random")
    assert refused.code == 2
    assert len(asked) == 2  # nothing is asked in vain


def test_an_interrupted_download_says_that_it_goes_on(
    cli: Callable[..., object], shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gitract.model_download.download", interrupt)
    result = cli("models", "download", "random", "--from", shelf)
    assert result.code == 130
    assert "goes on" in result.err


def test_an_exported_archive_tells_what_a_catalogue_needs(
    cli: Callable[..., object], random_model: Path, tmp_path: Path
) -> None:
    ModelStore().import_model(random_model)
    archive = tmp_path / "random.zip"
    told = cli("models", "export", "random", archive).out
    assert hashlib.sha256(archive.read_bytes()).hexdigest() in told
    assert f"{archive.stat().st_size} bytes" in told
    shutil.rmtree(ModelStore().find("random").path)
    assert cli("models", "import", archive).out.strip() == "random is installed."
