"""The server as it is started without any option: the real default model."""

from __future__ import annotations

import pytest

from at2_rag import AT2Attributor, AT2Pruner
from tests.server.processes import served

pytestmark = pytest.mark.default_model

QUESTION = "Which moon of Jupiter has active volcanoes, and why?"
PASSAGES = [
    "Europa is covered by ice, with an ocean beneath.",
    "Io has active volcanoes: Jupiter's tides heat its interior.",
    "Vesuvius is a volcano that buried Pompeii in 79.",
    "Ganymede, a moon of Jupiter, is larger than Mercury.",
]
ANSWER = "It is Io, which the tides heat."


def test_it_ranks_prunes_and_attributes_as_the_library_does() -> None:
    with served() as server:
        ranked = server.post("/v2/rerank", {"query": QUESTION, "documents": PASSAGES}).json()
        pruned = server.post("/v1/prune", {"query": QUESTION, "chunks": PASSAGES}).json()
        body = {"query": QUESTION, "chunks": PASSAGES, "answer": ANSWER}
        attributed = server.post("/v1/attribute", body).json()
    pruner = AT2Pruner.from_pretrained()
    expected = {chunk.index: chunk.probability for chunk in pruner.score(QUESTION, PASSAGES)}
    got = {row["index"]: row["relevance_score"] for row in ranked["results"]}
    assert got == pytest.approx(expected, abs=1e-3)
    assert ranked["results"][0]["index"] == 1
    kept = [chunk.index for chunk in pruner.prune(QUESTION, PASSAGES).kept]
    assert [chunk["index"] for chunk in pruned["kept"]] == kept
    attributor = AT2Attributor.from_pretrained()
    cited = attributor.cite(QUESTION, PASSAGES, ANSWER)
    assert attributed["cited_text"] == cited.text
    assert attributed["sources"] == [source.index for source in cited.sources]
    scores = [chunk.score for chunk in attributor.attribute(QUESTION, PASSAGES, ANSWER).chunks]
    assert [chunk["score"] for chunk in attributed["chunks"]] == pytest.approx(scores, abs=1e-2)
