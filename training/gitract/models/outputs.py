"""What a network answers in training, beside the logits that it gives at inference."""

from collections.abc import Callable
from typing import NamedTuple

import torch

__all__ = ["Outputs", "as_outputs"]


class Outputs(NamedTuple):
    """Answers of a network in training mode; in evaluation mode it returns the logits alone.

    `gitract.losses.SegmentationLoss` says what each of them weighs.

    Parameters
    ----------
    logits
        ``(batch, organ, row, column)``; 3-D ``(batch, organ, slice, row, column)``.
    deep
        Further maps of logits, of the same or a lower resolution, the most important first:
        deep supervision and auxiliary heads.
    presence
        Logits ``(batch, organ)`` of whether the image holds the organ at all.
    reconstruction
        Logits ``(batch, 1, ...)`` of the grey values of the centre slice, 0 to 1.
    """

    logits: torch.Tensor
    deep: tuple[torch.Tensor, ...] = ()
    presence: torch.Tensor | None = None
    reconstruction: torch.Tensor | None = None

    def mapped(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Outputs":
        """Every tensor changed."""
        return Outputs(
            change(self.logits),
            tuple(change(maps) for maps in self.deep),
            None if self.presence is None else change(self.presence),
            None if self.reconstruction is None else change(self.reconstruction),
        )


def as_outputs(answer: torch.Tensor | Outputs) -> Outputs:
    """A network's answer as `Outputs`, if it answers with logits alone."""
    return Outputs(answer) if isinstance(answer, torch.Tensor) else answer
