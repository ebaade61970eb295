"""Features by hand: their order, their values, and the names that are refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from at2_rag.errors import InputError
from at2_rag.reading.features import PASSES, FeatureSpec, Pass, as_log, as_mass

# Two layers, three heads, two sources: the digits are layer, head and source.
DIGITS = [
    [[0.001, 0.002], [0.011, 0.012], [0.021, 0.022]],
    [[0.101, 0.102], [0.111, 0.112], [0.121, 0.122]],
]
MASS = torch.tensor(DIGITS)


def attention(offset: float = 0.0) -> torch.Tensor:
    return MASS + offset


def test_order_is_pass_then_layer_then_head() -> None:
    spec = FeatureSpec("mass", ("together", "apart"))
    features = spec.extract({"apart": attention(0.5), "together": attention()})
    first = [0.001, 0.011, 0.021, 0.101, 0.111, 0.121]
    second = [0.501, 0.511, 0.521, 0.601, 0.611, 0.621]
    assert features.shape == (2, 12)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features[0], torch.tensor(first + second))
    torch.testing.assert_close(features[1], torch.tensor(first + second) + 0.001)
    passes, layers, heads = 2, 2, 3
    for part, layer, head in [(0, 0, 0), (0, 1, 2), (1, 0, 1), (1, 1, 2)]:
        index = (part * layers + layer) * heads + head
        assert index < passes * layers * heads
        expected = DIGITS[layer][head][0] + 0.5 * part
        assert features[0, index].item() == pytest.approx(expected)


def test_passes_come_in_the_specs_order() -> None:
    both: dict[Pass, torch.Tensor] = {"together": attention(), "apart": attention(0.5)}
    one = FeatureSpec("mass", ("together", "apart")).extract(both)
    other = FeatureSpec("mass", ("apart", "together")).extract(both)
    assert torch.equal(one[:, :6], other[:, 6:])
    assert torch.equal(one[:, 6:], other[:, :6])
    assert torch.equal(FeatureSpec("mass", ("apart",)).extract(both), one[:, 6:])


@pytest.mark.parametrize(
    ("quantity", "name", "first"),
    [
        ("mass", "joint", 0.001),
        ("log", "joint", math.log(0.001)),
        ("log", "late", 0.001),
        ("mass", "late", 1 / (1 + math.exp(-0.001))),
    ],
)
def test_quantities(quantity: Any, name: Any, first: float) -> None:
    features = FeatureSpec(quantity, (name,)).extract({name: attention()})
    assert features.shape == (2, 6)
    assert features[0, 0].item() == pytest.approx(first)


def test_no_mass_is_exactly_no_feature() -> None:
    features = FeatureSpec("mass", ("joint",)).extract({"joint": torch.zeros(2, 3, 4)})
    assert features.eq(0).all()


def test_log_is_the_log_ratio_of_the_late_pass_and_the_log_mass_of_others() -> None:
    read: dict[Pass, torch.Tensor] = {"late": -100 * attention(), "apart": attention(0.5)}
    features = FeatureSpec("log", ("late", "apart")).extract(read)
    assert features[0].tolist() == pytest.approx(
        [*(-100 * MASS[..., 0]).flatten().tolist(), *(MASS[..., 0] + 0.5).log().flatten().tolist()]
    )


def test_log_mass_has_a_floor() -> None:
    values = as_log("apart", torch.tensor([1.0, 1e-9, 1e-30, 0.0]))
    billionth = -9 * math.log(10)
    assert values.tolist() == pytest.approx([0.0, billionth, billionth, billionth])
    assert as_mass("apart", values).tolist() == pytest.approx([1.0, 1e-9, 1e-9, 1e-9])


@pytest.mark.parametrize(
    ("passes", "reading"),
    [
        (("joint",), "joint"),
        (("together",), "independent"),
        (("apart",), "independent"),
        (("together", "apart"), "independent"),
        (("late",), "independent"),
        (("late", "together", "apart"), "independent"),
    ],
)
def test_the_reading_that_has_the_passes(passes: Any, reading: str) -> None:
    spec = FeatureSpec("log", passes)
    assert spec.reading == reading
    assert set(passes) <= set(PASSES[spec.reading])


@pytest.mark.parametrize("quantity", ["", "log_ratio", "Mass", None])
def test_unknown_quantities_are_refused(quantity: Any) -> None:
    with pytest.raises(InputError, match=f"quantity is {quantity!r}; .*log, mass"):
        FeatureSpec(quantity, ("joint",))


@pytest.mark.parametrize(
    "passes",
    [(), ("",), ("alone",), ("joint", "late"), ("apart", "apart"), ("joint", "joint"), "joint"],
)
def test_passes_that_belong_to_no_reading_are_refused(passes: Any) -> None:
    with pytest.raises(InputError, match="passes are .*'joint', or some of 'late', 'together'"):
        FeatureSpec("mass", passes)
