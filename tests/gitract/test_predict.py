"""Scan in, segmentation out: the right slices on the right grid, or nothing."""

import dataclasses
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import interpolate

from gitract import predict
from gitract.baseline import edited_slices
from gitract.corrections import Corrections
from gitract.decision import TIDY, Decision
from gitract.devices import choose_device, likely_devices
from gitract.errors import Cancelled, InputError
from gitract.fine_tune import FineTuneSettings, fine_tune
from gitract.metrics import dice
from gitract.model_config import ModelConfig, NetworkConfig, Preparation
from gitract.model_store import ModelStore
from gitract.models import load_network, save_model
from gitract.models.ensemble import ensemble_of
from gitract.models.registry import register
from gitract.models.weights import build_network
from gitract.orientation import Turn
from gitract.patches import logits_by_patches, patch_starts
from gitract.phantom import abdomen
from gitract.predict import Segmenter, chosen_slices
from gitract.progress import Progress
from gitract.runner import Runner
from gitract.scan import Scan, Segmentation
from gitract.views import SEVERAL_VIEWS, Views
from phantoms import stored_as
from sentences import assert_one_sentence


@pytest.fixture(scope="module")
def segmenter(trained: SimpleNamespace) -> Segmenter:
    return Segmenter(trained.result.model, device="cpu")


@pytest.fixture(scope="module")
def found(segmenter: Segmenter, phantom: tuple[Scan, Segmentation]) -> Segmentation:
    """All slices of the phantom."""
    return segmenter.segment(phantom[0])


def scan_of(voxels: np.ndarray, spacing: tuple[float, float, float] = (3.0, 2.4, 2.4)) -> Scan:
    return Scan(voxels, spacing)


def test_a_trained_model_finds_the_organs_of_a_new_patient(
    found: Segmentation, phantom: tuple[Scan, Segmentation]
) -> None:
    score = dice(found.masks.any(axis=0), phantom[1].masks.any(axis=0))
    assert score is not None
    assert score > 0.3


def test_the_result_lies_on_the_grid_of_the_scan(
    segmenter: Segmenter, found: Segmentation, phantom: tuple[Scan, Segmentation]
) -> None:
    affine = phantom[0].affine.copy()
    affine[:3, 3] = (10, -20, 30)
    moved = dataclasses.replace(phantom[0], affine=affine)
    again = segmenter.segment(moved)
    np.testing.assert_array_equal(again.masks, found.masks)
    np.testing.assert_array_equal(again.affine, affine)
    assert again.shape == moved.shape
    assert again.spacing == moved.spacing
    assert again.name == "case7_day0"
    assert again.slice_numbers == moved.slice_numbers


