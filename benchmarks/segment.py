"""What it costs to outline a stack: ours, the bare network, MONAI's and nnU-Net's ways.

Everything runs in the same process, in alternating rounds, from the scan's array to a label
array; the bare network gets its input batches ready-made, in torch, in ONNX Runtime and, where it
is installed, in OpenVINO. Zoo networks have random weights, since time does not depend on them;
they look at every slice. nnU-Net runs in an environment of its own, with its own network. A second
table says what the time of the default model is made of.

    python benchmarks/segment.py [--scan FOLDER] [--networks unet_resnet18,segformer,bisenet]
        [--rounds 3] [--nnunet-python ENV/bin/python] [--record]
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from monai.inferers import SlidingWindowInferer

from _bench import every_slice, finish, median_seconds, shared_options, taken_mb
from gitract import predict
from gitract.io import read_scan
from gitract.model_config import ModelConfig, NetworkConfig
from gitract.models import load_network, save_model
from gitract.models.weights import build_network
from gitract.onnx_network import stored_onnx, write_onnx
from gitract.phantom import abdomen
from gitract.predict import Segmenter
from gitract.preparation import Prepared, network_input, prepare_scan
from gitract.runner import Runner, on_device
from gitract.scan import Scan, Segmentation

BATCH = 8  # as gitract uses on a CPU
PHANTOM = (144, 266, 266)
WORD = "peak-of"


def zoo_model(name: str, like: ModelConfig, folder: Path) -> Path:
    """A model folder with a network of the zoo, prepared for as `like`."""
    config = like.model_copy(update={"id": name, "network": NetworkConfig(name=name)})
    save_model(build_network(config), config, f"# {name}\n", folder / name)
    return folder / name


def ways(model: Path | None, scan: Scan) -> dict[str, Callable[[], object]]:
    """The ways to run a model on a scan."""
    segmenter = Segmenter(model, device="cpu")
    network, config = load_network(segmenter.model.path)
    on_device(network, torch.device("cpu"))
    preparation = config.preparation
    onnx = stored_onnx(network, config, Path(os.environ["GITRACT_HOME"]))
    prepared = prepare_scan(scan.voxels, scan.spacing, preparation)
    every = range(len(prepared.slices))
    batches = [
        network_input(prepared.slices, every[i : i + BATCH], preparation).contiguous(
            memory_format=torch.channels_last
        )
        for i in range(0, len(every), BATCH)
    ]
    side = [min(128, size) for size in prepared.slices.shape[1:]]
    inferer = SlidingWindowInferer(roi_size=side, sw_batch_size=BATCH, overlap=0.25)

    @torch.inference_mode()
    def bare() -> None:
        for batch in batches:
            network(batch)

    def bare_onnx() -> None:
        assert onnx is not None
        for batch in batches:
            onnx(batch)

    @torch.inference_mode()
    def monai() -> np.ndarray:
        ready = prepare_scan(scan.voxels, scan.spacing, preparation)
        masks = np.zeros((len(config.organs), *scan.shape), bool)
        for i in range(0, len(every), BATCH):
            images = network_input(ready.slices, every[i : i + BATCH], preparation)
            logits = ready.back(inferer(images, network))
            masks[:, i : i + len(images)] = (logits > 0).numpy().swapaxes(0, 1)
        return masks

    found: dict[str, Callable[[], object]] = {"torch": bare, "monai": monai}
    if onnx is not None:
        found["onnx"] = bare_onnx
    if onnx is not None and importlib.util.find_spec("openvino"):
        openvino = in_openvino(network, config)
        found["openvino"] = lambda: [openvino(batch) for batch in batches]
    found["ours"] = lambda: segmenter.segment(scan)
    return found


def in_openvino(network: torch.nn.Module, config: ModelConfig) -> Callable[[torch.Tensor], object]:
    """The network compiled by OpenVINO for a CPU, from its ONNX file."""
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.onnx"
        write_onnx(network, config, file)
        core = openvino.Core()
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": "f32",
        }
        compiled = core.compile_model(core.read_model(file), "CPU", settings)
    return lambda batch: compiled(batch.contiguous().numpy())


@contextmanager
def timed(parts: dict[str, tuple[object, str]]) -> Iterator[dict[str, float]]:
    """Seconds spent in functions, by name; they must not call each other."""
    seconds: dict[str, float] = defaultdict(float)

    def wrapped(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            begin = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                seconds[name] += time.perf_counter() - begin

        return call

    with ExitStack() as stack:
        for name, (owner, attribute) in parts.items():
            new = wrapped(name, getattr(owner, attribute))
            stack.enter_context(mock.patch.object(owner, attribute, new))
        yield seconds


def made_of(scan: Scan, rounds: int) -> list[list[str]]:
    """What the time of a call is made of, with the default model as users get it."""
    segmenter = Segmenter(device="cpu")
    segmenter.segment(scan)
    parts: dict[str, tuple[object, str]] = {
        "estimating memory": (Segmenter, "memory_needed"),
        "preparing the scan": (predict, "prepare_scan"),
        "the network": (Runner, "__call__"),
        "back to the scan's grid": (Prepared, "in_plane"),
        "deciding": (predict._Contours, "add"),
        "labels": (Segmentation, "labels"),
    }
    with timed(parts) as seconds:
        begin = time.perf_counter()
        for _ in range(rounds):
            segmenter.segment(scan)
        whole = (time.perf_counter() - begin) / rounds
    found = {name: seconds[name] / rounds for name in parts}
    found["all else"] = whole - sum(found.values())
    return [[name, f"{1000 * one:.0f}", f"{100 * one / whole:.1f}"] for name, one in found.items()]


def peak_mb(model: Path | None, scan: str, way: str) -> float:
    """The most memory that a process of its own took for it, over what it began with."""
    command = [sys.executable, __file__, WORD, str(model or ""), scan, way]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(told.split()[-1])


def print_peak(model: str, scan: str, way: str) -> None:
    run = ways(Path(model) if model else None, opened(scan))[way]
    run()  # what is made once, such as the memory pools of a runtime, is not counted
    print(taken_mb(run))


def opened(scan: str) -> Scan:
    return read_scan(scan) if scan else abdomen(PHANTOM, spacing=(3.0, 1.5, 1.5), name="phantom")[0]


def rows_of(model: Path | None, name: str, scan: str, rounds: int) -> list[list[str]]:
    """One row for a network on a scan; with every slice, and as users get it."""
    loaded = opened(scan)
    candidates = ways(model, loaded)
    for run in candidates.values():
        run()
    with every_slice():  # the same work for all
        seconds = median_seconds(candidates, rounds=rounds)
    users = median_seconds({"ours": candidates["ours"]}, rounds=rounds)["ours"]
    bare = min(seconds[way] for way in ("torch", "onnx", "openvino") if way in seconds)
    faster = [f"{seconds[way]:.2f}" if way in seconds else "–" for way in ("onnx", "openvino")]
    return [[
        name, loaded.name, f"{seconds['torch']:.2f}", *faster, f"{seconds['ours']:.2f}",
        f"{seconds['ours'] / bare:.2f}", f"{seconds['monai']:.2f}",
        f"{seconds['monai'] / seconds['ours']:.1f}", f"{users:.2f}" if model is None else "",
        f"{1000 * seconds['ours'] / len(loaded.voxels):.0f}",
        f"{peak_mb(model, scan, 'ours'):.0f}", f"{peak_mb(model, scan, 'monai'):.0f}",
    ]]  # fmt: skip


def nnunet(python: Path, kind: str) -> list[str]:
    script = Path(__file__).with_name("_nnunet_stack.py")
    command = [python, script, *PHANTOM, torch.get_num_threads(), kind]
    told = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    seconds, peak = (float(word) for word in told.stdout.split()[-2:])
    return [f"nnU-Net, {kind}", "phantom", "", "", "", f"{seconds:.0f}", "", "", "", "",
            f"{1000 * seconds / PHANTOM[0]:.0f}", f"{peak:.0f} in all", ""]  # fmt: skip


def main() -> None:
    parser = shared_options(__doc__, rounds=3)
    parser.add_argument("--scan", default="")
    parser.add_argument("--networks", default="unet_resnet18,segformer,bisenet")
    parser.add_argument("--nnunet-python", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("GITRACT_HOME", folder)
        default = Segmenter(device="cpu")
        rows = []
        for scan in ("", options.scan) if options.scan else ("",):
            rows += rows_of(None, default.model.id, scan, options.rounds)
        for name in options.networks.split(","):
            model = zoo_model(name, default.config, Path(folder))
            rows += rows_of(model, name, "", options.rounds)
    for kind in ("plain", "mirrored") if options.nnunet_python else ():
        rows.append(nnunet(options.nnunet_python, kind))
    finish(
        "One stack, from an array to labels",
        ["network", "scan", "bare torch (s)", "bare ONNX (s)", "bare OpenVINO (s)", "ours (s)",
         "to best bare", "MONAI (s)", "MONAI to ours", "as users get it (s)", "ours, ms a slice",
         "ours, MB", "MONAI, MB"],
        rows,
        f"{torch.get_num_threads()} threads, batches of {BATCH}, median of {options.rounds} "
        "alternating rounds; the phantom has 144 slices of 266 x 266. *Ours* looks at every "
        "slice here; *as users get it* leaves out those far from every organ. MONAI is its "
        "SlidingWindowInferer with the same network and preparation. MB: the most that a "
        "fresh process took, at its second run, beyond what it held before. The aims: at most "
        "1.10 to the best bare network, MONAI at least 1.5 times as slow, nnU-Net 10 times, "
        "mirrored 35 times.",
        options,
    )  # fmt: skip
    finish(
        "What the time of a stack is made of",
        ["part", "ms", "%"],
        made_of(opened(options.scan), options.rounds),
        f"The default model as users get it, once warm, on "
        f"{'a real scan' if options.scan else 'the phantom'}; {torch.get_num_threads()} threads.",
        options,
    )


if __name__ == "__main__":
    if sys.argv[1:2] == [WORD]:
        print_peak(*sys.argv[2:5])
    else:
        main()
