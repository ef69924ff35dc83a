"""Batches: who is held out, and how slices and patches are drawn."""

import numpy as np
import pytest
import torch

from gitract.data import Batch, Batches, split_by_patient
from gitract.errors import InputError
from gitract.labelled.facts import RunFacts
from gitract.model_config import Preparation
from gitract.prepared import Stack
from gitract.recipe import Augmentation, Recipe, Sampling

NO_AUGMENTATION = Augmentation(**dict.fromkeys(Augmentation.model_fields, 0.0))


def stack(patient: str, slices: int = 5, *, organ_at: int | None = None, pool: str = "") -> Stack:
    """Slices whose grey value is their number / 100."""
    masks = torch.zeros(3, slices, 40, 48, dtype=torch.bool)
    if organ_at is not None:
        masks[2, organ_at, 10:20, 10:20] = True
    return Stack(
        name=f"{patient}_day0", patient=patient, masks=masks, known=(True, True, True),
        slices=(torch.arange(slices) / 100.0)[:, None, None].expand(slices, 40, 48).clone(),
        weight=1.0, pool=pool or patient,
        organ_slices=np.array([] if organ_at is None else [organ_at], dtype=int),
        facts=RunFacts(
            shape=(slices, 40, 48), spacing=(3.0, 1.0, 1.0), low=0, high=1, organs=(),
            outlined_slices=0, organ_voxels=0, overlap_voxels=0,
        ),
    )  # fmt: skip


def test_no_patient_is_on_both_sides() -> None:
    stacks = [stack(name) for name in ("case1", "case2", "case1", "case3", "case2")]
    training, held_out = split_by_patient(stacks, ["case2"])
    assert {s.patient for s in training} == {"case1", "case3"}
    assert {s.patient for s in held_out} == {"case2"}
    assert len(training) + len(held_out) == len(stacks)


def test_a_patient_who_is_not_there_cannot_be_held_out() -> None:
    with pytest.raises(InputError, match="'case20' is not in the data: there are case1, case2"):
        split_by_patient([stack("case1"), stack("case2")], ["case2", "case20"])


def test_somebody_must_be_left_to_train_on() -> None:
    with pytest.raises(InputError, match="nobody is left"):
        split_by_patient([stack("case1")], ["case1"])


# --- batches --------------------------------------------------------------------------------


def small_batches(recipe: Recipe, stacks: list[Stack], **changes: object) -> Batches:
    sampling = Sampling(organ_fraction=changes.pop("organ_fraction", 1.0))  # type: ignore[arg-type]
    optimisation = recipe.optimisation.model_copy(update=changes)
    update = {
        "optimisation": optimisation, "augmentation": NO_AUGMENTATION, "sampling": sampling,
    }  # fmt: skip
    return Batches(stacks, recipe.model_copy(update=update), batch_size=64, length=10)


