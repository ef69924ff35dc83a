"""Recipes: those of the project are valid, and what is wrong with others is said."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from gitract.errors import InputError
from gitract.model_config import ModelConfig
from gitract.models.weights import build_network
from gitract.recipe import Recipe, read_recipe, recipe_file

CONFIGS = sorted((Path(__file__).parents[2] / "training" / "configs").glob("*.yaml"))
LEAST: dict[str, Any] = {
    "id": "mine",
    "title": "Mine",
    "network": {"name": "encoder_unet"},
    "sources": [{"kind": "competition", "path": "days"}],
}


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**LEAST, **changes}))
    return path


def assert_one_sentence(error: pytest.ExceptionInfo[InputError], part: str) -> None:
    text = str(error.value)
    assert part in text
    assert "\n" not in text
    assert text[-1] in ".?"
    assert not text.endswith("..")


def test_there_are_recipes() -> None:
    assert CONFIGS


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_recipes_of_the_project_are_valid(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.id == path.stem
    network = build_network(
        ModelConfig(
            id=recipe.id,
            title=recipe.title,
            network=recipe.network,
            preparation=recipe.preparation,
        )  # fmt: skip
    )
    assert sum(p.numel() for p in network.parameters()) > 0


def test_the_least_that_a_recipe_needs(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path))
    assert recipe.sources[0].weight == 1.0
    assert recipe.preparation.channels == 3


def test_a_recipe_comes_back_from_what_a_run_writes(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, optimisation={"steps": 400}, start="there.safetensors"))
    assert recipe.start == str((tmp_path / "there.safetensors").resolve())
    path = tmp_path / "again.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    assert read_recipe(path) == recipe


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"optimisation": {"lerning_rate": 1}}, "did you mean 'learning_rate'?"),
        ({"optimization": {}}, "did you mean 'optimisation'?"),
        ({"augmentation": {"nosie": 1}}, "augmentation.nosie"),
        ({"sources": [{"kind": "competition", "pth": "x"}]}, "did you mean 'path'?"),
        ({"zzzzzz": 1}, "unknown key zzzzzz."),
        ({"optimisation": {"steps": 0}}, "optimisation.steps"),
        ({"optimisation": {"crop": 100}}, "optimisation.crop"),
        ({"optimisation": {"learning_rate": -1}}, "optimisation.learning_rate"),
        ({"preparation": {"pixel_mm": 0}}, "preparation.pixel_mm"),
        ({"optimisation": {"steps": 7, "steps_per_epoch": 2}}, "no multiple"),
        ({"seed": -1}, "seed"),
        ({"losses": []}, "losses"),
        ({"losses": [{"kind": "dise"}]}, "losses.0.kind"),
        ({"losses": [{"kind": "dice", "wieght": 2}]}, "did you mean 'weight'?"),
        ({"optimisation": {"batch_size": "big"}}, "optimisation.batch_size"),
        ({"preparation": {"patch": [16, 64, 96]}}, "rows and columns"),
        ({"sources": [{"kind": "competiton"}]}, "'competition'"),
        ({"id": "a/b"}, "id"),
        ({"title": None}, "title"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    tmp_path: Path, changes: dict[str, Any], part: str
) -> None:
    with pytest.raises(InputError) as error:
        read_recipe(write(tmp_path, **changes))
    assert_one_sentence(error, part)


@pytest.mark.parametrize("content", [b"a: [1,\nb: }", b"\xff\xfe\x00", b"a: b: c", b"\t- x"])
def test_what_is_not_yaml_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_recipe(path)
    assert_one_sentence(error, "is not YAML")


@pytest.mark.parametrize("content", ["", "just words", "- 1\n- 2\n"])
def test_yaml_that_is_no_recipe_is_one_sentence(tmp_path: Path, content: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(content)
    with pytest.raises(InputError) as error:
        read_recipe(path)
    assert_one_sentence(error, "recipe.yaml")


def test_a_recipe_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        read_recipe(tmp_path / "absent.yaml")
    assert_one_sentence(error, "cannot be read")


def test_a_recipe_is_not_changed_by_accident(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path))
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 3  # type: ignore[misc]
    assert isinstance(recipe, Recipe)


def test_recipes_that_come_along_have_names(tmp_path: Path) -> None:
    for path in CONFIGS:
        assert recipe_file(path.stem).read_text() == path.read_text()
    assert recipe_file(tmp_path / "mine.yaml") == tmp_path / "mine.yaml"
    with pytest.raises(InputError, match="did you mean 'unet-light'") as error:
        recipe_file("unet-ligth")
    assert_one_sentence(error, "unet-ligth")


def test_a_recipe_can_be_given_another_name(tmp_path: Path) -> None:
    renamed = read_recipe(write(tmp_path)).renamed("our-hospital")
    assert (renamed.id, renamed.title) == ("our-hospital", "our-hospital")
    with pytest.raises(InputError) as error:
        renamed.renamed("our hospital/2")
    assert_one_sentence(error, "'our hospital/2'")
