"""BM25 over the chunks of one item."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version

from at2_rag.text.chunks import Chunk
from at2_rag_evals.extras import import_extra
from at2_rag_evals.rankers.base import ItemScores, Ranker, readable


class BM25Ranker(Ranker):
    """Lucene's BM25 by `bm25s` with its defaults, k1 = 1.5 and b = 0.75.

    S. Robertson and H. Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009;
    X. H. Lù, "BM25S: Orders of magnitude faster lexical search via eager sparse scoring", 2024.
    Title and text are one field, each item's chunks one index. Stop words are those of bm25s's
    longer list (its list of 33 leaves question words in, and fewer gold chunks come first); the
    stemmer is Snowball's.

    Args:
        stemming: False to match words as they are; the system is then called `bm25_unstemmed`.
    """

    def __init__(self, *, stemming: bool = True) -> None:
        self.name = "bm25" if stemming else "bm25_unstemmed"
        self._bm25s = import_extra("bm25s")
        self._stemmer = import_extra("Stemmer").Stemmer("english") if stemming else None
        self.settings = {
            "variant": "lucene",
            "k1": 1.5,
            "b": 0.75,
            "stemmer": "english" if stemming else None,
            "stopwords": "english_plus",
            "bm25s": version("bm25s"),
            "PyStemmer": version("PyStemmer"),
        }

    def score(self, query: str, chunks: Sequence[Chunk]) -> ItemScores:
        """Score each chunk; all are 0 if the query or the chunks have no words to match."""
        return ItemScores(tuple(self.index(chunks)(query)))

    def index(self, chunks: Sequence[Chunk]) -> Callable[[str], list[float]]:
        """Return what scores each of these chunks for a query, from an index that is made once."""
        texts = self._tokenize([chunk.rendered for chunk in chunks])
        index = self._bm25s.BM25(method="lucene", k1=1.5, b=0.75)
        if has_words := any(texts):
            index.index(texts, show_progress=False)

        def scores(query: str) -> list[float]:
            words = self._tokenize([query])[0]
            if not words or not has_words:
                return [0.0] * len(chunks)
            return [float(score) for score in index.get_scores(words)]

        return scores

    def _tokenize(self, texts: list[str]) -> list[list[str]]:
        # bm25s fails on a list of texts none of which has a word that is no stop word.
        tokens: list[list[str]] = self._bm25s.tokenize(
            [*map(readable, texts), "sentinel"],
            stopwords="english_plus",
            stemmer=self._stemmer,
            return_ids=False,
            show_progress=False,
        )
        return tokens[:-1]
