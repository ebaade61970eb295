"""Ablations: how likely an answer still is when some of the chunks are left out.

A mask says which chunks of an item are kept. The same masks can be read in two ways, see
`answer_model`: `ablate_by_removal` reads what a generator would after pruning, `ablate_by_masking`
reads over chunk states computed once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from at2_rag.errors import InputError, ScoringError
from at2_rag.prompt.layout import PromptLayout
from at2_rag.reading.chunk_states import ChunkState
from at2_rag.text.chunks import Chunk
from at2_rag.training.answering.answer_model import AnswerModel
from at2_rag.training.answering.logit_probabilities import log_probability, logit_probability
from at2_rag.training.answering.shared_reading import read_shared

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Nats = npt.NDArray[np.float64]

MILD_KEEP = 0.5
"""Keep rate of every other mask: half of the chunks, as in the paper."""

PRUNED_KEEP = (0.1, 0.3)
"""Range of the others' keep rates: what pruning leaves."""

CONTRIBUTION_PENALTY = 1.0
"""Ridge penalty in masks: with few masks, chunks differ less than they seem to."""

_MOST_DRAWS = 200  # for each mask wanted


@dataclass(frozen=True, slots=True, eq=False)
class Ablations:
    """An answer's likelihood under masks.

    Attributes:
        masks: [M, S] bool, True for chunks that were kept.
        token_logits: [M, A] float32, logit-probability of each token of the answer.
        query_logits: [M, Q] float32, of each token of the question itself; may be None where they
            weren't read.
    """

    masks: Bools
    token_logits: Floats
    query_logits: Floats | None = None

    @property
    def logit_probabilities(self) -> npt.NDArray[np.float64]:
        """Logit-probability of the whole answer under each mask, [M]."""
        values: npt.NDArray[np.float64] = logit_probability(
            torch.from_numpy(self.token_logits)
        ).numpy()
        return values

    @property
    def mean_log_probabilities(self) -> npt.NDArray[np.float64]:
        """Mean log-probability of the answer's tokens under each mask, [M], in nats a token."""
        values: npt.NDArray[np.float64] = log_probability(
            torch.from_numpy(self.token_logits)
        ).numpy() / len(self.token_logits.T)
        return values


def draw_masks(
    chunks: int,
    count: int,
    rng: np.random.Generator,
    *,
    keep: float | None = None,
) -> Bools:
    """Return different random masks over an item's chunks.

    Args:
        chunks: Number of chunks S, at least 2: with one there is nothing to compare.
        count: Number of masks; there are fewer of them where chunks are so few (then all that
            are possible are returned) or the rate so extreme that no more different ones turn up.
        rng: Seeded generator.
        keep: Probability that a chunk is kept, in (0, 1); None for both regimes in turn,
            `MILD_KEEP` and a rate drawn from `PRUNED_KEEP`.

    Returns:
        [M, S] bool, M at most `count`; neither all kept nor all left out.

    Raises:
        InputError: If there are fewer than two chunks, no masks, or the rate is out of range.
    """
    if chunks < 2:
        raise InputError(f"an item has {chunks} chunks; ablations compare at least 2")
    if count < 1:
        raise InputError(f"count is {count}; draw at least 1 mask")
    if keep is not None and not 0 < keep < 1:
        raise InputError(f"keep is {keep}; pass a probability above 0 and below 1")
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
    if not masks:
        raise InputError(
            f"keep is {keep}, which keeps all of {chunks} chunks or none; pass another"
        )
    return np.stack(list(masks.values()))


def leave_one_out(chunks: int) -> Bools:
    """Return S + 1 masks: all chunks kept, then each of them left out, [S + 1, S]."""
    return np.concatenate([np.ones((1, chunks), dtype=bool), ~np.eye(chunks, dtype=bool)])


def drops(ablations: Ablations) -> Nats:
    """Return how much each chunk's absence costs the answer, [S], in nats a token.

    Args:
        ablations: Whose first S + 1 masks are `leave_one_out`'s.

    Raises:
        InputError: If they aren't.
    """
    chunks = ablations.masks.shape[1]
    if not np.array_equal(ablations.masks[: chunks + 1], leave_one_out(chunks)):
        raise InputError("the ablations don't begin with leave_one_out's masks; put them first")
    means = ablations.mean_log_probabilities
    difference: Nats = means[0] - means[1 : chunks + 1]
    return difference


def contributions(
    masks: Bools, token_logits: Floats, *, penalty: float = CONTRIBUTION_PENALTY
) -> Nats:
    """Return what each chunk adds to the log-likelihood of a text, [S], in nats.

    The coefficients of a ridge regression of log p(text | kept chunks) on the masks. For the
    question's text they say which chunk the question fits (D. Sachan et al., "Improving
    Passage Retrieval with Zero-Shot Question Generation", EMNLP 2022), for an answer's text which
    one it rests on.

    Args:
        masks: [M, S] bool, True for chunks that were kept.
        token_logits: [M, T] float32, logit-probability of each of the text's tokens.
        penalty: Ridge penalty, in masks; above 0.
    """
    log_p = log_probability(torch.from_numpy(token_logits)).numpy()
    kept = masks - masks.mean(0)
    gram = kept.T @ kept + penalty * np.eye(kept.shape[1])
    coefficients: Nats = np.linalg.solve(gram, kept.T @ (log_p - log_p.mean()))
    return coefficients


