"""The plugin's few settings, and what was chosen in its widgets: both kept between starts.

From napari 0.9 on the settings stand in its Preferences, and napari keeps them. Below, they are
``settings.json`` in the user's folder (`gitract.home`). What was chosen in the widgets is
``widgets.json`` there. Neither may keep anybody from work: a damaged file is put aside, and
what cannot be written is not remembered.

To read the settings napari goes through the manifests of all plugins, once: some tenths of a
second. So they are read when they are needed, and what a widget opens with is not among them.
"""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gitract.home import default_home
from gitract.replacing import written_beside
from napari_gitract.layers import usual_suffix

if TYPE_CHECKING:
    from gitract.scan import Stored

__all__ = [
    "AS_THE_SCAN",
    "CONTOUR_FORMATS",
    "DEVICE",
    "PLUGIN",
    "Settings",
    "change_settings",
    "preferred_suffix",
    "remember",
    "remembered",
    "settings",
]

PLUGIN = "napari-gitract"
DEVICE = "device"
"""What the device that was chosen last is remembered under, by all widgets."""
AS_THE_SCAN = "as the scan"
CONTOUR_FORMATS = {
    "DICOM RT Structure Set": ".rtstruct.dcm",
    "DICOM SEG": ".seg.dcm",
    "NIfTI": ".nii.gz",
    "TIFF": ".tif",
    "run lengths": ".csv",
}
"""What `Settings.contours_format` may be, beside `AS_THE_SCAN`, and the suffix that it means."""


@dataclass(frozen=True)
class Settings:
    """What a user may set once for all widgets; the manifest says the same to napari.

    Parameters
    ----------
    contours_format
        In what contours are saved unless another suffix is typed: `AS_THE_SCAN`, or one of
        `CONTOUR_FORMATS`.
    catalogue
        URL or folder of the models that can be downloaded; empty where none is known.
    """

    contours_format: str = AS_THE_SCAN
    catalogue: str = ""


def settings() -> Settings:
    """The settings as they are now; where one cannot be used, its default."""
    of_napari = _of_napari()
    if of_napari is not None:
        return Settings(**{one.name: getattr(of_napari, one.name) for one in fields(Settings)})
    stored = _read(_settings_file())
    known = {one.name for one in fields(Settings)}
    texts = {name: one for name, one in stored.items() if name in known and isinstance(one, str)}
    if texts.get("contours_format") not in CONTOUR_FORMATS:
        texts.pop("contours_format", None)
    return Settings(**texts)


def change_settings(**changed: str) -> None:
    """Set some of `Settings`, for the widgets that are opened from now on."""
    of_napari = _of_napari()
    if of_napari is None:
        _write(_settings_file(), {**asdict(settings()), **changed})
        return
    with suppress(OSError):  # napari saves at once
        for name, value in changed.items():
            setattr(of_napari, name, value)


def preferred_suffix(stored: "Stored | None") -> str:
    """The suffix to suggest for contours of a scan that was `stored` in this way."""
    return CONTOUR_FORMATS.get(settings().contours_format) or usual_suffix(stored)


def remembered(key: str) -> Any:
    """What was last kept under a name; None where nothing was."""
    return _read(_widgets_file()).get(key)


def remember(key: str, value: str | float | bool) -> None:
    """Keep a value for the next start. Other processes' values stay as they are."""
    kept = _read(_widgets_file())
    if key not in kept or kept[key] != value:
        _write(_widgets_file(), {**kept, key: value})


def _of_napari() -> Any:
    """Napari's own model of our settings; None where it has none."""
    try:
        from napari.settings import get_plugin_settings
    except ImportError:  # below 0.9
        return None
    try:
        return get_plugin_settings(PLUGIN).general
    except (KeyError, AttributeError):  # napari knows no plugin of this name, or an older one
        return None


def _settings_file() -> Path:
    return default_home() / "settings.json"


def _widgets_file() -> Path:
    return default_home() / "widgets.json"


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is none. A damaged file is put aside."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        return {}
    except ValueError:  # also where it is no UTF-8
        content = None
    if isinstance(content, dict):
        return content
    with suppress(OSError):
        path.replace(path.with_name(f"{path.name}.damaged"))
    return {}


def _write(path: Path, content: dict[str, Any]) -> None:
    """Write beside and rename, so that another process never reads half a file."""
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_beside(path) as beside:
            beside.write_text(text + "\n", encoding="utf-8")
