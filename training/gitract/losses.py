"""Losses that leave out organs that nobody outlined."""

import torch
from torch.nn import functional

__all__ = ["masked_bce_dice"]


def masked_bce_dice(
    logits: torch.Tensor, masks: torch.Tensor, known: torch.Tensor, *, dice_weight: float = 1.0
) -> torch.Tensor:
    """Binary cross-entropy plus soft Dice, organ by organ, on what is known.

    Dice is pooled over the batch: a slice without the organ then counts through its
    false positives and does not make the ratio jump.

    Parameters
    ----------
    logits
        ``(batch, organ, row, column)``.
    masks
        Same shape, 0 or 1.
    known
        ``(batch, organ)``, 1 where the organ was outlined (or is known to be absent)
        on that slice, 0 where its mask means nothing.
    dice_weight
        Weight of the Dice term against the cross-entropy.

    Returns
    -------
    torch.Tensor
        Scalar; 0 where nothing is known.
    """
    weight = known[:, :, None, None].to(logits.dtype)
    entropy = functional.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    pixels = logits.shape[-2] * logits.shape[-1]
    bce = (entropy * weight).sum() / (weight.sum() * pixels).clamp_min(1.0)

    probabilities = torch.sigmoid(logits) * weight
    truth = masks * weight
    axes = (0, 2, 3)
    overlap = (probabilities * truth).sum(axes)
    total = probabilities.sum(axes) + truth.sum(axes)
    seen = known.any(dim=0).to(logits.dtype)
    dice = (2.0 * overlap + 1.0) / (total + 1.0)
    return bce + dice_weight * ((1.0 - dice) * seen).sum() / seen.sum().clamp_min(1.0)
