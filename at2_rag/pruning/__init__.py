"""A question on its way to a result: `Request`, `Scorer`, `choose`.

Imports `readout`, `reading`, `selection` and what is below; imported by the pruner and by training,
which scores sentences as pruning does.
"""
