"""The page of a training run: what it says, and that it needs nothing else."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from at2_rag.report.training_page import training_page
from tests.report.training_records import ablation_record, training_record

_VOID = {"meta", "link", "br", "hr", "img", "input"}


class Reader(HTMLParser):
    """Reads a page: its tables, and what it would load; every element must be closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.loads: list[str] = []
        self.counts: dict[str, int] = {}
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        if tag not in _VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        for name, value in attrs:
            inside = name.endswith(":href") and (value or "").startswith("#")
            if name in ("src", "href") or (name.endswith(":href") and not inside):
                self.loads.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open[-1:]):
            self.rows[-1][-1] += data


def text_of(record: dict[str, Any]) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", training_page(record)).split())


@pytest.mark.parametrize("record", [training_record(), ablation_record()])
def test_the_page_loads_nothing_and_is_the_same_each_time(record: dict[str, Any]) -> None:
    page = training_page(record)
    reader = Reader(page)
    assert all(load.startswith("data:image/png;base64,") for load in reader.loads)
    assert "script" not in reader.counts and "link" not in reader.counts
    assert "url(" not in re.sub(r"url\(#\w+\)", "", page) and "@import" not in page
    assert "default-src 'none'" in page
    assert training_page(record) == page


def test_designs_facts_dev_figures_and_plots_are_on_it() -> None:
    reader, text = Reader(training_page(training_record())), text_of(training_record())
    assert ["Features", "nDCG@10", "Layers", "Ridge", "novels", "seas"] in reader.rows
    first, chosen = reader.rows[1:3]
    assert first == ["log_ratio:together+apart", "0.700", "3", "0.003", "0.600", "0.800"]
    assert chosen[0] == "log_ratio:together+apart (chosen)" and chosen[1] == "0.812"
    assert ["novels", "40", "0.911", "0.500"] in reader.rows
    assert ["Macro mean", "42", "0.901", "0.750"] in reader.rows
    assert reader.counts["svg"] == 3  # a curve, and a map for each pass
    for part in (
        "at2-rag train novels.jsonl --output out",
        "novels.jsonl (1,234)",
        "1,200 (novels 1,000, seas 200)",
        "34 without both gold and other chunks",
        "Left out: 3 without gold.",
        "reading 1,234.5",
        "1,500 MB",
        "at2-rag 0.1.0",
        "0.765",
        "Pass: apart",
    ):
        assert part in text
    assert not re.search("faithfulness|ablations|answers|share a gold passage", text, re.I)


def test_ablations_have_objective_faithfulness_and_a_second_curve() -> None:
    record = ablation_record()
    reader, text = Reader(training_page(record)), text_of(record)
    assert reader.counts["svg"] == 4
    assert reader.rows[0][2] == "Objective" and "Faithfulness" in reader.rows[0]
    assert "–" in reader.rows[1] and "0.432" in reader.rows[2]
    for part in ("Reading joint", "32 random masks", "generated, of at most 24", "1.0 nats"):
        assert part in text
    record["settings"]["answers"] = "reference"
    assert "Answers reference Data" in text_of(record)


def test_what_is_missing_or_doubtful_is_said() -> None:
    run = {**training_record()["run"], "peak_memory_mb": None}
    record = training_record(dev=None, learning_curve=[], left_out={}, run=run)
    for part in ("No dev files", "too few samples for a curve", "not known on this system"):
        assert part in text_of(record)
    record = training_record(head_importance={"passes": ["joint"], "values": [[[0.0]]]})
    record["dev"]["shared_with_training"] = 1234
    assert "1,234 of the dev examples share a gold passage" in text_of(record)


def test_names_from_outside_are_text() -> None:
    record = training_record(samples={"<script>alert(1)</script>": 1})
    record["data"][0]["name"] = "<img src=x onerror=alert(1)>.jsonl"
    record["settings"]["model"] = "a & b </title><script>"
    page = training_page(record)
    assert "script" not in Reader(page).counts and "img" not in Reader(page).counts
    assert "a &amp; b &lt;/title&gt;" in page
