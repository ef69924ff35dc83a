"""Files go to a DICOM node and come back unchanged; what a node answers is said in a sentence."""

import json
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from gitract import dicom_node
from gitract.dicom_node import DicomNode, echo, files_to_send, send
from gitract.errors import Cancelled, GitractError, InputError
from gitract.io import read_scan, read_segmentation, write_scan, write_segmentation
from gitract.progress import Progress
from orthanc import AE_TITLE, Archive, free_port
from phantoms import abdomen_phantom
from sentences import assert_one_sentence


@pytest.fixture
def node(archive: Archive) -> DicomNode:
    return DicomNode("127.0.0.1", archive.dicom_port, AE_TITLE)


@pytest.fixture
def contours(tmp_path: Path) -> Path:
    """A structure set, which no node has yet."""
    phantom, truth = abdomen_phantom(slices=4, rows=32, columns=40)
    scan = read_scan(write_scan(phantom, tmp_path / "scan.dcm"))
    return write_segmentation(truth.on(scan), tmp_path / "organs.rtstruct.dcm")


def uid_of(path: Path) -> str:
    return str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)


# --- a real archive ----------------------------------------------------------------------


@pytest.mark.parametrize("deidentify", [False, True])
@pytest.mark.parametrize("suffix", [".seg.dcm", ".rtstruct.dcm"])
def test_a_node_serves_our_contours_back_unchanged(
    archive: Archive, node: DicomNode, tmp_path: Path, suffix: str, deidentify: bool
) -> None:
    phantom, truth = abdomen_phantom(slices=8, rows=48, columns=56)
    series = write_scan(phantom, tmp_path / "scan.dcm")
    scan = read_scan(series)
    path = write_segmentation(truth.on(scan), tmp_path / f"organs{suffix}", deidentify=deidentify)
    sent = send([series, path], node)
    assert [one.path for one in sent] == [*sorted(series.glob("*.dcm")), path]
    assert not any(one.warning for one in sent)

    written = pydicom.dcmread(path)
    served = archive.file_of(written.SOPInstanceUID, tmp_path / f"served{suffix}")
    assert pydicom.dcmread(served) == written
    again = read_segmentation(served, scan=scan)
    for organ, mask in zip(truth.organs, truth.on(scan).masks, strict=True):
        place = [other.name for other in again.organs].index(organ.name)
        np.testing.assert_array_equal(again.masks[place], mask)
    studies = [
        one
        for one in json.loads(archive.get("/studies?expand"))
        if one["MainDicomTags"]["StudyInstanceUID"] == written.StudyInstanceUID
    ]
    # Contours stand beside the scan that they refer to: one study, one patient. A scan that we
    # wrote is under a pseudonym already, which de-identified contours keep.
    assert [len(one["Series"]) for one in studies] == [2]


@pytest.mark.parametrize(
    "syntax",
    [
        "1.2.840.10008.1.2.4.70",  # lossless JPEG, what most archives keep
        "1.2.840.10008.1.2.4.57",
        "1.2.840.10008.1.2.4.80",  # JPEG-LS
    ],
)
def test_a_compressed_series_is_read_and_sent_unchanged(
    archive: Archive, node: DicomNode, tmp_path: Path, syntax: str
) -> None:
    phantom, _ = abdomen_phantom(slices=5, rows=41, columns=50)
    series = write_scan(phantom, tmp_path / "scan.dcm")
    files = sorted(series.glob("*.dcm"))
    send([series], node)
    compressed = tmp_path / "compressed"
    compressed.mkdir()
    for number, file in enumerate(files):
        content = json.dumps(
            {"Keep": ["SOPInstanceUID"], "Force": True, "Transcode": syntax}
        ).encode()
        (identity,) = archive.found(uid_of(file))
        url = f"{archive.http}/instances/{identity}/modify"
        with urllib.request.urlopen(url, data=content, timeout=30) as answer:
            (compressed / f"{number}.dcm").write_bytes(answer.read())
    header = pydicom.dcmread(compressed / "0.dcm", stop_before_pixels=True)
    assert header.file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(read_scan(compressed).voxels, read_scan(series).voxels)
    assert len(send([compressed], node)) == len(files)


def test_a_node_that_is_there_answers(node: DicomNode) -> None:
    echo(node)


