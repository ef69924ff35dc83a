"""Check that the one wheel in a folder holds what the program needs, and is small enough.

Usage: ``python scripts/check_wheel.py FOLDER``. Exits with 1 and says what is wrong.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

# A plugin manager shows no progress while it downloads: the wheel must stay quick to fetch.
LARGEST_MB = 40.0

NEEDED = (
    "napari_gitract/napari.yaml",
    "napari_gitract/py.typed",
    "gitract/py.typed",
    "gitract/_version.py",
    "gitract/default_model/config.json",
    "gitract/default_model/model.safetensors",
    "gitract/default_model/README.md",
    "gitract/configs/unet-light.yaml",
    "gitract/models/measured.json",
    "gitract/report/report.css",
)


def problems(wheel: Path) -> list[str]:
    """Return one sentence for each thing that is wrong with the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    found = [f"{name} is missing from the wheel." for name in NEEDED if name not in names]
    size = wheel.stat().st_size / 1e6
    if size > LARGEST_MB:
        found.append(f"The wheel has {size:.1f} MB; at most {LARGEST_MB:.0f} MB are allowed.")
    tops = {name.split("/", 1)[0] for name in names}
    strange = sorted(
        top
        for top in tops
        if top not in {"gitract", "napari_gitract"} and not top.endswith(".dist-info")
    )
    found.extend(f"{top} should not be in the wheel." for top in strange)
    return found


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    wheels = sorted(Path(sys.argv[1]).glob("napari_gitract-*.whl"))
    if len(wheels) != 1:
        print(f"Expected one wheel in {sys.argv[1]}, found {len(wheels)}.", file=sys.stderr)
        return 1
    found = problems(wheels[0])
    for sentence in found:
        print(sentence, file=sys.stderr)
    if not found:
        print(f"{wheels[0].name}: {wheels[0].stat().st_size / 1e6:.1f} MB, complete.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
