"""Joint reading: question, chunks, perhaps an answer in one causal prompt, as in the AT2 paper."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from at2_rag.prompt.layout import AnswerLayout, PromptLayout
from at2_rag.reading.attention import JointCapture, Span
from at2_rag.reading.scoring_model import ScoringModel


def read_joint(
    model: ScoringModel,
    layouts: Sequence[PromptLayout],
    *,
    spans: Sequence[Sequence[Span]] | None = None,
) -> list[Tensor]:
    """Read each layout as one causal prompt, all in one model call (left-padded); [L, H, S] each.

    `spans` has for each layout the half-open ranges of `input_ids` to read in place of its sources;
    they may overlap.
    """
    if spans is None:
        spans = [layout.source_spans for layout in layouts]
    width = max(len(layout.input_ids) for layout in layouts)
    pads = [width - len(layout.input_ids) for layout in layouts]
    input_ids = torch.tensor(
        [[0] * pad + list(layout.input_ids) for pad, layout in zip(pads, layouts, strict=True)],
        device=model.device,
    )
    mask = position_ids = None
    if any(pads):
        positions = torch.arange(width) - torch.tensor(pads)[:, None]  # [B, N]
        mask = (positions >= 0).long().to(model.device)
        position_ids = positions.clamp(min=0).to(model.device)
    targets = [_shifted(layout.target_span, pad) for layout, pad in zip(layouts, pads, strict=True)]
    longest = max(end - start for start, end in targets)
    rows = torch.zeros(len(layouts), longest, dtype=torch.int64)
    shares = torch.zeros(len(layouts), 1, longest)
    for index, (start, end) in enumerate(targets):
        rows[index] = start  # padded rows repeat the first target row; their share is 0
        rows[index, : end - start] = torch.arange(start, end)
        shares[index, :, : end - start] = 1 / (end - start)
    capture = JointCapture(
        rows=rows.to(model.device),
        shares=shares.to(model.device),
        sources=[
            [_shifted(span, pad) for span in ranges]
            for ranges, pad in zip(spans, pads, strict=True)
        ],
        depth=model.depth,
    )
    model.run(input_ids, capture, position_ids=position_ids, attention_mask=mask)
    mass = _captured(model, capture)[:, :, 0]
    return [mass[:, index, :, :count] for index, count in enumerate(map(len, spans))]


def read_answer(
    model: ScoringModel, layout: AnswerLayout, targets: Sequence[Span], sources: Sequence[Span]
) -> list[Tensor]:
    """Read the attention of parts of a finished answer to parts of its prompt.

    The rows read are those that predict the answer's tokens, each one token earlier, as in the
    reference implementation of AT2. `targets` are half-open ranges of `layout.answer_ids`, none of
    them empty, and `sources` of `layout.input_ids`.
    """
    start = len(layout.input_ids) - len(layout.answer_ids) - 1  # this row predicts the first token
    first, last = min(begin for begin, _ in targets), max(end for _, end in targets)
    tokens = torch.arange(first, last, device=model.device)
    shares = [((tokens >= begin) & (tokens < end)) / (end - begin) for begin, end in targets]
    capture = JointCapture(
        rows=(tokens + start)[None],
        shares=torch.stack(shares)[None],
        sources=[sources],
        depth=model.depth,
    )
    model.run(torch.tensor([layout.input_ids], device=model.device), capture)
    return list(_captured(model, capture)[:, 0].unbind(1))


def _captured(model: ScoringModel, capture: JointCapture) -> Tensor:
    """Return the mass of all layers in use, [L, B, K, H, S].

    Layers of a hybrid model that have no attention capture nothing: their features are 0.
    """
    shape = next(iter(capture.captured.values())).shape  # [B, K, H, S]
    read = torch.zeros(model.depth, *shape, device=model.device)
    for layer, values in capture.captured.items():
        read[layer] = values
    return read


def _shifted(span: Span, pad: int) -> Span:
    return span[0] + pad, span[1] + pad
