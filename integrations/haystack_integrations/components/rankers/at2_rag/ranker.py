"""The ranker: retrieved documents in, the relevant ones out."""

# Haystack reads the annotations of `run`, so that they are no strings here.

import asyncio
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Unpack, cast

from haystack import Document, component, default_from_dict, default_to_dict
from haystack.utils import ComponentDevice

from at2_rag.adapters import (
    METADATA_PREFIX,
    PrunerByName,
    checked_options,
    checked_prefix,
    checked_pruner,
    result_entries,
    with_results,
    within_limits,
)
from at2_rag.errors import InputError
from at2_rag.options import OnError, PruneOverrides
from at2_rag.results import PruneResult, ScoredChunk
from at2_rag.text.chunks import Chunk

if TYPE_CHECKING:
    from at2_rag.pruner import AT2Pruner

_THRESHOLDS = {"min_probability", "min_score"}
"""The options that `score_threshold` stands for."""

_OUTPUTS: dict[str, Any] = {
    "documents": list[Document],
    "dropped": list[Document],
    "answerable": float | None,
    "notes": list[str],
}


@component
class AT2Ranker:
    """Keeps the documents relevant to the query, with `Document.score` set.

    Returns copies: the caller's documents are never written to, and ids, metadata and content stay
    as they are. With `unit="sentence"` the content is what is kept of it, its embeddings are
    cleared, and `meta["at2_kept_spans"]` has the ranges `[start, end]` of the content that was
    passed in. A document without text can't be scored: it is kept, after the others.

    Options are those of `at2_rag.options.PruneOptions`; all limits must hold. Without any,
    calibrated head weights (like the default ones) keep documents that are at least a twentieth as
    likely to be relevant as the best one, and never fewer than the best 35 %; others keep the
    best three.

    Args:
        model: Name or folder of the scoring model; None for the default model.
        head_weights: Name of shipped head weights ("best", "balanced", "fast", ...), or a folder
            that `at2-rag train` wrote; None for "best".
        device: Where the model runs, as torch or Haystack names it; None for CUDA where there is
            one, else the CPU.
        chunk_cache: Folder that keeps what was read of chunks; None for main memory.
        title_key: Key of the title in `meta`, which is read with the content if it is a string that
            isn't blank; None for no title.
        meta_fields_to_embed: Keys in `meta` whose values are read with the content, after the
            title.
        metadata_prefix: What the keys that we write in `meta` begin with.
        raise_on_failure: Whether to raise if scoring fails; else all documents come back unranked.
        score_threshold: As in `run`; None for none.
        scale_score: As in `run`.
        pruner: A pruner in place of the first four, whose `on_error` then holds; such a ranker
            can't be written to a dict.
        **options: Options of each call.

    Raises:
        InputError: If an option can't be used, or a pruner and what loads one were passed.
    """

    def __init__(
        self,
        *,
        model: str | os.PathLike[str] | None = None,
        head_weights: str | os.PathLike[str] | None = None,
        device: str | ComponentDevice | None = None,
        chunk_cache: str | os.PathLike[str] | None = None,
        title_key: str | None = "title",
        meta_fields_to_embed: Sequence[str] = (),
        metadata_prefix: str = METADATA_PREFIX,
        raise_on_failure: bool = True,
        score_threshold: float | None = None,
        scale_score: bool = True,
        pruner: "AT2Pruner | None" = None,
        **options: Unpack[PruneOverrides],
    ) -> None:
        if isinstance(device, ComponentDevice):
            device = device.to_torch_str()
        if isinstance(score_threshold, str | bool) or not isinstance(scale_score, bool):
            raise InputError(
                f"score_threshold is {score_threshold!r} and scale_score {scale_score!r}; pass a "
                "number (or None), and True or False"
            )
        if isinstance(meta_fields_to_embed, str):
            raise InputError(
                f"meta_fields_to_embed is a string ({meta_fields_to_embed!r}); pass a list of keys"
            )
        names = {"model": model, "head_weights": head_weights, "chunk_cache": chunk_cache}
        by_name = PrunerByName(**cast(Any, names), device=device)
        by_name.check_alone(pruner)
        on_error: OnError | None = None if raise_on_failure else "keep_all"
        self._by_name = replace(by_name, on_error=on_error)
        self._pruner = None if pruner is None else checked_pruner(pruner)
        self._title_key, self._prefix = title_key, checked_prefix(metadata_prefix)
        self._meta_fields = [key for key in meta_fields_to_embed if key != title_key]
        self._raise_on_failure, self._scale_score = raise_on_failure, scale_score
        self._score_threshold, self._options = score_threshold, checked_options(options)
        if score_threshold is not None and (both := self._options.keys() & _THRESHOLDS):
            raise InputError(
                f"score_threshold and {' and '.join(sorted(both))} were passed; pass one of them"
            )
        self._is_warm = False

    def to_dict(self) -> dict[str, Any]:
        """Return the settings, for a pipeline's YAML.

        Raises:
            InputError: If the ranker has a pruner, which can't be written.
        """
        if self._pruner is not None:
            raise InputError(
                "the ranker's pruner can't be written; let it be loaded by name (model, "
                "head_weights, device, chunk_cache)"
            )
        names = {name: value for name, value in asdict(self._by_name).items() if name != "on_error"}
        settings: dict[str, Any] = default_to_dict(
            self,
            **names,
            title_key=self._title_key,
            meta_fields_to_embed=self._meta_fields,
            metadata_prefix=self._prefix,
            raise_on_failure=self._raise_on_failure,
            score_threshold=self._score_threshold,
            scale_score=self._scale_score,
            **self._options,
        )
        return settings

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "AT2Ranker":
        """Return the ranker of settings that `to_dict` gave."""
        ranker: AT2Ranker = default_from_dict(cls, data)
        return ranker

    def warm_up(self) -> None:
        """Load the model, once, so that the first call takes no longer than others."""
        if not self._is_warm:
            self._loaded().warm_up()
            self._is_warm = True

    async def warm_up_async(self) -> None:
        """Do as `warm_up` without blocking the event loop."""
        if not self._is_warm:
            await asyncio.to_thread(self.warm_up)

    @component.output_types(**_OUTPUTS)
    def run(
        self,
        query: str,
        documents: list[Document],
        top_k: int | None = None,
        score_threshold: float | None = None,
        scale_score: bool | None = None,
    ) -> dict[str, Any]:
        """Keep the documents relevant to the query.

        Args:
            query: The question.
            documents: The retrieved documents; none of them is changed.
            top_k: Keep at most this many documents (or sentences), in place of the ranker's.
            score_threshold: Keep documents with at least this score, in place of the ranker's, and
                of its `min_probability` or `min_score`.
            scale_score: Whether scores are probabilities, which they are where the head weights are
                calibrated; False for raw scores. In place of the ranker's.

        Returns:
            `documents` that are kept, best first; those `dropped`; `answerable`, the probability
            that any of them holds the answer (None if unknown); and `notes` on anything out of the
            ordinary.

        Raises:
            InputError: If the query is blank, or a value can't be used.
        """
        pruner, texts = self._loaded(), _texts(documents)
        scaled = self._is_scaled(pruner, scale_score)
        overrides = self._overrides(pruner, top_k, score_threshold, scaled)
        result = pruner.prune(query, map(self._chunk, texts), **overrides)
        return self._outputs(documents, texts, result, scaled)

    @component.output_types(**_OUTPUTS)
    async def run_async(
        self,
        query: str,
        documents: list[Document],
        top_k: int | None = None,
        score_threshold: float | None = None,
        scale_score: bool | None = None,
    ) -> dict[str, Any]:
        """Do as `run` without blocking the event loop."""
        pruner = self._pruner or await self._by_name.apruner()
        texts = _texts(documents)
        scaled = self._is_scaled(pruner, scale_score)
        overrides = self._overrides(pruner, top_k, score_threshold, scaled)
        result = await pruner.aprune(query, map(self._chunk, texts), **overrides)
        return self._outputs(documents, texts, result, scaled)

    def _loaded(self) -> "AT2Pruner":
        return self._pruner or self._by_name.pruner()

    def _is_scaled(self, pruner: "AT2Pruner", scale_score: bool | None) -> bool:
        wanted = self._scale_score if scale_score is None else scale_score
        return wanted and pruner.calibrated

    def _overrides(
        self,
        pruner: "AT2Pruner",
        top_k: int | None,
        score_threshold: float | None,
        scaled: bool,
    ) -> PruneOverrides:
        """Return the ranker's options and those of a call."""
        score_threshold = self._score_threshold if score_threshold is None else score_threshold
        overrides: PruneOverrides = {**self._options}
        if top_k is not None:
            overrides["top_k"] = top_k
        if score_threshold is not None:
            if scaled:
                overrides["min_probability"] = score_threshold
            else:
                overrides["min_score"] = score_threshold
        return within_limits(pruner, overrides)

    def _chunk(self, document: Document) -> Chunk:
        title = None if self._title_key is None else document.meta.get(self._title_key)
        values = [document.meta.get(key) for key in self._meta_fields]
        lines = [title if isinstance(title, str) else ""]
        lines += [str(value) for value in values if value is not None]
        return Chunk(
            text=document.content or "",
            title="\n".join(line for line in lines if line.strip()) or None,
            id=document.id,
            retrieval_score=document.score,
        )

    def _outputs(
        self,
        documents: Sequence[Document],
        texts: Sequence[Document],
        result: PruneResult,
        scaled: bool,
    ) -> dict[str, Any]:
        kept, dropped = (
            [self._copy(texts[chunk.index], chunk, result, scaled) for chunk in chunks]
            for chunks in (result.kept, result.dropped)
        )
        without_text = [document for document in documents if document.content is None]
        return {
            "documents": [*kept, *without_text],
            "dropped": dropped,
            "answerable": result.answerable,
            "notes": list(result.notes),
        }

    def _copy(
        self, document: Document, chunk: ScoredChunk, result: PruneResult, scaled: bool
    ) -> Document:
        changes: dict[str, Any] = {}
        if chunk.spans is not None:
            changes = {"content": chunk.kept_text, "embedding": None, "sparse_embedding": None}
        if result.scored:
            changes["score"] = chunk.probability if scaled else chunk.score
        results = result_entries(chunk, result)
        results.pop("answerable", None)  # which is an output of the ranker
        meta = with_results(document.meta, results, prefix=self._prefix)
        return replace(document, meta=meta, **changes)


def _texts(documents: Sequence[Document]) -> list[Document]:
    return [document for document in documents if document.content is not None]
