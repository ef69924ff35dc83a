"""The command line: what it writes, prints and returns."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from gitract import INTENDED_USE
from gitract.cli import parse_slices
from gitract.errors import Cancelled, InputError
from gitract.io import read_scan, read_segmentation, write_segmentation
from gitract.model_store import ModelStore
from gitract.phantom import write_day
from gitract.scan import Scan, Segmentation

Cli = Callable[..., SimpleNamespace]


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory, phantom: tuple[Scan, Segmentation]) -> Path:
    """The phantom as the competition stores a day, with its contours."""
    return write_day(tmp_path_factory.mktemp("day"), *phantom)


@pytest.fixture(scope="module")
def model(trained: SimpleNamespace) -> Path:
    return Path(trained.result.model)


@pytest.fixture
def corrected(tmp_path: Path, day: Path, model: Path, cli: Cli) -> Path:
    """A prediction in which three slices were corrected."""
    path = tmp_path / "corrected.tif"
    assert cli("segment", day, "-o", path, "--model", model, "--json").code == 0
    found = read_segmentation(path)
    labels = found.labels().array.copy()
    truth = read_scan(day)  # keeps the grid honest
    assert labels.shape == truth.shape
    for index in (2, 6, 10):
        labels[index, 20:40, 20:40] = 1 + (labels[index, 20:40, 20:40] + 1) % 3
    write_segmentation(
        Segmentation.of_labels(labels, spacing=found.spacing, provenance=found.provenance), path
    )
    return path


def assert_refused(result: SimpleNamespace, part: str) -> None:
    """Exit code 2 and one clear line."""
    assert result.code == 2, result
    assert result.out == ""
    lines = result.err.strip().splitlines()
    assert len(lines) == 1, result.err
    assert lines[0].startswith("Error: ")
    assert part in lines[0]
    assert "Traceback" not in result.err


# --- segment --------------------------------------------------------------------------------


def test_segment_writes_a_label_stack(cli: Cli, day: Path, model: Path, tmp_path: Path) -> None:
    result = cli("segment", day, "-o", tmp_path / "out.tif", "--model", model)
    assert result.code == 0, result.err
    found = read_segmentation(tmp_path / "out.tif")
    assert found.shape == (12, 64, 72)
    assert found.masks.any()
    assert found.provenance["model"] == "tiny"
    assert "Stomach" in result.out
    assert f"{found.volumes_ml['stomach']:.1f}" in result.out
    assert INTENDED_USE in result.out
    assert os.listdir(tmp_path) == ["out.tif"]


@pytest.mark.parametrize("name", ["out.csv", "out.png"])
def test_segment_writes_the_other_formats(
    cli: Cli, day: Path, model: Path, tmp_path: Path, name: str
) -> None:
    result = cli("segment", day, "-o", tmp_path / name, "--model", model, "--json")
    assert result.code == 0, result.err
    if name == "out.csv":
        rows = (tmp_path / name).read_text().splitlines()
        assert rows[0] == "id,class,segmentation"
        assert len(rows) == 1 + 12 * 3
    else:
        assert len(list((tmp_path / name).glob("*.png"))) == 12


def test_segment_of_a_tiff_with_spacing_and_slices(
    cli: Cli, phantom: tuple[Scan, Segmentation], model: Path, tmp_path: Path
) -> None:
    import tifffile

    stack = tmp_path / "scan.tif"
    tifffile.imwrite(stack, phantom[0].voxels.astype(np.float32), photometric="minisblack")
    arguments = ["segment", stack, "-o", tmp_path / "out.tif", "--model", model]
    assert_refused(cli(*arguments), "give the spacing")
    result = cli(*arguments, "--spacing", "3,2.4,2.4", "--slices", "4:6,9", "--json")
    content = json.loads(result.out)
    assert result.err == ""
    assert content["shape"] == [12, 64, 72]
    assert content["spacing_mm"] == [3.0, 2.4, 2.4]
    assert content["model"] == "tiny"
    assert content["device"]
    assert content["intended_use"] == INTENDED_USE
    found = read_segmentation(tmp_path / "out.tif")
    assert found.provenance["slices"] == [4, 5, 9]
    assert set(np.nonzero(found.masks.any(axis=(0, 2, 3)))[0]) <= {4, 5, 9}
    stomach = found.volumes_ml["stomach"]  # wins where organs overlap, so nothing is lost
    assert content["volumes_ml"]["stomach"] == pytest.approx(stomach)


def test_segment_takes_several_models_views_and_rules(
    cli: Cli, day: Path, model: Path, tmp_path: Path
) -> None:
    result = cli(
        "segment", day, "-o", tmp_path / "out.tif", "-m", model, "-m", model, "--tta", "--tidy",
        "--threshold", "stomach=0.4", "--threshold", "large_bowel=0.6", "--smallest-ml", "2",
    )  # fmt: skip
    assert result.code == 0, result.err
    provenance = read_segmentation(tmp_path / "out.tif").provenance
    assert [one["model"] for one in provenance["models"]] == ["tiny", "tiny"]
    assert provenance["views"]["scales"] == [1.0, 0.9, 1.1]
    assert provenance["decision"] == {
        "threshold": {"stomach": 0.4, "large_bowel": 0.6},
        "smallest_ml": 2.0,
        "largest_hole_mm2": 100.0,
        "one_part": ["stomach"],
    }


def test_segment_writes_how_sure_it_is(cli: Cli, day: Path, model: Path, tmp_path: Path) -> None:
    result = cli(
        "segment", day, "-o", tmp_path / "out.tif", "-m", model,
        "--probabilities", tmp_path / "likely.nii.gz", "--uncertainty", tmp_path / "unsure.tif",
    )  # fmt: skip
    assert result.code == 0, result.err
    found = read_segmentation(tmp_path / "out.tif")
    assert len(found.provenance["doubts"]) == 12
    stomach = read_scan(tmp_path / "likely_stomach.nii.gz")
    np.testing.assert_allclose(stomach.affine, read_scan(day).affine, atol=1e-4)
    assert ((stomach.voxels > 0.5) != found.masks[2]).mean() < 1e-3  # of 16 bits
    unsure = read_scan(tmp_path / "unsure.tif").voxels
    assert unsure.shape == (12, 64, 72)
    assert 0 <= unsure.min() < unsure.max() <= 1
    assert sorted(os.listdir(tmp_path)) == [
        "likely_large_bowel.nii.gz", "likely_small_bowel.nii.gz", "likely_stomach.nii.gz",
        "out.tif", "unsure.tif",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--uncertainty", "nowhere/unsure.tif"], "nowhere"),
        (["--probabilities", "likely.csv"], "likely.csv"),
        (["--threshold", "much"], "'much'"),
        (["--threshold", "0.4", "--threshold", "stomach=0.5"], "0.4"),
        (["--threshold", "liver=0.4"], "'liver'"),
        (["--threshold", "1.4"], "1.4 is no probability"),
        (["--smallest-ml", "-1"], "--smallest-ml -1"),
        (["--hysteresis", "2"], "--hysteresis 2"),
        (["--one-part", "liver"], "'liver'"),
    ],
)
def test_rules_that_cannot_be_are_refused(
    cli: Cli, day: Path, model: Path, tmp_path: Path, options: list[str], part: str
) -> None:
    assert_refused(cli("segment", day, "-o", tmp_path / "out.tif", "-m", model, *options), part)
    assert not (tmp_path / "out.tif").exists()


def test_brackets_in_names_are_no_markup(cli: Cli, day: Path, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a [red]b[" / "x"
    shutil.copytree(day, folder / day.name)
    result = cli("segment", folder / day.name, "-o", folder / "[bold]o.tif", "--model", model)
    assert result.code == 0, result.err
    assert "[red]b[/x/[bold]o.tif" in result.out
    assert_refused(cli("info", folder / "[/absent]"), "[/absent]")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--slices", "12"], "0 to 11"),
        (["--slices", "a:b"], "40:60"),
        (["--slices", "6:4"], "hold no slice"),
        (["--spacing", "3,2"], "three numbers"),
        (["--device", "gpu"], "Unknown device"),
        (["--model", "absent"], "no model 'absent'"),
        (["--modle", "x"], "--modle"),
    ],
)
def test_wrong_options_are_one_line(
    cli: Cli, day: Path, tmp_path: Path, arguments: list[str], part: str
) -> None:
    assert_refused(cli("segment", day, "-o", tmp_path / "out.tif", *arguments), part)
    assert os.listdir(tmp_path) == []


def test_wrong_paths_are_one_line(cli: Cli, day: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.tif"
    assert_refused(cli("segment", tmp_path / "absent", "-o", out), "does not exist")
    assert_refused(cli("segment", day), "output")
    assert_refused(cli("segment", day, "-o", tmp_path / "o.xyz", "--model", model), ".tif")
    (tmp_path / "file").write_text("")
    inside = tmp_path / "file" / "out.tif"
    assert_refused(cli("segment", day, "-o", inside, "--model", model), "file")
    assert sorted(os.listdir(tmp_path)) == ["file"]


@pytest.mark.parametrize("ending", [KeyboardInterrupt, Cancelled])
def test_ctrl_c_ends_with_130_and_leaves_nothing(
    cli: Cli, day: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    ending: type[BaseException],
) -> None:  # fmt: skip
    def interrupt(*_: object, **__: object) -> None:
        raise ending

    monkeypatch.setattr("gitract.looks.network_input", interrupt)
    result = cli("segment", day, "-o", tmp_path / "out.tif", "--model", model)
    assert result.code == 130
    assert result.err.strip() == "Cancelled: nothing was kept."
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "slices"),
    [("40:43", [40, 41, 42]), ("7", [7]), (" 3, 5:7 ,1", [3, 5, 6, 1]), (None, None)],
)
def test_slices_as_typed(text: str | None, slices: list[int] | None) -> None:
    assert parse_slices(text) == slices


@pytest.mark.parametrize("text", ["", "a", "1:", ":", "1,,2", "1-3", "1:2:3", "1.5", "5:5"])
def test_slices_mistyped(text: str) -> None:
    with pytest.raises(InputError, match="Slices"):
        parse_slices(text)


# --- finetune -------------------------------------------------------------------------------


def test_finetune_adopts_nothing_unless_told(
    cli: Cli, day: Path, model: Path, corrected: Path
) -> None:
    before = ModelStore().active().id
    arguments = ["finetune", day, corrected, "--model", model, "--steps", "3", "--json"]
    content = json.loads(cli(*arguments, "--accept", "never").out)
    assert content["kept"] is None
    assert content["card"]["held_out"] == [2, 6, 10]  # found by itself
    assert {row["organ"] for row in content["card"]["rows"]} == {
        "large_bowel", "small_bowel", "stomach",
    }  # fmt: skip
    assert len(ModelStore().models()) == 1
    content = json.loads(cli(*arguments, "--accept", "always", "--name", "Our clinic").out)
    assert content["kept"] == "our-clinic"
    assert ModelStore().active().id == "our-clinic"
    assert cli("models", "restore").code == 0
    assert ModelStore().active().id == before


@pytest.mark.parametrize("better", [True, False])
def test_finetune_adopts_what_is_better(
    cli: Cli, day: Path, model: Path, corrected: Path, monkeypatch: pytest.MonkeyPatch, better: bool
) -> None:
    word, sentence = ("better", "Better: yes.") if better else ("no difference", "No difference.")
    monkeypatch.setattr("gitract.fine_tune.proof.concluded", lambda *_: (word, sentence, 0.01))
    arguments = ["finetune", day, corrected, "--model", model, "--steps", "2", "--slices", "2,6"]
    result = cli(*arguments)
    assert result.code == 0, result.err
    assert sentence in result.out
    assert ("now active" in result.out) is better
    assert ("Not adopted" in result.out) is not better
    assert len(ModelStore().models()) == 1 + better


def test_finetune_refuses_in_one_line(
    cli: Cli, day: Path, model: Path, corrected: Path, tmp_path: Path
) -> None:
    arguments = ["finetune", day, corrected, "--model", model]
    assert_refused(cli(*arguments, "--accept", "maybe"), "if-better")
    assert_refused(cli(*arguments, "--slices", "5:5"), "hold no slice")
    assert_refused(cli(*arguments, "--steps", "0"), "steps")
    plain = tmp_path / "plain.tif"
    labels = read_segmentation(corrected)
    write_segmentation(Segmentation(labels.masks, labels.spacing), plain)
    assert_refused(cli("finetune", day, plain, "--model", model), "--slices")
    other = tmp_path / "other.tif"
    write_segmentation(Segmentation(labels.masks[:, :5], labels.spacing), other)
    assert_refused(cli("finetune", day, other, "--model", model, "--slices", "1,2"), "another grid")
    assert len(ModelStore().models()) == 1


# --- models ---------------------------------------------------------------------------------


def test_models_are_imported_activated_shown_exported_and_restored(
    cli: Cli, model: Path, tmp_path: Path
) -> None:
    shipped = ModelStore().active().id
    assert "tiny is installed" in cli("models", "import", model).out
    assert cli("models", "activate", "tiny").out.strip() == "tiny is active."
    rows = json.loads(cli("models", "list", "--json").out)
    assert [(row["id"], row["active"]) for row in rows] == [(shipped, False), ("tiny", True)]
    table = cli("models", "list").out
    assert "tiny" in table
    assert "active" in table
    assert "Held-out results" in cli("models", "show", "tiny").out
    shown = json.loads(cli("models", "show", "tiny", "--json").out)
    assert shown["id"] == "tiny"
    assert shown["card"].startswith("# Tiny")
    assert cli("models", "export", "tiny", tmp_path / "copy").code == 0
    assert (tmp_path / "copy" / "model.safetensors").is_file()
    assert cli("models", "restore").out.strip() == f"{shipped} is active."


def test_models_refuse_in_one_line(cli: Cli, model: Path, tmp_path: Path) -> None:
    assert_refused(cli("models", "activate", "absent"), "no model 'absent'")
    assert_refused(cli("models", "show", "absent"), "no model 'absent'")
    assert_refused(cli("models", "restore"), "nothing to restore")
    assert_refused(cli("models", "import", tmp_path), "not a model folder")
    assert_refused(cli("models", "export", "absent", tmp_path / "copy"), "absent")
    cli("models", "import", model)
    assert_refused(cli("models", "import", model), "already")
    assert_refused(cli("models", "frobnicate"), "frobnicate")


# --- the others -----------------------------------------------------------------------------


def test_info_says_what_was_understood(cli: Cli, day: Path) -> None:
    content = json.loads(cli("info", day, "--json").out)
    scan = read_scan(day)
    assert content["name"] == "case7_day0"
    assert content["shape"] == [12, 64, 72]
    assert content["spacing_mm"] == [3.0, 2.4, 2.4]
    assert content["type"] == "uint16"
    assert content["range"] == [int(scan.voxels.min()), int(scan.voxels.max())]
    assert content["reference_volumes_ml"]["stomach"] > 0
    assert "case7_day0" in cli("info", day).out


def test_train_writes_a_model_and_refuses_to_overwrite_it(
    cli: Cli, trained: SimpleNamespace, tmp_path: Path
) -> None:
    recipe = trained.recipe.model_dump(mode="json")
    recipe["optimisation"] |= {"steps": 4, "steps_per_epoch": 2}
    config = tmp_path / "recipe.yaml"
    config.write_text(yaml.safe_dump(recipe))
    output = tmp_path / "run"
    arguments = ["train", "--config", config, "--data", trained.data, "-o", output]
    arguments += ["--device", "cpu", "--hold-out", "case2", "--json"]
    result = cli(*arguments)
    assert result.code == 0, result.err
    content = json.loads(result.out)
    assert content["model"] == str(output / "model")
    assert {row["scan"] for row in content["held_out"]["scores"]} == {"case2_day0"}
    assert result.err == ""
    assert_refused(cli(*arguments), "already holds a run")
    config.write_text(yaml.safe_dump(recipe | {"sed": 3}))
    assert_refused(cli(*arguments), "did you mean 'seed'")
    blocked = [*arguments[:6], config / "x", *arguments[7:]]
    config.write_text(yaml.safe_dump(recipe))
    assert_refused(cli(*blocked), str(config))


def test_ctrl_c_in_training_says_how_to_go_on(
    cli: Cli, trained: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gitract.losses.SegmentationLoss.forward", interrupt)
    result = cli(
        "train", "--config", trained.output / "recipe.yaml", "--data", trained.data,
        "-o", tmp_path / "run", "--device", "cpu",
    )  # fmt: skip
    assert result.code == 130
    assert "resume" in result.err


def test_phantom_can_be_segmented_and_scored(cli: Cli, model: Path, tmp_path: Path) -> None:
    sizes = ["--slices", "6", "--rows", "40", "--columns", "48"]
    result = cli("phantom", tmp_path / "data", *sizes)
    assert result.code == 0, result.err
    scan = read_scan(result.out.strip())
    assert scan.shape == (6, 40, 48)
    assert cli("evaluate", "--data", tmp_path / "data", "--model", model).code == 0
    assert_refused(cli("phantom", tmp_path / "data"), "already")


@pytest.mark.parametrize("arguments", [["--help"], ["segment", "--help"], ["models", "--help"]])
def test_help_is_help(cli: Cli, arguments: list[str]) -> None:
    result = cli(*arguments)
    assert result.code == 0
    assert "Usage" in result.out
    assert result.err == ""


def test_an_unknown_command_is_one_line(cli: Cli) -> None:
    assert_refused(cli("segmnt"), "segmnt")


def test_help_and_import_load_no_torch() -> None:
    code = (
        "import sys\n"
        "import gitract\n"
        "first = set(sys.modules)\n"
        "from gitract.cli import main\n"
        "import gitract.model_store, gitract.io, gitract.devices\n"
        "sys.argv = ['gitract', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    code = end.code\n"
        "heavy = {'torch', 'lightning', 'monai', 'timm', 'scipy', 'matplotlib', 'napari', 'qtpy'}\n"
        "print('HEAVY', code, sorted(heavy & set(sys.modules)), sorted(heavy & first))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.splitlines()[-1] == "HEAVY 0 [] []"


def test_the_command_runs_as_a_program(day: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "GITRACT_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "gitract.cli", "info", str(tmp_path / "absent")],
        capture_output=True, text=True, timeout=120, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
