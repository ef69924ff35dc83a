"""Evaluation: what the rows, means and remarks of scans, models and folds say."""

import json
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gitract import INTENDED_USE
from gitract.errors import Cancelled, InputError
from gitract.evaluate import JudgedRun, JudgedScan, evaluate, score_scan, score_scans
from gitract.evaluation import ALL_ORGANS, METRICS, Evaluation
from gitract.labelled import find_labelled
from gitract.metrics import Overlap, dice
from gitract.model_config import ModelConfig
from gitract.models import save_model
from gitract.models.weights import build_network
from gitract.organs import ORGANS, Organ, organ_named
from gitract.phantom import abdomen, write_day
from gitract.progress import Progress
from gitract.recipe import CompetitionSource
from gitract.scan import Scan, Segmentation
from gitract.surface import surface_distances
from sentences import assert_one_sentence

Cli = Callable[..., SimpleNamespace]
SHAPE = (10, 48, 56)


def shifted(truth: Segmentation, pixels: int = 2, organs: Sequence[Organ] = ORGANS) -> Segmentation:
    """The truth, some columns aside, with some of its organs."""
    kept = [truth.organs.index(organ) for organ in organs]
    return replace(
        truth, masks=np.roll(truth.masks[kept], pixels, axis=3), organs=tuple(organs)
    )  # fmt: skip


def without(segmentation: Segmentation, organ: str) -> Segmentation:
    """Nowhere that organ."""
    masks = segmentation.masks.copy()
    masks[segmentation.organs.index(organ_named(organ))] = False
    return replace(segmentation, masks=masks)


def judged(
    name: str, seed: int = 0, change: Callable[[Segmentation], Segmentation] = shifted
) -> JudgedScan:
    scan, truth = abdomen(SHAPE, seed=seed, name=name)
    return JudgedScan(name, name.split("_")[0], (JudgedRun(scan, change(truth), truth),), "a")


class Answers:
    """A model that outlines what it is told to."""

    def __init__(
        self,
        data: Path,
        change: Callable[[Segmentation], Segmentation] = shifted,
        organs: tuple[Organ, ...] = ORGANS,
    ) -> None:
        self.model = SimpleNamespace(id="answers")
        self.config = SimpleNamespace(organs=organs)
        self._change = change
        self._truth = {
            scan.name: run.truth for scan in find_labelled(data) for run in scan.read()
        }  # fmt: skip

    def segment(self, scan: Scan, *, report: Callable[[Progress], None]) -> Segmentation:
        report(Progress(len(scan.voxels), len(scan.voxels), "Segmented"))
        return self._change(self._truth[scan.name])


def run_evaluate(data: Path, answers: Answers, **options: Any) -> Evaluation:
    return evaluate(answers, data, **options)  # type: ignore[arg-type]


def rows_of(evaluation: Evaluation, organ: str) -> list[Any]:
    return [score for score in evaluation.scores if score.organ == organ]


# --- a folder of scans ----------------------------------------------------------------------


def test_a_model_that_answers_the_truth_is_perfect(phantom_data: Path) -> None:
    found = run_evaluate(phantom_data, Answers(phantom_data, lambda truth: truth))
    assert found.models == ("answers",)
    assert found.patients == ("case1", "case2", "case3")
    assert found.scans == ("case1_day0", "case2_day0", "case3_day0", "case3_day5")
    assert found.remarks == ()
    for score in found.scores:
        assert score.dice == score.iou == score.slice_dice == score.surface_dice_1mm == 1.0
        assert score.hd95_mm == score.volume_error_ml == score.volume_error_percent == 0.0
        assert score.missed_slices == score.invented_slices == 0
        assert not score.missed
        assert not score.invented
    for means in found.summary().values():
        assert means["dice"] is not None
        assert means["dice"].value == 1.0
        assert means["dice"].interval == (1.0, 1.0)
        assert (means["dice"].patients, means["dice"].scans) == (3, 4)
    for reading in ("A", "B"):
        score = found.competition(reading)  # type: ignore[arg-type]
        assert score is not None
        assert score.score == pytest.approx(1.0)


