"""The batches of a training: what is drawn, cut out and changed at random."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import Dataset

from gitract.augment import augment
from gitract.errors import InputError
from gitract.preparation import network_input
from gitract.prepared import Stack
from gitract.recipe import Recipe

__all__ = ["Batch", "Batches", "crop_at_random", "one_thread", "split_by_patient"]


class Batch(NamedTuple):
    """What a network is trained on at once.

    Parameters
    ----------
    images
        float32, ``(sample, neighbour slice, row, column)``, for 3-D networks
        ``(sample, 1, slice, row, column)``.
    masks
        float32 0 or 1, ``(sample, organ, row, column)`` or ``(sample, organ, slice, row, column)``.
    known
        float32 ``(sample, organ)``, 1 where the organ was outlined.
    names
        Scan of each sample.
    """

    images: torch.Tensor
    masks: torch.Tensor
    known: torch.Tensor
    names: list[str]


def split_by_patient(
    stacks: Sequence[Stack], hold_out: Sequence[str]
) -> tuple[list[Stack], list[Stack]]:
    """Stacks to train on, and those of the held-out patients.

    Raises
    ------
    InputError
        A held-out patient is not there, or nobody is left to train on.
    """
    patients = {stack.patient for stack in stacks}
    unknown = [patient for patient in hold_out if patient not in patients]
    if unknown:
        raise InputError(
            f"Held-out patient {unknown[0]!r} is not in the data: there are "
            f"{', '.join(sorted(patients)[:12])}."
        )
    training = [stack for stack in stacks if stack.patient not in hold_out]
    if not training:
        raise InputError("Every patient is held out: nobody is left to train on.")
    return training, [stack for stack in stacks if stack.patient in hold_out]


def _padding(extent: int, size: int) -> tuple[int, int]:
    missing = max(0, size - extent)
    return missing // 2, missing - missing // 2


def crop_at_random(
    images: torch.Tensor, masks: torch.Tensor, size: Sequence[int], generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad the last axes of both to at least `size`, centred, then cut at a random place."""
    extents = images.shape[-len(size) :]
    pads = [_padding(extent, side) for extent, side in zip(extents, size, strict=True)]
    pad = [amount for pair in reversed(pads) for amount in pair]
    images, masks = functional.pad(images, pad), functional.pad(masks, pad)
    for axis, side in zip(range(-len(size), 0), size, strict=True):
        first = int(torch.randint(0, images.shape[axis] - side + 1, (), generator=generator))
        images, masks = images.narrow(axis, first, side), masks.narrow(axis, first, side)
    return images, masks


@contextmanager
def one_thread() -> Iterator[None]:
    """Many small operations: threads that wait for each other took ten times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Batches(Dataset[Batch]):
    """Batch number i of a run: a function of the seed and i alone, so a run can resume.

    Each sample has its own source of randomness, so it does not matter how many processes
    share a batch. Pools (a patient, or a source of single slices) are drawn by weight, then
    a stack of the pool, then a slice of it, with organ slices preferred.

    Parameters
    ----------
    stacks
        To draw from.
    recipe
        Preparation, sampling, augmentation, crop and seed.
    batch_size
        Samples of a batch, of all processes together.
    length
        Number of batches in the run.
    share
        Which of how many equal parts of each batch this process takes.
    """

    def __init__(
        self,
        stacks: Sequence[Stack],
        recipe: Recipe,
        *,
        batch_size: int,
        length: int,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self._recipe = recipe
        self._length = length
        self._samples = range(batch_size)[share[0] :: share[1]]
        pools: dict[str, list[Stack]] = defaultdict(list)
        for stack in stacks:
            pools[stack.pool].append(stack)
        self._pools = list(pools.values())
        self._stack_weights = [
            np.array([len(stack.slices) for stack in pool], dtype=float) for pool in self._pools
        ]
        by_slices = recipe.sampling.patients == "slices"
        weights = np.array([
            pool[0].weight * (slices.sum() if by_slices else 1.0)
            for pool, slices in zip(self._pools, self._stack_weights, strict=True)
        ])  # fmt: skip
        self._pool_weights = weights / weights.sum()

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, step: int) -> Batch:
        with one_thread():
            samples = [self._sample(step, index) for index in self._samples]
            images, masks, known, names, generators = zip(*samples, strict=True)
            return Batch(
                *self._changed(torch.cat(images), torch.cat(masks), generators),
                torch.stack(known),
                list(names),
            )

    def _draw(self, random: np.random.Generator) -> tuple[Stack, int]:
        pool = random.choice(len(self._pools), p=self._pool_weights)
        weights = self._stack_weights[pool]
        stack = self._pools[pool][random.choice(len(weights), p=weights / weights.sum())]
        organs = stack.organ_slices
        if len(organs) and random.random() < self._recipe.sampling.organ_fraction:
            return stack, int(random.choice(organs))
        return stack, int(random.integers(len(stack.slices)))

    def _sample(
        self, step: int, index: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, str, torch.Generator]:
        """Images and masks of a sample before augmentation, and what draws that."""
        random = np.random.default_rng((self._recipe.seed, step, index))
        generator = torch.Generator().manual_seed(int(random.integers(2**62)))
        stack, place = self._draw(random)
        patch = self._recipe.preparation.patch
        images, masks = (
            self._block(stack, place, patch, generator)
            if patch
            else self._slice(stack, place, generator)
        )
        known = torch.tensor(stack.known, dtype=torch.float32)
        return images, masks, known, stack.name, generator

    def _slice(
        self, stack: Stack, place: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A slice with its neighbours, and its masks, as a batch of one."""
        size = (self._recipe.optimisation.crop,) * 2
        images = network_input(stack.slices, [place], self._recipe.preparation)
        return crop_at_random(images, stack.masks[None, :, place].float(), size, generator)

    @staticmethod
    def _block(
        stack: Stack, place: int, patch: tuple[int, int, int], generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Slices around one of them, and their masks of all organs, as channels."""
        depth, *size = patch
        count = len(stack.slices)
        offset = int(torch.randint(0, depth, (), generator=generator))
        first = max(0, min(place - offset, count - depth))
        block = slice(first, first + depth)
        pad = (0, 0, 0, 0, 0, max(0, depth - count))  # at the far end, as in prediction
        images = functional.pad(stack.slices[block].float()[None], pad)
        masks = functional.pad(stack.masks[:, block].float(), pad)
        return crop_at_random(images, masks.flatten(0, 1)[None], size, generator)

    def _changed(
        self, images: torch.Tensor, masks: torch.Tensor, generators: Sequence[torch.Generator]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Augment a batch; the slices of a patch are channels, and so changed alike."""
        patch, strength = self._recipe.preparation.patch, self._recipe.augmentation
        if patch:  # whose neighbours are no context, but contoured themselves
            strength = strength.model_copy(update={"repeat_centre": 0.0})
        images, masks = augment(
            images,
            masks,
            pixel_mm=self._recipe.preparation.pixel_mm,
            strength=strength,
            generators=generators,
        )
        if patch:
            return images[:, None], masks.unflatten(1, (-1, patch[0]))
        return images, masks
