"""What every test shares: a model store of its own, and the place of real scans."""

import os
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).resolve().parents[1]


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
        reason = f"no real scans in {folder}: set GITRACT_TEST_DATA to their folder"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
