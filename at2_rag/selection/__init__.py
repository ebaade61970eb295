"""From scores and options to what is kept: pure arithmetic over indices, without torch.

Imports `options`, `arrays` and `errors`; imported by `pruning` and evals.
"""
