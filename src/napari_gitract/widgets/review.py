"""Review: go through a segmentation slice by slice, see what differs, in three planes or 3-D."""

from typing import TYPE_CHECKING, Any

from napari.layers import Labels
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QPushButton

from gitract import INTENDED_USE
from napari_gitract.widgets._checks import ContourChecks
from napari_gitract.widgets._choices import LayerChoice, follow
from napari_gitract.widgets._display import Display
from napari_gitract.widgets._docking import keep_fitted, put_below_canvas
from napari_gitract.widgets._linked_views import LinkedViews
from napari_gitract.widgets._panel import Panel
from napari_gitract.widgets._parts import button_row, form, note, say, section
from napari_gitract.widgets._review import SliceReview
from napari_gitract.widgets._three_d import ThreeD

if TYPE_CHECKING:
    from napari.viewer import Viewer

__all__ = ["Review"]

NO_LABELS = "Segment a scan first, or open contours: drop their file on the viewer."
VIEWS = "Other planes"
VIEWS_SHARE = 0.35  # of the height of the window


class Review(Panel):
    """Go through the slices of a segmentation: judge, compare, look from other sides.

    Parameters
    ----------
    napari_viewer
        The viewer with the labels.
    """

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__(napari_viewer)
        self.views: LinkedViews | None = None
        self.three_d = ThreeD(self.viewer)
        self.hint = note()
        self.labels = LayerChoice(self.viewer, Labels)
        self.review = SliceReview(self.viewer, for_training=False)
        self.display = Display(self.viewer)
        self.checks = ContourChecks(self.viewer)
        self.views_button = QPushButton("Three views")
        self.views_button.setCheckable(True)
        self.views_button.setToolTip(
            "Show the coronal and sagittal planes, too. Click in one to move the others."
        )
        self.views_button.clicked.connect(self._toggle_views)
        self.three_d_button = QPushButton("3-D")
        self.three_d_button.setCheckable(True)
        self.three_d_button.setToolTip("Show the organs as surfaces; press again to go back.")
        self.three_d_button.clicked.connect(self._toggle_three_d)
        self._gone = QTimer(self)
        self._gone.setSingleShot(True)
        self._gone.timeout.connect(self._follow_labels)
        self.labels.chosen.connect(self._gone.start)
        self.review.changed.connect(self.display.refresh)
        follow(self, self.viewer.dims.events.ndisplay, self._on_ndisplay)
        self._arrange()
        self._follow_labels()

    def _arrange(self) -> None:
        fields = form()
        fields.addRow("Labels", self.labels)
        self.column.addLayout(fields)
        self.column.addWidget(self.hint)
        self.checks_section = section("Check contours", self.checks)
        for widget in (self.review, self.display):
            self.column.addWidget(widget)
        self.column.addLayout(button_row(self.views_button, self.three_d_button))
        self.column.addWidget(self.checks_section)
        self.column.addStretch(1)
        self.column.addWidget(note(INTENDED_USE, small=True))
        self.remember("checks", self.checks_section)
        self.remember("thickness", self.display.thickness)

    def _follow_labels(self) -> None:
        """Show the layer that is chosen now; what went with another one goes.

        It waits until napari has removed what it is about to: taking other layers out of the
        viewer meanwhile would upset its counting.
        """
        layer = self.labels.layer
        if layer is self.review.layer and layer is not None:
            return
        self.three_d_off()
        self.review.show_layer(layer)
        self.display.show_layer(layer)
        self.checks.show_layer(layer)
        if self.views is not None:
            self.views.show_layer(layer)
        self.update_state()

    def update_state(self) -> None:
        """Offer what there is a layer for."""
        layer = self.labels.layer
        say(self.hint, "" if layer is not None else NO_LABELS)
        for part in (self.review, self.display, self.checks_section):
            part.setVisible(layer is not None)
        stack = layer is not None and layer.ndim == 3 and not layer.multiscale
        for button in (self.views_button, self.three_d_button):
            button.setVisible(layer is not None)
            button.setEnabled(stack)

    # --- other planes ---------------------------------------------------------------------

    def _toggle_views(self, wanted: bool) -> None:
        if wanted:
            self.show_views()
        else:
            self.close_views()

    def show_views(self) -> None:
        """Dock the two planes that the viewer does not show, below the one that it shows."""
        if self.views is not None:
            return
        keep_fitted(self.viewer, self)
        self.views = LinkedViews(self.viewer)
        self.views.show_layer(self.labels.layer)
        self.views.kept_visible = self.three_d.hidden
        self.views.closed.connect(self._on_views_closed)
        self.viewer.window.add_dock_widget(self.views, name=VIEWS, area="bottom")
        self.views.closed.connect(put_below_canvas(self.views, VIEWS_SHARE))
        self.views_button.setChecked(True)

    def close_views(self) -> None:
        """Take the planes away again."""
        if self.views is not None:
            self.viewer.window.remove_dock_widget(self.views)

    def _on_views_closed(self) -> None:
        keep_fitted(self.viewer, self)
        views, self.views = self.views, None
        self.views_button.setChecked(False)
        if views is not None:
            views.deleteLater()

    # --- 3-D ------------------------------------------------------------------------------

    def _toggle_three_d(self, wanted: bool) -> None:
        if wanted:
            self.show_three_d()
        else:
            self.three_d_off()

    def show_three_d(self) -> None:
        """Show the organs as surfaces."""
        if self.labels.layer is not None:
            self.three_d.show(self.labels.layer)
        self._show_three_d_state()

    def three_d_off(self) -> None:
        """Show the slices again as they were."""
        self.three_d.leave()
        self._show_three_d_state()

    def _on_ndisplay(self, _event: Any = None) -> None:
        """Give back what was changed for 3-D where napari's own button ended it."""
        if self.three_d.shown and self.viewer.dims.ndisplay == 2:
            self.three_d.give_back()
            self._show_three_d_state()

    def _show_three_d_state(self) -> None:
        shown = self.three_d.shown
        self.three_d_button.setChecked(shown)
        self.display.modes.setEnabled(not shown)  # what they show are contours in slices
        if self.views is not None:
            self.views.kept_visible = self.three_d.hidden

    def closed(self) -> None:
        """Leave the viewer as it was: nobody could bring it back with the widget closed."""
        super().closed()
        self.three_d_off()
        self.close_views()
        self.display.let_go()
