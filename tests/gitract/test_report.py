"""The report of an evaluation: one file that holds what it must, and pictures that are right."""

import base64
import io
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from PIL import Image

from gitract import INTENDED_USE
from gitract.errors import Cancelled, InputError
from gitract.evaluate import JudgedRun, JudgedScan, score_scans
from gitract.evaluation import Evaluation
from gitract.organs import ORGANS, organ_named
from gitract.orientation import Turn, turn_upright
from gitract.phantom import abdomen
from gitract.report import write_report
from gitract.report.figures import PREDICTION_COLOR, picture_png
from gitract.scan import Scan, Segmentation
from gitract.slice_pictures import Gallery, SlicePicture, slice_picture
from phantoms import stored_as
from sentences import assert_one_sentence

SHAPE = (10, 48, 56)
VOID = {"meta", "br", "img", "link", "input", "hr"}
STOMACH = organ_named("stomach")


def judged(name: str, seed: int, patient: str | None = None) -> JudgedScan:
    """A scan whose prediction is a little aside of the truth."""
    scan, truth = abdomen(SHAPE, seed=seed, name=name)
    prediction = replace(truth, masks=np.roll(truth.masks, 1 + seed, axis=3))
    run = JudgedRun(scan, prediction, truth)
    return JudgedScan(name, patient or name.split("_")[0], (run,), "model-a")


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return score_scans(judged(f"case{n}_day0", n) for n in range(4))


