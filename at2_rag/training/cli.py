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
    from at2_rag.training.trainer import Training

_DEPTH_SHARE = 0.6


@click.command("train")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--output", required=True, type=click.Path(file_okay=False), help="Folder to write.")
@click.option(
    "--signal",
    type=click.Choice(["evidence"]),
    default="evidence",
    show_default=True,
    help="What to learn from: evidence labels (`is_gold`).",
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
@click.option("--seed", default=0, show_default=True, help="Of distractors and folds.")
@click.option(
    "--collected",
    type=click.Path(file_okay=False),
    help="Folder for collected features, to share between runs. [default: OUTPUT/features]",
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
    dtype: str | None,
) -> None:
    """Fit head weights on questions with labelled chunks (JSON Lines, may be gzipped).

    Features are collected once and kept; a run that was killed goes on where it stopped.
    """
    try:
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

    examples = read_examples(files)
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

        training = train(
            scoring_model,
            examples,
            collected or Path(output) / "features",
            fingerprint=model_fingerprint(loaded.base_model, tokenizer),
            reading=reading,
            specs=specs,
            depths=depths,
            folds=folds,
            seed=seed,
            workers=workers,
            progress=show,
        )
    facts: dict[str, Any] = {
        "model": _without_place(model),
        "revision": revision,
        "signal": signal,
        "data": [Path(name).name for name in files],
        "samples": dict(training.samples),
        "seed": seed,
        "folds": folds,
        "ridge": training.chosen.candidate.ridge,
        "cross_validation": {
            "ndcg_at_10": round(training.chosen.ndcg, 4),
            "by_source": _rounded(training.chosen.by_source),
        },
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


def _write_results(path: Path, training: Training) -> None:
    rows = [
        {
            "quantity": result.candidate.spec.quantity,
            "passes": list(result.candidate.spec.passes),
            "depth": result.candidate.depth,
            "ridge": result.candidate.ridge,
            "ndcg_at_10": round(result.ndcg, 4),
            "by_source": _rounded(result.by_source),
            "chosen": result is training.chosen,
        }
        for result in training.results
    ]
    path.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def _rounded(values: Any) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


def _table(training: Training) -> Table:
    sources = list(training.chosen.by_source)
    table = Table(title="nDCG@10 out of fold", box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("features", no_wrap=True)
    for heading in ("layers", "ridge", "macro", *sources):
        table.add_column(heading, justify="right")
    for result in training.results:
        design = result.candidate
        table.add_row(
            f"{design.spec.quantity}:{'+'.join(design.spec.passes)}",
            str(design.depth),
            f"{design.ridge:g}",
            f"{result.ndcg:.3f}",
            *(f"{result.by_source[name]:.3f}" for name in sources),
            style="bold" if result is training.chosen else None,
        )
    return table
