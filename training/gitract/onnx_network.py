"""Networks in ONNX Runtime: a fast way to run them on a CPU.

Of torch, ONNX Runtime and OpenVINO none is the fastest for all (benchmarks/segment.py): OpenVINO
takes a seventh less for the default model, ONNX Runtime less for transformers. One is enough.

A network is written once for each version of a model, into the user's store, and is trusted
only if it answers random input as torch does.
"""

import hashlib
import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gitract.errors import InputError
from gitract.model_config import CONFIG_FILE, ModelConfig
from gitract.models.padding import PadToMultiple
from gitract.replacing import replaced_file

__all__ = ["Answer", "OnnxNetwork", "disagreement", "random_input", "stored_onnx", "write_onnx"]

Answer = Callable[[torch.Tensor], torch.Tensor]

_OPSET = 17
_MOST_KEPT = 8
_ABSOLUTE, _RELATIVE = 1e-4, 1e-5  # the second is rounding error of large logits


def random_input(network: nn.Module, config: ModelConfig, batch: int, extra: int) -> torch.Tensor:
    """Images whose sides differ, and are divisible by what the network needs if `extra` is 0."""
    multiple = max(m.multiple for m in network.modules() if isinstance(m, PadToMultiple))
    sides = [n * multiple + extra for n in (2, 3, 4)]
    dimensions = 3 if config.preparation.patch else 2
    shape = (batch, config.preparation.channels, *sides[3 - dimensions :])
    return torch.rand(shape, generator=torch.Generator().manual_seed(batch))


@torch.inference_mode()
def disagreement(answer: Answer, network: nn.Module, config: ModelConfig) -> str | None:
    """What a network in another form does otherwise than in torch; None where they agree.

    Parameters
    ----------
    answer
        The other form. It gets random images of two sizes and two batch sizes.
    network, config
        In torch, in evaluation mode. The logits may differ by 1e-4, and by 1e-5 of their
        value where they are large.
    """
    for batch, extra in ((1, 0), (3, 5)):
        images = random_input(network, config, batch, extra)
        expected = network(images)
        try:
            found = answer(images)
        except (AssertionError, RuntimeError):
            return "does not take images of another size or number"
        if found.shape != expected.shape or not torch.allclose(
            found, expected, rtol=_RELATIVE, atol=_ABSOLUTE
        ):
            return "does not answer as the model does"
    return None


def write_onnx(network: nn.Module, config: ModelConfig, path: Path) -> None:
    """Write a network as ONNX, batch and sides free, with its configuration in the file.

    By the tracing exporter: the newer one needs one more library and gains nothing here.

    Raises
    ------
    RuntimeError
        The network has parts that ONNX does not know.
    """
    import onnx

    images = random_input(network, config, 2, 8)
    sides = ("slices", "rows", "columns")[5 - images.ndim :]
    free = {0: "batch", **dict(enumerate(sides, start=2))}
    choosable = "dynamo" in inspect.signature(torch.onnx.export).parameters  # from torch 2.5 on
    tracing: dict[str, Any] = {"dynamo": False} if choosable else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        torch.onnx.export(
            network, (images,), str(path), input_names=["image"], output_names=["logits"],
            dynamic_axes={"image": free, "logits": free}, opset_version=_OPSET, **tracing,
        )  # fmt: skip
    written = onnx.load(path)
    onnx.helper.set_model_props(written, {CONFIG_FILE: config.model_dump_json(indent=2)})
    onnx.save(written, path)


class OnnxNetwork:
    """A network in ONNX Runtime, on the CPU, called as one of torch.

    Parameters
    ----------
    path
        Written by `write_onnx`.

    Raises
    ------
    RuntimeError
        The file is damaged, or ONNX Runtime cannot run what is in it.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Idle threads would wait in a loop, at a window's cost and for no gain.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # what goes wrong comes as an exception
        with _as_runtime_error():
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of images, both as the network's in torch; float32 on the CPU.

        Raises
        ------
        RuntimeError
            The images do not fit the network, or into memory.
        """
        with _as_runtime_error():
            (logits,) = self._session.run(["logits"], {"image": images.contiguous().numpy()})
        return torch.from_numpy(logits)


@contextmanager
def _as_runtime_error() -> Iterator[None]:
    """ONNX Runtime's own exceptions derive from nothing that could be named."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        raise RuntimeError(str(error)) from error


def stored_onnx(network: nn.Module, config: ModelConfig, home: Path) -> OnnxNetwork | None:
    """The network of a model in ONNX Runtime, from the store where it was written once.

    Parameters
    ----------
    network, config
        Of `gitract.models.load_network`, on the CPU.
    home
        The store's folder; written to where the model is new there.

    Returns
    -------
    OnnxNetwork or None
        None where the network cannot be written, answers otherwise than in torch, or the
        store cannot be written: torch is as good, only slower.
    """
    import onnxruntime

    if not config.weights_sha256:
        return None
    what = (config.weights_sha256, config.network.model_dump_json(), onnxruntime.__version__)
    path = home / "onnx" / f"{hashlib.sha256(repr(what).encode()).hexdigest()[:20]}.onnx"
    given_up = path.with_suffix(".torch")  # not to be tried at each start
    if given_up.exists():
        return None
    if path.is_file():
        with suppress(RuntimeError):
            found = OnnxNetwork(path)
            with suppress(OSError):
                path.touch()  # for `_leave_newest`
            return found
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced_file(path) as partial:
            write_onnx(network, config, partial)
            if wrong := disagreement(OnnxNetwork(partial), network, config):
                raise RuntimeError(f"In ONNX Runtime the network {wrong}.")
        _leave_newest(path.parent)
        return OnnxNetwork(path)
    except RuntimeError as error:
        with suppress(OSError):
            given_up.write_text(f"{error}\n", encoding="utf-8")
    except (OSError, InputError):
        pass
    return None


def _leave_newest(folder: Path) -> None:
    """Remove the networks that were not used for longest: each is as large as its weights."""
    files = sorted(folder.glob("*.onnx"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in files[_MOST_KEPT:]:
        with suppress(OSError):
            file.unlink()
