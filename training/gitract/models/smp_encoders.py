"""Encoders of segmentation-models-pytorch and timm, and the networks that smp builds on them.

Some of their layers work out sizes in a way that cannot be exported with free sizes; here
they are replaced by ones that answer the same.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from gitract.errors import InputError
from gitract.models.blocks import begin_seldom, recast
from gitract.torchvision_guard import ensure_torchvision

__all__ = [
    "IMAGENET_BUILDER",
    "built_by_smp",
    "checked_encoder",
    "encoder_names",
    "exportable",
    "is_encoder",
    "remember_imagenet",
    "smp_encoder",
]

IMAGENET_BUILDER = "with_imagenet_weights"
"""Attribute of an encoder: builds another one of three channels, trained on ImageNet."""

_TIMM = "tu-"
_NOT_FREE = "mit_b"
_WINDOWED = ("tu-swin_", "tu-swinv2_base", "tu-swinv2_large", "tu-swinv2_small", "tu-swinv2_tiny")


# --- layers that know their padding beforehand ---------------------------------------------------


def _same_padding(layer: nn.Conv2d | nn.AvgPool2d) -> tuple[int, int, int, int]:
    """TensorFlow's padding for sides that the stride divides, as those that get here.

    timm's own computes it anew for every size.
    """
    kernel, stride = _pair(layer.kernel_size), _pair(layer.stride)
    dilation = _pair(getattr(layer, "dilation", 1))
    rows, columns = (
        max(0, (side - 1) * dilated + 1 - step)
        for side, dilated, step in zip(kernel, dilation, stride, strict=True)
    )
    return columns // 2, columns - columns // 2, rows // 2, rows - rows // 2


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


class _SameConvolution(nn.Conv2d):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(
            functional.pad(images, _same_padding(self)), self.weight, self.bias, self.stride, 0,
            self.dilation, self.groups,
        )  # fmt: skip


class _SamePooling(nn.AvgPool2d):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return functional.avg_pool2d(
            functional.pad(images, _same_padding(self)), self.kernel_size, self.stride
        )


class _AdaptivePooling(nn.AdaptiveAvgPool2d):
    """Means of the same bins as matrix products, which can be written for every size."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        rows = self._bins(images.shape[-2], images)
        columns = self._bins(images.shape[-1], images)
        return rows @ images @ columns.transpose(0, 1)

    def _bins(self, length: int, images: torch.Tensor) -> torch.Tensor:
        """``(bin, position)``: the share that each position has in the mean of each bin."""
        bins = _pair(self.output_size)[0]
        position = torch.arange(length, device=images.device)
        number = torch.arange(bins, device=images.device)[:, None]
        first = torch.div(number * length, bins, rounding_mode="floor")
        end = torch.div((number + 1) * length + (bins - 1), bins, rounding_mode="floor")
        share = ((position >= first) & (position < end)).to(images.dtype)
        return share / share.sum(dim=1, keepdim=True)


def exportable(network: nn.Module) -> nn.Module:
    """Replace layers that cannot be written for free sizes; changed in place."""
    import timm

    replaced: dict[type[nn.Module], type[nn.Module]] = {
        timm.layers.Conv2dSame: _SameConvolution,
        timm.layers.AvgPool2dSame: _SamePooling,
    }
    recast(network, replaced)
    for module in network.modules():
        if type(module) is nn.AdaptiveAvgPool2d and _pair(module.output_size) != (1, 1):
            module.__class__ = _AdaptivePooling
        elif isinstance(module, nn.BatchNorm2d):
            # Some encoders average their statistics over hundreds of steps: made for long
            # trainings, and far from the truth in short ones.
            module.momentum = 0.1
    return network


# --- names of encoders ---------------------------------------------------------------------------


def encoder_names() -> list[str]:
    """Names of encoders: smp's own, and timm's after ``tu-``, without those of no free licence."""
    ensure_torchvision()
    import segmentation_models_pytorch as smp
    import timm

    own = [name for name in smp.encoders.get_encoder_names() if not name.startswith(_NOT_FREE)]
    return own + [_TIMM + name for name in timm.list_models()]


def is_encoder(name: str) -> bool:
    """Whether smp or timm has an encoder of this name, whatever its licence."""
    ensure_torchvision()
    import segmentation_models_pytorch as smp
    import timm

    if name.startswith(_TIMM):
        return bool(timm.is_model(name.removeprefix(_TIMM).split(".")[0]))
    return name in smp.encoders.get_encoder_names()


