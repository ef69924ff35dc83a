"""`gitract segment`, `convert`, `info`, `organs` and `phantom`."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from gitract import INTENDED_USE
from gitract.cli._asking import (
    Holes,
    Hysteresis,
    Islands,
    Mirror,
    Models,
    OnePart,
    Thresholds,
    Tidy,
    Tta,
    asked_decision,
    asked_views,
)
from gitract.cli._common import (
    AnyDevice,
    Json,
    Key,
    SpacingOption,
    out,
    parse_organs,
    parse_slices,
    parse_spacing,
    print_result,
    progress_bar,
)
from gitract.errors import InputError
from gitract.progress import Progress, Report
from gitract.scan import Scan, Segmentation, Spacing

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from gitract.io import FoundScan

__all__ = ["convert", "info", "organs", "phantom", "segment"]

_INPUT = "Folder of slices, DICOM folder or file, NIfTI, or TIFF stack."
_LABEL_OUTPUTS = ".nii.gz, .tif, .seg.dcm, .rtstruct.dcm, .csv or a .png/ folder."

_MAP_OUTPUTS = (".nii.gz", ".nii", ".tif")

OrganOption = Annotated[
    list[str] | None,
    typer.Option(
        "--organ",
        help="What a name in the file stands for, as GTV=tumour or 7=stomach; NAME=- leaves it "
        "out. Can be given several times.",
    ),
]
ScanOption = Annotated[
    Path | None, typer.Option("--scan", help="The scan that the contours belong to.")
]


def segment(
    scan: Annotated[Path, typer.Argument(help=_INPUT)],
    output: Annotated[Path, typer.Option("-o", "--output", help=_LABEL_OUTPUTS)],
    model: Models = None,
    device: AnyDevice = "auto",
    slices: Annotated[
        str | None, typer.Option(help="0-based, as 40:60 or 40,52,63; default: all.")
    ] = None,
    tta: Tta = False,
    mirror: Mirror = False,
    tidy: Tidy = False,
    threshold: Thresholds = None,
    hysteresis: Hysteresis = None,
    smallest_ml: Islands = None,
    largest_hole_mm2: Holes = None,
    one_part: OnePart = None,
    probabilities: Annotated[
        Path | None,
        typer.Option(
            help="Also write probabilities, .nii.gz or .tif; the organ's name is added to the "
            "file's."
        ),
    ] = None,
    uncertainty: Annotated[
        Path | None,
        typer.Option(help="Also write the entropy, 0 to 1 bit, .nii.gz or .tif."),
    ] = None,
    key: Key = None,
    spacing: SpacingOption = None,
    as_json: Json = False,
) -> None:
    """Outline the organs of a scan."""
    chosen, millimetres = parse_slices(slices), parse_spacing(spacing)
    decision = asked_decision(tidy, threshold, hysteresis, smallest_ml, largest_hole_mm2, one_part)
    with progress_bar(as_json) as report:
        report(Progress(0, 0, "Loading the model"))
        from gitract.io import check_output, read_scan, write_segmentation

        check_output(output, inputs=[scan])
        for path in (probabilities, uncertainty):
            if path is not None:
                check_output(path, _MAP_OUTPUTS, inputs=[scan])
        loaded = read_scan(scan, key=key, spacing=millimetres, report=report)
        check_output(output, scan=loaded)
        from gitract.remote.client import open_segmenter

        segmenter = open_segmenter(
            model,
            device=device,
            decision=decision,
            views=asked_views(tta, mirror),
            report=report,
        )
        if probabilities is None and uncertainty is None:
            found = segmenter.segment(loaded, slices=chosen, report=report)
        else:
            found, likely = segmenter.segment_with_probabilities(
                loaded, slices=chosen, report=report
            )
            _write_maps(loaded, found, likely, probabilities, uncertainty)
        written = write_segmentation(found, output)
    content = {
        "output": str(written),
        "model": segmenter.model.id,
        "device": segmenter.device,
        "shape": found.shape,
        "spacing_mm": found.spacing,
        "volumes_ml": found.volumes_ml,
        "overlap_voxels": found.labels().overlap_voxels,
        "remarks": (*loaded.remarks, *found.remarks),
        "intended_use": INTENDED_USE,
    }

    def show() -> None:
        out.print(_volumes(found))
        _print_remarks((*loaded.remarks, *found.remarks))
        out.print(f"Written to {written} with {segmenter.model.id}.", soft_wrap=True)
        out.print(INTENDED_USE)

    print_result(as_json, content, show)


def _write_maps(
    scan: Scan,
    found: Segmentation,
    likely: "npt.NDArray[np.float16]",
    probabilities: Path | None,
    uncertainty: Path | None,
) -> None:
    """Write what is likely, organ by organ, and how sure it is, on the scan's grid."""
    from gitract.io import suffix_of, write_scan
    from gitract.uncertainty import entropy

    def write(voxels: "npt.NDArray[Any]", path: Path) -> None:
        write_scan(replace(scan, voxels=voxels), path)

    if probabilities is not None:
        suffix = suffix_of(probabilities, _MAP_OUTPUTS)
        stem = probabilities.name[: -len(suffix)]
        for organ, voxels in zip(found.organs, likely, strict=True):
            write(voxels.astype("float32"), probabilities.with_name(f"{stem}_{organ.name}{suffix}"))
    if uncertainty is not None:
        write(entropy(likely), uncertainty)


