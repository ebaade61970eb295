"""A question with its chunks and a finished answer, read in one causal pass.

Targets are the places that predict the answer's tokens, each one token earlier, as in the
reference implementation of AT2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from at2_rag.prompt.layout import AnswerLayout
from at2_rag.reading.attention import JointCapture, Span, SpanAttention
from at2_rag.reading.scoring_model import ScoringModel


def read_answer(
    model: ScoringModel, layout: AnswerLayout, targets: Sequence[Span], sources: Sequence[Span]
) -> list[SpanAttention]:
    """Read the attention of parts of an answer to parts of its prompt.

    Args:
        model: The scoring model.
        layout: A joint prompt with an answer, within the model's window.
        targets: Parts of the answer, half-open ranges in `layout.answer_ids`; none empty.
        sources: Parts of the prompt, half-open ranges in `layout.input_ids`; an empty one has no
            mass, and the log ratio of what is never seen.

    Returns:
        One `SpanAttention` a target, over the layers in use.
    """
    device = model.device
    # The place before the answer's first token predicts it.
    start = len(layout.input_ids) - len(layout.answer_ids) - 1
    first, last = min(begin for begin, _ in targets), max(end for _, end in targets)
    places = torch.arange(first, last, device=device)
    shares = [((places >= begin) & (places < end)) / (end - begin) for begin, end in targets]
    capture = JointCapture(
        rows=(places + start)[None],
        shares=torch.stack(shares)[None],
        sources=[sources],
        prefixes=[(0, len(layout.prompt.prefix_ids))],
        depth=model.depth,
    )
    model.run(torch.tensor([layout.input_ids], device=device), capture)
    # Layers of a hybrid model that have no attention capture nothing: their features are 0.
    read = torch.zeros(2, model.depth, len(targets), model.heads, len(sources), device=device)
    for layer, values in capture.captured.items():
        read[:, layer] = values[:, 0]
    return [SpanAttention(read[0, :, part], read[1, :, part]) for part in range(len(targets))]
