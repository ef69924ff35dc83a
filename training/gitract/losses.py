"""What training minimises: losses organ by organ, on the slices where the organ is known."""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional

from gitract.models.outputs import Outputs, as_outputs
from gitract.recipe import BCE_AND_DICE, Loss
from gitract.torchvision_guard import ensure_torchvision

__all__ = ["SegmentationLoss"]

_Term = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
_SMOOTH = 1.0
_CROSS_ENTROPY: _Term = functional.binary_cross_entropy_with_logits


def _tversky(alpha: float, beta: float) -> _Term:
    """One minus the Tversky index, pooled over the batch.

    Pooled, a slice without the organ counts through its false positives and does not make
    the ratio jump. With both weights 1/2 it is Dice. Salehi et al. 2017, arXiv:1706.05721.
    """

    def term(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        probabilities = torch.sigmoid(logits)
        overlap = (probabilities * truth).sum()
        false_positives = probabilities.sum() - overlap
        false_negatives = truth.sum() - overlap
        wrong = alpha * false_positives + beta * false_negatives
        return 1.0 - (overlap + _SMOOTH / 2) / (overlap + wrong + _SMOOTH / 2)

    return term


def _nothing(logits: torch.Tensor) -> torch.Tensor:
    """Zero that has a gradient; a sum in half precision might not be finite."""
    return logits.float().sum() * 0.0


def _from_smp(name: str, **options: object) -> _Term:
    ensure_torchvision()
    from segmentation_models_pytorch import losses

    term: _Term = getattr(losses, name)("binary", **options)
    return term


def _term(loss: Loss) -> _Term:
    match loss.kind:
        case "bce":
            return _CROSS_ENTROPY
        case "dice":
            return _tversky(0.5, 0.5)
        case "tversky":
            return _tversky(loss.alpha, loss.beta)
        case "focal":
            return _from_smp("FocalLoss", gamma=loss.gamma)
        case "lovasz":
            return _from_smp("LovaszLoss")


class SegmentationLoss(nn.Module):
    """A weighted sum of terms, averaged over the organs that anybody outlined.

    Parameters
    ----------
    terms
        As the recipe has them.
    deep_supervision
        Weight of the first of a network's auxiliary maps, half for each further one.
    presence
        Weight of the cross-entropy of a network's presence logits.
    reconstruction
        Weight of the cross-entropy between a network's grey values and the centre slice.
    """

    def __init__(
        self,
        terms: Sequence[Loss] = BCE_AND_DICE,
        *,
        deep_supervision: float = 0.5,
        presence: float = 0.1,
        reconstruction: float = 1.0,
    ) -> None:
        super().__init__()
        self._terms = [(loss.weight, _term(loss)) for loss in terms]
        self._deep_supervision = deep_supervision
        self._presence = presence
        self._reconstruction = reconstruction

    def forward(
        self,
        output: torch.Tensor | Outputs,
        masks: torch.Tensor,
        known: torch.Tensor,
        images: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The loss of a batch.

        Parameters
        ----------
        output
            Logits ``(batch, organ, ...)``, alone or with auxiliary outputs.
        masks
            ``(batch, organ, ...)``, 0 or 1, in the size of the logits.
        known
            ``(batch, organ)``, 1 where the organ was outlined (or is known to be absent)
            there, 0 where its mask means nothing.
        images
            ``(batch, channels, ...)``: what went into the network, the centre slice in the
            middle of the channels; needed by networks that draw it.

        Returns
        -------
        torch.Tensor
            Scalar; 0 where nothing is known.
        """
        answer = as_outputs(output)
        loss = self._by_organ(answer.logits, masks, known)
        weight = self._deep_supervision
        for maps in answer.deep:
            coarse = functional.interpolate(masks, size=maps.shape[2:], mode="nearest")
            loss = loss + weight * self._by_organ(maps, coarse, known)
            weight /= 2
        if answer.presence is not None:
            present = masks.flatten(2).amax(2)[:, :, None]
            told = self._mean(answer.presence[:, :, None], present, known, _CROSS_ENTROPY)
            loss = loss + self._presence * told
        if answer.reconstruction is not None and images is not None:
            centre = images.shape[1] // 2
            grey = images[:, centre : centre + 1].float().clamp(0.0, 1.0)
            drawn = _CROSS_ENTROPY(answer.reconstruction.float(), grey)
            loss = loss + self._reconstruction * drawn
        return loss

    def _by_organ(
        self, logits: torch.Tensor, masks: torch.Tensor, known: torch.Tensor
    ) -> torch.Tensor:
        total = _nothing(logits)
        for weight, term in self._terms:
            total = total + weight * self._mean(logits, masks, known, term)
        return total

    @staticmethod
    def _mean(
        logits: torch.Tensor, masks: torch.Tensor, known: torch.Tensor, term: _Term
    ) -> torch.Tensor:
        """The term, averaged over organs; each sees only the samples that know it."""
        rows = known > 0
        values = [
            term(logits[rows[:, organ], organ].float(), masks[rows[:, organ], organ])
            for organ in range(known.shape[1])
            if rows[:, organ].any()
        ]
        return torch.stack(values).mean() if values else _nothing(logits)
