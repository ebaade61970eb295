"""What `AT2Pruner` does with chunks that say the same."""

from __future__ import annotations

import pytest

from at2_rag.model.loading import LoadedModel
from at2_rag.pruner import AT2Pruner
from tests.tiny_models import tiny_model, tiny_tokenizer

QUERY = "What is the first number?"


@pytest.fixture(scope="module")
def pruner() -> AT2Pruner:
    return AT2Pruner(LoadedModel(tiny_model(), tiny_tokenizer()), head_weights="uniform")


def test_of_near_duplicates_one_is_kept(pruner: AT2Pruner) -> None:
    text = "The council met in the old town hall by the river and spoke of the new bridge for hours"
    near, named = text.replace("hours", "ages"), text.replace("bridge", "Bridge of 1894")
    chunks = [text, near, "Another text.", named, ""]
    kept = {chunk.index for chunk in pruner.prune(QUERY, chunks, top_p=1.0).kept}
    assert len(kept & {0, 1}) == 1 and kept - {0, 1} == {2, 3, 4}
    assert len(pruner.prune(QUERY, chunks, top_p=1.0, max_overlap=None).kept) == 5
    one, other = pruner.prune_batch([(QUERY, chunks), (QUERY, chunks[1:])], top_p=1.0)
    assert {chunk.index for chunk in one.kept} == kept and len(other.kept) == 4
    protected = pruner.prune(QUERY, chunks, top_k=1, protect="Another|^The council")
    assert {0, 1, 2, 3} <= {chunk.index for chunk in protected.kept}
