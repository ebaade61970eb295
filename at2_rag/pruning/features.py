"""Reads laid-out questions for the features of their chunks and units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from at2_rag.arrays import Bools, Floats
from at2_rag.progress import Stopwatch
from at2_rag.prompt.layout import PromptLayout
from at2_rag.prompt.sentence_tokens import (
    SentenceParts,
    SourcePart,
    prompt_spans,
    sentence_parts,
)
from at2_rag.reading.attention import SpanAttention
from at2_rag.reading.chunk_states import ChunkState
from at2_rag.reading.features import FeatureSpec, Pass
from at2_rag.reading.independent import IndependentReader, LayoutPasses
from at2_rag.reading.joint import read_joint
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.readout.scores import best_by_owner
from at2_rag.readout.shortlist import Shortlist
from at2_rag.text.chunks import Chunk
from at2_rag.text.units import UnitSpan

MOST_KEPT = 8192
"""Most tokens of chunks whose states are kept until it is known which are shortlisted."""

Attention = Mapping[Pass, SpanAttention]


@dataclass(frozen=True, slots=True, eq=False)
class LaidOut:
    """A question's prompt, and what is read in it."""

    layout: PromptLayout
    chunks: Sequence[Chunk]
    units: Sequence[UnitSpan] = ()  # read beside the chunks, none to read no units
    whole: bool = True  # whether chunks are read as wholes


@dataclass(frozen=True, slots=True, eq=False)
class TextFeatures:
    """Features of a question's sources, [sources, F], and of parts that units have, [P, F].

    Those of passes that read only a shortlist are NaN elsewhere.
    """

    chunks: Floats
    units: Floats
    unit_owners: Sequence[int]  # [P], index of each part's unit


def matrix(spec: FeatureSpec, attention: Attention) -> Floats:
    """Return the features [S, F] of what was attended to."""
    features: Floats = spec.extract(attention).cpu().numpy()
    return features


def joint_features(
    model: ScoringModel, weights: HeadWeights, texts: Sequence[LaidOut], watch: Stopwatch
) -> list[TextFeatures]:
    """Read questions, each in one prompt with all of its chunks."""
    spans = [
        [
            *text.layout.source_spans,
            *prompt_spans(model.prompts, text.layout, text.chunks, text.units),
        ]
        for text in texts
    ]
    with watch.stage("joint"):
        read = read_joint(model, [text.layout for text in texts], spans=spans)
    results = []
    for text, attention in zip(texts, read, strict=True):
        features, sources = matrix(weights.spec, {"joint": attention}), len(text.layout.source_ids)
        results.append(TextFeatures(features[:sources], features[sources:], range(len(text.units))))
    return results


def independent_features(
    reader: IndependentReader, weights: HeadWeights, texts: Sequence[LaidOut], watch: Stopwatch
) -> list[TextFeatures]:
    """Read questions over chunks that are read by themselves, see `read_texts`."""
    read = read_texts(reader, weights.spec, weights.shortlist, texts, watch)
    return [one.features(weights.spec) for one in read]


def read_texts(
    reader: IndependentReader,
    spec: FeatureSpec,
    shortlist: Shortlist | None,
    texts: Sequence[LaidOut],
    watch: Stopwatch,
) -> list[TextReading]:
    """Read questions over chunks that are read by themselves; chunks they share are read once.

    With a shortlist all are read late, and its chunks by the other passes, too.
    """
    readings = [TextReading.of(reader.model, text, whole=shortlist is not None) for text in texts]
    if shortlist is None:
        _read(reader, readings, spec.passes, watch, states={})
        return readings
    tokens = {ids: len(ids) for text in texts for ids in text.layout.source_ids}
    states: dict[tuple[int, ...], ChunkState] = {}
    few = sum(tokens.values()) <= MOST_KEPT
    _read(reader, readings, ("late",), watch, states=states, keep_states=few)
    late = FeatureSpec(shortlist.quantity, ("late",))
    chosen = []
    for text, one in zip(texts, readings, strict=True):
        scores = shortlist.score(matrix(late, one.whole))
        by_chunk = best_by_owner(scores, text.layout.owners, len(text.chunks))
        chosen.append(one.part(shortlist.chosen(by_chunk)))
    others = tuple(name for name in spec.passes if name != "late")
    _read(reader, chosen, others, watch, states=states)
    return [one.joined(part) for one, part in zip(readings, chosen, strict=True)]


