"""The offer to bring back edits that were never saved, at the top of every widget.

All widgets of all viewers show the same offers: what one restores is gone from the others.
"""

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from napari.layers import Image, Labels, Layer
from napari.utils.notifications import show_warning
from psygnal import Signal
from qtpy.QtWidgets import QFrame, QPushButton, QVBoxLayout, QWidget

from gitract.autosave import About, Found, unsaved_edits
from gitract.organs import IGNORE, Organ
from gitract.progress import Progress, Report
from gitract.scan import Segmentation
from napari_gitract.autosaving import Autosaver
from napari_gitract.jobs import Job, errors_shown
from napari_gitract.layers import (
    METADATA_KEY,
    UNKNOWN_ORGAN_COLOR,
    origin_of,
    segmentation_to_layer,
)
from napari_gitract.widgets._choices import follow
from napari_gitract.widgets._parts import button_row, note

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari.components import ViewerModel
    from napari.viewer import Viewer

__all__ = ["Contours", "Leftovers", "Recovery", "add_contours", "contours_of", "leftovers"]

_RESTORED = " (restored)"
_STYLE = "QFrame#recovery { border: 1px solid #d9a03f; border-radius: 4px; margin: 6px 6px 0px; }"


class Leftovers:
    """What earlier processes left unsaved, as long as the user has not decided about it."""

    changed = Signal()

    def __init__(self) -> None:
        self.offered: list[Found] = []
        self.unreadable: list[str] = []
        self.deleted: Found | None = None
        self._postponed: set[str] = set()

    def look(self) -> None:
        """List the folder again."""
        found, left_out = unsaved_edits()
        self.offered = [one for one in found if one.folder.name not in self._postponed]
        self.unreadable = [sentence for sentence in left_out if sentence not in self._postponed]
        self.changed.emit()

    def postpone(self) -> None:
        """Do not offer the first one again before the next start; nothing happens to it."""
        if self.deleted is not None:
            self.deleted = None
        elif self.offered:
            self._postponed.add(self.offered[0].folder.name)
        else:
            self._postponed.update(self.unreadable)
        self.look()

    def delete(self) -> None:
        """Delete the first one; `undelete` brings it back.

        Raises
        ------
        InputError
            It cannot be deleted.
        """
        first = self.offered[0]
        try:
            first.delete()
            self.deleted = first
        finally:
            self.look()

    def undelete(self) -> None:
        """Bring back what was deleted last.

        Raises
        ------
        InputError
            It is gone.
        """
        last, self.deleted = self.deleted, None
        try:
            if last is not None:
                last.undelete()
        finally:
            self.look()


leftovers = Leftovers()


class Contours(NamedTuple):
    """Edits that were read, ready to be shown.

    `damaged` are the slices whose last edits could not be read.
    """

    segmentation: Segmentation
    labels: npt.NDArray[np.uint8]
    damaged: tuple[int, ...]


def contours_of(found: Found) -> Contours:
    """Read the edits. For a thread of its own: some tenths of a second.

    Raises
    ------
    InputError
        They are gone or damaged.
    """
    about, (labels, damaged) = found.about, found.read()
    segmentation = Segmentation.of_labels(
        labels,
        spacing=about.spacing,
        affine=np.array(about.affine),
        organs=_organs_of(labels, about),
        name=about.name,
        slice_numbers=about.slice_numbers,
        provenance=about.provenance,
        stored=about.stored,
    )
    return Contours(replace(segmentation, remarks=about.remarks), labels, damaged)


def _organs_of(labels: npt.NDArray[np.uint8], about: About) -> tuple[Organ, ...]:
    """The table, with a name for each value that it lacks: without one nothing can be saved."""
    known = {0, *(organ.id for organ in about.organs)}
    others = [int(value) for value in np.unique(labels) if value not in known]
    named = [
        IGNORE if value == IGNORE.id else Organ(value, f"label_{value}", UNKNOWN_ORGAN_COLOR)
        for value in others
    ]
    return (*about.organs, *named)


def add_contours(viewer: "ViewerModel", found: Found, contours: Contours) -> Labels:
    """Show edits that were read as a layer, which is kept in their folder from now on.

    Parameters
    ----------
    viewer
        Where the scan may be open: the layer then lies on it, moved as it may be.
    found, contours
        The edits, and what `contours_of` gave for them.

    Raises
    ------
    InputError
        Another process took them meanwhile; no layer is added.
    """
    edits = found.take_over()
    about = found.about
    data, attributes, _ = segmentation_to_layer(
        contours.segmentation,
        _image_of(about, viewer.layers),
        name=f"{about.title.removesuffix(_RESTORED)}{_RESTORED}",
        flat=contours.labels,
    )
    origin = attributes["metadata"][METADATA_KEY]
    source = about.source or origin.source
    attributes["metadata"] = {METADATA_KEY: replace(origin, source=source)}
    autosaver = Autosaver.of(viewer)
    layer = viewer.add_layer(Labels(data, **attributes))
    autosaver.adopt(layer, edits, contours.damaged)
    return layer


