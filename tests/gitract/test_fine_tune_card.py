"""What the card says of a candidate: numbers that are right, and what makes it of no use."""

import copy
import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from gitract.corrections import Corrections
from gitract.errors import InputError
from gitract.fine_tune import Candidate, Card, FineTuneSettings, OrganChange, Retention, fine_tune
from gitract.fine_tune.answers import whole_answer
from gitract.fine_tune.card import forgotten
from gitract.fine_tune.lesson import Lesson, lesson_of
from gitract.fine_tune.retention import fault_of, retention_of
from gitract.fine_tune.scores import changes_by_slice, organ_changes
from gitract.model_store import ModelStore
from gitract.organs import IGNORE, KNOWN_ORGANS, ORGANS
from gitract.scan import Scan, Segmentation
from sentences import assert_one_sentence

SLICES = (3, 4, 6, 9)
ALL = np.ones(3, np.bool_)
QUICK = FineTuneSettings(steps=2, evaluate_every=2, parts=2, batch_size=2)
HARSH = FineTuneSettings(
    steps=40, evaluate_every=40, parts=2, remembered=0, blend=1.0, learning_rate=1e-2
)


def tune(
    trained: SimpleNamespace, given: Corrections, store: ModelStore, settings=QUICK
) -> Candidate:
    return fine_tune(
        [given], model=trained.result.model, device="cpu", settings=settings, store=store
    )  # fmt: skip


@pytest.fixture(scope="session")
def given(phantom: tuple[Scan, Segmentation]) -> Corrections:
    return Corrections(*phantom, SLICES)


def lesson(
    trained: SimpleNamespace, given: Corrections, store: ModelStore, **more: object
) -> Lesson:
    return lesson_of(
        [given], model=trained.result.model, home=store.home, device=torch.device("cpu"),
        settings=QUICK, **more,
    )  # fmt: skip


# --- numbers --------------------------------------------------------------------------------


def boxes(*, columns: tuple[int, int] = (10, 30), organ: int = 2) -> np.ndarray:
    """A box of 12 rows as one organ on slices 2 to 5, bool ``(organ, slice, row, column)``."""
    masks = np.zeros((3, 8, 40, 60), np.bool_)
    masks[organ, 2:6, 14:26, slice(*columns)] = True
    return masks


def scored(
    trained: SimpleNamespace, store: ModelStore, truth: np.ndarray, before: np.ndarray,
    after: np.ndarray, *, slices: tuple[int, ...] = (2, 3, 5), judged: np.ndarray = ALL,
    organs=ORGANS, provenance=None,
):  # fmt: skip
    """The rows of a card, and the changes by slice, of answers that are given."""
    scan = Scan(np.random.default_rng(0).integers(0, 99, (8, 40, 60)), (5.0, 2.0, 1.5))
    labels = Segmentation(truth, scan.spacing, organs=organs, provenance=provenance or {})
    learnt = Corrections(scan, Segmentation(boxes(), scan.spacing), (3,))
    scans = lesson(trained, Corrections(scan, labels, slices), store, earlier=[learnt]).scans
    answers = [{(0, i): masks[:, i] for i in slices} for masks in (before, after)]
    return (
        organ_changes(ORGANS, scans, *answers, judged), changes_by_slice(scans, *answers, judged)
    )  # fmt: skip


def test_numbers_are_those_of_boxes_that_were_moved(
    trained: SimpleNamespace, store: ModelStore
) -> None:
    rows, changes = scored(
        trained, store, boxes(), boxes(columns=(18, 38)), boxes(columns=(12, 32))
    )
    large, small, stomach = rows
    assert (stomach.before, stomach.after) == pytest.approx((12 / 20, 18 / 20))
    assert (stomach.hd95_before, stomach.hd95_after) == pytest.approx((8 * 1.5, 2 * 1.5))
    assert stomach.surface_before is not None
    assert stomach.surface_after is not None
    assert stomach.surface_before < stomach.surface_after
    assert stomach.slices == 3
    one = 3 * 12 * 20 * 5.0 * 2.0 * 1.5 / 1000
    assert (stomach.ml, stomach.ml_before, stomach.ml_after) == pytest.approx((one,) * 3)
    assert changes == pytest.approx([0.3] * 3)
    for row in (large, small):
        assert (row.before, row.after, row.hd95_after, row.slices, row.ml) == (
            None,
            None,
            None,
            0,
            0,
        )


