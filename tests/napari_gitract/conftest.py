"""Fixtures of the window's tests, and a backend without torch: instant models.

With it the window's logic is tested alone, and fast; `test_main_job` uses the real one.
"""

import gc
import sys
import threading
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from pytestqt.qtbot import QtBot

from gitract.baseline import slice_digests
from gitract.errors import InputError, Stopped
from gitract.organs import ORGANS, Organ
from gitract.progress import Progress, silent
from gitract.scan import Scan, Segmentation
from napari_gitract import jobs

PATIENCE_MS = 60_000


@pytest.fixture(autouse=True, scope="module")
def garbage_collected() -> None:
    """Let go of what the tests of the last file left behind."""
    gc.unfreeze()
    gc.collect()


@pytest.fixture(autouse=True)
def garbage_of_tests_alone(garbage_collected: None) -> None:
    """Leave what libraries brought out of the searches for garbage, of which napari asks for two
    a test: with torch loaded each takes longer than most tests."""
    gc.freeze()


@pytest.fixture(autouse=True)
def own_preferences(monkeypatch, tmp_path) -> None:
    """Keep what napari remembers of plugins away from the user's own."""
    from napari import settings

    monkeypatch.setattr(settings, "_CFG_PATH", str(tmp_path / "settings.yaml"), raising=False)
    getattr(settings, "_PLUGIN_SETTINGS", {}).clear()


@pytest.fixture
def qtbot(qtbot: QtBot) -> QtBot:
    """Wait patiently: the first job loads torch, which takes half a minute on a busy machine."""
    for name in ("waitUntil", "waitSignal"):
        setattr(qtbot, name, partial(getattr(qtbot, name), timeout=PATIENCE_MS))
    return qtbot


@pytest.fixture
def backend(monkeypatch) -> "FakeBackend":
    """Instant models in place of torch."""
    fake = FakeBackend()
    for name, module in fake.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
        package, _, attribute = name.rpartition(".")
        monkeypatch.setattr(sys.modules[package], attribute, module, raising=False)
    return fake


@pytest.fixture
def shown(monkeypatch) -> list[str]:
    """The sentences that were shown to the user."""
    sentences: list[str] = []
    monkeypatch.setattr(jobs, "show_error", sentences.append)
    return sentences


@pytest.fixture
def viewer(make_napari_viewer):
    return make_napari_viewer()


@pytest.fixture
def scan() -> Scan:
    """Six slices with an L, so that no flip or transpose goes unnoticed."""
    voxels = np.zeros((6, 20, 24), np.uint16)
    voxels[:, 2:8, 2:10] = 900
    voxels[1:4, 8:14, 2:5] = 400
    return Scan(voxels, (3.0, 1.5, 1.25), name="case1_day2")


@dataclass(frozen=True)
class ModelInfo:
    id: str
    title: str
    created: str = "2026-01-02T03:04:05"
    parent: str | None = None
    organs: tuple[Organ, ...] = ORGANS
    path: Path = Path("nowhere")
    shipped: bool = True
    dice: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class OrganChange:
    organ: Organ
    before: float | None
    after: float | None
    slices: int


@dataclass(frozen=True)
class Card:
    rows: tuple[OrganChange, ...]
    verdict: str
    sentence: str
    method: str
    held_out: tuple[int, ...]
    trained_on: tuple[int, ...]
    retention: tuple[object, ...] = ()


class Candidate:
    def __init__(self, backend: "FakeBackend", card: Card) -> None:
        self.backend = backend
        self.card = card

    def keep(self, name: str | None = None) -> ModelInfo:
        info = self.backend.add_version(name)
        self.backend.activate(info.id)
        return info

    def discard(self) -> None:
        self.backend.discarded += 1


