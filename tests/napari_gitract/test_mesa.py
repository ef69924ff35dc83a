"""Triton is kept out of a process whose window Mesa draws."""

import sys
from pathlib import Path

import pytest

from napari_gitract.mesa import keep_triton_out


@pytest.fixture
def maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A list of loaded libraries with Mesa's LLVM, in a process without triton."""
    # Set first, so that it is taken away again afterwards.
    monkeypatch.setitem(sys.modules, "triton", sys)
    monkeypatch.delitem(sys.modules, "triton")
    path = tmp_path / "maps"
    path.write_text("7f00-7f01 r-xp 00000000 08:01 1 /usr/lib/libLLVM-15.so.1\n")
    return path


def test_where_mesa_has_loaded_llvm_triton_cannot_be_imported(maps: Path) -> None:
    keep_triton_out(maps)
    with pytest.raises(ImportError):
        import triton  # noqa: F401


def test_elsewhere_it_is_left_alone(maps: Path) -> None:
    maps.write_text("7f00-7f01 r-xp 00000000 08:01 1 /usr/lib/libGLX_nvidia.so.0\n")
    keep_triton_out(maps)
    keep_triton_out(maps.parent / "absent")
    assert "triton" not in sys.modules


def test_one_that_came_first_stays(maps: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", sys)
    keep_triton_out(maps)
    assert sys.modules["triton"] is sys
