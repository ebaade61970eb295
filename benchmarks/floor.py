"""The least that a cold call can take: the matrix products of the layers in use, and nothing else.

Run in the same rounds as the calls, on numbers that mean nothing: every linear map of every layer
in use over the chunks' tokens and over the question's, each as often as it is read. In the last
layer the chunks need their keys and the question its queries and keys. Attention itself,
normalisation, activations and all bookkeeping are left out, so that no call can be as fast.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from interleaved import Case, Sample, Spread, ratios
from measured_model import MeasuredModel
from report_files import in_milliseconds, verdict
from speed_prompts import Prompt
from torch import Tensor, nn

from at2_rag_evals.tables import Cell, Table

LIMIT = 1.3
"""What a cold call may take at most, as a multiple of the floor."""


@dataclass(frozen=True, slots=True)
class _Product:
    """A linear map's weights [out, in], and which tokens go through it."""

    weight: Tensor
    chunks: bool
    question: bool


def floor_name(case: str) -> str:
    """Return the name of a cold case's floor."""
    return f"floor of {case}"


def floor_cases(
    measured: MeasuredModel, prompts: Sequence[Prompt], readouts: Mapping[str, str]
) -> dict[str, Case]:
    """Return a floor for each cold case; none for models whose projections aren't told apart.

    Args:
        measured: The model.
        prompts: The prompts.
        readouts: The cold cases with the names of their head weights.
    """
    cases = {}
    for case, readout in readouts.items():
        products = _products(measured, readout)
        if products:
            cases[floor_name(case)] = _case(measured, prompts, readout, products)
    return cases


def _products(measured: MeasuredModel, readout: str) -> list[_Product]:
    depth = measured.head_weights(readout)[1].layers
    total = measured.model.config.num_hidden_layers
    stacks = (
        own
        for own in measured.model.modules()
        if isinstance(own, nn.ModuleList) and len(own) == total
    )
    layers = list(next(stacks))[:depth]
    found = []
    for index, layer in enumerate(layers):
        last = index == depth - 1
        for name, module in layer.named_modules():
            if isinstance(module, nn.Linear):
                keys, queries = name.endswith("k_proj"), name.endswith("q_proj")
                chunks, question = not last or keys, not last or keys or queries
                found.append(_Product(module.weight, chunks, question))
    told_apart = sum(product.question for product in found) < len(found)
    return found if told_apart else []


def _case(
    measured: MeasuredModel,
    prompts: Sequence[Prompt],
    readout: str,
    products: Sequence[_Product],
) -> Case:
    rows = [_rows(measured, prompt, readout) for prompt in prompts]
    most = max(chunks + question for chunks, question in rows)
    widths = {product.weight.shape[1] for product in products}
    inputs = {width: torch.randn(most, width).to(products[0].weight.dtype) for width in widths}

    def run(number: int) -> Mapping[str, float]:
        chunks, question = rows[number]
        with torch.inference_mode():
            for own in products:
                tokens = chunks * own.chunks + question * own.question
                if tokens:
                    inputs[own.weight.shape[1]][:tokens] @ own.weight.T
        return {"gflop": _gflop(products, chunks, question)}

    return run


def _rows(measured: MeasuredModel, prompt: Prompt, readout: str) -> tuple[int, int]:
    """Return how many tokens of chunks and of the question a call runs."""
    passes = measured.head_weights(readout)[1].spec.passes
    layout = measured.pruner(readout).scoring_model.prompts.independent(prompt.query, prompt.chunks)
    sources = list(layout.source_ids)
    copies = sum(1 if own == "together" else len(sources) for own in passes)
    return sum(map(len, set(sources))), copies * len(layout.question_ids)


def _gflop(products: Sequence[_Product], chunks: int, question: int) -> float:
    sizes = (
        2 * own.weight.numel() * (chunks * own.chunks + question * own.question) for own in products
    )
    return sum(sizes) / 1e9


@dataclass(frozen=True, slots=True)
class FloorFigures:
    """How far a cold case is from its floor, all medians.

    Attributes:
        case: The case.
        gflop: What its matrix products compute.
        gflop_per_second: How fast they ran.
        seconds: The floor.
        ratio: The case's time by the floor's, by round.
        limit: What the ratio's median may be at most.
        met: Whether it is.
    """

    case: str
    gflop: float
    gflop_per_second: float
    seconds: float
    ratio: Spread
    limit: float
    met: bool


def summarise_floors(samples: Sequence[Sample], cold: Iterable[str]) -> list[FloorFigures]:
    """Summarise the cold cases that have a floor among the samples."""
    found = []
    for case in cold:
        floor = floor_name(case)
        own = [sample for sample in samples if sample.case == floor]
        if own:
            ratio = Spread.of(ratios(samples, case, reference=floor))
            found.append(
                FloorFigures(
                    case,
                    median(sample.stages["gflop"] for sample in own),
                    median(sample.stages["gflop"] / sample.seconds for sample in own),
                    median(sample.seconds for sample in own),
                    ratio,
                    LIMIT,
                    ratio.median <= LIMIT,
                )
            )
    return found


def floor_table(figures: Sequence[FloorFigures]) -> Table:
    """Lay out floors and the distance from them."""
    header = [
        Cell(text)
        for text in ("case", "GFLOP", "GFLOP/s", "floor ms", "times the floor", "quartiles")
    ]
    rows = [
        [
            Cell(own.case),
            Cell(f"{own.gflop:.0f}"),
            Cell(f"{own.gflop_per_second:.0f}"),
            Cell(in_milliseconds(own.seconds)),
            Cell(f"{own.ratio.median:.2f} ({own.limit} {verdict(own.met)})"),
            Cell(f"{own.ratio.low:.2f}-{own.ratio.high:.2f}"),
        ]
        for own in figures
    ]
    return Table("Cold calls against the matrix products they need", header, rows)
