"""Each thing worth looking at is found where it is made, and only there."""

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from typer.testing import CliRunner

from gitract.cli.check import check
from gitract.contour_checks import Finding, UsualVolume, UsualVolumes, check_contours, usual_volumes
from gitract.errors import Cancelled
from gitract.io import write_segmentation
from gitract.organs import IGNORE, KNOWN_ORGANS, ORGANS, Organ, organ_named
from gitract.phantom import abdomen
from gitract.progress import Progress
from gitract.scan import Segmentation, Spacing

LARGE, SMALL, STOMACH = range(3)
SPACING = (3.0, 2.0, 1.5)
SHAPE = (40, 80, 90)
# In mm; all lie inside the scan and apart from each other.
CENTRES = {"large_bowel": (60, 40, 35), "small_bowel": (60, 122, 67), "stomach": (60, 40, 100)}
RADIUS = 31
Change = Callable[[np.ndarray], np.ndarray]


def ball(centre, radius: float = RADIUS, spacing: Spacing = SPACING, shape=SHAPE) -> np.ndarray:
    """Voxels within `radius` mm of `centre`, in mm."""
    axes = [
        (np.arange(size) * mm - at) / reach
        for size, mm, at, reach in zip(
            shape, spacing, centre, np.broadcast_to(radius, 3), strict=True
        )
    ]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    return z**2 + y**2 + x**2 < 1


def balls(**moved) -> Segmentation:
    """Three balls, each as large as an organ may be; nothing is the matter with them."""
    masks = [ball({**CENTRES, **moved}[organ.name]) for organ in ORGANS]
    return Segmentation(np.stack(masks), SPACING)


def with_organ(segmentation: Segmentation, organ: Organ, mask: np.ndarray) -> Segmentation:
    return replace(
        segmentation,
        masks=np.concatenate([segmentation.masks, mask[None]]),
        organs=(*segmentation.organs, organ),
    )


def changed(segmentation: Segmentation, masks: np.ndarray, **others) -> Segmentation:
    return replace(segmentation, masks=masks, **others)


def kinds(findings: tuple[Finding, ...]) -> list[tuple[str, ...]]:
    return [(one.kind, *(organ.name for organ in one.organs)) for one in findings]


def only(findings: tuple[Finding, ...]) -> Finding:
    [one] = findings
    return one


# --- defects, made in any phantom ---------------------------------------------------------


def middle_slice(mask: np.ndarray) -> int:
    return int(np.median(np.flatnonzero(mask.any(axis=(1, 2)))))


def hole(masks: np.ndarray) -> np.ndarray:
    """Four by five pixels at the deepest point of the stomach's middle slice."""
    place = np.zeros(masks.shape[1:], dtype=np.bool_)
    index = middle_slice(masks[STOMACH])
    free = masks[STOMACH, index] & ~masks[[LARGE, SMALL], index].any(axis=0)
    depth = ndimage.distance_transform_edt(free)
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    place[index, row - 2 : row + 2, column - 2 : column + 3] = True
    masks[STOMACH][place] = False
    return place


def island(masks: np.ndarray) -> np.ndarray:
    """A few voxels of small bowel in a corner of the scan."""
    place = np.zeros(masks.shape[1:], dtype=np.bool_)
    place[2:4, 3:7, 3:6] = True
    masks[SMALL] |= place
    return place


def gap(masks: np.ndarray) -> np.ndarray:
    """The stomach's middle slice is left out."""
    index = middle_slice(masks[STOMACH])
    place = np.zeros(masks.shape[1:], dtype=np.bool_)
    place[index] = masks[STOMACH, index]
    masks[STOMACH, index] = False
    return place


def jump(masks: np.ndarray) -> np.ndarray:
    """Half of the stomach is left out on its middle slice."""
    index = middle_slice(masks[STOMACH])
    rows = np.flatnonzero(masks[STOMACH, index].any(axis=1))
    place = np.zeros(masks.shape[1:], dtype=np.bool_)
    place[index, : int(rows.mean())] = masks[STOMACH, index, : int(rows.mean())]
    masks[STOMACH][place] = False
    return place


DEFECTS = {
    hole: ("hole", "stomach"),
    island: ("island", "small_bowel"),
    gap: ("gap", "stomach"),
    jump: ("jump", "stomach"),
}
PHANTOMS = {"balls": balls, "abdomen": lambda: abdomen()[1]}


def test_nothing_is_found_where_nothing_is_the_matter() -> None:
    assert check_contours(balls()) == ()


