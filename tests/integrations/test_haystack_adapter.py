"""The Haystack ranker, in pipelines of the real framework, over a tiny model."""

from __future__ import annotations

import copy
import threading
from pathlib import Path
from typing import Any

import pytest
from haystack import Document, Pipeline
from haystack.components.joiners import DocumentJoiner
from haystack.utils import ComponentDevice

from at2_rag import AT2Pruner, Chunk, ScoringError
from at2_rag.model.loading import LoadedModel
from haystack_integrations.components.rankers.at2_rag import AT2Ranker
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import calibrated_weights

QUERY = "Who wrote the letter from the island?"
TEXTS = [
    f"Letter {number} was written at dawn. The storm of year {number} came later."
    for number in range(6)
]


@pytest.fixture(scope="module")
def pruner() -> AT2Pruner:
    model = LoadedModel(tiny_model(), tiny_tokenizer())
    weights = calibrated_weights(tiny_model(), tiny_tokenizer(), cosine_weight=2.0)
    return AT2Pruner(model, head_weights=weights)


@pytest.fixture
def documents() -> list[Document]:
    return [
        Document(id=f"d{number}", content=text, meta={"title": f"No. {number}"}, embedding=[0.5])
        for number, text in enumerate(TEXTS)
    ]


def chunks(documents: list[Document]) -> list[Chunk]:
    return [Chunk(document.content or "", document.meta["title"]) for document in documents]


def ids(documents: list[Document]) -> list[str]:
    return [document.id for document in documents]


def test_keeps_what_the_pruner_keeps_and_hands_on_the_rest(
    pruner: AT2Pruner, documents: list[Document]
) -> None:
    before = copy.deepcopy(documents)
    output = AT2Ranker(pruner=pruner, top_k=2).run(QUERY, documents)
    expected = pruner.prune(QUERY, chunks(documents), top_k=2)
    assert ids(output["documents"]) == [f"d{chunk.index}" for chunk in expected.kept]
    assert ids(output["dropped"]) == [f"d{chunk.index}" for chunk in expected.dropped]
    for document, chunk in zip(output["documents"], expected.kept, strict=True):
        original = documents[chunk.index]
        assert document.score == chunk.probability
        assert (document.content, document.meta) == (original.content, original.meta)
        assert document is not original and document.embedding == [0.5]
    assert output["answerable"] == expected.answerable
    assert documents == before


async def test_options_of_a_call_override_those_of_the_ranker(
    pruner: AT2Pruner, documents: list[Document]
) -> None:
    ranker = AT2Ranker(pruner=pruner, top_k=2)
    assert len(ranker.run(QUERY, documents, top_k=4)["documents"]) == 4
    likely = sorted(chunk.probability or 0 for chunk in pruner.score(QUERY, chunks(documents)))
    output = await ranker.run_async(QUERY, documents, top_k=6, score_threshold=likely[-2])
    assert len(output["documents"]) == 2
    plain = AT2Pruner(LoadedModel(tiny_model(), tiny_tokenizer()), head_weights="uniform")
    assert len(AT2Ranker(pruner=plain).run(QUERY, documents)["documents"]) == 3
    scores = sorted(chunk.score for chunk in plain.score(QUERY, chunks(documents)))
    output = AT2Ranker(pruner=plain).run(QUERY, documents, score_threshold=scores[-1])
    assert len(output["documents"]) == 1


def test_raw_scores_and_their_threshold(pruner: AT2Pruner, documents: list[Document]) -> None:
    raw = AT2Ranker(pruner=pruner, top_k=6, scale_score=False)
    expected = {f"d{one.index}": one.score for one in pruner.score(QUERY, chunks(documents))}
    scores = {document.id: document.score for document in raw.run(QUERY, documents)["documents"]}
    assert scores == pytest.approx(expected)
    second = sorted(expected.values())[-2]
    assert len(raw.run(QUERY, documents, score_threshold=second)["documents"]) == 2
    scaled = raw.run(QUERY, documents, scale_score=True)["documents"]
    assert all(0 <= (document.score or 0) <= 1 for document in scaled)


def test_values_of_meta_are_read_after_the_title(
    pruner: AT2Pruner, documents: list[Document]
) -> None:
    for number, document in enumerate(documents):
        document.meta["year"] = number  # 0 is a value, too
    fields = ["year", "nothing", "title"]
    ranker = AT2Ranker(pruner=pruner, top_k=6, meta_fields_to_embed=fields)
    read = [
        Chunk(document.content or "", f"{document.meta['title']}\n{document.meta['year']}")
        for document in documents
    ]
    expected = [f"d{chunk.index}" for chunk in pruner.prune(QUERY, read, top_k=6).kept]
    kept = ranker.run(QUERY, documents)["documents"]
    assert ids(kept) == expected
    assert [document.content for document in kept] == [TEXTS[int(one[1:])] for one in expected]