def test_another_ae_title_is_refused_by_its_name(node: DicomNode, contours: Path) -> None:
    wrong = DicomNode(node.host, node.port, "ARCHIVE")
    for ask in (lambda: echo(wrong), lambda: send([contours], wrong)):
        with pytest.raises(GitractError) as error:
            ask()
        assert_one_sentence(error, "is not called 'ARCHIVE'")


def test_to_cancel_ends_between_two_files(
    archive: Archive, node: DicomNode, tmp_path: Path
) -> None:
    phantom, _ = abdomen_phantom(slices=4, rows=32, columns=40)
    files = sorted(write_scan(phantom, tmp_path / "scan.dcm").glob("*.dcm"))
    reports: list[Progress] = []

    def report(progress: Progress) -> None:
        reports.append(progress)
        if progress.done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        send(files, node, report=report)
    assert [len(archive.found(uid_of(file))) for file in files] == [1, 1, 0, 0]
    assert {progress.total for progress in reports} == {4}
    echo(node)  # it is not left waiting


def test_the_command_sends_and_says_so(
    archive: Archive, node: DicomNode, contours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gitract.cli.send import send as command

    command([contours], to=str(node), as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told == {"node": str(node), "sent": [{"file": str(contours), "warning": None}]}
    assert len(archive.found(uid_of(contours))) == 1
    command([contours], to=str(node))
    assert "took 1 file." in capsys.readouterr().out


# --- nodes that do not do as they should --------------------------------------------------


@contextmanager
def odd_node(answer: Callable[[Any], Any], **settings: Any) -> Iterator[DicomNode]:
    """A node that answers C-STORE as it is told to."""
    from pynetdicom import AE, AllStoragePresentationContexts, evt

    entity = AE(ae_title="ODD")
    entity.supported_contexts = settings.pop("contexts", AllStoragePresentationContexts)
    for name, value in settings.items():
        setattr(entity, name, value)
    server = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, answer)]
    )
    try:
        yield DicomNode("127.0.0.1", server.server_address[1], "ODD")
    finally:
        server.shutdown()


def answering(status: int, comment: str = "") -> Callable[[Any], Dataset]:
    def answer(_event: Any) -> Dataset:
        told = Dataset()
        told.Status = status
        if comment:
            told.ErrorComment = comment
        return told

    return answer


@pytest.mark.parametrize(
    ("status", "comment", "part"),
    [
        (0xA700, "", "it is out of space, status A700"),
        (0xA900, "", "the file is not what it says it is"),
        (0xC001, "no such series", "it cannot understand the file, status C001, no such series"),
        (0x0122, "", "it does not keep this kind of file"),
        (0x0110, "", "it failed, status 0110"),
    ],
)
def test_a_file_that_is_not_taken_is_an_error(
    contours: Path, status: int, comment: str, part: str
) -> None:
    with odd_node(answering(status, comment)) as node, pytest.raises(GitractError) as error:
        send([contours], node)
    assert_one_sentence(error, part, contours.name)


def test_a_file_that_is_taken_with_a_warning_is_sent(contours: Path) -> None:
    with odd_node(answering(0xB007, "coded term unknown")) as node:
        (sent,) = send([contours], node)
    assert sent.warning == "coded term unknown"
    with odd_node(answering(0xB000)) as node:
        (sent,) = send([contours], node)
    assert "B000" in sent.warning


def test_a_node_that_knows_us_not_says_so(contours: Path) -> None:
    with (
        odd_node(answering(0), require_calling_aet=["PLANNING"]) as node,
        pytest.raises(GitractError) as error,
    ):
        send([contours], node)
    assert_one_sentence(error, "'GITRACT'")
    with odd_node(answering(0), require_calling_aet=["PLANNING"]) as node:
        known = DicomNode(node.host, node.port, node.ae_title, "PLANNING")
        assert len(send([contours], known)) == 1


def test_a_node_that_takes_no_such_files_is_named_with_the_kind(contours: Path) -> None:
    from pynetdicom import build_context

    only_ct = [build_context("1.2.840.10008.5.1.4.1.1.2")]
    with odd_node(answering(0), contexts=only_ct) as node, pytest.raises(GitractError) as error:
        send([contours], node)
    assert_one_sentence(error, "RT Structure Set")