def test_the_numbers_of_a_row_are_those_of_the_masks() -> None:
    scan = judged("case1_day0")
    found = score_scan(scan)
    run = scan.runs[0]
    for organ, row in zip(ORGANS, found.scores, strict=True):
        index = ORGANS.index(organ)
        a, b = run.prediction.masks[index], run.truth.masks[index]
        surfaces = surface_distances(a, b, run.scan.spacing)
        assert (row.organ, row.patient, row.scan, row.model) == (
            organ.name, "case1", "case1_day0", "a",
        )  # fmt: skip
        assert row.dice == dice(a, b)
        assert row.iou == Overlap.of(a, b).iou
        by_slice = [d for d in map(dice, a, b) if d is not None]
        assert row.slice_dice == pytest.approx(np.mean(by_slice))
        assert row.hd95_mm == surfaces.hd95
        assert row.surface_dice_3mm == surfaces.dice(3.0)
        assert row.volume_ml == pytest.approx(run.prediction.volumes_ml[organ.name])
        assert row.true_volume_ml == pytest.approx(run.truth.volumes_ml[organ.name])
        assert (row.slices, row.organ_slices) == (10, int(b.any(axis=(1, 2)).sum()))
        slices = [s for s in found.slices if s.organ == organ.name]
        assert [s.dice for s in slices] == list(map(dice, a, b))
        assert [s.slice for s in slices] == list(range(10))
        assert [s.number for s in slices] == list(range(1, 11))
        pixel_mm2 = run.scan.spacing[1] * run.scan.spacing[2]
        assert sum(s.true_area_mm2 for s in slices) == pytest.approx(b.sum() * pixel_mm2)


def test_means_are_over_patients_and_not_over_scans(phantom_data: Path) -> None:
    found = run_evaluate(phantom_data, Answers(phantom_data))
    stomach = {row.scan: row.dice for row in rows_of(found, "stomach")}
    case3 = (stomach["case3_day0"] + stomach["case3_day5"]) / 2
    expected = (stomach["case1_day0"] + stomach["case2_day0"] + case3) / 3
    assert found.mean_dice["stomach"] == pytest.approx(expected)
    assert found.by_patient("dice", "stomach")["case3"] == pytest.approx(case3)
    mean = found.mean("dice", "stomach")
    assert mean is not None
    assert mean.interval is not None
    assert min(stomach.values()) <= mean.interval.low < expected < mean.interval.high
    over_organs = found.mean("dice")
    assert over_organs is not None
    assert over_organs.value == pytest.approx(np.mean(list(found.mean_dice.values())))


def test_only_the_chosen_cases_are_scored(phantom_data: Path) -> None:
    answers = Answers(phantom_data)
    found = run_evaluate(phantom_data, answers, cases=["case3", "case1_day0"])
    assert set(found.scans) == {"case1_day0", "case3_day0", "case3_day5"}
    assert any("Fewer than 3 patients" in remark for remark in found.remarks)
    assert all(
        mean is None or mean.interval is None for mean in found.summary()["stomach"].values()
    )
    with pytest.raises(InputError) as refused:
        run_evaluate(phantom_data, answers, cases=["case9"])
    assert_one_sentence(refused, "'case9'")


def test_sources_say_where_the_scans_are(phantom_data: Path) -> None:
    source = CompetitionSource(kind="competition", path=phantom_data.name)
    answers = Answers(phantom_data)
    found = run_evaluate(phantom_data.parent, answers, sources=[source], cases=["case1"])
    assert found.scans == ("case1_day0",)


def test_a_folder_without_truth_is_refused(phantom_data: Path, tmp_path: Path) -> None:
    answers = Answers(phantom_data)
    with pytest.raises(InputError) as refused:
        run_evaluate(tmp_path, answers)
    assert_one_sentence(refused, str(tmp_path))


def test_a_damaged_scan_is_left_out_and_the_evaluation_says_so(tmp_path: Path) -> None:
    for seed, name in enumerate(["case1_day0", "case2_day0"]):
        write_day(tmp_path, *abdomen(SHAPE, seed=seed, name=name))
    answers = Answers(tmp_path)
    damaged = next((tmp_path / "train" / "case1").rglob("*.png"))
    damaged.write_bytes(damaged.read_bytes()[:40])
    found = run_evaluate(tmp_path, answers)
    assert found.scans == ("case2_day0",)
    assert any(damaged.name in remark for remark in found.remarks)
    with pytest.raises(InputError) as refused:
        run_evaluate(tmp_path, answers, cases=["case1"])
    assert_one_sentence(refused, damaged.name)


