"""at2_rag itself: attention of the question's tokens, weighted by head."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import at2_rag
from at2_rag.model.hub import DEFAULT_MODEL
from at2_rag.model.loading import preferred_dtype
from at2_rag.pruner import AT2Pruner
from at2_rag.reading.chunk_states import ChunkStateStore
from at2_rag.reading.features import Reading
from at2_rag.readout.head_weights import DESCRIPTION_FILE, UNIFORM, WEIGHTS_FILE
from at2_rag.readout.lookup import resolve_head_weights
from at2_rag.text.chunks import Chunk
from at2_rag_evals.model_record import eval_device, model_record
from at2_rag_evals.provenance import files_sha256, without_folder
from at2_rag_evals.rankers.base import ItemScores
from at2_rag_evals.rankers.shared_states import shared_states

SCORING_MODULES = (
    "attention",
    "break_even",
    "chunk_arguments",
    "chunk_states",
    "chunks",
    "features",
    "head_weights",
    "layerwise",
    "lockstep",
    "model_loading",
    "prompt",
    "prune_request",
    "pruner",
    "question_pass",
    "request_scoring",
    "scoring_model",
    "sentence_tokens",
    "sentences",
    "source_scorer",
    "span_reading",
    "state_groups",
    "text_encoder",
    "weight_lookup",
)


class AT2Ranker:
    """The score of `AT2Pruner` as it comes out of the box.

    Stored scores are bound to the files of the model and of the head weights, to the device and
    its number type, and to the code that scores.

    Args:
        model: The scoring model, a known name, a folder or a hub id; None for the default model.
        head_weights: A folder with head weights, the name of shipped ones, or "uniform"; None
            for those shipped for the model.
        reading: The reading mode; None for what the head weights are for.
        remember: Whether chunk states are kept for other items that have the same chunks, shared
            by all systems of the process; without, every item takes the time of a new one.

    Attributes:
        scores_are_logits: Whether the softmax over an item's scores is what `top_p` adds up;
            not for "uniform" and other weights whose score scale is "additive".

    Raises:
        ModelNotFoundError: If the model can't be found or fetched.
        HeadWeightsError: If head weights that were named can't be read.
    """

    name = "at2"
    workers = os.cpu_count() or 1

    def __init__(
        self,
        model: str | None = None,
        *,
        head_weights: str | None = None,
        reading: Reading | None = None,
        remember: bool = True,
    ) -> None:
        self._model = model or DEFAULT_MODEL
        self._reading = reading
        self._remember = remember
        self._head_weights = head_weights
        self.scores_are_logits = _scores_are_logits(head_weights)
        self.settings: Mapping[str, object] = {
            **model_record(self._model, SCORING_MODULES),
            **head_weights_record(head_weights),
            "reading": reading,
        }

    def prepare(self) -> None:
        """Load the scoring model and its head weights.

        Raises:
            AT2Error: If they can't be loaded, or don't belong together.
        """
        device = eval_device()
        torch.set_num_threads(1)  # many items at a time read faster than many threads an item
        self._pruner = AT2Pruner.from_pretrained(
            self._model,
            head_weights=self._head_weights,
            reading=self._reading,
            device=device,
            dtype=preferred_dtype(device),
            chunk_cache=self._states(),
        )

    def score(self, query: str, chunks: Sequence[Chunk]) -> ItemScores:
        """Score the chunks with the pruner."""
        return ItemScores(tuple(scored.score for scored in self._pruner.score(query, chunks)))

    def _scores_of_pruning(self, query: str, chunks: Sequence[Chunk], **how: Any) -> ItemScores:
        """Score the chunks as a pruning that drops none does; `how` as of `AT2Pruner.prune`."""
        result = self._pruner.prune(query, chunks, top_k=len(chunks), max_overlap=None, **how)
        scores = {own.index: own.score for own in (*result.kept, *result.dropped)}
        return ItemScores(tuple(scores[place] for place in range(len(chunks))))

    def score_sentences(self, query: str, chunks: Sequence[Chunk]) -> ItemScores:
        """Score the sentences of the chunks within their chunks, one score a sentence."""
        found = self._pruner.score_sentences(query, chunks)
        return ItemScores(tuple(scored.score for scored in found))

    def _states(self) -> ChunkStateStore | None:
        """Return where chunk states are kept; None for nowhere."""
        return shared_states() if self._remember else None


def _scores_are_logits(head_weights: str | None) -> bool:
    if head_weights is None:  # shipped ones, which are fitted
        return True
    weights = resolve_head_weights(
        head_weights, layers=1, heads=1, reading=None, fingerprint="", model_name=None
    )
    return weights.score_scale == "logit"


def head_weights_record(head_weights: str | None) -> dict[str, object]:
    """Return which head weights are meant, as JSON-ready values.

    Args:
        head_weights: A folder, the name of shipped ones, or "uniform"; None for shipped ones.
    """
    return {
        "head_weights": "shipped" if head_weights is None else without_folder(head_weights),
        "head_weights_sha256": _weights_sha256(head_weights),
    }


def _weights_sha256(head_weights: str | None) -> str | None:
    if head_weights == UNIFORM:
        return None
    shipped = Path(at2_rag.__file__).parent / "weights"
    folder = shipped if head_weights is None else Path(head_weights)
    if not folder.is_dir():
        folder = shipped
    try:
        return files_sha256(folder, [f"**/{WEIGHTS_FILE}", f"**/{DESCRIPTION_FILE}"])
    except FileNotFoundError:
        return None
