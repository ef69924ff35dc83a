"""Which slices of a label image differ from the prediction that was accepted.

The baseline is one short digest a slice. It is small enough to travel in a layer's
metadata and in a saved file, and comparing with it is right whatever happened in
between: paint, fill, undo, redo, save and reopen.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gitract.errors import InputError

__all__ = ["edited_slices", "slice_digest", "slice_digests", "turned_provenance"]

_SLICE_LISTS = ("slices", "edited", "accepted", "rejected")
_BY_SLICE = ("baseline", "doubts", "filled", "unreviewed")


def slice_digest(labels: np.ndarray) -> str:
    """Digest of one slice's labels, the same for every integer type.

    Parameters
    ----------
    labels
        ``(row, column)`` label values, 0 to 255.
    """
    pixels = np.ascontiguousarray(labels, dtype=np.uint8).tobytes()
    return hashlib.blake2b(pixels, digest_size=8).hexdigest()


def slice_digests(labels: np.ndarray) -> list[str]:
    """Digest of each slice of a ``(slice, row, column)`` label image."""
    return [slice_digest(plane) for plane in labels]


def edited_slices(labels: np.ndarray, baseline: Sequence[str]) -> list[int]:
    """The slices, 0-based and ascending, that differ from the baseline.

    Parameters
    ----------
    labels
        ``(slice, row, column)``.
    baseline
        What `slice_digests` gave for the accepted prediction.

    Raises
    ------
    InputError
        The baseline belongs to a stack of another length.
    """
    if len(labels) != len(baseline):
        raise InputError(
            f"The labels have {len(labels)} slices but their baseline has {len(baseline)}: "
            "they belong to different scans."
        )
    return [
        index
        for index, (plane, digest) in enumerate(zip(labels, baseline, strict=True))
        if slice_digest(plane) != digest
    ]


def turned_provenance(
    provenance: Mapping[str, Any],
    before: np.ndarray,
    after: np.ndarray,
    order: Sequence[int] | None,
) -> dict[str, Any]:
    """What is known of slices, once the voxels were put in another order.

    Parameters
    ----------
    provenance
        As in `gitract.scan.Segmentation`: lists of slices, the ``baseline``, and what
        `gitract.review` keeps for each slice.
    before, after
        The labels ``(slice, row, column)`` in both orders.
    order
        Which slice each slice of `after` was; None where slices lie along another axis
        now, so that nothing is known of them.
    """
    kept = {
        key: value
        for key, value in provenance.items()
        if key not in _BY_SLICE and key not in _SLICE_LISTS
    }
    unreviewed = provenance.get("unreviewed", {})
    if "all" in unreviewed:
        kept["unreviewed"] = {"all": unreviewed["all"]}
    if order is None:
        return kept
    place = {old: new for new, old in enumerate(order)}
    for key in _SLICE_LISTS:
        if key in provenance:
            kept[key] = sorted(place[index] for index in provenance[key] if index in place)
    if unreviewed:
        kept["unreviewed"] = _placed(unreviewed, place) | kept.get("unreviewed", {})
    if len(provenance.get("doubts", ())) == len(before):
        kept["doubts"] = [provenance["doubts"][old] for old in order]
    baseline = provenance.get("baseline")
    if baseline is not None and len(baseline) == len(before):
        edited = set(edited_slices(before, baseline))
        # An edited slice keeps the old digest: that of what was predicted there cannot be
        # told any more where rows or columns were reversed, and it stays edited.
        kept["baseline"] = [
            baseline[old] if old in edited else slice_digest(after[new])
            for new, old in enumerate(order)
        ]
    if "filled" in provenance:
        kept["filled"] = {
            str(new): {slice_digest(after[new]): fillings[digest]}
            for new, old in enumerate(order)
            # Fillings that are not there now cannot come back: undo ends with the layer.
            if (fillings := provenance["filled"].get(str(old)))
            and (digest := slice_digest(before[old])) in fillings
        }
    return kept


def _placed(by_slice: Mapping[str, Any], place: Mapping[int, int]) -> dict[str, Any]:
    """The entries of slices, which are named by their index, under their new one."""
    return {
        str(place[int(index)]): value
        for index, value in by_slice.items()
        if index.isdecimal() and int(index) in place
    }
