"""`at2-rag eval qa`: loaded with the other evals' commands, so it imports little."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import click

from at2_rag.cli.command_line import verbose_option
from at2_rag_evals.named_weights import NamedWeights, weights_option
from at2_rag_evals.options import (
    embedding_model_option,
    json_option,
    limit_option,
    seed_option,
    train_option,
)

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


def _read_config(context: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    """Make a TOML file's values the defaults of the other options."""
    if path is None:
        return
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{path} can't be read as TOML: {error}") from error
    known: dict[str, tuple[str, click.Parameter]] = {}
    for own in context.command.params:
        if own.name and own is not parameter and own.name not in ("help", "verbose"):
            word = max(own.opts, key=len).lstrip("-") if own.opts else own.name
            known[word.lower()] = (own.name, own)
    defaults: dict[str, Any] = {}
    for key, value in values.items():
        word = key.replace("_", "-").lower()
        if word not in known:
            raise click.BadParameter(
                f"{path.name} has the key {key!r}; the known ones are {', '.join(sorted(known))}"
            )
        name, own = known[word]
        many = own.multiple if isinstance(own, click.Option) else own.nargs == -1
        defaults[name] = [value] if many and not isinstance(value, list) else value
    context.default_map = {**(context.default_map or {}), **defaults}


@click.command()
@click.argument(
    "files",
    nargs=-1,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    metavar="NAME=PATH",
    help="A published data set as it is: squad, hotpotqa, musique, nq_multi_document or rgb with "
    "its file, beir with its folder. May be repeated.",
)
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    is_eager=True,
    expose_value=False,
    callback=_read_config,
    help="TOML file with any of these options by their long names, and `files`.",
)
@click.option(
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for summary.json, qa.md and items.jsonl; a killed run goes on from it.",
)
@click.option(
    "--pruner",
    "pruners",
    multiple=True,
    type=click.Choice(DEFAULT_PRUNERS + MORE_PRUNERS),
    help=f"Judge this pruner. May be repeated.  [default: all but {', '.join(MORE_PRUNERS)}]",
)
@weights_option(DEFAULT_PRUNERS + MORE_PRUNERS)
@click.option(
    "--top-k",
    multiple=True,
    type=click.IntRange(min=1),
    metavar="K",
    help="Keep at most K chunks. May be repeated.  [default: 1 and 3, without --max-tokens]",
)
@click.option(
    "--max-tokens",
    multiple=True,
    type=click.IntRange(min=1),
    metavar="N",
    help="Keep a context of at most N tokens of the generator's. May be repeated.",
)
@click.option(
    "--max-missed",
    "max_missed",
    multiple=True,
    type=click.FloatRange(min=0),
    metavar="X",
    help="Also judge at2_rag without a budget but this max_missed, as the pruner at2_adaptive_X. "
    "May be repeated.",
)
@click.option(
    "--multi-hop/--no-multi-hop",
    default=None,
    help="Let those of --max-missed ask again beside the best chunk, or not.  [default: where the "
    "best alone doesn't meet it]",
)
@click.option(
    "--generator",
    "generators",
    multiple=True,
    default=("default",),
    show_default=True,
    metavar="SPEC",
    help="Who answers: a local model (name, folder or hub id), openai:MODEL, "
    "langchain:module:object or llama_index:module:object. May be repeated.",
)
@limit_option
@seed_option
@click.option(
    "--order",
    "orders",
    multiple=True,
    default=("score",),
    type=click.Choice(["score", "original"]),
    show_default=True,
    help="Order of the kept chunks in the prompt. May be repeated.",
)
@click.option(
    "--gold-position",
    is_flag=True,
    help="Judge items with one gold chunk five times, with it in first, quarter, middle, "
    "three-quarter and last place.",
)
@click.option(
    "--may-decline", is_flag=True, help="Tell the generator how to say that there is no answer."
)
@click.option(
    "--answer-tokens",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Most tokens of an answer.",
)
@click.option("--model", help="Scoring model of the pruners: a known name, a folder or a hub id.")
@click.option("--head-weights", help="Folder with the head weights of at2 and at2_adaptive.")
@embedding_model_option
@train_option
@click.option(
    "--chosen-on",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Output folder of a run over training items: for each generator and pruner the report "
    "tells how the budget with the highest accuracy there does here.",
)
@click.option("--endpoint", metavar="URL", help="Address of the endpoint of openai: generators.")
@click.option(
    "--key-variable",
    default="OPENAI_API_KEY",
    show_default=True,
    help="Environment variable that holds the endpoint's key.",
)
@click.option(
    "--token-counter",
    help="What counts tokens for generators that aren't local: a tiktoken encoding, an OpenAI "
    "model's name or a tokenizer's folder.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="Seconds to wait for an endpoint's answer.",
)
@click.option(
    "--attempts",
    type=click.IntRange(min=1),
    default=6,
    show_default=True,
    help="How often a remote generator is asked for an answer, with growing waits.",
)
@click.option(
    "--parallel",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Prompts that a remote generator is asked at a time.",
)
@click.option(
    "--prices",
    nargs=2,
    type=click.FloatRange(min=0),
    metavar="PROMPT ANSWER",
    help="What a million tokens of prompts and of answers cost.",
)
@json_option
@verbose_option
def qa(
    files: tuple[Path, ...],
    datasets: tuple[str, ...],
    output: Path,
    pruners: tuple[str, ...],
    weights: tuple[NamedWeights, ...],
    top_k: tuple[int, ...],
    max_tokens: tuple[int, ...],
    max_missed: tuple[float, ...],
    multi_hop: bool | None,
    generators: tuple[str, ...],
    limit: int | None,
    seed: int,
    orders: tuple[str, ...],
    gold_position: bool,
    may_decline: bool,
    answer_tokens: int,
    model: str | None,
    head_weights: str | None,
    embedding_model: str | None,
    train: tuple[Path, ...],
    chosen_on: Path | None,
    endpoint: str | None,
    key_variable: str,
    token_counter: str | None,
    timeout: float,
    attempts: int,
    parallel: int,
    prices: tuple[float, float] | None,
    as_json: bool,
) -> None:
    """Let a generator answer the questions of FILES from what pruners keep.

    Without FILES the questions are those of a small set that comes with the evals. Each line of
    FILES (.jsonl or .jsonl.gz) is an object with id, question, answers and chunks, as for
    `ranking`. Reports accuracy, tokens and seconds, with paired bootstrap intervals.
    """
    from at2_rag_evals.qa.command import run_qa
    from at2_rag_evals.qa.generators.registry import GeneratorOptions
    from at2_rag_evals.qa.generators.retrying import Patience
    from at2_rag_evals.qa.readers.registry import parse_dataset
    from at2_rag_evals.qa.request import QARequest
    from at2_rag_evals.qa.shipped_set import ITEMS
    from at2_rag_evals.qa.summary import Prices

    request = QARequest(
        files=files if files or datasets else (ITEMS,),
        datasets=tuple(map(parse_dataset, datasets)),
        output=output,
        pruners=tuple(dict.fromkeys(pruners)) or DEFAULT_PRUNERS,
        top_k=top_k,
        max_tokens=max_tokens,
        max_missed=tuple(dict.fromkeys(max_missed)),
        multi_hop=multi_hop,
        generators=tuple(dict.fromkeys(generators)),
        limit=limit,
        seed=seed,
        orders=tuple("original" if own == "original" else "score" for own in dict.fromkeys(orders)),
        gold_position=gold_position,
        may_decline=may_decline,
        model=model,
        head_weights=head_weights,
        weights=weights,
        embedding_model=embedding_model,
        train=train,
        chosen_on=chosen_on,
        generator=GeneratorOptions(
            answer_tokens=answer_tokens,
            endpoint=endpoint,
            key_variable=key_variable,
            token_counter=token_counter,
            timeout=timeout,
            patience=Patience(attempts=attempts, workers=parallel),
        ),
        prices=None if prices is None else Prices(*prices),
    )
    run_qa(request, as_json=as_json)


@click.command()
@click.argument("first", metavar="A", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument(
    "second", metavar="B", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@seed_option
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@verbose_option
def compare(first: Path, second: Path, seed: int, as_json: bool) -> None:
    """Say what differs between two output folders of `qa`, A minus B.

    Cells of the same generator, pruner, budget and order are compared on the items that both have,
    with paired bootstrap intervals; where each run has one generator, across those two.
    """
    from at2_rag_evals.qa.compare import run_compare

    run_compare(first, second, seed=seed, as_json=as_json)
