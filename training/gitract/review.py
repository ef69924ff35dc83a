"""Which slices of a segmentation a person reviewed."""

from gitract.baseline import edited_slices
from gitract.errors import InputError
from gitract.scan import Segmentation

__all__ = ["reviewed_slices"]


def reviewed_slices(segmentation: Segmentation) -> list[int]:
    """Slices that were edited, and slices that were accepted as they stood.

    Parameters
    ----------
    segmentation
        Its provenance must hold the ``baseline`` of the prediction that it came from;
        ``accepted`` lists slices found right, ``left_out`` slices not to learn from.

    Returns
    -------
    list of int
        0-based, ascending.

    Raises
    ------
    InputError
        It does not know what it came from, or nothing was reviewed.
    """
    baseline = segmentation.provenance.get("baseline")
    if baseline is None:
        raise InputError(
            f"{segmentation.name} does not know the prediction that it was corrected from: "
            "name the reviewed slices with --slices."
        )
    edited = edited_slices(segmentation.labels().array, baseline)
    accepted = segmentation.provenance.get("accepted", ())
    left_out = segmentation.provenance.get("left_out", ())
    reviewed = {*edited, *accepted} - {*left_out}
    if not reviewed:
        raise InputError(f"No slice of {segmentation.name} differs from its prediction.")
    return sorted(reviewed)
