"""`at2-rag eval`: loaded as a plug-in of the `at2-rag` command, so it imports little."""

from __future__ import annotations

from typing import Any

import click

from at2_rag.cli.command_line import Group, verbose_option
from at2_rag_evals.corpus.request import CorpusRequest
from at2_rag_evals.fidelity.request import DEFAULT_SYSTEMS as FIDELITY_DEFAULT
from at2_rag_evals.fidelity.request import KNOWN_SYSTEMS, FidelityRequest
from at2_rag_evals.keeping.request import KeepingRequest
from at2_rag_evals.qa.cli import compare, qa
from at2_rag_evals.rankers.registry import BASELINES, RANKERS
from at2_rag_evals.ranking.request import DEFAULT_SYSTEMS, RankingRequest
from at2_rag_evals.request import json_option, request_options
from at2_rag_evals.system_options import all_option
from at2_rag_evals.trimming.request import TrimmingRequest


@click.group(cls=Group)
def eval_group() -> None:
    """Evaluate rankings, the fidelity of scores, and answers on labelled questions."""


eval_group.add_command(qa)
eval_group.add_command(compare)


@eval_group.command()
@request_options(RankingRequest)
@all_option(RANKERS, DEFAULT_SYSTEMS)
@json_option
@verbose_option
def ranking(as_json: bool, **values: Any) -> None:
    """Compare how well systems rank the gold chunks of FILES (.jsonl or .jsonl.gz).

    Scores nDCG@10, gold first and all gold in the top 3, by source and by number of chunks, with
    bootstrap intervals. Each line is an object with id, question and chunks, and each chunk has
    title, text and is_gold.
    """
    from at2_rag_evals.ranking.command import run_ranking

    run_ranking(RankingRequest(**values), as_json=as_json)


@eval_group.command()
@request_options(FidelityRequest)
@all_option(KNOWN_SYSTEMS, FIDELITY_DEFAULT)
@json_option
@verbose_option
def fidelity(as_json: bool, **values: Any) -> None:
    """Compare how well scores predict what removing chunks does to the model's answer.

    Reports the linear datamodeling score, the drop without the best chunks and the answer's
    likelihood with the best ones alone, on FILES (.jsonl or .jsonl.gz) as `ranking` reads them.
    """
    from at2_rag_evals.fidelity.command import run_fidelity

    run_fidelity(FidelityRequest(**values), as_json=as_json)


@eval_group.command()
@request_options(TrimmingRequest)
@json_option
@verbose_option
def trimming(as_json: bool, **values: Any) -> None:
    """Compare the answers kept by sentences and by whole chunks of FILES, and the tokens they take.

    Counts the items whose reference answer is in the best chunks, and in the sentences kept of all
    chunks by a share of the tokens or by probability. Checks that kept sentences are verbatim.
    """
    from at2_rag_evals.trimming.command import run_trimming

    run_trimming(TrimmingRequest(**values), as_json=as_json)


@eval_group.command()
@request_options(KeepingRequest)
@all_option(BASELINES, ())
@json_option
@verbose_option
def keeping(as_json: bool, **values: Any) -> None:
    """Judge what pruning without any option keeps of FILES, also under attack.

    Counts the items whose gold chunks are all kept, and the tokens that are. With --attack a chunk
    that repeats the question, or stuffs its words, is put among each item's.
    """
    from at2_rag_evals.keeping.command import run_keeping

    run_keeping(KeepingRequest(**values), as_json=as_json)


@eval_group.command()
@request_options(CorpusRequest)
@json_option
@verbose_option
def corpus(as_json: bool, **values: Any) -> None:
    """Judge pruning on your documents: cut DOCS into chunks, retrieve, rank, prune, answer.

    DOCS is a folder of texts (.md, .rst, .txt) or of passages (.jsonl, .json, .csv), or one such
    file. Each line of QUESTIONS (.jsonl) is an object with question, and answers, quotes or gold,
    which tell what chunks are gold. Says whether retrieval finds them, and runs `ranking`,
    `keeping` and, with --generator, `qa` on what it found.
    """
    from at2_rag_evals.corpus.command import run_corpus

    run_corpus(CorpusRequest(**values), as_json=as_json)
