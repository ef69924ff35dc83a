"""What every test shares: a model store of its own, and the place of real scans."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from orthanc import Archive, running_archive
from outside import missing

_REPOSITORY = Path(__file__).resolve().parents[1]

# How long an example takes says more of the machine than of the software.
hypothesis.settings.register_profile("any machine", hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's installed models out of the tests, and the tests out of them."""
    monkeypatch.setenv("GITRACT_HOME", str(tmp_path_factory.mktemp("gitract-home")))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real scans; without it the test is skipped, on CI it fails."""
    default = _REPOSITORY.parent / "shared" / "data"
    folder = Path(os.environ.get("GITRACT_TEST_DATA", default))
    if not folder.is_dir():
        missing(f"no real scans in {folder}: set GITRACT_TEST_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def program() -> Callable[[str, str], str]:
    """Find a program that judges our files; without it the test is skipped, on CI it fails.

    Called with the program's name and the Debian package that brings it.
    """

    def find(name: str, package: str) -> str:
        path = shutil.which(name) or shutil.which(name, path="/usr/sbin")
        if path is None:
            missing(f"{name} is not installed: it comes with Debian's package {package}")
        return path

    return find


@pytest.fixture(scope="module")
def archive(
    program: Callable[[str, str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Archive]:
    """Orthanc, started for the tests of one module."""
    with running_archive(
        program("Orthanc", "orthanc"), tmp_path_factory.mktemp("orthanc")
    ) as found:
        yield found
