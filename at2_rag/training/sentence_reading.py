"""What sentence weights are fitted to: scores of sentences, collected shard by shard."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from at2_rag.errors import PromptTooLongError
from at2_rag.head_weights import HeadWeights
from at2_rag.scoring_model import ScoringModel
from at2_rag.sentence_weights import sentence_terms
from at2_rag.source_scorer import SourceScorer
from at2_rag.stopwatch import Stopwatch
from at2_rag.training.calibration_fit import LabelledCall
from at2_rag.training.collection import content_hash
from at2_rag.training.examples import Example
from at2_rag.training.sentence_fit import SentenceCall, gold_sentences
from at2_rag.training.store import ShardArrays, ShardStore
from at2_rag.trimming import unit_places

FORMAT = 1

SHARD_EXAMPLES = 20
"""Examples of a shard."""


@dataclass(frozen=True, slots=True, eq=False)
class ShardSentences(ShardArrays):
    """Scores of the sentences of a shard's examples.

    Attributes:
        examples: [I] int64, index of each example; those that can't be read are missing.
        counts: [I] int64, sentences of each; their scores follow one another below.
        scores: [sum of counts] float32.
    """

    examples: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]

    def lengths(self) -> dict[str, int]:
        """Return how long arrays have to be by what others say."""
        return {"counts": len(self.examples), "scores": int(self.counts.sum())}

    def is_of(self, planned: Sequence[int]) -> bool:
        """Tell whether it may come from reading these examples, given by index."""
        return set(self.examples.tolist()) <= set(planned)

    def by_example(self) -> dict[int, npt.NDArray[np.float32]]:
        """Return each example's scores, by its index."""
        parts = np.split(self.scores, np.cumsum(self.counts)[:-1]) if len(self.counts) else []
        return dict(zip(self.examples.tolist(), parts, strict=True))


def collect_sentences(
    model: ScoringModel,
    weights: HeadWeights,
    examples: Sequence[Example],
    folder: Path,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[int, npt.NDArray[np.float32]]:
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
    scorer = SourceScorer(model, weights)
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
    store = ShardStore(own_folder, ShardSentences, settings=settings)
    places = range(len(examples))
    found: dict[int, npt.NDArray[np.float32]] = {}
    progress(0, len(examples))
    with ThreadPoolExecutor(workers) as executor:
        for index, start in enumerate(places[::SHARD_EXAMPLES]):
            shard = places[start : start + SHARD_EXAMPLES]
            arrays = store.read(index, shard)
            if arrays is None:
                one_by_one = executor.map(lambda place: _scores(scorer, examples[place]), shard)
                read = [(n, own) for n, own in zip(shard, one_by_one, strict=True) if len(own)]
                arrays = ShardSentences(
                    examples=np.array([place for place, _ in read], dtype=np.int64),
                    counts=np.array([len(own) for _, own in read], dtype=np.int64),
                    scores=np.concatenate([np.zeros(0, np.float32), *(own for _, own in read)]),
                )
                store.write(index, arrays)
            found |= arrays.by_example()
            progress(shard[-1] + 1, len(examples))
    return found


def sentence_calls(
    calls: Sequence[LabelledCall],
    examples: Sequence[Example],
    own: Mapping[int, npt.NDArray[np.float32]],
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
        if call.supported is None and call.example in own:
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


def _scores(scorer: SourceScorer, example: Example) -> npt.NDArray[np.float32]:
    """Return the scores of an example's sentences; none where it can't be read."""
    places, watch = unit_places(example.chunks), Stopwatch()
    try:
        layout = scorer.lay_out(example.query, example.chunks, watch)
    except PromptTooLongError:
        return np.zeros(0, np.float32)
    return scorer.read_units(layout, example.chunks, places, watch)[1].astype(np.float32)
