"""A real DICOM node takes our contours and gives them back unchanged."""

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian

from gitract.io import read_scan, read_segmentation, write_scan, write_segmentation
from phantoms import abdomen_phantom

START_S = 60


class Node(NamedTuple):
    """Where Orthanc listens on loopback."""

    dicom_port: int
    http: str

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"{self.http}{path}", timeout=10) as answer:
            return bytes(answer.read())


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def node(
    program: Callable[[str, str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Node]:
    """Orthanc, started for these tests, with a storage of its own."""
    orthanc = program("Orthanc", "orthanc")
    folder = tmp_path_factory.mktemp("orthanc")
    ports = _free_port(), _free_port()
    settings = {
        "Name": "test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [],
        "DicomAet": "ORTHANC",
        "DicomPort": ports[0],
        "HttpPort": ports[1],
        "HttpBindAddresses": ["127.0.0.1"],
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([orthanc, str(folder / "orthanc.json")], stdout=log, stderr=log)
    found = Node(ports[0], f"http://127.0.0.1:{ports[1]}")
    try:
        _wait_for(found, server, folder / "log")
        yield found
    finally:
        server.terminate()
        server.wait(30)


def _wait_for(node: Node, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if server.poll() is not None:
            break
        try:
            node.get("/system")
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"Orthanc did not start: {log.read_text(errors='replace')[-2000:]}")


def _store(node: Node, files: list[Path]) -> None:
    """Send files by C-STORE, as a planning system's export does."""
    from pynetdicom import AE

    entity = AE(ae_title="GITRACT")
    for uid in {pydicom.dcmread(file, stop_before_pixels=True).SOPClassUID for file in files}:
        entity.add_requested_context(uid, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", node.dicom_port, ae_title="ORTHANC")
    assert association.is_established
    try:
        for file in files:
            assert association.send_c_store(pydicom.dcmread(file)).Status == 0
    finally:
        association.release()


def _identity(node: Node, uid: str) -> str:
    """What the node calls an instance."""
    query = json.dumps({"Level": "Instance", "Query": {"SOPInstanceUID": uid}}).encode()
    with urllib.request.urlopen(f"{node.http}/tools/find", data=query, timeout=10) as answer:
        [identity] = json.load(answer)
    return str(identity)


def _served(node: Node, uid: str, path: Path) -> Path:
    """What the node gives back for an instance."""
    path.write_bytes(node.get(f"/instances/{_identity(node, uid)}/file"))
    return path


@pytest.mark.parametrize("suffix", [".seg.dcm", ".rtstruct.dcm"])
def test_a_node_serves_our_contours_back_unchanged(node: Node, tmp_path: Path, suffix: str) -> None:
    phantom, truth = abdomen_phantom(slices=8, rows=48, columns=56)
    series = write_scan(phantom, tmp_path / "scan.dcm")
    scan = read_scan(series)
    sent = write_segmentation(truth.on(scan), tmp_path / f"organs{suffix}")
    _store(node, [*sorted(series.glob("*.dcm")), sent])

    written = pydicom.dcmread(sent)
    served = _served(node, written.SOPInstanceUID, tmp_path / f"served{suffix}")
    assert pydicom.dcmread(served) == written
    again = read_segmentation(served, scan=scan)
    for organ, mask in zip(truth.organs, truth.on(scan).masks, strict=True):
        place = [other.name for other in again.organs].index(organ.name)
        np.testing.assert_array_equal(again.masks[place], mask)
    # Contours stand beside the scan that they refer to: one study, one patient.
    studies = json.loads(node.get("/studies?expand"))
    [study] = [
        one for one in studies
        if one["MainDicomTags"]["StudyInstanceUID"] == written.StudyInstanceUID
    ]  # fmt: skip
    assert len(study["Series"]) == 2


@pytest.mark.parametrize(
    "syntax",
    [
        "1.2.840.10008.1.2.4.70",  # lossless JPEG, what most archives keep
        "1.2.840.10008.1.2.4.57",
        "1.2.840.10008.1.2.4.80",  # JPEG-LS
    ],
)
def test_a_series_that_the_node_compressed_is_read_unchanged(
    node: Node, tmp_path: Path, syntax: str
) -> None:
    phantom, _ = abdomen_phantom(slices=5, rows=41, columns=50)
    series = write_scan(phantom, tmp_path / "scan.dcm")
    files = sorted(series.glob("*.dcm"))
    _store(node, files)
    compressed = tmp_path / "compressed"
    compressed.mkdir()
    for number, file in enumerate(files):
        uid = pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID
        content = json.dumps(
            {"Keep": ["SOPInstanceUID"], "Force": True, "Transcode": syntax}
        ).encode()
        url = f"{node.http}/instances/{_identity(node, uid)}/modify"
        with urllib.request.urlopen(url, data=content, timeout=30) as answer:
            (compressed / f"{number}.dcm").write_bytes(answer.read())
    header = pydicom.dcmread(compressed / "0.dcm", stop_before_pixels=True)
    assert header.file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(read_scan(compressed).voxels, read_scan(series).voxels)
