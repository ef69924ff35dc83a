"""The parts of the documentation that are made from the code: a hook of mkdocs.

A page says ``<!-- generated: NAME -->`` where such a part goes; it is made whenever the site
is built, and kept nowhere. Files of the repository that are worth reading and lie outside
docs/ become pages of their own.
"""

import ast
import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from os.path import normpath, relpath
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).resolve().parents[1]
PLUGIN = REPOSITORY / "src" / "napari_gitract"
MANIFEST, WIDGETS = PLUGIN / "napari.yaml", PLUGIN / "widgets"
FILES_AS_PAGES = {
    "CHANGELOG.md": "changes.md",
    "training/README.md": "how-to/training.md",
    "training/EXPERIMENTS.md": "explanation/experiments.md",
    "benchmarks/RESULTS.md": "explanation/results.md",
}
"""Path in the repository -> path in the site."""

_MARK = re.compile(r"<!-- generated: (\w+) -->")
_LINK = re.compile(r"\[(?P<text>[^][]*)\]\((?P<target>[^)\s#]*)(?P<anchor>#[^)\s]*)?\)")


# --- what mkdocs calls --------------------------------------------------------------------


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Add the files of the repository that are pages."""
    from mkdocs.structure.files import File

    for path, page in FILES_AS_PAGES.items():
        text = (REPOSITORY / path).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=linked(text, path, page)))
    return files


def on_page_markdown(markdown: str, page: "Page", config: "MkDocsConfig", files: "Files") -> str:
    """Fill in what is made from the code, and lead links out of docs/ to their pages."""
    place = page.file.src_uri
    text = _MARK.sub(lambda mark: GENERATED[mark.group(1)](), markdown)
    return text if place in FILES_AS_PAGES.values() else linked(text, f"docs/{place}", place)


def linked(text: str, source: str, page: str) -> str:
    """Text of the repository with its links as they are in the site.

    Parameters
    ----------
    text
        Markdown, whose links are right in the repository.
    source, page
        Where it is in the repository, and in the site.

    Returns
    -------
    str
        A link to a file that is no page is its text alone.
    """

    def lead(link: re.Match[str]) -> str:
        target = link["target"]
        if not target or ":" in target:
            return link[0]
        meant = PurePosixPath(normpath(PurePosixPath(source).parent / target)).as_posix()
        place = FILES_AS_PAGES.get(meant)
        if place is None and meant.startswith("docs/"):
            place = meant.removeprefix("docs/")
        if place is None:
            return link["text"]
        there = PurePosixPath(relpath(place, PurePosixPath(page).parent)).as_posix()
        return f"[{link['text']}]({there}{link['anchor'] or ''})"

    return _LINK.sub(lead, text)


# --- commands -----------------------------------------------------------------------------


def commands() -> str:
    """Every command with its arguments and options, as ``--help`` tells them."""
    return "\n\n".join(_command(name, command) for name, command in walk_commands())


def walk_commands() -> Iterator[tuple[str, Any]]:
    """Each command that does something, by the words that call it."""
    import typer.main

    from gitract.cli import app

    def walk(words: str, command: Any) -> Iterator[tuple[str, Any]]:
        if not hasattr(command, "commands"):
            yield words, command
            return
        for name, one in command.commands.items():
            yield from walk(f"{words} {name}", one)

    yield from walk("gitract", typer.main.get_command(app))


def _command(words: str, command: Any) -> str:
    context = command.make_context(words, [], resilient_parsing=True)
    usage = command.get_usage(context).removeprefix("Usage: ")
    parts = [f"## {words}", str(command.help), f"```text\n{usage}\n```"]
    told = [record for one in command.params if (record := one.get_help_record(context))]
    if told:
        rows = [(f"`{name}`", text) for name, text in told]
        parts.append(table(("argument or option", "what"), rows))
    return "\n\n".join(parts)


# --- settings and recipes -----------------------------------------------------------------


def recipe() -> str:
    """Every key of a recipe, part by part."""
    from gitract import recipe as recipes
    from gitract.model_config import NetworkConfig, Preparation

    parts: tuple[tuple[str, type[BaseModel]], ...] = (
        ("The recipe itself", recipes.Recipe),
        ("network", NetworkConfig),
        ("preparation", Preparation),
        ("sources: kind competition", recipes.CompetitionSource),
        ("sources: kind scans", recipes.ScansSource),
        ("sources: kind pairs", recipes.PairsSource),
        ("sampling", recipes.Sampling),
        ("losses", recipes.Loss),
        ("optimisation", recipes.Optimisation),
        ("augmentation", recipes.Augmentation),
    )
    return "\n\n".join(_fields(title, model) for title, model in parts)


def _fields(title: str, model: type[BaseModel]) -> str:
    summary, meanings = _docstring(model)
    schema = model.model_json_schema()
    required = schema.get("required", ())
    rows = [
        (
            f"`{name}`",
            _allowed(one),
            "needed" if name in required else _value(one.get("default")),
            meanings.get(name, ""),
        )
        for name, one in schema["properties"].items()
    ]
    return f"## {title}\n\n{summary}\n\n" + table(("key", "value", "default", "what"), rows)


def _docstring(model: type[BaseModel]) -> tuple[str, dict[str, str]]:
    """Summary of a class, and the meaning of each of its fields."""
    from griffe import Docstring, DocstringSectionParameters, DocstringSectionText

    summary: list[str] = []
    meanings: dict[str, str] = {}
    docstring = Docstring(inspect.getdoc(model) or "")
    for section in docstring.parse("numpy", warnings=False):
        if isinstance(section, DocstringSectionText):
            summary.append(section.value)
        elif isinstance(section, DocstringSectionParameters):
            meanings |= {one.name: " ".join(one.description.split()) for one in section.value}
    return "\n\n".join(summary), meanings


def _allowed(schema: dict[str, Any]) -> str:
    """What may stand for a key, in words."""
    if "anyOf" in schema:
        return ", or ".join(_allowed(one) for one in schema["anyOf"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    if "$ref" in schema or "oneOf" in schema:
        return _BELOW
    kind = schema.get("type", "")
    if kind == "array":
        inner = schema.get("items") or (schema.get("prefixItems") or [{}])[0]
        told = _allowed(inner)
        return "list, see below" if told == _BELOW else f"list of {told}"
    words = {
        "number": "number",
        "integer": "whole number",
        "string": "text",
        "boolean": "yes or no",
    }
    words |= {"object": "table", "null": "nothing", "": "anything"}
    return words[kind] + _limits(schema)


_BELOW = "see below"
_KINDS = {
    "number": "number",
    "integer": "whole number",
    "string": "text",
    "boolean": "yes or no",
    "object": "table",
    "null": "nothing",
    "": "anything",
}


def _limits(schema: dict[str, Any]) -> str:
    names = {
        "minimum": "at least", "exclusiveMinimum": "over", "maximum": "at most",
        "exclusiveMaximum": "under", "multipleOf": "a multiple of",
    }  # fmt: skip
    told = [f"{words} {schema[key]}" for key, words in names.items() if key in schema]
    return f", {', '.join(told)}" if told else ""


def _value(default: Any) -> str:
    if default is None or default == "" or default == [] or default == {}:
        return "–"
    if isinstance(default, dict) or (isinstance(default, list) and isinstance(default[0], dict)):
        return _BELOW
    return f"`{json.dumps(default)}`"


def settings() -> str:
    """What napari's preferences offer, as the manifest declares it."""
    rows = [
        (one["title"], _allowed(one), _value(one["default"]), one["description"])
        for part in _contributions()["configurations"].values()
        for one in part["properties"].values()
    ]
    return table(("setting", "value", "default", "what"), rows)


