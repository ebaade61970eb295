"""Whether sentences keep the answer: against the pruner's own results, read by hand."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from at2_rag.data.examples import Example
from at2_rag.errors import DataError
from at2_rag.pruner import AT2Pruner
from at2_rag.text.chunks import Chunk
from at2_rag_evals.cli import eval_group
from at2_rag_evals.trimming.judging import is_verbatim, judge_trimming, trimmable_items
from at2_rag_evals.trimming.request import Cut
from tests.evals.labelled_items import write_items

TEXTS = [
    "The sea is wide. Jane Austen wrote Emma. A novel is long.",
    "The novel is of the sea. Who wrote it is unknown.",
    "Emma is a novel. The sea of Emma is wide and the novel is too.",
    "A lamp and a tower. The owl of the mill.",
]


def example(number: int, answers: tuple[str, ...] = ("Jane Austen",)) -> Example:
    turned = TEXTS[number % 4 :] + TEXTS[: number % 4]
    return Example(
        id=str(number),
        source="novels" if number % 2 else "seas",
        query=f"who wrote the novel emma of {number}",
        chunks=tuple(map(Chunk, turned)),
        labels=tuple("Austen" in text for text in turned),
        answers=answers,
    )


@pytest.fixture(scope="module")
def pruner(scoring_folder: Path) -> AT2Pruner:
    return AT2Pruner.from_pretrained(scoring_folder, head_weights="uniform")


def test_both_ways_are_read_for_the_answer(pruner: AT2Pruner) -> None:
    items = [example(number) for number in range(6)]
    cuts = (Cut(share=0.8), Cut(share=0.3))
    actual = judge_trimming(pruner, items, top_k=(1, 2), cuts=cuts)
    assert list(actual) == [(count, cut) for count in (1, 2) for cut in cuts]
    for (count, way), every in actual.items():
        for item, each in zip(items, every, strict=True):
            whole = pruner.prune(item.query, item.chunks, top_k=count)
            assert each.chunk_tokens == whole.tokens_after
            assert each.in_chunks == any("Jane Austen" in kept.text for kept in whole.kept)
            most = max(1, int((way.share or 0) * whole.tokens_after))
            cut = pruner.prune(item.query, item.chunks, unit="sentence", max_tokens=most)
            assert each.sentence_tokens == cut.tokens_after
            assert each.sentence_tokens <= most
            assert each.in_sentences == ("Jane Austen" in cut.context)
            assert each.verbatim
    assert len({each.in_sentences for every in actual.values() for each in every}) == 2


def test_what_is_no_longer_the_text_is_seen() -> None:
    text = "One two. Three four. Five."
    assert is_verbatim(text, text, None)
    assert is_verbatim(text, "One two. … Five.", [(0, 8), (21, 26)])
    assert not is_verbatim(text, "One two. … Six.", [(0, 8), (21, 26)])
    assert not is_verbatim(text, "One two. and Five.", [(0, 8), (21, 26)])
    assert not is_verbatim(text, "One two. … Five. More", [(0, 8), (21, 26)])
    assert not is_verbatim(text, "One two.", None)


def test_items_without_an_answer_to_find_are_left_out() -> None:
    items = trimmable_items(
        [
            example(1),
            example(3, ()),
            example(5, ("yes",)),
            example(7, ("Charlotte Bronte",)),
            dataclasses.replace(example(9), long_form=True),
        ]
    )
    assert [item.id for item in items.items] == ["1"]
    assert items.left_out == {
        "novels": {
            "no answer to look for": 2,
            "no chunk holds the answer": 1,
            "long-form answer": 1,
        }
    }


def test_the_command_reports_what_was_judged(scoring_folder: Path, tmp_path: Path) -> None:
    path = write_items(tmp_path / "items.jsonl", list(map(example, range(8))))
    command = ["trimming", str(path), "--model", str(scoring_folder), "--head-weights", "uniform"]
    ran = CliRunner().invoke(eval_group, [*command, "--output", str(tmp_path / "out")])
    assert ran.exit_code == 0, ran.output
    assert "all kept text verbatim" in ran.output
    report = json.loads((tmp_path / "out" / "trimming.json").read_text())
    lines = (tmp_path / "out" / "items.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert len(records) == 16
    for figures in report["figures"]:
        each = [row for row in records if row["top_k"] == figures["top_k"]]
        for kind in ("in_chunks", "in_sentences"):
            by_source = [
                sum(row[kind] for row in each if row["source"] == source) / 4
                for source in ("novels", "seas")
            ]
            assert figures[kind]["macro"]["mean"] == pytest.approx(sum(by_source) / 2)
        assert figures["changed"] == 0
    assert str(tmp_path) not in json.dumps(report)
    refused = CliRunner().invoke(eval_group, [*command, "--min-probability", "0.5"])
    assert "aren't calibrated" in str(refused.exception)
    write_items(path, [example(1, ())])
    nothing = CliRunner().invoke(eval_group, command)
    assert isinstance(nothing.exception, DataError)
    assert "none of the 1 items can be judged" in str(nothing.exception)
