"""Random requests over a pruner: what must hold for each, whatever the options and texts.

`AT2_FUZZ_REQUESTS=2000 pytest -n 2 tests/fuzz` runs so many over the default model, from
`AT2_FUZZ_SEED` on. A failure names its seed: `random_request(seed)` is the request.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from at2_rag import AT2Pruner, ChunkCache, LoadedModel, PruneResult, ScoredChunk
from at2_rag.errors import AT2Error, InputError
from at2_rag.text.chunks import as_chunk
from at2_rag.text.protection import protected_spans
from at2_rag.text.tokens import TokenCounter, resolve_token_counter
from tests.fuzz.random_requests import RandomRequest, random_request
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import calibrated_weights

BLOCK = 25  # requests of one test
REQUESTS = int(os.environ.get("AT2_FUZZ_REQUESTS", 0))
SEED = int(os.environ.get("AT2_FUZZ_SEED", 0))


@dataclass(frozen=True, slots=True)
class Pruners:
    """Pruners of one model: as it comes, with a cache that forgets, and with one in a folder."""

    plain: AT2Pruner
    small: AT2Pruner
    folder: AT2Pruner
    count: TokenCounter
    rounding: float  # how far scores may be apart that differ by rounding
    int8: float  # and that read chunks in other passes, so that they are rounded otherwise

    @classmethod
    def over(
        cls, model: LoadedModel, folder: Path, weights: Any, *, rounding: float, int8: float
    ) -> Pruners:
        small, files = ChunkCache(max_memory_bytes=50_000), ChunkCache(folder, max_memory_bytes=0)
        plain, forgetful, foldered = (
            AT2Pruner(model, head_weights=weights, chunk_cache=cache)
            for cache in (None, small, files)
        )
        count = resolve_token_counter(model.tokenizer)
        return cls(plain, forgetful, foldered, count, rounding, int8)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Pruners:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    weights = calibrated_weights(model, tokenizer, cosine_weight=30.0)
    folder = tmp_path_factory.mktemp("states")
    return Pruners.over(LoadedModel(model, tokenizer), folder, weights, rounding=1e-3, int8=0.3)


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> Pruners:
    folder = tmp_path_factory.mktemp("states")
    return Pruners.over(LoadedModel.from_pretrained(), folder, None, rounding=0.3, int8=1.5)


def test_over_a_tiny_model(tiny: Pruners) -> None:
    outcomes = [outcome(tiny, seed) for seed in range(SEED, SEED + 30)]
    assert outcomes.count("refused") < len(outcomes) / 3


@pytest.mark.fuzz
@pytest.mark.default_model
@pytest.mark.skipif(not REQUESTS, reason="AT2_FUZZ_REQUESTS says how many requests to try")
@pytest.mark.parametrize("first", range(SEED, SEED + REQUESTS, BLOCK))
def test_over_the_default_model(default: Pruners, first: int) -> None:
    outcomes = [
        outcome(default, seed) for seed in range(first, min(first + BLOCK, SEED + REQUESTS))
    ]
    assert outcomes.count("refused") <= max(5, len(outcomes) / 2)


def outcome(pruners: Pruners, seed: int) -> str:
    """Try the request of a seed; return "kept", "nothing kept" or "refused"."""
    request = random_request(seed)
    try:
        try:
            result = pruners.plain.prune(request.query, request.chunks, **request.options)
        except AT2Error as error:
            if not request.bad and not re.search("head weights|cosine", str(error)):
                raise
            assert isinstance(error, InputError)
            return "refused"
        check(pruners, request, result)
        if result.kept or result.dropped:
            check_another_way(pruners, request, result)
    except Exception as error:
        error.add_note(f"the request of seed {seed}: {request!r:.3000}")
        raise
    return "kept" if result.kept else "nothing kept"


def check(pruners: Pruners, request: RandomRequest, result: PruneResult) -> None:
    """Check what holds for every result."""
    both = (*result.kept, *result.dropped)
    assert sorted(one.index for one in both) == list(range(len(request.chunks)))
    assert all(one.chunk is request.chunks[one.index] for one in both)
    assert all(type(note) is str and note.strip() for note in result.notes)
    assert result.notes or result.kept or not request.chunks
    assert result.error is None and all(seconds >= 0 for seconds in result.timings.values())
    for one in both:
        view = as_chunk(request.chunks[one.index], one.index)
        assert (one.text, one.title) == (view.text, view.title)
        assert one.score == one.score or result.skipped or not result.scored
        assert one.probability is None or 0 <= one.probability <= 1
        assert one.spans is None or one in result.kept
    if result.answerable is not None:
        assert result.answerable >= max(one.probability or 0 for one in both)
    check_texts(pruners, result)
    check_limits(pruners, request, result)
    written = result.to_json()
    assert written.isascii() and len(json.loads(written)["kept"]) == len(result.kept)


def check_texts(pruners: Pruners, result: PruneResult) -> None:
    """Check that kept texts are the chunks', and are counted as they are."""
    for one in result.kept:
        spans = one.spans or ((0, len(one.text)),)
        ends = [0, *(end for _, end in spans)]
        assert all(
            end <= start < stop for end, (start, stop) in zip(ends, spans, strict=False)
        ) or (one.spans is None)
        assert ends[-1] <= len(one.text)
        pieces = [one.text[start:end] for start, end in spans]
        ellipsis = re.escape(one.ellipsis)
        assert re.fullmatch(rf"\s{ellipsis}\s".join(map(re.escape, pieces)), one.kept_text)
    assert result.context == pruners.plain.separator.join(one.rendered for one in result.kept)
    assert result.tokens_after == pruners.count(result.context)


