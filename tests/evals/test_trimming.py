"""Whether sentences keep the answer: against the pruner's results, read by hand."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from at2_rag.data.bootstrap import Estimate
from at2_rag.data.examples import Example
from at2_rag.errors import AT2Error, DataError
from at2_rag.pruner import AT2Pruner
from at2_rag.text.chunks import Chunk
from at2_rag_evals.trimming.command import TrimmingFigures, verdict
from at2_rag_evals.trimming.judging import is_verbatim, judge_trimming, trimmable_items
from at2_rag_evals.trimming.request import Cut
from tests.evals.labelled_items import run_eval, write_items

TEXTS = [
    "The sea is wide and so deep. Jane Austen wrote the novel Emma. A novel is a very long text.",
    "The novel is of the sea. Who wrote it is unknown.",
    "Emma is a novel. The sea of Emma is wide and the novel is too.",
    "A lamp and a tower. The owl of the mill.",
]


def example(number: int, *answers: str) -> Example:
    turned = TEXTS[number % 4 :] + TEXTS[: number % 4]
    return Example(
        id=str(number),
        source="novels" if number % 2 else "seas",
        query=f"who wrote the novel emma of {number}",
        chunks=tuple(map(Chunk, turned)),
        labels=tuple("Austen" in text for text in turned),
        answers=answers,
    )


def test_both_ways_are_read_for_the_answer(model_folder: Path) -> None:
    pruner = AT2Pruner.from_pretrained(model_folder, head_weights="uniform")
    items = [example(number, "Jane Austen") for number in range(6)]
    shares = {Cut(share=0.8): 0.8, Cut(share=0.3): 0.3}
    actual = judge_trimming(pruner, items, top_k=(1, 2), cuts=list(shares))
    assert list(actual) == [(count, cut) for count in (1, 2) for cut in shares]
    for (count, cut), results in actual.items():
        for item, result in zip(items, results, strict=True):
            whole = pruner.prune(item.query, item.chunks, top_k=count)
            assert result.chunk_tokens == whole.tokens_after
            assert result.in_chunks == any("Jane Austen" in kept.text for kept in whole.kept)
            most = max(1, int(shares[cut] * whole.tokens_after))
            sentences = pruner.prune(item.query, item.chunks, unit="sentence", max_tokens=most)
            assert result.sentence_tokens == sentences.tokens_after <= most
            assert result.in_sentences == ("Jane Austen" in sentences.context)
            assert result.verbatim
    assert len({result.in_sentences for results in actual.values() for result in results}) == 2


def figures(
    mean: float,
    low: float,
    high: float,
    tokens: float,
    *,
    top_k: int = 3,
    changed: int = 0,
    n: int = 500,
) -> TrimmingFigures:
    """Return figures of n items of which whole chunks hold the answer in nine of ten."""

    def estimates(share: float, low: float, high: float) -> dict[str, Estimate]:
        return {"macro": Estimate(share, low, high, n, n)}

    of_chunks, of_sentences = estimates(0.9, 0.87, 0.93), estimates(0.9 + mean, 0.8, 1.0)
    return TrimmingFigures(
        top_k=top_k,
        cut=f"cut {tokens:g}",
        in_chunks=of_chunks,
        in_sentences=of_sentences,
        difference=estimates(mean, low, high),
        chunk_tokens={"macro": 400.0},
        sentence_tokens={"macro": tokens},
        changed=changed,
    )


def test_the_verdict_is_the_most_that_can_be_saved_without_loss() -> None:
    safe, safest = figures(0.0, -0.01, 0.01, 200), figures(0.01, 0.0, 0.02, 300)
    risky, bad = figures(-0.03, -0.07, 0.01, 100), figures(-0.2, -0.25, -0.15, 20)
    assert verdict([safest, safe, risky, bad]).statement == (
        "Yes: sentences (cut 200) hold the answer to 90.0 % of the questions, the best 3 chunks "
        "hold it for 90.0 % (+0.0 points, 95 % interval -1.0 to +1.0); the sentences have 50 % "
        "fewer tokens."
    )
    unclear = verdict([risky, bad])
    assert unclear.answer == "Can't tell from 500 questions" and "7.0 points" in unclear.statement
    assert verdict([bad]).answer == "No"
    assert verdict([figures(0.0, -0.01, 0.01, 400)]).answer == "No"  # saves nothing
    changed = verdict([figures(0.0, -0.01, 0.01, 200, top_k=1, changed=2)])
    assert "the best chunk holds it" in changed.statement
    assert changed.reasons[-1].startswith("In 2 items, kept text isn't verbatim")


def test_the_verdict_shows_the_interval_that_it_rests_on() -> None:
    few = verdict([figures(0.0, 0.0, 0.0, 200, n=60)])  # 3 / 60 = 5 points
    assert few.answer == "Can't tell from 60 questions"
    assert "(+0.0 points, 95 % interval -5.0 to +5.0)" in few.statement
    assert "A loss of 5.0 points can't be excluded" in few.statement
    assert "rule of three" in few.rule


@pytest.mark.parametrize(
    ("kept", "verbatim"),
    [
        ("One two. … Five.", True),
        ("One two. … Six.", False),
        ("One two. and Five.", False),
        ("One two. … Five. More", False),
    ],
)
def test_text_that_is_not_verbatim_is_noticed(kept: str, verbatim: bool) -> None:
    text = "One two. Three four. Five."
    assert is_verbatim(text, kept, [(0, 8), (21, 26)]) == verbatim
    assert is_verbatim(text, text, None) and not is_verbatim(text, "One two.", None)


def test_items_without_an_answer_to_find_are_left_out() -> None:
    usable = example(1, "Jane Austen")
    long_form = dataclasses.replace(example(9, "Jane Austen"), long_form=True)
    others = [example(3), example(5, "yes"), example(7, "Charlotte Bronte"), long_form]
    items = trimmable_items([usable, *others])
    assert items.items == (usable,)
    assert items.left_out == {
        "novels": {
            "no answer to look for": 2,
            "no chunk holds the answer": 1,
            "long-form answer": 1,
        }
    }


def test_the_command_reports_what_was_judged(model_folder: Path, tmp_path: Path) -> None:
    items = [example(number, "Jane Austen") for number in range(8)]
    path, output = write_items(tmp_path / "items.jsonl", items), tmp_path / "out"
    command = ("trimming", path, "--model", model_folder, "--head-weights", "uniform")
    assert "all kept text verbatim" in run_eval(*command, "--output", output).stdout
    report = json.loads((output / "trimming.json").read_text())
    records = [json.loads(line) for line in (output / "items.jsonl").read_text().splitlines()]
    assert len(records) == 16
    for figures in report["figures"]:
        rows = [row for row in records if row["top_k"] == figures["top_k"]]
        for kind in ("in_chunks", "in_sentences"):
            assert figures[kind]["macro"]["mean"] == pytest.approx(sum(r[kind] for r in rows) / 8)
        mean = sum(row["chunk_tokens"] for row in rows) / 8
        assert figures["chunk_tokens"]["macro"] == pytest.approx(mean)
        assert figures["changed"] == 0
    [answer] = report["verdicts"]
    assert answer["answer"] == "Can't tell from 8 questions"
    markdown = (output / "trimming.md").read_text()
    assert markdown.splitlines()[2].startswith(f"**{answer['question']} {answer['answer']}:** ")
    assert "at2-rag eval trimming" in markdown.partition("## Where the figures come from")[2]
    assert str(tmp_path) not in json.dumps(report)
    with pytest.raises(AT2Error, match="aren't calibrated"):
        run_eval(*command, "--min-probability", "0.5")
    write_items(path, [example(1)])
    with pytest.raises(DataError, match="none of the 1 items can be judged"):
        run_eval(*command)
