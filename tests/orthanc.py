"""Orthanc, a DICOM archive, started on loopback for the tests that talk to one."""

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

__all__ = ["AE_TITLE", "Archive", "free_port", "running_archive"]

AE_TITLE = "ORTHANC"
_START_S = 60


class Archive(NamedTuple):
    """Where Orthanc listens on loopback: for DICOM, and for questions about what it holds."""

    dicom_port: int
    http: str

    def get(self, path: str) -> bytes:
        """What it answers on HTTP."""
        with urllib.request.urlopen(f"{self.http}{path}", timeout=10) as answer:
            return bytes(answer.read())

    def found(self, uid: str) -> list[str]:
        """What it calls the instances of this UID: one, or none."""
        return self.found_at("Instance", SOPInstanceUID=uid)

    def found_at(self, level: str, **query: str) -> list[str]:
        """What it calls the patients, studies, series or instances with these attributes."""
        asked = json.dumps({"Level": level, "Query": query}).encode()
        with urllib.request.urlopen(f"{self.http}/tools/find", data=asked, timeout=10) as answer:
            return [str(one) for one in json.load(answer)]

    def file_of(self, uid: str, path: Path) -> Path:
        """Write what it gives back for an instance."""
        (identity,) = self.found(uid)
        path.write_bytes(self.get(f"/instances/{identity}/file"))
        return path


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running_archive(program: str, folder: Path) -> Iterator[Archive]:
    """Start Orthanc with a storage of its own; it answers to its AE title alone."""
    ports = free_port(), free_port()
    settings = {
        "Name": "test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [],
        "DicomAet": AE_TITLE,
        "DicomCheckCalledAet": True,
        "DicomPort": ports[0],
        "HttpPort": ports[1],
        "HttpBindAddresses": ["127.0.0.1"],
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowEcho": True,
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=log, stderr=log)
    archive = Archive(ports[0], f"http://127.0.0.1:{ports[1]}")
    try:
        _wait_for(archive, server, folder / "log")
        yield archive
    finally:
        server.terminate()
        server.wait(30)


def _wait_for(archive: Archive, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        if server.poll() is not None:
            break
        try:
            archive.get("/system")
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"Orthanc did not start: {log.read_text(errors='replace')[-2000:]}")
