"""What the plugin adds to napari: importing it, and opening each widget for the first time.

A fresh process opens a napari window and then each widget in turn, as the Plugins menu
does. Needs a screen: ``xvfb-run -a python benchmarks/startup.py``.

    python benchmarks/startup.py [--rounds 3] [--record]
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from _bench import finish

PROBE = """
import json, sys, time
start = time.perf_counter()
import napari
viewer = napari.Viewer(show=True)
from qtpy.QtWidgets import QApplication
QApplication.processEvents()
seconds = {"napari itself": time.perf_counter() - start}
start = time.perf_counter()
import napari_gitract
seconds["import napari_gitract"] = time.perf_counter() - start
import npe2
manifest = npe2.PluginManager.instance().get_manifest("napari-gitract")
for name in [widget.display_name for widget in manifest.contributions.widgets]:
    start = time.perf_counter()
    viewer.window.add_plugin_dock_widget("napari-gitract", name, tabify=True)
    QApplication.processEvents()
    seconds[name] = time.perf_counter() - start
heavy = [name for name in ("torch", "lightning", "monai", "matplotlib") if name in sys.modules]
print(json.dumps({"seconds": seconds, "heavy": heavy}))
viewer.close()
"""


def probe() -> dict:
    """Times of one fresh process."""
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    probes = [probe() for _ in range(options.rounds)]
    rows = [
        [name, f"{statistics.median(p['seconds'][name] for p in probes):.3f}"]
        for name in probes[0]["seconds"]
    ]
    heavy = sorted({name for p in probes for name in p["heavy"]})
    finish(
        "Start-up",
        ["what", "seconds"],
        rows,
        f"Median of {options.rounds} fresh processes. Loaded afterwards, of torch, lightning, "
        f"monai and matplotlib: {', '.join(heavy) or 'none'}. The aim is under 0.3 s for each.",
        record=options.record,
        json_file=options.json,
    )


if __name__ == "__main__":
    main()
