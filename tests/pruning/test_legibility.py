"""Text that the scoring model's tokenizer doesn't know."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from at2_rag.model.hub import DEFAULT_MODEL, resolve_model
from at2_rag.prompt.layout import INSTRUCTION, PromptBuilder
from at2_rag.pruning.legibility import READ, UNREAD, Legibility, Unread
from at2_rag.readout.scores import ChunkScores, doubted
from at2_rag.readout.sentence_weights import SentenceWeights
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
    half = doubted(scores, 0.5)
    assert half.probabilities == pytest.approx([0.575, 0.175])
    assert half.answerable == pytest.approx(0.725)
    none = doubted(scores, 1.0)
    assert none.probabilities == pytest.approx([0.25, 0.25]) and none.answerable == 0.5
    same = doubted(scores, 0.0)
    assert same.probabilities is not None
    assert same.probabilities.tolist() == [0.9, 0.1] and same.answerable == 0.95
    raw = ChunkScores(np.array([3.0, 1.0]))
    assert doubted(raw, 1.0) is raw


def test_more_is_kept_it_is_noted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_model()
    known = calibrated_weights(model, TOKENIZER, cosine_weight=1.0)
    assert known.calibration is not None
    weights = replace(known, calibration=replace(known.calibration, unread=0.0))
    pruner = tiny_pruner(weights, model, TOKENIZER)
    chunks = [ARABIC[: 8 + i] for i in range(12)]
    limits: Any = {"max_overlap": None, "min_p": 0.7}
    plainly = tiny_pruner(known, model, TOKENIZER).prune("the question", chunks, **limits)
    likely = {one.index: one.probability or 0.0 for one in (*plainly.kept, *plainly.dropped)}
    assert plainly.answerable is not None
    assert not any("hardly reads" in note for note in plainly.notes)
    with caplog.at_level(logging.WARNING, "at2_rag"):
        results = [pruner.prune("the question", chunks, **limits) for _ in range(2)]
    for result in results:
        assert result.answerable == pytest.approx((plainly.answerable + 0.5) / 2)
        for chunk in (*result.kept, *result.dropped):
            assert chunk.probability == pytest.approx((likely[chunk.index] + 0.5 / 12) / 2)
        assert len(result.kept) > len(plainly.kept)
        assert any("100% of the chunks" in note for note in result.notes)
    assert sum("hardly reads" in record.message for record in caplog.records) == 1
    plain = pruner.prune("the question", [ENGLISH, "the passages below"])
    assert not any("hardly reads" in note for note in plain.notes)


def test_of_sentences_more_is_kept_too() -> None:
    model = tiny_model()
    known = calibrated_weights(model, TOKENIZER, cosine_weight=1.0)
    known = replace(
        known, sentences=SentenceWeights((0.4, 0.5, 0.6), (0.3, 0.9, -0.2, 1.0)), multi_hop=None
    )
    assert known.calibration is not None
    weights = replace(known, calibration=replace(known.calibration, unread=0.0))
    chunks = [f"{ARABIC} {ARABIC} {'!' * i}" for i in range(6)]
    plain, doubting = (
        {
            one.text: one.probability or 0.0
            for one in tiny_pruner(each, model, TOKENIZER)
            .prune("the question", chunks, top_k=3, unit="sentence", max_overlap=None)
            .sentences
        }
        for each in (known, weights)
    )
    assert len(plain) == 6
    for text, probability in plain.items():
        assert doubting[text] == pytest.approx((probability + 0.5 / 6) / 2)


@pytest.mark.parametrize(
    ("unread", "known", "doubt"), [(1.0, 0.0, 0.5), (0.4, 0.0, 0.2), (0.4, 0.4, 0), (0.3, 0.5, 0)]
)
def test_what_the_calibration_was_fitted_to_is_known(
    unread: float, known: float, doubt: float
) -> None:
    assert Unread(unread, 0.1).doubt(known) == pytest.approx(doubt)
    assert (Unread(unread, 0.1).note(known) is None) == (unread - known <= 0.5)


@pytest.mark.default_model
@pytest.mark.parametrize(
    "query",
    ["SLA", "CVE-2024-3094", "p99 TTFB", "dpkg -i", "kubectl", "What is VPC CIDR?", "GDPR?"],
)
def test_acronyms_and_names_are_no_foreign_language(query: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(resolve_model(DEFAULT_MODEL))
    legibility = Legibility(PromptBuilder(tokenizer, max_tokens=8192))
    assert legibility.unread_texts(query, [Chunk(query), Chunk("The service is down.")]) == (0, 0)


@pytest.mark.default_model
@pytest.mark.parametrize(
    ("least", "most", "sentence"),
    [
        (0, 0, "The tower was built for the world's fair and became the symbol of the city."),
        (0, 0, "La torre Eiffel fue construida para la Exposición Universal y es el símbolo."),
        (0, 0, "La torre fu costruita in poco più di due anni per celebrare il centenario."),
        (0, 0.2, "La tour de fer puddlé de 330 mètres de hauteur est située à Paris, au parc."),
        (
            0,
            0.2,
            "Der Turm in Paris wurde zur Weltausstellung gebaut und ist ein Wahrzeichen.",
        ),
        (0.3, 1, "Věž byla postavena jako dominantní prvek světové výstavy a symbol země."),
        (0.5, 1, "Wieża została zbudowana specjalnie na paryską wystawę światową."),
        (0.8, 1, "Kule, dünya fuarının giriş kapısı olarak yapılmıştır."),
        (1, 1, "Башня была построена к всемирной выставке и стала символом Парижа."),
        (1, 1, "Ο πύργος χτίστηκε για την παγκόσμια έκθεση και έγινε το σύμβολο της πόλης."),
        (1, 1, "यह मीनार विश्व मेले के लिए बनाई गई थी और अब शहर का प्रतीक है।"),
        (1, 1, "หอคอยนี้สร้างขึ้นสำหรับงานแสดงสินค้าโลกและกลายเป็นสัญลักษณ์ของเมือง"),
        (1, 1, "이 탑은 세계 박람회를 위해 지어졌으며 도시의 상징이 되었다."),
        (0.5, 1, "这座塔是为世界博览会而建的，后来成为这座城市的象征。"),
        (0.8, 1, "この塔は万国博覧会のために建てられ、都市の象徴となった。"),
        (1, 1, "بني البرج من أجل المعرض العالمي وأصبح رمزا للمدينة."),
    ],
)
def test_languages_by_the_tokenizer_of_the_default_model(
    least: float, most: float, sentence: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(resolve_model(DEFAULT_MODEL))
    legibility = Legibility(PromptBuilder(tokenizer, max_tokens=8192))
    assert least <= legibility.unread_texts(sentence, []).question <= most
