"""The text and tables of a report."""

from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files

from gitract import INTENDED_USE, __version__
from gitract.competition_score import Reading
from gitract.evaluation import ALL_ORGANS, METRICS, Evaluation, Mean, Metric, OrganScore
from gitract.history import Row
from gitract.organs import Organ
from gitract.report import figures
from gitract.slice_pictures import SlicePicture

__all__ = ["PageFacts", "page"]

_NONE = "–"


@dataclass(frozen=True)
class PageFacts:
    """What the page says besides the evaluation.

    Parameters
    ----------
    data, date
        For the header.
    reading
        Of the competition's score.
    history
        Rows of the training's log; empty for none.
    """

    data: str
    date: str
    reading: Reading
    history: Sequence[Row] = ()


def page(evaluation: Evaluation, facts: PageFacts) -> Iterator[str]:
    """The page, part by part."""
    yield _head(evaluation, facts)
    yield _summary(evaluation)
    yield _competition(evaluation, facts.reading)
    yield _slices(evaluation)
    yield _volumes(evaluation)
    yield _stacks(evaluation)
    if facts.history:
        caption = "Loss and held-out Dice along the training, as its log has them."
        curves = figures.curves_svg(facts.history, evaluation.organs)
        yield _section("Training", _figure(_svg(curves), caption))
    yield _by_patient(evaluation)
    yield _by_scan(evaluation)
    yield _rules()
    yield "</main>\n</body>\n</html>"


# --- parts ------------------------------------------------------------------------------


def _head(evaluation: Evaluation, facts: PageFacts) -> str:
    models = ", ".join(evaluation.models)
    title = f"Evaluation of {models}" if len(evaluation.models) < 4 else "Evaluation of folds"
    slices = len({(score.scan, score.slice) for score in evaluation.slices})
    rows = {
        "Model": models,
        "Data": facts.data,
        "Scans": f"{_many(len(evaluation.scans), 'scan')} of "
        f"{_many(len(evaluation.patients), 'patient')}, {_many(slices, 'labelled slice')}",
        "Date": facts.date,
        "Software": f"napari-gitract {__version__}",
    }
    facts_list = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in rows.items())
    remarks = "".join(f"<li>{escape(remark)}</li>" for remark in evaluation.remarks)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{_style()}
</style>
</head>
<body>
<main>
<header>
<h1>{escape(title)}</h1>
<p class="use">{escape(INTENDED_USE)}</p>
<dl>{facts_list}</dl>
{f"<ul class='remarks'>{remarks}</ul>" if remarks else ""}
</header>"""


@cache
def _style() -> str:
    return files("gitract.report").joinpath("report.css").read_text(encoding="utf-8")


def _summary(evaluation: Evaluation) -> str:
    summary = evaluation.summary()
    organs = [_organ_name(organ) for organ in evaluation.organs]
    keys = [organ.name for organ in evaluation.organs]
    if len(keys) > 1:
        organs.append("Mean over organs")
        keys.append(ALL_ORGANS)
    rows = [
        [
            escape(metric.title),
            *(_mean_cell(summary[key][metric.name], metric, summary[key]["dice"]) for key in keys),
        ]
        for metric in METRICS
    ]
    rows += [row + [""] * (len(organs) + 1 - len(row)) for row in _count_rows(evaluation)]
    note = "Mean over patients of the mean over each patient's scans, on the scans' own grid. " + (
        "In brackets: 95 % confidence interval, by 2000 draws of patients with replacement."
        if any(mean and mean.interval for mean in summary[ALL_ORGANS].values())
        else ""
    )
    return _section("Summary", _table(["", *organs], rows, "summary") + f"<p>{note}</p>")


def _mean_cell(mean: Mean | None, metric: Metric, dice: Mean | None) -> str:
    """A mean with its interval; says of how many scans where some have no value."""
    if mean is None:
        return _NONE
    text = f"<b>{mean.value:.{metric.decimals}f}</b>"
    if mean.interval is not None:
        low, high = mean.interval
        text += f" <span>({low:.{metric.decimals}f} to {high:.{metric.decimals}f})</span>"
    if dice is not None and mean.scans < dice.scans:
        text += f"<br><span>{mean.scans} of {_many(dice.scans, 'scan')}</span>"
    return text


def _count_rows(evaluation: Evaluation) -> list[list[str]]:
    """How often organs and slices were missed and invented, for each organ."""
    counts = [evaluation.counts()[organ.name] for organ in evaluation.organs]
    return [
        ["Organ missed", *(f"{one['missed']} of {one['scans']}" for one in counts)],
        ["Organ invented", *(str(one["invented"]) for one in counts)],
        ["Slices missed", *(f"{one['missed_slices']} of {one['slices']}" for one in counts)],
        ["Slices invented", *(str(one["invented_slices"]) for one in counts)],
    ]


def _competition(evaluation: Evaluation, reading: Reading) -> str:
    found = evaluation.competition(reading)
    if found is None:
        text = "<p>No organ is in any prediction or truth: there is no score.</p>"
        return _section("Score of the competition", text)
    interval = ""
    if found.interval is not None:
        interval = f" <span>({found.interval.low:.3f} to {found.interval.high:.3f})</span>"
    distances = (
        "for each organ of a scan, in voxels divided by the diagonal of the volume"
        if reading == "A"
        else "for each scan, all organs as one, in the unit cube divided by its diagonal"
    )
    text = f"""<p class="score"><b>{found.score:.3f}</b>{interval}</p>
