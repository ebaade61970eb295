"""What a user would pick instead, on the same prompts: an embedding model, and LongLLMLingua."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec

from interleaved import Case
from speed_prompts import Prompt

from at2_rag_evals.rankers.minilm import MiniLMRanker

MINILM_COLD, MINILM_WARM = "MiniLM, cold", "MiniLM, warm"
LONG_LLM_LINGUA = "LongLLMLingua, documents"

_BATCH = 32
"""Texts that sentence-transformers embeds at a time unless it is told otherwise."""


def peer_cases(prompts: Sequence[Prompt], *, model: str) -> dict[str, Case]:
    """Return the peers that are installed, by name; MiniLM always.

    Args:
        prompts: The prompts.
        model: The model that LongLLMLingua asks; it reads in float32.

    Raises:
        ImportError: If sentence-transformers isn't installed.
        ModelNotFoundError: If a model can't be found.
    """
    ranker = MiniLMRanker(remember=False, batch_size=_BATCH)
    ranker.prepare()
    texts = [[chunk.rendered for chunk in prompt.chunks] for prompt in prompts]
    kept = [ranker.embed(own) for own in texts]

    def cold(number: int) -> Mapping[str, float]:
        found = ranker.embed([*texts[number], prompts[number].query])
        (found[:-1] @ found[-1]).argsort()
        return {}

    def warm(number: int) -> Mapping[str, float]:
        [query] = ranker.embed([prompts[number].query])
        (kept[number] @ query).argsort()
        return {}

    cases: dict[str, Case] = {MINILM_COLD: cold, MINILM_WARM: warm}
    if find_spec("llmlingua") is not None:
        from at2_rag_evals.qa.pruners.long_llm_lingua import LongLLMLinguaRanker

        lingua = LongLLMLinguaRanker(model)
        lingua.prepare()

        def rank(number: int) -> Mapping[str, float]:
            lingua.score(prompts[number].query, prompts[number].chunks)
            return {}

        cases[LONG_LLM_LINGUA] = rank
    return cases
