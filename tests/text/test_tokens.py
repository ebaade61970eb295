"""Token counts against the tokenizers themselves and against counts done by hand."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiktoken
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from at2_rag.errors import TokenCounterError
from at2_rag.text.tokens import resolve_token_counter

TEXTS = [
    "",
    " ",
    "\n\n",
    "Jane Austen wrote Emma.\n\nIt was published in 1815.",
    "naïve café — עברית العربية 日本語 👩‍👩‍👧 🇫🇷",
    "a\x00b\x07",
    "<|endoftext|> and <|im_end|> are text here",
    "word " * 3000,
]
LONE = "a\ud800b\udfff"
NO_NETWORK = {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Words and punctuation marks are one token each; `<|end|>` is a special one."""
    words = ["<unk>", "a", "b", "c", "hello", "world", ",", "."]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")  # type: ignore[no-untyped-call]
    fast.add_special_tokens({"additional_special_tokens": [AddedToken("<|end|>")]})
    return fast


@pytest.fixture
def byte_encoding() -> Iterator[tiktoken.Encoding]:
    """A tiktoken encoding made here: every byte is a token, and so are `th` and `the`."""
    ranks = {bytes([i]): i for i in range(256)} | {b"th": 256, b"the": 257}
    yield tiktoken.Encoding(
        "bytes-and-the",
        pat_str=r"\s+|\S+",
        mergeable_ranks=ranks,
        special_tokens={"<|endoftext|>": 258},
    )


def openai_cache() -> Path | None:
    """The folder in which llama-index-core ships two of OpenAI's vocabularies."""
    try:
        spec = importlib.util.find_spec("llama_index.core")
    except ModuleNotFoundError:
        return None
    for package in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(package, "_static", "tiktoken_cache")
        if folder.is_dir():
            return folder
    return None


needs_vocabularies = pytest.mark.skipif(
    openai_cache() is None, reason="OpenAI's vocabularies come from llama-index-core here"
)


# --- tiktoken --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("the", 1), ("then", 2), ("the then", 4), ("é", 2), ("<|endoftext|>", 13)],
)
def test_encoding_object_on_counts_done_by_hand(
    byte_encoding: tiktoken.Encoding, text: str, tokens: int
) -> None:
    assert resolve_token_counter(byte_encoding)(text) == tokens


@needs_vocabularies
@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("gpt-4o", "o200k_base"),
        ("gpt-4", "cl100k_base"),
        ("o200k_base", "o200k_base"),
    ],
)
def test_openai_names_count_as_tiktoken_does(
    monkeypatch: pytest.MonkeyPatch, name: str, encoding: str
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(openai_cache()))
    counter = resolve_token_counter(name)
    direct = tiktoken.get_encoding(encoding)
    for text in TEXTS:
        assert counter(text) == len(direct.encode(text, disallowed_special=()))
    assert counter("hello world") == 2
    assert counter(LONE) == len(direct.encode("a\ufffdb\ufffd"))


def test_text_that_the_encoding_cannot_take_is_an_error_with_its_size() -> None:
    backtracking = tiktoken.Encoding(
        "backtracking",
        pat_str=r"\s+(?!\S)|\s+|\S+",
        mergeable_ranks={bytes([i]): i for i in range(256)},
        special_tokens={},
    )
    counter = resolve_token_counter(backtracking)
    assert counter(" " * 1000) == 1000
    with pytest.raises(TokenCounterError, match="'backtracking' .* 2000000 characters"):
        counter(" " * 2_000_000)


@pytest.mark.parametrize("name", ["gpt-0", "", "O200K_BASE"])
def test_unknown_names_list_what_to_pass(name: str) -> None:
    with pytest.raises(TokenCounterError) as caught:
        resolve_token_counter(name)
    message = str(caught.value)
    assert repr(name) in message
    for choice in ("gpt-4o", "cl100k_base", "o200k_base", "Hugging Face tokenizer", "callable"):
        assert choice in message


