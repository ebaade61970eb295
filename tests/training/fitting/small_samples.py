"""Samples with planted features, labels and effects, ready to fit."""

from __future__ import annotations

import numpy as np

from at2_rag.training.answering.ablation import draw_masks, leave_one_out
from at2_rag.training.collection.collection import Row
from at2_rag.training.collection.features import Features
from at2_rag.training.fitting.samples import Effects, Samples
from at2_rag.training.fitting.soft_labels import soft_labels

TELLING = (0, 1, 2)
"""The one feature (pass, layer, head) that says how relevant a chunk is; of log-mass."""


def planted_samples(
    count: int = 60, *, seed: int = 0, labels: bool = True, fewest: int = 4
) -> Samples:
    """Make ablated samples of two sources: each has one relevant chunk, and little noise.

    A teacher ranks the relevant chunk first, but scores no chunk of every fifth sample.
    """
    rng = np.random.default_rng(seed)
    counts = rng.integers(fewest, 9, count)
    features = rng.normal(size=(counts.sum(), 2, 2, 3)).astype(np.float16)
    gold = np.zeros(counts.sum(), dtype=bool)
    ends = np.cumsum(counts)
    rows: list[Row] = []
    scores = np.random.default_rng(seed).normal(size=counts.sum())
    for number, (end, chunks) in enumerate(zip(ends.tolist(), counts.tolist(), strict=True)):
        best = int(rng.integers(chunks))
        scores[end - chunks + best] += 6
        if number % 5 == 4:
            scores[end - chunks : end] = np.nan
        gold[end - chunks + best] = True
        features[end - chunks + best, *TELLING] += 4
        nats = 0.002 * rng.random(chunks)
        nats[best] = 2.0
        nothing = np.zeros((1, chunks), dtype=bool)
        masks = np.concatenate([leave_one_out(chunks), nothing, draw_masks(chunks, 10, rng)])
        log_p = masks @ nats - 3 + 0.002 * rng.normal(size=len(masks))
        logits = (log_p - np.log1p(-np.exp(log_p))).astype(np.float32)[:, None]
        rows.append(
            {
                "masks": masks,
                "token_logits": np.repeat(logits, 3, axis=1),
                "query_logits": np.repeat(logits, 2, axis=1),
            }
        )
    sources = np.array(["even" if number % 2 == 0 else "odd" for number in range(count)])
    return Samples(
        Features(np.arange(count), counts, features, ("together", "apart")),
        tuple(sources.tolist()),
        tuple(range(count)),
        {},
        gold if labels else None,
        effects=Effects.of(rows, contributions_to="question"),
        teacher=soft_labels(scores, counts, sources),
    )


def labelled_samples(counts: list[int], sources: list[str], *, shift: float = 0.5) -> Samples:
    """Make samples of so many chunks; the first is gold, and larger in its features by `shift`."""
    labels = np.concatenate([[True] + [False] * (size - 1) for size in counts])
    noise = np.random.default_rng(5).normal(size=(len(labels), 2, 2, 2))
    values = (noise + shift * labels[:, None, None, None]).astype(np.float16)
    features = Features(np.arange(len(counts)), np.array(counts), values, ("together", "apart"))
    return Samples(features, tuple(sources), tuple(range(len(counts))), {}, labels)
