"""Masks, and what they do to an answer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from at2_rag.errors import InputError, ScoringError
from at2_rag.text.chunks import Chunk
from at2_rag.training.answering.ablation import (
    PRUNED_KEEP,
    Ablations,
    ablate_by_masking,
    contributions,
    draw_masks,
    drops,
    leave_one_out,
)
from at2_rag.training.answering.answer_model import AnswerModel
from at2_rag_evals.fidelity.joint_answers import JointAnswerModel
from tests.tiny_models import tiny_model, tiny_tokenizer

CHUNKS = (
    Chunk("Jane Austen wrote Emma.", title="Emma"),
    Chunk("The river flows to the sea."),
    Chunk(" ".join(f"{number} rivers" for number in range(300))),  # read in windows
)
QUERY, ANSWER = "who wrote Emma?", "Jane Austen"


def test_masks_are_different_and_of_both_regimes() -> None:
    masks = draw_masks(40, 400, np.random.default_rng(0))
    assert masks.shape == (400, 40)
    assert len(np.unique(masks, axis=0)) == 400
    rates = masks.mean(1)
    assert rates[0::2].mean() == pytest.approx(0.5, abs=0.02)
    assert rates[1::2].mean() == pytest.approx(sum(PRUNED_KEEP) / 2, abs=0.02)
    fixed = draw_masks(40, 400, np.random.default_rng(0), keep=0.2)
    assert fixed.mean() == pytest.approx(0.2, abs=0.02)
    assert np.array_equal(fixed, draw_masks(40, 400, np.random.default_rng(0), keep=0.2))
    for drawn in (masks, fixed, draw_masks(6, 32, np.random.default_rng(6))):
        assert drawn.any(1).all() and not drawn.all(1).any()
    with pytest.raises(InputError, match="has 1 chunks; ablations compare at least 2"):
        draw_masks(1, 4, np.random.default_rng(0))


@pytest.mark.parametrize("chunks", [2, 3, 5])
def test_of_few_chunks_every_mask_is_there_once(chunks: int) -> None:
    masks = draw_masks(chunks, 32, np.random.default_rng(0))
    assert len(masks) == len(np.unique(masks, axis=0)) == 2**chunks - 2
    assert masks.any(1).all() and not masks.all(1).any()


def test_leaving_one_out_starts_with_all() -> None:
    expected = [[1, 1, 1], [0, 1, 1], [1, 0, 1], [1, 1, 0]]
    assert leave_one_out(3).astype(int).tolist() == expected


def test_drops_by_hand() -> None:
    probabilities = np.array([[0.5, 0.8], [0.5, 0.4], [0.25, 0.8], [0.1, 0.1]])
    token_logits = np.log(probabilities / (1 - probabilities)).astype(np.float32)
    masks = np.concatenate([leave_one_out(2), np.array([[False, True]])])
    ablations = Ablations(masks, token_logits)
    means = [math.log(0.5 * 0.8) / 2, math.log(0.5 * 0.4) / 2, math.log(0.25 * 0.8) / 2]
    assert drops(ablations) == pytest.approx([means[0] - means[1], means[0] - means[2]], abs=1e-6)
    assert ablations.logit_probabilities[0] == pytest.approx(math.log(0.4 / 0.6), abs=1e-6)


def test_contributions_are_a_ridge_regression_with_an_intercept() -> None:
    rng = np.random.default_rng(0)
    masks = np.concatenate([leave_one_out(5), draw_masks(5, 12, rng)])
    logits = rng.normal(size=(len(masks), 3)).astype(np.float32)
    log_p = -np.log1p(np.exp(-logits.astype(float))).sum(1)
    # Least squares with a row more for each penalised coefficient.
    rows = np.block([[masks, np.ones((len(masks), 1))], [2**0.5 * np.eye(5), np.zeros((5, 1))]])
    expected = np.linalg.lstsq(rows, np.append(log_p, np.zeros(5)))[0][:5]
    assert contributions(masks, logits, penalty=2.0) == pytest.approx(expected, abs=1e-6)


def test_masking_hides_all_windows_of_a_chunk() -> None:
    """With one short chunk kept, order and positions are those of a joint prompt."""
    model = JointAnswerModel(tiny_model(), tiny_tokenizer())
    short = CHUNKS[:2]
    masks = np.array([[True, False]])
    twice = model.prompts.independent(QUERY, (short[0], short[0]))
    masked = ablate_by_masking(model, twice, ANSWER, masks)
    alone = model.prompts.answer(model.prompts.joint(QUERY, short[:1]), ANSWER)
    assert masked.token_logits[0] == pytest.approx(model.read([alone])[0].numpy(), abs=1e-4)

    prompt = model.prompts.independent(QUERY, CHUNKS)
    assert len(prompt.owners) > 3
    without = ablate_by_masking(model, prompt, ANSWER, np.array([[True, True, False]]))
    layout = model.prompts.answer(prompt, ANSWER)
    by_source = torch.tensor([[owner != 2 for owner in prompt.owners]])
    expected = model.read_masked(layout, by_source).numpy()
    assert np.array_equal(without.token_logits, expected)


def test_numbers_that_overflow_are_an_error() -> None:
    broken = tiny_model()
    with torch.no_grad():
        broken.lm_head.weight.fill_(torch.nan)
    model, masks = AnswerModel(broken, tiny_tokenizer()), np.ones((1, 2), dtype=bool)
    prompt = model.prompts.independent(QUERY, CHUNKS[:2])
    with pytest.raises(ScoringError, match="NaN or infinity"):
        ablate_by_masking(model, prompt, ANSWER, masks)
