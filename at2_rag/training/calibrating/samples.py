"""What a calibration is fitted to, collected with the model: features, drops and twins."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from at2_rag.data.examples import Example, draw_per_source, gold_groups
from at2_rag.errors import InputError
from at2_rag.reading.features import FeatureSpec, Pass
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.readout.calibration import Outcome
from at2_rag.readout.multi_hop import multi_hop_question
from at2_rag.readout.prior import prior_terms
from at2_rag.text.chunks import Prior
from at2_rag.training.answering.answer_model import AnswerModel
from at2_rag.training.calibrating.multi_hop import FollowedCall
from at2_rag.training.calibrating.probabilities import MATTERS, LabelledCall
from at2_rag.training.collection.features import collect, content_hash
from at2_rag.training.collection.removal_drops import collect_drops
from at2_rag.training.collection.twins import TwinMaker
from at2_rag.training.fitting.validation import FEWEST_CHUNKS, assign_folds, feature_matrix

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class CalibrationExamples:
    """Examples that a calibration can be fitted to.

    Attributes:
        chosen: Examples with enough chunks, some of them gold and some not.
        twins: For each of them that has twins, the answerable and the unanswerable one in turn.
        twins_of: For each twin the place of its example in `chosen`.
        unusable: Examples without enough chunks, or without gold ones or others.
    """

    chosen: tuple[Example, ...]
    twins: tuple[Example, ...]
    twins_of: tuple[int, ...]
    unusable: int


def choose_examples(
    examples: Sequence[Example], *, limit: int | None, seed: int
) -> CalibrationExamples:
    """Return what of the examples a calibration can be fitted to, with their twins.

    Args:
        examples: Labelled examples; the chunks of all of them may stand for others in twins.
        limit: Most examples of a source; None for all.
        seed: Of the examples that the limit draws, and of the twins.

    Raises:
        InputError: If none can be used.
    """
    chosen = _usable(examples)
    if not chosen:
        raise InputError(
            f"none of the {len(examples)} examples can be calibrated with; pass examples with "
            f"{FEWEST_CHUNKS} chunks or more, gold and not gold"
        )
    unusable = len(examples) - len(chosen)
    if limit is not None:
        chosen = draw_per_source(chosen, limit, seed=seed)
    maker = TwinMaker(examples)
    twins: list[Example] = []
    twins_of: list[int] = []
    for place, example in enumerate(chosen):
        pair = maker.twins(example, seed=seed)
        if pair is not None:
            twins += [pair.answerable, pair.unanswerable]
            twins_of += [place, place]
    return CalibrationExamples(tuple(chosen), tuple(twins), tuple(twins_of), unusable)


def choose_judged(
    examples: Sequence[Example], *, sources: Collection[str], limit: int | None, seed: int
) -> CalibrationExamples:
    """Return what of further examples a calibration can be judged by, without twins.

    Args:
        examples: Labelled examples, none for none.
        sources: The data sets of what is fitted to, one of which is left out at a time.
        limit: As in `choose_examples`.
        seed: Of the examples that the limit draws.

    Raises:
        InputError: If none of the examples can be used, or nothing can be left out for them.
    """
    chosen = [own for own in _usable(examples) if own.source in sources]
    unusable = len(examples) - len(chosen)
    if examples and (not chosen or len(sources) < 2):
        raise InputError(
            f"none of the {len(examples)} examples can be judged: each needs {FEWEST_CHUNKS} "
            "chunks or more, gold and not gold, and a source that is fitted to beside another one; "
            f"fitted to are {', '.join(sorted(sources))}"
        )
    if chosen and limit is not None:
        chosen = draw_per_source(chosen, limit, seed=seed)
    return CalibrationExamples(tuple(chosen), (), (), unusable)


def _usable(examples: Sequence[Example]) -> list[Example]:
    return [
        own
        for own in examples
        if len(own.chunks) >= FEWEST_CHUNKS and any(own.labels) and not all(own.labels)
    ]


def check_priors(examples: Sequence[Example], priors: Sequence[Prior]) -> None:
    """Check that retrieval scores are what is to be learned of them.

    Raises:
        InputError: If those of an example aren't; the message names it.
    """
    for example in examples:
        try:
            _priors(example, priors)
        except InputError as error:
            raise InputError(f"example {example.id!r} of {example.source}: {error}") from error


def collect_calls(
    model: ScoringModel,
    answer_model: AnswerModel,
    examples: CalibrationExamples,
    folder: Path,
    *,
    spec: FeatureSpec,
    outcome: Outcome = "evidence",
    priors: Sequence[Prior] = (),
    fingerprint: str,
    folds: int,
    seed: int,
    workers: int = 1,
    progress: Progress = lambda stage, done, total: None,
) -> list[LabelledCall]:
    """Read what `folder` doesn't hold yet, and return the examples and their twins as calls.

    Examples that share a gold passage are in one fold, and twins in that of their example.

    Args:
        model: The scoring model, cut to the layers of the head weights.
        answer_model: The same model in full.
        examples: What to read.
        folder: Where what was read is kept.
        spec: The head weights' features.
        outcome: By what it is known that chunks matter; only "removal" reads answers.
        priors: The kinds of prior terms to have with the calls.
        fingerprint: The model's.
        folds: Number of folds.
        seed: Of the folds.
        workers: Threads that each read examples of their own, with one torch thread each.
        progress: Called with the stage's name, the steps done and in all.

    Raises:
        InputError: As `collect`, `collect_drops` and `prior_terms`.
        DataError: If the folder holds something else.
    """

    def read(name: str, own: Sequence[Example]) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        collected = collect(
            model,
            own,
            folder / name,
            reading=spec.reading,
            fingerprint=fingerprint,
            seed=seed,
            padded=False,
            workers=workers,
            progress=lambda done, total: progress(f"reading {name}", done, total),
        )
        ends = np.cumsum(collected.counts)[:-1]
        matrix = feature_matrix(collected, spec, model.depth)
        yield from zip(collected.examples.tolist(), np.split(matrix, ends), strict=True)

    chosen, twins = examples.chosen, examples.twins
    fold_of = assign_folds(gold_groups(chosen), folds, np.random.default_rng(seed))
    features = dict(read("examples", chosen))
    of_twins = dict(read("twins", twins)) if twins else {}
    matters = {place: np.array(own.labels) for place, own in enumerate(chosen)}
    if outcome == "removal":
        drops = collect_drops(
            answer_model,
            chosen,
            folder / "drops",
            fingerprint=fingerprint,
            workers=workers,
            progress=lambda done, total: progress("leaving chunks out", done, total),
        )
        matters = {place: own > MATTERS for place, own in drops.items()}
    calls = [
        LabelledCall(
            chosen[place].source,
            int(fold_of[place]),
            own,
            np.array(chosen[place].labels),
            matters=matters.get(place),
            example=place,
            words=_words(chosen[place]),
            priors=_priors(chosen[place], priors),
        )
        for place, own in features.items()
    ]
    calls += [
        LabelledCall(
            twins[place].source,
            int(fold_of[examples.twins_of[place]]),
            own,
            np.array(twins[place].labels),
            answerable=not twins[place].unanswerable,
            example=examples.twins_of[place],
            words=_words(twins[place]),
        )
        for place, own in of_twins.items()
    ]
    return calls


def collect_multi_hops(
    model: ScoringModel,
    examples: CalibrationExamples,
    calls: Sequence[LabelledCall],
    scores: Sequence[npt.NDArray[np.float64]],
    evidence: Sequence[float],
    folder: Path,
    spec: FeatureSpec,
    *,
    fingerprint: str,
    seed: int,
    workers: int = 1,
    progress: Progress = lambda stage, done, total: None,
) -> list[FollowedCall]:
    """Ask the examples' questions again beside their best chunks, and return what was seen.

    Args:
        model: As in `collect_calls`.
        examples: As there.
        calls: What it returned, the examples first.
        scores: Each call's scores.
        evidence: Each call's greatest evidence logit, by a readout fitted without its fold.
        folder: Where what was read is kept.
        spec: The head weights' features.
        fingerprint: The model's.
        seed: As in `collect`.
        workers: As in `collect_calls`.
        progress: As there.

    Raises:
        InputError: As `collect`.
        DataError: As `collect_calls`.
    """
    own = [place for place, call in enumerate(calls) if call.answerable is None]
    asked = []
    for place in own:
        example, best = examples.chosen[calls[place].example], int(np.argmax(scores[place]))
        others = [index for index in range(len(example.chunks)) if index != best]
        asked.append(
            replace(
                example,
                query=multi_hop_question(example.query, example.chunks[best]),
                chunks=tuple(example.chunks[index] for index in others),
                labels=tuple(example.labels[index] for index in others),
                gold_sentences=(),
            )
        )
    passes: tuple[Pass, ...] = ("together",)
    collected = collect(
        model,
        asked,
        folder / f"multi_hop-{content_hash(asked)[:8]}",  # the best chunks are the weights'
        reading=spec.reading,
        fingerprint=fingerprint,
        seed=seed,
        padded=False,
        passes=passes,
        workers=workers,
        progress=lambda done, total: progress("asking again", done, total),
    )
    matrix = feature_matrix(collected, FeatureSpec(spec.quantity, passes), model.depth)
    parts = np.split(matrix, np.cumsum(collected.counts)[:-1])
    return [
        FollowedCall(
            calls[own[index]].source,
            calls[own[index]].fold,
            scores[own[index]],
            calls[own[index]].gold,
            evidence[own[index]],
            features,
            place=own[index],
        )
        for index, features in zip(collected.examples.tolist(), parts, strict=True)
    ]


def _priors(example: Example, priors: Sequence[Prior]) -> dict[Prior, npt.NDArray[np.float64]]:
    terms = {prior: prior_terms(example.chunks, prior) for prior in priors}
    return {prior: own for prior, own in terms.items() if own is not None}


def _words(example: Example) -> npt.NDArray[np.int64]:
    return np.array([len(chunk.rendered.split()) for chunk in example.chunks], dtype=np.int64)
