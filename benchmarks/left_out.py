"""What is lost by leaving out the slices between two on which nothing is likely.

Each scan is segmented twice, with and without leaving slices out.

    python benchmarks/left_out.py --data DATA/uwm_stacks --data DATA/uwm_16bit_stack [--record]
"""

from pathlib import Path

import numpy as np

from _bench import every_slice, finish, shared_options
from gitract.errors import InputError
from gitract.io import find_scans, read_scan
from gitract.predict import Segmenter
from gitract.scan import Scan


def row(segmenter: Segmenter, scan: Scan) -> list[str]:
    """One scan."""
    looked_at: list[int] = []
    quick = segmenter.segment(scan, arrived=lambda batch, _: looked_at.extend(batch))
    with every_slice():
        whole = segmenter.segment(scan)
    lost = np.count_nonzero(whole.masks & ~quick.masks)
    drawn = np.count_nonzero(whole.masks)
    organs = np.count_nonzero(whole.masks.any(axis=(0, 2, 3)))
    return [scan.name, str(len(scan.voxels)), str(organs), str(len(looked_at)),
            str(drawn), str(lost), f"{1e4 * lost / max(drawn, 1):.1f}"]  # fmt: skip


def main() -> None:
    parser = shared_options(__doc__)
    parser.add_argument("--data", type=Path, action="append", required=True)
    options = parser.parse_args()
    segmenter = Segmenter(device="cpu")
    rows = []
    for folder in options.data:
        for found in find_scans(folder):
            try:
                rows.append(row(segmenter, read_scan(folder, key=found.key)))
            except InputError as error:  # a day with holes
                print(error)
    finish(
        "Slices that are left out",
        ["scan", "slices", "with an organ", "looked at", "voxels drawn", "voxels lost",
         "lost of 10,000"],
        rows,
        f"Model {segmenter.model.id}. Every fourth slice is looked at; those between two on "
        "which the network gives no organ 2 % anywhere are left out. The aim is to lose nothing.",
        options,
    )  # fmt: skip


if __name__ == "__main__":
    main()
