"""The documentation says what the program does: commands, keys, recipes and links are right."""

import dataclasses
import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
import typer.main

from gitract.cli import app
from gitract.recipe import Recipe
from outside import missing

REPOSITORY = Path(__file__).resolve().parents[1]
GUIDES = (
    REPOSITORY / "README.md",
    REPOSITORY / "training" / "README.md",
    *sorted((REPOSITORY / "docs").rglob("*.md")),
)
LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)")


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """The hook that makes the generated parts."""
    pytest.importorskip("griffe", reason="what the pages are made with is not installed")
    path = REPOSITORY / "scripts" / "docs_reference.py"
    spec = importlib.util.spec_from_file_location("docs_reference", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- the generated parts ------------------------------------------------------------------


def commands(one: typer.Typer, words: str = "gitract") -> Iterator[tuple[str, Any]]:
    """Each command as it was registered, by the words that call it."""
    for command in one.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__.replace("_", "-")
        yield f"{words} {name}", command
    for group in one.registered_groups:
        assert group.typer_instance is not None
        yield from commands(group.typer_instance, f"{words} {group.name}")


def test_every_command_and_option_is_in_the_reference(reference: ModuleType) -> None:
    sections = {part.partition("\n")[0]: part for part in reference.commands().split("## ") if part}
    assert sections.keys() == {words for words, _ in commands(app)}
    for words, section in sections.items():
        for parameter in command_of(words.split()[1:])[0].params:
            for option in parameter.opts:
                name = option if option.startswith("-") else (parameter.metavar or option)
                assert re.search(rf"`[^`\n]*{re.escape(name)}[ ,`]", section), (words, name)


def test_every_field_of_a_recipe_is_in_the_reference(reference: ModuleType) -> None:
    schema = Recipe.model_json_schema()
    models = {"Recipe": schema, **schema["$defs"]}
    fields = [name for one in models.values() for name in one.get("properties", ())]
    page = reference.recipe()
    # A name such as `weight` stands in several parts, and so in several rows.
    rows = {name: page.count(f"\n| `{name}` |") for name in fields}
    assert rows == {name: fields.count(name) for name in fields}
    assert "learning_rate" in rows


def test_every_key_is_in_the_reference_with_what_it_does(reference: ModuleType) -> None:
    from napari_gitract.widgets import _keys

    told = dict(re.findall(r"^\| `(.+?)` \| (.*) \|$", reference.keys(), flags=re.MULTILINE))
    assert told.keys() == {*_keys.KEYS.values(), *_keys.DISPLAY_KEYS.values()}
    assert all(told.values())


def test_every_setting_is_in_the_reference(reference: ModuleType) -> None:
    from napari_gitract.settings import Settings

    rows = [line for line in reference.settings().splitlines() if line.startswith("| ")][2:]
    assert len(rows) == len(dataclasses.fields(Settings))


# --- links --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("link", "source", "page", "expected"),
    [
        ("../metrics.md#x", "docs/how-to/a.md", "how-to/a.md", "[t](../metrics.md#x)"),
        ("../training/README.md", "docs/formats.md", "formats.md", "[t](how-to/training.md)"),
        ("../docs/a.md#x", "training/README.md", "how-to/training.md", "[t](../a.md#x)"),
        ("EXPERIMENTS.md", "training/README.md", "how-to/training.md",
         "[t](../explanation/experiments.md)"),
        ("../LICENSE", "docs/index.md", "index.md", "t"),
        ("https://napari.org", "docs/index.md", "index.md", "[t](https://napari.org)"),
        ("#below", "docs/formats.md", "formats.md", "[t](#below)"),
    ],
)  # fmt: skip
def test_links_that_leave_the_folder_lead_to_the_page_of_the_file(
    reference: ModuleType, link: str, source: str, page: str, expected: str
) -> None:
    assert reference.linked(f"[t]({link})", source, page) == expected


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere_without_the_site_as_well(page: Path) -> None:
    dead = [
        target
        for target in LINK.findall(page.read_text(encoding="utf-8"))
        if ":" not in target and not (page.parent / target).exists()
    ]
    assert not dead


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_needs_no_network(tmp_path: Path) -> None:
    for library in ("mkdocs", "material", "mkdocstrings"):
        if importlib.util.find_spec(library) is None:
            missing(f"{library} is not installed: it comes with the dependency group docs")
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    built = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    told = [line for line in built.stderr.splitlines() if not line.startswith("INFO")]
    assert built.returncode == 0, "\n".join(told)
    loads = re.compile(r"""<(?:script|img|link rel="stylesheet")[^>]*(?:src|href)="https?:""")
    assert not [page for page in site.rglob("*.html") if loads.search(page.read_text("utf-8"))]


# --- command lines ------------------------------------------------------------------------


def command_lines(page: Path) -> Iterator[str]:
    """What a page tells to type: whole lines of code blocks, and pieces of code in the text."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"^ *```(?:sh|bash)?\n(.*?)^ *```", text, flags=re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            found = re.match(r" *(?:srun )?(gitract .*)", line)
            if found:
                yield found[1]
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S)
    yield from (" ".join(one.split()) for one in re.findall(r"`(gitract [^`]+)`", prose))


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """The command that some words call, and those that are left for it."""
    command: Any = typer.main.get_command(app)
    rest = list(words)
    while rest and not rest[0].startswith("-") and hasattr(command, "commands"):
        if rest[0] not in command.commands:
            raise LookupError(f"there is no command {rest[0]}")
        command = command.commands[rest.pop(0)]
    return command, rest


def complaint(line: str) -> str | None:
    """What is wrong with a command line; None where nothing is."""
    left_out = ("…", "...", "$@")
    words = [word for word in shlex.split(line, comments=True)[1:] if word not in left_out]
    try:
        command, rest = command_of(words)
        context = command.make_context("gitract", [], resilient_parsing=True)
        _, extra, _ = command.make_parser(context).parse_args(rest)
    except Exception as error:  # noqa: BLE001 - of click, or of the copy of it in typer
        return f"{line}: {error}"
    return f"{line}: too many arguments, {extra}" if extra else None


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_command_line_that_is_told_can_be_typed(page: Path) -> None:
    assert not [wrong for line in command_lines(page) if (wrong := complaint(line))]


def test_wrong_command_lines_would_be_found() -> None:
    assert complaint("gitract segment SCAN -o out.tif  # fine") is None
    for wrong in ("gitract segmnt SCAN", "gitract segment SCAN --outpt x", "gitract info A B"):
        assert complaint(wrong)
    lines = [line for page in GUIDES for line in command_lines(page)]
    assert len(lines) > 60
