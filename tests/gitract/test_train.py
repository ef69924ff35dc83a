"""Training: it learns, it resumes exactly where it was, and it replaces nothing."""

import csv
import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from gitract.data import Batches
from gitract.engine import SegmentationModule
from gitract.errors import Cancelled, InputError
from gitract.evaluate import evaluate
from gitract.model_config import NetworkConfig, read_model_config
from gitract.predict import Segmenter
from gitract.progress import Progress
from gitract.recipe import Optimisation, Recipe, read_recipe
from gitract.train import Machines, TrainingResult, load_training_data, train
from sentences import assert_one_sentence


@pytest.fixture
def short(recipe: Recipe) -> Recipe:
    """Nine steps in three epochs."""
    optimisation = recipe.optimisation.model_copy(update={"steps": 9, "steps_per_epoch": 3})
    return recipe.model_copy(update={"optimisation": optimisation})


@pytest.fixture
def run(short: Recipe, phantom_data: Path, tmp_path: Path) -> Callable[..., TrainingResult]:
    def one(output: Path = tmp_path / "run", **changes: object) -> TrainingResult:
        settings = {"machines": Machines("cpu"), "hold_out": ["case3"], **changes}
        recipe = settings.pop("recipe", short)
        data = load_training_data(recipe, phantom_data, cache=tmp_path / "cache")
        return train(recipe, data, output=output, **settings)  # type: ignore[arg-type]

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
    evaluation = trained.result.evaluation
    assert evaluation.scans == ("case3_day0", "case3_day5")
    config = read_model_config(trained.result.model)
    assert config.id == "tiny"
    for organ, value in config.dice.items():  # two days, but one patient
        scores = [score.dice for score in evaluation.scores if score.organ == organ]
        assert value == pytest.approx(np.mean(scores))
    card = (trained.result.model / "README.md").read_text()
    made = config.created[: len("2026-11-22T14:05")].replace("T", " ")  # nobody needs seconds
    assert f"made {made} UTC by" in card
    assert "case3_day5" in card
    assert config.weights_sha256 in card
    assert "Trained on: case1, case2." in card
    assert "Held out: case3." in card
    assert "not for treatment decisions" in card
    assert json.loads((trained.output / "evaluation.json").read_text())["patients"].keys() == {
        "case3"
    }
    assert json.loads((trained.output / "data.json").read_text())["slices"] == 48


def test_the_scores_are_those_of_the_model_that_was_written_on_the_scans_own_grid(
    trained: SimpleNamespace,
) -> None:
    segmenter = Segmenter(trained.result.model, device="cpu")
    again = evaluate(segmenter, trained.data, cases=["case3"])
    assert [s.dice for s in again.scores] == [s.dice for s in trained.result.evaluation.scores]


def test_nobody_held_out_is_said(run: Callable[..., TrainingResult]) -> None:
    result = run(hold_out=())
    assert result.evaluation is None
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
        np.testing.assert_array_equal(other[name], weights, err_msg=name)


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
        np.testing.assert_array_equal(again[name], weights, err_msg=name)


def test_the_seed_decides_the_weights(
    run: Callable[..., TrainingResult], short: Recipe, tmp_path: Path
) -> None:
    other = short.model_copy(update={"seed": 1})
    results = [run(tmp_path / "a"), run(tmp_path / "b"), run(tmp_path / "c", recipe=other)]
    one, same, different = (load_file(r.model / "model.safetensors") for r in results)
    name = next(iter(one))
    np.testing.assert_array_equal(one[name], same[name])
    assert not np.allclose(one[name], different[name])


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


