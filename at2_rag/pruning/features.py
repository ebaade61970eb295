"""Reads laid-out questions for the features of their chunks and units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from at2_rag.arrays import Bools, Floats
from at2_rag.progress import Stopwatch
from at2_rag.prompt.layout import PromptLayout
from at2_rag.prompt.sentence_tokens import (
    SourcePart,
    prompt_spans,
    sentence_parts,
)
from at2_rag.reading.features import FeatureSpec, Pass
from at2_rag.reading.independent import IndependentReader, LayoutPasses, States
from at2_rag.reading.joint import read_joint
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.readout.scores import best_by_owner
from at2_rag.text.chunks import Chunk
from at2_rag.text.units import UnitSpan

MOST_KEPT = 8192
"""Most tokens of chunks whose states are kept until it is known which are shortlisted."""

Attention = Mapping[Pass, Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class LaidOut:
    """A question's prompt, and what is read in it."""

    layout: PromptLayout
    chunks: Sequence[Chunk]
    units: Sequence[UnitSpan] = ()  # read beside the chunks, none to read no units
    whole: bool = True  # whether chunks are read as wholes

    def part(self, chosen: Bools) -> LaidOut:
        """Return the same of the chosen chunks [S] only."""
        number = {index: new for new, index in enumerate(np.flatnonzero(chosen).tolist())}
        sources = [
            (ids, number[owner])
            for ids, owner in zip(self.layout.source_ids, self.layout.owners, strict=True)
            if owner in number
        ]
        source_ids, owners = (tuple(column) for column in zip(*sources, strict=True))
        return LaidOut(
            replace(self.layout, source_ids=source_ids, owners=owners),
            [self.chunks[index] for index in number],
            [(number[index], start, end) for index, start, end in self.units if index in number],
        )


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
    reader: IndependentReader,
    weights: HeadWeights,
    texts: Sequence[LaidOut],
    states: States,
    watch: Stopwatch,
) -> list[TextFeatures]:
    """Read questions over chunks that are read by themselves; chunks they share are read once.

    With a shortlist all are read late, and its chunks by the other passes, too. `states` takes
    those of chunks that are read for it, unless they are many.
    """
    spec, shortlist = weights.spec, weights.shortlist
    if shortlist is None:
        return _read(reader, texts, spec, watch, states={})
    tokens = {ids: len(ids) for text in texts for ids in text.layout.source_ids}
    few = sum(tokens.values()) <= MOST_KEPT
    first, others = (FeatureSpec(spec.quantity, part) for part in (("late",), spec.passes[1:]))
    texts = [replace(text, whole=True) for text in texts]
    late = _read(reader, texts, first, watch, states=states, keep_states=few)
    chosen = []
    for text, read in zip(texts, late, strict=True):
        of_sources = shortlist.late_scores(read.chunks)
        scores = best_by_owner(of_sources, text.layout.owners, len(text.chunks))
        chosen.append(shortlist.chosen(scores))
    parts = [text.part(some) for text, some in zip(texts, chosen, strict=True)]
    results = []
    for text, read, part, some in zip(
        texts, late, _read(reader, parts, others, watch, states=states), chosen, strict=True
    ):
        units = some[[text.units[owner][0] for owner in read.unit_owners]]
        results.append(
            TextFeatures(
                _beside(read.chunks, part.chunks, some[list(text.layout.owners)], spec),
                _beside(read.units, part.units, units, spec),
                read.unit_owners,
            )
        )
    return results


def _read(
    reader: IndependentReader,
    texts: Sequence[LaidOut],
    spec: FeatureSpec,
    watch: Stopwatch,
    *,
    states: States,
    keep_states: bool = False,
) -> list[TextFeatures]:
    """Read texts by all passes of the features."""
    cuts = [
        sentence_parts(reader.model.prompts, text.layout, text.chunks, text.units)
        if text.units
        else None
        for text in texts
    ]
    wanted = []
    for text, cut in zip(texts, cuts, strict=True):
        if text.whole:
            wanted.append(LayoutPasses(text.layout, dict.fromkeys(spec.passes)))
        if cut is not None:
            # Together, tokens of no sentence compete too; else a part is read by itself.
            beside = (*cut.parts, *cut.rest)
            parts: dict[Pass, tuple[SourcePart, ...]] = {
                name: beside if name == "together" else cut.parts for name in spec.passes
            }
            wanted.append(LayoutPasses(text.layout, parts))
    read = iter(reader.read(wanted, states=states, keep_states=keep_states, watch=watch))
    results = []
    for text, cut in zip(texts, cuts, strict=True):
        chunks = units = np.zeros((0, 0))
        if text.whole:
            chunks = matrix(spec, next(read))
        if cut is not None:
            count = len(cut.parts)
            units = matrix(spec, {name: one[..., :count] for name, one in next(read).items()})
        results.append(TextFeatures(chunks, units, () if cut is None else cut.owners))
    return results


def _beside(late: Floats, others: Floats, rows: Bools, spec: FeatureSpec) -> Floats:
    """Return late features with those of the other passes, which have only some of the rows."""
    every = np.full((len(late), late.shape[1] * (len(spec.passes) - 1)), np.nan)
    if rows.any():
        every[rows] = others
    return np.hstack([late, every])
