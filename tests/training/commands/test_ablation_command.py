"""`at2-rag train --signal ablation|both`, from files to head weights, with a tiny real model."""

from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from at2_rag.cli.group import main
from at2_rag.training.fitting import ablation_validation
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.training.commands.test_train_command import (
    CHUNKS,
    PAGE_FILE,
    QUERY,
    bytes_of,
    cache,
    place,
    process,
    provenance,
    pruner,
    record,
    results,
    train,
)
from tests.training.planted_examples import planted_examples, write_examples

__all__ = ["cache", "place", "process"]

FEATURES = ("--features", "log_mass:together", "--masks", 6, "--answer-tokens", 4)
ABLATION = ("--signal", "ablation", *FEATURES)


@pytest.fixture(autouse=True)
def small_effects(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model hardly heeds its chunks."""
    monkeypatch.setattr(ablation_validation, "LEAST_CONTRIBUTION", 1e-3)


def without_labels(folder: Path) -> Path:
    """Take labels and answers out of the data."""
    for path in folder.glob("*.jsonl"):
        items = [json.loads(line) for line in path.read_text().splitlines()]
        for item in items:
            item.pop("answers", None)
            for chunk in item["chunks"]:
                del chunk["is_gold"]
        path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return folder


def test_labels_and_answers_are_not_needed_and_change_nothing(place: Path, tmp_path: Path) -> None:
    done = train(place, *ABLATION, output=tmp_path / "labelled")
    assert done.exit_code == 0, done.stderr
    assert (
        "objective" in done.stderr and "contributions" in done.stderr and "pearson" in done.stderr
    )
    bare = tmp_path / "bare"
    shutil.copytree(place / "tiny", bare / "tiny")
    (bare / "novels.jsonl").write_bytes((place / "novels.jsonl").read_bytes())
    (bare / "seas.jsonl").write_bytes(gzip.decompress((place / "seas.jsonl.gz").read_bytes()))
    without_labels(bare)
    (bare / "seas.jsonl.gz").write_bytes(gzip.compress((bare / "seas.jsonl").read_bytes()))
    done = train(bare, *ABLATION, output=tmp_path / "unlabelled")
    assert done.exit_code == 0, done.stderr
    weights = [
        (tmp_path / name / "head_weights.safetensors").read_bytes()
        for name in ("labelled", "unlabelled")
    ]
    assert weights[0] == weights[1]
    scores = [scored.score for scored in pruner(place, tmp_path / "labelled").score(QUERY, CHUNKS)]
    assert len(set(scores)) == 2


def test_what_was_ablated_is_on_record(place: Path, tmp_path: Path) -> None:
    done = train(place, *ABLATION, output=tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    facts = provenance(tmp_path / "out")
    assert (facts["signal"], facts["answers"], facts["masks"]) == ("ablation", "generated", 6)
    chosen = [row for row in results(tmp_path / "out") if row["chosen"]]
    assert len(chosen) == 1 and chosen[0]["objective"] in ("contributions", "drops", "pearson")
    assert facts["cross_validation"]["faithfulness"] == chosen[0]["faithfulness"]
    assert chosen[0]["ndcg_at_10"] == max(row["ndcg_at_10"] for row in results(tmp_path / "out"))


def test_both_uses_labels_and_the_same_readings(place: Path, tmp_path: Path) -> None:
    shared = ("--collected", tmp_path / "readings")
    first = train(place, *ABLATION, *shared, output=tmp_path / "ablation")
    assert first.exit_code == 0, first.stderr
    before = bytes_of(tmp_path / "readings")
    done = train(place, "--signal", "both", *FEATURES, *shared, output=tmp_path / "both")
    assert done.exit_code == 0, done.stderr
    assert bytes_of(tmp_path / "readings") == before
    assert {row["objective"] for row in results(tmp_path / "both")} == {
        "mixed",
        "evidence",
        "contributions",
    }


@pytest.mark.parametrize(
    ("options", "reading", "over"),
    [
        (("--signal", "both"), "independent", "gold chunks"),
        (
            ("--signal", "ablation"),
            "independent",
            "chunks that add at least 0.001 nats to the log-likelihood of the question",
        ),
        (
            ("--signal", "ablation", "--target", "answer", "--features", "mass:joint"),
            "joint",
            "chunks that add at least 0.001 nats to the log-likelihood of the answer",
        ),
    ],
)
def test_record_and_page_say_what_was_judged_and_for_which_reading(
    place: Path, tmp_path: Path, options: tuple[str, ...], reading: str, over: str
) -> None:
    features = () if "answer" in options else FEATURES[:2]
    given = (*options, *features, *FEATURES[2:])
    done = train(place, *given, output=tmp_path)
    assert done.exit_code == 0, done.stderr
    assert (record(tmp_path)["reading"], record(tmp_path)["judged_over"]) == (reading, over)
    assert json.loads((tmp_path / "head_weights.json").read_text())["reading"] == reading
    page = (tmp_path / PAGE_FILE).read_text()
    assert f"nDCG@10 is over {over}." in page and f"<dd>{reading}</dd>" in page
    assert "<dd>generated, of at most 4 tokens</dd>" in page
    facts = provenance(tmp_path)
    assert (facts["answers"], facts["answer_tokens"], facts["masks"]) == ("generated", 4, 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((*ABLATION, "--reading", "joint"), "--signal ablation with --reading joint"),
        (("--signal", "both", "--reading", "joint"), "pass --reading independent"),
    ],
)
def test_joint_reading_is_refused(place: Path, tmp_path: Path, options: Any, message: str) -> None:
    done = train(place, *options, output=tmp_path / "out")
    assert done.exit_code == 1
    assert message in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "option",
    [("--masks", 32), ("--answers", "reference"), ("--answer-tokens", 3)],
)
def test_options_of_ablations_are_refused_with_evidence(
    place: Path, tmp_path: Path, option: tuple[str, object]
) -> None:
    done = train(place, *FEATURES[:2], *option, output=tmp_path / "out")
    assert done.exit_code == 1
    assert f"{option[0]} {option[1]} with --signal evidence" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_the_help_says_what_ablations_and_the_seed_decide() -> None:
    shown = CliRunner().invoke(main, ["train", "--help"], terminal_width=200).stdout
    said = " ".join(shown.split())
    assert "does to the likelihood of the question and of the model's own answer" in said
    assert "Of the examples that --limit draws, added chunks, masks and folds." in said


def test_evidence_still_needs_labels(place: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("novels.jsonl", "seas.jsonl.gz"):
        (bare / name).write_bytes((place / name).read_bytes())
    (bare / "tiny").symlink_to(place / "tiny")
    without_labels(bare)
    done = train(bare, *FEATURES[:2], output=tmp_path / "out")
    assert done.exit_code == 1
    assert "8 of 8 lines of " in done.stderr
    assert (
        "novels.jsonl can't be used: line 1: chunk 0: the key 'is_gold' is missing" in done.stderr
    )


def odd_data(place: Path, folder: Path) -> Path:
    """The data with one example each that has one chunk, is too long, and has no answer."""
    folder.mkdir()
    (folder / "tiny").symlink_to(place / "tiny")
    good = planted_examples(["novels"], each=8)
    alone = planted_examples(["alone"], each=1, chunks=1)  # nothing of its source to add
    long = replace(good[0], id="long", query="river " * 3000)
    silent = replace(good[1], id="silent", answers=("  ",))
    write_examples(folder / "novels.jsonl", [*good, *alone, long, silent])
    write_examples(folder / "seas.jsonl.gz", planted_examples(["seas"]))
    return folder


def test_what_cannot_be_ablated_is_left_out_and_on_record(place: Path, tmp_path: Path) -> None:
    data = odd_data(place, tmp_path / "data")
    done = train(data, *ABLATION, "--answers", "reference", output=tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    expected = {
        "fewer than two chunks": 1,
        "longer than the model's window": 1,
        "no answer": 1,
    }
    assert record(tmp_path / "out")["left_out"] == expected
    assert provenance(tmp_path / "out")["left_out"] == expected
    assert record(tmp_path / "out")["samples"] == {"novels": 8, "seas": 8}
    page = (tmp_path / "out" / PAGE_FILE).read_text()
    assert "1 fewer than two chunks" in page and "Faithfulness" in page


def test_curve_and_dev_figures_of_ablations(place: Path, tmp_path: Path) -> None:
    dev = write_examples(tmp_path / "dev.jsonl", planted_examples(["lakes"], each=4))
    done = train(place, *ABLATION, "--dev", dev, output=tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    known = record(tmp_path / "out")
    [chosen] = [row for row in known["candidates"] if row["chosen"]]
    assert known["learning_curve"][-1]["figures"] == {
        name: chosen[name] for name in ("ndcg_at_10", "faithfulness")
    }
    assert known["dev"]["examples"] == {"lakes": 4}


def test_one_mask_leaves_faithfulness_open(place: Path, tmp_path: Path) -> None:
    done = train(place, *ABLATION, "--masks", 1, output=tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert {row["faithfulness"] for row in results(tmp_path / "out")} == {None}
    assert provenance(tmp_path / "out")["cross_validation"]["faithfulness"] is None
    assert "NaN" not in (tmp_path / "out" / "head_weights.json").read_text()


def test_answers_that_heed_no_chunk_are_refused(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablation_validation, "LEAST_CONTRIBUTION", 1000.0)
    done = train(place, *ABLATION, output=tmp_path / "out")
    assert done.exit_code == 1
    assert (
        "of 16 samples none has a chunk that matters (is gold, or adds 1000.0 nats)"
        in done.stderr.splitlines()[-1]
    )


@pytest.mark.parametrize("parameter", ["lm_head.weight", "model.layers.0.mlp.up_proj.weight"])
def test_a_model_of_nan_is_refused_and_leaves_no_shard(
    place: Path, tmp_path: Path, parameter: str
) -> None:
    model = tiny_model()
    with torch.no_grad():
        dict(model.named_parameters())[parameter].fill_(torch.nan)
    model.save_pretrained(tmp_path / "tiny")
    tiny_tokenizer().save_pretrained(tmp_path / "tiny")
    for name in ("novels.jsonl", "seas.jsonl.gz"):
        (tmp_path / name).write_bytes((place / name).read_bytes())
    done = train(tmp_path, *ABLATION, "--answers", "reference", output=tmp_path / "out")
    assert done.exit_code == 1
    last = done.stderr.splitlines()[-1]
    assert "NaN or infinity; load it in float32 or bfloat16" in last
    assert not list((tmp_path / "out").rglob("shard-*"))


@pytest.mark.parametrize("signal", ["evidence", "ablation"])
def test_what_another_seed_or_model_collected_is_refused(
    place: Path, tmp_path: Path, signal: str
) -> None:
    features = FEATURES[:2] if signal == "evidence" else FEATURES
    options = (*features, "--signal", signal, "--collected", tmp_path / "shared")
    assert train(place, *options, output=tmp_path / "out").exit_code == 0
    before = bytes_of(tmp_path / "shared")
    other = train(place, *options, "--seed", 1, output=tmp_path / "seed")
    assert other.exit_code == 1 and "(seed: 0 there, 1 now)" in other.stderr
    tiny_model(seed=1).save_pretrained(tmp_path / "other")
    tiny_tokenizer().save_pretrained(tmp_path / "other")
    other = train(place, *options, "--model", tmp_path / "other", output=tmp_path / "model")
    assert other.exit_code == 1 and "(fingerprint: '" in other.stderr
    assert "use another folder, or remove this one" in other.stderr
    assert bytes_of(tmp_path / "shared") == before
