"""Collects features: what the questions of examples attend to in each chunk."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from at2_rag.data.examples import Example
from at2_rag.errors import PromptTooLongError, ScoringError
from at2_rag.prompt.layout import PromptLayout
from at2_rag.reading.chunk_states import StateStore
from at2_rag.reading.features import PASSES, FeatureSpec, Pass, Reading, as_log, as_mass
from at2_rag.reading.independent import IndependentReader, LayoutPasses, States
from at2_rag.reading.joint import read_joint
from at2_rag.reading.late import KeyHeads
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.readout.shortlist import Shortlist
from at2_rag.text.chunks import Chunk
from at2_rag.training.collection.collection import (
    TOO_LONG,
    Collected,
    Collection,
    Row,
    split_evenly,
)
from at2_rag.training.collection.samples import (
    MOST_CHUNKS,
    NOT_TAUGHT,
    ONE_KIND,
    Sample,
    content_hash,
    is_taught,
    plan_samples,
    reading_settings,
)

SHARD_SHORTLISTS = 20  # samples of a shard of shortlists
JOINT_MOST_CHUNKS = 20  # of a sample in joint reading, where cost grows with their number


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Features of samples, the chunks of one after those of another: N chunks of I samples."""

    examples: npt.NDArray[np.int64]  # [I], index of each sample's example
    counts: npt.NDArray[np.int64]  # [I], chunks of each sample
    # [N, P, L, H], the quantity "log"; NaN where a pass read only a shortlist without the chunk
    log: npt.NDArray[np.float16]
    passes: tuple[Pass, ...]  # P of them

    @classmethod
    def of(cls, rows: Mapping[int, Row], passes: tuple[Pass, ...]) -> Features:
        """Put rows of a collection of these passes together, at least one."""
        return cls(
            np.array(list(rows), dtype=np.int64),
            np.array([len(row["log"]) for row in rows.values()], dtype=np.int64),
            np.concatenate([row["log"] for row in rows.values()]),
            passes,
        )

    def matrix(self, spec: FeatureSpec, depth: int) -> npt.NDArray[np.float32]:
        """Return the features of a design, [N, F], as `FeatureSpec.extract` orders them."""
        values = []
        for name in spec.passes:
            of_pass = self.log[:, self.passes.index(name), :depth].astype(np.float32)
            if spec.quantity == "mass":
                of_pass = as_mass(name, torch.from_numpy(of_pass)).numpy()
            values.append(of_pass)
        return np.stack(values, axis=1).reshape(len(self.log), -1)

    def by_sample(self, values: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """Return what belongs to each sample's chunks, [N, ...] -> I x [S, ...]."""
        return np.split(values, np.cumsum(self.counts)[:-1])


def fits_window(
    model: ScoringModel, query: str, chunks: Sequence[Chunk], *, reading: Reading
) -> bool:
    """Return whether a prompt fits the model's window; independently read chunks always do."""
    try:
        if reading == "joint":
            model.prompts.joint(query, chunks)
        else:
            model.prompts.independent(query, ())
    except PromptTooLongError:
        return False
    return True


class SampleCollection(Collection):
    """A collection of examples' samples, see `plan_samples`; `samples` has them by example."""

    def __init__(
        self,
        model: ScoringModel,
        examples: Sequence[Example],
        folder: str | Path,
        shards: Sequence[Sequence[Sample]],
        settings: Mapping[str, Any],
        *,
        fingerprint: str,
        no_sample: str,
    ) -> None:
        self._model, self._examples = model, examples
        self.samples = {sample.example: sample for shard in shards for sample in shard}
        undrawn = sorted(set(range(len(examples))) - set(self.samples))
        super().__init__(
            folder,
            {**settings, **reading_settings(model, fingerprint, examples)},
            [[sample.example for sample in shard] for shard in shards],
            left_out=dict.fromkeys(undrawn, no_sample),
        )


class FeatureCollection(SampleCollection):
    """Features of the chunks of examples; a row has `log`, see `Features`.

    In joint reading distractors are added only as long as the prompt fits the model's window.
    The model is cut to the deepest layer wanted. `passes` are those of the reading, if not all are
    wanted; `seed` is of the added distractors. For `taught` and `padded` see `plan_samples`. Only
    key heads in `heads` are read late, None for all. What a `store` has of a chunk isn't read
    again.
    """

    remedy = (
        "pass examples of which each, or another of its source, has chunks that aren't gold, and "
        "that fit the model's window"
    )

    def __init__(
        self,
        model: ScoringModel,
        examples: Sequence[Example],
        folder: str | Path,
        *,
        reading: Reading,
        fingerprint: str,
        seed: int,
        padded: bool = True,
        taught: bool = False,
        passes: tuple[Pass, ...] | None = None,
        heads: KeyHeads | None = None,
        store: StateStore | None = None,
    ) -> None:
        self._reading, self.passes = reading, passes or PASSES[reading]
        self._heads, self._store = heads, store
        most_chunks = MOST_CHUNKS if reading == "independent" else JOINT_MOST_CHUNKS
        shards = plan_samples(
            examples, seed=seed, padded=padded, taught=taught, most_chunks=most_chunks
        )
        settings = {
            "signal": "teacher" if taught else "evidence",
            "reading": reading,
            "passes": list(self.passes),
            "padded": padded,
            "seed": seed,
            **({} if heads is None else {"heads": [list(pair) for pair in heads]}),
        }
        if taught:  # these are read as they are
            settings["taught"] = content_hash(list(filter(is_taught, examples)))
        super().__init__(
            model,
            examples,
            folder,
            shards,
            settings,
            fingerprint=fingerprint,
            no_sample=NOT_TAUGHT if taught else ONE_KIND,
        )

    def read_shard(self, items: Sequence[int], executor: Executor) -> Iterable[Row | str]:
        """Read one shard, in independent reading every different chunk only once."""
        reader = None
        if self._reading == "independent":
            store = {} if self._store is None else self._store
            reader = IndependentReader(self._model, heads=self._heads, store=store)
        return executor.map(partial(self._read_example, reader), items)

    def _read_example(self, reader: IndependentReader | None, item: int) -> Row | str:
        layout = self._layout(item)
        if layout is None:
            return TOO_LONG
        if reader is None:
            return {"log": feature_array([as_log("joint", read_joint(self._model, [layout])[0])])}
        chunks = len(self.samples[item].chunks)
        return {"log": read_passes(reader, layout, self.passes, chunks=chunks)}

    def query(self, item: int) -> str:
        """Return the question of an example."""
        return self._examples[item].query

    def _layout(self, item: int) -> PromptLayout | None:
        """Return the prompt of the most chunks that fit; None if too few to tell gold from others.

        The example's chunks have to fit, only added ones may be missing.
        """
        sample, query, prompts = self.samples[item], self._examples[item].query, self._model.prompts
        sizes = range(sample.original, len(sample.chunks) + 1)

        def too_long(size: int) -> bool:
            chunks = sample.chunks[:size]
            return not fits_window(self._model, query, chunks, reading=self._reading)

        size = sizes[-1]
        if too_long(size):
            size = sizes.start + bisect_left(sizes, True, key=too_long) - 1
            labels = sample.labels[:size]
            if size < sample.original or not any(labels) or all(labels):
                return None
        build = prompts.joint if self._reading == "joint" else prompts.independent
        return build(query, sample.chunks[:size])


class ShortlistCollection(Collection):
    """Features of passes beside the late one, which read only what that shortlists.

    A row has `log` of all `passes`, NaN in all but the late one for chunks that aren't shortlisted.
    First the collection `late` is collected, of the late pass alone and maybe of more layers. The
    model is as deep as the shortlist's weights. What a `store` has of a chunk isn't read again.
    """

    def __init__(
        self,
        model: ScoringModel,
        late: FeatureCollection,
        shortlist: Shortlist,
        passes: tuple[Pass, ...],
        *,
        store: StateStore | None = None,
    ) -> None:
        self.passes, self.samples = passes, late.samples
        self._model, self._late, self._store = model, late, store
        self._shortlist, self._heads = shortlist, shortlist.key_heads(model.key_heads)
        self._rows: Mapping[int, Row] = {}  # of the late pass
        settings = {
            "depth": model.depth,
            "late": late.identity,
            "shortlist": shortlist.digest,
            "passes": list(passes),
        }
        super().__init__(late.folder / f"shortlist-{shortlist.digest[:8]}", settings, ())

    def check(self) -> bool:
        """As in other collections, of both."""
        late = self._late.check()
        return super().check() and late

    def collect(
        self,
        *,
        workers: int = 1,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Collected:
        """As in other collections; half of the progress is that of the late pass."""
        late = self._late.collect(
            workers=workers, progress=lambda done, total: progress(done, 2 * total)
        )
        self._go_on_from(late)
        return super().collect(
            workers=workers, progress=lambda done, total: progress(total + done, 2 * total)
        )

    def parts(self) -> Iterator[Collection]:
        """As in other collections: first the late pass's, then this."""
        yield self._late
        self._go_on_from(self._late.collect())
        yield self

    def _go_on_from(self, late: Collected) -> None:
        self._rows, self._left_out = late.rows, late.left_out
        self._shards = split_evenly(list(late.rows), SHARD_SHORTLISTS)

    @cached_property
    def _reader(self) -> IndependentReader:
        return IndependentReader(self._model, store=self._store)

    def read(self, item: int) -> Row:
        """Read one sample."""
        late = self._late_features(item)
        features = late.astype(np.float32).reshape(len(late), -1)
        scores = self._shortlist.late_scores(features)
        chosen = np.flatnonzero(self._shortlist.chosen(scores))
        chunks = [self.samples[item].chunks[index] for index in chosen]
        layout = self._model.prompts.independent(self._late.query(item), chunks)
        states, others = self._reader.states(layout.source_ids), self.passes[1:]
        read = read_passes(self._reader, layout, others, chunks=len(chunks), states=states)
        of_others = np.full((len(late), *read.shape[1:]), np.nan, dtype=read.dtype)
        of_others[chosen] = read
        return {"log": np.concatenate([late, of_others], axis=1)}

    def _late_features(self, item: int) -> npt.NDArray[np.float16]:
        """Return a sample's late features [S, 1, L, H], those of key heads not in use as unread."""
        values = self._rows[item]["log"][:, :, : self._model.depth]
        shared = self._model.heads // self._model.key_heads
        features = np.zeros_like(values)
        for layer, head in self._heads:
            heads = slice(head * shared, (head + 1) * shared)
            features[:, 0, layer, heads] = values[:, 0, layer, heads]
        return features


def read_passes(
    reader: IndependentReader,
    layout: PromptLayout,
    passes: Sequence[Pass] = PASSES["independent"],
    *,
    chunks: int,
    states: States | None = None,
) -> npt.NDArray[np.float16]:
    """Return the features of passes over a layout's sources, by chunk; `states` as in `read`.

    A chunk that was read in several windows has those of its strongest. [S, P, L, H].
    """
    read = []
    for name in passes:  # a pass by itself, so that no other changes its rounding
        [attention] = reader.read([LayoutPasses(layout, {name: None})], states=states)
        read.append(of_chunks(as_log(name, attention[name]), layout, chunks))
    return feature_array(read)


def of_chunks(log: Tensor, layout: PromptLayout, chunks: int) -> Tensor:
    """Return features [L, H, S] by chunk; one of several windows has those of its strongest."""
    if len(layout.owners) == chunks:
        return log
    owners = torch.tensor(layout.owners)
    strongest = torch.empty(chunks, dtype=torch.int64)
    overall = log.mean((0, 1)).nan_to_num(-torch.inf)  # [L, H, S] -> [S]
    for chunk in range(chunks):
        windows = (owners == chunk).nonzero().flatten()
        strongest[chunk] = windows[overall[windows].argmax()]
    return log[..., strongest]


def feature_array(log: Sequence[Tensor]) -> npt.NDArray[np.float16]:
    """Return the features of P passes, [L, H, S] each, of a sample as rows hold them, [S, P, L, H].

    Raises:
        ScoringError: If they aren't finite.
    """
    values = torch.stack(list(log)).permute(3, 0, 1, 2).contiguous().half().cpu().numpy()
    if not np.isfinite(values).all():
        raise ScoringError(
            "the attention of the model holds NaN or infinity; load it in float32 or bfloat16"
        )
    features: npt.NDArray[np.float16] = values
    return features
