"""Corrected slices in, a candidate and its honest card out."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitract.corrections import Corrections
from gitract.errors import Cancelled, InputError, Stopped
from gitract.fine_tune import (
    Candidate,
    FineTuneSettings,
    OrganChange,
    fine_tune,
    held_out_parts,
)
from gitract.fine_tune.card import concluded
from gitract.model_config import ModelConfig
from gitract.model_store import ModelStore
from gitract.organs import ORGANS, Organ
from gitract.orientation import Turn
from gitract.phantom import abdomen
from gitract.predict import Segmenter
from gitract.progress import Progress
from gitract.scan import Scan, Segmentation
from phantoms import stored_as

QUICK = FineTuneSettings(steps=4, evaluate_every=2, batch_size=2)
SLICES = [2, 5, 8]


@pytest.fixture(scope="session")
def corrected(phantom: tuple[Scan, Segmentation]) -> Segmentation:
    """The truth on three slices; nonsense on the others, which must not matter."""
    masks = np.random.default_rng(0).random(phantom[1].masks.shape) > 0.5
    masks[:, SLICES] = phantom[1].masks[:, SLICES]
    return dataclasses.replace(phantom[1], masks=masks)


@pytest.fixture(scope="session")
def inverted(phantom: tuple[Scan, Segmentation]) -> tuple[Scan, Segmentation]:
    """Bright where the scans of the training were dark: what fine-tuning is for."""
    scan, truth = phantom
    return dataclasses.replace(scan, voxels=scan.voxels.max() - scan.voxels), truth


class Listener:
    """Collects reports, and ends the job at one of them."""

    def __init__(self, at: int = -1, ending: type[Exception] = Cancelled) -> None:
        self.reports: list[Progress] = []
        self._at = at
        self._ending = ending

    def __call__(self, progress: Progress) -> None:
        self.reports.append(progress)
        if len(self.reports) == self._at:
            raise self._ending

    @property
    def losses(self) -> list[float]:
        return [r.values["loss"] for r in self.reports if "loss" in r.values]


def tune(
    trained: SimpleNamespace,
    phantom: tuple[Scan, Segmentation],
    corrected: Segmentation,
    store: ModelStore,
    *,
    slices: list[int] = SLICES,
    settings: FineTuneSettings = QUICK,
    listener: Listener | None = None,
) -> Candidate:
    return fine_tune(
        [Corrections(phantom[0], corrected, tuple(slices))], model=trained.result.model,
        device="cpu", settings=settings, store=store, report=listener or Listener(),
    )  # fmt: skip


@pytest.fixture(scope="session")
def long_listener() -> Listener:
    return Listener()


@pytest.fixture(scope="session")
def long_run(
    trained: SimpleNamespace,
    inverted: tuple[Scan, Segmentation],
    corrected: Segmentation,
    long_listener: Listener,
    tmp_path_factory: pytest.TempPathFactory,
) -> Candidate:
    """One fine-tuning that really learns."""
    return tune(
        trained, inverted, corrected, ModelStore(tmp_path_factory.mktemp("home")),
        settings=FineTuneSettings(steps=40, evaluate_every=10, learning_rate=1e-2, blend=1.0),
        listener=long_listener,
    )  # fmt: skip


# --- how slices are held out ----------------------------------------------------------------


@given(st.sets(st.integers(0, 60), max_size=14), st.integers(2, 5))
def test_parts_divide_the_slices_and_keep_neighbours_together(chosen: set[int], most: int) -> None:
    slices = sorted(chosen)
    parts = held_out_parts(slices, most)
    if len(slices) < 2:
        assert parts == []
        return
    assert sorted(index for part in parts for index in part) == slices
    assert 2 <= len(parts) <= most
    assert all(parts)
    gaps = [b - a for a, b in zip(slices, slices[1:], strict=False)]
    if max(gaps) <= 2:
        return  # one run: there is nothing else to hold out
    where = {index: number for number, part in enumerate(parts) for index in part}
    for one, other, gap in zip(slices, slices[1:], gaps, strict=False):
        assert gap > 2 or where[one] == where[other]


def test_three_far_slices_are_three_parts() -> None:
    assert sorted(held_out_parts([40, 52, 63])) == [[40], [52], [63]]


def test_one_run_is_cut_into_stretches() -> None:
    assert held_out_parts([5, 6, 7, 8, 9, 10]) == [[5, 6], [7, 8], [9, 10]]


# --- the card -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "changes", "verdict", "beginning"),
    [
        (0.5, 0.6, [0.1] * 7, "better", "Better"),
        (0.5, 0.6, [0.1] * 4, "better", "Better"),
        (0.5, 0.6, [0.1] * 3, "unproven", "Better by the numbers, but not proven"),
        (0.5, 0.6, [0.9, -0.1, -0.1, -0.1, -0.1], "no difference", "No clear difference"),
        (0.5, 0.5049, [0.005] * 7, "no difference", "No difference"),
        (0.5, 0.4951, [-0.005] * 7, "no difference", "No difference"),
        (0.5, 0.4, [-0.1] * 7, "worse", "Worse"),
        (0.5, 0.4, [0.1, -0.3], "worse", "Worse"),
    ],
)
def test_verdicts(
    before: float, after: float, changes: list[float], verdict: str, beginning: str
) -> None:
    rows = (OrganChange(ORGANS[0], before, after, 3), OrganChange(ORGANS[1], None, None, 0))
    found, sentence, _ = concluded(rows, changes)
    assert found == verdict
    assert sentence.startswith(beginning)
    assert f"{before:.3f}" in sentence
    assert f"{len(changes)} slices not trained on" in sentence


def test_fine_tuning_learns(long_run: Candidate, long_listener: Listener) -> None:
    losses = long_listener.losses
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    before, after = long_run.card.mean_before, long_run.card.mean_after
    assert before is not None
    assert after is not None
    assert after > before
    assert "Better" in long_run.card.sentence


def test_the_card_is_about_all_reviewed_slices(long_run: Candidate) -> None:
    card = long_run.card
    assert card.held_out == card.trained_on == tuple(SLICES)
    assert "cross-validation" in card.method
    assert card.steps == 40
    assert [row.organ for row in card.rows] == list(ORGANS)


def test_the_score_before_is_that_of_the_model_it_came_from(
    long_run: Candidate, trained: SimpleNamespace, inverted: tuple[Scan, Segmentation]
) -> None:
    found = Segmenter(trained.result.model, device="cpu").segment(inverted[0], slices=SLICES)
    for row, answer, truth in zip(long_run.card.rows, found.masks, inverted[1].masks, strict=True):
        on = [index for index in SLICES if truth[index].any()]
        chosen = answer[list(SLICES)], truth[list(SLICES)]
        total = sum(masks.sum() for masks in chosen)
        # an organ that is on one of the slices alone is not judged
        expected = 2 * (chosen[0] & chosen[1]).sum() / total if total and len(on) > 1 else None
        assert row.before == (None if expected is None else pytest.approx(expected, abs=1e-3))
        assert row.slices == len(on)


def test_every_check_leaves_out_what_it_is_scored_on(
    trained: SimpleNamespace,
    phantom: tuple[Scan, Segmentation],
    corrected: Segmentation,
    store: ModelStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from gitract.fine_tune import lesson, proof

    taught: list[set[int]] = []
    asked: list[set[int]] = []
    train, answer = proof.trained, lesson.answers_at

    def watched_train(network, drawer, *rest, **more):  # type: ignore[no-untyped-def]
        taught.append(set(drawer.pages[0].taught.values()))
        return train(network, drawer, *rest, **more)

    def watched_answer(network, scan, indices, config):  # type: ignore[no-untyped-def]
        asked.append(set(indices))
        return answer(network, scan, indices, config)

    monkeypatch.setattr(proof, "trained", watched_train)
    monkeypatch.setattr(lesson, "answers_at", watched_answer)
    tune(trained, phantom, corrected, store)
    assert [len(slices) for slices in taught] == [2, 2, 2, 3]
    for number, slices in enumerate(taught[:3]):
        assert asked[2 * number : 2 * number + 2] == [set(SLICES) - slices] * 2
    assert len(asked) == 6


def test_the_card_is_ready_for_json(long_run: Candidate) -> None:
    content = long_run.card.as_dict()
    assert content["rows"][2]["organ"] == "stomach"
    assert content["verdict"] == long_run.card.verdict
    assert list(content["held_out"]) == SLICES


def test_means_leave_out_organs_without_both_numbers(long_run: Candidate) -> None:
    rows = (
        OrganChange(ORGANS[0], 0.2, 0.4, 3),
        OrganChange(ORGANS[1], None, 0.0, 0),
        OrganChange(ORGANS[2], 0.4, 0.8, 2),
    )
    card = dataclasses.replace(long_run.card, rows=rows)
    assert card.mean_before == pytest.approx(0.3)
    assert card.mean_after == pytest.approx(0.6)


def test_one_slice_proves_nothing(
    trained: SimpleNamespace,
    phantom: tuple[Scan, Segmentation],
    corrected: Segmentation,
    store: ModelStore,
) -> None:
    card = tune(trained, phantom, corrected, store, slices=[6]).card
    assert card.verdict == "unproven"
    assert card.held_out == ()
    assert card.trained_on == (6,)
    assert 1 <= card.steps <= QUICK.steps
    assert all(row.before is None and row.after is None for row in card.rows)


def test_the_same_job_gives_the_same_card(
    trained: SimpleNamespace,
    phantom: tuple[Scan, Segmentation],
    corrected: Segmentation,
    store: ModelStore,
) -> None:
    one, other = (tune(trained, phantom, corrected, store).card for _ in range(2))
    for first, second in zip(one.rows, other.rows, strict=True):
        assert first.after == pytest.approx(second.after, abs=1e-3)


def test_a_scan_stored_turned_gives_the_same_card(
    trained: SimpleNamespace,
    phantom: tuple[Scan, Segmentation],
    corrected: Segmentation,
    store: ModelStore,
) -> None:
    upright = tune(trained, phantom, corrected, store).card
    turn = Turn(swap=True, flip_rows=True)
    stored = stored_as(phantom[0], turn)
    masks = np.ascontiguousarray(turn.back(corrected.masks))
    contours = dataclasses.replace(
        corrected, masks=masks, spacing=stored.spacing, affine=stored.affine
    )
    assert tune(trained, (stored, contours), contours, store).card.rows == upright.rows


def test_contours_of_other_slices_do_not_matter(
    trained: SimpleNamespace,
    phantom: tuple[Scan, Segmentation],
    corrected: Segmentation,
    store: ModelStore,
) -> None:
    one = tune(trained, phantom, corrected, store).card
    other = tune(trained, phantom, phantom[1], store).card
    for first, second in zip(one.rows, other.rows, strict=True):
        assert first.before == second.before
        assert first.after == pytest.approx(second.after, abs=1e-3)


# --- ending it early ------------------------------------------------------------------------


def test_reports_count_up_to_the_end(long_listener: Listener, long_run: Candidate) -> None:
    done = [report.done for report in long_listener.reports if report.values]
    assert done == sorted(done)
    last = [report for report in long_listener.reports if report.values][-1]
    assert last.done == last.total
    assert max(done) == 4 * 40
    dices = [r.values["dice"] for r in long_listener.reports if "dice" in r.values]
    assert len(dices) == 3 * (1 + 4)
    assert all(0 <= value <= 1 for value in dices)


@pytest.mark.parametrize("at", [1, 2, 5, 16])
def test_cancel_keeps_nothing(
    trained: SimpleNamespace,
    phantom: tuple[Scan, Segmentation],
    corrected: Segmentation,
    store: ModelStore,
    at: int,
) -> None:
    with pytest.raises(Cancelled):
        tune(trained, phantom, corrected, store, listener=Listener(at))
    assert not store.home.exists()


def test_stop_before_anything_was_learnt_is_cancel(
    trained: SimpleNamespace,
    phantom: tuple[Scan, Segmentation],
    corrected: Segmentation,
    store: ModelStore,
) -> None:
    with pytest.raises(Cancelled, match="before anything was learnt"):
        tune(trained, phantom, corrected, store, listener=Listener(4, Stopped))


def test_stop_in_the_first_check_keeps_what_was_not_trained_on_the_held_out_slices(
    trained: SimpleNamespace,
    phantom: tuple[Scan, Segmentation],
    corrected: Segmentation,
    store: ModelStore,
) -> None:
    # reports: preparing, the scan as it is drawn, the first look, steps 1, 2 (scored), 3
    card = tune(trained, phantom, corrected, store, listener=Listener(6, Stopped)).card
    assert card.steps == 2
    assert len(card.held_out) == 1
    assert set(card.held_out) | set(card.trained_on) == set(SLICES)
    assert not set(card.held_out) & set(card.trained_on)
    assert "stopped early" in card.method
    assert any(row.before is not None for row in card.rows)


def test_stop_in_the_last_training_claims_only_what_the_checks_saw(
    trained: SimpleNamespace,
    phantom: tuple[Scan, Segmentation],
    corrected: Segmentation,
    store: ModelStore,
) -> None:
    # two reports of preparing, 3 checks of a first look and 4 steps, the first step on all
    listener = Listener(2 + 3 * 5 + 1, Stopped)
    card = tune(trained, phantom, corrected, store, listener=listener).card
    assert card.steps == 1
    assert card.trained_on == tuple(SLICES)
    assert card.verdict == "no difference"
    assert [row.after for row in card.rows] == [row.before for row in card.rows]


# --- keeping it -----------------------------------------------------------------------------


def test_keep_activates_a_version_that_can_be_restored_from(
    long_run: Candidate, inverted: tuple[Scan, Segmentation]
) -> None:
    store = long_run._store
    shipped = store.active()
    kept = long_run.keep("My hospital")
    assert (kept.id, kept.title, kept.parent) == ("my-hospital", "My hospital", "tiny")
    assert store.active() == kept
    assert kept.dice == {
        row.organ.name: row.after for row in long_run.card.rows if row.after is not None
    }
    assert long_run.card.sentence in kept.card
    assert "3 reviewed slices" in kept.card
    found = Segmenter(store=store, device="cpu").segment(inverted[0], slices=SLICES)
    assert found.provenance["model"] == "my-hospital"
    assert store.restore() == shipped
    assert store.find("my-hospital") == kept


def test_what_was_kept_has_learnt(
    long_run: Candidate, trained: SimpleNamespace, inverted: tuple[Scan, Segmentation]
) -> None:
    kept = long_run.keep("learnt")
    truth = inverted[1].masks[:, SLICES]
    scores = []
    for model in (trained.result.model, kept.path):
        found = Segmenter(model, device="cpu").segment(inverted[0], slices=SLICES)
        answer = found.masks[:, SLICES]
        scores.append(2 * (answer & truth).sum() / (answer.sum() + truth.sum()))
    assert scores[1] > scores[0]


def test_a_discarded_candidate_cannot_be_kept(
    trained: SimpleNamespace,
    phantom: tuple[Scan, Segmentation],
    corrected: Segmentation,
    store: ModelStore,
) -> None:
    candidate = tune(trained, phantom, corrected, store, slices=[6])
    assert not store.home.exists()  # nothing before keep
    candidate.discard()
    with pytest.raises(InputError, match="discarded"):
        candidate.keep()
    assert not store.home.exists()


# --- what does not fit ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "slices", "part"),
    [
        ("shape", SLICES, "another grid"),
        (None, [12], "0 to 11"),
        (None, [], "at least one"),
        ("nan", SLICES, "not finite"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    trained: SimpleNamespace,
    phantom: tuple[Scan, Segmentation],
    store: ModelStore,
    change: str | None,
    slices: list[int],
    part: str,
) -> None:
    scan, truth = phantom
    if change == "shape":
        truth = dataclasses.replace(truth, masks=truth.masks[:, :, :-1])
    if change == "nan":
        scan = dataclasses.replace(scan, voxels=np.full(scan.shape, math.nan))
    with pytest.raises(InputError, match=part):
        tune(trained, (scan, truth), truth, store, slices=slices)


def test_an_organ_that_the_model_lacks_may_be_there_empty(
    trained: SimpleNamespace, phantom: tuple[Scan, Segmentation], store: ModelStore
) -> None:
    truth = phantom[1]
    duodenum = Organ(4, "duodenum", "#ffffff")
    masks = np.concatenate([truth.masks, np.zeros_like(truth.masks[:1])])
    more = dataclasses.replace(truth, masks=masks, organs=(*ORGANS, duodenum))
    card = tune(trained, phantom, more, store, slices=[6]).card
    assert len(card.rows) == 3


def test_settings_that_cannot_be_are_refused() -> None:
    for wrong in ({"steps": 0}, {"parts": 1}, {"learning_rate": 0}, {"epochs": 3}):
        with pytest.raises(ValueError, match="1 validation error"):
            FineTuneSettings(**wrong)


def test_a_kept_configuration_is_that_of_the_parent(
    trained: SimpleNamespace, long_run: Candidate
) -> None:
    parent = ModelConfig.model_validate_json(
        (trained.result.model / "config.json").read_text(encoding="utf-8")
    )
    child = long_run._config
    assert child.network == parent.network
    assert child.preparation == parent.preparation
    assert child.organs == parent.organs


def test_an_organ_that_no_reviewed_slice_shows_is_not_unlearnt(store: ModelStore) -> None:
    scan, truth = abdomen((24, 96, 112), spacing=(3.0, 3.6, 3.6))
    before = Segmenter(device="cpu", store=store).segment(scan).masks
    silent = ~(before | truth.masks).any(axis=(2, 3))  # neither drawn nor contoured there
    silent &= truth.masks.any(axis=(0, 2, 3))  # where another organ is, or nothing is learnt
    shown = (before & truth.masks).any(axis=(1, 2, 3))
    organ, index = next((int(o), int(z)) for o, z in np.argwhere(silent) if shown[o])
    candidate = fine_tune([Corrections(scan, truth, (index,))], device="cpu", store=store)
    version = candidate.keep("one slice").id
    after = Segmenter(version, device="cpu", store=store).segment(scan).masks
    kept = np.count_nonzero(after[organ] & before[organ])
    assert kept > 0.5 * np.count_nonzero(before[organ])
