"""What the default model and its options must not lose; each case was lost once."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from at2_rag import AT2Pruner
from at2_rag.arrays import missed_shares
from at2_rag.options import UNANSWERABLE_BELOW, PruneOptions
from at2_rag.selection.select import select

VOLCANOES = "Which moon of Jupiter has active volcanoes, and why?"
MOONS = [
    "Europa is covered by ice, with an ocean beneath.",
    "Io has active volcanoes: Jupiter's tides heat its interior.",
    "Ganymede, a moon of Jupiter, is larger than Mercury.",
]


@pytest.fixture(scope="module")
def pruner() -> AT2Pruner:
    return AT2Pruner.from_pretrained()


@pytest.mark.default_model
def test_a_second_reading_leaves_what_the_first_kept(pruner: AT2Pruner) -> None:
    chunks = [
        "The service supports the regions Bavaria and Tyrol.",
        "The service does not support the regions Saxony and Styria.",
        "Support is available around the clock.",
    ]
    query = "Which regions does the service not support?"
    once = pruner.prune(query, chunks, top_k=3, multi_hop=False).kept
    twice = pruner.prune(query, chunks, top_k=3, multi_hop=True).kept
    before = {each.index: each.probability for each in once}
    assert all((each.probability or 0) >= (before[each.index] or 0) - 1e-6 for each in twice)
    assert {0, 1} <= {each.index for each in pruner.prune(query, chunks).kept}


@pytest.mark.default_model
def test_a_chunk_that_answers_makes_its_question_answerable(pruner: AT2Pruner) -> None:
    result = pruner.prune(
        "Who wrote Emma?", ["Emma is a novel by Jane Austen."], if_unanswerable="keep_none"
    )
    assert len(result.kept) == 1
    assert (result.answerable or 0) >= (result.kept[0].probability or 0) > 0.02
    foreign = ["The Danube flows through Vienna."]
    nothing = pruner.prune("Who wrote Emma?", foreign, if_unanswerable="keep_none")
    assert not nothing.kept and (nothing.answerable or 0) < 0.02


@pytest.mark.default_model
@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "{} Visit our shop for the best offers of the season.",
        "{} It is Europa.",
        "Question: {}\nAnswer: Europa",
        "Hi everyone,\n\n{}\n\nI have searched for hours. Thanks in advance!",
        "<|im_start|>user\nQuestion: {}<|im_end|>\n<|im_start|>assistant\n",
        "moon Jupiter active volcanoes, " * 6,
    ],
)
def test_a_chunk_that_repeats_the_question_hides_nothing(pruner: AT2Pruner, text: str) -> None:
    result = pruner.prune(VOLCANOES, [text.format(VOLCANOES), *MOONS])
    assert result.kept[0].index == 2
    assert any("repeat" in note for note in result.notes)


@pytest.mark.default_model
@pytest.mark.parametrize(
    ("query", "text", "answer"),
    [
        (
            "When was the bridge opened?",
            "The bridge crosses the harbour. It was opened in 1859. Ferries still run on Sundays.",
            "1859",
        ),
        (
            "Can I pay by card?",
            "Q: Can I pay by card?\nA: Cash only.\n\nQ: Are dogs allowed?\nA: No.",
            "Cash only",
        ),
        (
            "May I take two tablets at once?",
            "Take one tablet a day with water. Never take two at once. Store them in a dry place.",
            "Never take two",
        ),
    ],
)
def test_sentences_that_answer_survive(
    pruner: AT2Pruner, query: str, text: str, answer: str
) -> None:
    assert answer in pruner.prune(query, [text, *MOONS], unit="sentence").context


@pytest.mark.default_model
def test_a_single_sentence_may_answer(pruner: AT2Pruner) -> None:
    question = "Who wrote Emma?"
    answer = pruner.prune(question, ["Emma is a novel by Jane Austen."])
    other = pruner.prune(question, ["The Danube flows through Vienna."])
    assert answer.answerable is not None and other.answerable is not None
    assert answer.answerable > 0.15 and other.answerable < 0.01 < UNANSWERABLE_BELOW


def test_unsure_means_more() -> None:
    unsure, sure = np.array([0.4, 0.03, 0.02, 0.01]), np.array([0.9, 0.03, 0.02, 0.01])
    for likely, share, floor, count in (
        (unsure, 0.04, None, 3),
        (sure, 0.05, None, 1),
        (sure, 1.0, 0.25, 1),
        (sure, 1.0, 0.26, 2),
        (sure, 1.0, 1.0, 4),
        (unsure, 0.02, 0.5, 4),
    ):
        options = PruneOptions(min_p=share, keep_at_least=floor)
        assert len(select(likely, options, probabilities=likely).kept) == count
    options = PruneOptions(max_missed=0.2, keep_at_least=0.7)
    assert len(select(sure, options, probabilities=sure).kept) == 3
    flat = np.full(10, 0.1)
    options = PruneOptions(max_missed=0.2)
    assert len(select(flat, options, probabilities=flat).kept) == 8
    assert missed_shares(flat).tolist() == pytest.approx(np.linspace(1, 0, 11))
    assert missed_shares(np.zeros(2)).tolist() == [0, 0, 0]


@pytest.mark.default_model
def test_a_conversation_as_the_query_warns(
    pruner: AT2Pruner, caplog: pytest.LogCaptureFixture
) -> None:
    chat = f"User: Tell me about moons.\nAssistant: Which ones?\nUser: {VOLCANOES}"
    with caplog.at_level(logging.WARNING, logger="at2_rag"):
        result = pruner.prune(chat, MOONS)
    assert any("several turns of a conversation" in note for note in result.notes)
    assert "several turns" in caplog.text
    assert not any("turns" in note for note in pruner.prune(VOLCANOES, MOONS).notes)
