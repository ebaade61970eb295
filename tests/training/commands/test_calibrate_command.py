"""`at2-rag calibrate`, end to end over a tiny model."""

from __future__ import annotations

import dataclasses
import gzip
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from at2_rag import AT2Pruner, Chunk
from at2_rag.cli.group import main
from at2_rag.data.examples import Example
from at2_rag.errors import InputError
from at2_rag.model.loading import LoadedModel
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.training.calibrating.data import choose_examples
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import random_weights
from tests.training.planted_examples import planted_examples, write_examples


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model, head weights for it and two files of examples."""
    folder = tmp_path_factory.mktemp("calibrate")
    tiny_model().save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    random_weights(tiny_model(), tiny_tokenizer(), "together", "apart").save(folder / "weights")
    for source in ("novels", "seas"):
        write_examples(folder / f"{source}.jsonl.gz", examples_of_equal_chunks(source, 14))
    return folder


@pytest.fixture(autouse=True)
def any_drop_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model's answers hardly depend on the chunks."""
    monkeypatch.setattr("at2_rag.training.calibrating.data.MATTERS", 0.0)


def examples_of_equal_chunks(source: str, count: int) -> list[Example]:
    """Make examples whose other chunks are as long as the gold one."""
    rng = random.Random(source)
    made = []
    for own in planted_examples([source], count, chunks=6):
        texts = [" ".join(rng.choices("abcdefgh", k=17)) for _ in own.chunks]
        chunks = [own.chunks[n] if own.labels[n] else Chunk(text) for n, text in enumerate(texts)]
        made.append(dataclasses.replace(own, chunks=tuple(chunks)))
    return made


def fill(folder: Path, place: Path, make: Callable[[Example], Example]) -> None:
    """Fill a folder as `place` is, with examples made anew."""
    for source in ("novels", "seas"):
        made = [make(own) for own in examples_of_equal_chunks(source, 14)]
        write_examples(folder / f"{source}.jsonl.gz", made)
    for name in ("model", "weights"):
        shutil.copytree(place / name, folder / name)


def run(place: Path, output: Path, *more: str) -> Any:
    command = ["calibrate", *(str(place / f"{name}.jsonl.gz") for name in ("novels", "seas"))]
    command += ["--output", str(output), "--head-weights", str(place / "weights")]
    command += ["--model", str(place / "model"), "--dtype", "float32", *more]
    return CliRunner().invoke(main, command)


@pytest.mark.parametrize("outcome", ["evidence", "removal"])
def test_weights_are_calibrated_and_serve_a_pruner(
    place: Path, tmp_path: Path, outcome: str
) -> None:
    ran = run(place, tmp_path / "out", "--outcome", outcome)
    assert ran.exit_code == 0, ran.output
    assert "left-out sources" in ran.output and "novels" in ran.output
    record = json.loads((tmp_path / "out" / "calibration.json").read_text())
    assert record["examples"] == {"novels": 14, "seas": 14}
    judged = {own["source"] for own in record["left_out_sources"]}
    assert judged == {"novels", "seas", "every source"}
    assert (tmp_path / "out" / "reliability.svg").read_text().startswith("<svg ")
    assert record["prior_weight"] is None
    assert record["calibration"]["outcome"] == outcome
    evidence = {name: {"known": 84, "true": 14} for name in ("novels", "seas")}
    assert (record["chunks_that_matter"] == evidence) is (outcome == "evidence")
    assert (tmp_path / "out" / "features" / "drops").is_dir() is (outcome == "removal")
    assert all(0 <= own["error"] <= 1 for own in record["left_out_sources"])
    assert str(place) not in json.dumps(record)
    given, found = HeadWeights.load(place / "weights"), HeadWeights.load(tmp_path / "out")
    assert np.array_equal(found.weight, given.weight)
    assert found.calibration is not None
    assert found.calibration.numbers() == record["calibration"]
    pruner = AT2Pruner(LoadedModel(tiny_model(), tiny_tokenizer()), head_weights=found)
    own = examples_of_equal_chunks("novels", 1)[0]
    result = pruner.prune(own.query, own.chunks)
    assert result.answerable is not None and 0 < result.answerable < 1
    assert all(chunk.probability is not None for chunk in (*result.kept, *result.dropped))


def scored(place: Path, folder: Path, scale: float) -> Path:
    """Copy the examples, with retrieval scores that rise by the scale where a chunk is gold."""
    shutil.copytree(place, folder)
    for path in folder.glob("*.jsonl.gz"):
        rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
        for row in rows:
            for chunk in row["chunks"]:
                gold = float(chunk["is_gold"])
                chunk["retrieval_score"] = scale * (gold - 1e-3 * len(chunk["text"]))
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        path.write_bytes(gzip.compress(lines.encode()))
    return folder


