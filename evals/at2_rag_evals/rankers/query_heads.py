"""A few attention heads, chosen because they attend from questions to evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from at2_rag.data.examples import draw_per_source, read_examples
from at2_rag.errors import DataError
from at2_rag.model.hub import DEFAULT_MODEL
from at2_rag.model.loading import LoadedModel
from at2_rag.pruner import AT2Pruner
from at2_rag.reading.features import FeatureSpec
from at2_rag.reading.independent import IndependentReader, LayoutPasses
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.text.chunks import Chunk
from at2_rag_evals.model_record import model_record
from at2_rag_evals.provenance import file_record
from at2_rag_evals.rankers.base import ItemScores, Ranker

TRAIN_ITEMS = 20
"""Most training items of a source that heads are chosen on."""


class EvidenceHeads:
    """How much attention each head pays to evidence, over training items.

    W. Zhang et al., "Query-Focused Retrieval Heads Improve Long-Context Reasoning and Re-ranking"
    (QRHead), EMNLP 2025: a head's score is the attention mass from the question's tokens to gold
    passages, averaged over a few dozen items. Here the mass is that of reading together, averaged
    within sources first. Of each source at most `TRAIN_ITEMS` are drawn, by `seed`.
    """

    def __init__(self, files: Sequence[Path], *, model: str | None = None, seed: int = 0) -> None:
        self._files, self._model, self._seed = files, model, seed
        self.settings: Mapping[str, object] = {
            **model_record(model),
            "train": [file_record(path) for path in files],
            "train_items": TRAIN_ITEMS,
            "seed": seed,
        }

    @cached_property
    def model(self) -> LoadedModel:
        """The loaded model."""
        torch.set_num_threads(1)
        return LoadedModel.from_pretrained(self._model or DEFAULT_MODEL)

    @cached_property
    def evidence_mass(self) -> npt.NDArray[np.float64]:
        """Mean attention mass on gold chunks, macro over sources, [L, H].

        Raises:
            DataError: If no training item has gold.
        """
        examples = [item for item in read_examples(self._files) if any(item.labels)]
        if not examples:
            names = ", ".join(path.name for path in self._files)
            raise DataError(f"{names}: no item has gold; pass --train files with evidence labels")
        scoring_model = ScoringModel(self.model.model, self.model.tokenizer)
        reader = IndependentReader(scoring_model)
        by_source: dict[str, list[npt.NDArray[np.float64]]] = {}
        for item in draw_per_source(examples, TRAIN_ITEMS, seed=self._seed):
            layout = scoring_model.prompts.independent(item.query, item.chunks)
            [read] = reader.read([LayoutPasses(layout, {"together": None})])
            mass = read["together"].double().cpu().numpy()
            gold = np.array([item.labels[owner] for owner in layout.owners])
            by_source.setdefault(item.source, []).append(mass[..., gold].sum(-1))
        means = [np.mean(masses, axis=0) for masses in by_source.values()]
        macro: npt.NDArray[np.float64] = np.mean(means, axis=0)
        return macro

    def weights(self, count: int) -> HeadWeights:
        """Return head weights that average the mass of the `count` heads with most on evidence.

        Their layers end with the deepest of those heads.
        """
        mass = self.evidence_mass
        best = np.argsort(-mass, axis=None, kind="stable")[:count]
        layers, heads = np.unravel_index(best, mass.shape)
        weight = np.zeros((1, 1 + layers.max(), mass.shape[1]))
        weight[0, layers, heads] = 1 / len(best)
        return HeadWeights(
            weight.astype(np.float32),
            0.0,
            FeatureSpec("mass", ("together",)),
            score_scale="additive",
        )


class QueryHeadsRanker(Ranker):
    """Scores chunks by the mean attention mass of the `count` heads with most on evidence."""

    def __init__(self, name: str, heads: EvidenceHeads, count: int) -> None:
        self.name = name
        self.settings = {**heads.settings, "heads": count}
        self._heads, self._count = heads, count

    def prepare(self) -> None:
        """Load the model and choose the heads."""
        self._pruner = AT2Pruner(self._heads.model, head_weights=self._heads.weights(self._count))

    def score(self, query: str, chunks: Sequence[Chunk]) -> ItemScores:
        """Score the chunks with the pruner."""
        return ItemScores(tuple(chunk.score for chunk in self._pruner.score(query, chunks)))

    def score_sentences(self, query: str, chunks: Sequence[Chunk]) -> ItemScores:
        """Score the sentences of the chunks within their chunks, one score for each sentence."""
        sentences = self._pruner.score_sentences(query, chunks)
        return ItemScores(tuple(sentence.score for sentence in sentences))
