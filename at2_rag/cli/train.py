"""`at2-rag label`, `train` and `calibrate`; importing this loads neither torch nor transformers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from at2_rag.cli.command_line import (
    Command,
    CommandError,
    FiniteRange,
    command_without_folders,
    headed,
    verbose_option,
)
from at2_rag.cli.options import headed_reading
from at2_rag.model.hub import DEFAULT_MODEL
from at2_rag.progress import announced

_Function = TypeVar("_Function", bound=Callable[..., Any])

_ABLATION_OPTIONS = ("masks", "answers", "answer_tokens")
_OF_LLM = ("base_url", "key_variable", "reply_tokens", "timeout", "attempts", "parallel")
_REMEDY = 'run: pip install "at2-rag[train]"'
_SETTINGS = {"show_default": True}
_COUNT = click.IntRange(min=1)
_FILE = click.Path(exists=True, dir_okay=False)
_FOLDER = click.Path(file_okay=False)

_data, _learned, _ablated, _written = map(
    headed, ("Data", "What is learned", "Ablations", "What is written")
)
_teacher, _llm = map(headed, ("A teacher's scores", "An LLM's labels"))
files_argument = click.argument("files", nargs=-1, required=True, type=_FILE)
_output = _written("--output", required=True, type=_FOLDER, help="Folder to write.")
_model = headed_reading("--model", default=DEFAULT_MODEL, help="Name, folder or hub id.")
_revision = headed_reading("--revision", help="Revision of a hub id.")
_limit = _data("--limit", type=_COUNT, help="Use at most this many examples of each source.")
_hold_out = partial(_data, "--hold-out", type=_COUNT)
_folds = _learned(
    "--folds", default=5, type=click.IntRange(min=2), help="Parts for cross-validation."
)
_seed = partial(_data, "--seed", type=click.IntRange(min=0), default=0)
collected_option = partial(_written, "--collected", type=_FOLDER)
_dtype = headed_reading(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Type of the model's numbers. [default: bfloat16 where the device is fast at it]",
)


@contextmanager
def importing(what: str) -> Iterator[None]:
    """Say how to install what is missing."""
    try:
        yield
    except ImportError as error:
        remedy = "" if _REMEDY in str(error) else f"; {_REMEDY}"
        raise CommandError(f"{what} is not possible: {error}{remedy}") from error


_COLLECTION_OPTIONS = (
    _learned(
        "--signal",
        type=click.Choice(["evidence", "ablation", "both", "teacher"]),
        default="evidence",
        help="What to learn from: evidence labels (`is_gold`), what leaving chunks out does to the "
        "likelihood of the question and of the model's answer (needs no labels; independent "
        "reading), both of these, or the scores of a teacher (`teacher_score`, see `at2-rag "
        "label`), besides labels where there are any.",
    ),
    _learned(
        "--target",
        type=click.Choice(["question", "answer"]),
        default="question",
        help="Whose attention the weights are for: the question's, to prune, or a finished "
        "answer's, to attribute it (learned from ablations).",
    ),
    _model,
    _revision,
    headed_reading(
        "--reading",
        type=click.Choice(["independent", "joint"]),
        default="independent",
        help="How the chunks are read.",
    ),
    _learned(
        "--depth",
        "depths",
        multiple=True,
        type=_COUNT,
        help="Layers to use; repeat to cross-validate several. [default: 60 % of the model's]",
    ),
    _learned(
        "--features",
        multiple=True,
        metavar="QUANTITY:PASS[+PASS]",
        help="Feature set, e.g. log:together+apart; repeat to cross-validate several. "
        "[default: all]",
    ),
    headed_reading(
        "--shortlist",
        metavar="WEIGHTS",
        help="Weights for late reading, shipped or in a folder, that choose the few chunks that "
        "are read by the other passes of the features. [default: all chunks are]",
    ),
    _limit,
    _hold_out(
        help="Leave out this many questions of each source, and what shares a gold passage or its "
        "question with one of them, for at2-rag calibrate with the same files and number."
    ),
    _seed(help="Of the examples that --limit draws, added chunks, masks and folds."),
    _ablated(
        "--masks",
        type=_COUNT,
        default=32,
        help="Random ablations of an example, besides leaving out each chunk in turn.",
    ),
    _ablated(
        "--answers",
        type=click.Choice(["generated", "reference"]),
        default="generated",
        help="Whose answers are ablated: the model's, or each example's first reference answer.",
    ),
    _ablated("--answer-tokens", type=_COUNT, default=32, help="Most tokens of a generated answer."),
    _dtype,
    _data(
        "--dev",
        multiple=True,
        metavar="FILE",
        type=_FILE,
        help="Labelled questions that the fitted weights are judged on; repeat for several files.",
    ),
)


def collection_options(command: _Function) -> _Function:
    """Add the options that decide what is read of which questions."""
    for option in reversed(_COLLECTION_OPTIONS):
        command = option(command)
    return command


def check_ablation_options(context: click.Context) -> None:
    """Refuse options of ablations on the command line where nothing is ablated."""
    options = context.params
    for name in _ABLATION_OPTIONS:  # from elsewhere they may be meant for other runs
        passed = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if passed and options["signal"] in ("evidence", "teacher"):
            raise CommandError(
                f"--{name.replace('_', '-')} {options[name]} with --signal {options['signal']}, "
                "which ablates nothing; leave it out, or pass --signal ablation or both"
            )


@click.command("train", cls=Command, context_settings=_SETTINGS)
@files_argument
@_output
@collection_options
@_learned(
    "--objective",
    "objectives",
    multiple=True,
    type=click.Choice(["contributions", "drops", "pearson", "evidence", "mixed", "teacher"]),
    help="What weights are fitted to; repeat to cross-validate several. [default: ablation: "
    "contributions, drops and pearson; both: mixed, evidence and contributions; teacher: mixed, "
    "evidence and teacher, without labels teacher]",
)
@_learned(
    "--key-heads",
    type=_COUNT,
    help="Most key heads with weights, for features of late reading; what is kept of a chunk grows "
    "with them. [default: all]",
)
@_folds
@_learned(
    "--leave-out-sources",
    is_flag=True,
    help="Cross-validate on each source in turn, by what was fitted without it, instead of folds.",
)
@collected_option(
    help="Folder for collected features, to share between runs; those of more layers serve "
    "a smaller --depth too. [default: OUTPUT/features]",
)
@verbose_option
@click.pass_context
def train_command(context: click.Context, /, **options: Any) -> None:
    """Fit head weights on questions with their chunks (JSON Lines, may be gzipped).

    What is read is collected once and kept; a run that was killed goes on where it stopped.
    OUTPUT gets the weights, everything known about the run (training.json), and the same as a
    page (training.html).
    """
    with announced("Loading torch"), importing("fitting head weights"):
        from at2_rag.training.commands.train import TrainRequest, run_training
    check_ablation_options(context)
    options["collected"] = options["collected"] or os.path.join(options["output"], "features")
    run_training(TrainRequest(**options), command=command_without_folders(context))


@click.command("calibrate", cls=Command, context_settings=_SETTINGS)
@files_argument
@_output
@headed_reading(
    "--head-weights",
    help="Shipped weights by name, or a folder that `at2-rag train` wrote. [default: those that "
    "are shipped for the model]",
)
@_model
@_revision
@_limit
@_hold_out(
    help="Use the questions that at2-rag train with the same files and number left out. "
    "[default: all]"
)
@_folds
@_seed(help="Of the examples that --limit draws, exchanged chunks and folds.")
@_learned(
    "--prior",
    type=click.Choice(["score", "cosine"]),
    multiple=True,
    default=("score",),
    help="Learn a weight for the retriever: of its ranks (score) or of its cosines (cosine). "
    "May be repeated.",
)
@_data(
    "--embedding",
    metavar="minilm|FOLDER",
    help="Cosines of this embedding, a sentence-transformers folder, are the retrieval scores of "
    "chunks that have none. [default: such chunks teach no prior]",
)
@_learned(
    "--multi-hop",
    is_flag=True,
    help="Also learn to ask again beside the best chunk, for answers that take two chunks.",
)
@_learned(
    "--sentences",
    is_flag=True,
    help="Also learn which sentences hold the evidence: those that gold_sents name, else those of "
    "gold chunks with the answer. For pruning inside chunks.",
)
@collected_option(
    help="Folder for what is read, to share between runs with weights over as many layers. "
    "[default: OUTPUT/features]",
)
@_dtype
@verbose_option
@click.pass_context
def calibrate_command(context: click.Context, /, **options: Any) -> None:
    """Turn scores into probabilities, fitted to questions with labelled chunks and answers.

    Pass questions that the weights weren't fitted on. Learns how likely a chunk is relevant, how
    likely any chunk holds the answer (by exchanging gold chunks for others), and what the chunks'
    retrieval_score adds. The figures are of sources left out of the fits. OUTPUT gets the weights
    with their calibration, a plot (reliability.svg) and everything known about the run
    (calibration.json).
    """
    with announced("Loading torch"), importing("calibrating"):
        from at2_rag.training.commands.calibrate import CalibrateRequest, run_calibration
    run_calibration(CalibrateRequest(**options), command=command_without_folders(context))


@click.command(
    "label",
    cls=Command,
    exclusive=[[("embedding",), ("scores",), ("llm",)], [("gold_from",), ("llm",)]],
    context_settings=_SETTINGS,
)
@click.argument("files", nargs=-1, required=True, type=_FILE)
@_written(
    "--output",
    required=True,
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="File to write, gzipped if its name ends in .gz.",
)
@_teacher(
    "--embedding",
    type=click.Path(exists=True, file_okay=False),
    metavar="FOLDER",
    help="Folder of a sentence-transformers model, whose cosines of question and chunk are "
    "written. [default: all-MiniLM-L6-v2, if it is installed]",
)
@_teacher(
    "--scores",
    type=_FILE,
    metavar="FILE",
    help="JSON Lines or CSV with id, index (or chunk_id) and score: what any ranker gave.",
)
@_teacher(
    "--gold-from",
    type=float,
    metavar="SCORE",
    help="Also label chunks without a label: gold with this score or more, not gold below it, for "
    "at2-rag calibrate.",
)
@_llm("--llm", metavar="MODEL", help="Model that is asked whether a chunk helps to answer.")
@_llm(
    "--base-url",
    metavar="URL",
    help="Address of a server that speaks OpenAI's chat completions. [default: OPENAI_BASE_URL, "
    "or else OpenAI's]",
)
@_llm(
    "--key-variable",
    metavar="NAME",
    default="OPENAI_API_KEY",
    help="Environment variable that holds the server's key.",
)
@_llm("--reply-tokens", type=_COUNT, default=512, help="Most tokens of a reply, thoughts included.")
@_llm(
    "--timeout",
    type=FiniteRange(min=0, min_open=True),
    default=60.0,
    help="Seconds to wait for a reply.",
)
@_llm(
    "--attempts",
    type=_COUNT,
    default=6,
    help="Most times that a prompt is sent, with growing waits.",
)
@_llm("--parallel", type=_COUNT, default=4, help="Prompts that are sent at a time.")
@verbose_option
@click.pass_context
def label_command(context: click.Context, /, **options: Any) -> None:
    """Write questions with labels or teacher scores of their chunks (JSON Lines, may be gzipped).

    A teacher is whatever ranks chunks: its scores are written as `teacher_score`, for `at2-rag
    train --signal teacher`, and with --gold-from as labels, for `at2-rag calibrate`. An LLM says
    yes or no to each chunk without a label, written as `is_gold`, null where it said neither. What
    it replied is kept beside OUTPUT, so that a run that was killed goes on where it stopped.
    """
    for name in _OF_LLM:  # from elsewhere they may be meant for other runs
        passed = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if passed and options["llm"] is None:
            raise CommandError(
                f"--{name.replace('_', '-')} is for --llm; leave it out, or pass --llm MODEL"
            )
    with announced("Loading"):
        from at2_rag.training.commands.label import LabelRequest, run_labelling
    run_labelling(LabelRequest(**options))
