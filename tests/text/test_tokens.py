"""Token counts against the tokenizers themselves and against counts done by hand."""

from __future__ import annotations

import re
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiktoken
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from at2_rag.errors import TokenCounterError
from at2_rag.text.tokens import resolve_token_counter
from tests.tiny_models import tiny_tokenizer

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


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Words and punctuation marks are one token each; `<|end|>` is a special one."""
    words = ["<unk>", "a", "b", "c", "hello", "world", ",", "."]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")  # type: ignore[no-untyped-call]
    fast.add_special_tokens({"additional_special_tokens": [AddedToken("<|end|>")]})
    return fast


def byte_encoding(pattern: str) -> tiktoken.Encoding:
    """A tiktoken encoding made here: every byte is a token, and so are `th` and `the`."""
    ranks = {bytes([i]): i for i in range(256)} | {b"th": 256, b"the": 257}
    return tiktoken.Encoding(
        "bytes-and-the",
        pat_str=pattern,
        mergeable_ranks=ranks,
        special_tokens={"<|endoftext|>": 258},
    )


def openai_cache() -> Path | None:
    """The folder in which llama-index-core ships two of OpenAI's vocabularies."""
    package = find_spec("llama_index") and find_spec("llama_index.core")
    folder = Path(package.origin or "").parent / "_static" / "tiktoken_cache" if package else None
    return folder if folder and folder.is_dir() else None


needs_vocabularies = pytest.mark.skipif(
    openai_cache() is None, reason="OpenAI's vocabularies come from llama-index-core here"
)


# --- tiktoken --------------------------------------------------------------------------------


def test_encoding_object_on_counts_done_by_hand() -> None:
    count = resolve_token_counter(byte_encoding(r"\s+|\S+"))
    texts = ["", "the", "then", "the then", "é", "<|endoftext|>"]
    assert [count(text) for text in texts] == [0, 1, 2, 4, 2, 13]


@needs_vocabularies
@pytest.mark.parametrize(
    ("name", "encoding"), [("gpt-4o", "o200k_base"), ("cl100k_base", "cl100k_base")]
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
    counter = resolve_token_counter(byte_encoding(r"\s+(?!\S)|\s+|\S+"))  # backtracks
    assert counter(" " * 1000) == 1000
    with pytest.raises(TokenCounterError, match="'bytes-and-the' .* 2000000 characters"):
        counter(" " * 2_000_000)


@pytest.mark.parametrize("name", ["gpt-0", "", "O200K_BASE"])
def test_unknown_names_list_what_to_pass(name: str) -> None:
    choices = r"'gpt-4o'.*\(cl100k_base.*o200k_base.*Hugging Face tokenizer, or a callable"
    with pytest.raises(TokenCounterError, match=f"named '{name}'; .*{choices}"):
        resolve_token_counter(name)


def test_offline_without_a_cache_names_the_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("tiktoken.registry.ENCODINGS", {})
    folder = openai_cache()
    hint = f" (llama-index-core has it in {folder})" if folder else ""
    ways = f"TIKTOKEN_CACHE_DIR to a folder that has it{hint}, or pass a Hugging Face"
    with pytest.raises(TokenCounterError, match=f"'o200k_base'.*{re.escape(ways)}.*own callable"):
        resolve_token_counter("gpt-4o")


# --- tokenizers of transformers --------------------------------------------------------------


def test_hugging_face_counts_equal_encode_without_special_tokens() -> None:
    tokenizer = word_tokenizer()
    counter = resolve_token_counter(tokenizer)
    for text in TEXTS:
        assert counter(text) == len(tokenizer.encode(text, add_special_tokens=False))
    assert [counter(text) for text in ("", "hello, world.", "a<|end|>b", "zzz")] == [0, 4, 3, 1]
    assert counter(LONE) == len(tokenizer.encode("a\ufffdb\ufffd", add_special_tokens=False))


def test_other_threads_run_while_a_long_text_is_counted() -> None:
    count, text = resolve_token_counter(tiny_tokenizer()), "An island in the sea. " * 50_000
    thread = threading.Thread(target=count, args=[text])
    thread.start()
    turns = 0
    while thread.is_alive():
        time.sleep(0.001)
        turns += 1
    assert turns > 10


def test_truncation_padding_and_added_tokens_play_no_part_and_stay() -> None:
    tokenizer = word_tokenizer()
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    assert isinstance(end, int)
    backend = tokenizer.backend_tokenizer
    backend.post_processor = processors.TemplateProcessing(
        single="<|end|> $A <|end|>", special_tokens=[("<|end|>", end)]
    )
    assert len(tokenizer.encode("a b")) == 4
    backend.enable_truncation(2)
    backend.enable_padding(length=7)
    assert resolve_token_counter(tokenizer)("a b c a b") == 5
    assert backend.truncation and backend.truncation["max_length"] == 2
    assert backend.padding and backend.padding["length"] == 7


def test_tokenizer_without_a_fast_backend() -> None:
    counter = resolve_token_counter(ByT5Tokenizer())
    assert counter("hello") == 5
    assert counter("\ud800!") == 4, "U+FFFD has three bytes"


# --- callables -------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [-1, 2.0, None, True])
def test_unusable_answers_of_a_callable_are_shown(answer: Any) -> None:
    counter = resolve_token_counter(lambda _: answer)
    with pytest.raises(TokenCounterError, match=f"returned {answer!r} for a text of 3 characters"):
        counter("abc")


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
