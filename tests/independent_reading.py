"""Reading sources independently in tests: short names, and a model that counts its passes."""

from __future__ import annotations

import random
from typing import Any

from torch import Tensor

from at2_rag.prompt.layout import PromptLayout
from at2_rag.prompt.sentence_tokens import SourcePart
from at2_rag.reading.attention import AttentionReader
from at2_rag.reading.chunk_states import StateStore
from at2_rag.reading.independent import IndependentReader, LayoutPasses
from at2_rag.reading.scoring_model import ScoringModel
from tests.brute_force import random_layout
from tests.tiny_models import tiny_tokenizer


class CountingModel(ScoringModel):
    """A scoring model that notes how many tokens each forward pass had."""

    def __init__(self, model: Any) -> None:
        self.passes: list[int] = []
        super().__init__(model, tiny_tokenizer())
        self.passes.clear()

    def run(self, input_ids: Tensor, reading: AttentionReader, **kwargs: Any) -> None:
        """Note the pass and run it."""
        self.passes.append(input_ids.numel())
        super().run(input_ids, reading, **kwargs)


def scorer(model: Any, depth: int | None = None) -> ScoringModel:
    """Return a scoring model that may be read independently."""
    scoring_model = ScoringModel(model, tiny_tokenizer(), depth=depth)
    scoring_model.check_independent()
    return scoring_model


def layout_of(model: ScoringModel, lengths: list[int], *, question: int = 9) -> PromptLayout:
    """Return random sources of the given lengths after the model's own prefix."""
    return random_layout(lengths, prefix=model.prompts.prefix_ids, question=question)


def many_sources(model: ScoringModel) -> PromptLayout:
    """Return 230 sources, most of them of nearly the same length, and a question of 25 tokens."""
    shuffle = random.Random(1)
    lengths = [*(shuffle.randrange(36, 45) for _ in range(210)), *range(1, 20), 300]
    shuffle.shuffle(lengths)
    return layout_of(model, lengths, question=25)


def read(
    model: ScoringModel,
    layout: PromptLayout,
    store: StateStore | None = None,
    *,
    parts: tuple[SourcePart, ...] | None = None,
    scope: str = "",
) -> tuple[Tensor, Tensor]:
    """Return the attention of the question together and apart; of parts, or of whole sources."""
    reader = IndependentReader(model, store=store, scope=scope)
    [attention] = reader.read([LayoutPasses(layout, {"together": parts, "apart": parts})])
    return attention["together"], attention["apart"]
