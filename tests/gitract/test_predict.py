"""Scan in, segmentation out: the right slices on the right grid, or nothing."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gitract.baseline import edited_slices
from gitract.devices import choose_device, likely_devices
from gitract.errors import Cancelled, InputError
from gitract.metrics import dice
from gitract.orientation import Turn
from gitract.predict import Segmenter, chosen_slices
from gitract.progress import Progress
from gitract.scan import Scan, Segmentation
from phantoms import stored_as


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


def test_the_batch_size_does_not_matter(
    segmenter: Segmenter,
    found: Segmentation,
    phantom: tuple[Scan, Segmentation],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gitract.predict._BATCH", {"cpu": 1})
    masks = segmenter.segment(phantom[0]).masks
    assert (masks != found.masks).mean() < 1e-4


def test_progress_counts_every_slice(
    segmenter: Segmenter, phantom: tuple[Scan, Segmentation]
) -> None:
    reports: list[Progress] = []
    segmenter.segment(phantom[0], report=reports.append)
    assert [r.done for r in reports] == [0, 8, 12]
    assert {r.total for r in reports} == {12}
    assert all(r.message for r in reports)


@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_cancelled_segmentation_gives_nothing(
    segmenter: Segmenter, found: Segmentation, phantom: tuple[Scan, Segmentation], call: int
) -> None:
    calls = 0

    def report(progress: Progress) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise Cancelled

    with pytest.raises(Cancelled):
        segmenter.segment(phantom[0], report=report)
    again = segmenter.segment(phantom[0])  # and the segmenter is as good as before
    np.testing.assert_array_equal(again.masks, found.masks)


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
