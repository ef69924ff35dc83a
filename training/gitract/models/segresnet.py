"""A residual U-Net in 2-D or 3-D, from MONAI.

Myronenko 2018, arXiv:1810.11654, without its variational branch, in MONAI's variant with
deep supervision.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from gitract.models.blocks import begin_seldom, check_one_of
from gitract.models.outputs import Outputs
from gitract.models.registry import Facts, register
from gitract.torchvision_guard import ensure_torchvision

__all__ = ["segresnet"]

_DIMENSIONS = 3
_BLOCKS = (1, 2, 2, 4)
_GROUPS = 8


def _dimensions(options: Mapping[str, Any]) -> int:
    return int(options.get("dimensions", _DIMENSIONS))


def _multiple(options: Mapping[str, Any]) -> int:
    return int(2 ** (len(options.get("blocks", _BLOCKS)) - 1))


class _WithDeepSupervision(nn.Module):
    """MONAI's network answers with a list in training."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor | Outputs:
        if not self.training:
            answer: torch.Tensor = self.network(images)
            return answer
        logits, *deep = self.network(images)
        return Outputs(logits, deep=tuple(deep))


@register(
    "segresnet",
    multiple=_multiple,
    dimensions=_dimensions,
    facts=Facts(
        title="SegResNet",
        year=2018,
        paper="Myronenko, arXiv:1810.11654",
        published="BraTS 2018 test: Dice .884 whole tumour, .815 core, .766 enhancing (ensemble)",
        licence="Apache-2.0 (MONAI)",
    ),
)
def segresnet(
    in_channels: int,
    classes: int,
    *,
    dimensions: int = _DIMENSIONS,
    width: int = 16,
    blocks: Sequence[int] = _BLOCKS,
    deep_supervision: int = 0,
) -> nn.Module:
    """Build MONAI's SegResNetDS with group normalisation and random weights.

    Parameters
    ----------
    in_channels, classes
        As in `gitract.models.create_model`.
    dimensions
        2 or 3.
    width
        Channels at full resolution, a multiple of 8; twice as many at each coarser level.
    blocks
        Residual blocks of each level of the encoder, fine to coarse.
    deep_supervision
        How many coarser levels answer as well, in training: fewer than ``len(blocks) - 1``.

    Raises
    ------
    ValueError
        An option is out of its range.
    """
    ensure_torchvision()  # which MONAI looks for
    from monai.networks.nets.segresnet_ds import SegResNetDS

    check_one_of((2, 3), dimensions=dimensions)
    if width < 1 or width % _GROUPS:
        raise ValueError(f"width is {width}, and must be a multiple of {_GROUPS}")
    if len(blocks) < 2 or min(blocks) < 1:
        raise ValueError(f"blocks is {list(blocks)}, and must hold two or more numbers from 1 on")
    if not 0 <= deep_supervision < len(blocks) - 1:
        raise ValueError(
            f"deep_supervision is {deep_supervision}, and must be 0 to {len(blocks) - 2}"
        )
    network = SegResNetDS(
        spatial_dims=dimensions,
        init_filters=width,
        in_channels=in_channels,
        out_channels=classes,
        norm=("group", {"num_groups": _GROUPS}),
        blocks_down=tuple(blocks),
        dsdepth=deep_supervision + 1,
    )
    heads = [level.get_submodule("head") for level in network.up_layers.children()]
    begin_seldom(*(head for head in heads if not isinstance(head, nn.Identity)))
    return _WithDeepSupervision(network) if deep_supervision else network
