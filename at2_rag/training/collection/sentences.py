"""Collects what sentence weights are fitted to: scores of sentences by the head weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from at2_rag.data.examples import Example
from at2_rag.errors import PromptTooLongError
from at2_rag.pruning.scorer import Scorer
from at2_rag.reading.chunk_states import StateStore
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.text.units import unit_spans
from at2_rag.training.collection.collection import TOO_LONG, Collection, Row, split_evenly
from at2_rag.training.collection.samples import reading_settings

SHARD_EXAMPLES = 20


class SentenceCollection(Collection):
    """Scores of examples' sentences; a row has `scores`, [U] float32, see `units.unit_spans`.

    Examples without any text, and those whose question exceeds the model's window, are left out.
    Each set of head weights has its subfolder. The model is cut to the weights' layers. What a
    `store` has of a chunk isn't read again.
    """

    def __init__(
        self,
        model: ScoringModel,
        weights: HeadWeights,
        examples: Sequence[Example],
        folder: Path,
        *,
        store: StateStore | None = None,
    ) -> None:
        self._scorer, self._examples = Scorer(model, weights, cache=store), examples
        units = [unit_spans(example.chunks) for example in examples]
        shortlist = weights.shortlist
        settings = {
            "signal": "sentences",
            **reading_settings(model, weights.fingerprint or "", examples),
            "weights": _hash(weights.weight.tobytes()),
            "bias": weights.bias,
            "quantity": weights.spec.quantity,
            "passes": list(weights.spec.passes),
            **({} if shortlist is None else {"shortlist": shortlist.digest, **shortlist.numbers()}),
            "units": _hash(json.dumps(units).encode()),
        }
        name = f"sentences-{_hash(json.dumps(settings).encode())[:8]}"
        shards = split_evenly(range(len(examples)), SHARD_EXAMPLES)
        super().__init__(folder / name, settings, shards)

    def read(self, item: int) -> Row | str:
        """Read one example."""
        query, chunks = self._examples[item].query, self._examples[item].chunks
        units = unit_spans(chunks)
        if not units:
            return "without text"
        try:
            scores = self._scorer.unit_scores(query, chunks, units, alone=False)
        except PromptTooLongError:
            return TOO_LONG
        return {"scores": scores.astype(np.float32)}


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
