"""What a whole call of `Segmenter.segment` costs, against the bare network.

Both run in the same process, on the same tensors, in alternating rounds. The bare network
gets its input batches ready-made; the whole call starts from the scan's array and ends
with a segmentation on the scan's grid.

    python benchmarks/segment.py [--scan FOLDER] [--rounds 5] [--record]
"""

import argparse
from pathlib import Path

import torch

from _bench import finish, median_seconds
from gitract.io import read_scan
from gitract.phantom import abdomen
from gitract.predict import Segmenter
from gitract.preparation import network_input, prepare_scan
from gitract.scan import Scan

BATCH = 8  # as gitract.predict uses on a CPU


def measure(scan: Scan, segmenter: Segmenter, rounds: int) -> list[str]:
    """One row of the table."""
    network, preparation = segmenter._network, segmenter.config.preparation
    slices = prepare_scan(scan.voxels, scan.spacing, preparation).slices
    count = len(slices)
    batches = [
        network_input(slices, list(range(i, min(i + BATCH, count))), preparation).to(
            segmenter.device, memory_format=torch.channels_last
        )
        for i in range(0, count, BATCH)
    ]

    @torch.inference_mode()
    def bare() -> None:
        for batch in batches:
            network(batch)

    def whole() -> None:
        segmenter.segment(scan)

    bare()  # warm up
    whole()
    seconds = median_seconds({"bare": bare, "whole": whole}, rounds=rounds)
    ratio = seconds["whole"] / seconds["bare"]
    size = " x ".join(map(str, scan.shape))
    return [scan.name, size, f"{seconds['bare']:.2f}", f"{seconds['whole']:.2f}", f"{ratio:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scan", type=Path, action="append", default=[])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    segmenter = Segmenter(device=options.device)
    phantom, _ = abdomen((144, 266, 266), spacing=(3.0, 1.5, 1.5), name="phantom")
    scans = [phantom, *(read_scan(path) for path in options.scan)]
    rows = [measure(scan, segmenter, options.rounds) for scan in scans]
    finish(
        "One stack, whole call against the bare network",
        ["scan", "voxels", "bare forward (s)", "whole call (s)", "ratio"],
        rows,
        f"Model {segmenter.model.id} on {segmenter.device}, torch with {torch.get_num_threads()} "
        f"threads, batches of {BATCH}, median of {options.rounds} alternating rounds. "
        "The aim is a ratio of at most 1.25.",
        record=options.record,
        json_file=options.json,
    )


if __name__ == "__main__":
    main()
