"""A sparse linear fit of what ablations did."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
import numpy.typing as npt

from at2_rag_evals.extras import import_extra

PENALTY = 0.01


def sparse_fit(
    masks: npt.NDArray[np.bool_], effects: npt.ArrayLike, *, tokens: int
) -> tuple[float, ...]:
    """Return each chunk's coefficient in a Lasso of an answer's effects on masks.

    As in B. Cohen-Wang et al., "ContextCite: Attributing Model Generation to Context", NeurIPS
    2024, section 3 and their package's defaults: masks are standardised, effects divided by the
    answer's number of tokens, the penalty is 0.01, and coefficients are scaled back.

    Args:
        masks: [M, S] bool, True for chunks that were kept.
        effects: The answer's logit-probability under each mask, [M].
        tokens: How many tokens the answer has.
    """
    linear_model = import_extra("sklearn.linear_model")
    kept = masks.astype(np.float64)
    spread = kept.std(0)
    spread[spread == 0] = 1.0  # kept always or never: nothing was seen, the coefficient is 0
    lasso = linear_model.Lasso(alpha=PENALTY, fit_intercept=True)
    lasso.fit((kept - kept.mean(0)) / spread, np.asarray(effects, dtype=np.float64) / tokens)
    return tuple(float(value) for value in lasso.coef_ / spread * tokens)


def fit_settings() -> dict[str, object]:
    """Return what decides a fit besides its data, as JSON-ready values."""
    import_extra("sklearn")
    return {"penalty": PENALTY, "scikit-learn": version("scikit-learn")}
