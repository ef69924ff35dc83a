"""Where this user's models and settings are kept."""

import os
from pathlib import Path

import platformdirs

__all__ = ["default_home"]


def default_home() -> Path:
    """``GITRACT_HOME``, else the user's data folder."""
    chosen = os.environ.get("GITRACT_HOME")
    return Path(chosen) if chosen else Path(platformdirs.user_data_dir("napari-gitract"))
