"""The page of a training run: what it says, and that it needs nothing else."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from at2_rag.report.training_page import training_page, training_verdict

AS_RETRIEVED = {"ndcg_at_10": 0.4, "gold_first": 0.25}


def training_record(**changes: Any) -> dict[str, Any]:
    """Return a record, as a run writes it, with two designs, two passes and dev figures."""
    record = json.loads(Path(__file__).with_name("training.json").read_text())
    return {**record, **changes}


def ablation_record() -> dict[str, Any]:
    """Return a record of training on ablations; one design has no faithfulness."""
    over = "chunks that add at least 1.0 nats"
    record = training_record(reading="joint", judged_by="ablation", judged_over=over)
    record["settings"] |= {"signal": "ablation", "target": "answer"}
    for row, faithful in zip(record["candidates"], (None, 0.432), strict=True):
        row |= {"objective": "drops", "faithfulness": faithful}
    return record


def text_of(record: dict[str, Any]) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", training_page(record)).split())


@pytest.mark.parametrize("record", [training_record(), ablation_record()])
def test_the_page_is_well_formed_loads_nothing_and_is_the_same_each_time(
    record: dict[str, Any],
) -> None:
    page = training_page(record)
    begun = Counter(re.findall(r"<(\w[\w:]*)[^>]*(?<!/)>", page))
    del begun["meta"]
    assert begun == Counter(re.findall(r"</([\w:]+)>", page))
    loads = re.findall(r"""(?:src|href)=["']([^"']*)""", page)
    assert all(load.startswith(("#", "data:image/png;base64,")) for load in loads)
    assert "<script" not in page and "<link" not in page and "@import" not in page
    assert "url(" not in re.sub(r"url\(#\w+\)", "", page)
    assert "default-src 'none'" in page
    assert training_page(record) == page


def test_designs_facts_dev_figures_and_plots_are_on_it() -> None:
    text = text_of(training_record())
    for part in (
        "Features nDCG@10 Layers Ridge novels seas",
        "log:together+apart 0.700 3 0.003 0.600 0.800",
        "log:together+apart (chosen) 0.812",
        "Macro mean 42 0.901 0.750",
        "at2-rag train novels.jsonl --output out",
        "1,200 (novels 1,000, seas 200)",
        "34 without both gold and other chunks",
        "Left out: 3 without gold.",
        "1,500 MB",
        "Pass: apart",
    ):
        assert part in text
    order = ("Yes:", "Macro mean", "Designs tried", "Pass: apart", "at2-rag train novels.jsonl")
    assert list(order) == sorted(order, key=text.index)  # verdict first, provenance last
    assert not re.search("faithfulness|ablations|answers|examples share", text, re.I)
    assert training_page(training_record()).count("<svg ") == 2  # a map for each pass


def test_ablations_have_objective_and_faithfulness() -> None:
    text = text_of(ablation_record())
    for part in (
        "Features nDCG@10 Objective Layers Ridge Faithfulness novels seas",
        "0.700 drops 3 0.003 – 0.600 0.800",
        "0.812 drops 3 0.03 0.432",
        "Reading joint",
        "generated, of at most 24",
    ):
        assert part in text


def test_what_a_teacher_ranks_first_is_not_called_gold() -> None:
    over = "the chunks that the teacher ranks first"
    record = training_record(judged_by="teacher", judged_over=over, dev=None)
    record["settings"] |= {"signal": "teacher"}
    for row in record["candidates"]:
        row |= {"objective": "teacher", "faithfulness": None}
    text = text_of(record)
    assert f"{over} count as relevant." in text
    assert "Features nDCG@10 Objective Layers Ridge novels seas" in text
    assert not re.search("faithfulness|ablations|gold chunks", text, re.I)
    verdict = training_verdict(record)
    assert verdict.figures == (("0.812", "nDCG@10 of the teacher's best chunk out of fold"),)


@pytest.mark.parametrize(
    ("interval", "answer"),
    [
        ([0.45, 0.55], "Yes"),
        ([-0.02, 0.1], "Can't tell from 42 dev questions"),
        ([-0.2, -0.1], "No"),
        (None, "Can't tell from 42 dev questions"),
    ],
)
def test_weights_are_judged_against_the_order_of_retrieval(
    interval: list[float] | None, answer: str
) -> None:
    record = training_record()
    record["dev"] |= {"gain_interval": interval, "as_retrieved": {**AS_RETRIEVED}}
    verdict = training_verdict(record)
    assert verdict.question == "Do these head weights for tiny rank well?"
    assert verdict.answer == answer
    within = "without an interval"
    if interval is not None:
        within = f"95 % interval {interval[0]:+.3f} to {interval[1]:+.3f}"
    assert verdict.reasons[0] == (
        "on 42 dev questions nDCG@10 is 0.901, against 0.400 for the order in which the chunks "
        f"were retrieved (+0.501, {within})."
    )
    assert "fewer than ten clusters have no interval" in verdict.rule
    assert "They aren't calibrated" in verdict.reasons[-1]
    assert verdict.figures[1] == ("75.0 %", "gold ranked first on dev; 25.0 % as retrieved")


def test_without_dev_questions_or_for_answers_there_is_no_verdict() -> None:
    verdict = training_verdict(training_record(dev=None))
    assert verdict.answer == "No verdict" and "pass --dev FILE" in verdict.statement
    assert verdict.rule == ""
    assert verdict.figures == (("0.812", "nDCG@10 out of fold"),)
    record = {**ablation_record(), "dev": None}
    verdict = training_verdict(record)
    assert verdict.answer == "No verdict" and "calibrat" not in verdict.statement
    assert verdict.figures[1] == ("0.432", "faithfulness out of fold")


def test_what_is_missing_or_doubtful_is_said() -> None:
    run = {**training_record()["run"], "peak_memory_mb": None}
    text = text_of(training_record(dev=None, left_out={}, run=run))
    for part in ("No dev files", "not known on this system"):
        assert part in text
    record = training_record(head_importance={"passes": ["joint"], "values": [[[0.0]]]})
    record["dev"]["shared_with_training"] = 1234
    assert "1,234 of the dev examples share a gold passage" in text_of(record)
    assert "But 1,234 of the dev questions share" in training_verdict(record).statement


def test_names_from_outside_are_text() -> None:
    record = training_record(samples={"<script>alert(1)</script>": 1})
    record["data"][0]["name"] = "<img src=x onerror=alert(1)>.jsonl"
    record["settings"]["model"] = "a & b </title><script>"
    page = training_page(record)
    assert "<script" not in page and "<img" not in page
    assert "a &amp; b &lt;/title&gt;" in page
