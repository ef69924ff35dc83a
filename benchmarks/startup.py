"""What the plugin adds to napari: importing it, and opening each widget for the first time.

A fresh process opens a napari window and then each widget in turn, as the Plugins menu
does: with nothing open, and with a scan and its contours. Python's bytecode is compiled
before, as an installation does. Needs a screen: ``xvfb-run -a python benchmarks/startup.py``.

    python benchmarks/startup.py [--rounds 3] [--record]
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile

from _bench import finish, shared_options

EMPTY, WITH_LAYERS = "empty", "layers"
PROBE = """
import json, sys, time
clocks = time.perf_counter, time.process_time
start = [clock() for clock in clocks]
def taken():
    return [clock() - began for clock, began in zip(clocks, start)]
import napari
viewer = napari.Viewer(show=True)
from qtpy.QtWidgets import QApplication
QApplication.processEvents()
seconds = {"napari itself": taken()}
start = [clock() for clock in clocks]
import napari_gitract
seconds["import napari_gitract"] = taken()
if sys.argv[1] == "layers":
    viewer.open_sample("napari-gitract", "abdomen")
import npe2
manifest = npe2.PluginManager.instance().get_manifest("napari-gitract")
for name in [widget.display_name for widget in manifest.contributions.widgets]:
    rest = time.monotonic() + 1  # what the one before still has to do is not this one's
    while time.monotonic() < rest:
        QApplication.processEvents()
        time.sleep(0.005)
    start = [clock() for clock in clocks]
    viewer.window.add_plugin_dock_widget("napari-gitract", name, tabify=True)
    QApplication.processEvents()
    seconds[name] = taken()
heavy = [name for name in ("torch", "lightning", "monai", "matplotlib") if name in sys.modules]
print(json.dumps({"seconds": seconds, "heavy": heavy}))
viewer.close()
"""


def probe(what_is_open: str, compiled: str) -> dict:
    """Wall and CPU times of one fresh process; bytecode is in the folder `compiled`."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled, "GITRACT_HOME": home}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        command = [sys.executable, "-c", PROBE, what_is_open]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def rows_of(probes: dict[str, list[dict]]) -> list[list[str]]:
    """Medians: wall and CPU seconds with nothing open, then with layers."""
    rows = []
    for name in probes[EMPTY][0]["seconds"]:
        row = [name]
        for found in probes.values():
            times = zip(*(one["seconds"][name] for one in found), strict=True)
            row += [f"{statistics.median(values):.3f}" for values in times]
        rows.append(row)
    return rows


def main() -> None:
    options = shared_options(__doc__, rounds=3).parse_args()
    with tempfile.TemporaryDirectory() as compiled:
        probe(WITH_LAYERS, compiled)
        probes = {
            kind: [probe(kind, compiled) for _ in range(options.rounds)]
            for kind in (EMPTY, WITH_LAYERS)
        }
    heavy = sorted({name for found in probes.values() for one in found for name in one["heavy"]})
    finish(
        "Start-up",
        ["what", "seconds", "of CPU", "with a scan and contours open", "of CPU"],
        rows_of(probes),
        f"Median of {options.rounds} fresh processes. The CPU's time tells slow code from a busy "
        "machine. Loaded afterwards, of torch, lightning, monai and matplotlib: "
        f"{', '.join(heavy) or 'none'}. The aim is under 0.3 s for each.",
        options,
    )


if __name__ == "__main__":
    main()
