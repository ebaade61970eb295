"""What `at2-rag eval qa` is run with; its fields are the command's options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from at2_rag.cli.command_line import FiniteRange
from at2_rag.options import Order
from at2_rag_evals.named_systems import (
    NamedSystem,
    embedding_attributes,
    weights_attributes,
    with_named,
)
from at2_rag_evals.qa.budgets import Budget, adaptive_name
from at2_rag_evals.qa.shipped_set import ITEMS
from at2_rag_evals.request import FILE, FOLDER, EvalRequest, argument, option
from at2_rag_evals.system_options import system_option

if TYPE_CHECKING:
    from at2_rag_evals.qa.readers.registry import Dataset

DEFAULT_PRUNERS = (
    "none",
    "closed_book",
    "oracle",
    "first_k",
    "last_k",
    "random_k",
    "bm25",
    "minilm",
    "all_heads_mean",
    "at2",
)
MORE_PRUNERS = (
    "bm25_unstemmed",
    "bm25_minilm",
    "at2_adaptive",
    "at2_adaptive_multi_hop",
    "at2_adaptive_once",
    "at2_joint",
    "heads_8",
    "heads_16",
    "langchain_filter",
    "llama_index_optimizer",
    "long_llm_lingua",
)


def _parse_datasets(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[Dataset, ...]:
    from at2_rag_evals.qa.readers.registry import parse_dataset

    return tuple(map(parse_dataset, values))


@dataclass(frozen=True, slots=True, kw_only=True)
class QARequest(EvalRequest):
    """All options of the command, with their defaults."""

    files: tuple[Path, ...] = argument(nargs=-1, type=FILE)
    output: Path = option(
        required=True,
        type=FOLDER,
        help="Folder for report.html, qa.md, summary.json and items.jsonl; a killed run goes on "
        "from it.",
        heading="Output",
    )
    model: str | None = option(
        help="Scoring model of the pruners: a known name, a folder or a hub id.",
        heading="What is judged",
    )
    head_weights: str | None = option(
        help="Folder with the head weights of at2 and at2_adaptive.",
        heading="What is judged",
    )
    datasets: tuple[Dataset, ...] = option(
        "--dataset",
        multiple=True,
        callback=_parse_datasets,
        metavar="NAME=PATH",
        help="A published data set as it is: squad, hotpotqa, musique, nq_multi_document or rgb "
        "with its file, beir with its folder. May be repeated.",
        heading="Items",
    )
    pruners: tuple[str, ...] = system_option(
        "--pruner", DEFAULT_PRUNERS + MORE_PRUNERS, DEFAULT_PRUNERS, help="Judge this pruner"
    )
    weights: tuple[NamedSystem, ...] = option(
        **weights_attributes(DEFAULT_PRUNERS + MORE_PRUNERS),
        heading="What is judged",
    )
    top_k: tuple[int, ...] = option(
        multiple=True,
        type=click.IntRange(min=1),
        metavar="K",
        show_default="1 and 3, without --max-tokens",
        help="Keep at most K chunks. May be repeated.",
        heading="What is judged",
    )
    max_tokens: tuple[int, ...] = option(
        multiple=True,
        type=click.IntRange(min=1),
        metavar="N",
        help="Keep a context of at most N of the generator's tokens. May be repeated.",
        heading="What is judged",
    )
    max_missed: tuple[float, ...] = option(
        multiple=True,
        type=FiniteRange(min=0, max=1),
        metavar="X",
        help="Also judge at2_rag without a budget but with this max_missed, as the pruner "
        "at2_adaptive_X. May be repeated.",
        heading="What is judged",
    )
    multi_hop: bool | None = option(
        "--multi-hop/--no-multi-hop",
        show_default="where the best chunk is likely right and alone misses more than --max-missed",
        help="Whether the pruners of --max-missed read the question again with the best chunk.",
        heading="What is judged",
    )
    generators: tuple[str, ...] = option(
        "--generator",
        default=("default",),
        multiple=True,
        metavar="SPEC",
        help="What answers: a local model (name, folder or hub id), or openai:MODEL for a model of "
        "any server that speaks OpenAI's chat completions. May be repeated.",
        heading="Generators",
    )
    orders: tuple[Order, ...] = option(
        "--order",
        default=("score",),
        multiple=True,
        type=click.Choice(get_args(Order)),
        help="Order of the kept chunks in the prompt. May be repeated.",
        heading="What is judged",
    )
    gold_position: bool = option(
        default=False,
        is_flag=True,
        help="Judge items with one gold chunk five times, with that chunk at the first, quarter, "
        "middle, three-quarter and last position.",
        heading="Items",
    )
    may_decline: bool = option(
        default=False,
        is_flag=True,
        help="Tell the generator how to say that the passages hold no answer.",
        heading="Generators",
    )
    answer_tokens: int = option(
        default=32,
        type=click.IntRange(min=1),
        help="Most tokens of an answer.",
        heading="Generators",
    )
    embeddings: tuple[NamedSystem, ...] = option(
        "--embedding",
        **embedding_attributes(DEFAULT_PRUNERS + MORE_PRUNERS),
        heading="What is judged",
    )
    embedding_model: str | None = option(
        help="sentence-transformers model of minilm: a folder or a hub id.",
        heading="What is judged",
    )
    train: tuple[Path, ...] = option(
        multiple=True,
        type=FILE,
        help="Training file on which attention heads are chosen. May be repeated.",
        heading="What is judged",
    )
    chosen_on: Path | None = option(
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        metavar="FOLDER",
        help="Output folder of a run over training items: for each generator and pruner the report "
        "shows how the budget with the highest accuracy there does here.",
        heading="What is judged",
    )
    base_url: str | None = option(
        metavar="URL",
        show_default="OPENAI_BASE_URL, or else OpenAI's",
        help="Address of the server of openai: generators; its key is read from OPENAI_API_KEY.",
        heading="Generators",
    )
    token_counter: str | None = option(
        help="What counts tokens for openai: generators: a tiktoken encoding, an OpenAI model's "
        "name or a tokenizer's folder.",
        show_default="the model's name",
        heading="Generators",
    )
    timeout: float = option(
        default=60.0,
        type=FiniteRange(min=0, min_open=True),
        help="Seconds to wait for a server's answer.",
        heading="Generators",
    )
    attempts: int = option(
        default=6,
        type=click.IntRange(min=1),
        help="Most times that a prompt is sent to a server, with growing waits.",
        heading="Generators",
    )
    parallel: int = option(
        default=4,
        type=click.IntRange(min=1),
        help="Prompts sent to a server at a time.",
        heading="Generators",
    )
    prices: tuple[float, float] | None = option(
        nargs=2,
        type=FiniteRange(min=0),
        metavar="PROMPT ANSWER",
        help="What a million tokens of prompts and of answers cost.",
        heading="Generators",
    )

    @property
    def sources(self) -> tuple[Path, ...]:
        """The files of items; those of the shipped set if no files or data sets are named."""
        return self.files if self.files or self.datasets else (ITEMS,)

    @property
    def judged(self) -> tuple[str, ...]:
        """All pruners' names, each once, in the report's order."""
        adaptive = [adaptive_name(limit, multi_hop=self.multi_hop) for limit in self.max_missed]
        names = with_named(tuple(dict.fromkeys(self.pruners)), self.weights, self.embeddings)
        return tuple(dict.fromkeys((*names, *adaptive)))

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """All budgets, each once; top 1 and top 3 where there are none."""
        budgets = [Budget(top_k=number) for number in self.top_k]
        budgets += [Budget(max_tokens=number) for number in self.max_tokens]
        return tuple(dict.fromkeys(budgets)) or (Budget(top_k=1), Budget(top_k=3))
