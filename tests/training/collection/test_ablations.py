"""Ablations collected for training: what they hold, and what they never look at."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from at2_rag.data.examples import Example
from at2_rag.errors import DataError, PromptTooLongError
from at2_rag.reading.independent import IndependentReader
from at2_rag.reading.joint import read_answer
from at2_rag.text.chunks import Chunk
from at2_rag.training.answering.ablation import ablate_by_masking, leave_one_out
from at2_rag.training.answering.answer_decoding import question_end
from at2_rag.training.collection import ablations as module
from at2_rag.training.collection.ablations import (
    ANSWERS_FOLDER,
    NO_ANSWER,
    AblationCollection,
    AblationPlan,
    AnswerFeatureCollection,
)
from at2_rag.training.collection.collection import TOO_LONG, Collected, Row
from at2_rag.training.collection.features import read_passes
from at2_rag.training.collection.samples import FEW_CHUNKS
from tests.training.answering.test_answer_decoding import answers
from tests.training.small_examples import answer_model, make_examples, scoring_model

PLAN = AblationPlan(masks=6, answer_tokens=4)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD_TOKENS", 60)
    monkeypatch.setattr(module, "SHARD_ANSWERS", 2)


def collection(folder: Path, examples: list[Example], **options: Any) -> AblationCollection:
    options = {"fingerprint": "f", "seed": 0, "plan": PLAN, **options}
    models: dict[str, Any] = options.pop("models", {})
    model = scoring_model(options.pop("depth", 2), **models)
    return AblationCollection(model, answer_model(**models), examples, folder, **options)


def collect(folder: Path, examples: list[Example], **options: Any) -> Collected:
    return collection(folder, examples, **options).collect()


def answer_of(row: Row) -> str:
    return row["answer"].tobytes().decode()


def test_what_is_collected_is_what_ablations_and_features_are(tmp_path: Path) -> None:
    examples = make_examples("ab")
    planned = collection(tmp_path, examples)
    rows = planned.collect(workers=2).rows
    assert len(list(tmp_path.glob("shard-*"))) > 2 and set(rows) == set(range(8))
    cut, model = scoring_model(), answer_model()
    for item, row in rows.items():
        chunks, query = planned.samples[item].chunks, examples[item].query
        masks = row["masks"]
        assert np.array_equal(masks[: len(chunks) + 1], leave_one_out(len(chunks)))
        assert not masks[len(chunks) + 1].any()
        assert len(masks) == len(chunks) + 2 + min(6, 2 ** len(chunks) - 2)
        prompt = model.prompts.independent(query, chunks)
        [answer] = answers(model, [prompt], 4)
        assert answer_of(row) == answer != ""
        truth = ablate_by_masking(model, prompt, answer, masks)
        assert row["token_logits"] == pytest.approx(truth.token_logits, abs=1e-3)
        by_source = torch.from_numpy(masks[:, list(prompt.owners)])
        read = model.read_masked(model.prompts.answer(prompt, answer), by_source, question=True)
        question = read[:, : prompt.target[1] - prompt.target[0]].numpy()
        assert row["query_logits"] == pytest.approx(question, abs=1e-3)
        layout = cut.prompts.independent(query, chunks)
        reader = IndependentReader(cut)
        features = read_passes(reader, layout, states={}, chunks=len(chunks))
        assert row["log"] == pytest.approx(features, rel=2e-3, abs=1e-3)


def test_reference_answers_where_wanted(tmp_path: Path) -> None:
    answers = [(" answer 0 ", "another"), (" ",), ("", " \n", "answer 2"), ("river " * 5000,)]
    examples = [
        dataclasses.replace(example, answers=texts)
        for example, texts in zip(make_examples("a"), answers, strict=True)
    ]
    examples.append(dataclasses.replace(examples[0], id="half", answers=("river \ud83d",)))
    collected = collect(tmp_path, examples, plan=dataclasses.replace(PLAN, reference=True))
    kept = {item: answer_of(row) for item, row in collected.rows.items()}
    assert kept == {0: "answer 0", 2: "answer 2", 4: "river \ufffd"}
    assert collected.left_out == {1: NO_ANSWER, 3: TOO_LONG}


def test_what_can_not_be_ablated_is_left_out_and_counted(tmp_path: Path) -> None:
    long = Example("long", "b", "what? " * 1005, (Chunk("river"), Chunk("sea")), (True, False))
    alone = Example("alone", "c", "what?", (Chunk("only"),), (True,))
    collected = collect(tmp_path, [*make_examples("a"), long, alone])
    assert set(collected.rows) == {0, 1, 2, 3}
    assert collected.reasons == {FEW_CHUNKS: 1, TOO_LONG: 1}


def test_an_answer_that_is_longer_as_text_than_as_generated_is_left_out(tmp_path: Path) -> None:
    """A random model's tokens, joined to a text, are other tokens, and more of them."""
    window, plan = 512, dataclasses.replace(PLAN, answer_tokens=32)
    models = {"max_position_embeddings": window}
    answering = answer_model(**models)
    short = (Chunk("a river"), Chunk("b sea"), Chunk("c mill"), Chunk("d owl"))
    query = "who? " * 20  # so long that it leaves no room for the answer beside the longest chunk
    edge = next(
        example
        for length in range(200, 480)
        for example in [Example("edge", "z", query, (*short, Chunk("y" * length)), (True,) * 5)]
        if question_end(answering, answering.prompts.independent(query, example.chunks))
        == window - plan.answer_tokens
    )
    layout = answering.prompts.independent(edge.query, edge.chunks)
    [answer] = answers(answering, [layout], 32)
    with pytest.raises(PromptTooLongError):
        answering.prompts.answer(layout, answer)
    collected = collect(tmp_path, [*make_examples("a"), edge], plan=plan, models=models)
    assert set(collected.rows) == {0, 1, 2, 3} and collected.left_out == {4: TOO_LONG}


