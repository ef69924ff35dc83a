"""What keeps a model from forgetting: earlier corrections, and a folder of labelled scans."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gitract.corrections import Corrections, CorrectionStore
from gitract.errors import InputError
from gitract.fine_tune import Candidate, FineTuneSettings, Retention, fine_tune
from gitract.fine_tune.lesson import Lesson, lesson_of
from gitract.fine_tune.pages import ReplayPage, ScanPage
from gitract.io import write_scan, write_segmentation
from gitract.model_config import ModelConfig, NetworkConfig, Preparation
from gitract.model_store import ModelStore
from gitract.models import save_model
from gitract.models.weights import build_network
from gitract.organs import KNOWN_ORGANS, ORGANS
from gitract.phantom import abdomen
from gitract.predict import Segmenter
from gitract.scan import Scan, Segmentation
from sentences import assert_one_sentence

DUODENUM = KNOWN_ORGANS[3]
SLICES = (2, 4, 6, 8)
QUICK = FineTuneSettings(steps=2, evaluate_every=2, parts=2, batch_size=2)
HARSH = FineTuneSettings(
    steps=30, evaluate_every=30, parts=2, remembered=0, replayed=0, blend=1.0, learning_rate=1e-2
)


def tune(
    model: object, *corrections: Corrections, store: ModelStore, settings=QUICK, **more: object
) -> Candidate:
    return fine_tune(
        corrections, model=model, device="cpu", settings=settings, store=store, **more
    )  # fmt: skip


def lesson(
    model: Path, *corrections: Corrections, store: ModelStore, settings=QUICK, **more: object
) -> Lesson:
    return lesson_of(
        corrections, model=model, home=store.home, device=torch.device("cpu"), settings=settings,
        **more,
    )  # fmt: skip


@pytest.fixture(scope="session")
def given(phantom: tuple[Scan, Segmentation]) -> Corrections:
    return Corrections(*phantom, SLICES)


@pytest.fixture(scope="session")
def other(phantom: tuple[Scan, Segmentation]) -> Corrections:
    """Those of another patient."""
    return Corrections(*abdomen(phantom[0].shape, seed=8, name="case8_day0"), (3, 5, 7))


@pytest.fixture(scope="session")
def nonsense(given: Corrections) -> Corrections:
    """Every organ is where it is not."""
    contours = given.segmentation
    return dataclasses.replace(
        given, segmentation=dataclasses.replace(contours, masks=~contours.masks)
    )


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """How often a slice was drawn: by scan, or ``replay``."""
    counts: Counter[str] = Counter()
    own_scan, own_replay = ScanPage.known, ReplayPage.known

    def of_scan(page: ScanPage, place: int):  # type: ignore[no-untyped-def]
        if place in page.taught:
            counts[page._scan.corrections.key] += 1
        return own_scan(page, place)

    def of_replay(page: ReplayPage, place: int):  # type: ignore[no-untyped-def]
        counts["replay"] += 1
        return own_replay(page, place)

    monkeypatch.setattr(ScanPage, "known", of_scan)
    monkeypatch.setattr(ReplayPage, "known", of_replay)
    return counts


# --- corrections of earlier fine-tunings ------------------------------------------------------


def test_what_was_kept_is_learnt_from_with_the_next_patient(
    trained: SimpleNamespace, given: Corrections, other: Corrections, store: ModelStore,
    drawn: Counter,
) -> None:  # fmt: skip
    tune(trained.result.model, given, store=store).keep("first")
    [entry] = CorrectionStore(store.home).entries()
    assert (entry.key, entry.slices) == (given.key, SLICES)
    drawn.clear()
    second = tune("first", other, store=store, settings=QUICK.model_copy(update={"steps": 20}))
    assert set(drawn) == {given.key, other.key}
    assert 0.3 < drawn[given.key] / drawn.total() < 0.7  # half of what is drawn is earlier
    assert second.card.held_out == other.slices  # what is judged is the new scan alone
    assert second.card.scans == 1
    second.keep()
    assert {one.key for one in CorrectionStore(store.home).entries()} == set(drawn)


def test_of_the_same_scan_only_the_new_corrections_count(
    trained: SimpleNamespace, given: Corrections, store: ModelStore, drawn: Counter
) -> None:
    tune(trained.result.model, given, store=store).keep("first")
    again = dataclasses.replace(given, slices=(3, 5))
    job = lesson(trained.result.model, again, store=store)
    assert job.earlier == []
    drawn.clear()
    tune("first", again, store=store).keep()
    assert set(drawn) == {given.key}
    [entry] = CorrectionStore(store.home).entries()
    assert entry.slices == (3, 5)


def test_what_was_discarded_forgotten_or_left_out_is_not_learnt_from(
    trained: SimpleNamespace, given: Corrections, other: Corrections, store: ModelStore
) -> None:
    tune(trained.result.model, given, store=store).discard()
    assert lesson(trained.result.model, other, store=store).earlier == []
    tune(trained.result.model, given, store=store).keep()
    [earlier] = lesson(trained.result.model, other, store=store).earlier
    assert earlier.corrections.key == given.key
    assert lesson(trained.result.model, other, store=store, earlier=[]).earlier == []
    CorrectionStore(store.home).forget(given.key)
    assert lesson(trained.result.model, other, store=store).earlier == []


def test_nothing_is_remembered_of_an_earlier_scan_but_its_reviewed_slices(
    trained: SimpleNamespace, given: Corrections, other: Corrections, store: ModelStore
) -> None:
    CorrectionStore(store.home).add(other)
    job = lesson(trained.result.model, given, store=store)
    _, earlier = job.drawer(job.places).pages
    assert earlier.untouched == []
    assert set(earlier.taught.values()) == set(other.slices)
    for index in other.slices:
        known = earlier.known(index)
        assert known.taught.all()
        expected = torch.from_numpy(other.segmentation.masks[:, index])
        pixels = expected.flatten(1).sum(1)
        clear = (pixels == 0) | (pixels > 12)  # fewer may vanish on the network's grid
        assert clear.any()
        assert (known.masks.flatten(1).any(1) == (pixels > 0))[clear].all()


def test_an_organ_of_an_earlier_patient_is_taught_though_the_new_one_lacks_it(
    trained: SimpleNamespace, given: Corrections, other: Corrections, store: ModelStore
) -> None:
    """Only so that it is not unlearnt: on the new scan nothing is said of it."""
    contours = given.segmentation
    masks = np.concatenate([contours.masks, contours.masks[:1]])
    labels = dataclasses.replace(contours, masks=masks, organs=(*ORGANS, DUODENUM))
    with_it = dataclasses.replace(given, segmentation=labels)
    tune(trained.result.model, with_it, store=store).keep("four")
    job = lesson(store.find("four").path, other, store=store)
    new, earlier = job.drawer(job.places).pages
    assert all(earlier.known(index).taught[3] for index in SLICES)
    assert not any(new.known(index).taught[3] for index in other.slices)
    untouched = new.known(new.untouched[0])
    assert untouched.remembered.all()


# --- a folder of labelled scans ---------------------------------------------------------------


def replay(candidate: Candidate) -> Retention:
    [found] = [one for one in candidate.card.retention if one.where == "replay"]
    return found


def test_patients_are_trained_on_or_measured_not_both(
    trained: SimpleNamespace, given: Corrections, phantom_data: Path, store: ModelStore
) -> None:
    found = lesson(trained.result.model, given, store=store, replay=phantom_data).replay
    measured = {stack.name for stack in found.measured}
    taught = {page._stack.name for page in found.pages}
    assert measured | taught == {"case1_day0", "case2_day0", "case3_day0", "case3_day5"}
    assert measured
    assert taught
    patients = [{name.split("_")[0] for name in names} for names in (measured, taught)]
    assert not patients[0] & patients[1]


def test_the_card_tells_what_is_left_of_what_it_knew(
    trained: SimpleNamespace, given: Corrections, phantom_data: Path, store: ModelStore,
    drawn: Counter,
) -> None:  # fmt: skip
    candidate = tune(trained.result.model, given, store=store, replay=phantom_data)
    found = replay(candidate)
    assert found.slices > 0
    assert found.before is not None
    assert found.after is not None
    # one patient of the three is measured on, and scored by itself here
    scan, truth = abdomen(given.scan.shape, seed=0, name="case1_day0")
    answer = Segmenter(trained.result.model, device="cpu").segment(scan)
    dices = [
        2 * (one & other).sum() / (one.sum() + other.sum())
        for one, other in zip(answer.masks, truth.masks, strict=True)
    ]
    assert found.before == pytest.approx(np.mean(dices), abs=0.08)
    trainings, steps = QUICK.parts + 1, QUICK.steps
    assert drawn["replay"] == trainings * steps * QUICK.replayed
    [*_, phantom] = candidate.card.retention
    assert [one.where for one in candidate.card.retention] == [
        "replay", "untouched slices", "phantom",
    ]  # fmt: skip
    assert phantom.before is None


def test_a_candidate_that_forgets_is_worse(
    trained: SimpleNamespace, nonsense: Corrections, phantom_data: Path, store: ModelStore
) -> None:
    alone = tune(trained.result.model, nonsense, store=store, settings=HARSH)
    assert alone.card.verdict == "better"  # on the slices of this scan it is
    seen = tune(trained.result.model, nonsense, store=store, settings=HARSH, replay=phantom_data)
    found = replay(seen)
    assert found.before is not None
    assert found.after is not None
    assert found.after < found.before - 0.1
    assert seen.card.verdict == "worse"
    assert seen.card.sentence.startswith("Worse: it forgets")
    assert f"{found.before:.3f} before, {found.after:.3f} after" in seen.card.sentence
    assert seen.card.rows == alone.card.rows


def test_scans_of_the_folder_that_take_part_keep_more(
    trained: SimpleNamespace, given: Corrections, phantom_data: Path, store: ModelStore
) -> None:
    """A scan of another kind, dark where others are bright."""
    voxels = given.scan.voxels.max() - given.scan.voxels
    inverted = dataclasses.replace(given, scan=dataclasses.replace(given.scan, voxels=voxels))
    without, with_them = (
        replay(tune(
            trained.result.model, inverted, store=store, replay=phantom_data,
            settings=HARSH.model_copy(update={"replayed": count}),
        )).after
        for count in (0, 4)
    )  # fmt: skip
    assert without is not None
    assert with_them is not None
    assert with_them > without + 0.05


def with_duodenum(folder: Path, shape: tuple[int, int, int]) -> None:
    """Pairs of files of four patients, with an organ that the model does not know."""
    for seed in range(4):
        scan, truth = abdomen(shape, seed=seed, name=f"p{seed}")
        masks = np.concatenate([truth.masks, truth.masks[2:, ::-1]])
        labels = dataclasses.replace(truth, masks=masks, organs=(*ORGANS, DUODENUM))
        for name in ("images", "labels"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        write_scan(scan, folder / "images" / f"p{seed}.nii.gz")
        write_segmentation(labels, folder / "labels" / f"p{seed}.nii.gz")


def test_slices_without_any_organ_are_not_learnt_from_alone(
    trained: SimpleNamespace, given: Corrections, other: Corrections, store: ModelStore,
    phantom_data: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A network that saw only such slices draws nothing at all any more."""
    empty = dataclasses.replace(given.segmentation, masks=np.zeros_like(given.segmentation.masks))
    nothing = dataclasses.replace(given, segmentation=empty)
    left_out = dataclasses.replace(
        given.segmentation, provenance={"unreviewed": {"all": [organ.name for organ in ORGANS]}}
    )
    model = trained.result.model
    with monkeypatch.context() as nothing_drawn:
        nothing_drawn.delattr("gitract.fine_tune.lesson.whole_answer")  # it is said at once
        for one in (nothing, dataclasses.replace(given, segmentation=left_out)):
            with pytest.raises(InputError) as error:
                lesson(model, one, store=store)
            assert_one_sentence(error, "the reviewed slices (4)", "review one that shows an organ")
    for more in ({"earlier": [other]}, {"replay": phantom_data}):
        assert lesson(model, nothing, store=store, **more).places


