"""Corrections of several patients from one folder, and a fine-tuning on them."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitract.baseline import slice_digests
from gitract.corrected_folder import corrections_in
from gitract.corrections import Corrections
from gitract.errors import InputError
from gitract.fine_tune import FineTuneSettings, fine_tune
from gitract.fine_tune.parts import parts_of
from gitract.io import write_scan, write_segmentation
from gitract.labelled import Fault
from gitract.model_store import ModelStore
from gitract.organs import ORGANS, Organ
from gitract.phantom import abdomen
from gitract.scan import Scan, Segmentation
from sentences import assert_one_sentence

SHAPE = (12, 64, 72)
TARGET = Organ(18, "tumour_bed", "#123456")
QUICK = FineTuneSettings(steps=2, evaluate_every=2, parts=3, batch_size=2)


def saved(folder: Path, name: str, scan: Scan, labels: Segmentation, kind: str = ".tif") -> None:
    """A scan and its labels beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_scan(scan, folder / f"{name}{kind}")
    write_segmentation(labels, folder / f"{name}_seg{kind}")


def corrected(truth: Segmentation, slices: tuple[int, ...], **provenance: object) -> Segmentation:
    """Labels that remember a prediction from which these slices differ."""
    labels = truth.labels().array
    predicted = labels.copy()
    predicted[list(slices)] = 0
    for index in slices:
        predicted[index, 0, 0] = 1
    baseline = {"baseline": slice_digests(predicted), "model": "gi-tract-small"}
    return dataclasses.replace(
        Segmentation.of_labels(
            labels,
            spacing=truth.spacing,
            affine=truth.affine,
            organs=truth.organs,
            name=truth.name,
        ),
        provenance=baseline | provenance,
    )