def test_a_loss_that_is_not_finite_stops_and_says_where_the_good_weights_are(
    run: Callable[..., TrainingResult], short: Recipe, tmp_path: Path
) -> None:
    optimisation = short.optimisation.model_copy(update={"learning_rate": 1e18, "warm_up": 0})
    with pytest.raises(InputError, match=r"at step 1: lower optimisation.learning_rate") as told:
        run(recipe=short.model_copy(update={"optimisation": optimisation}))
    assert_one_sentence(told)
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize("step", [5, 8])  # within an epoch, and at the end of the last
def test_weights_that_are_not_finite_are_never_kept(
    run: Callable[..., TrainingResult], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, step: int
) -> None:
    backward = torch.Tensor.backward

    def spoiled(loss: torch.Tensor, *args: object, **options: object) -> None:
        backward(loss * (float("inf") if SegmentationModule.now == step else 1.0), *args, **options)  # type: ignore[attr-defined, arg-type]

    start = SegmentationModule.on_train_batch_start

    def noted(self: SegmentationModule, *rest: object) -> None:
        SegmentationModule.now = self.global_step  # type: ignore[attr-defined]
        start(self, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(SegmentationModule, "on_train_batch_start", noted)
    monkeypatch.setattr(torch.Tensor, "backward", spoiled)
    with pytest.raises(InputError, match=f"not finite at step {step}") as told:
        run()
    assert_one_sentence(told)
    assert f"the weights of step {step // 3 * 3} are in checkpoints/last.ckpt" in str(told.value)
    kept = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert all(torch.isfinite(weights).all() for weights in kept["state_dict"].values())
    monkeypatch.undo()
    assert run(resume=True).model.is_dir()


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"hold_out": ["case9"]}, "'case9' is not in the data"),
        ({"hold_out": ["case1", "case2", "case3"]}, "nobody is left"),
        ({"machines": Machines("gpu")}, "Unknown device"),
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


def test_a_run_is_not_resumed_by_another_recipe(
    run: Callable[..., TrainingResult], short: Recipe
) -> None:
    with pytest.raises(Cancelled):
        run(report=ended_at(7, Cancelled))
    for changes, part in (
        ({"recipe": short.model_copy(update={"seed": 5})}, r"other settings \(seed\)"),
        ({"hold_out": ["case1"]}, r"other settings \(hold_out\)"),
    ):
        with pytest.raises(InputError, match=part) as told:
            run(resume=True, **changes)
        assert_one_sentence(told)


def test_a_run_that_cannot_be_resumed_says_why(
    run: Callable[..., TrainingResult], tmp_path: Path
) -> None:
    with pytest.raises(Cancelled):
        run(report=ended_at(7, Cancelled))
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(InputError, match="damaged") as told:
        run(resume=True)
    assert_one_sentence(told)
    (tmp_path / "run" / "recipe.yaml").unlink()
    with pytest.raises(InputError, match="does not say what it was begun with") as told:
        run(resume=True)
    assert_one_sentence(told)


def test_an_organ_that_nobody_outlined_is_said_before_the_training(
    run: Callable[..., TrainingResult], short: Recipe
) -> None:
    with pytest.raises(InputError, match="Duodenum is outlined on no slice") as told:
        run(recipe=short.model_copy(update={"organs": ("stomach", "duodenum")}))
    assert_one_sentence(told)


@pytest.mark.parametrize(
    ("organs", "part"),
    [(("stomache",), "did you mean 'stomach'"), (("stomach", "stomach"), "twice")],
)
def test_wrong_organs_are_said(
    run: Callable[..., TrainingResult], short: Recipe, organs: tuple[str, ...], part: str
) -> None:
    with pytest.raises(InputError, match=part) as told:
        run(recipe=short.model_copy(update={"organs": organs}))
    assert_one_sentence(told)


def test_a_model_may_outline_fewer_organs(
    run: Callable[..., TrainingResult], short: Recipe
) -> None:
    result = run(recipe=short.model_copy(update={"organs": ("stomach",)}))
    assert [organ.name for organ in read_model_config(result.model).organs] == ["stomach"]
    assert result.evaluation is not None
    assert {score.organ for score in result.evaluation.scores} == {"stomach"}


UNET = NetworkConfig(  # with batch normalisation, and layers that are dropped at random
    name="encoder_unet",
    options={"encoder": "timm-efficientnet-b0", "decoder_channels": [16, 8, 8, 8, 8]},
)


