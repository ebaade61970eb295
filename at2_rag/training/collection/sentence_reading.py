"""What sentence weights are fitted to: scores of sentences, by the head weights of chunks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from at2_rag.data.examples import Example
from at2_rag.errors import PromptTooLongError
from at2_rag.pruning.scorer import Scorer
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.readout.sentence_weights import sentence_terms
from at2_rag.text.units import unit_places
from at2_rag.training.calibrating.fit import LabelledCall
from at2_rag.training.calibrating.sentences import SentenceCall, gold_sentences
from at2_rag.training.collection.features import content_hash
from at2_rag.training.collection.rows import Row, collect_rows

FORMAT = 2


def collect_sentences(
    model: ScoringModel,
    weights: HeadWeights,
    examples: Sequence[Example],
    folder: Path,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[int, Row]:
    """Return each example's scores of its sentences, by its index; see `trimming.unit_places`.

    Examples without any text, and those whose question exceeds the model's window, are left out.

    Args:
        model: The scoring model, cut to the layers of the head weights.
        weights: The head weights.
        examples: What to read.
        folder: Where shards are kept, in a folder of their own; what it holds isn't read again.
        workers: Threads that each read examples of their own, with one torch thread each.
        progress: Called with the number of examples done and in all.

    Raises:
        DataError: If the folder holds a collection with other settings.
        ScoringError: If the model's numbers overflowed.
        StorageError: If a shard can't be written.
    """
    scorer = Scorer(model, weights)
    units = [unit_places(example.chunks) for example in examples]
    settings = {
        "format": FORMAT,
        "signal": "sentences",
        "dtype": str(model.dtype).removeprefix("torch."),
        "weights": _hash(weights.weight.tobytes()),
        "bias": weights.bias,
        "quantity": weights.spec.quantity,
        "passes": list(weights.spec.passes),
        "fingerprint": weights.fingerprint,
        "template": weights.template_hash,
        "examples": content_hash(examples),
        "units": _hash(json.dumps(units).encode()),
    }
    own_folder = folder / f"sentences-{_hash(json.dumps(settings).encode())[:8]}"
    return collect_rows(
        lambda place: _scores(scorer, examples[place]),
        len(examples),
        own_folder,
        settings=settings,
        workers=workers,
        progress=progress,
    )


def sentence_calls(
    calls: Sequence[LabelledCall],
    examples: Sequence[Example],
    own: Mapping[int, Row],
    first: Sequence[npt.NDArray[np.float64]],
    after: Mapping[int, npt.NDArray[np.float64]],
    evidence: Sequence[float],
) -> list[SentenceCall]:
    """Return the sentences of calls of which it is known which hold evidence.

    A call whose question was asked again counts twice, with its scores before and after, so that
    weights and probabilities are of both.

    Args:
        calls: All calls; twins don't count.
        examples: What the calls' `example` are places among.
        own: What `collect_sentences` returned for them.
        first: Each call's first scores of chunks.
        after: Scores of chunks once the question was asked again, by a call's place.
        evidence: Each call's greatest evidence logit.
    """
    found = []
    for place, call in enumerate(calls):
        if call.answerable is None and call.example in own:
            example = examples[call.example]
            gold = gold_sentences(example)
            if gold is not None:
                owners = [index for index, _, _ in unit_places(example.chunks)]
                for scores in (first[place], *([after[place]] if place in after else [])):
                    terms = sentence_terms(first[place], scores, own[call.example], owners)
                    found.append(SentenceCall(call.source, call.fold, terms, evidence[place], gold))
    return found


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _scores(scorer: Scorer, example: Example) -> Row | None:
    """Return the scores of an example's sentences; None where there are none to read."""
    places = unit_places(example.chunks)
    if not places:
        return None
    try:
        scores = scorer.unit_scores(example.query, example.chunks, places, alone=False)
    except PromptTooLongError:
        return None
    return scores.astype(np.float32)
