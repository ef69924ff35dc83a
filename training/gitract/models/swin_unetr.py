"""Swin UNETR, a U-Net whose encoder attends within shifted windows, in 3-D or 2-D, from MONAI.

Hatamizadeh et al. 2022, arXiv:2201.01266. Departs from the paper, and from MONAI where not said
otherwise, in that

- it is half as wide by default (24, the paper has 48);
- windows keep their size on maps smaller than they are, as everywhere else: the map is padded,
  and what was padded is attended to by nothing. MONAI makes such windows smaller. Where all maps
  are larger than the window and divisible by it, both answer the same;
- patches are merged in the order of MONAI's "mergingv2", the only one that is the same in all its
  versions.

Thus it takes every size, and can be written for every size as TorchScript and ONNX;
``torch.export`` cannot solve for which sizes the windows fill the maps.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from gitract.models.blocks import begin_seldom, check_one_of, recast
from gitract.models.registry import Facts, register
from gitract.torchvision_guard import ensure_torchvision

__all__ = ["swin_unetr"]

_DIMENSIONS = 3
_MULTIPLE = 32
_STAGES = 4
_HEADS = (3, 6, 12, 24)
_HIDDEN = -100.0  # logit of attention between what must not see each other, as MONAI's


def _dimensions(options: Mapping[str, Any]) -> int:
    return int(options.get("dimensions", _DIMENSIONS))


class _InstanceNorm(nn.modules.instancenorm._InstanceNorm):
    """Takes a single value for each channel as well, which torch refuses to be asked for."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return torch.instance_norm(
            maps, self.weight, self.bias, None, None, True, 0.0, self.eps,
            torch.backends.cudnn.enabled,
        )  # fmt: skip

    def _check_input_dim(self, maps: torch.Tensor) -> None:
        pass


class _InstanceNorm2d(_InstanceNorm, nn.InstanceNorm2d):
    pass


class _InstanceNorm3d(_InstanceNorm, nn.InstanceNorm3d):
    pass


_CLASSES: dict[type[nn.Module], type[nn.Module]] = {
    nn.InstanceNorm2d: _InstanceNorm2d,
    nn.InstanceNorm3d: _InstanceNorm3d,
}


def _channels_last(maps: torch.Tensor) -> torch.Tensor:
    return maps.permute(0, *range(2, maps.ndim), 1)


def _channels_first(maps: torch.Tensor) -> torch.Tensor:
    return maps.permute(0, maps.ndim - 1, *range(1, maps.ndim - 1))


