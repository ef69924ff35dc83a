"""What is worth knowing of a labelled run before training on it."""

import numpy as np
import numpy.typing as npt

from gitract.labelled.found import LabelledRun
from gitract.scan import Spacing
from gitract.strict import StrictModel

__all__ = ["OrganFacts", "RunFacts", "facts_of"]


class OrganFacts(StrictModel):
    """One outlined organ of a run.

    Parameters
    ----------
    name
        ``stomach``.
    slices
        How many it is on.
    ml
        Its volume in millilitres.
    cut
        Whether it reaches the border of a slice, or the first or last of several slices, so
        that a part of it may lie beyond.
    """

    name: str
    slices: int
    ml: float
    cut: bool


class RunFacts(StrictModel):
    """Consecutive slices of a scan, as they are stored.

    Parameters
    ----------
    shape
        ``(slices, rows, columns)``.
    spacing
        ``(slice, row, column)`` in mm.
    low, high
        The least and the largest value of a voxel.
    organs
        Those that were outlined.
    outlined_slices
        How many slices hold one of them at least.
    organ_voxels
        Voxels that belong to one of them at least.
    overlap_voxels
        Voxels that belong to several.
    """

    shape: tuple[int, int, int]
    spacing: Spacing
    low: float
    high: float
    organs: tuple[OrganFacts, ...]
    outlined_slices: int
    organ_voxels: int
    overlap_voxels: int


def facts_of(run: LabelledRun) -> RunFacts:
    """Look at every voxel once."""
    scan, truth = run.scan, run.truth
    volumes = truth.volumes_ml
    claims = truth.masks.sum(axis=0, dtype=np.uint8)
    return RunFacts(
        shape=scan.shape,
        spacing=scan.spacing,
        low=float(scan.voxels.min()),
        high=float(scan.voxels.max()),
        organs=tuple(
            OrganFacts(
                name=organ.name,
                slices=int(np.count_nonzero(mask.any(axis=(1, 2)))),
                ml=volumes[organ.name],
                cut=_is_cut(mask),
            )
            for organ, mask in zip(truth.organs, truth.masks, strict=True)
        ),
        outlined_slices=int(np.count_nonzero(claims.any(axis=(1, 2)))),
        organ_voxels=int(np.count_nonzero(claims)),
        overlap_voxels=int(np.count_nonzero(claims > 1)),
    )


def _is_cut(mask: npt.NDArray[np.bool_]) -> bool:
    ends = len(mask) > 1 and bool(mask[0].any() or mask[-1].any())
    return ends or bool(mask[:, [0, -1]].any() or mask[:, :, [0, -1]].any())
