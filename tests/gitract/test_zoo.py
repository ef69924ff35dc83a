"""What every network of the zoo promises, whatever it is made of.

Each is tried in one or more small variants; a network that is registered without one fails
the first test.
"""

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils._pytree import tree_leaves

from gitract.corrections import Corrections
from gitract.errors import InputError
from gitract.export import export_model
from gitract.fine_tune import FineTuneSettings, fine_tune
from gitract.losses import SegmentationLoss
from gitract.memory import activation_bytes
from gitract.metrics import dice
from gitract.model_config import ModelConfig, NetworkConfig, Preparation
from gitract.model_store import ModelStore
from gitract.models import create_model, load_network, save_model
from gitract.models.cost import zoo_names
from gitract.models.growing import with_organs
from gitract.models.outputs import Outputs, as_outputs
from gitract.models.registry import network_dimensions, network_facts
from gitract.organs import KNOWN_ORGANS, ORGANS
from gitract.phantom import abdomen
from gitract.predict import Segmenter
from gitract.preparation import prepare_masks, prepare_scan
from gitract.recipe import Loss, Recipe
from gitract.scan import Scan, Segmentation
from gitract.train import Machines, load_training_data, train
from sentences import assert_one_sentence

CLASSES = 3
NATIVE = ((234, 234), (266, 266), (276, 276), (310, 360))
ODD = ((33, 47), (1, 50), (64, 31))
ODD_3D = ((9, 33, 17), (17, 16, 31))


@dataclass(frozen=True)
class Variant:
    """A network small enough to be tried in seconds.

    Parameters
    ----------
    network
        Its name.
    options
        That make it small.
    rate, steps
        With which it overfits four slices; no steps where those would take half a minute.
    enlarged
        How many times larger those are: for networks that answer in coarse pixels.
    size
        Of the images that most tests take: small, with more than a pixel at the coarsest level.
    native
        Whether it is quick enough for slices of native size.
    export
        Whether it is written for other programs: the check takes two of the smallest sizes
        that show that they are free, which is minutes for 3-D networks with coarse pixels.
    torch_export
        Whether it is written by torch.export, too, which is slow.
    """

    network: str
    options: Mapping[str, Any] = field(default_factory=dict)
    rate: float = 1e-2
    steps: int = 60
    enlarged: int = 1
    size: tuple[int, ...] | None = None
    native: bool = True
    export: bool = True
    torch_export: bool = False

    @property
    def dimensions(self) -> int:
        return network_dimensions(self.network, self.options)

    @property
    def channels(self) -> int:
        return 3 if self.dimensions == 2 else 1

    def built(self, channels: int | None = None, classes: int = CLASSES) -> nn.Module:
        """A new one, in training mode."""
        return create_model(
            self.network, in_channels=channels or self.channels, classes=classes, **self.options
        )

    def images(self, *sizes: int, batch: int = 2, seed: int = 0) -> torch.Tensor:
        """Random grey values."""
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(batch, self.channels, *sizes, generator=generator)

    def batch(self, batch: int = 2) -> torch.Tensor:
        """Images of the usual size."""
        return self.images(*self.size or ((64, 64), (16, 16, 32))[self.dimensions - 2], batch=batch)


