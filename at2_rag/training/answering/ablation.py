"""Ablations: how likely an answer still is when some of the chunks are left out.

A mask says which chunks of an item are kept; the others' states, computed once, are hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import logsigmoid

from at2_rag.arrays import Bools, Floats
from at2_rag.errors import InputError, ScoringError
from at2_rag.prompt.layout import PromptLayout
from at2_rag.reading.chunk_states import ChunkState
from at2_rag.training.answering.answer_model import AnswerModel

TokenLogits = npt.NDArray[np.float32]

MILD_KEEP = 0.5  # keep rate of every other mask, as in the paper
PRUNED_KEEP = (0.1, 0.3)  # range of the others' keep rates: what pruning leaves

CONTRIBUTION_PENALTY = 1.0  # in masks: with few of them, chunks differ less than they seem to
_MOST_DRAWS = 200  # for each mask wanted
_LEAST_LOSS = 1e-20  # of an answer, in nats; what is less is as good as certain


@dataclass(frozen=True, slots=True, eq=False)
class Ablations:
    """An answer's likelihood under masks."""

    masks: Bools  # [M, S], True for chunks that were kept
    token_logits: TokenLogits  # [M, A], logit-probability of each token of the answer
    query_logits: TokenLogits | None = None  # [M, Q], of each token of the question, if read

    @property
    def logit_probabilities(self) -> Floats:
        """Logit-probability of the whole answer under each mask, [M]."""
        return logit_probability(self.token_logits)

    @property
    def mean_log_probabilities(self) -> Floats:
        """Mean log-probability of the answer's tokens under each mask, [M], in nats a token."""
        return log_probability(self.token_logits) / len(self.token_logits.T)


def draw_masks(
    chunks: int, count: int, rng: np.random.Generator, *, keep: float | None = None
) -> Bools:
    """Return up to `count` different random masks, [M, S] bool; none keeps all chunks or none.

    `keep` is the probability that a chunk is kept, in (0, 1); None for both regimes in turn,
    `MILD_KEEP` and a rate drawn from `PRUNED_KEEP`.
    """
    if chunks < 2:
        raise InputError(f"an item has {chunks} chunks; ablations compare at least 2")
    possible = 2**chunks - 2
    if possible <= count:
        numbers = np.arange(1, possible + 1)
        return (numbers[:, None] >> np.arange(chunks) & 1).astype(bool)
    masks: dict[bytes, Bools] = {}
    for _ in range(_MOST_DRAWS * count):
        if len(masks) == count:
            break
        rate = keep
        if rate is None:
            rate = MILD_KEEP if len(masks) % 2 == 0 else rng.uniform(*PRUNED_KEEP)
        mask = rng.random(chunks) < rate
        if mask.any() and not mask.all():
            masks.setdefault(mask.tobytes(), mask)
    return np.stack(list(masks.values()))


def leave_one_out(chunks: int) -> Bools:
    """Return S + 1 masks: all chunks kept, then each of them left out, [S + 1, S]."""
    return np.concatenate([np.ones((1, chunks), dtype=bool), ~np.eye(chunks, dtype=bool)])


def drops(ablations: Ablations) -> Floats:
    """Return how much each chunk's absence costs the answer, [S], in nats a token.

    The ablations' first S + 1 masks are `leave_one_out`'s.
    """
    chunks = ablations.masks.shape[1]
    means = ablations.mean_log_probabilities
    difference: Floats = means[0] - means[1 : chunks + 1]
    return difference


def contributions(
    masks: Bools, token_logits: TokenLogits, *, penalty: float = CONTRIBUTION_PENALTY
) -> Floats:
    """Return what each chunk adds to the log-likelihood of a text, [S], in nats.

    The coefficients of a ridge regression of log p(text | kept chunks) on the masks. For the
    question's text they say which chunk the question fits (D. Sachan et al., "Improving
    Passage Retrieval with Zero-Shot Question Generation", EMNLP 2022), for an answer's text which
    one it rests on. `token_logits` are the logit-probabilities of the text's tokens, [M, T].
    """
    log_p = log_probability(token_logits)
    kept = masks - masks.mean(0)
    gram = kept.T @ kept + penalty * np.eye(kept.shape[1])
    coefficients: Floats = np.linalg.solve(gram, kept.T @ (log_p - log_p.mean()))
    return coefficients


def ablate_by_masking(
    model: AnswerModel,
    prompt: PromptLayout,
    answer: str,
    masks: Bools,
    *,
    states: Mapping[tuple[int, ...], ChunkState] | None = None,
    question: bool = False,
) -> Ablations:
    """Read the answer over chunk states, with the states of left-out chunks hidden.

    `prompt` is an independent one, `states` what `AnswerModel.encode` returned for its sources;
    None to encode them. With `question` the likelihood of the question's tokens is read too.
    """
    by_source = torch.from_numpy(masks[:, list(prompt.owners)])
    layout = model.prompts.answer(prompt, answer)
    read = model.read_masked(layout, by_source, states=states, question=question)
    logits = finite(read.cpu().numpy())
    asking = logits.shape[1] - len(layout.answer_ids)  # tokens of the question
    return Ablations(masks, logits[:, asking:], logits[:, :asking] if question else None)


def log_probability(token_logits: TokenLogits) -> Floats:
    """Return an answer's log-probability from its tokens' logits, [..., A] -> [...] float64."""
    values: Floats = logsigmoid(torch.from_numpy(token_logits).double()).sum(-1).numpy()
    return values


def logit_probability(token_logits: TokenLogits) -> Floats:
    """Return a whole answer's logit-probability from its tokens', [..., A] -> [...] float64."""
    logits = torch.from_numpy(token_logits).double()
    log_p = logsigmoid(logits).sum(-1)
    # Next to 0, where log p is lost or vanishes, 1 - p is the sum of the tokens' exp(-logit).
    near = -(-logits).logsumexp(-1)
    sure = log_p > -_LEAST_LOSS
    values = torch.where(sure, near, log_p - (-torch.expm1(log_p.masked_fill(sure, -1))).log())
    return np.asarray(values)


def finite(logits: TokenLogits) -> TokenLogits:
    """Return logits as they are; raise ScoringError if one is NaN or infinite."""
    if not np.isfinite(logits).all():
        raise ScoringError(
            "the model's log-probabilities hold NaN or infinity; load it in float32 or bfloat16"
        )
    return logits