@pytest.fixture(scope="module")
def html(evaluation: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(evaluation, path, data="phantoms")
    return path.read_text(encoding="utf-8")


@pytest.fixture
def written(evaluation: Evaluation, tmp_path: Path) -> Callable[..., str]:
    def write(found: Evaluation = evaluation, **options: Any) -> str:
        path = tmp_path / "report.html"
        write_report(found, path, **{"data": "phantoms", **options})
        assert [entry.name for entry in tmp_path.glob("*.html*")] == ["report.html"]
        return path.read_text(encoding="utf-8")

    return write


class Nesting(HTMLParser):
    """Fails on a tag that is closed wrongly; keeps the text that is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attributes: object) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data + " "


def shown(html: str) -> str:
    parser = Nesting()
    parser.feed(html)
    assert parser.open == []
    return " ".join(parser.text.split())


def images(html: str, kind: str) -> list[bytes]:
    return [
        base64.b64decode(code) for code in re.findall(rf"data:image/{kind};base64,([^']+)'", html)
    ]


# --- the page -------------------------------------------------------------------------------


def test_the_report_is_one_file_that_needs_nothing_else(html: str) -> None:
    assert html.startswith("<!DOCTYPE html>")
    assert "<script" not in html
    assert not re.search(r"(src|href)=['\"](?!data:)", html)
    assert "url(" not in html
    assert "@import" not in html
    shown(html)


def test_the_report_says_what_was_judged_and_what_it_is_for(
    html: str, evaluation: Evaluation
) -> None:
    text = shown(html)
    for part in ("model-a", "phantoms", "4 scans of 4 patients, 40 labelled slices", INTENDED_USE):
        assert part in text
    mean = evaluation.mean("dice", "stomach")
    assert mean is not None
    assert mean.interval is not None
    low, high = mean.interval
    assert f"{mean.value:.3f} ({low:.3f} to {high:.3f})" in text
    for row in evaluation.scores:
        assert row.scan in text
        assert f"{row.hd95_mm:.1f}" in text
        assert f"{row.surface_dice_2mm:.3f}" in text
        assert f"{row.true_volume_ml:.1f}" in text


@pytest.mark.parametrize("reading", ["A", "B"])
def test_the_report_has_the_competitions_score_in_the_reading_asked_for(
    written: Callable[..., str], evaluation: Evaluation, reading: Any
) -> None:
    score = evaluation.competition(reading)
    assert score is not None
    text = shown(written(reading=reading))
    assert f"{score.score:.3f}" in text
    assert f"reading {reading}:" in text


def test_every_picture_can_be_opened_and_every_organ_has_three(html: str) -> None:
    pictures = [Image.open(io.BytesIO(content)) for content in images(html, "png")]
    assert len(pictures) == 3 * len(ORGANS)
    for picture in pictures:
        picture.load()
        assert min(picture.size) > 100
    charts = [ElementTree.fromstring(content) for content in images(html, r"svg\+xml")]
    assert len(charts) == 2  # volumes, and Dice along the stacks
    for title in ("Best", "Median", "Worst"):
        assert shown(html).count(f"{title} , Dice") == len(ORGANS)


def test_names_are_text_and_no_markup(written: Callable[..., str]) -> None:
    found = score_scans([judged("<b>bold</b>&'", 1, "<i>it</i>"), judged("case2_day0", 2)])
    html = written(found, data="<script>alert(1)</script>")
    assert "<script" not in html
    text = shown(html)
    for part in ("<b>bold</b>&'", "<i>it</i>", "<script>alert(1)</script>"):
        assert part in text


def test_with_fewer_than_three_patients_the_report_says_that_there_is_no_interval(
    written: Callable[..., str],
) -> None:
    text = shown(written(score_scans([judged("case1_day0", 1), judged("case2_day0", 2)])))
    assert "Fewer than 3 patients" in text
    assert " to 0." not in text.split("By scan")[0]


def test_a_mean_says_of_how_many_scans_it_is_where_some_have_no_value(
    written: Callable[..., str],
) -> None:
    scans = [judged(f"case{n}_day0", n) for n in (1, 2, 3)]
    (run,) = scans[0].runs
    masks = run.prediction.masks.copy()
    masks[ORGANS.index(STOMACH)] = False
    missed = run._replace(prediction=replace(run.prediction, masks=masks))
    text = shown(written(score_scans([replace(scans[0], runs=(missed,)), *scans[1:]])))
    assert text.count("2 of 3 scans") == 1  # HD95 of the stomach
    assert "Organ missed 0 of 3 0 of 3 1 of 3" in text


def test_curves_are_drawn_where_the_log_is_given(
    written: Callable[..., str], html: str, tmp_path: Path
) -> None:
    log = tmp_path / "metrics.csv"
    log.write_text("step,loss,dice,dice_stomach\n100,0.9,,\n200,0.7,0.3,0.4\n300,0.5,0.5,0.6\n")
    curved = written(curves=log)
    assert len(images(curved, r"svg\+xml")) == 3
    assert "Training" in shown(curved)
    assert "Training" not in shown(html)


@pytest.mark.parametrize("content", ["", "step,loss\n", "epoch,loss\n1,2\n", "step,loss\n1,x\n"])
def test_a_log_that_is_none_is_refused(
    evaluation: Evaluation, tmp_path: Path, content: str
) -> None:
    log = tmp_path / "metrics.csv"
    log.write_text(content)
    with pytest.raises(InputError) as refused:
        write_report(evaluation, tmp_path / "x.html", data="d", curves=log)
    assert_one_sentence(refused, str(log))
    with pytest.raises(InputError) as absent:
        write_report(evaluation, tmp_path / "x.html", data="d", curves=tmp_path / "absent.csv")
    assert_one_sentence(absent, "absent.csv")
    assert not (tmp_path / "x.html").exists()


def test_a_report_without_pictures_is_still_a_report(
    written: Callable[..., str], evaluation: Evaluation, tmp_path: Path
) -> None:
    import json

    scores = tmp_path / "scores.json"
    scores.write_text(json.dumps(evaluation.as_dict()))
    html = written(Evaluation.read(scores))
    assert images(html, "png") == []
    assert "case2_day0" in shown(html)


def test_an_organ_that_is_nowhere_leaves_gaps_and_no_picture(written: Callable[..., str]) -> None:
    scan, truth = abdomen(SHAPE, seed=1, name="case1_day0")
    masks = truth.masks.copy()
    masks[2] = False
    nothing = replace(truth, masks=masks)
    found = score_scans([JudgedScan("case1_day0", "case1", (JudgedRun(scan, nothing, nothing),))])
    html = written(found)
    assert len(images(html, "png")) == 2 * 3
    assert "–" in shown(html)


def test_a_cancelled_or_impossible_report_leaves_the_old_one(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def cancel(progress: object) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        write_report(evaluation, path, data="d", report=cancel)
    assert path.read_text() == "old"
    with pytest.raises(InputError) as refused:
        write_report(evaluation, tmp_path, data="d")
    assert_one_sentence(refused, "is a folder")
    assert list(tmp_path.iterdir()) == [path]


def test_no_figure_and_no_setting_of_matplotlib_stays_behind(written: Callable[..., str]) -> None:
    from matplotlib import pyplot

    before = dict(matplotlib.rcParams)
    figures = pyplot.get_fignums()
    written()
    assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == figures


def test_the_same_evaluation_gives_the_same_report(written: Callable[..., str], html: str) -> None:
    assert written() == html


# --- pictures of slices ---------------------------------------------------------------------


def stomach_picture(scan: Scan, truth: Segmentation, index: int = 2, **facts: Any) -> SlicePicture:
    mask = truth.masks[truth.organs.index(STOMACH)][index]
    given = {"patient": "case1", "organ": STOMACH, "place": "slice 2", "dice": 1.0, **facts}
    return slice_picture(scan, index, mask, mask, **given)


@pytest.mark.parametrize(
    "turn",
    [
        Turn(),
        Turn(flip_rows=True),
        Turn(flip_columns=True),
        Turn(flip_rows=True, flip_columns=True),
    ],
)
def test_a_slice_hangs_upright_however_its_file_stores_it(turn: Turn) -> None:
    scan, truth = abdomen(SHAPE, seed=1)
    stored = stored_as(scan, turn)
    masks = np.ascontiguousarray(turn.back(truth.masks))
    turned = Segmentation(masks, stored.spacing, stored.affine)
    assert turn_upright(stored) == turn
    there, here = stomach_picture(stored, turned), stomach_picture(scan, truth)
    assert np.array_equal(there.grey, here.grey)
    assert np.array_equal(there.truth, here.truth)


def test_a_picture_is_a_square_that_holds_the_organ_and_does_not_leave_the_slice() -> None:
    scan, _ = abdomen((4, 200, 220), spacing=(3.0, 2.0, 1.5))
    for place in ((0, 0), (100, 110), (199, 219)):
        mask = np.zeros(scan.shape[1:], bool)
        mask[place] = True
        picture = slice_picture(
            scan, 1, mask, mask, patient="a", organ=STOMACH, place="slice 1", dice=1.0
        )
        rows, columns = picture.grey.shape
        assert rows * 2.0 == pytest.approx(columns * 1.5) == 180.0
        assert picture.truth.sum() == 1
    whole = np.ones(scan.shape[1:], bool)
    picture = slice_picture(
        scan, 1, whole, whole, patient="a", organ=STOMACH, place="slice 1", dice=1.0
    )
    assert picture.truth.shape == (200, 220)


def test_truth_is_drawn_in_the_organs_colour_and_the_prediction_in_white() -> None:
    grey = np.full((60, 60), 90, np.uint8)
    truth, prediction = np.zeros((2, 60, 60), bool)
    truth[10:30, 10:30] = True
    prediction[35:50, 35:50] = True
    picture = SlicePicture(
        "case1", "case1_day0", STOMACH, "slice 1", 0.0, 625, grey, prediction, truth, (2.0, 2.0)
    )
    pixels = np.asarray(Image.open(io.BytesIO(picture_png(picture))).convert("RGB")).astype(int)
    scale = pixels.shape[0] / 60

    def places(color: str) -> np.ndarray:
        rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
        return np.argwhere(np.abs(pixels - rgb).max(axis=2) < 30) / scale

    for color, (first, last) in ((STOMACH.color, (10, 30)), (PREDICTION_COLOR, (35, 50))):
        found = places(color)
        assert len(found) > 50
        assert found.min() == pytest.approx(first, abs=1)
        assert found.max() == pytest.approx(last, abs=1)


def flat_picture(dice: float, area: int = 10) -> SlicePicture:
    nothing = np.zeros((2, 2), np.uint8)
    empty = nothing.astype(bool)
    return SlicePicture("p", "s", STOMACH, f"{dice}", dice, area, nothing, empty, empty, (1.0, 1.0))


def test_a_gallery_keeps_the_best_the_worst_and_what_is_near_the_median() -> None:
    gallery = Gallery()
    values = np.random.default_rng(0).random(400)
    for value in values:
        gallery.add(flat_picture(float(value)))
    assert len(list(gallery)) <= 24
    best, median, worst = gallery.chosen("stomach", float(np.median(values)))
    assert best.dice == values.max()
    assert worst.dice == values.min()
    assert median.dice == pytest.approx(np.median(values), abs=0.05)
    assert gallery.chosen("liver", 0.5) == ()


def test_of_slices_that_are_equally_wrong_the_larger_error_is_the_worst() -> None:
    gallery = Gallery()
    for area in (5, 50, 20):
        gallery.add(flat_picture(0.0, area))
        gallery.add(flat_picture(1.0, area))
    best, _, worst = gallery.chosen("stomach", 0.5)
    assert (best.area, worst.area) == (50, 50)
    only = Gallery()
    only.add(flat_picture(0.5))
    assert len(only.chosen("stomach", 0.5)) == 1
