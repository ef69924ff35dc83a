"""Installed models and their versions: one that ships, and those that the user made.

A version is a model folder. It is written under a hidden name beside its place and
renamed into it; which version is active is one small file, written last, so that a crash
at any moment leaves the old version active and whole. One that is deleted is renamed to a
hidden name first. Nothing here loads torch.
"""

import json
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gitract.errors import InputError
from gitract.home import default_home
from gitract.model_config import CARD_FILE, CONFIG_FILE, read_model_config
from gitract.model_folder import ModelSource, folder_bytes, megabytes, pack_model
from gitract.organs import Organ
from gitract.progress import Report, silent
from gitract.replacing import temporary_beside, written_beside

__all__ = ["ModelInfo", "ModelStore"]

_SHIPPED = Path(__file__).parent / "default_model"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_FORMAT = 1  # of the pointer
_PART, _DELETED = ".part", ".deleted"
_ABANDONED_AFTER_S = 24 * 3600.0


@dataclass(frozen=True)
class ModelInfo:
    """One installed version of a model.

    Parameters
    ----------
    id
        Unique in the store; what ``--model`` takes.
    title
        For people.
    created
        ISO 8601, UTC.
    parent
        The version that it was fine-tuned from.
    organs
        What it outlines.
    path
        Its folder.
    shipped
        Whether it came with the package.
    dice
        Held-out Dice by organ name, as its card explains.
    """

    id: str
    title: str
    created: str
    parent: str | None
    organs: tuple[Organ, ...]
    path: Path
    shipped: bool
    dice: dict[str, float]

    @classmethod
    def of_folder(cls, folder: Path) -> "ModelInfo":
        """Read what a model folder says of itself.

        Raises
        ------
        InputError
            It is not a model folder, or one of a newer version.
        """
        config = read_model_config(folder)
        return cls(
            id=config.id,
            title=config.title,
            created=config.created,
            parent=config.parent,
            organs=config.organs,
            path=folder,
            shipped=folder == _SHIPPED,
            dice=dict(config.dice),
        )

    @property
    def card(self) -> str:
        """The model card, Markdown; empty where there is none."""
        path = self.path / CARD_FILE
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    @property
    def size(self) -> int:
        """What it takes on the disk, in bytes."""
        return folder_bytes(self.path)