def _volumes(segmentation: Segmentation) -> Table:
    table = Table("Organ", "Volume (mL)")
    for organ in segmentation.organs:
        table.add_row(organ.title, f"{segmentation.volumes_ml[organ.name]:.1f}")
    return table


def _print_remarks(remarks: tuple[str, ...]) -> None:
    for remark in remarks:
        out.print(f"Note: {remark}", soft_wrap=True)


# --- convert ----------------------------------------------------------------------------


def convert(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="A scan, or contours.")],
    output: Annotated[
        Path,
        typer.Argument(
            metavar="OUTPUT",
            help="A scan: .nii.gz, .tif, a .png/ folder, a .dcm/ folder. "
            f"Contours: {_LABEL_OUTPUTS}",
        ),
    ],
    scan: ScanOption = None,
    labels: Annotated[
        bool, typer.Option("--labels", help="INPUT holds labels, though nothing in it says so.")
    ] = False,
    reference: Annotated[
        bool,
        typer.Option("--reference", help="Take the contours that train.csv has for INPUT."),
    ] = False,
    organ: OrganOption = None,
    deidentify: Annotated[
        bool,
        typer.Option(
            "--deidentify",
            help="Leave out of DICOM contours who the patient is; UIDs stay. A scan is always "
            "written so.",
        ),
    ] = False,
    key: Key = None,
    spacing: SpacingOption = None,
    as_json: Json = False,
) -> None:
    """Write a scan or contours in another format, in the same place to the last voxel."""
    choices, millimetres = parse_organs(organ), parse_spacing(spacing)
    with progress_bar(as_json) as report:
        from gitract import io

        if reference or labels or scan is not None or choices or io.holds_labels(source):
            tables = [place / "train.csv" for place in (source, *source.absolute().parents)]
            io.check_output(output, inputs=[source, *tables, *([] if scan is None else [scan])])
            item: Scan | Segmentation
            if reference:
                item = _reference(source, key, millimetres)
            else:
                item = _contours(source, scan, key, millimetres, choices, report)
            written = io.write_segmentation(item, output, deidentify=deidentify)
        else:
            _check_scan_output(output, source)
            item = io.read_scan(source, key=key, spacing=millimetres, report=report)
            written = io.write_scan(item, output)
    content: dict[str, Any] = {
        "output": str(written),
        "shape": item.shape,
        "spacing_mm": item.spacing,
        "remarks": item.remarks,
    }
    if isinstance(item, Segmentation):
        overlap = item.labels().overlap_voxels
        flat = io.suffix_of(output, io.SEGMENTATION_SUFFIXES) in io.FLAT_SUFFIXES
        content |= {"volumes_ml": item.volumes_ml, "overlap_voxels_lost": overlap if flat else 0}

    def show() -> None:
        if isinstance(item, Segmentation):
            out.print(_volumes(item))
            if content["overlap_voxels_lost"]:
                out.print(
                    f"Note: {content['overlap_voxels_lost']} voxels belong to several organs, "
                    "of which this format keeps one; .csv and DICOM keep all.",
                    soft_wrap=True,
                )
        _print_remarks(item.remarks)
        out.print(f"Written to {written}.", soft_wrap=True)

    print_result(as_json, content, show)


