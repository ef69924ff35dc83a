"""Networks of segmentation-models-pytorch, each with an interchangeable encoder.

Their papers are in the table of the zoo. Departures from them:

- DeepLabv3, Chen et al. 2017, arXiv:1706.05587: no multi-grid in the last block.
- DeepLabv3+, Chen et al. 2018, arXiv:1802.02611: a ResNet encodes, not Xception.
- SegFormer, Xie et al. 2021, arXiv:2105.15203: PVTv2 of timm (Wang et al. 2021,
  arXiv:2106.13797) encodes; the authors' Mix Transformer is for non-commercial use only.
- UPerNet, Xiao et al. 2018, arXiv:1807.10221: its head for segmentation alone, behind
  ConvNeXt (Liu et al. 2022, arXiv:2201.03545), with normalised features of every stage.
- DPT, Ranftl et al. 2021, arXiv:2103.13413: a small transformer and a narrower decoder
  than the authors'.
- FPN, Lin et al. 2016, arXiv:1612.03144, with the decoder for segmentation of Kirillov et
  al. 2019, arXiv:1901.02446.
- MA-Net, Fan et al. 2020, doi:10.1109/ACCESS.2020.3025372: a ResNet encodes.
- PAN, Li et al. 2018, arXiv:1805.10180: a smaller encoder; maps that cannot be halved three
  times are rounded up, so that images of every size are taken; no biases that the batch
  normalisation takes away again.
- LinkNet, Chaurasia and Culurciello 2017, arXiv:1707.03718: ResNet34 encodes, not ResNet18.

All are interpolated to the size of the image at the end, from 1/4 (DeepLabv3 from 1/8, DPT
from 1/2; MA-Net and LinkNet end at full size).
"""

from collections.abc import Sequence
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from gitract.models.blocks import begin_seldom, check_one_of, check_positive
from gitract.models.registry import Facts, register
from gitract.models.smp_encoders import (
    built_by_smp,
    checked_encoder,
    exportable,
    remember_imagenet,
)
from gitract.torchvision_guard import ensure_torchvision

__all__ = [
    "deeplabv3",
    "deeplabv3_plus",
    "dpt",
    "fpn",
    "linknet",
    "manet",
    "pan",
    "segformer",
    "upernet",
]

_LICENCE = "MIT (segmentation-models-pytorch), Apache-2.0 (timm)"
_PATCH = 16  # pixels, of the transformers whose maps DPT's decoder knows how to enlarge
_ATROUS_RATES = (6, 12, 18)  # of the papers, for features at 1/16


# --- atrous convolutions -------------------------------------------------------------------------


