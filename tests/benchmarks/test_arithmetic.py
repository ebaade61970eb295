"""The benchmarks' figures against numbers by hand."""

from __future__ import annotations

import click
import keeping_rules
import numpy as np
import pytest
from click.testing import CliRunner
from floor import floor_case
from memory import peak_of
from models import make_pruner
from prompts import Prompt, PromptSet
from report import Row, exponent, growth_notes, markdown_table, share_note
from speed import call_row, floor_row, main, other_row, stage_row
from timing import UNIT, Spread, TimedRun, slow_interval, time_cases

from at2_rag import Chunk, ChunkCache
from at2_rag.data.examples import Example
from at2_rag.model.loading import LoadedModel
from at2_rag.prompt.layout import PromptBuilder
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


SURE = {"first": [0.9, 0.05, 0.05], "gold": [True, False, False]}
UNSURE = {"first": [0.6, 0.5, 0.4], "gold": [False, False, True]}


def test_keeping_by_share_and_by_number() -> None:
    records = [
        {"source": "s", "tokens": [1, 2, 3], "second": record["first"], **record}
        for record in (SURE, UNSURE)
    ]
    [row] = keeping_rules.by_source(records)
    # Of the second question .6, .27 and 0 are missed, as a share; .9, .4 and 0 as a number.
    assert row == {
        "source": "s",
        "questions": 2,
        "all gold, by number": 0.5,
        "tokens, by number": pytest.approx((1 / 6 + 3 / 6) / 2),
        "all gold kept": 1.0,
        "interval": "0.34 to 1.00",  # n / (n + 1.96 ** 2)
        "tokens kept": pytest.approx((1 / 6 + 1) / 2),
    }
    by_number, best, enough, *_ = keeping_rules.judged(
        [*records, {**records[0], "source": "other"}]
    )
    assert best["tokens kept"] == 1 and enough["all gold kept"] == 1
    assert enough["tokens kept"] == pytest.approx(((1 / 6 + 1) / 2 + 1 / 6) / 2)
    assert by_number["all gold kept"] == 0.75 and by_number["least of a source"] == 0.5
    assert by_number["gold interval"] == "0.50 to 1.00"


def test_no_question_was_fitted_on() -> None:
    def example(number: int, source: str, query: str, gold: str) -> Example:
        chunks = (Chunk(gold), *map(Chunk, "abc"))
        return Example(str(number), source, query, chunks, (True, False, False, False))

    trained_on = [example(n, "train", f"question {n}", f"gold {n}") for n in range(280)]
    left = keeping_rules.without_fitted(trained_on, trained_on)
    assert len(left) == 280 - keeping_rules.FITTED - keeping_rules.CALIBRATED
    unused = {one.id for one in left}
    again = [
        *(example(n, "other", f"question {n}", f"other gold {n}") for n in range(280)),
        *(example(n + 280, "other", f"another question {n}", f"gold {n}") for n in range(280)),
    ]
    kept = keeping_rules.without_fitted(again, trained_on)
    assert [one.id for one in kept] == [one.id for one in again if str(int(one.id) % 280) in unused]
    drawn = {one.id for one in keeping_rules.drawn(left, 5)}
    assert len(drawn) == 5 and drawn < {one.id for one in keeping_rules.drawn(left, 9)}
    assert keeping_rules.without_fitted(trained_on, []) == trained_on
