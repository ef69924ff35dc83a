"""Opening the plugin must cost nothing: no torch, and no Qt where napari may lack it."""

import subprocess
import sys

import pytest

WIDGETS = """
import sys
import napari
viewer = napari.Viewer(show=False)
for name in ("Load scan", "Segment", "Fine-tune", "Models"):
    viewer.window.add_plugin_dock_widget("napari-gitract", name)
heavy = {"torch", "lightning", "monai", "segmentation_models_pytorch"} & sys.modules.keys()
viewer.close()
assert not heavy, heavy
"""

NO_QT = """
import sys
import napari_gitract._reader, napari_gitract._writer, napari_gitract._sample_data
heavy = {"qtpy", "PyQt6", "PySide6", "torch"} & sys.modules.keys()
assert not heavy, heavy
"""


@pytest.mark.parametrize("code", [WIDGETS, NO_QT], ids=["widgets", "readers"])
def test_what_is_imported(code):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