def test_the_job_says_how_far_it_is_and_can_be_cancelled(phantom_data: Path) -> None:
    seen: list[Progress] = []
    run_evaluate(phantom_data, Answers(phantom_data), cases=["case3"], report=seen.append)
    messages = [progress.message for progress in seen]
    assert "case3_day5 (2 of 2): Segmented" in messages
    for organ in ("large bowel", "small bowel", "stomach"):
        assert f"case3_day0: scoring {organ}" in messages

    def cancel(progress: Progress) -> None:
        if "scoring" in progress.message:
            raise Cancelled

    with pytest.raises(Cancelled):
        run_evaluate(phantom_data, Answers(phantom_data), report=cancel)


# --- what is known, missed and invented -----------------------------------------------------


def test_a_missed_organ_counts_as_missed_and_has_no_hd95() -> None:
    found = score_scan(judged("case1_day0", change=lambda truth: without(truth, "stomach")))
    (row,) = rows_of(found, "stomach")
    assert row.missed
    assert not row.invented
    assert row.dice == row.iou == row.surface_dice_3mm == row.volume_ml == 0.0
    assert row.hd95_mm is None
    assert row.volume_error_percent == -100.0
    assert row.missed_slices == row.organ_slices > 0
    assert found.mean("hd95_mm", "stomach") is None
    assert found.counts()["stomach"]["missed"] == 1
    assert all(s.missed == (s.true_area_mm2 > 0) for s in found.slices if s.organ == "stomach")


def test_an_invented_organ_counts_as_invented_and_has_no_error_in_percent() -> None:
    scan, truth = abdomen(SHAPE, name="case1_day0")
    run = JudgedRun(scan, truth, without(truth, "stomach"))
    found = score_scan(JudgedScan("case1_day0", "case1", (run,)))
    (row,) = rows_of(found, "stomach")
    assert row.invented
    assert not row.missed
    assert row.dice == row.slice_dice == 0.0
    assert row.hd95_mm is None
    assert row.volume_error_percent is None
    assert row.volume_error_ml == row.volume_ml > 0
    assert row.invented_slices == found.counts()["stomach"]["invented_slices"] > 0
    assert found.counts()["stomach"]["scans"] == 0


def test_an_organ_that_is_nowhere_has_no_scores() -> None:
    scan, truth = abdomen(SHAPE, name="case1_day0")
    nothing = without(truth, "stomach")
    found = score_scan(JudgedScan("case1_day0", "case1", (JudgedRun(scan, nothing, nothing),)))
    (row,) = rows_of(found, "stomach")
    for metric in METRICS:
        assert getattr(row, metric.name) is None, metric
    assert not row.missed
    assert not row.invented
    assert "stomach" not in found.mean_dice
    assert set(found.mean_dice) == {"large_bowel", "small_bowel"}


def test_an_organ_that_the_model_does_not_know_is_left_out_and_said(phantom_data: Path) -> None:
    known = ORGANS[:2]
    answers = Answers(phantom_data, lambda truth: shifted(truth, organs=known), organs=known)
    found = run_evaluate(phantom_data, answers)
    assert [organ.name for organ in found.organs] == ["large_bowel", "small_bowel"]
    assert found.remarks == (
        "The model does not know stomach: its contours on 4 scans were left out.",
    )


def test_an_organ_that_nobody_outlined_is_not_judged() -> None:
    scan, truth = abdomen(SHAPE, name="case1_day0")
    outlined = shifted(truth, 0, ORGANS[2:])
    found = score_scans([JudgedScan("case1_day0", "case1", (JudgedRun(scan, truth, outlined),))])
    assert [row.organ for row in found.scores] == ["stomach"]
    assert {row.organ for row in found.slices} == {"stomach"}
    score = found.competition()
    assert score is not None
    assert score.score == pytest.approx(1.0)


def test_nothing_in_common_is_refused() -> None:
    scan, truth = abdomen(SHAPE, name="case1_day0")
    run = JudgedRun(scan, shifted(truth, 0, ORGANS[:1]), shifted(truth, 0, ORGANS[2:]))
    with pytest.raises(InputError) as refused:
        score_scans([JudgedScan("case1_day0", "case1", (run,))])
    assert_one_sentence(refused, "nothing to judge")


def test_masks_on_another_grid_are_refused() -> None:
    scan, truth = abdomen(SHAPE, name="case1_day0")
    other = replace(truth, masks=truth.masks[:, :, ::2])
    for run in (JudgedRun(scan, other, truth), JudgedRun(scan, truth, other)):
        with pytest.raises(InputError) as refused:
            score_scan(JudgedScan("case1_day0", "case1", (run,)))
        assert_one_sentence(refused, "case1_day0", "grid")


# --- scans that lack slices -----------------------------------------------------------------