def _deeplab(
    architecture: str,
    in_channels: int,
    classes: int,
    encoder: str,
    output_stride: int,
    decoder_channels: int,
) -> nn.Module:
    check_one_of((8, 16), output_stride=output_stride)
    check_positive(decoder_channels=decoder_channels)
    return built_by_smp(
        architecture, in_channels, classes, encoder,
        encoder_output_stride=output_stride,
        decoder_channels=decoder_channels,
        decoder_atrous_rates=tuple(rate * 16 // output_stride for rate in _ATROUS_RATES),
    )  # fmt: skip


@register(
    "deeplabv3",
    multiple=32,
    facts=Facts(
        title="DeepLabv3",
        year=2017,
        paper="Chen et al., arXiv:1706.05587",
        published="PASCAL VOC 2012 test: mean IoU 85.7 %",
        licence=_LICENCE,
    ),
)
def deeplabv3(
    in_channels: int,
    classes: int,
    *,
    encoder: str = "resnet50",
    output_stride: int = 8,
    decoder_channels: int = 256,
) -> nn.Module:
    """Build smp's DeepLabv3 with random weights.

    Parameters
    ----------
    in_channels, classes
        As in `gitract.models.create_model`.
    encoder
        A name of smp, ``tu-...`` for timm's, of a network that can be dilated.
    output_stride
        8 or 16: the encoder's features have this fraction of the image's resolution.
    decoder_channels
        Width of the pyramid of dilated convolutions.
    """
    return _deeplab("DeepLabV3", in_channels, classes, encoder, output_stride, decoder_channels)


@register(
    "deeplabv3_plus",
    multiple=32,
    facts=Facts(
        title="DeepLabv3+",
        year=2018,
        paper="Chen et al., arXiv:1802.02611",
        published="PASCAL VOC 2012 test: mean IoU 89.0 %; Cityscapes test: 82.1 %",
        licence=_LICENCE,
    ),
)
def deeplabv3_plus(
    in_channels: int,
    classes: int,
    *,
    encoder: str = "resnet50",
    output_stride: int = 16,
    decoder_channels: int = 256,
) -> nn.Module:
    """Build smp's DeepLabv3+ with random weights; options as in `deeplabv3`."""
    return _deeplab("DeepLabV3Plus", in_channels, classes, encoder, output_stride, decoder_channels)


# --- transformers, and what is built for them ----------------------------------------------------


@register(
    "segformer",
    multiple=32,
    facts=Facts(
        title="SegFormer",
        year=2021,
        paper="Xie et al., arXiv:2105.15203",
        published="ADE20K val: mean IoU 50.3 % (B4); Cityscapes val: 84.0 % (B5)",
        licence=_LICENCE,
    ),
)
def segformer(
    in_channels: int,
    classes: int,
    *,
    encoder: str = "tu-pvt_v2_b2",
    decoder_channels: int = 256,
) -> nn.Module:
    """Build smp's SegFormer with random weights.

    Parameters
    ----------
    in_channels, classes
        As in `gitract.models.create_model`.
    encoder
        A name of smp, ``tu-...`` for timm's.
    decoder_channels
        Width to which the features of all stages are brought.
    """
    check_positive(decoder_channels=decoder_channels)
    return built_by_smp(
        "Segformer", in_channels, classes, encoder, decoder_segmentation_channels=decoder_channels
    )


@register(
    "upernet",
    multiple=32,
    facts=Facts(
        title="UPerNet",
        year=2018,
        paper="Xiao et al., arXiv:1807.10221",
        published="ADE20K val: mean IoU 42.66 % (ResNet101)",
        licence=_LICENCE,
    ),
)
def upernet(
    in_channels: int,
    classes: int,
    *,
    encoder: str = "tu-convnext_tiny",
    decoder_channels: int = 256,
) -> nn.Module:
    """Build smp's UPerNet with random weights; options as in `segformer`."""
    check_positive(decoder_channels=decoder_channels)
    return built_by_smp("UPerNet", in_channels, classes, encoder, decoder_channels=decoder_channels)


def _any_positions(self: Any, patches: torch.Tensor) -> torch.Tensor:
    """timm's vision transformer adds what it learned of positions, for every size alike.

    Patches ``(batch, row, column, channel)`` to tokens ``(batch, number, channel)``; the grid
    of positions is interpolated as the authors of DPT do it.
    """
    extra = [
        token.expand(patches.shape[0], -1, -1)
        for token in (self.cls_token, self.reg_token)
        if token is not None
    ]
    own = 0 if self.no_embed_class else self.num_prefix_tokens
    grid = self.pos_embed[:, own:].unflatten(1, self.patch_embed.grid_size).permute(0, 3, 1, 2)
    grid = functional.interpolate(grid, size=patches.shape[1:3], mode="bilinear")
    positions = grid.flatten(2).transpose(1, 2)
    tokens = patches.flatten(1, 2)
    if self.no_embed_class:
        tokens = torch.cat([*extra, tokens + positions], dim=1)
    else:
        tokens = torch.cat([*extra, tokens], dim=1)
        tokens = tokens + torch.cat([self.pos_embed[:, :own], positions], dim=1)
    moved: torch.Tensor = self.pos_drop(tokens)
    return moved


def _vision_transformer(encoder: Any) -> nn.Module:
    """Let smp's encoder of patches take every size, and drop what nobody reads."""
    import timm

    model = encoder.model
    plain = type(model) is timm.models.vision_transformer.VisionTransformer
    if not plain or model.pos_embed is None or set(encoder.output_strides) != {_PATCH}:
        raise ValueError(f"not a plain vision transformer of patches of {_PATCH}")
    model.prune_intermediate_layers(encoder._output_indices, prune_norm=True, prune_head=True)
    model._pos_embed = MethodType(_any_positions, model)
    changed: nn.Module = encoder
    return changed


def _imagenet_transformer(encoder: str) -> nn.Module:
    from segmentation_models_pytorch.encoders import TimmViTEncoder

    loaded: nn.Module = TimmViTEncoder(name=encoder.removeprefix("tu-"), pretrained=True)
    return loaded


@register(
    "dpt",
    multiple=32,
    facts=Facts(
        title="DPT",
        year=2021,
        paper="Ranftl et al., arXiv:2103.13413",
        published="ADE20K val: mean IoU 49.02 % (hybrid)",
        licence=_LICENCE,
    ),
)
def dpt(
    in_channels: int,
    classes: int,
    *,
    encoder: str = "tu-vit_small_patch16_224",
    stage_channels: Sequence[int] = (48, 96, 192, 384),
    decoder_channels: int = 128,
) -> nn.Module:
    """Build smp's DPT with random weights.

    Parameters
    ----------
    in_channels, classes
        As in `gitract.models.create_model`.
    encoder
        A plain vision transformer of timm with patches of 16: ``tu-vit_...``, ``tu-deit_...``.
    stage_channels
        Widths of the four maps, fine to coarse, that tokens are put together to.
    decoder_channels
        Width at which these are fused.
    """
    ensure_torchvision()
    import segmentation_models_pytorch as smp

    check_positive(stage_channels=stage_channels, decoder_channels=decoder_channels)
    with checked_encoder(encoder):
        network: nn.Module = smp.DPT(
            encoder_name=encoder,
            encoder_weights=None,
            in_channels=in_channels,
            classes=classes,
            decoder_intermediate_channels=tuple(stage_channels),
            decoder_fusion_channels=decoder_channels,
            dynamic_img_size=True,
        )
        begin_seldom(network.get_submodule("segmentation_head"))
        encodes = _vision_transformer(network.get_submodule("encoder"))
    remember_imagenet(encodes, encoder, _imagenet_transformer)
    return exportable(network)


# --- pyramids and U-Nets -------------------------------------------------------------------------


@register(
    "fpn",
    multiple=32,
    facts=Facts(
        title="FPN",
        year=2017,
        paper="Lin et al., arXiv:1612.03144; Kirillov et al., arXiv:1901.02446",
        published="",
        licence=_LICENCE,
    ),
)
def fpn(
    in_channels: int,
    classes: int,
    *,
    encoder: str = "resnet34",
    pyramid_channels: int = 256,
    decoder_channels: int = 128,
) -> nn.Module:
    """Build smp's feature pyramid network with random weights.

    Parameters
    ----------
    in_channels, classes
        As in `gitract.models.create_model`.
    encoder
        A name of smp, ``tu-...`` for timm's.
    pyramid_channels
        Width of the pyramid.
    decoder_channels
        Width of what is summed over its levels, a multiple of 32.
    """
    check_positive(pyramid_channels=pyramid_channels, decoder_channels=decoder_channels)
    if decoder_channels % 32:
        raise ValueError(f"decoder_channels is {decoder_channels}, and must be a multiple of 32")
    return built_by_smp(
        "FPN", in_channels, classes, encoder,
        decoder_pyramid_channels=pyramid_channels,
        decoder_segmentation_channels=decoder_channels,
    )  # fmt: skip


@register(
    "manet",
    multiple=32,
    facts=Facts(
        title="MA-Net",
        year=2020,
        paper="Fan et al., doi:10.1109/ACCESS.2020.3025372",
        published="LiTS: Dice .960 liver, .749 tumours",
        licence=_LICENCE,
    ),
)
def manet(
    in_channels: int,
    classes: int,
    *,
    encoder: str = "resnet34",
    decoder_channels: Sequence[int] = (256, 128, 64, 32, 16),
) -> nn.Module:
    """Build smp's MA-Net with random weights.

    Parameters
    ----------
    in_channels, classes
        As in `gitract.models.create_model`.
    encoder
        A name of smp, ``tu-...`` for timm's.
    decoder_channels
        Width of the decoder's five stages, coarse to fine.
    """
    check_positive(decoder_channels=decoder_channels)
    return built_by_smp(
        "MAnet", in_channels, classes, encoder, decoder_channels=tuple(decoder_channels)
    )


class _Rounded(nn.MaxPool2d):
    """Keeps the last row and column of odd maps."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return functional.max_pool2d(maps, self.kernel_size, self.stride, ceil_mode=True)


class _PyramidAttention(nn.Module):
    """smp's feature pyramid attention for maps of every size.

    The layers are smp's; maps are enlarged to those that they are added to, where smp counts on
    sides that can be halved three times.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        for name, part in block.named_children():
            self.add_module(name, part)
        for module in self.modules():
            if type(module) is nn.MaxPool2d:
                module.__class__ = _Rounded

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        part = self.get_submodule
        half = part("down1")(features)
        quarter = part("down2")(half)
        eighth = part("down3")(quarter)
        maps = part("conv2")(quarter) + _enlarged(eighth, quarter)
        maps = part("conv1")(half) + _enlarged(maps, half)
        attended = _enlarged(maps, features) * part("mid")(features)
        return attended + _enlarged(part("branch1")(features), features)


def _enlarged(maps: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(maps, size=like.shape[-2:], mode="bilinear", align_corners=True)


@register(
    "pan",
    multiple=32,
    facts=Facts(
        title="PAN",
        year=2018,
        paper="Li et al., arXiv:1805.10180",
        published="PASCAL VOC 2012 test: mean IoU 84.0 %",
        licence=_LICENCE,
    ),
)
def pan(
    in_channels: int,
    classes: int,
    *,
    encoder: str = "resnet34",
    output_stride: int = 16,
    decoder_channels: int = 32,
) -> nn.Module:
    """Build smp's pyramid attention network with random weights.

    Parameters
    ----------
    in_channels, classes
        As in `gitract.models.create_model`.
    encoder
        A name of smp, ``tu-...`` for timm's.
    output_stride
        16, for which the encoder is dilated, or 32, which those take that cannot be.
    decoder_channels
        Width of the decoder.
    """
    check_one_of((16, 32), output_stride=output_stride)
    check_positive(decoder_channels=decoder_channels)
    network = built_by_smp(
        "PAN", in_channels, classes, encoder,
        encoder_output_stride=output_stride, decoder_channels=decoder_channels,
    )  # fmt: skip
    decoder = network.get_submodule("decoder")
    decoder.fpa = _PyramidAttention(decoder.get_submodule("fpa"))
    for module in decoder.modules():
        if hasattr(module, "bn"):  # which takes a bias away again
            module.get_submodule("conv").register_parameter("bias", None)
    return network


@register(
    "linknet",
    multiple=32,
    facts=Facts(
        title="LinkNet",
        year=2017,
        paper="Chaurasia and Culurciello, arXiv:1707.03718",
        published="Cityscapes val: mean IoU 76.4 %",
        licence=_LICENCE,
    ),
)
def linknet(in_channels: int, classes: int, *, encoder: str = "resnet34") -> nn.Module:
    """Build smp's LinkNet with random weights.

    Parameters
    ----------
    in_channels, classes
        As in `gitract.models.create_model`.
    encoder
        A name of smp, ``tu-...`` for timm's.
    """
    return built_by_smp("Linknet", in_channels, classes, encoder)
