"""One training on reviewed slices, that keeps what the network knew."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from gitract.augment import augment
from gitract.data import crop_at_random, one_thread
from gitract.errors import InputError
from gitract.fine_tune.pages import Known, Page, ReplayPage, ScanPage
from gitract.fine_tune.settings import FineTuneSettings
from gitract.losses import SegmentationLoss
from gitract.model_config import Preparation
from gitract.preparation import NOTHING, network_input
from gitract.recipe import Loss

__all__ = ["Drawer", "blended", "trained"]


class _Sample(NamedTuple):
    """A batch; of a 3-D network each slice of a patch has its own flags.

    Parameters
    ----------
    images
        What goes into the network.
    masks
        ``(sample, organ, [slice,] row, column)``.
    void
        ``(sample, 1, [slice,] row, column)``.
    taught, remembered
        ``(sample, organ[, slice])``, 0 or 1.
    """

    images: torch.Tensor
    masks: torch.Tensor
    void: torch.Tensor
    taught: torch.Tensor
    remembered: torch.Tensor


@dataclass(frozen=True, eq=False)
class Drawer:
    """Draws batches: reviewed slices, untouched ones, and slices of the replay folder.

    Parameters
    ----------
    pages
        The scans that were corrected now, those of earlier corrections after them.
    current
        How many were corrected now: half of what is drawn is theirs.
    replay
        Labelled stacks; may be empty.
    preparation, settings
        Of the model, and of the job.
    """

    pages: Sequence[ScanPage]
    current: int
    replay: Sequence[ReplayPage]
    preparation: Preparation
    settings: FineTuneSettings

    def batch(self, generator: torch.Generator) -> _Sample:
        """Draw and change a batch."""
        drawn: list[tuple[Page, int]] = [
            self._reviewed(generator) for _ in range(self.settings.batch_size)
        ]
        untouched = [page for page in self.pages if page.untouched]
        if untouched:
            for _ in range(self.settings.remembered):
                page = untouched[_below(len(untouched), generator)]
                drawn.append((page, page.untouched[_below(len(page.untouched), generator)]))
        if self.replay:
            drawn += [self._replayed(generator) for _ in range(self.settings.replayed)]
        return self._changed(drawn, generator)

    def _reviewed(self, generator: torch.Generator) -> tuple[Page, int]:
        earlier = [page for page in self.pages[self.current :] if page.taught]
        now = [page for page in self.pages[: self.current] if page.taught]
        among = earlier if earlier and _below(2, generator) else now
        places = [(page, place) for page in among for place in page.taught]
        return places[_below(len(places), generator)]

    def _replayed(self, generator: torch.Generator) -> tuple[Page, int]:
        weights = torch.tensor([page.weight for page in self.replay])
        page = self.replay[int(torch.multinomial(weights, 1, generator=generator))]
        return page, page.places[_below(len(page.places), generator)]

    def _changed(self, drawn: Sequence[tuple[Page, int]], generator: torch.Generator) -> _Sample:
        """Images and what is known of them, changed at random alike."""
        cut = [
            _patch(page, place, self.preparation.patch, generator)
            if self.preparation.patch
            else _slice(page, place, self.preparation)
            for page, place in drawn
        ]
        side = max(images.shape[-1] for images, _ in cut)
        images = torch.cat([_padded(one, side) for one, _ in cut])
        masks = _padded(torch.stack([known.masks for _, known in cut]).float(), side)
        void = _padded(torch.stack([known.void for _, known in cut]).float(), side)
        maps = torch.cat([masks.flatten(1, -3), void.flatten(1, -3)], dim=1)
        images, maps = augment(
            images, maps, pixel_mm=self.preparation.pixel_mm,
            strength=self.settings.augmentation, generators=[generator] * len(images),
        )  # fmt: skip
        split = masks[0, ..., 0, 0].numel()
        return _Sample(
            images[:, None] if self.preparation.patch else images,
            maps[:, :split].reshape(masks.shape),
            maps[:, split:].reshape(void.shape),
            torch.stack([known.taught for _, known in cut]).float(),
            torch.stack([known.remembered for _, known in cut]).float(),
        )


def _below(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))


def _slice(page: Page, place: int, preparation: Preparation) -> tuple[torch.Tensor, Known]:
    """A slice with its neighbours ``(1, channel, row, column)``, square."""
    images = _square(network_input(page.slices, [place], preparation))
    known = page.known(place)
    return images, known._replace(masks=_square(known.masks), void=_square(known.void[None]))


def _patch(
    page: Page, place: int, patch: tuple[int, int, int], generator: torch.Generator
) -> tuple[torch.Tensor, Known]:
    """Slices around one of them ``(1, slice, row, column)``, and what is known of each."""
    depth, *size = patch
    count = len(page.slices)
    first = max(0, min(place - _below(depth, generator), count - depth))
    places = range(first, min(first + depth, count))
    each = [page.known(one) for one in places]
    masks = torch.stack([known.masks for known in each], dim=1).float()
    void = torch.stack([known.void for known in each])[None].float()
    beyond = (0, 0, 0, 0, 0, depth - len(places))  # at the far end, as in prediction
    maps = nn.functional.pad(torch.cat([masks, void]), beyond)
    images = nn.functional.pad(page.slices[places.start : places.stop].float()[None], beyond)
    images, flat = crop_at_random(images, maps.flatten(0, 1)[None], size, generator)
    maps = flat.reshape(*maps.shape[:2], *size)
    flags = [torch.stack([getattr(known, name) for known in each], dim=1)
             for name in ("taught", "remembered")]  # fmt: skip
    taught, remembered = (nn.functional.pad(one, (0, depth - len(places))) for one in flags)
    return images, Known(maps[:-1], maps[-1:], taught, remembered)


def _square(maps: torch.Tensor) -> torch.Tensor:
    """Pad ``(..., row, column)`` with air to a square, as augmentation turns it."""
    return _padded(maps, max(maps.shape[-2:]))


def _padded(maps: torch.Tensor, side: int) -> torch.Tensor:
    rows, columns = maps.shape[-2:]
    return nn.functional.pad(maps, (0, side - columns, 0, side - rows))


class _Objective:
    """What is minimised: the error on reviewed slices, and the change on all others."""

    def __init__(self) -> None:
        self._taught = SegmentationLoss()
        self._remembered = SegmentationLoss((Loss(kind="bce"),))

    def __call__(self, logits: torch.Tensor, sample: _Sample) -> torch.Tensor:
        logits, masks = _by_slice(logits), _by_slice(sample.masks)
        void = _by_slice(sample.void) > 0
        taught, remembered = _flags_by_slice(sample.taught), _flags_by_slice(sample.remembered)
        logits = logits.masked_fill(void, NOTHING)
        masks = masks.masked_fill(void, 0.0)
        loss: torch.Tensor = self._taught(logits, masks, taught)
        return loss + self._remembered(logits, masks, remembered)


def _by_slice(maps: torch.Tensor) -> torch.Tensor:
    """``(sample, organ, slice, row, column)`` as ``(sample and slice, organ, row, column)``."""
    return maps.movedim(2, 1).flatten(0, 1) if maps.dim() == 5 else maps


def _flags_by_slice(flags: torch.Tensor) -> torch.Tensor:
    return flags.movedim(2, 1).flatten(0, 1) if flags.dim() == 3 else flags


def trained(
    network: nn.Module,
    drawer: Drawer,
    steps: int,
    device: torch.device,
    *,
    only: Sequence[nn.Parameter] | None = None,
    rate: float | None = None,
) -> Iterator[float]:
    """Train a network in place, one step for each number taken: the loss.

    Batch normalisation keeps its statistics: a few slices of one patient are no better
    estimate of them, and a batch may hold a single slice.

    Parameters
    ----------
    network
        On the device.
    drawer
        Of the batches.
    steps
        How many.
    device
        Where.
    only
        What of the network may change; everything when not given.
    rate
        Learning rate; that of the settings when not given.

    Raises
    ------
    InputError
        The loss is not finite any more.
    """
    generator = torch.Generator().manual_seed(drawer.settings.seed)
    parameters = list(network.parameters()) if only is None else list(only)
    changing = {id(parameter) for parameter in parameters}
    for parameter in network.parameters():  # no gradient is computed that nobody uses
        parameter.requires_grad_(id(parameter) in changing)
    optimizer = torch.optim.AdamW(parameters, rate or drawer.settings.learning_rate)
    minimised = _Objective()
    flat = drawer.preparation.patch is None
    layout = torch.channels_last if flat else torch.contiguous_format
    for _ in range(steps):
        network.eval()  # dropout and batch statistics off; gradients flow all the same
        with one_thread():
            sample = drawer.batch(generator)
        logits = network(sample.images.to(device, memory_format=layout))
        loss = minimised(logits, _Sample(*(part.to(device) for part in sample)))
        if not torch.isfinite(loss):
            raise InputError(f"The training diverged (loss {loss.item()}): nothing was kept.")
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        yield loss.item()


def blended(before: nn.Module, after: nn.Module, share: float) -> nn.Module:
    """A network between two of the same form.

    Parameters
    ----------
    before, after
        Not changed.
    share
        0 gives `before`, 1 gives `after`.
    """
    network = copy.deepcopy(after)
    old = before.state_dict()
    network.load_state_dict({
        name: torch.lerp(old[name], tensor, share) if tensor.is_floating_point() else tensor
        for name, tensor in after.state_dict().items()
    })  # fmt: skip
    return network.eval()