def cut(run: JudgedRun, first: int, last: int) -> JudgedRun:
    scan, prediction, truth = run
    part = slice(first, last)
    numbers = tuple(range(first + 1, last + 1))
    return JudgedRun(
        replace(scan, voxels=scan.voxels[part], slice_numbers=numbers),
        replace(prediction, masks=prediction.masks[:, part], slice_numbers=numbers),
        replace(truth, masks=truth.masks[:, part], slice_numbers=numbers),
    )


def test_a_scan_that_lacks_slices_is_scored_as_one() -> None:
    whole = judged("case1_day0")
    runs = (cut(whole.runs[0], 0, 5), cut(whole.runs[0], 7, 10))
    found = score_scan(replace(whole, runs=runs))
    here = [0, 1, 2, 3, 4, 7, 8, 9]
    for organ in ORGANS:
        (row,) = rows_of(found, organ.name)
        index = ORGANS.index(organ)
        a = whole.runs[0].prediction.masks[index][here]
        b = whole.runs[0].truth.masks[index][here]
        assert row.dice == pytest.approx(dice(a, b))
        assert row.volume_ml == pytest.approx(a.sum() * np.prod(whole.runs[0].scan.spacing) / 1000)
        assert row.slices == 8
        slices = [s for s in found.slices if s.organ == organ.name]
        assert [s.slice for s in slices] == list(range(8))
        assert [s.number for s in slices] == [n + 1 for n in here]


def test_runs_of_different_grids_are_scored_together() -> None:
    whole = judged("case1_day0")
    scan, truth = abdomen((4, 32, 40), seed=3, name="case1_day0")
    runs = (*whole.runs, JudgedRun(scan, truth, truth))
    found = score_scan(replace(whole, runs=runs))
    alone = score_scan(whole)
    for row, before in zip(found.scores, alone.scores, strict=True):
        assert row.slices == 14
        assert row.dice is not None
        assert before.dice is not None
        assert row.dice > before.dice
        volume = truth.volumes_ml[row.organ]
        assert row.true_volume_ml == pytest.approx(before.true_volume_ml + volume)


def test_an_organ_outlined_on_some_runs_alone_is_judged_there() -> None:
    whole = judged("case1_day0")
    first, second = cut(whole.runs[0], 0, 5), cut(whole.runs[0], 5, 10)
    second = second._replace(truth=shifted(second.truth, 0, ORGANS[:2]))
    found = score_scan(replace(whole, runs=(first, second)))
    assert [row.slices for row in found.scores] == [10, 10, 5]


# --- merging and keeping --------------------------------------------------------------------


def test_folds_merge_to_what_scoring_all_at_once_gives() -> None:
    scans = [judged(f"case{n}_day0", n, lambda t, n=n: shifted(t, n)) for n in (1, 2, 3, 4)]  # type: ignore[misc]
    together = score_scans(scans)
    folds = [score_scans(scans[:2]), score_scans(scans[2:])]
    assert Evaluation.merged(folds).as_dict() == together.as_dict()
    renamed = [replace(scan, model=f"fold-{n}") for n, scan in enumerate(scans)]
    assert score_scans(renamed).models == ("fold-0", "fold-1", "fold-2", "fold-3")


def test_a_scan_that_comes_twice_is_refused() -> None:
    part = score_scans([judged("case1_day0")])
    with pytest.raises(InputError) as refused:
        Evaluation.merged([part, part])
    assert_one_sentence(refused, "case1_day0", "2 times")


def test_an_evaluation_comes_back_from_json(tmp_path: Path) -> None:
    found = score_scans(judged(f"case{n}_day0", n) for n in (1, 2, 3))
    file = tmp_path / "scores.json"
    file.write_text(json.dumps(found.as_dict()))
    back = Evaluation.read(file)
    assert back.as_dict() == found.as_dict()
    assert back.scores == found.scores
    assert back.slices == found.slices
    assert back.competition("B") == found.competition("B")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"scores": [{}]}', "\x00"])
def test_a_file_that_is_no_evaluation_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "scores.json"
    file.write_text(content)
    with pytest.raises(InputError) as refused:
        Evaluation.read(file)
    assert_one_sentence(refused, str(file))
    with pytest.raises(InputError) as absent:
        Evaluation.read(tmp_path / "absent.json")
    assert_one_sentence(absent, "absent.json")


