"""Models for other programs: TorchScript, torch.export, ONNX.

What is written is the network alone, in float32. Its input is what
`gitract.preparation.prepare_scan` and `network_input` make of a scan:

- a 2-D network takes ``(batch, channels, rows, columns)``. Channels are a slice and its
  neighbours, `Preparation.stride` apart, the middle one is the slice that is outlined, and
  beyond the ends of the stack the last slice is repeated;
- a 3-D network takes patches ``(batch, 1, slices, rows, columns)`` of the stack;
- slices hang as on a light box, rows running to the patient's back and columns to his left;
- pixels are square, of ``pixel_mm``; grey values between two percentiles are scaled to
  0...1 and clipped.

Its output is one logit for each organ and pixel of the input; above 0 the organ is there.
Batch and sizes are free. The model's whole configuration, with preparation and organs, is
in the file, under the name ``config.json``.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import nn

from gitract.errors import InputError
from gitract.model_config import CONFIG_FILE, ModelConfig
from gitract.model_store import ModelStore
from gitract.models import load_network
from gitract.onnx_network import Answer, OnnxNetwork, disagreement, random_input, write_onnx
from gitract.progress import Progress, Report, silent
from gitract.replacing import replaced_file

__all__ = ["ExportFormat", "export_model"]

ExportFormat = Literal["folder", "torchscript", "torch-export", "onnx"]

_FORMATS: dict[str, ExportFormat] = {
    ".pt": "torchscript",
    ".pt2": "torch-export",
    ".onnx": "onnx",
}


def export_model(
    model: str | Path | None,
    path: Path,
    *,
    format: str | None = None,  # noqa: A002
    store: ModelStore | None = None,
    report: Report = silent,
) -> Path:
    """Write a model for another program, and check that it answers there as here.

    The written file is read again and run on random input of two sizes and two batch
    sizes; it is kept where its logits are those of torch within 1e-4 (and 1e-5 of the
    value, where logits are large).

    Parameters
    ----------
    model
        Id of an installed version or a model folder; None for the active version.
    path
        A name that is free.
    format
        ``folder`` (a copy), ``torchscript``, ``torch-export`` (whose input sides must be
        larger than the network's coarsest pixel: 32 pixels for ``encoder_unet``) or
        ``onnx``. None: by the suffix of `path`, ``.pt``, ``.pt2`` or ``.onnx``, else a folder.
    store
        Where versions are looked up; the user's when not given.
    report
        Called for each step.

    Returns
    -------
    pathlib.Path
        `path`.

    Raises
    ------
    InputError
        The model is missing or damaged, the format is unknown or its library not
        installed, `path` exists or cannot be written, or the answers differ.
    """
    store = store or ModelStore()
    named = path.suffix and not path.suffix[1:].isdigit()  # not so version-1.2
    if format is None and named and path.suffix.lower() not in _FORMATS:
        raise InputError(
            f"The suffix {path.suffix} of {path} is none of {', '.join(_FORMATS)}: choose one of "
            "them, or say --format folder."
        )
    chosen = format or _FORMATS.get(path.suffix.lower(), "folder")
    if chosen not in get_args(ExportFormat):
        known = ", ".join(get_args(ExportFormat))
        raise InputError(f"Unknown export format {chosen!r}: choose one of {known}.")
    if chosen == "folder":
        return store.export(str(model or store.active().id), path)
    if path.exists():
        raise InputError(f"{path} exists already: choose a new name.")
    report(Progress(0, 3, "Reading the model"))
    network, config = load_network(store.find(model).path)
    with replaced_file(path) as partial, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporters about themselves
        report(Progress(1, 3, f"Writing {path.name}"))
        try:
            answer = _WRITERS[chosen](network, config, partial)
        except RuntimeError as error:
            raise InputError(
                f"{path} was not kept: the network {config.network.name!r} cannot be written "
                f"as {chosen}."
            ) from error
        report(Progress(2, 3, f"Checking {path.name}"))
        if different := disagreement(answer, network, config):
            raise InputError(f"{path} was not kept: it {different}.")
        report(Progress(3, 3, f"Wrote {path.name}"))
    return path


def _write_torchscript(network: nn.Module, config: ModelConfig, path: Path) -> Answer:
    with torch.no_grad():
        traced = torch.jit.trace(network, random_input(network, config, 2, 8), check_trace=False)
    torch.jit.save(traced, path, _extra_files={CONFIG_FILE: config.model_dump_json(indent=2)})
    return torch.jit.load(path)


def _write_torch_export(network: nn.Module, config: ModelConfig, path: Path) -> Answer:
    images = random_input(network, config, 2, 8)
    free = {axis: torch.export.Dim.AUTO for axis in range(images.ndim) if axis != 1}
    program = torch.export.export(network, (images,), dynamic_shapes=(free,))
    with path.open("wb") as file:
        torch.export.save(
            program, file, extra_files={CONFIG_FILE: config.model_dump_json(indent=2)}
        )
    with path.open("rb") as file:
        return torch.export.load(file).module()


def _write_onnx(network: nn.Module, config: ModelConfig, path: Path) -> Answer:
    write_onnx(network, config, path)
    return OnnxNetwork(path)


_WRITERS: dict[str, Callable[[nn.Module, ModelConfig, Path], Answer]] = {
    "torchscript": _write_torchscript,
    "torch-export": _write_torch_export,
    "onnx": _write_onnx,
}