def check_limits(pruners: Pruners, request: RandomRequest, result: PruneResult) -> None:
    """Check the limits that can be checked without the scores of sentences."""
    options = pruners.plain.options.override(**request.options)
    if result.skipped:
        assert result.tokens_before <= (options.skip_below_tokens or 0)
        return
    views = [as_chunk(chunk, index) for index, chunk in enumerate(request.chunks)]
    protected = protected_spans(views, options.protect)
    kept = {one.index: one for one in result.kept}
    for index, spans in enumerate(protected):
        for start, end in spans:
            covers = kept[index].spans or ((0, len(views[index].text)),) if index in kept else ()
            inside = "".join(views[index].text[max(a, start) : min(b, end)] for a, b in covers)
            assert inside.split() == views[index].text[start:end].split() or options.unit == "chunk"
            assert index in kept or not views[index].text[start:end].strip()
    if options.max_tokens is not None and result.tokens_after > options.max_tokens:
        assert any(protected) and result.notes[0].startswith("Only what is protected was kept")
    if options.top_k is not None:
        free = [one for one in result.kept if not protected[one.index]]
        assert len(free) <= options.top_k
    if options.order == "original":
        assert list(kept) == sorted(kept)
    elif options.unit == "chunk":
        last = options.order == "best_last"
        assert [one.score for one in result.kept] == sorted(
            (one.score for one in result.kept), reverse=not last
        )
    for one in result.kept:
        if options.unit == "chunk" and not protected[one.index]:
            assert options.min_score is None or one.score >= options.min_score
            assert options.min_probability is None or (one.probability or 0) >= (
                options.min_probability
            )


def check_another_way(pruners: Pruners, request: RandomRequest, result: PruneResult) -> None:
    """Read the same chunks in another order, in a batch or with a cache; scores stay the same."""
    rng = random.Random(request.seed)
    query, chunks, options = request.query, request.chunks, request.options
    expected = scores_of(pruners.plain.score(query, chunks))
    way = rng.choice(["shuffled", "batch", "small", "folder"])
    if way == "shuffled":
        order = rng.sample(range(len(chunks)), k=len(chunks))
        shuffled = scores_of(pruners.plain.score(query, [chunks[index] for index in order]))
        same = {order[index]: score for index, score in shuffled.items()}
        assert same == pytest.approx(expected, abs=pruners.rounding), "in another order"
        return
    if way == "batch":
        options = {**options, "protect": None, "prior": None}
        others = [random_request(request.seed + number) for number in (10**6, 2 * 10**6)]
        requests = [(one.query, one.chunks) for one in others if not one.bad]
        *_, batched = pruners.plain.prune_batch([*requests, (query, chunks)], **options)
        single = pruners.plain.prune(query, chunks, **options)
        same_scores(single, batched, pruners.rounding)
        check(pruners, RandomRequest(request.seed, query, chunks, options, False), batched)
        return
    pruner = pruners.small if way == "small" else pruners.folder
    first, second = (scores_of(pruner.score(query, chunks)) for _ in range(2))
    assert first == pytest.approx(expected, abs=pruners.int8), f"with a cache: {way}"
    again = pruners.int8 if way == "small" else pruners.rounding
    assert second == pytest.approx(first, abs=again), f"from the cache: {way}"
    check(pruners, request, pruner.prune(query, chunks, **options))


def scores_of(scored: Sequence[ScoredChunk]) -> Mapping[int, float]:
    return {one.index: one.score for one in scored}


def same_scores(one: PruneResult, other: PruneResult, tolerance: float) -> None:
    """Compare scores; those after a second reading only if both read again beside one chunk."""
    first, second = (scores_of((*result.kept, *result.dropped)) for result in (one, other))
    best = [max(scores, key=scores.__getitem__) for scores in (first, second)]
    if best[0] == best[1]:
        assert second == pytest.approx(first, abs=tolerance, nan_ok=True), "in a batch"
