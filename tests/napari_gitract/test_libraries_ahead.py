"""Large libraries are read before they are imported, and are left to their import otherwise."""

import subprocess
import sys
from pathlib import Path

import pytest

READ = """
import sys
from napari_gitract.jobs import loading_libraries
opened = []
sys.addaudithook(lambda event, given: event == "open" and opened.append(str(given[0])))
with loading_libraries("torch", "SimpleITK"):
    assert not {"torch", "SimpleITK"} & sys.modules.keys()
    for name in ("libtorch_python", "_SimpleITK"):
        print(any(path.rpartition("/")[2].startswith(name) for path in opened))
"""
IN_MEMORY = """
import sys
from pathlib import Path
from napari_gitract.libraries_ahead import bring_ahead
bring_ahead("torch")
assert "torch" not in sys.modules
print("libtorch_cpu.so" in Path("/proc/self/maps").read_text())
import torch
print(torch.ones(2).sum().item())
"""
INCOMPLETE = """
import sys
sys.path.insert(0, sys.argv[1])
from napari_gitract.libraries_ahead import bring_ahead
bring_ahead("torch")
assert "torch" not in sys.modules
"""


def printed(script: str, *arguments: str) -> list[str]:
    """What a script of a process of its own prints, in which torch was never imported."""
    process = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return process.stdout.split()


@pytest.mark.skipif(sys.platform == "win32", reason="its libraries are called otherwise")
def test_a_job_reads_the_libraries_that_it_is_about_to_import() -> None:
    assert printed(READ) == ["True", "True"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch is left to itself")
def test_torch_is_mapped_before_its_import_and_computes() -> None:
    assert printed(IN_MEMORY) == ["True", "2.0"]


@pytest.mark.parametrize("files", [(), ("libtorch_global_deps.so",)])
def test_a_torch_without_its_libraries_is_left_to_its_own_import(
    tmp_path: Path, files: tuple[str, ...]
) -> None:
    (tmp_path / "torch" / "lib").mkdir(parents=True)
    (tmp_path / "torch" / "__init__.py").touch()
    for name in files:
        (tmp_path / "torch" / "lib" / name).write_text("no library")
    assert printed(INCOMPLETE, str(tmp_path)) == []
