"""Training data in memory: prepared stacks with their masks, and the batches drawn from them."""

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import Dataset

from gitract.augment import augment
from gitract.errors import InputError
from gitract.io.competition import SliceFile, list_slices
from gitract.io.png import read_grey_png
from gitract.io.rle import decode_rle, read_rle_table, slice_id
from gitract.model_config import Preparation
from gitract.organs import ORGANS, organ_named
from gitract.preparation import network_input, prepare_slices
from gitract.progress import Progress, Report, silent
from gitract.recipe import CompetitionSource, PairsSource, Recipe
from gitract.scan import Scan, Segmentation, Spacing

__all__ = [
    "Batches",
    "Stack",
    "labelled_runs",
    "load_stacks",
    "prepare_masks",
    "split_by_patient",
]


@dataclass(frozen=True, eq=False)
class Stack:
    """Neighbouring slices of one patient, prepared for the network.

    Parameters
    ----------
    name, patient
        ``case20_day0``, ``case20``.
    slices
        float32 ``(slice, row, column)``, what `prepare_slices` gave.
    masks
        bool ``(organ, slice, row, column)`` on the same grid.
    known
        Which organs were outlined.
    weight
        How often the pool that it belongs to is drawn.
    pool
        Stacks with the same pool share its weight: a patient, or a whole source of
        single slices.
    """

    name: str
    patient: str
    slices: torch.Tensor
    masks: torch.Tensor
    known: tuple[bool, ...]
    weight: float
    pool: str


