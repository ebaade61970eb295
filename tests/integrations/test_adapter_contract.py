"""What every adapter promises, whatever the framework, with a real pruner over a tiny model."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from at2_rag import AT2Pruner, LoadedModel, PruneOptions, PruneResult, ScoredChunk, ScoringError
from at2_rag.adapters import (
    AdapterSettings,
    PrunerByName,
    _pruners,
    joined_passages,
    warn_of_collision,
)
from at2_rag.text.chunks import Prior
from langchain_at2_rag import AT2DocumentCompressor
from llama_index_at2_rag import AT2NodePostprocessor
from tests.integrations.frameworks import (
    PASSAGES,
    Framework,
    LlamaIndexPostprocessor,
    Passage,
    snapshots,
)
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import calibrated_weights

QUERY = "Who wrote the letter from the island?"


@pytest.fixture
def loads(pruner: AT2Pruner, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Let the default model be the tiny one, and count how often it is loaded."""
    calls: list[str] = []

    def load(names: PrunerByName) -> AT2Pruner:
        calls.append("loaded")
        return pruner

    monkeypatch.setattr("at2_rag.adapters._new_pruner", load)
    _pruners.clear()
    yield calls
    _pruners.clear()


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({}, {"top_k": 3}),
        ({"top_n": 2, "order": "original"}, {"top_k": 2, "order": "original"}),
        ({"max_tokens": 9999}, {"max_tokens": 9999}),
        ({"min_score": 1e9}, {"min_score": 1e9}),
    ],
    ids=str,
)
def test_keeps_what_the_pruner_keeps_with_its_scores(
    framework: Framework,
    items: list[Any],
    pruner: AT2Pruner,
    settings: dict[str, Any],
    options: dict[str, Any],
) -> None:
    adapter = framework.adapter(pruner=pruner, **settings)
    kept = framework.prune(adapter, QUERY, items)
    expected = pruner.prune(QUERY, [passage.chunk for passage in PASSAGES], **options).kept
    assert [framework.id(item) for item in kept] == [PASSAGES[c.index].id for c in expected]
    assert [framework.score(item) for item in kept] == pytest.approx([c.score for c in expected])


def test_options_that_are_not_set_are_the_pruners(framework: Framework, items: list[Any]) -> None:
    options = PruneOptions(top_k=5, order="original")
    model = LoadedModel(tiny_model(), tiny_tokenizer())
    pruner = AT2Pruner(model, head_weights="uniform", options=options)
    for settings, size in (({}, 5), ({"top_n": 2}, 2)):
        kept = framework.prune(framework.adapter(pruner=pruner, **settings), QUERY, items)
        ids = [framework.id(item) for item in kept]
        assert len(ids) == size and ids == sorted(ids, key=str)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MoreOptions(PruneOptions):
    """A copy of the options with one more field."""

    brand_new: float | None = dataclasses.field(
        default=0.25, metadata=PruneOptions.__dataclass_fields__["top_p"].metadata
    )


@pytest.mark.parametrize("adapter", [AT2DocumentCompressor, AT2NodePostprocessor])
def test_a_new_option_is_a_setting_of_every_adapter(
    adapter: type[AdapterSettings], pruner: AT2Pruner
) -> None:
    names = {option.name for option in dataclasses.fields(PruneOptions)} - {"top_k"}
    assert names | {"top_n"} <= adapter.model_fields.keys()
    with pytest.raises(ValueError, match="brand_new"):
        adapter.model_validate({"brand_new": 0.5})
    extended = adapter.with_options(MoreOptions)
    assert extended.model_fields["brand_new"].default == 0.25
    settings = extended.model_validate({"brand_new": 0.5, "top_n": 2})
    assert settings.prune_options() == MoreOptions(brand_new=0.5, top_k=2)
    with pytest.raises(ValueError, match=r"brand_new is 1\.5"):
        extended.model_validate({"brand_new": 1.5})


def test_the_callers_objects_stay_untouched(
    framework: Framework, items: list[Any], pruner: AT2Pruner
) -> None:
    before = snapshots(items)
    listed = list(items)
    kept = framework.prune(framework.adapter(pruner=pruner, top_n=99), QUERY, items)
    metadata = {framework.id(item): framework.metadata(item) for item in kept}
    assert metadata == {passage.id: passage.all_metadata for passage in PASSAGES}
    assert snapshots(items) == before
    assert all(now is then for now, then in zip(items, listed, strict=True))
    for item in kept:
        framework.metadata(item)["mine"] = True
        framework.metadata(item)["source"]["tags"].append("mine")
    assert snapshots(items) == before


