"""Each recipe that comes along learns: it draws four slices almost as they were contoured."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gitract.data import Batches
from gitract.engine import SegmentationModule, stack_masks
from gitract.labelled import find_labelled
from gitract.metrics import dice
from gitract.model_config import ModelConfig
from gitract.models.weights import build_network
from gitract.organs import ORGANS
from gitract.phantom import abdomen, write_day
from gitract.prepared import Stack, prepared_stacks
from gitract.recipe import Augmentation, Recipe, read_recipe

MOST_STEPS = 120
CONFIGS = sorted((Path(__file__).parents[2] / "training" / "configs").glob("*.yaml"))


def shrunken(recipe: Recipe) -> Recipe:
    """The recipe at a coarse resolution and without augmentation: for seconds on a CPU."""
    is_3d = recipe.preparation.patch is not None
    preparation = recipe.preparation.model_copy(
        update={
            "pixel_mm": 3.6,
            "slice_mm": None,
            "crop_to_body": False,
            "patch": (8, 64, 64) if is_3d else None,
        }  # fmt: skip
    )
    optimisation = recipe.optimisation.model_copy(
        update={"batch_size": 1 if is_3d else 4, "crop": 64, "learning_rate": 1e-3, "warm_up": 0}
    )
    off = Augmentation(**dict.fromkeys(Augmentation.model_fields, 0.0))
    options = recipe.network.options | ({"width": 8} if is_3d else {})
    network = recipe.network.model_copy(update={"options": options})
    return recipe.model_copy(
        update={
            "network": network,
            "preparation": preparation,
            "optimisation": optimisation,
            "augmentation": off,
            "sources": (),
        }  # fmt: skip
    )


def four_slices(recipe: Recipe, folder: Path) -> Stack:
    write_day(folder, *abdomen((48, 96, 96), seed=3, name="case1_day0"))
    found = find_labelled(folder)
    whole = prepared_stacks(found, ORGANS, recipe.preparation, folder / "cache")[0]
    slices = whole.masks.any(dim=(2, 3)).sum(0)
    first = int(torch.nn.functional.avg_pool1d(slices[None].float(), 4, 1).argmax())
    four = slice(first, first + 4)
    return Stack(
        whole.name, whole.patient, whole.slices[four], whole.masks[:, four], whole.known,
        1.0, "one", np.arange(4), whole.facts,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_recipe_overfits_four_slices_in_a_few_dozen_steps(path: Path, tmp_path: Path) -> None:
    recipe = shrunken(read_recipe(path))
    torch.manual_seed(0)
    stack = four_slices(recipe, tmp_path)
    config = ModelConfig(
        id=recipe.id, title=recipe.title, network=recipe.network, preparation=recipe.preparation
    )
    module = SegmentationModule(build_network(config), recipe, ORGANS)
    size = int(recipe.optimisation.batch_size)
    batches = Batches([stack], recipe, batch_size=size, length=MOST_STEPS)
    optimizer = torch.optim.AdamW(module.network.parameters(), 1e-3)
    reached = 0.0
    for step in range(MOST_STEPS):
        module.train()
        optimizer.zero_grad()
        module.loss(batches[step]).backward()
        optimizer.step()
        if step >= 30 and step % 10 == 9:
            module.eval()
            answer = stack_masks(module.network, stack, recipe)
            reached = dice(answer, stack.masks.numpy()) or 0.0
            if reached > 0.95:
                break
    assert reached > 0.95
