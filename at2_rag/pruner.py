"""`AT2Pruner`: from a question and its chunks to the few chunks that matter.

The one place where the parts are put together: prompt layout, reading, features, head weights,
selection.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal

import torch

from at2_rag.citations import ScoredSentence
from at2_rag.errors import InputError
from at2_rag.model.fingerprint import cached_fingerprint, model_fingerprint, states_scope
from at2_rag.model.hub import DEFAULT_MODEL, cache_dir, resolve_model
from at2_rag.model.loading import load_model, torch_dtype_of
from at2_rag.options import DEFAULT_MAX_OVERLAP, IfUnanswerable, Limits, Order, Unit
from at2_rag.pruning.request import PruneRequest
from at2_rag.pruning.request_scoring import RequestScoring
from at2_rag.pruning.scorer import SourceScorer
from at2_rag.reading.chunk_states import ChunkStateStore
from at2_rag.reading.features import Reading
from at2_rag.reading.scoring_model import ScoringModel, layers_and_heads
from at2_rag.readout.head_weights import UNIFORM, HeadWeights
from at2_rag.readout.lookup import check_fit, resolve_head_weights
from at2_rag.stopwatch import Stopwatch
from at2_rag.text.chunk_arguments import checked_chunks, chunk_batches, scored_chunks
from at2_rag.text.chunks import (
    DEFAULT_ELLIPSIS,
    DEFAULT_SEPARATOR,
    ChunkLike,
    Prior,
    PruneResult,
    ScoredChunk,
)
from at2_rag.text.protection import Protect
from at2_rag.text.tokens import TokenCounter, resolve_token_counter

_INDEX_BATCH = 64
"""Chunks whose states are in memory at a time while many are read ahead of a question."""

OnError = Literal["raise", "keep_all"]


class AT2Pruner:
    """Ranks chunks by the attention a small local model pays to them, and keeps the best.

    Thread-safe, and immutable once made, so that `copy.deepcopy` gives the pruner itself. The
    caller's model, chunks and torch settings are never changed.

    Args:
        model: A transformers causal LM (or base model) that the caller already holds.
        tokenizer: Its fast tokenizer.
        head_weights: `HeadWeights`, a folder that `at2-rag train` wrote, the name of shipped
            weights, or "uniform" (the plain mean over all heads). None for the shipped weights
            fitted on this very model, if there are any.
        reading: "independent" (each chunk is read alone; order can't matter, any number of
            chunks) or "joint" (all in one prompt, within the model's window). None for what the
            head weights are for, "independent" where they don't say.
        token_counter: Counts tokens for `max_tokens` and the result: the name of an OpenAI model
            or tiktoken encoding, a Hugging Face tokenizer or a callable; None for the scoring
            model's tokenizer.
        separator: What stands between two chunks in the generator's prompt; counted too.
        ellipsis: What stands for what is left out of a chunk (`unit="sentence"`), with white space
            around it; "" for nothing but the white space.
        on_error: "raise", or "keep_all": if scoring fails, keep every chunk, log it, and say so
            in the result. Unusable arguments raise in either case.
        chunk_cache: Where states of chunks read independently are kept between calls: a
            `ChunkCache`, or any other mutable mapping; None for nowhere.
        fingerprint: The model's fingerprint, where it is known; computed if None.

    Raises:
        UnsupportedModelError: If the model can't be captured, or not read independently.
        HeadWeightsError: If there are no usable head weights for this model.
        TokenCounterError: If no counter can be made of `token_counter`.
    """

    def __init__(
        self,
        *,
        model: Any,
        tokenizer: Any,
        head_weights: HeadWeights | str | os.PathLike[str] | None = None,
        reading: Reading | None = None,
        token_counter: Any = None,
        separator: str = DEFAULT_SEPARATOR,
        ellipsis: str = DEFAULT_ELLIPSIS,
        on_error: OnError = "raise",
        chunk_cache: ChunkStateStore | None = None,
        fingerprint: str | None = None,
    ) -> None:
        if reading not in (None, "independent", "joint"):
            raise InputError(f"reading is {reading!r}; pass 'independent' or 'joint'")
        if on_error not in ("raise", "keep_all"):
            raise InputError(f"on_error is {on_error!r}; pass 'raise' or 'keep_all'")
        base = model.base_model
        layers, heads = layers_and_heads(base.config)
        uniform = isinstance(head_weights, str) and head_weights == UNIFORM
        if fingerprint is None and (chunk_cache is not None or not uniform):
            fingerprint = model_fingerprint(base, tokenizer)
        self.head_weights = resolve_head_weights(
            head_weights,
            layers=layers,
            heads=heads,
            reading=reading,
            fingerprint=fingerprint or "",
            model_name=base.config.name_or_path or None,
        )
        check_fit(self.head_weights, layers=layers, heads=heads, reading=reading)
        self.reading: Reading = self.head_weights.reading
        self.scoring_model = ScoringModel(model, tokenizer, depth=self.head_weights.layers)
        if self.reading == "independent":
            self.scoring_model.check_independent()
        template_hash = self.scoring_model.prompts.template_hash
        self.head_weights.check(fingerprint=fingerprint or "", template_hash=template_hash)
        self.model_name = str(
            self.head_weights.provenance.get("model") or base.config.name_or_path or "model"
        )
        self.separator, self.ellipsis = separator, ellipsis
        self.on_error = on_error
        self._count: TokenCounter = resolve_token_counter(
            tokenizer if token_counter is None else token_counter
        )
        scope = ""
        if chunk_cache is not None:
            scope = states_scope(
                base,
                fingerprint=fingerprint or "",
                template_hash=template_hash,
                depth=self.scoring_model.depth,
            )
        self._scorer = SourceScorer(
            self.scoring_model, self.head_weights, states=chunk_cache, scope=scope
        )
        self._learned: dict[str, Any] = {
            "calibrated": self.calibrated,
            "prior_weights": self.head_weights.prior_weights,
            "multi_hop_known": self.head_weights.multi_hop is not None,
        }
        self._scoring = RequestScoring(self._scorer, keep_all=on_error == "keep_all")

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | os.PathLike[str] = DEFAULT_MODEL,
        *,
        revision: str | None = None,
        head_weights: HeadWeights | str | os.PathLike[str] | None = None,
        reading: Reading | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        token_counter: Any = None,
        separator: str = DEFAULT_SEPARATOR,
        ellipsis: str = DEFAULT_ELLIPSIS,
        on_error: OnError = "raise",
        chunk_cache: ChunkStateStore | None = None,
    ) -> AT2Pruner:
        """Load a scoring model and its head weights.

        Args:
            name_or_folder: The default model's name, a local folder or a hub id; a `Path` is
                always a folder.
            revision: Of a hub id.
            head_weights: As in the constructor, as all arguments not named here.
            reading: As in the constructor.
            device: Where to run; None for CUDA where there is one, else the CPU.
            dtype: "float32", "bfloat16", "float16" or a torch dtype; None for bfloat16 where the
                device computes it natively, else float32.
            token_counter: As in the constructor.
            separator: As in the constructor, like all that follow.
            ellipsis: See there.
            on_error: See there.
            chunk_cache: See there.

        Raises:
            ModelNotFoundError: If the model can't be found, fetched or read.
            InputError: If `revision`, `device` or `dtype` can't be used.
            UnsupportedModelError: As in the constructor, like `HeadWeightsError` and
                `TokenCounterError`.
        """
        torch_dtype = torch_dtype_of(dtype)
        folder = resolve_model(name_or_folder, revision=revision)
        model, tokenizer = load_model(folder, device=device, dtype=torch_dtype)
        return cls(
            model=model,
            tokenizer=tokenizer,
            head_weights=head_weights,
            reading=reading,
            token_counter=token_counter,
            separator=separator,
            ellipsis=ellipsis,
            on_error=on_error,
            chunk_cache=chunk_cache,
            fingerprint=cached_fingerprint(
                folder,
                cache_dir() / "fingerprints",
                lambda: model_fingerprint(model.base_model, tokenizer),
                dtype=model.dtype,
            ),
        )

    @property
    def calibrated(self) -> bool:
        """Whether scores become probabilities, which can do without a limit."""
        return self.head_weights.calibration is not None

    def __deepcopy__(self, memo: dict[int, Any]) -> AT2Pruner:
        return self

    def score(self, query: str, chunks: Iterable[ChunkLike]) -> tuple[ScoredChunk, ...]:
        """Score every chunk, by one reading and without a prior.

        Returns:
            One `ScoredChunk` a chunk, in the order given; empty for no chunks.

        Raises:
            InputError: If the query is blank or not a string, or a chunk isn't text.
            PromptTooLongError: If the question (in joint reading: the prompt) exceeds the model's
                window.
            ScoringError: If the model's numbers overflowed.
        """
        given, views = checked_chunks(query, chunks)
        read = self._scorer.chunks(query, views, Stopwatch())
        return scored_chunks(given, views, read.scores, read.probabilities)

    def score_sentences(
        self, query: str, chunks: Iterable[ChunkLike]
    ) -> tuple[ScoredSentence, ...]:
        """Score every sentence of every chunk, by the head weights of the chunks.

        A sentence is read within its chunk. In independent reading the chunk's state is cut: the
        masses of its sentences, title and white space *together* add up to the chunk's, and
        *apart* the question sees one sentence's tokens after the prefix. In joint reading the
        sentence's tokens in the prompt are taken. How well weights that were fitted on chunks
        serve sentences is a matter of measurement: `at2-rag eval fidelity --unit sentence`.

        Args:
            query: The question.
            chunks: As in `prune`.

        Returns:
            The sentences in the order of the chunks; a blank chunk has none.

        Raises:
            InputError: As in `score`, like `PromptTooLongError` and `ScoringError`.
        """
        _, views = checked_chunks(query, chunks)
        return self._scorer.sentences(query, views)

    def index(
        self,
        chunks: Iterable[ChunkLike],
        *,
        progress: Callable[[int], None] = lambda done: None,
    ) -> None:
        """Read chunks ahead of any question and keep their states in the store.

        What the store has is not read again: an interrupted run goes on where it was.

        Args:
            chunks: As in `prune`; taken in as they are needed.
            progress: Called with the number of chunks done so far.

        Raises:
            InputError: If the pruner has no store or reads chunks jointly, or a chunk isn't text.
        """
        done = 0
        for batch in chunk_batches(chunks, _INDEX_BATCH):
            self._scorer.keep_states(batch)
            done += len(batch)
            progress(done)

    def prune(
        self,
        query: str,
        chunks: Iterable[ChunkLike],
        *,
        top_k: int | None = None,
        max_tokens: int | None = None,
        min_score: float | None = None,
        top_p: float | None = None,
        max_missed: float | None = None,
        skip_below_tokens: int | None = None,
        order: Order = "score",
        unit: Unit = "chunk",
        protect: Protect | None = None,
        max_overlap: float | None = DEFAULT_MAX_OVERLAP,
        if_unanswerable: IfUnanswerable = "flag",
        prior: Prior | None = None,
        multi_hop: bool | None = None,
    ) -> PruneResult:
        """Keep the chunks that matter for the query.

        At least one limit has to be given, unless the head weights are calibrated: then
        `max_missed` is the limit, at `limits.DEFAULT_MAX_MISSED`.

        With `unit="sentence"` the limits choose among units of the chunks' texts: sentences,
        and tables, lists, blocks of code and headings with what they are over, which are kept whole
        or not at all. Of a chunk with a kept unit the rest is left out (`ScoredChunk.spans`), a
        chunk without one is dropped. Units are scored by `sentence_weights`, else what each chunk
        has is divided among them, see `trimming`; scores and probabilities meant are theirs then.

        Args:
            query: The question.
            chunks: Strings, mappings (`text`, optional `title`, `id`, `metadata`) or `Chunk`s.
            top_k: Keep at most so many.
            max_tokens: Keep only what fits into so many tokens, titles and separators included.
            min_score: Keep only chunks with at least this probability (score, if not calibrated).
            top_p: Keep the smallest set whose share reaches this, in (0, 1]: of the sum of all
                probabilities, or of the softmax over scores that aren't calibrated. That means
                little where scores are "additive"; the result's notes say so.
            max_missed: Keep the smallest set, at least one, such that no more than so many that
                matter are to be expected among the rest (the sum of their probabilities).
            skip_below_tokens: Keep a context of at most so many tokens as it is, unscored, if
                `max_tokens` allows.
            order: "score" (best first) or "original"; what wasn't scored stays in its own order.
            unit: What the limits choose and count, "chunk" or "sentence".
            protect: What must be kept whatever the limits say: a regular expression over the
                chunks' texts, or ranges of characters by a chunk's index. Each chunk (or unit) with
                a match is kept; it counts to `max_tokens`, but takes up no `top_k` place.
            max_overlap: Drop a chunk (or unit of eight words or more) of whose runs of three words
                at least this share, in (0, 1], stands in others that are kept, unless a number, a
                name or a negation is new in it, or its title. None to keep duplicates.
            if_unanswerable: What is kept where most likely no chunk holds the answer, see
                `PruneResult.answerable`: "flag" (what the limits say; a note tells), "keep_best"
                (one at most) or "keep_none", both besides what is protected and if calibrated.
            prior: Let the retriever weigh in, as the head weights learned to: by ranks of
                `retrieval_score` ("score") or of the order ("order"), or by cosines ("cosine").
            multi_hop: Ask again beside the best chunk, for answers that take two; None for where
                that alone doesn't meet a max_missed, see `RequestScoring`.

        Raises:
            InputError: If no limit is given, or an argument isn't of its kind; as in `score`.
            ScoringError: As in `score`, unless `on_error="keep_all"`.
        """
        limits = Limits(
            top_k=top_k,
            max_tokens=max_tokens,
            min_score=min_score,
            top_p=top_p,
            max_missed=max_missed,
            skip_below_tokens=skip_below_tokens,
            order=order,
            unit=unit,
            protect=protect,
            max_overlap=max_overlap,
            if_unanswerable=if_unanswerable,
            prior=prior,
            multi_hop=multi_hop,
            **self._learned,
        )
        request = self._request(query, chunks, limits)
        return request.without_scores() or self._scoring.results([request])[0]

    async def aprune(self, query: str, chunks: Iterable[ChunkLike], **limits: Any) -> PruneResult:
        """Do as `prune` in a worker thread, so that the event loop goes on."""
        return await asyncio.to_thread(partial(self.prune, query, chunks, **limits))

    def prune_batch(
        self, requests: Iterable[tuple[str, Iterable[ChunkLike]]], **limits: Any
    ) -> list[PruneResult]:
        """Do as `prune` for each pair of query and chunks; the limits hold for each.

        Several are read in the same passes of the model, chunks that they share once, which
        changes scores by rounding alone; results have equal parts of a pass's time. With
        `unit="sentence"` each is read by itself.

        Raises:
            InputError: As in `prune`; and if `protect` names ranges, which are of one request's
                chunks.
        """
        if isinstance(limits.get("protect"), Mapping):
            raise InputError(
                "protect names ranges of characters, which belong to one request's chunks; pass a "
                "regular expression, or prune one by one"
            )
        own = Limits(**limits, **self._learned)
        asked = [self._request(query, chunks, own, alone=False) for query, chunks in requests]
        results = [request.without_scores() for request in asked]
        waiting = [own for own, result in zip(asked, results, strict=True) if result is None]
        scored = iter(self._scoring.results(waiting))
        return [result or next(scored) for result in results]

    def _request(
        self, query: str, chunks: Iterable[ChunkLike], limits: Limits, *, alone: bool = True
    ) -> PruneRequest:
        return PruneRequest(
            query,
            chunks,
            limits,
            count=self._count,
            separator=self.separator,
            ellipsis=self.ellipsis,
            additive=self.head_weights.score_scale == "additive",
            alone=alone,
        )
