"""The organs of a model under other names, in other colours, or fewer of them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from gitract.errors import InputError
from gitract.model_config import ModelConfig
from gitract.model_store import ModelInfo, ModelStore
from gitract.models import load_network, save_model
from gitract.models.growing import with_organs
from gitract.organs import Organ, organ_named

__all__ = ["change_organs"]

_NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")
_COLOR = re.compile(r"#[0-9a-fA-F]{6}")


def change_organs(
    model: str | Path | None = None,
    *,
    names: Mapping[str, str] | None = None,
    colors: Mapping[str, str] | None = None,
    without: Sequence[str] = (),
    name: str | None = None,
    store: ModelStore | None = None,
) -> ModelInfo:
    """Make a version with other organs the active one; `ModelStore.restore` goes back.

    Ids stay as they are, so what was saved with the old names is still understood. Organs are
    added by `gitract.fine_tune.fine_tune`.

    Parameters
    ----------
    model
        Version to start from; None for the active one.
    names, colors
        New name, and new colour ``#rrggbb``, by name of the organ.
    without
        Names of organs to leave out.
    name
        Of the new version; the old name with the next number when not given.
    store
        Where versions are; the user's when not given.

    Raises
    ------
    InputError
        There is no such model or organ, a name or colour cannot be used, no organ is left, or
        the store cannot be written.
    """
    store = store or ModelStore()
    parent = store.find(model)
    network, config = load_network(parent.path)
    names, colors = names or {}, colors or {}
    for called in (*names, *colors, *without):
        organ_named(called, config.organs)
    kept = [organ for organ in config.organs if organ.name not in without]
    if not kept:
        raise InputError(f"{parent.id} would outline nothing any more: keep one organ at least.")
    changed = [_changed(organ, names, colors) for organ in kept]
    new_names = [organ.name for organ in changed]
    for organ in changed:
        if new_names.count(organ.name) > 1:
            raise InputError(f"Two organs would be called {organ.name!r}: choose another name.")
    network, config = with_organs(network, config, changed)
    version = _version_of(config, parent, store.free_id(name or parent.id), name)
    new_name = {old.name: new.name for old, new in zip(kept, changed, strict=True)}
    dice = {new_name[organ]: value for organ, value in parent.dice.items() if organ in new_name}
    version = version.model_copy(update={"dice": dice})
    info = store.add(
        version.id, lambda folder: save_model(network, version, _card(version, parent), folder)
    )
    return store.activate(info.id)


def _changed(organ: Organ, names: Mapping[str, str], colors: Mapping[str, str]) -> Organ:
    name, color = names.get(organ.name, organ.name), colors.get(organ.name, organ.color)
    if not _NAME.fullmatch(name):
        raise InputError(
            f"An organ cannot be called {name!r}: use lower case letters, digits and underscores."
        )
    if not _COLOR.fullmatch(color):
        raise InputError(f"{color!r} is not a colour: give it as #rrggbb.")
    return replace(organ, name=name, color=color)


def _version_of(
    config: ModelConfig, parent: ModelInfo, new_id: str, name: str | None
) -> ModelConfig:
    told = config.model_dump(exclude={"id", "title", "parent", "created", "software",
                                      "weights_sha256"})  # fmt: skip
    return ModelConfig(**told, id=new_id, title=name or parent.title, parent=parent.id)


def _card(config: ModelConfig, parent: ModelInfo) -> str:
    organs = "\n".join(f"- {organ.id}: {organ.title}" for organ in config.organs)
    return (
        f"# {config.title}\n\n`{config.id}` is `{parent.id}` with these organs:\n\n{organs}\n\n"
        f"Nothing was trained: what it draws of them is what `{parent.id}` draws. Its card:\n\n"
        f"{parent.card}"
    )
