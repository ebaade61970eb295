"""The options of the eval commands: read from the command line, refused, and written out again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from at2_rag_evals.cli import eval_group
from at2_rag_evals.fidelity.request import FidelityRequest
from at2_rag_evals.keeping.request import KeepingRequest
from at2_rag_evals.named_systems import NamedSystem
from at2_rag_evals.qa.request import QARequest
from at2_rag_evals.ranking.request import RankingRequest
from at2_rag_evals.request import command_line
from at2_rag_evals.trimming.request import Cut, TrimmingRequest

MINE = (NamedSystem("mine", "uniform"),)
MPNET = (NamedSystem("mpnet", "all-mpnet-base-v2"),)


def test_a_command_line_has_no_defaults_and_no_folders(tmp_path: Path) -> None:
    request = FidelityRequest(
        files=(tmp_path / "a.jsonl", tmp_path / "b.jsonl"),
        output=tmp_path / "results",
        masks=4,
        head_weights=str(tmp_path),
        weights=MINE,
        embeddings=(NamedSystem("mpnet", str(tmp_path)),),
        systems=("gold", "at2"),
    )
    assert command_line("at2-rag eval fidelity", request) == (
        f"at2-rag eval fidelity a.jsonl b.jsonl --output results --head-weights {tmp_path.name} "
        f"--weights mine=uniform --embedding mpnet={tmp_path.name} --masks 4 --system gold "
        "--system at2"
    )
    assert request.judged == ("gold", "at2", "mine", "mpnet")


@pytest.mark.parametrize(
    ("options", "cuts"),
    [
        ({}, [Cut(share=0.5)]),
        (
            {"share": 0.3, "min_probabilities": (0.1, 0.1)},
            [Cut(share=0.3), Cut(min_probability=0.1)],
        ),
        ({"max_missed": (0.2,), "multi_hop": "none"}, [Cut(max_missed=0.2, multi_hop=False)]),
        ({"multi_hop": "both"}, [Cut(share=0.5, multi_hop=True)]),
    ],
)
def test_sentences_are_chosen_by_a_share_unless_by_another_limit(
    options: dict[str, object], cuts: list[Cut]
) -> None:
    assert list(TrimmingRequest(**options).cuts) == cuts  # type: ignore[arg-type]


def test_systems_are_judged_once_and_named_ones_follow_their_kind() -> None:
    assert RankingRequest(systems=("bm25", "bm25"), weights=MINE).judged == ("bm25", "mine")
    named = RankingRequest(weights=MINE, embeddings=MPNET).judged
    assert named == (
        *("random", "first_k", "bm25", "minilm", "mpnet", "all_heads_mean", "at2", "mine"),
    )
    assert QARequest(output=Path("o"), pruners=("at2", "minilm"), embeddings=MPNET).judged == (
        *("at2", "minilm", "mpnet"),
    )
    assert KeepingRequest(embeddings=MPNET).judged == ("mpnet",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("ranking", "Missing argument"),
        ("ranking F --pad-to 3", "3 is not in the range"),
        ("ranking F --system bm26", "'bm26' is none of random, "),
        ("fidelity F --weights mine", "'mine' isn't NAME=WEIGHTS"),
        ("fidelity F --weights mine=", "'mine=' isn't NAME=WEIGHTS"),
        ("fidelity F --weights a/b=uniform", "the name 'a/b' isn't plain"),
        ("ranking F --embedding mpnet=", "'mpnet=' isn't NAME=MODEL"),
        ("ranking F --embedding minilm=folder", "the name 'minilm' is taken"),
        ("qa F --output O --weights x=best --embedding x=folder", "the name 'x' is taken"),
        ("fidelity F --weights gold=uniform", "the name 'gold' is taken"),
        ("fidelity F --weights mine=uniform --weights mine=joint", "the name 'mine' is taken"),
    ],
)
def test_unusable_arguments_are_refused(tmp_path: Path, arguments: str, message: str) -> None:
    path = tmp_path / "F"
    path.touch()
    words = [str(path) if word == "F" else word for word in arguments.split()]
    result = CliRunner().invoke(eval_group, words)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())


def test_the_commands_are_loaded_without_heavy_imports() -> None:
    code = (
        "import sys; from at2_rag_evals.cli import eval_group\n"
        "heavy = {'torch', 'transformers', 'rich', 'bm25s', 'sklearn', 'scipy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