@pytest.fixture(params=[".tif", ".nii.gz"])
def two(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """One patient's labels remember what was reviewed, the other's are contours alone."""
    folder = tmp_path / "scans"
    scan, truth = abdomen(SHAPE, seed=7, name="case7_day0")
    labels = corrected(truth, (3, 6), accepted=[8], rejected=[1], unreviewed={"6": ["stomach"]})
    saved(folder, "case7_day0", scan, labels, request.param)
    scan, truth = abdomen(SHAPE, seed=8, name="case8_day0")
    masks = truth.masks.copy()
    masks[:, 6:] = False
    saved(folder, "case8_day0", scan, dataclasses.replace(truth, masks=masks), request.param)
    return folder


def outlined(contours: Segmentation) -> tuple[int, ...]:
    return tuple(int(i) for i in np.flatnonzero(contours.masks.any(axis=(0, 2, 3))))


# --- what is found --------------------------------------------------------------------------


def test_what_was_reviewed_is_known_or_is_what_is_contoured(two: Path) -> None:
    first, second = corrections_in(two, ORGANS)
    assert (first.whose, second.whose) == ("case7", "case8")
    assert first.slices == (3, 6, 8)
    assert second.slices == outlined(second.segmentation)
    assert 0 < len(second.slices) <= 6
    assert first.rejected == {1}
    assert first.reviewed(6) == {1, 2}
    assert first.reviewed(3) == second.reviewed(3) == {1, 2, 3}
    for one, seed in ((first, 7), (second, 8)):
        scan, truth = abdomen(SHAPE, seed=seed)
        np.testing.assert_array_equal(one.scan.voxels, scan.voxels)
        labels = Segmentation.of_labels(truth.labels().array, spacing=truth.spacing)
        for index in one.slices:
            np.testing.assert_array_equal(one.segmentation.masks[:, index], labels.masks[:, index])


def test_organs_that_the_model_lacks_come_with_labels_that_remember(tmp_path: Path) -> None:
    scan, truth = abdomen(SHAPE, seed=7, name="case7_day0")
    masks = np.concatenate([truth.masks, truth.masks[2:, ::-1]])
    labels = corrected(dataclasses.replace(truth, masks=masks, organs=(*ORGANS, TARGET)), (3, 6))
    saved(tmp_path / "scans", "case7_day0", scan, labels)
    [found] = corrections_in(tmp_path / "scans", ORGANS)
    assert found.organs == (*ORGANS, TARGET)
    expected = labels.masks[3, [3, 6]]
    np.testing.assert_array_equal(found.mask(TARGET)[[3, 6]], expected)


def test_the_competitions_layout_is_read(phantom_data: Path) -> None:
    found = corrections_in(phantom_data, ORGANS)
    assert [one.scan.name for one in found] == [
        "case1_day0", "case2_day0", "case3_day0", "case3_day5",
    ]  # fmt: skip
    assert [one.whose for one in found] == ["case1", "case2", "case3", "case3"]
    assert all(one.slices == outlined(one.segmentation) for one in found)


def test_a_folder_of_a_patient_holds_scans_of_one_patient(tmp_path: Path) -> None:
    for name in ("Anna/scan1", "Anna/scan2", "Berta/scan1"):
        scan, truth = abdomen(SHAPE, seed=len(name), name=name.split("/")[1])
        saved(tmp_path / "scans" / name.split("/")[0], name.split("/")[1], scan, truth)
    found = corrections_in(tmp_path / "scans", ORGANS)
    assert [one.whose for one in found] == ["Anna", "Anna", "Berta"]


def damaged(folder: Path) -> None:
    (folder / "case9_day0.tif").write_bytes(b"II*\x00 and no more")
    (folder / "case9_day0_seg.tif").write_bytes(b"II*\x00 and no more")


def unreviewed(folder: Path) -> None:
    scan, truth = abdomen(SHAPE, seed=9, name="case9_day0")
    saved(folder, "case9_day0", scan, corrected(truth, ()))


def of_another_grid(folder: Path) -> None:
    scan, truth = abdomen(SHAPE, seed=9, name="case9_day0")
    saved(folder, "case9_day0", scan, corrected(truth, (3,)))
    smaller = dataclasses.replace(truth, masks=truth.masks[:, :, :-2])
    write_segmentation(corrected(smaller, (3,)), folder / "case9_day0_seg.tif")


@pytest.mark.parametrize("spoil", [damaged, unreviewed, of_another_grid])
def test_a_scan_of_no_use_is_told_and_the_others_are_used(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    spoil(folder)
    faults: list[Fault] = []
    with pytest.raises(InputError) as error:
        corrections_in(folder, ORGANS, on_fault=faults.append)
    assert len(faults) == 1
    assert str(error.value).startswith("There is nothing to learn from: ")
    assert faults[0].sentence in str(error.value)
    saved(folder, "case7_day0", *abdomen(SHAPE, seed=7, name="case7_day0"))
    faults.clear()
    [found] = corrections_in(folder, ORGANS, on_fault=faults.append)
    assert found.whose == "case7"
    assert [fault.scan for fault in faults] == ["case9_day0"]


def without_contours(folder: Path) -> None:
    scan, truth = abdomen(SHAPE, seed=9, name="case9_day0")
    nothing = dataclasses.replace(truth, masks=np.zeros_like(truth.masks))
    saved(folder, "case9_day0", scan, nothing)


@pytest.mark.parametrize(
    "make", [lambda folder: None, lambda folder: folder.mkdir(), without_contours],
    ids=["missing", "empty", "without contours"],
)  # fmt: skip
def test_a_folder_of_no_use_is_one_sentence(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "scans")
    with pytest.raises(InputError) as error:
        corrections_in(tmp_path / "scans", ORGANS)
    assert_one_sentence(error, "scans")


# --- who is held out --------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c", "d"]),
            st.sets(st.integers(0, 40), min_size=1, max_size=6).map(sorted),
        ),
        min_size=1, max_size=6,
    ),
    st.integers(2, 4),
)  # fmt: skip
def test_patients_are_held_out_as_a_whole(scans: list[tuple[str, list[int]]], most: int) -> None:
    patients, slices = zip(*scans, strict=True)
    parts = parts_of(patients, slices, most)
    places = [(number, i) for number, reviewed in enumerate(slices) for i in reviewed]
    if len(set(patients)) == 1 and len({i for reviewed in slices for i in reviewed}) == 1:
        assert parts == []  # nothing else is left to train on
        return
    assert sorted(place for part in parts for place in part) == places
    assert 2 <= len(parts) <= most
    assert all(parts)
    where = {place: number for number, part in enumerate(parts) for place in part}
    if len(set(patients)) > 1:
        for patient in set(patients):
            numbers = [n for n, one in enumerate(patients) if one == patient]
            assert len({where[n, i] for n in numbers for i in slices[n]}) == 1
        return
    for (number, index), part in where.items():  # days of one patient look alike at a height
        for (other, height), elsewhere in where.items():
            assert number == other or index != height or part == elsewhere


