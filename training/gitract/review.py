"""What a person did about each slice of a segmentation, and which slices count as reviewed.

It is told by difference: digests say whether a slice is as it was predicted, as filling
between corrected slices left it, or neither (`gitract.baseline`). What cannot be told so, a
person says: this slice is right as it stands, leave that one out. Kept in the provenance,
JSON-ready, with slices as indices or, as keys, their decimals:

- ``baseline``: the digest of each predicted slice;
- ``accepted``, ``rejected``: lists of slices;
- ``filled``: ``{"41": {digest: seen}}``: the contents that filling gave to a slice, and
  whether the person accepted them since. All of them are kept, as undo may bring each back;
- ``unreviewed``: ``{"all": ["small_bowel"], "40": []}``: organs that were not looked at, on
  all slices but those with an entry of their own.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from gitract.baseline import slice_digests
from gitract.errors import InputError
from gitract.scan import Segmentation

__all__ = [
    "SliceState",
    "reviewed_slices",
    "slice_states",
    "states_of_digests",
    "unreviewed_organs",
]

SliceState = Literal["untouched", "edited", "accepted", "rejected"]
"""``accepted``: seen, and right as it stands; ``rejected``: not to be learnt from."""


def slice_states(
    edited: Collection[int], provenance: Mapping[str, Any], count: int
) -> list[SliceState]:
    """The state of each slice: rejected wins, then edited, then accepted.

    Parameters
    ----------
    edited
        Slices that differ from the prediction by a person's hand.
    provenance
        As in `gitract.scan.Segmentation`; its ``accepted`` and ``rejected`` count.
    count
        How many slices there are.
    """
    ranks: tuple[tuple[Collection[int], SliceState], ...] = (
        (provenance.get("rejected", ()), "rejected"),
        (edited, "edited"),
        (provenance.get("accepted", ()), "accepted"),
    )
    return [
        next((state for slices, state in ranks if index in slices), "untouched")
        for index in range(count)
    ]


def states_of_digests(digests: Sequence[str], provenance: Mapping[str, Any]) -> list[SliceState]:
    """The state of each slice, from what stands on it now.

    A slice that still is as filling left it was not seen by anybody: it is untouched, until
    the person accepts it or draws on it. Accepting goes for what was there then; where undo
    brings back other contents, it does not.

    Parameters
    ----------
    digests
        Of the slices as they are now, see `gitract.baseline.slice_digests`.
    provenance
        As in `gitract.scan.Segmentation`. Without a baseline no slice is edited.

    Raises
    ------
    InputError
        The baseline belongs to a stack of another length.
    """
    baseline = provenance.get("baseline", digests)
    if len(baseline) != len(digests):
        raise InputError(
            f"The labels have {len(digests)} slices but their baseline has {len(baseline)}: "
            "they belong to different scans."
        )
    filled = provenance.get("filled", {})
    said_right = {*provenance.get("accepted", ())}
    edited, accepted = set(), set()
    for index, (digest, predicted) in enumerate(zip(digests, baseline, strict=True)):
        seen = filled.get(str(index), {}).get(digest)
        if seen is None and digest != predicted:
            edited.add(index)
        elif seen or (seen is None and index in said_right):
            accepted.add(index)
    return slice_states(edited, {**provenance, "accepted": accepted}, len(digests))


def reviewed_slices(segmentation: Segmentation) -> list[int]:
    """Slices that were edited, and slices that were accepted as they stood.

    Parameters
    ----------
    segmentation
        Its provenance must hold the ``baseline`` of the prediction that it came from.

    Returns
    -------
    list of int
        0-based, ascending.

    Raises
    ------
    InputError
        It does not know what it came from, or nothing was reviewed.
    """
    provenance = segmentation.provenance
    if provenance.get("baseline") is None:
        raise InputError(
            f"{segmentation.name} does not know the prediction that it was corrected from: "
            "name the reviewed slices with --slices."
        )
    states = states_of_digests(slice_digests(segmentation.labels().array), provenance)
    reviewed = [index for index, state in enumerate(states) if state in ("edited", "accepted")]
    if not reviewed:
        raise InputError(f"No slice of {segmentation.name} differs from its prediction.")
    return reviewed


def unreviewed_organs(provenance: Mapping[str, Any], index: int) -> frozenset[str]:
    """Names of the organs that nobody looked at on a slice, though it was reviewed.

    What stands there of them is neither right nor wrong. A slice with an entry of its own
    goes by that, any other by the entry of all.
    """
    unreviewed = provenance.get("unreviewed", {})
    return frozenset(unreviewed.get(str(index), unreviewed.get("all", ())))
