"""Which slices a person edited, and which count as reviewed."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitract.baseline import edited_slices, slice_digest, slice_digests
from gitract.errors import InputError
from gitract.io import read_segmentation, write_segmentation
from gitract.phantom import abdomen
from gitract.review import reviewed_slices
from gitract.scan import Segmentation


@pytest.fixture
def labels() -> np.ndarray:
    return abdomen((6, 20, 24))[1].labels().array


def segmentation(labels: np.ndarray, **provenance: object) -> Segmentation:
    return Segmentation.of_labels(labels, spacing=(3, 1.5, 1.5), provenance=provenance)


@given(
    changed=st.sets(st.integers(0, 7)),
    row=st.integers(0, 4),
    column=st.integers(0, 5),
    step=st.integers(1, 3),
)
def test_edited_slices_are_exactly_the_changed_ones(
    changed: set[int], row: int, column: int, step: int
) -> None:
    labels = np.random.default_rng(0).integers(0, 4, (8, 5, 6), dtype=np.uint8)
    baseline = slice_digests(labels)
    for index in changed:
        labels[index, row, column] = (labels[index, row, column] + step) % 4
    assert edited_slices(labels, baseline) == sorted(changed)


def test_undo_brings_the_digests_back(labels: np.ndarray) -> None:
    baseline = slice_digests(labels)
    before = labels[3].copy()
    labels[3, 5:9, 5:9] = 2
    assert edited_slices(labels, baseline) == [3]
    labels[3] = before
    assert edited_slices(labels, baseline) == []


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.int8, ">u4"])
def test_digests_do_not_depend_on_the_type(labels: np.ndarray, dtype: str) -> None:
    assert slice_digests(labels.astype(dtype)) == slice_digests(labels)


def test_digests_do_not_depend_on_the_memory_layout(labels: np.ndarray) -> None:
    assert slice_digests(np.asfortranarray(labels)) == slice_digests(labels)


def test_digests_tell_a_moved_voxel(labels: np.ndarray) -> None:
    one, other = np.zeros((2, 4, 4), np.uint8)
    one[1, 2] = other[2, 1] = 1
    assert slice_digest(one) != slice_digest(other)


def test_a_baseline_of_another_scan_is_refused(labels: np.ndarray) -> None:
    with pytest.raises(InputError, match="6 slices .* baseline has 5"):
        edited_slices(labels, slice_digests(labels[:5]))


def test_edited_and_accepted_slices_are_reviewed_but_not_rejected_ones(
    labels: np.ndarray,
) -> None:
    baseline = slice_digests(labels)
    labels[4, 0, 0] = 1
    labels[1, 0, 0] = 1
    corrected = segmentation(labels, baseline=baseline, accepted=[2, 4], rejected=[1])
    assert reviewed_slices(corrected) == [2, 4]


def test_a_segmentation_without_a_baseline_asks_for_slices(labels: np.ndarray) -> None:
    with pytest.raises(InputError, match="--slices"):
        reviewed_slices(segmentation(labels))


def test_an_unchanged_prediction_has_nothing_to_learn_from(labels: np.ndarray) -> None:
    with pytest.raises(InputError, match="differs from its prediction"):
        reviewed_slices(segmentation(labels, baseline=slice_digests(labels)))


def test_what_was_reviewed_survives_saving(tmp_path: Path, labels: np.ndarray) -> None:
    baseline = slice_digests(labels)
    labels[5, 3:6, 3:6] = 1
    path = tmp_path / "corrected.tif"
    write_segmentation(segmentation(labels, baseline=baseline, accepted=[0]), path)
    back = read_segmentation(path)
    assert back.provenance["baseline"] == baseline
    assert reviewed_slices(back) == [0, 5]