def test_a_batch_depends_on_the_seed_and_its_number_alone(recipe: Recipe) -> None:
    stacks = [stack("case1", organ_at=2), stack("case2", 3)]
    for one in stacks:
        one.slices.copy_(torch.rand(one.slices.shape))
    one, other = (
        Batches(stacks, recipe, batch_size=6, length=10),
        Batches(stacks, recipe, batch_size=6, length=10),
    )
    _ = one[0], one[7]
    torch.manual_seed(99)
    for first, second in zip(one[4][:3], other[4][:3], strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(one[4][0], one[5][0])
    changed = recipe.model_copy(update={"seed": 1})
    elsewhere = Batches(stacks, changed, batch_size=6, length=10)
    assert not torch.equal(one[4][0], elsewhere[4][0])


def test_batches_have_the_size_that_the_recipe_says(recipe: Recipe) -> None:
    images, masks, known, names = Batches([stack("case1")], recipe, batch_size=6, length=3)[0]
    assert images.shape == (6, 3, 32, 32)
    assert masks.shape == (6, 3, 32, 32)
    assert known.shape == (6, 3)
    assert names == ["case1_day0"] * 6


def test_small_slices_are_padded_to_the_crop(recipe: Recipe) -> None:
    images, masks, *_ = small_batches(recipe, [stack("case1", organ_at=1)], crop=64)[0]
    assert images.shape == (64, 3, 64, 64)
    assert (masks.sum((1, 2, 3)) > 0).any()


@pytest.mark.parametrize(("fraction", "share"), [(1.0, 1.0), (0.0, 0.1), (0.6, 0.64)])
def test_slices_with_organs_are_preferred(recipe: Recipe, fraction: float, share: float) -> None:
    only = stack("case1", 10, organ_at=4)
    batches = small_batches(recipe, [only], organ_fraction=fraction, crop=64)
    with_organ = torch.cat([(batches[i][1].sum((1, 2, 3)) > 0).float() for i in range(4)])
    assert float(with_organ.mean()) == pytest.approx(share, abs=0.12)


def test_a_patient_with_many_slices_is_drawn_as_often_as_another(recipe: Recipe) -> None:
    many, few = stack("case1", 40), stack("case2", 2)
    few.slices.add_(0.6)
    images = torch.cat([small_batches(recipe, [many, few])[i][0] for i in range(6)])
    share = float((images.amax((1, 2, 3)) > 0.55).float().mean())
    assert share == pytest.approx(0.5, abs=0.12)


def test_a_stack_without_organs_can_be_drawn(recipe: Recipe) -> None:
    _, masks, *_ = small_batches(recipe, [stack("case1")], organ_fraction=1.0)[0]
    assert masks.sum() == 0


def test_processes_share_a_batch_and_nothing_is_drawn_twice(recipe: Recipe) -> None:
    stacks = [stack("case1", organ_at=2), stack("case2", 3)]
    for one in stacks:
        one.slices.copy_(torch.rand(one.slices.shape))
    whole = Batches(stacks, recipe, batch_size=6, length=3)[1]
    parts = [
        Batches(stacks, recipe, batch_size=6, length=3, share=(process, 2))[1]
        for process in range(2)
    ]
    for process, part in enumerate(parts):
        assert torch.equal(part.images, whole.images[process::2])
        assert torch.equal(part.masks, whole.masks[process::2])
        assert part.names == whole.names[process::2]


def test_patients_can_be_drawn_by_their_slices(recipe: Recipe) -> None:
    many, few = stack("case1", 38), stack("case2", 2)
    few.slices.add_(0.6)
    by_slices = recipe.model_copy(
        update={"sampling": Sampling(organ_fraction=0, patients="slices"),
                "augmentation": NO_AUGMENTATION}
    )  # fmt: skip
    batches = Batches([many, few], by_slices, batch_size=64, length=6)
    images = torch.cat([batches[i].images for i in range(6)])
    share = float((images.amax((1, 2, 3)) > 0.55).float().mean())
    assert share == pytest.approx(0.05, abs=0.04)


@pytest.mark.parametrize("slices", [5, 8, 21])
def test_patches_hold_neighbouring_slices_with_their_masks(recipe: Recipe, slices: int) -> None:
    one = stack("case1", slices, organ_at=2)
    patch = recipe.model_copy(
        update={
            "preparation": Preparation(pixel_mm=6.0, patch=(8, 32, 32)),
            "augmentation": NO_AUGMENTATION,
        }
    )
    batch: Batch = Batches([one], patch, batch_size=16, length=1)[0]
    assert batch.images.shape == (16, 1, 8, 32, 32)
    assert batch.masks.shape == (16, 3, 8, 32, 32)
    for image, masks in zip(batch.images[:, 0], batch.masks, strict=True):
        values = (100 * image.amax((1, 2))).round().int().tolist()
        inside = [value for value in values if value]
        assert inside == list(range(inside[0], inside[0] + len(inside)))
        with_organ = masks[2].any(dim=(1, 2)).nonzero().flatten().tolist()
        assert [values[index] for index in with_organ] in ([2], [])
    assert batch.masks.any()