@pytest.mark.parametrize("phantom", PHANTOMS)
@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.__name__)
def test_a_defect_is_found_in_its_place_and_nothing_else_is_new(phantom, defect) -> None:
    clean = PHANTOMS[phantom]()
    masks = clean.masks.copy()
    place = defect(masks)
    before = {(one.kind, one.position) for one in check_contours(clean)}
    found = check_contours(changed(clean, masks))
    new = only(tuple(one for one in found if (one.kind, one.position) not in before))
    assert kinds((new,)) == [DEFECTS[defect]]
    assert place[new.position]
    assert new.severity == "look"


@pytest.mark.parametrize("organ", ORGANS, ids=lambda organ: organ.name)
def test_an_organ_that_is_nowhere_is_missing(organ) -> None:
    clean = balls()
    masks = clean.masks.copy()
    masks[ORGANS.index(organ)] = False
    one = only(check_contours(changed(clean, masks)))
    assert (one.kind, one.organs, one.position) == ("missing", (organ,), None)


def test_without_any_contour_every_organ_is_missing_and_no_more() -> None:
    empty = changed(balls(), np.zeros((3, *SHAPE), dtype=np.bool_))
    assert kinds(check_contours(empty)) == [("missing", organ.name) for organ in ORGANS]


def test_the_sentence_of_a_hole_says_where_and_how_large() -> None:
    clean = balls()
    masks = clean.masks.copy()
    masks[STOMACH, 19:22, 18:21, 64:68] = False
    masks[STOMACH, 20, 17, 64:68] = False
    one = only(check_contours(changed(clean, masks)))
    assert one.position is not None and one.position[0] == 20
    assert one.sentence == "Stomach: hole of 48 mm² on slice 20 (slices 19 to 21)."


@given(
    centre=st.tuples(*[st.floats(40, 80)] * 3),
    radius=st.tuples(*[st.floats(1, 39)] * 3),
    spacing=st.tuples(*[st.floats(1, 6)] * 3),
)
def test_a_convex_blob_inside_has_neither_holes_nor_gaps_nor_islands(
    centre, radius, spacing
) -> None:
    shape = tuple(int(120 / mm) + 1 for mm in spacing)
    masks = ball(centre, radius, spacing, shape)[None]
    one = Segmentation(masks, spacing, organs=ORGANS[LARGE : LARGE + 1])
    found = {kind for kind, *_ in kinds(check_contours(one))}
    assert found.isdisjoint({"hole", "gap", "island", "cut", "overlap"})


# --- holes and islands ----------------------------------------------------------------------


def test_pinholes_are_left_alone() -> None:
    clean = balls()
    masks = clean.masks.copy()
    masks[STOMACH, 20, 20, 64:70] = False  # 18 mm2
    assert check_contours(changed(clean, masks)) == ()


def test_what_another_organ_fills_is_no_hole() -> None:
    clean = balls()
    masks = clean.masks.copy()
    place = hole(masks)
    filled = with_organ(changed(clean, masks), organ_named("duodenum", KNOWN_ORGANS), place)
    assert "hole" not in {one.kind for one in check_contours(filled)}


def test_a_bay_that_is_open_is_no_hole() -> None:
    clean = balls()
    masks = clean.masks.copy()
    masks[STOMACH, 20, :20, 66] = False
    assert check_contours(changed(clean, masks)) == ()


@pytest.mark.parametrize(("organ", "severity"), [(SMALL, "note"), (LARGE, "look")])
def test_only_loops_of_small_bowel_may_enclose_more(organ, severity) -> None:
    clean = balls()
    masks = clean.masks.copy()
    z, y, x = (round(at / mm) for at, mm in zip(CENTRES[ORGANS[organ].name], SPACING, strict=True))
    masks[organ, z, y - 4 : y + 4, x - 4 : x + 4] = False
    one = only(check_contours(changed(clean, masks)))
    assert (one.kind, one.severity) == ("hole", severity)


def test_bowel_may_be_in_parts_and_a_stomach_may_not() -> None:
    second = ball((60, 40, 35), 18)  # 24 mL
    clean = balls(large_bowel=(60, 125, 67), small_bowel=(60, 125, 67))
    for organ, expected in ((LARGE, []), (STOMACH, [("island", "stomach")])):
        masks = clean.masks.copy()
        masks[SMALL if organ == LARGE else LARGE] = False
        masks[organ] |= second
        found = check_contours(changed(clean, masks))
        assert [kind for kind in kinds(found) if kind[0] == "island"] == expected


def test_specks_are_told_together() -> None:
    clean = balls()
    masks = clean.masks.copy()
    for index in (3, 5, 8):
        masks[LARGE, index, 4, index] = True
    one = only(check_contours(changed(clean, masks)))
    assert one.position == (3, 4, 3)
    assert one.sentence == "Large bowel: 3 specks under 0.1 mL between slices 3 and 8."


