"""The benchmarks' figures against numbers by hand."""

from __future__ import annotations

import click
import numpy as np
import pytest
from click.testing import CliRunner
from floor import floor_case
from keeping_rules import kept_rows
from memory import peak_of
from models import make_pruner
from prompts import Prompt, PromptSet
from report import Row, exponent, growth_notes, markdown_table, share_note
from speed import call_row, floor_row, main, other_row, stage_row
from timing import UNIT, Spread, TimedRun, slow_interval, time_cases

from at2_rag import Chunk, ChunkCache
from at2_rag.data.examples import Example
from at2_rag.model.loading import LoadedModel
from at2_rag.options import PruneOptions
from at2_rag.prompt.layout import PromptBuilder
from at2_rag.readout.calibration import Calibration
from at2_rag.training.calibrating.probabilities import CalibrationSample
from at2_rag.training.calibrating.study import Prediction
from tests.independent_reading import CountingModel
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import random_weights

RUNS = [
    TimedRun(UNIT, 0, 2.0, 3.0),
    TimedRun(UNIT, 1, 4.0, 8.0),
    TimedRun("best, cold", 0, 1.0, stages={"encode": 0.5, "total": 1.0}),
    TimedRun("best, cold", 1, 4.0, stages={"encode": 1.5, "total": 4.0}),
    TimedRun("floor of best, cold", 0, 0.5, stages={"gflop": 3.0}),
    TimedRun("floor of best, cold", 1, 1.0, stages={"gflop": 3.0}),
    TimedRun("removals", 1, 20.0),
]


@pytest.mark.parametrize("cache", [None, ChunkCache()])
def test_without_a_cache_every_call_is_cold(cache: ChunkCache | None) -> None:
    weights = random_weights(tiny_model(), tiny_tokenizer(), "late", "apart")
    pruner = make_pruner(LoadedModel(tiny_model(), tiny_tokenizer()), weights, chunk_cache=cache)
    pruner.score("who wrote Emma?", ["Jane Austen wrote Emma."])
    model = CountingModel(tiny_model())
    pruner.scoring_model.run = model.run  # type: ignore[method-assign]
    pruner.score("who wrote Emma?", ["Jane Austen wrote Emma."])
    assert len(model.passes) == (3 if cache is None else 2)


def test_ratios_are_taken_within_a_round() -> None:
    assert Spread.of([3.0, 1.0, 2.0, 4.0]) == Spread(2.5, 1.75, 3.25, 4)
    ratio = Spread(0.75, 0.625, 0.875, 2)  # of 1/2 and 4/4
    assert call_row(RUNS, "best, cold") == {"case": "best, cold", "ratio": ratio, "ms": 2500.0}
    assert other_row(RUNS, "removals", "best, cold")["times as long"] == Spread(5, 5, 5, 1)
    assert stage_row(RUNS, "best, cold") == {"case": "best, cold", "encode": 1000, "total": 2500}
    assert floor_row(RUNS, "best, cold") == {
        "case": "best, cold",
        "GFLOP": 3.0,
        "GFLOP/s": 4.0,
        "floor, ms": 750.0,
        "times the floor": Spread(3.0, 2.5, 3.5, 2),
    }


def test_a_busy_machine_is_reported() -> None:
    note = share_note(RUNS, threads=2)  # 3 of 4 seconds, and 8 of 8
    assert "88%" in note and "don't rely" in note
    assert "don't rely" not in share_note(RUNS[1:], threads=2)


def test_growth_is_the_slope_in_log_log_coordinates() -> None:
    assert exponent([10, 100, 1000], [3, 300, 30000]) == pytest.approx(2)
    rows = [{"chunks": 50, "cold": 250.0, "warm": 10.0}, {"chunks": 200, "cold": 1e3, "warm": 20.0}]
    [note] = growth_notes(rows, ["cold", "warm"])
    assert note.startswith("From 50 to 200") and "1.000 (cold) and 0.500 (warm)" in note
    assert growth_notes(rows[:1], ["cold"]) == []


def test_every_case_runs_once_a_round_and_slow_ones_meet_every_prompt() -> None:
    assert [slow_interval(prompts) for prompts in (1, 7, 14)] == [7, 8, 9]
    slow: list[int] = []
    cases = {"fast": lambda prompt: None, "slow": slow.append}
    runs = time_cases(cases, prompts=7, repeats=8, seed=0, slow=["slow"])
    assert [run.round for run in runs if run.case == "fast"] == list(range(7 * 8))
    assert slow[0] == 0 and sorted(slow[1:]) == list(range(7))  # the first isn't timed


