"""Organs that the model does not know yet, and what is not to be learnt from."""

import dataclasses
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gitract.corrections import Corrections
from gitract.errors import Cancelled, InputError, Stopped
from gitract.fine_tune import Candidate, FineTuneSettings, fine_tune
from gitract.fine_tune.lesson import Lesson, lesson_of
from gitract.fine_tune.pages import ScanPage
from gitract.metrics import dice
from gitract.model_store import ModelStore
from gitract.organs import IGNORE, KNOWN_ORGANS, ORGANS, Organ
from gitract.predict import Segmenter
from gitract.progress import Progress
from gitract.scan import Scan, Segmentation
from sentences import assert_one_sentence

DUODENUM = KNOWN_ORGANS[3]
TARGET = Organ(18, "tumour_bed", "#123456")
NODE = Organ(18, "lymph_node", "#654321")
QUICK = FineTuneSettings(steps=2, evaluate_every=2, parts=2, batch_size=2, new_organ_steps=2)
FEW = FineTuneSettings(steps=20, evaluate_every=20, parts=2)
SLICES = (2, 4, 6, 8, 10)
OTHERS = (3, 5, 7, 9)


@pytest.fixture(scope="session")
def disc(phantom: tuple[Scan, Segmentation]) -> np.ndarray:
    """A bubble of air through most slices, as nothing in the phantom is."""
    rows, columns = np.ogrid[: phantom[0].shape[1], : phantom[0].shape[2]]
    mask = np.zeros(phantom[0].shape, np.bool_)
    mask[2:11] = (rows - 30) ** 2 + (columns - 24) ** 2 < 64
    return mask


@pytest.fixture(scope="session")
def bubbly(phantom: tuple[Scan, Segmentation], disc: np.ndarray) -> tuple[Scan, Segmentation]:
    """The phantom with that, painted as a duodenum."""
    scan, truth = phantom
    return dataclasses.replace(scan, voxels=np.where(disc, 10, scan.voxels)), with_organ(
        dataclasses.replace(truth, masks=truth.masks & ~disc), DUODENUM, disc
    )


def with_organ(contours: Segmentation, organ: Organ, mask: np.ndarray) -> Segmentation:
    masks = np.concatenate([contours.masks, mask[None]])
    return dataclasses.replace(contours, masks=masks, organs=(*contours.organs, organ))


def tune(
    model: object, *corrections: Corrections, store: ModelStore, settings=QUICK, **more: object
) -> Candidate:
    return fine_tune(
        corrections, model=model, device="cpu", settings=settings, store=store, **more
    )  # fmt: skip


