"""`gitract days` and `propagate`: one patient on several treatment days."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from gitract.cli._common import (
    Json,
    SpacingOption,
    cell,
    out,
    parse_spacing,
    print_result,
    progress_bar,
)
from gitract.errors import InputError
from gitract.progress import Report
from gitract.scan import Scan, Segmentation, Spacing

if TYPE_CHECKING:
    from gitract.days import Day, DayTable

__all__ = ["days", "propagate"]

_OUTPUTS = ".nii.gz, .tif, .seg.dcm, .rtstruct.dcm, .csv or a .png/ folder."


def days(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="SCAN CONTOURS...",
            help="The scan of each day and its contours, the first day first.",
        ),
    ],
    reference: Annotated[
        bool,
        typer.Option(
            "--reference", help="Give scans alone: their contours are those that train.csv has."
        ),
    ] = False,
    as_they_lie: Annotated[
        bool,
        typer.Option(
            "--as-they-lie", help="Trust the coordinates of the files: look for no shift."
        ),
    ] = False,
    spacing: SpacingOption = None,
    as_json: Json = False,
) -> None:
    """Compare the organs of later treatment days with those of the first."""
    millimetres = parse_spacing(spacing)
    with progress_bar(as_json) as report:
        known = _days(files, reference, millimetres, report)
        from gitract.days import align, compare_days

        first = known[0].scan
        alignments = (
            None if as_they_lie else [align(day.scan, first, report=report) for day in known[1:]]
        )
        table = compare_days(known, alignments, report=report)

    def show() -> None:
        out.print(_table(table))
        for line in _moves(table):
            out.print(line, soft_wrap=True)
        for line in (*(one.sentence for one in table.alignments), *table.remarks):
            out.print(f"Note: {line}", soft_wrap=True)

    print_result(as_json, table.as_json(), show)


def _days(
    files: list[Path], reference: bool, spacing: Spacing | None, report: Report
) -> "list[Day]":
    from gitract.days import Day
    from gitract.io import read_scan, read_segmentation

    if not reference and len(files) % 2:
        raise InputError(
            f"{files[-1]} has no partner: give each scan with its contours, or --reference."
        )
    if len(files) // (1 if reference else 2) < 2:
        raise InputError("Comparing takes at least two days: give another scan and its contours.")
    known = []
    contours = [None] * len(files) if reference else files[1::2]
    for path, drawn in zip(files if reference else files[::2], contours, strict=True):
        scan = read_scan(path, spacing=spacing, report=report)
        if drawn is None:
            known.append(Day(scan, _reference(path, scan)))
        else:
            known.append(Day(scan, read_segmentation(drawn, scan=scan)))
    return known


def _reference(path: Path, scan: Scan) -> Segmentation:
    from gitract.io import read_reference

    found = read_reference(path, spacing=scan.spacing)
    if found is None:
        raise InputError(f"There is no train.csv with contours for {path} near it.")
    return found.on(scan)


def _table(table: "DayTable") -> Table:
    shown = Table("Organ", "Day", "Volume (mL)", "Change", "Moved (mm)", "Dice")
    for place, row in enumerate(table.rows):
        shown.add_row(
            "" if place % len(table.days) else row.organ.title,
            row.day,
            "–" if row.volume_ml is None else f"{row.volume_ml:.1f}",
            "–" if row.change is None else f"{100 * row.change:+.0f} %",
            "–" if row.moved_mm is None else f"{row.moved_mm:.1f}",
            cell(row.dice),
        )
    return shown


def _moves(table: "DayTable") -> list[str]:
    """Where organs went, a line each."""
    from gitract.days import shift_in_words

    lines = []
    for row in table.rows:
        if row.shift_mm is None:
            continue
        line = f"{row.organ.title}, {row.day}: {shift_in_words(row.shift_mm)}"
        if row.shift_aligned_mm is not None:
            line = (
                f"{row.organ.title}, {row.day}: {shift_in_words(row.shift_aligned_mm)} "
                f"(before alignment {shift_in_words(row.shift_mm)})"
            )
        lines.append(f"{line}.")
    return lines


def propagate(
    scan: Annotated[Path, typer.Argument(help="The scan of an earlier day.")],
    contours: Annotated[Path, typer.Argument(help="The contours on it.")],
    new_scan: Annotated[Path, typer.Argument(help="The scan to contour.")],
    output: Annotated[Path, typer.Option("-o", "--output", help=_OUTPUTS)],
    spacing: SpacingOption = None,
    as_json: Json = False,
) -> None:
    """Put the contours of one day onto the scan of another, as a start for contouring it."""
    millimetres = parse_spacing(spacing)
    with progress_bar(as_json) as report:
        from gitract.days import align, propagated
        from gitract.io import check_output, read_scan, read_segmentation, write_segmentation

        check_output(output, inputs=[scan, contours, new_scan])
        earlier = read_scan(scan, spacing=millimetres, report=report)
        drawn = read_segmentation(contours, scan=earlier)
        today = read_scan(new_scan, spacing=millimetres, report=report)
        check_output(output, scan=today)
        alignment = align(earlier, today, report=report)
        carried = propagated(drawn, alignment, today, report=report)
        written = write_segmentation(carried, output)
    content = {
        "output": str(written),
        "alignment": alignment.as_json(),
        "volumes_ml": carried.volumes_ml,
        "remarks": carried.remarks,
    }

    def show() -> None:
        shown = Table("Organ", f"{earlier.name} (mL)", f"{today.name} (mL)")
        for organ in carried.organs:
            before, after = (item.volumes_ml[organ.name] for item in (drawn, carried))
            shown.add_row(organ.title, f"{before:.1f}", f"{after:.1f}")
        out.print(shown)
        for line in (alignment.sentence, *carried.remarks):
            out.print(f"Note: {line}", soft_wrap=True)
        out.print(f"Written to {written}. Nobody has looked at it on this scan.", soft_wrap=True)

    print_result(as_json, content, show)