def test_sentence_weights_are_learned_and_serve_a_pruner(tmp_path: Path, place: Path) -> None:
    fill(tmp_path, place, two_sentences)
    ran = run(tmp_path, tmp_path / "out", "--sentences")
    assert ran.exit_code == 0, ran.output
    record = json.loads((tmp_path / "out" / "calibration.json").read_text())
    found = HeadWeights.load(tmp_path / "out")
    assert found.sentences is not None and found.sentences.numbers() == record["sentences"]
    pruner = AT2Pruner(LoadedModel(tiny_model(), tiny_tokenizer()), head_weights=found)
    own = two_sentences(examples_of_equal_chunks("novels", 1)[0])
    assert pruner.prune(own.query, own.chunks, unit="sentence").kept
    collected = ("--collected", str(tmp_path / "out" / "features"))
    again = run(tmp_path, tmp_path / "two", "--sentences", *collected)
    assert again.exit_code == 0, again.output
    assert HeadWeights.load(tmp_path / "two").sentences == found.sentences


def test_sentences_are_weighed_before_and_after_asking_again(tmp_path: Path, place: Path) -> None:
    fill(tmp_path, place, lambda own: two_gold(two_sentences(own)))
    ran = run(tmp_path, tmp_path / "out", "--multi-hop", "--sentences")
    assert ran.exit_code == 0, ran.output
    found = HeadWeights.load(tmp_path / "out")
    assert found.sentences is not None and found.multi_hop is not None
    assert found.sentences.score[0] != found.sentences.score[1]
    ours = ("--head-weights", str(tmp_path / "out"))
    refused = run(tmp_path, tmp_path / "two", "--sentences", *ours)
    assert refused.exit_code == 1 and "pass both" in refused.output
    kept = run(tmp_path, tmp_path / "two", *ours)
    assert kept.exit_code == 0, kept.output
    told = kept.output.replace("\n", " ")
    assert "kept is what an earlier calibration learned by --multi-hop and --sentences" in told
    assert HeadWeights.load(tmp_path / "two").sentences == found.sentences


def test_sentences_that_nobody_knows_are_refused_before_reading(
    tmp_path: Path, place: Path
) -> None:
    fill(tmp_path, place, lambda own: dataclasses.replace(own, answers=("nowhere to be found",)))
    ran = run(tmp_path, tmp_path / "out", "--sentences")
    assert ran.exit_code == 1
    assert "of no example is it known which sentences hold evidence" in ran.output
    assert not (tmp_path / "out").exists()


def two_sentences(own: Example) -> Example:
    """Give each chunk a second sentence, in gold ones one with the answer."""
    chunks = tuple(
        dataclasses.replace(
            chunk, text=f"{chunk.text}. {own.answers[0] if gold else 'nothing'} is here."
        )
        for chunk, gold in zip(own.chunks, own.labels, strict=True)
    )
    return dataclasses.replace(own, chunks=chunks)


def test_further_questions_are_judged_and_nothing_else(place: Path, tmp_path: Path) -> None:
    write_examples(tmp_path / "more.jsonl.gz", examples_of_equal_chunks("seas", 20)[14:])
    collected = ("--collected", str(tmp_path / "read"))
    assert run(place, tmp_path / "plain", *collected).exit_code == 0
    more = str(tmp_path / "more.jsonl.gz")
    ran = run(place, tmp_path / "out", *collected, "--judge", more)
    assert ran.exit_code == 0, ran.output
    assert "one max_missed for 90% of the gold chunks" in ran.output
    record = json.loads((tmp_path / "out" / "calibration.json").read_text())
    plain = json.loads((tmp_path / "plain" / "calibration.json").read_text())
    assert record["calibration"] == plain["calibration"]
    assert [(own["source"], own["split"], own["calls"]) for own in record["one_tolerance"]] == [
        ("novels", "fitted", 14),
        ("seas", "fitted", 14),
        ("seas", "judged", 6),
    ]
    assert [own for own in record["one_tolerance"] if own["split"] == "fitted"] == plain[
        "one_tolerance"
    ]
    assert record["judged"][0]["name"] == "more.jsonl.gz" and plain["judged"] == []
    assert record["examples_judged"] == {"seas": 6} and plain["examples_judged"] == {}
    other = [
        dataclasses.replace(own, source="mills") for own in examples_of_equal_chunks("seas", 2)
    ]
    write_examples(tmp_path / "more.jsonl.gz", other)
    refused = run(place, tmp_path / "out", *collected, "--judge", more)
    assert refused.exit_code == 1
    assert "none of the 2 examples can be judged" in refused.output