def _image_of(about: About, layers: "Iterable[Layer]") -> Image | None:
    """The layer that shows the scan of the edits, where it is open.

    The name counts, too: in the competition's data all days lie in the same place.
    """
    for layer in layers:
        origin = origin_of(layer.metadata)
        if not isinstance(layer, Image) or origin is None or origin.name != about.name:
            continue
        if origin.shape == about.shape and np.allclose(origin.affine, about.affine):
            return layer
    return None


class Recovery(QFrame):
    """Offers edits that were never saved, one after the other; hidden where there are none.

    Parameters
    ----------
    viewer
        Where they are restored.
    parent
        The widget that it stands in.
    """

    def __init__(self, viewer: "Viewer", parent: QWidget) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._job: Job | None = None
        self.setObjectName("recovery")
        self.setStyleSheet(_STYLE)
        self.text = note()
        self.restore_button = QPushButton("Restore")
        self.restore_button.setToolTip("Add them as a Labels layer; nothing else is changed.")
        self.restore_button.clicked.connect(self.restore)
        self.undo_button = QPushButton("Undo")
        self.undo_button.clicked.connect(self._undelete)
        self.later_button = QPushButton()
        self.later_button.clicked.connect(self._postpone)
        self.delete_button = QPushButton("Delete")
        self.delete_button.setToolTip("You are asked nothing, but can undo it.")
        self.delete_button.clicked.connect(self._delete)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(14, 12, 14, 6)
        layout.addWidget(self.text)
        buttons = (self.restore_button, self.undo_button, self.later_button, self.delete_button)
        layout.addLayout(button_row(*buttons))
        follow(self, leftovers.changed, self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show what is offered now."""
        offered, deleted = leftovers.offered, leftovers.deleted
        shown = deleted or (offered[0] if offered else None)
        if shown is None:
            self.text.setText("\n".join(leftovers.unreadable))
        elif deleted is not None:
            self.text.setText(f"The edits of {deleted.about.name} were deleted.")
        else:
            self.text.setText(_offer(shown, len(offered)))
        self.text.setToolTip("" if shown is None else _details(shown))
        self.restore_button.setVisible(shown is not None and deleted is None)
        self.delete_button.setVisible(shown is not None and deleted is None)
        self.undo_button.setVisible(deleted is not None)
        self.later_button.setText("Later" if shown is not None and deleted is None else "OK")
        self.later_button.setToolTip("" if deleted else "Ask again at the next start.")
        self.setVisible(bool(self.text.text()))

    def restore(self, _checked: bool = False) -> None:
        """Read the first ones off the GUI thread, and add them as a layer."""
        if not leftovers.offered or (self._job is not None and self._job.running):
            return
        found = leftovers.offered[0]

        def work(report: Report) -> Contours:
            report(Progress(0, 0, f"Reading edits of {found.about.name}"))
            return contours_of(found)

        def add(contours: Contours) -> None:
            with errors_shown():
                layer = add_contours(self._viewer, found, contours)
                self._viewer.layers.selection.active = layer
                if contours.damaged:
                    show_warning(_damage(found, contours.damaged))

        self._job = Job(f"Restoring {found.about.name}", work, parent=self)
        self._job.succeeded.connect(add)
        self._job.ended.connect(self._restored)
        self.setEnabled(False)
        self._job.start()

    def _restored(self) -> None:
        self.setEnabled(True)
        leftovers.look()

    def _postpone(self, _checked: bool = False) -> None:
        leftovers.postpone()

    def _delete(self, _checked: bool = False) -> None:
        with errors_shown():
            leftovers.delete()

    def _undelete(self, _checked: bool = False) -> None:
        with errors_shown():
            leftovers.undelete()


def _offer(found: Found, count: int) -> str:
    place = f" (1 of {count})" if count > 1 else ""
    return f"Edits of {found.about.name} from {_when(found)} were not saved{place}."


def _when(found: Found) -> str:
    """The time by the user's clock, with the day where it is not today's."""
    saved = found.kept.saved.astimezone()
    today = saved.date() == datetime.now().astimezone().date()
    return f"{saved:%H:%M}" if today else f"{saved:%Y-%m-%d %H:%M}"


def _details(found: Found) -> str:
    about, keeper = found.about, found.kept.keeper
    lines = [f"Layer {about.title}", f"Edited on {keeper.host}"]
    if about.source is not None:
        lines.append(f"Scan {about.source}")
    return "\n".join(lines)


def _damage(found: Found, damaged: tuple[int, ...]) -> str:
    slices = ", ".join(map(str, damaged))
    return (
        f"The last edits of {found.about.name} on these slices could not be read, so that they "
        f"are as they were before: {slices}."
    )