def test_a_node_that_takes_the_one_kind_and_not_the_other(contours: Path) -> None:
    from pynetdicom import build_context

    only_mr = [build_context("1.2.840.10008.5.1.4.1.1.4")]
    scan = sorted((contours.parent / "scan.dcm").glob("*.dcm"))
    with odd_node(answering(0), contexts=only_mr) as node, pytest.raises(GitractError) as error:
        send([*scan, contours], node)
    assert_one_sentence(error, contours.name, f"{len(scan)} files were taken before")


def test_a_node_that_hangs_up_is_an_error(contours: Path) -> None:
    def hang_up(event: Any) -> int:
        event.assoc.abort()
        return 0

    with odd_node(hang_up) as node, pytest.raises(GitractError) as error:
        send([contours], node)
    assert_one_sentence(error, "fell silent")


def test_what_listens_and_is_no_node_is_told(contours: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def hang_up_on_all() -> None:
            for _ in range(2):
                listener.accept()[0].close()

        threading.Thread(target=hang_up_on_all, daemon=True).start()
        node = DicomNode("127.0.0.1", listener.getsockname()[1], "WEB")
        with pytest.raises(GitractError) as error:
            send([contours], node)
    assert_one_sentence(error, "does not answer as a DICOM node does")


def test_nobody_there(contours: Path) -> None:
    closed = DicomNode("127.0.0.1", free_port(), "ARCHIVE")
    with pytest.raises(GitractError) as error:
        send([contours], closed)
    assert_one_sentence(error, "Nothing listens")
    nowhere = DicomNode("no-such-host.invalid", 104, "ARCHIVE")
    with pytest.raises(GitractError) as error:
        echo(nowhere)
    assert_one_sentence(error, "no-such-host.invalid")


def test_an_address_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def silence(*_: Any, **__: Any) -> None:
        raise TimeoutError

    monkeypatch.setattr(dicom_node.socket, "create_connection", silence)
    with pytest.raises(GitractError) as error:
        echo(DicomNode("127.0.0.1", 104, "ARCHIVE"))
    assert_one_sentence(error, "did not answer within 10 s")


# --- what is typed and named ----------------------------------------------------------------


def test_a_node_is_written_in_one_line() -> None:
    node = DicomNode.parse("ARCHIVE@pacs.hospital.org:104")
    assert node == DicomNode("pacs.hospital.org", 104, "ARCHIVE", "GITRACT")
    assert str(node) == "ARCHIVE@pacs.hospital.org:104"
    six = DicomNode.parse("MY PACS@[::1]:4242", "PLAN")
    assert (six.host, six.port, six.ae_title, six.calling_ae_title) == (
        "::1",
        4242,
        "MY PACS",
        "PLAN",
    )
    assert DicomNode.parse(str(six), "PLAN") == six


@pytest.mark.parametrize(
    "text",
    [
        *("", "ARCHIVE", "ARCHIVE@host", "host:104", "ARCHIVE@host:ten", "ARCHIVE@:104"),
        *("@host:104", "ARCHIVE@host:0", "ARCHIVE@host:65536", "SEVENTEEN LETTERS@host:104"),
        *("BACK\\SLASH@host:104", "ARCHÏVE@host:104", "ARCHIVE@ho st:104"),
    ],
)
def test_what_is_no_node_is_refused(text: str) -> None:
    with pytest.raises(InputError) as error:
        DicomNode.parse(text)
    assert_one_sentence(error)


def test_only_whole_dicom_files_are_sent(tmp_path: Path, contours: Path) -> None:
    notes = Path(f"{contours}.json")
    assert notes.exists()
    # A folder stands for the DICOM files in it; the notes beside them are ours alone.
    found = [one.path for one in files_to_send([contours.parent, contours])]
    assert found == [contours, *sorted((contours.parent / "scan.dcm").glob("*.dcm"))]
    (tmp_path / "empty").mkdir()
    for path in (notes, tmp_path / "missing.dcm", tmp_path / "empty"):
        with pytest.raises(InputError) as error:
            files_to_send([contours, path])
        assert_one_sentence(error, path.name)
    with pytest.raises(InputError):
        files_to_send([])