def _contours(
    source: Path,
    scan: Path | None,
    key: str | None,
    spacing: Spacing | None,
    choices: Mapping[str, str],
    report: Report,
) -> Segmentation:
    """Contours, onto their scan where it is given; then the spacing is the scan's."""
    from gitract.io import read_scan, read_segmentation

    if scan is None:
        return read_segmentation(source, spacing=spacing, choices=choices or None)
    onto = read_scan(scan, key=key, spacing=spacing, report=report)
    return read_segmentation(source, scan=onto, choices=choices or None)


def _reference(source: Path, key: str | None, spacing: Spacing | None) -> Segmentation:
    from gitract.io import read_reference

    found = read_reference(source, key=key, spacing=spacing)
    if found is None:
        raise InputError(f"There is no train.csv with contours for {source} near it.")
    return found


def _check_scan_output(output: Path, source: Path) -> None:
    from gitract.io import SCAN_SUFFIXES, SEGMENTATION_SUFFIXES, check_output, suffix_of

    suffix = suffix_of(output, SEGMENTATION_SUFFIXES)
    if suffix and suffix not in SCAN_SUFFIXES:
        raise InputError(
            f"{suffix} takes contours and the input is a scan: outline it first with "
            "gitract segment, or give --labels or --reference."
        )
    check_output(output, SCAN_SUFFIXES, inputs=[source])


# --- info -------------------------------------------------------------------------------


def info(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="A scan, or contours.")],
    scan: ScanOption = None,
    organ: OrganOption = None,
    key: Key = None,
    spacing: SpacingOption = None,
    as_json: Json = False,
) -> None:
    """Say what was understood of a scan or of contours, and what would be refused."""
    choices, millimetres = parse_organs(organ), parse_spacing(spacing)
    with progress_bar(as_json) as report:
        from gitract import io

        if scan is not None or choices or io.holds_labels(source):
            content = _about_labels(
                source, choices, lambda: _contours(source, scan, key, millimetres, choices, report)
            )
        else:
            found = io.find_scans(source)
            if key is None and len(found) > 1:
                content = {"scans": [_about_found(one) for one in found]}
            else:
                one = io.select(found, source, key)
                content = _about_scan(source, one, millimetres, report)

    def show() -> None:
        if "scans" in content:
            out.print(_scan_table(content["scans"]))
            return
        table = Table(show_header=False)
        for name, value in content.items():
            if value not in (None, "", (), []):
                table.add_row(name.replace("_", " "), _text(name, value))
        out.print(table)

    print_result(as_json, content, show)


def _about_found(one: "FoundScan") -> dict[str, Any]:
    return {
        "key": one.key,
        "title": one.title,
        "shape": one.shape,
        "date": one.date,
        "refused": one.problem,
        "remarks": one.remarks,
    }


def _scan_table(rows: list[dict[str, Any]]) -> Table:
    table = Table("Key", "Scan", "Slices x rows x columns", "Date", "Notes")
    for row in rows:
        size = " x ".join(str(n) for n in row["shape"])
        notes = [f"Refused: {row['refused']}"] if row["refused"] else []
        table.add_row(
            row["key"], row["title"], size, row["date"], "\n".join([*notes, *row["remarks"]])
        )
    return table


