"""From features of attention to scores and probabilities: head weights, and what calibrates them.

Imports `reading`, `model`, `options` and what is below; imported by `pruning`, `training`, the
pruner and the attributor. No torch beyond what `reading` gives.
"""
