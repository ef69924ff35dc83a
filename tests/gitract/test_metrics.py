"""Overlap, surfaces, the competition's score and intervals: against others, and by hand."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.spatial.distance import cdist, directed_hausdorff

from gitract.bootstrap import bootstrap_interval, mean_interval
from gitract.competition_score import (
    MaskPair,
    ScanParts,
    competition_parts,
    competition_score,
    hausdorff_a,
    hausdorff_b,
)
from gitract.io.rle import decode_rle
from gitract.metrics import Overlap, dice, mean_known, mean_over_patients, patient_means
from gitract.scan import Spacing
from gitract.surface import SurfaceDistances, surface_distances

SPACING = (3.0, 1.5, 1.2)
Pair = tuple[np.ndarray, np.ndarray]


def blobs(seed: int, shape: tuple[int, int, int] = (9, 14, 13), share: float = 0.3) -> np.ndarray:
    """A mask of random lumps, some of them at the edges."""
    from scipy import ndimage

    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.2)
    return np.asarray(noise > np.quantile(noise, 1 - share))


def random_pairs() -> Iterator[Pair]:
    for seed in range(12):
        yield blobs(seed, share=0.05 + seed / 20), blobs(seed + 100, share=0.2)


masks = arrays.arrays(np.bool_, st.tuples(*[st.integers(1, 6)] * 3))
pairs = masks.flatmap(
    lambda mask: st.tuples(
        st.just(mask), arrays.arrays(np.bool_, mask.shape, elements=st.booleans())
    )
)
quick = settings(max_examples=30)


# --- overlap --------------------------------------------------------------------------------


def test_overlap_of_small_cases() -> None:
    a, b = np.array([[1, 1, 0, 0]], bool), np.array([[0, 1, 1, 0]], bool)
    nothing = np.zeros_like(a)
    assert dice(a, b) == 0.5
    assert Overlap.of(a, b).iou == pytest.approx(1 / 3)
    assert dice(a, a) == Overlap.of(a, a).iou == 1.0
    for one, other in ((a, nothing), (nothing, a)):
        assert dice(one, other) == Overlap.of(one, other).iou == 0.0
    assert dice(nothing, nothing) is None
    assert Overlap.of(nothing, nothing).iou is None


def test_counts_of_slices_add_up_to_those_of_the_stack() -> None:
    a, b = blobs(1), blobs(2)
    by_slice = [Overlap.of(*pair) for pair in zip(a, b, strict=True)]
    assert Overlap.total(by_slice) == Overlap.of(a, b)
    assert Overlap.total([]) == (0, 0, 0)


@quick
@given(pairs)
def test_overlap_is_symmetric_and_bounded(pair: Pair) -> None:
    there, back = Overlap.of(*pair), Overlap.of(*pair[::-1])
    assert there.dice == back.dice
    assert there.iou == back.iou
    if there.dice is not None and there.iou is not None:
        assert 0 <= there.iou <= there.dice <= 1
        assert there.dice == pytest.approx(2 * there.iou / (1 + there.iou))


def test_overlap_agrees_with_monai() -> None:
    from monai.metrics import compute_dice, compute_iou

    for a, b in random_pairs():
        ours = Overlap.of(a, b)
        y, x = (torch.from_numpy(mask)[None, None] for mask in (a, b))
        assert ours.dice == pytest.approx(compute_dice(y, x).item(), abs=1e-6)
        assert ours.iou == pytest.approx(compute_iou(y, x).item(), abs=1e-6)


def test_a_patient_with_many_scans_counts_once() -> None:
    scores = [
        ("case1", "stomach", 0.9),
        ("case2", "stomach", 0.3),
        ("case2", "stomach", 0.5),
        ("case2", "stomach", None),
        ("case3", "stomach", None),
        ("case3", "large_bowel", 0.1),
    ]
    assert mean_over_patients(scores) == pytest.approx({"stomach": 0.65, "large_bowel": 0.1})
    assert mean_over_patients([]) == {}
    stomach = patient_means((patient, score) for patient, _, score in scores[:5])
    assert stomach == pytest.approx({"case1": 0.9, "case2": 0.4})


def test_what_is_not_known_does_not_enter_a_mean() -> None:
    assert mean_known([0.5, None, 1.0]) == 0.75
    assert mean_known([None]) is None
    assert mean_known([]) is None


# --- surfaces -------------------------------------------------------------------------------


def brute_surface(mask: np.ndarray) -> np.ndarray:
    """Voxels with a face to the outside, one by one."""
    padded = np.pad(mask, 1)
    found = [
        index
        for index in np.argwhere(padded)
        if any(
            not padded[tuple(index + sign * np.eye(3, dtype=int)[axis])]
            for axis in range(3)
            for sign in (1, -1)
        )
    ]
    return np.array(found) - 1


def brute_distances(a: np.ndarray, b: np.ndarray, spacing: Spacing) -> SurfaceDistances:
    between = cdist(brute_surface(a) * spacing, brute_surface(b) * spacing)
    return SurfaceDistances(between.min(axis=1), between.min(axis=0))


def test_surface_distances_are_those_of_brute_force() -> None:
    for a, b in random_pairs():
        ours, expected = surface_distances(a, b, SPACING), brute_distances(a, b, SPACING)
        assert np.sort(ours.to_truth) == pytest.approx(np.sort(expected.to_truth))
        assert np.sort(ours.to_prediction) == pytest.approx(np.sort(expected.to_prediction))


def test_hd95_and_surface_dice_of_shifted_boxes_by_hand() -> None:
    a = np.zeros((1, 8, 12), bool)
    a[0, 2:6, 1:4] = True
    b = np.roll(a, 5, axis=2)
    found = surface_distances(a, b, (3.0, 1.0, 2.0))
    # Columns 1, 2, 3 against 6, 7, 8: each is surface, 3 to 5 columns of 2 mm away.
    assert sorted(set(found.to_truth)) == [6.0, 8.0, 10.0]
    assert found.hd95 == pytest.approx(10.0)
    assert found.dice(6.0) == pytest.approx(1 / 3)  # exactly the tolerance is within it
    assert found.dice(5.9) == 0.0
    assert found.dice(8.0) == pytest.approx(2 / 3)


def test_hd95_is_the_larger_of_two_directed_percentiles() -> None:
    distances = SurfaceDistances(np.arange(21.0), np.zeros(5))
    assert distances.hd95 == pytest.approx(19.0)
    assert SurfaceDistances(np.zeros(5), np.arange(21.0)).hd95 == pytest.approx(19.0)


def test_a_surface_without_counterpart_has_no_hd95_and_no_surface_dice() -> None:
    a, nothing = blobs(1), np.zeros((9, 14, 13), bool)
    for pair in ((a, nothing), (nothing, a)):
        found = surface_distances(*pair, SPACING)
        assert found.hd95 is None
        assert found.dice(3.0) == 0.0
    both = surface_distances(nothing, nothing, SPACING)
    assert both.hd95 is None
    assert both.dice(3.0) is None


def test_a_mask_that_fills_the_scan_has_its_surface_at_the_edges() -> None:
    full = np.ones((3, 4, 5), bool)
    found = surface_distances(full, full, SPACING)
    assert len(found.to_truth) == 3 * 4 * 5 - 1 * 2 * 3
    assert found.hd95 == 0.0
    assert found.dice(1.0) == 1.0


def test_runs_are_pooled_and_what_one_of_them_lacks_is_infinitely_far() -> None:
    a = blobs(1)
    same = surface_distances(a, a, SPACING)
    speck = np.zeros_like(a)
    speck[0, 0, 0] = True
    missing = surface_distances(speck, np.zeros_like(a), SPACING)
    pooled = SurfaceDistances.pooled([same, missing])
    surface = len(same.to_truth)
    assert pooled.hd95 == 0.0  # one voxel of many is beyond the 95th percentile
    assert pooled.dice(1.0) == pytest.approx(2 * surface / (2 * surface + 1))
    large = surface_distances(a, np.zeros_like(a), SPACING)
    assert SurfaceDistances.pooled([same, large]).hd95 is None
    assert SurfaceDistances.pooled([]).dice(1.0) is None


def test_the_edge_of_five_percent_without_counterpart_is_sharp() -> None:
    near = np.zeros(20)
    beyond = SurfaceDistances(np.append(near, np.inf), near)
    assert beyond.hd95 == 0.0  # 1 of 21: the percentile falls on the last finite one
    assert SurfaceDistances(np.append(near[:18], np.inf), near).hd95 is None


@quick
@given(pairs, st.sampled_from([1.0, 2.0, 3.0]))
def test_surface_numbers_are_symmetric_bounded_and_perfect_on_the_same(
    pair: Pair, tolerance: float
) -> None:
    a, b = pair
    there, back = surface_distances(a, b, SPACING), surface_distances(b, a, SPACING)
    assert there.hd95 == back.hd95
    assert there.dice(tolerance) == back.dice(tolerance)
    if (score := there.dice(tolerance)) is not None:
        assert 0 <= score <= 1
        assert score <= (there.dice(tolerance + 1) or 0)
    if there.hd95 is not None:
        assert 0 <= there.hd95 <= np.linalg.norm(np.multiply(a.shape, SPACING))
    if a.any():
        same = surface_distances(a, a, SPACING)
        assert same.hd95 == 0.0
        assert same.dice(0.0) == 1.0


@quick
@given(pairs, st.tuples(*[st.integers(0, 3)] * 3))
def test_surface_numbers_do_not_depend_on_where_in_the_scan_the_masks_are(
    pair: Pair, offset: tuple[int, int, int]
) -> None:
    room = [(before, 3 - before) for before in offset]
    moved = surface_distances(*(np.pad(mask, room) for mask in pair), SPACING)
    still = surface_distances(*(np.pad(mask, 3) for mask in pair), SPACING)
    assert moved.hd95 == still.hd95
    assert moved.dice(2.0) == still.dice(2.0)


def monai_numbers(a: np.ndarray, b: np.ndarray, spacing: Spacing) -> tuple[float, ...]:
    """HD95 and surface Dice at 1, 2 and 3 mm by MONAI."""
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    y, x = (torch.from_numpy(mask)[None, None] for mask in (a, b))
    common = {"include_background": True, "spacing": list(spacing)}
    hd95 = compute_hausdorff_distance(y, x, percentile=95, **common).item()
    return hd95, *(
        compute_surface_dice(y, x, class_thresholds=[mm], **common).item() for mm in (1.0, 2.0, 3.0)
    )


def our_numbers(a: np.ndarray, b: np.ndarray, spacing: Spacing) -> list[float | None]:
    found = surface_distances(a, b, spacing)
    return [found.hd95, *(found.dice(mm) for mm in (1.0, 2.0, 3.0))]


def test_surface_numbers_agree_with_monai_on_random_masks() -> None:
    for a, b in random_pairs():
        assert our_numbers(a, b, SPACING) == pytest.approx(monai_numbers(a, b, SPACING), abs=1e-4)


@pytest.mark.filterwarnings("ignore:the (ground truth|prediction) of class:UserWarning")
def test_where_one_mask_is_empty_monai_has_no_number_or_infinity() -> None:
    hd95, *surface = monai_numbers(blobs(1), np.zeros((9, 14, 13), bool), SPACING)
    assert not math.isfinite(hd95)
    assert surface == [0.0] * 3


# --- the competition's score ----------------------------------------------------------------


def brute_hausdorff(a: np.ndarray, b: np.ndarray, scale: tuple[float, ...]) -> float:
    one, other = np.argwhere(a) * scale, np.argwhere(b) * scale
    return max(directed_hausdorff(one, other)[0], directed_hausdorff(other, one)[0])


def test_both_hausdorff_distances_are_those_of_scipy_by_brute_force() -> None:
    for a, b in random_pairs():
        diagonal = math.sqrt(sum(size**2 for size in a.shape))
        expected = brute_hausdorff(a, b, (1.0, 1.0, 1.0)) / diagonal
        assert hausdorff_a(a, b) == pytest.approx(expected)
        cube = tuple(1 / size for size in a.shape)
        assert hausdorff_b(a, b) == pytest.approx(brute_hausdorff(a, b, cube) / math.sqrt(3))


def test_a_hole_that_is_filled_counts_though_the_surfaces_agree() -> None:
    solid = np.zeros((9, 9, 9), bool)
    solid[1:8, 1:8, 1:8] = True
    shell = solid.copy()
    shell[2:7, 2:7, 2:7] = False
    assert hausdorff_a(solid, shell) == pytest.approx(3 / math.sqrt(3 * 81))


@pytest.mark.parametrize("measure", [hausdorff_a, hausdorff_b])
def test_the_rules_of_empty_volumes(measure: Callable[..., float | None]) -> None:
    a, nothing = blobs(1), np.zeros((9, 14, 13), bool)
    assert measure(a, a) == 0.0
    assert measure(a, nothing) == 1.0
    assert measure(nothing, a) == 1.0
    assert measure(nothing, nothing) is None


@quick
@given(pairs)
def test_normalised_distances_are_symmetric_and_between_0_and_1(pair: Pair) -> None:
    a, b = pair
    assert hausdorff_a(a, b) == hausdorff_a(b, a)
    for distance in (hausdorff_a(a, b), hausdorff_b(a, b)):
        assert distance is None or 0 <= distance <= 1
    if a.any():
        assert hausdorff_a(a, a) == hausdorff_b(a, a) == 0


def test_reading_b_punishes_a_prediction_of_more_than_ten_times_the_truth() -> None:
    truth = np.zeros((1, 5, 8), bool)
    truth[0, 0, 0] = True
    ten = np.zeros_like(truth)
    ten.flat[:10] = True
    eleven = np.zeros_like(truth)
    eleven.flat[:11] = True
    assert hausdorff_b(ten, truth) != 1.0
    assert hausdorff_b(eleven, truth) == 1.0


def two_organs() -> tuple[dict[str, MaskPair], float]:
    """Two slices of two organs, and the diagonal of their volume.

    Stomach: half found on slice 0, invented on slice 1. Bowel: empty on slice 0, found
    exactly on slice 1.
    """
    nothing = np.zeros((2, 3, 6), bool)
    stomach, found = nothing.copy(), nothing.copy()
    stomach[0, 0, 0:2] = True
    found[0, 0, 1:3] = True
    found[1, 2, 5] = True
    bowel = nothing.copy()
    bowel[1, 1, 1] = True
    organs = {"stomach": MaskPair(found, stomach), "large_bowel": MaskPair(bowel, bowel.copy())}
    return organs, math.sqrt(4 + 9 + 36)


def test_the_score_of_a_case_by_hand() -> None:
    organs, diagonal = two_organs()
    part = competition_parts("case1", [organs])
    # The stray voxel (1, 2, 5) is farthest from the stomach's voxel (0, 0, 1).
    farthest = math.sqrt(1 + 4 + 16) / diagonal
    expected_dice = (0.5 + 0.0 + 1.0) / 3  # the pair that is empty in both is skipped
    found = competition_score([part])
    assert found is not None
    assert (found.pairs, found.distances) == (3, 2)
    assert found.dice == pytest.approx(expected_dice)
    assert found.hausdorff == pytest.approx((farthest + 0) / 2)
    assert found.score == pytest.approx(0.4 * expected_dice + 0.6 * (1 - farthest / 2))
    assert found.interval is None


def test_pairs_that_are_empty_in_both_count_as_zero_on_request() -> None:
    part = competition_parts("case1", [two_organs()[0]])
    found = competition_score([part], empty_pairs="zero")
    assert found is not None
    assert found.pairs == 4
    assert found.dice == pytest.approx(1.5 / 4)


def test_reading_b_takes_all_organs_of_a_scan_together() -> None:
    organs, _ = two_organs()
    found = competition_score([competition_parts("case1", [organs])], reading="B")
    assert found is not None
    prediction = organs["stomach"].prediction | organs["large_bowel"].prediction
    truth = organs["stomach"].truth | organs["large_bowel"].truth
    expected = brute_hausdorff(prediction, truth, (1 / 2, 1 / 3, 1 / 6)) / math.sqrt(3)
    assert found.distances == 1
    assert found.hausdorff == pytest.approx(expected)
    assert found.score == pytest.approx(0.4 * 0.5 + 0.6 * (1 - expected))


def test_an_organ_that_nobody_outlined_and_one_that_is_nowhere_take_no_part() -> None:
    organs, _ = two_organs()
    nothing = np.zeros((2, 3, 6), bool)
    alone = competition_parts("case1", [organs])
    beside = competition_parts("case1", [organs | {"small_bowel": MaskPair(nothing, nothing)}])
    assert beside.hausdorff_a == alone.hausdorff_a
    assert (beside.pairs, beside.empty_pairs) == (alone.pairs, alone.empty_pairs + 2)
    assert competition_score([competition_parts("case1", [])]) is None
    assert competition_score([]) is None


def test_a_scan_that_lacks_slices_is_stacked_without_the_gap() -> None:
    a, b = blobs(1), blobs(2)
    whole = competition_parts("case1", [{"stomach": MaskPair(a, b)}])
    parts = [{"stomach": MaskPair(a[part], b[part])} for part in (slice(4), slice(4, None))]
    assert competition_parts("case1", parts) == whole


def test_slices_of_another_size_are_a_volume_of_their_own() -> None:
    a, b = blobs(1), blobs(2)
    other = np.zeros((2, 5, 5), bool)
    other[0, 0, 0] = True
    runs = [{"stomach": MaskPair(a, b)}, {"stomach": MaskPair(other, np.zeros_like(other))}]
    assert competition_parts("case1", runs).hausdorff_a == (1.0,)


def test_scans_weigh_by_their_pairs_and_not_by_patient() -> None:
    parts = [
        ScanParts("case1", dice=3.0, pairs=3, empty_pairs=0, hausdorff_a=(0.0,), hausdorff_b=0.0),
        ScanParts("case1", dice=0.0, pairs=1, empty_pairs=5, hausdorff_a=(1.0,), hausdorff_b=None),
        ScanParts("case2", dice=1.0, pairs=4, empty_pairs=0, hausdorff_a=(), hausdorff_b=0.5),
    ]
    found = competition_score(parts)
    assert found is not None
    assert found.dice == pytest.approx(4 / 8)
    assert found.hausdorff == pytest.approx(1 / 2)
    other = competition_score(parts, reading="B")
    assert other is not None
    assert other.hausdorff == pytest.approx(0.25)


def test_the_interval_of_the_score_is_over_patients() -> None:
    parts = [
        ScanParts(f"case{n}", dice=n / 10, pairs=1, empty_pairs=0, hausdorff_a=(n / 10,),
                  hausdorff_b=None)
        for n in range(1, 9)
    ]  # fmt: skip
    found = competition_score(parts)
    assert found is not None
    assert found.interval is not None
    assert found.interval.low < found.score < found.interval.high
    same = competition_score([*parts, *parts])
    assert same is not None
    assert same.interval == found.interval  # twice the scans are not twice the patients


# --- intervals ------------------------------------------------------------------------------


def column(*values: float) -> np.ndarray:
    return np.array(values)[:, None]


def test_fewer_than_three_patients_have_no_interval() -> None:
    assert mean_interval(column(0.5, 0.7)) is None
    assert mean_interval(column(0.5, 0.7, math.nan)) is None
    assert mean_interval(column(0.5, 0.7, 0.9)) is not None
    assert bootstrap_interval(0, lambda drawn: drawn[:, 0] * 1.0) is None


def test_an_interval_is_the_same_for_the_same_seed_and_holds_the_mean() -> None:
    values = column(0.2, 0.4, 0.5, 0.9, 0.7, 0.8)
    interval = mean_interval(values, seed=3)
    assert interval is not None
    assert interval == mean_interval(values, seed=3)
    assert interval != mean_interval(values, seed=4)
    assert 0.2 <= interval.low < values.mean() < interval.high <= 0.9


def test_an_interval_of_equal_patients_has_no_width() -> None:
    assert mean_interval(column(0.5, 0.5, 0.5)) == (0.5, 0.5)


def test_an_interval_is_that_of_the_exact_distribution_of_draws() -> None:
    """Three patients have 27 draws: the percentiles are known."""
    values = np.array([0.0, 0.3, 0.9])
    exact = sorted(np.mean([a, b, c]) for a in values for b in values for c in values)
    interval = mean_interval(values[:, None])
    assert interval == pytest.approx((exact[0], exact[-1]))  # 1/27 is more than 2.5 %


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        interval = mean_interval(random.normal(0.7, 0.1, (30, 1)))
        assert interval is not None
        hits += interval.low <= 0.7 <= interval.high
    assert 178 <= hits <= 198  # 95 % less what percentile intervals of 30 fall short


def test_the_mean_over_organs_is_of_the_organs_that_a_draw_has() -> None:
    values = np.array([[0.2, math.nan], [0.2, math.nan], [0.2, 0.8]])
    interval = mean_interval(values)
    assert interval == pytest.approx((0.2, 0.5))


# --- real masks -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_pairs(shared_data: Path) -> list[tuple[Pair, Spacing]]:
    """An organ on two days of the same patient: 12 slices; drawn with a fixed seed."""
    import csv

    table = shared_data / "labels_only" / "native_rle_37days.csv"
    days: dict[tuple[str, str], list[dict[str, str]]] = {}
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            days.setdefault((row["id"].split("_slice_")[0], row["class"]), []).append(row)
    stacks = {
        key: np.stack(
            [decode_rle(r["segmentation"], (int(r["height"]), int(r["width"]))) for r in rows]
        )
        for key, rows in sorted(days.items())
    }
    pixel = {key: float(rows[0]["spacing"]) for key, rows in days.items()}
    random = np.random.default_rng(20)
    found: list[tuple[Pair, Spacing]] = []
    keys = list(stacks)
    while len(found) < 24:
        first, second = (keys[i] for i in random.choice(len(keys), 2, replace=False))
        same = first[1] == second[1] and first[0].split("_")[0] == second[0].split("_")[0]
        if same and stacks[first].shape == stacks[second].shape and stacks[first].any():
            start = int(np.flatnonzero(stacks[first].any(axis=(1, 2)))[0])
            part = slice(start, start + 12)
            found.append(
                ((stacks[first][part], stacks[second][part]), (3.0, pixel[first], pixel[first]))
            )
    return found


@pytest.mark.data
def test_surface_numbers_agree_with_monai_on_real_masks(
    real_pairs: list[tuple[Pair, Spacing]],
) -> None:
    judged = 0
    for (a, b), spacing in real_pairs:
        if a.any() and b.any():
            ours, theirs = our_numbers(a, b, spacing), monai_numbers(a, b, spacing)
            assert ours == pytest.approx(theirs, abs=1e-3)
            judged += 1
    assert judged >= 16


@pytest.mark.data
def test_the_competitions_distance_is_that_of_scipy_on_real_masks(
    real_pairs: list[tuple[Pair, Spacing]],
) -> None:
    judged = 0
    for pair, _ in real_pairs[:12]:
        a, b = (mask[:, ::2, ::2] for mask in pair)  # brute force takes its time
        if a.any() and b.any():
            diagonal = math.sqrt(sum(size**2 for size in a.shape))
            expected = brute_hausdorff(a, b, (1.0, 1.0, 1.0)) / diagonal
            assert hausdorff_a(a, b) == pytest.approx(expected)
            judged += 1
    assert judged >= 6
