"""`at2-rag calibrate`, end to end over a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from at2_rag.cli.group import main
from at2_rag.readout.head_weights import HeadWeights
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import random_weights
from tests.training.calibrating.equal_examples import equal_examples
from tests.training.planted_examples import write_examples

SOURCES = ("novels", "seas")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model, head weights for it and two files of examples."""
    folder = tmp_path_factory.mktemp("calibrate")
    tiny_model().save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    random_weights(tiny_model(), tiny_tokenizer(), "together", "apart").save(folder / "weights")
    for source in SOURCES:
        examples = equal_examples(source, two_gold=True, sentences=True)
        write_examples(folder / f"{source}.jsonl.gz", examples)
    further = equal_examples("seas", 20, two_gold=True, sentences=True)[14:]
    write_examples(folder / "more.jsonl", further)
    return folder


def run(folder: Path, output: Path, *more: str) -> Result:
    command = ["calibrate", *(str(folder / f"{name}.jsonl.gz") for name in SOURCES)]
    command += ["--output", str(output), "--head-weights", str(folder / "weights")]
    command += ["--model", str(folder / "model"), "--dtype", "float32", *more]
    return CliRunner().invoke(main, command)


@pytest.fixture(scope="module")
def calibrated(folder: Path) -> tuple[Path, str]:
    """Return what a run with all there is wrote, and what it printed."""
    more = ("--multi-hop", "--sentences", "--judge", str(folder / "more.jsonl"))
    result = run(folder, folder / "out", *more)
    assert result.exit_code == 0, result.output
    return folder / "out", result.output


def test_weights_tables_plot_and_record_are_written(
    folder: Path, calibrated: tuple[Path, str]
) -> None:
    output, printed = calibrated
    for title in ("left-out sources", "for 90% of the gold chunks", "all gold in the best 3"):
        assert title in printed
    assert (output / "reliability.svg").read_text().startswith("<svg ")
    weights, text = HeadWeights.load(output), (output / "calibration.json").read_text()
    record = json.loads(text)
    assert str(folder) not in text
    files = [f"{source}.jsonl.gz" for source in SOURCES]
    assert [file["name"] for file in weights.provenance["calibrated_on"]] == files
    assert record["examples"] == {"novels": 14, "seas": 14}
    assert record["examples_judged"] == {"seas": 6} and record["relevant_drop"] is None
    assert record["relevant_chunks"]["seas"] == {"known": 84, "relevant": 28}
    assert weights.calibration and weights.multi_hop and weights.sentences
    assert record["calibration"] == weights.calibration.numbers()
    assert record["multi_hop"]["numbers"] == weights.multi_hop.numbers()
    assert record["sentences"] == weights.sentences.numbers()
    judged = [row["source"] for row in record["left_out_sources"]]
    assert judged == ["novels", "seas", "every source"]
    assert [row["split"] for row in record["transfer"]] == ["fitted", "fitted", "judged"]
    assert [row["calls"] for row in record["multi_hop"]["all_gold_in_top_3"]] == [14, 14, 28]


def test_what_can_not_be_calibrated_is_refused(
    folder: Path, tmp_path: Path, calibrated: tuple[Path, str]
) -> None:
    for more, message in (
        (("--head-weights", "fast"), "the head weights are for"),
        (("--head-weights", str(calibrated[0]), "--sentences"), "pass both"),
    ):
        result = run(folder, tmp_path / "out", *more)
        assert result.exit_code == 1 and message in result.output
