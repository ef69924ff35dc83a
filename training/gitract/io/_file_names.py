"""What files are called."""

from pathlib import Path

__all__ = ["stem_of"]

_DOUBLE_SUFFIXES = (".nii.gz", ".seg.dcm", ".rtstruct.dcm")


def stem_of(path: Path) -> str:
    """The name of a file without its suffix, of both parts where it has two."""
    for suffix in _DOUBLE_SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.stem
