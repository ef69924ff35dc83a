"""Training data: which slices are used, who is held out, and how batches are drawn."""

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from gitract.augment import Augmentation
from gitract.data import Batches, Stack, labelled_runs, load_stacks, split_by_patient
from gitract.errors import InputError
from gitract.io.png import write_grey_png
from gitract.model_config import Preparation
from gitract.organs import organ_named
from gitract.phantom import abdomen, write_day
from gitract.progress import Progress
from gitract.recipe import CompetitionSource, PairsSource, Recipe
from gitract.scan import Scan, Segmentation

NO_AUGMENTATION = Augmentation(**dict.fromkeys(Augmentation.model_fields, 0.0))


def stack(patient: str, slices: int = 5, *, organ_at: int | None = None, pool: str = "") -> Stack:
    """Slices whose grey value is their number / 100."""
    masks = torch.zeros(3, slices, 40, 48, dtype=torch.bool)
    if organ_at is not None:
        masks[2, organ_at, 10:20, 10:20] = True
    return Stack(
        name=f"{patient}_day0", patient=patient, masks=masks, known=(True, True, True),
        slices=(torch.arange(slices) / 100.0)[:, None, None].expand(slices, 40, 48).clone(),
        weight=1.0, pool=pool or patient,
    )  # fmt: skip