def test_a_small_organ_may_have_small_parts() -> None:
    nodes = ball((30, 20, 20), 5) | ball((90, 20, 20), 5)
    found = check_contours(with_organ(balls(), organ_named("gtv", KNOWN_ORGANS), nodes))
    assert found == ()


# --- from slice to slice ----------------------------------------------------------------------


def test_a_part_that_is_left_out_on_one_slice_is_a_gap() -> None:
    clean = balls()
    masks = clean.masks.copy()
    masks[LARGE] |= ball((60, 130, 15), 12)
    assert check_contours(changed(clean, masks)) == ()
    masks[LARGE, 20, 50:] = False
    one = only(check_contours(changed(clean, masks)))
    assert (one.kind, one.organs[0].name) == ("gap", "large_bowel")
    assert one.position == (20, 65, 10)


def test_a_stray_voxel_on_either_side_of_a_slice_is_no_gap() -> None:
    masks = balls().masks
    masks[LARGE, [3, 5], 4, 4] = True
    assert "gap" not in {one.kind for one in check_contours(changed(balls(), masks))}


def test_two_slices_that_do_not_overlap_have_no_gap_between() -> None:
    masks = np.zeros((1, *SHAPE), dtype=np.bool_)
    masks[0, 10, 10:20, 10:20] = True
    masks[0, 12, 40:50, 10:20] = True
    found = check_contours(Segmentation(masks, SPACING, organs=ORGANS[:1]))
    assert "gap" not in {one.kind for one in found}


def test_an_area_that_stays_different_is_told_once() -> None:
    masks = np.zeros((1, *SHAPE), dtype=np.bool_)
    masks[0, 10:20, 20:40, 20:40] = True  # 1200 mm2
    masks[0, 20:30, 10:70, 10:70] = True  # 10800 mm2
    one = only(check_contours(Segmentation(masks, SPACING, organs=ORGANS[:1])))
    assert one.position is not None
    assert (one.kind, one.position[0]) == ("jump", 20)
    assert "from 1200 to 10800 mm² between slices 19 and 20" in one.sentence


def test_thicker_slices_may_differ_by_more() -> None:
    masks = np.zeros((1, *SHAPE), dtype=np.bool_)
    masks[0, 10:20, 20:50, 20:60] = True  # 3600 mm2
    masks[0, 15, 20:30] = False  # 2400 mm2
    thin = Segmentation(masks, SPACING, organs=ORGANS[:1])
    thick = Segmentation(masks, (9.0, *SPACING[1:]), organs=ORGANS[:1])
    assert kinds(check_contours(thin)) == [("jump", "large_bowel")]
    assert check_contours(thick) == ()


def test_slices_that_were_not_segmented_are_not_held_against_an_organ() -> None:
    clean = balls()
    masks = np.zeros_like(clean.masks)
    masks[STOMACH, [19, 21]] = clean.masks[STOMACH, [19, 21]]
    assert {"missing", "volume", "gap"} == {
        one.kind for one in check_contours(changed(clean, masks))
    }
    part = changed(clean, masks, provenance={"slices": [19, 21]})
    assert check_contours(part) == ()


# --- volume, field of view, overlap ------------------------------------------------------------


@pytest.mark.parametrize(("low", "high", "word"), [(1000, 2000, "little"), (1, 10, "much")])
def test_a_volume_far_outside_the_usual_is_told_with_it(low, high, word) -> None:
    known = UsualVolume(low_ml=low, median_ml=(low + high) / 2, high_ml=high, days=9, patients=5)
    usual = UsualVolumes(source="a test", organs={"stomach": known})
    one = only(check_contours(balls(), usual=usual))
    assert (one.kind, one.organs[0].name) == ("volume", "stomach")
    assert one.position is not None and balls().masks[(STOMACH, *one.position)]
    assert f"{balls().volumes_ml['stomach']:.0f} mL, unusually {word}" in one.sentence
    assert f"{low} to {high} mL" in one.sentence


@pytest.mark.parametrize(
    ("centre", "side", "axis", "index"),
    [
        ((0, 40, 100), "first slice", 0, 0),
        ((117, 40, 100), "last slice", 0, -1),
        ((60, 0, 100), "first row", 1, 0),
        ((60, 40, 134), "last column", 2, -1),
    ],
)
def test_an_organ_cut_by_the_field_of_view_keeps_its_volume_and_is_not_called_small(
    centre, side, axis, index
) -> None:
    cut = balls(stomach=centre)
    assert cut.volumes_ml["stomach"] < usual_volumes().organs["stomach"].low_ml / 2
    one = only(check_contours(cut))
    assert (one.kind, one.severity) == ("cut", "note")
    assert one.position is not None and cut.masks[(STOMACH, *one.position)]
    assert one.position[axis] == range(SHAPE[axis])[index]
    assert f"({side})" in one.sentence
    assert f"{cut.volumes_ml['stomach']:.0f} mL" in one.sentence


