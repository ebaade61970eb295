"""`at2-rag eval`: loaded as a plug-in of the `at2-rag` command, so it imports little."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from at2_rag.cli.command_line import verbose_option
from at2_rag_evals.named_weights import NamedWeights, weights_option
from at2_rag_evals.options import (
    embedding_model_option,
    files_argument,
    json_option,
    limit_option,
    seed_option,
    train_option,
)
from at2_rag_evals.qa.cli import compare, qa

if TYPE_CHECKING:
    from at2_rag_evals.trimming.command import MultiHopFor

DEFAULT_SYSTEMS = ("random", "first_k", "bm25", "minilm", "all_heads_mean", "at2")
MORE_SYSTEMS = (
    *("bm25_unstemmed", "bm25_minilm"),
    *("at2_int8", "at2_joint", "at2_prior", "at2_cosine", "at2_multi_hop"),
)
DEFAULT_FIDELITY_SYSTEMS = (
    "random",
    "bm25",
    "minilm",
    "all_heads_mean",
    "best_head",
    "heads_8",
    "heads_16",
    "at2",
    "answer_heads_mean",
    "at2_answer",
    "gold",
    "leave_one_out",
    "regression_32",
    "masked_regression",
)
MORE_FIDELITY_SYSTEMS = ("first_k", "bm25_unstemmed", "at2_joint")
_TAKEN = tuple(
    dict.fromkeys(DEFAULT_SYSTEMS + MORE_SYSTEMS + DEFAULT_FIDELITY_SYSTEMS + MORE_FIDELITY_SYSTEMS)
)


@click.group()
def eval_group() -> None:
    """Evaluate rankings, the fidelity of scores, and answers on labelled questions."""


eval_group.add_command(qa)
eval_group.add_command(compare)


@eval_group.command()
@files_argument
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for ranking.json, ranking.md and items.jsonl; a killed run goes on from it.",
)
@click.option(
    "--pad-to",
    multiple=True,
    type=click.IntRange(min=5),
    metavar="N",
    help="Also judge items padded to N chunks with other items' distractors. May be repeated.",
)
@limit_option
@seed_option
@click.option("--model", help="Scoring model: a known name, a folder or a hub id.")
@click.option(
    "--head-weights", help="Folder with the head weights of at2 and its forms but at2_joint."
)
@weights_option(_TAKEN)
@embedding_model_option
@click.option(
    "--system",
    "systems",
    multiple=True,
    type=click.Choice(DEFAULT_SYSTEMS + MORE_SYSTEMS),
    help=f"Judge this system. May be repeated.  [default: all but {', '.join(MORE_SYSTEMS)}]",
)
@json_option
@verbose_option
def ranking(
    files: tuple[Path, ...],
    output: Path | None,
    pad_to: tuple[int, ...],
    limit: int | None,
    seed: int,
    model: str | None,
    head_weights: str | None,
    weights: tuple[NamedWeights, ...],
    embedding_model: str | None,
    systems: tuple[str, ...],
    as_json: bool,
) -> None:
    """Compare how well systems rank the gold chunks of FILES (.jsonl or .jsonl.gz).

    Scores nDCG@10, gold first and all gold in the top 3, by source and by number of chunks, with
    bootstrap intervals. Each line is an object with id, question and chunks, and each chunk has
    title, text and is_gold.
    """
    from at2_rag_evals.ranking.command import RankingRequest, run_ranking

    request = RankingRequest(
        files=files,
        output=output,
        pad_to=tuple(sorted(set(pad_to))),
        limit=limit,
        seed=seed,
        model=model,
        head_weights=head_weights,
        weights=weights,
        embedding_model=embedding_model,
        systems=tuple(dict.fromkeys(systems)) or DEFAULT_SYSTEMS,
    )
    run_ranking(request, as_json=as_json)


@eval_group.command()
@files_argument
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for fidelity.json, fidelity.md and items.jsonl; a killed run goes on from it.",
)
@limit_option
@seed_option
@click.option("--model", help="Model that answers and scores: a known name, a folder or a hub id.")
@click.option("--head-weights", help="Folder with the head weights of the system at2.")
@weights_option(_TAKEN)
@click.option(
    "--answer-weights", help="Folder with the head weights of the system at2_answer, or uniform."
)
@embedding_model_option
@train_option
@click.option(
    "--unit",
    type=click.Choice(["chunk", "sentence"]),
    default="chunk",
    show_default=True,
    help="What is removed and scored: chunks, or sentences of them.",
)
@click.option(
    "--max-sentences",
    type=click.IntRange(min=4),
    default=60,
    show_default=True,
    help="Leave out items with more sentences, with --unit sentence.",
)
@click.option(
    "--masks",
    type=click.IntRange(min=2),
    default=32,
    show_default=True,
    help="Held masks an item, of each keep rate.",
)
@click.option(
    "--answers",
    type=click.Choice(["generated", "reference"]),
    default="generated",
    show_default=True,
    help="Whose answers: the model's own, or the first reference answer.",
)
@click.option(
    "--answer-tokens",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Most tokens of a generated answer.",
)
@click.option(
    "--system",
    "systems",
    multiple=True,
    type=click.Choice(DEFAULT_FIDELITY_SYSTEMS + MORE_FIDELITY_SYSTEMS),
    help="Judge this system. May be repeated.  [default: all but first_k, bm25_unstemmed and "
    "at2_joint; those of chosen heads only with --train]",
)
@json_option
@verbose_option
def fidelity(
    files: tuple[Path, ...],
    output: Path | None,
    limit: int | None,
    seed: int,
    model: str | None,
    head_weights: str | None,
    weights: tuple[NamedWeights, ...],
    embedding_model: str | None,
    answer_weights: str | None,
    train: tuple[Path, ...],
    unit: str,
    max_sentences: int,
    masks: int,
    answers: str,
    answer_tokens: int,
    systems: tuple[str, ...],
    as_json: bool,
) -> None:
    """Compare how well scores predict what removing chunks does to the model's answer.

    Scores the linear datamodeling score, the drop without the best chunks and the answer's
    likelihood with the best ones alone, on FILES (.jsonl or .jsonl.gz) as `ranking` reads them.
    """
    from at2_rag_evals.fidelity.command import FidelityRequest, run_fidelity

    request = FidelityRequest(
        files=files,
        output=output,
        limit=limit,
        seed=seed,
        model=model,
        head_weights=head_weights,
        weights=weights,
        embedding_model=embedding_model,
        answer_weights=answer_weights,
        train=train,
        unit="sentence" if unit == "sentence" else "chunk",
        max_sentences=max_sentences,
        masks=masks,
        answers="reference" if answers == "reference" else "generated",
        answer_tokens=answer_tokens,
        systems=tuple(dict.fromkeys(systems)) or DEFAULT_FIDELITY_SYSTEMS,
    )
    run_fidelity(request, as_json=as_json)


@eval_group.command()
@files_argument
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for trimming.json, trimming.md and items.jsonl.",
)
@click.option(
    "--top-k",
    multiple=True,
    default=(1, 3),
    show_default=True,
    type=click.IntRange(min=1),
    metavar="K",
    help="Compare with the best K chunks. May be repeated.",
)
@click.option(
    "--share",
    type=click.FloatRange(min=0, max=1, min_open=True),
    help="Most tokens of the sentences of each item, as a share of those of its chunks.  "
    "[default: 0.5 where no other way is asked for]",
)
@click.option(
    "--min-score",
    "min_scores",
    multiple=True,
    type=float,
    metavar="P",
    help="Also choose sentences by this probability. May be repeated.",
)
@click.option(
    "--max-missed",
    "max_missed",
    multiple=True,
    type=click.FloatRange(min=0),
    metavar="T",
    help="Also choose sentences by this max_missed. May be repeated.",
)
@click.option(
    "--multi-hop",
    type=click.Choice(["none", "sentences", "both"]),
    help="Ask again beside the best chunk: for nothing, for sentences, for them and whole chunks. "
    " [default: for sentences where a max_missed does]",
)
@limit_option
@seed_option
@click.option("--model", help="Scoring model: a known name, a folder or a hub id.")
@click.option("--head-weights", help="Folder with the head weights.")
@json_option
@verbose_option
def trimming(
    files: tuple[Path, ...],
    output: Path | None,
    top_k: tuple[int, ...],
    share: float | None,
    min_scores: tuple[float, ...],
    max_missed: tuple[float, ...],
    multi_hop: MultiHopFor | None,
    limit: int | None,
    seed: int,
    model: str | None,
    head_weights: str | None,
    as_json: bool,
) -> None:
    """Tell whether sentences keep the answers of FILES in fewer tokens than whole chunks.

    Counts the items whose reference answer stands in the best chunks, and in the sentences that are
    kept of all chunks under a share of the tokens, or by their probabilities, and checks that every
    kept character is theirs.
    """
    from at2_rag_evals.trimming.command import TrimmingRequest, run_trimming

    request = TrimmingRequest(
        files=files,
        output=output,
        top_k=tuple(dict.fromkeys(top_k)),
        share=share,
        min_scores=tuple(dict.fromkeys(min_scores)),
        max_missed=tuple(dict.fromkeys(max_missed)),
        multi_hop=multi_hop,
        limit=limit,
        seed=seed,
        model=model,
        head_weights=head_weights,
    )
    run_trimming(request, as_json=as_json)
