"""What a person did about each slice, told by digests and by what they said."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitract.baseline import slice_digest, slice_digests, turned_provenance
from gitract.errors import InputError
from gitract.io import read_segmentation, write_segmentation
from gitract.organs import IGNORE, KNOWN_ORGANS
from gitract.review import reviewed_slices, slice_states, states_of_digests, unreviewed_organs
from gitract.scan import Scan, Segmentation

SLICES = st.sets(st.integers(0, 7))
DRAWN = np.random.default_rng(0).integers(0, 4, (6, 10, 12), dtype=np.uint8)


@given(edited=SLICES, accepted=SLICES, rejected=SLICES)
def test_rejected_wins_then_edited_then_accepted(
    edited: set[int], accepted: set[int], rejected: set[int]
) -> None:
    said = {"accepted": sorted(accepted), "rejected": sorted(rejected)}
    for index, state in enumerate(slice_states(edited, said, 8)):
        if index in rejected:
            assert state == "rejected"
        elif index in edited:
            assert state == "edited"
        elif index in accepted:
            assert state == "accepted"
        else:
            assert state == "untouched"


@given(
    contents=st.lists(st.sampled_from("pfgx"), min_size=8, max_size=8),
    accepted=SLICES,
    seen=st.booleans(),
)
def test_states_are_told_from_what_is_there_now(
    contents: list[str], accepted: set[int], seen: bool
) -> None:
    """p: as predicted; f, g: two fillings, of which the second may have been accepted."""
    said = {
        "baseline": ["p"] * 8,
        "accepted": sorted(accepted),
        "filled": {str(index): {"f": False, "g": seen} for index in range(8)},
    }
    expected = {
        "p": lambda index: "accepted" if index in accepted else "untouched",
        "f": lambda index: "untouched",
        "g": lambda index: "accepted" if seen else "untouched",
        "x": lambda index: "edited",
    }
    states = states_of_digests(contents, said)
    assert states == [expected[content](index) for index, content in enumerate(contents)]


def test_without_a_baseline_only_what_was_said_counts() -> None:
    said = {"accepted": [1], "rejected": [2]}
    assert states_of_digests(["a", "b", "c"], said) == ["untouched", "accepted", "rejected"]


def test_a_baseline_of_another_stack_is_refused() -> None:
    with pytest.raises(InputError, match="2 slices but their baseline has 3"):
        states_of_digests(["a", "b"], {"baseline": ["a", "b", "c"]})


def test_filled_slices_are_not_learnt_from_until_they_are_accepted() -> None:
    labels = DRAWN.copy()
    said: dict[str, Any] = {"baseline": slice_digests(labels)}
    labels[1:5, 2:5, 2:5] = 3 - labels[1:5, 2:5, 2:5]
    said["filled"] = {
        "2": {slice_digest(labels[2]): False},
        "3": {slice_digest(labels[3]): True},
    }
    filled = Segmentation.of_labels(labels, spacing=(3, 1.5, 1.5), provenance=said)
    assert reviewed_slices(filled) == [1, 3, 4]


def test_the_entry_of_a_slice_goes_before_that_of_all() -> None:
    said = {"unreviewed": {"all": ["small_bowel"], "40": [], "41": ["stomach"]}}
    assert unreviewed_organs(said, 39) == {"small_bowel"}
    assert unreviewed_organs(said, 40) == frozenset()
    assert unreviewed_organs(said, 41) == {"stomach"}
    assert unreviewed_organs({}, 40) == frozenset()
    assert unreviewed_organs({"unreviewed": {"40": ["stomach"]}}, 39) == frozenset()


def test_ignore_is_a_value_that_no_organ_has() -> None:
    assert IGNORE.id not in {organ.id for organ in KNOWN_ORGANS}
    assert IGNORE.id == np.iinfo(np.uint8).max


def reviewed_labels() -> Segmentation:
    """Six slices: untouched, edited, accepted, rejected, filled, filled and accepted."""
    labels = DRAWN.copy()
    said: dict[str, Any] = {"baseline": slice_digests(labels)}
    labels[[1, 4, 5], 2:5, 2:6] = 3
    said |= {
        "accepted": [2],
        "rejected": [3],
        "filled": {
            "4": {slice_digest(labels[4]): False, "0" * 16: False},
            "5": {slice_digest(labels[5]): True},
        },
        "unreviewed": {"all": ["stomach"], "1": ["small_bowel"]},
        "doubts": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5],
    }
    return Segmentation.of_labels(labels, spacing=(3, 1.5, 1.25), provenance=said)


def states(segmentation: Segmentation) -> list[str]:
    return list(
        states_of_digests(slice_digests(segmentation.labels().array), segmentation.provenance)
    )


STATES = ["untouched", "edited", "accepted", "rejected", "untouched", "accepted"]


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1), (0, 1, 2)])
def test_what_was_said_follows_slices_that_stand_in_another_order(axes: tuple[int, ...]) -> None:
    corrected = reviewed_labels()
    assert states(corrected) == STATES
    affine = corrected.affine.copy()
    for axis in axes:
        affine[:, 3] += affine[:, axis] * (corrected.shape[axis] - 1)
        affine[:, axis] *= -1
    scan = Scan(np.zeros(corrected.shape), corrected.spacing, affine)
    turned = corrected.on(scan)
    back = slice(None, None, -1) if 0 in axes else slice(None)
    assert states(turned)[back] == STATES
    unreviewed = [unreviewed_organs(turned.provenance, index) for index in range(6)][back]
    assert unreviewed == [{"stomach"}, {"small_bowel"}, *[{"stomach"}] * 4]
    assert turned.provenance["doubts"][back] == corrected.provenance["doubts"]
    assert states(turned.on(replace(scan, affine=corrected.affine))) == STATES


def test_where_slices_lie_along_another_axis_only_what_goes_for_all_is_known() -> None:
    corrected = reviewed_labels()
    labels = corrected.labels().array
    kept = turned_provenance(
        {**corrected.provenance, "model": "m"}, labels, labels.swapaxes(0, 1), None
    )
    assert kept == {"model": "m", "unreviewed": {"all": ["stomach"]}}


@pytest.mark.parametrize("suffix", [".tif", ".nii.gz"])
def test_all_of_it_survives_saving(tmp_path: Path, suffix: str) -> None:
    corrected = reviewed_labels()
    back = read_segmentation(write_segmentation(corrected, tmp_path / f"out{suffix}"))
    assert states(back) == STATES
    assert back.provenance["unreviewed"] == corrected.provenance["unreviewed"]
