"""Which examples a calibration can be fitted to or judged by, with their twins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from at2_rag.arrays import Floats
from at2_rag.data.examples import Example, draw_per_source
from at2_rag.errors import InputError
from at2_rag.readout.prior import prior_terms
from at2_rag.text.chunks import Prior
from at2_rag.training.calibrating.sentences import gold_sentences
from at2_rag.training.collection.twins import TwinMaker
from at2_rag.training.fitting.cross_validation import FEWEST_CHUNKS


@dataclass(frozen=True, slots=True)
class CalibrationExamples:
    """Examples that a calibration can be fitted to or judged by."""

    chosen: tuple[Example, ...]  # with enough chunks, some of them gold and some not
    twins: tuple[tuple[int, Example], ...] = ()  # with the index of its example in `chosen`
    unusable: int = 0  # examples that lack chunks, gold ones or others


def choose_examples(
    examples: Sequence[Example],
    *,
    limit: int | None = None,
    seed: int = 0,
    priors: Sequence[Prior] = (),
    sentences: bool = False,
) -> CalibrationExamples:
    """Return the examples that a calibration can be fitted to, at most `limit` of a source.

    Their twins come with them, in which chunks of any of `examples` may replace others.
    """
    chosen, unusable = _usable(examples, limit, seed)
    if not chosen:
        raise InputError(
            f"none of the {len(examples)} examples can be calibrated with; pass examples with "
            f"{FEWEST_CHUNKS} chunks or more, gold and not gold"
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
    maker = TwinMaker(examples)
    twins: list[tuple[int, Example]] = []
    for index, example in enumerate(chosen):
        if pair := maker.twins(example, seed=seed):
            twins += [(index, pair.answerable), (index, pair.unanswerable)]
    return CalibrationExamples(chosen, tuple(twins), unusable)


def known_priors(example: Example, priors: Sequence[Prior]) -> dict[Prior, Floats]:
    """Return the prior terms [S] of each kind that the example's chunks have."""
    terms = {prior: prior_terms(example.chunks, prior) for prior in priors}
    return {prior: values for prior, values in terms.items() if values is not None}


def _usable(
    examples: Sequence[Example], limit: int | None, seed: int
) -> tuple[tuple[Example, ...], int]:
    """Return the usable examples, at most `limit` of a source, and how many aren't usable."""
    usable = [
        example
        for example in examples
        if len(example.chunks) >= FEWEST_CHUNKS and any(example.labels) and not all(example.labels)
    ]
    unusable = len(examples) - len(usable)
    if usable and limit is not None:
        usable = draw_per_source(usable, limit, seed=seed)
    return tuple(usable), unusable
