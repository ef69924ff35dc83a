"""Networks that see patches of the stack are fine-tuned as those of slices are."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gitract.corrections import Corrections
from gitract.fine_tune import Candidate, FineTuneSettings, fine_tune
from gitract.fine_tune.lesson import Lesson, lesson_of
from gitract.fine_tune.pages import Known, ScanPage
from gitract.metrics import dice
from gitract.model_config import ModelConfig, NetworkConfig, Preparation
from gitract.model_store import ModelStore
from gitract.models import save_model
from gitract.models.registry import register
from gitract.models.weights import build_network
from gitract.organs import KNOWN_ORGANS, ORGANS
from gitract.orientation import Turn
from gitract.predict import Segmenter
from gitract.scan import Scan, Segmentation
from phantoms import stored_as

SHAPE = (16, 40, 44)
SLICES = (2, 5, 8, 11, 14)
OTHERS = (4, 6, 7, 9, 10, 12)
PATCH = (8, 24, 24)
PREPARATION = {"pixel_mm": 4.0, "patch": PATCH, "scaling": "scan"}
QUICK = FineTuneSettings(steps=2, evaluate_every=2, parts=2, batch_size=2)
LEARNT = FineTuneSettings(
    steps=40, evaluate_every=40, parts=2, batch_size=2, remembered=0, blend=1.0, learning_rate=2e-2
)


@register("test_net_3d", multiple=2, dimensions=3)
def _test_net_3d(in_channels: int, classes: int) -> nn.Module:
    """Learns what is bright within a second."""
    return nn.Sequential(
        nn.Conv3d(in_channels, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv3d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv3d(8, classes, 1),
    )


@pytest.fixture(scope="module")
def box() -> tuple[Scan, Segmentation]:
    """A bright box, which is a stomach."""
    mask = np.zeros(SHAPE, np.bool_)
    mask[4:13, 10:24, 14:30] = True
    noise = np.random.default_rng(0).integers(0, 200, SHAPE)
    scan = Scan((noise + np.where(mask, 500, 100)).astype(np.uint16), (3.0, 2.4, 2.4), name="box")
    masks = np.zeros((3, *SHAPE), np.bool_)
    masks[2] = mask
    return scan, Segmentation(masks, scan.spacing, name="box")


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., Path]:
    """A model folder with random weights."""

    def make(name: str = "test_net_3d", options: dict | None = None, **preparation: object) -> Path:
        torch.manual_seed(0)
        config = ModelConfig(
            id="random", title="Random",
            network=NetworkConfig(name=name, options=options or {}),
            preparation=Preparation(**{**PREPARATION, **preparation}),
        )  # fmt: skip
        folder = tmp_path / f"random-{name}"
        save_model(build_network(config), config, "# Random\n", folder)
        return folder

    return make


def tune(folder: Path, *corrections: Corrections, store: ModelStore, settings=QUICK) -> Candidate:
    return fine_tune(corrections, model=folder, device="cpu", settings=settings, store=store)


@pytest.mark.parametrize(
    "preparation",
    [{}, {"slice_mm": 4.5}, {"slice_mm": 2.0}, {"patch": (24, 32, 32)}, {"crop_to_body": True}],
    ids=str,
)
def test_a_3d_network_learns_and_draws_on_other_slices(
    model: Callable[..., Path], box: tuple[Scan, Segmentation], store: ModelStore, preparation: dict
) -> None:
    candidate = tune(
        model(**preparation), Corrections(*box, SLICES), store=store, settings=LEARNT
    )  # fmt: skip
    truth = box[1].masks[2]
    others = list(OTHERS)
    assert dice(candidate.after[0].masks[2, others], truth[others]) > 0.7
    found = Segmenter(candidate.keep("box").id, device="cpu", store=store).segment(box[0])
    different = np.count_nonzero(found.masks != candidate.after[0].masks)
    assert different < 0.001 * found.masks.size


def test_its_card_is_complete(
    model: Callable[..., Path], box: tuple[Scan, Segmentation], store: ModelStore
) -> None:
    card = tune(model(), Corrections(*box, SLICES), store=store, settings=LEARNT).card
    assert card.held_out == card.trained_on == SLICES
    assert card.steps == LEARNT.steps
    assert card.p_value is not None
    stomach = card.rows[2]
    assert stomach.slices == 3
    for number in (stomach.before, stomach.after, stomach.hd95_after, stomach.surface_after):
        assert number is not None
    assert stomach.after > stomach.before
    assert stomach.ml == pytest.approx(3 * 14 * 16 * 3.0 * 2.4 * 2.4 / 1000)
    assert [row.slices for row in card.rows] == [0, 0, 3]
    assert [one.where for one in card.retention] == ["untouched slices", "phantom"]
    assert card.retention[0].slices == SHAPE[0] - len(SLICES)


def test_a_network_of_the_zoo_goes_all_the_way(
    model: Callable[..., Path], box: tuple[Scan, Segmentation], store: ModelStore
) -> None:
    folder = model("segresnet", {"width": 8, "blocks": [1, 1]}, pixel_mm=8.0, patch=(8, 16, 16))
    labels = dataclasses.replace(
        box[1], masks=np.concatenate([box[1].masks, box[1].masks[2:, :, ::-1]]),
        organs=(*ORGANS, KNOWN_ORGANS[3]),
    )  # fmt: skip
    candidate = tune(folder, Corrections(box[0], labels, SLICES), store=store)
    assert [row.organ for row in candidate.card.rows] == list(labels.organs)
    kept = candidate.keep("tuned")
    assert kept.organs == labels.organs
    found = Segmenter(kept.id, device="cpu", store=store).segment(box[0])
    assert found.masks.shape == labels.masks.shape


def test_a_scan_stored_turned_gives_the_same_card(
    model: Callable[..., Path], box: tuple[Scan, Segmentation], store: ModelStore
) -> None:
    scan, truth = box
    turn = Turn(swap=True, flip_rows=True)
    stored = stored_as(scan, turn)
    turned = dataclasses.replace(
        truth, masks=np.ascontiguousarray(turn.back(truth.masks)), spacing=stored.spacing,
        affine=stored.affine,
    )  # fmt: skip
    one, other = (
        tune(model_folder, Corrections(*pair, SLICES), store=store).card
        for model_folder in [model(pixel_mm=8.0)]
        for pair in (box, (stored, turned))
    )
    assert one.rows == other.rows


# --- what is known of the slices of a patch ---------------------------------------------------


def lesson(folder: Path, corrections: Corrections, home: Path) -> Lesson:
    return lesson_of(
        [corrections], model=folder, home=home, device=torch.device("cpu"), settings=QUICK
    )  # fmt: skip


def test_in_a_patch_only_reviewed_slices_teach_and_only_untouched_ones_are_remembered(
    model: Callable[..., Path], box: tuple[Scan, Segmentation], store: ModelStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    labels = dataclasses.replace(box[1], provenance={"rejected": [4, 9]})
    job = lesson(model(), Corrections(box[0], labels, SLICES), store.home)
    seen: dict[int, Known] = {}
    own = ScanPage.known

    def known(page: ScanPage, place: int) -> Known:
        seen[place] = own(page, place)
        return seen[place]

    monkeypatch.setattr(ScanPage, "known", known)
    drawer = job.drawer([(0, index) for index in SLICES if index != 8])
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        drawer.batch(generator)
    assert set(seen) == set(range(SHAPE[0]))  # neighbours come along, whatever they are
    assert {i for i, one in seen.items() if one.taught.any()} == {2, 5, 11, 14}
    silent = {i for i, one in seen.items() if not (one.taught | one.remembered).any()}
    assert silent == {4, 8, 9}  # rejected, held out, rejected


def test_patches_hold_masks_where_the_scan_has_them(
    model: Callable[..., Path], box: tuple[Scan, Segmentation], store: ModelStore
) -> None:
    job = lesson(model(), Corrections(*box, tuple(range(SHAPE[0]))), store.home)
    none = dict.fromkeys(type(QUICK.augmentation).model_fields, 0.0)
    still = QUICK.model_copy(update={"augmentation": type(QUICK.augmentation)(**none)})
    drawer = dataclasses.replace(job.drawer(job.places), settings=still)
    generator = torch.Generator().manual_seed(0)
    shown = 0
    for _ in range(6):
        batch = drawer.batch(generator)
        assert batch.images.shape[1:] == (1, *PATCH)
        assert batch.masks.shape[1:] == (3, *PATCH)
        assert batch.taught.shape[1:] == (3, PATCH[0])
        bright = batch.images[:, 0] > 0.55
        organ = batch.masks[:, 2] > 0.5
        shown += int(organ.sum())
        assert (bright != organ).float().mean() < 0.02
    assert shown