OFFLINE = """
import os
from at2_rag.errors import TokenCounterError
from at2_rag.text.tokens import resolve_token_counter
before = dict(os.environ)
try:
    resolve_token_counter("gpt-4o")
except TokenCounterError as error:
    print(error)
assert dict(os.environ) == before
"""


def test_offline_without_a_cache_names_the_ways_out(tmp_path: Path) -> None:
    inherited = {k: v for k, v in os.environ.items() if k.upper() not in ("NO_PROXY", "ALL_PROXY")}
    ran = subprocess.run(
        [sys.executable, "-c", OFFLINE],
        capture_output=True,
        text=True,
        timeout=120,
        env={**inherited, **NO_NETWORK, "TIKTOKEN_CACHE_DIR": str(tmp_path)},
    )
    assert ran.returncode == 0, ran.stderr
    for part in ("'o200k_base'", "TIKTOKEN_CACHE_DIR", "Hugging Face tokenizer", "callable"):
        assert part in ran.stdout
    assert len(ran.stdout.splitlines()) == 1


# --- tokenizers of transformers --------------------------------------------------------------


def test_hugging_face_counts_equal_encode_without_special_tokens() -> None:
    tokenizer = word_tokenizer()
    counter = resolve_token_counter(tokenizer)
    for text in TEXTS:
        assert counter(text) == len(tokenizer.encode(text, add_special_tokens=False))
    assert [counter(text) for text in ("", "hello, world.", "a<|end|>b", "zzz")] == [0, 4, 3, 1]
    assert counter(LONE) == len(tokenizer.encode("a\ufffdb\ufffd", add_special_tokens=False))


def test_tokens_added_around_a_prompt_are_not_counted() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = word_tokenizer()
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    assert isinstance(end, int)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|end|> $A <|end|>", special_tokens=[("<|end|>", end)]
    )
    assert len(tokenizer.encode("a b")) == 4
    assert resolve_token_counter(tokenizer)("a b") == 2


def test_truncation_and_padding_of_the_callers_tokenizer_play_no_part_and_stay() -> None:
    tokenizer = word_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(2)
    tokenizer.backend_tokenizer.enable_padding(length=7)
    assert resolve_token_counter(tokenizer)("a b c a b") == 5
    truncation, padding = (
        tokenizer.backend_tokenizer.truncation,
        tokenizer.backend_tokenizer.padding,
    )
    assert truncation and truncation["max_length"] == 2
    assert padding and padding["length"] == 7


def test_tokenizer_without_a_fast_backend() -> None:
    from transformers import PreTrainedTokenizer

    class Letters(PreTrainedTokenizer):
        """One token a letter, written in Python."""

        vocab_size = 0x110000

        def get_vocab(self) -> dict[str, int]:
            return {}

        def _tokenize(self, text: str, **_: Any) -> list[str]:
            return list(text)

        def _convert_token_to_id(self, token: str) -> int:
            return ord(token)

    counter = resolve_token_counter(Letters())  # type: ignore[no-untyped-call]
    assert counter("hello") == 5
    assert counter("\ud800!") == 2


# --- callables -------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [-1, 2.0, None, True])
def test_unusable_answers_of_a_callable_are_shown(answer: Any) -> None:
    counter = resolve_token_counter(lambda _: answer)
    with pytest.raises(TokenCounterError) as caught:
        counter("abc")
    assert f"returned {answer!r} for a text of 3 characters" in str(caught.value)


def test_callables_count_and_see_no_lone_surrogates() -> None:
    numpy_length: Any = lambda text: np.int64(len(text))  # noqa: E731
    tokens = resolve_token_counter(numpy_length)("four")
    assert (tokens, type(tokens)) == (4, int)
    seen: list[str] = []
    resolve_token_counter(lambda text: seen.append(text) or 0)(LONE)  # type: ignore[func-returns-value]
    assert seen == ["a\ufffdb\ufffd"]


@pytest.mark.parametrize("spec", [None, 5, ["gpt-4o"]])
def test_other_objects_are_refused(spec: Any) -> None:
    with pytest.raises(TokenCounterError, match=type(spec).__name__):
        resolve_token_counter(spec)
