"""From features of attention to scores and probabilities: head weights, and what calibrates them.

Imports `reading`, `model`, `options` and what is below; imported by `pruning`, `training`, the
pruner and the attributor. Only `score_estimator` imports torch itself.
"""
