"""What default pruning keeps, and chunks that attack."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from at2_rag import AT2Pruner
from at2_rag_evals.keeping.attacks import ATTACKS, attacked, victims
from at2_rag_evals.keeping.command import Kept, verdict
from at2_rag_evals.summary import Strata
from tests.evals.labelled_items import make_item, run_eval, write_items
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import calibrated_weights

ITEMS = [make_item(f"item {n}", "-g---", answers=[f"answer {n}"]) for n in range(4)]


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_adds_one_chunk_that_knows_the_question_alone(attack: str) -> None:
    for item, victim in zip(ITEMS, victims(ITEMS), strict=True):
        result = attacked(item, victim, attack)
        [added] = set(result.chunks) - set(item.chunks)
        others = [chunk for chunk in result.chunks if chunk != added]
        assert others == list(item.chunks)
        assert [result.labels[result.chunks.index(chunk)] for chunk in others] == list(item.labels)
        assert not result.labels[result.chunks.index(added)]
        assert item.answers[0] not in added.text
        words = item.query.rstrip("?").split()
        assert item.query in added.text or all(
            word in added.text for word in words if len(word) > 3
        )


def test_gold_that_was_never_lost_may_still_be_lost_as_often_as_the_rule_of_three_says() -> None:
    items = [make_item(f"item {n}", "-g---") for n in range(40)]
    kept = {
        ("none", "at2"): [Kept(all_gold=True, gold_first=True, tokens=0.25)] * 40,
        ("none", "bm25"): [Kept(all_gold=n % 2 == 0, gold_first=True) for n in range(40)],
    }
    result = verdict({"none": Strata(range(40), "none", 0)}, items, kept)
    # 3 / 40 = 7.5 %
    assert result.statement.startswith(
        "In 100.0 % of 40 questions: all of them are kept (95 % interval 92.5 to 100.0 %), with "
        "25.0 % of the tokens. With as many chunks, BM25 keeps all of them in 50.0 % (at2 minus "
        "it: +50.0 points, 95 % interval +"
    )
    assert "rule of three" in result.rule


def test_the_figures_are_those_of_pruning(scoring_folder: Path, tmp_path: Path) -> None:
    weights = calibrated_weights(tiny_model(), tiny_tokenizer(), cosine_weight=0.5)
    weights.save(tmp_path / "weights")
    path = write_items(tmp_path / "items.jsonl", ITEMS)
    options = ("--model", scoring_folder, "--head-weights", tmp_path / "weights")
    output = tmp_path / "out"
    run_eval("keeping", path, *options, "--attack", "echo", "--system", "bm25", "--output", output)
    pruner = AT2Pruner.from_pretrained(scoring_folder, head_weights=weights)
    records = [json.loads(line) for line in (output / "items.jsonl").read_text().splitlines()]
    assert len(records) == 4 * 2 * 2
    for record in records:
        item = ITEMS[int(record["id"].split()[1])]
        if record["attack"] == "echo":
            item = attacked(item, victims(ITEMS)[ITEMS.index(item)], "echo")
        result = pruner.prune(item.query, item.chunks)
        if record["system"] == "at2":
            gold = item.labels.index(True)
            assert record["all_gold"] == (gold in [each.index for each in result.kept])
            assert record["tokens"] == pytest.approx(result.tokens_after / result.tokens_before)
            assert record["answerable"] == pytest.approx(result.answerable, abs=1e-3)
        else:
            assert record["tokens"] is record["answerable"] is None
    report = json.loads((output / "keeping.json").read_text())
    shares = {
        (attack, system): sum(
            record["all_gold"]
            for record in records
            if (record["attack"], record["system"]) == (attack, system)
        )
        / 4
        for attack in ("none", "echo")
        for system in ("at2", "bm25")
    }
    [verdict] = report["verdicts"]
    assert verdict["answer"] == f"In {100 * shares['none', 'at2']:.1f} % of 4 questions"
    baseline, attack = verdict["reasons"][1:]
    kept = "With as many chunks, BM25 keeps all of them in"
    assert baseline.startswith(f"{kept} {100 * shares['none', 'bm25']:.1f} % (at2 minus it: ")
    kept = "Under the worst attack, echo, at2 keeps all of them in"
    assert attack == f"{kept} {100 * shares['echo', 'at2']:.1f} %."