@pytest.mark.parametrize("turn", [Turn(True, False, True), Turn(False, True, False)])
def test_a_scan_stored_turned_gets_the_same_contours_in_the_same_place(
    segmenter: Segmenter,
    found: Segmentation,
    phantom: tuple[Scan, Segmentation],
    turn: Turn,
) -> None:
    stored = stored_as(phantom[0], turn)
    again = segmenter.segment(stored)
    np.testing.assert_array_equal(again.masks, turn.back(found.masks))
    np.testing.assert_array_equal(again.affine, stored.affine)
    np.testing.assert_array_equal(again.on(phantom[0]).masks, found.masks)


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((1, 33, 47), (3, 2.4, 2.4)), ((3, 61, 40), (3, 1.1, 2.9)), ((2, 5, 7), (3, 1.0, 1.0))],
)
def test_odd_sizes_and_unequal_spacing_come_back(
    segmenter: Segmenter, shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> None:
    voxels = np.random.default_rng(0).integers(0, 900, shape).astype(np.uint16)
    result = segmenter.segment(scan_of(voxels, spacing))
    assert result.shape == shape
    assert result.spacing == spacing


def test_the_size_in_millimetres_counts_not_that_in_pixels(
    segmenter: Segmenter, found: Segmentation, phantom: tuple[Scan, Segmentation]
) -> None:
    fine = np.repeat(phantom[0].voxels, 2, axis=2)
    finer = segmenter.segment(scan_of(fine, (3.0, 2.4, 1.2)))
    for organ, volume in found.volumes_ml.items():
        assert finer.volumes_ml[organ] == pytest.approx(volume, rel=0.1, abs=2)


def test_only_the_chosen_slices_are_filled_and_just_as_in_the_whole(
    segmenter: Segmenter, found: Segmentation, phantom: tuple[Scan, Segmentation]
) -> None:
    part = segmenter.segment(phantom[0], slices=[7, 4, 4])
    assert part.provenance["slices"] == [4, 7]
    np.testing.assert_array_equal(part.masks[:, [4, 7]], found.masks[:, [4, 7]])
    assert found.masks[:, [4, 7]].any()
    rest = [index for index in range(12) if index not in (4, 7)]
    assert not part.masks[:, rest].any()


def test_slices_may_be_a_range(segmenter: Segmenter, phantom: tuple[Scan, Segmentation]) -> None:
    result = segmenter.segment(phantom[0], slices=range(3, 5))
    assert result.provenance["slices"] == [3, 4]


@pytest.mark.parametrize("slices", [[12], [-1], [3, 40], []])
def test_slices_that_are_not_there_are_refused(
    segmenter: Segmenter, phantom: tuple[Scan, Segmentation], slices: list[int]
) -> None:
    with pytest.raises(InputError, match="0 to 11|at least one"):
        segmenter.segment(phantom[0], slices=slices)


def test_chosen_slices_are_sorted_and_each_once() -> None:
    assert chosen_slices(None, 3) == [0, 1, 2]
    assert chosen_slices([2, 0, 2], 3) == [0, 2]


def test_the_provenance_says_what_made_it(segmenter: Segmenter, found: Segmentation) -> None:
    provenance = found.provenance
    assert provenance["model"] == "tiny"
    assert provenance["weights_sha256"] == segmenter.config.weights_sha256
    assert len(provenance["weights_sha256"]) == 64
    assert provenance["software"].startswith("napari-gitract ")
    assert provenance["created"].endswith("+00:00")
    assert provenance["slices"] == list(range(12))


def test_the_baseline_is_the_prediction(found: Segmentation) -> None:
    labels = found.labels().array.copy()
    assert edited_slices(labels, found.provenance["baseline"]) == []
    labels[6, 0, 0] = 3
    assert edited_slices(labels, found.provenance["baseline"]) == [6]


def test_the_scan_is_left_alone(segmenter: Segmenter, phantom: tuple[Scan, Segmentation]) -> None:
    for dtype in (np.uint16, np.float32):
        scan = scan_of(phantom[0].voxels.astype(dtype))
        before = scan.voxels.copy()
        segmenter.segment(scan, slices=[5])
        np.testing.assert_array_equal(scan.voxels, before)


def test_grey_values_of_any_type_give_the_same(
    segmenter: Segmenter, found: Segmentation, phantom: tuple[Scan, Segmentation]
) -> None:
    for voxels in (phantom[0].voxels.astype(np.float64) / 1000, phantom[0].voxels.astype(">u4")):
        masks = segmenter.segment(scan_of(voxels)).masks
        assert (masks != found.masks).mean() < 1e-3


def test_a_stack_without_contrast_is_segmented_as_nothing_much(segmenter: Segmenter) -> None:
    result = segmenter.segment(scan_of(np.full((2, 40, 40), 700, np.uint16)))
    assert result.shape == (2, 40, 40)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_numbers_are_refused(segmenter: Segmenter, value: float) -> None:
    voxels = np.zeros((2, 40, 40), np.float32)
    voxels[1, 3, 4] = value
    with pytest.raises(InputError, match="not finite"):
        segmenter.segment(scan_of(voxels))


@pytest.fixture(scope="module")
def by_shipped() -> tuple[Scan, np.ndarray]:
    """A scan, and its masks by the model that ships."""
    scan = abdomen((12, 80, 96))[0]
    masks = Segmenter(device="cpu").segment(scan).masks
    assert masks.any()
    return scan, masks


LABELS_DIFFER = 1e-4  # share of voxels; what is promised across batches, patches, backends


@settings(max_examples=20)
@given(
    batch=st.integers(1, 9),
    short_of=st.integers(0, 3),
    onnx=st.booleans(),
    first=st.none() | st.integers(0, 11),
)
def test_batches_backends_and_the_order_do_not_matter(
    by_shipped: tuple[Scan, np.ndarray],
    batch: int,
    short_of: int,
    onnx: bool,
    first: int | None,
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("gitract.runner._SLICES", {"cpu": batch})
        patched.setattr("gitract.predict._warm", OrderedDict())
        segmenter = Segmenter(device="cpu", once=not onnx)
        runner = segmenter._members[0].runner
        assert (runner._on_cpu is not None) == onnx
        answer, failures = runner._answer, short_of

        def short(images: torch.Tensor) -> torch.Tensor:
            nonlocal failures
            if failures and len(images) > 1:
                failures -= 1
                raise RuntimeError("not enough memory: injected")
            return answer(images)

        patched.setattr(runner, "_answer", short)
        masks = segmenter.segment(by_shipped[0], first=first).masks
    assert (masks != by_shipped[1]).mean() < LABELS_DIFFER


def test_progress_counts_every_slice(
    segmenter: Segmenter, phantom: tuple[Scan, Segmentation]
) -> None:
    reports: list[Progress] = []
    segmenter.segment(phantom[0], report=reports.append)
    assert [r.done for r in reports] == [0, 8, 12]
    assert {r.total for r in reports} == {12}
    assert all(r.message for r in reports)


@pytest.mark.parametrize("batch", range(7))
def test_cancelling_at_any_batch_ends_everything_at_once(
    segmenter: Segmenter,
    found: Segmentation,
    phantom: tuple[Scan, Segmentation],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    batch: int,
) -> None:
    monkeypatch.setattr("gitract.predict._BATCH", 2)
    monkeypatch.chdir(tmp_path)
    arrived: list[int] = []
    threads = set(threading.enumerate())

    def report(progress: Progress) -> None:
        if progress.done == 2 * batch:
            raise Cancelled

    with pytest.raises(Cancelled):
        segmenter.segment(phantom[0], arrived=lambda new, _: arrived.extend(new), report=report)
    assert arrived == list(range(2 * batch))
    assert set(threading.enumerate()) == threads
    assert not list(tmp_path.iterdir())
    again = segmenter.segment(phantom[0])  # and the segmenter is as good as before
    assert (again.masks != found.masks).mean() < LABELS_DIFFER


def test_a_damaged_model_is_named(tmp_path: Path, trained: SimpleNamespace) -> None:
    (tmp_path / "config.json").write_bytes((trained.result.model / "config.json").read_bytes())
    with pytest.raises(InputError, match=r"model\.safetensors"):
        Segmenter(tmp_path, device="cpu")


# --- devices --------------------------------------------------------------------------------


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine without any GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    return monkeypatch


def test_auto_falls_back_to_the_cpu(bare: pytest.MonkeyPatch) -> None:
    assert str(choose_device()) == "cpu"
    bare.setattr(torch.backends.mps, "is_available", lambda: True)
    assert str(choose_device()) == "mps"
    bare.setattr(torch.cuda, "is_available", lambda: True)
    assert str(choose_device()) == "cuda"


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("cuda", "no CUDA GPU"),
        ("cuda:1", "no CUDA GPU"),
        ("mps", "no Apple GPU"),
        ("gpu", "Unknown device 'gpu'"),
        ("xpu", "Unknown device 'xpu'"),
        ("", "Unknown device ''"),
        ("cuda:x", "Unknown device"),
    ],
)
def test_a_device_that_is_not_there_is_one_sentence(
    bare: pytest.MonkeyPatch, name: str, part: str
) -> None:
    with pytest.raises(InputError, match=part):
        Segmenter(device=name)


