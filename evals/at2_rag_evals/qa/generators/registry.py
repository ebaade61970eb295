"""Makes generators by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from at2_rag.errors import InputError, TokenCounterError
from at2_rag.text.tokens import resolve_token_counter
from at2_rag_evals.extras import import_extra
from at2_rag_evals.qa.generators.base import Generator
from at2_rag_evals.qa.request import QARequest


def make_generators(request: QARequest) -> list[Generator]:
    """Make the generators that a request names.

    Raises:
        InputError: If two have the same name, or it isn't known how one counts tokens.
        ModelNotFoundError: If a local model can't be found or fetched.
        ImportError: If a package that a generator needs isn't installed.
    """
    generators = [_make(spec, request) for spec in dict.fromkeys(request.generators)]
    names = [generator.name for generator in generators]
    if len(set(names)) < len(names):
        raise InputError(
            f"two generators have the same name ({', '.join(names)}); give their folders "
            "different names, or use two runs"
        )
    return generators


def _make(spec: str, request: QARequest) -> Generator:
    if not spec.startswith("openai:") or Path(spec).exists():
        from at2_rag_evals.qa.generators.hugging_face import HuggingFaceGenerator  # imports torch

        model = None if spec == "default" else spec
        return HuggingFaceGenerator(model, answer_tokens=request.answer_tokens)
    model = spec.removeprefix("openai:")
    if not model:
        raise InputError(f"{spec!r} names no model; pass openai:MODEL")
    import_extra("openai")
    from at2_rag_evals.qa.generators.openai_model import OpenAIGenerator

    return OpenAIGenerator(
        model,
        count=_token_counter(request.token_counter or model),
        base_url=request.base_url,
        answer_tokens=request.answer_tokens,
        timeout=request.timeout,
        attempts=request.attempts,
        parallel=request.parallel,
    )


def _token_counter(name: str) -> Callable[[str], int]:
    fix = "pass --token-counter, a tiktoken encoding such as o200k_base or a tokenizer's folder"
    try:
        if not Path(name).is_dir():
            return resolve_token_counter(name)
        from transformers import AutoTokenizer

        return resolve_token_counter(
            AutoTokenizer.from_pretrained(name, local_files_only=True, trust_remote_code=False)
        )
    except TokenCounterError as error:
        raise InputError(f"it isn't known how {name!r} counts tokens ({error}); {fix}") from error
    except Exception as error:  # of many kinds: whatever a tokenizer's files raise
        raise InputError(f"{name} can't be loaded as a tokenizer ({error}); {fix}") from error
