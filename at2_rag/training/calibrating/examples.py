"""Which examples a calibration can be fitted to or judged by, with their twins."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from at2_rag.data.examples import Example, draw_per_source
from at2_rag.errors import InputError
from at2_rag.readout.prior import prior_terms
from at2_rag.text.chunks import Prior
from at2_rag.training.calibrating.sentences import gold_sentences
from at2_rag.training.collection.twins import TwinMaker
from at2_rag.training.fitting.cross_validation import FEWEST_CHUNKS


@dataclass(frozen=True, slots=True)
class CalibrationExamples:
    """Examples that a calibration can be fitted to or judged by.

    Attributes:
        chosen: Examples with enough chunks, some of them gold and some not.
        twins: For each of them that has twins, the answerable and the unanswerable one in turn.
        twins_of: For each twin the index of its example in `chosen`.
        unusable: How many examples lack chunks, gold ones or others.
    """

    chosen: tuple[Example, ...]
    twins: tuple[Example, ...] = ()
    twins_of: tuple[int, ...] = ()
    unusable: int = 0


def choose_examples(
    examples: Sequence[Example],
    *,
    limit: int | None = None,
    seed: int = 0,
    priors: Sequence[Prior] = (),
    sentences: bool = False,
) -> CalibrationExamples:
    """Return the examples that a calibration can be fitted to, with their twins.

    Args:
        examples: Labelled examples; the chunks of all of them may replace others in twins.
        limit: Most examples of a source; None for all.
        seed: Of the examples that the limit draws, and of the twins.
        priors: Kinds of prior terms to be weighed, which retrieval scores have to allow.
        sentences: Whether sentence weights are to be learned, which takes known evidence.

    Raises:
        InputError: If none can be used, or nothing can be learned of priors or sentences.
    """
    usable = _usable(examples)
    if not usable:
        raise InputError(
            f"none of the {len(examples)} examples can be calibrated with; pass examples with "
            f"{FEWEST_CHUNKS} chunks or more, gold and not gold"
        )
    chosen = usable if limit is None else draw_per_source(usable, limit, seed=seed)
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
    twins: list[Example] = []
    twins_of: list[int] = []
    for index, example in enumerate(chosen):
        pair = maker.twins(example, seed=seed)
        if pair is not None:
            twins += [pair.answerable, pair.unanswerable]
            twins_of += [index, index]
    unusable = len(examples) - len(usable)
    return CalibrationExamples(tuple(chosen), tuple(twins), tuple(twins_of), unusable)


def choose_judged(
    examples: Sequence[Example],
    *,
    sources: Collection[str],
    limit: int | None = None,
    seed: int = 0,
) -> CalibrationExamples:
    """Return which further examples a calibration can be judged by, without twins.

    Args:
        examples: Labelled examples; none for none.
        sources: The data sets fitted to, of which one is left out at a time.
        limit: As in `choose_examples`.
        seed: Of the examples that the limit draws.

    Raises:
        InputError: If none of the examples can be used, or there is no other source to fit to.
    """
    usable = [example for example in _usable(examples) if example.source in sources]
    if examples and (not usable or len(sources) < 2):
        raise InputError(
            f"none of the {len(examples)} examples can be judged: each needs {FEWEST_CHUNKS} "
            "chunks or more, gold and not gold, and a source that is fitted to beside another one; "
            f"fitted to are {', '.join(sorted(sources))}"
        )
    chosen = draw_per_source(usable, limit, seed=seed) if usable and limit is not None else usable
    return CalibrationExamples(tuple(chosen), unusable=len(examples) - len(usable))


def known_priors(
    example: Example, priors: Sequence[Prior]
) -> Mapping[Prior, npt.NDArray[np.float64]]:
    """Return the prior terms [S] of each kind that the example's chunks have.

    Raises:
        InputError: As `prior_terms`.
    """
    terms = {prior: prior_terms(example.chunks, prior) for prior in priors}
    return {prior: values for prior, values in terms.items() if values is not None}


def _usable(examples: Sequence[Example]) -> list[Example]:
    return [
        example
        for example in examples
        if len(example.chunks) >= FEWEST_CHUNKS and any(example.labels) and not all(example.labels)
    ]