def test_a_gpu_beyond_the_last_is_counted(bare: pytest.MonkeyPatch) -> None:
    bare.setattr(torch.cuda, "device_count", lambda: 2)
    assert str(choose_device("cuda:1")) == "cuda:1"
    with pytest.raises(InputError, match="only 2 CUDA"):
        choose_device("cuda:2")


def test_menus_offer_the_cpu_at_least() -> None:
    assert likely_devices()[:2] == ["auto", "cpu"]


# --- other preparations and 3-D networks ---------------------------------------------------


class _Bright(nn.Module):
    """Calls every organ what is brighter than half: where a network looks can be told."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(20.0))
        self.classes = classes

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        middle = images.shape[1] // 2
        logits = self.gain * (images[:, middle : middle + 1] - 0.5)
        return logits.expand(-1, self.classes, *images.shape[2:])


@register("test_bright", multiple=4, dimensions=lambda options: options.get("dimensions", 2))
def _bright(in_channels: int, classes: int, *, dimensions: int = 2) -> nn.Module:
    return _Bright(classes)


MakeBright = Callable[..., Segmenter]
EVERYTHING = {"low_percentile": 0.0, "high_percentile": 100.0}


@pytest.fixture
def bright_model(tmp_path: Path, tiny_config: ModelConfig) -> MakeBright:
    """A segmenter that finds what is brighter than half, with any preparation."""

    def make(**preparation: object) -> Segmenter:
        options = {"dimensions": 3} if "patch" in preparation else {}
        config = tiny_config.model_copy(
            update={
                "network": NetworkConfig(name="test_bright", options=options),
                "preparation": Preparation(**preparation),
            }
        )
        folder = tmp_path / f"bright-{len(list(tmp_path.iterdir()))}"
        save_model(build_network(config), config, "# Bright\n", folder)
        return Segmenter(folder, device="cpu")

    return make


@pytest.fixture(scope="module")
def box() -> tuple[Scan, np.ndarray]:
    """A bright box in a darker body in air, and its mask."""
    voxels = np.zeros((20, 70, 80), np.uint16)
    voxels[:, 10:60, 15:70] = 300
    mask = np.zeros(voxels.shape, bool)
    mask[6:15, 20:45, 30:60] = True
    voxels[mask] = 1000
    return Scan(voxels, (3.0, 2.0, 2.0), name="box"), mask


@pytest.mark.parametrize(
    "preparation",
    [
        {"pixel_mm": 2.0},
        {"pixel_mm": 2.0, "slice_mm": 1.0},
        {"pixel_mm": 1.0, "crop_to_body": True},
        {"pixel_mm": 2.0, "patch": (8, 32, 32)},
        {"pixel_mm": 2.0, "patch": (8, 16, 24), "slice_mm": 1.5, "crop_to_body": True},
        {"pixel_mm": 2.0, "patch": (32, 96, 96)},  # larger than the scan
    ],
)
def test_every_preparation_finds_the_organ_in_its_place(
    bright_model: MakeBright, box: tuple[Scan, np.ndarray], preparation: dict[str, object]
) -> None:
    segmenter = bright_model(scaling="scan", **EVERYTHING, **preparation)
    scan, mask = box
    found = segmenter.segment(scan)
    for organ in found.masks:
        wrong = organ != mask
        assert wrong.sum() < 0.08 * mask.sum()
        assert not wrong[8:13, 22:43, 32:58].any()
        assert not organ[[0, 1, 2, 3, 18, 19]].any()
    turn = Turn(True, False, True)
    stored = segmenter.segment(stored_as(scan, turn))
    np.testing.assert_array_equal(stored.masks, turn.back(found.masks))


@pytest.mark.parametrize(
    "preparation",
    [{"slice_mm": 1.7}, {"slice_mm": 7.0}, {"patch": (8, 16, 16)},
     {"patch": (8, 16, 16), "slice_mm": 2.0}],
)  # fmt: skip
def test_a_few_slices_are_just_as_in_the_whole(
    bright_model: MakeBright, box: tuple[Scan, np.ndarray], preparation: dict[str, object]
) -> None:
    segmenter = bright_model(scaling="scan", pixel_mm=3.0, **preparation)
    whole = segmenter.segment(box[0]).masks
    part = segmenter.segment(box[0], slices=[13, 6, 7]).masks
    assert whole[:, [6, 7, 13]].any()
    np.testing.assert_array_equal(part[:, [6, 7, 13]], whole[:, [6, 7, 13]])
    assert not np.delete(part, [6, 7, 13], axis=1).any()


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    patch=st.tuples(st.sampled_from([8, 16, 24]), *[st.sampled_from([16, 24, 48])] * 2),
    batch=st.integers(1, 3),
)
def test_the_patch_does_not_matter_to_a_network_that_looks_no_farther(
    bright_model: MakeBright,
    box: tuple[Scan, np.ndarray],
    patch: tuple[int, int, int],
    batch: int,
) -> None:
    how = {"pixel_mm": 2.0, "scaling": "scan", **EVERYTHING}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("gitract.runner._PATCHES", {"cpu": batch})
        found = bright_model(patch=patch, **how).segment(box[0]).masks
    assert (found != bright_model(**how).segment(box[0]).masks).mean() < LABELS_DIFFER


def test_patches_of_slices_that_nobody_wants_are_not_computed(
    bright_model: MakeBright, box: tuple[Scan, np.ndarray]
) -> None:
    segmenter = bright_model(pixel_mm=2.0, patch=(8, 32, 32))
    totals = []
    for slices in (None, [0]):
        reports: list[Progress] = []
        segmenter.segment(box[0], slices=slices, report=reports.append)
        totals.append(reports[-1].total)
        assert [r.done for r in reports[1:]] == list(range(1, reports[-1].total + 1))
        assert "patches" in reports[-1].message
    assert totals[1] * 3 < totals[0]


def test_cancelling_between_patches_ends_the_job(
    bright_model: MakeBright, box: tuple[Scan, np.ndarray]
) -> None:
    segmenter = bright_model(pixel_mm=2.0, patch=(8, 32, 32))
    reports: list[Progress] = []

    def report(progress: Progress) -> None:
        reports.append(progress)
        if progress.done == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        segmenter.segment(box[0], report=report)
    assert len(reports) == 4


def by_patches(
    network: nn.Module, volume: torch.Tensor, patch: tuple[int, int, int], batch: int = 1
) -> torch.Tensor:
    """Logits ``(organ, slice, row, column)`` of all slices."""
    wanted = list(range(len(volume)))
    found = dict(pair for slices, maps in
                 logits_by_patches(network, volume, patch, wanted, batch=batch)
                 for pair in zip(slices, maps, strict=True))  # fmt: skip
    return torch.stack([found[index] for index in wanted], dim=1)


@settings(max_examples=25)
@given(
    shape=st.tuples(st.integers(1, 20), st.integers(1, 30), st.integers(1, 30)),
    patch=st.tuples(*[st.sampled_from([8, 16])] * 3),
    batch=st.integers(1, 5),
)
def test_patches_of_a_network_that_copies_its_input_give_the_input(
    shape: tuple[int, int, int], patch: tuple[int, int, int], batch: int
) -> None:
    volume = torch.rand(shape, generator=torch.Generator().manual_seed(0)).half()
    network = nn.Conv3d(1, 1, 1, bias=False)
    nn.init.ones_(network.weight)
    found = by_patches(network, volume, patch, batch=batch)
    torch.testing.assert_close(found, volume[None].float(), rtol=1e-5, atol=1e-6)


@given(extent=st.integers(1, 400), half=st.integers(4, 64))
def test_patches_cover_an_axis_and_overlap_by_half(extent: int, half: int) -> None:
    side = 2 * half
    starts = patch_starts(extent, side)
    assert starts[0] == 0
    assert starts[-1] == max(0, extent - side)
    assert all(0 < after - before <= half for before, after in pairwise(starts))


def test_the_middle_of_a_patch_counts_most() -> None:
    class Edge(nn.Conv3d):
        """0 in the middle of each patch, 1 in the outermost voxels."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            edge = torch.ones_like(images)
            edge[..., 1:-1, 1:-1, 1:-1] = 0
            return edge

    found = by_patches(Edge(1, 1, 1), torch.zeros(16, 24, 24), (16, 16, 16))
    assert found[0, 1:-1, 1:-1, 1:-1].max() < 0.02


