"""Open the widgets of this plugin: one of them, or all that the main job needs.

A widget that is open is brought to the front, never opened again, whichever way it was opened.
"""

from typing import TYPE_CHECKING, Any

from napari.viewer import Viewer
from npe2 import plugin_manager

from napari_gitract.layers import MAP_KEY
from napari_gitract.settings import PLUGIN, remember, remembered
from napari_gitract.workspace import unproxied

if TYPE_CHECKING:
    from napari_gitract.widgets._panel import Panel

__all__ = ["WORKSPACE", "open_widget", "open_workspace"]

LOAD, SEGMENT, REVIEW, HOW_TO = "Load scan", "Segment", "Review", "How to"
WORKSPACE = (LOAD, SEGMENT, REVIEW, "Fine-tune", "Export")
"""What the workspace opens, in the order of the job; names as in the manifest."""
WIDTH = 400
"""In pixels: what the five tabs take to be read."""
_SEEN = "HowTo.shown"


def open_workspace(viewer: Viewer) -> None:
    """Open what the main job needs in tabs at the right, what is useful now in front.

    At the very first time that is the guide through it.

    Parameters
    ----------
    viewer
        Where to open them. As a command, napari gives the one in front.
    """
    from napari_gitract.widgets._docking import widen

    viewer = unproxied(viewer)
    names = [*WORKSPACE]
    if not remembered(_SEEN):
        names.append(HOW_TO)
        remember(_SEEN, True)
    for name in names:
        open_widget(viewer, name)
    front = open_widget(viewer, HOW_TO if HOW_TO in names else _useful_now(viewer))
    widen(front, WIDTH)


def open_widget(viewer: Viewer, name: str) -> "Panel":
    """Bring a widget to the front; open it first where it is not open.

    Parameters
    ----------
    viewer
        Where it is shown.
    name
        Its name in the manifest: "Segment".
    """
    from napari_gitract.widgets._docking import dock_of, tab_with_siblings
    from napari_gitract.widgets._panel import Panel

    contribution = next(
        one
        for one in plugin_manager.iter_widgets()
        if one.plugin_name == PLUGIN and one.display_name == name
    )
    kind: Any = contribution.get_callable()
    for widget in viewer.window.dock_widgets.values():
        if type(widget) is kind:
            break
    else:
        widget = kind(viewer)
        # The name that napari's own menu gives it, whose tick then shows and hides it.
        plugin = plugin_manager.get_manifest(PLUGIN).display_name
        viewer.window.add_dock_widget(widget, name=f"{name} ({plugin})", area="right")
        tab_with_siblings(widget, Panel)
    dock = dock_of(widget)
    if dock is not None:
        dock.show()
        dock.raise_()
    return widget


def _useful_now(viewer: Viewer) -> str:
    """The name of the widget that goes on from what is open."""
    from napari.layers import Image, Labels

    layers = [layer for layer in viewer.layers if MAP_KEY not in layer.metadata]
    if any(isinstance(layer, Labels) for layer in layers):
        return REVIEW
    return SEGMENT if any(isinstance(layer, Image) for layer in layers) else LOAD
