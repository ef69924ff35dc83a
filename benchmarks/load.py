"""What reading and writing a scan costs, against the bare libraries on the same files.

A day of PNG slices, a DICOM series and the contours on it, made of the phantom in a
temporary folder. Peak memory is what reading adds to a fresh process in which everything is
imported; it needs Linux.

    python benchmarks/load.py [--rounds 9] [--record]
"""

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pydicom
from skimage.measure import find_contours

from _bench import finish, median_seconds, shared_options
from gitract.io import read_scan, write_scan, write_segmentation
from gitract.phantom import abdomen, write_day
from gitract.scan import Segmentation

SHAPE, SPACING = (144, 266, 266), (3.0, 1.5, 1.5)
# The peak is counted anew once memory that imports have freed is given back, in which the
# array would hide. Linux alone tells it of the process itself.
PROBE = """
import ctypes, sys
import gitract.io, {library}
def kilobytes(what):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(what))
ctypes.CDLL(None).malloc_trim(0)
with open("/proc/self/clear_refs", "w") as peak:
    peak.write("5")
before = kilobytes("VmRSS")
scan = gitract.io.read_scan(sys.argv[1])
print(kilobytes("VmHWM") - before)
"""


def timed(
    what: str,
    against: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    *,
    rounds: int,
    aim: str,
) -> list[str]:
    """One row of the table: seconds of both, and their ratio."""
    ours()  # warm up
    theirs()
    seconds = median_seconds({"ours": ours, "theirs": theirs}, rounds=rounds)
    ratio = seconds["ours"] / seconds["theirs"]
    return [
        what, f"{seconds['ours']:.3f} s", against, f"{seconds['theirs']:.3f} s",
        f"{ratio:.2f}", aim,
    ]  # fmt: skip


def memory(what: str, path: Path, library: str, *, rounds: int) -> list[str]:
    """One row of the table: peak memory of reading in a fresh process, and the array."""
    code = [sys.executable, "-c", PROBE.format(library=library), str(path)]
    peak = 1024 * statistics.median(
        int(subprocess.run(code, capture_output=True, check=True).stdout) for _ in range(rounds)
    )
    array = read_scan(path).voxels.nbytes
    return [
        what, f"{peak / 1e6:.1f} MB", "the array", f"{array / 1e6:.1f} MB",
        f"{peak / array:.2f}", "2.2",
    ]  # fmt: skip


def outlines(segmentation: Segmentation) -> list[list[np.ndarray]]:
    """The contours of each organ on each slice that has one, and nothing else done."""
    return [
        find_contours(plane, 0.5) for mask in segmentation.masks for plane in mask if plane.any()
    ]


def measure(folder: Path, rounds: int) -> list[list[str]]:
    """All rows of the table."""
    scan, truth = abdomen(SHAPE, spacing=SPACING)
    day, series = write_day(folder, scan), write_scan(scan, folder / "series.dcm")
    slices, images = sorted(day.glob("scans/*.png")), sorted(series.glob("**/*.dcm"))
    contours = truth.on(read_scan(series))
    return [
        timed(
            "read a day of PNG slices", "loop of imageio.imread",
            lambda: read_scan(day), lambda: [imageio.imread(path) for path in slices],
            rounds=rounds, aim="0.7",
        ),
        timed(
            "read a DICOM series", "loop of pydicom's pixel_array",
            lambda: read_scan(series), lambda: [pydicom.dcmread(p).pixel_array for p in images],
            rounds=rounds, aim="1.2",
        ),
        timed(
            "write an RT Structure Set", "skimage's find_contours alone",
            lambda: write_segmentation(contours, folder / "out.rtstruct.dcm"),
            lambda: outlines(contours),
            rounds=rounds, aim="3",
        ),
        memory("peak memory, PNG slices", day, "PIL.PngImagePlugin", rounds=rounds),
        memory("peak memory, DICOM series", series, "pydicom.pixels", rounds=rounds),
    ]  # fmt: skip


def main() -> None:
    options = shared_options(__doc__, rounds=9).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), options.rounds)
    finish(
        "Reading and writing scans",
        ["what", "gitract", "against", "takes", "ratio", "aim, at most"],
        rows,
        f"The phantom of {' x '.join(map(str, SHAPE))} voxels with 16 bits, files in the system's "
        f"cache, median of {options.rounds} alternating rounds. Memory is what reading adds to a "
        "process that has imported everything.",
        options,
    )


if __name__ == "__main__":
    main()