def test_an_ensemble_of_a_model_with_itself_segments_like_it_and_can_be_fine_tuned(
    trained: SimpleNamespace,
    found: Segmentation,
    phantom: tuple[Scan, Segmentation],
    tmp_path: Path,
    store: ModelStore,
) -> None:
    network, config = ensemble_of([trained.result.model] * 2)
    save_model(network, config, "# Twice\n", tmp_path / "twice")
    twice = Segmenter(tmp_path / "twice", device="cpu").segment(phantom[0])
    assert (twice.masks != found.masks).mean() < 1e-5
    candidate = fine_tune(
        [Corrections(*phantom, (4, 5, 9))], model=tmp_path / "twice", device="cpu", store=store,
        settings=FineTuneSettings(steps=2, evaluate_every=1),
    )  # fmt: skip
    kept, written = load_network(candidate.keep("mine").path)
    assert written.network == config.network
    assert not same_weights(kept, network)


def same_weights(network: nn.Module, other: nn.Module) -> bool:
    pairs = zip(network.parameters(), other.parameters(), strict=True)
    return all(torch.equal(one, two) for one, two in pairs)


def test_fine_tuning_learns_where_the_stack_is_resampled(
    tmp_path: Path, tiny_config: ModelConfig, box: tuple[Scan, np.ndarray]
) -> None:
    torch.manual_seed(0)
    preparation = Preparation(
        pixel_mm=4.0, slice_mm=1.5, neighbours=0, crop_to_body=True, scaling="scan"
    )
    config = tiny_config.model_copy(update={"preparation": preparation})
    save_model(build_network(config), config, "# Random\n", tmp_path / "random")
    scan, mask = box
    masks = np.zeros((3, *mask.shape), bool)
    masks[2] = mask
    truth = Segmentation(masks, scan.spacing)
    learnt = FineTuneSettings(steps=100, learning_rate=3e-3, blend=1.0, remembered=0)
    candidate = fine_tune(
        [Corrections(scan, truth, (3, 7, 8, 12, 17))],
        model=tmp_path / "random", device="cpu", settings=learnt,
    )  # fmt: skip
    stomach = candidate.card.rows[2]
    assert stomach.after is not None
    assert stomach.after > 0.7


