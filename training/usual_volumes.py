"""Make ``gitract/usual_volumes.json``: how large the organs of whole scans usually are.

Of each organ the percentiles over days, from a table of run lengths with the further columns
``width``, ``height`` and ``spacing`` (the pixel's side in mm). Only numbers are written.

    python training/usual_volumes.py TABLE [OUTPUT]
"""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gitract.contour_checks import UsualVolume, UsualVolumes
from gitract.field_of_view import sides_cut
from gitract.io.rle import decode_rle
from gitract.organs import ORGANS
from gitract.scan import Segmentation

OUTPUT = Path(__file__).parent / "gitract" / "usual_volumes.json"
SOURCE = (
    "UW-Madison GI Tract Image Segmentation data (Lee et al., Data in Brief 57, 2024, 111159): "
    "the experts' contours"
)
SLICE_MM = 3.0
LENGTHS = (80, 144)  # slices of a whole day
PERCENTILES = (5, 50, 95)

Rows = list[dict[str, str]]


def days_of(table: Path) -> dict[str, dict[int, Rows]]:
    """Day -> slice number -> its rows."""
    days: dict[str, dict[int, Rows]] = {}
    with table.open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            day, _, number = row["id"].partition("_slice_")
            days.setdefault(day, {}).setdefault(int(number), []).append(row)
    return days


def whole_days(table: Path) -> Iterator[Segmentation]:
    """The contours of each day of which no slice is lacking."""
    for day, slices in days_of(table).items():
        if sorted(slices) != list(range(1, len(slices) + 1)) or len(slices) not in LENGTHS:
            continue
        first = slices[1][0]
        shape, pixel_mm = (int(first["height"]), int(first["width"])), float(first["spacing"])
        masks = np.zeros((len(ORGANS), len(slices), *shape), dtype=np.bool_)
        places = {organ.name: place for place, organ in enumerate(ORGANS)}
        for number, rows in slices.items():
            for row in rows:
                masks[places[row["class"]], number - 1] = decode_rle(row["segmentation"], shape)
        yield Segmentation(masks, (SLICE_MM, pixel_mm, pixel_mm), name=day)


def usual(table: Path) -> UsualVolumes:
    """Percentiles by organ; a day counts where the organ is there and lies inside the scan."""
    volumes: dict[str, list[tuple[str, float]]] = {organ.name: [] for organ in ORGANS}
    for day in whole_days(table):
        for organ, mask in zip(day.organs, day.masks, strict=True):
            if mask.any() and not sides_cut(mask):
                patient = day.name.partition("_")[0]
                volumes[organ.name].append((patient, day.volumes_ml[organ.name]))
    organs = {}
    for name, found in volumes.items():
        low, median, high = np.percentile([ml for _, ml in found], PERCENTILES).round(1)
        organs[name] = UsualVolume(
            low_ml=low,
            median_ml=median,
            high_ml=high,
            days=len(found),
            patients=len({patient for patient, _ in found}),
        )
    return UsualVolumes(source=SOURCE, organs=organs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("output", type=Path, nargs="?", default=OUTPUT)
    options = parser.parse_args()
    options.output.write_text(usual(options.table).model_dump_json(indent=2) + "\n", "utf-8")
    print(f"Written to {options.output}.")


if __name__ == "__main__":
    main()
