"""A fine-tuned model that nobody adopted yet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from safetensors.torch import load
from torch import nn

from gitract.corrections import Corrections, CorrectionStore
from gitract.errors import InputError
from gitract.fine_tune.card import Card
from gitract.model_card import fine_tuning_card
from gitract.model_config import ModelConfig
from gitract.model_store import ModelInfo, ModelStore
from gitract.models import save_model
from gitract.models.weights import build_network, packed_weights
from gitract.scan import Segmentation

__all__ = ["Candidate", "drawn"]


@dataclass
class Candidate:
    """A fine-tuned model that nobody adopted yet; it lives in memory alone.

    Parameters
    ----------
    card
        How it compares with the model that it came from.
    parent
        That model.
    corrections
        What it has learnt from, anew.
    before, after
        What the parent and the candidate draw on each scan of the corrections.
    """

    card: Card
    parent: ModelInfo
    corrections: Sequence[Corrections]
    before: Sequence[Segmentation]
    after: Sequence[Segmentation]
    _network: nn.Module | None
    _config: ModelConfig
    _store: ModelStore

    def keep(self, name: str | None = None) -> ModelInfo:
        """Save the candidate as a new version and make it the active one.

        Its corrections are kept as well (`gitract.corrections`), for later fine-tunings.

        Parameters
        ----------
        name
            For the new version; the parent's name with the next number when not given.

        Raises
        ------
        InputError
            The store cannot be written, or the candidate was discarded.
        """
        if self._network is None:
            raise InputError("This candidate was discarded: fine-tune again.")
        earlier = CorrectionStore(self._store.home)
        for corrections in self.corrections:
            earlier.add(corrections)
        return self._store.activate(self._added(self._network, name).id)

    def _added(self, network: nn.Module, name: str | None) -> ModelInfo:
        """The candidate as a version, under the first id that no other process takes meanwhile."""
        config = self._config.model_copy(
            update={
                "id": self._store.free_id(name or self.parent.id),
                "title": name or self.parent.title,
                "dice": {r.organ.name: r.after for r in self.card.rows if r.after is not None},
            }
        )
        text = fine_tuning_card(config, self.card)
        try:
            return self._store.add(
                config.id, lambda folder: save_model(network, config, text, folder)
            )
        except InputError:
            if self._store.free_id(name or self.parent.id) == config.id:
                raise
            return self._added(network, name)

    def discard(self) -> None:
        """Forget the weights."""
        self._network = None

    def exported(self) -> tuple[ModelConfig, bytes]:
        """Its configuration and its weights, safetensors, for another machine."""
        assert self._network is not None
        return self._config, packed_weights(self._network)

    @classmethod
    def received(
        cls,
        card: Mapping[str, Any],
        parent: ModelInfo,
        corrections: Sequence[Corrections],
        masks: Sequence[tuple[np.ndarray, np.ndarray]],
        config: ModelConfig,
        weights: bytes,
        store: ModelStore,
    ) -> "Candidate":
        """What another machine fine-tuned, to be kept or discarded here.

        Parameters
        ----------
        card
            `Card.as_dict` of it.
        parent
            The version that it came from, here.
        corrections
            What it has learnt from, anew.
        masks
            What both draw on the scans of the corrections.
        config, weights
            As of `exported`.
        store
            Where it is kept.
        """
        network = build_network(config)
        network.load_state_dict(load(weights))
        config = config.model_copy(update={"id": parent.id, "parent": parent.id})
        before, after = zip(
            *(drawn(one, pair, config) for one, pair in zip(corrections, masks, strict=True)),
            strict=True,
        )
        found = Card.from_dict(card, config.organs)
        return cls(
            found, parent, corrections, before, after, network.eval(), config, store
        )  # fmt: skip


def drawn(
    corrections: Corrections, masks: tuple[np.ndarray, np.ndarray], config: ModelConfig
) -> tuple[Segmentation, Segmentation]:
    """Masks on the scan of corrections as segmentations, before and after."""
    scan = corrections.scan
    before, after = (
        Segmentation(one, scan.spacing, scan.affine, config.organs, scan.name, scan.slice_numbers)
        for one in masks
    )
    return before, after
