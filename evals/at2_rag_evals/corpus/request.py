"""What `at2-rag eval corpus` is run with; its fields are the command's options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from at2_rag_evals.named_systems import NamedSystem, embedding_attributes, weights_attributes
from at2_rag_evals.qa.request import DEFAULT_PRUNERS, MORE_PRUNERS
from at2_rag_evals.rankers.registry import RANKERS
from at2_rag_evals.request import FILE, FOLDER, EvalRequest, argument, option

_TAKEN = tuple(dict.fromkeys((*RANKERS, *DEFAULT_PRUNERS, *MORE_PRUNERS)))


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusRequest(EvalRequest):
    """All options of the command, with their defaults."""

    files: tuple[Path, ...] = argument(nargs=-1, required=True, type=FILE, metavar="QUESTIONS...")
    documents: Path = argument(type=click.Path(exists=True, path_type=Path), metavar="DOCS")
    output: Path = option(
        required=True,
        type=FOLDER,
        help="Folder for the report, the questions with what was retrieved for them, and a folder "
        "for each eval; a killed run goes on from it.",
        heading="Output",
    )
    retrieve: int = option(
        default=20,
        type=click.IntRange(min=2),
        metavar="K",
        help="Retrieve the best K chunks by BM25 and the best K by MiniLM, if that is installed.",
        heading="Items",
    )
    weights: tuple[NamedSystem, ...] = option(
        **weights_attributes(_TAKEN),
        heading="What is judged",
    )
    embeddings: tuple[NamedSystem, ...] = option(
        "--embedding",
        **embedding_attributes(_TAKEN),
        heading="What is judged",
    )
    embedding_model: str | None = option(
        help="sentence-transformers model of minilm, which also retrieves: a folder or a hub id.",
        heading="What is judged",
    )
    generators: tuple[str, ...] = option(
        "--generator",
        multiple=True,
        metavar="SPEC",
        help="Let this answer, too: a local model (default, a name, folder or hub id), or "
        "openai:MODEL for a model of any server that speaks OpenAI's chat completions. May be "
        "repeated.",
        heading="Generators",
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
