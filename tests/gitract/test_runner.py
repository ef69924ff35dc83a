"""A network that makes do with the memory there is, and answers the same."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from gitract.errors import InputError
from gitract.runner import PatchTooLarge, Runner
from sentences import assert_one_sentence

Short = Callable[[int], None]


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv2d(3, 2, 3, padding=1).eval()


class Greedy(nn.Module):
    """Takes so many voxels at once, and ends as torch does when they are more."""

    def __init__(self, network: nn.Module, most: int, words: str = "CUDA out of memory.") -> None:
        super().__init__()
        self.network, self.most, self.words = network, most, words
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.sizes.append(tuple(images.shape))
        if images.numel() > self.most:
            raise RuntimeError(self.words)
        answer: torch.Tensor = self.network(images)
        return answer


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(13, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "words",
    ["CUDA out of memory.", "DefaultCPUAllocator: can't allocate memory", "std::bad allocation"],
)
@pytest.mark.parametrize("most", [1, 2, 3, 7, 100])
def test_a_smaller_batch_gives_the_same_answer(
    network: nn.Module, images: torch.Tensor, most: int, words: str
) -> None:
    greedy = Greedy(network, most * 3 * 8 * 8, words)
    runner = Runner(greedy)
    expected = network(images)
    torch.testing.assert_close(runner(images), expected)
    assert runner.size <= most
    tried = len(greedy.sizes)
    runner(images[: runner.size])
    assert len(greedy.sizes) == tried + 1  # what did not fit is not tried again


def test_when_not_one_slice_fits_it_says_what_to_do(
    network: nn.Module, images: torch.Tensor
) -> None:
    with pytest.raises(InputError) as error:
        Runner(Greedy(network, 1))(images)
    assert_one_sentence(error, "not enough memory")


def test_other_errors_are_not_taken_for_a_lack_of_memory(images: torch.Tensor) -> None:
    with pytest.raises(RuntimeError, match="channels"):
        Runner(nn.Conv2d(4, 1, 1))(images)


def test_the_patch_is_halved_before_a_3d_network_gives_up() -> None:
    greedy = Greedy(nn.Conv3d(1, 1, 1), 32 * 64 * 64)
    runner = Runner(greedy, (64, 128, 128))
    sizes = []
    while True:
        assert runner.patch is not None
        try:
            runner(torch.zeros(1, 1, *runner.patch))
            break
        except PatchTooLarge:
            sizes.append(runner.patch)
    assert sizes == [(64, 64, 64), (32, 32, 32)]
    assert len(runner.remarks) == 1
    assert "32 x 32 x 32" in runner.remarks[0]


@pytest.fixture
def accelerator(network: nn.Module) -> Iterator[Runner]:
    """A runner that believes to be on a device that has no memory left."""
    runner = Runner(Greedy(network, 0))
    runner.device = torch.device("meta")
    runner.size = 1
    yield runner


def test_the_cpu_takes_over_from_a_device_that_is_too_small(
    network: nn.Module, images: torch.Tensor, accelerator: Runner
) -> None:
    accelerator.lower()
    assert accelerator.device.type == "cpu"
    assert len(accelerator.remarks) == 1
    assert "the CPU took over" in accelerator.remarks[0]


def test_a_faster_form_is_used_on_the_cpu(network: nn.Module, images: torch.Tensor) -> None:
    runner = Runner(network, on_cpu=lambda part: torch.ones(len(part), 2, 8, 8))
    assert (runner(images) == 1).all()
