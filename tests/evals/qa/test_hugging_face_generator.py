"""The local generator against transformers' own `generate`, one unpadded prompt at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from at2_rag.errors import InputError, UnsupportedModelError
from at2_rag.model.loading import LoadedModel
from at2_rag_evals.qa.answer_store import AnswerStore
from at2_rag_evals.qa.generators import hugging_face, local_generation
from at2_rag_evals.qa.generators.base import Answer, Failure
from at2_rag_evals.qa.generators.hugging_face import HuggingFaceGenerator
from at2_rag_evals.qa.generators.local_generation import PackedGeneration, PaddedGeneration
from tests.tiny_models import tiny_model, tiny_tokenizer

PROMPTS = [f"Who wrote {word} Emma?" for word in ("", "the novel", "of the old town " * 9, "Sea")]


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny models are run in float32, whatever this machine prefers."""
    monkeypatch.setattr(hugging_face, "preferred_dtype", lambda device: torch.float32)


def save(folder: Path, model: Any, *, chat: bool = True) -> str:
    model.save_pretrained(folder)
    tiny_tokenizer(chat).save_pretrained(folder)
    return str(folder)


def reference(folder: str, prompt: str, *, chat: bool, tokens: int) -> tuple[list[int], str]:
    loaded = LoadedModel.from_pretrained(folder, device="cpu", dtype=torch.float32)
    model, tokenizer = loaded.model, loaded.tokenizer
    text = f"{prompt}\n\nAnswer:"
    if chat:
        text = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            do_sample=False,
            pad_token_id=0,
        )
    new = output[0, ids.shape[1] :].tolist()
    return new, tokenizer.decode(new, skip_special_tokens=True).strip()


@pytest.mark.parametrize(
    ("way", "family", "chat", "most"),
    [
        (PackedGeneration, "llama", True, 4096),
        (PackedGeneration, "llama", False, 120),
        (PackedGeneration, "qwen3", True, 1),
        (PaddedGeneration, "gpt2", True, 120),
        (PaddedGeneration, "gemma3_text", False, 1),
    ],
)
def test_batches_answer_as_generate_does_one_by_one(
    tmp_path: Path, family: str, chat: bool, way: Any, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(way, "batch_tokens", most)
    monkeypatch.setattr(local_generation, "PACK_TOKENS", min(most, 200))
    if way is PaddedGeneration:
        monkeypatch.setattr(hugging_face, "PackedGeneration", refused)
    folder = save(tmp_path / "tiny", tiny_model(family), chat=chat)
    generator = HuggingFaceGenerator(folder, answer_tokens=7)
    answers = dict(generator.answer(PROMPTS))
    assert isinstance(generator._generation, way)
    assert sorted(answers) == [0, 1, 2, 3]
    for index, prompt in enumerate(PROMPTS):
        tokens, text = reference(folder, prompt, chat=chat, tokens=7)
        answer = answers[index]
        assert isinstance(answer, Answer)
        assert (answer.text, answer.new_tokens) == (text, len(tokens))
        assert answer.prefill_seconds is not None and answer.decode_seconds is not None
        assert answer.seconds == pytest.approx(answer.prefill_seconds + answer.decode_seconds)


def refused(*_: Any) -> Any:
    raise UnsupportedModelError("as of a family that can't be packed")


@pytest.mark.parametrize("way", [PackedGeneration, PaddedGeneration])
def test_an_answer_stops_at_an_end_token_while_others_go_on(
    tmp_path: Path, way: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way is PaddedGeneration:
        monkeypatch.setattr(hugging_face, "PackedGeneration", refused)
    folder = save(tmp_path / "plain", tiny_model())
    ways = [reference(folder, prompt, chat=True, tokens=7)[0] for prompt in PROMPTS]
    end = ways[0][2]  # an ordinary token that the first answer has in third place, or before
    model = tiny_model()
    model.generation_config.eos_token_id = [end, 2]
    generator = HuggingFaceGenerator(save(tmp_path / "ends", model), answer_tokens=7)
    answers = dict(generator.answer(PROMPTS))
    for index, tokens in enumerate(ways):
        expected = tokens[: tokens.index(end) + 1] if end in tokens else tokens
        answer = answers[index]
        assert isinstance(answer, Answer) and answer.new_tokens == len(expected)


def test_control_tokens_in_a_prompt_are_plain_text(tmp_path: Path) -> None:
    generator = HuggingFaceGenerator(save(tmp_path / "tiny", tiny_model()))
    tokenizer = tiny_tokenizer()
    ids = list(generator._input_ids("a<|im_end|>b"))
    assert ids.count(2) == 1  # the template's
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") == 2
    assert "a<|im_end|>b" in tokenizer.decode(ids)


def test_a_prompt_beyond_the_window_fails_alone(tmp_path: Path) -> None:
    folder = save(tmp_path / "tiny", tiny_model(max_position_embeddings=128))
    answers = dict(HuggingFaceGenerator(folder, answer_tokens=4).answer(["sea", "sea " * 200]))
    assert isinstance(answers[0], Answer)
    failure = answers[1]
    assert isinstance(failure, Failure) and "the model takes 128" in failure.reason


def test_stored_answers_are_found_again_and_bound_to_the_model(tmp_path: Path) -> None:
    folder, store = save(tmp_path / "a" / "tiny", tiny_model()), tmp_path / "store.sqlite"
    steps: list[tuple[int, int]] = []
    answers = AnswerStore(HuggingFaceGenerator(folder, answer_tokens=4), store).answers(
        [*PROMPTS, PROMPTS[0]], progress=lambda done, total: steps.append((done, total))
    )
    assert steps == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    assert answers[0] == answers[4]
    generator = HuggingFaceGenerator(folder, answer_tokens=4)
    again = AnswerStore(generator, store)
    assert again.missing(PROMPTS) == [] and again.answers(PROMPTS) == answers[:4]
    assert "_loaded" not in vars(generator)
    for other in (
        HuggingFaceGenerator(folder, answer_tokens=5),
        HuggingFaceGenerator(save(tmp_path / "b" / "tiny", tiny_model(seed=1)), answer_tokens=4),
    ):
        assert len(AnswerStore(other, store).missing(PROMPTS)) == len(PROMPTS)


def test_a_template_that_fails_is_named(tmp_path: Path) -> None:
    folder = save(tmp_path / "tiny", tiny_model())
    (tmp_path / "tiny" / "chat_template.jinja").write_text("{{ 1 / 0 }}")
    with pytest.raises(InputError, match=r"tiny fails on a single user turn \(ZeroDivisionError"):
        list(HuggingFaceGenerator(folder).answer(["sea"]))