def test_by_default_slices_are_resampled_scaled_by_themselves_and_decided_on_the_scans_grid(
    segmenter: Segmenter, phantom: tuple[Scan, Segmentation]
) -> None:
    """Models rely on it: written out here once more, it must give the same to the last voxel."""
    scan = phantom[0]
    network, config = load_network(segmenter.model.path)
    _, row_mm, column_mm = scan.spacing
    size = tuple(
        round(n * mm / config.preparation.pixel_mm)
        for n, mm in zip(scan.shape[1:], (row_mm, column_mm), strict=True)
    )
    slices = interpolate(
        torch.from_numpy(scan.voxels.astype(np.float32))[:, None], size, mode="bilinear",
        antialias=True,
    )[:, 0]  # fmt: skip
    low, high = np.percentile(slices.numpy(), (1, 99), axis=(1, 2)).astype(np.float32)
    low, high = torch.from_numpy(low)[:, None, None], torch.from_numpy(high)[:, None, None]
    slices = ((slices - low) / (high - low)).clamp(0, 1)
    for index in (0, 5, 11):
        three = slices[[max(index - 2, 0), index, min(index + 2, 11)]]
        with torch.inference_mode():
            logits = network(three[None])
        expected = interpolate(logits, scan.shape[1:], mode="bilinear")[0] > 0
        found = segmenter.segment(scan, slices=[index]).masks[:, index]
        np.testing.assert_array_equal(found, expected)


