"""`at2-rag calibrate`, end to end over a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from at2_rag import HeadWeights
from at2_rag.cli.group import main
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import random_weights
from tests.training.calibrating.equal_examples import equal_examples
from tests.training.planted_examples import write_examples

SOURCES = ("novels", "seas")


def calibrate(model: Path, folder: Path, weights: Path | str, *more: str) -> Result:
    files = [str(folder / f"{source}.jsonl.gz") for source in SOURCES]
    command = ["calibrate", *files, "--output", str(folder / "out"), "--model", str(model)]
    command += ["--head-weights", str(weights), "--dtype", "float32", *more]
    return CliRunner().invoke(main, command)


def test_weights_tables_plot_and_record_are_written(model_folder: Path, tmp_path: Path) -> None:
    random_weights(tiny_model(), tiny_tokenizer(), "together", "apart").save(tmp_path / "weights")
    for source in SOURCES:
        write_examples(tmp_path / f"{source}.jsonl.gz", equal_examples(source))
    further = write_examples(tmp_path / "more.jsonl", equal_examples("seas", 15)[10:])
    options = ("--multi-hop", "--sentences", "--judge", str(further))
    result = calibrate(model_folder, tmp_path, tmp_path / "weights", *options)
    assert result.exit_code == 0, result.output
    output = tmp_path / "out"
    assert (output / "reliability.svg").read_text().startswith("<svg ")
    weights, text = HeadWeights.load(output), (output / "calibration.json").read_text()
    record = json.loads(text)
    assert str(tmp_path) not in text
    files = [f"{source}.jsonl.gz" for source in SOURCES]
    assert [file["name"] for file in weights.provenance["calibrated_on"]] == files
    assert record["examples"] == {"novels": 10, "seas": 10}
    assert record["examples_judged"] == {"seas": 5} and record["relevant_drop"] is None
    assert record["relevant_chunks"]["seas"] == {"known": 60, "relevant": 20}
    assert weights.calibration and weights.multi_hop and weights.sentences
    assert record["calibration"] == weights.calibration.numbers()
    judged = [row["source"] for row in record["left_out_sources"]]
    assert judged == ["novels", "seas", "every source"]
    assert [row["split"] for row in record["transfer"]] == ["fitted", "fitted", "judged"]
    assert [row["calls"] for row in record["multi_hop"]["all_gold_in_top_3"]] == [10, 10, 20]
    for other, message in (("fast", "the head weights are for"), (output, "pass both")):
        refused = calibrate(model_folder, tmp_path, other, "--sentences")
        assert refused.exit_code == 1 and message in refused.output