@dataclass(slots=True, eq=False)
class TextReading:
    """What is read of a text, and the attention that was paid to it; NaN where none was read."""

    layout: PromptLayout
    is_whole: bool  # whether sources are read as wholes
    cut: SentenceParts | None  # None to read no units
    sources: Bools  # which of the text's sources the layout has
    parts: Bools  # which of the text's parts `cut` has
    whole: dict[Pass, SpanAttention]
    units: dict[Pass, SpanAttention]

    @classmethod
    def of(cls, model: ScoringModel, text: LaidOut, *, whole: bool) -> TextReading:
        """Return what is to be read of a text; `whole` says that its chunks are in any case."""
        cut, parts = None, np.zeros(0, dtype=bool)
        if text.units:
            cut = sentence_parts(model.prompts, text.layout, text.chunks, text.units)
            parts = np.ones(len(cut.parts), dtype=bool)
        sources = np.ones(len(text.layout.source_ids), dtype=bool)
        return cls(text.layout, whole or text.whole, cut, sources, parts, {}, {})

    def part(self, chunks: Bools) -> TextReading:
        """Return the same of some chunks only."""
        layout, cut = self.layout, self.cut
        sources = chunks[list(layout.owners)]
        kept = np.flatnonzero(sources).tolist()
        number = {source: index for index, source in enumerate(kept)}
        parts = self.parts
        if cut is not None:
            parts = np.array([part.source in number for part in cut.parts], dtype=bool)
            pieces, rest = (
                tuple(
                    replace(part, source=number[part.source])
                    for part in some
                    if part.source in number
                )
                for some in (cut.parts, cut.rest)
            )
            owners = np.array(cut.owners)[parts].tolist()
            cut = SentenceParts(pieces, tuple(owners), rest) if pieces else None
        layout = replace(
            layout,
            source_ids=tuple(layout.source_ids[source] for source in kept),
            owners=tuple(layout.owners[source] for source in kept),
        )
        return TextReading(layout, self.is_whole, cut, sources, parts, {}, {})

    def wanted(self, passes: Sequence[Pass]) -> list[LayoutPasses]:
        """Return what has to be read."""
        wanted = []
        if self.is_whole:
            wanted.append(LayoutPasses(self.layout, dict.fromkeys(passes)))
        if self.cut is not None:
            # Together, tokens of no sentence compete too; else a part is read by itself.
            beside = (*self.cut.parts, *self.cut.rest)
            parts: dict[Pass, tuple[SourcePart, ...]] = {
                name: beside if name == "together" else self.cut.parts for name in passes
            }
            wanted.append(LayoutPasses(self.layout, parts))
        return wanted

    def take(self, read: list[dict[Pass, SpanAttention]]) -> None:
        """Take what was read of the first of what was wanted."""
        if self.is_whole:
            self.whole |= read.pop(0)
        if self.cut is not None:
            parts = len(self.cut.parts)
            self.units |= {name: one.part(0, parts) for name, one in read.pop(0).items()}

    def joined(self, part: TextReading) -> TextReading:
        """Add what was read of a part, NaN elsewhere."""
        self.whole |= {name: one.among(part.sources) for name, one in part.whole.items()}
        if self.cut is not None:
            # Where no unit is in a shortlisted chunk nothing was read of any.
            read = part.units or {name: one.part(0, 0) for name, one in part.whole.items()}
            self.units |= {name: one.among(part.parts) for name, one in read.items()}
        return self

    def features(self, spec: FeatureSpec) -> TextFeatures:
        """Return the features of what was read."""
        none = np.zeros((0, 0))
        return TextFeatures(
            matrix(spec, self.whole) if self.is_whole else none,
            matrix(spec, self.units) if self.cut is not None else none,
            () if self.cut is None else self.cut.owners,
        )


def _read(
    reader: IndependentReader,
    readings: Sequence[TextReading],
    passes: Sequence[Pass],
    watch: Stopwatch,
    *,
    states: dict[tuple[int, ...], ChunkState],
    keep_states: bool = False,
) -> None:
    wanted = [one for reading in readings for one in reading.wanted(passes)]
    read = reader.read(wanted, states=states, keep_states=keep_states, watch=watch)
    for reading in readings:
        reading.take(read)
