"""LongLLMLingua's choice of documents: how likely each makes the question."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from llmlingua import PromptCompressor

from at2_rag.errors import ScoringError
from at2_rag.model.hub import DEFAULT_MODEL, resolve_model
from at2_rag.text.chunks import Chunk
from at2_rag_evals.model_record import model_files_record
from at2_rag_evals.provenance import code_version
from at2_rag_evals.rankers.base import ItemScores, Ranker, readable

RANK_METHOD = "longllmlingua"
CONDITION = "after"  # the question after the document, as LongLLMLingua's `compress_prompt` has it

_PACKAGES = ("llmlingua", "tokenizers", "torch", "transformers")


class LocalCompressor(PromptCompressor):  # type: ignore[misc]  # llmlingua has no types
    """A `PromptCompressor` of a local model, without the vocabulary of OpenAI's.

    The library's constructor fetches that vocabulary for its prices alone. No code that comes with
    the model is run.
    """

    def __init__(self, folder: Path) -> None:
        settings = {"trust_remote_code": False, "local_files_only": True}
        self.load_model(str(folder), "cpu", settings)

    def get_ppl(self, text: str, *arguments: Any, **options: Any) -> Any:
        """Return the library's figure of a text; refuse one whose end it would leave off."""
        if (tokens := self.get_token_length(text)) > self.max_position_embeddings:
            raise ScoringError(
                f"a chunk and the question have {tokens} tokens, the model takes "
                f"{self.max_position_embeddings}; pass shorter chunks"
            )
        return super().get_ppl(text, *arguments, **options)


class LongLLMLinguaRanker(Ranker):
    """Scores chunks by the log-likelihood of the question after them, a mean over its tokens.

    H. Jiang et al., "LongLLMLingua", ACL 2024, section 4.1: a document's importance is the
    likelihood of the question and of a sentence that it can be answered, given the document. This
    is `PromptCompressor.get_rank_results`, with which `compress_prompt` chooses documents where it
    filters by document alone. The model reads on the CPU in float32, as it does by default.

    As in the library, the question follows the document without a space, and a control token's
    text in a document is that token. An empty document is a space, as it makes of an empty prompt.
    """

    name = "long_llm_lingua"

    def __init__(self, model: str | None = None) -> None:
        self._model = model or DEFAULT_MODEL
        self.settings = {
            **model_files_record(self._model),
            **{name: version(name) for name in _PACKAGES},
            "device": "cpu",
            "dtype": "float32",
            "rank_method": RANK_METHOD,
            "condition_in_question": CONDITION,
            "pruner": code_version(Path(__file__).parent),
        }

    def prepare(self) -> None:
        """Load the model."""
        self._compressor = LocalCompressor(resolve_model(self._model))

    def score(self, query: str, chunks: Sequence[Chunk]) -> ItemScores:
        """Score each chunk by how likely it makes the question."""
        texts = [readable(chunk.rendered) or " " for chunk in chunks]
        question = readable(query)
        ranked = self._compressor.get_rank_results(
            texts, question, RANK_METHOD, CONDITION, [0] * len(texts)
        )
        losses = {index: float(loss) for index, loss in ranked}
        return ItemScores(tuple(-losses[index] for index in range(len(texts))))
