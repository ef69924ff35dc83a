"""What a server does for its clients: the models that they send, and the two kinds of job."""

import hashlib
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from gitract.decision import Decision
from gitract.errors import InputError
from gitract.fine_tune import FineTuneSettings, fine_tune
from gitract.model_config import CONFIG_FILE, WEIGHTS_FILE, ModelConfig, read_model_config
from gitract.model_store import ModelStore
from gitract.predict import Segmenter
from gitract.progress import Report
from gitract.remote.wire import corrections_of, packed
from gitract.scan import Scan
from gitract.views import Views

__all__ = ["Workshop"]

Content = Mapping[str, Any]
Arrays = Mapping[str, np.ndarray]

_MODELS = 8


class Workshop:
    """Segments and fine-tunes on this machine's device.

    Parameters
    ----------
    device
        As of `Segmenter`.
    folder
        For the models that clients send; nothing else is written.
    """

    def __init__(self, device: str, folder: Path) -> None:
        self.device = device
        self._folder = folder
        self._lock = threading.Lock()
        shipped = ModelStore(folder / "store").find()
        self._models = {read_model_config(shipped.path).weights_sha256: shipped.path}

    def knows(self, weights_sha256: str) -> bool:
        """Whether a model with these weights is here."""
        return weights_sha256 in self._models

    def add_model(self, content: Content, arrays: Arrays) -> None:
        """Keep a model that a client sent.

        Raises
        ------
        InputError
            It is damaged.
        """
        try:
            config = ModelConfig.model_validate(content["config"])
            weights = arrays["weights"].tobytes()
        except (KeyError, ValidationError) as error:
            raise InputError("The model that was sent is not one of this version.") from error
        digest = hashlib.sha256(weights).hexdigest()
        if digest != config.weights_sha256:
            raise InputError("The weights that were sent are damaged: send them again.")
        with self._lock:
            while len(self._models) >= _MODELS:  # the first is the shipped one
                oldest = list(self._models)[1]
                shutil.rmtree(self._models.pop(oldest), ignore_errors=True)
            target = self._folder / digest
            target.mkdir(exist_ok=True)
            (target / CONFIG_FILE).write_text(config.model_dump_json(), encoding="utf-8")
            (target / WEIGHTS_FILE).write_bytes(weights)
            self._models[digest] = target

    def work(self, content: Content, arrays: Arrays) -> Callable[[Report], bytes]:
        """The function that does what a message asks for.

        Raises
        ------
        InputError
            The message asks for something unknown, or lacks something.
        """
        kinds = {"segment": self._segmenting, "fine-tune": self._fine_tuning}
        try:
            kind, model = kinds[content["kind"]], self._models[content["model"]]
            return kind(content, arrays, model)
        except ValidationError as error:
            raise InputError(f"The settings cannot be used: {error.errors()[0]['msg']}.") from error
        except (KeyError, TypeError, ValueError) as error:
            raise InputError("The message lacks something, or is of another version.") from error

    def _segmenting(
        self, content: Content, arrays: Arrays, model: Path
    ) -> Callable[[Report], bytes]:
        scan = Scan(
            arrays["voxels"], tuple(content["spacing"]), affine=np.array(content["affine"]),
            name="scan",
        )  # fmt: skip
        decision = Decision.model_validate(content["decision"])
        views = Views.model_validate(content["views"])
        slices, first, likely = content["slices"], content["first"], content["probabilities"]

        def work(report: Report) -> bytes:
            store = ModelStore(self._folder / "store")
            segmenter = Segmenter(
                model, device=self.device, store=store, decision=decision, views=views
            )
            found_arrays: dict[str, np.ndarray] = {}
            if likely:
                found, probabilities = segmenter.segment_with_probabilities(
                    scan, slices=slices, first=first, report=report
                )
                found_arrays["probabilities"] = probabilities
            else:
                found = segmenter.segment(scan, slices=slices, first=first, report=report)
            told = {"provenance": dict(found.provenance), "remarks": found.remarks}
            return packed(told, {"masks": found.masks, **found_arrays})

        return work

    def _fine_tuning(
        self, content: Content, arrays: Arrays, model: Path
    ) -> Callable[[Report], bytes]:
        settings = FineTuneSettings.model_validate(content["settings"])
        now = len(content["corrections"])
        scans = [
            corrections_of(
                told,
                arrays[f"voxels{i}"],
                arrays[f"masks{i}"],
                f"patient{told.get('patient', '')}_scan{i}",
            )  # fmt: skip
            for i, told in enumerate([*content["corrections"], *content["earlier"]])
        ]

        def work(report: Report) -> bytes:
            store = ModelStore(self._folder / "store")
            candidate = fine_tune(
                scans[:now], model=model, device=self.device, settings=settings, store=store,
                earlier=scans[now:], report=report,
            )  # fmt: skip
            config, weights = candidate.exported()
            told = {"card": candidate.card.as_dict(), "config": config.model_dump(mode="json")}
            found: dict[str, np.ndarray] = {"weights": np.frombuffer(weights, np.uint8)}
            for number, pair in enumerate(zip(candidate.before, candidate.after, strict=True)):
                found |= {f"before{number}": pair[0].masks, f"after{number}": pair[1].masks}
            return packed(told, found)

        return work