def ablate_by_masking(
    model: AnswerModel, query: str, chunks: Sequence[Chunk], answer: str, masks: Bools
) -> Ablations:
    """Read the answer over chunk states, with the states of left-out chunks hidden.

    Args:
        model: The model that answers.
        query: The question.
        chunks: The item's chunks.
        answer: The answer.
        masks: [M, S] bool over the chunks.

    Raises:
        InputError: If query or answer is blank, or the masks don't fit the chunks.
        PromptTooLongError: If question and answer don't fit the model's window.
        UnsupportedModelError: If the model's family can't read chunks independently.
        ScoringError: If the model's numbers overflowed.
    """
    _check_masks(masks, chunks)
    return read_states(model, model.prompts.independent(query, chunks), answer, masks)


def read_states(
    model: AnswerModel,
    prompt: PromptLayout,
    answer: str,
    masks: Bools,
    *,
    states: Mapping[tuple[int, ...], ChunkState] | None = None,
    question: bool = False,
) -> Ablations:
    """Do as `ablate_by_masking`, with a prompt that is laid out and states that may be known.

    Args:
        model: The model that answers.
        prompt: An independent prompt.
        answer: The answer.
        masks: [M, S] bool over the prompt's chunks.
        states: What `AnswerModel.encode` returned for the prompt's sources; None to encode them.
        question: Read the likelihood of the question's tokens too.
    """
    by_source = torch.from_numpy(masks[:, list(prompt.owners)])
    layout = model.prompts.answer(prompt, answer)
    read = model.read_masked(layout, by_source, states=states, question=question)
    return _ablations(masks, read, answer=len(layout.answer_ids))


def ablate_by_removal(
    model: AnswerModel,
    query: str,
    chunks: Sequence[Chunk],
    answer: str,
    masks: Bools,
    *,
    shared: bool = True,
    workers: int = 1,
) -> Ablations:
    """Read the answer in full after each choice of chunks, as a generator does after pruning.

    Args:
        model: The model that answers.
        query: The question.
        chunks: The item's chunks.
        answer: The answer.
        masks: [M, S] bool over the chunks.
        shared: Read what prompts begin with alike only once, see `read_shared`; the same up to
            rounding. False to read each prompt from its start.
        workers: Threads that share the masks of a shared reading, at least 1.

    Raises:
        InputError: As `ablate_by_masking`, or if there are no workers.
        PromptTooLongError: If a prompt with its answer exceeds the model's window.
        ScoringError: If the model's numbers overflowed.
    """
    _check_masks(masks, chunks)
    choices = [[chunk for chunk, kept in zip(chunks, mask, strict=True) if kept] for mask in masks]
    logits = read_choices(model, query, choices, answer, shared=shared, workers=workers)
    return Ablations(masks, logits)


def read_choices(
    model: AnswerModel,
    query: str,
    choices: Sequence[Sequence[Chunk]],
    answer: str,
    *,
    shared: bool = True,
    workers: int = 1,
) -> Floats:
    """Read the answer after each of several choices of chunks.

    Args:
        model: The model that answers.
        query: The question.
        choices: For each prompt its chunks.
        answer: The answer.
        shared: As in `ablate_by_removal`, like `workers`.
        workers: See there for the errors, too.

    Returns:
        The logit-probability of each token of the answer, [M, A].
    """
    prompts = [model.prompts.joint(query, chunks) for chunks in choices]
    layouts = [model.prompts.answer(prompt, answer) for prompt in prompts]
    read = read_shared(model, layouts, workers=workers) if shared else model.read(layouts)
    return _finite(torch.stack(read))


def _check_masks(masks: Bools, chunks: Sequence[Chunk]) -> None:
    if masks.dtype != np.bool_ or masks.ndim != 2 or masks.shape[1] != len(chunks):
        raise InputError(
            f"masks are {masks.dtype} of shape {masks.shape}; pass bool of shape "
            f"[M, {len(chunks)}] for {len(chunks)} chunks"
        )


def _ablations(masks: Bools, logits: Tensor, *, answer: int) -> Ablations:
    """Split the logit-probabilities [M, Q + A] into those of question and answer."""
    values = _finite(logits)
    question = values.shape[1] - answer
    return Ablations(masks, values[:, question:], values[:, :question] if question else None)


def _finite(logits: Tensor) -> Floats:
    values: Floats = logits.cpu().numpy()
    if not np.isfinite(values).all():
        raise ScoringError(
            "the model's log-probabilities hold NaN or infinity; load it in float32 or bfloat16"
        )
    return values
