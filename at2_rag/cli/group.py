"""The `at2-rag` command. Importing this, and every `--help`, loads neither torch nor transformers.

Further commands come from packages that register a click command in the entry-point group
`at2_rag.commands`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from rich.console import Console

from at2_rag import __version__
from at2_rag.cli.command_line import LazyCommand, LazyGroup, verbose_option
from at2_rag.cli.options import (
    default_states_folder,
    load_pruner,
    model_options,
    states_option,
)
from at2_rag.cli.passages import Format, parse_passages, read_passages
from at2_rag.cli.table import print_result
from at2_rag.errors import InputError
from at2_rag.options import (
    DEFAULT_MAX_MISSED,
    DEFAULT_MAX_OVERLAP,
    IfUnanswerable,
    Order,
    Unit,
    check_limits,
    has_limit,
)
from at2_rag.text.chunks import DEFAULT_ELLIPSIS, DEFAULT_SEPARATOR, Prior, replace_surrogates

if TYPE_CHECKING:
    from at2_rag.states.store import ChunkCache
    from at2_rag.text.chunks import ChunkLike

_COMMANDS = {
    "models": LazyCommand("List, fetch and find scoring models.", "at2_rag.cli.models:models"),
    "train": LazyCommand(
        "Fit head weights to questions with their chunks, labelled or not.",
        "at2_rag.cli.train:train_command",
        extra="train",
    ),
    "calibrate": LazyCommand(
        "Make probabilities of the scores of head weights.",
        "at2_rag.cli.train:calibrate_command",
        extra="train",
    ),
    "index": LazyCommand("Read chunks ahead of any question.", "at2_rag.cli.states:index"),
    "cache": LazyCommand(
        "Show or remove the chunk states that are kept.", "at2_rag.cli.states:cache"
    ),
    "eval": LazyCommand("Measure rankings, fidelity of scores and answers.", extra="evals"),
}


@click.group(
    cls=LazyGroup,
    lazy=_COMMANDS,
    plugins="at2_rag.commands",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="at2-rag")
@verbose_option
def main() -> None:
    """Prune retrieved context before it reaches an LLM."""


@main.command(short_help="Keep the chunks that matter for a question.")
@click.argument(
    "source",
    metavar="[INPUT]",
    required=False,
    type=click.Path(exists=True, allow_dash=True),
)
@click.option("-q", "--query", required=True, help="The question that the chunks may answer.")
@click.option(
    "--top-k", type=click.IntRange(min=1), help="Keep at most so many chunks (or sentences)."
)
@click.option(
    "--max-tokens", type=click.IntRange(min=1), help="Keep what fits into so many tokens."
)
@click.option(
    "--min-score",
    type=float,
    help="Keep chunks (or sentences) with at least this probability, or score where the head "
    "weights aren't calibrated.",
)
@click.option(
    "--top-p",
    type=click.FloatRange(min=0, max=1, min_open=True),
    help="Keep the fewest chunks (or sentences) that hold this share of the relevance.",
)
@click.option(
    "--max-missed",
    type=click.FloatRange(min=0),
    help="Keep the fewest chunks (or sentences) beside which no more than so many that matter are "
    "to be expected; with calibrated head weights.",
)
@click.option(
    "--skip-below-tokens",
    type=click.IntRange(min=1),
    help="Keep a context of at most so many tokens as it is, without scoring; of the limits only "
    "--max-tokens holds then.",
)
@click.option(
    "--order",
    type=click.Choice(get_args(Order)),
    default="score",
    show_default=True,
    help="Order of the output: best first, or as in the input.",
)
@click.option(
    "--unit",
    type=click.Choice(get_args(Unit)),
    default="chunk",
    show_default=True,
    help="What the limits choose: chunks, or their sentences (tables, lists and code as a whole).",
)
@click.option(
    "--protect",
    metavar="REGEX",
    help="Keep every chunk (or sentence) that this matches in any case.",
)
@click.option(
    "--max-overlap",
    type=click.FloatRange(min=0, max=1, min_open=True),
    default=DEFAULT_MAX_OVERLAP,
    show_default=True,
    help="Drop chunks (or sentences) of which this share stands in better ones that are kept, "
    "unless a number, a name or a negation is new; 1 for nothing but what stands there entirely.",
)
@click.option("--keep-duplicates", is_flag=True, help="Drop nothing for saying the same.")
@click.option(
    "--if-unanswerable",
    type=click.Choice(get_args(IfUnanswerable)),
    default="flag",
    show_default=True,
    help="Where most likely no chunk holds the answer: say so, keep one at most, or none; the last "
    "two with calibrated head weights.",
)
@click.option(
    "--prior",
    type=click.Choice(get_args(Prior)),
    help="Let the retriever weigh in: ranks by the chunks' retrieval_score, or by their order, or "
    "retrieval_score as a cosine of embeddings.",
)
@click.option(
    "--multi-hop/--no-multi-hop",
    default=None,
    help="Ask again beside the best chunk, for answers that take two.  [default: where the best "
    "alone doesn't meet the max_missed]",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(get_args(Format)),
    help="Format of the input.  [default: by the file's ending, then by its content]",
)
@model_options
@click.option(
    "--token-counter",
    help="Count tokens as this OpenAI model or tiktoken encoding does.  "
    "[default: the scoring model's tokenizer]",
)
@states_option
@click.option(
    "--no-states", is_flag=True, help="Read every chunk anew, whatever at2-rag index has kept."
)
@click.option(
    "--separator",
    metavar="TEXT",
    default=DEFAULT_SEPARATOR,
    help="What stands between two chunks of the context.  [default: an empty line]",
)
@click.option(
    "--ellipsis",
    metavar="TEXT",
    default=DEFAULT_ELLIPSIS,
    show_default=True,
    help="What stands for what is left out between two sentences of a chunk.",
)
@click.option(
    "--tokens-per-second",
    type=click.FloatRange(min=0, min_open=True),
    help="How fast the generator reads; below the table it then says what time it was spared.",
)
@click.option(
    "--price",
    type=click.FloatRange(min=0),
    help="What the generator charges for a million tokens; below the table it then says what was "
    "saved.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option(
    "--context", "as_context", is_flag=True, help="Print the kept context alone, for a prompt."
)
@verbose_option
def prune(
    source: str | None,
    query: str,
    form: Format | None,
    order: Order,
    unit: Unit,
    protect: str | None,
    max_overlap: float,
    keep_duplicates: bool,
    if_unanswerable: IfUnanswerable,
    prior: Prior | None,
    multi_hop: bool | None,
    as_json: bool,
    as_context: bool,
    top_k: int | None,
    max_tokens: int | None,
    min_score: float | None,
    top_p: float | None,
    max_missed: float | None,
    skip_below_tokens: int | None,
    tokens_per_second: float | None,
    price: float | None,
    states: Path | None,
    no_states: bool,
    **loading: Any,
) -> None:
    """Keep the chunks of INPUT that matter for a question.

    INPUT is a JSON Lines file (one chunk a line: a string, or an object with text and if wanted
    title, id, metadata and retrieval_score), a JSON file (a list of those), a text file (one chunk
    a paragraph), a folder of text files (one chunk a file), or - for standard input, the default.
    Files may be gzipped.

    Of --top-k, --max-tokens, --min-score, --top-p and --max-missed all that are given hold.
    Without any, calibrated head weights (as the default ones are) keep what is likely to matter;
    others need one.

    Where `at2-rag index` has kept chunk states, or with --states, they are reused, and those of
    new chunks are kept as well.
    """
    limits: dict[str, Any] = {
        "top_k": top_k,
        "max_tokens": max_tokens,
        "min_score": min_score,
        "top_p": top_p,
        "max_missed": max_missed,
    }
    rates = {"tokens_per_second": tokens_per_second, "price_per_million": price}
    told = any(rate is not None for rate in rates.values())
    _check_usage(limits, query, protect, max_overlap)
    for first, second, names in (
        (as_json, as_context, "--json and --context"),
        (told, as_json or as_context, "--tokens-per-second or --price and --json or --context"),
        (states is not None, no_states, "--states and --no-states"),
    ):
        if first and second:
            raise click.UsageError(f"{names} exclude each other; pass one of them.")
    chunks = _read(source, form)
    if (store := _state_store(states, no_states)) is not None:
        loading["chunk_cache"] = store
    pruner = load_pruner(**loading)
    # Everything but the result goes to standard error, so that the output can be piped on.
    with Console(stderr=True).status(f"Scoring {len(chunks):,} chunks"):
        result = pruner.prune(
            query,
            chunks,
            order=order,
            skip_below_tokens=skip_below_tokens,
            unit=unit,
            protect=protect,
            max_overlap=None if keep_duplicates else max_overlap,
            if_unanswerable=if_unanswerable,
            prior=prior,
            multi_hop=multi_hop,
            **limits,
        )
    if as_json:
        click.echo(result.to_json())
    elif as_context:
        for note in result.notes:
            click.echo(note, err=True)
        click.echo(replace_surrogates(result.context), nl=bool(result.kept))
    else:
        print_result(
            result,
            Console(),
            original_order=order == "original",
            break_even=result.break_even(**rates) if told else None,
        )


def _check_usage(
    limits: dict[str, Any], query: str, protect: str | None, max_overlap: float
) -> None:
    if not has_limit(limits):
        limits = {"max_missed": DEFAULT_MAX_MISSED}  # what calibrated weights make of it
    try:
        check_limits(**limits, protect=protect, max_overlap=max_overlap)
    except InputError as error:
        raise click.UsageError(str(error)) from error
    if not query.strip():
        raise click.UsageError("The question given with --query is blank.")


def _read(source: str | None, form: Format | None) -> list[ChunkLike]:
    if source is None and sys.stdin.isatty():
        raise click.UsageError("No INPUT was given, and standard input is a terminal.")
    if source in (None, "-"):
        return parse_passages(sys.stdin.buffer.read(), "<stdin>", format=form)
    return read_passages(Path(source), format=form)


def _state_store(folder: Path | None, without: bool) -> ChunkCache | None:
    """Return the store that was asked for, or the one that `at2-rag index` filled."""
    if without or not (folder or default_states_folder().is_dir()):
        return None

    from at2_rag.states.store import ChunkCache

    return ChunkCache(folder or default_states_folder(), max_memory_bytes=0)