def _about_scan(
    source: Path, one: "FoundScan", spacing: Spacing | None, report: Any
) -> dict[str, Any]:
    """What reading the scan gives; where it is refused, what the headers tell, and why."""
    from gitract.io import read_reference, read_scan
    from gitract.orientation import axes_run_to, plane_name, turn_upright

    try:
        scan = read_scan(source, key=one.key, spacing=spacing, report=report)
    except InputError as error:
        return {**_about_found(one), "refused": str(error)}
    try:
        turn_upright(scan)
        segmenting = f"{len(scan.voxels)} axial slices would be outlined"
    except InputError as error:
        segmenting = f"refused: {error}"
    reference = read_reference(source, key=one.key, spacing=spacing)
    return {
        "name": scan.name,
        "title": one.title,
        "date": one.date,
        "shape": scan.shape,
        "spacing_mm": scan.spacing,
        "orientation": plane_name(scan.affine),
        "axes_run_to": axes_run_to(scan.affine),
        "first_voxel_mm": [round(float(mm), 3) for mm in scan.affine[:3, 3]],
        "type": str(scan.voxels.dtype),
        "range": [scan.voxels.min().item(), scan.voxels.max().item()],
        "segmenting": segmenting,
        "remarks": scan.remarks,
        "reference_volumes_ml": _rounded(reference) if reference else None,
    }


def _about_labels(
    source: Path, choices: Mapping[str, str], read: Callable[[], Segmentation]
) -> dict[str, Any]:
    from gitract.io import label_names
    from gitract.organ_names import OrganNames

    names, table = label_names(source), OrganNames.load()
    assigned = table.assign(names, choices) if names else {}
    known = {organ.name for organ in table.organs}
    content: dict[str, Any] = {
        "contours": {
            name: "left out" if organ is None
            else organ.name + ("" if organ.name in known else " (new)")
            for name, organ in assigned.items()
        }
    }  # fmt: skip
    try:
        found = read()
    except InputError as error:
        return {**content, "refused": str(error)}
    return {
        **content,
        "name": found.name,
        "shape": found.shape,
        "spacing_mm": found.spacing,
        "volumes_ml": _rounded(found),
        "overlap_voxels": found.labels().overlap_voxels,
        "remarks": found.remarks,
        "model": found.provenance.get("model"),
    }


def _rounded(segmentation: Segmentation) -> dict[str, float]:
    return {name: round(ml, 1) for name, ml in segmentation.volumes_ml.items()}


# How the parts of a value are joined; line by line where nothing stands here.
_JOINED = {
    "shape": " x ",
    "spacing_mm": " x ",
    "first_voxel_mm": ", ",
    "axes_run_to": ", ",
    "range": " to ",
}


def _text(name: str, value: Any) -> str:
    """A value of `info` for people."""
    if isinstance(value, dict):
        return "\n".join(f"{key}: {one}" for key, one in value.items())
    if isinstance(value, list | tuple):
        parts = [f"{one:g}" if isinstance(one, float) else str(one) for one in value]
        return _JOINED.get(name, "\n").join(parts)
    return str(value)


# --- organs, phantom --------------------------------------------------------------------


def organs(as_json: Json = False) -> None:
    """List the organs and what else they are called; say where to add names."""
    from gitract.organ_names import OrganNames

    names = OrganNames.load()
    content = {
        "file": str(names.user_file()),
        "organs": [
            {"id": o.id, "name": o.name, "color": o.color, "snomed_ct": o.code.value,
             "also": names.synonyms(o)}
            for o in names.organs
        ],
    }  # fmt: skip

    def show() -> None:
        table = Table("Id", "Organ", "SNOMED CT", "Also called")
        for o in names.organs:
            table.add_row(str(o.id), o.name, o.code.value, ", ".join(names.synonyms(o)))
        out.print(table)
        out.print(f"Add names of your own in {names.user_file()}.", soft_wrap=True)

    print_result(as_json, content, show)


def phantom(
    folder: Annotated[Path, typer.Argument(help="Gets train/ and train.csv.")],
    slices: Annotated[int, typer.Option(min=1)] = 48,
    rows: Annotated[int, typer.Option(min=32)] = 144,
    columns: Annotated[int, typer.Option(min=32)] = 176,
    seed: int = 0,
) -> None:
    """Write a scan made by code, with its contours, to try everything on."""
    from gitract.phantom import abdomen, write_day

    scan, truth = abdomen((slices, rows, columns), seed=seed)
    if (folder / "train" / "case0" / scan.name).exists():
        raise InputError(f"{folder} holds {scan.name} already: choose another folder.")
    out.print(str(write_day(folder, scan, truth)), soft_wrap=True)
