"""The scoring model: a view of the caller's model that changes nothing and stops early."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from at2_rag.errors import InputError, UnsupportedModelError
from at2_rag.reading.joint import read_joint
from at2_rag.reading.scoring_model import INDEPENDENT_FAMILIES, ScoringModel, layers_and_heads
from at2_rag.text.chunks import Chunk
from tests import brute_force, independent_reading
from tests.brute_force import random_layout
from tests.tiny_models import FAMILIES, tiny_model, tiny_tokenizer, vision_model

LAYOUT = random_layout([12, 1, 30, 7], prefix=range(3, 13), question=9)

SMALL: dict[str, dict[str, Any]] = {
    "bloom": {"hidden_size": 32, "n_layer": 3, "n_head": 4},
    "codegen": {"n_embd": 32, "n_layer": 3, "n_head": 4, "rotary_dim": 4, "n_positions": 256},
    "falcon": {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4},
    "gptj": {"n_embd": 32, "n_layer": 3, "n_head": 4, "rotary_dim": 4, "n_positions": 256},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 3, "state_size": 4},
    "mpt": {"d_model": 32, "n_layers": 3, "n_heads": 4},
    "rwkv": {"hidden_size": 32, "num_hidden_layers": 3, "attention_hidden_size": 32},
    "stablelm": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}
TOKENS = {"vocab_size": 384, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0}


def from_config(kind: Any, config: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind.from_config(config)


def rope(kind: str, **values: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 1e4, "factor": 2.0, **values}}


def scorer(model: Any, depth: int | None = None) -> ScoringModel:
    return ScoringModel(model, tiny_tokenizer(), depth=depth)


def read(model: ScoringModel) -> Tensor:
    return read_joint(model, [LAYOUT])[0]


@pytest.mark.parametrize("depth", [None, 2])
@pytest.mark.parametrize("family", SMALL)
def test_families_that_may_not_route_attention_are_refused_or_read_right(
    family: str, depth: int | None
) -> None:
    """Which of them do depends on the version of transformers."""
    config = AutoConfig.for_model(family, **SMALL[family], **TOKENS)
    model = from_config(AutoModelForCausalLM, config)
    try:
        attention = read(scorer(model, depth))
    except UnsupportedModelError as error:
        assert re.search(f"family '{family}' .*; use a", str(error))
    else:
        model.set_attn_implementation("eager")
        brute_force.assert_equal(attention, brute_force.joint(model, LAYOUT), depth=depth)


@pytest.mark.parametrize("family", ["bloom", "mamba", "mpt", "rwkv"])
def test_families_that_never_route_attention_are_refused(family: str) -> None:
    config = AutoConfig.for_model(family, **SMALL[family], **TOKENS)
    with pytest.raises(UnsupportedModelError, match=f"family '{family}' .*; use a"):
        scorer(from_config(AutoModelForCausalLM, config))


def test_an_encoder_and_decoder_is_refused() -> None:
    config = AutoConfig.for_model("t5", d_model=32, num_layers=4, num_heads=4, d_ff=48, d_kv=8)
    with pytest.raises(UnsupportedModelError, match="family 't5' has 2 stacks"):
        scorer(from_config(AutoModelForSeq2SeqLM, config))


def test_a_config_without_layers_or_heads_is_refused_by_name() -> None:
    assert layers_and_heads(tiny_model().config) == (3, 4)
    mamba = AutoConfig.for_model("mamba", **SMALL["mamba"], **TOKENS)
    with pytest.raises(UnsupportedModelError, match="'mamba' has 3 layers with None attention h"):
        layers_and_heads(mamba)
    for model in (vision_model(), vision_model().base_model):
        with pytest.raises(UnsupportedModelError, match="'gemma3' has None layers.*use a text-onl"):
            scorer(model)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_cut_model_reads_what_the_whole_models_first_layers_do(family: str, depth: int) -> None:
    model = tiny_model(family)
    cut = scorer(model, depth)
    assert (cut.layers, cut.depth, cut.heads) == (3, depth, 4)
    attention = read(cut)
    assert attention.shape == (depth, 4, 4)
    brute_force.assert_equal(attention, brute_force.joint(model, LAYOUT), depth=depth)


@pytest.mark.parametrize("depth", [0, -1, 4])
def test_a_depth_that_is_not_there_is_refused(depth: int) -> None:
    with pytest.raises(InputError, match=f"depth is {depth}; .*layers 1 to 3"):
        scorer(tiny_model(), depth)


def test_layers_without_attention_have_features_of_zero() -> None:
    kinds = ["conv", "full_attention", "conv", "full_attention"]
    model = tiny_model("lfm2", num_hidden_layers=4, layer_types=kinds, block_multiple_of=8)
    truth = brute_force.joint(model, LAYOUT)  # of the two attention layers
    for depth in (None, 2, 3):
        attention = read(scorer(model, depth))
        attending = [kind == "full_attention" for kind in kinds[:depth]]
        brute_force.assert_equal(attention[attending], truth, depth=sum(attending))
        assert (attention[0] == 0).all()
    with pytest.raises(UnsupportedModelError, match="'lfm2' has no attention in its first 1 layer"):
        scorer(model, 1)


def test_parameters_are_shared_with_the_callers_model() -> None:
    model = tiny_model()
    cut = scorer(model)
    before = read(cut)
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight.mul_(0.5)
    assert not torch.equal(read(cut), before)
    brute_force.assert_equal(read(cut), brute_force.joint(model, LAYOUT))


def test_a_model_in_training_is_read_without_dropout() -> None:
    truth = brute_force.joint(tiny_model("gpt2"), LAYOUT)
    model = tiny_model("gpt2", attn_pdrop=0.5, resid_pdrop=0.5, embd_pdrop=0.5).train()
    brute_force.assert_equal(read(scorer(model)), truth)


def test_the_base_model_alone_is_enough() -> None:
    model = tiny_model()
    assert torch.equal(read(scorer(model.base_model)), read(scorer(model)))


def test_bfloat16_is_near_float32() -> None:
    """Masses within 0.02 of float32's."""
    whole, half = tiny_model(), tiny_model().to(torch.bfloat16)
    assert scorer(half).dtype == torch.bfloat16
    exact, rounded = read(scorer(whole)), read(scorer(half))
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0, atol=0.02)


