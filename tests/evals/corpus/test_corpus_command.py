"""`at2-rag eval corpus` from documents to report, with real systems over tiny models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from at2_rag.data.examples import read_examples
from at2_rag.errors import DataError
from tests.evals.labelled_items import run_eval
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import calibrated_weights

PAGES = {
    "emma": "Emma is a novel that Jane Austen wrote, and it has 55 chapters. ",
    "sea": "The sea is a novel that John Banville wrote in the year 2005. ",
    "owl": "An owl sleeps all day and hunts at night, which few birds do. ",
    "oak": "An oak may stand for 800 years, and it feeds many kinds of moth. ",
    "tin": "Tin melts at 232 degrees, so that it is easily cast at home. ",
}
FILLER = "This page of the handbook says more about {}, in plain words. "


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "secret folder" / "docs"
    folder.mkdir(parents=True)
    for name, text in PAGES.items():
        (folder / f"{name}.md").write_text(f"# {name.title()}\n\n{text}{4 * FILLER.format(name)}\n")
    (folder / "chart.svg").write_text("<svg/>")
    return folder


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    lines = [
        {"id": "who", "question": "Who wrote Emma, by the handbook?", "answers": ["Jane Austen"]},
        {
            "id": "when",
            "question": "When was The sea written, by the handbook?",
            "quotes": ["in the year 2005"],
        },
        {
            "id": "owl",
            "question": "When do owls hunt, by the handbook?",
            "gold": ["owl.md"],
            "answers": ["night"],
        },
        # BM25 matches no word of its gold chunk.
        {"id": "tree", "question": "What lives longest?", "answers": ["800 years"]},
        {"id": "absent", "question": "Who wrote Persuasion?", "answers": ["Anne Elliot"]},
        {"id": "untold", "question": "Is tin a metal?", "answers": ["yes"]},
        {"id": "none", "question": "Who wrote the handbook?", "unanswerable": True},
    ]
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_from_documents_to_report(
    docs: Path, questions: Path, tmp_path: Path, model_folder: Path, embedding_folder: Path
) -> None:
    output = tmp_path / "other folder" / "results"
    weights = calibrated_weights(tiny_model(), tiny_tokenizer(), cosine_weight=0.5)
    weights.save(tmp_path / "weights")
    options = (
        *(questions, docs, "--output", output, "--retrieve", 4, "--model", model_folder),
        *("--head-weights", tmp_path / "weights", "--embedding-model", embedding_folder),
        *("--embedding", f"other={embedding_folder}", "--generator", model_folder),
    )
    report = json.loads(run_eval("corpus", *options, "--json").stdout)
    assert report == json.loads((output / "corpus.json").read_text())
    assert report["command"].startswith("at2-rag eval corpus own.jsonl --output results")
    assert " docs --retrieve 4 " in report["command"]
    documents = report["settings"]["documents"]
    assert (documents["documents"], documents["chunks"]) == (5, 5)
    assert documents["skipped"] == {".svg": 1}
    asked = [verdict["question"] for verdict in report["verdicts"]]
    assert [question.partition(" ")[0] for question in asked] == ["Does", "Does", "Does", "Do"]
    items = [json.loads(line) for line in (output / "items.jsonl").read_text().splitlines()]
    gold = {item["id"]: item["gold"] for item in items if item["gold"]}
    assert gold == {"who": ["emma.md#1"], "when": ["sea.md#1"], "owl": ["owl.md#1"]} | {
        "tree": ["oak.md#1"]
    }
    built = read_examples(output / "retrieved.jsonl")
    missed = (output / "not_retrieved.jsonl").read_text().splitlines()
    outcomes = {item["id"]: item["outcome"] for item in items}
    assert [example.id for example in built] == [
        name for name, outcome in outcomes.items() if outcome in ("retrieved", "unanswerable")
    ]
    assert len(missed) == list(outcomes.values()).count("not retrieved")
    assert [outcomes[name] for name in ("who", "absent", "untold", "none")] == [
        *("retrieved", "not in the documents", "nothing tells its gold", "unanswerable"),
    ]
    for example in built:
        assert [chunk.id for chunk in example.gold] == gold.get(example.id, [])
    ranking = json.loads((output / "ranking" / "ranking.json").read_text())
    systems = ["random", "first_k", "bm25", "minilm", "other", "all_heads_mean", "at2"]
    assert list(ranking["settings"]["systems"]) == systems
    judged = sum(outcome == "retrieved" for outcome in outcomes.values())
    assert ranking["sets"][0]["items"] == {"own": judged}
    qa = json.loads((output / "qa" / "summary.json").read_text())
    assert {"other", "at2_adaptive"} <= qa["settings"]["pruners"].keys()
    kept = json.loads((output / "keeping" / "keeping.json").read_text())
    assert kept["settings"]["systems"] == ["bm25", "minilm", "other"]
    markdown = (output / "corpus.md").read_text()
    first = report["verdicts"][0]
    assert markdown.startswith(f"# Corpus eval\n\n**{first['question']} {first['answer']}:** ")
    assert "Files that were not read: 1 .svg." in markdown
    files = (path.read_text() for path in output.rglob("*") if path.suffix in (".json", ".md"))
    assert "secret folder" not in "".join(files)


def test_without_minilm_and_calibration_less_is_judged(
    docs: Path,
    questions: Path,
    tmp_path: Path,
    model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("at2_rag_evals.rankers.embedding.find_spec", lambda name: None)
    output = tmp_path / "results"
    options = (questions, docs, "--model", model_folder, "--head-weights", "uniform")
    result = run_eval("corpus", *options, "--output", output)
    assert "For 3 of 4 questions: with its best 20 chunks BM25 for 3." in " ".join(
        result.stdout.split()
    )
    assert "since the head weights aren't calibrated" in (output / "corpus.md").read_text()
    assert not (output / "keeping").exists() and not (output / "qa").exists()
    [missed] = map(json.loads, (output / "not_retrieved.jsonl").read_text().splitlines())
    assert missed["id"] == "tree"
    ranking = json.loads((output / "ranking" / "ranking.json").read_text())
    assert "minilm" not in ranking["settings"]["systems"]


def test_questions_without_gold_are_refused(
    docs: Path, tmp_path: Path, embedding_folder: Path
) -> None:
    options = ("--embedding-model", embedding_folder)
    path = tmp_path / "own.jsonl"
    path.write_text('{"question": "Who wrote Persuasion?", "answers": ["Anne Elliot"]}')
    with pytest.raises(DataError, match="no gold chunk was retrieved for any of 1 .*Of 1 more"):
        run_eval("corpus", path, docs, "--output", tmp_path / "results", *options)
