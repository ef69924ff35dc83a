"""Training: it learns, it resumes exactly where it was, and it replaces nothing."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file

from gitract.data import Batches
from gitract.errors import Cancelled, InputError
from gitract.model_config import NetworkConfig, read_model_config
from gitract.models import load_network
from gitract.predict import Segmenter
from gitract.progress import Progress
from gitract.recipe import Recipe, read_recipe
from gitract.train import TrainingResult, train


@pytest.fixture
def short(recipe: Recipe) -> Recipe:
    """Nine steps in three epochs."""
    optimisation = recipe.optimisation.model_copy(update={"steps": 9, "steps_per_epoch": 3})
    return recipe.model_copy(update={"optimisation": optimisation})


@pytest.fixture
def run(short: Recipe, phantom_data: Path, tmp_path: Path) -> Callable[..., TrainingResult]:
    def one(output: Path = tmp_path / "run", **changes: object) -> TrainingResult:
        settings = {"data": phantom_data, "device": "cpu", "hold_out": ["case3"], **changes}
        return train(settings.pop("recipe", short), output=output, **settings)  # type: ignore[arg-type]

    return one


def ended_at(step: int, ending: type[BaseException]) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        if "loss" in progress.values and progress.done == step:
            raise ending

    return report


def test_training_learns(trained: SimpleNamespace) -> None:
    losses = trained.losses
    assert len(losses) == 100
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])
    dices = [report.values["dice"] for report in trained.reports if "dice" in report.values]
    assert dices[-1] > 0.15


def test_a_run_leaves_model_recipe_and_numbers(trained: SimpleNamespace) -> None:
    assert trained.result.model == trained.output / "model"
    assert read_recipe(trained.output / "recipe.yaml") == trained.recipe
    with (trained.output / "log" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["loss"]) for row in rows if row.get("loss")]
    assert len(losses) == 4  # one for each epoch
    assert losses[-1] < losses[0]
    assert any(row.get("dice_stomach") for row in rows)
    assert not list(trained.output.glob("*partial*"))


def test_the_model_says_how_it_did_on_who_was_held_out(trained: SimpleNamespace) -> None:
    scores = trained.result.scores
    assert [score.name for score in scores] == ["case3_day0", "case3_day5"]
    config = read_model_config(trained.result.model)
    assert config.id == "tiny"
    for organ, value in config.dice.items():  # two days, but one patient
        assert value == pytest.approx(np.mean([score.dice[organ] for score in scores]))
    card = (trained.result.model / "README.md").read_text()
    assert "case3_day5" in card
    assert "24 labelled slices" in card
    assert "case1, case2." in card  # and not case3
    assert "not for treatment decisions" in card


def test_the_scores_are_those_of_the_model_that_was_written(
    trained: SimpleNamespace, recipe: Recipe
) -> None:
    from gitract.data import load_stacks
    from gitract.train import _scan_dice

    network, _ = load_network(trained.result.model)
    stacks = {stack.name: stack for stack in load_stacks(recipe, trained.data)}
    for score in trained.result.scores:
        again = _scan_dice(network, [stacks[score.name]], recipe)
        assert again.dice == pytest.approx(score.dice, abs=1e-3)


def test_nobody_held_out_is_said(run: Callable[..., TrainingResult]) -> None:
    result = run(hold_out=())
    assert result.scores == ()
    assert "Nobody was held out" in (result.model / "README.md").read_text()
    assert read_model_config(result.model).dice == {}


@pytest.mark.parametrize("ending", [KeyboardInterrupt, Cancelled])
def test_an_interrupted_run_resumes_to_the_same_weights(
    run: Callable[..., TrainingResult], tmp_path: Path, ending: type[BaseException]
) -> None:
    whole = run(tmp_path / "whole")
    with pytest.raises(Cancelled):
        run(report=ended_at(7, ending))
    assert not (tmp_path / "run" / "model").exists()
    reports: list[Progress] = []
    resumed = run(resume=True, report=reports.append)
    steps = [report.done for report in reports if "loss" in report.values]
    assert steps == [7, 8, 9]  # two epochs of three were kept
    one, other = (load_file(result.model / "model.safetensors") for result in (whole, resumed))
    assert one.keys() == other.keys()
    for name, weights in one.items():
        np.testing.assert_allclose(other[name], weights, atol=1e-5, err_msg=name)


def test_every_batch_is_drawn_once_also_after_a_resume(
    run: Callable[..., TrainingResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    draw = Batches.__getitem__

    def watched(self: Batches, step: int) -> object:
        drawn.append(step)
        return draw(self, step)

    monkeypatch.setattr(Batches, "__getitem__", watched)
    with pytest.raises(Cancelled):
        run(report=ended_at(7, Cancelled), hold_out=())
    assert drawn == [0, 1, 2, 3, 4, 5, 6]
    drawn.clear()
    run(resume=True, hold_out=())
    assert drawn == [6, 7, 8]


def test_a_run_that_ended_before_its_model_was_written_resumes_to_it(
    run: Callable[..., TrainingResult], tmp_path: Path
) -> None:
    whole = run()
    before = load_file(whole.model / "model.safetensors")
    shutil.rmtree(whole.model)
    again = load_file(run(resume=True).model / "model.safetensors")
    for name, weights in before.items():
        np.testing.assert_allclose(again[name], weights, atol=1e-5, err_msg=name)


def test_the_seed_decides_the_weights(
    run: Callable[..., TrainingResult], short: Recipe, tmp_path: Path
) -> None:
    other = short.model_copy(update={"seed": 1})
    results = [run(tmp_path / "a"), run(tmp_path / "b"), run(tmp_path / "c", recipe=other)]
    one, same, different = (load_file(r.model / "model.safetensors") for r in results)
    name = next(iter(one))
    np.testing.assert_allclose(one[name], same[name], atol=1e-6)
    assert not np.allclose(one[name], different[name])


def test_steps_need_not_fill_the_last_epoch(
    run: Callable[..., TrainingResult], short: Recipe
) -> None:
    optimisation = short.optimisation.model_copy(update={"steps": 4})
    reports: list[Progress] = []
    run(recipe=short.model_copy(update={"optimisation": optimisation}), report=reports.append)
    assert [r.done for r in reports if "loss" in r.values] == [1, 2, 3, 4]


def test_a_trained_model_can_be_used_where_it_lies(trained: SimpleNamespace) -> None:
    assert Segmenter(trained.result.model, device="cpu").model.id == "tiny"


# --- what does not work ---------------------------------------------------------------------


def test_a_finished_run_is_not_overwritten(
    run: Callable[..., TrainingResult], trained: SimpleNamespace
) -> None:
    before = (trained.result.model / "model.safetensors").stat().st_mtime_ns
    for resume in (False, True):
        with pytest.raises(InputError, match="already holds"):
            run(trained.output, resume=resume)
    assert (trained.result.model / "model.safetensors").stat().st_mtime_ns == before


def test_an_interrupted_run_is_not_overwritten_either(
    run: Callable[..., TrainingResult],
) -> None:
    with pytest.raises(Cancelled):
        run(report=ended_at(7, Cancelled))
    with pytest.raises(InputError, match="resume"):
        run()


def test_a_run_that_ended_before_its_first_checkpoint_can_begin_again(
    run: Callable[..., TrainingResult],
) -> None:
    with pytest.raises(Cancelled):
        run(report=ended_at(2, Cancelled))
    with pytest.raises(InputError, match="Nothing to resume"):
        run(resume=True)
    assert run().model.is_dir()


def test_a_loss_that_is_not_finite_is_one_sentence(
    run: Callable[..., TrainingResult], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        "gitract.train.masked_bce_dice", lambda logits, *_, **__: logits.sum() * float("nan")
    )
    with pytest.raises(InputError, match=r"The loss is nan at step 0: .*learning_rate"):
        run()
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"hold_out": ["case9"]}, "'case9' is not in the data"),
        ({"hold_out": ["case1", "case2", "case3"]}, "nobody is left"),
        ({"device": "gpu"}, "Unknown device"),
        ({"resume": True}, "Nothing to resume"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_written(
    run: Callable[..., TrainingResult], tmp_path: Path, changes: dict[str, object], part: str
) -> None:
    with pytest.raises(InputError, match=part):
        run(**changes)
    assert not (tmp_path / "run").exists()


def test_an_unknown_network_is_said(run: Callable[..., TrainingResult], short: Recipe) -> None:
    wrong = short.model_copy(update={"network": NetworkConfig(name="encoder_unit")})
    with pytest.raises(InputError, match="did you mean"):
        run(recipe=wrong)
