"""`at2-rag train`; importing this, as `--help` does, loads neither torch nor transformers."""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from at2_rag.command_line import CommandError, verbose_option
from at2_rag.errors import InputError
from at2_rag.model_hub import DEFAULT_MODEL, resolve_model
from at2_rag.training.examples import draw_per_source, read_examples

if TYPE_CHECKING:
    from at2_rag.features import FeatureSpec, Reading
    from at2_rag.training.ablation_trainer import AblationTraining
    from at2_rag.training.trainer import Training

_DEPTH_SHARE = 0.6


@click.command("train")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--output", required=True, type=click.Path(file_okay=False), help="Folder to write.")
@click.option(
    "--signal",
    type=click.Choice(["evidence", "ablation", "both"]),
    default="evidence",
    show_default=True,
    help="What to learn from: evidence labels (`is_gold`), what leaving chunks out does to the "
    "model's own answer (needs no labels; independent reading), or both.",
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
@click.option("--limit", type=click.IntRange(min=1), help="Use so many examples of each source.")
@click.option("--folds", default=5, show_default=True, type=click.IntRange(min=2))
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of distractors and folds.",
)
@click.option(
    "--collected",
    type=click.Path(file_okay=False),
    help="Folder for collected features, to share between runs. [default: OUTPUT/features]",
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
    help="Whose answers are ablated: the model's own, or each example's first reference answer.",
)
@click.option(
    "--answer-tokens",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Most tokens of a generated answer.",
)
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]))
@verbose_option
def train_command(
    files: tuple[str, ...],
    output: str,
    signal: str,
    model: str,
    revision: str | None,
    reading: Reading,
    depths: tuple[int, ...],
    features: tuple[str, ...],
    limit: int | None,
    folds: int,
    seed: int,
    collected: str | None,
    masks: int,
    answers: str,
    answer_tokens: int,
    dtype: str | None,
) -> None:
    """Fit head weights on questions with their chunks (JSON Lines, may be gzipped).

    What is read is collected once and kept; a run that was killed goes on where it stopped.
    """
    try:
        from at2_rag.training.ablation_trainer import train_on_ablations
        from at2_rag.training.trainer import train
    except ImportError as error:
        raise CommandError(
            f'fitting head weights is not possible: {error}; run: pip install "at2-rag[train]"'
        ) from error

    import torch

    from at2_rag.fingerprint import model_fingerprint
    from at2_rag.head_weights import DESCRIPTION_FILE
    from at2_rag.model_loading import load_model
    from at2_rag.scoring_model import ScoringModel, layers_and_heads
    from at2_rag.training.ablation_collection import AblationPlan
    from at2_rag.training.answer_model import AnswerModel

    if signal != "evidence" and reading != "independent":
        raise InputError(
            f"--signal {signal} with --reading {reading}; ablations are read over chunk states, "
            "pass --reading independent"
        )
    examples = read_examples(files, labelled=signal != "ablation")
    if limit is not None:
        examples = draw_per_source(examples, limit, seed=seed)
    specs = [_parse_features(text) for text in features] or None
    workers = os.cpu_count() or 1
    torch.set_num_threads(1)  # see `collect`: many workers of one thread read faster
    folder = resolve_model(model, revision=revision)
    loaded, tokenizer = load_model(folder, dtype=getattr(torch, dtype) if dtype else None)
    layers, _ = layers_and_heads(loaded.base_model.config)
    depth = max(depths) if depths else round(_DEPTH_SHARE * layers)
    scoring_model = ScoringModel(loaded, tokenizer, depth=depth)
    console = Console(stderr=True)
    with Progress(console=console) as bar:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

        place = Path(collected) if collected else Path(output) / "features"
        shared: dict[str, Any] = {
            "fingerprint": model_fingerprint(loaded.base_model, tokenizer),
            "specs": specs,
            "depths": depths,
            "folds": folds,
            "seed": seed,
            "workers": workers,
            "progress": show,
        }
        training: Training | AblationTraining
        ablated: dict[str, Any] = {}
        if signal == "evidence":
            training = train(scoring_model, examples, place, reading=reading, **shared)
        else:
            training = on_ablations = train_on_ablations(
                scoring_model,
                AnswerModel(loaded, tokenizer),
                examples,
                place,
                signal=signal,  # type: ignore[arg-type]
                plan=AblationPlan(masks, answer_tokens, reference=answers == "reference"),
                **shared,
            )
            ablated = {"answers": answers, "masks": masks, "left_out": on_ablations.left_out}
    facts: dict[str, Any] = {
        "model": _without_place(model),
        "revision": revision,
        "signal": signal,
        "data": [Path(name).name for name in files],
        "samples": dict(training.samples),
        "seed": seed,
        "folds": folds,
        "ridge": training.chosen.candidate.ridge,
        **ablated,
        "cross_validation": training.chosen.figures(),
        "versions": {name: version(name) for name in ("at2-rag", "torch", "transformers")},
    }
    training.weights.describe(**facts).save(output)
    _write_results(Path(output) / "cross_validation.json", training)
    console.print(_table(training))
    console.print(f"wrote {Path(output) / DESCRIPTION_FILE} and the weights beside it")


def _without_place(model: str) -> str:
    """Return a local folder's name without where it is, and any other model's as it is."""
    folder = Path(model).expanduser()
    return folder.resolve().name if model != DEFAULT_MODEL and folder.is_dir() else model


def _parse_features(text: str) -> FeatureSpec:
    from at2_rag.features import FeatureSpec

    quantity, separator, passes = text.partition(":")
    if not separator:
        raise InputError(f"--features is {text!r}; write it as log_ratio:together+apart")
    return FeatureSpec(quantity, tuple(passes.split("+")))  # type: ignore[arg-type]


def _write_results(path: Path, training: Training | AblationTraining) -> None:
    rows = [
        {
            "quantity": result.candidate.spec.quantity,
            "passes": list(result.candidate.spec.passes),
            "depth": result.candidate.depth,
            "ridge": result.candidate.ridge,
            **result.figures(),
            "chosen": result is training.chosen,
        }
        for result in training.results
    ]
    path.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def _table(training: Training | AblationTraining) -> Table:
    sources = list(training.chosen.by_source)
    table = Table(title="nDCG@10 out of fold", box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("features", no_wrap=True)
    objectives = "objective" in training.chosen.figures()
    for heading in (*["objective"] * objectives, "layers", "ridge", "macro", *sources):
        table.add_column(heading, justify="right")
    for result in training.results:
        design, figures = result.candidate, result.figures()
        table.add_row(
            f"{design.spec.quantity}:{'+'.join(design.spec.passes)}",
            *([figures["objective"]] if objectives else []),
            str(design.depth),
            f"{design.ridge:g}",
            f"{result.ndcg:.3f}",
            *(f"{result.by_source[name]:.3f}" for name in sources),
            style="bold" if result is training.chosen else None,
        )
    return table
