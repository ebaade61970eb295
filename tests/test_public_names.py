"""The public surface: names, arguments and the tree of errors, each as promised."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import at2_rag
from at2_rag import errors

PUBLIC = {
    "at2_rag": [
        "AT2Attributor",
        "AT2Error",
        "AT2Pruner",
        "Chunk",
        "HeadWeights",
        "PruneResult",
        "ScoredChunk",
        "ChunkCache",
        "__version__",
    ],
    "langchain_at2_rag": ["AT2DocumentCompressor", "pruning_runnable"],
    "llama_index_at2_rag": ["AT2NodePostprocessor"],
}


@pytest.mark.parametrize(("package", "names"), PUBLIC.items())
def test_public_names(package: str, names: list[str]) -> None:
    module = importlib.import_module(package)
    assert module.__all__ == names
    for name in names:
        value = getattr(module, name)
        if inspect.isclass(value):
            assert value.__name__ == name
    namespace: dict[str, Any] = {}
    exec(f"from {package} import *", namespace)
    assert set(names) <= set(namespace)


def test_names_that_are_not_there() -> None:
    with pytest.raises(AttributeError, match=r"module 'at2_rag' has no attribute 'Pruner'"):
        at2_rag.Pruner  # noqa: B018
    assert dir(at2_rag) == sorted(PUBLIC["at2_rag"])


LOADING = ["head_weights", "reading", "token_counter", "separator", "ellipsis", "on_error"]
LOADING += ["chunk_cache"]
LIMITS = ["top_k", "max_tokens", "min_score", "top_p", "max_missed", "skip_below_tokens", "order"]
LIMITS += ["unit", "protect"]
LIMITS += ["max_overlap", "if_unanswerable", "prior", "multi_hop"]


@pytest.mark.parametrize(
    ("call", "positional", "by_name"),
    [
        ("AT2Pruner", [], ["model", "tokenizer", *LOADING, "fingerprint"]),
        (
            "AT2Pruner.from_pretrained",
            ["name_or_folder"],
            [*LOADING, "revision", "device", "dtype"],
        ),
        ("AT2Pruner.score", ["self", "query", "chunks"], []),
        ("AT2Pruner.score_sentences", ["self", "query", "chunks"], []),
        ("AT2Pruner.prune", ["self", "query", "chunks"], LIMITS),
        ("AT2Pruner.index", ["self", "chunks"], ["progress"]),
        ("AT2Pruner.aprune", ["self", "query", "chunks"], ["limits"]),
        ("AT2Pruner.prune_batch", ["self", "requests"], ["limits"]),
        (
            "AT2Attributor",
            [],
            ["model", "tokenizer", "head_weights", "allow_question_weights", "fingerprint"],
        ),
        (
            "AT2Attributor.from_pretrained",
            ["name_or_folder"],
            ["head_weights", "allow_question_weights", "revision", "device", "dtype"],
        ),
        ("AT2Attributor.attribute", ["self", "query", "chunks", "answer"], ["span", "unit"]),
        (
            "AT2Attributor.cite",
            ["self", "query", "chunks", "answer"],
            ["max_sources", "min_share"],
        ),
        ("Chunk", ["text", "title", "id", "metadata", "retrieval_score"], []),
        ("ChunkCache", ["folder"], ["precision", "max_memory_bytes", "max_disk_bytes"]),
        (
            "PruneResult.break_even",
            ["self"],
            ["tokens_per_second", "price_per_million", "machine_price_per_hour"],
        ),
    ],
)
def test_arguments(call: str, positional: list[str], by_name: list[str]) -> None:
    target: Any = at2_rag
    for name in call.split("."):
        target = getattr(target, name)
    parameters = inspect.signature(target).parameters.values()
    last = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
    assert [p.name for p in parameters if p.kind not in last] == positional
    assert {p.name for p in parameters if p.kind in last} == set(by_name)


def test_fields_of_what_comes_back() -> None:
    scored = at2_rag.ScoredChunk("given", 0.5, 1, "text", "title")
    assert (scored.chunk, scored.score, scored.index, scored.text) == ("given", 0.5, 1, "text")
    result = at2_rag.PruneResult("who?", (scored,), (), 9, 4)
    for name in ("kept", "dropped", "texts", "tokens_before", "tokens_after", "timings", "to_json"):
        assert hasattr(result, name)


def test_the_tree_of_errors_is_as_its_docstring_draws_it() -> None:
    assert errors.__doc__ is not None
    drawn: dict[str, tuple[str, str | None]] = {}
    path: list[str] = []
    for line in errors.__doc__.splitlines():
        found = re.match(r" {4}[ |]*(?:\+-- )?(\w+Error)(?: \((\w+)\))?(?:  |$)", line)
        if found:
            depth = (found.start(1) - 4) // 5
            path[depth:] = [found[1]]
            drawn[found[1]] = (path[depth - 1] if depth else "Exception", found[2])
    own = {
        name: value
        for name, value in vars(errors).items()
        if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    assert set(drawn) == set(own) and len(own) > 10
    for name, (parent, builtin) in drawn.items():
        bases = [base.__name__ for base in own[name].__bases__]
        assert bases == [parent, *([builtin] if builtin else [])], name


def test_every_package_says_that_it_is_typed() -> None:
    for package in (*PUBLIC, "at2_rag_evals"):
        [folder] = importlib.import_module(package).__path__
        assert (Path(folder) / "py.typed").is_file(), package