def test_an_organ_that_was_not_known_before_cannot_be_forgotten(
    trained: SimpleNamespace, given: Corrections, store: ModelStore, tmp_path: Path
) -> None:
    with_duodenum(tmp_path / "pairs", given.scan.shape)
    contours = given.segmentation
    masks = np.concatenate([contours.masks, contours.masks[:1, :, ::-1]])
    labels = dataclasses.replace(contours, masks=masks, organs=(*ORGANS, DUODENUM))
    four = dataclasses.replace(given, segmentation=labels)
    still = QUICK.model_copy(update={"learning_rate": 1e-9, "new_organ_steps": 0})
    candidate = tune(
        trained.result.model, four, store=store, replay=tmp_path / "pairs", settings=still
    )
    found = replay(candidate)
    assert found.before is not None
    assert found.after == pytest.approx(found.before, abs=1e-3)
    job = lesson(trained.result.model, four, store=store, replay=tmp_path / "pairs")
    page = job.replay.pages[0]
    assert page.known(page.places[0]).taught.tolist() == [True] * 4


def test_a_3d_network_replays_as_well(
    given: Corrections, phantom_data: Path, store: ModelStore, tmp_path: Path, drawn: Counter
) -> None:
    config = ModelConfig(
        id="deep", title="Deep", preparation=Preparation(pixel_mm=8.0, patch=(8, 16, 16)),
        network=NetworkConfig(name="segresnet", options={"width": 8, "blocks": [1, 1]}),
    )  # fmt: skip
    save_model(build_network(config), config, "# Deep\n", tmp_path / "deep")
    candidate = tune(tmp_path / "deep", given, store=store, replay=phantom_data)
    assert replay(candidate).before is not None
    assert replay(candidate).after is not None
    assert drawn["replay"]


def only_scans(folder: Path) -> None:
    folder.mkdir()
    write_scan(abdomen((6, 32, 36), name="p1")[0], folder / "p1.nii.gz")


FOLDERS: dict[str, Callable[[Path], object]] = {
    "missing": lambda folder: None,
    "empty": lambda folder: folder.mkdir(),
    "a file": lambda folder: folder.touch(),
    "without labels": only_scans,
}


@pytest.mark.parametrize("make", FOLDERS.values(), ids=FOLDERS.keys())
def test_a_folder_of_no_use_is_one_sentence(
    trained: SimpleNamespace, given: Corrections, store: ModelStore, tmp_path: Path,
    make: Callable[[Path], object],
) -> None:  # fmt: skip
    folder = tmp_path / "replay"
    make(folder)
    with pytest.raises(InputError) as error:
        tune(trained.result.model, given, store=store, replay=folder)
    assert_one_sentence(error, "replay")
    assert [info.shipped for info in store.models()] == [True]
