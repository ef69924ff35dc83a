"""Which organs the user looked at, on all slices or on one."""

from collections.abc import Iterable, Sequence

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QGridLayout, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from gitract.organs import IGNORE, Organ

__all__ = ["OrganTicks"]

_COLUMNS = 2


class OrganTicks(QWidget):
    """A box to tick for each organ, and one that says for which slices they hold.

    `ticked` is emitted when the user says which organs were not looked at, `own_ticked` when
    the user wants the slice to have ticks of its own, or not any more.
    """

    ticked = Signal(frozenset)
    own_ticked = Signal(bool)

    def __init__(self) -> None:
        super().__init__()
        self.boxes: dict[str, QCheckBox] = {}
        self.own = QCheckBox("this slice only")
        self.own.setToolTip("These ticks are for the slice that is shown; else for all others.")
        self.own.clicked.connect(self.own_ticked)
        title = QLabel("Reviewed:")
        title.setToolTip(
            "Organs that you checked on the slices that you edit or accept. The model does not "
            "learn from the others."
        )
        head = QHBoxLayout()
        head.addWidget(title)
        head.addStretch(1)
        head.addWidget(self.own)
        self._grid = QGridLayout()
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setVerticalSpacing(2)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addLayout(head)
        layout.addLayout(self._grid)

    def show_organs(self, organs: Sequence[Organ]) -> None:
        """Have one box for each of these organs."""
        titles = {organ.name: organ.title for organ in organs if organ.id != IGNORE.id}
        if list(titles) == list(self.boxes):
            return
        for box in self.boxes.values():
            self._grid.removeWidget(box)
            box.hide()  # it is deleted later, and would be drawn over the others until then
            box.deleteLater()
        self.boxes = {name: QCheckBox(title) for name, title in titles.items()}
        for place, box in enumerate(self.boxes.values()):
            box.clicked.connect(self._tell)
            self._grid.addWidget(box, *divmod(place, _COLUMNS))

    def show_unreviewed(self, names: Iterable[str], *, own: bool) -> None:
        """Tick all organs but those with these names; `own`: that is said of this slice alone."""
        unreviewed = set(names)
        for name, box in self.boxes.items():
            box.setChecked(name not in unreviewed)
        self.own.setChecked(own)

    @property
    def unreviewed(self) -> frozenset[str]:
        """Names of the organs that are not ticked."""
        return frozenset(name for name, box in self.boxes.items() if not box.isChecked())

    def _tell(self, _checked: bool = False) -> None:
        self.ticked.emit(self.unreviewed)