def test_several_patients_are_checked_one_without_the_others(
    trained: SimpleNamespace, two: Path, store: ModelStore
) -> None:
    messages: list[str] = []
    found = corrections_in(two, ORGANS)
    card = fine_tune(
        found, model=trained.result.model, device="cpu", settings=QUICK, store=store,
        report=lambda progress: messages.append(progress.message),
    ).card  # fmt: skip
    assert card.scans == 2
    assert card.held_out == card.trained_on == (*found[0].slices, *found[1].slices)
    assert "2-fold" in card.method
    held_out = [text for text in messages if "held out" in text]
    assert len(held_out) == 2
    for one in found:
        assert any(", ".join(map(str, one.slices)) in text for text in held_out)
    assert [row.slices for row in card.rows] == [
        sum(
            bool(mask[index].any())
            for one in found
            for index in one.slices
            for mask in [one.mask(organ)]
            if organ.id in one.reviewed(index)
        )
        for organ in ORGANS
    ]


def test_days_of_one_patient_are_held_out_at_the_same_height(
    trained: SimpleNamespace, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gitract.fine_tune import proof

    heights: list[set[int]] = []
    own = proof.parts_of

    def watched(*arguments):  # type: ignore[no-untyped-def]
        parts = own(*arguments)
        heights.extend({index for _, index in part} for part in parts)
        return parts

    monkeypatch.setattr(proof, "parts_of", watched)
    days = [
        Corrections(*abdomen(SHAPE, seed=seed, name=f"case3_day{seed}"), (2, 6, 10))
        for seed in (2, 3)
    ]
    card = fine_tune(
        days, model=trained.result.model, device="cpu", settings=QUICK, store=store
    ).card  # fmt: skip
    assert sorted(heights, key=min) == [{2}, {6}, {10}]
    assert card.held_out == (2, 6, 10, 2, 6, 10)


# --- the command ------------------------------------------------------------------------------


def test_finetune_takes_a_folder(cli, trained: SimpleNamespace, two: Path) -> None:  # type: ignore[no-untyped-def]
    arguments = ["finetune", two, "--model", trained.result.model, "--steps", "2"]
    content = json.loads(cli(*arguments, "--accept", "always", "--json").out)
    assert content["card"]["scans"] == 2
    assert content["card"]["held_out"][:3] == [3, 6, 8]
    assert content["left_out"] == []
    assert content["kept"] == ModelStore().active().id
    unreviewed(two)
    result = cli(*arguments, "--accept", "never")
    assert result.code == 0, result.err
    assert "Left out: " in result.out
    assert "case9_day0" in result.out
    assert "Not adopted" in result.out


def test_finetune_refuses_a_folder_in_one_line(cli, two: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for arguments, part in (
        ([two, "--slices", "3,6"], "--slices"),
        ([two, "--spacing", "3,2,2"], "--spacing"),
        ([two / "absent"], "is not a folder"),
        ([next(two.iterdir())], "is not a folder"),
        ([two, "--replay", tmp_path / "absent"], "replay"),
    ):
        result = cli("finetune", *arguments)
        assert result.code == 2
        assert result.err.count("\n") == 1
        assert part in result.err
    assert len(ModelStore().models()) == 1