ENCODER = {"encoder": "tu-test_resnet"}
CONVNEXT = {"encoder": "tu-test_convnext"}
SWIN = {"width": 12, "depths": [1, 1, 1, 1], "window": 4}
VARIANTS = {
    "attention_unet": Variant("attention_unet", {"widths": [8, 8, 16, 16, 16]}),
    "attention_unet 3-D": Variant(
        "attention_unet", {"dimensions": 3, "widths": [4, 8, 8, 8, 8]}, steps=100
    ),
    "bisenet": Variant("bisenet", {**ENCODER, "width": 16}, steps=90, enlarged=4),
    "ddanet": Variant("ddanet", {"widths": [16, 16, 32]}),
    "deeplabv3": Variant(
        "deeplabv3", {**ENCODER, "decoder_channels": 64}, rate=2e-2, steps=150, enlarged=4
    ),
    "deeplabv3_plus": Variant(
        "deeplabv3_plus", {**ENCODER, "decoder_channels": 16}, steps=90, enlarged=3
    ),
    "dpt": Variant(
        "dpt",
        {"encoder": "tu-test_vit", "stage_channels": [16, 16, 16, 16], "decoder_channels": 16},
        steps=90, enlarged=2,
    ),
    "encoder_unet": Variant(
        "encoder_unet", {**ENCODER, "decoder_channels": [16, 16, 16, 16, 16], "presence": True}
    ),
    "fct": Variant("fct", {"width": 8, "heads": 1}, rate=6e-3, steps=150, native=False),
    "fpn": Variant(
        "fpn", {**ENCODER, "pyramid_channels": 32, "decoder_channels": 32}, steps=100, enlarged=3
    ),
    "linknet": Variant("linknet", ENCODER, rate=2e-2, steps=80),
    "manet": Variant("manet", {**ENCODER, "decoder_channels": [16, 16, 16, 16, 16]}),
    "pan": Variant("pan", {**ENCODER, "decoder_channels": 32}, steps=100, enlarged=3),
    "resunet_plus_plus": Variant(
        "resunet_plus_plus", {"widths": [16, 16, 16, 16, 16]}, rate=5e-3, steps=80
    ),
    "segformer": Variant(
        "segformer", {**CONVNEXT, "decoder_channels": 16}, steps=100, enlarged=3
    ),
    "segresnet": Variant(
        "segresnet", {"width": 8, "blocks": [1, 1, 1], "deep_supervision": 1}, rate=5e-3, steps=70
    ),
    "segresnet 2-D": Variant(
        "segresnet", {"dimensions": 2, "width": 16, "blocks": [1, 1, 1]}, steps=100
    ),
    "ssformer_l": Variant(
        "ssformer_l", {"encoder": "tu-pvt_v2_b0", "width": 32}, rate=5e-3, steps=70, enlarged=3
    ),
    "ssformer_s": Variant("ssformer_s", {**CONVNEXT, "width": 32}, steps=90, enlarged=3),
    "swin_unetr": Variant("swin_unetr", SWIN, size=(32, 32, 64), steps=0, export=False),
    "swin_unetr 2-D": Variant(
        "swin_unetr", {"dimensions": 2, **SWIN}, rate=4e-3, steps=90, enlarged=2
    ),
    "unet": Variant("unet", {"width": 8, "depth": 3}, rate=2e-2, steps=90, torch_export=True),
    "unet_3plus": Variant("unet_3plus", {"width": 4}),
    "unet_plus_plus": Variant("unet_plus_plus", {"width": 16, "depth": 2}, rate=5e-3, steps=130),
    "unet_plus_plus with an encoder": Variant("unet_plus_plus", ENCODER),
    "upernet": Variant("upernet", {**CONVNEXT, "decoder_channels": 32}, steps=90, enlarged=3),
    "vnet": Variant("vnet", {"width": 4}, rate=2e-2),
    "vnet 2-D": Variant("vnet", {"dimensions": 2, "width": 8}),
}  # fmt: skip


def such(wanted: Callable[[Variant], bool]) -> list[str]:
    """Names of the variants that a test takes."""
    return [name for name, variant in VARIANTS.items() if wanted(variant)]


@pytest.fixture(params=list(VARIANTS))
def variant(request: pytest.FixtureRequest) -> Variant:
    return VARIANTS[request.param]


@cache
def built_once(name: str) -> nn.Module:
    torch.manual_seed(0)
    return VARIANTS[name].built()


@pytest.fixture
def network(variant: Variant) -> nn.Module:
    """A network of one's own, in training mode."""
    name = next(name for name, one in VARIANTS.items() if one is variant)
    return copy.deepcopy(built_once(name))


def config_of(variant: Variant) -> ModelConfig:
    """What a model folder with the network says."""
    patch = (16, 32, 32) if variant.dimensions == 3 else None
    return ModelConfig(
        id="zoo", title="Zoo", preparation=Preparation(patch=patch),
        network=NetworkConfig(name=variant.network, options=dict(variant.options)),
    )  # fmt: skip