# --- what is asked for beside the contours themselves ---------------------------------------


def test_slices_arrive_as_they_are_done_the_nearest_first(
    segmenter: Segmenter, found: Segmentation, phantom: tuple[Scan, Segmentation]
) -> None:
    arrived: list[tuple[list[int], np.ndarray]] = []
    segmenter.segment(
        phantom[0], first=9, arrived=lambda batch, masks: arrived.append((batch, masks))
    )
    assert arrived[0][0] == [4, 5, 6, 7, 8, 9, 10, 11]
    assert sorted(index for batch, _ in arrived for index in batch) == list(range(12))
    for batch, masks in arrived:
        np.testing.assert_array_equal(masks.swapaxes(0, 1), found.masks[:, batch])


@pytest.mark.parametrize("preparation", [{"slice_mm": 1.7}, {"patch": (8, 16, 16)}])
def test_the_order_does_not_matter_where_slices_depend_on_each_other(
    bright_model: MakeBright, box: tuple[Scan, np.ndarray], preparation: dict[str, object]
) -> None:
    segmenter = bright_model(scaling="scan", pixel_mm=3.0, **preparation)
    first: list[list[int]] = []
    found = segmenter.segment(box[0], first=14, arrived=lambda batch, _: first.append(batch))
    assert 14 in first[0]
    np.testing.assert_array_equal(found.masks, segmenter.segment(box[0]).masks)