def _windows(maps: torch.Tensor, window: Sequence[int]) -> torch.Tensor:
    """``(batch, *sizes, channel)`` to ``(batch * windows, tokens, channel)``."""
    axes = len(window)
    split = [
        n for size, side in zip(maps.shape[1:-1], window, strict=True) for n in (size // side, side)
    ]
    parts = maps.reshape(maps.shape[0], *split, maps.shape[-1])
    numbers, inside = range(1, 2 * axes, 2), range(2, 2 * axes + 1, 2)
    ordered = parts.permute(0, *numbers, *inside, 2 * axes + 1)
    return ordered.reshape(-1, math.prod(window), maps.shape[-1])


def _joined(windows: torch.Tensor, window: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    """What `_windows` did, back to the sizes of `like`."""
    axes = len(window)
    numbers = [size // side for size, side in zip(like.shape[1:-1], window, strict=True)]
    parts = windows.reshape(like.shape[0], *numbers, *window, like.shape[-1])
    order = [n for axis in range(1, axes + 1) for n in (axis, axes + axis)]
    return parts.permute(0, *order, 2 * axes + 1).reshape(like.shape)


def _hidden(
    sizes: Sequence[int], padded: Sequence[int], window: Sequence[int], shift: Sequence[int],
    device: torch.device,
) -> torch.Tensor:  # fmt: skip
    """What is added to the attention of each window, ``(window, token, token)``.

    Zero between tokens that lie together in the image, before it was shifted and padded.
    """
    regions = torch.zeros((1,) * (len(sizes) + 2), dtype=torch.long, device=device)
    for axis, (size, length, side, step) in enumerate(
        zip(sizes, padded, window, shift, strict=True), start=1
    ):
        position = torch.arange(length, device=device)
        region = (torch.roll(position, -step, 0) >= size) * 3
        if step:
            region = region + (position >= length - side) + (position >= length - step)
        shape = [1] * (len(sizes) + 2)
        shape[axis] = -1
        regions = regions * 6 + region.reshape(shape)
    tokens = _windows(regions, window).squeeze(-1)
    apart = tokens[:, :, None] != tokens[:, None, :]
    return apart.to(torch.get_default_dtype()) * _HIDDEN


class _Stage(nn.Module):
    """MONAI's blocks of one stage, and the merging of patches behind them, for every size."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.blocks = layer.get_submodule("blocks")
        self.downsample = layer.get_submodule("downsample")
        self.window: tuple[int, ...] = tuple(layer.window_size)  # type: ignore[arg-type]

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """``(batch, channel, *sizes)`` to twice the channels and half the sizes."""
        if torch.compiler.is_compiling():  # where it would fail after many minutes
            raise RuntimeError("windows of free sizes cannot be exported")
        maps = _channels_last(maps)
        block: Any
        for block in self.blocks.children():
            maps = maps + block.drop_path(self._attended(block, maps))
            maps = maps + block.forward_part2(maps)
        return _channels_first(self.downsample(maps))

    def _attended(self, block: Any, maps: torch.Tensor) -> torch.Tensor:
        sizes, shift = maps.shape[1:-1], tuple(block.shift_size)
        missing = [-size % side for size, side in zip(sizes, self.window, strict=True)]
        padding = [n for size in missing[::-1] for n in (0, size)]
        padded = functional.pad(block.norm1(maps), [0, 0, *padding])
        axes = tuple(range(1, len(sizes) + 1))
        hidden = _hidden(sizes, padded.shape[1:-1], self.window, shift, maps.device)
        shifted = torch.roll(padded, [-step for step in shift], axes) if any(shift) else padded
        seen = block.attn(_windows(shifted, self.window), mask=hidden)
        back = _joined(seen, self.window, padded)
        if any(shift):
            back = torch.roll(back, shift, axes)
        for axis, size in zip(axes, sizes, strict=True):
            back = back.narrow(axis, 0, size)
        return back


class _Patches(nn.Module):
    """MONAI's first layer without a check of sizes."""

    def __init__(self, embedding: nn.Module) -> None:
        super().__init__()
        self.proj = embedding.get_submodule("proj")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        patches: torch.Tensor = self.proj(images)
        return patches


def _normalised(maps: torch.Tensor, normalize: bool = True) -> torch.Tensor:
    """MONAI's normalisation over the channels of what goes to the decoder."""
    if not normalize:
        return maps
    channels = int(maps.shape[1])  # a constant, which ONNX asks for
    return _channels_first(functional.layer_norm(_channels_last(maps), [channels]))


def _unchecked(sizes: Sequence[int]) -> None:
    """Sizes have been padded to what the network needs."""


def _for_every_size(network: nn.Module) -> nn.Module:
    """Replace what looks at sizes in a way that cannot be written, or needs einops.

    Changed in place.
    """
    encoder = network.get_submodule("swinViT")
    encoder.patch_embed = _Patches(encoder.get_submodule("patch_embed"))
    encoder.proj_out = _normalised  # type: ignore[assignment]
    for number in range(1, _STAGES + 1):
        stage = encoder.get_submodule(f"layers{number}")
        stage.register_module("0", _Stage(stage.get_submodule("0")))
    recast(network, _CLASSES)
    network._check_input_size = _unchecked  # type: ignore[assignment]
    return network


@register(
    "swin_unetr",
    multiple=_MULTIPLE,
    dimensions=_dimensions,
    facts=Facts(
        title="Swin UNETR",
        year=2022,
        paper="Hatamizadeh et al., arXiv:2201.01266",
        published="BraTS 2021, five folds: mean Dice .913",
        licence="Apache-2.0 (MONAI)",
    ),
)
def swin_unetr(
    in_channels: int,
    classes: int,
    *,
    dimensions: int = _DIMENSIONS,
    width: int = 24,
    depths: Sequence[int] = (2, 2, 2, 2),
    window: int = 7,
) -> nn.Module:
    """Build MONAI's SwinUNETR with random weights.

    Parameters
    ----------
    in_channels, classes
        As in `gitract.models.create_model`.
    dimensions
        2 or 3.
    width
        Channels at full and half resolution, a multiple of 12; twice as many at each coarser
        level.
    depths
        Blocks of each of the four stages; every second one shifts its windows.
    window
        Side of a window, in patches of two pixels.

    Raises
    ------
    ValueError
        An option is out of its range.
    """
    check_one_of((2, 3), dimensions=dimensions)
    if width < 1 or width % 12:
        raise ValueError(f"width is {width}, and must be a multiple of 12")
    if len(depths) != _STAGES or min(depths) < 1:
        raise ValueError(f"depths is {list(depths)}, and must hold four numbers from 1 on")
    if window < 2:
        raise ValueError(f"window is {window}, and must be 2 or more")
    ensure_torchvision()  # which MONAI looks for
    from monai.networks.nets.swin_unetr import SwinUNETR

    device = torch.empty(0).device
    with torch.device("cpu"):  # MONAI reads numbers from tensors, which the meta device has not
        network = SwinUNETR(
            in_channels=in_channels,
            out_channels=classes,
            feature_size=width,
            depths=tuple(depths),
            num_heads=_HEADS,
            window_size=window,
            spatial_dims=dimensions,
            downsample="mergingv2",
        )
    begin_seldom(network.out)
    return _for_every_size(network.to(device))
