"""Counts a text's tokens for the generator that will read it.

Counts are exact: nothing estimates or falls back to another tokenizer. No tokens are added at a
text's start or end. Lone surrogates, which no tokenizer accepts, count as U+FFFD.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from at2_rag.errors import TokenCounterError, brief
from at2_rag.text.chunks import replace_surrogates

if TYPE_CHECKING:
    import tiktoken
    from transformers import PreTrainedTokenizerBase

TokenCounter: TypeAlias = Callable[[str], int]

_MOST_TOKENS = 2**63
_LLAMA_INDEX_ENCODINGS = ("cl100k_base", "o200k_base", "o200k_harmony")
_WHAT_TO_PASS = (
    "pass the name of an OpenAI model ('gpt-4o') or of a tiktoken encoding ({encodings}), "
    "a Hugging Face tokenizer, or a callable that returns the number of tokens of a text"
)


def resolve_token_counter(
    spec: str | PreTrainedTokenizerBase | tiktoken.Encoding | Callable[[str], int],
) -> TokenCounter:
    """Return a function that counts the tokens of a text.

    With a tiktoken encoding, by its name or an OpenAI model's, special tokens in the text count as
    plain text. With a transformers tokenizer a special token is one token, as in a prompt passed to
    a generator as text.
    """
    if isinstance(spec, str):
        return _encoding_counter(_load_encoding(spec))
    # An object of a library that isn't loaded can't exist, so neither needs to be imported.
    if (tiktoken := sys.modules.get("tiktoken")) and isinstance(spec, tiktoken.Encoding):
        return _encoding_counter(spec)
    if (transformers := sys.modules.get("transformers")) and isinstance(
        spec, transformers.PreTrainedTokenizerBase
    ):
        return _tokenizer_counter(spec)
    if callable(spec):
        return _checked_counter(spec)
    raise TokenCounterError(
        f"no token counter can be made of a {type(spec).__name__}; "
        + _WHAT_TO_PASS.format(encodings="'o200k_base'")
    )


def _load_encoding(name: str) -> tiktoken.Encoding:
    """Return the tiktoken encoding of this name, or of the OpenAI model of this name."""
    import tiktoken

    encodings = tiktoken.list_encoding_names()
    try:
        encoding = name if name in encodings else tiktoken.encoding_name_for_model(name)
        return tiktoken.get_encoding(encoding)
    except KeyError:
        raise TokenCounterError(
            f"tiktoken knows no model or encoding named {name!r}; "
            + _WHAT_TO_PASS.format(encodings=", ".join(sorted(encodings)))
        ) from None
    except (OSError, ValueError) as error:
        raise TokenCounterError(
            f"the vocabulary of tiktoken's {encoding!r} is not in its cache and can't be "
            f"fetched ({type(error).__name__}); count once with a network, or set "
            f"TIKTOKEN_CACHE_DIR to a folder that has it{_folder_of_llama_index(encoding)}, or "
            "pass a Hugging Face tokenizer or your own callable instead"
        ) from error


def _folder_of_llama_index(encoding: str) -> str:
    """Return a hint at the vocabularies that come with llama-index-core, if this one does."""
    core = find_spec("llama_index.core") if find_spec("llama_index") else None
    for package in (core.submodule_search_locations if core else None) or ():
        folder = Path(package, "_static", "tiktoken_cache")
        if encoding in _LLAMA_INDEX_ENCODINGS and folder.is_dir():
            return f" (llama-index-core has it in {folder})"
    return ""


def _encoding_counter(encoding: tiktoken.Encoding) -> TokenCounter:
    def count(text: str) -> int:
        try:
            return len(encoding.encode(replace_surrogates(text), disallowed_special=()))
        except ValueError as error:
            raise TokenCounterError(
                f"tiktoken's {encoding.name!r} can't tokenise a text of {len(text)} characters "
                f"({error}); shorten its runs of blanks, or count with another tokenizer"
            ) from error

    return count


def _tokenizer_counter(tokenizer: PreTrainedTokenizerBase) -> TokenCounter:
    if not tokenizer.is_fast:
        return lambda text: len(
            tokenizer.encode(replace_surrogates(text), add_special_tokens=False, verbose=False)
        )
    from tokenizers import Tokenizer

    # A copy, since the tokenizer's encode() sets truncation and padding of its backend: threads
    # would share them.
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()

    def count(text: str) -> int:
        # encode() would let no other thread run until it is done.
        [encoding] = backend.encode_batch_fast([replace_surrogates(text)], add_special_tokens=False)
        return len(encoding.ids)

    return count


def _checked_counter(counter: Callable[[str], Any]) -> TokenCounter:
    def count(text: str) -> int:
        tokens = counter(replace_surrogates(text))
        is_integer = isinstance(tokens, Integral) and not isinstance(tokens, bool)
        if not is_integer or not 0 <= int(tokens) < _MOST_TOKENS:
            raise TokenCounterError(
                f"the token counter returned {brief(tokens)} for a text of {len(text)} characters; "
                "it must return an integer from 0, below 2**63"
            )
        return int(tokens)

    return count