def test_slices_far_from_every_organ_are_not_paid_for(
    bright_model: MakeBright, box: tuple[Scan, np.ndarray]
) -> None:
    scan, _ = box
    voxels = np.concatenate([np.zeros((40, 70, 80), np.uint16), scan.voxels,
                             np.zeros((60, 70, 80), np.uint16)])  # fmt: skip
    segmenter = bright_model(scaling="scan", pixel_mm=2.0, **EVERYTHING)
    looked_at: list[int] = []
    reports: list[Progress] = []
    found = segmenter.segment(
        Scan(voxels, scan.spacing, name="long"),
        arrived=lambda batch, _: looked_at.extend(batch),
        report=reports.append,
    )
    np.testing.assert_array_equal(found.masks[:, 40:60], segmenter.segment(scan).masks)
    assert not found.masks[:, :40].any()
    assert not found.masks[:, 60:].any()
    assert len(looked_at) == len(set(looked_at)) < 60
    assert reports[-1].done == reports[-1].total == 120
    assert found.provenance["slices"] == list(range(120))


def test_several_models_decide_by_their_mean_probability(
    trained: SimpleNamespace, found: Segmentation, phantom: tuple[Scan, Segmentation],
    bright_model: MakeBright,
) -> None:  # fmt: skip
    model = trained.result.model
    twice = Segmenter([model, model], device="cpu").segment(phantom[0])
    assert (twice.masks != found.masks).mean() < 1e-4
    assert [one["model"] for one in twice.provenance["models"]] == ["tiny", "tiny"]
    other = bright_model(pixel_mm=4.0).model.path  # another network and another preparation
    mixed = Segmenter([model, other], device="cpu").segment(phantom[0])
    assert (mixed.masks != found.masks).mean() > 1e-4


def test_models_of_other_organs_do_not_mix(trained: SimpleNamespace, tmp_path: Path) -> None:
    network, config = load_network(trained.result.model)
    renamed = tuple(dataclasses.replace(organ, name=f"other_{organ.name}")
                    for organ in config.organs)  # fmt: skip
    other = config.model_copy(update={"organs": renamed, "id": "other"})
    save_model(network, other, "# Other\n", tmp_path / "other")
    with pytest.raises(InputError) as error:
        Segmenter([trained.result.model, tmp_path / "other"], device="cpu")
    assert_one_sentence(error, "other organs")


def test_views_from_several_sides_find_the_organ_in_its_place(
    bright_model: MakeBright, box: tuple[Scan, np.ndarray]
) -> None:
    plain = bright_model(scaling="scan", pixel_mm=2.0, crop_to_body=True, **EVERYTHING)
    views = Views(scales=(1.0, 0.8, 1.3), mirror=True)
    found = Segmenter(plain.model.path, device="cpu", views=views).segment(box[0])
    wrong = found.masks[0] != box[1]
    assert wrong.sum() < 0.08 * box[1].sum()
    assert found.provenance["views"] == {"scales": [1.0, 0.8, 1.3], "mirror": True}


def test_views_are_counted_as_slices(
    trained: SimpleNamespace, phantom: tuple[Scan, Segmentation]
) -> None:
    reports: list[Progress] = []
    segmenter = Segmenter(trained.result.model, device="cpu", views=SEVERAL_VIEWS)
    segmenter.segment(phantom[0], report=reports.append)
    assert (reports[-1].done, reports[-1].total) == (12, 12)
    assert reports[-1].message.startswith("Segmented 12 of 12 slices")