def keys() -> str:
    """The keys of the widgets, with what the methods that they call say of themselves."""
    rows = []
    for bound in _tables_of_keys():
        methods = _methods(bound)
        rows += [(f"`{key}`", methods[name]) for name, key in bound.items()]
    return table(("key", "what it does"), rows)


def _tables_of_keys() -> Iterator[dict[str, str]]:
    """Each table of method -> key, from the source: importing it would need a window system."""
    for node in ast.parse((WIDGETS / "_keys.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "").endswith("KEYS"):
            yield ast.literal_eval(node.value)


def _methods(names: Iterable[str]) -> dict[str, str]:
    """Docstrings of the widget that has all of these methods."""
    for file in sorted(WIDGETS.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                methods = {
                    one.name: ast.get_docstring(one) or ""
                    for one in node.body
                    if isinstance(one, ast.FunctionDef)
                }
                if methods.keys() >= set(names):
                    return methods
    raise LookupError(f"No widget has the methods {', '.join(names)}.")


def widgets() -> str:
    """What napari's menu shows, as the manifest declares it."""
    titles = {one["id"]: one["title"] for one in _contributions()["commands"]}
    rows = [(one["display_name"], titles[one["command"]]) for one in _contributions()["widgets"]]
    return table(("widget", "in the command palette"), rows)


def _contributions() -> Any:
    return yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))["contributions"]


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    cells = ([" ".join(cell.split()).replace("|", r"\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


GENERATED: dict[str, Callable[[], str]] = {
    one.__name__: one for one in (commands, keys, recipe, settings, widgets)
}
"""Name in a page -> what makes the part."""
