"""Let a model outline what nobody did: labels to learn from beside those of people.

Written are pairs that a recipe can name as sources: ``stomach_only`` (slices, the stomach by
people, the bowel by the model) and ``stacks`` (whole stacks without labels, and the runs of
single slices that follow each other, outlined by the model alone).

    python training/experiments/pseudo_labels.py --data DATA --teacher MODEL -o FOLDER \\
        [--without case6]
"""

import argparse
import csv
import re
from pathlib import Path

import numpy as np
from PIL import Image

from gitract.io import read_scan, write_scan, write_segmentation
from gitract.predict import Segmenter
from gitract.scan import Scan

STOMACH_PIXEL_MM, PIXEL_MM, SLICE_MM = 3.7, 1.5, 3.0
GROUPS_OF_PATIENTS = {"9": "case6", "10": "case6"}
MIN_RUN = 20  # slices, for a run to be worth a stack
MIN_LIKENESS = 0.8  # correlation of neighbours in one stack


def outlined_slices(data: Path, teacher: Segmenter, without: set[str], output: Path) -> None:
    """The slices with the stomach alone: its mask by people, the bowel's by the model."""
    folder = data / "stomach_only"
    (output / "images").mkdir(parents=True)
    (output / "labels").mkdir()
    with (folder / "groups.csv").open() as file:
        for row in csv.DictReader(file):
            if GROUPS_OF_PATIENTS.get(row["group"]) in without:
                continue
            image = Image.open(folder / "images" / row["file"])
            pixels = np.asarray(image.convert("L"))[None]
            spacing = (SLICE_MM, STOMACH_PIXEL_MM, STOMACH_PIXEL_MM)
            found = teacher.segment(Scan(voxels=pixels, spacing=spacing, name=row["file"]))
            labels = np.zeros(pixels.shape[1:], np.uint8)
            for organ, mask in zip(found.organs, found.masks, strict=True):
                labels[mask[0]] = organ.id if organ.name != "stomach" else 0
            truth = np.asarray(Image.open(folder / "masks" / row["file"]).convert("L")) > 0
            labels[truth] = 3
            image.convert("L").save(output / "images" / row["file"])
            Image.fromarray(labels).save(output / "labels" / row["file"])


def runs_of_slices(folder: Path) -> list[Scan]:
    """Single slices that follow each other and look it, as stacks."""
    scans = []
    for size in ("266_266", "360_310"):
        run: list[np.ndarray] = []
        number = None
        for file in [*sorted(folder.glob(f"*_{size}_*.png")), None]:
            pixels = None if file is None else np.asarray(Image.open(file))
            follows = (
                run and file is not None and pixels is not None
                and int(re.split("_", file.name)[1]) == number + 1
                and np.corrcoef(run[-1].ravel(), pixels.ravel())[0, 1] > MIN_LIKENESS
            )  # fmt: skip
            if not follows:
                if len(run) >= MIN_RUN:
                    name = f"run{size.replace('_', 'x')}n{number}"
                    spacing = (SLICE_MM, PIXEL_MM, PIXEL_MM)
                    scans.append(Scan(voxels=np.stack(run), spacing=spacing, name=name))
                run = []
            if file is not None and pixels is not None:
                run.append(pixels)
                number = int(re.split("_", file.name)[1])
    return scans


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--without", default="", help="patients whom the teacher did not see")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    teacher = Segmenter(options.teacher)
    without = set(options.without.split(","))
    outlined_slices(options.data, teacher, without, options.output / "stomach_only")
    unlabelled = [
        *runs_of_slices(options.data / "unlabelled"),
        *(
            read_scan(scans)
            for folder in ("uwm_16bit_stack", "uwm_stacks")
            for scans in sorted((options.data / folder / "train").glob("*/*/scans"))
            if folder == "uwm_16bit_stack" or scans.parts[-3] == "case125"
        ),
    ]
    for kind in ("images", "labels"):
        (options.output / "stacks" / kind).mkdir(parents=True)
    for scan in unlabelled:
        write_scan(scan, options.output / "stacks" / "images" / f"{scan.name}.nii.gz")
        found = teacher.segment(scan)
        write_segmentation(found, options.output / "stacks" / "labels" / f"{scan.name}.nii.gz")
        print(scan.name, scan.voxels.shape, {o.name: int(m.sum()) for o, m in
              zip(found.organs, found.masks, strict=True)}, flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