class FakeBackend:
    """Stands in for the model store, the segmenter and fine-tuning.

    `gate`, where it is set, holds a job before each step from `gate_from` on, until it is
    opened.
    """

    def __init__(self) -> None:
        self.models = [ModelInfo("gi-tract-small", "GI tract, small", dice={"stomach": 0.9})]
        self.history = ["gi-tract-small"]
        self.verdict = "better"
        self.error: Exception | None = None
        self.gate: threading.Event | None = None
        self.gate_from = 0  # the first step that it holds
        self.steps = 0
        self.at_work = threading.Event()
        self.discarded = 0
        self.trained_on: list[int] = []
        self.replay: Path | None = None
        self.segmented_with: list[str | None] = []
        self.asked: list[tuple[object, object]] = []

    def active(self) -> ModelInfo:
        return next(model for model in self.models if model.id == self.history[-1])

    def add_version(self, name: str | None = None) -> ModelInfo:
        number = len(self.models) + 1
        info = ModelInfo(
            f"v{number}", name or f"Version {number}", parent=self.active().id, shipped=False
        )
        self.models.append(info)
        return info

    def activate(self, model_id: str) -> None:
        self.history.append(model_id)

    def previous(self) -> ModelInfo | None:
        before = self.history[:-1]
        return next(model for model in self.models if model.id == before[-1]) if before else None

    def restore(self) -> ModelInfo:
        if len(self.history) == 1:
            raise InputError("There is no earlier model to restore.")
        self.history.pop()
        return self.active()

    def step(self) -> None:
        self.at_work.set()
        self.steps += 1
        if self.gate is not None and self.steps > self.gate_from:
            assert self.gate.wait(20), "the test never opened the gate"
        if self.error is not None:
            raise self.error

    def segment(self, model: str | None, scan: Scan, slices, arrived, report) -> Segmentation:
        self.segmented_with.append(model)
        chosen = range(len(scan.voxels)) if slices is None else list(slices)
        labels = np.zeros(scan.shape, np.uint8)
        for done, index in enumerate(chosen):
            self.step()
            labels[index, 2:8, 2:10] = 3
            arrived([index], np.stack([labels[index] == organ.id for organ in ORGANS])[None])
            report(Progress(done + 1, len(chosen), f"Segmenting slice {index}"))
        return Segmentation.of_labels(
            labels,
            spacing=scan.spacing,
            affine=scan.affine,
            name=scan.name,
            provenance={"model": model, "baseline": slice_digests(labels)},
        )

    def fine_tune(self, corrections, *, model, device, settings, replay, report) -> Candidate:
        (only,) = corrections
        self.trained_on = list(only.slices)
        self.replay = replay
        try:
            for step in range(20):
                self.step()
                report(Progress(step, 20, f"Fold 1 of 2: step {step}", {"loss": 1 / (step + 1)}))
        except Stopped:
            report(Progress(20, 20, "Comparing"))
        rows = tuple(OrganChange(organ, 0.8, 0.9, 2) for organ in ORGANS)
        card = Card(rows, self.verdict, "Better on 3 of 3 organs.", "2 folds.", (1, 2), (1, 2))
        return Candidate(self, card)

    def modules(self) -> dict[str, ModuleType]:
        """The modules to put into ``sys.modules``."""
        backend = self

        class ModelStore:
            def models(self) -> list[ModelInfo]:
                return list(backend.models)

            def active(self) -> ModelInfo:
                return backend.active()

            def activate(self, model_id: str) -> None:
                backend.activate(model_id)

            def restore(self) -> ModelInfo:
                return backend.restore()

            def previous(self) -> ModelInfo | None:
                return backend.previous()

        class Segmenter:
            def __init__(
                self, model: str | None = None, *, device: str = "auto", decision=None, views=None
            ) -> None:
                self.model = next(one for one in backend.models if one.id == model)
                backend.asked.append((decision, views))

            def segment(
                self, scan, *, slices=None, first=None, arrived=None, report=silent
            ) -> Segmentation:
                return backend.segment(self.model.id, scan, slices, arrived, report)

            def segment_with_probabilities(self, scan, **asked):
                found = self.segment(scan, **asked)
                doubts = [0.1, 0.5, 0.2, 0.6, 0.4, 0.0]
                noted = {**found.provenance, "doubts": doubts}
                likely = np.where(found.masks, 0.5, 0.0).astype(np.float16)
                return replace(found, provenance=noted), likely

        store = ModuleType("gitract.model_store")
        store.ModelStore = ModelStore  # type: ignore[attr-defined]
        store.ModelInfo = ModelInfo  # type: ignore[attr-defined]
        predict = ModuleType("gitract.predict")
        predict.Segmenter = Segmenter  # type: ignore[attr-defined]
        fine_tune = ModuleType("gitract.fine_tune")
        fine_tune.fine_tune = backend.fine_tune  # type: ignore[attr-defined]
        fine_tune.Candidate = Candidate  # type: ignore[attr-defined]
        return {module.__name__: module for module in (store, predict, fine_tune)}
