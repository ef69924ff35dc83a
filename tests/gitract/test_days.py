"""Days of one patient: aligned, contours carried over, organs compared; on the command line."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from gitract.baseline import slice_digests
from gitract.days import (
    Alignment,
    Day,
    DayOrgan,
    DayTable,
    align,
    compare_days,
    propagated,
    resampled,
    shift_in_words,
    without_position,
)
from gitract.errors import Cancelled, InputError
from gitract.io import read_reference, read_scan, read_segmentation, write_scan, write_segmentation
from gitract.metrics import dice
from gitract.organs import IGNORE, ORGANS, Organ
from gitract.phantom import abdomen, write_day
from gitract.progress import Progress
from gitract.scan import NiftiAxes, Scan, Segmentation, axial_affine
from sentences import assert_one_sentence

SPACING = (3.0, 4.0, 3.5)
STOMACH = 2  # its place in ORGANS


# --- days made by code ------------------------------------------------------------------


def middle_of(scan: Scan) -> np.ndarray:
    return np.asarray((scan.affine @ [*(np.array(scan.shape) - 1) / 2, 1.0])[:3])


def patient_moved(scan: Scan, angles: tuple[float, ...], shift: tuple[float, ...]) -> np.ndarray:
    """4x4, LPS in mm: turned about the middle of a scan, then shifted."""
    middle = middle_of(scan)
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    motion[:3, 3] = middle + shift - motion[:3, :3] @ middle
    return motion


def scanned_again(
    scan: Scan, truth: Segmentation, motion: np.ndarray, spacing: tuple[float, float, float]
) -> Day:
    """The same patient after a motion, on a grid of another spacing with the same middle."""
    extent = np.array(scan.shape) * scan.spacing
    shape = tuple(int(n) for n in np.round(extent / spacing))
    affine = axial_affine(spacing)
    affine[:3, 3] = middle_of(scan) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    matrix = np.linalg.inv(motion @ scan.affine) @ affine

    def seen(array: np.ndarray) -> np.ndarray:
        return np.asarray(
            ndimage.affine_transform(
                array.astype(np.float32), matrix[:3, :3], matrix[:3, 3], shape, order=1
            )
        )

    name = "later day"
    masks = np.stack([seen(mask) > 0.5 for mask in truth.masks])
    later = Scan(seen(scan.voxels).astype(np.uint16), spacing, affine, name)
    return Day(later, Segmentation(masks, spacing, affine, truth.organs, name))


@pytest.fixture(scope="module")
def first() -> Day:
    """Organs that stay in view when the patient moves."""
    scan, truth = abdomen((28, 72, 88), spacing=SPACING)
    around = ((6, 6), (0, 0), (0, 0))
    voxels, masks = np.pad(scan.voxels, around, "edge"), np.pad(truth.masks, ((0, 0), *around))
    name = "first day"
    return Day(Scan(voxels, SPACING, name=name), Segmentation(masks, SPACING, name=name))


MOTION = ((2.0, -3.0, 4.0), (9.0, -7.0, 12.0))


@pytest.fixture(scope="module")
def later(first: Day) -> Day:
    return scanned_again(*first, patient_moved(first.scan, *MOTION), (4.0, 3.0, 4.5))


@pytest.fixture(scope="module")
def alignment(first: Day, later: Day) -> Alignment:
    return align(later.scan, first.scan)


def as_it_lies(moving: str = "moving", fixed: str = "fixed") -> Alignment:
    return Alignment(moving, fixed, np.eye(4), (0.0, 0.0, 0.0), 0.0, 0.5, 0.5)


def boxes(*places: tuple[slice, slice, slice] | None, name: str = "day") -> Day:
    """A day whose organs are boxes; None for an organ that is not drawn."""
    masks = np.zeros((len(places), 12, 20, 24), np.bool_)
    for mask, place in zip(masks, places, strict=True):
        if place is not None:
            mask[place] = True
    scan = Scan(masks.any(axis=0).astype(np.uint8), (3.0, 2.0, 1.0), name=name)
    return Day(scan, Segmentation(masks, (3.0, 2.0, 1.0), organs=ORGANS[: len(places)], name=name))


BOX = (slice(2, 6), slice(4, 9), slice(6, 16))


def row_of(table: DayTable, organ: str, day: str) -> DayOrgan:
    [row] = [one for one in table.rows if (one.organ.name, one.day) == (organ, day)]
    return row


# --- aligning ---------------------------------------------------------------------------


def test_a_known_motion_is_found_on_another_grid(first: Day, later: Day, alignment) -> None:
    left = alignment.matrix @ patient_moved(first.scan, *MOTION)
    middle = middle_of(first.scan)
    assert np.abs(left[:3, :3] @ middle + left[:3, 3] - middle).max() < min(SPACING)
    turned = np.degrees(np.arccos(min(1.0, (np.trace(left[:3, :3]) - 1) / 2)))
    assert turned < 1.0
    true_angle = Rotation.from_euler("xyz", MOTION[0], degrees=True).magnitude()
    assert alignment.rotation_deg == pytest.approx(np.degrees(true_angle), abs=1.0)
    assert alignment.shift_mm == pytest.approx([-mm for mm in MOTION[1]], abs=3.0)
    assert alignment.correlation_before < 0.8 < 0.95 < alignment.correlation


def test_fields_of_view_that_begin_elsewhere_are_found(first: Day) -> None:
    # As in folders of slices, whose coordinates all begin at the first voxel.
    lower = Scan(first.scan.voxels[12:], SPACING, name="lower")
    found = align(lower, Scan(first.scan.voxels, SPACING, name="whole"))
    assert found.shift_mm == pytest.approx((0.0, 0.0, -36.0), abs=3.0)


def test_the_same_scans_always_give_the_same_answer(first: Day, later: Day, alignment) -> None:
    again = align(later.scan, first.scan)
    np.testing.assert_allclose(again.matrix, alignment.matrix, atol=1e-6)


def test_a_scan_stays_where_it_fits_best(first: Day) -> None:
    found = align(first.scan, replace(first.scan, name="copy"))
    assert found.is_identity
    assert found.correlation == pytest.approx(1.0)
    assert "stays as it lies" in found.sentence


def test_how_rows_and_columns_are_stored_does_not_matter(first: Day, alignment, later) -> None:
    affine = later.scan.affine.copy()
    affine[:3, 3] += affine[:3, 1] * (later.scan.shape[1] - 1)
    affine[:3, 1] *= -1
    stored = replace(later.scan, voxels=later.scan.voxels[:, ::-1], affine=affine)
    found = align(stored, first.scan)
    middle = [*middle_of(first.scan), 1.0]
    assert np.abs((found.matrix - alignment.matrix) @ middle).max() < 1.0


@pytest.mark.parametrize("step", [0, 3])
def test_cancel_ends_the_search(first: Day, later: Day, step: int) -> None:
    told: list[Progress] = []

    def report(progress: Progress) -> None:
        told.append(progress)
        if len(told) > step:
            raise Cancelled

    with pytest.raises(Cancelled):
        align(later.scan, first.scan, report=report)
    assert len(told) == step + 1


def test_what_cannot_be_aligned_is_told(first: Day) -> None:
    thin = Scan(first.scan.voxels[:3], SPACING, name="thin")
    with pytest.raises(InputError) as error:
        align(thin, first.scan)
    assert_one_sentence(error, "thin", "3 x 72 x 88")
    blank = Scan(np.zeros((8, 20, 20), np.uint8), SPACING, name="blank")
    with pytest.raises(InputError) as error:
        align(blank, first.scan)
    assert_one_sentence(error, "blank", "first day")


def test_a_scan_may_not_say_where_it_lies(first: Day, later: Day) -> None:
    assert without_position(first.scan)
    assert not without_position(later.scan)
    unplaced = NiftiAxes(placed=False)
    assert without_position(replace(later.scan, stored=unplaced))


def test_shifts_are_told_in_words() -> None:
    assert shift_in_words((3.06, -12.0, 0.2)) == "3.1 mm left, 12.0 mm anterior"
    assert shift_in_words((-1, 1, 1)) == "1.0 mm right, 1.0 mm posterior, 1.0 mm superior"
    assert shift_in_words((0.0, 0.4, -0.4)) == "less than 0.5 mm to any side"


# --- carrying over ----------------------------------------------------------------------


def test_contours_land_on_the_organs_of_the_other_day(first: Day, later: Day, alignment) -> None:
    carried = propagated(later.contours, alignment, first.scan).on(first.scan)
    for ours, truth in zip(carried.masks, first.contours.masks, strict=True):
        found = dice(ours, truth)
        assert found is not None
        assert found > 0.9


def test_what_is_carried_says_where_from_and_knows_its_edits(first: Day, alignment, later) -> None:
    noted = replace(later.contours, provenance={"model": "a model", "accepted": [1, 2]})
    carried = propagated(noted, alignment, first.scan)
    assert carried.name == "first day"
    assert carried.provenance["propagated_from"] == "later day"
    assert carried.provenance["baseline"] == slice_digests(carried.labels().array)
    assert carried.provenance.keys().isdisjoint({"model", "accepted"})
    json.dumps(carried.provenance)


def test_scan_and_contours_are_carried_alike(first: Day, later: Day, alignment) -> None:
    stomach = later.contours.masks[STOMACH]
    laid = resampled(replace(later.scan, voxels=stomach * 200.0), alignment, first.scan)
    carried = propagated(later.contours, alignment, first.scan).masks[STOMACH]
    assert np.all(laid[carried] > 99.9)
    assert np.all(laid[~carried] < 100.1)
    assert resampled(later.scan, alignment, first.scan).dtype == later.scan.voxels.dtype


SIDES = st.tuples(st.integers(0, 9), st.integers(1, 9)).map(lambda at: slice(at[0], sum(at)))
PLACES = st.tuples(SIDES, SIDES, SIDES)


@settings(max_examples=25)
@given(places=st.tuples(PLACES, PLACES), shift=st.tuples(*[st.integers(-5, 5)] * 3))
def test_a_shift_by_whole_voxels_carries_every_voxel(places, shift) -> None:
    day = boxes(*places)
    move = np.eye(4)
    move[:3, 3] = day.scan.affine[:3, :3] @ shift
    carried = propagated(day.contours, replace(as_it_lies(), matrix=move), day.scan)
    margin = np.pad(day.contours.masks, ((0, 0), (5, 5), (5, 5), (5, 5)))
    expected = np.roll(margin, shift, axis=(1, 2, 3))[:, 5:-5, 5:-5, 5:-5]
    assert np.array_equal(carried.masks, expected)


def test_thinner_slices_keep_the_volume(first: Day) -> None:
    affine = axial_affine((1.5, 2.0, 3.5))
    finer = Scan(np.zeros((80, 144, 88), np.uint8), (1.5, 2.0, 3.5), affine, "finer")
    carried = propagated(first.contours, as_it_lies(), finer)
    for name, ml in first.contours.volumes_ml.items():
        assert carried.volumes_ml[name] == pytest.approx(ml, rel=0.04)


def test_regions_to_ignore_stay_behind_and_lost_organs_are_named() -> None:
    day = boxes(BOX, BOX)
    contours = replace(day.contours, organs=(ORGANS[0], IGNORE))
    away = np.eye(4)
    away[0, 3] = 1000.0
    carried = propagated(contours, replace(as_it_lies("day 0", "day 2"), matrix=away), day.scan)
    assert carried.organs == (ORGANS[0],)
    assert carried.remarks == ("Large bowel of day 0 lies outside day.",)


def test_cancel_while_carrying_leaves_the_contours() -> None:
    day = boxes(BOX)
    before = day.contours.masks.copy()

    def report(_: Progress) -> None:
        raise Cancelled

    for carry in (
        lambda: propagated(day.contours, as_it_lies(), day.scan, report=report),
        lambda: resampled(day.scan, as_it_lies(), day.scan, report=report),
        lambda: compare_days([day, day], report=report),
    ):
        with pytest.raises(Cancelled):
            carry()
    assert np.array_equal(day.contours.masks, before)


# --- comparing --------------------------------------------------------------------------


def test_the_numbers_of_boxes_are_exact() -> None:
    before = boxes(BOX, name="day 0")  # 4 x 5 x 10 voxels of 6 mm³
    after = boxes((slice(2, 6), slice(4, 9), slice(8, 18)), name="day 1")  # 2 mm to the left
    larger = boxes((slice(2, 6), slice(4, 10), slice(6, 16)), name="day 2")
    table = compare_days([before, after, larger])
    assert table.days == ("day 0", "day 1", "day 2")
    organ = ORGANS[0]
    assert row_of(table, "large_bowel", "day 0") == DayOrgan(organ, "day 0", 1.2)
    moved = row_of(table, "large_bowel", "day 1")
    assert (moved.volume_ml, moved.change) == (1.2, 0.0)
    assert moved.shift_mm == pytest.approx((2.0, 0.0, 0.0))
    assert moved.shift_aligned_mm is None
    assert moved.moved_mm == pytest.approx(2.0)
    assert moved.dice == pytest.approx(0.8)
    grown = row_of(table, "large_bowel", "day 2")
    assert grown.volume_ml == pytest.approx(1.44)
    assert grown.change == pytest.approx(0.2)
    assert grown.shift_mm == pytest.approx((0.0, 1.0, 0.0))
    assert grown.dice == pytest.approx(2 * 200 / 440)


def test_an_alignment_takes_the_patients_motion_out(first: Day, later: Day, alignment) -> None:
    table = compare_days([first, later], [alignment])
    for organ in ORGANS:
        row = row_of(table, organ.name, "later day")
        assert row.moved_mm < 2.0 < 10.0 < np.linalg.norm(row.shift_mm)
        assert row.dice > 0.9
        assert abs(row.change) < 0.1
    json.dumps(table.as_json(), allow_nan=False)


def test_overlap_is_of_what_both_scans_show() -> None:
    whole = boxes((slice(2, 10), slice(4, 9), slice(6, 16)), name="whole")
    scan = Scan(whole.scan.voxels[:6], (3.0, 2.0, 1.0), name="part")
    part = Day(scan, Segmentation(whole.contours.masks[:, :6], (3.0, 2.0, 1.0),
                                  organs=ORGANS[:1], name="part"))  # fmt: skip
    table = compare_days([whole, part])
    assert row_of(table, "large_bowel", "part").dice == 1.0
    assert any("beyond the last slice of part" in remark for remark in table.remarks)


def test_an_organ_that_a_day_lacks_is_told_and_never_a_number() -> None:
    before, after = boxes(BOX, BOX, None, name="day 0"), boxes(BOX, None, BOX, name="day 1")
    table = compare_days([before, after])
    gone, new = row_of(table, "small_bowel", "day 1"), row_of(table, "stomach", "day 1")
    assert gone == DayOrgan(ORGANS[1], "day 1", None)
    assert new == DayOrgan(ORGANS[2], "day 1", 1.2)
    assert "Small bowel has no contours on day 1." in table.remarks
    assert "Stomach has no contours on day 0." in table.remarks
    json.dumps(table.as_json(), allow_nan=False)


def test_organs_are_the_same_where_their_names_are() -> None:
    before, after = boxes(BOX, name="day 0"), boxes(BOX, name="day 1")
    other = replace(after.contours, organs=(Organ(9, "large_bowel", "#000000"),))
    table = compare_days([before, Day(after.scan, other)])
    assert [organ.name for organ in table.organs] == ["large_bowel"]
    assert row_of(table, "large_bowel", "day 1").dice == 1.0


def test_days_without_a_position_are_named() -> None:
    table = compare_days([boxes(BOX, name="day 0"), boxes(BOX, name="day 1")], [as_it_lies()])
    assert "day 0 and day 1 do not say where" in table.remarks[0]


def test_what_cannot_be_compared_is_refused() -> None:
    day = boxes(BOX)
    with pytest.raises(InputError) as error:
        compare_days([day])
    assert_one_sentence(error, "two days")
    with pytest.raises(InputError) as error:
        compare_days([day, day, day], [as_it_lies()])
    assert_one_sentence(error, "1 alignments for 2")
    smaller = replace(day.contours, masks=day.contours.masks[:, :5])
    with pytest.raises(InputError) as error:
        compare_days([day, (day.scan, smaller)])
    assert_one_sentence(error, "another grid")


# --- a real patient ---------------------------------------------------------------------


@pytest.mark.data
def test_two_real_days_fit_better_once_aligned(shared_data: Path) -> None:
    folder = shared_data / "uwm_stacks" / "train" / "case20"
    known = []
    for name in ("case20_day0", "case20_day22"):
        scan, truth = read_scan(folder / name), read_reference(folder / name)
        assert truth is not None
        known.append(Day(scan, truth.on(scan)))
    found = align(known[1].scan, known[0].scan)
    assert found.correlation_before is not None
    assert found.correlation > found.correlation_before + 0.03
    assert found.rotation_deg < 6
    # The bowel moves within the body, so that its overlap hardly gains from aligning that.
    overlaps = [
        np.mean([row.dice for row in table.rows if row.dice is not None])
        for table in (compare_days(known), compare_days(known, [found]))
    ]
    assert overlaps[1] > overlaps[0] - 0.005


# --- the command line -------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, first: Day) -> Path:
    """Two days as the competition stores them, the second 9 mm further down."""
    folder = tmp_path_factory.mktemp("days")
    for name, part in (("case1_day0", slice(0, 37)), ("case1_day2", slice(3, 40))):
        scan = Scan(first.scan.voxels[part], SPACING, name=name)
        truth = Segmentation(first.contours.masks[:, part], SPACING, name=name)
        write_day(folder, scan, truth)
    return folder / "train" / "case1"


def test_days_are_compared_on_the_command_line(cli, folder: Path) -> None:
    done = cli("days", "--reference", folder / "case1_day0", folder / "case1_day2", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["days"] == ["case1_day0", "case1_day2"]
    [alignment] = told["alignments"]
    assert alignment["shift_mm"] == pytest.approx([0, 0, -9], abs=2)
    later = [row for row in told["organs"] if row["day"] == "case1_day2"]
    assert [row["organ"] for row in later] == ["large_bowel", "small_bowel", "stomach"]
    assert all(row["moved_mm"] < 5 for row in later)


def test_days_with_files_of_contours_are_shown_as_a_table(cli, folder, tmp_path) -> None:
    pairs: list[Path] = []
    for day in ("case1_day0", "case1_day2"):
        truth = read_reference(folder / day)
        assert truth is not None
        pairs += [folder / day, write_segmentation(truth, tmp_path / f"{day}.tif")]
    done = cli("days", *pairs, "--as-they-lie")
    assert done.code == 0, done.err
    assert "9.0 mm superior" in done.out
    assert "do not say where" in done.out
    refused = cli("days", *pairs[:3])
    assert refused.code == 2
    assert "has no partner" in refused.err
    refused = cli("days", *pairs[:2])
    assert refused.code == 2
    assert "two days" in refused.err


def test_contours_are_carried_to_another_day_on_the_command_line(cli, folder, tmp_path) -> None:
    truth = read_reference(folder / "case1_day0")
    assert truth is not None
    contours = write_segmentation(truth, tmp_path / "day0.tif")
    new = write_scan(read_scan(folder / "case1_day2"), tmp_path / "day2.nii.gz")
    written = tmp_path / "start.nii.gz"
    done = cli("propagate", folder / "case1_day0", contours, new, "-o", written)
    assert done.code == 0, done.err
    assert "Nobody has looked at it" in done.out
    carried = read_segmentation(written)
    assert carried.provenance["propagated_from"] == "case1_day0"
    expected = read_reference(folder / "case1_day2")
    assert expected is not None
    for ours, true in zip(carried.on(read_scan(new)).masks, expected.on(read_scan(new)).masks,
                          strict=True):  # fmt: skip
        found = dice(ours, true)
        assert found is not None
        assert found > 0.9
