"""Where the organs usually lie, from labels without images, added to a network's logits.

The prior is the share of patients of `labels_only` whose organ covers a place, counted in mm
from the middle of the scan, blurred. Of each fold's network the logits on the patient held out
are taken, and the prior's log odds are added with some weight; that patient's own labels are
left out of the prior.

    python training/experiments/position_prior.py --data DATA --folds RUNS
"""

import argparse
import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, map_coordinates

from gitract.cross_validation import read_split
from gitract.io.rle import decode_rle
from gitract.labelled import find_labelled
from gitract.looks import prepared_logits
from gitract.metrics import dice
from gitract.models import load_network
from gitract.preparation import prepare_scan
from gitract.runner import Runner

ORGANS = ("large_bowel", "small_bowel", "stomach")
GRID_MM, HALF_MM, SLICE_MM = 6.0, 240.0, 3.0
SLICES = {(276, 276): 80}  # of a scan, by its size; else 144
BLUR_MM = (15.0, 10.0, 10.0)
WEIGHTS = (0.0, 0.1, 0.2, 0.4)


def places(shape: tuple[int, ...], spacing: tuple[float, ...], first: float) -> list[np.ndarray]:
    """Index into the prior of every voxel along each axis; `first` slice in mm from the middle."""
    slices = first + np.arange(shape[0]) * spacing[0]
    rows, columns = (
        (np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape[1:], spacing[1:], strict=True)
    )
    return [(axis + HALF_MM) / GRID_MM for axis in (slices, rows, columns)]


def priors(table: Path) -> dict[str, np.ndarray]:
    """By patient: share of his days in which each organ covers a place."""
    side = int(2 * HALF_MM / GRID_MM)
    days: dict[str, np.ndarray] = {}
    with table.open() as file:
        for row in csv.DictReader(file):
            if not row["segmentation"]:
                continue
            case, day, _, number = row["id"].split("_")
            height, width = int(row["height"]), int(row["width"])
            count = SLICES.get((height, width), 144)
            first = (int(number) - (count + 1) / 2) * SLICE_MM
            mm = float(row["spacing"])
            axes = places((1, height, width), (SLICE_MM, mm, mm), first)
            near = [np.clip(np.round(axis).astype(int), 0, side - 1) for axis in axes]
            volume = days.setdefault(f"{case}_{day}", np.zeros((3, side, side, side), np.float32))
            inside = np.nonzero(decode_rle(row["segmentation"], (height, width)))
            organ = volume[ORGANS.index(row["class"])]
            organ[near[0][0], near[1][inside[0]], near[2][inside[1]]] = 1.0
    by_patient = defaultdict(list)
    for name, volume in days.items():
        by_patient[name.split("_")[0]].append(volume)
    return {name: np.mean(volumes, axis=0) for name, volumes in by_patient.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folds", type=Path, required=True, help="a run of `gitract train`")
    options = parser.parse_args()
    by_patient = priors(options.data / "labels_only" / "native_rle_37days.csv")
    blur = [mm / GRID_MM for mm in BLUR_MM]
    scans = find_labelled(options.data / "uwm_stacks")
    print("patient", *(f"{w}: stomach, large bowel, small bowel" for w in WEIGHTS), sep=" | ")
    for fold, held_out in enumerate(read_split(options.folds / "split.yaml").folds, start=1):
        network, config = load_network(options.folds / f"fold-{fold}" / "model")
        others = [volume for name, volume in by_patient.items() if name not in held_out]
        share = np.stack([gaussian_filter(one, blur) for one in np.mean(others, axis=0)])
        odds = np.log(np.clip(share, 0.005, 0.995) / (1 - np.clip(share, 0.005, 0.995)))
        found: dict[float, dict[str, list[float]]] = {w: defaultdict(list) for w in WEIGHTS}
        for one in scans:
            if one.patient not in held_out:
                continue
            pairs: dict[tuple[float, str], list[np.ndarray]] = defaultdict(list)
            for run in one.read():
                scan = run.scan
                prepared = prepare_scan(scan.voxels, scan.spacing, config.preparation)
                with torch.inference_mode():
                    answers = prepared_logits(
                        Runner(network),
                        prepared.slices,
                        range(len(prepared.slices)),
                        config.preparation,
                    )
                    maps = torch.cat([logits for _, logits in answers]).swapaxes(0, 1)
                    logits = prepared.back(maps).numpy()
                first_number = scan.slice_numbers[0] if scan.slice_numbers else 1
                axes = places(
                    scan.voxels.shape, scan.spacing, (first_number - 72.5) * scan.spacing[0]
                )
                where = np.meshgrid(*axes, indexing="ij")
                for organ, name in enumerate(ORGANS):
                    usual = map_coordinates(odds[organ], where, order=1, mode="nearest")
                    index = [o.name for o in config.organs].index(name)
                    truth = run.truth.masks[[o.name for o in run.truth.organs].index(name)]
                    for weight in WEIGHTS:
                        mask = logits[index] + weight * (usual + 2.0) > 0
                        pairs[weight, name].append(np.stack([mask.ravel(), truth.ravel()]))
            for (weight, name), runs in pairs.items():
                found[weight][name].append(dice(*np.concatenate(runs, axis=1)) or 0.0)
        cells = [
            " ".join(
                f"{np.mean(found[w][o]):.3f}" for o in ("stomach", "large_bowel", "small_bowel")
            )
            for w in WEIGHTS
        ]
        print(held_out[0], *cells, sep=" | ", flush=True)


if __name__ == "__main__":
    main()
