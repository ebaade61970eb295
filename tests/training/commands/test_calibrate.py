"""`at2-rag calibrate`, end to end over a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from at2_rag import AT2Pruner, HeadWeights
from at2_rag.cli.group import main
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