def test_the_weights_of_the_retriever_are_learned(place: Path, tmp_path: Path) -> None:
    ran = run(scored(place, tmp_path / "ranked", 20.0), tmp_path / "out", "--limit", "12")
    assert ran.exit_code == 0, ran.output
    record = json.loads((tmp_path / "out" / "calibration.json").read_text())
    found = HeadWeights.load(tmp_path / "out")
    assert found.prior_weight == record["prior_weight"] > 0
    assert found.cosine_weight is record["cosine_weight"] is None
    own = ("--limit", "12", "--prior", "cosine", "--head-weights", str(tmp_path / "out"))
    cosines = scored(place, tmp_path / "cosines", 0.5)
    assert run(cosines, tmp_path / "two", *own).exit_code == 0
    record = json.loads((tmp_path / "two" / "calibration.json").read_text())
    both = HeadWeights.load(tmp_path / "two")
    assert both.prior_weight == found.prior_weight  # kept
    assert both.cosine_weight == record["cosine_weight"] > 0
    again = run(tmp_path / "ranked", tmp_path / "three", *own)
    assert again.exit_code == 1
    told = again.output.replace("\n", " ")
    assert "with prior='cosine' it has to be within -1 and 1" in told
    assert "of novels: the retrieval_score of chunk" in told


def test_multi_hop_weights_are_learned_and_serve_a_pruner(tmp_path: Path, place: Path) -> None:
    fill(tmp_path, place, two_gold)
    ran = run(tmp_path, tmp_path / "out", "--multi-hop")
    assert ran.exit_code == 0, ran.output
    assert "with multi-hop" in ran.output
    record = json.loads((tmp_path / "out" / "calibration.json").read_text())
    figures = {own["source"]: own for own in record["multi_hop"]["all_gold_in_top_3"]}
    assert {name: own["calls"] for name, own in figures.items()} == {
        "novels": 14,
        "seas": 14,
        "every source": 28,
    }
    found = HeadWeights.load(tmp_path / "out")
    assert found.multi_hop is not None
    assert found.multi_hop.numbers() == record["multi_hop"]["numbers"]
    pruner = AT2Pruner(LoadedModel(tiny_model(), tiny_tokenizer()), head_weights=found)
    own = examples_of_equal_chunks("novels", 1)[0]
    plain = pruner.prune(own.query, own.chunks, top_k=3)
    result = pruner.prune(own.query, own.chunks, top_k=3, multi_hop=True)
    assert result.kept[0].index == plain.kept[0].index
    scores = [chunk.score for chunk in result.kept]
    assert scores == sorted(scores, reverse=True)


def two_gold(own: Example) -> Example:
    """Make a second chunk of an example gold, too."""
    labels = list(own.labels)
    labels[labels.index(False)] = True
    return dataclasses.replace(own, labels=tuple(labels))


def test_what_was_read_is_not_read_again(place: Path, tmp_path: Path) -> None:
    own = ("--limit", "12", "--collected", str(tmp_path / "read"), "--outcome", "removal")
    first = run(place, tmp_path / "one", *own)
    assert first.exit_code == 0, first.output
    shards = {path: path.stat().st_mtime_ns for path in (tmp_path / "read").rglob("*.safetensors")}
    assert {path.parent.name for path in shards} == {"examples", "twins", "drops"}
    again = run(place, tmp_path / "two", *own)
    assert again.exit_code == 0, again.output
    assert shards == {path: path.stat().st_mtime_ns for path in shards}
    for name in ("head_weights.safetensors", "head_weights.json"):
        one, two = ((tmp_path / run / name).read_bytes() for run in ("one", "two"))
        assert one == two


def test_weights_of_another_model_are_refused(place: Path, tmp_path: Path) -> None:
    ran = run(place, tmp_path / "out", "--head-weights", "fast")
    assert ran.exit_code == 1
    assert "the head weights are for 10 layers of 9 heads" in ran.output


def test_examples_that_can_not_be_used_are_counted() -> None:
    examples = examples_of_equal_chunks("novels", 6)
    short = planted_examples(["seas"], 3, chunks=3)
    chosen = choose_examples([*examples, *short], limit=4, seed=0)
    assert len(chosen.chosen) == 4 and chosen.unusable == 3
    assert len(chosen.twins) == 8
    for place, twin in zip(chosen.twins_of, chosen.twins, strict=True):
        assert twin.query == chosen.chosen[place].query
    with pytest.raises(InputError, match="none of the 3 examples can be calibrated with"):
        choose_examples(short, limit=None, seed=0)
