"""`gitract check`."""

from pathlib import Path
from typing import Annotated

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
from gitract.cli.scans import OrganOption, ScanOption

__all__ = ["check"]


def check(
    contours: Annotated[Path, typer.Argument(help="Contours in any format that can be read.")],
    scan: ScanOption = None,
    organ: OrganOption = None,
    key: Key = None,
    spacing: SpacingOption = None,
    as_json: Json = False,
) -> None:
    """List what to look at again in contours: holes, islands, gaps, jumps, unusual volumes."""
    choices, millimetres = parse_organs(organ), parse_spacing(spacing)
    with progress_bar(as_json) as report:
        from gitract.contour_checks import check_contours
        from gitract.io import read_scan, read_segmentation

        if scan is None:
            found = read_segmentation(contours, spacing=millimetres, choices=choices)
        else:
            onto = read_scan(scan, key=key, spacing=millimetres, report=report)
            found = read_segmentation(contours, scan=onto, choices=choices)
        findings = check_contours(found, report=report)
    content = {
        "name": found.name,
        "shape": found.shape,
        "spacing_mm": found.spacing,
        "findings": [finding.as_dict() for finding in findings],
        "remarks": found.remarks,
    }

    def show() -> None:
        if findings:
            table = Table("Slice", "Row", "Column", "", "Finding")
            for finding in findings:
                place = ("", "", "") if finding.position is None else finding.position
                table.add_row(*map(str, place), finding.severity, finding.sentence)
            out.print(table)
        else:
            out.print("Nothing to look at again was found.")
        for remark in found.remarks:
            out.print(f"Note: {remark}", soft_wrap=True)

    print_result(as_json, content, show)
