"""Which examples a calibration can be fitted to or judged by, with the lists they are read with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from at2_rag.arrays import Floats
from at2_rag.data.examples import Example, draw_per_source, gold_groups
from at2_rag.errors import InputError
from at2_rag.readout.prior import prior_terms
from at2_rag.text.chunks import Prior
from at2_rag.training.calibrating.held_out import is_usable
from at2_rag.training.calibrating.sentences import gold_sentences
from at2_rag.training.collection.lists import ChunkList, chunk_lists
from at2_rag.training.fitting.cross_validation import FEWEST_CHUNKS

VARIED = 2  # one question in so many of a source is read with all kinds of lists


@dataclass(frozen=True, slots=True)
class CalibrationExamples:
    """Examples that a calibration can be fitted to or judged by."""

    chosen: tuple[Example, ...]  # with enough chunks, some of them gold and some not
    lists: tuple[ChunkList, ...]  # of these; first each one's as retrieved, in order
    unusable: int  # examples that lack chunks, gold ones or others


def choose_examples(
    examples: Sequence[Example],
    *,
    limit: int | None = None,
    seed: int = 0,
    priors: Sequence[Prior] = (),
    sentences: bool = False,
) -> CalibrationExamples:
    """Return the examples that a calibration can be fitted to, at most `limit` of a source."""
    usable = [example for example in examples if is_usable(example)]
    chosen = usable if limit is None else draw_per_source(usable, limit, seed=seed)
    if not chosen:
        raise InputError(
            f"none of the {len(examples)} examples can be calibrated with; pass examples with "
            f"{FEWEST_CHUNKS} chunks or more, gold and not gold"
        )
    if len(set(gold_groups(chosen))) < 2:
        raise InputError(
            f"all {len(chosen)} examples that can be calibrated with share gold passages, so that "
            "no figure could leave one of them out; pass examples with different gold passages"
        )
    for example in chosen:
        try:
            known_priors(example, priors)
        except InputError as error:
            raise InputError(f"example {example.id!r} of {example.source}: {error}") from error
    if sentences and all(gold_sentences(example) is None for example in chosen):
        raise InputError(
            "sentence weights can't be learned: in no example is it known which sentences hold "
            "evidence; pass examples with gold_sents, or whose gold chunks hold an answer"
        )
    count = defaultdict[str, int](int)
    varied = []
    for index, example in enumerate(chosen):
        if count[example.source] % VARIED == 0:
            varied.append(index)
        count[example.source] += 1
    lists = tuple(chunk_lists(chosen, varied, seed=seed))
    return CalibrationExamples(tuple(chosen), lists, len(examples) - len(usable))


def known_priors(example: Example, priors: Sequence[Prior]) -> dict[Prior, Floats]:
    """Return the prior terms [S] of each kind that the example's chunks have."""
    terms = {prior: prior_terms(example.chunks, prior) for prior in priors}
    return {prior: values for prior, values in terms.items() if values is not None}
