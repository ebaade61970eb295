"""Turns text from outside into token ids: `<|im_end|>` in a chunk stays ten characters of text."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from tokenizers import Tokenizer

from at2_rag.errors import UnsupportedModelError
from at2_rag.text.chunks import replace_surrogates
from at2_rag.text.sentences import Span

_CONTROL = re.compile(r"[<\[].*[>\]]", re.DOTALL)


class TextEncoder:
    """Tokenises text from outside so that control tokens in it stay text.

    Uses a private copy of the tokenizer that reads special and control-like added tokens as text;
    the caller's tokenizer is only read. Thread-safe.
    """

    def __init__(self, tokenizer: Any) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            raise UnsupportedModelError(
                f"the tokenizer {type(tokenizer).__name__} has no fast backend, without which "
                "control tokens in text can't be kept as text; use a model with a tokenizer.json"
            )
        state = json.loads(backend.to_str())
        special = set(tokenizer.all_special_tokens)
        control = set()
        for token in state["added_tokens"]:
            content = token["content"]
            if token["special"] or content in special or _CONTROL.fullmatch(content):
                token["special"] = True
                control.add(token["id"])
        self._tokenizer = Tokenizer.from_str(json.dumps(state))
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        # The token of unknown characters stands for text and is kept.
        self._control_ids = control - {_unknown_id(tokenizer, state["model"])}

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the ids of `text`, none of them a control token; lone surrogates are U+FFFD."""
        return self.encode_all([text])[0]

    def encode_with_spans(self, text: str) -> tuple[tuple[int, ...], tuple[Span, ...]]:
        """Return the ids of `text` and for each its half-open range of characters in it."""
        clean = replace_surrogates(text)
        tokens = self._tokens(clean)
        if len(clean) < len(text):  # surrogate pairs were joined
            offsets = [0]
            for character in clean:
                paired = character > "\uffff" and text[offsets[-1]] != character
                offsets.append(offsets[-1] + (2 if paired else 1))
            tokens = [(token, (offsets[start], offsets[end])) for token, (start, end) in tokens]
        return tuple(token for token, _ in tokens), tuple(span for _, span in tokens)

    def encode_all(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the ids of each text."""
        clean = [replace_surrogates(text) for text in texts]
        encodings = self._tokenizer.encode_batch_fast(clean, add_special_tokens=False)
        return [
            tuple(encoding.ids)
            if self._control_ids.isdisjoint(encoding.ids)
            else tuple(token for token, _ in self._tokens(text))
            for text, encoding in zip(clean, encodings, strict=True)
        ]

    def _tokens(self, text: str, offset: int = 0) -> list[tuple[int, Span]]:
        """Return ids, none of them a control token, with their ranges in the text plus `offset`."""
        # encode() would let no other thread run until it is done.
        [encoding] = self._tokenizer.encode_batch([text], add_special_tokens=False)
        tokens = list(zip(encoding.ids, encoding.offsets, strict=True))
        # A vocabulary may have a control token as an ordinary piece (as in Unigram models). Split
        # the text inside each such piece, so that it no longer matches, until none is left.
        cuts = [
            start + 1
            for token, (start, end) in tokens
            if token in self._control_ids and end - start > 1
        ]
        if not cuts:
            return [
                (token, (offset + start, offset + end))
                for token, (start, end) in tokens
                if token not in self._control_ids
            ]
        return [
            token
            for start, end in pairwise([0, *cuts, len(text)])
            for token in self._tokens(text[start:end], offset + start)
        ]


def _unknown_id(tokenizer: Any, model: dict[str, Any]) -> int | None:
    """Return the id of unknown characters; None if there is none or it has another use."""
    unknown: int | None = model.get("unk_id")
    if unknown is None and model.get("unk_token"):
        unknown = tokenizer.convert_tokens_to_ids(model["unk_token"])
    return None if unknown in (tokenizer.bos_token_id, tokenizer.eos_token_id) else unknown