def some_masks(images: torch.Tensor) -> torch.Tensor:
    """Organs of an image: what lies above a grey value in a smoothed copy of it."""
    pooled = functional.interpolate(images.mean(1, keepdim=True), scale_factor=0.25)
    smooth = functional.interpolate(pooled, size=images.shape[2:])
    return torch.cat([(smooth > 0.4 + 0.1 * organ) for organ in range(CLASSES)], dim=1).float()


def loss_of(network: nn.Module, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """With the same dropout each time."""
    torch.manual_seed(0)
    known = torch.ones(len(images), CLASSES)
    return SegmentationLoss()(network(images), masks, known, images)


def test_no_network_of_the_zoo_lacks_a_small_variant() -> None:
    assert {variant.network for variant in VARIANTS.values()} == set(zoo_names())


@pytest.mark.parametrize("name", zoo_names())
def test_the_facts_of_a_network_are_told(name: str) -> None:
    facts = network_facts(name)
    assert facts is not None
    assert all((facts.title, facts.paper, facts.licence))
    assert 2015 <= facts.year <= 2026
    assert ":" in facts.paper or "doi" in facts.paper, "where the paper is found"


# --- sizes and answers ----------------------------------------------------------------------


@torch.inference_mode()
def test_any_slice_size_comes_back(variant: Variant, network: nn.Module) -> None:
    network.eval()
    sizes = ODD if variant.dimensions == 2 else ODD_3D
    for size in sizes:
        answer = network(variant.images(*size, batch=1))
        assert isinstance(answer, torch.Tensor)
        assert answer.shape == (1, CLASSES, *size)
        assert answer.isfinite().all()


@torch.inference_mode()
@pytest.mark.parametrize(
    "variant", such(lambda one: one.dimensions == 2 and one.native), indirect=True
)
def test_native_sizes_come_back(variant: Variant, network: nn.Module) -> None:
    network.eval()
    for size in NATIVE:
        assert network(variant.images(*size, batch=1)).shape == (1, CLASSES, *size)


@torch.inference_mode()
def test_one_and_five_channels_and_one_organ_are_taken(variant: Variant) -> None:
    for channels in (1, 5):
        network = variant.built(channels, classes=1)
        images = variant.batch(batch=1)[:, :1].repeat_interleave(channels, 1)
        assert network.eval()(images).shape == (1, 1, *images.shape[2:])


def test_answers_in_training_have_the_documented_shapes(
    variant: Variant, network: nn.Module
) -> None:
    images = variant.images(*((50, 70) if variant.dimensions == 2 else (17, 30, 33)))
    answer = as_outputs(network(images))
    assert isinstance(answer, Outputs)
    assert answer.logits.shape == (2, CLASSES, *images.shape[2:])
    for maps in answer.deep:
        assert maps.shape[:2] == (2, CLASSES)
        assert len(maps.shape) == images.ndim
        assert all(a <= b for a, b in zip(maps.shape[2:], images.shape[2:], strict=True))
    assert answer.presence is None or answer.presence.shape == (2, CLASSES)
    grey = answer.reconstruction
    assert grey is None or grey.shape == (2, 1, *images.shape[2:])


def test_a_gradient_reaches_every_parameter(variant: Variant) -> None:
    images = variant.batch()
    dead: set[str] | None = None
    for seed in range(3):  # a narrow layer may be off altogether, but not by all weights
        torch.manual_seed(seed)
        network = variant.built()
        with torch.no_grad():  # what begins as zeros hides for a step what it is multiplied with
            for one in network.parameters():
                if not one.any():
                    one.normal_(std=0.1)
        loss = loss_of(network, images, some_masks(images))
        assert loss.isfinite()
        loss.backward()
        still = {name for name, one in network.named_parameters() if not reached(one)}
        dead = still if dead is None else dead & still
        if not dead:
            break
    assert not dead


def reached(parameter: nn.Parameter) -> bool:
    gradient = parameter.grad
    assert gradient is None or gradient.isfinite().all()
    return gradient is not None and bool(gradient.any())


def test_a_batch_of_one_can_be_trained_on(variant: Variant, network: nn.Module) -> None:
    images = variant.batch(batch=1)
    loss = loss_of(network, images, some_masks(images))
    loss.backward()
    assert loss.isfinite()
    assert all(one.grad is None or one.grad.isfinite().all() for one in network.parameters())


@torch.inference_mode()
def test_dropout_is_silent_in_evaluation(variant: Variant, network: nn.Module) -> None:
    network.eval()
    images = variant.batch(batch=1)
    torch.manual_seed(1)
    first = network(images)
    torch.manual_seed(2)
    assert torch.equal(network(images), first)


def _bytes(found: object) -> int:
    leaves = tree_leaves(found)
    return sum(leaf.nbytes for leaf in leaves if isinstance(leaf, torch.Tensor))


@torch.inference_mode()
def test_its_memory_is_estimated_without_running_it(variant: Variant, network: nn.Module) -> None:
    images = variant.batch()
    network.eval()
    made = [images.nbytes]
    for part in network.modules():
        part.register_forward_hook(lambda _, __, found: made.append(_bytes(found)))
    answer = network(images)
    found = activation_bytes(network, images.shape)
    assert images.nbytes + answer.nbytes <= found <= 10 * sum(made)


@torch.inference_mode()
def test_a_sample_is_answered_alike_whatever_else_is_in_the_batch(
    variant: Variant, network: nn.Module
) -> None:
    network.eval()
    images = variant.batch()
    torch.testing.assert_close(network(images)[:1], network(images[:1]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_stays_finite(
    variant: Variant, network: nn.Module, kind: torch.dtype
) -> None:
    images = variant.batch(batch=1)
    masks, known = some_masks(images), torch.ones(1, CLASSES)
    with torch.autocast("cpu", kind):
        answer = as_outputs(network(images))
        loss = SegmentationLoss()(answer.mapped(_finite), masks, known, images)
        with torch.inference_mode():
            _finite(network.eval()(images))
    assert loss.isfinite()


def _finite(tensor: torch.Tensor) -> torch.Tensor:
    assert tensor.isfinite().all()
    return tensor


# --- learning -------------------------------------------------------------------------------


def test_one_step_lowers_the_loss_of_its_batch(variant: Variant, network: nn.Module) -> None:
    images = variant.batch()
    masks = some_masks(images)
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3)
    before = loss_of(network, images, masks)
    before.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()
    with torch.no_grad():
        assert loss_of(network, images, masks) < before


@cache
def phantom_slices(dimensions: int, enlarged: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Four slices that show each organ twice or more, or a small stack."""
    shape = (16, 24, 24) if dimensions == 3 else (12, 32 * enlarged, 32 * enlarged)
    pixel_mm = 384 / shape[1]
    scan, truth = abdomen(shape, spacing=(5.0, pixel_mm, pixel_mm), seed=3)
    prepared = prepare_scan(scan.voxels, scan.spacing, Preparation(pixel_mm=pixel_mm))
    masks = prepare_masks(truth.masks, prepared).float()
    if dimensions == 3:
        return prepared.slices[None, None], masks[None]
    chosen = [2, 3, 6, 8]
    images = torch.stack([prepared.slices[[i - 1, i, i + 1]] for i in chosen])
    return images, masks[:, chosen].swapaxes(0, 1)


@pytest.mark.parametrize("variant", such(lambda one: one.steps > 0), indirect=True)
def test_it_overfits_four_slices(variant: Variant, network: nn.Module) -> None:
    for module in network.modules():  # dropout is there to hinder it
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    images, masks = phantom_slices(variant.dimensions, variant.enlarged)
    optimiser = torch.optim.Adam(network.parameters(), lr=variant.rate, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, variant.rate, variant.steps)
    loss = SegmentationLoss((Loss(kind="bce"), Loss(kind="dice", weight=3.0)))
    torch.manual_seed(0)
    reached = 0.0
    for step in range(1, variant.steps + 1):
        optimiser.zero_grad()
        loss(network(images), masks, torch.ones(len(images), CLASSES), images).backward()
        optimiser.step()
        schedule.step()
        if step % 10 == 0 or step == variant.steps:
            with torch.inference_mode():
                found = network.eval()(images) > 0
            network.train()
            reached = dice(found.numpy(), masks.numpy() > 0) or 0.0
            if reached > 0.95:
                break
    assert reached > 0.95


# --- more organs, and fewer ---------------------------------------------------------------------

DUODENUM, RECTUM = KNOWN_ORGANS[3], KNOWN_ORGANS[5]


@torch.inference_mode()
def test_organs_are_added_and_the_others_answer_as_before(
    variant: Variant, network: nn.Module
) -> None:
    network(variant.batch())  # statistics moved from where they begin
    network.eval()
    larger, config = with_organs(network, config_of(variant), (*ORGANS, DUODENUM, RECTUM))
    assert config.organs == (*ORGANS, DUODENUM, RECTUM)
    images = variant.batch(batch=1)
    answer = larger(images)
    torch.testing.assert_close(answer[:, :CLASSES], network(images), atol=1e-4, rtol=1e-4)
    begin = answer[:, CLASSES:].sigmoid().mean(dim=[0, *range(2, answer.dim())])
    assert all(0.02 < share < 0.12 for share in begin), "not near 5 %"


@torch.inference_mode()
def test_organs_are_removed_or_refused(variant: Variant, network: nn.Module) -> None:
    network(variant.batch())
    network.eval()
    kept = ORGANS[1:]
    if variant.network == "attention_unet":  # each organ is told by the heads of all
        with pytest.raises(InputError) as error:
            with_organs(network, config_of(variant), kept)
        assert_one_sentence(error, "attention_unet", "another architecture")
        return
    smaller, config = with_organs(network, config_of(variant), kept)
    assert config.organs == kept
    images = variant.batch(batch=1)
    torch.testing.assert_close(smaller(images), network(images)[:, 1:], atol=1e-4, rtol=1e-4)


# --- to disk and to other programs ------------------------------------------------------------


@pytest.fixture
def folder(variant: Variant, network: nn.Module, tmp_path: Path) -> Path:
    """The network as a model folder, its statistics moved from where they begin."""
    with torch.no_grad():
        network(variant.batch())
    save_model(network, config_of(variant), "# Zoo\n", tmp_path / "model")
    return tmp_path / "model"


@torch.inference_mode()
def test_a_saved_network_answers_the_same(
    variant: Variant, network: nn.Module, folder: Path
) -> None:
    images = variant.batch()
    again, _ = load_network(folder)
    assert torch.equal(again(images), network.eval()(images))


@pytest.mark.parametrize("suffix", [".pt", ".onnx"])
@pytest.mark.parametrize("variant", such(lambda one: one.export), indirect=True)
def test_a_written_network_answers_the_same(folder: Path, tmp_path: Path, suffix: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        written = export_model(folder, tmp_path / f"network{suffix}")  # compares to 1e-4
    assert written.stat().st_size


@pytest.mark.parametrize("variant", such(lambda one: one.torch_export), indirect=True)
def test_a_network_written_by_torch_export_answers_the_same(folder: Path, tmp_path: Path) -> None:
    assert export_model(folder, tmp_path / "network.pt2").stat().st_size


# --- through the whole program ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["unet_3plus", "ddanet"])
def test_a_network_with_auxiliary_answers_is_trained_used_and_fine_tuned(
    name: str,
    recipe: Recipe,
    phantom_data: Path,
    phantom: tuple[Scan, Segmentation],
    store: ModelStore,
    tmp_path: Path,
) -> None:
    variant = VARIANTS[name]
    optimisation = recipe.optimisation.model_copy(update={"steps": 4, "steps_per_epoch": 4})
    network = NetworkConfig(name=variant.network, options=dict(variant.options))
    recipe = recipe.model_copy(update={"network": network, "optimisation": optimisation})
    data = load_training_data(recipe, phantom_data, cache=tmp_path / "cache")
    trained = train(
        recipe, data, output=tmp_path / "run", hold_out=["case3"], machines=Machines("cpu")
    )
    assert trained.evaluation is not None
    scan, truth = phantom
    assert Segmenter(trained.model, device="cpu").segment(scan).shape == scan.shape
    settings = FineTuneSettings(steps=2, evaluate_every=1, parts=2)
    candidate = fine_tune(
        [Corrections(scan, truth, (3, 5, 8))],
        model=trained.model, device="cpu", settings=settings, store=store,
    )  # fmt: skip
    assert len(candidate.card.rows) == CLASSES
    kept = candidate.keep(name="tuned")
    found = Segmenter(kept.id, device="cpu", store=store).segment(scan)
    assert found.shape == scan.shape