def test_few_scans_are_held_at_a_time_however_many_there_are() -> None:
    alive: weakref.WeakSet[Scan] = weakref.WeakSet()
    most = 0

    def scans() -> Iterator[JudgedScan]:
        nonlocal most
        for n in range(6):
            scan = judged(f"case{n}_day0", n)
            alive.add(scan.runs[0].scan)
            most = max(most, len(alive))
            yield scan

    assert len(score_scans(scans()).scans) == 6
    assert most <= 2  # the one that is made, and the last one


# --- the command ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tiny_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated") / "random"
    save_model(build_network(tiny_config), tiny_config, "# Random\n", folder)
    return folder


def assert_refused(result: SimpleNamespace, *parts: str) -> None:
    assert result.code == 2, result
    assert result.out == ""
    (line,) = result.err.strip().splitlines()
    assert line.startswith("Error: ")
    for part in parts:
        assert part in line
    assert ". " not in line


def test_the_command_writes_a_report_and_json(
    cli: Cli, phantom_data: Path, model: Path, tmp_path: Path
) -> None:
    files = ["-o", tmp_path / "report.html", "--json-file", tmp_path / "scores.json"]
    result = cli("evaluate", "--data", phantom_data, "--model", model, *files, "--json")
    assert result.code == 0, result.err
    assert result.err == ""
    content = json.loads(result.out)
    assert json.loads((tmp_path / "scores.json").read_text()) == content
    assert content["models"] == ["random"]
    assert content["intended_use"] == INTENDED_USE
    assert [row["scan"] for row in content["scores"][::3]] == [
        "case1_day0", "case2_day0", "case3_day0", "case3_day5",
    ]  # fmt: skip
    assert content["summary"][ALL_ORGANS]["dice"]["patients"] == 3
    assert content["competition"]["reading"] == "A"
    assert "case3_day5" in (tmp_path / "report.html").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "scores.json"]
    assert Evaluation.read(tmp_path / "scores.json").mean_dice.keys() == {o.name for o in ORGANS}


def test_the_command_prints_a_table_of_a_hundred_columns(
    cli: Cli, phantom_data: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gitract.cli import _common

    monkeypatch.setattr(_common.out, "_width", 100)
    arguments = ["--data", phantom_data, "--model", model, "--reading", "B"]
    result = cli("evaluate", *arguments)
    assert result.code == 0, result.err
    table = [line for line in result.out.splitlines() if "  " in line]
    assert max(map(len, table)) <= 100
    for part in ("case3_day5", "large_bowel", "Surface Dice 2 mm", "reading B", INTENDED_USE):
        assert part in result.out
    assert "…" not in result.out


def test_the_command_takes_sources_from_a_recipe(
    cli: Cli, phantom_data: Path, model: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "id: x\ntitle: X\nnetwork: {name: test_net}\n"
        f"sources: [{{kind: competition, path: {phantom_data.name}}}]\n"
    )
    result = cli(
        "evaluate", "--data", phantom_data.parent, "--config", recipe, "--model", model,
        "--cases", "case1, case2_day0", "--json",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert set(json.loads(result.out)["patients"]) == {"case1", "case2"}


def test_the_command_refuses_in_one_line(
    cli: Cli, phantom_data: Path, model: Path, tmp_path: Path
) -> None:
    start = ["evaluate", "--data", phantom_data, "--model", model]
    assert_refused(cli(*start, "--cases", "case9"), "'case9'")
    assert_refused(cli(*start, "-o", tmp_path), "is a folder")
    assert_refused(cli(*start, "--json-file", tmp_path), "is a folder")
    assert_refused(cli(*start, "-o", tmp_path / "absent" / "x.html"), "absent")
    assert_refused(cli(*start, "--reading", "C"), "'C'")
    assert_refused(cli(*start, "--model", tmp_path), "not a model folder")
    assert_refused(cli("evaluate", "--data", tmp_path, "--model", model), str(tmp_path))
    report = ["-o", tmp_path / "x.html", "--curves", tmp_path / "absent.csv"]
    assert_refused(cli(*start, "--cases", "case1", *report), "absent.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.data
def test_the_truth_of_real_scans_is_perfect_against_itself(shared_data: Path) -> None:
    scans = find_labelled(shared_data / "uwm_stacks")
    found = score_scans(
        JudgedScan(
            scan.name, scan.patient,
            tuple(JudgedRun(run.scan, run.truth, run.truth) for run in scan.read()),
        )
        for scan in scans
    )  # fmt: skip
    assert len(found.patients) == 4
    score = found.competition()
    assert score is not None
    assert score.score == pytest.approx(1.0)
    assert all(row.hd95_mm in (0.0, None) for row in found.scores)