@contextmanager
def checked_encoder(encoder: str) -> Iterator[None]:
    """Tell in one sentence why an encoder cannot be built, or not into this network.

    Raises
    ------
    InputError
        There is no such encoder.
    ValueError
        It may not be used, or does not fit the network.
    """
    if not isinstance(encoder, str):
        raise ValueError(f"encoder is {encoder!r}, and must be a name")
    if encoder.startswith(_NOT_FREE):
        raise ValueError(
            f"encoder {encoder} is licensed for non-commercial use only, take tu-pvt_v2_b2, "
            "which is like it and free"
        )
    try:
        yield
    except (KeyError, RuntimeError, TypeError, ValueError, AssertionError, IndexError) as error:
        if is_encoder(encoder):
            raise ValueError(
                f"encoder {encoder} does not fit it, or the other options do not"
            ) from error
        raise InputError(f"Unknown encoder {encoder!r}: {_near(encoder)}") from error


def _near(encoder: str) -> str:
    import difflib

    close = difflib.get_close_matches(encoder, encoder_names(), n=1, cutoff=0.8)
    if close:
        return f"did you mean {close[0]!r}?"
    return "take a name from segmentation-models-pytorch, or one of timm after 'tu-'."


# --- building ------------------------------------------------------------------------------------


def built_by_smp(
    architecture: str, in_channels: int, classes: int, encoder: str, **options: Any
) -> nn.Module:
    """A network of smp with random weights, which can be exported.

    Parameters
    ----------
    architecture
        smp's name of the class.
    in_channels, classes
        As in `gitract.models.create_model`.
    encoder
        A name of smp, ``tu-...`` for timm's.
    **options
        smp's.

    Raises
    ------
    InputError
        There is no such encoder.
    ValueError
        The encoder may not be used, or does not fit.
    """
    ensure_torchvision()
    import segmentation_models_pytorch as smp

    with checked_encoder(encoder):
        network: nn.Module = getattr(smp, architecture)(
            encoder_name=encoder,
            encoder_weights=None,
            in_channels=in_channels,
            classes=classes,
            **_any_size(encoder),
            **options,
        )
    begin_seldom(network.get_submodule("segmentation_head"))
    remember_imagenet(network.get_submodule("encoder"), encoder)
    return exportable(network)


def smp_encoder(encoder: str, in_channels: int) -> nn.Module:
    """An encoder alone, with random weights; its ``out_channels`` tell of what it gives.

    Raises
    ------
    InputError, ValueError
        As `built_by_smp`.
    """
    with checked_encoder(encoder):
        return remember_imagenet(exportable(_encoder(encoder, in_channels, None)), encoder)


def _encoder(encoder: str, in_channels: int, weights: str | bool | None) -> nn.Module:
    ensure_torchvision()
    from segmentation_models_pytorch.encoders import get_encoder

    built: nn.Module = get_encoder(
        encoder, in_channels=in_channels, depth=5, weights=weights, **_any_size(encoder)
    )
    return built


def _any_size(encoder: str) -> dict[str, bool]:
    """What lets timm's transformers of shifted windows take other sizes than one."""
    return {"strict_img_size": False} if encoder.startswith(_WINDOWED) else {}


# --- weights of ImageNet -------------------------------------------------------------------------


def _by_smp(encoder: str) -> nn.Module:
    return _encoder(encoder, 3, True if encoder.startswith(_TIMM) else "imagenet")


def remember_imagenet(
    built: nn.Module, encoder: str, load: Callable[[str], nn.Module] = _by_smp
) -> nn.Module:
    """Let `gitract.models.weights.start_from` find an encoder's weights of ImageNet.

    Parameters
    ----------
    built
        The encoder, changed in place.
    encoder
        Its name.
    load
        Builds the one of this name with these weights and three channels.
    """
    setattr(built, IMAGENET_BUILDER, partial(_with_imagenet_weights, encoder, load))
    return built


def _with_imagenet_weights(encoder: str, load: Callable[[str], nn.Module]) -> nn.Module:
    if not _has_imagenet_weights(encoder):
        raise InputError(
            f"There are no ImageNet weights of the encoder {encoder!r}: take another encoder, or "
            "leave out start."
        )
    try:
        return load(encoder)
    except (OSError, RuntimeError, ValueError, LookupError) as error:  # all that a hub raises
        raise InputError(
            f"The ImageNet weights of the encoder {encoder!r} are not on this computer and could "
            "not be fetched: connect to the internet once, or give a file of the encoder's weights "
            "as start."
        ) from error


def _has_imagenet_weights(encoder: str) -> bool:
    import timm
    from segmentation_models_pytorch.encoders import encoders

    if encoder.startswith(_TIMM):
        return bool(timm.models.is_model_pretrained(encoder.removeprefix(_TIMM)))
    return "imagenet" in encoders[encoder]["pretrained_settings"]
