"""What a network and a scan take of memory, told beforehand and kept to."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gitract import memory, predict
from gitract.decision import TIDY
from gitract.errors import InputError
from gitract.memory import MemoryNeed, activation_bytes, free_memory, gigabytes
from gitract.phantom import abdomen
from gitract.predict import Segmenter
from gitract.progress import Progress
from gitract.runner import PatchTooLarge, Runner
from gitract.views import SEVERAL_VIEWS
from sentences import assert_one_sentence

CPU = torch.device("cpu")
PIXELS = 8 * 8 * 4  # bytes of a channel


def test_a_convolution_holds_its_images_and_its_answer() -> None:
    assert activation_bytes(nn.Conv2d(3, 2, 1).eval(), (1, 3, 8, 8)) == (3 + 2) * PIXELS


def test_what_is_let_go_is_not_counted() -> None:
    layers = [nn.Conv2d(1, 1, 1) for _ in range(10)]
    # `functional_call` holds the images, two more are one layer's.
    assert activation_bytes(nn.Sequential(*layers).eval(), (1, 1, 8, 8)) == 3 * PIXELS


def test_what_is_done_in_place_takes_nothing_more() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(inplace=True)).eval()
    assert activation_bytes(network, (1, 1, 8, 8)) == 2 * PIXELS


def test_a_larger_batch_takes_as_much_more_and_the_network_stays_where_it_is() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 3)).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    one, five = (activation_bytes(network, (count, 3, 16, 16)) for count in (1, 5))
    assert five == 5 * one
    for name, value in network.state_dict().items():
        assert value.device.type == "cpu"
        torch.testing.assert_close(value, before[name])


def _runner(patch: tuple[int, int, int] | None = None) -> Runner:
    convolution = nn.Conv3d if patch else nn.Conv2d
    return Runner(convolution(1, 1, 1).eval(), patch)


@pytest.mark.parametrize(("images", "size"), [(100, 8), (8, 8), (7.9, 4), (2, 2), (0.1, 1)])
def test_the_batch_fits_what_is_free(images: float, size: int) -> None:
    runner = _runner()
    one = runner.fit((1, 8, 8), 1 << 40) // 8
    need = runner.fit((1, 8, 8), int(images * one / 0.8) + 1)
    assert runner.size == size
    assert need == size * one


def test_more_room_makes_the_batch_large_again() -> None:
    runner = _runner()
    runner.fit((1, 8, 8), 0)
    assert runner.size == 1
    runner.fit((1, 8, 8), 1 << 40)
    assert runner.size == 8


def test_a_patch_that_cannot_fit_is_made_smaller_before_it_is_tried() -> None:
    runner = _runner((64, 64, 64))
    whole = runner.fit((1,), 1 << 40)
    assert runner.patch == (64, 64, 64)
    assert not runner.remarks
    assert runner.fit((1,), whole // 4) == whole // 8
    assert runner.patch == (32, 32, 32)
    assert "patches of 32 x 32 x 32" in runner.remarks[0]
    assert runner.fit((1,), 1 << 40) == whole  # one short moment is not for ever
    assert runner.patch == (64, 64, 64)
    assert not runner.remarks


def test_a_batch_that_failed_is_not_tried_again_with_the_next_scan() -> None:
    runner = _runner()
    runner.fit((1, 8, 8), 1 << 40)
    runner.lower()
    runner.fit((1, 8, 8), 1 << 40)
    assert runner.size == 4


def test_what_failed_is_not_estimated_to_fit_later() -> None:
    runner = _runner((64, 64, 64))
    runner.fit((1,), 1 << 40)
    with pytest.raises(PatchTooLarge):
        runner.lower()
    runner.fit((1,), 1 << 40)
    assert runner.patch == (32, 32, 32)


class _Looking(nn.Module):
    """Runs with numbers alone."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images * float(images.max())


def test_a_network_that_cannot_be_estimated_still_runs() -> None:
    runner = Runner(nn.Sequential(nn.Conv2d(1, 1, 1), _Looking()).eval())
    assert runner.fit((1, 8, 8), 1000) == 0
    assert runner(torch.rand(3, 1, 8, 8)).shape == (3, 1, 8, 8)


def test_estimates_in_several_threads_leave_the_network_alone() -> None:
    network = nn.Sequential(*[nn.Conv2d(4, 4, 3, padding=1) for _ in range(30)]).eval()
    images = torch.rand(1, 4, 16, 16)
    with torch.inference_mode():
        expected = network(images)
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: activation_bytes(network, images.shape), range(40)))
        assert len(set(found)) == 1
        torch.testing.assert_close(network(images), expected)


