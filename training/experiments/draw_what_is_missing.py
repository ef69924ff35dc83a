"""A start without labels: draw the parts of a slice that were wiped out.

A masked autoencoder in the manner of He et al. 2021 (arXiv:2111.06377), with a convolutional
network: squares of the slice and its neighbours are wiped out, and the network draws what the
centre slice showed there. Learns from every slice of `DATA`, outlined or not; nothing of who
is held out is learned but the look of their scans.

    python training/experiments/draw_what_is_missing.py --data DATA \\
        --config training/configs/gi-tract-small.yaml -o training/starts/drawn.safetensors
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional

from gitract.augment import augment
from gitract.io import read_scan
from gitract.labelled import find_labelled
from gitract.model_config import Preparation
from gitract.models import create_model
from gitract.models.weights import start_from
from gitract.preparation import network_input, prepare_scan
from gitract.recipe import Augmentation, read_recipe

UNLABELLED = ("uwm_stacks/train/case125", "uwm_16bit_stack/train/case900")
SIDE = 128  # of a crop, in prepared pixels
SQUARE = 16  # what is wiped out at once
WIPED = 0.5


def stacks(data: Path, preparation: Preparation) -> list[torch.Tensor]:
    """Everything there is, prepared: whole stacks, and single slices as stacks of one."""
    # A labelled day may lack slices, and is then read in runs.
    labelled = find_labelled(data / "uwm_stacks")
    found = [run.scan for one in labelled for run in one.read()]
    found += [read_scan(data / place) for place in UNLABELLED]
    prepared = [prepare_scan(scan.voxels, scan.spacing, preparation).slices for scan in found]
    for folder, pixel_mm in (
        ("unlabelled", 1.5),
        ("stomach_only/images", 3.7),
        ("pairs/images", 399 / 512),
    ):
        for file in sorted((data / folder).glob("*.png")):
            pixels = np.asarray(Image.open(file).convert("L"))[None]
            prepared.append(prepare_scan(pixels, (3.0, pixel_mm, pixel_mm), preparation).slices)
    return prepared


def crop(
    slices: torch.Tensor, preparation: Preparation, random: np.random.Generator
) -> torch.Tensor:
    """A slice with its neighbours, padded and cut to a square at random."""
    images = network_input(slices, [int(random.integers(len(slices)))], preparation)
    rows, columns = (max(0, SIDE - side) for side in images.shape[-2:])
    images = functional.pad(
        images, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
    )
    top, left = (int(random.integers(side - SIDE + 1)) for side in images.shape[-2:])
    return images[..., top : top + SIDE, left : left + SIDE]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--encoder", help="in place of the recipe's")
    parser.add_argument("--start", help="in place of the recipe's")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    recipe = read_recipe(options.config)
    preparation = recipe.preparation
    network = create_model(
        recipe.network.name, in_channels=preparation.channels, classes=1,
        **{**recipe.network.options, **({"encoder": options.encoder} if options.encoder else {})},
    )  # fmt: skip
    start_from(network, Path(options.start or str(recipe.start)))
    everything = stacks(options.data, preparation)
    chances = np.sqrt([len(one) for one in everything])
    chances /= chances.sum()
    random, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, options.steps)
    total = 0.0
    for step in range(options.steps):
        chosen = random.choice(len(everything), 16, p=chances)
        images = torch.cat([crop(everything[one], preparation, random) for one in chosen])
        images, _ = augment(
            images, torch.zeros(16, 1, SIDE, SIDE), pixel_mm=preparation.pixel_mm,
            strength=Augmentation(), generators=[generator] * 16,
        )  # fmt: skip
        squares = torch.rand((16, 1, SIDE // SQUARE, SIDE // SQUARE), generator=generator) < WIPED
        wiped = functional.interpolate(squares.float(), scale_factor=SQUARE)
        drawn = torch.sigmoid(network(images * (1 - wiped)))
        centre = images.shape[1] // 2
        wrong = ((drawn - images[:, centre : centre + 1]).abs() * wiped).sum() / wiped.sum()
        optimiser.zero_grad()
        wrong.backward()
        optimiser.step()
        schedule.step()
        total += wrong.item()
        if (step + 1) % 50 == 0:
            print(f"step {step + 1}: wrong by {total / 50:.4f}", flush=True)
            total = 0.0
    head = "segmentation_head"
    kept = {
        name: value.contiguous() for name, value in network.state_dict().items() if head not in name
    }
    save_file(kept, options.output)


if __name__ == "__main__":
    main()
