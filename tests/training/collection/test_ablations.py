"""Ablations collected for training: what they hold, what they never look at, and resuming."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from at2_rag.data.examples import Example
from at2_rag.errors import DataError, InputError, PromptTooLongError
from at2_rag.reading.chunk_states import encode_prefix
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.text.chunks import Chunk
from at2_rag.training.answering.ablation import ablate_by_masking, leave_one_out
from at2_rag.training.answering.answer_decoding import answer_over_states, question_end
from at2_rag.training.answering.answer_model import AnswerModel
from at2_rag.training.collection import ablations as ablation_collection
from at2_rag.training.collection.ablations import (
    MOST_CHUNKS,
    AblationPlan,
    collect_ablations,
    describe_left_out,
)
from at2_rag.training.collection.features import read_passes, stacked_features
from at2_rag.training.collection.shards import draw_samples, plan_shards
from at2_rag.training.collection.store import ShardAblations
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.training.collection.test_features import DEPTH, bytes_of, make_examples

ROOT = Path(__file__).parents[3]
PLAN = AblationPlan(masks=6, answer_tokens=4)
SHARD_TOKENS = 60


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Several shards, and one torch thread as in the process that is killed."""
    monkeypatch.setattr(ablation_collection, "SHARD_TOKENS", SHARD_TOKENS)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(folder: Path, examples: list[Example], **options: Any) -> ShardAblations:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    options = {"fingerprint": "f", "seed": 0, "plan": PLAN, **options}
    depth = options.pop("depth", DEPTH)
    return collect_ablations(
        ScoringModel(model, tokenizer, depth=depth),
        AnswerModel(model, tokenizer),
        examples,
        folder,
        **options,
    )


def same(first: ShardAblations, second: ShardAblations) -> bool:
    return all(
        np.array_equal(values, second.arrays()[name]) for name, values in first.arrays().items()
    )


def test_what_is_collected_is_what_ablations_and_features_are(tmp_path: Path) -> None:
    examples = make_examples()
    collected = run(tmp_path, examples)
    cut = ScoringModel(tiny_model(), tiny_tokenizer(), depth=DEPTH)
    model = AnswerModel(tiny_model(), tiny_tokenizer())
    shards = plan_shards(examples, shard_tokens=SHARD_TOKENS)
    assert len(shards) > 3
    samples = [
        sample
        for shard in shards
        for sample in draw_samples(examples, shard, seed=0, most_chunks=MOST_CHUNKS, labelled=False)
    ]
    by_example = {sample.example: sample for sample in samples}
    masks, answers = collected.masks_of_samples(), collected.answers_of_samples()
    token_logits = collected.token_logits_of_samples()
    query_logits = collected.query_logits_of_samples()
    assert len(masks) == len(answers) == len(collected.examples)
    row = 0
    for number, index in enumerate(collected.examples):
        sample, query = by_example[int(index)], examples[index].query
        chunks = len(sample.chunks)
        assert collected.counts[number] == chunks
        assert np.array_equal(masks[number][: chunks + 1], leave_one_out(chunks))
        assert not masks[number][chunks + 1].any()
        assert len(masks[number]) == chunks + 2 + min(6, 2**chunks - 2)
        prompt = model.prompts.independent(query, sample.chunks)
        states = model.encode(list(dict.fromkeys(prompt.source_ids)))
        [answer] = answer_over_states(model, [prompt], states, max_new_tokens=4)
        assert answers[number] == answer != ""
        truth = ablate_by_masking(model, query, sample.chunks, answer, masks[number])
        assert token_logits[number] == pytest.approx(truth.token_logits, abs=1e-3)
        by_source = torch.from_numpy(masks[number][:, list(prompt.owners)])
        read = model.read_masked(model.prompts.answer(prompt, answer), by_source, question=True)
        questions = read[:, : prompt.target[1] - prompt.target[0]].numpy()
        assert query_logits[number] == pytest.approx(questions, abs=1e-3)
        layout = cut.prompts.independent(query, sample.chunks)
        attention = read_passes(cut, encode_prefix(cut), layout, states={}, chunks=chunks)
        features = stacked_features([attention], ("together", "apart"))
        own = slice(row, row + chunks)
        assert collected.log_mass[own] == pytest.approx(features["log_mass"], rel=2e-3, abs=1e-3)
        assert collected.log_ratio[own] == pytest.approx(features["log_ratio"], rel=2e-3, abs=1e-3)
        row += chunks
    assert row == len(collected.log_mass)