def test_what_is_drawn_where_nothing_is_counts_against_a_slice(
    trained: SimpleNamespace, store: ModelStore
) -> None:
    nothing = np.zeros_like(boxes())
    rows, changes = scored(trained, store, nothing, nothing, boxes(), slices=(0, 3, 5))
    assert changes == [-1.0, -1.0]  # and slice 0, where nobody draws anything, does not count
    assert (rows[2].before, rows[2].after) == (None, 0.0)
    rows, changes = scored(trained, store, nothing, boxes(), nothing, slices=(0, 3, 5))
    assert changes == [1.0, 1.0]


def test_what_is_to_be_ignored_is_not_scored(trained: SimpleNamespace, store: ModelStore) -> None:
    truth = np.concatenate([boxes(), np.zeros_like(boxes()[:1])])
    truth[3, :, :, 30:] = True
    rows, changes = scored(
        trained, store, truth, boxes(columns=(10, 50)), boxes(columns=(10, 30)),
        organs=(*ORGANS, IGNORE),
    )  # fmt: skip
    assert (rows[2].before, rows[2].after) == (1.0, 1.0)
    assert changes == [0.0] * 3
    assert rows[2].ml_before == rows[2].ml


def test_an_organ_that_was_not_reviewed_on_a_slice_is_not_scored_there(
    trained: SimpleNamespace, store: ModelStore
) -> None:
    before = boxes(columns=(10, 30))
    before[2, 5] = False
    rows, changes = scored(
        trained, store, boxes(), before, boxes(), provenance={"unreviewed": {"5": ["stomach"]}}
    )
    assert rows[2].before == 1.0
    assert rows[2].slices == 2
    assert changes == [0.0, 0.0]


def test_an_organ_that_is_not_judged_has_no_score_but_a_volume(
    trained: SimpleNamespace, store: ModelStore
) -> None:
    judged = np.array([True, True, False])
    rows, changes = scored(trained, store, boxes(), boxes(), boxes(), judged=judged)
    assert (rows[2].before, rows[2].after, rows[2].hd95_before) == (None, None, None)
    assert rows[2].slices == 3
    assert rows[2].ml > 0
    assert changes == []


def test_a_card_goes_through_json_and_comes_back(
    trained: SimpleNamespace, given: Corrections, store: ModelStore
) -> None:
    contours = given.segmentation
    masks = np.concatenate([contours.masks, contours.masks[1:2]])
    organs = (*ORGANS, KNOWN_ORGANS[3])
    labels = dataclasses.replace(contours, masks=masks, organs=organs)
    card = tune(trained, dataclasses.replace(given, segmentation=labels), store).card
    content = json.loads(json.dumps(card.as_dict()))
    assert content["rows"][3]["organ"] == "duodenum"
    assert content["mean_before"] == card.mean_before
    assert Card.from_dict(content, organs) == card


# --- what is left of what it knew -----------------------------------------------------------


def agreements(job: Lesson, network: nn.Module) -> dict[str, Retention]:
    now = [whole_answer(network, scan, job.config) for scan in job.scans]
    found = retention_of(
        job.before, network, job.config, job.replay, job.scans, job.answers, now
    )  # fmt: skip
    return {one.where: one for one in found}


def test_an_unchanged_network_agrees_with_itself(
    trained: SimpleNamespace, given: Corrections, store: ModelStore
) -> None:
    job = lesson(trained, given, store)
    found = agreements(job, copy.deepcopy(job.before))
    assert [(one.before, one.after) for one in found.values()] == [(None, 1.0)] * 2
    assert found["untouched slices"].slices == len(given.scan.voxels) - len(SLICES)


def test_only_slices_that_nobody_touched_are_compared(
    trained: SimpleNamespace, given: Corrections, store: ModelStore
) -> None:
    labels = dataclasses.replace(given.segmentation, provenance={"rejected": [0, 11]})
    job = lesson(trained, dataclasses.replace(given, segmentation=labels), store)
    found = agreements(job, job.before)["untouched slices"]
    assert found.slices == len(given.scan.voxels) - len(SLICES) - 2


def silenced(network: nn.Module, value: float = -1e3) -> nn.Module:
    """The same network, whose last biases are so."""
    changed = copy.deepcopy(network)
    last = [part for part in changed.modules() if isinstance(part, nn.Conv2d)][-1]
    nn.init.constant_(last.bias, value)
    return changed