def test_a_body_runs_through_the_scan_and_holds_the_organs() -> None:
    body = np.zeros(SHAPE, dtype=np.bool_)
    body[:, 2:-2, 2:-2] = True
    assert check_contours(with_organ(balls(), organ_named("body", KNOWN_ORGANS), body)) == ()
    body[:, 2:-2, -2:] = True
    cut = check_contours(with_organ(balls(), organ_named("body", KNOWN_ORGANS), body))
    assert "(last column)" in only(cut).sentence


def test_organs_that_overlap_are_told_as_a_pair() -> None:
    both = balls(stomach=(60, 40, 80))
    one = only(check_contours(both))
    shared = both.masks[LARGE] & both.masks[STOMACH]
    assert kinds((one,)) == [("overlap", "large_bowel", "stomach")]
    assert one.position is not None and shared[one.position]
    assert f"{np.count_nonzero(shared) * np.prod(SPACING) / 1000:.1f} mL" in one.sentence


def test_a_target_may_lie_in_an_organ_and_ignored_regions_are_not_looked_at() -> None:
    target = ball((60, 40, 100), 15)
    for organ in (organ_named("gtv", KNOWN_ORGANS), Organ(40, "ptv_50", "#ffffff")):
        assert check_contours(with_organ(balls(), organ, target)) == ()
    stray = np.zeros(SHAPE, dtype=np.bool_)
    stray[[2, 4], 3, 3] = True
    assert check_contours(with_organ(balls(), IGNORE, stray)) == ()


# --- all together -------------------------------------------------------------------------------


def test_findings_come_by_slice_and_are_json_ready() -> None:
    masks = balls(small_bowel=(0, 122, 67)).masks
    masks[LARGE] = False
    island(masks)
    hole(masks)
    found = check_contours(changed(balls(), masks))
    assert [one.kind for one in found] == ["missing", "cut", "island", "hole"]
    rows = json.loads(json.dumps([one.as_dict() for one in found]))
    assert rows[0]["position"] is None
    assert rows[-1]["organs"] == ["stomach"]
    assert rows[-1]["position"] == list(found[-1].position or ())


def test_it_reports_each_organ_and_can_be_cancelled() -> None:
    told: list[Progress] = []
    check_contours(balls(), report=told.append)
    assert [one.done for one in told] == [0, 1, 2, 3]

    def cancel(progress: Progress) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        check_contours(balls(), report=cancel)


# --- the command --------------------------------------------------------------------------------


@pytest.fixture
def command() -> Callable[..., SimpleNamespace]:
    app = typer.Typer()
    app.command()(check)

    def run(*arguments: object) -> SimpleNamespace:
        result = CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)
        return SimpleNamespace(code=result.exit_code, out=result.stdout)

    return run


def test_the_command_lists_what_to_look_at(command, tmp_path: Path) -> None:
    masks = balls().masks
    place = hole(masks)
    path = write_segmentation(changed(balls(), masks), tmp_path / "organs.nii.gz")
    assert "hole" in command(path).out
    result = command(path, "--json")
    assert result.code == 0
    [row] = json.loads(result.out)["findings"]
    assert (row["kind"], row["organs"]) == ("hole", ["stomach"])
    assert place[tuple(row["position"])]


def test_the_command_says_that_nothing_was_found(command, tmp_path: Path) -> None:
    path = write_segmentation(balls(), tmp_path / "organs.nii.gz")
    assert "Nothing to look at" in command(path).out
    assert json.loads(command(path, "--json").out)["findings"] == []


# --- experts' contours ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "training" / "usual_volumes.py"
    spec = importlib.util.spec_from_file_location("usual_volumes_script", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.data
def test_the_volumes_that_ship_are_those_of_the_data(shared_data: Path, script) -> None:
    table = shared_data / "labels_only" / "native_rle_37days.csv"
    assert script.usual(table) == usual_volumes()


@pytest.mark.data
def test_contours_of_experts_give_fewer_than_one_finding_a_day(shared_data: Path, script) -> None:
    table = shared_data / "labels_only" / "native_rle_37days.csv"
    found = [check_contours(day) for day in script.whole_days(table)]
    look = [sum(one.severity == "look" for one in day) for day in found]
    assert len(look) == 37
    assert sum(look) < 37
    assert look.count(0) > 37 / 2
    assert max(look) <= 5