def test_labels_and_reference_answers_are_never_looked_at(tmp_path: Path) -> None:
    examples = make_examples("ab")
    turned = [
        dataclasses.replace(
            example, labels=tuple(not label for label in example.labels), answers=("river", "Emma")
        )
        for example in examples
    ]
    assert same(run(tmp_path / "plain", examples), run(tmp_path / "turned", turned))


def test_reference_answers_where_asked_for(tmp_path: Path) -> None:
    examples = [
        dataclasses.replace(example, answers=(f" answer {number} ", "another"))
        for number, example in enumerate(make_examples("a"))
    ]
    examples[1] = dataclasses.replace(examples[1], answers=(" ",))
    examples[2] = dataclasses.replace(examples[2], answers=("", " \n", "answer 2"))
    plan = dataclasses.replace(PLAN, reference=True)
    collected = run(tmp_path, examples, plan=plan)
    assert collected.examples.tolist() == [0, 2, 3]
    assert collected.answers_of_samples() == ["answer 0", "answer 2", "answer 3"]
    assert describe_left_out(collected) == "1 no answer"


def test_half_a_character_in_a_reference_answer_is_replaced(tmp_path: Path) -> None:
    examples = [
        dataclasses.replace(example, answers=("river \ud83d",)) for example in make_examples("a")
    ]
    collected = run(tmp_path, examples, plan=dataclasses.replace(PLAN, reference=True))
    assert set(collected.answers_of_samples()) == {"river \ufffd"}


def test_a_reference_answer_longer_than_the_window_is_left_out(tmp_path: Path) -> None:
    examples = [
        dataclasses.replace(example, answers=("river " * words,))
        for example, words in zip(make_examples("a"), (1, 5000, 2, 3), strict=True)
    ]
    plan = dataclasses.replace(PLAN, reference=True)
    collected = run(tmp_path, examples, plan=plan)
    assert collected.examples.tolist() == [0, 2, 3]
    assert describe_left_out(collected) == "1 longer than the model's window"


def test_what_can_not_be_ablated_is_left_out_and_counted(tmp_path: Path) -> None:
    long = Example("long", "b", "what? " * 1005, (Chunk("river"), Chunk("sea")), (True, False))
    alone = Example("alone", "c", "what?", (Chunk("only"),), (True,))
    collected = run(tmp_path / "some", [*make_examples("a"), long, alone])
    assert set(collected.examples.tolist()) == {0, 1, 2, 3}
    words = "1 fewer than two chunks, 1 longer than the model's window"
    assert describe_left_out(collected) == words
    with pytest.raises(InputError, match=f"none of the 2 examples can be ablated \\({words}\\)"):
        run(tmp_path / "none", [long, alone])


def test_an_answer_that_is_longer_as_text_than_as_generated_is_left_out(tmp_path: Path) -> None:
    """A random model's tokens, joined to a text, are other tokens, and more of them."""
    window, plan = 512, dataclasses.replace(PLAN, answer_tokens=32)
    model, tokenizer = tiny_model(max_position_embeddings=window), tiny_tokenizer()
    answering = AnswerModel(model, tokenizer)
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
    states = answering.encode(list(dict.fromkeys(layout.source_ids)))
    [answer] = answer_over_states(answering, [layout], states, max_new_tokens=32)
    with pytest.raises(PromptTooLongError):
        answering.prompts.answer(layout, answer)
    scoring = ScoringModel(model, tokenizer, depth=DEPTH)
    examples = [*make_examples("a"), edge]
    collected = collect_ablations(
        scoring, answering, examples, tmp_path, fingerprint="f", seed=0, plan=plan
    )
    assert 4 not in collected.examples and {0, 1, 2, 3} == set(collected.examples.tolist())
    assert describe_left_out(collected) == "1 longer than the model's window"


