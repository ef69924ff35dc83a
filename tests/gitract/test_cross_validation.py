"""Cross-validation: every patient is scored by a network that has not seen it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from gitract.cross_validation import (
    Final,
    Split,
    cross_validate,
    make_split,
    read_split,
    write_split,
)
from gitract.errors import Cancelled, InputError
from gitract.evaluate import evaluate
from gitract.model_config import read_model_config
from gitract.phantom import abdomen, write_day
from gitract.predict import Segmenter
from gitract.progress import Progress
from gitract.recipe import Recipe
from gitract.train import Machines, TrainingData, TrainingResult, load_training_data
from sentences import assert_one_sentence

SPLIT = Split(folds=(("case1", "case2"), ("case3",)))


@pytest.fixture
def short(recipe: Recipe) -> Recipe:
    optimisation = recipe.optimisation.model_copy(update={"steps": 30, "steps_per_epoch": 10})
    return recipe.model_copy(update={"optimisation": optimisation})


@pytest.fixture
def data(short: Recipe, phantom_data: Path, tmp_path: Path) -> TrainingData:
    return load_training_data(short, phantom_data, cache=tmp_path / "cache")


@pytest.fixture
def run(short: Recipe, data: TrainingData, tmp_path: Path) -> Callable[..., TrainingResult]:
    def one(final: Final = "ensemble", **changes: object) -> TrainingResult:
        return cross_validate(
            short, data, SPLIT, output=tmp_path / "run", final=final, machines=Machines("cpu"),
            **changes,  # type: ignore[arg-type]
        )  # fmt: skip

    return one


def test_the_ensemble_of_the_folds_comes_with_everybodys_scores(
    run: Callable[..., TrainingResult], phantom_data: Path, tmp_path: Path
) -> None:
    result = run()
    assert result.evaluation is not None
    assert set(result.evaluation.patients) == {"case1", "case2", "case3"}
    for number, held_out in enumerate(SPLIT.folds, start=1):
        fold = tmp_path / "run" / f"fold-{number}" / "model"
        scores = evaluate(Segmenter(fold, device="cpu"), phantom_data, cases=held_out).scores
        merged = {(s.scan, s.organ): s.dice for s in result.evaluation.scores}
        assert {(s.scan, s.organ): s.dice for s in scores}.items() <= merged.items()
    card = (result.model / "README.md").read_text()
    assert "Cross-validated by patient" in card
    assert "Held out: case1, case2, case3." in card
    assert read_model_config(result.model).dice == result.evaluation.mean_dice
    written = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert written["patients"].keys() == {"case1", "case2", "case3"}
    assert read_split(tmp_path / "run" / "split.yaml") == SPLIT
    scan, _ = abdomen((6, 64, 72), seed=9)
    found = Segmenter(result.model, device="cpu").segment(scan)
    assert found.masks.shape == (3, *scan.shape)


def test_the_model_can_be_trained_once_more_on_everyone(
    run: Callable[..., TrainingResult], tmp_path: Path
) -> None:
    result = run("everyone")
    kept, everyone = (
        load_file(folder / "model.safetensors")
        for folder in (result.model, tmp_path / "run" / "everyone" / "model")
    )
    for name, weights in everyone.items():
        np.testing.assert_array_equal(kept[name], weights)
    card = (result.model / "README.md").read_text()
    assert "has seen all" in card
    assert "Trained on: case1, case2, case3." in card
    temperature = read_model_config(result.model).temperature
    assert temperature != 1.0
    assert f"Logits are divided by {temperature:.2f}" in card
    rows = [line for line in card.split("## Probabilities")[1].splitlines() if "| case" in line]
    assert len(rows) == len(SPLIT.folds)


def test_an_interrupted_cross_validation_keeps_the_folds_that_are_done(
    run: Callable[..., TrainingResult], tmp_path: Path
) -> None:
    def in_the_second_fold(progress: Progress) -> None:
        if progress.message.startswith("Fold 2 of 2") and progress.done == 25:
            raise Cancelled

    with pytest.raises(Cancelled):
        run(report=in_the_second_fold)
    first = tmp_path / "run" / "fold-1" / "model" / "model.safetensors"
    before = first.stat().st_mtime_ns
    with pytest.raises(InputError, match="already holds a run") as told:
        run()
    assert_one_sentence(told)
    messages: list[Progress] = []
    result = run(resume=True, report=messages.append)
    assert first.stat().st_mtime_ns == before
    steps = [m.done for m in messages if m.message.startswith("Fold 2") and "loss" in m.values]
    assert steps == list(range(21, 31))  # from the checkpoint of step 20
    assert result.evaluation is not None
    assert set(result.evaluation.patients) == {"case1", "case2", "case3"}


def test_another_split_is_not_mixed_into_a_run(
    short: Recipe, data: TrainingData, tmp_path: Path
) -> None:
    write_split(SPLIT, tmp_path / "split.yaml")
    other = Split(folds=(("case1",), ("case2", "case3")))
    with pytest.raises(InputError, match="another split") as told:
        cross_validate(short, data, other, output=tmp_path, resume=True)
    assert_one_sentence(told)


def test_another_recipe_is_not_mixed_into_a_run(
    run: Callable[..., TrainingResult], short: Recipe, data: TrainingData, tmp_path: Path
) -> None:
    def at_once(progress: Progress) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        run(report=at_once)
    other = short.model_copy(update={"seed": 5})
    with pytest.raises(InputError, match=r"other settings \(seed\)") as told:
        cross_validate(other, data, SPLIT, output=tmp_path / "run", resume=True)
    assert_one_sentence(told)


def test_a_patient_who_is_not_there_is_said_before_any_fold(
    short: Recipe, data: TrainingData, tmp_path: Path
) -> None:
    split = Split(folds=(("case1",), ("case9",)))
    with pytest.raises(InputError, match="'case9' is not in the data"):
        cross_validate(short, data, split, output=tmp_path / "run")
    with pytest.raises(InputError, match="Nothing to resume"):
        cross_validate(short, data, SPLIT, output=tmp_path / "run", resume=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("folds", [2, 3])
def test_folds_hold_every_patient_once_and_about_equally_many_slices(
    data: TrainingData, folds: int
) -> None:
    split = make_split(data.stacks, folds)
    patients = [patient for fold in split.folds for patient in fold]
    assert sorted(patients) == ["case1", "case2", "case3"]
    assert all(split.folds)
    assert make_split(data.stacks, folds) == split


def test_there_cannot_be_more_folds_than_patients(data: TrainingData) -> None:
    with pytest.raises(InputError, match="4 folds cannot be made of 3 patients") as told:
        make_split(data.stacks, 4)
    assert_one_sentence(told)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("folds: [[case1, case2], [case2]]", "case2 in two folds"),
        ("folds: [[case1]]", "at least two"),
        ("- case1", "not a list `folds`"),
        (": :", "not a list `folds`"),
    ],
)
def test_a_wrong_split_is_one_sentence(tmp_path: Path, content: str, part: str) -> None:
    path = tmp_path / "split.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=part) as told:
        read_split(path)
    assert_one_sentence(told)


def test_an_organ_that_only_the_held_out_patients_show_is_said(
    short: Recipe, tmp_path: Path
) -> None:
    for seed, name in enumerate(["case1_day0", "case2_day0"]):
        scan, truth = abdomen((6, 32, 40), seed=seed, name=name)
        if name.startswith("case1"):
            truth.masks[2] = False
        write_day(tmp_path / "days", scan, truth)
    loaded = load_training_data(short, tmp_path / "days", cache=tmp_path / "cache")
    split = Split(folds=(("case1",), ("case2",)))
    with pytest.raises(InputError, match="Stomach .* the patients to train on in fold 2") as told:
        cross_validate(short, loaded, split, output=tmp_path / "run", machines=Machines("cpu"))
    assert_one_sentence(told)
    assert not (tmp_path / "run").exists()
