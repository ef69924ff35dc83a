"""Random changes: repeatable, in range, the same for image and mask."""

import pytest
import torch
from pydantic import ValidationError

from gitract.augment import augment
from gitract.recipe import Augmentation

NONE = Augmentation(**dict.fromkeys(Augmentation.model_fields, 0.0))
GEOMETRY = ("rotation_deg", "scale", "shift", "elastic_mm")


def blobs(batch: int = 6, size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """A bright square off the centre, in three neighbours, and its mask."""
    masks = torch.zeros(batch, 3, size, size)
    masks[:, 2, 20:34, 30:50] = 1
    return 0.8 * masks[:, 2:].repeat(1, 3, 1, 1) + 0.1, masks


def changed(strength: Augmentation, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return augment(
        *blobs(), pixel_mm=2.5, strength=strength, generators=[generator] * len(blobs()[0])
    )


def test_a_seed_decides_everything() -> None:
    torch.manual_seed(1)
    images, masks = changed(Augmentation(), seed=3)
    torch.manual_seed(2)  # the global state must not matter
    again, masks_again = changed(Augmentation(), seed=3)
    assert torch.equal(images, again)
    assert torch.equal(masks, masks_again)
    assert not torch.equal(images, changed(Augmentation(), seed=4)[0])


@pytest.mark.parametrize("seed", range(3))
def test_shapes_and_ranges_stay(seed: int) -> None:
    images, masks = changed(Augmentation(gamma=1, contrast=1, noise=0.5, blur=1.0), seed)
    assert images.shape == (6, 3, 64, 64)
    assert masks.shape == (6, 3, 64, 64)
    assert torch.isfinite(images).all()
    assert 0 <= images.min() < images.max() <= 1
    assert set(masks.unique().tolist()) <= {0.0, 1.0}


def test_strength_zero_changes_nothing() -> None:
    images, masks = blobs()
    found, found_masks = changed(NONE)
    torch.testing.assert_close(found, images, atol=1e-3, rtol=0)
    assert torch.equal(found_masks, masks)


def test_the_input_is_left_alone() -> None:
    images, masks = blobs()
    copies = images.clone(), masks.clone()
    strength = Augmentation(repeat_centre=1.0, blur=1.0)
    augment(
        images,
        masks,
        pixel_mm=2.5,
        strength=strength,
        generators=[torch.Generator().manual_seed(0)] * len(images),
    )
    assert torch.equal(images, copies[0])
    assert torch.equal(masks, copies[1])


@pytest.mark.parametrize("change", GEOMETRY)
def test_image_and_mask_move_together(change: str) -> None:
    much = {"rotation_deg": 20.0, "scale": 0.2, "shift": 0.1, "elastic_mm": 6.0}[change]
    images, masks = changed(NONE.model_copy(update={change: much}))
    original = blobs()[1]
    assert not torch.equal(masks, original)
    bright = images[:, 1] > 0.5
    both = (bright & (masks[:, 2] > 0)).sum((1, 2))
    either = (bright | (masks[:, 2] > 0)).sum((1, 2))
    assert (both / either > 0.9).all()
    assert (masks[:, :2] == 0).all()  # organs don't leak into one another
    for neighbour in (0, 2):
        torch.testing.assert_close(images[:, neighbour], images[:, 1])


@pytest.mark.parametrize("change", sorted(set(Augmentation.model_fields) - {*GEOMETRY}))
def test_grey_values_change_without_moving_the_mask(change: str) -> None:
    images, masks = blobs()
    images[:, 0] = 0.3  # else neighbours are alike, and repeating the centre does nothing
    strong = NONE.model_copy(update={change: 1.0})
    found, found_masks = augment(
        images.clone(), masks, pixel_mm=2.5, strength=strong,
        generators=[torch.Generator().manual_seed(0)] * len(images),
    )  # fmt: skip
    assert (found - images).abs().max() > 0.05
    assert torch.equal(found_masks, masks)


def test_a_lone_slice_is_its_own_neighbour() -> None:
    images, masks = blobs()
    images[:, 0], images[:, 2] = 0.2, 0.6
    found, _ = augment(
        images, masks, pixel_mm=2.5, strength=NONE.model_copy(update={"repeat_centre": 1.0}),
        generators=[torch.Generator().manual_seed(0)] * len(images),
    )  # fmt: skip
    torch.testing.assert_close(found, found[:, 1:2].expand_as(found))
    torch.testing.assert_close(found[:, 1], blobs()[0][:, 1], atol=1e-3, rtol=0)


@pytest.mark.parametrize("setting", [{"noise": -0.1}, {"blur": 1.2}, {"nosie": 0.1}])
def test_impossible_strengths_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Augmentation(**setting)