class ModelStore:
    """The models of one user.

    Parameters
    ----------
    home
        Where they are kept; `default_home` when not given. Created when needed.
    """

    def __init__(self, home: Path | None = None) -> None:
        self.home = home or default_home()
        self._models = self.home / "models"
        self._pointer = self.home / "active.json"

    def models(self) -> list[ModelInfo]:
        """Every version, the shipped one first, then from old to new.

        A damaged one is left out, so that the others stay of use; `find` says what is
        wrong with it.
        """
        folders = (
            [f for f in self._models.iterdir() if f.is_dir() and not f.name.startswith(".")]
            if self._models.is_dir()
            else []
        )
        own = []
        for folder in folders:
            with suppress(InputError):
                own.append(ModelInfo.of_folder(folder))
        own.sort(key=lambda info: (info.created, info.id))
        return [ModelInfo.of_folder(_SHIPPED), *own]

    def find(self, model: str | Path | None = None) -> ModelInfo:
        """The version called `model`; a folder's path; None for the active one.

        Raises
        ------
        InputError
            There is no such version.
        """
        if model is None:
            return self.active()
        if isinstance(model, str) and _ID.fullmatch(model):
            for info in self.models():
                if info.id == model:
                    return info
            if (self._models / model).is_dir():
                return ModelInfo.of_folder(self._models / model)  # damaged: says how
        if Path(model).is_dir():
            return ModelInfo.of_folder(Path(model))
        known = ", ".join(info.id for info in self.models())
        raise InputError(
            f"There is no model {str(model)!r}: installed are {known}, or give a model folder."
        )

    def active(self) -> ModelInfo:
        """The version that is used when none is named; the shipped one at first."""
        known = {info.id: info for info in self.models()}
        for name in reversed(self._history()):
            if name in known:
                return known[name]
        return ModelInfo.of_folder(_SHIPPED)

    def activate(self, model: str) -> ModelInfo:
        """Make an installed version the active one; `restore` goes back.

        Raises
        ------
        InputError
            There is no such version in the store, or the store cannot be written.
        """
        known = {info.id: info for info in self.models()}
        if model not in known:
            raise InputError(f"There is no model {model!r}: installed are {', '.join(known)}.")
        before = self.active().id
        if model != before:
            self._write_history([*self._history()[-50:], before, model])
        return known[model]

    def previous(self) -> ModelInfo | None:
        """The version that `restore` goes back to; None where there is none."""
        history = self._history_before()
        return self.find(history[-1]) if history else None

    def restore(self) -> ModelInfo:
        """Make the version active that was active before the present one.

        Raises
        ------
        InputError
            No other version was active before.
        """
        history = self._history_before()
        if not history:
            present = self.active().id
            raise InputError(f"No version was active before {present}: nothing to restore.")
        self._write_history(history)
        return self.active()

    def add(self, model: str, write: Callable[[Path], object]) -> ModelInfo:
        """Add a version; it is not active yet.

        Parameters
        ----------
        model
            Its id, as in its configuration.
        write
            Fills the new model folder whose path it is given; the folder does not exist.

        Raises
        ------
        InputError
            The id is taken or not usable, or the store cannot be written. Whatever
            fails, the store stays as it was.
        """
        self.check_id(model)
        target = self._models / model
        self._sweep()
        try:
            self._models.mkdir(parents=True, exist_ok=True)
            with _renamed_into_place(target) as partial:
                write(partial)
        except OSError as error:
            if target.exists():  # another process was quicker
                raise _taken(model) from error
            raise InputError(
                f"The model could not be saved in {self._models}: {error.strerror or error}; "
                "make room or set GITRACT_HOME to another folder."
            ) from error
        return ModelInfo.of_folder(target)

    def check_id(self, model: str) -> None:
        """Refuse an id that a new version cannot have; `free_id` makes one of it that can.

        Raises
        ------
        InputError
            It is taken or not usable.
        """
        if not _ID.fullmatch(model):
            raise InputError(
                f"{model!r} cannot name a model: use letters, digits, dots, dashes, underscores."
            )
        if model == ModelInfo.of_folder(_SHIPPED).id or (self._models / model).exists():
            raise _taken(model)

    def import_model(
        self, path: Path, report: Report = silent, *, name: str | None = None
    ) -> ModelInfo:
        """Copy a model folder, or a zip archive of one, into the store; it is not active yet.

        Parameters
        ----------
        path
            The folder or the archive.
        report
            Called for each megabyte; cancelled, the store stays as it was.
        name
            Its id in this store; the one that it has when not given. Models of one recipe
            have the same.

        Raises
        ------
        InputError
            It is neither, or its id is taken or not usable.
        """
        with ModelSource.opened(path) as source:
            model = name or source.config.id

            def write(target: Path) -> None:
                source.copy(target, report)
                if model != source.config.id:
                    _rename_model(target, model)

            return self.add(model, write)

    def export(self, model: str, path: Path) -> Path:
        """Copy a version to a new folder, or to a new archive where `path` ends with ``.zip``.

        Raises
        ------
        InputError
            There is no such version, or `path` exists or cannot be written.
        """
        info = self.find(model)
        if path.exists():
            raise InputError(f"{path} exists already: choose a new name.")
        try:
            with _renamed_into_place(path) as partial:
                if path.suffix.lower() == ".zip":
                    path.parent.mkdir(parents=True, exist_ok=True)
                    pack_model(info.path, partial)
                else:
                    with ModelSource.opened(info.path) as source:
                        source.copy(partial)
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror}.") from error
        return path

    def descendants(self, model: str) -> list[ModelInfo]:
        """The versions that were fine-tuned from `model`, or from one that was; old to new."""
        versions = self.models()
        line, found = {model}, set[str]()
        while line:
            line = {info.id for info in versions if info.parent in line} - found - {model}
            found |= line
        return [info for info in versions if info.id in found]

    def deletion_question(self, model: str) -> str:
        """What to ask before `delete`.

        Raises
        ------
        InputError
            As of `delete`.
        """
        folder = self._deletable(model)
        question = f"Delete {model} ({megabytes(folder_bytes(folder))}) for good?"
        below = [info.id for info in self.descendants(model)]
        if not below:
            return question
        return f"{question} What was fine-tuned from it stays: {', '.join(below)}."

    def delete(self, model: str) -> list[ModelInfo]:
        """Delete a version for good; a damaged one, too.

        It vanishes at once or not at all. What a crash leaves of it is hidden, and removed by
        the next call that writes.

        Returns
        -------
        list of ModelInfo
            Its `descendants`. They stay, and name it as their parent.

        Raises
        ------
        InputError
            There is no such version, it is the active one or the one that ships, or it cannot
            be deleted.
        """
        folder = self._deletable(model)
        below = self.descendants(model)
        aside = folder.with_name(f".{model}.{uuid.uuid4().hex[:8]}{_DELETED}")
        try:
            folder.rename(aside)
        except OSError as error:
            raise InputError(
                f"The model {model} cannot be deleted ({error.strerror or error}): close other "
                f"programs that use it, or delete {folder} by hand."
            ) from error
        # Else another version that is given the same name later would count as used before.
        history = self._history()
        if model in history:
            with suppress(InputError):  # it is gone, whether or not that can be noted
                self._write_history([name for name in history if name != model])
        self._sweep()
        return below

    def _deletable(self, model: str) -> Path:
        """The folder of a version that may be deleted; raises `InputError` otherwise."""
        self._check_pointer()
        if model == ModelInfo.of_folder(_SHIPPED).id:
            raise InputError(f"{model} comes with the program: it cannot be deleted.")
        folder = self._models / model
        if not (_ID.fullmatch(model) and folder.is_dir()):
            own = ", ".join(info.id for info in self.models()[1:]) or "none"
            raise InputError(f"There is no model {model!r} to delete: of your own are {own}.")
        if model == self.active().id:
            raise InputError(f"{model} is the active model: activate another one, then delete it.")
        return folder

    def _sweep(self) -> None:
        """Remove what was deleted, and what was never finished.

        Another process may be filling a hidden folder right now, so one counts as abandoned
        only when nothing in it has changed for a day.
        """
        with suppress(OSError):
            for path in [*self._models.glob(f".*{_DELETED}"), *self._models.glob(f".*{_PART}")]:
                if path.suffix == _DELETED or _untouched_s(path) > _ABANDONED_AFTER_S:
                    shutil.rmtree(path, ignore_errors=True)
            for path in self.home.glob(f".active.*{_PART}"):
                if _untouched_s(path) > _ABANDONED_AFTER_S:
                    path.unlink()

    def free_id(self, name: str) -> str:
        """An id made of `name` that no version has: ``my-hospital``, ``my-hospital-v2``.

        Nor is it that of a deleted one which another version names as its parent.
        """
        base = re.sub(r"[^a-z0-9._]+", "-", name.lower()).strip("-._") or "model"
        base = re.sub(r"-v\d+$", "", base)
        versions = self.models()
        taken = {info.id for info in versions} | {info.parent for info in versions}
        number, candidate = 1, base
        while candidate in taken or (self._models / candidate).exists():
            number += 1
            candidate = f"{base}-v{number}"
        return candidate

    def _history(self) -> list[str]:
        """Ids that were active, oldest first; the last one is active now."""
        try:
            return [str(name) for name in self._pointed()["history"]]
        except (KeyError, TypeError):
            return []  # no pointer, or a damaged one: the shipped model is active

    def _history_before(self) -> list[str]:
        """The history up to the version before the active one; empty where none is left of it."""
        active = self.active().id
        others = {info.id for info in self.models()} - {active}
        history = self._history()
        while history and history[-1] not in others:
            history.pop()
        return history

    def _pointed(self) -> dict[str, Any]:
        """What the pointer says; nothing where there is none, or a damaged one."""
        try:
            content = json.loads(self._pointer.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def _check_pointer(self) -> None:
        """Raise `InputError` where a newer version wrote what is active."""
        written = self._pointed().get("format")
        if isinstance(written, int) and written > _FORMAT:
            raise InputError(
                f"{self._pointer} was written by a newer version, which chose the active model: "
                "update napari-gitract to choose another."
            )

    def _write_history(self, history: list[str]) -> None:
        self._check_pointer()
        tidy = [name for i, name in enumerate(history) if i == 0 or name != history[i - 1]]
        text = json.dumps({"format": _FORMAT, "history": tidy}, indent=2)
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            with written_beside(self._pointer) as partial:
                partial.write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"The active model could not be noted in {self.home}: {error.strerror}."
            ) from error


@contextmanager
def _renamed_into_place(path: Path) -> Iterator[Path]:
    """Give a hidden name for a new file or folder; rename it when all went well, else remove it."""
    partial = temporary_beside(path)
    try:
        yield partial
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        with suppress(OSError):
            partial.unlink()


def _untouched_s(path: Path) -> float:
    """Seconds since anything of a file or a folder changed."""
    changed = [entry.stat().st_mtime for entry in (path, *path.glob("*"))]
    return time.time() - max(changed)


def _taken(model: str) -> InputError:
    return InputError(f"There is a model {model!r} already: choose another name.")


def _rename_model(folder: Path, name: str) -> None:
    """Give a model folder another id."""
    config = read_model_config(folder).model_copy(update={"id": name})
    text = config.model_dump_json(indent=2) + "\n"
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")
