"""The systems that score by `AT2Attributor`: the attention of the answer's own tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from at2_rag.attribution import AT2Attributor
from at2_rag.model.hub import DEFAULT_MODEL
from at2_rag.model.loading import preferred_dtype
from at2_rag.readout.head_weights import UNIFORM
from at2_rag.readout.lookup import named_or_folder
from at2_rag.results import ScoredChunk, ScoredSentence
from at2_rag_evals.fidelity.sources import SourcedItem
from at2_rag_evals.fidelity.systems.base import FidelitySystem
from at2_rag_evals.model_record import eval_device, model_record
from at2_rag_evals.rankers.at2 import head_weights_record
from at2_rag_evals.rankers.base import ItemScores


class AnswerAttentionSystem(FidelitySystem):
    """Reads question, chunks and answer in one prompt and scores sources as the attributor does.

    B. Cohen-Wang, Y. Chuang and A. Madry, "Learning to Attribute with Attention", 2025: what the
    paper's own scores are. Unlike the question's attention they see the answer.

    Args:
        name: What the report calls the system.
        model: The model, a known name, a folder or a hub id; None for the default model.
        answer_weights: A folder with head weights for answers, or "uniform"; None for those shipped
            for the model.

    Raises:
        ModelNotFoundError: If the model can't be found or fetched.
    """

    def __init__(self, name: str, model: str | None, *, answer_weights: str | None) -> None:
        self.name = name
        self._model = model or DEFAULT_MODEL
        self._head_weights = answer_weights
        self.scale = "mass" if answer_weights == UNIFORM else "additive"
        self.settings = {
            **model_record(self._model),
            **head_weights_record(answer_weights),
        }

    def prepare(self) -> None:
        """Load the model and its head weights.

        Raises:
            AT2Error: If they can't be loaded, or don't belong together.
        """
        torch.set_num_threads(1)
        device = eval_device()
        self._attributor = AT2Attributor.from_pretrained(
            self._model,
            head_weights=named_or_folder(self._head_weights),
            device=device,
            dtype=preferred_dtype(device),
        )

    def scores(self, item: SourcedItem, answer: str) -> ItemScores:
        """Score the sources by the answer's attention."""
        attribution = self._attributor.attribute(item.query, item.chunks, answer, unit=item.unit)
        scored: Sequence[ScoredChunk | ScoredSentence]
        scored = attribution.sentences if item.unit == "sentence" else attribution.chunks
        return ItemScores(tuple(source.score for source in scored))
