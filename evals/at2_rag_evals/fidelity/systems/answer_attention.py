"""The systems that score by `AT2Attributor`: the attention of the answer's own tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from at2_rag.attribution import AT2Attributor
from at2_rag.model.hub import DEFAULT_MODEL
from at2_rag.readout.head_weights import UNIFORM
from at2_rag.readout.shipped import named_or_folder
from at2_rag.results import ScoredChunk, ScoredSentence
from at2_rag_evals.fidelity.sources import SourcedItem
from at2_rag_evals.fidelity.systems.base import FidelitySystem
from at2_rag_evals.model_record import model_record
from at2_rag_evals.rankers.at2 import head_weights_record
from at2_rag_evals.rankers.base import ItemScores


class AnswerAttentionSystem(FidelitySystem):
    """Reads question, chunks and answer in one prompt and scores sources as the attributor does.

    The scores of B. Cohen-Wang, Y. Chuang and A. Madry, "Learning to Attribute with Attention",
    2025. Model and weights as of `AT2Ranker`.
    """

    def __init__(self, name: str, model: str | None, answer_weights: str | None) -> None:
        self.name = name
        self._model, self._head_weights = model, answer_weights
        self.scale = "mass" if answer_weights == UNIFORM else "additive"
        self.settings = model_record(model) | head_weights_record(answer_weights)

    def prepare(self) -> None:
        """Load the model and its head weights."""
        torch.set_num_threads(1)
        self._attributor = AT2Attributor.from_pretrained(
            self._model or DEFAULT_MODEL, head_weights=named_or_folder(self._head_weights)
        )

    def scores(self, item: SourcedItem, answer: str) -> ItemScores:
        """Score the sources by the answer's attention."""
        query, chunks = item.example.query, item.example.chunks
        attribution = self._attributor.attribute(query, chunks, answer, unit=item.unit)
        scored: Sequence[ScoredChunk | ScoredSentence]
        scored = attribution.sentences if item.unit == "sentence" else attribution.chunks
        return ItemScores(tuple(source.score for source in scored))