def test_tables_show_what_is_there() -> None:
    rows: list[Row] = [{"case": "a|b", "ms": Spread(0.5, 0.25, 12.0, 3)}, {"case": "c", "n": 1234}]
    assert markdown_table("Title", rows).splitlines() == [
        "### Title",
        "",
        "| case | ms                 | n     |",
        "| ---- | -----------------: | ----: |",
        "| a\\|b | 0.500 (0.250-12.0) |       |",
        "| c    |                    | 1,234 |",
    ]


def test_the_floor_by_hand() -> None:
    """Width 32, two key heads of width 8, 48 hidden units; two layers, the question read 5 times.

    That is late, together, and apart for the three chunks that a shortlist has at least. Of the
    last layer chunks need their keys, the question keys and queries.
    """
    model = LoadedModel(tiny_model(num_hidden_layers=3), tiny_tokenizer())
    chunks = [Chunk(f"Bridge {number} was opened in 1932.") for number in range(10)]
    layout = PromptBuilder(model.tokenizer, max_tokens=2048).independent("What?", chunks)
    floor = floor_case(model, [Prompt("What?", tuple(chunks))], "best")
    assert floor is not None
    rows, question = sum(map(len, layout.source_ids)), 5 * len(layout.question_ids)
    first = (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48) * (rows + question)
    last = 32 * 16 * (rows + question) + 32 * 32 * question
    assert dict(floor(0) or {}) == pytest.approx({"gflop": 2 * (first + last) / 1e9})


def test_a_peak_counts_what_is_freed_before_the_end() -> None:
    peak, growth = peak_of(lambda: np.ones(8_000_000).sum())  # 64 MB
    assert 50e6 < peak < 90e6 and growth < 10e6


def test_larger_prompts_have_no_text_twice() -> None:
    chunks, pool = (Chunk("a"), Chunk("b")), (Chunk("b"), Chunk("c"))
    prompt = PromptSet((Prompt("q", chunks),), "here", pool).of_size(7)
    texts = [chunk.rendered for chunk in prompt.chunks]
    assert texts[:3] == ["a", "b", "c"] and len(set(texts)) == 7


def test_unusable_prompt_lengths_are_one_line(tiny_options: list[str]) -> None:
    result = CliRunner().invoke(main, [*tiny_options, "--prompt-tokens", "1900", "2000"])
    assert result.exit_code == click.ClickException.exit_code
    assert result.output.startswith("Error: data.jsonl: none of 2 questions with 10 chunks")


def prediction(question: int, likely: list[float], *, gold: int) -> Prediction:
    scores, labels = np.array(likely), np.arange(len(likely)) == gold
    calibration = Calibration(np.zeros((1, 1, 1), np.float32), 0.0, (0.0,) * 4, (0.0,) * 5)
    features = np.zeros((len(likely), 1), np.float32)
    sample = CalibrationSample("s", 0, features, labels, question=question)
    return Prediction(sample, scores, scores, 1.0, calibration)


def test_what_rules_keep_by_hand() -> None:
    chunks = (Chunk("one"), Chunk("two words"), Chunk("three words here"))
    labels = ((True, False, False), (False, False, True))
    questions = [Example(str(i), "s", "?", chunks, of_one) for i, of_one in enumerate(labels)]
    sure, unsure = prediction(0, [0.9, 0.06, 0.04], gold=0), prediction(1, [0.3, 0.2, 0.1], gold=2)
    # Of the first question .1 and .04 are missed, of the second less than 1/2, of which all 3 stay.
    [of_source, macro] = kept_rows([sure, unsure], questions, PruneOptions(max_missed=0.1))
    expected = {"one gold": 1.0, "two or three": pytest.approx(np.nan, nan_ok=True)}
    expected["words"] = pytest.approx((1 / 6 + 1) / 2)
    expected["of 30 chunks"] = pytest.approx(np.nan, nan_ok=True)  # the lists are short
    assert of_source == {"source": "s", **expected} and macro == {"source": "macro", **expected}
    near = list(kept_rows([sure, unsure], questions, PruneOptions(min_p=0.5)))[0]
    assert near["one gold"] == 0.5 and near["words"] == pytest.approx((1 / 6 + 3 / 6) / 2)
    part = list(kept_rows([sure, unsure], questions, PruneOptions(min_p=1, keep_at_least=0.5)))[0]
    assert part["one gold"] == 0.5 and part["words"] == pytest.approx(3 / 6)