def same_weights(one: Candidate, other: Candidate) -> bool:
    pairs = zip(one._network.parameters(), other._network.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# --- a new organ ----------------------------------------------------------------------------


@pytest.fixture(scope="session", params=[{}, {"blend": 1.0}], ids=["blended", "as trained"])
def grown(
    request: pytest.FixtureRequest,
    trained: SimpleNamespace,
    bubbly: tuple[Scan, Segmentation],
    tmp_path_factory: pytest.TempPathFactory,
) -> Candidate:
    store = ModelStore(tmp_path_factory.mktemp("home"))
    settings = FEW.model_copy(update=request.param)
    return tune(
        trained.result.model, Corrections(*bubbly, SLICES), store=store, settings=settings
    )  # fmt: skip


def test_a_new_organ_is_outlined_on_other_slices(
    grown: Candidate, bubbly: tuple[Scan, Segmentation], disc: np.ndarray
) -> None:
    kept = grown.keep("grown")
    assert kept.organs == (*ORGANS, DUODENUM)
    found = Segmenter(kept.id, device="cpu", store=grown._store).segment(bubbly[0])
    assert found.organs == kept.organs
    others = list(OTHERS)
    assert dice(found.masks[3, others], disc[others]) > 0.5
    np.testing.assert_array_equal(found.masks, grown.after[0].masks)


def test_the_old_organs_stay(grown: Candidate) -> None:
    others = list(OTHERS)
    for before, after in zip(
        grown.before[0].masks[1:3, others], grown.after[0].masks[1:3, others], strict=True
    ):
        assert dice(before, after) > 0.6


def test_the_card_has_a_row_for_the_new_organ(grown: Candidate) -> None:
    *_, row = grown.card.rows
    assert row.organ == DUODENUM
    assert row.before == 0.0
    assert row.after is not None
    assert row.after > 0.4
    assert row.slices == len(SLICES)
    assert row.ml > 0
    assert row.ml_before == 0
    assert not grown.before[0].masks[3].any()


def test_a_new_organ_is_learnt_by_the_outputs_that_are_its_own(
    trained: SimpleNamespace, bubbly: tuple[Scan, Segmentation], store: ModelStore
) -> None:
    given = Corrections(*bubbly, SLICES)
    with_it, without = (
        tune(trained.result.model, given, store=store, settings=FEW.model_copy(update=changes))
        for changes in ({"steps": 1}, {"steps": 1, "new_organ_steps": 0})
    )
    rows = [candidate.card.rows[3].after for candidate in (with_it, without)]
    assert rows[0] is not None
    assert rows[0] > 0.3
    assert rows[1] == 0.0


def test_organs_are_added_by_id_whatever_their_order_in_the_labels(
    trained: SimpleNamespace, bubbly: tuple[Scan, Segmentation], store: ModelStore
) -> None:
    scan, contours = bubbly
    more = with_organ(contours, TARGET, contours.masks[3])
    order = [4, 3, 1, 0, 2]
    mixed = dataclasses.replace(
        more, masks=more.masks[order], organs=tuple(more.organs[place] for place in order)
    )
    one, other = (
        tune(trained.result.model, Corrections(scan, labels, SLICES), store=store)
        for labels in (more, mixed)
    )
    assert one._config.organs == other._config.organs == (*ORGANS, DUODENUM, TARGET)
    assert same_weights(one, other)
    assert one.card == other.card


def test_new_organs_of_several_scans_come_together(
    trained: SimpleNamespace, bubbly: tuple[Scan, Segmentation], store: ModelStore
) -> None:
    scan, contours = bubbly
    target = dataclasses.replace(contours, organs=(*ORGANS, TARGET), name="case8_day0")
    candidate = tune(
        trained.result.model,
        Corrections(dataclasses.replace(scan, name="case8_day0"), target, SLICES),
        Corrections(scan, contours, SLICES),
        store=store,
    )
    assert candidate._config.organs == (*ORGANS, DUODENUM, TARGET)
    assert [row.slices for row in candidate.card.rows[3:]] == [5, 5]


def test_a_version_that_has_the_organ_learns_on_with_it(
    trained: SimpleNamespace, bubbly: tuple[Scan, Segmentation], store: ModelStore
) -> None:
    scan, contours = bubbly
    labels = with_organ(contours, TARGET, contours.masks[3])
    first = tune(trained.result.model, Corrections(scan, labels, SLICES), store=store).keep("one")
    assert first.organs == (*ORGANS, DUODENUM, TARGET)
    # Without them in the labels they stay, and are not judged.
    second = tune(
        "one", Corrections(scan, dataclasses.replace(
            contours, masks=contours.masks[:3], organs=ORGANS), SLICES), store=store,
    )  # fmt: skip
    assert second._config.organs == first.organs
    assert [(row.before, row.after, row.slices) for row in second.card.rows[3:]] == [
        (None, None, 0)
    ] * 2
    third = tune("one", Corrections(scan, labels, SLICES), store=store)
    assert third._config.organs == first.organs
    assert third.card.rows[3].before is not None


@pytest.mark.parametrize("where", ["another slice", "ignored", "not reviewed", "nowhere"])
def test_an_organ_that_nobody_showed_is_not_added(
    trained: SimpleNamespace, phantom: tuple[Scan, Segmentation], store: ModelStore, where: str
) -> None:
    scan, truth = phantom
    mask = np.zeros(scan.shape, np.bool_)
    if where != "nowhere":
        mask[3 if where == "another slice" else 4, 30:40, 30:40] = True
    labels = with_organ(truth, DUODENUM, mask)
    if where == "ignored":
        labels = with_organ(labels, IGNORE, mask)
    if where == "not reviewed":
        labels = dataclasses.replace(labels, provenance={"unreviewed": {"4": ["duodenum"]}})
    found = tune(trained.result.model, Corrections(scan, labels, SLICES), store=store)
    assert found._config.organs == ORGANS


def test_the_same_job_gives_the_same_new_organ(
    trained: SimpleNamespace, bubbly: tuple[Scan, Segmentation], store: ModelStore
) -> None:
    given = Corrections(*bubbly, SLICES)
    one, other = (tune(trained.result.model, given, store=store) for _ in range(2))
    assert same_weights(one, other)
    assert one.card == other.card


def test_the_outputs_for_new_organs_can_be_cancelled_and_stopped(
    trained: SimpleNamespace, bubbly: tuple[Scan, Segmentation], store: ModelStore
) -> None:
    given = Corrections(*bubbly, SLICES)

    def ending(at: int, raised: type[Exception]):  # type: ignore[no-untyped-def]
        seen = []

        def report(progress: Progress) -> None:
            seen.append("alone" in progress.message)
            if sum(seen) == at and seen[-1]:
                raise raised

        return report

    for at in (1, 4, 10):
        with pytest.raises(Cancelled):
            tune(trained.result.model, given, store=store, report=ending(at, Cancelled))
    # two checks of 2 steps before and 2 at the end, then 2 before the training on all
    for at, what in ((4, "leaves nothing"), (5, "one part"), (10, "one part")):
        report = ending(at, Stopped)
        if what == "leaves nothing":
            with pytest.raises(Cancelled):
                tune(trained.result.model, given, store=store, report=report)
        else:
            card = tune(trained.result.model, given, store=store, report=report).card
            assert "stopped early" in card.method
            assert not set(card.held_out) & set(card.trained_on)


# --- names and values that contradict each other --------------------------------------------


def test_a_value_with_two_meanings_is_one_sentence(
    trained: SimpleNamespace, bubbly: tuple[Scan, Segmentation], store: ModelStore
) -> None:
    scan, contours = bubbly
    mine = Corrections(scan, dataclasses.replace(contours, organs=(*ORGANS, TARGET)), SLICES)
    theirs = Corrections(scan, dataclasses.replace(contours, organs=(*ORGANS, NODE)), SLICES)
    with pytest.raises(InputError) as error:
        tune(trained.result.model, mine, theirs, store=store)
    assert_one_sentence(error, "18", "lymph_node", "tumour_bed")
    tune(trained.result.model, mine, store=store).keep("mine")
    with pytest.raises(InputError) as error:
        tune("mine", theirs, store=store)
    assert_one_sentence(error, "18", "lymph_node", "tumour_bed")


@pytest.mark.parametrize("name", ["stomach", "duodenum"])
def test_a_name_with_two_values_is_one_sentence(
    trained: SimpleNamespace, bubbly: tuple[Scan, Segmentation], store: ModelStore, name: str
) -> None:
    scan, contours = bubbly
    labels = with_organ(contours, Organ(18, name, "#ffffff"), contours.masks[3])
    with pytest.raises(InputError) as error:
        tune(trained.result.model, Corrections(scan, labels, SLICES), store=store)
    assert_one_sentence(error, name, "18")


def test_earlier_corrections_of_another_meaning_are_not_learnt_from(
    trained: SimpleNamespace, bubbly: tuple[Scan, Segmentation], store: ModelStore
) -> None:
    scan, contours = bubbly
    mine = Corrections(scan, dataclasses.replace(contours, organs=(*ORGANS, TARGET)), SLICES)
    theirs = Corrections(scan, dataclasses.replace(contours, organs=(*ORGANS, NODE)), SLICES)
    lesson = lesson_of(
        [mine], model=trained.result.model, home=store.home, device=torch.device("cpu"),
        settings=QUICK, earlier=[theirs],
    )  # fmt: skip
    [earlier] = lesson.earlier
    assert all(organs.tolist() == [True, True, True, False] for organs in earlier.organs.values())


# --- regions and organs that are not to be learnt from ----------------------------------------


@pytest.fixture(scope="session")
def garbage(phantom: tuple[Scan, Segmentation]) -> np.ndarray:
    """bool ``(organ, slice, row, column)``."""
    return np.random.default_rng(0).random(phantom[1].masks.shape) > 0.5


def test_what_is_contoured_where_it_is_to_be_ignored_does_not_matter(
    trained: SimpleNamespace, phantom: tuple[Scan, Segmentation], garbage: np.ndarray,
    store: ModelStore,
) -> None:  # fmt: skip
    scan, truth = phantom
    region = np.zeros(scan.shape, np.bool_)
    region[:, 20:41, 25:50] = True
    spoilt = dataclasses.replace(truth, masks=np.where(region, garbage, truth.masks))
    clean, ignored, believed = (
        tune(trained.result.model, Corrections(scan, labels, SLICES), store=store)
        for labels in (
            with_organ(truth, IGNORE, region), with_organ(spoilt, IGNORE, region), spoilt,
        )
    )  # fmt: skip
    assert same_weights(clean, ignored)
    assert clean.card == ignored.card
    assert not same_weights(clean, believed)
    assert clean.card.rows != believed.card.rows
    assert ignored._config.organs == ORGANS
    for row, mask in zip(ignored.card.rows, truth.masks, strict=True):
        counted = (mask & ~region)[list(SLICES)].sum() * np.prod(scan.spacing) / 1000
        assert row.ml == pytest.approx(counted)


@pytest.mark.parametrize(
    ("unreviewed", "slices"),
    [({"all": ["small_bowel"]}, SLICES), ({"4": ["small_bowel"], "8": ["small_bowel"]}, (4, 8)),
     ({"all": ["small_bowel"], "2": []}, (4, 6, 8, 10))],
    ids=["on all slices", "on some", "on all but one"],
)  # fmt: skip
def test_contours_of_organs_that_nobody_reviewed_do_not_matter(
    trained: SimpleNamespace, phantom: tuple[Scan, Segmentation], garbage: np.ndarray,
    store: ModelStore, unreviewed: dict, slices: tuple[int, ...],
) -> None:  # fmt: skip
    scan, truth = phantom
    masks = truth.masks.copy()
    masks[1, list(slices)] = garbage[1, list(slices)]
    nothing = truth.masks.copy()
    nothing[1, list(slices)] = False
    told = {"unreviewed": unreviewed}
    clean, spoilt, empty, believed = (
        tune(trained.result.model, Corrections(
            scan, dataclasses.replace(truth, masks=drawn, provenance=provenance), SLICES
        ), store=store)
        for drawn, provenance in (
            (truth.masks, told), (masks, told), (nothing, told), (masks, {}),
        )
    )  # fmt: skip
    assert same_weights(clean, spoilt)
    assert same_weights(clean, empty)
    assert clean.card == spoilt.card == empty.card
    assert not same_weights(clean, believed)
    assert clean.card.rows[1].slices == len(
        [index for index in SLICES if index not in slices and truth.masks[1, index].any()]
    )


class Watched:
    """What is asked of pages while a batch is drawn."""

    def __init__(self, lesson: Lesson, monkeypatch: pytest.MonkeyPatch) -> None:
        self.taught: Counter[int] = Counter()
        self.remembered: Counter[int] = Counter()
        self.unknown: Counter[int] = Counter()
        own = ScanPage.known

        def known(page: ScanPage, place: int):  # type: ignore[no-untyped-def]
            found = own(page, place)
            if found.taught.any():
                self.taught[place] += 1
            elif found.remembered.any():
                self.remembered[place] += 1
            else:
                self.unknown[place] += 1
            return found

        monkeypatch.setattr(ScanPage, "known", known)
        self.generator = torch.Generator().manual_seed(0)

    def draw(self, drawer, batches: int = 30) -> None:  # type: ignore[no-untyped-def]
        for _ in range(batches):
            drawer.batch(self.generator)


def test_each_slice_is_drawn_as_what_it_is(
    trained: SimpleNamespace, phantom: tuple[Scan, Segmentation], store: ModelStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    scan, truth = phantom
    labels = dataclasses.replace(truth, provenance={"rejected": [0, 5, 7]})
    lesson = lesson_of(
        [Corrections(scan, labels, SLICES)], model=trained.result.model, home=store.home,
        device=torch.device("cpu"), settings=FEW,
    )  # fmt: skip
    watched = Watched(lesson, monkeypatch)
    watched.draw(lesson.drawer([(0, index) for index in SLICES if index != 6]))
    assert set(watched.taught) == set(SLICES) - {6}
    assert set(watched.remembered) == {1, 3, 9, 11}  # neither rejected nor held out
    assert not watched.unknown
