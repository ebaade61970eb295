"""Text that the scoring model's tokenizer doesn't know."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from at2_rag.prompt.layout import INSTRUCTION, PromptBuilder
from at2_rag.pruning.legibility import READ, UNREAD, Legibility, Unread, as_if_unread
from at2_rag.readout.scores import ChunkScores
from at2_rag.text.chunks import Chunk
from tests.tiny_models import tiny_model
from tests.tiny_weights import calibrated_weights, tiny_pruner

ENGLISH = "answer the question using only the passages below"
ARABIC = "بني البرج في مدينة كبيرة"


def english_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer that knows a few English words by heart."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([INSTRUCTION, ENGLISH, ENGLISH], trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )


TOKENIZER = english_tokenizer()
PROMPTS = PromptBuilder(TOKENIZER, max_tokens=4096)


def unread(query: str, *texts: str) -> Unread:
    chunks = [Chunk(text) for text in texts]
    return Legibility(PROMPTS).unread(PROMPTS.independent(query, chunks), query, chunks)


def test_known_words_are_read_and_another_script_is_not() -> None:
    assert unread("the question", ENGLISH, f"{ENGLISH} 1984, 20 % (a, b).") == (0, 0)
    assert unread(ARABIC, ARABIC) == (1, 1)
    assert unread("the question", ARABIC) == (0, 1)
    assert unread(ARABIC, ENGLISH) == (1, 0)


def test_letters_decide_how_much_of_the_chunks_is_read() -> None:
    letters = sum(map(str.isalpha, ENGLISH)), sum(map(str.isalpha, ARABIC))
    expected = letters[1] / sum(letters)
    assert unread("the question", ENGLISH, ARABIC).chunks == pytest.approx(expected)
    assert unread("the question", "1984", "...", "").chunks == 0


def test_between_the_limits_the_share_grows_with_the_tokens_a_letter() -> None:
    english = len(TOKENIZER(INSTRUCTION)["input_ids"]) - 1  # without the mark at its end
    rate = english / sum(map(str.isalpha, INSTRUCTION))
    shares = []
    for words in range(9):  # a letter that was never seen beside known ones has two tokens
        query = "question" + "ж" * words
        multiple = (len(TOKENIZER(query)["input_ids"]) / len(query)) / rate
        shares.append(unread(query).question)
        assert shares[-1] == pytest.approx(np.clip((multiple - READ) / (UNREAD - READ), 0, 1))
    assert shares == sorted(shares) and shares[0] == 0 and any(0 < share < 1 for share in shares)


def test_a_byte_tokenizer_reads_all_alike_and_syllables_are_long() -> None:
    raw = Tokenizer(models.BPE(vocab={}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=257,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator([""], trainer)
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=raw, eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )
    prompts = PromptBuilder(tokenizer, max_tokens=4096)
    for text in ("question", "這個塔在巴黎市中心", "그탑은파리에있다"):
        layout = prompts.independent(text, [Chunk(text)])
        assert Legibility(prompts).unread(layout, text, [Chunk(text)]) == (0, 0)


def test_probabilities_go_to_those_of_a_call_of_which_nothing_is_known() -> None:
    scores = ChunkScores(np.array([3.0, 1.0]), np.array([0.9, 0.1]), 0.95)
    half = as_if_unread(scores, 0.5)
    assert half.probabilities == pytest.approx([0.575, 0.175])
    assert half.answerable == pytest.approx(0.725)
    none = as_if_unread(scores, 1.0)
    assert none.probabilities == pytest.approx([0.25, 0.25]) and none.answerable == 0.5
    same = as_if_unread(scores, 0.0)
    assert same.probabilities is not None
    assert same.probabilities.tolist() == [0.9, 0.1] and same.answerable == 0.95
    raw = ChunkScores(np.array([3.0, 1.0]))
    assert as_if_unread(raw, 1.0) is raw


def test_more_is_kept_it_is_noted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_model()
    known = calibrated_weights(model, TOKENIZER, cosine_weight=1.0)
    assert known.calibration is not None
    weights = replace(known, calibration=replace(known.calibration, knows_unread=False))
    pruner = tiny_pruner(weights, model, TOKENIZER)
    chunks = [ARABIC[: 8 + i] for i in range(12)]
    with caplog.at_level(logging.WARNING, "at2_rag"):
        results = [pruner.prune("the question", chunks, max_overlap=None) for _ in range(2)]
    for result in results:
        assert result.answerable == pytest.approx(0.5)
        probabilities = [chunk.probability for chunk in (*result.kept, *result.dropped)]
        assert probabilities == pytest.approx([0.5 / 12] * 12)
        assert len(result.kept) == 11  # the fewest that miss at most .15 of what is expected
        assert any("100% of the chunks" in note for note in result.notes)
    assert sum("hardly reads" in record.message for record in caplog.records) == 1
    result = tiny_pruner(known, model, TOKENIZER).prune("the question", chunks, top_k=12)
    assert result.kept[0].probability != result.kept[-1].probability
    assert not any("hardly reads" in note for note in result.notes)
    plain = pruner.prune("the question", [ENGLISH, "the passages below"])
    assert not any("hardly reads" in note for note in plain.notes)
