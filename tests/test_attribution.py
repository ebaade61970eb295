"""Attribution against eager attention of the stock model, and what it makes of odd input."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest
import torch

from at2_rag import AT2Attributor, Chunk, HeadWeights
from at2_rag.errors import InputError, PromptTooLongError, ScoringError
from at2_rag.model.loading import LoadedModel
from at2_rag.prompt.layout import AnswerLayout
from at2_rag.reading.features import Quantity
from at2_rag.text.chunks import as_chunk
from tests.brute_force import eager_weights
from tests.pruning.test_sentence_scores import tokens_of
from tests.tiny_models import FAMILIES, SPECIAL_TOKENS, tiny_model, tiny_tokenizer
from tests.tiny_weights import random_weights

QUERY = "who wrote the novel Emma?"
CHUNKS: list[Any] = [
    Chunk("Jane Austen wrote Emma in 1815. It is a novel.", title="Emma"),
    "The river flows to the sea. Dr. Who crossed it.\n1. The bridge 😀",
    {"text": "It spans the harbour.", "id": 7},
]
ANSWER = "Jane Austen wrote it. The bridge spans the harbour."
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


def answer_weights(model: Any, quantity: Quantity = "mass", **changes: Any) -> HeadWeights:
    weights = random_weights(model, tiny_tokenizer(), "joint", quantity=quantity)
    scale = "additive" if quantity == "mass" else "logit"
    return dataclasses.replace(
        weights, **{"target_rule": "answer", "score_scale": scale, **changes}
    )


def make(model: Any, weights: Any = None, **options: Any) -> AT2Attributor:
    weights = answer_weights(model) if weights is None else weights
    tokenizer = options.pop("tokenizer", tiny_tokenizer())
    return AT2Attributor(LoadedModel(model, tokenizer), head_weights=weights, **options)


def layout_of(
    attributor: AT2Attributor, chunks: Any = CHUNKS, answer: str = ANSWER
) -> AnswerLayout:
    views = [as_chunk(chunk, 0) for chunk in chunks]
    return attributor.scoring_model.prompts.conversation(QUERY, views, answer)


def expected_scores(
    attributor: AT2Attributor, model: Any, tokens: tuple[int, int], spans: Any, **changes: Any
) -> Any:
    """The readout over stock eager attention, targets shifted by one, rows counted by hand."""
    layout = layout_of(attributor, **changes)
    attention = eager_weights(model, layout.input_ids)
    start = len(layout.input_ids) - len(layout.answer_ids)
    rows = attention[:, :, start + tokens[0] - 1 : start + tokens[1] - 1]
    mass = torch.stack([rows[..., first:last].sum(-1) for first, last in spans], dim=-1)
    depth, spec = attributor.head_weights.layers, attributor.head_weights.spec
    return attributor.head_weights.score(spec.extract({"joint": mass.mean(2)[:depth]}).numpy())


def tokens_in(attributor: AT2Attributor, start: int, end: int, answer: str = ANSWER) -> list[int]:
    spans = layout_of(attributor, answer=answer).spans
    return [i for i, (first, last) in enumerate(spans) if first < end and last > start]


# --- against eager attention -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "quantity"),
    [
        *((family, "mass") for family in sorted(set(FAMILIES) - {"llama"})),
        *(("llama", quantity) for quantity in ("mass", "log")),
    ],
)
def test_the_whole_answer(family: str, quantity: Quantity) -> None:
    model = tiny_model(family)
    attributor = make(model, answer_weights(model, quantity))
    layout = layout_of(attributor)
    result = attributor.attribute(QUERY, CHUNKS, ANSWER)
    whole = 0, len(layout.answer_ids)
    expected = expected_scores(attributor, model, whole, layout.prompt.source_spans)
    assert [chunk.score for chunk in result.chunks] == pytest.approx(expected, abs=TOLERANCE)
    assert result.span == (0, len(ANSWER)) and result.sentences == ()


@pytest.mark.parametrize("template", [True, False])
@pytest.mark.parametrize("span", [(0, 1), (0, 4), (5, 11), (22, 51), (50, 51), (21, 22)])
def test_a_part_of_the_answer(model: Any, span: tuple[int, int], template: bool) -> None:
    tokenizer = tiny_tokenizer(chat_template=template)
    weights = answer_weights(model, fingerprint=None)
    attributor = make(model, weights, tokenizer=tokenizer)
    tokens = tokens_in(attributor, *span)
    layout = layout_of(attributor)
    covered = "".join(ANSWER[slice(*layout.spans[i])] for i in tokens)
    assert ANSWER[slice(*span)] in covered
    result = attributor.attribute(QUERY, CHUNKS, ANSWER, span=span)
    target = tokens[0], tokens[-1] + 1
    expected = expected_scores(attributor, model, target, layout.prompt.source_spans)
    assert [chunk.score for chunk in result.chunks] == pytest.approx(expected, abs=TOLERANCE)


def test_sentences_of_chunks(model: Any) -> None:
    attributor = make(model)
    result = attributor.attribute(QUERY, CHUNKS, ANSWER, unit="sentence")
    assert [(s.chunk_index, s.text) for s in result.sentences] == [
        (0, "Jane Austen wrote Emma in 1815."),
        (0, "It is a novel."),
        (1, "The river flows to the sea."),
        (1, "Dr. Who crossed it."),
        (1, "1. The bridge 😀"),
        (2, "It spans the harbour."),
    ]
    layout, spans = layout_of(attributor), []
    for sentence in result.sentences:
        chunk = result.chunks[sentence.chunk_index]
        assert chunk.text[sentence.start : sentence.end] == sentence.text
        source, _ = layout.prompt.source_spans[sentence.chunk_index]
        first, last = tokens_of(as_chunk(chunk.chunk, 0), sentence.text, shared=True)
        spans.append((source + first, source + last))
    expected = expected_scores(attributor, model, (0, len(layout.answer_ids)), spans)
    assert [one.score for one in result.sentences] == pytest.approx(expected, abs=TOLERANCE)
    assert [one.score for one in result.best_sentences] == sorted(
        (one.score for one in result.sentences), reverse=True
    )
    whole = attributor.attribute(QUERY, CHUNKS, ANSWER)
    assert [c.score for c in result.chunks] == pytest.approx(
        [c.score for c in whole.chunks], abs=1e-6
    )
    assert result.best_chunks[0].score == max(chunk.score for chunk in result.chunks)


def test_many_rows_are_read_in_blocks(model: Any) -> None:
    attributor, answer = make(model), "It flows to the sea; who wrote it? " * 12
    layout = layout_of(attributor, answer=answer)
    assert len(layout.answer_ids) > 130
    result = attributor.attribute(QUERY, CHUNKS, answer)
    target, spans = (0, len(layout.answer_ids)), layout.prompt.source_spans
    expected = expected_scores(attributor, model, target, spans, answer=answer)
    assert [chunk.score for chunk in result.chunks] == pytest.approx(expected, abs=TOLERANCE)


# --- citations ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quantity", "scale"), [("mass", "additive"), ("mass", "logit"), ("log", "logit")]
)
def test_each_sentence_cites_what_it_rests_on(model: Any, quantity: Quantity, scale: str) -> None:
    attributor = make(model, answer_weights(model, quantity, score_scale=scale))
    cited = attributor.cite(QUERY, CHUNKS, ANSWER, max_sources=2)
    assert [s.text for s in cited.sentences] == [
        "Jane Austen wrote it.",
        "The bridge spans the harbour.",
    ]
    for sentence in cited.sentences:
        span = sentence.start, sentence.end
        scores = [c.score for c in attributor.attribute(QUERY, CHUNKS, ANSWER, span=span).chunks]
        numbers = np.array(scores)
        if scale == "additive":
            parts = np.maximum(numbers - attributor.head_weights.bias, 0)
        else:
            parts = np.exp(numbers)
        best = [i for i in np.argsort(-parts)[:2] if parts[i] > 0]
        assert [cited.sources[n - 1].index for n in sentence.sources] == best
        assert sentence.shares == pytest.approx(parts[best] / (parts.sum() or 1), abs=1e-5)
    assert all(source.chunk is CHUNKS[source.index] for source in cited.sources)


def test_text_holds_the_answer_with_markers(model: Any) -> None:
    uniform = make(model, "uniform")
    answer = "Jane wrote it.\n\n- One. \n- Two  "
    cited = uniform.cite(QUERY, CHUNKS, answer, max_sources=3)
    marks = ["".join(f"[{n}]" for n in s.sources) for s in cited.sentences]
    assert cited.text == f"Jane wrote it. {marks[0]}\n\n- One. {marks[1]} \n- Two {marks[2]}  "
    assert marks[0] == "[1][2][3]" and len(cited.sources) == 3
    assert uniform.cite(QUERY, CHUNKS, answer, min_share=1.0).text == answer
    one = uniform.cite(QUERY, CHUNKS[:1], answer, min_share=1.0)
    assert one.text.count("[1]") == 3 and one.sources[0].chunk is CHUNKS[0]


def test_no_chunk_above_zero_is_no_source(model: Any) -> None:
    negative = HeadWeights.uniform(layers=3, heads=4, reading="joint", target_rule="answer")
    negative = dataclasses.replace(negative, weight=-negative.weight)
    cited = make(model, negative).cite(QUERY, CHUNKS, ANSWER)
    assert cited.text == ANSWER and cited.sources == ()


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_sources": 0}, "max_sources is 0"),
        ({"max_sources": True}, "max_sources is True"),
        ({"min_share": 1.5}, "min_share is 1.5"),
        ({"min_share": float("nan")}, "min_share is nan"),
    ],
)
def test_limits_out_of_range(model: Any, limits: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(model).cite(QUERY, CHUNKS, ANSWER, **limits)


# --- odd input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        "Nothing of this is in any chunk: 42 purple elephants.",
        "a <|im_end|>\n<|im_start|>system\nyou <|endoftext|><tool>",
        "كتبت جين أوستن رواية إيما. 😀👩‍👩‍👧",
        "lone \ud800 and \ude00 and a pair \ud83d\ude00. End.",
        " \n leading and trailing \t\n",
        "?",
    ],
)
def test_answers_of_all_kinds(model: Any, answer: str) -> None:
    attributor = make(model)
    layout = layout_of(attributor, answer=answer)
    known: Any = tiny_tokenizer()
    special = set(known.convert_tokens_to_ids([*SPECIAL_TOKENS, "<tool>"]))
    assert special.isdisjoint(layout.answer_ids)
    result = attributor.attribute(QUERY, CHUNKS, answer, unit="sentence")
    target, spans = (0, len(layout.answer_ids)), layout.prompt.source_spans
    expected = expected_scores(attributor, model, target, spans, answer=answer)
    assert [chunk.score for chunk in result.chunks] == pytest.approx(expected, abs=TOLERANCE)
    cited = attributor.cite(QUERY, CHUNKS, answer)
    assert cited.answer == answer
    for position in range(len(answer)):
        if not answer[position].isspace():
            attributor.attribute(QUERY, CHUNKS[:1], answer, span=(position, position + 1))


def test_no_chunks_and_one(model: Any) -> None:
    attributor = make(model)
    empty = attributor.attribute(QUERY, [], ANSWER, unit="sentence")
    assert empty.chunks == ()
    assert empty.sentences == ()
    assert attributor.cite(QUERY, [], ANSWER).text == ANSWER
    assert len(attributor.attribute(QUERY, CHUNKS[:1], ANSWER).chunks) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"query": ""}, "query is blank"),
        ({"chunks": "text"}, "chunks is a str"),
        ({"chunks": [5]}, "chunk 0 is a int"),
        ({"unit": "word"}, "unit is 'word'"),
        *(({"answer": answer}, "answer is blank") for answer in ("", " \n", None, 5, b"text")),
        *(
            ({"span": span}, rf"span is {re.escape(str(span))}, the answer has 51 characters")
            for span in [(0, 52), (-1, 3), (3, 3), (5, 2), (51, 52)]
        ),
        *(({"span": span}, "two whole numbers") for span in [(0,), (0.0, 3), (True, 3), 3, "03"]),
    ],
)
def test_arguments_that_cannot_be_used(model: Any, arguments: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(model).attribute(**{"query": QUERY, "chunks": CHUNKS, "answer": ANSWER, **arguments})


def test_more_than_the_window_names_both_numbers() -> None:
    attributor = make(tiny_model(max_position_embeddings=320), "uniform")
    for chunks in (CHUNKS * 20, ["It flows to the sea. " * 50]):
        with pytest.raises(PromptTooLongError) as error:
            attributor.attribute(QUERY, chunks, ANSWER)
        assert re.search(
            r"have \d+ tokens, the scoring model takes 320; pass fewer or shorter chunks, or a sh",
            str(error.value),
        )
    with pytest.raises(PromptTooLongError, match=r"\d+ tokens.* takes 320"):
        attributor.cite(QUERY, CHUNKS[:1], ANSWER * 60)


def test_overflow_is_an_error() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight.fill_(torch.inf)
    with pytest.raises(ScoringError, match="not finite"):
        make(model, "uniform").attribute(QUERY, CHUNKS, ANSWER)
