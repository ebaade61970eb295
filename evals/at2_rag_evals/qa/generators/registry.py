"""Makes generators of what the user names."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from at2_rag.errors import InputError, TokenCounterError
from at2_rag.text.tokens import resolve_token_counter
from at2_rag_evals.qa.generators.base import Generator
from at2_rag_evals.qa.generators.retrying import Patience

OPENAI_URL = "https://api.openai.com/v1"
KINDS = ("hf", "openai", "langchain", "llama_index")


@dataclass(frozen=True, slots=True)
class GeneratorOptions:
    """What generators can be told.

    Attributes:
        answer_tokens: Most new tokens of an answer.
        endpoint: Address of the endpoint of `openai:` models; None for OpenAI's own.
        key_variable: Environment variable that holds its key.
        token_counter: What counts tokens for models that aren't local: the name of an OpenAI model
            or of a tiktoken encoding, or a folder with a Hugging Face tokenizer; None for the
            model's own name.
        timeout: Seconds to wait for an endpoint's answer.
        patience: How often and how soon to ask again.
    """

    answer_tokens: int = 32
    endpoint: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    token_counter: str | None = None
    timeout: float = 60.0
    patience: Patience = field(default_factory=Patience)


def make_generator(spec: str, options: GeneratorOptions) -> Generator:
    """Make a generator.

    Args:
        spec: "default", a local model (known name, folder or hub id, "hf:" before it or not),
            "openai:MODEL", "langchain:module:object" or "llama_index:module:object".
        options: What it is told.

    Raises:
        InputError: If there is no such kind, or no token counter for it.
        ModelNotFoundError: If a local model can't be found or fetched.
    """
    kind, colon, rest = spec.partition(":")
    if not colon or Path(spec).exists():
        kind, rest = "hf", spec
    if kind not in KINDS or not rest:
        raise InputError(
            f"there is no generator {spec!r}; pass a local model's name, folder or hub id, or one "
            f"of {', '.join(f'{known}:...' for known in KINDS)}"
        )
    if kind == "hf":
        from at2_rag_evals.qa.generators.hugging_face import HuggingFaceGenerator  # imports torch

        model = None if rest == "default" else rest
        return HuggingFaceGenerator(model, answer_tokens=options.answer_tokens)
    count = _counter(options.token_counter or (rest if kind == "openai" else None), spec)
    if kind == "openai":
        return _endpoint(rest, count, options)
    return _framework(kind, rest, count, options)


def _endpoint(model: str, count: Callable[[str], int], options: GeneratorOptions) -> Generator:
    from at2_rag_evals.qa.generators.endpoint import EndpointGenerator

    return EndpointGenerator(
        model,
        options.endpoint or OPENAI_URL,
        count=count,
        key=os.environ.get(options.key_variable) or None,
        answer_tokens=options.answer_tokens,
        timeout=options.timeout,
        patience=options.patience,
    )


def _framework(
    kind: str, path: str, count: Callable[[str], int], options: GeneratorOptions
) -> Generator:
    from at2_rag_evals.qa.generators.langchain_model import LangChainGenerator
    from at2_rag_evals.qa.generators.llama_index_model import LlamaIndexGenerator

    make = LangChainGenerator if kind == "langchain" else LlamaIndexGenerator
    return make(path, count=count, answer_tokens=options.answer_tokens, patience=options.patience)


def _counter(name: str | None, spec: str) -> Callable[[str], int]:
    fix = "pass --token-counter, a tiktoken encoding such as o200k_base or a tokenizer's folder"
    if name is None:
        raise InputError(f"it isn't known how {spec!r} counts tokens; {fix}")
    if Path(name).is_dir():
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(
                name, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # of all kinds, as in at2_rag.model.loading
            raise InputError(f"{name} can't be loaded as a tokenizer: {error}; {fix}") from error
        return resolve_token_counter(tokenizer)
    try:
        return resolve_token_counter(name)
    except TokenCounterError as error:
        raise InputError(f"it isn't known how {spec!r} counts tokens ({error}); {fix}") from error