def test_the_second_scan_pays_no_loading(
    trained: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Segmenter(trained.result.model, device="cpu")
    monkeypatch.setattr("gitract.predict.load_network", lambda _: pytest.fail("loaded again"))
    again = Segmenter(trained.result.model, device="cpu", decision=TIDY)
    assert again.model == first.model
    assert again.decision == TIDY


def test_a_model_that_is_used_once_leaves_nothing(
    trained: SimpleNamespace, found: Segmentation, phantom: tuple[Scan, Segmentation],
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setenv("GITRACT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("gitract.predict._warm", OrderedDict())
    again = Segmenter(trained.result.model, device="cpu", once=True).segment(phantom[0])
    assert (again.masks != found.masks).mean() < 1e-4
    assert not predict._warm
    assert not (tmp_path / "home").exists()


def test_a_model_that_changed_in_its_folder_is_loaded_again(
    trained: SimpleNamespace, tmp_path: Path, phantom: tuple[Scan, Segmentation]
) -> None:
    network, config = load_network(trained.result.model)
    save_model(network, config, "# One\n", tmp_path / "model")
    before = Segmenter(tmp_path / "model", device="cpu").segment(phantom[0])
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    shutil.rmtree(tmp_path / "model")
    save_model(network, config, "# Another\n", tmp_path / "model")
    after = Segmenter(tmp_path / "model", device="cpu").segment(phantom[0])
    assert before.masks.any()
    assert not after.masks.any()


def test_a_threshold_moves_the_contour_and_is_noted(
    trained: SimpleNamespace, found: Segmentation, phantom: tuple[Scan, Segmentation]
) -> None:
    model = trained.result.model
    low = Segmenter(model, device="cpu", decision=Decision(threshold=0.1)).segment(phantom[0])
    high = Segmenter(model, device="cpu", decision=Decision(threshold={"stomach": 0.9}))
    strict = high.segment(phantom[0])
    assert (low.masks >= found.masks).all()
    assert low.masks.sum() > found.masks.sum()
    assert (strict.masks <= found.masks).all()
    np.testing.assert_array_equal(strict.masks[:2], found.masks[:2])
    assert strict.masks[2].sum() < found.masks[2].sum()
    assert low.provenance["decision"] == {"threshold": 0.1}
    assert "decision" not in found.provenance


def test_a_temperature_changes_how_sure_it_is_and_no_contour(
    trained: SimpleNamespace, phantom: tuple[Scan, Segmentation], tmp_path: Path
) -> None:
    network, config = load_network(trained.result.model)
    warmer = config.model_copy(update={"temperature": 3.0})
    save_model(network, warmer, "# Warmer\n", tmp_path / "model")
    plain, sure = Segmenter(trained.result.model, device="cpu").segment_with_probabilities(
        phantom[0]
    )
    same, less = Segmenter(tmp_path / "model", device="cpu").segment_with_probabilities(phantom[0])
    np.testing.assert_array_equal(same.masks, plain.masks)
    likely = (sure > 0.1) & (sure < 0.9)
    odds = np.log(sure[likely] / (1 - sure[likely].astype(np.float64)))
    expected = 1 / (1 + np.exp(-odds / 3))
    np.testing.assert_allclose(less[likely], expected, atol=5e-3)


def test_hysteresis_lies_between_its_two_thresholds(
    trained: SimpleNamespace, phantom: tuple[Scan, Segmentation]
) -> None:
    masks = {}
    for name, decision in {
        "high": Decision(threshold=0.6), "low": Decision(threshold=0.2),
        "both": Decision(threshold=0.6, hysteresis=0.2),
    }.items():  # fmt: skip
        segmenter = Segmenter(trained.result.model, device="cpu", decision=decision)
        masks[name] = segmenter.segment(phantom[0]).masks
    assert (masks["high"] <= masks["both"]).all()
    assert (masks["both"] <= masks["low"]).all()
    assert masks["high"].sum() < masks["both"].sum()


def test_a_device_without_memory_is_named_once_and_changes_nothing(
    trained: SimpleNamespace, found: Segmentation, phantom: tuple[Scan, Segmentation],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    segmenter = Segmenter(trained.result.model, device="cpu", once=True)
    monkeypatch.setattr("gitract.runner._SLICES", {"meta": 4, "cpu": 8})
    runner = segmenter._members[0].runner
    monkeypatch.setattr(runner, "device", torch.device("meta"))
    answer, tried = Runner._answer, []

    def too_large(self: Runner, images: torch.Tensor) -> torch.Tensor:
        if self.device.type == "meta":
            tried.append(len(images))
            raise RuntimeError("CUDA out of memory.")
        return answer(self, images)

    monkeypatch.setattr(Runner, "_answer", too_large)
    fallen_back = segmenter.segment(phantom[0])
    assert (fallen_back.masks != found.masks).mean() < 1e-4
    assert tried == [4, 2, 1]
    assert len(fallen_back.remarks) == 1
    assert "the CPU took over" in fallen_back.remarks[0]
