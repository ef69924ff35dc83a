"""Regions to ignore, in formats that hold organs alone.

In a label image they are one value more. A table of run lengths, a SEG and an RT Structure Set
go to programs that would take them for an organ, so there they are left out.
"""

from dataclasses import replace

import numpy as np

from gitract.organs import IGNORE
from gitract.scan import Segmentation

__all__ = ["without_ignored"]


def without_ignored(segmentation: Segmentation) -> Segmentation:
    """The organs alone.

    What was to be ignored is background now, and wrong as such. So slices that had some are
    ``rejected`` in the provenance, which the notes keep: read again, they are not learnt from.
    """
    kept = [index for index, organ in enumerate(segmentation.organs) if organ != IGNORE]
    if len(kept) == len(segmentation.organs):
        return segmentation
    region = segmentation.masks[segmentation.organs.index(IGNORE)]
    slices = {int(index) for index in np.flatnonzero(region.any(axis=(1, 2)))}
    provenance = dict(segmentation.provenance)
    if slices:
        provenance["rejected"] = sorted(slices | {*provenance.get("rejected", ())})
    return replace(
        segmentation,
        masks=segmentation.masks[kept],
        organs=tuple(segmentation.organs[index] for index in kept),
        provenance=provenance,
    )