def write_pairs(folder: Path, labels_shape: tuple[int, int] = (40, 50)) -> Path:
    """Two patients' single slices, 80 mm wide, in which only the stomach is outlined."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    image = np.random.default_rng(0).integers(0, 255, (40, 50), dtype=np.uint8)
    labels = np.zeros(labels_shape, np.uint8)
    labels[10:30, 5:25] = 9
    labels[0:5, 30:40] = 4
    for name in ("case1_a.png", "case1_b.png", "case2_a.png"):
        write_grey_png(image, folder / "images" / name)
        write_grey_png(labels, folder / "labels" / name)
    return folder


def pairs(**changes: object) -> PairsSource:
    settings = {
        "kind": "pairs", "path": "pairs", "field_of_view_mm": 80, "organs": ["stomach"],
        "label_values": {9: "stomach", 4: "large_bowel"},
    }  # fmt: skip
    return PairsSource.model_validate({**settings, **changes})


def with_sources(recipe: Recipe, *sources: object) -> Recipe:
    return recipe.model_copy(update={"sources": sources})


# --- who is held out ------------------------------------------------------------------------


def test_no_patient_is_on_both_sides() -> None:
    stacks = [stack(name) for name in ("case1", "case2", "case1", "case3", "case2")]
    training, held_out = split_by_patient(stacks, ["case2"])
    assert {s.patient for s in training} == {"case1", "case3"}
    assert {s.patient for s in held_out} == {"case2"}
    assert len(training) + len(held_out) == len(stacks)


def test_a_patient_who_is_not_there_cannot_be_held_out() -> None:
    with pytest.raises(InputError, match="'case20' is not in the data: there are case1, case2"):
        split_by_patient([stack("case1"), stack("case2")], ["case2", "case20"])


def test_somebody_must_be_left_to_train_on() -> None:
    with pytest.raises(InputError, match="nobody is left"):
        split_by_patient([stack("case1")], ["case1"])


# --- what is read ---------------------------------------------------------------------------


def test_a_phantom_day_is_read_and_prepared(phantom_data: Path, recipe: Recipe) -> None:
    reports: list[Progress] = []
    stacks = load_stacks(recipe, phantom_data, reports.append)
    assert [s.name for s in stacks] == ["case1_day0", "case2_day0", "case3_day0", "case3_day5"]
    assert [s.patient for s in stacks] == ["case1", "case2", "case3", "case3"]
    assert [r.done for r in reports] == [1, 2, 3, 4]
    for found in stacks:
        assert found.slices.shape == (12, 26, 29)
        assert found.masks.shape == (3, 12, 26, 29)
        assert found.masks.any(dim=(1, 2, 3)).all()
        assert found.known == (True, True, True)
    assert stacks[2].pool == stacks[3].pool != stacks[0].pool


def test_a_day_that_nobody_outlined_is_not_used(tmp_path: Path) -> None:
    scan, truth = abdomen((4, 32, 36), name="case1_day0")
    write_day(tmp_path, scan, truth)
    write_day(tmp_path, dataclasses.replace(scan, name="case1_day1"))  # not in the table
    empty = dataclasses.replace(truth, masks=np.zeros_like(truth.masks))
    write_day(tmp_path, dataclasses.replace(scan, name="case1_day2"), empty)
    assert [scan.name for scan, _ in labelled_runs(tmp_path)] == ["case1_day0"]


def test_a_slice_without_rows_is_not_taken_for_empty(tmp_path: Path) -> None:
    write_day(tmp_path, *abdomen((6, 32, 36), name="case1_day0"))
    table = tmp_path / "train.csv"
    rows = [row for row in table.read_text().splitlines() if "slice_0003" not in row]
    table.write_text("\n".join(rows) + "\n")
    runs = [scan.slice_numbers for scan, _ in labelled_runs(tmp_path)]
    assert runs == [(1, 2), (4, 5, 6)]


def test_a_day_with_a_hole_comes_as_runs_that_match_their_labels(tmp_path: Path) -> None:
    scan, truth = abdomen((6, 32, 36), name="case1_day0")
    numbers = (3, 4, 7, 8, 9, 20)
    write_day(
        tmp_path,
        dataclasses.replace(scan, slice_numbers=numbers),
        dataclasses.replace(truth, slice_numbers=numbers),
    )
    runs = list(labelled_runs(tmp_path))
    assert [scan.slice_numbers for scan, _ in runs] == [(3, 4), (7, 8, 9), (20,)]
    voxels = np.concatenate([run.voxels for run, _ in runs])
    masks = np.concatenate([labels.masks for _, labels in runs], axis=1)
    np.testing.assert_array_equal(voxels, scan.voxels)
    np.testing.assert_array_equal(masks, truth.masks)


def test_slices_of_another_size_begin_a_new_run(tmp_path: Path) -> None:
    small, big = (abdomen((2, side, 40), name="case1_day0") for side in (32, 36))
    day = write_day(tmp_path, *small)
    late = tuple(dataclasses.replace(part, slice_numbers=(3, 4)) for part in big)
    other = write_day(tmp_path / "other", *late)  # type: ignore[arg-type]
    for path in (other / "scans").iterdir():
        path.rename(day / "scans" / path.name)
    rows = (tmp_path / "other" / "train.csv").read_text().splitlines()[1:]
    with (tmp_path / "train.csv").open("a") as table:
        table.writelines(f"{row}\n" for row in rows)
    assert [scan.shape for scan, _ in labelled_runs(tmp_path)] == [(2, 32, 40), (2, 36, 40)]


@pytest.mark.parametrize(
    ("cases", "days"),
    [
        (["case3"], ["case3_day0", "case3_day5"]),
        (["case3_day5", "case1"], ["case1_day0", "case3_day5"]),
    ],
)
def test_cases_choose_patients_or_days(
    phantom_data: Path, cases: list[str], days: list[str]
) -> None:
    assert [scan.name for scan, _ in labelled_runs(phantom_data, cases)] == days


def test_a_case_that_is_not_there_is_named(phantom_data: Path) -> None:
    with pytest.raises(InputError, match="'case30'.*case1_day0"):
        list(labelled_runs(phantom_data, ["case3", "case30"]))


def test_a_missing_source_is_named(tmp_path: Path, recipe: Recipe) -> None:
    absent = with_sources(recipe, CompetitionSource(kind="competition", path="absent"))
    with pytest.raises(InputError, match=r"absent does not exist\."):
        load_stacks(absent, tmp_path)


def test_a_source_without_labels_is_an_error(tmp_path: Path, recipe: Recipe) -> None:
    write_day(tmp_path, abdomen((2, 32, 36))[0])
    (tmp_path / "train.csv").write_text("id,class,segmentation\n")
    with pytest.raises(InputError):
        load_stacks(recipe, tmp_path)


# --- single slices --------------------------------------------------------------------------


def test_pairs_say_which_organs_they_know(tmp_path: Path, recipe: Recipe) -> None:
    write_pairs(tmp_path / "pairs")
    stacks = load_stacks(with_sources(recipe, pairs()), tmp_path)
    assert [s.patient for s in stacks] == ["case1", "case1", "case2"]
    assert {s.known for s in stacks} == {(False, False, True)}
    # 80 mm over 50 columns is 1.6 mm; 40 rows are 64 mm; pixels are 6 mm
    assert stacks[0].slices.shape == (1, 11, 13)
    organ = organ_named("stomach").id - 1
    area_mm2 = float(stacks[0].masks[organ].sum()) * 36
    assert area_mm2 == pytest.approx((20 * 1.6) ** 2, rel=0.25)


def test_pairs_are_grouped_by_a_table(tmp_path: Path, recipe: Recipe) -> None:
    folder = write_pairs(tmp_path / "pairs")
    (folder / "groups.csv").write_text("file,group\ncase1_a.png,1\ncase1_b.png,2\ncase2_a.png,2\n")
    source = pairs(patients="groups.csv", same_patient={"2": "case6"})
    stacks = load_stacks(with_sources(recipe, source), tmp_path)
    assert [s.patient for s in stacks] == ["pairs-1", "case6", "case6"]


@pytest.mark.parametrize(
    ("table", "part"),
    [
        (None, "groups.csv"),
        ("name,set\na,1\n", "columns file and group"),
        ("file,group\ncase1_a.png,1\n", "case1_b.png"),
    ],
)
def test_a_wrong_table_of_groups_is_one_sentence(
    tmp_path: Path, recipe: Recipe, table: str | None, part: str
) -> None:
    folder = write_pairs(tmp_path / "pairs")
    if table is not None:
        (folder / "groups.csv").write_text(table)
    with pytest.raises(InputError, match=part):
        load_stacks(with_sources(recipe, pairs(patients="groups.csv")), tmp_path)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"pixel_mm": 1.5}, "field_of_view_mm or pixel_mm"),
        ({"field_of_view_mm": None}, "field_of_view_mm or pixel_mm"),
        ({"organs": ["stomch"]}, "'stomch'"),
        ({"label_values": {9: "stomch"}}, "'stomch'"),
        ({"labels": "absent"}, "absent"),
        ({"images": "absent"}, "no PNG"),
    ],
)
def test_wrong_pairs_are_one_sentence(
    tmp_path: Path, recipe: Recipe, changes: dict[str, object], part: str
) -> None:
    write_pairs(tmp_path / "pairs")
    with pytest.raises(InputError, match=part):
        load_stacks(with_sources(recipe, pairs(**changes)), tmp_path)


def test_a_label_image_of_another_size_is_refused(tmp_path: Path, recipe: Recipe) -> None:
    write_pairs(tmp_path / "pairs", labels_shape=(80, 100))
    with pytest.raises(InputError, match=r"case1_a\.png"):
        load_stacks(with_sources(recipe, pairs()), tmp_path)


# --- batches --------------------------------------------------------------------------------


def small_batches(recipe: Recipe, stacks: list[Stack], **changes: object) -> Batches:
    optimisation = recipe.optimisation.model_copy(update={"batch_size": 64, **changes})
    update = {"optimisation": optimisation, "augmentation": NO_AUGMENTATION}
    return Batches(stacks, recipe.model_copy(update=update), 10)


def test_a_batch_depends_on_the_seed_and_its_number_alone(recipe: Recipe) -> None:
    stacks = [stack("case1", organ_at=2), stack("case2", 3)]
    for one in stacks:
        one.slices.copy_(torch.rand(one.slices.shape))
    one, other = Batches(stacks, recipe, 10), Batches(stacks, recipe, 10)
    _ = one[0], one[7]
    torch.manual_seed(99)
    for first, second in zip(one[4], other[4], strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(one[4][0], one[5][0])
    elsewhere = Batches(stacks, recipe.model_copy(update={"seed": 1}), 10)
    assert not torch.equal(one[4][0], elsewhere[4][0])


def test_batches_have_the_size_that_the_recipe_says(recipe: Recipe) -> None:
    images, masks, known = Batches([stack("case1")], recipe, 3)[0]
    assert images.shape == (6, 3, 32, 32)
    assert masks.shape == (6, 3, 32, 32)
    assert known.shape == (6, 3)


def test_small_slices_are_padded_to_the_crop(recipe: Recipe) -> None:
    images, masks, _ = small_batches(recipe, [stack("case1", organ_at=1)], crop=64)[0]
    assert images.shape == (64, 3, 64, 64)
    assert (masks.sum((1, 2, 3)) > 0).any()


@pytest.mark.parametrize(("fraction", "share"), [(1.0, 1.0), (0.0, 0.1), (0.6, 0.64)])
def test_slices_with_organs_are_preferred(recipe: Recipe, fraction: float, share: float) -> None:
    only = stack("case1", 10, organ_at=4)
    batches = small_batches(recipe, [only], organ_fraction=fraction, crop=64)
    with_organ = torch.cat([(batches[i][1].sum((1, 2, 3)) > 0).float() for i in range(4)])
    assert float(with_organ.mean()) == pytest.approx(share, abs=0.12)


def test_a_patient_with_many_slices_is_drawn_as_often_as_another(recipe: Recipe) -> None:
    many, few = stack("case1", 40), stack("case2", 2)
    few.slices.add_(0.6)
    images = torch.cat([small_batches(recipe, [many, few])[i][0] for i in range(6)])
    share = float((images.amax((1, 2, 3)) > 0.55).float().mean())
    assert share == pytest.approx(0.5, abs=0.12)


def test_a_stack_without_organs_can_be_drawn(recipe: Recipe) -> None:
    _, masks, _ = small_batches(recipe, [stack("case1")], organ_fraction=1.0)[0]
    assert masks.sum() == 0


# --- real scans -----------------------------------------------------------------------------


@pytest.mark.data
def test_real_labelled_slices_by_patient(shared_data: Path) -> None:
    counts: Counter[str] = Counter()
    for folder in ("uwm_stacks", "uwm_16bit"):
        for scan, truth in labelled_runs(shared_data / folder):
            counts[scan.name.split("_")[0]] += len(scan.voxels)
            assert scan.shape == truth.shape
    assert counts == {"case139": 107, "case16": 144, "case20": 288, "case6": 144, "case101": 8}


@pytest.mark.data
def test_real_masks_keep_their_volume_when_prepared(shared_data: Path) -> None:
    recipe = Recipe.model_validate(
        {
            "id": "x", "title": "x", "network": {"name": "encoder_unet"},
            "sources": [{"kind": "competition", "path": "uwm_16bit"}],
        }
    )  # fmt: skip
    preparation = Preparation()
    stacks = load_stacks(recipe, shared_data)
    truths = [truth for _, truth in labelled_runs(shared_data / "uwm_16bit")]
    for prepared, truth in zip(stacks, truths, strict=True):
        voxel_ml = preparation.pixel_mm**2 * truth.spacing[0] / 1000
        for mask, organ in zip(prepared.masks, truth.organs, strict=True):
            volume = truth.volumes_ml[organ.name]
            assert float(mask.sum()) * voxel_ml == pytest.approx(volume, rel=0.1, abs=0.3)


def test_phantom_days_are_told_apart() -> None:
    scans: list[tuple[Scan, Segmentation]] = [abdomen((4, 32, 36), seed=s) for s in (0, 1)]
    assert not np.array_equal(scans[0][0].voxels, scans[1][0].voxels)
    again = abdomen((4, 32, 36), seed=1)
    np.testing.assert_array_equal(scans[1][0].voxels, again[0].voxels)
    np.testing.assert_array_equal(scans[1][1].masks, again[1].masks)