def test_whatever_decides_the_content_is_in_the_settings(tmp_path: Path) -> None:
    examples = make_examples("a", each=1)
    collect(tmp_path, examples)
    other = AblationPlan(masks=7, answer_tokens=5)
    with pytest.raises(DataError) as error:
        collect(tmp_path, examples, seed=1, plan=other)
    for part in ("seed: 0 there, 1 now", "masks: 6 there, 7 now", "generated, 4 tokens"):
        assert part in str(error.value)


def test_features_of_answers_are_those_of_attribution(tmp_path: Path) -> None:
    examples, model = make_examples("a"), scoring_model()
    long = tuple(Chunk(f"{number} " + "river " * 500) for number in range(5))
    examples.append(Example("long", "z", "what?", long, (True,) * 5))
    ablations = collection(tmp_path, examples)
    ablated = ablations.collect().rows
    collected = AnswerFeatureCollection(model, examples, ablations, ablated).collect(workers=2)
    assert sorted(ablated) == [0, 1, 2, 3, 4] and sorted(collected.rows) == [0, 1, 2, 3]
    assert collected.left_out == {4: TOO_LONG}
    assert len(list((tmp_path / ANSWERS_FOLDER).glob("shard-*"))) == 3
    for item, row in collected.rows.items():
        chunks = ablations.samples[item].chunks
        answer = answer_of(ablated[item])
        layout = model.prompts.conversation(examples[item].query, chunks, answer)
        spans = layout.prompt.source_spans
        with torch.inference_mode():
            [expected] = read_answer(model, layout, [(0, len(layout.answer_ids))], spans)
        assert np.exp(row["log"][:, 0].astype(float)) == pytest.approx(
            expected.permute(2, 0, 1).numpy(), rel=1e-2, abs=1e-4
        )
    other = collection(tmp_path, examples, seed=1)
    with pytest.raises(DataError, match="ablations: '"):
        AnswerFeatureCollection(model, examples, other, {}).check()
