"""`at2-rag train`; importing this, as `--help` does, loads neither torch nor transformers."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from at2_rag.cli.command_line import CommandError, command_without_places, verbose_option
from at2_rag.model.hub import DEFAULT_MODEL

_ABLATION_OPTIONS = ("masks", "answers", "answer_tokens")
_REMEDY = 'run: pip install "at2-rag[train]"'


@click.command("train")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--output", required=True, type=click.Path(file_okay=False), help="Folder to write.")
@click.option(
    "--signal",
    type=click.Choice(["evidence", "ablation", "both"]),
    default="evidence",
    show_default=True,
    help="What to learn from: evidence labels (`is_gold`), what leaving chunks out does to the "
    "likelihood of the question and of the model's answer (needs no labels; independent "
    "reading), or both.",
)
@click.option(
    "--target",
    type=click.Choice(["question", "answer"]),
    default="question",
    show_default=True,
    help="Whose attention the weights are for: the question's, to prune, or a finished answer's, "
    "to attribute it (learned from ablations).",
)
@click.option("--model", default=DEFAULT_MODEL, show_default=True, help="Name, folder or hub id.")
@click.option("--revision", help="Revision of a hub id.")
@click.option(
    "--reading",
    type=click.Choice(["independent", "joint"]),
    default="independent",
    show_default=True,
    help="How the chunks are read.",
)
@click.option(
    "--depth",
    "depths",
    multiple=True,
    type=click.IntRange(min=1),
    help="Layers to use; repeat to cross-validate several. [default: 60 % of the model's]",
)
@click.option(
    "--features",
    multiple=True,
    metavar="QUANTITY:PASS[+PASS]",
    help="Feature set, e.g. log_ratio:together+apart; repeat to cross-validate several. "
    "[default: all]",
)
@click.option(
    "--objective",
    "objectives",
    multiple=True,
    type=click.Choice(["contributions", "drops", "pearson", "evidence", "mixed"]),
    help="What weights are fitted to; repeat to cross-validate several. [default: ablation: "
    "contributions, drops and pearson; both: mixed, evidence and contributions]",
)
@click.option("--limit", type=click.IntRange(min=1), help="Use so many examples of each source.")
@click.option("--folds", default=5, show_default=True, type=click.IntRange(min=2))
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of the examples that --limit draws, added chunks, masks and folds.",
)
@click.option(
    "--collected",
    type=click.Path(file_okay=False),
    help="Folder for collected features, to share between runs; those of more layers serve "
    "a smaller --depth too. [default: OUTPUT/features]",
)
@click.option(
    "--masks",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Random ablations of an example, besides leaving out each chunk in turn.",
)
@click.option(
    "--answers",
    type=click.Choice(["generated", "reference"]),
    default="generated",
    show_default=True,
    help="Whose answers are ablated: the model's, or each example's first reference answer.",
)
@click.option(
    "--answer-tokens",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Most tokens of a generated answer.",
)
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]))
@click.option(
    "--dev",
    multiple=True,
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="Labelled questions that the fitted weights are judged on; repeat for several files.",
)
@verbose_option
@click.pass_context
def train_command(context: click.Context, /, **options: Any) -> None:
    """Fit head weights on questions with their chunks (JSON Lines, may be gzipped).

    What is read is collected once and kept; a run that was killed goes on where it stopped.
    OUTPUT gets the weights, everything known about the run (training.json), and the same as a
    page (training.html).
    """
    try:
        from at2_rag.training.commands.train import TrainRequest, run_training
    except ImportError as error:
        remedy = "" if _REMEDY in str(error) else f"; {_REMEDY}"
        raise CommandError(f"fitting head weights is not possible: {error}{remedy}") from error
    for name in _ABLATION_OPTIONS:
        passed = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if passed and options["signal"] == "evidence":
            raise CommandError(
                f"--{name.replace('_', '-')} {options[name]} with --signal evidence, which ablates "
                "nothing; leave it out, or pass --signal ablation or both"
            )
    run_training(TrainRequest(**options), command=command_without_places(context))


@click.command("calibrate")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--output", required=True, type=click.Path(file_okay=False), help="Folder to write.")
@click.option(
    "--head-weights",
    help="Shipped weights by name, or a folder that `at2-rag train` wrote. [default: those that "
    "are shipped for the model]",
)
@click.option("--model", default=DEFAULT_MODEL, show_default=True, help="Name, folder or hub id.")
@click.option("--revision", help="Revision of a hub id.")
@click.option("--limit", type=click.IntRange(min=1), help="Use so many examples of each source.")
@click.option("--folds", type=click.IntRange(min=2), default=5, show_default=True)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of the examples that --limit draws, exchanged chunks and folds.",
)
@click.option(
    "--outcome",
    type=click.Choice(["evidence", "removal"]),
    default="evidence",
    show_default=True,
    help="What probabilities of chunks are of: that one is gold, or that the right answer is less "
    "likely without it, for which each is left out in turn.",
)
@click.option(
    "--prior",
    type=click.Choice(["score", "cosine"]),
    multiple=True,
    default=("score",),
    show_default=True,
    help="What to learn of the chunks' retrieval_score: what its ranks count, or the score itself "
    "where it is a cosine of embeddings. May be repeated.",
)
@click.option(
    "--judge",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False),
    help="Further questions of the same sources, which nothing is fitted to: by them it is judged, "
    "too, what one max_missed keeps on a source left out. May be repeated.",
)
@click.option(
    "--multi-hop",
    is_flag=True,
    help="Also learn to ask again beside the best chunk, for answers that take two chunks.",
)
@click.option(
    "--sentences",
    is_flag=True,
    help="Also learn which sentences hold the evidence: those that gold_sents name, else those of "
    "gold chunks with the answer. For pruning inside chunks.",
)
@click.option(
    "--collected",
    type=click.Path(file_okay=False),
    help="Folder for what is read, to share between runs with weights over as many layers. "
    "[default: OUTPUT/features]",
)
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]))
@verbose_option
@click.pass_context
def calibrate_command(context: click.Context, /, **options: Any) -> None:
    """Make probabilities of scores, fitted to questions with labelled chunks and answers.

    Pass questions that the weights weren't fitted on. Learned is how likely it is that a chunk
    matters, and that any chunk holds the answer (gold chunks are exchanged for others); where
    chunks have a retrieval_score also what to make of that. Figures are of sources left out of all
    fits, and tell what one max_missed keeps on each of them. OUTPUT gets the weights with their
    calibration, a plot (reliability.svg) and everything known about the run (calibration.json).
    """
    try:
        from at2_rag.training.commands.calibrate import CalibrateRequest, run_calibration
    except ImportError as error:
        remedy = "" if _REMEDY in str(error) else f"; {_REMEDY}"
        raise CommandError(f"calibrating is not possible: {error}{remedy}") from error
    run_calibration(CalibrateRequest(**options), command=command_without_places(context))