def test_threads_give_the_serial_results() -> None:
    model = scorer(tiny_model())
    layouts = [
        random_layout([5 + seed, 40 - seed, 3], prefix=model.prompts.prefix_ids, seed=seed)
        for seed in range(12)
    ]

    def joint(index: int) -> list[Tensor]:
        return read_joint(model, [layouts[index]])

    def independent(index: int) -> list[Tensor]:
        return list(independent_reading.read(model, layouts[index]))

    jobs: list[tuple[Callable[[int], list[Tensor]], int]] = [
        (read_one, index) for index in range(len(layouts)) for read_one in (joint, independent)
    ]
    serial = [read_one(index) for read_one, index in jobs]
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(lambda job: job[0](job[1]), jobs))
    for ours, theirs in zip(threaded, serial, strict=True):
        assert all(map(torch.equal, ours, theirs))


def longrope() -> Any:
    """A model that reads prompts of more than 64 tokens with other frequencies, and slowly."""
    kind = {"long_factor": [4.0, 8.0, 16.0, 32.0], "short_factor": [1.0] * 4}
    length = {"original_max_position_embeddings": 64}
    model = tiny_model("phi3", **rope("longrope", **kind, **length), **length)
    rotary = model.model.rotary_emb

    def slow(module: Any, name: str) -> Any:
        time.sleep(0.002 if name == "inv_freq" else 0)  # between writing and reading it
        return torch.nn.Module.__getattr__(module, name)

    rotary.__class__ = type("SlowRotary", (type(rotary),), {"__getattr__": slow})
    return model


@pytest.mark.filterwarnings("ignore")
def test_frequencies_that_follow_the_prompts_length_are_not_mixed() -> None:
    prompts = [random_layout(sizes, prefix=range(3, 13)) for sizes in ([5, 6], [60, 70])]
    expected = [read_joint(scorer(longrope()), [prompt])[0] for prompt in prompts]
    brute_force.assert_equal(expected[1], brute_force.joint(longrope(), prompts[1]))
    model = longrope()
    frequencies = model.model.rotary_emb.inv_freq.clone()
    shared = scorer(model)
    with ThreadPoolExecutor(4) as pool:
        jobs = [job % 2 for job in range(16)]
        attention = list(pool.map(lambda job: read_joint(shared, [prompts[job]])[0], jobs))
    assert all(torch.equal(one, expected[job]) for one, job in zip(attention, jobs, strict=True))
    read_joint(shared, [prompts[1]])
    assert torch.equal(model.model.rotary_emb.inv_freq, frequencies), "the caller's own"


def test_torchs_thread_count_and_random_state_are_left_alone() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    read(scorer(tiny_model()))
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - INDEPENDENT_FAMILIES))
def test_unverified_families_are_refused_for_independent_reading(family: str) -> None:
    with pytest.raises(UnsupportedModelError, match=f"family '{family}'.*use reading=\"joint\""):
        scorer(tiny_model(family)).check_independent()


WINDOWED = {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}


@pytest.mark.parametrize(
    ("family", "overrides", "reason"),
    [
        ("qwen2", WINDOWED, "sliding windows"),
        ("qwen3", WINDOWED, "sliding windows"),
        ("llama", rope("dynamic"), "'dynamic' depends on length"),
        (
            "llama",
            rope(
                "longrope",
                long_factor=[1.0] * 4,
                short_factor=[1.0] * 4,
                original_max_position_embeddings=1024,
            ),
            "'longrope' depends on length",
        ),
    ],
    ids=["qwen2, sliding", "qwen3, sliding", "dynamic rope", "longrope"],
)
def test_what_depends_on_length_is_refused_for_independent_reading(
    family: str, overrides: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UnsupportedModelError, match=f'{reason}.*use reading="joint"'):
        scorer(tiny_model(family, **overrides)).check_independent()


def test_sliding_windows_above_the_cut_are_no_hindrance() -> None:
    scorer(tiny_model("qwen2", **WINDOWED), 1).check_independent()


@pytest.mark.parametrize("family", sorted(INDEPENDENT_FAMILIES))
def test_verified_families_pass(family: str) -> None:
    scorer(tiny_model(family)).check_independent()


def test_the_window_is_the_models() -> None:
    assert scorer(tiny_model(max_position_embeddings=777)).prompts.max_tokens == 777
    assert scorer(tiny_model("gpt2", n_positions=555)).prompts.max_tokens == 555


def test_chunks_of_a_prompt_laid_out_for_the_model() -> None:
    model = tiny_model()
    prompts = scorer(model).prompts
    chunks = [Chunk("Jane Austen", "Emma"), Chunk(""), Chunk("\ud800 <|im_end|>")]
    layout = prompts.joint("Who wrote Emma?", chunks)
    brute_force.assert_equal(
        read_joint(scorer(model), [layout])[0], brute_force.joint(model, layout)
    )
