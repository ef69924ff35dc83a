"""Edits of Labels layers are kept on disk while they are made, for the case of a crash.

Each viewer has an `Autosaver`. Every event of a layer says "look again"; once it has been
quiet for a moment, and every few seconds while somebody draws on, digests tell which slices
changed since they were last safe. Looking goes in pieces of some milliseconds between which
the window works; changed slices are copied, and written on a thread of their own.

A layer is safe as it was added, saved or kept. So opening a file keeps nothing, nor does a
prediction; what a layer takes in while it cannot be edited is the program's. Saving with one
of our writers ends the keeping, and so does undoing all that was done since. Removing a layer
does not: what was not saved is offered at the next start (`widgets._recovery`). Bringing back
too much can be put right, losing cannot.

What may be kept is what may be saved as contours: a stack with a known voxel size, and
values up to 255.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple
from weakref import WeakKeyDictionary, WeakSet, finalize, ref

import numpy as np
import numpy.typing as npt
from napari.layers import Labels, Layer
from qtpy.QtCore import QCoreApplication, QObject, QTimer, Signal

from gitract.autosave import About, UnsavedEdits
from gitract.baseline import slice_digest, slice_digests
from gitract.errors import InputError
from gitract.home import default_home
from napari_gitract._writer import writer_events
from napari_gitract.jobs import tell_error
from napari_gitract.layers import origin_for, origin_of
from napari_gitract.workspace import Workspace, unproxied

if TYPE_CHECKING:
    from napari.components import ViewerModel

__all__ = ["Autosaver", "Snapshot"]

QUIET_MS, LONGEST_MS = 1500, 5000
PIECE_S, PAUSE_MS = 0.004, 10
_NEVER = ""
"""The digest of a slice that is not safe."""
_ENDED = object()


class Snapshot(NamedTuple):
    """A layer at one moment: its labels, and the organ table and decisions in its `Origin`."""

    labels: npt.NDArray[np.uint8]
    noted: tuple[Any, ...]


@dataclass(eq=False)
class _Safe:
    """What of a layer is safe.

    Parameters
    ----------
    snapshot
        The layer as it was last safe as a whole; its digests are being computed. None where
        they are known, or where the layer is the program's.
    digests
        Of each slice as it is safe. Another list whenever the whole layer is made safe.
    shape
        Of the labels.
    noted
        As in `Snapshot`.
    original
        Digests and `noted` of when the layer was last safe without being kept.
    whole
        Whether `edits` holds the whole image, or soon will.
    edits
        The folder. Only the writing thread sets it.
    """

    snapshot: Snapshot | None = None
    digests: list[str] | None = None
    shape: tuple[int, ...] = ()
    noted: tuple[Any, ...] = ()
    original: tuple[list[str], tuple[Any, ...]] | None = None
    whole: bool = False
    edits: UnsavedEdits | None = None


class Autosaver(QObject):
    """Keeps the edits of one viewer's Labels layers.

    Use `Autosaver.of`, which gives every widget of a viewer the same one.
    """

    _done = Signal(object)
    _all: ClassVar["WeakKeyDictionary[ViewerModel, Autosaver]"] = WeakKeyDictionary()

    def __init__(self, viewer: "ViewerModel") -> None:
        # Belonging to the application, the timers are never destroyed by whichever thread
        # happens to collect garbage.
        application = QCoreApplication.instance()
        super().__init__(application)
        self._viewer = ref(viewer)
        self._safe: WeakKeyDictionary[Labels, _Safe] = WeakKeyDictionary()
        self._due: WeakSet[Labels] = WeakSet()
        self._walks: deque[Iterator[None]] = deque()
        self._writes: set[Future[None]] = set()
        self._told = False
        self._quiet = self._timer(QUIET_MS, self.look)
        self._longest = self._timer(LONGEST_MS, self.look)
        self._pieces = QTimer(self)
        self._pieces.setInterval(PAUSE_MS)
        self._pieces.timeout.connect(self._walk_on)
        self._done.connect(self._settle)
        for layer in viewer.layers:
            self._watch(layer)
        viewer.layers.events.inserted.connect(self._on_inserted)
        viewer.layers.events.removed.connect(self._on_removed)
        Workspace.of(viewer).labels_touched.connect(self._on_touched)
        writer_events.saved.connect(self._on_written)
        if application is not None:
            application.aboutToQuit.connect(self.flush)
        finalize(viewer, self.deleteLater).atexit = False

    @classmethod
    def of(cls, viewer: "ViewerModel") -> "Autosaver":
        """The autosaver of `viewer`, made at the first call; layers are safe as they are then."""
        viewer = unproxied(viewer)
        if viewer not in cls._all:
            cls._all[viewer] = cls(viewer)
        return cls._all[viewer]

    # --- for those who save and restore -------------------------------------------------

    def snapshot(self, layer: Labels) -> Snapshot:
        """The layer as it is now, for `saved` once it is written."""
        return Snapshot(np.array(layer.data, dtype=np.uint8), _noted(layer))

    def saved(self, layer: Labels, written: Snapshot | None = None) -> None:
        """The user saved the layer: what was kept of it is forgotten.

        Parameters
        ----------
        layer
            Of this viewer, or not.
        written
            What was saved, where writing took a while; edits since then are kept anew.
        """
        safe = self._safe.get(layer)
        if safe is None:
            return
        self._make_safe(layer, safe, written)
        if safe.whole:
            safe.whole = False
            self._write(safe, partial(_forget, safe))
        if written is not None:
            self._on_touched(layer)

    def adopt(self, layer: Labels, edits: UnsavedEdits, damaged: Iterable[int] = ()) -> None:
        """Go on keeping a layer that was just restored, in the folder that it comes from.

        Parameters
        ----------
        layer
            In the viewer already.
        edits
            What it was restored from.
        damaged
            Slices whose files are of no use: they are written again.
        """
        digests = slice_digests(layer.data)
        for index in damaged:
            digests[index] = _NEVER
        self._safe[layer] = _Safe(
            digests=digests,
            shape=layer.data.shape,
            noted=_noted(layer),
            whole=True,
            edits=edits,
        )
        self._on_touched(layer)

    def look(self) -> None:
        """Look at what was touched, in pieces, and have what changed written."""
        self._quiet.stop()
        self._longest.stop()
        for layer in tuple(self._due):
            self._walks.append(self._keep_changes(layer))
        self._due.clear()
        self._pieces.start()

    def flush(self) -> None:
        """Look at what was touched, and return when it is on disk."""
        self.look()
        self._walk_on(seconds=None)
        for write in tuple(self._writes):
            with suppress(Exception):  # told by `_settle`
                write.result()

    # --- which layers, and when ---------------------------------------------------------

    def _timer(self, interval: int, slot: Callable[[], None]) -> QTimer:
        timer = QTimer(self)
        timer.setSingleShot(True)
        timer.setInterval(interval)
        timer.timeout.connect(slot)
        return timer

    def _watch(self, layer: Layer) -> None:
        if not isinstance(layer, Labels) or layer in self._safe or not _is_stack(layer):
            return
        self._safe[layer] = _Safe()
        layer.events.editable.connect(self._on_editable)
        self._on_editable_changed(layer)

    def _on_inserted(self, event: Any) -> None:
        self._watch(event.value)

    def _on_removed(self, event: Any) -> None:
        """Keep the last edits of a layer that goes, also when the viewer is closed."""
        if event.value in self._due or self._walks:
            self.look()
            self._walk_on(seconds=None)

    def _on_editable(self, event: Any) -> None:
        self._on_editable_changed(event.source)

    def _on_editable_changed(self, layer: Labels) -> None:
        """What a layer holds that was just given to the user is safe."""
        safe = self._safe[layer]
        if safe.whole:
            return
        if layer.editable:
            self._make_safe(layer, safe)
        else:
            safe.snapshot = safe.digests = None

    def _on_touched(self, layer: Labels) -> None:
        if layer not in self._safe or not layer.editable:
            return
        self._due.add(layer)
        self._quiet.start()
        if not self._longest.isActive():
            self._longest.start()

    def _on_written(self, labels: np.ndarray) -> None:
        for layer in tuple(self._safe):
            if layer.data is labels:
                self.saved(layer)

    # --- looking, in pieces -------------------------------------------------------------

    def _walk_on(self, seconds: float | None = PIECE_S) -> None:
        """Look on for that long; None: to the end."""
        until = None if seconds is None else perf_counter() + seconds
        while self._walks and (until is None or perf_counter() < until):
            if next(self._walks[0], _ENDED) is _ENDED:
                self._walks.popleft()
        if not self._walks:
            self._pieces.stop()

    def _make_safe(self, layer: Labels, safe: _Safe, snapshot: Snapshot | None = None) -> None:
        """Take the layer as it is, or as it was, for safe; copied, for it may change at once."""
        safe.snapshot = snapshot or self.snapshot(layer)
        safe.shape = safe.snapshot.labels.shape
        safe.digests = None
        self._walks.append(self._take_digests(safe, safe.snapshot))
        self._pieces.start()

    def _take_digests(self, safe: _Safe, snapshot: Snapshot) -> Iterator[None]:
        digests = []
        for plane in snapshot.labels:
            digests.append(slice_digest(plane))
            yield
        if safe.snapshot is snapshot:  # and not made safe again meanwhile
            safe.snapshot, safe.digests, safe.noted = None, digests, snapshot.noted
            safe.original = (digests.copy(), snapshot.noted)

    def _keep_changes(self, layer: Labels) -> Iterator[None]:
        """Find the slices that are not safe, copy them, and have them written."""
        safe, labels = self._safe[layer], layer.data
        if labels.shape != safe.shape:
            safe.whole = False  # what was kept of another image stays, to be offered
            self._make_safe(layer, safe)
            return
        digests = safe.digests
        if digests is None:
            return
        changed = {}
        for index, plane in enumerate(labels):
            digest = slice_digest(plane)
            if digest != digests[index]:
                changed[index] = (digest, np.array(plane))
            yield
        if safe.digests is not digests or not (changed or safe.noted != _noted(layer)):
            return
        if not safe.whole:
            for index, plane in enumerate(labels):
                if index not in changed:  # it may have by now
                    changed[index] = (slice_digest(plane), np.array(plane))
                yield
        if safe.digests is digests:
            self._keep(layer, safe, changed)

    # --- writing, elsewhere -------------------------------------------------------------

    def _keep(self, layer: Labels, safe: _Safe, changed: dict[int, tuple[str, np.ndarray]]) -> None:
        about = self._about(layer)
        if about is None or any(not _fits(plane) for _, plane in changed.values()):
            return
        digests = safe.digests or []
        slices = {
            index: plane.astype(np.uint8, copy=False) for index, (_, plane) in changed.items()
        }
        for index, (digest, _) in changed.items():
            digests[index] = digest
        safe.noted = _noted(layer)
        if (digests, safe.noted) == safe.original:
            safe.whole = False
            self._write(safe, partial(_forget, safe))
            return
        write = _save if safe.whole else _begin
        safe.whole = True
        self._write(safe, partial(write, safe, slices, about, default_home()), (*slices,))

    def _about(self, layer: Labels) -> About | None:
        """What the layer is; None where it cannot be told, or where the layer was cropped."""
        viewer = self._viewer()
        try:
            origin = origin_for(layer, () if viewer is None else viewer.layers)
        except InputError:
            return None
        if tuple(layer.data.shape) != origin.shape:
            return None
        return About(
            name=origin.name,
            title=layer.name,
            shape=origin.shape,
            spacing=origin.spacing,
            affine=tuple(map(tuple, origin.affine.tolist())),
            organs=origin.organs,
            provenance=dict(origin.provenance),
            source=origin.source,
            slice_numbers=origin.slice_numbers,
            stored=origin.stored,
            remarks=origin.remarks,
        )

    def _write(self, safe: _Safe, work: Callable[[], None], slices: tuple[int, ...] = ()) -> None:
        write = _writing_thread().submit(work)
        self._writes.add(write)
        outcome = _Outcome(write, safe, safe.digests, slices)

        def tell(_: Future[None]) -> None:
            with suppress(RuntimeError):  # where Qt has destroyed us meanwhile
                self._done.emit(outcome)

        write.add_done_callback(tell)

    def _settle(self, outcome: "_Outcome") -> None:
        """Learn what is not safe after all, and say so once."""
        self._writes.discard(outcome.write)
        error = outcome.write.exception()
        if error is None:
            self._told = False
            return
        safe = outcome.safe
        if outcome.digests is not None and safe.digests is outcome.digests:
            for index in outcome.slices:
                outcome.digests[index] = _NEVER
            safe.noted = ()
            safe.whole = safe.edits is not None
        if isinstance(error, _TakenOver):
            self._begin_again(safe)
        elif not self._told and isinstance(error, Exception):
            self._told = True
            tell_error(error)

    def _begin_again(self, safe: _Safe) -> None:
        for layer, known in tuple(self._safe.items()):
            if known is safe:
                self._on_touched(layer)


class _Outcome(NamedTuple):
    """A write, and what it was to make safe."""

    write: "Future[None]"
    safe: _Safe
    digests: list[str] | None
    slices: tuple[int, ...]


class _TakenOver(Exception):  # noqa: N818 - no error: the layer is kept anew
    """Another process restored or deleted what was kept, not knowing that this one lives."""


@cache
def _writing_thread() -> ThreadPoolExecutor:
    """One thread, so that writes come in order; Python ends only when all are done."""
    return ThreadPoolExecutor(1, thread_name_prefix="gitract-autosave")


_Slices = Mapping[int, npt.NDArray[np.uint8]]


def _begin(safe: _Safe, slices: _Slices, about: About, home: Path) -> None:
    labels = np.stack([slices[index] for index in range(len(slices))])
    safe.edits = None
    safe.edits = UnsavedEdits.begin(about, labels, home)


def _save(safe: _Safe, slices: _Slices, about: About, _home: Path) -> None:
    if safe.edits is None:
        raise InputError(f"The edits of {about.name} are not kept against a crash.")
    try:
        safe.edits.save(slices, about)
    except InputError as error:
        if safe.edits.exists:
            raise
        safe.edits = None
        raise _TakenOver from error


def _forget(safe: _Safe) -> None:
    edits, safe.edits = safe.edits, None
    if edits is not None:
        edits.forget()


def _noted(layer: Labels) -> tuple[Any, ...]:
    """What a user says of a layer other than by painting: its organs, and what was reviewed."""
    origin = origin_of(layer.metadata)
    return () if origin is None else (origin.organs, dict(origin.provenance))


def _is_stack(layer: Labels) -> bool:
    return not layer.multiscale and layer.ndim == 3 and isinstance(layer.data, np.ndarray)


def _fits(plane: np.ndarray) -> bool:
    return plane.dtype == np.uint8 or (plane.min() >= 0 and plane.max() <= np.iinfo(np.uint8).max)
