"""How long the import of a large library holds every thread, read beforehand or not.

A fresh process imports torch or SimpleITK on a thread while another one ticks, as the window
does. *From disk*: the system was told beforehand to forget the package's libraries; how much
it forgets, and how fast the disk is, is the machine's. Linux only.

    python benchmarks/first_import.py [--rounds 3] [--record]
"""

import importlib.util
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from _bench import finish, shared_options

PACKAGES = ("torch", "SimpleITK")
PROBE = """
import importlib, json, sys, threading, time
import numpy  # which a window has loaded
from napari_gitract.jobs import QUICK_S
from napari_gitract.libraries_ahead import bring_ahead
package, ahead = sys.argv[1], sys.argv[2] == "ahead"
sys.setswitchinterval(QUICK_S)
done = threading.Event()
def work():
    try:
        if ahead:
            bring_ahead(package)
        importlib.import_module(package)
    finally:
        done.set()
start = last = time.perf_counter()
longest = 0.0
threading.Thread(target=work).start()
while not done.is_set():
    time.sleep(0.005)
    now = time.perf_counter()
    longest, last = max(longest, now - last), now
print(json.dumps([longest, last - start]))
"""


def forget(package: str) -> None:
    """Have the system read the libraries of a package from disk again."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    for path in Path(spec.origin).parent.rglob("*.so*"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def probe(package: str, how: str, *, from_disk: bool) -> tuple[float, float]:
    """Longest gap, and the whole import, in seconds."""
    if from_disk:
        forget(package)
    command = [sys.executable, "-c", PROBE, package, how]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=300)
    longest, lasted = json.loads(done.stdout)
    return longest, lasted


def main() -> None:
    options = shared_options(__doc__, rounds=3).parse_args()
    rows = []
    for package in PACKAGES:
        for from_disk in (False, True):
            found: dict[str, list[tuple[float, float]]] = {"plain": [], "ahead": []}
            for _ in range(options.rounds):
                for how, times in found.items():
                    times.append(probe(package, how, from_disk=from_disk))
            rows.append([package, "from disk" if from_disk else "in memory"] + [
                f"{1000 * statistics.median(values):.0f}"
                for times in found.values() for values in zip(*times, strict=True)
            ])  # fmt: skip
    finish(
        "First import of large libraries",
        ["library", "its files", "gap, imported (ms)", "lasted (ms)",
         "gap, read ahead (ms)", "lasted (ms)"],
        rows,
        f"Median of {options.rounds} fresh processes each, alternating. Gap: the longest in which "
        "another thread that ticks every 5 ms stood still. In SimpleITK the rest is its own "
        "setting up, during which it lets no other thread run.",
        options,
    )  # fmt: skip


if __name__ == "__main__":
    main()
