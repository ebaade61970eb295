"""Few lengths occur in half precision, so that the kernels made for each don't fill the memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from at2_rag.reading.joint import read_joint
from at2_rag.reading.scoring_model import ScoringModel
from tests import brute_force
from tests.brute_force import random_layout
from tests.independent_reading import layout_of, read, scorer
from tests.tiny_models import FAMILIES, tiny_model, tiny_tokenizer


class ProductRows(TorchDispatchMode):
    """Collects how many rows the inputs of half-precision linear maps have."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rows: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Look at the operation and run it."""
        if func is torch.ops.aten.linear.default and args[0].dtype == torch.bfloat16:
            self.rows.add(args[0].shape[:-1].numel())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("reading", ["independent", "joint"])
def test_prompts_of_many_lengths_make_products_of_few_shapes(reading: str) -> None:
    model = scorer(tiny_model().bfloat16(), 2)
    products = ProductRows()
    with products:
        for tokens in range(1, 1000, 29):  # 35 lengths
            layout = layout_of(model, [tokens, 7, tokens // 2 + 1])
            if reading == "joint":
                read_joint(model, [layout])
            else:
                read(model, layout)
    # Up to 2,048 tokens there are 40 lengths.
    assert 10 < len(products.rows) <= 40
    assert all(rows % 16 == 0 for rows in products.rows)


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_added_to_a_prompt_change_nothing(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(family)
    monkeypatch.setattr(ScoringModel, "_padding", lambda self, tokens: -tokens % 37)
    layouts = [random_layout(lengths, prefix=range(3, 13)) for lengths in ([12, 1, 30], [2, 9])]
    expected = [brute_force.joint(model, layout) for layout in layouts]
    scoring_model = ScoringModel(model, tiny_tokenizer())
    for batch in ([layouts[0]], [layouts[1]], layouts):
        for layout, attention in zip(batch, read_joint(scoring_model, batch), strict=True):
            brute_force.assert_equal(attention, expected[layouts.index(layout)])
    if family in ("llama", "gpt2"):
        layout = layout_of(scoring_model, [12, 3, 40, 1])
        together, apart = read(scoring_model, layout)
        brute_force.assert_equal(together, brute_force.together(model, layout))
        brute_force.assert_equal(apart, brute_force.apart(model, layout))


def test_tokens_are_not_added_beyond_the_models_window() -> None:
    model = tiny_model("gpt2", n_positions=100).bfloat16()
    layout = random_layout([40, 20], prefix=range(3, 13), question=29)  # 99 tokens
    [attention] = read_joint(scorer(model), [layout])
    assert attention.isfinite().all()
