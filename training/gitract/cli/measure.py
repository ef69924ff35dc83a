"""`gitract measure`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from gitract.cli._common import (
    Json,
    Key,
    SpacingOption,
    out,
    parse_organs,
    parse_spacing,
    print_result,
    progress_bar,
)
from gitract.cli.scans import OrganOption
from gitract.progress import Progress

if TYPE_CHECKING:
    from gitract.measure import OrganMeasures

__all__ = ["measure"]


def measure(
    contours: Annotated[Path, typer.Argument(help="Contours, in any format that is read.")],
    scan: Annotated[
        Path | None,
        typer.Option("--scan", help="The scan that they belong to; adds the mean intensity."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Also write a table, .csv.")
    ] = None,
    organ: OrganOption = None,
    key: Key = None,
    spacing: SpacingOption = None,
    as_json: Json = False,
) -> None:
    """Measure organs: volume, length, place, surface, intensity, cut by the field of view."""
    choices, millimetres = parse_organs(organ), parse_spacing(spacing)
    with progress_bar(as_json) as report:
        report(Progress(0, 0, "Reading"))
        from gitract.io import check_output, read_scan, read_segmentation
        from gitract.measure import csv_text
        from gitract.measure import measure as measured
        from gitract.replacing import replaced_file

        if output is not None:
            check_output(output, (".csv",), inputs=[contours, *([] if scan is None else [scan])])
        onto = None
        if scan is not None:
            onto = read_scan(scan, key=key, spacing=millimetres, report=report)
            millimetres = None  # those of the scan
        found = read_segmentation(contours, scan=onto, spacing=millimetres, choices=choices or None)
        measures = measured(found, onto, report=report)
        if output is not None:
            with replaced_file(output) as partial:
                partial.write_text(csv_text(measures), encoding="utf-8", newline="")
    content = {
        "scan": found.name,
        "output": None if output is None else str(output),
        "shape": found.shape,
        "spacing_mm": found.spacing,
        "organs": {one.organ.name: _as_json(one) for one in measures},
        "remarks": found.remarks,
    }

    def show() -> None:
        out.print(_table(measures))
        for remark in found.remarks:
            out.print(f"Note: {remark}", soft_wrap=True)
        if output is not None:
            out.print(f"Written to {output}.", soft_wrap=True)

    print_result(as_json, content, show)


def _as_json(one: "OrganMeasures") -> dict[str, Any]:
    return {
        "volume_ml": one.volume_ml,
        "length_mm": one.length_mm,
        "first_slice": one.first_slice,
        "last_slice": one.last_slice,
        "cut_by": one.cut_by,
        "surface_cm2": one.surface_cm2,
        "mean_intensity": one.mean_intensity,
        "sd_intensity": one.sd_intensity,
        "centroid_lps_mm": one.centroid_lps_mm,
        "centroid": one.centroid,
        "voxels": one.voxels,
        "volume_by_slice_ml": one.volume_by_slice_ml.tolist(),
    }


def _table(measures: tuple["OrganMeasures", ...]) -> Table:
    table = Table("Organ", "mL", "mm", "Slices", "Surface cm2", "Intensity", "Cut by the view")
    for one in measures:
        table.add_row(
            one.organ.title,
            f"{one.volume_ml:.1f}",
            f"{one.length_mm:.1f}",
            "–" if one.first_slice is None else f"{one.first_slice} to {one.last_slice}",
            f"{one.surface_cm2:.1f}",
            _intensity(one),
            ", ".join(one.cut_by),
        )
    return table


def _intensity(one: "OrganMeasures") -> str:
    if one.mean_intensity is None:
        return "–"
    return f"{one.mean_intensity:.1f} (SD {one.sd_intensity:.1f})"
