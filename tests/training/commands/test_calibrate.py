"""`at2-rag calibrate`, end to end over a tiny model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from at2_rag import AT2Pruner, HeadWeights
from at2_rag.cli.group import main
from at2_rag.training.labelling.embedding import EmbeddingTeacher
from tests.tiny_embeddings import save_tiny_embeddings
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import random_weights, shortlist_weights
from tests.training.calibrating.equal_examples import equal_examples
from tests.training.planted_examples import write_examples

SOURCES = ("novels", "seas")


def calibrate(model: Path, folder: Path, weights: Path | str, *more: str) -> Result:
    files = [str(folder / f"{source}.jsonl.gz") for source in SOURCES]
    command = ["calibrate", *files, "--output", str(folder / "out"), "--model", str(model)]
    command += ["--head-weights", str(weights), "--dtype", "float32", *more]
    return CliRunner().invoke(main, command)


@pytest.mark.parametrize("shortlist", [False, True])
def test_weights_tables_plot_and_record_are_written(
    model_folder: Path, tmp_path: Path, shortlist: bool
) -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    plain = random_weights(model, tokenizer, "together", "apart")
    fitted = shortlist_weights(model, tokenizer) if shortlist else plain
    fitted.save(tmp_path / "weights")
    for source in SOURCES:
        write_examples(tmp_path / f"{source}.jsonl.gz", equal_examples(source))
    options = ("--multi-hop", "--sentences")
    users = tmp_path / "out" / "features" / "chunks" / "notes.txt"
    users.parent.mkdir(parents=True)
    users.write_text("mine")
    result = calibrate(model_folder, tmp_path, tmp_path / "weights", *options)
    assert result.exit_code == 0, result.output
    output = tmp_path / "out"
    assert (output / "reliability.svg").read_text().startswith("<svg ")
    weights, text = HeadWeights.load(output), (output / "calibration.json").read_text()
    record = json.loads(text)
    assert str(tmp_path) not in text
    assert [path.name for path in users.parent.iterdir()] == ["notes.txt"]
    files = [f"{source}.jsonl.gz" for source in SOURCES]
    assert [file["name"] for file in weights.provenance["calibrated_on"]] == files
    assert record["examples"] == {"novels": 10, "seas": 10}
    assert record["chunks"]["seas"] == {"all": 60, "gold": 20}
    assert weights.calibration and weights.multi_hop and weights.sentences
    assert record["calibration"] == weights.calibration.numbers()
    assert (weights.shortlist is not None) == shortlist
    pruner = AT2Pruner.from_pretrained(model_folder, head_weights=output, dtype="float32")
    overrides: list[Any] = [{}, {"unit": "sentence"}, {"multi_hop": True}]
    for some in overrides:
        kept = pruner.prune("who wrote of the owl?", equal_examples("seas")[0].chunks, **some)
        assert kept.scored and kept.answerable is not None
    [(title, figures)] = record["probabilities"].items()
    assert title == "left-out sources"
    assert [row["source"] for row in figures] == ["novels", "seas", "every source"]
    assert [row["calls"] for row in record["multi_hop"]["all_gold_in_top_3"]] == [10, 10, 20]
    for other, message in (("fast", "the head weights are for"), (output, "pass both")):
        refused = calibrate(model_folder, tmp_path, other, "--sentences")
        assert refused.exit_code == 1 and message in refused.output


def test_what_train_holds_out_is_calibrated_on_and_an_embedding_scores_for_the_retriever(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for source in SOURCES:
        examples = equal_examples(source)
        unscored = [  # no two ask the same
            replace(
                one,
                query=f"{one.query} {source} {one.id}",
                chunks=tuple(replace(chunk, retrieval_score=None) for chunk in one.chunks),
            )
            for one in examples
        ]
        write_examples(tmp_path / f"{source}.jsonl.gz", unscored)
    files = [str(tmp_path / f"{source}.jsonl.gz") for source in SOURCES]
    held_out = ["--hold-out", "6", "--model", str(model_folder), "--dtype", "float32"]
    fitted = tmp_path / "fitted"
    command = ["train", *files, *held_out, "--folds", "2", "--features", "log:together"]
    trained = CliRunner().invoke(main, [*command, "--output", str(fitted)])
    assert trained.exit_code == 0, trained.output
    assert HeadWeights.load(fitted).provenance["samples"] == {"novels": 4, "seas": 4}
    embedding = save_tiny_embeddings(tmp_path)
    options = ["--hold-out", "6", "--embedding", str(embedding), "--prior", "cosine"]
    result = calibrate(model_folder, tmp_path, fitted, *options)
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "out" / "calibration.json").read_text())
    assert record["examples"] == {"novels": 6, "seas": 6}
    assert record["settings"]["embedding"] == "model" and str(tmp_path) not in str(record)
    weight = HeadWeights.load(tmp_path / "out").cosine_weight
    assert weight is not None
    with monkeypatch.context() as patch:
        patch.delattr(EmbeddingTeacher, "scores")  # the cosines are kept
        result = calibrate(model_folder, tmp_path, fitted, *options)
    assert result.exit_code == 0, result.output
    assert HeadWeights.load(tmp_path / "out").cosine_weight == weight
    again = calibrate(model_folder, tmp_path, tmp_path / "out", "--collected", str(tmp_path / "b"))
    assert again.exit_code == 0, again.output
    adapted = json.loads((tmp_path / "out" / "calibration.json").read_text())
    assert list(adapted["probabilities"]) == [
        "as it was",
        "adapted, questions of other folds left out",
    ]