def test_what_a_container_may_have_is_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups, own = tmp_path / "groups", tmp_path / "own"
    job = groups / "job"
    (job / "step").mkdir(parents=True)
    own.write_text("0::/job/step\n")
    monkeypatch.setattr(memory, "_GROUPS", groups)
    monkeypatch.setattr(memory, "_OWN_GROUP", own)
    unlimited = free_memory(CPU)
    (job / "memory.max").write_text("3000000\n")
    (job / "memory.current").write_text("2500000\n")
    (job / "memory.stat").write_text("anon 1\ninactive_file 600000\nactive_file 400000\n")
    (job / "step" / "memory.max").write_text("max\n")
    assert free_memory(CPU) == 1_500_000 < unlimited


def test_free_memory_is_that_of_the_machine() -> None:
    assert 1 << 20 < free_memory(CPU) < 1 << 50


@pytest.mark.parametrize(
    ("count", "told"),
    [(40_000_000, "0.0 GB"), (640_000_000, "0.6 GB"), (9_960_000_000, "10.0 GB"),
     (21_400_000_000, "21 GB")],
)  # fmt: skip
def test_bytes_are_told_for_people(count: int, told: str) -> None:
    assert gigabytes(count) == told


def test_what_cannot_fit_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.psutil, "swap_memory", lambda: type("", (), {"free": 0}))
    MemoryNeed(1 << 20, 1 << 20, CPU).check()
    assert memory._free_swap() == 0
    with pytest.raises(InputError) as error:
        MemoryNeed(1 << 60, 0, CPU).check()
    assert_one_sentence(error, "GB of memory", "are free")


def test_a_machine_that_does_not_tell_of_its_swap_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent() -> None:
        raise RuntimeError("Performance counters may be disabled")

    monkeypatch.setattr(memory.psutil, "swap_memory", silent)
    MemoryNeed(1 << 20, 0, CPU).check()


def _free(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    for module in (memory, predict):
        monkeypatch.setattr(module, "free_memory", lambda device: count)
    monkeypatch.setattr(memory.psutil, "swap_memory", lambda: type("", (), {"free": 0}))


def test_short_memory_changes_the_batch_and_not_the_contours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scan, _ = abdomen((9, 80, 80))
    segmenter = Segmenter(device="cpu", once=True)
    expected = segmenter.segment(scan)
    need = segmenter.memory_needed(scan)
    _free(monkeypatch, need.arrays + need.network // 3)
    assert segmenter.memory_needed(scan).network < need.network
    found = segmenter.segment(scan)
    different = np.count_nonzero(found.masks != expected.masks)
    assert different < found.masks.size / 10_000
    assert not found.remarks


def test_a_scan_that_cannot_be_held_is_refused_before_anything_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scan, _ = abdomen((9, 80, 80))
    segmenter = Segmenter(device="cpu", once=True)
    _free(monkeypatch, 1 << 20)
    arrived: list[int] = []
    with pytest.raises(InputError) as error:
        segmenter.segment(scan, arrived=lambda batch, _: arrived.extend(batch))
    assert_one_sentence(error, "needs about", "cut the scan into parts")
    assert not arrived


def test_the_need_is_told_before_the_work_begins() -> None:
    messages: list[Progress] = []
    scan, _ = abdomen((5, 60, 60))
    Segmenter(device="cpu", once=True).segment(scan, report=messages.append)
    assert messages[0].done == 0
    assert "of memory needed" in messages[0].message
    assert "free" in messages[0].message


def test_probabilities_and_more_models_need_more() -> None:
    scan, _ = abdomen((9, 80, 80))
    one = Segmenter(device="cpu", once=True)
    plain = one.memory_needed(scan)
    sure = one.memory_needed(scan, probabilities=True)
    assert sure.arrays - plain.arrays == 2 * 3 * scan.voxels.size
    twice = Segmenter(["gi-tract-small"] * 2, device="cpu", once=True).memory_needed(scan)
    assert twice.arrays == plain.arrays  # the scan is prepared once for both
    views = Segmenter(device="cpu", once=True, views=SEVERAL_VIEWS).memory_needed(scan)
    assert views.arrays > plain.arrays
    tidy = Segmenter(device="cpu", once=True, decision=TIDY).memory_needed(scan)
    assert tidy.arrays == plain.arrays + 8 * scan.voxels.size