def test_sentences_are_cut_with_their_spans(pruner: AT2Pruner, documents: list[Document]) -> None:
    output = AT2Ranker(pruner=pruner, top_k=1, unit="sentence").run(QUERY, documents)
    [document] = output["documents"]
    [[start, end]] = document.meta["at2_kept_spans"]
    text = TEXTS[int(document.id[1:])]
    assert document.content == text[start:end] != text
    assert document.embedding is None
    assert "at2_kept_spans" not in documents[0].meta


def test_documents_without_text_are_kept(pruner: AT2Pruner, documents: list[Document]) -> None:
    picture = Document(id="picture", content=None, meta={"page": 3})
    output = AT2Ranker(pruner=pruner, top_k=1).run(QUERY, [picture, *documents])
    assert output["documents"][-1] is picture and len(output["documents"]) == 2
    assert AT2Ranker(pruner=pruner).run(QUERY, [picture])["documents"] == [picture]
    assert AT2Ranker(pruner=pruner).run(QUERY, []) == {
        "documents": [],
        "dropped": [],
        "answerable": None,
        "notes": [],
    }


async def test_a_pipeline_warms_the_model_up_once(
    pruner: AT2Pruner, documents: list[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    warm_up = pruner.warm_up

    def counted() -> None:
        threads.append(threading.current_thread().name)
        warm_up()

    monkeypatch.setattr(pruner, "warm_up", counted)
    for awaited in (False, True):
        pipeline = Pipeline()
        pipeline.add_component("ranker", AT2Ranker(pruner=pruner, top_k=1))
        data: dict[str, Any] = {"ranker": {"query": QUERY, "documents": documents}}
        for _ in range(2):
            output = await pipeline.run_async(data) if awaited else pipeline.run(data)
            assert len(output["ranker"]["documents"]) == 1
    assert len(threads) == 2 and threads[0] == "MainThread" != threads[1]


async def test_in_a_pipeline_that_was_written_and_read(
    model_folder: Path, documents: list[Document], tmp_path: Path
) -> None:
    ranker = AT2Ranker(
        model=str(model_folder),
        head_weights="uniform",
        device=ComponentDevice.from_str("cpu"),
        chunk_cache=str(tmp_path / "kept"),
        title_key=None,
        meta_fields_to_embed=[],
        scale_score=False,
        raise_on_failure=False,
        score_threshold=-1e9,
        top_k=2,
        order="original",
    )
    pipeline = Pipeline()
    pipeline.add_component("joiner", DocumentJoiner())
    pipeline.add_component("ranker", ranker)
    pipeline.connect("joiner.documents", "ranker.documents")
    read = Pipeline.loads(pipeline.dumps())
    assert read.dumps() == pipeline.dumps()
    data: dict[str, Any] = {"joiner": {"documents": documents}, "ranker": {"query": QUERY}}
    output = read.run(data)["ranker"]
    expected = AT2Pruner.from_pretrained(model_folder, head_weights="uniform").prune(
        QUERY, TEXTS, top_k=2, order="original"
    )
    assert ids(output["documents"]) == [f"d{chunk.index}" for chunk in expected.kept]
    assert any((tmp_path / "kept").iterdir())
    assert (await read.run_async(data))["ranker"]["documents"] == output["documents"]


def test_a_failure_raises_or_brings_all_back(documents: list[Document], tmp_path: Path) -> None:
    folder, model = tmp_path / "broken", tiny_model()
    for parameter in model.parameters():
        parameter.data.fill_(float("nan"))
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    names: dict[str, Any] = {"model": str(folder), "head_weights": "uniform", "top_k": 1}
    with pytest.raises(ScoringError):
        AT2Ranker(**names).run(QUERY, documents)
    output = AT2Ranker(**names, raise_on_failure=False).run(QUERY, documents)
    assert output["documents"] == documents and output["notes"]


def test_what_can_not_be_used_or_written_is_refused(pruner: AT2Pruner) -> None:
    with pytest.raises(ValueError, match="top_k is 0"):
        AT2Ranker(top_k=0)
    with pytest.raises(ValueError, match="device and pruner were passed"):
        AT2Ranker(pruner=pruner, device="cpu")
    with pytest.raises(ValueError, match="can't be written"):
        AT2Ranker(pruner=pruner).to_dict()
    for settings, message in (
        ({"topk": 3}, "there is no option 'topk'; there are top_k"),
        ({"pruner": "x"}, "pruner is a str"),
        ({"model": 3}, "model is a int"),
        ({"metadata_prefix": ""}, "metadata_prefix is ''"),
        ({"score_threshold": "x"}, "score_threshold is 'x'"),
        ({"scale_score": "no"}, "scale_score 'no'"),
        ({"score_threshold": 0.1, "min_score": 1.0}, "score_threshold and min_score were passed"),
        ({"meta_fields_to_embed": "year"}, "meta_fields_to_embed is a string"),
    ):
        with pytest.raises(ValueError, match=message):
            AT2Ranker(**settings)
    with pytest.raises(ValueError, match="blank"):
        AT2Ranker(pruner=pruner).run(" ", [Document(content="x")])