def test_workers_change_nothing_but_the_time(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    again: list[tuple[int, int]] = []
    alone = run(tmp_path / "1", make_examples("ab"))
    many = run(
        tmp_path / "3",
        make_examples("ab"),
        workers=3,
        progress=lambda *numbers: calls.append(numbers),
    )
    assert np.array_equal(alone.masks, many.masks)
    assert many.token_logits == pytest.approx(alone.token_logits, abs=1e-3)
    assert many.query_logits == pytest.approx(alone.query_logits, abs=1e-3)
    assert calls[0] == (0, 8) and calls[-1] == (8, 8)
    run(tmp_path / "3", make_examples("ab"), progress=lambda *numbers: again.append(numbers))
    assert again == [(8, 8)]


KILLED = """
import sys, time
import torch
torch.set_num_threads(1)
from pathlib import Path
from at2_rag.training.collection import ablations as ablation_collection
from tests.training.collection.test_ablations import SHARD_TOKENS, make_examples, run
ablation_collection.SHARD_TOKENS = SHARD_TOKENS
def progress(done, total):
    if done:
        print("waiting", flush=True)
        time.sleep(600)
run(Path(sys.argv[1]), make_examples("ab"), progress=progress)
"""


def test_killed_and_resumed_equals_uninterrupted_byte_for_byte(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "killed")],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    timer = threading.Timer(500, process.kill)
    timer.start()
    assert process.stdout is not None and process.stdout.readline() == "waiting\n"
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() != 0
    timer.cancel()

    shards = sorted((tmp_path / "killed").glob("*.safetensors"))
    assert [path.name for path in shards] == ["shard-00000.safetensors"]
    (tmp_path / "killed" / "shard-00001.part").write_bytes(b"torn")
    first = shards[0].stat().st_mtime_ns
    resumed = run(tmp_path / "killed", make_examples("ab"))
    assert shards[0].stat().st_mtime_ns == first
    whole = run(tmp_path / "whole", make_examples("ab"))
    assert same(resumed, whole)
    assert bytes_of(tmp_path / "killed") == bytes_of(tmp_path / "whole")


def test_a_shard_of_other_examples_is_refused(tmp_path: Path) -> None:
    run(tmp_path, make_examples("a"))
    path, shard = tmp_path / "shard-00000.safetensors", tmp_path / "shard-00001.safetensors"
    save_file(load_file(shard), path)  # as older versions wrote it
    with pytest.raises(DataError, match="shard-00000.safetensors holds other examples"):
        run(tmp_path, make_examples("a"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "seed: 0 there, 1 now"),
        ({"fingerprint": "g"}, "fingerprint: 'f' there, 'g' now"),
        ({"depth": 1}, "depth: 2 there, 1 now"),
        ({"plan": AblationPlan(masks=7, answer_tokens=4)}, "masks: 6 there, 7 now"),
        ({"plan": AblationPlan(masks=6, answer_tokens=5)}, "generated, 4 tokens"),
    ],
)
def test_a_folder_of_another_collection_is_refused(
    tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    examples = make_examples("a")
    run(tmp_path, examples)
    with pytest.raises(DataError, match=named):
        run(tmp_path, examples, **change)


def test_a_folder_of_another_format_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, make_examples("a"))
    here = ablation_collection.FORMAT
    monkeypatch.setattr(ablation_collection, "FORMAT", here + 1)
    with pytest.raises(DataError, match=f"format: {here} there, {here + 1} now"):
        run(tmp_path, make_examples("a"))


@pytest.mark.parametrize("numbers", [{"masks": 0}, {"answer_tokens": 0}])
def test_a_plan_of_nothing_is_refused(numbers: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="both are at least 1"):
        AblationPlan(**numbers)