def test_nothing_in_is_nothing_out_without_a_model(framework: Framework, loads: list[str]) -> None:
    assert framework.prune(framework.adapter(), QUERY, []) == []
    assert asyncio.run(framework.aprune(framework.adapter(), QUERY, [])) == []
    assert loads == []


async def test_the_event_loop_is_not_blocked(framework: Framework, pruner: AT2Pruner) -> None:
    items = [framework.item(Passage(f"Passage {n} of many. " * 40, id=str(n))) for n in range(24)]
    pruning = asyncio.create_task(framework.aprune(framework.adapter(pruner=pruner), QUERY, items))
    ticks = 0
    while not pruning.done():
        await asyncio.sleep(0.001)
        ticks += 1
    assert len(await pruning) == 3
    assert ticks > 3


@pytest.mark.parametrize(
    "settings",
    [
        {"top_n": 0},
        {"order": "random"},
        {"protect": {0: [(0, 1)]}},
        {"pruner": "smollm2"},
        {"model": 3},
        {"metadata_prefix": " "},
        {"top_k": 3},
    ],
    ids=str,
)
def test_unusable_and_unknown_settings_are_refused_at_once(
    framework: Framework, settings: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        framework.adapter(**settings)


@pytest.mark.parametrize(
    ("name", "meant"), [("top_k", "top_n"), ("max_token", "max_tokens"), ("xyz", None)]
)
def test_an_unknown_setting_is_answered_with_the_likely_one(
    framework: Framework, name: str, meant: str | None
) -> None:
    ending = f"; did you mean {meant}\\?" if meant else r"(?!; did)"
    with pytest.raises(ValueError, match=f"has no setting '{name}'{ending}"):
        framework.adapter(**{name: 3})


def test_the_default_pruner_is_loaded_on_first_use_and_once(
    framework: Framework, items: list[Any], loads: list[str]
) -> None:
    adapters = [framework.adapter() for _ in range(4)]
    assert loads == []
    barrier = Barrier(4)

    def prune(adapter: Any) -> list[Any]:
        barrier.wait()
        return framework.prune(adapter, QUERY, items)

    with ThreadPoolExecutor(4) as threads:
        assert [len(kept) for kept in threads.map(prune, adapters)] == [3, 3, 3, 3]
    assert len(asyncio.run(framework.aprune(framework.adapter(), QUERY, items))) == 3
    assert loads == ["loaded"]


def test_pruners_are_loaded_by_name(
    framework: Framework, items: list[Any], model_folder: Path, tmp_path: Path
) -> None:
    names: dict[str, Any] = {"model": str(model_folder), "head_weights": "uniform", "device": "cpu"}
    cached = {**names, "chunk_cache": str(tmp_path / "kept")}
    expected = AT2Pruner.from_pretrained(model_folder, head_weights="uniform").prune(
        QUERY, [passage.chunk for passage in PASSAGES], top_k=2
    )
    kept = framework.prune(framework.adapter(**cached, top_n=2), QUERY, items)
    assert [framework.id(item) for item in kept] == [
        PASSAGES[chunk.index].id for chunk in expected.kept
    ]
    assert any((tmp_path / "kept").iterdir())
    as_paths = {"model": model_folder, "chunk_cache": tmp_path / "kept"}
    assert PrunerByName(**cached) == PrunerByName(**{**cached, **as_paths})
    again = framework.prune(framework.adapter(**{**cached, **as_paths}, top_n=2), QUERY, items)
    assert [framework.id(item) for item in again] == [framework.id(item) for item in kept]
    assert PrunerByName(**names).pruner() is PrunerByName(**names).pruner()
    first, second = PrunerByName(**names).pruner(), PrunerByName(**cached).pruner()
    assert first is not second and first._source is second._source is not None


def test_a_pruner_and_what_it_would_be_loaded_by_exclude_each_other(
    framework: Framework, pruner: AT2Pruner
) -> None:
    with pytest.raises(ValueError, match="device, chunk_cache and pruner were passed"):
        framework.adapter(pruner=pruner, device="cpu", chunk_cache="kept")


def test_what_was_dropped_is_reported(
    framework: Framework, items: list[Any], pruner: AT2Pruner
) -> None:
    results: list[PruneResult] = []
    adapter = framework.adapter(pruner=pruner, top_n=2, on_result=results.append)
    framework.prune(adapter, QUERY, items)
    asyncio.run(framework.aprune(adapter, QUERY, items))
    expected = pruner.prune(QUERY, [passage.chunk for passage in PASSAGES], top_k=2)
    for result in results:
        assert all(one.chunk is items[one.index] for one in (*result.kept, *result.dropped))
        assert [one.index for one in result.dropped] == [one.index for one in expected.dropped]
        assert result.timings["total"] > 0
        assert all(passage.text in result.to_html() for passage in PASSAGES)
    assert len(results) == 2


def test_a_failed_load_is_tried_again(pruner: AT2Pruner, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [OSError("no network")]

    def load(names: PrunerByName) -> AT2Pruner:
        if failures:
            raise failures.pop()
        return pruner

    monkeypatch.setattr("at2_rag.adapters._new_pruner", load)
    _pruners.clear()
    with pytest.raises(OSError, match="no network"):
        PrunerByName().pruner()
    assert PrunerByName().pruner() is PrunerByName().pruner() is pruner
    _pruners.clear()


def test_what_was_not_scored_comes_back_as_it_was(
    framework: Framework, items: list[Any], pruner: AT2Pruner, broken_model: Any
) -> None:
    model = LoadedModel(broken_model, tiny_tokenizer())
    broken = AT2Pruner(model, head_weights="uniform", on_error="keep_all")
    for adapter in (
        framework.adapter(pruner=broken, top_n=2),
        framework.adapter(pruner=pruner, top_n=1, skip_below_tokens=9999),
    ):
        kept = framework.prune(adapter, QUERY, items)
        assert snapshots(kept) == snapshots(items)
        assert all(now is not then for now, then in zip(kept, items, strict=True))


def test_blank_queries_and_failed_scoring_raise(
    framework: Framework, items: list[Any], pruner: AT2Pruner, broken_model: Any
) -> None:
    with pytest.raises(ValueError):
        framework.prune(framework.adapter(pruner=pruner), " \n\t", items)
    broken = AT2Pruner(LoadedModel(broken_model, tiny_tokenizer()), head_weights="uniform")
    with pytest.raises(ScoringError):
        framework.prune(framework.adapter(pruner=broken), QUERY, items)


def test_sentences_are_kept_verbatim_with_their_spans(
    framework: Framework, pruner: AT2Pruner
) -> None:
    texts = [
        f"{name} sailed at dawn. The letter was lost. {name} wrote again from the island."
        for name in ("Ada", "Bela", "Cleo", "Dora")
    ]
    passages = [
        Passage(text=text, id=str(number), title=f"T{number}" if number % 2 else None)
        for number, text in enumerate(texts)
    ]
    items = [framework.item(passage) for passage in passages]
    before = snapshots(items)
    settings = {"pruner": pruner, "top_n": 4, "unit": "sentence", "protect": "Bela wrote"}
    kept = framework.prune(framework.adapter(**settings), QUERY, items)
    assert snapshots(items) == before
    expected = pruner.prune(
        QUERY,
        [passage.chunk for passage in passages],
        top_k=4,
        unit="sentence",
        protect="Bela wrote",
    )
    assert [framework.text(item) for item in kept] == list(expected.texts)
    assert any(chunk.spans for chunk in expected.kept)
    for item, chunk in zip(kept, expected.kept, strict=True):
        spans = framework.metadata(item).get("at2_kept_spans")
        assert spans == (None if chunk.spans is None else list(map(list, chunk.spans)))
        for start, end in spans or ():
            assert texts[chunk.index][start:end] in framework.text(item)


TWO_SENTENCES = [
    Passage(f"{name} sailed from the harbour at dawn. A letter was lost in the winter storms.")
    for name in ("Ada", "Bo")
]


def test_the_callers_metadata_is_never_overwritten(
    framework: Framework, calibrated: AT2Pruner, caplog: pytest.LogCaptureFixture
) -> None:
    plain = {"supported": 1, "kept_spans": "mine", "retrieval_score": 0.1, "answerable": "no"}
    ours = {"at2_answerable": "mine", "at2_kept_spans": {"a": 1}, "at2_retrieval_score": "mine"}
    items = [
        framework.item(dataclasses.replace(passage, metadata={**plain, **ours}))
        for passage in TWO_SENTENCES
    ]
    settings: dict[str, Any] = {"pruner": calibrated, "top_n": 1, "unit": "sentence"}
    if isinstance(framework, LlamaIndexPostprocessor):
        settings["keep_retrieval_score"] = True
    warn_of_collision.cache_clear()
    for _ in range(2):
        [kept] = framework.prune(framework.adapter(**settings), QUERY, items)
        assert framework.metadata(kept) == {**plain, **ours}
        assert len(framework.text(kept)) < len(TWO_SENTENCES[0].text)
    written = set(ours) if "keep_retrieval_score" in settings else set(list(ours)[:2])
    messages = [record.getMessage() for record in caplog.records]
    assert sorted(message.split("'")[1] for message in messages) == sorted(written), (
        "one warning a key"
    )


def test_a_second_pass_replaces_what_the_first_added(
    framework: Framework, calibrated: AT2Pruner, caplog: pytest.LogCaptureFixture
) -> None:
    items = [framework.item(passage) for passage in TWO_SENTENCES]
    settings: dict[str, Any] = {"pruner": calibrated, "top_n": 1, "unit": "sentence"}
    if isinstance(framework, LlamaIndexPostprocessor):
        settings["keep_retrieval_score"] = True
    adapter = framework.adapter(**settings)
    first = framework.prune(adapter, QUERY, items)
    [second] = framework.prune(adapter, QUERY, first)
    keys = set(framework.metadata(first[0])) - {"at2_kept_spans"}  # nothing was cut
    assert set(framework.metadata(second)) == keys
    assert not caplog.records
    text = framework.text(first[0])
    alone = calibrated.prune(QUERY, [text])
    assert framework.metadata(second)["at2_answerable"] == pytest.approx(alone.answerable)
    if isinstance(framework, LlamaIndexPostprocessor):
        node = second.node
        hidden = [
            key for key in first[0].node.excluded_llm_metadata_keys if key != "at2_kept_spans"
        ]
        assert node.excluded_llm_metadata_keys == node.excluded_embed_metadata_keys == hidden
        assert node.metadata["at2_retrieval_score"] == 0.5, "the retriever's, not the first pass's"


def test_a_pass_leaves_no_results_of_an_earlier_one(
    framework: Framework, pruner: AT2Pruner, calibrated: AT2Pruner
) -> None:
    text, others = TWO_SENTENCES[0].text, {"title": "Voyages", "at2_note": "mine", "page": 3}
    items = [
        framework.item(Passage(text, id=name, title=None, metadata=others)) for name in ("a", "b")
    ]
    settings: dict[str, Any] = {"unit": "sentence", "pruner": calibrated}
    [first] = framework.prune(framework.adapter(**settings, top_n=1), QUERY, items)
    assert {key for key in framework.metadata(first) if key.startswith("at2_")} == {
        "at2_note",
        "at2_answerable",
        "at2_kept_spans",
    }
    before = snapshots([first])
    [second] = framework.prune(framework.adapter(pruner=pruner, top_n=1), QUERY, [first])
    assert snapshots([first]) == before
    assert framework.metadata(second).items() >= others.items()
    assert {key for key in framework.metadata(second) if key.startswith("at2_")} == {"at2_note"}
    twins = framework.prune(framework.adapter(pruner=pruner, top_n=2), QUERY, items)
    assert framework.metadata(twins[0])["at2_duplicates"] == ["b"]
    [again] = framework.prune(framework.adapter(pruner=pruner, top_n=2), QUERY, twins)
    assert "at2_duplicates" not in framework.metadata(again)
    if isinstance(framework, LlamaIndexPostprocessor):
        retrieved: list[Any] = [again, items[0]]
        after, at_first = (each.node for each in retrieved)
        assert after.excluded_llm_metadata_keys == at_first.excluded_llm_metadata_keys
        assert after.excluded_embed_metadata_keys == at_first.excluded_embed_metadata_keys


def test_settings_of_an_adapter_with_a_pruner_are_not_read_without_one(
    pruner: AT2Pruner,
) -> None:
    for kind in (AT2DocumentCompressor, AT2NodePostprocessor):
        dumped = kind(pruner=pruner, top_n=2).model_dump()
        dumped.pop("class_name", None)
        with pytest.raises(ValueError, match="pass it again"):
            kind(**dumped)
        again = kind(**dumped, pruner=pruner)
        assert again.pruner is pruner and again.prune_options().top_k == 2


def test_a_best_text_over_the_budget_is_trimmed_and_an_empty_result_logged(
    framework: Framework, pruner: AT2Pruner, caplog: pytest.LogCaptureFixture
) -> None:
    texts = ["Ann wrote the letter. An island in the sea is far away. Then it rained in May."] * 2
    passages = [Passage(text=text, id=str(n), title=None) for n, text in enumerate(texts)]
    items = [framework.item(passage) for passage in passages]
    for most in (30, 1):
        expected = pruner.prune(QUERY, [passage.chunk for passage in passages], max_tokens=most)
        adapter = framework.adapter(pruner=pruner, max_tokens=most)
        caplog.clear()
        kept = framework.prune(adapter, QUERY, items)
        assert [framework.text(item) for item in kept] == list(expected.texts)
        if most == 1:
            assert kept == [] and "Nothing was kept: the best chunk" in caplog.text
            continue
        [item], [chunk] = kept, expected.kept
        assert chunk.spans and framework.metadata(item)["at2_kept_spans"] == list(
            map(list, chunk.spans)
        )


def test_what_was_dropped_as_a_duplicate_is_named(framework: Framework, pruner: AT2Pruner) -> None:
    text = "Ann wrote the letter from the island."
    items = [framework.item(Passage(text=text, id=name, title=None)) for name in ("a", "b")]
    [kept] = framework.prune(framework.adapter(pruner=pruner, top_n=2), QUERY, items)
    assert [framework.id(kept), *framework.metadata(kept)["at2_duplicates"]] == ["a", "b"]


# --- calibrated head weights ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def calibrated() -> AT2Pruner:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    weights = calibrated_weights(model, tokenizer, cosine_weight=30.0)
    return AT2Pruner(LoadedModel(model, tokenizer), head_weights=weights)


@pytest.mark.parametrize("prior", ["score", "cosine"])
def test_the_retrievers_ranks_weigh_in(
    framework: Framework, items: list[Any], calibrated: AT2Pruner, prior: Prior
) -> None:
    scores = [(len(passage.title or "") - index) / 100 for index, passage in enumerate(PASSAGES)]
    scored = [framework.with_score(item, score) for item, score in zip(items, scores, strict=True)]
    chunks = [
        dataclasses.replace(passage.chunk, retrieval_score=score)
        for passage, score in zip(PASSAGES, scores, strict=True)
    ]
    expected = calibrated.prune(QUERY, chunks, top_k=4, prior=prior).kept
    adapter = framework.adapter(pruner=calibrated, top_n=4, prior=prior)
    kept = framework.prune(adapter, QUERY, scored)
    assert [framework.id(item) for item in kept] == [PASSAGES[c.index].id for c in expected]
    relevance = pytest.approx([chunk.relevance for chunk in expected])
    assert [framework.score(item) for item in kept] == relevance


def test_without_a_limit_calibrated_weights_decide(
    framework: Framework, items: list[Any], calibrated: AT2Pruner
) -> None:
    expected = calibrated.prune(QUERY, [passage.chunk for passage in PASSAGES])
    assert len(expected.kept) != 3
    kept = framework.prune(framework.adapter(pruner=calibrated), QUERY, items)
    assert [framework.id(item) for item in kept] == [PASSAGES[c.index].id for c in expected.kept]
    assert all(framework.metadata(item)["at2_answerable"] == expected.answerable for item in kept)


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        (None, "One.\n\n[...]\nThree. Four.\n"),
        (((0, 6),), "One.\n\n[...]\nThree.\n[...]\n"),
        (((7, 12),), "One.\n\n[...]\nFour.\n"),
    ],
)
def test_a_text_is_joined_with_a_mark_where_anything_was_left_out(
    spans: Any, expected: str
) -> None:
    texts = ["One.\n", "Two.\n", "Three. Four.\n", "Five."]
    passages = [ScoredChunk(text, 1.0, index, text) for index, text in enumerate(texts)]
    passages[2] = dataclasses.replace(passages[2], spans=spans)
    result = PruneResult("q", (passages[2], passages[0], passages[3]), (passages[1],), 9, 9)
    assert joined_passages(result) == expected + "Five."