<p>0.4 × mean Dice {found.dice:.3f} (over {found.pairs} pairs of a slice and an organ that are
not empty in both) + 0.6 × (1 − normalised 3-D Hausdorff distance {found.hausdorff:.3f})
(reading {reading}: {distances}; {found.distances} distances; 1 where exactly one is empty,
skipped where both are).</p>"""
    return _section("Score of the competition", text)


def _slices(evaluation: Evaluation) -> str:
    parts = []
    for organ in evaluation.organs:
        median = evaluation.median_slice_dice(organ.name)
        if median is None:
            continue
        chosen = evaluation.gallery.chosen(organ.name, median)
        if not chosen:
            continue
        titles = ("Best", "Median", "Worst") if len(chosen) == 3 else ("Best", "Worst")
        pictures = "".join(
            _picture(picture, title) for picture, title in zip(chosen, titles, strict=False)
        )
        parts.append(
            f"<div class='organ'><h3>{_organ_name(organ)}</h3>{_legend(organ)}"
            f"<div class='pictures'>{pictures}</div></div>"
        )
    if not parts:
        return ""
    note = (
        "<p>By the Dice of the organ on the slice, over slices that are not empty in both; of "
        "equals the one with the larger organ. Median: that of the slices kept whose Dice is "
        "nearest to the median. As on the screen: the patient's front is at the top, the right "
        "side at the left.</p>"
    )
    return _section("Best, median and worst slices", note + "".join(parts))


def _picture(picture: SlicePicture, title: str) -> str:
    source = b64encode(figures.picture_png(picture)).decode()
    text = f"{picture.scan}, {picture.place}, {picture.organ.title}, Dice {picture.dice:.3f}"
    return (
        f"<figure><img src='data:image/png;base64,{source}' alt='{escape(text, quote=True)}'>"
        f"<figcaption><b>{title}</b>, Dice {picture.dice:.3f}{_lacking(picture)}<br>"
        f"{escape(picture.scan)}, {escape(picture.place)}</figcaption></figure>"
    )


def _lacking(picture: SlicePicture) -> str:
    if not picture.truth.any():
        return ": not in truth"
    return "" if picture.prediction.any() else ": not found"


def _legend(organ: Organ) -> str:
    lines = ((organ.color, "truth"), (figures.PREDICTION_COLOR, "prediction"))
    return "<p class='legend'>" + "".join(
        f"<span><i style='background:{color}'></i>{text}</span>" for color, text in lines
    ) + "</p>"  # fmt: skip


def _volumes(evaluation: Evaluation) -> str:
    caption = "A point for each scan; on the dashed line prediction and truth agree."
    return _section("Volumes", _figure(_svg(figures.volumes_svg(evaluation)), caption))


def _stacks(evaluation: Evaluation) -> str:
    groups = figures.stack_figures(evaluation)
    if not groups:
        return ""
    caption = (
        "Dice by slice, 0-based, from the first labelled slice. A gap: the organ is neither in "
        "prediction nor truth. At 0 it is in one of them alone."
    )
    images = "".join(
        _figure(_svg(figures.stacks_svg(evaluation, group)), caption if last else "")
        for last, group in ((group is groups[-1], group) for group in groups)
    )
    return _section("Along the stack", images)


_PATIENT_COLUMNS = {"dice": "Dice", "surface_dice_2mm": "Surface<br>2 mm", "hd95_mm": "HD95<br>mm"}


def _by_patient(evaluation: Evaluation) -> str:
    shown = [metric for metric in METRICS if metric.name in _PATIENT_COLUMNS]
    columns = [(organ, metric) for organ in evaluation.organs for metric in shown]
    values = [evaluation.by_patient(metric.name, organ.name) for organ, metric in columns]
    groups = [("", 2), *((_organ_name(organ), len(shown)) for organ in evaluation.organs)]
    head = ["Patient", "Scans", *(_PATIENT_COLUMNS[metric.name] for _, metric in columns)]
    rows = []
    for patient in evaluation.patients:
        scans = {score.scan for score in evaluation.scores if score.patient == patient}
        cells = [
            _cell(value.get(patient), metric.decimals)
            for value, (_, metric) in zip(values, columns, strict=True)
        ]
        rows.append([escape(patient), str(len(scans)), *cells])
    return _section("By patient", _table(head, rows, "wide", groups))


_SCAN_COLUMNS: tuple[tuple[str, Callable[[OrganScore], str]], ...] = (
    ("Dice", lambda s: _bar(s.dice)),
    ("IoU", lambda s: _cell(s.iou, 3)),
    ("Slice Dice", lambda s: _cell(s.slice_dice, 3)),
    ("HD95<br>mm", lambda s: _cell(s.hd95_mm, 1)),
    ("Surface Dice<br>1 mm", lambda s: _cell(s.surface_dice_1mm, 3)),
    ("<br>2 mm", lambda s: _cell(s.surface_dice_2mm, 3)),
    ("<br>3 mm", lambda s: _cell(s.surface_dice_3mm, 3)),
    ("Volume<br>mL", lambda s: _cell(s.volume_ml, 1)),
    ("True<br>mL", lambda s: _cell(s.true_volume_ml, 1)),
    ("Off<br>mL", lambda s: _cell(s.volume_error_ml, 1, sign="+z")),
    ("Off<br>%", lambda s: _cell(s.volume_error_percent, 0, sign="+z")),
    ("Slices<br>missed", lambda s: f"{s.missed_slices} of {s.organ_slices}"),
    ("Slices<br>invented", lambda s: str(s.invented_slices)),
    ("", lambda s: "missed" if s.missed else "invented" if s.invented else ""),
)


def _by_scan(evaluation: Evaluation) -> str:
    organs = {organ.name: organ for organ in evaluation.organs}
    head = ["Scan", "Organ", *(title for title, _ in _SCAN_COLUMNS)]
    rows: list[Sequence[str]] = []
    before = ""
    for score in evaluation.scores:
        name = "" if score.scan == before else escape(score.scan)
        cells = (text(score) for _, text in _SCAN_COLUMNS)
        rows.append([name, _organ_name(organs[score.organ]), *cells])
        before = score.scan
    return _section("By scan", _table(head, rows, "wide scans"))


_RULES: Mapping[str, str] = {
    "Dice, IoU": "Over all voxels of a scan. 0 where prediction or truth alone holds the organ; "
    "not counted (–) where neither does.",
    "Slice Dice": "Mean over the slices that are not empty in both.",
    "HD95": "The larger of the two directed 95th percentiles of the distances between surface "
    "voxels. There is none where prediction or truth is empty: the organ then counts as missed or "
    "invented, and the mean is over the other scans.",
    "Surface Dice": "The share of both surfaces that lies within the tolerance of the other. 0 "
    "where prediction or truth alone holds the organ.",
    "Volume off": "Predicted less true volume; its size in the summary, with its sign by scan.",
    "Slices missed, invented": "Slices with the organ in truth alone, and in the prediction alone.",
    "Organs that nobody outlined": "are not judged on that scan.",
    "Scans that lack slices": "Surfaces are measured run by run of consecutive slices and pooled.",
}


def _rules() -> str:
    text = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in _RULES.items())
    return _section("How it was measured", f"<dl class='rules'>{text}</dl>")


# --- pieces -----------------------------------------------------------------------------


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>"


def _table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    kind: str,
    groups: Sequence[tuple[str, int]] = (),
) -> str:
    """A table; cells are HTML. `groups` are titles above that many columns each."""
    top = "".join(f"<th colspan='{n}' class='group'>{cell}</th>" for cell, n in groups)
    top = (f"{top}</tr><tr>" if top else "") + "".join(f"<th>{cell}</th>" for cell in head)
    body = "\n".join(
        "<tr>" + f"<th>{row[0]}</th>" + "".join(f"<td>{cell}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    return (
        f"<div class='scroll'><table class='{kind}'>\n<thead><tr>{top}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _figure(image: str, caption: str) -> str:
    text = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure class='chart'>{image}{text}</figure>"


def _svg(content: bytes) -> str:
    """As an image of its own, so that the names inside it meet no others of the page."""
    return f"<img src='data:image/svg+xml;base64,{b64encode(content).decode()}' alt=''>"


def _organ_name(organ: Organ) -> str:
    return f"<i class='dot' style='background:{organ.color}'></i>{escape(organ.title)}"


def _cell(value: float | None, decimals: int, sign: str = "") -> str:
    return _NONE if value is None else f"{value:{sign}.{decimals}f}"


def _bar(value: float | None) -> str:
    """A score from 0 to 1 before a bar of its length."""
    if value is None:
        return _NONE
    return f"<span class='bar' style='--share:{100 * value:.0f}%'>{value:.3f}</span>"


def _many(count: int, thing: str) -> str:
    return f"{count} {thing}" + ("" if count == 1 else "s")
