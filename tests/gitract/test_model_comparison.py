"""Two models on one scan: numbers that are those of the masks, and of nothing else."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from gitract.change import GAINED, LOST
from gitract.errors import Cancelled, InputError
from gitract.io import write_segmentation
from gitract.metrics import dice
from gitract.model_comparison import Comparison, compare
from gitract.model_store import ModelStore
from gitract.organs import IGNORE, ORGANS, Organ
from gitract.phantom import write_day
from gitract.progress import Progress
from gitract.scan import Scan, Segmentation
from gitract.surface import surface_distances
from sentences import assert_one_sentence

SPACING = (3.0, 1.5, 1.25)
SHAPE = (6, 20, 24)
TUMOUR = Organ(9, "tumour", "#d9a03f")


def drawn(organs: tuple[Organ, ...] = ORGANS, **boxes: tuple[slice, slice, slice]) -> Segmentation:
    """A segmentation with one box for each organ that is named."""
    masks = np.zeros((len(organs), *SHAPE), np.bool_)
    for organ, mask in zip(organs, masks, strict=True):
        if organ.name in boxes:
            mask[boxes[organ.name]] = True
    return Segmentation(masks, SPACING, organs=organs, name="scan")


A = np.s_[1:5, 2:12, 3:13]
B = np.s_[2:6, 4:12, 3:15]
C = np.s_[0:6, 0:4, 18:24]


@pytest.fixture
def scan() -> Scan:
    return Scan(np.zeros(SHAPE, np.uint16), SPACING, name="scan")


@pytest.fixture
def draw(
    monkeypatch: pytest.MonkeyPatch, random_model: Path, tmp_path: Path
) -> Callable[..., tuple[Path, Path]]:
    """Two model folders that draw what they are told."""
    answers: dict[str, Segmentation] = {}

    class Segmenter:
        def __init__(self, model: Path, *, device: str, store: ModelStore) -> None:
            self.model = model

        def segment(
            self, scan: Scan, *, slices: list[int], report: Callable[[Progress], None]
        ) -> Segmentation:
            found = answers[self.model.name]
            masks = np.zeros_like(found.masks)
            for done, index in enumerate(slices, start=1):
                masks[:, index] = found.masks[:, index]
                report(Progress(done, len(slices), f"Segmenting slice {index}"))
            return replace(found, masks=masks)

    monkeypatch.setattr("gitract.model_comparison.Segmenter", Segmenter)

    def told(first: Segmentation, second: Segmentation) -> tuple[Path, Path]:
        folders = []
        for name, answer in (("first", first), ("second", second)):
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            config = json.loads((random_model / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps({**config, "id": name}))
            answers[name] = answer
            folders.append(folder)
        return folders[0], folders[1]

    return told


def row_of(found: Comparison, name: str):
    (row,) = [row for row in found.rows if row.organ.name == name]
    return row


def volume_ml(mask: np.ndarray) -> float:
    return float(mask.sum() * np.prod(SPACING) / 1000)


def test_numbers_are_those_of_the_masks(scan: Scan, draw) -> None:
    first, second = drawn(stomach=A, small_bowel=C), drawn(stomach=B)
    truth = drawn(stomach=np.s_[1:6, 3:12, 3:14])
    found = compare(scan, *draw(first, second), truth)
    assert [model.info.id for model in found.models] == ["first", "second"]
    assert all(model.seconds >= 0 for model in found.models)
    masks = [one.masks[2] for one in (first, second, truth)]
    row = row_of(found, "stomach")
    assert row.volumes_ml == pytest.approx([volume_ml(mask) for mask in masks[:2]])
    assert row.reference_ml == pytest.approx(volume_ml(masks[2]))
    assert row.between is not None
    assert row.between.dice == pytest.approx(dice(masks[0], masks[1]))
    assert row.between.hd95_mm == surface_distances(masks[0], masks[1], SPACING).hd95
    for near, mask in zip(row.against_reference, masks[:2], strict=True):
        assert near is not None
        assert near.dice == pytest.approx(dice(mask, masks[2]))
        assert near.hd95_mm == surface_distances(mask, masks[2], SPACING).hd95


def test_an_organ_that_one_of_them_does_not_draw_scores_nothing(scan: Scan, draw) -> None:
    found = compare(scan, *draw(drawn(stomach=A, small_bowel=C), drawn(stomach=B)))
    only_first, neither = row_of(found, "small_bowel"), row_of(found, "large_bowel")
    assert only_first.between.dice == 0
    assert only_first.between.hd95_mm is None
    assert only_first.volumes_ml[1] == 0
    assert neither.between.dice is None
    assert only_first.against_reference == (None, None)
    assert only_first.reference_ml is None


def test_an_organ_that_one_of_them_does_not_know_is_not_compared(scan: Scan, draw) -> None:
    known = (*ORGANS[:2], TUMOUR)
    first, second = drawn(stomach=A, small_bowel=C), drawn(known, tumour=B, small_bowel=A)
    truth = drawn((*ORGANS, TUMOUR), tumour=B, stomach=A)
    found = compare(scan, *draw(first, second), truth)
    assert [row.organ.name for row in found.rows] == [*(o.name for o in ORGANS), "tumour"]
    stomach, tumour = row_of(found, "stomach"), row_of(found, "tumour")
    assert stomach.volumes_ml == (pytest.approx(volume_ml(first.masks[2])), None)
    assert stomach.between is None
    assert stomach.against_reference[0].dice == 1
    assert stomach.against_reference[1] is None
    assert tumour.volumes_ml[0] is None
    assert tumour.against_reference[1].dice == 1
    change = np.zeros(SHAPE, np.uint8)  # of the small bowel alone
    change[C] = LOST
    change[A] = GAINED
    np.testing.assert_array_equal(found.change, change)


def test_slices_that_were_not_chosen_do_not_count(scan: Scan, draw) -> None:
    first, second = drawn(stomach=A), drawn(stomach=B)
    chosen = [4, 1, 3]
    found = compare(scan, *draw(first, second), drawn(stomach=C), slices=chosen)
    assert found.slices == (1, 3, 4)
    row = row_of(found, "stomach")
    masks = [one.masks[2][[1, 3, 4]] for one in (first, second)]
    assert row.volumes_ml == pytest.approx([volume_ml(mask) for mask in masks])
    assert row.between.dice == pytest.approx(dice(*masks))
    assert row.reference_ml == pytest.approx(volume_ml(drawn(stomach=C).masks[2][[1, 3, 4]]))


def test_between_slices_that_are_no_neighbours_there_is_no_distance(scan: Scan, draw) -> None:
    first, second = drawn(stomach=np.s_[1:2, 2:12, 3:13]), drawn(stomach=np.s_[3:4, 2:12, 3:13])
    models = draw(first, second)
    assert row_of(compare(scan, *models), "stomach").between.hd95_mm == 6.0
    apart = compare(scan, *models, slices=[1, 3])
    assert row_of(apart, "stomach").between.hd95_mm is None


def test_what_the_reference_says_to_ignore_is_not_measured(scan: Scan, draw) -> None:
    first, second = drawn(stomach=A), drawn(stomach=B)
    truth = drawn((*ORGANS, IGNORE), stomach=A, ignore=np.s_[:, :, 8:])
    found = compare(scan, *draw(first, second), truth)
    assert [row.organ for row in found.rows] == list(ORGANS)
    row = row_of(found, "stomach")
    masks = [one.masks[2][:, :, :8] for one in (first, second)]
    assert row.volumes_ml == pytest.approx([volume_ml(mask) for mask in masks])
    assert row.between.dice == pytest.approx(dice(*masks))
    assert row.against_reference[0].dice == 1


def test_progress_is_that_of_both_and_never_goes_back(scan: Scan, draw) -> None:
    reports: list[Progress] = []
    compare(scan, *draw(drawn(stomach=A), drawn(stomach=B)), report=reports.append)
    shares = [one.done / one.total for one in reports if one.total]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert {one.message.partition(":")[0] for one in reports if one.total} == {"first", "second"}


def test_a_comparison_can_be_cancelled(scan: Scan, draw) -> None:
    def cancel(progress: Progress) -> None:
        if progress.message.startswith("second"):
            raise Cancelled

    with pytest.raises(Cancelled):
        compare(scan, *draw(drawn(stomach=A), drawn(stomach=B)), report=cancel)


def test_what_cannot_be_compared_is_one_sentence(scan: Scan, draw) -> None:
    first, second = draw(drawn(stomach=A), drawn(stomach=B))
    other = Segmentation(np.zeros((3, 5, 20, 24), np.bool_), SPACING, name="other")
    for arguments, part in (
        ((first, first), "two different"),
        ((first, "absent"), "absent"),
        ((first, second, other), "another grid"),
    ):
        with pytest.raises(InputError) as error:
            compare(scan, *arguments)
        assert part in str(error.value)
    with pytest.raises(InputError) as error:
        compare(scan, first, second, slices=[6])
    assert_one_sentence(error, "Slice 6")


def test_the_command_line_compares_real_models(
    cli: Callable[..., SimpleNamespace],
    trained: SimpleNamespace,
    random_model: Path,
    phantom: tuple[Scan, Segmentation],
    tmp_path: Path,
) -> None:
    scan, truth = phantom
    day = write_day(tmp_path, scan, truth)
    labels = write_segmentation(truth, tmp_path / "truth.nii.gz")
    arguments = ["models", "compare", day, trained.result.model, random_model]
    content = json.loads(cli(*arguments, "--labels", labels, "--json").out)
    assert [model["id"] for model in content["models"]] == ["tiny", "random"]
    assert [row["organ"] for row in content["organs"]] == [organ.name for organ in truth.organs]
    for row in content["organs"]:
        trained_one, random_one = (one["dice"] or 0 for one in row["against_reference"])
        assert trained_one > random_one
    result = cli(*arguments, "--labels", labels, "--slices", "5:7")
    assert result.code == 0, result.err
    assert "reference" in result.out
    assert "2 slices" in result.out
    refused = cli("models", "compare", day, random_model, random_model)
    assert refused.code == 2
    assert "two different" in refused.err