@pytest.mark.parametrize("hold_out", [("case3",), ()])
@pytest.mark.parametrize("network", [None, UNET], ids=["plain", "U-Net"])
def test_the_numbers_of_a_resumed_run_are_those_of_one_that_went_through(
    run: Callable[..., TrainingResult],
    short: Recipe,
    tmp_path: Path,
    hold_out: tuple[str, ...],
    network: NetworkConfig | None,
) -> None:
    recipe = short.model_copy(update={"network": network or short.network})
    run(tmp_path / "whole", recipe=recipe, hold_out=hold_out)
    with pytest.raises(Cancelled):
        run(recipe=recipe, hold_out=hold_out, report=ended_at(4, Cancelled))
    run(recipe=recipe, hold_out=hold_out, resume=True)
    names = ["log/metrics.csv", "model/model.safetensors"]
    for name in names + ["evaluation.json"] * len(hold_out):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_training_stops_when_dice_no_longer_grows(
    run: Callable[..., TrainingResult], short: Recipe, tmp_path: Path
) -> None:
    optimisation = short.optimisation.model_copy(
        update={"patience": 1, "learning_rate": 1e-12, "steps": 90}
    )
    run(recipe=short.model_copy(update={"optimisation": optimisation}))
    rows = (tmp_path / "run" / "log" / "metrics.csv").read_text().splitlines()
    assert 2 <= len(rows) - 1 < 30


@pytest.mark.parametrize(
    "changes",
    [
        {"optimiser": "sgd", "schedule": "poly", "learning_rate": 1e-3},
        {"schedule": "constant", "ema_decay": 0.0, "gradient_clip": 0.0},
        {"batch_size": "auto", "precision": "bf16", "deterministic": True},
    ],
)
def test_every_way_of_optimising_gives_a_model(
    run: Callable[..., TrainingResult], short: Recipe, changes: dict[str, object]
) -> None:
    optimisation = Optimisation.model_validate({**short.optimisation.model_dump(), **changes})
    result = run(recipe=short.model_copy(update={"optimisation": optimisation}))
    written = read_recipe(result.model.parent / "recipe.yaml").optimisation
    assert isinstance(written.batch_size, int)


def test_full_memory_says_what_to_lower(
    run: Callable[..., TrainingResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        torch.empty(10**15)

    monkeypatch.setattr("gitract.losses.SegmentationLoss.forward", full)
    with pytest.raises(InputError, match=r"batch_size \(now 6\) or optimisation.crop") as told:
        run()
    assert_one_sentence(told)


def test_a_training_starts_from_another_model(
    run: Callable[..., TrainingResult], short: Recipe, trained: SimpleNamespace, tmp_path: Path
) -> None:
    optimisation = short.optimisation.model_copy(
        update={"learning_rate": 1e-12, "steps": 1, "steps_per_epoch": 1}
    )
    recipe = short.model_copy(update={"optimisation": optimisation})
    recipe = recipe.model_copy(update={"start": str(trained.result.model)})
    result = run(recipe=recipe)
    old, new = (
        load_file(model / "model.safetensors") for model in (trained.result.model, result.model)
    )
    name = next(name for name in old if name.endswith("weight"))
    np.testing.assert_allclose(new[name], old[name], atol=1e-6)


def test_a_full_disk_keeps_the_checkpoint_that_was_there(
    run: Callable[..., TrainingResult], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    save = torch.save
    written: list[object] = []

    def sometimes_full(content: object, file: object) -> None:
        written.append(file)
        if len(written) > 2:  # last and best of the first epoch fit
            file.write(b"the beginning")  # type: ignore[attr-defined]
            raise OSError(errno.ENOSPC, "No space left on device")
        save(content, file)

    monkeypatch.setattr("gitract.engine.torch.save", sometimes_full)
    with pytest.raises(InputError, match="make room and go on with --resume") as told:
        run()
    assert_one_sentence(told)
    folder = tmp_path / "run" / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "last.ckpt"]
    monkeypatch.undo()
    (folder / ".last.ckpt.12345678.part").write_bytes(b"of a run that was killed")
    assert run(resume=True).model.is_dir()
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "last.ckpt"]


def test_nobody_is_held_out_whom_the_start_has_seen(
    run: Callable[..., TrainingResult], short: Recipe, trained: SimpleNamespace
) -> None:
    recipe = short.model_copy(update={"start": str(trained.result.model)})
    with pytest.raises(InputError, match="was trained on case1, who is held out here") as told:
        run(recipe=recipe, hold_out=["case1"])
    assert_one_sentence(told)
    again = run(recipe=recipe, hold_out=["case3"])
    assert read_model_config(again.model).trained_on == ("case1", "case2")
