"""`at2-rag train --signal teacher`, from files to head weights, with a tiny real model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from at2_rag import HeadWeights
from at2_rag.data.examples import Example
from at2_rag.training.commands.record import PAGE_FILE
from tests.training.commands.train_runs import (
    CHUNKS,
    FILES,
    QUERY,
    bytes_of,
    last_line,
    provenance,
    pruner,
    record,
    train,
    trained,
)
from tests.training.planted_examples import planted_examples, taught_examples, write_examples

TEACHER = ("--signal", "teacher", "--features", "log:together+apart")


def folder_of(data: Path, folder: Path, *sets: list[Example], labelled: bool) -> Path:
    """Write the model and two files of examples to a folder."""
    folder.mkdir()
    (folder / "tiny").symlink_to(data / "tiny")
    for name, examples in zip(FILES, sets, strict=True):
        write_examples(folder / name, examples, labelled=labelled)
    return folder


@pytest.fixture(scope="module")
def unlabelled(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data sets with a teacher's scores, without labels and answers."""
    folder = tmp_path_factory.mktemp("unlabelled") / "data"
    sets = [taught_examples([source]) for source in ("novels", "seas")]
    return folder_of(data, folder, *sets, labelled=False)


def test_no_label_is_needed_and_the_report_says_what_was_judged(
    data: Path, unlabelled: Path, tmp_path: Path
) -> None:
    output = trained(unlabelled, *TEACHER, output=tmp_path / "out")
    known = record(output)
    assert {row["objective"] for row in known["candidates"]} == {"teacher"}
    assert (known["judged_by"], known["samples"]) == ("teacher", {"novels": 8, "seas": 8})
    assert known["judged_over"] == "the chunks that the teacher ranks first"
    assert max(row["ndcg_at_10"] for row in known["candidates"]) > 0.9
    page = (output / PAGE_FILE).read_text()
    assert "nDCG@10 of the teacher&#39;s best chunk out of fold" in page
    assert "the chunks that the teacher ranks first count as relevant." in page
    assert "Faithfulness" not in page and "Ablations" not in page
    assert provenance(output)["signal"] == "teacher" and "masks" not in provenance(output)
    short, long = (scored.score for scored in pruner(data, output).score(QUERY, CHUNKS))
    assert long > short, "as the teacher would have it"
    again = trained(unlabelled, *TEACHER, output=tmp_path / "again")
    before, after = bytes_of(output), bytes_of(again)
    assert before["head_weights.safetensors"] == after["head_weights.safetensors"]


def test_gold_labels_judge_where_there_are_any(
    data: Path, unlabelled: Path, tmp_path: Path
) -> None:
    """One source is labelled, the other has a teacher's scores alone."""
    labels = planted_examples(["novels"], each=12)
    scored = [replace(one, labels=(False,) * 5) for one in taught_examples(["seas"])]
    folder = folder_of(data, tmp_path / "data", labels, scored, labelled=True)
    output = trained(folder, *TEACHER, output=tmp_path / "out")
    known = record(output)
    assert {row["objective"] for row in known["candidates"]} == {"mixed", "evidence", "teacher"}
    assert known["judged_by"] == "gold" and known["samples"] == {"novels": 12, "seas": 8}
    assert all(set(row["by_source"]) == {"novels"} for row in known["candidates"])
    assert "nDCG@10 out of fold" in (output / PAGE_FILE).read_text()
    # Of a teacher with no example of its own, and evidence, what is read is the same.
    alone = folder_of(data, tmp_path / "alone", labels, taught_examples(["seas"]), labelled=True)
    evidence = ("--objective", "evidence", "--collected", tmp_path / "features")
    one = trained(alone, *TEACHER, *evidence, output=tmp_path / "one")
    plain = ("--features", TEACHER[-1])
    other = trained(alone, *plain, output=tmp_path / "other")
    assert (HeadWeights.load(one).weight == HeadWeights.load(other).weight).all()


def test_what_a_teacher_cannot_teach_is_refused(
    data: Path, unlabelled: Path, tmp_path: Path
) -> None:
    line = last_line(train(data, *TEACHER, output=tmp_path / "a"))
    assert "in none of the 16 examples do chunks have teacher scores that differ" in line
    line = last_line(train(unlabelled, *TEACHER, "--objective", "mixed", output=tmp_path / "b"))
    assert "the objective 'mixed' needs gold labels, and none of the 16 examples has" in line
    line = last_line(train(unlabelled, *TEACHER, "--masks", 3, output=tmp_path / "c"))
    assert "--masks 3 with --signal teacher, which ablates nothing" in line
    line = last_line(train(unlabelled, *TEACHER, "--target", "answer", output=tmp_path / "d"))
    assert "the target 'answer' is learned from ablated answers" in line