def prepare_masks(masks: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """Resample masks ``(organ, slice, row, column)`` to prepared slices of `size`."""
    coarse = functional.interpolate(
        torch.from_numpy(masks.astype(np.float32)),
        size=size,
        mode="bilinear",
        antialias=True,
        align_corners=False,
    )
    return coarse > 0.5


def _prepared(
    voxels: np.ndarray, masks: np.ndarray, spacing: Spacing, preparation: Preparation
) -> tuple[torch.Tensor, torch.Tensor]:
    slices = prepare_slices(voxels, spacing, preparation)
    return slices, prepare_masks(masks, (slices.shape[1], slices.shape[2]))


def _runs(files: Sequence[SliceFile]) -> Iterator[list[SliceFile]]:
    """Split a day into runs of consecutive slices of one size: a day may have holes."""
    run: list[SliceFile] = []
    for file in files:
        if run and (file.number != run[-1].number + 1 or file[2:] != run[-1][2:]):
            yield run
            run = []
        run.append(file)
    if run:
        yield run


def labelled_runs(
    folder: Path, cases: Sequence[str] | None = None
) -> Iterator[tuple[Scan, Segmentation]]:
    """The outlined days of a folder in the competition's layout.

    A day that lacks slices comes as several runs of consecutive ones; a day that nobody
    outlined does not come at all, since its empty masks mean nothing.

    Parameters
    ----------
    folder
        Holds ``train.csv`` and ``train/caseN/caseN_dayM/scans``.
    cases
        Only these patients, as ``case20``, or days, as ``case20_day0``; None for all.

    Yields
    ------
    tuple of Scan and Segmentation

    Raises
    ------
    InputError
        The table or a slice cannot be read, or a case is not there.
    """
    table = read_rle_table(folder / "train.csv")
    outlined = {name.split("_slice_")[0] for name, rles in table.items() if any(rles.values())}
    wanted = set(cases or ())
    unknown = wanted - outlined - {day.split("_")[0] for day in outlined}
    if unknown:
        raise InputError(
            f"{folder} has no labels for {sorted(unknown)[0]!r}: there are "
            f"{', '.join(sorted(outlined))}."
        )
    for day in sorted((folder / "train").glob("case*/case*_day*")):
        chosen = not wanted or wanted & {day.name, day.name.split("_")[0]}
        if day.name not in outlined or not chosen:
            continue
        labelled = [f for f in list_slices(day) if slice_id(day.name, f.number) in table]
        for files in _runs(labelled):
            yield _labelled_run(files, day, table)


def _labelled_run(
    files: Sequence[SliceFile], day: Path, table: Mapping[str, Mapping[str, str]]
) -> tuple[Scan, Segmentation]:
    shape = (files[0].height, files[0].width)
    rows = [table[slice_id(day.name, file.number)] for file in files]
    masks = np.stack(
        [[decode_rle(row.get(organ.name, ""), shape) for row in rows] for organ in ORGANS]
    )
    numbers = tuple(file.number for file in files)
    voxels = np.stack([read_grey_png(file.path, shape=shape) for file in files])
    spacing = files[0].spacing
    return (
        Scan(voxels, spacing, name=day.name, source=day, slice_numbers=numbers),
        Segmentation(masks, spacing, name=day.name, slice_numbers=numbers),
    )


def _competition_stacks(
    source: CompetitionSource, folder: Path, preparation: Preparation
) -> Iterator[Stack]:
    for scan, segmentation in labelled_runs(folder):
        patient = scan.name.split("_")[0]
        slices, masks = _prepared(scan.voxels, segmentation.masks, scan.spacing, preparation)
        yield Stack(
            slices=slices,
            masks=masks,
            name=scan.name,
            patient=patient,
            known=(True,) * len(ORGANS),
            weight=source.weight,
            pool=f"{source.path}/{patient}",
        )


def _pair_patients(source: PairsSource, folder: Path, files: Iterable[Path]) -> dict[str, str]:
    """Patient of each image file, by file name."""
    if source.patients == "name":
        return {path.name: path.name.split("_")[0] for path in files}
    path = folder / source.patients
    try:
        with path.open(newline="", encoding="utf-8") as table:
            groups = {row["file"]: row["group"] for row in csv.DictReader(table)}
    except (OSError, UnicodeDecodeError, KeyError):
        raise InputError(
            f"{path} is not a readable table with the columns file and group."
        ) from None
    missing = [file.name for file in files if file.name not in groups]
    if missing:
        raise InputError(f"{path} does not say which group {missing[0]} belongs to.")
    return {
        name: source.same_patient.get(group, f"{source.path}-{group}")
        for name, group in groups.items()
    }


def _pair_stacks(source: PairsSource, folder: Path, preparation: Preparation) -> Iterator[Stack]:
    files = sorted((folder / source.images).glob("*.png"))
    if not files:
        raise InputError(f"{folder / source.images} holds no PNG images.")
    if (source.field_of_view_mm is None) == (source.pixel_mm is None):
        raise InputError(
            f"Source {source.path}: give either field_of_view_mm or pixel_mm, not both or none."
        )
    patients = _pair_patients(source, folder, files)
    values = {organ_named(name).id: value for value, name in source.label_values.items()}
    outlined = {organ_named(name).id for name in source.organs}
    known = tuple(organ.id in outlined for organ in ORGANS)
    for path in files:
        image = read_grey_png(path)
        shape = (image.shape[0], image.shape[1])
        labels = read_grey_png(folder / source.labels / path.name, shape=shape)
        pixel = source.pixel_mm or (source.field_of_view_mm or 0.0) / image.shape[1]
        truth = np.stack([labels == values.get(organ.id, -1) for organ in ORGANS])[:, None]
        slices, masks = _prepared(image[None], truth, (3.0, pixel, pixel), preparation)
        yield Stack(
            slices=slices,
            masks=masks,
            name=path.stem,
            patient=patients[path.name],
            known=known,
            weight=source.weight,
            pool=source.path,
        )


def load_stacks(recipe: Recipe, data: Path, report: Report = silent) -> list[Stack]:
    """Read and prepare every labelled stack of a recipe's sources.

    Parameters
    ----------
    recipe
        Its sources and preparation are used.
    data
        The folder that the sources' paths are below.
    report
        Called for each stack.

    Raises
    ------
    InputError
        A source is missing or holds nothing labelled.
    """
    stacks: list[Stack] = []
    for source in recipe.sources:
        folder = data / source.path
        if not folder.is_dir():
            raise InputError(f"The data folder {folder} does not exist.")
        before = len(stacks)
        found = (
            _competition_stacks(source, folder, recipe.preparation)
            if isinstance(source, CompetitionSource)
            else _pair_stacks(source, folder, recipe.preparation)
        )
        for stack in found:
            stacks.append(stack)
            report(Progress(len(stacks), 0, f"Reading {stack.name}"))
        if len(stacks) == before:
            raise InputError(f"{folder} holds no labelled slices.")
    return stacks


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


def _crop(
    images: torch.Tensor, masks: torch.Tensor, size: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad both to at least `size`, centred, then cut a square at a random place."""
    rows, columns = images.shape[-2:]
    below, right = max(0, size - rows), max(0, size - columns)
    pad = (right // 2, right - right // 2, below // 2, below - below // 2)
    images, masks = functional.pad(images, pad), functional.pad(masks, pad)
    top, left = (
        int(torch.randint(0, extent - size + 1, (), generator=generator))
        for extent in images.shape[-2:]
    )
    window = (..., slice(top, top + size), slice(left, left + size))
    return images[window], masks[window]


class Batches(Dataset[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]):
    """Batch number i of a run: a function of the seed and i alone, so a run can resume.

    Pools (a patient, or a source of single slices) are drawn by weight, then a stack of
    the pool, then a slice of it, with organ slices preferred.

    Parameters
    ----------
    stacks
        To draw from.
    recipe
        Preparation, augmentation, batch size, crop and seed.
    length
        Number of batches in the run.
    """

    def __init__(self, stacks: Sequence[Stack], recipe: Recipe, length: int) -> None:
        self._recipe = recipe
        self._length = length
        pools: dict[str, list[Stack]] = defaultdict(list)
        for stack in stacks:
            pools[stack.pool].append(stack)
        self._pools = list(pools.values())
        weights = np.array([pool[0].weight for pool in self._pools])
        self._pool_weights = weights / weights.sum()
        self._stack_weights = [
            np.array([len(stack.slices) for stack in pool], dtype=float) for pool in self._pools
        ]
        self._organ_slices = {
            id(stack): np.flatnonzero(stack.masks.any(dim=(0, 2, 3)).numpy()) for stack in stacks
        }

    def __len__(self) -> int:
        return self._length

    def _draw(self, random: np.random.Generator) -> tuple[Stack, int]:
        pool = random.choice(len(self._pools), p=self._pool_weights)
        weights = self._stack_weights[pool]
        stack = self._pools[pool][random.choice(len(weights), p=weights / weights.sum())]
        organs = self._organ_slices[id(stack)]
        if len(organs) and random.random() < self._recipe.optimisation.organ_fraction:
            return stack, int(random.choice(organs))
        return stack, int(random.integers(len(stack.slices)))

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        recipe = self._recipe
        random = np.random.default_rng((recipe.seed, step))
        generator = torch.Generator().manual_seed(int(random.integers(2**62)))
        images, masks, known = [], [], []
        for _ in range(recipe.optimisation.batch_size):
            stack, index = self._draw(random)
            image = network_input(stack.slices, [index], recipe.preparation)[0]
            mask = stack.masks[:, index].float()
            image, mask = _crop(image, mask, recipe.optimisation.crop, generator)
            images.append(image)
            masks.append(mask)
            known.append(stack.known)
        changed, masked = augment(
            torch.stack(images),
            torch.stack(masks),
            pixel_mm=recipe.preparation.pixel_mm,
            strength=recipe.augmentation,
            generator=generator,
        )
        return changed, masked, torch.tensor(known, dtype=torch.float32)
