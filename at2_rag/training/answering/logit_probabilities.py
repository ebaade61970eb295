"""How likely an answer is, on a scale that doesn't end at certainty.

Logit-probabilities, log p - log(1 - p), are additive where probabilities saturate (B. Cohen-Wang et
al., "ContextCite: Attributing Model Generation to Context", NeurIPS 2024, section 3).
"""

from __future__ import annotations

import torch
from torch import Tensor

_LEAST_LOSS = 1e-20  # of an answer, in nats; what is less is as good as certain


def token_logit_probabilities(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return log p - log(1 - p) of each token, exact where p is next to 0 or 1.

    [..., A, V] next-token logits, [..., A] tokens -> [..., A] float32, a token's logit minus the
    log-sum-exp of all others'.
    """
    logits, index = logits.float(), tokens[..., None]
    others = logits.scatter(-1, index, -torch.inf).logsumexp(-1)
    return logits.gather(-1, index).squeeze(-1) - others


def log_probability(token_logits: Tensor) -> Tensor:
    """Return an answer's log-probability from its tokens' logits, [..., A] -> [...] float64."""
    return torch.nn.functional.logsigmoid(token_logits.double()).sum(-1)


def logit_probability(token_logits: Tensor) -> Tensor:
    """Return a whole answer's logit-probability from its tokens', [..., A] -> [...] float64."""
    log_p = log_probability(token_logits)
    # Next to 0, where log p is lost or vanishes, 1 - p is the sum of the tokens' exp(-logit).
    near = -(-token_logits.double()).logsumexp(-1)
    sure = log_p > -_LEAST_LOSS
    return torch.where(sure, near, log_p - (-torch.expm1(log_p.masked_fill(sure, -1))).log())