def test_a_network_that_is_silent_agrees_with_nothing(
    trained: SimpleNamespace, given: Corrections, store: ModelStore
) -> None:
    job = lesson(trained, given, store)
    assert [one.after for one in agreements(job, silenced(job.before)).values()] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [(0.8, 0.7, True), (0.8, 0.795, False), (0.8, 0.9, False), (None, 0.2, False),
     (0.8, None, False)],
)  # fmt: skip
def test_what_counts_as_forgetting(before: float | None, after: float | None, said: bool) -> None:
    sentence = forgotten(
        [Retention("phantom", 48, None, 0.1), Retention("replay", 9, before, after)]
    )
    assert (sentence is not None) is said
    assert sentence is None or "0.800 before, 0.700 after, on 9 slices" in sentence


# --- candidates of no use -------------------------------------------------------------------


def test_a_candidate_that_draws_an_organ_no_more_is_worse(
    trained: SimpleNamespace, given: Corrections, store: ModelStore
) -> None:
    masks = given.segmentation.masks.copy()
    masks[1] = False
    labels = dataclasses.replace(given.segmentation, masks=masks)
    candidate = tune(trained, dataclasses.replace(given, segmentation=labels), store, HARSH)
    assert candidate.before[0].masks[1].any()
    assert not candidate.after[0].masks[1].any()
    assert candidate.card.verdict == "worse"
    assert candidate.card.sentence == (
        "Worse: it draws no small bowel any more where there is some."
    )


def fault(job: Lesson, network: nn.Module) -> str | None:
    now = [whole_answer(network, scan, job.config) for scan in job.scans]
    return fault_of(network, job.config, job.scans, job.answers, now)


def test_faults_are_told_and_nothing_else_is(
    trained: SimpleNamespace, given: Corrections, store: ModelStore
) -> None:
    job = lesson(trained, given, store)
    assert fault(job, job.before) is None
    assert "draws no" in str(fault(job, silenced(job.before)))
    assert "weights" in str(fault(job, silenced(job.before, float("nan"))))
    assert "answer" in str(fault(job, silenced(job.before, 1e30)))


@pytest.mark.parametrize("unreviewed", [[], [organ.name for organ in ORGANS]])
def test_contours_of_organs_that_nobody_reviewed_are_not_missed(
    trained: SimpleNamespace, given: Corrections, store: ModelStore, unreviewed: list[str]
) -> None:
    labels = dataclasses.replace(given.segmentation, provenance={"unreviewed": {"all": unreviewed}})
    left_out = dataclasses.replace(given, segmentation=labels)
    job = lesson(trained, left_out, store, earlier=[given])
    silent = silenced(job.before)
    nothing = [whole_answer(silent, scan, job.config) for scan in job.scans]
    found = fault_of(silent, job.config, job.scans, nothing, nothing)
    assert (found is None) is bool(unreviewed)


class Broken:
    """Networks that come out of a training unfit."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, before: nn.Module, after: nn.Module, share: float) -> nn.Module:
        return silenced(before, self.value)


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (float("nan"), "its weights are not finite"),
        (1e30, "answer with finite"),
        (-1e3, "draws no"),
    ],
)
def test_the_card_of_an_unfit_candidate_says_why(
    trained: SimpleNamespace, given: Corrections, store: ModelStore,
    monkeypatch: pytest.MonkeyPatch, value: float, part: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("gitract.fine_tune.lesson.blended", Broken(value))
    card = tune(trained, given, store).card
    assert card.verdict == "worse"
    assert card.sentence.startswith("Worse: ")
    assert part in card.sentence
    json.dumps(card.as_dict(), allow_nan=False)


def test_a_training_that_diverges_is_one_sentence(
    trained: SimpleNamespace, given: Corrections, store: ModelStore
) -> None:
    with pytest.raises(InputError) as error:
        tune(trained, given, store, HARSH.model_copy(update={"learning_rate": 1e30}))
    assert_one_sentence(error, "diverged", "nothing was kept")
    assert not store.home.exists()


def test_rows_without_numbers_give_no_means() -> None:
    card = Card((OrganChange(ORGANS[0], None, 0.4, 1),), "unproven", "", "", (1,), (1,), 3)
    assert card.mean_before is None
    assert card.mean_after is None
