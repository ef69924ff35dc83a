"""What memory it takes to outline a scan, against what is estimated; and long stacks.

Each number comes from a process of its own, the first call of it: memory pools count too.

    python benchmarks/memory.py [--networks unet_resnet18,segformer,bisenet] \\
        [--slices 144,288,576,1000] [--record]
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from _bench import finish, shared_options, taken_mb
from gitract.model_store import ModelStore
from gitract.models import load_network
from gitract.onnx_network import stored_onnx
from gitract.phantom import abdomen
from gitract.predict import Segmenter
from gitract.runner import Runner, on_device
from segment import zoo_model

SIDE = 266
IMAGE = (192, 192)
WORD = "measure-one"
MB = 1e6


def one_network(model: str, way: str) -> dict[str, float]:
    """A batch of the usual size through a network, on the CPU."""
    network, config = load_network(ModelStore().find(model or None).path)
    on_device(network, torch.device("cpu"))
    home = Path(os.environ["GITRACT_HOME"])
    answer = stored_onnx(network, config, home) if way == "ONNX" else None
    if way == "ONNX" and answer is None:
        return {}
    runner = Runner(network, config.preparation.patch, on_cpu=answer)
    sides = config.preparation.patch or IMAGE
    estimate = runner.fit((config.preparation.channels, *sides), 1 << 60)
    images = torch.rand(runner.size, config.preparation.channels, *sides)
    return {"estimate": estimate / MB, "taken": taken_mb(lambda: runner(images))}


def one_stack(slices: int) -> dict[str, float]:
    """A whole scan, as users segment it."""
    scan, _ = abdomen((slices, SIDE, SIDE), spacing=(3.0, 1.5, 1.5))
    segmenter = Segmenter(device="cpu")
    need = segmenter.memory_needed(scan)
    begin = time.perf_counter()
    taken = taken_mb(lambda: segmenter.segment(scan))
    return {
        "scan": scan.voxels.nbytes / MB, "arrays": need.arrays / MB, "network": need.network / MB,
        "taken": taken, "seconds": time.perf_counter() - begin,
    }  # fmt: skip


def measured(*arguments: object) -> dict[str, float]:
    command = [sys.executable, __file__, WORD, *map(str, arguments)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, float] = json.loads(told.splitlines()[-1])
    return found


def main() -> None:
    parser = shared_options(__doc__)
    parser.add_argument("--networks", default="unet_resnet18,segformer,bisenet")
    parser.add_argument("--slices", default="144,288,576,1000")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("GITRACT_HOME", folder)
        default = Segmenter(device="cpu")
        models: dict[str, Path | str] = {default.model.id: ""}
        for name in filter(None, options.networks.split(",")):
            models[name] = zoo_model(name, default.config, Path(folder))
        networks = []
        for name, model in models.items():
            by_torch, by_onnx = (measured("network", model, way) for way in ("torch", "ONNX"))
            networks.append([
                name, f"{by_torch['estimate']:.0f}", f"{by_torch['taken']:.0f}",
                f"{by_onnx['taken']:.0f}" if by_onnx else "–",
            ])  # fmt: skip
            print(networks[-1], flush=True)
        stacks = []
        for slices in options.slices.split(","):
            one = measured("stack", slices)
            needed = one["arrays"] + one["network"]
            stacks.append([
                slices, f"{one['scan']:.0f}", f"{one['arrays']:.0f}", f"{one['network']:.0f}",
                f"{needed:.0f}", f"{one['taken']:.0f}", f"{one['taken'] / one['scan']:.1f}",
                f"{one['seconds']:.1f}", f"{1000 * one['seconds'] / int(slices):.1f}",
            ])  # fmt: skip
            print(stacks[-1], flush=True)
    finish(
        "Memory of a network",
        ["network", "estimated (MB)", "taken by torch (MB)", "taken by ONNX Runtime (MB)"],
        networks,
        f"A batch of 8 images of {IMAGE[0]} x {IMAGE[1]} pixels on "
        "the CPU, without the weights: the most that a fresh process took at its first batch.",
        options,
    )  # fmt: skip
    finish(
        "Memory and time of long stacks",
        ["slices", "scan (MB)", "arrays, estimated (MB)", "network, estimated (MB)",
         "both (MB)", "taken (MB)", "times the scan", "seconds", "ms a slice"],
        stacks,
        f"The default model on phantoms of {SIDE} x {SIDE} pixels in 16 bits, "
        f"{torch.get_num_threads()} threads. Taken: the most beyond the scan and the loaded "
        "model, in a fresh process.",
        options,
    )  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == [WORD]:
        kind, *rest = sys.argv[2:]
        print(json.dumps(one_network(*rest) if kind == "network" else one_stack(int(rest[0]))))
    else:
        main()
